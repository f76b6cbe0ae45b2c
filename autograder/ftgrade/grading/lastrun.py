"""What the last run of `ftgrade grade` left, so that the next one skips what stands: a hint that is always checked.

A line holds what a submission's folder looked like when it was read, and what was booked and shown for it. A folder's
look is its inode, sizes and times; among them is the time of the last change, which nobody can set. Without the file,
or with a wrong one, everything is read and booked again, to the same end.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of one submission: its folder's look, its fingerprint, and marks of what was booked and shown.

    `trouble` says why it could not be booked.
    """

    look: str = ""
    submission: str = ""
    booked: str = ""
    page: str = ""
    trouble: str = ""


class LastRun:
    """One problem's lines, by student."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, Snapshot] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            stored = json.loads(path.read_text("utf-8"))
            self.lines = {student: Snapshot(**line) for student, line in stored.items()}
        self.as_stored = dict(self.lines)

    def __getitem__(self, student: str) -> Snapshot:
        return self.lines.get(student, Snapshot())

    def __setitem__(self, student: str, line: Snapshot) -> None:
        self.lines[student] = line

    def save(self) -> None:
        """Write the lines in one step, if any changed."""
        if self.lines == self.as_stored:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
        partial.write_text(json.dumps({student: asdict(line) for student, line in self.lines.items()}), "utf-8")
        partial.replace(self.path)
        self.as_stored = dict(self.lines)


def stat_fingerprint(notebook: Path, beside: Iterable[str] = ()) -> str:
    """Return what a submission's files and its folder look like from outside, or nothing if one is missing."""
    try:
        states = [os.lstat(path) for path in (notebook, notebook.parent, *map(notebook.with_name, beside))]
    except OSError:
        return ""
    return " ".join(f"{one.st_ino}.{one.st_size}.{one.st_mtime_ns}.{one.st_ctime_ns}" for one in states)
