"""An instructor's course folder: where its files are, its secret, its roster. Nothing here needs torch."""

import contextlib
import csv
import functools
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ftgrade.errors import CourseFault

CONFIG_FILE = "nbgrader_config.py"


@dataclass(frozen=True, slots=True)
class Course:
    """An instructor's course folder, as nbgrader lays it out, with our own `.ftgrade/` beside the gradebook."""

    root: Path

    @property
    def state(self) -> Path:
        """Return the folder of the secret and the reports, made on first use and invisible to git."""
        folder = self.root / ".ftgrade"
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)  # two threads and two graders may begin at once
            (folder / ".gitignore").write_text("*\n")
        return folder

    def notebook(self, student: str, stem: str) -> Path:
        return self.root / "submitted" / student / stem / f"{stem}.ipynb"

    def students(self, stem: str) -> list[str]:
        """Return who handed in a folder for this problem, in order; a folder whose name is no id is nobody's."""
        folders = (self.root / "submitted").glob(f"*/{stem}")
        return sorted(name for folder in folders if is_id(name := folder.parent.name))

    def nobodys(self) -> list[Path]:
        """Return the folders of `submitted/` whose names can't be a student's id."""
        return sorted(path for path in (self.root / "submitted").glob("*") if path.is_dir() and not is_id(path.name))

    def aside(self, student: str, stem: str) -> Path:
        """Return where files that must not be copied along are kept."""
        return self.state / "quarantine" / stem / student

    def report_path(self, student: str, stem: str) -> Path:
        return self.state / "reports" / stem / f"{student}.json"

    def last_path(self, stem: str) -> Path:
        return self.state / "last" / f"{stem}.json"

    @property
    def roster_path(self) -> Path:
        return self.state / "roster.csv"

    def roster(self) -> list[str]:
        """Return the students whose statements hold questions of their own, in the order of the list."""
        try:
            changed = self.roster_path.stat().st_mtime_ns
        except FileNotFoundError:
            return []
        return read_roster_of(self.roster_path, changed)

    def secret(self) -> bytes:
        """Return the course's secret, made on first use. Raises CourseFault if reports exist and the secret doesn't.

        Graders that begin at once get the same: it appears whole or not at all, and before the first report.
        """
        path = self.state / "secret"
        if not path.exists() and any(self.state.glob("reports/*/*.json")) and not path.exists():
            raise CourseFault(
                f"the course's secret {path} is missing, and {self.root.name} was graded with one: put it back from a "
                "backup, or remove .ftgrade/reports to grade everybody again with a new secret"
            )
        if not path.exists():
            self.keep_secret(secrets.token_bytes(32))
        return bytes.fromhex(path.read_text().strip())

    def keep_secret(self, secret: bytes) -> None:
        """Write the secret for its owner's eyes alone, unless there is one already."""
        with tempfile.NamedTemporaryFile("w", dir=self.state, prefix="secret.") as fresh:  # mode 0600
            fresh.write(secret.hex() + "\n")
            fresh.flush()
            with contextlib.suppress(FileExistsError):
                os.link(fresh.name, self.state / "secret")


ID = re.compile(r"[^/\\+.\s]([^/\\+]*[^/\\+\s])?")  # what nbgrader takes, and a folder can be called
ODD_IN_AN_ID = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff"  # marks that nobody sees
    "\ud800-\udfff]"  # lone surrogates
)


def is_id(name: str) -> bool:
    """Say whether a text can be a student's id: it names a folder, and nothing in it moves a cursor.

    >>> [is_id(name) for name in ("ada", "zoë k", "..", "a/b", "a\\x1b[2J")]
    [True, True, False, False, False]
    """
    return ID.fullmatch(name) is not None and ODD_IN_AN_ID.search(name) is None and len(name.encode()) <= 200


@functools.lru_cache(maxsize=8)
def read_roster_of(path: Path, _changed: int) -> list[str]:
    """Return the students of a file that was last changed at this time; a class asks for them once a submission."""
    return read_roster(path)


def read_roster(path: Path) -> list[str]:
    """Return the students of a CSV file: its column `id`, as nbgrader's own import has it, or its only column.

    Raises CourseFault with the line for an id that is missing, stands twice or can't name a folder.
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


def demand_unused(folder: Path) -> None:
    """Raise CourseFault unless a folder is empty or can be made."""
    if folder.exists() and not folder.is_dir():
        raise CourseFault(f"{folder} is a file: name a folder that doesn't exist yet, or an empty one")
    if folder.is_dir() and (found := sorted(path.name for path in folder.iterdir())):
        raise CourseFault(f"{folder} is in use, it holds {', '.join(found[:3])}: name a new folder, or an empty one")


__all__ = ["CONFIG_FILE", "Course", "demand_unused", "read_roster"]
