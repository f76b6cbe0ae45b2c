"""The one decoder of the course: Llama-shaped, small enough to read, and able to hold both of its models.

A token becomes a vector; each block adds to it what attention finds among earlier tokens and what an MLP makes of it;
the head compares the result with every token's vector. RMSNorm (arXiv:1910.07467), rotary positions
(arXiv:2104.09864), SwiGLU (arXiv:2002.05202), grouped-query attention (arXiv:2305.13245). With the settings at the end
of `Config` it is also a Qwen2, a Qwen3 or a SmolLM3.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ftmath.rotary import Turn, rotated, turn

Cache = list[tuple[Tensor, Tensor] | None]


@dataclass(frozen=True, slots=True)
class Config:
    """The sizes of a decoder; the defaults are those of the course's base model.

    `biases` are those of all linear layers of the blocks, and `biased` names layers that have one where the others
    don't. `qk_norms` puts an RMSNorm on each head's queries and keys. `rope_rates` replaces the rates that `rope_base`
    gives, `rope_scale` multiplies cosines and sines, and the layers in `unrotated` know no positions.

    >>> Config(d_model=64, layers=2).head_dim
    32
    """

    vocab: int = 128
    d_model: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 32
    d_hidden: int = 352
    biases: bool = True
    tied: bool = True
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    biased: tuple[str, ...] = ()
    qk_norms: bool = False
    rope_rates: tuple[float, ...] = ()
    rope_scale: float = 1.0
    unrotated: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of kv_heads, got {self.heads} and {self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, for rotary positions, got {self.head_dim}")

    def linear(self, name: str, d_in: int, d_out: int) -> nn.Linear:
        """Return a linear layer of a block, with a bias if layers of this name have one."""
        return nn.Linear(d_in, d_out, bias=self.biases or name in self.biased)


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis, then scale by a trained gain (d_model,)."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class KVPrefix(nn.Module):
    """Keys and values (kv_heads, m, head_dim) of one layer that every query sees and no token produced."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = nn.Parameter(keys), nn.Parameter(values)


