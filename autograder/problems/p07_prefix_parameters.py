"""How prefixes are judged: with grouped heads, so that every way of repeating and every wrong width shows."""

from collections.abc import Iterator
from typing import Any

import torch
from ftgrade.judging.problem import AnyCase, Case, Close, Problem, Question, Refusal, Rng, call, integer

problem = Problem(part="04_parameter_efficient", difficulty=4, importance=3, minutes=60)

Tensor = torch.Tensor
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


# ------------------------------------------------------------------------------------------------------------ checks


@problem.check(
    "count", points=2, of="prefix_params", title="all prefixes", same=integer,
    concerns=["several layers and heads", "a prefix of length 0"],
    next_step="How many keys does one head of one layer get, and how many values?",
)  # fmt: skip
def count(rng: Rng) -> Iterator[AnyCase]:
    layers, m, heads, width = (int(number) for number in rng.choice([3, 5, 7, 11, 13], size=4, replace=False))
    yield Case("several layers and heads", call("prefix_params", layers, m, heads, width))
    yield Case("one layer, one key-value head", call("prefix_params", 1, m, 1, width))
    yield Case("a prefix of length 0", call("prefix_params", layers, 0, heads, width))


def config(rng: Rng) -> dict[str, Any]:
    """Return a configuration with grouped-query attention."""
    share, kv, width = int(rng.integers(2, 5)), int(rng.integers(2, 5)), int(rng.choice([8, 12, 20]))
    heads = share * kv
    return {
        "hidden_size": heads * width, "num_attention_heads": heads, "num_hidden_layers": int(rng.integers(3, 9)),
        "num_key_value_heads": kv,
    }  # fmt: skip


