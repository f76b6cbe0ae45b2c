"""What judges a problem, by version: with another one a score may differ. Nothing here imports torch."""

import functools
import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

from ftgrade.errors import CourseFault


def versions(problem: str) -> dict[str, str]:
    """Return the versions of a problem (the digest of its files), of the engine and of the libraries."""
    return {"problem": problem, "engine": code_digest(), "environment": environment()}


@functools.cache
def code_digest() -> str:
    """Return a digest of the engine's judging code."""
    package = Path(__file__).parents[1]
    files = [package / "sandbox" / f"{name}.py" for name in ("worker", "shell", "channel")]
    files += [path for room in ("intake", "judging") for path in sorted((package / room).glob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


@functools.cache
def environment() -> str:
    """Return the versions of Python and the libraries, as they are installed."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("ipython", "torch", "numpy"))
    return f"Python {platform.python_version()}, {libraries}"


def demand_same(here: dict[str, str], there: dict[str, str]) -> None:
    """Raise CourseFault unless this judge has the versions that the report will name."""
    for name, mine in here.items():
        if there[name] != mine:
            raise CourseFault(
                f"a judge has another {name} than this machine, {mine} instead of {there[name]}: "
                "install the same checkout and the same versions there, or start this program again if it was changed"
            )


__all__ = ["demand_same", "versions"]
