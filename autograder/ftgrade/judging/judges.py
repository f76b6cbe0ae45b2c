"""The grader's end of its judges: start them, send submissions, watch their time, replace those that die.

The grader's own process judges nothing: it sends bytes to a judge and gets a judgement back. If a judge dies
or takes too long, its current submission is judged once more, alone. If that fails too, the submission is set aside for
a person. No other submission is affected.
"""

import dataclasses
import functools
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from ftgrade.catalog import Catalog
from ftgrade.errors import OurFault
from ftgrade.intake.notebook import make_finding
from ftgrade.judging.outline import Outline, ask_outline
from ftgrade.judging.report import DEADLY, OUT_OF_MEMORY, SANDBOX_FAILED, Brief, Judgement, Limits, Report, judgement_of
from ftgrade.sandbox.backends import START_SECONDS, Backend
from ftgrade.sandbox.forking import Forked, Nursery
from ftgrade.sandbox.worker import frame, read_body

WAITING = 2
"""How many submissions a judge holds: the current one and the next, so that it never waits for the grader."""
MAX_TRIES = 3


@dataclass(frozen=True, slots=True)
class Work:
    """A submission to judge: the report to fill, the brief, and the bytes that were handed in.

    `statements` are the personal questions of the course in JSON, to recognise another question's number.
    """

    blank: Report
    brief: Brief
    data: bytes
    statements: bytes = b"{}"


class Died(Exception):
    """A judge ended before it answered; the text says how."""


@dataclass(frozen=True, slots=True)
class Fall:
    """How a judge ended, in words that follow `Judging this submission …`, and whether a submission can cause that."""

    how: str
    deadly: bool = True

    def judgement(self) -> Judgement:
        """Return the judgement on a submission whose judge died twice; after a deadly fall it isn't judged again."""
        if not self.deadly:
            return Judgement("ours", findings=(make_finding("ours", f"Judging this submission {self.how}, twice."),))
        words = (
            f"Judging this submission {self.how}, twice. It is set aside until a person has looked at it; "
            "`ftgrade grade --fresh` tries again."
        )
        return Judgement("ours", findings=(make_finding(DEADLY, words),))


class Judge:
    """One judge's process, the submissions that it holds, and the statements that were sent to it, by stem."""

    def __init__(self, nursery: Nursery, catalog: Catalog, backend: Backend, megabytes: int) -> None:
        """Start the process without waiting for it. Raises OurFault."""
        self.nursery = nursery
        self.forked: Forked = nursery.fork("ftgrade.judging.bench", backend)
        self.waiting: deque[Work] = deque()
        self.sent_statements: dict[str, bytes] = {}
        self.ready = self.timed_out = False
        self.begun = time.monotonic()
        hello: dict[str, object] = {
            "op": "hello",
            "root": str(catalog.root.absolute()),
            "backend": backend.name,
            "megabytes": megabytes,
        }
        try:
            self.tell(hello)
        except Died as error:
            raise OurFault(f"a judge did not start: {error}") from error

    def demand_ready(self) -> None:
        """Wait until the process has its sandbox and its imports. Raises OurFault."""
        if self.ready:
            return
        self.forked.channel.settimeout(START_SECONDS)
        try:
            read_body(self.forked.channel.recv)
        except (EOFError, OSError) as error:
            raise OurFault(f"a judge did not start: {self.nursery.program.last_error_line() or error}") from error
        self.forked.channel.settimeout(None)
        self.ready = True

    def send(self, work: Work) -> None:
        """Send a submission. Raises Died; the judge then doesn't hold this submission."""
        stem = work.brief.stem
        if self.sent_statements.get(stem) != work.statements:
            self.tell({"op": "statements", "stem": stem}, work.statements)
            self.sent_statements[stem] = work.statements
        self.tell({"op": "judge", "brief": dataclasses.asdict(work.brief)}, work.data)
        if not self.waiting:
            self.begun = time.monotonic()
        self.waiting.append(work)

    def tell(self, message: dict[str, object], data: bytes = b"") -> None:
        """Send a short message and a file with the data; so this never blocks on a busy judge. Raises Died."""
        try:
            with memory_file(data) as file:
                socket.send_fds(self.forked.channel, [frame(json.dumps(message).encode())], [file.fileno()])
        except OSError as error:
            raise Died(str(error)) from error

    def receive(self) -> tuple[Work, Judgement]:
        """Return the oldest submission that the judge holds, with its judgement. Raises Died."""
        try:
            judgement = judgement_of(read_body(self.forked.channel.recv))
        except (EOFError, OSError) as error:
            raise Died(str(error)) from error
        self.begun = time.monotonic()
        return self.waiting.popleft(), judgement

    def seconds_left(self) -> float:
        """Return the wall-clock seconds left for the current submission."""
        limit = self.waiting[0].brief.limits.judge_wall_seconds
        return max(0.0, self.begun + limit - time.monotonic())

    def end(self) -> Fall:
        """End the process, and return how it ended."""
        try:
            status = self.nursery.end(self.forked)
        except OurFault as fault:  # the nursery has died, and all judges with it
            return Fall(f"ended with the process that starts judges ({fault})", deadly=False)
        if status == SANDBOX_FAILED:
            return Fall(f"failed in its sandbox ({self.nursery.program.last_error_line()})", deadly=False)
        if self.timed_out:
            return Fall("took longer than judging may take")
        if status == OUT_OF_MEMORY:
            return Fall("took more memory than judging may take")
        if status == -signal.SIGPROF:
            return Fall("took more processor time than judging may take")
        return Fall(f"ended the process that judged (status {status})")


