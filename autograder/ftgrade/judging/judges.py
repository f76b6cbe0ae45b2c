"""Judges from the grader's side: processes that are started, asked, watched, and replaced when they die.

The grader's own process reads nothing of what was handed in: bytes go to a judge, and a judgement comes back. A judge
that dies, or that takes too long, costs the submission that it was at another try, alone, and no other submission
anything; one that a judge dies of twice is set aside for a person.
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
from ftgrade.judging.report import DEADLY, OUT_OF_MEMORY, Brief, Judgement, Limits, Report, judgement_of
from ftgrade.sandbox.backends import START_SECONDS, Backend
from ftgrade.sandbox.forking import Forked, Nursery
from ftgrade.sandbox.worker import frame, read_body

WAITING = 2
"""How many submissions a judge holds: the one that it's at, and the next, so that it never waits for the grader."""


@dataclass(frozen=True, slots=True)
class Work:
    """A submission that is to be judged: the report to fill, the brief, what was handed in, and the statements.

    `statements` (JSON) are the personal seeds of the course, among which a neighbour's number is looked for.
    """

    blank: Report
    brief: Brief
    data: bytes
    statements: bytes = b"[]"


class Died(Exception):
    """A judge ended before it answered; the text says how."""


class Judge:
    """One judge: the process, the submissions that it holds, and which statements it knows."""

    def __init__(self, nursery: Nursery, catalog: Catalog, backend: Backend, megabytes: int) -> None:
        """Start it; it isn't waited for. Raises OurFault."""
        self.nursery = nursery
        self.forked: Forked = nursery.fork("ftgrade.judging.bench", backend)
        self.waiting: deque[Work] = deque()
        self.sent_statements: dict[str, bytes] = {}
        self.ready = self.late = False
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
        """Wait until it has its sandbox and what it judges with. Raises OurFault."""
        if self.ready:
            return
        self.forked.channel.settimeout(START_SECONDS)
        try:
            read_body(self.forked.channel.recv)
        except (EOFError, OSError) as error:
            raise OurFault(f"a judge did not start: {self.nursery.last_error_line() or error}") from error
        self.forked.channel.settimeout(None)
        self.ready = True

    def send(self, work: Work) -> None:
        """Give it a submission. Raises Died."""
        if not self.waiting:
            self.begun = time.monotonic()
        self.waiting.append(work)
        stem = work.brief.stem
        if self.sent_statements.get(stem) != work.statements:
            self.tell({"op": "statements", "stem": stem}, work.statements)
            self.sent_statements[stem] = work.statements
        self.tell({"op": "judge", "brief": dataclasses.asdict(work.brief)}, work.data)

    def tell(self, message: dict[str, object], data: bytes = b"") -> None:
        """Send a message with a file of data: it is small, so that this never waits for a judge that is at work."""
        try:
            with memory_file(data) as file:
                socket.send_fds(self.forked.channel, [frame(json.dumps(message).encode())], [file.fileno()])
        except OSError as error:
            raise Died(str(error)) from error

    def receive(self) -> tuple[Work, Judgement]:
        """Return the judgement on the submission that it has held longest. Raises Died."""
        try:
            judgement = judgement_of(read_body(self.forked.channel.recv))
        except (EOFError, OSError) as error:
            raise Died(str(error)) from error
        self.begun = time.monotonic()
        return self.waiting.popleft(), judgement

    def seconds_left(self) -> float:
        """Return how many seconds on the wall it has left for the submission that it's at."""
        limit = self.waiting[0].brief.limits.judge_wall_seconds
        return max(0.0, self.begun + limit - time.monotonic())

    def kill(self) -> None:
        """Kill it, since it is out of time."""
        self.late = True
        os.kill(self.forked.pid, signal.SIGKILL)

    def end(self) -> str:
        """End it, and say how it ended."""
        try:
            status = self.nursery.end(self.forked)
        except OurFault as fault:  # all judges end with the nursery
            return f"ended the process that judged ({fault})"
        if self.late:
            return "took longer than judging may take"
        if status == OUT_OF_MEMORY:
            return "took more memory than judging may take"
        if status == -signal.SIGPROF:
            return "took more processor time than judging may take"
        return f"ended the process that judged (status {status})"


