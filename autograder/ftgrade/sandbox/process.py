"""The processes of the sandbox from the grader's side: start, fork, ask, look after, bury."""

import contextlib
import json
import os
import shutil
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftgrade.errors import OurFault
from ftgrade.sandbox import channel, jail
from ftgrade.sandbox.backends import (
    BACKENDS,
    START_SECONDS,
    Backend,
    Program,
    prison_of,
    sandbox_environment,
    told,
    worker_file,
)
from ftgrade.sandbox.channel import Allowance
from ftgrade.sandbox.worker import parsed

LIMITS = {
    "RLIMIT_AS": 6 * 2**30,  # address space, of which torch alone maps over a gigabyte
    "RLIMIT_CORE": 0,
    "RLIMIT_CPU": 75,  # seconds, for a whole submission; the grader stops it at 60
    "RLIMIT_FSIZE": 16 * 2**20,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_NPROC": 64,  # processes and threads; counted apart for each child where it has a user namespace
    "megabytes": 64,  # of its own file system
    "entries": 2_000,
}


class Worker:
    """One child process that holds one submission's names: its number on this machine, its folder's descriptor."""

    def __init__(self, pid: int, connection: socket.socket, home: int) -> None:
        self.pid, self.connection, self.home = pid, connection, home
        self.empty = os.fstat(home).st_size  # in memory it grows with each entry; on a disk it tells nothing
        self.tasks = 1, 0
        try:
            self.children = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.children = -1  # no such file system here

    def close(self) -> None:
        if self.children >= 0:
            os.close(self.children)

    def ask(self, op: str, items: Sequence[str], allowance: Allowance) -> Iterator[bytes]:
        """Yield the text of each item's reply. Raises what `channel.ask` raises."""
        return channel.ask(self.connection, op, items, allowance)

    def run(self, source: str, seconds: float) -> Any:
        """Run one cell, for at most these seconds, and return its reply. Raises what `ask` raises."""
        (reply,) = self.ask("run", [json.dumps(source)], Allowance(seconds, seconds))
        return parsed(reply)

    def processor_seconds(self) -> float:
        """Return the processor time that the child's first process has used; 0 where the system doesn't tell."""
        if sys.platform != "linux":
            return 0.0
        try:
            return time.clock_gettime((~self.pid << 3) | 2)  # as clock_getcpuclockid(3) makes it
        except OSError:
            return 0.0  # it has ended, which its next reply tells

    def settle(self) -> None:
        """Take what is there now, threads and processes that cells started, as what is there between calls."""
        self.tasks = self.counted()
        wipe(self.home)

    def is_settled(self) -> bool:
        """Empty the folder, and say whether the last call left no thread and no process behind."""
        if self.empty >= 512 or os.fstat(self.home).st_size != self.empty:
            wipe(self.home)
        threads, children = self.counted()
        return threads <= self.tasks[0] and children <= self.tasks[1]

    def counted(self) -> tuple[int, int]:
        """Return how many threads the child has, and how many processes they started."""
        if self.children < 0:
            return self.tasks
        try:
            threads = os.stat(f"/proc/{self.pid}/task").st_nlink - 2
            children = len(os.pread(self.children, 4096, 0).split())
            if threads > 1:
                each = Path(f"/proc/{self.pid}/task").glob("*/children")
                children = sum(len(one.read_text().split()) for one in each)
        except OSError:
            return self.tasks  # the child has just ended, which its next reply tells
        return threads, children


def wipe(folder: int) -> None:
    """Remove all that is in a folder, never following a link out of it."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError, RecursionError):
            try:
                os.unlink(name, dir_fd=folder)
            except IsADirectoryError:
                shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


@dataclass(slots=True)
class Sandbox:
    """The parent process from which every submission's child is forked; make it once, use it from one thread.

    It's started at first use, unless the `control` socket of one that was forked elsewhere is given.
    """

    backend: Backend = BACKENDS["none"]
    limits: dict[str, int] = field(default_factory=lambda: dict(LIMITS))
    control: socket.socket | None = None
    program: Program | None = None
    base: str = ""

    @contextlib.contextmanager
    def worker(self) -> Generator[Worker]:
        """Fork a child in a fresh folder; at the end kill it and what it started, and remove the folder."""
        ours, theirs = socket.socketpair()
        if hasattr(socket, "SO_PASSCRED"):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs:
            told, home = self.tell({"op": "fork", "limits": self.limits}, theirs.fileno())
        if home is None:
            ours.close()
            raise OurFault(f"the sandbox's parent process forked no child: {told.get('trouble', 'no reason given')}")
        pid = int(told["pid"])
        with contextlib.ExitStack() as opened:
            opened.callback(self.bury, pid, ours, home)
            worker = Worker(demand_walls(ours) or pid, ours, home)
            opened.callback(worker.close)
            yield worker

    def bury(self, pid: int, ours: socket.socket, home: int) -> None:
        """End a child with all that it started, and its folder."""
        try:
            ours.close()
            self.tell({"op": "end", "pid": pid})
            if not self.backend.base and "namespaces" not in self.backend.layers:
                wipe(home)
        finally:
            os.close(home)

    def tell(self, request: dict[str, Any], descriptor: int | None = None) -> tuple[dict[str, Any], int | None]:
        """Ask the parent process, which runs no student code; return what it says, with a descriptor if it sent one."""
        control = self.control or self.start()
        try:
            return told(control, request, [] if descriptor is None else [descriptor])
        except (OSError, ValueError) as error:
            self.close()
            raise OurFault(f"the sandbox's parent process stopped answering: {error}") from error

    def start(self) -> socket.socket:
        """Start the parent process and wait until it has imported what it hands on and shut itself in."""
        self.base = self.backend.base or tempfile.mkdtemp(prefix="ftgrade-")
        self.program = Program(
            lambda number: self.backend.wrap(self.command(number), self.base), sandbox_environment(self.base)
        )
        try:
            self.program.wait()
        except OSError as error:
            self.close()
            raise OurFault(f"the sandbox {self.backend.name!r} did not start: {error}") from error
        self.control = self.program.control
        return self.control

    def command(self, control: int) -> list[str]:
        """Return how the parent is started, before its backend wraps it."""
        prison = prison_of(self.backend, self.base)
        return [
            sys.executable, "-I", "-S", str(jail.__file__), sysconfig.get_path("purelib"), worker_file(),
            str(control), ",".join(prison["layers"]), self.base, *prison["readable"], "--", *prison["hidden"],
        ]  # fmt: skip

    def close(self) -> None:
        """End the parent process; its children end with it."""
        control, program, base = self.control, self.program, self.base
        self.control, self.program, self.base = None, None, ""
        if control is not None:
            control.close()
        if program is not None:
            program.close()
        if base and not self.backend.base:
            shutil.rmtree(base, ignore_errors=True)


def demand_walls(connection: socket.socket) -> int | None:
    """Wait until a child says that it's shut in, and return its number as seen from here, where the kernel tells it.

    Raises OurFault if a wall can't be built: no code runs then.
    """
    try:
        said, number = channel.greeted(connection, START_SECONDS)
    except (EOFError, channel.FrameError, TimeoutError) as error:
        raise OurFault(f"a child of the sandbox ended before it was shut in: {error}") from error
    if said != {"ready": True}:
        raise OurFault(f"a wall of the sandbox can't be built: {said}")
    return number
