"""LoRA: a frozen linear layer and a trained low-rank update beside it (arXiv:2106.09685)."""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.layers import matches, replace, wrap_linears


class LoRALinear(nn.Module):
    """Wrap a linear layer: base(x) + scale * x A^T B^T, where only A (rank, d_in) and B (d_out, rank) are trained.

    A is drawn uniformly within 1/sqrt(d_in) of 0 and B is 0, so a fresh adapter changes nothing. The scale is
    alpha / rank, or alpha / sqrt(rank) if `rank_stabilised` (arXiv:2312.03732). The base's bias is never scaled. The
    base may be a `QuantLinear`; the factors are in its own precision, not in four bits.

    >>> layer = LoRALinear(nn.Linear(8, 6), rank=2, alpha=4)
    >>> layer.scale, layer.delta().shape, layer.A.numel() + layer.B.numel()
    (2.0, torch.Size([6, 8]), 28)

    Errors: ValueError for a rank outside 1..min(d_out, d_in).
    """

    def __init__(
        self, base: nn.Module, rank: int, alpha: float, *, rank_stabilised: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        weight = cast("nn.Linear", base).weight
        d_out, d_in = weight.shape
        if not 1 <= rank <= min(d_out, d_in):
            raise ValueError(f"rank must be in 1..{min(d_out, d_in)} for a ({d_out}, {d_in}) weight, got {rank}")
        self.base = cast("nn.Linear", base.requires_grad_(False))
        bound = 1 / math.sqrt(d_in)
        # Drawn on the CPU, where the generator lives, so that every device starts from the same numbers.
        drawn = torch.empty(rank, d_in).uniform_(-bound, bound, generator=generator)
        self.A = nn.Parameter(drawn.to(weight))
        self.B = nn.Parameter(weight.new_zeros(d_out, rank))
        self.scale = alpha / (math.sqrt(rank) if rank_stabilised else rank)
        self.on = True

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)
        # Two thin products: the (d_out, d_in) update is never formed.
        return out + self.scale * F.linear(F.linear(x, self.A), self.B) if self.on else out

    def delta(self) -> Tensor:
        """Return the update scale * B A: (d_out, d_in)."""
        return self.scale * (self.B @ self.A)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return a plain linear layer that gives what this one gives, in the base's dtype, rounded once.

        From a base in four bits it is a layer in full precision: the sum would not survive four bits.
        """
        weight, bias = self.base.weight, self.base.bias
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        update = self.scale * (self.B.to(wide) @ self.A.to(wide))
        # On the meta device nothing is drawn for a weight that is replaced at once.
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        plain.weight = nn.Parameter((weight.to(wide) + update).to(weight.dtype), requires_grad=False)
        plain.bias = bias
        return plain


def add_lora(
    model: nn.Module, targets: Sequence[str], rank: int, alpha: float, *, ranks: Mapping[str, int] | None = None,
    rank_stabilised: bool = False, generator: torch.Generator | None = None,
) -> list[str]:  # fmt: skip
    """Put LoRA on every linear layer whose name matches a target, freeze all else, and return their names.

    A target is a glob over names such as `blocks.0.attn.q`, or the last part of one (`q`). `ranks` gives other ranks to
    names that match its globs; the first match counts.

    >>> from ftmath.model import Config, Decoder
    >>> add_lora(Decoder(Config(layers=1)), ["q", "v"], rank=4, alpha=8)
    ['blocks.0.attn.q', 'blocks.0.attn.v']

    Errors: ValueError if a target matches nothing.
    """

    def wrap(name: str, layer: nn.Module) -> LoRALinear:
        mine = next((value for glob, value in (ranks or {}).items() if matches(name, glob)), rank)
        return LoRALinear(layer, mine, alpha, rank_stabilised=rank_stabilised, generator=generator)

    model.requires_grad_(False)
    return wrap_linears(model, targets, wrap)


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the adapters of a model by the names of the layers that they wrap.

    >>> list(lora_layers(nn.Sequential(LoRALinear(nn.Linear(4, 3), rank=2, alpha=2))))
    ['0']
    """
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


@contextmanager
def disabled(model: nn.Module) -> Generator[None]:
    """Switch the adapters off in the block: the model is its base again, bit for bit.

    >>> model = nn.Sequential(LoRALinear(nn.Linear(4, 3), rank=2, alpha=2))
    >>> with disabled(model):
    ...     torch.equal(model(torch.ones(4)), model[0].base(torch.ones(4)))
    True
    """
    found = lora_layers(model).values()
    before = [adapter.on for adapter in found]
    for adapter in found:
        adapter.on = False
    try:
        yield
    finally:
        for adapter, on in zip(found, before, strict=True):
            adapter.on = on


def merge(model: nn.Module) -> dict[str, LoRALinear]:
    """Replace every adapter by one plain layer, and return the adapters, with which `unmerge` goes back.

    >>> model = nn.Sequential(LoRALinear(nn.Linear(4, 3), rank=2, alpha=2))
    >>> kept = merge(model)
    >>> type(model[0]).__name__, list(kept)
    ('Linear', ['0'])
    """
    found = lora_layers(model)
    for name, adapter in found.items():
        replace(model, name, adapter.merged())
    return found


def unmerge(model: nn.Module, found: Mapping[str, LoRALinear]) -> None:
    """Put adapters back where `merge` took them: the base's bits are kept with them, so nothing is subtracted.

    >>> model = nn.Sequential(LoRALinear(nn.Linear(4, 3), rank=2, alpha=2))
    >>> unmerge(model, merge(model))
    >>> list(lora_layers(model))
    ['0']
    """
    for name, adapter in found.items():
        replace(model, name, adapter)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained factors alone: what is saved, a few KiB beside the base.

    >>> state = lora_state(nn.Sequential(LoRALinear(nn.Linear(4, 3), rank=2, alpha=2)))
    >>> {name: tuple(value.shape) for name, value in state.items()}
    {'0.A': (2, 4), '0.B': (3, 2)}
    """
    return {
        f"{name}.{factor}": getattr(adapter, factor).detach().clone()
        for name, adapter in lora_layers(model).items()
        for factor in ("A", "B")
    }


@torch.no_grad()
def load_lora(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put saved factors into a model with the same adapters. Raises ValueError for other names or shapes.

    >>> one, other = (nn.Sequential(LoRALinear(nn.Linear(4, 3), rank=2, alpha=2)) for _ in range(2))
    >>> load_lora(other, lora_state(one))
    >>> torch.equal(other[0].A, one[0].A)
    True
    """
    mine = {name: value.shape for name, value in lora_state(model).items()}
    given = {name: value.shape for name, value in state.items()}
    if mine != given:
        odd = sorted(name for name in mine.keys() | given.keys() if mine.get(name) != given.get(name))
        raise ValueError(f"the saved adapter doesn't fit this model: {', '.join(odd)}")
    for name, adapter in lora_layers(model).items():
        adapter.A.copy_(state[f"{name}.A"])
        adapter.B.copy_(state[f"{name}.B"])


__all__ = [
    "LoRALinear", "add_lora", "disabled", "load_lora", "lora_layers", "lora_state", "merge", "unmerge",
]  # fmt: skip
