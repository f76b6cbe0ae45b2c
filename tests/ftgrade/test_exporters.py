"""Exports of a real gradebook: every layout, and names that would break a file or run in a spreadsheet."""

import csv
import datetime
import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from ftgrade.course import Course
from ftgrade.gradebook.book import Book
from ftgrade.gradebook.exporters import Canvas, Csv, Gradescope, GradeTable, Moodle, csv_text
from ftgrade.intake.gate import line, safe
from hypothesis import given
from hypothesis import strategies as st
from nbgrader.api import Gradebook
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

ATTACK = "=cmd|' /C calc'!A0"
STUDENTS = {
    "ada": {
        "first_name": "Ada",
        "last_name": 'Lovelace, "Countess"',
        "email": "ada@example.org",
        "lms_user_id": "4711",
    },
    "bob": {"first_name": ATTACK, "last_name": "@SUM(1+1)", "email": "bob@example.org", "lms_user_id": "12bob"},
    "zoe": {"first_name": "Zoë 🚀\nLine", "last_name": "Ng; +1", "email": "zoe@example.org"},
    "eve": {"first_name": "Eve", "last_name": "Points Possible", "email": "eve@example.org"},
    "007": {},
}
DUE = datetime.datetime(2026, 1, 30, 12)
CHECKS = {"p01_answer_only_loss": {"counts": 4, "mean": 6}, "p03_lora_parameters": {"adds": 2.5, "rank": 7.5}}
# What is handed in: student, problem, points by check, late penalty, and hours after the due date.
MARKS = [
    ("ada", "p01_answer_only_loss", (4, 6), 0, -1),
    ("ada", "p03_lora_parameters", (0.1, 0.2), 0, -1),
    ("bob", "p01_answer_only_loss", (4, 2.125), 1.5, 26),
    ("bob", "p03_lora_parameters", (1, 0), 3, 0.5),
    ("zoe", "p01_answer_only_loss", (0, 0), 0, -1),
    ("007", "p03_lora_parameters", (2.5, 7.5), 0, -1),
]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a course whose gradebook was filled through nbgrader's interface."""
    root = tmp_path_factory.mktemp("course")
    Book(Course(root)).write_config()
    with opened(root) as gradebook, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Object of type <", category=SAWarning)
        for stem, checks in CHECKS.items():
            gradebook.add_assignment(stem, duedate=DUE)
            gradebook.add_notebook(stem, stem)
            for check, points in checks.items():
                gradebook.add_grade_cell(check, stem, stem, max_score=points, cell_type="code")
        for student, fields in STUDENTS.items():
            gradebook.add_student(student, **fields)
        for mark in MARKS:
            hand_in(gradebook, *mark)
    return root


def opened(root: Path) -> Gradebook:
    return Gradebook(f"sqlite:///{root / 'gradebook.db'}")


def hand_in(gradebook: Gradebook, student: str, stem: str, points: tuple[float, ...], penalty: float, hours: float):
    submission = gradebook.add_submission(stem, student, timestamp=DUE + datetime.timedelta(hours=hours))
    scores = dict(zip(CHECKS[stem], points, strict=True))
    for grade in submission.notebooks[0].grades:
        grade.auto_score, grade.needs_manual_grade = scores[grade.name], False
    submission.notebooks[0].late_submission_penalty = penalty
    gradebook.db.commit()


def exported(course: Path, plugin: type[GradeTable], **settings: object) -> str:
    """Return what a plugin writes, as text that a reader of UTF-8 gets."""
    target = course / "export.csv"
    with opened(course) as gradebook:
        plugin(config=Config({plugin.__name__: {"to": str(target), **settings}})).export(gradebook)
    return target.read_bytes().decode()


def table(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def by_student(text: str, column: str) -> dict[str, dict[str, str]]:
    return {row[column]: row for row in csv.DictReader(io.StringIO(text, newline=""))}


# ------------------------------------------------------------------------------------------------------------- layouts


def test_canvas_gets_its_five_columns_the_points_and_nothing_for_what_is_missing(course: Path):
    assert table(exported(course, Canvas)) == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "p01_answer_only_loss", "p03_lora_parameters"],
        ["    Points Possible", "", "", "", "", "10", "10"],
        ["007", "", "", "007", "", "", "10"],
        ['Lovelace, "Countess", Ada', "4711", "", "ada", "", "10", "0.3"],
        [f"'@SUM(1+1),' {ATTACK}", "", "", "bob", "", "4.625", "0"],
        ["Points_Possible, Eve", "", "", "eve", "", "", ""],
        ["Ng;' +1, Zoë 🚀␊Line", "", "", "zoe", "", "0", ""],
    ]


