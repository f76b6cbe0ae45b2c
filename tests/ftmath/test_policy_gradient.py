"""Policy gradients against sums over every answer: no draw is left to chance, so expectations are exact."""

import math
from itertools import product

import pytest
import torch
from ftmath.align import fit_on_pairs, fit_preferences, frozen_copy
from ftmath.manners import polite_pairs, polite_policy, word_of
from ftmath.policy_gradient import (
    centred_advantages,
    clipped_loss,
    clipped_share,
    fixed_mean,
    group_advantages,
    k2,
    k3,
    leave_one_out,
    policy_loss,
    priced_rewards,
    reinforce_loss,
    row_mean,
    token_mean,
)
from ftmath.preference import dpo_loss, kto_loss, orpo_loss, simpo_loss
from ftmath.rounds import PolicySettings, improve_policy
from ftmath.weights import base_model
from hypothesis import given, settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**31)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(value: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(value, leaf, retain_graph=True)
    return found


# ------------------------------------------------------------------------------------------ REINFORCE and its baselines


@given(seeds, st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_reinforce_is_the_gradient_of_the_mean_reward_with_any_baseline(seed: int, baseline: float):
    logits, rewards = drawn(seed, 5).requires_grad_(), drawn(seed + 1, 5)
    log_p = logits.log_softmax(0)
    exact = gradient((log_p.exp() * rewards).sum(), logits)
    mean = sum(
        float(chance) * -gradient(reinforce_loss(one[None], (reward - baseline)[None]), logits)
        for chance, one, reward in zip(log_p.exp().detach(), log_p, rewards, strict=True)
    )
    torch.testing.assert_close(mean, exact)


@given(seeds, st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_leave_one_out_is_the_centred_reward_times_a_constant(seed: int, n: int):
    rewards = drawn(seed, 3, n)
    others = torch.stack([rewards[:, [k for k in range(n) if k != at]].mean(1) for at in range(n)], 1)
    torch.testing.assert_close(leave_one_out(rewards), rewards - others)
    torch.testing.assert_close(leave_one_out(rewards), n / (n - 1) * centred_advantages(rewards))
    with pytest.raises(ValueError, match="rewards"):
        leave_one_out(rewards[:, :1])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_only_leave_one_out_gives_the_whole_gradient_and_the_std_weighs_by_difficulty(p: float):
    """All groups of four answers, right with chance p: the mean over groups is a sum of 16 terms."""
    logit = torch.tensor([p], dtype=torch.float64).logit().requires_grad_()
    log_p = torch.stack([torch.nn.functional.logsigmoid(-logit[0]), torch.nn.functional.logsigmoid(logit[0])])
    exact = gradient(log_p[1].exp(), logit)
    found = dict.fromkeys(("left", "centred", "std"), torch.zeros(1, dtype=torch.float64))
    advantages = {"left": leave_one_out, "centred": centred_advantages, "std": lambda r: group_advantages(r, eps=0.0)}
    for group in product((0, 1), repeat=4):
        rewards, chance = torch.tensor([group], dtype=torch.float64), log_p[list(group)].sum().exp().detach()
        for name, given_ in advantages.items():
            weights = given_(rewards).nan_to_num()[0]
            found[name] = found[name] - chance * gradient(reinforce_loss(log_p[list(group)], weights), logit)
    torch.testing.assert_close(found["left"], exact)
    torch.testing.assert_close(found["centred"], 0.75 * exact)
    torch.testing.assert_close(found["std"], std_weight(p, 4) * exact)


def std_weight(p: float, n: int) -> float:
    """Return by how much the std scales a question's gradient: E[A | right] - E[A | wrong], from binomial chances."""

    def advantage(mine: int, rights: int) -> float:
        spread = math.sqrt(rights * (n - rights) / n / (n - 1))
        return (mine - rights / n) / spread if spread else 0.0

    return sum(
        math.comb(n - 1, k) * p**k * (1 - p) ** (n - 1 - k) * (advantage(1, k + 1) - advantage(0, k)) for k in range(n)
    )


# -------------------------------------------------------------------------------------------- several updates, averages


@given(seeds, st.floats(0.05, 0.5))
@settings(max_examples=20, deadline=None)
def test_a_clipped_token_is_one_without_a_gradient(seed: int, clip: float):
    sampled, advantages = drawn(seed, 4, 6), drawn(seed + 2, 4)
    policy = (sampled + 0.4 * drawn(seed + 1, 4, 6)).requires_grad_()
    mask = torch.ones(4, 6, dtype=torch.long)
    mask[1, 3:] = 0
    slope = gradient(clipped_loss(policy, sampled, advantages[:, None], clip).sum(), policy)
    cut = ((slope == 0) & (mask != 0)).sum() / mask.sum()
    assert clipped_share(policy.detach(), sampled, advantages, mask, clip) == pytest.approx(float(cut))


def test_a_mean_over_a_rows_tokens_pulls_on_the_length_and_a_fixed_divisor_does_not():
    """Wrong answers of 1, 2 or 3 tokens: the length's gradient is A times that of E[1/L], or none."""
    logits = drawn(0, 3).requires_grad_()
    log_p, lengths = logits.log_softmax(0), torch.tensor([1, 2, 3])
    chance = log_p.exp().detach()
    mask = (torch.arange(3) < lengths[:, None]).long()
    # An answer's log-probability is spread evenly over its tokens: what counts is their sum.
    tokens = (log_p / lengths)[:, None] * mask
    pulls = {
        average: sum(chance[k] * gradient(average(tokens[k : k + 1], mask[k : k + 1]), logits) for k in range(3))
        for average in (row_mean, lambda tokens, mask: fixed_mean(tokens, mask, 3))
    }
    biased, fair = pulls.values()
    torch.testing.assert_close(biased, gradient((log_p.exp() / lengths).sum(), logits))
    torch.testing.assert_close(fair, torch.zeros(3, dtype=torch.float64))


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_averages_agree_where_all_answers_are_equally_long(seed: int):
    tokens, mask = drawn(seed, 3, 5), torch.ones(3, 5)
    for average in (token_mean, lambda tokens, mask: fixed_mean(tokens, mask, 5)):
        torch.testing.assert_close(average(tokens, mask), row_mean(tokens, mask))
    zeros = torch.zeros(3, 5, dtype=torch.float64)
    found = policy_loss(tokens, tokens, zeros, zeros[:, 0], mask, beta=1.0, estimator=k2, average=token_mean)
    torch.testing.assert_close(found, token_mean(k2(tokens, zeros), mask))


# ----------------------------------------------------------------------------------------------------- the price of KL


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_whole_gradient_of_kl_needs_the_reward_or_k2_of_whole_answers(seed: int):
    """Answers of two tokens: what the first does to the second is lost by an estimate for each token."""
    leaf = drawn(seed, 3, 2).requires_grad_()  # the first token, and the second after each first
    held = drawn(seed + 1, 3, 2)

    def answers(table: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (answers, tokens) of the four answers."""
        first, second = table[0].log_softmax(0), table[1:].log_softmax(1)
        return torch.stack([torch.stack([first[a], second[a, b]]) for a in (0, 1) for b in (0, 1)])

    tokens, reference = answers(leaf), answers(held)
    whole, before = tokens.sum(1), reference.sum(1)
    chance = whole.exp().detach()
    exact = gradient((whole.exp() * (whole - before)).sum(), leaf)
    cost = priced_rewards(torch.zeros(4, dtype=torch.float64), whole, before, beta=1.0)
    in_reward = gradient(-(chance * cost * whole).sum(), leaf)
    torch.testing.assert_close(in_reward, exact)
    torch.testing.assert_close(gradient((chance * k2(whole, before)).sum(), leaf), exact)
    by_token = gradient((chance * k2(tokens, reference).sum(1)).sum(), leaf)
    assert not torch.allclose(by_token[0], exact[0], atol=1e-6)
    torch.testing.assert_close(by_token[1:], exact[1:])
    ratio = (whole - whole.detach()).exp()
    torch.testing.assert_close(gradient((chance * ratio * k3(whole, before)).sum(), leaf), exact)


# ---------------------------------------------------------------------------------------------- on the model, and pairs


def test_a_round_tells_how_many_answers_differ_and_what_is_clipped():
    model, questions = polite_policy(steps=6, rows=9, rate=1e-3), ["please copy ab", "please upper abc"]
    given_ = PolicySettings(
        steps=4, rate=1e-3, prompts_per_round=2, samples_per_prompt=3, updates_per_round=4, clip=0.01, beta=0.0,
        advantages=leave_one_out, average=token_mean,
    )  # fmt: skip
    coin = iter([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    (step,) = improve_policy(model, frozen_copy(model), questions, lambda prompt, answer: next(coin), given_)
    assert step.clipped[0] == 0.0 < max(step.clipped)
    assert len(step.clipped) == 4
    assert 1 / 3 <= step.distinct <= 1
    assert step.tokens > 2
    assert step.entropy > 0


def test_typos_stand_in_the_demonstrations_alone():
    clean, spelt = polite_policy(steps=2, rows=6), polite_policy(steps=2, rows=6, typos=0.0, thanks=0.3)
    torch.testing.assert_close(clean.embed.weight, spelt.embed.weight, rtol=0, atol=0)
    assert not torch.equal(clean.embed.weight, polite_policy(steps=2, rows=6, typos=0.5).embed.weight)
    assert word_of("ab") == "ab"


def test_a_loss_of_margins_is_a_loss_on_pairs():
    pairs, ends = polite_pairs(4, seed=0), []
    for fit in (
        lambda policy, held: fit_preferences(policy, held, pairs, steps=2, rate=1e-4),
        lambda policy, held: fit_on_pairs(policy, held, pairs, lambda now: dpo_loss(now.margin), steps=2, rate=1e-4),
    ):
        policy = base_model()
        fit(policy, frozen_copy(policy))
        ends.append(policy.embed.weight.detach())
    torch.testing.assert_close(*ends, rtol=0, atol=0)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_kto_pulls_most_on_answers_near_its_drift_and_the_drift_has_no_gradient(seed: int):
    ratios, drift = drawn(seed, 2, 6).requires_grad_(), drawn(seed + 1, 1).requires_grad_()
    kto_loss(ratios[0], ratios[1], drift, beta=0.7).backward()
    z, x = drift.detach().clamp(min=0), ratios.detach()
    bell = torch.sigmoid(0.7 * (x - z)) * torch.sigmoid(-0.7 * (x - z))
    signs = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(ratios.grad, signs * 0.7 * bell / 12)
    assert drift.grad is None


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_simpo_and_orpo_by_their_definitions(seed: int):
    chosen, rejected = -drawn(seed, 2, 5).abs() - 0.01
    odds = [one.exp() / (1 - one.exp()) for one in (chosen, rejected)]
    wanted = (-chosen - 0.3 * torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))).mean()
    torch.testing.assert_close(orpo_loss(chosen, rejected, weight=0.3), wanted)
    wanted = -torch.log(torch.sigmoid(2.5 * chosen - 2.5 * rejected - 0.4)).mean()
    torch.testing.assert_close(simpo_loss(chosen, rejected, beta=2.5, gamma=0.4), wanted)
    with pytest.raises(ValueError, match="below 0"):
        orpo_loss(torch.zeros(1), chosen[:1].float())
