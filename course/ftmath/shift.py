"""How far behaviour has moved from the base model, and what holds it there: KL, anchors, bounds on forgetting."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]


def token_kl(tuned_logits: Tensor, base_logits: Tensor) -> Tensor:
    """Return KL(tuned || base) at each position, in nats: logits (..., vocab) to (...).

    The expectation is taken under the tuned model. A token that the tuned model rules out adds nothing, one that only
    the base rules out makes it infinite.

    >>> base, tuned = torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0]).log()
    >>> round(token_kl(tuned, base).item(), 4), token_kl(base, tuned).item()
    (0.6931, inf)
    """
    log_p, log_q = (widened(logits).log_softmax(-1) for logits in (tuned_logits, base_logits))
    gap = (log_p - log_q).where(log_p > -math.inf, 0.0)
    return (log_p.exp() * gap).sum(-1).clamp(min=0)


def kl_shift(tuned_logits: Tensor, base_logits: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `token_kl` over the positions that the mask (...) selects.

    >>> base = torch.tensor([[0.5, 0.3, 0.2]]).log()
    >>> round(kl_shift(torch.tensor([[0.6, 0.3, 0.1]]).log(), base, torch.ones(1)).item(), 4)
    0.0401

    Errors: ValueError if the mask selects nothing.
    """
    chosen = mask != 0
    if not bool(chosen.any()):
        raise ValueError("mask must select at least one position, and selects none")
    return token_kl(tuned_logits[chosen], base_logits[chosen]).mean()


def l2_sp(parameters: Parameters, anchor: Parameters) -> Tensor:
    """Return half the squared distance of parameters from where they started (arXiv:1802.01483, equation 2).

    >>> l2_sp({"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([1.0, 1.0])}).item()
    2.0
    """
    return 0.5 * total((parameters[name] - start.detach()).square().sum() for name, start in anchor.items())


def ewc(parameters: Parameters, anchor: Parameters, fisher: Parameters) -> Tensor:
    """Return half the squared distance, each entry weighted by its Fisher value (arXiv:1612.00796, equation 3).

    >>> start, fisher = {"w": torch.zeros(2)}, {"w": torch.tensor([10.0, 0.0])}
    >>> ewc({"w": torch.ones(2)}, start, fisher).item()
    5.0
    """
    return 0.5 * total(
        (fisher[name] * (parameters[name] - start.detach()).square()).sum() for name, start in anchor.items()
    )


def fisher_diagonal(parameters: Parameters, logprobs: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the mean over outcomes of the squared gradient of each log-probability, per named parameter.

    It's the diagonal of the Fisher information where the outcomes are the model's own samples, and its usual estimate
    where they are data. `logprobs` may be a generator: each outcome's graph is freed before the next is built.

    >>> theta = torch.tensor([0.0], requires_grad=True)
    >>> fisher_diagonal({"theta": theta}, [torch.nn.functional.logsigmoid(sign * theta).sum() for sign in (1, -1)])
    {'theta': tensor([0.2500])}

    Errors: ValueError without an outcome.
    """
    found = {name: torch.zeros_like(value) for name, value in parameters.items()}
    count = 0
    for value in logprobs:
        count += 1
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:  # pyright: ignore[reportUnnecessaryComparison]  (allow_unused gives None)
                found[name] += gradient.detach().square()
    if not count:
        raise ValueError("logprobs must hold at least one outcome")
    return {name: value / count for name, value in found.items()}


def anchored_minimum(curvature: float, strength: float, pull: float = 1.0) -> float:
    """Return which share of the way to a task's minimum an anchored quadratic goes: h / (h + strength * pull).

    The loss is h/2 (x - 1)^2 along a direction of curvature h, the anchor strength * pull / 2 x^2.

    >>> anchored_minimum(curvature=3.0, strength=1.0)
    0.75
    """
    if curvature < 0 or strength < 0 or pull < 0 or curvature + strength * pull == 0:
        raise ValueError(f"curvature, strength and pull must not be negative, got {curvature}, {strength}, {pull}")
    return curvature / (curvature + strength * pull)


def forgetting_bound(kl: float) -> float:
    """Return the most that the mean of any score within [0, 1] can change at a divergence, in nats.

    The smaller of Pinsker's sqrt(KL / 2) and Bretagnolle and Huber's sqrt(1 - exp(-KL)), which never exceeds 1.

    >>> round(forgetting_bound(0.02), 4), round(forgetting_bound(8.0), 4)
    (0.1, 0.9998)
    """
    if not kl >= 0:
        raise ValueError(f"kl must not be negative, got {kl}")
    return min(math.sqrt(kl / 2), math.sqrt(-math.expm1(-kl)))


def total_variation(tuned_logits: Tensor, base_logits: Tensor) -> Tensor:
    """Return the total variation distance at each position: half the sum of the differences of probabilities.

    >>> base, tuned = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.6, 0.3, 0.1]).log()
    >>> round(total_variation(tuned, base).item(), 4)
    0.1
    """
    p, q = (widened(logits).softmax(-1) for logits in (tuned_logits, base_logits))
    return 0.5 * (p - q).abs().sum(-1)


def widened(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


__all__ = [
    "anchored_minimum", "ewc", "fisher_diagonal", "forgetting_bound", "kl_shift", "l2_sp", "token_kl",
    "total_variation",
]  # fmt: skip
