"""Machines and paths: folders with odd names, streams without UTF-8, no home, file systems without hard links."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.gradebook.steps import gradebook_url
from nbgrader.api import Gradebook
from sqlalchemy.engine import make_url

CATALOG = home()
STEM = "p03_lora_parameters"
NAMES = ["project (1)", "[b]", "C++", "fine%20tuning", "what?", "a#b", "a:b", "zoë 中", "it's", "100%"]
NO_LINKS = """
import os, shutil, sys
from ftgrade.commands import cli

def link(*args, **kwargs):
    raise PermissionError(1, "Operation not permitted")

os.link = link
course, roster, submitted = sys.argv[1:]
assert cli.main(["new-course", course, "--roster", roster]) == 0
shutil.move(submitted, course)
sys.exit(cli.main(["grade", "p03", "-j", "1", "--course", course]))
"""


def checkout(root: Path) -> Path:
    """Make a checkout with one problem."""
    leaves = CATALOG.leaves(STEM)
    for path in (leaves.source, leaves.solution, leaves.problem, leaves.notebook):
        goal = root / path.relative_to(CATALOG.root)
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, goal)
    return root


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_class_is_graded_in_a_folder_with_every_odd_character(tmp_path: Path, encoding: str):
    """Without a home, without hard links, with files for their owner alone, in the C locale."""
    place = tmp_path / " ".join(NAMES)
    course = place / "course é? %41 [x]"
    (checkout(place / "checkout") / "students.csv").write_text("id\nzoë\n", "utf-8")
    notebook = tmp_path / "submitted" / "zoë" / STEM / f"{STEM}.ipynb"
    notebook.parent.mkdir(parents=True)
    shutil.copy(CATALOG.submissions(STEM, "accepted")[0], notebook)
    settings = {
        "FTGRADE_HOME": str(place / "checkout"), "LC_ALL": "C", "HOME": "/proc/nowhere", "PYTHONIOENCODING": encoding,
        "XDG_CACHE_HOME": "",
    }  # fmt: skip
    words = [sys.executable, "-c", NO_LINKS, str(course), str(place / "checkout" / "students.csv")]
    finished = subprocess.run(
        [*words, str(tmp_path / "submitted")], env=os.environ | settings, capture_output=True, timeout=300, check=False,
        umask=0o077,
    )  # fmt: skip
    said = (finished.stdout + finished.stderr).decode(encoding)
    assert "Traceback" not in said, said
    assert "Nothing needs a person." in said, said
    with Gradebook(gradebook_url(course)) as gradebook:
        assert gradebook.find_submission(STEM, "zoë").score == 11.0
    assert sorted(path.name for path in place.iterdir()) == ["checkout", course.name], "nothing is written elsewhere"


@pytest.mark.parametrize("name", NAMES)
def test_the_gradebook_of_a_course_with_an_odd_name_is_in_the_course(tmp_path: Path, name: str):
    root = tmp_path / name
    assert make_url(gradebook_url(root)).database == str(root / "gradebook.db")


@pytest.mark.parametrize("name", ["fine%20tuning", "what?"])
def test_a_new_course_with_an_odd_name_writes_nothing_beside_it(tmp_path: Path, name: str):
    (tmp_path / "students.csv").write_text("id\nada\n")
    assert cli.main(["new-course", str(tmp_path / name), "--roster", str(tmp_path / "students.csv")]) == cli.FINE
    assert {path.name for path in tmp_path.iterdir()} == {name, "students.csv"}
    assert (tmp_path / name / "gradebook.db").is_file()
    assert cli.main(["todo", "--course", str(tmp_path / name)]) == cli.FINE


def test_a_new_course_in_a_path_that_nbgrader_would_change_is_refused(tmp_path: Path, capsys):
    (tmp_path / "students.csv").write_text("id\nada\n")
    words = ["new-course", str(tmp_path / "fall$HOME"), "--roster", str(tmp_path / "students.csv")]
    assert cli.main(words) == cli.COULD_NOT
    assert "holds a `$`, which nbgrader takes for the name of a variable" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["students.csv"]


@pytest.mark.parametrize("kind", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_secret_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int):
    def link(*_: object) -> None:
        raise OSError(kind, "not here")

    monkeypatch.setattr(os, "link", link)
    course = Course(tmp_path)
    secret = course.secret()
    course.write_secret(bytes(32))
    assert course.secret() == secret
    assert len(secret) == 32
    assert (course.state / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in course.state.iterdir() if path.name.startswith("secret.")] == []


def test_a_new_course_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "students.csv").write_text("id\nada\n")
    monkeypatch.setattr("ftgrade.classroom.newcourse.enrol", full)
    words = ["--roster", str(tmp_path / "students.csv")]
    assert cli.main(["new-course", str(tmp_path / "new"), *words]) == cli.COULD_NOT
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    assert cli.main(["new-course", str(tmp_path / "empty"), *words]) == cli.COULD_NOT
    assert list((tmp_path / "empty").iterdir()) == []


def test_what_grading_writes_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path):
    (tmp_path / "students.csv").write_text("id\nada\n")
    course = tmp_path / "course"
    before = os.umask(0)
    try:
        assert cli.main(["new-course", str(course), "--roster", str(tmp_path / "students.csv")]) == cli.FINE
        notebook = course / "submitted" / "ada" / STEM / f"{STEM}.ipynb"
        notebook.parent.mkdir(parents=True)
        shutil.copy(CATALOG.submissions(STEM, "accepted")[0], notebook)
        assert cli.main(["release", STEM, "--students", str(tmp_path / "students.csv"), "--course", str(course)]) == 0
        assert cli.main(["grade", STEM, "--course", str(course)]) == cli.SOME_NEED_A_PERSON  # a number of nobody's
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    public = (course / "submitted", course / "release", course / "source", course)
    written = [path for path in course.rglob("*") if not {path, *path.parents[:-1]} & {*public[:3]}]
    kinds = {path.relative_to(course).parts[0] for path in written}
    assert kinds >= {".ftgrade", "gradebook.db", "autograded", "feedback"}
    assert {path.relative_to(course).as_posix() for path in written if path.stat().st_mode & 0o077} <= {
        "nbgrader_config.py"
    }
