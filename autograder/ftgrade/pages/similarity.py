"""Answers that students of a class wrote alike, compared by their form, which a judge has read and a report holds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from ftgrade.intake.forms import NAME, Forms

LONG_ENOUGH = 80  # parts; a formula in one line with its signature has 30 to 60, and many rightly write it the same
ALIKE = 0.9
FEW, FEW_OF_MANY = 3, 0.02  # rare: no more students than this number, or than this share of the class
SMALL_CLASS = 10  # among fewer answers nobody can tell what is common
MAX_COMPARED = 3_000  # parts; longer answers are only looked up as they are, since comparing takes their square


@dataclass(frozen=True, slots=True)
class Echo:
    """Students whose answers to one function are alike.

    `students` wrote exactly the same after normalising, and nobody else did; so did `others`, if there are any, and
    `likeness` is the share of parts that the two answers have in common, in order: 2 * common / (parts of one + parts
    of the other), 1 within one group. `near` counts who wrote at least nearly so, `of` all who wrote this function.
    """

    function: str
    students: tuple[str, ...]
    others: tuple[str, ...]
    likeness: float
    parts: int
    near: int
    of: int


# ----------------------------------------------------------------------------------------------------------- comparing


def similar_answers(forms: Iterable[tuple[str, Forms]], functions: Sequence[str]) -> list[Echo]:
    """Return the answers of a class that are alike, long enough and rare, the most alike first."""
    answers: dict[str, dict[str, tuple[str, ...]]] = {function: {} for function in functions}
    for student, own in forms:
        for function in functions:
            if parts := own.get(function):
                answers[function][student] = parts
    found = [echo for function in functions for echo in echoes(function, answers[function])]
    return sorted(found, key=lambda echo: (-echo.likeness, -echo.parts, echo.students, echo.others))


def echoes(function: str, answers: Mapping[str, tuple[str, ...]]) -> list[Echo]:
    """Return who wrote one function alike; nothing in a class too small to tell what is common."""
    if len(answers) < SMALL_CLASS:
        return []
    few = max(FEW, int(FEW_OF_MANY * len(answers)))
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for student, parts in sorted(answers.items()):
        if len(parts) >= LONG_ENOUGH:
            groups[parts].append(student)
    forms = sorted(groups, key=len)
    who = [tuple(groups[form]) for form in forms]
    pairs = alike_pairs([mask_names(form) for form in forms if len(form) <= MAX_COMPARED])
    near = count_neighbours(who, pairs)
    found = [
        Echo(function, who[one], (), 1.0, len(forms[one]), near[one], len(answers))
        for one in range(len(forms))
        if 2 <= len(who[one]) <= few
    ]
    return found + [
        Echo(function, who[one], who[other], likeness, len(forms[one]), max(near[one], near[other]), len(answers))
        for one, other, likeness in pairs
        if max(near[one], near[other]) <= few
    ]


def count_neighbours(who: Sequence[tuple[str, ...]], pairs: Iterable[tuple[int, int, float]]) -> list[int]:
    """Return for each form how many students wrote it or one that is alike.

    >>> count_neighbours([("ada", "bob"), ("cyd",), ("dan",)], [(0, 1, 0.95)])
    [3, 3, 1]
    """
    counts = [len(students) for students in who]
    for one, other, _ in pairs:
        counts[one] += len(who[other])
        counts[other] += len(who[one])
    return counts


def mask_names(form: tuple[str, ...]) -> tuple[str, ...]:
    """Return a form in which every name of the answer's own is the same, so that one more variable shifts nothing."""
    return tuple(NAME if part.startswith(NAME) and part[len(NAME) :].isdecimal() else part for part in form)


def alike_pairs(forms: Sequence[tuple[str, ...]]) -> list[tuple[int, int, float]]:
    """Return the places of the forms that are alike, with their likeness; forms must be sorted by length.

    Only forms whose lengths allow it are compared: 2 * shorter / (shorter + longer) bounds the likeness.

    >>> alike_pairs([("a",) * 9 + ("b",), ("a",) * 9 + ("c",), ("a",) * 20])
    [(0, 1, 0.9)]
    """
    kinds = dict.fromkeys(part for form in forms for part in form)
    letters = {part: chr(min(0x100 + place, 0x10FFFF)) for place, part in enumerate(kinds)}
    texts = ["".join(map(letters.__getitem__, form)) for form in forms]
    found: list[tuple[int, int, float]] = []
    end = 0
    for one, text in enumerate(texts):
        while end < len(texts) and len(texts[end]) * ALIKE <= len(text) * (2 - ALIKE):
            end += 1
        others = texts[one + 1 : end]
        likeness = cdist([text], others, scorer=Indel.normalized_similarity, score_cutoff=ALIKE)[0] if others else []
        found += [(one, one + 1 + place, round(float(value), 3)) for place, value in enumerate(likeness) if value > 0]
    return found


__all__ = ["Echo", "similar_answers"]
