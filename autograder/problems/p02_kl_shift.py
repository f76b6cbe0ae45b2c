"""How the KL shift is judged.

`mean` holds the shift against the student's own divergences, on pairs in which two logits are exchanged: there both
directions give the same number, so that a wrong direction or unit is paid for in `tok` and not again in `mean`.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from ftgrade.judging.corners import as_views, corners, expanded, in_dtype, with_numpy_numbers
from ftgrade.judging.problem import (
    AnyCase,
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
    number,
)  # fmt: skip

problem = Problem(part="03_full_fine_tuning", difficulty=2, importance=4, minutes=45)

Tensor = torch.Tensor


def pair(rng: Rng, *shape: int) -> tuple[Tensor, Tensor]:
    """Return base and tuned logits in float64, the tuned ones moved by about one."""
    base = torch.from_numpy(rng.normal(scale=1.5, size=shape))
    return base, base + torch.from_numpy(rng.normal(size=shape))


def vocab(rng: Rng) -> int:
    return int(rng.integers(7, 13))


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
    "`mask` has the logits' shape without the vocabulary axis and is bool, int or float with values 0 and 1; None "
    "selects every position.",
)
problem.promise(
    "elsewhere",
    "Logits at other positions have no influence, not even as NaN; a NaN at a selected position makes the result NaN.",
)
problem.promise("stab", "Logits of size 2,000 occur in float32.", "The result is never negative.")
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
problem.promise("quad_precision", "Large logits and half precision are as in `per_token_kl`.")
problem.promise(
    "bound",
    "Return Pinsker's bound on the total variation distance for a KL divergence in nats, never above 1.",
    "`kl` is a number of Python or NumPy, and may be infinite.",
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


def mean_of_own(known: Tensor, *wanted: tuple[str, Tensor | None]) -> Callable[..., Difference | None]:
    """Hold shifts to be the means of the student's own divergences of the selected positions, or NaN for None.

    These divergences must be the known ones up to a common factor: what measures nothing has no mean to speak of.
    """

    def holds(own: Value, *shifts: Value) -> Difference | None:
        if own.changed or any(shift.changed for shift in shifts):
            return Difference("it changed one of its inputs; work on a copy")
        each = torch.as_tensor(as_array(own.value))
        if each.shape != known.shape or Close(rtol=1e-4)(known * (each[0, 0] / known[0, 0]), each) or each[0, 0] == 0:
            return Difference("your own divergences of two positions don't compare as they should")
        for (words, chosen), shift in zip(wanted, shifts, strict=True):
            got = as_array(shift.value)
            if got is None or got.ndim != 0:
                return Difference("the shift isn't a single number")
            if chosen is None and not math.isnan(number(shift)):
                return Difference(f"{words}: the shift isn't NaN")
            if chosen is not None and Close()(float(each[chosen].mean()), number(shift)):
                return Difference(f"{words}: the shift isn't the mean of your own divergences of these positions")
        return None

    return holds


@problem.check(
    "mean", points=1.5, of="kl_shift", title="the mean, against your own divergences",
    concerns=["rows of unequal length", "no mask", "masks of any dtype", "NaN where nothing is selected"],
    next_step="Select the positions first; then one mean over all of them.",
)  # fmt: skip
def mean(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, _ = pair(rng, 2, 3, V)
    swapped = base.clone()
    for index in range(6):
        i, j = (int(place) for place in rng.choice(V, size=2, replace=False))
        row, other = base.view(6, V)[index], swapped.view(6, V)[index]
        row[j] = row[i] + float(rng.uniform(0.5, 2.5))
        other.copy_(row)[[i, j]] = row[[j, i]]
    log_p, log_q = swapped.log_softmax(-1), base.log_softmax(-1)
    known = (log_p.exp() * (log_p - log_q)).sum(-1)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    own = call("per_token_kl", base, swapped)
    asked = ("kl_shift", base, swapped)
    wanted = [
        ("a bool mask", mask, call(*asked, mask)),
        ("an int mask, as views", mask, as_views(Case("", call(*asked, mask.long()))).call),
        ("a float mask", mask, call(*asked, mask=mask.float())),
        ("no mask", mask | True, call(*asked)),
    ]
    holds = mean_of_own(known, *((words, chosen) for words, chosen, _ in wanted))
    yield Relation("rows of unequal length, each kind of mask, no mask", (own, *(made for *_, made in wanted)), holds)
    broken = swapped.clone()
    broken[~mask] = math.nan
    calls = (own, *(call("kl_shift", base, broken, chosen) for chosen in (mask, None, mask | True)))
    holds = mean_of_own(known, ("NaN outside the mask", mask), ("NaN, no mask", None), ("NaN inside the mask", None))
    yield Relation("NaN outside the mask, and inside", calls, holds, promise="elsewhere")


def in_its_precision(expected: Any, got: Any) -> Difference | None:
    """Demand close numbers, and float64 where float64 is expected."""
    if torch.is_tensor(got) and expected.dtype == torch.float64 and got.dtype != torch.float64:
        return Difference("float64 stays float64, and this isn't")
    return Close()(expected, got)


def not_negative(outcome: Value) -> Difference | None:
    bad = finite(outcome)
    values = as_array(outcome.value)
    negative = values is None or bool((values < 0).any())
    return bad or (Difference("a divergence is never negative") if negative else None)


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
    yield Relation("differences of a rounding's size", (call("per_token_kl", plain, close),), not_negative)
    case = Case("plain logits", call("per_token_kl", base, tuned))
    yield from corners(case, in_dtype(torch.bfloat16), in_dtype(torch.float16), promise="precision")
    far = call("per_token_kl", base + 1e6, tuned + 1e6)
    yield Case("float64 logits near a million", far, promise="precision")


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
    yield Case("ruled out by both, or by the tuned model alone", call("per_token_kl", some, without[1]))
    yield Case("ruled out by the base alone", call("per_token_kl", without[0], tuned))
    base[1, 2] = tuned[2, 3] = math.nan
    yield Case("a NaN of the base, and one of the tuned model", call("per_token_kl", base, tuned), promise="nan")


@problem.check(
    "quad", points=2.5, of="kl_quadratic", title="small changes, to second order", same=in_its_precision,
    concerns=["unequal probabilities", "a constant in the change", "large logits", "every precision"],
    next_step="Expand log-sum-exp to second order: its second derivative is a covariance.",
)  # fmt: skip
def quad(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, other = pair(rng, 3, V)
    delta = other - base
    yield as_views(Case("several positions", call("kl_quadratic", base.float(), delta.float())))
    yield Case("a change with a constant in it", call("kl_quadratic", base[0].float() + 2.0, delta[0].float() + 1.0))
    large = base.float() * 500
    large[:, 1] = large[:, 4] = 2_000.0
    yield Case("logits of size 2,000", call("kl_quadratic", large, delta.float()), promise="quad_precision")
    case = Case("plain logits", call("kl_quadratic", base, delta))
    yield from corners(case, in_dtype(torch.bfloat16), in_dtype(torch.float16), promise="quad_precision")
    yield Case("float64 logits near a million", call("kl_quadratic", base + 1e6, delta), promise="quad_precision")


@problem.check(
    "err", points=2.5, of="pinsker_bound", title="invalid input and the bound",
    concerns=["shapes", "an empty mask", "negative, NaN, large and infinite divergences"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    for kl in (float(rng.uniform(0.01, 0.5)), float(rng.uniform(1.1, 1.9)), float(rng.uniform(3, 30)), 0, math.inf):
        size = "no divergence" if kl == 0 else "an infinite divergence" if math.isinf(kl) else "a divergence"
        yield Case(size, call("pinsker_bound", kl), promise="bound")
    small = Case("a divergence", call("pinsker_bound", float(rng.uniform(0.01, 0.5))))
    yield from corners(small, with_numpy_numbers, promise="bound")
    for words, kl in (("negative", -float(rng.uniform(0.1, 1))), ("tiny negative", -1e-9), ("NaN", math.nan)):
        yield Refusal(f"a {words} divergence", call("pinsker_bound", kl), "non-negative", small.call,
                      ("shape", "mask"), "negative")  # fmt: skip

    base, tuned = pair(rng, 2, 3, 4)
    mask = torch.ones(2, 3)
    good = {"per_token_kl": (base, tuned), "kl_shift": (base, tuned, mask), "kl_quadratic": (base, tuned)}
    twins = {name: call(name, *arguments) for name, arguments in good.items()}
    for words, name, arguments in (
        ("a vocabulary of another size", "per_token_kl", (base[..., 1:], tuned)),
        ("base logits of one row", "per_token_kl", (base[:1], tuned)),
        ("another number of axes", "per_token_kl", (base[:1], tuned[0])),
        ("logits without an axis", "per_token_kl", (base[0, 0, 0], tuned[0, 0, 0])),
        ("tuned logits of another time", "kl_shift", (base, tuned.repeat(1, 2, 1), mask)),
        ("tuned logits of one row, no mask", "kl_shift", (base, tuned[:1])),
        ("a mask of another length", "kl_shift", (base, tuned, mask[:, 1:])),
        ("a mask of one row", "kl_shift", (base, tuned, mask[:1])),
        ("a mask with too few axes", "kl_shift", (base, tuned, mask[:, 0])),
        ("a change of another size", "kl_quadratic", (base, tuned[..., 1:])),
        ("a change of one row", "kl_quadratic", (base, tuned[:1])),
    ):
        yield Refusal(words, call(name, *arguments), "shape", twins.pop(name, None), ("mask", "non-negative"), "shape")
    twin, others = call("kl_shift", base, tuned, mask), ("shape", "non-negative")
    yield Refusal("a mask that selects nothing", call("kl_shift", base, tuned, mask * 0), "mask", twin, others, "mask")
    none = call("kl_shift", base, tuned, mask < 0)
    yield Refusal("a bool mask that selects nothing", none, "mask", None, others, "mask")


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
