"""How the answer-only loss is judged.

`value` and `hand` compare the loss of batches in which every index counts. `seq`, `stab` and `diff` use rows whose
positions are all alike: there a shift in the wrong place gives the right number, so that it is paid for once.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ftgrade.judging.corners import as_views, corners, expanded, in_dtype, wanting_gradients, with_numpy_numbers
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
)

problem = Problem(part="02_supervised_objective", difficulty=2, importance=5, minutes=60)

Tensor = torch.Tensor
Batch = tuple[Tensor, Tensor, Tensor]
LOSS, GRAD = "answer_only_loss", "answer_only_grad"
REDUCTIONS = "token_mean", "sequence_mean", "sum"
HALVES = torch.bfloat16, torch.float16
INTEGERS = torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8
ODD_COUNTS = (301, torch.bfloat16), (2_099, torch.float16)  # odd, and just beyond what the dtype can count
MASKS = torch.bool, *INTEGERS, *HALVES, torch.float32, torch.float64


def batch(rng: Rng) -> Batch:
    """Return logits, ids and a mask: unequal answers, a gap, the second and the last column, a row of 0."""
    rows, time, vocab = 4, int(rng.integers(7, 10)), int(rng.integers(6, 12))
    logits = torch.from_numpy(rng.normal(scale=2.0, size=(rows, time, vocab)))
    ids = torch.from_numpy(rng.integers(0, vocab, size=(rows, time)))
    mask = torch.zeros(rows, time, dtype=torch.bool)
    mask[0, 1:3] = True
    mask[1, 2 : time - 1] = True
    mask[1, 4] = False
    mask[2, time - 1] = True
    return logits, ids, mask


def alike(rng: Rng) -> Batch:
    """Return rows whose positions have the same logits and ids, so that no shift matters, and a row without targets."""
    rows, time, vocab = 4, 9, int(rng.integers(6, 12))
    row = torch.from_numpy(rng.normal(scale=2.0, size=(rows, vocab)))
    mask = torch.zeros(rows, time, dtype=torch.int64)
    for index, count in enumerate(rng.permutation([2, 3, 4])):
        mask[index, 3 : 3 + int(count)] = 1
    return row[:, None].repeat(1, time, 1), row.argmin(1)[:, None].repeat(1, time), mask


def starting(mask: Tensor) -> Tensor:
    """Return a mask with a 1 in column 0 of each row."""
    mask = mask.clone()
    mask[:, 0] = 1
    return mask


def marked(ids: Tensor, mask: Tensor, vocab: int) -> Tensor:
    """Return ids that are no tokens where the mask is 0."""
    none = torch.tensor([-100, vocab, -1, vocab + 5, 10**12]).repeat(ids.shape[1])[: ids.shape[1]]
    ids = ids.where(mask.bool(), none)
    ids[:, 0] = -100  # never a target, whatever the mask says
    return ids


def broken(logits: Tensor, mask: Tensor) -> Tensor:
    """Return logits that are NaN or infinite wherever they predict no target."""
    shape = logits.shape[1:]
    bad = torch.tensor([math.nan, math.inf, -math.inf]).repeat(shape[0] * shape[1])[: shape[0] * shape[1]]
    predicts = torch.nn.functional.pad(mask[:, 1:].bool(), (0, 1))
    return torch.where(predicts[..., None], logits, bad.reshape(shape).to(logits.dtype))


def loss(logits: Tensor, ids: Tensor, mask: Tensor, *reduction: str) -> Call:
    return call("answer_only_loss", logits, ids, mask, *reduction)


def gradient(logits: Tensor, ids: Tensor, mask: Tensor) -> Call:
    return call("answer_only_grad", logits, ids, mask)


def long(rng: Rng, count: int) -> Batch:
    """Return one long row with this many targets, more than a half-precision mask can count, and a short one."""
    logits = torch.from_numpy(rng.normal(scale=2.0, size=(2, 1, 2))).repeat(1, count + 1, 1)
    mask = torch.zeros(2, count + 1)
    mask[0, 1:] = mask[1, 1:3] = 1
    return logits, logits.argmin(-1), mask


def once(words: str, made: Call, promise: str = "") -> Case:
    """Return a case that is asked for the first seed alone."""
    return Case(words, made, promise=promise, once=True)


def in_masks(plain: Case) -> Iterator[Case]:
    """Yield a case with masks of every dtype."""
    logits, ids, mask, *reduction = plain.call.arguments
    for dtype in MASKS:
        arguments = (logits, ids, mask.to(dtype), *reduction)
        made = dataclasses.replace(plain.call, arguments=arguments)
        yield once(f"{plain.words}, a mask of {str(dtype).removeprefix('torch.')}", made, plain.promise)


# ---------------------------------------------------------------------------------------------------------- promises

problem.promise(
    "value",
    "Return the cross-entropy of the answer tokens in nats, as a 0-d tensor",
    "`logits` is (batch, time, vocab), `input_ids` (int64) and `answer_mask` are (batch, time); no axis is empty.",
    "The mask is bool, int or float (of 16 bits too) with values 0 and 1; it marks the tokens that are learned.",
    '`reduction` is "token_mean" (over all targets of the batch)',
    "scores that are moved together at one position change nothing, and a loss is never negative.",
    "A function leaves its arguments as they were.",
)  # fmt: skip
problem.promise("column_0", "Column 0 has nothing before it and is never a target.")
problem.promise(
    "elsewhere",
    "What stands at other positions (ids of -100 or beyond the vocabulary, logits that are NaN or infinite) changes "
    "neither the loss nor its gradient.",
)
problem.promise("hand", "A token's loss is $-\\log p$ in nats.")
problem.promise("seq", '"sequence_mean" (each row\'s token mean')
problem.promise("rows", "averaged over the rows that have targets)")
problem.promise(
    "stab",
    "Logits of size 3,000 occur in float32: the loss there is a plain number.",
    "At a target one logit or more is finite, and within ±10**6;",
)
problem.promise("ruled_out", "one of -inf gives its token the probability 0, and such a target costs +inf.")
problem.promise("precision", "float64 stays float64; bfloat16 and float16 are computed in float32.")
problem.promise("diff", "as a 0-d tensor that can be differentiated.")
problem.promise(
    "shape",
    "Arguments and errors as in `answer_only_loss`.",
    "ValueError naming `shape` (`input_ids` or `answer_mask` isn't (batch, time) as the logits are)",
)
problem.promise("mask", "`mask` (a value other than 0 and 1, in any column)")
problem.promise("answer", "`answer` (no target in the whole batch, whatever the reduction)")
problem.promise("reduction", "`reduction` (any other text than the three).")
problem.promise(
    "grad",
    "Return the gradient of the token mean with respect to the logits.",
    "The logits want no gradient and may be inference tensors, on which autograd refuses to work;",
    "the result carries no graph.",
    "each position's gradient adds up to 0.",
)
problem.promise("no_influence", "The result is (batch, time, vocab), 0 wherever a logit has no influence.")
problem.promise("grad_precision", "Large logits and half precision are as in the loss.")
problem.promise(
    "acc",
    "Return the weight of each micro-batch's token mean, so that their weighted sum is the whole batch's token mean.",
    "`token_counts` holds the number of targets of each micro-batch, up to 10**12, as Python's integers or NumPy's "
    "int64;",
    "the weights add up to 1.",
)
problem.promise("nothing", "one without targets gets the weight 0.")
problem.promise("count", "ValueError naming `count` if the list is empty, all of it is 0, or a number is negative.")

# ------------------------------------------------------------------------------------------------------------ checks


@problem.check(
    "value", points=2, of="answer_only_loss", title="the token mean and the sum",
    concerns=["unequal lengths", "a 1 in column 0", "-100 and NaN outside the answer", "masks of any dtype"],
    next_step="Take a batch of one row and four tokens, and write each token under the logits that predict it.",
)  # fmt: skip
def value(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = batch(rng)
    plain = Case("answers of unequal length", loss(logits, ids, mask.double()))
    yield plain
    yield as_views(Case("the sum over targets, an int mask", loss(logits, ids, mask.long(), "sum")))
    yield from in_masks(plain)
    yield from in_masks(Case("the sum over targets", loss(logits, ids, mask, "sum")))
    named = call(LOSS, reduction="token_mean", answer_mask=mask, input_ids=ids, logits=logits)
    yield once("arguments by name", named)
    small = (logits[:1, :2], ids[:1, :2], torch.tensor([[0, 1]]))
    yield from (once(f"one row of two tokens, {how}", loss(*small, how)) for how in REDUCTIONS)
    yield once("a vocabulary of one token", loss(logits[..., :1], ids * 0, mask))
    large = (torch.from_numpy(rng.normal(size=(1, 3, 900))), torch.tensor([[5, 899, 0]]), torch.tensor([[0, 1, 1]]))
    yield from (once(f"a vocabulary of 900 tokens, {how}", loss(*large, how)) for how in REDUCTIONS)
    for count, dtype in ODD_COUNTS:
        many, tokens, ones = long(rng, count)
        yield once("many targets, a mask in half precision", loss(many, tokens, ones.to(dtype)))
    starts = starting(mask)
    yield Case("ones in column 0, a row without targets", loss(logits, ids, starts), promise="column_0")
    for how in REDUCTIONS:
        yield from in_masks(Case(f"ones in column 0, {how}", loss(logits, ids, starts, how), promise="column_0"))
    others = marked(ids, mask, logits.shape[-1])
    yield Case("ids of -100 outside the answer", loss(logits, others, mask), promise="elsewhere")
    for how in REDUCTIONS:
        plain = Case(f"NaN that predicts no target, {how}", loss(broken(300 * logits, mask), ids, mask, how))
        yield from corners(plain, wanting_gradients, promise="elsewhere")
        plain = Case(f"NaN and no tokens outside the answer, {how}", loss(broken(logits, mask), others, starts, how))
        yield from corners(plain, wanting_gradients, as_views, *map(in_dtype, HALVES), promise="elsewhere")
        plain = Case(f"no tokens outside the answer, {how}", loss(logits, others, starts, how))
        yield from corners(plain, wanting_gradients, as_views, promise="elsewhere")
        for bad in (math.nan, math.inf, -math.inf):
            alone = logits.where(broken(logits, mask).isfinite(), bad)
            plain = Case(f"{bad} that predicts no target, {how}", loss(alone, others, mask, how))
            yield from corners(plain, wanting_gradients, promise="elsewhere")


@problem.check(
    "hand", points=0.5, of="answer_only_loss", title="a row worked by hand",
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
    yield Case("six probabilities and a mask", loss(logits[None], ids[None], mask[None].float()))


@problem.check(
    "seq", points=1, of="answer_only_loss", title="the sequence mean",
    concerns=["rows of unequal weight", "rows without a target", "a 1 in column 0"],
    next_step="Average within each row first; then over the rows that have something to average.",
)  # fmt: skip
def seq(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = alike(rng)
    unequal = Case("rows of unequal length", loss(logits[:3], ids[:3], mask[:3].bool(), "sequence_mean"))
    yield unequal
    yield from in_masks(unequal)
    for count, dtype in ODD_COUNTS:
        many, tokens, ones = long(rng, count)
        yield once("many targets, a mask in half precision", loss(many, tokens, ones.to(dtype), "sequence_mean"))
    order = torch.tensor([3, 0, 1, 3, 2])
    among = Case("rows without targets among others", loss(logits[order], ids[order], mask[order], "sequence_mean"))
    yield from corners(among, as_views, promise="rows")
    for empty in range(4):  # its place among the rows
        rows = torch.tensor([*range(empty), 3, *range(empty, 3)])
        made = loss(logits[rows], ids[rows], mask[rows], "sequence_mean")
        yield once("one row without targets, at each place", made, "rows")
    yield Case("ones in column 0", loss(logits, ids, starting(mask), "sequence_mean"), promise="column_0")


def in_its_precision(expected: Any, got: Any) -> Difference | None:
    """Demand close numbers, without a graph, and float64 where float64 is expected."""
    if torch.is_tensor(got) and got.requires_grad and not expected.requires_grad:
        return Difference("the result still hangs on a graph")
    if torch.is_tensor(got) and expected.dtype == torch.float64 and got.dtype != torch.float64:
        return Difference("float64 stays float64, and this isn't")
    return Close()(expected, got)


@problem.check(
    "stab", points=1, of="answer_only_loss", title="large logits and every precision", same=in_its_precision,
    concerns=["logits of size 3,000 in float32", "logits of -inf", "bfloat16, float16 and float64 logits"],
    next_step="Let one function of torch compute log(softmax(x)), from the logits as they are, none of them clipped.",
)  # fmt: skip
def stab(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = alike(rng)
    yield expanded(Case("logits of size 3,000", loss((logits * 1_500).float(), ids, mask)))
    for how in REDUCTIONS:
        million = logits / logits.abs().max() * 10**6
        plain = Case(f"logits up to a million, {how}", loss(million, ids, mask, how))
        yield from corners(plain, in_dtype(torch.float32), in_dtype(torch.float64))
        plain = Case(f"logits of size 3,000, {how}", loss(logits * 1_500, ids, mask, how))
        yield from corners(plain, *map(in_dtype, HALVES))
    ruled_out = logits - 3_000
    ruled_out[..., int(logits[0, 0].argmax())] = -math.inf
    yield Case(
        "an entry of -inf beside others near -3,000", loss(ruled_out[:1], ids[:1], mask[:1]), promise="ruled_out"
    )
    single = torch.zeros_like(mask[:1])
    single[0, 1] = 1  # one target, at -inf: no finite sum stands in for it
    alone = logits[:1].scatter(-1, ids[:1].roll(-1, 1)[..., None], -math.inf)
    for how in REDUCTIONS:
        case = Case(f"a single target, at -inf, {how}", loss(alone, ids[:1], single, how))
        yield from corners(case, *map(in_dtype, (*HALVES, torch.float32, torch.float64)), promise="ruled_out")
    best, targeted = logits.argmax(-1, keepdim=True), logits.clone()
    targeted[1].scatter_(-1, ids[1, :, None], -math.inf)
    for how in REDUCTIONS:
        for words, odd in (
            ("an entry of -inf", logits.scatter(-1, best, -math.inf)),
            ("a row's targets at -inf", targeted),
            ("only the target's entry finite", logits.masked_fill(logits > logits.amin(-1, keepdim=True), -math.inf)),
            ("an entry of -inf far above others", (logits - 10**6).scatter(-1, best, -math.inf)),
        ):
            plain = Case(f"{words}, {how}", loss(odd, ids, mask, how))
            yield from corners(plain, in_dtype(torch.float64), promise="ruled_out")
            if "others" not in words:  # a million in float32 leaves no digits for the rest
                yield from corners(plain, *map(in_dtype, (*HALVES, torch.float32)), promise="ruled_out")
    for how in REDUCTIONS:
        plain = Case(f"plain logits, {how}", loss(3 * logits, ids, mask, how))
        yield from corners(plain, *map(in_dtype, (*HALVES, torch.float32, torch.float64)), promise="precision")
        yield once(f"float64 logits near a million, {how}", loss(logits + 1e6, ids, mask, how), "precision")


@problem.check(
    "diff", points=0.5, of="answer_only_loss", title="autograd goes through",
    concerns=["the gradient of the token mean", "a NaN far from any answer"],
    next_step="Keep to torch from the logits to the result.",
)  # fmt: skip
def diff(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = (part[:3] for part in alike(rng))
    logits = logits.bfloat16().double()
    logits.scatter_(-1, logits.topk(2).indices[..., 1:], -math.inf)
    one = logits[:, 0].softmax(-1) - torch.nn.functional.one_hot(ids[:, 0], logits.shape[-1])
    logits[:, 0] = math.nan
    counts = mask.sum(1, keepdim=True)
    for how, weight in (("token_mean", counts / counts.sum()), ("sequence_mean", 1 / 3), ("sum", counts)):
        plain = wanting_gradients(Case("", loss(logits, ids, mask, how)))
        halves = [in_dtype(dtype)(plain).call for dtype in HALVES]
        words = f"the gradient of the {how.replace('_', ' ')}, an entry of -inf, a NaN far from any answer"
        yield Relation(words, (plain.call, *halves), adds_up_to(one * weight))


class adds_up_to:  # noqa: N801
    """Hold the gradient's sum over time to be a known one: where in time it stands is the shift's affair."""

    def __init__(self, known: Tensor) -> None:
        self.known = known

    def __call__(self, *all_got: Value) -> Difference | None:
        return next(filter(None, map(self.difference, all_got)), None)

    def difference(self, got: Value) -> Difference | None:
        if got.changed:
            return Difference("it changed one of its inputs; work on a copy")
        gradient = got.gradients[0] if got.gradients else None
        if gradient is None:
            return Difference("the loss can't be differentiated: the graph was cut")
        if not bool(gradient.isfinite().all()):
            return Difference("the gradient is NaN or infinite, where every target has a finite one")
        near = Close(rtol=1e-2) if gradient.dtype in HALVES else Close()
        bad = near(self.known, gradient.double().sum(1))
        return Difference("the gradient, added up over time, isn't that of the loss") if bad else None


KEYWORDS = "shape", "mask", "answer", "reduction"
OTHER_WORDS = (
    "mean", "none", "", "Sum", "SUM", "sums", "sum ", " sum", "su", "token-mean", "Token_Mean", "TOKEN_MEAN", "token",
    "token mean", "tokenmean", "token_mean ", "token_means", "sequence-mean", "Sequence_Mean", "sequence", "seq_mean",
    "SEQUENCE_MEAN", "row_mean", "batchmean", "average", "None", "max", "mean_token", "_",
)  # fmt: skip


def misshapen(part: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a (batch, time) tensor in shapes that some code would take: off by one, broadcast, reshaped."""
    yield "of one row", part[:1]
    yield "with a row more", torch.cat([part, part[:1]])
    yield "of one column", part[:, 1:2]
    yield "of another length", part[:, 1:]
    yield "with a column more", torch.cat([part, part[:, :1]], 1)
    yield "transposed", part.T
    yield "flattened", part.flatten()
    yield "with the axes of the transpose", part.reshape(part.shape[::-1])
    yield "with an axis more at the end", part[..., None]
    yield "with an axis more at the beginning", part[None]
    yield "of one row without its axis", part[1]


