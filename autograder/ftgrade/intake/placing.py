"""Match a submission's cells with the released ones, whatever became of their marks, types and places.

Given cells run as they were released. An answer counts wherever it stands, as long as there is no doubt which function
or text is meant; an untouched stub never replaces a written function. Each such case is a finding. Matching looks at
texts and parses code within bounds, and runs nothing.
"""

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftgrade.errors import StudentFault
from ftgrade.intake.gate import line
from ftgrade.intake.notebook import Cell, Finding, make_finding, parse_submission

MAX_PARSED = 300_000
"""A submission whose cells with answers hold more characters than this is searched line by line instead of parsed."""
UNWRITTEN = "YOUR ANSWER HERE"
"""The text that nbgrader's release puts into the cell of an answer in words."""
MIN_WORDS = 3  # of a text that may be an answer
MAX_SYMBOLS = 0.06  # the share of brackets and operators in a text that is prose
WORD = re.compile(r"[^\W\d_]{2,}")
SYMBOLS = re.compile(r"[()\[\]{}=<>+*/\\@|]")
MAGIC_LINE = re.compile(r"^[ \t]*[%!].*$", re.MULTILINE)
OTHER_LANGUAGE = re.compile(r"\s*%%(?!(?:time|capture|prun)\b)")
STUB_WAS_HERE = "# An untouched stub stood here; the function is written in another place."
DOCSTRING = re.compile(r'"""[^"]*(?:"{1,2}[^"]+)*"""')
COMMENT = re.compile(r"[ \t]+#")  # an indented one, since a line of a text may begin with it too
FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ReleasedCell:
    """One cell of the released notebook."""

    grade_id: str
    kind: str
    source: str
    grade: bool
    solution: bool
    locked: bool
    points: float | None
    checksum: str = ""

    @property
    def is_answer(self) -> bool:
        return self.solution and not self.locked

    @property
    def is_given(self) -> bool:
        return self.kind == "code" and not self.solution and not self.grade

    @property
    def is_check(self) -> bool:
        return self.grade and not self.solution

    @property
    def is_words(self) -> bool:
        return self.is_answer and self.kind != "code"


def released_of(built: Iterable[dict[str, Any]]) -> list[ReleasedCell]:
    """Return the released cells of a built notebook's marked cells, which are our own."""
    marked = ((cell, cell["metadata"]["nbgrader"]) for cell in built)
    return [
        ReleasedCell(
            mark["grade_id"], cell["cell_type"], "".join(cell["source"]), mark["grade"], mark["solution"],
            mark["locked"], mark.get("points"),
        )
        for cell, mark in marked
    ]  # fmt: skip


def place_cells(handed_in: Sequence[Cell], released: Sequence[ReleasedCell]) -> tuple[list[Cell], list[Finding]]:
    """Return a submission's cells with the ids that they deserve and with what was put back; say what was found.

    A cell that was put back has a negative number. Without released cells nothing is changed.
    """
    cells = free_edited_checks(name_by_text(list(handed_in), released), released)
    told: list[Finding] = []
    for step in (restore_given, place_answers, place_words):
        cells, found = step(cells, released)
        told += found
    return cells, [*told, *repeated_cells(handed_in, released)]


def cells_to_run(cells: Iterable[Cell], released: Sequence[ReleasedCell]) -> list[Cell]:
    """Return the code cells that are run, in order: neither those of checks nor an answer in words."""
    left = {cell.grade_id for cell in released if cell.is_check or cell.is_words}
    return [cell for cell in cells if cell.kind == "code" and cell.grade_id not in left]


def is_untouched_notebook(data: bytes, released: Sequence[ReleasedCell]) -> bool:
    """Say whether a notebook's bytes hold nothing but what was released; what can't be read holds nothing.

    No code is parsed, since hostile code can end the process that parses it.
    """
    try:
        cells = parse_submission(data).cells
    except StudentFault:
        return True
    known = {cell.grade_id: cell for cell in released}
    texts = {bare_code(cell.source) for cell in released} | {UNWRITTEN, ""}
    return all(
        (cell.grade_id in known and not known[cell.grade_id].is_answer) or bare_code(cell.source) in texts
        for cell in cells
    )


