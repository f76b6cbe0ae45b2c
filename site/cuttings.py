"""What an exercise needs of its part's file, cut out of it: its function, its cases, its mistakes, and their imports.

A part's file imports torch at its top, and no browser has torch. Many exercises never touch it. Here the names that an
exercise uses are followed through the file, and what they lead to is written into a file of its own.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CHECKS = "ftmath.exercises.exercise"
"""Where an exercise's own words come from; it goes along."""


def companion(module: str, library: Path, stdlib: Iterable[str]) -> bool:
    """Say whether a module of the library can go along whole: besides Python's own it names torch's types at most."""
    path = library.parent / f"{module.replace('.', '/')}.py"
    if not module.startswith("ftmath.") or not path.is_file():
        return False
    lines = [line for node in ast.parse(path.read_text("utf-8")).body for _, line in imported(node)]
    return {line.split()[1].partition(".")[0] for line in lines} <= {*stdlib, "torch"}


@dataclass(frozen=True, slots=True)
class Cutting:
    """An exercise, the text of all that it needs, and the packages that are neither ours nor Python's."""

    number: str
    function: str
    title: str
    call: str
    needed: tuple[ast.stmt, ...]
    imports: tuple[str, ...]
    foreign: frozenset[str]


def cuttings(path: Path, stdlib: Iterable[str]) -> list[Cutting]:
    """Return the exercises of a part's file, in order; `stdlib` names the modules that are always there."""
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    known = frozenset(stdlib)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and called(node) == "Exercise"]
    owners = {name: node for node in tree.body for name in defined(node)}
    imports = {name: line for node in tree.body for name, line in imported(node)}
    return [cutting(call, text, owners, imports, known) for call in calls]


def cutting(
    call: ast.Call, text: str, owners: dict[str, ast.stmt], imports: dict[str, str], known: frozenset[str]
) -> Cutting:
    """Return what one call of `Exercise` needs."""
    names, waiting = set[str](), [*used(call)]
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += used(owners[name]) if name in owners else ()
    needed = {id(owners[name]): owners[name] for name in names & owners.keys()}
    lines = sorted(imports[name] for name in names & imports.keys())
    modules = {line.split()[1] for line in lines} - {CHECKS}
    number, title, function = (ast.unparse(argument).strip("'\"") for argument in call.args[:3])
    return Cutting(
        number, function, title, ast.get_source_segment(text, call) or "",
        tuple(sorted(needed.values(), key=lambda node: node.lineno)), tuple(lines),
        frozenset(module for module in modules if module.partition(".")[0] not in known),
    )  # fmt: skip


def called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a file gives a meaning, other than by an import."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def imported(node: ast.stmt) -> list[tuple[str, str]]:
    """Return the names that an import brings, each with a line that brings it alone."""
    if isinstance(node, ast.Import):
        lines = [(alias, f"import {alias.name}") for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        lines = [(alias, f"from {node.module} import {alias.name}") for alias in node.names]
    else:
        return []
    return [
        (alias.asname or alias.name.partition(".")[0], line + (f" as {alias.asname}" if alias.asname else ""))
        for alias, line in lines
    ]


def used(node: ast.AST) -> list[str]:
    """Return the names that run when a piece of code does; what annotates it doesn't run."""
    found: list[str] = []
    waiting: list[ast.AST] = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load):
            found.append(one.id)
        for field, value in ast.iter_fields(one):
            if field not in ("annotation", "returns"):
                waiting += [
                    child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)
                ]
    return found


def written(part: Path, chosen: list[Cutting]) -> str:
    """Return a part's file that holds the chosen exercises alone."""
    text = part.read_text("utf-8")
    lines = text.splitlines()
    needed = {node.lineno: node for one in chosen for node in one.needed}
    pieces = ["\n".join(lines[first_line(node) - 1 : node.end_lineno]) for _, node in sorted(needed.items())]
    imports = sorted({line for one in chosen for line in one.imports})
    calls = ",\n    ".join(one.call for one in chosen)
    head = [f'"""{ast.get_docstring(ast.parse(text))}"""', "from __future__ import annotations", *imports]
    return "\n\n".join(["\n".join(head), *pieces, f"EXERCISES: list[Exercise] = [\n    {calls}\n]\n"])


def first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])
