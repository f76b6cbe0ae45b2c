"""What stands in the cells of a graded notebook: the released ones, the student's text, and the verdicts under them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from markupsafe import Markup
from nbgrader.api import Gradebook

from ftgrade.catalog import Catalog, home
from ftgrade.errors import CourseFault, GradingError
from ftgrade.intake.gate import Clean, clean
from ftgrade.intake.notebook import MAX_CELL_CHARACTERS, PERSONAL, Cell
from ftgrade.intake.placing import ReleasedCell, plain
from ftgrade.judging.outline import Outline
from ftgrade.judging.report import STATUS_WORDS, CellNote, CheckReport, Report, safe_score
from ftgrade.words import counted

Notebook = Any
NotebookCell = dict[str, Any]
CACHED_CHECKS = 1_024  # a class has few ways to be right, and not many to be wrong


# ------------------------------------------------------------------------------------------ the released notebook


def canonical_cells(handed_in: Sequence[Cell], released: Sequence[ReleasedCell]) -> list[NotebookCell]:
    """Return every released cell once, in order, with the student's last text in the answers and all else ours.

    The student's own cells follow the released cell that they followed; markdown is shown as the text it is, so that
    none of it is run by a browser. Tags, attachments, outputs and all other metadata are left behind. Without any
    cells of a student the released notebook itself comes back.
    """
    known = {cell.grade_id: cell for cell in released}
    written = last_answers(handed_in, known)
    free = free_cells(handed_in, known, written)
    given = [cell for cell in handed_in if cell.grade_id in known and known[cell.grade_id].is_given]
    ran: dict[str | None, int] = {cell.grade_id: cell.number for cell in given}
    cells: list[NotebookCell] = list(student_cells(free.get("", [])))
    for cell in released:
        mine = written.get(cell.grade_id)
        cells.append(graded_cell(cell, mine))
        if cell.grade_id in ran:
            cells[-1]["metadata"]["ftgrade"] = {"number": ran[cell.grade_id]}
        cells.extend(student_cells(free.get(cell.grade_id, [])))
    for position, cell in enumerate(cells):
        cell["id"] = hashlib.sha256(f"{position}\0{cell['source']}".encode()).hexdigest()[:12]
    return cells


def last_answers(handed_in: Sequence[Cell], known: dict[str, ReleasedCell]) -> dict[str, Cell]:
    """Return the last cell that the student wrote for each answer."""
    return {
        cell.grade_id: cell
        for cell in handed_in
        if cell.grade_id in known and known[cell.grade_id].is_answer and cell.kind == known[cell.grade_id].kind
    }


def free_cells(
    handed_in: Sequence[Cell], known: dict[str, ReleasedCell], written: dict[str, Cell]
) -> dict[str, list[Cell]]:
    """Return the student's own cells by the released cell that precedes them, and superseded answers among them."""
    free: dict[str, list[Cell]] = {}
    before = ""
    for cell in handed_in:
        if cell.grade_id in known and (not known[cell.grade_id].is_answer or written.get(cell.grade_id) is cell):
            before = cell.grade_id
        else:
            free.setdefault(before, []).append(cell)
    return free


def graded_cell(cell: ReleasedCell, mine: Cell | None) -> NotebookCell:
    """Return a released cell with the gradebook's flags; only an answer takes the student's text."""
    record: dict[str, Any] = {
        "grade_id": cell.grade_id, "schema_version": 3,
        "grade": cell.grade, "solution": cell.solution, "locked": cell.locked, "task": False,
    }  # fmt: skip
    if cell.points is not None:
        record["points"] = cell.points
    metadata: dict[str, Any] = {"nbgrader": record}
    if mine is None or (cell.kind == "markdown" and plain(mine.source) == plain(cell.source)):
        return make_cell(cell.kind, cell.source, metadata)
    metadata["ftgrade"] = {"number": mine.number}
    return make_cell(cell.kind, display_text(mine) if cell.kind == "code" else fence(display_text(mine)), metadata)