def bare_code(text: str) -> str:
    """Return a text without docstrings, comments and empty lines; a personal question differs in its docstring alone.

    >>> bare_code("def f():\\n    # YOUR CODE HERE\\n    raise NotImplementedError()")
    'def f():\\n    raise NotImplementedError'
    """
    lines = DOCSTRING.sub("", text).replace("NotImplementedError()", "NotImplementedError").splitlines()
    return "\n".join(text.rstrip() for text in lines if text.strip() and not COMMENT.match(text))


def plain(text: str) -> str:
    """Return a text without what an editor changes by itself: line ends, and spaces at ends.

    >>> plain("a  \\r\\n\\tb\\n\\n")
    'a\\n\\tb'
    """
    return "\n".join(line.rstrip() for line in text.splitlines()).strip()


def name_by_text(cells: list[Cell], released: Sequence[ReleasedCell]) -> list[Cell]:
    """Give a cell that has lost its mark the id of the released cell whose text it has."""
    names = {(cell.kind, plain(cell.source)): cell.grade_id for cell in reversed(released) if not cell.is_answer}
    known = {cell.grade_id for cell in released}
    there = {cell.grade_id for cell in cells}
    named: list[Cell] = []
    for cell in cells:
        name = None if cell.grade_id in known else names.get((cell.kind, plain(cell.source)))
        if name is not None and name not in there:
            there.add(line(name))
            cell = replace(cell, grade_id=line(name))
        named.append(cell)
    return named


def free_edited_checks(cells: list[Cell], released: Sequence[ReleasedCell]) -> list[Cell]:
    """Take its mark from a check's cell, or that of an answer in words, if a student wrote code into it."""
    texts = {cell.grade_id: plain(cell.source) for cell in released if cell.is_check or cell.is_words}
    return [
        replace(cell, grade_id=None)
        if cell.grade_id in texts
        and cell.kind == "code"
        and plain(cell.source) != texts[cell.grade_id]
        and defines_something(cell.source)
        else cell
        for cell in cells
    ]


def defines_something(source: str) -> bool:
    tree = parse(source)
    makers = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.Import | ast.ImportFrom
    return tree is not None and any(isinstance(node, makers) for node in tree.body)


def repeated_cells(cells: Sequence[Cell], released: Sequence[ReleasedCell]) -> list[Finding]:
    """Return a finding on ids that several cells claim, copies of locked cells aside."""
    locked = {(cell.grade_id, plain(cell.source)) for cell in released if not cell.is_answer}
    claimed = Counter(cell.grade_id for cell in cells if (cell.grade_id, plain(cell.source)) not in locked)
    if twice := sorted(name for name, count in claimed.items() if name is not None and count > 1):
        words = f"These cells stand more than once: {', '.join(twice)}. Their code ran in order, untouched stubs aside."
        return [make_finding("duplicate-cells", words)]
    return []


# ----------------------------------------------------------------------------------------------------- given cells


def restore_given(cells: list[Cell], released: Sequence[ReleasedCell]) -> tuple[list[Cell], list[Finding]]:
    """Put given cells that were changed or deleted back, before the student's version of them if there is one."""
    cells, told = list(cells), list[Finding]()
    known = {cell.grade_id for cell in released}
    for position, given in enumerate(released):
        if not given.is_given:
            continue
        mine = [place for place, cell in enumerate(cells) if cell.grade_id == given.grade_id]
        mine = mine or alike(cells, given, known)
        edited = [place for place in mine if not is_same(cells[place], given)]
        for place in edited:
            cells[place] = replace(cells[place], grade_id=None)
            told.append(make_finding("given-changed", changed_words(cells[place])))
        if not mine or mine[0] in edited:
            goal = mine[0] if mine else place_in_order(cells, released, position)
            cells.insert(goal, Cell(-position - 1, "code", given.source, line(given.grade_id)))
        if not mine:
            first = given.source.partition("\n")[0]
            words = f"A given cell is missing, the one that begins with `{first}`. It was put back and ran."
            told.append(make_finding("given-missing", words))
    return cells, told


