"""The grader's own process imports no torch: what it knows of a problem is told by a process that loads the file."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.course import Course
from ftgrade.errors import AuthorFault, CourseFault, OurFault
from ftgrade.grading.grader import Grader
from ftgrade.grading.run import grade_class
from ftgrade.judging.judges import Judges
from ftgrade.judging.outline import load_outline
from ftgrade.judging.versions import versions
from ftgrade.probing.doctor import cache_file, strongest

CATALOG = home()
STEM = "p03_lora_parameters"
COMMANDS = """
import os, sys
from pathlib import Path
from nbgrader.apps import NbGraderApp
from ftgrade.commands import cli

course, stem = sys.argv[1:]
for words in (["grade", stem], ["grade", stem], ["todo"], ["diff"], ["verify"]):
    assert cli.main([*words, "--course", course]) == 0, words
os.chdir(course)
NbGraderApp.launch_instance(["export", "--exporter", "ftgrade.exporters.Csv", "--to", "grades.csv"])
assert Path("grades.csv").is_file()
print("torch" in sys.modules)
"""
OneProblem = Callable[[str, str], Catalog]


def hand_in(course: Course, student: str) -> None:
    path = course.notebook(student, STEM)
    path.parent.mkdir(parents=True)
    answers = CATALOG.leaves(STEM).solution.read_text("utf-8")
    path.write_text(build.filled_notebook(CATALOG, STEM, answers), "utf-8")


def test_no_command_about_a_class_imports_torch(tmp_path: Path):
    for student in ("ada", "bob"):
        hand_in(Course(tmp_path), student)
    words = [sys.executable, "-c", COMMANDS, str(tmp_path), STEM]
    said = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == "False"
    assert "2 submissions: 2 graded" in said.stdout


def test_a_judge_tells_of_every_problem_what_its_file_says(judges: Judges):
    for stem in CATALOG.stems():
        assert judges.outline(stem) == load_outline(CATALOG, stem)


def test_a_name_that_is_no_problem_is_the_courses_fault(judges: Judges):
    with pytest.raises(CourseFault, match="there is no problem 'p99'"):
        judges.outline("p99")


@pytest.mark.parametrize(
    ("text", "fault", "words"),
    [
        ("1 / 0", AuthorFault, "can't be imported: ZeroDivisionError"),
        ("del problem", AuthorFault, "must define `problem"),
        ("import os\nos._exit(3)", OurFault, f"{STEM} can't be loaded"),
    ],
)
def test_a_problem_that_can_not_be_loaded_is_never_the_students_fault(
    text: str, fault: type[Exception], words: str, one_problem: OneProblem, tmp_path: Path
):
    checkout, course = one_problem(STEM, f"\n{text}\n"), Course(tmp_path)
    hand_in(course, "ada")
    judges = Judges(checkout, lambda: strongest(cache_file()))
    with contextlib.closing(Grader(checkout, course, judges)) as grader:
        with pytest.raises(fault, match=words):
            grader.grade("ada", STEM)
        (report,) = grade_class(grader, [STEM])
    assert report.state == "ours"
    assert words in report.findings[0].words
    assert not course.report_path("ada", STEM).exists()


def test_the_environment_is_that_of_the_imported_libraries():
    named = versions("")["environment"]
    assert named.endswith(f", torch {torch.__version__}, numpy {numpy.__version__}")
