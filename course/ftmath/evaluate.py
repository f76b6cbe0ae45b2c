"""Is the difference real, and is it worth it: paired intervals, exact tests, fronts, samples that stand for others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor


def paired_interval(
    before: Tensor, after: Tensor, level: float = 0.95, resamples: int = 2000, generator: torch.Generator | None = None
) -> tuple[float, float, float]:
    """Return the mean of after - before over items (items,), and a bootstrap interval that keeps the pairs together.

    >>> paired_interval(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 1.5]))
    (0.5, 0.5, 0.5)

    Errors: ValueError for sides of different shapes, no items, or a level outside (0, 1).
    """
    if before.shape != after.shape or before.ndim != 1 or len(before) == 0:
        raise ValueError(f"before and after must be (items,) alike, got {tuple(before.shape)}, {tuple(after.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level must be strictly between 0 and 1, got {level}")
    change = (after - before).double()
    drawn = torch.randint(len(change), (resamples, len(change)), generator=generator)
    means = change[drawn].mean(1)
    low, high = torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return float(change.mean()), low, high


def wilson_interval(right: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return an interval for a share of right items, of so many (Wilson, J. Am. Stat. Assoc. 22:209, 1927).

    Unlike the share plus or minus two standard errors, it has a width where all items are right or none is.

    >>> tuple(round(end, 3) for end in wilson_interval(95, 100)), round(wilson_interval(100, 100)[0], 3)
    ((0.888, 0.978), 0.963)

    Errors: ValueError for no items, more right ones than there are, or a level outside (0, 1).
    """
    if not 0 <= right <= count or count == 0:
        raise ValueError(f"right must be within 0..count and count at least 1, got {right} of {count}")
    if not 0 < level < 1:
        raise ValueError(f"level must be strictly between 0 and 1, got {level}")
    z, share = NormalDist().inv_cdf((1 + level) / 2), right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: are lost and gained items two sides of a fair coin?

    >>> round(mcnemar(10, 22), 4)
    0.0501
    """
    count = lost + gained
    tail = sum(math.comb(count, number) for number in range(min(lost, gained) + 1)) / 2**count
    return min(1.0, 2 * tail)


def paired_error(lost: int, gained: int, count: int) -> float:
    """Return the standard error of the change in accuracy on `count` items, of which some were lost and some gained.

    An item's difference is -1, 0 or 1; the items that agree count too, since they say that little happens.

    >>> round(paired_error(lost=30, gained=18, count=500), 4)
    0.0138

    Errors: ValueError for negative counts, or more items lost and gained than there are.
    """
    if count < 1 or lost < 0 or gained < 0 or lost + gained > count:
        raise ValueError(f"count must be at least 1 and lost + gained, got {count} for {lost} and {gained}")
    return math.sqrt(lost + gained - (lost - gained) ** 2 / count) / count


Interval = tuple[float, float, float]


def accuracy_change(before: Tensor, after: Tensor, level: float = 0.95) -> Interval:
    """Return the change in accuracy over items (items,) that are 1 or 0 before and after, and an interval for it.

    The interval is Agresti and Min's (Statistics in Medicine 24:729, 2005): half an item is added to each of the four
    kinds, so that items which all stay the same still leave a width. A bootstrap would say that nothing can happen.

    >>> tuple(round(value, 3) for value in accuracy_change(torch.ones(200), torch.ones(200)))
    (0.0, -0.01, 0.01)

    Errors: ValueError for sides of different shapes, no items, or a level outside (0, 1).
    """
    if before.shape != after.shape or before.ndim != 1 or len(before) == 0:
        raise ValueError(f"before and after must be (items,) alike, got {tuple(before.shape)}, {tuple(after.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level must be strictly between 0 and 1, got {level}")
    change = (after - before).double()
    lost, gained, count = float((change < 0).sum()) + 0.5, float((change > 0).sum()) + 0.5, len(change) + 2
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(lost + gained - (lost - gained) ** 2 / count) / count
    middle = (gained - lost) / count
    return float(change.mean()), max(-1.0, middle - half), min(1.0, middle + half)


def verdict(gain: Interval, drop: Interval, most: float) -> str:
    """Return "accept", "reject" or "inconclusive" for a run, from intervals (mean, low, high).

    `gain` is what the task gained, `drop` what the worst skill lost, `most` the loss that is put up with. Reject what
    surely didn't gain (high <= 0) or surely lost too much (low > most); accept what surely gained (low > 0) and surely
    didn't lose too much (high <= most); between these more items are needed.

    >>> verdict((0.9, 0.8, 1.0), (0.02, 0.0, 0.04), most=0.05), verdict((0.9, 0.8, 1.0), (0.04, 0.0, 0.08), most=0.05)
    ('accept', 'inconclusive')
    """
    if gain[2] <= 0 or drop[1] > most:
        return "reject"
    return "accept" if gain[1] > 0 and drop[2] <= most else "inconclusive"


@dataclass(frozen=True, slots=True)
class Scorecard:
    """What a run did: `gain` on its task, `drops` of each skill (positive is a loss), the `worst` of them, a verdict.

    >>> Scorecard((0.9, 0.8, 1.0), {"old": (0.0, 0.0, 0.1)}, "old", (0.0, 0.0, 0.1), "inconclusive").worst
    'old'
    """

    gain: Interval
    drops: dict[str, Interval]
    worst: str
    drop: Interval
    verdict: str


def scorecard(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], task: str, most: float, level: float = 0.95
) -> Scorecard:
    """Return the card of a run from right and wrong items (items,) of its task and of each skill, before and after.

    Each skill's interval has the level 1 - (1 - level) / skills (Bonferroni), so that all hold at once; the largest
    drop then lies between the largest of their lower ends and of their upper ends, whichever skill it is.

    >>> right, wrong = torch.ones(100), torch.zeros(100)
    >>> scorecard({"new": wrong, "old": right}, {"new": right, "old": right}, "new", most=0.05).verdict
    'accept'
    """
    skills = [name for name in before if name != task]
    each = 1 - (1 - level) / len(skills)
    drops = {name: accuracy_change(after[name], before[name], each) for name in skills}
    worst = max(drops, key=lambda name: drops[name][0])
    drop = (drops[worst][0], max(low for _, low, _ in drops.values()), max(high for _, _, high in drops.values()))
    gain = accuracy_change(before[task], after[task], level)
    return Scorecard(gain, drops, worst, drop, verdict(gain, drop, most))


def brier_score(confidence: Tensor, right: Tensor) -> float:
    """Return the mean squared distance of confidences (items,) from what came true, 1 or 0 (Brier 1950).

    0 is best. Saying 1/2 to everything scores 0.25.

    >>> round(brier_score(torch.tensor([0.9, 0.6]), torch.tensor([1.0, 0.0])), 3)
    0.185
    """
    return float((confidence.double() - right.double()).square().mean())


def reliability(confidence: Tensor, right: Tensor, bins: int = 10) -> list[tuple[float, float, int]]:
    """Return mean confidence, share of right ones and count of each bin that holds an item, from low to high.

    Bins are of equal width over 0 to 1; a confidence of 1 is in the last one.

    >>> reliability(torch.tensor([0.05, 0.92, 0.98]), torch.tensor([0.0, 1.0, 0.0]))
    [(0.05, 0.0, 1), (0.95, 0.5, 2)]

    Errors: ValueError for sides of different shapes, no items, or a confidence outside 0 to 1.
    """
    if confidence.shape != right.shape or confidence.ndim != 1 or len(confidence) == 0:
        raise ValueError(f"both must be (items,) alike, got {tuple(confidence.shape)}, {tuple(right.shape)}")
    if float(confidence.min()) < 0 or float(confidence.max()) > 1:
        raise ValueError(f"confidences lie within 0 and 1, got {float(confidence.min())} to {float(confidence.max())}")
    place = (confidence.double() * bins).long().clamp(max=bins - 1)
    rows: list[tuple[float, float, int]] = []
    for number in place.unique().tolist():
        here = place == number
        means = [round(float(side.double()[here].mean()), 6) for side in (confidence, right)]
        rows.append((means[0], means[1], int(here.sum())))
    return rows


def calibration_error(confidence: Tensor, right: Tensor, bins: int = 10) -> float:
    """Return the expected calibration error: the mean distance of confidence and share of right ones, by bins' counts.

    arXiv:1706.04599, equation 3. It isn't 0 for honest confidences: within a bin the share of right ones is chance.

    >>> round(calibration_error(torch.tensor([0.05, 0.92, 0.98]), torch.tensor([0.0, 1.0, 0.0])), 4)
    0.3167

    Errors: those of `reliability`.
    """
    rows = reliability(confidence, right, bins)
    return sum(count * abs(sure - share) for sure, share, count in rows) / len(confidence)


def kappa(table: Tensor) -> float:
    """Return Cohen's kappa (1960) of a table (labels, labels) of counts: agreement beyond what the margins give alone.

    >>> round(kappa(torch.tensor([[20.0, 5.0], [10.0, 15.0]])), 4)
    0.4

    Errors: ValueError where chance agrees fully, so that nothing is left to agree on.
    """
    share = table.double() / table.sum()
    observed, by_chance = float(share.diagonal().sum()), float(share.sum(0) @ share.sum(1))
    if by_chance >= 1:
        raise ValueError("kappa needs two labels: both judges gave one label to all")
    return (observed - by_chance) / (1 - by_chance)


def pareto_set(points: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the names, sorted, of the points that none other beats: all coordinates count as better when higher.

    >>> pareto_set({"full": (0.9, 0.7), "LoRA": (0.9, 0.8), "probe": (0.1, 1.0)})
    ['LoRA', 'probe']
    """

    def beaten(point: Sequence[float]) -> bool:
        return any(
            tuple(other) != tuple(point) and all(a >= b for a, b in zip(other, point, strict=True))
            for other in points.values()
        )

    return sorted(name for name, point in points.items() if not beaten(point))


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k samples is right (arXiv:2107.03374, equation 1).

    >>> pass_at_k(samples=4, correct=2, k=2)
    0.8333333333333334
    """
    if not 1 <= k <= samples or not 0 <= correct <= samples:
        raise ValueError(f"k must be within 1..{samples} and correct within 0..{samples}, got {k} and {correct}")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def effective_sample_size(log_weights: Tensor) -> float:
    """Return how many equal weights spread as these do: (sum w)^2 / sum w^2, from log-weights (count,).

    >>> round(effective_sample_size(torch.tensor([0.0, 0.0, -30.0])), 4)
    2.0
    """
    share = log_weights.double().softmax(0)
    return 1 / float(share.square().sum())


def expected_best(k: int, steps: int = 4000) -> float:
    """Return the mean of the largest of k standard normal scores: what reporting the best of k seeds adds.

    >>> [round(expected_best(k), 2) for k in (1, 2, 3, 5, 10)]
    [0.0, 0.56, 0.85, 1.16, 1.54]
    """
    normal = NormalDist()
    # The largest lies at the quantile u ** (1 / k) of a uniform u; the middle of each step stands for it.
    total = sum(normal.inv_cdf(((step + 0.5) / steps) ** (1 / k)) for step in range(steps)) / steps
    return total + 0.0


__all__ = [
    "Interval", "Scorecard", "accuracy_change", "brier_score", "calibration_error", "effective_sample_size",
    "expected_best", "kappa", "mcnemar", "paired_error", "paired_interval", "pareto_set", "pass_at_k", "reliability",
    "scorecard", "verdict", "wilson_interval",
]  # fmt: skip
