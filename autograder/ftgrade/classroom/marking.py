"""A class from what was handed in to gradebook, pages and class report: what `ftgrade grade` does."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ftgrade.course import Course
from ftgrade.gradebook import late
from ftgrade.gradebook.book import Book, open_gradebook, submission_numbers
from ftgrade.gradebook.ledger import full_names
from ftgrade.gradebook.todo import SERVER, fields_before
from ftgrade.grading.grader import Grader
from ftgrade.grading.run import grade_class
from ftgrade.judging.report import CheckReport, Report
from ftgrade.moments import in_zone
from ftgrade.pages import classreport
from ftgrade.pages.feedback import page_maker
from ftgrade.pages.roll import Roll


class Progress(Protocol):
    """What is told of a run while it lasts."""

    def saw(self, stem: str, score: float, needs_a_person: bool) -> None: ...

    def compared(self, stem: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ClassResult:
    """What a run did: the reports, by problem and student and without what was handed in, and what wasn't booked."""

    reports: list[Report]
    failed: list[str]


def grade_and_book(
    grader: Grader, stems: Sequence[str], progress: Progress, *, fresh: bool = False, scheduler: str = ""
) -> ClassResult:
    """Judge, book and describe what was handed in to these problems. Raises CourseFault."""
    book = Book(grader.course)
    by_stem: dict[str, list[Report]] = {stem: [] for stem in stems}
    seen: dict[CheckReport, CheckReport] = {}
    for stem in stems:
        book.ensure_released(grader, stem)
    with book.open_ledgers(grader, list(stems), page_maker()) as ledgers:
        for report in grade_class(grader, list(stems), fresh=fresh, scheduler=scheduler):
            ledgers.book(report)
            by_stem[report.stem].append(slim(report, seen))
            progress.saw(report.stem, report.score, report.needs_a_person)
        failed = [f"{one.student}, {one.stem}: {words}" for one, words in ledgers.retry()]
    for reports in by_stem.values():
        reports.sort(key=lambda report: report.student)
    report_on_class(grader, by_stem, progress)
    return ClassResult([report for reports in by_stem.values() for report in reports], failed)


def slim(report: Report, seen: dict[CheckReport, CheckReport]) -> Report:
    """Return a report as it's kept for a whole class: without the notebook, and equal checks once."""
    checks = tuple(seen.setdefault(check, check) for check in report.checks)
    return dataclasses.replace(report, cells=(), forms={}, notes=(), graded_by={}, checks=checks)


def report_on_class(grader: Grader, by_stem: dict[str, list[Report]], progress: Progress) -> None:
    root = grader.course.root
    summaries: list[classreport.ProblemSummary] = []
    for stem, reports in by_stem.items():
        # What is compared is read from the stored reports, one at a time: a class's answers fill memory.
        known = {report.student for report in reports}
        stored = (report for report in grader.reports.of_problem(stem) if report.student in known)
        functions = list(dict.fromkeys(check.function for check in grader.outline(stem).checks))
        echoes = classreport.compare_answers(stored, functions)
        title, came = grader.catalog.title(stem), read_arrivals(root, stem)
        summaries.append(classreport.summarise(stem, title, reports, echoes, came))
        progress.compared(stem)
    roll = read_roll(grader.course, summaries)
    classreport.write_class_report(root / "class_report.html", root.absolute().name, summaries, roll)


def read_roll(course: Course, summaries: Sequence[classreport.ProblemSummary]) -> Roll:
    """Return who is in a class, as its gradebook and its roster tell, and where its pages and its submissions are."""
    pages, numbers, places = set[tuple[str, str]](), dict[tuple[str, str], str](), dict[tuple[str, str], int]()
    with open_gradebook(course.root) as gradebook:
        names = full_names(gradebook)
        for problem in summaries:
            stem, students = problem.stem, [report.student for report in problem.reports]
            folder = course.root / "feedback"
            pages |= {(one, stem) for one in students if (folder / one / stem / f"{stem}.html").is_file()}
            numbers |= {(student, stem): number for student, number in submission_numbers(gradebook, stem).items()}
            # Every graded notebook holds the released cells in their order, so that one tells the place of all fields.
            booked = (course.root / "autograded" / one / stem / f"{stem}.ipynb" for one in students)
            if one := next(filter(Path.is_file, booked), None):
                places |= {(stem, check.name): fields_before(one, check.name) for check in problem.checks}
    return Roll(names, course.sections(), frozenset(pages), numbers, places, SERVER)


def read_arrivals(root: Path, stem: str) -> classreport.Arrivals:
    """Return when one problem was handed in and due, as the gradebook tells, in the course's time zone."""
    zone = late.timezone_of(root)
    with open_gradebook(root) as gradebook:
        due = late.read_deadline(gradebook, stem, {}).due
        return classreport.Arrivals(late.hand_in_times(gradebook, stem, zone), due and in_zone(due, zone))


__all__ = ["ClassResult", "Progress", "grade_and_book"]
