"""A class's reports to one static page and one CSV file: pictures first, and the tables behind them."""

import base64
import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ftgrade.intake.gate import line, safe
from ftgrade.judging.report import STATUS_WORDS, CheckReport, Report
from ftgrade.pages import counts, pictures, similarity
from ftgrade.pages.arrivals import FEW_DAYS, Arrivals, utc
from ftgrade.pages.counts import (
    NOT_HANDED_IN,
    ProblemSummary,
    Row,
    class_rows,
    compare_answers,
    often_stuck,
    recurring_pairs,
    short_name,
    summarise,
    tenth,
)
from ftgrade.pages.feedback import TEMPLATES, environment
from ftgrade.pages.pictures import Picture
from ftgrade.pages.roll import Roll
from ftgrade.words import counted

MANY_NAMES = 12
MOST_ECHOES = 50
MOST_BARS = 12
WEAK = 0.1  # of discrimination
NOBODY_KNOWN = Roll()
MOMENT = "%Y-%m-%d %H:%M %Z"
CSV_COLUMNS = ("student", "problem", "check", "status", "score", "points", "mistake", "handed in")
SIGNS = {
    "not-attempted": "–",
    "error": "E",
    "timeout": "T",
    "killed": "C",
    "not-run": "?",
    "ours": "?",
    "unreadable": "?",
}
"""What stands in a map of checks instead of 0 points, by how the check was missed."""


# ------------------------------------------------------------------------------------------------- students by checks


@dataclass(frozen=True, slots=True)
class Mark:
    """A cell of a map: what stands in it, how many tenths of its points it has (None for nothing), where it leads."""

    text: str
    tenths: int | None
    link: str = ""
    words: str = ""


def check_map(problem: ProblemSummary, roll: Roll) -> list[tuple[Report, list[Mark]]]:
    """Return a row for each report of a problem, the highest first, and in it a mark for each check."""
    names = [check.name for check in problem.checks]
    ordered = sorted(problem.reports, key=lambda report: (-report.score, report.student))
    rows = [(report, {check.name: check for check in report.checks}) for report in ordered]
    return [(report, [check_mark(report, found.get(name), roll) for name in names]) for report, found in rows]


def check_mark(report: Report, check: CheckReport | None, roll: Roll) -> Mark:
    """Return the mark of one check; one that lacks points leads to formgrader, else to the page."""
    if check is None or report.needs_a_person:
        return Mark("*", None, roll.page(report.student, report.stem))
    link = "" if check.score == check.points else roll.box(report.student, report.stem, check.name)
    text = f"{check.score:g}" if check.score else SIGNS.get(check.status, "0")
    return Mark(text, tenth(check.score, check.points), link, STATUS_WORDS[check.status])


# ------------------------------------------------------------------------------------------------------- the pictures


def class_pictures(problems: Sequence[ProblemSummary], everyone: Sequence[Row]) -> list[tuple[str, Picture]]:
    """Return the pictures of a class that have anything to show, each with the id of the section behind it."""
    found = [
        ("problems", points_of_all(problems)), ("problems", pace_of_all(problems)),
        ("stuck", stuck_of_all(problems, everyone)), ("problems", mistakes_of_all(problems)),
        ("problems", items_of_all(problems)),
    ]  # fmt: skip
    return [(place, one) for place, one in found if one is not None]


def points_of_all(problems: Sequence[ProblemSummary]) -> Picture | None:
    scored = [
        (problem, problem.mean / problem.points) for problem in problems if problem.mean is not None and problem.points
    ]
    if not scored:
        return None
    lowest, share = min(scored, key=lambda pair: pair[1])
    told = f"How many students have how much of the points. Lowest mean: {short_name(lowest.stem)}, {100 * share:.0f}%"
    return pictures.points_picture("all-points", [points_panel(problem) for problem, _ in scored], told)


def points_panel(problem: ProblemSummary) -> pictures.Panel:
    title = f"{short_name(problem.stem)}: mean {problem.mean:.1f} of {problem.points:g}"
    return pictures.Panel(title, [count for _, count in problem.bins])


def pace_of_all(problems: Sequence[ProblemSummary]) -> Picture | None:
    timed = [problem for problem in problems if problem.arrivals.times]
    if not timed:
        return None
    late, count = (
        sum(numbers) for numbers in zip(*((one.arrivals.late, len(one.arrivals.times)) for one in timed), strict=True)
    )
    some_due = any(problem.arrivals.due for problem in timed)
    told = "How many had handed in by when" + (
        f". {late or 'None'} of {count} came after the due date, the dashed line" if some_due else ""
    )
    return pictures.pace_picture("all-pace", [pace_panel(problem) for problem in timed], told)


def pace_panel(problem: ProblemSummary) -> pictures.Pace:
    came = problem.arrivals
    marks = [*came.times.values(), came.due] if came.due else [*came.times.values()]
    marks.sort(key=utc)
    first, form = utc(marks[0]), "%d %b" if utc(marks[-1]) - utc(marks[0]) >= FEW_DAYS else "%d %b %H:%M"
    steps = [((time - first).total_seconds(), so_far) for time, so_far in came.steps]
    due = (utc(came.due) - first).total_seconds() if came.due else None
    return pictures.Pace(short_name(problem.stem), steps, due, (f"{marks[0]:{form}}", f"{marks[-1]:{form}}"))


