"""The backends of the sandbox, strongest first: what each needs of the machine, and how its process is started."""

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
from pathlib import Path
from typing import IO, Any

from ftgrade.sandbox import jail
from ftgrade.sandbox.worker import shell_file

HIDDEN = ("ftgrade", "ftmath", "nbgrader")
"""Packages whose source reveals answers; they are hidden where they are installed beside torch."""

Command = Sequence[str]


def unwrapped(command: Command, base: str) -> Command:
    """Return the command unchanged: the parent confines itself."""
    return command


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to confine a process: the layers that the parent sets up itself, and a program that wraps its command.

    `lacks` returns why the backend can't be used on this machine, or an empty text. `base` is the folder for children's
    files, if the backend fixes one. `tested` says whether this project's tests run the backend.
    """

    name: str
    about: str
    layers: tuple[str, ...]
    lacks: Callable[[], str]
    wrap: Callable[[Command, str], Command] = unwrapped
    base: str = ""
    tested: bool = True


def readable() -> list[str]:
    """Return the paths that student code may read: the standard library, the packages, the shared libraries."""
    paths = [
        sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), f"{sys.base_prefix}/lib",
        f"{sys.base_prefix}/lib64", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
        "/etc/localtime",
    ]  # fmt: skip
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]


def site_folders() -> list[Path]:
    """Return the folders of installed packages that `readable` includes."""
    own = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    shared = Path(sys.base_prefix, "lib").glob("python3*/site-packages")
    return list(dict.fromkeys([*own, *shared]))


def hidden() -> list[str]:
    """Return the folders of the packages in HIDDEN that are installed."""
    return [str(folder / name) for folder in site_folders() for name in HIDDEN if (folder / name).is_dir()]


def readable_one_by_one() -> list[str]:
    """Return the readable paths without the hidden ones, for Landlock, which can't hide a folder below a readable one.

    A folder that contains a hidden one is replaced by its other entries, and by itself with a slash: it may be listed.
    """
    covered = {Path(path).parent for path in hidden()}
    if not covered:
        return readable()
    found: list[str] = []
    waiting = [Path(path) for path in readable()]
    while waiting:
        path = waiting.pop()
        if path not in covered and not any(path in folder.parents for folder in covered):
            found.append(str(path))
            continue
        found.append(f"{path}/")  # an import lists the folder
        waiting += [entry for entry in path.iterdir() if not (path in covered and entry.name in HIDDEN)]
    return found


def lacks_linux() -> str:
    if sys.platform != "linux":
        return "it needs Linux"
    return "" if os.uname().machine in jail.MACHINES else f"its filter isn't written for {os.uname().machine}"


def lacks_landlock() -> str:
    return lacks_linux() or ("" if jail.landlock_version() else "this kernel has no Landlock")


def lacks_program(name: str, more: str) -> Callable[[], str]:
    return lambda: lacks_landlock() if shutil.which(name) else f"{name} isn't installed ({more})"


def bubblewrapped(command: Command, base: str) -> Command:
    """Return the command wrapped in bubblewrap: new namespaces, a root with the libraries alone, a folder in memory."""
    shown = [part for path in readable() for part in ("--ro-bind", path, path)]
    veiled = [part for path in hidden() for part in ("--tmpfs", path)]
    ours = [
        part
        for path in (command[0], str(Path(jail.__file__)), worker_file(), shell_file())
        for part in ("--ro-bind", path, path)
    ]
    return [
        "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", *shown, *veiled, *ours,
        *interpreter_links(command[0]), "--dev", "/dev", "--ro-bind-try", "/proc/cpuinfo", "/proc/cpuinfo",
        "--ro-bind-try", "/sys/devices/system/cpu", "/sys/devices/system/cpu",
        "--size", str(256 * 2**20), "--tmpfs", base, "--chdir", base, "--", *command,
    ]  # fmt: skip


def interpreter_links(program: str) -> list[str]:
    """Return bubblewrap's options for the interpreter that a virtual environment links to, and for its `pyvenv.cfg`."""
    real, settings = os.path.realpath(program), Path(program).parents[1] / "pyvenv.cfg"
    shown = ["--ro-bind", real, real]
    return [*shown, "--ro-bind", str(settings), str(settings)] if settings.is_file() else shown


def worker_file() -> str:
    return str(Path(__file__).parent / "worker.py")


