"""Losses on preference pairs: DPO and its kin, from the log-probabilities of whole answers, in nats."""

import torch
import torch.nn.functional as F
from torch import Tensor


def margin(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
) -> Tensor:
    """Return h: how much more the policy prefers the chosen answer than the reference does, per pair (pairs,).

    The reference gives no gradient.

    >>> margin(*(torch.tensor([value]) for value in (-12.0, -14.0, -13.0, -13.5))).item()
    1.5

    Errors: ValueError if the four shapes differ.
    """
    four = (policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    if len({part.shape for part in four}) != 1:
        raise ValueError(f"the four log-probabilities must have one shape, got {[tuple(p.shape) for p in four]}")
    return (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected).detach()


def dpo_loss(h: Tensor, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean DPO loss of margins h (arXiv:2305.18290, equation 7): -log sigmoid(beta h).

    With `label_smoothing` e, the expectation if a label is wrong with probability e (conservative DPO).

    >>> round(dpo_loss(torch.zeros(2)).item(), 4)
    0.6931
    """
    demand(beta, label_smoothing)
    return -((1 - label_smoothing) * F.logsigmoid(beta * h) + label_smoothing * F.logsigmoid(-beta * h)).mean()


def robust_dpo_loss(h: Tensor, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """Return the unbiased loss under labels that are wrong with a known probability (arXiv:2403.00409, equation 9).

    It can be negative: (1 - e) times the loss minus e times that of the flipped pair, over 1 - 2 e.

    >>> round(robust_dpo_loss(torch.zeros(1), label_smoothing=0.2).item(), 4)
    0.6931
    """
    demand(beta, label_smoothing)
    right, flipped = -F.logsigmoid(beta * h), -F.logsigmoid(-beta * h)
    return (((1 - label_smoothing) * right - label_smoothing * flipped) / (1 - 2 * label_smoothing)).mean()


def ipo_loss(h: Tensor, beta: float = 0.1) -> Tensor:
    """Return the IPO loss (arXiv:2310.12036, equation 17): the squared distance of h from 1 / (2 beta).

    >>> ipo_loss(torch.tensor([2.0]), beta=0.1).item()
    9.0
    """
    demand(beta)
    return (h - 1 / (2 * beta)).square().mean()


def hinge_loss(h: Tensor, beta: float = 0.1) -> Tensor:
    """Return the hinge loss of SLiC (arXiv:2305.10425) on the same margins: max(0, 1 - beta h).

    >>> hinge_loss(torch.tensor([0.0, 20.0]), beta=0.1).item()
    0.5
    """
    demand(beta)
    return (1 - beta * h).clamp(min=0).mean()


def anchored_dpo_loss(h: Tensor, chosen_nll: Tensor, beta: float = 0.1, weight: float = 1.0) -> Tensor:
    """Return the DPO loss plus `weight` times the chosen answers' mean negative log-likelihood per token.

    The second term keeps the chosen answers from becoming less likely while their margin grows (arXiv:2404.19733,
    equation 1).

    >>> round(anchored_dpo_loss(torch.zeros(1), chosen_nll=torch.ones(1)).item(), 4)
    1.6931
    """
    return dpo_loss(h, beta) + weight * chosen_nll.mean()


def kto_loss(chosen_ratio: Tensor, rejected_ratio: Tensor, drift: Tensor, beta: float = 0.1) -> Tensor:
    """Return the KTO loss with both weights 1 (arXiv:2402.01306, equation 7): answers that needn't be pairs.

    The two hold log(policy / reference) of good answers and of bad ones, in nats; they may differ in number. `drift` is
    one number, the estimate of KL(policy || reference) that an answer must exceed: it gives no gradient, and below 0 it
    counts as 0. A policy equal to its reference scores a half:

    >>> kto_loss(torch.zeros(2), torch.zeros(3), torch.tensor(0.0)).item()
    0.5
    """
    demand(beta)
    z = drift.detach().clamp(min=0)
    good, bad = torch.sigmoid(beta * (chosen_ratio - z)), torch.sigmoid(beta * (z - rejected_ratio))
    return (1 - torch.cat([good, bad])).mean()


def simpo_loss(chosen_mean: Tensor, rejected_mean: Tensor, beta: float = 2.0, gamma: float = 1.0) -> Tensor:
    """Return the SimPO loss (arXiv:2405.14734, equation 6): no reference; means over an answer's tokens; a gap gamma.

    >>> round(simpo_loss(torch.tensor([-1.0]), torch.tensor([-1.5])).item(), 4)
    0.6931
    """
    demand(beta)
    return -F.logsigmoid(beta * (chosen_mean - rejected_mean) - gamma).mean()


def orpo_loss(chosen_mean: Tensor, rejected_mean: Tensor, weight: float = 0.1) -> Tensor:
    """Return the ORPO loss (arXiv:2403.07691, equations 4 to 7): no reference; NLL of the chosen plus an odds ratio.

    `chosen_mean` and `rejected_mean` are means of log-probabilities over an answer's tokens, P their exponential, and
    the odds P / (1 - P). The first term is the mean over answers, so a token of a long answer counts for less.

    >>> half = torch.tensor([0.5]).log()
    >>> round(orpo_loss(half, half, weight=1.0).item(), 4)
    1.3863

    Errors: ValueError for a mean that isn't below 0: its odds would be infinite.
    """
    if not bool((torch.cat([chosen_mean, rejected_mean]) < 0).all()):
        raise ValueError("chosen_mean and rejected_mean must be below 0: a probability of 1 has infinite odds")
    chosen, rejected = (mean - torch.log(-torch.expm1(mean)) for mean in (chosen_mean, rejected_mean))
    return (-chosen_mean - weight * F.logsigmoid(chosen - rejected)).mean()


def implicit_reward(policy: Tensor, reference: Tensor, beta: float = 0.1) -> Tensor:
    """Return beta times the log-ratio of policy and reference, without a gradient: the reward that DPO fits.

    >>> implicit_reward(torch.tensor([-12.0]), torch.tensor([-13.0]), beta=0.5).item()
    0.5
    """
    demand(beta)
    return beta * (policy - reference).detach()


def dpo_slope(h: Tensor, beta: float = 0.1) -> Tensor:
    """Return the derivative of each pair's DPO loss with respect to its margin: -beta sigmoid(-beta h).

    >>> dpo_slope(torch.zeros(1), beta=0.5).item()
    -0.25
    """
    demand(beta)
    return -beta * torch.sigmoid(-beta * h)


def demand(beta: float, label_smoothing: float = 0.0) -> None:
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be positive and finite, got {beta}")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be within [0, 0.5), got {label_smoothing}")


__all__ = [
    "anchored_dpo_loss", "dpo_loss", "dpo_slope", "hinge_loss", "implicit_reward", "ipo_loss", "kto_loss",
    "margin", "orpo_loss", "robust_dpo_loss", "simpo_loss",
]  # fmt: skip
