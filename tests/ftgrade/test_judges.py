"""Judges are processes that may die, loop, starve or be killed: what that costs, and whom."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.classroom.stability import busy_processes
from ftgrade.course import Course
from ftgrade.grading.grader import Grader
from ftgrade.grading.run import grade_class
from ftgrade.intake.notebook import Cell
from ftgrade.judging.judges import Judges, Work
from ftgrade.judging.report import DEADLY, Judgement, Limits, Report
from ftgrade.judging.session import Session
from ftgrade.probing.doctor import cache_file, strongest
from ftgrade.sandbox.backends import Backend
from ftgrade.sandbox.channel import Call, Crowded, Lost
from ftgrade.sandbox.forking import Forked, Nursery
from ftgrade.sandbox.process import Sandbox

CATALOG = home()
STEM = "p03_lora_parameters"
SEVERAL = [STEM, "p08_dpo_loss", "p10_freeze_and_mask_audit"]
RIGHT = CATALOG.leaves(STEM).solution.read_text("utf-8")
WRONG = RIGHT.replace("(d_out * d_in - 1) //", "(d_out * d_in) //")
CLASS = {"ada": RIGHT, "bob": WRONG, "cyd": "", "dan": "def lora_param_count(*a):\n    return 7\n", "eve": "1 / 0"}
# As if native code that compares had a hole: student code itself can't reach the process that judges.
HOLE = """
import dataclasses, os, signal, time

def fall(number):
    if number == 661:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 662:
        os._exit(7)
    while number == 663:
        pass
    had = []
    while number == 664:
        had.append(bytearray(2**26))
    if number == 665:
        time.sleep(1e6)

def with_a_hole(same):
    def compare(right, mine):
        if type(mine) is int:
            fall(mine)
        return same(right, mine)
    return compare

problem.checks[:] = [dataclasses.replace(check, same=with_a_hole(check.same)) for check in problem.checks]
"""
FALLS = {
    661: ("ended the process that judged (status -9)", Limits()),
    662: ("ended the process that judged (status 7)", Limits()),
    663: ("took more processor time than judging may take", Limits(judge_seconds=3.0)),
    664: ("took more memory than judging may take", Limits()),
    665: ("took longer than judging may take", Limits(judge_wall_seconds=5.0)),
}
SLEEPS = RIGHT.replace("    r = min(r, d_out, d_in)\n", "    import time\n    time.sleep(1e6)\n")


def judges(catalog: Catalog = CATALOG, count: int = 1, nursery: Nursery | None = None) -> Judges:
    return Judges(catalog, lambda: strongest(cache_file()), count, nursery)


def hand_in(course: Course, student: str, answers: str, stem: str = STEM) -> None:
    path = course.notebook(student, stem)
    path.parent.mkdir(parents=True)
    path.write_text(build.filled_notebook(CATALOG, stem, answers), "utf-8")


def new_course(root: Path, answers: dict[str, str]) -> Course:
    """Return a course with what these students handed in; all courses here have one secret."""
    course = Course(root)
    course.write_secret(b"\x07" * 32)
    for student, text in answers.items():
        hand_in(course, student, text)
    return course


def graded(grader: Grader, *stems: str) -> dict[tuple[str, str], Report]:
    return {(one.student, one.stem): one for one in grade_class(grader, list(stems or [STEM]))}


def stored(course: Course) -> dict[str, bytes]:
    """Return what is stored of a class, byte by byte."""
    folder = course.state / "reports"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/*.json")}


# ------------------------------------------------------------------------------------------------- judges that die


@pytest.fixture(scope="module")
def checkout(one_problem: Callable[[str, str], Catalog]) -> Catalog:
    """A checkout with one problem, whose judging some answers can end."""
    return one_problem(STEM, HOLE)


@pytest.fixture(scope="module")
def falling(checkout: Catalog) -> Iterator[Judges]:
    """Two judges of that checkout, which are started again as often as they die."""
    with contextlib.closing(judges(checkout, 2)) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(checkout: Catalog, falling: Judges, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is stored of the class where nothing happens."""
    course = new_course(tmp_path_factory.mktemp("undisturbed"), CLASS)
    assert {one.state for one in graded(Grader(checkout, course, falling)).values()} == {"graded"}
    return stored(course)


