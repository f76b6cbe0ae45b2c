"""Weights in four bits: block quantisation, the NF4 code book, constants quantised again, and the frozen linear layer.

A block of n weights is stored as n indices into a code book and one constant c, its largest magnitude: a weight is
c times the entry of the book that lies nearest to weight / c (arXiv:2305.14314, section 2 and 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ftmath.layers import wrap_linears


def nf4_levels() -> Tensor:
    """Return the 16 levels of NF4 (16,), ascending from -1 to 1 (arXiv:2305.14314, section 3 and appendix E).

    They are quantiles of the normal distribution: eight above 0, seven below, and 0 itself, divided by the largest.

    >>> [round(level, 4) for level in nf4_levels()[[0, 1, 7, 8, 15]].tolist()]
    [-1.0, -0.6962, 0.0, 0.0796, 1.0]
    """
    return normal_levels(4)


def normal_levels(bits: int) -> Tensor:
    """Return the 2^bits levels that NF4's recipe gives at a width, ascending from -1 to 1; 0 is one, half lie above.

    Their outermost quantile lies midway between those of 2^bits and of 2^bits - 1 levels, as NF4's does.

    >>> [round(level, 4) for level in normal_levels(2).tolist()]
    [-1.0, 0.0, 0.4358, 1.0]

    Errors: ValueError for bits outside 2..8.
    """
    return torch.tensor(normal_numbers(bits), dtype=torch.float32)


@cache
def normal_numbers(bits: int) -> list[float]:
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be within 2..8, got {bits}")
    half, offset = 2 ** (bits - 1), 1 - (1 / (2 * (2**bits - 1)) + 1 / (2 * 2**bits)) / 2
    quantile = NormalDist().inv_cdf
    above = [quantile(offset + (0.5 - offset) * step / half) for step in range(half)]
    below = [-quantile(offset + (0.5 - offset) * step / (half - 1)) for step in range(half - 1)]
    return [level / max(above) for level in sorted([*below, 0.0, *above])]


def uniform_levels(bits: int) -> Tensor:
    """Return evenly spaced levels, symmetric about 0: 2^bits - 1 of them, so that 0 is one.

    >>> uniform_levels(2).tolist()
    [-1.0, 0.0, 1.0]

    Errors: ValueError for bits outside 2..8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be within 2..8, got {bits}")
    return torch.linspace(-1, 1, 2**bits - 1)


def dynamic_levels() -> Tensor:
    """Return the 256 levels of the 8-bit dynamic map, ascending (arXiv:2110.02861, section 2.2 and appendix F.1).

    Decades from 1e-6 to 1: the i-th holds 2^i levels, the middles of equal parts of [0.1, 1]; their negatives, 0 and 1.

    >>> len(dynamic_levels()), round(dynamic_levels()[-2].item(), 4)
    (256, 0.993)
    """
    positive: list[Tensor] = []
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float32)
        positive.append(10.0 ** (decade - 6) * (edges[:-1] + edges[1:]) / 2)
    found = torch.cat(positive)
    return torch.cat([found, -found, torch.tensor([0.0, 1.0])]).sort().values


def nearest_level(values: Tensor, levels: Tensor) -> Tensor:
    """Return the index of the level nearest to each value, as bytes; of two equally near, the lower.

    >>> nearest_level(torch.tensor([-2.0, 0.5, 0.51]), torch.tensor([0.0, 1.0])).tolist()
    [0, 0, 1]
    """
    middles = (levels[:-1] + levels[1:]) / 2
    return torch.bucketize(values.contiguous(), middles.to(values.device)).to(torch.uint8)


@dataclass(frozen=True, slots=True)
class Quantised:
    """A tensor in codes: `codes` (numel,) bytes of one value each, and the constant of each block, `scales` (blocks,).

    Bytes hold one code each here, so that they can be read; `pack` puts two of four bits into one.
    """

    codes: Tensor
    scales: Tensor
    shape: torch.Size
    block: int
    levels: Tensor


