"""What authors write problems with: checks and their cases, comparisons of values, and mistakes people really make."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftgrade.catalog import Catalog, load_module
from ftgrade.errors import AuthorFault
from ftgrade.intake.classes import type_words
from ftgrade.intake.notebook import PERSONAL
from ftgrade.sandbox.channel import Call, Outcome, Value
from ftgrade.sandbox.worker import Other, Stream

Rng = np.random.Generator
MAX_AXES = 32  # what NumPy of every version can hold
USUAL_FACTORS = [
    factor for one in (2.0, 3.0, 4.0, 8.0, 10.0, 100.0, 1000.0, math.log(2), math.log(10)) for factor in (one, 1 / one)
] + [1.0]
"""The factors that a student is told of, with either sign: two of bits and nats, of percent, of a forgotten half."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Why a value isn't the expected one: words for the student, the largest difference, and the ratio if it is one."""

    words: str
    largest: float | None = None
    ratio: float | None = None


Same = Callable[[Any, Any], Difference | None]
"""A comparison of the expected value and the student's, which returns None if they are the same."""


# ------------------------------------------------------------------------------------------------------------ cases


@dataclass(frozen=True, slots=True)
class Case:
    """Demand the value that the reference returns for the same call.

    `words` describe the kind of input to the student, without its values. `pure` demands that no input is modified.
    A call with `backward` compares the gradients of the inputs too. `promise` is the sentence of the contract that the
    case tests, by its name; by default it has the name of the check. A case that is asked `once` is drawn for the
    first of a student's seeds alone: a corner, in which other numbers would show nothing new.
    """

    words: str
    call: Call
    pure: bool = True
    promise: str = ""
    once: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Demand a ValueError whose message contains `keyword`, in upper or lower case; asked for the first seed alone.

    `twin` is the same call with valid arguments: the function must return a value for it. `others` are the keywords of
    the function's other errors: a message that contains them all names nothing.
    """

    words: str
    call: Call
    keyword: str
    twin: Call | None = None
    others: tuple[str, ...] = ()
    promise: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """Demand that the student's own results of several calls agree with each other; the reference isn't asked.

    `holds` takes the outcomes (`Value`s) in the order of the calls and returns None or a Difference. A relation that is
    asked `once` is like such a case.
    """

    words: str
    calls: tuple[Call, ...]
    holds: Callable[..., Difference | None]
    promise: str = ""
    once: bool = False


AnyCase = Case | Refusal | Relation


def is_asked_once(case: AnyCase) -> bool:
    """Say whether a case is asked for the first of a student's seeds alone."""
    return isinstance(case, Refusal) or case.once


def calls_of(case: AnyCase) -> tuple[Call, ...]:
    """Return the calls that a case makes."""
    if isinstance(case, Relation):
        return case.calls
    return (case.call, case.twin) if isinstance(case, Refusal) and case.twin else (case.call,)


def call(function: str, *arguments: Any, backward: bool = False, build: str = "", **keywords: Any) -> Call:
    """Return a call, written like the call itself: `call("dpo_loss", pc, pr, rc, rr, beta=0.5)`.

    `build` is for arguments that JSON can't hold: the source of a module with a function `build`, as `builder` returns
    it. In the sandbox, `build` gets the plain arguments and returns a pair: the tuple of real arguments, and a function
    `observe()`. The value is then a pair too: what the student's function returned, and what `observe` returned.
    """
    return Call(function, arguments, tuple(keywords.items()), backward, build)


def builder(problem_file: str) -> str:
    """Return the source of the builder that belongs to a problem's file: `BUILD = builder(__file__)`."""
    path = Path(problem_file)
    return Catalog(path.parents[2]).leaves(path.stem).builder.read_text("utf-8")


# ------------------------------------------------------------------------------------------------------ comparisons


def integer(expected: int, got: Any) -> Difference | None:
    """Demand exactly this integer, as an int or a numpy integer; a float or a bool is wrong."""
    if isinstance(got, bool | np.bool_) or not isinstance(got, int | np.integer):
        return Difference(f"a count is an int, and this is a {kind_name(got)}")
    if int(got) == expected:
        return None
    if abs(int(got)) > 2**1000:
        return Difference("the count differs, and is beyond all bounds")
    factor = float(got) / expected if expected else 1.0
    return Difference("the count differs", abs(float(int(got) - expected)), telling_ratio(factor))