def is_same(cell: Cell, given: ReleasedCell) -> bool:
    return cell.kind == given.kind and plain(cell.source) == plain(given.source)


def changed_words(cell: Cell) -> str:
    if cell.kind != "code":
        return f"Cell {cell.number} is a given cell and was turned into a {cell.kind} cell. The released version ran."
    return f"Cell {cell.number} is a given cell and was changed. The released version ran first, then the changed one."


def alike(cells: Sequence[Cell], given: ReleasedCell, known: set[str]) -> list[int]:
    """Return the place of the unmarked code cell that holds most lines of a given one, if it holds half of them."""
    wanted = {text.strip() for text in given.source.splitlines()} - {""}
    shared = {
        place: len(wanted & {text.strip() for text in cell.source.splitlines()})
        for place, cell in enumerate(cells)
        if cell.kind == "code" and cell.grade_id not in known
    }
    best = max(shared, key=lambda place: (shared[place], -place), default=None)
    return [] if best is None or 2 * shared[best] < max(len(wanted), 2) else [best]


def place_in_order(cells: Sequence[Cell], released: Sequence[ReleasedCell], position: int) -> int:
    """Return where a released cell belongs: after the one before it, and before the code after it."""
    places: dict[str | None, int] = {}
    for place, cell in enumerate(cells):
        places.setdefault(cell.grade_id, place)
    before = (places[one.grade_id] + 1 for one in reversed(released[:position]) if one.grade_id in places)
    later = released[position + 1 :]
    after = [places[one.grade_id] for one in later if one.kind == "code" and one.grade_id in places]
    return min(next(before, 0), min(after, default=len(cells)))


# ------------------------------------------------------------------------------------------------- answers as code


@dataclass(frozen=True, slots=True)
class Definition:
    """Where a cell defines a name: its lines, from 1, and whether it's a stub at the cell's top level."""

    name: str
    first: int = 0
    last: int = 0
    is_stub: bool = False


def place_answers(cells: list[Cell], released: Sequence[ReleasedCell]) -> tuple[list[Cell], list[Finding]]:
    """Find the functions that were asked for, and take out untouched stubs of functions that are written."""
    names = [cell.grade_id for cell in released if cell.is_answer and not cell.is_words]
    cells, told = turn_into_code(cells, names)
    found = definitions_of(cells, names)
    hosts = {one.name: place for place, ones in found.items() for one in ones if not one.is_stub}
    if late := late_stubs(cells, found):
        told.append(make_finding("stub-left-out", left_out_words(late)))
    moved = [name for name in hosts if not stands_at_home(name, cells, found)]
    if moved:
        told.append(make_finding("answer-found", moved_words({name: cells[hosts[name]].number for name in moved})))
    cells = without_stubs(cells, found, set(hosts))
    cells = show_at_home(cells, found, hosts, moved, released)
    emptied = {place for place, cell in enumerate(cells) if place in found and not cell.source}
    return [cell for place, cell in enumerate(cells) if place not in emptied], told


def turn_into_code(cells: list[Cell], names: Sequence[str]) -> tuple[list[Cell], list[Finding]]:
    """Turn raw cells into code if no code cell holds their answer; of a text cell with an answer's mark only tell."""
    if not any(may_hold_code(cell, names) for cell in cells):
        return cells, []
    written = {one.name for ones in definitions_of(cells, names).values() for one in ones if not one.is_stub}
    turned, told = list[Cell](), list[Finding]()
    for cell in cells:
        if may_hold_code(cell, names):
            source = FENCE.sub("", cell.source)
            held = {one.name for one in find_definitions(source, names) if not one.is_stub} - written
            if held and parse(source) is not None:
                told.append(make_finding("answer-not-code", not_code_words(cell, sorted(held))))
                if cell.kind == "raw":
                    cell = replace(cell, kind="code", source=source)
                    written |= held
        turned.append(cell)
    return turned, told


