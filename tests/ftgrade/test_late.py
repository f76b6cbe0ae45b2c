"""Due dates, extensions and what lateness costs: the same on nbgrader's way and on ours."""

import contextlib
import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.gradebook.late import LatePolicy, Policy, late_penalty, late_plugin, read_extensions
from ftgrade.moments import parse_time
from hypothesis import given
from hypothesis import strategies as st
from nbgrader.api import Gradebook
from traitlets.config import Config

CATALOG = home()
STEM = "p03_lora_parameters"
RIGHT = CATALOG.leaves(STEM).solution.read_text("utf-8")
CONFIG = (
    "from ftgrade.nbgrader_step import configure\n\nconfigure(get_config())\n"
    "c = get_config()\nc.LatePolicy.percent_a_day = 10\nc.LatePolicy.at_most_percent = 50\n"
    "c.LatePolicy.grace_minutes = 15\nc.NbGraderAPI.timezone = 'Europe/Berlin'\n"
)
HANDED_IN = {
    "early": "2026-12-01 16:59:59 UTC", "graced": "2026-12-01 17:15:00 UTC", "late": "2026-12-03 10:00:00 UTC",
    "later": "2027-03-01 10:00:00 UTC", "extended": "2026-12-03 10:00:00 UTC", "timeless": "",
}  # fmt: skip
PENALTIES = {"early": 0.0, "graced": 0.0, "late": 2.0, "later": 5.0, "extended": 0.0, "timeless": 0.0}

policies = st.builds(Policy, st.floats(0, 100), st.floats(0, 100), st.floats(0, 10_000))


@given(st.floats(0, 1000), st.floats(0, 1e8), st.floats(0, 1e8), policies)
def test_a_penalty_is_within_the_score_and_never_falls_with_time(
    score: float, one: float, other: float, policy: Policy
):
    low, high = (late_penalty(score, seconds, policy) for seconds in sorted((one, other)))
    assert 0 <= low <= high <= score * policy.at_most_percent / 100 + 1e-9


@given(st.floats(0, 1000), policies)
def test_what_is_in_time_costs_nothing(score: float, policy: Policy):
    assert late_penalty(score, 60 * policy.grace_minutes, policy) == 0


def written(root: Path, text: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "nbgrader_config.py").write_text(text)
    return root


def test_a_course_that_says_nothing_takes_nothing(tmp_path: Path):
    assert late_plugin(tmp_path).late_submission_penalty("ada", 10.0, 10**9) is None


def test_nbgraders_own_method_still_counts(tmp_path: Path):
    root = written(tmp_path, "c = get_config()\nc.LateSubmissionPlugin.penalty_method = 'zero'\n")
    assert late_plugin(root).late_submission_penalty("ada", 7.0, 1.0) == 7.0


