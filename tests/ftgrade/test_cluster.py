"""A class on a real Dask scheduler with worker processes on this machine (python3 start.py test cluster)."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.grading import cluster
from ftgrade.grading.grader import Grader
from ftgrade.grading.run import grade_class
from ftgrade.judging.judges import Judges, Work
from ftgrade.judging.report import DEADLY, Judgement, Limits, Report, judgement_of, text_of
from ftgrade.judging.versions import demand_same, versions
from ftgrade.probing.doctor import cache_file, strongest

pytestmark = pytest.mark.cluster
distributed = pytest.importorskip("distributed", reason="Dask is not installed: python3 start.py test cluster")

STEM = "p03_lora_parameters"
RIGHT = home().leaves(STEM).solution.read_text("utf-8")
WRONG = RIGHT.replace("(d_out * d_in - 1) //", "(d_out * d_in) //")
DEATHS = 3
CLASS = {"ada": RIGHT, "bob": WRONG, "cyd": "", "dan": "def lora_param_count(*a):\n    return 7\n", "eve": "1 / 0"}
POISON, WORSE = (f"def lora_param_count(*a):\n    return {number}\n" for number in (666, 667))
# As if native code that compares had a hole, or took the memory of the machine so that the kernel ended the worker:
# student code itself can't reach the process that judges.
HOLE = """
import dataclasses, os, pathlib, signal

def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

def with_a_hole(same):
    def compare(right, mine):
        if type(mine) is int and mine == 666:
            os.kill(os.getpid(), signal.SIGKILL)
        if type(mine) is int and mine == 667:
            os.kill(parent_of(os.getppid()), signal.SIGKILL)
        return same(right, mine)
    return compare

problem.checks[:] = [dataclasses.replace(check, same=with_a_hole(check.same)) for check in problem.checks]
"""

Graders = Callable[[str], Grader]


@pytest.fixture(scope="module")
def catalog(one_problem: Callable[[str, str], Catalog]) -> Iterator[Catalog]:
    """A checkout with one problem, whose judging one answer can end; it is the home of all that runs here."""
    made = one_problem(STEM, HOLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTGRADE_HOME", str(made.root))
        patch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", str(DEATHS - 1))
        yield made


@pytest.fixture(scope="module")
def graders(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graders]:
    """Return a function that makes a course with a class, and its grader; all courses have one secret."""
    made: list[Grader] = []

    def course(name: str) -> Grader:
        made.append(Grader(catalog, Course(tmp_path_factory.mktemp(name))))
        (made[-1].course.state / "secret").write_text("07" * 32)
        for student, answers in CLASS.items():
            hand_in(made[-1], student, answers)
        return made[-1]

    yield course
    for grader in made:
        grader.close()


def hand_in(grader: Grader, student: str, answers: str) -> None:
    path = grader.course.notebook(student, STEM)
    path.parent.mkdir(parents=True)
    path.write_text(build.filled_notebook(home(), STEM, answers), "utf-8")


class Machines:
    """A scheduler and its workers, each a process of Dask's own command line."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.address, self.running = folder, f"tcp://127.0.0.1:{port}", []
        self.dashboard = f"http://127.0.0.1:{free_port()}"

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{words[0]}-{len(self.running)}.log").open("wb") as log:
            command = [sys.executable, "-m", "dask", *words]
            self.running.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))
        return self.running[-1]

    def scheduler(self) -> subprocess.Popen[bytes]:
        host, port = self.address.removeprefix("tcp://").split(":")
        pages = self.dashboard.removeprefix("http://")
        return self.start("scheduler", "--host", host, "--port", port, "--dashboard-address", pages)

    def worker(self, *words: str) -> subprocess.Popen[bytes]:
        alike = ("--nthreads", "1", "--no-dashboard", "--local-directory", ".")
        return self.start("worker", self.address, *alike, *words)

    def client(self):
        return distributed.Client(self.address, set_as_default=False)

    def stop(self) -> None:
        """End the workers, and then the scheduler that they say goodbye to."""
        for process in reversed(self.running):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def machines(graders: Graders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A scheduler with two workers; Dask's nannies start one again that died."""
    found = Machines(tmp_path_factory.mktemp("dask"), free_port())
    found.scheduler()
    found.worker()
    found.worker()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def local(graders: Graders) -> dict[str, str]:
    """What is stored of the class that is graded without a cluster."""
    grader = graders("local")
    for _ in grade_class(grader, [STEM]):
        pass
    return stored(grader)


def stored(grader: Grader) -> dict[str, str]:
    """Return what is stored of a class, byte by byte."""
    return {path.stem: path.read_text("utf-8") for path in (grader.course.state / "reports" / STEM).glob("*.json")}


def more(grader: Grader, count: int) -> None:
    """Hand in more of the same, so that a run lasts."""
    for number in range(count):
        hand_in(grader, f"more{number:02}", RIGHT)


def pids(machines: Machines, count: int) -> list[int]:
    """Return the process numbers of the workers, once there are as many."""
    with machines.client() as client:
        client.wait_for_workers(count, timeout=60)
        return sorted(client.run(os.getpid).values())


def has_judged(pid: int) -> bool:
    """Say whether a worker process has what its judge is forked from, which it starts with its first submission."""
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text()) or any(
        path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")
    )


