"""The grader's end of the nursery, the process that judges are forked from. Nothing here imports torch."""

import os
import socket
import sys
import sysconfig
import tempfile
from dataclasses import dataclass

from ftgrade.errors import OurFault
from ftgrade.sandbox import jail, nursery
from ftgrade.sandbox.backends import Backend, Program, exchange, prison_arguments, remove_folder, unwrapped, worker_file


@dataclass(frozen=True, slots=True)
class Forked:
    """A process that the nursery forked: its PID and our end of the socket to it."""

    pid: int
    channel: socket.socket


class Nursery:
    """The process that judges are forked from, each with its sandbox's parent if the backend needs no wrapper.

    `broken` says that the process no longer answers.
    """

    def __init__(self) -> None:
        """Start in the background; the first fork blocks until torch is imported."""
        self.base = tempfile.mkdtemp(prefix="ftgrade-")
        self.ready = self.broken = False
        command = sys.executable, "-I", "-S", str(nursery.__file__), sysconfig.get_path("purelib"), sys.prefix
        self.program = Program(lambda number: [*command, worker_file(), str(jail.__file__), str(number)], self.base)

    def fork(self, module: str, backend: Backend | None) -> Forked:
        """Fork a process that runs the module's function `serve(channel, control)`. Raises OurFault.

        `control` is the socket to the parent of a sandbox, if the backend is one that needs no wrapper.
        """
        ours, theirs = socket.socketpair()
        prison = None
        if backend is not None and backend.wrap is unwrapped:
            prison = prison_arguments(backend, tempfile.mkdtemp(dir=self.base))
        request = {
            "op": "fork",
            "module": module,
            "path": [path for path in sys.path if path],
            "environment": {name: value for name, value in os.environ.items() if name.startswith("FTGRADE_")},
            "prison": prison,
        }
        with theirs:
            try:
                if not self.ready:
                    self.program.wait()
                    self.ready = True
                reply, _ = exchange(self.program.control, request, [theirs.fileno()])
            except (OSError, ValueError) as error:
                ours.close()
                self.broken = True
                raise OurFault(f"a judge can't be started: {error}") from error
        return Forked(int(reply["pid"]), ours)

    def end(self, forked: Forked) -> int:
        """Kill a process unless it has ended; return its exit status, or minus the signal. Raises OurFault."""
        forked.channel.close()
        try:
            return int(exchange(self.program.control, {"op": "end", "pid": forked.pid}, [])[0]["status"])
        except (OSError, ValueError) as error:
            self.broken = True
            raise OurFault(f"a judge can't be ended: {error}") from error

    def has_ended(self) -> bool:
        """Say whether the process is gone, and its judges with it."""
        return self.broken or self.program.process.poll() is not None

    def close(self) -> None:
        """End the nursery; its judges end when their sockets close."""
        self.program.close()
        remove_folder(self.base)