def student_cells(cells: Sequence[Cell]) -> Iterator[NotebookCell]:
    """Yield the student's own cells: code as code, and any other text as text."""
    for cell in cells:
        metadata = {"ftgrade": {"number": cell.number}}
        if cell.kind == "code":
            yield make_cell("code", display_text(cell), metadata)
        else:
            yield make_cell("markdown", fence(display_text(cell)), metadata)


def display_text(cell: Cell) -> Clean:
    """Return a cell's text as a person sees it: what ran may hold characters that make a line read as another."""
    return clean(cell.source, MAX_CELL_CHARACTERS)


def fence(text: str) -> str:
    """Return Markdown that shows a text as it is.

    >>> print(fence("<b>words</b>"))
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


def make_cell(kind: str, source: str, metadata: dict[str, Any]) -> NotebookCell:
    cell: NotebookCell = {"cell_type": kind, "metadata": metadata, "source": source}
    return cell | {"execution_count": None, "outputs": []} if kind == "code" else cell


# ----------------------------------------------------------------------------------------------------- its verdicts


def released_cells(gradebook: Gradebook, stem: str) -> list[ReleasedCell]:
    """Return the cells of a released problem as the gradebook holds them, in the order of its notebook."""
    record = gradebook.find_notebook(stem, stem)
    points = {cell.name: float(cell.max_score) for cell in record.grade_cells}
    answers = {cell.name for cell in record.solution_cells}
    known = [
        ReleasedCell(
            cell.name, cell.cell_type, cell.source, cell.name in points, cell.name in answers, bool(cell.locked),
            points.get(cell.name), cell.checksum or "",
        )
        for cell in record.source_cells
    ]  # fmt: skip
    order = {name: position for position, name in enumerate(cell_order(stem))}
    return sorted(known, key=lambda cell: order.get(cell.grade_id, len(order)))


def cell_order(stem: str) -> list[str]:
    """Return the ids of a built notebook's cells, in order."""
    built = nbformat.read(home().leaves(stem).notebook, as_version=4)
    return [cell.metadata.nbgrader.grade_id for cell in built.cells if "nbgrader" in cell.metadata]


def demand_same_release(stem: str, outline: Outline, released: list[ReleasedCell]) -> None:
    """Raise CourseFault unless the gradebook's checks are the problem's."""
    booked_checks = {cell.grade_id: cell.points for cell in released if cell.grade}
    if booked_checks != {check.name: check.points for check in outline.checks} | outline.written:
        raise CourseFault(
            f"the gradebook holds other checks of {stem} than autograder/problems/{stem}.py: release it again with "
            f"`ftgrade release {stem}`"
        )


def graded_notebook(report: Report, released: list[ReleasedCell], kernelspec: str | None = None) -> Notebook:
    """Return the notebook that instructor and student see: the released cells, the student's text, the verdicts.

    All of it comes from the report: what is shown is what was judged, whatever became of the file since.
    """
    cells = canonical_cells(report.cells, released)
    checksums = {cell.grade_id: cell.checksum for cell in released}
    for cell in cells:
        if "nbgrader" in cell["metadata"]:
            cell["metadata"]["nbgrader"]["checksum"] = checksums[cell["metadata"]["nbgrader"]["grade_id"]]
    metadata = {"kernelspec": json.loads(kernelspec)} if kernelspec else {}
    document = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    write_report(document, report)
    return document


def graded_cells(nb: Notebook) -> dict[str, Any]:
    """Return the code cells that carry points, by name."""
    marks = ((cell, cell["metadata"].get("nbgrader")) for cell in nb["cells"] if cell["cell_type"] == "code")
    return {mark["grade_id"]: cell for cell, mark in marks if mark and mark["grade"]}


def score_output(score: float, html: str) -> Any:
    """Return the one output that nbgrader reads a score from, with the words that people read."""
    return output("execute_result", data={"text/plain": repr(score), "text/html": html}, execution_count=None)


def score_of(cell: Any) -> float:
    """Return the score that `score_output` put into a graded cell."""
    return float(cell["outputs"][0]["data"]["text/plain"])


