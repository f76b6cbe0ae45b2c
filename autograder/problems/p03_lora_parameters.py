"""How counting LoRA parameters is judged."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from ftgrade.judging.problem import (
    AnyCase,
    Case,
    Difference,
    Problem,
    Question,
    Refusal,
    Relation,
    Rng,
    Stream,
    Value,
    call,
    integer,
)  # fmt: skip

problem = Problem(part="05_lora_algebra", difficulty=2, importance=5, minutes=40)


def two_sizes(rng: Rng, low: int = 3, high: int = 40) -> tuple[int, int]:
    """Return two different sizes with no small common structure to hide behind."""
    d_out, d_in = rng.choice(np.arange(low, high), size=2, replace=False)
    return int(d_out), int(d_in)


def block_shapes(rng: Rng) -> dict[str, tuple[int, int]]:
    """Return the weights of one block with grouped-query attention, a wide MLP and a fused projection."""
    head, groups, share = int(rng.integers(4, 9)), int(rng.integers(2, 4)), int(rng.integers(2, 4))
    d, kv, ff = head * groups * share, head * groups, int(rng.integers(70, 99))
    return {
        "q_proj": (d, d), "k_proj": (kv, d), "v_proj": (kv, d), "o_proj": (d, d),
        "up_proj": (ff, d), "down_proj": (d, ff), "qkv": (3 * d, d),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ checks


@problem.check(
    "count", points=2, of="lora_param_count", title="one adapter", same=integer,
    concerns=["rectangular weights", "a rank above both sides", "NumPy integers as input"],
    next_step="Write both factors' shapes under each other and add up their entries.",
)  # fmt: skip
def count(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in = sorted(two_sizes(rng))
    yield Case("a wide weight", call("lora_param_count", d_out, d_in, int(rng.integers(2, 4))))
    yield Case("a tall weight", call("lora_param_count", d_in, d_out, int(rng.integers(2, 4))))
    yield Case("a square weight", call("lora_param_count", d_in, d_in, int(rng.integers(2, 4))))
    yield Case("a rank above both sides", call("lora_param_count", d_out, d_in, max(d_out, d_in) + 5))
    numbers = [np.int64(number) for number in (d_out, d_in, 3)]
    yield Case("sizes given as NumPy integers", call("lora_param_count", *numbers))


@problem.check(
    "model", points=3, of="lora_model_params", title="a whole model", same=integer,
    concerns=["grouped-query attention", "targets that are a generator", "a rank for each target"],
    next_step="Count one block by hand, target by target, and only then multiply by the number of blocks.",
)  # fmt: skip
def model(rng: Rng) -> Iterator[AnyCase]:
    shapes, layers = block_shapes(rng), int(rng.integers(3, 9))
    some = ["v_proj", "q_proj", "down_proj"]
    yield Case("three rectangular targets", call("lora_model_params", shapes, some, layers, 3), pure=True)
    yield Case("a fused projection alone", call("lora_model_params", shapes, ["qkv"], layers, 2))
    yield Case("targets from a generator", call("lora_model_params", shapes, Stream(["k_proj", "up_proj"]), layers, 3))
    ranks = {"q_proj": 2, "k_proj": 5, "up_proj": int(rng.integers(6, 9))}
    yield Case("a rank for each target", call("lora_model_params", shapes, list(ranks), layers, ranks), pure=True)
    yield Case("keywords", call("lora_model_params", shapes=shapes, targets=("o_proj",), n_layers=layers, r=4))


@problem.check(
    "be", points=1.5, of="breakeven_rank", title="the break-even rank", same=integer,
    concerns=["sizes where the division is exact", "sizes where no rank saves anything"],
    next_step="Put your rank and the next one into both sides of the strict inequality.",
)  # fmt: skip
def be(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in = two_sizes(rng)
    yield Case("any two sizes", call("breakeven_rank", d_out, d_in))
    # 1 / a + 1 / b = 1 / k has solutions a = k + f, b = k + k^2 / f: there the quotient is exactly k.
    k, factor = int(rng.integers(3, 9)), int(rng.choice([1, 2]))
    k *= factor
    yield Case("sizes where the division is exact", call("breakeven_rank", k + factor, k + k * k // factor))
    yield Case("sizes where one number is saved", call("breakeven_rank", k + 1, k * k + k + 1))
    yield Case("a square weight of even side", call("breakeven_rank", 2 * k, 2 * k))
    yield Case("a single row", call("breakeven_rank", 1, d_in))
    yield Case("a very large weight", call("breakeven_rank", 3 * 10**9 + d_out, 10**9 + 7))
    k = 10**6 + d_in  # the quotient is k + 1e-12, which a float rounds to k
    yield Case("very large sizes where one number is saved", call("breakeven_rank", k + 1, k * k + k + 1))


def update(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    return B @ A


@functools.cache
def jacobian_rank(d_out: int, d_in: int, r: int) -> int:
    """Return the numerical rank of the Jacobian of (A, B) -> B @ A at factors drawn at random: any give the same."""
    rng = np.random.default_rng(0)
    A, B = torch.from_numpy(rng.normal(size=(r, d_in))), torch.from_numpy(rng.normal(size=(d_out, r)))
    by_A, by_B = torch.autograd.functional.jacobian(update, (A, B))
    jacobian = torch.cat([by_A.reshape(d_out * d_in, -1), by_B.reshape(d_out * d_in, -1)], dim=1)
    return int(torch.linalg.matrix_rank(jacobian, rtol=1e-9))


@problem.check(
    "dof", points=1.5, of="low_rank_dof", title="degrees of freedom, against the Jacobian's rank", same=integer,
    concerns=["numbers that move nothing", "a rank above one side"],
    next_step="Count which changes of A and B leave B @ A as it is, and subtract them.",
)  # fmt: skip
def dof(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in = two_sizes(rng, 3, 7)
    for words, r in (("a low rank", 2), ("a rank above the smaller side", min(d_out, d_in) + 1)):
        true_rank = jacobian_rank(d_out, d_in, r)
        yield Case(words, call("low_rank_dof", d_out, d_in, r))
        yield Relation(f"{words}, counted by the Jacobian", (call("low_rank_dof", d_out, d_in, r),), equals(true_rank))
    large, small = sorted(two_sizes(rng, 50, 500), reverse=True)
    yield Case("a large weight", call("low_rank_dof", large, small, int(rng.integers(4, 17))))


def equals(number: int) -> Any:
    def holds(got: Value) -> Difference | None:
        return integer(number, got.value)

    return holds


@problem.check(
    "err", points=1, of="lora_model_params", title="invalid input",
    concerns=["zero, negative and fractional numbers", "unknown and empty targets", "messages that name the argument"],
    next_step="Check each number before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in = two_sizes(rng)
    yield Refusal("a rank of zero", call("lora_param_count", d_out, d_in, 0), "rank")
    yield Refusal("a negative rank", call("lora_param_count", d_out, d_in, -2), "rank")
    yield Refusal("a fractional rank", call("lora_param_count", d_out, d_in, 2.5), "rank")
    yield Refusal("a d_in of zero", call("lora_param_count", d_out, 0, 2), "d_in")
    yield Refusal("a negative d_out", call("lora_param_count", -d_out, d_in, 2), "d_out")
    yield Refusal("a fractional d_out", call("lora_param_count", d_out + 0.5, d_in, 2), "d_out")
    yield Refusal("a break-even rank without rows", call("breakeven_rank", 0, d_in), "d_out")
    shapes = {"q_proj": (d_out, d_in)}
    yield Refusal("an unknown target", call("lora_model_params", shapes, ["q_proj", "w_proj"], 2, 2), "target")
    ranks = {"w_proj": 2}
    yield Refusal("a target without a rank", call("lora_model_params", shapes, ["q_proj"], 2, ranks), "target")
    yield Refusal("no target", call("lora_model_params", shapes, [], 2, 2), "target")
    yield Refusal("no layers", call("lora_model_params", shapes, ["q_proj"], 0, 2), "n_layers")
    yield Refusal("a rank of zero in a model", call("lora_model_params", shapes, ["q_proj"], 2, 0), "rank")


@problem.check(
    "mem", points=1, of="lora_training_bytes", title="bytes of a run", same=integer,
    concerns=["fractional bytes a parameter", "one rounding", "another optimizer"],
    next_step="Price the frozen and the trained parameters apart, add, and round the sum.",
)  # fmt: skip
def mem(rng: Rng) -> Iterator[AnyCase]:
    n_lora = int(rng.integers(1_000, 9_999))
    yield Case("a bf16 base", call("lora_training_bytes", int(rng.integers(10**6, 10**7)), n_lora, 2.0))
    for fraction in (0.15, 0.85):
        # Choose the count so that the total's fraction is known: what truncates fails on one, what rounds up on both.
        n_base = next(
            n for n in range(int(rng.integers(10**6, 10**7)), 10**8) if abs(n * 0.51587 % 1 - fraction) < 0.02
        )
        yield Case("a 4-bit base", call("lora_training_bytes", n_base, n_lora, 0.51587))
    yield Case("8 bytes for each trained parameter", call("lora_training_bytes", 10**6 + 3, n_lora, 4.0, 8))


@problem.personal(
    title="your model", same=integer, next_step="Make a row for each target: its two sizes, and the rank."
)
def mine(rng: Rng) -> Question:
    heads, layers, rank = 4 * int(rng.integers(2, 9)), int(rng.integers(10, 40)), int(rng.choice([2, 4, 8, 16]))
    d, kv, ff = 64 * heads, 16 * heads, 64 * int(rng.integers(3 * heads, 5 * heads))
    shapes = {"q_proj": (d, d), "v_proj": (kv, d), "up_proj": (ff, d), "down_proj": (d, ff)}
    targets = ["q_proj", "v_proj", str(rng.choice(["up_proj", "down_proj"]))]
    words = (
        f"A model of {layers} layers has d_model = {d}; its keys and values are {kv} wide, its MLP {ff}. "
        f"LoRA of rank {rank} stands on {', '.join(targets)}. How many numbers does it train?"
    )
    return Question(words, call("lora_model_params", shapes, targets, layers, rank))


# ---------------------------------------------------------------------------------------------------------- mistakes

SHAPES = "Write the shapes of A and B under each other and count the entries of each."
TALL = "Try a weight with more rows than columns."
FACTORS = "The update needs two factors."

WRONG_COUNTS = [
    ("product_not_sum", "d_out * r * d_in",
     "Your count multiplies both sides by the rank; the two factors are stored side by side, so their sizes add up.",
     SHAPES),
    ("assumes_square_d_in", "2 * r * d_in", "Your count takes both sides of the weight to be d_in.", TALL),
    ("assumes_square_d_out", "2 * r * d_out", "Your count takes both sides of the weight to be d_out.", TALL),
    ("larger_side_twice", "2 * r * max(d_out, d_in)", "Your count uses the larger side for both factors.",
     "One factor has d_out rows, the other d_in columns."),
    ("geometric_mean_side", "round(2 * r * (d_out * d_in) ** 0.5)",
     "Your count averages the two sides geometrically.", SHAPES),
    ("only_A", "r * d_in", "Your count holds only the factor A.", FACTORS),
    ("only_B", "d_out * r", "Your count holds only the factor B.", FACTORS),
    ("subtracts_gauge", "d_out * r + r * d_in - r * r",
     "Your count subtracts r * r: that is the number of directions that move, not of numbers stored.",
     "Keep that formula for the degrees of freedom."),
    ("adds_square_core", "d_out * r + r * r + r * d_in",
     "Your count adds an r by r matrix between the factors; LoRA has none.", SHAPES),
    ("adds_bias", "d_out * r + r * d_in + d_out", "Your count adds a bias; LoRA's factors have none.",
     "Read the conventions again: what is not adapted?"),
    ("adds_alpha", "d_out * r + r * d_in + 1", "Your count adds one for alpha, which is a constant.",
     "Which numbers does the optimizer change?"),
    ("adds_frozen_weight", "d_out * r + r * d_in + d_out * d_in", "Your count includes the frozen weight.",
     "Count only what LoRA adds."),
    ("full_matrix", "d_out * d_in", "Your count is the size of the full update, which LoRA never stores.", SHAPES),
    ("clips_rank", "min(r, d_out, d_in) * (d_out + d_in)",
     "Your count clips the rank to the smaller side; every stored number counts, useful or not.",
     "Build the two factors for a rank above both sides and count them."),
    ("returns_float", "float(d_out * r + r * d_in)", "Your count is a float.",
     "Use integer arithmetic throughout; `/` makes a float of two ints."),
]  # fmt: skip
for name, now, says, next_step in WRONG_COUNTS:
    problem.slip(name, "lora_param_count", {"d_out * r + r * d_in": now}, says=says, next_step=next_step)

problem.slip(
    "rank_zero_ok", "lora_param_count", {'whole(r, "rank")': '0 if r == 0 else whole(r, "rank")'},
    says="A rank of zero gets a count instead of an error.",
    next_step="An adapter of rank 0 is a set-up error: refuse it by name.",
)  # fmt: skip

problem.slip(
    "one_layer_only", "lora_model_params", {"n_layers * sum": "sum"},
    says="Your count holds one block only.", next_step="Every block has adapters of its own.",
)  # fmt: skip
problem.slip(
    "gqa_ignored", "lora_model_params", {"*shapes[name]": "shapes[name][1], shapes[name][1]"},
    says="Your count takes every weight to be as tall as it is wide.",
    next_step="With grouped-query heads, k and v have fewer rows.",
)  # fmt: skip
problem.slip(
    "first_shape_for_all", "lora_model_params", {"*shapes[name]": "*shapes[names[0]]"},
    says="Your count uses the first target's shape for all of them.", next_step="Look up each target's own shape.",
)  # fmt: skip
problem.slip(
    "all_shapes_not_targets", "lora_model_params",
    {"for name in names}": "for name in shapes}", "for name in names)": "for name in shapes)"},
    says="Your count adapts every weight of the block.", next_step="Loop over the targets.",
)  # fmt: skip
problem.slip(
    "first_rank_for_all", "lora_model_params", {"ranks[name]": "ranks[names[0]]"},
    says="Your count uses one target's rank for all of them.", next_step="Look up each target's own rank.",
)  # fmt: skip
problem.slip(
    "fused_counted_as_three", "lora_model_params",
    {"sum(": """sum(
        3 * lora_param_count(shapes[name][1], shapes[name][1], ranks[name])
        if shapes[name][0] == 3 * shapes[name][1] else """},
    says="Your count gives a fused projection three adapters.",
    next_step="It is one weight, with one pair of factors.",
)  # fmt: skip
problem.slip(
    "consumes_generator", "lora_model_params", {"list(targets)": "targets"},
    says="Your function walks through `targets` twice; a generator is empty the second time.",
    next_step="Make a list of the targets first.",
)  # fmt: skip
problem.slip(
    "silent_unknown_target", "lora_model_params", {"list(targets)": "[name for name in targets if name in shapes]"},
    says="A target that the model doesn't have is left out in silence.",
    next_step="A misspelt target must be an error, or a run trains less than its author thinks.",
)  # fmt: skip
problem.slip(
    "empty_targets_zero", "lora_model_params",
    {'raise ValueError("target: name at least one weight to adapt, got none")': "return 0"},
    says="A model without any target gets the count 0 instead of an error.",
    next_step="Raise a ValueError that names the target when there is none.",
)  # fmt: skip

problem.slip(
    "breakeven_not_strict", "breakeven_rank", {"d_in - 1": "d_in"},
    says="Your rank is one too large where the division is exact: there LoRA stores as much as the weight.",
    next_step="Put your rank into the strict inequality.",
)  # fmt: skip
problem.slip(
    "breakeven_half_side", "breakeven_rank",
    {"(d_out * d_in - 1) // (d_out + d_in)": "(min(d_out, d_in) - 1) // 2"},
    says="Your rank is half the smaller side, which is right for square weights only.",
    next_step="Solve the inequality for r.",
)  # fmt: skip
problem.slip(
    "breakeven_in_floats", "breakeven_rank",
    {"(d_out * d_in - 1) // (d_out + d_in)": "int(np.ceil(d_out * d_in / (d_out + d_in))) - 1"},
    says="Your division is made in floating point, which runs out of digits for large weights.",
    next_step="Stay in integers: `//` divides without rounding.",
)  # fmt: skip

problem.slip(
    "dof_no_gauge", "low_rank_dof", {"d_in - r": "d_in"},
    says="Your number counts all stored numbers; some of them move nothing.",
    next_step="Which (r, r) matrices G leave (B G)(G^-1 A) equal to B A?",
)  # fmt: skip
problem.slip(
    "dof_not_clipped", "low_rank_dof", {"min(r, d_out, d_in)": "r"},
    says="Your formula goes on past full rank, where there is nothing more to reach.",
    next_step="A (d_out, d_in) matrix has rank min(d_out, d_in) at most.",
)  # fmt: skip
problem.slip(
    "dof_half_gauge", "low_rank_dof", {"r * (d_out + d_in - r)": "r * (d_out + d_in) - r * (r - 1) // 2"},
    says="Your formula subtracts fewer than half of the numbers that move nothing, as if G had to be orthogonal.",
    next_step="Any invertible G will do: count its entries.",
)  # fmt: skip

problem.slip(
    "mem_charges_base_16", "lora_training_bytes", {"n_base * base_bytes": "n_base * lora_bytes"},
    says="Your total gives the frozen base gradients and optimizer state too.",
    next_step="What does the optimizer keep for a parameter that it never changes?",
)  # fmt: skip
problem.slip(
    "mem_truncates", "lora_training_bytes", {"round(": "int("},
    says="Your total is cut off instead of rounded.", next_step="`int` cuts; `round` rounds.",
)  # fmt: skip
problem.slip(
    "mem_rounds_each", "lora_training_bytes", {"n_base * base_bytes_per_param": "n_base * round(base_bytes_per_param)"},
    says="Your total rounds the bytes of one parameter before multiplying.", next_step="Round once, at the end.",
)  # fmt: skip
problem.slip(
    "mem_ignores_optimizer", "lora_training_bytes", {"n_lora * lora_bytes_per_param": "n_lora * 16"},
    says="Your total always takes 16 bytes for a trained parameter.", next_step="Use the argument.",
)  # fmt: skip
problem.slip(
    "mem_without_base", "lora_training_bytes", {"n_base * base_bytes_per_param + ": ""},
    says="Your total leaves the frozen base out; it isn't trained, but it's in memory.",
    next_step="The forward pass needs the base's weights.",
)  # fmt: skip
