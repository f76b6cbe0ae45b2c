"""A judge: a process that judges one submission after another, with its own sandbox and its own oracles.

Theory of operation. The grader sends a brief, which names the problem and the seeds, and the bytes that were handed
in. The judge reads the notebook, runs it in its sandbox, calls its functions, compares the outcomes with the
reference's, and describes the result in words. It has one thread, so its caches need no locks. It has limits of memory
and processor time; a submission that exceeds them ends the judge and harms no other submission. The caches change how
fast a judgement is made, never the judgement.
"""

import dataclasses
import functools
import gc
import json
import math
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftgrade.catalog import Catalog, is_project
from ftgrade.errors import GradingError, OurFault, StudentFault
from ftgrade.guard import Mishap, guarded
from ftgrade.intake import notebook
from ftgrade.intake.forms import answer_forms
from ftgrade.intake.gate import clean
from ftgrade.intake.newer import newer_syntax
from ftgrade.intake.notebook import Cell, Finding, Submission, cell_name, make_finding
from ftgrade.intake.parcel import unpack
from ftgrade.intake.placing import cells_to_run, place_cells, released_of
from ftgrade.intake.reaching import reaching_findings
from ftgrade.judging import report
from ftgrade.judging.causes import Causes
from ftgrade.judging.coincidences import asked_digits, coincidence, numbers_of
from ftgrade.judging.judge import CheckVerdict, Oracle, Verdict
from ftgrade.judging.problem import Refusal, calls_of
from ftgrade.judging.project import load_project
from ftgrade.judging.report import OUT_OF_MEMORY, SANDBOX_FAILED, Brief, CheckReport, Judgement, Limits, safe_score
from ftgrade.judging.scorecard import score_files
from ftgrade.judging.session import Session
from ftgrade.judging.statements import Statements
from ftgrade.judging.versions import demand_same, versions
from ftgrade.sandbox.backends import BACKENDS, read_control
from ftgrade.sandbox.channel import Crowded, Lost, Outcome, Raised, Value
from ftgrade.sandbox.process import Sandbox
from ftgrade.sandbox.worker import frame, parse_json, read_exactly

MOST_NEWER = 5
"""How many cells are named that need a newer Python; the others show their errors."""


