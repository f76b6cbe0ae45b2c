"""A class from what was handed in to gradebook, pages and class report: what `ftgrade grade` does."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ftgrade.catalog import Catalog
from ftgrade.errors import StudentFault
from ftgrade.gradebook import late
from ftgrade.gradebook.book import Book, opened
from ftgrade.grading.grader import Grader
from ftgrade.grading.run import grade_class
from ftgrade.intake.notebook import Cell, read_submission
from ftgrade.judging.report import CheckReport, Report
from ftgrade.moments import in_zone
from ftgrade.pages import classreport
from ftgrade.pages.feedback import page_maker


class Progress(Protocol):
    """What is told of a run while it lasts."""

    def saw(self, stem: str, score: float, needs_a_person: bool) -> None: ...

    def compared(self, stem: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Marked:
    """What a run did: the reports, by problem and student and without what was handed in, and what wasn't booked."""

    reports: list[Report]
    failed: list[str]


def mark(
    grader: Grader, stems: Sequence[str], progress: Progress, *, fresh: bool = False, scheduler: str = ""
) -> Marked:
    """Judge, book and describe what was handed in to these problems. Raises CourseFault."""
    book = Book(grader.course)
    by_stem: dict[str, list[Report]] = {stem: [] for stem in stems}
    seen: dict[CheckReport, CheckReport] = {}
    for stem in stems:
        book.demand_released(grader, stem)
    with book.ledgers(grader, list(stems), page_maker()) as ledgers:
        for report in grade_class(grader, list(stems), fresh=fresh, scheduler=scheduler):
            ledgers.book(report)
            by_stem[report.stem].append(lightened(report, seen))
            progress.saw(report.stem, report.score, report.needs_a_person)
        failed = [f"{one.student}, {one.stem}: {words}" for one, words in ledgers.settle()]
    for reports in by_stem.values():
        reports.sort(key=lambda report: report.student)
    write_class_report(grader, by_stem, progress)
    return Marked([report for reports in by_stem.values() for report in reports], failed)


def lightened(report: Report, seen: dict[CheckReport, CheckReport]) -> Report:
    """Return a report as it's kept for a whole class: without the notebook, and equal checks once."""
    checks = tuple(seen.setdefault(check, check) for check in report.checks)
    return dataclasses.replace(report, cells=(), notes=(), graded_by={}, checks=checks)


def write_class_report(grader: Grader, by_stem: dict[str, list[Report]], progress: Progress) -> None:
    root = grader.course.root
    summaries: list[classreport.ProblemSummary] = []
    for stem, reports in by_stem.items():
        # What is compared is read from the stored reports, one at a time: a class's notebooks fill memory.
        known = {report.student for report in reports}
        stored = (report for report in grader.reports.of(stem) if report.student in known)
        functions = list(dict.fromkeys(check.of for check in grader.problem(stem).all_checks))
        echoes = classreport.compared(stored, functions, given(grader.catalog, stem))
        title, came = grader.catalog.title(stem), arrivals(root, stem)
        summaries.append(classreport.summarise(stem, title, reports, echoes, came))
        progress.compared(stem)
    classreport.write(root / "class_report.html", root.absolute().name, summaries)


def given(catalog: Catalog, stem: str) -> tuple[Cell, ...]:
    """Return the cells that everybody was given, which are nobody's own work."""
    try:
        return read_submission(catalog.leaves(stem).notebook).cells
    except StudentFault:
        return ()


def arrivals(root: Path, stem: str) -> classreport.Arrivals:
    """Return when one problem was handed in and due, as the gradebook tells, in the course's time zone."""
    zone = late.timezone_of(root)
    with opened(root) as gradebook:
        due = late.deadline(gradebook, stem, {}).due
        return classreport.Arrivals(late.handed_in(gradebook, stem, zone), due and in_zone(due, zone))


__all__ = ["Marked", "Progress", "mark"]
