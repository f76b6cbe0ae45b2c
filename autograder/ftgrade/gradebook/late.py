"""When work is due, for whom later, and what lateness costs: nbgrader's records, penalties and plugin.

A course says what lateness costs in its `nbgrader_config.py`, after `configure`:

    c.LatePolicy.percent_a_day = 10
    c.LatePolicy.at_most_percent = 50
    c.LatePolicy.grace_minutes = 15

Due dates stand in the gradebook. An extension stands in the course's `.ftgrade/extensions.csv`, because nbgrader can
note one only beside a submission that it knows; it's copied there when the submission is booked. When a submission was
handed in stands in its `timestamp.txt`, as nbgrader's exchange and `ftgrade collect` write it; without, it's in time.
A penalty is computed when a submission is booked: points that a person gives later change it with the next grading.
"""

import contextlib
import copy
import csv
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.coursedir import CourseDirectory
from nbgrader.plugins import BasePlugin, LateSubmissionPlugin
from nbgrader.preprocessors import AssignLatePenalties
from traitlets import Float, TraitError, Type, validate
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from ftgrade.course import CONFIG_FILE, Course
from ftgrade.errors import CourseFault
from ftgrade.guard import guarded
from ftgrade.moments import in_zone, parse_time

DAY_SECONDS = 86_400
EXTENSION_COLUMNS = ("student", "problem", "until")


# -------------------------------------------------------------------------------------------------- what lateness costs


@dataclass(frozen=True, slots=True)
class Policy:
    """What lateness costs: a percentage of the score for each day begun after the grace, up to a bound."""

    percent_a_day: float = 0.0
    at_most_percent: float = 100.0
    grace_minutes: float = 0.0


def late_penalty(score: float, seconds_late: float, policy: Policy) -> float:
    """Return the points that lateness takes off a score. The grace moves the due date: days begin after it.

    >>> ten = Policy(percent_a_day=10, at_most_percent=50, grace_minutes=15)
    >>> [late_penalty(8, seconds, ten) for seconds in (900, 901, 86_400 + 900, 86_400 + 901, 10**9)]
    [0.0, 0.8, 0.8, 1.6, 4.0]
    """
    over = seconds_late - 60 * policy.grace_minutes
    if over <= 0:
        return 0.0
    percent = min(math.ceil(over / DAY_SECONDS) * policy.percent_a_day, policy.at_most_percent)
    return score * percent / 100


class LatePolicy(LateSubmissionPlugin):
    """nbgrader's plugin for late submissions, with a policy; `penalty_method = "zero"` takes everything, as there."""

    percent_a_day: Any = Float(0.0, min=0, max=100, help="percent of the score for each day begun").tag(config=True)
    at_most_percent: Any = Float(100.0, min=0, max=100, help="the most that lateness takes").tag(config=True)
    grace_minutes: Any = Float(0.0, min=0, help="how much later than due costs nothing").tag(config=True)

    @validate("percent_a_day", "at_most_percent", "grace_minutes")
    def demand_finite(self, proposal: Any) -> float:
        """Refuse nan and inf, which every comparison lets pass."""
        if not math.isfinite(proposal["value"]):
            raise TraitError(f"{proposal['trait'].name} must be a finite number, got {proposal['value']}")
        return proposal["value"]

    @property
    def policy(self) -> Policy:
        return Policy(self.percent_a_day, self.at_most_percent, self.grace_minutes)

    def late_submission_penalty(self, student_id: str, score: float, total_seconds_late: float) -> float | None:
        if self.penalty_method == "zero":
            return score
        return late_penalty(score, total_seconds_late, self.policy) or None


class LatePenalties(AssignLatePenalties):
    """nbgrader's own step, with the course's policy and extensions, whoever drives nbgrader."""

    plugin_class: Any = Type(LatePolicy, klass=BasePlugin, help=AssignLatePenalties.plugin_class.help).tag(config=True)

    def init_plugin(self) -> None:
        self.plugin_inst = late_plugin(Path(course_directory(self).root), self.config)

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        directory: Any = course_directory(self)
        keys = resources["nbgrader"]
        known = read_extensions(Course(Path(directory.root)))
        with Gradebook(directory.db_url, directory.course_id) as gradebook:
            copy_extension(gradebook.find_submission(keys["assignment"], keys["student"]), known)
            gradebook.db.commit()
        return super().preprocess(nb, resources)


