"""The exercises of part 6: quantized and memory-aware tuning."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ftmath.exercises.exercise import Exercise, Mistake

Shape = tuple[int, int]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bits_per_weight(n: int, double: bool = False, n2: int = 256) -> float:
    """Return what a 4-bit weight takes: its code, and its share of the constant of its block of n weights.

    A constant has 32 bits. With `double` it has 8, and n2 of them share one constant of 32 bits.

    >>> bits_per_weight(64)
    4.5
    """
    constants = 8 / n + 32 / (n * n2) if double else 32 / n  # blank
    return 4 + constants


def peft_bytes(P_base: int, base_bytes: float, P_train: int, per_train: int = 16) -> int:
    """Return the bytes that stay in memory, rounded up: P_base frozen numbers, and P_train trained ones beside them.

    A frozen number takes `base_bytes` (0.516 for NF4), a trained one `per_train`: weight, gradient and optimizer.

    >>> peft_bytes(1000, 0.5, 10)
    660
    """
    return math.ceil(base_bytes * P_base + per_train * P_train)


def block_activation_bytes(s: int, b: int, h: int, a: int, flash: bool = False) -> int:
    """Return what one 16-bit transformer block keeps for its backward pass: s b h (34 + 5 a s / h) bytes.

    s tokens in each of b sequences, width h, a heads. With `flash` no score of attention is kept.

    >>> block_activation_bytes(4, 1, 8, 2)
    1248
    """
    return s * b * (34 * h + (0 if flash else 5 * a * s))


def best_segments(L: int) -> tuple[int, int]:
    """Return the number k of checkpointed segments that keeps least of L equal layers, and how many units that are.

    k inputs are kept, and all layers of one segment, of which the longest counts. Of equally good k, the smallest.

    >>> best_segments(9)
    (3, 6)
    """
    units = {k: k + math.ceil(L / k) for k in range(1, L + 1)}
    k = min(units, key=lambda k: (units[k], k))
    return k, units[k]


def largest_rank(budget_gib: float, shapes: Sequence[Shape], L: int, per_param: int = 16) -> int:
    """Return the largest rank that adapters on all `shapes` (d_out, d_in), in each of L layers, can have in a budget.

    The budget is in GiB, each number of an adapter takes `per_param` bytes. No rank exceeds a matrix's shorter side.

    >>> largest_rank(1 / 1024, [(8, 8), (8, 24)], L=4)
    8
    """
    bytes_per_rank = per_param * L * sum(d_out + d_in for d_out, d_in in shapes)
    return min(int(budget_gib * 2**30 // bytes_per_rank), *(min(shape) for shape in shapes))


def cheapest_segments(L: int, input_bytes: int, block_bytes: int) -> tuple[int, int]:
    """Return the number k of segments of L blocks that keeps the fewest bytes at the worst moment, and those bytes.

    Each segment's input is kept; while one segment is computed again, all of its blocks are (the longest counts). Of
    equally good k, the smallest.

    >>> cheapest_segments(4, 1, 10)
    (4, 14)
    """
    kept = {k: k * input_bytes + math.ceil(L / k) * block_bytes for k in range(1, L + 1)}
    k = min(kept, key=lambda k: (kept[k], k))
    return k, kept[k]


def repaired_error(W: Tensor, levels: Tensor, r: int) -> float:
    """Return |W - (W_hat + X)| / |W| in the Frobenius norm: W_hat quantised by rows, X the best repair of rank r.

    Each row of W (d_out, d_in) is a block, with its largest magnitude as the constant; a weight becomes the constant
    times the nearest of the `levels`. At r = 0 nothing is repaired.

    >>> two = torch.tensor([[1.0, 0.75], [0.0, -2.0]])
    >>> round(repaired_error(two, torch.tensor([-1.0, 0.0, 1.0]), 0), 4)
    0.106
    """
    constants = W.abs().amax(1, keepdim=True)
    nearest = (W[:, :, None] / constants[:, :, None] - levels).abs().argmin(2)
    sigma = torch.linalg.svdvals(W - constants * levels[nearest])
    return float(sigma[r:].square().sum().sqrt() / torch.linalg.norm(W))


# ------------------------------------------------------------------------------------------ what people write instead


def second_constant_per_block(n: int, double: bool = False, n2: int = 256) -> float:
    return 4 + (8 / n + 32 / n2 if double else 32 / n)


def second_constant_forgotten(n: int, double: bool = False, n2: int = 256) -> float:
    return 4 + (8 / n if double else 32 / n)


def in_bytes(n: int, double: bool = False, n2: int = 256) -> float:
    return bits_per_weight(n, double, n2) / 8


def all_at_16(P_base: int, base_bytes: float, P_train: int, per_train: int = 16) -> int:
    return per_train * (P_base + P_train)


def base_left_out(P_base: int, base_bytes: float, P_train: int, per_train: int = 16) -> int:
    return per_train * P_train


def trained_among_the_base(P_base: int, base_bytes: float, P_train: int, per_train: int = 16) -> int:
    return math.ceil(base_bytes * (P_base - P_train) + per_train * P_train)


def not_divided(s: int, b: int, h: int, a: int, flash: bool = False) -> int:
    return s * b * h * (34 + (0 if flash else 5 * a * s))


def in_32_bits(s: int, b: int, h: int, a: int, flash: bool = False) -> int:
    return 2 * block_activation_bytes(s, b, h, a, flash)


def scores_always(s: int, b: int, h: int, a: int, flash: bool = False) -> int:
    return block_activation_bytes(s, b, h, a, False)


def every_layer(L: int) -> tuple[int, int]:
    return L, L + 1


def rounded_down(L: int) -> tuple[int, int]:
    units = {k: k + L // k for k in range(1, L + 1)}
    k = min(units, key=lambda k: (units[k], k))
    return k, units[k]


def nearest_root(L: int) -> tuple[int, int]:
    k = max(1, round(math.sqrt(L)))
    return k, k + math.ceil(L / k)


def in_gb(budget_gib: float, shapes: Sequence[Shape], L: int, per_param: int = 16) -> int:
    return largest_rank(budget_gib * 1e9 / 2**30, shapes, L, per_param)


def by_the_file(budget_gib: float, shapes: Sequence[Shape], L: int, per_param: int = 16) -> int:
    return largest_rank(budget_gib, shapes, L, 2)


def without_bound(budget_gib: float, shapes: Sequence[Shape], L: int, per_param: int = 16) -> int:
    return int(budget_gib * 2**30 // (per_param * L * sum(sum(shape) for shape in shapes)))


def root_rule(L: int, input_bytes: int, block_bytes: int) -> tuple[int, int]:
    k, _ = best_segments(L)
    return k, k * input_bytes + math.ceil(L / k) * block_bytes


def inputs_only(L: int, input_bytes: int, block_bytes: int) -> tuple[int, int]:
    k, _ = cheapest_segments(L, input_bytes, block_bytes)
    return k, k * input_bytes


def parts_of_a_block(L: int, input_bytes: int, block_bytes: int) -> tuple[int, int]:
    k, _ = cheapest_segments(L, input_bytes, block_bytes)
    return k, k * input_bytes + L * block_bytes // k


def energy_left(W: Tensor, levels: Tensor, r: int) -> float:
    return repaired_error(W, levels, r) ** 2


def one_constant(W: Tensor, levels: Tensor, r: int) -> float:
    constant = W.abs().max()
    nearest = (W[:, :, None] / constant - levels).abs().argmin(2)
    sigma = torch.linalg.svdvals(W - constant * levels[nearest])
    return float(sigma[r:].square().sum().sqrt() / torch.linalg.norm(W))


def repaired_weight(W: Tensor, levels: Tensor, r: int) -> float:
    sigma = torch.linalg.svdvals(W)
    return float(sigma[r:].square().sum().sqrt() / torch.linalg.norm(W))


LLAMA_7B = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
THIRDS = torch.linspace(-1, 1, 7, dtype=torch.float64)

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501, ISC004
EXERCISES = [
    Exercise(
        "6.1", "Bits of a weight", bits_per_weight,
        cases=[(64,), (64, True), (128, True, 128), (16,), (32, True, 64)],
        hints=["How many weights share one constant of 32 bits?", "Doubled, a block's constant has 8 bits, and a second "
               "constant of 32 serves n2 blocks.", "How many weights lie in n2 blocks of n?"],
        mistakes=[
            Mistake(second_constant_per_block, "One second constant serves n2 blocks, and that is n times n2 weights."),
            Mistake(second_constant_forgotten, "The 8-bit constants have constants of their own, and those take room too."),
            Mistake(in_bytes, "That is in bytes; the question is for bits."),
        ],
        minutes=4, difficulty=2,
    ),
    Exercise(
        "6.2", "Bytes that stay under PEFT", peft_bytes,
        cases=[(6_738_415_616, 2, 39_976_960), (6_738_415_616, 0.516, 39_976_960), (1000, 0.5, 10), (1001, 0.5, 0),
               (825_728, 4, 9856, 12)],
        hints=["Which numbers have a gradient and an optimizer state?", "The base takes base_bytes a number and nothing "
               "more.", "Adapters stand beside the base: nothing is taken off it."],
        mistakes=[
            Mistake(all_at_16, "Sixteen bytes are for what trains. The frozen base has neither gradients nor moments."),
            Mistake(base_left_out, "The base isn't trained, and it's still read at every step."),
            Mistake(trained_among_the_base, "The adapters aren't part of the base: P_base is frozen as a whole."),
        ],
        minutes=4, difficulty=1,
    ),
    Exercise(
        "6.3", "What a block keeps", block_activation_bytes,
        cases=[(2048, 1, 4096, 32), (2048, 1, 4096, 32, True), (4, 1, 8, 2), (512, 4, 1024, 16), (870, 1, 4096, 32)],
        hints=["Multiply out: s b h times 34, and s b h times 5 a s / h.", "The width cancels in the second term.",
               "Which of the two terms does attention without stored scores leave out?"],
        mistakes=[
            Mistake(not_divided, "The scores are (a, s, s) whatever the width is: the second term is divided by h."),
            Mistake(in_32_bits, "34 and 5 are bytes of a 16-bit block already."),
            Mistake(scores_always, "With `flash` the scores are never stored, and their term goes."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "6.4", "The best number of segments", best_segments,
        cases=[(36,), (80,), (1,), (2,), (7,), (32,), (1000,)],
        hints=["Try every k from 1 to L.", "L layers in k segments: the longest has L / k layers, rounded up.",
               "Where several k are equally good, take the first."],
        mistakes=[
            Mistake(every_layer, "With a segment for each layer all L inputs are kept, which is what you wanted to avoid."),
            Mistake(rounded_down, "The longest segment counts: L / k is rounded up."),
            Mistake(nearest_root, "The root of L is the neighbourhood, not the answer: of equally good k the smallest is asked for."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "6.5", "The largest rank in a budget", largest_rank,
        cases=[(1.0, LLAMA_7B, 32), (0.6, LLAMA_7B, 32), (1 / 1024, [(8, 8), (8, 24)], 4), (9.6, LLAMA_7B, 32),
               (2.0, [(1024, 4096)], 16, 12), (0.001, LLAMA_7B, 32)],
        hints=["What does rank 1 take in all layers together?", "A GiB has 2^30 bytes.", "A (1024, 4096) matrix has no "
               "update of rank 1025."],
        mistakes=[
            Mistake(in_gb, "A GiB has 2^30 bytes, not 10^9."),
            Mistake(by_the_file, "Two bytes a number is the file. In training a number takes per_param bytes."),
            Mistake(without_bound, "The budget isn't the only bound: no rank exceeds a matrix's shorter side."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "6.A", "Two at once: segments of unequal units", cheapest_segments,
        cases=[(32, 8192, 194_696), (32, 8192, 139_944), (4, 1, 10), (36, 5, 5), (24, 100, 300), (7, 10, 30), (1, 7, 9)],
        hints=["k inputs at input_bytes each, and one segment's blocks at block_bytes each.", "Segments are whole "
               "blocks: round L / k up.", "Search all k; the square root of L holds for equal units only."],
        mistakes=[
            Mistake(root_rule, "The square root of L takes an input to weigh as much as a block keeps. Here it may weigh far less."),
            Mistake(inputs_only, "While a segment is computed again, all that its blocks keep is there as well."),
            Mistake(parts_of_a_block, "Blocks aren't cut: the longest segment has L / k of them, rounded up."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "6.B", "Two at once: repair what rounding broke", repaired_error,
        cases=[(drawn(0, 6, 8), THIRDS, 0), (drawn(0, 6, 8), THIRDS, 2), (drawn(1, 8, 5), THIRDS[1::2] * 1.5, 1),
               (drawn(2, 5, 5), THIRDS, 4)],
        hints=["One constant for each row: the largest magnitude in it.", "The best X of rank r for R = W - W_hat is its "
               "truncated singular value decomposition.", "What is left is the tail of R's singular values: the root of "
               "the sum of their squares from r on."],
        mistakes=[
            Mistake(energy_left, "That is the square of the norm; take the root."),
            Mistake(one_constant, "Each row is a block and has a constant of its own."),
            Mistake(repaired_weight, "That cuts W itself. X repairs what is left of W when W_hat is taken off."),
        ],
        minutes=10, difficulty=4,
    ),
]  # fmt: skip
