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

Divergence = Callable[[Tensor, Tensor], Tensor]
Shift = Callable[[Tensor, Tensor, Tensor], Tensor]


def wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype == torch.bfloat16 else logits


def terms(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    return torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p))


def kl(base: Tensor, tuned: Tensor) -> Tensor:
    log_p, log_q = wide(tuned).log_softmax(-1), wide(base).log_softmax(-1)
    return terms(log_p.exp(), log_p, log_q).sum(-1).clamp(min=0)


def token_mistake(name: str, formula: Divergence, says: str, next_step: str) -> None:
    def function(base_logits: Tensor, tuned_logits: Tensor) -> Tensor:
        if base_logits.shape != tuned_logits.shape:
            raise ValueError("shape")
        return formula(base_logits, tuned_logits)

    problem.mistake(name=name, replaces="per_token_kl", says=says, next_step=next_step)(function)


def by_probabilities(base: Tensor, tuned: Tensor) -> Tensor:
    p, q = wide(tuned).softmax(-1), wide(base).softmax(-1)
    return torch.where(p > 0, p * (p.log() - q.log()), torch.zeros_like(p)).sum(-1)


def overflowing(base: Tensor, tuned: Tensor) -> Tensor:
    p, q = wide(tuned).exp(), wide(base).exp()
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    return torch.where(p > 0, p * (p / q).log(), torch.zeros_like(p)).sum(-1)


def guarded(base: Tensor, tuned: Tensor) -> Tensor:
    p, q = wide(tuned).softmax(-1), wide(base).softmax(-1)
    return (p * ((p + 1e-8) / (q + 1e-8)).log()).sum(-1)


def unguarded(base: Tensor, tuned: Tensor) -> Tensor:
    log_p, log_q = wide(tuned).log_softmax(-1), wide(base).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def in_half(base: Tensor, tuned: Tensor) -> Tensor:
    log_p, log_q = tuned.log_softmax(-1), base.log_softmax(-1)
    return terms(log_p.exp(), log_p, log_q).sum(-1).clamp(min=0)


def mixture(base: Tensor, tuned: Tensor) -> Tensor:
    middle = torch.logaddexp(wide(tuned).log_softmax(-1), wide(base).log_softmax(-1)) - math.log(2)
    return (kl(middle, tuned) + kl(middle, base)) / 2


def total_variation(base: Tensor, tuned: Tensor) -> Tensor:
    return 0.5 * (wide(tuned).softmax(-1) - wide(base).softmax(-1)).abs().sum(-1)


def unnormalised(base: Tensor, tuned: Tensor) -> Tensor:
    p = wide(tuned).softmax(-1)
    return terms(p, wide(tuned), wide(base)).sum(-1)


def double_softmax(base: Tensor, tuned: Tensor) -> Tensor:
    return kl(wide(base).softmax(-1), wide(tuned).softmax(-1))


DIRECTION = "The expectation is taken under the tuned model."

