"""What the building exercises of parts 3 and 4 make is what torch and the course's model do."""

from collections.abc import Sequence

import pytest
import torch
from ftmath.adapters import add_houlsby
from ftmath.diagrams import adapter_block, byte_rows, prefix_mask, prompt_block
from ftmath.exercises.part03 import adamw, clip_together, drawn, walked, warm_cosine
from ftmath.exercises.part04 import blocks_of, place_adapters, prefixed_attention, small_model
from ftmath.prefixes import add_prefix
from ftmath.rotary import turn
from ftmath.sweeps import best_rate
from ftmath.training import cosine, warm_up
from ftmath.weights import recorded
from torch import Tensor, nn


def torchs_adamw(rate: float, decay: float):
    """Return torch's AdamW as an exercise's optimizer."""
    made: list[torch.optim.Optimizer] = []

    def step(parameters: Sequence[Tensor], factor: float) -> None:
        if not made:
            made.append(torch.optim.AdamW(parameters, lr=rate, weight_decay=decay))
        made[0].param_groups[0]["lr"] = rate * factor
        made[0].step()

    return step


@pytest.mark.parametrize(("rate", "decay"), [(0.1, 0.5), (1e-3, 0.0)])
def test_the_built_adamw_is_torchs_also_where_a_gradient_is_missing(rate: float, decay: float):
    for own, theirs in zip(walked(adamw(rate, decay)), walked(torchs_adamw(rate, decay)), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)


def test_the_built_clip_is_torchs():
    parameters = [nn.Parameter(drawn(1, 3)), nn.Parameter(drawn(2, 2, 2))]
    for most in (0.5, 100.0):
        gradients = [drawn(3, 3), drawn(4, 2, 2)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        norm = nn.utils.clip_grad_norm_(parameters, most)
        own, own_norm = clip_together(gradients, most)
        assert own_norm == pytest.approx(float(norm))
        for gradient, parameter in zip(own, parameters, strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-9)  # torch adds 1e-6 to the norm


def test_a_warm_up_rises_in_equal_steps_and_the_rest_is_the_other_schedule():
    rise = warm_up(4, cosine)
    assert [rise(step, 12) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert [rise(step, 12) for step in range(4, 12)] == [cosine(step, 8) for step in range(8)]
    assert warm_up(0)(0, 5) == 1.0
    assert max(warm_cosine(step, 12, 4, 0.1) for step in range(12)) == warm_cosine(3, 12, 4, 0.1) == 1.0
    with pytest.raises(ValueError, match="rise"):
        warm_up(-1)


def test_the_placed_adapters_are_the_librarys():
    own, theirs = place_adapters(small_model(), 3), small_model()
    add_houlsby(theirs, 3)

    def shapes(model: nn.Module) -> list[tuple[int, ...]]:
        return sorted(tuple(one.shape) for one in model.parameters() if one.requires_grad)

    assert shapes(own) == shapes(theirs)
    assert torch.equal(own(torch.tensor([[1, 5, 3]])), theirs(torch.tensor([[1, 5, 3]])))


def test_the_prefixed_attention_is_the_models():
    model = small_model()
    add_prefix(model, 3, torch.Generator().manual_seed(0), scale=1.0)
    layer = blocks_of(model)[0].attn
    assert layer.prefix is not None
    x, real = drawn(1, 2, 6, 8).float(), torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    visible = torch.ones(6, 6, dtype=torch.bool).tril() & (real[:, None, None, :] != 0)
    with torch.no_grad():
        theirs, _ = layer(x, turn((3 + torch.arange(6)).expand(2, -1), 4, 10_000.0), visible)
        q, k, v = (one(x).view(2, 6, 2, 4).transpose(1, 2) for one in (layer.q, layer.k, layer.v))
        own = prefixed_attention(q, k, v, layer.prefix.keys, layer.prefix.values, real)
        torch.testing.assert_close(layer.o(own.transpose(1, 2).reshape(2, 6, 8)), theirs)


def test_the_diagrams_count_what_they_draw():
    assert [row[2] for row in adapter_block(16, 4).rows] == ["64", "64", "20"]
    assert prompt_block(5, 3, 16).rows[0][2] == "80"
    assert prefix_mask([[True, True, False], [True, True, True]], "Right").rows[1] == ("query 2", "p1 x1 x2")
    picture = byte_rows({"full": {"weight": 2, "moments": 8}, "frozen": {"weight": 2}}, title="10 against 2")
    assert "moments 8" in picture.alt


def test_recorded_runs_have_as_many_seeds_at_each_rate_and_their_best_rate_inside():
    record = recorded("full_runs")
    for sweep, seeds in (("clip", 6), ("first", 3), ("batch", 5), ("steps", 5), ("layers", 8), ("prefix", 3)):
        for name, losses in record[sweep].items():
            assert {len(runs) for runs in losses.values()} == {seeds}, name
            if sweep not in ("layers", "prefix"):
                best_rate(losses)
