"""How the KL shift is judged.

`mean` holds the shift against the student's own divergences, on pairs in which two logits are exchanged: there both
directions give the same number, so that a wrong direction or unit is paid for in `tok` and not again in `mean`.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from ftgrade.judging.corners import as_views, corners, expanded, in_dtype, with_numpy_numbers
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
    as_array,
    call,
    finite,
    kind_name,
    number,
)  # fmt: skip

problem = Problem(part="03_full_fine_tuning", difficulty=2, importance=4, minutes=45)

Tensor = torch.Tensor
KL, SHIFT, QUADRATIC, PINSKER = "per_token_kl", "kl_shift", "kl_quadratic", "pinsker_bound"
KEYWORDS = "shape", "mask", "non-negative"
HALVES = torch.bfloat16, torch.float16
DTYPES = *HALVES, torch.float32, torch.float64
MASKS = torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *DTYPES
SHAPES = (), (3,), (2, 3), (1, 2, 3), (2, 1, 2, 1)  # of the leading axes


def pair(rng: Rng, *shape: int) -> tuple[Tensor, Tensor]:
    """Return base and tuned logits in float64, the tuned ones moved by about one."""
    base = torch.from_numpy(rng.normal(scale=1.5, size=shape))
    return base, base + torch.from_numpy(rng.normal(size=shape))


def swapped(rng: Rng, *shape: int) -> tuple[Tensor, Tensor]:
    """Return base and tuned logits that differ by an exchange of two: both directions give the same divergences."""
    base, _ = pair(rng, *shape)
    tuned, vocab = base.clone(), shape[-1]
    for row, other in zip(base.view(-1, vocab), tuned.view(-1, vocab), strict=True):
        i, j = (int(place) for place in rng.choice(vocab, size=2, replace=False))
        row[j] = row[i] + float(rng.uniform(0.5, 2.5))
        other.copy_(row)[[i, j]] = row[[j, i]]
    return base, tuned


def vocab(rng: Rng) -> int:
    return int(rng.integers(7, 13))


def once(words: str, made: Call, promise: str = "") -> Case:
    """Return a case that is asked for the first seed alone."""
    return Case(words, made, promise=promise, once=True)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ---------------------------------------------------------------------------------------------------------- promises

problem.promise(
    "tok",
    "Return KL(tuned || base) of the next-token distributions in nats:",
    "(..., vocab) twice becomes (...).",
    "a distribution is at distance 0 from itself, and numbers added to all logits of a token change nothing.",
    "A function leaves its arguments as they were.",
)
problem.promise(
    "mean",
    "Return the mean of the per-token KL over the positions that `mask` selects, as a 0-d tensor in nats.",
    "The logits have at least one axis before the vocabulary's.",
    "`mask` has these axes and is bool, int or float (of 16 bits too) with values 0 and 1;",
    "None selects every position.",
)
problem.promise(
    "elsewhere",
    "Logits at other positions have no influence, not even as NaN or infinities; a NaN at a selected position makes "
    "the result NaN.",
)
problem.promise("stab", "finite logits within ±20,000", "The result is never negative.")
problem.promise("precision", "float64 stays float64; bfloat16 and float16 logits are computed in float32.")
problem.promise(
    "inf",
    "A token that both rule out (-inf in both) contributes 0; one that only the base rules out makes the result +inf; "
    "one that only the tuned model rules out contributes 0.",
)
problem.promise("nan", "A NaN among a position's logits, of the base or of the tuned model, makes its result NaN.")
problem.promise(
    "quad",
    "Return the second-order approximation of KL(tuned || base) for tuned logits `base_logits + delta`.",
    "For small changes it's half of some variance: derive which, and under which distribution.",
    "a change that is the same for all tokens is no change.",
)
problem.promise("quad_precision", "Logits that are large or -inf, and half precision, are as in `per_token_kl`.")
problem.promise(
    "bound",
    "Return Pinsker's bound on the total variation distance for a KL divergence in nats, never above 1.",
    "`kl` is a number of Python, or NumPy's float64, float32 or int64, and may be infinite.",
)
problem.promise("negative", "ValueError whose message contains `non-negative` if `kl` is negative or NaN.")
problem.promise(
    "shape",
    "ValueError naming `shape` if the two differ in shape or have no axis.",
    "ValueError naming `shape` (of the logits or of the mask)",
    "ValueError naming `shape` if the two differ in shape.",
)
problem.promise("mask", "or `mask` if it selects nothing.")

# ------------------------------------------------------------------------------------------------------------ checks


@problem.check(
    "tok", points=2, of="per_token_kl", title="the divergence of each token",
    concerns=["its direction and unit", "logits that aren't normalised", "one position and many"],
    next_step="Compute the warm-up's two directions by hand and compare.",
)  # fmt: skip
def tok(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, tuned = pair(rng, 2, 4, V)
    tuned[1, 2] = base[1, 2] + 3.0
    yield as_views(Case("a batch of positions", call("per_token_kl", base, tuned)))
    base, tuned = pair(rng, V)
    moved = (base + 7.0, tuned - float(rng.uniform(1, 5)))
    yield Case("one position, logits moved by constants", call("per_token_kl", *moved))
    for shape in SHAPES:
        case = Case(f"{len(shape)} axes before the vocabulary", call(KL, *pair(rng, *shape, V)))
        yield from corners(case, as_views, in_dtype(torch.float32))
    yield expanded(Case("rows that are alike", call(KL, *pair(rng, 3, 4, V))))
    yield once("arguments by name", call(KL, tuned_logits=tuned, base_logits=base))
    for size in (1, 2, 900):
        yield once(f"a vocabulary of {size}", call(KL, *pair(rng, 2, size)))
    for size in (0.1, 0.02, 0.008, 0.003):
        still = pair(rng, 3, V)[0]
        moved = still + torch.from_numpy(rng.uniform(-size, size, size=(3, V)))
        small = Case(f"changes of size {size}", call(KL, still, moved))
        yield from corners(small, in_dtype(torch.float64), in_dtype(torch.float32))
    sharp = base.where(base == base.max(), base - 20)
    yield once("a base that is nearly sure", call(KL, sharp, tuned))
    yield once("a tuned model that is nearly sure", call(KL, tuned, sharp))


class means_of_own:  # noqa: N801
    """Hold shifts to be the means of the student's own divergences of the selected positions, or NaN for None.

    These divergences must be finite, and the known ones up to a common factor: what measures nothing, or is NaN
    whatever it gets, has no mean to speak of.
    Positions that are infinite in either direction aren't held against the known ones, since `inf` tests them.
    """

    def __init__(self, base: Tensor, tuned: Tensor, wanted: list[tuple[str, Tensor | None]]) -> None:
        log_p, log_q = tuned.double().log_softmax(-1), base.double().log_softmax(-1)
        terms = torch.where(log_p == log_q, 0.0, log_p.exp() * (log_p - log_q))
        self.known = terms.sum(-1)
        one_sided = (log_p.isinf() != log_q.isinf()).any(-1)
        self.usual = self.known.isfinite() & ~one_sided
        self.near = Close(rtol=5e-2 if base.dtype in HALVES else 1e-4)
        self.wanted = wanted

    def __call__(self, own: Value, *shifts: Value) -> Difference | None:
        if own.changed or any(shift.changed for shift in shifts):
            return Difference("it changed one of its inputs; work on a copy")
        each = torch.as_tensor(as_array(own.value))
        if each.shape != self.known.shape or not self.compares(each[self.usual]):
            return Difference("your own divergences of two positions don't compare as they should")
        for (words, chosen), shift in zip(self.wanted, shifts, strict=True):
            got = as_array(shift.value)
            if got is None or got.ndim != 0 or not torch.is_tensor(shift.value):
                return Difference(f"the shift isn't a 0-d tensor: it is a {kind_name(shift.value)}")
            if chosen is None and not math.isnan(number(shift)):
                return Difference(f"{words}: the shift isn't NaN")
            if chosen is not None and Close()(float(each[chosen].mean()), number(shift)):
                return Difference(f"{words}: the shift isn't the mean of your own divergences of these positions")
        return None

    def compares(self, each: Tensor) -> bool:
        known = self.known[self.usual]
        one = int(known.argmax())
        measures = bool(each.isfinite().all()) and bool(each[one] != 0)
        return measures and self.near(known * (each[one] / known[one]), each) is None


def shifts(
    words: str, base: Tensor, tuned: Tensor, *asked: tuple[str, Tensor | None, Call], promise: str = ""
) -> Relation:
    """Hold shifts against the student's own divergences of these logits; None is for a shift of NaN."""
    holds = means_of_own(base, tuned, [(how, chosen) for how, chosen, _ in asked])
    return Relation(words, (call(KL, base, tuned), *(made for *_, made in asked)), holds, promise=promise)


