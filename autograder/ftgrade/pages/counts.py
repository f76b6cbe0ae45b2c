"""The numbers of one problem's reports: scores, checks, mistakes, who is stuck, what was found."""

import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ftgrade.judging.report import DEADLY, SAME_NUMBER, STATUS_WORDS, CheckReport, Report
from ftgrade.pages import similarity
from ftgrade.pages.arrivals import Arrivals
from ftgrade.pages.similarity import Echo

SEVERAL = 3  # checks left out
SMALL_CLASS = 10  # below it the standard error of a correlation near 0, 1 / sqrt(n - 1), is above a third

NO_TIMES = Arrivals()
NOTHING_RIGHT, LEFT_OUT, TOO_LONG = "nothing right", "several checks not attempted", "ran too long"
UNREADABLE, NOT_HANDED_IN = "no readable notebook", "not handed in"
REASONS = NOTHING_RIGHT, LEFT_OUT, TOO_LONG, UNREADABLE
FINDING_GROUPS = {
    SAME_NUMBER: "coincidence", "set-aside": "integrity", "duplicate-cells": "integrity",
    "unsandboxed": "sandbox", "cell-left-out": "sandbox", "ours": "grader", DEADLY: "grader",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MistakeCount:
    """A mistake that was named to students of one check, in the very sentence that they read."""

    check: str
    name: str
    says: str
    who: tuple[str, ...]

    @property
    def students(self) -> int:
        return len(self.who)


@dataclass(frozen=True, slots=True)
class CheckCount:
    """How a class did on one check: how often each status came, and how well the check tells strong from weak."""

    name: str
    title: str
    points: float
    statuses: tuple[tuple[str, int], ...]
    discrimination: float | None

    @property
    def students(self) -> int:
        return sum(count for _, count in self.statuses)

    @property
    def passed(self) -> int:
        return dict(self.statuses).get("pass", 0)

    @property
    def difficulty(self) -> float | None:
        """Return the share of students who have it right (the item's difficulty: near 1 is easy); None without any."""
        return self.passed / self.students if self.students else None

    @property
    def missed(self) -> str:
        """Say how it was missed, the most frequent way first."""
        return ", ".join(f"{STATUS_WORDS[status]} {count}" for status, count in self.statuses if status != "pass")


@dataclass(frozen=True, slots=True)
class FindingCount:
    """What was found about submissions, in the words of the reports, and about whose."""

    about: str
    kind: str
    words: str
    students: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProblemSummary:
    """How a class did on one problem.

    A file that can't be read counts as 0 points, as it is booked, and in no check. Where the grader failed, a person
    looks first: such a report counts in `reports` and `findings` only.
    """

    stem: str
    title: str
    points: float
    reports: tuple[Report, ...]
    scores: tuple[float, ...]
    checks: tuple[CheckCount, ...]
    mistakes: tuple[MistakeCount, ...]
    stuck: tuple[tuple[str, tuple[str, ...]], ...]
    findings: tuple[FindingCount, ...]
    echoes: tuple[Echo, ...] | None
    arrivals: Arrivals

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def median(self) -> float | None:
        return statistics.median(self.scores) if self.scores else None

    @property
    def bins(self) -> list[tuple[str, int]]:
        """Return the number of students in each tenth of the points; full marks stand alone."""
        counts = Counter(tenth(score, self.points) for score in self.scores)
        step = self.points / 10
        names = [f"{step * low:g} to under {step * (low + 1):g}" for low in range(10)] + [f"{self.points:g}"]
        return [(name, counts[low]) for low, name in enumerate(names)]


def tenth(score: float, points: float) -> int:
    """Return which tenth of the points a score lies in, 10 for all of them.

    >>> tenth(0.3, 1.0), tenth(0.99, 1.0), tenth(1.0, 1.0)
    (3, 9, 10)
    """
    return min(10, int(10 * score / points + 1e-9)) if points else 0


def summarise(
    stem: str,
    title: str,
    reports: Sequence[Report],
    echoes: Sequence[Echo] | None = None,
    arrivals: Arrivals = NO_TIMES,
) -> ProblemSummary:
    """Return the summary of the reports of one problem; `echoes` is None where answers weren't compared."""
    times = {report.student: arrivals.times[report.student] for report in reports if report.student in arrivals.times}
    graded = [report for report in reports if report.state == "graded"]
    scores = tuple(report.score for report in reports if report.state != "ours")
    return ProblemSummary(
        stem, title, max((report.points for report in reports), default=0.0), tuple(reports), scores,
        check_counts(graded), mistake_counts(graded), stuck_students(reports), finding_counts(reports),
        None if echoes is None else tuple(echoes), Arrivals(times, arrivals.due),
    )  # fmt: skip


def compare_answers(reports: Iterable[Report], functions: Sequence[str]) -> list[Echo]:
    """Return the answers of a problem's students that are alike; the reports may come one by one."""
    return similarity.similar_answers(((report.student, report.forms) for report in reports), functions)


def check_counts(graded: Sequence[Report]) -> tuple[CheckCount, ...]:
    """Return a count for every check, in the order of the problem."""
    by_name: dict[str, list[tuple[CheckReport, float]]] = defaultdict(list)
    for report in graded:
        for check in report.checks:
            by_name[check.name].append((check, report.score - check.score))
    made: list[CheckCount] = []
    for name, pairs in by_name.items():
        statuses = Counter(check.status for check, _ in pairs).most_common()
        right = [float(check.status == "pass") for check, _ in pairs]
        value = discrimination(right, [rest for _, rest in pairs])
        made.append(CheckCount(name, pairs[0][0].title, pairs[0][0].points, tuple(statuses), value))
    return tuple(made)


def discrimination(right: Sequence[float], rest: Sequence[float]) -> float | None:
    """Return the corrected item-total correlation of a check: Pearson's r of `right` (1 or 0) and `rest`.

        r = sum (x - mean x)(t - mean t) / sqrt(sum (x - mean x)^2 * sum (t - mean t)^2)

    with x = right, t = rest: the points of the problem's other checks, so that no check is correlated with itself
    (S. Henrysson, Correction of item-total correlations in item analysis, Psychometrika 28, 1963, 211-218). None where
    it isn't defined: nobody or everybody is right, all the rests are equal, or fewer than `SMALL_CLASS` students.

    >>> discrimination([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], [3, 3, 3, 3, 1, 1, 1, 1, 1, 3])
    0.6
    """
    if len(right) < SMALL_CLASS:
        return None
    x = [one - statistics.fmean(right) for one in right]
    t = [one - statistics.fmean(rest) for one in rest]
    squares = sum(a * a for a in x) * sum(b * b for b in t)
    return None if squares < 1e-18 else round(sum(a * b for a, b in zip(x, t, strict=True)) / math.sqrt(squares), 4)


def mistake_counts(graded: Sequence[Report]) -> tuple[MistakeCount, ...]:
    """Return the mistakes that students were told by name, the most frequent first."""
    who: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for report in graded:
        for one in report.checks:
            if one.says:
                who[one.name, one.mistake, one.says].append(report.student)
    return tuple(MistakeCount(*key, tuple(who[key])) for key in sorted(who, key=lambda key: -len(who[key])))


def stuck_students(reports: Iterable[Report]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return who is stuck, by reason; a student may stand under several."""
    found: dict[str, list[str]] = {reason: [] for reason in REASONS}
    for report in reports:
        for reason in stuck_reasons(report):
            found[reason].append(report.student)
    return tuple((reason, tuple(students)) for reason, students in found.items() if students)


def stuck_reasons(report: Report) -> list[str]:
    """Return why a report's student may need help: none for a fault of ours."""
    if report.state != "graded":
        return [UNREADABLE] if report.state == "unreadable" else []
    statuses = [check.status for check in report.checks]
    holds = {
        NOTHING_RIGHT: "pass" not in statuses,
        LEFT_OUT: statuses.count("not-attempted") >= min(SEVERAL, max(2, len(statuses))),
        TOO_LONG: "timeout" in statuses,
    }
    return [reason for reason, held in holds.items() if held]


def finding_counts(reports: Iterable[Report]) -> tuple[FindingCount, ...]:
    """Return what was found about the submissions: integrity and coincidences first, then the others."""
    students: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for report in reports:
        for finding in report.findings:
            students[FINDING_GROUPS.get(finding.kind, "notebook"), finding.kind, finding.words].append(report.student)
    order = ["integrity", "coincidence", "sandbox", "grader", "notebook"]
    keys = sorted(students, key=lambda key: (order.index(key[0]), key))
    return tuple(FindingCount(*key, tuple(dict.fromkeys(students[key]))) for key in keys)


# ----------------------------------------------------------------------------------------------------------- the class


@dataclass(frozen=True, slots=True)
class Row:
    """A student's scores, problem by problem; None where nothing was handed in, a star where a person must look."""

    student: str
    cells: tuple[tuple[float, bool] | None, ...]

    @property
    def total(self) -> float:
        return sum(cell[0] for cell in self.cells if cell is not None)


def class_rows(summaries: Sequence[ProblemSummary]) -> list[Row]:
    """Return a row for everyone who handed in anything, the highest total first, equals by name."""
    booked = [
        {report.student: (report.score, report.needs_a_person) for report in problem.reports} for problem in summaries
    ]
    students = sorted({student for problem in booked for student in problem})
    made = [Row(student, tuple(problem.get(student) for problem in booked)) for student in students]
    return sorted(made, key=lambda row: (-round(row.total, 6), row.student))


def often_stuck(summaries: Sequence[ProblemSummary], everyone: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Return who is stuck in at least two problems or left one out, with the problems and reasons, most first."""
    found: dict[str, list[str]] = defaultdict(list)
    for place, problem in enumerate(summaries):
        why: dict[str, list[str]] = defaultdict(list)
        for reason, students in problem.stuck:
            for student in students:
                why[student].append(reason)
        for row in everyone:
            if row.cells[place] is None:
                why[row.student] = [NOT_HANDED_IN]
        for student, words in why.items():
            found[student].append(f"{short_name(problem.stem)}: {', '.join(words)}")
    rare = {student: told for student, told in found.items() if len(told) > 1 or told[0].endswith(NOT_HANDED_IN)}
    return sorted(rare.items(), key=lambda item: (-len(item[1]), item[0]))


def recurring_pairs(summaries: Sequence[ProblemSummary]) -> list[tuple[tuple[str, str], list[str]]]:
    """Return the pairs of students whose answers are alike in more than one function, most first."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for problem in summaries:
        for echo in problem.echoes or ():
            for one, other in itertools.combinations(sorted(echo.students + echo.others), 2):
                found[one, other].append(f"{short_name(problem.stem)} {echo.function}")
    often = {pair: list(dict.fromkeys(where)) for pair, where in found.items()}
    return sorted(
        ((pair, where) for pair, where in often.items() if len(where) > 1), key=lambda item: (-len(item[1]), item[0])
    )


def short_name(stem: str) -> str:
    return stem.partition("_")[0]


__all__ = [
    "CheckCount",
    "FindingCount",
    "MistakeCount",
    "ProblemSummary",
    "Row",
    "class_rows",
    "compare_answers",
    "often_stuck",
    "recurring_pairs",
    "summarise",
]
