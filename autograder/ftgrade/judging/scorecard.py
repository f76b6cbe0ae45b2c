"""A project's scorecard: the library's program measures what was handed in, as data, in a process of its own.

The engine doesn't know what the files hold. It sends their bytes, the seeds and the rules to the program, and gets back
what was measured and the points that this makes, or why the files can't be scored. The program limits its own memory
and processor time; nothing that a student wrote is run.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from ftgrade.catalog import Catalog
from ftgrade.errors import OurFault, StudentFault
from ftgrade.intake.gate import clean
from ftgrade.judging.project import Measure, Project, goals_words, number_words
from ftgrade.judging.report import Brief, CheckReport, safe_score
from ftgrade.sandbox.backends import clean_environment
from ftgrade.sandbox.channel import Crowded

MAX_REPLY = 64 * 2**10


def score_files(
    catalog: Catalog, project: Project, brief: Brief, files: Mapping[str, bytes]
) -> tuple[CheckReport, ...]:
    """Return the scorecard of a hand-in. Raises StudentFault, OurFault, and Crowded if it should be tried alone."""
    request: dict[str, Any] = {"seeds": brief.seeds, "rules": project.rules}
    for name, (file, limit) in project.files.items():
        if len(files[file]) > limit:
            raise StudentFault("too-large", f"{file} is larger than {limit:,} bytes.")
        request[name] = base64.b64encode(files[file]).decode()
    told = run_program(catalog, project.program, json.dumps(request).encode(), brief)
    if refused := told.get("refused"):
        raise StudentFault(str(refused["kind"]), str(refused["words"]))
    return tuple(line_of(measure, told["scores"][measure.name]) for measure in project.measures)


def run_program(catalog: Catalog, program: str, request: bytes, brief: Brief) -> dict[str, Any]:
    """Return a program's reply. Raises OurFault if it fails, and Crowded if it's too slow beside others."""
    environment = clean_environment(tempfile.gettempdir()) | {"PYTHONPATH": str(catalog.root / "course")}
    try:
        done = subprocess.run(  # noqa: S603  (the program is the project's, and its words are ours)
            [sys.executable, "-P", "-m", program],
            input=request,
            capture_output=True,
            env=environment,
            cwd=os.path.sep,
            timeout=brief.limits.patience * brief.limits.submission_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        if not brief.alone:
            raise Crowded from None
        raise OurFault(f"{program} did not end in time") from None
    if done.returncode or len(done.stdout) > MAX_REPLY:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no word"]
        raise OurFault(f"{program} ended with status {done.returncode}: {said[-1][:300]}")
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------------------------- a line in words


def line_of(measure: Measure, told: Mapping[str, Any]) -> CheckReport:
    """Return one line of the scorecard, of what the program told."""
    score, reached = safe_score(told["points"], measure.points), int(told["reached"])
    status = "pass" if score == measure.points else "waits" if told["waits"] else "short"
    words = f"{measured_words(measure, told['measure'])}; {goals_words(measure, reached)}"
    return CheckReport(
        measure.name, measure.title, measure.of, measure.points, score, status, reached, len(measure.goals),
        words=clean(words), next_step="" if status == "pass" else next_step(measure, status),
    )  # fmt: skip


def next_step(measure: Measure, status: str) -> str:
    if status == "waits":
        return f"Reach the first goal of {measure.after}: keeping everything is easy for what has learned nothing."
    return measure.next_step


def measured_words(measure: Measure, told: Mapping[str, Any]) -> str:
    """Return a measured number with its interval, if it has a width.

    >>> size = Measure("size", "", "", ((100.0, 1.0),), "", unit=" parameters")
    >>> measured_words(size, {"value": 19712, "low": 19712, "high": 19712, "count": 1})
    '19,712 parameters'
    """
    value, low, high = (number_words(float(told[name])) for name in ("value", "low", "high"))
    interval = (
        f", within {low} to {high} at 95 % on {int(told['count'])} prompts, whose better end counts"
        if low != high
        else ""
    )
    return f"{value}{measure.unit}{interval}"


__all__ = ["measured_words", "score_files"]