@problem.check(
    "mean", points=1.5, of="kl_shift", title="the mean, against your own divergences",
    concerns=["rows of unequal length", "no mask", "masks of any dtype", "NaN where nothing is selected"],
    next_step="Select the positions first; then one mean over all of them.",
)  # fmt: skip
def mean(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, tuned = swapped(rng, 2, 3, V)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    every = mask | True
    asked = (SHIFT, base, tuned)
    yield shifts(
        "rows of unequal length, each kind of mask, no mask", base, tuned,
        ("an int mask, as views", mask, as_views(Case("", call(*asked, mask.long()))).call),
        ("no mask", every, call(*asked)),
        ("None", every, call(*asked, None)),
        ("arguments by name", mask, call(SHIFT, mask=mask, tuned_logits=tuned, base_logits=base)),
        ("a mask of ones", every, call(*asked, mask=every.float())),
        *((f"a mask of {dtype_name(dtype)}", mask, call(*asked, mask=mask.to(dtype))) for dtype in MASKS),
    )  # fmt: skip
    for shape in SHAPES[1:]:
        some = swapped(rng, *shape, V)
        chosen = torch.from_numpy(rng.integers(0, 2, size=shape)) == 1
        chosen.view(-1)[0] = True
        yield shifts(
            f"{len(shape)} axes before the vocabulary", *some,
            ("a mask", chosen, call(SHIFT, *some, chosen)), ("no mask", chosen | True, call(SHIFT, *some)),
        )  # fmt: skip
    many, ones = swapped(rng, 1, 303, 2), torch.ones(1, 303, dtype=torch.bool)
    yield shifts("303 positions, a mask of bfloat16", *many, ("a mask", ones, call(SHIFT, *many, ones.bfloat16())))
    for dtype in DTYPES:
        far = 19_980 if dtype is torch.float64 else 0  # where float32 has three digits left
        first, second = ((part + far).to(dtype) for part in (base, tuned))
        with_mask, without = call(SHIFT, first, second, mask), call(SHIFT, first, second)
        wanted = (("a mask", mask, with_mask), ("no mask", every, without))
        yield shifts(f"logits of {dtype_name(dtype)}", first, second, *wanted)
        infinite, elsewhere = first.clone(), first.clone()
        infinite[1, 1, 2] = elsewhere[0, 1, 2] = -math.inf
        with_mask, without = call(SHIFT, infinite, second, mask), call(SHIFT, infinite, second)
        wanted = (("it is selected", mask, with_mask), ("no mask", every, without))
        yield shifts(f"an infinite divergence, {dtype_name(dtype)}", infinite, second, *wanted)
        kinds = (("it isn't selected", mask), ("nor by a mask of floats", mask.float()))
        wanted = tuple((words, mask, call(SHIFT, elsewhere, second, kind)) for words, kind in kinds)
        words = f"an infinite divergence outside the mask, {dtype_name(dtype)}"
        yield shifts(words, elsewhere, second, *wanted, promise="elsewhere")
        more, none = first[..., :1], torch.full_like(first[..., :1], -math.inf)
        late = torch.tensor([[True, True, True], [True, True, False]])[..., None]
        ruled_out = (torch.cat([first, none], -1), torch.cat([second, none], -1))
        partly = (
            torch.cat([first, more.where(~late, none)], -1),
            ruled_out[1],
        )  # the last one by the tuned model alone
        for words, odd in (("both", ruled_out), ("both, and by the tuned model alone", partly)):
            wanted = (("a mask", mask, call(SHIFT, *odd, mask)), ("no mask", every, call(SHIFT, *odd)))
            yield shifts(f"ruled out by {words}, {dtype_name(dtype)}", *odd, *wanted)
        levels = torch.arange(1, 7).reshape(2, 3, 1) * 20_000 / 6  # the first token leads in the base by twice as much
        first = torch.cat([levels, -levels, -20_000 * torch.ones(2, 3, 3)], -1).to(dtype)
        second = first[..., [1, 0, 2, 3, 4]]
        wanted = (("a mask", mask, call(SHIFT, first, second, mask)), ("no mask", every, call(SHIFT, first, second)))
        yield shifts(f"logits of size 20,000, {dtype_name(dtype)}", first, second, *wanted)
    outside: list[tuple[str, Tensor | None, Call]] = []
    for words, bad in (("NaN", math.nan), ("inf", math.inf), ("-inf", -math.inf)):
        odd_base, odd_tuned = (part.masked_fill(~mask[..., None], bad) for part in (base, tuned))
        for odd in ((odd_base, tuned), (base, odd_tuned), (odd_base, odd_tuned)):
            outside += [(f"{words} outside", mask, call(SHIFT, *odd, mask))]
            outside += [(f"{words} outside, a mask of floats", mask, call(SHIFT, *odd, mask.double()))]
        if math.isnan(bad):
            for odd in ((odd_base, tuned), (base, odd_tuned)):
                outside += [("NaN, no mask", None, call(SHIFT, *odd)), ("NaN inside", None, call(SHIFT, *odd, every))]
    one_base, one_tuned = base.clone(), tuned.clone()
    one_base[1, 0, 0] = one_tuned[1, 0, 0] = math.nan
    for odd in ((one_base, tuned), (base, one_tuned)):
        outside += [("one NaN inside", None, call(SHIFT, *odd, mask)), ("one NaN, no mask", None, call(SHIFT, *odd))]
    yield shifts("NaN outside the mask, and inside", base, tuned, *outside, promise="elsewhere")


def in_its_precision(expected: Any, got: Any) -> Difference | None:
    """Demand close numbers, and float64 where float64 is expected."""
    if torch.is_tensor(got) and expected.dtype == torch.float64 and got.dtype != torch.float64:
        return Difference("float64 stays float64, and this isn't")
    return Close()(expected, got)


def not_negative(*outcomes: Value) -> Difference | None:
    for outcome in outcomes:
        bad = finite(outcome)
        values = as_array(outcome.value)
        if bad or values is None or bool((values < 0).any()):
            return bad or Difference("a divergence is never negative")
    return None


@problem.check(
    "stab", points=1, of="per_token_kl", title="large logits, tiny differences, every precision", same=in_its_precision,
    concerns=["logits of size 2,000", "rounding below zero", "bfloat16, float16 and float64 logits"],
    next_step="Stay with logarithms: torch has the logarithm of the softmax as one function.",
)  # fmt: skip
def stab(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, tuned = pair(rng, 2, V)
    first, second = (int(place) for place in rng.choice(V, size=2, replace=False))
    base[:, first], tuned[:, second] = 2.5 + base.max(), 3.0 + tuned.max()  # other winners, or far logits would agree
    yield expanded(Case("logits of size 2,000", call("per_token_kl", (base * 500).float(), (tuned * 500).float())))
    plain = base[:1].float().repeat(60, 1)
    close = plain + torch.from_numpy(rng.normal(size=(60, V))).float() * 1e-4
    tiny = plain.double() + (close.double() - plain.double()) * 1e-6
    calls = (call(KL, plain, close), call(KL, close, plain), call(KL, plain.double(), tiny), call(KL, plain, plain))
    yield Relation("differences of a rounding's size", calls, not_negative)
    far = 20_000 / torch.stack([base, tuned]).abs().max()
    for size, words in ((500, "2,000"), (float(far), "20,000")):
        case = Case(f"logits of size {words}", call(KL, base * size, tuned * size))
        yield from corners(case, *map(in_dtype, DTYPES))
    ends = torch.tensor([[0.0, -20_000.0, -9_000.0], [20_000.0, 0.0, 1.0], [-20_000.0, 20_000.0, 0.0]])
    for one in range(3):
        yield once("single logits of size 20,000", call(KL, ends[[one]], ends[[one]].roll(1, -1)))
        yield once("single logits of size 20,000", call(KL, ends[[one]], ends[[one]].roll(2, -1)))
    for dtype in DTYPES:
        same = base.to(dtype)
        yield once(f"twice the same logits, {dtype_name(dtype)}", call(KL, same, same.clone()))
    case = Case("plain logits", call(KL, base, tuned))
    yield from corners(case, *map(in_dtype, DTYPES), promise="precision")
    yield Case("float64 logits near 20,000", call(KL, base + 19_980, tuned + 19_980), promise="precision")


@problem.check(
    "inf", points=0.5, of="per_token_kl", title="probabilities of zero, and NaN",
    concerns=["ruled out by both, by one, by the other", "NaN logits of either model"],
    next_step="Write the term of one token with p = 0, and of one with q = 0.",
)  # fmt: skip
def inf(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, tuned = pair(rng, 3, V)
    out = torch.arange(V) == int(rng.integers(0, V))
    without = (base.masked_fill(out, -math.inf), tuned.masked_fill(out, -math.inf))
    some = without[0].clone()
    some[1] = base[1]
    mixed = base.clone()
    mixed[1] = without[0][1]
    yield Case("ruled out by both, or by the tuned model alone", call("per_token_kl", some, without[1]))
    yield Case("ruled out by the base alone", call("per_token_kl", without[0], tuned))
    alone = torch.eye(3, V, dtype=torch.bool) | torch.eye(3, V).roll(2, 1).bool()  # two tokens of each position
    only = torch.eye(3, V, dtype=torch.bool)
    for words, (first, second) in (
        ("all but two ruled out by both", [part.masked_fill(~alone, -math.inf) for part in (base, tuned)]),
        ("all but one ruled out by both", [part.masked_fill(~only, -math.inf) for part in (base, tuned)]),
        ("all but one ruled out by the tuned model", (base, tuned.masked_fill(~only, -math.inf))),
        ("ruled out by both, by the tuned model alone", (some, without[1])), ("by the base alone", (without[0], tuned)),
        ("by the base alone, in one position of three", (mixed, tuned)),
        ("each rules out another", (without[0], tuned.masked_fill(out.roll(1), -math.inf))),
        ("by the base alone, and far from likely", (without[0], tuned.where(~out, tuned.amin(-1, keepdim=True) - 50))),
        ("by the tuned model alone, far from likely", (base.where(~out, base.amin(-1, keepdim=True) - 50), without[1])),
    ):  # fmt: skip
        case = Case(words, call(KL, first, second))
        yield from corners(case, as_views, *map(in_dtype, DTYPES))
    for place in range(4):
        odd_base, odd_tuned = base.clone(), tuned.clone()
        odd_base[1, place] = odd_tuned[2, 3 - place] = math.nan
        case = Case("a NaN of the base, and one of the tuned model", call(KL, odd_base, odd_tuned), promise="nan")
        yield from [case] if place == 2 else corners(case, *map(in_dtype, DTYPES))
    every = torch.full((3, V), math.nan, dtype=torch.float64)
    for first, second in ((every, tuned), (base, every), (every, every), (every[0], tuned[0])):
        yield once("logits that are all NaN", call(KL, first, second), "nan")


@problem.check(
    "quad", points=2.5, of="kl_quadratic", title="small changes, to second order", same=in_its_precision,
    concerns=["unequal probabilities", "a constant in the change", "large logits", "every precision"],
    next_step="Expand log-sum-exp to second order: its second derivative is a covariance.",
)  # fmt: skip
def quad(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, other = pair(rng, 3, V)
    delta = (other - base) / (other - base).abs().max()
    yield as_views(Case("several positions", call("kl_quadratic", base.float(), delta.float())))
    constant = delta[0].float() / 4 + 0.7
    yield Case("a change with a constant in it", call("kl_quadratic", base[0].float() + 2.0, constant))
    for shape in SHAPES:
        logits, _ = pair(rng, *shape, V)
        change = torch.from_numpy(rng.uniform(-1, 1, size=(*shape, V)))
        case = Case(f"{len(shape)} axes before the vocabulary", call(QUADRATIC, logits, change))
        yield from corners(case, as_views, in_dtype(torch.float32))
    yield expanded(Case("rows that are alike", call(QUADRATIC, base, delta)))
    yield once("arguments by name", call(QUADRATIC, delta=delta, base_logits=base))
    for size in (1, 2, 900):
        logits, _ = pair(rng, 2, size)
        change = torch.from_numpy(rng.uniform(-1, 1, size=(2, size)))
        yield once(f"a vocabulary of {size}", call(QUADRATIC, logits, change))
    for constant in (1.0, -1.0, 0.3, 0.0):
        yield once("the same change for all tokens", call(QUADRATIC, base.float(), torch.full((3, V), constant)))
    ends = torch.where(torch.arange(V) % 2 == 0, 1.0, -1.0).double().expand(3, V).clone()
    case = Case("changes of 1 and -1", call(QUADRATIC, base, ends))
    yield from corners(case, in_dtype(torch.float64), in_dtype(torch.float32))
    yield from corners(case, *map(in_dtype, HALVES), promise="quad_precision")
    large = base.float() * 500
    large[:, 1] = large[:, 4] = 2_000.0
    yield Case("logits of size 2,000", call("kl_quadratic", large, delta.float()), promise="quad_precision")
    for size in (2_000, 20_000):
        far = base / base.abs().max() * size
        far[:, 1] = far[:, 4] = size
        far[1] = -far[1]
        far[1, 0] = far[1, 5] = size
        case = Case(f"logits of size {size:,}", call(QUADRATIC, far, delta), promise="quad_precision")
        yield from corners(case, *map(in_dtype, DTYPES))
    out = torch.zeros(3, V, dtype=torch.bool)
    out[0, :3] = out[1, V - 1] = out[2, 1:] = True
    case = Case("tokens that the base rules out", call(QUADRATIC, base.masked_fill(out, -math.inf), delta))
    yield from corners(case, as_views, *map(in_dtype, DTYPES), promise="quad_precision")
    case = Case("plain logits", call("kl_quadratic", base, delta))
    yield from corners(case, *map(in_dtype, DTYPES), promise="quad_precision")
    near = call("kl_quadratic", base + 19_980, delta)
    yield Case("float64 logits near 20,000", near, promise="quad_precision")
    for size in (100, 19_000):
        low = call("kl_quadratic", base - size, delta)
        yield Case(f"float64 logits near -{size:,}", low, promise="quad_precision", once=True)


@problem.check(
    "err", points=2.5, of="pinsker_bound", title="invalid input and the bound",
    concerns=["shapes", "an empty mask", "negative, NaN, large and infinite divergences"],
    next_step="Compute the bound by hand for a small and a large divergence; then check each argument before using it, "
    "and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    yield from bounds(rng)
    base, tuned = pair(rng, 2, 3, 4)
    yield from refused_logits(base, tuned, torch.ones(2, 3))
    for logits in ((base, tuned), (base[0], tuned[0]), (base[:, :1], tuned[:, :1]), (base[0, :1], tuned[0, :1])):
        yield from refused_masks(*logits, torch.ones(logits[0].shape[:-1]))


def bounds(rng: Rng) -> Iterator[AnyCase]:
    """Ask for bounds on both sides of every threshold, and refuse what is negative or NaN."""
    for kl in (float(rng.uniform(0.01, 0.5)), float(rng.uniform(1.1, 1.9)), float(rng.uniform(3, 30)), 0, math.inf):
        size = "no divergence" if kl == 0 else "an infinite divergence" if math.isinf(kl) else "a divergence"
        yield Case(size, call("pinsker_bound", kl), promise="bound")
    kl = float(rng.uniform(0.01, 0.5))
    small = call(PINSKER, kl)
    yield once("a divergence by name", call(PINSKER, kl=kl), "bound")
    for some in (kl, 1e-30, 1e-5, 0.0, -0.0, 0.5, 1, 1.5, 2 - 1e-3, 2, 2 + 1e-3, 3, 1e10, 1e300, 10**18, math.inf):
        case = once("a divergence, at a threshold, small or large", call(PINSKER, some), "bound")
        yield case
        yield from corners(case, with_numpy_numbers)
        if some < 1e30 or math.isinf(some):
            yield once("a divergence in float32", call(PINSKER, np.float32(some)), "bound")
    tiny = [-(10.0**-power) for power in (3, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16, 20, 30, 100, 300)]
    yield Refusal("NaN", call(PINSKER, math.nan), "non-negative", small, KEYWORDS[:2], "negative")
    for bad in (-kl, -1, -2.0, -3.0, *tiny, -(10**18), -1e300, -math.inf):
        words = "a negative divergence" if bad == -kl else f"a divergence of {bad:g}"
        numpy = np.int64(bad) if isinstance(bad, int) else np.float64(bad)
        narrow = [np.float32(bad)] if bad == -math.inf or 1e-31 < -bad < 1e31 else []
        for one in (bad, numpy, *narrow):
            yield Refusal(words, call(PINSKER, one), "non-negative", small, KEYWORDS[:2], "negative")


def refused_logits(base: Tensor, tuned: Tensor, mask: Tensor) -> Iterator[AnyCase]:
    """Refuse logits of different shapes, in either place."""
    others = KEYWORDS[1:]
    for name in (KL, QUADRATIC, SHIFT):
        twin = call(name, base, tuned, *([mask] if name == SHIFT else []))
        for words, odd in misshapen(tuned):
            yield Refusal(f"tuned logits {words}", call(name, base, odd), "shape", twin, others, "shape")
            yield Refusal(f"base logits {words}", call(name, odd, base), "shape", None, others, "shape")
    for words, odd in misshapen(tuned):
        fitting = torch.ones(odd.shape[:-1])
        yield Refusal(f"tuned logits {words}, a mask", call(SHIFT, base, odd, mask), "shape", None, others, "shape")
        yield Refusal(f"base logits {words}, a mask", call(SHIFT, odd, base, fitting), "shape", None, others, "shape")
    without = call(KL, base[0, 0, 0], tuned[0, 0, 0])
    yield Refusal("logits without an axis", without, "shape", None, others, "shape")


def refused_masks(base: Tensor, tuned: Tensor, mask: Tensor) -> Iterator[AnyCase]:
    """Refuse masks of another shape, and masks of every dtype that select nothing."""
    twin = call(SHIFT, base, tuned, mask)
    for words, odd in misshapen(mask):
        if odd.shape != mask.shape:
            asked = call(SHIFT, base, tuned, odd)
            yield Refusal(f"a mask {words}", asked, "shape", None, ("mask", "non-negative"), "shape")
    for dtype in MASKS:
        asked = call(SHIFT, base, tuned, torch.zeros(mask.shape, dtype=dtype))
        words = f"a mask of {dtype_name(dtype)} that selects nothing"
        yield Refusal(words, asked, "mask", twin, ("shape", "non-negative"), "mask")


def misshapen(part: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a tensor in shapes that some code would take: off by one in each axis, broadcast, reshaped."""
    second = min(1, part.ndim - 1)
    for axis in range(part.ndim):
        yield f"with axis {axis} of length 1", part.narrow(axis, 0, 1)
        yield f"with axis {axis} longer", torch.cat([part, part.narrow(axis, 0, 1)], axis)
        yield f"with axis {axis} shorter", part.narrow(axis, 0, max(1, part.shape[axis] - 1))
        yield f"without axis {axis}", part.select(axis, 0)
    yield "transposed", part.transpose(0, -1)
    yield "with the first two axes exchanged", part.transpose(0, second)
    yield "flattened", part.flatten()
    yield "with the first two axes flattened", part.flatten(0, second)
    yield "with the lengths of the transpose", part.reshape(part.shape[::-1])
    yield "with an axis more at the end", part[..., None]
    yield "with an axis more at the beginning", part[None]


@problem.personal(title="your shift", next_step="Write three terms: which distribution weights them?")
def mine(rng: Rng) -> Question:
    cuts = [sorted(int(cut) for cut in rng.choice(np.arange(2, 19), size=2, replace=False)) for _ in range(2)]
    base, tuned = (torch.tensor([low, high - low, 20 - high], dtype=torch.float64) / 20 for low, high in cuts)
    words = (
        f"The base model gives three tokens the probabilities {base[0]:g}, {base[1]:g} and {base[2]:g}, the tuned "
        f"model {tuned[0]:g}, {tuned[1]:g} and {tuned[2]:g}. What is the KL shift at this position, in nats?"
    )
    return Question(words, call("per_token_kl", base.log(), tuned.log()))


# ---------------------------------------------------------------------------------------------------------- mistakes

LOGS = "normalised(tuned_logits), normalised(base_logits)"
TERMS = "torch.where(p == 0, torch.zeros_like(p), p * (log_p - log_q))"
BOTH = """q = log_q.exp()
    terms = terms + torch.where(q > 0, q * (log_q - log_p), torch.zeros_like(q))
    return """
MIDDLE = """sum(
        0.5 * torch.where(one > -math.inf, one.exp() * (one - torch.logaddexp(log_p, log_q) + math.log(2)), 0.0)
        for one in (log_p, log_q)
    )"""
DIRECTION = "The expectation is taken under the tuned model."

problem.slip(
    "log_of_softmax", "normalised", {"log_softmax(-1)": "softmax(-1).log()"},
    says="Your softmax is computed before its logarithm: far logits give log 0.",
    next_step="torch has the logarithm of the softmax as one function.",
)  # fmt: skip
problem.slip(
    "exp_overflows", "normalised",
    {"wide(logits).log_softmax(-1)": "(wide(logits).exp() / wide(logits).exp().sum(-1, keepdim=True)).log()"},
    says="Your exponentials overflow for large logits.",
    next_step="torch has the logarithm of the softmax as one function.",
)  # fmt: skip
problem.slip(
    "nan_where_both_are_zero", "per_token_kl", {TERMS: "p * (log_p - log_q)"},
    says="A token that the tuned model rules out gives NaN: 0 times infinity.",
    next_step="Where p is 0 the term is 0.",
)  # fmt: skip
problem.slip(
    "nan_counts_as_0", "per_token_kl", {TERMS: "torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p))"},
    says="A NaN logit of the tuned model is counted as a divergence of 0.",
    next_step="NaN > 0 is false: ask where p is 0 instead of where it is larger.",
)  # fmt: skip
problem.slip(
    "below_zero_by_rounding", "per_token_kl", {".clamp(min=0)": ""},
    says="Rounding makes your divergence negative where the two are nearly the same.",
    next_step="Cut the sum off at 0.",
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
    "computes_in_half", "per_token_kl",
    {LOGS: "tuned_logits.log_softmax(-1), base_logits.log_softmax(-1)"},
    says="Your divergence is computed in half precision.", next_step="Turn bfloat16 and float16 into float32 first.",
)  # fmt: skip
problem.slip(
    "epsilon_smoothing", "per_token_kl",
    {"(log_p - log_q)": "((p + 1e-8) / (log_q.exp() + 1e-8)).log()"},
    says="Your probabilities have a small number added: infinite divergences become finite.",
    next_step="Use log-probabilities; they need no guard.",
)  # fmt: skip
problem.slip(
    "reversed_direction", "per_token_kl", {LOGS: "normalised(base_logits), normalised(tuned_logits)"},
    says="Your divergence is the other direction, KL(base || tuned).", next_step=DIRECTION,
)  # fmt: skip
problem.slip(
    "bits_not_nats", "per_token_kl", {"clamp(min=0)": "clamp(min=0) / math.log(2)"},
    says="Your divergence is in bits.", next_step="Use natural logs.",
)  # fmt: skip
problem.slip(
    "symmetrised", "per_token_kl", {"return terms": f"{BOTH}(0.5 * terms)"},
    says="Your divergence is the mean of both directions.", next_step=DIRECTION,
)  # fmt: skip
problem.slip(
    "jeffreys", "per_token_kl", {"return terms": f"{BOTH}terms"},
    says="Your divergence is the sum of both directions.", next_step=DIRECTION,
)  # fmt: skip
problem.slip(
    "jensen_shannon", "per_token_kl", {TERMS: MIDDLE},
    says="Your divergence is Jensen and Shannon's, through the mean of both.", next_step=DIRECTION,
)  # fmt: skip
problem.slip(
    "total_variation", "per_token_kl", {TERMS: "0.5 * (p - log_q.exp()).abs()"},
    says="Your number is the total variation distance.", next_step="It's the expectation of a log ratio.",
)  # fmt: skip
problem.slip(
    "mean_over_vocabulary", "per_token_kl", {"terms.sum(-1)": "terms.mean(-1)"},
    says="Your divergence is a mean over the vocabulary.",
    next_step="It's a sum: the weights p add up to 1 already.",
)  # fmt: skip
problem.slip(
    "unnormalised_logits", "per_token_kl", {"(log_p - log_q)": "(wide(tuned_logits) - wide(base_logits))"},
    says="Your logarithms are the logits themselves, which aren't normalised.",
    next_step="Take the log-softmax of both.",
)  # fmt: skip
problem.slip(
    "double_softmax", "per_token_kl",
    {LOGS: "normalised(normalised(tuned_logits).exp()), normalised(normalised(base_logits).exp())"},
    says="Your softmax is applied twice.", next_step="The log-softmax takes logits, not probabilities.",
)  # fmt: skip
problem.slip(
    "sign_flipped", "per_token_kl", {"return terms": "return -terms"},
    says="Your divergence is negative.", next_step="It is never below 0: turn the ratio over.",
)  # fmt: skip
problem.slip(
    "at_the_mode_only", "per_token_kl", {TERMS: "(log_p - log_q).gather(-1, p.argmax(-1, keepdim=True))"},
    says="Your divergence looks at the likeliest token only.", next_step="It's an expectation over all tokens.",
)  # fmt: skip

problem.slip(
    "shift_is_a_float", "kl_shift",
    {"tuned_logits).mean()": "tuned_logits).mean().item()", "[chosen]).mean()": "[chosen]).mean().item()"},
    says="Your shift is a number of Python, and nothing can be differentiated through it.",
    next_step="Return the mean as it is: a 0-d tensor.",
)  # fmt: skip

SELECTED = "per_token_kl(base_logits[chosen], tuned_logits[chosen]).mean()"

problem.slip(
    "sum_over_tokens", "kl_shift",
    {"tuned_logits).mean()": "tuned_logits).sum()", "[chosen]).mean()": "[chosen]).sum()"},
    says="Your shift is a sum over positions.", next_step="It's their mean.",
)  # fmt: skip
problem.slip(
    "divides_by_all", "kl_shift", {"[chosen]).mean()": "[chosen]).sum() / mask.numel()"},
    says="Your sum is divided by the number of all positions.",
    next_step="Divide by the number that is selected.",
)  # fmt: skip
problem.slip(
    "divides_by_rows", "kl_shift", {"[chosen]).mean()": "[chosen]).sum() / len(mask)"},
    says="Your sum is divided by the number of rows.", next_step="Divide by the number of positions.",
)  # fmt: skip
problem.slip(
    "mean_of_row_means", "kl_shift",
    {f"return {SELECTED}": """rows = zip(base_logits, tuned_logits, chosen, strict=True)
    return torch.stack([per_token_kl(b[m], t[m]).mean() for b, t, m in rows if bool(m.any())]).mean()"""},
    says="Your shift averages the rows' means: short rows weigh too much.",
    next_step="One mean over all selected positions.",
)  # fmt: skip
problem.slip(
    "nan_leaks", "kl_shift",
    {f"return {SELECTED}": """log_p, log_q = normalised(tuned_logits), normalised(base_logits)
    terms = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True)
    return (terms.sum(-1) * chosen).sum() / chosen.sum()"""},
    says="A NaN outside the mask gets in: NaN times 0 is NaN.",
    next_step="Select by the mask instead of multiplying.",
)  # fmt: skip
problem.slip(
    "mask_ignored", "kl_shift", {SELECTED: "per_token_kl(base_logits, tuned_logits).mean()"},
    says="Your shift takes in every position.", next_step="Use the mask.",
)  # fmt: skip
problem.slip(
    "kl_of_mean_distribution", "kl_shift",
    {SELECTED: """per_token_kl(
        normalised(base_logits[chosen]).exp().mean(0).log(), normalised(tuned_logits[chosen]).exp().mean(0).log()
    )"""},
    says="Your shift averages the distributions first.",
    next_step="Average the divergences: positions that move in opposite ways don't cancel.",
)  # fmt: skip
problem.slip(
    "nan_is_left_out", "kl_shift",
    {"(base_logits, tuned_logits).mean()": "(base_logits, tuned_logits).nanmean()"},
    says="Your shift leaves out positions that are NaN, though they are selected.",
    next_step="Leave out what the mask leaves out, and nothing else.",
)  # fmt: skip
problem.slip(
    "mask_may_broadcast", "kl_shift",
    {
        "if mask.shape != base_logits.shape[:-1]:": """try:
        mask = mask.expand(base_logits.shape[:-1])
    except RuntimeError:""",
    },
    says="A mask of one row is repeated in silence.", next_step="Compare its shape with the logits'.",
)  # fmt: skip
problem.slip(
    "shapes_may_broadcast", "demand_same_shape", {"one.shape != other.shape": "one.shape[-1:] != other.shape[-1:]"},
    says="Shapes that broadcast are accepted in silence.", next_step="Compare the whole shapes.",
)  # fmt: skip
problem.slip(
    "no_axis_is_accepted", "per_token_kl", {"if base_logits.ndim == 0:": "if base_logits.ndim < 0:"},
    says="Logits without an axis are accepted: a softmax over nothing.", next_step="Refuse them by name: `shape`.",
)  # fmt: skip
problem.slip(
    "empty_mask_gives_nan", "kl_shift", {'raise ValueError("mask: it selects no position")': "pass"},
    says="A mask that selects nothing gives NaN.", next_step="Refuse it by name.",
)  # fmt: skip

VARIANCE = "Half the variance of the change, under the base."

problem.slip(
    "quadratic_without_mean", "kl_quadratic", {"(delta - mean)": "delta"},
    says="Your form is a second moment, not a variance.",
    next_step="A constant added to the change must change nothing.",
)  # fmt: skip
problem.slip(
    "quadratic_unweighted", "kl_quadratic", {"(p * (delta - mean) ** 2).sum(-1)": "delta.var(-1, correction=0)"},
    says="Your variance weighs all tokens alike.", next_step="Weigh by the base's probabilities.",
)  # fmt: skip
problem.slip(
    "quadratic_without_half", "kl_quadratic", {"0.5 * ": ""},
    says="Your form lacks the factor one half.", next_step="Taylor's second term.",
)  # fmt: skip
problem.slip(
    "quadratic_root", "kl_quadratic", {"** 2).sum(-1)": "** 2).sum(-1).sqrt()"},
    says="Your form is half a standard deviation.", next_step=VARIANCE,
)  # fmt: skip
problem.slip(
    "quadratic_linear", "kl_quadratic", {"0.5 * (p * (delta - mean) ** 2).sum(-1)": "mean.squeeze(-1)"},
    says="Your form is the first order.", next_step="The first order vanishes.",
)  # fmt: skip
problem.slip(
    "quadratic_of_squares", "kl_quadratic", {"p * (delta": "p**2 * (delta"},
    says="Your weights are squared probabilities.", next_step=VARIANCE,
)  # fmt: skip

problem.slip(
    "quadratic_under_tuned", "kl_quadratic", {"normalised(base_logits)": "normalised(base_logits + delta)"},
    says="Your variance is taken under the tuned distribution.", next_step=VARIANCE,
)  # fmt: skip
problem.slip(
    "quadratic_in_half", "kl_quadratic",
    {"normalised(base_logits).exp(), wide(delta)": "base_logits.softmax(-1), delta"},
    says="Your form is computed in half precision.", next_step="Turn bfloat16 and float16 into float32 first.",
)  # fmt: skip

problem.slip(
    "pinsker_takes_nan", "pinsker_bound", {"not kl >= 0": "kl < 0"},
    says="A divergence that is NaN is accepted.", next_step="NaN < 0 is false: ask for `kl >= 0` instead.",
)  # fmt: skip
problem.slip(
    "pinsker_takes_negative", "pinsker_bound", {"not kl >= 0": "kl != kl", "kl / 2": "max(kl, 0.0) / 2"},
    says="A negative divergence is accepted in silence.", next_step="Refuse it by name: `non-negative`.",
)  # fmt: skip
problem.slip(
    "pinsker_no_half", "pinsker_bound", {"kl / 2": "kl"},
    says="Your bound lacks the half under the root.",
    next_step="Compare with the formula at a small divergence: by which factor do you differ?",
)  # fmt: skip
problem.slip(
    "pinsker_uncapped", "pinsker_bound", {"min(1.0, math.sqrt(kl / 2))": "math.sqrt(kl / 2)"},
    says="Your bound exceeds 1.", next_step="No two probabilities differ by more than 1.",
)  # fmt: skip
problem.slip(
    "pinsker_no_root", "pinsker_bound", {"math.sqrt(kl / 2)": "kl / 2"},
    says="Your bound lacks the root.", next_step="Near 0 the distance is larger than KL.",
)  # fmt: skip
problem.slip(
    "pinsker_for_l1", "pinsker_bound", {"kl / 2": "2 * kl"},
    says="Your bound is for the sum of differences.", next_step="The distance is half of that sum.",
)  # fmt: skip
