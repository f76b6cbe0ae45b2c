"""An instructor's course folder: the paths of its files, its secret and its roster. Nothing here imports torch."""

import contextlib
import csv
import difflib
import functools
import os
import re
import secrets
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping
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
    left_out: frozenset[str] = frozenset()

    @property
    def state(self) -> Path:
        """Return the folder of the secret and the reports; make it on first use, ignored by git."""
        folder = self.root / ".ftgrade"
        if not folder.is_dir():
            folder.mkdir(0o700, parents=True, exist_ok=True)  # another thread or grader may make it at the same time
            (folder / ".gitignore").write_text("*\n")
        return folder

    def notebook(self, student: str, stem: str) -> Path:
        """Return the path of a submission; a Mac may have written the student's name in decomposed letters (NFD)."""
        folder = self.root / "submitted" / student
        if not student.isascii() and not folder.exists():
            decomposed = self.root / "submitted" / unicodedata.normalize("NFD", student)
            folder = decomposed if decomposed.exists() else folder
        return folder / stem / f"{stem}.ipynb"

    def students(self, stem: str) -> list[str]:
        """Return the sorted ids of the students who handed in this problem; folders whose name is no id are skipped.

        A folder that can't be looked into counts, so that somebody is told. Folders in `left_out` don't count.
        """
        found: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            names = set(filter(is_id, os.listdir(self.root / "submitted")))
            for name in names:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    with contextlib.suppress(PermissionError):
                        os.lstat(self.root / "submitted" / name / stem)
                    composed = unicodedata.normalize("NFC", name)
                    found.append(name if composed in names else composed)
        return sorted(set(found) - self.left_out)

    def strangers(self, known: Iterable[str]) -> set[str]:
        """Return the folders of nobody who is enrolled, on the roster or known; nobody without an enrolment."""
        enrolled = self.enrolled()
        if not enrolled:
            return set()
        names = {unicodedata.normalize("NFC", entry.name) for entry in self.handed_in() if is_id(entry.name)}
        files = set(self.nobodys())
        return names - files - {unicodedata.normalize("NFC", one) for one in (*enrolled, *self.roster(), *known)}

    def handed_in(self) -> list[os.DirEntry[str]]:
        """Return what stands in submitted/, without what systems and Jupyter put there (`.DS_Store` and the like)."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root / "submitted") as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
        return []

    def nobodys(self) -> dict[str, str]:
        """Return what stands in submitted/ and can't be a student's folder: its name, and why, in words."""
        found: dict[str, str] = {}
        for entry in sorted(self.handed_in(), key=lambda entry: entry.name):
            if entry.is_file(follow_symlinks=False):
                found[entry.name] = "is a file: put it into submitted/STUDENT/STEM/, or `ftgrade collect` takes it"
            elif not is_id(entry.name):
                found[entry.name] = f"has a name that can't be a student's id ({NO_ID}): rename it"
        return found

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
        return cached_roster(self.roster_path, changed) if (changed := changed_at(self.roster_path)) else []

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
        with contextlib.suppress(ValueError):
            if secret := bytes.fromhex(path.read_text("ascii").strip()):
                return secret
        raise CourseFault(f"{path} holds no secret, which is hexadecimal digits: put it back from a backup")

    @property
    def enrolled_path(self) -> Path:
        """Return the list of the students who are booked; there is none in a course without a roster."""
        return self.state / "enrolled.csv"

    def enrolled(self) -> list[str]:
        """Return the students of the list of those who are booked; empty without one."""
        return cached_roster(self.enrolled_path, changed) if (changed := changed_at(self.enrolled_path)) else []

    def sections(self) -> dict[str, str]:
        """Return the section of each booked student whose roster told one."""
        if not self.enrolled_path.is_file():
            return {}
        with self.enrolled_path.open(encoding="utf-8-sig", newline="") as file:
            return {row["id"]: row["section"] for row in csv.DictReader(file) if row.get("id") and row.get("section")}

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
LONGEST_ID = 200  # bytes
NO_ID = f"no /, \\ or +, no leading dot, no invisible characters, at most {LONGEST_ID} bytes"
"""What an id may not be, since it names a folder."""


def is_id(name: str) -> bool:
    """Say whether a text can be a student's id: a valid folder name without control or invisible characters.

    >>> [is_id(name) for name in ("ada", "zoë k", "..", "a/b", "a\\x1b[2J")]
    [True, True, False, False, False]
    """
    return ID.fullmatch(name) is not None and ODD_IN_AN_ID.search(name) is None and len(name.encode()) <= LONGEST_ID


def changed_at(path: Path) -> int:
    """Return when a file was changed, in nanoseconds; 0 if there is no such file."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@functools.lru_cache(maxsize=8)
def cached_roster(path: Path, _changed: int) -> list[str]:
    """Return the students of a file with this modification time; cached, since every submission asks for them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    has_header = "id" in header
    column = header.index("id") if has_header else 0
    return [row[column].strip() for row in rows[has_header:] if column < len(row)]


def write_roster(path: Path, students: Iterable[str], sections: Mapping[str, str] | None = None) -> None:
    """Write a list of students as a course keeps it, in one step; `classroom.roster` reads those of other people."""
    partial = path.with_suffix(".partial")
    rows = (
        [["id", "section"], *([student, sections.get(student, "")] for student in students)]
        if sections
        else ([["id"], *([student] for student in students)])
    )
    with partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    partial.replace(path)


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


__all__ = ["CONFIG_FILE", "Course", "demand_course", "demand_unused", "is_id", "write_roster"]