def test_what_travels_names_nobody_and_holds_no_secret(graders: Graders):
    grader = graders("travel")
    hand_in(grader, "hermia", RIGHT)
    work = grader.look_up("hermia", STEM, fresh=False)
    assert isinstance(work, Work)
    brief = text_of(work.brief).encode()
    for data in (brief, work.data, work.statements):
        assert b"hermia" not in data
        assert grader.course.secret().hex().encode() not in data
    assert cluster.parse_brief(brief) == work.brief
    made = grader.grade("hermia", STEM)
    try:
        nameless = cluster.judge_on_worker(brief, work.data, work.statements)
    finally:
        cluster.worker_judges().close()
    assert b"hermia" not in nameless
    assert grader.finish(work, judgement_of(nameless)) == made


def test_a_worker_with_another_checkout_is_refused(graders: Graders):
    grader = graders("other")
    work = grader.look_up("ada", STEM, fresh=False)
    assert isinstance(work, Work)
    demand_same(versions(grader.catalog.digest(STEM)), work.brief.judged_by)
    with pytest.raises(CourseFault, match="another problem than this machine"):
        demand_same(versions(home_of_the_tests().digest(STEM)), work.brief.judged_by)
    grader.close()
    grader.judges = Judges(home_of_the_tests(), lambda: strongest(cache_file()))
    with pytest.raises(CourseFault, match="another problem than this machine"):
        grader.grade("ada", STEM)
    assert stored(grader) == {}


def home_of_the_tests() -> Catalog:
    return Catalog(Path(__file__).parents[2])


def test_without_a_scheduler_the_command_says_how_to_start_one(
    graders: Graders, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster, "SCHEDULER_TIMEOUT_SECONDS", 0.5)
    grader = graders("alone")
    words = ["grade", STEM, "--course", str(grader.course.root), "--scheduler"]
    for address, mend in ((f"tcp://127.0.0.1:{free_port()}", "dask scheduler"), ("carrier-pigeon://x", "no scheduler")):
        assert cli.main([*words, address]) == 2
        assert mend in capsys.readouterr().err


def test_the_command_gives_what_it_gives_on_one_machine(
    graders: Graders, machines: Machines, local: dict[str, str], capsys: pytest.CaptureFixture[str]
):
    grader = graders("same")
    command = ["grade", STEM, "--course", str(grader.course.root), "--scheduler", machines.address]
    assert cli.main(command) == 0
    assert stored(grader) == local
    assert "5 submissions: 5 graded" in capsys.readouterr().out
    with urllib.request.urlopen(f"{machines.dashboard}/metrics") as page:
        assert STEM in page.read().decode()


def test_a_worker_that_is_killed_in_mid_run_costs_nothing(graders: Graders, machines: Machines, local: dict[str, str]):
    grader = graders("killed")
    more(grader, 20)
    victim = pids(machines, 2)[0]
    reports = grade_class(grader, [STEM], scheduler=machines.address)
    found = [next(reports), next(reports)]
    os.kill(victim, signal.SIGKILL)
    found += reports
    assert len(found) == len({one.student for one in found}) == 25
    assert all(one.score == 10.0 for one in found if one.student.startswith("more"))
    assert {student: text for student, text in stored(grader).items() if student in CLASS} == local