def course_directory(preprocessor: Any) -> CourseDirectory:
    """Return the course of the converter that a preprocessor works for."""
    return preprocessor.parent.parent.coursedir


def late_plugin(root: Path, config: Config | None = None) -> Any:
    """Return the plugin that a course's configuration asks for. Raises CourseFault for a setting that it can't have."""
    both = course_config(root)
    both.merge(config or Config())
    if unknown := set(both.LatePolicy) - set(LatePolicy.class_trait_names(config=True)):
        raise CourseFault(
            f"{CONFIG_FILE} sets c.LatePolicy.{min(unknown)}, which there isn't; there are: "
            f"{', '.join(sorted(LatePolicy.class_trait_names(config=True)))}"
        )
    try:
        return LatePenalties(config=both).plugin_class(config=both)
    except TraitError as error:
        raise CourseFault(f"{CONFIG_FILE}: {error}") from None


def course_config(root: Path) -> Config:
    """Return what a course's own `nbgrader_config.py` sets; nothing if there is none. Raises CourseFault."""
    path = root.absolute() / CONFIG_FILE
    return copy.deepcopy(load_config(path, path.stat().st_mtime_ns)) if path.is_file() else Config()


@cache
def load_config(path: Path, _changed: int) -> Config:
    try:
        with contextlib.chdir(path.parent):  # as nbgrader runs it
            return PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
    except Exception as error:
        raise CourseFault(f"{path} can't be read: {type(error).__name__}: {error}") from error


# --------------------------------------------------------------------------------------------------------------- times


def timezone_of(root: Path) -> str:
    """Return the name of the course's time zone, nbgrader's `c.NbGraderAPI.timezone`."""
    return str(course_config(root).NbGraderAPI.get("timezone", "UTC"))


# ---------------------------------------------------------------------------------------------------------- extensions

Extensions = dict[tuple[str, str], datetime]


def read_extensions(course: Course) -> Extensions:
    """Return until when single students have time, by student and problem. Raises CourseFault with the line."""
    path = course.state / "extensions.csv"
    if not path.is_file():
        return {}
    found: Extensions = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            try:
                found[row["student"], row["problem"]] = parse_time(row["until"], "UTC")
            except (KeyError, TypeError, CourseFault) as error:
                raise CourseFault(
                    f"{path}, line {line}: {error}; its columns are {', '.join(EXTENSION_COLUMNS)}"
                ) from None
    return found


def write_extensions(course: Course, known: Extensions) -> None:
    """Write the extensions in one step."""
    path = course.state / "extensions.csv"
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(EXTENSION_COLUMNS)
        writer.writerows([*key, f"{until.isoformat()}+00:00"] for key, until in sorted(known.items()))
    partial.replace(path)


def copy_extension(submission: Any, known: Extensions) -> None:
    """Copy an extension to nbgrader's record of a submission; one that was granted there by hand stays."""
    until = known.get((submission.student_id, submission.assignment.name))
    submission.extension = extension_length(submission.assignment.duedate, until, submission.extension)


def extension_length(due: datetime | None, until: datetime | None, granted: timedelta | None) -> timedelta | None:
    """Return an extension as nbgrader notes it: none without a due date, to which it would be added all the same."""
    if due is None or until is None:
        return granted if due else None
    return max(until - due, timedelta(0))


