"""How the truncated SVD is judged: by products, norms and errors, since factors are free up to rotation and sign."""

import math
from collections.abc import Callable, Iterator
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
    Same,
    Value,
    call,
    integer,
)  # fmt: skip
from ftgrade.sandbox.worker import View

problem = Problem(part="05_lora_algebra", difficulty=3, importance=4, minutes=50)

Tensor = torch.Tensor


def with_values(rng: Rng, p: int, q: int, values: list[float]) -> Tensor:
    """Return a float64 matrix with these singular values, in random directions."""
    U, _ = torch.linalg.qr(torch.from_numpy(rng.normal(size=(p, len(values)))))
    V, _ = torch.linalg.qr(torch.from_numpy(rng.normal(size=(q, len(values)))))
    return U @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ V.T


def spread(rng: Rng, count: int) -> list[float]:
    """Return distinct singular values that fall slowly, from about 5 to about 1."""
    return [5.0 - 0.9 * position + float(rng.uniform(0, 0.5)) for position in range(count)]


def falling(count: int) -> list[float]:
    """Return singular values that fall by a third each, so that ten of them are all well apart."""
    return [3.0 * 0.67**position for position in range(count)]


def tall_wide_square(rng: Rng) -> list[tuple[str, Tensor]]:
    return [
        ("a tall matrix", with_values(rng, 7, 4, spread(rng, 4))),
        ("a wide matrix", with_values(rng, 4, 6, spread(rng, 4))),
        ("a square matrix", with_values(rng, 5, 5, spread(rng, 5))),
    ]


def every_shape(rng: Rng) -> list[tuple[str, Tensor]]:
    """Return matrices of the smallest, the narrowest and the largest shapes, in both dtypes."""
    shapes = ((1, 1), (1, 4), (4, 1), (2, 3), (3, 2), (10, 10))
    doubles = [with_values(rng, p, q, falling(min(p, q))) for p, q in shapes]
    words = "a single entry", "one row", "one column", "two rows", "two columns", "ten rows and columns"
    return [
        (f"{one}, {kind}", M.to(dtype))
        for one, M in zip(words, doubles, strict=True)
        for kind, dtype in (("float64", torch.float64), ("float32", torch.float32))
    ]


def symmetric(rng: Rng) -> list[tuple[str, Tensor]]:
    """Return a symmetric matrix with negative eigenvalues, which aren't its singular values."""
    Q, _ = torch.linalg.qr(torch.from_numpy(rng.normal(size=(3, 3))))
    M = Q @ torch.diag(torch.tensor([-0.6, 0.4, -0.2], dtype=torch.float64)) @ Q.T
    return [("a symmetric matrix", (M + M.T) / 2)]


def far_apart(rng: Rng) -> list[tuple[str, Tensor]]:
    """Return matrices whose singular values are far apart: a product M.T @ M in float32 loses the smaller ones."""
    words, three, two = "singular values far apart", [0.25, 3e-4, 2e-4], [0.5, 5e-5]
    doubles = [with_values(rng, p, q, values) for p, q, values in ((5, 3, three), (3, 6, three), (3, 2, two))]
    return [*((words, M) for M in doubles), *((f"{words}, float32", M.float()) for M in doubles)]


def of_size(M: Tensor, size: float) -> Tensor:
    """Return M times the factor that brings its largest entry to this size."""
    return M * (size / M.abs().max())


def zeros() -> list[tuple[str, Tensor]]:
    """Return zero matrices, tall and wide, in both dtypes."""
    return [
        (f"the zero matrix, {p} by {q}", torch.zeros(p, q, dtype=dtype))
        for p, q, dtype in ((3, 2, torch.float32), (2, 4, torch.float64), (1, 1, torch.float32), (3, 3, torch.float64))
    ]


def float32_view(case: Case) -> Case:
    return as_views(in_dtype(torch.float32)(case))


def once(words: str, asked: Call, promise: str = "") -> Case:
    """Return a case that is asked once a student."""
    return Case(words, asked, promise=promise, once=True)


# ------------------------------------------------------------------------------------------------------------ checks


def factors_of(got: Any) -> tuple[Tensor, Tensor] | None:
    """Return two matrices that can be multiplied, or None."""
    if not isinstance(got, tuple | list) or len(got) != 2 or not all(torch.is_tensor(part) for part in got):
        return None
    B, A = (part.detach().double() for part in got)
    return (B, A) if B.ndim == A.ndim == 2 and B.shape[1] == A.shape[0] else None


def factors_that(compare: Callable[[Tensor, Tensor], Tensor]) -> Same:
    """Return a comparison of what `compare` makes of two factors, which must have the right shapes."""

    def same(expected: Any, got: Any) -> Difference | None:
        pair, right = factors_of(got), factors_of(expected)
        if pair is None or right is None:
            return Difference("two matrices that can be multiplied were expected")
        if pair[0].shape != right[0].shape or pair[1].shape != right[1].shape:
            return Difference("the factors' shapes differ: (p, r) and (r, q) were expected")
        return Close()(compare(*right), compare(*pair))

    return same


same_product = factors_that(lambda B, A: B @ A)
same_norms = factors_that(lambda B, A: torch.stack([B.square().sum(), A.square().sum()]))


