"""A course's gradebook and folders: releases through nbgrader, and the records of a class while it's graded."""

import contextlib
import logging
import re
import sqlite3
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from nbgrader.api import Gradebook, MissingEntry, Notebook, SubmittedAssignment, SubmittedNotebook
from nbgrader.apps.api import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SAWarning
from traitlets.config import Config
from traitlets.log import get_logger

from ftgrade.course import CONFIG_FILE, Course
from ftgrade.errors import CourseFault
from ftgrade.gradebook import releasing
from ftgrade.gradebook.cells import demand_same_release, released_cells
from ftgrade.gradebook.late import course_config
from ftgrade.gradebook.ledger import Ledger, PageMaker
from ftgrade.gradebook.steps import configure, gradebook_url
from ftgrade.grading.grader import Grader
from ftgrade.guard import guarded
from ftgrade.intake.gate import NOTHING, Clean, clean, line
from ftgrade.judging.report import Report

MAX_RECORD = 20_000  # characters of the log
CONFIG_TEXT = "from ftgrade.nbgrader_step import configure\n\nconfigure(get_config())\n"


@dataclass(slots=True)
class Ledgers:
    """The open records of several problems: what comes is booked at once, and what fails is tried again at the end.

    `trouble` says why nothing can be booked for anybody, such as a locked gradebook or a full disk. While there is such
    trouble, nothing more is tried until the end.
    """

    by_stem: dict[str, Ledger]
    waiting: list[Report] = field(default_factory=list[Report])
    trouble: Clean = NOTHING

    def book(self, report: Report) -> None:
        """Book a report, or let it wait."""
        if self.trouble or self.try_to_book(report):
            self.waiting.append(report)

    def retry(self) -> list[tuple[Report, Clean]]:
        """Try once more what waits; return what could not be booked, and why."""
        self.trouble = NOTHING
        failed: list[tuple[Report, Clean]] = []
        for report in self.waiting:
            if words := self.trouble or self.try_to_book(report):
                self.by_stem[report.stem].note_trouble(report.student, words)
                failed.append((report, words))
        return failed

    def try_to_book(self, report: Report) -> Clean:
        """Book a report; return why that failed, empty if it didn't."""
        ledger = self.by_stem[report.stem]
        words = failure_of(lambda: ledger.book(report), f"not booked: {report.student}, {report.stem}")
        if words:  # a student can cause nearly any error, so ask whether others meet it too
            self.trouble = failure_of(ledger.demand_working, "nothing can be booked")
        ledger.note_trouble(report.student, words)
        return words

    def close(self) -> None:
        for ledger in self.by_stem.values():
            with contextlib.suppress(OSError):  # a hint for the next run, no more
                ledger.close()


def failure_of(action: Callable[[], None], what: str) -> Clean:
    """Do something; return why it failed, empty if it didn't. The failure is logged with its traceback."""
    done = guarded(action)
    if done is None:
        return NOTHING
    get_logger().error(what, exc_info=done.error)
    return line(done.words)


class LogFile(logging.FileHandler):
    """A log that stays silent about its own failures: on a full disk, the command says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (its name in `logging`)
        pass


class CleanFormatter(logging.Formatter):
    """Format records of a log that is read in a terminal, although tracebacks quote students."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record), MAX_RECORD)


def demand_course_id(directory: Any) -> None:
    """Raise CourseFault for a course without a name in a database that, unlike SQLite, holds records to it."""
    if not directory.course_id and not directory.db_url.startswith("sqlite"):
        raise CourseFault(
            f"a gradebook at {directory.db_url.partition(':')[0]} needs the course's name: add "
            f'`c.CourseDirectory.course_id = "{Path(directory.root).name}"` to {CONFIG_FILE}'
        )


def course_directory(root: Path, config: Config) -> Any:
    """Return nbgrader's settings of a course, with a gradebook in the course's folder unless they name another."""
    config.CourseDirectory.root = str(root)
    if "db_url" not in config.CourseDirectory:
        config.CourseDirectory.db_url = gradebook_url(root)
    return CourseDirectory(config=config)


def gradebook_file(directory: Any) -> Path | None:
    """Return the file of a course's gradebook; None for one that a server keeps."""
    url = make_url(directory.db_url)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def demand_gradebook(course: Course, directory: Any) -> None:
    """Raise CourseFault for a gradebook that was lost, or that is a file of another kind; one may be missing yet."""
    path = gradebook_file(directory)
    if path is None:
        return
    if not path.is_file() or not path.stat().st_size:
        if course.gradebook_mark.exists():
            raise CourseFault(lost_words(path, course))
        return
    tables = table_names(path)
    if tables and "assignment" not in tables:
        raise CourseFault(
            f"{path} is a database of another program, with the tables {', '.join(map(line, tables[:3]))}: move it "
            "away, or put the course's gradebook.db back from a backup"
        )


def lost_words(path: Path, course: Course) -> str:
    """Say that a gradebook is gone, and the two ways to go on."""
    return (
        f"the gradebook {path} is {'empty' if path.is_file() else 'gone'}, and this course had one: put it back from a "
        f"backup. To make a new one, remove {course.gradebook_mark} and run `ftgrade grade`; names, due dates and the "
        "points that people gave are then lost"
    )


