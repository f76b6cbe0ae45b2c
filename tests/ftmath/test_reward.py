"""Rewards and policies: closed forms, their optimality, estimators that estimate, and losses against finite sums."""

import math

import pytest
import torch
from ftmath.model import Config, Decoder
from ftmath.policy_gradient import clipped_loss, group_advantages, k1, k2, k3, policy_loss
from ftmath.reward import (
    RewardModel,
    best_of_n,
    best_of_n_kl,
    bradley_terry,
    gold_reward,
    last_token,
    optimal_policy,
    preference_probability,
    ranking_loss,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**31)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seeds, st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_bradley_terry_finds_the_rewards_behind_expected_wins(seed: int, items: int):
    rewards = drawn(seed, items)
    rewards = rewards - rewards.mean()
    wins = 100 * preference_probability(rewards[:, None], rewards[None, :]).fill_diagonal_(0)
    torch.testing.assert_close(bradley_terry(wins), rewards, rtol=0, atol=1e-5)


def test_two_items_have_the_logit_of_their_wins_and_a_reward_may_not_be_infinite():
    scores = bradley_terry(torch.tensor([[0.0, 7.0], [3.0, 0.0]]))
    assert float(scores[0] - scores[1]) == pytest.approx(math.log(7 / 3))
    with pytest.raises(ValueError, match="infinite"):
        bradley_terry(torch.tensor([[0.0, 7.0], [0.0, 0.0]]))


@given(seeds, st.integers(2, 6), st.floats(-5, 5))
@settings(max_examples=20, deadline=None)
def test_a_ranking_is_all_of_its_pairs_and_a_shift_changes_nothing(seed: int, answers: int, shift: float):
    rewards = drawn(seed, 3, answers)
    pairs = [
        -math.log(float(preference_probability(row[w], row[w + further])))
        for row in rewards for w in range(answers) for further in range(1, answers - w)
    ]  # fmt: skip
    assert len(pairs) == 3 * math.comb(answers, 2)
    assert float(ranking_loss(rewards)) == pytest.approx(sum(pairs) / len(pairs))
    torch.testing.assert_close(ranking_loss(rewards + shift), ranking_loss(rewards))


def test_instructgpts_pairs_of_a_ranking():
    """K = 4 to 9 answers make 6 to 36 pairs (arXiv:2203.02155, section 3.5)."""
    assert [math.comb(k, 2) for k in (4, 9)] == [6, 36]
    equal = torch.zeros(1, 9)
    assert float(ranking_loss(equal)) == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="rewards"):
        ranking_loss(torch.zeros(3, 1))


