"""Reports to the gradebook, to autograded/ and to feedback/, as nbgrader's own passes leave them.

nbgrader converts a submission three times and commits after each cell: a fifth of a second. Here a submission is one
transaction, two files, and nothing at all if what stands there is still right. The tests hold records, notebook and
page equal to what nbgrader's own commands write.
"""

import datetime
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from nbgrader import api, utils
from nbgrader.api import Gradebook
from nbgrader.coursedir import CourseDirectory
from sqlalchemy import Connection, bindparam, insert, select, text, update
from traitlets.config import Config

from ftgrade.gradebook import late
from ftgrade.gradebook.cells import Notebook, NotebookCell, graded_notebook, released_cells, score_of
from ftgrade.grading.grader import Grader, hash_parts
from ftgrade.intake.gate import line
from ftgrade.intake.notebook import read_below
from ftgrade.intake.quarantine import MAX_OTHER_BYTES, TIMESTAMP, set_aside
from ftgrade.judging.report import Report
from ftgrade.moments import read_stamp

Table = Any
FORM = "2"
"""Which form a booked notebook has: another number books every report again, from what is stored."""
Terms = tuple[datetime.datetime | None, datetime.timedelta | None]
"""When a submission was handed in (UTC), and by how much longer its student may take."""
ASSIGNMENT, NOTEBOOK, CELL, STUDENT, SUBMITTED, SUBMITTED_NOTEBOOK, GRADE, COMMENT = (
    model.__table__
    for model in (
        api.Assignment, api.Notebook, api.BaseCell, api.Student, api.SubmittedAssignment, api.SubmittedNotebook,
        api.Grade, api.Comment,
    )
)  # fmt: skip


FIND_SUBMISSION = (
    select(SUBMITTED.c.id, SUBMITTED.c.timestamp, SUBMITTED.c.extension, SUBMITTED_NOTEBOOK.c.id.label("notebook"))
    .outerjoin_from(
        SUBMITTED,
        SUBMITTED_NOTEBOOK,
        (SUBMITTED_NOTEBOOK.c.assignment_id == SUBMITTED.c.id)
        & (SUBMITTED_NOTEBOOK.c.notebook_id == bindparam("notebook_id")),
    )
    .where(SUBMITTED.c.assignment_id == bindparam("assignment"), SUBMITTED.c.student_id == bindparam("student"))
)
"""What is there of a student's submission."""
INSERT_STUDENT = text(f"INSERT INTO {STUDENT.name} (id) VALUES (:student) ON CONFLICT DO NOTHING")  # noqa: S608
"""Put a student into the gradebook, unless there or put there at this moment by another instructor's run."""


@dataclass(slots=True)
class BookedEntry:
    """What the gradebook holds of one submission: by check its automatic, manual and extra score; comments; penalty.

    Comments are nbgrader's own (`made`) and those that a person `typed`. Also when it was handed in (UTC), and by how
    much longer its student may take.
    """

    automatic: dict[str, float | None] = field(default_factory=dict)
    manual: dict[str, float | None] = field(default_factory=dict)
    extra: dict[str, float | None] = field(default_factory=dict)
    made: dict[str, str | None] = field(default_factory=dict)
    typed: dict[str, str | None] = field(default_factory=dict)
    penalty: float | None = None
    handed_in: datetime.datetime | None = None
    extension: datetime.timedelta | None = None

    def score(self, name: str) -> float:
        """Return a check's score: a person's if there is one, else the grader's, and what was given on top."""
        given = self.manual.get(name)
        given = self.automatic.get(name) if given is None else given
        return 0.0 if given is None else given + (self.extra.get(name) or 0.0)

    def total(self) -> float:
        return round(sum(map(self.score, self.automatic)), 6)

    def comment(self, name: str) -> str | None:
        typed = self.typed.get(name)
        return self.made.get(name) if typed is None else typed


@dataclass(frozen=True, slots=True)
class PageMaker:
    """How a feedback page is made of a booked notebook, and a name for that which changes with it."""

    render: Callable[[Notebook, dict[str, Any]], str]
    digest: str


