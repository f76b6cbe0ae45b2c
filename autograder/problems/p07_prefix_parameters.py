"""How prefixes are judged: with grouped heads, so that every way of repeating and every wrong width shows."""

import math
from collections.abc import Callable, Iterator
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

Count = Callable[[int, int, int, int], int]
FromConfig = Callable[[dict[str, Any], int], int]
Reparam = Callable[[int, int, int, int, int], int]
Attention = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, bool], Tensor]
Gate = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


def count_mistake(name: str, formula: Count, says: str, next_step: str) -> None:
    """Register a wrong count; it takes layers, prefix length, key-value heads and head width."""

    def function(n_layers: int, n_prefix: int, n_kv_heads: int, head_dim: int) -> int:
        if n_layers < 1:
            raise ValueError("n_layers")
        if n_prefix < 0:
            raise ValueError("n_prefix")
        return formula(n_layers, n_prefix, n_kv_heads, head_dim)

    problem.mistake(name=name, replaces="prefix_params", says=says, next_step=next_step)(function)


ONE_LAYER = "Count one head of one layer, keys and values, then multiply."

count_mistake("no_factor_2", lambda n, m, h, d: n * m * h * d, "Your count has keys or values, not both.", ONE_LAYER)
count_mistake("three_projections", lambda n, m, h, d: 3 * n * m * h * d, "Your count has queries too.", ONE_LAYER)
count_mistake("forgets_layers", lambda n, m, h, d: 2 * m * h * d, "Your count is for one layer.", ONE_LAYER)
count_mistake(
    "one_layer_more", lambda n, m, h, d: 2 * (n + 1) * m * h * d, "Your count has a layer too many.", ONE_LAYER
)
count_mistake("forgets_heads", lambda n, m, h, d: 2 * n * m * d, "Your count is for one head.", ONE_LAYER)
count_mistake("heads_squared", lambda n, m, h, d: 2 * n * m * h * h * d, "Your count has the heads twice.", ONE_LAYER)
count_mistake("forgets_width", lambda n, m, h, d: 2 * n * m * h, "Your count has no head width.", ONE_LAYER)
count_mistake(
    "adds_input_prompt", lambda n, m, h, d: 2 * n * m * h * d + m * h * d,
    "Your count adds vectors at the input; a prefix has none.", ONE_LAYER,
)  # fmt: skip
count_mistake(
    "counts_projections", lambda n, m, h, d: 2 * n * (m * h * d + (h * d) ** 2),
    "Your count adds projections, which are frozen.", ONE_LAYER,
)  # fmt: skip
count_mistake(
    "prefix_at_least_one", lambda n, m, h, d: 2 * n * max(1, m) * h * d,
    "A prefix of length 0 still has parameters in your count.", "Nothing times anything is nothing.",
)  # fmt: skip


def config_mistake(name: str, formula: FromConfig, says: str, next_step: str) -> None:
    def function(cfg: dict[str, Any], n_prefix: int) -> int:
        if cfg.get("head_dim") is None and cfg["hidden_size"] % cfg["num_attention_heads"]:
            raise ValueError("divisible")
        return formula(cfg, n_prefix)

    problem.mistake(name=name, replaces="prefix_params_from_config", says=says, next_step=next_step)(function)


def kv_of(cfg: dict[str, Any]) -> int:
    return cfg.get("num_key_value_heads") or cfg["num_attention_heads"]


def width_of(cfg: dict[str, Any]) -> int:
    return cfg.get("head_dim") or cfg["hidden_size"] // cfg["num_attention_heads"]


def total(cfg: dict[str, Any], m: int, heads: int, width: int) -> int:
    return 2 * cfg["num_hidden_layers"] * m * heads * width


