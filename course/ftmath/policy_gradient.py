"""Policy gradients: what to do with judged answers, from REINFORCE to a clipped update with a price of KL.

Answers stand in rows. Log-probabilities are in nats, of whole answers (rows,) or of their tokens (rows, time). Rewards
stand in groups, all answers to one prompt together: (prompts, n).
"""

from typing import Protocol

import torch
from torch import Tensor

# ---------------------------------------------------------------------------------------------- REINFORCE and baselines


def reinforce_loss(logprob: Tensor, advantages: Tensor) -> Tensor:
    """Return the loss whose gradient is minus the policy gradient: -mean(A log pi) (doi:10.1007/BF00992696).

    Both are (rows,), one number for each whole answer. Its value means nothing; only its gradient is used.

    >>> logits = torch.zeros(2, requires_grad=True)
    >>> reinforce_loss(logits.log_softmax(0)[:1], torch.tensor([1.0])).backward()
    >>> logits.grad
    tensor([-0.5000,  0.5000])
    """
    return -(advantages.detach() * logprob).mean()


def centred_advantages(rewards: Tensor) -> Tensor:
    """Return each reward (prompts, n) less its group's mean: Dr. GRPO's advantage (arXiv:2503.20783, section 3.2).

    >>> centred_advantages(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    tensor([[-0.5000,  0.5000],
            [ 0.0000,  0.0000]])
    """
    return rewards - rewards.mean(1, keepdim=True)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Return each reward (prompts, n) less the mean of the *others* in its group (arXiv:2402.14740).

    No answer stands in its own baseline, so the gradient is unbiased. It's n / (n - 1) times the centred reward.

    >>> leave_one_out(torch.tensor([[0.0, 1.0, 1.0]]))
    tensor([[-1.0000,  0.5000,  0.5000]])

    Errors: ValueError for groups of one.
    """
    n = rewards.shape[1]
    if n < 2:
        raise ValueError("rewards must be (prompts, n) with n at least 2: one answer alone has no others")
    return (n / (n - 1)) * centred_advantages(rewards)


def group_advantages(rewards: Tensor, eps: float = 1e-4) -> Tensor:
    """Return how each sample of a prompt (prompts, n) stands to its group: (r - mean) / (std + eps).

    The mean reward of the group is the baseline, so no value model is needed (arXiv:2402.03300, section 4.1.2). The
    standard deviation is the sample's (n - 1). A group of equals gives 0.

    >>> group_advantages(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), eps=0.0)[0]
    tensor([-0.7071,  0.7071])
    """
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + eps)


# ------------------------------------------------------------------------------------- several updates on one round


def clipped_loss(policy: Tensor, sampled: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """Return -min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) for each token (arXiv:1707.06347, equation 7).

    `policy` and `sampled` are log-probabilities under the policy now and the one that drew the tokens.

    >>> gain = torch.tensor([2.0]).log(), torch.tensor([0.0]), torch.tensor([1.0])
    >>> clipped_loss(*gain).item(), clipped_loss(*gain[:2], -gain[2]).item()
    (-1.2000000476837158, 2.0)
    """
    ratio = (policy - sampled.detach()).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped_share(policy: Tensor, sampled: Tensor, advantages: Tensor, mask: Tensor, clip: float = 0.2) -> float:
    """Return at which share of the tokens the clip is active: where `clipped_loss` has no gradient.

    `policy`, `sampled` and `mask` are (rows, time), `advantages` (rows,). A ratio outside the interval is clipped only
    on the side that its advantage pushes it to; a token with advantage 0 isn't counted.

    >>> ratio, sampled = torch.tensor([[2.0, 2.0]]), torch.zeros(1, 2)
    >>> [clipped_share(ratio.log(), sampled, torch.tensor([sign]), torch.ones(1, 2)) for sign in (1.0, -1.0)]
    [1.0, 0.0]
    """
    ratio, signs = (policy - sampled).exp(), advantages[:, None]
    cut = ((signs > 0) & (ratio > 1 + clip)) | ((signs < 0) & (ratio < 1 - clip))
    return float((cut & (mask != 0)).sum() / (mask != 0).sum().clamp(min=1))


# ------------------------------------------------------------------------------------------- one number from the tokens


class Average(Protocol):
    """A function that makes one number of the tokens' losses (rows, time) and their mask."""

    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor: ...


