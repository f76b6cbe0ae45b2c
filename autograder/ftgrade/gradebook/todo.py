"""What in a course waits for a person: why, in which words, how it's mended, and where in formgrader it stands."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nbgrader.api import Gradebook

from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.grading.lastrun import LastRun
from ftgrade.grading.reports import Reports
from ftgrade.guard import Mishap, guarded
from ftgrade.intake.gate import line
from ftgrade.intake.notebook import PERSONAL
from ftgrade.judging.report import SAME_NUMBER, Report

SERVER = "http://localhost:8888"
"""Where formgrader runs unless somebody says otherwise."""
Reason = Literal["ours", "unreadable", "changed", "manual", "integrity", "coincidence", "sandbox", "ungraded", "nobody"]
ABOUT: dict[Reason, str] = {
    "ours": "the grader failed, so nobody has a score yet",
    "unreadable": "no notebook could be read, which is booked as 0",
    "changed": "a stored report isn't as it was written",
    "manual": "an answer in words waits for points",
    "integrity": "something that honest work seldom shows",
    "coincidence": "a wrong number that is right for another question",
    "sandbox": "graded without a sandbox",
    "ungraded": "handed in and not graded yet",
    "nobody": "a folder of nobody on the roster, which isn't graded",
}
MENDS: dict[Reason, str] = {
    "ours": "run `ftgrade grade {stem} --fresh`; if it stays, the words above belong into a bug report",
    "unreadable": "ask for the notebook again, put it into submitted/{student}/{stem}/, run `ftgrade grade {stem}`",
    "changed": "run `ftgrade grade {stem}`, which judges it again; who may write to .ftgrade/?",
    "manual": "read the answer and give its points in formgrader",
    "sandbox": "run `ftgrade doctor`, then `ftgrade grade {stem} --fresh`",
    "ungraded": "run `ftgrade grade {stem}`",
    "nobody": "rename submitted/{student} to whom it belongs; `ftgrade grade {stem} --anyone` books a new student",
}
FINDING_MENDS: dict[str, str] = {
    SAME_NUMBER: "the words say how probable a coincidence is; look into the notebook before you ask anybody",
    "duplicate-cells": "look which of the cells was meant: the last definition was judged",
    "set-aside": "look into .ftgrade/quarantine/{stem}/{student}: nothing was deleted, nothing of it was run",
}
"""Findings that a person looks at, each with what one does about it."""


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that waits: the link leads to the submission in formgrader, to the very cell where there is one."""

    reason: Reason
    kind: str
    student: str
    stem: str
    words: str
    mend: str
    link: str


@dataclass(frozen=True, slots=True)
class Booking:
    """What the gradebook knows of a submission: its number in formgrader, and the cells that wait for points."""

    number: str
    waiting: tuple[str, ...]


def list_needs(course: Course, gradebook: Gradebook, stems: Sequence[str], server: str = "") -> list[Need]:
    """Return what waits for a person, the gravest first; `server` is where formgrader runs, before its path."""
    found = [need for stem in stems for need in problem_needs(course, gradebook, stem, server.rstrip("/"))]
    order = get_args(Reason)
    return sorted(found, key=lambda need: (order.index(need.reason), need.stem, need.student))


def problem_needs(course: Course, gradebook: Gradebook, stem: str, server: str) -> Iterator[Need]:
    booked, last = read_bookings(gradebook, stem), LastRun(course.last_path(stem))
    strangers = course.strangers(str(one.id) for one in gradebook.students)
    for name, why in course.nobodys().items():
        if (course.root / "submitted" / name / stem).exists():
            yield Need("nobody", "", line(name), stem, f"submitted/{line(name)} {why}", "rename the folder", "")
    for student in course.students(stem):
        if student in strangers:
            words = f"nobody on the roster is called {line(student)}"
            yield Need("nobody", "", student, stem, words, MENDS["nobody"].format(stem=stem, student=student), "")
            continue
        known = booked.get(student, Booking("", ()))
        seen = guarded(lambda student=student, known=known: list(submission_needs(course, student, stem, known)))
        found: list[NeedRow] = [("ours", "", line(seen.words), "")] if isinstance(seen, Mishap) else seen
        if last[student].trouble:
            found.append(("ours", "not-booked", f"it could not be booked: {last[student].trouble}", ""))
        for reason, kind, words, cell in found:
            mend = (FINDING_MENDS.get(kind) or MENDS[reason]).format(stem=stem, student=student)
            yield Need(
                reason, kind, student, stem, words, mend, formgrader_link(course, student, stem, known, cell, server)
            )


NeedRow = tuple[Reason, str, str, str]
"""Why something waits, its kind, the words, and the graded cell that it's about."""


