"""An instructor's folder in one step: nbgrader's configuration, the course's secret, the roster in the gradebook."""

import csv
import re
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook

from ftgrade.errors import CourseFault
from ftgrade.grade import Course, read_roster
from ftgrade.gradebook import Book

FIELDS = ("first_name", "last_name", "email", "lms_user_id")


def new_course(folder: Path, roster: Path) -> list[str]:
    """Make a course folder and book the roster's students; return them.

    Raises CourseFault, before anything is made, for a folder that is in use and a roster that can't be read.
    """
    demand_unused(folder)
    people = read_people(roster)
    folder.mkdir(parents=True, exist_ok=True)
    course = Course(folder)
    course.secret()
    book = Book(course)
    book.set_up()
    enrol(book, people)
    return list(people)


def demand_unused(folder: Path) -> None:
    """Raise CourseFault unless a folder is empty or can be made."""
    if folder.exists() and not folder.is_dir():
        raise CourseFault(f"{folder} is a file: name a folder that doesn't exist yet, or an empty one")
    if folder.is_dir() and (found := sorted(path.name for path in folder.iterdir())):
        raise CourseFault(f"{folder} is in use, it holds {', '.join(found[:3])}: name a new folder, or an empty one")


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
    return {student: fields(line) for student, line in zip(students, lines, strict=True)}


def fields(line: dict[str, str]) -> dict[str, str]:
    """Return the fields of one line that a gradebook knows and that aren't empty."""
    found = {name: line.get(name, "").strip() for name in FIELDS}
    return {name: text for name, text in found.items() if text}


def enrol(book: Book, people: dict[str, dict[str, str]]) -> None:
    """Book students into the gradebook, which is made with the first."""
    directory: Any = book.api.coursedir
    with book.logged(), Gradebook(directory.db_url, directory.course_id) as gradebook:
        for student, known in people.items():
            gradebook.update_or_create_student(student, **known)  # pyright: ignore[reportArgumentType]
