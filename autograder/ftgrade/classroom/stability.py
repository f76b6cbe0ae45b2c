"""Proof that a score is a function of submission, problem, secret and student: the same class, graded in many ways."""

import contextlib
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftgrade.authoring.build import filled_notebook
from ftgrade.catalog import Catalog
from ftgrade.course import Course
from ftgrade.grading.grader import Grader
from ftgrade.grading.run import grade_class
from ftgrade.judging.judges import Judges
from ftgrade.judging.report import from_json
from ftgrade.probing.doctor import cache_file, strongest

STUDENTS = tuple(f"student{number}" for number in range(10))
SECRETS = (b"\x01" * 32, b"\x02" * 32, b"\x03" * 32)
WRONG = 2  # of each problem
BUSY = 4  # processes that do nothing but compute

Stored = dict[tuple[int, str, str], bytes]
"""The stored reports, by secret, problem and student."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to grade the class: how many judges, on a cluster or here, beside busy processes, what stands or all."""

    name: str
    judges: int = 2
    cluster: bool = False
    busy: bool = False
    again: bool = False


WAYS = (
    Way("1 judge", judges=1),
    Way("2 judges", judges=2),
    Way("4 judges", judges=4),
    Way("a second run", judges=2, again=True),
    Way(f"2 judges beside {BUSY} busy processes", judges=2, busy=True),
    Way("a cluster of 2 workers", cluster=True),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way gave: how many reports, which differ from the first way's, which right answers lost points."""

    way: Way
    reports: int
    differ: tuple[tuple[int, str, str], ...]
    wronged: tuple[tuple[int, str, str], ...]
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One submission of the class: what is handed in, and whether it keeps every point."""

    text: str
    is_right: bool


def read_samples(catalog: Catalog, stem: str) -> list[Sample]:
    """Return a problem's reference, its accepted submissions and some wrong ones."""
    reference = filled_notebook(catalog, stem, catalog.leaves(stem).solution.read_text("utf-8"))
    right = [path.read_text("utf-8") for path in catalog.submissions(stem, "accepted")]
    wrong = [path.read_text("utf-8") for path in catalog.submissions(stem, "wrong")[:WRONG]]
    return [Sample(reference, True), *(Sample(one, True) for one in right), *(Sample(one, False) for one in wrong)]


def compare_ways(catalog: Catalog, stems: Sequence[str], tick: Callable[[], object]) -> list[Outcome]:
    """Grade the class in every way, and compare what is stored byte by byte."""
    handed_in = {stem: read_samples(catalog, stem) for stem in stems}
    found: list[Outcome] = []
    first: Stored = {}
    with tempfile.TemporaryDirectory() as scratch:
        for way in WAYS:
            stored = grade_one_way(catalog, stems, handed_in, way, Path(scratch))
            if isinstance(stored, str):
                found.append(Outcome(way, 0, (), (), stored))
            else:
                first = first or stored
                differ = tuple(key for key, text in stored.items() if first.get(key) != text)
                missing = tuple(key for key in first if key not in stored)
                found.append(Outcome(way, len(stored), (*differ, *missing), right_that_lost(stored, handed_in)))
            tick()
    return found


def grade_one_way(
    catalog: Catalog, stems: Sequence[str], handed_in: dict[str, list[Sample]], way: Way, scratch: Path
) -> Stored | str:
    """Return what is stored when the class is graded in one way, or why that can't be tried here."""
    stored: Stored = {}
    with contextlib.ExitStack() as opened:
        address = ""
        if way.cluster:
            try:
                address = opened.enter_context(local_cluster(way.judges))
            except ImportError:
                return "Dask isn't installed"
        if way.busy:
            opened.enter_context(busy_processes(BUSY))
        for number, secret in enumerate(SECRETS):
            root = scratch / f"course-{number}"
            if not way.again:
                shutil.rmtree(root, ignore_errors=True)
                make_course(root, secret, number, handed_in)
            judges = Judges(catalog, lambda: strongest(cache_file()), way.judges)
            with contextlib.closing(Grader(catalog, Course(root), judges)) as grader:
                for _ in grade_class(grader, list(stems), fresh=way.again, scheduler=address):
                    pass
            for stem, student in itertools.product(stems, STUDENTS):
                stored[number, stem, student] = Course(root).report_path(student, stem).read_bytes()
    return stored


def make_course(root: Path, secret: bytes, number: int, handed_in: dict[str, list[Sample]]) -> None:
    """Make a course in which every student hands in every problem, under each secret another of its submissions."""
    course = Course(root)
    course.write_secret(secret)
    for stem, several in handed_in.items():
        for place, student in enumerate(STUDENTS):
            path = course.notebook(student, stem)
            path.parent.mkdir(parents=True)
            path.write_text(several[(place + 3 * number) % len(several)].text, "utf-8")


def right_that_lost(stored: Stored, handed_in: dict[str, list[Sample]]) -> tuple[tuple[int, str, str], ...]:
    """Return where a right submission lost a point other than the personal number's."""
    lost: list[tuple[int, str, str]] = []
    for (number, stem, student), text in stored.items():
        several = handed_in[stem]
        case = several[(STUDENTS.index(student) + 3 * number) % len(several)]
        report = from_json(text.decode(), SECRETS[number])
        if case.is_right and any(one.score < one.points for one in report.checks if one.name != "mine"):
            lost.append((number, stem, student))
    return tuple(lost)


@contextlib.contextmanager
def busy_processes(count: int) -> Generator[None]:
    """Keep the processors busy meanwhile."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


@contextlib.contextmanager
def local_cluster(workers: int) -> Generator[str]:
    """Run a scheduler with workers on this machine; give its address. Raises ImportError where Dask isn't there."""
    from distributed import LocalCluster  # pyright: ignore[reportMissingImports]

    cluster: Any = LocalCluster  # its annotations don't know None
    made = cluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1",
        local_directory=tempfile.mkdtemp(), silence_logs=50,
    )  # fmt: skip
    with made:
        yield str(made.scheduler_address)


__all__ = ["Outcome", "Way", "compare_ways"]
