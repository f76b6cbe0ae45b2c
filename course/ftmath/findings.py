"""A conclusion of a notebook beside its control: the run that would look the same if the conclusion were false."""

import html
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % points of Student's t for 1 to 9 degrees of freedom; the last one serves all larger samples."""

RECORD = "FTMATH_FINDINGS"
"""Names a file. If it is set, findings are added to that file as lines of JSON and none of them raises."""


class Overturned(AssertionError):
    """The measurements contradict a conclusion, or its control shows the same."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A conclusion, its figure for each seed, the control's figure for each seed, and its scope; it shows itself."""

    says: str
    figure: str
    measured: tuple[float, ...]
    null: str
    control: tuple[float, ...]
    scope: str

    def __str__(self) -> str:
        rows = (f"  {name}: {interval(values)}" for name, values in self.rows)
        return "\n".join([self.says, *rows, f"  scope: {self.scope}"])

    @property
    def rows(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """Return what was measured and the control, each with its name."""
        return (self.figure, self.measured), (f"control, {self.null}", self.control)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self.as_html()}

    def as_html(self) -> str:
        """Return the conclusion with a table of both figures, and its scope."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th><td>{interval(values)}</td></tr>'
            for name, values in self.rows
        )
        style = "border-left: 4px solid #009E73; padding: 4px 10px; color: var(--jp-ui-font-color1, inherit)"
        shown = f"<b>{html.escape(self.says)}</b><table>{rows}</table><small>{html.escape(self.scope)}</small>"
        return f'<div role="note" style="{style}">{shown}</div>'


def interval(values: Sequence[float]) -> str:
    """Return the mean of one value per seed with its 95 % interval by Student's t, and how many there are.

    >>> interval([1.0, 2.0, 3.0])
    '2 (95 % interval -0.484 to 4.48; 3 seeds)'
    """
    count, mean = len(values), sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    half = T95[min(count - 1, len(T95)) - 1] * math.sqrt(variance / count)
    return f"{mean:.3g} (95 % interval {mean - half:.3g} to {mean + half:.3g}; {count} seeds)"


def finding(
    says: str, *, figure: str, measured: Sequence[float], null: str, control: Sequence[float],
    holds: Callable[[Sequence[float]], bool], scope: str,
) -> Finding:  # fmt: skip
    """Return a conclusion if its assertion holds for what was measured and fails on its control.

    `figure` names the number, with its unit, that `measured` and `control` hold for each seed, three at least. The
    control is the same number from a run without the claimed effect, and `null` says which run that is. `holds` is the
    assertion: it sees one of the two lists and can't tell which. `scope` names task, model, optimizer, rates and seeds.

    >>> coin = dict(figure="heads of 10", null="a fair coin", holds=lambda heads: min(heads) > 7, scope="one coin")
    >>> print(finding("The coin is loaded", measured=[9, 10, 8], control=[5, 7, 4], **coin))
    The coin is loaded
      heads of 10: 9 (95 % interval 6.52 to 11.5; 3 seeds)
      control, a fair coin: 5.33 (95 % interval 1.54 to 9.13; 3 seeds)
      scope: one coin
    >>> finding("The coin is loaded", measured=[9, 10, 8], control=[9, 8, 8], **coin)
    Traceback (most recent call last):
    ftmath.findings.Overturned: "The coin is loaded" would also hold on its control (a fair coin): [9.0, 8.0, 8.0]

    Errors: Overturned, and ValueError for fewer than three seeds or a figure that isn't finite.
    """
    found = Finding(says, figure, tuple(map(float, measured)), null, tuple(map(float, control)), scope)
    for name, values in (("measured", found.measured), ("control", found.control)):
        if len(values) < 3 or not all(map(math.isfinite, values)):
            raise ValueError(f"{name} must hold a finite figure for each of three seeds or more, got {list(values)}")
    verdicts = {"holds": bool(holds(found.measured)), "holds_on_control": bool(holds(found.control))}
    if RECORD in os.environ:
        with Path(os.environ[RECORD]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found) | verdicts) + "\n")
        return found
    if not verdicts["holds"]:
        raise Overturned(f'"{says}" doesn\'t hold for what was measured, {figure}: {list(found.measured)}')
    if verdicts["holds_on_control"]:
        raise Overturned(f'"{says}" would also hold on its control ({null}): {list(found.control)}')
    return found


__all__ = ["RECORD", "Finding", "Overturned", "finding", "interval"]
