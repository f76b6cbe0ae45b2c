"""The grader's end of the channel: ask with a deadline, and turn replies, which may be forged, into outcomes."""

import contextlib
import functools
import itertools
import json
import math
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ftgrade.errors import AuthorFault
from ftgrade.sandbox.worker import FrameError, decode, encode, frame, parse_json, read_body, read_frame

MAX_NAMES = 8
MAX_LINE = 100
MAX_MESSAGE = 4_000
QUESTION_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Call:
    """One call of a student's function with plain values; `backward` asks for the gradients of the result too.

    `build` is for arguments that JSON can't hold, such as a model with its optimizer. It is the source of a module with
    a function `build`: the worker passes the plain values to that, and the result to the student's function.
    """

    function: str
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    backward: bool = False
    build: str = ""

    @functools.cached_property
    def request(self) -> dict[str, Any]:
        """The request in its JSON form; computed once for all students, the reference and the mistakes."""
        return {
            "function": self.function,
            "arguments": [encode(item) for item in self.arguments],
            "keywords": {name: encode(item) for name, item in self.keywords},
            "backward": self.backward,
            "build": self.build,
        }

    @functools.cached_property
    def text(self) -> str:
        """The request as JSON text; computed once for all students."""
        return json.dumps(self.request)


@dataclass(frozen=True, slots=True)
class Value:
    """The function returned. `changed` are the positions of modified inputs, `gradients` is None unless requested."""

    value: Any
    changed: tuple[int, ...] = ()
    gradients: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Raised:
    """The function raised. `names` are the error's class and its base classes, `line` is a line of the cell."""

    names: tuple[str, ...]
    message: str
    line: int | None = None

    def is_a(self, name: str) -> bool:
        return name in self.names


@dataclass(frozen=True, slots=True)
class Lost:
    """No value came back. `kind` is `timeout`, `killed`, `missing`, `unsendable`, `protocol` or `not-run`."""

    kind: str
    words: str


Outcome = Value | Raised | Lost
Reply = Outcome | bytes
"""An outcome, or the unparsed JSON text of one."""