class Judges:
    """The judges of one grader; they are started when there is something to judge."""

    def __init__(
        self, catalog: Catalog, backend: Callable[[], Backend], count: int = 1, nursery: Nursery | None = None
    ) -> None:
        """A nursery that was started before may be given, which saves the time that its imports take."""
        self.catalog = catalog
        self.backend = functools.cache(backend)
        self.count = count
        self.nursery = nursery
        self.judges: list[Judge] = []

    def judge(self, work: Work) -> Judgement:
        """Return the judgement on one submission."""
        (found,) = self.judge_each([work])
        assert not isinstance(found, Report)
        return found[1]

    def judge_each(self, found: Iterable[Work | Report]) -> Iterator[Report | tuple[Work, Judgement]]:
        """Yield each submission with its judgement, as they are finished; a report needs none and passes through.

        What a judge died of, and what met a limit on the wall, is tried once more at the end, alone.
        """
        try:
            yield from self.judge_all(found)
        finally:
            for judge in self.busy():  # nobody waits any more for what they hold
                self.judges.remove(judge)
                judge.end()

    def judge_all(self, found: Iterable[Work | Report]) -> Iterator[Report | tuple[Work, Judgement]]:
        """Yield what `each` does; whoever stops early leaves submissions with the judges."""
        coming, more = iter(found), True
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
        return len(self.judges) < self.count or any(len(judge.waiting) < WAITING for judge in self.judges)

    def dispatch(self, work: Work, again: deque[Work], suspects: list[Work]) -> Judgement | None:
        """Give a submission to the judge that holds fewest; return a judgement only if none can be started."""
        try:
            judge = self.least_busy()
        except OurFault as fault:
            return self.unstartable(fault)
        try:
            judge.send(work)
        except Died:
            self.remove_dead(judge, again, suspects)
        return None

    def unstartable(self, fault: OurFault) -> Judgement:
        """Return the judgement where no judge can be started; the next submission tries with a new nursery."""
        self.close()
        return Judgement("ours", findings=(make_finding("ours", fault),))

    def least_busy(self) -> Judge:
        """Return the judge that holds fewest submissions, ready for one.

        One that doesn't start is done without as long as there are others. Raises OurFault.
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
            self.count = len(self.judges)
            return self.least_busy()
        return judge

    def start(self) -> None:
        """Start the judges that are missing, all at once; they aren't waited for. Raises OurFault if there is none."""
        if self.nursery is not None and self.nursery.broken:
            self.nursery.close()
            self.nursery = None
        self.nursery = self.nursery or Nursery()
        while len(self.judges) < self.count:
            try:
                self.judges.append(Judge(self.nursery, self.catalog, self.backend(), Limits().judge_megabytes))
            except OurFault:
                if not self.judges:
                    raise
                self.count = len(self.judges)

    def answering(self) -> list[Judge]:
        """Wait for judges, and return those that answer; one that is out of time is killed, and answers with that."""
        busy = {judge.forked.channel: judge for judge in self.busy()}
        ready, _, _ = select.select(list(busy), [], [], min(judge.seconds_left() for judge in busy.values()))
        for judge in busy.values():
            if judge.seconds_left() == 0.0 and judge.forked.channel not in ready:
                judge.kill()
                ready.append(judge.forked.channel)
        return [busy[channel] for channel in ready]

    def remove_dead(self, judge: Judge, again: deque[Work], suspects: list[Work]) -> str:
        """Take leave of a judge that died: what it was at is suspect, what waited is sent again; say how it ended."""
        self.judges.remove(judge)
        if judge.waiting:
            suspects.append(judge.waiting.popleft())
        again.extend(judge.waiting)
        return judge.end()

    def judge_alone(self, work: Work) -> Judgement:
        """Return the judgement on a suspect, while nothing else is judged: what happens now is its own doing."""
        found = self.try_once(dataclasses.replace(work, brief=dataclasses.replace(work.brief, alone=True)))
        return found if isinstance(found, Judgement) else deadly_judgement(found)

    def try_once(self, work: Work) -> Judgement | str:
        """Return the judgement of a single try, or how its judge died of it; these judges are idle before and after."""
        try:
            judge = self.least_busy()
        except OurFault as fault:
            return self.unstartable(fault)
        try:
            judge.send(work)
            self.answering()
            return judge.receive()[1]
        except Died:
            return self.remove_dead(judge, deque(), [])

    def close(self) -> None:
        """End them all, and what they are forked from; the next submission starts others."""
        for judge in self.judges:
            judge.forked.channel.close()
        self.judges.clear()
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None


def deadly_judgement(how: str) -> Judgement:
    """Return the judgement on a submission that is judged no more, because its judge died of it twice."""
    words = (
        f"Judging this submission {how}, twice. It is set aside until a person has looked at it; "
        "`ftgrade grade --fresh` tries again."
    )
    return Judgement("ours", findings=(make_finding(DEADLY, words),))


def memory_file(data: bytes) -> IO[bytes]:
    """Return a file in memory, where the system has such, that holds these bytes."""
    if sys.platform == "linux":
        made = os.fdopen(os.memfd_create("submission"), "w+b")
    else:
        made = tempfile.TemporaryFile()  # noqa: SIM115
    made.write(data)
    made.flush()
    return made
