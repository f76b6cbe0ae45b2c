"""How the DPO loss is judged.

The function for the loss is used by four checks. Only `loss` compares its values with the reference's; `stab`, `smooth`
and `ref` compare the student's own answers with one another, so that one wrong formula isn't paid for four times.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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


@problem.check(
    "seq", points=2, of="sequence_logprob", title="the log-probability of an answer", same=Close(rtol=1e-5, atol=1e-6),
    concerns=["unequal lengths and gaps", "-100 and NaN outside the answer", "masks of any dtype", "bf16", "gradients"],
    next_step="Write the tokens of one short row under each other with the logits that predict them, and add by hand.",
)  # fmt: skip
def seq(rng: Rng) -> Iterator[AnyCase]:
    logits, ids, mask = tokens(rng)
    yield Case("answers of unequal length", call("sequence_logprob", logits, ids, mask), pure=True)
    target = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], dim=1)
    yield Case(
        "an integer mask and ids of -100", call("sequence_logprob", logits, ids.where(target, -100), mask.long())
    )
    broken = logits.clone()
    broken[:, :-1][~target[:, 1:]] = math.nan
    broken[:, -1] = math.inf
    yield Case("NaN logits where nothing is predicted", call("sequence_logprob", broken, ids, mask.double()))
    yield Case("logits in bfloat16", call("sequence_logprob", logits.bfloat16(), ids, mask))
    trained = logits.clone().requires_grad_()
    yield Case("logits that require grad", call("sequence_logprob", trained, ids, mask, backward=True))


@problem.check(
    "loss", points=2.5, of="dpo_loss", title="the loss",
    concerns=["one pair and many", "several betas and the default", "a policy equal to its reference"],
    next_step="Compute the margin of the warm-up's pair by hand, and follow it through your function.",
)  # fmt: skip
def loss(rng: Rng) -> Iterator[AnyCase]:
    pairs = int(rng.integers(3, 6))
    yield Case("a batch and another beta", call("dpo_loss", *logps(rng, pairs), beta=some_beta(rng)), pure=True)
    yield Case("the default beta", call("dpo_loss", *logps(rng, pairs)))
    yield Case("a single pair", call("dpo_loss", *logps(rng, None), some_beta(rng)))
    yield Case("one number a pair", call("dpo_loss", *logps(rng, pairs), some_beta(rng), 0.0, "none"))
    chosen, rejected, _, _ = logps(rng, pairs)
    yield Case(
        "a policy equal to its reference", call("dpo_loss", chosen, rejected, chosen, rejected, beta=some_beta(rng))
    )


def linear(at_minus: Value, at_plus: Value, at_minus_one: Value, at_plus_one: Value) -> Difference | None:
    """Hold `L(-h) - L(h)` to be in proportion to h: softplus(x) - softplus(-x) = x."""
    bad = finite(at_minus) or finite(at_plus)
    if bad:
        return bad
    large, small = number(at_minus) - number(at_plus), number(at_minus_one) - number(at_plus_one)
    if large != 0.0 and abs(large - LARGE * small) <= 1e-3 * abs(large):
        return None
    return Difference("far margins don't continue what the function does near 0")


def steady(at_minus: Value, at_plus: Value, at_zero: Value) -> Difference | None:
    """Hold the gradients at two far margins to add up to twice the one at 0: sigmoid(x) + sigmoid(-x) = 1."""
    for outcome in (at_minus, at_plus, at_zero):
        bad = finite(outcome)
        if bad:
            return Difference("a gradient at a far margin is NaN or infinite" if outcome.gradients else bad.words)
        if not outcome.gradients or outcome.gradients[0] is None:
            return Difference("the result can't be differentiated: the graph was cut")
    minus, plus, zero = (
        float(outcome.gradients[0].sum()) for outcome in (at_minus, at_plus, at_zero) if outcome.gradients
    )
    if zero != 0.0 and abs(minus + plus - 2 * zero) <= 1e-3 * abs(zero):
        return None
    return Difference("the gradient at far margins isn't what the function's own gradient at 0 leads to")


def same_number(one: Value, other: Value) -> Difference | None:
    if abs(number(one) - number(other)) <= 2e-6 * max(1.0, abs(number(other))):
        return None
    return Difference("half-precision inputs give another number than the same inputs in float32")


LARGE = 10_000.0


@problem.check(
    "stab", points=1.5, of="dpo_loss", title="far margins and half precision",
    concerns=["margins of ten thousand", "gradients there", "bf16 inputs"],
    next_step="Find a function of torch that computes log(sigmoid(x)) without computing sigmoid(x) first.",
)  # fmt: skip
def stab(rng: Rng) -> Iterator[AnyCase]:
    beta = float(rng.choice([0.05, 0.1, 0.25]))
    four = [call("dpo_loss", *margins([h], torch.float32), beta) for h in (-LARGE, LARGE)]
    near = [call("dpo_loss", *margins([h], torch.float64), beta) for h in (-1.0, 1.0)]
    yield Relation("margins of plus and minus ten thousand", (*four, *near), linear)
    calls: list[Any] = []
    for h in (-LARGE, LARGE, 0.0):
        chosen, rejected, *reference = margins([h], torch.float32)
        calls.append(
            call("dpo_loss", chosen.requires_grad_(), rejected.requires_grad_(), *reference, beta, backward=True)
        )
    yield Relation("gradients at far margins", tuple(calls), steady)
    half = [part.bfloat16() for part in logps(rng, 4, 30.0)]
    whole = [part.float() for part in half]
    yield Relation("inputs in bfloat16", (call("dpo_loss", *half, beta), call("dpo_loss", *whole, beta)), same_number)


def expectation(epsilon: float) -> Callable[[Value, Value, Value], Difference | None]:
    def holds(smoothed: Value, right_label: Value, wrong_label: Value) -> Difference | None:
        wanted = (1 - epsilon) * number(right_label) + epsilon * number(wrong_label)
        differ = number(right_label) != number(wrong_label)
        if differ and abs(number(smoothed) - wanted) <= 1e-8 * max(1.0, abs(wanted)):
            return None
        return Difference("the smoothed loss isn't the expectation of your own loss over the two labels")

    return holds


@problem.check(
    "smooth", points=0.5, of="dpo_loss", title="label smoothing, against your own loss",
    concerns=["small and large smoothing"],
    next_step="Write the loss for both labels, and weigh them with 1 - label_smoothing and label_smoothing.",
)  # fmt: skip
def smooth(rng: Rng) -> Iterator[AnyCase]:
    for epsilon in (0.1, 0.35):
        pc, pr, rc, rr = logps(rng, 3)
        beta = some_beta(rng)
        calls = (
            call("dpo_loss", pc, pr, rc, rr, beta, epsilon),
            call("dpo_loss", pc, pr, rc, rr, beta),
            call("dpo_loss", pr, pc, rr, rc, beta),
        )
        yield Relation("a label that may be wrong", calls, expectation(epsilon))


def constant_reference(outcome: Value) -> Difference | None:
    gradients = outcome.gradients
    if gradients is None or any(part is None or not bool(part.any()) for part in gradients[:2]):
        return Difference("the policy's log-probabilities got no gradient: the graph was cut")
    if any(part is not None and bool(part.any()) for part in gradients[2:4]):
        return Difference("a gradient reached the reference's log-probabilities")
    return None


@problem.check(
    "ref", points=0.5, of="dpo_loss", title="the reference is a constant",
    concerns=["reference tensors that ask for a gradient"],
    next_step="Cut the reference's tensors off from the graph before you use them.",
)  # fmt: skip
def ref(rng: Rng) -> Iterator[AnyCase]:
    four = [part.requires_grad_() for part in logps(rng, 3)]
    yield Relation("reference tensors that require grad", (call("dpo_loss", *four, backward=True),), constant_reference)


def detached(expected: Any, got: Any) -> Difference | None:
    """Demand close numbers that are cut off from the graph."""
    difference = Close()(expected, got)
    if difference is None and attached(got) and not attached(expected):
        return Difference("the numbers are right, but they still hang on the graph")
    return difference


def attached(values: Any) -> bool:
    return any(part.requires_grad for part in values if torch.is_tensor(part))


@problem.check(
    "rew", points=0.5, of="implicit_rewards", title="the rewards", same=detached,
    concerns=["another beta", "inputs that require grad"],
    next_step="Compute both rewards of one pair by hand; they are for logging only.",
)  # fmt: skip
def rew(rng: Rng) -> Iterator[AnyCase]:
    four = [part.requires_grad_() for part in logps(rng, 3)]
    yield Case("inputs that require grad", call("implicit_rewards", *four, some_beta(rng)))
    yield Case("a single pair, the default beta", call("implicit_rewards", *logps(rng, None)))


def inference(four: Four) -> list[torch.Tensor]:
    """Return tensors that autograd refuses.

    Plain autograd on the arguments fails. Who copies them into fresh leaves and differentiates those is right too,
    by design: that takes more understanding than the formula.
    """
    with torch.inference_mode():
        return [part.clone() for part in four]


@problem.check(
    "grad", points=1.5, of="dpo_grad", title="the gradient by hand",
    concerns=["several pairs", "a single pair", "far margins"],
    next_step="Differentiate the loss by the margin first; then the margin by each of the two log-probabilities.",
)  # fmt: skip
def grad(rng: Rng) -> Iterator[AnyCase]:
    yield Case("several pairs", call("dpo_grad", *inference(logps(rng, int(rng.integers(3, 6)))), some_beta(rng)))
    yield Case("a single pair, the default beta", call("dpo_grad", *inference(logps(rng, None))))
    far = inference(margins([-LARGE, LARGE, 3.0 + float(rng.integers(1, 5))], torch.float64))
    yield Case("far margins", call("dpo_grad", *far, some_beta(rng)))


@problem.check(
    "err", points=1, of="dpo_loss", title="invalid input",
    concerns=["beta", "shapes that would broadcast", "no pairs", "label smoothing", "reduction"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    four = logps(rng, 3)
    yield Refusal("a beta of NaN", call("dpo_loss", *four, beta=math.nan), "beta")
    yield Refusal("a beta of zero", call("dpo_loss", *four, beta=0.0), "beta")
    yield Refusal("a negative beta", call("dpo_loss", *four, beta=-some_beta(rng)), "beta")
    yield Refusal("a negative beta for the gradient", call("dpo_grad", *four, beta=-1.0), "beta")
    yield Refusal("one shape that would broadcast", call("dpo_loss", four[0], four[1][:1], four[2], four[3]), "shape")
    yield Refusal("a reference of another shape", call("implicit_rewards", *four[:3], four[3][:2]), "shape")
    yield Refusal("no pairs", call("dpo_loss", *(part[:0] for part in four)), "empty")
    yield Refusal("a label smoothing of a half", call("dpo_loss", *four, label_smoothing=0.5), "label_smoothing")
    yield Refusal("a negative label smoothing", call("dpo_loss", *four, label_smoothing=-0.1), "label_smoothing")
    yield Refusal("an unknown reduction", call("dpo_loss", *four, reduction="batchmean"), "reduction")
    logits, ids, mask = tokens(rng)
    yield Refusal("an infinite beta", call("dpo_loss", *four, beta=math.inf), "beta")
    yield Refusal("ids of another length", call("sequence_logprob", logits, ids[:, 1:], mask), "shape")
    yield Refusal("a mask of another length", call("sequence_logprob", logits, ids, mask[:, 1:]), "shape")


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
#
# Each stands in for one function; the helpers keep the rest of the contract: a mistake is wrong in one way only.

Tensor = torch.Tensor
PerPair = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
WholeLoss = Callable[[Four, float, float, str], Tensor]
TokenSum = Callable[[Tensor, Tensor, Tensor], Tensor]
Rewards = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
Gradient = Callable[[Tensor, float, int], Tensor]


def demand(four: Four, beta: float, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError("beta must be positive and finite")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError("label_smoothing must be within [0, 0.5)")
    if reduction not in ("mean", "none"):
        raise ValueError("unknown reduction")
    if len({part.shape for part in four}) > 1:
        raise ValueError("shape: one common shape is needed")
    if not four[0].numel():
        raise ValueError("empty")


def single(part: Tensor) -> Tensor:
    return part.float() if part.dtype == torch.bfloat16 else part


def smoothed(pair: PerPair, four: Four, beta: float, label_smoothing: float, reduction: str) -> Tensor:
    """Return a per-pair loss with its label smoothing, in float32 at least, with a constant reference."""
    pc, pr, rc, rr = (single(part) for part in four)
    rc, rr = rc.detach(), rr.detach()
    value = (1 - label_smoothing) * pair(pc, pr, rc, rr, beta)
    if label_smoothing:
        value = value + label_smoothing * pair(pr, pc, rr, rc, beta)
    return value.mean() if reduction == "mean" else value


def margin(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor) -> Tensor:
    return (pc - pr) - (rc - rr)


def right(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    return F.softplus(-beta * margin(pc, pr, rc, rr))


def loss_mistake(name: str, pair: PerPair, says: str, next_step: str) -> None:
    """Register a wrong formula for one pair's loss."""

    def function(
        pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor,
        beta: float = 0.1, label_smoothing: float = 0.0, reduction: str = "mean",
    ) -> Tensor:  # fmt: skip
        demand((pc, pr, rc, rr), beta, label_smoothing, reduction)
        return smoothed(pair, (pc, pr, rc, rr), beta, label_smoothing, reduction)

    function.__name__ = name
    problem.mistake(replaces="dpo_loss", says=says, next_step=next_step)(function)


