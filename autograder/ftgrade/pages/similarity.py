"""Answers that students of a class wrote alike: read from their notebooks, compared by their shape, never run.

A function's answer is its last definition in the notebook with the student's own functions that it uses. Docstrings,
comments and annotations are dropped, and the names that the answer itself binds are numbered in order of appearance.
What it can't see: a function made by `exec` or a lambda, and anyone who writes the same idea in another order.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from ftgrade.guard import Mishap, guarded
from ftgrade.intake.language import as_python, parse_cell
from ftgrade.intake.notebook import Cell

LONG_ENOUGH = 80  # parts; a formula in one line with its signature has 30 to 60, and many rightly write it the same
ALIKE = 0.9
FEW, FEW_OF_MANY = 3, 0.02  # rare: no more students than this number, or than this share of the class
SMALL_CLASS = 10  # among fewer answers nobody can tell what is common
MAX_PARSED, MAX_PARSED_ALL = 20_000, 100_000  # characters of a cell, and of a notebook
MAX_COMPARED = 3_000  # parts; longer answers are only looked up as they are, since comparing takes their square

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


@dataclass(frozen=True, slots=True)
class Echo:
    """Students whose answers to one function are alike.

    `students` wrote exactly the same after normalising, and nobody else did; so did `others`, if there are any, and
    `likeness` is the share of parts that the two answers have in common, in order: 2 * common / (parts of one + parts
    of the other), 1 within one group. `near` counts who wrote at least nearly so, `of` all who wrote this function.
    """

    function: str
    students: tuple[str, ...]
    others: tuple[str, ...]
    likeness: float
    parts: int
    near: int
    of: int


# ------------------------------------------------------------------------------------------------------------- reading


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


# ----------------------------------------------------------------------------------------------------------- comparing


def similar_answers(
    notebooks: Iterable[tuple[str, Iterable[Cell]]], functions: Sequence[str], given: Iterable[Cell] = ()
) -> list[Echo]:
    """Return the answers of a class that are alike, long enough and rare, the most alike first.

    What the notebook `given` to all defines takes no part.
    """
    handed_out = set(notebook_definitions(given).values())
    answers: dict[str, dict[str, tuple[str, ...]]] = {function: {} for function in functions}
    for student, cells in notebooks:
        own = guarded(
            lambda cells=cells: {
                name: one for name, one in notebook_definitions(cells).items() if one not in handed_out
            }
        )
        if isinstance(own, Mishap):
            continue  # nobody's answers are like what can't be read
        for function in functions:
            if parts := answer_parts(function, own):
                answers[function][student] = parts
    found = [echo for function in functions for echo in echoes(function, answers[function])]
    return sorted(found, key=lambda echo: (-echo.likeness, -echo.parts, echo.students, echo.others))


def echoes(function: str, answers: Mapping[str, tuple[str, ...]]) -> list[Echo]:
    """Return who wrote one function alike; nothing in a class too small to tell what is common."""
    if len(answers) < SMALL_CLASS:
        return []
    few = max(FEW, int(FEW_OF_MANY * len(answers)))
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for student, parts in sorted(answers.items()):
        if len(parts) >= LONG_ENOUGH:
            groups[parts].append(student)
    forms = sorted(groups, key=len)
    who = [tuple(groups[form]) for form in forms]
    pairs = alike_pairs([mask_names(form) for form in forms if len(form) <= MAX_COMPARED])
    near = count_neighbours(who, pairs)
    found = [
        Echo(function, who[one], (), 1.0, len(forms[one]), near[one], len(answers))
        for one in range(len(forms))
        if 2 <= len(who[one]) <= few
    ]
    return found + [
        Echo(function, who[one], who[other], likeness, len(forms[one]), max(near[one], near[other]), len(answers))
        for one, other, likeness in pairs
        if max(near[one], near[other]) <= few
    ]


def count_neighbours(who: Sequence[tuple[str, ...]], pairs: Iterable[tuple[int, int, float]]) -> list[int]:
    """Return for each form how many students wrote it or one that is alike.

    >>> count_neighbours([("ada", "bob"), ("cyd",), ("dan",)], [(0, 1, 0.95)])
    [3, 3, 1]
    """
    counts = [len(students) for students in who]
    for one, other, _ in pairs:
        counts[one] += len(who[other])
        counts[other] += len(who[one])
    return counts


def mask_names(form: tuple[str, ...]) -> tuple[str, ...]:
    """Return a form in which every name of the answer's own is the same, so that one more variable shifts nothing."""
    return tuple(NAME if part.startswith(NAME) and part[len(NAME) :].isdecimal() else part for part in form)


def alike_pairs(forms: Sequence[tuple[str, ...]]) -> list[tuple[int, int, float]]:
    """Return the places of the forms that are alike, with their likeness; forms must be sorted by length.

    Only forms whose lengths allow it are compared: 2 * shorter / (shorter + longer) bounds the likeness.

    >>> alike_pairs([("a",) * 9 + ("b",), ("a",) * 9 + ("c",), ("a",) * 20])
    [(0, 1, 0.9)]
    """
    kinds = dict.fromkeys(part for form in forms for part in form)
    letters = {part: chr(min(0x100 + place, 0x10FFFF)) for place, part in enumerate(kinds)}
    texts = ["".join(map(letters.__getitem__, form)) for form in forms]
    found: list[tuple[int, int, float]] = []
    end = 0
    for one, text in enumerate(texts):
        while end < len(texts) and len(texts[end]) * ALIKE <= len(text) * (2 - ALIKE):
            end += 1
        others = texts[one + 1 : end]
        likeness = cdist([text], others, scorer=Indel.normalized_similarity, score_cutoff=ALIKE)[0] if others else []
        found += [(one, one + 1 + place, round(float(value), 3)) for place, value in enumerate(likeness) if value > 0]
    return found


__all__ = ["Echo", "similar_answers"]