def output(kind: str, **fields: Any) -> Any:
    """Return an output of a cell; nbformat's own makers validate each one, which was most of a booking's time."""
    metadata = {} if kind == "stream" else {"metadata": {}}
    return nbformat.from_dict({"output_type": kind, **metadata, **fields})  # pyright: ignore[reportArgumentType]


def write_report(nb: Notebook, report: Report) -> None:
    """Write a report's verdicts and notes under the cells of a canonical notebook."""
    checks = {check.name: check for check in report.checks}
    for name, cell in graded_cells(nb).items():
        if name in checks:
            write_check(cell, checks[name])
        else:
            cell["outputs"] = [score_output(0.0, "")]
    write_notes(nb, report.notes)
    nb["metadata"]["ftgrade"] = page_summary(report)


def write_check(cell: Any, check: CheckReport) -> None:
    score = safe_score(check.score, cell["metadata"]["nbgrader"]["points"])
    cell["outputs"] = [score_output(score, check_html(check))]


def write_notes(nb: Notebook, notes: tuple[CellNote, ...]) -> None:
    """Put what the student's own cells printed and drew, or how they failed, under those cells.

    Of a given cell only the failure is told.
    """
    by_number = {note.number: note for note in notes}
    for cell in nb["cells"]:
        note = by_number.get(cell["metadata"].get("ftgrade", {}).get("number"))
        if note is not None and not note.error and not cell["metadata"].get("nbgrader", {}).get("solution", True):
            continue
        if note is not None and cell["cell_type"] == "code":
            text = "\n".join(part for part in (note.printed.rstrip("\n"), note.error) if part)
            cell["outputs"] = [output("stream", name="stdout", text=text)] if text else []
            cell["outputs"] += [output("display_data", data={"image/png": one}) for one in note.pictures]


def page_summary(report: Report) -> dict[str, Any]:
    """Return what the feedback page says about the submission as a whole, and in a line about each check."""
    findings = [finding.words for finding in report.told_to_student]
    steps: dict[str, list[str]] = {}
    for check in sorted((check for check in report.checks if check.score < check.points), key=points_lost):
        steps.setdefault(next_words(check), []).append(check.name)
    return {
        "title": title_of(home(), report.stem), "state": report.state, "findings": findings,
        "held": {check.name: held_words(check) for check in report.checks},
        "next": [[names, words] for words, names in steps.items()],
        "own": sum(check.points for check in report.checks if check.function == PERSONAL), "checked": report.points,
    }  # fmt: skip


def points_lost(check: CheckReport) -> float:
    return check.score - check.points


def held_words(check: CheckReport) -> str:
    """Say in a line how a check went, and how much of it held."""
    word, promises = STATUS_WORDS[check.status], len(check.kept) + len(check.broken)
    if check.status in ("pass", "not-attempted") or not check.cases:
        return word
    if promises > 1:
        return f"{word}: {len(check.kept)} of {promises} promises hold"
    return f"{word}: {check.passed} of {counted(check.cases, 'case holds', 'cases hold')}"


def next_words(check: CheckReport) -> str:
    """Say what to do about a check that lacks points."""
    if check.status == "not-attempted":
        return check.next_step or "Nothing was handed in for it yet: write it."
    return check.next_step or check.says or f"It is {STATUS_WORDS[check.status]}: read below what was seen."


@cache
def title_of(catalog: Catalog, stem: str) -> str:
    """Return a problem's title, or its stem if nobody gave it one."""
    try:
        return catalog.title(stem)
    except GradingError:
        return stem


@cache
def environment() -> jinja2.Environment:
    """Return the environment of a check's block: everything is escaped, and a missing name is an error."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


@lru_cache(CACHED_CHECKS)
def check_html(check: CheckReport) -> Markup:
    """Return one check's verdict as a block that stands under its graded cell."""
    template = environment().get_template("check.html.j2")
    return Markup(template.render(check=check, status=STATUS_WORDS[check.status]))  # noqa: S704  (the template escapes)
