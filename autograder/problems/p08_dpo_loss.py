"""How the DPO loss is judged.

The function for the loss is used by four checks. Only `loss` compares its values with the reference's; `stab`, `smooth`
and `ref` compare the student's own answers with one another, so that one wrong formula isn't paid for four times.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
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

BY_HAND = "Compute the warm-up's pair by hand and compare each step."
MARGIN = "(pc - pr) - (rc - rr)"
TOTAL = "total.index_add(0, row, logp)"
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

problem.slip("sums_pairs", "dpo_loss", {"loss.mean()": "loss.sum()"},
    says="Your loss is the sum over the pairs.",
    next_step="The loss of a batch is the mean over its pairs.")  # fmt: skip
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

# The first two come first: they explain less than others, and a shorter explanation wins a tie. Both compute at every
# position what the reference computes at the answer's.
problem.slip("nan_leaks", "sequence_logprob", {
        "logits[:, :-1][target]": "logits[:, :-1]",
        "input_ids[:, 1:][target]": "input_ids[:, 1:].clamp(min=0)",
        TOTAL: "(logp * target).sum(-1)",
    },
    says="A NaN outside the answer gets into your sum: NaN times 0 is NaN.",
    next_step="Select by the mask instead of multiplying by it.")  # fmt: skip
problem.slip("gather_minus_100", "sequence_logprob", {
        "logits[:, :-1][target]": "logits[:, :-1]",
        "input_ids[:, 1:][target]": "input_ids[:, 1:]",
        TOTAL: "torch.where(target, logp, 0.0).sum(-1)",
    },
    says="Your function looks up the id -100, which is no token.",
    next_step="Put any valid id there before gathering, or gather only at the answer.")  # fmt: skip
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
problem.slip("logprob_in_half", "sequence_logprob", {
        "at_least_float32(logits[:, :-1][target])": "logits[:, :-1]",
        "input_ids[:, 1:][target]": "input_ids[:, 1:].clamp(min=0)",
        TOTAL: "torch.where(target, logp, 0.0).sum(-1)",
    },
    says="Your sum is computed in the logits' half precision.", next_step=UPCAST)  # fmt: skip
problem.slip("logprob_detached", "sequence_logprob", {TOTAL: "total.index_add(0, row, logp.detach())"},
    says="Your sum is cut off from the graph: no gradient reaches the logits.",
    next_step="Leave out `.item()`, `.detach()`, `float()` and NumPy on what comes from the logits.")  # fmt: skip

problem.slip("reward_attached", "implicit_rewards", {"chosen.detach(), rejected.detach()": "chosen, rejected"},
    says="Your rewards still hang on the graph.", next_step="Detach what is only logged.")  # fmt: skip
problem.slip("reward_no_reference", "implicit_rewards", {"(pc - rc)": "pc", "(pr - rr)": "pr"},
    says="Your rewards leave the reference out.",
    next_step="A reward is a log-ratio of policy and reference.")  # fmt: skip
problem.slip("reward_without_beta", "implicit_rewards", {"beta * (pc - rc)": "pc - rc", "beta * (pr - rr)": "pr - rr"},
    says="Your rewards lack beta.", next_step="Multiply by beta.")  # fmt: skip
problem.slip("rewards_swapped", "implicit_rewards", {"chosen, rejected =": "rejected, chosen ="},
    says="Your rewards come in the other order.", next_step="Return the chosen answer's reward first.")  # fmt: skip

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