def whole(expected: int, got: Any) -> Difference | None:
    """Demand exactly this whole number; an int, a float such as 2160.0, or a single number of an array may hold it.

    >>> whole(2160, 2160.0), whole(2160, 2160.5)
    (None, Difference(words='a whole number was expected', largest=None, ratio=None))
    """
    if isinstance(got, bool | np.bool_ | int | np.integer):
        return integer(expected, got)
    given = as_array(got)
    if given is None or given.size != 1:
        return Difference(f"a whole number was expected, and this is a {kind_name(got)}")
    single = float(given.item())
    return integer(expected, int(single)) if single.is_integer() else Difference("a whole number was expected")


@dataclass(frozen=True, slots=True)
class Close:
    """Demand numbers within a tolerance and of the same shape, in any nesting of dicts and sequences.

    The tolerance is `rtol` of the largest entry, or `atol` if that is more: float32 arithmetic gives no more of a sum.
    With `dtype`, tensors must have the same dtype too. A 0-d tensor and a float may be equal. NaN is close only to NaN,
    an infinity only to itself.
    """

    rtol: float = 1e-5
    atol: float = 1e-6
    dtype: bool = False

    def __call__(self, expected: Any, got: Any) -> Difference | None:
        if isinstance(expected, dict):
            if not isinstance(got, dict) or set(got) != set(expected):
                return Difference(f"a dict with other keys was expected, and this is a {kind_name(got)}")
            return self.first(list(expected.values()), [got[key] for key in expected])
        if isinstance(expected, tuple | list):
            if not isinstance(got, tuple | list) or len(got) != len(expected):
                here = f"this has {len(got)}" if isinstance(got, tuple | list) else f"this is a {kind_name(got)}"
                return Difference(f"{len(expected)} value{'s' * (len(expected) != 1)} expected, and {here}")
            return self.first(expected, got)
        if isinstance(expected, str | bool) or expected is None:
            same = type(got) is type(expected) and got == expected
            return None if same else Difference("another value was expected")
        return self.numbers(expected, got)

    def first(self, expected: Sequence[Any], got: Sequence[Any]) -> Difference | None:
        differences = (self(one, other) for one, other in zip(expected, got, strict=True))
        return next((difference for difference in differences if difference), None)

    def numbers(self, expected: Any, got: Any) -> Difference | None:
        right, mine = as_array(expected), as_array(got)
        if mine is None or right is None:
            return Difference(f"numbers were expected, and this is a {kind_name(got)}")
        if mine.shape != right.shape:
            axes = f"{right.ndim} axes were expected, this has {mine.ndim}"
            return Difference(
                "the shape differs: " + (axes if mine.ndim != right.ndim else "another length of an axis")
            )
        if self.dtype and torch.is_tensor(expected) and torch.is_tensor(got) and expected.dtype != got.dtype:
            return Difference(f"the dtype is {name_of(got.dtype)}, and {name_of(expected.dtype)} was expected")
        return self.compare(right, mine)

    def compare(self, right: np.ndarray, mine: np.ndarray) -> Difference | None:
        with np.errstate(invalid="ignore", over="ignore"):
            known = np.isfinite(right)
            whole = bool(known.all())
            size = float(np.abs(right if whole else right[known]).max(initial=0.0))
            near = np.abs(mine - right) <= max(self.atol, self.rtol * size)
            if near.all() or (not whole and (near | (mine == right) | (np.isnan(mine) & np.isnan(right))).all()):
                return None
            if not np.isfinite(mine[known]).all():
                return Difference("a value is NaN or infinite where a finite one was expected")
            finite = np.isfinite(mine) & np.isfinite(right)
            largest = float(np.abs(mine - right)[finite].max()) if finite.any() else None
        return Difference("the numbers differ", largest, ratio_of(right.ravel(), mine.ravel()))


def as_array(value: Any) -> np.ndarray | None:
    """Return a float, int, array or tensor as a float64 array, or None for anything else."""
    if isinstance(value, bool):
        return None
    if torch.is_tensor(value):
        return value.detach().to(torch.float64).numpy() if value.ndim <= MAX_AXES else None
    if isinstance(value, int) and abs(value) > 2**1000:
        return np.asarray(math.inf if value > 0 else -math.inf)
    if isinstance(value, int | float | np.generic | np.ndarray):
        return np.asarray(value, dtype=np.float64)
    return None


