"""Three questions for each student on their own answer, for an oral: a sheet to ask from, and one with the answers."""

import dataclasses
import hashlib
import hmac
import json
import select
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftgrade.catalog import Catalog
from ftgrade.course import Course
from ftgrade.errors import OurFault
from ftgrade.grading.reports import Reports
from ftgrade.guard import Mishap, guarded
from ftgrade.intake.gate import NOTHING, Clean, clean, line
from ftgrade.judging.judges import memory_file
from ftgrade.judging.report import Limits, Report
from ftgrade.pages.feedback import environment
from ftgrade.sandbox.backends import START_SECONDS, Backend
from ftgrade.sandbox.forking import Forked, Nursery
from ftgrade.sandbox.worker import frame, read_body

STUDENT_SECONDS = 240.0
MAX_CODE = 100_000


@dataclass(frozen=True, slots=True)
class Question:
    """A changed line of a student's function, a call, and what it returns then; all texts have passed the gate."""

    function: str
    line: int
    was: Clean
    now: Clean
    setup: Clean
    call: Clean
    before: Clean
    answer: Clean
    others: tuple[Clean, ...] = ()
    others_changed: tuple[Clean, ...] = ()


@dataclass(frozen=True, slots=True)
class Sheet:
    """One student's questions, with the code that they are about by function; `why` says why there are none."""

    student: str
    questions: tuple[Question, ...] = ()
    code: dict[str, Clean] = field(default_factory=dict[str, Clean])
    why: Clean = NOTHING


@dataclass(slots=True)
class Examiner:
    """The process that makes questions; one that ends or takes too long is replaced, and costs its student alone."""

    nursery: Nursery
    catalog: Catalog
    backend: Backend
    forked: Forked | None = None

    def ask(self, stem: str, report: Report, key: str) -> dict[str, Any]:
        """Return what the process made of a submission. Raises OurFault."""
        forked = self.forked = self.forked or self.start()
        try:
            self.tell(forked, {"stem": stem, "key": key}, text_of_cells(report))
            if not select.select([forked.channel], [], [], STUDENT_SECONDS)[0]:
                raise OurFault(f"making the questions took more than {STUDENT_SECONDS:.0f} s")
            return json.loads(read_body(forked.channel.recv))
        except (EOFError, OSError) as error:
            self.close()
            raise OurFault(f"making the questions ended the process that makes them ({error})") from None
        except OurFault:
            self.close()
            raise

    def start(self) -> Forked:
        forked = self.nursery.fork("ftgrade.classroom.asking", self.backend)
        hello = {"root": str(self.catalog.root.absolute()), "backend": self.backend.name}
        self.tell(forked, {**hello, "megabytes": Limits().judge_megabytes}, b"")
        forked.channel.settimeout(START_SECONDS)
        read_body(forked.channel.recv)
        forked.channel.settimeout(None)
        return forked

    def tell(self, forked: Forked, message: dict[str, object], data: bytes) -> None:
        with memory_file(data) as file:
            socket.send_fds(forked.channel, [frame(json.dumps(message).encode())], [file.fileno()])

    def close(self) -> None:
        if self.forked is not None:
            self.nursery.end(self.forked)
            self.forked = None


def text_of_cells(report: Report) -> bytes:
    return json.dumps([dataclasses.asdict(cell) for cell in report.cells]).encode()


def sheets_of(course: Course, stem: str, examiner: Examiner) -> Iterator[Sheet]:
    """Yield a sheet for each student whose submission was graded, in order."""
    secret = course.secret()
    for report in Reports(course).of_problem(stem):
        key = hmac.new(secret, f"questions\0{report.student}\0{report.key}".encode(), hashlib.sha256).hexdigest()
        made = guarded(lambda report=report, key=key: sheet_of(report.student, examiner.ask(stem, report, key)))
        yield Sheet(report.student, why=line(made.words)) if isinstance(made, Mishap) else made


def sheet_of(student: str, made: dict[str, Any]) -> Sheet:
    """Return a sheet of what the process sent, which may quote the student: every text passes the gate."""
    questions = tuple(question_of(one) for one in made["questions"])
    code = {str(name): clean(text, MAX_CODE) for name, text in made["code"].items()}
    short = f"{len(questions)} of 3 questions: no other change of this code has a certain answer"
    return Sheet(student, questions, code, NOTHING if len(questions) == 3 else line(short))


def question_of(one: dict[str, Any]) -> Question:
    texts: dict[str, Any] = {name: clean(one[name]) for name in ("was", "now", "setup", "call", "before", "answer")}
    lists: dict[str, Any] = {name: tuple(map(clean, one[name])) for name in ("others", "others_changed")}
    return Question(function=line(one["function"]), line=int(one["line"]), **texts, **lists)


def write_sheets(course: Course, stem: str, title: str, sheets: Sequence[Sheet], names: dict[str, str]) -> list[Path]:
    """Write the sheet to ask from and the sheet with answers; return their paths."""
    folder = course.root / "questions" / stem
    folder.mkdir(parents=True, exist_ok=True)
    template = environment().get_template("questions.html.j2")
    written: list[Path] = []
    for name, with_answers in (("questions.html", False), ("answers.html", True)):
        text = template.render(title=title, sheets=sheets, names=names, with_answers=with_answers)
        partial = folder / f"{name}.partial"
        partial.write_text(text, "utf-8")
        written.append(partial.replace(folder / name))
    return written


__all__ = ["Examiner", "Question", "Sheet", "sheets_of", "write_sheets"]