class Ledger:
    """The gradebook's records of one released problem, held open while a class is booked."""

    def __init__(self, grader: Grader, directory: CourseDirectory, config: Config, stem: str, pages: PageMaker) -> None:
        self.course, self.directory, self.stem, self.pages = grader.course, directory, stem, pages
        settings: Any = directory
        gradebook = Gradebook(settings.db_url, settings.course_id)
        self.engine = gradebook.engine
        with gradebook:
            self.released, self.names = released_cells(gradebook, stem), full_names(gradebook)
            record: Any = gradebook.find_notebook(stem, stem)
            self.assignment_id, self.notebook_id = record.assignment.id, record.id
            self.due: datetime.datetime | None = record.assignment.duedate
            self.kernelspec = record.kernelspec
            self.graded = {cell.name: (cell.id, float(cell.max_score)) for cell in record.grade_cells}
            self.answers = {cell.name: cell.id for cell in record.solution_cells}
        self.late_policy = late.late_plugin(self.course.root, config)
        self.extensions = late.read_extensions(self.course)
        self.last_run = grader.last_run(stem)
        self.without_page: set[str] = set()
        """The students whose page isn't made when a report of theirs is booked: it tells less, or stands."""
        with self.engine.connect() as connection:
            self.entries = self.read_entries(connection)

    def close(self) -> None:
        """Keep what the next run can skip, and let go of the gradebook."""
        try:
            self.last_run.save()
        finally:
            self.engine.dispose()

    def read_terms(self) -> None:
        """Read again when the problem is due and for whom later, which may change while the ledger is open."""
        with self.engine.connect() as connection:
            self.due = connection.execute(
                select(ASSIGNMENT.c.duedate).where(ASSIGNMENT.c.id == self.assignment_id)
            ).scalar()
        self.extensions = late.read_extensions(self.course)

    def due_for(self, student: str) -> datetime.datetime | None:
        """Return when a student's work is due (UTC), with an extension of the course's list."""
        until = self.extensions.get((student, self.stem))
        return self.due if self.due is None or until is None else max(self.due, until)

    def note_trouble(self, student: str, trouble: str) -> None:
        """Note why a submission could not be booked, or that it was; `ftgrade todo` tells of it."""
        if self.last_run[student].trouble != trouble:
            self.last_run[student] = replace(self.last_run[student], trouble=trouble)

    def demand_working(self) -> None:
        """Raise what the next submission would meet too, whoever's it is: a locked gradebook, a full disk."""
        asked = update(ASSIGNMENT).where(ASSIGNMENT.c.id == self.assignment_id)
        with self.engine.begin() as connection:
            connection.execute(asked.values(name=ASSIGNMENT.c.name))
        with tempfile.TemporaryFile(dir=self.course.state) as file:
            file.write(bytes(2**20))

    # ------------------------------------------------------------------------------------------- what stands there

    def read_entries(self, connection: Connection, student: str | None = None) -> dict[str, BookedEntry]:
        """Return what is booked for every student, or for one, in two queries."""
        found: dict[str, BookedEntry] = defaultdict(BookedEntry)
        scores = GRADE.c.auto_score, GRADE.c.manual_score, GRADE.c.extra_credit
        lateness = SUBMITTED_NOTEBOOK.c.late_submission_penalty, SUBMITTED.c.timestamp, SUBMITTED.c.extension
        asked = self.cell_query(GRADE, *lateness, *scores, student=student)
        graded: list[Any] = list(connection.execute(asked))
        for owner, name, penalty, handed_in, extension, automatic, manual, extra in graded:
            one = found[owner]
            one.automatic[name], one.manual[name], one.extra[name] = automatic, manual, extra
            one.penalty, one.handed_in, one.extension = penalty, handed_in, extension
        asked = self.cell_query(COMMENT, COMMENT.c.manual_comment, COMMENT.c.auto_comment, student=student)
        commented: list[Any] = list(connection.execute(asked))
        for owner, name, typed, made in commented:
            found[owner].typed[name], found[owner].made[name] = typed, made
        return found

    def cell_query(self, table: Table, *columns: Any, student: str | None) -> Any:
        """Return the query for columns of a table that has a row for each cell, each with its student and its cell."""
        notebooks = SUBMITTED.join(SUBMITTED_NOTEBOOK, SUBMITTED_NOTEBOOK.c.assignment_id == SUBMITTED.c.id)
        cells = notebooks.join(table, table.c.notebook_id == SUBMITTED_NOTEBOOK.c.id)
        cells = cells.join(CELL, CELL.c.id == table.c.cell_id)
        asked: Any = select(SUBMITTED.c.student_id, CELL.c.name, *columns).select_from(cells)
        asked = asked.where(SUBMITTED.c.assignment_id == self.assignment_id)
        return asked if student is None else asked.where(SUBMITTED.c.student_id == student)

    def is_booked(self, report: Report) -> bool:
        """Say whether a report is booked already, by the last run's word and by the gradebook's."""
        student = report.student
        if self.last_run[student].booked != report_digest(report) or not self.notebook_path(student).is_file():
            return False
        entry = self.entries.get(student)
        return (
            entry is not None
            and all(entry.automatic.get(check.name) == check.score for check in report.checks)
            and self.terms_of(student, entry) == (entry.handed_in, entry.extension)
            and entry.penalty == self.penalty_of(student, entry)
        )

    # ------------------------------------------------------------------------------------------------------ booking

    def book(self, report: Report) -> None:
        """Book a report and show it on a page, unless both stand. Raises SQLAlchemyError, OSError or OurFault."""
        student = report.student
        if not self.is_booked(report):
            # A report that was found needn't have looked into the folder's folders: no link is copied out of there.
            set_aside(self.course.notebook(student, self.stem).parent, self.course.quarantine(student, self.stem))
            document = graded_notebook(report, self.released, self.kernelspec)
            with self.engine.begin() as connection:
                entry = self.write_records(connection, student, document)
                self.write_files(student, document)
            self.entries[student] = entry
            page = self.last_run[student].page if student in self.without_page else ""
            self.last_run[student] = replace(self.last_run[student], booked=report_digest(report), page=page)
            if student not in self.without_page:
                self.write_page(student, document)
        elif student in self.without_page:
            return
        elif not self.page_stands(student):
            self.write_page(student, nbformat.v4.reads(self.notebook_path(student).read_text("utf-8")))

    def write_records(self, connection: Connection, student: str, document: Notebook) -> BookedEntry:
        """Write the records of one submission: scores, comments, what the late policy takes; return what stands now."""
        asked = {"assignment": self.assignment_id, "notebook_id": self.notebook_id, "student": student}
        there = connection.execute(FIND_SUBMISSION, asked).first()
        entry = self.read_entries(connection, student)[student] if there else BookedEntry()
        if there:
            entry.handed_in, entry.extension = there.timestamp, there.extension
        entry.handed_in, entry.extension = self.terms_of(student, entry)
        grades: dict[str, dict[str, Any]] = {}
        comments: dict[str, dict[str, Any]] = {}
        for cell in document["cells"]:
            mark = cell["metadata"].get("nbgrader", {})
            name = mark.get("grade_id")
            unwritten = name in self.answers and is_unchanged(cell)
            if name in self.graded:
                score = 0.0 if unwritten else None if name in self.answers else score_of(cell)
                by_hand = score is None or entry.manual.get(name) is not None
                waits = by_hand or document["metadata"]["ftgrade"]["state"] == "ours"
                grades[self.graded[name][0]] = {"auto_score": score, "needs_manual_grade": waits}
                entry.automatic[name] = score
            if name in self.answers:
                entry.made[name] = "No response." if unwritten else None
                comments[self.answers[name]] = {"auto_comment": entry.made[name]}
        entry.penalty = self.penalty_of(student, entry)
        submitted = self.put_submission(connection, student, entry, there)
        upsert_rows(connection, GRADE, submitted, grades, there is None)
        upsert_rows(connection, COMMENT, submitted, comments, there is None)
        return entry

    def put_submission(self, connection: Connection, student: str, entry: BookedEntry, there: Any) -> str:
        """Put the records of a student's submission, of which these may be there; return its notebook's id."""
        terms = {"timestamp": entry.handed_in, "extension": entry.extension}
        taken = {"late_submission_penalty": entry.penalty}
        if there is None:
            connection.execute(INSERT_STUDENT, {"student": student})
            submission = {"id": api.new_uuid(), "assignment_id": self.assignment_id, "student_id": student}
            connection.execute(insert(SUBMITTED), submission | terms)
        else:
            submission = {"id": there.id}
            connection.execute(update(SUBMITTED).where(SUBMITTED.c.id == there.id).values(terms))
        if there is None or there.notebook is None:
            record = {"id": api.new_uuid(), "assignment_id": submission["id"], "notebook_id": self.notebook_id}
            connection.execute(insert(SUBMITTED_NOTEBOOK), record | taken)
            return record["id"]
        connection.execute(update(SUBMITTED_NOTEBOOK).where(SUBMITTED_NOTEBOOK.c.id == there.notebook).values(taken))
        return there.notebook

    def terms_of(self, student: str, entry: BookedEntry) -> Terms:
        """Return a submission's terms as its folder and the course tell them, else as they are booked."""
        stamped = read_stamp(self.course.notebook(student, self.stem).parent / TIMESTAMP)
        until = self.extensions.get((student, self.stem))
        return stamped or entry.handed_in, late.extension_length(self.due, until, entry.extension)

    def penalty_of(self, student: str, entry: BookedEntry) -> float | None:
        """Return what the course's late policy takes, within 0 and the score, or None if it takes nothing."""
        if entry.handed_in is None or self.due is None:
            return None
        over = (entry.handed_in - self.due - (entry.extension or datetime.timedelta())).total_seconds()
        if over <= 0:
            return None
        score = entry.total()
        taken = self.late_policy.late_submission_penalty(student, score, over)
        return None if taken is None else min(max(0.0, float(taken)), score)

    def write_files(self, student: str, document: Notebook) -> None:
        """Put the notebook, and the files that came with it, where nbgrader's own pass puts them."""
        goal = self.notebook_path(student).parent
        partial = self.course.state / "partial" / self.stem / student
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            self.fill_folder(partial, self.course.notebook(student, self.stem).parent)
            # nbformat's own writer would take a third of a booking's time, for lines that nobody compares by eye.
            (partial / f"{self.stem}.ipynb").write_text(json.dumps(document, ensure_ascii=False), "utf-8")
            for path in partial.rglob("*"):
                path.chmod(0o700 if path.is_dir() else 0o400)
            if goal.exists():
                utils.rmtree(str(goal))
            goal.parent.mkdir(parents=True, exist_ok=True)
            partial.rename(goal)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # the disk may be full
            raise

    def fill_folder(self, goal: Path, handed_in: Path) -> None:
        """Copy the files beside a submitted notebook, then those beside the problem's source, which replace them."""
        for name, path in [] if handed_in.parent.is_symlink() else self.files_to_copy(handed_in):
            (goal / name).parent.mkdir(parents=True, exist_ok=True)
            (goal / name).write_bytes(read_below(handed_in.parents[1], path, MAX_OTHER_BYTES))
        for name, path in self.source_files:
            (goal / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, goal / name)

    @cached_property
    def source_files(self) -> list[tuple[Path, Path]]:
        """Return the files beside the problem's source."""
        directory: Any = self.directory
        source = Path(directory.format_path(directory.source_directory, ".", self.stem))
        return self.files_to_copy(self.course.root / source)

    def files_to_copy(self, folder: Path) -> list[tuple[Path, Path]]:
        """Return the files that nbgrader copies from a folder, all but its notebooks, each with its name in there."""
        directory: Any = self.directory
        if [path.name for path in folder.glob("*")] == [f"{self.stem}.ipynb"]:
            return []  # as nearly always; nbgrader would try its patterns one by one
        found = map(Path, utils.find_all_files(str(folder), [*directory.ignore, "*.ipynb"]))
        return [(path.relative_to(folder), path) for path in found]

    def notebook_path(self, student: str) -> Path:
        return self.course.root / "autograded" / student / self.stem / f"{self.stem}.ipynb"

    # ----------------------------------------------------------------------------------------------------- feedback

    def page_path(self, student: str) -> Path:
        return self.course.root / "feedback" / student / self.stem / f"{self.stem}.html"

    def page_state(self, student: str) -> str:
        """Return a short name of all that a student's page shows."""
        booked, entry = self.last_run[student].booked, self.entries[student]
        shown = [*map(entry.score, self.graded), *map(entry.comment, self.answers), entry.penalty]
        shown.append(self.names.get(student))
        return hash_parts({"booked": booked, "standing": repr(shown), "template": self.pages.digest})

    def page_stands(self, student: str) -> bool:
        """Say whether a student's page shows all that is booked."""
        return self.last_run[student].page == self.page_state(student) and self.page_path(student).is_file()

    def write_page(self, student: str, document: Notebook) -> None:
        """Write a student's feedback page from the booked notebook."""
        entry = self.entries[student]
        for cell in document["cells"]:
            mark = cell["metadata"].get("nbgrader", {})
            name = mark.get("grade_id")
            if name in self.graded:
                mark |= {"score": entry.score(name), "points": self.graded[name][1]}
            if name in self.answers:
                mark["comment"] = entry.comment(name)
        penalty = entry.penalty or 0.0
        self.put_page(student, document, entry.total() - penalty, penalty)
        self.last_run[student] = replace(self.last_run[student], page=self.page_state(student))

    def show(self, report: Report, state: str) -> None:
        """Write a page of a report that isn't booked, such as one on the public cases; `state` names what it shows."""
        document = graded_notebook(report, self.released, self.kernelspec)
        scores = {check.name: check.score for check in report.checks}
        for cell in document["cells"]:
            mark = cell["metadata"].get("nbgrader", {})
            if (name := mark.get("grade_id")) in self.graded:
                mark |= {"score": scores.get(name, 0.0), "points": self.graded[name][1]}
        self.put_page(report.student, document, report.score, 0.0)
        self.last_run[report.student] = replace(self.last_run[report.student], page=state)

    def put_page(self, student: str, document: Notebook, score: float, penalty: float) -> None:
        """Write a page in one step."""
        goal, most = self.page_path(student), sum(points for _, points in self.graded.values())
        keys = {"notebook": self.stem, "score": score, "max_score": most, "late_penalty": penalty}
        keys |= {"student": student, "name": self.names.get(student, "")}
        goal.parent.mkdir(parents=True, exist_ok=True)
        partial = goal.with_suffix(".partial")
        partial.write_text(self.pages.render(document, {"nbgrader": keys}), "utf-8")
        partial.replace(goal)


