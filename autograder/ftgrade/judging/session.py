"""Run one submission: its cells are executed in a worker, which answers calls and is replaced after a crash."""

import base64
import contextlib
import dataclasses
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from ftgrade.intake.classes import error_words
from ftgrade.intake.gate import clean
from ftgrade.intake.notebook import Cell
from ftgrade.judging.report import CellNote, Limits
from ftgrade.sandbox import channel
from ftgrade.sandbox.channel import Allowance, Call, Crowded, Lost, Raised, Reply
from ftgrade.sandbox.process import Sandbox, Worker
from ftgrade.sandbox.worker import MAX_PICTURE_BYTES, MAX_PICTURES, FrameError, parse_json

MAX_NOTE_CHARACTERS = 2_000
MAX_TEXT = 4 * MAX_NOTE_CHARACTERS  # of what a cell printed; the worker sends no more than 4,000 characters
MAX_SKIPPED, MAX_SKIPPED_TEXT = 20, 200  # of one cell
MAX_ALL_PICTURES = 100
"""The limit over all cells of a submission, so that a judgement fits into one frame."""
MAX_FUNCTION_BYTES = 4 * 2**20
"""The limit over all replies of one function. All are kept until the submission is judged, and a value takes up to 30
times the memory of its text; right answers to all cases take 60 KiB at most."""
LINE = re.compile(r"[^\n]*\n|[^\n]+")
MEASURED = re.compile(r"[ \t]*(?:CPU times: |Wall time: |\d+(?:/\d+)?(?:[ \t]+\d+\.\d{3}){4}[ \t])")
"""How lines begin that `%time` and `%prun` print."""
PER_LOOP, CALLS = re.compile(r"\bper loop\b"), re.compile(r"\bfunction calls?\b")
SECONDS = re.compile(r" in [\d.]+ seconds")
ADDRESS = re.compile(r"\bat 0x[0-9a-f]+")
MAX_CELL_BYTES = 2 * 2**20
PNG = b"\x89PNG\r\n\x1a\n"


