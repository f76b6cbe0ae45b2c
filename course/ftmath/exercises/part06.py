"""The exercises of part 6: quantized and memory-aware tuning."""

import math
from collections.abc import Sequence
from statistics import NormalDist

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


def quantile_levels(bits: int = 4) -> Tensor:
    """Return the 2^bits levels of a normal float, ascending from -1 to 1, float64.

    Half of them, h = 2^(bits - 1), lie above 0: the normal quantiles of h probabilities that fall evenly from p towards 0.5,
    without 0.5 itself. h - 1 lie below 0: the negatives of the quantiles of h - 1 such probabilities, from the same p. And 0.
    Divide all by the largest. p = 1 - (1 / (2 (2^bits - 1)) + 1 / (2 2^bits)) / 2.

    >>> [round(level, 4) for level in quantile_levels(2).tolist()]
    [-1.0, 0.0, 0.4358, 1.0]
    """
    half, p = 2 ** (bits - 1), 1 - (1 / (2 * (2**bits - 1)) + 1 / (2 * 2**bits)) / 2
    quantile = NormalDist().inv_cdf
    above = [quantile(p + (0.5 - p) * step / half) for step in range(half)]
    below = [-quantile(p + (0.5 - p) * step / (half - 1)) for step in range(half - 1)]
    return torch.tensor(sorted([*below, 0.0, *above]), dtype=torch.float64) / max(above)