def test_a_reward_does_not_depend_on_padding_on_either_side():
    model = RewardModel(Decoder(Config(vocab=17, d_model=12, layers=2, heads=2, kv_heads=2, head_dim=6, d_hidden=20)))
    torch.nn.init.normal_(model.value.weight, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 2, 3]])
    alone = model(ids, torch.ones(1, 3))
    right = model(torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]]))
    left = model(torch.tensor([[0, 0, 1, 2, 3]]), torch.tensor([[0, 0, 1, 1, 1]]))
    torch.testing.assert_close(torch.cat([right, left]), alone.expand(2), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="every row"):
        last_token(torch.zeros(1, 2))


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_best_of_n_moves_as_far_as_its_closed_form_says(n: int):
    """A uniform reward over many answers: the best of n has density n u^(n - 1)."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    density = n * u ** (n - 1)
    kl = float((density * density.log()).mean())
    assert best_of_n_kl(n) == pytest.approx(kl, abs=1e-4)
    with pytest.raises(ValueError, match="n must"):
        best_of_n_kl(0)


def test_best_of_n_takes_the_best_and_gold_peaks_where_its_slope_vanishes():
    assert best_of_n(torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0]])).tolist() == [1, 0]
    assert [round(best_of_n_kl(n), 5) for n in (4, 16)] == [0.63629, 1.83509]
    a, b = 2.0, 0.5
    peak = (a / (2 * b)) ** 2
    assert gold_reward(peak, a, b) == pytest.approx(a**2 / (4 * b))
    assert gold_reward(peak, a, b) > max(gold_reward(0.9 * peak, a, b), gold_reward(1.1 * peak, a, b))


@given(seeds, st.floats(0.05, 20.0))
@settings(max_examples=30, deadline=None)
def test_no_policy_beats_the_optimal_one(seed: int, beta: float):
    reference, reward = drawn(seed, 5).softmax(0), drawn(seed + 1, 5)
    best, value = optimal_policy(reference, reward, beta)
    other = drawn(seed + 2, 5).softmax(0)

    def objective(policy: torch.Tensor) -> float:
        kl = (policy * (policy.clamp(min=1e-300).log() - reference.log())).sum()
        return float((policy * reward).sum() - beta * kl)

    assert objective(best) == pytest.approx(value, abs=1e-9)
    assert objective(other) <= value + 1e-9


def test_the_optimal_policy_is_stable_where_rewards_are_huge():
    policy, value = optimal_policy(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1e4]), beta=1.0)
    assert policy.tolist() == [0.0, 1.0]
    assert value == pytest.approx(1e4 - math.log(2))
    with pytest.raises(ValueError, match="beta"):
        optimal_policy(torch.ones(1), torch.ones(1), 0.0)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_k1_and_k3_are_unbiased_and_k3_is_never_negative(seed: int):
    p, q = drawn(seed, 6).log_softmax(0), drawn(seed + 1, 6).log_softmax(0)
    kl = float((p.exp() * (p - q)).sum())
    for estimator in (k1, k3):
        assert float((p.exp() * estimator(p, q)).sum()) == pytest.approx(kl, abs=1e-12)
    assert float(k3(p, q).min()) >= 0
    assert float(k2(p, q).min()) >= 0


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_in_a_loss_on_drawn_tokens_k2_has_the_gradient_of_kl_k3_that_of_the_other_one_and_k1_none(seed: int):
    """The mean over draws is a sum here; the draws' own chances give no gradient, as in a loss on samples."""
    logits, q = drawn(seed, 6).requires_grad_(), drawn(seed + 1, 6).log_softmax(0)
    p = logits.log_softmax(0)
    reverse, forward = (p.exp() * (p - q)).sum(), (q.exp() * (q - p)).sum()
    wanted = {k1: torch.zeros(6, dtype=torch.float64)}
    for estimator, divergence in ((k2, reverse), (k3, forward)):
        (wanted[estimator],) = torch.autograd.grad(divergence, logits, retain_graph=True)
    for estimator, gradient in wanted.items():
        mean = (p.exp().detach() * estimator(p, q)).sum()
        (found,) = torch.autograd.grad(mean, logits, retain_graph=True)
        torch.testing.assert_close(found, gradient)


def test_best_of_ns_kl_is_a_bound_where_draws_tie():
    """Two answers of equal chance, best of two: 3/4 against 1/2 (arXiv:2401.01879)."""
    tied = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert tied == pytest.approx(0.1308, abs=1e-4)
    assert tied < best_of_n_kl(2) == pytest.approx(0.1931, abs=1e-4)


def test_instructgpts_kl_term_for_one_sample():
    """pi / pi_SFT = 2 and beta 0.02 (arXiv:2203.02155, equation 2)."""
    assert 0.02 * float(k1(torch.tensor(2.0).log(), torch.tensor(0.0))) == pytest.approx(0.0138629, abs=1e-6)


def test_the_clip_stops_gains_and_not_losses():
    ratio = torch.tensor([0.5, 0.9, 1.1, 2.0])
    up, down = (clipped_loss(ratio.log(), torch.zeros(4), torch.full((4,), sign)) for sign in (1.0, -1.0))
    torch.testing.assert_close(up, -torch.tensor([0.5, 0.9, 1.1, 1.2]))
    torch.testing.assert_close(down, torch.tensor([0.8, 0.9, 1.1, 2.0]))


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_on_fresh_samples_the_policys_gradient_is_reinforces(seed: int):
    policy = drawn(seed, 2, 3).requires_grad_()
    mask, advantages = torch.tensor([[1, 1, 0], [1, 1, 1]]), torch.tensor([1.0, -2.0], dtype=torch.float64)
    policy_loss(policy, policy.detach(), policy.detach(), advantages, mask, beta=0.7).backward()
    # k3 has no slope where policy and reference agree; each row counts a half, each of its tokens alike.
    wanted = -advantages[:, None] * mask / mask.sum(1, keepdim=True) / 2
    torch.testing.assert_close(policy.grad, wanted)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_advantages_have_no_mean_and_do_not_see_the_rewards_scale(seed: int):
    rewards = drawn(seed, 3, 5)
    found = group_advantages(rewards, eps=0.0)
    torch.testing.assert_close(found.mean(1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(group_advantages(7 * rewards + 3, eps=0.0), found)
