"""A class's reports to one static page and one CSV file: scores, checks, mistakes, who is stuck, what was found."""

import base64
import csv
import hashlib
import io
import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from markupsafe import Markup

from ftgrade.intake.gate import line, safe
from ftgrade.judging.report import DEADLY, SAME_NUMBER, STATUS_WORDS, CheckReport, Report
from ftgrade.pages import similarity
from ftgrade.pages.feedback import TEMPLATES, environment
from ftgrade.pages.similarity import Echo

SEVERAL = 3  # checks left out
SMALL_CLASS = 10  # below it the standard error of a correlation near 0, 1 / sqrt(n - 1), is above a third
MANY_NAMES = 12
MOST_ECHOES = 50
CSV_COLUMNS = ("student", "problem", "check", "status", "score", "points", "mistake", "handed in")
FEW_DAYS = timedelta(days=2)  # within them hand-ins are counted by the hour

NOTHING_RIGHT, LEFT_OUT, TOO_LONG = "nothing right", "several checks not attempted", "ran too long"
UNREADABLE, NOT_HANDED_IN = "no readable notebook", "not handed in"
FINDING_GROUPS = {
    SAME_NUMBER: "coincidence", "set-aside": "integrity", "duplicate-cells": "integrity",
    "unsandboxed": "sandbox", "cell-left-out": "sandbox", "ours": "grader", DEADLY: "grader",
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- numbers


@dataclass(frozen=True, slots=True)
class MistakeCount:
    """A mistake that was named to students of one check, in the very sentence that they read."""

    check: str
    name: str
    says: str
    students: int


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
class Span:
    """A day or an hour in which work came in: how much, how much so far, and how much of it after the due date."""

    name: str
    count: int
    so_far: int
    late: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When students handed a problem in, and when it was due: all in one time zone. Who tells no time isn't there."""

    times: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    due: datetime | None = None

    @property
    def ordered(self) -> list[datetime]:
        return sorted(self.times.values(), key=utc)

    @property
    def events(self) -> list[datetime]:
        """Return the first and the last of what the plot shows: hand-ins and the due date."""
        marks = [*self.times.values(), self.due] if self.due else [*self.times.values()]
        marks.sort(key=utc)
        return [marks[0], marks[-1]] if self.times else []

    @property
    def half(self) -> datetime:
        """Return when half of those who tell a time had handed in."""
        return self.ordered[(len(self.times) - 1) // 2]

    @property
    def late(self) -> int:
        """Return how many came after the due date, whoever was given longer."""
        return sum(self.is_late(time) for time in self.times.values())

    def is_late(self, time: datetime) -> bool:
        return self.due is not None and utc(time) > utc(self.due)

    @property
    def spans(self) -> list[Span]:
        """Return the days with hand-ins, or the hours where all came within two days."""
        times = self.ordered
        hours = bool(times) and utc(times[-1]) - utc(times[0]) <= FEW_DAYS
        made: list[Span] = []
        for name, group in itertools.groupby(times, lambda time: span_name(time, hours)):
            some = list(group)
            so_far = len(some) + (made[-1].so_far if made else 0)
            made.append(Span(name, len(some), so_far, sum(map(self.is_late, some))))
        return made

    def across(self, times: Sequence[datetime]) -> list[float]:
        """Return where times stand between the first event, 0, and the last, 100."""
        first, last = map(utc, self.events)
        return [round(100 * ((utc(time) - first) / (last - first)), 2) for time in times]

    @property
    def stairs(self) -> str:
        """Return the path of the hand-ins so far over time, in a square of 100; empty where it would have no width."""
        if not self.events or utc(self.events[0]) == utc(self.events[1]):
            return ""
        return staircase(self.across(self.ordered))


def utc(time: datetime) -> datetime:
    """Return a time in UTC, without a zone: Python compares times of one zone by their clocks, which may be put back.

    >>> utc(datetime(2026, 12, 1, 17, tzinfo=UTC))
    datetime.datetime(2026, 12, 1, 17, 0)
    """
    return time.astimezone(UTC).replace(tzinfo=None)


def span_name(time: datetime, hours: bool) -> str:
    return f"{time:%Y-%m-%d %H:00 %Z}" if hours else f"{time:%Y-%m-%d}"


def staircase(places: Sequence[float]) -> str:
    """Return the SVG path that rises from 0 to 100 by equal steps at these places, and goes on to the right edge.

    >>> staircase([0, 50, 50])
    'M0 100V66.67H50V0H100'
    """
    path, counts = "M0 100", Counter(places)
    for place, so_far in zip(counts, itertools.accumulate(counts.values()), strict=True):
        path += (f"H{place:g}" if place else "") + f"V{100 - 100 * so_far / len(places):.4g}"
    return path + ("H100" if places[-1] < 100 else "")


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
    arrivals: Arrivals = Arrivals(),
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
    named = ((one.name, one.mistake, one.says) for report in graded for one in report.checks if one.says)
    return tuple(MistakeCount(*key, count) for key, count in Counter(named).most_common())


def stuck_students(reports: Iterable[Report]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return who is stuck, by reason; a student may stand under several."""
    found: dict[str, list[str]] = {NOTHING_RIGHT: [], LEFT_OUT: [], TOO_LONG: [], UNREADABLE: []}
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


# ---------------------------------------------------------------------------------------------------- the page, the CSV


def class_report(course: str, summaries: Sequence[ProblemSummary], csv_name: str = "class_report.csv") -> str:
    """Return the page. Its one style sheet is allowed by its fingerprint; nothing else is loaded and nothing runs."""
    style = "\n".join((TEMPLATES / name).read_text("utf-8") for name in ("feedback/style.css", "class_report.css"))
    everyone = class_rows(summaries)
    return environment().get_template("class_report.html.j2").render(
        course=course, problems=summaries, csv_name=csv_name, rows=everyone, often=often_stuck(summaries, everyone),
        recurring=recurring_pairs(summaries), style=Markup(style), style_hash=style_hash(style),  # noqa: S704  (our own file)
        limits=similarity, small_class=SMALL_CLASS, several=SEVERAL, many=MANY_NAMES, most=MOST_ECHOES,
    )  # fmt: skip


def style_hash(style: str) -> str:
    """Return a style sheet's name in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def class_csv(summaries: Sequence[ProblemSummary]) -> str:
    """Return one row a student and check; a report without any check gets one row with its state."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for problem in summaries:
        for report in problem.reports:
            student, time = safe(line(report.student)), problem.arrivals.times.get(report.student)
            for one in report.checks or (CheckReport("", "", "", 0.0, 0.0, report.state, 0, 0),):
                status = report.state if report.needs_a_person else one.status
                what = one.name, status, one.score, one.points, one.mistake
                writer.writerow([student, problem.stem, *what, time.isoformat() if time else ""])
    return file.getvalue()


def write_class_report(path: Path, course: str, summaries: Sequence[ProblemSummary]) -> None:
    """Write the page, and beside it the same numbers row by row with the suffix `.csv`."""
    beside = path.with_suffix(".csv")
    path.write_text(class_report(course, summaries, beside.name), "utf-8", errors="replace", newline="\n")
    beside.write_text(class_csv(summaries), "utf-8", errors="replace", newline="\n")