class Session:
    """One submission's worker, which is replaced after a crash.

    A function that once failed to return isn't called again, so a crash or an endless loop costs its time only once.
    """

    def __init__(self, sandbox: Sandbox, cells: list[Cell], limits: Limits, *, alone: bool = False) -> None:
        """If `alone`, nothing else is judged meanwhile: exceeding a wall-clock limit is the submission's own fault."""
        self.sandbox = sandbox
        self.cells = cells
        self.limits = limits
        self.alone = alone
        self.spent = 0.0  # processor seconds of earlier workers
        self.end = time.monotonic() + limits.patience * limits.submission_seconds
        self.lost: dict[str, Lost] = {}
        self.received = Counter[str]()  # bytes, by function
        self.skipped: dict[int, str] = {}
        self.has_run = False
        """Whether all cells have run once: what later workers print isn't kept, as they start after hidden calls."""
        self.notes: list[CellNote] = []
        self.errors: dict[int, Raised] = {}
        self.stack = contextlib.ExitStack()
        self.worker: Worker | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def allowance(self, worker: Worker, seconds: float) -> Allowance:
        """Return the limits of each step: these seconds, and what is left of the submission's time."""
        left = self.limits.submission_seconds - self.spent
        return Allowance(seconds, self.limits.patience * seconds, worker.processor_seconds, left, self.end)

    def is_late(self) -> bool:
        """Say whether the submission's time is used up. Raises Crowded if only the wall-clock time is."""
        used = self.spent + (self.worker.processor_seconds() if self.worker else 0.0)
        if used >= self.limits.submission_seconds:
            return True
        if time.monotonic() < self.end:
            return False
        if not self.alone:
            raise Crowded
        return True

    @contextlib.contextmanager
    def timeout_if_alone(self) -> Generator[None]:
        """Turn Crowded into TimeoutError if nothing else is judged meanwhile."""
        try:
            yield
        except Crowded:
            if not self.alone:
                raise
            raise TimeoutError from None

    def demand_own_end(self, worker: Worker) -> None:
        """Raise Crowded if a worker was killed from outside, unless nothing else is judged meanwhile.

        A neighbour's memory may have been the reason.
        """
        if not self.alone and self.sandbox.was_killed(worker):
            raise Crowded

    def ensure_worker(self) -> Worker:
        """Return a worker in which every cell has run, except those that hang or end a worker."""
        while self.worker is None:
            worker = self.stack.enter_context(self.sandbox.worker())
            if not self.has_run:
                self.notes, self.errors = [], {}
            stuck = self.run_cells(worker)
            if stuck is None:
                self.has_run = True
                worker.take_baseline()
                self.worker = worker
            else:
                self.spent += worker.processor_seconds()
                self.stack.close()
                self.skipped[stuck[0].number] = stuck[1]
        return self.worker

    def run_cells(self, worker: Worker) -> tuple[Cell, str] | None:
        """Run the cells in order; return the first that didn't finish, with the reason."""
        if not self.has_run:
            self.notes += [CellNote(number, error=clean(words)) for number, words in self.skipped.items()]
        waiting = [cell for cell in self.cells if cell.number not in self.skipped]
        seconds = self.limits.cell_seconds
        replies = worker.ask("run", [json.dumps(cell.source) for cell in waiting], self.allowance(worker, seconds))
        for cell in waiting:
            try:
                with self.timeout_if_alone():
                    self.note(cell, parse_json(bounded(next(replies))))
            except TimeoutError:
                return cell, f"The cell ran for more than {seconds:.0f} s and was left out."
            except (EOFError, FrameError, BrokenPipeError):
                self.demand_own_end(worker)
                return cell, "The cell ended the whole process and was left out."
        self.notes = list(limit_pictures(sorted(self.notes, key=lambda one: one.number)))
        return None

    def note(self, cell: Cell, reply: object) -> None:
        """Keep what a cell printed, raised and drew."""
        if self.has_run or not isinstance(reply, dict):
            return
        error = error_of(reply)
        if error is not None:
            self.errors[cell.number] = error
        self.notes += cell_notes(cell, reply, error)

    def ask(self, calls: Sequence[Call]) -> list[Reply]:
        """Return the replies to calls, in order; after a lost one, a new worker gets the rest."""
        replies: list[Reply] = []
        while len(replies) < len(calls):
            replies += self.ask_some(calls[len(replies) :])
        return replies

    def ask_some(self, calls: Sequence[Call]) -> list[Reply]:
        """Return the replies to the first of these calls, at least one."""
        if calls[0].function in self.lost:
            return [self.lost[calls[0].function]]
        if self.is_late():
            return [Lost("timeout", "the submission's time was used up")]
        together = list(itertools.takewhile(lambda call: call.function not in self.lost, calls))
        replies: list[Reply] = []
        worker = self.ensure_worker()
        try:
            asked = worker.ask(
                "call", [call.text for call in together], self.allowance(worker, self.limits.call_seconds)
            )
            with self.timeout_if_alone():
                for call, reply in zip(together, asked, strict=True):
                    if not self.has_room(call, reply):
                        return [*replies, self.lose(call, Lost("unsendable", "the returned values are too large"))]
                    replies.append(reply)
            if not worker.wipe_and_check():
                self.drop_worker()  # threads or processes that are left would see the inputs of the next calls
            return replies
        except TimeoutError:
            lost = Lost("timeout", "the call ran too long")
        except FrameError:
            lost = Lost("protocol", "the reply was no frame")
        except (EOFError, BrokenPipeError):
            self.demand_own_end(worker)
            lost = Lost("killed", "the process ended")
        return [*replies, self.lose(together[len(replies)], lost)]

    def has_room(self, call: Call, reply: bytes) -> bool:
        """Say whether a reply can be kept beside the others of its function."""
        self.received[call.function] += len(reply)
        return self.received[call.function] <= MAX_FUNCTION_BYTES

    def drop_worker(self) -> None:
        """End the worker; the next call gets a new one, in which the cells run again."""
        if self.worker is not None:
            self.spent += self.worker.processor_seconds()
        self.stack.close()
        self.worker = None

    def lose(self, call: Call, outcome: Lost) -> Lost:
        """Drop the worker and mark the function, so that it isn't called again."""
        self.drop_worker()
        self.lost[call.function] = Lost("not-run", "the function had failed to return before")
        return outcome


