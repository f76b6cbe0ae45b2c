"""Grade a class as its work arrives: what is new is judged and booked, and gets the page that its time allows.

Nothing is remembered but what stands in the course: the gradebook, the stored reports, the attempts. A watch that was
killed and starts again finds what is done, and does the rest.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ftgrade.classroom.arrivals import Steady
from ftgrade.gradebook.attempts import Attempt, Rule, add_attempt, read_attempts, read_rules, refusal
from ftgrade.gradebook.book import Book, Ledgers
from ftgrade.gradebook.ledger import Ledger, PageMaker
from ftgrade.grading.grader import Grader, failure_report, fill_report, hash_parts, load_failure_report
from ftgrade.grading.lastrun import stat_fingerprint
from ftgrade.grading.stages import Stage, for_stage, public_work
from ftgrade.guard import Mishap, guarded
from ftgrade.judging.judges import Work
from ftgrade.judging.report import Judgement, Report

MAX_BOOKED = 8
"""How many hand-ins a poll judges for marks, oldest first: between two such batches new ones get their pages."""


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A hand-in that is new, or that may be told more of than before; `is_bounded` says that attempts count."""

    student: str
    stem: str
    look: str
    stage: Stage
    is_bounded: bool

    @property
    def key(self) -> tuple[str, str]:
        return self.student, self.stem


