"""`ftgrade new-course`: a folder that nbgrader and ftgrade work in at once, and nothing made where something stood."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ftgrade.catalog import home
from ftgrade.classroom.roster import read_roster
from ftgrade.commands import cli
from ftgrade.course import Course
from nbgrader.api import Gradebook

STEM = "p03_lora_parameters"
ROSTER = (
    "\ufeffID,First Name,last_name,Email,LMS user id,section\n"
    'ada,Ada,"Lovelace, Countess",ada@example.org,4711,A\n'
    "\n"
    "zoe,Zoë 🚀,,,,\n"
    " 007\n"
)


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    path = tmp_path / "students.csv"
    path.write_text(ROSTER, "utf-8")
    return path


def new_course(folder: Path, roster: Path, *more: str) -> int:
    return cli.main(["new-course", str(folder), "--roster", str(roster), *more])


def booked(folder: Path) -> dict[str, tuple[str | None, ...]]:
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as gradebook:
        return {one.id: (one.first_name, one.last_name, one.email, one.lms_user_id) for one in gradebook.students}


def test_a_new_course_holds_a_configuration_a_secret_and_the_roster(tmp_path: Path, roster: Path):
    folder = tmp_path / "autumn" / "course"
    assert new_course(folder, roster) == cli.FINE
    assert {path.name for path in folder.iterdir()} == {"nbgrader_config.py", ".ftgrade", "gradebook.db"}
    assert (folder / ".ftgrade" / "secret").stat().st_mode & 0o777 == 0o600
    assert (folder / ".ftgrade" / ".gitignore").read_text() == "*\n"
    assert booked(folder) == {
        "ada": ("Ada", "Lovelace, Countess", "ada@example.org", "4711"),
        "zoe": ("Zoë 🚀", None, None, None),
        "007": (None, None, None, None),
    }


def test_a_roster_s_sections_are_kept_beside_the_ids(tmp_path: Path):
    roster = tmp_path / "students.csv"
    roster.write_text("id,Section\nada,Group 1\nbob,\n")
    assert new_course(tmp_path / "course", roster) == cli.FINE
    course = Course(tmp_path / "course")
    assert course.sections() == {"ada": "Group 1"}
    assert course.enrolled() == ["ada", "bob"]


def test_nobody_has_questions_of_their_own_before_they_were_released(tmp_path: Path, roster: Path):
    """A student of the course's own roster is judged on numbers that only a personal release shows."""
    assert new_course(tmp_path / "course", roster) == cli.FINE
    assert Course(tmp_path / "course").roster() == []


def test_a_list_of_ids_alone_is_a_roster(tmp_path: Path, roster: Path):
    roster.write_text("ada\nbob\n")
    (tmp_path / "course").mkdir()
    assert new_course(tmp_path / "course", roster) == cli.FINE
    assert list(booked(tmp_path / "course")) == ["ada", "bob"]


def test_every_course_has_a_secret_of_its_own(tmp_path: Path, roster: Path):
    for name in ("one", "two"):
        assert new_course(tmp_path / name, roster) == cli.FINE
    assert Course(tmp_path / "one").secret() != Course(tmp_path / "two").secret()


def test_the_next_three_commands_are_said_and_read_as_they_stand(tmp_path: Path, roster: Path, capsys):
    folder = tmp_path / "my course"
    assert new_course(folder, roster) == cli.FINE
    said = capsys.readouterr().out
    assert "3 students are in" in said
    commands = [line.strip() for line in said.partition("Next:\n")[2].splitlines()]
    assert len(commands) == 3
    for command in commands[:2]:
        words = shlex.split(command)
        assert words[0] == "ftgrade"
        assert cli.parser().parse_args(words[1:]).course == folder
    assert shlex.split(commands[2])[:4] == ["cd", str(folder), "&&", "nbgrader"]