class Attention(nn.Module):
    """Grouped-query attention over the sequence and, if there is one, a prefix before it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        # Modules of any kind, since the methods of tuning wrap them.
        self.q: nn.Module = config.linear("q", config.d_model, queries)
        self.k: nn.Module = config.linear("k", config.d_model, keys)
        self.v: nn.Module = config.linear("v", config.d_model, keys)
        self.o: nn.Module = config.linear("o", queries, config.d_model)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norms else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norms else nn.Identity()
        self.prefix: KVPrefix | None = None

    def forward(
        self, x: Tensor, angles: Turn, visible: Tensor | None, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the output (batch, time, d_model), and all keys and values of the sequence so far.

        `angles` are those of `turn`; `visible` is (batch, 1, time, all times), True where a query may look, or None
        where it may look at all before it and itself.
        """
        batch, time, _ = x.shape

        def by_head(flat: Tensor, heads: int) -> Tensor:
            return flat.view(batch, time, heads, self.config.head_dim).transpose(1, 2)

        q = rotated(self.q_norm(by_head(self.q(x), self.config.heads)), angles)
        k = rotated(self.k_norm(by_head(self.k(x), self.config.kv_heads)), angles)
        v = by_head(self.v(x), self.config.kv_heads)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        keys, values = k, v
        if self.prefix is not None:
            keys = torch.cat([self.prefix.keys.expand(batch, -1, -1, -1), k], dim=2)
            values = torch.cat([self.prefix.values.expand(batch, -1, -1, -1), v], dim=2)
            if visible is None:
                visible = torch.ones(time, time, dtype=torch.bool, device=x.device).tril()
            visible = F.pad(visible, (self.prefix_length, 0), value=True)
        grouped = self.config.heads != self.config.kv_heads
        out = F.scaled_dot_product_attention(
            q, keys, values, attn_mask=visible, is_causal=visible is None, enable_gqa=grouped
        )
        return self.o(out.transpose(1, 2).reshape(batch, time, -1)), (k, v)

    @property
    def prefix_length(self) -> int:
        """Return how many positions the prefix takes; the sequence's begin after it."""
        return 0 if self.prefix is None else self.prefix.keys.shape[1]


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate: nn.Module = config.linear("gate", config.d_model, config.d_hidden)
        self.up: nn.Module = config.linear("up", config.d_model, config.d_hidden)
        self.down: nn.Module = config.linear("down", config.d_hidden, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attn_norm, self.attn = RMSNorm(config.d_model, config.norm_eps), Attention(config)
        self.mlp_norm, self.mlp = RMSNorm(config.d_model, config.norm_eps), MLP(config)

    def forward(
        self, x: Tensor, angles: Turn, visible: Tensor | None, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        found, kept = self.attn(self.attn_norm(x), angles, visible, past)
        x = x + found
        return x + self.mlp(self.mlp_norm(x)), kept


class Decoder(nn.Module):
    """A causal language model: ids (batch, time) to logits (batch, time, vocab), where logits[:, t] score token t + 1.

    `attention_mask` (batch, time) is 1 for real tokens; padding may stand on either side and changes no real token's
    logits. Without a mask, real tokens still see none of the padding on their right, since attention is causal. Weights
    are drawn from `generator`: normal with standard deviation 0.02, biases 0. Where `checkpointing` is set, a backward
    pass keeps only the inputs of the blocks and computes the rest again (arXiv:1604.06174).

    >>> model = Decoder(Config(vocab=11, d_model=8, layers=2, heads=2, kv_heads=1, head_dim=4, d_hidden=12))
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 11])
    """

    def __init__(self, config: Config, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        self.embed = nn.Embedding(config.vocab, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = nn.Linear(config.d_model, config.vocab, bias=False)
        if config.tied:
            self.head.weight = self.embed.weight
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02, generator=generator)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self, ids: Tensor | None = None, attention_mask: Tensor | None = None, *,
        embeddings: Tensor | None = None, cache: Cache | None = None,
    ) -> Tensor:  # fmt: skip
        return self.head(self.hidden(ids, attention_mask, embeddings=embeddings, cache=cache))

    def hidden(
        self, ids: Tensor | None = None, attention_mask: Tensor | None = None, *,
        embeddings: Tensor | None = None, cache: Cache | None = None,
    ) -> Tensor:  # fmt: skip
        """Return what the head reads: (batch, time, d_model), after the final norm.

        Give `ids`, or `embeddings` (batch, time, d_model) in their place. A `cache` of one entry a layer is read and
        filled; then `attention_mask` covers all times, and `ids` only the new ones.

        Errors: ValueError if neither or both of `ids` and `embeddings` are given, or the mask has another length.
        """
        if (ids is None) == (embeddings is None):
            raise ValueError("give either ids (batch, time) or embeddings (batch, time, d_model)")
        x = self.embed(ids) if embeddings is None else embeddings
        before = 0 if not cache or cache[0] is None else cache[0][0].shape[2]
        positions, visible = self.layout(x, before, attention_mask)
        # Positions begin after the prefix, if there is one.
        rope = turn(positions + self.prefix_length, self.config.head_dim, self.config.rope_base, self.config.rope_rates)
        cos, sin = ((part * self.config.rope_scale).to(x.dtype) for part in rope)
        still = torch.ones_like(cos), torch.zeros_like(sin)
        for number, block in enumerate(self.blocks):
            angles = still if number in self.config.unrotated else (cos, sin)
            inputs = x, angles, visible, cache[number] if cache else None
            if self.checkpointing and torch.is_grad_enabled():
                x, kept = cast("tuple[Tensor, tuple[Tensor, Tensor]]", checkpoint(block, *inputs, use_reentrant=False))
            else:
                x, kept = block(*inputs)
            if cache is not None:
                cache[number] = kept
        return self.norm(x)

    @property
    def prefix_length(self) -> int:
        """Return how many virtual positions stand before the sequence in its layers: those of the longest prefix."""
        return max((block.attn.prefix_length for block in self.blocks if isinstance(block, Block)), default=0)

    @staticmethod
    def layout(x: Tensor, before: int, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the positions (batch, time) of x, which follows `before` earlier times, and what each query sees."""
        batch, time = x.shape[0], before + x.shape[1]
        if attention_mask is None:
            if not before:
                return torch.arange(time, device=x.device).expand(batch, -1), None
            attention_mask = torch.ones(batch, time, dtype=torch.bool, device=x.device)
        if attention_mask.shape != (batch, time):
            raise ValueError(f"attention_mask must be ({batch}, {time}), got {tuple(attention_mask.shape)}")
        real = attention_mask != 0
        # Only real tokens are counted, so that padding on the left moves no position.
        positions = (real.long().cumsum(1) - 1).clamp(min=0)[:, before:]
        order = torch.arange(time, device=x.device)
        visible = (order[None, :] <= order[before:, None]) & real[:, None, None, :]
        # A padding query sees itself: a row of nothing but -inf would be NaN.
        return positions, visible | (order[None, :] == order[before:, None])


@torch.no_grad()
def generate(
    model: Decoder, ids: Tensor, attention_mask: Tensor | None = None, *, max_new: int, stop: int | None = None,
    temperature: float = 0.0, generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Return up to `max_new` new tokens for each row of `ids` (batch, time), without the prompt.

    Prompts of unequal length are padded on the left. At temperature 0 the likeliest token is taken, else one is drawn
    from softmax(logits / temperature). What follows a row's `stop` token is `stop` again.

    >>> model = Decoder(Config(layers=1))
    >>> generate(model, torch.tensor([[1, 70, 2]]), max_new=4).shape
    torch.Size([1, 4])

    Errors: ValueError for a negative temperature.
    """
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    mask = torch.ones_like(ids) if attention_mask is None else attention_mask
    cache: Cache = [None] * model.config.layers
    done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    new: list[Tensor] = []
    for _ in range(max_new):
        logits = model(ids, mask, cache=cache)[:, -1].float()
        if temperature == 0:
            token = logits.argmax(-1)
        else:
            token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator).squeeze(-1)
        if stop is not None:
            token = token.where(~done, stop)
            done = done | (token == stop)
        new.append(token)
        ids, mask = token[:, None], torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        if stop is not None and bool(done.all()):  # asking waits for the device
            break
    return torch.stack(new, dim=1) if new else ids.new_zeros(len(ids), 0)


__all__ = [
    "MLP", "Attention", "Block", "Cache", "Config", "Decoder", "KVPrefix", "RMSNorm", "generate",
]  # fmt: skip
