"""How prefixes are judged: with grouped heads, so that every way of repeating and every wrong width shows."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from ftgrade.judging.corners import as_views, corners, expanded, in_dtype, wanting_gradients
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
    Value,
    call,
    finite,
    integer,
)

problem = Problem(part="04_parameter_efficient", difficulty=4, importance=3, minutes=60)

Tensor = torch.Tensor
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
SIZES = ("n_layers", "n_prefix")


def refusal(words: str, bad: Call, keyword: str, promise: str, twin: Call | None = None, also: str = "") -> Refusal:
    """Return the case of an error; a message with all keywords of the function's other errors names nothing.

    A message about heads may tell their shapes, so `multiple` may stand beside `shape`.
    """
    others = {"multiple": (), "shape": ("multiple",)}.get(keyword, tuple({*SIZES, also} - {keyword, ""}))
    return Refusal(words, bad, keyword, twin, others, promise)


def typed(words: str, asked: Call, count: int) -> Relation:
    """Return the case that a count is a Python int; a wrong count gets nothing for its type."""

    def holds(got: Value) -> Difference | None:
        if type(got.value) is int and got.value == count:
            return None
        return Difference("a count is a Python int" if type(got.value) is not int else "the count differs")

    return Relation(words, (asked,), holds, "ints")


# ------------------------------------------------------------------------------------------------------------ checks

problem.promise(
    "ints", "as a Python `int`", "an `int`", "Counts are Python `int`s, neither floats nor NumPy's integers."
)
problem.promise(
    "count", "Return the number of parameters of key-value prefixes in every layer",
    "In each layer every key-value head gets `n_prefix` extra keys and as many extra values, each of width `head_dim`.",
)  # fmt: skip
COUNT_ERRORS = problem.promise(
    "sizes", "ValueError naming `n_layers` (less than 1) or `n_prefix` (negative; 0 is a prefix"
)


@problem.check(
    "count", points=2, of="prefix_params", title="all prefixes", same=integer,
    concerns=["several layers and heads", "a prefix of length 0", "the type of a count", "invalid counts"],
    next_step="How many keys does one head of one layer get, and how many values?",
)  # fmt: skip
def count(rng: Rng) -> Iterator[AnyCase]:
    layers, m, heads, width = (int(number) for number in rng.choice([3, 5, 7, 11, 13], size=4, replace=False))
    several = call("prefix_params", layers, m, heads, width)
    yield Case("several layers and heads", several)
    yield Case("one layer, one key-value head", call("prefix_params", 1, m, 1, width))
    nothing = call("prefix_params", layers, 0, heads, width)
    yield Case("a prefix of length 0", nothing)
    yield Case("sizes of 1", call("prefix_params", 1, 1, 1, 1), once=True)
    yield Case("a large count", call("prefix_params", 3, 2**40 + m, 5, width), once=True)
    yield typed("the type of a count", several, 2 * layers * m * heads * width)
    for twin, number in ((nothing, -1), (None, -2), (None, -m), (None, -(10**9))):
        bad = call("prefix_params", layers, number, 2, 4)
        yield refusal("a negative prefix", bad, "n_prefix", COUNT_ERRORS, twin)
    for number in (0, -1, -layers, -(10**9)):
        for length in (m, 0):
            bad = call("prefix_params", number, length, 2, 4)
            yield refusal("less than one layer", bad, "n_layers", COUNT_ERRORS, several if number == 0 else None)


def config(rng: Rng) -> dict[str, Any]:
    """Return a configuration with grouped-query attention."""
    share, kv, width = int(rng.integers(2, 5)), int(rng.integers(2, 5)), int(rng.choice([8, 12, 20]))
    heads = share * kv
    return {
        "hidden_size": heads * width, "num_attention_heads": heads, "num_hidden_layers": int(rng.integers(3, 9)),
        "num_key_value_heads": kv,
    }  # fmt: skip


problem.promise(
    "cfg", "Return the same number for a model's configuration, which may hold other keys too.",
    "fewer key-value heads need fewer parameters, and a `head_dim` counts before the quotient.",
)  # fmt: skip
OPTIONAL = problem.promise(
    "optional", "an optional key may be missing or None.",
    "Without the first, every attention head has keys and values of its own; without the second, the heads share the "
    "hidden size out evenly.", "A function leaves its arguments as they were, the configuration too.",
)  # fmt: skip
CONFIG_ERRORS = problem.promise(
    "invalid", "ValueError naming `n_layers` or `n_prefix` as in `prefix_params`.",
    "If `head_dim` isn't given and the hidden size isn't divisible by the number of attention heads, the message",
)  # fmt: skip


@problem.check(
    "cfg", points=2.5, of="prefix_params_from_config", title="from a configuration", same=integer,
    concerns=["grouped-query attention", "keys that are missing or None", "a head_dim of its own", "invalid ones"],
    next_step="Write down which heads have keys, and how wide one of them is.",
)  # fmt: skip
def cfg(rng: Rng) -> Iterator[AnyCase]:
    given, m = config(rng), int(rng.integers(5, 30))
    width = given["hidden_size"] // given["num_attention_heads"]

    def ask(n_prefix: int = m, **keys: Any) -> Call:
        return call("prefix_params_from_config", given | keys, n_prefix)

    yield Case("grouped-query attention", ask(vocab_size=32_000, model_type="llama"))
    yield Case("a head_dim of its own", ask(head_dim=width + 3))
    odd_keys: dict[str, Any] = {
        "n_layers": 99,
        "n_kv_heads": 99,
        "d_model": 1,
        "head_size": 99,
        "kv_channels": 99,
        "d_kv": 99,
        "v_head_dim": 99,
        "multi_query": True,
        "num_layers": 99,
        "n_layer": 99,
        "num_decoder_layers": 99,
        "num_kv_heads": 99,
        "num_query_groups": 99,
        "attention_head_size": 99,
        "rope": {"dim": 7},
    }
    yield Case("other keys that sound alike", ask(**odd_keys), once=True)
    bare = {name: value for name, value in given.items() if name != "num_key_value_heads"}
    for name, value in odd_keys.items():
        alone = call("prefix_params_from_config", bare | {name: value}, m)
        yield Case("a key that sounds alike where an optional one is missing", alone, once=True)
    yield Case("a large count", ask(2**34 + 1), once=True)
    yield Case("a prefix of length 0", ask(0), once=True)
    yield Case("no word of key-value heads", call("prefix_params_from_config", bare, m), promise=OPTIONAL)
    yield Case("optional keys that are None", ask(num_key_value_heads=None, head_dim=None), promise=OPTIONAL)
    heads, kv = given["num_attention_heads"], given["num_key_value_heads"]
    total = 2 * given["num_hidden_layers"] * m * kv * width
    yield typed("the type of a count", ask(), total)
    few: tuple[dict[str, Any], ...] = (
        {},
        {"num_key_value_heads": None},
        *({"num_key_value_heads": n} for n in (1, kv, heads)),
    )
    unknown: tuple[dict[str, Any], ...] = ({}, {"head_dim": None})
    known = tuple({"head_dim": number} for number in (width, width + 3, 1))
    for some, wide in itertools.product(few, (*unknown, *known)):
        words = "each optional key given, None or missing"
        yield Case(words, call("prefix_params_from_config", bare | some | wide, m), promise=OPTIONAL, once=True)
        for number in (-1, -m):
            bad = call("prefix_params_from_config", bare | some | wide, number)
            yield refusal("a negative prefix", bad, "n_prefix", CONFIG_ERRORS, also="divisible")
        for number in (0, -1, -2):
            bad = call("prefix_params_from_config", bare | some | wide | {"num_hidden_layers": number}, m)
            yield refusal("less than one layer", bad, "n_layers", CONFIG_ERRORS, also="divisible")
    for some, rest in itertools.product(few, (1, kv, heads - 1)):
        odd = bare | some | {"hidden_size": given["hidden_size"] + rest}
        for wide in unknown:
            bad, twin = (call("prefix_params_from_config", odd | one, m) for one in (wide, known[1]))
            words = "a hidden size that can't be shared out"
            yield refusal(words, bad, "divisible", CONFIG_ERRORS, twin, also="divisible")
            empty = call("prefix_params_from_config", odd | wide, 0)
            yield refusal(f"{words}, a prefix of length 0", empty, "divisible", CONFIG_ERRORS, also="divisible")


problem.promise(
    "reparam", "Return the number of parameters of the network that makes the prefixes while they are trained",
    "An embedding holds `n_prefix` vectors of width `d_embed`; a linear layer to `hidden` and, after an activation, "
    "one to all keys and values of all layers follow, both with biases.",
    "`d_kv` is the width of all key-value heads together.",
)  # fmt: skip


@problem.check(
    "reparam", points=1, of="reparam_params", title="the network that makes them", same=integer,
    concerns=["embedding, two matrices and two biases", "the type of a count"],
    next_step="Draw the network and write each layer's shape beside it.",
)  # fmt: skip
def reparam(rng: Rng) -> Iterator[AnyCase]:
    sizes = [int(number) for number in rng.choice([3, 5, 7, 11, 13, 17], size=5, replace=False)]
    yield Case("five different sizes", call("reparam_params", *sizes))
    yield Case("one layer", call("reparam_params", 1, *sizes[1:]))
    yield Case("sizes of 1", call("reparam_params", 1, 1, 1, 1, 1), once=True)
    yield Case("a prefix of length 0", call("reparam_params", sizes[0], 0, *sizes[2:]), once=True)
    layers, m, d_kv, d_embed, hidden = sizes
    total = m * d_embed + (d_embed + 1) * hidden + (hidden + 1) * 2 * layers * d_kv
    yield typed("the type of a count", call("reparam_params", *sizes), total)


Sizes = tuple[int, int, int, int, int, int]
LAYOUTS: tuple[Sizes, ...] = (
    (6, 2, 5, 3, 4, 2), (6, 3, 1, 5, 3, 1), (4, 1, 3, 4, 5, 2), (3, 3, 2, 6, 1, 2), (1, 1, 4, 1, 3, 2),
    (8, 4, 2, 1, 3, 1), (4, 2, 0, 5, 3, 2), (2, 2, 0, 1, 2, 3),
)  # fmt: skip
"""Numbers of heads, key-value heads, prefix positions and times, the width of a head, and the batch."""


def tensors(rng: Rng, heads: int, kv_heads: int, m: int, time: int = 4, width: int = 2, batch: int = 3) -> Five:
    """Return q, k, v, pk and pv in float64."""
    sequence, prefix = (batch, kv_heads, time, width), (kv_heads, m, width)
    shapes = ((batch, heads, time, width), sequence, sequence, prefix, prefix)
    q, k, v, pk, pv = (torch.from_numpy(rng.normal(size=shape)) for shape in shapes)
    return q, k, v, pk, pv


def far_apart(rng: Rng) -> Five:
    """Return a batch whose scores are large: of either sign in the first row, below -20,000 in the others."""
    q, k, v, pk, pv = tensors(rng, 4, 2, 3)
    q[1:], k[1:], pk = q[1:].abs() + 2.0, -(k[1:].abs() + 2.0), -(pk.abs() + 2.0)
    return 75 * q, 75 * k, v, 75 * pk, pv


FAR_PREFIXES = ((-1e5, -1e5), (1e5, 1e5), (-1e5, 1e5), (0.0, 0.0))
FAR_SEQUENCES = (
    (-1e5, -1e5, 1e5), (1e5, 1e5, -1e5), (-1e5, 1e5, -1e5), (1e5, -1e5, 1e5), (-1e5, -1e5, -1e5), (-1e4, -1e4, 1e4),
    (-2e4, -3e3, 2e4), (-3e3, 2e3, 5e4), (0.0, 0.0, 1e3),
)  # fmt: skip


def as_far_as_promised(rng: Rng, m: int) -> Five:
    """Return tensors with all pairs of these scores of a prefix and of a sequence, which float32 holds exactly.

    Two query heads share the keys; the second turns all signs round.
    """
    kv_heads, batch, time = len(FAR_PREFIXES), len(FAR_SEQUENCES), len(FAR_SEQUENCES[0])
    q, k, v, pk, pv = tensors(rng, 2 * kv_heads, kv_heads, m, time, 4, batch)
    q, k, pk = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(pk)
    q[:, ::2, :, 0], q[:, 1::2, :, 0] = 800.0, -800.0  # divided by the root of 4
    k[..., 0] = torch.tensor(FAR_SEQUENCES)[:, None] / 400
    pk[..., 0] = torch.tensor(FAR_PREFIXES)[:, :m] / 400
    return q, k, v, pk, pv


def nearly_equal(single: Value, double: Value) -> Difference | None:
    """Hold float32 to give what float64 gives, to 2 %: a logarithm near 100,000 has no more digits in float32."""
    return finite(double) or Close(rtol=0.02)(double.value, single.value)


def used(function: str, five: Five) -> tuple[Tensor, ...]:
    """Return those of the five tensors that a function takes."""
    q, k, v, pk, pv = five
    return (q, k, v, pk, pv) if function == "prefix_attention" else (q, k, pk)


def asking(function: str, five: Five, *causal: bool) -> Call:
    """Return a call that asks for the gradients of all tensors that hold numbers.

    Without a prefix the gate is 0 whatever the tensors hold, so it may be a constant that has no gradient.
    """
    constant = function == "prefix_gate" and five[3].numel() == 0
    given = (part.clone().requires_grad_(part.numel() > 0 and not constant) for part in used(function, five))
    return call(function, *given, *causal, backward=not constant)


def in_every_layout(rng: Rng, function: str) -> Iterator[AnyCase]:
    """Yield a function's corners: other sizes, dtypes, views, gradients, both ways to look, and far scores."""
    for sizes in LAYOUTS:
        five = tensors(rng, *sizes)
        five[1][:, :, 0] = 0.0  # a score of 0 counts like any other
        asked = Case("other sizes, with gradients", asking(function, five, True), once=True)
        yield asked
        yield in_dtype(torch.float32)(asked)
        both_ways = Case("other sizes, not causal, with gradients", asking(function, five, False))
        yield as_views(in_dtype(torch.float32)(both_ways))
    five = tensors(rng, 4, 2, 3)
    yield Case("causal by default, with gradients", asking(function, five), once=True)
    for causal in (True, False):
        plain = Case("four heads on two", call(function, *used(function, five), causal=causal))
        yield from corners(plain, in_dtype(torch.float32), as_views, expanded)
    trained = [part.clone() for part in five]
    trained[3].requires_grad_()
    some = (trained[0], trained[1], trained[2], trained[3], trained[4])
    yield Case("gradients of the prefix alone", call(function, *used(function, some), backward=True), once=True)
    equal = (torch.zeros_like(five[0]), *five[1:])
    yield Case("queries of zeros, with gradients", asking(function, equal), once=True)
    for m, causal in itertools.product((2, 1, 0), (True, False)):
        far = as_far_as_promised(rng, m)
        yield Case("scores of 100,000, with gradients", asking(function, far, causal), promise=FAR, once=True)
    valued = Case("scores of 100,000", call(function, *used(function, as_far_as_promised(rng, 2))), promise=FAR)
    yield as_views(valued)
    single = in_dtype(torch.float32)(valued)
    yield Relation(single.words, (single.call, valued.call), nearly_equal, FAR)
    yield Case("large scores, with gradients", asking(function, far_apart(rng)), promise=FAR, once=True)


