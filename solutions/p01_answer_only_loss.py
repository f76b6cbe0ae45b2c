"""The loss of supervised fine-tuning on answers only: contracts and references.

Every function selects the target positions first and computes afterwards: what isn't selected can't leak.
"""

import torch
import torch.nn.functional as F


def answer_only_loss(
    logits: torch.Tensor, input_ids: torch.Tensor, answer_mask: torch.Tensor, reduction: str = "token_mean"
) -> torch.Tensor:
    """Return the cross-entropy of the answer tokens in nats, as a 0-d tensor that can be differentiated.

    `logits` is (batch, time, vocab), `input_ids` (int64) and `answer_mask` are (batch, time); no axis is empty. The
    mask is bool, int or float (of 16 bits too) with values 0 and 1; it marks the tokens that are learned. Column 0 has
    nothing before it and is never a target. `reduction` is "token_mean" (over all targets of the batch),
    "sequence_mean" (each row's token mean, averaged over the rows that have targets) or "sum". What stands at other
    positions (ids of -100 or beyond the vocabulary, logits that are NaN or infinite) changes neither the loss nor its
    gradient. At a target one logit or more is finite, and within ±10**6; one of -inf gives its token the probability 0,
    and such a target costs +inf. float64 stays float64; bfloat16 and float16 are computed in float32.

    Errors: ValueError naming `shape` (`input_ids` or `answer_mask` isn't (batch, time) as the logits are), `mask` (a
    value other than 0 and 1, in any column), `answer` (no target in the whole batch, whatever the reduction),
    `reduction` (any other text than the three).

    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [5.0, 0.0]]], dtype=torch.float64)
    >>> ids = torch.tensor([[0, 0, 1]])
    >>> round(answer_only_loss(logits, ids, torch.tensor([[0, 1, 1]])).item(), 4)
    0.5032
    >>> round(answer_only_loss(logits, ids, torch.tensor([[0, 1, 0]])).item(), 4)  # hand
    0.6931
    >>> two, both = torch.cat([logits, 3000 * logits]), torch.tensor([[1, 0, 1], [0, 1, 0]])
    >>> round(answer_only_loss(two, ids.repeat(2, 1), both, "sequence_mean").item(), 4)  # seq
    0.5032
    >>> round(answer_only_loss(3000 * logits, 0 * ids, torch.tensor([[0, 1, 1]])).item(), 4)  # stab
    1500.3466
    >>> leaf = logits.clone().requires_grad_()
    >>> answer_only_loss(leaf, ids, torch.tensor([[0, 1, 0]])).backward()  # diff
    >>> leaf.grad.tolist()  # diff
    [[[-0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]]
    >>> answer_only_loss(logits, ids, torch.tensor([[1, 0, 0]]))  # err
    Traceback (most recent call last):
    ValueError: ...

    Always: scores that are moved together at one position change nothing, and a loss is never negative.

    >>> mask = torch.tensor([[0, 1, 1]])
    >>> bool(torch.isclose(answer_only_loss(logits + 7.0, ids, mask), answer_only_loss(logits, ids, mask)))
    True
    >>> bool(answer_only_loss(logits, ids, mask, reduction="sum") >= 0)
    True
    """
    if reduction not in ("token_mean", "sequence_mean", "sum"):
        raise ValueError(f"reduction must be 'token_mean', 'sequence_mean' or 'sum', got {reduction!r}")
    target = targets(logits, input_ids, answer_mask)
    scores, tokens = wide(logits[:, :-1][target]), input_ids[:, 1:][target].long()
    nll = F.cross_entropy(scores, tokens, reduction="none")
    if reduction == "sum":
        return nll.sum()
    if reduction == "token_mean":
        return nll.mean()
    row = target.nonzero()[:, 0]
    sums = torch.zeros(len(target), dtype=nll.dtype, device=nll.device).index_add(0, row, nll)
    counts = target.sum(1)
    return (sums[counts > 0] / counts[counts > 0]).mean()


def answer_only_grad(logits: torch.Tensor, input_ids: torch.Tensor, answer_mask: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the token mean with respect to the logits.

    Arguments and errors as in `answer_only_loss`. Large logits and half precision are as in the loss. The result is
    (batch, time, vocab), 0 wherever a logit has no influence. The logits want no gradient and may be inference tensors,
    on which autograd refuses to work; the result carries no graph.

    >>> answer_only_grad(torch.zeros(1, 2, 4), torch.tensor([[0, 3]]), torch.tensor([[0, 1]])).tolist()
    [[[0.25, 0.25, 0.25, -0.75], [0.0, 0.0, 0.0, 0.0]]]
    >>> large = torch.tensor([[[0.0, 3000.0], [3000.0, 0.0]]])
    >>> answer_only_grad(large, torch.tensor([[0, 0]]), torch.tensor([[0, 1]])).tolist()
    [[[-1.0, 1.0], [0.0, 0.0]]]

    Always: raising all logits of a position together does nothing, so each position's gradient adds up to 0.

    >>> parts = answer_only_grad(torch.arange(24.0).reshape(2, 3, 4), torch.ones(2, 3).long(), torch.ones(2, 3))
    >>> bool(parts.sum(-1).abs().max() < 1e-6)
    True
    """
    target = targets(logits, input_ids, answer_mask)
    probabilities = wide(logits[:, :-1][target]).softmax(-1)
    onehot = F.one_hot(input_ids[:, 1:][target].long(), logits.shape[-1])
    grad = torch.zeros(logits.shape, dtype=probabilities.dtype, device=logits.device)
    # The token at t + 1 is predicted by the logits at t: that is where its gradient stands.
    grad[:, :-1][target] = (probabilities - onehot) / target.sum()
    return grad


def accumulation_weights(token_counts: list[int]) -> list[float]:
    """Return the weight of each micro-batch's token mean, so that their weighted sum is the whole batch's token mean.

    `token_counts` holds the number of targets of each micro-batch, up to 10**12, as Python's integers or NumPy's int64;
    one without targets gets the weight 0.

    Errors: ValueError naming `count` if the list is empty, all of it is 0, or a number is negative.

    >>> accumulation_weights([3, 1])
    [0.75, 0.25]
    >>> accumulation_weights([3, -1])
    Traceback (most recent call last):
    ValueError: ...

    Always: the weights add up to 1.

    >>> abs(sum(accumulation_weights([5, 0, 7, 11])) - 1.0) < 1e-12
    True
    """
    if any(count < 0 for count in token_counts):
        raise ValueError(f"count: a number of targets can't be negative, got {token_counts}")
    total = sum(token_counts)
    if total == 0:
        raise ValueError(f"count: at least one micro-batch must have targets, got {token_counts}")
    return [float(count / total) for count in token_counts]


def targets(logits: torch.Tensor, input_ids: torch.Tensor, answer_mask: torch.Tensor) -> torch.Tensor:
    """Return which positions' next tokens are learned, (batch, time - 1) bool. Raises ValueError for invalid input."""
    if input_ids.shape != logits.shape[:2] or answer_mask.shape != logits.shape[:2]:
        raise ValueError(
            "shape: logits must be (batch, time, vocab), input_ids and answer_mask (batch, time); "
            f"got {tuple(logits.shape)}, {tuple(input_ids.shape)}, {tuple(answer_mask.shape)}"
        )
    if not bool(((answer_mask == 0) | (answer_mask == 1)).all()):
        raise ValueError("mask: answer_mask must hold 0 and 1 only")
    target = answer_mask[:, 1:] == 1
    if not bool(target.any()):
        raise ValueError("answer: no row has a token to learn (column 0 is never one)")
    return target


def wide(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in float32 at least."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
