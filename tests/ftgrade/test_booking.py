"""What is booked and shown, and what a second run leaves alone: the hint of the last run is checked, never believed."""

import contextlib
import datetime
import json
import os
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.course import Course
from ftgrade.gradebook.book import Book
from ftgrade.gradebook.ledger import Ledger
from ftgrade.gradebook.steps import course_grader
from ftgrade.grading.grader import Grader, hash_parts
from ftgrade.grading.run import grade_class
from ftgrade.judging.judges import Judges
from ftgrade.pages.feedback import page_maker
from ftgrade.sandbox.backends import BACKENDS
from nbgrader.api import Gradebook

STEM = "p03_lora_parameters"
RIGHT = home().leaves(STEM).solution.read_text("utf-8")
WRONG = RIGHT.replace("(d_out * d_in - 1) //", "(d_out * d_in) //")


def hand_in(root: Path, student: str, answers: str) -> Path:
    path = root / "submitted" / student / STEM / f"{STEM}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(build.filled_notebook(home(), STEM, answers))
    return path


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("booking")
    hand_in(root, "ada", RIGHT)
    hand_in(root, "bob", WRONG)
    Course(root).secret()
    Book(Course(root)).release(STEM)
    return root


@pytest.fixture
def root(released: Path, tmp_path: Path, judges: Judges) -> Path:
    root = shutil.copytree(released, tmp_path / "course")
    course_grader(root.absolute()).judges = judges
    return root


def graded(root: Path) -> list[str]:
    """Grade the class as the command does; return whose submissions were judged rather than found."""
    judged: list[str] = []
    grader = course_grader(root.absolute())
    grader.last_runs.clear()  # as in a process of its own
    with (
        pytest.MonkeyPatch.context() as patch,
        Book(Course(root)).open_ledgers(grader, [STEM], page_maker()) as ledgers,
    ):
        original = Grader.finish
        patch.setattr(Grader, "finish", lambda *given: judged.append(given[1].blank.student) or original(*given))
        for report in grade_class(grader, [STEM]):
            ledgers.book(report)
        assert ledgers.retry() == []
    return sorted(judged)


def written(root: Path) -> list[str]:
    """Grade the class; return whose records were written."""
    names: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        original = Ledger.write_records
        patch.setattr(Ledger, "write_records", lambda *given: names.append(given[2]) or original(*given))
        graded(root)
    return sorted(names)


@contextlib.contextmanager
def gradebook(root: Path) -> Generator[Gradebook]:
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as opened:
        yield opened
        opened.db.commit()


def pages(root: Path) -> dict[str, int]:
    return {path.parents[1].name: path.stat().st_mtime_ns for path in root.glob(f"feedback/*/{STEM}/*.html")}


def test_an_unchanged_class_is_neither_judged_nor_booked_nor_shown_again(root: Path):
    assert graded(root) == ["ada", "bob"]
    before = pages(root)
    assert graded(root) == []
    assert written(root) == []
    assert pages(root) == before