@pytest.mark.parametrize("number", FALLS, ids=["is killed", "exits", "loops", "eats memory", "sleeps"])
def test_a_judge_that_falls_costs_its_submission_a_second_try_and_its_neighbours_nothing(
    number: int, checkout: Catalog, falling: Judges, undisturbed: dict[str, bytes], tmp_path: Path
):
    words, limits = FALLS[number]
    course = new_course(tmp_path, CLASS | {"bea": f"def lora_param_count(*a):\n    return {number}\n"})
    grader = Grader(checkout, course, falling, limits=limits)
    found = graded(grader)
    assert len(found) == len(CLASS) + 1
    bea = found["bea", STEM]
    assert (bea.state, bea.score, bea.needs_a_person) == ("ours", 0, True)
    assert [finding.kind for finding in bea.findings] == [DEADLY]
    assert f"{words}, twice" in bea.findings[0].words
    assert {name: text for name, text in stored(course).items() if "bea" not in name} == undisturbed


def test_what_judges_died_of_is_judged_again_only_when_a_person_asks(
    checkout: Catalog, falling: Judges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    course = new_course(tmp_path, {"bea": "def lora_param_count(*a):\n    return 662\n"})
    grader = Grader(checkout, course, falling)
    first, sent = grader.grade("bea", STEM), watched(grader, "dispatch", monkeypatch)
    assert (grader.grade("bea", STEM), len(sent)) == (first, 0)
    assert (grader.grade("bea", STEM, fresh=True), len(sent)) == (first, 1)


def watched(grader: Grader, name: str, monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """Return a list to which every submission is added that goes through a method of a grader's judges."""
    method, seen = getattr(grader.judges, name), list[Work]()

    def seeing(work: Work, *more: object) -> Judgement | None:
        seen.append(work)
        return method(work, *more)

    monkeypatch.setattr(grader.judges, name, seeing)
    return seen


def test_a_nursery_that_is_killed_costs_no_submission_anything(
    checkout: Catalog, undisturbed: dict[str, bytes], tmp_path: Path
):
    course = new_course(tmp_path, CLASS)
    with contextlib.closing(Grader(checkout, course, judges(checkout, 2))) as grader:
        reports = grade_class(grader, [STEM])
        next(reports)
        assert grader.judges.nursery is not None
        grader.judges.nursery.program.process.kill()
        assert len(list(reports)) == len(CLASS) - 1
    assert stored(course) == undisturbed


def test_idle_judges_of_a_nursery_that_is_gone_are_not_asked(checkout: Catalog, tmp_path: Path):
    """They had died with it, and each took an innocent submission with it that was then never judged again."""
    course = new_course(tmp_path, CLASS)
    with contextlib.closing(Grader(checkout, course, judges(checkout, 2))) as grader:
        first = graded(grader)
        assert grader.judges.nursery is not None
        grader.judges.nursery.program.process.kill()
        again = {(one.student, one.stem): one for one in grade_class(grader, [STEM], fresh=True)}
    assert again == first


def test_a_sandbox_whose_parent_is_killed_costs_no_submission_anything(tmp_path: Path):
    course = new_course(tmp_path, {f"student{number}": RIGHT for number in range(8)})
    with contextlib.closing(Grader(CATALOG, course, judges(count=2))) as grader:
        reports = grade_class(grader, [STEM])
        found = [next(reports)]
        for judge in grader.judges.judges:
            for parent in children(judge.forked.pid):
                os.kill(parent, signal.SIGKILL)
        found += reports
    assert [(one.state, one.score) for one in found] == [("graded", 10.0)] * 8


def test_a_worker_that_is_killed_from_outside_is_judged_once_more(tmp_path: Path):
    """The kernel kills a process when a neighbour has taken the memory: that costs nobody a point."""
    waits = "import time, os\n" + RIGHT.replace(
        "    r = min(r, d_out, d_in)\n", "    r = min(r, d_out, d_in)\n    end = time.process_time() + 0.2\n"
        "    while time.process_time() < end:\n        pass\n"
    )  # fmt: skip
    course = new_course(tmp_path, {"ada": waits})
    with contextlib.closing(Grader(CATALOG, course, judges())) as grader:
        grader.outline(STEM)  # else the process that tells it is counted as one at work
        grader.judges.start()
        assert grader.judges.nursery is not None
        nursery = grader.judges.nursery.program.process.pid
        killer = threading.Thread(target=kill_once, args=(nursery,))
        killer.start()
        made = grader.grade("ada", STEM)
        killer.join()
    assert (made.state, made.score) == ("graded", 10.0)


def kill_once(nursery: int) -> None:
    """Kill the child that runs a submission, as soon as there is one."""
    youngest = max(at_work(nursery))
    os.kill(youngest, signal.SIGKILL)


def test_judges_at_work_take_no_second_class(checkout: Catalog, falling: Judges, tmp_path: Path):
    grader = Grader(checkout, new_course(tmp_path, CLASS), falling)
    with contextlib.closing(grade_class(grader, [STEM])) as reports:
        next(reports)
        with pytest.raises(RuntimeError, match="already"):
            grader.grade("eve", STEM, fresh=True)


def test_a_run_that_is_left_early_leaves_nothing_behind_for_the_next(
    checkout: Catalog, falling: Judges, undisturbed: dict[str, bytes], tmp_path: Path
):
    course = new_course(tmp_path, CLASS)
    grader = Grader(checkout, course, falling)
    with contextlib.closing(grade_class(grader, [STEM])) as reports:
        next(reports)
    assert grader.grade("eve", STEM).student == "eve"
    graded(grader)
    assert stored(course) == undisturbed


class Unlucky(Nursery):
    """A nursery of which some judges, by their number, are told to run what isn't there."""

    def __init__(self, *unlucky: int) -> None:
        super().__init__()
        self.unlucky, self.judges = unlucky, 0

    def fork(self, module: str, backend: Backend | None) -> Forked:
        self.judges += module.endswith("bench")
        unlucky = module.endswith("bench") and self.judges in self.unlucky
        return super().fork("ftgrade.no_such_room" if unlucky else module, backend)


def test_a_judge_that_can_not_start_is_our_fault_and_the_submission_is_judged_the_next_time(tmp_path: Path):
    course = new_course(tmp_path, {"ada": RIGHT, "bob": RIGHT})
    with contextlib.closing(Grader(CATALOG, course, judges(nursery=Unlucky(1)))) as grader:
        found = graded(grader)
        ada = found["ada", STEM]
        assert (ada.state, ada.score, ada.is_reusable) == ("ours", 0, False)
        assert [finding.kind for finding in ada.findings] == ["ours"]
        assert "no_such_room" in ada.findings[0].words
        assert found["bob", STEM].score == 10.0, "the next one is judged by a new judge of a new nursery"
        assert graded(grader)["ada", STEM].score == 10.0


def test_a_judge_that_can_not_start_beside_another_costs_nobody_anything(tmp_path: Path):
    course = new_course(tmp_path, {f"student{number}": RIGHT for number in range(6)})
    with contextlib.closing(Grader(CATALOG, course, judges(count=2, nursery=Unlucky(2)))) as grader:
        assert [one.score for one in graded(grader).values()] == [10.0] * 6
        assert len(grader.judges.judges) == 1


# ----------------------------------------------------------------------------------------- load and number of judges


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with contextlib.closing(Sandbox(strongest(cache_file()))) as made:
        yield made


def test_a_call_that_sleeps_is_late_only_where_nothing_else_ran(sandbox: Sandbox):
    cells = [Cell(1, "code", "import time\ndef f():\n    time.sleep(1e6)\n", None)]
    with Session(sandbox, cells, Limits(patience=0.2)) as session, pytest.raises(Crowded):
        session.ask([Call("f")])
    with Session(sandbox, cells, Limits(patience=0.2), alone=True) as session:
        (answer,) = session.ask([Call("f")])
    assert isinstance(answer, Lost)
    assert answer.kind == "timeout"


def test_processor_time_counts_also_when_its_process_has_ended(sandbox: Sandbox):
    """Otherwise each function could use a submission's time up, end its process, and leave the next one as much."""
    burns = "import os, time\ndef {0}():\n    while time.process_time() < 0.6:\n        pass\n    os._exit(0)\n"
    cells = [Cell(number, "code", burns.format(name), None) for number, name in enumerate("fgh", 1)]
    with Session(sandbox, cells, Limits(submission_seconds=1.0, patience=1e6)) as session:
        found = session.ask([Call(name) for name in "fgh"])
    assert [one.kind for one in found if isinstance(one, Lost)] == ["killed", "timeout", "timeout"]


def test_a_call_that_sleeps_is_tried_again_alone_and_then_timed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    course = new_course(tmp_path, CLASS | {"bea": SLEEPS})
    with contextlib.closing(Grader(CATALOG, course, judges(count=2), limits=Limits(patience=0.6))) as grader:
        alone = watched(grader, "judge_alone", monkeypatch)
        bea = graded(grader)["bea", STEM]
    assert "bea" in [work.blank.student for work in alone]
    assert (bea.state, bea.score) == ("graded", 8.5)
    assert [check.name for check in bea.checks if check.status == "timeout"] == ["dof"]


def class_of_several(root: Path) -> Course:
    """Return a course in which several problems were handed in: right, wrong, unwritten, unreadable and slow."""
    course = new_course(root, {"eve": SLEEPS})
    course.roster_path.write_text("id\nada\nbob\n")
    for stem in SEVERAL:
        hand_in(course, "ada", CATALOG.leaves(stem).solution.read_text("utf-8"), stem)
        hand_in(course, "bob", "", stem)
        for student, path in zip(("cyd", "dan"), CATALOG.submissions(stem, "wrong"), strict=False):
            course.notebook(student, stem).parent.mkdir(parents=True)
            course.notebook(student, stem).write_bytes(path.read_bytes())
    course.notebook("eve", SEVERAL[1]).parent.mkdir(parents=True)
    course.notebook("eve", SEVERAL[1]).write_text("{")
    return course


def graded_by(count: int, root: Path) -> dict[str, bytes]:
    """Return what is stored of that class when it is graded by so many judges."""
    course = class_of_several(root)
    with contextlib.closing(Grader(CATALOG, course, judges(count=count), limits=Limits(patience=0.6))) as grader:
        found = graded(grader, *SEVERAL)
    assert {one.state for one in found.values()} == {"graded", "unreadable"}
    assert len(found) == len(stored(course)) == 4 * len(SEVERAL) + 2
    return stored(course)


@pytest.fixture(scope="module")
def graded_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return graded_by(1, tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("count", [2, 4])
def test_the_number_of_judges_changes_no_byte_of_what_is_stored(
    count: int, graded_by_one: dict[str, bytes], tmp_path: Path
):
    assert graded_by(count, tmp_path) == graded_by_one


def test_a_busy_machine_changes_no_byte_of_what_is_stored(graded_by_one: dict[str, bytes], tmp_path: Path):
    with busy_processes(4):
        assert graded_by(2, tmp_path) == graded_by_one


# --------------------------------------------------------------------------------------------------- nothing remains

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it looks for processes in /proc")


def children(pid: int) -> set[int]:
    """Return the processes that a process has started."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= set(map(int, path.read_text().split()))
    return found


def below(pid: int) -> set[int]:
    """Return the processes that a process has started, and those that they have."""
    return {one for child in children(pid) for one in {child} | below(child)}


def at_work(nursery: int) -> set[int]:
    """Return the nursery and all that it forked, as soon as a submission of its one judge runs."""
    # The nursery, the judge, its sandbox's parent (in namespaces that is two), and the child that runs the submission.
    least = 5 if "namespaces" in strongest(cache_file()).layers else 4
    ends = time.monotonic() + 60
    while len(found := {nursery} | below(nursery)) < least and time.monotonic() < ends:
        time.sleep(0.05)
    assert len(found) >= least
    return found


def left_of(pids: set[int]) -> set[int]:
    """Return which of these processes still run when they had time to end."""
    ends = time.monotonic() + 30
    while (left := {pid for pid in pids if alive(pid)}) and time.monotonic() < ends:
        time.sleep(0.05)
    return left


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@LINUX
def test_nothing_remains_when_a_grader_closes_in_the_middle_of_its_work(tmp_path: Path):
    course = new_course(tmp_path, {"ada": RIGHT, "bea": "while True:\n    pass\n"})
    with contextlib.closing(Grader(CATALOG, course, judges())) as grader:
        before, reports = below(os.getpid()), grade_class(grader, [STEM])
        assert next(reports).student == "ada"
        assert grader.judges.nursery is not None
        pids = at_work(grader.judges.nursery.program.process.pid)
        grader.close()
        assert left_of(pids) == set()
        assert below(os.getpid()) <= before


@LINUX
@pytest.mark.parametrize("moment", ["at work", "while its nursery starts"])
def test_nothing_remains_of_a_grader_that_is_killed(moment: str, tmp_path: Path):
    new_course(tmp_path / "course", {"ada": RIGHT, "bea": "while True:\n    pass\n"})
    starts = "nursery = Nursery()\nprint('begun', flush=True)\ntime.sleep(600)\n"
    works = (
        f"grader = Grader(home(), Course(Path({str(tmp_path / 'course')!r})))\n"
        f"for report in grade_class(grader, [{STEM!r}]):\n    print('begun', flush=True)\n"
    )
    program = tmp_path / "program.py"
    program.write_text(
        "import time\nfrom pathlib import Path\nfrom ftgrade.catalog import home\nfrom ftgrade.course import Course\n"
        "from ftgrade.grading.grader import Grader\nfrom ftgrade.grading.run import grade_class\n"
        "from ftgrade.sandbox.forking import Nursery\n" + (works if moment == "at work" else starts)
    )
    running = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        (nursery,) = children(running.pid)
        pids = at_work(nursery) if moment == "at work" else {nursery}
        running.send_signal(signal.SIGKILL)
    assert left_of(pids) == set()
