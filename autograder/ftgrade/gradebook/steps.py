"""Our place in nbgrader's pipeline, taken by configuration alone.

nbgrader converts a submission twice: `submitted/` to `autograded/` (sanitising), then `autograded/` to itself
(grading). `SubmissionExporter` reads the untrusted file in the first pass; `OracleExecute` and `OracleSaveGrades`
stand where nbgrader executes the notebook and reads scores out of its outputs. No student code runs in this process.
"""

import atexit
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbgrader.api import Gradebook
from nbgrader.preprocessors import Execute, SaveAutoGrades
from nbgrader.server_extensions import formgrader
from sqlalchemy.engine import URL, make_url

from ftgrade.catalog import home
from ftgrade.course import Course
from ftgrade.errors import StudentFault
from ftgrade.gradebook.cells import (
    Notebook,
    demand_same_release,
    graded_cells,
    graded_notebook,
    released_cells,
    score_output,
)
from ftgrade.gradebook.late import course_directory
from ftgrade.grading.grader import Grader
from ftgrade.intake import quarantine

Resources = Any


def configure(c: Any) -> None:
    """Put our steps into an nbgrader configuration; `nbgrader_config.py` calls this and nothing else."""
    make_alembic_findable()
    sources = home().root / "source"
    if not Path("source").is_dir():
        c.CourseDirectory.source_directory = str(sources)
    if (url := gradebook_url(Path.cwd())) != f"sqlite:///{Path.cwd() / 'gradebook.db'}":
        c.CourseDirectory.db_url = url  # nbgrader's own would lead to another file
    # `generate_solution --force` empties the folder that it writes to: keep it away from our solutions/.
    c.CourseDirectory.solution_directory = ".ftgrade/solution"
    c.CourseDirectory.ignore = [
        ".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback", ".ftgrade", *quarantine.START_UP_FILES,
    ]  # fmt: skip
    c.ZipCollectApp.extractor_plugin = "ftgrade.intake.archives.BoundedExtractor"
    c.Autograde.pre_convert_hook = "ftgrade.gradebook.steps.set_aside"
    c.Autograde.exporter_class = "ftgrade.gradebook.steps.SubmissionExporter"
    c.Autograde.sanitize_preprocessors = [
        "nbgrader.preprocessors.ClearOutput",
        "nbgrader.preprocessors.DeduplicateIds",
        "nbgrader.preprocessors.OverwriteKernelspec",
        "nbgrader.preprocessors.OverwriteCells",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    c.Autograde.autograde_preprocessors = [
        "ftgrade.gradebook.steps.OracleExecute",
        "ftgrade.gradebook.steps.OracleSaveGrades",
        "ftgrade.gradebook.late.LatePenalties",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    # The second folder holds formgrader's own page, which is looked up by the same setting.
    templates = Path(__file__).parents[1] / "pages" / "templates"
    c.HTMLExporter.extra_template_basedirs = [str(templates), str(Path(formgrader.__file__).parent / "templates")]
    c.HTMLExporter.filters = {
        "markdown2html": "ftgrade.pages.formulas.markdown_html",
        "prose": "ftgrade.pages.prose.prose",
        "code_parts": "ftgrade.pages.prose.code_parts",
    }


def gradebook_url(root: Path) -> str:
    """Return the address of a course's gradebook, as nbgrader writes it wherever that leads to the right file.

    In an address, `%20` in a folder's name is a space, and what follows `?` is no part of the path.

    >>> gradebook_url(Path("/a/b")), gradebook_url(Path("/a/what?"))
    ('sqlite:////a/b/gradebook.db', 'sqlite:////a/what%3F/gradebook.db')
    """
    path = str(root / "gradebook.db")
    plain = f"sqlite:///{path}"
    return plain if make_url(plain).database == path else URL.create("sqlite", database=path).render_as_string()


def make_alembic_findable() -> None:
    """Let nbgrader find `alembic`, which it calls by name when it makes a gradebook, in an unactivated environment."""
    if shutil.which("alembic") is None:
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def set_aside(*, assignment: str, student: str, notebooks: list[str]) -> None:
    """Set aside unwanted files of a submission before nbgrader copies it (its hook before each conversion)."""
    folder = Path(notebooks[0]).parent
    course = Course(folder.parents[2])
    quarantine.set_aside(folder, course.quarantine(folder.parent.name, folder.name))


@cache
def course_grader(root: Path) -> Grader:
    """Return the grader of a course, one for this process: it keeps its problems and its sandbox."""
    grader = Grader(home(), Course(root))
    atexit.register(grader.close)
    return grader


class SubmissionExporter(NotebookExporter):
    """Judge an untrusted notebook, and hand on the canonical one; our own files are read as usual."""

    def from_filename(self, filename: str, resources: Any = None, **kw: Any) -> tuple[Notebook, Resources]:  # pyright: ignore[reportIncompatibleMethodOverride]
        converter: Any = self.parent
        if not converter._sanitizing:
            return super().from_filename(filename, resources, **kw)
        path = Path(filename)
        if path.parent.parent.is_symlink():  # nbgrader has copied the other files from where it leads to
            raise StudentFault("not-a-file", f"The folder {path.parent.parent.name} is a link.")
        resources["metadata"] = {"name": path.stem, "path": str(path.parent)}
        keys = resources["nbgrader"]
        document = judged_notebook(converter.coursedir, keys["notebook"], keys["student"])
        return self.from_notebook_node(nbformat.from_dict(document), resources=resources, **kw)  # pyright: ignore[reportArgumentType]


class OracleExecute(Execute):
    """Put the judged notebook where nbgrader would execute one: what is booked is what was judged."""

    def preprocess(self, nb: Notebook, resources: Resources = None, km: Any = None) -> tuple[Notebook, Resources]:
        document = judged_notebook(
            course_directory(self), resources["nbgrader"]["notebook"], resources["nbgrader"]["student"]
        )
        nb.cells = nbformat.from_dict(document["cells"])  # pyright: ignore[reportArgumentType]
        nb.metadata["ftgrade"] = document["metadata"]["ftgrade"]
        return nb, resources


def judged_notebook(directory: Any, stem: str, student: str) -> Notebook:
    """Return the notebook of a submission with its verdicts. Raises CourseFault if another problem was released."""
    grader = course_grader(Path(directory.root).absolute())
    with Gradebook(directory.db_url, directory.course_id) as gradebook:
        released = released_cells(gradebook, stem)
    demand_same_release(stem, grader.outline(stem), released)
    return graded_notebook(grader.grade(student, stem), released)


class OracleSaveGrades(SaveAutoGrades):
    """Book the scores; a grade whose cell carries no single score of ours is booked as 0, never as nbgrader's full."""

    def preprocess(self, nb: Notebook, resources: Resources) -> tuple[Notebook, Resources]:
        for cell in graded_cells(nb).values():
            if [output.output_type for output in cell.outputs] != ["execute_result"]:
                cell.outputs = [score_output(0.0, "")]
        keys = resources["nbgrader"]
        with Gradebook(keys["db_url"], course_directory(self).course_id) as gradebook:
            for grade in gradebook.find_submission_notebook(
                keys["notebook"], keys["assignment"], keys["student"]
            ).grades:
                grade.auto_score, grade.needs_manual_grade = 0.0, False
            gradebook.db.commit()
        nb, resources = super().preprocess(nb, resources)
        if nb.metadata.get("ftgrade", {}).get("state") == "ours":
            with Gradebook(keys["db_url"], course_directory(self).course_id) as gradebook:
                record = gradebook.find_submission_notebook(keys["notebook"], keys["assignment"], keys["student"])
                for grade in record.grades:
                    grade.needs_manual_grade = True
                gradebook.db.commit()
        return nb, resources
