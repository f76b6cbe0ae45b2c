"""What a judge is asked, what it says, and the report that is stored, shown and booked about one submission."""

import dataclasses
import hashlib
import hmac
import json
import math
from dataclasses import dataclass
from typing import Any

from ftgrade.intake.gate import NOTHING, Clean
from ftgrade.intake.notebook import Cell, Finding

SCHEMA = 3
OUT_OF_MEMORY = 86  # the exit status of a judge whose submission takes more than it may
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
    words: Clean = NOTHING
    mistake: str = ""
    says: str = ""
    next_step: str = ""
    largest: float | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class CellNote:
    """What one of the student's own cells did: what it printed, how it failed, what it drew (PNG in base64)."""

    number: int
    printed: Clean = NOTHING
    error: Clean = NOTHING
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
    def is_reusable(self) -> bool:
        """Say whether it's used again while its key is the same: judging again would say the same, or do harm."""
        return self.state in ("graded", "unreadable") or any(finding.kind == DEADLY for finding in self.findings)

    @property
    def needs_a_person(self) -> bool:
        return self.state != "graded"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one submission may take: processor seconds, and `patience` times as many on the wall.

    A submission that meets the wall, which a neighbour's load may bring near, is judged once more alone. The judge's
    own part (reading, comparing, describing) has limits too; `judge_wall_seconds` bounds all that is done for one.
    """

    cell_seconds: float = 10.0
    call_seconds: float = 5.0
    submission_seconds: float = 60.0
    patience: float = 3.0
    judge_seconds: float = 60.0
    judge_megabytes: int = 3_000
    judge_wall_seconds: float = 400.0


@dataclass(frozen=True, slots=True)
class Brief:
    """How a submission is to be judged: nothing in it tells whose it is.

    `judged_by` is what the grader's side would judge with; a judge that has anything else refuses. `alone` says that
    nothing else of ours runs meanwhile.
    """

    stem: str
    seeds: list[int]
    personal: int
    judged_by: dict[str, str]
    limits: Limits = dataclasses.field(default_factory=Limits)
    alone: bool = False


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


def safe_score(score: float, points: float) -> float:
    """Return a score that may enter a gradebook: finite and within 0 and the points, 0 where it's neither."""
    return min(max(float(score), 0.0), points) if math.isfinite(score) else 0.0


def student_view(report: Report) -> dict[str, Any]:
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
        return Report(**data | parse_records(data))
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is not a report: {error}") from None


def judgement_of(text: bytes) -> Judgement:
    """Return the judgement that `text_of` wrote."""
    data = json.loads(text)
    return Judgement(**data | parse_records(data))


def parse_records(data: dict[str, Any]) -> dict[str, Any]:
    """Return the records in a report's JSON form."""
    return {
        "checks": tuple(CheckReport(**check) for check in data["checks"]),
        "findings": tuple(Finding(**finding) for finding in data["findings"]),
        "notes": tuple(CellNote(**note | {"pictures": tuple(note["pictures"])}) for note in data["notes"]),
        "cells": tuple(Cell(**cell) for cell in data["cells"]),
    }
