"""LoRA's laws: a fresh adapter changes nothing, merging keeps every logit, off means off, counts are the formula's."""

import pytest
import torch
from ftgrade.catalog import home
from ftmath.lora import LoRALinear, add_lora, disabled, load_lora, lora_layers, lora_state, merge, unmerge
from ftmath.model import Config, Decoder
from hypothesis import given, settings
from hypothesis import strategies as st

P03, P04 = (home().solution(stem) for stem in ("p03_lora_parameters", "p04_lora_update"))
SMALL = Config(vocab=17, d_model=12, layers=2, heads=4, kv_heads=2, head_dim=6, d_hidden=20)
IDS = torch.tensor([[1, 5, 3, 9], [2, 2, 7, 16]])
TARGETS = ["q", "v", "up"]


def made(seed: int = 0) -> Decoder:
    return Decoder(SMALL, torch.Generator().manual_seed(seed)).double()


def adapted(seed: int = 0, rank: int = 3, alpha: float = 7.0, moved: bool = True) -> Decoder:
    """Return a model with adapters, moved away from their start."""
    model, generator = made(seed), torch.Generator().manual_seed(seed + 1)
    add_lora(model, TARGETS, rank, alpha, generator=generator)
    if moved:
        with torch.no_grad():
            for adapter in lora_layers(model).values():
                adapter.B.copy_(torch.randn(adapter.B.shape, generator=generator, dtype=torch.float64))
    return model


def test_a_fresh_adapter_changes_nothing():
    assert torch.equal(adapted(moved=False)(IDS), made()(IDS))


def test_an_adapter_that_is_off_leaves_the_bases_bits():
    model = adapted()
    with disabled(model):
        off = model(IDS)
    assert torch.equal(off, made()(IDS))
    assert not torch.allclose(model(IDS), off)


@given(st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_merging_keeps_every_logit_and_unmerging_restores_every_bit(seed: int, rank: int):
    model = adapted(seed % 1000, rank)
    before = model(IDS)
    kept = merge(model)
    assert not lora_layers(model)
    torch.testing.assert_close(model(IDS), before, rtol=0, atol=1e-9)
    unmerge(model, kept)
    assert torch.equal(model(IDS), before)


def test_a_merge_in_half_precision_rounds_once():
    base = torch.nn.Linear(8, 6, bias=False).bfloat16()
    adapter = LoRALinear(base, 2, 3.0, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        adapter.B.copy_(torch.randn(6, 2, generator=torch.Generator().manual_seed(1)))
    exact = base.weight.float() + 1.5 * (adapter.B.float() @ adapter.A.float())
    merged = adapter.merged()
    assert merged.weight.dtype == torch.bfloat16
    assert torch.equal(merged.weight, exact.bfloat16())


def test_only_the_factors_train_and_they_are_as_many_as_the_formula_says():
    model = adapted()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == {"A", "B"}
    shapes = {"q": (24, 12), "v": (12, 12), "up": (20, 12)}
    assert sum(p.numel() for p in trained.values()) == P03.lora_model_params(shapes, TARGETS, SMALL.layers, 3)


def test_the_layer_is_the_problems_forward_and_update():
    model = adapted()
    adapter = lora_layers(model)["blocks.1.attn.q"]
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    W, A, B, bias = adapter.base.weight, adapter.A, adapter.B, adapter.base.bias
    torch.testing.assert_close(adapter(x), P04.lora_forward(x, W, A, B, 7.0, bias), rtol=0, atol=1e-10)
    torch.testing.assert_close(adapter.delta(), P04.lora_delta(A, B, 7.0), rtol=0, atol=1e-12)


def test_rank_stabilised_scaling_divides_by_the_root():
    layer = torch.nn.Linear(16, 16)
    assert LoRALinear(layer, 4, 8.0).scale == 2.0
    assert LoRALinear(layer, 4, 8.0, rank_stabilised=True).scale == 4.0


def test_the_adapter_alone_is_saved_and_fits_only_its_own_kind():
    model, other = adapted(), made()
    add_lora(other, TARGETS, 3, 7.0)
    load_lora(other, lora_state(model))
    assert torch.equal(other(IDS), model(IDS))
    wider = made()
    add_lora(wider, TARGETS, 4, 7.0)
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.q\.A"):
        load_lora(wider, lora_state(model))


def test_ranks_by_module_and_targets_that_match_nothing():
    model = made()
    names = add_lora(model, ["q", "blocks.1.mlp.*"], 2, 4.0, ranks={"blocks.1.mlp.*": 5})
    assert len(names) == 5
    assert {name: adapter.A.shape[0] for name, adapter in lora_layers(model).items()}["blocks.1.mlp.up"] == 5
    with pytest.raises(ValueError, match="w_proj"):
        add_lora(made(), ["q", "w_proj"], 2, 4.0)
    with pytest.raises(ValueError, match=r"rank must be in 1\.\.12"):
        add_lora(made(), ["q"], 13, 4.0)
