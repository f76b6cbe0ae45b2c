"""How sure a score is: against closed forms, enumeration and the variance of scores that are drawn again."""

import math
from statistics import NormalDist

import pytest
import torch
from ftmath import precision
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**31)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SEEDS, st.integers(2, 40))
@settings(max_examples=30, deadline=None)
def test_groups_of_one_item_give_the_usual_error(seed: int, count: int):
    scores = draw(seed, count)
    usual = float(scores.std()) / math.sqrt(count)
    assert precision.clustered_error(scores, torch.arange(count)) == pytest.approx(usual)
    assert precision.design_effect(scores, torch.arange(count)) == pytest.approx(1)


@given(SEEDS, st.integers(2, 12), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_groups_of_one_size_give_the_error_of_the_mean_of_their_means(seed: int, groups: int, size: int):
    table = draw(seed, groups, size)
    found = precision.clustered_error(table.flatten(), torch.arange(groups).repeat_interleave(size))
    assert found == pytest.approx(float(table.mean(1).std()) / math.sqrt(groups))


def test_the_error_is_the_spread_of_means_over_new_groups_of_different_sizes():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([1, 2, 5, 10] * 10)
    groups = torch.arange(40).repeat_interleave(sizes)
    means, errors = [], []
    for _ in range(2000):
        own = torch.randn(40, generator=generator, dtype=torch.float64)[groups]
        scores = own + torch.randn(len(groups), generator=generator, dtype=torch.float64)
        means.append(float(scores.mean()))
        errors.append(precision.clustered_error(scores, groups) ** 2)
    assert math.sqrt(sum(errors) / len(errors)) == pytest.approx(float(torch.tensor(means).std()), rel=0.06)


@pytest.mark.parametrize("rho", [0.0, 0.25, 0.5, 1.0])
def test_the_design_effect_is_kishs(rho: float):
    size, count = 5, 4000
    own, rest = draw(1, count, 1), draw(2, count, size)
    scores = (math.sqrt(rho) * own + math.sqrt(1 - rho) * rest).flatten()
    found = precision.design_effect(scores, torch.arange(count).repeat_interleave(size))
    assert found == pytest.approx(1 + (size - 1) * rho, rel=0.06)


def test_the_interval_draws_whole_groups():
    groups = torch.arange(30).repeat_interleave(6)
    scores = draw(3, 30, 1).expand(30, 6).flatten()
    mean, low, high = precision.clustered_interval(scores, groups, generator=torch.Generator().manual_seed(0))
    assert low < mean < high
    assert (high - low) / 2 == pytest.approx(1.96 * precision.clustered_error(scores, groups), rel=0.1)


def test_parts_of_a_variance_are_found_again():
    parts = [
        precision.variance_parts(2 * draw(seed, 12, 1) + draw(seed + 100, 1, 300) + 0.5 * draw(seed + 200, 12, 300))
        for seed in range(60)
    ]
    means = torch.tensor(parts).mean(0).tolist()
    assert means == [pytest.approx(4, rel=0.15), pytest.approx(1, rel=0.05), pytest.approx(0.25, rel=0.05)]


def test_the_error_of_a_mean_is_its_spread_over_new_seeds_and_items():
    means = [float((0.3 * draw(k, 4, 1) + draw(k + 9000, 1, 50) + draw(k + 90_000, 4, 50)).mean()) for k in range(2000)]
    found = precision.error_of_mean((0.09, 1.0, 1.0), seeds=4, items=50)
    assert found == pytest.approx(float(torch.tensor(means).std()), rel=0.06)


def test_items_needed_is_connors_formula_and_the_inverse_of_power():
    assert precision.items_needed(0.1, 0.3) == math.ceil((1.959964 * 0.3**0.5 + 0.841621 * 0.29**0.5) ** 2 / 0.01)
    for gain, changed in ((0.02, 0.1), (0.05, 0.2), (0.1, 0.1)):
        items = precision.items_needed(gain, changed, 0.9)
        assert precision.power_of(items, gain, changed) >= 0.9 > precision.power_of(items - 1, gain, changed)


def enumerated(items: int, gain: float, changed: float) -> float:
    """Return the chance that |gained - lost| exceeds 1.96 sqrt(gained + lost), over every possible count of each."""
    z = NormalDist().inv_cdf(0.975)
    up, down, total = (changed + gain) / 2, (changed - gain) / 2, 0.0
    for both in range(items + 1):
        chance = math.comb(items, both) * changed**both * (1 - changed) ** (items - both)
        if chance < 1e-12:
            continue
        total += chance * sum(
            math.comb(both, one) * (up / changed) ** one * (down / changed) ** (both - one)
            for one in range(both + 1)
            if abs(2 * one - both) > z * math.sqrt(both)
        )
    return total


@pytest.mark.parametrize(("items", "gain", "changed"), [(200, 0.1, 0.3), (300, 0.05, 0.15), (150, 0.15, 0.4)])
def test_power_is_what_enumeration_says(items: int, gain: float, changed: float):
    assert precision.power_of(items, gain, changed) == pytest.approx(enumerated(items, gain, changed), abs=0.03)


def test_length_is_taken_out_of_a_win_rate_and_skill_stays():
    generator = torch.Generator().manual_seed(0)
    longer_by = 1 + torch.randn(20_000, generator=generator, dtype=torch.float64)
    for skill in (0.0, 0.8):
        wins = torch.bernoulli((skill + 0.7 * longer_by).sigmoid(), generator=generator)
        assert precision.equal_length_wins(wins, longer_by) == pytest.approx(1 / (1 + math.exp(-skill)), abs=0.015)
        assert float(wins.mean()) > 0.6


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: precision.clustered_error(torch.ones(3), torch.zeros(2)), "alike"),
        (lambda: precision.clustered_error(torch.ones(3), torch.zeros(3)), "2 groups"),
        (lambda: precision.design_effect(torch.ones(3), torch.arange(3)), "differ"),
        (lambda: precision.clustered_interval(torch.ones(3), torch.arange(3), level=1.0), "level"),
        (lambda: precision.variance_parts(torch.ones(1, 5)), "two of each"),
        (lambda: precision.items_needed(0.2, 0.1), "changed"),
        (lambda: precision.power_of(10, 0.0, 0.1), "above 0"),
        (lambda: precision.equal_length_wins(torch.ones(3), torch.ones(3)), "lengths"),
    ],
)
def test_what_cannot_be_computed_is_refused(call, word: str):  # pyright: ignore
    with pytest.raises(ValueError, match=word):
        call()
