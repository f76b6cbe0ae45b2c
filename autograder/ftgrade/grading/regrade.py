"""Two reports of one submission side by side: what a regrade changed, and what made it judge again."""

from collections.abc import Iterator
from dataclasses import dataclass

from ftgrade.course import Course
from ftgrade.grading.reports import Reports
from ftgrade.judging.report import Report


@dataclass(frozen=True, slots=True)
class Change:
    """One submission that was graded again: its scores, the checks that differ, and the parts that had changed."""

    student: str
    stem: str
    before: float
    now: float
    checks: tuple[str, ...]
    because: tuple[str, ...]


def regrade_changes(course: Course, stems: list[str]) -> Iterator[Change]:
    """Yield what the last regrade of each submission changed; nothing for one that was graded once."""
    for stem in stems:
        for before, now in Reports(course).regrades(stem):
            yield compare_reports(before, now)


def compare_reports(before: Report, now: Report) -> Change:
    """Return how two reports of one submission differ.

    >>> one = Report("p03", "ada", "graded", "a", "", 1, (), graded_by={"problem": "old", "submission": "same"})
    >>> two = Report("p03", "ada", "graded", "b", "", 1, (), graded_by={"problem": "new", "submission": "same"})
    >>> compare_reports(one, two).because
    ('problem',)
    """
    scores = {check.name: check.score for check in before.checks}
    differ = tuple(check.name for check in now.checks if scores.get(check.name) != check.score)
    parts = sorted(before.graded_by.keys() | now.graded_by.keys())
    because = tuple(part for part in parts if before.graded_by.get(part) != now.graded_by.get(part))
    return Change(now.student, now.stem, before.score, now.score, differ, because)


__all__ = ["Change", "compare_reports", "regrade_changes"]