token_mistake(
    "log_of_softmax", by_probabilities, "Your softmax is computed before its logarithm: far logits give log 0.",
    "torch has the logarithm of the softmax as one function.",
)  # fmt: skip
token_mistake(
    "exp_overflows", overflowing, "Your exponentials overflow for large logits.",
    "torch has the logarithm of the softmax as one function.",
)  # fmt: skip
token_mistake(
    "nan_where_both_are_zero", unguarded,
    "A token that both models rule out gives NaN: 0 times infinity minus infinity.",
    "Where p is 0 the term is 0.",
)  # fmt: skip
token_mistake(
    "computes_in_half", in_half, "Your divergence is computed in half precision.", "Turn bfloat16 into float32 first.",
)  # fmt: skip
token_mistake(
    "epsilon_smoothing", guarded, "Your probabilities have a small number added: infinite divergences become finite.",
    "Use log-probabilities; they need no guard.",
)  # fmt: skip
token_mistake(
    "reversed_direction", lambda b, t: kl(t, b),
    "Your divergence is the other direction, KL(base || tuned).", DIRECTION,
)  # fmt: skip
token_mistake("bits_not_nats", lambda b, t: kl(b, t) / math.log(2), "Your divergence is in bits.", "Use natural logs.")
token_mistake(
    "symmetrised", lambda b, t: (kl(b, t) + kl(t, b)) / 2, "Your divergence is the mean of both directions.", DIRECTION,
)  # fmt: skip
token_mistake(
    "jeffreys", lambda b, t: kl(b, t) + kl(t, b), "Your divergence is the sum of both directions.", DIRECTION,
)  # fmt: skip
token_mistake(
    "jensen_shannon", mixture, "Your divergence is Jensen and Shannon's, through the mean of both.", DIRECTION,
)  # fmt: skip
token_mistake(
    "total_variation",
    total_variation,
    "Your number is the total variation distance.",
    "It's the expectation of a log ratio.",
)
token_mistake(
    "mean_over_vocabulary", lambda b, t: kl(b, t) / b.shape[-1], "Your divergence is a mean over the vocabulary.",
    "It's a sum: the weights p add up to 1 already.",
)  # fmt: skip
token_mistake(
    "unnormalised_logits", unnormalised, "Your logarithms are the logits themselves, which aren't normalised.",
    "Take the log-softmax of both.",
)  # fmt: skip
token_mistake(
    "double_softmax", double_softmax,
    "Your softmax is applied twice.", "The log-softmax takes logits, not probabilities.",
)  # fmt: skip
token_mistake(
    "sign_flipped", lambda b, t: -kl(b, t), "Your divergence is negative.", "It is never below 0: turn the ratio over.",
)  # fmt: skip
token_mistake(
    "at_the_mode_only", lambda b, t: (
        (wide(t).log_softmax(-1) - wide(b).log_softmax(-1)).gather(-1, t.argmax(-1, keepdim=True)).squeeze(-1)
    ),
    "Your divergence looks at the likeliest token only.", "It's an expectation over all tokens.",
)  # fmt: skip