def test_a_number_that_canvas_would_misread_is_told(course: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        exported(course, Canvas)
    assert "bob: lms_user_id '12bob' is no whole number, so the column ID stays empty" in caplog.text
    assert "ada: lms_user_id" not in caplog.text


def test_canvas_takes_one_row_for_the_row_of_points(course: Path):
    """Its importer searches the words in every row's first cell, and a student could be called so."""
    assert [row[0] for row in table(exported(course, Canvas)) if "Points Possible" in row[0]] == ["    Points Possible"]


def test_canvas_columns_and_ids_can_be_those_of_the_canvas_course(course: Path):
    columns = {"p03_lora_parameters": "LoRA (12345)"}
    rows = table(exported(course, Canvas, columns=columns, ids_are="SIS User ID"))
    assert rows[0][5:] == ["p01_answer_only_loss", "LoRA (12345)"]
    assert rows[3][1:5] == ["4711", "ada", "", ""]


def test_two_problems_in_one_column_are_refused(course: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(SystemExit, match="1"):
        exported(course, Moodle, columns={"p03_lora_parameters": "p01_answer_only_loss"})
    assert "two problems share a column, ['p01_answer_only_loss']: mend Moodle.columns" in caplog.text


def test_moodle_gets_a_dash_for_what_is_missing(course: Path):
    rows = table(exported(course, Moodle, student=["ada", "eve"]))
    assert rows == [
        ["First name", "Last name", "ID number", "Email address", "p01_answer_only_loss", "p03_lora_parameters"],
        ["Ada", 'Lovelace, "Countess"', "ada", "ada@example.org", "10", "0.3"],
        ["Eve", "Points Possible", "eve", "eve@example.org", "-", "-"],
    ]


def test_moodle_gets_no_addresses_unless_everybody_has_one(course: Path, caplog: pytest.LogCaptureFixture):
    """Moodle books a row whose user cell is empty on the student of the row before."""
    with caplog.at_level(logging.WARNING):
        rows = table(exported(course, Moodle))
    assert rows[0][:4] == ["First name", "Last name", "ID number", "p01_answer_only_loss"]
    assert all(row[2] for row in rows)
    assert "because these have none: 007" in caplog.text


def test_gradescope_gets_four_columns_a_problem(course: Path):
    rows = by_student(exported(course, Gradescope), "SID")
    bob = rows["bob"]
    assert list(bob)[:6] == ["First Name", "Last Name", "SID", "Email", "Sections", "p01_answer_only_loss"]
    parts = ("", " - Max Points", " - Submission Time", " - Lateness (H:M:S)")
    assert [bob["p01_answer_only_loss" + part] for part in parts] == [
        "4.625", "10", "2026-01-31 14:00:00 +0000", "26:00:00"
    ]  # fmt: skip
    assert [rows["eve"]["p01_answer_only_loss" + part] for part in parts] == ["", "10", "", ""]
    assert rows["ada"]["p01_answer_only_loss - Lateness (H:M:S)"] == "00:00:00"


def test_the_table_holds_every_check_the_late_penalty_and_the_total(course: Path):
    text = exported(course, Csv)
    rows = by_student(text.removeprefix("\ufeff"), "student_id")
    assert list(rows["bob"].values())[4:] == ["4", "2.125", "1.5", "4.625", "1", "0", "3", "0", "4.625", "20"]
    assert list(rows["bob"])[4:8] == [
        "p01_answer_only_loss: counts", "p01_answer_only_loss: mean", "p01_answer_only_loss: late penalty",
        "p01_answer_only_loss",
    ]  # fmt: skip
    assert list(rows["zoe"].values())[4:] == ["0", "0", "0", "0", "", "", "", "", "0", "20"]
    assert list(rows["eve"].values())[4:] == [""] * 8 + ["0", "20"]


def test_only_the_table_for_spreadsheets_opens_with_a_bom(course: Path):
    assert [exported(course, plugin)[0] == "\ufeff" for plugin in (Csv, Canvas, Moodle, Gradescope)] == [
        True, False, False, False
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------- who, in what order


def test_the_same_gradebook_gives_the_same_bytes(course: Path):
    for plugin in (Csv, Canvas, Moodle, Gradescope):
        assert exported(course, plugin) == exported(course, plugin)


def test_problems_and_students_can_be_chosen_and_a_slip_is_told(course: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        rows = table(exported(course, Moodle, student=["zoe", "ada", "adda"], assignment=["p03_lora_parameters"]))
    assert [row[2:] for row in rows[1:]] == [["ada", "ada@example.org", "0.3"], ["zoe", "zoe@example.org", "-"]]
    assert "'adda' is not in the gradebook" in caplog.text


def test_an_id_that_has_to_be_written_otherwise_is_told(course: Path, caplog: pytest.LogCaptureFixture):
    with opened(course) as gradebook:
        gradebook.add_student("=1+1", email="x@example.org")
    try:
        with caplog.at_level(logging.WARNING):
            assert "'=1+1" in [row[2] for row in table(exported(course, Moodle))]
        assert "'=1+1' looks like a formula" in caplog.text
    finally:
        with opened(course) as gradebook:
            gradebook.remove_student("=1+1")


def test_a_grade_that_a_person_owes_is_told(course: Path, caplog: pytest.LogCaptureFixture):
    def owe(owed: bool) -> None:
        with opened(course) as gradebook:
            gradebook.find_submission("p03_lora_parameters", "ada").notebooks[0].grades[0].needs_manual_grade = owed
            gradebook.db.commit()

    owe(True)
    with caplog.at_level(logging.WARNING):
        exported(course, Canvas)
    owe(False)
    assert "p03_lora_parameters: 1 submissions still need a person's grade" in caplog.text


def test_a_folder_that_is_not_there_is_named(course: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(SystemExit, match="1"):
        exported(course, Canvas, to=str(course / "nowhere" / "canvas.csv"))
    assert "nowhere/canvas.csv doesn't exist: make it, or name another file" in caplog.text


# -------------------------------------------------------------------------------------------------- formulas and quotes


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd", "@x", "\tx", "\rx", "-17", "  =1", '"=1', "＝1", "\ufeff=1"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(text: str):
    assert safe(text) == "'" + text


@pytest.mark.parametrize(("text", "written"), [("x;=1", "x;'=1"), ("\t=1", "'\t'=1"), ("a\n@b", "a\n'@b")])
def test_so_does_what_another_separator_would_make_a_cell(text: str, written: str):
    assert safe(text) == written


@pytest.mark.parametrize("text", ["", "007", "Ada", "a=b", "a-b", "x@y.org", "O'Neil", "🚀"])
def test_what_it_would_not_run_stays(text: str):
    assert safe(text) == text


@given(st.text(alphabet="=+-@,;\t\r\n\" 'ax1", max_size=12), st.sampled_from(",;\t"))
def test_no_cell_is_a_formula_whatever_the_reader_separates_at(text: str, separator: str):
    written = csv_text([[text, "x"]])
    assert separator != "," or next(csv.reader(io.StringIO(written, newline=""))) == [safe(line(text)), "x"]
    for row in csv.reader(io.StringIO(written, newline=""), delimiter=separator):
        for cell in row:
            assert not cell.strip(' "\t\r\n').startswith(("=", "+", "-", "@"))


@given(st.text(alphabet="=+-@;\t\r\n ax1", max_size=12))
def test_what_is_safe_stays_what_it_is(text: str):
    assert safe(safe(text)) == safe(text)


# --------------------------------------------------------------------------------------------------- nbgrader's command


def test_nbgraders_own_command_exports_in_the_order_of_the_roster(course: Path):
    roster = Course(course).roster_path
    roster.write_text("id\nzoe\nada\nnobody\n")
    try:
        command = [
            sys.executable,
            "-m",
            "nbgrader",
            "export",
            "--exporter",
            "ftgrade.exporters.Canvas",
            "--to",
            "c.csv",
        ]
        finished = subprocess.run(command, cwd=course, capture_output=True, text=True, timeout=300, check=False)
    finally:
        roster.unlink()
    assert finished.returncode == 0, finished.stderr
    assert "Wrote 5 students and 2 problems to c.csv" in finished.stderr
    rows = table((course / "c.csv").read_bytes().decode())
    assert [row[3] for row in rows[2:]] == ["zoe", "ada", "007", "bob", "eve"]
