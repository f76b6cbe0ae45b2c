"""How the DPO loss is judged.

The function for the loss is used by four checks. Only `loss` compares its values with the reference's; `stab`, `smooth`
and `ref` compare the student's own answers with one another, so that one wrong formula isn't paid for four times.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ftgrade.judging.corners import as_views, corners, in_dtype, wanting_gradients
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

problem = Problem(part="07_preference", difficulty=3, importance=5, minutes=60)

Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def logps(rng: Rng, pairs: int | None, scale: float = 4.0) -> Four:
    """Return log-probabilities (policy chosen, policy rejected, reference chosen, reference rejected) in float64."""
    shape = () if pairs is None else (pairs,)
    one, two, three, four = (
        torch.from_numpy(-scale * rng.uniform(0.5, 3.0, size=shape or 1)).reshape(shape) for _ in range(4)
    )
    return one, two, three, four


def long_answers(rng: Rng, steps: int = 2**40) -> Four:
    """Return log-probabilities near -3,000 whose differences are small: multiples of 1 / `steps`."""
    one, two, three, four = (
        torch.from_numpy(np.round(rng.uniform(-1.0, 1.0, size=3) * steps) / steps - 3000.0) for _ in range(4)
    )
    return one, two, three, four


def wanting_gradients_of_policy(case: Case) -> Case:
    """Return the corner in which the policy's two tensors want a gradient, which is compared."""
    given = [part.clone() for part in case.call.arguments[:4]]
    for part in given[:2]:
        part.requires_grad_()
    asked = dataclasses.replace(case.call, arguments=(*given, *case.call.arguments[4:]), backward=True)
    return dataclasses.replace(case, words=f"{case.words}, with gradients", call=asked, once=True)


def some_beta(rng: Rng) -> float:
    return float(rng.choice([0.05, 0.2, 0.3, 0.5]))


def margins(h: list[float], dtype: torch.dtype = torch.float32) -> Four:
    """Return log-probabilities with these margins, all of them in the policy's preference."""
    margin = torch.tensor(h, dtype=torch.float64)
    zero = torch.zeros_like(margin)
    one, two, three, four = (part.to(dtype) for part in (zero + margin.clamp(max=0), -margin.clamp(min=0), zero, zero))
    return one, two, three, four


# ------------------------------------------------------------------------------------------------------------ checks


def tokens(rng: Rng) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits, ids and a mask with unequal answers, padding, a gap, a 1 in column 0 and a row without targets."""
    batch, time, vocab = 4, int(rng.integers(7, 10)), int(rng.integers(11, 19))
    logits = torch.from_numpy(rng.normal(scale=2.0, size=(batch, time, vocab)))
    ids = torch.from_numpy(rng.integers(0, vocab, size=(batch, time)))
    mask = torch.zeros(batch, time, dtype=torch.bool)
    mask[0, 2:5] = True
    mask[1, 3:time] = True
    mask[1, 5] = False
    mask[2, 0] = True
    mask[2, time - 2] = True
    mask[3, 0] = True
    return logits, ids, mask


MASK_DTYPES = (
    torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64,
)  # fmt: skip

problem.promise(
    "seq", "Return the log-probability of each row's answer: a sum over its answer tokens, in nats.",
    "`logits` is (batch, time, vocab), `input_ids` (int64) and `answer_mask` are (batch, time); each has a row and a "
    "column at least.",
    "an answer token more makes an answer no likelier.",
)  # fmt: skip
GRAPH = problem.promise("graph", "If there is a target, the result can be differentiated with respect to `logits`.")
MASKS = problem.promise("masks", "The mask is bool, int or float (of 16 bits too) with values 0 and 1.")


@problem.check(
    "seq", points=1.25, of="sequence_logprob", title="the log-probability of an answer",
    concerns=["unequal lengths and gaps", "masks of any dtype", "gradients"],
    next_step="Write the tokens of one short row under each other with the logits that predict them, and add by hand.",
)  # fmt: skip
def seq(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = tokens(rng)
    mask[:, 0], mask[3, 1] = False, True  # every row has an answer here, and column 0 is the prompt's
    plain = Case("answers of unequal length", call("sequence_logprob", logits, ids, mask))
    yield plain
    yield as_views(in_dtype(torch.float32)(plain))
    yield wanting_gradients(dataclasses.replace(plain, promise=GRAPH))
    for kind in (torch.int64, torch.float32):
        yield Case(f"a mask of {kind}", call("sequence_logprob", logits, ids, mask.to(kind)), promise=MASKS)
    for kind in MASK_DTYPES:
        asked = call("sequence_logprob", logits.clone().requires_grad_(), ids, mask.to(kind), backward=True)
        yield Case("a mask of another dtype, with gradients", asked, promise=MASKS, once=True)
        yield as_views(
            Case("a mask of another dtype", call("sequence_logprob", logits, ids, mask.to(kind)), promise=MASKS)
        )
    time = 301
    long = torch.from_numpy(rng.normal(size=(2, time, 3))), torch.from_numpy(rng.integers(0, 3, size=(2, time)))
    for kind in (torch.bool, torch.int8, torch.float16, torch.bfloat16):
        asked = call("sequence_logprob", *long, torch.ones(2, time, dtype=kind))
        yield Case("an answer of 300 tokens", asked, promise=MASKS, once=True)
    for part, words in ((slice(0, 1), "one row"), (slice(0, 2), "two rows")):
        asked = call("sequence_logprob", logits[part].clone().requires_grad_(), ids[part], mask[part], backward=True)
        yield Case(f"{words}, with gradients", asked, promise=GRAPH, once=True)


ROWS = problem.promise(
    "rows", "Column 0 has nothing before it and is never a target.", "A row without targets gives 0."
)
OUTSIDE = problem.promise(
    "outside", "What stands at other positions (ids of -100, logits that are NaN) has no influence, neither on the "
    "value nor on the gradient.", "what isn't predicted doesn't count",
)  # fmt: skip
PRECISE = problem.promise(
    "precise", "An answer's logits are finite and may lie 20,000 apart.",
    "float64 stays float64; bfloat16 and float16 are computed in float32 and give float32.",
)  # fmt: skip
FIT = problem.promise("fit", "ValueError naming `shape` if the three don't agree in batch and time.")


@problem.check(
    "out", points=1, of="sequence_logprob", title="what stands around the answer", same=Close(dtype=True),
    concerns=["-100 and NaN outside the answer", "column 0, rows without an answer", "far logits, bf16", "shapes"],
    next_step="Select the answer's positions first, and compute only there, in float32 at least.",
)  # fmt: skip
def out(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = tokens(rng)
    yield Case("a 1 in column 0, a row without targets", call("sequence_logprob", logits, ids, mask), promise=ROWS)
    for kind in MASK_DTYPES:
        nothing = torch.zeros_like(mask).to(kind)
        nothing[:, 0] = 1
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            asked = call("sequence_logprob", logits.to(dtype), ids, nothing)
            yield Case("no row has a target", asked, promise=ROWS, once=True)
        asked = call("sequence_logprob", logits, ids, (mask.T | mask.T.any(0)).T.to(kind))
        yield Case("a 1 in column 0 of a mask of another dtype", asked, promise=ROWS, once=True)
    yield wanting_gradients(Case("a 1 in column 0", call("sequence_logprob", logits, ids, mask), promise=ROWS))
    one = call("sequence_logprob", logits[:, :1], ids[:, :1], mask[:, :1])
    yield Case("a single column", one, promise=ROWS)
    target = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], dim=1)
    yield Case("ids of -100", call("sequence_logprob", logits, ids.where(target, -100), mask), promise=OUTSIDE)
    broken = logits.clone()
    broken[:, :-1][~target[:, 1:]] = math.nan
    broken[:, -1] = math.inf
    nan = Case("NaN logits where nothing is predicted", call("sequence_logprob", broken, ids, mask), promise=OUTSIDE)
    yield wanting_gradients(nan)
    yield from nonsense_elsewhere(logits, ids, mask, target)
    yield Case("logits thousands apart", call("sequence_logprob", 1500 * logits, ids, mask), promise=PRECISE)
    halves = Case("logits", call("sequence_logprob", logits, ids, mask), promise=PRECISE)
    yield from corners(halves, in_dtype(torch.bfloat16), in_dtype(torch.float16))
    yield from far_logits(logits, ids, mask)
    few = logits[:2, :5, :4].clone(), ids[:2, :5] % 4, mask[:2, :5]
    for dtype in (torch.bfloat16, torch.float16):
        given = few[0].to(dtype)
        asked = tuple(
            call("sequence_logprob", one.clone().requires_grad_(), *few[1:], backward=True)
            for one in (given, given.float())
        )
        yield Relation(f"gradients of logits in {dtype}", asked, same_slopes, PRECISE)
    yield from unequal_shapes(logits, ids, mask)


def nonsense_elsewhere(
    logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, target: torch.Tensor
) -> Iterator[Case]:
    """Yield cases with nonsense where nothing is predicted: ids that are no tokens, logits that are no numbers."""
    vocab = logits.shape[-1]
    for kind, wrong in itertools.product((torch.bool, torch.int64, torch.float32), (-100, -1, vocab, 2**40)):
        words = "ids that are no tokens outside the answer, with gradients"
        given = call(
            "sequence_logprob", logits.clone().requires_grad_(), ids.where(target, wrong), mask.to(kind), backward=True
        )
        yield Case(words, given, promise=OUTSIDE, once=True)
    for dtype, wrong in itertools.product(
        (torch.float64, torch.float32, torch.bfloat16, torch.float16), (math.nan, math.inf, -math.inf)
    ):
        broken = logits.to(dtype)
        broken[:, :-1][~target[:, 1:]] = wrong
        broken[:, -1] = wrong
        plain = Case("logits that are no numbers", call("sequence_logprob", broken, ids, mask), promise=OUTSIDE)
        yield as_views(plain)
        if dtype in (torch.float64, torch.float32):
            yield wanting_gradients(plain)
        for kind in (torch.int64, torch.float32):
            asked = call("sequence_logprob", broken, ids.where(target, -100), mask.to(kind))
            yield Case("nonsense in logits and ids", asked, promise=OUTSIDE, once=True)


def far_logits(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> Iterator[Case]:
    """Yield cases with logits that lie far apart, or far from 0."""
    places = torch.arange(logits.shape[-1]) % 3
    for dtype, far in itertools.product(
        (torch.float64, torch.float32, torch.bfloat16, torch.float16), (10_000.0, 1_500.0, 100.0)
    ):
        apart = far * (places - 1.0).expand(logits.shape).to(dtype)
        asked = call("sequence_logprob", apart, ids, mask)
        yield Case("logits that are up to 20,000 apart", asked, promise=PRECISE, once=True)
        if dtype == torch.float64 or (dtype == torch.float32 and far > 1_000):
            # Logits differ by 40 at least: a style that subtracts a logarithm from 10,000 has no digits for less.
            distinct = 0.9 * apart + 40 * torch.arange(logits.shape[-1]).to(dtype)
            asked = call("sequence_logprob", distinct, ids, mask)
            yield wanting_gradients(Case("logits that are far apart", asked, promise=PRECISE))
    for offset in (-20_000.0, 20_000.0):
        asked = call("sequence_logprob", logits + offset, ids, mask)
        yield Case("logits that are all large", asked, promise=PRECISE, once=True)


def same_slopes(half: Value, full: Value) -> Difference | None:
    """Hold a half-precision call to give the gradients of the same numbers in float32, to its own precision."""
    if bad := unsound(half, full):
        return bad
    for mine, right in itertools.zip_longest(half.gradients or (None,), full.gradients or (None,)):
        if right is None and mine is None:
            continue
        if right is None or mine is None:
            return Difference("an input got no gradient in one of two dtypes")
        if not bool(right.any()) or Close(rtol=0.02)(right, mine) is not None:
            return Difference("the gradient in half precision isn't that of the same numbers in float32")
    return None if half.gradients else Difference("the result can't be differentiated: the graph was cut")


def unequal_shapes(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> Iterator[Refusal]:
    """Yield errors: other numbers of rows and columns in one or two of three tensors, or other axes."""
    three = (logits[:3, :5].contiguous(), ids[:3, :5], mask[:3, :5])
    twin: Call | None = call("sequence_logprob", *three)
    for axis, sizes in ((0, (1, 2, 4)), (1, (1, 4, 6))):
        for some in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in (1, 2)):
            for size in sizes:
                given = [resized(part, axis, size) if place in some else part for place, part in enumerate(three)]
                words = f"other {'rows' if axis == 0 else 'columns'} in {len(some)} of three"
                yield Refusal(words, call("sequence_logprob", *given), "shape", twin, promise=FIT)
                twin = None
    changes: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        lambda part: part[0], lambda part: part[:, 0], lambda part: part[None], lambda part: part[..., None],
        lambda part: part.T, lambda part: part.flatten(),
    )  # fmt: skip
    for change in changes:
        for places in ((1,), (2,), (1, 2)):
            given = [change(part) if place in places else part for place, part in enumerate(three)]
            asked = call("sequence_logprob", *given)
            yield Refusal("ids or mask with other axes", asked, "shape", promise=FIT)


def resized(part: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Return a tensor with another size of an axis, cut or repeated."""
    return torch.cat([part, part], dim=axis).narrow(axis, 0, size)


