"""A class's reports to one static page: scores, what each check caught, which mistakes were made, who needs a look."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftgrade.feedback import environment
from ftgrade.report import Report


@dataclass(frozen=True, slots=True)
class CheckCount:
    """How a class did on one check, and the mistakes that were named there, most frequent first."""

    name: str
    title: str
    passed: int
    students: int
    mistakes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ProblemSummary:
    """How a class did on one problem; the reports of files that couldn't be graded count as 0 points."""

    stem: str
    title: str
    points: float
    scores: tuple[float, ...]
    checks: tuple[CheckCount, ...]
    looks: tuple[tuple[str, str], ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def median(self) -> float:
        return statistics.median(self.scores)

    @property
    def bins(self) -> list[tuple[str, int]]:
        """Return the number of students in each tenth of the points; full marks stand alone."""
        counts = Counter(int(10 * score / self.points) if self.points else 0 for score in self.scores)
        step = self.points / 10
        names = [f"{step * tenth:g} to under {step * (tenth + 1):g}" for tenth in range(10)] + [f"{self.points:g}"]
        return [(name, counts[tenth]) for tenth, name in enumerate(names)]


def summarise(stem: str, title: str, reports: Sequence[Report]) -> ProblemSummary:
    """Return the summary of the reports of one problem; there must be at least one."""
    rows = [check for report in reports for check in report.checks]
    names = list(dict.fromkeys(check.name for check in rows))
    checks: list[CheckCount] = []
    for name in names:
        mine = [check for check in rows if check.name == name]
        mistakes = Counter(check.says for check in mine if check.says)
        passed = sum(check.status == "pass" for check in mine)
        checks.append(CheckCount(name, mine[0].title, passed, len(mine), tuple(mistakes.most_common(5))))
    looks = tuple((report.student, finding.words) for report in reports for finding in report.findings)
    points = max(report.points for report in reports)
    return ProblemSummary(stem, title, points, tuple(report.score for report in reports), tuple(checks), looks)


def class_report(course: str, summaries: Sequence[ProblemSummary]) -> str:
    """Return the page."""
    return environment().get_template("class_report.html.j2").render(course=course, problems=summaries)


def write(path: Path, course: str, summaries: Sequence[ProblemSummary]) -> None:
    path.write_text(class_report(course, summaries), "utf-8")
