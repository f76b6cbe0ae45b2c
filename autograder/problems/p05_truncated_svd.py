"""How the truncated SVD is judged: by products, norms and errors, since factors are free up to rotation and sign."""

import math
from collections.abc import Iterator
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
    "nan_not_refused", "matrix", {"if not bool(torch.isfinite(M).all()):": "if False:"},
    says="A NaN isn't refused by name.", next_step="Ask torch.isfinite before you decompose.",
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

FIRST = "int(enough.nonzero()[0])"

problem.slip(
    "energy_counts_noise", "rank_for_energy", {FIRST: "1 + int((square.cumsum(0) / total < energy).sum())"},
    says="Your rank depends on rounding: a share that is reached up to 1e-16 counts as missed.",
    next_step="Allow for rounding: 1e-12 of the whole in float64.",
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
