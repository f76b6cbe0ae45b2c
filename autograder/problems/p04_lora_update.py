"""How the LoRA update is judged: rectangular, where shapes help, and square, where they hide every transposition."""

from collections.abc import Iterator
from typing import Any

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
    integer,
)

problem = Problem(part="05_lora_algebra", difficulty=3, importance=5, minutes=50)

Tensor = torch.Tensor


def factors(rng: Rng, d_out: int, d_in: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return W, A and B in float64."""
    W, A, B = (torch.from_numpy(rng.normal(size=shape)) for shape in ((d_out, d_in), (rank, d_in), (d_out, rank)))
    return W, A, B


def sizes(rng: Rng) -> tuple[int, int, int]:
    """Return three different sizes, d_out, d_in and rank, with a rank that is neither 1 nor a square."""
    d_out, d_in = rng.choice([5, 6, 7, 8], size=2, replace=False)
    return int(d_out), int(d_in), 3


SQUARE = (6, 6, 6)


def some_alpha(rng: Rng) -> float:
    return float(rng.choice([2.5, 6.5, 8.5]))


# ------------------------------------------------------------------------------------------------------------ checks


@problem.check(
    "shapes", points=1.5, of="check_lora_shapes", title="shapes", same=integer,
    concerns=["each factor in turn", "vectors and batches of matrices"],
    next_step="Name the four numbers that must agree, and which matrix each of them belongs to.",
)  # fmt: skip
def shapes(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in, rank = sizes(rng)
    W, A, B = factors(rng, d_out, d_in, rank)
    yield Case("factors that fit", call("check_lora_shapes", W, A, B))
    yield Refusal("an A of other inputs", call("check_lora_shapes", W, A[:, 1:], B), "A must")
    yield Refusal("a B of other outputs", call("check_lora_shapes", W, A, B[1:]), "B must")
    yield Refusal("factors of two ranks", call("check_lora_shapes", W, A[1:], B), "rank")
    yield Refusal("a vector in place of A", call("check_lora_shapes", W, A[0], B), "2-D")
    yield Refusal("a vector in place of B", call("check_lora_shapes", W, A[:1], B[:, 0]), "2-D")
    yield Refusal("a batch of weights", call("check_lora_shapes", W[None], A, B), "2-D")


@problem.check(
    "delta", points=2, of="lora_delta", title="the update",
    concerns=["square factors, where every order type-checks", "fractional alpha", "rsLoRA"],
    next_step="Write the shapes of A, B and the update under each other; then the scale, as a fraction.",
)  # fmt: skip
def delta(rng: Rng) -> Iterator[AnyCase]:
    for words, (d_out, d_in, rank) in (("rectangular factors", sizes(rng)), ("square factors", SQUARE)):
        _, A, B = factors(rng, d_out, d_in, rank)
        yield Case(words, call("lora_delta", A, B, some_alpha(rng)), pure=True)
        yield Case(f"{words}, rsLoRA", call("lora_delta", A, B, some_alpha(rng), rslora=True))


def the_same_bits(one: Value, other: Value) -> Difference | None:
    if torch.is_tensor(one.value) and torch.is_tensor(other.value) and torch.equal(one.value, other.value):
        return None
    return Difference("with B = 0 the output depends on A, or isn't a tensor")


@problem.check(
    "fwd", points=2, of="lora_forward", title="the adapted layer",
    concerns=["no, one and two leading axes", "with and without a bias", "square layers", "gradients", "B = 0"],
    next_step="Follow one vector: first through A, then through B, then add what the base layer gives.",
)  # fmt: skip
def fwd(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in, rank = sizes(rng)
    W, A, B = factors(rng, d_out, d_in, rank)
    bias, x = torch.from_numpy(rng.normal(size=d_out)), torch.from_numpy(rng.normal(size=(2, 3, d_in)))
    yield Case("two leading axes and a bias", call("lora_forward", x, W, A, B, some_alpha(rng), bias), pure=True)
    yield Case("a single vector", call("lora_forward", x[0, 0], W, A, B, some_alpha(rng)))
    W, A, B = factors(rng, *SQUARE)
    square = torch.from_numpy(rng.normal(size=(4, 6)))
    trained = [part.requires_grad_() for part in (square, W, A, B)]
    yield Case("a square layer, with gradients", call("lora_forward", *trained, some_alpha(rng), backward=True))
    nothing = torch.zeros(6, 6, dtype=torch.float64)
    calls = [call("lora_forward", square.detach(), W.detach(), part, nothing, 6.5) for part in (A.detach(), nothing)]
    yield Relation("B = 0", tuple(calls), the_same_bits)


def far_from_ties(rng: Rng) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return a bf16 weight and float32 factors whose exact sum no accurate way of adding rounds differently."""
    while True:
        W, A, B = factors(rng, 8, 7, 3)
        W, A, B, alpha = W.bfloat16(), A.float(), B.float(), some_alpha(rng)
        exact = W.double() + alpha / 3 * B.double() @ A.double()
        if torch.equal((exact * (1 + 1e-5)).bfloat16(), (exact * (1 - 1e-5)).bfloat16()):
            return W, A, B, alpha


# Wide enough for float32 sums in any order, and 40 times narrower than one step of bfloat16.
ROUNDED = Close(rtol=1e-4, atol=1e-5, dtype=True)


@problem.check(
    "merged", points=2, of="merge", title="the merged weight", same=ROUNDED,
    concerns=["the weight's dtype", "a single rounding in bf16", "nothing changed in place"],
    next_step="Which dtype does each intermediate result have, and where is it rounded?",
)  # fmt: skip
def merged(rng: Rng) -> Iterator[AnyCase]:
    W, A, B = factors(rng, *sizes(rng))
    yield Case("a float64 weight", call("merge", W, A, B, some_alpha(rng)), pure=True)
    W, A, B = factors(rng, *SQUARE)
    yield Case("a square float32 weight", call("merge", W.float(), A.float(), B.float(), some_alpha(rng)))
    yield Case("a bf16 weight with float32 factors", call("merge", *far_from_ties(rng)), pure=True)


@problem.check(
    "grad", points=2.5, of="first_step_grads", title="the factors' gradients, by hand",
    concerns=["B = 0 and B = anything", "square factors", "fractional alpha"],
    next_step="Write L's change for a small change of B alone, as a trace; then for A alone.",
)  # fmt: skip
def grad(rng: Rng) -> Iterator[AnyCase]:
    G, A, B = factors(rng, *sizes(rng))
    yield Case("any B", call("first_step_grads", G, A, B, some_alpha(rng)), pure=True)
    yield Case("B = 0", call("first_step_grads", G, A, torch.zeros_like(B), some_alpha(rng)))
    G, A, B = factors(rng, *SQUARE)
    yield Case("square factors", call("first_step_grads", G, A, B, some_alpha(rng)))


def gradient_of_b(grads: Any) -> list[float]:
    return grads[1].flatten().tolist()


@problem.personal(title="your first gradient", next_step="Write the chain rule for B, then put your numbers in.")
def mine(rng: Rng) -> Question:
    G, A = rng.integers(-3, 4, size=(3, 2)), rng.choice([-1.0, -0.5, 0.5, 1.5], size=(1, 2))
    G[0, 0], alpha = 4, int(rng.integers(2, 5))
    words = (
        f"The gradient of the loss with respect to the effective weight is G = {G.tolist()}. LoRA has rank 1, "
        f"alpha = {alpha}, A = {A.tolist()} and B = 0. Return the three entries of the loss's gradient with respect to "
        "B, as a list."
    )
    zero = torch.zeros(3, 1, dtype=torch.float64)
    question = call("first_step_grads", torch.from_numpy(G).double(), torch.from_numpy(A), zero, alpha)
    return Question(words, question, gradient_of_b)


# ---------------------------------------------------------------------------------------------------------- mistakes

SCALE = "The scale is alpha / r, or alpha / sqrt(r) for rsLoRA."
ORDER = "B has the weight's rows and A its columns."

problem.slip(
    "delta_ab_order", "lora_delta", {"B @ A": "A @ B"},
    says="Your factors are multiplied in the other order, which only a square layer allows.", next_step=ORDER,
)  # fmt: skip
problem.slip(
    "delta_transposed_if_square", "lora_delta", {"B @ A": "A.T @ B.T if A.shape[1] == B.shape[0] else B @ A"},
    says="Your update is transposed for a square layer.", next_step=ORDER,
)  # fmt: skip
problem.slip(
    "delta_transposed", "lora_delta", {"(B @ A)": "(B @ A).T"}, says="Your update is transposed.", next_step=ORDER
)
for name, edits, says in (
    ("scale_missing", {"scale * (B @ A)": "B @ A"}, "Your update has no scale."),
    ("scale_is_alpha", {"scale * (B @ A)": "alpha * (B @ A)"}, "Your update isn't divided by the rank."),
    ("scale_turned_over", {"scale * (B @ A)": "(B @ A) / scale"}, "Your scale is r / alpha."),
    ("scale_twice", {"scale * (B @ A)": "scale**2 * (B @ A)"}, "Your scale is applied twice."),
    ("rslora_always", {" if rslora else alpha / rank": ""}, "Your scale is rsLoRA's, asked for or not."),
    ("rslora_never", {"alpha / math.sqrt(rank) if rslora else ": ""}, "Your scale is alpha / r, also for rsLoRA."),
):
    problem.slip(name, "lora_delta", edits, says=says, next_step=SCALE)
problem.slip(
    "rslora_rank_squared", "lora_delta", {"math.sqrt(rank)": "rank**2"},
    says="Your rsLoRA scale divides by the rank squared.", next_step="It divides by the rank's square root.",
)  # fmt: skip
problem.slip(
    "integer_scale", "lora_delta", {"else alpha / rank": "else alpha // rank"},
    says="Your scale is rounded down to a whole number.", next_step="Use `/`: alpha is a float.",
)  # fmt: skip
problem.slip(
    "rank_from_d_in", "lora_delta", {"A.shape[0]": "A.shape[1]"},
    says="Your rank is A's number of columns, which is d_in.", next_step="A has shape (r, d_in).",
)  # fmt: skip
problem.slip(
    "rank_from_d_out", "lora_delta", {"A.shape[0]": "B.shape[0]"},
    says="Your rank is B's number of rows, which is d_out.", next_step="B has shape (d_out, r).",
)  # fmt: skip

problem.slip(
    "forward_scale_missing", "lora_forward", {"scale * F": "F"},
    says="Your adapted part has no scale.", next_step="It is alpha / r.",
)  # fmt: skip
problem.slip(
    "forward_scale_is_alpha", "lora_forward", {"alpha / A.shape[0]": "alpha"},
    says="Your adapted part isn't divided by the rank.", next_step="The scale is alpha / r.",
)  # fmt: skip
problem.slip(
    "forward_scales_base", "lora_forward", {"F.linear(x, W, bias)": "scale * F.linear(x, W, bias)"},
    says="Your scale multiplies the base layer too.", next_step="Only the update is scaled.",
)  # fmt: skip
problem.slip(
    "forward_without_base", "lora_forward", {"F.linear(x, W, bias) + update": "update"},
    says="Your output is the update's alone.", next_step="Add what the frozen weight gives.",
)  # fmt: skip
problem.slip(
    "forward_transposed_if_square", "lora_forward",
    {"F.linear(F.linear(x, A), B)": "(x @ A @ B if A.shape[0] == A.shape[1] else F.linear(F.linear(x, A), B))"},
    says="Your factors are used untransposed on a square layer: x @ A instead of x @ A.T.",
    next_step="For rows x the layer is x @ A.T @ B.T.",
)  # fmt: skip
problem.slip(
    "weight_transposed_if_square", "lora_forward", {"x, W, bias": "x, W.T if W.shape[0] == W.shape[1] else W, bias"},
    says="Your base weight is used untransposed on a square layer.", next_step="torch's layer is x @ W.T.",
)  # fmt: skip
problem.slip(
    "bias_forgotten", "lora_forward", {"x, W, bias": "x, W"}, says="Your output lacks the bias.",
    next_step="Add it once.",
)  # fmt: skip
problem.slip(
    "bias_twice", "lora_forward", {"+ update": "+ update + (0 if bias is None else bias)"},
    says="Your bias is added twice.", next_step="It belongs to the base layer alone.",
)  # fmt: skip
problem.slip(
    "update_detached", "lora_forward", {"+ update": "+ update.detach()"},
    says="Your update gets no gradient.", next_step="A and B are what is trained.",
)  # fmt: skip
problem.slip(
    "bias_scaled", "lora_forward", {"x, W, bias": "x, W, None if bias is None else scale * bias"},
    says="Your bias is scaled with the update.", next_step="Add it unscaled.",
)  # fmt: skip

problem.slip(
    "merge_in_place", "merge", {"merged.to(W.dtype)": "W.copy_(merged)"},
    says="Your merge changes the weight that it was given.", next_step="Return a new tensor.",
)  # fmt: skip
problem.slip(
    "merge_casts_delta_first", "merge", {", alpha)": ", alpha).to(W.dtype)"},
    says="Your update is rounded to the weight's dtype before it's added, so the result is rounded twice.",
    next_step="Add in float32, then round once.",
)  # fmt: skip
problem.slip(
    "merge_casts_factors_first", "merge", {"A.to(wide), B.to(wide)": "A.to(W.dtype), B.to(W.dtype)"},
    says="Your factors are rounded to the weight's dtype before they're multiplied.",
    next_step="Multiply and add in float32.",
)  # fmt: skip
problem.slip(
    "merge_returns_float32", "merge", {"merged.to(W.dtype)": "merged"},
    says="Your merged weight has another dtype than the weight.", next_step="Round back, once.",
)  # fmt: skip
problem.slip(
    "merge_twice", "merge", {"W.to(wide) +": "W.to(wide) + 2 *"},
    says="Your merge adds the update twice.", next_step="Merge once: a second merge is another model.",
)  # fmt: skip
problem.slip(
    "merge_subtracts", "merge", {"W.to(wide) +": "W.to(wide) -"},
    says="Your merge subtracts the update, as unmerging does.", next_step="Add it.",
)  # fmt: skip
problem.slip(
    "merge_returns_delta", "merge", {"W.to(wide) + ": ""},
    says="Your merge returns the update alone.", next_step="Add the weight.",
)  # fmt: skip
problem.slip(
    "merge_without_scale", "merge", {"lora_delta(A.to(wide), B.to(wide), alpha)": "B.to(wide) @ A.to(wide)"},
    says="Your merge leaves the scale out.", next_step="It is alpha / r here as in the forward pass.",
)  # fmt: skip

TRACE = "Write d tr(G^T s B A) for a change of B alone, then of A alone."
WHOSE_B = "Which factor's gradient contains B?"

problem.slip(
    "grads_swapped", "first_step_grads", {"scale * B.T @ G, scale * G @ A.T": "scale * G @ A.T, scale * B.T @ G"},
    says="Your gradients come in the other order.", next_step="Return A's first: it has A's shape.",
)  # fmt: skip
problem.slip(
    "grad_scale_missing", "first_step_grads", {"alpha / A.shape[0]": "1.0"},
    says="Your gradients lack the scale.", next_step=TRACE,
)  # fmt: skip
problem.slip(
    "grad_scale_squared", "first_step_grads", {"alpha / A.shape[0]": "(alpha / A.shape[0]) ** 2"},
    says="Your gradients have the scale squared.", next_step=TRACE,
)  # fmt: skip
problem.slip(
    "grad_scale_is_alpha", "first_step_grads", {"alpha / A.shape[0]": "alpha"},
    says="Your scale isn't divided by the rank.", next_step=TRACE,
)  # fmt: skip
problem.slip(
    "db_only_with_b", "first_step_grads", {"G @ A.T": "G @ A.T * B.any()"},
    says="Your gradient of B is 0 where B is 0; only A's gradient is.", next_step=WHOSE_B,
)  # fmt: skip
problem.slip(
    "da_never_zero", "first_step_grads", {"B.T": "(B if B.any() else torch.ones_like(B)).T"},
    says="Your gradient of A isn't 0 where B is 0.", next_step=WHOSE_B,
)  # fmt: skip
problem.slip(
    "grad_sign", "first_step_grads", {"alpha / A.shape[0]": "-alpha / A.shape[0]"},
    says="Your gradients have the other sign: that is the step, not the gradient.", next_step=TRACE,
)  # fmt: skip
problem.slip(
    "grads_untransposed_if_square", "first_step_grads",
    {"B.T": "(B if B.shape[0] == B.shape[1] else B.T)", "A.T": "(A if A.shape[0] == A.shape[1] else A.T)"},
    says="Your factors aren't transposed on a square layer.", next_step=TRACE,
)  # fmt: skip

problem.slip(
    "no_rank_check", "check_lora_shapes", {"if A.shape[0] != B.shape[1]:": "if False:"},
    says="Factors of two ranks are accepted.", next_step="A's rows and B's columns are the same number.",
)  # fmt: skip
problem.slip(
    "no_axes_check", "check_lora_shapes", {"if W.ndim != 2 or A.ndim != 2 or B.ndim != 2:": "if False:"},
    says="Vectors and batches of matrices get past your check, or fail with another error.",
    next_step="Ask for two axes first.",
)  # fmt: skip
problem.slip(
    "returns_d_in", "check_lora_shapes", {"return A.shape[0]": "return A.shape[1]"},
    says="Your result is d_in, not the rank.", next_step="A has shape (r, d_in).",
)  # fmt: skip
