"""How the truncated SVD is judged: by products, norms and errors, since factors are free up to rotation and sign."""

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
    integer,
)  # fmt: skip

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


def tall_wide_square(rng: Rng) -> list[tuple[str, Tensor]]:
    return [
        ("a tall matrix", with_values(rng, 7, 4, spread(rng, 4))),
        ("a wide matrix", with_values(rng, 4, 6, spread(rng, 4))),
        ("a square matrix", with_values(rng, 5, 5, spread(rng, 5))),
    ]


# ------------------------------------------------------------------------------------------------------------ checks


def factors_of(got: Any) -> tuple[Tensor, Tensor] | None:
    """Return two matrices that can be multiplied, or None."""
    if not isinstance(got, tuple | list) or len(got) != 2 or not all(torch.is_tensor(part) for part in got):
        return None
    B, A = (part.detach().double() for part in got)
    return (B, A) if B.ndim == A.ndim == 2 and B.shape[1] == A.shape[0] else None


def same_product(expected: Any, got: Any) -> Difference | None:
    """Demand factors of the right shapes with the right product."""
    pair, right = factors_of(got), factors_of(expected)
    if pair is None or right is None:
        return Difference("two matrices that can be multiplied were expected")
    if pair[0].shape != right[0].shape or pair[1].shape != right[1].shape:
        return Difference("the factors' shapes differ: (p, r) and (r, q) were expected")
    return Close(rtol=1e-6, atol=1e-6)(right[0] @ right[1], pair[0] @ pair[1])


@problem.check(
    "fac", points=3, of="low_rank_factors", title="the best approximation", same=same_product,
    concerns=["tall, wide and square matrices", "repeated singular values", "float32", "transposed views"],
    next_step="Rebuild M from all of its singular values first; then keep fewer.",
)  # fmt: skip
def fac(rng: Rng) -> Iterator[AnyCase]:
    for words, M in tall_wide_square(rng):
        yield Case(words, call("low_rank_factors", M, int(rng.integers(2, 4))), pure=True)
    yield Case("a transposed view", call("low_rank_factors", with_values(rng, 5, 6, spread(rng, 5)).T, 2))
    repeated = with_values(rng, 5, 4, [3.0, 3.0, 1.0, 1.0])
    yield Case("repeated singular values, between two groups", call("low_rank_factors", repeated, 2))
    yield Case("every singular value", call("low_rank_factors", with_values(rng, 5, 4, spread(rng, 4)), 4))
    yield Case("a rank-one update in float32", call("low_rank_factors", with_values(rng, 6, 5, [2.5]).float(), 1))


def balanced(outcome: Value) -> Difference | None:
    """Hold the student's own factors to share one norm, whatever their product is."""
    pair = factors_of(outcome.value)
    if pair is None:
        return Difference("two matrices that can be multiplied were expected")
    of_B, of_A = (float(part.square().sum()) for part in pair)
    nuclear = float(torch.linalg.svdvals(pair[0] @ pair[1]).sum())
    if max(of_B, of_A) > 0 and abs(of_B - of_A) <= 1e-6 * of_B and abs(of_B - nuclear) <= 1e-6 * of_B:
        return None
    return Difference("the factors aren't balanced: each must hold the sum of the kept singular values")


@problem.check(
    "bal", points=1, of="low_rank_factors", title="balanced factors, by your own product",
    concerns=["both norms", "the nuclear norm"],
    next_step="Share each singular value out between the two factors.",
)  # fmt: skip
def bal(rng: Rng) -> Iterator[AnyCase]:
    for words, M in tall_wide_square(rng)[:2]:
        yield Relation(words, (call("low_rank_factors", M, 3),), balanced)