BY_HAND = "Compute the warm-up's pair by hand and compare each step."
loss_mistake(
    "sign_flipped", lambda pc, pr, rc, rr, b: F.softplus(b * margin(pc, pr, rc, rr)),
    "Your loss falls when the rejected answer gets likelier: the sign of the margin is turned round.",
    "Which answer should a policy with a large margin prefer, and is its loss small?",
)  # fmt: skip
loss_mistake(
    "no_reference", lambda pc, pr, rc, rr, b: F.softplus(-b * (pc - pr)),
    "Your loss leaves the reference out.", "The margin compares the policy's preference with the reference's.",
)  # fmt: skip
loss_mistake(
    "reference_added", lambda pc, pr, rc, rr, b: F.softplus(-b * ((pc - pr) + (rc - rr))),
    "Your margin adds the reference's preference instead of subtracting it.",
    "A policy equal to its reference has a margin of 0.",
)  # fmt: skip
loss_mistake(
    "beta_outside", lambda pc, pr, rc, rr, b: b * F.softplus(-margin(pc, pr, rc, rr)),
    "Your beta multiplies the loss; it belongs inside the sigmoid.",
    "At a margin of 0 the loss must be ln 2, whatever beta is.",
)  # fmt: skip
loss_mistake(
    "beta_divides", lambda pc, pr, rc, rr, b: F.softplus(-margin(pc, pr, rc, rr) / b),
    "Your margin is divided by beta.", "beta multiplies the margin.",
)  # fmt: skip
loss_mistake(
    "beta_on_policy_only", lambda pc, pr, rc, rr, b: F.softplus(-(b * (pc - pr) - (rc - rr))),
    "Your beta scales the policy's half of the margin only.", "Set a bracket: beta multiplies the whole margin.",
)  # fmt: skip