def keep_dtypes(matrices: list[Tensor]) -> Callable[..., Difference | None]:
    """Demand factors of each matrix, all of whose singular values are kept, in its dtype."""

    def holds(*outcomes: Value) -> Difference | None:
        for M, outcome in zip(matrices, outcomes, strict=True):
            pair = factors_of(outcome.value)
            if pair is None or Close()(M, pair[0] @ pair[1]):
                return Difference("the product isn't M, all of whose singular values are kept")
            if any(part.dtype != M.dtype for part in outcome.value):
                return Difference("the factors have another dtype than M")
        return None

    return holds


def misses(matrix: Tensor, r: int, error: float) -> Callable[[Value], Difference | None]:
    """Demand two factors of rank r whose product misses the matrix by this error, the smallest that is possible."""

    def holds(outcome: Value) -> Difference | None:
        pair = factors_of(outcome.value)
        if pair is None or pair[0].shape[1] != r or pair[0].shape[0] != len(matrix):
            return Difference("the factors' shapes differ: (p, r) and (r, q) were expected")
        return Close()(error, float((matrix - pair[0] @ pair[1]).norm()))

    return holds


problem.promise(
    "fac",
    "Return balanced factors B (p, r) and A (r, q) whose product is the best rank-r approximation of M (p, q).",
    "Best in the Frobenius norm.", "Factors are unique only up to rotation and sign",
    "A function leaves its arguments as they were.",
)  # fmt: skip
LOW = problem.promise(
    "low", "The rank of M may be lower than r, and M may be zero.", "with full rank nothing is lost"
)  # fmt: skip
DTYPE = problem.promise("dtype", "M is float32 or float64, and the factors have its dtype.")


@problem.check(
    "fac", points=3, of="low_rank_factors", title="the best approximation", same=same_product,
    concerns=[
        "tall, wide and square matrices", "views", "repeated singular values", "a matrix of lower rank, zero",
        "float32 and float64", "singular values far apart", "large and small entries",
    ],
    next_step="Rebuild M from all of its singular values first; then keep fewer.",
)  # fmt: skip
def fac(rng: Rng) -> Iterator[AnyCase]:
    low = "low_rank_factors"
    for words, M in tall_wide_square(rng):
        case = Case(words, call(low, M, int(rng.integers(2, 4))))
        yield case
        yield from corners(case, with_numpy_numbers, as_views, float32_view)
        if "wide" in words:
            yield from corners(case, expanded, promise=LOW)  # all rows are equal: it has rank one
    repeated = with_values(rng, 5, 4, [3.0, 3.0, 1.0, 1.0])
    yield Case("repeated singular values, between two groups", call(low, repeated, 2))
    for r, error in ((1, math.sqrt(11)), (3, 1.0)):
        words = "repeated singular values, in the middle of a group"
        yield Relation(words, (call(low, repeated, r),), misses(repeated, r, error))
    yield Case("every singular value", call(low, with_values(rng, 5, 4, spread(rng, 4)), 4), promise=LOW)
    two = with_values(rng, 8, 7, [4.0, 1.5])
    yield Case("a matrix of lower rank", call(low, two, 7), promise=LOW)
    several = [*every_shape(rng), *symmetric(rng), *far_apart(rng)]
    for words, M in several:
        for r in sorted({1, 2, 3, min(M.shape) - 1, min(M.shape)} & set(range(1, min(M.shape) + 1))):
            yield once(words, call(low, M, r), LOW if r == min(M.shape) else "")
    for size in (1e-3, 1e3):
        for dtype in (torch.float32, torch.float64):
            yield once("small or large entries", call(low, of_size(two, size).to(dtype), 1))
    for words, M in zeros():
        for r in range(1, min(M.shape) + 1):
            yield once(words, call(low, M, r), LOW)
    for r in (2, 3, 7):
        yield once("a matrix of lower rank, float32", call(low, two.float(), r), LOW)
        yield once("a matrix of rank one", call(low, two[:, :1] @ two[:1], r), LOW)
    for dtype in (torch.float32, torch.float64):
        matrices = [M for _, M in (*zeros(), *every_shape(rng)) if M.dtype == dtype]
        calls = [call(low, M, min(M.shape)) for M in matrices]
        calls += [call(low, two.to(dtype), 2), call(low, View(two.T.to(dtype)), np.int64(2))]
        matrices += [two.to(dtype), two.T.to(dtype)]
        yield Relation(f"{dtype}, of all kinds", tuple(calls), keep_dtypes(matrices), promise=DTYPE)


problem.promise("bal", "both have the same squared Frobenius norm, the sum of the kept singular values.")


