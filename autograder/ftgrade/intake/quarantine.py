"""Move away what must not be copied with a submission: symbolic and hard links, devices, start-up and huge files."""

import fnmatch
import shutil
import stat
from pathlib import Path

from dateutil.parser import parse

from ftgrade.errors import OurFault
from ftgrade.intake.gate import line
from ftgrade.intake.notebook import Finding, make_finding

MAX_OTHER_BYTES = 20 * 2**20
MAX_ENTRIES = 500
TIMESTAMP = "timestamp.txt"
# Python, IPython, Jupyter and nbgrader run or read files of these names when they start in their folder.
START_UP_FILES = (
    "nbgrader_config.*", "jupyter_*config*", "ipython_*config*", "*.pth", "sitecustomize.*", "usercustomize.*",
    "conftest.py", ".ipython", ".jupyter",
)  # fmt: skip


def set_aside(folder: Path, aside: Path) -> tuple[Finding, ...]:
    """Move what a submission's folder must not hold to `aside`; return a finding on all that was ever moved there.

    A folder that is itself a link is moved as a whole and replaced by an empty one. Nothing is deleted. A missing
    folder counts as empty. Raises OurFault.
    """
    try:
        if folder.is_symlink():
            move(folder, aside / "folder-that-was-a-link")
            folder.mkdir()
        for path in unwanted(folder) if folder.exists() else ():
            move(path, aside / path.relative_to(folder))
    except OSError as error:
        raise OurFault(f"a submission's unwanted files can't be moved to {aside.name}: {error.strerror}") from error
    if not aside.is_dir():
        return ()
    moved = sorted(path.relative_to(aside).as_posix() for path in aside.rglob("*") if not is_dir(path))
    names = ", ".join(moved[:5]) + (f" and {len(moved) - 5} more" if len(moved) > 5 else "")
    words = f"Links, start-up files and very large files are set aside and take no part in grading: {names}."
    return (make_finding("set-aside", line(words)),)


def unwanted(folder: Path) -> list[Path]:
    """Return the paths to move; a folder that is moved as a whole isn't searched."""
    found: list[Path] = []
    waiting, entries = [folder], 0
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path == folder / f"{folder.name}.ipynb":
                continue  # the notebook itself stays, however many entries there are
            entries += 1
            if entries > MAX_ENTRIES or not is_wanted(path) or not is_timely(path, folder):
                found.append(path)
            elif is_dir(path):
                waiting.append(path)
    return found


def is_timely(path: Path, folder: Path) -> bool:
    """Say whether a path is anything but a submission's time stamp that nbgrader can't parse.

    nbgrader takes a third word for a time zone, and fails on this student if the text is no time.
    """
    if path != folder / TIMESTAMP:
        return True
    try:
        with path.open(encoding="utf-8") as file:
            words = file.read(100).strip().split(" ")
        parse(" ".join(words[:2] if len(words) == 3 else words))
    except (OSError, ValueError, OverflowError):
        return False
    return True


def is_wanted(path: Path) -> bool:
    """Say whether a path is a folder or an ordinary file of moderate size, and no start-up file."""
    state = path.lstat()
    if any(fnmatch.fnmatch(path.name.lower(), pattern) for pattern in START_UP_FILES):
        return False
    if stat.S_ISDIR(state.st_mode):
        return True
    # A notebook stays whatever its kind or size: reading it within bounds reports what is wrong with it.
    return path.suffix == ".ipynb" or (
        stat.S_ISREG(state.st_mode) and state.st_size <= MAX_OTHER_BYTES and state.st_nlink == 1
    )


def is_dir(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def move(path: Path, goal: Path) -> None:
    """Rename a path without following links; if the new name is taken, add a number."""
    goal.parent.mkdir(parents=True, exist_ok=True)
    free = goal
    number = 1
    while free.is_symlink() or free.exists():
        number += 1
        free = goal.with_name(f"{goal.name}.{number}")
    try:
        path.rename(free)
    except OSError:  # another file system
        shutil.move(path, free)
