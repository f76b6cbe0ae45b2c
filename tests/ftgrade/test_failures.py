"""Failures of everyday: one line and the exit status for "could not", whichever command meets them."""

import contextlib
import json
import os
import resource
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.course import CONFIG_FILE, Course
from ftgrade.gradebook.book import Book
from nbgrader.api import Gradebook

CATALOG = home()
STEM = "p03_lora_parameters"
IN_A_COURSE = {
    "release": ["p03"],
    "due": ["p03", "2026-12-01T18:00"],
    "extend": ["ada", "p03", "--until", "2026-12-02T18:00"],
    "collect": ["SOURCE"],
    "grade": ["p03", "-j", "1"],
    "todo": [],
    "diff": [],
    "jplag": ["p03", "OUT"],
    "verify": [],
    "watch": ["p03", "--once", "-j", "1", "--every", "0.05"],
    "attempts": [],
    "questions": ["p03"],
    "exam": ["p03", "--forms", "1", "-o", "OUT"],
}
OPENS_THE_GRADEBOOK = ["release", "due", "extend", "collect", "grade", "todo"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course that released a problem with a due date, with one submission."""
    root = tmp_path_factory.mktemp("released")
    (root / "students.csv").write_text("id\nada\n")
    words = ["--course", str(root / "course")]
    assert cli.main(["new-course", str(root / "course"), "--roster", str(root / "students.csv")]) == cli.FINE
    assert cli.main(["release", "p03", *words]) == cli.FINE
    assert cli.main(["due", "p03", "2026-11-01T18:00", *words]) == cli.FINE
    hand_in(root / "course", "ada", STEM)
    return root / "course"


@pytest.fixture
def course(released: Path, tmp_path: Path) -> Path:
    return shutil.copytree(released, tmp_path / "course")


def hand_in(course: Path, student: str, stem: str) -> None:
    path = Course(course).notebook(student, stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CATALOG.submissions(stem, "accepted")[0].read_bytes())


Failing = Callable[..., str]


@pytest.fixture
def failing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Failing:
    """Return a function that runs a command, holds it to one line and status 2, and returns the line."""
    (tmp_path / "handed").mkdir()
    places = {"SOURCE": str(tmp_path / "handed"), "OUT": str(tmp_path / "out")}

    def failing(*words: str) -> str:
        capsys.readouterr()
        status = cli.main([places.get(word, word) for word in words])
        said = capsys.readouterr()
        assert (status, said.err.count("\n")) == (cli.COULD_NOT, 1), said.err
        assert said.err.startswith("ftgrade: ")
        assert "Traceback" not in said.out + said.err
        assert "fault of ftgrade" not in said.err
        return said.err.strip()

    return failing


def words_of(name: str, course: Path) -> list[str]:
    return [name, *IN_A_COURSE[name], "--course", str(course)]


def test_every_command_that_takes_a_course_is_tried_here():
    parsers = cli.make_parsers()[1]
    takes = {name for name, one in parsers.items() if any(action.dest == "course" for action in one._actions)}
    assert takes == set(IN_A_COURSE)


@pytest.mark.parametrize("name", IN_A_COURSE)
def test_a_course_that_is_not_there_is_told_and_not_made(tmp_path: Path, course: Path, failing: Failing, name: str):
    assert f"there is no folder {tmp_path / 'cuorse'}: {course}?" in failing(*words_of(name, tmp_path / "cuorse"))
    assert "new-course" in failing(*words_of(name, tmp_path / "far" / "away"))
    assert not (tmp_path / "cuorse").exists()
    assert not (tmp_path / "far").exists()


@pytest.mark.parametrize("name", IN_A_COURSE)
def test_a_folder_of_something_else_is_told_and_stays_as_it_is(tmp_path: Path, failing: Failing, name: str):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.txt").write_text("meow")
    assert "is no course: it holds no gradebook.db" in failing(*words_of(name, other))
    assert [path.name for path in other.iterdir()] == ["cat.txt"]
    assert "is a file" in failing(*words_of(name, other / "cat.txt"))


def test_an_empty_folder_that_somebody_made_for_it_takes_a_release(tmp_path: Path):
    (tmp_path / "new").mkdir()
    assert cli.main(["release", "p03", "--course", str(tmp_path / "new")]) == cli.FINE


def foreign_database(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE bookmarks (url TEXT)")


BROKEN = {
    "text": (lambda path: path.write_text("version https://example.org/pointer\n" * 9), "is no database of nbgrader"),
    "empty": (lambda path: path.write_bytes(b""), "is empty, and this course had one: put it back from a backup"),
    "gone": (lambda path: path.unlink(), "is gone, and this course had one: put it back from a backup"),
    "foreign": (foreign_database, "is a database of another program, with the tables bookmarks"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "this course had one"),
}


@pytest.mark.parametrize("name", OPENS_THE_GRADEBOOK)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_gradebook_that_is_none_is_told(course: Path, failing: Failing, name: str, kind: str):
    spoil, words = BROKEN[kind]
    spoil(course / "gradebook.db")
    before = (course / "gradebook.db").stat() if (course / "gradebook.db").exists() else None
    assert words in failing(*words_of(name, course))
    after = (course / "gradebook.db").stat() if (course / "gradebook.db").exists() else None
    assert (before and before.st_mtime_ns) == (after and after.st_mtime_ns)


@pytest.mark.parametrize("name", OPENS_THE_GRADEBOOK)
def test_a_locked_gradebook_is_told_with_who_may_hold_it(course: Path, failing: Failing, name: str):
    path = course / "gradebook.db"
    with (course / CONFIG_FILE).open("a", encoding="utf-8") as file:
        file.write(f'c = get_config()\nc.CourseDirectory.db_url = "sqlite:///{path}?timeout=0.1"\n')
    with contextlib.closing(sqlite3.connect(path)) as another:
        another.execute("BEGIN EXCLUSIVE")
        said = failing(*words_of(name, course))
    assert "another program is writing to the gradebook (formgrader, or another grader)" in said


def test_a_new_gradebook_is_made_once_the_mark_of_the_old_one_is_removed(course: Path, failing: Failing):
    (course / "gradebook.db").unlink()
    said = failing("release", "p03", "--course", str(course))
    mark = Course(course).gradebook_mark
    assert f"remove {mark} and run `ftgrade grade`" in said
    mark.unlink()
    book = Book(Course(course))
    with book.log_to_file(), Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        assert list(gradebook.assignments) == []
    assert mark.exists()


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["release", "due", "extend", "jplag"])
def test_a_full_disk_is_told(course: Path, failing: Failing, name: str):
    hand_in(course, "bob", STEM)
    with full_disk():
        said = failing(*words_of(name, course))
    assert "disk is full" in said or "disk I/O error" in said


@pytest.mark.parametrize(
    "words",
    [["new-course", "NEW", "--roster", "ROSTER"], ["certificate", "-o", "NEW"],
     ["fill", "p03", "ANSWERS", "-o", "NEW"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_full_disk_is_told_where_there_is_no_course_yet(tmp_path: Path, failing: Failing, words: list[str]):
    (tmp_path / "students.csv").write_text("id\nada\n")
    places = {
        "NEW": str(tmp_path / "new"),
        "ROSTER": str(tmp_path / "students.csv"),
        "ANSWERS": str(CATALOG.leaves(STEM).solution),
    }
    with full_disk():
        assert "disk is full" in failing(*(places.get(word, word) for word in words))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_course_that_may_not_be_written_is_told(course: Path, failing: Failing):
    course.chmod(0o500)
    try:
        assert "who owns" in failing("release", "p04", "--course", str(course))
    finally:
        course.chmod(0o700)


@pytest.mark.parametrize("kind", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_disk_without_rights_is_told_with_the_path(
    course: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch, kind: OSError
):
    def refuse(self: Path, *_: object) -> None:
        raise type(kind)(*kind.args, str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    said = failing("certificate", "-o", str(course / "page.html"))
    assert str(course / "page.html") in said
    assert "mounted read-only" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check", "nothing.ipynb"], "nothing.ipynb isn't there"),
        (["check", "."], "no problem '.'"),
        (["certificate", "-o", "no/such/page.html"], "no/such/page.html: No such file"),
        (["certificate", "-o", "."], "Is a directory"),
        (["fill", "p03", "nothing.py", "-o", "out.ipynb"], "nothing.py: No such file"),
        (["fill", "p03", "broken.py", "-o", "out.ipynb"], "broken.py, line 1"),
        (["fill", "p03", "latin.py", "-o", "out.ipynb"], "UTF-8"),
        (["new-course", "file/below", "--roster", "students.csv"], "file/below"),
        (["new-course", "c", "--roster", "nothing.csv"], "nothing.csv can't be read"),
        (["new-course", "c", "--roster", "."], "can't be read"),
        (["new", "Not A Name"], "lower-case Python name"),
        (["audit", "p99"], "no problem 'p99'"),
        (["build", "--course"], None),
        (["completion", "fish"], None),
        (["grade", "-j", "0"], None),
        (["grade", "-j", "many"], None),
        (["grdae"], "did you mean `ftgrade grade`?"),
        (["new_course"], "did you mean `ftgrade new-course`?"),
        (["xyzzy"], "there are: check"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_slip_on_the_command_line_is_told(
    tmp_path: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], told: str | None,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "latin.py").write_bytes(b"name = 'Zo\xeb'\n")
    (tmp_path / "students.csv").write_text("id\nada\n")
    if told is None:
        with pytest.raises(SystemExit, match="2"):
            cli.main(words)
        said = capsys.readouterr().err
        assert said.startswith("ftgrade")
        assert said.count("\n") == 1
    else:
        assert told in failing(*words)
    assert not (tmp_path / "out.ipynb").exists()


def run_in_a_shell(script: str, **settings: str) -> tuple[int, str, str]:
    """Run a script in which `$FTGRADE` is the command; return the exit status and what was said."""
    python = shlex.quote(sys.executable)
    whole = f"FTGRADE='{python} -m ftgrade.commands.cli'\n{script}"
    done = subprocess.run(["sh", "-c", whole], capture_output=True, text=True, env=os.environ | settings, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_folder_that_is_gone_is_told(tmp_path: Path):
    (tmp_path / "gone").mkdir()
    path = shlex.quote(str(tmp_path / "gone"))
    status, _, said = run_in_a_shell(f"cd {path}; rmdir {path}; exec $FTGRADE due")
    assert (status, said) == (2, "ftgrade: the folder that you are in is gone: `cd` to one that is there\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- --json", "<&- >&- 2>&-"])
def test_a_closed_stream_is_told_where_it_can_be_told(course: Path, closed: str):
    """Otherwise a gradebook could be opened under the stream's number, and take in what is printed."""
    status, out, said = run_in_a_shell(f"exec $FTGRADE due --course {shlex.quote(str(course))} {closed}")
    assert status == cli.COULD_NOT
    heard = (out + said).splitlines()
    assert len(heard) == (closed != "<&- >&- 2>&-")
    assert all(one.startswith("ftgrade: standard ") and "is closed" in one for one in heard)


def test_nothing_is_read_from_a_closed_input(course: Path):
    status, out, said = run_in_a_shell(f"exec $FTGRADE due --course {shlex.quote(str(course))} <&-")
    assert (status, said) == (cli.FINE, "")
    assert "Due dates" in out


def test_what_cannot_be_a_students_folder_is_told(course: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(course / "submitted" / "ada", course / "submitted" / "ada+bob")
    for name in ("bob.ipynb", ".DS_Store"):
        (course / "submitted" / name).write_text("x")
    assert cli.main(["grade", "p03", "-j", "1", "--course", str(course)]) == cli.SOME_NEED_A_PERSON
    said = capsys.readouterr().out
    assert "not graded: submitted/ada+bob has a name that can't be a student's id (no /, \\ or +" in said
    assert "not graded: submitted/bob.ipynb is a file: put it into submitted/STUDENT/STEM/" in said
    assert "DS_Store" not in said
    assert "nobody on the roster" not in said
    assert "1 thing needs a person" in said


def test_names_stand_beside_the_ids_where_there_are_some(course: Path, capsys: pytest.CaptureFixture[str]):
    for name, shown in ((None, False), ("Ada Lovelace", True)):
        with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
            gradebook.update_or_create_student("ada", last_name=name)
        cli.main(["grade", "p03", "-j", "1", "--course", str(course)])
        table = capsys.readouterr().out.partition("gradebook:")[0]
        assert ("Ada Lovelace" in table, "name" in table) == (shown, shown)


@pytest.mark.parametrize(
    ("typed", "told"),
    [("lora_parameter", "did you mean p03_lora_parameters?"), ("p03_lora", "did you mean p03_lora_parameters?"),
     ("dpo-los", "did you mean p08_dpo_loss?"), ("p99", "there are: p01"), ("", "there are: p01")],
)  # fmt: skip
def test_a_mistyped_problem_is_answered_with_the_nearest_one(failing: Failing, typed: str, told: str):
    assert told in failing("audit", typed)


@pytest.mark.parametrize("typed", ["3", "03", "p3", "p03", "P03", "P3", "lora_parameters", STEM])
def test_a_problem_has_short_names(typed: str):
    assert CATALOG.stem(typed) == STEM


def test_a_fault_of_ours_is_one_line_and_its_traceback_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("ftgrade.classroom.selfstudy.read_record", lambda: 1 / 0)
    assert cli.main(["certificate", "--json"]) == cli.COULD_NOT
    said = capsys.readouterr()
    assert said.err.startswith("ftgrade: this is a fault of ftgrade, ZeroDivisionError: division by zero")
    assert said.err.count("\n") == 1
    assert "ZeroDivisionError" in json.loads(said.out)["error"]
    kept = Path(said.err.strip().rpartition(" ")[2])
    assert "Traceback" in kept.read_text("utf-8")
    kept.unlink()


def test_grade_ends_as_todo_does(course: Path, capsys: pytest.CaptureFixture[str]):
    """An answer in words waits for points, so a person is needed although everything was graded."""
    hand_in(course, "ada", "p10_freeze_and_mask_audit")
    for stems in (["p03"], []):
        capsys.readouterr()
        graded = cli.main(["grade", *stems, "--course", str(course), "-j", "1"])
        last = capsys.readouterr().out.splitlines()[-1]
        told = cli.main(["todo", *stems, "--course", str(course)])
        counted = capsys.readouterr().out.splitlines()[-1]
        assert graded == told
        assert last.split()[0] == counted.split()[0]


def test_two_graders_at_once_book_the_same(course: Path, capsys: pytest.CaptureFixture[str]):
    words = [sys.executable, "-m", "ftgrade.commands.cli", *words_of("grade", course)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for one in both:
        said = one.communicate(timeout=300)
        assert one.returncode in (cli.FINE, cli.SOME_NEED_A_PERSON), said
        assert "Traceback" not in said[0] + said[1]
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        assert len(gradebook.assignment_submissions(STEM)) == 1


@pytest.mark.parametrize("data", [b"", b"\n", b"not hexadecimal", b"\xff\xfe"])
def test_a_spoilt_secret_is_told_and_not_shown(course: Path, failing: Failing, data: bytes):
    (Course(course).state / "secret").write_bytes(data)
    assert failing("verify", "--course", str(course)).endswith("put it back from a backup")


def test_a_missing_driver_of_a_database_is_told(course: Path, failing: Failing):
    with (course / CONFIG_FILE).open("a", encoding="utf-8") as file:
        file.write('c = get_config()\nc.CourseDirectory.db_url = "oracle+oracledb://host/name"\n')
        file.write('c.CourseDirectory.course_id = "x"\n')
    assert "the package oracledb isn't installed" in failing("todo", "--course", str(course))
