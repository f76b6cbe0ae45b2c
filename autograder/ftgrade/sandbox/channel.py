"""The grader's end of the hop: ask with a deadline, and turn replies, which anyone may have forged, into outcomes."""

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
from ftgrade.sandbox.worker import FrameError, decode, encode, framed, parsed, read_body, read_frame

MAX_NAMES = 8
MAX_MESSAGE = 4_000
NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Call:
    """One call of a student's function: plain values in, `backward` to differentiate what comes out.

    `build` is the source of a module for what can't cross as data, such as a model with its optimizer. The other end
    executes it, calls its function `build` with the plain values, and the student's function with what that returns.
    """

    function: str
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    backward: bool = False
    build: str = ""

    @functools.cached_property
    def request(self) -> dict[str, Any]:
        """What the other end is told; the reference and each mistake are asked by the same one."""
        return {
            "function": self.function,
            "arguments": [encode(item) for item in self.arguments],
            "keywords": {name: encode(item) for name, item in self.keywords},
            "backward": self.backward,
            "build": self.build,
        }

    @functools.cached_property
    def text(self) -> str:
        """The request in JSON, made once for a class."""
        return json.dumps(self.request)


@dataclass(frozen=True, slots=True)
class Value:
    """The function returned: its value, the positions of changed inputs, and the gradients if they were asked for."""

    value: Any
    changed: tuple[int, ...] = ()
    gradients: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Raised:
    """The function raised: class names from the error's own to its bases, the message, the cell's line."""

    names: tuple[str, ...]
    message: str
    line: int | None = None

    def is_a(self, name: str) -> bool:
        return name in self.names


@dataclass(frozen=True, slots=True)
class Lost:
    """No value came: `timeout`, `killed`, `missing` function, `unsendable` value, `protocol` breach, or `not-run`."""

    kind: str
    words: str


Outcome = Value | Raised | Lost
Answer = Outcome | bytes
"""An outcome, or the text of a reply that nobody has read yet."""


class Crowded(Exception):
    """A reply took too long on the wall and not of processor time: a neighbour's load may be the reason."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What each reply may take: seconds of processor time of the process that answers, and seconds on the wall.

    `processor` tells the time that it has used. Without it the wall alone counts, and meeting it is a TimeoutError
    instead of Crowded. `processor_end` and `wall_end` are the last moments for all replies together.
    """

    seconds: float
    wall_seconds: float
    processor: Callable[[], float] | None = None
    processor_end: float = math.inf
    wall_end: float = math.inf


SLICE = 0.25  # seconds between two looks at the clocks while nothing comes


class Deadline:
    """A socket's `recv` that gives up at a moment rather than after a silence, so a slow drip ends too.

    It takes what is there at once: `rest` is what came beyond what was asked for.
    """

    def __init__(self, channel: socket.socket, allowance: Allowance) -> None:
        self.channel, self.allowance = channel, allowance
        self.rest = b""
        channel.settimeout(min(SLICE, allowance.wall_seconds, allowance.seconds))
        self.allow()

    def allow(self) -> None:
        """Begin to count anew."""
        given = self.allowance
        self.end = min(time.monotonic() + given.wall_seconds, given.wall_end)
        if given.processor is not None:
            self.processor_end = min(given.processor() + given.seconds, given.processor_end)

    def receive(self, length: int) -> bytes:
        data = self.rest or self.arrived()
        self.rest = data[length:]
        return data[:length]

    def arrived(self) -> bytes:
        while True:
            self.demand_time()
            try:
                return self.channel.recv(2**16)
            except TimeoutError:
                continue

    def demand_time(self) -> None:
        """Raise TimeoutError, or Crowded, if there is none left."""
        processor = self.allowance.processor
        if time.monotonic() >= self.end:
            raise TimeoutError if processor is None else Crowded
        if processor is not None and processor() >= self.processor_end:
            raise TimeoutError


def ask(channel: socket.socket, op: str, items: Sequence[str], allowance: Allowance) -> Iterator[bytes]:
    """Send items (JSON), and yield the text of each one's reply as it comes, within the allowance for each.

    Raises TimeoutError, Crowded, EOFError (the other end died), FrameError, or AuthorFault if so much can't be sent. A
    reply begins with the question that it answers: one that came before it was asked, twice, or for another is refused.
    """
    number = next(NUMBERS)
    deadline = Deadline(channel, allowance)
    try:
        question = framed(f'{{"op": "{op}", "number": {number}, "each": [{", ".join(items)}]}}'.encode())
    except FrameError as error:
        raise AuthorFault(
            f"the inputs of one check's cases are sent together, and {error}: draw smaller ones"
        ) from None
    try:
        if select.select([channel], [], [], 0)[0] and channel.recv(1, socket.MSG_PEEK):
            raise FrameError("bytes came that nobody asked for")
        send(channel, question, deadline)
        for place in range(len(items)):
            deadline.allow()
            answered, head = read_body(deadline.receive), f"[{number}, {place}, ".encode()
            if not (answered.startswith(head) and answered.endswith(b"]")):
                raise FrameError("the reply answers another question")
            if place == len(items) - 1 and deadline.rest:
                raise FrameError("bytes came that nobody asked for")
            yield answered[len(head) : -1]
    except ConnectionError:
        raise EOFError("the other end closed the channel") from None


def send(channel: socket.socket, data: bytes, deadline: Deadline) -> None:
    """Send all of it, while there is time."""
    view = memoryview(data)
    while view:
        deadline.demand_time()
        try:
            view = view[channel.send(view) :]
        except TimeoutError:
            continue


def greeted(channel: socket.socket, seconds: float) -> tuple[Any, int | None]:
    """Return the frame with which the other end begins, and who sent it as this machine's kernel numbers processes.

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


def read(answer: Answer) -> Outcome:
    """Return the outcome that an answer is or tells."""
    if not isinstance(answer, bytes):
        return answer
    try:
        return outcome(parsed(answer))
    except FrameError:
        return Lost("protocol", "the reply was not in the form that the grader reads")


def outcome(reply: Any) -> Outcome:
    """Return the outcome that a call's reply tells, or a protocol breach: replies are checked, never trusted."""
    try:
        return parse_outcome(reply)
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
        return raised(reply["error"])
    if "missing" in reply:
        return Lost("missing", "the notebook defines no function of this name")
    if "unsendable" in reply:
        return Lost("unsendable", "the returned value nests too deep or is too large")
    raise ValueError("not a reply")


def raised(error: dict[str, Any]) -> Raised:
    """Return the error of a reply, capped."""
    line = error.get("line")
    return Raised(
        tuple(str(name)[:100] for name in list(error["names"])[:MAX_NAMES]),
        str(error["message"])[:MAX_MESSAGE],
        line if isinstance(line, int) else None,
    )
