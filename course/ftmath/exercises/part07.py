"""The exercises of part 7: preference fine-tuning."""

import math

import torch
from torch import Tensor

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


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


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
]  # fmt: skip
