"""Drive nbgrader's own converters over a course: release, book every submission, write feedback."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook, InvalidEntry, MissingEntry, Student
from nbgrader.apps.api import NbGraderAPI
from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader
from traitlets.log import get_logger

from ftgrade.errors import CourseFault
from ftgrade.grade import Course
from ftgrade.nbgrader_step import configure, demand_same_release, grader_of, released_cells

CONFIG_FILE = "nbgrader_config.py"
CONFIG_TEXT = "from ftgrade.nbgrader_step import configure\n\nconfigure(get_config())\n"

# nbgrader's tables have no index that leads from a student or a submission to what hangs on it.
INDEXES = tuple(
    f"CREATE INDEX IF NOT EXISTS ftgrade_{table}_{column} ON {table} ({column})"
    for table, column in (
        ("grade", "notebook_id"), ("comment", "notebook_id"), ("submitted_notebook", "assignment_id"),
        ("submitted_notebook", "notebook_id"), ("submitted_assignment", "assignment_id"),
        ("submitted_assignment", "student_id"),
    )
)  # fmt: skip


class EverySubmission(Autograde):
    """nbgrader's autograde over every folder that was handed in, whether or not it holds the notebook."""

    tick: Callable[[], object]

    def init_notebooks(self) -> None:
        directory: Any = self.coursedir
        stem = directory.assignment_id
        folders = Path(directory.root, directory.submitted_directory).glob(f"*/{stem}")
        self.assignments = {str(folder): [str(folder / f"{stem}.ipynb")] for folder in sorted(folders)}

    def convert_single_notebook(self, notebook_filename: str) -> None:
        super().convert_single_notebook(notebook_filename)
        self.tick()


def demand_named(directory: Any) -> None:
    """Raise CourseFault for a course without a name in a database that, unlike SQLite, holds records to it."""
    if not directory.course_id and not directory.db_url.startswith("sqlite"):
        raise CourseFault(
            f"a gradebook at {directory.db_url.partition(':')[0]} needs the course's name: add "
            f'`c.CourseDirectory.course_id = "{Path(directory.root).name}"` to {CONFIG_FILE}'
        )


class Book:
    """The gradebook and the folders of one course, through nbgrader's interface."""

    def __init__(self, course: Course) -> None:
        self.course = course
        root = course.root.absolute()
        with contextlib.chdir(root):
            config = Config()
            configure(config)
            if Path(CONFIG_FILE).is_file():  # where an instructor names another gradebook (`db_url`), among others
                config.merge(PyFileConfigLoader(CONFIG_FILE, path=str(root)).load_config())
        config.CourseDirectory.root = str(root)
        self.config = config
        directory: Any = CourseDirectory(config=config)
        demand_named(directory)
        self.api = NbGraderAPI(directory, config=config)

    def set_up(self) -> None:
        """Write the course's `nbgrader_config.py` if there is none, so that nbgrader's own commands use our steps."""
        path = self.course.root / CONFIG_FILE
        if not path.exists():
            path.write_text(CONFIG_TEXT)

    def release(self, stem: str) -> None:
        """Make the student's notebook in `release/` and its record in the gradebook. Raises CourseFault."""
        self.set_up()
        with self.logged():
            result = self.api.generate_assignment(stem, force=True, create=True)
        if not result["success"]:
            raise CourseFault(f"nbgrader could not release {stem}: {result.get('error') or result.get('log', '')}")

    def demand_released(self, stem: str) -> None:
        """Release a problem that the gradebook doesn't know; raise CourseFault if it knows another version of it."""
        directory: Any = self.api.coursedir
        try:
            with Gradebook(directory.db_url, directory.course_id) as gradebook:
                released = released_cells(gradebook, stem)
        except MissingEntry:
            return self.release(stem)
        return demand_same_release(stem, grader_of(self.course.root.absolute()).judging(stem).problem, released)

    def book(self, stem: str, tick: Callable[[], object]) -> list[str]:
        """Book every submission of a problem; return the students whose booking failed."""
        directory: Any = self.api.coursedir
        self.enrol(self.course.students(stem))
        converter = EverySubmission(coursedir=directory, parent=self.api)
        converter.force = True
        converter.tick = tick
        with self.logged(), self.assignment(stem), contextlib.suppress(NbGraderException):
            converter.start()
        autograded = self.course.root / "autograded"
        return [
            student
            for student in self.course.students(stem)
            if not (autograded / student / stem / f"{stem}.ipynb").is_file()
        ]

    def enrol(self, students: list[str]) -> None:
        """Put students into the gradebook who aren't there, where another instructor may be doing the same."""
        directory: Any = self.api.coursedir
        with self.logged(), Gradebook(directory.db_url, directory.course_id) as gradebook:
            known = {str(name) for (name,) in gradebook.db.query(Student.id)}
            for student in sorted(set(students) - known):
                with contextlib.suppress(InvalidEntry):
                    gradebook.add_student(student)

    def write_feedback(self, stem: str) -> None:
        """Write the feedback page of every booked submission. Raises CourseFault."""
        with self.logged():
            result = self.api.generate_feedback(stem, force=True)
        if not result["success"]:
            raise CourseFault(f"nbgrader could not write the feedback of {stem}: {result.get('error', '')}")

    @contextlib.contextmanager
    def assignment(self, stem: str) -> Generator[None]:
        directory: Any = self.api.coursedir
        before, directory.assignment_id = directory.assignment_id, stem
        try:
            yield
        finally:
            directory.assignment_id = before

    @contextlib.contextmanager
    def logged(self) -> Generator[None]:
        """Send what nbgrader logs to a file of the course instead of the terminal."""
        logger: Any = get_logger()
        handlers, propagates = list(logger.handlers), logger.propagate
        handler = logging.FileHandler(self.log_path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.handlers, logger.propagate = [handler], False
        try:
            with warnings.catch_warnings():
                # nbgrader 0.9.6 builds records in an order that SQLAlchemy 2.1 warns about, and books them all.
                warnings.filterwarnings("ignore", message="Object of type <Submitted", category=SAWarning)
                yield
        finally:
            logger.handlers, logger.propagate = handlers, propagates
            handler.close()

    @property
    def log_path(self) -> Path:
        return self.course.state / "nbgrader.log"
