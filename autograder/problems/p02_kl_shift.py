"""How the KL shift is judged.

Only `tok` compares the divergence of plain inputs with the reference's; `mean` and `stab` compare the student's own
answers with one another, so that a wrong direction or unit is paid for once.
"""

import math
from collections.abc import Callable, Iterator, Sequence

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


# ------------------------------------------------------------------------------------------------------------ checks


@problem.check(
    "tok", points=2.5, of="per_token_kl", title="the divergence of each token",
    concerns=["its direction and unit", "logits that aren't normalised", "one position and many"],
    next_step="Compute the warm-up's two directions by hand and compare.",
)  # fmt: skip
def tok(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, tuned = pair(rng, 2, 4, V)
    yield Case("a batch of positions", call("per_token_kl", base, tuned), pure=True)
    base, tuned = pair(rng, V)
    moved = (base + 7.0, tuned - float(rng.uniform(1, 5)))
    yield Case("one position, logits moved by constants", call("per_token_kl", *moved))


def mean_of_own(count: int) -> Callable[..., Difference | None]:
    """Hold the shift to be the mean of the student's own divergences of the selected positions."""

    def holds(whole: Value, *parts: Value) -> Difference | None:
        own = [number(part) for part in parts]
        wanted = sum(own) / count
        if len(set(own)) > 1 and abs(number(whole) - wanted) <= 1e-8 * max(1.0, abs(wanted)):
            return None
        return Difference("the shift isn't the mean of your own divergences of the selected positions")

    return holds


@problem.check(
    "mean", points=2, of="kl_shift", title="the mean, against your own divergences",
    concerns=["rows of unequal length", "no mask", "masks of any dtype", "NaN where nothing is selected"],
    next_step="Select the positions first; then one mean over all of them.",
)  # fmt: skip
def mean(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, tuned = pair(rng, 2, 3, V)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    own = [call("per_token_kl", base[row, column], tuned[row, column]) for row, column in mask.nonzero().tolist()]
    yield Relation("rows of unequal length", (call("kl_shift", base, tuned, mask), *own), mean_of_own(4))
    broken = tuned.clone()
    broken[~mask] = math.nan
    yield Relation("NaN outside the mask", (call("kl_shift", base, broken, mask.double()), *own), mean_of_own(4))
    every = [call("per_token_kl", base[0, column], tuned[0, column]) for column in range(3)]
    yield Relation("no mask", (call("kl_shift", base[0], tuned[0]), *every), mean_of_own(3))


def agrees(tolerance: float, words: str) -> Callable[[Value, Value, Value], Difference | None]:
    """Hold two answers to agree, and a third, to a question that differs, to be another."""

    def holds(one: Value, other: Value, different: Value) -> Difference | None:
        bad = finite(one) or finite(other)
        if bad:
            return bad
        if number(other) in (0.0, number(different)):
            return Difference("logits that differ give the same divergence")
        gap = abs(number(one) - number(other))
        return None if gap <= tolerance * max(abs(number(other)), 1e-3) else Difference(words)

    return holds


def asked(*pairs: Sequence[Tensor]) -> tuple[Call, ...]:
    return tuple(call("per_token_kl", base, tuned) for base, tuned in pairs)


def not_negative(outcome: Value) -> Difference | None:
    bad = finite(outcome)
    values = as_array(outcome.value)
    negative = values is None or bool((values < 0).any())
    return bad or (Difference("a divergence is never negative") if negative else None)


@problem.check(
    "stab", points=1.5, of="per_token_kl", title="large logits, tiny differences, half precision",
    concerns=["logits of size 2,000", "rounding below zero", "bf16 logits"],
    next_step="Stay with logarithms: torch has the logarithm of the softmax as one function.",
)  # fmt: skip
def stab(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, tuned = pair(rng, V)
    first, second = rng.choice(V, size=2, replace=False)
    base[first], tuned[second] = 2.5 + base.max(), 3.0 + tuned.max()  # other winners, or far logits would all agree
    large = [(part * 500).float() for part in (base, tuned)]
    exact = [part.double() for part in large]
    words = "large logits in float32 give another divergence than in float64"
    yield Relation("logits of size 2,000", asked(large, exact, (base, tuned)), agrees(1e-3, words))
    half = [part.bfloat16() for part in (base, tuned)]
    whole = [part.float() for part in half]
    words = "half-precision logits give another divergence than the same logits in float32"
    close = base.float().repeat(300, 1) + torch.from_numpy(rng.normal(size=(300, V))).float() * 1e-4
    rounded = call("per_token_kl", base.float().repeat(300, 1), close)
    yield Relation("differences of a rounding's size", (rounded,), not_negative)
    yield Relation("logits in bfloat16", asked(half, whole, (base, 2 * tuned)), agrees(1e-5, words))


@problem.check(
    "inf", points=1, of="per_token_kl", title="probabilities of zero",
    concerns=["ruled out by both, by one, by the other"],
    next_step="Write the term of one token with p = 0, and of one with q = 0.",
)  # fmt: skip
def inf(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, tuned = pair(rng, V)
    out = torch.arange(V) == int(rng.integers(0, V))
    without = (base.masked_fill(out, -math.inf), tuned.masked_fill(out, -math.inf))
    kept = (base[~out], tuned[~out])
    words = "a token that both rule out must change nothing"
    yield Relation("ruled out by both", asked(without, kept, (base, 2 * tuned)), agrees(1e-8, words))
    yield Case("ruled out by the base alone", call("per_token_kl", without[0], tuned))
    yield Relation("ruled out by the tuned model alone", (call("per_token_kl", base, without[1]),), not_negative)


@problem.check(
    "quad", points=2, of="kl_quadratic", title="small changes, to second order",
    concerns=["unequal probabilities", "a constant in the change", "several positions"],
    next_step="Expand log-sum-exp to second order: its second derivative is a covariance.",
)  # fmt: skip
def quad(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, other = pair(rng, 3, V)
    yield Case("several positions", call("kl_quadratic", base, other - base), pure=True)
    base, other = pair(rng, V)
    yield Case("a change with a constant in it", call("kl_quadratic", base + 2.0, other - base + 5.0))


@problem.check(
    "err", points=1, of="pinsker_bound", title="invalid input and the bound", same=Close(rtol=1e-9),
    concerns=["shapes", "an empty mask", "negative and large divergences"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    V = vocab(rng)
    base, tuned = pair(rng, 2, 3, V)
    yield Case("a small divergence", call("pinsker_bound", float(rng.uniform(0.01, 0.5))))
    yield Case("a large divergence", call("pinsker_bound", float(rng.uniform(3, 30))))
    yield Refusal("a negative divergence", call("pinsker_bound", -float(rng.uniform(0.1, 1))), "non-negative")
    yield Refusal("a vocabulary of another size", call("per_token_kl", base[..., 1:], tuned), "shape")
    yield Refusal("a change of another size", call("kl_quadratic", base, tuned[..., 1:]), "shape")
    yield Case("no divergence", call("pinsker_bound", 0.0))
    mask = torch.ones(2, 3)
    yield Refusal("tuned logits of another time", call("kl_shift", base, tuned.repeat(1, 2, 1), mask), "shape")
    yield Refusal("a mask of another length", call("kl_shift", base, tuned, mask[:, 1:]), "shape")
    yield Refusal("a mask that selects nothing", call("kl_shift", base, tuned, mask * 0), "mask")


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
TERMS = "torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p))"
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
    "mask_ignored", "kl_shift", {SELECTED: "per_token_kl(base_logits, tuned_logits).mean()"},
    says="Your shift takes in every position.", next_step="Use the mask.",
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
    "kl_of_mean_distribution", "kl_shift",
    {SELECTED: """per_token_kl(
        normalised(base_logits[chosen]).exp().mean(0).log(), normalised(tuned_logits[chosen]).exp().mean(0).log()
    )"""},
    says="Your shift averages the distributions first.",
    next_step="Average the divergences: positions that move in opposite ways don't cancel.",
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
