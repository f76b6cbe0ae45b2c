"""Rotary positions (arXiv:2104.09864): the angle of each position, and how models stretch it to longer texts."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Turn = tuple[Tensor, Tensor]


def rope_rates(head_dim: int, base: float) -> Tensor:
    """Return the angle (head_dim / 2,) by which each entry turns from one position to the next, in radians.

    >>> rope_rates(head_dim=4, base=100.0)
    tensor([1.0000, 0.1000])
    """
    half = head_dim // 2
    return base ** (-torch.arange(half, dtype=torch.float32) / half)


def turn(positions: Tensor, head_dim: int, base: float, rates: Sequence[float] = ()) -> Turn:
    """Return the cosines and sines (batch, 1, time, head_dim / 2) of the angles that positions (batch, time) stand for.

    Entry i turns by position * base^(-2 i / head_dim): equation 15 of arXiv:2104.09864. Where `rates` are given, it
    turns by position * rates[i].

    >>> cos, sin = turn(torch.tensor([[0, 1]]), head_dim=4, base=100.0)
    >>> cos[0, 0, 1].round(decimals=4)
    tensor([0.5403, 0.9950])
    """
    each = torch.tensor(rates, dtype=torch.float32) if rates else rope_rates(head_dim, base)
    angles = positions[:, None, :, None].float() * each.to(positions.device)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, angles: Turn) -> Tensor:
    """Return x (batch, heads, time, head_dim) turned by its positions' angles: equation 34 of arXiv:2104.09864.

    Entry i is paired with entry i + head_dim / 2, as Llama's weights expect; the paper pairs neighbours.

    >>> quarter = turn(torch.tensor([[torch.pi / 2]]), head_dim=2, base=10_000.0)
    >>> rotated(torch.tensor([[[[1.0, 0.0]]]]), quarter).round(decimals=4).tolist()
    [[[[-0.0, 1.0]]]]
    """
    cos, sin = (part.to(x.dtype) for part in angles)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def linear_rates(rates: Tensor, factor: float) -> Tensor:
    """Return the rates of position interpolation (arXiv:2306.15595): each is divided by the factor."""
    return rates / factor


def llama3_rates(rates: Tensor, factor: float, low: float, high: float, trained: int) -> Tensor:
    """Return Llama 3.1's rates: slow entries are divided by the factor, fast ones stay, and between them it blends.

    An entry that turns fewer than `low` times over the `trained` length is slow, one above `high` is fast.

    >>> llama3_rates(torch.tensor([1.0, 0.001]), factor=8.0, low=1.0, high=4.0, trained=1000).tolist()
    [1.0, 0.0001250000059371814]
    """
    turns = trained * rates / (2 * math.pi)
    fast = ((turns - low) / (high - low)).clamp(0, 1)
    return rates * (fast + (1 - fast) / factor)


def yarn_rates(rates: Tensor, base: float, factor: float, slow: float, fast: float, trained: int) -> Tensor:
    """Return YaRN's rates (arXiv:2309.00071): as Llama 3.1's, but the blend is linear in the entry's number.

    An entry that turns `fast` times over the `trained` length or more keeps its rate; one that turns `slow` times or
    fewer is divided by the factor. Entry numbers are rounded outwards, as in the authors' code.
    """
    half = len(rates)

    def entry(turns: float) -> float:
        return half * math.log(trained / (turns * 2 * math.pi)) / math.log(base)

    first, last = max(math.floor(entry(fast)), 0), min(math.ceil(entry(slow)), 2 * half - 1)
    slowed = ((torch.arange(half, dtype=torch.float32) - first) / max(last - first, 0.001)).clamp(0, 1)
    return rates * (1 - slowed + slowed / factor)


def yarn_scale(factor: float) -> float:
    """Return what YaRN multiplies the cosines and sines by: 0.1 ln(factor) + 1 (arXiv:2309.00071, section 3.4).

    >>> round(yarn_scale(4.0), 4)
    1.1386
    """
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


__all__ = ["Turn", "linear_rates", "llama3_rates", "rope_rates", "rotated", "turn", "yarn_rates", "yarn_scale"]