def may_hold_code(cell: Cell, names: Sequence[str]) -> bool:
    return cell.kind == "raw" or (cell.kind == "markdown" and cell.grade_id in names)


def not_code_words(cell: Cell, names: Sequence[str]) -> str:
    if cell.kind == "raw":
        return f"Cell {cell.number} is a raw cell and holds {listed(names)}. It ran as code."
    seen = f"Cell {cell.number} is a text cell, so {listed(names)} in it did not run."
    return f"{seen} Turn it into a code cell, and hand in again."


def definitions_of(cells: Sequence[Cell], names: Sequence[str]) -> dict[int, list[Definition]]:
    """Return what the code cells define of these names, by the cell's place; cells that define nothing are left out."""
    holds = [cell.kind == "code" and any(name in cell.source for name in names) for cell in cells]
    parses = sum(len(cell.source) for cell, held in zip(cells, holds, strict=True) if held) <= MAX_PARSED
    found = {
        place: find_definitions(cell.source, names, parses)
        for place, (cell, held) in enumerate(zip(cells, holds, strict=True))
        if held
    }
    return {place: ones for place, ones in found.items() if ones}


def find_definitions(source: str, names: Sequence[str], parses: bool = True) -> list[Definition]:
    """Return where a cell's code defines these names, in order.

    >>> find_definitions("def f(x):\\n    'Say.'\\n    raise NotImplementedError()\\nf = abs", ["f"])
    [Definition(name='f', first=1, last=3, is_stub=True), Definition(name='f', first=4, last=4, is_stub=False)]
    """
    if not any(name in source for name in names) or OTHER_LANGUAGE.match(source):
        return []
    tree = parse(source) if parses else None
    if tree is not None:
        return [one for node in statements(tree.body) for one in definitions_in(node) if one.name in names]
    text = re.compile(rf"^(?:(?:async[ \t]+)?def[ \t]+)?({'|'.join(names)})[ \t]*[=(]", re.MULTILINE)
    return [Definition(name) for name in text.findall(source)]


def parse(source: str) -> ast.Module | None:
    """Return a cell's code without its magics, or None if it isn't Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(MAGIC_LINE.sub("", source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield statements in order, also those of branches and loops, and none of functions and classes."""
    waiting = list(reversed(body))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt | ast.excepthandler)]
            waiting += reversed(inner)


def definitions_in(node: ast.AST) -> Iterator[Definition]:
    """Yield the names that a statement binds."""
    lines = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        yield Definition(node.name, first, lines[1], is_stub(node) and node.col_offset == 0)
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (Definition(one.asname or one.name, *lines) for one in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if node.value else []
        bound = (one for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))
        yield from (Definition(one.id, *lines) for one in bound if isinstance(one.ctx, ast.Store))


def is_stub(node: ast.AST) -> bool:
    """Say whether a function has nothing but a docstring and `raise NotImplementedError`."""
    if not isinstance(node, ast.FunctionDef):
        return False
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    raised = body[0].exc if len(body) == 1 and isinstance(body[0], ast.Raise) else None
    raised = raised.func if isinstance(raised, ast.Call) else raised
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"


def late_stubs(cells: Sequence[Cell], found: dict[int, list[Definition]]) -> dict[str, list[int]]:
    """Return the numbers of the cells whose stub would replace a function that is written before it, by its name."""
    written: set[str] = set()
    late: dict[str, list[int]] = {}
    for place, ones in found.items():
        for one in ones:
            if not one.is_stub:
                written.add(one.name)
            elif one.name in written:
                late.setdefault(one.name, []).append(cells[place].number)
    return late


