"""An answer in words goes through nbgrader's manual grading and adds up with the automatic score."""

import json
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.commands import cli
from nbgrader.api import Gradebook

CATALOG = home()
STEM = "p10_freeze_and_mask_audit"
RIGHT = CATALOG.leaves(STEM).solution.read_text("utf-8")
WORDS = "The masks cost least. <script>alert('x')</script> A step costs most: `audit_step`."


def written(words: str | None, kind: str = "markdown", marked: bool = True) -> str:
    """Return a right submission with these words in the written cell, or with the cell as it was released.

    A platform may change the cell's type, and lose the marks of all cells.
    """
    notebook = json.loads(build.filled_notebook(CATALOG, STEM, RIGHT))
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "order":
            cell["source"] = words if words is not None else "YOUR ANSWER HERE"
            cell["cell_type"] = kind
        if not marked:
            cell["metadata"] = {}
    return json.dumps(notebook)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course with students who wrote words, one of them none, some of whose cells changed, graded once."""
    root = tmp_path_factory.mktemp("course")
    texts = {
        "ada": written(WORDS), "bob": written(None), "raw": written(WORDS, "raw"), "code": written(WORDS, "code"),
        "unmarked": written(WORDS, marked=False), "silent": written(None, marked=False),
    }  # fmt: skip
    for student, text in texts.items():
        path = root / "submitted" / student / STEM / f"{STEM}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert cli.main(["grade", STEM, "--course", str(root), "-j", "1"]) == cli.SOME_NEED_A_PERSON
    return root


def gradebook(root: Path) -> Gradebook:
    return Gradebook(f"sqlite:///{root / 'gradebook.db'}")


def test_words_wait_for_a_person_and_silence_does_not(course: Path):
    with gradebook(course) as book:
        ada, bob = (book.find_submission(STEM, student) for student in ("ada", "bob"))
        assert (ada.score, ada.max_score, ada.needs_manual_grade) == (10.0, 12.0, True)
        assert (bob.score, bob.max_score, bob.needs_manual_grade) == (10.0, 12.0, False)


@pytest.mark.parametrize("student", ["raw", "code", "unmarked"])
def test_words_whose_cell_changed_wait_for_a_person_and_are_shown(course: Path, student: str):
    with gradebook(course) as book:
        found = book.find_submission(STEM, student)
        assert (found.score, found.needs_manual_grade) == (10.0, True)
    page = (course / "feedback" / student / STEM / f"{STEM}.html").read_text()
    assert page.count("The masks cost least.") == 1
    assert "A person reads it." in page


def test_silence_without_marks_stays_silence(course: Path):
    with gradebook(course) as book:
        found = book.find_submission(STEM, "silent")
        assert (found.score, found.needs_manual_grade) == (10.0, False)


def test_a_persons_points_add_up_and_survive_a_regrade(course: Path):
    with gradebook(course) as book:
        grade = book.find_grade("order", STEM, STEM, "ada")
        grade.manual_score, grade.needs_manual_grade = 0.75, False
        book.db.commit()
    words = ["grade", STEM, "--course", str(course), "-j", "1", "--fresh"]
    assert cli.main(words) == cli.SOME_NEED_A_PERSON  # the words of the others
    with gradebook(course) as book:
        assert book.find_submission(STEM, "ada").score == 10.75


def test_the_words_are_shown_and_never_run(course: Path):
    page = (course / "feedback" / "ada" / STEM / f"{STEM}.html").read_text()
    assert "The masks cost least." in page
    assert "<script>alert" not in page
    booked = json.loads((course / "autograded" / "ada" / STEM / f"{STEM}.ipynb").read_text())
    shown = ["".join(cell["source"]) for cell in booked["cells"] if "masks cost least" in "".join(cell["source"])]
    assert shown == [f"```text\n{WORDS}\n```"]
