"""A class on the workers of a Dask cluster: what travels is bytes, and the gradebook and the secret stay here.

The master reads bytes, looks for stored reports, and sends what is left: what was handed in, and the brief with the
seeds of this one submission. A worker process keeps a judge, the same that judges on one machine, and a judgement
comes back as JSON. The master stores and seals each report as it arrives, so that a second run goes on where a first
one ended.

What it does not protect against: Dask pickles its own messages, so a scheduler, its workers and the master trust each
other. Let them meet in a network of their own or over TLS (`tls://`); student code has no network.
"""

import atexit
import contextlib
import dataclasses
import json
import threading
import uuid
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import cache
from typing import Any

from ftgrade.catalog import home
from ftgrade.errors import CourseFault
from ftgrade.intake.notebook import make_finding
from ftgrade.judging.judges import Fall, Judges, Work
from ftgrade.judging.report import Brief, Judgement, Limits, Report, judgement_of, text_of
from ftgrade.probing.doctor import cache_file, strongest

MAX_IN_FLIGHT = 2_000
"""Submissions that are sent and not back: more would fill the scheduler's memory, fewer would leave workers idle."""
SCHEDULER_TIMEOUT_SECONDS, WORKER_TIMEOUT_SECONDS = 10.0, 60.0
JUDGE_LOCK = threading.Lock()


# --------------------------------------------------------------------------------------------------------- the worker


def judge_on_worker(brief: bytes, data: bytes, statements: bytes) -> bytes:
    """Return the judgement on what was handed in; this runs in a worker.

    What met a limit on the wall, or ended its judge, is `crowded`: other workers may share this machine, and the master
    alone knows when none of them is at work.
    """
    work = Work(ANONYMOUS, parse_brief(brief), data, statements)
    with JUDGE_LOCK:  # whichever of the worker's threads asks: its judge takes one submission at a time
        found = worker_judges().judge_alone(work) if work.brief.alone else worker_judges().try_once(work)
    return text_of(found if isinstance(found, Judgement) else Judgement("crowded")).encode()


ANONYMOUS = Report("", "", "", "", "", 0, ())
"""The report that a worker fills: whose it is, the master alone knows."""


@cache
def worker_judges() -> Judges:
    """Return the one judge of a worker process, which has neither course nor secret. Raises CourseFault."""
    made = Judges(home(), lambda: strongest(cache_file()))
    if not made.backend().layers:
        raise CourseFault("a worker of a cluster grades in a sandbox or not at all: unset FTGRADE_ALLOW_UNSANDBOXED")
    atexit.register(made.close)
    return made


def parse_brief(text: bytes) -> Brief:
    """Return the brief that `text_of` wrote."""
    body = json.loads(text)
    return Brief(**body | {"limits": Limits(**body["limits"])})


# --------------------------------------------------------------------------------------------------------- the master


def judge_on_cluster(found: Iterable[Work | Report], address: str) -> Iterator[Report | tuple[Work, Judgement]]:
    """Yield each submission with its judgement, as the workers of a scheduler finish them; a report passes through.

    Raises CourseFault if the scheduler or its workers aren't there, are lost, or would judge otherwise.
    """
    with connect(address) as client:
        dispatch = Dispatch(client)
        for one in found:
            if isinstance(one, Report):
                yield one
                continue
            dispatch.send(one)
            if len(dispatch.in_flight) >= MAX_IN_FLIGHT or dispatch.done.has_ready():
                yield from dispatch.receive()
        while dispatch.in_flight:
            yield from dispatch.receive()
        for suspect in dispatch.to_retry:
            yield suspect, dispatch.retry(suspect)


class Dispatch:
    """What one run has sent to a cluster: every submission comes back as one judgement, however workers die."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.done = dask().as_completed(loop=client.loop)
        self.in_flight: dict[Any, Work] = {}
        self.to_retry: list[Work] = []
        self.statements: dict[bytes, Any] = {}

    def send(self, work: Work) -> None:
        """Send a submission; on Dask's pages it bears its problem's name and a number that says nothing."""
        stem = work.brief.stem
        if work.statements not in self.statements:
            name = f"statements_{stem}-{uuid.uuid4()}"
            self.statements[work.statements] = self.client.submit(bytes, work.statements, key=name)
        brief = text_of(work.brief).encode()
        future = self.client.submit(
            judge_on_worker, brief, work.data, self.statements[work.statements], key=f"{stem}-{uuid.uuid4()}"
        )
        self.in_flight[future] = work
        self.done.add(future)

    def receive(self) -> Iterator[tuple[Work, Judgement]]:
        """Wait for one submission and yield its judgement; one that is to be tried again alone is kept for later."""
        future = next(self.done)
        work = self.in_flight.pop(future)
        try:
            judgement = take_judgement(future)
        except dask().KilledWorker:  # it ended its workers, or what was on the same ones did
            judgement = Judgement("crowded")
        if judgement.state == "crowded":
            self.to_retry.append(work)
        else:
            yield work, judgement

    def retry(self, work: Work) -> Judgement:
        """Return the judgement on a suspect that is sent while nothing else is out: a death is its own doing."""
        self.send(dataclasses.replace(work, brief=dataclasses.replace(work.brief, alone=True)))
        future = next(self.done)
        del self.in_flight[future]
        try:
            return take_judgement(future)
        except dask().KilledWorker:
            return Fall("ended the worker that judged").judgement()


def take_judgement(future: Any) -> Judgement:
    """Return the judgement that came back. Raises KilledWorker, and CourseFault where going on is useless."""
    try:
        return judgement_of(future.result())
    except CancelledError:
        raise CourseFault(
            "the scheduler was lost; every report that had arrived is stored: run the same command again when it's back"
        ) from None
    except ImportError as error:
        raise CourseFault(f"a worker lacks {error.name}: install the same checkout there") from error
    except (CourseFault, dask().KilledWorker):
        raise
    except Exception as error:  # whatever it is, this student waits and the class goes on
        words = make_finding("ours", f"A worker could not judge it: {type(error).__name__}: {error}")
        return Judgement("ours", findings=(words,))


@contextlib.contextmanager
def connect(address: str) -> Generator[Any]:
    """Give a client of a scheduler that has a worker. Raises CourseFault."""
    try:
        client = dask().Client(address, set_as_default=False, timeout=SCHEDULER_TIMEOUT_SECONDS)
    except (OSError, ValueError) as error:
        raise CourseFault(f"no scheduler answers at {address}; `dask scheduler` starts one ({error})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_TIMEOUT_SECONDS)
        except TimeoutError:
            raise CourseFault(
                f"the scheduler has no worker after {WORKER_TIMEOUT_SECONDS:.0f} s; "
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