@dataclass(frozen=True, slots=True)
class Admission:
    """A hand-in that gets a page: what is known or judged of it, its stage, and which attempt it is in words."""

    found: Report | Work
    stage: Stage
    attempt: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a hand-in: `page`, `booked`, `known` (it was booked before), `held` (no page now) or `trouble`.

    `seconds` passed since it was first seen. A `booked` or `known` one has its report's score, and whether it needs a
    person.
    """

    kind: str
    student: str
    stem: str
    words: str = ""
    seconds: float = 0.0
    score: float = 0.0
    needs_a_person: bool = False


@dataclass(slots=True)
class Watch:
    """A class that is watched. One poll does all that there is to do, and yields what happened as it happens."""

    grader: Grader
    book: Book
    ledgers: Ledgers
    pages: PageMaker
    stems: Sequence[str]
    strangers: Callable[[], set[str]]
    """Tell which folders are nobody's."""
    now: Callable[[], datetime] = utc_now
    steady: Steady[tuple[str, str], str] = field(default_factory=Steady[tuple[str, str], str])
    since: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    done: dict[tuple[str, str], tuple[str, Stage]] = field(default_factory=dict[tuple[str, str], tuple[str, Stage]])
    booked: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    told: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])
    rules: dict[str, Rule] = field(default_factory=dict[str, Rule])
    admitted: dict[tuple[str, str], tuple[str, Stage]] = field(default_factory=dict[tuple[str, str], tuple[str, Stage]])
    backlog: int = 0
    """How many hand-ins the last poll left to the next."""
    unsteady: int = 0
    """How many hand-ins looked otherwise in the poll before."""

    def warm(self) -> None:
        """Start the judges and open the records of released problems, so that the first hand-in needn't wait for it."""
        self.grader.judges.start()
        for stem in self.stems:
            if (self.grader.course.root / "release" / stem).is_dir():
                self.ledger(stem)

    def poll(self) -> Iterator[Event]:
        """Do what there is to do. Raises CourseFault."""
        self.rules, self.unsteady = read_rules(self.grader.course), 0
        arrived = sorted(self.arrivals(), key=lambda one: self.since.get(one.key, 0.0))
        held = set[tuple[str, str]]()
        admitted: list[tuple[Arrival, Admission]] = []
        for one in arrived:
            if self.admitted.get(one.key) == (one.look, one.stage):
                continue
            found = guarded(lambda one=one: self.admit(one))
            if isinstance(found, Admission):
                self.admitted[one.key] = one.look, one.stage
                admitted.append((one, found))
                continue
            held.add(one.key)
            self.since[one.key] = time.monotonic()  # the time that it must wait is none that it took
            words = found.words if isinstance(found, Mishap) else found
            yield from self.tell_once(Event("trouble" if isinstance(found, Mishap) else "held", *one.key, words))
        yield from self.show_public([(one, found) for one, found in admitted if found.stage is not Stage.ALL], held)
        yield from self.judge_and_book(arrived, held)
        for ledger in self.ledgers.by_stem.values():
            with contextlib.suppress(OSError):  # a hint for the next start, no more
                ledger.last_run.save()

    # ------------------------------------------------------------------------------------------------ what has arrived

    def arrivals(self) -> Iterator[Arrival]:
        """Yield each hand-in that is steady, and that is new or may be told more of now."""
        strangers = self.strangers()
        for stem in self.stems:
            students = [one for one in self.grader.course.students(stem) if one not in strangers]
            if not students:
                continue
            ledger, beside = self.ledger(stem), self.grader.outline(stem).files
            ledger.read_terms()
            for student in students:
                look = stat_fingerprint(self.grader.course.notebook(student, stem), beside)
                stage, is_bounded = self.stage_of(ledger, student)
                if self.done.get((student, stem)) == (look, stage):
                    continue
                if self.done.pop((student, stem), None):
                    self.since[student, stem] = time.monotonic()
                if self.steady.is_steady((student, stem), look):
                    yield Arrival(student, stem, look, stage, is_bounded)
                else:
                    self.since[student, stem] = time.monotonic()
                    self.unsteady += 1

    def ledger(self, stem: str) -> Ledger:
        """Return the records of a problem, which is released first if the gradebook doesn't know it."""
        if stem not in self.ledgers.by_stem:
            self.book.ensure_released(self.grader, stem)
            self.ledgers.by_stem[stem] = self.book.open_ledger(self.grader, stem, self.pages)
        return self.ledgers.by_stem[stem]

    def stage_of(self, ledger: Ledger, student: str) -> tuple[Stage, bool]:
        """Return the least that a student is told now, and whether attempts count; without a due date all is told."""
        due = ledger.due_for(student)
        if due is None:
            return Stage.ALL, True
        return (Stage.ALL, False) if self.now() >= due else (Stage.PUBLIC, True)

    # ----------------------------------------------------------------------------------------- whether it gets a page

    def admit(self, one: Arrival) -> Admission | str:
        """Return how a hand-in gets its page, or why it gets none now. What can't be read is no attempt."""
        found = self.grader.look_up_safely(one.student, one.stem, False)
        if not one.is_bounded or (isinstance(found, Report) and found.state != "graded"):
            return Admission(found, one.stage)
        rule, course = self.rules.get(one.stem, Rule()), self.grader.course
        submission = self.grader.last_run(one.stem)[one.student].submission
        known = read_attempts(course, one.student, one.stem)
        if words := refusal(rule, known, submission, self.now()):
            return words
        if all(before.submission != submission for before in known):
            known = add_attempt(course, one.student, one.stem, Attempt(submission, self.now()))
        stage = one.stage
        if stage is Stage.PUBLIC and rule.mistakes_from and len(known) >= rule.mistakes_from:
            stage = Stage.MISTAKES
        return Admission(found, stage, attempt_words(len(known), rule))

    def tell_once(self, event: Event) -> Iterator[Event]:
        """Yield an event unless its like was told of this hand-in; the seconds that are left don't make another."""
        key = event.student, event.stem, self.steady.before.get((event.student, event.stem), "") + event.kind
        if key not in self.told:
            self.told.add(key)
            yield event

    # ------------------------------------------------------------------------------- the page before the problem is due

    def show_public(self, admitted: Sequence[tuple[Arrival, Admission]], held: set[tuple[str, str]]) -> Iterator[Event]:
        """Judge hand-ins on the public cases and write their pages, before anything hidden is run.

        So not even the time at which a page appears depends on a hidden input of the same hand-in. A hand-in whose page
        can't be made is `held`.
        """
        wanted = {one.key: (one, found) for one, found in admitted if not self.stands(one, found)}
        asked = (self.public_work_of(one, found) for one, found in wanted.values())
        for answer in self.grader.judges.judge_each(asked):
            key = key_of(answer)
            shown = guarded(lambda answer=answer, key=key: self.show_one(answer, *wanted[key]))
            if isinstance(shown, Mishap):
                held.add(key)
                self.admitted.pop(key, None)
                yield from self.tell_once(Event("trouble", *key, f"no page: {shown.words}"))
            else:
                yield Event("page", *key, shown, self.seconds_since(key))

    def show_one(self, answer: Report | tuple[Work, Judgement], one: Arrival, found: Admission) -> str:
        """Write a page before the due date, and return what it tells in words."""
        report = answer if isinstance(answer, Report) else public_report(*answer)
        shown = for_stage(report, found.stage, found.attempt)
        self.ledger(one.stem).show(shown, self.page_state(one, found))
        return f"{found.attempt.lower()}{passed_words(shown)}"

    def stands(self, one: Arrival, found: Admission) -> bool:
        """Say whether a hand-in's page tells what it would tell again."""
        ledger = self.ledger(one.stem)
        state = self.page_state(one, found)
        return ledger.page_path(one.student).is_file() and ledger.last_run[one.student].page == state

    def page_state(self, one: Arrival, found: Admission) -> str:
        """Return a short name of all that a page before the due date shows."""
        submission = self.grader.last_run(one.stem)[one.student].submission
        parts = {"submission": submission, "look": one.look, "attempt": found.attempt, "stage": found.stage.name}
        return hash_parts({**parts, "judged by": self.grader.digest(one.stem), "template": self.pages.digest})

    def public_work_of(self, one: Arrival, found: Admission) -> Report | Work:
        """Return what there is to judge on the public cases, or a report if the hand-in can't be judged."""
        work = found.found
        if isinstance(work, Report) and work.state == "graded":
            work = self.grader.look_up_safely(one.student, one.stem, True)
        return public_work(work) if isinstance(work, Work) else work

    # -------------------------------------------------------------------------------------------- marks, and full pages

    def judge_and_book(self, arrived: Sequence[Arrival], held: set[tuple[str, str]]) -> Iterator[Event]:
        """Judge hand-ins as `ftgrade grade` does and book them; those that are told everything get their page."""
        wanted: dict[tuple[str, str], Arrival] = {}
        for one in arrived:
            without, has_full_page = self.ledger(one.stem).without_page, one.stage is Stage.ALL and one.key not in held
            (without.discard if has_full_page else without.add)(one.student)
            if has_full_page or self.booked.get(one.key) != one.look:
                wanted[one.key] = one
            elif one.key not in held:
                self.done[one.key] = one.look, one.stage
        self.backlog = max(0, len(wanted) - MAX_BOOKED)
        found = (self.grader.look_up_safely(*key, False) for key in itertools.islice(wanted, MAX_BOOKED))
        for answer in self.grader.judges.judge_each(found):
            report = answer if isinstance(answer, Report) else self.finish(*answer)
            yield from self.book_one(wanted[report.student, report.stem], report, held)

    def finish(self, work: Work, judgement: Judgement) -> Report:
        made = guarded(lambda: self.grader.finish(work, judgement))
        return failure_report(work.blank.student, work.blank.stem, made.words) if isinstance(made, Mishap) else made

    def book_one(self, one: Arrival, report: Report, held: set[tuple[str, str]]) -> Iterator[Event]:
        """Book a report, and note that nothing is left to do until the hand-in changes or more may be told."""
        ledger = self.ledger(one.stem)
        stood = ledger.is_booked(report) and (one.student in ledger.without_page or ledger.page_stands(one.student))
        if words := self.ledgers.try_to_book(report):
            self.since[one.key], self.backlog = time.monotonic(), 0  # others first, and after a pause
            yield from self.tell_once(Event("trouble", *one.key, f"not booked: {words}"))
            return
        seconds, is_new = self.seconds_since(one.key), self.booked.get(one.key) != one.look
        self.booked[one.key] = one.look
        if is_new:
            yield Event(
                "known" if stood else "booked",
                *one.key,
                score_words(report),
                seconds,
                report.score,
                report.needs_a_person,
            )
        if one.key not in held:
            self.done[one.key] = one.look, one.stage
            if one.stage is Stage.ALL and not stood:
                yield Event("page", *one.key, score_words(report), seconds)

    def seconds_since(self, key: tuple[str, str]) -> float:
        return time.monotonic() - self.since.get(key, time.monotonic())


