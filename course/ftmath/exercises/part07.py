"""The exercises of part 7: preference fine-tuning."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.exercises.exercise import Exercise, Mistake


def two_item_gap(wins: int, losses: int) -> float:
    """Return the difference of rewards r1 - r2 that makes the first's wins and losses against the second likeliest.

    `wins` + `losses` is at least 1. Where one side never won, the difference is infinite, with its sign.

    >>> two_item_gap(5, 5)
    0.0
    """
    if wins == 0 or losses == 0:
        return math.inf if losses == 0 else -math.inf
    odds = wins / losses  # blank
    return math.log(odds)  # blank


def last_real_token(attention_mask: Tensor) -> Tensor:
    """Return the place of each row's last real token (batch,), for attention masks (batch, time) of 0 and 1.

    Padding may stand on the right, on the left, or nowhere. A row without a real token is a ValueError that names
    `attention_mask`.

    >>> last_real_token(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])).tolist()
    [1, 3]
    """
    real = attention_mask != 0
    if not bool(real.any(dim=1).all()):
        raise ValueError("attention_mask must mark at least one real token in every row")
    places = torch.arange(attention_mask.shape[1]).expand_as(attention_mask)
    return places.masked_fill(~real, -1).max(dim=1).values


def best_policy(reference: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, float]:
    """Return the policy (answers,) that maximises E[r] - beta KL(pi || reference), and that maximum.

    `reference` and `reward` are (answers,), in float64; beta > 0 may be tiny: r / beta of 10,000 must not overflow.

    >>> policy, value = best_policy(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 1.0]), beta=0.1)
    >>> policy.tolist(), round(value, 6)
    ([0.5, 0.5], 1.0)
    """
    scores = reference.log() + reward / beta
    return scores.softmax(0), beta * float(scores.logsumexp(0))


def pair_weight(h: float, beta: float) -> float:
    """Return how strongly a pair pulls in DPO: the absolute value of d loss / d h at margin h, loss -log sigmoid(beta h).

    Margins of a few thousand occur and must not overflow.

    >>> pair_weight(0.0, 0.5)
    0.25
    """
    if h >= 0:
        small = math.exp(-beta * h)
        return beta * small / (1 + small)
    return beta / (1 + math.exp(beta * h))


def draws_for_kl(kl: float) -> int:
    """Return the largest n whose best-of-n is at most `kl` nats from a single sample: log n - (n - 1) / n.

    The budget is never overspent; one draw costs nothing. `kl` is at least 0.

    >>> draws_for_kl(0.0), draws_for_kl(0.2)
    (1, 2)
    """
    n = 1
    while math.log(n + 1) - n / (n + 1) <= kl:
        n += 1
    return n


def implied_preference(policy: Tensor, reference: Tensor, beta: float) -> float:
    """Return the chance that a DPO-trained policy's implicit reward gives to the first of two answers.

    `policy` and `reference` are (2,): log p of the whole answers, in nats. The implicit reward of an answer is beta
    log(policy / reference), and Bradley and Terry's model turns a difference of rewards into a chance.

    >>> implied_preference(torch.tensor([-3.0, -8.0]), torch.tensor([-3.0, -8.0]), beta=0.1)
    0.5
    """
    rewards = beta * (policy - reference)
    return float(torch.sigmoid(rewards[0] - rewards[1]))


def beta_within(reference: Tensor, reward: Tensor, budget: float) -> float:
    """Return the beta at which the best policy stands exactly `budget` nats from its reference: KL(pi || reference).

    `reference` and `reward` are (answers,), float64, and not all rewards are equal. The budget is positive and below
    -log of the reference's probability of the best answer (of all best answers together, if several tie). KL falls as
    beta grows, from that limit to 0: halve an interval on a logarithmic scale. beta is in the reward's unit, so the
    interval must be too.

    >>> ref, r = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> round(beta_within(ref, r, 0.1109), 2)
    1.0
    >>> round(beta_within(ref, 1e6 * r, 0.1109), -4)
    1000000.0
    """
    unit = float(reward.max() - reward.min())
    low, high = 1e-4 * unit, 1e4 * unit
    for _ in range(80):
        beta = math.sqrt(low * high)
        scores = reference.log() + reward / beta
        policy = scores.log_softmax(0)
        kl = float((policy.exp() * (policy - reference.log())).sum())
        low, high = (beta, high) if kl > budget else (low, beta)
    return math.sqrt(low * high)


# ------------------------------------------------------- a DPO step, a group's advantage, a clipped update, a round, a run


def dpo_step(logits: Tensor, reference: Tensor, chosen: Tensor, rejected: Tensor, beta: float, rate: float) -> Tensor:
    """Return the logits (prompts, answers) after one step of gradient descent on the mean DPO loss.

    Each row of `logits` is a policy over the answers to one prompt, each row of `reference` its frozen reference, as
    logits too. `chosen` and `rejected` (prompts,) say which answers were compared. The arguments stay as they are.

    >>> zeros, one = torch.zeros(1, 2), torch.tensor([1])
    >>> dpo_step(zeros, zeros, one, torch.tensor([0]), beta=1.0, rate=1.0)
    tensor([[-0.5000,  0.5000]])
    """
    leaf = logits.detach().clone().requires_grad_(True)
    policy, held, rows = leaf.log_softmax(1), reference.detach().log_softmax(1), torch.arange(len(logits))
    h = (policy - held)[rows, chosen] - (policy - held)[rows, rejected]
    (slope,) = torch.autograd.grad(-F.logsigmoid(beta * h).mean(), leaf)
    return leaf.detach() - rate * slope


def group_advantage(rewards: Tensor) -> Tensor:
    """Return GRPO's advantages (prompts, n): each reward less its group's mean, in the group's standard deviations.

    The standard deviation is the sample's (n - 1), and a group whose rewards are all equal gets 0. Divide by the
    standard deviation itself, without a small number beside it.

    >>> group_advantage(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    tensor([[-0.7071,  0.7071],
            [ 0.0000,  0.0000]])
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, keepdim=True)
    return torch.where(spread > 0, centred / spread, torch.zeros_like(centred))