@problem.mistake(
    replaces="dpo_loss", says="Your default for beta is 1.", next_step="Read the signature: the default is 0.1.",
)  # fmt: skip
def beta_default_1(
    pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor,
    beta: float = 1.0, label_smoothing: float = 0.0, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    demand((pc, pr, rc, rr), beta, label_smoothing, reduction)
    return smoothed(right, (pc, pr, rc, rr), beta, label_smoothing, reduction)


loss_mistake(
    "no_beta", lambda pc, pr, rc, rr, b: F.softplus(-margin(pc, pr, rc, rr)),
    "Your loss doesn't use beta.", "beta multiplies the margin inside the sigmoid.",
)  # fmt: skip
loss_mistake(
    "minus_forgotten", lambda pc, pr, rc, rr, b: -right(pc, pr, rc, rr, b),
    "Your loss is the log-likelihood itself: the minus is missing.", "A loss falls when the model gets better.",
)  # fmt: skip
loss_mistake(
    "sigmoid_not_log", lambda pc, pr, rc, rr, b: 1 - torch.sigmoid(b * margin(pc, pr, rc, rr)),
    "Your loss is one minus the probability; the logarithm is missing.", "The loss is a negative log-likelihood.",
)  # fmt: skip
loss_mistake(
    "negative_sigmoid", lambda pc, pr, rc, rr, b: -torch.sigmoid(b * margin(pc, pr, rc, rr)),
    "Your loss is the negative probability; the logarithm is missing.", "The loss is a negative log-likelihood.",
)  # fmt: skip
loss_mistake(
    "ratio_of_logprobs", lambda pc, pr, rc, rr, b: F.softplus(-b * (pc / rc - pr / rr)),
    "Your margin divides log-probabilities; the log of a ratio is a difference.", BY_HAND,
)  # fmt: skip
loss_mistake(
    "difference_of_ratios", lambda pc, pr, rc, rr, b: F.softplus(-b * ((pc - rc).exp() - (pr - rr).exp())),
    "Your margin subtracts probability ratios instead of their logarithms.", BY_HAND,
)  # fmt: skip
loss_mistake(
    "bits", lambda pc, pr, rc, rr, b: right(pc, pr, rc, rr, b) / math.log(2),
    "Your loss is in bits.", "Use the natural logarithm: at a margin of 0 the loss is 0.6931.",
)  # fmt: skip
loss_mistake(
    "hinge", lambda pc, pr, rc, rr, b: F.relu(1 - b * margin(pc, pr, rc, rr)),
    "Your loss is a hinge, not the logistic loss.", "Write -log(sigmoid(...)) of the scaled margin.",
)  # fmt: skip
loss_mistake(
    "ipo", lambda pc, pr, rc, rr, b: (margin(pc, pr, rc, rr) - 1 / (2 * b)) ** 2,
    "Your loss is IPO's squared distance (arXiv:2310.12036), not DPO's.",
    "Write -log(sigmoid(...)) of the scaled margin.",
)  # fmt: skip
loss_mistake(
    "chosen_only", lambda pc, pr, rc, rr, b: F.softplus(-b * (pc - rc)),
    "Your loss looks at the chosen answer only.", "A preference compares two answers.",
)  # fmt: skip
loss_mistake(
    "two_log_sigmoids", lambda pc, pr, rc, rr, b: F.softplus(-b * (pc - rc)) + F.softplus(b * (pr - rr)),
    "Your loss has a sigmoid for each answer; DPO has one for their difference.", BY_HAND,
)  # fmt: skip
loss_mistake(
    "starts_at_zero", lambda pc, pr, rc, rr, b: right(pc, pr, rc, rr, b) - math.log(2),
    "Your loss is moved so that it starts at 0; it starts at ln 2.",
    "A policy equal to its reference is undecided: -log(1/2).",
)  # fmt: skip
loss_mistake(
    "halved_margin", lambda pc, pr, rc, rr, b: right(pc, pr, rc, rr, b / 2),
    "Your margin is halved.", BY_HAND,
)  # fmt: skip
loss_mistake(
    "naive_log_sigmoid", lambda pc, pr, rc, rr, b: -torch.log(torch.sigmoid(b * margin(pc, pr, rc, rr))),
    "Your loss computes the sigmoid first: for a far margin it's 0, and its logarithm infinite.",
    "torch has log(sigmoid(x)) as one function.",
)  # fmt: skip
loss_mistake(
    "clipped_sigmoid", lambda pc, pr, rc, rr, b: -torch.log(torch.sigmoid(b * margin(pc, pr, rc, rr)).clamp(min=1e-8)),
    "Your sigmoid is kept away from 0, so that far margins all cost the same and teach nothing.",
    "torch has log(sigmoid(x)) as one function; it needs no clipping.",
)  # fmt: skip


def whole_loss_mistake(name: str, says: str, next_step: str, function: WholeLoss) -> None:
    """Register a wrong loss that isn't wrong in one pair's formula; it takes the four, beta, smoothing, reduction."""

    def replacement(
        pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor,
        beta: float = 0.1, label_smoothing: float = 0.0, reduction: str = "mean",
    ) -> Tensor:  # fmt: skip
        return function((pc, pr, rc, rr), beta, label_smoothing, reduction)

    replacement.__name__ = name
    problem.mistake(replaces="dpo_loss", says=says, next_step=next_step)(replacement)


def sums(four: Four, beta: float, label_smoothing: float, reduction: str) -> Tensor:
    demand(four, beta, label_smoothing, reduction)
    value = smoothed(right, four, beta, label_smoothing, "none")
    return value.sum() if reduction == "mean" else value


def smooths_wrongly(weight: Callable[[float], tuple[float, float]]) -> WholeLoss:
    def function(four: Four, beta: float, label_smoothing: float, reduction: str) -> Tensor:
        demand(four, beta, label_smoothing, reduction)
        pc, pr, rc, rr = (single(part) for part in four)
        one, other = weight(label_smoothing)
        rc, rr = rc.detach(), rr.detach()
        value = one * right(pc, pr, rc, rr, beta) + other * right(pr, pc, rr, rc, beta)
        return value.mean() if reduction == "mean" else value

    return function


def trains_reference(four: Four, beta: float, label_smoothing: float, reduction: str) -> Tensor:
    demand(four, beta, label_smoothing, reduction)
    pc, pr, rc, rr = (single(part) for part in four)
    value = (1 - label_smoothing) * right(pc, pr, rc, rr, beta) + label_smoothing * right(pr, pc, rr, rc, beta)
    return value.mean() if reduction == "mean" else value


def smooths_by_default(four: Four, beta: float, label_smoothing: float, reduction: str) -> Tensor:
    demand(four, beta, label_smoothing, reduction)
    return smoothed(right, four, beta, label_smoothing or 0.1, reduction)


def cuts_graph(four: Four, beta: float, label_smoothing: float, reduction: str) -> Tensor:
    demand(four, beta, label_smoothing, reduction)
    return smoothed(right, four, beta, label_smoothing, reduction).detach()


def in_half(four: Four, beta: float, label_smoothing: float, reduction: str) -> Tensor:
    demand(four, beta, label_smoothing, reduction)
    pc, pr, rc, rr = four
    rc, rr = rc.detach(), rr.detach()
    value = (1 - label_smoothing) * right(pc, pr, rc, rr, beta) + label_smoothing * right(pr, pc, rr, rc, beta)
    return value.mean() if reduction == "mean" else value


def unchecked(*, beta: Callable[[float], float], broadcast: bool = False, empty: bool = False) -> WholeLoss:
    def function(four: Four, given: float, label_smoothing: float, reduction: str) -> Tensor:
        checked: Any = torch.broadcast_tensors(*four) if broadcast else four
        if empty and not four[0].numel():
            checked = (torch.zeros(1),) * 4
        demand(checked, beta(given), label_smoothing, reduction)
        return smoothed(right, four, given, label_smoothing, reduction)

    return function


whole_loss_mistake(
    "sums_pairs", "Your loss is the sum over the pairs.", "The loss of a batch is the mean over its pairs.", sums
)
whole_loss_mistake(
    "smoothing_ignored", "Your loss doesn't use label_smoothing.", "Weigh the two labels.",
    smooths_wrongly(lambda epsilon: (1.0, 0.0)),
)  # fmt: skip
whole_loss_mistake(
    "smoothing_sign", "Your smoothing subtracts the other label's loss.", "An expectation adds both labels' losses.",
    smooths_wrongly(lambda epsilon: (1 - epsilon, -epsilon)),
)  # fmt: skip
whole_loss_mistake(
    "smoothing_swapped", "Your smoothing gives the wrong label the larger weight.",
    "label_smoothing is the probability of the wrong label.",
    smooths_wrongly(lambda epsilon: (epsilon, 1 - epsilon) if epsilon else (1.0, 0.0)),
)  # fmt: skip
whole_loss_mistake(
    "smoothing_by_default", "Your loss smooths the labels even where label_smoothing is 0.",
    "With label_smoothing 0 the loss is the plain one.", smooths_by_default,
)  # fmt: skip
whole_loss_mistake(
    "reference_gradient", "Your loss sends a gradient into the reference.", "Detach the reference's tensors.",
    trains_reference,
)  # fmt: skip
whole_loss_mistake(
    "detached_loss", "Your loss is cut off from the graph: nothing can be trained on it.",
    "Leave out `.item()`, `.detach()` and NumPy on the policy's tensors.", cuts_graph,
)  # fmt: skip
whole_loss_mistake(
    "computes_in_half", "Your loss is computed in the inputs' half precision.",
    "Turn bfloat16 and float16 into float32 first.", in_half,
)  # fmt: skip
whole_loss_mistake(
    "nan_beta_passes", "A beta of NaN passes your check: no comparison with NaN is true.",
    "Ask `not beta > 0` instead of `beta <= 0`.", unchecked(beta=lambda beta: 1.0 if math.isnan(beta) else beta),
)  # fmt: skip
whole_loss_mistake(
    "beta_unchecked", "Any beta is accepted.", "A beta that isn't positive turns the loss round: refuse it.",
    unchecked(beta=lambda beta: 1.0),
)  # fmt: skip
whole_loss_mistake(
    "broadcasts_in_silence", "Tensors of other shapes are broadcast: pairs get mixed up without a word.",
    "Compare the four shapes first.", unchecked(beta=lambda beta: beta, broadcast=True),
)  # fmt: skip
whole_loss_mistake(
    "empty_nan", "No pairs give NaN: the mean of nothing.", "Refuse an empty batch by name.",
    unchecked(beta=lambda beta: beta, empty=True),
)  # fmt: skip


# These two come first: they explain less than others, and a shorter explanation wins a tie.


@problem.mistake(
    replaces="sequence_logprob",
    says="A NaN outside the answer gets into your sum: NaN times 0 is NaN.",
    next_step="Select by the mask instead of multiplying by it.",
)
def nan_leaks(logits: Tensor, input_ids: Tensor, answer_mask: Tensor) -> Tensor:
    if answer_mask.shape != logits.shape[:2]:
        raise ValueError("shape")
    logp = single(logits)[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:].clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (logp * (answer_mask[:, 1:] != 0)).sum(-1)


@problem.mistake(
    replaces="sequence_logprob",
    says="Your function looks up the id -100, which is no token.",
    next_step="Put any valid id there before gathering, or gather only at the answer.",
)
def gather_minus_100(logits: Tensor, input_ids: Tensor, answer_mask: Tensor) -> Tensor:
    if answer_mask.shape != logits.shape[:2]:
        raise ValueError("shape")
    logp = single(logits)[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    return torch.where(answer_mask[:, 1:] != 0, logp, 0.0).sum(-1)


def token_mistake(name: str, formula: TokenSum, says: str, next_step: str) -> None:
    """Register a wrong sum over tokens; it takes float logits without NaN at the answer, ids, and the mask as bool."""

    def function(logits: Tensor, input_ids: Tensor, answer_mask: Tensor) -> Tensor:
        if input_ids.shape != logits.shape[:2] or answer_mask.shape != logits.shape[:2]:
            raise ValueError("shape")
        return formula(single(logits), input_ids, answer_mask != 0)

    function.__name__ = name
    problem.mistake(replaces="sequence_logprob", says=says, next_step=next_step)(function)


def summed(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the right sum for logits, ids and mask that are already aligned."""
    clean = torch.where(mask.unsqueeze(-1), logits, torch.zeros_like(logits))
    logp = clean.log_softmax(-1).gather(-1, ids.where(mask, 0).unsqueeze(-1)).squeeze(-1)
    return torch.where(mask, logp, torch.zeros_like(logp)).sum(-1)


def shifted(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return summed(logits[:, :-1], ids[:, 1:], mask[:, 1:])


def without_first(mask: Tensor) -> Tensor:
    return mask & (mask.cumsum(-1) > 1)


def to_shortest(mask: Tensor) -> Tensor:
    """Keep as many targets of each row as the shortest row with any has."""
    counts = mask.sum(-1)
    return mask & (mask.cumsum(-1) <= counts[counts > 0].min())


def without_last(mask: Tensor) -> Tensor:
    return mask & (mask.flip(-1).cumsum(-1).flip(-1) > 1)


token_mistake(
    "mean_logprob", lambda z, ids, m: shifted(z, ids, m) / m[:, 1:].sum(-1).clamp(min=1),
    "Your answers are averaged over their tokens; DPO sums.", "The log-probability of a sequence is a sum.",
)  # fmt: skip
token_mistake(
    "mean_times_longest", lambda z, ids, m: shifted(z, ids, m) / m[:, 1:].sum(-1).clamp(min=1) * m[:, 1:].sum(-1).max(),
    "Your answers all count as if they were as long as the longest one.", "Add up each row's own tokens.",
)  # fmt: skip
token_mistake(
    "truncated_to_shortest", lambda z, ids, m: shifted(z, ids, torch.cat([m[:, :1], to_shortest(m[:, 1:])], 1)),
    "Your answers are cut to the length of the shortest one.", "Pad a batch; don't cut it: every answer token counts.",
)  # fmt: skip
token_mistake(
    "logprob_not_shifted", summed,
    "Your logits are compared with the token at their own position.", "The logits at t predict the token at t + 1.",
)  # fmt: skip
token_mistake(
    "mask_not_shifted", lambda z, ids, m: summed(z[:, :-1], ids[:, 1:].clamp(min=0), m[:, :-1]),
    "Your ids are shifted and your mask isn't.", "The mask marks answer tokens: shift it with the ids.",
)  # fmt: skip
token_mistake(
    "shifted_twice", lambda z, ids, m: summed(z[:, :-2], ids[:, 2:], m[:, 2:]),
    "Your logits are compared with the token after the next one.", "Shift once.",
)  # fmt: skip
token_mistake(
    "prompt_included", lambda z, ids, m: summed(z[:, :-1], ids[:, 1:].clamp(min=0), torch.ones_like(m[:, 1:])),
    "Your sum takes in prompt and padding.", "Only tokens where the mask is 1 count.",
)  # fmt: skip
token_mistake(
    "prompt_averaged", lambda z, ids, m: summed(z[:, :-1], ids[:, 1:].clamp(min=0), torch.ones_like(m[:, 1:])) / (
        m.shape[1] - 1
    ),
    "Your number is the mean over prompt, answer and padding.", "Sum, and only where the mask is 1.",
)  # fmt: skip
token_mistake(
    "first_token_dropped", lambda z, ids, m: shifted(z, ids, torch.cat([m[:, :1], without_first(m[:, 1:])], 1)),
    "Your sum leaves out each answer's first token.", "The last prompt position predicts it.",
)  # fmt: skip
token_mistake(
    "last_token_dropped", lambda z, ids, m: shifted(z, ids, torch.cat([m[:, :1], without_last(m[:, 1:])], 1)),
    "Your sum leaves out each answer's last token (often the end-of-sequence token).", "It is part of the answer.",
)  # fmt: skip
token_mistake(
    "unnormalised", lambda z, ids, m: torch.where(
        m[:, 1:], z[:, :-1].gather(-1, ids[:, 1:].where(m[:, 1:], 0).unsqueeze(-1)).squeeze(-1), 0.0
    ).sum(-1),
    "Your sum adds logits; they aren't normalised.", "Take the log-softmax over the vocabulary first.",
)  # fmt: skip


@problem.mistake(
    replaces="sequence_logprob",
    says="Your sum is computed in the logits' half precision.",
    next_step="Turn bfloat16 and float16 into float32 first.",
)
def logprob_in_half(logits: Tensor, input_ids: Tensor, answer_mask: Tensor) -> Tensor:
    if answer_mask.shape != logits.shape[:2]:
        raise ValueError("shape")
    return shifted(logits, input_ids, answer_mask != 0)


@problem.mistake(
    replaces="sequence_logprob",
    says="Your sum is cut off from the graph: no gradient reaches the logits.",
    next_step="Leave out `.item()`, `.detach()`, `float()` and NumPy on what comes from the logits.",
)
def logprob_detached(logits: Tensor, input_ids: Tensor, answer_mask: Tensor) -> Tensor:
    if input_ids.shape != logits.shape[:2] or answer_mask.shape != logits.shape[:2]:
        raise ValueError("shape")
    return shifted(single(logits), input_ids, answer_mask != 0).detach()


def reward_mistake(name: str, formula: Rewards, says: str, next_step: str) -> None:
    """Register wrong rewards."""

    def function(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float = 0.1) -> tuple[Tensor, Tensor]:
        demand((pc, pr, rc, rr), beta)
        return formula(pc, pr, rc, rr, beta)

    function.__name__ = name
    problem.mistake(replaces="implicit_rewards", says=says, next_step=next_step)(function)


reward_mistake(
    "reward_attached", lambda pc, pr, rc, rr, b: (b * (pc - rc), b * (pr - rr)),
    "Your rewards still hang on the graph.", "Detach what is only logged.",
)  # fmt: skip
reward_mistake(
    "reward_no_reference", lambda pc, pr, rc, rr, b: (b * pc.detach(), b * pr.detach()),
    "Your rewards leave the reference out.", "A reward is a log-ratio of policy and reference.",
)  # fmt: skip
reward_mistake(
    "reward_without_beta", lambda pc, pr, rc, rr, b: ((pc - rc).detach(), (pr - rr).detach()),
    "Your rewards lack beta.", "Multiply by beta.",
)  # fmt: skip
reward_mistake(
    "rewards_swapped", lambda pc, pr, rc, rr, b: (b * (pr - rr).detach(), b * (pc - rc).detach()),
    "Your rewards come in the other order.", "Return the chosen answer's reward first.",
)  # fmt: skip


def gradient_mistake(name: str, by_chosen: Gradient, says: str, next_step: str, *, other_sign: float = -1.0) -> None:
    """Register a wrong gradient; the formula takes the margin, beta and the number of pairs."""

    def function(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float = 0.1) -> tuple[Tensor, Tensor]:
        demand((pc, pr, rc, rr), beta)
        value = by_chosen(margin(pc, pr, rc, rr), beta, pc.numel())
        return value, other_sign * value

    function.__name__ = name
    problem.mistake(replaces="dpo_grad", says=says, next_step=next_step)(function)


gradient_mistake(
    "grad_wrong_weight", lambda h, b, n: -b * torch.sigmoid(b * h) / n,
    "Your weight is large where the pair is already ordered rightly.", "Derive d/dx of -log(sigmoid(x)) once more.",
)  # fmt: skip
gradient_mistake(
    "grad_not_averaged", lambda h, b, n: -b * torch.sigmoid(-b * h),
    "Your gradient is that of the sum over pairs.", "The loss is a mean: each pair's share is divided by their number.",
)  # fmt: skip
gradient_mistake(
    "grad_same_sign", lambda h, b, n: -b * torch.sigmoid(-b * h) / n,
    "Your two gradients have the same sign.", "The margin falls when the rejected answer gets likelier.",
    other_sign=1.0,
)  # fmt: skip
gradient_mistake(
    "grad_sign", lambda h, b, n: b * torch.sigmoid(-b * h) / n,
    "Your gradients point the other way.", "A step against the gradient must raise the chosen answer.",
)  # fmt: skip
gradient_mistake(
    "grad_without_beta", lambda h, b, n: -torch.sigmoid(-b * h) / n,
    "Your gradient lacks the factor beta of the chain rule.", "The margin is multiplied by beta inside the sigmoid.",
)  # fmt: skip
gradient_mistake(
    "grad_of_sigmoid", lambda h, b, n: -b * torch.sigmoid(b * h) * torch.sigmoid(-b * h) / n,
    "Your gradient is that of the sigmoid; the logarithm is missing.", "Divide by the sigmoid: d log f = df / f.",
)  # fmt: skip


@problem.mistake(
    replaces="dpo_grad",
    says="Your gradient leaves the reference out.",
    next_step="The reference is a constant, but its preference is part of the margin inside the sigmoid.",
)
def grad_no_reference(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float = 0.1) -> tuple[Tensor, Tensor]:
    demand((pc, pr, rc, rr), beta)
    value = -beta * torch.sigmoid(-beta * (pc - pr)) / pc.numel()
    return value, -value


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "sequence_logprob: F.log_softmax(chosen, dim=-1) -> F.log_softmax(chosen)":
        "for two axes torch chooses the last itself, with a warning",
    "sequence_logprob: -1 (#?) -> 1": "the selected logits have two axes: -1 is 1",
    "sequence_logprob: 0 (#4) -> -1": "the row sums have one axis: -1 is 0",
})  # fmt: skip
