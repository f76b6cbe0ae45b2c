"""Predict first: a guess is written down before the picture appears, and then stands beside what was found."""

import html
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prediction:
    """A guess beside the truth; in a notebook it shows itself."""

    what: str
    guess: float | None
    found: float
    why: str = ""

    @property
    def words(self) -> str:
        """Return the comparison in a sentence, and the reason after it."""
        return " ".join(filter(None, [self.comparison, self.why]))

    @property
    def comparison(self) -> str:
        """Return what was found beside the guess."""
        truth = f"{self.what}: it is {self.found:.4g}"
        if self.guess is None:
            return f"{truth}. No guess was made."
        if self.guess == self.found or (self.found and abs(self.guess / self.found - 1) < 0.1):
            return f"{truth}, and you said {self.guess:.4g}: well seen."
        if self.found and self.guess > 0 and self.found > 0:
            times = self.guess / self.found
            much = "much" if times > 1 else "little"
            return f"{truth}, and you said {self.guess:.4g}: {max(times, 1 / times):.2g} times too {much}."
        return f"{truth}, and you said {self.guess:.4g}."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        style = "border-left: 4px solid #CC79A7; padding: 4px 10px; color: var(--jp-ui-font-color1, inherit)"
        words = html.escape(self.words)
        if self.guess is None:  # held back until it's asked for, also when all cells run at once
            summary = f"{html.escape(self.what)}: guess first, then open this"
            words = f"<details><summary>{summary}</summary>{words}</details>"
        return {"text/plain": self.words, "text/html": f'<div style="{style}">{words}</div>'}


def predicted(what: str, guess: float | None, found: float, why: str = "") -> Prediction:
    """Return a guess beside what was found, and why it is so. Without a guess, a notebook shows it in a fold.

    >>> print(predicted("energy at rank 4", 0.4, 0.8).words)
    energy at rank 4: it is 0.8, and you said 0.4: 2 times too little.

    Errors: ValueError for a guess that isn't a number.
    """
    if guess is not None and (not isinstance(guess, int | float) or math.isnan(guess)):
        raise ValueError(f"a guess must be a number or None, got {guess!r}")
    return Prediction(what, guess, float(found), why)


__all__ = ["Prediction", "predicted"]
