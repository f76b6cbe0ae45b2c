"""A submission is read once: what is booked, shown and compared is what was judged, whatever became of the file."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.classroom import selfstudy
from ftgrade.classroom.marking import ClassResult, grade_and_book
from ftgrade.course import Course
from ftgrade.gradebook import steps
from ftgrade.gradebook.book import Book
from ftgrade.gradebook.ledger import Ledger
from ftgrade.gradebook.todo import list_needs
from ftgrade.grading import grader as grading
from ftgrade.grading.grader import Grader
from ftgrade.grading.reports import Reports
from ftgrade.judging.judges import Judges, Work
from ftgrade.judging.report import Judgement, Report
from ftgrade.pages import similarity
from nbgrader.api import Gradebook
from sqlalchemy.exc import OperationalError

STEM = "p03_lora_parameters"
RIGHT = home().leaves(STEM).solution.read_text("utf-8")
RIGHT_LINE, WRONG_LINE = "return (d_out * d_in - 1) // (d_out + d_in)", "return (d_out * d_in) // (d_out + d_in)"
WRONG = RIGHT.replace(RIGHT_LINE, WRONG_LINE)
RIGHT_SCORE, WRONG_SCORE = 10.0, pytest.approx(9.25)
CLASS = ("ada", "bob", "cyd")
ALL_ALIKE = "<bdi>ada</bdi>, <bdi>bob</bdi>, <bdi>cyd</bdi>"


def unlinked(root: Path) -> str:
    """Return a class report without the links around names."""
    return re.sub(r"</?a\b[^>]*>", "", (root / "class_report.html").read_text("utf-8"))


def path_of(root: Path, student: str) -> Path:
    return root / "submitted" / student / STEM / f"{STEM}.ipynb"


def hand_in(root: Path, student: str, answers: str) -> None:
    path = path_of(root, student)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(build.filled_notebook(home(), STEM, answers), "utf-8")


def replace(root: Path, student: str) -> None:
    """Do to a file what may happen to it: another answer, no notebook any more, no file any more."""
    if student == "ada":
        hand_in(root, student, WRONG)
    elif student == "bob":
        path_of(root, student).write_text("{")
    else:
        path_of(root, student).unlink()


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("read_once")
    Course(root).secret()
    Book(Course(root)).release(STEM)
    return root


@pytest.fixture
def root(released: Path, tmp_path: Path) -> Path:
    """A course in which three students handed in the same right answers."""
    root = shutil.copytree(released, tmp_path / "course")
    for student in CLASS:
        hand_in(root, student, RIGHT)
    return root


class Quiet:
    """Nobody watches."""

    def saw(self, stem: str, score: float, needs_a_person: bool) -> None: ...

    def compared(self, stem: str) -> None: ...


def graded(root: Path, judges: Judges) -> tuple[ClassResult, list[str]]:
    """Grade the class in a run of its own; return what was done, and whose submissions were judged."""
    judged: list[str] = []
    original = Grader.finish

    def keep(grader: Grader, work: Work, judgement: Judgement) -> Report:
        judged.append(work.blank.student)
        return original(grader, work, judgement)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Grader, "finish", keep)
        return grade_and_book(Grader(home(), Course(root), judges), [STEM], Quiet()), sorted(judged)


def booked(root: Path) -> dict[str, float]:
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        submissions: list[Any] = gradebook.assignment_submissions(STEM)
        return {one.student.id: one.score for one in submissions}


def waiting(root: Path) -> dict[str, str]:
    """Return what `ftgrade todo` says about each student."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        found = list_needs(Course(root), gradebook, [STEM])
    assert all("database is locked" in need.words for need in found)
    return {need.student: need.kind for need in found}


def autograded(root: Path, student: str) -> str:
    """Return the text of the notebook that the instructor sees."""
    document = json.loads((root / "autograded" / student / STEM / f"{STEM}.ipynb").read_text("utf-8"))
    return "\n".join("".join(cell["source"]) for cell in document["cells"])


