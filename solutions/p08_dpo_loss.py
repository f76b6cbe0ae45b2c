"""The DPO loss from tokens to gradients: contracts and references (arXiv:2305.18290).

Everything is computed from log-probabilities in nats; no probability is ever formed, since exp(-3000) is 0.
"""

import math

import torch
import torch.nn.functional as F


def sequence_logprob(logits: torch.Tensor, input_ids: torch.Tensor, answer_mask: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each row's answer: a sum over its answer tokens, in nats.

    `logits` is (batch, time, vocab), `input_ids` (int64) and `answer_mask` are (batch, time); each has a row and a
    column at least. The mask is bool, int or float (of 16 bits too) with values 0 and 1. Column 0 has nothing before it
    and is never a target. A row without targets gives 0. What stands at other positions (ids of -100, logits that are
    NaN) has no influence, neither on the value nor on the gradient. If there is a target, the result can be
    differentiated with respect to `logits`. An answer's logits are finite and may lie 20,000 apart. float64 stays
    float64; bfloat16 and float16 are computed in float32 and give float32.

    Errors: ValueError naming `shape` if the three don't agree in batch and time.

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    >>> ids, mask = torch.tensor([[0, 1, 0]]), torch.tensor([[0, 1, 1]])
    >>> [round(value, 4) for value in sequence_logprob(logits, ids, mask).tolist()]
    [-1.3863]

    Always: what isn't predicted doesn't count, and an answer token more makes an answer no likelier.

    >>> logits[:, -1], ids[:, 0] = math.nan, -100
    >>> [round(sequence_logprob(logits, ids, torch.tensor([[first, 1, 0]])).item(), 4) for first in (0, 1)]  # out
    [-0.6931, -0.6931]
    """
    if input_ids.shape != logits.shape[:2] or answer_mask.shape != logits.shape[:2]:
        raise ValueError(
            "shape: logits must be (batch, time, vocab), input_ids and answer_mask (batch, time); "
            f"got {tuple(logits.shape)}, {tuple(input_ids.shape)}, {tuple(answer_mask.shape)}"
        )
    # The logits at t predict the token at t + 1: shift both the ids and the mask.
    target = answer_mask[:, 1:] != 0
    row = target.nonzero()[:, 0]
    # Select before anything is computed: a NaN times a mask of 0 would still be NaN.
    chosen = at_least_float32(logits[:, :-1][target])
    logp = F.log_softmax(chosen, dim=-1).gather(-1, input_ids[:, 1:][target].unsqueeze(-1).long()).squeeze(-1)
    total = torch.zeros(logits.shape[0], dtype=logp.dtype, device=logits.device)
    return total.index_add(0, row, logp)


def dpo_loss(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    reference_chosen: torch.Tensor, reference_rejected: torch.Tensor,
    beta: float = 0.1, label_smoothing: float = 0.0, reduction: str = "mean",
) -> torch.Tensor:  # fmt: skip
    """Return the DPO loss of preference pairs, in nats: their mean, or one number a pair for `reduction="none"`.

    The four tensors hold one answer's log-probability per pair and have one common dtype and one common shape: () for a
    single pair, or (pairs,). The mean is over all pairs: if the loss of one is NaN, so is the mean. Margins of 10,000,
    of either sign, give finite losses and finite gradients. The result can be differentiated with respect to the
    policy's two tensors; the reference's two never receive a gradient, even if they ask for one. `label_smoothing` is
    the probability that a pair's label is wrong: the pair's loss is then the expectation over both labels. float64
    stays float64; bfloat16 and float16 are computed in float32 and give float32.

    Errors: ValueError naming `beta` (zero, negative, infinite or NaN), `label_smoothing` (not within [0, 0.5)),
    `reduction` (neither word), `shape` (the four shapes differ: nothing is broadcast), `empty` (no pair).

    >>> same = torch.tensor([-3.0, -1.5])
    >>> round(dpo_loss(same, same, same, same).item(), 4)
    0.6931

    Always: a policy equal to its reference scores ln 2, whatever beta is, and preferring the chosen answer costs less.

    >>> all(round(dpo_loss(same, same, same, same, beta=b).item(), 4) == 0.6931 for b in [0.01, 0.5, 3.0])
    True
    >>> bool(dpo_loss(same + 1, same - 1, same, same) < dpo_loss(same, same, same, same))
    True

    Always: a far margin costs beta times its size, or nothing; smoothing weighs the two.

    >>> far = torch.tensor([-10_000.0, 10_000.0])
    >>> dpo_loss(far, 0 * far, 0 * far, 0 * far, reduction="none").tolist()  # stab
    [1000.0, 0.0]
    >>> [round(loss) for loss in dpo_loss(far, 0 * far, 0 * far, 0 * far, 0.1, 0.2, "none").tolist()]  # smooth
    [800, 200]

    Always: the reference gets no gradient, and an invalid argument is refused by name.

    >>> wanting = torch.zeros(1, requires_grad=True)
    >>> dpo_loss(wanting, wanting, wanting.exp(), 0 * wanting).backward()  # ref
    >>> wanting.grad.tolist()  # ref
    [0.0]

    >>> dpo_loss(same, same, same, same, beta=0.0)  # err
    Traceback (most recent call last):
        ...
    ValueError: ...beta...
    """
    pc, pr, rc, rr = checked(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be within [0, 0.5), got {label_smoothing}")
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    rc, rr = rc.detach(), rr.detach()
    # The margin: by how much more than the reference the policy prefers the chosen answer.
    h = (pc - pr) - (rc - rr)
    scaled = beta * h
    # log(sigmoid(x)) is -inf from x = -104 on in float32; logsigmoid keeps x itself there.
    right, wrong = (-F.logsigmoid(x) for x in (scaled, -scaled))
    loss = (1 - label_smoothing) * right + label_smoothing * wrong
    return loss.mean() if reduction == "mean" else loss


def implicit_rewards(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    reference_chosen: torch.Tensor, reference_rejected: torch.Tensor,
    beta: float = 0.1,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return the implicit rewards (chosen, rejected) of each pair, for logging: cut off from the graph.

    Shapes and dtypes as in `dpo_loss`. The reward of an answer is beta times the log-ratio of policy and reference.

    Errors: ValueError naming `beta`, `shape` or `empty`, as in `dpo_loss`.

    >>> one = torch.tensor([-1.0])
    >>> [round(reward.item(), 2) for reward in implicit_rewards(one, one - 1, one - 2, one, beta=0.5)]
    [1.0, -0.5]

    Always: a policy equal to its reference earns nothing.

    >>> [reward.tolist() for reward in implicit_rewards(one, one - 1, one, one - 1)]
    [[0.0], [0.0]]
    """
    pc, pr, rc, rr = checked(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    chosen, rejected = beta * (pc - rc), beta * (pr - rr)
    return chosen.detach(), rejected.detach()


def dpo_grad(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    reference_chosen: torch.Tensor, reference_rejected: torch.Tensor,
    beta: float = 0.1,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return the gradient of the mean loss by `policy_chosen` and by `policy_rejected`, from the formula by hand.

    Shapes, margins and dtypes as in `dpo_loss`, without label smoothing; each gradient has the shape of its tensor. The
    inputs carry no graph and may be inference tensors, on which autograd refuses to work.

    Errors: ValueError naming `beta`, `shape` or `empty`, as in `dpo_loss`.

    >>> same = torch.tensor([-3.0, -1.5])
    >>> [[round(value, 4) for value in part.tolist()] for part in dpo_grad(same, same, same, same, beta=0.4)]
    [[-0.1, -0.1], [0.1, 0.1]]

    Always: what raises one answer lowers the other by as much.

    >>> up, down = dpo_grad(same, same - 2, same, same + 1)
    >>> bool(torch.equal(up, -down))
    True
    """
    pc, pr, rc, rr = checked(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    h = (pc - pr) - (rc - rr)
    # d/dh of -log(sigmoid(beta h)) is -beta sigmoid(-beta h): a pair that is ordered wrongly pulls hardest.
    by_chosen = -beta * torch.sigmoid(-beta * h) / h.numel()
    return by_chosen, -by_chosen


def checked(
    policy_chosen: torch.Tensor, policy_rejected: torch.Tensor,
    reference_chosen: torch.Tensor, reference_rejected: torch.Tensor,
    beta: float,
) -> list[torch.Tensor]:  # fmt: skip
    """Return the four in float32 at least, or raise ValueError for an invalid beta, unequal shapes or no pair."""
    # Written so that NaN, which is not greater than anything, is refused too.
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError(f"beta must be a positive finite number, got {beta}")
    four = (policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    shapes = {tuple(part.shape) for part in four}
    if len(shapes) != 1:
        raise ValueError(f"shape: the four tensors must have one common shape, got {sorted(shapes)}")
    if policy_chosen.numel() == 0:
        raise ValueError("empty: at least one pair is needed")
    return [at_least_float32(part) for part in four]


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Return half-precision numbers in float32, and others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
