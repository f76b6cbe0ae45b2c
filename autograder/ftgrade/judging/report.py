"""Verdicts to JSON and words: what is stored, shown and booked about one submission."""

import dataclasses
import hashlib
import hmac
import json
import math
from dataclasses import dataclass
from typing import Any

from ftgrade.intake.notebook import Cell, Finding
from ftgrade.judging.judge import CheckVerdict, Verdict
from ftgrade.judging.problem import calls_of
from ftgrade.sandbox.channel import Value

SCHEMA = 3
DEADLY = "ended-its-grader"
"""The finding on a submission that isn't judged again: judging it ended the process that judged, more than once."""

STATUS_WORDS = {
    "pass": "right",
    "wrong": "wrong",
    "error": "raised an error",
    "not-attempted": "not attempted",
    "timeout": "ran too long",
    "killed": "crashed",
    "unsendable": "not readable",
    "protocol": "not readable",
    "not-run": "not run",
    "unreadable": "not graded",
    "ours": "grader's fault",
}


@dataclass(frozen=True, slots=True)
class CheckReport:
    """One check as its student reads it; no field holds a hidden value."""

    name: str
    title: str
    function: str
    points: float
    score: float
    status: str
    passed: int
    cases: int
    case: str = ""
    words: str = ""
    mistake: str = ""
    says: str = ""
    next_step: str = ""
    largest: float | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class CellNote:
    """What one of the student's own cells did: what it printed, how it failed, what it drew (PNG in base64)."""

    number: int
    printed: str = ""
    error: str = ""
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about the grading of one submission of one problem.

    `state` is `graded`, `unreadable` (the student's file) or `ours` (the grader or the problem failed: a person looks).
    `key` names what was graded and by what, which `graded_by` tells part by part; an equal key means an equal score.
    `cells` are the submission's cells as they were judged: what is booked, shown and compared is read from here.
    """

    stem: str
    student: str
    state: str
    key: str
    secret_print: str
    version: int
    checks: tuple[CheckReport, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[CellNote, ...] = ()
    graded_by: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    cells: tuple[Cell, ...] = ()
    schema: int = SCHEMA

    @property
    def score(self) -> float:
        return sum(check.score for check in self.checks)

    @property
    def points(self) -> float:
        return sum(check.points for check in self.checks)

    @property
    def stands(self) -> bool:
        """Say whether it's used again while its key is the same: judging again would say the same, or do harm."""
        return self.state in ("graded", "unreadable") or any(finding.kind == DEADLY for finding in self.findings)

    @property
    def needs_a_person(self) -> bool:
        return self.state != "graded"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of one submission, to be filled into the report that the grader keeps.

    `state` is one of a report's, or `crowded` (it met a limit on the wall, and is to be judged once more alone), or
    `fault`: the problem can't be loaded here, and no report is kept.
    """

    state: str
    checks: tuple[CheckReport, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[CellNote, ...] = ()
    cells: tuple[Cell, ...] = ()


def describe(verdict: CheckVerdict) -> CheckReport:
    """Return a check's verdict in words."""
    check, worst = verdict.check, verdict.worst
    whole = CheckReport(
        name=check.name,
        title=check.title,
        function=check.of,
        points=check.points,
        score=booked(verdict.score, check.points),
        status=worst.status if worst else "pass",
        passed=verdict.passed,
        cases=verdict.cases,
    )
    return whole if worst is None else dataclasses.replace(whole, **failure(verdict, worst))


def failure(verdict: CheckVerdict, worst: Verdict) -> dict[str, Any]:
    """Return the words for a failed check: the case, the difference, the known mistake, one next step."""
    if worst.status == "not-attempted":
        words = f"{unwritten(worst) or verdict.check.of} is not written yet, or its cell is missing or didn't run."
        return {"words": words, "next_step": "Write the function in its answer cell; run the notebook from the top."}
    difference, mistake = worst.difference, verdict.mistake
    ratio = shown(difference.ratio) if difference else None
    return {
        "case": worst.case.words,
        "words": difference.words if difference else "",
        # A difference and a ratio together give the hidden value away: one of them is told.
        "largest": shown(difference.largest) if difference and ratio is None else None,
        "ratio": ratio,
        "mistake": mistake.name if mistake else "",
        "says": mistake.says if mistake else "",
        "next_step": mistake.next_step if mistake else verdict.check.next_step,
    }


def unwritten(worst: Verdict) -> str:
    """Return the function whose call found nothing to call."""
    calls = zip(calls_of(worst.case), worst.outcomes, strict=False)
    return next((call.function for call, outcome in calls if not isinstance(outcome, Value)), "")


def shown(value: float | None) -> float | None:
    """Round to four digits: enough to recognise a factor, too few to rebuild a hidden value."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def booked(score: float, points: float) -> float:
    """Return a score that may enter a gradebook: finite and within 0 and the points, 0 where it's neither."""
    return min(max(float(score), 0.0), points) if math.isfinite(score) else 0.0


def told(report: Report) -> dict[str, Any]:
    """Return what a report's student may read, without pictures, as `ftgrade … --json` prints it."""
    return {
        "student": report.student,
        "problem": report.stem,
        "state": report.state,
        "score": report.score,
        "points": report.points,
        "checks": [fields(check) for check in report.checks],
        "findings": [fields(finding) for finding in report.findings],
    }


def to_json(report: Report, secret: bytes = b"") -> str:
    """Return the stored form of a report, sealed with a secret; equal reports have equal text."""
    body = fields(report)
    return text_of({**body, "seal": seal(body, secret)})


def text_of(body: Any) -> str:
    """Return a record or its fields as JSON; equal ones have equal text."""
    return (
        json.dumps(body if isinstance(body, dict) else fields(body), sort_keys=True, ensure_ascii=False, default=fields)
        + "\n"
    )


def fields(record: Any) -> dict[str, Any]:
    """Return a record's fields by name; `dataclasses.asdict` would copy all that is in them."""
    return {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}


def seal(body: dict[str, Any], secret: bytes) -> str:
    """Return what only who has the secret can write under a report."""
    key = hashlib.sha256(b"seal\0" + secret).digest()
    return hmac.new(key, text_of(body).encode(), hashlib.sha256).hexdigest()


def from_json(text: str, secret: bytes = b"") -> Report:
    """Return the report of its stored form. Raises ValueError for any other text, and for one that was changed."""
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError("this is not a report of this version")
    if not hmac.compare_digest(str(data.pop("seal", "")), seal(data, secret)):
        raise ValueError("this report was changed after it was written, or written with another secret")
    try:
        return Report(**data | records(data))
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is not a report: {error}") from None


def judgement_of(text: bytes) -> Judgement:
    """Return the judgement that `text_of` wrote."""
    data = json.loads(text)
    return Judgement(**data | records(data))


def records(data: dict[str, Any]) -> dict[str, Any]:
    """Return the records in a report's JSON form."""
    return {
        "checks": tuple(CheckReport(**check) for check in data["checks"]),
        "findings": tuple(Finding(**finding) for finding in data["findings"]),
        "notes": tuple(CellNote(**note | {"pictures": tuple(note["pictures"])}) for note in data["notes"]),
        "cells": tuple(Cell(**cell) for cell in data["cells"]),
    }
