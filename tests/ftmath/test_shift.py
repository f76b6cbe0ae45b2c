"""Laws of divergence and anchors, and the library against problem 2's reference."""

import math

import pytest
import torch
from ftgrade.catalog import home
from ftmath import shift
from hypothesis import given, settings
from hypothesis import strategies as st

P02 = home().solution("p02_kl_shift")
seeds = st.integers(0, 2**31)


def pair(seed: int, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tuned, base = (scale * torch.randn(3, 4, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    return tuned, base


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_the_shift_is_the_references(seed: int):
    tuned, base = pair(seed)
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[0, 0] = True
    torch.testing.assert_close(shift.token_kl(tuned, base), P02.per_token_kl(base, tuned))
    torch.testing.assert_close(shift.kl_shift(tuned, base, mask), P02.kl_shift(base, tuned, mask))


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_a_divergence_is_never_negative_and_zero_at_itself(seed: int):
    tuned, base = pair(seed)
    assert bool((shift.token_kl(tuned, base) >= 0).all())
    assert float(shift.token_kl(tuned, tuned + 5.0).max()) < 1e-12


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_no_bounded_score_changes_by_more_than_the_bound(seed: int):
    tuned, base = pair(seed)
    for kl, distance in zip(
        shift.token_kl(tuned, base).flatten(), shift.total_variation(tuned, base).flatten(), strict=True
    ):
        assert float(distance) <= shift.forgetting_bound(float(kl)) + 1e-12


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_a_small_change_costs_half_its_variance(seed: int):
    _, base = pair(seed)
    delta = 1e-3 * pair(seed + 1)[0]
    torch.testing.assert_close(shift.token_kl(base + delta, base), P02.kl_quadratic(base, delta), rtol=2e-2, atol=1e-12)


def test_tokens_of_probability_zero():
    base = torch.tensor([0.5, 0.5, 0.0]).log()
    assert shift.token_kl(torch.tensor([1.0, 0.0, 0.0]).log(), base).item() == pytest.approx(math.log(2))
    assert shift.token_kl(torch.tensor([0.5, 0.0, 0.5]).log(), base).item() == math.inf


def test_anchors_are_what_autograd_pulls_back():
    layer = torch.nn.Linear(3, 2).double()
    anchor = {name: value.detach() - 0.5 for name, value in layer.named_parameters()}
    shift.l2_sp(dict(layer.named_parameters()), anchor).backward()
    assert all(torch.allclose(p.grad, torch.full_like(p, 0.5)) for p in layer.parameters() if p.grad is not None)
    weight = {name: torch.full_like(value, 4.0) for name, value in anchor.items()}
    plain, weighed = (
        shift.l2_sp(dict(layer.named_parameters()), anchor), shift.ewc(dict(layer.named_parameters()), anchor, weight)
    )  # fmt: skip
    torch.testing.assert_close(weighed, 4 * plain)


def test_the_fisher_information_of_a_softmax_is_its_covariances_diagonal():
    """For logits z and an outcome y, d log p(y) / dz = e_y - p; its square's mean under p is p (1 - p)."""
    logits = torch.nn.Linear(1, 3, bias=False).double()
    p = logits.weight[:, 0].softmax(0).detach()
    draws = torch.multinomial(p, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    counts = draws.bincount(minlength=3).double() / 4000

    def information(y: int) -> torch.Tensor:
        logprob = logits(torch.ones(1, dtype=torch.float64)).log_softmax(0)[y]
        return shift.fisher_diagonal({"weight": logits.weight}, [logprob])["weight"][:, 0]

    each = torch.stack([information(y) for y in range(3)])
    torch.testing.assert_close(p @ each, p * (1 - p))
    torch.testing.assert_close(counts @ each, p * (1 - p), rtol=0, atol=0.03)


def test_the_anchored_minimum_is_where_the_slope_vanishes():
    share = shift.anchored_minimum(curvature=2.0, strength=3.0, pull=0.5)
    assert 2.0 * (share - 1) + 3.0 * 0.5 * share == pytest.approx(0.0)
    with pytest.raises(ValueError, match="curvature"):
        shift.anchored_minimum(0.0, 0.0)
