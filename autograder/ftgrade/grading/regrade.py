"""Two reports of one submission side by side: what a regrade changed, and what made it judge again."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ftgrade.grading.grader import BEFORE, Course
from ftgrade.judging.report import Report, from_json


@dataclass(frozen=True, slots=True)
class Change:
    """One submission that was graded again: its scores, the checks that differ, and the parts that had changed."""

    student: str
    stem: str
    before: float
    now: float
    checks: tuple[str, ...]
    because: tuple[str, ...]


def changes(course: Course, stems: list[str]) -> Iterator[Change]:
    """Yield what the last regrade of each submission changed; nothing for one that was graded once."""
    secret = course.secret()
    for stem in stems:
        for path in sorted(course.report_path("x", stem).parent.glob(f"*{BEFORE}")):
            with contextlib.suppress(OSError, ValueError):
                before = from_json(path.read_text("utf-8"), secret)
                now = from_json(path.with_suffix(".json").read_text("utf-8"), secret)
                yield change(before, now)


def change(before: Report, now: Report) -> Change:
    """Return how two reports of one submission differ.

    >>> one = Report("p03", "ada", "graded", "a", "", 1, (), graded_by={"problem": "old", "submission": "same"})
    >>> two = Report("p03", "ada", "graded", "b", "", 1, (), graded_by={"problem": "new", "submission": "same"})
    >>> change(one, two).because
    ('problem',)
    """
    scores = {check.name: check.score for check in before.checks}
    differ = tuple(check.name for check in now.checks if scores.get(check.name) != check.score)
    parts = sorted(before.graded_by.keys() | now.graded_by.keys())
    because = tuple(part for part in parts if before.graded_by.get(part) != now.graded_by.get(part))
    return Change(now.student, now.stem, before.score, now.score, differ, because)


__all__ = ["Change", "change", "changes"]
