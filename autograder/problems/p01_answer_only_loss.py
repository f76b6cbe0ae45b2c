"""How the answer-only loss is judged.

The function for the loss is used by six checks. `value` and `hand` compare its numbers with the reference's; `seq`,
`stab` and `diff` compare the student's own answers with one another, on inputs that every shift can read.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ftgrade.judging.problem import (
    AnyCase,
    Call,
    Case,
    Close,
    Difference,
    Problem,
    Question,
    Refusal,
    Relation,
    Rng,
    Value,
    call,
    finite,
    number,
)

problem = Problem(part="02_supervised_objective", difficulty=2, importance=5, minutes=60)

Tensor = torch.Tensor
Batch = tuple[Tensor, Tensor, Tensor]


def batch(rng: Rng) -> Batch:
    """Return logits, ids and a mask: unequal answers, a gap, padding, a 1 in column 0, a row without targets."""
    rows, time, vocab = 4, int(rng.integers(8, 11)), int(rng.integers(11, 23))
    logits = torch.from_numpy(rng.normal(scale=2.0, size=(rows, time, vocab)))
    ids = torch.from_numpy(rng.integers(0, vocab, size=(rows, time)))
    mask = torch.zeros(rows, time, dtype=torch.bool)
    mask[0, 2:4] = True
    mask[1, 2 : time - 1] = True
    mask[1, 4] = False
    mask[2, 0] = True
    mask[2, time - 3] = True
    mask[3, 0] = True
    return logits, ids, mask


def target_of(mask: Tensor) -> Tensor:
    """Return the mask without column 0."""
    return torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], dim=1)


def far_from_answers(mask: Tensor) -> Tensor:
    """Return the positions that no answer is within two steps of: nobody reads them, however they shift."""
    near = mask.clone()
    for step in (1, 2):
        near[:, step:] |= mask[:, :-step]
        near[:, :-step] |= mask[:, step:]
    return ~near


# ------------------------------------------------------------------------------------------------------------ checks


@problem.check(
    "value", points=2, of="answer_only_loss", title="the token mean and the sum",
    concerns=["unequal lengths", "a 1 in column 0", "-100 and NaN outside the answer", "masks of any dtype"],
    next_step="Take a batch of one row and four tokens, and write each token under the logits that predict it.",
)  # fmt: skip
def value(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = batch(rng)
    yield Case("answers of unequal length", call("answer_only_loss", logits, ids, mask), pure=True)
    yield Case("the sum over targets", call("answer_only_loss", logits, ids, mask.long(), reduction="sum"))
    wide = torch.from_numpy(rng.normal(size=(*ids.shape, 120)))
    marked = ids.where(target_of(mask), -100)
    yield Case("ids of -100 outside the answer", call("answer_only_loss", wide, marked, mask.double()), pure=True)
    broken = logits.clone()
    broken[far_from_answers(mask)] = math.nan
    broken[:, -1] = math.inf
    yield Case("NaN and infinite logits that predict no target", call("answer_only_loss", broken, ids, mask))
    ruled_out = logits.clone()
    vocab = logits.shape[-1]
    ruled_out[..., vocab - 1] = -math.inf
    yield Case("one entry of the vocabulary ruled out", call("answer_only_loss", ruled_out, ids % (vocab - 1), mask))


@problem.check(
    "hand", points=1, of="answer_only_loss", title="a row worked by hand", same=Close(rtol=1e-6),
    concerns=["probabilities that are known"],
    next_step="Add up the negative logarithms of the answer's probabilities, and divide by their number.",
)  # fmt: skip
def hand(rng: Rng) -> Iterator[AnyCase]:
    p = torch.from_numpy(rng.choice([0.05, 0.1, 0.2, 0.25, 0.4, 0.8, 0.9], size=6, replace=False))
    ids = torch.from_numpy(rng.integers(0, 2, size=7))
    mask = torch.tensor([0, 0, 0, 1, 1, 0, 1])
    mask[5 - int(rng.integers(0, 2)) * 3] = 1
    logits = torch.zeros(7, 2, dtype=torch.float64)
    logits[torch.arange(6), ids[1:]] = p.log()
    logits[torch.arange(6), 1 - ids[1:]] = (1 - p).log()
    yield Case("six probabilities and a mask", call("answer_only_loss", logits[None], ids[None], mask[None]))


def mean_of_rows(whole: Value, *rows: Value) -> Difference | None:
    wanted = sum(number(row) for row in rows) / len(rows)
    if len({number(row) for row in rows}) == 1:
        return Difference("rows that differ all give the same loss")
    if abs(number(whole) - wanted) <= 1e-8 * max(1.0, abs(wanted)):
        return None
    return Difference("the sequence mean isn't the mean of your own token means of the rows that have targets")


@problem.check(
    "seq", points=1, of="answer_only_loss", title="the sequence mean, against your own rows",
    concerns=["rows of unequal weight", "a row without targets"],
    next_step="Average within each row first; then over the rows that have something to average.",
)  # fmt: skip
def seq(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = batch(rng)
    mask[:, 0] = False
    full = [row for row in range(len(mask)) if bool(mask[row].any())]
    rows = [call("answer_only_loss", logits[[row]], ids[[row]], mask[[row]]) for row in full]
    for words, keep in (("rows of unequal length", full), ("a row without targets", [*full, 3])):
        whole = call("answer_only_loss", logits[keep], ids[keep], mask[keep], "sequence_mean")
        yield Relation(words, (whole, *rows), mean_of_rows)


@problem.check(
    "err", points=1, of="answer_only_loss", title="invalid input",
    concerns=["shapes", "mask values", "no target at all", "reductions", "token counts"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = batch(rng)
    yield Refusal("a mask of another length", call("answer_only_loss", logits, ids, mask[:, 1:]), "shape")
    yield Refusal("ids of another length", call("answer_only_loss", logits, ids[:, 1:], mask), "shape")
    yield Refusal(
        "a mask of another length, for the gradient", call("answer_only_grad", logits, ids, mask[1:]), "shape"
    )
    twos = mask.long()
    twos[0, 3] = 2
    yield Refusal("a mask with a 2", call("answer_only_loss", logits, ids, twos), "mask")
    yield Refusal("a mask with a half", call("answer_only_grad", logits, ids, mask * 0.5), "mask")
    yield Refusal("a mask of zeros", call("answer_only_loss", logits, ids, mask & False), "answer")
    yield Refusal(
        "a mask of zeros, as a sequence mean",
        call("answer_only_loss", logits, ids, mask & False, "sequence_mean"),
        "answer",
    )
    yield Refusal("an unknown reduction", call("answer_only_loss", logits, ids, mask, reduction="mean"), "reduction")
    yield Refusal("a negative count", call("accumulation_weights", [int(rng.integers(3, 9)), -1]), "count")
    yield Refusal("no micro-batches", call("accumulation_weights", []), "count")
    yield Refusal("micro-batches without targets", call("accumulation_weights", [0, 0]), "count")


def close_by(tolerance: float, words: str) -> Callable[[Value, Value], Difference | None]:
    def holds(one: Value, other: Value) -> Difference | None:
        bad = finite(one) or finite(other)
        if bad:
            return bad
        gap = abs(number(one) - number(other))
        return None if gap <= tolerance * max(1.0, abs(number(other))) else Difference(words)

    return holds


def close_ratio(ratio: float, words: str) -> Callable[[Value, Value], Difference | None]:
    def holds(one: Value, other: Value) -> Difference | None:
        bad = finite(one) or finite(other)
        if bad:
            return bad
        if number(other) == 0.0:
            return Difference("wrong answers cost nothing")
        # log-sum-exp is its largest term up to ln V, which is a thousandth of these losses.
        return None if abs(number(one) - ratio * number(other)) <= 0.02 * abs(number(one)) else Difference(words)

    return holds


@problem.check(
    "stab", points=2, of="answer_only_loss", title="large logits and half precision",
    concerns=["logits of size 3,000 in float32", "bf16 logits"],
    next_step="Find a function of torch that computes log(softmax(x)) without computing the softmax first.",
)  # fmt: skip
def stab(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = batch(rng)
    large = (logits * 1_500).float()
    agree = close_by(1e-4, "large logits in float32 give another loss than the same logits in float64")
    yield Relation("logits of size 3,000", (loss(large, ids, mask), loss(large.double(), ids, mask)), agree)
    twice = close_ratio(2.0, "twice the logits should cost about twice as much: large losses are held back")
    yield Relation("logits twice as large", (loss(2 * large, ids, mask), loss(large, ids, mask)), twice)
    moved = logits.float() + 300.0
    agree = close_by(1e-4, "logits that are all moved by the same number give another loss")
    yield Relation("logits moved by 300", (loss(moved, ids, mask), loss(moved - 300.0, ids, mask)), agree)
    half = logits.bfloat16()
    agree = close_by(1e-5, "half-precision logits give another loss than the same logits in float32")
    yield Relation("logits in bfloat16", (loss(half, ids, mask), loss(half.float(), ids, mask)), agree)


def loss(logits: Tensor, ids: Tensor, mask: Tensor, backward: bool = False) -> Call:
    return call("answer_only_loss", logits, ids, mask, backward=backward)


def slope(direction: Tensor, step: float) -> Callable[[Value, Value, Value], Difference | None]:
    """Hold the gradient along a direction to be the slope of the student's own loss."""

    def holds(here: Value, ahead: Value, behind: Value) -> Difference | None:
        gradient = here.gradients[0] if here.gradients else None
        if gradient is None:
            return Difference("the loss can't be differentiated: the graph was cut")
        measured = (number(ahead) - number(behind)) / (2 * step)
        computed = float((gradient.double() * direction).sum())
        if abs(measured - computed) <= 1e-5 * max(1.0, abs(measured)):
            return None
        return Difference("the gradient isn't the slope of your own loss")

    return holds