def test_the_export_it_names_runs_in_the_new_folder(tmp_path: Path, roster: Path):
    assert new_course(tmp_path / "course", roster) == cli.FINE
    command = [sys.executable, "-m", "nbgrader", "export", "--exporter", "ftgrade.exporters.Csv", "--to", "grades.csv"]
    finished = subprocess.run(
        command, cwd=tmp_path / "course", capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr
    lines = (tmp_path / "course" / "grades.csv").read_text("utf-8-sig").splitlines()
    assert lines == [
        "student_id,last_name,first_name,email,total,out of",
        "007,,,,0,0",
        'ada,"Lovelace, Countess",Ada,ada@example.org,0,0',
        "zoe,,Zoë 🚀,,0,0",
    ]


def test_a_new_course_takes_the_secret_of_an_earlier_one(tmp_path: Path, roster: Path):
    assert new_course(tmp_path / "one", roster) == cli.FINE
    kept = tmp_path / "one" / ".ftgrade" / "secret"
    backup = tmp_path / "backup"
    backup.write_bytes(b" " + kept.read_bytes().upper().replace(b"\n", b"\r\n"))
    assert new_course(tmp_path / "two", roster, "--secret", str(backup)) == cli.FINE
    again = tmp_path / "two" / ".ftgrade" / "secret"
    assert again.read_bytes() == kept.read_bytes()
    assert again.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in again.parent.iterdir()} == {path.name for path in kept.parent.iterdir()}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "can't be read: No such file"),
        (b"", "holds 0 of them and 0 other bytes"),
        (b"0a" * 31 + b"7", "holds 63 of them and 0 other bytes"),
        (b"0a" * 32 + b"\n" + b"0a" * 32, "holds 128 of them and 1 other bytes"),
        (b"0a" * 31 + b"0g", "holds 63 of them and 1 other bytes"),
        ("٣".encode() * 64, "holds 0 of them and 128 other bytes"),
    ],
    ids=["missing", "empty", "short", "two", "no digit", "digits elsewhere"],
)
def test_a_secret_with_a_slip_makes_nothing_and_is_not_shown(
    tmp_path: Path, roster: Path, capsys, content: bytes | None, words: str
):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    assert new_course(tmp_path / "course", roster, "--secret", str(path)) == cli.COULD_NOT
    said = capsys.readouterr()
    assert words in said.err.replace("\n", " ")
    assert "0a0a" not in said.err + said.out
    assert not (tmp_path / "course").exists()


def test_a_folder_in_use_is_left_as_it_is(tmp_path: Path, roster: Path, capsys):
    folder = tmp_path / "course"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert new_course(folder, roster) == cli.COULD_NOT
    assert "is in use, it holds notes.txt: name a new folder, or an empty one" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert new_course(folder / "notes.txt", roster) == cli.COULD_NOT
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "can't be read: No such file"),
        (b"", "needs a column named `id`"),
        (b"id,email\n", "holds no student"),
        (b"name,email\nAda,a@x\n", "needs a column named `id`, its first line is: name, email"),
        (b"\nid\n\nada\n\nada\n", "line 6: 'ada' stands in line 4 already"),
        ("id\nzo\u00eb\nzoe\u0308\n".encode(), "line 3: 'zo\u00eb' stands in line 2 already"),
        (b"id,lms_user_id\nada,1\nbob,1.0\n", "line 3: bob has the lms_user_id 1, which ada in line 2 has too"),
        (b'id,lms_user_id\nada,"12,347"\n', "line 2: lms_user_id is '12,347', which is no whole number"),
        (b"id,lms_user_id\nada,1.2348E+04\n", "line 2: lms_user_id is '1.2348E+04', which is no whole number"),
        (b"id\n1.23E+05\n", "line 2: '1.23E+05' is a number that a spreadsheet has shortened"),
        (b"id,email\n,a@x\n", "line 2: '' can't be a student's id: the cell is empty"),
        (b"student_id,login\na,b\n", "the columns studentid and login might both hold the students' ids"),
        (b"PK\x03\x04rest", "is a spreadsheet's own file: save it as CSV"),
        (b"id\nada\nada\n", "line 3: 'ada' stands in line 2 already"),
        (b"id\n../ada\n", "line 2: '../ada' can't be a student's id"),
        (b"id,first_name\nzoe,Zo\xeb\n", "must be CSV in UTF-8, save it so"),
        (b"id,name,email\nada,Lovelace, Ada,a@x\n", "line 2: it has 4 cells, and the first line has 3: put quotation"),
        (b'id,name\nada,Ada\nbob,"Bob\ncyd,Cyd\n', "in what begins in line 3; is a quotation mark missing there?"),
        (b"id,name,name\nada,Ada,A\n", "two columns are named name: rename or remove one of them"),
        (b"identifier,github_username\nada,adagit\n", "the columns identifier and githubusername might both hold"),
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page, perhaps one that asks to sign in: download"),
        (b'[{"id": "ada"}]', "is JSON: download or save the list as CSV"),
        (b"id\n" + b"a" * 300, "at most 200 bytes"),
    ],
)
def test_a_roster_with_a_fault_makes_nothing(tmp_path: Path, roster: Path, capsys, content: bytes | None, words: str):
    roster.unlink() if content is None else roster.write_bytes(content)
    assert new_course(tmp_path / "course", roster) == cli.COULD_NOT
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "course").exists()


