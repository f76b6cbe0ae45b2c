"""How counting LoRA parameters is judged."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
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
#
# Each stands in for one function; `demand` keeps the error contract, so that a mistake is wrong in one way only.


def demand(**numbers: Any) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{name.replace('r_', 'rank ')} must be a whole number of at least 1")


Formula = Callable[[int, int, int], float]


def counted(formula: Formula, d_out: int, d_in: int, r: int) -> Any:
    demand(d_out=d_out, d_in=d_in, r_=r)
    return formula(int(d_out), int(d_in), int(r))


def lora_mistake(name: str, formula: Formula, says: str, next_step: str) -> None:
    """Register a wrong formula for the count of one adapter."""

    def function(d_out: int, d_in: int, r: int) -> Any:
        return counted(formula, d_out, d_in, r)

    function.__name__ = name
    problem.mistake(replaces="lora_param_count", says=says, next_step=next_step)(function)


SHAPES = "Write the shapes of A and B under each other and count the entries of each."
lora_mistake(
    "product_not_sum", lambda o, i, r: o * r * i,
    "Your count multiplies the two factors' sizes; the two are stored side by side.", SHAPES,
)  # fmt: skip
lora_mistake(
    "assumes_square_d_in", lambda o, i, r: 2 * r * i,
    "Your count takes both sides of the weight to be d_in.", "Try a weight with more rows than columns.",
)  # fmt: skip
lora_mistake(
    "assumes_square_d_out", lambda o, i, r: 2 * r * o,
    "Your count takes both sides of the weight to be d_out.", "Try a weight with more rows than columns.",
)  # fmt: skip
lora_mistake(
    "larger_side_twice", lambda o, i, r: 2 * r * max(o, i),
    "Your count uses the larger side for both factors.", "One factor has d_out rows, the other d_in columns.",
)  # fmt: skip
lora_mistake(
    "geometric_mean_side", lambda o, i, r: round(2 * r * math.sqrt(o * i)),
    "Your count averages the two sides geometrically.", SHAPES,
)  # fmt: skip
lora_mistake("only_A", lambda o, i, r: r * i, "Your count holds only the factor A.", "The update needs two factors.")
lora_mistake("only_B", lambda o, i, r: o * r, "Your count holds only the factor B.", "The update needs two factors.")
lora_mistake(
    "subtracts_gauge", lambda o, i, r: r * (o + i) - r * r,
    "Your count subtracts r * r: that is the number of directions that move, not of numbers stored.",
    "Keep that formula for the degrees of freedom.",
)  # fmt: skip
lora_mistake(
    "adds_square_core", lambda o, i, r: r * (o + i) + r * r,
    "Your count adds an r by r matrix between the factors; LoRA has none.", SHAPES,
)  # fmt: skip
lora_mistake(
    "adds_bias", lambda o, i, r: r * (o + i) + o,
    "Your count adds a bias; LoRA's factors have none.", "Read the conventions again: what is not adapted?",
)  # fmt: skip
lora_mistake(
    "adds_alpha", lambda o, i, r: r * (o + i) + 1,
    "Your count adds one for alpha, which is a constant.", "Which numbers does the optimizer change?",
)  # fmt: skip
lora_mistake(
    "adds_frozen_weight", lambda o, i, r: r * (o + i) + o * i,
    "Your count includes the frozen weight.", "Count only what LoRA adds.",
)  # fmt: skip
lora_mistake(
    "full_matrix", lambda o, i, r: o * i,
    "Your count is the size of the full update, which LoRA never stores.", SHAPES,
)  # fmt: skip
lora_mistake(
    "clips_rank", lambda o, i, r: min(r, o, i) * (o + i),
    "Your count clips the rank to the smaller side; what is stored is stored.",
    "Build the two factors for a rank above both sides and count them.",
)  # fmt: skip
lora_mistake(
    "returns_float", lambda o, i, r: float(r * (o + i)),
    "Your count is a float.", "Use integer arithmetic throughout; `/` makes a float of two ints.",
)  # fmt: skip


@problem.mistake(
    replaces="lora_param_count",
    says="A rank of zero gets a count instead of an error.",
    next_step="An adapter of rank 0 is a set-up error: refuse it by name.",
)
def rank_zero_ok(d_out: int, d_in: int, r: int) -> int:
    demand(d_out=d_out, d_in=d_in, r_=r or 1)
    return int(r) * (int(d_out) + int(d_in))


Shapes = Mapping[str, tuple[int, int]]
ModelFormula = Callable[[Shapes, list[str], int, Any], int]


def named(shapes: Shapes, targets: Iterable[str], n_layers: int, r: Any) -> list[str]:
    """Return the targets as a list, after the checks that the contract asks for."""
    names = list(targets)
    demand(n_layers=n_layers)
    if not names or any(name not in shapes for name in names):
        raise ValueError("target unknown or missing")
    for name in names:
        demand(r_=rank(r, name), d_out=shapes[name][0], d_in=shapes[name][1])
    return names


def rank(r: Any, name: str) -> int:
    if isinstance(r, dict) and name not in r:
        raise ValueError("target")
    return int(r[name]) if isinstance(r, dict) else r


def model_mistake(name: str, formula: ModelFormula, says: str, next_step: str) -> None:
    """Register a wrong formula for the model's count; it takes the block's shapes, the checked names, L and r."""

    def function(shapes: Shapes, targets: Iterable[str], n_layers: int, r: Any) -> int:
        return int(formula(shapes, named(shapes, targets, n_layers, r), n_layers, r))

    function.__name__ = name
    problem.mistake(replaces="lora_model_params", says=says, next_step=next_step)(function)


model_mistake(
    "one_layer_only", lambda s, names, n, r: sum(rank(r, t) * sum(s[t]) for t in names),
    "Your count holds one block only.", "Every block has adapters of its own.",
)  # fmt: skip
model_mistake(
    "gqa_ignored", lambda s, names, n, r: n * sum(2 * rank(r, t) * s[t][1] for t in names),
    "Your count takes every weight to be as tall as it is wide.", "With grouped-query heads, k and v have fewer rows.",
)  # fmt: skip
model_mistake(
    "first_shape_for_all", lambda s, names, n, r: n * sum(rank(r, t) * sum(s[names[0]]) for t in names),
    "Your count uses the first target's shape for all of them.", "Look up each target's own shape.",
)  # fmt: skip
model_mistake(
    "all_shapes_not_targets", lambda s, names, n, r: n * sum(rank(r, names[0]) * sum(s[t]) for t in s),
    "Your count adapts every weight of the block.", "Loop over the targets.",
)  # fmt: skip
model_mistake(
    "first_rank_for_all", lambda s, names, n, r: n * sum(rank(r, names[0]) * sum(s[t]) for t in names),
    "Your count uses one target's rank for all of them.", "Look up each target's own rank.",
)  # fmt: skip
model_mistake(
    "fused_counted_as_three", lambda s, names, n, r: n * sum(
        rank(r, t) * (sum(s[t]) if s[t][0] != 3 * s[t][1] else 6 * s[t][1]) for t in names
    ),
    "Your count gives a fused projection three adapters.", "It is one weight, with one pair of factors.",
)  # fmt: skip


@problem.mistake(
    replaces="lora_model_params",
    says="Your function walks through `targets` twice; a generator is empty the second time.",
    next_step="Make a list of the targets first.",
)
def consumes_generator(shapes: Shapes, targets: Iterable[str], n_layers: int, r: Any) -> int:
    demand(n_layers=n_layers)
    if not isinstance(targets, Iterator) and not list(targets):
        raise ValueError("target missing")
    for name in targets:
        if name not in shapes:
            raise ValueError("target unknown")
        demand(r_=rank(r, name))
    return int(n_layers) * sum(rank(r, name) * sum(shapes[name]) for name in targets)


@problem.mistake(
    replaces="lora_model_params",
    says="A target that the model doesn't have is left out in silence.",
    next_step="A misspelt target must be an error, or a run trains less than its author thinks.",
)
def silent_unknown_target(shapes: Shapes, targets: Iterable[str], n_layers: int, r: Any) -> int:
    names = list(targets)
    known = [name for name in names if name in shapes]
    return int(n_layers) * sum(rank(r, t) * sum(shapes[t]) for t in named(shapes, known if names else [], n_layers, r))


@problem.mistake(
    replaces="lora_model_params",
    says="A model without any target gets the count 0 instead of an error.",
    next_step="Raise a ValueError that names the target when there is none.",
)
def empty_targets_zero(shapes: Shapes, targets: Iterable[str], n_layers: int, r: Any) -> int:
    names = list(targets)
    return int(n_layers) * sum(rank(r, t) * sum(shapes[t]) for t in named(shapes, names, n_layers, r)) if names else 0


@problem.mistake(
    replaces="breakeven_rank",
    says="Your rank is one too large where the division is exact: there LoRA stores as much as the weight.",
    next_step="Put your rank into the strict inequality.",
)
def breakeven_not_strict(d_out: int, d_in: int) -> int:
    demand(d_out=d_out, d_in=d_in)
    return (int(d_out) * int(d_in)) // (int(d_out) + int(d_in))


@problem.mistake(
    replaces="breakeven_rank",
    says="Your rank is half the smaller side, which is right for square weights only.",
    next_step="Solve the inequality for r.",
)
def breakeven_half_side(d_out: int, d_in: int) -> int:
    demand(d_out=d_out, d_in=d_in)
    return (min(int(d_out), int(d_in)) - 1) // 2


@problem.mistake(
    replaces="breakeven_rank",
    says="Your division is made in floating point, which runs out of digits for large weights.",
    next_step="Stay in integers: `//` divides without rounding.",
)
def breakeven_in_floats(d_out: int, d_in: int) -> int:
    demand(d_out=d_out, d_in=d_in)
    return max(0, math.ceil(float(np.float32(d_out) * np.float32(d_in) / np.float32(d_out + d_in))) - 1)


@problem.mistake(
    replaces="low_rank_dof",
    says="Your number is the stored count; some of the stored numbers move nothing.",
    next_step="Which (r, r) matrices G leave (B G)(G^-1 A) equal to B A?",
)
def dof_no_gauge(d_out: int, d_in: int, r: int) -> int:
    demand(d_out=d_out, d_in=d_in, r_=r)
    return min(r, d_out, d_in) * (d_out + d_in)


@problem.mistake(
    replaces="low_rank_dof",
    says="Your formula goes on past full rank, where there is nothing more to reach.",
    next_step="A (d_out, d_in) matrix has rank min(d_out, d_in) at most.",
)
def dof_not_clipped(d_out: int, d_in: int, r: int) -> int:
    demand(d_out=d_out, d_in=d_in, r_=r)
    return r * (d_out + d_in - r)


@problem.mistake(
    replaces="low_rank_dof",
    says="Your formula subtracts half of the numbers that move nothing, as if G had to be symmetric or orthogonal.",
    next_step="Any invertible G will do: count its entries.",
)
def dof_half_gauge(d_out: int, d_in: int, r: int) -> int:
    demand(d_out=d_out, d_in=d_in, r_=r)
    r = min(r, d_out, d_in)
    return r * (d_out + d_in) - r * (r - 1) // 2


@problem.mistake(
    replaces="lora_training_bytes",
    says="Your total gives the frozen base gradients and optimizer state too.",
    next_step="What does the optimizer keep for a parameter that it never changes?",
)
def mem_charges_base_16(n_base: int, n_lora: int, base_bytes_per_param: float, lora_bytes_per_param: int = 16) -> int:
    return round((n_base + n_lora) * lora_bytes_per_param)


@problem.mistake(
    replaces="lora_training_bytes",
    says="Your total is cut off instead of rounded.",
    next_step="`int` cuts; `round` rounds.",
)
def mem_truncates(n_base: int, n_lora: int, base_bytes_per_param: float, lora_bytes_per_param: int = 16) -> int:
    return int(n_base * base_bytes_per_param + n_lora * lora_bytes_per_param)


@problem.mistake(
    replaces="lora_training_bytes",
    says="Your total rounds the bytes of one parameter before multiplying.",
    next_step="Round once, at the end.",
)
def mem_rounds_each(n_base: int, n_lora: int, base_bytes_per_param: float, lora_bytes_per_param: int = 16) -> int:
    return n_base * math.ceil(base_bytes_per_param) + n_lora * lora_bytes_per_param


@problem.mistake(
    replaces="lora_training_bytes",
    says="Your total always takes 16 bytes for a trained parameter.",
    next_step="Use the argument.",
)
def mem_ignores_optimizer(n_base: int, n_lora: int, base_bytes_per_param: float, lora_bytes_per_param: int = 16) -> int:
    return round(n_base * base_bytes_per_param + n_lora * 16)


@problem.mistake(
    replaces="lora_training_bytes",
    says="Your total leaves the frozen base out; it isn't trained, but it's in memory.",
    next_step="The forward pass needs the base's weights.",
)
def mem_without_base(n_base: int, n_lora: int, base_bytes_per_param: float, lora_bytes_per_param: int = 16) -> int:
    return n_lora * lora_bytes_per_param
