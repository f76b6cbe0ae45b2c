"""The personal questions of a class as the judges are told them. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass

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
