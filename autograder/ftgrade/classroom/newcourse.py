"""An instructor's folder in one step: nbgrader's configuration, the course's secret, the roster in the gradebook."""

import csv
import re
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook

from ftgrade.course import Course, demand_unused, read_roster
from ftgrade.errors import CourseFault
from ftgrade.gradebook.book import Book

FIELDS = ("first_name", "last_name", "email", "lms_user_id")
SECRET_DIGITS = 64


def new_course(folder: Path, roster: Path, secret: Path | None = None) -> list[str]:
    """Make a course folder and book the roster's students; return them.

    The course's secret is drawn, or taken from a file such as an earlier course's backup. Raises CourseFault, before
    anything is made, for a folder that is in use, and a roster or a secret that can't be read.
    """
    demand_unused(folder)
    people = read_people(roster)
    known = read_secret(secret) if secret else None
    folder.mkdir(parents=True, exist_ok=True)
    course = Course(folder)
    if known:
        course.write_secret(known)
    course.secret()
    book = Book(course)
    book.write_config()
    enrol(book, people)
    return list(people)


def read_secret(path: Path) -> bytes:
    """Return the secret in a file. Raises CourseFault, whose words tell nothing of what the file holds but its length.

    The file is the `.ftgrade/secret` of a course, and so what stands in it may be a secret with a slip.
    """
    try:
        with path.open("rb") as file:
            text = file.read(1000).strip()
    except OSError as error:
        raise CourseFault(f"the secret {path} can't be read: {error.strerror}") from None
    if not re.fullmatch(rb"[0-9a-fA-F]{%d}" % SECRET_DIGITS, text):
        other = len(re.sub(rb"[0-9a-fA-F]", b"", text))
        raise CourseFault(
            f"a course's secret is {SECRET_DIGITS} hexadecimal digits (0-9, a-f) and nothing else; {path} holds "
            f"{len(text) - other} of them and {other} other bytes: name the `.ftgrade/secret` of a backup, or leave "
            "--secret out to draw a new one"
        )
    return bytes.fromhex(text.decode())


def read_people(roster: Path) -> dict[str, dict[str, str]]:
    """Return what a roster tells of each student, in its order: name, address and LMS id, where it has the columns.

    Columns are those of nbgrader's own import, in any case and with spaces or underscores. Raises CourseFault.
    """
    try:
        students = read_roster(roster)
        with roster.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise CourseFault(f"the roster {roster} can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CourseFault(f"the roster {roster} must be CSV in UTF-8, save it so: {error}") from None
    if not students:
        raise CourseFault(f"the roster {roster} holds no student: a line `id`, then a line for each")
    names = [re.sub(r"[\s_-]+", "_", cell.strip().lower()) for cell in rows[0]]
    lines = [dict(zip(names, row, strict=False)) for row in rows[-len(students) :]]
    return {student: gradebook_fields(line) for student, line in zip(students, lines, strict=True)}


def gradebook_fields(line: dict[str, str]) -> dict[str, str]:
    """Return the fields of one line that a gradebook knows and that aren't empty."""
    found = {name: line.get(name, "").strip() for name in FIELDS}
    return {name: text for name, text in found.items() if text}


def enrol(book: Book, people: dict[str, dict[str, str]]) -> None:
    """Book students into the gradebook, which is made with the first."""
    directory: Any = book.api.coursedir
    with book.log_to_file(), Gradebook(directory.db_url, directory.course_id) as gradebook:
        for student, known in people.items():
            gradebook.update_or_create_student(student, **known)  # pyright: ignore[reportArgumentType]
