"""How scorecards are judged: scores in eighths so that ties are exact, and items that vary more than the change."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    next_step="Make the table by hand: a row a suite, then the mean and the largest of its last column.",
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
    front = next(iter(points))
    yield Case("a duplicate on the front", call("pareto_front", points | {"again": points[front]}))
    quality = int(rng.integers(1, 9)) / 8
    yield Case("equal quality", call("pareto_front", {"one": (quality, 0.5), "two": (quality, 0.25)}))
    yield Case("equal forgetting", call("pareto_front", {"one": (0.5, quality), "two": (0.75, quality)}))
    yield Case("a candidate that forgot nothing", call("pareto_front", {"none": (quality, 0.0), "some": (9.0, 0.5)}))


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

Two = Callable[[np.ndarray, np.ndarray], float]
Forgotten = Callable[[dict[str, float], dict[str, int]], tuple[float, float, str]]
Interval = Callable[[np.ndarray, np.ndarray, float, int, Rng], tuple[float, float, float]]
Counts = Callable[[int, int, int], float]
Triple = tuple[float, float, float]


def refuse(before: Sequence[float], after: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays, or raise as the reference does."""
    if len(before) != len(after):
        raise ValueError("length")
    if len(before) == 0:
        raise ValueError("empty")
    if np.isnan(before).any() or np.isnan(after).any():
        raise ValueError("NaN")
    return np.asarray(before, dtype=float), np.asarray(after, dtype=float)


def improvement_mistake(name: str, formula: Two, says: str, next_step: str, *, directed: bool = True) -> None:
    """Register a wrong improvement; `formula` takes both sides' scores, and `directed` turns it for lower is better."""

    def function(before: Sequence[float], after: Sequence[float], higher_is_better: bool = True) -> float:
        value = float(formula(*refuse(before, after)))
        return value if higher_is_better or not directed else -value

    problem.mistake(name=name, replaces="improvement", says=says, next_step=next_step)(function)


SIGN = "Take a model that got better on every item: the answer must be positive."

improvement_mistake(
    "improvement_sign", lambda b, a: float((b - a).mean()), "Your improvement has the sign of forgetting.", SIGN
)
improvement_mistake(
    "improvement_one_direction", lambda b, a: float((a - b).mean()),
    "Your improvement doesn't ask which way the score points.", "A loss that fell is an improvement.", directed=False,
)  # fmt: skip
improvement_mistake(
    "improvement_relative", lambda b, a: float((a - b).mean() / b.mean()),
    "Your improvement is relative to the score before.", "It's a difference of means, in the score's own unit.",
)  # fmt: skip
improvement_mistake(
    "improvement_percent", lambda b, a: float(100 * (a - b).mean()), "Your improvement is in percent.",
    "It's a difference of means, in the score's own unit.",
)  # fmt: skip
improvement_mistake(
    "improvement_sum", lambda b, a: float((a - b).sum()), "Your improvement is a sum over items.",
    "The number of items should not matter: take the mean.",
)  # fmt: skip
improvement_mistake(
    "improvement_median", lambda b, a: float(np.median(a - b)), "Your improvement is a median.",
    "The contract says mean.",
)  # fmt: skip
improvement_mistake(
    "improvement_absolute", lambda b, a: float(abs((a - b).mean())), "Your improvement has no sign.", SIGN,
    directed=False,
)  # fmt: skip
improvement_mistake(
    "improvement_won_minus_lost", lambda b, a: float(np.sign(a - b).mean()),
    "Your improvement counts items that moved, not by how much.", "Average the differences themselves.",
)  # fmt: skip


