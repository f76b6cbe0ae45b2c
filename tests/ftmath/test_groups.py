"""Freezing and rates: patterns say what trains, a trained tensor stands in one group, schedules are the paper's."""

import pytest
import torch
from ftmath.audit import audit_freeze, audit_groups
from ftmath.groups import (
    bitfit,
    layer_groups,
    layer_rates,
    rate_groups,
    slanted_triangle,
    thaw,
    train_only,
)  # fmt: skip
from ftmath.lora import add_lora
from ftmath.model import Config, Decoder
from hypothesis import given, settings
from hypothesis import strategies as st

SMALL = Config(vocab=17, d_model=12, layers=3, heads=2, kv_heads=2, head_dim=6, d_hidden=20)


def made(**other: object) -> Decoder:
    return Decoder(SMALL, torch.Generator().manual_seed(0))


def held(groups: list[dict[str, object]]) -> list[int]:
    return [id(parameter) for group in groups for parameter in group["params"]]


@given(st.floats(0.1, 1.0), st.booleans())
@settings(max_examples=15, deadline=None)
def test_groups_hold_every_trained_tensor_once(decay: float, with_lora: bool):
    model = made()
    if with_lora:
        add_lora(model, ["q", "down"], 2, 2.0)
    for groups in (layer_groups(model, 1e-3, decay, 0.1), rate_groups(model, {"*.B": 1.0}, 0.1, 0.1)):
        assert sorted(held(groups)) == sorted(id(p) for p in model.parameters() if p.requires_grad)
        assert audit_groups(model, torch.optim.AdamW(groups)) == []
        for group in groups:
            assert all((parameter.ndim >= 2) == (group["weight_decay"] > 0) for parameter in group["params"])


def test_rates_fall_by_the_factor_from_level_to_level():
    model = made()
    rates = {id(p): group["lr"] for group in layer_groups(model, 8.0, 0.5) for p in group["params"]}
    assert rates[id(model.embed.weight)] == 1.0
    assert [rates[id(block.attn.q.weight)] for block in model.blocks] == [2.0, 4.0, 8.0]
    assert rates[id(model.norm.weight)] == 8.0


def test_the_worked_rates_of_twelve_layers():
    rates = layer_rates(12, 2e-5, 0.9)
    assert [rates[level] for level in (12, 6, 1, 0)] == pytest.approx([2e-5, 1.06e-5, 6.28e-6, 5.65e-6], rel=5e-3)
    with pytest.raises(ValueError, match="decay"):
        layer_rates(3, 1.0, 0.0)


def test_ulmfits_schedule_and_factor():
    """arXiv:1801.06146: cut 0.1, ratio 32, peak 0.01; the bottom of four groups at 2.6^-3 of the top's rate."""
    rates = [0.01 * slanted_triangle(step, 1000) for step in (0, 100, 550)]
    assert rates == pytest.approx([0.0003125, 0.01, 0.00515625])
    assert layer_rates(3, 1.0, 1 / 2.6)[0] == pytest.approx(0.0568958, abs=1e-7)


@given(st.integers(10, 500), st.floats(0.1, 0.5), st.floats(1.0, 100.0))
@settings(max_examples=30, deadline=None)
def test_the_slanted_triangle_rises_to_1_and_falls_to_its_ratio(steps: int, cut: float, ratio: float):
    shares = [slanted_triangle(step, steps, cut, ratio) for step in range(steps + 1)]
    peak = shares.index(max(shares))
    assert max(shares) == pytest.approx(1.0)
    assert shares[:peak] == sorted(shares[:peak])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert shares[0] == pytest.approx(1 / ratio)


def test_bitfit_trains_biases_alone():
    model = made()
    names = bitfit(model)
    assert all(name.endswith("bias") for name in names)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * (4 * 12 + 2 * 20 + 12)
    with pytest.raises(ValueError, match="none"):
        bitfit(torch.nn.Linear(2, 2, bias=False))


@pytest.mark.parametrize(("d", "layers", "pooled", "printed"), [(768, 12, 2, 102_912), (1024, 24, 2, 272_384)])
def test_biases_of_published_encoders(d: int, layers: int, pooled: int, printed: int):
    """11 d a block and 2 d beside: RoBERTa-base's 0.1 M (LoRA, table 2), BERT-large's 0.08 % of 335,141,888."""
    block = torch.nn.TransformerEncoderLayer(d, 16, 4 * d)  # its biases: 3 d + d, 4 d + d, and two norms'
    biases = sum(p.numel() for name, p in block.named_parameters() if name.endswith("bias"))
    assert biases == 11 * d
    assert biases * layers + pooled * d == printed
    assert layers == 12 or round(100 * printed / 335_141_888, 2) == 0.08


def test_patterns_that_match_nothing_or_tear_a_tied_tensor_are_refused():
    with pytest.raises(ValueError, match="lora"):
        train_only(made(), ["lora*"])
    with pytest.raises(ValueError, match="tied"):
        train_only(made(), ["head.*"])
    model = made()
    train_only(model, ["blocks.1.*"])
    assert audit_freeze(model, ["blocks.1.*"]) == []


def test_thawing_goes_from_the_top_until_everything_trains():
    model, before = made(), set[str]()
    for levels in range(1, 5):
        now = set(thaw(model, levels))
        assert before < now
        before = now
    assert before == {name for name, _ in model.named_parameters()}
    assert thaw(model, 1)[0].startswith("blocks.2.")
    with pytest.raises(ValueError, match="levels"):
        thaw(model, 5)
