"""Turn outcomes into verdicts: compare them with the reference, and name the known mistake that explains them."""

import ast
import functools
import itertools
import math
import re
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch

from ftgrade.catalog import Catalog
from ftgrade.errors import AuthorFault
from ftgrade.intake.classes import error_words
from ftgrade.intake.placing import released_of
from ftgrade.judging.problem import (
    PERSONAL,
    AnyCase,
    Case,
    Check,
    Close,
    Difference,
    Mistake,
    Refusal,
    Relation,
    Same,
    calls_of,
    integer,
    is_asked_once,
    load_problem,
    whole,
)  # fmt: skip
from ftgrade.sandbox import channel, worker
from ftgrade.sandbox.channel import Call, Lost, Outcome, Raised, Reply, Value, outcome_of

Ask = Callable[[Sequence[Call]], Sequence[Reply]]
"""A function that answers calls, in order."""
TrustedAsk = Callable[[Sequence[Call]], list[Outcome]]
"""The same for trusted code: its replies are parsed already."""

CACHED_DRAWS = 256
"""How many (check, seed) draws are cached; shared by all students."""
CACHED_VERDICTS, MAX_CACHED_BYTES = 16, 8_000
"""How many verdicts are cached per case, and the total length of replies below which a verdict is cached."""

CHANGED = "it changed one of its inputs; work on a copy"
_LOST_WORDS = {
    "timeout": "it ran longer than the limit",
    "killed": "it ended the whole process (memory, recursion, or an exit)",
    "unsendable": "it returned something too large or too deep to read",
    "protocol": "it answered in a form that the grader doesn't read",
    "not-run": "it was not run, because the function had failed to return before",
}


