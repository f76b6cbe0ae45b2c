"""Count prefixes and attend to them: contracts and references (arXiv:2101.00190)."""

import math
from typing import Any

import torch


def prefix_params(n_layers: int, n_prefix: int, n_kv_heads: int, head_dim: int) -> int:
    """Return the number of parameters of key-value prefixes in every layer, as a Python `int`.

    In each layer every key-value head gets `n_prefix` extra keys and as many extra values, each of width `head_dim`.

    Errors: ValueError naming `n_layers` (less than 1) or `n_prefix` (negative; 0 is a prefix of length 0).

    >>> prefix_params(n_layers=2, n_prefix=5, n_kv_heads=3, head_dim=4)
    240
    >>> prefix_params(n_layers=2, n_prefix=-1, n_kv_heads=3, head_dim=4)
    Traceback (most recent call last):
        ...
    ValueError: ...n_prefix...
    """
    if n_layers < 1:
        raise ValueError(f"n_layers must be at least 1, got {n_layers}")
    if n_prefix < 0:
        raise ValueError(f"n_prefix must not be negative, got {n_prefix}")
    return 2 * n_layers * n_prefix * n_kv_heads * head_dim


def prefix_params_from_config(cfg: dict[str, Any], n_prefix: int) -> int:
    """Return the same number for a model's configuration, which may hold other keys too.

    The keys are `hidden_size`, `num_attention_heads`, `num_hidden_layers` and, optionally, `num_key_value_heads` and
    `head_dim`; an optional key may be missing or None. Without the first, every attention head has keys and values of
    its own; without the second, the heads share the hidden size out evenly.

    Errors: ValueError naming `n_layers` or `n_prefix` as in `prefix_params`. If `head_dim` isn't given and the hidden
    size isn't divisible by the number of attention heads, the message contains `divisible`.

    >>> prefix_params_from_config({"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}, 10)
    2560

    Always: fewer key-value heads need fewer parameters, and a `head_dim` counts before the quotient.

    >>> grouped = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2}
    >>> prefix_params_from_config(grouped, 10), prefix_params_from_config(grouped | {"head_dim": 32}, 10)
    (1280, 2560)
    """
    heads = cfg["num_attention_heads"]
    kv_heads = heads if cfg.get("num_key_value_heads") is None else cfg["num_key_value_heads"]
    head_dim = cfg.get("head_dim")
    if head_dim is None:
        if cfg["hidden_size"] % heads:
            raise ValueError(f"hidden_size {cfg['hidden_size']} must be divisible by {heads} attention heads")
        # The query heads share the hidden size; with grouped-query attention there are fewer key-value heads, as wide.
        head_dim = cfg["hidden_size"] // heads
    return prefix_params(cfg["num_hidden_layers"], n_prefix, kv_heads, head_dim)


def reparam_params(n_layers: int, n_prefix: int, d_kv: int, d_embed: int, hidden: int) -> int:
    """Return the number of parameters of the network that makes the prefixes while they are trained, an `int`.

    An embedding holds `n_prefix` vectors of width `d_embed`; a linear layer to `hidden` and, after an activation, one
    to all keys and values of all layers follow, both with biases. `d_kv` is the width of all key-value heads together.

    >>> reparam_params(n_layers=1, n_prefix=2, d_kv=3, d_embed=4, hidden=5)
    69
    """
    out = 2 * n_layers * d_kv
    return n_prefix * d_embed + (d_embed * hidden + hidden) + (hidden * out + out)


