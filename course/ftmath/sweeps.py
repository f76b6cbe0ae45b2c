"""Short runs of one recipe at several rates and seeds, and what is read from them: each method at its own best rate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftmath.groups import Group, rate_groups
from ftmath.masks import model_loss
from ftmath.model import Decoder
from ftmath.skills import mixture, probes
from ftmath.training import Schedule, constant, train
from ftmath.weights import base_model

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class ShortRun:
    """The mean loss of the last ten steps, in nats per answer token, how many numbers were trained, and the model."""

    loss: float
    trained: int
    model: Decoder


def one_rate(model: nn.Module, rate: float) -> list[Group]:
    return rate_groups(model, {}, rate)


def short_run(
    prepare: Callable[[Decoder, torch.Generator], Any], seed: int, *, rate: float, task: str = "neb", steps: int = 40,
    rows: int = 16, groups: Callable[[nn.Module, float], list[Group]] = one_rate, device: torch.device = CPU,
    schedule: Schedule = constant, clip: float = 1.0,
) -> ShortRun:  # fmt: skip
    """Train the base model with AdamW on fresh lines of a task, as `prepare(model, generator)` makes it trainable.

    The seed draws the factors and the lines; `schedule` and `clip` are those of `train`.

    >>> from ftmath.lora import add_lora
    >>> run = short_run(lambda model, g: add_lora(model, ["q"], 2, 4.0, generator=g), 0, rate=1e-3, steps=2, rows=2)
    >>> run.trained, run.loss > 0
    (2048, True)
    """
    model = base_model()
    prepare(model, torch.Generator().manual_seed(seed))
    model, rng = model.to(device), np.random.default_rng(seed)

    def loss(_: int) -> Tensor:
        lines = mixture({task: 1.0}, rows, rng).to(device)
        return model_loss(model, lines.ids, lines.answer_mask)

    losses = train(model, loss, groups(model, rate), steps, schedule=schedule, clip=clip, label=task)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return ShortRun(float(np.mean(losses[-10:])), trained, model)


@torch.no_grad()
def held_out_loss(model: Decoder, task: str = "neb", count: int = 128, seed: int = 99) -> float:
    """Return the loss on lines that are the same for all runs, in nats per answer token.

    >>> held_out_loss(base_model(), "copy", count=8) < 0.1 < 2 < held_out_loss(base_model(), "neb", count=8)
    True
    """
    lines = probes(task, count, seed).to(model.embed.weight.device)
    return float(model_loss(model, lines.ids, lines.answer_mask))


def best_rate(losses: Mapping[str, Sequence[float]]) -> str:
    """Return the rate with the least mean loss over the seeds; `losses` maps each rate to one loss per seed.

    >>> best_rate({"0.001": [2.0, 2.2], "0.01": [1.0, 1.4]})
    '0.01'

    Errors: ValueError if the best rate is the lowest or the highest that was tried: the sweep is too narrow to tell.
    """
    rates = sorted(losses, key=float)
    best = min(rates, key=lambda rate: float(np.mean(losses[rate])))
    if len(rates) > 2 and best in (rates[0], rates[-1]):
        raise ValueError(f"the sweep {', '.join(rates)} is too narrow: its best rate stands at an end, at {best}")
    return best


def at_best_rate(losses: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the losses, one per seed, at the best rate of a sweep.

    >>> at_best_rate({"0.001": [2.0, 2.2], "0.01": [1.0, 1.4]})
    [1.0, 1.4]
    """
    return [float(loss) for loss in losses[best_rate(losses)]]


__all__ = ["ShortRun", "at_best_rate", "best_rate", "held_out_loss", "one_rate", "short_run"]
