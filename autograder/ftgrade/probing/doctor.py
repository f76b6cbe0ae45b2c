"""Find the strongest sandbox that holds on this machine; the result is cached until the machine or the code changes."""

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
"""The environment variable that does for nbgrader's commands what `--allow-unsandboxed` does for ours."""


@dataclass(frozen=True, slots=True)
class BackendResult:
    """The examination of one backend: why it can't be used, or the results of its probes."""

    backend: Backend
    lacks: str
    held: tuple[ProbeResult, ...]

    @property
    def holds(self) -> bool:
        """Say whether all demanded probes were stopped."""
        demanded = {probe.name for probe in PROBES if probe.demanded}
        return not self.lacks and demanded <= {one.probe for one in self.held if one.holds}

    @property
    def fails(self) -> list[str]:
        return [f"{one.probe}: {one.words}" for one in self.held if not one.holds]


def examine(backend: Backend, *, all_of_them: bool = True) -> BackendResult:
    """Run the probes on a backend on this machine."""
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
    """Yield the examination of every backend, strongest first."""
    for backend in BACKENDS.values():
        yield examine(backend)


def cache_file() -> Path:
    """Return the path of this user's cache of the result, which all courses on this machine share."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftgrade" / "doctor.json"


def strongest(cache: Path, allow_unsandboxed: bool = False) -> Backend:
    """Return the strongest backend that holds, from the file `cache` if that is still valid.

    If none holds, return the backend `none` if that is allowed, else raise CourseFault.
    """
    known = read_cache(cache)
    if known is not None:
        return known
    found: list[BackendResult] = []
    for backend in BACKENDS.values():
        if backend.name == "none":
            break
        found.append(examine(backend, all_of_them=False))
        if found[-1].holds:
            write_cache(cache, found[-1])
            return backend
    if allow_unsandboxed or os.environ.get(ALLOW):
        return BACKENDS["none"]
    raise CourseFault(
        "no sandbox holds on this machine, and grading for marks runs strangers' code: "
        + "; ".join(f"{one.backend.name}: {one.lacks or ', '.join(one.fails)}" for one in found)
        + ". `ftgrade doctor` shows all of it. `--allow-unsandboxed` grades without one and says so on every page."
    )


def machine_digest() -> str:
    """Return a digest of this boot of the machine, this Python, the user and the sandbox's code."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    code = b"".join(
        Path(str(module.__file__)).read_bytes() for module in (backends, forking, jail, nursery, probes, process)
    )
    parts = [
        boot.read_text() if boot.is_file() else platform.node(), platform.release(), sys.executable, str(os.getuid()),
        hashlib.sha256(code).hexdigest(),
    ]  # fmt: skip
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_cache(cache: Path) -> Backend | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = json.loads(cache.read_text("utf-8"))
        if data["machine"] == machine_digest() and data["backend"] != "none":
            return BACKENDS[data["backend"]]
    return None


def write_cache(cache: Path, result: BackendResult) -> None:
    record = {"machine": machine_digest(), "backend": result.backend.name, "held": [asdict(one) for one in result.held]}
    with contextlib.suppress(OSError):  # without a cache the probes run again next time
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        partial.replace(cache)
