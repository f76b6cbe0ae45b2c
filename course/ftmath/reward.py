"""From judgements to the best policy: Bradley-Terry, a reward model, the best of n, an optimum at a price of KL."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.model import Decoder


def preference_probability(first: Tensor, second: Tensor) -> Tensor:
    """Return the chance that the first is preferred, from two rewards: sigmoid(r1 - r2), Bradley and Terry's model.

    >>> round(preference_probability(torch.tensor(1.2), torch.tensor(0.4)).item(), 3)
    0.69
    """
    return torch.sigmoid(first - second)


def bradley_terry(wins: Tensor, steps: int = 10_000, tolerance: float = 1e-12) -> Tensor:
    """Return the rewards (n,) with mean 0 that make a table of wins likeliest: wins[i, j] of i over j.

    Hunter's iteration (doi:10.1214/aos/1079120141, equation 3), in float64.

    >>> scores = bradley_terry(torch.tensor([[0.0, 7.0], [3.0, 0.0]]))
    >>> round((scores[0] - scores[1]).item(), 4)
    0.8473

    Errors: ValueError unless some wins lead from every item to every other: else a reward would be infinite.
    """
    games = (wins + wins.T).double()
    linked = (wins > 0).double()
    reach = torch.linalg.matrix_power(torch.eye(len(wins), dtype=torch.float64) + linked, max(1, len(wins) - 1))
    if not bool((reach > 0).all()):
        raise ValueError("every item must have beaten every other, at least through others; else a reward is infinite")
    strength = torch.ones(len(wins), dtype=torch.float64)
    for _ in range(steps):
        pairs = games / (strength[:, None] + strength[None, :])
        new = wins.double().sum(1) / pairs.sum(1)
        new = new / new.log().mean().exp()
        if bool((new.log() - strength.log()).abs().max() < tolerance):
            return new.log()
        strength = new
    return strength.log()


def ranking_loss(rewards: Tensor) -> Tensor:
    """Return the mean of -log sigmoid(better - worse) over all pairs of rankings (rankings, K), best first.

    Every ranking counts alike, whatever its K: equation 1 of arXiv:2203.02155. K = 2 is a pair, its chosen one first.

    >>> round(ranking_loss(torch.tensor([[2.0, 0.0], [0.5, 0.0], [-1.0, 0.0]])).item(), 4)
    0.6381

    Errors: ValueError for fewer than two per ranking.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must be (rankings, K) with K at least 2, got {tuple(rewards.shape)}")
    better, worse = torch.triu_indices(rewards.shape[1], rewards.shape[1], offset=1, device=rewards.device)
    return -F.logsigmoid(rewards[:, better] - rewards[:, worse]).mean()


def last_token(attention_mask: Tensor) -> Tensor:
    """Return the place of each row's last real token (batch,), wherever its padding stands.

    >>> last_token(torch.tensor([[1, 1, 0], [0, 1, 1]])).tolist()
    [1, 2]

    Errors: ValueError for a row without a real token.
    """
    real = attention_mask != 0
    if not bool(real.any(1).all()):
        raise ValueError("attention_mask must mark at least one real token in every row")
    return real.shape[1] - 1 - real.flip(1).int().argmax(1)


class RewardModel(nn.Module):
    """A decoder whose last hidden state of a row, at its last real token, is read as one number (batch,).

    The head starts at 0: every reward is, at first.

    >>> from ftmath.model import Config
    >>> model = RewardModel(Decoder(Config(layers=1)))
    >>> model(torch.tensor([[1, 70, 2]]), torch.ones(1, 3)).tolist()
    [0.0]
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.value = nn.Linear(decoder.config.d_model, 1, bias=False).to(decoder.embed.weight)
        nn.init.zeros_(self.value.weight)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.decoder.hidden(ids, attention_mask)
        rows = torch.arange(len(ids), device=ids.device)
        return self.value(hidden[rows, last_token(attention_mask)]).squeeze(-1)


# ------------------------------------------------------------------------------------------------------------ best of n


def best_of_n(rewards: Tensor) -> Tensor:
    """Return which of each row's samples (prompts, n) has the highest reward: (prompts,); of equals, the first.

    >>> best_of_n(torch.tensor([[0.1, 0.9, 0.9]])).tolist()
    [1]
    """
    return rewards.argmax(1)


def best_of_n_kl(n: int) -> float:
    """Return KL(best of n || one sample) in nats: log n - (n - 1) / n, for rewards without ties.

    Appendix G.3 of arXiv:2009.01325. Where draws can tie, as equal strings do, it's an upper bound (arXiv:2401.01879).

    >>> round(best_of_n_kl(4), 4), round(best_of_n_kl(64), 3)
    (0.6363, 3.175)
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return math.log(n) - (n - 1) / n


def gold_reward(kl: float, a: float, b: float) -> float:
    """Return the true reward at a KL from the start, for best-of-n: d (a - b d) with d = sqrt(KL).

    Section 3 of arXiv:2210.10760, which fits d (a - b log d) to reinforcement learning instead. It peaks at
    d = a / (2 b) with a^2 / (4 b).

    >>> gold_reward(4.0, a=2.0, b=0.5)
    2.0
    """
    distance = math.sqrt(kl)
    return distance * (a - b * distance)


# --------------------------------------------------------------------------------------------------------- the policy


def optimal_policy(reference: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, float]:
    """Return the policy that maximises E[r] - beta KL(pi || reference), and that maximum.

    Equation 4 of arXiv:2305.18290. `reference` and `reward` are (answers,). The policy is
    reference e^(r / beta) / Z, the maximum beta log Z.

    >>> policy, value = optimal_policy(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 2.0]), beta=1.0)
    >>> [round(p, 3) for p in policy.tolist()], round(value, 4)
    ([0.179, 0.292, 0.529], 1.0272)

    Errors: ValueError for a beta that isn't positive.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    scores = reference.log() + reward / beta
    return scores.softmax(0), beta * float(scores.logsumexp(0))


__all__ = [
    "RewardModel", "best_of_n", "best_of_n_kl", "bradley_terry", "gold_reward", "last_token", "optimal_policy",
    "preference_probability", "ranking_loss",
]  # fmt: skip
