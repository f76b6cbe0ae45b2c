"""The gradebook as the files that Canvas, Moodle, Gradescope and spreadsheets read: plugins of `nbgrader export`.

    nbgrader export --exporter ftgrade.exporters.Canvas --to canvas.csv

A problem's score is what nbgrader booked, less the late penalty, and never below 0. A file depends on the gradebook,
the roster and the settings alone. Names, ids and addresses were typed by people, and spreadsheets run what looks like a
formula: `safe` puts an apostrophe before it. Every file follows RFC 4180; only `Csv`, made for spreadsheets, has a BOM.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from nbgrader.api import Gradebook
from nbgrader.plugins import ExportPlugin
from traitlets import Dict, Enum, Unicode

from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.guard import Mishap, guarded
from ftgrade.intake.gate import line, safe

Cell = str | float | None


@dataclass(frozen=True, slots=True)
class ProblemColumn:
    """One problem: its name, the header of its column, its points, and its checks as (notebook, cell)."""

    name: str
    header: str
    points: float
    checks: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ProblemScore:
    """What one student got for one problem: points in all, the late penalty, points by check, and when."""

    points: float
    penalty: float
    checks: dict[tuple[str, str], float]
    submitted: datetime | None
    late_seconds: int

    @property
    def score(self) -> float:
        return max(0.0, self.points - self.penalty)


@dataclass(frozen=True, slots=True)
class Person:
    """One student, with a mark for each problem that they handed in."""

    id: str
    first_name: str
    last_name: str
    email: str
    lms_id: str
    marks: dict[str, ProblemScore]

    @property
    def sortable_name(self) -> str:
        return ", ".join(part for part in (self.last_name, self.first_name) if part) or self.id


def format_number(value: float) -> str:
    """Return a number of points with at most five decimals (Moodle's limit), never in exponents.

    >>> format_number(10.0), format_number(0.1 + 0.2), format_number(8.25), format_number(1e-9)
    ('10', '0.3', '8.25', '0')
    """
    return f"{value:.5f}".rstrip("0").rstrip(".")


def csv_text(rows: Iterable[Sequence[Cell]], missing: str = "") -> str:
    """Return the rows as CSV: texts made safe, numbers as they are, and `missing` for None.

    >>> csv_text([["-1", 0.5, None]], "-")
    "'-1,0.5,-\\r\\n"
    """
    file = io.StringIO()
    # Lines end in "\r\n", as RFC 4180 says: with "\n", Python 3.11 leaves a name that holds "\r" unquoted.
    csv.writer(file).writerows([csv_cell(cell, missing) for cell in row] for row in rows)
    return file.getvalue()


def csv_cell(cell: Cell, missing: str) -> str:
    if cell is None:
        return missing
    return safe(line(cell)) if isinstance(cell, str) else format_number(cell)


class GradeTable(ExportPlugin):
    """What the exports share: who and what is exported, in which order, and how it is written."""

    columns: Any = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="the header of a problem's column by the problem's name, where the other system calls it otherwise",
    ).tag(config=True)

    file_name: ClassVar[str]
    encoding: ClassVar[str] = "utf-8"
    missing: ClassVar[str] = ""

    def rows(self, problems: Sequence[ProblemColumn], people: Sequence[Person]) -> Iterator[Sequence[Cell]]:
        """Yield the header and every row."""
        raise NotImplementedError

    def export(self, gradebook: Gradebook) -> None:
        """Write the file that `--to` names, or say in one line why not, as nbgrader's other commands do."""
        try:
            self.write(gradebook, Path(self.to or self.file_name))
        except CourseFault as fault:
            self.log.error("%s", fault)
            raise SystemExit(1) from None

    def write(self, gradebook: Gradebook, target: Path) -> None:
        """Write the file. Raises CourseFault for a folder that isn't there, equal headers and an unreadable roster."""
        problems = self.problems(gradebook)
        people = self.people(gradebook, problems)
        if not target.absolute().parent.is_dir():
            raise CourseFault(f"the folder of --to {target} doesn't exist: make it, or name another file")
        target.write_bytes(csv_text(self.rows(problems, people), self.missing).encode(self.encoding))
        self.log.info("Wrote %d students and %d problems to %s", len(people), len(problems), target)

    def problems(self, gradebook: Gradebook) -> list[ProblemColumn]:
        """Return the chosen problems by name."""
        records: dict[str, Any] = {str(record.name): record for record in gradebook.assignments}
        problems = [problem_column(records[name], self.columns) for name in self.pick(sorted(records), self.assignment)]
        headers = [problem.header for problem in problems]
        if twice := sorted({header for header in headers if headers.count(header) > 1}):
            raise CourseFault(f"two problems share a column, {twice}: mend {type(self).__name__}.columns")
        return problems

    def people(self, gradebook: Gradebook, problems: Sequence[ProblemColumn]) -> list[Person]:
        """Return the chosen students: first the roster's in its order, then the others by id."""
        records: dict[str, Any] = {str(record.id): record for record in gradebook.students}
        marks = {problem.name: self.marks(gradebook, problem.name) for problem in problems}
        roster = [student for student in self.roster() if student in records]
        everybody = list(dict.fromkeys([*roster, *sorted(records)]))
        found = [read_person(records[student], marks) for student in self.pick(everybody, self.student)]
        for one in found:
            self.warn_if_escaped(one)
        return found

    def marks(self, gradebook: Gradebook, problem: str) -> dict[str, ProblemScore]:
        """Return the marks of a problem by student; tell how many wait for a person's grade."""
        submissions: list[Any] = gradebook.assignment_submissions(problem)
        if waiting := sum(bool(submission.needs_manual_grade) for submission in submissions):
            self.log.warning("%s: %d submissions still need a person's grade in formgrader", problem, waiting)
        found: dict[str, ProblemScore] = {}
        for submission in submissions:
            one = guarded(lambda submission=submission: problem_score(submission))
            if isinstance(one, Mishap):
                self.log.warning("%s, %s: not exported, %s", submission.student_id, problem, line(one.words))
            else:
                found[submission.student_id] = one
        return found

    def pick(self, names: list[str], wanted: Sequence[Any]) -> list[str]:
        """Return the names that the command line asks for, in their order; without a wish all of them."""
        asked_for = [str(one) for one in wanted]
        for name in sorted(set(asked_for) - set(names)):
            self.log.warning("%r is not in the gradebook and is left out", name)
        return [name for name in names if name in asked_for] if asked_for else names

    def roster(self) -> list[str]:
        """Return the students of the course's roster; outside a course, and without a roster, nobody."""
        directory: Any = getattr(self.parent, "coursedir", None)
        if directory is None or not Path(directory.root, ".ftgrade").is_dir():
            return []
        return Course(Path(directory.root)).roster()

    def warn_if_escaped(self, one: Person) -> None:
        """Tell who won't be recognised by another system, because their id or address had to be made safe."""
        for text in (one.id, one.email):
            if safe(text) != text:
                self.log.warning(
                    "%r looks like a formula and is written as %r: match this row by hand", text, safe(text)
                )


def problem_column(record: Any, columns: dict[str, str]) -> ProblemColumn:
    """Return a problem of its record in the gradebook."""
    cells = {(notebook.name, cell.name) for notebook in record.notebooks for cell in notebook.grade_cells}
    header = columns.get(record.name) or record.name
    return ProblemColumn(record.name, header, float(record.max_score), tuple(sorted(cells)))


def problem_score(submission: Any) -> ProblemScore:
    """Return a mark of its record in the gradebook."""
    checks = {
        (notebook.name, grade.name): float(grade.score)
        for notebook in submission.notebooks
        for grade in notebook.grades
    }
    # nbgrader adds an extension to a due date without asking whether there is one.
    late = submission.total_seconds_late if submission.assignment.duedate else 0
    penalty = float(submission.late_submission_penalty or 0.0)
    return ProblemScore(float(submission.score or 0.0), penalty, checks, submission.timestamp, int(late))


def read_person(record: Any, marks: dict[str, dict[str, ProblemScore]]) -> Person:
    """Return a student of their record in the gradebook, with their marks by problem."""
    return Person(
        id=record.id,
        first_name=record.first_name or "",
        last_name=record.last_name or "",
        email=record.email or "",
        lms_id=record.lms_user_id or "",
        marks={problem: by_student[record.id] for problem, by_student in marks.items() if record.id in by_student},
    )


def scores(one: Person, problems: Sequence[ProblemColumn]) -> list[Cell]:
    """Return a student's score for each problem, None where nothing was handed in."""
    found = [one.marks.get(problem.name) for problem in problems]
    return [None if mark is None else mark.score for mark in found]


class Canvas(GradeTable):
    """Canvas, *Grades, Import*: what is not handed in stays empty, so that Canvas's own policy for missing work holds.

    The layout is that of the instructor guide's "How do I import grades in the Gradebook?": the first five columns are
    required, the second row holds the points. Who is meant is settled by `lib/gradebook_importer.rb` of
    instructure/canvas-lms: it takes the ID, else the SIS User ID, else the SIS Login ID, else the name. It reads an ID
    with Ruby's `to_i`, which makes 12 of "12ab" and so another student: only a number in nbgrader's `lms_user_id` is
    written there. A column whose header is no assignment's title makes a new assignment; a header as in Canvas's own
    export, `Title (12345)`, finds the assignment by its number: `c.Canvas.columns = {"p08_dpo_loss": "DPO (12345)"}`.
    An empty cell counts there as the wish to clear a score that Canvas holds already.
    """

    file_name = "canvas.csv"
    ids_are: Any = Enum(
        ["SIS Login ID", "SIS User ID"], "SIS Login ID", help="what the gradebook's student ids are in Canvas"
    ).tag(config=True)

    def rows(self, problems: Sequence[ProblemColumn], people: Sequence[Person]) -> Iterator[Sequence[Cell]]:
        yield ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *(problem.header for problem in problems)]
        yield ["    Points Possible", "", "", "", "", *(problem.points for problem in problems)]
        for one in people:
            number_in_canvas = one.lms_id if re.fullmatch(r"\d+", one.lms_id, re.ASCII) else ""
            ids = [one.id if self.ids_are == name else "" for name in ("SIS User ID", "SIS Login ID")]
            # Canvas takes any row with these words in its name for the row of points: a student could set them.
            name = one.sortable_name.replace("Points Possible", "Points_Possible")
            yield [name, number_in_canvas, *ids, "", *scores(one, problems)]