def test_a_course_may_bring_a_plugin_of_its_own(tmp_path: Path):
    root = written(
        tmp_path, "c = get_config()\nc.AssignLatePenalties.plugin_class = 'nbgrader.plugins.LateSubmissionPlugin'\n"
    )
    assert not isinstance(late_plugin(root), LatePolicy)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("c.LatePolicy.percent_a_day = 110", "110"),
        ("c.LatePolicy.percent_a_day = -1", "-1"),
        ("c.LatePolicy.at_most_percent = float('nan')", "must be a finite number"),
        ("c.LatePolicy.grace_minutes = '15 minutes'", "15 minutes"),
        ("c.LatePolicy.percent_per_day = 10", "percent_per_day, which there isn't; there are: at_most_percent, grace"),
        ("c.LatePolicy.percent_a_day = ten", "NameError"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_is_told_by_name(tmp_path: Path, line: str, words: str):
    with pytest.raises(CourseFault, match=r"nbgrader_config\.py") as told:
        late_plugin(written(tmp_path, f"c = get_config()\n{line}\n"))
    assert words in str(told.value)


def test_the_command_line_of_nbgrader_wins_over_the_file(tmp_path: Path):
    root = written(tmp_path, CONFIG)
    assert late_plugin(root, Config(LatePolicy={"percent_a_day": 20.0})).policy == Policy(20, 50, 15)
    assert late_plugin(root).policy == Policy(10, 50, 15)


@pytest.mark.parametrize(
    ("text", "zone", "words"),
    [
        ("tomorrow", "UTC", "no date and time"),
        ("2026-12-01", "UTC", "say the hour too, 2026-12-01T18:00"),
        ("2026-03-29T02:30", "Europe/Berlin", "clocks are put forward"),
        ("2026-12-01T18:00", "Europe/Atlantis", "is no time zone"),
    ],
)
def test_a_time_that_is_none_is_told(text: str, zone: str, words: str):
    with pytest.raises(CourseFault, match=words):
        parse_time(text, zone)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class that hands in at six times, a due date, an extension for one; graded by `ftgrade grade`."""
    root = tmp_path_factory.mktemp("late") / "course"
    roster = root.parent / "students.csv"
    roster.write_text("id\n" + "\n".join([*HANDED_IN, "absent"]) + "\n")
    assert cli.main(["new-course", str(root), "--roster", str(roster)]) == cli.FINE
    written(root, CONFIG)
    for student, time in HANDED_IN.items():
        path = root / "submitted" / student / STEM / f"{STEM}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(build.filled_notebook(CATALOG, STEM, RIGHT))
        if time:
            (path.parent / "timestamp.txt").write_text(time)
    assert run(root, "due", STEM, "2026-12-01T18:00") == cli.FINE
    assert run(root, "extend", "extended", STEM, "--until", "2026-12-04T18:00") == cli.FINE
    assert run(root, "extend", "absent", STEM, "--until", "2026-12-04T18:00+02:00") == cli.FINE
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run(root, "grade", STEM, "-j", "2", "--json") == cli.FINE
    (root / "said.json").write_text(said.getvalue())
    return root


def run(root: Path, *words: str) -> int:
    return cli.main([*words, "--course", str(root)])


def penalties(root: Path) -> dict[str, float]:
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        return {one.student_id: one.late_submission_penalty or 0.0 for one in gradebook.assignment_submissions(STEM)}


def test_lateness_costs_what_the_course_says_and_an_extension_moves_it(course: Path):
    assert penalties(course) == PENALTIES


def test_grading_tells_what_it_takes_off(course: Path):
    told = json.loads((course / "said.json").read_text())
    assert {one["student"]: one["late penalty"] for one in told["submissions"]} == PENALTIES
    assert {one["score"] for one in told["submissions"]} == {10.0}, "the score is what the answers deserve"


def test_an_extension_before_anything_was_handed_in_makes_no_submission(course: Path):
    assert read_extensions(Course(course))["absent", STEM] == datetime(2026, 12, 4, 16)
    assert "absent" not in penalties(course)


def test_nbgraders_own_command_books_the_same_penalties(course: Path):
    command = [sys.executable, "-m", "nbgrader", "autograde", STEM, "--force"]
    finished = subprocess.run(command, cwd=course, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert penalties(course) == PENALTIES


def test_the_page_and_the_export_tell_the_penalty(course: Path):
    page = (course / "feedback" / "late" / STEM / f"{STEM}.html").read_text()
    assert "A late penalty of 2 points is taken off." in page
    command = [sys.executable, "-m", "nbgrader", "export", "--exporter", "ftgrade.exporters.Csv", "--to", "out.csv"]
    subprocess.run(command, cwd=course, capture_output=True, timeout=300, check=True)
    with (course / "out.csv").open(encoding="utf-8-sig") as file:
        scores = {row["student_id"]: row[STEM] for row in csv.DictReader(file)}
    assert (scores["late"], scores["later"], scores["extended"], scores["absent"]) == ("8", "5", "10", "")


def test_the_class_report_tells_when_work_came_in_in_the_courses_zone(course: Path):
    page = (course / "class_report.html").read_text("utf-8")
    assert "4 came after the due date, 2026-12-01 18:00 CET." in page
    assert "1 of 6 tell no time" in page
    with (course / "class_report.csv").open(encoding="utf-8") as file:
        times = {row["student"]: row["handed in"] for row in csv.DictReader(file)}
    assert {student: bool(time) for student, time in times.items()} == {
        student: bool(time) for student, time in HANDED_IN.items()
    }
    assert {time[-6:] for time in times.values() if time} == {"+01:00"}


def test_what_is_due_is_told_in_the_courses_zone(course: Path, capsys: pytest.CaptureFixture[str]):
    assert run(course, "due", STEM) == cli.FINE
    said = " ".join(capsys.readouterr().out.split())
    assert "2026-12-01 18:00 CET" in said
    assert "1 of 6 submissions tell no time" in said


def test_a_second_grading_books_what_changed_beside_the_notebook(course: Path, tmp_path: Path):
    """A new time, a new policy, a new extension: no notebook is judged again, and every penalty follows."""
    root = shutil.copytree(course, tmp_path / "course")
    stamp = root / "submitted" / "early" / STEM / "timestamp.txt"
    stamp.write_text("2026-12-02 10:00:00 UTC")
    assert run(root, "grade", STEM, "-j", "1") == cli.FINE
    assert penalties(root) == PENALTIES | {"early": 1.0}
    written(root, CONFIG.replace("percent_a_day = 10", "percent_a_day = 20"))
    assert run(root, "extend", "extended", STEM, "--none") == cli.FINE
    assert run(root, "grade", STEM, "-j", "1") == cli.FINE
    assert penalties(root) == PENALTIES | {"early": 2.0, "late": 4.0, "extended": 4.0}
    assert run(root, "due", STEM, "--none") == cli.FINE
    assert run(root, "grade", STEM, "-j", "1") == cli.FINE
    assert set(penalties(root).values()) == {0.0}


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., int]:
    """A course that was never graded, and the command line in it."""
    roster = tmp_path / "students.csv"
    roster.write_text("id\nada\nbob\n")
    assert cli.main(["new-course", str(tmp_path / "course"), "--roster", str(roster)]) == cli.FINE
    return lambda *words: run(tmp_path / "course", *words)


def test_an_extension_that_cannot_be_meant_is_refused(bare: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert bare("extend", "ada", STEM, "--until", "2026-12-01T18:00") == cli.COULD_NOT
    assert "has no due date to extend" in capsys.readouterr().err
    assert bare("due", STEM, "2026-12-01T18:00") == cli.FINE
    assert bare("extend", "adda", STEM, "--until", "2026-12-02T18:00") == cli.COULD_NOT
    assert "there is no student 'adda' in this course: ada?" in capsys.readouterr().err
    assert bare("extend", "ada", STEM, "--until", "2026-11-30T18:00") == cli.COULD_NOT
    assert "is no later" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Object of type <Submitted")  # nbgrader 0.9.6 under SQLAlchemy 2.1
def test_extensions_and_due_dates_can_be_taken_back(
    bare: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / "course"
    for words in (
        ["due", STEM, "2026-12-01T18:00"], ["extend", "ada", STEM, "--until", "2026-12-02T18:00"],
        ["extend", "bob", STEM, "--until", "2026-12-02T18:00"], ["extend", "ada", STEM, "--none"],
    ):  # fmt: skip
        assert bare(*words) == cli.FINE
    assert set(read_extensions(Course(root))) == {("bob", STEM)}
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        gradebook.add_submission(STEM, "bob", timestamp="2026-12-03 10:00:00 UTC")
    assert bare("due", STEM, "2026-12-01T19:00") == cli.FINE
    assert bare("due", "--none") == cli.COULD_NOT
    assert "which problem is never due?" in capsys.readouterr().err
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        assert gradebook.find_submission(STEM, "bob").extension == timedelta(hours=23)
    assert bare("due", STEM, "--none") == cli.FINE
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        assert gradebook.find_submission(STEM, "bob").total_seconds_late == 0


def test_a_torn_line_of_extensions_is_told_with_its_number(tmp_path: Path):
    course = Course(tmp_path)
    (course.state / "extensions.csv").write_text("student,problem,until\nada,p03,soon\n")
    with pytest.raises(CourseFault, match=r"line 2: 'soon' is no date and time"):
        read_extensions(course)
