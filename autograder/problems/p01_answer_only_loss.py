"""How the answer-only loss is judged.

The function for the loss is used by six checks. `value` and `hand` compare its numbers with the reference's; `seq`,
`stab` and `diff` compare the student's own answers with one another, on inputs that every shift can read.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
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

TARGETS = "target = targets(logits, input_ids, answer_mask)"
LOGITS = "logits[:, :-1]"
TOKENS = "input_ids[:, 1:]"
NLL = 'F.cross_entropy(scores, tokens, reduction="none")'
SHIFT = "The logits at t predict the token at t + 1: write both under each other for four tokens."
COUNT = "Divide by the number of targets that you summed over."

problem.slip(
    "no_shift", "answer_only_loss",
    {TARGETS: f"{TARGETS}\n    target = answer_mask == 1", LOGITS: "logits", TOKENS: "input_ids.clamp(min=0)"},
    says="Your logits are compared with the token at their own position.", next_step=SHIFT,
)  # fmt: skip
problem.slip(
    "shifted_twice", "answer_only_loss",
    {TARGETS: f"{TARGETS}[:, 1:]", LOGITS: "logits[:, :-2]", TOKENS: "input_ids[:, 2:]"},
    says="Your logits are compared with the token after the next one: the shift is made twice.", next_step=SHIFT,
)  # fmt: skip
problem.slip(
    "mask_not_shifted", "answer_only_loss", {TARGETS: f"{TARGETS}\n    target = answer_mask[:, :-1] == 1"},
    says="Your ids are shifted and your mask isn't.", next_step="The mask marks tokens: shift it with the ids.",
)  # fmt: skip
problem.slip(
    "shifted_backwards", "answer_only_loss",
    {
        TARGETS: f"{TARGETS}\n    target = answer_mask[:, :-1] == 1",
        LOGITS: "logits[:, 1:]",
        TOKENS: "input_ids[:, :-1]",
    },
    says="Your shift goes the other way: the logits are compared with the token before them.", next_step=SHIFT,
)  # fmt: skip
problem.slip(
    "full_loss_ignores_mask", "answer_only_loss", {TARGETS: f"{TARGETS} | True"},
    says="Your loss is taken over all tokens: the mask isn't used.", next_step="Prompt and padding aren't learned.",
)  # fmt: skip
problem.slip(
    "mask_inverted", "answer_only_loss", {"targets(logits": "~targets(logits"},
    says="Your loss is taken over what the mask leaves out.", next_step="1 marks a token that is learned.",
)  # fmt: skip
problem.slip(
    "first_token_dropped", "answer_only_loss",
    {TARGETS: f"{TARGETS}\n    target = target & (target.cumsum(1) > 1)"},
    says="Your loss leaves out each answer's first token.", next_step="The last prompt position predicts it.",
)  # fmt: skip
problem.slip(
    "last_token_dropped", "answer_only_loss",
    {TARGETS: f"{TARGETS}\n    target = target & (target.flip(1).cumsum(1).flip(1) > 1)"},
    says="Your loss leaves out each answer's last token: the model never learns to stop.",
    next_step="The end-of-sequence token belongs to the answer, also where padding has the same id.",
)  # fmt: skip
problem.slip(
    "last_prompt_token_trained", "answer_only_loss",
    {TARGETS: f"{TARGETS}\n    target = target | F.pad(target[:, 1:], (0, 1))"},
    says="Your loss takes in the token before each answer.", next_step="Where does the mask begin?",
)  # fmt: skip
problem.slip(
    "softmax_over_time", "answer_only_loss",
    {f"wide({LOGITS}[target])": f"wide({LOGITS}).log_softmax(1)[target]", "cross_entropy": "nll_loss"},
    says="Your softmax runs over time.", next_step="Probabilities add up to 1 over the vocabulary, the last axis.",
)  # fmt: skip
problem.slip(
    "bits", "answer_only_loss", {NLL: f"{NLL} / scores.new_tensor(2.0).log()"},
    says="Your loss is in bits.", next_step="Use the natural logarithm.",
)  # fmt: skip

# What is computed at all positions and masked afterwards, (batch, time - 1), is reduced as the reference reduces.
EVERYWHERE = {"nll.mean()": "nll.sum() / target.sum()", "index_add(0, row, nll)": "add(nll.sum(1))"}

problem.slip(
    "zeroed_logits_add_ln_v", "answer_only_loss",
    {
        f"{LOGITS}[target]": f"{LOGITS}.masked_fill(~target[..., None], 0.0)",
        f"{TOKENS}[target]": f"{TOKENS}.masked_fill(~target, 0)",
        "(scores, tokens": "(scores.mT, tokens",
        **EVERYWHERE,
    },
    says="Your masked positions have zeroed logits and still count: each adds the logarithm of the vocabulary's size.",
    next_step="Mask the losses, not the logits.",
)  # fmt: skip

problem.slip(
    "naive_log_of_softmax", "answer_only_loss",
    {"cross_entropy(scores": "nll_loss(scores.softmax(-1).log()"},
    says="Your loss computes the softmax first: for large logits it's 0, and its logarithm infinite.",
    next_step="torch has the logarithm of the softmax as one function.",
)  # fmt: skip
problem.slip(
    "naive_exp_overflow", "answer_only_loss",
    {"cross_entropy(scores": "nll_loss(scores - scores.exp().sum(-1, keepdim=True).log()"},
    says="Your loss exponentiates the logits as they are: e to the 3,000 is infinite.",
    next_step="Subtract the largest logit first, or let torch.logsumexp do it.",
)  # fmt: skip
problem.slip(
    "epsilon_in_log", "answer_only_loss",
    {"cross_entropy(scores": "nll_loss((scores.softmax(-1) + 1e-6).log()"},
    says="Your logarithm has a small number added inside: it hides large losses and moves small ones.",
    next_step="The logarithm of the softmax needs no guard.",
)  # fmt: skip
problem.slip(
    "clipped_probability", "answer_only_loss",
    {"cross_entropy(scores": "nll_loss(scores.softmax(-1).clamp(min=1e-8).log()"},
    says="Your probabilities are kept away from 0: a token that's ruled out costs no more than an unlikely one.",
    next_step="The logarithm of the softmax needs no clipping.",
)  # fmt: skip

problem.slip(
    "mean_over_all_positions", "answer_only_loss", {"nll.mean()": "nll.sum() / target.numel()"},
    says="Your sum is divided by the number of all positions.", next_step=COUNT,
)  # fmt: skip
problem.slip(
    "divide_by_unshifted_mask", "answer_only_loss", {"nll.mean()": "nll.sum() / answer_mask.sum()"},
    says="Your sum is divided by the mask's total before the shift: a 1 in column 0 is counted and is no target.",
    next_step=COUNT,
)  # fmt: skip
problem.slip(
    "divide_by_rows", "answer_only_loss", {"nll.mean()": "nll.sum() / len(target)"},
    says="Your sum is divided by the number of rows.", next_step=COUNT,
)  # fmt: skip
problem.slip(
    "sum_as_default", "answer_only_loss", {"nll.mean()": "nll.sum()"},
    says="Your token mean is a sum.", next_step=COUNT,
)  # fmt: skip
problem.slip(
    "sequence_mean_as_default", "answer_only_loss",
    {'    if reduction == "token_mean":\n        return nll.mean()\n': ""},
    says="Your token mean is a mean of the rows' means: short answers weigh too much.",
    next_step="Sum over the whole batch, divide once.",
)  # fmt: skip
problem.slip(
    "divide_by_one_more", "answer_only_loss", {"nll.mean()": "nll.sum() / (len(nll) + 1)"},
    says="Your denominator is one too large.",
    next_step="Refuse a batch without targets instead of guarding the division.",
)  # fmt: skip
problem.slip(
    "perplexity", "answer_only_loss", {"nll.mean()": "nll.mean().exp()", "]).mean()": "]).exp().mean()"},
    says="Your result is the perplexity.", next_step="Return its logarithm, the mean loss.",
)  # fmt: skip
problem.slip(
    "log_of_mean_probability", "answer_only_loss",
    {
        "nll.mean()": "-(-nll).exp().mean().log()",
        "row, nll)": "row, (-nll).exp())",
        "(sums[counts > 0] / counts[counts > 0]).mean()": "-(sums[counts > 0] / counts[counts > 0]).log().mean()",
    },
    says="Your loss is the logarithm of the mean probability.", next_step="Take the logarithm of each token first.",
)  # fmt: skip
problem.slip(
    "negative_loss", "answer_only_loss", {NLL: f"-{NLL}"},
    says="Your loss is the log-likelihood: the minus is missing.",
    next_step="A loss falls when the model gets better.",
)  # fmt: skip

problem.slip(
    "sequence_mean_counts_empty_rows", "answer_only_loss",
    {"(sums[counts > 0] / counts[counts > 0])": "(sums / counts.clamp(min=1))"},
    says="Your sequence mean counts rows without targets as losses of 0.",
    next_step="Average over the rows that have targets.",
)  # fmt: skip
problem.slip(
    "sequence_mean_ignored", "answer_only_loss", {'reduction == "token_mean":': 'reduction != "sum":'},
    says="Your sequence mean is the token mean.", next_step="Average within each row first.",
)  # fmt: skip
problem.slip(
    "flatten_then_shift", "answer_only_loss",
    {TARGETS: f"""{TARGETS}
    logits, input_ids = logits.flatten(0, 1)[None], input_ids.flatten()[None]
    target = answer_mask.flatten()[None, 1:] == 1"""},
    says="Your batch is flattened before the shift: each row's last logits predict the next row's first token.",
    next_step="Shift within the rows first.",
)  # fmt: skip
problem.slip(
    "detached", "answer_only_loss", {NLL: f"{NLL}.detach()"},
    says="Your loss is cut off from the graph: nothing can be trained on it.",
    next_step="Leave out `.item()`, `.detach()` and NumPy between the logits and the result.",
)  # fmt: skip
problem.slip(
    "nan_leaks", "answer_only_loss",
    {
        f"{LOGITS}[target]": LOGITS,
        f"{TOKENS}[target].long()": f"{TOKENS}.clamp(min=0).long()",
        NLL: 'target * F.cross_entropy(scores.mT, tokens, reduction="none")',
        **EVERYWHERE,
    },
    says="A NaN that predicts nothing gets into your loss: NaN times 0 is NaN.",
    next_step="Select by the mask instead of multiplying by it.",
)  # fmt: skip
problem.slip(
    "gathers_minus_100", "answer_only_loss",
    {
        f"{LOGITS}[target]": f"{LOGITS}.masked_fill(~target[..., None], 0.0)",
        f"{TOKENS}[target]": f"{TOKENS}[..., None]",
        NLL: "-scores.log_softmax(-1).gather(-1, tokens)[target].squeeze(-1)",
    },
    says="Your function looks up the id -100, which is no token.",
    next_step="Gather only at the targets, or put a valid id elsewhere first.",
)  # fmt: skip
problem.slip(
    "computes_in_half", "answer_only_loss", {f"wide({LOGITS}[target])": f"{LOGITS}[target]"},
    says="Your loss is computed in the logits' half precision.",
    next_step="Turn bfloat16 and float16 into float32 first.",
)  # fmt: skip
problem.slip(
    "changes_ids", "answer_only_loss", {TARGETS: f"{TARGETS}\n    {TOKENS}[~target] = -100"},
    says="Your function writes -100 into the caller's ids.", next_step="Work on a copy.",
)  # fmt: skip
problem.slip(
    "empty_gives_nan", "targets",
    {'raise ValueError("answer: no row has a token to learn (column 0 is never one)")': "pass"},
    says="A batch without targets gives NaN, the mean of nothing.", next_step="Refuse it by name: `answer`.",
)  # fmt: skip
problem.slip(
    "takes_any_mask", "targets",
    {'raise ValueError("mask: answer_mask must hold 0 and 1 only")': "answer_mask = answer_mask != 0"},
    says="A mask with other values than 0 and 1 is accepted in silence.", next_step="Refuse it by name: `mask`.",
)  # fmt: skip
problem.slip(
    "takes_any_reduction", "answer_only_loss",
    {
        """raise ValueError(f"reduction must be 'token_mean', 'sequence_mean' or 'sum', got {reduction!r}")""":
        'reduction = "token_mean"'
    },
    says="An unknown reduction is taken for the token mean.", next_step="Refuse it by name: `reduction`.",
)  # fmt: skip

problem.slip(
    "grad_not_normalised", "answer_only_grad", {" / target.sum()": ""},
    says="Your gradient is that of the sum.", next_step="The token mean divides by the number of targets.",
)  # fmt: skip
problem.slip(
    "grad_sign", "answer_only_grad", {"(probabilities - onehot)": "(onehot - probabilities)"},
    says="Your gradient points the other way.",
    next_step="A step against the gradient must raise the right token's logit.",
)  # fmt: skip
problem.slip(
    "grad_unshifted", "answer_only_grad", {"grad[:, :-1]": "grad[:, 1:]"},
    says="Your gradient stands at the token itself.", next_step="It belongs to the logits one position earlier.",
)  # fmt: skip
problem.slip(
    "grad_without_target", "answer_only_grad", {"(probabilities - onehot)": "probabilities"},
    says="Your gradient is the softmax alone.", next_step="Subtract the one-hot target.",
)  # fmt: skip
problem.slip(
    "grad_divides_by_mask_total", "answer_only_grad", {"target.sum()": "answer_mask.sum()"},
    says="Your gradient is divided by the mask's total before the shift.", next_step=COUNT,
)  # fmt: skip
problem.slip(
    "grad_divides_by_positions", "answer_only_grad", {"target.sum()": "target.numel()"},
    says="Your gradient is divided by the number of all positions.", next_step=COUNT,
)  # fmt: skip
problem.slip(
    "grad_not_masked", "answer_only_grad",
    {
        TARGETS: f"{TARGETS}\n    count, target = target.sum(), target | True",
        ".long()": ".clamp(min=0).long()",
        "/ target.sum()": "/ count",
    },
    says="Your gradient reaches positions that predict no answer token.",
    next_step="Write it only at the positions that predict a target.",
)  # fmt: skip

problem.slip(
    "weights_all_equal", "accumulation_weights", {"count / total": "1 / len(token_counts)"},
    says="Your weights are equal: micro-batches with few targets weigh too much.",
    next_step="Each target should weigh the same.",
)  # fmt: skip
problem.slip(
    "weights_not_normalised", "accumulation_weights", {"count / total": "count"},
    says="Your weights don't add up to 1.", next_step="Divide by the total.",
)  # fmt: skip
problem.slip(
    "weights_inverted", "accumulation_weights", {"count / total": "total / count if count else 0"},
    says="Your weights are turned over.", next_step="A micro-batch with more targets weighs more.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "answer_only_loss: 0 (#2) -> -1": "the row sums have one axis: -1 is 0",
    "answer_only_grad: -1 (#2) -> 1": "the selected logits have two axes: -1 is 1",
})  # fmt: skip