def page(root: Path, student: str) -> str:
    return (root / "feedback" / student / STEM / f"{STEM}.html").read_text("utf-8")


def text_of(report: Report | None) -> str:
    assert report is not None
    return "\n".join(cell.source for cell in report.cells)


def demand_right(root: Path, student: str) -> None:
    """Demand that the right answer was booked and is shown, and no other."""
    assert booked(root)[student] == RIGHT_SCORE
    for text in (text_of(Reports(Course(root)).get(student, STEM)), autograded(root, student), page(root, student)):
        assert RIGHT_LINE in text
        assert WRONG_LINE not in text
    assert "10 of 11 points" in page(root, student)


# ------------------------------------------------------------------------------------------------------------ our path


def test_a_file_that_is_replaced_before_it_is_booked_counts_as_it_was_judged(
    root: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
):
    def book(ledger: Ledger, report: Report) -> None:
        replace(root, report.student)
        original(ledger, report)

    monkeypatch.setattr(similarity, "SMALL_CLASS", len(CLASS))
    with monkeypatch.context() as patch:
        original = Ledger.book
        patch.setattr(Ledger, "book", book)
        done, judged = graded(root, judges)
    assert (judged, done.failed) == (list(CLASS), [])
    assert {report.student: report.score for report in done.reports} == dict.fromkeys(CLASS, RIGHT_SCORE)
    for student in CLASS:
        demand_right(root, student)
    # The three still count as alike, since that is what they had handed in.
    assert ALL_ALIKE in unlinked(root)

    done, _ = graded(root, judges)
    assert booked(root) == {"ada": WRONG_SCORE, "bob": 0.0, "cyd": 0.0}
    assert [finding.kind for report in done.reports for finding in report.findings] == ["malformed", "missing"]
    assert WRONG_LINE in autograded(root, "ada")
    assert WRONG_LINE in page(root, "ada")
    assert ALL_ALIKE not in unlinked(root)


def test_what_waits_for_the_gradebook_is_booked_from_its_report(
    root: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
):
    """The gradebook is locked while the class is judged, and free again when all that waits is tried once more."""

    class Disturbing(Quiet):
        def saw(self, stem: str, score: float, needs_a_person: bool) -> None:
            nonlocal seen
            seen += 1
            if seen == len(CLASS):
                replace(root, "ada")
                replace(root, "bob")
                shutil.rmtree(path_of(root, "cyd").parent)
                unlocked.undo()

    seen = 0
    unlocked = locked(monkeypatch)
    done = grade_and_book(Grader(home(), Course(root), judges), [STEM], Disturbing())
    assert done.failed == []
    for student in CLASS:
        demand_right(root, student)


def locked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Lock the gradebook for all that is booked, until the patch is undone."""

    def refused(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    monkeypatch.setattr(Ledger, "write_records", refused)
    return monkeypatch


def test_a_report_that_could_not_be_booked_is_booked_in_the_next_run_without_the_file(
    root: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        locked(patch)
        done, judged = graded(root, judges)
    assert judged == list(CLASS)
    assert [words.partition(":")[0] for words in done.failed] == [f"{student}, {STEM}" for student in CLASS]
    assert "database is locked" in done.failed[0]
    assert booked(root) == {}
    assert waiting(root) == dict.fromkeys(CLASS, "not-booked")

    def refused(path: Path) -> bytes:
        raise AssertionError(f"{path} is read again")

    with monkeypatch.context() as patch:
        patch.setattr(grading, "read_handed_in", refused)
        done, judged = graded(root, judges)
    assert (judged, done.failed) == ([], [])
    assert waiting(root) == {}
    for student in CLASS:
        demand_right(root, student)


def test_a_report_that_could_not_be_booked_gives_way_to_what_was_handed_in_since(
    root: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        locked(patch)
        graded(root, judges)
    for student in CLASS:
        replace(root, student)
    done, judged = graded(root, judges)
    assert judged == ["ada", "bob"], "where there is no file, nothing is judged"
    assert done.failed == []
    assert booked(root) == {"ada": WRONG_SCORE, "bob": 0.0, "cyd": 0.0}
    assert [report.state for report in done.reports] == ["graded", "unreadable", "unreadable"]


# ------------------------------------------------------------------------------------------------------ nbgrader's path


def autograde(root: Path, judges: Judges, student: str) -> None:
    """Do what formgrader's button and `nbgrader autograde` do, then what `nbgrader generate_feedback` does."""
    steps.course_grader(root.absolute()).judges = judges
    book = Book(Course(root))
    with book.log_to_file():
        result = book.api.autograde(STEM, student, force=True)
        assert result["success"], result.get("log")
        result = book.api.generate_feedback(STEM, student, force=True)
        assert result["success"], result.get("log")


