"""An exercise that answers at once: seeded cases, the wrong formulas that people really write, hints one by one."""

import copy
import html
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ftmath.progress import Done, read_progress, write_progress

HONEST_ATTEMPTS = 3
"""After so many different wrong answers the solution opens."""

WORDS = {"right": ("✓", "right"), "wrong": ("✗", "not right yet"), "not started": ("–", "not started")}


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong function that people write, and what to tell who wrote it."""

    wrong: Callable[..., Any]
    says: str


@dataclass(frozen=True, slots=True)
class Exercise:
    """A question of the course: what to write, what it is tried on, and how to help.

    `cases` are argument lists; `errors` are argument lists that must raise ValueError naming a word. The reference's
    docstring is the task, its body the solution. `read` turns a result that can't be compared, such as a module, into
    what is compared.
    """

    number: str
    title: str
    reference: Callable[..., Any]
    cases: Sequence[Sequence[Any]]
    hints: Sequence[str]
    mistakes: Sequence[Mistake]
    minutes: int
    difficulty: int
    errors: Sequence[tuple[Sequence[Any], str]] = ()
    tolerance: float = 1e-6
    read: Callable[[Any], Any] = lambda result: result

    def ask(self, function: Callable[..., Any], case: Sequence[Any]) -> Any:
        """Return what a function says to a case, as it is compared; what it does to the arguments stays its own."""
        return self.read(function(*(copied(argument) for argument in case)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check says of an answer; in a notebook it shows itself."""

    number: str
    title: str
    status: str
    words: str = ""

    def __str__(self) -> str:
        glyph, said = WORDS[self.status]
        return f"{glyph} {self.number} {self.title}: {said}" + (f"\n  {self.words}" if self.words else "")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": as_html(self)}


# ------------------------------------------------------------------------------------------------------------- checking


def outcome(exercise: Exercise, function: Callable[..., Any]) -> Outcome:
    """Return what the cases say of a function. Nothing of the expected values is told."""
    found: list[Any] = []
    for case in exercise.cases:
        try:
            found.append(exercise.ask(function, case))
        except NotImplementedError:
            return Outcome(exercise.number, exercise.title, "not started")
        except Exception as error:
            if unfilled(function):
                return Outcome(exercise.number, exercise.title, "not started")
            words = f"{called(function, case)} raises {type(error).__name__}: {error}"
            return Outcome(exercise.number, exercise.title, "wrong", words)
    if unfilled(function):
        return Outcome(exercise.number, exercise.title, "not started")
    wanted = [exercise.ask(exercise.reference, case) for case in exercise.cases]
    wrong = [place for place, pair in enumerate(zip(found, wanted, strict=True)) if not same(*pair, exercise.tolerance)]
    if wrong:
        return Outcome(exercise.number, exercise.title, "wrong", explained(exercise, function, found, wrong[0]))
    return refusals(exercise, function)


def explained(exercise: Exercise, function: Callable[..., Any], found: Sequence[Any], place: int) -> str:
    """Return what to tell about a wrong answer: its mistake by name if it's a known one, else where it fails."""
    for mistake in exercise.mistakes:
        if all(same(value, tried(exercise, mistake.wrong, case), exercise.tolerance)
               for value, case in zip(found, exercise.cases, strict=True)):  # fmt: skip
            return mistake.says
    return f"{called(function, exercise.cases[place])} gives {short(found[place])}, and that isn't it."


def tried(exercise: Exercise, function: Callable[..., Any], case: Sequence[Any]) -> Any:
    try:
        return exercise.ask(function, case)
    except Exception:
        return None


def refusals(exercise: Exercise, function: Callable[..., Any]) -> Outcome:
    """Return the outcome of the cases that must be refused."""
    for case, word in exercise.errors:
        call = called(function, case)
        try:
            function(*case)
        except ValueError as error:
            if word.lower() in str(error).lower():
                continue
            words = f"{call} raises ValueError, and its message should name {word!r}."
            return Outcome(exercise.number, exercise.title, "wrong", words)
        except Exception as error:
            words = f"{call} should raise ValueError, and raises {type(error).__name__}."
            return Outcome(exercise.number, exercise.title, "wrong", words)
        return Outcome(exercise.number, exercise.title, "wrong", f"{call} should raise ValueError naming {word!r}.")
    return Outcome(exercise.number, exercise.title, "right")


