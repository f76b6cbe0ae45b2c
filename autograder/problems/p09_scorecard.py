"""How scorecards are judged: scores in eighths so that ties are exact, and items that vary more than the change."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ftgrade.judging.corners import with_numpy_numbers
from ftgrade.judging.problem import (
    AnyCase,
    Call,
    Case,
    Close,
    Difference,
    Problem,
    Question,
    Refusal,
    Relation,
    Rng,
    Value,
    as_array,
    call,
)

problem = Problem(part="08_evaluation", difficulty=3, importance=5, minutes=75)

Scores = list[float]
Suites = dict[str, Scores]
Points = dict[str, tuple[float, float]]

NAMES = ["add", "capital", "copy", "mood", "reverse", "sort", "story", "upper"]
TINY = 1e-6  # what float32 may leave of an interval without width
NEAR = 2.0**-19  # two numbers that differ do so by more than a millionth
HALF_WIDTH = 0.15  # two bootstraps of 2,000 resamples differ by 3 % (one standard deviation) at these levels


# ------------------------------------------------------------------------------------------------------------ checks


def eighths(rng: Rng, items: int, low: int = 0, high: int = 9) -> Scores:
    """Return scores that floats hold exactly, as do their sums and, for 4 or 8 items, their means."""
    return [int(number) / 8 for number in rng.integers(low, high, size=items)]


WAYS_TO_FAIL = {
    "imp": ("length", "empty", "NaN"),
    "forget": ("suite", "length", "empty", "NaN"),
    "ci": ("level", "n_boot", "length", "empty", "NaN"),
    "se": ("n must", "length", "level"),
    "pareto": ("candidate", "length", "level"),
    "decide": ("NaN", "length", "level"),
}
"""The keywords of a function's errors, filled up with others of this problem that it has no cause to name."""


def refused(check: str, right: Call, *wrong: tuple[str, str, Call]) -> Iterator[Refusal]:
    """Yield the demands that calls are refused by their keyword alone; the first of a keyword has a valid twin."""
    met: set[str] = set()
    for keyword, words, made in wrong:
        others = tuple(other for other in WAYS_TO_FAIL[check] if other != keyword)
        twin = None if keyword in met else right
        yield Refusal(words, made, keyword, twin, others, promise=f"{check}_errors")
        met.add(keyword)


def torn_pairs(
    rng: Rng, function: str, wrap: Callable[[Scores], Any] = list, **more: Any
) -> list[tuple[str, str, Call]]:
    """Return calls with scores that don't pair, with none, and with NaN on each side."""
    scores, nan = eighths(rng, 6), [*eighths(rng, 5), math.nan]
    first, middle = nan[::-1], [*nan[:3], math.nan, *nan[3:5]]
    return [
        (keyword, words, call(function, wrap(before), wrap(after), **more))
        for keyword, words, before, after in (
            ("length", "an item more before", scores, scores[1:]),
            ("length", "an item more after", scores[1:], scores),
            ("length", "one item before, many after", scores[:1], scores),
            ("length", "many items before, one after", scores, scores[:1]),
            ("length", "no item before, some after", [], scores),
            ("length", "some items before, none after", scores[:1], []),
            ("empty", "no items", [], []),
            ("NaN", "a NaN after", scores, nan),
            ("NaN", "a NaN before", nan, scores),
            ("NaN", "a NaN after, at the first item", scores, first),
            ("NaN", "a NaN before, at the first item", first, scores),
            ("NaN", "a NaN after, in the middle", scores, middle),
            ("NaN", "a NaN before, in the middle", middle, scores),
            ("NaN", "a NaN at both scores of an item", nan, nan),
            ("NaN", "one item of NaN", scores[:1], [math.nan]),
        )
    ]


problem.promise("imp", "Return by how much the mean score got better: positive is good, whichever way the score "
    "points.",
    "`before` and `after` hold one score for each item, the same items in the same order.",
    "Where a lower score is better (a loss, a perplexity) the change counts the other way round.")  # fmt: skip
problem.promise("imp_errors", "ValueError naming `length` (they differ, even if one holds nothing), `empty` (no items "
    "in both) or `NaN` (a score that is none).")  # fmt: skip


@problem.check(
    "imp", points=1, of="improvement", title="improvement",
    concerns=["the sign", "scores that are better when lower", "pairs that don't pair", "NaN"],
    next_step="Say in words what got better, then which difference is positive there.",
)  # fmt: skip
def imp(rng: Rng) -> Iterator[AnyCase]:
    before, after = eighths(rng, 8), [*eighths(rng, 7), 2.5]
    yield Case("higher is better", call("improvement", before, after))
    yield Case("lower is better", call("improvement", before, after, higher_is_better=False))
    yield Case("it got worse", call("improvement", [score + 2 for score in after], before))
    yield Case("one item", call("improvement", before[:1], after[-1:], False))
    for words, one, other in (
        ("a hundred items", eighths(rng, 100), eighths(rng, 100)),
        ("scores of both signs", eighths(rng, 8, -72, 73), eighths(rng, 8, -72, 73)),
        ("nothing changed", before, before),
        ("a change of less than a thousandth", before, [before[0] + 2.0**-9, *before[1:]]),
        ("scores of 0 and 1", [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]),
    ):
        yield Case(words, call("improvement", one, other), once=True)
        yield Case(f"{words}, lower is better", call("improvement", one, other, higher_is_better=False), once=True)
    lower = torn_pairs(rng, "improvement", higher_is_better=False)
    yield from refused("imp", call("improvement", before, after), *torn_pairs(rng, "improvement"), *lower)


def suites(rng: Rng, count: int) -> tuple[Suites, Suites]:
    """Return scores of suites of different sizes before and after, in an order that isn't the alphabet's."""
    names = [str(name) for name in rng.permutation(NAMES)[:count]]
    sizes = [int(size) for size in rng.permutation([4, 8, 16, 32])[:count]]
    before = {name: eighths(rng, size, 4) for name, size in zip(names, sizes, strict=True)}
    lost = [int(number) / 8 for number in rng.permutation([-4, 1, 2, 3])[:count]]
    after = {
        name: [score - loss for score in eighths_like(rng, before[name])]
        for name, loss in zip(names, lost, strict=True)
    }
    return before, after


