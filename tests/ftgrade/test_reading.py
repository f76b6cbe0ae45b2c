"""From a notebook that isn't as released to its score, its findings and its page."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.classroom.selfstudy import unanswered_cells
from ftgrade.gradebook.cells import graded_notebook
from ftgrade.grading.grader import Grader
from ftgrade.judging.report import Report
from ftgrade.pages.feedback import render_page

STEM = "p03_lora_parameters"
CATALOG = home()
RIGHT = CATALOG.leaves(STEM).solution.read_text("utf-8")
HandIn = Callable[..., Path]
Cells = list[dict[str, Any]]


def changed(change: Callable[[Cells], object]) -> str:
    """Return a right notebook after a change of its cells."""
    notebook = json.loads(build.filled_notebook(CATALOG, STEM, RIGHT))
    change(notebook["cells"])
    return json.dumps(notebook)


def first_given(cells: Cells) -> dict[str, Any]:
    return next(cell for cell in cells if cell["metadata"].get("nbgrader", {}).get("grade_id", "").startswith("given"))


def page_of(report: Report) -> str:
    document = graded_notebook(report, unanswered_cells(CATALOG, STEM))
    for cell in document["cells"]:
        cell["metadata"].get("nbgrader", {}).setdefault("score", 0)
    total = {"notebook": STEM, "score": report.score, "max_score": report.points, "late_penalty": 0}
    return render_page(document, {"nbgrader": total})


def kinds(report: Report) -> list[str]:
    return [finding.kind for finding in report.findings]


@pytest.mark.parametrize("atop", ["import no_such_package", "from google.colab import drive\ndrive.mount('/content')"])
def test_a_changed_given_cell_costs_nothing_and_the_page_shows_both_versions(
    grader: Grader, hand_in: HandIn, atop: str
):
    def change(cells: Cells) -> None:
        first_given(cells)["source"] = [f"{atop}\n", *first_given(cells)["source"]]

    hand_in("ada", STEM, data=changed(change))
    report = grader.grade("ada", STEM)
    assert (report.score, kinds(report)) == (10.0, ["given-changed"])
    page = page_of(report)
    assert "A given cell, as released" in page
    assert atop.splitlines()[0] in page
    assert "ModuleNotFoundError (line 1)" in page


def test_a_deleted_given_cell_costs_nothing(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, data=changed(lambda cells: cells.remove(first_given(cells))))
    report = grader.grade("ada", STEM)
    assert (report.score, kinds(report)) == (10.0, ["given-missing"])


def test_a_given_cell_that_fails_in_its_place_shows_its_error(grader: Grader, hand_in: HandIn):
    def change(cells: Cells) -> None:
        cells.insert(4, {"cell_type": "code", "metadata": {}, "outputs": [], "source": "torch = None"})

    hand_in("ada", STEM, data=changed(change))
    report = grader.grade("ada", STEM)
    assert kinds(report) == []
    assert "AttributeError (line 1)" in page_of(report)


def test_a_failed_change_of_a_given_cell_is_no_cause_of_another_error(grader: Grader, hand_in: HandIn):
    def change(cells: Cells) -> None:
        first_given(cells)["source"] = ["import no_such_package\n", *first_given(cells)["source"]]
        answer = next(
            cell for cell in cells if cell["metadata"].get("nbgrader", {}).get("grade_id") == "breakeven_rank"
        )
        answer["source"] = "def breakeven_rank(d_out, d_in):\n    return np.array([torch.ones(1)])[5]"

    hand_in("ada", STEM, data=changed(change))
    (failed,) = (check for check in grader.grade("ada", STEM).checks if check.name == "be")
    assert "IndexError" in failed.words
    assert "cell 4" not in failed.words


def test_a_cell_for_a_newer_python_is_named_with_the_feature(grader: Grader, hand_in: HandIn):
    source = "def first[T](items: list[T]) -> T:\n    return items[0]\n\ntype Pair = tuple[int, int]\n???"
    extra = {"cell_type": "code", "metadata": {}, "outputs": [], "source": source}
    hand_in("ada", STEM, data=changed(lambda cells: cells.append(extra)))
    report = grader.grade("ada", STEM)
    assert report.score == 10.0
    assert kinds(report) == ["newer-python"] or "SyntaxError" in report.notes[-1].error, "a newer grader reads it"


def test_two_answers_in_unusual_cells_are_graded_and_the_page_says_where(grader: Grader, hand_in: HandIn):
    def change(cells: Cells) -> None:
        answers = [cell for cell in cells if cell["metadata"].get("nbgrader", {}).get("solution")]
        source = "\n\n\n".join("".join(cell["source"]) for cell in answers)
        stubs = json.loads(CATALOG.leaves(STEM).notebook.read_text("utf-8"))["cells"]
        for cell in answers:
            name = cell["metadata"]["nbgrader"]["grade_id"]
            (stub,) = (one for one in stubs if one["metadata"]["nbgrader"]["grade_id"] == name)
            cell["source"] = stub["source"]
        cells.insert(4, {"cell_type": "code", "metadata": {}, "outputs": [], "source": source})

    hand_in("ada", STEM, data=changed(change))
    report = grader.grade("ada", STEM)
    assert report.score == 10.0
    assert kinds(report) == ["stub-left-out", "answer-found"]
    assert "# breakeven_rank is written in cell 5." in page_of(report)
