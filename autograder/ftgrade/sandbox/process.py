"""The grader's end of the sandbox's processes: start the parent, fork workers, ask them, clean up, end them."""

import contextlib
import json
import os
import shutil
import signal
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
    exchange,
    prison_arguments,
    remove_folder,
    worker_file,
)
from ftgrade.sandbox.channel import Allowance
from ftgrade.sandbox.worker import parse_json

LIMITS = {
    "RLIMIT_AS": 6 * 2**30,  # address space; torch alone maps over a gigabyte
    "RLIMIT_CORE": 0,
    "RLIMIT_CPU": 75,  # seconds for a whole submission; a backstop, since the grader stops it at 60
    "RLIMIT_FSIZE": 16 * 2**20,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_NPROC": 64,  # processes and threads; counted separately for each child if it has a user namespace
    "megabytes": 64,  # of the child's file system in memory
    "entries": 2_000,
}


class Worker:
    """A child process that runs one submission: its PID, the socket to it, and the descriptor of its folder.

    `inner_pid` is its PID as the sandbox's parent sees it.
    """

    def __init__(self, pid: int, inner_pid: int, connection: socket.socket, home: int) -> None:
        self.pid, self.inner_pid, self.connection, self.home = pid, inner_pid, connection, home
        self.empty_size = os.fstat(home).st_size  # on tmpfs the size grows with each entry
        self.tasks = 1, 0  # threads, child processes
        self.children = opened(f"/proc/{pid}/task/{pid}/children")
        self.stat = opened(f"/proc/{pid}/stat")

    def close(self) -> None:
        for descriptor in (self.children, self.stat):
            if descriptor >= 0:
                os.close(descriptor)

    def ask(self, op: str, items: Sequence[str], allowance: Allowance) -> Iterator[bytes]:
        """Yield the JSON text of each item's reply. Raises what `channel.ask` raises."""
        return channel.ask(self.connection, op, items, allowance)

    def run(self, source: str, seconds: float) -> Any:
        """Run one cell with this wall-clock limit and return its reply. Raises what `ask` raises."""
        (reply,) = self.ask("run", [json.dumps(source)], Allowance(seconds, seconds))
        return parse_json(reply)

    def processor_seconds(self) -> float:
        """Return the processor time of the child's first process and of those it waited for; 0 if that is unknown."""
        if self.stat < 0:
            return 0.0
        try:
            own = time.clock_gettime((~self.pid << 3) | 2)  # the clock's id as in clock_getcpuclockid(3)
            fields = os.pread(self.stat, 4096, 0).rpartition(b")")[2].split()
        except OSError:
            return 0.0  # the process has ended; reading its next reply will show that
        return own + sum(map(int, fields[13:15])) / CLOCK_TICKS  # cutime and cstime of proc_pid_stat(5)

    def take_baseline(self) -> None:
        """Empty the folder, and count the threads and processes that the cells started: calls may not add to them."""
        self.tasks = self.count_tasks()
        wipe(self.home)

    def wipe_and_check(self) -> bool:
        """Empty the folder, and say whether the calls left no additional thread or process behind."""
        if self.empty_size >= 512 or os.fstat(self.home).st_size != self.empty_size:
            wipe(self.home)
        threads, children = self.count_tasks()
        return threads <= self.tasks[0] and children <= self.tasks[1]

    def count_tasks(self) -> tuple[int, int]:
        """Return how many threads and how many child processes the worker has."""
        if self.children < 0:
            return self.tasks
        try:
            threads = os.stat(f"/proc/{self.pid}/task").st_nlink - 2
            children = len(os.pread(self.children, 4096, 0).split())
            if threads > 1:
                each = Path(f"/proc/{self.pid}/task").glob("*/children")
                children = sum(len(one.read_text().split()) for one in each)
        except OSError:
            return self.tasks  # the process has ended; reading its next reply will show that
        return threads, children