@problem.check(
    "bal", points=1, of="low_rank_factors", title="balanced factors", same=same_norms,
    concerns=["the norm of each factor", "all kinds of matrices, as for the product"],
    next_step="Share each singular value out between the two factors.",
)  # fmt: skip
def bal(rng: Rng) -> Iterator[AnyCase]:
    low = "low_rank_factors"
    for words, M in tall_wide_square(rng):
        case = Case(words, call(low, M, 3))
        yield case
        yield from corners(case, float32_view)
    one = with_values(rng, 4, 5, [2.5])
    others = [("repeated singular values", with_values(rng, 5, 4, [3.0, 3.0, 1.0, 1.0])), ("a matrix of rank one", one)]
    others += [("large entries", of_size(one, 1e3).float()), ("small entries", of_size(one, 1e-3).float())]
    for words, M in (*others, *every_shape(rng), *symmetric(rng), *far_apart(rng), *zeros()):
        for r in {1, min(2, *M.shape), min(M.shape)}:
            yield once(words, call(low, M, r))


problem.promise(
    "err", "Return the norm of what the best rank-r approximation of M leaves out, from the singular values."
)  # fmt: skip
NORM = problem.promise("norm", '`norm` is "fro" (Frobenius) or "spectral".')
ENDS = problem.promise("ends", "With r = 0 it's the norm of M, with r = min(p, q) it's 0.")


