"""How the LoRA update is judged: rectangular, where shapes help, and square, where they hide every transposition."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from ftgrade.judging.corners import as_views, corners, expanded, in_dtype, wanting_gradients
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


ALPHAS = (0.0, -8.5, 0.3, 1.0, 1e4)
SHAPES = ((5, 7, 3), (7, 5, 1), (1, 6, 2), (6, 1, 2), (1, 1, 1), (4, 5, 9), (5, 7, 5), (5, 7, 7), (6, 6, 2))


def cancelling(rng: Rng, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return two matrices of whole numbers with a small product, which float32 gets wrong in any order of its terms."""
    n = 2.0**20 + 2 * float(rng.integers(1, 1_000))
    left = torch.tensor([[n + 1, n + 3, n]], dtype=torch.float64).expand(rows, 3)
    right = torch.tensor([[n - 1], [n - 3], [-2 * n]], dtype=torch.float64).expand(3, columns)
    return torch.cat([left, whole(rng, rows, 1)], dim=1), torch.cat([right, whole(rng, 1, columns)])


def corner(words: str, promise: str, function: str, *arguments: Any, **keywords: Any) -> Case:
    """Return a case that is asked once a student."""
    return Case(words, call(function, *arguments, **keywords), promise=promise, once=True)


def some_alpha(rng: Rng) -> float:
    return float(rng.choice([2.5, 6.5, 8.5]))


# ------------------------------------------------------------------------------------------------------------ checks


def rounded(expected: Any, got: Any) -> Difference | None:
    """Demand the usual closeness and the same dtype, and in 16 bits the same bits."""
    parts = expected if isinstance(expected, tuple) else (expected,)
    if all(part.dtype in (torch.float16, torch.bfloat16) for part in parts):
        return Close(rtol=0.0, atol=0.0, dtype=True)(expected, got)
    return Close(dtype=True)(expected, got)


def whole(rng: Rng, *shape: int) -> Tensor:
    """Return small whole numbers, with which 16 bits are exact in any order of the arithmetic."""
    return torch.from_numpy(rng.choice([-1.0, 1.0, 2.0], size=shape))


problem.promise(
    "shapes", "Return the rank of the factors A (r, d_in) and B (d_out, r) of a weight W (d_out, d_in).",
    "The rank may be larger than both sides of W.",
)  # fmt: skip
NARROWER = "all tensors share one dtype, and nothing is computed in a narrower one"
problem.promise("shapes_axes", "ValueError whose message contains `2-D` if one of them isn't a matrix,")
problem.promise(
    "shapes_fit",
    "`A must` if A doesn't take W's inputs, `B must` if B doesn't give W's outputs, `rank` if the two factors have "
    "different ranks.",
)  # fmt: skip
FAULTS = ("2-D", "A must", "B must", "rank")