def test_a_worker_that_joins_late_takes_its_share(
    graders: Graders, machines: Machines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster, "MAX_IN_FLIGHT", 4)
    grader = graders("late")
    more(grader, 20)
    before = pids(machines, 2)
    reports = grade_class(grader, [STEM], scheduler=machines.address)
    found = [next(reports)]
    late = machines.worker("--no-nanny")
    newcomer = next(pid for pid in pids(machines, 3) if pid not in before)
    found += reports
    assert len(found) == 25
    assert has_judged(newcomer)
    late.terminate()
    late.wait(20)


def test_a_lost_scheduler_is_told_and_the_next_run_goes_on_from_what_is_stored(
    graders: Graders, local: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster, "MAX_IN_FLIGHT", 4)
    grader = graders("restart")
    machines = Machines(tmp_path, free_port())
    try:
        first = machines.scheduler()
        machines.worker("--no-nanny")
        reports = grade_class(grader, [STEM], scheduler=machines.address)
        next(reports)
        first.kill()
        with pytest.raises(CourseFault, match="run the same command again"):
            list(reports)
        kept = stamps(grader)
        assert 1 <= len(kept) < len(CLASS)
        machines.stop()
        machines.scheduler()
        machines.worker("--no-nanny")
        assert len(list(grade_class(grader, [STEM], scheduler=machines.address))) == len(CLASS)
    finally:
        machines.stop()
    assert stored(grader) == local
    assert kept.items() <= stamps(grader).items(), "what was stored is not judged again"


def stamps(grader: Grader) -> dict[str, int]:
    folder = grader.course.state / "reports" / STEM
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def test_a_submission_that_sleeps_is_tried_again_while_no_worker_does_anything_else(
    graders: Graders, machines: Machines, monkeypatch: pytest.MonkeyPatch
):
    """What is late beside other workers of a machine may be late because of them."""
    grader, tried = graders("sleeping"), list[str]()
    grader.limits = Limits(patience=0.6)
    hand_in(grader, "hypnos", RIGHT.replace("    r = min(r, d_out, d_in)\n", "    import time\n    time.sleep(1e6)\n"))
    method = cluster.Dispatch.retry

    def retry(dispatch: cluster.Dispatch, work: Work) -> Judgement:
        assert not dispatch.in_flight
        tried.append(work.blank.student)
        return method(dispatch, work)

    monkeypatch.setattr(cluster.Dispatch, "retry", retry)
    found = {one.student: one for one in grade_class(grader, [STEM], scheduler=machines.address)}
    assert "hypnos" in tried
    assert [check.name for check in found["hypnos"].checks if check.status == "timeout"] == ["dof"]


def test_a_submission_that_ends_its_judges_is_set_aside_and_harms_nobody(
    graders: Graders, machines: Machines, local: dict[str, str]
):
    grader, before = graders("poisoned"), pids(machines, 2)
    hand_in(grader, "mallory", POISON)
    found = {one.student: one for one in grade_class(grader, [STEM], scheduler=machines.address)}
    demand_set_aside(grader, found["mallory"], local)
    assert pids(machines, 2) == before, "no worker ended with its judge"


def test_a_submission_that_ends_its_workers_is_set_aside_and_harms_nobody(
    graders: Graders, machines: Machines, local: dict[str, str]
):
    grader, before = graders("worse"), pids(machines, 2)
    hand_in(grader, "mallory", WORSE)
    found = {one.student: one for one in grade_class(grader, [STEM], scheduler=machines.address)}
    demand_set_aside(grader, found["mallory"], local)
    assert pids(machines, 2) != before


def demand_set_aside(grader: Grader, poisoned: Report, local: dict[str, str]) -> None:
    """Hold that a submission waits for a person, and that its neighbours have what they have without it."""
    assert (poisoned.state, poisoned.score, poisoned.needs_a_person) == ("ours", 0, True)
    assert poisoned.findings[-1].kind == DEADLY
    assert "twice" in poisoned.findings[-1].words
    assert {student: text for student, text in stored(grader).items() if student in CLASS} == local
    assert grader.grade("mallory", STEM) == poisoned, "booking doesn't judge it again"
