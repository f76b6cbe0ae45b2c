"""Outcomes and the reference to verdicts: whether a case holds, and which known mistake the answers coincide with."""

import ast
import functools
import math
import time
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftgrade.catalog import Catalog
from ftgrade.errors import AuthorFault
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
    load_problem,
)  # fmt: skip
from ftgrade.sandbox import channel, worker
from ftgrade.sandbox.channel import Call, Lost, Outcome, Raised, Reply, Value, outcome_of

Ask = Callable[[Sequence[Call]], Sequence[Reply]]
"""Answer calls, in order."""
TrustedAsk = Callable[[Sequence[Call]], list[Outcome]]
"""The same from a process that is trusted: nothing in it is left to be read."""

CACHED_DRAWS = 256
"""Of how many pairs of a check and a seed the cases are kept, with all that doesn't depend on who answers them."""
CACHED_VERDICTS, MAX_CACHED_BYTES = 16, 8_000
"""How many verdicts are kept of one case, and how long the replies that they are about may be."""

_LOST_WORDS = {
    "timeout": "it ran longer than the limit",
    "killed": "it ended the whole process (memory, recursion, or an exit)",
    "unsendable": "it returned something too large or too deep to read",
    "protocol": "it answered in a form that the grader doesn't read",
    "not-run": "it was not run, because the function had failed to return before",
}


