"""A class that is graded as its work arrives: the same scores, pages in stages, nothing lost and nothing given away."""

import ast
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Generator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.classroom.arrivals import Drop
from ftgrade.classroom.exchanging import collect_from_exchange, release_page
from ftgrade.classroom.watching import Event, Watch
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.gradebook import attempts, late
from ftgrade.gradebook.book import Book, open_gradebook
from ftgrade.grading.grader import Grader
from ftgrade.intake.collect import People
from ftgrade.judging.judges import Judges
from ftgrade.pages.feedback import page_maker

CATALOG = home()
STEM = "p03_lora_parameters"
RIGHT = CATALOG.leaves(STEM).solution.read_text("utf-8")
WRONG = RIGHT.replace("(d_out * d_in - 1) //", "(d_out * d_in) //")
DUE = datetime(2026, 12, 1, 18, 0)
MINUTE = timedelta(minutes=1)


def filled(answers: str) -> str:
    return build.filled_notebook(CATALOG, STEM, answers)


def hand_in(root: Path, student: str, answers: str) -> Path:
    path = root / "submitted" / student / STEM / f"{STEM}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(filled(answers))
    return path


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = DUE - 600 * MINUTE

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("watched")
    Course(root).secret()
    Book(Course(root)).release(STEM)
    return root


@pytest.fixture
def root(released: Path, tmp_path: Path) -> Path:
    return shutil.copytree(released, tmp_path / "course")


@contextlib.contextmanager
def watching(root: Path, judges: Judges, clock: Clock | None = None) -> Generator[Watch]:
    course = Course(root.absolute())
    grader, book, pages = Grader(CATALOG, course, judges), Book(course), page_maker()
    with book.open_ledgers(grader, [], pages) as ledgers:
        yield Watch(grader, book, ledgers, pages, [STEM], set, clock or Clock())


def settled(watch: Watch) -> list[Event]:
    """Poll until nothing happens; return what did."""
    found: list[Event] = []
    for _ in range(20):
        before = len(found)
        found += watch.poll()
        if len(found) == before and not watch.unsteady and not watch.backlog:
            return found
    raise AssertionError("it never settles")


def kinds(events: list[Event], student: str) -> list[str]:
    return [event.kind for event in events if event.student == student]


def page(root: Path, student: str) -> str:
    return (root / "feedback" / student / STEM / f"{STEM}.html").read_text("utf-8")


def set_due(root: Path) -> None:
    with open_gradebook(root) as gradebook:
        late.set_due(gradebook, Course(root), STEM, DUE)


def test_a_watched_class_gets_the_reports_and_pages_of_grade_to_the_byte(root: Path, judges: Judges, tmp_path: Path):
    for student, answers in (("ada", RIGHT), ("bob", WRONG), ("cyd", RIGHT + "\nx = 1 / 0\n")):
        hand_in(root, student, answers)
    (root / "submitted" / "dan" / STEM).mkdir(parents=True)
    other = shutil.copytree(root, tmp_path / "other")
    with watching(root, judges) as watch:
        settled(watch)
    assert cli.main(["grade", STEM, "--course", str(other), "-j", "1"]) in (0, 1)
    for student in ("ada", "bob", "cyd", "dan"):
        here, there = Course(root).report_path(student, STEM), Course(other).report_path(student, STEM)
        assert here.read_bytes() == there.read_bytes()
        assert page(root, student) == page(other, student)
        booked = [one / "autograded" / student / STEM / f"{STEM}.ipynb" for one in (root, other)]
        assert booked[0].read_bytes() == booked[1].read_bytes()