def without_stubs(cells: Sequence[Cell], found: dict[int, list[Definition]], written: set[str]) -> list[Cell]:
    """Return the cells with a comment in place of each stub of a written function; lines keep their numbers.

    A cell that held such stubs alone is left out by its empty text.
    """
    bare = list(cells)
    for place, ones in found.items():
        lines = re.split(r"\r\n|\r|\n", cells[place].source)
        for one in ones:
            if one.is_stub and one.name in written:
                lines[one.first - 1 : one.last] = [STUB_WAS_HERE, *[""] * (one.last - one.first)]
        if STUB_WAS_HERE in lines:
            only = all(text in ("", STUB_WAS_HERE) for text in map(str.strip, lines))
            home = any(one.name == cells[place].grade_id and not one.is_stub for one in ones)
            name = cells[place].grade_id if home or cells[place].grade_id not in written else None
            bare[place] = replace(cells[place], source="" if only else "\n".join(lines), grade_id=name)
    return bare


def left_out_words(left_out: dict[str, list[int]]) -> str:
    places = "; ".join(f"{name} in cell {listed(map(str, numbers))}" for name, numbers in left_out.items())
    return f"An untouched stub stands after the written function and was left out: {places}."


def moved_words(numbers: dict[str, int]) -> str:
    by_cell: dict[int, list[str]] = {}
    for name, number in numbers.items():
        by_cell.setdefault(number, []).append(name)
    places = "; ".join(f"{listed(names)} in cell {number}" for number, names in by_cell.items())
    return f"Answers that aren't in the cells marked for them were found by their functions' names: {places}."


def listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def stands_at_home(name: str, cells: Sequence[Cell], found: dict[int, list[Definition]]) -> bool:
    """Say whether a cell with the answer's mark defines the answer."""
    return any(
        cells[place].grade_id == name and any(one.name == name and not one.is_stub for one in ones)
        for place, ones in found.items()
    )


def show_at_home(
    cells: list[Cell], found: dict[int, list[Definition]], hosts: dict[str, int], moved: Sequence[str],
    released: Sequence[ReleasedCell],
) -> list[Cell]:  # fmt: skip
    """Mark each cell that holds one answer alone; for other answers add a cell that says where they are."""
    known = {cell.grade_id for cell in released}
    positions = {cell.grade_id: position for position, cell in enumerate(released)}
    shown, pointers = list(cells), list[Cell]()
    for name in moved:
        host = cells[hosts[name]]
        alone = {one.name for one in found[hosts[name]]} == {name}
        if alone and host.grade_id not in known:
            shown[hosts[name]] = replace(host, grade_id=line(name))
        else:
            words = f"# {name} is written in cell {host.number}."
            pointers.append(Cell(-positions[name] - 1, "code", words, line(name)))
    return [*shown, *pointers]


# ------------------------------------------------------------------------------------------------ answers in words


def place_words(cells: list[Cell], released: Sequence[ReleasedCell]) -> tuple[list[Cell], list[Finding]]:
    """Find the answers in words; where it's unclear which text is meant, all of it goes to a person."""
    told: list[Finding] = []
    for position, asked in enumerate(released):
        if asked.is_words:
            cells, found = place_text(cells, released, position)
            told += found
    return cells, told


def place_text(cells: list[Cell], released: Sequence[ReleasedCell], position: int) -> tuple[list[Cell], list[Finding]]:
    """Find one answer in words: by its mark, else where it belongs, else by being no released text."""
    name = released[position].grade_id
    nothing = {plain(released[position].source), UNWRITTEN, ""}
    marked = {plain(cell.source): cell for cell in cells if cell.grade_id == name and plain(cell.source) not in nothing}
    rest = [cell for cell in cells if cell.grade_id != name]
    if len(marked) == 1:
        (answer,) = marked.values()
        told = [] if answer.kind == "markdown" else [words_found(name, [answer])]
        return [*rest, replace(answer, kind="markdown")], told
    has_cell = len(rest) < len(cells)
    if found := list(marked.values()) or ([] if has_cell else texts_in_place(cells, released, position)):
        rest = [cell for cell in rest if cell not in found]
        return [*rest, joined(found, name)], [words_found(name, found)]
    found = texts_in_place(cells, released, position)
    if found := found or [
        cell for cell in foreign_texts(cells, released) if cell.kind != "code" or is_long_prose(cell)
    ]:
        where = f"Text of your own stands in {cell_numbers(found)}: a person looks whether it is the answer."
        words = f"No cell that is marked for your answer in words ({name}) holds one. {where}"
        return [*rest, joined(found, name)], [make_finding("words-unclear", words)]
    return rest, []


