"""Chats of several turns: the template, who wrote which token, which are targets, and lines packed into one row."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from ftmath.model import Decoder
from ftmath.rotary import turn
from ftmath.skills import BOS, EOS, SEP

CLOSING = {"system": SEP, "user": SEP, "assistant": EOS}
"""The token that ends a turn of each role. A chat of one question and one answer is a line of the base model."""


def chat(turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[str]]:
    """Return the tokens of a chat of (role, text) turns, and for each token the role that wrote it.

    The first token opens the chat and is nobody's. Every turn ends in its role's closing token.

    >>> chat([("user", "up a"), ("assistant", "A")])[0]
    [1, 117, 112, 32, 97, 2, 65, 3]

    Errors: ValueError naming the role for one that the template doesn't know.
    """
    ids, roles = [BOS], [""]
    for role, text in turns:
        if role not in CLOSING:
            raise ValueError(f"role must be one of {', '.join(CLOSING)}, got {role!r}")
        said = [*text.encode("ascii"), CLOSING[role]]
        ids, roles = ids + said, roles + [role] * len(said)
    return ids, roles


def assistant_mask(roles: Sequence[str]) -> list[int]:
    """Return 1 where the assistant wrote the token, its closing token included.

    >>> assistant_mask(["", "user", "assistant", "user", "assistant"])
    [0, 0, 1, 0, 1]
    """
    return [int(role == "assistant") for role in roles]


def completion_mask(roles: Sequence[str]) -> list[int]:
    """Return 1 on the assistant's tokens that nobody else's token follows: the last answer alone.

    >>> completion_mask(["", "user", "assistant", "user", "assistant"])
    [0, 0, 0, 0, 1]
    """
    begin = max((place + 1 for place, role in enumerate(roles) if role != "assistant"), default=0)
    return [int(place >= begin) for place in range(len(roles))]


def answer_turns(mask: Sequence[int]) -> list[int]:
    """Return for each token which answer it belongs to, from 1, or 0 if it's no target.

    >>> answer_turns([0, 1, 1, 0, 1])
    [0, 1, 1, 0, 2]
    """
    starts, count = [int(b > a) for a, b in pairwise([0, *mask])], 0
    found: list[int] = []
    for start, on in zip(starts, mask, strict=True):
        count += start
        found.append(count * on)
    return found


def packed_logits(model: Decoder, ids: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
    """Return the logits (time, vocab) of one row of packed lines: ids and positions (time,), allowed (time, time).

    >>> import torch
    >>> from ftmath.model import Config
    >>> model = Decoder(Config(layers=1)).requires_grad_(False)
    >>> ids, causal = torch.tensor([1, 70, 2]), torch.ones(3, 3, dtype=torch.bool).tril()
    >>> torch.allclose(packed_logits(model, ids, torch.arange(3), causal), model(ids[None])[0], atol=1e-5)
    True
    """
    x = model.embed(ids[None])
    angles = turn(positions[None], model.config.head_dim, model.config.rope_base)
    for block in model.blocks:
        x, _ = block(x, angles, allowed[None, None])
    return model.head(model.norm(x))[0]


__all__ = ["CLOSING", "answer_turns", "assistant_mask", "chat", "completion_mask", "packed_logits"]