@dataclass(slots=True)
class Posed:
    """A drawn case with everything about it that is shared by all students.

    `expected` is the reference's outcome and `seconds` the time it took (both only for a `Case`); mistakes are tried on
    quick cases first. `of_mistakes` caches outcomes and status by the mistake's name, `verdicts` by the exact replies.
    """

    case: AnyCase
    expected: Value | None = None
    seconds: float = math.inf
    of_mistakes: dict[str, tuple[tuple[Outcome, ...], str]] = field(default_factory=dict)
    verdicts: "dict[tuple[Reply, ...], Verdict]" = field(default_factory=dict[tuple[Reply, ...], "Verdict"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one case; `status` is `pass`, `wrong`, `error`, `not-attempted`, or the kind of a `Lost`."""

    posed: Posed
    outcomes: tuple[Outcome, ...]
    status: str
    difference: Difference | None = None
    explained: dict[str, bool] = field(default_factory=dict[str, bool], compare=False)
    """Whether a mistake, by its name, gives the same outcomes and status; a cache."""

    @property
    def case(self) -> AnyCase:
        return self.posed.case


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """The result of one check: its score, the failed case to show, and a mistake that explains it.

    `kept` and `broken` are the promises that its cases test. The mistake explains all failed cases of the first broken
    promise; `more_fails` says that it leaves others unexplained.
    """

    check: Check
    score: float
    passed: int
    cases: int
    worst: Verdict | None
    mistake: Mistake | None
    kept: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    more_fails: bool = False


def local_ask(module: types.ModuleType) -> TrustedAsk:
    """Return a function that answers calls with a trusted module's functions, through the same code as a student's."""
    return lambda calls: [channel.outcome_of(worker.call(call.request, vars(module))) for call in calls]


def used_by(name: str, namespace: dict[str, Any]) -> set[str]:
    """Return the names of a module that one of its functions may use, directly or indirectly, and its own name.

    >>> exec("def f(): return g() + [h() for _ in range(3)]\\ndef g(): return 1\\ndef h(): return 2", module := {})
    >>> sorted(used_by("f", module)), used_by("g", module)
    (['f', 'g', 'h'], {'g'})
    """
    found: set[str] = set()
    waiting: list[Any] = [name]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if one in namespace and one not in found:
                found.add(one)
                waiting.append(namespace[one])
        elif isinstance(one, types.CodeType):
            waiting += [*one.co_names, *one.co_consts]
        elif isinstance(one, types.FunctionType):
            waiting.append(one.__code__)
        elif isinstance(one, type) and one.__module__ == namespace.get("__name__"):
            waiting += vars(one).values()
    return found


def draw_cases(check: Check, position: int, seed: int) -> Iterator[AnyCase]:
    """Yield a check's cases for one seed. Each check has a random stream of its own, independent of other checks."""
    return check.cases(np.random.default_rng([seed, position]))


class Oracle:
    """Judge one problem: its reference and mistakes, loaded once for all students."""

    def __init__(self, catalog: Catalog, stem: str) -> None:
        # As in the sandbox, so that the last digits are the same. Threads that wait for each other over small tensors
        # also made the reference of problem 1 twenty times slower.
        torch.set_num_threads(1)
        self.problem = load_problem(catalog, stem)
        self.catalog = catalog
        self.stem = stem
        self.digest = catalog.digest(stem)  # taken now, since the files may change later
        self.released = released_of(catalog.built_cells(stem))
        solution = catalog.solution(stem)
        self.reference = local_ask(solution)
        self.uses = {name: used_by(name, vars(solution)) for name in vars(solution)}
        self.mistakes = {mistake.name: mistake for mistake in self.problem.mistakes}
        self.wrong_references: dict[str, TrustedAsk] = {}
        self.posed = functools.lru_cache(CACHED_DRAWS)(self.pose)

    def pose(self, position: int, seed: int) -> list[Posed]:
        """Draw one check's cases for a seed. Raises AuthorFault if there are none or the reference fails on one."""
        check = self.problem.checks[position]
        found = [self.with_answer(case, check) for case in draw_cases(check, position, seed)]
        if not found:
            raise AuthorFault(f"the check {check.name!r} of {self.stem} drew no case for a seed")
        return found

    def with_answer(self, case: AnyCase, check: Check) -> Posed:
        """Return a case with the reference's outcome if it needs one. Raises AuthorFault if the reference fails."""
        if not isinstance(case, Case):
            return Posed(case)
        begun = time.perf_counter()
        (expected,) = self.reference([case.call])
        if not isinstance(expected, Value):
            raise AuthorFault(f"the reference of {self.stem} can't answer {case.words!r} of {check.name!r}: {expected}")
        return Posed(case, expected, time.perf_counter() - begun)

    def judge(self, ask: Ask, seeds: list[int]) -> list[CheckVerdict]:
        """Return a verdict for every check, in order, over all seeds.

        A check's points are shared out over the promises that its cases test; a promise gives its share if every case
        of every seed passes, else nothing. If several known mistakes explain the failures, the one that explains most
        checks is named.
        """
        verdicts = [self.verdicts(check, position, ask, seeds) for position, check in enumerate(self.problem.checks)]
        refusers = blanket_refusers([verdict for found in verdicts for verdict in found])
        verdicts = [[deny_blanket_refusal(verdict, refusers) for verdict in found] for found in verdicts]
        suspects = list(self.suspects_by_check(verdicts))
        explained = Counter(mistake.name for found in suspects for mistake in found)
        named = [
            likeliest(check, suspected, explained)
            for check, suspected in zip(self.problem.checks, suspects, strict=True)
        ]
        return [
            check_verdict(check, found, mistake, self.explained_by(mistake, check, found))
            for check, found, mistake in zip(self.problem.checks, verdicts, named, strict=True)
        ]

    def explained_by(self, mistake: Mistake | None, check: Check, verdicts: list[Verdict]) -> list[Verdict]:
        """Return the failed cases that a mistake explains; each is asked, whatever a cache already knows."""
        if mistake is None:
            return []
        return [one for one in verdicts if one.status != "pass" and self.explains(check, one, mistake)]

    def personal_answer(self, seed: int, ask: Ask) -> object:
        """Return the answer to a seed's personal question by the reference or by a mistake; None if there is none."""
        assert self.problem.own is not None
        question = self.problem.own.draw(np.random.default_rng(seed))
        outcome = outcome_of(*ask([question.call]))
        return question.part(outcome.value) if isinstance(outcome, Value) else None

    def judge_personal(self, ask: Ask, seeds: Sequence[int]) -> CheckVerdict:
        """Return the verdict on a student's personal number, with a mistake that gives the same number.

        `seeds` are those of the questions whose answers count for this student.
        """
        assert self.problem.own is not None
        check, case = self.problem.own.check, Case("your own numbers", Call(PERSONAL))
        expected = [self.personal_answer(seed, self.reference) for seed in seeds]
        if any(right is None for right in expected):
            raise AuthorFault(f"the reference of {self.stem} can't answer its personal question")
        outcome = with_list(outcome_of(*ask([case.call])), expected[0])
        found = [compare(case, check.same, Value(right), (outcome,)) for right in expected]
        status, difference = next((one for one in found if one[0] == "pass"), found[0])
        if status == "pass":
            return CheckVerdict(check, check.points, 1, 1, None, None)
        mistake = None
        if status == "wrong":  # hide the difference and the ratio, which would give the number away
            difference = Difference("it isn't the number that your statement asks for")
            tried = itertools.product(seeds, self.problem.mistakes)
            made = (one for seed, one in tried if self.gives(outcome, seed, self.reference_with(one)))
            mistake = next(made, None)
        return CheckVerdict(check, 0.0, 0, 1, Verdict(Posed(case), (outcome,), status, difference), mistake)

    def gives(self, outcome: Outcome, seed: int, ask: TrustedAsk) -> bool:
        """Say whether an outcome is the answer to a seed's personal question by a mistake."""
        expected = self.personal_answer(seed, ask)
        if self.problem.own is None or expected is None or not isinstance(outcome, Value):
            return False
        return equal(expected, outcome.value, self.problem.own.check.same)

    def verdicts(self, check: Check, position: int, ask: Ask, seeds: list[int]) -> list[Verdict]:
        """Return the verdicts of one check's cases."""
        # Ask the reference first: if it fails, that is the author's fault, whatever the student's code does.
        asked = self.asked(position, seeds)
        answers = iter(ask([call for posed in asked for call in calls_of(posed.case)]))
        return [verdict(posed, check, tuple(islice(answers, len(calls_of(posed.case))))) for posed in asked]

    def asked(self, position: int, seeds: list[int]) -> list[Posed]:
        """Return one check's cases over all seeds; what is asked once, for the first alone."""
        first, *others = (self.posed(position, seed) for seed in seeds)
        return [*first, *(one for posed in others for one in posed if not is_asked_once(one.case))]

    def suspects_by_check(self, verdicts: list[list[Verdict]]) -> Iterator[list[Mistake]]:
        """Yield the suspects of each check: the earlier checks' suspects that explain it, or else all that do.

        Only if no mistake explains all failed cases, those count that explain all of the first broken promise.
        """
        known: dict[str, Mistake] = {}
        for check, found in zip(self.problem.checks, verdicts, strict=True):
            failed = [one for one in found if one.status != "pass"]
            passed = [one for one in found if one.status == "pass"]
            first = [one for one in failed if promise_of(one.case, check) == promise_of(failed[0].case, check)]
            tries = itertools.product([failed, first], [known, self.mistakes])
            suspects = next(filter(None, (self.suspects(check, some, passed, these) for some, these in tries)), [])
            known |= {mistake.name: mistake for mistake in suspects}
            yield suspects

    def suspects(
        self, check: Check, failed: list[Verdict], passed: list[Verdict], mistakes: dict[str, Mistake]
    ) -> list[Mistake]:
        """Return those of these mistakes that explain all these failed cases and none of which fails a passed one."""
        failed = sorted(failed, key=lambda one: one.posed.seconds)  # measured: it decides how soon, not what, is found
        lost = any(isinstance(outcome, Lost) for verdict in failed for outcome in verdict.outcomes)
        if not failed or lost:
            return []
        reached = {name for call in calls_of(failed[0].case) for name in self.uses.get(call.function, ())}
        return [
            mistake
            for mistake in mistakes.values()
            if mistake.replaces in reached
            and all(self.explains(check, verdict, mistake) for verdict in failed)
            and all(self.passes(check, verdict.posed, mistake) for verdict in passed)
        ]

    def reference_with(self, mistake: Mistake) -> TrustedAsk:
        """Return a function that answers calls by the reference with this mistake in it; cached."""
        if mistake.name not in self.wrong_references:
            self.wrong_references[mistake.name] = local_ask(with_mistake(self.catalog, self.stem, mistake))
        return self.wrong_references[mistake.name]

    def explains(self, check: Check, verdict: Verdict, mistake: Mistake) -> bool:
        """Say whether a mistake gives the student's outcomes on a case and the same status; cached."""
        posed, name = verdict.posed, mistake.name
        if name not in verdict.explained:
            outcomes, status = self.with_mistake_in(check, posed, mistake)
            pairs = zip(verdict.outcomes, outcomes, strict=True)
            verdict.explained[name] = status == verdict.status and all(
                alike(mine, theirs, check.same) for mine, theirs in pairs
            )
        return verdict.explained[name]

    def passes(self, check: Check, posed: Posed, mistake: Mistake) -> bool:
        """Say whether an answer with just this mistake passes a case."""
        return self.with_mistake_in(check, posed, mistake)[1] == "pass"

    def with_mistake_in(self, check: Check, posed: Posed, mistake: Mistake) -> tuple[tuple[Outcome, ...], str]:
        """Return the outcomes and the status of a case for an answer with just this mistake; cached."""
        if mistake.name not in posed.of_mistakes:
            outcomes = tuple(self.reference_with(mistake)(calls_of(posed.case)))
            posed.of_mistakes[mistake.name] = outcomes, compare(posed.case, check.same, posed.expected, outcomes)[0]
        return posed.of_mistakes[mistake.name]


def verdict(posed: Posed, check: Check, replies: tuple[Reply, ...]) -> Verdict:
    """Return the verdict of one case; cached for short replies."""
    size = sum(len(reply) if isinstance(reply, bytes) else MAX_CACHED_BYTES for reply in replies)
    known = posed.verdicts.get(replies) if size < MAX_CACHED_BYTES else None
    if known is not None:
        return known
    outcomes = tuple(map(outcome_of, replies))
    made = Verdict(posed, outcomes, *compare(posed.case, check.same, posed.expected, outcomes))
    if size < MAX_CACHED_BYTES and len(posed.verdicts) < CACHED_VERDICTS:
        posed.verdicts[replies] = made
    return made


def blanket_refusers(verdicts: list[Verdict]) -> set[str]:
    """Return the functions that were called with valid inputs and raised a ValueError for every one of them."""
    met: dict[str, bool] = {}
    for verdict in verdicts:
        if not isinstance(verdict.case, Refusal):
            for call, outcome in zip(calls_of(verdict.case), verdict.outcomes, strict=True):
                refused = isinstance(outcome, Raised) and outcome.is_a("ValueError")
                met[call.function] = met.get(call.function, True) and refused
    return {name for name, always in met.items() if always}


def deny_blanket_refusal(verdict: Verdict, refusers: set[str]) -> Verdict:
    """Return a verdict, but `wrong` if it passed by a ValueError that the function raises for valid inputs too."""
    case = verdict.case
    if not isinstance(case, Refusal) or verdict.status != "pass" or case.call.function not in refusers:
        return verdict
    words = Difference("it raises a ValueError for valid inputs too")
    return Verdict(verdict.posed, verdict.outcomes, "wrong", words)


def check_verdict(
    check: Check, verdicts: list[Verdict], mistake: Mistake | None, explained: list[Verdict]
) -> CheckVerdict:
    """Return the result of one check, of whose failed cases the mistake explains some.

    The failed case to show is one that the mistake explains, if it can be of the first broken promise: the first with a
    ratio, or else the first.
    """
    failed = [verdict for verdict in verdicts if verdict.status != "pass"]
    promised = dict.fromkeys(promise_of(verdict.case, check) for verdict in verdicts)
    broken = dict.fromkeys(promise_of(verdict.case, check) for verdict in failed)
    kept = tuple(name for name in promised if name not in broken)
    score = round(check.points * len(kept) / len(promised), 2)
    shown = [one for one in explained if promise_of(one.case, check) in islice(broken, 1)] or explained or failed
    worst = min(shown, key=lambda one: one.difference is None or one.difference.ratio is None, default=None)
    return CheckVerdict(
        check, score, len(verdicts) - len(failed), len(verdicts), worst, mistake, kept, tuple(broken),
        more_fails=mistake is not None and len(explained) < len(failed),
    )  # fmt: skip


def promise_of(case: AnyCase, check: Check) -> str:
    return case.promise or check.name


def likeliest(check: Check, suspected: list[Mistake], explained: Counter[str]) -> Mistake | None:
    """Return the mistake that explains most checks; ties go to one in the check's own function, then to file order."""
    return max(suspected, key=lambda mistake: (explained[mistake.name], mistake.replaces == check.of), default=None)


def with_mistake(catalog: Catalog, stem: str, mistake: Mistake) -> types.ModuleType:
    """Return the reference module with one function replaced, which its other functions then call too."""
    module = catalog.solution(stem)
    if not hasattr(module, mistake.replaces):
        raise AuthorFault(f"the mistake {mistake.name!r} replaces {mistake.replaces!r}, which {stem} doesn't define")
    if mistake.function is None:
        source = catalog.leaves(stem).solution.read_text("utf-8")
        text = apply_edits(functions_of(source)[mistake.replaces], mistake)
        exec(compile(text, f"<{mistake.name}>", "exec"), vars(module))  # noqa: S102
    else:
        setattr(module, mistake.replaces, mistake.function)
    return module


@functools.cache
def functions_of(text: str) -> dict[str, str]:
    """Return the source of each function of a file's text, without its docstring."""
    lines, found = text.splitlines(keepends=True), dict[str, str]()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            own = lines[node.lineno - 1 : node.end_lineno]
            if ast.get_docstring(node) is not None:
                first = node.body[0]
                own[first.lineno - node.lineno : (first.end_lineno or first.lineno) - node.lineno + 1] = []
            found[node.name] = "".join(own)
    return found


def apply_edits(text: str, mistake: Mistake) -> str:
    """Return a function's source with a mistake's edits.

    >>> apply_edits("lambda x: 2 * x", Mistake("halved", "f", "", "", edits=(("2 * x", "x"),)))
    'lambda x: x'
    """
    for was, now in mistake.edits:
        if (times := text.count(was)) != 1:
            raise AuthorFault(
                f"{mistake.name!r} edits {was!r}, which occurs {times} times in {mistake.replaces}, not once"
            )
        text = text.replace(was, now)
    return text


def compare(
    case: AnyCase, same: Same, expected: Value | None, got: tuple[Outcome, ...]
) -> tuple[str, Difference | None]:
    """Return the status of a case, and the difference if there is one. Only a `Case` needs `expected`."""
    for outcome in got:
        if isinstance(outcome, Lost):
            kind = "not-attempted" if outcome.kind == "missing" else outcome.kind
            return kind, Difference(_LOST_WORDS.get(outcome.kind, outcome.words))
        if isinstance(outcome, Raised) and outcome.is_a("NotImplementedError"):
            return "not-attempted", None
    if isinstance(case, Refusal):
        return compare_refusal(case, *got)
    for outcome in got:
        if isinstance(outcome, Raised):
            return "error", raised_words(outcome)
    values = [outcome for outcome in got if isinstance(outcome, Value)]
    try:
        if isinstance(case, Relation):
            changed = any(value.changed for value in values)
            difference = Difference(CHANGED) if changed else case.holds(*values)
        else:
            difference = value_difference(case, same, expected, values[0])
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        # A comparison may assume the type of the reference's value; a value of another type is simply wrong.
        difference = Difference("the result is of a kind that can't be compared")
    return ("wrong", difference) if difference else ("pass", None)


def compare_refusal(case: Refusal, got: Outcome, twin: Outcome | None = None) -> tuple[str, Difference | None]:
    """Return the status of a case that expects a ValueError, and the difference."""
    if isinstance(got, Value):
        return "wrong", Difference("it returned a value, where a ValueError was expected")
    assert isinstance(got, Raised)
    if not got.is_a("ValueError"):
        return "wrong", Difference(f"it raised {error_words(got.names)}, where a ValueError was expected")
    if not names(got.message, case.keyword):
        return "wrong", Difference(f"it raised a ValueError whose message doesn't name {case.keyword!r}")
    if case.others and all(names(got.message, other) for other in case.others):
        listed = ", ".join(case.others)
        return "wrong", Difference(f"its message also names {listed}, and {case.keyword!r} alone is at fault")
    if isinstance(twin, Raised):
        return "wrong", Difference("it raises an error for the valid call beside it too")
    return "pass", None


def names(message: str, keyword: str) -> bool:
    """Say whether a message holds a keyword, in upper or lower case, at the start of a word or after an underscore.

    >>> names("Ranks are whole", "rank"), names("frank", "rank"), names("lora_rank", "rank")
    (True, False, True)
    """
    return re.search(r"(?<![a-z0-9])" + re.escape(keyword.lower()), message.lower()) is not None


def with_list(outcome: Outcome, expected: object) -> Outcome:
    """Return an outcome whose array is a list, if a list is expected: a personal answer may be written as either."""
    value = outcome.value if isinstance(outcome, Value) else None
    if not isinstance(expected, list | tuple) or not (torch.is_tensor(value) or isinstance(value, np.ndarray)):
        return outcome
    return Value(value.tolist())


def value_difference(case: Case, same: Same, expected: Value | None, got: Value) -> Difference | None:
    """Return how an outcome differs from the reference's: a changed input, other numbers or other gradients."""
    assert expected is not None
    if case.pure and got.changed:
        return Difference(CHANGED)
    difference = same(expected.value, got.value)
    if difference or not case.call.backward:
        return difference
    if got.gradients is None:
        return Difference("the result can't be differentiated: the graph was cut")
    return gradient_difference(same, expected.gradients or (), got.gradients)


def gradient_difference(same: Same, expected: tuple[object, ...], got: tuple[object, ...]) -> Difference | None:
    if len(got) != len(expected):
        return Difference("the gradients are not one for each input")
    for right, mine in zip(expected, got, strict=True):
        if right is None and mine is not None:
            return Difference("a gradient reached an input that should get none")
        if right is not None and mine is None:
            return Difference("an input got no gradient")
        difference = same(right, mine) if right is not None else None
        if difference:
            return Difference("the gradient differs: " + difference.words, difference.largest, difference.ratio)
    return None


def raised_words(outcome: Raised) -> Difference:
    """Return words with the error's class and line, without its message, which may quote a hidden input."""
    place = f" at line {outcome.line} of its cell" if outcome.line else ""
    return Difference(f"it raised {error_words(outcome.names)}{place}")


def alike(mine: Outcome, theirs: Outcome, same: Same) -> bool:
    """Say whether two outcomes are equal within the check's tolerance."""
    if isinstance(mine, Value) and isinstance(theirs, Value):
        if bool(mine.changed) != bool(theirs.changed) or (mine.gradients is None) != (theirs.gradients is None):
            return False
        pairs = [(theirs.value, mine.value), *zip(theirs.gradients or (), mine.gradients or (), strict=False)]
        if len(theirs.gradients or ()) != len(mine.gradients or ()):
            return False
        return all(equal(right, left, same) for right, left in pairs)
    if isinstance(mine, Raised) and isinstance(theirs, Raised):
        return mine.names[:1] == theirs.names[:1]
    return False


def equal(right: object, left: object, same: Same) -> bool:
    """Say whether two values are the same, even if they aren't of the type that `same` expects."""
    if right is None or left is None:
        return right is left
    if same in (integer, whole) and type(right) is not int:
        return (same is whole or type(right) is type(left)) and Close()(right, left) is None
    try:
        return same(right, left) is None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False


__all__ = [
    "Ask", "CheckVerdict", "Oracle", "Posed", "Verdict", "compare", "draw_cases", "local_ask", "promise_of",
    "with_mistake",
]  # fmt: skip
