"""The worker's parent and its children, from the grader's side: start, fork, ask, look after, bury."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftgrade.errors import OurFault
from ftgrade.sandbox import jail
from ftgrade.sandbox.backends import BACKENDS, Backend, hidden, readable, readable_one_by_one, worker_file

# The channel needs torch, which takes a second to import: the parent process is better started before than after.
START_SECONDS = 120.0
LIMITS = {
    "RLIMIT_AS": 6 * 2**30,  # address space, of which torch alone maps over a gigabyte
    "RLIMIT_CORE": 0,
    "RLIMIT_CPU": 60,  # seconds, for a whole submission
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

    def ask(self, op: str, items: Sequence[str], seconds: Callable[[], float]) -> Iterator[bytes]:
        """Yield the text of each item's reply. Raises TimeoutError, EOFError (it died) or worker.FrameError."""
        from ftgrade.sandbox import channel

        return channel.ask(self.connection, op, items, seconds)

    def run(self, source: str, seconds: float) -> Any:
        """Run one cell and return its reply. Raises what `ask` raises."""
        from ftgrade.sandbox.worker import parsed

        (reply,) = self.ask("run", [json.dumps(source)], lambda: seconds)
        return parsed(reply)

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
    """The parent process from which every submission's child is forked; make it once, use it from many threads."""

    backend: Backend = BACKENDS["none"]
    limits: dict[str, int] = field(default_factory=lambda: dict(LIMITS))
    process: subprocess.Popen[bytes] | None = None
    control: socket.socket | None = None
    base: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

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
        with self.lock:
            control = self.control or self.start()
            try:
                descriptors = [] if descriptor is None else [descriptor]
                socket.send_fds(control, [json.dumps(request).encode()], descriptors)
                return read_control(control)
            except (OSError, ValueError) as error:
                self.close()
                raise OurFault(f"the sandbox's parent process stopped answering: {error}") from error

    def begin(self) -> None:
        """Start the parent process meanwhile: who first needs it waits for it, and starts it anew if it failed."""

        def start() -> None:
            with contextlib.suppress(OurFault, OSError), self.lock:
                self.control = self.control or self.start()

        threading.Thread(target=start, daemon=True).start()

    def start(self) -> socket.socket:
        """Start the parent process and wait until it has imported what it hands on and shut itself in."""
        self.base = self.backend.base or tempfile.mkdtemp(prefix="ftgrade-")
        ours, theirs = socket.socketpair()
        with theirs:
            words = self.backend.wrap(self.command(theirs.fileno()), self.base)
            self.process = subprocess.Popen(  # noqa: S603
                words,
                pass_fds=[theirs.fileno()],
                env=clean_environment() | {"MPLCONFIGDIR": self.base},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        ours.settimeout(START_SECONDS)
        self.control = ours
        try:
            read_control(ours)
        except OSError as error:
            said = self.last_words()
            self.close()
            raise OurFault(f"the sandbox {self.backend.name!r} did not start: {said or error}") from error
        return ours

    def command(self, control: int) -> list[str]:
        """Return how the parent is started, before its backend wraps it."""
        shown = readable() if "namespaces" in self.backend.layers else readable_one_by_one()
        return [
            sys.executable, "-I", "-S", str(jail.__file__), sysconfig.get_path("purelib"), worker_file(),
            str(control), ",".join(self.backend.layers), self.base, *shown, "--", *hidden(),
        ]  # fmt: skip

    def last_words(self) -> str:
        """Return the last line that a parent which didn't start wrote to its stderr."""
        process, lines = self.process, list[str]()
        if process is not None and process.stderr is not None:
            process.kill()
            with contextlib.suppress(ValueError):  # closed meanwhile by who needs no sandbox any more
                lines = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def close(self) -> None:
        """End the parent process; its children end with it."""
        control, process, base = self.control, self.process, self.base
        self.control, self.process, self.base = None, None, ""
        if control is not None:
            control.close()
        if process is not None:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
        if base and not self.backend.base:
            shutil.rmtree(base, ignore_errors=True)


def demand_walls(connection: socket.socket) -> int | None:
    """Wait until a child says that it's shut in, and return its number as seen from here, where the kernel tells it.

    Raises OurFault if a wall can't be built: no code runs then.
    """
    from ftgrade.sandbox import channel

    try:
        said, number = channel.greeted(connection, START_SECONDS)
    except (EOFError, channel.FrameError, TimeoutError) as error:
        raise OurFault(f"a child of the sandbox ended before it was shut in: {error}") from error
    if said != {"ready": True}:
        raise OurFault(f"a wall of the sandbox can't be built: {said}")
    return number


def read_control(control: socket.socket) -> tuple[dict[str, Any], int | None]:
    data, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
    if not data:
        raise ConnectionResetError("it closed the control socket")
    return json.loads(data), descriptors[0] if descriptors else None


def clean_environment() -> dict[str, str]:
    """Return what the worker may know of the machine: where programs are, and that one thread is enough."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
    }