@problem.check(
    "shapes", points=1.5, of="check_lora_shapes", title="shapes", same=integer,
    concerns=["each factor in turn", "too few and too many", "vectors and batches of matrices"],
    next_step="Name the four numbers that must agree, and which matrix each of them belongs to.",
)  # fmt: skip
def shapes(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in, rank = sizes(rng)
    W, A, B = factors(rng, d_out, d_in, rank)
    yield Case("factors that fit", call("check_lora_shapes", W, A, B))
    yield Case("a rank of 1", call("check_lora_shapes", W, A[:1], B[:, :1]))
    for sides in SHAPES:
        yield corner("factors that fit", "shapes", "check_lora_shapes", *factors(rng, *sides))
    yield corner("a 16-bit weight", "shapes", "check_lora_shapes", W.bfloat16(), A.float(), B.float())
    twin: Call | None = call("check_lora_shapes", W, A, B)
    for words, given, keyword in (*misfits(rng, W, A, B), *no_matrices(W, A, B)):
        others = tuple(fault for fault in FAULTS if fault != keyword)
        promise = "shapes_axes" if keyword == "2-D" else "shapes_fit"
        yield Refusal(words, call("check_lora_shapes", *given), keyword, twin, others, promise)
        twin = None


Fault = tuple[str, tuple[Tensor, Tensor, Tensor], str]
"""Words for a fault, the arguments that have it, and the keyword that its error must name."""


def misfits(rng: Rng, W: Tensor, A: Tensor, B: Tensor) -> Iterator[Fault]:
    """Yield matrices of which one doesn't fit the others in one axis."""
    d_out, d_in = W.shape
    tall, wide, _ = factors(rng, d_out, d_in + 1, d_in)
    yield "an A of fewer inputs", (W, A[:, 1:], B), "A must"
    yield "an A of more inputs, with a row for each of W's", (W, wide, tall[:, 1:]), "A must"
    yield "an A of a single input", (W, A[:, :1], B), "A must"
    yield "an A of d_out inputs", (W, factors(rng, 1, d_out, 3)[1], B), "A must"
    yield "a weight of a single input", (W[:, :1], A, B), "A must"
    yield "a weight of fewer inputs", (W[:, 1:], A, B), "A must"
    yield "a B of fewer outputs", (W, A, B[1:]), "B must"
    yield "a B of more outputs", (W[1:], A, B), "B must"
    yield "a B of a single output", (W, A, B[:1]), "B must"
    yield "a B of d_in outputs", (W, A, factors(rng, d_in, 1, 3)[2]), "B must"
    yield "a weight of a single output", (W[:1], A, B), "B must"
    yield "a B of more ranks", (W, A[1:], B), "rank"
    yield "an A of more ranks", (W, A, B[:, 1:]), "rank"
    yield "an A of rank 1", (W, A[:1], B), "rank"
    yield "a B of rank 1", (W, A, B[:, :1]), "rank"
    square, low, _ = factors(rng, 5, 5, 2)
    yield "a square A for a square weight", (square, square, factors(rng, 5, 5, 2)[2]), "rank"
    yield "a square B for a square weight", (square, low, square), "rank"
    yield "a transposed A of a square weight", (square, low.T, square), "A must"
    yield "a transposed B of a square weight", (square, square, low), "B must"


def no_matrices(W: Tensor, A: Tensor, B: Tensor) -> Iterator[Fault]:
    """Yield arguments of which one or more have fewer or more than two axes, wherever the others stand."""
    yield "a vector in place of A", (W, A[0], B), "2-D"
    yield "a vector in place of B", (W, A[:1], B[:, 0]), "2-D"
    yield "three batches of matrices", (W[None], A[None], B[None]), "2-D"
    yield "three vectors", (W[0], A[0], B[0]), "2-D"
    yield "three numbers", (W[0, 0], A[0, 0], B[0, 0]), "2-D"
    vectors, batches = [part[0] for part in (W, A, B)], [part[None] for part in (W, A, B)]
    fours = [part[None] for part in batches]
    for low, high in itertools.permutations(range(3), 2):
        for others in (batches, fours):
            parts = [W, A, B]
            parts[low], parts[high] = vectors[low], others[high]
            yield "a vector, and a batch", (parts[0], parts[1], parts[2]), "2-D"
    for place in range(3):
        matrix = (W, A, B)[place]
        for words, other in (
            ("a number", matrix[0, 0]), ("a row", matrix[0]), ("a column", matrix[:, 0]),
            ("a batch of one", matrix[None]),
            ("a batch of two", torch.stack([matrix, matrix])), ("a third axis of length 1", matrix[..., None]),
            ("a third axis", torch.stack([matrix, matrix], dim=-1)), ("an axis in between", matrix[:, None]),
            ("four axes", matrix[None, None]),
        ):  # fmt: skip
            W2, A2, B2 = (other if place == one else (W, A, B)[one] for one in range(3))
            yield f"{words} in place of {'WAB'[place]}", (W2, A2, B2), "2-D"


problem.promise(
    "delta", "Return the update of shape (d_out, d_in) that the factors A (r, d_in) and B (d_out, r) stand for."
)
problem.promise("delta_rslora", "The scale is alpha / r, or alpha / sqrt(r) with `rslora` (arXiv:2312.03732).")
problem.promise(
    "delta_alpha", "`alpha` may be any finite float, also 0 or negative.", "Always: twice alpha is twice the update."
)
problem.promise(
    "delta_kinds", "The update has the factors' dtype.", NARROWER,
    "A tensor may be a view that isn't contiguous, or an expanded one.",
)  # fmt: skip


@problem.check(
    "delta", points=2, of="lora_delta", title="the update", same=rounded,
    concerns=["square factors, where every order type-checks", "fractional, zero, negative alpha", "rsLoRA", "views"],
    next_step="Write the shapes of A, B and the update under each other; then the scale, as a fraction.",
)  # fmt: skip
def delta(rng: Rng) -> Iterator[AnyCase]:
    _, A, B = factors(rng, *SQUARE)
    yield Case("square factors", call("lora_delta", A, B, some_alpha(rng)))
    d_out, d_in, rank = sizes(rng)
    _, A, B = factors(rng, d_out, d_in, rank + 2)
    yield Case("rectangular factors", call("lora_delta", A, B, some_alpha(rng)))
    yield Case("rsLoRA", call("lora_delta", A, B, some_alpha(rng), rslora=True), promise="delta_rslora")
    yield Case("an alpha of 0", call("lora_delta", A, B, 0.0), promise="delta_alpha")
    yield Case("a negative alpha", call("lora_delta", A, B, -some_alpha(rng)), promise="delta_alpha")
    for d_out, d_in, rank in SHAPES:
        _, A, B = factors(rng, d_out, d_in, rank)
        yield corner("factors of each shape", "delta", "lora_delta", A, B, some_alpha(rng))
        yield corner("factors of each shape, rsLoRA", "delta_rslora", "lora_delta", A, B, some_alpha(rng), True)
    _, A, B = factors(rng, 6, 5, 3)
    for alpha in ALPHAS:
        yield corner("each kind of alpha", "delta_alpha", "lora_delta", A, B, alpha)
        yield corner("each kind of alpha, rsLoRA", "delta_alpha", "lora_delta", A, B, alpha, rslora=True)
    yield corner("keywords", "delta", "lora_delta", A=A, B=B, alpha=2.5, rslora=False)
    B, A = cancelling(rng, 6, 5)
    for rslora in (False, True):
        words = "float64 numbers that cancel" + ", rsLoRA" * rslora
        yield corner(words, "delta_kinds", "lora_delta", A, B, 8.0, rslora)
        plain = Case("whole numbers", call("lora_delta", whole(rng, 4, 5), whole(rng, 3, 4), 2.0, rslora))
        kinds = [in_dtype(dtype) for dtype in (torch.float16, torch.float32, torch.float64)]
        yield from corners(plain, *kinds, promise="delta_kinds")
        for kind in kinds:
            yield from corners(kind(plain), as_views, expanded, promise="delta_kinds")


def equals(expected: Tensor) -> Callable[[Value], Difference | None]:
    """Demand exactly these bits."""

    def holds(got: Value) -> Difference | None:
        return Close(rtol=0.0, atol=0.0, dtype=True)(expected, got.value)

    return holds


problem.promise(
    "fwd", "The scale is alpha / r; the bias is added once, unscaled.",
    "and gradients reach each of them, also where alpha or one of them is 0.",
)  # fmt: skip
problem.promise(
    "fwd_thin", "Return the adapted layer's output without forming the update:",
    "Since the update isn't formed, the output is finite where B @ A overflows and B (A x) doesn't;",
)  # fmt: skip
problem.promise(
    "fwd_x", "(..., d_in) becomes (..., d_out).",
    "`x` may have up to five leading axes, also none, of any length, also 0.",
    "The output has the arguments' dtype,", NARROWER,
    "A tensor may be a view that isn't contiguous, or an expanded one.",
)  # fmt: skip
problem.promise("fwd_zero", "With B = 0 the output is the base layer's, of which A and alpha change no bit.")


@problem.check(
    "fwd", points=2, of="lora_forward", title="the adapted layer", same=rounded,
    concerns=[
        "from none to five leading axes", "with and without a bias", "square layers", "gradients", "B = 0",
        "factors whose product overflows", "16 bits and views",
    ],
    next_step="Follow one vector: first through A, then through B, then add what the base layer gives.",
)  # fmt: skip
def fwd(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in, rank = sizes(rng)
    W, A, B = factors(rng, d_out, d_in, rank)
    bias, x = torch.from_numpy(rng.normal(size=d_out)), torch.from_numpy(rng.normal(size=(2, 3, d_in)))
    yield Case("two leading axes and a bias", call("lora_forward", x, W, A, B, some_alpha(rng), bias))
    yield Case("a single vector", call("lora_forward", x[0, 0], W, A, B, some_alpha(rng)), promise="fwd_x")
    yield Case("no vector", call("lora_forward", x[0, :0], W, A, B, some_alpha(rng), bias=bias), promise="fwd_x")
    for lead in (*LEADS, (d_in,), (d_out,), (rank,), (d_out, d_in)):
        many = torch.from_numpy(rng.normal(size=(*lead, d_in)))
        case = corner("leading axes of each number and length", "fwd_x", "lora_forward", many, W, A, B, 6.5, bias)
        yield from (case, wanting_gradients(case))
    for sides in SHAPES:
        parts = factors(rng, *sides)
        some = torch.from_numpy(rng.normal(size=(2, sides[1])))
        yield corner("layers of each shape", "fwd", "lora_forward", some, *parts, some_alpha(rng))
    for alpha in ALPHAS:
        yield corner("each kind of alpha", "fwd", "lora_forward", x, W, A, B, alpha, bias)
    yield corner("keywords", "fwd", "lora_forward", x=x, W=W, A=A, B=B, alpha=2.5, bias=bias)
    left, right = cancelling(rng, 3, d_out + 2)
    exact = (left, right[:, :d_out].T, right[:, d_out:].T, whole(rng, d_out, 2), 4.0)
    yield corner("float64 numbers that cancel", "fwd_x", "lora_forward", *exact)
    yield Case("factors whose product overflows", huge(rng, (2, 3), d_out, d_in, rank), promise="fwd_thin")
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for lead, dtype in itertools.product(((), (3,), (100,), (2, 40)), dtypes):
        for sides in ((5, 7, 3), (4, 4, 4)) if lead == (100,) else ((4, 5, 3),):
            yield corner_of("factors whose product overflows", "fwd_thin", huge(rng, lead, *sides, dtype))
    for dtype, lead in itertools.product((torch.float32, torch.float64), ((3,), (100,), ())):
        # The gradient of x would overflow: the factors alone are trained.
        given = huge(rng, lead, 4, 4, 4, dtype)
        x, W, A, B, alpha = given.arguments
        A, B = A.requires_grad_(), B.requires_grad_()
        yield corner_of("trained factors", "fwd_thin", call("lora_forward", x, W, A, B, alpha, backward=True))
    yield from differentiated(rng)
    numbers = [whole(rng, *shape) for shape in ((3, 2, 5), (3, 5), (2, 5), (3, 2))]
    for given in (call("lora_forward", *numbers, 4.0, whole(rng, 3)), call("lora_forward", *numbers, 4.0)):
        plain = Case("whole numbers", given)
        for dtype in dtypes:
            case = dataclasses.replace(in_dtype(dtype)(plain), promise="fwd_x")
            yield case
            yield from corners(case, as_views, expanded, wanting_gradients)
    yield from zero_updates(rng)


LEADS = ((), (1,), (4,), (0,), (2, 0), (0, 2), (2, 3, 4), (1, 0, 3), (2, 1, 2, 3), (1, 2, 1, 2, 2), (2, 1, 0, 1, 2))


def corner_of(words: str, promise: str, given: Call) -> Case:
    return Case(words, given, promise=promise, once=True)


def huge(
    rng: Rng, lead: tuple[int, ...], d_out: int, d_in: int, rank: int, dtype: torch.dtype = torch.float64
) -> Call:  # fmt: skip
    """Return the call of a layer whose product of factors overflows, although its output doesn't."""
    power = {torch.float16: 9, torch.float64: 600}.get(dtype, 70)
    x, A, B = (whole(rng, *shape) for shape in ((*lead, d_in), (rank, d_in), (d_out, rank)))
    # The largest entry of the product is above 2^(2 * power); that of the output is below 2^(power + 6).
    A[0], B[0] = 2.0, 2.0
    x, A, B = 2.0 ** (-power - 3) * x, 2.0**power * A, 2.0**power * B
    W = torch.zeros(d_out, d_in, dtype=torch.float64)
    bias = [] if rank > 3 else [torch.zeros(d_out, dtype=dtype)]
    return call("lora_forward", *(part.to(dtype) for part in (x, W, A, B)), float(rank), *bias)


def differentiated(rng: Rng) -> Iterator[Case]:
    """Yield layers whose gradients are compared: of all arguments or of some, also where they are 0."""
    square = [torch.from_numpy(rng.normal(size=(4, 6))), *factors(rng, *SQUARE), torch.from_numpy(rng.normal(size=6))]
    plain = layer("a square layer", *square, alpha=some_alpha(rng))
    yield dataclasses.replace(wanting_gradients(plain), once=False)
    x, W, A, B, bias = (torch.from_numpy(rng.normal(size=shape)) for shape in ((2, 3, 5), (4, 5), (3, 5), (4, 3), (4,)))
    cases = [
        layer("B = 0", x, W, A, 0 * B, bias),
        layer("A = 0", x, W, 0 * A, B, bias),
        layer("A = 0 and B = 0", x, W, 0 * A, 0 * B, bias),
        layer("x = 0", 0 * x, W, A, B, bias),
        layer("a bias of 0", x, W, A, B, 0 * bias),
        layer("W = 0", x, 0 * W, A, B, bias),
        layer("an alpha of 0", x, W, A, B, bias, alpha=0.0),
        layer("a negative alpha", x, W, A, B, bias, alpha=-2.5),
        layer("without a bias", x, W, A, B),
        layer("a vector", x[0, 0], W, A, B, bias),
        layer("no vector", x[:, :0], W, A, B, bias),
        layer("four axes", x[:, None], W, A, B, bias),
        layer("B = 0, a vector without a bias", x[0, 0], W, A, 0 * B),
    ]
    for case in cases:
        yield from corners(case, wanting_gradients)
        yield from corners(in_dtype(torch.float32)(case), wanting_gradients)
    for wanted in ((0,), (1,), (2, 3), (2,), (3,), (4,), (0, 2, 3)):
        parts = [part.clone().requires_grad_(place in wanted) for place, part in enumerate((x, W, A, B, bias))]
        for start in (parts[3], torch.zeros_like(B).requires_grad_(3 in wanted)):
            made = layer("some arguments want gradients", *parts[:3], start, parts[4])
            yield dataclasses.replace(made, call=dataclasses.replace(made.call, backward=True))


def layer(words: str, x: Tensor, W: Tensor, A: Tensor, B: Tensor, *bias: Tensor, alpha: float = 6.5) -> Case:
    return corner(words, "fwd", "lora_forward", x, W, A, B, alpha, *bias)


def zero_updates(rng: Rng) -> Iterator[Relation]:
    """Yield layers with B = 0, on rows of x with a single 1: any way of adding the zeros gives the same bits."""
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        W, A, _ = factors(rng, 5, 7, 3)
        W, A = W.to(dtype), A.to(dtype)
        bias, eye, B = whole(rng, 5).to(dtype), torch.eye(7, dtype=dtype), torch.zeros(5, 3, dtype=dtype)
        yield Relation("B = 0", (call("lora_forward", eye, W, A, B, -0.3),), equals(W.T), "fwd_zero")
        given = call("lora_forward", eye, W, 8 * A, B, 6.5, bias)
        yield Relation("B = 0, with a bias", (given,), equals(W.T + bias), "fwd_zero")


def far_from_ties(rng: Rng, weight: torch.dtype, given: torch.dtype) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return a weight and factors, in 16 bits such that no accurate way of adding rounds their sum differently."""
    while True:
        W, A, B = factors(rng, 6, 5, 3)
        W, A, B, alpha = W.to(weight), A.to(given), B.to(given), some_alpha(rng)
        exact = W.double() + alpha / 3 * B.double() @ A.double()
        slack = 1e-6 * (B.double().abs() @ A.double().abs() * alpha + 1)  # what sums in float32 may be off
        wide = weight in (torch.float32, torch.float64)  # whose last bits aren't compared
        if wide or torch.equal((exact + slack).to(weight), (exact - slack).to(weight)):
            return W, A, B, alpha


problem.promise(
    "merged",
    "Return a weight of W's dtype with the update of scale alpha / r added; nothing that was passed in changes.",
)
problem.promise(
    "merged_once",
    "Product and sum are made in float32 or wider, never in less than W's dtype, whatever the factors' dtype is; the "
    "result is rounded to W's dtype once.", "A tensor may be a view that isn't contiguous, or an expanded one.",
)  # fmt: skip
problem.promise(
    "merged_bits",
    "Always: a merge with B = 0 gives the weight's own numbers, and multiplying one factor by a power of two and "
    "dividing the other by it changes nothing.",
)  # fmt: skip
problem.promise("merged_parameters", "Each of the three may be a parameter that wants gradients.")


@problem.check(
    "merged", points=2, of="merge", title="the merged weight", same=rounded,
    concerns=["the weight's dtype", "a single rounding in 16 bits", "nothing changed in place", "B = 0", "parameters"],
    next_step="Which dtype does each intermediate result have, and where is it rounded?",
)  # fmt: skip
def merged(rng: Rng) -> Iterator[AnyCase]:
    W, A, B = factors(rng, *sizes(rng))
    yield Case("a float64 weight", call("merge", W, A, B, some_alpha(rng)))
    kept = call("merge", W, A.float(), torch.zeros_like(B).float(), 6.5)
    yield Relation("B = 0, a float64 weight", (kept,), equals(W), "merged_bits")
    W, A, B = (part.float() for part in factors(rng, *SQUARE))
    yield Case("a square float32 weight", call("merge", W, A, B, some_alpha(rng)))
    for sides in SHAPES:
        yield corner("weights of each shape", "merged", "merge", *factors(rng, *sides), some_alpha(rng))
    for alpha in ALPHAS:
        yield corner("each kind of alpha", "merged", "merge", W, A, B, alpha)
    yield corner("keywords", "merged", "merge", W=W, A=A, B=B, alpha=2.5)
    for wanted in ((0, 1, 2), (0,), (1,), (2,), (1, 2)):
        parts = [part.clone().requires_grad_(place in wanted) for place, part in enumerate((W, A, B))]
        yield Case("parameters", call("merge", *parts, some_alpha(rng)), promise="merged_parameters")
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            numbers = [whole(rng, *shape) for shape in ((3, 5), (2, 5), (3, 2))]
            parts = [part.to(dtype).requires_grad_(place in wanted) for place, part in enumerate(numbers)]
            yield corner("parameters of each dtype", "merged_parameters", "merge", *parts, 4.0)
    big = call("merge", (1e30 * W).bfloat16(), A.bfloat16(), torch.zeros(6, 6).bfloat16(), 6.5)
    yield Case("B = 0, a bf16 weight of large numbers", big, promise="merged_bits")
    for words, weight, given in (
        ("a bf16 weight with float32 factors", torch.bfloat16, torch.float32),
        ("a bf16 weight with bf16 factors", torch.bfloat16, torch.bfloat16),
        ("a float16 weight with float16 factors", torch.float16, torch.float16),
    ):
        yield Case(words, call("merge", *far_from_ties(rng, weight, given)), promise="merged_once")
    yield from merged_dtypes(rng)
    W, A, B, alpha = far_from_ties(rng, torch.float16, torch.float32)
    moved = call("merge", W, 2.0**60 * A, 2.0**-60 * B, alpha)
    yield Case("a large A and a small B", moved, promise="merged_bits")
    for weight, given in itertools.product((torch.float16, torch.float32), (torch.float32, torch.bfloat16)):
        W, A, B, alpha = far_from_ties(rng, weight, given)
        for power in (30, -30, -60):
            moved = call("merge", W, 2.0**power * A, 2.0**-power * B, alpha)
            yield corner_of("a power of two in one factor", "merged_bits", moved)


NARROW = (torch.float16, torch.bfloat16, torch.float32)


def merged_dtypes(rng: Rng) -> Iterator[AnyCase]:
    """Yield merges of weights of each dtype with factors of each dtype."""
    pairs = [(weight, given) for weight in (*NARROW, torch.float64) for given in NARROW]
    for weight, given in (*pairs, (torch.float64, torch.float64)):
        W, A, B, alpha = far_from_ties(rng, weight, given)
        plain = corner("a weight and factors of each dtype", "merged_once", "merge", W, A, B, alpha)
        yield plain
        yield from corners(plain, as_views)
        if weight in (torch.float16, torch.bfloat16):
            numbers = [whole(rng, *shape) for shape in ((3, 5), (2, 5), (3, 2))]
            W, A, B = numbers[0].to(weight), numbers[1].to(given), numbers[2].to(given)
            plain = corner("whole numbers", "merged_once", "merge", W, A, B, 4.0)
        yield from corners(plain, expanded)
        yield from merges_of_zero(W, A, alpha)
    for given in (torch.float32, torch.float64):
        B, A = cancelling(rng, 6, 5)
        numbers = (whole(rng, 6, 5), A.to(given), B.to(given), 8.0)
        yield corner("a float64 weight, and numbers that cancel", "merged_once", "merge", *numbers)
    A, B = 2.0**9 * whole(rng, 2, 5), 2.0**9 * whole(rng, 3, 2)
    for weight, given in itertools.product(NARROW, (torch.float16, torch.float32)):
        numbers = (whole(rng, 3, 5).to(weight), A.to(given), B.to(given), 2.0**-15)
        yield corner("factors whose product overflows in float16", "merged_once", "merge", *numbers)
    for given, power in ((torch.float32, 70), (torch.bfloat16, 70), (torch.float64, 300)):
        A, B = (2.0**power * whole(rng, *shape) for shape in ((2, 5), (3, 2)))
        numbers = (whole(rng, 3, 5), A.to(given), B.to(given), 2.0)
        yield corner(
            "a float64 weight, and factors whose product overflows in float32", "merged_once", "merge", *numbers
        )


def merges_of_zero(W: Tensor, A: Tensor, alpha: float) -> Iterator[AnyCase]:
    """Yield merges with B = 0, which give the weight's own numbers."""
    B = torch.zeros(W.shape[0], A.shape[0], dtype=A.dtype)
    if W.dtype in (torch.float32, torch.float64):
        yield Relation("B = 0", (call("merge", W, A, B, alpha),), equals(W), "merged_bits")
        return
    for factor in (1.0, 2.0**-12, 2.0**12):
        yield corner("B = 0, 16 bits", "merged_bits", "merge", (factor * W).to(W.dtype), A, B, alpha)


problem.promise(
    "grad", "Return the gradients (of A, of B), given the gradient G (d_out, d_in) of the loss by the adapted weight.",
    "The adapted weight is W plus the update with scale alpha / r.", "A function leaves its arguments as they were.",
)  # fmt: skip
problem.promise("grad_zero", "Always: with B = 0 the first step moves B alone.")
problem.promise(
    "grad_kinds", "Each gradient has its factor's shape and dtype.", NARROWER,
    "A tensor may be a view that isn't contiguous, or an expanded one.",
)  # fmt: skip


@problem.check(
    "grad", points=2.5, of="first_step_grads", title="the factors' gradients, by hand", same=rounded,
    concerns=["B = 0 and B = anything", "square factors", "fractional alpha", "16 bits and views"],
    next_step="Write L's change for a small change of B alone, as a trace; then for A alone.",
)  # fmt: skip
def grad(rng: Rng) -> Iterator[AnyCase]:
    G, A, B = factors(rng, *sizes(rng))
    yield Case("any B", call("first_step_grads", G, A, B, some_alpha(rng)))
    at_start = call("first_step_grads", G, A, torch.zeros_like(B), some_alpha(rng))
    yield Case("B = 0", at_start, promise="grad_zero")
    G, A, B = factors(rng, *SQUARE)
    yield Case("square factors", call("first_step_grads", G, A, B, some_alpha(rng)))
    for sides in SHAPES:
        G, A, B = factors(rng, *sides)
        yield corner("factors of each shape", "grad", "first_step_grads", G, A, B, some_alpha(rng))
        yield corner("B = 0", "grad_zero", "first_step_grads", G, A, 0 * B, some_alpha(rng))
    G, A, B = factors(rng, 6, 5, 3)
    for alpha in ALPHAS:
        yield corner("each kind of alpha", "grad", "first_step_grads", G, A, B, alpha)
    yield corner("A = 0", "grad", "first_step_grads", G, 0 * A, B, 6.5)
    yield corner("B = 0 in one column", "grad", "first_step_grads", G, A, B * torch.tensor([1.0, 0.0, 1.0]), 6.5)
    yield corner("keywords", "grad", "first_step_grads", G=G, A=A, B=B, alpha=2.5)
    left, right = cancelling(rng, 4, 5)
    words = "float64 numbers that cancel"
    yield corner(words, "grad_kinds", "first_step_grads", right, whole(rng, 4, 5), left.T, 8.0)
    yield corner(words, "grad_kinds", "first_step_grads", left, right[:, :4].T, whole(rng, 4, 4), 8.0)
    numbers = [whole(rng, *shape) for shape in ((3, 5), (2, 5), (3, 2))]
    for dtype in (torch.float16, torch.float32, torch.float64):
        case = in_dtype(dtype)(Case("whole numbers", call("first_step_grads", *numbers, 6.0), promise="grad_kinds"))
        yield case
        yield from corners(case, as_views, expanded)
    large = torch.from_numpy(
        2 * rng.integers(256, 512, size=(1, 5)) + 1
    )  # eleven bits: exact in float16, not in bfloat16
    given = [part.half() for part in (large, torch.eye(2, 5), torch.tensor([[1.0, -1.0]]))]
    yield corner("float16 numbers of eleven bits", "grad_kinds", "first_step_grads", *given, 2.0)


class OfAnyLayout(Close):
    """Take the numbers of a list, a tuple, an array or a tensor, in one axis or in several."""

    def __call__(self, expected: Any, got: Any) -> Difference | None:
        return Close(self.rtol, self.atol)(expected, flat(got))


def flat(value: Any) -> Any:
    """Return an array's or a list's first numbers as a list without nesting."""
    if torch.is_tensor(value) or isinstance(value, np.ndarray):
        return value.reshape(-1)[:10].tolist()
    if isinstance(value, list | tuple):
        parts = [flat(item) for item in value[:10]]
        return [number for part in parts for number in (part if isinstance(part, list) else [part])]
    return value


def gradient_of_b(grads: Any) -> list[float]:
    return grads[1].flatten().tolist()


@problem.personal(
    title="your first gradient", same=OfAnyLayout(rtol=1e-3, atol=6e-5),
    next_step="Write the chain rule for B, then put your numbers in.",
)  # fmt: skip
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
    "alpha_zero_is_none", "lora_delta", {"else alpha / rank": "else (alpha or rank) / rank"},
    says="Your update isn't 0 where alpha is 0.", next_step="An alpha of 0 is a number like any other.",
)  # fmt: skip
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
    "delta_in_float32", "lora_delta", {"scale * (B @ A)": "scale * (B.float() @ A.float())"},
    says="Your update is float32, whatever the factors are.", next_step="Return it in the factors' dtype.",
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
    "forward_forms_the_update", "lora_forward", {"F.linear(F.linear(x, A), B)": "F.linear(x, B @ A)"},
    says="Your function forms the update B @ A, whose entries overflow here.",
    next_step="Send x through A, and the result through B.",
)  # fmt: skip
problem.slip(
    "vector_as_batch", "lora_forward",
    {"F.linear(x, W, bias) + update": "torch.atleast_2d(F.linear(x, W, bias) + update)"},
    says="A single vector comes back as a batch of one.", next_step="Keep x's leading axes, also if there are none.",
)  # fmt: skip
problem.slip(
    "forward_in_float32", "lora_forward", {"F.linear(x, W, bias) + update": "(F.linear(x, W, bias) + update).float()"},
    says="Your output is float32, whatever the arguments are.", next_step="Return it in their dtype.",
)  # fmt: skip
problem.slip(
    "base_divided_and_multiplied", "lora_forward",
    {"F.linear(x, W, bias) + update": "scale * (F.linear(x, W, bias) / scale + update / scale)"},
    says="Your base output is divided by the scale and multiplied again, which rounds it.",
    next_step="Scale the update, then add it.",
)  # fmt: skip

