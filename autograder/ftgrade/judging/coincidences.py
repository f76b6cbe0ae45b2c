"""Wrong personal numbers that are the right answers to other questions of the class: when that is said, and how."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftgrade.intake.notebook import Finding, make_finding
from ftgrade.judging.problem import Close, Same, as_array, integer, whole
from ftgrade.judging.report import SAME_NUMBER

Numbers = tuple[float, ...]
"""An answer's numbers in a row."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far numbers may be apart: `rtol` of the right answer's largest, or `atol` if that is more."""

    rtol: float
    atol: float

    def accepts(self, right: Numbers, given: Numbers) -> bool:
        if len(right) != len(given):
            return False
        allowed = self.width(right)
        return all(abs(one - other) <= allowed for one, other in zip(right, given, strict=True))

    def width(self, right: Numbers) -> float:
        return max(self.atol, self.rtol * max(map(abs, right)))


def tolerance_of(same: Same) -> Tolerance:
    """Return the tolerance of a check's comparison."""
    if same in (integer, whole):
        return Tolerance(0.0, 0.5)
    return Tolerance(same.rtol, same.atol) if isinstance(same, Close) else Tolerance(Close().rtol, Close().atol)


def asked_digits(same: Same) -> Tolerance:
    """Return how close a number is to one that was written down with the digits that the question asks for."""
    return Tolerance(0.0, tolerance_of(same).atol)


def numbers_of(value: Any) -> Numbers | None:
    """Return an answer's numbers in a row, or None if it isn't made of finite numbers.

    >>> numbers_of([1, 2.5]), numbers_of("four"), numbers_of(float("nan"))
    ((1.0, 2.5), None, None)
    """
    parts = [as_array(part) for part in (value if isinstance(value, list | tuple) else [value])]
    found: list[float] = []
    for part in parts:
        if part is None or not np.isfinite(part).all():
            return None
        found += part.ravel().tolist()
    return tuple(found) or None


@dataclass(frozen=True, slots=True)
class Statements:
    """The personal questions of a class: their seeds, their right answers, and how often honest mistakes coincide.

    Of `wrong` wrong numbers that the named mistakes give over the class, `equal` are the right answer to another of
    its questions.
    """

    seeds: Sequence[int] = ()
    answers: Sequence[Sequence[float] | None] = ()
    equal: int = 0
    wrong: int = 0

    def others(self, given: Numbers, own: Sequence[int], tolerance: Tolerance) -> bool:
        """Say whether a number is the right answer to a question with none of a student's `own` seeds."""
        pairs = zip(self.seeds, self.answers, strict=True)
        return any(
            answer is not None and seed not in own and tolerance.accepts(tuple(answer), given) for seed, answer in pairs
        )

    @property
    def chance(self) -> str:
        """Return in words how probable it is that an honest mistake gives such a number."""
        if not self.wrong:
            return "How probable a coincidence is can't be computed for this problem."
        share = f"about {100 * self.equal / self.wrong:.2g} %" if self.equal else "0 %"
        return (
            f"The chance that an honest mistake gives such a number is {share}: of the {self.wrong:,} wrong numbers "
            f"that the problem's named mistakes give in this class, {self.equal:,} are right for another question."
        )


def coincidence(statements: Statements) -> Finding:
    """Return the finding on a wrong number that is another question's right answer; only the instructor reads it."""
    words = (
        "The personal number is wrong for this student's question and right for another one of the class. "
        f"This alone shows nothing about how it was found. {statements.chance}"
    )
    return make_finding(SAME_NUMBER, words)