def key_of(answer: Report | tuple[Work, Judgement]) -> tuple[str, str]:
    """Return whose hand-in was answered, and of which problem."""
    report = answer if isinstance(answer, Report) else answer[0].blank
    return report.student, report.stem


def public_report(work: Work, judgement: Judgement) -> Report:
    """Return the report on the public cases. Raises CourseFault where going on is useless."""
    if judgement.state == "fault":
        return load_failure_report(work.blank, judgement)
    return fill_report(work.blank, judgement)


def attempt_words(number: int, rule: Rule) -> str:
    """Say which attempt a page answers, and whether another will be.

    >>> attempt_words(2, Rule()), attempt_words(2, Rule(limit=2))
    ('Attempt 2. ', 'Attempt 2 of 2, the last that is answered before the problem is due. ')
    """
    if rule.limit and number >= rule.limit:
        return f"Attempt {number} of {rule.limit}, the last that is answered before the problem is due. "
    return f"Attempt {number} of {rule.limit}. " if rule.limit else f"Attempt {number}. "


def score_words(report: Report) -> str:
    return f"{report.score:g} of {report.points:g} points" + (", needs a person" if report.needs_a_person else "")


def passed_words(shown: Report) -> str:
    """Say how many checks hold on the public cases."""
    return f"{sum(check.status == 'pass' for check in shown.checks)} of {len(shown.checks)} checks hold in public"


__all__ = ["Event", "Watch"]