def quantise(values: Tensor, levels: Tensor | None = None, block: int = 64) -> Quantised:
    """Return the nearest codes of a tensor in blocks of its flattened entries; the last block may be shorter.

    Default levels: NF4. A block of zeros gets the constant 0.

    >>> weights = torch.tensor([0.12, -0.40, 0.03, 0.25, -0.07, 0.33, -0.18, 0.50])
    >>> quantise(weights, block=8).codes.tolist()
    [10, 1, 8, 12, 5, 14, 3, 15]

    Errors: ValueError for a block below 1, or values that aren't finite.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    if not finite(values):
        raise ValueError("values must be finite, and hold NaN or infinity")
    levels = (nf4_levels() if levels is None else levels).to(values.device)
    flat = values.detach().float().flatten()
    blocks = F.pad(flat, (0, -len(flat) % block)).view(-1, block)
    scales = blocks.abs().amax(1)
    # A product with the reciprocal, as bitsandbytes computes it: a division rounds otherwise at a tie.
    unit = blocks * scales.reciprocal().where(scales > 0, 0.0)[:, None]
    return Quantised(nearest_level(unit.flatten()[: len(flat)], levels), scales, values.shape, block, levels)


def finite(values: Tensor) -> bool:
    """Say whether all values are finite; a tensor that has only a shape (`ftmath.memory.imagined`) passes."""
    return isinstance(values, FakeTensor) or bool(torch.isfinite(values).all())


def dequantise(quantised: Quantised) -> Tensor:
    """Return the values that codes stand for, float32, in the shape of the original.

    >>> weights = torch.tensor([0.12, -0.40, 0.03, 0.25, -0.07, 0.33, -0.18, 0.50])
    >>> [round(value, 4) for value in dequantise(quantise(weights, block=8)).tolist()[:4]]
    [0.1231, -0.3481, 0.0398, 0.2204]
    """
    scales = quantised.scales.repeat_interleave(quantised.block)[: len(quantised.codes)]
    return (quantised.levels[quantised.codes.long()] * scales).view(quantised.shape)


def pack(codes: Tensor) -> Tensor:
    """Return four-bit codes (count,) two to a byte, the first in the high half; an odd one at the end is joined by 0.

    >>> pack(torch.tensor([10, 1, 8], dtype=torch.uint8)).tolist()
    [161, 128]
    """
    pairs = F.pad(codes, (0, len(codes) % 2)).view(-1, 2)
    return (pairs[:, 0] << 4) | pairs[:, 1]


def unpack(packed: Tensor, count: int) -> Tensor:
    """Return the first `count` four-bit codes of packed bytes: `pack` undone.

    >>> unpack(torch.tensor([161, 128], dtype=torch.uint8), 3).tolist()
    [10, 1, 8]
    """
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:count]


@dataclass(frozen=True, slots=True)
class QuantisedScales:
    """Block constants in eight bits: less their mean `offset`, quantised on the dynamic map in blocks of 256."""

    inner: Quantised
    offset: Tensor


def quantise_scales(scales: Tensor, block: int = 256) -> QuantisedScales:
    """Return block constants quantised once more: double quantisation (arXiv:2305.14314, section 3).

    They are all positive, so their mean is taken off before.

    >>> twice = quantise_scales(torch.tensor([0.5, 0.7, 0.6]))
    >>> round(twice.offset.item(), 4), twice.inner.codes.dtype
    (0.6, torch.uint8)
    """
    offset = scales.mean()
    return QuantisedScales(quantise(scales - offset, dynamic_levels(), block), offset)


def dequantise_scales(twice: QuantisedScales) -> Tensor:
    """Return the block constants that were quantised once more.

    >>> [round(scale, 3) for scale in dequantise_scales(quantise_scales(torch.tensor([0.5, 0.7, 0.6]))).tolist()]
    [0.501, 0.7, 0.6]
    """
    return dequantise(twice.inner) + twice.offset


def bits_per_weight(block: int = 64, double: bool = False, second_block: int = 256, bits: int = 4) -> float:
    """Return what a weight takes: its code, and its share of the constants (arXiv:2305.14314, section 3).

    >>> bits_per_weight(64), round(bits_per_weight(64, double=True), 3)
    (4.5, 4.127)
    """
    return bits + (8 / block + 32 / (block * second_block) if double else 32 / block)


class FrozenProduct(torch.autograd.Function):
    """x W^T with W in codes: the backward pass makes W anew, so the wide weight is kept by no one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "QuantLinear") -> Tensor:  # pyright: ignore
        ctx.layer = layer
        return F.linear(x, layer.weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.weight.to(gradient.dtype), None


class QuantLinear(nn.Module):
    """A frozen linear layer whose weight (d_out, d_in) is stored in four bits, and computed with in the input's type.

    With `double`, its block constants are quantised as well. The bias stays as it was.

    >>> layer = QuantLinear(nn.Linear(64, 2), double=True)
    >>> layer.packed.shape, layer.stored_bytes
    (torch.Size([64]), 74)
    """

    packed: Tensor
    levels: Tensor

    def __init__(self, base: nn.Linear, levels: Tensor | None = None, block: int = 64, *, double: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features, self.block = base.in_features, base.out_features, block
        self.dtype = base.weight.dtype
        self.bias = base.bias.requires_grad_(False) if base.bias is not None else None  # pyright: ignore
        found = quantise(base.weight, levels, block)
        if len(found.levels) > 16:
            raise ValueError(f"levels must be at most 16, for four bits, got {len(found.levels)}")
        self.register_buffer("packed", pack(found.codes))
        self.register_buffer("levels", found.levels, persistent=False)
        if double:
            twice = quantise_scales(found.scales)
            self.register_buffer("scale_codes", twice.inner.codes)
            self.register_buffer("scale_scales", twice.inner.scales)
            self.register_buffer("scale_offset", twice.offset)
            self.register_buffer("scales", None)
        else:
            self.register_buffer("scales", found.scales)

    @property
    def block_constants(self) -> Tensor:
        """Return the constant of each block, (blocks,)."""
        scales = self._buffers["scales"]
        if scales is not None:
            return scales
        codes, inner, offset = (self.get_buffer(f"scale_{part}") for part in ("codes", "scales", "offset"))
        levels = dynamic_levels().to(codes.device)
        return dequantise_scales(QuantisedScales(Quantised(codes, inner, codes.shape, 256, levels), offset))

    @property
    def weight(self) -> Tensor:
        """Return the weight (d_out, d_in) that the codes stand for, made anew at every call."""
        shape = torch.Size((self.out_features, self.in_features))
        codes = unpack(self.packed, shape.numel())
        return dequantise(Quantised(codes, self.block_constants, shape, self.block, self.levels)).to(self.dtype)

    @property
    def stored_bytes(self) -> int:
        """Return what the weight takes: codes and constants, without the bias and the code book."""
        kept = [value for name, value in self.named_buffers(recurse=False) if name != "levels"]
        return sum(value.numel() * value.element_size() for value in kept)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = FrozenProduct.apply(x, self)  # pyright: ignore
        return product if self.bias is None else product + self.bias


def quantise_linears(
    model: nn.Module, targets: Sequence[str] = ("q", "k", "v", "o", "gate", "up", "down"),
    levels: Tensor | None = None, block: int = 64, *, double: bool = True,
) -> list[str]:  # fmt: skip
    """Freeze a model, put the linear layers that the targets name into four bits, and return their names.

    `add_lora` on top of it makes it QLoRA: the adapters stay in the model's own precision.

    >>> from ftmath.model import Config, Decoder
    >>> len(quantise_linears(Decoder(Config(layers=1)), ["q", "v"]))
    2

    Errors: ValueError if a target matches nothing, or a weight isn't finite; TypeError for layers that aren't plain.
    """

    def wrap(name: str, layer: nn.Module) -> QuantLinear:
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"only a plain linear layer can be quantised, and {name} is a {type(layer).__name__}")
        return QuantLinear(layer, levels, block, double=double)

    model.requires_grad_(False)
    return wrap_linears(model, targets, wrap)


__all__ = [
    "QuantLinear", "Quantised", "QuantisedScales", "bits_per_weight", "dequantise", "dequantise_scales",
    "dynamic_levels", "nearest_level", "nf4_levels", "normal_levels", "pack", "quantise", "quantise_linears",
    "quantise_scales", "uniform_levels", "unpack",
]  # fmt: skip