problem.promise(
    "loss", "Return the DPO loss of preference pairs, in nats: their mean",
    "The four tensors hold one answer's log-probability per pair and have one common dtype and one common shape:",
    "() for a single pair, or (pairs,).",
    "a policy equal to its reference scores ln 2, whatever beta is, and preferring the chosen answer costs less.",
    "The mean is over all pairs: if the loss of one is NaN, so is the mean.",
)  # fmt: skip
EACH = problem.promise("each", 'or one number a pair for `reduction="none"`.')


@problem.check(
    "loss", points=2.25, of="dpo_loss", title="the loss",
    concerns=["one pair and many", "several betas and the default", "a policy equal to its reference", "reductions"],
    next_step="Compute the margin of the warm-up's pair by hand, and follow it through your function.",
)  # fmt: skip
def loss(rng: Rng) -> Iterator[AnyCase]:
    pairs, beta = int(rng.integers(3, 6)), some_beta(rng)
    four = logps(rng, pairs)
    yield Case("a batch and another beta", call("dpo_loss", *four, beta=beta))
    yield as_views(in_dtype(torch.float32)(Case("the default beta", call("dpo_loss", *logps(rng, pairs)))))
    yield Case("a single pair", call("dpo_loss", *logps(rng, None), beta))
    chosen, rejected = four[:2]
    yield Case("a policy equal to its reference", call("dpo_loss", chosen, rejected, chosen, rejected, beta=beta))
    yield Case("one number a pair", call("dpo_loss", *four, beta, 0.0, "none"), promise=EACH)
    yield Case("one number of a single pair", call("dpo_loss", *logps(rng, None), reduction="none"), promise=EACH)
    unknown = [part.clone() for part in four]
    unknown[int(rng.integers(4))][0] = math.nan
    yield Case("a log-probability that is NaN", call("dpo_loss", *unknown))
    for place, reduction in itertools.product(range(4), ("mean", "none")):
        unknown = [part.clone() for part in four]
        unknown[place][-1] = math.nan
        asked = call("dpo_loss", *unknown, beta, 0.0, reduction)
        of = EACH if reduction == "none" else ""
        yield Case("a log-probability that is NaN", asked, promise=of, once=True)
    for size, strength in itertools.product((None, 1, 2, 7), (1e-3, 0.1, 1)):
        given = logps(rng, size)
        yield Case("other betas", call("dpo_loss", *given, strength), once=True)
        yield Case("one number a pair", call("dpo_loss", *given, strength, 0.0, "none"), promise=EACH, once=True)
    for strength in (3.0, 20.0):
        asked = call("dpo_loss", *logps(rng, 4), strength, reduction="none")
        yield Case("large betas, one number a pair", asked, promise=EACH, once=True)
    long = call("dpo_loss", *long_answers(rng), 1.0, reduction="none")
    yield Case("long answers in float64", long, promise=EACH, once=True)
    exact = Case("long answers", call("dpo_loss", *long_answers(rng, 16), 1.0))
    yield from corners(exact, in_dtype(torch.float32), as_views, wanting_gradients_of_policy)


LARGE = 10_000.0


