"""`ftgrade jplag`: what students wrote beside what they were given; names that hold, and text that's never run."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.classroom import jplag
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.judging.problem import PERSONAL
from hypothesis import given
from hypothesis import strategies as st

STEM = "p03_lora_parameters"
ANSWER = "def low_rank_dof(d_out, d_in, rank):\n    return rank * (d_out + d_in - rank)"


def notebook(*sources: str) -> str:
    """Return a notebook of code cells."""
    cells = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": source} for source in sources]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """A course whose problem is released: as nbgrader would, but for the marks of its solution regions."""
    path = tmp_path / "release" / STEM / f"{STEM}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(home().leaves(STEM).notebook.read_text("utf-8"), "utf-8")
    return Course(tmp_path)


def exported(course: Course) -> dict[str, str]:
    """Return the text of every file that is written, by its path."""
    out = course.root / "out"
    jplag.export(course, STEM, out)
    return {str(path.relative_to(out)): path.read_text("utf-8") for path in out.rglob("*") if path.is_file()}


def test_a_student_s_file_holds_what_they_wrote_and_the_base_what_they_were_given(
    course: Course, hand_in: Callable[..., Path]
):
    right = home().leaves(STEM).solution.read_text("utf-8")
    hand_in("ada", STEM, answers=right)
    hand_in("bob", STEM, data=notebook("import torch", ANSWER))
    found = exported(course)
    assert set(found) == {f"base/{STEM}.py", f"submissions/ada/{STEM}.py", f"submissions/bob/{STEM}.py"}
    assert found[f"submissions/bob/{STEM}.py"] == f"import torch\n\n\n{ANSWER}\n"
    base, ada = found[f"base/{STEM}.py"], found[f"submissions/ada/{STEM}.py"]
    assert base.count("def low_rank_dof(") == ada.count("def low_rank_dof(") == 1
    assert "from ftmath import check" in base
    assert "from ftmath import check" not in ada
    assert build.UNWRITTEN in base
    assert build.UNWRITTEN not in ada.partition(f"def {PERSONAL}(")[0]
    for text in found.values():
        compile(text, "a file that JPlag reads", "exec")


def test_who_wrote_nothing_or_nothing_readable_is_left_out_with_the_reason(
    course: Course, hand_in: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    for student in ("ada", "dan"):
        hand_in(student, STEM, data=notebook(ANSWER))
    hand_in("bob", STEM, data=home().leaves(STEM).notebook.read_bytes())
    hand_in("cyd", STEM, data="{")
    out = course.root / "my out"
    assert cli.main(["jplag", "p03", str(out), "--course", str(course.root)]) == cli.FINE
    said = capsys.readouterr().out
    assert "wrote what 2 of 4 students wrote to" in said
    assert "left out: bob: The notebook holds no code but what was given." in said
    assert "left out: cyd: The file is no notebook" in said
    words = shlex.split(said.partition("Next:\n")[2])
    assert words[:5] == ["java", "-jar", "jplag.jar", "-l", "python3"]
    assert Path(words[words.index("-bc") + 1]).is_dir()
    assert {path.name for path in Path(words[-1]).iterdir()} == {"ada", "dan"}


def test_no_line_of_a_student_is_run_or_keeps_their_file_from_being_python(
    course: Course, hand_in: Callable[..., Path]
):
    mark = course.root / "was_run"
    hostile = f"open({str(mark)!r}, 'w')"
    hand_in("bob", STEM, data=notebook(ANSWER))
    hand_in("ada", STEM, data=notebook(hostile, "%matplotlib inline\na = 1", "def f(:\r  b\x0bc\u2028d", "\ud800 = 1"))
    text = exported(course)[f"submissions/ada/{STEM}.py"]
    assert not mark.exists()
    assert text.splitlines()[0] == hostile
    assert "a = 1" in text.splitlines()
    assert "# def f(:" in text.splitlines()
    compile(text, "a file that JPlag reads", "exec")


@pytest.mark.parametrize(
    ("name", "safe"),
    [("ada", "ada"), ("zoë_7@x.org", "zoë_7@x.org"), ("-rf", "rf-5b0a"), ("base", "base"), ("...", "student-ab5d"),
     ("a:b", "a_b-"), ("a\nb", "a_b-"), ("nul", "nul-"), ("COM1.txt", "COM1.txt-"), ("x" * 300, "x" * 60 + "-")],
    ids=["plain", "address", "option", "base", "dots", "colon", "line", "device", "port", "long"],
)  # fmt: skip
def test_a_student_s_folder_has_a_name_that_every_file_system_takes(name: str, safe: str):
    found = jplag.folder_names([name])[name]
    assert found == name if safe == name else found.startswith(safe.partition("-")[0] + "-")
    assert len(found) < 80


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=70), unique=True, max_size=8))
def test_no_two_students_share_a_folder_even_where_case_counts_for_nothing(students: list[str]):
    names = jplag.folder_names([*students, "Ada", "ada"]).values()
    assert len({name.casefold() for name in names}) == len(names)
    assert not any(set(name) & set('/\\:*?"<>|\n\0') or name[0] in ".-" or name[-1] == "." for name in names)


def test_what_stands_in_the_way_is_said_before_anything_is_written(
    course: Course, hand_in: Callable[..., Path], capsys
):
    def refused(words: str, out: Path = course.root / "out") -> None:
        assert cli.main(["jplag", "p03", str(out), "--course", str(course.root)]) == cli.COULD_NOT
        assert words in capsys.readouterr().err.replace("\n", " ")
        assert not (course.root / "out").exists()

    hand_in("ada", STEM, data=notebook(ANSWER))
    hand_in("bob", STEM, data="{")
    refused(f"of 2 students with a folder {course.root}/submitted/STUDENT/{STEM} only 1 wrote code")
    refused("is in use, it holds release, submitted", course.root)
    refused("JPlag reads a comma", course.root / "p03,2026")
    (course.root / "release" / STEM / f"{STEM}.ipynb").unlink()
    refused(f"run `ftgrade release {STEM}`")
