"""Evaluation against problem 9's reference, against enumeration, and against numbers that are printed elsewhere."""

import itertools
import math

import pytest
import torch
from ftgrade.catalog import home
from ftmath import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st

P09 = home().solution("p09_scorecard")
scores = st.floats(0, 1, allow_nan=False)


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_an_interval_is_the_references_up_to_resampling(seed: int):
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(150, generator=generator, dtype=torch.float64)
    after = before + 0.2 + 0.5 * torch.randn(150, generator=generator, dtype=torch.float64)
    mine = evaluate.paired_interval(before, after, generator=generator)
    theirs = P09.paired_ci(before.tolist(), after.tolist())
    assert mine[0] == pytest.approx(theirs[0])
    half = (theirs[2] - theirs[1]) / 2
    assert max(abs(a - b) for a, b in zip(mine[1:], theirs[1:], strict=True)) < 0.3 * half


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.tuples(scores, scores), min_size=1, max_size=8))
def test_a_front_is_the_references(points: dict[str, tuple[float, float]]):
    flipped = {name: (quality, -lost) for name, (quality, lost) in points.items()}
    assert evaluate.pareto_set(flipped) == P09.pareto_front(points)


@given(st.integers(1, 7), st.integers(0, 7), st.integers(1, 7))
def test_pass_at_k_counts_subsets(samples: int, correct: int, k: int):
    if correct > samples or k > samples:
        with pytest.raises(ValueError, match="within"):
            evaluate.pass_at_k(samples, correct, k)
        return
    subsets = list(itertools.combinations(range(samples), k))
    hit = sum(any(member < correct for member in subset) for subset in subsets) / len(subsets)
    assert evaluate.pass_at_k(samples, correct, k) == pytest.approx(hit)


def test_an_exact_test_and_a_standard_error_worked_by_hand():
    assert round(evaluate.mcnemar(10, 22), 4) == 0.0501
    assert evaluate.mcnemar(5, 5) == 1.0
    assert round(P09.paired_binary_se(10, 22, 200), 4) == 0.0280


def test_effective_sample_size_lies_between_one_and_all():
    weights = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert 1 <= evaluate.effective_sample_size(weights) <= 50
    assert evaluate.effective_sample_size(torch.zeros(50)) == pytest.approx(50)
    assert evaluate.effective_sample_size(weights + 1000) == pytest.approx(
        evaluate.effective_sample_size(weights), rel=1e-3
    )


def test_the_best_of_two_seeds_gains_what_the_closed_form_says():
    assert evaluate.expected_best(2) == pytest.approx(1 / math.sqrt(math.pi), abs=2e-3)


def test_brier_scores_of_three_speakers():
    right = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert evaluate.brier_score(right, right) == 0
    assert evaluate.brier_score(torch.full((4,), 0.5), right) == 0.25
    assert evaluate.brier_score(1 - right, right) == 1


@given(st.lists(st.tuples(scores, st.booleans()), min_size=1, max_size=40), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_bins_hold_every_item_once_and_one_bin_compares_the_means(items: list[tuple[float, bool]], bins: int):
    sure, right = (torch.tensor([float(item[side]) for item in items], dtype=torch.float64) for side in (0, 1))
    rows = evaluate.reliability(sure, right, bins)
    assert sum(count for _, _, count in rows) == len(items)
    assert all(0 <= mean <= 1 and 0 <= share <= 1 for mean, share, _ in rows)
    assert evaluate.calibration_error(sure, right, 1) == pytest.approx(abs(float(sure.mean() - right.mean())), abs=2e-6)
    assert evaluate.calibration_error(sure, right, bins) >= evaluate.calibration_error(sure, right, 1) - 1e-5


def test_an_honest_speaker_has_an_error_of_chance_that_more_items_shrink():
    generator = torch.Generator().manual_seed(0)
    found = []
    for count in (100, 10_000):
        sure = torch.rand(count, generator=generator, dtype=torch.float64)
        right = torch.bernoulli(sure, generator=generator)
        found.append(evaluate.calibration_error(sure, right))
    assert 0.02 < found[0] < 0.2
    assert found[1] < 0.02


@pytest.mark.parametrize(
    ("sure", "right", "word"),
    [([0.5], [1.0, 0.0], "alike"), ([], [], "alike"), ([1.5], [1.0], "within 0 and 1"), ([-0.1], [1.0], "within")],
)
def test_confidences_that_are_none_are_refused(sure: list[float], right: list[float], word: str):
    with pytest.raises(ValueError, match=word):
        evaluate.reliability(torch.tensor(sure), torch.tensor(right))
