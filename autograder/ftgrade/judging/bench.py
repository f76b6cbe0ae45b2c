"""A judge: the process in which one submission after another becomes a judgement, with an oracle of its own.

Theory of operation. The grader hands over a brief, which names the problem and the seeds, and the bytes that were
handed in. The judge reads the notebook, runs it in its own sandbox, asks, compares, and puts it all in words. It has
one thread, so nothing that it keeps (the reference's answers, what each mistake answers) is touched by two at once; and
it has limits of memory and processor time, beyond which it dies with this submission alone. What it keeps changes how
soon an answer comes, never which.
"""

import dataclasses
import functools
import gc
import hashlib
import json
import math
import os
import platform
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftgrade.catalog import Catalog
from ftgrade.errors import CourseFault, GradingError, StudentFault
from ftgrade.intake import notebook
from ftgrade.intake.gate import clean
from ftgrade.intake.notebook import Cell, Finding, Submission, make_finding
from ftgrade.judging import report
from ftgrade.judging.judge import CheckVerdict, Oracle, Verdict
from ftgrade.judging.problem import calls_of
from ftgrade.judging.report import OUT_OF_MEMORY, Brief, CheckReport, Judgement, Limits, safe_score
from ftgrade.judging.session import Session
from ftgrade.sandbox.backends import BACKENDS, read_control
from ftgrade.sandbox.channel import Crowded, Value
from ftgrade.sandbox.process import Sandbox
from ftgrade.sandbox.worker import frame, parse_json, read_exactly

UNWRITTEN = "Write the function in its answer cell; run the notebook from the top."


class Bench:
    """Judge submissions: problems loaded once, one sandbox."""

    def __init__(self, catalog: Catalog, sandbox: Sandbox) -> None:
        self.catalog = catalog
        self.sandbox = sandbox
        self.oracle_of = functools.cache(functools.partial(Oracle, catalog))
        self.statements: dict[str, list[int]] = {}

    def judge(self, brief: Brief, data: bytes) -> Judgement:
        """Return the judgement on what was handed in, whatever happens; a lack of memory ends the process."""
        try:
            oracle = self.oracle_of(brief.stem)
            demand_same(judged_by(oracle), brief.judged_by)
            return self.judge_submission(oracle, brief, notebook.parse_submission(data))
        except StudentFault as fault:
            return Judgement("unreadable", findings=(make_finding(fault.kind, fault.words),))
        except Crowded:
            return Judgement("crowded")
        except GradingError as error:
            return Judgement("fault", findings=(make_finding(type(error).__name__, error),))

    def judge_submission(self, judging: Oracle, brief: Brief, submission: Submission) -> Judgement:
        """Return the judgement on a submission; a fault of the problem or of ours is told as such, and scores 0."""
        cells, odd = answer_cells(submission, {check.name for check in judging.problem.all_checks})
        findings = [*submission.findings, *odd]
        with Session(self.sandbox, cells, brief.limits, alone=brief.alone) as session:
            try:
                session.loaded_worker()
                verdicts = judging.judge(session.ask, brief.seeds)
                if judging.problem.own:
                    verdicts.append(judging.judge_personal(session.ask, brief.personal))
                    findings += neighbour_findings(
                        judging, brief.personal, verdicts[-1], self.statements.get(brief.stem, [])
                    )
                checks = tuple(check_report(verdict) for verdict in verdicts)
            except (Crowded, MemoryError):
                raise
            except Exception as error:  # whatever it is, this student waits and the class goes on
                words = f"The grader could not finish: {type(error).__name__}: {error}"
                return Judgement("ours", findings=(*findings, make_finding("ours", words)), cells=submission.cells)
        for number, words in session.skipped.items():
            findings.append(make_finding("cell-left-out", f"Cell {number}: {words}"))
        return Judgement("graded", checks, tuple(findings), tuple(session.notes), submission.cells)


def judged_by(judging: Oracle) -> dict[str, str]:
    """Return what judges a problem here, by what it is; a score made by something else may differ."""
    return {"problem": judging.digest, "engine": code_digest(), "environment": environment()}


def demand_same(here: dict[str, str], there: dict[str, str]) -> None:
    """Raise CourseFault unless a judge has the problem, the engine and the libraries that the report will name."""
    for name, mine in here.items():
        if there[name] != mine:
            raise CourseFault(
                f"a judge has another {name} than this machine, {mine} instead of {there[name]}: "
                "install the same checkout and the same versions there, or start this program again if it was changed"
            )


