"""The records about one submission: the brief for a judge, its judgement, and the report that is stored and shown."""

import dataclasses
import hashlib
import hmac
import json
import math
from dataclasses import dataclass
from typing import Any

from ftgrade.intake.forms import Forms
from ftgrade.intake.gate import NOTHING, Clean
from ftgrade.intake.notebook import Cell, Finding
from ftgrade.intake.reaching import REACHING

SCHEMA = 5
OUT_OF_MEMORY, SANDBOX_FAILED = 86, 87
"""The exit status of a judge that exceeds its memory limit, or whose sandbox failed."""
DEADLY = "ended-its-grader"
"""The kind of the finding on a submission that isn't judged again, because its judge died twice."""
SAME_NUMBER = "same-number"
"""The kind of the finding on a wrong personal number that is right for another question of the class."""
INSTRUCTORS_ONLY = frozenset({SAME_NUMBER, REACHING})
"""The kinds of findings that no student is shown: they accuse, and may be coincidences or honest curiosity."""

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
    "short": "in part",
    "waits": "doesn't count yet",
    "unreadable": "not graded",
    "ours": "grader's fault",
}


@dataclass(frozen=True, slots=True)
class CheckReport:
    """One check as its student sees it; no field holds a hidden value."""

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
    kept: tuple[str, ...] = ()
    """The contract's sentences that hold, and below those that don't; a check's points are shared out over them."""
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CellNote:
    """What one of the student's cells printed, its error, and its figures (PNG in base64)."""

    number: int
    printed: Clean = NOTHING
    error: Clean = NOTHING
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about the grading of one submission of one problem.

    `state` is `graded`, `unreadable` (the file) or `ours` (the grader or the problem failed, so a person must look).
    `key` is a digest of what was graded and by which versions, which `graded_by` lists: equal keys mean equal scores.
    `cells` are the cells that were judged; booking and feedback read them from here. `forms` are the forms of the
    answers, for comparing those of a class.
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
    forms: Forms = dataclasses.field(default_factory=dict[str, tuple[str, ...]])
    schema: int = SCHEMA

    @property
    def score(self) -> float:
        return round(sum(check.score for check in self.checks), 6)  # 9.62, not 9.620000000000001

    @property
    def points(self) -> float:
        return sum(check.points for check in self.checks)

    @property
    def told_to_student(self) -> tuple[Finding, ...]:
        """Return the findings without those that are for the instructor alone."""
        return tuple(finding for finding in self.findings if finding.kind not in INSTRUCTORS_ONLY)

    @property
    def is_reusable(self) -> bool:
        """Say whether a submission with the same key needs no new judging: it would give the same, or end a judge."""
        return self.state in ("graded", "unreadable") or any(finding.kind == DEADLY for finding in self.findings)

    @property
    def needs_a_person(self) -> bool:
        return self.state != "graded"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one submission in seconds of processor time; those of wall-clock time are `patience` times as long.

    Other load can make a submission exceed a wall-clock limit, so it is then judged once more, alone. The judge's own
    work (reading, comparing, describing) has limits too. `judge_wall_seconds` covers all the work on one submission.
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
    """How a submission is to be judged; it doesn't reveal the student.

    `personal` are the seeds of the personal questions whose answers count, the student's own first. `judged_by` are the
    grader's versions; a judge with other versions refuses. `alone` says that nothing else is judged at the same time.
    """

    stem: str
    seeds: list[int]
    personal: list[int]
    judged_by: dict[str, str]
    limits: Limits = dataclasses.field(default_factory=Limits)
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's result on one submission, from which the grader fills the report.

    `state` is one of a report's; or `crowded`: a wall-clock limit was exceeded, so judge it once more, alone; or
    `fault`: the problem can't be loaded here, so no report is stored.
    """

    state: str
    checks: tuple[CheckReport, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[CellNote, ...] = ()
    cells: tuple[Cell, ...] = ()
    forms: Forms = dataclasses.field(default_factory=dict[str, tuple[str, ...]])


def safe_score(score: float, points: float) -> float:
    """Return a score that may enter a gradebook: limited to 0 … points, and 0 if it isn't finite."""
    return min(max(float(score), 0.0), points) if math.isfinite(score) else 0.0


def student_view(report: Report) -> dict[str, Any]:
    """Return what the student may read of a report, without figures, as `ftgrade … --json` prints it."""
    return {
        "student": report.student,
        "problem": report.stem,
        "state": report.state,
        "score": report.score,
        "points": report.points,
        "checks": [fields(check) for check in report.checks],
        "findings": [fields(finding) for finding in report.told_to_student],
    }


def to_json(report: Report, secret: bytes = b"") -> str:
    """Return the stored form of a report with its seal; equal reports have equal text."""
    body = fields(report)
    return text_of({**body, "seal": seal(body, secret)})


def text_of(body: Any) -> str:
    """Return a record, or a dict of its fields, as JSON; equal ones have equal text."""
    return json.dumps(body, sort_keys=True, ensure_ascii=False, default=fields) + "\n"


def fields(record: Any) -> dict[str, Any]:
    """Return a record's fields by name, without the deep copy of `dataclasses.asdict`."""
    return {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}


def seal(body: dict[str, Any], secret: bytes) -> str:
    """Return the HMAC of a report."""
    key = hashlib.sha256(b"seal\0" + secret).digest()
    return hmac.new(key, text_of(body).encode(), hashlib.sha256).hexdigest()


def from_json(text: str, secret: bytes = b"") -> Report:
    """Return the report in a stored text. Raises ValueError if it isn't one, or if its seal doesn't fit."""
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
    """Return the judgement in a text that `text_of` wrote."""
    data = json.loads(text)
    return Judgement(**data | parse_records(data))


def parse_checks(checks: list[dict[str, Any]]) -> tuple[CheckReport, ...]:
    """Return the checks of their JSON form."""
    lists: list[dict[str, Any]] = [{name: tuple(check[name]) for name in ("kept", "broken")} for check in checks]
    return tuple(CheckReport(**check | own) for check, own in zip(checks, lists, strict=True))


def parse_records(data: dict[str, Any]) -> dict[str, Any]:
    """Return the nested records of a report's or a judgement's JSON form."""
    return {
        "checks": parse_checks(data["checks"]),
        "findings": tuple(Finding(**finding) for finding in data["findings"]),
        "notes": tuple(CellNote(**note | {"pictures": tuple(note["pictures"])}) for note in data["notes"]),
        "cells": tuple(Cell(**cell) for cell in data["cells"]),
        "forms": {function: tuple(parts) for function, parts in data["forms"].items()},
    }