class Judges:
    """The judges of one grader, started when there is something to judge."""

    def __init__(
        self, catalog: Catalog, backend: Callable[[], Backend], count: int = 1, nursery: Nursery | None = None
    ) -> None:
        """Use up to `count` judges. A nursery that was started earlier has its imports done, which saves their time."""
        self.catalog = catalog
        self.backend = functools.cache(backend)
        self.count = self.possible = count
        self.nursery = nursery
        self.judges: list[Judge] = []
        self.in_use = False

    def judge(self, work: Work) -> Judgement:
        """Return the judgement on one submission."""
        (found,) = self.judge_each([work])
        assert not isinstance(found, Report)
        return found[1]

    def judge_each(self, submissions: Iterable[Work | Report]) -> Iterator[Report | tuple[Work, Judgement]]:
        """Yield each submission with its judgement, in the order in which they finish; reports pass through.

        A submission that ended its judge or met a wall-clock limit is judged once more at the end, alone. Raises
        RuntimeError if an earlier call isn't done yet.
        """
        if self.in_use:
            raise RuntimeError("these judges are judging already: finish that first, or make others")
        self.in_use, self.possible = True, self.count
        try:
            yield from self.judge_all(submissions)
        finally:
            self.in_use = False
            for judge in self.busy():  # the caller stopped early and wants no more judgements
                self.judges.remove(judge)
                judge.end()

    def judge_all(self, submissions: Iterable[Work | Report]) -> Iterator[Report | tuple[Work, Judgement]]:
        """Yield what `judge_each` does. If the caller stops early, judges still hold submissions."""
        coming, more = iter(submissions), True
        again: deque[Work] = deque()
        suspects: list[Work] = []
        while more or again or self.busy():
            if (more or again) and self.has_room():
                one = again.popleft() if again else next(coming, None)
                if one is None:
                    more = False
                elif isinstance(one, Report):
                    yield one
                elif (fault := self.dispatch(one, again, suspects)) is not None:
                    yield one, fault
                continue
            for judge in self.answering():
                try:
                    work, judgement = judge.receive()
                except Died:
                    self.remove_dead(judge, again, suspects)
                    continue
                if judgement.state == "crowded":
                    suspects.append(work)
                else:
                    yield work, judgement
        for work in suspects:
            yield work, self.judge_alone(work)

    def busy(self) -> list[Judge]:
        return [judge for judge in self.judges if judge.waiting]

    def has_room(self) -> bool:
        return len(self.judges) < self.possible or any(len(judge.waiting) < WAITING for judge in self.judges)

    def dispatch(self, work: Work, again: deque[Work], suspects: list[Work]) -> Judgement | None:
        """Send a submission to the least busy judge; return a judgement only if no judge can be started."""
        try:
            self.send(work, again, suspects)
        except OurFault as fault:
            return self.unstartable(fault)
        return None

    def send(self, work: Work, again: deque[Work], suspects: list[Work]) -> Judge:
        """Send a submission to the least busy judge, and return that. Raises OurFault."""
        for _ in range(MAX_TRIES):
            judge = self.least_busy()
            try:
                judge.send(work)
            except Died:  # it died before it had this submission
                self.remove_dead(judge, again, suspects)
            else:
                return judge
        raise OurFault(f"{MAX_TRIES} judges ended before they had anything to judge")

    def unstartable(self, fault: OurFault) -> Judgement:
        """Return the judgement if no judge can be started; the next submission tries a new nursery."""
        if not self.busy():
            self.close()
        return Judgement("ours", findings=(make_finding("ours", fault),))

    def least_busy(self) -> Judge:
        """Return the judge that holds the fewest submissions, once it is ready.

        A judge that doesn't start is dropped as long as there are others. Raises OurFault.
        """
        self.start()
        judge = min(self.judges, key=lambda judge: len(judge.waiting))
        try:
            judge.demand_ready()
        except OurFault:
            self.judges.remove(judge)
            judge.end()
            if not self.judges:
                raise
            self.possible = len(self.judges)
            return self.least_busy()
        return judge

    def outline(self, stem: str) -> Outline:
        """Return the outline of a problem. Raises AuthorFault, CourseFault or OurFault."""
        return ask_outline(self.living_nursery(), self.catalog, self.catalog.stem(stem))

    def living_nursery(self) -> Nursery:
        """Return the nursery, or a new one if it has ended."""
        if self.nursery is not None and self.nursery.has_ended():
            self.nursery.close()
            self.nursery = None
            self.judges = self.busy()  # the idle ones are gone; what the busy ones held will be sent again
        self.nursery = self.nursery or Nursery()
        return self.nursery

    def start(self) -> None:
        """Start the missing judges, without waiting for them. Raises OurFault if there is none."""
        nursery = self.living_nursery()
        while len(self.judges) < self.possible:
            try:
                self.judges.append(Judge(nursery, self.catalog, self.backend(), Limits().judge_megabytes))
            except OurFault:
                if not self.judges:
                    raise
                self.possible = len(self.judges)

    def answering(self) -> list[Judge]:
        """Wait for replies, and return the judges that have one. Those out of time are killed and returned too."""
        busy = {judge.forked.channel: judge for judge in self.busy()}
        ready, _, _ = select.select(list(busy), [], [], min(judge.seconds_left() for judge in busy.values()))
        for judge in busy.values():
            if judge.seconds_left() == 0.0 and judge.forked.channel not in ready:
                judge.timed_out = True
                os.kill(judge.forked.pid, signal.SIGKILL)
                ready.append(judge.forked.channel)
        return [busy[channel] for channel in ready]

    def remove_dead(self, judge: Judge, again: deque[Work], suspects: list[Work]) -> Fall:
        """Remove a dead judge: its current submission is suspect, the next is sent again. Return how it ended."""
        self.judges.remove(judge)
        if judge.waiting:
            suspects.append(judge.waiting.popleft())
        again.extend(judge.waiting)
        return judge.end()

    def judge_alone(self, work: Work) -> Judgement:
        """Judge a suspect with a new judge while nothing else is judged, so that any failure is the suspect's own."""
        for judge in self.judges:
            judge.end()
        self.judges.clear()
        found = self.try_once(dataclasses.replace(work, brief=dataclasses.replace(work.brief, alone=True)))
        return found if isinstance(found, Judgement) else found.judgement()

    def try_once(self, work: Work) -> Judgement | Fall:
        """Return the judgement of a single try, or how its judge died. All judges must be idle."""
        try:
            judge = self.send(work, deque(), [])
        except OurFault as fault:
            return self.unstartable(fault)
        self.answering()
        try:
            return judge.receive()[1]
        except Died:
            return self.remove_dead(judge, deque(), [])

    def close(self) -> None:
        """End all judges and the nursery; the next submission starts new ones."""
        for judge in self.judges:
            judge.forked.channel.close()
        self.judges.clear()
        self.possible = self.count
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None


def memory_file(data: bytes) -> IO[bytes]:
    """Return a file with these bytes, in memory if the system supports that."""
    if sys.platform == "linux":
        made = os.fdopen(os.memfd_create("submission"), "w+b")
    else:
        made = tempfile.TemporaryFile()  # noqa: SIM115
    made.write(data)
    made.flush()
    return made
