"""The process that judges are forked from, from the grader's side; nothing here needs torch, which it imports."""

import os
import shutil
import socket
import sys
import sysconfig
import tempfile
from dataclasses import dataclass

from ftgrade.errors import OurFault
from ftgrade.sandbox import jail, nursery
from ftgrade.sandbox.backends import Backend, Program, prison_of, sandbox_environment, told, unwrapped, worker_file


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
