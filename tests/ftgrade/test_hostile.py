"""Everything in tests/submissions/hostile through both ways of grading (python3 start.py test hostile)."""

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.gradebook.book import Book
from ftgrade.grading.grader import Grader
from ftgrade.grading.reports import Reports
from ftgrade.grading.run import grade_class
from ftgrade.judging.judges import Judges
from ftgrade.judging.report import Limits, Report
from ftgrade.probing.doctor import cache_file, strongest
from ftgrade.sandbox.backends import BACKENDS
from nbgrader.api import Gradebook

pytestmark = pytest.mark.hostile
STEM = "p03_lora_parameters"
FOLDER = Path(__file__).parents[1] / "submissions" / "hostile"
RIGHT = home().leaves(STEM).solution.read_text("utf-8")
WRONG = RIGHT.replace("(d_out * d_in - 1) //", "(d_out * d_in) //")


def corpus() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("hostile_corpus", FOLDER / "corpus.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["hostile_corpus"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


CORPUS = corpus().CORPUS


def hand_in(root: Path, student: str, answers: str) -> None:
    path = root / "submitted" / student / STEM / f"{STEM}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(build.filled_notebook(home(), STEM, answers))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    corpus().lay_down(root)
    hand_in_honestly(root)
    return root


NEIGHBOURS = {"neighbour_0": WRONG, "neighbour_1": RIGHT, "neighbour_2": RIGHT}


def hand_in_honestly(root: Path) -> None:
    for student, answers in NEIGHBOURS.items():
        hand_in(root, student, answers)


@pytest.fixture(scope="module")
def alone(root: Path, reports: dict[str, Report], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course of the three honest neighbours alone, booked by `ftgrade grade` with the same secret."""
    quiet = tmp_path_factory.mktemp("alone")
    hand_in_honestly(quiet)
    (quiet / ".ftgrade").mkdir()
    shutil.copyfile(root / ".ftgrade" / "secret", quiet / ".ftgrade" / "secret")
    Book(Course(quiet)).release(STEM)
    assert cli.main(["grade", STEM, "--course", str(quiet)]) == cli.FINE
    return quiet


@pytest.fixture(scope="module")
def reports(root: Path) -> dict[str, Report]:
    # What never ends needs no longer to show it.
    grader = Grader(home(), Course(root), two_judges(), limits=Limits(cell_seconds=5.0, patience=1.5))
    with contextlib.closing(grader):
        return {report.student: report for report in grade_class(grader, [STEM])}


def two_judges() -> Judges:
    return Judges(home(), lambda: strongest(cache_file()), 2)


def test_the_corpus_is_large():
    assert len(CORPUS) >= 260


WITHOUT_NAMESPACES = """
import os, sys
open("/proc/sys/user/max_user_namespaces", "w").write("0")  # of this namespace and those below it alone
os.environ["PATH"] = os.path.dirname(sys.executable)  # bubblewrap isn't installed there either
from ftgrade.commands import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_container_without_user_namespaces_grades_behind_landlock(tmp_path: Path):
    """As Docker's default profile has it: no namespace can be made, and what needs none must hold all the same."""
    if subprocess.run(["unshare", "-Ur", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine makes no user namespaces, so none can be taken away")
    root, chosen = tmp_path / "course", [name for name in CORPUS if name.startswith(("harm_", "honest_"))][::9]
    hand_in_honestly(root)
    for name in chosen:
        CORPUS[name].write(root / "submitted" / name / STEM)
    Book(Course(root)).release(STEM)
    words = ["unshare", "-Ur", sys.executable, "-c", WITHOUT_NAMESPACES, "grade", STEM, "--course", str(root)]
    done = subprocess.run(
        words,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == cli.FINE, done.stdout + done.stderr
    assert '"landlock"' in (tmp_path / "cache" / "ftgrade" / "doctor.json").read_text("utf-8")
    scores = {report.student: report.score for report in Reports(Course(root)).of_problem(STEM)}
    wanted = {name: CORPUS[name].deserves for name in chosen} | {"neighbour_0": pytest.approx(9.25)}
    assert scores == wanted | {"neighbour_1": 10.0, "neighbour_2": 10.0}


@pytest.mark.parametrize("name", CORPUS)
def test_a_submission_gets_exactly_what_its_functions_deserve(reports: dict[str, Report], name: str):
    report, entry = reports[name], CORPUS[name]
    assert (report.state, report.score) == (entry.state, entry.deserves), [
        (check.name, check.status, check.words) for check in report.checks if check.score != check.points
    ]


def test_nobody_elses_report_is_changed_by_a_byte(reports: dict[str, Report], root: Path, alone: Path):
    assert [reports[one].score for one in NEIGHBOURS] == [pytest.approx(9.25), 10.0, 10.0]
    for one in NEIGHBOURS:
        ours, theirs = (Course(course).report_path(one, STEM).read_bytes() for course in (alone, root))
        assert ours == theirs


def test_nothing_of_a_hidden_call_and_nothing_secret_is_told(reports: dict[str, Report], root: Path):
    nothing_is_told(reports, root)


def nothing_is_told(reports: dict[str, Report], root: Path) -> None:
    secret = (root / ".ftgrade" / "secret").read_text().strip()
    for report in reports.values():
        text = json.dumps([note.printed + note.error for note in report.notes])
        for word in ("OPENED", "WENT", secret, "root:x:", "FOUND [["):
            assert word not in text, report.student
        told = [[check.words, check.says, check.case, check.next_step] for check in report.checks]
        assert "LEAK" not in text + json.dumps([told, [finding.words for finding in report.findings]]), report.student


@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
def test_each_other_wall_holds_the_whole_corpus(root: Path, reports: dict[str, Report], tmp_path: Path, name: str):
    backend = BACKENDS[name]
    if backend.lacks():
        pytest.skip(backend.lacks())
    corpus().lay_down(tmp_path)
    hand_in_honestly(tmp_path)
    (tmp_path / ".ftgrade").mkdir()
    shutil.copyfile(root / ".ftgrade" / "secret", tmp_path / ".ftgrade" / "secret")
    judges = Judges(home(), lambda: backend, 4)  # much of the time is waiting
    grader = Grader(home(), Course(tmp_path), judges, limits=Limits(cell_seconds=5.0, patience=1.5))
    with contextlib.closing(grader):
        found = {report.student: report for report in grade_class(grader, [STEM])}
    wanted = {one: (report.state, report.score) for one, report in reports.items()}
    assert {one: (report.state, report.score) for one, report in found.items()} == wanted
    nothing_is_told(found, root)


def test_nbgrader_books_the_same_scores_and_its_files_are_safe_to_open(
    reports: dict[str, Report], root: Path, alone: Path
):
    Book(Course(root)).release(STEM)
    for name in CORPUS:
        if name.startswith("file_"):  # judged anew in nbgrader's own process; the others find their report
            Course(root).report_path(name, STEM).unlink()
    command = [sys.executable, "-m", "nbgrader", "autograde", STEM]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=1500, check=False)
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        booked = {one.student.id: round(one.score, 6) for one in gradebook.assignment_submissions(STEM)}
    wanted = {name: report.score for name, report in reports.items()}
    wanted.pop("file_nothing")  # nbgrader's own command looks for notebooks, not folders
    missing = {name for name in wanted if name not in booked}
    assert missing <= {name for name in missing if CORPUS[name].state == "unreadable"}, finished.stderr[-3000:]
    assert {name: booked[name] for name in wanted if name in booked} == {
        name: score for name, score in wanted.items() if name in booked
    }
    feedback = [sys.executable, "-m", "nbgrader", "generate_feedback", STEM, "--force"]
    for one in NEIGHBOURS:
        for course in (alone, root):
            subprocess.run([*feedback, f"--student={one}"], cwd=course, capture_output=True, timeout=300, check=True)
        pages = [course / "feedback" / one / STEM / f"{STEM}.html" for course in (alone, root)]
        assert pages[0].read_bytes() == pages[1].read_bytes()
    for path in (root / "autograded").rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or path.is_file()
        assert path.name not in ("nbgrader_config.py", "jupyter_server_config.py", "sitecustomize.py", "a.pth")
    for path in (root / "autograded").glob(f"*/{STEM}/{STEM}.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            assert "attachments" not in cell
            assert "tags" not in cell["metadata"]
            kinds = {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
            assert kinds <= {"text/plain", "text/html", "image/png"}
            if cell["cell_type"] == "markdown" and "nbgrader" not in cell["metadata"]:
                assert "".join(cell["source"]).startswith("```")


def test_nbgraders_own_notebooks_as_submissions_stop_nobody(tmp_path: Path):
    """What nbgrader ships for its tests and its documentation: of every format, some broken on purpose."""
    import nbgrader

    found = sorted(Path(nbgrader.__file__).parent.rglob("*.ipynb"))
    assert len(found) > 50
    for number, path in enumerate(found):
        folder = tmp_path / "submitted" / f"s{number}" / STEM
        folder.mkdir(parents=True)
        shutil.copy(path, folder / f"{STEM}.ipynb")
    with contextlib.closing(Grader(home(), Course(tmp_path), two_judges())) as grader:
        reports = list(grade_class(grader, [STEM]))
    assert len(reports) == len(found)
    assert {report.state for report in reports} <= {"graded", "unreadable"}
    assert {report.score for report in reports} == {0.0}


# ---------------------------------------------------------------------------------------------------------- faults

STUDENTS = 8


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a class that was handed in and released, with its secret, and not graded yet."""
    root = tmp_path_factory.mktemp("class")
    for number in range(STUDENTS):
        hand_in(root, f"student_{number}", RIGHT if number % 2 else WRONG)
    (root / "submitted" / "student_0" / STEM / f"{STEM}.ipynb").write_text("{")
    Course(root).secret()
    Book(Course(root)).release(STEM)
    return root


def copy_of(root: Path, goal: Path) -> Path:
    shutil.copytree(root, goal)
    return goal


def start(root: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "ftgrade.commands.cli", "grade", STEM, "--course", str(root), "-j", "2"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def finish(root: Path) -> int:
    return start(root).wait(timeout=600)


def scores(root: Path) -> dict[str, dict[str, float]]:
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        return {
            one.student.id: {grade.name: grade.score for book in one.notebooks for grade in book.grades}
            for one in gradebook.assignment_submissions(STEM)
        }


def state(root: Path) -> tuple[dict[str, dict[str, float]], dict[str, bytes]]:
    found = {path.stem: path.read_bytes() for path in (root / ".ftgrade" / "reports" / STEM).glob("*.json")}
    return scores(root), found


@pytest.fixture(scope="module")
def undisturbed(handed_in: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, float]:
    root = copy_of(handed_in, tmp_path_factory.mktemp("undisturbed") / "course")
    begin = time.monotonic()
    assert finish(root) == 1  # one submission can't be read
    return state(root), time.monotonic() - begin


def test_a_grader_killed_at_any_moment_finishes_next_time(
    handed_in: Path, undisturbed: tuple[object, float], tmp_path: Path
):
    wanted, seconds = undisturbed
    draw = random.Random(0)
    root = copy_of(handed_in, tmp_path / "course")
    for number in range(30):
        if number % 6 == 5:  # from the beginning again, so that every phase is met
            shutil.rmtree(root)
            copy_of(handed_in, root)
        running = start(root)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(draw.uniform(0.2, 1.1) * seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        for path in (root / ".ftgrade" / "reports").rglob("*.json"):
            json.loads(path.read_text("utf-8"))  # whole or not there
    assert finish(root) == 1
    assert state(root) == wanted


def test_two_graders_at_once_end_with_the_scores_of_one(
    handed_in: Path, undisturbed: tuple[object, float], tmp_path: Path
):
    root = copy_of(handed_in, tmp_path / "course")
    both = [start(root), start(root)]
    assert {one.wait(timeout=600) for one in both} <= {1, 2}
    assert finish(root) == 1
    assert state(root) == undisturbed[0]


def test_a_locked_gradebook_is_told_and_nothing_is_lost(
    handed_in: Path, undisturbed: tuple[object, float], tmp_path: Path
):
    root = copy_of(handed_in, tmp_path / "course")
    with contextlib.closing(sqlite3.connect(root / "gradebook.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert finish(root) in (1, 2)
        other.rollback()
    assert finish(root) == 1
    assert state(root) == undisturbed[0]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a small disk to fill")
def test_a_full_disk_is_told_and_nothing_is_lost(handed_in: Path, undisturbed: tuple[object, float], tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this machine mounts no file system")
    try:
        root = copy_of(handed_in, disk / "course")
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
        assert finish(root) in (1, 2)
        filler.unlink()
        assert finish(root) == 1
        assert state(root) == undisturbed[0]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