def stuck_of_all(problems: Sequence[ProblemSummary], everyone: Sequence[Row]) -> Picture | None:
    missing = [sum(row.cells[place] is None for row in everyone) for place in range(len(problems))]
    by_problem = [{reason: len(who) for reason, who in problem.stuck} for problem in problems]
    stacks = [(kind, [found.get(kind, 0) for found in by_problem]) for kind in counts.REASONS]
    stacks = [(kind, numbers) for kind, numbers in [*stacks, (NOT_HANDED_IN, missing)] if any(numbers)]
    if not stacks:
        return None
    sums = [sum(numbers) for numbers in zip(*(numbers for _, numbers in stacks), strict=True)]
    worst = short_name(problems[sums.index(max(sums))].stem)
    told = f"Who is stuck, and where: most in {worst}. A student may count under two reasons"
    return pictures.stacks_picture("all-stuck", [short_name(problem.stem) for problem in problems], stacks, told)


def mistakes_of_all(problems: Sequence[ProblemSummary]) -> Picture | None:
    who: dict[str, set[str]] = defaultdict(set)
    for problem in problems:
        for one in problem.mistakes:
            who[f"{short_name(problem.stem)} {one.name}"] |= set(one.who)
    bars = [pictures.Bar(label, len(students)) for label, students in who.items()]
    bars.sort(key=lambda bar: -bar.count)
    told = f"The mistakes that most students made, of {len(bars)} that were named"
    return pictures.bars_picture("all-mistakes", bars[:MOST_BARS], told) if bars else None


def items_of_all(problems: Sequence[ProblemSummary]) -> Picture | None:
    items = [
        pictures.Item(f"{short_name(problem.stem)} {check.name}", check.difficulty, check.discrimination)
        for problem in problems
        for check in problem.checks
        if check.difficulty is not None and check.discrimination is not None
    ]
    weak = sum(item.discrimination < WEAK for item in items)
    told = (
        "How many have each check right, and how well it tells strong answers from weak ones. "
        f"{weak or 'None'} of {len(items)} discriminate{'s' if weak == 1 else ''} below {WEAK:g}"
    )
    return pictures.items_picture("all-items", items, told) if items else None


def problem_pictures(problem: ProblemSummary) -> list[Picture]:
    """Return the pictures of one problem that have anything to show."""
    name, found = problem.stem, []
    if problem.scores:
        told = f"Points of {counted(len(problem.scores), 'student')}: median {problem.median:g} of {problem.points:g}"
        found.append(pictures.points_picture(f"{name}-points", [points_panel(problem)], told))
    if problem.arrivals.times:
        found.append(pictures.pace_picture(f"{name}-pace", [pace_panel(problem)], pace_words(problem.arrivals)))
    if problem.mistakes:
        bars = [pictures.Bar(f"{one.check}: {one.name}", one.students) for one in problem.mistakes[:MOST_BARS]]
        first = problem.mistakes[0]
        most = counted(first.students, "student")
        told = f"Mistakes that were named: most often {first.check}: {first.name}, {most}"
        found.append(pictures.bars_picture(f"{name}-mistakes", bars, told))
    return found


def pace_words(came: Arrivals) -> str:
    """Say when half had handed in, and how many came after the due date."""
    known = len(came.times)
    half = f"{came.half:{MOMENT}}"
    told = f"Half of {known} had handed in by {half}" if known > 1 else f"The one hand-in came at {half}"
    return f"{told}; {came.late or 'none'} came after the due date, {came.due:{MOMENT}}" if came.due else told


# ---------------------------------------------------------------------------------------------------- the page, the CSV


def class_report(
    course: str, summaries: Sequence[ProblemSummary], csv_name: str = "class_report.csv", roll: Roll = NOBODY_KNOWN
) -> str:
    """Return the page. Its style sheet and its script are allowed by their fingerprints; nothing else is loaded."""
    style = "\n".join((TEMPLATES / name).read_text("utf-8") for name in ("feedback/style.css", "class_report.css"))
    script = (TEMPLATES / "class_report.js").read_text("utf-8")
    everyone = class_rows(summaries)
    return environment().get_template("class_report.html.j2").render(
        course=course, problems=summaries, csv_name=csv_name, rows=everyone, often=often_stuck(summaries, everyone),
        recurring=recurring_pairs(summaries), roll=roll, check_map=check_map, tenth=tenth,
        class_pictures=class_pictures, problem_pictures=problem_pictures, pace_words=pace_words,
        style=Markup(style), style_hash=style_hash(style),  # noqa: S704  (our own files)
        script=Markup(script), script_hash=style_hash(script),  # noqa: S704
        limits=similarity, small_class=counts.SMALL_CLASS, several=counts.SEVERAL, many=MANY_NAMES, most=MOST_ECHOES,
    )  # fmt: skip


def style_hash(style: str) -> str:
    """Return the name of a style sheet or a script in a content security policy."""
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


def write_class_report(path: Path, course: str, summaries: Sequence[ProblemSummary], roll: Roll = NOBODY_KNOWN) -> None:
    """Write the page, and beside it the same numbers row by row with the suffix `.csv`."""
    beside = path.with_suffix(".csv")
    path.write_text(class_report(course, summaries, beside.name, roll), "utf-8", errors="replace", newline="\n")
    beside.write_text(class_csv(summaries), "utf-8", errors="replace", newline="\n")


__all__ = ["Arrivals", "ProblemSummary", "class_report", "compare_answers", "summarise", "write_class_report"]
