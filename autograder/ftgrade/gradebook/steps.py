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
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import Execute, SaveAutoGrades
from nbgrader.server_extensions import formgrader

from ftgrade.catalog import Catalog, home
from ftgrade.errors import CourseFault, GradingError, StudentFault
from ftgrade.gradebook.canonical import Known, canonical
from ftgrade.grading.grader import Course, Grader
from ftgrade.intake import notebook, quarantine
from ftgrade.judging.problem import Problem
from ftgrade.judging.report import CellNote, CheckReport, Report, booked
from ftgrade.pages.feedback import TEMPLATES, check_html

Notebook = Any
Resources = Any


def configure(c: Any) -> None:
    """Put our steps into an nbgrader configuration; `nbgrader_config.py` calls this and nothing else."""
    make_alembic_findable()
    sources = home().root / "source"
    if not Path("source").is_dir():
        c.CourseDirectory.source_directory = str(sources)
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
    c.HTMLExporter.extra_template_basedirs = [str(TEMPLATES), str(Path(formgrader.__file__).parent / "templates")]
    c.HTMLExporter.filters = {"markdown2html": "ftgrade.pages.formulas.markdown_html"}


def make_alembic_findable() -> None:
    """Let nbgrader find `alembic`, which it calls by name when it makes a gradebook, in an unactivated environment."""
    if shutil.which("alembic") is None:
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def set_aside(*, assignment: str, student: str, notebooks: list[str]) -> None:
    """Set aside unwanted files of a submission before nbgrader copies it (its hook before each conversion)."""
    folder = Path(notebooks[0]).parent
    course = Course(folder.parents[2])
    quarantine.set_aside(folder, course.aside(folder.parent.name, folder.name))


@cache
def grader_of(root: Path) -> Grader:
    """Return the grader of a course, one for this process: it keeps its problems and its sandbox."""
    grader = Grader(home(), Course(root))
    atexit.register(grader.close)
    return grader


def released_cells(gradebook: Gradebook, stem: str) -> list[Known]:
    """Return the cells of a released problem as the gradebook holds them, in the order of its notebook."""
    record = gradebook.find_notebook(stem, stem)
    points = {cell.name: float(cell.max_score) for cell in record.grade_cells}
    answers = {cell.name for cell in record.solution_cells}
    known = [
        Known(
            cell.name, cell.cell_type, cell.source, cell.name in points, cell.name in answers, bool(cell.locked),
            points.get(cell.name),
        )
        for cell in record.source_cells
    ]  # fmt: skip
    order = {name: position for position, name in enumerate(order_of(stem))}
    return sorted(known, key=lambda cell: order.get(cell.grade_id, len(order)))


def order_of(stem: str) -> list[str]:
    """Return the ids of a built notebook's cells, in order."""
    built = nbformat.read(home().leaves(stem).notebook, as_version=4)
    return [cell.metadata.nbgrader.grade_id for cell in built.cells if "nbgrader" in cell.metadata]


def demand_same_release(stem: str, problem: Problem, released: list[Known]) -> None:
    """Raise CourseFault unless the gradebook's checks are the problem's."""
    booked_checks = {cell.grade_id: cell.points for cell in released if cell.grade}
    if booked_checks != {graded.name: graded.points for graded in (*problem.judged, *problem.written)}:
        raise CourseFault(
            f"the gradebook holds other checks of {stem} than autograder/problems/{stem}.py: release it again with "
            f"`ftgrade release {stem}`"
        )


class SubmissionExporter(NotebookExporter):
    """Read an untrusted notebook within bounds and hand on the canonical one; our own files are read as usual."""

    def from_filename(self, filename: str, resources: Any = None, **kw: Any) -> tuple[Notebook, Resources]:  # pyright: ignore[reportIncompatibleMethodOverride]
        converter: Any = self.parent
        if not converter._sanitizing:
            return super().from_filename(filename, resources, **kw)
        path = Path(filename)
        try:
            submission = notebook.read_file(path)
        except StudentFault:
            submission = None
        with Gradebook(converter.coursedir.db_url, converter.coursedir.course_id) as gradebook:
            cells = canonical(submission, released_cells(gradebook, resources["nbgrader"]["notebook"]))
        resources["metadata"] = {"name": path.stem, "path": str(path.parent)}
        document: Any = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        canonical_notebook: Any = nbformat.from_dict(document)
        return self.from_notebook_node(canonical_notebook, resources=resources, **kw)


