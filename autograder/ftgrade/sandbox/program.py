"""Programs of ours in processes of their own; nothing here needs torch, which one of them imports meanwhile."""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from ftgrade.errors import OurFault
from ftgrade.sandbox import jail, nursery
from ftgrade.sandbox.backends import Backend, hidden, readable, readable_one_by_one, unwrapped, worker_file

START_SECONDS = 120.0


class Program:
    """A program of ours in a process of its own, and the socket over which it's told what to do."""

    def __init__(self, words: Callable[[int], Sequence[str]], environment: dict[str, str]) -> None:
        """Start it, with the words for the number of its end of the socket; it isn't waited for."""
        self.control, theirs = socket.socketpair()
        self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603
                list(words(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.said,
                start_new_session=True,  # Ctrl-C is the grader's alone
            )

    def wait(self) -> None:
        """Wait until it has imported what it hands on. Raises OSError, with its last words."""
        self.control.settimeout(START_SECONDS)
        try:
            read_control(self.control)
        except OSError as error:
            raise OSError(self.last_words() or str(error)) from error

    def last_words(self) -> str:
        """Return the last line that it, or a process forked from it, wrote to its stderr."""
        self.said.seek(max(0, self.said.seek(0, os.SEEK_END) - 4_000))
        lines = self.said.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def close(self) -> None:
        self.control.close()
        self.process.kill()
        self.process.wait()
        self.said.close()


@dataclass(frozen=True, slots=True)
class Forked:
    """A process that the nursery forked: its number and our end of the socket to it."""

    pid: int
    channel: socket.socket


class Nursery:
    """The process from which judges are forked, each with the parent of its sandbox where the backend allows that."""

    def __init__(self) -> None:
        """Start it; the first fork waits until it has imported torch. `broken` says that it no longer answers."""
        self.base = tempfile.mkdtemp(prefix="ftgrade-")
        self.ready = self.broken = False
        words = sys.executable, "-I", "-S", str(nursery.__file__), sysconfig.get_path("purelib"), worker_file()
        self.program = Program(lambda number: [*words, str(jail.__file__), str(number)], sandbox_environment(self.base))

    def fork(self, module: str, backend: Backend) -> Forked:
        """Fork a process that runs `serve(channel, control)` of a module of ours. Raises OurFault."""
        ours, theirs = socket.socketpair()
        wrapped = backend.wrap is not unwrapped
        request = {
            "op": "fork",
            "module": module,
            "path": [path for path in sys.path if path],
            "environment": {name: value for name, value in os.environ.items() if name.startswith("FTGRADE_")},
            "prison": None if wrapped else prison_of(backend, tempfile.mkdtemp(dir=self.base)),
        }
        with theirs:
            try:
                if not self.ready:
                    self.program.wait()
                    self.ready = True
                reply, _ = told(self.program.control, request, [theirs.fileno()])
            except (OSError, ValueError) as error:
                ours.close()
                self.broken = True
                raise OurFault(f"a judge can't be started: {error}") from error
        return Forked(int(reply["pid"]), ours)

    def end(self, forked: Forked) -> int:
        """Kill a process unless it has ended; return how it ended: a negative signal, or its exit status."""
        forked.channel.close()
        try:
            return int(told(self.program.control, {"op": "end", "pid": forked.pid}, [])[0]["status"])
        except (OSError, ValueError) as error:
            self.broken = True
            raise OurFault(f"a judge can't be ended: {error}") from error

    def last_words(self) -> str:
        """Return the last line that a forked process wrote."""
        return self.program.last_words()

    def close(self) -> None:
        """End it; what it forked ends when the sockets close."""
        self.program.close()
        shutil.rmtree(self.base, ignore_errors=True)


def prison_of(backend: Backend, base: str) -> dict[str, Any]:
    """Return what `jail.Prison` is made with for a backend: its layers, and what student code may read."""
    shown = readable() if "namespaces" in backend.layers else readable_one_by_one()
    return {"layers": list(backend.layers), "base": base, "readable": shown, "hidden": hidden()}


def told(control: socket.socket, request: dict[str, Any], descriptors: list[int]) -> tuple[dict[str, Any], int | None]:
    """Send a request and return the reply, with a descriptor if one came along. Raises OSError or ValueError."""
    socket.send_fds(control, [json.dumps(request).encode()], descriptors)
    return read_control(control)


def read_control(control: socket.socket) -> tuple[dict[str, Any], int | None]:
    data, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
    if not data:
        raise ConnectionResetError("it closed the control socket")
    return json.loads(data), descriptors[0] if descriptors else None


def sandbox_environment(base: str) -> dict[str, str]:
    """Return what the worker may know of the machine: where programs are, and that one thread is enough."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": base,
    }
