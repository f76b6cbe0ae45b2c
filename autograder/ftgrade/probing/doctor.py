"""Which sandbox holds on this machine: found by real attempts, kept until the machine or the walls change."""

import contextlib
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ftgrade.errors import CourseFault, OurFault
from ftgrade.probing import probes
from ftgrade.probing.probes import PROBES, ProbeResult, run_probes
from ftgrade.sandbox import backends, forking, jail, nursery, process
from ftgrade.sandbox.backends import BACKENDS, Backend
from ftgrade.sandbox.process import Sandbox

UNSANDBOXED = "none (allowed by --allow-unsandboxed)"
ALLOW = "FTGRADE_ALLOW_UNSANDBOXED"
"""Set in the environment, it does for nbgrader's own commands what `--allow-unsandboxed` does for ours."""


@dataclass(frozen=True, slots=True)
class BackendResult:
    """What became of one backend: why it can't be used, or what was tried on it."""

    backend: Backend
    lacks: str
    held: tuple[ProbeResult, ...]

    @property
    def holds(self) -> bool:
        """Say whether everything holds that grading for marks demands."""
        demanded = {probe.name for probe in PROBES if probe.demanded}
        return not self.lacks and demanded <= {one.probe for one in self.held if one.holds}

    @property
    def fails(self) -> list[str]:
        return [f"{one.probe}: {one.words}" for one in self.held if not one.holds]


def examine(backend: Backend, *, all_of_them: bool = True) -> BackendResult:
    """Return what holds of a backend on this machine."""
    lacks = backend.lacks()
    if lacks:
        return BackendResult(backend, lacks, ())
    sandbox = Sandbox(backend)
    try:
        return BackendResult(backend, "", tuple(run_probes(sandbox, all_of_them=all_of_them)))
    except OurFault as fault:
        return BackendResult(backend, str(fault), ())
    finally:
        sandbox.close()


def examine_all() -> Iterator[BackendResult]:
    """Yield what holds of every backend, strongest first."""
    for backend in BACKENDS.values():
        yield examine(backend)


def cache_file() -> Path:
    """Return where this user keeps what was found on this machine: a new course needn't try to break out again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftgrade" / "doctor.json"


def strongest(kept: Path, allow_unsandboxed: bool = False) -> Backend:
    """Return the strongest backend that holds; what was found is kept in a file until machine or walls change.

    Raises CourseFault if none holds, unless working without one is allowed: then that one is returned.
    """
    known = read_cache(kept)
    if known is not None:
        return known
    found: list[BackendResult] = []
    for backend in BACKENDS.values():
        if backend.name == "none":
            break
        found.append(examine(backend, all_of_them=False))
        if found[-1].holds:
            write_cache(kept, found[-1])
            return backend
    if allow_unsandboxed or os.environ.get(ALLOW):
        return BACKENDS["none"]
    raise CourseFault(
        "no sandbox holds on this machine, and grading for marks runs strangers' code: "
        + "; ".join(f"{one.backend.name}: {one.lacks or ', '.join(one.fails)}" for one in found)
        + ". `ftgrade doctor` shows all of it. `--allow-unsandboxed` grades without one and says so on every page."
    )


def machine_digest() -> str:
    """Return a name for this machine since it started, this Python, and the walls as they're written."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    code = b"".join(
        Path(str(module.__file__)).read_bytes() for module in (backends, forking, jail, nursery, probes, process)
    )
    parts = [
        boot.read_text() if boot.is_file() else platform.node(), platform.release(), sys.executable, str(os.getuid()),
        hashlib.sha256(code).hexdigest(),
    ]  # fmt: skip
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_cache(kept: Path) -> Backend | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = json.loads(kept.read_text("utf-8"))
        if data["machine"] == machine_digest() and data["backend"] != "none":
            return BACKENDS[data["backend"]]
    return None


def write_cache(kept: Path, found: BackendResult) -> None:
    record = {"machine": machine_digest(), "backend": found.backend.name, "held": [asdict(one) for one in found.held]}
    with contextlib.suppress(OSError):  # it's found again next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        partial.replace(kept)
