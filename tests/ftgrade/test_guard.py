"""An exception is planted at every hop of one student's way, and the neighbours keep every byte."""

import ast
import contextlib
import errno
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.classroom import marking
from ftgrade.course import CONFIG_FILE, Course
from ftgrade.errors import CourseFault
from ftgrade.gradebook import exporters, late, ledger, todo
from ftgrade.gradebook.book import Book, open_gradebook
from ftgrade.grading import grader as grading
from ftgrade.grading.grader import Grader
from ftgrade.grading.reports import Reports
from ftgrade.guard import Mishap, guarded
from ftgrade.intake import archives, collect
from ftgrade.judging.judges import Judges
from sqlalchemy.exc import OperationalError

STEM = "p03_lora_parameters"
RIGHT = home().leaves(STEM).solution.read_text("utf-8")
CLASS = ("ada", "eve", "zoe")
EXCEPTIONS = (
    ValueError("\ud800\x1b[2J"),
    OSError(errno.ENAMETOOLONG, "File name too long"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    RecursionError("maximum recursion depth exceeded"),
    MemoryError(),
    AssertionError(),
    KeyError("names"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOSPC, "No space left on device"),
    OperationalError("UPDATE", {}, Exception("a value that the gradebook can't take")),
)


class Quiet:
    """Nobody watches."""

    def saw(self, *_: object) -> None: ...

    def compared(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, judges: Judges) -> Path:
    """A course whose class was graded without a mishap."""
    root = tmp_path_factory.mktemp("guard")
    for student in CLASS:
        path = Course(root).notebook(student, STEM)
        path.parent.mkdir(parents=True)
        path.write_text(build.filled_notebook(home(), STEM, RIGHT.replace("rank", f"rank of {student}", 1)), "utf-8")
        (path.parent / "timestamp.txt").write_text("2026-01-30 10:30:00 UTC\n")
    marking.grade_and_book(Grader(home(), Course(root), judges), [STEM], Quiet())
    return root


@pytest.fixture
def root(graded: Path, tmp_path: Path) -> Path:
    """The same course before it was graded, under the same secret."""
    root = tmp_path / "course"
    shutil.copytree(graded / "submitted", root / "submitted")
    Course(root).write_secret(Course(graded).secret())
    return root


def results(root: Path, student: str) -> Iterator[bytes]:
    """Yield all that a student has in the end: report, booked notebook, page, scores."""
    yield Course(root).report_path(student, STEM).read_bytes()
    yield (root / "autograded" / student / STEM / f"{STEM}.ipynb").read_bytes()
    yield (root / "feedback" / student / STEM / f"{STEM}.html").read_bytes()
    with open_gradebook(root) as gradebook:
        grades = gradebook.find_submission_notebook(STEM, STEM, student).grades
        yield repr(sorted((grade.name, grade.auto_score, grade.needs_manual_grade) for grade in grades)).encode()


def in_her_folder(path: Path, *_: object) -> bool:
    return "eve" in path.parts


Hop = tuple[Any, str, Callable[..., bool]]
HOPS: dict[str, Hop] = {
    "reading": (grading, "read_handed_in", in_her_folder),
    "setting aside": (grading, "set_aside", in_her_folder),
    "storing": (Reports, "put", lambda _self, report: report.student == "eve"),
    "booking": (ledger.Ledger, "write_records", lambda _self, _connection, student, _document: student == "eve"),
    "placing": (ledger.Ledger, "write_files", lambda _self, student, _document: student == "eve"),
    "the page": (ledger.Ledger, "write_page", lambda _self, student, _document: student == "eve"),
    "what is booked": (ledger, "graded_notebook", lambda report, *_: report.student == "eve"),
}


def plant(monkeypatch: pytest.MonkeyPatch, hop: Hop, error: Exception) -> None:
    place, name, is_the_one = hop
    before = getattr(place, name)

    def planted(*arguments: Any, **named: Any) -> Any:
        if is_the_one(*arguments):
            raise error
        return before(*arguments, **named)

    monkeypatch.setattr(place, name, planted)


PLANTED = [
    (hop, EXCEPTIONS[(place + turn) % len(EXCEPTIONS)]) for place, hop in enumerate(HOPS) for turn in (0, 2, 5, 7, 8)
]
"""Every kind of exception, and every hop, five times."""


@pytest.mark.parametrize(("hop", "error"), PLANTED, ids=lambda one: one if isinstance(one, str) else type(one).__name__)
def test_a_mishap_of_one_student_changes_no_byte_of_another(
    hop: str, error: Exception, graded: Path, root: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
):
    if hop not in ("reading", "setting aside", "storing"):  # there the stored reports do, and nothing is judged again
        shutil.copytree(graded / ".ftgrade" / "reports", root / ".ftgrade" / "reports")
    plant(monkeypatch, HOPS[hop], error)
    grader = Grader(home(), Course(root), judges)
    done = marking.grade_and_book(grader, [STEM], Quiet())
    for student in ("ada", "zoe"):
        assert list(results(root, student)) == list(results(graded, student))
    assert [report.student for report in done.reports] == list(CLASS)
    assert (root / "class_report.html").is_file()
    eve = done.reports[1]
    with open_gradebook(root) as gradebook:
        waiting = [need for need in todo.list_needs(Course(root), gradebook, [STEM]) if need.student == "eve"]
    assert waiting, "a person must see that something went wrong"
    said = " ".join([*(need.words for need in waiting), *done.failed, *(one.words for one in eve.findings)])
    assert type(error).__name__ in said
    assert "\x1b" not in said
    assert not any("\ud800" <= letter <= "\udfff" for letter in said)


def test_the_graders_own_process_parses_no_code_of_a_student(
    graded: Path, root: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
):
    """A cell of 6,000 characters can cost IPython's reader of magics seconds: only a judge has limits for that."""
    shutil.copytree(graded / ".ftgrade" / "reports", root / ".ftgrade" / "reports")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("code was parsed")

    monkeypatch.setattr(ast, "parse", refuse)
    done = marking.grade_and_book(Grader(home(), Course(root), judges), [STEM], Quiet())
    assert [report.state for report in done.reports] == ["graded"] * len(CLASS)
    for student in CLASS:
        assert list(results(root, student)) == list(results(graded, student))


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_a_record_that_can_not_be_exported_costs_its_own_row(
    error: Exception, graded: Path, monkeypatch: pytest.MonkeyPatch
):
    plant(monkeypatch, (exporters, "problem_score", lambda submission: submission.student_id == "eve"), error)
    with open_gradebook(graded) as gradebook:
        table = exporters.Csv()
        assert set(table.marks(gradebook, STEM)) == {"ada", "zoe"}


def test_a_record_that_can_not_be_looked_at_is_told_in_todo(graded: Path, monkeypatch: pytest.MonkeyPatch):
    plant(monkeypatch, (todo, "submission_needs", lambda _course, student, *_: student == "eve"), ValueError("odd"))
    with open_gradebook(graded) as gradebook:
        found = todo.list_needs(Course(graded), gradebook, [STEM])
    assert [(need.student, need.words) for need in found] == [("eve", "ValueError: odd")]


def test_a_time_that_can_not_be_told_is_left_out(graded: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[object] = []

    def first_of_three(*_: object) -> bool:
        seen.append(1)
        return len(seen) == 2

    plant(monkeypatch, (late, "in_zone", first_of_three), ValueError("odd"))
    with open_gradebook(graded) as gradebook:
        assert len(late.hand_in_times(gradebook, STEM, "UTC")) == 2


@pytest.mark.parametrize("place", ["identify", "place_newest"])
@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_a_file_that_can_not_be_put_in_its_place_is_left_and_the_others_are_taken(
    place: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "in").mkdir()
    for student in CLASS:
        (tmp_path / "in" / f"{student}_{STEM}.ipynb").write_text(build.filled_notebook(home(), STEM, RIGHT), "utf-8")
    is_hers = lambda one, *_: f"eve_{STEM}" in repr(one)  # noqa: E731
    plant(monkeypatch, (collect, place, is_hers), error)
    course = Course(tmp_path / "course")
    course.state.mkdir(parents=True, exist_ok=True)
    known = collect.People(CLASS, {}, {})
    done = collect.collect(tmp_path / "in", course, known, [STEM])
    assert [one.student for one in done.taken] == ["ada", "zoe"]
    assert [path for path, _ in done.left] == [f"eve_{STEM}.ipynb"]


def test_one_bad_entry_of_an_archive_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for student in CLASS:
        (folder / f"{student}.ipynb").write_text("{}")
    archive = Path(shutil.make_archive(str(tmp_path / "all"), "zip", folder))
    plant(
        monkeypatch,
        (archives, "write_member", lambda member, *_: "eve" in member.name),
        OSError(errno.ENAMETOOLONG, "long"),
    )
    left = archives.unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ada.ipynb", "zoe.ipynb"]
    assert len(left) == 1


def test_a_fault_of_the_course_is_everybodys():
    def fail() -> None:
        raise CourseFault("the secret is missing")

    with pytest.raises(CourseFault):
        guarded(fail)
    assert isinstance(guarded(lambda: 1 / 0), Mishap)


def test_while_the_gradebook_is_locked_nothing_more_is_tried_and_all_wait(
    root: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
):
    tried: list[str] = []
    grader = Grader(home(), Course(root), judges)
    Book(Course(root)).ensure_released(grader, STEM)
    path = (root / "gradebook.db").absolute()
    with (root / CONFIG_FILE).open("a", encoding="utf-8") as file:
        file.write(f'c.CourseDirectory.db_url = "sqlite:///{path}?timeout=0.1"\n')
    before = ledger.Ledger.book

    def book(self: ledger.Ledger, report: Any) -> None:
        tried.append(report.student)
        if len(tried) == 1:
            another.execute("BEGIN IMMEDIATE")
        before(self, report)

    monkeypatch.setattr(ledger.Ledger, "book", book)
    with contextlib.closing(sqlite3.connect(path)) as another:
        done = marking.grade_and_book(grader, [STEM], Quiet())
    assert len(tried) == 2, "once when it comes, once more at the end"
    assert len(done.failed) == 3
    assert all("database is locked" in words for words in done.failed)
    assert Book(Course(root)).log_path.is_file()