def telling_ratio(factor: float) -> float | None:
    """Return the usual factor (2, 1/2, -1, 10, ln 2, …) that this one is, or None.

    Any other factor would give a hidden value away: a student knows what was returned, and could divide.

    >>> telling_ratio(2.000001), telling_ratio(-0.5), telling_ratio(1.0), telling_ratio(1.7)
    (2.0, -0.5, None, None)
    """
    near = (sign * usual for usual in USUAL_FACTORS for sign in (1, -1) if sign * usual != 1)
    return next((one for one in near if math.isclose(factor, one, rel_tol=1e-5)), None)


def ratio_of(right: Sequence[float] | np.ndarray, mine: Sequence[float] | np.ndarray) -> float | None:
    """Return the common factor `mine / right` of all numbers if it is a usual one, or None."""
    right, mine = np.asarray(right, dtype=np.float64), np.asarray(mine, dtype=np.float64)
    used = np.isfinite(right) & np.isfinite(mine) & (np.abs(right) > 1e-300)
    if not used.any() or np.any(mine[~used & np.isfinite(mine)] != 0):
        return None
    with np.errstate(over="ignore"):
        ratios = mine[used] / right[used]
    middle = float(np.median(ratios))
    steady = np.allclose(ratios, middle, rtol=1e-6, atol=0.0)
    return telling_ratio(middle) if steady else None


def kind_name(value: Any) -> str:
    """Return a value's type in words for a student; a name that the student made up isn't repeated."""
    if isinstance(value, Other):
        return type_words(value.type_name)
    if torch.is_tensor(value):
        return f"tensor with {value.ndim} axes"
    return "None (is a return missing?)" if value is None else type(value).__name__


def name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def number(outcome: Value) -> float:
    """Return the single number of an outcome, or NaN if it isn't one."""
    value = outcome.value
    if torch.is_tensor(value):
        return float(value.detach()) if value.numel() == 1 else math.nan
    return float(value) if isinstance(value, int | float) else math.nan


def finite(outcome: Value) -> Difference | None:
    """Demand finite numbers in the value and in its gradients, if there are any."""
    for part in [outcome.value, *(outcome.gradients or ())]:
        numbers = as_array(part)
        if numbers is not None and not np.isfinite(numbers).all():
            return Difference("the result is NaN or infinite")
    return None


# ----------------------------------------------------------------------------------------------- checks and mistakes


@dataclass(frozen=True, slots=True)
class Check:
    """One graded check: its points, the function `of` that it tests, and a generator of its cases."""

    name: str
    points: float
    of: str
    title: str
    concerns: tuple[str, ...]
    next_step: str
    cases: Callable[[Rng], Iterator[AnyCase]]
    same: Same


@dataclass(frozen=True, slots=True)
class Promise:
    """What the contract or the statement says about a function: the `quote` is a sentence of it, or a part of one."""

    name: str
    quote: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong formula that people really write, as a change of the reference's function `replaces`.

    `edits` are pairs of a text in that function and its replacement. A mistake with another structure is a `function`.
    """

    name: str
    replaces: str
    says: str
    next_step: str
    function: Callable[..., Any] | None = None
    edits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A question that is answered in words and graded by a person; its points don't count towards the checks'."""

    name: str
    points: float


def number_words(value: float) -> str:
    """Return a number as a text without an exponent.

    >>> number_words(6e-5)
    '0.00006'
    """
    return f"{value:.12f}".rstrip("0").rstrip(".")


def no_cases(_: Rng) -> Iterator[AnyCase]:
    """Draw nothing: the case of a personal number depends on the student."""
    return iter(())


@dataclass(frozen=True, slots=True)
class Question:
    """A personal question: its words, the call whose value answers it, and the part of the value that is the number."""

    words: str
    call: Call
    part: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True, slots=True)
class Personal:
    """A question whose answer differs from student to student: the check of `personal_number`, and how it is drawn."""

    check: Check
    draw: Callable[[Rng], Question]

    @property
    def precision(self) -> str:
        """Say in words how many digits of the answer count."""
        same = self.check.same
        if same is whole:
            return "The answer is a whole number; all of its digits count, and 12 may be written as 12.0."
        if isinstance(same, Close):
            decimals = max(0, math.ceil(-math.log10(2 * same.atol)))
            return (
                f"The answer counts within {100 * same.rtol:g} % of the right one (of its largest number, if it has "
                f"several) or within {number_words(same.atol)}, whichever is more: {decimals} decimals are enough."
            )
        return ""


