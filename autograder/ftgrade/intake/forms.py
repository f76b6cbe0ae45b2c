"""The form of an answer: what is left of it without layout, comments and the choice of names. Nothing is run.

A function's answer is its last definition in the notebook with the student's own functions that it uses. Docstrings,
comments and annotations are dropped, and the names that the answer itself binds are numbered in order of appearance.
What it can't see: a function made by `exec` or a lambda, and anyone who writes the same idea in another order.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ftgrade.intake.language import as_python, parse_cell
from ftgrade.intake.notebook import Cell

MAX_PARSED, MAX_PARSED_ALL = 20_000, 100_000  # characters of a cell, and of a notebook
Forms = Mapping[str, tuple[str, ...]]
"""The parts of a student's answers, by function; a function that wasn't written is left out."""

DROPPED = {"ctx", "annotation", "returns", "type_comment", "type_params", "kind"}
NAMING = {
    ("Name", "id"), ("arg", "arg"), ("FunctionDef", "name"), ("AsyncFunctionDef", "name"), ("ClassDef", "name"),
    ("ExceptHandler", "name"), ("alias", "asname"), ("Global", "names"), ("Nonlocal", "names"),
    ("MatchAs", "name"), ("MatchStar", "name"),
}  # fmt: skip
NAME = "n:"


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition as a row of parts, in which names are still the student's, and the names that it binds."""

    parts: tuple[str, ...]
    binds: frozenset[str]


def answer_forms(cells: Iterable[Cell], functions: Sequence[str], given: Iterable[Cell] = ()) -> Forms:
    """Return the forms of a notebook's answers; what the notebook `given` to all defines takes no part."""
    handed_out = set(notebook_definitions(given).values())
    own = {name: one for name, one in notebook_definitions(cells).items() if one not in handed_out}
    found = {function: answer_parts(function, own) for function in functions}
    return {function: parts for function, parts in found.items() if parts}


@lru_cache(maxsize=512)
def definitions(source: str) -> Mapping[str, Definition]:
    """Return what a cell defines at its top, by name; nothing where it is no Python."""
    body = parse_cell(as_python(source)) or []
    return {one.name: flatten(one) for one in body if isinstance(one, ast.FunctionDef | ast.ClassDef)}


def flatten(node: ast.AST) -> Definition:
    """Return a definition's parts in order, by a walk that no depth of nesting can exhaust."""
    parts: list[str] = []
    binds: set[str] = set()
    waiting: list[ast.AST | str] = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            parts.append(one)
        elif not has_no_effect(one):
            if isinstance(one, ast.AnnAssign) and one.value is not None:
                one = ast.Assign([one.target], one.value)
            parts.append(type(one).__name__)
            below = list(children(one))
            if not (isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)):
                binds.update(part for part in below if isinstance(part, str) and part.startswith(NAME))
            waiting.extend(reversed(below))
    return Definition(tuple(parts), frozenset(binds))


def has_no_effect(node: ast.AST) -> bool:
    """Say whether a node does nothing: a docstring, another lone constant, `pass`, an annotation without a value."""
    lone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return lone or isinstance(node, ast.Pass) or (isinstance(node, ast.AnnAssign) and node.value is None)


@lru_cache
def fields_of(kind: type[ast.AST]) -> tuple[tuple[str, str], ...]:
    """Return the fields of a kind of node that count, each with the mark of its text: `n:` for a name."""
    return tuple(
        (field, NAME if (kind.__name__, field) in NAMING else f"{field}:")
        for field in kind._fields
        if field not in DROPPED
    )


def children(node: ast.AST) -> Iterable[ast.AST | str]:
    """Yield what stands below a node, names and values as text; a list that isn't empty is closed by a mark."""
    for field, mark in fields_of(type(node)):
        below = getattr(node, field, None)
        if isinstance(below, ast.AST):
            yield below
        elif isinstance(below, list):
            yield from (one if isinstance(one, ast.AST) else part_text(mark, one) for one in below)
            yield from ["end"] if below else []
        elif below is not None or isinstance(node, ast.Constant):
            yield part_text(mark, below)


def part_text(mark: str, value: object) -> str:
    return f"{NAME}{value}" if mark == NAME else mark + literal(value)


def literal(value: object) -> str:
    """Return a value's type and its text, cut; hexadecimal, as Python refuses to write long integers in decimal.

    >>> literal(1) == literal(True), literal(1) == literal(1.0), len(literal(16**6000)) < 300
    (False, False, True)
    """
    return f"{type(value).__name__} {hex(value) if isinstance(value, int) else repr(value):.200}"


def notebook_definitions(cells: Iterable[Cell]) -> dict[str, Definition]:
    """Return all that a notebook's code cells define, the last of each name."""
    found: dict[str, Definition] = {}
    room = MAX_PARSED_ALL
    for cell in cells:
        if cell.kind == "code" and "def " in cell.source and len(cell.source) <= min(room, MAX_PARSED):
            room -= len(cell.source)
            found.update(definitions(cell.source))
    return found


def answer_parts(function: str, own: Mapping[str, Definition]) -> tuple[str, ...]:
    """Return a function's parts and those of the student's functions that it uses, names numbered as they appear."""
    used = [function] if function in own else []
    known = set(used)
    for name in used:  # grows while it is walked
        named = (part[len(NAME) :] for part in own[name].parts if part.startswith(NAME))
        new = [other for other in dict.fromkeys(named) if other in own and other not in known]
        used += new
        known.update(new)
    binds = frozenset[str]().union(*(own[name].binds for name in used), (NAME + name for name in used))
    numbers: dict[str, str] = {}
    return tuple(
        numbers.setdefault(part, f"{NAME}{len(numbers)}") if part in binds else part
        for name in used
        for part in own[name].parts
    )


__all__ = ["Forms", "answer_forms", "answer_parts", "notebook_definitions"]
