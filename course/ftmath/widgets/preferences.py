"""Explorers of part 7: what beta does at the first step and at the optimum, and what picking the best of n picks."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ftmath.plots import said
from ftmath.preference import dpo_slope
from ftmath.reward import best_of_n, best_of_n_kl, optimal_policy, preference_probability
from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, Slider, slider

BETAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
STEPS = (1, 3, 10, 30, 100, 300, 1000, 3000)
NS = tuple(2**power for power in range(9))
TAILS = ("Gaussian", "Student t, 2 degrees")


def soft_dpo_gradient(logits: Tensor, reference: Tensor, reward: Tensor, beta: float) -> Tensor:
    """Return the gradient of the DPO loss of a policy softmax(logits) (answers,), where judges are as sure as `reward`.

    Every pair of answers is judged without end: the first wins with `preference_probability`. The gradient is that of
    the mean over the pairs, with respect to the logits.

    >>> start = torch.tensor([0.5, 0.3, 0.2]).log()
    >>> one, two = (soft_dpo_gradient(start, start.exp(), torch.tensor([0.0, 1.0, 2.0]), beta) for beta in (0.5, 1.0))
    >>> torch.allclose(two, 2 * one)
    True
    """
    first, second = torch.tensor(list(itertools.combinations(range(len(reward)), 2))).T
    moved = logits - reference.log()
    h = moved[first] - moved[second]
    wins = preference_probability(reward[first], reward[second])
    slope = wins * dpo_slope(h, beta) - (1 - wins) * dpo_slope(-h, beta)
    found = torch.zeros_like(logits).index_add(0, first, slope)
    return found.index_add(0, second, -slope) / len(h)


def kl_along(reference: Tensor, reward: Tensor, beta: float, steps: Sequence[int], rate: float = 1.0) -> list[float]:
    """Return KL(policy || reference) in nats after so many steps of gradient descent on that loss, from the reference.

    >>> along = kl_along(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 2.0]), 1.0, [0, 1])
    >>> along[0] == 0.0 < along[1]
    True
    """
    logits, found = reference.log(), list[float]()
    for step in range(max(steps) + 1):
        if step in steps:
            policy = logits.log_softmax(0)
            found.append(float((policy.exp() * (policy - reference.log())).sum().clamp(min=0)))
        logits = logits - rate * soft_dpo_gradient(logits, reference, reward, beta)
    return found


def kl_at_optimum(reference: Tensor, reward: Tensor, beta: float) -> float:
    """Return KL(pi* || reference) in nats of the policy where that descent ends.

    >>> round(kl_at_optimum(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 2.0]), 1.0), 3)
    0.323
    """
    policy, value = optimal_policy(reference, reward, beta)
    return (float(policy @ reward) - value) / beta


def beta_explorer(reference: Tensor, reward: Tensor) -> Explorer:
    """Choose beta and a number of steps of DPO on a policy over a few answers: how far it is from its reference.

    `reference` and `reward` are (answers,). Small steps go farther with a larger beta; the end lies nearer.

    >>> explorer = beta_explorer(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 2.0]))
    >>> explorer.frame(4, 0)["readouts"][3]
    ('KL at the optimum, nats', '0.323')
    """
    reference, reward = reference.double(), reward.double()
    walks = {beta: kl_along(reference, reward, beta, STEPS) for beta in BETAS}
    ends = [kl_at_optimum(reference, reward, beta) for beta in BETAS]
    gradients = [float(soft_dpo_gradient(reference.log(), reference, reward, beta).norm()) for beta in BETAS]
    top = 1.05 * max(max(ends), *(max(walk) for walk in walks.values()))

    def frame(beta: float, steps: float) -> Frame:
        place, at = BETAS.index(beta), STEPS.index(int(steps))
        now = walks[beta][at]
        after = tuple(walks[one][at] for one in BETAS)
        across = Panel(
            "lines", "KL to the reference, by β", BETAS,
            (Line(f"after {int(steps)} steps", after), Line("at the optimum", tuple(ends))), "β", "nats",
            f"After {int(steps)} steps KL goes from {after[0]:.3g} at beta {BETAS[0]:g} to {after[-1]:.3g} at "
            f"{BETAS[-1]:g}; at the optimum from {ends[0]:.3g} to {ends[-1]:.3g}.",
            low=0.0, high=top, mark={"x": beta, "y": now}, log_x=True,
        )  # fmt: skip
        along = Panel(
            "lines", f"KL on the way, β = {beta:g}", STEPS,
            (Line("on the way", tuple(walks[beta])), Line("the end", (ends[place],) * len(STEPS))), "steps", "nats",
            f"With beta {beta:g}, KL is {now:.3g} nats after {int(steps)} steps and {ends[place]:.3g} at the end.",
            low=0.0, high=top, mark={"x": steps, "y": now}, log_x=True,
        )  # fmt: skip
        return Frame((across, along), (
            ("β", said(beta)), ("first step's gradient", said(gradients[place])),
            ("KL after the steps, nats", said(now)), ("KL at the optimum, nats", f"{ends[place]:.3f}"),
        ))  # fmt: skip

    return Explorer(
        "What β does: early and in the end",
        [slider("β", BETAS, start=1), slider("steps", STEPS, start=2)],
        frame,
    )


@functools.cache
def picked(tail: int, seed: int = 0, samples: int = 2**19) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean proxy and the mean gold reward of the best of n by proxy, for n = 1, 2, 4 .. 256.

    Gold rewards are standard normal; the proxy adds an error that is too (tail 0), or Student's with two degrees of
    freedom (tail 1). All samples are used for every n.

    >>> proxy, gold = picked(0, samples=2**14)
    >>> len(proxy), bool(gold[-1] > gold[0])
    (9, True)
    """
    rng = np.random.default_rng(seed)
    gold = rng.standard_normal(samples)
    proxy = gold + (rng.standard_t(2, samples) if tail else rng.standard_normal(samples))
    found: list[tuple[float, float]] = []
    for n in NS:
        table = proxy.reshape(-1, n)
        best = best_of_n(torch.from_numpy(table)).numpy()[:, None]
        found.append((
            float(np.take_along_axis(table, best, 1).mean()),
            float(np.take_along_axis(gold.reshape(-1, n), best, 1).mean()),
        ))  # fmt: skip
    return tuple(one for one, _ in found), tuple(one for _, one in found)


