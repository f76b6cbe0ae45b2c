"""The exercises of part 5: LoRA's algebra."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftmath.exercises.exercise import Exercise, Mistake

Shape = tuple[int, int]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sum_rank_bound(shapes: Sequence[Shape], ranks: Sequence[int]) -> int:
    """Return the largest rank that the sum of K adapters on one weight can have.

    The k-th adapter is B_k A_k with rank `ranks[k]`; all `shapes` are the weight's (d_out, d_in).

    >>> sum_rank_bound([(8, 6), (8, 6)], [2, 3])
    5
    """
    most = sum(ranks)  # blank
    return min(most, *(min(shape) for shape in shapes))  # blank


def breakeven(d_out: int, d_in: int) -> int:
    """Return the largest rank whose two factors hold strictly fewer numbers than the full (d_out, d_in) matrix.

    It is 0 if there is none.

    >>> breakeven(3, 6)
    1
    """
    return (d_out * d_in - 1) // (d_out + d_in)


def equivalent_alpha(alpha: float, r_old: int, r_new: int) -> float:
    """Return the alpha that makes the first SGD step as large at rank r_new as `alpha` does at r_old.

    The scale is s = alpha / r, and that step grows as s^2 r.

    >>> equivalent_alpha(16.0, 8, 8)
    16.0
    """
    return alpha * math.sqrt(r_new / r_old)


def surviving_fraction(W: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    """Return which share of the entries of W, stored in dtype, changes when delta is merged and rounded once.

    W and delta are float32 tensors of one shape; the sum is taken in float32.

    >>> surviving_fraction(torch.tensor([0.02, 0.02]), torch.tensor([5e-5, 7e-5]), torch.bfloat16)
    0.5
    """
    stored = W.to(dtype)
    merged = (stored.float() + delta).to(dtype)
    return float((merged != stored).double().mean())


def uniform_rank(shapes: Mapping[str, Shape], targets: Sequence[str], layers: int, budget: int) -> int:
    """Return the largest rank that all targets can have in every layer within a budget of parameters (0 if none).

    `shapes` gives each target's (d_out, d_in).

    >>> uniform_rank({"q": (8, 8), "k": (2, 8)}, ["q", "k"], layers=2, budget=110)
    2
    """
    return budget // (layers * sum(sum(shapes[target]) for target in targets))


def tail_rank(sigma: Tensor, d_out: int, d_in: int, share: float) -> tuple[int, int]:
    """Return the least rank that keeps `share` of the energy of an update, and how many numbers its factors hold.

    `sigma` (min(d_out, d_in),) are the update's singular values, descending; the energy is the sum of their squares.

    >>> tail_rank(torch.tensor([4.0, 2.0, 1.0]), 5, 3, share=0.9)
    (2, 16)
    """
    energy = sigma.square().cumsum(0)
    rank = int((energy < share * energy[-1] - 1e-12).sum()) + 1
    return rank, rank * (d_out + d_in)


def merged_error(W: Tensor, A: Tensor, B: Tensor, alpha: float, x: Tensor, dtype: torch.dtype) -> float:
    """Return max |W_merged x - (W x + s B (A x))| where W_merged = W + s B A is rounded to dtype, computed in float32.

    s = alpha / r with r from A (r, d_in).

    >>> one = torch.ones(1, 1)
    >>> merged_error(one, one, torch.zeros(1, 1), 1.0, torch.ones(1), torch.bfloat16)
    0.0
    """
    s = alpha / A.shape[0]
    merged = (W + s * B @ A).to(dtype).float()
    return float((merged @ x - (W @ x + s * (B @ (A @ x)))).abs().max())


# ------------------------------------------------------------------------------------------ what people write instead


def largest_rank(shapes: Sequence[Shape], ranks: Sequence[int]) -> int:
    return max(ranks)


def unbounded_sum(shapes: Sequence[Shape], ranks: Sequence[int]) -> int:
    return sum(ranks)


def product_of_ranks(shapes: Sequence[Shape], ranks: Sequence[int]) -> int:
    return math.prod(ranks)


def not_strict(d_out: int, d_in: int) -> int:
    return d_out * d_in // (d_out + d_in)


def square_only(d_out: int, d_in: int) -> int:
    return (d_in - 1) // 2


def same_ratio(alpha: float, r_old: int, r_new: int) -> float:
    return alpha * r_new / r_old


def inverted(alpha: float, r_old: int, r_new: int) -> float:
    return alpha * math.sqrt(r_old / r_new)


def unchanged_alpha(alpha: float, r_old: int, r_new: int) -> float:
    return alpha


def delta_rounded_alone(W: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    return float((delta.to(dtype) != 0).double().mean())


def in_float32(W: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    return float((W + delta != W).double().mean())


def lost_fraction(W: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    return 1 - surviving_fraction(W, delta, dtype)


def one_layer(shapes: Mapping[str, Shape], targets: Sequence[str], layers: int, budget: int) -> int:
    return uniform_rank(shapes, targets, 1, budget)


def rounded_up(shapes: Mapping[str, Shape], targets: Sequence[str], layers: int, budget: int) -> int:
    return -(-budget // (layers * sum(sum(shapes[target]) for target in targets)))


def all_targets(shapes: Mapping[str, Shape], targets: Sequence[str], layers: int, budget: int) -> int:
    return uniform_rank(shapes, list(shapes), layers, budget)


def energy_of_sigma(sigma: Tensor, d_out: int, d_in: int, share: float) -> tuple[int, int]:
    return tail_rank(sigma.sqrt(), d_out, d_in, share)


def full_size(sigma: Tensor, d_out: int, d_in: int, share: float) -> tuple[int, int]:
    rank, _ = tail_rank(sigma, d_out, d_in, share)
    return rank, rank * d_out * d_in


def one_rank_more(sigma: Tensor, d_out: int, d_in: int, share: float) -> tuple[int, int]:
    rank, _ = tail_rank(sigma, d_out, d_in, share)
    return rank + 1, (rank + 1) * (d_out + d_in)


def update_rounded_first(W: Tensor, A: Tensor, B: Tensor, alpha: float, x: Tensor, dtype: torch.dtype) -> float:
    s = alpha / A.shape[0]
    merged = W.to(dtype) + (s * B @ A).to(dtype)
    return float((merged.float() @ x - (W @ x + s * (B @ (A @ x)))).abs().max())


def scale_forgotten(W: Tensor, A: Tensor, B: Tensor, alpha: float, x: Tensor, dtype: torch.dtype) -> float:
    merged = (W + B @ A).to(dtype).float()
    return float((merged @ x - (W @ x + alpha / A.shape[0] * (B @ (A @ x)))).abs().max())


LLAMA_8B = {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096), "gate": (14336, 4096),
            "up": (14336, 4096), "down": (4096, 14336)}  # fmt: skip
FLOATS = [drawn(seed, *shape).float() for seed, shape in ((0, (6, 5)), (1, (2, 5)), (2, (6, 2)), (3, (5,)))]

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501, ISC004
EXERCISES = [
    Exercise(
        "5.1", "The rank of a sum", sum_rank_bound,
        cases=[([(8, 6)] * 2, [2, 3]), ([(8, 6)] * 3, [4, 4, 4]), ([(5, 9)], [2]), ([(4096, 1024)] * 4, [8, 8, 16, 4])],
        hints=["Where do the columns of B_1 A_1 + B_2 A_2 lie?", "In the span of B_1's and B_2's columns together.",
               "No matrix has a rank above its smaller side."],
        mistakes=[
            Mistake(largest_rank, "That is the largest single rank. Two adapters of rank 2 can point in different directions."),
            Mistake(unbounded_sum, "Ranks add up, but a (8, 6) matrix has no rank above 6."),
            Mistake(product_of_ranks, "Ranks multiply for Kronecker products; in a sum they add."),
        ],
        minutes=4, difficulty=2,
    ),
    Exercise(
        "5.2", "Break-even rank", breakeven,
        cases=[(4096, 4096), (1024, 4096), (11008, 4096), (3, 6), (6, 3), (1, 1), (2, 2), (12, 4)],
        hints=["Factors of rank r hold r (d_out + d_in) numbers.", "Strictly fewer: what happens where d_out d_in is a "
               "multiple of d_out + d_in?", "Take one off the product before the division without remainder."],
        mistakes=[
            Mistake(not_strict, "At an exact multiple the factors hold as many numbers as the matrix, and that isn't cheaper."),
            Mistake(square_only, "That holds for a square matrix. What is it for a (1024, 4096) one?"),
        ],
        minutes=4, difficulty=2,
    ),
    Exercise(
        "5.3", "The same first step at another rank", equivalent_alpha,
        cases=[(16.0, 8, 64), (16.0, 64, 8), (8.0, 4, 4), (32.0, 1, 256)],
        hints=["Write s^2 r with s = alpha / r.", "It is alpha^2 / r.", "Keep alpha^2 / r fixed and solve for alpha."],
        mistakes=[
            Mistake(same_ratio, "That keeps s = alpha / r, so that the step still grows with r. Which power of s counts?"),
            Mistake(inverted, "The rank went up and alpha down. With s = alpha / r, a fixed alpha already shrinks the step."),
            Mistake(unchanged_alpha, "A fixed alpha is the rank sweep that concludes that rank doesn't matter."),
        ],
        minutes=6, difficulty=3,
    ),
    Exercise(
        "5.4", "What survives a merge", surviving_fraction,
        cases=[(torch.tensor([0.02, 0.02]), torch.tensor([5e-5, 7e-5]), torch.bfloat16),
               (0.02 * drawn(5, 400).float(), 5e-5 * drawn(6, 400).float(), torch.bfloat16),
               (0.02 * drawn(7, 400).float(), 2e-6 * drawn(8, 400).float(), torch.float16),
               (torch.zeros(3), torch.tensor([1e-9, 0.0, 1.0]), torch.bfloat16)],
        hints=["Compare two tensors of the storage type: before and after.", "The sum is taken in float32: widen the "
               "stored weight first.", "Round the sum once, at the end."],
        mistakes=[
            Mistake(delta_rounded_alone, "Alone, delta keeps its own exponent and survives. It's lost when it joins W."),
            Mistake(in_float32, "In float32 nearly everything survives. The weight is stored in a shorter type."),
            Mistake(lost_fraction, "That is the share that is lost."),
        ],
        minutes=6, difficulty=3,
    ),
    Exercise(
        "5.5", "One rank within a budget", uniform_rank,
        cases=[(LLAMA_8B, list(LLAMA_8B), 32, 41_943_040), (LLAMA_8B, ["q", "v"], 32, 5_000_000),
               (LLAMA_8B, ["q", "v"], 32, 100), (LLAMA_8B, ["k", "down"], 32, 18_874_368)],
        hints=["What does rank 1 cost in one layer?", "d_out + d_in for each target, summed.", "How often does that, "
               "times the layers, go into the budget?"],
        mistakes=[
            Mistake(one_layer, "That spends the whole budget on one layer; there are `layers` of them."),
            Mistake(rounded_up, "Rounded up, it no longer fits the budget."),
            Mistake(all_targets, "Only the targets pay, not every matrix that `shapes` knows."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "5.A", "Cheapest rank for a share of the energy", tail_rank,
        cases=[(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64), 5, 3, 0.9),
               (torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64), 3, 3, 16 / 21),
               (torch.linspace(8, 1, 8, dtype=torch.float64), 8, 40, 0.99),
               (torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64), 3, 7, 1.0)],
        hints=["Energy is the sum of squared singular values.", "Count the ranks whose energy is still below the share, "
               "and add one.", "Factors of rank r hold r (d_out + d_in) numbers."],
        mistakes=[
            Mistake(energy_of_sigma, "Energy is the sum of sigma squared; with sigma itself, ranks come out too large."),
            Mistake(full_size, "The factors are (d_out, r) and (r, d_in): r (d_out + d_in) numbers."),
            Mistake(one_rank_more, "One rank too many: the first one that reaches the share is enough."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "5.B", "How much a merge moves an output", merged_error,
        cases=[(*FLOATS[:3], 6.5, FLOATS[3], torch.bfloat16), (*FLOATS[:3], 1.0, FLOATS[3], torch.float16),
               (*FLOATS[:3], 4.0, FLOATS[3], torch.float32)],
        hints=["s is alpha over A's number of rows.", "Round W + s B A once, then widen it to multiply.", "The other "
               "side is never rounded: W x plus s times B (A x)."],
        mistakes=[
            Mistake(update_rounded_first, "Rounded twice: W and the update each, then their sum. Add in float32 first."),
            Mistake(scale_forgotten, "The merged weight lacks s = alpha / r."),
        ],
        minutes=8, difficulty=4, tolerance=1e-4,
    ),
]  # fmt: skip