def test_a_file_that_is_still_being_copied_waits(root: Path, judges: Judges):
    path = hand_in(root, "ada", RIGHT)
    whole = path.read_bytes()
    with watching(root, judges) as watch:
        for part in (1, 2, 3):
            path.write_bytes(whole[: part * len(whole) // 4])
            assert list(watch.poll()) == []
            assert watch.unsteady == 1
        path.write_bytes(whole)
        assert list(watch.poll()) == []
        assert kinds(list(watch.poll()), "ada") == ["booked", "page"]


def test_what_did_not_change_is_left_alone_also_by_the_next_watch(root: Path, judges: Judges):
    hand_in(root, "ada", RIGHT)
    with watching(root, judges) as watch:
        settled(watch)
        assert settled(watch) == []
    stamps = [path.stat().st_mtime_ns for path in (Course(root).report_path("ada", STEM), root / "feedback/ada")]
    with watching(root, judges) as watch:
        assert kinds(settled(watch), "ada") == ["known"]
    assert stamps == [
        path.stat().st_mtime_ns for path in (Course(root).report_path("ada", STEM), root / "feedback/ada")
    ]


def test_before_the_due_date_a_page_tells_the_public_cases_then_mistakes_then_everything(root: Path, judges: Judges):
    set_due(root)
    attempts.set_rule(Course(root), STEM, {"mistakes_from": 2})
    clock = Clock()
    with watching(root, judges, clock) as watch:
        hand_in(root, "ada", WRONG)
        assert kinds(settled(watch), "ada") == ["page", "booked"]
        first = page(root, "ada")
        assert "These are the public cases" in first
        assert "Likely mistake" not in first
        hand_in(root, "ada", WRONG + "\n# again\n")
        settled(watch)
        assert "Likely mistake" in page(root, "ada")
        assert "These are the public cases" in page(root, "ada")
        clock.time = DUE
        assert kinds(settled(watch), "ada") == ["page"]
        assert "These are the public cases" not in page(root, "ada")


def test_an_extension_moves_what_one_student_is_told(root: Path, judges: Judges):
    set_due(root)
    hand_in(root, "ada", RIGHT)
    hand_in(root, "bob", RIGHT)
    late.write_extensions(Course(root), {("bob", STEM): DUE + 60 * MINUTE})
    clock = Clock()
    clock.time = DUE + MINUTE
    with watching(root, judges, clock) as watch:
        settled(watch)
    assert "These are the public cases" not in page(root, "ada")
    assert "These are the public cases" in page(root, "bob")


PROBE = '''
import builtins
def numbers_in(value):
    if isinstance(value, int | float):
        return int(value)
    return sum(map(numbers_in, value)) if hasattr(value, "__iter__") else 0
def probed(real):
    """Tell a bit of what is asked by how the call ends, and print all of it."""
    def asked(*given, **named):
        print(given, named)
        if numbers_in([*given, *named.values()]) >> {bit} & 1:
            raise ValueError(f"{{given}} {{named}}")
        return real(*given, **named) + {bit} // 9
    return asked
for name in {functions}:
    globals()[name] = probed(globals()[name])
'''
FUNCTIONS = [node.name for node in ast.parse(RIGHT).body if isinstance(node, ast.FunctionDef)]


def probing_notebook(answers: str, bit: int) -> str:
    """Return a notebook that tries to draw a bit of the inputs that it is asked with onto the page."""
    document = json.loads(filled(answers))
    source = PROBE.replace("{{", "{").replace("}}", "}").replace("{bit}", str(bit))
    source = source.replace("{functions}", repr(FUNCTIONS))
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
    document["cells"].append(cell)
    return json.dumps(document)


def adaptive_notebooks() -> list[str]:
    """Return twenty versions of one student's work, each of which asks for another bit."""
    return [probing_notebook(answers, bit) for answers in (RIGHT, WRONG) for bit in range(10)]


def test_twenty_attempts_draw_nothing_of_a_hidden_input_onto_a_page(root: Path, judges: Judges, tmp_path: Path):
    """Two courses whose hidden inputs differ give the same pages; their full reports, the control, do not."""
    set_due(root)
    attempts.set_rule(Course(root), STEM, {"mistakes_from": 10})
    other = shutil.copytree(root, tmp_path / "other")
    (other / ".ftgrade" / "secret").unlink()
    assert Course(other).secret() != Course(root).secret()
    told: list[list[str]] = []
    reports: list[list[str]] = []
    for course in (root, other):
        pages, full = list[str](), list[str]()
        with watching(course, judges, Clock()) as watch:
            for notebook in adaptive_notebooks():
                hand_in(course, "eve", RIGHT).write_text(notebook)
                settled(watch)
                pages.append(page(course, "eve"))
                report = watch.grader.reports.load("eve", STEM)
                full.append(json.dumps([[check.status, check.score, check.words] for check in report.checks]))
        told.append(pages)
        reports.append(full)
    assert len(set(told[0])) == 20
    assert told[0] == told[1]
    assert "Likely mistake" not in "".join(told[0][:9])
    assert reports[0] != reports[1]


def test_a_limit_and_a_waiting_time_hold_pages_back_and_no_scores(root: Path, judges: Judges):
    set_due(root)
    attempts.set_rule(Course(root), STEM, {"limit": 2, "wait_seconds": 600})
    clock = Clock()
    with watching(root, judges, clock) as watch:
        hand_in(root, "ada", WRONG)
        settled(watch)
        assert "Attempt 1 of 2" in page(root, "ada")
        hand_in(root, "ada", WRONG + "\n# b\n")
        assert kinds(settled(watch), "ada") == ["held", "booked"]
        assert "Attempt 1 of 2" in page(root, "ada")
        clock.time += 10 * MINUTE
        assert kinds(settled(watch), "ada") == ["page"]
        assert "Attempt 2 of 2, the last" in page(root, "ada")
        clock.time += 60 * MINUTE
        hand_in(root, "ada", RIGHT)
        assert kinds(settled(watch), "ada") == ["held", "booked"]
        hand_in(root, "ada", WRONG)
        settled(watch)
        assert len(attempts.read_attempts(Course(root), "ada", STEM)) == 2, "the same work again is no new attempt"
        hand_in(root, "ada", RIGHT)
        settled(watch)
        assert watch.grader.reports.load("ada", STEM).score == 10.0
        clock.time = DUE
        assert kinds(settled(watch), "ada") == ["page"]
    assert "Attempt" not in page(root, "ada")


def test_what_can_not_be_read_uses_no_attempt(root: Path, judges: Judges):
    set_due(root)
    attempts.set_rule(Course(root), STEM, {"limit": 1})
    with watching(root, judges) as watch:
        hand_in(root, "ada", RIGHT).write_text("{")
        settled(watch)
        hand_in(root, "ada", RIGHT)
        settled(watch)
    assert "Attempt 1 of 1" in page(root, "ada")


def test_a_failure_about_one_student_stops_nobody_else(root: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch):
    set_due(root)
    for student in ("ada", "bob", "cyd"):
        hand_in(root, student, RIGHT)
    Course(root).state.joinpath("attempts", STEM).mkdir(parents=True)
    Course(root).state.joinpath("attempts", STEM, "bob.json").write_text("{")
    with watching(root, judges) as watch:
        found = settled(watch)
        assert kinds(found, "ada") == kinds(found, "cyd") == ["page", "booked"]
        assert "trouble" in kinds(found, "bob")
        assert "page" not in kinds(found, "bob")


def test_a_watch_that_is_killed_in_the_middle_goes_on_where_it_was(root: Path, tmp_path: Path):
    students = [f"s{number:02}" for number in range(12)]
    for number, student in enumerate(students):
        hand_in(root, student, f"{(RIGHT, WRONG)[number % 2]}\n# {number}\n")
    words = [sys.executable, "-m", "ftgrade.commands.cli", "watch", STEM, "--course", str(root), "--once"]
    words += ["--every", "0.2", "-j", "1"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    folder = Course(root).report_path("x", STEM).parent
    until = time.monotonic() + 120
    while len(list(folder.glob("*.json"))) < 3 and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert len(before) >= 3
    finished = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert sorted(after) == [f"{student}.json" for student in students]
    assert {name: after[name] for name in before} == before, "what was judged is not judged again"
    assert all(page(root, student) for student in students)
    with open_gradebook(root) as gradebook:
        assert sorted(one.student.id for one in gradebook.assignment_submissions(STEM)) == students


def test_a_drop_folder_takes_files_and_archives_once_they_are_steady(root: Path, judges: Judges, tmp_path: Path):
    folder = tmp_path / "drop"
    folder.mkdir()
    drop = Drop(folder, Course(root), [STEM], lambda: People(("ada", "bob"), {}, {}))
    (folder / f"ada_{STEM}.ipynb").write_text(filled(RIGHT))
    with zipfile.ZipFile(folder / "bob.zip", "w") as archive:
        archive.writestr(f"{STEM}.ipynb", filled(WRONG))
    (folder / f"zed_{STEM}.ipynb").write_text(filled(RIGHT))
    (folder / "link").symlink_to(tmp_path)
    assert list(drop.collect_new()) == []
    assert not (root / "submitted").exists()
    (said,) = drop.collect_new()
    assert "there is no student 'zed'" in said
    assert list(drop.collect_new()) == []
    with watching(root, judges) as watch:
        assert {event.student for event in settled(watch)} == {"ada", "bob"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nbgrader leaves a file open
def test_the_exchange_is_collected_and_gets_the_pages(root: Path, judges: Judges, tmp_path: Path):
    exchange = tmp_path / "exchange"
    came = exchange / "maths" / "inbound" / f"ada+{STEM}+2026-11-01 10:00:00 UTC+x"
    came.mkdir(parents=True)
    (came / f"{STEM}.ipynb").write_text(filled(RIGHT))
    (came / "timestamp.txt").write_text("2026-11-01 10:00:00 UTC")
    (came / "submission_secret.txt").write_text("drawn by nbgrader")
    with (root / "nbgrader_config.py").open("a") as file:
        file.write(f"\nc = get_config()\nc.Exchange.root = {str(exchange)!r}\nc.CourseDirectory.course_id = 'maths'\n")
        file.write("c.ExchangeCollect.check_owner = False\n")
    with watching(root, judges) as watch:
        assert list(collect_from_exchange(watch.book, [STEM])) == []
        assert "page" in kinds(settled(watch), "ada")
        assert release_page(watch.book, STEM, "ada") == ""
    assert len(list((exchange / "maths" / "feedback").glob("*.html"))) == 1


def test_a_course_without_a_name_can_not_use_the_exchange(root: Path, judges: Judges):
    with watching(root, judges) as watch, pytest.raises(CourseFault, match="course_id"):
        list(collect_from_exchange(watch.book, [STEM]))


def test_the_bounds_of_a_problem_are_set_told_and_taken_back(root: Path, capsys: pytest.CaptureFixture[str]):
    words = ["attempts", "p03", "--course", str(root), "--json"]
    assert cli.main([*words, "--limit", "5", "--wait", "10m", "--mistakes-from", "3"]) == 0
    assert cli.main(words) == 0
    assert '"limit": 5' in capsys.readouterr().out
    assert attempts.read_rules(Course(root)) == {STEM: attempts.Rule(5, 600, 3)}
    assert cli.main([*words, "--none"]) == 0
    assert attempts.read_rules(Course(root)) == {}
    assert cli.main(["attempts", "--limit", "5", "--course", str(root)]) == 2
    assert cli.main([*words, "--wait", "soon"]) == 2