def test_a_new_file_of_the_same_size_and_time_is_read(root: Path):
    graded(root)
    path = root / "submitted" / "bob" / STEM / f"{STEM}.ipynb"
    state = path.stat()
    text = path.read_text()
    path.write_text(text.replace("d_out * r", "d_out + r"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert graded(root) == ["bob"]


def test_a_score_that_someone_changed_is_set_right(root: Path):
    graded(root)
    with gradebook(root) as opened:
        opened.find_submission_notebook(STEM, STEM, "bob").grades[0].auto_score = 99.0
    assert written(root) == ["bob"]
    with gradebook(root) as opened:
        assert opened.find_submission(STEM, "bob").score == pytest.approx(9.25)


def test_a_persons_score_and_comment_stay_and_are_shown(root: Path):
    graded(root)
    before = pages(root)
    with gradebook(root) as opened:
        record = opened.find_submission_notebook(STEM, STEM, "bob")
        (grade,) = (one for one in record.grades if one.name == "be")
        grade.manual_score, grade.needs_manual_grade = 1.0, False
        record.comments[0].manual_comment = "Nearly <there>"
    assert written(root) == []
    after = pages(root)
    assert after["ada"] == before["ada"]
    page = (root / "feedback" / "bob" / STEM / f"{STEM}.html").read_text()
    assert "9.5 of 11 points" in page
    assert "Nearly &lt;there&gt;" in page
    with gradebook(root) as opened:
        assert not opened.find_submission(STEM, "bob").needs_manual_grade


@pytest.mark.parametrize("lost", ["autograded", "feedback", ".ftgrade/last"])
def test_what_is_lost_is_made_again(root: Path, lost: str):
    graded(root)
    kept = {path: path.read_bytes() for path in (root / "autograded").rglob("*.ipynb")}
    shutil.rmtree(root / lost)
    assert graded(root) == []
    assert {path: path.read_bytes() for path in kept} == kept
    assert pages(root).keys() == {"ada", "bob"}


def test_a_link_that_came_below_an_unchanged_notebook_is_not_copied(root: Path):
    deep = root / "submitted" / "bob" / STEM / "deep"
    deep.mkdir()
    graded(root)
    (deep / "link").symlink_to("/etc/passwd")
    shutil.rmtree(root / "autograded")
    assert graded(root) == []
    assert not (root / "autograded" / "bob" / STEM / "deep" / "link").exists()
    assert (Course(root).quarantine("bob", STEM) / "deep" / "link").is_symlink()


def test_the_log_holds_no_escape_sequence(root: Path, monkeypatch: pytest.MonkeyPatch):
    """It is read in a terminal, and a traceback quotes what a student chose."""

    def fail(*_: object) -> None:
        raise ValueError("\x1b[2J\u202e\ud800")

    monkeypatch.setattr(Ledger, "write_records", fail)
    book, grader = Book(Course(root)), course_grader(root.absolute())
    with book.open_ledgers(grader, [STEM], page_maker()) as ledgers:
        ledgers.book(grader.grade("ada", STEM))
    text = book.log_path.read_text("utf-8")
    assert "Traceback" in text
    assert not set(text) & set("\x1b\u202e\ud800")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"ada": 3}', '{"ada": {"look": "x", "who": 1}}'])
def test_a_broken_hint_is_no_hint(root: Path, text: str):
    graded(root)
    Course(root).last_path(STEM).write_text(text)
    assert graded(root) == []


def test_a_false_hint_of_a_submission_is_found_out(root: Path):
    graded(root)
    path = Course(root).last_path(STEM)
    text = path.read_text()
    lines = json.loads(text)
    lines["bob"]["submission"] = lines["ada"]["submission"]
    path.write_text(json.dumps(lines))
    assert graded(root) == []
    assert json.loads(path.read_text()) == json.loads(text)


def test_a_report_made_without_a_sandbox_is_no_report_with_one(root: Path, request: pytest.FixtureRequest):
    graded(root)
    with_one = course_grader(root.absolute())
    without = Grader(home(), Course(root), Judges(home(), lambda: BACKENDS["none"]))
    request.addfinalizer(without.close)
    blank = with_one.blank_report("ada", STEM, Course(root).secret())
    handed_in = with_one.last_run(STEM)["ada"].submission
    made_in_one = with_one.stored_report(blank, handed_in)
    assert made_in_one is not None
    assert without.stored_report(blank, handed_in) == made_in_one, "it holds where there is no sandbox too"
    made_without = replace(made_in_one, key=hash_parts(with_one.key_parts(handed_in, blank, "none")))
    with_one.reports.put(made_without)
    assert with_one.stored_report(blank, handed_in) is None
    assert without.stored_report(blank, handed_in) == made_without


def test_late_work_costs_what_nbgraders_plugin_says(root: Path):
    due = datetime.datetime(2026, 1, 1)
    with gradebook(root) as opened:
        opened.find_assignment(STEM).duedate = due
    for student, late in (("ada", 0), ("bob", 3600)):
        stamp = (due + datetime.timedelta(seconds=late)).isoformat(" ")
        (root / "submitted" / student / STEM / "timestamp.txt").write_text(f"{stamp} UTC")
    book = Book(Course(root))
    book.config.LateSubmissionPlugin.penalty_method = "zero"
    grader = course_grader(root.absolute())
    with book.open_ledgers(grader, [STEM], page_maker()) as ledgers:
        for report in grade_class(grader, [STEM]):
            ledgers.book(report)
        assert ledgers.retry() == []
    with gradebook(root) as opened:
        taken = {one: opened.find_submission(STEM, one).late_submission_penalty for one in ("ada", "bob")}
    assert taken == {"ada": 0.0, "bob": pytest.approx(9.25)}
    assert "late penalty of 9.25 points" in (root / "feedback" / "bob" / STEM / f"{STEM}.html").read_text()
