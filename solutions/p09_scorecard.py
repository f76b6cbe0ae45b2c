"""A scorecard of task quality against forgetting, with intervals: contracts and references.

Every comparison is paired: the same items, in the same order, before and after tuning.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def improvement(before: Sequence[float], after: Sequence[float], higher_is_better: bool = True) -> float:
    """Return by how much the mean score got better: positive is good, whichever way the score points.

    `before` and `after` hold one score for each item, the same items in the same order. Where a lower score is better
    (a loss, a perplexity) the change counts the other way round.

    Errors: ValueError naming `length` (they differ, even if one holds nothing), `empty` (no items in both) or `NaN` (a
    score that is none).

    >>> improvement([0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0])
    0.5
    >>> improvement([2.0, 4.0], [1.0, 3.0], higher_is_better=False)
    1.0
    >>> improvement([0.5, 1.0], [float("nan"), 1.0])
    Traceback (most recent call last):
    ValueError: NaN: a score must be a number
    """
    change = float(np.mean(differences(before, after)))
    return change if higher_is_better else -change


def forgetting(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]],
    higher_is_better: Mapping[str, bool] | None = None,
) -> dict[str, object]:  # fmt: skip
    """Return what was forgotten: a dict with the keys `per_suite`, `mean`, `worst` and `worst_suite`.

    `before` and `after` map the name of a suite to its items' scores. `per_suite` maps the name to the mean score lost
    there: positive means forgotten, negative means improved, and is kept. `mean` is over suites, each counted once
    whatever its number of items; `worst` is the largest of them, and `worst_suite` its name, the first in alphabetical
    order among equals. `higher_is_better` says for a suite which way its score points; a suite that it doesn't name,
    and every suite where it's None, is better when higher.

    Errors: ValueError naming `suite` (none at all, not the same in both, or a direction for an unknown one), and those
    of `improvement`.

    >>> card = forgetting({"copy": [1.0, 1.0], "sort": [1.0, 0.0]}, {"copy": [1.0, 0.0], "sort": [1.0, 1.0]})
    >>> card["per_suite"], card["mean"], card["worst"], card["worst_suite"]
    ({'copy': 0.5, 'sort': -0.5}, 0.0, 0.5, 'copy')

    Always: among equals the alphabet decides, and a loss that rose was forgotten.

    >>> before = {"sort": [1.0], "copy": [1.0], "loss": [2.0]}
    >>> card = forgetting(before, {"sort": [0.5], "copy": [0.5], "loss": [2.5]}, {"loss": False})
    >>> card["worst"], card["worst_suite"]
    (0.5, 'copy')
    """
    if not before or set(before) != set(after):
        raise ValueError(f"suite: both sides need the same ones, got {sorted(before)} and {sorted(after)}")
    directions = higher_is_better or {}
    if unknown := set(directions) - set(before):
        raise ValueError(f"suite: a direction is given for {sorted(unknown)}, which have no scores")
    gained = {name: improvement(before[name], after[name], directions.get(name, True)) for name in sorted(before)}
    lost = {name: -change for name, change in gained.items()}
    # max keeps the first of equals, and the names are sorted.
    worst = max(lost, key=lambda name: lost[name])
    return {
        "per_suite": lost, "mean": sum(lost.values()) / len(lost), "worst": lost[worst], "worst_suite": worst,
    }  # fmt: skip


def paired_ci(
    before: Sequence[float], after: Sequence[float], level: float = 0.95, n_boot: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean of the paired differences after - before, and a bootstrap interval for it: (mean, low, high).

    The interval holds the middle `level` of the means of `n_boot` resamples. A resample draws as many items as there
    are, with replacement, and keeps each item's two scores together. The mean is that of the items themselves, not of
    the resamples. The same `seed` gives the same interval. (Any interval that agrees within the tolerance on about 60
    items without outliers, such as mean ± z · standard error, is accepted too.) Where all items changed alike, as a
    single item does, no resample differs, and the interval has no width.

    Errors: those of `improvement`, and ValueError naming `level` (not strictly between 0 and 1, or NaN) or `n_boot`
    (below 1).

    >>> paired_ci([0.0, 1.0, 0.5], [0.25, 1.25, 0.75])
    (0.25, 0.25, 0.25)

    Always: a higher level gives no narrower interval.

    >>> before, after = [0.0, 0.5, 1.0, 0.5], [0.5, 0.25, 1.5, 1.0]
    >>> (_, low, high), (_, lowest, highest) = paired_ci(before, after, 0.5), paired_ci(before, after, 0.99)
    >>> lowest <= low <= high <= highest
    True
    """
    change = differences(before, after)
    if not 0 < level < 1:
        raise ValueError(f"level must be strictly between 0 and 1, got {level}")
    if n_boot < 1:
        raise ValueError(f"n_boot must be at least 1, got {n_boot}")
    drawn = np.random.default_rng(seed).integers(len(change), size=(n_boot, len(change)))
    tail = (1 - level) / 2
    means = change[drawn].mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(change.mean()), float(low), float(high)


