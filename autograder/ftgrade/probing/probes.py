"""Try to escape from a sandbox, and check from outside what the attempt achieved."""

import contextlib
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftgrade.errors import OurFault
from ftgrade.sandbox.process import LIMITS, Sandbox, Worker
from ftgrade.sandbox.worker import FrameError

SECONDS = 10.0
TOKEN = "FTGRADE_PROBE"  # noqa: S105


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Whether the sandbox stopped one attempt, and what was observed."""

    probe: str
    holds: bool
    words: str


@dataclass(frozen=True, slots=True)
class Probe:
    """One kind of escape attempt. If it is `demanded`, grading for marks requires that the sandbox stops it."""

    name: str
    attempts: str
    attempt: Callable[[Sandbox], tuple[bool, str]]
    demanded: bool = True


def run_fresh(sandbox: Sandbox, source: str, **limits: int) -> str:
    """Run a cell in a new worker with changed limits; return what it printed, or `ended` if the worker died."""
    before, sandbox.limits = sandbox.limits, sandbox.limits | limits
    try:
        with sandbox.worker() as worker:
            return run_in(worker, source)
    finally:
        sandbox.limits = before


def run_in(worker: Worker, source: str) -> str:
    """Run a cell; return what it printed and the classes of its error, or `ended` if the worker died."""
    try:
        reply: Any = worker.run(source, SECONDS)
    except (EOFError, FrameError, TimeoutError, BrokenPipeError):
        return "ended"
    return str(reply.get("printed", "")) + str(reply.get("error", {}).get("names", "") if "error" in reply else "")


@contextlib.contextmanager
def shared_folder() -> Generator[Path]:
    """Yield a temporary folder that every user of this machine may write to."""
    with tempfile.TemporaryDirectory(prefix="ftgrade-probe-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def reads_a_file(sandbox: Sandbox) -> tuple[bool, str]:
    canary = secrets.token_hex(8)
    with shared_folder() as place:
        (place / "canary").write_text(canary)
        (place / "canary").chmod(0o644)
        source = f"for path in ({str(place / 'canary')!r}, '/etc/passwd', '/proc/self/environ', '/proc/1/environ'):\n"
        source += "    try: print(open(path).read())\n    except OSError: pass\n"
        found = run_fresh(sandbox, source)
    if canary in found or "root:" in found or "PATH=" in found:
        return False, "a file of this machine was read"
    return True, "a readable file elsewhere, the list of users and /proc stay closed"


def reads_another_submission(sandbox: Sandbox) -> tuple[bool, str]:
    canary = secrets.token_hex(8)
    with sandbox.worker() as other, sandbox.worker() as spy:
        where = run_in(other, f"import os\nopen('answer', 'w').write({canary!r})\nprint(os.getcwd())").strip()
        # Both folders may have the same path, each in a file system of its own; then the spy's has no `answer`.
        source = (
            "import glob, os\nabove = os.path.dirname(os.getcwd())\n"
            f"for top in ({where!r}, *glob.glob('/tmp/ftgrade-*'), above if len(above) > 1 else '.'):\n"
            "    for folder, _, files in os.walk(top):\n        for name in files:\n"
            "            try: print(open(os.path.join(folder, name), errors='replace').read()[:99])\n"
            "            except OSError: pass\n"
        )
        source += f"try: print(open('/proc/{other.pid}/root{where}/answer').read())\nexcept OSError: pass\n"
        found = run_in(spy, source)
    return (False, "a neighbour's file was read") if canary in found else (True, "a neighbour's files stay closed")


def reaches_the_network(sandbox: Sandbox) -> tuple[bool, str]:
    name = f"\0ftgrade-{secrets.token_hex(8)}"
    with (
        socket.socket() as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        contextlib.ExitStack() as more,
    ):
        for one in (tcp, udp):
            one.bind(("127.0.0.1", 0))
            one.settimeout(0.01)
        tcp.listen()
        listening = [tcp]
        if os.uname().sysname == "Linux":
            unix = more.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(name)
            unix.listen()
            unix.settimeout(0.01)
            listening.append(unix)
        run_fresh(
            sandbox,
            "import socket\n"
            "def go(f):\n    try: f()\n    except OSError: pass\n"
            f"go(lambda: socket.create_connection(('127.0.0.1', {tcp.getsockname()[1]}), 1))\n"
            "go(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
            f".sendto(b'x', ('127.0.0.1', {udp.getsockname()[1]})))\n"
            f"go(lambda: socket.socket(socket.AF_UNIX).connect({name!r}))\n",
        )
        for one in listening:
            with contextlib.suppress(TimeoutError):
                one.accept()[0].close()
                return False, "a connection arrived"
        with contextlib.suppress(TimeoutError):
            udp.recv(1)
            return False, "a packet arrived"
    return True, "no TCP, UDP or local socket gets through"


def lacks_libraries(sandbox: Sandbox) -> tuple[bool, str]:
    """Try modules that the sandbox hasn't imported beforehand: honest work needs them."""
    found = run_fresh(sandbox, "import colorsys, sqlite3, xml.dom.minidom\nprint('READ', colorsys.__name__)")
    return ("READ colorsys" in found), ("libraries are there" if "READ colorsys" in found else f"it says {found[:99]}")