def words_found(name: str, found: Sequence[Cell]) -> Finding:
    words = f"Your answer in words ({name}) was found in {cell_numbers(found)}. A person reads it."
    return make_finding("words-found", words)


def cell_numbers(cells: Sequence[Cell]) -> str:
    numbers = list(dict.fromkeys(str(cell.number) for cell in cells))
    return f"cell{'s' if len(numbers) > 1 else ''} {listed(numbers)}"


def joined(cells: Sequence[Cell], name: str) -> Cell:
    """Return one cell of text for an answer in words that stands in several."""
    return Cell(cells[0].number, "markdown", "\n\n".join(cell.source for cell in cells), line(name))


def texts_in_place(cells: Sequence[Cell], released: Sequence[ReleasedCell], position: int) -> list[Cell]:
    """Return the texts between the released cells that stand before and after an answer in words."""
    places: dict[str | None, int] = {
        cell.grade_id: place for place, cell in enumerate(cells) if cell.grade_id is not None
    }
    before = next((one.grade_id for one in reversed(released[:position]) if one.grade_id in places), None)
    after = next((one.grade_id for one in released[position + 1 :] if one.grade_id in places), None)
    if before is None:
        return []
    first, last = places[before], places[after] if after is not None else len(cells)
    return [cell for cell in foreign_texts(cells[first:last], released) if cell.kind != "code" or is_prose(cell)]


def foreign_texts(cells: Sequence[Cell], released: Sequence[ReleasedCell]) -> list[Cell]:
    """Return the cells whose text isn't released, and what was added to released texts."""
    texts = {cell.grade_id: cell for cell in released if cell.kind == "markdown" and not cell.is_answer}
    known = {cell.grade_id for cell in released}
    nothing = {plain(cell.source) for cell in released if cell.is_words} | {UNWRITTEN}
    found: list[Cell] = []
    for cell in cells:
        if cell.grade_id in texts:
            given = {text.strip() for text in texts[cell.grade_id].source.splitlines()}
            added = [text for text in cell.source.splitlines() if text.strip() not in given]
            cell = replace(cell, source="\n".join(added))
        elif cell.grade_id in known or (cell.grade_id or "").startswith("text-"):  # of an earlier release
            continue
        if len(WORD.findall(cell.source)) >= MIN_WORDS and plain(cell.source) not in nothing:
            found.append(cell)
    return found


def is_prose(cell: Cell) -> bool:
    """Say whether a code cell holds words: it isn't Python, or only comments and texts, and has few symbols."""
    tree, text = parse(cell.source), MAGIC_LINE.sub("", cell.source)
    if tree is not None and any(not isinstance(node, ast.Expr) or not is_text(node.value) for node in tree.body):
        return False
    return len(WORD.findall(text)) >= MIN_WORDS and len(SYMBOLS.findall(text)) <= MAX_SYMBOLS * len(text)


def is_long_prose(cell: Cell) -> bool:
    """Say whether a code cell can only be an answer in words: no Python, and lines of many words."""
    words, lines = len(WORD.findall(cell.source)), plain(cell.source).count("\n") + 1
    return is_prose(cell) and parse(cell.source) is None and words >= 3 * MIN_WORDS and words >= 5 * lines


def is_text(node: Any) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


__all__ = ["ReleasedCell", "cells_to_run", "is_untouched_notebook", "place_cells", "plain", "released_of"]
