"""Find code that looks at what calls it, for the instructor alone: it can forge what is observed in its process."""

import ast
import re
from collections.abc import Iterator, Sequence

from ftgrade.intake.language import as_python, parse_cell
from ftgrade.intake.notebook import Cell, Finding, make_finding

REACHING = "reaches-out"
NAMES = (
    "_getframe", "_current_frames", "currentframe", "f_back", "f_globals", "f_locals", "get_objects", "get_referrers",
    "get_referents", "__closure__", "cell_contents", "settrace", "setprofile", "__subclasses__", "tb_frame",
)  # fmt: skip
WORD = re.compile(rf"\b({'|'.join(map(re.escape, NAMES))})\b")
SHARED = frozenset(
    {"base64", "builtins", "contextlib", "ctypes", "functools", "importlib", "inspect", "io", "itertools", "json"}
    | {"marshal", "math", "numpy", "random", "re", "signal", "socket", "struct", "time", "torch", "types", "warnings"}
)
"""Modules whose functions the worker calls too."""
LOOKED_AT = SHARED | {"gc", "sys", "traceback"}
"""Modules of which a computed name may be a way to frames or objects."""


def reaching_findings(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Yield a finding for each cell that names a way to the frames or objects of what runs it.

    Whether an input was changed, what its gradient is and what became of a built model is seen in the submission's own
    process, and a model is built there. Code that replaces a function of a library can see or forge that. This is a
    search for the usual ways to write it: code that hides what it does isn't found.
    """
    for cell in cells:
        if found := sorted(set(WORD.findall(cell.source))):
            words = f"Cell {cell.number} uses {', '.join(found)}: code that looks at what calls it. Read the cell."
            yield make_finding(REACHING, words)
        if changed := set(replaced(cell.source)):
            words = f"Cell {cell.number} replaces {', '.join(sorted(changed))}, which others call too. Read the cell."
            yield make_finding(REACHING, words)
        if taken := set(computed(cell.source)):
            names = ", ".join(sorted(taken))
            words = f"Cell {cell.number} takes attributes of {names} by names that it computes. Read the cell."
            yield make_finding(REACHING, words)


def replaced(source: str) -> Iterator[str]:
    """Yield the attributes of shared modules that a cell sets; flags of `torch.backends` are nobody else's.

    >>> list(replaced("old = json.loads\\njson.loads = spy\\nsetattr(torch.Tensor, 'equal', spy)"))
    ['json.loads', 'torch.Tensor']
    >>> list(replaced("import json as j\\nj.loads = spy\\nvars(j).update(dumps=spy)"))
    ['json.loads', 'json']
    >>> list(replaced("torch.backends.cudnn.deterministic = True\\nx = torch.ones(2)"))
    []
    """
    tree = ast.Module(parse_cell(as_python(source)) or [], [])
    known = imported_names(tree)
    for node in ast.walk(tree):
        for place in set_places(node):
            head, dot, rest = dotted(place).partition(".")
            path = known.get(head, head) + dot + rest
            if path.partition(".")[0] in SHARED and not path.startswith("torch.backends"):
                yield path


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Return the full names of what a cell imports under another name; `np` is numpy in every notebook.

    >>> imported_names(ast.parse("import json as j\\nfrom torch import nn"))
    {'np': 'numpy', 'j': 'json', 'nn': 'torch.nn'}
    """
    found = {"np": "numpy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.asname: one.name for one in node.names if one.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def dotted(node: ast.expr) -> str:
    """Return a name with its attributes, or nothing for another expression.

    >>> dotted(ast.parse("torch.nn.init", mode="eval").body), dotted(ast.parse("f(x).y", mode="eval").body)
    ('torch.nn.init', '')
    """
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def set_places(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what a piece of code sets: an attribute by any statement, or an object through `setattr` and its kin."""
    match node:
        case ast.Attribute(ctx=ast.Store() | ast.Del()):
            yield node
        case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[owner, *_]):
            yield owner
        case ast.Call(func=ast.Attribute(attr="__setattr__" | "object" | "dict"), args=[owner, *_]):
            yield owner  # `patch.object(json, …)`
        case ast.Call(
            func=ast.Name(id="patch") | ast.Attribute(attr="patch"), args=[ast.Constant(value=str(path)), *_]
        ):
            yield ast.Name(path)
        case ast.Call(func=ast.Name(id="vars"), args=[owner]):
            yield owner
        case ast.Attribute(value=owner, attr="__dict__"):
            yield owner
        case _:
            pass


def computed(source: str) -> Iterator[str]:
    """Yield the modules of which a cell takes an attribute by a name that it computes.

    >>> list(computed("import sys\\ngetattr(sys, '_get' + 'frame')()"))
    ['sys']
    >>> list(computed("getattr(torch, 'ones')(2); getattr(model, name)"))
    []
    """
    tree = ast.Module(parse_cell(as_python(source)) or [], [])
    known = imported_names(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, name, *_]) if not isinstance(name, ast.Constant):
                head = dotted(owner).partition(".")[0]
                if known.get(head, head).partition(".")[0] in LOOKED_AT - {"torch", "numpy", "math"}:
                    yield dotted(owner)
            case _:
                pass


__all__ = ["REACHING", "reaching_findings"]
