"""A class on the workers of a Dask cluster: what travels is bytes, and the gradebook and the secret stay here.

The master reads every submission within bounds, looks for its stored report, and sends what is left as JSON: cells,
seeds of this one submission, an empty report without the student's name. A worker process keeps a sandbox of its own,
in which the cells run; the reference judges in the worker's own process, and the filled report comes back as JSON. The
master stores and seals each one as it arrives, so that a second run goes on where a first one ended.

What it does not protect against: Dask pickles its own messages, so a scheduler, its workers and the master trust each
other. Let them meet in a network of their own or over TLS (`tls://`); student code has no network.
"""

import atexit
import contextlib
import dataclasses
import json
import threading
import uuid
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError
from functools import cache
from pathlib import Path
from typing import Any

from ftgrade.catalog import home
from ftgrade.errors import CourseFault, GradingError
from ftgrade.grading.grader import Course, Grader, Work, statement_seeds, unloadable
from ftgrade.intake.notebook import Cell, Finding, Submission
from ftgrade.judging import report
from ftgrade.judging.report import DEADLY, Report

WAITING = 2_000
"""Submissions that are sent and not back: more would fill the scheduler's memory, fewer would leave workers idle."""
SECONDS_FOR_THE_SCHEDULER, SECONDS_FOR_A_WORKER = 10.0, 60.0
MAKING = threading.Lock()


# ------------------------------------------------------------------------------------------------------- what travels


def to_bytes(work: Work) -> bytes:
    """Return what a worker needs to know of a submission; whose it is isn't told."""
    nameless = dataclasses.replace(work.blank, student="")
    body = {
        "blank": report.to_json(nameless),
        "cells": [[cell.number, cell.kind, cell.source, cell.grade_id] for cell in work.submission.cells],
        "findings": [[finding.kind, finding.words] for finding in work.submission.findings],
        "seeds": work.seeds,
        "personal": work.personal,
    }
    return json.dumps(body).encode()


def from_bytes(data: bytes) -> Work:
    """Return what `to_bytes` sent."""
    body = json.loads(data)
    cells = tuple(Cell(*cell) for cell in body["cells"])
    findings = tuple(Finding(*finding) for finding in body["findings"])
    return Work(report.from_json(body["blank"]), Submission(cells, findings), body["seeds"], body["personal"])


def filled(blank: Report, data: bytes) -> Report:
    """Return a student's report with what a worker found; everything else in it is the master's."""
    made = report.from_json(data.decode())
    return dataclasses.replace(blank, state=made.state, checks=made.checks, findings=made.findings, notes=made.notes)


# --------------------------------------------------------------------------------------------------------- the worker


def bench() -> Grader:
    """Return the one grader of a worker process, whichever of its threads asks first."""
    with MAKING:
        return made_bench()


@cache
def made_bench() -> Grader:
    """Make a grader that has problems and a sandbox, and neither course nor secret."""
    grader = Grader(home(), Course(Path()))
    if grader.unsandboxed:
        raise CourseFault("a worker of a cluster grades in a sandbox or not at all: unset FTGRADE_ALLOW_UNSANDBOXED")
    atexit.register(grader.close)
    return grader


def judged(work: bytes, statements: bytes) -> bytes:
    """Return the report of a submission; this runs in a worker. Raises CourseFault where it would judge otherwise."""
    asked = from_bytes(work)
    demand_same(bench(), asked.blank)
    return report.to_json(bench().graded(asked, lambda: json.loads(statements))).encode()


def demand_same(grader: Grader, blank: Report) -> None:
    """Raise CourseFault unless a worker has the problem, the engine and the libraries that the report will name."""
    for name, mine in grader.judged_by(blank.stem).items():
        if blank.graded_by[name] != mine:
            raise CourseFault(
                f"a worker has another {name} than this machine, {mine} instead of {blank.graded_by[name]}: "
                "install the same checkout and the same versions there, and start it again"
            )


# --------------------------------------------------------------------------------------------------------- the master


def grade_class(grader: Grader, stems: list[str], address: str, fresh: bool = False) -> Iterator[Report]:
    """Yield a report for every submission of these problems, as the workers of a scheduler finish them.

    Raises CourseFault if the scheduler or its workers aren't there, or are lost: reports until then are stored.
    """
    todo = [(student, stem) for stem in stems for student in grader.course.students(stem)]
    with connected(address) as client:
        errand = Errand(client, grader)
        for student, stem in todo:
            found = read(grader, student, stem, fresh)
            if isinstance(found, Report):
                yield found
                continue
            errand.send(found)
            if len(errand.out) >= WAITING or errand.done.has_ready():
                yield from errand.receive()
        while errand.out:
            yield from errand.receive()
        for suspect in errand.suspects:
            yield errand.alone(suspect)


