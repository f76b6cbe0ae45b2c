"""Draw the personal questions of a roster, so that none can be taken for another's.

Theory of operation. A question is drawn from a seed: of the course's secret, the student, the problem's version and the
number of the draw. In the roster's order, a student's question is drawn again until its right answer differs from those
of all students before, no named mistake gives the right answer of another, and none of theirs gives this one. There are
at most MAX_DRAWS draws; if all of them coincide with something, the one that coincides least is taken.

The seeds are written down when the questions are released. Nobody's question changes afterwards: not by a student who
joins, nor by a problem's new mistake. If the record is lost, the same roster and problem give the same seeds.
"""

import bisect
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ftgrade.catalog import Catalog
from ftgrade.course import Course
from ftgrade.judging.coincidences import asked_digits, numbers_of, tolerance_of
from ftgrade.judging.judge import Oracle, TrustedAsk
from ftgrade.judging.problem import Question
from ftgrade.judging.questions import Questions, read_questions, write_questions
from ftgrade.judging.seeds import own_seed
from ftgrade.judging.statements import Numbers, Statements
from ftgrade.sandbox.channel import Value

MAX_DRAWS = 40
"""How often a student's question is drawn before one that coincides with another is taken."""
MAX_WITH_MISTAKES = 3
"""For how many of these draws the named mistakes are computed, which takes nearly all of the time."""


def draw_questions(catalog: Catalog, course: Course, stem: str, version: int, *, both: bool = True) -> Questions:
    """Return the questions of all students on the roster; those who have none yet get one, and it is written down.

    `both` says of these that they may have got the published question before.
    """
    known, students = read_questions(course, stem, version), course.roster()
    if not students or known.is_complete(students, catalog.digest(stem)):
        return known
    oracle = Oracle(catalog, stem)
    if oracle.problem.own is None:
        return known
    new = [student for student in students if student not in known.seeds]
    draws = Draws(oracle)
    for seed in (known.published, *known.seeds.values()):
        draws.take(seed)
    seeds = dict(known.seeds)
    secret = course.secret().hex()
    for student in new:
        seeds[student] = draws.choose([own_seed(secret, student, stem, version, draw) for draw in range(MAX_DRAWS)])
        draws.take(seeds[student])
    made = dataclasses.replace(
        known, seeds=seeds, both=(*known.both, *(new if both else ())), digest=oracle.digest,
        statements=draws.statements(),
    )  # fmt: skip
    write_questions(course, stem, made)
    return made


# -------------------------------------------------------------------------------------------------------------- draws


class Sorted:
    """Answers in the order of their means, to find those that are near one without looking at all."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self.rows: list[Numbers] = []

    def add(self, row: Numbers) -> None:
        mean = sum(row) / len(row)
        place = bisect.bisect(self.means, mean)
        self.means.insert(place, mean)
        self.rows.insert(place, row)

    def around(self, row: Numbers, width: float) -> Iterator[Numbers]:
        """Yield the answers whose mean is within a width of a row's."""
        mean = sum(row) / len(row)
        yield from self.rows[
            bisect.bisect_left(self.means, mean - width) : bisect.bisect_right(self.means, mean + width)
        ]


@dataclass(frozen=True, slots=True, order=True)
class Conflicts:
    """With how many others a question coincides, the gravest first.

    `alike` counts right answers that are the same in the digits that are asked for: copying one gives the point.
    `mistaken` counts mistakes that give a right answer to these digits; `wide` counts both within the tolerance.
    """

    alike: int = 0
    mistaken: int = 0
    wide: int = 0


NONE = Conflicts()