def shift_mistake(name: str, formula: Shift, says: str, next_step: str) -> None:
    """Register a wrong mean; it takes both logits and the mask as bool."""

    def function(base_logits: Tensor, tuned_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        chosen = torch.ones(base_logits.shape[:-1]) if mask is None else mask
        if base_logits.shape != tuned_logits.shape or chosen.shape != base_logits.shape[:-1]:
            raise ValueError("shape")
        if not bool(chosen.any()):
            raise ValueError("mask")
        return formula(base_logits, tuned_logits, chosen != 0)

    problem.mistake(name=name, replaces="kl_shift", says=says, next_step=next_step)(function)


def clean(base: Tensor, tuned: Tensor, mask: Tensor) -> Tensor:
    """Return each position's divergence, 0 outside the mask."""
    return torch.where(mask, kl(base, tuned), 0.0)


def of_the_mean(base: Tensor, tuned: Tensor, mask: Tensor) -> Tensor:
    p, q = tuned[mask].softmax(-1).mean(0), base[mask].softmax(-1).mean(0)
    return kl(q.log(), p.log())


shift_mistake(
    "sum_over_tokens", lambda b, t, m: clean(b, t, m).sum(), "Your shift is a sum over positions.", "It's their mean.",
)  # fmt: skip
shift_mistake(
    "divides_by_all", lambda b, t, m: clean(b, t, m).mean(), "Your sum is divided by the number of all positions.",
    "Divide by the number that is selected.",
)  # fmt: skip
shift_mistake(
    "divides_by_rows", lambda b, t, m: clean(b, t, m).sum() / len(m), "Your sum is divided by the number of rows.",
    "Divide by the number of positions.",
)  # fmt: skip
shift_mistake(
    "mean_of_row_means", lambda b, t, m: (
        (clean(b, t, m).sum(-1) / m.sum(-1).clamp(min=1)).mean() if m.ndim > 1 else kl(b, t)[m].mean()
    ),
    "Your shift averages the rows' means: short rows weigh too much.", "One mean over all selected positions.",
)  # fmt: skip
shift_mistake(
    "mask_ignored", lambda b, t, m: kl(b, t).mean(), "Your shift takes in every position.", "Use the mask.",
)  # fmt: skip
shift_mistake(
    "nan_leaks", lambda b, t, m: (unguarded(b, t) * m).sum() / m.sum(),
    "A NaN outside the mask gets in: NaN times 0 is NaN.",
    "Select by the mask instead of multiplying.",
)  # fmt: skip
shift_mistake(
    "kl_of_mean_distribution", of_the_mean, "Your shift averages the distributions first.",
    "Average the divergences: positions that move in opposite ways don't cancel.",
)  # fmt: skip


@problem.mistake(replaces="kl_shift", says="A mask that selects nothing gives NaN.", next_step="Refuse it by name.")
def empty_mask_gives_nan(base_logits: Tensor, tuned_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    chosen = torch.ones(base_logits.shape[:-1]) if mask is None else mask
    if base_logits.shape != tuned_logits.shape or chosen.shape != base_logits.shape[:-1]:
        raise ValueError("shape")
    return kl(base_logits[chosen != 0], tuned_logits[chosen != 0]).mean()


def quadratic_mistake(name: str, formula: Divergence, says: str, next_step: str) -> None:
    def function(base_logits: Tensor, delta: Tensor) -> Tensor:
        if base_logits.shape != delta.shape:
            raise ValueError("shape")
        return formula(base_logits.softmax(-1), delta)

    problem.mistake(name=name, replaces="kl_quadratic", says=says, next_step=next_step)(function)


def variance(p: Tensor, delta: Tensor) -> Tensor:
    return (p * (delta - (p * delta).sum(-1, keepdim=True)) ** 2).sum(-1)


VARIANCE = "Half the variance of the change, under the base."

quadratic_mistake(
    "quadratic_without_mean", lambda p, d: 0.5 * (p * d**2).sum(-1), "Your form is a second moment, not a variance.",
    "A constant added to the change must change nothing.",
)  # fmt: skip
quadratic_mistake(
    "quadratic_unweighted", lambda p, d: 0.5 * d.var(-1, correction=0), "Your variance weighs all tokens alike.",
    "Weigh by the base's probabilities.",
)  # fmt: skip
quadratic_mistake("quadratic_without_half", variance, "Your form lacks the factor one half.", "Taylor's second term.")
quadratic_mistake(
    "quadratic_root", lambda p, d: 0.5 * variance(p, d).sqrt(), "Your form is a standard deviation.", VARIANCE
)
quadratic_mistake(
    "quadratic_linear", lambda p, d: (p * d).sum(-1), "Your form is the first order.", "The first order vanishes."
)
quadratic_mistake(
    "quadratic_of_squares", lambda p, d: 0.5 * (p**2 * (d - (p * d).sum(-1, keepdim=True)) ** 2).sum(-1),
    "Your weights are squared probabilities.", VARIANCE,
)  # fmt: skip


def pinsker_mistake(name: str, formula: Callable[[float], float], says: str, next_step: str) -> None:
    def function(kl: float) -> float:
        if kl < 0:
            raise ValueError("non-negative")
        return formula(kl)

    problem.mistake(name=name, replaces="pinsker_bound", says=says, next_step=next_step)(function)


pinsker_mistake(
    "pinsker_no_half",
    lambda x: min(1.0, math.sqrt(x)), "Your bound lacks the half under the root.",
    "Compare with the formula at a small divergence: by which factor do you differ?",
)  # fmt: skip
pinsker_mistake(
    "pinsker_uncapped", lambda x: math.sqrt(x / 2),
    "Your bound exceeds 1.",
    "No two probabilities differ by more than 1.",
)  # fmt: skip
pinsker_mistake(
    "pinsker_no_root", lambda x: min(1.0, x / 2), "Your bound lacks the root.",
    "Near 0 the distance is larger than KL.",
)  # fmt: skip
pinsker_mistake(
    "pinsker_for_l1", lambda x: min(1.0, math.sqrt(2 * x)),
    "Your bound is for the sum of differences.",
    "The distance is half of that sum.",
)  # fmt: skip