config_mistake(
    "head_dim_ignored", lambda c, m: total(c, m, kv_of(c), c["hidden_size"] // c["num_attention_heads"]),
    "Your head width is the quotient, also where the configuration names another.", "Look for `head_dim` first.",
)  # fmt: skip
config_mistake(
    "head_dim_from_kv_heads", lambda c, m: total(c, m, kv_of(c), c.get("head_dim") or c["hidden_size"] // kv_of(c)),
    "Your head width divides the hidden size by the key-value heads.", "The query heads share the hidden size.",
)  # fmt: skip
config_mistake(
    "query_heads_counted", lambda c, m: total(c, m, c["num_attention_heads"], width_of(c)),
    "Your count has a prefix for each query head.", "Only key-value heads have keys.",
)  # fmt: skip
config_mistake(
    "hidden_size_as_width", lambda c, m: 2 * c["num_hidden_layers"] * m * c["hidden_size"],
    "Your count takes the hidden size for the width of all keys.", "With grouped heads the keys are narrower.",
)  # fmt: skip


@problem.mistake(
    replaces="prefix_params_from_config",
    says="An optional key that is None, or missing, breaks your function.",
    next_step="`cfg.get(...)` gives None in both cases: choose the default then.",
)
def none_breaks(cfg: dict[str, Any], n_prefix: int) -> int:
    if cfg.get("head_dim") is None and cfg["hidden_size"] % cfg["num_attention_heads"]:
        raise ValueError("divisible")
    heads = cfg.get("num_key_value_heads", cfg["num_attention_heads"])
    return total(cfg, n_prefix, heads * 1, width_of(cfg))


def reparam_mistake(name: str, formula: Reparam, says: str) -> None:
    step = "Draw the network and write each layer's shape beside it."
    problem.mistake(name=name, replaces="reparam_params", says=says, next_step=step)(formula)


reparam_mistake(
    "reparam_no_embedding", lambda n, m, d, e, h: e * h + h + h * 2 * n * d + 2 * n * d,
    "Your count lacks the embedding.",
)  # fmt: skip
reparam_mistake(
    "reparam_no_biases", lambda n, m, d, e, h: m * e + e * h + h * 2 * n * d, "Your count has no biases.",
)  # fmt: skip
reparam_mistake(
    "reparam_keys_only", lambda n, m, d, e, h: m * e + e * h + h + h * n * d + n * d, "Your network makes keys only.",
)  # fmt: skip
reparam_mistake(
    "reparam_one_layer", lambda n, m, d, e, h: m * e + e * h + h + h * 2 * d + 2 * d,
    "Your network makes one layer's prefixes.",
)  # fmt: skip
reparam_mistake(
    "reparam_times_length", lambda n, m, d, e, h: m * e + e * h + h + m * (h * 2 * n * d + 2 * n * d),
    "Your last layer stands once for each prefix position; it's shared.",
)  # fmt: skip


def sizes_fit(q: Tensor, k: Tensor, v: Tensor, pk: Tensor) -> None:
    if pk.shape[0] != k.shape[1] or pk.shape[-1] != q.shape[-1] or k.shape != v.shape or k.shape[2] != q.shape[2]:
        raise ValueError("shape")
    if q.shape[1] % k.shape[1]:
        raise ValueError("multiple")


def heads_like(q: Tensor, part: Tensor, interleave: bool = True) -> Tensor:
    """Return keys or values (B, Hkv, n, d), or a prefix (Hkv, m, d), with q's number of heads and its batch."""
    part = part if part.ndim == 4 else part.expand(q.shape[0], -1, -1, -1)
    share = q.shape[1] // part.shape[1]
    return part.repeat_interleave(share, 1) if interleave else part.repeat(1, share, 1, 1)


def scored(
    q: Tensor, k: Tensor, pk: Tensor, causal: bool, *, scale: float | None = None, interleave: bool = True,
    hide: Callable[[int, int], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Return the scores over prefix and sequence; `hide` gives what a causal query may not see."""
    keys = torch.cat([heads_like(q, pk, interleave), heads_like(q, k, interleave)], dim=-2)
    scores = q @ keys.transpose(-1, -2) / (scale or math.sqrt(q.shape[-1]))
    if not causal:
        return scores
    time, m = q.shape[-2], pk.shape[-2]
    hidden = hide(time, m) if hide else whole_prefix(time, m)
    return scores.masked_fill(hidden, -math.inf)


def whole_prefix(time: int, m: int) -> Tensor:
    later = torch.ones(time, time, dtype=torch.bool).triu(1)
    return torch.cat([torch.zeros(time, m, dtype=torch.bool), later], dim=1)


def attention_mistake(name: str, formula: Attention, says: str, next_step: str) -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor, causal: bool = True) -> Tensor:
        sizes_fit(q, k, v, pk)
        return formula(q, k, v, pk, pv, causal)

    problem.mistake(name=name, replaces="prefix_attention", says=says, next_step=next_step)(function)


def values_of(q: Tensor, v: Tensor, pv: Tensor, interleave: bool = True) -> Tensor:
    return torch.cat([heads_like(q, pv, interleave), heads_like(q, v, interleave)], dim=-2)


def separate(q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor, causal: bool) -> Tensor:
    m = pk.shape[-2]
    scores = scored(q, k, pk, causal)
    to_sequence = scores[..., m:].softmax(-1) @ heads_like(q, v)
    return to_sequence + (scores[..., :m].softmax(-1) @ heads_like(q, pv) if m else 0.0)


def overflowing(q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor, causal: bool) -> Tensor:
    e = scored(q, k, pk, causal).exp()
    return e / e.sum(-1, keepdim=True) @ values_of(q, v, pv)


def diagonal_of_all(time: int, m: int) -> Tensor:
    return torch.ones(time, m + time, dtype=torch.bool).triu(1)


def hides_now(time: int, m: int) -> Tensor:
    later = torch.ones(time, time, dtype=torch.bool).triu(0)
    later[0, 0] = False
    return torch.cat([torch.zeros(time, m, dtype=torch.bool), later], dim=1)


attention_mistake(
    "no_scale", lambda q, k, v, pk, pv, c: scored(q, k, pk, c, scale=1.0).softmax(-1) @ values_of(q, v, pv),
    "Your scores aren't scaled.", "Divide by the square root of the head width.",
)  # fmt: skip
attention_mistake(
    "scale_by_d_model", lambda q, k, v, pk, pv, c: scored(
        q, k, pk, c, scale=math.sqrt(q.shape[1] * q.shape[-1])
    ).softmax(-1) @ values_of(q, v, pv),
    "Your scale uses the width of all heads.", "It's the width of one head.",
)  # fmt: skip
attention_mistake(
    "scale_without_root", lambda q, k, v, pk, pv, c: scored(
        q, k, pk, c, scale=q.shape[-1]
    ).softmax(-1) @ values_of(q, v, pv),
    "Your scores are divided by the head width itself.", "Divide by its square root.",
)  # fmt: skip
attention_mistake(
    "prefix_causally_masked", lambda q, k, v, pk, pv, c: scored(
        q, k, pk, c, hide=diagonal_of_all
    ).softmax(-1) @ values_of(q, v, pv),
    "Your causal mask runs over the prefix too.", "The prefix stands before all times: nobody's future.",
)  # fmt: skip
attention_mistake(
    "hides_the_present", lambda q, k, v, pk, pv, c: scored(
        q, k, pk, c, hide=hides_now
    ).softmax(-1) @ values_of(q, v, pv),
    "Your causal mask hides a query's own time.", "A query sees the times up to and with its own.",
)  # fmt: skip
attention_mistake(
    "never_causal", lambda q, k, v, pk, pv, c: scored(q, k, pk, False).softmax(-1) @ values_of(q, v, pv),
    "Your queries see the future, causal or not.", "Use the argument `causal`.",
)  # fmt: skip
attention_mistake(
    "always_causal", lambda q, k, v, pk, pv, c: scored(q, k, pk, True).softmax(-1) @ values_of(q, v, pv),
    "Your queries never see later times.", "Use the argument `causal`.",
)  # fmt: skip
attention_mistake(
    "separate_softmaxes", separate, "Your prefix and your sequence have a softmax each: the weights add up to 2.",
    "One softmax over all positions.",
)  # fmt: skip
attention_mistake(
    "values_not_prefixed", lambda q, k, v, pk, pv, c: (
        scored(q, k, pk, c).softmax(-1)[..., pk.shape[-2] :] @ heads_like(q, v)
    ),
    "Your prefix takes weight and gives no values.", "Values of the prefix belong in the sum.",
)  # fmt: skip
attention_mistake(
    "prefix_ignored", lambda q, k, v, pk, pv, c: (
        scored(q, k, pk, c)[..., pk.shape[-2] :].softmax(-1) @ heads_like(q, v)
    ),
    "Your output ignores the prefix.", "Put its keys before the sequence's.",
)  # fmt: skip
attention_mistake(
    "repeats_instead_of_interleaving", lambda q, k, v, pk, pv, c: scored(
        q, k, pk, c, interleave=False
    ).softmax(-1) @ values_of(q, v, pv, interleave=False),
    "Your query heads take turns with the key-value heads; neighbours should share.",
    "Head h uses key-value head h // g: repeat_interleave.",
)  # fmt: skip
attention_mistake(
    "softmax_overflows", overflowing, "Your softmax exponentiates large scores as they are.",
    "Subtract the largest score first, or use torch.softmax.",
)  # fmt: skip


def gate_mistake(name: str, formula: Gate, says: str, next_step: str) -> None:
    def function(q: Tensor, k: Tensor, pk: Tensor, causal: bool = True) -> Tensor:
        sizes_fit(q, k, k, pk)
        return formula(q, k, pk, causal)

    problem.mistake(name=name, replaces="prefix_gate", says=says, next_step=next_step)(function)


def share(q: Tensor, k: Tensor, pk: Tensor, causal: bool, **choices: Any) -> Tensor:
    return scored(q, k, pk, causal, **choices).softmax(-1)[..., : pk.shape[-2]].sum(-1)


def odds(q: Tensor, k: Tensor, pk: Tensor, causal: bool) -> Tensor:
    part = share(q, k, pk, causal)
    return part / (1 - part)


gate_mistake(
    "gate_inverted", lambda q, k, pk, c: 1 - share(q, k, pk, c),
    "Your gate is the sequence's share.", "Sum the weights of the prefix.",
)  # fmt: skip
gate_mistake(
    "gate_not_causal", lambda q, k, pk, c: share(q, k, pk, False),
    "Your denominator holds times that a causal query doesn't see.", "Use the argument `causal`.",
)  # fmt: skip
gate_mistake(
    "gate_always_causal", lambda q, k, pk, c: share(q, k, pk, True),
    "Your denominator leaves later times out, causal or not.", "Use the argument `causal`.",
)  # fmt: skip
gate_mistake(
    "gate_is_odds", odds, "Your gate is the ratio of the prefix's part to the sequence's.",
    "A share divides by the whole.",
)  # fmt: skip
gate_mistake(
    "gate_is_a_mean", lambda q, k, pk, c: share(q, k, pk, c) / max(1, pk.shape[-2]),
    "Your gate is the mean weight of a prefix position.", "Sum them.",
)  # fmt: skip
gate_mistake(
    "gate_counts_positions", lambda q, k, pk, c: torch.full(
        q.shape[:-1], pk.shape[-2] / (pk.shape[-2] + k.shape[-2]), dtype=q.dtype
    ),
    "Your gate is the prefix's share of positions, not of attention.", "Use the softmax's weights.",
)  # fmt: skip
gate_mistake(
    "gate_without_scale", lambda q, k, pk, c: share(q, k, pk, c, scale=1.0),
    "Your gate's scores aren't scaled.", "Divide by the square root of the head width.",
)  # fmt: skip
gate_mistake(
    "gate_repeats_heads", lambda q, k, pk, c: share(q, k, pk, c, interleave=False),
    "Your gate's query heads take turns with the key-value heads.", "Neighbours share: repeat_interleave.",
)  # fmt: skip


@problem.mistake(
    replaces="prefix_params", says="A negative prefix length is counted.", next_step="Refuse it by name.",
)  # fmt: skip
def negative_prefix_counted(n_layers: int, n_prefix: int, n_kv_heads: int, head_dim: int) -> int:
    if n_layers < 1:
        raise ValueError("n_layers")
    return 2 * n_layers * n_prefix * n_kv_heads * head_dim


@problem.mistake(
    replaces="prefix_attention",
    says="Heads that aren't a multiple of the key-value heads aren't refused by name.",
    next_step="Check the remainder before you repeat.",
)
def multiple_unchecked(q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor, causal: bool = True) -> Tensor:
    if q.shape[1] % k.shape[1]:
        return q
    sizes_fit(q, k, v, pk)
    return scored(q, k, pk, causal).softmax(-1) @ values_of(q, v, pv)


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "*: -2* -> 2": "queries, keys and values have four axes: -2 is 2",
})  # fmt: skip
