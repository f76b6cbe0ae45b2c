"""How scorecards are judged: scores in eighths so that ties are exact, and items that vary more than the change."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from ftgrade.judging.problem import (
    AnyCase,
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
HALF_WIDTH = 0.15  # two bootstraps of 2,000 resamples differ by 3 % (one standard deviation) at these levels


# ------------------------------------------------------------------------------------------------------------ checks


def eighths(rng: Rng, items: int, low: int = 0, high: int = 9) -> Scores:
    """Return scores that floats hold exactly, as do their sums and, for 4 or 8 items, their means."""
    return [int(number) / 8 for number in rng.integers(low, high, size=items)]


@problem.check(
    "imp", points=1, of="improvement", title="improvement",
    concerns=["the sign", "scores that are better when lower"],
    next_step="Say in words what got better, then which difference is positive there.",
)  # fmt: skip
def imp(rng: Rng) -> Iterator[AnyCase]:
    before, after = eighths(rng, 8), [*eighths(rng, 7), 2.5]
    yield Case("higher is better", call("improvement", before, after), pure=True)
    yield Case("lower is better", call("improvement", before, after, higher_is_better=False))
    yield Case("it got worse", call("improvement", [score + 2 for score in after], before))


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


@problem.check(
    "forget", points=2, of="forgetting", title="forgetting",
    concerns=["suites of different sizes", "suites that are better when lower", "a suite that improved", "ties"],
    next_step="Make the table by hand: one row for each suite, then the mean and the largest of its last column.",
)  # fmt: skip
def forget(rng: Rng) -> Iterator[AnyCase]:
    before, after = suites(rng, 4)
    yield Case("four suites, one of them improved", call("forgetting", before, after), pure=True)
    lower = {str(name): False for name in rng.choice(list(before), size=2, replace=False)}
    yield Case("two suites better when lower", call("forgetting", before, after, lower))
    yield Case("one suite, improved", call("forgetting", {"copy": [0.5] * 4}, {"copy": [*eighths(rng, 3, 6), 1.0]}))
    yield Case("three equally bad suites", call("forgetting", *tied(rng)))


def same_interval(expected: Any, got: Any) -> Difference | None:
    """Demand the very mean, a half-width within HALF_WIDTH and both ends where they belong."""
    numbers = [as_array(part) for part in got] if isinstance(got, tuple | list) else []
    if len(numbers) != 3 or any(number is None or number.shape != () for number in numbers):
        return Difference("three numbers were expected: mean, low, high")
    (mean, low, high), mine = expected, [float(number) for number in numbers if number is not None]
    if not abs(mine[0] - mean) <= 1e-9 + 1e-9 * abs(mean):
        return Difference("the mean differs", abs(mine[0] - mean))
    half = (high - low) / 2
    if not abs((mine[2] - mine[1]) / 2 - half) <= HALF_WIDTH * abs(half) + 1e-9:
        return Difference(
            "the interval is too wide" if mine[2] - mine[1] > high - low else "the interval is too narrow"
        )
    if not max(abs(mine[1] - low), abs(mine[2] - high)) <= 2 * HALF_WIDTH * abs(half) + 1e-9:
        return Difference("the interval lies elsewhere")
    return None


def paired_scores(rng: Rng, items: int = 64) -> tuple[Scores, Scores]:
    """Return scores of items that differ much more from each other than by the change."""
    before = rng.normal(0, 3, size=items)
    after = before + rng.normal(0.3, 0.5, size=items)
    return before.round(4).tolist(), after.round(4).tolist()


def repeated(one: Value, two: Value) -> Difference | None:
    difference = Close(rtol=0, atol=0)(one.value, two.value)
    return Difference("the same seed gave two different intervals") if difference else None


@problem.check(
    "ci", points=2.5, of="paired_ci", title="the interval", same=same_interval,
    concerns=["pairs kept together", "the level", "resamples of the right size", "one item", "the seed"],
    next_step="Take the differences first; then resample them, as many as there are, with replacement.",
)  # fmt: skip
def ci(rng: Rng) -> Iterator[AnyCase]:
    before, after = paired_scores(rng)
    seed = int(rng.integers(1000))
    yield Case("95 % of 64 pairs", call("paired_ci", before, after, seed=seed), pure=True)
    yield Case("80 % of 64 pairs", call("paired_ci", after, before, level=0.8, seed=seed))
    moved = [score + 0.25 for score in eighths(rng, 8)]
    yield Case("every item moved alike", call("paired_ci", [score - 0.25 for score in moved], moved))
    yield Case("one item", call("paired_ci", eighths(rng, 1), eighths(rng, 1, 9, 20), n_boot=1))
    again = call("paired_ci", before[:20], after[:20], seed=seed)
    yield Relation("the same seed twice", (again, again), repeated)


@problem.check(
    "se", points=1, of="paired_binary_se", title="the standard error from counts",
    concerns=["lost and gained items", "the change itself"],
    next_step="Write the variance of a number that is -1, 0 or 1 with given frequencies.",
)  # fmt: skip
def se(rng: Rng) -> Iterator[AnyCase]:
    lost, gained = int(rng.integers(3, 9)), int(rng.integers(12, 25))
    yield Case(
        "more gained than lost", call("paired_binary_se", lost, gained, lost + gained + int(rng.integers(9, 40)))
    )
    yield Case("more lost than gained", call("paired_binary_se", gained, lost, lost + gained))
    yield Case("items only lost", call("paired_binary_se", lost, 0, lost + gained))
    yield Case("one item", call("paired_binary_se", 0, 1, 1))
    yield Case("every item gained", call("paired_binary_se", 0, gained, gained))


def candidates(rng: Rng) -> Points:
    """Return a front of three with dominated candidates between, in no order."""
    q, f = (np.sort(rng.choice(np.arange(1, 40), size=6, replace=False)) / 8 for _ in range(2))
    names = [str(name) for name in rng.permutation(["adapter", "bitfit", "full", "lora", "prefix", "probe", "prompt"])]
    points = [
        (q[1], f[0]), (q[3], f[2]), (q[5], f[4]),  # the front
        (q[2], f[3]), (q[3], f[4]), (q[1], f[2]), (q[0], f[5]),  # as good in one at most
    ]  # fmt: skip
    return {name: (float(quality), float(lost)) for name, (quality, lost) in zip(names, points, strict=True)}


@problem.check(
    "pareto", points=1.5, of="pareto_front", title="the front",
    concerns=["candidates equal in one number", "duplicates", "a candidate alone", "the order"],
    next_step="For one candidate, ask whether another is at least as good in both numbers and better in one.",
)  # fmt: skip
def pareto(rng: Rng) -> Iterator[AnyCase]:
    points = candidates(rng)
    yield Case("seven candidates", call("pareto_front", points), pure=True)
    first = next(iter(points))
    yield Case("a duplicate on the front", call("pareto_front", points | {"again": points[first]}))
    quality = int(rng.integers(1, 9)) / 8
    yield Case("equal quality", call("pareto_front", {"one": (quality, 0.5), "two": (quality, 0.25)}))
    yield Case("equal forgetting", call("pareto_front", {"one": (0.5, quality), "two": (0.75, quality)}))
    yield Case("a candidate that forgot nothing", call("pareto_front", {"none": (quality, 0.0), "some": (9.0, 0.5)}))
    # The least forgetting, the best ratio, the best difference and the best quality: four ranks, four winners.
    front = {"probe": (1, 1), "bitfit": (16, 2), "lora": (40, 8), "full": (48, 32)}
    unit = int(rng.integers(1, 9)) / 8
    scaled = {name: (unit * gained, unit * lost) for name, (gained, lost) in front.items()}
    yield Case("four on the front", call("pareto_front", scaled))


def around(low: float, high: float) -> tuple[float, float, float]:
    return ((low + high) / 2, low, high)


@problem.check(
    "decide", points=1, of="verdict", title="the verdict",
    concerns=["each of the three answers", "both reasons to reject", "boundaries"],
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
    yield Case("forgetting up to the limit", call("verdict", good, around(0.0, limit), limit))
    yield Case("forgetting from the limit on", call("verdict", good, around(limit, limit + small), limit))
    yield Case("an improvement of up to nothing", call("verdict", around(-step, 0.0), kept, limit))
    yield Case("an improvement from nothing on", call("verdict", around(0.0, step), kept, limit))


@problem.check(
    "err", points=1, of="improvement", title="invalid input",
    concerns=["pairs that don't pair", "nothing to compare", "NaN", "suites of one side only", "impossible counts"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    scores, nan = eighths(rng, 6), math.nan
    yield Refusal("lists of different length", call("improvement", scores, scores[1:]), "length")
    yield Refusal("no items", call("improvement", [], []), "empty")
    yield Refusal("a NaN", call("improvement", scores, [*scores[1:], nan]), "nan")
    yield Refusal("pairs that don't pair", call("paired_ci", scores[2:], scores), "length")
    yield Refusal(
        "a suite of one side only", call("forgetting", {"copy": scores, "sort": scores}, {"copy": scores}), "suite"
    )
    yield Refusal("no suite", call("forgetting", {}, {}), "suite")
    copy = {"copy": scores}
    yield Refusal("a direction for no suite", call("forgetting", copy, copy, {"cpoy": True}), "suite")
    yield Refusal("a level in percent", call("paired_ci", scores, scores[::-1], level=95.0), "level")
    yield Refusal("a level of 0", call("paired_ci", scores, scores[::-1], level=0.0), "level")
    yield Refusal("a level of 1", call("paired_ci", scores, scores[::-1], level=1.0), "level")
    yield Refusal("no resamples", call("paired_ci", scores, scores[::-1], n_boot=0), "n_boot")
    yield Refusal("more changes than items", call("paired_binary_se", 5, int(rng.integers(5, 9)), 9), "n must")
    yield Refusal("fewer than none lost", call("paired_binary_se", -1, 3, 9), "n must")
    yield Refusal("fewer than none gained", call("paired_binary_se", 3, -1, 9), "n must")
    yield Refusal("no items", call("paired_binary_se", 0, 0, 0), "n must")
    yield Refusal("no candidate", call("pareto_front", {}), "candidate")
    yield Refusal("a candidate of NaN", call("pareto_front", {"full": (0.5, nan), "lora": (0.5, 0.25)}), "nan")
    yield Refusal("an interval of NaN", call("verdict", (0.5, nan, nan), (0.0, 0.0, 0.0), 0.1), "nan")


@problem.personal(title="your table", next_step="The difference of an item is -1, 0 or 1: write its variance.")
def mine(rng: Rng) -> Question:
    lost, gained, n = int(rng.integers(5, 20)), int(rng.integers(21, 50)), 50 * int(rng.integers(3, 9))
    words = (
        f"Of {n} items, {lost} were right before tuning and are wrong now, and {gained} the other way round. What is "
        "the standard error of the change in accuracy?"
    )
    return Question(words, call("paired_binary_se", lost, gained, n))


# ---------------------------------------------------------------------------------------------------------- mistakes

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

CHECK_FIRST = "Check each argument before using it, and name it in the message of a ValueError."

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
