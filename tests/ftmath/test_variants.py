"""LoRA's variants start at the base, train what they say, and merge; sweeps read each method at its own best rate."""

import pytest
import torch
from ftmath.diagrams import lora_block
from ftmath.lora import add_lora, lora_layers, merge
from ftmath.model import Config, Decoder
from ftmath.sweeps import at_best_rate, best_rate, short_run
from ftmath.variants import DoRALinear, VeRALinear, add_dora, add_pissa, add_vera, lora_plus
from torch import nn

TARGETS = ("q", "v", "down")
WAYS = {
    "DoRA": lambda model: add_dora(model, TARGETS, 3, 6.0),
    "PiSSA": lambda model: add_pissa(model, TARGETS, 3, 6.0),
    "VeRA": lambda model: add_vera(model, TARGETS, 7),
}


def model() -> Decoder:
    torch.manual_seed(0)
    return Decoder(Config(layers=2)).double()


@pytest.mark.parametrize("way", WAYS)
def test_a_fresh_variant_changes_nothing_and_trains_only_its_own(way: str):
    plain, ids = model(), torch.randint(32, 120, (2, 9))
    before = plain(ids).detach()
    WAYS[way](plain)
    assert torch.allclose(plain(ids), before, atol=1e-9)
    plain(ids).square().mean().backward()
    grown = {name.rpartition(".")[2] for name, p in plain.named_parameters() if p.grad is not None and p.grad.any()}
    assert grown == {"DoRA": {"B", "m"}, "PiSSA": {"A", "B"}, "VeRA": {"b"}}[way]


@pytest.mark.parametrize("way", ["DoRA", "PiSSA"])
def test_merging_a_trained_variant_keeps_every_logit(way: str):
    plain, ids = model(), torch.randint(32, 120, (2, 9))
    WAYS[way](plain)
    with torch.no_grad():
        for parameter in plain.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    before = plain(ids).detach()
    merge(plain)
    assert not lora_layers(plain)
    assert torch.allclose(plain(ids), before, atol=1e-9)


def test_dora_sets_the_length_of_each_row_and_its_update_has_a_rank_above_r():
    layer = DoRALinear(nn.Linear(8, 6).double(), rank=2, alpha=4)
    with torch.no_grad():
        layer.B.normal_()
        layer.m.copy_(torch.arange(1.0, 7.0)[:, None])
    assert torch.allclose(layer.weight().norm(dim=1), torch.arange(1.0, 7.0).double())
    assert torch.linalg.matrix_rank(layer.delta()) > 2


def test_doras_length_counts_as_a_constant_in_the_gradient():
    layer = DoRALinear(nn.Linear(4, 3, bias=False).double(), rank=1, alpha=1)
    x = torch.randn(1, 4, dtype=torch.float64)
    layer(x).sum().backward()
    ratio = (layer.m / layer.base.weight.norm(dim=1, keepdim=True)).detach()  # 1 at the start
    assert layer.B.grad is not None
    assert torch.allclose(layer.B.grad, ratio * (x @ layer.A.detach().T))


def test_pissa_leaves_the_base_without_its_top_directions():
    plain = model()
    sigma = torch.linalg.svdvals(plain.blocks[0].attn.q.weight)
    add_pissa(plain, ["q"], 3, 6.0)
    rest = torch.linalg.svdvals(lora_layers(plain)["blocks.0.attn.q"].base.weight)
    assert torch.allclose(rest[:5], sigma[3:8])


def test_vera_shares_its_factors_between_layers_of_a_shape_and_says_what_it_adds():
    one, other = (VeRALinear(nn.Linear(8, 6), rank=4) for _ in range(2))
    assert torch.equal(one.A, other.A)
    with torch.no_grad():
        one.b.normal_()
    x = torch.randn(5, 8)
    assert torch.allclose(one(x) - one.base(x), x @ one.delta().T, atol=1e-5)
    assert not {"A", "B"} & set(one.state_dict())


def test_a_sweep_whose_best_rate_stands_at_an_end_tells_nothing():
    inside = {"0.1": [3.0, 3.0], "1": [1.0, 2.0], "10": [4.0, 4.0]}
    assert (best_rate(inside), at_best_rate(inside)) == ("1", [1.0, 2.0])
    for end in ("0.1", "10"):
        with pytest.raises(ValueError, match="too narrow"):
            best_rate(inside | {end: [0.5, 0.5]})


def test_a_short_run_is_the_same_for_the_same_seed():
    def run(seed: int) -> float:
        prepare = lambda one, generator: add_lora(one, ["q"], 2, 4.0, generator=generator)  # noqa: E731
        return short_run(prepare, seed, rate=1e-3, steps=2, rows=2, groups=lora_plus).loss

    assert run(0) == run(0) != run(1)


def test_the_diagram_counts_what_it_draws():
    picture = lora_block(6, 4, 2)
    assert [row[2] for row in picture.rows] == ["24", "8", "12"]
    assert "6 by 4" in picture.alt