@dataclass(slots=True)
class Posed:
    """A case with the reference's answer to it, what that took, what each mistake answers, and what was judged before.

    The seconds are unknown where the reference isn't asked: mistakes are tried on quick cases first. Two students who
    send the same words get the same verdict, which is reached once.
    """

    case: AnyCase
    expected: Value | None = None
    seconds: float = math.inf
    mistake_outcomes: dict[str, tuple[Outcome, ...]] = field(default_factory=dict[str, tuple[Outcome, ...]])
    verdicts: "dict[tuple[Reply, ...], Verdict]" = field(default_factory=dict[tuple[Reply, ...], "Verdict"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one case: `pass`, `wrong`, `error`, `not-attempted`, or the kind of a `Lost` outcome."""

    posed: Posed
    outcomes: tuple[Outcome, ...]
    status: str
    difference: Difference | None = None
    explained: dict[str, bool] = field(default_factory=dict[str, bool], compare=False)
    """By a mistake's name, whether it fails this case in this very way, as far as that was asked."""

    @property
    def case(self) -> AnyCase:
        return self.posed.case


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """What became of one check: its score, its first failed case, and the mistake that explains every failed one."""

    check: Check
    score: float
    passed: int
    cases: int
    worst: Verdict | None
    mistake: Mistake | None


def local_ask(module: types.ModuleType) -> TrustedAsk:
    """Return an `Ask` over trusted functions in this process, through the same code that answers for students."""
    return lambda calls: [channel.outcome_of(worker.call(call.request, vars(module))) for call in calls]


def used_by(name: str, namespace: dict[str, Any]) -> set[str]:
    """Return the names of a module that a function of it may look up, itself and those of what it calls included.

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
    """Yield a check's cases for one seed; checks draw from streams of their own, so none shifts another's values."""
    return check.cases(np.random.default_rng([seed, position]))


class Oracle:
    """One problem with its reference and mistakes, loaded once for a class."""

    def __init__(self, catalog: Catalog, stem: str) -> None:
        # As at the other end: the same last digits, and no threads that wait for each other over a few numbers, which
        # had made the reference of problem 1 twenty times slower.
        torch.set_num_threads(1)
        self.problem = load_problem(catalog, stem)
        self.catalog = catalog
        self.stem = stem
        self.digest = catalog.digest(stem)  # of what is loaded here, whatever happens to the files later
        solution = catalog.solution(stem)
        self.reference = local_ask(solution)
        self.uses = {name: used_by(name, vars(solution)) for name in vars(solution)}
        self.wrong_references: dict[str, TrustedAsk] = {}
        self.posed = functools.lru_cache(CACHED_DRAWS)(self.pose)

    def pose(self, position: int, seed: int) -> list[Posed]:
        """Return the cases of one check for a seed. Raises AuthorFault if there are none, or one without an answer."""
        check = self.problem.checks[position]
        found = [self.with_answer(case, check) for case in draw_cases(check, position, seed)]
        if not found:
            raise AuthorFault(f"the check {check.name!r} of {self.stem} drew no case for a seed")
        return found

    def with_answer(self, case: AnyCase, check: Check) -> Posed:
        """Return a case with the reference's answer, where it asks for that."""
        if not isinstance(case, Case):
            return Posed(case)
        begun = time.perf_counter()
        (expected,) = self.reference([case.call])
        if not isinstance(expected, Value):
            raise AuthorFault(f"the reference of {self.stem} can't answer {case.words!r} of {check.name!r}: {expected}")
        return Posed(case, expected, time.perf_counter() - begun)

    def judge(self, ask: Ask, seeds: list[int]) -> list[CheckVerdict]:
        """Return a verdict for every check, in order, over all seeds.

        A check gives all its points if every case of every seed holds, else none. Where several known mistakes
        coincide with the answers, the one that explains most checks is named.
        """
        verdicts = [self.verdicts(check, position, ask, seeds) for position, check in enumerate(self.problem.checks)]
        everything = blanket_refusers([verdict for found in verdicts for verdict in found])
        verdicts = [[deny_blanket_refusal(verdict, everything) for verdict in found] for found in verdicts]
        suspects = list(self.suspects_by_check(verdicts))
        explained = Counter(mistake.name for found in suspects for mistake in found)
        return [
            check_verdict(check, found, likeliest(check, suspected, explained))
            for check, found, suspected in zip(self.problem.checks, verdicts, suspects, strict=True)
        ]

    def personal_answer(self, seed: int, ask: Ask) -> object:
        """Return the answer to the personal question of a seed, by the reference or by a mistake in it."""
        assert self.problem.own is not None
        question = self.problem.own.draw(np.random.default_rng(seed))
        outcome = outcome_of(*ask([question.call]))
        return question.part(outcome.value) if isinstance(outcome, Value) else None

    def judge_personal(self, ask: Ask, seed: int) -> CheckVerdict:
        """Return the verdict on a student's own number, with the mistake that gives the student's answer."""
        assert self.problem.own is not None
        check, case = self.problem.own.check, Case("your own numbers", Call(PERSONAL))
        expected = self.personal_answer(seed, self.reference)
        if expected is None:
            raise AuthorFault(f"the reference of {self.stem} can't answer its personal question")
        outcome = outcome_of(*ask([case.call]))
        status, difference = compare(case, check.same, Value(expected), (outcome,))
        if status == "pass":
            return CheckVerdict(check, check.points, 1, 1, None, None)
        # Neither the difference nor the ratio is told: with one of them the number could be had without the work.
        told = Difference("it isn't the number that your statement asks for") if status == "wrong" else difference
        mistake = self.personal_mistake(outcome, seed) if status == "wrong" else None
        return CheckVerdict(check, 0.0, 0, 1, Verdict(Posed(case), (outcome,), status, told), mistake)

    def personal_mistake(self, outcome: Outcome, seed: int) -> Mistake | None:
        """Return the first mistake that answers the personal question as the student did."""
        return next(
            (
                mistake
                for mistake in self.problem.mistakes
                if self.answers_personal(outcome, seed, self.reference_with(mistake))
            ),
            None,
        )

    def answers_personal(self, outcome: Outcome, seed: int, ask: Ask | None = None) -> bool:
        """Say whether a student's answer is the one to the personal question of a seed."""
        expected = self.personal_answer(seed, ask or self.reference)
        if self.problem.own is None or expected is None or not isinstance(outcome, Value):
            return False
        return equal(expected, outcome.value, self.problem.own.check.same)

    def verdicts(self, check: Check, position: int, ask: Ask, seeds: list[int]) -> list[Verdict]:
        """Return the verdicts of one check's cases."""
        # The reference went first: a case that it can't answer is the author's fault whatever the student did.
        asked = [posed for seed in seeds for posed in self.posed(position, seed)]
        answers = iter(ask([call for posed in asked for call in calls_of(posed.case)]))
        return [verdict(posed, check, tuple(islice(answers, len(calls_of(posed.case))))) for posed in asked]

    def suspects_by_check(self, verdicts: list[list[Verdict]]) -> Iterator[list[Mistake]]:
        """Yield the suspects of each check: those that explain an earlier one too, and only without such all others."""
        known: dict[str, Mistake] = {}
        for check, found in zip(self.problem.checks, verdicts, strict=True):
            suspects = self.suspects(check, found, known.values())
            suspects = suspects or self.suspects(check, found, self.problem.mistakes)
            known |= {mistake.name: mistake for mistake in suspects}
            yield suspects

    def suspects(self, check: Check, verdicts: list[Verdict], mistakes: Iterable[Mistake]) -> list[Mistake]:
        """Return those of these mistakes whose outcomes coincide with the student's on every failed case."""
        failed = sorted((one for one in verdicts if one.status != "pass"), key=lambda one: one.posed.seconds)
        lost = any(isinstance(outcome, Lost) for verdict in failed for outcome in verdict.outcomes)
        if not failed or lost:
            return []
        reached = {name for call in calls_of(failed[0].case) for name in self.uses.get(call.function, ())}
        return [
            mistake
            for mistake in mistakes
            if mistake.replaces in reached and all(self.explains(check, verdict, mistake) for verdict in failed)
        ]

    def reference_with(self, mistake: Mistake) -> TrustedAsk:
        """Return the reference with this mistake in it, made at its first use."""
        if mistake.name not in self.wrong_references:
            self.wrong_references[mistake.name] = local_ask(with_mistake(self.catalog, self.stem, mistake))
        return self.wrong_references[mistake.name]

    def explains(self, check: Check, verdict: Verdict, mistake: Mistake) -> bool:
        """Say whether a mistake fails a case in the very way in which the student did, which is found out once."""
        if mistake.name not in verdict.explained:
            verdict.explained[mistake.name] = self.coincides(check, verdict, mistake)
        return verdict.explained[mistake.name]

    def coincides(self, check: Check, verdict: Verdict, mistake: Mistake) -> bool:
        """Say whether a mistake's outcomes are the student's, and fail as they do."""
        posed = verdict.posed
        if mistake.name not in posed.mistake_outcomes:
            posed.mistake_outcomes[mistake.name] = tuple(self.reference_with(mistake)(calls_of(posed.case)))
        outcomes = posed.mistake_outcomes[mistake.name]
        if not all(alike(mine, theirs, check.same) for mine, theirs in zip(verdict.outcomes, outcomes, strict=True)):
            return False
        return compare(posed.case, check.same, posed.expected, outcomes)[0] == verdict.status


def verdict(posed: Posed, check: Check, answers: tuple[Reply, ...]) -> Verdict:
    """Return the verdict of one case."""
    size = sum(len(answer) if isinstance(answer, bytes) else MAX_CACHED_BYTES for answer in answers)
    known = posed.verdicts.get(answers) if size < MAX_CACHED_BYTES else None
    if known is not None:
        return known
    outcomes = tuple(map(outcome_of, answers))
    made = Verdict(posed, outcomes, *compare(posed.case, check.same, posed.expected, outcomes))
    if size < MAX_CACHED_BYTES and len(posed.verdicts) < CACHED_VERDICTS:
        posed.verdicts[answers] = made
    return made


def blanket_refusers(verdicts: list[Verdict]) -> set[str]:
    """Return the functions that met no valid input which they didn't answer with a ValueError."""
    met: dict[str, bool] = {}
    for verdict in verdicts:
        if not isinstance(verdict.case, Refusal):
            for call, outcome in zip(calls_of(verdict.case), verdict.outcomes, strict=True):
                refused = isinstance(outcome, Raised) and outcome.is_a("ValueError")
                met[call.function] = met.get(call.function, True) and refused
    return {name for name, always in met.items() if always}


def deny_blanket_refusal(verdict: Verdict, everything: set[str]) -> Verdict:
    """Return a verdict in which who refuses everything has refused nothing in particular."""
    if not isinstance(verdict.case, Refusal) or verdict.status != "pass":
        return verdict
    if verdict.case.call.function not in everything:
        return verdict
    words = Difference("it raises a ValueError for valid inputs too")
    return Verdict(verdict.posed, verdict.outcomes, "wrong", words)


def check_verdict(check: Check, verdicts: list[Verdict], mistake: Mistake | None) -> CheckVerdict:
    """Return what became of one check as a whole."""
    failed = [verdict for verdict in verdicts if verdict.status != "pass"]
    score = 0.0 if failed else check.points
    return CheckVerdict(check, score, len(verdicts) - len(failed), len(verdicts), most_informative(failed), mistake)


def likeliest(check: Check, suspected: list[Mistake], explained: Counter[str]) -> Mistake | None:
    """Return the mistake that explains most checks; among equals one in the check's own function, then file order."""
    return max(suspected, key=lambda mistake: (explained[mistake.name], mistake.replaces == check.of), default=None)


def with_mistake(catalog: Catalog, stem: str, mistake: Mistake) -> types.ModuleType:
    """Return the reference with one function changed, so that its other functions call the wrong one too."""
    module = catalog.solution(stem)
    if not hasattr(module, mistake.replaces):
        raise AuthorFault(f"the mistake {mistake.name!r} replaces {mistake.replaces!r}, which {stem} doesn't define")
    if mistake.function is None:
        text = apply_edits(function_text(catalog.leaves(stem).solution, mistake.replaces), mistake)
        exec(compile(text, f"<{mistake.name}>", "exec"), vars(module))  # noqa: S102
    else:
        setattr(module, mistake.replaces, mistake.function)
    return module


def function_text(path: Path, name: str) -> str:
    """Return the source of one function of a file, without its docstring."""
    text = path.read_text("utf-8")
    node = next(one for one in ast.parse(text).body if isinstance(one, ast.FunctionDef) and one.name == name)
    lines = text.splitlines(keepends=True)
    if ast.get_docstring(node) is not None:
        first = node.body[0]
        for number in range(first.lineno - 1, first.end_lineno or first.lineno):
            lines[number] = "\n"
    return "".join(lines[node.lineno - 1 : node.end_lineno])


def apply_edits(text: str, mistake: Mistake) -> str:
    """Return a function's source with a mistake's edits.

    >>> apply_edits("lambda x: 2 * x", Mistake("halved", "f", "", "", edits=(("2 * x", "x"),)))
    'lambda x: x'
    """
    for was, now in mistake.edits:
        if (times := text.count(was)) != 1:
            raise AuthorFault(
                f"{mistake.name!r} edits {was!r}, which stands {times} times in {mistake.replaces}, not once"
            )
        text = text.replace(was, now)
    return text


def compare(
    case: AnyCase, same: Same, expected: Outcome | None, got: tuple[Outcome, ...]
) -> tuple[str, Difference | None]:
    """Return the status of a case and, where there is one, the difference."""
    for outcome in got:
        if isinstance(outcome, Lost):
            kind = "not-attempted" if outcome.kind == "missing" else outcome.kind
            return kind, Difference(_LOST_WORDS.get(outcome.kind, outcome.words))
        if isinstance(outcome, Raised) and outcome.is_a("NotImplementedError"):
            return "not-attempted", None
    if isinstance(case, Refusal):
        return compare_refusal(case, got[0])
    for outcome in got:
        if isinstance(outcome, Raised):
            return "error", raised_words(outcome)
    values = [outcome for outcome in got if isinstance(outcome, Value)]
    try:
        difference = values_differ(case, same, expected, values)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        # Sameness knows the reference's kind of value; whatever else is returned is no answer, and no fault of ours.
        difference = Difference("the result is of a kind that can't be compared")
    return ("wrong", difference) if difference else ("pass", None)


def values_differ(
    case: Case | Relation, same: Same, expected: Outcome | None, values: list[Value]
) -> Difference | None:
    """Return how values fail a case."""
    if isinstance(case, Relation):
        return case.holds(*values)
    assert isinstance(expected, Value)
    return value_difference(case, same, expected, values[0])


def compare_refusal(case: Refusal, got: Outcome) -> tuple[str, Difference | None]:
    """Return the status of a case that asks for an error."""
    if isinstance(got, Value):
        return "wrong", Difference("it returned a value, where a ValueError was expected")
    assert isinstance(got, Raised)
    if not got.is_a("ValueError"):
        return "wrong", Difference(f"it raised {got.names[0]}, where a ValueError was expected")
    if case.keyword.lower() not in got.message.lower():
        return "wrong", Difference(f"it raised a ValueError whose message doesn't name {case.keyword!r}")
    return "pass", None


def value_difference(case: Case, same: Same, expected: Value, got: Value) -> Difference | None:
    """Return how a value differs from the reference's, in its purity, its numbers or its gradients."""
    if case.pure and got.changed:
        return Difference("it changed one of its inputs; work on a copy")
    difference = same(expected.value, got.value)
    if difference or not case.call.backward:
        return difference
    if got.gradients is None:
        return Difference("the result can't be differentiated: the graph was cut")
    return gradient_difference(same, expected.gradients or (), got.gradients)


def gradient_difference(same: Same, expected: tuple[object, ...], got: tuple[object, ...]) -> Difference | None:
    for right, mine in zip(expected, got, strict=False):
        if right is None and mine is not None:
            return Difference("a gradient reached an input that should get none")
        if right is not None and mine is None:
            return Difference("an input got no gradient")
        difference = same(right, mine) if right is not None else None
        if difference:
            return Difference("the gradient differs: " + difference.words, difference.largest, difference.ratio)
    return None


def raised_words(outcome: Raised) -> Difference:
    """Return the error's class and line; its message stays out, since a message may quote a hidden input."""
    place = f" at line {outcome.line} of its cell" if outcome.line else ""
    return Difference(f"it raised {outcome.names[0] if outcome.names else 'an error'}{place}")


def alike(mine: Outcome, theirs: Outcome, same: Same) -> bool:
    """Say whether two outcomes are the same thing, within the check's tolerance."""
    if isinstance(mine, Value) and isinstance(theirs, Value):
        if bool(mine.changed) != bool(theirs.changed) or (mine.gradients is None) != (theirs.gradients is None):
            return False
        pairs = [(theirs.value, mine.value), *zip(theirs.gradients or (), mine.gradients or (), strict=False)]
        return all(equal(right, left, same) for right, left in pairs)
    if isinstance(mine, Raised) and isinstance(theirs, Raised):
        return mine.names[:1] == theirs.names[:1]
    return False


def equal(right: object, left: object, same: Same) -> bool:
    """Apply a sameness to any two values, of which neither need be of the type that it expects."""
    if right is None or left is None:
        return right is left
    if same is integer and type(right) is not int:
        return type(right) is type(left) and Close()(right, left) is None
    try:
        return same(right, left) is None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False


def most_informative(failed: list[Verdict]) -> Verdict | None:
    """Return the failed case that says most: a difference with a ratio before one without."""
    ranked = sorted(failed, key=lambda verdict: verdict.difference is None or verdict.difference.ratio is None)
    return ranked[0] if ranked else None


__all__ = ["Ask", "CheckVerdict", "Oracle", "Posed", "Verdict", "compare", "draw_cases", "local_ask", "with_mistake"]
