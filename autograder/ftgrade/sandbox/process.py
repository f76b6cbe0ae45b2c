"""Run student code in a separate process with a clean environment, an own folder and resource limits.

What it does not protect against: a process of the same user can read that user's files and use the network. Isolation
by the operating system is another backend's matter; this one keeps honest mistakes (endless loops, memory, crashes,
exits) from touching the grader, and keeps everything that judges out of the student's process.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftgrade import channel
from ftgrade.errors import OurFault

START_SECONDS = 120.0
WORKER = Path(__file__).parent.parent / "worker.py"
BOOT = (
    "import runpy, sys; site, worker, fd = sys.argv[1:]; sys.path.append(site); "
    "sys.argv = [worker, fd]; runpy.run_path(worker, run_name='__main__')"
)
LIMITS = {
    "RLIMIT_AS": 6 * 2**30,  # address space, of which torch alone maps over a gigabyte
    "RLIMIT_CORE": 0,
    "RLIMIT_CPU": 60,  # seconds, for a whole submission
    "RLIMIT_FSIZE": 16 * 2**20,
    "RLIMIT_NOFILE": 64,
}


@dataclass(slots=True)
class Worker:
    """One child process that holds one submission's names."""

    pid: int
    connection: socket.socket
    folder: str

    def ask(self, message: dict[str, Any], seconds: float) -> Any:
        """Return the reply. Raises TimeoutError, EOFError (it died) or worker.FrameError."""
        return channel.ask(self.connection, message, seconds)


@dataclass(slots=True)
class Sandbox:
    """The parent process from which every submission's child is forked; make it once, use it from many threads."""

    limits: dict[str, int] = field(default_factory=lambda: dict(LIMITS))
    process: subprocess.Popen[bytes] | None = None
    control: socket.socket | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def worker(self) -> Generator[Worker]:
        """Fork a child in a fresh folder; at the end kill it and what it started, and remove the folder."""
        with tempfile.TemporaryDirectory(prefix="ftgrade-", ignore_cleanup_errors=True) as folder:
            ours, theirs = socket.socketpair()
            with theirs:
                request = {"op": "fork", "folder": folder, "limits": self.limits}
                pid = int(self.tell(request, theirs.fileno())["pid"])
            try:
                yield Worker(pid, ours, folder)
            finally:
                ours.close()
                self.tell({"op": "end", "pid": pid})

    def tell(self, request: dict[str, Any], descriptor: int | None = None) -> dict[str, Any]:
        """Ask the parent process, which runs no student code, and return what it says."""
        with self.lock:
            control = self.control or self.start()
            try:
                descriptors = [] if descriptor is None else [descriptor]
                socket.send_fds(control, [json.dumps(request).encode()], descriptors)
                return read_control(control)
            except (OSError, ValueError) as error:
                self.close()
                raise OurFault(f"the sandbox's parent process stopped answering: {error}") from error

    def start(self) -> socket.socket:
        """Start the parent process and wait until it has imported what it hands on."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603
                [
                    sys.executable,
                    "-I",
                    "-S",
                    "-c",
                    BOOT,
                    sysconfig.get_path("purelib"),
                    str(WORKER),
                    str(theirs.fileno()),
                ],
                pass_fds=[theirs.fileno()],
                env=clean_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        ours.settimeout(START_SECONDS)
        self.control = ours
        try:
            read_control(ours)
        except OSError as error:
            self.close()
            raise OurFault("the sandbox's parent process did not start: can this Python import torch?") from error
        return ours

    def close(self) -> None:
        """End the parent process; children that still run are killed with their workers' contexts."""
        if self.control is not None:
            self.control.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.control = self.process = None


def read_control(control: socket.socket) -> dict[str, Any]:
    data = control.recv(65536)
    if not data:
        raise ConnectionResetError("it closed the control socket")
    return json.loads(data)


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