class OracleExecute(Execute):
    """Write the verdict of our grader under each graded cell, where nbgrader would execute the notebook."""

    def preprocess(self, nb: Notebook, resources: Resources = None, km: Any = None) -> tuple[Notebook, Resources]:
        directory = course_directory(self)
        stem, student = resources["nbgrader"]["notebook"], resources["nbgrader"]["student"]
        grader = grader_of(Path(directory.root).absolute())
        with Gradebook(directory.db_url, directory.course_id) as gradebook:
            demand_same_release(stem, grader.judging(stem).problem, released_cells(gradebook, stem))
        write_report(nb, grader.report(student, stem))
        return nb, resources


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


def course_directory(preprocessor: Any) -> CourseDirectory:
    """Return the course of the converter that a preprocessor works for."""
    return preprocessor.parent.parent.coursedir


def graded_cells(nb: Notebook) -> dict[str, Any]:
    """Return the code cells that carry points, by name."""
    marks = ((cell, cell["metadata"].get("nbgrader")) for cell in nb["cells"] if cell["cell_type"] == "code")
    return {mark["grade_id"]: cell for cell, mark in marks if mark and mark["grade"]}


def score_output(score: float, html: str) -> Any:
    """Return the one output that nbgrader reads a score from, with the words that people read."""
    return output("execute_result", data={"text/plain": repr(score), "text/html": html}, execution_count=None)


def score_of(cell: Any) -> float:
    """Return the score that `score_output` put into a graded cell."""
    return float(cell["outputs"][0]["data"]["text/plain"])


def output(kind: str, **fields: Any) -> Any:
    """Return an output of a cell; nbformat's own makers validate each one, which was most of a booking's time."""
    metadata = {} if kind == "stream" else {"metadata": {}}
    return nbformat.from_dict({"output_type": kind, **metadata, **fields})  # pyright: ignore[reportArgumentType]


def write_report(nb: Notebook, report: Report) -> None:
    """Write a report's verdicts and notes under the cells of a canonical notebook."""
    checks = {check.name: check for check in report.checks}
    for name, cell in graded_cells(nb).items():
        if name in checks:
            write_check(cell, checks[name])
        else:
            cell["outputs"] = [score_output(0.0, "")]
    write_notes(nb, report.notes)
    nb["metadata"]["ftgrade"] = told(report)


def write_check(cell: Any, check: CheckReport) -> None:
    score = booked(check.score, cell["metadata"]["nbgrader"]["points"])
    cell["outputs"] = [score_output(score, check_html(check))]


def write_notes(nb: Notebook, notes: tuple[CellNote, ...]) -> None:
    """Put what the student's own cells printed and drew, or how they failed, under those cells."""
    by_number = {note.number: note for note in notes}
    for cell in nb["cells"]:
        note = by_number.get(cell["metadata"].get("ftgrade", {}).get("number"))
        if note is not None and cell["cell_type"] == "code":
            text = "\n".join(part for part in (note.printed.rstrip("\n"), note.error) if part)
            cell["outputs"] = [output("stream", name="stdout", text=text)] if text else []
            cell["outputs"] += [output("display_data", data={"image/png": one}) for one in note.pictures]


def told(report: Report) -> dict[str, Any]:
    """Return what the feedback page says about the submission as a whole."""
    findings = [finding.words for finding in report.findings]
    return {"title": title_of(home(), report.stem), "state": report.state, "findings": findings}


@cache
def title_of(catalog: Catalog, stem: str) -> str:
    """Return a problem's title, or its stem if nobody gave it one."""
    try:
        return catalog.title(stem)
    except GradingError:
        return stem
