"""The exercises of part 8: evaluation and diagnostics."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ftmath.exercises.exercise import Exercise, Mistake
from ftmath.lora import LoRALinear


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def early_stop(val: Sequence[float], patience: int, min_delta: float = 0.0) -> tuple[int, int]:
    """Return (best_epoch, stop_epoch), both counted from 0.

    An epoch is the new best if its loss lies *below* the best one so far by more than `min_delta`. The run stops at the
    epoch that is the `patience`-th in a row without a new best; it goes to the last epoch if that never happens.

    >>> early_stop([1.9, 1.5, 1.6, 1.7, 1.2], patience=2)
    (1, 3)
    """
    best = 0
    for epoch in range(len(val)):
        if val[epoch] < val[best] - min_delta:
            best = epoch
        elif epoch - best >= patience:
            return best, epoch
    return best, len(val) - 1


def worst_drop(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, float]:
    """Return the skill that lost most, and how much: before - after, in the score's own units.

    It is the first in alphabetical order among equals; where everything got better the drop is negative.

    >>> worst_drop({"copy": 0.5, "sort": 1.0}, {"copy": 0.25, "sort": 1.0})
    ('copy', 0.25)
    """
    drops = {name: before[name] - after[name] for name in sorted(before)}
    worst = max(drops, key=lambda name: drops[name])
    return worst, drops[worst]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of the chance that at least one of k samples is right, of n samples with c right.

    Errors: ValueError naming `k` unless 1 <= k <= n.

    >>> round(pass_at_k(n=4, c=1, k=2), 6)
    0.5
    """
    if not 1 <= k <= n:
        raise ValueError(f"k must be within 1..{n}, got {k}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def reweighted_risk(
    losses: Tensor, domains: Tensor, p_train: Tensor, p_deploy: Tensor
) -> tuple[float, float]:  # fmt: skip
    """Return what the mean loss will be in deployment, and the effective share of the sample.

    `losses` (n,) and `domains` (n,), whole numbers, come from the training distribution, whose domains have the
    probabilities `p_train` (domains,); deployment has `p_deploy`. The risk is the mean of w * loss over the n rows; the
    share is (sum of w)^2 / (n * sum of w^2).

    >>> reweighted_risk(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]), torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]))
    (2.0, 1.0)
    """
    w = (p_deploy / p_train)[domains]  # blank
    risk = (w * losses).mean()
    share = w.sum() ** 2 / (len(w) * (w**2).sum())  # blank
    return float(risk), float(share)


def adapter_report(layer: LoRALinear, x: Tensor, weight_before: Tensor) -> dict[str, bool]:
    """Return five findings about an adapter.

    `x` (batch, d_in) is an input, `weight_before` (d_out, d_in) a copy of the base's weight from before training.

    - `moves`: with the adapter on, some output isn't the base's;
    - `off_is_base`: with `layer.on = False`, the output is `layer.base(x)`, bit for bit;
    - `base_kept`: `layer.base.weight` is `weight_before`, bit for bit;
    - `same_twice`: two calls with the adapter on give the same bits;
    - `merge_agrees`: `layer.merged()(x)` is within 1e-4 of the output with the adapter on again.

    >>> layer = LoRALinear(nn.Linear(3, 2), rank=1, alpha=1)
    >>> adapter_report(layer, torch.ones(1, 3), layer.base.weight.clone())["moves"]
    False
    """
    with torch.no_grad():
        on, again, base = layer(x), layer(x), layer.base(x)
        layer.on = False
        off = layer(x)
        layer.on = True
        return {
            "moves": not torch.equal(on, base),
            "off_is_base": torch.equal(off, base),
            "base_kept": torch.equal(layer.base.weight, weight_before),
            "same_twice": torch.equal(on, again),
            "merge_agrees": bool((layer.merged()(x) - layer(x)).abs().max() <= 1e-4),
        }


