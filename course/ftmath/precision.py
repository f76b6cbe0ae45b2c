"""How sure a score is: items in groups, seeds beside items, how many items it takes, judges who count length."""

import math
from statistics import NormalDist

import torch
from torch import Tensor


def in_groups(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return each group's sum of scores and its size, both (groups,)."""
    if scores.shape != groups.shape or scores.ndim != 1:
        raise ValueError(f"scores and groups must be (items,) alike, got {tuple(scores.shape)}, {tuple(groups.shape)}")
    names, place = groups.unique(return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"groups must hold at least 2 groups, got {len(names)}: one group says nothing about others")
    sums, sizes = (torch.zeros(len(names), dtype=torch.float64) for _ in range(2))
    return sums.index_add(0, place, scores.double()), sizes.index_add(0, place, torch.ones_like(scores.double()))


def clustered_error(scores: Tensor, groups: Tensor) -> float:
    """Return the standard error of the mean of scores (items,) whose items come in groups (items,) of whole numbers.

    Groups are independent of each other, items of one group needn't be (arXiv:2411.00640, section 2.2). What counts is
    each group's sum of distances from the mean. Groups of one item give the usual error.

    >>> round(clustered_error(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1])), 4)
    0.5
    >>> round(clustered_error(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0, 1, 2, 3])), 4)
    0.2887

    Errors: ValueError for sides of different shapes, or fewer than two groups.
    """
    sums, sizes = in_groups(scores, groups)
    apart = sums - sizes * (sums.sum() / sizes.sum())
    count = len(sums)
    return float((apart.square().sum() * count / (count - 1)).sqrt() / sizes.sum())


def design_effect(scores: Tensor, groups: Tensor) -> float:
    """Return how many times larger the variance of the mean is than that of as many independent items.

    With groups of m items of correlation rho it's about 1 + (m - 1) rho (Kish 1965). Items divided by it are what the
    sample is worth.

    >>> round(design_effect(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1])), 4)
    3.0

    Errors: those of `clustered_error`, and ValueError for scores that are all equal.
    """
    single = float(scores.double().var()) / len(scores)
    if single == 0:
        raise ValueError("scores must differ: without any spread there is nothing to compare")
    return clustered_error(scores, groups) ** 2 / single


def clustered_interval(
    scores: Tensor, groups: Tensor, level: float = 0.95, resamples: int = 2000, generator: torch.Generator | None = None
) -> tuple[float, float, float]:
    """Return the mean of scores (items,) and a bootstrap interval that draws whole groups (items,), not items.

    >>> clustered_interval(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0, 0, 1]))
    (0.5, 0.5, 0.5)

    Errors: those of `clustered_error`, and ValueError for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be strictly between 0 and 1, got {level}")
    sums, sizes = in_groups(scores, groups)
    drawn = torch.randint(len(sums), (resamples, len(sums)), generator=generator)
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return float(sums.sum() / sizes.sum()), low, high


def variance_parts(scores: Tensor) -> tuple[float, float, float]:
    """Return the variances of scores (seeds, items) that lie between seeds, between items, and in what is left.

    A score is a mean, plus what its seed adds to all items, plus what its item adds for all seeds, plus a rest; the
    parts are estimated from the mean squares of rows, columns and rest, and are 0 where these say less than nothing.

    >>> variance_parts(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    (2.0, 0.5, 0.0)

    Errors: ValueError for fewer than two seeds or two items.
    """
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise ValueError(f"scores must be (seeds, items), two of each at least, got {tuple(scores.shape)}")
    table, (seeds, items) = scores.double(), scores.shape
    rows, columns = table.mean(1, keepdim=True), table.mean(0, keepdim=True)
    rest = float((table - rows - columns + table.mean()).square().sum()) / ((seeds - 1) * (items - 1))
    by_seed = (items * float(rows.var()) - rest) / items
    by_item = (seeds * float(columns.var()) - rest) / seeds
    return max(0.0, by_seed), max(0.0, by_item), rest


def error_of_mean(parts: tuple[float, float, float], seeds: int, items: int) -> float:
    """Return the standard error of a mean over some seeds and items, from `variance_parts`.

    More items shrink what belongs to items; what belongs to seeds only more runs shrink.

    >>> error_of_mean((0.04, 0.0, 0.0), seeds=4, items=10), error_of_mean((0.04, 0.0, 0.0), seeds=4, items=10_000)
    (0.1, 0.1)
    """
    by_seed, by_item, rest = parts
    return math.sqrt(by_seed / seeds + by_item / items + rest / (seeds * items))


def power_of(items: int, gain: float, changed: float, level: float = 0.95) -> float:
    """Return the chance that a paired comparison on so many items shows a gain in accuracy that is there.

    `changed` is the share of items whose answer goes from right to wrong or from wrong to right, at least `gain`. By
    the normal approximation of McNemar's test, two-sided.

    >>> round(power_of(500, gain=0.05, changed=0.15), 2)
    0.83

    Errors: those of `items_needed`.
    """
    demand_change(gain, changed)
    z = NormalDist().inv_cdf((1 + level) / 2)
    spread = math.sqrt(changed - gain**2)
    return NormalDist().cdf((math.sqrt(items) * gain - z * math.sqrt(changed)) / spread) if spread else 1.0


def items_needed(gain: float, changed: float, power: float = 0.8, level: float = 0.95) -> int:
    """Return how many items a paired comparison takes to show a gain in accuracy with some power.

    `changed` as in `power_of`. The formula is Connor's (Biometrics 43:207, 1987): (z_level sqrt(changed) + z_power
    sqrt(changed - gain^2))^2 / gain^2. Items in groups: multiply by `design_effect`.

    >>> items_needed(gain=0.05, changed=0.15), items_needed(gain=0.02, changed=0.15)
    (469, 2941)

    Errors: ValueError unless 0 < gain <= changed <= 1.
    """
    demand_change(gain, changed)
    normal = NormalDist()
    z_level, z_power = normal.inv_cdf((1 + level) / 2), normal.inv_cdf(power)
    return math.ceil((z_level * math.sqrt(changed) + z_power * math.sqrt(changed - gain**2)) ** 2 / gain**2)


def demand_change(gain: float, changed: float) -> None:
    if not 0 < gain <= changed <= 1:
        raise ValueError(f"gain must be above 0 and at most changed, which is at most 1, got {gain} and {changed}")


def equal_length_wins(wins: Tensor, longer_by: Tensor, steps: int = 50) -> float:
    """Return the win rate that a judge would give at equal length: a logistic fit of wins on the difference in length.

    `wins` (pairs,) are 1, 0 or one half for a tie; `longer_by` (pairs,) is how much longer the judged model's answer is
    than the other one's, in any unit. The idea is length-controlled AlpacaEval's (arXiv:2404.04475).

    >>> round(equal_length_wins(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([2.0, 1.0, -1.0, -2.0])), 2)
    0.5

    Errors: ValueError for sides of different shapes, or lengths that don't differ.
    """
    if wins.shape != longer_by.shape or wins.ndim != 1 or not float(longer_by.double().std()) > 0:
        raise ValueError("wins and longer_by must be (pairs,) alike, and the lengths must differ between pairs")
    x = torch.stack([torch.ones_like(longer_by.double()), longer_by.double() / longer_by.double().std()], dim=1)
    weights = torch.zeros(2, dtype=torch.float64)
    for _ in range(steps):  # Newton's method; the small ridge keeps it finite where length decides every pair
        chance = (x @ weights).sigmoid()
        curvature = x.T @ (x * (chance * (1 - chance))[:, None]) + 1e-3 * torch.eye(2, dtype=torch.float64)
        weights = weights + torch.linalg.solve(curvature, x.T @ (wins.double() - chance) - 1e-3 * weights)
    return float(weights[0].sigmoid())


__all__ = [
    "clustered_error", "clustered_interval", "design_effect", "equal_length_wins", "error_of_mean", "items_needed",
    "power_of", "variance_parts",
]  # fmt: skip
