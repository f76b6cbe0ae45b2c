"""One submission, or a class of them, to reports: seeds, the worker's calls, and what is stored."""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ftgrade.catalog import Catalog
from ftgrade.course import Course, read_roster
from ftgrade.errors import CourseFault, GradingError, OurFault, StudentFault
from ftgrade.grading.lastrun import LastRun, look_of
from ftgrade.intake.notebook import Cell, Finding, Submission, read_file
from ftgrade.intake.quarantine import set_aside
from ftgrade.judging import report
from ftgrade.judging.judge import CheckVerdict, Judging
from ftgrade.judging.report import CellNote, CheckReport, Report
from ftgrade.sandbox import channel
from ftgrade.sandbox.channel import Answer, Call, Lost
from ftgrade.sandbox.doctor import kept_here, strongest
from ftgrade.sandbox.process import Sandbox, Worker
from ftgrade.sandbox.worker import MAX_PICTURE_BYTES, MAX_PICTURES, FrameError, parsed

HIDDEN_SEEDS, SEEDS_OF_A_COURSE = 3, 8
LOAD_SECONDS = 10.0
SUBMISSION_SECONDS = 60.0
MAX_NOTE_CHARACTERS = 2_000
PNG = b"\x89PNG\r\n\x1a\n"
BEFORE = ".before"


# ---------------------------------------------------------------------------------------------------------- seeds


def hidden_seeds(secret: bytes, student: str, stem: str, version: int) -> list[int]:
    """Return the seeds that a student's hidden cases of one problem are drawn from.

    They are dealt from a few of the course's own, so that what the reference says to each is computed once for a class.
    """
    pool = [seed_of(secret.hex(), stem, str(version), str(number)) for number in range(SEEDS_OF_A_COURSE)]
    return sorted(pool, key=lambda seed: seed_of(secret.hex(), student, str(seed)))[:HIDDEN_SEEDS]


def open_seed(stem: str, version: int, day: str = "") -> int:
    """Return the published seed, for self-checks; each day, such as 2026-01-31, has another."""
    return seed_of("open", stem, str(version), *([day] if day else []))


def personal_seed(course: "Course", student: str, stem: str, version: int) -> int:
    """Return the seed of a student's question: one of their own for the roster's students, else the published one."""
    if student not in course.roster():
        return open_seed(stem, version)
    return seed_of("personal", course.secret().hex(), student, stem, str(version))


def statement_seeds(course: "Course", stem: str, version: int) -> list[int]:
    """Return the personal seeds of every statement of a problem: the published one's, then the roster's students'."""
    roster = course.roster()
    secret = course.secret().hex() if roster else ""
    return [
        open_seed(stem, version),
        *(seed_of("personal", secret, student, stem, str(version)) for student in roster),
    ]


