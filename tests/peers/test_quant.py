"""Four-bit storage against bitsandbytes on the CPU: code book, bytes, constants, forward and gradient."""

import pytest
import torch
from ftmath.quant import (
    QuantLinear,
    dequantise,
    dequantise_scales,
    dynamic_levels,
    nf4_levels,
    pack,
    quantise,
    quantise_scales,
)  # fmt: skip

bnb = pytest.importorskip("bitsandbytes")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # a peer's own deprecations are no business here


def weights(seed: int, *shape: int) -> torch.Tensor:
    return 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_code_book_is_bitsandbytes_to_its_own_rounding():
    """Theirs was computed on a float32 grid: 1.1e-7 off the closed form."""
    theirs = bnb.functional.get_4bit_type("nf4", device="cpu")
    torch.testing.assert_close(nf4_levels(), theirs, rtol=0, atol=2e-7)


def test_the_dynamic_map_is_bitsandbytes():
    theirs = bnb.functional.create_dynamic_map(signed=True)
    torch.testing.assert_close(dynamic_levels(), theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [64, 256])
def test_packed_bytes_and_constants_are_equal_and_values_to_the_code_books_rounding(seed: int, block: int):
    # Rows as wide as the widest block: their CPU kernel (0.50.2) reads wrong constants where a block spans two rows.
    values = weights(seed, 96, 256)
    packed, state = bnb.functional.quantize_4bit(values, blocksize=block, quant_type="nf4")
    ours = quantise(values, block=block)
    assert torch.equal(pack(ours.codes), packed.flatten())
    assert torch.equal(ours.scales, state.absmax)
    theirs = bnb.functional.dequantize_4bit(packed, state)
    # The code books differ by 1.1e-7 of a constant, and each product is rounded to 6e-8 of itself.
    torch.testing.assert_close(dequantise(ours), theirs, rtol=0, atol=3e-7 * float(values.abs().max()))


def test_constants_quantised_twice_are_equal():
    values = weights(3, 256, 512)
    _, state = bnb.functional.quantize_4bit(values, blocksize=64, quant_type="nf4", compress_statistics=True)
    twice = quantise_scales(quantise(values).scales)
    torch.testing.assert_close(twice.offset, state.offset, rtol=1e-6, atol=0)
    # Their kernel takes the farther neighbour of a few values that lie almost in the middle of two; ours never does.
    levels, ours, theirs = dynamic_levels(), twice.inner.codes.long(), state.absmax.long()
    odd = (ours != theirs).nonzero().flatten()
    assert len(odd) < 0.005 * len(ours)
    unit = (quantise(values).scales - twice.offset)[odd] / twice.inner.scales[odd // 256]
    middle = (levels[ours[odd]] + levels[theirs[odd]]) / 2
    torch.testing.assert_close(unit, middle, rtol=0, atol=2e-5)
    assert bool(((unit - levels[ours[odd]]).abs() <= (unit - levels[theirs[odd]]).abs()).all())
    same = ours == theirs
    wanted = bnb.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    torch.testing.assert_close(dequantise_scales(twice)[same], wanted[same], rtol=0, atol=1e-7)


@pytest.mark.parametrize("double", [False, True])
def test_a_layer_gives_bitsandbytes_output_and_input_gradient(double: bool):
    base = torch.nn.Linear(128, 96)
    theirs = bnb.nn.Linear4bit(
        128, 96, quant_type="nf4", compute_dtype=torch.float32, compress_statistics=double, quant_storage=torch.uint8
    )
    theirs.load_state_dict({"weight": base.weight.detach().clone(), "bias": base.bias.detach().clone()})
    theirs = theirs.to("cpu")
    ours = QuantLinear(base, double=double)
    x, y = (weights(1, 5, 128).requires_grad_() for _ in range(2))
    out, wanted = ours(x), theirs(y)
    # Twice quantised, one constant in 500 is a step of the dynamic map off (above).
    torch.testing.assert_close(out, wanted, rtol=0, atol=5e-5 if double else 1e-6)
    out.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-3 if double else 1e-5)