def prefix_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pk: torch.Tensor, pv: torch.Tensor, causal: bool = True
) -> torch.Tensor:
    """Return attention over the sequence and the prefix: (batch, heads, time, head_dim).

    `q` is (batch, heads, time, head_dim), `k` and `v` are (batch, kv_heads, time, head_dim), `pk` and `pv` are
    (kv_heads, m, head_dim), the same for the whole batch; m may be 0, every other size is at least 1. Query head h uses
    key-value head h // (heads / kv_heads). Scores are divided by sqrt(head_dim); they may be as large as 100,000, of
    either sign. Every query sees the whole prefix; with `causal` it sees no later time. The result can be
    differentiated with respect to all five tensors.

    Errors: ValueError whose message contains `multiple` (heads isn't one of kv_heads) or `shape` (any other size
    doesn't fit: nothing is broadcast).

    >>> q, k, pk = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), torch.zeros(1, 3, 2)
    >>> prefix_attention(q, k, k + 4, pk, pk).flatten().tolist()
    [1.0, 1.0]

    Always: with equal scores a query gets the mean of what it sees; the first of two times doesn't see the second.

    >>> q, k, v = torch.zeros(1, 2, 2, 1), torch.zeros(1, 1, 2, 1), torch.tensor([[[[4.0], [7.0]]]])
    >>> prefix = torch.tensor([[[1.0]]])
    >>> [prefix_attention(q, k, v, prefix, prefix, causal)[0, 0].flatten().tolist() for causal in (True, False)]
    [[2.5, 4.0], [4.0, 4.0]]
    """
    share, m = heads_per_key(q, k, v, pk, pv), pk.shape[-2]
    keys, values = prefixed(k, pk, share), prefixed(v, pv, share)
    scores = masked_scores(q, keys, m, causal)
    return scores.softmax(-1) @ values


def prefix_gate(q: torch.Tensor, k: torch.Tensor, pk: torch.Tensor, causal: bool = True) -> torch.Tensor:
    """Return the share of each query's attention that goes to the prefix: (batch, heads, time).

    Arguments, scores, gradients and errors as in `prefix_attention`. With this share g the output is (1 - g) times the
    attention to the sequence alone plus g times the attention to the prefix alone.

    >>> q, k, pk = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), torch.zeros(1, 3, 2)
    >>> prefix_gate(q, k, pk).item()
    0.75
    >>> three = torch.zeros(1, 1, 3, 2)
    >>> [round(share, 4) for share in prefix_gate(three, three, pk).flatten().tolist()]
    [0.75, 0.6, 0.5]
    """
    share, m = heads_per_key(q, k, k, pk, pk), pk.shape[-2]
    attention = masked_scores(q, prefixed(k, pk, share), m, causal).softmax(-1)
    return attention[..., :m].sum(-1)


def masked_scores(q: torch.Tensor, keys: torch.Tensor, m: int, causal: bool) -> torch.Tensor:
    """Return the scores of prefix and sequence, -inf where a query may not look: (batch, heads, time, m + time)."""
    scores = q @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if not causal:
        return scores
    time = q.shape[-2]
    later = torch.ones(time, time, dtype=torch.bool, device=q.device).triu(1)
    # The prefix stands before all times: its columns are never hidden.
    hidden = torch.cat([later.new_zeros(time, m), later], dim=1)
    return scores.masked_fill(hidden, -math.inf)


def prefixed(part: torch.Tensor, prefix: torch.Tensor, share: int) -> torch.Tensor:
    """Return the prefix and the sequence's keys or values behind it: (batch, heads, m + time, head_dim)."""
    both = torch.cat([prefix.expand(len(part), -1, -1, -1), part], dim=-2)
    # repeat_interleave, not repeat: neighbours share a key-value head.
    return both.repeat_interleave(share, dim=1)


def heads_per_key(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pk: torch.Tensor, pv: torch.Tensor) -> int:
    """Return how many query heads share a key-value head, or raise ValueError if the sizes don't fit."""
    (batch, heads, time, dim), kv_heads = q.shape, k.shape[1]
    if pk.shape != pv.shape or {k.shape, v.shape} != {(batch, kv_heads, time, dim)}:
        raise ValueError("shape: q (B, H, T, d), k and v (B, Hkv, T, d), pk and pv (Hkv, m, d) must fit together")
    if pk.shape[::2] != (kv_heads, dim):
        raise ValueError(f"shape: the prefix must be ({kv_heads}, m, {dim}), got {tuple(pk.shape)}")
    if heads % kv_heads:
        raise ValueError(f"the number of heads must be a multiple of the key-value heads, got {heads} and {kv_heads}")
    return heads // kv_heads