def seed_of(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big")


def secret_print(secret: bytes) -> str:
    """Return a short name of a secret that doesn't tell it."""
    return hashlib.sha256(b"print\0" + secret).hexdigest()[:8]


# ------------------------------------------------------------------------------------------------- one submission


class Session:
    """One submission's worker: runs its cells, answers calls, and is replaced after a crash.

    A function that once failed to return is not called again, so that a crash or an endless loop costs one question.
    """

    def __init__(self, sandbox: Sandbox, cells: list[Cell], call_seconds: float) -> None:
        self.sandbox = sandbox
        self.cells = cells
        self.call_seconds = call_seconds
        self.end = time.monotonic() + SUBMISSION_SECONDS
        self.lost: dict[str, Lost] = {}
        self.skipped: dict[int, str] = {}
        self.notes: list[CellNote] = []
        self.stack = contextlib.ExitStack()
        self.worker: Worker | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def left(self, seconds: float) -> float:
        """Return how long a step may take, given what is left of the submission's time."""
        return max(0.0, min(seconds, self.end - time.monotonic()))

    def loaded(self) -> Worker:
        """Return a worker in which every cell has run, leaving out cells that hang or kill it."""
        while self.worker is None:
            worker = self.stack.enter_context(self.sandbox.worker())
            self.notes = []
            stuck = self.load(worker)
            if stuck is None:
                worker.settle()
                self.worker = worker
            else:
                self.stack.close()
                self.skipped[stuck[0].number] = stuck[1]
        return self.worker

    def load(self, worker: Worker) -> tuple[Cell, str] | None:
        """Run the cells in order; return the first that didn't come back, with the reason."""
        self.notes += [CellNote(number, error=words) for number, words in self.skipped.items()]
        waiting = [cell for cell in self.cells if cell.number not in self.skipped]
        replies = worker.ask("run", [json.dumps(cell.source) for cell in waiting], lambda: self.left(LOAD_SECONDS))
        for cell in waiting:
            try:
                self.notes += note(cell, parsed(next(replies)))
            except TimeoutError:
                return cell, f"The cell ran for more than {LOAD_SECONDS:.0f} s and was left out."
            except (EOFError, FrameError, BrokenPipeError):
                return cell, "The cell ended the whole process and was left out."
        self.notes.sort(key=lambda said: said.number)
        return None

    def ask(self, calls: Sequence[Call]) -> list[Answer]:
        """Return the answers to calls, in order; what follows a lost one is asked of a fresh worker."""
        found: list[Answer] = []
        while len(found) < len(calls):
            found += self.answered(calls[len(found) :])
        return found

    def answered(self, calls: Sequence[Call]) -> list[Answer]:
        """Return the answers to the first of these calls, to one at least."""
        if calls[0].function in self.lost:
            return [self.lost[calls[0].function]]
        if self.left(1.0) == 0.0:
            return [Lost("timeout", "the submission's time was used up")]
        together = list(itertools.takewhile(lambda call: call.function not in self.lost, calls))
        found: list[Answer] = []
        try:
            worker = self.loaded()
            found.extend(worker.ask("call", [call.text for call in together], lambda: self.left(self.call_seconds)))
            if not worker.is_settled():
                self.drop()  # what these calls left running would see the next ones' inputs
            return found
        except TimeoutError:
            lost = Lost("timeout", "the call ran too long")
        except FrameError:
            lost = Lost("protocol", "the reply was no frame")
        except (EOFError, BrokenPipeError):
            lost = Lost("killed", "the process ended")
        return [*found, self.lose(together[len(found)], lost)]

    def drop(self) -> None:
        """End the worker; the next call gets a fresh one, in which the cells run again."""
        self.stack.close()
        self.worker = None

    def lose(self, call: Call, outcome: Lost) -> Lost:
        """Drop the worker and remember that this function doesn't come back."""
        self.drop()
        self.lost[call.function] = Lost("not-run", "the function had failed to return before")
        return outcome


def note(cell: Cell, reply: object) -> Iterator[CellNote]:
    """Yield what a cell's reply tells its student, if it tells anything."""
    if not isinstance(reply, dict):
        return
    printed, error = channel.valid_text(str(reply.get("printed", ""))[:MAX_NOTE_CHARACTERS]), ""
    if isinstance(reply.get("error"), dict):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            failure = channel.raised(reply["error"])
            line = f" (line {failure.line})" if failure.line else ""
            error = f"{failure.names[0] if failure.names else 'Error'}{line}: {failure.message[:300]}"
    pictures = tuple(whole_pictures(reply.get("pictures")))
    if printed or error or pictures:
        yield CellNote(cell.number, printed, error, pictures)


def whole_pictures(claimed: object) -> Iterator[str]:
    """Yield what a reply calls pictures, as far as it looks like PNG within bounds; anyone may have forged it."""
    for text in claimed[:MAX_PICTURES] if isinstance(claimed, list) else []:
        with contextlib.suppress(ValueError, TypeError):
            data = base64.b64decode(text, validate=True)
            if data.startswith(PNG) and len(data) <= MAX_PICTURE_BYTES:
                yield base64.b64encode(data).decode()


def answer_cells(submission: Submission, graded: set[str]) -> tuple[list[Cell], list[Finding]]:
    """Return the code cells to run, in order, without the graded check cells, and what was odd about them."""
    code = [cell for cell in submission.cells if cell.kind == "code" and cell.grade_id not in graded]
    findings = list(submission.findings)
    claimed = [cell.grade_id for cell in submission.cells if cell.grade_id is not None]
    twice = sorted({name for name in claimed if claimed.count(name) > 1})
    if twice:
        words = f"These cells stand more than once; all of them ran, in order: {', '.join(twice)}."
        findings.append(Finding("duplicate-cells", words))
    return code, findings


@dataclass(frozen=True, slots=True)
class Work:
    """A submission that is read and not judged yet: the report to fill, what was read, and the seeds to judge with."""

    blank: Report
    submission: Submission
    seeds: list[int]
    personal: int


class Grader:
    """Grade submissions of a course: problems loaded once, one sandbox, reports stored by what was graded."""

    def __init__(self, catalog: Catalog, course: Course, allow_unsandboxed: bool = False) -> None:
        self.catalog = catalog
        self.course = course
        self.allow_unsandboxed = allow_unsandboxed
        self.made: Sandbox | None = None
        self.judgings: dict[str, Judging] = {}
        self.lasts: dict[str, LastRun] = {}
        self.lock = threading.Lock()

    @property
    def sandbox(self) -> Sandbox:
        """Return the strongest sandbox that holds here, chosen once. Raises CourseFault if none does."""
        with self.lock:
            if self.made is None:
                self.made = Sandbox(strongest(kept_here(), self.allow_unsandboxed))
            return self.made

    @property
    def unsandboxed(self) -> tuple[Finding, ...]:
        """Return what is stamped on every report that is made without a sandbox."""
        if self.sandbox.backend.layers or self.sandbox.backend.name == "seatbelt":
            return ()
        words = "Graded without a sandbox: this code could have read and changed files of the grader's machine."
        return (Finding("unsandboxed", words),)

    def judging(self, stem: str) -> Judging:
        with self.lock:
            if stem not in self.judgings:
                self.judgings[stem] = Judging(self.catalog, stem)
            return self.judgings[stem]

    def last(self, stem: str) -> LastRun:
        """Return what the last run noted of a problem's submissions."""
        with self.lock:
            if stem not in self.lasts:
                self.lasts[stem] = LastRun(self.course.last_path(stem))
            return self.lasts[stem]

    def report(self, student: str, stem: str, fresh: bool = False) -> Report:
        """Return the report of what a student handed in: the stored one if nothing changed, else a new one."""
        found = self.found(student, stem, fresh)
        if isinstance(found, Work) and self.unsandboxed:
            found = self.found(student, stem, fresh, self.unsandboxed)
        if isinstance(found, Report):
            return found
        return self.store(self.graded(found, lambda: statement_seeds(self.course, stem, found.blank.version)))

    def found(self, student: str, stem: str, fresh: bool, stamp: tuple[Finding, ...] = ()) -> Report | Work:
        """Return a report that needs no judging, or what there is to judge; without a stamp that is in a sandbox."""
        judging = self.judging(stem)
        secret = self.course.secret()
        blank = self.blank(judging, student, secret)
        path, last = self.course.notebook(student, stem), self.last(stem)
        look = look_of(path)
        if not fresh and look and look == last[student].look:
            kept = self.kept(blank, self.parts(last[student].submission, blank, stamp))
            if kept is not None:
                return kept
        try:
            blank = dataclasses.replace(blank, findings=set_aside(path.parent, self.course.aside(student, stem)))
            look = look_of(path)
            submission = read_file(path)
        except StudentFault as fault:
            return self.store(unreadable(blank, fault))
        except OurFault as fault:
            return self.store(dataclasses.replace(blank, findings=(*blank.findings, Finding("ours", str(fault)))))
        said = [finding.words for finding in (*blank.findings, *submission.findings)]
        handed_in = key_of({"digest": submission.digest, "said": json.dumps(said)})
        last[student] = dataclasses.replace(last[student], look=look, submission=handed_in)
        parts = self.parts(handed_in, blank, stamp)
        if not fresh and (kept := self.kept(blank, parts)):
            return kept
        findings = (*blank.findings, *stamp)
        blank = dataclasses.replace(blank, key=key_of(parts), graded_by=parts, findings=findings)
        seeds = hidden_seeds(secret, student, stem, judging.problem.version)
        personal = personal_seed(self.course, student, stem, judging.problem.version)
        return Work(blank, submission, seeds, personal)

    def open_report(self, path: Path, stem: str, day: str = "") -> Report:
        """Return the report of any notebook file on the published seed, or on a day's; nothing is stored."""
        judging = self.judging(stem)
        blank = dataclasses.replace(self.blank(judging, "self-check", b""), secret_print="open")  # noqa: S106
        try:
            submission = read_file(path)
        except StudentFault as fault:
            return unreadable(blank, fault)
        version = judging.problem.version
        return self.graded(Work(blank, submission, [open_seed(stem, version, day)], open_seed(stem, version)), list)

    def blank(self, judging: Judging, student: str, secret: bytes) -> Report:
        """Return the report that everyone starts from: every check at 0."""
        checks = tuple(
            CheckReport(check.name, check.title, check.of, check.points, 0.0, "not-run", 0, 0)
            for check in judging.problem.judged
        )
        version = judging.problem.version
        return Report(judging.stem, student, "ours", "", secret_print(secret), version, checks)

    def kept(self, blank: Report, parts: dict[str, str]) -> Report | None:
        """Return the stored report if it was graded by these very parts."""
        stored = self.stored(blank.student, blank.stem)
        return stored if stored and stored.key == key_of(parts) and stored.stands else None

    def parts(self, submission: str, blank: Report, stamp: tuple[Finding, ...]) -> dict[str, str]:
        """Return everything that a score depends on, by what it is; the submission by its fingerprint."""
        return {
            "submission": submission,
            "sandbox": "none" if stamp else "held",
            "seed": key_of({"secret": blank.secret_print, "student": blank.student, "version": str(blank.version)}),
            "question": self.whose(blank),
            **self.judged_by(blank.stem),
        }

    def judged_by(self, stem: str) -> dict[str, str]:
        """Return what judges a problem here, by what it is; a score made by something else may differ."""
        return {
            "problem": self.judging(stem).digest,
            "engine": code_digest(),
            "environment": f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
        }

    def whose(self, blank: Report) -> str:
        """Say whether a student's question is their own or the published one; the secret's print says the rest."""
        return "own" if blank.student in self.course.roster() else "published"

    def graded(self, work: Work, statements: Callable[[], list[int]]) -> Report:
        """Return the report of a submission; a fault of the problem or of ours is told as such, and scores 0.

        `statements` gives the personal seeds among which a neighbour's number is looked for.
        """
        blank, judging = work.blank, self.judging(work.blank.stem)
        cells, odd = answer_cells(work.submission, {check.name for check in judging.problem.judged})
        findings = [*blank.findings, *odd]
        with Session(self.sandbox, cells, judging.problem.call_seconds) as session:
            try:
                session.loaded()
                verdicts = judging.judge(session.ask, work.seeds)
                if judging.problem.own:
                    verdicts.append(judging.own(session.ask, work.personal))
                    findings += neighbours(judging, work.personal, verdicts[-1], statements)
                checks = tuple(report.describe(verdict) for verdict in verdicts)
            except Exception as error:  # whatever it is, this student waits and the class goes on
                words = f"The grader could not finish: {type(error).__name__}: {error}"
                return dataclasses.replace(blank, findings=(*findings, Finding("ours", words)))
        findings += [Finding("cell-left-out", f"Cell {number}: {words}") for number, words in session.skipped.items()]
        notes = tuple(session.notes)
        return dataclasses.replace(blank, state="graded", checks=checks, findings=tuple(findings), notes=notes)

    def stored(self, student: str, stem: str) -> Report | None:
        with contextlib.suppress(OSError, ValueError):
            return report.from_json(self.course.report_path(student, stem).read_text("utf-8"), self.course.secret())
        return None

    def store(self, made: Report) -> Report:
        """Write the report in one step, so that a reader finds the old one or the new one.

        One that was graded by something else before is kept beside it, for `ftgrade diff`.
        """
        path = self.course.report_path(made.student, made.stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = self.stored(made.student, made.stem)
        if before is not None and before.graded_by != made.graded_by:
            path.replace(path.with_suffix(BEFORE))
        partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
        partial.write_text(report.to_json(made, self.course.secret()), "utf-8")
        partial.replace(path)
        return made

    def close(self) -> None:
        """End the sandbox; the next report starts another."""
        if self.made is not None:
            self.made.close()
            self.made = None


def neighbours(
    judging: Judging, personal: int, verdict: CheckVerdict, statements: Callable[[], list[int]]
) -> list[Finding]:
    """Return a finding if a wrong personal number is the right one of another statement of this course."""
    if verdict.worst is None or verdict.worst.status != "wrong":
        return []
    outcome = verdict.worst.outcomes[0]
    if not any(judging.gives(outcome, seed) for seed in statements() if seed != personal):
        return []
    return [Finding("neighbours-number", "The personal number is that of another statement than this student's.")]


def key_of(parts: dict[str, str]) -> str:
    """Return one name for all of these."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def unreadable(blank: Report, fault: StudentFault) -> Report:
    """Return the report of a submission that can't be graded as it is."""
    checks = tuple(
        dataclasses.replace(check, status="unreadable", words=fault.words, next_step="Hand in again.")
        for check in blank.checks
    )
    return dataclasses.replace(
        blank,
        state="unreadable",
        key=fault.kind,
        checks=checks,
        findings=(*blank.findings, Finding(fault.kind, fault.words)),
    )


@functools.cache
def code_digest() -> str:
    """Return a fingerprint of the engine's own judging code."""
    package = Path(__file__).parents[1]
    rooms = ("judging", "intake")
    files = [package / "sandbox" / "worker.py", package / "sandbox" / "channel.py", Path(__file__)]
    files += [path for room in rooms for path in sorted((package / room).glob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


# -------------------------------------------------------------------------------------------------------- a class


def grade_class(grader: Grader, stems: list[str], workers: int, fresh: bool = False) -> Iterator[Report]:
    """Yield a report for every submission of these problems, as they are finished."""
    todo = [(student, stem) for stem in stems for student in grader.course.students(stem)]
    with ThreadPoolExecutor(workers) as pool:
        finished = [pool.submit(settled, grader, student, stem, fresh) for student, stem in todo]
        for future in as_completed(finished):
            yield future.result()


def settled(grader: Grader, student: str, stem: str, fresh: bool) -> Report:
    """Return a report whatever happens; a problem that can't be loaded is told for each of its submissions."""
    try:
        return grader.report(student, stem, fresh)
    except GradingError as error:
        if isinstance(error, CourseFault):
            raise
        return unloadable(student, stem, error)


def unloadable(student: str, stem: str, error: GradingError) -> Report:
    """Return the report of a submission whose problem can't be loaded; it isn't stored."""
    return Report(stem, student, "ours", "", "", 0, (), (Finding("ours", f"{type(error).__name__}: {error}"),))


__all__ = [
    "Course", "Grader", "Session", "Work", "grade_class", "hidden_seeds", "open_seed", "personal_seed", "read_roster",
    "secret_print", "statement_seeds", "unloadable",
]  # fmt: skip