@problem.check(
    "cfg", points=2, of="prefix_params_from_config", title="from a configuration", same=integer,
    concerns=["grouped-query attention", "keys that are missing or None", "a head_dim of its own"],
    next_step="Write down which heads have keys, and how wide one of them is.",
)  # fmt: skip
def cfg(rng: Rng) -> Iterator[AnyCase]:
    given, m = config(rng), int(rng.integers(5, 30))
    yield Case("grouped-query attention", call("prefix_params_from_config", given, m), pure=True)
    wide = given | {"head_dim": given["hidden_size"] // given["num_attention_heads"] + 3}
    yield Case("a head_dim of its own", call("prefix_params_from_config", wide, m))
    bare = {name: value for name, value in given.items() if name != "num_key_value_heads"}
    yield Case("no word of key-value heads", call("prefix_params_from_config", bare, m))
    nothing = given | {"num_key_value_heads": None, "head_dim": None}
    yield Case("optional keys that are None", call("prefix_params_from_config", nothing, m))


@problem.check(
    "reparam", points=1, of="reparam_params", title="the network that makes them", same=integer,
    concerns=["embedding, two matrices and two biases"],
    next_step="Draw the network and write each layer's shape beside it.",
)  # fmt: skip
def reparam(rng: Rng) -> Iterator[AnyCase]:
    sizes = [int(number) for number in rng.choice([3, 5, 7, 11, 13, 17], size=5, replace=False)]
    yield Case("five different sizes", call("reparam_params", *sizes))
    yield Case("one layer", call("reparam_params", 1, *sizes[1:]))


def tensors(rng: Rng, heads: int, kv_heads: int, m: int, time: int = 5, dim: int = 6, scale: float = 1.0) -> Five:
    """Return q, k, v, pk and pv in float64."""
    shapes = (
        (2, heads, time, dim),
        (2, kv_heads, time, dim),
        (2, kv_heads, time, dim),
        (kv_heads, m, dim),
        (kv_heads, m, dim),
    )
    q, k, v, pk, pv = (torch.from_numpy(rng.normal(size=shape)) for shape in shapes)
    return q * scale, k * scale, v, pk * scale, pv


@problem.check(
    "attn", points=2.5, of="prefix_attention", title="attention with a prefix", same=Close(rtol=1e-7, atol=1e-9),
    concerns=["grouped and single key-value heads", "causal and not", "no prefix", "one time step", "large scores"],
    next_step="For one query, list the positions that it sees; then one softmax over all of them.",
)  # fmt: skip
def attn(rng: Rng) -> Iterator[AnyCase]:
    yield Case("four heads on two", call("prefix_attention", *tensors(rng, 4, 2, 3)), pure=True)
    yield Case("the same, not causal", call("prefix_attention", *tensors(rng, 4, 2, 3), causal=False))
    yield Case("six heads on one, one time step", call("prefix_attention", *tensors(rng, 6, 1, 2, time=1)))
    yield Case("no prefix", call("prefix_attention", *tensors(rng, 2, 2, 0)))
    yield Case("large scores", call("prefix_attention", *tensors(rng, 4, 2, 3, scale=60.0)))


@problem.check(
    "gate", points=1.5, of="prefix_gate", title="the prefix's share", same=Close(rtol=1e-7, atol=1e-9),
    concerns=["causal and not", "grouped heads", "no prefix"],
    next_step="Split the softmax's denominator into the prefix's part and the sequence's.",
)  # fmt: skip
def gate(rng: Rng) -> Iterator[AnyCase]:
    q, k, _, pk, _ = tensors(rng, 4, 2, 3)
    yield Case("causal, four heads on two", call("prefix_gate", q, k, pk), pure=True)
    yield Case("not causal", call("prefix_gate", q, k, pk, causal=False))
    q, k, _, pk, _ = tensors(rng, 2, 1, 0)
    yield Case("no prefix", call("prefix_gate", q, k, pk))


@problem.check(
    "err", points=1, of="prefix_params", title="invalid input",
    concerns=["counts", "heads that don't fit", "a hidden size that can't be shared out", "shapes"],
    next_step="Check each argument before using it, and name it in the message of a ValueError.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    yield Refusal("a negative prefix", call("prefix_params", int(rng.integers(2, 9)), -1, 2, 4), "n_prefix")
    yield Refusal("no layers", call("prefix_params", 0, 5, 2, 4), "n_layers")
    odd = config(rng)
    odd["hidden_size"] += 1
    yield Refusal("a hidden size that can't be shared out", call("prefix_params_from_config", odd, 4), "divisible")
    five = tensors(rng, 5, 2, 3)
    yield Refusal("five heads on two", call("prefix_attention", *five), "multiple")
    q, k, v, pk, pv = tensors(rng, 4, 2, 3)
    yield Refusal("a prefix of other heads", call("prefix_attention", q, k, v, pk[:1], pv[:1]), "shape")
    yield Refusal("a prefix without heads", call("prefix_attention", q, k, v, pk[0], pv[0]), "shape")
    yield Refusal("fewer keys than values", call("prefix_attention", q, k, v, pk[:, 1:], pv), "shape")
    yield Refusal("a narrower prefix", call("prefix_gate", q, k, pk[..., 1:]), "shape")
    yield Refusal("values of another time", call("prefix_attention", q, k, v[:, :, 1:], pk, pv), "shape")


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

SCALE = "Divide by the square root of the head width."

problem.slip(
    "no_scale", "masked_scores", {" / math.sqrt(q.shape[-1])": ""}, says="Your scores aren't scaled.", next_step=SCALE
)
problem.slip(
    "scale_by_d_model", "masked_scores", {"math.sqrt(q.shape[-1])": "math.sqrt(q.shape[1] * q.shape[-1])"},
    says="Your scale uses the width of all heads.", next_step="It's the width of one head.",
)  # fmt: skip
problem.slip(
    "scale_without_root", "masked_scores", {"math.sqrt(q.shape[-1])": "q.shape[-1]"},
    says="Your scores are divided by the head width itself.", next_step="Divide by its square root.",
)  # fmt: skip
problem.slip(
    "prefix_causally_masked", "masked_scores",
    {"torch.cat([later.new_zeros(time, m), later], dim=1)": "later.new_ones(time, m + time).triu(1)"},
    says="Your causal mask runs over the prefix too.",
    next_step="The prefix comes before all times, so no query may be kept from it.",
)  # fmt: skip
problem.slip(
    "hides_the_present", "masked_scores", {".triu(1)": ".triu()"},
    says="Your causal mask hides a query's own time.", next_step="A query sees the times up to and with its own.",
)  # fmt: skip
problem.slip(
    "never_causal", "prefix_attention", {"m, causal)": "m, False)"},
    says="Your queries see the future, causal or not.", next_step="Use the argument `causal`.",
)  # fmt: skip
problem.slip(
    "always_causal", "prefix_attention", {"m, causal)": "m, True)"},
    says="Your queries never see later times.", next_step="Use the argument `causal`.",
)  # fmt: skip
problem.slip(
    "separate_softmaxes", "prefix_attention", {
        "scores.softmax(-1) @ values": "scores[..., :m].softmax(-1) @ values[..., :m, :]"
        " + scores[..., m:].softmax(-1) @ values[..., m:, :]",
    },
    says="Your prefix and your sequence have a softmax each: the weights add up to 2.",
    next_step="One softmax over all positions.",
)  # fmt: skip
problem.slip(
    "values_not_prefixed", "prefix_attention",
    {"scores.softmax(-1) @ values": "scores.softmax(-1)[..., m:] @ values[..., m:, :]"},
    says="Your prefix takes weight and gives no values.", next_step="Values of the prefix belong in the sum.",
)  # fmt: skip
problem.slip(
    "prefix_ignored", "prefix_attention",
    {"scores.softmax(-1) @ values": "scores[..., m:].softmax(-1) @ values[..., m:, :]"},
    says="Your output ignores the prefix.", next_step="Put its keys before the sequence's.",
)  # fmt: skip
problem.slip(
    "repeats_instead_of_interleaving", "prefixed", {"repeat_interleave(share, dim=1)": "repeat(1, share, 1, 1)"},
    says="Your query heads take turns with the key-value heads; neighbours should share.",
    next_step="Head h uses key-value head h // g: repeat_interleave.",
)  # fmt: skip
problem.slip(
    "softmax_overflows", "prefix_attention", {"scores.softmax(-1)": "scores.exp() / scores.exp().sum(-1, True)"},
    says="Your softmax exponentiates large scores as they are.",
    next_step="Subtract the largest score first, or use torch.softmax.",
)  # fmt: skip

problem.slip(
    "gate_inverted", "prefix_gate", {":m]": "m:]"},
    says="Your gate is the sequence's share.", next_step="Sum the weights of the prefix.",
)  # fmt: skip
problem.slip(
    "gate_not_causal", "prefix_gate", {"m, causal)": "m, False)"},
    says="Your denominator holds times that a causal query doesn't see.", next_step="Use the argument `causal`.",
)  # fmt: skip
problem.slip(
    "gate_always_causal", "prefix_gate", {"m, causal)": "m, True)"},
    says="Your denominator leaves later times out, causal or not.", next_step="Use the argument `causal`.",
)  # fmt: skip
problem.slip(
    "gate_is_odds", "prefix_gate", {".sum(-1)": ".sum(-1) / attention[..., m:].sum(-1)"},
    says="Your gate is the ratio of the prefix's part to the sequence's.", next_step="A share divides by the whole.",
)  # fmt: skip
problem.slip(
    "gate_is_a_mean", "prefix_gate", {".sum(-1)": ".mean(-1)"},
    says="Your gate is the mean weight of a prefix position.", next_step="Sum them.",
)  # fmt: skip
problem.slip(
    "gate_counts_positions", "prefix_gate",
    {"attention[..., :m].sum(-1)": "torch.full_like(q[..., 0], m / attention.shape[-1])"},
    says="Your gate is the prefix's share of positions, not of attention.", next_step="Use the softmax's weights.",
)  # fmt: skip
problem.slip(
    "gate_without_scale", "prefix_gate", {"masked_scores(q,": "masked_scores(q * math.sqrt(q.shape[-1]),"},
    says="Your gate's scores aren't scaled.", next_step=SCALE,
)  # fmt: skip
problem.slip(
    "gate_repeats_heads", "prefix_gate", {"prefixed(k, pk, share)": "prefixed(k, pk, 1).repeat(1, share, 1, 1)"},
    says="Your gate's query heads take turns with the key-value heads.",
    next_step="Neighbours share: repeat_interleave.",
)  # fmt: skip

problem.slip(
    "negative_prefix_counted", "prefix_params", {"if n_prefix < 0:": "if False:"},
    says="A negative prefix length is counted.", next_step="Refuse it by name.",
)  # fmt: skip
problem.slip(
    "multiple_unchecked", "heads_per_key", {"if heads % kv_heads:": "if False:"},
    says="Heads that aren't a multiple of the key-value heads aren't refused by name.",
    next_step="Check the remainder before you repeat.",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "*: -2* -> 2": "queries, keys and values have four axes: -2 is 2",
})  # fmt: skip