# ------------------------------------------------------------------------------------------------------------ commands


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a problem is due (UTC), until when for whom, and how many of the booked are late or tell no time."""

    stem: str
    due: datetime | None
    extended: tuple[tuple[str, datetime], ...]
    booked: int
    late: int
    without_time: int


def read_deadlines(gradebook: Gradebook, course: Course, stems: Sequence[str]) -> list[Deadline]:
    """Return the deadline of every problem."""
    known = read_extensions(course)
    return [read_deadline(gradebook, stem, known) for stem in stems]


def read_deadline(gradebook: Gradebook, stem: str, known: Extensions) -> Deadline:
    extended = tuple((student, until) for (student, problem), until in sorted(known.items()) if problem == stem)
    try:
        record: Any = gradebook.find_assignment(stem)
    except MissingEntry:
        return Deadline(stem, None, extended, 0, 0, 0)
    submissions: list[Any] = list(record.submissions) if record.duedate else []
    late = sum(submission.total_seconds_late > 0 for submission in submissions)
    timeless = sum(submission.timestamp is None for submission in submissions)
    return Deadline(stem, record.duedate, extended, len(submissions), late, timeless)


def booked_penalties(gradebook: Gradebook, stems: Sequence[str]) -> dict[tuple[str, str], float]:
    """Return what is booked off for lateness, by student and problem."""
    submissions: list[Any] = [one for stem in stems for one in gradebook.assignment_submissions(stem)]
    return {
        (one.student_id, one.assignment.name): float(one.late_submission_penalty)
        for one in submissions
        if one.late_submission_penalty
    }


def hand_in_times(gradebook: Gradebook, stem: str, zone: str) -> dict[str, datetime]:
    """Return when each student handed a problem in, in the course's zone, as far as the gradebook tells.

    A time stamp is a student's file: one at the very end of the calendar, which no other zone can tell, is none.
    """
    found: dict[str, datetime] = {}
    submissions: list[Any] = gradebook.assignment_submissions(stem)
    for one in submissions:
        time = guarded(lambda one=one: in_zone(one.timestamp, zone) if one.timestamp else None)
        if isinstance(time, datetime):
            found[one.student_id] = time
    return found


def set_due(gradebook: Gradebook, course: Course, stem: str, due: datetime | None) -> None:
    """Set when a problem is due (UTC), or that it never is; extensions keep their day."""
    record: Any = gradebook.update_or_create_assignment(stem, duedate=due)  # pyright: ignore[reportArgumentType]
    known = read_extensions(course)
    for submission in record.submissions:
        copy_extension(submission, known)
    gradebook.db.commit()


def set_extension(gradebook: Gradebook, course: Course, student: str, stem: str, until: datetime | None) -> None:
    """Give a student time until then (UTC), or take an extension back. Raises CourseFault for what can't be meant."""
    demand_student(gradebook, course, student)
    due = read_deadline(gradebook, stem, {}).due
    if until is not None and due is None:
        raise CourseFault(f"{stem} has no due date to extend: set one with `ftgrade due {stem} TIME`")
    if until is not None and due is not None and until <= due:
        raise CourseFault(f"{stem} is due {due} UTC for everybody, and {until} UTC is no later")
    known = {key: time for key, time in read_extensions(course).items() if key != (student, stem)}
    write_extensions(course, known if until is None else known | {(student, stem): until})
    with contextlib.suppress(MissingEntry):
        submission: Any = gradebook.find_submission(stem, student)
        submission.extension = None
        copy_extension(submission, read_extensions(course))
        gradebook.db.commit()


def demand_student(gradebook: Gradebook, course: Course, student: str) -> None:
    """Raise CourseFault for a student whom neither gradebook nor roster knows."""
    students = {str(one.id) for one in gradebook.students} | set(course.roster())
    if student not in students:
        near = difflib.get_close_matches(student, students, 1)
        raise CourseFault(f"there is no student {student!r} in this course" + (f": {near[0]}?" if near else ""))


__all__ = [
    "Deadline",
    "LatePenalties",
    "LatePolicy",
    "Policy",
    "booked_penalties",
    "copy_extension",
    "course_config",
    "course_directory",
    "demand_student",
    "extension_length",
    "hand_in_times",
    "late_penalty",
    "late_plugin",
    "read_deadlines",
    "read_extensions",
    "set_due",
    "set_extension",
    "timezone_of",
]  # fmt: skip