SHAPES = {"q": (3, 8, 4, 5), "k": (3, 2, 4, 5), "v": (3, 2, 4, 5), "pk": (2, 4, 5), "pv": (2, 4, 5)}
FAMILIES = (
    ("rows", {"q": 0, "k": 0, "v": 0}, (1, 2, 4)),
    ("times", {"q": 2, "k": 2, "v": 2}, (1, 3, 5)),
    ("width", {"q": 3, "k": 3, "v": 3, "pk": 2, "pv": 2}, (1, 4)),
    ("key-value heads", {"k": 1, "v": 1, "pk": 0, "pv": 0}, (1, 4, 8)),
    ("prefix positions", {"pk": 1, "pv": 1}, (0, 1, 3, 5)),
)
"""Sizes that tensors have in common: their axis in each tensor, and other sizes."""


def misfits(names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    """Yield words and shapes that don't fit: other sizes of some tensors, or axes exchanged."""
    for family, axes, sizes in FAMILIES:
        axes = {name: axis for name, axis in axes.items() if name in names}
        for some in itertools.chain.from_iterable(itertools.combinations(axes, n) for n in range(1, len(axes))):
            for size in sizes:
                changed = {name: replaced(SHAPES[name], axes[name], size) for name in some}
                yield f"{family} of {' and '.join(some)} differ from the others'", SHAPES | changed
    together = (*((name,) for name in names), ("k", "v"), ("pk", "pv"))
    for some in dict.fromkeys(tuple(name for name in group if name in names) for group in together):
        for words, order in (
            ("with the last two axes exchanged", (-1, -2)),
            ("with heads and positions exchanged", (-2, -3)),
        ):
            yield f"{' and '.join(some)} {words}", SHAPES | {name: exchanged(SHAPES[name], *order) for name in some}


def exchanged(shape: tuple[int, ...], one: int, other: int) -> tuple[int, ...]:
    sizes = list(shape)
    sizes[one], sizes[other] = sizes[other], sizes[one]
    return tuple(sizes)


def replaced(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def refused_sizes(function: str, promise: str) -> Iterator[Refusal]:
    """Yield the errors that the two functions of tensors have in common."""
    names = ("q", "k", "v", "pk", "pv") if function == "prefix_attention" else ("q", "k", "pk")

    def ask(shapes: dict[str, tuple[int, ...]], *causal: bool) -> Call:
        return call(function, *(torch.zeros(shapes[name]) for name in names), *causal)

    for number, (words, shapes) in enumerate(misfits(names)):
        twin = None if number else ask(SHAPES)
        yield refusal(words, ask(shapes, number % 2 == 0), "shape", promise, twin)
    for heads, kv_heads in ((1, 2), (3, 2), (5, 2), (9, 2), (8, 3), (8, 5), (8, 16), (4, 8), (1, 8)):
        prefix, sequence = (kv_heads, 4, 5), (3, kv_heads, 4, 5)
        shapes = {"q": (3, heads, 4, 5), "k": sequence, "v": sequence, "pk": prefix, "pv": prefix}
        for causal in (True, False):
            yield refusal(f"{heads} heads on {kv_heads}", ask(shapes, causal), "multiple", promise, ask(SHAPES))


problem.promise(
    "attn", "Return attention over the sequence and the prefix:", "(batch, heads, time, head_dim).",
    "`pk` and `pv` are (kv_heads, m, head_dim), the same for the whole batch; m may be 0, every other size is "
    "at least 1.",
    "Query head h uses key-value head h // (heads / kv_heads).", "Scores are divided by sqrt(head_dim)",
    "Every query sees the whole prefix; with `causal` it sees no later time.",
    "with equal scores a query gets the mean of what it sees;",
    "The result can be differentiated with respect to all five tensors.",
)  # fmt: skip
FAR = problem.promise("far", "they may be as large as 100,000, of either sign.")
ATTN_ERRORS = problem.promise(
    "fit", "ValueError whose message contains `multiple` (heads isn't one of kv_heads) or `shape` (any other size "
    "doesn't fit: nothing is broadcast).",
)  # fmt: skip


@problem.check(
    "attn", points=2.75, of="prefix_attention", title="attention with a prefix",
    concerns=["grouped and single key-value heads", "causal and not", "no prefix", "one time step", "float32, views",
              "large scores", "gradients", "sizes that don't fit"],
    next_step="For one query, list the positions that it sees; then one softmax over all of them.",
)  # fmt: skip
def attn(rng: Rng) -> Iterator[AnyCase]:
    five = tensors(rng, 4, 2, 3)
    grouped, both_ways = (
        Case(words, call("prefix_attention", *five, causal))
        for words, causal in (("four heads on two", True), ("four heads on two, not causal", False))
    )
    yield as_views(grouped)
    yield wanting_gradients(in_dtype(torch.float32)(both_ways))
    single = call("prefix_attention", *tensors(rng, 3, 1, 2, time=1))
    yield Case("three heads on one, one time step", single)
    yield Case("no prefix", call("prefix_attention", *tensors(rng, 2, 2, 0)))
    yield Case("large scores", call("prefix_attention", *far_apart(rng)), promise=FAR)
    yield from in_every_layout(rng, "prefix_attention")
    yield from refused_sizes("prefix_attention", ATTN_ERRORS)


problem.promise(
    "gate", "Return the share of each query's attention that goes to the prefix:",
    "(batch, heads, time).",
    "With this share g the output is (1 - g) times the attention to the sequence alone plus g times the attention to "
    "the prefix alone.",
)  # fmt: skip
GATE_ERRORS = problem.promise("likewise", "Arguments, scores, gradients and errors as in `prefix_attention`.")


@problem.check(
    "gate", points=1.75, of="prefix_gate", title="the prefix's share",
    concerns=["causal and not", "grouped heads", "no prefix", "large scores", "gradients", "sizes that don't fit"],
    next_step="Split the softmax's denominator into the prefix's part and the sequence's.",
)  # fmt: skip
def gate(rng: Rng) -> Iterator[AnyCase]:
    q, k, _, pk, _ = tensors(rng, 4, 2, 3)
    grouped, both_ways = (
        Case(words, call("prefix_gate", q, k, pk, causal))
        for words, causal in (("four heads on two", True), ("four heads on two, not causal", False))
    )
    yield as_views(grouped)
    yield wanting_gradients(in_dtype(torch.float32)(both_ways))
    one, only, _, none, _ = tensors(rng, 2, 1, 0)
    yield Case("no prefix", call("prefix_gate", one, only, none))
    large, keys, _, prefix, _ = far_apart(rng)
    yield Case("large scores", call("prefix_gate", large, keys, prefix), promise=FAR)
    yield from in_every_layout(rng, "prefix_gate")
    yield from refused_sizes("prefix_gate", GATE_ERRORS)


@problem.personal(
    title="your model", same=integer, next_step="Find the width of one key, and how many heads have keys."
)
def mine(rng: Rng) -> Question:
    given, m = config(rng), int(rng.integers(5, 40))
    wide = given | {"head_dim": given["hidden_size"] // given["num_attention_heads"] + int(rng.choice([4, 8]))}
    words = f"How many parameters has a prefix of length {m} for the configuration {wide}?"
    return Question(words, call("prefix_params_from_config", wide, m))


# ---------------------------------------------------------------------------------------------------------- mistakes

ONE_LAYER = "Count one head of one layer, keys and values, then multiply."

for name, was, now, says in (
    ("no_factor_2", "2 * ", "", "Your count has keys or values, not both."),
    ("three_projections", "2 * ", "3 * ", "Your count has queries too."),
    ("forgets_layers", " * n_layers", "", "Your count is for one layer."),
    ("one_layer_more", " * n_layers", " * (n_layers + 1)", "Your count has a layer too many."),
    ("forgets_heads", " * n_kv_heads", "", "Your count is for one head."),
    ("heads_squared", " * n_kv_heads", " * n_kv_heads**2", "Your count has the heads twice."),
    ("forgets_width", " * head_dim", "", "Your count has no head width."),
    ("adds_input_prompt", " * head_dim", " * head_dim + n_prefix * n_kv_heads * head_dim",
        "Your count adds vectors at the input; a prefix has none."),
    ("counts_projections", " * head_dim", " * head_dim + 2 * n_layers * (n_kv_heads * head_dim) ** 2",
        "Your count adds projections, which are frozen."),
):  # fmt: skip
    problem.slip(name, "prefix_params", {was: now}, says=says, next_step=ONE_LAYER)
problem.slip(
    "prefix_at_least_one", "prefix_params", {" * n_prefix": " * max(1, n_prefix)"},
    says="A prefix of length 0 still has parameters in your count.", next_step="Nothing times anything is nothing.",
)  # fmt: skip

# These come first: each explains less than those below, and in a tie the first is named.
for name, edits, says, next_step in (
    ("config_counts_itself",
        {"return prefix_params(cfg": "return math.prod((2, cfg", "head_dim)": "head_dim))"},
        "From a configuration, a negative prefix or no layers are counted.",
        "Call `prefix_params`, which refuses them."),
    ("rounds_the_head_width", {'if cfg["hidden_size"] % heads:': "if False:"},
        "A hidden size that the heads can't share out evenly is rounded.", "Refuse a remainder."),
    ("divisible_even_if_given", {"if head_dim is None:": 'if head_dim is None or cfg["hidden_size"] % heads:'},
        "A hidden size that the heads can't share out is refused although `head_dim` is given.",
        "Divide only where `head_dim` is missing or None."),
    ("writes_into_the_config", {"head_dim = cfg[": 'head_dim = cfg["head_dim"] = cfg['},
        "Your function writes into the caller's configuration.", "Keep what you work out in variables of your own."),
    ("refuses_other_keys",
        {"return prefix_params(": "(lambda hidden_size, num_attention_heads, num_hidden_layers, "
         "num_key_value_heads=0, head_dim=0: 0)(**cfg)\n    return prefix_params("},
        "Your function fails for a configuration that holds other keys too.",
        "Read the keys that you need, and leave the others alone."),
):  # fmt: skip
    problem.slip(name, "prefix_params_from_config", edits, says=says, next_step=next_step)
problem.slip(
    "another_key_for_kv_heads", "prefix_params_from_config",
    {'kv_heads = heads if cfg.get("num_key_value_heads") is None else cfg["num_key_value_heads"]':
     'kv_heads = next((cfg[key] for key in ("num_key_value_heads", "n_kv_heads", "num_kv_heads") if cfg.get(key)), '
     'heads)'},
    says="Your number of key-value heads comes from a key that isn't the configuration's own.",
    next_step="Read the five keys that the text names; the others have no meaning here.",
)  # fmt: skip
problem.slip(
    "head_dim_ignored", "prefix_params_from_config", {'cfg.get("head_dim")': "None"},
    says="Your head width is the quotient, also where the configuration names another.",
    next_step="Look for `head_dim` first.",
)  # fmt: skip
problem.slip(
    "head_dim_from_kv_heads", "prefix_params_from_config", {"// heads": "// kv_heads"},
    says="Your head width divides the hidden size by the key-value heads.",
    next_step="The query heads share the hidden size.",
)  # fmt: skip
problem.slip(
    "query_heads_counted", "prefix_params_from_config", {"n_prefix, kv_heads": "n_prefix, heads"},
    says="Your count has a prefix for each query head.", next_step="Only key-value heads have keys.",
)  # fmt: skip
problem.slip(
    "hidden_size_as_width", "prefix_params_from_config", {"kv_heads, head_dim)": '1, cfg["hidden_size"])'},
    says="Your count takes the hidden size for the width of all keys.",
    next_step="With grouped heads the keys are narrower.",
)  # fmt: skip
problem.slip(
    "one_key_value_head_by_default", "prefix_params_from_config", {"heads if cfg": "1 if cfg"},
    says="Without `num_key_value_heads` your count has a single key-value head.",
    next_step="Where the key is missing or None, every attention head has keys and values of its own.",
)  # fmt: skip
problem.slip(
    "none_breaks", "prefix_params_from_config",
    {'heads if cfg.get("num_key_value_heads") is None else cfg["num_key_value_heads"]':
        'cfg.get("num_key_value_heads", heads)'},
    says="A `num_key_value_heads` that is None breaks your function.",
    next_step="`cfg.get(key, default)` gives None where the key is there and None: choose the default then too.",
)  # fmt: skip

NETWORK = "Draw the network and write each layer's shape beside it."

for name, edits, says in (
    ("reparam_no_embedding", {"n_prefix * d_embed + ": ""}, "Your count lacks the embedding."),
    ("reparam_no_biases", {" + hidden)": ")", " + out)": ")"}, "Your count has no biases."),
    ("reparam_keys_only", {"2 * n_layers": "n_layers"}, "Your network makes keys only."),
    ("reparam_one_layer", {" * n_layers": ""}, "Your network makes one layer's prefixes."),
    ("reparam_times_length", {"(hidden * out": "n_prefix * (hidden * out"},
        "Your last layer stands once for each prefix position; it's shared."),
):  # fmt: skip
    problem.slip(name, "reparam_params", edits, says=says, next_step=NETWORK)

UNCUT = "Leave out `.item()`, `.detach()` and NumPy on what comes from the tensors."
SCALE = "Divide by the square root of the head width."

# In a tie the first is named, so what explains less comes first.
for name, of, edits, says, next_step in (
    ("mask_of_ten_thousand", "masked_scores", {"-math.inf": "-1e4"},
        "Later times get the score -10,000, which is more than a small score that counts.",
        "A score of minus infinity has no weight beside any other."),
    ("no_scale", "masked_scores", {" / math.sqrt(q.shape[-1])": ""},
        "Your scores aren't scaled.", SCALE),
    ("scale_by_d_model", "masked_scores", {"math.sqrt(q.shape[-1])": "math.sqrt(q.shape[1] * q.shape[-1])"},
        "Your scale uses the width of all heads.", "It's the width of one head."),
    ("scale_without_root", "masked_scores", {"math.sqrt(q.shape[-1])": "q.shape[-1]"},
        "Your scores are divided by the head width itself.", "Divide by its square root."),
    ("prefix_causally_masked", "masked_scores",
        {"torch.cat([later.new_zeros(time, m), later], dim=1)": "later.new_ones(time, m + time).triu(1)"},
        "Your causal mask runs over the prefix too.",
        "The prefix comes before all times, so no query may be kept from it."),
    ("hides_the_present", "masked_scores", {".triu(1)": ".triu()"},
        "Your causal mask hides a query's own time.", "A query sees the times up to and with its own."),
    ("causal_with_a_prefix_only", "prefix_attention", {"m, causal)": "m, causal and m > 0)"},
        "Without a prefix your queries see later times.", "A prefix of length 0 changes nothing in the mask."),
    ("never_causal", "prefix_attention", {"m, causal)": "m, False)"},
        "Your queries see the future, causal or not.", "Use the argument `causal`."),
    ("always_causal", "prefix_attention", {"m, causal)": "m, True)"},
        "Your queries never see later times.", "Use the argument `causal`."),
    ("separate_softmaxes", "prefix_attention",
        {"scores.softmax(-1) @ values": "scores[..., :m].softmax(-1) @ values[..., :m, :]"
         " + scores[..., m:].softmax(-1) @ values[..., m:, :]"},
        "Your prefix and your sequence have a softmax each: the weights add up to 2.",
        "One softmax over all positions."),
    ("values_not_prefixed", "prefix_attention",
        {"scores.softmax(-1) @ values": "scores.softmax(-1)[..., m:] @ values[..., m:, :]"},
        "Your prefix takes weight and gives no values.", "Values of the prefix belong in the sum."),
    ("prefix_ignored", "prefix_attention",
        {"scores.softmax(-1) @ values": "scores[..., m:].softmax(-1) @ values[..., m:, :]"},
        "Your output ignores the prefix.", "Put its keys before the sequence's."),
    ("repeats_instead_of_interleaving", "prefixed", {"repeat_interleave(share, dim=1)": "repeat(1, share, 1, 1)"},
        "Your query heads take turns with the key-value heads; neighbours should share.",
        "Head h uses key-value head h // g: repeat_interleave."),
    ("softmax_overflows", "prefix_attention", {"scores.softmax(-1)": "scores.exp() / scores.exp().sum(-1, True)"},
        "Your softmax exponentiates large scores as they are.",
        "Subtract the largest score first, or use torch.softmax."),
    ("attention_detached", "prefix_attention", {"scores.softmax(-1)": "scores.detach().softmax(-1)"},
        "Your weights are cut off from the graph: no gradient reaches queries and keys.", UNCUT),
    ("gate_of_groups", "prefix_gate",
        {".sum(-1)": ".sum(-1).unflatten(1, (-1, share)).mean(2, True).expand(-1, -1, share, -1).flatten(1, 2)"},
        "Your gate is the mean over the query heads that share a key-value head.",
        "Each query head has weights of its own."),
    ("gate_detached", "prefix_gate", {".sum(-1)": ".sum(-1).detach()"},
        "Your gate is cut off from the graph.", UNCUT),
    ("gate_inverted", "prefix_gate", {":m]": "m:]"},
        "Your gate is the sequence's share.", "Sum the weights of the prefix."),
    ("gate_not_causal", "prefix_gate", {"m, causal)": "m, False)"},
        "Your denominator holds times that a causal query doesn't see.", "Use the argument `causal`."),
    ("gate_always_causal", "prefix_gate", {"m, causal)": "m, True)"},
        "Your denominator leaves later times out, causal or not.", "Use the argument `causal`."),
    ("gate_is_odds", "prefix_gate", {".sum(-1)": ".sum(-1) / attention[..., m:].sum(-1)"},
        "Your gate is the ratio of the prefix's part to the sequence's.", "A share divides by the whole."),
    ("gate_of_nothing_is_nan", "prefix_gate", {".sum(-1)": ".mean(-1) * m"},
        "Without a prefix your gate is NaN: a mean of nothing.", "Sum the weights; a sum of nothing is 0."),
    ("gate_is_a_mean", "prefix_gate", {".sum(-1)": ".mean(-1)"},
        "Your gate is the mean weight of a prefix position.", "Sum them."),
    ("gate_counts_positions", "prefix_gate",
        {"attention[..., :m].sum(-1)": "torch.full_like(q[..., 0], m / attention.shape[-1])"},
        "Your gate is the prefix's share of positions, not of attention.", "Use the softmax's weights."),
    ("gate_without_scale", "prefix_gate", {"masked_scores(q,": "masked_scores(q * math.sqrt(q.shape[-1]),"},
        "Your gate's scores aren't scaled.", SCALE),
    ("gate_repeats_heads", "prefix_gate", {"prefixed(k, pk, share)": "prefixed(k, pk, 1).repeat(1, share, 1, 1)"},
        "Your gate's query heads take turns with the key-value heads.", "Neighbours share: repeat_interleave."),
    ("negative_prefix_counted", "prefix_params", {"if n_prefix < 0:": "if False:"},
        "A negative prefix length is counted.", "Refuse it by name."),
    ("negative_layers_counted", "prefix_params", {"if n_layers < 1:": "if n_layers == 0:"},
        "A negative number of layers is counted.", "Refuse every number below 1 by name."),
    ("no_layers_counted", "prefix_params", {"if n_layers < 1:": "if False:"},
        "Less than one layer is counted.", "Refuse it by name."),
    ("multiple_unchecked", "heads_per_key", {"if heads % kv_heads:": "if False:"},
        "Heads that aren't a multiple of the key-value heads aren't refused by name.",
        "Check the remainder before you repeat."),
    ("sequence_unchecked", "heads_per_key", {"{k.shape, v.shape} != {(batch, kv_heads, time, dim)}": "False"},
        "Keys and values of other sizes than the queries' aren't refused by name.",
        "Compare batch, time and width with those of the queries before you use them."),
    ("prefix_unchecked", "heads_per_key", {"if pk.shape[::2] != (kv_heads, dim):": "if False:"},
        "A prefix of other heads or another width isn't refused by name.",
        "Compare the prefix's heads and width with the keys' before you use it."),
    ("gate_checks_nothing", "prefix_gate", {"heads_per_key(q, k, k, pk, pk)": "max(1, q.shape[1] // k.shape[1])"},
        "Your gate refuses no size by name.", "Make the checks of `prefix_attention` here too."),
):  # fmt: skip
    problem.slip(name, of, edits, says=says, next_step=next_step)
NUMPY = "import numpy as np\n    return np.int64(1) * "
for name, of, edits in (
    ("numpy_count", "prefix_params", {"return ": NUMPY}),
    ("numpy_reparam", "reparam_params", {"return n_prefix * d_embed": NUMPY + "n_prefix * d_embed"}),
):
    problem.slip(
        name, of, edits, says="Your count is NumPy's integer, not Python's.",
        next_step="`int(...)` makes a Python integer of it.",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "*: -2* -> 2": "queries, keys and values have four axes: -2 is 2",
})  # fmt: skip