def report_digest(report: Report) -> str:
    """Return a short name of all that a report books and shows."""
    said = "\n".join(f"{finding.kind} {finding.words}" for finding in report.findings)
    return hash_parts({"form": FORM, "state": report.state, "key": report.key, "said": said})


def full_names(gradebook: Gradebook) -> dict[str, str]:
    """Return the full name of each student who has one, in words that are safe to show."""
    records: list[Any] = list(gradebook.students)
    names = {str(one.id): " ".join(filter(None, (one.first_name, one.last_name))) for one in records}
    return {student: line(name) for student, name in names.items() if name}


def is_unchanged(cell: NotebookCell) -> bool:
    """Say whether an answer's cell is as it was released, by nbgrader's own measure."""
    return cell["metadata"]["nbgrader"]["checksum"] == utils.compute_checksum(nbformat.from_dict(cell))  # pyright: ignore[reportArgumentType]


def upsert_rows(
    connection: Connection, table: Table, submitted: str, values: dict[str, dict[str, Any]], is_new: bool
) -> None:
    """Put a submitted notebook's rows of a table that has one for each cell: by the cell's id what to write there."""
    known: dict[str, str] = {}
    if not is_new:
        rows = connection.execute(select(table.c.cell_id, table.c.id).where(table.c.notebook_id == submitted))
        known |= map(tuple, rows)
    missing = [{"cell_id": cell, **row} for cell, row in values.items() if cell not in known]
    if missing:
        owner = {"notebook_id": submitted}
        connection.execute(insert(table), [{"id": api.new_uuid(), **owner, **row} for row in missing])
    there = [{"known": known[cell], **row} for cell, row in values.items() if cell in known]
    if there:
        connection.execute(update(table).where(table.c.id == bindparam("known")), there)


__all__ = ["BookedEntry", "Ledger", "PageMaker", "full_names", "report_digest"]
