"""Measure how far fine-tuning moved a model's predictions: contracts and references."""

import math

import torch


def per_token_kl(base_logits: torch.Tensor, tuned_logits: torch.Tensor) -> torch.Tensor:
    """Return KL(tuned || base) of the next-token distributions in nats: (..., vocab) twice becomes (...).

    A token that both rule out (-inf in both) contributes 0; one that only the base rules out makes the result +inf; one
    that only the tuned model rules out contributes 0. The result is never negative. A NaN among a position's logits, of
    the base or of the tuned model, makes its result NaN. float64 stays float64; bfloat16 and float16 logits are
    computed in float32.

    Errors: ValueError naming `shape` if the two differ in shape or have no axis.

    >>> base, tuned = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.6, 0.3, 0.1]).log()
    >>> round(per_token_kl(base, tuned).item(), 4)
    0.0401
    >>> one, two = torch.tensor([[0.0, -torch.inf], [0.0, 2000.0]]), torch.tensor([[0.0, 0.0], [2000.0, 0.0]])
    >>> per_token_kl(one, two).tolist()[1]  # stab
    2000.0
    >>> per_token_kl(one, two).tolist()[0]  # inf
    inf

    Always: a distribution is at distance 0 from itself, and numbers added to all logits of a token change nothing.

    >>> per_token_kl(base, base).item()
    0.0
    >>> bool(torch.isclose(per_token_kl(base + 3.0, tuned - 5.0), per_token_kl(base, tuned), atol=1e-6))
    True
    """
    demand_same_shape(base_logits, tuned_logits)
    if base_logits.ndim == 0:
        raise ValueError("shape: logits need an axis for the vocabulary, and these are single numbers")
    log_p, log_q = normalised(tuned_logits), normalised(base_logits)
    p = log_p.exp()
    # Where p is 0 the term is 0, whatever the base says; without this, 0 * inf and inf - inf would be NaN.
    terms = torch.where(p == 0, torch.zeros_like(p), p * (log_p - log_q))
    return terms.sum(-1).clamp(min=0)


def kl_shift(base_logits: torch.Tensor, tuned_logits: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean of the per-token KL over the positions that `mask` selects, as a 0-d tensor in nats.

    The logits have at least one axis before the vocabulary's. `mask` has these axes and is bool, int or float (of 16
    bits too) with values 0 and 1; None selects every position. Logits at other positions have no influence, not even as
    NaN or infinities; a NaN at a selected position makes the result NaN.

    Errors: ValueError naming `shape` (of the logits or of the mask), or `mask` if it selects nothing.

    >>> base, tuned = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    >>> kl_shift(base, tuned, torch.tensor([1, 0])).item()
    0.0
    >>> kl_shift(base, tuned, torch.tensor([0, 0]))
    Traceback (most recent call last):
    ValueError: ...
    """
    demand_same_shape(base_logits, tuned_logits)
    if mask is None:
        return per_token_kl(base_logits, tuned_logits).mean()
    if mask.shape != base_logits.shape[:-1]:
        raise ValueError(f"shape: the mask must be {tuple(base_logits.shape[:-1])}, got {tuple(mask.shape)}")
    chosen = mask != 0
    if not bool(chosen.any()):
        raise ValueError("mask: it selects no position")
    return per_token_kl(base_logits[chosen], tuned_logits[chosen]).mean()


def kl_quadratic(base_logits: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Return the second-order approximation of KL(tuned || base) for tuned logits `base_logits + delta`.

    (..., vocab) twice becomes (...). For small changes it's half of some variance: derive which, and under which
    distribution. Logits that are large or -inf, and half precision, are as in `per_token_kl`.

    Errors: ValueError naming `shape` if the two differ in shape.

    >>> round(kl_quadratic(torch.zeros(2), torch.tensor([0.2, 0.0])).item(), 6)
    0.005

    Always: a change that is the same for all tokens is no change.

    >>> bool(kl_quadratic(torch.tensor([1.0, 2.0, 0.5]), torch.full((3,), 0.7)).abs() < 1e-6)
    True
    """
    demand_same_shape(base_logits, delta)
    p, delta = normalised(base_logits).exp(), wide(delta)
    mean = (p * delta).sum(-1, keepdim=True)
    return 0.5 * (p * (delta - mean) ** 2).sum(-1)


def pinsker_bound(kl: float) -> float:
    """Return Pinsker's bound on the total variation distance for a KL divergence in nats, never above 1.

    `kl` is a number of Python, or NumPy's float64, float32 or int64, and may be infinite.

    Errors: ValueError whose message contains `non-negative` if `kl` is negative or NaN.

    >>> round(pinsker_bound(0.02), 6), pinsker_bound(50.0)
    (0.1, 1.0)
    >>> pinsker_bound(-0.5)
    Traceback (most recent call last):
    ValueError: ...non-negative...
    """
    kl = float(kl)
    if not kl >= 0:
        raise ValueError(f"kl must be non-negative, got {kl}")
    return min(1.0, math.sqrt(kl / 2))


def demand_same_shape(one: torch.Tensor, other: torch.Tensor) -> None:
    if one.shape != other.shape:
        raise ValueError(f"shape: both must be (..., vocab), got {tuple(one.shape)}, {tuple(other.shape)}")


def normalised(logits: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities, in float32 at least."""
    return wide(logits).log_softmax(-1)


def wide(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in float32 at least."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