def row_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over each row's tokens, and then over rows: GRPO's (arXiv:2402.03300, equation 3).

    A token of a short answer counts for more than one of a long answer.

    >>> row_mean(torch.tensor([[1.0, 1.0], [5.0, 0.0]]), torch.tensor([[1, 1], [1, 0]])).item()
    3.0
    """
    kept = mask.to(tokens.dtype)
    return ((tokens * kept).sum(1) / kept.sum(1).clamp(min=1)).mean()


def token_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over all tokens of all rows: DAPO's (arXiv:2503.14476, section 3.3).

    >>> round(token_mean(torch.tensor([[1.0, 1.0], [5.0, 0.0]]), torch.tensor([[1, 1], [1, 0]])).item(), 4)
    2.3333
    """
    kept = mask.to(tokens.dtype)
    return (tokens * kept).sum() / kept.sum().clamp(min=1)


def fixed_mean(tokens: Tensor, mask: Tensor, length: int) -> Tensor:
    """Return the sum over a row's tokens divided by a fixed length, and then the mean over rows: Dr. GRPO's.

    No token's weight depends on how long its answer is (arXiv:2503.20783, section 3.2).

    >>> fixed_mean(torch.tensor([[1.0, 1.0], [5.0, 0.0]]), torch.tensor([[1, 1], [1, 0]]), length=2).item()
    1.75
    """
    return (tokens * mask.to(tokens.dtype)).sum(1).mean() / length


# -------------------------------------------------------------------------------------------------- the price of KL


class Estimator(Protocol):
    """A function of log-probabilities (...) of sampled tokens, whose mean under the policy estimates a divergence."""

    def __call__(self, policy: Tensor, reference: Tensor) -> Tensor: ...


def k1(policy: Tensor, reference: Tensor) -> Tensor:
    """Return log(pi / ref) of tokens sampled from pi: an unbiased estimate of KL(pi || ref), often negative.

    The three names are Schulman's (http://joschu.net/blog/kl-approx.html). They stand for values. As a term of a loss
    on drawn tokens, `k1` has a gradient of mean 0; it belongs into the reward instead.

    >>> k1(torch.tensor([0.5]).log(), torch.tensor([0.25]).log()).exp().item()
    2.0
    """
    return policy - reference


def k2(policy: Tensor, reference: Tensor) -> Tensor:
    """Return half the square of log(pi / ref): never negative, biased, close where the two are.

    As a term of a loss on drawn tokens it has, on average, the gradient of KL(pi || ref).

    >>> k2(torch.tensor([1.0]), torch.tensor([0.0])).item()
    0.5
    """
    return 0.5 * (policy - reference).square()


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """Return ref / pi - 1 - log(ref / pi): unbiased and never negative; GRPO's term (arXiv:2402.03300, equation 4).

    As a term of a loss on drawn tokens it has, on average, the gradient of the other KL, KL(ref || pi).

    >>> round(k3(torch.tensor([0.0]), torch.tensor([1.0])).item(), 4)
    0.7183
    """
    ratio = reference - policy
    return ratio.expm1() - ratio


def priced_rewards(rewards: Tensor, policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Return rewards less beta times log(policy / reference) of whole answers: KL's place in the reward.

    It has no gradient of its own. As a reward it has, on average, the whole gradient of -beta KL(policy || reference),
    including what a token does to later ones (arXiv:2203.02155, equation 2).

    >>> priced_rewards(torch.tensor([1.0]), torch.tensor([-2.0]), torch.tensor([-3.0]), beta=0.5)
    tensor([0.5000])
    """
    return rewards - beta * (policy - reference).detach()


def policy_loss(
    policy: Tensor, sampled: Tensor, reference: Tensor, advantages: Tensor, mask: Tensor, *,
    beta: float = 0.02, clip: float = 0.2, estimator: Estimator = k3, average: Average = row_mean,
) -> Tensor:  # fmt: skip
    """Return the clipped loss plus beta times the KL estimate, averaged over tokens and rows by `average`.

    `policy`, `sampled` and `reference` are log-probabilities (batch, time) of sampled tokens, `mask` marks them, and
    `advantages` (batch,) holds one number for a whole answer (arXiv:2402.03300, equation 3).

    >>> zeros = torch.zeros(2, 3)
    >>> policy_loss(zeros, zeros, zeros, torch.tensor([1.0, -1.0]), torch.ones(2, 3)).item()
    0.0
    """
    tokens = clipped_loss(policy, sampled, advantages[:, None], clip)
    return average(tokens + beta * estimator(policy, reference.detach()), mask)


__all__ = [
    "centred_advantages", "clipped_loss", "clipped_share", "fixed_mean", "group_advantages", "k1", "k2", "k3",
    "leave_one_out", "policy_loss", "priced_rewards", "reinforce_loss", "row_mean", "token_mean",
]  # fmt: skip