def submission_needs(course: Course, student: str, stem: str, known: Booking) -> Iterator[NeedRow]:
    """Yield what waits about one submission."""
    try:
        report = Reports(course).load(student, stem)
    except FileNotFoundError:
        yield "ungraded", "", "there is no report of it", ""
    except (OSError, ValueError) as error:
        yield "changed", "", str(error), ""
    else:
        looked_at = read_settled(course)
        for reason, kind, words, cell in report_needs(report):
            if (student, stem, kind, report.key) not in looked_at:
                yield reason, kind, words, cell
        if report.state != "ours":  # there, every cell waits
            for cell in known.waiting:
                yield "manual", cell, f"the answer to `{cell}` has no points yet", cell


def report_needs(report: Report) -> Iterator[NeedRow]:
    """Yield what a report says that a person should see."""
    for place, finding in enumerate(report.findings, 1):
        if report.needs_a_person and place == len(report.findings):  # the last one tells why it isn't graded
            yield "ours" if report.state == "ours" else "unreadable", finding.kind, finding.words, ""
        elif finding.kind in FINDING_MENDS:
            asked = (check.name for check in report.checks if check.function == PERSONAL)
            cell = next(asked, "") if finding.kind == SAME_NUMBER else ""
            reason = "coincidence" if finding.kind == SAME_NUMBER else "integrity"
            yield reason, finding.kind, finding.words, cell
        elif finding.kind == "unsandboxed":
            yield "sandbox", finding.kind, finding.words, ""


# ------------------------------------------------------------------------------------------------------------ settling

SETTLED_COLUMNS = ("student", "problem", "kind", "key")


def read_settled(course: Course) -> set[tuple[str, ...]]:
    """Return what a person has looked at: student, problem, kind of finding, and the key of the report that had it."""
    path = course.state / "settled.csv"
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(row) for row in list(csv.reader(file))[1:]}


def settle(course: Course, student: str, stem: str) -> list[str]:
    """Note that a person has looked at a submission's findings, until another one is handed in; return their kinds.

    Raises CourseFault where none waits: a file that can't be read, points and our own faults are mended, not settled.
    """
    report = Reports(course).get(student, stem)
    found = (
        [kind for reason, kind, _, _ in report_needs(report) if reason in ("integrity", "coincidence", "sandbox")]
        if report
        else []
    )
    rows = read_settled(course)
    new = {(student, stem, kind, report.key) for kind in found if report} - rows
    if not new:
        raise CourseFault(f"no finding about {student}, {stem} waits for a person: `ftgrade todo` tells what does")
    partial = course.state / "settled.partial"
    with partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([SETTLED_COLUMNS, *sorted(rows | new)])
    partial.replace(course.state / "settled.csv")
    return sorted(kind for _, _, kind, _ in new)


# ---------------------------------------------------------------------------------------------------------- formgrader


def read_bookings(gradebook: Gradebook, stem: str) -> dict[str, Booking]:
    """Return what a gradebook knows of a problem's submissions, by student."""
    submissions: list[Any] = gradebook.assignment_submissions(stem)
    return {
        submission.student_id: Booking(notebook.id, waiting(notebook))
        for submission in submissions
        for notebook in submission.notebooks
        if notebook.name == stem
    }


def waiting(notebook: Any) -> tuple[str, ...]:
    return tuple(grade.name for grade in notebook.grades if grade.needs_manual_grade)


def formgrader_link(course: Course, student: str, stem: str, known: Booking, cell: str, server: str) -> str:
    """Return the address of a submission in formgrader, at the field for a cell's points.

    Its script goes to the field of that `index` once MathJax has loaded, which takes the internet; a browser goes to
    the fragment in any case.
    """
    if not known.number:
        return ""
    page = f"{server}/formgrader/submissions/{known.number}/"
    index = fields_before(course.root / "autograded" / student / stem / f"{stem}.ipynb", cell)
    return f"{page}?index={index}#{cell}" if index else f"{page}?index=0"


def fields_before(path: Path, cell: str) -> int:
    """Return how many places formgrader's page has to go to before those of a graded cell; 0 if it isn't there.

    The first is the link to the next submission. Then a graded cell has two, points and extra credit, and an answer
    one, for a comment.
    """
    before = 1
    for one in json.loads(path.read_text("utf-8"))["cells"] if path.is_file() else []:
        mark = one["metadata"].get("nbgrader", {})
        if mark.get("grade_id") == cell:
            return before
        before += 2 * bool(mark.get("grade")) + bool(mark.get("solution"))
    return 0


__all__ = ["ABOUT", "SERVER", "Need", "Reason", "fields_before", "list_needs", "settle"]