@functools.cache
def code_digest() -> str:
    """Return a fingerprint of the engine's own judging code."""
    package = Path(__file__).parents[1]
    files = [package / "sandbox" / "worker.py", package / "sandbox" / "channel.py"]
    files += [path for room in ("intake", "judging") for path in sorted((package / room).glob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def environment() -> str:
    return f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"


def answer_cells(submission: Submission, graded: set[str]) -> tuple[list[Cell], list[Finding]]:
    """Return the code cells to run, in order, without the graded check cells, and what was odd about them."""
    code = [cell for cell in submission.cells if cell.kind == "code" and cell.grade_id not in graded]
    claimed = [cell.grade_id for cell in submission.cells if cell.grade_id is not None]
    twice = sorted({name for name in claimed if claimed.count(name) > 1})
    words = f"These cells stand more than once; all of them ran, in order: {', '.join(twice)}."
    return code, [make_finding("duplicate-cells", words)] if twice else []


def neighbour_findings(judging: Oracle, personal: int, verdict: CheckVerdict, statements: list[int]) -> list[Finding]:
    """Return a finding if a wrong personal number is the right one of another statement of this course."""
    if verdict.worst is None or verdict.worst.status != "wrong":
        return []
    outcome = verdict.worst.outcomes[0]
    if not any(judging.answers_personal(outcome, seed) for seed in statements if seed != personal):
        return []
    return [make_finding("neighbours-number", "The personal number is that of another statement than this student's.")]


# ------------------------------------------------------------------------------------------------- verdicts in words


def check_report(verdict: CheckVerdict) -> CheckReport:
    """Return a check's verdict in words."""
    check, worst = verdict.check, verdict.worst
    whole = CheckReport(
        name=check.name,
        title=check.title,
        function=check.of,
        points=check.points,
        score=safe_score(verdict.score, check.points),
        status=worst.status if worst else "pass",
        passed=verdict.passed,
        cases=verdict.cases,
    )
    return whole if worst is None else dataclasses.replace(whole, **failure_fields(verdict, worst))


def failure_fields(verdict: CheckVerdict, worst: Verdict) -> dict[str, Any]:
    """Return the words for a failed check: the case, the difference, the known mistake, one next step."""
    if worst.status == "not-attempted":
        words = (
            f"{missing_function(worst) or verdict.check.of} is not written yet, or its cell is missing or didn't run."
        )
        return {
            "words": clean(words),
            "next_step": "Write the function in its answer cell; run the notebook from the top.",
        }
    difference, mistake = worst.difference, verdict.mistake
    ratio = rounded(difference.ratio) if difference else None
    return {
        "case": worst.case.words,
        "words": clean(difference.words if difference else ""),
        # A difference and a ratio together give the hidden value away: one of them is told.
        "largest": rounded(difference.largest) if difference and ratio is None else None,
        "ratio": ratio,
        "mistake": mistake.name if mistake else "",
        "says": mistake.says if mistake else "",
        "next_step": mistake.next_step if mistake else verdict.check.next_step,
    }


def missing_function(worst: Verdict) -> str:
    """Return the function whose call found nothing to call."""
    calls = zip(calls_of(worst.case), worst.outcomes, strict=False)
    return next((call.function for call, outcome in calls if not isinstance(outcome, Value)), "")


def rounded(value: float | None) -> float | None:
    """Round to four digits: enough to recognise a factor, too few to rebuild a hidden value."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


# ------------------------------------------------------------------------------------------------------ the process


def serve(channel: socket.socket, control: socket.socket | None) -> None:
    """Judge what the grader sends until it hangs up; `control` leads to the sandbox's parent, if it was forked."""
    hello, _ = receive(channel)
    limit_memory(hello["megabytes"])
    if control is not None:
        read_control(control)
    bench = Bench(Catalog(Path(hello["root"])), Sandbox(BACKENDS[hello["backend"]], control=control))
    gc.freeze()
    channel.sendall(frame(b'{"ready": true}'))
    while True:
        try:
            message, data = receive(channel)
        except (EOFError, ConnectionError):
            return
        if message["op"] == "statements":
            bench.statements[message["stem"]] = json.loads(data)
            continue
        brief = Brief(**message["brief"] | {"limits": Limits(**message["brief"]["limits"])})
        channel.sendall(frame(report.text_of(judge_bounded(bench, brief, data)).encode()))


def judge_bounded(bench: Bench, brief: Brief, data: bytes) -> Judgement:
    """Judge within the limits of the process: beyond them it ends, and the grader's side says what that means."""
    signal.setitimer(signal.ITIMER_PROF, brief.limits.judge_seconds)
    try:
        return bench.judge(brief, data)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory(megabytes: int) -> None:
    """Let this process have no more memory of its own than this."""
    if sys.platform == "linux":  # elsewhere the limit on data doesn't count what matters
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 2**20, megabytes * 2**20))


def receive(channel: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Return the next message and the bytes that lie in the file that came with it. Raises EOFError."""
    head, descriptors, _, _ = socket.recv_fds(channel, 4, 1)
    if not head:
        raise EOFError
    head += read_exactly(channel.recv, 4 - len(head)) if len(head) < 4 else b""
    message = parse_json(read_exactly(channel.recv, struct.unpack(">I", head)[0]))
    if not descriptors:
        return message, b""
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        return message, file.read()


__all__ = ["Bench", "code_digest", "environment", "judged_by", "serve"]
