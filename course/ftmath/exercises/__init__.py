"""The ungraded exercises: one line in a cell checks an answer, gives a hint, or opens a solution.

A part's exercises stand in a file of their own, `part05.py`; the notebooks' stubs are cut from it.
"""

import html
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

from ftmath.exercises.exercise import HONEST_ATTEMPTS, Exercise, Outcome, noted, outcome
from ftmath.progress import Done, read_progress, write_progress

PARTS = tuple(sorted(int(path.stem[4:]) for path in Path(__file__).parent.glob("part[0-9][0-9].py")))


@cache
def exercises(part: int) -> dict[str, Exercise]:
    """Return the exercises of a part by their numbers, in order.

    >>> list(exercises(5))[:2]
    ['5.1', '5.2']

    Errors: ValueError for a part that has none.
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(map(str, PARTS))}; got {part}")
    found: list[Exercise] = importlib.import_module(f"ftmath.exercises.part{part:02}").EXERCISES
    return {exercise.number: exercise for exercise in found}


def exercise(number: str) -> Exercise:
    """Return an exercise by its number. Raises ValueError for an unknown one."""
    part, _, _ = number.partition(".")
    found = exercises(int(part)) if part.isdecimal() else {}
    if number not in found:
        raise ValueError(f"number must be that of an exercise, such as 5.2, got {number!r}")
    return found[number]


def check_exercise(number: str, function: Callable[..., Any]) -> Outcome:
    """Try a function on an exercise's cases, note the outcome in the learner's file, and return it.

    >>> print(check_exercise("5.3", lambda *_: 1.0))
    ✗ 5.3 The same first step at another rank: not right yet
      <lambda>(16.0, 8, 64, 'sgd') gives 1.0, and that isn't it.
    """
    found = exercise(number)
    result = outcome(found, function)
    return noted(found, result, result.words)


@dataclass(frozen=True, slots=True)
class Help:
    """A hint or a solution; in a notebook it shows itself."""

    title: str
    text: str
    code: bool = False

    def __str__(self) -> str:
        return f"{self.title}\n{self.text}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        inside = html.escape(self.text)
        body = f"<pre>{inside}</pre>" if self.code else f"<div>{inside}</div>"
        style = "border-left: 4px solid #009E73; padding: 4px 10px; color: var(--jp-ui-font-color1, inherit)"
        shown = f'<div style="{style}"><b>{html.escape(self.title)}</b>{body}</div>'
        return {"text/plain": str(self), "text/html": shown}


def hint(number: str) -> Help:
    """Return the next hint of an exercise; the last one again when all are out."""
    found, known = exercise(number), read_progress().get(number, Done())
    place = min(known.hints, len(found.hints) - 1)
    write_progress(number, replace(known, hints=place + 1))
    return Help(f"{number}, hint {place + 1} of {len(found.hints)}", found.hints[place])


def solution(number: str) -> Help:
    """Return an exercise's solution, once it's right or was honestly tried."""
    found, known = exercise(number), read_progress().get(number, Done())
    if known.status != "right" and known.attempts < HONEST_ATTEMPTS:
        left = HONEST_ATTEMPTS - known.attempts
        more = f"{left} more different attempt{'s' if left > 1 else ''} open it; `hint({number!r})` may help."
        return Help(f"{number}: the solution is closed", more)
    return Help(f"{number}, a solution", dedent(inspect.getsource(found.reference)), code=True)


# ------------------------------------------------------------------------------------------------------------- progress


@dataclass(frozen=True, slots=True)
class ProgressTable:
    """Parts x exercises, each with a sign and a word."""

    rows: tuple[tuple[int, tuple[tuple[str, str, str], ...]], ...]

    def __str__(self) -> str:
        return "\n".join(
            f"part {part}: " + "  ".join(f"{number} {SIGNS[status][0]} {status}" for number, _, status in cells)
            for part, cells in self.rows
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        lines = "".join(
            f'<tr><th scope="row" style="text-align:left">part {part}</th>'
            + "".join(
                f'<td title="{html.escape(f"{title}: {status}")}" style="color:{SIGNS[status][1]}">'
                f"{SIGNS[status][0]} {number}</td>"
                for number, title, status in cells
            )
            + "</tr>"
            for part, cells in self.rows
        )
        counts = {status: sum(row[2] == status for _, cells in self.rows for row in cells) for status in SIGNS}
        words = ", ".join(f"{SIGNS[status][0]} {status}: {count}" for status, count in counts.items())
        table = f"<table><caption>Your exercises: {words}</caption><tbody>{lines}</tbody></table>"
        return {"text/plain": str(self), "text/html": table}


SIGNS = {
    "right": ("✓", "var(--jp-info-color0, #0072B2)"), "wrong": ("✗", "#D55E00"),
    "not started": ("–", "var(--jp-ui-font-color2, #666)"),
}  # fmt: skip


def progress(part: int | None = None) -> ProgressTable:
    """Return how far each exercise is, of one part or of all.

    >>> [part for part, _ in progress(5).rows]
    [5]
    """
    known = read_progress()
    return ProgressTable(
        tuple(
            (number, tuple((e.number, e.title, known.get(e.number, Done()).status) for e in exercises(number).values()))
            for number in ([part] if part else PARTS)
        )
    )


__all__ = ["check_exercise", "exercise", "exercises", "hint", "progress", "solution"]