@problem.check(
    "err", points=2, of="truncation_error", title="the error, in closed form",
    concerns=[
        "both norms", "rank 0 and full rank", "tall, wide and square matrices", "float32", "singular values far apart",
        "zero",
    ],
    next_step="Subtract the approximation from M in the singular basis: what stands on the diagonal?",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    error = "truncation_error"
    for words, M in tall_wide_square(rng):
        yield Case(f"{words}, Frobenius", call(error, M, 2))
        yield Case(f"{words}, full rank", call(error, M, min(M.shape)), promise=ENDS)
        spectral = Case(f"{words}, spectral", call(error, M, 2, norm="spectral"), promise=NORM)
        yield spectral
        yield from corners(spectral, float32_view, as_views, with_numpy_numbers)
        yield from corners(Case(words, call(error, M, 1, "fro")), float32_view, as_views, with_numpy_numbers)
    M = tall_wide_square(rng)[0][1]
    yield Case("rank 0", call(error, M, 0), promise=ENDS)
    yield Case("rank 0, spectral", call(error, M, 0, "spectral"), promise=ENDS)
    yield Case("full rank, spectral", call(error, M, 4, "spectral"), promise=ENDS)
    rank_one = with_values(rng, 4, 6, [0.2])
    several = [("a matrix of rank one", rank_one), ("a matrix of rank one, float32", rank_one.float())]
    several += [(words, of_size(M, 0.1)) for words, M in every_shape(rng)]
    several += [("small entries", of_size(M, 1e-3).float()), ("large entries", of_size(M, 1e3))]
    several += [
        ("a small rest in float64", with_values(rng, 4, 5, [800.0, 400.0, rest])) for rest in (1e-2, 5e-4, 2e-5)
    ]
    for words, M in (*several, *symmetric(rng), *far_apart(rng), *zeros()):
        for r in sorted({0, 1, 2, min(M.shape) - 1, min(M.shape)} & set(range(min(M.shape) + 1))):
            at_end = ENDS if r in (0, min(M.shape)) else ""
            yield once(f"{words}, Frobenius", call(error, M, r), at_end)
            yield once(f"{words}, spectral", call(error, M, np.int64(r), norm="spectral"), at_end or NORM)
    for _, M in every_shape(rng):  # whose rounding is far above the tolerance
        large = of_size(M, 1e3).float()
        for norm in ("fro", "spectral"):
            yield once("large entries in float32, full rank", call(error, large, min(M.shape), norm), ENDS)


problem.promise(
    "energy", "Return the smallest rank whose best approximation holds at least this share of M's squared Frobenius",
    "more energy needs no smaller rank",
)  # fmt: skip
ROUNDING = problem.promise(
    "rounding", "A share that is missed by no more than rounding counts as reached: by 1e-12 of the whole for float64,"
)  # fmt: skip
ZERO = problem.promise("zero", "The zero matrix needs rank 0.")
SIZES = problem.promise("sizes", "square float32 singular values in float64")
TINY_AND_HUGE = (1e-25, 1e25)


def at_boundaries() -> Iterator[Case]:
    """Yield shares that are missed by half of the tolerance, and by twice as much, in matrices without rounding."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        for factor in (1e-3, 1.0, 1e3):
            for count in (2, 10):
                M = factor * torch.eye(count, dtype=dtype)
                for r in (1, count - 1):
                    for missed in (-0.5, 0.5, 2.0):
                        words = "a share close to a boundary"
                        yield once(words, call("rank_for_energy", M, r / count + missed * tolerance), ROUNDING)
            # The last direction holds half of the tolerance, or twice as much.
            for part in (0.5, 2.0):
                M = factor * torch.diag(torch.tensor([1.0, math.sqrt(part * tolerance)], dtype=dtype))
                yield once("all but a tiny share in one direction", call("rank_for_energy", M, 1.0), ROUNDING)


@problem.check(
    "energy", points=2, of="rank_for_energy", title="rank for a share of the energy", same=integer,
    concerns=[
        "a share exactly on a boundary, and close to one", "the whole energy of a matrix of low rank", "zero",
        "float32 and float64", "large and small entries",
    ],
    next_step="Write down the cumulative share for three singular values, and the first that reaches the target.",
)  # fmt: skip
def energy(rng: Rng) -> Iterator[AnyCase]:
    M = with_values(rng, 6, 5, [3.0, 2.0, 2.0, 1.0])  # squares 9, 4, 4, 1 of 18
    for words, share, *kinds in (
        ("between two ranks", float(rng.uniform(0.55, 0.7)), float32_view, as_views),
        ("below the first rank's", float(rng.uniform(0.01, 0.4)), with_numpy_numbers),
        ("just above a boundary", 0.501),
    ):
        case = Case(f"a share {words}", call("rank_for_energy", M, share))
        yield case
        yield from corners(case, *kinds)
    for matrix in (M, M.T):
        for dtype in (torch.float64, torch.float32):
            for share in (0.001, 0.3, 0.49, 0.6, 0.72, 0.73, 0.9, 0.95):
                for factor in (1e-25, 1.0, 1e25):
                    asked = call("rank_for_energy", (factor * matrix).to(dtype), share)
                    words = "shares of all sizes, small and large entries"
                    yield once(words, asked, SIZES if factor in TINY_AND_HUGE else "")
    for words, matrix in (*every_shape(rng), *symmetric(rng), *far_apart(rng)):
        for share in (0.4, 0.97):
            yield once(words, call("rank_for_energy", matrix, share))
    full = with_values(rng, 4, 4, spread(rng, 4))
    low = with_values(rng, 7, 6, spread(rng, 3))
    for words, matrix, shares in (
        ("", M, (13 / 18, 0.5 + 3e-13, 0.5 + 5e-12)),
        (", float32", M.float(), (9 / 18, 17 / 18, 0.5 + 4e-6)),
        (", all of a matrix of rank three", low, (1.0,)),
        (", all of a matrix of rank three in float32", low.float(), (1.0,)),
    ):
        for share in shares:
            case = call("rank_for_energy", matrix, share)
            yield Case(f"a share at a boundary, or close to one{words}", case, promise=ROUNDING)
    yield from at_boundaries()
    for words, matrix in zeros():
        for share in (0.001, float(rng.uniform(0.1, 0.9)), 1):
            yield once(words, call("rank_for_energy", matrix, share), ZERO)
    yield Case("small entries, which aren't zero", call("rank_for_energy", full / 1e4, 1), promise=ZERO)
    for dtype in (torch.float32, torch.float64):
        for matrix in (torch.tensor([[1e-25]]), torch.tensor([[0.0, 0.0], [-1e-25, 0.0]])):
            asked = call("rank_for_energy", matrix.to(dtype), 1.0)
            yield once("a single tiny entry, which isn't zero", asked, SIZES)


problem.promise(
    "eff",
    "Return the stable rank, the squared Frobenius norm over the squared spectral norm; 0 for the zero matrix.",
    "it's at most the rank",
)  # fmt: skip
FACTOR = problem.promise("factor", "a factor changes nothing, not even 1e-25 or 1e25 in float32")


@problem.check(
    "eff", points=1, of="effective_rank", title="the effective rank",
    concerns=["any matrix, in float32 and float64", "zero", "tiny and huge entries in both"],
    next_step="Put the identity into your formula: what must come out?",
)  # fmt: skip
def eff(rng: Rng) -> Iterator[AnyCase]:
    M = with_values(rng, 3, 5, spread(rng, 3))
    yield Case("any matrix", call("effective_rank", with_values(rng, 6, 4, spread(rng, 4))))
    yield from corners(Case("a wide matrix", call("effective_rank", M)), as_views, float32_view, expanded)
    one = torch.diag(torch.tensor([float(rng.uniform(1, 5)), 0.0, 0.0], dtype=torch.float64))
    yield Case("a matrix of rank one", call("effective_rank", one))
    yield Case("the zero matrix", call("effective_rank", torch.zeros(4, 2, dtype=torch.float64)))
    for words, matrix in (*every_shape(rng), *symmetric(rng), *far_apart(rng), *zeros()):
        yield once(words, call("effective_rank", matrix))
    tiny = torch.tensor([[0.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    for factor in (1e-25, 1e-10, 1e10, 1e25):
        yield Case(f"float32, times {factor:g}", call("effective_rank", (factor * M).float()), promise=FACTOR)
        for matrix in (M, M.T, torch.eye(2, dtype=torch.float64), tiny):
            for dtype in (torch.float32, torch.float64):
                asked = call("effective_rank", (factor * matrix).to(dtype))
                yield once(f"all kinds of matrices, times {factor:g}", asked, FACTOR)


problem.promise(
    "bad_low_rank_factors", "ValueError naming `2-D` (M isn't a matrix), `finite` (M holds NaN or infinities), `rank`"
)  # fmt: skip
problem.promise("bad_truncation_error", "ValueError naming `2-D`, `finite`, `norm` (neither word) or `rank`")
problem.promise("bad_rank_for_energy", "ValueError naming `2-D`, `finite` or `energy` (NaN, or not within (0, 1]).")
problem.promise("bad_effective_rank", "ValueError naming `2-D` or `finite`.")

KEYWORDS = ("2-D", "finite", "rank", "norm", "energy")
NORMS = (
    "nuclear", "nuc", "frobenius", "Frobenius", "Fro", "FRO", "fro ", "f", "F", "ro", "l2", "L2", "2", "inf", "max",
    "Spectral", "SPECTRAL", " spectral", "spec", "spectra", "operator", "sigma", "euclidean", "none", "mean", "",
)  # fmt: skip
SHARES = (
    0, 0.0, -0.0, -1e-300, -1e-12, -1e-6, -0.5, -1, -1.0, -math.inf, math.inf, math.nan, math.nextafter(1, 2),
    1 + 5e-13, 1 + 1e-9, 1 + 5e-7, 1.01, 1.5, 2, 50.0, 100, np.float64(0), np.float64(1.25),
)  # fmt: skip


def unfit(rng: Rng, dtype: torch.dtype) -> Iterator[tuple[str, str, Tensor]]:
    """Yield what is no finite matrix: the keyword, words, and the tensor."""
    M = with_values(rng, 3, 2, spread(rng, 2)).to(dtype)
    for words, axes in (
        ("a vector", M[0]), ("a vector of one entry", M[0, :1]), ("a number without axes", M[0, 0]),
        ("three axes", M[None]), ("three axes", M[:, :, None]), ("three axes", torch.stack([M, M])),
        ("four axes", M[None, None]), ("a zero vector", torch.zeros(3, dtype=dtype)),
        ("three axes of zeros", torch.zeros(1, 3, 3, dtype=dtype)),
    ):  # fmt: skip
        yield "2-D", words, axes
    for value in (math.nan, math.inf, -math.inf):
        words = "NaN" if math.isnan(value) else "infinity"
        for place in range(6) if math.isnan(value) else (0, 1, 5):
            broken = M.flatten().clone()
            broken[place] = value
            yield "finite", words, broken.reshape(3, 2)
        yield "finite", f"nothing but {words}", torch.full((2, 3), value, dtype=dtype)
        yield "finite", words, torch.tensor([[0.0, value, 0.0]], dtype=dtype)
    yield "finite", "infinities of both signs", torch.tensor([[math.inf, 1.0], [-math.inf, 1.0]], dtype=dtype)


def invalid_arguments(rng: Rng) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Yield a keyword, a function, and arguments of which the keyword's alone is invalid."""
    M = with_values(rng, 3, 2, spread(rng, 2))
    for matrix in (M, M.T, M.float(), M[:1], M[:, :1], torch.zeros(3, 2), torch.zeros(2, 3)):
        most = min(matrix.shape)
        for r in (most + 1, most + 2, -1, -most, -100, np.int64(-1), np.int64(most + 1)):
            yield "rank", "low_rank_factors", (matrix, r)
            yield "rank", "truncation_error", (matrix, r)
            yield "rank", "truncation_error", (matrix, r, "spectral")
        yield "rank", "low_rank_factors", (matrix, 0)
        yield "rank", "low_rank_factors", (matrix, np.int64(0))
        for r in range(most + 1):
            yield "norm", "truncation_error", (matrix, r, "nuclear")
            yield "norm", "truncation_error", (matrix, r, "Frobenius")
    for norm in NORMS:
        yield "norm", "truncation_error", (M, 1, norm)
    for share in SHARES:
        for matrix in (M, M.float(), torch.zeros(2, 3)):
            yield "energy", "rank_for_energy", (matrix, share)


@problem.check(
    "bad", points=1, of="low_rank_factors", title="invalid input, in all four functions",
    concerns=["ranks", "shares", "norms", "NaN and infinities", "vectors and three axes"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def bad(rng: Rng) -> Iterator[AnyCase]:
    M = with_values(rng, 3, 2, spread(rng, 2))
    usual: dict[str, list[tuple[Any, ...]]] = {
        "low_rank_factors": [(1,), (2,)],
        "truncation_error": [(1,), (0,), (2,), (1, "spectral"), (0, "spectral"), (2, "spectral")],
        "rank_for_energy": [(0.5,), (1,)],
        "effective_rank": [()],
    }
    invalid = [
        (keyword, function, words, (part, *more))
        for function, ways in usual.items()
        for number, more in enumerate(ways)
        for position, (keyword, words, part) in enumerate(
            one for dtype in (torch.float64, torch.float32) for one in unfit(rng, dtype)
        )
        if number == 0 or position % len(ways) == number  # a part of them for each of the less usual arguments
    ]
    invalid += [
        (keyword, function, f"an invalid {keyword}", more) for keyword, function, more in invalid_arguments(rng)
    ]
    twins = {function: call(function, M, *ways[0]) for function, ways in usual.items()}
    for keyword, function, words, arguments in invalid:
        others = tuple(other for other in KEYWORDS if other != keyword)
        twin = twins.pop(function, None)
        asked = call(function, *arguments)
        yield Refusal(f"{function}: {words}", asked, keyword, twin, others, promise=f"bad_{function}")


@problem.personal(title="your matrix", next_step="The squares of the singular values are the eigenvalues of M.T @ M.")
def mine(rng: Rng) -> Question:
    a, b, c = (int(number) for number in rng.choice(np.arange(1, 9), size=3, replace=False))
    M = [[a, b], [b, a], [c, c]]
    words = (
        f"M = {M} has two singular values, and their squares are whole numbers. What is its effective rank, the sum of "
        "these squares over the largest?"
    )
    return Question(words, call("effective_rank", torch.tensor(M, dtype=torch.float64)))


# ---------------------------------------------------------------------------------------------------------- mistakes

BALANCE = "Put the square root of each into both factors."
PRODUCT = "U[:, :r] * root, root[:, None] * Vh[:r]"

problem.slip(
    "values_left_out", "low_rank_factors", {PRODUCT: "U[:, :r], Vh[:r]"},
    says="Your factors leave the singular values out.",
    next_step="Rebuild M from U, S and Vh with all singular values, and compare.",
)  # fmt: skip
problem.slip(
    "values_on_both", "low_rank_factors", {".sqrt()": ""},
    says="Both of your factors hold the whole singular values: the product has them squared.",
    next_step="Share each value out: its square root on each side.",
)  # fmt: skip
problem.slip(
    "root_on_one_side", "low_rank_factors", {PRODUCT: "U[:, :r] * root, Vh[:r]"},
    says="Only one of your factors holds the square root of the singular values.",
    next_step="The product needs the root twice.",
)  # fmt: skip
problem.slip(
    "unbalanced_b", "low_rank_factors", {PRODUCT: "U[:, :r] * S[:r], Vh[:r]"},
    says="Your product is right, and all singular values are in B.", next_step=BALANCE,
)  # fmt: skip
problem.slip(
    "unbalanced_a", "low_rank_factors", {PRODUCT: "U[:, :r], S[:r, None] * Vh[:r]"},
    says="Your product is right, and all singular values are in A.", next_step=BALANCE,
)  # fmt: skip
problem.slip(
    "smallest_values", "low_rank_factors", {"U[:, :r]": "U[:, -r:]", "S[:r]": "S[-r:]", "Vh[:r]": "Vh[-r:]"},
    says="Your approximation keeps the smallest singular values.", next_step="torch gives them in falling order.",
)  # fmt: skip
problem.slip(
    "one_value_too_few", "low_rank_factors",
    {"U[:, :r]": "U[:, : r - 1]", "S[:r]": "S[: r - 1]", "Vh[:r]": "Vh[: r - 1]"},
    says="Your approximation keeps one singular value too few.", next_step="A slice `[:r]` holds r of them.",
)  # fmt: skip
problem.slip(
    "columns_of_vh", "low_rank_factors", {"Vh[:r]": "Vh[:, :r].T"}, says="Your A is cut from columns of Vh.",
    next_step="Vh is V transposed: its rows are the right singular vectors.",
)  # fmt: skip
problem.slip(
    "rows_of_u", "low_rank_factors", {"U[:, :r]": "U[:r].T"}, says="Your B is cut from rows of U.",
    next_step="The columns of U are the left singular vectors.",
)  # fmt: skip
problem.slip(
    "first_columns", "low_rank_factors", {"matrix(M)": "matrix(M) * (torch.arange(M.shape[1]) < r)"},
    says="Your approximation keeps the first columns of M.",
    next_step="Rank r means any r directions: the SVD finds the best.",
)  # fmt: skip
problem.slip(
    "largest_entries", "low_rank_factors",
    {"matrix(M)": "matrix(M) * (M.abs() >= M.abs().flatten().sort(descending=True).values[r - 1])"},
    says="Your approximation keeps M's largest entries.", next_step="Few entries are sparse, not of low rank.",
)  # fmt: skip
problem.slip(
    "centred", "low_rank_factors", {"matrix(M)": "matrix(M) - M.mean(0)"},
    says="Your matrix is centred first, as in a principal component analysis.",
    next_step="A weight update has no mean to take away.",
)  # fmt: skip
problem.slip(
    "random_projection", "low_rank_factors",
    {"root = ": """Q, _ = torch.linalg.qr(torch.randn(M.shape[1], r, generator=torch.Generator().manual_seed(0)).to(M))
    U, S, Vh = torch.linalg.svd(M @ Q @ Q.T, full_matrices=False)
    root = """},
    says="Your approximation projects onto directions that don't depend on M.",
    next_step="Use M's own singular vectors.",
)  # fmt: skip
problem.slip(
    "rank_cut_in_silence", "low_rank_factors", {"not 1 <= r <= len(S)": "not 1 <= r"},
    says="A rank beyond the matrix is cut down in silence.",
    next_step="Refuse it by name: the caller believes in a rank that isn't there.",
)  # fmt: skip
problem.slip(
    "infinity_not_refused", "matrix", {"not bool(torch.isfinite(M).all())": "bool(torch.isnan(M).any())"},
    says="A NaN is refused, and an infinity isn't.", next_step="torch.isfinite is False for both.",
)  # fmt: skip
problem.slip(
    "nan_not_refused", "matrix", {"if not bool(torch.isfinite(M).all()):": "if False:"},
    says="A NaN isn't refused by name.", next_step="Ask torch.isfinite before you decompose.",
)  # fmt: skip
problem.slip(
    "axes_not_refused", "matrix", {"M.ndim != 2": "M.ndim < 2"},
    says="A tensor of three axes isn't refused by name.", next_step="A matrix has exactly two.",
)  # fmt: skip
problem.slip(
    "changes_m", "low_rank_factors", {"S[:r].sqrt()": "S[:r].sqrt()\n    M -= (U[:, :r] * S[:r]) @ Vh[:r]"},
    says="Your function changes the caller's M.", next_step="Work on a copy.",
)  # fmt: skip
problem.slip(
    "factors_in_float64", "low_rank_factors", {"matrix(M)": "matrix(M).double()"},
    says="At least one of your factors is float64, whatever M is.", next_step="Convert them to M's dtype at the end.",
)  # fmt: skip
problem.slip(
    "factors_in_float32", "low_rank_factors", {"matrix(M)": "matrix(M).float()"},
    says="Your factors are float32, whatever M is.", next_step="Convert them to M's dtype at the end.",
)  # fmt: skip
problem.slip(
    "root_of_negative", "low_rank_factors",
    {"U, S, Vh = torch.linalg.svd(matrix(M), full_matrices=False)": """squares, V = torch.linalg.eigh(matrix(M).T @ M)
    S, Vh = (part.flip(-1)[..., : min(M.shape)] for part in (squares, V))
    S, Vh = S.sqrt(), Vh.T
    U = M @ Vh.T / S"""},
    says="Your factors are NaN where a singular value is 0: by a division by zero, or by the root of a number that "
    "rounding made negative.",
    next_step="Try the zero matrix: a direction with the value 0 adds nothing to the product.",
)  # fmt: skip

DIAGONAL = "In the singular basis the rest is diagonal: write its entries down."

problem.slip(
    "error_squared", "truncation_error", {".sqrt()": ""}, says="Your Frobenius error is squared.",
    next_step="Take the root.",
)  # fmt: skip
problem.slip(
    "error_sum_of_values", "truncation_error", {"tail.square().sum().sqrt()": "tail.sum()"},
    says="Your Frobenius error adds singular values, as the nuclear norm does.",
    next_step="Add squares, then take the root.",
)  # fmt: skip
problem.slip(
    "spectral_of_everything", "truncation_error", {"S[r:]": 'S[r:] if norm == "fro" else S'},
    says="Your spectral error is M's own norm.", next_step=DIAGONAL,
)  # fmt: skip
problem.slip(
    "error_of_the_residual", "truncation_error",
    {"tail = S[r:]\n    if len(tail) == 0:\n        return 0.0":
     "tail = S if r == 0 else torch.linalg.svdvals(M - torch.matmul(*low_rank_factors(M, r))).double()"},
    says="Your error is the norm of M minus the approximation, in which large entries leave their rounding.",
    next_step="Take it from the singular values that are left out: at full rank there are none.",
)  # fmt: skip
problem.slip(
    "error_of_the_kept", "truncation_error", {"S[r:]": "S[:r]"},
    says="Your error is the norm of what is kept.", next_step=DIAGONAL,
)  # fmt: skip
problem.slip(
    "spectral_one_too_early", "truncation_error", {"S[r:]": 'S[r:] if norm == "fro" else S[max(0, r - 1) :]'},
    says="Your spectral error is the last kept singular value.", next_step="It's the first that is left out.",
)  # fmt: skip
problem.slip(
    "error_ignores_norm", "truncation_error", {' if norm == "fro" else tail[0]': ""},
    says="Your error is Frobenius's in both norms.", next_step=DIAGONAL,
)  # fmt: skip
problem.slip(
    "error_relative", "truncation_error", {"S[r:]": 'S[r:] / (S.norm() if norm == "fro" else S[0])'},
    says="Your error is divided by M's norm.", next_step="The absolute error is asked for.",
)  # fmt: skip
problem.slip(
    "error_difference_of_norms", "truncation_error", {"tail.square().sum().sqrt()": "S.norm() - S[:r].norm()"},
    says="Your Frobenius error is a difference of two norms; it is the norm of a difference.", next_step=DIAGONAL,
)  # fmt: skip

for name, edit, says, next_step in (
    ("full_rank_not_handled", {"if len(tail) == 0:": "if False:"}, "Your spectral error fails at full rank.",
        "Nothing is left out there: the error is 0, and there is no first value to return."),
    ("rank_zero_refused", {"not 0 <= r": "not 1 <= r"}, "Your error refuses rank 0.",
        "Rank 0 keeps nothing: the error is the norm of M."),
    ("norm_not_refused", {'norm not in ("fro", "spectral")': "False"}, "An unknown norm isn't refused.",
        "Accept the two words alone."),
):  # fmt: skip
    problem.slip(name, "truncation_error", edit, says=says, next_step=next_step)

FIRST = "int(enough.nonzero()[0])"

for name, was, now, says, next_step in (
    ("energy_tolerance_large", "else 1e-12", "else 1e-9", "Your tolerance for float64 is too large.", "It is 1e-12."),
    ("energy_tolerance_large_32", "1e-6 if", "1e-4 if", "Your tolerance for float32 is too large.", "It is 1e-6."),
    ("energy_tolerance_of_float64", "1e-6 if", "1e-12 if", "Your tolerance for float32 is that for float64.",
        "Float32 rounds at 1e-7: allow 1e-6 of the whole."),
    ("energy_nan_accepted", "not 0 < energy <= 1", "energy <= 0 or energy > 1", "A NaN is accepted as a share.",
        "Every comparison with NaN is False: write `not 0 < energy <= 1`."),
):  # fmt: skip
    problem.slip(name, "rank_for_energy", {was: now}, says=says, next_step=next_step)

problem.slip(
    "energy_counts_noise", "rank_for_energy", {FIRST: "1 + int((square.cumsum(0) / total < energy).sum())"},
    says="Your rank depends on rounding: a share that is reached up to 1e-16 counts as missed.",
    next_step="Allow for rounding: 1e-12 of the whole in float64.",
)  # fmt: skip
problem.slip(
    "energy_tolerance_absolute", "rank_for_energy", {"+ tolerance": "+ tolerance / total"},
    says="Your tolerance is an absolute number; it should be a share of the whole.",
    next_step="Divide the squares by their sum first, then allow for rounding.",
)  # fmt: skip
problem.slip(
    "energy_squares_in_float32", "rank_for_energy", {".double().square()": ".square().double()"},
    says="Your squares underflow or overflow in float32.", next_step="Convert the values to float64, then square them.",
)  # fmt: skip
problem.slip(
    "energy_of_values", "rank_for_energy", {".square()": ""},
    says="Your shares are of the singular values, not of their squares.",
    next_step="Energy is the squared Frobenius norm.",
)  # fmt: skip
problem.slip(
    "energy_rank_below", "rank_for_energy", {FIRST: f"{FIRST} - 1"},
    says="Your rank doesn't reach the share yet: it's one too small.", next_step="Put your rank into the sum.",
)  # fmt: skip
problem.slip(
    "energy_rank_above", "rank_for_energy", {FIRST: f"{FIRST} + 1"},
    says="Your rank is one more than is needed.", next_step="Is the share reached with one direction fewer?",
)  # fmt: skip
problem.slip(
    "energy_strictly_more", "rank_for_energy",
    {"<= 1 - energy + tolerance": "< 1 - energy - tolerance", FIRST: f"{FIRST} if enough.any() else len(square)"},
    says="Your rank asks for more than the share.", next_step="Reaching it is enough: at least, not more than.",
)  # fmt: skip
problem.slip(
    "energy_threshold_per_value", "rank_for_energy", {FIRST: "int((square >= (1 - energy) * square[0]).sum())"},
    says="Your rank counts values above a threshold.", next_step="Add up shares until the target is reached.",
)  # fmt: skip
problem.slip(
    "energy_of_zero", "rank_for_energy", {"return 0": "return 1"},
    says="Your function gives the zero matrix rank 1; it needs rank 0.",
    next_step="Handle the zero matrix first: its shares are 0 / 0.",
)  # fmt: skip

problem.slip(
    "effective_counts", "effective_rank", {"(S / S[0]).square()": "(S / S[0] > 1e-6)"},
    says="Your number is the ordinary rank.", next_step="The effective rank weighs directions by their size.",
)  # fmt: skip
problem.slip(
    "effective_of_values", "effective_rank", {".square()": ""},
    says="Your ratio is of singular values, not of their squares.", next_step="Both norms are squared.",
)  # fmt: skip
problem.slip(
    "effective_root", "effective_rank", {".sum()": ".sum().sqrt()"},
    says="Your ratio isn't squared.", next_step="Both norms are squared.",
)  # fmt: skip
problem.slip(
    "effective_entropy", "effective_rank", {"return float((S / S[0]).square().sum())": """p = S / S.sum()
    return float(torch.exp(-(p * p.log()).sum()))"""},
    says="Your number is the entropy-based effective rank.", next_step="Here it's the ratio of two squared norms.",
)  # fmt: skip

problem.slip(
    "effective_underflows", "effective_rank",
    {".double()": "", "(S / S[0]).square().sum()": "S.square().sum() / S[0].square()"},
    says="Your squares underflow or overflow in float32.", next_step="Divide before squaring, or use float64.",
)  # fmt: skip
problem.slip(
    "effective_of_zero", "effective_rank", {"if S[0] == 0:": "if False:"},
    says="Your effective rank of the zero matrix is NaN; it's 0.", next_step="Handle the zero matrix first.",
)  # fmt: skip
problem.slip(
    "effective_unchecked", "effective_rank", {"matrix(M)": "M"},
    says="Your effective rank checks its matrix in no way.", next_step="Check it as the other functions do.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "low_rank_factors: torch.linalg.svd(matrix(M), full_matrices=False) -> *":
        "only the first r vectors are used, and both forms agree on them",
    "low_rank_factors: False -> True": "only the first r vectors are used, and both forms agree on them",
    "rank_for_energy: 0 (#?) -> -1": "singular values have one axis: -1 is 0",
    "rank_for_energy: * <= 1 - energy + tolerance -> * < 1 - energy + tolerance":
        "rounded shares never meet the bound exactly",
    "rank_for_energy: 1 (#2) -> 2": "a second zero behind the first is never looked at",
})  # fmt: skip
