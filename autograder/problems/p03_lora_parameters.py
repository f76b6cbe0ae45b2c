"""How counting LoRA parameters is judged."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from ftgrade.judging.problem import (
    AnyCase,
    Call,
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
    return {"q_proj": (d, d), "k_proj": (kv, d), "up_proj": (ff, d), "down_proj": (d, ff), "qkv": (3 * d, d)}


# ------------------------------------------------------------------------------------------------ numbers and errors


def equals(number: int) -> Callable[[Value], Difference | None]:
    return lambda got: integer(number, got.value)


def python_int(number: int) -> Callable[[Value], Difference | None]:
    """Demand this number as a Python int."""

    def holds(got: Value) -> Difference | None:
        if isinstance(got.value, np.generic):
            return Difference("the number is NumPy's, and a Python int was expected")
        return integer(number, got.value)

    return holds


WIDTHS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)


def of_each_width(*numbers: int) -> Iterator[tuple[Any, ...]]:
    """Yield these numbers as NumPy integers of each width, and of mixed ones; what a width can't hold is made smaller.

    The numbers stay different, and near a narrow width's end, where sums and products overflow.
    """

    def held(width: Any, place: int) -> Any:
        return width(min(numbers[place], int(np.iinfo(width).max) - 2 * place))

    places = range(len(numbers))
    yield from (tuple(held(width, place) for place in places) for width in WIDTHS)
    for first in (0, 3, 5):
        yield tuple(held(WIDTHS[(first + 4 * place) % 8], place) for place in places)
    yield from (
        tuple(held(WIDTHS[4 + place], one) if place == one else numbers[one] for one in places) for place in places
    )


def of_int64(widths: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return those numbers that all are NumPy's int64, whose products stay right and aren't Python's."""
    return widths[WIDTHS.index(np.int64)]


def given_by_numpy(
    rng: Rng, promise: str, function: str, formula: Callable[..., int], *numbers: int
) -> Iterator[AnyCase]:
    """Yield demands of the formula's number for NumPy integers of each width, and that of a Python int for some."""
    widths = list(of_each_width(*numbers))
    drawn = widths[int(rng.integers(len(WIDTHS)))]
    for words, given in (("NumPy integers", drawn), ("NumPy integers, all of them int64", of_int64(widths))):
        yield Relation(words, (call(function, *given),), python_int(formula(*map(int, given))), promise)
    yield from (corner("NumPy integers of each width", promise, function, *one) for one in widths)


def right_count(d_out: int, d_in: int, r: int) -> int:
    return r * (d_out + d_in)


def right_breakeven(d_out: int, d_in: int) -> int:
    return (d_out * d_in - 1) // (d_out + d_in)


def right_dof(d_out: int, d_in: int, r: int) -> int:
    return (r := min(r, d_out, d_in)) * (d_out + d_in - r)


def large(rng: Rng) -> tuple[int, int, int]:
    """Return two sizes and a rank, all odd, whose counts exceed 53 bits, and products of NumPy integers their width."""
    d_out, d_in, r = (2 * int(rng.integers(low, low + 1_000)) + 1 for low in (2**46, 2**45, 1_200))
    return d_out, d_in, r


BAD_NUMBERS: dict[str, Any] = {
    "zero": 0,
    "a negative number": -1,
    "a large negative number": -(10**12),
    "a whole float": 4.0,
    "a float of 1": 1.0,
    "a float between two whole numbers": 2.5,
    "a float below 1": 0.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "NumPy's zero": np.int32(0),
    "NumPy's negative number": np.int64(-3),
    "a zero without a sign": np.uint8(0),
}


def refusals(promise: str, function: str, **valid: int) -> Iterator[Refusal]:
    """Yield what a function of these arguments must refuse, the first beside the valid call."""
    twin: Call | None = call(function, *valid.values())
    for name in valid:
        others = tuple(other for other in valid if other != name)
        for words, number in (BAD_NUMBERS | {"a float that equals the valid number": float(valid[name])}).items():
            given = (valid | {name: number}).values()
            yield Refusal(f"{words} as {name}", call(function, *given), name, twin, others, promise)
            twin = None