def quantise_blocks(w: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return the codes (count,) and the constants (blocks,) of weights w (count,).

    Each `block` weights in a row share one constant, the largest magnitude among them; count is a multiple of block. A
    code is the index of the level nearest to weight / constant. No block is all zeros.

    >>> codes, constants = quantise_blocks(torch.tensor([0.5, -1.0, 0.2, 0.1]), torch.tensor([-1.0, 0.0, 0.4, 1.0]), 2)
    >>> codes.tolist(), [round(one, 2) for one in constants.tolist()]
    ([2, 0, 3, 2], [1.0, 0.2])
    """
    blocks = w.view(-1, block)
    constants = blocks.abs().amax(1)
    codes = ((blocks / constants[:, None])[:, :, None] - levels).abs().argmin(2)
    return codes.flatten(), constants


def quantise_twice(constants: Tensor, levels: Tensor, block: int) -> Tensor:
    """Return what becomes of constants (count,) that are stored in few bits themselves, by blocks; count is a multiple.

    Constants are all positive, so take their mean off, quantise what is left with `levels`, each block with a constant of its
    own, and add the mean again.

    >>> [round(one, 3) for one in quantise_twice(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([-1.0, 0.0, 1.0]), 4).tolist()]
    [1.0, 2.5, 2.5, 4.0]
    """
    mean = constants.mean()
    left = (constants - mean).view(-1, block)
    largest = left.abs().amax(1, keepdim=True)
    codes = ((left / largest)[:, :, None] - levels).abs().argmin(2)
    return (largest * levels[codes]).flatten() + mean


def explain_file(w: Tensor, found: Tensor, levels: Tensor, block: int) -> str:
    """Return how a file of weights `found` (count,) was made from w (count,): what its maker did with levels and blocks.

    "as told": the nearest of `levels`, blocks of `block`. "one constant": the same levels, one constant for all. "uniform":
    blocks of `block`, as many levels, evenly spaced from -1 to 1. Else "other". Constants may have been quantised again:
    allow for a difference of a fiftieth of the norm of w.

    >>> explain_file(torch.tensor([0.5, -1.0]), torch.tensor([0.5, -1.0]), torch.tensor([-1.0, 0.5, 1.0]), 2)
    'as told'
    """
    even = torch.linspace(-1, 1, len(levels), dtype=levels.dtype)
    for words, book, size in (("as told", levels, block), ("one constant", levels, len(w)), ("uniform", even, block)):
        codes, constants = quantise_blocks(w, book, size)
        back = book[codes] * constants.repeat_interleave(size)
        if (back - found).norm() < w.norm() / 50:
            return words
    return "other"


def decoded(w: Tensor, levels: Tensor, block: int) -> Tensor:
    """Return what weights become in blocks."""
    codes, constants = quantise_blocks(w, levels, block)
    return levels[codes] * constants.repeat_interleave(block)


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


def symmetric_levels(bits: int = 4) -> Tensor:
    half, p = 2 ** (bits - 1), 1 - (1 / (2 * (2**bits - 1)) + 1 / (2 * 2**bits)) / 2
    above = [NormalDist().inv_cdf(p + (0.5 - p) * step / half) for step in range(half)]
    return torch.tensor(sorted([*above, *(-one for one in above)]), dtype=torch.float64) / max(above)


def raw_quantiles(bits: int = 4) -> Tensor:
    p = 1 - (1 / (2 * (2**bits - 1)) + 1 / (2 * 2**bits)) / 2
    return quantile_levels(bits) * NormalDist().inv_cdf(p)


def evenly_spaced(bits: int = 4) -> Tensor:
    return torch.linspace(-1, 1, 2**bits, dtype=torch.float64)


def one_for_all(w: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    codes, constants = quantise_blocks(w, levels, len(w))
    return codes, constants.repeat(len(w) // block)


def largest_not_magnitude(w: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    constants = w.view(-1, block).amax(1)
    return ((w.view(-1, block) / constants[:, None])[:, :, None] - levels).abs().argmin(2).flatten(), constants


def level_below(w: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    constants = w.view(-1, block).abs().amax(1)
    unit = (w.view(-1, block) / constants[:, None]).flatten()
    return (torch.bucketize(unit, levels, right=True) - 1).clamp(min=0), constants


def mean_left_in(constants: Tensor, levels: Tensor, block: int) -> Tensor:
    return decoded(constants, levels, block)


def mean_not_added(constants: Tensor, levels: Tensor, block: int) -> Tensor:
    return quantise_twice(constants, levels, block) - constants.mean()


def mean_of_each_block(constants: Tensor, levels: Tensor, block: int) -> Tensor:
    return torch.cat([quantise_twice(one, levels, block) for one in constants.split(block)])


def bit_for_bit(w: Tensor, found: Tensor, levels: Tensor, block: int) -> str:
    even = torch.linspace(-1, 1, len(levels), dtype=levels.dtype)
    made = {"as told": (levels, block), "one constant": (levels, len(w)), "uniform": (even, block)}
    return next((words for words, (book, size) in made.items() if torch.equal(decoded(w, book, size), found)), "other")


def nearest_of_three(w: Tensor, found: Tensor, levels: Tensor, block: int) -> str:
    even = torch.linspace(-1, 1, len(levels), dtype=levels.dtype)
    made = {"as told": (levels, block), "one constant": (levels, len(w)), "uniform": (even, block)}
    return min(made, key=lambda words: float((decoded(w, *made[words]) - found).norm()))


def by_size_of_error(w: Tensor, found: Tensor, levels: Tensor, block: int) -> str:
    even = torch.linspace(-1, 1, len(levels), dtype=levels.dtype)
    error = (found - w).norm()
    for words, book, size in (("as told", levels, block), ("one constant", levels, len(w)), ("uniform", even, block)):
        if abs((decoded(w, book, size) - w).norm() - error) < w.norm() / 50:
            return words
    return "other"


LLAMA_7B = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
THIRDS = torch.linspace(-1, 1, 7, dtype=torch.float64)

NF4 = quantile_levels(4)
BELL = 0.02 * drawn(21, 256)
SKEWED = torch.where(torch.arange(256) % 64 == 3, -0.2, BELL)
SIZES = 0.05 + 0.01 * drawn(22, 64).abs()
BOOK = torch.linspace(-1, 1, 255, dtype=torch.float64)

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
    Exercise(
        "6.C", "Build: the levels of a normal float", quantile_levels,
        cases=[(4,), (3,), (2,), (8,)],
        hints=["`statistics.NormalDist().inv_cdf(p)` is the quantile of a probability.", "The i-th of h probabilities is p + (0.5 - p) i / h, for i = 0 to h - 1; below 0, h - 1 takes the place of h.", "Sort the negative ones, 0 and the positive ones; the largest is the first positive one."],
        mistakes=[
            Mistake(symmetric_levels, "Yours has as many levels below 0 as above, and so none for 0. A weight of 0 should stay 0."),
            Mistake(raw_quantiles, "Divide by the largest: the levels reach from -1 to 1, and the block's constant does the rest."),
            Mistake(evenly_spaced, "Those are evenly spaced. Quantiles lie close together where the normal distribution has most of its weights."),
        ],
        minutes=10, difficulty=3,
    ),
    Exercise(
        "6.D", "Build: blocks and their constants", quantise_blocks,
        cases=[(BELL, NF4, 64), (SKEWED, NF4, 64), (drawn(23, 24), quantile_levels(2), 4), (-drawn(24, 8).abs(), NF4, 8)],
        hints=["`w.view(-1, block)` puts a block into each row.", "The constant is the largest *magnitude* of a row: `.abs().amax(1)`.", "Subtract the levels along a new last axis; the index of the smallest distance is the code."],
        mistakes=[
            Mistake(one_for_all, "One constant for the whole tensor: one outlier then sets the scale for everybody."),
            Mistake(largest_not_magnitude, "The largest weight isn't the largest magnitude: a block's extreme may be negative."),
            Mistake(level_below, "That takes the level below a weight. The nearest one may lie above."),
        ],
        minutes=10, difficulty=3,
    ),
    Exercise(
        "6.E", "Build: constants quantised again", quantise_twice,
        cases=[(SIZES, BOOK, 16), (SIZES, BOOK, 64), (torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([-1.0, 0.0, 1.0]), 4)],
        hints=["One mean, that of all constants.", "What is left has both signs: 6.D does the rest, with blocks of constants in place of blocks of weights.", "Codes to numbers: the level of each code, times its block's constant; then add the mean."],
        mistakes=[
            Mistake(mean_left_in, "Constants are all positive: with their mean left in, half of the levels are never used."),
            Mistake(mean_not_added, "The mean was taken off and must be added again."),
            Mistake(mean_of_each_block, "One mean for all constants; a mean for each block would have to be stored for each block."),
        ],
        minutes=8, difficulty=3, tolerance=1e-5,
    ),
    Exercise(
        "6.F", "Build: explain a file", explain_file,
        cases=[(SKEWED, found, NF4, 64) for found in (
            decoded(SKEWED, NF4, 64), decoded(SKEWED, NF4, 64) * 1.003, decoded(SKEWED, NF4, 256), decoded(SKEWED, evenly_spaced(4), 64),
            decoded(SKEWED, evenly_spaced(4), 64) * 0.997, SKEWED.flip(0), 2 * SKEWED - decoded(SKEWED, NF4, 64))],
        hints=["Make the three files yourself, with 6.D, and compare.", "levels[codes] times each constant, repeated for its block, are the weights again.", "Compare tensors, not errors: an error of the right size may belong to other weights."],
        mistakes=[
            Mistake(bit_for_bit, "Constants that were quantised again move each weight a little: allow for a fiftieth of the norm."),
            Mistake(nearest_of_three, "The nearest of the three may still be far away: then it's none of them."),
            Mistake(by_size_of_error, "An error of the right size isn't the same file: compare the weights themselves."),
        ],
        minutes=10, difficulty=3,
    ),
]  # fmt: skip