def clipped_update(
    policy: Tensor, sampled: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, float]:  # fmt: skip
    """Return the clipped loss, a mean over a row's tokens and then over rows, and the share of tokens that it cuts.

    `policy` and `sampled` are log-probabilities (rows, time) of the drawn tokens, now and when they were drawn; only
    `policy` has a gradient. `mask` marks the answers' tokens, and `advantages` (rows,) aren't 0. The clip cuts a token
    if it leaves no gradient there. The share is of all the answers' tokens.

    >>> now, then = torch.tensor([[2.0, 2.0]]).log(), torch.zeros(1, 2)
    >>> clipped_update(now, then, torch.tensor([1.0]), torch.tensor([[1, 1]]), clip=0.25)
    (tensor(-1.2500), 1.0)
    """
    ratio, A = (policy - sampled).exp(), advantages[:, None]
    free, held = ratio * A, ratio.clamp(1 - clip, 1 + clip) * A
    loss = (-torch.minimum(free, held) * mask).sum(1) / mask.sum(1)
    return loss.mean(), float(((held < free) & (mask != 0)).sum() / (mask != 0).sum())


def one_round(
    model: nn.Module, ids: Tensor, mask: Tensor, rewards: Tensor, updates: int, rate: float, clip: float
) -> list[tuple[float, float]]:  # fmt: skip
    """Take GRPO's updates of a model on one round's answers; return the loss and the share cut at each update.

    `model(ids)` gives logits (rows, time, vocab); `mask` marks the answers' tokens in `ids` (rows, time), never in the
    first column. `rewards` is (prompts, n), in the order of the rows. Each update is one step of plain gradient descent,
    p - rate * gradient, on every parameter. Both numbers are those before the step. Use your three functions.

    >>> one_round(Table(0), *told_answers(0), updates=2, rate=1.0, clip=0.2)[0]
    (0.0, 0.0)
    """
    advantages = group_advantage(rewards).flatten()
    sampled, seen = drawn_logprobs(model, ids).detach(), list[tuple[float, float]]()
    for _ in range(updates):
        loss, cut = clipped_update(drawn_logprobs(model, ids), sampled, advantages, mask[:, 1:], clip)
        seen.append((round(loss.item(), 6) + 0.0, cut))
        step_down(model, loss, rate)
    return seen


