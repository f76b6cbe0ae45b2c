"""LoRA: a frozen linear layer and a trained low-rank update beside it (arXiv:2106.09685)."""

import copy
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoRALinear(nn.Module):
    """Wrap a linear layer: base(x) + scale * x A^T B^T, where only A (rank, d_in) and B (d_out, rank) are trained.

    A is drawn uniformly within 1/sqrt(d_in) of 0 and B is 0, so a fresh adapter changes nothing. The scale is
    alpha / rank, or alpha / sqrt(rank) if `rank_stabilised` (arXiv:2312.03732). The base's bias is never scaled.

    Errors: ValueError for a rank outside 1..min(d_out, d_in).
    """

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, *, rank_stabilised: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        d_out, d_in = base.out_features, base.in_features
        if not 1 <= rank <= min(d_out, d_in):
            raise ValueError(f"rank must be in 1..{min(d_out, d_in)} for a ({d_out}, {d_in}) weight, got {rank}")
        self.base = base.requires_grad_(False)
        bound = 1 / math.sqrt(d_in)
        self.A = nn.Parameter(base.weight.new_empty(rank, d_in).uniform_(-bound, bound, generator=generator))
        self.B = nn.Parameter(base.weight.new_zeros(d_out, rank))
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
        """Return a plain linear layer that gives what this one gives, in the base's dtype, rounded once."""
        weight = self.base.weight
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        update = self.scale * (self.B.to(wide) @ self.A.to(wide))
        plain = copy.deepcopy(self.base)
        plain.weight = nn.Parameter((weight.to(wide) + update).to(weight.dtype), requires_grad=False)
        return plain


def add_lora(
    model: nn.Module, targets: Sequence[str], rank: int, alpha: float, *, ranks: Mapping[str, int] | None = None,
    rank_stabilised: bool = False, generator: torch.Generator | None = None,
) -> list[str]:  # fmt: skip
    """Put LoRA on every linear layer whose name matches a target, freeze all else, and return their names.

    A target is a glob over names such as `blocks.0.attn.q`, or the last part of one (`q`). `ranks` gives other ranks to
    names that match its globs; the first match counts.

    Errors: ValueError if a target matches nothing.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = [name for name in linear if any(matches(name, target) for target in targets)]
    missing = [target for target in targets if not any(matches(name, target) for name in linear)]
    if missing:
        raise ValueError(f"targets must name linear layers, and these match none: {', '.join(missing)}")
    model.requires_grad_(False)
    for name in chosen:
        mine = next((value for glob, value in (ranks or {}).items() if matches(name, glob)), rank)
        adapter = LoRALinear(linear[name], mine, alpha, rank_stabilised=rank_stabilised, generator=generator)
        replace(model, name, adapter)
    return chosen


def matches(name: str, glob: str) -> bool:
    """Say whether a module's name, or its last part, matches a glob.

    >>> matches("blocks.1.attn.q", "q"), matches("blocks.1.attn.q", "blocks.*"), matches("blocks.1.mlp.up", "p")
    (True, True, False)
    """
    return fnmatchcase(name, glob) or fnmatchcase(name.rpartition(".")[2], glob)


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module where another one stands."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the adapters of a model by the names of the layers that they wrap."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


@contextmanager
def disabled(model: nn.Module) -> Generator[None]:
    """Switch the adapters off in the block: the model is its base again, bit for bit."""
    found = adapters(model).values()
    before = [adapter.on for adapter in found]
    for adapter in found:
        adapter.on = False
    try:
        yield
    finally:
        for adapter, on in zip(found, before, strict=True):
            adapter.on = on


def merge(model: nn.Module) -> dict[str, LoRALinear]:
    """Replace every adapter by one plain layer, and return the adapters, with which `unmerge` goes back."""
    found = adapters(model)
    for name, adapter in found.items():
        replace(model, name, adapter.merged())
    return found


def unmerge(model: nn.Module, found: Mapping[str, LoRALinear]) -> None:
    """Put adapters back where `merge` took them: the base's bits are kept with them, so nothing is subtracted."""
    for name, adapter in found.items():
        replace(model, name, adapter)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained factors alone: what is saved, a few KiB beside the base."""
    return {
        f"{name}.{factor}": getattr(adapter, factor).detach().clone()
        for name, adapter in adapters(model).items()
        for factor in ("A", "B")
    }


@torch.no_grad()
def load_lora(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put saved factors into a model with the same adapters. Raises ValueError for other names or shapes."""
    mine = {name: value.shape for name, value in lora_state(model).items()}
    given = {name: value.shape for name, value in state.items()}
    if mine != given:
        odd = sorted(name for name in mine.keys() | given.keys() if mine.get(name) != given.get(name))
        raise ValueError(f"the saved adapter doesn't fit this model: {', '.join(odd)}")
    for name, adapter in adapters(model).items():
        adapter.A.copy_(state[f"{name}.A"])
        adapter.B.copy_(state[f"{name}.B"])


__all__ = [
    "LoRALinear", "adapters", "add_lora", "disabled", "load_lora", "lora_state", "matches", "merge", "replace",
    "unmerge",
]  # fmt: skip
