"""How often hand-ins are answered before they are due: the rules of each problem, and the attempts of each student.

The rules stand in the course's `.ftgrade/attempts.csv`, the attempts in `.ftgrade/attempts/STEM/STUDENT.json`. They
bound how often a student gets a page, not what counts: the last hand-in counts, whether it had a page or not.
"""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from ftgrade.course import Course
from ftgrade.errors import CourseFault

COLUMNS = ("problem", "limit", "wait_seconds", "mistakes_from")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_WAIT_SECONDS = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Rule:
    """What bounds the pages of one problem; 0 stands for no bound.

    `limit` is the number of attempts that get a page, `wait_seconds` the time between two of them. From attempt
    `mistakes_from` on, pages name the likely mistake; 0 keeps that until the problem is due.
    """

    limit: int = 0
    wait_seconds: int = 0
    mistakes_from: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One version of a student's work that got a page: its fingerprint, and when it came (UTC)."""

    submission: str
    time: datetime


def read_wait(text: str) -> int:
    """Return the seconds of a waiting time. Raises CourseFault.

    >>> [read_wait(text) for text in ("90", "45s", "10m", "2h", "1d")]
    [90, 45, 600, 7200, 86400]
    """
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip().lower(), re.ASCII)
    seconds = int(found[1]) * UNITS[found[2] or "s"] if found else MAX_WAIT_SECONDS + 1
    if seconds > MAX_WAIT_SECONDS:
        raise CourseFault(f"{text!r} is no waiting time such as 10m, 2h or 1d, of a year at most")
    return seconds


def wait_words(seconds: int) -> str:
    """Return a waiting time as people write it.

    >>> wait_words(600), wait_words(90), wait_words(0)
    ('10m', '90s', '–')
    """
    unit = next((name for name in "dhm" if seconds and seconds % UNITS[name] == 0), "s")
    return f"{seconds // UNITS[unit]}{unit}" if seconds else "–"


def read_rules(course: Course) -> dict[str, Rule]:
    """Return the rules of the problems that have some. Raises CourseFault with the line."""
    path = rules_path(course)
    if not path.is_file():
        return {}
    found: dict[str, Rule] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            try:
                found[row["problem"]] = Rule(*(int(row[name]) for name in COLUMNS[1:]))
            except (KeyError, TypeError, ValueError) as error:
                raise CourseFault(f"{path}, line {line}: {error}; its columns are {', '.join(COLUMNS)}") from None
    return found


def set_rule(course: Course, stem: str, changes: Mapping[str, int]) -> None:
    """Change some fields of a problem's rule; a rule without bounds is none."""
    known = read_rules(course)
    known[stem] = replace(known.get(stem, Rule()), **changes)
    path = rules_path(course)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        rows = [(name, rule.limit, rule.wait_seconds, rule.mistakes_from) for name, rule in sorted(known.items())]
        writer.writerows(row for row in rows if any(row[1:]))
    partial.replace(path)


def read_attempts(course: Course, student: str, stem: str) -> tuple[Attempt, ...]:
    """Return a student's attempts at a problem, in order. Raises OSError for a file that is not as it was written.

    A file that can't be read counts as a fault, not as none: otherwise a broken disk would grant further attempts.
    """
    path = attempts_path(course, student, stem)
    try:
        rows = json.loads(path.read_text("utf-8"))
        return tuple(Attempt(str(submission), datetime.fromisoformat(time)) for submission, time in rows)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as error:
        raise OSError(f"{path} can't be read ({error}): put it back from a backup, or remove it") from None


def add_attempt(course: Course, student: str, stem: str, new: Attempt) -> tuple[Attempt, ...]:
    """Note an attempt in one step, and return all of them. It is noted before its page is made."""
    known = (*read_attempts(course, student, stem), new)
    path = attempts_path(course, student, stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([[one.submission, one.time.isoformat()] for one in known]), "utf-8")
    partial.replace(path)
    return known


def refusal(rule: Rule, known: tuple[Attempt, ...], submission: str, now: datetime) -> str:
    """Say why a hand-in gets no page now, empty if it gets one: what had a page before gets the same again.

    >>> one = Attempt("a", datetime(2026, 1, 1, 12, 0))
    >>> refusal(Rule(wait_seconds=600), (one,), "b", datetime(2026, 1, 1, 12, 8))
    'waits 120 s, since 10m must pass between two attempts'
    >>> refusal(Rule(limit=1), (one,), "b", datetime(2026, 1, 2)), refusal(Rule(limit=1), (one,), "a", one.time)
    ('has used 1 of 1 attempts', '')
    """
    if not known or any(one.submission == submission for one in known):
        return ""
    if rule.limit and len(known) >= rule.limit:
        return f"has used {len(known)} of {rule.limit} attempts"
    left = known[-1].time + timedelta(seconds=rule.wait_seconds) - now
    if rule.wait_seconds and left > timedelta():
        seconds = -(-left // timedelta(seconds=1))
        return f"waits {seconds} s, since {wait_words(rule.wait_seconds)} must pass between two attempts"
    return ""


def rules_path(course: Course) -> Path:
    return course.state / "attempts.csv"


def attempts_path(course: Course, student: str, stem: str) -> Path:
    return course.state / "attempts" / stem / f"{student}.json"


__all__ = [
    "Attempt", "Rule", "add_attempt", "read_attempts", "read_rules", "read_wait", "refusal", "set_rule", "wait_words",
]  # fmt: skip