class Crowded(Exception):
    """A reply exceeded its wall-clock limit but not its processor time, perhaps because of other load."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """The time limits of each reply: seconds of processor time and of wall-clock time.

    `processor` returns the processor time that the answering process has used. Without it only the wall clock is
    limited, and exceeding that raises TimeoutError instead of Crowded. `processor_end` and `wall_end` are deadlines for
    all replies together.
    """

    seconds: float
    wall_seconds: float
    processor: Callable[[], float] | None = None
    processor_end: float = math.inf
    wall_end: float = math.inf


MAX_LATE_BYTES = 2**18
POLL_SECONDS = 0.25  # between two checks of the clocks while no data arrives


class Deadline:
    """A socket's `recv` with a fixed deadline. A timeout of silence alone would never stop a slow trickle of bytes.

    It reads whatever has arrived; `surplus` holds the bytes beyond those asked for. What had arrived when the deadline
    passed is still read, since it's our own process that was late: at most MAX_LATE_BYTES, what a socket holds.
    """

    def __init__(self, channel: socket.socket, allowance: Allowance) -> None:
        self.channel, self.allowance = channel, allowance
        self.surplus = b""
        channel.settimeout(min(POLL_SECONDS, allowance.wall_seconds, allowance.seconds))
        self.start()

    def restart(self) -> None:
        """Give the next reply its full time, from when its bytes are first waited for."""
        self.started = False

    def start(self) -> None:
        given = self.allowance
        self.started = True
        self.late_bytes = MAX_LATE_BYTES
        self.end = min(time.monotonic() + given.wall_seconds, given.wall_end)
        if given.processor is not None:
            self.processor_end = min(given.processor() + given.seconds, given.processor_end)

    def receive(self, length: int) -> bytes:
        data = self.surplus or self.receive_any()
        self.surplus = data[length:]
        return data[:length]

    def receive_any(self) -> bytes:
        if not self.started:
            self.start()
        while True:
            if self.late_bytes > 0 and select.select([self.channel], [], [], 0)[0]:
                data = self.channel.recv(2**16)
                self.late_bytes -= len(data) if self.is_over() else 0
                return data
            self.demand_time()
            with contextlib.suppress(TimeoutError):
                return self.channel.recv(2**16)

    def is_over(self) -> bool:
        try:
            self.demand_time()
        except (TimeoutError, Crowded):
            return True
        return False

    def demand_time(self) -> None:
        """Raise TimeoutError or Crowded if a deadline has passed."""
        processor = self.allowance.processor
        if time.monotonic() >= self.end:
            raise TimeoutError if processor is None else Crowded
        if processor is not None and processor() >= self.processor_end:
            raise TimeoutError


def ask(channel: socket.socket, op: str, items: Sequence[str], allowance: Allowance) -> Iterator[bytes]:
    """Send items (JSON) in one request, and yield the text of each item's reply as it arrives.

    Each reply starts with the numbers of its request and item, so a reply that is early, repeated or out of order is
    rejected. Raises TimeoutError, Crowded, EOFError (the worker died), FrameError, or AuthorFault if the items are too
    large for one request.
    """
    number = next(QUESTION_NUMBERS)
    deadline = Deadline(channel, allowance)
    try:
        question = frame(f'{{"op": "{op}", "number": {number}, "each": [{", ".join(items)}]}}'.encode())
    except FrameError as error:
        raise AuthorFault(
            f"the inputs of one check's cases are sent together, and {error}: draw smaller ones"
        ) from None
    try:
        if select.select([channel], [], [], 0)[0] and channel.recv(1, socket.MSG_PEEK):
            raise FrameError("bytes came that nobody asked for")
        send(channel, question, deadline)
        for place in range(len(items)):
            deadline.restart()
            answered, head = read_body(deadline.receive), f"[{number}, {place}, ".encode()
            if not (answered.startswith(head) and answered.endswith(b"]")):
                raise FrameError("the reply answers another question")
            if place == len(items) - 1 and deadline.surplus:
                raise FrameError("bytes came that nobody asked for")
            yield answered[len(head) : -1]
    except ConnectionError:
        raise EOFError("the other end closed the channel") from None


def send(channel: socket.socket, data: bytes, deadline: Deadline) -> None:
    """Send all the data before the deadline."""
    view = memoryview(data)
    while view:
        deadline.demand_time()
        try:
            view = view[channel.send(view) :]
        except TimeoutError:
            continue


def receive_greeting(channel: socket.socket, seconds: float) -> tuple[Any, int | None]:
    """Return the worker's first message, and the PID of its sender as seen from this process, where the system tells.

    Raises what `ask` raises.
    """
    sender: list[int] = []
    deadline = Deadline(channel, Allowance(seconds, seconds))

    def receive(length: int) -> bytes:
        if sender or not hasattr(socket, "SO_PASSCRED"):
            return deadline.receive(length)
        while True:
            deadline.demand_time()
            try:
                data, extra, _, _ = channel.recvmsg(length, socket.CMSG_SPACE(12))
                break
            except TimeoutError:
                continue
        sender.extend(struct.unpack("iII", body)[0] for _, kind, body in extra if kind == socket.SCM_CREDENTIALS)
        return data

    try:
        return read_frame(receive), sender[0] if sender else None
    except ConnectionError:
        raise EOFError("the other end closed the channel") from None


def outcome_of(reply: Any) -> Outcome:
    """Return the outcome of a reply, parsed or not; a malformed one is Lost, since a student may have forged it."""
    if isinstance(reply, Outcome):
        return reply
    try:
        return parse_outcome(parse_json(reply) if isinstance(reply, bytes) else reply)
    except (FrameError, AttributeError, KeyError, OverflowError, TypeError, ValueError, RecursionError):
        return Lost("protocol", "the reply was not in the form that the grader reads")


def parse_outcome(reply: dict[str, Any]) -> Outcome:
    if "value" in reply:
        gradients = reply.get("gradients")
        return Value(
            decode(reply["value"]),
            tuple(int(position) for position in reply["changed"]),
            None if gradients is None else tuple(decode(item) for item in gradients),
        )
    if "error" in reply:
        return parse_raised(reply["error"])
    if "missing" in reply:
        return Lost("missing", "the notebook defines no function of this name")
    if "unsendable" in reply:
        return Lost("unsendable", "the returned value nests too deep or is too large")
    raise ValueError("not a reply")


def parse_raised(error: dict[str, Any]) -> Raised:
    """Return the error of a reply with its texts cut to length. Raises KeyError, TypeError or ValueError."""
    line, names = error.get("line"), error["names"]
    if not isinstance(names, list) or not names:
        raise ValueError("an error has the name of its class and those of its bases")
    return Raised(
        tuple(str(name)[:100] for name in names[:MAX_NAMES]),
        str(error["message"])[:MAX_MESSAGE],
        line if isinstance(line, int) and 0 < line <= MAX_LINE else None,  # a forged one could hold a hidden input
    )
