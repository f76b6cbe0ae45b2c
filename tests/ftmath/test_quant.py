"""Laws of quantisation: the second time changes nothing, no weight moves beyond half a gap, nothing wide is kept."""

import math

import pytest
import torch
from ftmath.lora import add_lora, lora_layers, merge
from ftmath.model import Config, Decoder
from ftmath.quant import (
    QuantLinear,
    bits_per_weight,
    dequantise,
    dequantise_scales,
    dynamic_levels,
    nf4_levels,
    pack,
    quantise,
    quantise_linears,
    quantise_scales,
    uniform_levels,
    unpack,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

SMALL = Config(vocab=17, d_model=24, layers=2, heads=4, kv_heads=2, head_dim=6, d_hidden=20)
PRINTED = [
    -1.0, -0.69619280, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0, 0.07958030, 0.16093020,
    0.24611230, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1.0,
]  # fmt: skip


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_levels_are_qloras_appendix_e():
    """Printed there from a float32 grid, 1.1e-7 off the closed form."""
    torch.testing.assert_close(nf4_levels(), torch.tensor(PRINTED), rtol=0, atol=2e-7)


def test_bits_per_weight_are_qloras_section_3():
    assert bits_per_weight(64) - 4 == 0.5
    assert round(bits_per_weight(64, double=True) - 4, 3) == 0.127
    assert round(bits_per_weight(64) - bits_per_weight(64, double=True), 3) == 0.373


@given(st.integers(0, 2**31), st.integers(1, 200), st.sampled_from([1, 5, 64]))
@settings(max_examples=40, deadline=None)
def test_quantising_again_changes_nothing(seed: int, count: int, block: int):
    once = dequantise(quantise(drawn(seed, count), block=block))
    assert torch.equal(dequantise(quantise(once, block=block)), once)


@given(st.integers(0, 2**31), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_a_weight_moves_at_most_half_the_widest_gap_and_a_blocks_largest_not_at_all(seed: int, count: int):
    values = drawn(seed, count)
    found = quantise(values)
    moved = (dequantise(found) - values).abs()
    scales = found.scales.repeat_interleave(64)[:count]
    widest = float(nf4_levels().diff().max()) / 2
    assert bool((moved <= (widest + 1e-6) * scales).all())
    # Exactly so only below -1 and at 1: the levels reach as far on both sides.
    largest = values.abs() == scales
    torch.testing.assert_close(dequantise(found)[largest], values[largest], rtol=2e-7, atol=0)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_unpacking_undoes_packing(codes: list[int]):
    bytes_of_codes = torch.tensor(codes, dtype=torch.uint8)
    packed = pack(bytes_of_codes)
    assert len(packed) == math.ceil(len(codes) / 2)
    assert torch.equal(unpack(packed, len(codes)), bytes_of_codes)


def test_a_block_of_zeros_stays_zero_and_bad_values_are_refused():
    assert not bool(dequantise(quantise(torch.zeros(70))).any())
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            quantise(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match="block"):
        quantise(torch.ones(2), block=0)
    with pytest.raises(ValueError, match="bits"):
        uniform_levels(1)


def test_one_outlier_ruins_one_block_and_not_its_neighbours():
    values = drawn(0, 128)
    values[3] = 1000.0
    error = (dequantise(quantise(values)) - values).abs()
    assert error[:64].mean() > 10 * error[64:].mean()


def test_nf4_beats_uniform_levels_on_normal_weights():
    """Mean squared errors 0.0085 and 0.0116 for four bits on N(0, 1) in blocks of 64, a ratio of 0.73."""
    values = drawn(1, 1 << 18)
    books = nf4_levels(), uniform_levels(4)
    errors = [float((dequantise(quantise(values, levels)) - values).square().mean()) for levels in books]
    assert errors == pytest.approx([0.0085, 0.0116], rel=0.01)
    assert errors[0] / errors[1] == pytest.approx(0.73, abs=0.01)


def test_constants_quantised_twice_come_back_within_a_step():
    scales = drawn(2, 1000).abs() + 0.1
    back = dequantise_scales(quantise_scales(scales))
    spread = float((scales - scales.mean()).abs().max())
    assert float((back - scales).abs().max()) <= spread * float(dynamic_levels().diff().max()) / 2


@pytest.mark.parametrize("double", [False, True])
def test_the_layer_computes_with_its_own_weight_and_differentiates_its_input(double: bool):
    layer = QuantLinear(torch.nn.Linear(30, 7).double(), double=double)
    x = drawn(0, 2, 3, 30).double().requires_grad_()
    weight = layer.weight
    torch.testing.assert_close(layer(x), x @ weight.T + layer.bias)
    assert torch.autograd.gradcheck(layer, (x,))
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    bits = 8 * layer.stored_bytes / weight.numel()
    assert bits < 6


def test_the_backward_pass_keeps_no_wide_weight():
    layer = QuantLinear(torch.nn.Linear(64, 64, bias=False))
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved.shape) or saved, lambda saved: saved):
        layer(drawn(0, 2, 64).requires_grad_()).sum()
    assert torch.Size([64, 64]) not in kept


def test_a_saved_quantised_model_loads_into_another():
    first, second = Decoder(SMALL, torch.Generator().manual_seed(0)), Decoder(SMALL, torch.Generator().manual_seed(1))
    for model in (first, second):
        quantise_linears(model)
    second.load_state_dict(first.state_dict())
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(first(ids), second(ids))


def test_qlora_trains_adapters_alone_in_the_models_precision_and_merges_into_a_wide_layer():
    model = Decoder(SMALL, torch.Generator().manual_seed(0))
    names = quantise_linears(model)
    assert len(names) == 14
    add_lora(model, ["q", "v"], 2, 4.0, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[1, 2, 3]])
    base = model(ids)
    model(ids).square().mean().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(name.endswith((".A", ".B")) for name in trained)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            assert layer.B.dtype == torch.float32
            layer.B.normal_(generator=torch.Generator().manual_seed(2))
    moved = model(ids)
    assert not torch.allclose(moved, base)
    merge(model)
    torch.testing.assert_close(model(ids), moved, rtol=0, atol=1e-5)
    assert isinstance(model.get_submodule("blocks.0.attn.q"), torch.nn.Linear)


def test_only_plain_layers_are_quantised():
    model = Decoder(SMALL)
    quantise_linears(model, ["q"])
    with pytest.raises(TypeError, match="QuantLinear"):
        quantise_linears(model, ["q"])
    with pytest.raises(ValueError, match="levels"):
        QuantLinear(torch.nn.Linear(4, 4), uniform_levels(5))
