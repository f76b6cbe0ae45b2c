"""Build, apply, merge and differentiate a LoRA update: contracts and references (arXiv:2106.09685)."""

import math

import torch
import torch.nn.functional as F


def check_lora_shapes(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> int:
    """Return the rank of the factors A (r, d_in) and B (d_out, r) of a weight W (d_out, d_in).

    The rank may be larger than both sides of W.

    Errors: ValueError whose message contains `2-D` if one of them isn't a matrix, `A must` if A doesn't take W's
    inputs, `B must` if B doesn't give W's outputs, `rank` if the two factors have different ranks.

    >>> check_lora_shapes(torch.zeros(5, 3), torch.zeros(2, 3), torch.zeros(5, 2))
    2
    >>> check_lora_shapes(torch.zeros(5, 3), torch.zeros(2, 3), torch.zeros(5, 4))
    Traceback (most recent call last):
    ValueError: ...
    """
    if W.ndim != 2 or A.ndim != 2 or B.ndim != 2:
        raise ValueError(f"W, A and B must be 2-D, got {W.ndim}, {A.ndim} and {B.ndim} axes")
    if A.shape[1] != W.shape[1]:
        raise ValueError(f"A must have {W.shape[1]} columns for a weight of shape {tuple(W.shape)}, got {A.shape[1]}")
    if B.shape[0] != W.shape[0]:
        raise ValueError(f"B must have {W.shape[0]} rows for a weight of shape {tuple(W.shape)}, got {B.shape[0]}")
    if A.shape[0] != B.shape[1]:
        raise ValueError(f"rank: A has {A.shape[0]} rows and B has {B.shape[1]} columns; both are the rank")
    return A.shape[0]


def lora_delta(A: torch.Tensor, B: torch.Tensor, alpha: float, rslora: bool = False) -> torch.Tensor:
    """Return the update of shape (d_out, d_in) that the factors A (r, d_in) and B (d_out, r) stand for.

    The scale is alpha / r, or alpha / sqrt(r) with `rslora` (arXiv:2312.03732). `alpha` may be any finite
    float, also 0 or negative. The update has the factors' dtype.

    >>> A, B = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0], [1.0]])
    >>> lora_delta(A, B, alpha=2.0).tolist()
    [[6.0, 12.0], [0.0, 0.0], [2.0, 4.0]]
    >>> lora_delta(torch.ones(4, 1), torch.ones(1, 4), alpha=1.0, rslora=True).item()
    2.0

    Always: twice alpha is twice the update.

    >>> bool(torch.equal(lora_delta(A, B, 3.0), 2 * lora_delta(A, B, 1.5)))
    True
    """
    rank = A.shape[0]
    scale = alpha / math.sqrt(rank) if rslora else alpha / rank
    return scale * (B @ A)


def lora_forward(
    x: torch.Tensor, W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the adapted layer's output without forming the update: (..., d_in) becomes (..., d_out).

    `x` may have up to five leading axes, also none, of any length, also 0. The scale is alpha / r; the bias is added
    once, unscaled. The output has the arguments' dtype, and gradients reach each of them, also where alpha or one of
    them is 0. With B = 0 the output is the base layer's, of which A and alpha change no bit. Since the update isn't
    formed, the output is finite where B @ A overflows and B (A x) doesn't; nothing else overflows, also times alpha.

    >>> x, W = torch.tensor([1.0, 1.0]), torch.eye(2)
    >>> lora_forward(x, W, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0], [1.0]]), alpha=3.0).tolist()
    [1.0, 4.0]
    >>> A, B = torch.tensor([[2.0**100, 0.0]]), torch.tensor([[0.0], [2.0**100]])
    >>> bool(lora_forward(2.0**-100 * x, W, A, B, alpha=3.0).isfinite().all())
    True
    """
    scale = alpha / A.shape[0]
    # Two thin products instead of one thick one: r (d_in + d_out) multiplications a token, not d_in d_out.
    update = scale * F.linear(F.linear(x, A), B)
    return F.linear(x, W, bias) + update


def merge(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return a weight of W's dtype with the update of scale alpha / r added; nothing that was passed in changes.

    Product and sum are made in float32 or wider, never in less than W's dtype, whatever the factors' dtype is; the
    result is rounded to W's dtype once. Each of the three may be a parameter that wants gradients.

    >>> merge(torch.eye(2), torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [0.0]]), alpha=1.0).tolist()
    [[2.0, 2.0], [0.0, 1.0]]

    Always: a merge with B = 0 gives the weight's own numbers, and multiplying one factor by a power of two and dividing
    the other by it changes nothing.

    >>> W, A = torch.randn(4, 3).bfloat16(), torch.randn(2, 3)
    >>> bool(torch.equal(merge(W, A, torch.zeros(4, 2), alpha=16.0), W))
    True
    >>> B = torch.randn(4, 2)
    >>> bool(torch.equal(merge(W, 2.0**30 * A, 2.0**-30 * B, alpha=16.0), merge(W, A, B, alpha=16.0)))
    True
    """
    wide = torch.promote_types(W.dtype, torch.float32)
    merged = W.to(wide) + lora_delta(A.to(wide), B.to(wide), alpha)
    return merged.to(W.dtype)


def first_step_grads(
    G: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients (of A, of B), given the gradient G (d_out, d_in) of the loss by the adapted weight.

    The adapted weight is W plus the update with scale alpha / r. Each gradient has its factor's shape and dtype.

    >>> G, A, B = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]]), torch.tensor([[0.5, -0.5]]), torch.zeros(3, 1)
    >>> dA, dB = first_step_grads(G, A, B, alpha=2.0)
    >>> dB.flatten().tolist()
    [1.0, -2.0, -2.0]

    Always: with B = 0 the first step moves B alone.

    >>> bool((dA == 0).all())
    True
    """
    scale = alpha / A.shape[0]
    return scale * B.T @ G, scale * G @ A.T
