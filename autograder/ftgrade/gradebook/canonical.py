"""A submission's cells to the notebook that instructor and student see: the released cells, with the student's text."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ftgrade.intake.gate import Clean, clean
from ftgrade.intake.notebook import MAX_CELL_CHARACTERS, Cell

NotebookCell = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """One cell of the released notebook, as the gradebook recorded it."""

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


def canonical(handed_in: Sequence[Cell], released: Sequence[Known]) -> list[NotebookCell]:
    """Return every released cell once, in order, with the student's last text in the answers and all else ours.

    The student's own cells follow the released cell that they followed; markdown is shown as the text it is, so that
    none of it is run by a browser. Tags, attachments, outputs and all other metadata are left behind. Without any
    cells of a student the released notebook itself comes back.
    """
    known = {cell.grade_id: cell for cell in released}
    written = last_answers(handed_in, known)
    free = free_cells(handed_in, known, written)
    cells: list[NotebookCell] = list(placed(free.get("", [])))
    for cell in released:
        mine = written.get(cell.grade_id)
        cells.append(released_cell(cell, mine))
        cells.extend(placed(free.get(cell.grade_id, [])))
    for position, cell in enumerate(cells):
        cell["id"] = hashlib.sha256(f"{position}\0{cell['source']}".encode()).hexdigest()[:12]
    return cells


def last_answers(handed_in: Sequence[Cell], known: dict[str, Known]) -> dict[str, Cell]:
    """Return the last cell that the student wrote for each answer."""
    return {
        cell.grade_id: cell
        for cell in handed_in
        if cell.grade_id in known and known[cell.grade_id].is_answer and cell.kind == known[cell.grade_id].kind
    }


def free_cells(handed_in: Sequence[Cell], known: dict[str, Known], written: dict[str, Cell]) -> dict[str, list[Cell]]:
    """Return the student's own cells by the released cell that precedes them, and superseded answers among them."""
    free: dict[str, list[Cell]] = {}
    before = ""
    for cell in handed_in:
        if cell.grade_id in known and (not known[cell.grade_id].is_answer or written.get(cell.grade_id) is cell):
            before = cell.grade_id
        else:
            free.setdefault(before, []).append(cell)
    return free


def released_cell(cell: Known, mine: Cell | None) -> NotebookCell:
    """Return a released cell with the gradebook's flags; only an answer takes the student's text."""
    record: dict[str, Any] = {
        "grade_id": cell.grade_id, "schema_version": 3,
        "grade": cell.grade, "solution": cell.solution, "locked": cell.locked, "task": False,
    }  # fmt: skip
    if cell.points is not None:
        record["points"] = cell.points
    metadata: dict[str, Any] = {"nbgrader": record}
    if mine is None or (cell.kind == "markdown" and mine.source == cell.source):
        return shaped(cell.kind, cell.source, metadata)
    metadata["ftgrade"] = {"number": mine.number}
    return shaped(cell.kind, shown(mine) if cell.kind == "code" else fenced(shown(mine)), metadata)


def placed(cells: Sequence[Cell]) -> Iterator[NotebookCell]:
    """Yield the student's own cells: code as code, and any other text as text."""
    for cell in cells:
        metadata = {"ftgrade": {"number": cell.number}}
        if cell.kind == "code":
            yield shaped("code", shown(cell), metadata)
        else:
            yield shaped("markdown", fenced(shown(cell)), metadata)


def shown(cell: Cell) -> Clean:
    """Return a cell's text as a person sees it: what ran may hold characters that make a line read as another."""
    return clean(cell.source, MAX_CELL_CHARACTERS)


def fenced(text: str) -> str:
    """Return Markdown that shows a text as it is.

    >>> print(fenced("<b>words</b>"))
    ```text
    <b>words</b>
    ```
    """
    fence = "`" * max(3, 1 + longest_run(text, "`"))
    return f"{fence}text\n{text}\n{fence}"


def longest_run(text: str, mark: str) -> int:
    """Return the length of the longest run of a character.

    >>> longest_run("a `b` ``c``", "`")
    2
    """
    longest = run = 0
    for character in text:
        run = run + 1 if character == mark else 0
        longest = max(longest, run)
    return longest


def shaped(kind: str, source: str, metadata: dict[str, Any]) -> NotebookCell:
    cell: NotebookCell = {"cell_type": kind, "metadata": metadata, "source": source}
    return cell | {"execution_count": None, "outputs": []} if kind == "code" else cell
