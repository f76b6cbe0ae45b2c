"""The training loop that every method uses, and the record of a run."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ftmath.memory import Budget

Schedule = Callable[[int, int], float]
"""A function from a step and the number of steps to a factor that multiplies every group's rate."""


def constant(step: int, steps: int) -> float:
    """Return 1 at every step.

    >>> constant(3, 10)
    1.0
    """
    return 1.0


def cosine(step: int, steps: int) -> float:
    """Return a factor that falls as half a cosine from 1 at step 0 to 0 at `steps` (arXiv:1608.03983, equation 5).

    >>> cosine(0, 10), cosine(5, 10)
    (1.0, 0.5)
    """
    return round(0.5 * (1 + math.cos(math.pi * step / steps)), 12)


def warm_up(rise: int, then: Schedule = constant) -> Schedule:
    """Return a schedule that rises in equal steps to 1 at the last of `rise` steps, and then follows another.

    The first step has 1 / rise, so that no batch is wasted on a rate of 0.

    >>> [warm_up(4)(step, 10) for step in (0, 1, 3, 4)]
    [0.25, 0.5, 1.0, 1.0]
    >>> warm_up(4, cosine)(7, 10)
    0.5

    Errors: ValueError for a negative rise.
    """
    if rise < 0:
        raise ValueError(f"rise must not be negative, got {rise}")
    return lambda step, steps: (step + 1) / rise if step < rise else then(step - rise, steps - rise)


def train(
    model: nn.Module, loss: Callable[[int], Tensor], groups: Iterable[Any], steps: int, *,
    schedule: Schedule = constant, clip: float = 1.0, label: str = "train",
) -> list[float]:  # fmt: skip
    """Minimise `loss(step)` with AdamW for `steps` steps; return the loss of each step.

    `groups` are the optimizer's parameter groups; the schedule multiplies each group's own rate. A parameter without a
    gradient at a step doesn't change at that step, neither by momentum nor by decay. If the norm of all gradients
    together exceeds `clip`, they are scaled down to it.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> found = train(layer, lambda step: layer.weight.square().sum(), layer.parameters(), 50)
    >>> len(found), found[-1] < found[0]
    (50, True)

    Errors: ValueError for a loss that isn't finite. The message names the step; that step doesn't change the model.
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
                f"the loss is {losses[-1]} at step {step}: lower the rate, or look for a row without a target"
            )
        value.backward()
        nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # None, not zeros: zeros would let momentum and decay go on
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses


@dataclass(frozen=True, slots=True)
class Run:
    """The settings and results of one fine-tuning run.

    `quality` is the accuracy on the task, and `retention` the accuracy on each base skill. `kl` is the mean
    KL(tuned || base) over the answer positions of the skills' probes, in nats per token. `budget` holds the bytes of a
    training step, `trainable` counts the trained parameters.

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


__all__ = ["Run", "Schedule", "constant", "cosine", "train", "warm_up"]