@dataclass(slots=True)
class Problem:
    """How one problem is judged. Its file fills it with the methods below, in the order of the file.

    `equivalent` maps globs of mutants' names to the reason why these mutants give the reference's results; `ftgrade
    audit` asks for them. `own` is the personal question, if there is one.
    """

    part: str
    difficulty: int
    importance: int
    minutes: int
    version: int = 1
    written: tuple[Written, ...] = ()
    checks: list[Check] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list[Promise])
    mistakes: list[Mistake] = field(default_factory=list)
    equivalent: dict[str, str] = field(default_factory=dict)
    own: Personal | None = None

    def check(
        self, name: str, *, points: float, of: str, title: str, concerns: Sequence[str], next_step: str,
        same: Same = Close(),
    ) -> Callable[[Callable[[Rng], Iterator[AnyCase]]], Callable[[Rng], Iterator[AnyCase]]]:  # fmt: skip
        """Register a generator of cases as a named check."""
        if any(name == other.name for other in self.checks):
            raise AuthorFault(f"two checks of a problem are named {name!r}: rename one")

        def register(cases: Callable[[Rng], Iterator[AnyCase]]) -> Callable[[Rng], Iterator[AnyCase]]:
            self.checks.append(Check(name, points, of, title, tuple(concerns), next_step, cases, same))
            return cases

        return register

    def promise(self, name: str, *quotes: str) -> str:
        """Register sentences of the contract or the statement as a promise, and return its name.

        Cases that test it carry the name; a promise with a check's name is tested by that check's other cases.
        """
        self.promises += [Promise(name, quote) for quote in quotes]
        return name

    def slip(self, name: str, of: str, edits: Mapping[str, str], *, says: str, next_step: str) -> None:
        """Register an edit of the reference as a mistake: `edits` maps texts in the function `of` to replacements.

        Each text must occur exactly once in the function; `apply_edits` raises AuthorFault otherwise.
        """
        self.mistakes.append(Mistake(name, of, says, next_step, edits=tuple(edits.items())))

    def mistake(
        self, *, replaces: str, says: str, next_step: str, name: str = ""
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function as a wrong variant of the one that it `replaces`; its own name is the default `name`."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self.mistakes.append(Mistake(name or function.__name__, replaces, says, next_step, function))
            return function

        return register

    def personal(
        self, *, title: str, next_step: str, points: float = 1, same: Same = Close(rtol=1e-3, atol=6e-5)
    ) -> Callable[[Callable[[Rng], Question]], Callable[[Rng], Question]]:
        """Register how a personal question is drawn; by default its answer must be right to four decimals.

        With `same=integer` the answer is a whole number, which may be written as a float: 2160.0.
        """
        same = whole if same is integer else same

        def register(draw: Callable[[Rng], Question]) -> Callable[[Rng], Question]:
            words = ("the numbers of your own statement",)
            self.own = Personal(Check("mine", points, PERSONAL, title, words, next_step, no_cases, same), draw)
            return draw

        return register

    @property
    def all_checks(self) -> list[Check]:
        """Return the checks, including that of the personal number if there is one."""
        return [*self.checks, *([self.own.check] if self.own else [])]

    @property
    def points(self) -> float:
        return sum(check.points for check in self.checks)

    @property
    def functions(self) -> list[str]:
        """Return the functions in the order of their first checks."""
        return list(dict.fromkeys(check.of for check in self.checks))


def load_problem(catalog: Catalog, stem: str) -> Problem:
    """Load the problem of a stem. Raises AuthorFault."""
    path = catalog.leaves(stem).problem
    problem = getattr(load_module(path, f"ftgrade_problem_{stem}"), "problem", None)
    if not isinstance(problem, Problem):
        raise AuthorFault(f"{path.name} must define `problem = Problem(...)`, and doesn't")
    return problem


__all__ = [
    "PERSONAL", "AnyCase", "Call", "Case", "Check", "Close", "Difference", "Mistake", "Outcome", "Personal", "Problem",
    "Question", "Refusal", "Relation", "Rng", "Same", "Stream", "Value", "Written", "builder", "call", "calls_of",
    "finite", "integer", "is_asked_once", "load_problem", "number", "whole",
]  # fmt: skip
