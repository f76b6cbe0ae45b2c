"""Move away what must not be copied with a submission: symbolic and hard links, devices, start-up and huge files."""

import fnmatch
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ftgrade.errors import OurFault
from ftgrade.intake.gate import line
from ftgrade.intake.notebook import Finding, make_finding
from ftgrade.moments import read_stamp

MAX_OTHER_BYTES = 20 * 2**20
MAX_ALL_BYTES = 200 * 2**20
MAX_ENTRIES = 500
MAX_DEPTH = 10
TIMESTAMP = "timestamp.txt"
# Python, IPython, Jupyter and nbgrader run or read files of these names when they start in their folder.
START_UP_FILES = (
    "nbgrader_config.*", "jupyter_*config*", "ipython_*config*", "*.pth", "sitecustomize.*", "usercustomize.*",
    "conftest.py", ".ipython", ".jupyter",
)  # fmt: skip


def set_aside(folder: Path, aside: Path) -> tuple[Finding, ...]:
    """Move what a submission's folder must not hold to `aside`; return a finding on all that was ever moved there.

    What stands in place of the folder and is none, such as a link, is moved and replaced by an empty folder. Nothing
    is deleted. A missing folder counts as empty. If the student's whole folder is a link, nothing is moved, since what
    it leads to may be another's: `read_handed_in` refuses it. Raises OurFault.
    """
    if folder.parent.is_symlink():
        return ()
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            move(folder, aside / ("folder-that-was-a-link" if folder.is_symlink() else "folder-that-was-none"))
            folder.mkdir()
        for path in unwanted(folder) if folder.exists() else ():
            move(path, aside / path.relative_to(folder))
    except OSError as error:
        mend = f", `chmod -R u+rwX submitted/{aside.name}` may help" if isinstance(error, PermissionError) else ""
        words = f"a submission's unwanted files can't be moved to {aside.name}: {error.strerror}{mend}"
        raise OurFault(words) from error
    if not aside.is_dir():
        return ()
    moved = sorted(path.relative_to(aside).as_posix() for path in files_below(aside))
    names = ", ".join(moved[:5]) + (f" and {len(moved) - 5} more" if len(moved) > 5 else "")
    words = f"Links, start-up files and very large files are set aside and take no part in grading: {names}."
    if TIMESTAMP in moved and not (folder / TIMESTAMP).exists():
        words += f" The {TIMESTAMP} tells no time such as 2026-12-01 18:00:00 UTC, so this counts as handed in in time."
    return (make_finding("set-aside", line(words)),)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; a folder further down than MAX_DEPTH stands for all in it."""
    for here, names, files in os.walk(folder):
        place = Path(here)
        if len(place.relative_to(folder).parts) > MAX_DEPTH:
            names.clear()
            yield place
        else:
            yield from (place / name for name in files)
            yield from (place / name for name in names if (place / name).is_symlink())


def unwanted(folder: Path) -> list[Path]:
    """Return the paths to move; a folder that is moved as a whole isn't searched.

    A long way down, or what the grader may not read, would stop the booking.
    """
    found: list[Path] = []
    waiting, entries, room = [folder], 0, MAX_ALL_BYTES
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path == folder / f"{folder.name}.ipynb":
                continue  # the notebook itself stays, however many entries there are
            entries += 1
            deep = len(path.relative_to(folder).parts) > MAX_DEPTH
            if entries > MAX_ENTRIES or deep or not is_wanted(path, room) or not is_timely(path, folder):
                found.append(path)
            elif is_dir(path):
                waiting.append(path)
            else:
                room -= path.lstat().st_size
    return found


def is_timely(path: Path, folder: Path) -> bool:
    """Say whether a path is anything but a submission's time stamp that nbgrader can't read: it would fail on that."""
    return path != folder / TIMESTAMP or read_stamp(path) is not None


def is_wanted(path: Path, room: int) -> bool:
    """Say whether a path is a folder or an ordinary file of at most `room` bytes, and no start-up file."""
    state = path.lstat()
    if any(fnmatch.fnmatch(path.name.lower(), pattern) for pattern in START_UP_FILES):
        return False
    if stat.S_ISDIR(state.st_mode):
        return os.access(path, os.R_OK | os.X_OK)
    ordinary = stat.S_ISREG(state.st_mode) and state.st_nlink == 1
    return ordinary and state.st_size <= min(room, MAX_OTHER_BYTES) and os.access(path, os.R_OK)


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