def eighths_like(rng: Rng, scores: Scores) -> Scores:
    """Return the scores moved by a few eighths that sum to zero."""
    moves = rng.integers(-2, 3, size=len(scores) // 2)
    return [score + int(move) / 8 for score, move in zip(scores, [*moves, *-moves], strict=True)]


def tied(rng: Rng) -> tuple[Suites, Suites]:
    """Return suites of which the three worst lost the same; neither end of the alphabet stands first."""
    early, middle, late = sorted(str(name) for name in rng.choice(NAMES, size=3, replace=False))
    before = {"zog": [2.0] * 4, middle: eighths(rng, 4, 4), late: eighths(rng, 4, 4), early: eighths(rng, 8, 4)}
    lost = int(rng.integers(2, 6)) / 8
    after = {name: [score - (0.0 if name == "zog" else lost) for score in scores] for name, scores in before.items()}
    return before, after


problem.promise("forget",
    "Return what was forgotten: a dict with the keys `per_suite`, `mean`, `worst` and `worst_suite`.",
    "`before` and `after` map the name of a suite to its items' scores.",
    "`per_suite` maps the name to the mean score lost there: positive means forgotten, negative means improved, and "
    "is kept.",
    "`mean` is over suites, each counted once whatever its number of items")  # fmt: skip
WAYS = problem.promise("ways", "`higher_is_better` says for a suite which way its score points; a suite that it "
    "doesn't name, and every suite where it's None, is better when higher.",
    "a loss that rose was forgotten")  # fmt: skip
WORST = problem.promise("worst", "`worst` is the largest of them, and `worst_suite` its name, the first in "
    "alphabetical order among equals.", "among equals the alphabet decides")  # fmt: skip
problem.promise("forget_errors", "ValueError naming `suite` (none at all, not the same in both, or a direction for an "
    "unknown one), and those of `improvement`.")  # fmt: skip


@problem.check(
    "forget", points=2, of="forgetting", title="forgetting",
    concerns=["suites of different sizes", "suites that are better when lower", "a suite that improved", "ties",
              "suites of one side"],
    next_step="Make the table by hand: one row for each suite, then the mean and the largest of its last column.",
)  # fmt: skip
def forget(rng: Rng) -> Iterator[AnyCase]:
    before, after = suites(rng, 4)
    yield Case("four suites, one of them improved", call("forgetting", before, after))
    first, *rest = (str(name) for name in rng.permutation([*before]))
    some = {first: True, rest[0]: False, rest[1]: False}
    yield Case("two suites better when lower", call("forgetting", before, after, some), promise=WAYS)
    yield Case("three equally bad suites", call("forgetting", *tied(rng)), promise=WORST)
    turned = {name: after[name] for name in reversed(after)}
    yield Case("suites in another order after", call("forgetting", before, turned), once=True)
    many = [f"{name}{more}" for name in NAMES[:5] for more in ("", "s")]
    scores = [{name: eighths(rng, int(rng.integers(1, 6)) * 4, -72, 73) for name in many}]
    scores += [{str(name): eighths(rng, len(scores[0][str(name)]), -72, 73) for name in rng.permutation(many)}]
    yield Case("ten suites", call("forgetting", *scores), once=True)
    for words, ways in (
        ("no suite named", {}),
        ("every suite better when lower", dict.fromkeys(before, False)),
        ("every suite better when higher", dict.fromkeys(before, True)),
        ("one suite better when lower", {first: False}),
    ):
        yield Case(words, call("forgetting", before, after, ways), promise=WAYS, once=True)
    yield Case(
        "ten suites, one of them better when lower",
        call("forgetting", *scores, {many[4]: False}),
        promise=WAYS,
        once=True,
    )
    low, high = {"copy": [0.0] * 4, "sort": [-1.0] * 4, "upper": [-9.0] * 4}, [3.0, 8.0, 9.5]
    risen = {name: [score] * 4 for name, score in zip(low, high, strict=True)}
    yield Case("every suite improved by much", call("forgetting", low, risen), promise=WORST, once=True)
    for names in (("b", "a"), ("a", "b")):
        still, better = (
            {name: [score] * 2 for name, score in zip(names, two, strict=True)} for two in ((0.0, 0.0), (0.2, 0.5))
        )
        yield Case(
            "every suite improved, one of them less", call("forgetting", still, better), promise=WORST, once=True
        )
    fallen = call("forgetting", risen, low, dict.fromkeys(low, False))
    yield Case("every loss fell by much", fallen, promise=WORST, once=True)
    for place in range(3):
        near = {name: [1.0] * 4 for name in low}
        less = {name: [0.5 - 2 * NEAR * (at == place)] * 4 for at, name in enumerate(low)}
        yield Case("suites that are nearly equal", call("forgetting", near, less), promise=WORST, once=True)
        lost = [0.5 if at == place else -0.25 for at in range(3)]
        ends = {name: [1.0 - loss] * (4 * at + 4) for at, (name, loss) in enumerate(zip(low, lost, strict=True))}
        start = {name: [1.0] * len(ends[name]) for name in low}
        yield Case("one suite was forgotten", call("forgetting", start, ends), promise=WORST, once=True)
    half = {"sort": [1.0] * 4, "copy": [1.0] * 8, "loss": [1.0] * 4}
    for name in half:
        turned = {other: [1.5 if other == name else 0.5] * len(half[other]) for other in half}
        given = call("forgetting", half, turned, {name: False})
        yield Case("equals of both ways", given, promise=WORST, once=True)
    same = call("forgetting", half, half)
    yield Case("nothing was forgotten", same, promise=WORST, once=True)
    better = {"copy": [*eighths(rng, 3, 6), 1.0]}
    yield Case("one suite, improved", call("forgetting", {"copy": [0.5] * 4}, better), promise=WORST)
    kept = eighths(rng, 2)
    one, two = {"add": kept, "sort": kept}, {"add": kept, "upper": kept}
    for_suites = [
        ("suite", words, call("forgetting", *wrong))
        for words, *wrong in (
            ("a suite before alone", one, {"add": kept}),
            ("a suite after alone", {"add": kept}, one),
            ("other suites", one, two),
            ("no suite", {}, {}),
            ("no suite before", {}, one),
            ("no suite after", one, {}),
            ("a direction for no suite", one, one, {"add": True, "cpoy": True}),
            ("a direction for no suite alone", one, one, {"cpoy": True}),
            ("a lower direction for no suite", one, one, {"cpoy": False}),
            ("a suite before alone, with a direction", one, {"add": kept}, {"sort": False}),
            ("a suite after alone, with a direction", {"add": kept}, one, {"sort": True}),
        )
    ]
    pairs = torn_pairs(rng, "forgetting", lambda scores: {"add": kept, "sort": scores})
    pairs += torn_pairs(rng, "forgetting", lambda scores: {"add": scores, "sort": kept})
    pairs += torn_pairs(rng, "forgetting", lambda scores: {"sort": scores}, higher_is_better={"sort": False})
    yield from refused("forget", call("forgetting", one, one), *for_suites, *pairs)


def same_interval(expected: Any, got: Any) -> Difference | None:
    """Demand the very mean, a half-width within HALF_WIDTH and both ends where they belong."""
    numbers = [as_array(part) for part in got] if isinstance(got, tuple | list) else []
    if len(numbers) != 3 or any(number is None or number.shape != () for number in numbers):
        return Difference("three numbers were expected: mean, low, high")
    (mean, low, high), mine = expected, [float(number) for number in numbers if number is not None]
    if Close()(mean, mine[0]):
        return Difference("the mean differs", abs(mine[0] - mean))
    half = (high - low) / 2
    if not abs((mine[2] - mine[1]) / 2 - half) <= HALF_WIDTH * abs(half) + TINY:
        return Difference(
            "the interval is too wide" if mine[2] - mine[1] > high - low else "the interval is too narrow"
        )
    if not max(abs(mine[1] - low), abs(mine[2] - high)) <= 2 * HALF_WIDTH * abs(half) + TINY:
        return Difference("the interval lies elsewhere")
    return None


def paired_scores(rng: Rng, items: int = 64) -> tuple[Scores, Scores]:
    """Return scores of items that differ much more from each other than by the change."""
    before = rng.normal(0, 3, size=items)
    after = before + rng.normal(0.3, 0.5, size=items)
    return before.round(4).tolist(), after.round(4).tolist()


problem.promise("ci", "Return the mean of the paired differences after - before, and a bootstrap interval for it:",
    "(mean, low, high).", "The interval holds the middle `level` of the means of `n_boot` resamples.",
    "A resample draws as many items as there are, with replacement, and keeps each item's two scores together.",
    "The mean is that of the items themselves, not of the resamples.", "a higher level gives no narrower interval",
    "(Any interval that agrees within the tolerance on about 60 items without outliers, such as mean ± z · standard "
    "error, is accepted too.)")  # fmt: skip
ALIKE = problem.promise("alike", "Where all items changed alike, as a single item does, no resample differs, and the "
    "interval has no width.")  # fmt: skip
SEED = problem.promise("seed", "The same `seed` gives the same interval.")
problem.promise("ci_errors", "those of `improvement`, and ValueError naming `level` (not strictly between 0 and 1, or "
    "NaN) or `n_boot` (below 1).")  # fmt: skip


@problem.check(
    "ci", points=2, of="paired_ci", title="the interval", same=same_interval,
    concerns=["pairs kept together", "the level", "resamples of the right size", "one item", "the seed",
              "levels that are none"],
    next_step="Take the differences first; then resample them, as many as there are, with replacement.",
)  # fmt: skip
def ci(rng: Rng) -> Iterator[AnyCase]:
    before, after = paired_scores(rng)
    seed = int(rng.integers(1000))
    yield Case("95 % of 64 pairs", call("paired_ci", before, after, seed=seed))
    yield Case("80 % of 64 pairs", call("paired_ci", after, before, level=0.8, seed=seed))
    yield Case("90 % of 64 pairs, all given by place", call("paired_ci", before, after, 0.9, 2000, seed), once=True)
    far = [score + 4 for score in after]
    yield Case("an interval far from zero", call("paired_ci", before, far, seed=seed), once=True)
    moved = [score + 0.25 for score in eighths(rng, 8)]
    alike = call("paired_ci", [score - 0.25 for score in moved], moved, n_boot=50)
    yield Case("every item moved alike", alike, promise=ALIKE)
    one = call("paired_ci", eighths(rng, 1), eighths(rng, 1, 9, 20), n_boot=1)
    yield Case("one item, one resample", one, promise=ALIKE)
    for items, change, level, n_boot in (
        (1, -0.3, 0.95, 2000),
        (2, 0.1, 0.001, 2000),
        (3, 0.7, 0.999, 2000),
        (64, -1.3, 0.5, 1),
        (8, 0.0, 0.95, 100),
    ):
        start = eighths(rng, items)
        given = call("paired_ci", start, [score + change for score in start], level, n_boot)
        yield Case(f"{items} that changed alike", given, promise=ALIKE, once=True)
    again = call("paired_ci", before[:20], after[:20], seed=seed)
    change = np.subtract(after[:20], before[:20])

    def repeated(one: Value, two: Value) -> Difference | None:
        if Close(rtol=0, atol=0)(one.value, two.value):
            return Difference("the same seed gave two different intervals")
        mean, low, high = one.value
        error = change.std() / 20**0.5
        # Other promises are about the mean and the width: this one asks only whether it's an interval of these items.
        near = abs(mean - change.mean()) < error and 0.5 < (high - low) / (3.92 * error) < 2
        return None if near else Difference("it's no interval of these items")

    yield Relation("the same seed twice", (again, again), repeated, promise=SEED)
    default = call("paired_ci", before[:20], after[:20])
    zero = call("paired_ci", before[:20], after[:20], 0.95, 2000, 0)
    yield Relation("the default, a seed of 0", (default, zero), repeated, promise=SEED)

    def nested(*values: Value) -> Difference | None:
        widths = [float(value.value[2]) - float(value.value[1]) for value in values]
        return None if 0 < widths[0] <= widths[1] <= widths[2] else Difference("a higher level gives a narrower one")

    levels = [call("paired_ci", before, after, level, 2000, seed) for level in (0.5, 0.9, 0.99)]
    yield Relation("three levels", tuple(levels), nested, once=True)

    def steady(*values: Value) -> Difference | None:
        widths = np.array([float(value.value[2]) - float(value.value[1]) for value in values])
        # With 2,000 resamples the widths vary by 2 % (one standard deviation), with 100 by 10 %.
        near = widths.min() > 0 and widths.std(ddof=1) < 0.055 * widths.mean()
        return None if near else Difference("the width varies from seed to seed as that of fewer resamples does")

    seeds = rng.permutation(1000)[:12]
    drawn = tuple(call("paired_ci", before, after, seed=int(one)) for one in seeds)
    yield Relation("twelve seeds", drawn, steady, once=True)
    scores = eighths(rng, 6)
    right = call("paired_ci", scores, scores[::-1], n_boot=9)
    for_levels = [
        ("level", f"a level {words}", call("paired_ci", scores, scores[::-1], level=level, n_boot=9))
        for words, level in (
            ("in percent", 95.0),
            ("of 0", 0.0),
            ("of 1", 1.0),
            ("below 0", -0.5),
            ("just below 0", -1e-9),
            ("just above 1", 1 + 1e-9),
            ("of NaN", math.nan),
            ("of infinity", math.inf),
            ("of minus infinity", -math.inf),
        )
    ]
    for words, start in (("one item", scores[:1]), ("items that changed alike", scores)):
        for_levels += [
            ("level", f"a level of {bad}, {words}", call("paired_ci", start, start, bad)) for bad in (0.0, 1.0)
        ]
    for_n_boot = [
        ("n_boot", "no resamples", call("paired_ci", start, end, n_boot=number))
        for number in (0, -1, -2)
        for start, end in ((scores, scores[::-1]), (scores, scores), (scores[:1], scores[-1:]))
    ]
    yield from refused("ci", right, *for_levels, *for_n_boot, *torn_pairs(rng, "paired_ci", n_boot=9))


problem.promise("se",
    "Return the standard error of the change in accuracy on n items, of which some were lost and some gained.",
    "An item's difference is -1 if it was right before and is wrong now (lost), 1 if it's the other way round "
    "(gained), and 0 otherwise.",
    "The standard error is the square root of their variance, the mean squared distance from their mean (divided by n, "
    "not by n - 1), over the square root of n.")  # fmt: skip
ALL = problem.promise("all_alike", "where all items changed alike, nothing is left to vary")
problem.promise(
    "se_errors", "ValueError containing `n must` if n is below 1 or below lost + gained, or a count is negative."
)


@problem.check(
    "se", points=1.5, of="paired_binary_se", title="the standard error from counts",
    concerns=["lost and gained items", "the change itself", "items that all changed", "impossible counts"],
    next_step="Write the variance of a number that is -1, 0 or 1 with given frequencies.",
)  # fmt: skip
def se(rng: Rng) -> Iterator[AnyCase]:
    lost, gained = int(rng.integers(3, 9)), int(rng.integers(12, 25))
    n = lost + gained + int(rng.integers(9, 40))
    yield Case("more gained than lost", call("paired_binary_se", lost, gained, n))
    yield with_numpy_numbers(Case("more lost than gained", call("paired_binary_se", gained, lost, lost + gained)))
    yield Case("items only lost", call("paired_binary_se", lost, 0, lost + gained))
    yield Case("items only gained", call("paired_binary_se", 0, gained, n))
    for counts in (
        (1, 0, 2),
        (0, 1, 3),
        (3, 3, 6),
        (1, 2, 3),
        (0, 1, 1_000),
        (998, 1, 1_000),
        (1, 998, 1_000),
        (7, 5, 13),
    ):
        yield Case("a few counts", call("paired_binary_se", *counts), once=True)
    yield Case("named counts", call("paired_binary_se", n=n, gained=gained, lost=lost), once=True)
    yield Case("as many lost as gained", call("paired_binary_se", lost, lost, n), promise=ALL)
    yield Case("one item, gained", call("paired_binary_se", 0, 1, 1), promise=ALL)
    yield Case("every item lost", call("paired_binary_se", lost, 0, lost), promise=ALL)
    for items in (1, 3, 7, 10, 49, 1_000):
        yield Case("every item lost", call("paired_binary_se", items, 0, items), promise=ALL, once=True)
        yield Case("every item gained", call("paired_binary_se", 0, items, items), promise=ALL, once=True)
    yield Case("nothing changed", call("paired_binary_se", 0, 0, n), promise=ALL)
    right = call("paired_binary_se", 3, 4, 9)
    impossible = (
        ("more changes than items", (5, int(rng.integers(5, 9)), 9)),
        ("fewer than none lost", (-1, 3, 9)),
        ("fewer than none gained", (3, -1, 9)),
        ("no items", (0, 0, 0)),
        ("fewer than no items", (0, 0, -4)),
        ("no items, and one gained", (0, 1, 0)),
        ("more lost than items", (10, 0, 9)),
        ("more gained than items", (0, 10, 9)),
        ("one change more than items", (4, 6, 9)),
        ("fewer than none lost, and all gained", (-1, 9, 9)),
        ("fewer than none lost, and more gained than items", (-1, 10, 9)),
        ("fewer than none gained, and more lost than items", (10, -1, 9)),
        ("fewer than none of both", (-1, -1, 9)),
        ("fewer than none of all", (-1, -1, -1)),
    )
    wrong = [("n must", words, call("paired_binary_se", *counts)) for words, counts in impossible]
    yield from refused("se", right, *wrong)


def candidates(rng: Rng) -> Points:
    """Return a front of three with dominated candidates between, in no order."""
    q, f = (np.sort(rng.choice(np.arange(1, 40), size=6, replace=False)) / 8 for _ in range(2))
    names = [str(name) for name in rng.permutation(["adapter", "bitfit", "full", "lora", "prefix", "probe", "prompt"])]
    points = [
        (q[1], f[0]), (q[3], f[2]), (q[5], f[4]),  # the front
        (q[2], f[3]), (q[3], f[4]), (q[1], f[2]), (q[0], f[5]),  # as good in one at most
    ]  # fmt: skip
    return {name: (float(quality), float(lost)) for name, (quality, lost) in zip(names, points, strict=True)}


problem.promise("pareto", "Return the names of the candidates that no other one dominates, in alphabetical order.",
    "`points` maps a candidate's name to (quality, forgetting): more quality and less forgetting are "
    "better.")  # fmt: skip
EQUALS = problem.promise("equals", "One dominates another if it's at least as good in both and better in one; equal "
    "candidates don't dominate each other.", "equal candidates stand or fall together")  # fmt: skip
problem.promise("pareto_errors", "ValueError naming `candidate` (there is none) or `NaN`.")


@problem.check(
    "pareto", points=2, of="pareto_front", title="the front",
    concerns=["candidates equal in one number", "duplicates", "a candidate alone", "the order", "NaN"],
    next_step="For one candidate, ask whether another is at least as good in both numbers and better in one.",
)  # fmt: skip
def pareto(rng: Rng) -> Iterator[AnyCase]:
    points = candidates(rng)
    yield Case("seven candidates", call("pareto_front", points))
    first, last = next(iter(points)), list(points)[-1]
    quality = int(rng.integers(1, 9)) / 8
    yield Case("a candidate that forgot nothing", call("pareto_front", {"none": (quality, 0.0), "some": (9.0, 0.5)}))
    worse = {"some": (quality, -0.25), "none": (quality - 0.125, 0.0), "down": (-quality, -0.5), "alone": (-9.0, 2.0)}
    yield Case("negative numbers", call("pareto_front", worse))
    # The least forgetting, the best ratio, the best difference and the best quality: four ranks, four winners.
    front = {"probe": (1, 1), "bitfit": (16, 2), "lora": (40, 8), "full": (48, 32)}
    unit = int(rng.integers(1, 9)) / 8
    scaled = {name: (unit * gained, unit * lost) for name, (gained, lost) in front.items()}
    yield Case("four on the front", call("pareto_front", scaled))
    names = ["adapter", "bitfit", "full", "lora", "loras", "none", "prefix", "probe", "prompt", "qlora"]
    for most in (3, 4, 5, 12):
        crowd = {
            str(name): tuple(int(k) / 4 for k in rng.integers(-2, most, size=2)) for name in rng.permutation(names)
        }
        yield Case("ten candidates", call("pareto_front", crowd), once=True)
    line = {str(name): (place / 4, place / 8) for place, name in enumerate(rng.permutation(names))}
    yield Case("ten on the front", call("pareto_front", line), once=True)
    ranks = {name: (-one / 4, lost / 2) for name, (one, lost) in line.items()}
    yield Case("ten in a row", call("pareto_front", ranks), once=True)
    yield Case("a candidate alone", call("pareto_front", {"none": (-1.0, 2.0)}), once=True)
    for gained, lost in ((0.0, NEAR), (NEAR, 0.0), (NEAR, NEAR), (NEAR, -NEAR), (-NEAR, 0.0)):
        near = {"one": (0.75, 0.25), "two": (0.75 + gained, 0.25 + lost), "far": (0.5, 0.5)}
        yield Case("candidates that are nearly equal", call("pareto_front", near), promise=EQUALS, once=True)
    twins = dict.fromkeys(names[::-1], (0.5, 0.25))
    yield Case("ten equal candidates", call("pareto_front", twins), promise=EQUALS, once=True)
    twice = points | {"again": points[first], "late": points[last]}
    yield Case("duplicates on the front and off it", call("pareto_front", twice), promise=EQUALS)
    equal = {"one": (quality, 0.5), "two": (quality, 0.25)}
    yield Case("equal quality", call("pareto_front", equal), promise=EQUALS)
    equal = {"one": (0.5, quality), "two": (0.75, quality)}
    yield Case("equal forgetting", call("pareto_front", equal), promise=EQUALS)
    right, nan = call("pareto_front", {"full": (0.5, 0.5), "lora": (0.5, 0.25)}), math.nan
    wrong = [("candidate", "no candidate", call("pareto_front", {}))]
    for words, bad in (("quality", (nan, 0.25)), ("forgetting", (0.25, nan)), ("candidate", (nan, nan))):
        wrong.append(("NaN", f"a {words} of NaN", call("pareto_front", {"full": (0.5, 0.5), "lora": bad})))
        wrong.append(("NaN", f"a {words} of NaN at first", call("pareto_front", {"lora": bad, "full": (0.5, 0.5)})))
        wrong.append(("NaN", f"a {words} of NaN alone", call("pareto_front", {"lora": bad})))
        wrong.append(("NaN", f"a {words} of NaN twice", call("pareto_front", {"lora": bad, "full": bad})))
    yield from refused("pareto", right, *wrong)


def around(low: float, high: float) -> tuple[float, float, float]:
    return ((low + high) / 2, low, high)


LIMITLESS = "An infinite `max_forgetting` sets no limit."
problem.promise("decide", "Return `\"accept\"`, `\"reject\"` or `\"inconclusive\"` for a tuned model.",
    "Both intervals are (mean, low, high): of the improvement on the task, and of what the worst suite forgot.",
    "`\"inconclusive\"` otherwise: more items are needed.", LIMITLESS)  # fmt: skip
ENDS = problem.promise("ends", "`\"reject\"` where the interval says that it didn't improve (high <= 0) or forgot too "
    "much (low > max_forgetting)",
    "`\"accept\"` where it says that it improved (low > 0) and didn't forget too much (high <= "
    "max_forgetting)")  # fmt: skip
problem.promise("decide_errors", "ValueError naming `NaN` if one of the seven numbers is none.")


@problem.check(
    "decide", points=1.5, of="verdict", title="the verdict",
    concerns=["each of the three answers", "both reasons to reject", "boundaries", "NaN in each place"],
    next_step="Draw both intervals on a line, with 0 and the limit, and say what each position means.",
)  # fmt: skip
def decide(rng: Rng) -> Iterator[AnyCase]:
    limit, small, step = (int(number) / 8 for number in (rng.integers(4, 9), rng.integers(1, 3), rng.integers(4, 8)))
    good, unsure = around(small, small + step), around(-small, 4 * step)
    kept, lost, open_ = around(-small, limit - small), around(limit + small, limit + 3), around(0.0, limit + small)
    yield Case("improved and kept", call("verdict", good, kept, limit))
    yield Case("improved and forgot", call("verdict", good, lost, limit))
    yield Case("didn't improve", call("verdict", around(-step, -small), kept, limit))
    yield Case("perhaps improved", call("verdict", unsure, kept, limit))
    yield Case("perhaps forgot", call("verdict", good, open_, limit))
    yield Case("perhaps improved, and perhaps forgot", call("verdict", unsure, around(limit - small, limit + 1), limit))
    yield Case("perhaps improved, and forgot", call("verdict", unsure, lost, limit))
    yield Case("didn't improve, and perhaps forgot", call("verdict", around(-step, -small), open_, limit))
    ends = (-0.5, 0.0, 0.5)
    pairs = [(low, high) for low, high in itertools.product(ends, ends) if low <= high]
    for bound in (-1.0, 0.0, limit, math.inf):
        at = bound if math.isfinite(bound) else 3.0
        for (low, high), (less, more) in itertools.product(pairs, pairs):
            given = (rng.choice([low, high]).item(), low, high), (at + less, at + less, at + more), bound
            yield Case("each position of two intervals", call("verdict", *given), once=True)
    for near in (-NEAR, NEAR):
        for words, *given in (
            ("a low end near 0", (1.0, near, 2.0), kept, limit),
            ("a high end near 0", (-1.0, -2.0, near), kept, limit),
            ("forgetting up to near the limit", good, (0.0, -1.0, limit + near), limit),
            ("forgetting from near the limit", good, (limit + 1, limit + near, limit + 2), limit),
        ):
            yield Case(words, call("verdict", *given), promise=ENDS, once=True)
    for words, *given in (
        ("forgetting up to the limit", good, around(0.0, limit), limit),
        ("forgetting from the limit on", good, around(limit, limit + small), limit),
        ("an improvement of up to nothing", around(-step, 0.0), kept, limit),
        ("an improvement from nothing on", around(0.0, step), kept, limit),
        ("nothing forgotten, and nothing allowed", good, (0.0, 0.0, 0.0), 0.0),
        ("a little forgotten, and nothing allowed", good, around(0.0, 0.0625), 0.0),
    ):
        yield Case(words, call("verdict", *given), promise=ENDS)
    right = call("verdict", good, kept, limit)
    wrong: list[tuple[str, str, Call]] = []
    for one, other in ((good, kept), (around(-step, -small), kept), (good, lost), (unsure, open_)):
        for place in range(7):
            numbers = [math.nan if place == at else number for at, number in enumerate((*one, *other, limit))]
            given = call("verdict", tuple(numbers[:3]), tuple(numbers[3:6]), numbers[6])
            wrong.append(("NaN", "one number of NaN", given))
    yield from refused("decide", right, *wrong)


@problem.personal(title="your table", next_step="The difference of an item is -1, 0 or 1: write its variance.")
def mine(rng: Rng) -> Question:
    lost, gained, n = int(rng.integers(5, 20)), int(rng.integers(21, 50)), 50 * int(rng.integers(3, 9))
    words = (
        f"Of {n} items, {lost} were right before tuning and are wrong now, and {gained} the other way round. What is "
        "the standard error of the change in accuracy?"
    )
    return Question(words, call("paired_binary_se", lost, gained, n))


# ---------------------------------------------------------------------------------------------------------- mistakes

CHECK_FIRST = "Check each argument before using it, and name it in the message of a ValueError."
for name, of, edits, says in (
    ("one_item_for_all", "differences", {"len(before) != len(after)": "len(before) not in (1, len(after))"},
     "Your function compares one item with many."),
    ("nan_before_passes", "differences", {"np.isnan(change)": "np.isnan(np.asarray(after))"},
     "Your function looks for a NaN on one side."),
    ("suites_after_unseen", "forgetting", {"set(before) != set(after)": "set(before) - set(after)"},
     "Your scorecard drops suites that stand in `after` alone."),
    ("unknown_direction_passes", "forgetting", {"set(directions) - set(before)": "()"},
     "Your scorecard passes a direction for a suite that isn't there."),
    ("means_apart", "forgetting",
     {"improvement(before[name], after[name], directions.get(name, True))":
      "float(np.mean(after[name]) - np.mean(before[name])) * (1 if directions.get(name, True) else -1)"},
     "Your forgetting takes two means: sides of different lengths and NaN pass."),
    ("level_of_nan_passes", "paired_ci", {"not 0 < level < 1": "level <= 0 or level >= 1"},
     "A level of NaN passes: every comparison with it is false."),
    ("level_above_one_passes", "paired_ci", {"not 0 < level < 1": "not 0 < level"},
     "A level of 1 or more passes through your interval."),
    ("negative_n_boot_passes", "paired_ci", {"n_boot < 1": "n_boot == 0"},
     "A negative number of resamples passes through your interval."),
    ("negative_counts_pass", "paired_binary_se", {"lost < 0 or gained < 0 or ": ""},
     "Negative counts pass through your standard error."),
    ("too_many_changes_pass", "paired_binary_se", {" or lost + gained > n": ""},
     "More changes than items pass through your standard error."),
    ("nan_quality_passes", "pareto_front", {"in point)": "in point[1:])"},
     "A quality of NaN passes through your front."),
    ("nan_forgetting_passes", "pareto_front", {"in point)": "in point[:1])"},
     "A forgetting of NaN passes through your front."),
    ("nan_limit_passes", "verdict", {"worst_forget_ci, max_forgetting)": "worst_forget_ci)"},
     "Your verdict doesn't ask whether the limit is NaN."),
    ("nan_in_means_passes", "verdict", {"(*task_ci, *worst_forget_ci,": "(*task_ci[1:], *worst_forget_ci[1:],"},
     "Your verdict doesn't ask whether a mean is NaN."),
    ("nan_in_forgetting_passes", "verdict", {"(*task_ci, *worst_forget_ci, max_forgetting)": "task_ci"},
     "Your verdict looks for NaN in the task's interval alone."),
):  # fmt: skip
    problem.slip(name, of, edits, says=says, next_step=CHECK_FIRST)

UNIT = "It's a difference of means, in the score's own unit."
SIGN = "Take a model that got better on every item: the answer must be positive."

problem.slip("improvement_sign", "improvement", {"differences(before, after)": "differences(after, before)"},
    says="Your improvement has the sign of forgetting.", next_step=SIGN)  # fmt: skip
problem.slip("improvement_one_direction", "improvement", {" if higher_is_better else -change": ""},
    says="Your improvement doesn't ask which way the score points.",
    next_step="A loss that fell is an improvement.")  # fmt: skip
problem.slip("improvement_relative", "improvement",
    {"differences(before, after)": "differences(before, after) / np.mean(before)"},
    says="Your improvement is relative to the score before.", next_step=UNIT)  # fmt: skip
problem.slip("improvement_percent", "improvement", {"float(np.mean": "float(100 * np.mean"},
    says="Your improvement is in percent.", next_step=UNIT)  # fmt: skip
problem.slip("improvement_sum", "improvement", {"np.mean": "np.sum"},
    says="Your improvement is a sum over items.",
    next_step="The number of items should not matter: take the mean.")  # fmt: skip
problem.slip("improvement_median", "improvement", {"np.mean": "np.median"},
    says="Your improvement is a median.", next_step="The contract says mean.")  # fmt: skip
problem.slip("improvement_absolute", "improvement", {"change if higher_is_better else -change": "abs(change)"},
    says="Your improvement has no sign.", next_step=SIGN)  # fmt: skip
problem.slip("improvement_won_minus_lost", "improvement",
    {"differences(before, after)": "np.sign(differences(before, after))"},
    says="Your improvement counts items that moved, not by how much.",
    next_step="Average the differences themselves.")  # fmt: skip

problem.slip("forgetting_sign", "forgetting", {"-change": "change"},
    says="Your forgetting is negative where something was lost.",
    next_step="Before minus after: a loss is positive.")  # fmt: skip
problem.slip("forgetting_one_direction", "forgetting", {", directions.get(name, True)": ""},
    says="Your forgetting doesn't ask which way a suite's score points.",
    next_step="Look the suite up in `higher_is_better`.")  # fmt: skip
problem.slip("direction_default_false", "forgetting", {"get(name, True)": "get(name, False)"},
    says="Your function treats a suite without a direction as better when lower.",
    next_step="A suite that isn't named is better when higher.")  # fmt: skip
problem.slip("clipped_at_zero", "forgetting", {"-change": "max(0.0, -change)"},
    says="Your forgetting hides suites that improved.",
    next_step="Keep negative values: they are results too.")  # fmt: skip
problem.slip("forgetting_absolute", "forgetting", {"-change": "abs(change)"},
    says="Your forgetting counts an improvement as a loss.", next_step="Keep the sign.")  # fmt: skip
problem.slip("forgetting_relative", "forgetting", {"-change": "-change / float(np.mean(before[name]))"},
    says="Your forgetting is relative to the score before.", next_step=UNIT)  # fmt: skip
problem.slip("worst_by_size", "forgetting", {"lambda name: lost[name]": "lambda name: abs(lost[name])"},
    says="Your worst suite is the one that changed most, whichever way.",
    next_step="The worst suite lost most: keep the sign.")  # fmt: skip
problem.slip("worst_is_smallest", "forgetting", {"max(lost": "min(lost"},
    says="Your worst suite is the one that lost least.",
    next_step="The worst suite lost most: take the largest value.")  # fmt: skip
problem.slip("worst_is_last", "forgetting", {"max(lost, key=lambda name: lost[name])": "[*before][-1]"},
    says="Your worst suite is the last one.",
    next_step="Make the table by hand, one row for each suite: the worst has the largest value.")  # fmt: skip
problem.slip("tie_by_position", "forgetting", {"in sorted(before)": "in before"},
    says="Among equally bad suites you name the first one of the dict.",
    next_step="Among equals the alphabet decides.")  # fmt: skip
problem.slip("tie_last_name", "forgetting", {"lambda name: lost[name]": "lambda name: (lost[name], name)"},
    says="Among equally bad suites you name the last one of the alphabet.",
    next_step="Among equals the first name counts.")  # fmt: skip
problem.slip("mean_over_items", "forgetting",
    {"sum(lost.values()) / len(lost)": "np.average([*lost.values()], weights=[len(before[name]) for name in lost])"},
    says="Your mean lets large suites count more.",
    next_step="The mean is over suites, each counted once.")  # fmt: skip
problem.slip("mean_is_median", "forgetting", {"sum(lost.values()) / len(lost)": "np.median([*lost.values()])"},
    says="Your mean is a median.", next_step="Add up and divide by the number of suites.")  # fmt: skip
problem.slip("mean_of_losses_only", "forgetting",
    {"sum(lost.values()) / len(lost)": "np.mean([loss for loss in lost.values() if loss > 0] or [0.0])"},
    says="Your mean leaves out suites that improved.", next_step="The mean is over all suites.")  # fmt: skip
problem.slip("worst_unsigned_zero", "forgetting", {"lost[worst]": "max(0.0, lost[worst])"},
    says="Your worst never falls below 0.",
    next_step="Where every suite improved, the worst is negative.")  # fmt: skip

# Each side's resamples are the same draws in another order: independent of each other, as two draws are.
problem.slip("resampled_unpaired", "paired_ci",
    {"change[drawn].mean(axis=1)": "(np.asarray(after)[drawn] - np.asarray(before)[drawn[::-1]]).mean(axis=1)"},
    says="Your resamples tear the pairs apart: each side is drawn on its own.",
    next_step="Resample the differences.")  # fmt: skip
problem.slip("spread_of_items", "paired_ci", {"change[drawn].mean(axis=1)": "change"},
    says="Your interval is for one item's difference, not for the mean.",
    next_step="Take the quantiles of resampled means.")  # fmt: skip
problem.slip("level_ignored", "paired_ci", {"(1 - level) / 2": "0.025"},
    says="Your interval is a 95 % one at every level.", next_step="Compute the tails from `level`.")  # fmt: skip
problem.slip("both_tails_whole", "paired_ci", {"(1 - level) / 2": "1 - level"},
    says="Your interval leaves out 1 - level at each end.",
    next_step="The two tails share what is left out.")  # fmt: skip
problem.slip("half_samples", "paired_ci", {"(n_boot, len(change))": "(n_boot, (len(change) + 1) // 2)"},
    says="Your resamples are smaller than the sample.", next_step="Draw as many items as there are.")  # fmt: skip
problem.slip("medians_resampled", "paired_ci",
    {"change[drawn].mean(axis=1)": "np.median(change[drawn], axis=1)", "change.mean()": "np.median(change)"},
    says="Your interval is for a median.", next_step="The contract says mean.")  # fmt: skip
problem.slip("mean_of_resamples", "paired_ci", {"change.mean()": "means.mean()"},
    says="Your mean is that of the resamples.",
    next_step="The mean of the items themselves needs no resampling.")  # fmt: skip
problem.slip("before_minus_after", "paired_ci", {"differences(before, after)": "differences(after, before)"},
    says="Your differences are before - after.", next_step=SIGN)  # fmt: skip
problem.slip("extremes", "paired_ci", {"(1 - level) / 2": "0.0"},
    says="Your interval runs from the smallest to the largest resample.",
    next_step="Take quantiles, by `level`.")  # fmt: skip
problem.slip("one_standard_error", "paired_ci",
    {"np.quantile(means, [tail, 1 - tail])": "change.mean() + np.array([-1, 1]) * change.std() / len(change) ** 0.5"},
    says="Your interval is one standard error to each side.",
    next_step="How many standard errors depends on `level`.")  # fmt: skip
problem.slip("without_replacement", "paired_ci", {"change[drawn].mean(axis=1)": "np.full(n_boot, change.mean())"},
    says="Your resamples are the sample again: drawn without replacement?",
    next_step="Draw with replacement.")  # fmt: skip
problem.slip("seed_ignored", "paired_ci", {"default_rng(seed)": "default_rng()"},
    says="Your interval differs from run to run.", next_step="Make the generator from `seed`.")  # fmt: skip
problem.slip("low_and_high_swapped", "paired_ci", {"low, high =": "high, low ="},
    says="Your low end is above your high end.", next_step="Return (mean, low, high).")  # fmt: skip

VARIANCE = "The variance is the mean square minus the squared mean; the standard error divides by the root of n."

problem.slip("se_without_the_mean", "paired_binary_se", {"mean_square - mean**2": "mean_square"},
    says="Your variance is the mean square alone.", next_step=VARIANCE)  # fmt: skip
problem.slip("se_independent", "paired_binary_se",
    {"mean_square - mean**2": "lost / n * (1 - lost / n) + gained / n * (1 - gained / n)"},
    says="Your standard error treats lost and gained as independent.",
    next_step="An item can't be both: their covariance counts.")  # fmt: skip
problem.slip("se_squared", "paired_binary_se",
    {"math.sqrt(mean_square - mean**2) / math.sqrt(n)": "(mean_square - mean**2) / n"},
    says="Your standard error is a variance.", next_step=VARIANCE)  # fmt: skip
problem.slip("se_of_an_item", "paired_binary_se", {" / math.sqrt(n)": ""},
    says="Your standard error is one item's spread.", next_step=VARIANCE)  # fmt: skip
problem.slip("se_n_minus_1", "paired_binary_se", {"math.sqrt(n)": "math.sqrt(n - 1)"},
    says="Your variance is divided by n - 1.", next_step="The contract divides by n.")  # fmt: skip
problem.slip("se_sum_squared", "paired_binary_se", {"gained - lost": "gained + lost"},
    says="Your mean counts lost and gained items alike.", next_step="A lost item counts -1 in the mean.")  # fmt: skip
problem.slip("se_of_changed_items", "paired_binary_se",
    {"mean, mean_square =": "n = lost + gained\n    mean, mean_square ="},
    says="Your standard error is over the items that changed.",
    next_step="Items that stayed the same count as 0.")  # fmt: skip

DOMINATES = "One dominates another if it's at least as good in both numbers and better in one."
BOTH = "one[0] >= other[0] and one[1] <= other[1]"

problem.slip("equals_rule_each_other_out", "pareto_front",
    {"any(dominates(o, point) for o in points.values())":
        "any(o[0] >= point[0] and o[1] <= point[1] for key, o in points.items() if key != name)"},
    says="Your front drops duplicates.", next_step="Equal candidates don't dominate each other.")  # fmt: skip
problem.slip("better_in_both", "dominates", {BOTH: "one[0] > other[0] and one[1] < other[1]"},
    says="Your front keeps candidates that another equals in one number and beats in the other.",
    next_step=DOMINATES)  # fmt: skip
problem.slip("forgetting_maximised", "dominates", {"<=": ">="},
    says="Your front treats more forgetting as better.", next_step="Less forgetting is better.")  # fmt: skip
problem.slip("quality_minimised", "dominates", {">=": "<="},
    says="Your front treats less quality as better.", next_step="More quality is better.")  # fmt: skip
problem.slip("only_the_best_quality", "dominates", {BOTH: "one[0] > other[0]"},
    says="Your front looks at quality alone.", next_step=DOMINATES)  # fmt: skip
problem.slip("only_the_least_forgetting", "dominates", {BOTH: "one[1] < other[1]"},
    says="Your front looks at forgetting alone.", next_step=DOMINATES)  # fmt: skip
problem.slip("front_by_ratio", "dominates", {BOTH: "one[0] * other[1] > other[0] * one[1]"},
    says="Your front ranks by quality over forgetting.",
    next_step="A ratio always prefers the least forgetting: compare the two numbers one by one.")  # fmt: skip
problem.slip("front_by_difference", "dominates", {BOTH: "one[0] - one[1] > other[0] - other[1]"},
    says="Your front ranks by quality minus forgetting.",
    next_step="One net number hides the trade: compare the two numbers one by one.")  # fmt: skip
problem.slip("better_in_one", "dominates", {BOTH: "(one[0] > other[0] or one[1] < other[1])"},
    says="Your front drops a candidate that is beaten in one number only.", next_step=DOMINATES)  # fmt: skip
problem.slip("front_unsorted", "pareto_front", {"sorted(": "list("},
    says="Your front isn't in alphabetical order.", next_step="Sort the names at the end.")  # fmt: skip

LINE = "Draw both intervals on a line, with 0 and the limit, and say what each position means."

problem.slip("limit_itself_refused", "verdict", {"forget_high <= max_forgetting": "forget_high < max_forgetting"},
    says="Your verdict doesn't accept the limit itself.", next_step="Up to the limit is not too much.")  # fmt: skip
problem.slip("limit_itself_rejected", "verdict", {"forget_low > max_forgetting": "forget_low >= max_forgetting"},
    says="Your verdict rejects from the limit on.", next_step="Only above the limit is too much.")  # fmt: skip
problem.slip("nothing_is_improvement", "verdict", {"task_low > 0": "task_low >= 0"},
    says="Your verdict counts a low end of 0 as an improvement.",
    next_step="A low end of 0 leaves open whether it improved.")  # fmt: skip
problem.slip("nothing_is_open", "verdict", {"task_high <= 0": "task_high < 0"},
    says="Your verdict doesn't reject a high end of 0.",
    next_step="A high end of 0 says that it didn't improve.")  # fmt: skip
problem.slip("verdict_ignores_forgetting", "verdict",
    {" or forget_low > max_forgetting": "", " and forget_high <= max_forgetting": ""},
    says="Your verdict looks at the task alone.", next_step=LINE)  # fmt: skip
problem.slip("verdict_ignores_the_task", "verdict", {"task_high <= 0 or ": "", "task_low > 0 and ": ""},
    says="Your verdict looks at forgetting alone.", next_step=LINE)  # fmt: skip
problem.slip("means_only", "verdict", {
        "(_, task_low, task_high), (_, forget_low, forget_high) = task_ci, worst_forget_ci":
            "task_low, forget_low = task_high, forget_high = task_ci[0], worst_forget_ci[0]",
    },
    says="Your verdict looks at the means alone.", next_step=LINE)  # fmt: skip
problem.slip("inconclusive_is_accept", "verdict", {'"inconclusive"': '"accept"'},
    says="Your verdict accepts what isn't decided.", next_step=LINE)  # fmt: skip
problem.slip("inconclusive_is_reject", "verdict", {'"inconclusive"': '"reject"'},
    says="Your verdict rejects what isn't decided.", next_step=LINE)  # fmt: skip


problem.slip("truncates_to_the_shorter", "differences", {
        "len(before) != len(after)": "False",
        "np.asarray(after) - np.asarray(before)": "np.array([new - old for old, new in zip(before, after)])",
    },
    says="Your function drops the items that have no partner.", next_step=CHECK_FIRST)  # fmt: skip
problem.slip("empty_gives_zero", "differences",
    {'raise ValueError("empty: a comparison needs at least one item")': "return np.zeros(1)"},
    says="Your function gives 0 for no items.", next_step=CHECK_FIRST)  # fmt: skip
problem.slip("nan_passes", "differences", {"np.isnan(change).any()": "False"},
    says="A NaN among the scores passes through your function.", next_step=CHECK_FIRST)  # fmt: skip
problem.slip("common_suites_only", "forgetting",
    {"not before or set(before) != set(after)": "not (before := {k: before[k] for k in before if k in after})"},
    says="Your scorecard drops suites that one side lacks.", next_step=CHECK_FIRST)  # fmt: skip
problem.slip("counts_unchecked", "paired_binary_se", {"n < 1 or lost < 0 or gained < 0 or lost + gained > n": "False"},
    says="Impossible counts pass through your standard error.", next_step=CHECK_FIRST)  # fmt: skip
