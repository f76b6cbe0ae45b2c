"""One loop for every method, and the record that a run leaves."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ftmath.memory import Budget

Schedule = Callable[[int, int], float]
"""From a step and the number of steps to the share of each group's rate."""


def constant(step: int, steps: int) -> float:
    """Return 1.

    >>> constant(3, 10)
    1.0
    """
    return 1.0


def cosine(step: int, steps: int) -> float:
    """Return half a cosine, from 1 at the first step down to 0 after the last (arXiv:1608.03983, equation 5).

    >>> cosine(0, 10), cosine(5, 10)
    (1.0, 0.5)
    """
    return round(0.5 * (1 + math.cos(math.pi * step / steps)), 12)


def train(
    model: nn.Module, loss: Callable[[int], Tensor], groups: Iterable[Any], steps: int, *,
    schedule: Schedule = constant, clip: float = 1.0, label: str = "train",
) -> list[float]:  # fmt: skip
    """Minimise `loss(step)` with AdamW for so many steps; return the loss of each.

    `groups` are the optimizer's, and keep their own rates: the schedule multiplies each. A parameter that gets no
    gradient at a step is not touched at it, neither by momentum nor by decay. Gradients longer than `clip` are
    shortened to it.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> found = train(layer, lambda step: layer.weight.square().sum(), layer.parameters(), 50)
    >>> len(found), found[-1] < found[0]
    (50, True)

    Errors: ValueError for a loss that isn't finite: it names the step, and the model is as it was before it.
    """
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0)
    rates = [group["lr"] for group in optimizer.param_groups]
    losses: list[float] = []
    bar = tqdm(range(steps), desc=label, leave=False, delay=5)  # a short run needs no bar
    for step in bar:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step, steps)
        value = loss(step)
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            raise ValueError(
                f"the loss is {losses[-1]} at step {step}: lower the rate, or look for a row without target"
            )
        value.backward()
        nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # None, not zeros: zeros would let momentum and decay go on
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of fine-tuning was and did.

    `quality` is the accuracy on the task, `retention` that on each base skill, `kl` the mean KL(tuned || base) over
    the answer positions of the skills' probes, in nats per token; `budget` the bytes of a step.

    >>> budget = Budget(weights=4, gradients=4, optimizer=8)
    >>> Run("full", "flip", (0.7, 0.1), 1.0, {"copy": 1.0, "sort": 0.5}, 0.2, 1, budget, 3.0, "cpu").kept
    0.75
    """

    method: str
    task: str
    losses: tuple[float, ...]
    quality: float
    retention: dict[str, float]
    kl: float
    trainable: int
    budget: Budget
    seconds: float
    device: str

    @property
    def kept(self) -> float:
        """Return the mean accuracy over the base skills."""
        return sum(self.retention.values()) / len(self.retention)

    def __str__(self) -> str:
        return (
            f"{self.method} on {self.task}: quality {self.quality:.2f}, base kept {self.kept:.2f}, "
            f"KL {self.kl:.3f} nats/token, {self.trainable:,} trained, {self.budget.total / 2**20:.1f} MiB, "
            f"{self.seconds:.1f} s on {self.device}"
        )


__all__ = ["Run", "Schedule", "constant", "cosine", "train"]