@pytest.fixture
def replaced_before(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], None]:
    """Return a function that has a student's file replaced just before one of nbgrader's steps."""

    def replaced_before(step: Any, student: str) -> None:
        original = step.preprocess

        def preprocess(*given: Any) -> Any:
            replace(root, student)
            return original(*given)

        monkeypatch.setattr(step, "preprocess", preprocess)

    return replaced_before


@pytest.mark.parametrize("student", CLASS)
def test_on_nbgraders_path_a_file_that_is_replaced_before_it_is_booked_counts_as_it_was_judged(
    root: Path, judges: Judges, replaced_before: Callable[[type, str], None], student: str
):
    replaced_before(steps.OracleSaveGrades, student)
    autograde(root, judges, student)
    path = path_of(root, student)
    assert not path.is_file() or RIGHT_LINE not in path.read_text("utf-8")
    demand_right(root, student)


@pytest.mark.parametrize(
    ("student", "score", "state"),
    [("ada", WRONG_SCORE, "graded"), ("bob", 0.0, "unreadable"), ("cyd", 0.0, "unreadable")],
)
def test_on_nbgraders_path_a_file_that_is_replaced_between_the_passes_is_judged_again_and_nothing_is_mixed(
    root: Path, judges: Judges, replaced_before: Callable[[type, str], None], student: str, score: float, state: str
):
    replaced_before(steps.OracleExecute, student)
    autograde(root, judges, student)
    report = Reports(Course(root)).get(student, STEM)
    assert report is not None
    assert (report.score, report.state) == (score, state)
    assert booked(root) == {student: score}
    assert f"{booked(root)[student]:g} of 11 points" in page(root, student)
    for text in (text_of(report), autograded(root, student), page(root, student)):
        assert RIGHT_LINE not in text
        assert (WRONG_LINE in text) == (student == "ada")


# ----------------------------------------------------------------------------------------------------- a learner alone


def test_a_learners_attempt_is_noted_under_the_answer_that_was_judged(
    root: Path, judges: Judges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Disturbed(Grader):
        """A grader that is slow enough for its learner to save once more."""

        def __init__(self, catalog: Catalog, course: Course, **_: bool) -> None:
            super().__init__(catalog, course, judges)

        def self_check(self, path: Path, stem: str, day: str = "") -> Report:
            report = super().self_check(path, stem, day)
            hand_in(root, "ada", WRONG)
            return report

        def close(self) -> None: ...

    monkeypatch.setenv("FTMATH_PROGRESS", str(tmp_path / "data" / "progress.json"))
    monkeypatch.setattr(selfstudy, "Grader", Disturbed)
    notebook = path_of(root, "ada")
    handed_in = selfstudy.file_fingerprint(home(), STEM, notebook)
    done = selfstudy.check(home(), str(notebook))
    assert done.report.score == RIGHT_SCORE
    assert selfstudy.file_fingerprint(home(), STEM, notebook) != handed_in
    assert done.answer == handed_in
    assert [one.answer for one in done.learned.attempts] == [handed_in]