class Bench:
    """Judge submissions with one sandbox; each problem is loaded once.

    `statements` are all personal questions of the course, by stem.
    """

    def __init__(self, catalog: Catalog, sandbox: Sandbox) -> None:
        self.catalog = catalog
        self.sandbox = sandbox
        self.oracle_of = functools.cache(functools.partial(Oracle, catalog))
        self.project_of = functools.cache(functools.partial(load_project, catalog))
        self.statements: dict[str, Statements] = {}

    def judge(self, brief: Brief, data: bytes) -> Judgement:
        """Return the judgement on what was handed in. Only MemoryError is raised, and OurFault if the sandbox fails."""
        try:
            if is_project(brief.stem):
                return self.judge_files(brief, unpack(data))
            oracle = self.oracle_of(brief.stem)
            demand_same(versions(oracle.digest), brief.judged_by)
            return self.judge_submission(oracle, brief, notebook.parse_submission(data))
        except StudentFault as fault:
            return Judgement("unreadable", findings=(make_finding(fault.kind, fault.words),))
        except Crowded:
            return Judgement("crowded")
        except OurFault:
            raise
        except GradingError as error:
            return Judgement("fault", findings=(make_finding(type(error).__name__, error),))

    def judge_files(self, brief: Brief, files: Mapping[str, bytes]) -> Judgement:
        """Return the judgement on a project's files, whose notebook is shown and not run. Raises GradingError."""
        project = self.project_of(brief.stem)
        demand_same(versions(project.digest), brief.judged_by)
        submission = notebook.parse_submission(files[f"{brief.stem}.ipynb"])
        placed, told = place_cells(submission.cells, released_of(self.catalog.built_cells(brief.stem)))
        try:
            checks = score_files(self.catalog, project, brief, files)
        except OurFault as fault:  # of the program; the sandbox took no part
            return Judgement("ours", findings=(make_finding("ours", fault),), cells=tuple(placed))
        return Judgement("graded", checks, (*submission.findings, *told), (), tuple(placed))

    def judge_submission(self, oracle: Oracle, brief: Brief, submission: Submission) -> Judgement:
        """Return the judgement on a submission; if the problem or the grader fails, its state is `ours`."""
        placed, told = place_cells(submission.cells, oracle.released)
        cells, shown = cells_to_run(placed, oracle.released), tuple(placed)
        findings = [*submission.findings, *told, *reaching_findings(cells)]
        with Session(self.sandbox, cells, brief.limits, alone=brief.alone) as session:
            try:
                session.ensure_worker()
                verdicts = oracle.judge(session.ask, brief.seeds)
                if oracle.problem.own:
                    verdicts.append(oracle.judge_personal(session.ask, brief.personal))
                    told = self.statements.get(brief.stem, Statements())
                    findings += same_number_findings(brief.personal, verdicts[-1], told)
                causes = Causes(cells, {**session.errors, **session.skipped})
                said = {one.name: one.quote for one in reversed(oracle.problem.promises)}
                checks = tuple(check_report(verdict, said, causes) for verdict in verdicts)
            except (Crowded, MemoryError, OurFault):
                raise
            except Exception as error:  # so that the rest of the class can be judged
                words = f"The grader could not finish: {type(error).__name__}: {error}"
                return Judgement("ours", findings=(*findings, make_finding("ours", words)), cells=shown)
        findings += newer_findings(cells, session.errors)
        for number, words in session.skipped.items():
            findings.append(make_finding("cell-left-out", f"{cell_name(number).capitalize()}: {words}"))
        forms = guarded(lambda: answer_forms(shown, oracle.problem.functions, self.given_cells(brief.stem)))
        if isinstance(forms, Mishap):
            forms = {}  # nobody's answers are like what can't be read
        return Judgement("graded", checks, tuple(findings), tuple(session.notes), shown, forms)

    def given_cells(self, stem: str) -> tuple[Cell, ...]:
        """Return the cells that everybody was given, which are nobody's own work."""
        try:
            return notebook.read_submission(self.catalog.leaves(stem).notebook).cells
        except StudentFault:
            return ()


def newer_findings(cells: Sequence[Cell], errors: Mapping[int, Raised]) -> list[Finding]:
    """Return a finding for each cell that fails here because it is written for a newer Python."""
    failed = [(cell, errors[cell.number]) for cell in cells if cell.number in errors]
    said = {
        cell.number: newer_syntax(cell.source, error.message, error.line)
        for cell, error in failed
        if error.is_a("SyntaxError")
    }
    return [
        make_finding("newer-python", f"Cell {number} can't run: {words}") for number, words in said.items() if words
    ]


def same_number_findings(own: Sequence[int], verdict: CheckVerdict, statements: Statements) -> list[Finding]:
    """Return a finding if a wrong personal number is right for another question of the class.

    A number that a named mistake gives for the student's own question is explained, and isn't reported.
    """
    if verdict.worst is None or verdict.worst.status != "wrong" or verdict.mistake is not None:
        return []
    (outcome,) = verdict.worst.outcomes
    given = numbers_of(outcome.value) if isinstance(outcome, Value) else None
    if given is None or not statements.others(given, own, asked_digits(verdict.check.same)):
        return []
    return [coincidence(statements)]


# ------------------------------------------------------------------------------------------------- verdicts in words


def check_report(verdict: CheckVerdict, said: dict[str, str], causes: Causes) -> CheckReport:
    """Describe a check's verdict; `said` is the first sentence of each promise."""
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
        kept=tuple(said.get(name, name) for name in verdict.kept),
        broken=tuple(said.get(name, name) for name in verdict.broken),
    )
    return whole if worst is None else dataclasses.replace(whole, **failure_fields(verdict, worst, causes))


MEND_THAT_CELL = "Mend that cell first; run the notebook from the top."
MORE_FAILS = " Something else is wrong here too: mend this first, then look again."


