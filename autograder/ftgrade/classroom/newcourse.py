"""An instructor's folder in one step: nbgrader's configuration, the course's secret, the roster in the gradebook."""

import re
import shutil
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook

from ftgrade.classroom.roster import Roster, read_roster
from ftgrade.course import Course, demand_unused, write_roster
from ftgrade.errors import CourseFault
from ftgrade.gradebook.book import Book

SECRET_DIGITS = 64


def new_course(folder: Path, roster: Path, secret: Path | None = None) -> Roster:
    """Make a course folder and book the roster's students; return the roster. What fails leaves nothing.

    The course's secret is drawn, or taken from a file such as an earlier course's backup. Raises CourseFault, before
    anything is made, for a folder that is in use, and a roster or a secret that can't be read.
    """
    demand_unused(folder)
    demand_plain_path(folder)
    people = read_people(roster)
    known = read_secret(secret) if secret else None
    was_there = folder.is_dir()
    try:
        fill_course(folder, people, known)
    except BaseException:
        empty(folder, remove=not was_there)
        raise
    return people


def demand_plain_path(folder: Path) -> None:
    """Raise CourseFault for a path of which nbgrader would take a `$NAME` for a variable."""
    if "$" in str(folder.absolute()):
        raise CourseFault(
            f"the path {folder} holds a `$`, which nbgrader takes for the name of a variable: choose another folder"
        )


def fill_course(folder: Path, people: Roster, secret: bytes | None) -> None:
    """Put the secret, nbgrader's configuration and the gradebook with its students into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    course = Course(folder)
    if secret:
        course.write_secret(secret)
    course.secret()
    book = Book(course)
    book.write_config()
    enrol(book, people.students)
    write_roster(course.enrolled_path, list(people.students), people.sections)


def empty(folder: Path, *, remove: bool) -> None:
    """Delete what a folder holds, and the folder too if that is asked for."""
    for path in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if remove and folder.is_dir():
        folder.rmdir()


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


def read_people(path: Path) -> Roster:
    """Return the students of a list. Raises CourseFault for one that can't be read or is empty."""
    try:
        found = read_roster(path)
    except OSError as error:
        raise CourseFault(f"the roster {path} can't be read: {error.strerror}") from None
    if not found.students:
        raise CourseFault(f"the roster {path} holds no student: a line `id`, then a line for each")
    return found


def enrol(book: Book, people: dict[str, dict[str, str]]) -> None:
    """Book students into the gradebook, which is made with the first."""
    directory: Any = book.api.coursedir
    with book.log_to_file(), Gradebook(directory.db_url, directory.course_id) as gradebook:
        for student, known in people.items():
            gradebook.update_or_create_student(student, **known)  # pyright: ignore[reportArgumentType]