problem.slip(
    "merge_through_numpy", "merge", {"return merged": "merged = torch.from_numpy(merged.numpy())\n    return merged"},
    says="Your merge fails for parameters that want gradients.", next_step="Stay in torch, or detach first.",
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
    "merge_multiplies_narrow", "merge", {"A.to(wide), B.to(wide)": "A, B"},
    says="Your factors are multiplied in their own dtype, which rounds the product.",
    next_step="Multiply and add in float32.",
)  # fmt: skip
problem.slip(
    "merge_multiplies_float32", "merge", {"A.to(wide), B.to(wide)": "A.float(), B.float()"},
    says="Your factors are multiplied in float32 for a float64 weight.",
    next_step="Multiply in W's dtype if it is wider.",
)  # fmt: skip
problem.slip(
    "merge_widens_bf16_only", "merge",
    {"torch.promote_types(W.dtype, torch.float32)":
     "torch.float32 if W.dtype == torch.bfloat16 else W.dtype"},
    says="A float16 weight is added in float16.", next_step="Widen every 16-bit dtype to float32.",
)  # fmt: skip
problem.slip(
    "merge_narrows_float64", "merge",
    {"torch.promote_types(W.dtype, torch.float32)": "torch.float32"},
    says="A float64 weight is added in float32.", next_step="Keep W's dtype if it is wider than float32.",
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
    "grads_in_float32", "first_step_grads",
    {"scale * B.T @ G, scale * G @ A.T": "(scale * B.T @ G).float(), (scale * G @ A.T).float()"},
    says="Your gradients are float32, whatever the factors are.", next_step="Return them in the factors' dtype.",
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