def opened(path: str) -> int:
    """Return the descriptor of a file of /proc, or -1 where the system has no such file."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def wipe(folder: int) -> None:
    """Remove everything in a folder, without following links."""
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


CLOCK_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(slots=True)
class Sandbox:
    """The parent process that workers are forked from. Make one and reuse it, from one thread.

    It is started at first use, unless `control` is the socket of a parent that was already forked.
    """

    backend: Backend = BACKENDS["none"]
    limits: dict[str, int] = field(default_factory=lambda: dict(LIMITS))
    control: socket.socket | None = None
    program: Program | None = None
    base: str = ""

    @contextlib.contextmanager
    def worker(self) -> Generator[Worker]:
        """Yield a new child with an empty folder; at the end kill it with its descendants and empty the folder."""
        ours, theirs = socket.socketpair()
        if hasattr(socket, "SO_PASSCRED"):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs:
            reply, home = self.exchange({"op": "fork", "limits": self.limits}, theirs.fileno())
        if home is None:
            ours.close()
            raise OurFault(f"the sandbox's parent process forked no child: {reply.get('trouble', 'no reason given')}")
        pid = int(reply["pid"])
        with contextlib.ExitStack() as opened:
            opened.callback(self.end_child, pid, ours, home)
            worker = Worker(demand_confined(ours) or pid, pid, ours, home)
            opened.callback(worker.close)
            yield worker

    def was_killed(self, worker: Worker) -> bool:
        """Say whether a worker that closed its channel was ended by SIGKILL.

        With namespaces its own code can't send that, so it came from outside: from the kernel, short of memory, or from
        a person. Raises OurFault.
        """
        return self.exchange({"op": "status", "pid": worker.inner_pid})[0].get("status") == -signal.SIGKILL

    def end_child(self, pid: int, ours: socket.socket, home: int) -> None:
        """End a child with its descendants, and empty its folder if that is on the disk."""
        try:
            ours.close()
            if self.control is not None:  # else the parent has ended, and its children with it
                self.exchange({"op": "end", "pid": pid})
            if not self.backend.base and "namespaces" not in self.backend.layers:
                wipe(home)
        finally:
            os.close(home)

    def exchange(self, request: dict[str, Any], descriptor: int | None = None) -> tuple[dict[str, Any], int | None]:
        """Send the parent a request; return its reply, with a descriptor if one came with it. Raises OurFault."""
        control = self.control or self.start()
        try:
            return exchange(control, request, [] if descriptor is None else [descriptor])
        except (OSError, ValueError) as error:
            self.close()
            raise OurFault(f"the sandbox's parent process stopped answering: {error}") from error

    def start(self) -> socket.socket:
        """Start the parent process, and wait until it has done its imports and confined itself. Raises OurFault."""
        self.base = self.backend.base or tempfile.mkdtemp(prefix="ftgrade-")
        self.program = Program(lambda number: self.backend.wrap(self.command(number), self.base), self.base)
        try:
            self.program.wait()
        except OSError as error:
            self.close()
            raise OurFault(f"the sandbox {self.backend.name!r} did not start: {error}") from error
        self.control = self.program.control
        return self.control

    def command(self, control: int) -> list[str]:
        """Return the parent's command, before the backend wraps it."""
        prison = prison_arguments(self.backend, self.base)
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
            remove_folder(base)


def demand_confined(connection: socket.socket) -> int | None:
    """Wait until a child reports that it is confined, and return its PID as seen from here, if the kernel tells it.

    Raises OurFault if a layer can't be set up.
    """
    try:
        greeting, pid = channel.receive_greeting(connection, START_SECONDS)
    except (EOFError, channel.FrameError, TimeoutError) as error:
        raise OurFault(f"a child of the sandbox ended before it was shut in: {error}") from error
    if greeting != {"ready": True}:
        raise OurFault(f"a layer of the sandbox can't be set up: {greeting}")
    return pid