def forgetting_mistake(
    name: str, says: str, next_step: str, *,
    each: Callable[[float, float, bool], float] = lambda old, new, higher: (old - new) * (1 if higher else -1),
    default: bool = True,
    whole: Forgotten = lambda lost, items: (
        sum(lost.values()) / len(lost), max(lost.values()), min(lost, key=lambda n: (-lost[n], n)),
    ),
) -> None:  # fmt: skip
    """Register a wrong scorecard: `each` gives a suite's loss from its two means, `whole` the mean and the worst."""

    def function(
        before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]],
        higher_is_better: Mapping[str, bool] | None = None,
    ) -> dict[str, object]:  # fmt: skip
        directions = higher_is_better or {}
        if not before or set(before) != set(after) or set(directions) - set(before):
            raise ValueError("suite")
        means = {name: [float(side.mean()) for side in refuse(before[name], after[name])] for name in before}
        lost = {name: each(old, new, directions.get(name, default)) for name, (old, new) in means.items()}
        mean, worst, worst_suite = whole(lost, {name: len(scores) for name, scores in before.items()})
        return {"per_suite": lost, "mean": mean, "worst": worst, "worst_suite": worst_suite}

    problem.mistake(name=name, replaces="forgetting", says=says, next_step=next_step)(function)


def first_name(lost: dict[str, float], value: float) -> str:
    return min(name for name in lost if lost[name] == value)


def largest_change(lost: dict[str, float]) -> str:
    return max(sorted(lost), key=lambda name: abs(lost[name]))


def average(lost: dict[str, float]) -> float:
    return sum(lost.values()) / len(lost)


TABLE = "Make the table by hand: a row a suite, then the mean and the largest of its last column."

forgetting_mistake(
    "forgetting_sign", "Your forgetting is negative where something was lost.",
    "Before minus after: a loss is positive.",
    each=lambda old, new, higher: (new - old) * (1 if higher else -1),
)  # fmt: skip
forgetting_mistake(
    "forgetting_one_direction", "Your forgetting doesn't ask which way a suite's score points.",
    "Look the suite up in `higher_is_better`.", each=lambda old, new, higher: old - new,
)  # fmt: skip
forgetting_mistake(
    "direction_default_false", "A suite without a direction counts as lower is better in yours.",
    "What isn't named is better when higher.", default=False,
)  # fmt: skip
forgetting_mistake(
    "clipped_at_zero", "Your forgetting hides suites that improved.", "Keep negative values: they are results too.",
    each=lambda old, new, higher: max(0.0, (old - new) * (1 if higher else -1)),
)  # fmt: skip
forgetting_mistake(
    "forgetting_absolute", "Your forgetting takes an improvement for a loss.", "Keep the sign.",
    each=lambda old, new, higher: abs(old - new),
)  # fmt: skip
forgetting_mistake(
    "forgetting_relative", "Your forgetting is relative to the score before.",
    "It's a difference of means, in the score's own unit.",
    each=lambda old, new, higher: (old - new) / old * (1 if higher else -1),
)  # fmt: skip
forgetting_mistake(
    "worst_by_size", "Your worst suite is the one that changed most, whichever way.",
    "The worst lost most: keep the sign.",
    whole=lambda lost, items: (
        average(lost), lost[largest_change(lost)], largest_change(lost),
    ),
)  # fmt: skip
forgetting_mistake(
    "worst_is_smallest", "Your worst suite is the one that lost least.", "The worst lost most: the largest value.",
    whole=lambda lost, items: (average(lost), min(lost.values()), first_name(lost, min(lost.values()))),
)  # fmt: skip
forgetting_mistake(
    "worst_is_last", "Your worst suite is the last one.", TABLE,
    whole=lambda lost, items: (average(lost), [*lost.values()][-1], [*lost][-1]),
)  # fmt: skip
forgetting_mistake(
    "tie_by_position", "Among equally bad suites yours names the one that comes first in the dict.",
    "Among equals the alphabet decides.",
    whole=lambda lost, items: (average(lost), max(lost.values()), max(lost, key=lambda name: lost[name])),
)  # fmt: skip
forgetting_mistake(
    "tie_last_name", "Among equally bad suites yours names the last of the alphabet.",
    "Among equals the first name counts.",
    whole=lambda lost, items: (average(lost), max(lost.values()), max(lost, key=lambda name: (lost[name], name))),
)  # fmt: skip
forgetting_mistake(
    "mean_over_items", "Your mean lets large suites count more.", "The mean is over suites, each counted once.",
    whole=lambda lost, items: (
        sum(lost[n] * items[n] for n in lost) / sum(items.values()), max(lost.values()),
        first_name(lost, max(lost.values())),
    ),
)  # fmt: skip
forgetting_mistake(
    "mean_is_median", "Your mean is a median.", "Add up and divide by the number of suites.",
    whole=lambda lost, items: (
        float(np.median([*lost.values()])), max(lost.values()), first_name(lost, max(lost.values())),
    ),
)  # fmt: skip
forgetting_mistake(
    "mean_of_losses_only", "Your mean leaves out suites that improved.", "The mean is over all suites.",
    whole=lambda lost, items: (
        sum(max(0.0, loss) for loss in lost.values()) / max(1, sum(loss > 0 for loss in lost.values())),
        max(lost.values()), first_name(lost, max(lost.values())),
    ),
)  # fmt: skip
forgetting_mistake(
    "worst_unsigned_zero", "Your worst never falls below 0.", "Where every suite improved, the worst is negative.",
    whole=lambda lost, items: (average(lost), max(0.0, *lost.values()), first_name(lost, max(lost.values()))),
)  # fmt: skip