class Moodle(GradeTable):
    """Moodle, *Grades, Import, CSV file*: what is not handed in is `-`, which Moodle reads as no grade.

    The layout is that of https://docs.moodle.org/en/Grade_import ("the same as the corresponding export format"); the
    columns are mapped on its second page: "ID number" (or "Email address") to the user, each problem to its grade item.
    `grade/import/csv/classes/load_data.php` of moodle/moodle takes an empty cell for no grade only in items that exist,
    and books a row whose user cell is empty on the student of the row before. So addresses are written if everybody has
    one, else not at all.
    """

    file_name = "moodle.csv"
    missing = "-"

    def rows(self, problems: Sequence[ProblemColumn], people: Sequence[Person]) -> Iterator[Sequence[Cell]]:
        without = [one.id for one in people if not one.email.strip()]
        if without:
            self.log.warning("no column of addresses, because these have none: %s", ", ".join(without))
        address = [] if without else ["Email address"]
        yield ["First name", "Last name", "ID number", *address, *(problem.header for problem in problems)]
        for one in people:
            who = [one.first_name, one.last_name, one.id, *([] if without else [one.email])]
            yield [*who, *scores(one, problems)]


class Gradescope(GradeTable):
    """Gradescope: the columns of its own export of a course's grades, with nothing where nothing was handed in.

    Gradescope documents an import of rosters (https://guides.gradescope.com/hc/en-us/articles/21926598776333, "Adding
    Students and Staff": names in two columns, one address each, matched by hand), which takes this file; we found
    none of grades. Tools that read its grade export, with four columns a problem, read this one. Times are UTC.
    """

    file_name = "gradescope.csv"

    def rows(self, problems: Sequence[ProblemColumn], people: Sequence[Person]) -> Iterator[Sequence[Cell]]:
        parts = ("", " - Max Points", " - Submission Time", " - Lateness (H:M:S)")
        headers = [problem.header + part for problem in problems for part in parts]
        yield ["First Name", "Last Name", "SID", "Email", "Sections", *headers]
        for one in people:
            cells = [
                cell for problem in problems for cell in gradescope_cells(one.marks.get(problem.name), problem.points)
            ]
            yield [one.first_name, one.last_name, one.id, one.email, "", *cells]