def bounded(reply: bytes) -> bytes:
    """Return a cell's reply. Raises FrameError for one that is longer than what a cell may print and draw."""
    if len(reply) > MAX_CELL_BYTES:
        raise FrameError(f"a cell's reply has at most {MAX_CELL_BYTES:,} bytes")
    return reply


def error_of(reply: dict[str, Any]) -> Raised | None:
    """Return the error that a cell's reply tells, which may be forged; None if there is none."""
    if isinstance(reply.get("error"), dict):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return channel.parse_raised(reply["error"])
    return None


def steady(printed: str) -> str:
    """Return what a cell printed without measured times and addresses, which differ from run to run: a report must not.

    >>> steady("CPU times: user 3 us\\nWall time: 4 us\\n<f at 0x7f03>\\n")
    '<f at 0x…>\\n'
    """
    lines = LINE.findall(printed[:MAX_TEXT])
    return ADDRESS.sub("at 0x…", "".join(line for line in lines if not is_measured(line)))


def is_measured(line: str) -> bool:
    """Say whether `%time`, `%timeit` or `%prun` printed a line. Each pattern takes time in proportion to its length.

    >>> is_measured("5 function calls in 0.001 seconds"), is_measured("4 ns ± 1 ns per loop"), is_measured("a = 1")
    (True, True, False)
    """
    calls = CALLS.search(line)
    profiled = calls is not None and SECONDS.search(line, calls.end()) is not None
    return profiled or bool(MEASURED.match(line) or PER_LOOP.search(line))


def cell_notes(cell: Cell, reply: dict[str, Any], failure: Raised | None) -> Iterator[CellNote]:
    """Yield a note for the student on what a cell printed, raised and drew, if it did any of that."""
    printed, error = clean(steady(str(reply.get("printed", ""))), MAX_NOTE_CHARACTERS), ""
    if skipped := skipped_words(reply.get("skipped")):
        printed = clean(f"{skipped}\n{printed}" if printed else skipped, MAX_NOTE_CHARACTERS + len(skipped))
    if failure is not None:
        place = f" (line {failure.line})" if failure.line else ""
        error = f"{error_words(failure.names)}{place}: {failure.message[:300]}"
    pictures = tuple(whole_pictures(reply.get("pictures")))
    if printed or error or pictures:
        yield CellNote(cell.number, printed, clean(error), pictures)


def skipped_words(claimed: object) -> str:
    """Return words on the lines of a cell that weren't run, from a reply that may be forged; empty if there are none.

    >>> skipped_words(["!pip install torch", "%cd /content"])
    'Not run while grading, as it needs more than the notebook: !pip install torch · %cd /content'
    """
    lines = claimed[:MAX_SKIPPED] if isinstance(claimed, list) else []
    words = " · ".join(" ".join(str(line)[:MAX_SKIPPED_TEXT].split()) for line in lines)
    return f"Not run while grading, as it needs more than the notebook: {words}" if words else ""


def limit_pictures(notes: list[CellNote]) -> Iterator[CellNote]:
    """Yield the notes with the first MAX_ALL_PICTURES pictures."""
    room = MAX_ALL_PICTURES
    for one in notes:
        yield dataclasses.replace(one, pictures=one.pictures[:room])
        room -= min(room, len(one.pictures))


def whole_pictures(claimed: object) -> Iterator[str]:
    """Yield the pictures of a reply, which may be forged, that start as a PNG file does and are within the limits."""
    for text in claimed[:MAX_PICTURES] if isinstance(claimed, list) else []:
        with contextlib.suppress(ValueError, TypeError):
            data = base64.b64decode(text, validate=True)
            if data.startswith(PNG) and len(data) <= MAX_PICTURE_BYTES:
                yield base64.b64encode(data).decode()