def explain_round(rewards: Tensor, clipped: Sequence[float], distinct: float) -> str:
    """Return what a log of one round says: "no signal", "one answer left", "learning, clip idle" or "learning, clipped".

    `rewards` is (prompts, n), `clipped` the share of cut tokens at each update, `distinct` the share of different
    answers in a group. Ask in this order, the first that is true: every group's rewards are equal; and if they are
    because only one answer is left, with `distinct` no larger than 1 / n, it is "one answer left" instead. Otherwise
    there is a signal to learn from, and the clip is idle if no token was ever cut. With one update a round it always
    is: that is no fault.

    >>> explain_round(torch.zeros(2, 4), [0.0, 0.0], distinct=0.9)
    'no signal'
    >>> explain_round(torch.eye(4), [0.0, 0.2], distinct=0.9)
    'learning, clipped'
    """
    n = rewards.shape[1]
    if bool((rewards == rewards[:, :1]).all()):
        return "one answer left" if distinct <= 1 / n + 1e-9 else "no signal"
    return "learning, clipped" if max(clipped) > 0 else "learning, clip idle"


class Table(nn.Module):
    """A language model of one table: the next token's logits by the token before it."""

    def __init__(self, seed: int, vocab: int = 4) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocab, vocab, generator=torch.Generator().manual_seed(seed)))

    def forward(self, ids: Tensor) -> Tensor:
        return self.table[ids]


