"""How the LoRA update is judged: rectangular, where shapes help, and square, where they hide every transposition."""

import math
from collections.abc import Callable, Iterator
from typing import Any

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

Delta = Callable[[Tensor, Tensor, float, bool], Tensor]
Forward = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
Merged = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Gradients = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def scale(A: Tensor, alpha: float, rslora: bool = False) -> float:
    return alpha / math.sqrt(A.shape[0]) if rslora else alpha / A.shape[0]


def delta_mistake(name: str, formula: Delta, says: str, next_step: str) -> None:
    def function(A: Tensor, B: Tensor, alpha: float, rslora: bool = False) -> Tensor:
        return formula(A, B, alpha, rslora)

    problem.mistake(name=name, replaces="lora_delta", says=says, next_step=next_step)(function)


SCALE = "The scale is alpha / r, or alpha / sqrt(r) for rsLoRA."
ORDER = "B has the weight's rows and A its columns."

delta_mistake(
    "delta_ab_order", lambda A, B, a, rs: scale(A, a, rs) * (A @ B if A.shape[1] == B.shape[0] else B @ A),
    "Your factors are multiplied in the other order, which only a square layer allows.", ORDER,
)  # fmt: skip
delta_mistake(
    "delta_transposed_if_square", lambda A, B, a, rs: scale(A, a, rs) * (
        A.T @ B.T if A.shape[1] == B.shape[0] else B @ A
    ),
    "Your update is transposed for a square layer.", ORDER,
)  # fmt: skip
delta_mistake(
    "delta_transposed", lambda A, B, a, rs: scale(A, a, rs) * (B @ A).T,
    "Your update is transposed.", ORDER,
)  # fmt: skip
delta_mistake("scale_missing", lambda A, B, a, rs: B @ A, "Your update has no scale.", SCALE)
delta_mistake("scale_is_alpha", lambda A, B, a, rs: a * (B @ A), "Your update isn't divided by the rank.", SCALE)
delta_mistake(
    "scale_turned_over", lambda A, B, a, rs: (B @ A) / scale(A, a, rs), "Your scale is r / alpha.", SCALE,
)  # fmt: skip
delta_mistake(
    "scale_twice", lambda A, B, a, rs: scale(A, a, rs) ** 2 * (B @ A), "Your scale is applied twice.", SCALE,
)  # fmt: skip
delta_mistake(
    "rslora_always", lambda A, B, a, rs: scale(A, a, True) * (B @ A),
    "Your scale is rsLoRA's, asked for or not.", SCALE,
)  # fmt: skip
delta_mistake(
    "rslora_never", lambda A, B, a, rs: scale(A, a) * (B @ A), "Your scale is alpha / r, also for rsLoRA.", SCALE,
)  # fmt: skip
delta_mistake(
    "rslora_rank_squared", lambda A, B, a, rs: (a / A.shape[0] ** 2 if rs else scale(A, a)) * (B @ A),
    "Your rsLoRA scale divides by the rank squared.", "It divides by the rank's square root.",
)  # fmt: skip
delta_mistake(
    "integer_scale", lambda A, B, a, rs: (scale(A, a, True) if rs else a // A.shape[0]) * (B @ A),
    "Your scale is rounded down to a whole number.", "Use `/`: alpha is a float.",
)  # fmt: skip
delta_mistake(
    "rank_from_d_in", lambda A, B, a, rs: scale(A.T, a, rs) * (B @ A),
    "Your rank is A's number of columns, which is d_in.", "A has shape (r, d_in).",
)  # fmt: skip
delta_mistake(
    "rank_from_d_out", lambda A, B, a, rs: scale(B, a, rs) * (B @ A),
    "Your rank is B's number of rows, which is d_out.", "B has shape (d_out, r).",
)  # fmt: skip


def forward_mistake(name: str, formula: Forward, says: str, next_step: str, bias_factor: float = 1.0) -> None:
    """Register a wrong layer; the formula gives the output without its bias, or of the whole if it ignores it."""

    def function(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float, bias: Tensor | None = None) -> Tensor:
        y = formula(x, W, A, B, alpha)
        return y if bias is None else y + bias_factor * bias

    problem.mistake(name=name, replaces="lora_forward", says=says, next_step=next_step)(function)


def thin(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    return F.linear(F.linear(x, A), B)


forward_mistake(
    "forward_scale_missing", lambda x, W, A, B, a: F.linear(x, W) + thin(x, A, B),
    "Your adapted part has no scale.", "It is alpha / r.",
)  # fmt: skip
forward_mistake(
    "forward_scale_is_alpha", lambda x, W, A, B, a: F.linear(x, W) + a * thin(x, A, B),
    "Your adapted part isn't divided by the rank.", "The scale is alpha / r.",
)  # fmt: skip
forward_mistake(
    "forward_scales_base", lambda x, W, A, B, a: scale(A, a) * (F.linear(x, W) + thin(x, A, B)),
    "Your scale multiplies the base layer too.", "Only the update is scaled.",
)  # fmt: skip
forward_mistake(
    "forward_without_base", lambda x, W, A, B, a: scale(A, a) * thin(x, A, B),
    "Your output is the update's alone.", "Add what the frozen weight gives.",
)  # fmt: skip
forward_mistake(
    "forward_transposed_if_square", lambda x, W, A, B, a: F.linear(x, W) + scale(A, a) * (
        x @ A @ B if A.shape[0] == A.shape[1] else thin(x, A, B)
    ),
    "Your factors are used untransposed on a square layer: x @ A instead of x @ A.T.",
    "For rows x the layer is x @ A.T @ B.T.",
)  # fmt: skip
forward_mistake(
    "weight_transposed_if_square", lambda x, W, A, B, a: (
        x @ W if W.shape[0] == W.shape[1] else F.linear(x, W)
    ) + scale(A, a) * thin(x, A, B),
    "Your base weight is used untransposed on a square layer.", "torch's layer is x @ W.T.",
)  # fmt: skip
forward_mistake(
    "bias_forgotten", lambda x, W, A, B, a: F.linear(x, W) + scale(A, a) * thin(x, A, B),
    "Your output lacks the bias.", "Add it once.", 0.0,
)  # fmt: skip
forward_mistake(
    "bias_twice", lambda x, W, A, B, a: F.linear(x, W) + scale(A, a) * thin(x, A, B),
    "Your bias is added twice.", "It belongs to the base layer alone.", 2.0,
)  # fmt: skip
forward_mistake(
    "update_detached", lambda x, W, A, B, a: F.linear(x, W) + scale(A, a) * thin(x, A, B).detach(),
    "Your update gets no gradient.", "A and B are what is trained.",
)  # fmt: skip


@problem.mistake(replaces="lora_forward", says="Your bias is scaled with the update.", next_step="Add it unscaled.")
def bias_scaled(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float, bias: Tensor | None = None) -> Tensor:
    y = F.linear(x, W) + scale(A, alpha) * thin(x, A, B)
    return y if bias is None else y + scale(A, alpha) * bias


def merge_mistake(name: str, formula: Merged, says: str, next_step: str) -> None:
    problem.mistake(name=name, replaces="merge", says=says, next_step=next_step)(formula)


def wide_sum(W: Tensor, A: Tensor, B: Tensor, alpha: float, times: float = 1.0) -> Tensor:
    """Return the sum in float32 at least."""
    W = W.float() if W.dtype == torch.bfloat16 else W
    return W + times * scale(A, alpha) * (B @ A).to(W.dtype)


merge_mistake(
    "merge_in_place", lambda W, A, B, a: W.copy_(wide_sum(W, A, B, a).to(W.dtype)),
    "Your merge changes the weight that it was given.", "Return a new tensor.",
)  # fmt: skip
merge_mistake(
    "merge_casts_delta_first", lambda W, A, B, a: W + (scale(A, a) * (B @ A)).to(W.dtype),
    "Your update is rounded to the weight's dtype before it's added: it's rounded twice.",
    "Add in float32, then round once.",
)  # fmt: skip
merge_mistake(
    "merge_casts_factors_first", lambda W, A, B, a: W + scale(A, a) * (B.to(W.dtype) @ A.to(W.dtype)),
    "Your factors are rounded to the weight's dtype before they're multiplied.", "Multiply and add in float32.",
)  # fmt: skip
merge_mistake(
    "merge_returns_float32", wide_sum, "Your merged weight has another dtype than the weight.", "Round back, once.",
)  # fmt: skip
merge_mistake(
    "merge_twice", lambda W, A, B, a: wide_sum(W, A, B, a, 2.0).to(W.dtype),
    "Your merge adds the update twice.", "Merge once: a second merge is another model.",
)  # fmt: skip
merge_mistake(
    "merge_subtracts", lambda W, A, B, a: wide_sum(W, A, B, a, -1.0).to(W.dtype),
    "Your merge subtracts the update, as unmerging does.", "Add it.",
)  # fmt: skip
merge_mistake(
    "merge_returns_delta", lambda W, A, B, a: (scale(A, a) * (B @ A)).to(W.dtype),
    "Your merge returns the update alone.", "Add the weight.",
)  # fmt: skip
merge_mistake(
    "merge_without_scale", lambda W, A, B, a: ((W.float() if W.dtype == torch.bfloat16 else W) + B @ A).to(W.dtype),
    "Your merge leaves the scale out.", "It is alpha / r here as in the forward pass.",
)  # fmt: skip


def gradient_mistake(name: str, formula: Gradients, says: str, next_step: str) -> None:
    problem.mistake(name=name, replaces="first_step_grads", says=says, next_step=next_step)(formula)


TRACE = "Write d tr(G^T s B A) for a change of B alone, then of A alone."

gradient_mistake(
    "grads_swapped", lambda G, A, B, a: (scale(A, a) * G @ A.T, scale(A, a) * B.T @ G),
    "Your gradients come in the other order.", "Return A's first: it has A's shape.",
)  # fmt: skip
gradient_mistake(
    "grad_scale_missing", lambda G, A, B, a: (B.T @ G, G @ A.T), "Your gradients lack the scale.", TRACE,
)  # fmt: skip
gradient_mistake(
    "grad_scale_squared", lambda G, A, B, a: (scale(A, a) ** 2 * B.T @ G, scale(A, a) ** 2 * G @ A.T),
    "Your gradients have the scale squared.", TRACE,
)  # fmt: skip
gradient_mistake(
    "grad_scale_is_alpha", lambda G, A, B, a: (a * B.T @ G, a * G @ A.T),
    "Your scale isn't divided by the rank.", TRACE,
)  # fmt: skip
gradient_mistake(
    "db_only_with_b", lambda G, A, B, a: (scale(A, a) * B.T @ G, scale(A, a) * G @ A.T * bool(B.any())),
    "Your gradient of B is 0 where B is 0; that is A's.", "Which factor's gradient contains B?",
)  # fmt: skip
gradient_mistake(
    "da_never_zero", lambda G, A, B, a: (
        scale(A, a) * (B if bool(B.any()) else torch.ones_like(B)).T @ G, scale(A, a) * G @ A.T
    ),
    "Your gradient of A isn't 0 where B is 0.", "Which factor's gradient contains B?",
)  # fmt: skip
gradient_mistake(
    "grad_sign", lambda G, A, B, a: (-scale(A, a) * B.T @ G, -scale(A, a) * G @ A.T),
    "Your gradients have the other sign: that is the step, not the gradient.", TRACE,
)  # fmt: skip
gradient_mistake(
    "grads_untransposed_if_square", lambda G, A, B, a: (
        (scale(A, a) * B @ G, scale(A, a) * G @ A) if A.shape[0] == A.shape[1]
        else (scale(A, a) * B.T @ G, scale(A, a) * G @ A.T)
    ),
    "Your factors aren't transposed on a square layer.", TRACE,
)  # fmt: skip


@problem.mistake(
    replaces="check_lora_shapes",
    says="Factors of two ranks are accepted.",
    next_step="A's rows and B's columns are the same number.",
)
def no_rank_check(W: Tensor, A: Tensor, B: Tensor) -> int:
    fits(W, A, B)
    return A.shape[0]


def fits(W: Tensor, A: Tensor, B: Tensor) -> None:
    if {part.ndim for part in (W, A, B)} != {2}:
        raise ValueError("all must be 2-D")
    if A.shape[1] != W.shape[1]:
        raise ValueError("A must fit W's columns")
    if B.shape[0] != W.shape[0]:
        raise ValueError("B must fit W's rows")


@problem.mistake(
    replaces="check_lora_shapes",
    says="Vectors and batches of matrices get past your check, or fail with another error.",
    next_step="Ask for two axes first.",
)
def no_axes_check(W: Tensor, A: Tensor, B: Tensor) -> int:
    if {part.ndim for part in (W, A, B)} == {2}:
        fits(W, A, B)
        if A.shape[0] != B.shape[1]:
            raise ValueError("rank")
    return A.shape[0]


@problem.mistake(
    replaces="check_lora_shapes", says="Your result is d_in, not the rank.", next_step="A has shape (r, d_in).",
)  # fmt: skip
def returns_d_in(W: Tensor, A: Tensor, B: Tensor) -> int:
    fits(W, A, B)
    if A.shape[0] != B.shape[1]:
        raise ValueError("rank")
    return A.shape[1]