def unsound(*outcomes: Value) -> Difference | None:
    """Return what is wrong with outcomes of any formula: a changed input, NaN, or an infinity."""
    if any(outcome.changed for outcome in outcomes):
        return Difference("it changed one of its inputs; work on a copy")
    return next(filter(None, map(finite, outcomes)), None)


def total(outcome: Value) -> float:
    """Return the sum of the losses."""
    return float(torch.as_tensor(outcome.value).detach().sum())


def slope(outcome: Value) -> float:
    """Return the derivative by the chosen answer's log-probability, or NaN if there is none."""
    gradients = outcome.gradients or (None,)
    return math.nan if gradients[0] is None else float(gradients[0].sum())


def logistic(size: float = LARGE) -> Callable[[Value], Difference | None]:
    """Return a demand on losses of margins -size, 0 and size: that they are softplus(-c h) times any factor.

    So are their gradients, of which the rejected answer's is the chosen one's with the other sign.
    """

    def holds(outcome: Value) -> Difference | None:
        if bad := unsound(outcome):
            return bad
        gradients = (outcome.gradients or ())[:2]
        if len(gradients) < 2 or gradients[0] is None or gradients[1] is None:
            return Difference("the result can't be differentiated: the graph was cut")
        minus, start, plus = zip(outcome.value.tolist(), gradients[0].tolist(), strict=True)
        (steep, steep_pull), (flat, flat_pull) = sorted((minus, plus), reverse=True)
        pull = 2 * start[1]
        near = (
            abs(steep - size * abs(pull)) <= 1e-3 * steep
            and abs(steep_pull - pull) <= 1e-3 * abs(pull)
            and 0 <= flat <= 1e-3 * start[0]
            and abs(flat_pull) <= 1e-3 * abs(pull)
            and torch.allclose(gradients[1], -gradients[0], rtol=1e-3, atol=1e-6 * abs(pull))
        )
        return None if near and pull else Difference("far margins don't continue what it does near 0")

    return holds


def mean_of_far(each: Value, mean: Value) -> Difference | None:
    """Hold the gradient of far margins' mean to be that of the losses one by one, times the same factor."""
    if bad := unsound(each, mean):
        return bad
    if not each.gradients or not mean.gradients or each.gradients[0] is None or mean.gradients[0] is None:
        return Difference("the result can't be differentiated: the graph was cut")
    factor = total(mean) / total(each)  # a sum for a mean is another check's
    near = factor > 0 and torch.allclose(mean.gradients[0], factor * each.gradients[0], rtol=1e-4, atol=1e-6)
    return None if near else Difference("the gradient of the mean isn't that of the losses one by one")


def halves(bf16: Value, rounded: Value, fp16: Value, cut: Value, double: Value) -> Difference | None:
    """Hold half precision to give what the same numbers give in float32, and no constant."""
    if bad := unsound(bf16, rounded, fp16, cut, double):
        return bad
    dtypes = [getattr(outcome.value, "dtype", None) for outcome in (bf16, fp16, double)]
    if dtypes != [torch.float32, torch.float32, torch.float64]:
        return Difference("half precision gives float32, and float64 gives float64")
    near = all(
        abs(number(one) - number(other)) <= 1e-5 * max(1.0, abs(number(other)))
        for one, other in ((bf16, rounded), (fp16, cut))
    )
    if near and len({number(one) for one in (bf16, fp16, double)}) == 3:
        return None
    return Difference("half-precision inputs give another number than the same inputs in float32")


FAR = problem.promise(
    "far", "Margins of 10,000, of either sign, give finite losses and finite gradients.",
    "a far margin costs beta times its size, or nothing;",
)  # fmt: skip
HALF = problem.promise("half", "float64 stays float64; bfloat16 and float16 are computed in float32 and give float32.")


@problem.check(
    "stab", points=1.25, of="dpo_loss", title="far margins and half precision",
    concerns=["margins of ten thousand", "gradients there", "bf16 and fp16 inputs"],
    next_step="Find a function of torch that computes log(sigmoid(x)) without computing sigmoid(x) first.",
)  # fmt: skip
def stab(rng: Rng) -> Iterator[AnyCase]:
    beta = float(rng.choice([0.05, 0.1, 0.25]))
    for dtype, size, strength in (
        (torch.float32, LARGE, beta), (torch.float64, LARGE, beta), (torch.float32, LARGE, 3.0),
        (torch.float64, LARGE, 3.0), (torch.float32, LARGE, 20.0), (torch.float32, 3_000.0, beta),
        (torch.float32, 800.0, 0.5), (torch.float64, 800.0, 1.0), (torch.float32, 100.0, 1.0),
    ):  # fmt: skip
        each, mean = (
            call("dpo_loss", *asking_policy(margins([-size, 0.0, size], dtype)), strength, 0.0, word, backward=True)
            for word in ("none", "mean")
        )
        yield Relation("margins of plus and minus ten thousand", (each,), logistic(size), FAR)
        if size == LARGE and strength != 20.0:
            yield Relation("the mean of far margins", (each, mean), mean_of_far, FAR)
    asked: list[Call] = []
    for dtype in (torch.bfloat16, torch.float16):
        half = [part.to(dtype) for part in logps(rng, 4, 30.0)]
        asked += [call("dpo_loss", *half, beta), call("dpo_loss", *(part.float() for part in half), beta)]
    asked.append(call("dpo_loss", *logps(rng, 4), beta))
    yield Relation("inputs in bfloat16 and float16", tuple(asked), halves, HALF)
    options = ((None, 0.0, "mean"), (None, 0.2, "none"), (4, 0.0, "none"), (4, 0.2, "mean"))
    for dtype in (torch.bfloat16, torch.float16):
        for size, epsilon, word in options:
            half = [part.to(dtype) for part in logps(rng, size)]
            both = tuple(
                call("dpo_loss", *asking_policy(given), beta, epsilon, word, backward=True)
                for given in (half, [part.float() for part in half])
            )
            yield Relation("half precision, with gradients", both, like_float32, HALF)
    for size, epsilon, word in options:
        given = call("dpo_loss", *logps(rng, size), beta, epsilon, word)
        yield Relation("inputs in float64", (given,), in_float64, HALF)


