"""The nursery: a process that imports torch once. Judges and the parents of their sandboxes are forked from it.

Theory of operation. The grader starts this program once, in a clean environment. It imports the libraries that
`worker.py` shares with its children and then waits for requests. For each judge there are two forks. The first fork
becomes the judge. Before it imports anything of the engine, it forks the parent of its own sandbox, which confines
itself. So student code never runs in memory that held the engine, torch is imported once, and a judge and its sandbox
end together, since each sees when the other closes the socket between them. A process that loads a problem's file, and
judges nothing, is forked without a sandbox.

This file imports nothing of ours; each request says which module the judge runs, and the path to import it from.
"""

import contextlib
import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
Code = dict[str, Any]  # a module's names, as runpy returns them


def main(site: str, prefix: str, worker: str, jail: str, control: str) -> None:
    sys.prefix = sys.exec_prefix = prefix  # without `site`, a virtual environment's prefix isn't known
    sys.path.append(site)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some services start programs, children have no status
    ours = socket.socket(fileno=int(control))
    code = runpy.run_path(worker, run_name="worker")
    jail_code = runpy.run_path(jail, run_name="jail")
    code["preload"]()
    on_linux(PR_SET_CHILD_SUBREAPER, 1)  # elsewhere init reaps orphans
    ours.sendall(b'{"ready": true}')
    ended: dict[int, int] = {}
    for request, descriptors in code["requests"](ours):
        if request["op"] == "end":
            reply = {"status": kill_judge(request["pid"], ended)}
        else:
            pid = os.fork()
            if pid == 0:
                become_judge(ours, socket.socket(fileno=descriptors[0]), request, code, jail_code)
            os.close(descriptors[0])
            ended.pop(pid, None)  # the PID may be reused
            reply = {"pid": pid}
        reap_orphans(ended)
        ours.sendall(json.dumps(reply).encode())


def become_judge(
    grader: socket.socket, channel: socket.socket, request: dict[str, Any], code: Code, jail_code: Code
) -> None:
    """Fork the sandbox's parent if the request asks for one, then run the requested module; never return."""
    status = 1
    try:
        grader.close()
        on_linux(PR_SET_PDEATHSIG, signal.SIGKILL)
        control = None
        if request["prison"] is not None:
            control, theirs = socket.socketpair()
            if os.fork() == 0:
                channel.close()
                control.close()
                code["run_parent"](theirs, jail_code["Prison"](**request["prison"]))
                os._exit(0)
            theirs.close()
        sys.path[:0] = request["path"]
        os.environ.update(request["environment"])
        importlib.import_module(request["module"]).serve(channel, control)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(status)


def on_linux(option: int, value: int) -> None:
    """Set a `prctl` option of this process, on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def kill_judge(pid: int, ended: dict[int, int]) -> int:
    """Kill a judge unless it has ended; return its exit status, or minus the signal that ended it."""
    if pid not in ended:
        os.kill(pid, signal.SIGKILL)
        ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return ended.pop(pid)


def reap_orphans(ended: dict[int, int]) -> None:
    """Wait for every child that has ended: note the status of judges, and reap processes that they left behind."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
