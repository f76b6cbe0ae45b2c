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

    @property
    def words(self) -> str:
        """Return the comparison in a sentence."""
        truth = f"{self.what}: it is {self.found:.4g}"
        if self.guess is None:
            return f"{truth}. You made no guess; write one into the cell above before you look, it helps to remember."
        if self.guess == self.found or (self.found and abs(self.guess / self.found - 1) < 0.1):
            return f"{truth}, and you said {self.guess:.4g}: well seen."
        if self.found and self.guess > 0 and self.found > 0:
            times = self.guess / self.found
            much = "much" if times > 1 else "little"
            return f"{truth}, and you said {self.guess:.4g}: {max(times, 1 / times):.2g} times too {much}."
        return f"{truth}, and you said {self.guess:.4g}."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        style = "border-left: 4px solid #CC79A7; padding: 4px 10px; color: var(--jp-ui-font-color1, inherit)"
        return {"text/plain": self.words, "text/html": f'<div style="{style}">{html.escape(self.words)}</div>'}


def predicted(what: str, guess: float | None, found: float) -> Prediction:
    """Return a guess beside what was found.

    >>> print(predicted("energy at rank 4", 0.4, 0.8).words)
    energy at rank 4: it is 0.8, and you said 0.4: 2 times too little.

    Errors: ValueError for a guess that isn't a number.
    """
    if guess is not None and (not isinstance(guess, int | float) or math.isnan(guess)):
        raise ValueError(f"a guess must be a number or None, got {guess!r}")
    return Prediction(what, guess, float(found))


__all__ = ["Prediction", "predicted"]