def writes_outside(sandbox: Sandbox) -> tuple[bool, str]:
    token = secrets.token_hex(8)
    with shared_folder() as place:
        places = [str(place), tempfile.gettempdir(), "/var/tmp", "/dev/shm", os.path.dirname(os.__file__), "/"]  # noqa: S108
        run_fresh(
            sandbox,
            f"for place in {places!r}:\n    try: open(f'{{place}}/{token}', 'w').close()\n    except OSError: pass\n",
        )
        left = [one for one in places if Path(one, token).exists()]
        for one in left:
            Path(one, token).unlink()
    return (False, f"a file was left in {left[0]}") if left else (True, "nothing was left in open folders")


def outlives_its_worker(sandbox: Sandbox) -> tuple[bool, str]:
    name = secrets.token_hex(6)
    daemon = (
        "import os, time, signal, ctypes\n"
        "try:\n    first = os.fork()\nexcept OSError:\n    first = -1\n"
        "if first == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"        ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0)\n        time.sleep(30)\n    os._exit(0)\n"
        "time.sleep(0.2 if first > 0 else 0)\n"
    )
    run_fresh(sandbox, daemon)
    ends = time.monotonic() + 2.0
    while (left := processes_named(name)) and time.monotonic() < ends:
        time.sleep(0.02)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, 9)
    return (False, "a daemon went on after its worker") if left else (True, "no daemon goes on")