@problem.check(
    "err", points=1.5, of="answer_only_loss", title="invalid input",
    concerns=["shapes", "mask values", "no target at all", "reductions", "for the loss and its gradient"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    logits, ids = torch.from_numpy(rng.normal(size=(2, 3, 5))), torch.from_numpy(rng.integers(0, 5, size=(2, 3)))
    mask = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    valid = (logits, ids, mask)
    both, all_ways = ((LOSS,), (GRAD,)), ((LOSS,), (LOSS, "sequence_mean"), (LOSS, "sum"), (GRAD,))
    for keyword, bad in (
        ("shape", misshapen_batches(*valid)),
        ("mask", ((words, (logits, ids, odd)) for words, odd in odd_masks(rng, mask))),
        ("answer", batches_without_targets(logits, ids)),
    ):
        for place, (words, arguments) in enumerate(bad):  # the first ones with every reduction
            for function, *how in all_ways if place < 4 else both:
                yield Refusal(
                    ", ".join([words, *how]) if function == LOSS else f"{words}, for the gradient",
                    call(function, *arguments, *how), keyword,
                    call(function, *valid, *how) if place < 1 else None,
                    tuple(word for word in KEYWORDS if word != keyword), keyword,
                )  # fmt: skip
    for word in OTHER_WORDS:
        asked, twin = call(LOSS, *valid, word), call(LOSS, *valid, "sum")
        yield Refusal("another word", asked, "reduction", twin, KEYWORDS[:3], "reduction")


def misshapen_batches(logits: Tensor, ids: Tensor, mask: Tensor) -> Iterator[tuple[str, Batch]]:
    """Yield batches in which the mask, the ids, both of them or the logits have another shape than the others."""
    for (words, odd_ids), (_, odd_mask) in zip(misshapen(ids), misshapen(mask), strict=True):
        yield f"a mask {words}", (logits, ids, odd_mask)
        yield f"ids {words}", (logits, odd_ids, mask)
        yield f"ids and a mask {words}", (logits, odd_ids, odd_mask)
    yield "logits of one row", (logits[:1], ids, mask)
    yield "logits with a row more", (torch.cat([logits, logits[:1]]), ids, mask)
    yield "logits of one position", (logits[:, :1], ids, mask)
    yield "logits of another length", (logits[:, 1:], ids, mask)
    yield "logits with a position more", (torch.cat([logits, logits[:, :1]], 1), ids, mask)
    yield "logits transposed", (logits.transpose(0, 1), ids, mask)
    yield "logits flattened", (logits.flatten(0, 1)[None], ids, mask)


def odd_masks(rng: Rng, mask: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield masks of every dtype with one value, or several, other than 0 and 1."""
    near = 1e-6  # of 0 and of 1
    numbers = (2.0, -1.0, 0.5, math.nan, math.inf, -math.inf, near, -near, 1 - near, 1 + near, 100.0, -0.5)
    for place, number in enumerate([*numbers, *numbers[:2], *numbers[:3]]):  # the first ones in every column
        odd = mask.clone()
        odd[int(rng.integers(0, 2)), place % 3] = number
        yield f"a mask with {number:g} in column {place % 3}", odd
    for pair in ((0.5, -0.5), (2, -2), (3, -1), (0.25, 0.75)):  # as many ones as its sum says
        yield "a mask with values that cancel", torch.cat([torch.tensor([pair] * 2).to(mask), mask[:, 2:]], 1)
    yield "a mask of twos instead of ones", 2 * mask
    yield "a mask of minus ones instead of zeros", 2 * mask - 1
    for dtype in (*INTEGERS, *HALVES, torch.float64):
        for number in (2, 3, 127, 255 if dtype is torch.uint8 else -1, *(() if dtype in INTEGERS else (0.5, math.nan))):
            odd = mask.to(dtype)
            odd[int(rng.integers(0, 2)), int(rng.integers(0, 3))] = number
            yield f"a mask of {str(dtype).removeprefix('torch.')} with {number}", odd


def batches_without_targets(logits: Tensor, ids: Tensor) -> Iterator[tuple[str, Batch]]:
    """Yield batches whose mask has no 1 beyond column 0, in every dtype."""
    first = torch.tensor([[1, 0, 0], [1, 0, 0]])
    yield "ones in column 0 alone", (logits, ids, first)
    yield "a mask of zeros", (logits, ids, 0 * first)
    yield "a one in column 0 of one row", (logits, ids, first * torch.tensor([[0], [1]]))
    yield "rows of one token", (logits[:, :1], ids[:, :1], first[:, :1])
    for dtype in MASKS:
        name = str(dtype).removeprefix("torch.")
        yield f"ones in column 0 alone, {name}", (logits, ids, first.to(dtype))
        yield f"a mask of zeros, {name}", (logits, ids, 0 * first.to(dtype))


@problem.check(
    "grad", points=2.5, of="answer_only_grad", title="the gradient by hand", same=in_its_precision,
    concerns=["where it stands", "what it's divided by", "-100 and NaN outside the answer", "large logits"],
    next_step="Differentiate -log softmax of one position first; then place it, mask it and divide.",
)  # fmt: skip
def grad(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = batch(rng)
    with torch.inference_mode():
        plain = logits.float()
    yield Case("answers of unequal length", gradient(plain, ids, mask))
    starts = starting(mask)
    yield as_views(Case("ones in column 0, a float mask", gradient(logits.float(), ids, starts.double())))
    yield from in_masks(Case("ones in column 0", gradient(logits.float(), ids, starts)))
    yield once("arguments by name", call(GRAD, answer_mask=mask, input_ids=ids, logits=plain))
    yield once("one row of two tokens", gradient(logits[:1, :2], ids[:1, :2], torch.tensor([[0, 1]])))
    yield once("a vocabulary of one token", gradient(logits[..., :1], ids * 0, mask))
    many = torch.from_numpy(rng.normal(size=(1, 3, 900)))
    yield once("a vocabulary of 900 tokens", gradient(many, torch.tensor([[5, 899, 0]]), torch.tensor([[0, 1, 1]])))
    yield expanded(Case("rows that are alike", gradient(logits, ids, mask)))
    for count, dtype in ODD_COUNTS:
        many, tokens, ones = long(rng, count)
        yield once("many targets, a mask in half precision", gradient(many, tokens, ones.to(dtype)))
    others = marked(ids, mask, logits.shape[-1])
    yield Case("ids of -100 outside the answer", gradient(plain, others, mask), promise="no_influence")
    odd = broken(logits, mask)
    yield Case("NaN that predicts no target", gradient(odd.float(), ids, mask), promise="no_influence")
    yield once("NaN beside large logits", gradient(broken(300 * logits, mask), others, mask), "no_influence")
    both = Case("NaN and no tokens outside the answer", gradient(odd, others, starts))
    yield from corners(both, as_views, *map(in_dtype, (*HALVES, torch.float32)), promise="no_influence")
    for bad in (math.nan, math.inf, -math.inf):
        alone = logits.where(odd.isfinite(), bad)
        yield once(f"{bad} that predicts no target", gradient(alone, others, mask), "no_influence")
    large = logits.float() * 1_500
    yield Case("logits of size 3,000", gradient(large, ids, mask.long()), promise="grad_precision")
    for dtype in (torch.float32, torch.float64):
        million = logits.to(dtype) / float(logits.abs().max()) * 10**6
        yield once("logits up to a million", gradient(million, ids, mask), "grad_precision")
    for words, ruled_out in (
        ("an entry of -inf", logits.argmax(-1, keepdim=True)),
        ("the target at -inf", ids.roll(-1, 1)[..., None]),
        ("an entry of -inf, now a target and now another", ids[..., None]),
    ):
        case = Case(words, gradient(logits.scatter(-1, ruled_out, -math.inf), ids, mask))
        kinds = map(in_dtype, (*HALVES, torch.float32, torch.float64))
        yield from corners(case, *kinds, promise="grad_precision")
        far = (logits - 3_000).scatter(-1, ruled_out, -math.inf).float()
        yield once(f"{words}, beside others near -3,000", gradient(far, ids, mask), "grad_precision")
    exact = Case("plain logits", gradient(logits, ids, mask))
    yield from corners(exact, in_dtype(torch.float16), in_dtype(torch.bfloat16), promise="grad_precision")
    yield Case("float64 logits near a million", gradient(logits + 1e6, ids, mask), promise="grad_precision")


def adds_up(weights: Value) -> Difference | None:
    """Demand Python's own precision, as the text's example does."""
    return None if abs(math.fsum(weights.value) - 1) < 1e-12 else Difference("the weights don't add up to 1")


@problem.check(
    "acc", points=1, of="accumulation_weights", title="weights of micro-batches",
    concerns=["unequal counts", "a micro-batch without targets", "invalid counts"],
    next_step="Write the whole batch's token mean as a sum over micro-batches.",
)  # fmt: skip
def acc(rng: Rng) -> Iterator[AnyCase]:
    counts = [int(count) for count in rng.choice(np.arange(1, 60), size=4, replace=False)]
    plain = Case("unequal counts", call("accumulation_weights", counts))
    yield plain
    yield from corners(plain, with_numpy_numbers)
    yield once("by name", call("accumulation_weights", token_counts=counts))
    for words, some in (
        ("one micro-batch", counts[:1]), ("equal counts", counts[:1] * 5), ("many micro-batches", [*range(1, 300)]),
        ("counts up to 10**12", [10**12, counts[0], 10**12 - 1]), ("counts of 10**12", [*[10**12] * 100, 1]),
        ("counts above 2**31", [2**31, 1, 2**32 + counts[0]]),
    ):  # fmt: skip
        case = once(words, call("accumulation_weights", some))
        yield case
        yield from corners(case, with_numpy_numbers)
        yield once(f"{words}, of both kinds", call("accumulation_weights", [np.int64(some[0]), *some[1:]]))
    exact = [*counts, 7, 11, 1]
    yield Relation("weights that add up to 1 to float64's last digits", (call("accumulation_weights", exact),), adds_up)
    for some in ([0, counts[0], counts[1], 0], [counts[0], 0, counts[1]], [counts[0], 0], [0, 1], [0, 0, 10**12]):
        case = Case("micro-batches without targets", call("accumulation_weights", some), promise="nothing")
        yield case
        yield from corners(case, with_numpy_numbers)
    one, two = counts[:2]
    for words, wrong in (
        ("no micro-batches", []), ("a single zero", [0]), ("nothing but zeros", [0, 0]), ("five zeros", [0] * 5),
        ("a negative count", [one + 1, -1]), ("a negative count first", [-1, one + 1]), ("all negative", [-one, -two]),
        ("a negative count among zeros", [0, -one]), ("a negative count in the middle", [one, -1, two]),
        ("a total of 0", [one, -one]), ("a negative total", [one, -one - 1]), ("one negative count", [-1]),
        ("a negative count of 10**12", [-(10**12), 10**12, 1]),
    ):  # fmt: skip
        for numbers in (wrong, [np.int64(number) for number in wrong]):
            asked, twin = (call("accumulation_weights", some) for some in (numbers, counts[:1]))
            yield Refusal(words, asked, "count", twin, KEYWORDS, "count")


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
VALID = ".clamp(0, logits.shape[-1] - 1)"
BINARY = "((answer_mask == 0) | (answer_mask == 1)).all()"
NLL = 'F.cross_entropy(scores, tokens, reduction="none")'
SHIFT = "The logits at t predict the token at t + 1: write both under each other for four tokens."
COUNT = "Divide by the number of targets that you summed over."

problem.slip(
    "no_shift", "answer_only_loss",
    {TARGETS: f"{TARGETS}\n    target = answer_mask == 1", LOGITS: "logits", TOKENS: f"input_ids{VALID}"},
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
        f"{TOKENS}[target].long()": f"{TOKENS}{VALID}.long()",
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
    says="Your function fails where ids outside the answer, such as -100, are no tokens.",
    next_step="Gather only at the targets, or put a valid id elsewhere first.",
)  # fmt: skip
problem.slip(
    "computes_in_half", "answer_only_loss", {f"wide({LOGITS}[target])": f"{LOGITS}[target]"},
    says="Your loss is computed in the logits' half precision.",
    next_step="Turn bfloat16 and float16 into float32 first.",
)  # fmt: skip
problem.slip(
    "one_hot_times_infinity", "answer_only_loss",
    {NLL: "-(F.one_hot(tokens, scores.shape[-1]) * scores.log_softmax(-1)).sum(-1)"},
    says="A token that is ruled out makes your loss NaN: 0 times infinity.",
    next_step="Look the target's log-probability up instead of multiplying all of them by 0 or 1.",
)  # fmt: skip
problem.slip(
    "float16_stays_half", "wide", {"(torch.float16, torch.bfloat16)": "(torch.bfloat16,)"},
    says="Your functions compute float16 in half precision.", next_step="Turn float16 into float32 too.",
)  # fmt: skip
problem.slip(
    "float64_becomes_float32", "wide", {" if logits.dtype in (torch.float16, torch.bfloat16) else logits": ""},
    says="Your functions compute float64 in float32.", next_step="Convert float16 and bfloat16 alone.",
)  # fmt: skip
problem.slip(
    "sequence_mean_counts_column_0", "answer_only_loss",
    {"counts = target.sum(1)": "counts = (answer_mask == 1).sum(1)"},
    says="Your sequence mean divides by the mask's totals before the shift.", next_step=COUNT,
)  # fmt: skip
problem.slip(
    "empty_rows_give_nan", "answer_only_loss", {"(sums[counts > 0] / counts[counts > 0])": "(sums / counts)"},
    says="Your sequence mean is NaN where a row has no target: 0 divided by 0.",
    next_step="Average over the rows that have targets.",
)  # fmt: skip
problem.slip(
    "changes_inputs", "answer_only_loss", {TARGETS: f"{TARGETS}\n    {TOKENS}[~target] = -100"},
    says="Your function writes into one of its arguments.", next_step="Work on a copy.",
)  # fmt: skip
problem.slip(
    "column_0_is_an_answer", "targets", {"if not bool(target.any())": "if not bool(answer_mask.any())"},
    says="A batch whose only ones stand in column 0 is accepted in silence.",
    next_step="Look for targets after the shift.",
)  # fmt: skip
problem.slip(
    "empty_gives_nan", "targets",
    {'raise ValueError("answer: no row has a token to learn (column 0 is never one)")': "pass"},
    says="A batch without targets gives NaN, the mean of nothing.", next_step="Refuse it by name: `answer`.",
)  # fmt: skip
problem.slip(
    "shapes_may_broadcast", "targets",
    {
        "if input_ids.shape != logits.shape[:2] or answer_mask.shape != logits.shape[:2]:":
        """def fits(part):
        return part.ndim == 2 and all(a in (1, b) for a, b in zip(part.shape, logits.shape[:2], strict=True))

    if fits(input_ids) and fits(answer_mask):
        input_ids, answer_mask = input_ids.expand(logits.shape[:2]), answer_mask.expand(logits.shape[:2])
    else:"""
    },
    says="A mask or ids of one row or one column are repeated in silence.", next_step="Compare the shapes themselves.",
)  # fmt: skip
problem.slip(
    "mask_checked_after_the_shift", "targets",
    {BINARY: BINARY.replace("answer_mask", "answer_mask[:, 1:]")},
    says="Column 0 of the mask isn't checked.", next_step="Check the mask before you shift it.",
)  # fmt: skip
problem.slip(
    "mask_checked_from_above", "targets", {BINARY: "not (answer_mask > 1).any()"},
    says="Some masks with other values than 0 and 1 are accepted in silence.",
    next_step="Compare with 0 and with 1, not with a bound.",
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
    "grad_fails_at_minus_100", "answer_only_grad",
    {
        "onehot = F.one_hot(input_ids[:, 1:][target].long(), logits.shape[-1])":
        "onehot = F.one_hot(input_ids[:, 1:].long(), logits.shape[-1])[target]"
    },
    says="Your gradient fails where ids outside the answer, such as -100, are no tokens.",
    next_step="Look ids up at the targets only.",
)  # fmt: skip
problem.slip(
    "grad_nan_leaks", "answer_only_grad",
    {
        "[target]).softmax(-1)": ").softmax(-1)",
        "onehot = F.one_hot(input_ids[:, 1:][target].long(), logits.shape[-1])":
        f"onehot = F.one_hot(input_ids[:, 1:]{VALID}.long(), logits.shape[-1])",
        "grad[:, :-1][target] = (probabilities": "grad[:, :-1] = target[..., None] * (probabilities",
    },
    says="A NaN that predicts nothing gets into your gradient: NaN times 0 is NaN.",
    next_step="Select by the mask instead of multiplying by it.",
)  # fmt: skip
problem.slip(
    "grad_not_masked", "answer_only_grad",
    {
        TARGETS: f"{TARGETS}\n    count, target = target.sum(), target | True",
        ".long()": f"{VALID}.long()",
        "/ target.sum()": "/ count",
    },
    says="Your gradient reaches positions that predict no answer token.",
    next_step="Write it only at the positions that predict a target.",
)  # fmt: skip

problem.slip(
    "grad_carries_a_graph", "answer_only_grad",
    {"wide(logits[:, :-1][target])": "wide(logits[:, :-1][target]).requires_grad_()"},
    says="Your gradient hangs on a graph.", next_step="Compute it without a graph: detach the logits first.",
)  # fmt: skip
problem.slip(
    "grad_by_autograd", "answer_only_grad", {"wide(logits[": "wide(logits.detach().requires_grad_()["},
    says="Your gradient asks autograd, which refuses to work on these inputs.",
    next_step="Write the formula of the gradient down.",
)  # fmt: skip
problem.slip(
    "grad_exponentiates", "answer_only_grad",
    {
        "probabilities = wide(": "exponentials = wide(",
        ".softmax(-1)": ".exp()\n    probabilities = exponentials / exponentials.sum(-1, keepdim=True)",
    },
    says="Your gradient exponentiates the logits as they are: e to the 3,000 is infinite.",
    next_step="Subtract the largest logit first, or let torch's softmax do it.",
)  # fmt: skip
problem.slip(
    "grad_in_half", "answer_only_grad", {"wide(logits[:, :-1][target])": "logits[:, :-1][target]"},
    says="Your gradient is computed in the logits' half precision.",
    next_step="Turn bfloat16 and float16 into float32 first.",
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
problem.slip(
    "weights_without_the_empty", "accumulation_weights",
    {"for count in token_counts]": "for count in token_counts if count]"},
    says="A micro-batch without targets gets no weight at all in your list.", next_step="Give it the weight 0.",
)  # fmt: skip
problem.slip(
    "takes_negative_counts", "accumulation_weights",
    {"any(count < 0 for count in token_counts)": "sum(token_counts) < 0"},
    says="A negative count is accepted in silence where the total is positive.", next_step="Look at each count.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "answer_only_loss: 0 (#2) -> -1": "the row sums have one axis: -1 is 0",
    "answer_only_grad: -1 (#2) -> 1": "the selected logits have two axes: -1 is 1",
})  # fmt: skip
