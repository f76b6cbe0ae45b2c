"""Which tokens are learned: shifting, answer-only losses and log-probabilities, packing, mixtures of data."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class LanguageModel(Protocol):
    """What the losses need of a model: the vectors that its head reads (batch, time, d_model), and the head."""

    @property
    def head(self) -> Any: ...

    def hidden(self, ids: Tensor) -> Tensor: ...


def shifted(logits: Tensor, ids: Tensor, answer_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (batch, time - 1, vocab), the ids that they predict and the mask of these, (batch, time - 1).

    logits[:, t] predict the token at t + 1; column 0 is never a target.

    Errors: ValueError naming the shape that doesn't fit.
    """
    if ids.shape != logits.shape[:-1] or answer_mask.shape != ids.shape:
        shapes = tuple(logits.shape), tuple(ids.shape), tuple(answer_mask.shape)
        raise ValueError(f"logits must be (batch, time, vocab), ids and answer_mask (batch, time); got {shapes}")
    return logits[:, :-1], ids[:, 1:], answer_mask[:, 1:] != 0


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return log p(ids[t] | logits[t]) in nats for logits and ids that already stand over each other.

    bfloat16 and float16 are computed in float32.

    >>> logits = torch.tensor([[0.7, 0.2, 0.1]]).log()
    >>> round(token_logprobs(logits, torch.tensor([1])).exp().item(), 4)
    0.2
    """
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return wide.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - wide.logsumexp(-1)


def answer_only_loss(logits: Tensor, ids: Tensor, answer_mask: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean negative log-likelihood of the answer tokens of a batch, in nats.

    With `label_smoothing` e the target is 1 - e on the token and e spread over the whole vocabulary
    (arXiv:1512.00567, section 7).

    >>> logits = torch.zeros(1, 3, 4)
    >>> round(answer_only_loss(logits, torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])).item(), 4)
    1.3863

    Errors: ValueError if nothing is a target.
    """
    scores, targets, chosen = shifted(logits, ids, answer_mask)
    if not bool(chosen.any()):
        raise ValueError("answer_mask must mark at least one token after the first of a row, and marks none")
    # Selected before anything is computed: a NaN in padding would survive a multiplication by 0.
    scores, targets = scores[chosen], targets[chosen]
    wide = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    return F.cross_entropy(wide, targets, label_smoothing=label_smoothing)


def sequence_logprob(logits: Tensor, ids: Tensor, answer_mask: Tensor) -> Tensor:
    """Return log p(answer | prompt) of each row (batch,): the sum over its answer tokens, in nats.

    >>> logits = torch.zeros(1, 3, 4)
    >>> round(sequence_logprob(logits, torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 1]])).item(), 4)
    -2.7726
    """
    scores, targets, chosen = shifted(logits, ids, answer_mask)
    found = token_logprobs(scores[chosen], targets[chosen])
    rows = chosen.nonzero()[:, 0]
    return torch.zeros(len(ids), dtype=found.dtype, device=found.device).index_add(0, rows, found)


def answer_token_logprobs(model: LanguageModel, ids: Tensor, answer_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p of each answer token, in nats, and its row: two tensors (answers,).

    Only positions whose next token is an answer's are projected to the vocabulary: of a large one that is most of the
    work. Rows are padded on the right; causal attention keeps padding from every real token.
    """
    chosen = answer_mask[:, 1:] != 0
    logits = model.head(model.hidden(ids)[:, :-1][chosen])
    return token_logprobs(logits, ids[:, 1:][chosen]), chosen.nonzero()[:, 0]


def model_loss(model: LanguageModel, ids: Tensor, answer_mask: Tensor) -> Tensor:
    """Return `answer_only_loss` of a model, without the logits that it doesn't read.

    >>> from ftmath.model import Config, Decoder
    >>> model = Decoder(Config(layers=1)).requires_grad_(False)
    >>> ids, answer = torch.tensor([[1, 70, 2, 71, 3]]), torch.tensor([[0, 0, 0, 1, 1]])
    >>> torch.allclose(model_loss(model, ids, answer), answer_only_loss(model(ids), ids, answer))
    True

    Errors: ValueError if nothing is a target.
    """
    found, _ = answer_token_logprobs(model, ids, answer_mask)
    if not len(found):
        raise ValueError("answer_mask must mark at least one token after the first of a row, and marks none")
    return -found.mean()


def model_logprob(model: LanguageModel, ids: Tensor, answer_mask: Tensor) -> Tensor:
    """Return `sequence_logprob` (batch,) of a model, without the logits that it doesn't read.

    >>> from ftmath.model import Config, Decoder
    >>> model = Decoder(Config(layers=1)).requires_grad_(False)
    >>> ids, answer = torch.tensor([[1, 70, 2, 71, 3]]), torch.tensor([[0, 0, 0, 1, 1]])
    >>> torch.allclose(model_logprob(model, ids, answer), sequence_logprob(model(ids), ids, answer))
    True
    """
    found, rows = answer_token_logprobs(model, ids, answer_mask)
    return torch.zeros(len(ids), dtype=found.dtype, device=found.device).index_add(0, rows, found)


def labels_of(ids: Tensor, answer_mask: Tensor) -> Tensor:
    """Return labels (batch, time), not shifted: the id where the token is a target, else -100.

    >>> labels_of(torch.tensor([[5, 6, 7]]), torch.tensor([[0, 0, 1]])).tolist()
    [[-100, -100, 7]]
    """
    return ids.where(answer_mask != 0, -100)


def block_causal(lengths: Sequence[int]) -> Tensor:
    """Return which pairs (query, key) of packed documents may be used: (time, time), True where allowed.

    >>> int(block_causal([3, 2]).sum())
    9
    """
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(list(lengths)))
    order = torch.arange(len(document))
    return (document[:, None] == document[None, :]) & (order[None, :] <= order[:, None])


def mixture_weights(sizes: Sequence[int], temperature: float = 1.0) -> list[float]:
    """Return the share of each data set when it's drawn in proportion to size ** (1 / temperature).

    At temperature 1 every example is as likely; a higher one favours small sets, and without end all are drawn alike.

    >>> [round(share, 3) for share in mixture_weights([900, 100], temperature=2)]
    [0.75, 0.25]

    Errors: ValueError for a size below 1 or a temperature that isn't positive.
    """
    if min(sizes, default=0) < 1 or not temperature > 0:
        raise ValueError(f"sizes must be at least 1 and temperature positive, got {list(sizes)} and {temperature}")
    powers = [size ** (1 / temperature) for size in sizes]
    return [power / sum(powers) for power in powers]


__all__ = [
    "LanguageModel", "answer_only_loss", "answer_token_logprobs", "block_causal", "labels_of", "mixture_weights",
    "model_logprob", "model_loss", "sequence_logprob", "shifted", "token_logprobs",
]  # fmt: skip