def processes_named(name: str) -> list[int]:
    """Return the PIDs of the processes with this name."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if entry.read_text().strip() == name:
                found.append(int(entry.parent.name))
    return found


def forks_without_end(sandbox: Sandbox) -> tuple[bool, str]:
    source = (
        "import os, time\nmade = []\n"
        "try:\n    for _ in range(200):\n        pid = os.fork()\n"
        "        if pid == 0:\n            time.sleep(30)\n            os._exit(0)\n        made.append(pid)\n"
        "except OSError:\n    pass\nprint('made', len(made))\nfor pid in made: os.kill(pid, 9)\n"
    )
    words = run_fresh(sandbox, source, RLIMIT_NPROC=16)
    count = int(words.split()[1]) if words.startswith("made") else 200
    return count < 16, f"{count} of 200 processes were made, of a limit of 16"


def eats_memory(sandbox: Sandbox) -> tuple[bool, str]:
    source = (
        "import mmap\nhad = []\n"
        "try:\n    for _ in range(32): had.append(mmap.mmap(-1, 2**28))\nexcept (MemoryError, OSError): pass\n"
        "print('had', len(had))\n"
    )
    words = run_fresh(sandbox, source, RLIMIT_AS=4 * 2**30)
    had = int(words.split()[1]) / 4 if words.startswith("had") else 0
    return had < 4, f"{had:g} of 8 GiB were had, of a limit of 4"


def makes_forbidden_calls(sandbox: Sandbox) -> tuple[bool, str]:
    source = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "for name, call in {'unshare': (272, 0x10000000), 'ptrace': (101, 0), 'keyctl': (250, 0, -3, 1),\n"
        "        'io_uring_setup': (425, 1, ctypes.create_string_buffer(120)), 'memfd_create': (319, b'x', 0),\n"
        "        'userfaultfd': (323, 0x80001), 'personality': (135, 0x0040000)}.items():\n"
        "    number, *rest = call\n"
        "    if libc.syscall(number, *rest) >= 0: print(name)\n"
        "import socket\ntry:\n    socket.socket(40, socket.SOCK_STREAM); print('vsock')\nexcept OSError: pass\n"
    )
    done = run_fresh(sandbox, source).split()
    return (False, f"allowed: {', '.join(done)}") if done else (True, "namespaces, ptrace, keyrings, io_uring, vsock …")


def reaches_the_grader(sandbox: Sandbox) -> tuple[bool, str]:
    token = secrets.token_hex(8)
    os.environ[TOKEN] = token
    try:
        source = (
            "import os\nprint(os.environ)\n"
            f"for pid in ({os.getpid()}, os.getppid()):\n"
            "    try: print(open(f'/proc/{pid}/environ').read(), open(f'/proc/{pid}/maps').read()[:9])\n"
            "    except OSError: pass\n"
            f"try:\n    os.kill({os.getpid()}, 0)\n    print('signalled')\nexcept OSError: pass\n"
        )
        found = run_fresh(sandbox, source)
    finally:
        del os.environ[TOKEN]
    if token in found:
        return False, "the grader's environment was read"
    return "signalled" not in found, "the grader can be signalled" if "signalled" in found else "no trace of the grader"


def fills_the_disk(sandbox: Sandbox) -> tuple[bool, str]:
    source = (
        "done = 0\ntry:\n    for number in range(40):\n        with open(f'f{number}', 'wb') as file:\n"
        "            for _ in range(8): done += file.write(bytes(2**20))\nexcept OSError: pass\nprint('wrote', done)\n"
    )
    words = run_fresh(sandbox, source)
    wrote = int(words.split()[1]) if words.startswith("wrote") else 0
    return wrote <= 2 * LIMITS["megabytes"] * 2**20, f"{wrote / 2**20:.0f} of 320 MiB were written"


def hogs_the_processor(sandbox: Sandbox) -> tuple[bool, str]:
    start = time.monotonic()
    words = run_fresh(sandbox, "while True: pass", RLIMIT_CPU=1)
    seconds = time.monotonic() - start
    return words == "ended" and seconds < SECONDS / 2, f"ended after {seconds:.1f} s of a limit of 1"


PROBES = (
    Probe("files", "reads a file of this machine", reads_a_file),
    Probe("neighbours", "reads another submission", reads_another_submission),
    Probe("libraries", "imports what honest work needs", lacks_libraries),
    Probe("network", "reaches a socket", reaches_the_network),
    Probe("writes", "writes outside its folder", writes_outside),
    Probe("daemon", "outlives its worker", outlives_its_worker),
    Probe("forks", "forks 200 times", forks_without_end),
    Probe("memory", "takes more memory than it may", eats_memory),
    Probe("calls", "makes system calls that no answer needs", makes_forbidden_calls),
    Probe("grader", "reaches the grader's process", reaches_the_grader),
    Probe("disk", "fills the disk", fills_the_disk, demanded=False),
    Probe("processor", "computes for ever", hogs_the_processor, demanded=False),
)


def run_probes(sandbox: Sandbox, *, all_of_them: bool = True) -> list[ProbeResult]:
    """Return the result of every probe of a sandbox; without `all_of_them` only of the demanded ones."""
    found: list[ProbeResult] = []
    for probe in PROBES:
        if probe.demanded or all_of_them:
            try:
                holds, words = probe.attempt(sandbox)
            except OurFault as fault:
                holds, words = False, str(fault)
            found.append(ProbeResult(probe.name, holds, words))
    return found


__all__ = ["PROBES", "Probe", "ProbeResult", "run_probes"]