def best_epochs(losses: Tensor, domains: Tensor, p_train: Tensor, p_deploy: Tensor) -> tuple[int, int]:
    """Return the epoch with the least mean loss as validated, and the one with the least mean loss in deployment.

    `losses` (epochs, n) hold each validation row's loss after each epoch; the rows are drawn like the training data.
    `domains` (n,), `p_train` and `p_deploy` (domains,) as in exercise 8.4.

    >>> best_epochs(torch.tensor([[3.0, 0.0], [2.0, 2.0]]), torch.tensor([0, 1]), torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1]))
    (0, 1)
    """
    w = (p_deploy / p_train)[domains]
    return int(losses.mean(1).argmin()), int((losses * w).mean(1).argmin())


def pass_change(before: Sequence[int], after: Sequence[int], n: int, k: int) -> tuple[float, float]:
    """Return the mean change of pass@k over problems, and its standard error from the paired differences.

    `before` and `after` hold how many of n samples were right for each problem, the same problems in the same order.
    The error is the root of the differences' mean squared distance from their mean, over the root of their number.

    >>> pass_change([0, 4], [4, 4], n=4, k=1)
    (0.5, 0.3535533905932738)
    """
    change = [pass_at_k(n, b, k) - pass_at_k(n, a, k) for a, b in zip(before, after, strict=True)]
    mean = sum(change) / len(change)
    return mean, math.sqrt(sum((one - mean) ** 2 for one in change)) / len(change)