def same(found: Any, wanted: Any, tolerance: float) -> bool:
    """Say whether two values agree: numbers and tensors to a relative tolerance, everything else exactly.

    >>> same((1, 2.0), [1, 2.0000001], 1e-6), same(True, 1, 1e-6), same(torch.ones(2), torch.ones(3), 1e-6)
    (True, False, False)
    >>> same(math.nan, math.nan, 1e-6), same(1.0, math.nan, 1e-6), same(math.nan, 1.0, 1e-6)
    (True, False, False)
    """
    if isinstance(wanted, Tensor):
        if not isinstance(found, Tensor) or found.shape != wanted.shape:
            return False
        return torch.allclose(found.double(), wanted.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(wanted, bool) or isinstance(found, bool):
        return type(found) is type(wanted) and found == wanted
    if isinstance(wanted, int | float):
        value = found.item() if isinstance(found, Tensor) and found.numel() == 1 else found
        if not isinstance(value, int | float) or math.isnan(wanted):
            return isinstance(value, float) and math.isnan(value)
        return math.isclose(value, wanted, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(wanted, tuple | list):
        return (
            isinstance(found, tuple | list) and len(found) == len(wanted)
            and all(same(a, b, tolerance) for a, b in zip(found, wanted, strict=True))
        )  # fmt: skip
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and found.keys() == wanted.keys() and all(
            same(found[key], wanted[key], tolerance) for key in wanted
        )  # fmt: skip
    return type(found) is type(wanted) and found == wanted


def copied(value: Any) -> Any:
    """Return a case's argument as the answer may have it: what it does to a tensor or a module is its own matter."""
    if isinstance(value, nn.Module):
        return copy.deepcopy(value)
    if type(value) in (list, tuple):
        return type(value)(map(copied, value))
    return value.clone() if isinstance(value, Tensor) else value


def unfilled(function: Callable[..., Any]) -> bool:
    """Say whether a blank still stands in a function: a line that ends in `...`."""
    try:
        return any(line.split("#")[0].rstrip().endswith("...") for line in inspect.getsource(function).splitlines())
    except (OSError, TypeError):
        return False


def called(function: Callable[..., Any], case: Sequence[Any]) -> str:
    return f"{function.__name__}({', '.join(short(argument) for argument in case)})"


def short(value: Any) -> str:
    """Return a value in few words.

    >>> short(torch.zeros(300, 2)), short([1, 2])
    ('a (300, 2) tensor', '[1, 2]')
    """
    if isinstance(value, Tensor):
        return repr(value.tolist()) if value.numel() <= 6 else f"a {tuple(value.shape)} tensor"
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def as_html(result: Outcome) -> str:
    glyph, said = WORDS[result.status]
    colour = {"right": "#0072B2", "wrong": "#D55E00", "not started": "var(--jp-ui-font-color2, #666)"}[result.status]
    more = f"<div>{html.escape(result.words)}</div>" if result.words else ""
    return (
        f'<div role="status" style="border-left: 4px solid {colour}; padding: 4px 10px; '
        f'color: var(--jp-ui-font-color1, inherit)"><b>{glyph} {html.escape(result.number)} '
        f"{html.escape(result.title)}: {said}</b>{more}</div>"
    )


# -------------------------------------------------------------------------------------------------------- with progress


def noted(exercise: Exercise, result: Outcome, answer: str) -> Outcome:
    """Keep an outcome in the learner's file; the same wrong answer twice is one attempt."""
    known = read_progress().get(exercise.number, Done())
    attempts = known.attempts + (result.status == "wrong" and answer != LAST.get(exercise.number))
    LAST[exercise.number] = answer
    if result.status != "not started":
        # Once right stays right: trying something out afterwards takes nothing away.
        status = "right" if known.status == "right" else result.status
        write_progress(exercise.number, replace(known, status=status, attempts=attempts))
    if result.status == "wrong" and attempts >= HONEST_ATTEMPTS:
        more = f'{result.words} The solution is open now: `solution("{exercise.number}")`.'
        return replace(result, words=more)
    return result


LAST: dict[str, str] = {}


__all__ = ["HONEST_ATTEMPTS", "Exercise", "Mistake", "Outcome", "noted", "outcome", "same", "unfilled"]
