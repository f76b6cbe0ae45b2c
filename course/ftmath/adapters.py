"""Bottleneck adapters: a narrow detour with a residual, put behind the attention, the MLP, or both."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.model import Block, Decoder


class Bottleneck(nn.Module):
    """h + W_up activation(W_down h + b_down) + b_up, with W_up and b_up 0 at first: a fresh adapter changes nothing.

    `down` maps d_model to m and `up` back (PMLR v97, Houlsby et al., figure 2).

    >>> h = torch.ones(1, 3, 8)
    >>> adapter = Bottleneck(8, m=2)
    >>> torch.equal(adapter(h), h), sum(parameter.numel() for parameter in adapter.parameters())
    (True, 42)
    """

    def __init__(
        self, d_model: int, m: int, activation: Callable[[Tensor], Tensor] = F.gelu,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if m < 1:
            raise ValueError(f"the bottleneck m must be at least 1, got {m}")
        self.down, self.up = nn.Linear(d_model, m), nn.Linear(m, d_model)
        self.activation = activation
        bound = d_model**-0.5
        nn.init.uniform_(self.down.weight, -bound, bound, generator=generator)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.up(self.activation(self.down(h)))


class Adapted(nn.Module):
    """A frozen layer, and an adapter behind it, before its output joins the residual stream."""

    def __init__(self, layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__()
        self.layer, self.adapter = layer, adapter

    def forward(self, x: Tensor) -> Tensor:
        return self.adapter(self.layer(x))


def add_houlsby(model: Decoder, m: int, generator: torch.Generator | None = None) -> None:
    """Put two adapters into each block, behind the attention's output and behind the MLP, and freeze all else.

    They hold 2 L (2 d m + m + d) parameters.

    >>> from ftmath.model import Config
    >>> model = Decoder(Config(layers=1))
    >>> add_houlsby(model, m=8)
    >>> sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    4368
    """
    model.requires_grad_(False)
    for block in model.blocks:
        assert isinstance(block, Block)
        block.attn.o = behind(block.attn.o, model, m, generator)
        block.mlp.down = behind(block.mlp.down, model, m, generator)


def add_pfeiffer(model: Decoder, m: int, generator: torch.Generator | None = None) -> None:
    """Put one adapter into each block, behind the MLP, and freeze all else (arXiv:2005.00247).

    They hold L (2 d m + m + d) parameters.

    >>> from ftmath.model import Config
    >>> model = Decoder(Config(layers=1))
    >>> add_pfeiffer(model, m=8)
    >>> sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    2184
    """
    model.requires_grad_(False)
    for block in model.blocks:
        assert isinstance(block, Block)
        block.mlp.down = behind(block.mlp.down, model, m, generator)


def behind(layer: nn.Module, model: Decoder, m: int, generator: torch.Generator | None) -> Adapted:
    """Return a layer with an adapter behind it, of the model's width, dtype and device."""
    adapter = Bottleneck(model.config.d_model, m, generator=generator).to(model.embed.weight)
    return Adapted(layer, adapter)


__all__ = ["Adapted", "Bottleneck", "add_houlsby", "add_pfeiffer"]