def corner(words: str, promise: str, function: str, *arguments: Any, **keywords: Any) -> Case:
    """Return a case that is asked once a student."""
    return Case(words, call(function, *arguments, **keywords), promise=promise, once=True)


# ------------------------------------------------------------------------------------------------------------ checks

SIZES = "ValueError naming `rank`, `d_in` or `d_out` if that number is not a whole number of at least 1."
WHOLE = (
    "A whole number is a Python `int` or a NumPy integer of any width; where a product would overflow, convert first."
)
EXACT = "What a function returns is exact and a Python `int`"

problem.promise(
    "count", "Return the number of stored LoRA parameters for one (d_out, d_in) weight.",
    "The factors are A, of shape (r, d_in), and B, of shape (d_out, r); neither has a bias.",
    "`r` may exceed min(d_out, d_in): what is stored is counted, whether or not all of it adds capacity.",
    "Always: the two sides may swap, and twice the rank is twice the count.",
)  # fmt: skip
problem.promise("count_errors", SIZES)
problem.promise("count_numpy", WHOLE, EXACT)


@problem.check(
    "count", points=2, of="lora_param_count", title="one adapter", same=integer,
    concerns=[
        "rectangular weights", "a rank above both sides", "counts beyond 53 bits", "NumPy integers of every width",
        "zero, negative, 4.0",
    ],
    next_step="Write both factors' shapes under each other and add up their entries.",
)  # fmt: skip
def count(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in = sorted(two_sizes(rng))
    yield Case("a wide weight", call("lora_param_count", d_out, d_in, int(rng.integers(2, 4))))
    yield Case("a tall weight", call("lora_param_count", d_in, d_out, int(rng.integers(2, 4))))
    yield Case("a rank above both sides", call("lora_param_count", d_out, d_in, max(d_out, d_in) + 5))
    yield Case("a large count", call("lora_param_count", *large(rng)))
    for ones in ((1, 1, 1), (1, d_in, 2), (d_out, 1, 3), (d_out, d_out, 1)):
        yield corner("sides and ranks of 1, and a square weight", "count", "lora_param_count", *ones)
    yield corner("keywords", "count", "lora_param_count", d_out=d_out, d_in=d_in, r=3)
    yield from refusals("count_errors", "lora_param_count", d_out=d_out, d_in=d_in, rank=2)
    yield from given_by_numpy(rng, "count_numpy", "lora_param_count", right_count, *large(rng))


problem.promise(
    "model",
    "Return the number of LoRA parameters of a model in which every one of `n_layers` blocks has the same weights.",
    "`shapes` is a dict from a weight's name to its (d_out, d_in).",
    "Always: one block more adds one block's count, and an adapter on each target alone adds up to all of them.",
    "A function leaves its arguments as they were.",
)  # fmt: skip
problem.promise(
    "model_targets",
    "`targets` holds the full names of the weights that get an adapter, each name once; it is a list,",
)  # fmt: skip
problem.promise(
    "model_ranks", "`r` is one rank for all targets, or a dict from a target's name to its rank.",
    "Names in `shapes` or in a dict `r` that aren't targets don't count; their numbers are valid too.",
)  # fmt: skip
problem.promise("model_numpy", WHOLE, EXACT)


@problem.check(
    "model", points=3, of="lora_model_params", title="a whole model", same=integer,
    concerns=[
        "grouped-query attention", "targets that are a generator", "names that hold a target's name",
        "a rank for each target", "NumPy integers",
    ],
    next_step="Count one block by hand, target by target, and only then multiply by the number of blocks.",
)  # fmt: skip
def model(rng: Rng) -> Iterator[AnyCase]:
    shapes, layers = block_shapes(rng), int(rng.integers(3, 9))
    some = ["k_proj", "q_proj", "down_proj"]
    yield Case("three rectangular targets", call("lora_model_params", shapes, some, layers, 3))
    yield Case("a fused projection alone", call("lora_model_params", shapes, ["qkv"], layers, 2))
    same = {"q": shapes["up_proj"], "k": shapes["up_proj"], "v": shapes["up_proj"], "o": shapes["k_proj"]}
    yield Case("targets of the same shape", call("lora_model_params", same, ["q", "k", "v"], layers, 3))
    ranks = {"q": 4, "k": 4, "v": 2, "o": 4}
    yield corner("targets of the same shape", "model_ranks", "lora_model_params", same, list(same), layers, ranks)
    named: dict[str, Any] = {"shapes": shapes, "targets": ("up_proj",), "n_layers": layers, "r": 4}
    yield Case("keywords", call("lora_model_params", **named))
    alike = {"q": (5, 7), "qk": (3, 7), "Q": (2, 9), "self.q": (9, 7), "self_q": (4, 3), "q.up": (6, 5), "up": (11, 7)}
    targets = Stream(["q", "up"])
    yield Case(
        "targets from a generator, and names that hold a target's name",
        call("lora_model_params", alike, targets, layers, 3), promise="model_targets",
    )  # fmt: skip
    kinds: tuple[Any, ...] = (
        ["self.q", "Q"],
        ("up", "q.up"),
        {"up": 1, "qk": 0, "Q": None},
        Stream(["self.q"]),
        alike,
        ("q",),
    )
    for kind in kinds:
        yield corner("targets of each kind", "model_targets", "lora_model_params", alike, kind, layers, 3)
    ranks = {"up": 2, "q": int(rng.integers(6, 9)), "self.q": 5}
    yield Case(
        "a rank for each target and one for another weight",
        call("lora_model_params", alike, ["q", "up"], layers, ranks), promise="model_ranks",
    )  # fmt: skip
    ranks |= {"Q": 7, "lm_head": 4}
    for kind in (["up"], Stream(["up", "self.q"]), ("Q", "q"), {"self.q": 1}):
        words = "ranks for names that the block lacks"
        yield corner(words, "model_ranks", "lora_model_params", alike, kind, layers, ranks)
    yield corner(
        "a rank above all sides", "model_ranks", "lora_model_params", alike, ["q", "up"], 1, {"q": 50, "up": 60}
    )
    d_out, d_in, r = large(rng)
    sides = {"q": (d_out, d_in), "up": (d_in, d_in)}
    yield Case("a large count", call("lora_model_params", sides, ["q", "up"], layers, {"q": r, "up": 1}))
    yield from numpy_models(rng, d_out, d_in, r)


def numpy_models(rng: Rng, *numbers: int) -> Iterator[AnyCase]:
    """Yield models whose numbers are NumPy's, with one rank and with a rank for each target."""
    widths = list(of_each_width(*numbers, 9))
    drawn = widths[int(rng.integers(len(WIDTHS)))]

    def model(ranks: bool, d_out: Any, d_in: Any, r: Any, layers: Any) -> tuple[Any, ...]:
        return {"q": (d_out, d_in)}, ["q"], layers, {"q": r} if ranks else r

    for ranks in (False, True):
        for words, given in (("NumPy integers", drawn), ("NumPy integers, all of them int64", of_int64(widths))):
            d_out, d_in, r, layers = map(int, given)
            asked = call("lora_model_params", *model(ranks, *given))
            yield Relation(words, (asked,), python_int(layers * r * (d_out + d_in)), "model_numpy")
        for one in widths:
            words = "NumPy integers of each width"
            yield corner(words, "model_numpy", "lora_model_params", *model(ranks, *one))


problem.promise(
    "err_targets",
    "ValueError naming `target` if there is none, or one that `shapes` (or a dict `r`) doesn't hold;",
)  # fmt: skip
problem.promise(
    "err_numbers", "`n_layers`, `rank`, `d_in` or `d_out` if that number is not a whole number of at least 1."
)


@problem.check(
    "err", points=1, of="lora_model_params", title="a model's invalid input",
    concerns=["zero, negative and fractional numbers", "unknown and empty targets", "messages that name the argument"],
    next_step="Check each number before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in = two_sizes(rng)
    shapes = {"q": (d_out, d_in), "self.v": (d_in, d_out)}
    valid: dict[str, Any] = {"shapes": shapes, "targets": ["q", "self.v"], "n_layers": 2, "r": 2}
    keywords = ("target", "rank", "n_layers", "d_out", "d_in")

    def refusal(words: str, keyword: str, twin: dict[str, Any] | None = None, **changed: Any) -> Refusal:
        others = tuple(other for other in keywords if other != keyword)
        beside = None if twin is None else call("lora_model_params", **valid | twin)
        promise = "err_targets" if keyword == "target" else "err_numbers"
        return Refusal(words, call("lora_model_params", **valid | changed), keyword, beside, others, promise)

    yield refusal("an unknown target", "target", {}, targets=["q", "w"])
    for unknown in ("Q", "q ", "qq", "self", "v", "self_v", "*", ""):
        yield refusal("an unknown target like a known one", "target", targets=["q", unknown])
    for targets in (["w", "q"], ("q", "w"), {"q": 1, "w": 2}, Stream(["q", "w"]), {"w": 1}):
        yield refusal("an unknown target", "target", targets=targets)
    ranks = {"q": 2, "self.v": 3}
    yield refusal("an unknown target that has a rank", "target", {"r": ranks}, targets=["q", "w"], r=ranks | {"w": 2})
    yield refusal("a target without a rank", "target", r={"w": 2})
    for other in ("v", "self", "Self.v", "self.v ", "self_v", "default", "*", ""):
        yield refusal("a target without a rank beside one like it", "target", r={"q": 2, other: 2})
    for lacking in ({}, {"q": 2}, {"self.v": 2}):
        yield refusal("a target without a rank", "target", r=lacking)
    for none in ([], (), {}):
        yield refusal("no target", "target", targets=none)
    yield refusal("no target, with ranks", "target", targets=[], r=ranks)
    yield refusal("a generator without a target", "target", {"targets": Stream(["q"])}, targets=Stream([]))
    yield refusal("a rank of zero for one target", "rank", {"r": ranks}, r=ranks | {"q": 0})
    for words, number in BAD_NUMBERS.items():
        for name, sides in (("d_out", (number, d_in)), ("d_in", (d_out, number))):
            for target in shapes:
                yield refusal(f"{words} as {name}", name, shapes=shapes | {target: sides})
        for r in (number, {"q": number, "self.v": number}, ranks | {"q": number}, ranks | {"self.v": number}):
            yield refusal(f"{words} as rank", "rank", r=r)
        yield refusal(f"{words} as n_layers", "n_layers", n_layers=number)
    words = "a float that equals the valid number"
    yield refusal(f"{words} as rank", "rank", r=2.0)
    yield refusal(f"{words} as n_layers", "n_layers", n_layers=2.0)
    yield refusal(f"{words} as d_in", "d_in", shapes=shapes | {"q": (d_out, float(d_in))})
    yield refusal(f"{words} as d_out", "d_out", shapes=shapes | {"q": (float(d_out), d_in)})


problem.promise(
    "be",
    "Return the largest rank at which LoRA stores strictly fewer numbers than the (d_out, d_in) weight; 0 if none.",
    "Always: the rank itself saves numbers, and the next one doesn't.",
)  # fmt: skip
problem.promise("be_large", "The rank is exact.", "One side may be as large as 10**11, where floats run out of digits;")
problem.promise("be_errors", "ValueError naming `d_in` or `d_out` if that number is not a whole number of at least 1.")
problem.promise("be_numpy", WHOLE, EXACT)


def fitting(k: int, factor: int, saved: int) -> tuple[int, int]:
    """Return two sizes, k + factor and a larger one, whose product is k times their sum, and `saved` more.

    (a - k) (b - k) = k^2 + saved, where the factor must divide the right side.
    """
    return k + factor, k + (k * k + saved) // factor


def badly_rounded(least: int) -> tuple[int, int]:
    """Return sizes of which NumPy's floats make the quotient less than a whole number, which it exceeds slightly."""
    for k, factor, saved in itertools.product(range(least, least + 1_000), (9, 11, 12), (2, 3)):
        if (k * k + saved) % factor == 0:
            a, b = map(np.float64, fitting(k, factor, saved))
            if a * b / (a + b) < k:
                return fitting(k, factor, saved)
    raise AssertionError(f"no sizes are rounded down from {least} on")


@problem.check(
    "be", points=1.5, of="breakeven_rank", title="the break-even rank", same=integer,
    concerns=["sizes where the division is exact", "sizes where no rank saves anything", "a side near 10**11"],
    next_step="Put your rank and the next one into both sides of the strict inequality.",
)  # fmt: skip
def be(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in = two_sizes(rng)
    yield Case("any two sizes", call("breakeven_rank", d_out, d_in))
    k, factor = int(rng.integers(3, 9)), int(rng.choice([1, 2]))
    k *= factor
    yield Case("sizes where the division is exact", call("breakeven_rank", *fitting(k, factor, 0)))
    yield Case("sizes where one number is saved", call("breakeven_rank", *fitting(k, 1, 1)))
    yield Case("a single row", call("breakeven_rank", 1, d_in))
    for sizes in (
        (1, 1),
        (d_in, 1),
        (2, 1),
        (2, 2),
        (2, 3),
        (3, 2),
        (3, 3),
        (6, 3),
        (d_in, d_in),
        fitting(k, 1, -1)[::-1],
    ):
        yield corner("small sizes", "be", "breakeven_rank", *sizes)
    for sizes in ((10**11, 1), (2, 10**11), (10**11, 3), (10**11, 1_000), (999, 10**11 - 1)):
        yield corner("a long side and a short one", "be_large", "breakeven_rank", *sizes)
    yield corner("keywords", "be", "breakeven_rank", d_out=d_out, d_in=d_in)
    yield from refusals("be_errors", "breakeven_rank", d_out=d_out, d_in=d_in)
    # The quotient is k + 1e-11, k or k - 1e-11, which are one float; a loop up to k is quick.
    k = 270_000 + d_in
    sizes = fitting(k, 1, 1)
    yield corner("very large sizes where one number is saved", "be_large", "breakeven_rank", *sizes)
    for sizes in (fitting(k, 1, 0), fitting(k, 1, -1)[::-1], badly_rounded(900_000 + d_in)[::-1]):
        yield corner("very large sizes where the division is nearly exact", "be_large", "breakeven_rank", *sizes)
    numbers = (10**9 + d_out, 1_001)
    yield from given_by_numpy(rng, "be_numpy", "breakeven_rank", right_breakeven, *numbers)


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


problem.promise(
    "dof", "Return the dimension of the set of (d_out, d_in) matrices B @ A with factors of rank r.",
    "It is the rank of the Jacobian of (A, B) -> B @ A at generic factors: what the stored numbers can really move.",
)  # fmt: skip
problem.promise("dof_full", "Always: from full rank on, every matrix can be reached.")
problem.promise("dof_errors", SIZES)
problem.promise("dof_numpy", WHOLE, EXACT)


@problem.check(
    "dof", points=1.5, of="low_rank_dof", title="degrees of freedom, against the Jacobian's rank", same=integer,
    concerns=[
        "numbers that move nothing", "a rank above one side", "large and square weights", "zero, negative, 4.0",
    ],
    next_step="Count which changes of A and B leave B @ A as it is, and subtract them.",
)  # fmt: skip
def dof(rng: Rng) -> Iterator[AnyCase]:
    d_out, d_in = two_sizes(rng, 3, 7)
    for words, r, promise in (("a low rank", 2, "dof"), ("above the smaller side", min(d_out, d_in) + 1, "dof_full")):
        found = equals(jacobian_rank(d_out, d_in, r))
        yield Relation(f"{words}, counted by the Jacobian", (call("low_rank_dof", d_out, d_in, r),), found, promise)
    large_side, small = sorted(two_sizes(rng, 50, 500), reverse=True)
    yield Case("a large weight", call("low_rank_dof", large_side, small, int(rng.integers(4, 17))))
    yield Case("a rank above both sides", call("low_rank_dof", small, large_side, large_side + 1), promise="dof_full")
    yield Case("a rank between the sides", call("low_rank_dof", large_side, small, small + 1), promise="dof_full")
    yield corner("a rank of the smaller side", "dof_full", "low_rank_dof", large_side, small, small)
    for r in (1, small // 2, small - 1):
        yield corner("other ranks below the smaller side", "dof", "low_rank_dof", small, large_side, r)
        yield corner("square weights", "dof", "low_rank_dof", small, small, r)
    for sizes in ((1, 1), (1, small), (small, 1), (small, small)):
        for r in (1, 2, small, small + 1):
            promise = "dof_full" if r >= min(sizes) else "dof"
            yield corner("single rows and columns, and square weights", promise, "low_rank_dof", *sizes, r)
    yield corner("keywords", "dof", "low_rank_dof", d_out=large_side, d_in=small, r=3)
    d_out, d_in, r = large(rng)
    yield Case("a large number", call("low_rank_dof", d_out, d_in, r))
    yield from refusals("dof_errors", "low_rank_dof", d_out=d_out, d_in=d_in, rank=2)
    yield from given_by_numpy(rng, "dof_numpy", "low_rank_dof", right_dof, d_out, d_in, r)


problem.promise(
    "mem", "Return the bytes of a LoRA run's weights, gradients and optimizer state.",
    "The `n_base` frozen parameters take `base_bytes_per_param` each, which may be fractional for quantised weights; "
    "the `n_lora` trained ones take `lora_bytes_per_param` each (16: weight, gradient and two Adam moments in fp32).",
    "Either number of parameters may be 0.", "Always: a frozen parameter needs no optimizer state.",
)  # fmt: skip
problem.promise(
    "mem_rounding",
    "The total is rounded to the nearest byte once, at the end; it's never halfway between two bytes, and stays below",
)
problem.promise("mem_numpy", EXACT)


@problem.check(
    "mem", points=1, of="lora_training_bytes", title="bytes of a run", same=integer,
    concerns=["fractional bytes a parameter", "one rounding", "another optimizer", "billions of parameters"],
    next_step="Price the frozen and the trained parameters apart, add, and round the sum.",
)  # fmt: skip
def mem(rng: Rng) -> Iterator[AnyCase]:
    n_lora, n_base = int(rng.integers(1_000, 9_999)), int(rng.integers(6 * 10**9, 8 * 10**9))
    yield Case("a bf16 base of billions", call("lora_training_bytes", n_base, n_lora, 2.0))
    yield Case("8 bytes for each trained parameter", call("lora_training_bytes", 10**6 + 3, n_lora, 4.0, 8))
    yield Case("nothing trained", call("lora_training_bytes", n_lora, 0, 2.0))
    yield Case("no frozen base", call("lora_training_bytes", 0, n_lora, 2.0, lora_bytes_per_param=12))
    for words, numbers in (
        ("nothing at all", (0, 0, 2.0)), ("one parameter of each kind", (1, 1, 4.0, 1)), ("keywords", ()),
        ("a base of hundreds of billions", (4 * 10**11 + n_lora, n_lora, 2.0)),
        ("trained parameters of billions", (n_base, 10**9 + n_lora, 1.0)),
        ("bytes as a Python int", (n_base, n_lora, 2, 12)),
    ):  # fmt: skip
        named = {"lora_bytes_per_param": 8, "base_bytes_per_param": 0.5, "n_lora": n_lora, "n_base": 2 * n_lora}
        yield corner(words, "mem", "lora_training_bytes", *numbers, **({} if numbers else named))
    for fraction in (0.15, 0.85):
        # Choose the count so that the total's fraction is known: what truncates fails on one, what rounds up on both.
        n_base = with_fraction(int(rng.integers(10**6, 10**7)), fraction)
        yield Case("a 4-bit base", call("lora_training_bytes", n_base, n_lora, 0.51587), promise="mem_rounding")
    for first, fraction in itertools.product((0, 10**6, 6 * 10**9, 10**12), (0.03, 0.3, 0.46, 0.54, 0.7, 0.97)):
        numbers = (with_fraction(first + n_lora, fraction), n_lora, 0.51587)
        yield corner("a 4-bit base of each size", "mem_rounding", "lora_training_bytes", *numbers)
    numbers = (np.int64(2 * n_lora), np.int64(n_lora), 2.0, np.int64(8))
    asked = (call("lora_training_bytes", *numbers),)
    yield Relation("NumPy integers", asked, python_int(12 * n_lora), "mem_numpy")
    for numbers in (
        (np.int64(16 * n_lora), n_lora, np.float64(0.5625)), (n_base, np.int64(n_lora), np.float64(2.0), np.int64(16)),
        (np.uint64(n_base), np.uint64(n_lora), 2, np.uint64(8)), (np.uint64(n_base), np.int64(n_lora), 2.0, 16),
    ):  # fmt: skip
        yield corner("NumPy's numbers of 64 bits", "mem_numpy", "lora_training_bytes", *numbers)


def with_fraction(first: int, fraction: float) -> int:
    """Return a number of parameters, from the first on, whose bytes at 0.51587 each have nearly this fraction."""
    return next(n for n in range(first, first + 10**6) if abs(n * 0.51587 % 1 - fraction) < 0.01)


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

SLIPS: list[tuple[str, str, dict[str, str], str, str]] = [
    ("rank_zero_ok", "lora_param_count", {'whole(r, "rank")': '0 if r == 0 else whole(r, "rank")'},
     "A rank of zero gets a count instead of an error.",
     "An adapter of rank 0 is a set-up error: refuse it by name."),
    ("numpy_rank_refused", "lora_param_count", {'whole(r, "rank")': 'whole(r if type(r) is int else 0, "rank")'},
     "Your function refuses NumPy integers, which are whole numbers too.",
     "`isinstance(value, (int, np.integer))` holds for both kinds of whole numbers."),
    ("one_layer_only", "lora_model_params", {"n_layers * sum": "sum"},
     "Your count holds one block only.", "Every block has adapters of its own."),
    ("gqa_ignored", "lora_model_params", {"*shapes[name]": "shapes[name][1], shapes[name][1]"},
     "Your count takes every weight to be as tall as it is wide.",
     "With grouped-query heads, k and v have fewer rows."),
    ("first_shape_for_all", "lora_model_params", {"*shapes[name]": "*shapes[names[0]]"},
     "Your count uses the first target's shape for all of them.", "Look up each target's own shape."),
    ("all_shapes_not_targets", "lora_model_params",
     {"for name in names}": "for name in shapes}", "for name in names)": "for name in shapes)"},
     "Your count adapts every weight of the block.", "Loop over the targets."),
    ("first_rank_for_all", "lora_model_params", {"ranks[name]": "ranks[names[0]]"},
     "Your count uses one target's rank for all of them.", "Look up each target's own rank."),
    ("fused_counted_as_three", "lora_model_params", {"sum(": """sum(
        3 * lora_param_count(shapes[name][1], shapes[name][1], ranks[name])
        if shapes[name][0] == 3 * int(shapes[name][1]) else """},
     "Your count gives a fused projection three adapters.", "It is one weight, with one pair of factors."),
    ("consumes_generator", "lora_model_params", {"list(targets)": "targets"},
     "Your function walks through `targets` twice; a generator is empty the second time.",
     "Make a list of the targets first."),
    ("silent_unknown_target", "lora_model_params", {"list(targets)": "[name for name in targets if name in shapes]"},
     "A target that the model doesn't have is left out in silence.",
     "A misspelt target must be an error, or a run trains less than its author thinks."),
    ("empty_targets_zero", "lora_model_params",
     {'raise ValueError("target: name at least one weight to adapt, got none")': "return 0"},
     "A model without any target gets the count 0 instead of an error.",
     "Raise a ValueError that names the target when there is none."),
    ("names_by_prefix", "lora_model_params",
     {"list(targets)": "[name for target in targets for name in shapes if name.startswith(target)]"},
     "Your count adapts every weight whose name begins like a target.", "Compare whole names."),
    ("all_ranks_not_targets", "lora_model_params",
     {"for name in names)": "for name in (r if isinstance(r, Mapping) else names))", "for name in names}":
     "for name in (r if isinstance(r, Mapping) else names)}"},
     "Your count adapts every weight that has a rank.", "The targets say which weights get an adapter."),
    ("pops_shapes", "lora_model_params", {"*shapes[name]": "*shapes.pop(name)"},
     "Your function takes the targets out of the caller's `shapes`.", "Look a shape up: `shapes[name]`."),
    ("breakeven_not_strict", "breakeven_rank", {"d_in - 1": "d_in"},
     "Your rank is one too large where the division is exact: there LoRA stores as much as the weight.",
     "Put your rank into the strict inequality."),
    ("breakeven_half_side", "breakeven_rank", {"(d_out * d_in - 1) // (d_out + d_in)": "(min(d_out, d_in) - 1) // 2"},
     "Your rank is half the smaller side, which is right for square weights only.", "Solve the inequality for r."),
    ("breakeven_in_floats", "breakeven_rank",
     {"(d_out * d_in - 1) // (d_out + d_in)": "int(np.ceil(d_out * d_in / (d_out + d_in))) - 1"},
     "Your division is made in floating point, which runs out of digits for large weights.",
     "Stay in integers: `//` divides without rounding."),
    ("dof_no_gauge", "low_rank_dof", {"d_in - r": "d_in"},
     "Your number counts all stored numbers; some of them move nothing.",
     "Which (r, r) matrices G leave (B G)(G^-1 A) equal to B A?"),
    ("dof_not_clipped", "low_rank_dof", {"min(r, d_out, d_in)": "r"},
     "Your formula goes on past full rank, where there is nothing more to reach.",
     "A (d_out, d_in) matrix has rank min(d_out, d_in) at most."),
    ("dof_half_gauge", "low_rank_dof", {"r * (d_out + d_in - r)": "r * (d_out + d_in) - r * (r - 1) // 2"},
     "Your formula subtracts fewer than half of the numbers that move nothing, as if G had to be orthogonal.",
     "Any invertible G will do: count its entries."),
    ("mem_charges_base_16", "lora_training_bytes", {"float(base_bytes_per_param)": "lora_bytes_per_param"},
     "Your total gives the frozen base gradients and optimizer state too.",
     "What does the optimizer keep for a parameter that it never changes?"),
    ("mem_truncates", "lora_training_bytes", {"round(": "int("},
     "Your total is cut off instead of rounded.", "`int` cuts; `round` rounds."),
    ("mem_rounds_each", "lora_training_bytes", {"float(base_bytes_per_param)": "round(base_bytes_per_param)"},
     "Your total rounds the bytes of one parameter before multiplying.", "Round once, at the end."),
    ("mem_ignores_optimizer", "lora_training_bytes", {"int(lora_bytes_per_param)": "16"},
     "Your total always takes 16 bytes for a trained parameter.", "Use the argument."),
    ("mem_without_base", "lora_training_bytes", {"int(n_base) * float(base_bytes_per_param) + ": ""},
     "Your total leaves the frozen base out; it isn't trained, but it's in memory.",
     "The forward pass needs the base's weights."),
]  # fmt: skip
for name, function, edits, says, next_step in SLIPS:
    problem.slip(name, function, edits, says=says, next_step=next_step)


def numpy_int(name: str, function: str, formula: str) -> None:
    """Register the slip that returns a NumPy integer."""
    problem.slip(
        name, function, {formula: f"np.int64({formula})"},
        says="Your number is a NumPy integer.", next_step="Turn the arguments into Python ints before computing.",
    )  # fmt: skip


def unchecked(name: str, function: str, argument: str, keyword: str, taken: str = "int({})") -> None:
    """Register the slip that takes an argument which isn't a whole number of at least 1."""
    problem.slip(
        name, function, {f'whole({argument}, "{keyword}")': taken.format(argument)},
        says=f"Where {keyword} isn't a whole number of at least 1, your function returns a number.",
        next_step="Check every number in each function, and name it in a ValueError.",
    )  # fmt: skip


numpy_int("count_by_numpy", "lora_param_count", "d_out * r + r * d_in")
unchecked("float_rank_counts", "lora_param_count", "r", "rank", 'whole(int({}), "rank")')
numpy_int(
    "model_by_numpy",
    "lora_model_params",
    "n_layers * sum(lora_param_count(*shapes[name], ranks[name]) for name in names)",
)
unchecked("layers_unchecked", "lora_model_params", "n_layers", "n_layers")
numpy_int("breakeven_by_numpy", "breakeven_rank", "(d_out * d_in - 1) // (d_out + d_in)")
unchecked("breakeven_unchecked", "breakeven_rank", "d_out", "d_out")
numpy_int("dof_by_numpy", "low_rank_dof", "r * (d_out + d_in - r)")
unchecked("dof_unchecked", "low_rank_dof", "r", "rank")
numpy_int("mem_by_numpy", "lora_training_bytes", "round(int(n_base) * float(base_bytes_per_param) + trained)")
