"""The ledger of a problem's promises: each sentence of a contract, the cases that test it, the slips that break it."""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftgrade.catalog import Catalog
from ftgrade.judging.judge import Oracle, promise_of
from ftgrade.judging.problem import calls_of

SENTENCE_END = re.compile(r"(?<=[.:!])\s+(?=[A-Z`(])")


@dataclass(frozen=True, slots=True)
class Entry:
    """One promise: its name, the sentences that say it, how many cases test it, and the slips that break it.

    `alone` is how many of these slips break nothing else.
    """

    name: str
    quotes: tuple[str, ...]
    cases: int
    slips: tuple[str, ...]
    alone: int

    @property
    def is_tested(self) -> bool:
        return self.cases > 0 and bool(self.slips) and bool(self.quotes)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The promises of one problem, and a sentence for everything that is wrong with them."""

    entries: tuple[Entry, ...]
    troubles: tuple[str, ...]


def keep_ledger(catalog: Catalog, oracle: Oracle, seed: int, broken: Mapping[str, tuple[str, ...]]) -> Ledger:
    """Return the ledger of a problem; `broken` are the promises that each slip breaks, by the slip's name."""
    problem, leaves = oracle.problem, catalog.leaves(oracle.stem)
    contract = list(contract_sentences(leaves.solution.read_text("utf-8"), set(called_functions(oracle, seed))))
    statement = plain(re.sub(r"^# ?", "", leaves.source.read_text("utf-8"), flags=re.MULTILINE))
    cases = Counter(
        promise_of(posed.case, check)
        for position, check in enumerate(problem.checks)
        for posed in oracle.posed(position, seed)
    )
    quotes: dict[str, list[str]] = {name: [] for name in cases}
    for one in problem.promises:
        quotes.setdefault(one.name, []).append(one.quote)
    entries = tuple(
        Entry(
            name,
            tuple(said),
            cases[name],
            tuple(slip for slip, found in broken.items() if name in found),
            sum(found == (name,) for found in broken.values()),
        )
        for name, said in quotes.items()
    )
    return Ledger(entries, tuple(troubles(entries, contract, statement)))


def troubles(entries: tuple[Entry, ...], contract: list[str], statement: str) -> Iterator[str]:
    """Yield a sentence for each promise that nothing tests, and for each sentence that no promise quotes."""
    said = [plain(quote) for one in entries for quote in one.quotes]
    for one in entries:
        for quote in map(plain, one.quotes):
            if not any(quote in sentence for sentence in contract) and quote not in statement:
                yield f"the promise {one.name} quotes {quote!r}, which neither contract nor statement says"
        if not one.quotes:
            yield f"the promise {one.name} quotes no sentence: problem.promise({one.name!r}, ...)"
        if not one.cases:
            yield f"the promise {one.name} has no case"
        if not one.slips:
            yield f"no slip breaks the promise {one.name}: add one"
    for sentence in contract:
        if not any(quote in sentence for quote in said):
            yield f"no promise quotes the contract's {sentence!r}: test it, or take it out"


def called_functions(oracle: Oracle, seed: int) -> Iterator[str]:
    """Yield the functions that the cases call."""
    for position in range(len(oracle.problem.checks)):
        for posed in oracle.posed(position, seed):
            yield from (call.function for call in calls_of(posed.case))


def contract_sentences(text: str, functions: set[str]) -> Iterator[str]:
    """Yield the sentences of these functions' docstrings, without their examples.

    >>> list(contract_sentences("def f():\\n    'Return 1. It is odd.'", {"f"}))
    ['Return 1.', 'It is odd.']
    """
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name in functions:
            words = re.sub(r"^[ \t]*>>>.*?(?=\n[ \t]*\n|\Z)", "", ast.get_docstring(node) or "", flags=re.M | re.S)
            for paragraph in re.split(r"\n\s*\n", words):
                said = SENTENCE_END.split(plain(paragraph))
                yield from (one for one in said if one not in ("", "Errors:", "Always:"))


def plain(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())


__all__ = ["Entry", "Ledger", "keep_ledger"]