@problem.check(
    "err", points=2, of="truncation_error", title="the error, in closed form",
    concerns=["both norms", "rank 0 and full rank", "wide matrices"],
    next_step="Subtract the approximation from M in the singular basis: what stands on the diagonal?",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    for words, M in tall_wide_square(rng):
        for norm in ("fro", "spectral"):
            yield Case(f"{words}, {norm}", call("truncation_error", M, 2, norm))
    M = tall_wide_square(rng)[0][1]
    yield Case("rank 0", call("truncation_error", M, 0))
    yield Case("rank 0, spectral", call("truncation_error", M, 0, norm="spectral"))
    yield Case("full rank", call("truncation_error", M, 4, norm="spectral"))


@problem.check(
    "energy", points=2, of="rank_for_energy", title="rank for a share of the energy", same=integer,
    concerns=["a share exactly on a boundary", "the whole energy of a matrix of low rank", "zero", "float32"],
    next_step="Write down the cumulative share for three singular values, and the first that reaches the target.",
)  # fmt: skip
def energy(rng: Rng) -> Iterator[AnyCase]:
    values = [3.0, 2.0, 2.0, 1.0]  # squares 9, 4, 4, 1 of 18
    M = with_values(rng, 6, 5, values)
    yield Case("a share between two ranks", call("rank_for_energy", M, float(rng.uniform(0.55, 0.7))))
    yield Case("a share exactly on a boundary", call("rank_for_energy", M, 0.5))
    yield Case("a share just above a boundary", call("rank_for_energy", M, 0.501))
    yield Case("a share above a boundary by 1e-8", call("rank_for_energy", M, 0.5 + 1e-8))
    for share in (9 / 18, 13 / 18, 17 / 18):
        yield Case("a share exactly on a boundary, float32", call("rank_for_energy", M.float(), share))
    full = with_values(rng, 4, 4, spread(rng, 4))
    yield Case("the whole energy of a matrix of full rank", call("rank_for_energy", full, 1.0))
    low = with_values(rng, 7, 6, spread(rng, 3))
    yield Case("the whole energy of a matrix of rank three", call("rank_for_energy", low, 1.0))
    yield Case("the same in float32", call("rank_for_energy", low.float(), 1.0))
    yield Case("the zero matrix", call("rank_for_energy", torch.zeros(3, 4, dtype=torch.float64), 0.9))


@problem.check(
    "eff", points=1, of="effective_rank", title="the effective rank", same=Close(rtol=1e-6),
    concerns=["any matrix", "zero"],
    next_step="Put the identity into your formula: what must come out?",
)  # fmt: skip
def eff(rng: Rng) -> Iterator[AnyCase]:
    yield Case("any matrix", call("effective_rank", with_values(rng, 6, 4, spread(rng, 4))))
    yield Case("a wide matrix, scaled", call("effective_rank", 100 * with_values(rng, 3, 5, spread(rng, 3))))
    one = torch.diag(torch.tensor([float(rng.uniform(1, 5)), 0.0, 0.0], dtype=torch.float64))
    yield Case("a matrix of rank one", call("effective_rank", one))
    yield Case("the zero matrix", call("effective_rank", torch.zeros(4, 2, dtype=torch.float64)))


@problem.check(
    "bad", points=1, of="low_rank_factors", title="invalid input",
    concerns=["ranks", "shares", "norms", "NaN", "vectors"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def bad(rng: Rng) -> Iterator[AnyCase]:
    M = with_values(rng, 5, 4, spread(rng, 4))
    broken = M.clone()
    broken[int(rng.integers(0, 5)), 1] = math.nan
    yield Refusal("a rank of zero", call("low_rank_factors", M, 0), "rank")
    yield Refusal("a rank above both sides", call("low_rank_factors", M, 5), "rank")
    yield Refusal("a negative rank", call("truncation_error", M, -1), "rank")
    yield Refusal("an error beyond full rank", call("truncation_error", M, 5), "rank")
    yield Refusal("an unknown norm", call("truncation_error", M, 2, norm="nuclear"), "norm")
    yield Refusal("no energy", call("rank_for_energy", M, 0.0), "energy")
    yield Refusal("more than all energy", call("rank_for_energy", M, 1.01), "energy")
    yield Refusal("a NaN", call("low_rank_factors", broken, 2), "finite")
    yield Refusal("a NaN for the effective rank", call("effective_rank", broken), "finite")
    yield Refusal("a vector", call("low_rank_factors", M[0], 1), "2-D")


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

Factors = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
Energy = Callable[[Tensor, float], int]


def demand(M: Tensor) -> None:
    if M.ndim != 2:
        raise ValueError("2-D")
    if not bool(torch.isfinite(M).all()):
        raise ValueError("finite")


def demand_rank(M: Tensor, r: int, lowest: int) -> None:
    demand(M)
    if not lowest <= r <= min(M.shape):
        raise ValueError("rank")


def factor_mistake(name: str, formula: Factors, says: str, next_step: str) -> None:
    """Register wrong factors; the formula takes U, the singular values, Vh and r."""

    def function(M: Tensor, r: int) -> tuple[Tensor, Tensor]:
        demand_rank(M, r, 1)
        U, S, Vh = torch.linalg.svd(M, full_matrices=False)
        return formula(U, S, Vh, r)

    problem.mistake(name=name, replaces="low_rank_factors", says=says, next_step=next_step)(function)


REBUILD = "Rebuild M from U, S and Vh with all singular values, and compare."

factor_mistake(
    "values_left_out", lambda U, S, Vh, r: (U[:, :r], Vh[:r]), "Your factors leave the singular values out.", REBUILD,
)  # fmt: skip
factor_mistake(
    "values_on_both", lambda U, S, Vh, r: (U[:, :r] * S[:r], S[:r, None] * Vh[:r]),
    "Both of your factors hold the whole singular values: the product has them squared.",
    "Share each value out: its square root on each side.",
)  # fmt: skip
factor_mistake(
    "root_on_one_side", lambda U, S, Vh, r: (U[:, :r] * S[:r].sqrt(), Vh[:r]),
    "Only one of your factors holds the square root of the singular values.", "The product needs the root twice.",
)  # fmt: skip
factor_mistake(
    "unbalanced_b", lambda U, S, Vh, r: (U[:, :r] * S[:r], Vh[:r]),
    "Your product is right, and all singular values are in B.", "Put the square root of each into both factors.",
)  # fmt: skip
factor_mistake(
    "unbalanced_a", lambda U, S, Vh, r: (U[:, :r], S[:r, None] * Vh[:r]),
    "Your product is right, and all singular values are in A.", "Put the square root of each into both factors.",
)  # fmt: skip
factor_mistake(
    "smallest_values", lambda U, S, Vh, r: (U[:, -r:] * S[-r:].sqrt(), S[-r:, None].sqrt() * Vh[-r:]),
    "Your approximation keeps the smallest singular values.", "torch gives them in falling order.",
)  # fmt: skip
factor_mistake(
    "one_value_too_few", lambda U, S, Vh, r: (
        U[:, :r] * S[:r].sqrt() * (torch.arange(r) < max(1, r - 1)), S[:r, None].sqrt() * Vh[:r]
    ),
    "Your approximation keeps one singular value too few.", "A slice `[:r]` holds r of them.",
)  # fmt: skip
factor_mistake(
    "columns_of_vh", lambda U, S, Vh, r: (U[:, :r] * S[:r].sqrt(), S[:r, None].sqrt() * columns(Vh, r)),
    "Your A is cut from columns of Vh.", "Vh is V transposed: its rows are the right singular vectors.",
)  # fmt: skip
factor_mistake(
    "rows_of_u", lambda U, S, Vh, r: (rows(U, r) * S[:r].sqrt(), S[:r, None].sqrt() * Vh[:r]),
    "Your B is cut from rows of U.", "The columns of U are the left singular vectors.",
)  # fmt: skip


def columns(Vh: Tensor, r: int) -> Tensor:
    """Return the first columns of a square part of Vh as if they were rows."""
    side = Vh.shape[0]
    return torch.cat([Vh[:, :side].T, Vh[:, side:]], dim=1)[:r]


def rows(U: Tensor, r: int) -> Tensor:
    side = U.shape[1]
    return torch.cat([U[:side].T, U[side:]], dim=0)[:, :r]


def whole_factor_mistake(name: str, make: Callable[[Tensor, int], Tensor], says: str, next_step: str) -> None:
    """Register factors of another approximation of M, balanced."""

    def function(M: Tensor, r: int) -> tuple[Tensor, Tensor]:
        demand_rank(M, r, 1)
        U, S, Vh = torch.linalg.svd(make(M, r), full_matrices=False)
        return U[:, :r] * S[:r].sqrt(), S[:r, None].sqrt() * Vh[:r]

    problem.mistake(name=name, replaces="low_rank_factors", says=says, next_step=next_step)(function)


def largest_entries(M: Tensor, r: int) -> Tensor:
    least = M.abs().flatten().sort(descending=True).values[r - 1]
    return M * (M.abs() >= least)


whole_factor_mistake(
    "first_columns", lambda M, r: M * (torch.arange(M.shape[1]) < r),
    "Your approximation keeps the first columns of M.",
    "Rank r means any r directions: the SVD finds the best.",
)  # fmt: skip
whole_factor_mistake(
    "largest_entries", largest_entries, "Your approximation keeps M's largest entries.",
    "Few entries are sparse, not of low rank.",
)  # fmt: skip
whole_factor_mistake(
    "centred", lambda M, r: M - M.mean(0), "Your matrix is centred first, as in a principal component analysis.",
    "A weight update has no mean to take away.",
)  # fmt: skip
whole_factor_mistake(
    "random_projection", lambda M, r: M @ project(M.shape[1], r),
    "Your approximation projects onto directions that don't depend on M.", "Use M's own singular vectors.",
)  # fmt: skip


def project(side: int, r: int) -> Tensor:
    Q, _ = torch.linalg.qr(torch.sin(torch.arange(1.0, 1 + side * r, dtype=torch.float64)).reshape(side, r))
    return Q @ Q.T


@problem.mistake(
    replaces="low_rank_factors",
    says="A rank beyond the matrix is cut down in silence.",
    next_step="Refuse it by name: the caller believes in a rank that isn't there.",
)
def rank_cut_in_silence(M: Tensor, r: int) -> tuple[Tensor, Tensor]:
    demand(M)
    if r < 1:
        raise ValueError("rank")
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    return U[:, :r] * S[:r].sqrt(), S[:r, None].sqrt() * Vh[:r]


@problem.mistake(
    replaces="low_rank_factors",
    says="A NaN isn't refused by name.",
    next_step="Ask torch.isfinite before you decompose.",
)
def nan_not_refused(M: Tensor, r: int) -> tuple[Tensor, Tensor]:
    demand_rank(M.nan_to_num(), r, 1)
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    return U[:, :r] * S[:r].sqrt(), S[:r, None].sqrt() * Vh[:r]


def error_mistake(name: str, formula: Callable[[Tensor, int, str], Tensor | float], says: str, next_step: str) -> None:
    """Register a wrong error; the formula takes the singular values, r and the norm."""

    def function(M: Tensor, r: int, norm: str = "fro") -> float:
        demand_rank(M, r, 0)
        if norm not in ("fro", "spectral"):
            raise ValueError("norm")
        return float(formula(torch.linalg.svdvals(M), r, norm))

    problem.mistake(name=name, replaces="truncation_error", says=says, next_step=next_step)(function)


def tail_norm(S: Tensor, r: int, norm: str) -> Tensor:
    tail = torch.cat([S[r:], S.new_zeros(1)])
    return tail.square().sum().sqrt() if norm == "fro" else tail[0]


DIAGONAL = "In the singular basis the rest is diagonal: write its entries down."

error_mistake(
    "error_squared", lambda S, r, norm: tail_norm(S, r, norm) ** 2, "Your error is squared.", "Take the root.",
)  # fmt: skip
error_mistake(
    "error_sum_of_values", lambda S, r, norm: S[r:].sum() if norm == "fro" else tail_norm(S, r, norm),
    "Your Frobenius error adds singular values, as the nuclear norm does.", "Add squares, then take the root.",
)  # fmt: skip
error_mistake(
    "spectral_of_everything", lambda S, r, norm: S[0] if norm == "spectral" else tail_norm(S, r, norm),
    "Your spectral error is M's own norm.", DIAGONAL,
)  # fmt: skip
error_mistake(
    "error_of_the_kept", lambda S, r, norm: S[:r].square().sum().sqrt() if norm == "fro" else S[0],
    "Your error is the norm of what is kept.", DIAGONAL,
)  # fmt: skip
error_mistake(
    "spectral_one_too_early", lambda S, r, norm: S[max(0, r - 1)] if norm == "spectral" else tail_norm(S, r, norm),
    "Your spectral error is the last kept singular value.", "It's the first that is left out.",
)  # fmt: skip
error_mistake(
    "error_ignores_norm", lambda S, r, norm: tail_norm(S, r, "fro"),
    "Your error is Frobenius's in both norms.", DIAGONAL,
)  # fmt: skip
error_mistake(
    "error_relative", lambda S, r, norm: tail_norm(S, r, norm) / tail_norm(S, 0, norm),
    "Your error is divided by M's norm.", "The absolute error is asked for.",
)  # fmt: skip
error_mistake(
    "error_difference_of_norms", lambda S, r, norm: (
        S.square().sum().sqrt() - S[:r].square().sum().sqrt() if norm == "fro" else tail_norm(S, r, norm)
    ),
    "Your error is a difference of two norms; it is the norm of a difference.", DIAGONAL,
)  # fmt: skip


def energy_mistake(name: str, formula: Energy, says: str, next_step: str) -> None:
    """Register a wrong rank for a share; the formula takes the singular values and the share."""

    def function(M: Tensor, energy: float) -> int:
        demand(M)
        if not 0 < energy <= 1:
            raise ValueError("energy")
        S = torch.linalg.svdvals(M).double()
        if not bool(S.any()):
            return 0
        return formula(S, energy)

    problem.mistake(name=name, replaces="rank_for_energy", says=says, next_step=next_step)(function)


def first_reached(weights: Tensor, energy: float, slack: float = 1e-6) -> int:
    share = weights.cumsum(0) / weights.sum()
    return 1 + int((share < energy - slack).sum())


energy_mistake(
    "energy_counts_noise",
    lambda S, e: 1 + int(((S**2).cumsum(0) / (S**2).sum() < e).sum()),
    "Your rank depends on rounding: a share that is reached up to 1e-16 counts as missed.",
    "Allow for rounding: 1e-12 of the whole in float64.",
)  # fmt: skip
energy_mistake(
    "energy_of_values", lambda S, e: first_reached(S, e),
    "Your shares are of the singular values, not of their squares.", "Energy is the squared Frobenius norm.",
)  # fmt: skip
energy_mistake(
    "energy_rank_below", lambda S, e: max(0, first_reached(S**2, e) - 1),
    "Your rank doesn't reach the share yet: it's one too small.", "Put your rank into the sum.",
)  # fmt: skip
energy_mistake(
    "energy_rank_above", lambda S, e: first_reached(S**2, e) + 1,
    "Your rank is one more than is needed.", "Is the share reached with one direction fewer?",
)  # fmt: skip
energy_mistake(
    "energy_strictly_more", lambda S, e: min(len(S), 1 + int(((S**2).cumsum(0) / (S**2).sum() <= e + 1e-12).sum())),
    "Your rank asks for more than the share.", "Reaching it is enough: at least, not more than.",
)  # fmt: skip
energy_mistake(
    "energy_threshold_per_value", lambda S, e: int(((1 - e) * S[0] ** 2 <= S**2).sum()),
    "Your rank counts values above a threshold.", "Add up shares until the target is reached.",
)  # fmt: skip


@problem.mistake(
    replaces="rank_for_energy",
    says="The zero matrix needs rank 0, and your function divides by its energy.",
    next_step="Handle the zero matrix first.",
)
def energy_of_zero(M: Tensor, energy: float) -> int:
    demand(M)
    if not 0 < energy <= 1:
        raise ValueError("energy")
    S = torch.linalg.svdvals(M).double() ** 2
    return first_reached(S, energy) if bool(S.any()) else 1


def effective_mistake(name: str, formula: Callable[[Tensor], Tensor | float], says: str, next_step: str) -> None:
    def function(M: Tensor) -> float:
        demand(M)
        S = torch.linalg.svdvals(M).double()
        return float(formula(S)) if bool(S.any()) else 0.0

    problem.mistake(name=name, replaces="effective_rank", says=says, next_step=next_step)(function)


effective_mistake(
    "effective_counts", lambda S: float((1e-6 * S[0] < S).sum()), "Your number is the ordinary rank.",
    "The effective rank weighs directions by their size.",
)  # fmt: skip
effective_mistake(
    "effective_of_values", lambda S: S.sum() / S[0], "Your ratio is of singular values, not of their squares.",
    "Both norms are squared.",
)  # fmt: skip
effective_mistake(
    "effective_root", lambda S: (S.square().sum()).sqrt() / S[0],
    "Your ratio isn't squared.", "Both norms are squared.",
)  # fmt: skip
effective_mistake(
    "effective_entropy", lambda S: torch.exp(-((S / S.sum()) * (S / S.sum()).log()).sum()),
    "Your number is the entropy-based effective rank.", "Here it's the ratio of two squared norms.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "low_rank_factors: torch.linalg.svd(matrix(M), full_matrices=False) -> *":
        "only the first r vectors are used, and both forms agree on them",
    "low_rank_factors: False -> True": "only the first r vectors are used, and both forms agree on them",
    "rank_for_energy: 1e-?? -> 2e-??":
        "rounding moves the share by far less than either tolerance, and no contract divides them",
    "rank_for_energy: 0 (#?) -> -1": "singular values have one axis: -1 is 0",
    "rank_for_energy: * <= 1 - energy + tolerance -> * < 1 - energy + tolerance":
        "rounded shares never meet the bound exactly",
    "rank_for_energy: 1 (#2) -> 2": "a second zero behind the first is never looked at",
})  # fmt: skip