def told_answers(seed: int, prompts: int = 2, n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, their answer mask, and rewards: answers of two or three tokens behind a prompt of one."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 4, (prompts * n, 4), generator=generator)
    mask = torch.ones_like(ids)
    mask[:, 0], mask[::2, 3] = 0, 0
    return ids, mask, torch.rand(prompts, n, generator=generator).round(decimals=1)


def drawn_logprobs(model: nn.Module, ids: Tensor) -> Tensor:
    """Return the log-probability of each token but the first (rows, time - 1), in nats."""
    return model(ids)[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


def step_down(model: nn.Module, loss: Tensor, rate: float) -> None:
    """Take one step of gradient descent on every parameter."""
    trained = list(model.parameters())
    gradients = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter -= rate * gradient


# ------------------------------------------------------------------------------------------ what people write instead


def share_of_wins(wins: int, losses: int) -> float:
    return wins / (wins + losses)


def log_of_the_share(wins: int, losses: int) -> float:
    return math.log(wins / (wins + losses)) if wins else -math.inf


def losses_over_wins(wins: int, losses: int) -> float:
    return -two_item_gap(wins, losses)


def padded_counts(wins: int, losses: int) -> float:
    return math.log((wins + 1) / (losses + 1))


def count_minus_one(attention_mask: Tensor) -> Tensor:
    if not bool((attention_mask != 0).any(dim=1).all()):
        raise ValueError("attention_mask must mark at least one real token in every row")
    return attention_mask.sum(dim=1) - 1


def always_the_end(attention_mask: Tensor) -> Tensor:
    if not bool((attention_mask != 0).any(dim=1).all()):
        raise ValueError("attention_mask must mark at least one real token in every row")
    return torch.full((len(attention_mask),), attention_mask.shape[1] - 1)


def first_real(attention_mask: Tensor) -> Tensor:
    if not bool((attention_mask != 0).any(dim=1).all()):
        raise ValueError("attention_mask must mark at least one real token in every row")
    return attention_mask.int().argmax(dim=1)


def value_is_the_reward(reference: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, float]:
    policy, _ = best_policy(reference, reward, beta)
    return policy, float(policy @ reward)


def without_the_reference(reference: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, float]:
    scores = reward / beta
    return scores.softmax(0), beta * float(scores.logsumexp(0))


def times_beta(reference: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, float]:
    scores = reference.log() + reward * beta
    return scores.softmax(0), beta * float(scores.logsumexp(0))


def overflowing(reference: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, float]:
    weights = reference * (reward / beta).exp()
    return weights / weights.sum(), beta * float(weights.sum().log())


def right_pairs_weigh_more(h: float, beta: float) -> float:
    return pair_weight(-h, beta)


def beta_left_out(h: float, beta: float) -> float:
    return pair_weight(h, beta) / beta


def beta_outside_only(h: float, beta: float) -> float:
    return beta * pair_weight(h, 1.0)


def log_n_only(kl: float) -> int:
    return max(1, math.floor(math.exp(kl) + 1e-12))


def first_over(kl: float) -> int:
    return draws_for_kl(kl) + 1


def sign_of_the_term(kl: float) -> int:
    n = 1
    while math.log(n + 1) + n / (n + 1) <= kl:
        n += 1
    return n


def beta_forgotten(policy: Tensor, reference: Tensor, beta: float) -> float:
    return implied_preference(policy, reference, 1.0)


def reference_forgotten(policy: Tensor, reference: Tensor, beta: float) -> float:
    return implied_preference(policy, torch.zeros_like(policy), beta)


def reference_added(policy: Tensor, reference: Tensor, beta: float) -> float:
    return implied_preference(policy, -reference, beta)


def fixed_interval(reference: Tensor, reward: Tensor, budget: float) -> float:
    low, high = 1e-4, 1e4
    for _ in range(80):
        beta = math.sqrt(low * high)
        policy = (reference.log() + reward / beta).log_softmax(0)
        kl = float((policy.exp() * (policy - reference.log())).sum())
        low, high = (beta, high) if kl > budget else (low, beta)
    return math.sqrt(low * high)


def other_direction(reference: Tensor, reward: Tensor, budget: float) -> float:
    unit = float(reward.max() - reward.min())
    low, high = 1e-4 * unit, 1e4 * unit
    for _ in range(80):
        beta = math.sqrt(low * high)
        policy = (reference.log() + reward / beta).log_softmax(0)
        kl = float((reference * (reference.log() - policy)).sum())
        low, high = (beta, high) if kl > budget else (low, beta)
    return math.sqrt(low * high)


def without_the_prior(reference: Tensor, reward: Tensor, budget: float) -> float:
    return beta_within(torch.full_like(reference, 1 / len(reference)), reward, budget)


def one_over_beta(reference: Tensor, reward: Tensor, budget: float) -> float:
    return 1 / beta_within(reference, reward, budget)


def uphill(
    logits: Tensor, reference: Tensor, chosen: Tensor, rejected: Tensor, beta: float, rate: float
) -> Tensor:  # fmt: skip
    return dpo_step(logits, reference, chosen, rejected, beta, -rate)


def summed_pairs(
    logits: Tensor, reference: Tensor, chosen: Tensor, rejected: Tensor, beta: float, rate: float
) -> Tensor:  # fmt: skip
    return dpo_step(logits, reference, chosen, rejected, beta, rate * len(logits))


def no_reference(
    logits: Tensor, reference: Tensor, chosen: Tensor, rejected: Tensor, beta: float, rate: float
) -> Tensor:  # fmt: skip
    return dpo_step(logits, torch.zeros_like(reference), chosen, rejected, beta, rate)


def reference_is_the_policy(
    logits: Tensor, reference: Tensor, chosen: Tensor, rejected: Tensor, beta: float, rate: float
) -> Tensor:  # fmt: skip
    return dpo_step(logits, logits, chosen, rejected, beta, rate)


def over_all_groups(rewards: Tensor) -> Tensor:
    return (rewards - rewards.mean()) / rewards.std()


def centred_alone(rewards: Tensor) -> Tensor:
    return rewards - rewards.mean(1, keepdim=True)


def population_spread(rewards: Tensor) -> Tensor:
    n = rewards.shape[1]
    return group_advantage(rewards) * math.sqrt(n / (n - 1))


def not_a_number(rewards: Tensor) -> Tensor:
    return (rewards - rewards.mean(1, keepdim=True)) / rewards.std(1, keepdim=True)


def always_clamped(
    policy: Tensor, sampled: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, float]:
    ratio = (policy - sampled).exp()
    outside = ((ratio - 1).abs() > clip) & (mask != 0)
    loss = -ratio.clamp(1 - clip, 1 + clip) * advantages[:, None] * mask
    return (loss.sum(1) / mask.sum(1)).mean(), float(outside.sum() / (mask != 0).sum())


def outside_counts(
    policy: Tensor, sampled: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, float]:
    return clipped_update(policy, sampled, advantages, mask, clip)[0], always_clamped(
        policy, sampled, advantages, mask, clip
    )[1]


def padding_counts(
    policy: Tensor, sampled: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, float]:
    return clipped_update(policy, sampled, advantages, torch.ones_like(mask), clip)


def over_all_tokens(
    policy: Tensor, sampled: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, float]:
    rows = [clipped_update(policy[k : k + 1], sampled[k : k + 1], advantages[k : k + 1], mask[k : k + 1], clip)[0]
            for k in range(len(mask))]  # fmt: skip
    weights = mask.sum(1) / mask.sum()
    return (torch.stack(rows) * weights).sum(), clipped_update(policy, sampled, advantages, mask, clip)[1]


def drawn_anew(
    model: nn.Module, ids: Tensor, mask: Tensor, rewards: Tensor, updates: int, rate: float, clip: float
) -> list[tuple[float, float]]:  # fmt: skip
    return [one_round(model, ids, mask, rewards, 1, rate, clip)[0] for _ in range(updates)]


def raw_rewards(
    model: nn.Module, ids: Tensor, mask: Tensor, rewards: Tensor, updates: int, rate: float, clip: float
) -> list[tuple[float, float]]:  # fmt: skip
    sampled, seen = drawn_logprobs(model, ids).detach(), list[tuple[float, float]]()
    for _ in range(updates):
        loss, cut = clipped_update(drawn_logprobs(model, ids), sampled, rewards.flatten(), mask[:, 1:], clip)
        seen.append((round(loss.item(), 6) + 0.0, cut))
        step_down(model, loss, rate)
    return seen


def climbing_the_loss(
    model: nn.Module, ids: Tensor, mask: Tensor, rewards: Tensor, updates: int, rate: float, clip: float
) -> list[tuple[float, float]]:  # fmt: skip
    return one_round(model, ids, mask, rewards, updates, -rate, clip)


def by_the_mean_reward(rewards: Tensor, clipped: Sequence[float], distinct: float) -> str:
    if bool((rewards == 0).all()):
        return "no signal"
    return explain_round(rewards + torch.arange(rewards.shape[1]), clipped, distinct)


def by_the_clip(rewards: Tensor, clipped: Sequence[float], distinct: float) -> str:
    return "learning, clip idle" if max(clipped) == 0 else explain_round(rewards, clipped, distinct)


def by_all_rewards(rewards: Tensor, clipped: Sequence[float], distinct: float) -> str:
    return (
        explain_round(rewards.reshape(1, -1), clipped, distinct)
        if len(set(rewards.flatten().tolist())) > 1
        else (explain_round(rewards, clipped, distinct))
    )


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def places(*values: int) -> Tensor:
    return torch.tensor(values)


def an_update(seed: int, clip: float) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Return a case of a clipped update: ratios on both sides of the interval, advantages of both signs, padding."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
    sampled = -drawn(seed, 4, 4).abs()
    return sampled + 0.4 * drawn(seed + 1, 4, 4), sampled, doubles(1.0, -2.0, -0.5, 1.5), mask, clip


# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501
EXERCISES = [
    Exercise(
        "7.1", "The reward gap of two answers", two_item_gap,
        cases=[(7, 3), (3, 7), (1, 1), (20, 1), (4, 0), (0, 2)],
        hints=["The likelihood is sigmoid(d)^wins times sigmoid(-d)^losses. Where is its logarithm's slope 0?",
               "At sigmoid(d) = wins / (wins + losses).", "Invert the sigmoid: the logit of that share."],
        mistakes=[
            Mistake(share_of_wins, "That is the chance of a win. The gap is the number whose sigmoid it is."),
            Mistake(log_of_the_share, "log(wins / games) is never positive, so the first could never be the better one. The logit compares wins with losses."),
            Mistake(losses_over_wins, "The sign: who wins more has the larger reward."),
            Mistake(padded_counts, "One game added to each side is a prior. Asked is the likeliest gap, which may be infinite."),
        ],
        minutes=4, difficulty=2,
    ),
    Exercise(
        "7.2", "Where a reward model reads", last_real_token,
        cases=[(torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),), (torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]),),
               (torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1]]),)],
        hints=["Try it by hand on [0, 0, 1, 1]: which column is it?", "Number the columns, and hide the padding's numbers.",
               "The largest number that is left. What is left of a row of zeros?"],
        mistakes=[
            Mistake(count_minus_one, "The number of real tokens less one is a place only where padding stands on the right."),
            Mistake(always_the_end, "Place -1 is padding in a row that is padded on the right: the reward would depend on its neighbours in the batch."),
            Mistake(first_real, "That is the first real token. Under causal attention it has seen nothing of the answer."),
        ],
        errors=[((torch.tensor([[1, 0], [0, 0]]),), "attention_mask")],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "7.3", "The best policy under a KL price", best_policy,
        cases=[(doubles(0.5, 0.3, 0.2), doubles(0.0, 1.0, 2.0), 1.0), (doubles(0.5, 0.3, 0.2), doubles(0.0, 1.0, 2.0), 0.1),
               (doubles(0.7, 0.2, 0.1), doubles(-1.0, 0.5, 0.5), 10.0), (doubles(0.9, 0.1), doubles(0.0, 1.0), 1e-4)],
        hints=["pi is proportional to reference times e^(r / beta).", "Work with logarithms: log reference + r / beta.",
               "softmax gives the policy, beta times logsumexp the maximum."],
        mistakes=[
            Mistake(value_is_the_reward, "That is E[r]. The maximum also pays for KL: it is beta log Z."),
            Mistake(without_the_reference, "Without the reference, rare answers are as good as common ones: its logarithm belongs into the scores."),
            Mistake(times_beta, "r / beta, not r times beta: a high price of KL keeps the policy near its reference."),
            Mistake(overflowing, "e^(r / beta) overflows at small beta. Stay with logarithms until the end."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "7.4", "How strongly a pair pulls", pair_weight,
        cases=[(1.5, 0.1), (-20.0, 0.1), (0.0, 0.3), (4.0, 2.0), (11_000.0, 0.1), (-11_000.0, 0.1)],
        hints=["The derivative of -log sigmoid(x) is -sigmoid(-x).", "The chain rule brings a beta out.",
               "beta sigmoid(-beta h). For which sign of h does e^(beta h) overflow?"],
        mistakes=[
            Mistake(right_pairs_weigh_more, "A pair that is ordered well already should pull less. Look at the sign inside the sigmoid."),
            Mistake(beta_left_out, "The chain rule: d(beta h)/dh = beta stands in front."),
            Mistake(beta_outside_only, "beta stands inside the sigmoid as well: it decides from which margin on a pair counts as done."),
        ],
        minutes=5, difficulty=2, tolerance=1e-9,
    ),
    Exercise(
        "7.5", "How many draws a KL budget buys", draws_for_kl,
        cases=[(0.0,), (0.5,), (0.637,), (1.0,), (4.0,), (5.5,)],
        hints=["KL(best of n || one sample) is log n - (n - 1) / n.", "It grows with n, so that counting up from 1 is enough.",
               "The last n that isn't above kl."],
        mistakes=[
            Mistake(log_n_only, "log n is an upper bound, not the divergence: (n - 1) / n goes off it."),
            Mistake(first_over, "That n costs more than the budget; asked is the last that stays within it."),
            Mistake(sign_of_the_term, "(n - 1) / n is subtracted."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "7.A", "What a DPO policy would have voted", implied_preference,
        cases=[(doubles(-12.0, -14.0), doubles(-13.0, -13.5), 0.1), (doubles(-40.0, -42.0), doubles(-20.0, -60.0), 0.5),
               (doubles(-3.0, -1.0), doubles(-3.0, -4.0), 0.3)],
        hints=["An answer's implicit reward is beta times how much likelier the policy finds it than the reference.",
               "Bradley and Terry: the sigmoid of a difference of rewards.", "It's sigmoid(beta h)."],
        mistakes=[
            Mistake(beta_forgotten, "Without beta the log-ratios aren't rewards: beta is their unit."),
            Mistake(reference_forgotten, "A reward is measured from the reference. Without it, short answers win."),
            Mistake(reference_added, "The log-ratio is policy minus reference."),
        ],
        minutes=6, difficulty=3,
    ),
    Exercise(
        "7.B", "The beta of a KL budget", beta_within,
        cases=[(doubles(0.5, 0.3, 0.2), doubles(0.0, 1.0, 2.0), 0.323), (doubles(0.9, 0.09, 0.01), doubles(0.0, 1.0, 3.0), 1.0),
               (doubles(0.2, 0.5, 0.3), doubles(1.0, 0.0, 0.5), 0.05), (doubles(0.7, 0.3), doubles(0.0, 1e6), 0.2)],
        hints=["For a given beta, 7.3 gives the policy. How far is it from its reference?",
               "Too far: which way must beta go?", "Halve between 1e-4 and 1e4 times the spread of the rewards, by the geometric mean; 80 times is plenty."],
        mistakes=[
            Mistake(fixed_interval, "beta is in the reward's unit: rewards a million apart need a beta that a fixed interval doesn't reach."),
            Mistake(other_direction, "That is KL(reference || pi). The price is paid for KL(pi || reference), the mean under pi."),
            Mistake(without_the_prior, "The policy starts at its reference, not at a uniform distribution."),
            Mistake(one_over_beta, "A larger budget means a smaller beta: r / beta, not r times it."),
        ],
        minutes=10, difficulty=4, tolerance=1e-5,
    ),
    Exercise(
        "7.C", "Build: a DPO step", dpo_step,
        cases=[(drawn(0, 3, 4), drawn(1, 3, 4), places(0, 2, 1), places(3, 1, 0), 0.5, 1.0),
               (drawn(2, 2, 3), drawn(3, 2, 3), places(0, 0), places(1, 2), 2.0, 0.3),
               (drawn(4, 4, 2), drawn(4, 4, 2), places(0, 1, 1, 0), places(1, 0, 0, 1), 0.1, 10.0)],
        hints=["Make a copy of the logits that wants a gradient: `logits.detach().clone().requires_grad_(True)`.",
               "`log_softmax(1)` of both; pick an answer per row with `[torch.arange(len(logits)), chosen]`.",
               "Take the gradient of the mean of -logsigmoid(beta h), and return the logits less rate times it."],
        mistakes=[
            Mistake(uphill, "The step goes up the loss: subtract the gradient."),
            Mistake(summed_pairs, "That is the step on the sum over pairs; the loss is their mean."),
            Mistake(no_reference, "The margin lacks the reference: h compares the policy's preference with the reference's."),
            Mistake(reference_is_the_policy, "Your reference is the policy itself, so h is 0 and every pair pulls alike. The reference is frozen elsewhere."),
        ],
        minutes=10, difficulty=3,
    ),
    Exercise(
        "7.D", "Build: a group's advantage", group_advantage,
        cases=[(doubles(0, 1, 1, 0, 0, 0, 0, 1).view(2, 4),), (doubles(1, 1, 1, 0, 0, 0, 2, 5, 3).view(3, 3),), (drawn(5, 4, 8),)],
        hints=["The mean and the standard deviation run over each row: dimension 1, `keepdim=True`.",
               "`std` divides by n - 1 unless told otherwise.", "What is 0 / 0 in a group of equals? `torch.where` can put 0 there."],
        mistakes=[
            Mistake(over_all_groups, "That compares with all answers of the batch. An answer is compared with the others to its own prompt."),
            Mistake(centred_alone, "Centred, but not divided by the group's standard deviation."),
            Mistake(population_spread, "That is the population's standard deviation (n); the sample's divides by n - 1."),
            Mistake(not_a_number, "A group of equals gives 0 / 0. One such group makes every weight of the model not-a-number."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "7.E", "Build: a clipped update", clipped_update,
        cases=[an_update(10, 0.2), an_update(20, 0.1), an_update(30, 0.3)],
        hints=["The ratio is `(policy - sampled).exp()`, and there are two products with A: free, and with the ratio clamped.",
               "The smaller of the two counts, with a minus before it. Where the clamped one is smaller, the clip cuts.",
               "A row's mean divides by its own number of answer tokens, `mask.sum(1)`."],
        mistakes=[
            Mistake(always_clamped, "Clamped always, a token that moved the wrong way has no gradient that brings it back. Take the minimum of both products."),
            Mistake(outside_counts, "The loss is right. The share isn't: a ratio outside the interval on the other side of its advantage keeps its gradient."),
            Mistake(padding_counts, "Padding counts in your means and in your share."),
            Mistake(over_all_tokens, "That is the mean over all tokens. Asked is the mean over each row's tokens, and then over rows."),
        ],
        minutes=10, difficulty=4,
    ),
    Exercise(
        "7.F", "Build: one round of GRPO", one_round,
        cases=[(Table(0), *told_answers(0), 3, 1.0, 0.2), (Table(1), *told_answers(1), 4, 3.0, 0.1),
               (Table(2), *told_answers(2, prompts=3), 2, 0.5, 0.2)],
        hints=["Log-probabilities: log_softmax of the logits at place t, gathered at the token t + 1.",
               "`sampled` is computed once, before the first step, and detached.",
               "`torch.autograd.grad(loss, list(model.parameters()))`, and the steps within `torch.no_grad()`."],
        mistakes=[
            Mistake(drawn_anew, "Your ratio is 1 at every update, so nothing is ever clipped: keep the log-probabilities of when the answers were drawn."),
            Mistake(raw_rewards, "The rewards themselves stand where the group's advantages belong."),
            Mistake(climbing_the_loss, "The steps go up the loss: subtract the gradient."),
        ],
        minutes=12, difficulty=4, tolerance=1e-4,
    ),
    Exercise(
        "7.G", "Build: explain a run", explain_round,
        cases=[(torch.zeros(2, 4), [0.0, 0.0], 0.9), (torch.ones(2, 4), [0.0, 0.0], 0.25), (torch.eye(4), [0.0, 0.0], 0.9),
               (torch.eye(4), [0.0, 0.1], 0.9), (doubles(1, 1, 0, 0).view(2, 2), [0.0], 0.5),
               (doubles(1, 1, 0, 0).view(2, 2), [0.0], 1.0), (torch.eye(3), [0.0], 1 / 3)],
        hints=["An advantage compares within a group: when is there nothing to compare?", "All rewards of a row are equal to its first.",
               "Only one answer is left where a group of n holds 1 / n different ones."],
        mistakes=[
            Mistake(by_the_mean_reward, "All right is as empty as all wrong: a group of equals has advantage 0, whatever its reward."),
            Mistake(by_the_clip, "A round without a signal isn't clipped either: ask for the signal first."),
            Mistake(by_all_rewards, "Compare within each group. One prompt all right and one all wrong give no signal either."),
        ],
        minutes=8, difficulty=3,
    ),
]  # fmt: skip