READ = {
    "semicolons": b"id;first_name;last_name\r\nada;Ada;Lovelace, A.\r\n",
    "tabs": b"ID\tFirst name\tSurname\nada\tAda\tLovelace, A.\n",
    "sep=": b"\xef\xbb\xbfsep=;\r\nid;first_name;last_name\r\nada;Ada;Lovelace, A.\r\n",
    "Excel's Unicode text": "student_id\tfirst_name\tlast_name\r\nada\tAda\tLovelace, A.\r\n".encode("utf-16"),
    "Moodle's participants": b'"First name","Last name","ID number","Email address"\nAda,"Lovelace, A.",ada,\n',
    "an id number": b"Given name;Family name;ID-Number\nAda;Lovelace, A.;ada\n",
    "Moodle's participants in German": b"Vorname;Nachname;ID-Nummer;E-Mail-Adresse\nAda;Lovelace, A.;ada;\n",
    "Brightspace": b'Username,Last Name,First Name,End-of-Line Indicator\n#ada,"Lovelace, A.",Ada,#\n',
    "bars": b"id|first_name|last_name\nada|Ada|Lovelace, A.\n",
    "spaces before quotation marks": b'id, first_name, last_name\nada, "Ada", "Lovelace, A."\n',
    "a text's mark of a spreadsheet": b'id,first_name,last_name\n="ada",Ada,"=""Lovelace, A."""\n',
    "a line break in a cell": b'id,first_name,last_name\nada,Ada,"Lovelace,\r\nA."\n',
}


@pytest.mark.parametrize("kind", READ)
def test_a_roster_is_read_as_spreadsheets_and_platforms_write_it(tmp_path: Path, kind: str):
    (tmp_path / "r.csv").write_bytes(READ[kind])
    assert read_roster(tmp_path / "r.csv").students == {"ada": {"first_name": "Ada", "last_name": "Lovelace, A."}}


@pytest.mark.parametrize(
    "header", ["", "id\n", "student_id\n", "ID number\n", "Students\n", "sep=,\nUsername\n", "E-mail\n"]
)
def test_one_column_is_a_roster_with_and_without_its_name(tmp_path: Path, header: str):
    (tmp_path / "r.csv").write_text(f"{header}ada\nbob\n")
    assert list(read_roster(tmp_path / "r.csv").students) == ["ada", "bob"]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ('"Lovelace, Ada"', {"last_name": "Lovelace", "first_name": "Ada"}),
        ("Ada Lovelace", {"last_name": "Ada Lovelace"}),  # where a name without a comma is split is anybody's guess
    ],
)
def test_a_name_in_one_column_is_kept(tmp_path: Path, name: str, read: dict[str, str]):
    (tmp_path / "r.csv").write_text(f"identifier,name\nada,{name}\n")
    assert read_roster(tmp_path / "r.csv").students == {"ada": read}