def best_of_n_explorer() -> Explorer:
    """Choose the tail of a reward model's error and how many answers are drawn: what the pick gains in truth.

    >>> explorer = best_of_n_explorer()
    >>> explorer.frame(1, 4)["readouts"][2]
    ('KL, nats', '1.835')
    """

    def frame(tail: float, n: float) -> Frame:
        proxy, gold = picked(int(tail))
        at = NS.index(int(n))
        chart = Panel(
            "lines", "Gold reward of the best of n by proxy", NS,
            tuple(Line(f"{name} error", picked(which)[1]) for which, name in enumerate(TAILS)), "n", "gold reward",
            f"{TAILS[int(tail)]} error, best of {int(n)}: gold {gold[at]:.2f} where the proxy says {proxy[at]:.2f}.",
            low=0.0, high=2.2, mark={"x": n, "y": max(gold[at], 0.0)}, log_x=True,
        )  # fmt: skip
        return Frame((chart,), (
            ("error", TAILS[int(tail)]), ("n", str(int(n))), ("KL, nats", f"{best_of_n_kl(int(n)):.3f}"),
            ("proxy", f"{proxy[at]:.2f}"), ("gold", f"{gold[at]:.2f}"),
        ))  # fmt: skip

    return Explorer(
        "What picking the best of n picks", [Slider("error", (0, 1), TAILS, 1), slider("n", NS, start=4)], frame
    )


__all__ = [
    "BETAS", "NS", "STEPS", "best_of_n_explorer", "beta_explorer", "kl_along", "kl_at_optimum", "picked",
    "soft_dpo_gradient",
]  # fmt: skip
