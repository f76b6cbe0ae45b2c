"""An instructor's course folder: the paths of its files, its secret and its roster. Nothing here imports torch."""

import contextlib
import csv
import difflib
import functools
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ftgrade.errors import CourseFault

CONFIG_FILE = "nbgrader_config.py"
SIGNS = (CONFIG_FILE, "gradebook.db", ".ftgrade", "submitted", "release")
"""A folder with one of these is a course."""
MAKE = "`ftgrade new-course DIR --roster CSV` makes a course"


@dataclass(frozen=True, slots=True)
class Course:
    """An instructor's course folder in nbgrader's layout, with our own `.ftgrade/` beside the gradebook."""

    root: Path

    @property
    def state(self) -> Path:
        """Return the folder of the secret and the reports; make it on first use, ignored by git."""
        folder = self.root / ".ftgrade"
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)  # another thread or grader may make it at the same time
            (folder / ".gitignore").write_text("*\n")
        return folder

    def notebook(self, student: str, stem: str) -> Path:
        return self.root / "submitted" / student / stem / f"{stem}.ipynb"

    def students(self, stem: str) -> list[str]:
        """Return the sorted ids of the students who handed in this problem; folders whose name is no id are skipped.

        A folder that can't be looked into counts, so that somebody is told.
        """
        found: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            for name in filter(is_id, os.listdir(self.root / "submitted")):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    with contextlib.suppress(PermissionError):
                        os.lstat(self.root / "submitted" / name / stem)
                    found.append(name)
        return sorted(found)

    def quarantine(self, student: str, stem: str) -> Path:
        """Return the folder for files that must not be copied along with a submission."""
        return self.state / "quarantine" / stem / student

    def report_path(self, student: str, stem: str) -> Path:
        return self.state / "reports" / stem / f"{student}.json"

    def last_path(self, stem: str) -> Path:
        return self.state / "last" / f"{stem}.json"

    def questions_path(self, stem: str) -> Path:
        """Return the record of which personal question each student got."""
        return self.state / "questions" / f"{stem}.json"

    @property
    def roster_path(self) -> Path:
        return self.state / "roster.csv"

    def roster(self) -> list[str]:
        """Return the students who get questions of their own, in the roster's order; empty without a roster."""
        try:
            changed = self.roster_path.stat().st_mtime_ns
        except FileNotFoundError:
            return []
        return cached_roster(self.roster_path, changed)

    def secret(self) -> bytes:
        """Return the course's secret; make it on first use. Raises CourseFault if it is missing but reports exist.

        Graders that start at the same time get the same secret, since its file is created atomically.
        """
        path = self.state / "secret"
        # The file is looked up twice, since another grader may write it and a report in between.
        if not path.exists() and any(self.state.glob("reports/*/*.json")) and not path.exists():
            raise CourseFault(
                f"the course's secret {path} is missing, and {self.root.name} was graded with one: put it back from a "
                "backup, or remove .ftgrade/reports to grade everybody again with a new secret"
            )
        if not path.exists():
            self.write_secret(secrets.token_bytes(32))
        return bytes.fromhex(path.read_text().strip())

    @property
    def gradebook_mark(self) -> Path:
        """Return the file that says that this course has had a gradebook."""
        return self.state / "has-gradebook"

    def write_secret(self, secret: bytes) -> None:
        """Write the secret, readable by its owner alone, unless one exists already."""
        path = self.state / "secret"
        with tempfile.NamedTemporaryFile("w", dir=self.state, prefix="secret.") as fresh:  # mode 0600
            fresh.write(secret.hex() + "\n")
            fresh.flush()
            with contextlib.suppress(FileExistsError):
                try:
                    os.link(fresh.name, path)
                except FileExistsError:
                    raise
                except OSError:  # this file system has no hard links, as exFAT and many network shares
                    write_first(path, secret.hex() + "\n")


ID = re.compile(r"[^/\\+.\s]([^/\\+]*[^/\\+\s])?")  # what nbgrader accepts and a folder may be called
ODD_IN_AN_ID = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff"  # invisible marks
    "\ud800-\udfff]"  # lone surrogates
)


def is_id(name: str) -> bool:
    """Say whether a text can be a student's id: a valid folder name without control or invisible characters.

    >>> [is_id(name) for name in ("ada", "zoë k", "..", "a/b", "a\\x1b[2J")]
    [True, True, False, False, False]
    """
    return ID.fullmatch(name) is not None and ODD_IN_AN_ID.search(name) is None and len(name.encode()) <= 200


@functools.lru_cache(maxsize=8)
def cached_roster(path: Path, _changed: int) -> list[str]:
    """Return the students of a file with this modification time; cached, since every submission asks for them."""
    return read_roster(path)


def read_roster(path: Path) -> list[str]:
    """Return the students of a CSV file: the column `id`, as in nbgrader's own import, or the only column.

    Raises CourseFault with the line number for an id that is missing, repeated or invalid as a folder name.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "id" not in header and len(header) != 1:
        raise CourseFault(f"{path.name} needs a column named `id`, its first line is: {', '.join(header) or 'empty'}")
    column = header.index("id") if "id" in header else 0
    students: list[str] = []
    for line, row in enumerate(rows[1:] if "id" in header else rows, 2 if "id" in header else 1):
        student = row[column].strip() if column < len(row) else ""
        if not is_id(student) or student in students:
            raise CourseFault(f"{path.name}, line {line}: {student!r} can't be a student's id, or stands twice")
        students.append(student)
    return students


def write_first(path: Path, text: str) -> None:
    """Write a file that only its owner may read. Raises FileExistsError if it exists, and OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except BaseException:
        path.unlink(missing_ok=True)  # half a secret would be one
        raise


def demand_course(folder: Path, *, may_be_empty: bool = False) -> None:
    """Raise CourseFault unless a folder is a course, so that a slip in a path makes none."""
    if not folder.exists():
        near = difflib.get_close_matches(folder.name, neighbours(folder), 1)
        raise CourseFault(f"there is no folder {folder}" + (f": {folder.with_name(near[0])}?" if near else f"; {MAKE}"))
    if not folder.is_dir():
        raise CourseFault(f"{folder} is a file: name a course's folder; {MAKE}")
    is_empty = may_be_empty and not any(folder.iterdir())
    if not is_empty and not any((folder / name).exists() for name in SIGNS):
        raise CourseFault(
            f"{folder} is no course: it holds no gradebook.db, no {CONFIG_FILE} and no folder submitted; {MAKE}"
        )


def neighbours(folder: Path) -> list[str]:
    """Return the names of the folders beside a missing one."""
    with contextlib.suppress(OSError):
        return [path.name for path in folder.parent.iterdir() if path.is_dir()]
    return []


def demand_unused(folder: Path) -> None:
    """Raise CourseFault unless a folder is empty or doesn't exist yet."""
    if folder.exists() and not folder.is_dir():
        raise CourseFault(f"{folder} is a file: name a folder that doesn't exist yet, or an empty one")
    if folder.is_dir() and (found := sorted(path.name for path in folder.iterdir())):
        raise CourseFault(f"{folder} is in use, it holds {', '.join(found[:3])}: name a new folder, or an empty one")


__all__ = ["CONFIG_FILE", "Course", "demand_course", "demand_unused", "read_roster"]