def paired_differences(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    """Return after - before for each item that was asked both times, in the alphabetical order of the items' names.

    Errors: ValueError naming "common" if no item was asked both times.

    >>> paired_differences({"b": 1.0, "a": 0.0, "c": 1.0}, {"a": 1.0, "b": 0.5, "d": 0.0})
    [1.0, -0.5]
    """
    common = sorted(before.keys() & after.keys())
    if not common:
        raise ValueError("before and after have no common item")
    return [after[name] - before[name] for name in common]


def grouped_interval(
    differences: Sequence[float], groups: Sequence[str], times: float = 1.96
) -> tuple[float, float, float]:
    """Return the mean of the differences and the ends of its interval, mean - times SE and mean + times SE.

    Items of one group aren't independent, groups are. With d the differences, m their mean, n their number and G the
    number of groups, SE^2 is G / (G - 1) times the sum over groups of (sum of d - m within the group)^2, over n^2.

    >>> grouped_interval([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"], times=1.0)
    (0.5, 0.0, 1.0)
    """
    mean = sum(differences) / len(differences)
    sums: dict[str, float] = {}
    for difference, group in zip(differences, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + difference - mean
    factor = len(sums) / (len(sums) - 1)
    error = math.sqrt(factor * sum(one**2 for one in sums.values())) / len(differences)
    return mean, mean - times * error, mean + times * error


def items_to_ask(gain: float, changed: float, effect: float = 1.0, z_level: float = 1.96, z_power: float = 0.84) -> int:
    """Return how many items show a gain in accuracy, if a share `changed` of them changes; rounded up.

    Independent items: (z_level sqrt(changed) + z_power sqrt(changed - gain^2))^2 / gain^2. A design effect multiplies
    that; round once, at the end.

    >>> items_to_ask(0.1, 0.1), items_to_ask(0.1, 0.1, effect=2.0)
    (77, 153)
    """
    independent = (z_level * math.sqrt(changed) + z_power * math.sqrt(changed - gain**2)) ** 2 / gain**2
    return math.ceil(effect * independent)


def verdict_of(low: float, high: float, margin: float) -> str:
    """Return what an interval of a change says, where a loss of up to `margin` is put up with.

    "better" if all of it lies above 0. "worse" if all of it lies below -margin. "no worse" if all of it lies above
    -margin, but not above 0. Else "more items".

    >>> verdict_of(0.01, 0.05, 0.02), verdict_of(-0.01, 0.03, 0.02), verdict_of(-0.04, 0.05, 0.02)
    ('better', 'no worse', 'more items')
    """
    if low > 0:
        return "better"
    if high < -margin:
        return "worse"
    return "no worse" if low > -margin else "more items"


# ------------------------------------------------------------------------------------------ what people write instead


def stop_is_best(val: Sequence[float], patience: int, min_delta: float = 0.0) -> tuple[int, int]:
    _, stop = early_stop(val, patience, min_delta)
    return stop, stop


def equal_is_better(val: Sequence[float], patience: int, min_delta: float = 0.0) -> tuple[int, int]:
    best = 0
    for epoch in range(len(val)):
        if val[epoch] <= val[best] - min_delta:
            best = epoch
        elif epoch - best >= patience:
            return best, epoch
    return best, len(val) - 1


def any_improvement(val: Sequence[float], patience: int, min_delta: float = 0.0) -> tuple[int, int]:
    return early_stop(val, patience)


def one_more_epoch(val: Sequence[float], patience: int, min_delta: float = 0.0) -> tuple[int, int]:
    return early_stop(val, patience + 1, min_delta)


def relative_drop(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, float]:
    drops = {name: (before[name] - after[name]) / before[name] for name in sorted(before)}
    worst = max(drops, key=lambda name: drops[name])
    return worst, drops[worst]


def largest_change(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, float]:
    drops = {name: abs(before[name] - after[name]) for name in sorted(before)}
    worst = max(drops, key=lambda name: drops[name])
    return worst, drops[worst]


def lowest_score(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, float]:
    worst = min(sorted(after), key=lambda name: after[name])
    return worst, before[worst] - after[worst]


def never_negative(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, float]:
    worst, drop = worst_drop(before, after)
    return worst, max(0.0, drop)


def with_replacement(n: int, c: int, k: int) -> float:
    return 1 - (1 - c / n) ** k


def all_right(n: int, c: int, k: int) -> float:
    return math.comb(c, k) / math.comb(n, k)


def exactly_one(n: int, c: int, k: int) -> float:
    return c * math.comb(n - c, k - 1) / math.comb(n, k)


def risk_and_share(w: Tensor, losses: Tensor) -> tuple[float, float]:
    return float((w * losses).mean()), float(w.sum() ** 2 / (len(w) * (w**2).sum()))


def inverse_weights(losses: Tensor, domains: Tensor, p_train: Tensor, p_deploy: Tensor) -> tuple[float, float]:
    return risk_and_share((p_train / p_deploy)[domains], losses)


def share_not_divided(losses: Tensor, domains: Tensor, p_train: Tensor, p_deploy: Tensor) -> tuple[float, float]:
    risk, share = reweighted_risk(losses, domains, p_train, p_deploy)
    return risk, share * len(losses)


def deployment_weights_only(losses: Tensor, domains: Tensor, p_train: Tensor, p_deploy: Tensor) -> tuple[float, float]:
    return risk_and_share(p_deploy[domains], losses)


def allclose_to_base(layer: LoRALinear, x: Tensor, weight_before: Tensor) -> dict[str, bool]:
    with torch.no_grad():
        kept = torch.allclose(layer.base.weight, weight_before, atol=1e-4)
        return adapter_report(layer, x, weight_before) | {"base_kept": kept}


def left_switched_off(layer: LoRALinear, x: Tensor, weight_before: Tensor) -> dict[str, bool]:
    found = adapter_report(layer, x, weight_before)
    with torch.no_grad():
        return found | {"merge_agrees": bool((layer.merged()(x) - layer.base(x)).abs().max() <= 1e-4)}


def on_against_off(layer: LoRALinear, x: Tensor, weight_before: Tensor) -> dict[str, bool]:
    found = adapter_report(layer, x, weight_before)
    return found | {"off_is_base": found["off_is_base"] and found["moves"]}


def weighted_the_wrong_way(losses: Tensor, domains: Tensor, p_train: Tensor, p_deploy: Tensor) -> tuple[int, int]:
    return best_epochs(losses, domains, p_deploy, p_train)


def one_domain_only(losses: Tensor, domains: Tensor, p_train: Tensor, p_deploy: Tensor) -> tuple[int, int]:
    there = losses[:, domains == int(p_deploy.argmax())]
    return int(losses.mean(1).argmin()), int(there.mean(1).argmin())


def last_epoch(losses: Tensor, domains: Tensor, p_train: Tensor, p_deploy: Tensor) -> tuple[int, int]:
    return len(losses) - 1, best_epochs(losses, domains, p_train, p_deploy)[1]


def unpaired(before: Sequence[int], after: Sequence[int], n: int, k: int) -> tuple[float, float]:
    mean, _ = pass_change(before, after, n, k)
    sides = [pass_change([0] * len(side), side, n, k)[1] for side in (before, after)]
    return mean, math.hypot(*sides)


def pooled(before: Sequence[int], after: Sequence[int], n: int, k: int) -> tuple[float, float]:
    count = len(before)
    rate = [pass_at_k(n * count, sum(side), k) for side in (before, after)]
    return rate[1] - rate[0], pass_change(before, after, n, k)[1]


def spread_of_one(before: Sequence[int], after: Sequence[int], n: int, k: int) -> tuple[float, float]:
    mean, error = pass_change(before, after, n, k)
    return mean, error * math.sqrt(len(before))


def zipped(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    if not before.keys() & after.keys():
        raise ValueError("no common item")
    return [b - a for a, b in zip(before.values(), after.values(), strict=False)]


def lost_as_positive(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    return [-difference for difference in paired_differences(before, after)]


def missing_as_wrong(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    return [after.get(name, 0.0) - before.get(name, 0.0) for name in sorted(before.keys() | after.keys())]


def by_item(differences: Sequence[float], groups: Sequence[str], times: float = 1.96) -> tuple[float, float, float]:
    return grouped_interval(differences, [str(place) for place in range(len(differences))], times)


def mean_of_means(
    differences: Sequence[float], groups: Sequence[str], times: float = 1.96
) -> tuple[float, float, float]:
    inside = {group: [d for d, one in zip(differences, groups, strict=True) if one == group] for group in groups}
    means = [sum(found) / len(found) for found in inside.values()]
    return grouped_interval(means, list(inside), times)


def factor_forgotten(
    differences: Sequence[float], groups: Sequence[str], times: float = 1.96
) -> tuple[float, float, float]:
    count = len(set(groups))
    return grouped_interval(differences, groups, times * math.sqrt((count - 1) / count))


def effect_forgotten(
    gain: float, changed: float, effect: float = 1.0, z_level: float = 1.96, z_power: float = 0.84
) -> int:
    return items_to_ask(gain, changed, 1.0, z_level, z_power)


def half_the_time(
    gain: float, changed: float, effect: float = 1.0, z_level: float = 1.96, z_power: float = 0.84
) -> int:
    return items_to_ask(gain, changed, effect, z_level, 0.0)


def rounded_early(
    gain: float, changed: float, effect: float = 1.0, z_level: float = 1.96, z_power: float = 0.84
) -> int:
    return math.ceil(effect * items_to_ask(gain, changed, 1.0, z_level, z_power))


def zero_alone(low: float, high: float, margin: float) -> str:
    return "better" if low > 0 else "worse" if high < 0 else "no worse"


def by_the_middle(low: float, high: float, margin: float) -> str:
    middle = (low + high) / 2
    return "better" if low > 0 else "worse" if middle < -margin else "no worse"


def margin_on_both_sides(low: float, high: float, margin: float) -> str:
    if low > margin:
        return "better"
    return "worse" if high < -margin else "no worse" if low > -margin else "more items"


# --------------------------------------------------------------------------------------------------- adapters to judge


class Noisy(LoRALinear):
    """An adapter whose dropout was left on: each call changes a little."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (self.on * 0.01) * torch.rand(len(x), self.B.shape[0])


class TwiceAsLoud(LoRALinear):
    """An adapter that is merged with another scale than it runs with."""

    def merged(self) -> nn.Linear:
        self.scale *= 2
        try:
            return super().merged()
        finally:
            self.scale /= 2


class NeverOff(LoRALinear):
    """An adapter whose switch is not read."""

    def forward(self, x: Tensor) -> Tensor:
        on, self.on = self.on, True
        out = super().forward(x)
        self.on = on
        return out


def judged(kind: type[LoRALinear], seed: int, *, trained: bool = True, drift: float = 0.0) -> list[object]:
    """Return the arguments of a report on an adapter of some kind."""
    base = nn.Linear(5, 4)
    with torch.no_grad():
        base.weight.copy_(drawn(seed, 4, 5))
        cast("Tensor", base.bias).copy_(drawn(seed + 1, 4))
    before = base.weight.detach().clone()
    layer = kind(base, 2, 4.0, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        if trained:
            layer.B.copy_(drawn(seed + 2, 4, 2))
        layer.base.weight += drift
    return [layer, drawn(seed + 3, 3, 5), before]


U_TURN = [1.95, 1.55, 1.48, 1.60, 1.90]
SLOW = [2.0, 1.5, 1.5, 1.5, 1.495, 1.49, 1.2]
PLATEAU = [1.0, 0.8, 0.8, 0.8, 0.8]
HALVES = (torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5]))
THIRDS = (torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.6, 0.3]))
ROWS = torch.tensor([0, 0, 0, 1, 0, 0, 2, 0, 1, 1])
LOSSES = drawn(9, 10).abs() + 0.1
EPOCHS = torch.stack(
    [torch.where(ROWS == 0, 2.0 - 0.3 * e, 1.0 + 0.2 * e * e) + 0.4 * (ROWS == 2) * abs(e - 2) for e in range(6)]
)
TWO = torch.tensor([0, 0, 0, 0, 1])
TURNING = torch.stack([torch.where(TWO == 0, (e - 4.0) ** 2 / 4, (e - 1.0) ** 2) for e in range(7)])
ASKED = {f"item {place:02}": float(place % 3 != 0) for place in range(12)}
AGAIN = {name: float(int(name[5:]) % 4 != 1) for name in reversed(list(ASKED)[2:])} | {"item 99": 1.0}
UNEVEN = (list("aaaabbcdddddddd"), [1.0, 1, 1, 0, 0, 0, -1, 1, 1, 1, 1, 1, 0, 1, 1])

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501
EXERCISES = [
    Exercise(
        "8.1", "When to stop, and which epoch to keep", early_stop,
        cases=[(U_TURN, 2), (U_TURN, 1), (U_TURN, 9), (SLOW, 2), (SLOW, 3, 0.02), (PLATEAU, 2), (PLATEAU, 3), ([0.7], 1), (U_TURN, 2, 0.1)],
        hints=["Keep the number of the best epoch; the wait so far is epoch minus best.", "New best: strictly below the best loss minus min_delta.",
               "Return at the first epoch where the wait reaches the patience, else the last epoch."],
        mistakes=[
            Mistake(stop_is_best, "That hands out the weights of the epoch at which the run stopped: `patience` epochs too late."),
            Mistake(equal_is_better, "An equal loss is no improvement: on a plateau such a run never stops."),
            Mistake(any_improvement, "min_delta isn't used: an improvement of 0.005 resets the wait although 0.02 was asked for."),
            Mistake(one_more_epoch, "That waits one epoch longer than `patience`."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "8.2", "The worst drop", worst_drop,
        cases=[({"copy": 0.62, "sort": 0.55, "add": 0.71}, {"copy": 0.61, "sort": 0.40, "add": 0.73}), ({"zog": 0.9, "add": 0.2}, {"zog": 0.7, "add": 0.1}),
               ({"b": 0.5, "a": 0.5}, {"b": 0.25, "a": 0.25}), ({"a": 0.25, "b": 0.5}, {"a": 0.75, "b": 0.625}), ({"a": 0.5, "b": 0.875}, {"a": 0.25, "b": 0.5})],
        hints=["One difference for each skill: before minus after.", "max keeps the first of equals; sort the names before.", "Nothing is clipped: a negative drop says that all got better."],
        mistakes=[
            Mistake(relative_drop, "That divides by the score before: a skill that falls from .2 to .1 would beat one that falls from .9 to .7."),
            Mistake(largest_change, "A large gain isn't a drop. Keep the sign."),
            Mistake(lowest_score, "That is the skill with the lowest score now; it may have been low before."),
            Mistake(never_negative, "Clipped at 0, 'everything got better' looks like 'nothing changed'."),
        ],
        minutes=4, difficulty=1,
    ),
    Exercise(
        "8.3", "pass@k from n samples", pass_at_k,
        cases=[(10, 3, 5), (4, 1, 2), (10, 8, 5), (10, 0, 3), (10, 10, 3), (1000, 7, 100), (5, 2, 1)],
        errors=[((4, 2, 5), "k"), ((4, 2, 0), "k")],
        hints=["It fails where all k come from the n - c wrong ones.", "How many subsets of size k are there, and how many of them hold only wrong ones?",
               "math.comb works with whole numbers of any size, and is 0 where there are too few."],
        mistakes=[
            Mistake(with_replacement, "That puts each sample back after the draw. It's too low on average: the plug-in of c / n into a concave function."),
            Mistake(all_right, "That is the chance that all k are right (pass^k)."),
            Mistake(exactly_one, "That is exactly one right among the k. At least one was asked for."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "8.4", "The risk in deployment", reweighted_risk,
        cases=[(torch.tensor([0.4, 0.4, 0.4, 0.4, 1.2]), TWO, *HALVES), (LOSSES, ROWS, *THIRDS), (LOSSES, ROWS, THIRDS[1], THIRDS[0])],
        hints=["A row counts as often as deployment shows it for each time that training does.", "One weight a domain: p_deploy / p_train; index it with `domains`.",
               "The share is the squared sum over n times the sum of squares."],
        mistakes=[
            Mistake(inverse_weights, "The ratio is upside down: what deployment shows more often must weigh more."),
            Mistake(share_not_divided, "That is the effective *number* of rows; divide it by n."),
            Mistake(deployment_weights_only, "The rows already come in training's proportions: divide by p_train."),
        ],
        minutes=6, difficulty=3,
    ),
    Exercise(
        "8.5", "Five findings about an adapter", adapter_report,
        cases=[judged(LoRALinear, 0), judged(LoRALinear, 10, trained=False), judged(LoRALinear, 20, drift=1e-6), judged(Noisy, 30), judged(TwiceAsLoud, 40), judged(NeverOff, 50)],
        hints=["Compute all outputs first: on, on again, the base, off.", "Bit for bit is torch.equal; only the merge gets a tolerance.", "Set layer.on back to True before the merge is compared."],
        mistakes=[
            Mistake(allclose_to_base, "A base that drifts by 1e-6 a step is trained. Compare its bits: torch.equal."),
            Mistake(left_switched_off, "The merged layer is compared with the adapter switched off: it was never switched on again."),
            Mistake(on_against_off, "`off_is_base` compares off with the base, and isn't asked whether the adapter moves anything."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "8.A", "Two at once: stop for deployment", best_epochs,
        cases=[(TURNING, TWO, *HALVES), (EPOCHS, ROWS, *THIRDS), (TURNING, TWO, torch.tensor([0.8, 0.2]), torch.tensor([0.1, 0.9])),
               (EPOCHS, ROWS, torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.4, 0.1, 0.5]))],
        hints=["A validation set drawn like training gives training's optimum.", "Weigh each row by p_deploy / p_train of its domain, then average each epoch.", "argmin over epochs, once without and once with weights."],
        mistakes=[
            Mistake(weighted_the_wrong_way, "The two distributions are swapped in the weight."),
            Mistake(one_domain_only, "That looks at deployment's largest domain alone; the others are still there."),
            Mistake(last_epoch, "The first is the best epoch as validated, not the last one."),
        ],
        minutes=7, difficulty=3,
    ),
    Exercise(
        "8.B", "Two at once: a paired change of pass@k", pass_change,
        cases=[([0, 4], [4, 4], 4, 1), ([0, 1, 5, 10, 3], [1, 1, 6, 9, 8], 10, 5), ([2, 2, 2], [3, 3, 3], 8, 2), ([0, 0, 7, 1], [0, 2, 7, 0], 20, 10)],
        hints=["pass@k of each problem before and after, then one difference a problem.", "The mean of the differences; then their squared distances from it.", "Root of the mean square, over the root of the number of problems."],
        mistakes=[
            Mistake(unpaired, "That adds the two sides' variances, as if the problems were different ones: hard problems are hard on both sides."),
            Mistake(pooled, "Samples are pooled over problems: k samples of one problem can't be drawn from another."),
            Mistake(spread_of_one, "That is the spread of one problem's change; its mean over problems has the root of their number less."),
        ],
        minutes=9, difficulty=4,
    ),
    Exercise(
        "8.C", "Build: paired differences", paired_differences,
        cases=[(ASKED, AGAIN), ({"x": 0.25}, {"x": 0.75, "y": 1.0}), ({"b": 1.0, "a": 0.5}, {"a": 0.5, "b": 0.0})],
        errors=[(({"a": 1.0}, {"b": 1.0}), "common")],
        hints=["An item is known by its name, not by its place in the file.", "`before.keys() & after.keys()` are the names on both sides.", "Sort them; then after minus before, so that a gain is positive."],
        mistakes=[
            Mistake(zipped, "That pairs the first with the first: the second file has another order, and other items."),
            Mistake(lost_as_positive, "That is before minus after. A gain should be positive."),
            Mistake(missing_as_wrong, "An item that wasn't asked isn't an item that was answered wrong: leave it out on both sides."),
        ],
        minutes=7, difficulty=2,
    ),
    Exercise(
        "8.D", "Build: an interval for items in groups", grouped_interval,
        cases=[(UNEVEN[1], UNEVEN[0]), ([1.0, 1.0, 0.0, 0.0], list("aabb"), 1.0), ([0.0, 1.0, -1.0, 0.0, 1.0], list("vwxyz")), ([0.5, 0.25, -0.5, 0.5, 0.0, 0.25], list("abcabc"), 2.262)],
        hints=["Add up d - m within each group first; a dictionary from group to sum will do.", "Square those sums, add them, multiply by G / (G - 1), take the root, divide by n.", "Within a group, differences of one sign add up: that is what makes the interval wider."],
        mistakes=[
            Mistake(by_item, "That takes each item for a group of its own. Items of one group share their luck."),
            Mistake(mean_of_means, "That gives a group of one item the weight of a group of eight. The mean is over items, the error over groups."),
            Mistake(factor_forgotten, "G / (G - 1) is missing: a few groups look surer than they are."),
        ],
        minutes=10, difficulty=3,
    ),
    Exercise(
        "8.E", "Build: how many items", items_to_ask,
        cases=[(0.1, 0.1), (0.05, 0.15), (0.02, 0.3, 4.3), (0.03, 0.2, 1.7, 2.576, 1.28)],
        hints=["Write the formula for independent items first.", "Multiply by the design effect before you round.", "math.ceil rounds up."],
        mistakes=[
            Mistake(effect_forgotten, "The design effect isn't used: grouped items are worth less than their number."),
            Mistake(half_the_time, "Without z_power the gain is shown in half of the experiments only."),
            Mistake(rounded_early, "Rounded up before the design effect multiplies it, the rounding is multiplied too."),
        ],
        minutes=6, difficulty=2, tolerance=1e-9,
    ),
    Exercise(
        "8.F", "Build: a verdict with a margin", verdict_of,
        cases=[(0.01, 0.05, 0.02), (-0.01, 0.03, 0.02), (-0.04, 0.05, 0.02), (-0.09, -0.03, 0.02), (-0.015, -0.005, 0.02), (-0.1, -0.01, 0.02), (0.005, 0.015, 0.02), (-0.05, 0.01, 0.1)],
        hints=["Four answers, so three questions: above 0? below -margin? above -margin?", "`more items` is what is left when none of them can be said.", "A small loss that is shown, such as -0.015 to -0.005, is still within a margin of 0.02."],
        mistakes=[
            Mistake(zero_alone, "An interval that holds 0 isn't proof of no loss: compare its lower end with -margin."),
            Mistake(by_the_middle, "The middle of an interval isn't the interval: what matters is where its ends lie."),
            Mistake(margin_on_both_sides, "The margin is for losses. A gain is a gain as soon as the interval lies above 0."),
        ],
        minutes=7, difficulty=2,
    ),
]  # fmt: skip