def in_podman(command: Command, base: str) -> Command:
    """Return the command wrapped in a rootless container without network or capabilities. Untested."""
    image = os.environ.get("FTGRADE_PODMAN_IMAGE", "localhost/ftgrade-worker")
    shown = [
        part
        for path in (*readable(), worker_file(), shell_file(), jail.__file__)
        for part in ("--volume", f"{path}:{path}:ro")
    ]
    return [
        "podman", "run", "--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=all",
        "--security-opt=no-new-privileges", "--pids-limit=256", "--memory=8g", "--preserve-fds=1",
        "--tmpfs", f"{base}:size=256m", *shown, image, *command,
    ]  # fmt: skip


def in_seatbelt(command: Command, base: str) -> Command:
    """Return the command wrapped in macOS's sandbox-exec. Untested."""
    reads = " ".join(f'(subpath "{path}")' for path in (*readable(), "/System", "/usr/lib", "/dev"))
    ours = f'(literal "{worker_file()}") (literal "{shell_file()}")'
    profile = (
        "(version 1)(deny default)(allow process-exec)(deny process-fork)(deny network*)(allow sysctl-read)"
        f'(allow mach-lookup)(allow file-read* {reads} (subpath "{base}") {ours})'
        f'(allow file-write* (subpath "{base}"))(allow signal (target self))'
    )
    return ["sandbox-exec", "-p", profile, *command]


BACKENDS = {
    one.name: one
    for one in (
        Backend(
            "namespaces", "own namespaces, Landlock and seccomp", ("namespaces", "landlock", "seccomp"), lacks_landlock
        ),
        Backend(
            "bubblewrap", "bubblewrap, Landlock and seccomp", ("landlock", "seccomp"),
            lacks_program("bwrap", "the distribution's package `bubblewrap`; PyPI's of that name is another thing"),
            bubblewrapped, base=jail.HOME,
        ),
        Backend("landlock", "Landlock and seccomp", ("landlock", "seccomp"), lacks_landlock),
        Backend(
            "podman", "a rootless container", ("landlock", "seccomp"), lacks_program("podman", "rootless podman"),
            in_podman, base=jail.HOME, tested=False,
        ),
        Backend(
            "seatbelt", "macOS's sandbox-exec", (),
            lambda: "" if sys.platform == "darwin" else "it needs macOS", in_seatbelt, tested=False,
        ),
        Backend("none", "a process of its own with limits, nothing more", (), lambda: ""),
    )
}  # fmt: skip


# ----------------------------------------------------------------------------------------------- confined processes

START_SECONDS = 120.0


class Program:
    """A program of ours that runs as a process, and the socket over which it gets requests."""

    def __init__(self, command: Callable[[int], Sequence[str]], base: str) -> None:
        """Start `command(n)`, where n is the descriptor of the program's end of the socket. Don't wait for it."""
        self.control, theirs = socket.socketpair()
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603
                list(command(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                env=clean_environment(base),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.stderr,
                start_new_session=True,  # Ctrl-C reaches the grader alone
                umask=0o022,  # a child must be able to enter the folders of its new root
            )

    def wait(self) -> None:
        """Wait until the program has done its imports. Raises OSError with the last line of its stderr."""
        self.control.settimeout(START_SECONDS)
        try:
            read_control(self.control)
        except OSError as error:
            raise OSError(self.last_error_line() or str(error)) from error

    def last_error_line(self) -> str:
        """Return the last line of stderr, which the program shares with the processes that it forks."""
        self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - 4_000))
        lines = self.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def close(self) -> None:
        self.control.close()
        self.process.kill()
        self.process.wait()
        self.stderr.close()


def remove_folder(path: str) -> None:
    """Remove a folder that children wrote to; one that is too deep for Python's own way is left to `rm`."""
    try:
        shutil.rmtree(path, ignore_errors=True)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", path], check=False, stderr=subprocess.DEVNULL)  # noqa: S603, S607


def prison_arguments(backend: Backend, base: str) -> dict[str, Any]:
    """Return the arguments of `jail.Prison` for a backend."""
    shown = readable() if "namespaces" in backend.layers else readable_one_by_one()
    return {"layers": list(backend.layers), "base": base, "readable": shown, "hidden": hidden()}


def exchange(
    control: socket.socket, request: dict[str, Any], descriptors: list[int]
) -> tuple[dict[str, Any], int | None]:
    """Send a request and return the reply, with a descriptor if one came with it. Raises OSError or ValueError."""
    socket.send_fds(control, [json.dumps(request).encode()], descriptors)
    return read_control(control)


def read_control(control: socket.socket) -> tuple[dict[str, Any], int | None]:
    data, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
    if not data:
        raise ConnectionResetError("the process closed the control socket")
    return json.loads(data), descriptors[0] if descriptors else None


def clean_environment(base: str) -> dict[str, str]:
    """Return the environment of a program: nothing of the grader's own, and one thread for numerical libraries."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": base,
    }