def read(grader: Grader, student: str, stem: str, fresh: bool) -> Report | Work:
    """Return a report that needs no worker, or the work for one."""
    try:
        return grader.found(student, stem, fresh)
    except CourseFault:
        raise
    except GradingError as error:
        return unloadable(student, stem, error)


class Errand:
    """What one run has sent to a cluster: every submission comes back as one report, however workers die."""

    def __init__(self, client: Any, grader: Grader) -> None:
        self.client = client
        self.grader = grader
        self.done = dask().as_completed(loop=client.loop)
        self.out: dict[Any, Work] = {}
        self.suspects: list[Work] = []
        self.statements: dict[str, Any] = {}

    def send(self, work: Work) -> None:
        """Send a submission; on Dask's pages it bears its problem's name and a number that says nothing."""
        stem = work.blank.stem
        if stem not in self.statements:
            seeds = json.dumps(statement_seeds(self.grader.course, stem, work.blank.version)).encode()
            self.statements[stem] = self.client.submit(bytes, seeds, key=f"statements_{stem}-{uuid.uuid4()}")
        future = self.client.submit(judged, to_bytes(work), self.statements[stem], key=f"{stem}-{uuid.uuid4()}")
        self.out[future] = work
        self.done.add(future)

    def receive(self) -> Iterator[Report]:
        """Wait for one submission and yield its report; one that may have ended its workers is kept for later."""
        future = next(self.done)
        work = self.out.pop(future)
        try:
            yield self.grader.store(answer(work.blank, future))
        except dask().KilledWorker:
            self.suspects.append(work)  # it, or what was on the same worker

    def alone(self, work: Work) -> Report:
        """Return the report of a suspect that is sent while nothing else is out, so that a death is its own doing."""
        self.send(work)
        future = next(self.done)
        del self.out[future]
        try:
            return self.grader.store(answer(work.blank, future))
        except dask().KilledWorker as error:
            return self.grader.store(deadly(work.blank, error.allowed_failures + 1))


def answer(blank: Report, future: Any) -> Report:
    """Return the report that came back. Raises KilledWorker, and CourseFault where going on is useless."""
    try:
        return filled(blank, future.result())
    except CancelledError:
        raise CourseFault(
            "the scheduler was lost; every report that had arrived is stored: run the same command again when it's back"
        ) from None
    except ImportError as error:
        raise CourseFault(f"a worker lacks {error.name}: install the same checkout there") from error
    except (CourseFault, dask().KilledWorker):
        raise
    except Exception as error:  # whatever it is, this student waits and the class goes on
        words = Finding("ours", f"A worker could not judge it: {type(error).__name__}: {error}")
        return dataclasses.replace(blank, findings=(*blank.findings, words))


def deadly(blank: Report, times: int) -> Report:
    """Return the report of a submission that is judged no more, because whoever judged it died."""
    words = (
        f"Judging this submission ended the process that judged {times} times. It is set aside until a person has "
        "looked at it; `ftgrade grade --fresh` tries again."
    )
    return dataclasses.replace(blank, findings=(*blank.findings, Finding(DEADLY, words)))


@contextlib.contextmanager
def connected(address: str) -> Generator[Any]:
    """Give a client of a scheduler that has a worker. Raises CourseFault."""
    try:
        client = dask().Client(address, set_as_default=False, timeout=SECONDS_FOR_THE_SCHEDULER)
    except (OSError, ValueError) as error:
        raise CourseFault(f"no scheduler answers at {address}; `dask scheduler` starts one ({error})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=SECONDS_FOR_A_WORKER)
        except TimeoutError:
            raise CourseFault(
                f"the scheduler has no worker after {SECONDS_FOR_A_WORKER:.0f} s; "
                f"`dask worker {address} --nthreads 1` starts one"
            ) from None
        yield client


def dask() -> Any:
    """Return Dask's package for many machines. Raises CourseFault where it isn't installed."""
    try:
        import distributed  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise CourseFault("a cluster needs Dask: python -m pip install 'fine-tuning-math[cluster]'") from None
    return distributed
