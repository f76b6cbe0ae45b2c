"""Four variants of LoRA in a few lines each: DoRA, PiSSA, LoRA+ and VeRA. Rank-stabilised LoRA is in `lora`."""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.groups import Group, rate_groups
from ftmath.layers import wrap_linears
from ftmath.lora import LoRALinear, add_lora, lora_layers


class DoRALinear(LoRALinear):
    """Train length and direction of each row apart: weight m (W + scale B A) / |W + scale B A|, where m starts at |W|.

    The length is taken over each output's row of weights, and counts as a constant in the gradient (arXiv:2402.09353,
    equation 5 and section 4.3).

    >>> layer = DoRALinear(nn.Linear(8, 6), rank=2, alpha=4)
    >>> layer.delta().abs().max().item() < 1e-6, [tuple(p.shape) for p in layer.parameters() if p.requires_grad]
    (True, [(2, 8), (6, 2), (6, 1)])
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float, *, generator: torch.Generator | None = None) -> None:
        super().__init__(base, rank, alpha, generator=generator)
        self.m = nn.Parameter(self.base.weight.norm(dim=1, keepdim=True).clone())

    def weight(self) -> Tensor:
        """Return the whole weight: (d_out, d_in)."""
        wide = self.base.weight + super().delta()
        return self.m * wide / wide.detach().norm(dim=1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(), self.base.bias) if self.on else self.base(x)

    def delta(self) -> Tensor:
        """Return what the layer adds to the base's weight; its rank is not bounded by that of B A."""
        return self.weight() - self.base.weight

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        plain = super().merged()
        plain.weight.copy_(self.weight())
        return plain


class VeRALinear(nn.Module):
    """Train two vectors beside frozen random factors that all layers of a shape share: b * (B (d * (A x))).

    b (d_out,) starts at 0 and d (rank,) at 0.1; A and B are drawn from `seed` and the shape (arXiv:2310.11454).

    >>> layer = VeRALinear(nn.Linear(8, 6), rank=4)
    >>> sum(p.numel() for p in layer.parameters() if p.requires_grad), layer.delta().abs().max().item()
    (10, 0.0)
    """

    A: Tensor
    B: Tensor

    def __init__(self, base: nn.Module, rank: int, *, seed: int = 0) -> None:
        super().__init__()
        self.base = cast("nn.Linear", base.requires_grad_(False))
        weight = self.base.weight
        d_out, d_in = weight.shape
        generator = torch.Generator().manual_seed(seed)
        for name, shape in (("A", (rank, d_in)), ("B", (d_out, rank))):
            bound = math.sqrt(3 / shape[1])
            drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            self.register_buffer(name, drawn.to(weight), persistent=False)  # a file stores the seed instead
        self.d = nn.Parameter(weight.new_full((rank,), 0.1))
        self.b = nn.Parameter(weight.new_zeros(d_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b * F.linear(self.d * F.linear(x, self.A), self.B)

    def delta(self) -> Tensor:
        """Return the update diag(b) B diag(d) A: (d_out, d_in)."""
        return self.b[:, None] * (self.B * self.d) @ self.A


def add_dora(
    model: nn.Module, targets: Sequence[str], rank: int, alpha: float, generator: torch.Generator | None = None
) -> list[str]:
    """Put DoRA on the layers that the targets name, freeze all else, and return their names.

    >>> from ftmath.model import Config, Decoder
    >>> add_dora(Decoder(Config(layers=1)), ["q"], rank=4, alpha=8)
    ['blocks.0.attn.q']
    """
    model.requires_grad_(False)
    return wrap_linears(model, targets, lambda _, layer: DoRALinear(layer, rank, alpha, generator=generator))


@torch.no_grad()
def add_pissa(model: nn.Module, targets: Sequence[str], rank: int, alpha: float) -> list[str]:
    """Put LoRA on the layers that the targets name, started at the weight's own top directions; return their names.

    The factors hold the truncated singular value decomposition of W, and the frozen base keeps the rest, so that the
    sum is W at the start (arXiv:2404.02948, equations 2 to 4).

    >>> from ftmath.model import Config, Decoder
    >>> add_pissa(Decoder(Config(layers=1)), ["q"], rank=4, alpha=4)
    ['blocks.0.attn.q']
    """
    names = add_lora(model, targets, rank, alpha)
    for layer in lora_layers(model).values():
        U, sigma, Vh = torch.linalg.svd(layer.base.weight, full_matrices=False)
        root = (sigma[:rank] / layer.scale).sqrt()
        layer.B.copy_(U[:, :rank] * root)
        layer.A.copy_(root[:, None] * Vh[:rank])
        layer.base.weight -= layer.delta()
    return names


def add_vera(model: nn.Module, targets: Sequence[str], rank: int, seed: int = 0) -> list[str]:
    """Put VeRA on the layers that the targets name, freeze all else, and return their names.

    >>> from ftmath.model import Config, Decoder
    >>> add_vera(Decoder(Config(layers=1)), ["q"], rank=64)
    ['blocks.0.attn.q']
    """
    model.requires_grad_(False)
    return wrap_linears(model, targets, lambda _, layer: VeRALinear(layer, rank, seed=seed))


def lora_plus(model: nn.Module, rate: float, ratio: float = 16.0) -> list[Group]:
    """Return an optimizer's groups in which every B has `ratio` times the rate of every A (arXiv:2402.12354).

    >>> [group["lr"] for group in lora_plus(nn.Sequential(LoRALinear(nn.Linear(4, 3), rank=2, alpha=2)), 0.5)]
    [0.5, 8.0]
    """
    return rate_groups(model, {"*.B": ratio * rate}, rate)


__all__ = ["DoRALinear", "VeRALinear", "add_dora", "add_pissa", "add_vera", "lora_plus"]