def test_zeros_that_a_spreadsheet_was_told_to_keep_are_kept(tmp_path: Path):
    (tmp_path / "r.csv").write_text('id\n="00123"\n\'00124\n')
    assert list(read_roster(tmp_path / "r.csv").students) == ["00123", "00124"]


def test_students_who_may_be_taken_for_each_other_are_told(tmp_path: Path):
    (tmp_path / "r.csv").write_text("id,email\nada,a@x\nAda,b@x\nbob,A@x\ncyd,\ndan,\n")
    assert read_roster(tmp_path / "r.csv").notes == (
        "ada and Ada differ in case alone, and a disk of macOS or Windows gives them one folder",
        "ada and bob have one address, so it identifies neither",
    )


def test_canvas_export_of_a_gradebook_is_a_roster(tmp_path: Path):
    (tmp_path / "r.csv").write_text(
        "Student,ID,SIS User ID,SIS Login ID,Section,Homework (11)\n"
        ",,,,,Manual Posting\n"
        "    Points Possible,,,,,10\n"
        '"Lovelace, Ada",4711,77,ada,A,\n'
        '"Kim, Sam",4712,78,,A,9\n'
        '"Student, Test",99,,6f1ed002ab5595859014ebf0951522d9,A,\n',
    )
    found = read_roster(tmp_path / "r.csv")
    assert found.students == {"ada": {"first_name": "Ada", "last_name": "Lovelace", "lms_user_id": "4711"}}
    assert found.notes == ("left out, because they have no id: 'Kim, Sam'",)


def test_numbers_as_a_spreadsheet_writes_them_are_read_or_told(tmp_path: Path, capsys):
    (tmp_path / "r.csv").write_text("id,lms_user_id\n0012345.0,12345.0\n0012346,12346\n12347,\n")
    assert new_course(tmp_path / "course", tmp_path / "r.csv") == cli.FINE
    assert {student: one[3] for student, one in booked(tmp_path / "course").items()} == {
        "0012345": "12345", "0012346": "12346", "12347": None,
    }  # fmt: skip
    assert "12347: fewer digits than the other ids. Did a spreadsheet drop leading zeros?" in capsys.readouterr().out


def test_a_folder_of_nobody_on_the_roster_is_told_and_booked_only_if_asked(tmp_path: Path, capsys):
    """A Mac writes the letters of a name in parts; that is the same student."""
    (tmp_path / "r.csv").write_text("id\nzo\u00eb\n", "utf-8")
    root = tmp_path / "course"
    assert new_course(root, tmp_path / "r.csv") == cli.FINE
    for student in ("zoe\u0308", "zoey"):
        folder = root / "submitted" / student / STEM
        folder.mkdir(parents=True)
        (folder / f"{STEM}.ipynb").write_bytes(home().submissions(STEM, "accepted")[0].read_bytes())
    grade = ["grade", "p03", "-j", "1", "--course", str(root)]
    capsys.readouterr()
    assert cli.main(grade) == cli.SOME_NEED_A_PERSON
    said = capsys.readouterr().out
    assert "not graded: submitted/zoey belongs to nobody on the roster" in said
    assert "1 submission: 1 graded" in said
    assert list(booked(root)) == ["zo\u00eb"]
    assert cli.main(["todo", "p03", "--course", str(root)]) == cli.SOME_NEED_A_PERSON
    assert "nobody on the roster is called zoey" in capsys.readouterr().out
    assert cli.main([*grade, "--anyone"]) == cli.FINE
    assert sorted(booked(root)) == ["zoey", "zo\u00eb"]
    assert cli.main(grade) == cli.FINE, "who was booked once is known"