def clean_gradient(outcome: Value) -> Difference | None:
    gradient = outcome.gradients[0] if outcome.gradients else None
    if gradient is None:
        return Difference("the loss can't be differentiated: the graph was cut")
    if not bool(torch.isfinite(gradient).all()):
        return Difference("a NaN that no target reads got into the gradient")
    return None


@problem.check(
    "diff", points=1, of="answer_only_loss", title="autograd goes through",
    concerns=["the slope of your own loss", "NaN logits far from any answer"],
    next_step="Keep to torch from the logits to the result, and select instead of multiplying by the mask.",
)  # fmt: skip
def diff(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = batch(rng)
    direction, step = torch.from_numpy(rng.normal(size=logits.shape)), 1e-4
    ahead, behind = loss(logits + step * direction, ids, mask), loss(logits - step * direction, ids, mask)
    here = loss(logits.clone().requires_grad_(), ids, mask, backward=True)
    yield Relation("a step in a random direction", (here, ahead, behind), slope(direction, step))
    broken = logits.clone()
    broken[far_from_answers(mask)] = math.nan
    yield Relation("NaN logits far from any answer", (loss(broken.requires_grad_(), ids, mask, True),), clean_gradient)


def without_graph(expected: Any, got: Any) -> Difference | None:
    if torch.is_tensor(got) and got.requires_grad and not expected.requires_grad:
        return Difference("the result still hangs on a graph")
    return Close()(expected, got)


@problem.check(
    "grad", points=1.5, of="answer_only_grad", title="the gradient by hand", same=without_graph,
    concerns=["where it stands", "what it's divided by", "-100 and NaN outside the answer"],
    next_step="Differentiate -log softmax of one position first; then place it, mask it and divide.",
)  # fmt: skip
def grad(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = batch(rng)
    # Inference tensors: autograd would have to be tricked by copies, which is more work than the formula.
    with torch.inference_mode():
        plain, marked = logits.clone(), ids.where(target_of(mask), -100)
        broken = logits.clone()
        broken[far_from_answers(mask)] = math.nan
    yield Case("answers of unequal length", call("answer_only_grad", plain, ids, mask), pure=True)
    yield Case("-100 and NaN outside the answer", call("answer_only_grad", broken, marked, mask.double()))


@problem.check(
    "acc", points=0.5, of="accumulation_weights", title="weights of micro-batches",
    concerns=["unequal counts", "a micro-batch without targets"],
    next_step="Write the whole batch's token mean as a sum over micro-batches.",
)  # fmt: skip
def acc(rng: Rng) -> Iterator[AnyCase]:
    counts = [int(count) for count in rng.integers(1, 60, size=4)]
    yield Case("unequal counts", call("accumulation_weights", counts), pure=True)
    yield Case("a micro-batch without targets", call("accumulation_weights", [counts[0], 0, counts[1]]))


@problem.personal(title="the loss of your row", next_step="Take the logarithms of the answer's probabilities alone.")
def mine(rng: Rng) -> Question:
    p = [float(value) for value in rng.choice(np.arange(1, 20), size=6, replace=False) / 20]
    mask = [0, 0, *(int(bit) for bit in rng.permutation([1, 1, 0])), 1]
    both = torch.tensor([[value, 1 - value] for value in [*p, 0.5]], dtype=torch.float64)
    words = (
        f"After the first token, the model gives the six tokens of a row the probabilities {listed(p)}. "
        f"The answer mask of these six is {listed(mask)}. What is the token-mean loss in nats?"
    )
    row = (both.log()[None], torch.zeros(1, 7, dtype=torch.int64), torch.tensor([[0, *mask]]))
    return Question(words, call("answer_only_loss", *row))


def listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


# ---------------------------------------------------------------------------------------------------------- mistakes
#
# Each stands in for one function; the helpers keep the rest of the contract: a mistake is wrong in one way only.

Aligned = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
WholeLoss = Callable[[Tensor, Tensor, Tensor, str], Tensor]
Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]
REDUCTIONS = ("token_mean", "sequence_mean", "sum")


def demand(logits: Tensor, ids: Tensor, mask: Tensor, reduction: str = "sum") -> None:
    if reduction not in REDUCTIONS:
        raise ValueError("reduction unknown")
    if ids.shape != logits.shape[:2] or mask.shape != logits.shape[:2]:
        raise ValueError("shape")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("mask must hold 0 and 1")
    if not bool(mask[:, 1:].any()):
        raise ValueError("answer: nothing to learn")


def single(values: Tensor) -> Tensor:
    return values.float() if values.dtype == torch.bfloat16 else values


def nll_of(logits: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return each position's loss where the mask is true and 0 elsewhere, with the mask; all three are aligned."""
    clean = torch.where(mask.unsqueeze(-1), logits, torch.zeros_like(logits))
    inside = ids.where(mask, 0).clamp(0, logits.shape[-1] - 1)
    nll = -clean.log_softmax(-1).gather(-1, inside.unsqueeze(-1)).squeeze(-1)
    return torch.where(mask, nll, torch.zeros_like(nll)), mask


def shifted(logits: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return nll_of(logits[:, :-1], ids[:, 1:], mask[:, 1:])


def reduce(nll: Tensor, mask: Tensor, reduction: str) -> Tensor:
    if reduction == "sum":
        return nll.sum()
    if reduction == "token_mean":
        return nll.sum() / mask.sum()
    counts = mask.sum(1)
    return (nll.sum(1)[counts > 0] / counts[counts > 0]).mean()


def whole_mistake(name: str, function: WholeLoss, says: str, next_step: str) -> None:
    """Register a wrong loss; it takes float32 logits at least, ids, the mask as bool, and the reduction."""

    def replacement(logits: Tensor, input_ids: Tensor, answer_mask: Tensor, reduction: str = "token_mean") -> Tensor:
        demand(logits, input_ids, answer_mask, reduction)
        return function(single(logits), input_ids, answer_mask != 0, reduction)

    replacement.__name__ = name
    problem.mistake(replaces="answer_only_loss", says=says, next_step=next_step)(replacement)


def aligned_mistake(name: str, align: Aligned, says: str, next_step: str) -> None:
    """Register a loss that selects or compares the wrong things and reduces them rightly."""
    whole_mistake(name, lambda z, ids, m, how: reduce(*align(z, ids, m), how), says, next_step)


def by_rows(mean: Callable[[Tensor], Tensor], nll: Tensor, target: Tensor, how: str) -> Tensor:
    """Return some mean of the batch's losses, or of each row's."""
    if how == "sum":
        return nll.sum()
    rows = [mean(nll[row][target[row]]) for row in range(len(nll)) if bool(target[row].any())]
    return torch.stack(rows).mean() if how == "sequence_mean" else mean(nll[target])


def token_mean_mistake(name: str, mean: Callable[[Tensor, Tensor, Tensor], Tensor], says: str, next_step: str) -> None:
    """Register a loss whose token mean alone is wrong; it takes the losses, the targets and the unshifted mask."""

    def function(logits: Tensor, ids: Tensor, mask: Tensor, how: str) -> Tensor:
        nll, target = shifted(logits, ids, mask)
        return mean(nll, target, mask) if how == "token_mean" else reduce(nll, target, how)

    whole_mistake(name, function, says, next_step)


SHIFT = "The logits at t predict the token at t + 1: write both under each other for four tokens."
COUNT = "Divide by the number of targets that you summed over."

aligned_mistake(
    "no_shift", nll_of, "Your logits are compared with the token at their own position.", SHIFT,
)  # fmt: skip
aligned_mistake(
    "shifted_twice", lambda z, ids, m: nll_of(z[:, :-2], ids[:, 2:], m[:, 2:]),
    "Your logits are compared with the token after the next one: the shift is made twice.", SHIFT,
)  # fmt: skip
aligned_mistake(
    "mask_not_shifted", lambda z, ids, m: nll_of(z[:, :-1], ids[:, 1:], m[:, :-1]),
    "Your ids are shifted and your mask isn't.", "The mask marks tokens: shift it with the ids.",
)  # fmt: skip
aligned_mistake(
    "shifted_backwards", lambda z, ids, m: nll_of(z[:, 1:], ids[:, :-1], m[:, :-1]),
    "Your shift goes the other way: the logits are compared with the token before them.", SHIFT,
)  # fmt: skip
aligned_mistake(
    "full_loss_ignores_mask", lambda z, ids, m: nll_of(z[:, :-1], ids[:, 1:], torch.ones_like(m[:, 1:])),
    "Your loss is taken over all tokens: the mask isn't used.", "Prompt and padding aren't learned.",
)  # fmt: skip
aligned_mistake(
    "mask_inverted", lambda z, ids, m: nll_of(z[:, :-1], ids[:, 1:], ~m[:, 1:]),
    "Your loss is taken over what the mask leaves out.", "1 marks a token that is learned.",
)  # fmt: skip


def first_dropped(mask: Tensor) -> Tensor:
    return torch.cat([mask[:, :1], mask[:, 1:] & (mask[:, 1:].cumsum(1) > 1)], 1)


def last_dropped(mask: Tensor) -> Tensor:
    rest = mask[:, 1:]
    return torch.cat([mask[:, :1], rest & (rest.flip(1).cumsum(1).flip(1) > 1)], 1)


def one_before(mask: Tensor) -> Tensor:
    return mask | torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)


aligned_mistake(
    "first_token_dropped", lambda z, ids, m: shifted(z, ids, first_dropped(m)),
    "Your loss leaves out each answer's first token.", "The last prompt position predicts it.",
)  # fmt: skip
aligned_mistake(
    "last_token_dropped", lambda z, ids, m: shifted(z, ids, last_dropped(m)),
    "Your loss leaves out each answer's last token: the model never learns to stop.",
    "The end-of-sequence token belongs to the answer, also where padding has the same id.",
)  # fmt: skip
aligned_mistake(
    "last_prompt_token_trained", lambda z, ids, m: shifted(z, ids, one_before(m)),
    "Your loss takes in the token before each answer.", "Where does the mask begin?",
)  # fmt: skip
aligned_mistake(
    "softmax_over_time", lambda z, ids, m: (
        torch.where(
            m[:, 1:], -z[:, :-1].nan_to_num(0.0, 0.0, -1e4).log_softmax(1)
            .gather(-1, ids[:, 1:].where(m[:, 1:], 0).unsqueeze(-1)).squeeze(-1), 0.0,
        ), m[:, 1:],
    ),
    "Your softmax runs over time.", "Probabilities add up to 1 over the vocabulary, the last axis.",
)  # fmt: skip
aligned_mistake(
    "bits", lambda z, ids, m: (shifted(z, ids, m)[0] / math.log(2), m[:, 1:]),
    "Your loss is in bits.", "Use the natural logarithm.",
)  # fmt: skip
aligned_mistake(
    "zeroed_logits_add_ln_v", lambda z, ids, m: (
        -torch.where(m[:, 1:].unsqueeze(-1), z[:, :-1], 0.0).log_softmax(-1)
        .gather(-1, ids[:, 1:].where(m[:, 1:], 0).unsqueeze(-1)).squeeze(-1), m[:, 1:],
    ),
    "Your masked positions have zeroed logits and still count: each adds the logarithm of the vocabulary's size.",
    "Mask the losses, not the logits.",
)  # fmt: skip


def by_probability(log: Callable[[Tensor], Tensor]) -> Aligned:
    def align(logits: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        target = mask[:, 1:]
        clean = torch.where(target.unsqueeze(-1), logits[:, :-1], torch.zeros_like(logits[:, :-1]))
        p = clean.softmax(-1).gather(-1, ids[:, 1:].where(target, 0).unsqueeze(-1)).squeeze(-1)
        return torch.where(target, -log(p), torch.zeros_like(p)), target

    return align


def overflowing(logits: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    target = mask[:, 1:]
    clean = torch.where(target.unsqueeze(-1), logits[:, :-1], torch.zeros_like(logits[:, :-1]))
    score = clean.gather(-1, ids[:, 1:].where(target, 0).unsqueeze(-1)).squeeze(-1)
    return torch.where(target, clean.exp().sum(-1).log() - score, torch.zeros_like(score)), target


aligned_mistake(
    "naive_log_of_softmax", by_probability(torch.log),
    "Your loss computes the softmax first: for large logits it's 0, and its logarithm infinite.",
    "torch has the logarithm of the softmax as one function.",
)  # fmt: skip
aligned_mistake(
    "naive_exp_overflow", overflowing,
    "Your loss exponentiates the logits as they are: e to the 3,000 is infinite.",
    "Subtract the largest logit first, or let torch.logsumexp do it.",
)  # fmt: skip
aligned_mistake(
    "epsilon_in_log", by_probability(lambda p: torch.log(p + 1e-6)),
    "Your logarithm has a small number added inside: it hides large losses and moves small ones.",
    "The logarithm of the softmax needs no guard.",
)  # fmt: skip
aligned_mistake(
    "clipped_probability", by_probability(lambda p: torch.log(p.clamp(min=1e-8))),
    "Your probabilities are kept away from 0: a token that the model rules out costs no more than an unlikely one.",
    "The logarithm of the softmax needs no clipping.",
)  # fmt: skip
token_mean_mistake(
    "mean_over_all_positions", lambda nll, target, mask: nll.mean(),
    "Your sum is divided by the number of all positions.", COUNT,
)  # fmt: skip
token_mean_mistake(
    "divide_by_unshifted_mask", lambda nll, target, mask: nll.sum() / mask.sum(),
    "Your sum is divided by the mask's total before the shift: a 1 in column 0 is counted and is no target.", COUNT,
)  # fmt: skip
token_mean_mistake(
    "divide_by_rows", lambda nll, target, mask: nll.sum() / len(nll),
    "Your sum is divided by the number of rows.", COUNT,
)  # fmt: skip
token_mean_mistake(
    "sum_as_default", lambda nll, target, mask: nll.sum(), "Your token mean is a sum.", COUNT,
)  # fmt: skip
token_mean_mistake(
    "sequence_mean_as_default", lambda nll, target, mask: reduce(nll, target, "sequence_mean"),
    "Your token mean is a mean of the rows' means: short answers weigh too much.",
    "Sum over the whole batch, divide once.",
)  # fmt: skip
token_mean_mistake(
    "divide_by_one_more", lambda nll, target, mask: nll.sum() / (target.sum() + 1),
    "Your denominator is one too large.", "Refuse a batch without targets instead of guarding the division.",
)  # fmt: skip
whole_mistake(
    "perplexity", lambda z, ids, m, how: by_rows(lambda nll: nll.mean().exp(), *shifted(z, ids, m), how),
    "Your result is the perplexity.", "Return its logarithm, the mean loss.",
)  # fmt: skip
whole_mistake(
    "log_of_mean_probability",
    lambda z, ids, m, how: by_rows(lambda nll: -(-nll).exp().mean().log(), *shifted(z, ids, m), how),
    "Your loss is the logarithm of the mean probability.", "Take the logarithm of each token first.",
)  # fmt: skip
token_mean_mistake(
    "negative_loss", lambda nll, target, mask: -nll.sum() / target.sum(),
    "Your loss is the log-likelihood: the minus is missing.", "A loss falls when the model gets better.",
)  # fmt: skip


def counts_empty_rows(logits: Tensor, ids: Tensor, mask: Tensor, how: str) -> Tensor:
    nll, target = shifted(logits, ids, mask)
    return (nll.sum(1) / target.sum(1).clamp(min=1)).mean() if how == "sequence_mean" else reduce(nll, target, how)


def token_mean_always(logits: Tensor, ids: Tensor, mask: Tensor, how: str) -> Tensor:
    nll, target = shifted(logits, ids, mask)
    return reduce(nll, target, "sum" if how == "sum" else "token_mean")


def cut_off(logits: Tensor, ids: Tensor, mask: Tensor, how: str) -> Tensor:
    return reduce(*shifted(logits, ids, mask), how).detach()


def multiplies(logits: Tensor, ids: Tensor, mask: Tensor, how: str) -> Tensor:
    target = mask[:, 1:]
    picked = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:].clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return reduce(-picked * target, target, how)


def takes_minus_100(logits: Tensor, ids: Tensor, mask: Tensor, how: str) -> Tensor:
    target = mask[:, 1:]
    picked = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    return reduce(torch.where(target, -picked, 0.0), target, how)


whole_mistake(
    "sequence_mean_counts_empty_rows", counts_empty_rows,
    "Your sequence mean counts rows without targets as losses of 0.", "Average over the rows that have targets.",
)  # fmt: skip
whole_mistake(
    "sequence_mean_ignored", token_mean_always,
    "Your sequence mean is the token mean.", "Average within each row first.",
)  # fmt: skip
whole_mistake(
    "flatten_then_shift", lambda z, ids, m, how: reduce(
        *nll_of(z.reshape(1, -1, z.shape[-1])[:, :-1], ids.reshape(1, -1)[:, 1:], m.reshape(1, -1)[:, 1:]), how
    ),
    "Your batch is flattened before the shift: each row's last logits predict the next row's first token.",
    "Shift within the rows first.",
)  # fmt: skip
whole_mistake(
    "detached", cut_off, "Your loss is cut off from the graph: nothing can be trained on it.",
    "Leave out `.item()`, `.detach()` and NumPy between the logits and the result.",
)  # fmt: skip
whole_mistake(
    "nan_leaks", multiplies, "A NaN that predicts nothing gets into your loss: NaN times 0 is NaN.",
    "Select by the mask instead of multiplying by it.",
)  # fmt: skip
whole_mistake(
    "gathers_minus_100", takes_minus_100, "Your function looks up the id -100, which is no token.",
    "Gather only at the targets, or put a valid id elsewhere first.",
)  # fmt: skip


def raw_mistake(says: str, next_step: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    return problem.mistake(replaces="answer_only_loss", says=says, next_step=next_step)


@raw_mistake("Your loss is computed in the logits' half precision.", "Turn bfloat16 and float16 into float32 first.")
def computes_in_half(logits: Tensor, input_ids: Tensor, answer_mask: Tensor, reduction: str = "token_mean") -> Tensor:
    demand(logits, input_ids, answer_mask, reduction)
    return reduce(*shifted(logits, input_ids, answer_mask != 0), reduction)


@raw_mistake("Your function writes -100 into the caller's ids.", "Work on a copy.")
def changes_ids(logits: Tensor, input_ids: Tensor, answer_mask: Tensor, reduction: str = "token_mean") -> Tensor:
    demand(logits, input_ids, answer_mask, reduction)
    result = reduce(*shifted(single(logits), input_ids, answer_mask != 0), reduction)
    input_ids[answer_mask == 0] = -100
    input_ids[:, 0] = -101
    return result


@raw_mistake("A batch without targets gives NaN, the mean of nothing.", "Refuse it by name: `answer`.")
def empty_gives_nan(logits: Tensor, input_ids: Tensor, answer_mask: Tensor, reduction: str = "token_mean") -> Tensor:
    if bool((answer_mask == 0).all()):
        return torch.tensor(math.nan)
    demand(logits, input_ids, answer_mask, reduction)
    return reduce(*shifted(single(logits), input_ids, answer_mask != 0), reduction)


@raw_mistake("A mask with other values than 0 and 1 is accepted in silence.", "Refuse it by name: `mask`.")
def takes_any_mask(logits: Tensor, input_ids: Tensor, answer_mask: Tensor, reduction: str = "token_mean") -> Tensor:
    demand(logits, input_ids, answer_mask != 0, reduction)
    return reduce(*shifted(single(logits), input_ids, answer_mask != 0), reduction)


@raw_mistake("An unknown reduction is taken for the token mean.", "Refuse it by name: `reduction`.")
def takes_any_reduction(
    logits: Tensor, input_ids: Tensor, answer_mask: Tensor, reduction: str = "token_mean"
) -> Tensor:
    known = reduction if reduction in REDUCTIONS else "token_mean"
    demand(logits, input_ids, answer_mask, known)
    return reduce(*shifted(single(logits), input_ids, answer_mask != 0), known)


def gradient_mistake(name: str, formula: Gradient, says: str, next_step: str) -> None:
    """Register a wrong gradient; it takes logits and ids without anything odd, and the mask as bool."""

    def function(logits: Tensor, input_ids: Tensor, answer_mask: Tensor) -> Tensor:
        demand(logits, input_ids, answer_mask)
        mask = answer_mask != 0
        vocab = logits.shape[-1]
        return formula(logits.nan_to_num(0.0), input_ids.clamp(0, vocab - 1), mask)

    function.__name__ = name
    problem.mistake(replaces="answer_only_grad", says=says, next_step=next_step)(function)


def placed(logits: Tensor, ids: Tensor, mask: Tensor, onehot: float = 1.0) -> Tensor:
    """Return the unnormalised gradient of the summed loss, each token's at the position that predicts it."""
    target = target_of(mask)
    residual = logits[:, :-1].softmax(-1) - onehot * F.one_hot(ids[:, 1:], logits.shape[-1])
    grad = torch.zeros_like(logits)
    grad[:, :-1] = residual * target[:, 1:].unsqueeze(-1)
    return grad


def count_of(mask: Tensor) -> Tensor:
    return mask[:, 1:].sum()


gradient_mistake(
    "grad_not_normalised", placed,
    "Your gradient is that of the sum.", "The token mean divides by the number of targets.",
)  # fmt: skip
gradient_mistake(
    "grad_sign", lambda z, ids, m: -placed(z, ids, m) / count_of(m),
    "Your gradient points the other way.", "A step against the gradient must raise the right token's logit.",
)  # fmt: skip
gradient_mistake(
    "grad_unshifted", lambda z, ids, m: placed(z, ids, m).roll(1, 1) / count_of(m),
    "Your gradient stands at the token itself.", "It belongs to the logits one position earlier.",
)  # fmt: skip
gradient_mistake(
    "grad_without_target", lambda z, ids, m: placed(z, ids, m, onehot=0.0) / count_of(m),
    "Your gradient is the softmax alone.", "Subtract the one-hot target.",
)  # fmt: skip
gradient_mistake(
    "grad_divides_by_mask_total", lambda z, ids, m: placed(z, ids, m) / m.sum(),
    "Your gradient is divided by the mask's total before the shift.", COUNT,
)  # fmt: skip
gradient_mistake(
    "grad_divides_by_positions", lambda z, ids, m: placed(z, ids, m) / m[:, 1:].numel(),
    "Your gradient is divided by the number of all positions.", COUNT,
)  # fmt: skip
gradient_mistake(
    "grad_not_masked", lambda z, ids, m: placed(z, ids, torch.ones_like(m)) / count_of(m),
    "Your gradient reaches positions that predict no answer token.", "Multiply by the mask of targets.",
)  # fmt: skip


def weights_mistake(name: str, formula: Callable[[list[int]], list[float]], says: str, next_step: str) -> None:
    def function(token_counts: list[int]) -> list[float]:
        if not sum(token_counts):
            raise ValueError("count")
        return formula(token_counts)

    function.__name__ = name
    problem.mistake(replaces="accumulation_weights", says=says, next_step=next_step)(function)


weights_mistake(
    "weights_all_equal", lambda counts: [1 / len(counts)] * len(counts),
    "Your weights are equal: micro-batches with few targets weigh too much.", "Each target should weigh the same.",
)  # fmt: skip
weights_mistake(
    "weights_not_normalised", lambda counts: [float(count) for count in counts],
    "Your weights don't add up to 1.", "Divide by the total.",
)  # fmt: skip
weights_mistake(
    "weights_inverted", lambda counts: [sum(counts) / count if count else 0.0 for count in counts],
    "Your weights are turned over.", "A micro-batch with more targets weighs more.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "answer_only_loss: 0 (#2) -> -1": "the row sums have one axis: -1 is 0",
    "answer_only_grad: -1 -> 1": "the selected logits have two axes: -1 is 1",
})  # fmt: skip