def paired_binary_se(lost: int, gained: int, n: int) -> float:
    """Return the standard error of the change in accuracy on n items, of which some were lost and some gained.

    An item's difference is -1 if it was right before and is wrong now (lost), 1 if it's the other way round (gained),
    and 0 otherwise. The standard error is the square root of their variance, the mean squared distance from their mean
    (divided by n, not by n - 1), over the square root of n.

    Errors: ValueError containing `n must` if n is below 1 or below lost + gained, or a count is negative.

    >>> round(paired_binary_se(lost=1, gained=1, n=8), 4)
    0.1768

    Always: where all items changed alike, nothing is left to vary.

    >>> paired_binary_se(lost=0, gained=5, n=5)
    0.0
    """
    if n < 1 or lost < 0 or gained < 0 or lost + gained > n:
        raise ValueError(f"n must be at least 1 and at least lost + gained, got n={n}, lost={lost}, gained={gained}")
    mean, mean_square = (gained - lost) / n, (lost + gained) / n
    return math.sqrt(mean_square - mean**2) / math.sqrt(n)


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of the candidates that no other one dominates, in alphabetical order.

    `points` maps a candidate's name to (quality, forgetting): more quality and less forgetting are better. One
    dominates another if it's at least as good in both and better in one; equal candidates don't dominate each other.

    Errors: ValueError naming `candidate` (there is none) or `NaN`.

    >>> pareto_front({"full": (0.9, 0.3), "lora": (0.8, 0.1), "prompt": (0.7, 0.2)})
    ['full', 'lora']

    Always: equal candidates stand or fall together.

    >>> pareto_front({"lora": (0.8, 0.1), "dora": (0.8, 0.1), "prompt": (0.8, 0.2)})
    ['dora', 'lora']
    """
    if not points:
        raise ValueError("a front needs at least one candidate")
    if any(math.isnan(number) for point in points.values() for number in point):
        raise ValueError(f"NaN: quality and forgetting must be numbers, got {dict(points)}")
    return sorted(name for name, point in points.items() if not any(dominates(o, point) for o in points.values()))


def verdict(
    task_ci: tuple[float, float, float], worst_forget_ci: tuple[float, float, float], max_forgetting: float
) -> str:
    """Return `"accept"`, `"reject"` or `"inconclusive"` for a tuned model.

    Both intervals are (mean, low, high): of the improvement on the task, and of what the worst suite forgot.

    - `"reject"` where the interval says that it didn't improve (high <= 0) or forgot too much (low > max_forgetting);
    - `"accept"` where it says that it improved (low > 0) and didn't forget too much (high <= max_forgetting);
    - `"inconclusive"` otherwise: more items are needed.

    An infinite `max_forgetting` sets no limit.

    Errors: ValueError naming `NaN` if one of the seven numbers is none.

    >>> verdict((0.2, 0.1, 0.3), (0.02, -0.01, 0.05), max_forgetting=0.05)
    'accept'
    >>> verdict((0.2, 0.0, 0.4), (0.0, 0.0, 0.0), max_forgetting=0.05)
    'inconclusive'
    """
    if any(math.isnan(number) for number in (*task_ci, *worst_forget_ci, max_forgetting)):
        raise ValueError("NaN: intervals and max_forgetting must be numbers")
    (_, task_low, task_high), (_, forget_low, forget_high) = task_ci, worst_forget_ci
    if task_high <= 0 or forget_low > max_forgetting:
        return "reject"
    return "accept" if task_low > 0 and forget_high <= max_forgetting else "inconclusive"


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Say whether one (quality, forgetting) is at least as good in both and not the same."""
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def differences(before: Sequence[float], after: Sequence[float]) -> np.ndarray:
    """Return after - before for each item, or raise what is wrong with the two."""
    if len(before) != len(after):
        raise ValueError(f"length: before and after hold the same items, got {len(before)} and {len(after)}")
    if len(before) == 0:
        raise ValueError("empty: a comparison needs at least one item")
    change = np.asarray(after) - np.asarray(before)
    if np.isnan(change).any():
        raise ValueError("NaN: a score must be a number")
    return change
