"""nbgrader's exchange while a class is watched: submissions are collected, each page is released once made."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nbgrader.exchange.default import Exchange

from ftgrade.errors import CourseFault
from ftgrade.gradebook.book import Book, error_line
from ftgrade.guard import Mishap, guarded
from ftgrade.intake.gate import line
from ftgrade.intake.notebook import read_below


def inbound(book: Book) -> Path:
    """Return where the exchange keeps what was submitted to this course. Raises CourseFault if it can't be used."""
    directory: Any = book.api.coursedir
    if not directory.course_id:
        raise CourseFault(
            "the exchange needs the course's name: set `c.CourseDirectory.course_id` in the configuration"
        )
    folder = Path(exchange_root(book), directory.course_id, "inbound")
    if not folder.is_dir():
        raise CourseFault(f"the exchange has no folder {folder}: `nbgrader release_assignment` makes it")
    return folder


def exchange_root(book: Book) -> str:
    with contextlib.chdir(book.course.root.absolute()):
        exchange: Any = Exchange(coursedir=book.api.coursedir, config=book.config)
        return str(exchange.root)


def collect_from_exchange(book: Book, stems: Sequence[str]) -> Iterator[str]:
    """Collect the newest submissions to these problems, as `nbgrader collect --update` does; yield what failed."""
    names = os.listdir(inbound(book))
    for stem in stems:
        if any(f"+{stem}+" in name for name in names):
            done = guarded(lambda stem=stem: book.api.collect(stem, update=True))
            if words := failure_words(done):
                yield f"{stem}: not collected from the exchange: {words}"


MARKS = ("timestamp.txt", "submission_secret.txt")
"""What the exchange puts beside a submission; nbgrader names the page in the exchange by the second."""
MAX_MARK_BYTES = 1_000


def release_page(book: Book, stem: str, student: str) -> str:
    """Put a student's page into the exchange, as `nbgrader release_feedback` does; return why that failed, if it did.

    A hand-in without the exchange's marks didn't come through it, so nobody would look for its page there.
    """
    handed_in = book.course.notebook(student, stem).parent
    if not all((handed_in / name).is_file() for name in MARKS):
        return ""
    with warnings.catch_warnings():  # nbgrader 0.9.6 misspells an argument of its own
        warnings.filterwarnings("ignore", message="Passing unrecognized arguments", category=DeprecationWarning)
        return failure_words(guarded(lambda: copy_and_release(book, stem, student, handed_in)))


def copy_and_release(book: Book, stem: str, student: str, handed_in: Path) -> Any:
    """Put the exchange's marks beside the page, as `nbgrader generate_feedback` does, and release it."""
    for name in MARKS:
        data = read_below(handed_in.parents[1], handed_in / name, MAX_MARK_BYTES)
        (book.course.root / "feedback" / student / stem / name).write_bytes(data)
    return book.api.release_feedback(stem, student)


def failure_words(done: Any) -> str:
    if isinstance(done, Mishap):
        return line(done.words)
    return "" if done["success"] else error_line(done.get("error", "") or done.get("log", ""))


__all__ = ["collect_from_exchange", "release_page"]