def interval_mistake(name: str, formula: Interval, says: str, next_step: str) -> None:
    """Register a wrong interval; it takes both sides, the level, the number of resamples and a generator."""

    def function(
        before: Sequence[float], after: Sequence[float], level: float = 0.95, n_boot: int = 2000, seed: int = 0
    ) -> tuple[float, float, float]:
        sides = refuse(before, after)
        if not 0 < level < 1:
            raise ValueError("level")
        if n_boot < 1:
            raise ValueError("n_boot")
        return formula(*sides, level, n_boot, np.random.default_rng(seed))

    problem.mistake(name=name, replaces="paired_ci", says=says, next_step=next_step)(function)


def resampled(change: np.ndarray, n_boot: int, rng: Rng, size: int | None = None) -> np.ndarray:
    """Return the means of the resamples."""
    return change[rng.integers(0, len(change), size=(n_boot, size or len(change)))].mean(axis=1)


def between(mean: float, means: np.ndarray, tail: float) -> tuple[float, float, float]:
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(mean), float(low), float(high)


interval_mistake(
    "resampled_unpaired",
    lambda b, a, level, n, rng: between((a - b).mean(), resampled(a, n, rng) - resampled(b, n, rng), (1 - level) / 2),
    "Your resamples tear the pairs apart: each side is drawn on its own.", "Resample the differences.",
)  # fmt: skip
interval_mistake(
    "spread_of_items", lambda b, a, level, n, rng: between((a - b).mean(), a - b, (1 - level) / 2),
    "Your interval is for one item's difference, not for the mean.", "Take the quantiles of resampled means.",
)  # fmt: skip
interval_mistake(
    "level_ignored", lambda b, a, level, n, rng: between((a - b).mean(), resampled(a - b, n, rng), 0.025),
    "Your interval is a 95 % one at every level.", "Compute the tails from `level`.",
)  # fmt: skip
interval_mistake(
    "both_tails_whole", lambda b, a, level, n, rng: between((a - b).mean(), resampled(a - b, n, rng), 1 - level),
    "Your interval leaves 1 - level out at each end.", "The two tails share what is left out.",
)  # fmt: skip
interval_mistake(
    "half_samples",
    lambda b, a, level, n, rng: between((a - b).mean(), resampled(a - b, n, rng, (len(a) + 1) // 2), (1 - level) / 2),
    "Your resamples are smaller than the sample.", "Draw as many items as there are.",
)  # fmt: skip
interval_mistake(
    "medians_resampled",
    lambda b, a, level, n, rng: between(
        float(np.median(a - b)), np.median((a - b)[rng.integers(0, len(a), size=(n, len(a)))], axis=1), (1 - level) / 2
    ),
    "Your interval is for a median.", "The contract says mean.",
)  # fmt: skip
interval_mistake(
    "mean_of_resamples",
    lambda b, a, level, n, rng: between(resampled(a - b, n, rng).mean(), resampled(a - b, n, rng), (1 - level) / 2),
    "Your mean is that of the resamples.", "The mean of the items themselves needs no resampling.",
)  # fmt: skip
interval_mistake(
    "before_minus_after",
    lambda b, a, level, n, rng: between((b - a).mean(), resampled(b - a, n, rng), (1 - level) / 2),
    "Your differences are before - after.", SIGN,
)  # fmt: skip
interval_mistake(
    "extremes", lambda b, a, level, n, rng: between((a - b).mean(), resampled(a - b, n, rng), 0.0),
    "Your interval runs from the smallest to the largest resample.", "Take quantiles, by `level`.",
)  # fmt: skip
interval_mistake(
    "one_standard_error",
    lambda b, a, level, n, rng: (
        float((a - b).mean()), float((a - b).mean() - (a - b).std() / len(a) ** 0.5),
        float((a - b).mean() + (a - b).std() / len(a) ** 0.5),
    ),
    "Your interval is one standard error to each side.", "How many standard errors depends on `level`.",
)  # fmt: skip
interval_mistake(
    "without_replacement",
    lambda b, a, level, n, rng: (float((a - b).mean()), float((a - b).mean()), float((a - b).mean())),
    "Your resamples are the sample again: drawn without replacement?", "Draw with replacement.",
)  # fmt: skip
interval_mistake(
    "seed_ignored",
    lambda b, a, level, n, rng: between(
        (a - b).mean(), resampled(a - b, n, np.random.default_rng()), (1 - level) / 2
    ),
    "Your interval differs from run to run.", "Make the generator from `seed`.",
)  # fmt: skip
interval_mistake(
    "low_and_high_swapped",
    lambda b, a, level, n, rng: between((a - b).mean(), resampled(a - b, n, rng), (1 + level) / 2),
    "Your low end is above your high end.", "Return (mean, low, high).",
)  # fmt: skip


def se_mistake(name: str, formula: Counts, says: str, next_step: str) -> None:
    def function(lost: int, gained: int, n: int) -> float:
        if n < 1 or lost < 0 or gained < 0 or lost + gained > n:
            raise ValueError("n must")
        return math.sqrt(max(0.0, formula(lost, gained, n)))

    problem.mistake(name=name, replaces="paired_binary_se", says=says, next_step=next_step)(function)


VARIANCE = "The variance is the mean square minus the squared mean; the standard error divides by the root of n."

se_mistake("se_without_the_mean", lambda b, c, n: (b + c) / n**2, "Your variance is the mean square alone.", VARIANCE)
se_mistake(
    "se_independent", lambda b, c, n: (b / n * (1 - b / n) + c / n * (1 - c / n)) / n,
    "Your standard error takes lost and gained for independent.", "An item can't be both: their covariance counts.",
)  # fmt: skip
se_mistake(
    "se_squared",
    lambda b, c, n: (((b + c) / n - ((c - b) / n) ** 2) / n) ** 2,
    "Your standard error is a variance.",
    VARIANCE,
)
se_mistake(
    "se_of_an_item",
    lambda b, c, n: (b + c) / n - ((c - b) / n) ** 2,
    "Your standard error is one item's spread.",
    VARIANCE,
)
se_mistake(
    "se_n_minus_1", lambda b, c, n: ((b + c) / n - ((c - b) / n) ** 2) / max(1, n - 1),
    "Your variance is divided by n - 1.", "The contract divides by n.",
)  # fmt: skip
se_mistake(
    "se_sum_squared", lambda b, c, n: ((b + c) / n - ((c + b) / n) ** 2) / n,
    "Your mean counts lost and gained items alike.", "A lost item counts -1 in the mean.",
)  # fmt: skip
se_mistake(
    "se_of_changed_items", lambda b, c, n: 1 / max(1, b + c) - ((c - b) / max(1, b + c)) ** 2 / max(1, b + c),
    "Your standard error is over the items that changed.", "Items that stayed the same count as 0.",
)  # fmt: skip


def front_mistake(
    name: str, dominated: Callable[[tuple[float, float], tuple[float, float]], bool], says: str, next_step: str
) -> None:
    """Register a wrong domination: `dominated(point, other)` says whether the other one rules the point out."""

    def function(points: Mapping[str, tuple[float, float]]) -> list[str]:
        if not points:
            raise ValueError("candidate")
        if any(math.isnan(number) for point in points.values() for number in point):
            raise ValueError("NaN")
        others = {name: [points[other] for other in points if other != name] for name in points}
        return sorted(name for name in points if not any(dominated(points[name], other) for other in others[name]))

    problem.mistake(name=name, replaces="pareto_front", says=says, next_step=next_step)(function)


def beaten(point: tuple[float, float], other: tuple[float, float]) -> bool:
    return other[0] >= point[0] and other[1] <= point[1]


DOMINATES = "One dominates another if it's at least as good in both numbers and better in one."

front_mistake(
    "equals_rule_each_other_out", beaten, "Your front drops duplicates.",
    "Equal candidates don't dominate each other.",
)  # fmt: skip
front_mistake(
    "better_in_both", lambda p, o: o[0] > p[0] and o[1] < p[1],
    "Your front keeps candidates that another equals in one number and beats in the other.", DOMINATES,
)  # fmt: skip
front_mistake(
    "forgetting_maximised", lambda p, o: o[0] >= p[0] and o[1] >= p[1] and o != p,
    "Your front takes forgetting for good.",
    "Less forgetting is better.",
)  # fmt: skip
front_mistake(
    "quality_minimised", lambda p, o: o[0] <= p[0] and o[1] <= p[1] and o != p, "Your front takes quality for bad.",
    "More quality is better.",
)  # fmt: skip
front_mistake("only_the_best_quality", lambda p, o: o[0] > p[0], "Your front looks at quality alone.", DOMINATES)
front_mistake("only_the_least_forgetting", lambda p, o: o[1] < p[1], "Your front looks at forgetting alone.", DOMINATES)
front_mistake(
    "front_by_ratio", lambda p, o: o[0] * p[1] > p[0] * o[1], "Your front ranks by quality over forgetting.",
    "A ratio always prefers the least forgetting: compare the two numbers one by one.",
)  # fmt: skip
front_mistake(
    "front_by_difference", lambda p, o: o[0] - o[1] > p[0] - p[1], "Your front ranks by quality minus forgetting.",
    "One net number hides the trade: compare the two numbers one by one.",
)  # fmt: skip
front_mistake(
    "better_in_one",
    lambda p, o: o[0] > p[0] or o[1] < p[1],
    "Your front rules out what is beaten in one number.",
    DOMINATES,
)


@problem.mistake(
    replaces="pareto_front", says="Your front isn't in alphabetical order.", next_step="Sort the names at the end."
)
def front_unsorted(points: Mapping[str, tuple[float, float]]) -> list[str]:
    if not points:
        raise ValueError("candidate")
    if any(math.isnan(number) for point in points.values() for number in point):
        raise ValueError("NaN")
    ordered = sorted(points, key=lambda name: (-points[name][0], points[name][1]))
    others = points.values()
    return [n for n in ordered if not any(beaten(points[n], other) and other != points[n] for other in others)]


def verdict_mistake(
    name: str, reject: Callable[[Triple, Triple, float], bool], accept: Callable[[Triple, Triple, float], bool],
    says: str, next_step: str, otherwise: str = "inconclusive",
) -> None:  # fmt: skip
    """Register a wrong verdict by its two conditions; each takes the task's interval, the forgetting's, the limit."""

    def function(task_ci: Triple, worst_forget_ci: Triple, max_forgetting: float) -> str:
        if any(math.isnan(number) for number in (*task_ci, *worst_forget_ci, max_forgetting)):
            raise ValueError("NaN")
        if reject(task_ci, worst_forget_ci, max_forgetting):
            return "reject"
        return "accept" if accept(task_ci, worst_forget_ci, max_forgetting) else otherwise

    problem.mistake(name=name, replaces="verdict", says=says, next_step=next_step)(function)


def rejects(task: Triple, lost: Triple, limit: float) -> bool:
    return task[2] <= 0 or lost[1] > limit


def accepts(task: Triple, lost: Triple, limit: float) -> bool:
    return task[1] > 0 and lost[2] <= limit


LINE = "Draw both intervals on a line, with 0 and the limit, and say what each position means."

verdict_mistake(
    "limit_itself_refused", rejects, lambda t, f, m: t[1] > 0 and f[2] < m,
    "Your verdict doesn't accept the limit itself.",
    "Up to the limit is not too much.",
)  # fmt: skip
verdict_mistake(
    "limit_itself_rejected", lambda t, f, m: t[2] <= 0 or f[1] >= m, accepts, "Your verdict rejects from the limit on.",
    "Only above the limit is too much.",
)  # fmt: skip
verdict_mistake(
    "nothing_is_improvement", rejects, lambda t, f, m: t[1] >= 0 and f[2] <= m,
    "Your verdict takes a low end of 0 for better.",
    "0 is no improvement.",
)  # fmt: skip
verdict_mistake(
    "nothing_is_open", lambda t, f, m: t[2] < 0 or f[1] > m, accepts, "Your verdict leaves a high end of 0 open.",
    "At most 0 is no improvement.",
)  # fmt: skip
verdict_mistake(
    "verdict_ignores_forgetting", lambda t, f, m: t[2] <= 0, lambda t, f, m: t[1] > 0,
    "Your verdict looks at the task alone.", LINE,
)  # fmt: skip
verdict_mistake(
    "verdict_ignores_the_task", lambda t, f, m: f[1] > m, lambda t, f, m: f[2] <= m,
    "Your verdict looks at forgetting alone.", LINE,
)  # fmt: skip
verdict_mistake(
    "means_only",
    lambda t, f, m: t[0] <= 0 or f[0] > m,
    lambda t, f, m: True,
    "Your verdict looks at the means alone.",
    LINE,
)
verdict_mistake(
    "inconclusive_is_accept", rejects, accepts, "Your verdict accepts what isn't decided.", LINE, otherwise="accept"
)
verdict_mistake(
    "inconclusive_is_reject", rejects, accepts, "Your verdict rejects what isn't decided.", LINE, otherwise="reject"
)


def unchecked(name: str, replaces: str, function: Callable[..., Any], says: str) -> None:
    step = "Check each argument before using it, and name it in the message of a ValueError."
    problem.mistake(name=name, replaces=replaces, says=says, next_step=step)(function)


def cut(before: Sequence[float], after: Sequence[float]) -> np.ndarray:
    count = min(len(before), len(after))
    pair = refuse(before[:count], after[:count])
    return pair[1] - pair[0]


def empty_is_zero(before: Sequence[float], after: Sequence[float]) -> np.ndarray:
    if len(before) == len(after) == 0:
        return np.zeros(1)
    pair = refuse(before, after)
    return pair[1] - pair[0]


def nan_passes(before: Sequence[float], after: Sequence[float]) -> np.ndarray:
    if len(before) != len(after):
        raise ValueError("length")
    if len(before) == 0:
        raise ValueError("empty")
    return np.asarray(after, dtype=float) - np.asarray(before, dtype=float)


def common_suites(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]],
    higher_is_better: Mapping[str, bool] | None = None,
) -> dict[str, object]:  # fmt: skip
    names = sorted(set(before) & set(after))
    if not names or set(higher_is_better or {}) - set(before):
        raise ValueError("suite")
    turn = {name: 1 if (higher_is_better or {}).get(name, True) else -1 for name in names}
    lost: dict[str, float] = {}
    for name in names:
        old, new = refuse(before[name], after[name])
        lost[name] = float((old - new).mean()) * turn[name]
    worst = max(lost, key=lambda name: lost[name])
    return {"per_suite": lost, "mean": average(lost), "worst": lost[worst], "worst_suite": worst}


def any_counts(lost: int, gained: int, n: int) -> float:
    return math.sqrt(abs((lost + gained) / n - ((gained - lost) / n) ** 2) / n)


unchecked("truncates_to_the_shorter", "differences", cut, "Your function drops the items that have no partner.")
unchecked("empty_gives_zero", "differences", empty_is_zero, "Your function gives 0 for no items.")
unchecked("nan_passes", "differences", nan_passes, "A NaN among the scores passes through your function.")
unchecked("common_suites_only", "forgetting", common_suites, "Your scorecard drops suites that one side lacks.")
unchecked("counts_unchecked", "paired_binary_se", any_counts, "Impossible counts pass through your standard error.")
