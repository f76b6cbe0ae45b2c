"""The grader's end of the hop: ask with a deadline, and turn replies, which anyone may have forged, into outcomes."""

import functools
import itertools
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from ftgrade.worker import FrameError, decode, encode, frame, read_frame

MAX_NAMES = 8
MAX_MESSAGE = 4_000
NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Call:
    """One call of a student's function: plain values in, `backward` to differentiate what comes out.

    `build` is the source of a function for what can't cross as data, such as a model with its optimizer. The other end
    calls it once, calls what it returns with the plain values, and the student's function with what that returns.
    """

    function: str
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    backward: bool = False
    build: str = ""

    @functools.cached_property
    def request(self) -> dict[str, Any]:
        """The frame's message; the reference and each mistake are asked by the same one."""
        return {
            "op": "call",
            "function": self.function,
            "arguments": [encode(item) for item in self.arguments],
            "keywords": {name: encode(item) for name, item in self.keywords},
            "backward": self.backward,
            "build": self.build,
        }


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


class Deadline:
    """A socket's `recv` that gives up at a moment rather than after a silence, so a slow drip ends too."""

    def __init__(self, channel: socket.socket, seconds: float) -> None:
        self.channel = channel
        self.end = time.monotonic() + seconds

    def receive(self, length: int) -> bytes:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        limit = self.channel.gettimeout()
        if limit is None or limit > 1.1 * left:  # to set it is a system call too
            self.channel.settimeout(left)
        return self.channel.recv(length)


def ask(channel: socket.socket, message: dict[str, Any], seconds: float) -> Any:
    """Send a message and return the reply's JSON. Raises TimeoutError, EOFError (the other end died) or FrameError.

    A reply names the question that it answers: one that came before it was asked, twice, or for another is refused.
    """
    deadline, number = Deadline(channel, seconds), next(NUMBERS)
    try:
        if select.select([channel], [], [], 0)[0] and channel.recv(1, socket.MSG_PEEK):
            raise FrameError("bytes came that nobody asked for")
        if channel.gettimeout() != seconds:
            channel.settimeout(seconds)
        channel.sendall(frame({**message, "number": number}))
        answered = read_frame(deadline.receive)
    except ConnectionError:
        raise EOFError("the other end closed the channel") from None
    if not isinstance(answered, dict) or type(answered.get("to")) is not int or answered["to"] != number:
        raise FrameError("the reply answers another question")
    return answered.get("reply")


def greeted(channel: socket.socket, seconds: float) -> tuple[Any, int | None]:
    """Return the frame with which the other end begins, and who sent it as this machine's kernel numbers processes.

    Raises what `ask` raises.
    """
    sender: list[int] = []
    deadline = Deadline(channel, seconds)
    channel.settimeout(seconds)

    def receive(length: int) -> bytes:
        if sender or not hasattr(socket, "SO_PASSCRED"):
            return deadline.receive(length)
        data, extra, _, _ = channel.recvmsg(length, socket.CMSG_SPACE(12))
        sender.extend(struct.unpack("iII", body)[0] for _, kind, body in extra if kind == socket.SCM_CREDENTIALS)
        return data

    try:
        return read_frame(receive), sender[0] if sender else None
    except ConnectionError:
        raise EOFError("the other end closed the channel") from None


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


def valid_text(text: str) -> str:
    """Replace lone surrogates, which Python and JSON allow and no file could take."""
    return text.encode("utf-8", "replace").decode("utf-8")


def raised(error: dict[str, Any]) -> Raised:
    """Return the error of a reply, capped."""
    line = error.get("line")
    return Raised(
        tuple(valid_text(str(name)[:100]) for name in list(error["names"])[:MAX_NAMES]),
        valid_text(str(error["message"])[:MAX_MESSAGE]),
        line if isinstance(line, int) else None,
    )