def table_names(path: Path) -> list[str]:
    """Return the names of a database's tables; none while it is locked. Raises sqlite3.DatabaseError."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    with (
        contextlib.suppress(sqlite3.OperationalError),  # who opens it next waits longer, and tells
        contextlib.closing(sqlite3.connect(address, uri=True, timeout=0)) as opened,
    ):
        rows = opened.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return [str(name) for (name,) in rows]
    return []


def error_line(said: str) -> str:
    """Return the line of a traceback, or of nbgrader's log, that says what happened.

    >>> error_line("Traceback (most recent call last):\\n  File ...\\nsqlite3.OperationalError: database is locked\\n")
    'sqlite3.OperationalError: database is locked'
    """
    lines = [text for text in said.splitlines() if re.match(r"[A-Za-z_][\w.]*: |\[(ERROR|CRITICAL)\]", text)]
    return line((lines or said.strip().splitlines() or [""])[-1])


class Book:
    """The gradebook and the folders of one course, through nbgrader's interface."""

    def __init__(self, course: Course) -> None:
        self.course = course
        root = course.root.absolute()
        with contextlib.chdir(root):
            config = Config()
            configure(config)
        config.merge(course_config(root))  # where an instructor names another gradebook (`db_url`), among others
        self.config = config
        directory = course_directory(root, config)
        demand_course_id(directory)
        demand_gradebook(course, directory)
        self.api = NbGraderAPI(directory, config=config)

    def write_config(self) -> None:
        """Write the course's `nbgrader_config.py` if there is none, so that nbgrader's own commands use our steps."""
        path = self.course.root / CONFIG_FILE
        if not path.exists():
            path.write_text(CONFIG_TEXT)

    def release(self, stem: str) -> None:
        """Make the student's notebook in `release/` and its record in the gradebook. Raises CourseFault."""
        self.write_config()
        with self.log_to_file():
            self.demand_open()  # nbgrader would hand on a traceback
            result = releasing.release(self.api, stem)
        if not result["success"]:
            said = result.get("error", "")
            if "SystemExit" in said.rpartition("\n  ")[2]:  # nbgrader has logged the reason and left
                said = result.get("log", "")
            raise CourseFault(f"nbgrader could not release {stem}: {error_line(said)} (more in {self.log_path})")

    def demand_open(self) -> None:
        """Open the gradebook and close it. Raises SQLAlchemyError for one that is locked or no gradebook."""
        directory: Any = self.api.coursedir
        path = gradebook_file(directory)
        if path is None or path.is_file():
            Gradebook(directory.db_url, directory.course_id).close()

    def ensure_released(self, grader: Grader, stem: str) -> None:
        """Release a problem that the gradebook doesn't know; raise CourseFault if it knows another version of it."""
        directory: Any = self.api.coursedir
        try:
            with Gradebook(directory.db_url, directory.course_id) as gradebook:
                released = released_cells(gradebook, stem)
        except MissingEntry:
            return self.release(stem)
        return demand_same_release(stem, grader.outline(stem), released)

    @contextlib.contextmanager
    def open_ledgers(self, grader: Grader, stems: list[str], pages: PageMaker) -> Generator["Ledgers"]:
        """Hold the records of problems open while a class is graded, and let go of them whatever happens."""
        with self.log_to_file():
            opened = Ledgers({stem: self.open_ledger(grader, stem, pages) for stem in stems})
            try:
                yield opened
            finally:
                opened.close()

    def open_ledger(self, grader: Grader, stem: str, pages: PageMaker) -> Ledger:
        """Return the records of one released problem."""
        return Ledger(grader, cast("CourseDirectory", self.api.coursedir), self.config, stem, pages)

    @contextlib.contextmanager
    def log_to_file(self) -> Generator[None]:
        """Send what nbgrader logs to a file of the course instead of the terminal."""
        logger: Any = get_logger()
        handlers, propagates = list(logger.handlers), logger.propagate
        handler = LogFile(self.log_path, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(CleanFormatter("%(asctime)s %(levelname)s %(message)s"))
        logger.handlers, logger.propagate = [handler], False
        try:
            with warnings.catch_warnings():
                # nbgrader 0.9.6 builds records in an order that SQLAlchemy 2.1 warns about, and books them all.
                warnings.filterwarnings("ignore", message="Object of type <Submitted", category=SAWarning)
                yield
        finally:
            logger.handlers, logger.propagate = handlers, propagates
            handler.close()
            self.mark_gradebook()

    def mark_gradebook(self) -> None:
        """Note that there is a gradebook, so that a later run doesn't take a lost one for one that never was."""
        path = gradebook_file(self.api.coursedir)
        if path is not None and path.is_file():
            with contextlib.suppress(OSError):
                self.course.gradebook_mark.touch()

    @property
    def log_path(self) -> Path:
        return self.course.state / "nbgrader.log"


def submission_numbers(gradebook: Gradebook, stem: str) -> dict[str, str]:
    """Return formgrader's number of each student's submission of a problem, without its grades: they are many."""
    asked = (
        gradebook.db.query(SubmittedAssignment.student_id, SubmittedNotebook.id)
        .join(SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
        .join(Notebook, Notebook.id == SubmittedNotebook.notebook_id)
        .filter(Notebook.name == stem)
    )
    rows: list[Any] = asked.all()
    return {str(student): str(number) for student, number in rows}


def open_gradebook(course: Path) -> Gradebook:
    """Return a course's gradebook, where its configuration puts it. Raises CourseFault for a folder that has none."""
    directory = course_directory(course.absolute(), course_config(course))
    demand_gradebook(Course(course), directory)
    path = gradebook_file(directory)
    if path is not None and not path.is_file():
        raise CourseFault(f"{course} holds no gradebook.db: name a course's folder, or make one: `ftgrade new-course`")
    return Gradebook(directory.db_url, directory.course_id)
