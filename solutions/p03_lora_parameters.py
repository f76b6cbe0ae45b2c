"""Count LoRA parameters: contracts and references.

Counting is integer arithmetic, so everything stays a Python int until the one rounding in `lora_training_bytes`.
"""

from collections.abc import Iterable, Mapping

import numpy as np


def lora_param_count(d_out: int, d_in: int, r: int) -> int:
    """Return the number of stored LoRA parameters for one (d_out, d_in) weight.

    The factors are A, of shape (r, d_in), and B, of shape (d_out, r); neither has a bias. `r` may exceed
    min(d_out, d_in): what is stored is counted, whether or not all of it adds capacity.

    Errors: ValueError naming `rank`, `d_in` or `d_out` if that number is not a whole number of at least 1.

    >>> lora_param_count(5, 3, 2)
    16

    Always: the two sides may swap, and twice the rank is twice the count.

    >>> all(lora_param_count(a, b, r) == lora_param_count(b, a, r) for a, b, r in [(5, 3, 2), (7, 4, 9)])
    True
    >>> all(lora_param_count(a, b, 2 * r) == 2 * lora_param_count(a, b, r) for a, b, r in [(5, 3, 2), (7, 4, 9)])
    True
    >>> lora_param_count(np.int32(50_000), np.int32(50_000), np.int32(30_000))
    3000000000
    >>> lora_param_count(5, 3, 4.0)
    Traceback (most recent call last):
    ValueError: ...
    """
    d_out, d_in, r = whole(d_out, "d_out"), whole(d_in, "d_in"), whole(r, "rank")
    # B holds d_out * r numbers and A holds r * d_in: a sum, although the update B @ A has d_out * d_in entries.
    return d_out * r + r * d_in


def lora_model_params(
    shapes: Mapping[str, tuple[int, int]], targets: Iterable[str], n_layers: int, r: int | Mapping[str, int]
) -> int:
    """Return the number of LoRA parameters of a model in which every one of `n_layers` blocks has the same weights.

    `shapes` maps a weight's name to its (d_out, d_in). `targets` holds the full names of the weights that get an
    adapter, each name once; it may be any iterable, also a generator. `r` is one rank for all targets, or a mapping
    from a target's name to its rank. Names in `shapes` or in a mapping `r` that aren't targets don't count.

    Errors: ValueError naming `target` if there is none, or one that `shapes` (or a mapping `r`) doesn't hold;
    `n_layers`, `rank`, `d_in` or `d_out` if that number is not a whole number of at least 1.

    >>> lora_model_params({"q": (4, 4), "v": (2, 4), "up": (8, 4)}, ["q", "v"], n_layers=3, r=2)
    84
    >>> lora_model_params({"q": (4, 4), "q_2": (2, 4), "up": (8, 4)}, iter(["q", "up"]), 3, {"q": 2, "up": 1, "q_2": 5})
    84

    Always: one block more adds one block's count, and an adapter on each target alone adds up to all of them.

    >>> shapes = {"q": (6, 6), "k": (2, 6), "up": (9, 6)}
    >>> lora_model_params(shapes, ["q", "k"], 5, 2) == 5 * lora_model_params(shapes, ["q", "k"], 1, 2)
    True
    >>> lora_model_params(shapes, shapes, 2, 3) == sum(lora_model_params(shapes, [name], 2, 3) for name in shapes)
    True
    >>> lora_model_params(shapes, ["q", "wq"], 2, 3)  # err
    Traceback (most recent call last):
    ValueError: ...
    """
    # A generator can be walked only once: keep what it gave before checking and summing.
    names = list(targets)
    n_layers = whole(n_layers, "n_layers")
    if not names:
        raise ValueError("target: name at least one weight to adapt, got none")
    for name in names:
        if name not in shapes or (isinstance(r, Mapping) and name not in r):
            raise ValueError(f"target {name!r} is unknown; known are {', '.join(shapes)}")
    ranks = {name: r[name] if isinstance(r, Mapping) else r for name in names}
    return n_layers * sum(lora_param_count(*shapes[name], ranks[name]) for name in names)


def breakeven_rank(d_out: int, d_in: int) -> int:
    """Return the largest rank at which LoRA stores strictly fewer numbers than the (d_out, d_in) weight; 0 if none.

    The rank is exact. One side may be as large as 10**11, where floats run out of digits; the other stays below 10**6,
    so a loop that counts the rank up is fast enough.

    Errors: ValueError naming `d_in` or `d_out` if that number is not a whole number of at least 1.

    >>> breakeven_rank(6, 4)
    2
    >>> breakeven_rank(1, 9)
    0

    Always: the rank itself saves numbers, and the next one doesn't.

    >>> sizes = [(6, 4), (7, 5), (12, 9), (30, 2)]
    >>> all(breakeven_rank(a, b) * (a + b) < a * b <= (breakeven_rank(a, b) + 1) * (a + b) for a, b in sizes)
    True
    >>> breakeven_rank(0, 9)
    Traceback (most recent call last):
    ValueError: ...
    """
    d_out, d_in = whole(d_out, "d_out"), whole(d_in, "d_in")
    # r < product / sum, strictly: where the division is exact, the quotient itself no longer saves anything.
    return (d_out * d_in - 1) // (d_out + d_in)


def low_rank_dof(d_out: int, d_in: int, r: int) -> int:
    """Return the dimension of the set of (d_out, d_in) matrices B @ A with factors of rank r.

    It is the rank of the Jacobian of (A, B) -> B @ A at generic factors: what the stored numbers can really move.

    Errors: ValueError naming `rank`, `d_in` or `d_out` if that number is not a whole number of at least 1.

    >>> low_rank_dof(5, 3, 2)
    12

    Always: from full rank on, every matrix can be reached.

    >>> low_rank_dof(5, 3, 3) == low_rank_dof(5, 3, 8) == 15
    True
    >>> low_rank_dof(5, 3, 0)
    Traceback (most recent call last):
    ValueError: ...
    """
    d_out, d_in, r = whole(d_out, "d_out"), whole(d_in, "d_in"), whole(r, "rank")
    r = min(r, d_out, d_in)
    # B @ A = (B @ G) @ (G^-1 @ A) for every invertible (r, r) matrix G: r * r of the stored numbers move nothing.
    return r * (d_out + d_in - r)


def lora_training_bytes(n_base: int, n_lora: int, base_bytes_per_param: float, lora_bytes_per_param: int = 16) -> int:
    """Return the bytes of a LoRA run's weights, gradients and optimizer state.

    The `n_base` frozen parameters take `base_bytes_per_param` each, which may be fractional for quantised weights;
    the `n_lora` trained ones take `lora_bytes_per_param` each (16: weight, gradient and two Adam moments in fp32).
    Either number of parameters may be 0. The total is rounded to the nearest byte once, at the end; it's never halfway
    between two bytes.

    >>> lora_training_bytes(1000, 10, 2.0)
    2160
    >>> lora_training_bytes(1003, 10, 0.51)
    672

    Always: a frozen parameter needs no optimizer state.

    >>> lora_training_bytes(1001, 10, 2.0) - lora_training_bytes(1000, 10, 2.0)
    2
    """
    # Python's own ints have no width at which NumPy's would overflow.
    trained = int(n_lora) * int(lora_bytes_per_param)
    return round(int(n_base) * float(base_bytes_per_param) + trained)


def whole(value: int, name: str) -> int:
    """Return a whole number of at least 1 as a Python int, or raise ValueError with its name."""
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)