def failure_fields(verdict: CheckVerdict, worst: Verdict, causes: Causes) -> dict[str, Any]:
    """Return the fields that describe a failed check: the case, the difference, the known mistake, one next step.

    If a cell that failed before is the cause, the words name it.
    """
    cause = cause_of(worst, causes)
    if worst.status == "not-attempted":
        missing = missing_function(worst) or verdict.check.of
        words = cause or f"{missing} is not written yet, or its cell is missing or didn't run."
        step = MEND_THAT_CELL if cause else "Write the function in its answer cell; run the notebook from the top."
        return {"words": clean(words), "next_step": step}
    difference, mistake = worst.difference, verdict.mistake
    ratio = difference.ratio if difference else None
    return {
        "case": worst.case.words,
        "words": clean("; ".join(filter(None, [seen_words(worst), cause]))),
        # A difference and a ratio together give the hidden value away, so only one of them is shown.
        "largest": order_of(difference.largest) if difference and ratio is None else None,
        "ratio": None if ratio is None else float(f"{ratio:.4g}"),
        "mistake": mistake.name if mistake else "",
        "says": f"{mistake.says}{MORE_FAILS if verdict.more_fails else ''}" if mistake else "",
        "next_step": MEND_THAT_CELL if cause else mistake.next_step if mistake else verdict.check.next_step,
    }


def seen_words(worst: Verdict) -> str:
    """Return what was seen in a failed case, with the functions that were called: a check may call several."""
    if worst.difference is None:
        return ""
    called = dict.fromkeys(call.function for call in calls_of(worst.case))
    return f"{' and '.join(called)}: {worst.difference.words}"


def cause_of(worst: Verdict, causes: Causes) -> str:
    """Return which cell that failed before made a case fail, in words; empty if none did."""
    calls = zip(calls_of(worst.case), worst.outcomes, strict=False)
    found = (causes.explain(call.function, outcome) for call, outcome in calls if is_failure(worst, outcome))
    return next(filter(None, found), "")


def is_failure(worst: Verdict, outcome: Outcome) -> bool:
    """Say whether an outcome is an error that the student didn't raise on purpose."""
    if isinstance(outcome, Raised):
        asked = isinstance(worst.case, Refusal) and outcome.is_a("ValueError")
        return not asked and not outcome.is_a("NotImplementedError")
    return isinstance(outcome, Lost)


def missing_function(worst: Verdict) -> str:
    """Return the first function that gave no value, or an empty text."""
    calls = zip(calls_of(worst.case), worst.outcomes, strict=False)
    return next((call.function for call, outcome in calls if not isinstance(outcome, Value)), "")


def order_of(value: float | None) -> float | None:
    """Return the power of ten next to a difference, from which no hidden value follows; None if it isn't finite.

    >>> order_of(0.0042), order_of(7.5), order_of(0.0)
    (0.01, 10.0, None)
    """
    if value is None or not math.isfinite(value) or value <= 0:
        return None
    return float(f"1e{round(math.log10(value))}")


# ------------------------------------------------------------------------------------------------------ the process


def serve(channel: socket.socket, control: socket.socket | None) -> None:
    """Judge what the grader sends until it closes the channel; `control` is the socket to a forked sandbox parent."""
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
            bench.statements[message["stem"]] = Statements(**json.loads(data))
            continue
        brief = Brief(**message["brief"] | {"limits": Limits(**message["brief"]["limits"])})
        channel.sendall(frame(report.text_of(judge_bounded(bench, brief, data)).encode()))


def judge_bounded(bench: Bench, brief: Brief, data: bytes) -> Judgement:
    """Judge within the limits; exceeding one, or losing the sandbox, ends this process.

    `Judge.end` reads the status. A new judge gets a new sandbox.
    """
    signal.setitimer(signal.ITIMER_PROF, brief.limits.judge_seconds)
    try:
        return bench.judge(brief, data)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except OurFault as fault:
        sys.stderr.write(f"{fault}\n")
        sys.stderr.flush()
        os._exit(SANDBOX_FAILED)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory(megabytes: int) -> None:
    """Limit this process's private memory."""
    if sys.platform == "linux":  # elsewhere RLIMIT_DATA doesn't count mapped memory
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 2**20, megabytes * 2**20))


def receive(channel: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Return the next message and the content of the file that came with it. Raises EOFError."""
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


__all__ = ["Bench", "serve"]
