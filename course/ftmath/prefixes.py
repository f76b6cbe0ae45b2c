"""Trained prefixes: vectors before the token embeddings, or keys and values in every layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.model import Block, Decoder, KVPrefix


class SoftPrompt(nn.Module):
    """A frozen model with m trained vectors before every sequence's embeddings (arXiv:2104.08691).

    The vectors start as the embeddings of the token ids `start` (m,); the paper found this better than random vectors.
    Logits are returned for the real tokens only: (batch, time, vocab). There are m d_model trained parameters.

    >>> from ftmath.model import Config
    >>> model = SoftPrompt(Decoder(Config(layers=1)), torch.tensor([65, 66]))
    >>> model(torch.tensor([[1, 70, 2]])).shape, model.vectors.numel()
    (torch.Size([1, 3, 128]), 256)
    """

    def __init__(self, model: Decoder, start: Tensor) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.vectors = nn.Parameter(model.embed.weight[start].detach().clone())

    @property
    def head(self) -> nn.Module:
        """Return the model's head."""
        return self.model.head

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.head(self.hidden(ids, attention_mask))

    def hidden(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the head's inputs at the real tokens: (batch, time, d_model)."""
        m = len(self.vectors)
        embeddings = torch.cat([self.vectors.expand(len(ids), -1, -1), self.model.embed(ids)], dim=1)
        mask = None if attention_mask is None else F.pad(attention_mask, (m, 0), value=1)
        return self.model.hidden(attention_mask=mask, embeddings=embeddings)[:, m:]


def add_prefix(model: Decoder, m: int, generator: torch.Generator | None = None, scale: float = 0.02) -> None:
    """Give each key-value head of every layer m trained keys and values; freeze all else (arXiv:2101.00190).

    These keys are not rotated, and the positions of the real tokens start at m. There are 2 L m n_kv d_head trained
    parameters, for L layers with n_kv key-value heads of width d_head.

    >>> from ftmath.model import Config
    >>> model = Decoder(Config(layers=2, kv_heads=2))
    >>> add_prefix(model, m=5)
    >>> sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    1280

    Errors: ValueError for a negative m.
    """
    if m < 0:
        raise ValueError(f"m must not be negative, got {m}")
    model.requires_grad_(False)
    shape = (model.config.kv_heads, m, model.config.head_dim)
    for block in model.blocks:
        assert isinstance(block, Block)
        keys, values = (scale * torch.randn(shape, generator=generator).to(model.embed.weight) for _ in range(2))
        block.attn.prefix = KVPrefix(keys, values)


__all__ = ["SoftPrompt", "add_prefix"]
