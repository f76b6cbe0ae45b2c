"""The training steps that the lab predicts and measures: supervised, DPO and GRPO, in full, by LoRA and by QLoRA."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ftmath.lora import add_lora, disabled
from ftmath.model import Config, Decoder, generate
from ftmath.policy_gradient import group_advantages, policy_loss
from ftmath.preference import dpo_loss, margin
from ftmath.quant import quantise_linears

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
UNSEEN = -100


def build(config: Config, method: str, device: torch.device | None = None, rank: int = 16) -> Decoder:
    """Return a decoder with random weights in the default type, prepared for a method (full, LoRA or QLoRA)."""
    with torch.device(device) if device else nullcontext():
        model = Decoder(config)
    if method == "QLoRA":
        quantise_linears(model)
    if method != "full":
        add_lora(model, LINEARS, rank, 2.0 * rank)
        if device:
            model.to(device)
    return model


def targets_of(ids: Tensor) -> Tensor:
    """Return the next token at each position (batch, time); the last position has none and isn't scored."""
    return F.pad(ids[:, 1:], (0, 1), value=UNSEEN)


def plain_loss(model: Decoder, ids: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the mean loss over the targets (default: the next tokens), in nats, from all logits at once in 32 bits."""
    targets = targets_of(ids) if targets is None else targets
    logits = model(ids)
    return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.flatten(), ignore_index=UNSEEN)


def chunked_loss(model: Decoder, ids: Tensor, chunks: int, targets: Tensor | None = None) -> Tensor:
    """Return `plain_loss` without holding all logits: those of a chunk are computed again in the backward pass.

    >>> model, ids = Decoder(Config(layers=1)), torch.arange(32)[None]
    >>> torch.allclose(chunked_loss(model, ids, 4), plain_loss(model, ids))
    True
    """
    targets = (targets_of(ids) if targets is None else targets).flatten()
    hidden = model.hidden(ids).flatten(0, 1)

    def piece(vectors: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(model.head(vectors).float(), wanted, ignore_index=UNSEEN, reduction="sum")

    total = hidden.new_zeros((), dtype=torch.float32)
    for vectors, wanted in zip(hidden.chunk(chunks), targets.chunk(chunks), strict=True):
        part = checkpoint(piece, vectors, wanted, use_reentrant=False)
        assert isinstance(part, Tensor)
        total = total + part
    return total / (targets != UNSEEN).sum()


def token_scores(model: Decoder, ids: Tensor) -> Tensor:
    """Return log p of the next tokens (batch, time), in nats; 0 at the last position."""
    logits = model(ids)
    flat = F.cross_entropy(
        logits.view(-1, logits.shape[-1]).float(), targets_of(ids).flatten(), ignore_index=UNSEEN, reduction="none"
    )
    return -flat.view_as(ids)


def as_reference(model: Decoder, reference: Decoder | None) -> tuple[Decoder, AbstractContextManager[None]]:
    """Return the reference model and the context to use it in: a copy, or the model with its adapters disabled."""
    return (reference, nullcontext()) if reference is not None else (model, disabled(model))


def dpo_step(model: Decoder, reference: Decoder | None, ids: Tensor) -> Tensor:
    """Return the DPO loss of pairs: the first half of the rows (2 pairs, time) is chosen, the second rejected."""
    other, block = as_reference(model, reference)
    with torch.no_grad(), block:
        wanted = token_scores(other, ids).sum(1).chunk(2)
    ours = token_scores(model, ids).sum(1).chunk(2)
    return dpo_loss(margin(ours[0], ours[1], wanted[0], wanted[1]))


def grpo_step(model: Decoder, reference: Decoder | None, prompts: Tensor, answer: int, group: int) -> Tensor:
    """Return GRPO's loss on answers of fixed length, sampled now. Rewards are random, since only bytes are measured."""
    drawn = generate(model, prompts, max_new=answer, temperature=1.0)
    ids = torch.cat([prompts, drawn], dim=1)
    other, block = as_reference(model, reference)
    with torch.no_grad():
        sampled = token_scores(model, ids)
        with block:
            wanted = token_scores(other, ids)
    rewards = torch.rand(len(ids) // group, group, device=ids.device)
    mask = torch.zeros_like(sampled)
    mask[:, prompts.shape[1] - 1 : -1] = 1
    return policy_loss(token_scores(model, ids), sampled, wanted, group_advantages(rewards).flatten(), mask)


def make_optimizer(model: Decoder) -> torch.optim.AdamW:
    """Return AdamW in one fused kernel, which makes no temporary copies. Its moments have the parameters' type."""
    return torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5, fused=True)


def step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, mark: Callable[[str], None] = lambda _: None):
    """Take one training step; `mark` is called with the name of each phase when it begins."""
    mark("forward")
    value = loss()
    mark("backward")
    value.backward()
    mark("optimizer")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    mark("end")


__all__ = [
    "LINEARS", "UNSEEN", "build", "chunked_loss", "dpo_step", "grpo_step", "make_optimizer", "plain_loss", "step",
    "targets_of", "token_scores",
]  # fmt: skip