def asking_policy(four: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies of four tensors of which the policy's two want a gradient."""
    return [part.clone().requires_grad_(place < 2) for place, part in enumerate(four)]


def like_float32(half: Value, full: Value) -> Difference | None:
    """Hold a half-precision call to give the numbers of float32 in float32, and its gradients too."""
    if bad := unsound(half, full):
        return bad
    if getattr(half.value, "dtype", None) != torch.float32:
        return Difference("half precision gives float32")
    if not torch.allclose(half.value.detach(), full.value.detach().float(), rtol=1e-5, atol=1e-6):
        return Difference("half-precision inputs give another number than the same inputs in float32")
    return same_slopes(half, full)


def in_float64(got: Value) -> Difference | None:
    right = getattr(got.value, "dtype", None) == torch.float64
    return unsound(got) if right else Difference("float64 gives float64")


def expectation(epsilon: float) -> Callable[[Value, Value, Value], Difference | None]:
    """Return a demand: the first is the expectation of the others, over the labels; so are its gradients."""

    def mixed(right: Any, wrong: Any) -> torch.Tensor:
        return (1 - epsilon) * torch.as_tensor(right).detach() + epsilon * torch.as_tensor(wrong).detach()

    def holds(smoothed: Value, right: Value, wrong: Value) -> Difference | None:
        if bad := unsound(smoothed, right, wrong):
            return bad
        pairs = [(smoothed.value, mixed(right.value, wrong.value))]
        if right.gradients and wrong.gradients:
            if not smoothed.gradients:
                return Difference("the smoothed loss can't be differentiated: the graph was cut")
            # The wrong label exchanges the answers: what was the first argument is the second there.
            pairs.append((smoothed.gradients[0], mixed(right.gradients[0], wrong.gradients[1])))
        near = all(torch.allclose(got.detach(), wanted, rtol=1e-5, atol=1e-6) for got, wanted in pairs)
        losses = torch.stack([torch.as_tensor(right.value), torch.as_tensor(wrong.value)])
        if near and bool((losses >= 0).all()) and not torch.allclose(losses[0], losses[1]):
            return None
        return Difference("the smoothed loss isn't the expectation of your own loss over the two labels")

    return holds


problem.promise(
    "smooth", "`label_smoothing` is the probability that a pair's label is wrong: the pair's loss is then the "
    "expectation over both labels.", "smoothing weighs the two.", "It goes with both reductions.",
)  # fmt: skip


@problem.check(
    "smooth", points=0.5, of="dpo_loss", title="label smoothing, against your own loss",
    concerns=["small and large smoothing", "far margins", "both reductions", "gradients"],
    next_step="Write the loss for both labels, and weigh them with 1 - label_smoothing and label_smoothing.",
)  # fmt: skip
def smooth(rng: Rng) -> Iterator[AnyCase]:
    for epsilon, reduction, h in ((0.1, "none", [-LARGE, LARGE, 1.5]), (0.35, "mean", [LARGE, 0.5, -3.0])):
        beta = some_beta(rng)
        pc, pr, rc, rr = (one + other for one, other in zip(logps(rng, 3), margins(h, torch.float64), strict=True))
        if reduction == "none":
            pc.requires_grad_()
        right, wrong = (pc, pr, rc, rr, beta), (pr, pc, rr, rc, beta)
        calls = tuple(
            call("dpo_loss", *four, smoothing, reduction, backward=reduction == "none")
            for four, smoothing in ((right, epsilon), (right, 0.0), (wrong, 0.0))
        )
        yield Relation(f"a label that may be wrong, reduction {reduction}", calls, expectation(epsilon))
    for epsilon, reduction, size in (
        (1e-3, "none", None), (0.49, "mean", None), (0.25, "mean", 1), (0.49, "none", 4), (0.25, "mean", 4),
    ):  # fmt: skip
        pc, pr, rc, rr = (part.float() for part in logps(rng, size))
        right, wrong = (pc, pr, rc, rr, 0.3), (pr, pc, rr, rc, 0.3)
        calls = tuple(
            call("dpo_loss", *asking_policy(four[:4]), four[4], smoothing, reduction, backward=True)
            for four, smoothing in ((right, epsilon), (right, 0.0), (wrong, 0.0))
        )
        yield Relation(f"other smoothing, reduction {reduction}", calls, expectation(epsilon))


def constant_reference(one: Value, other: Value) -> Difference | None:
    """Hold the loss to use the reference, which is all that differs in `other`, and to send no gradient there."""
    if bad := unsound(one, other):
        return bad
    for outcome in (one, other):
        if outcome.gradients is None or any(part is None or not bool(part.all()) for part in outcome.gradients[:2]):
            return Difference("the policy's log-probabilities got no gradient: the graph was cut")
        if any(part is not None and bool(part.any()) for part in outcome.gradients[2:4]):
            return Difference("a gradient reached the reference's log-probabilities")
    half = one.gradients is not None and one.gradients[0].dtype in (torch.bfloat16, torch.float16)
    used = total(one) != total(other) and (half or slope(one) != slope(other))  # half precision rounds slopes together
    return None if used else Difference("another reference gives the same loss or the same gradient")


problem.promise(
    "ref", "The result can be differentiated with respect to the policy's two tensors; the reference's two never "
    "receive a gradient, even if they ask for one.",
)  # fmt: skip


@problem.check(
    "ref", points=0.5, of="dpo_loss", title="the reference is a constant",
    concerns=["reference tensors that ask for a gradient"],
    next_step="Cut the reference's tensors off from the graph before you use them.",
)  # fmt: skip
def ref(rng: Rng) -> Iterator[AnyCase]:
    policy, one, other = ([part.requires_grad_() for part in logps(rng, 3)[:2]] for _ in range(3))
    calls = tuple(call("dpo_loss", *policy, *reference, backward=True) for reference in (one, other))
    yield Relation("reference tensors that require grad", calls, constant_reference)
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    options = ((3, "none", 0.2), (None, "mean", 0.0), (3, "mean", 0.2))
    for dtype, (size, word, epsilon) in itertools.product(dtypes, options):
        given = [part.to(dtype).requires_grad_() for part in logps(rng, size)]
        other = [(part.detach() + step).requires_grad_() for part, step in zip(given[2:], (-1.0, 2.0), strict=True)]
        calls = tuple(
            call("dpo_loss", *given[:2], *reference, 0.3, epsilon, word, backward=True)
            for reference in (given[2:], other)
        )
        yield Relation("reference tensors that require grad, other calls", calls, constant_reference)
    for place in (2, 3):
        given, others = (asking_policy(logps(rng, 3)) for _ in range(2))
        for four in (given, others):
            four[place].requires_grad_()
        calls = tuple(call("dpo_loss", *given[:2], *four[2:], backward=True) for four in (given, others))
        yield Relation("one reference tensor that requires grad", calls, constant_reference)


def detached(expected: Any, got: Any) -> Difference | None:
    """Demand close numbers of the right dtype that are cut off from the graph."""
    difference = Close(dtype=True)(expected, got)
    if difference is None and attached(got) and not attached(expected):
        return Difference("the numbers are right, but they still hang on the graph")
    return difference


def attached(values: Any) -> bool:
    return any(part.requires_grad for part in values if torch.is_tensor(part))


BAD_BETAS = (
    ("zero", 0.0), ("NaN", math.nan), ("infinity", math.inf), ("less than zero", -0.3), ("minus one", -1),
    ("minus infinity", -math.inf), ("an integer of zero", 0), ("a tiny negative number", -1e-12), ("minus zero", -0.0),
)  # fmt: skip
BAD_SHAPES = ((1,), (), (3, 1), (2,), (1, 3), (4,))
"""Shapes beside three pairs; the first three broadcast."""


def refusals(function: str, four: Sequence[torch.Tensor], promise: str, *others: str) -> Iterator[Refusal]:
    """Yield the errors that the functions of four tensors have in common; `others` are the function's other errors."""

    def ask(parts: Sequence[torch.Tensor], **options: Any) -> Call:
        return call(function, *parts, **options)

    def refused(words: str, asked: Call, keyword: str, twin: Call | None = None) -> Refusal:
        rest = tuple(name for name in ("beta", "shape", "empty", *others) if name != keyword)
        return Refusal(words, asked, keyword, twin, rest, promise)

    single = [part[0] for part in four]
    every: list[dict[str, Any]] = [{}, {"reduction": "none"}, {"label_smoothing": 0.2}] if others else [{}]
    for options, (words, beta) in itertools.product(every, BAD_BETAS):
        twin = ask(four, beta=2, **options) if beta == 0.0 else None
        yield refused(f"a beta of {words}", ask(four, beta=beta, **options), "beta", twin)
    yield refused("a beta of zero for a single pair", ask(single, beta=0.0), "beta", ask(single, beta=1e-6))
    yield refused("a negative beta for a single pair", ask(single, beta=-0.5), "beta", ask(single, beta=1e3))
    for count in (1, 2, 3):
        for some in itertools.combinations(range(4), count):
            for shape in BAD_SHAPES if count == 1 else BAD_SHAPES[:3]:
                parts = [resized_pairs(part, shape) if place in some else part for place, part in enumerate(four)]
                for options in every[:2]:
                    yield refused(f"{count} of four shapes are {shape}", ask(parts, **options), "shape")
            ones = [part.reshape(1) if place in some else part for place, part in enumerate(single)]
            yield refused(f"a single pair, {count} of four as a vector of one", ask(ones), "shape")
    for options in every:
        yield refused("no pairs", ask([part[:0] for part in four], **options), "empty")


def resized_pairs(part: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.cat([part, part])[: math.prod(shape)].reshape(shape)


problem.promise(
    "rew", "Return the implicit rewards (chosen, rejected) of each pair, for logging:",
    "The reward of an answer is beta times the log-ratio of policy and reference.",
    "a policy equal to its reference earns nothing.",
)  # fmt: skip
LOG = problem.promise("log", "cut off from the graph.", "Shapes and dtypes as in `dpo_loss`.")
REW_ERRORS = problem.promise("unrewarded", "ValueError naming `beta`, `shape` or `empty`, as in `dpo_loss`.")


@problem.check(
    "rew", points=0.75, of="implicit_rewards", title="the rewards", same=detached,
    concerns=["another beta and the default", "inputs that require grad, bf16", "invalid input"],
    next_step="Compute both rewards of one pair by hand; they are for logging only.",
)  # fmt: skip
def rew(rng: Rng) -> Iterator[AnyCase]:
    four, beta = logps(rng, 3), some_beta(rng)
    several = Case("several pairs", call("implicit_rewards", *four, beta))
    yield as_views(several)
    yield Case("a single pair, the default beta", call("implicit_rewards", *logps(rng, None)))
    asking = [part.clone().requires_grad_() for part in four]
    yield Case("inputs that require grad", call("implicit_rewards", *asking, beta), promise=LOG)
    yield from corners(several, in_dtype(torch.bfloat16), promise=LOG)
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    for dtype, size in itertools.product(dtypes, (None, 1, 5)):
        for wanted in ((), (0,), (3,), (0, 1), (2, 3), (0, 1, 2, 3)):
            given = [part.to(dtype).requires_grad_(place in wanted) for place, part in enumerate(logps(rng, size))]
            asked = call("implicit_rewards", *given, 0.7)
            yield Case("other shapes and dtypes, some requiring grad", asked, promise=LOG, once=True)
    for strength in (1e-3, 1, 3.0, 20.0):
        yield Case("other betas", call("implicit_rewards", *logps(rng, 3), strength), once=True)
    long = Case("long answers", call("implicit_rewards", *long_answers(rng), 3.0), promise=LOG, once=True)
    yield long
    exact = Case("long answers", call("implicit_rewards", *long_answers(rng, 16), 2), promise=LOG)
    yield from corners(exact, in_dtype(torch.float32), as_views)
    yield from refusals("implicit_rewards", four, REW_ERRORS)


def inference(four: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return tensors that autograd refuses.

    Plain autograd on the arguments fails. Who copies them into fresh leaves and differentiates those is right too,
    by design: that takes more understanding than the formula.
    """
    with torch.inference_mode():
        return [part.clone() for part in four]


problem.promise(
    "grad", "Return the gradient of the mean loss by `policy_chosen` and by `policy_rejected`, from the formula by",
    "The inputs carry no graph and may be inference tensors, on which autograd refuses to work.",
    "what raises one answer lowers the other by as much.",
)  # fmt: skip
ALIKE = problem.promise(
    "alike",
    "Shapes, margins and dtypes as in `dpo_loss`, without label smoothing; each gradient has the shape of its tensor.",
)
GRAD_ERRORS = problem.promise("no_gradient", "ValueError naming `beta`, `shape` or `empty`, as in `dpo_loss`.")


@problem.check(
    "grad", points=1.5, of="dpo_grad", title="the gradient by hand", same=Close(dtype=True),
    concerns=["several pairs", "a single pair", "far margins, bf16", "invalid input"],
    next_step="Differentiate the loss by the margin first; then the margin by each of the two log-probabilities.",
)  # fmt: skip
def grad(rng: Rng) -> Iterator[AnyCase]:
    four, beta = inference(logps(rng, int(rng.integers(3, 6)))), some_beta(rng)
    yield Case("several pairs", call("dpo_grad", *four, beta))
    yield Case("the same, the default beta", call("dpo_grad", *four))
    far = inference(margins([-LARGE, LARGE, 3.0 + float(rng.integers(1, 5))], torch.float64))
    yield Case("far margins", call("dpo_grad", *far, beta), promise=ALIKE)
    yield Case("a single pair", call("dpo_grad", *inference(logps(rng, None)), beta), promise=ALIKE)
    half = inference([part.bfloat16() for part in logps(rng, 3)])
    yield Case("inputs in bfloat16", call("dpo_grad", *half, beta), promise=ALIKE)
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    for dtype, size in itertools.product(dtypes, (None, 1, 2, 9)):
        given = [part.to(dtype) for part in logps(rng, size)]
        for strength in (0.7, 3.0):
            yield Case(
                "other shapes and dtypes", call("dpo_grad", *inference(given), strength), promise=ALIKE, once=True
            )
        yield as_views(Case("other shapes and dtypes", call("dpo_grad", *given, 0.7), promise=ALIKE))
    for dtype, size, strength in itertools.product(dtypes[:2], (LARGE, 3_000.0, 800.0, 100.0), (0.1, 1, 3.0, 20.0)):
        given = inference(margins([-size, 0.0, size, 1.5], dtype))
        yield Case("far margins", call("dpo_grad", *given, strength), promise=ALIKE, once=True)
    long = call("dpo_grad", *inference(long_answers(rng)), 3.0)
    yield Case("long answers", long, promise=ALIKE, once=True)
    exact = Case("long answers", call("dpo_grad", *long_answers(rng, 16), 2), promise=ALIKE)
    yield from corners(exact, in_dtype(torch.float32), as_views)
    yield from refusals("dpo_grad", logps(rng, 3), GRAD_ERRORS)


BAD_SMOOTHING = (0.5, math.nan, -1e-12, -1.0, 0.5 + 1e-9, 0.6, 1, 1.0, 2.0, math.inf, -math.inf, -0.499)
BAD_WORDS = (
    "batchmean", "sum", "MEAN", "Mean", "NONE", "None", "", " mean", "mean ", "none ", "me", "n", "means", "mean_",
    "avg", "average", "no", "nothing", "elementwise", "meannone", "mean none", "m", None,
)  # fmt: skip

ALL_ERRORS = problem.promise(
    "invalid", "ValueError naming `beta` (zero, negative, infinite or NaN)",
    "`shape` (the four shapes differ: nothing is broadcast), `empty` (no pair).",
    "an invalid argument is refused by name.",
)  # fmt: skip
OPTIONS = problem.promise("options", "`label_smoothing` (not within [0, 0.5)), `reduction` (neither word)")


@problem.check(
    "err", points=1, of="dpo_loss", title="invalid input",
    concerns=["beta", "shapes that would broadcast", "no pairs", "label smoothing", "reduction"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    four = logps(rng, 3)
    yield from refusals("dpo_loss", four, ALL_ERRORS, "label_smoothing", "reduction")
    names = ("beta", "label_smoothing", "reduction", "shape", "empty")
    for keyword, valid, invalid in (
        ("label_smoothing", 0.49, BAD_SMOOTHING),
        ("reduction", "none", BAD_WORDS),
    ):
        others = tuple(name for name in names if name != keyword)
        allowed: dict[str, Any] = {keyword: valid}
        twin: Call | None = call("dpo_loss", *four, **allowed)
        for value in (*invalid, *([-float(rng.uniform(0.05, 0.4))] if keyword == "label_smoothing" else [])):
            refused: dict[str, Any] = {keyword: value}
            asked = call("dpo_loss", *four, **refused)
            yield Refusal(f"an invalid {keyword}", asked, keyword, twin, others, OPTIONS)
            twin = None
    for keyword, value, beside in (
        ("label_smoothing", 0.5, {"reduction": "none"}), ("label_smoothing", -0.1, {"reduction": "none"}),
        ("reduction", "sum", {"label_smoothing": 0.2}), ("reduction", "MEAN", {"label_smoothing": 0.2}),
    ):  # fmt: skip
        options: dict[str, Any] = beside | {keyword: value}
        for given in (four, [part[0] for part in four]):
            asked = call("dpo_loss", *given, **options)
            others = tuple(name for name in names if name != keyword)
            yield Refusal(f"an invalid {keyword} beside another option", asked, keyword, None, others, OPTIONS)


@problem.personal(title="your pair", next_step="Compute the margin first: two differences, then theirs.")
def mine(rng: Rng) -> Question:
    four = [-float(number) / 2 for number in rng.choice(np.arange(20, 60), size=4, replace=False)]
    beta = float(rng.choice([0.1, 0.2, 0.3]))
    words = (
        f"The policy gives the chosen answer the log-probability {four[0]:g} and the rejected one {four[1]:g}; the "
        f"reference gives them {four[2]:g} and {four[3]:g}. What is the DPO loss of this pair for beta = {beta:g}?"
    )
    pair = (torch.tensor(number, dtype=torch.float64) for number in four)
    return Question(words, call("dpo_loss", *pair, beta=beta))


# ---------------------------------------------------------------------------------------------------------- mistakes

BY_HAND = "Compute the warm-up's pair by hand and compare each step."
MARGIN = "(pc - pr) - (rc - rr)"
TOTAL = "total.index_add(0, row, logp)"
CHECKED = "checked(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)"
UNCHECKED = "map(at_least_float32, (policy_chosen, policy_rejected, reference_chosen, reference_rejected))"
UPCAST = "Turn bfloat16 and float16 into float32 first."

problem.slip("sign_flipped", "dpo_loss", {"beta * h": "-beta * h"},
    says="Your loss falls when the rejected answer gets likelier: the sign of the margin is reversed.",
    next_step="Which answer should a policy with a large margin prefer, and is its loss small?")  # fmt: skip
problem.slip("no_reference", "dpo_loss", {" - (rc - rr)": ""},
    says="Your loss leaves the reference out.",
    next_step="The margin compares the policy's preference with the reference's.")  # fmt: skip
problem.slip("reference_added", "dpo_loss", {"- (rc - rr)": "+ (rc - rr)"},
    says="Your margin adds the reference's preference instead of subtracting it.",
    next_step="A policy equal to its reference has a margin of 0.")  # fmt: skip
problem.slip("beta_outside", "dpo_loss", {"beta * h": "h", "-F.logsigmoid": "-beta * F.logsigmoid"},
    says="Your beta multiplies the loss; it belongs inside the sigmoid.",
    next_step="At a margin of 0 the loss must be ln 2, whatever beta is.")  # fmt: skip
problem.slip("beta_divides", "dpo_loss", {"beta * h": "h / beta"},
    says="Your margin is divided by beta.", next_step="beta multiplies the margin.")  # fmt: skip
problem.slip("beta_on_policy_only", "dpo_loss", {MARGIN: "beta * (pc - pr) - (rc - rr)", "beta * h": "h"},
    says="Your beta scales the policy's half of the margin only.",
    next_step="Put the margin in brackets: beta multiplies all of it.")  # fmt: skip
problem.slip("beta_default_1", "dpo_loss", {"beta: float = 0.1": "beta: float = 1.0"},
    says="Your default for beta is 1.", next_step="Read the signature: the default is 0.1.")  # fmt: skip
problem.slip("no_beta", "dpo_loss", {"beta * h": "h"},
    says="Your loss doesn't use beta.", next_step="beta multiplies the margin inside the sigmoid.")  # fmt: skip
problem.slip("minus_forgotten", "dpo_loss", {"-F.logsigmoid": "F.logsigmoid"},
    says="Your loss is the log-likelihood itself: the minus is missing.",
    next_step="A loss falls when the model gets better.")  # fmt: skip
problem.slip("sigmoid_not_log", "dpo_loss", {"-F.logsigmoid": "1 - torch.sigmoid"},
    says="Your loss is one minus the probability; the logarithm is missing.",
    next_step="The loss is a negative log-likelihood.")  # fmt: skip
problem.slip("negative_sigmoid", "dpo_loss", {"F.logsigmoid": "torch.sigmoid"},
    says="Your loss is the negative probability; the logarithm is missing.",
    next_step="The loss is a negative log-likelihood.")  # fmt: skip
problem.slip("ratio_of_logprobs", "dpo_loss", {MARGIN: "pc / rc - pr / rr"},
    says="Your margin divides log-probabilities; the log of a ratio is a difference.", next_step=BY_HAND)  # fmt: skip
problem.slip("difference_of_ratios", "dpo_loss", {MARGIN: "(pc - rc).exp() - (pr - rr).exp()"},
    says="Your margin subtracts probability ratios instead of their logarithms.", next_step=BY_HAND)  # fmt: skip
problem.slip("bits", "dpo_loss", {"F.logsigmoid(x)": "F.logsigmoid(x) / math.log(2)"},
    says="Your loss is in bits.",
    next_step="Use the natural logarithm: at a margin of 0 the loss is 0.6931.")  # fmt: skip
problem.slip("hinge", "dpo_loss", {"-F.logsigmoid(x)": "F.relu(1 - x)"},
    says="Your loss is a hinge, not the logistic loss.",
    next_step="Write -log(sigmoid(...)) of the scaled margin.")  # fmt: skip
problem.slip("ipo", "dpo_loss", {"beta * h": "h", "-F.logsigmoid(x)": "(x - 1 / (2 * beta)) ** 2"},
    says="Your loss is IPO's squared distance (arXiv:2310.12036), not DPO's.",
    next_step="Write -log(sigmoid(...)) of the scaled margin.")  # fmt: skip
problem.slip("chosen_only", "dpo_loss", {MARGIN: "pc - rc"},
    says="Your loss looks at the chosen answer only.", next_step="A preference compares two answers.")  # fmt: skip
problem.slip("two_log_sigmoids", "dpo_loss",
    {"(x) for x in (scaled, -scaled)": "(b * (pc - rc)) - F.logsigmoid(b * (rr - pr)) for b in (beta, -beta)"},
    says="Your loss has a sigmoid for each answer; DPO has one for their difference.", next_step=BY_HAND)  # fmt: skip
problem.slip("starts_at_zero", "dpo_loss", {"F.logsigmoid(x)": "F.logsigmoid(x) - math.log(2)"},
    says="Your loss is moved so that it starts at 0; it starts at ln 2.",
    next_step="A policy equal to its reference is undecided: -log(1/2).")  # fmt: skip
problem.slip("halved_margin", "dpo_loss", {"beta * h": "beta * h / 2"},
    says="Your margin is halved.", next_step=BY_HAND)  # fmt: skip
problem.slip("naive_log_sigmoid", "dpo_loss", {"F.logsigmoid(x)": "torch.log(torch.sigmoid(x))"},
    says="Your loss computes the sigmoid first: for a far margin it's 0, and its logarithm infinite.",
    next_step="torch has log(sigmoid(x)) as one function.")  # fmt: skip
problem.slip("clipped_sigmoid", "dpo_loss", {"F.logsigmoid(x)": "torch.log(torch.sigmoid(x).clamp(min=1e-8))"},
    says="Your sigmoid is kept away from 0, so that far margins all cost the same and teach nothing.",
    next_step="torch has log(sigmoid(x)) as one function; it needs no clipping.")  # fmt: skip

problem.slip("skips_nan", "dpo_loss", {"loss.mean()": "loss.nanmean()"},
    says="Your mean leaves out pairs whose loss is NaN, so that a fault in the data goes unseen.",
    next_step="A mean is over all pairs.")  # fmt: skip
problem.slip("always_the_mean", "dpo_loss", {'if reduction == "mean" else loss': "if reduction else loss"},
    says="Your loss is the mean for either reduction.",
    next_step="For `none`, return one number a pair.")  # fmt: skip
problem.slip("sums_pairs", "dpo_loss", {"loss.mean()": "loss.sum()"},
    says="Your loss is the sum over the pairs.",
    next_step="The loss of a batch is the mean over its pairs.")  # fmt: skip
# These come first: each explains less than the next, and in a tie the first is named.
problem.slip("smoothing_unstable", "dpo_loss",
    {"(-F.logsigmoid(x) for x in (scaled, -scaled))":
        "(-F.logsigmoid(scaled), -torch.log(1 - scaled.sigmoid()) if label_smoothing else -F.logsigmoid(-scaled))"},
    says="Your other label's loss is log(1 - sigmoid): for a far margin it's infinite.",
    next_step="1 - sigmoid(x) is sigmoid(-x): use log-sigmoid for both labels.")  # fmt: skip
problem.slip("smoothing_in_the_mean_only", "dpo_loss",
    {"loss = ": 'label_smoothing *= reduction == "mean"\n    loss = '},
    says="Your loss smooths the labels in the mean and not in one number a pair.",
    next_step="Smooth each pair's loss first, then reduce.")  # fmt: skip
problem.slip("smoothing_detached", "dpo_loss", {"* wrong": "* wrong.detach()"},
    says="Your other label's loss is cut off from the graph.",
    next_step="Both labels' losses are trained on.")  # fmt: skip
problem.slip("smoothing_ignored", "dpo_loss", {"(1 - label_smoothing) * right + label_smoothing * wrong": "right"},
    says="Your loss doesn't use label_smoothing.", next_step="Weigh the two labels.")  # fmt: skip
problem.slip("smoothing_sign", "dpo_loss", {"right + label_smoothing": "right - label_smoothing"},
    says="Your smoothing subtracts the other label's loss.",
    next_step="An expectation adds both labels' losses.")  # fmt: skip
# Exchanged only where there is smoothing: without it, this is `sign_flipped`.
problem.slip("smoothing_swapped", "dpo_loss",
    {"(scaled, -scaled)": "((-scaled, scaled) if label_smoothing else (scaled, -scaled))"},
    says="Your smoothing gives the wrong label the larger weight.",
    next_step="label_smoothing is the probability of the wrong label.")  # fmt: skip
problem.slip("smoothing_by_default", "dpo_loss", {"label_smoothing: float = 0.0": "label_smoothing: float = 0.1"},
    says="Your loss smooths the labels where label_smoothing isn't given.",
    next_step="The default of label_smoothing is 0, which gives the plain loss.")  # fmt: skip
problem.slip("reference_gradient", "dpo_loss", {"rc.detach(), rr.detach()": "rc, rr"},
    says="Your loss sends a gradient into the reference.", next_step="Detach the reference's tensors.")  # fmt: skip
problem.slip("detached_loss", "dpo_loss", {MARGIN: "(pc - pr).detach() - (rc - rr)"},
    says="Your loss is cut off from the graph: nothing can be trained on it.",
    next_step="Leave out `.item()`, `.detach()` and NumPy on the policy's tensors.")  # fmt: skip
problem.slip("computes_in_half", "dpo_loss",
    {MARGIN: "(policy_chosen - policy_rejected) - (reference_chosen - reference_rejected).detach()"},
    says="Your loss is computed in the inputs' half precision.", next_step=UPCAST)  # fmt: skip

problem.slip("infinite_beta_passes", "checked", {" and math.isfinite(beta)": ""},
    says="An infinite beta passes your check.", next_step="Ask for math.isfinite too.")  # fmt: skip
problem.slip("nan_beta_passes", "checked", {"not (beta > 0 and math.isfinite(beta))": "beta <= 0 or math.isinf(beta)"},
    says="A beta of NaN passes your check: no comparison with NaN is true.",
    next_step="Write `not beta > 0` instead of `beta <= 0`.")  # fmt: skip
problem.slip("beta_unchecked", "checked", {"not (beta > 0 and math.isfinite(beta))": "False"},
    says="Any beta is accepted.", next_step="A beta that isn't positive reverses the loss: refuse it.")  # fmt: skip
problem.slip("broadcasts_in_silence", "checked", {"len(shapes) != 1": "False"},
    says="Tensors of other shapes are broadcast: pairs get mixed up without a word.",
    next_step="Compare the four shapes first.")  # fmt: skip
problem.slip("empty_nan", "checked", {"policy_chosen.numel() == 0": "False"},
    says="No pairs give NaN: the mean of nothing.", next_step="Refuse an empty batch by name.")  # fmt: skip

UNLESS = "not 0.0 <= label_smoothing < 0.5"
for name, of, edits, says, next_step in (
    ("nan_smoothing_passes", "dpo_loss", {UNLESS: "label_smoothing < 0.0 or label_smoothing >= 0.5"},
        "A label smoothing of NaN passes your check: no comparison with NaN is true.",
        "Write what is allowed, and `not` before it."),
    ("half_smoothing_passes", "dpo_loss", {UNLESS: "not 0.0 <= label_smoothing <= 0.5"},
        "A label smoothing of a half passes your check.", "At a half both labels weigh the same: refuse it."),
    ("negative_smoothing_passes", "dpo_loss", {UNLESS: "not label_smoothing < 0.5"},
        "A negative label smoothing passes your check.", "A probability isn't negative: refuse it by name."),
    ("smoothing_unchecked", "dpo_loss", {UNLESS: "False"},
        "Any label smoothing is accepted.", "Refuse by name what isn't within [0, 0.5)."),
    ("reduction_unchecked", "dpo_loss", {'reduction not in ("mean", "none")': "False"},
        "Any word is accepted as a reduction.", "Refuse by name what is neither word."),
    ("rewards_unchecked", "implicit_rewards", {CHECKED: UNCHECKED},
        "Your rewards refuse nothing.", "Make the checks of `dpo_loss` here too."),
    ("gradient_unchecked", "dpo_grad", {CHECKED: UNCHECKED},
        "Your gradient refuses nothing.", "Make the checks of `dpo_loss` here too."),
    ("answers_unchecked", "sequence_logprob",
        {"input_ids.shape != logits.shape[:2] or answer_mask.shape != logits.shape[:2]": "False"},
        "Ids or a mask of another shape aren't refused by name.",
        "Compare both with the logits' batch and time first."),
):  # fmt: skip
    problem.slip(name, of, edits, says=says, next_step=next_step)

# These come first: each explains less than those below, and in a tie the first is named. They compute at every position
# what the reference computes at the answer's.
EVERYWHERE = {"logits[:, :-1][target]": "logits[:, :-1]", "input_ids[:, 1:][target]": "input_ids[:, 1:].clamp(min=0)"}
WHERE = "torch.where(target, logp, 0.0).sum(-1)"
problem.slip("nan_in_the_gradient", "sequence_logprob", EVERYWHERE | {TOTAL: WHERE},
    says="Your value is right, and the gradient at NaN logits outside the answer is NaN: 0 times NaN.",
    next_step="Select the answer's logits before the log-softmax, or put zeros where the others are.")  # fmt: skip
problem.slip("nan_leaks", "sequence_logprob", EVERYWHERE | {TOTAL: "(logp * target).sum(-1)"},
    says="A NaN outside the answer gets into your sum: NaN times 0 is NaN.",
    next_step="Select by the mask instead of multiplying by it.")  # fmt: skip
problem.slip("gather_minus_100", "sequence_logprob",
    EVERYWHERE | {"input_ids[:, 1:][target]": "input_ids[:, 1:]", TOTAL: WHERE},
    says="Your function looks up the id -100, which is no token.",
    next_step="Put any valid id there before gathering, or gather only at the answer.")  # fmt: skip
problem.slip("writes_into_the_ids", "sequence_logprob", {"row =": "input_ids[:, 1:][~target] = 0\n    row ="},
    says="Your function writes into the caller's ids.", next_step="Work on a copy: `input_ids.clone()`.")  # fmt: skip
problem.slip("mask_is_an_index", "sequence_logprob", {"answer_mask[:, 1:] != 0": "answer_mask[:, 1:]"},
    says="Your mask of integers is used as an index: it picks rows 0 and 1.",
    next_step="Make a bool of it first: `answer_mask != 0`.")  # fmt: skip
problem.slip("goes_round", "sequence_logprob", {
        "answer_mask[:, 1:]": "answer_mask.roll(-1, 1)", "logits[:, :-1]": "logits",
        "input_ids[:, 1:]": "input_ids.roll(-1, 1)",
    },
    says="Your shift goes round: the last logits predict column 0.",
    next_step="Cut off the first id and the last logits instead of rolling.")  # fmt: skip
problem.slip("softmax_then_log", "sequence_logprob", {"F.log_softmax(chosen, dim=-1)": "chosen.softmax(-1).log()"},
    says="Your softmax is computed before the logarithm: a probability of exp(-3000) is 0, and its logarithm infinite.",
    next_step="Use log_softmax.")  # fmt: skip
problem.slip("rounded_at_the_end", "sequence_logprob", {TOTAL: f"{TOTAL}.to(logits.dtype)"},
    says="Your sum is rounded to the logits' half precision.", next_step="Return it in float32.")  # fmt: skip
problem.slip("one_number_for_all", "sequence_logprob", {TOTAL: f"{TOTAL}.sum()"},
    says="Your number is the sum over all rows.", next_step="Add up each row for itself.")  # fmt: skip
problem.slip("mean_not_shifted", "sequence_logprob", {
        "answer_mask[:, 1:]": "answer_mask", "logits[:, :-1]": "logits", "input_ids[:, 1:]": "input_ids",
        TOTAL: f"{TOTAL} / target.sum(-1).clamp(min=1)",
    },
    says="Your logits are compared with the token at their own position, and the answers are averaged.",
    next_step="The logits at t predict the token at t + 1; then sum.")  # fmt: skip
problem.slip("divided_by_time", "sequence_logprob", {TOTAL: f"{TOTAL} / target.shape[1]"},
    says="Your sums are divided by the number of columns.",
    next_step="The log-probability of a sequence is a sum.")  # fmt: skip
problem.slip("mean_logprob", "sequence_logprob", {TOTAL: f"{TOTAL} / target.sum(-1).clamp(min=1)"},
    says="Your answers are averaged over their tokens; DPO sums.",
    next_step="The log-probability of a sequence is a sum.")  # fmt: skip
problem.slip("mean_times_longest", "sequence_logprob",
    {TOTAL: f"{TOTAL} / target.sum(-1).clamp(min=1) * target.sum(-1).max()"},
    says="Your answers all count as if they were as long as the longest one.",
    next_step="Add up each row's own tokens.")  # fmt: skip
problem.slip("truncated_to_shortest", "sequence_logprob",
    {"row =": "counts = target.sum(-1)\n    target &= target.cumsum(-1) <= counts[counts > 0].min()\n    row ="},
    says="Your answers are cut to the length of the shortest one.",
    next_step="Pad a batch; don't cut it: every answer token counts.")  # fmt: skip
problem.slip("logprob_not_shifted", "sequence_logprob",
    {"answer_mask[:, 1:]": "answer_mask", "logits[:, :-1]": "logits", "input_ids[:, 1:]": "input_ids"},
    says="Your logits are compared with the token at their own position.",
    next_step="The logits at t predict the token at t + 1.")  # fmt: skip
problem.slip("mask_not_shifted", "sequence_logprob",
    {"answer_mask[:, 1:]": "answer_mask[:, :-1]", "input_ids[:, 1:]": "input_ids[:, 1:].clamp(min=0)"},
    says="Your ids are shifted and your mask isn't.",
    next_step="The mask marks answer tokens: shift it with the ids.")  # fmt: skip
problem.slip("shifted_twice", "sequence_logprob", {
        "answer_mask[:, 1:]": "answer_mask[:, 2:]",
        "logits[:, :-1]": "logits[:, :-2]",
        "input_ids[:, 1:]": "input_ids[:, 2:]",
    },
    says="Your logits are compared with the token after the next one.", next_step="Shift once.")  # fmt: skip
problem.slip("prompt_included", "sequence_logprob",
    {"answer_mask[:, 1:] != 0": "answer_mask[:, 1:] >= 0", "input_ids[:, 1:]": "input_ids[:, 1:].clamp(min=0)"},
    says="Your sum includes prompt and padding.", next_step="Only tokens where the mask is 1 count.")  # fmt: skip
problem.slip("prompt_averaged", "sequence_logprob", {
        "answer_mask[:, 1:] != 0": "answer_mask[:, 1:] >= 0",
        "input_ids[:, 1:]": "input_ids[:, 1:].clamp(min=0)",
        TOTAL: f"{TOTAL} / target.shape[1]",
    },
    says="Your number is the mean over prompt, answer and padding.",
    next_step="Sum, and only where the mask is 1.")  # fmt: skip
problem.slip("first_token_dropped", "sequence_logprob", {"row =": "target &= target.cumsum(-1) > 1\n    row ="},
    says="Your sum leaves out each answer's first token.",
    next_step="The last prompt position predicts it.")  # fmt: skip
problem.slip("last_token_dropped", "sequence_logprob",
    {"row =": "target &= target.flip(-1).cumsum(-1).flip(-1) > 1\n    row ="},
    says="Your sum leaves out each answer's last token (often the end-of-sequence token).",
    next_step="It is part of the answer.")  # fmt: skip
problem.slip("unnormalised", "sequence_logprob", {"F.log_softmax(chosen, dim=-1)": "chosen"},
    says="Your sum adds logits; they aren't normalised.",
    next_step="Take the log-softmax over the vocabulary first.")  # fmt: skip
# As students write it: a sum of a whole row in half precision rounds once, and index_add after each token.
problem.slip("logprob_in_half", "sequence_logprob",
    {"at_least_float32(logits[:, :-1][target])": "logits[:, :-1].nan_to_num(0, 0, 0)",
     "input_ids[:, 1:][target]": "input_ids[:, 1:].clamp(min=0)", TOTAL: WHERE},
    says="Your sum is computed in the logits' half precision.", next_step=UPCAST)  # fmt: skip
problem.slip("logprob_detached", "sequence_logprob", {TOTAL: "total.index_add(0, row, logp.detach())"},
    says="Your sum is cut off from the graph: no gradient reaches the logits.",
    next_step="Leave out `.item()`, `.detach()`, `float()` and NumPy on what comes from the logits.")  # fmt: skip

problem.slip("reward_attached", "implicit_rewards", {"chosen.detach(), rejected.detach()": "chosen, rejected"},
    says="Your rewards still hang on the graph.", next_step="Detach what is only logged.")  # fmt: skip
IN_HALF = {"beta)": "beta)\n    pc, pr, rc, rr = policy_chosen, policy_rejected, reference_chosen, reference_rejected"}
problem.slip("reward_in_half", "implicit_rewards", IN_HALF,
    says="Your rewards are computed in the inputs' half precision.", next_step=UPCAST)  # fmt: skip
problem.slip("reward_no_reference", "implicit_rewards", {"(pc - rc)": "pc", "(pr - rr)": "pr"},
    says="Your rewards leave the reference out.",
    next_step="A reward is a log-ratio of policy and reference.")  # fmt: skip
problem.slip("reward_without_beta", "implicit_rewards", {"beta * (pc - rc)": "pc - rc", "beta * (pr - rr)": "pr - rr"},
    says="Your rewards lack beta.", next_step="Multiply by beta.")  # fmt: skip
problem.slip("rewards_swapped", "implicit_rewards", {"chosen, rejected =": "rejected, chosen ="},
    says="Your rewards come in the other order.", next_step="Return the chosen answer's reward first.")  # fmt: skip

problem.slip("grad_in_half", "dpo_grad", IN_HALF,
    says="Your gradient is computed in the inputs' half precision.", next_step=UPCAST)  # fmt: skip
problem.slip("grad_overflows", "dpo_grad",
    {"torch.sigmoid(-beta * h)": "(torch.exp(-beta * h) / (1 + torch.exp(-beta * h)))"},
    says="Your sigmoid is written with exp, which is infinite at far margins: infinity over infinity is NaN.",
    next_step="torch.sigmoid is finite everywhere.")  # fmt: skip
problem.slip("grad_by_autograd", "dpo_grad", {"h = (pc": "pc.requires_grad_()\n    h = (pc"},
    says="Your function asks for a gradient on its arguments, which inference tensors refuse.",
    next_step="Write the derivative as a formula.")  # fmt: skip
problem.slip("grad_wrong_weight", "dpo_grad", {"sigmoid(-beta * h) /": "sigmoid(beta * h) /"},
    says="Your weight is large where the pair is already ordered rightly.",
    next_step="Derive d/dx of -log(sigmoid(x)) once more.")  # fmt: skip
problem.slip("grad_not_averaged", "dpo_grad", {" / h.numel()": ""},
    says="Your gradient is that of the sum over pairs.",
    next_step="The loss is a mean: each pair's share is divided by their number.")  # fmt: skip
problem.slip("grad_same_sign", "dpo_grad", {"-by_chosen": "by_chosen"},
    says="Your two gradients have the same sign.",
    next_step="The margin falls when the rejected answer gets likelier.")  # fmt: skip
problem.slip("grad_sign", "dpo_grad", {"= -beta": "= beta"},
    says="Your gradients point the other way.",
    next_step="A step against the gradient must raise the chosen answer.")  # fmt: skip
problem.slip("grad_without_beta", "dpo_grad", {"-beta * torch.sigmoid": "-torch.sigmoid"},
    says="Your gradient lacks the factor beta of the chain rule.",
    next_step="The margin is multiplied by beta inside the sigmoid.")  # fmt: skip
problem.slip("grad_of_sigmoid", "dpo_grad", {" / h.numel()": " * torch.sigmoid(beta * h) / h.numel()"},
    says="Your gradient is that of the sigmoid; the logarithm is missing.",
    next_step="Divide by the sigmoid: d log f = df / f.")  # fmt: skip
problem.slip("grad_no_reference", "dpo_grad", {" - (rc - rr)": ""},
    says="Your gradient leaves the reference out.",
    next_step="The reference is a constant, but its preference is part of the margin inside the sigmoid.")  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "sequence_logprob: F.log_softmax(chosen, dim=-1) -> F.log_softmax(chosen)":
        "for two axes torch chooses the last itself, with a warning",
    "sequence_logprob: -1 (#?) -> 1": "the selected logits have two axes: -1 is 1",
    "sequence_logprob: 0 (#4) -> -1": "the row sums have one axis: -1 is 0",
})  # fmt: skip