def gradescope_cells(found: ProblemScore | None, points: float) -> list[Cell]:
    """Return Gradescope's four cells of a problem."""
    if found is None:
        return [None, points, None, None]
    time = found.submitted.strftime("%Y-%m-%d %H:%M:%S +0000") if found.submitted else ""
    minutes, seconds = divmod(found.late_seconds, 60)
    return [found.score, points, time, f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"]


class Csv(GradeTable):
    """A table for spreadsheets: for each problem its checks, the late penalty and the score, and the total.

    What is not handed in is empty and counts 0 in the total. The file opens with a BOM, without which Excel takes UTF-8
    for another encoding.
    """

    file_name = "grades.csv"
    encoding = "utf-8-sig"

    def rows(self, problems: Sequence[ProblemColumn], people: Sequence[Person]) -> Iterator[Sequence[Cell]]:
        headers = [header for problem in problems for header in detailed_headers(problem)]
        yield ["student_id", "last_name", "first_name", "email", *headers, "total", "out of"]
        out_of = sum(problem.points for problem in problems)
        for one in people:
            cells = [cell for problem in problems for cell in detailed_cells(one.marks.get(problem.name), problem)]
            total = round(sum(found.score for found in one.marks.values()), 6)
            yield [one.id, one.last_name, one.first_name, one.email, *cells, total, out_of]


def detailed_headers(problem: ProblemColumn) -> list[str]:
    """Return the headers of a problem's columns; a notebook is named where it isn't named like its problem."""
    checks = [cell if notebook == problem.name else f"{notebook}/{cell}" for notebook, cell in problem.checks]
    return [*(f"{problem.header}: {check}" for check in checks), f"{problem.header}: late penalty", problem.header]


def detailed_cells(found: ProblemScore | None, problem: ProblemColumn) -> list[Cell]:
    if found is None:
        return [None] * (len(problem.checks) + 2)
    return [*(found.checks.get(check) for check in problem.checks), found.penalty, found.score]