class Draws:
    """The right and the wrong answers of the questions that are taken, and the choice of the next."""

    def __init__(self, oracle: Oracle) -> None:
        assert oracle.problem.own is not None
        self.oracle, self.own = oracle, oracle.problem.own
        self.wide = tolerance_of(self.own.check.same)
        self.close = asked_digits(self.own.check.same)
        self.right, self.wrong = Sorted(), Sorted()
        self.taken: list[int] = []
        self.known: dict[str, Numbers | None] = {}  # a few problems have only some hundred questions
        self.known_wrong: dict[str, list[Numbers]] = {}

    def question(self, seed: int) -> Question:
        return self.own.draw(np.random.default_rng(seed))

    def answer(self, question: Question) -> Numbers | None:
        """Return the right answer to a question; cached."""
        if question.words not in self.known:
            self.known[question.words] = answer_by(self.oracle.reference, question)
        return self.known[question.words]

    def mistaken(self, question: Question) -> list[Numbers]:
        """Return the wrong numbers that the named mistakes give for a question; cached."""
        if question.words not in self.known_wrong:
            used, right = self.oracle.uses[question.call.function], self.answer(question)
            asks = (self.oracle.reference_with(one) for one in self.oracle.problem.mistakes if one.replaces in used)
            found = (answer_by(ask, question) for ask in asks)
            self.known_wrong[question.words] = [
                row for row in found if row is not None and not (right and self.wide.accepts(right, row))
            ]
        return self.known_wrong[question.words]

    def take(self, seed: int) -> None:
        """Add a question to those that the next ones are held against."""
        question = self.question(seed)
        right = self.answer(question)
        self.taken.append(seed)
        if right is not None:
            self.right.add(right)
        for row in self.mistaken(question):
            self.wrong.add(row)

    def choose(self, seeds: list[int]) -> int:
        """Return the first seed whose question coincides with none that is taken, or else that with the least."""
        best, chosen, computed = Conflicts(len(self.taken) + 1), seeds[0], 0
        for seed in seeds:
            question = self.question(seed)
            right = self.answer(question)
            found = self.conflicts_of_right(right) if right is not None else NONE
            if found == NONE and computed < MAX_WITH_MISTAKES:
                computed += 1
                found = self.conflicts_of_wrong(self.mistaken(question))
                if found == NONE:
                    return seed
            if NONE < found < best:
                best, chosen = found, seed
        return chosen

    def conflicts_of_right(self, right: Numbers) -> Conflicts:
        """Count the right answers and the mistakes of others that are this right answer."""
        width = 1.01 * self.wide.width(right)
        alike, mistaken = list(self.right.around(right, width)), list(self.wrong.around(right, width))
        return Conflicts(
            sum(self.close.accepts(right, row) for row in alike),
            sum(self.close.accepts(right, row) for row in mistaken),
            sum(self.wide.accepts(right, row) for row in (*alike, *mistaken)),
        )

    def conflicts_of_wrong(self, mistaken: list[Numbers]) -> Conflicts:
        """Count the right answers of others that this question's mistakes give."""
        near = [(row, wrong) for wrong in mistaken for row in self.right.around(wrong, 1.01 * self.wide.width(wrong))]
        return Conflicts(
            0,
            sum(self.close.accepts(row, wrong) for row, wrong in near),
            sum(self.wide.accepts(row, wrong) for row, wrong in near),
        )

    def statements(self) -> Statements:
        """Return what the judges are told of the questions that are taken, the first of which is the published one."""
        answers = [self.answer(self.question(seed)) for seed in self.taken]
        wrong = equal = 0
        for seed in self.taken[1:]:
            for row in self.mistaken(self.question(seed)):
                wrong += 1
                equal += any(self.close.accepts(right, row) for right in self.right.around(row, self.close.atol))
        return Statements(self.taken, answers, equal, wrong)


def answer_by(ask: TrustedAsk, question: Question) -> Numbers | None:
    """Return a question's answer by the reference or a mistake, or None if that gives no number."""
    (outcome,) = ask([question.call])
    try:
        return numbers_of(question.part(outcome.value)) if isinstance(outcome, Value) else None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return None  # a mistake's value may be of another kind than the one that `part` expects


__all__ = ["draw_questions"]
