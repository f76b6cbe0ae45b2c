"""The method map: each row a way to make the base model trainable, and one function that runs any of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ftmath.adapters import add_houlsby, add_pfeiffer
from ftmath.context import NO_UPDATE
from ftmath.device import best_device, describe, synchronize
from ftmath.groups import Group, bitfit, layer_groups, rate_groups, slanted_triangle, thaw, train_only
from ftmath.lora import add_lora
from ftmath.masks import LanguageModel, model_logprob, model_loss
from ftmath.memory import Budget, measured, storage_bytes
from ftmath.model import Decoder
from ftmath.prefixes import SoftPrompt, add_prefix
from ftmath.probe import add_head
from ftmath.quant import quantise_linears
from ftmath.shift import ewc, fisher_diagonal, kl_shift, l2_sp
from ftmath.skills import SKILLS, Batch, Rng, accuracy, batch, example, mixture, probes, retention
from ftmath.training import Run, Schedule, constant, train
from ftmath.weights import base_model

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
Prepare = Callable[[Decoder, torch.Generator], nn.Module]


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the map: how the model is made trainable, its rate, and how the rate and the frozen part move."""

    prepare: Prepare
    rate: float
    groups: Callable[[nn.Module, float], list[Group]] = lambda model, rate: rate_groups(model, {}, rate)
    schedule: Schedule = constant
    stage: Callable[[nn.Module, int, int], object] | None = None


def everything(model: Decoder, generator: torch.Generator) -> nn.Module:
    return model.requires_grad_(True)


def after(change: Callable[[Decoder, torch.Generator], object]) -> Prepare:
    """Return a preparation that changes the model in place."""

    def prepare(model: Decoder, generator: torch.Generator) -> nn.Module:
        change(model, generator)
        return model

    return prepare


def lora(targets: tuple[str, ...], rank: int, *, rank_stabilised: bool = False, bits: bool = False) -> Prepare:
    """Return LoRA with alpha = 2 r; with `bits`, on a base of four."""

    def change(model: Decoder, generator: torch.Generator) -> None:
        if bits:
            quantise_linears(model)
        add_lora(model, targets, rank, 2.0 * rank, rank_stabilised=rank_stabilised, generator=generator)

    return after(change)


def soft_prompt(m: int) -> Prepare:
    def prepare(model: Decoder, generator: torch.Generator) -> nn.Module:
        return SoftPrompt(model, torch.randint(32, 127, (m,), generator=generator).to(model.embed.weight.device))

    return prepare


def gradual(model: nn.Module, step: int, steps: int) -> list[str]:
    """Thaw one more level in each of L + 1 equal stretches of a run, from the top."""
    assert isinstance(model, Decoder)
    levels = model.config.layers + 1
    return thaw(model, min(levels, 1 + step * levels // steps))


METHODS: dict[str, Method] = {
    "full": Method(everything, 1e-4),
    "full, layer-wise": Method(
        everything, 3e-3, lambda model, rate: layer_groups(model, rate, 1 / 2.6), slanted_triangle, gradual
    ),
    "LoRA": Method(lora(LINEARS, 4), 1e-3),
    "LoRA q,v": Method(lora(("q", "v"), 4), 3e-3),
    "rsLoRA": Method(lora(LINEARS, 4, rank_stabilised=True), 5e-4),
    "QLoRA": Method(lora(LINEARS, 4, bits=True), 1e-3),
    "Houlsby adapters": Method(after(lambda model, generator: add_houlsby(model, 8, generator)), 3e-3),
    "Pfeiffer adapters": Method(after(lambda model, generator: add_pfeiffer(model, 16, generator)), 3e-3),
    "prefix": Method(after(lambda model, generator: add_prefix(model, 8, generator)), 3e-2),
    "soft prompt": Method(soft_prompt(8), 1e-1),
    "BitFit": Method(after(lambda model, generator: bitfit(model)), 3e-2),
    "norm gains": Method(after(lambda model, generator: train_only(model, ["*norm.weight"])), 1e-2),
    "linear probe": Method(after(lambda model, generator: add_head(model)), 1e-4),
}
"""The rows that train. Of four rates tried, each did best on `flip` in 60 steps (benchmarks/method_map.py)."""


# ------------------------------------------------------------------------------------------------ what holds a run back

Penalty = Callable[[], Tensor]
Anchor = Callable[[nn.Module, Decoder], Penalty]
"""From the model to be tuned and its untouched base to a term of the loss, drawn anew at every step."""


def kl_anchor(weight: float, rows: int = 32, seed: int = 1, tasks: Sequence[str] = tuple(SKILLS)) -> Anchor:
    """Hold behaviour: `weight` times KL(tuned || base) on fresh lines of the base skills, in nats per answer token.

    With `tasks` it looks at lines of those instead.

    >>> base = base_model()
    >>> kl_anchor(1.0, rows=2)(base, base)().item()
    0.0
    """

    def build(model: nn.Module, base: Decoder) -> Penalty:
        rng, device, shares = np.random.default_rng(seed), base.embed.weight.device, dict.fromkeys(tasks, 1.0)

        def penalty() -> Tensor:
            lines = mixture(shares, rows, rng).to(device)
            with torch.no_grad():
                wanted = base(lines.ids, lines.attention_mask)[:, :-1]
            return weight * kl_shift(model(lines.ids, lines.attention_mask)[:, :-1], wanted, lines.answer_mask[:, 1:])

        return penalty

    return build


def l2_anchor(weight: float) -> Anchor:
    """Hold parameters: `weight` times half the squared distance of the trained ones from where they start (L2-SP).

    >>> base = base_model()
    >>> l2_anchor(1.0)(base, base)().item()
    0.0
    """

    def build(model: nn.Module, base: Decoder) -> Penalty:
        start = trained(model)
        return lambda: weight * l2_sp(dict(model.named_parameters()), start)

    return build


def ewc_anchor(weight: float, rows: int = 64, seed: int = 1) -> Anchor:
    """Hold the parameters that the base skills need: each squared distance weighted by its Fisher value on them.

    >>> base = base_model()
    >>> ewc_anchor(1.0, rows=2)(base, base)().item()
    0.0
    """

    def build(model: nn.Module, base: Decoder) -> Penalty:
        lines = mixture(dict.fromkeys(SKILLS, 1.0), rows, np.random.default_rng(seed)).to(base.embed.weight.device)
        start = trained(model)
        parameters = {name: value for name, value in model.named_parameters() if name in start}
        singles = ((lines.ids[row : row + 1], lines.answer_mask[row : row + 1]) for row in range(rows))
        fisher = fisher_diagonal(parameters, (model_logprob(readable(model), *single).sum() for single in singles))
        return lambda: weight * ewc(parameters, start, fisher)

    return build


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters that train."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


# ----------------------------------------------------------------------------------------------------------------- runs


@torch.no_grad()
def kl_to_base(tuned: nn.Module, base: nn.Module, count: int = 32, seed: int = 2024) -> float:
    """Return the mean KL(tuned || base) over the answer positions of probes of all base skills, in nats per token.

    >>> base = base_model()
    >>> kl_to_base(base, base, count=2)
    0.0
    """
    lines = mixture(dict.fromkeys(SKILLS, 1.0), 10 * count, np.random.default_rng(seed)).to(device_of(base))
    tuned_logits, base_logits = (model(lines.ids, lines.attention_mask)[:, :-1] for model in (tuned, base))
    return float(kl_shift(tuned_logits, base_logits, lines.answer_mask[:, 1:]))


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def fine_tune(
    method: str, task: str, *, steps: int = 60, rows: int = 32, rate: float | None = None, seed: int = 0,
    replay: float = 0.0, anchor: Anchor | None = None, device: torch.device | None = None,
    methods: Mapping[str, Method] = METHODS, examples: int | None = None,
) -> tuple[nn.Module, Run]:  # fmt: skip
    """Tune the base model on a task by a row of the map; return the tuned model and the record of the run.

    `replay` is the share of base-skill lines in each batch, `anchor` a term that holds the run back. Task lines are
    drawn anew for each batch; with `examples`, so many are drawn once, and batches are drawn from those. The same seed
    gives the same run on the same machine.

    >>> _, run = fine_tune("BitFit", "flip", steps=2, rows=4)
    >>> run.trainable, len(run.losses)
    (5376, 2)

    Errors: ValueError for an unknown method, for a replay outside [0, 1), and for no examples.
    """
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}; got {method!r}")
    if not 0 <= replay < 1:
        raise ValueError(f"replay must be within [0, 1), got {replay}")
    if examples is not None and examples < 1:
        raise ValueError(f"examples must be at least 1, or None for new ones in each batch; got {examples}")
    row, device = methods[method], device or best_device()
    base = base_model().to(device).requires_grad_(False)
    model = row.prepare(base_model().to(device), torch.Generator().manual_seed(seed))
    rng = np.random.default_rng(seed)
    shares = {task: 1.0 - replay} | {name: replay / len(SKILLS) for name in SKILLS if replay}
    few = [example(task, rng) for _ in range(examples or 0)]
    penalty = anchor(model, base) if anchor else None
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    groups = row.groups(model, row.rate if rate is None else rate)

    def loss(step: int) -> Tensor:
        if row.stage:
            row.stage(model, step, steps)
        lines = (from_few(few, shares, rows, rng) if few else mixture(shares, rows, rng)).to(device)
        value = model_loss(readable(model), lines.ids, lines.answer_mask)
        return value + penalty() if penalty else value

    start = time.perf_counter()
    losses = train(model, loss, groups, steps, schedule=row.schedule, label=f"{method}, {task}")
    synchronize(device)
    seconds = time.perf_counter() - start
    budget = step_bytes(model, mixture(shares, rows, np.random.default_rng(seed)).to(device))
    return model, Run(
        method, task, tuple(losses), quality(model, task), retention(model), kl_to_base(model, base), trainable,
        budget, seconds, describe(device),
    )  # fmt: skip


def fit_epochs(
    model: Decoder, learned: Batch, held_out: Batch, epochs: int, *, rate: float, rows: int = 32, seed: int = 0,
    watch: Callable[[], object] = lambda: None,
) -> tuple[list[float], list[float]]:  # fmt: skip
    """Tune on the same lines again and again; return both losses before the first epoch and after each, in nats/token.

    The lines are shuffled for each epoch by the seed. Losses are taken over all lines, without gradients; `watch` is
    called each time they are.

    >>> lines = probes("flip", 4, seed=0)
    >>> learned, held_out = fit_epochs(base_model(), lines, lines, 2, rate=1e-3)
    >>> len(learned), learned == held_out
    (3, True)
    """
    rng = np.random.default_rng(seed)
    per_epoch = -(-len(learned.ids) // rows)
    order: list[np.ndarray] = []
    found: list[tuple[float, float]] = []

    @torch.no_grad()
    def look() -> None:
        both = [float(model_loss(model, lines.ids, lines.answer_mask)) for lines in (learned, held_out)]
        found.append((both[0], both[1]))
        watch()

    def loss(step: int) -> Tensor:
        if step % per_epoch == 0:
            look()
            order[:] = np.array_split(rng.permutation(len(learned.ids)), per_epoch)
        mine = torch.from_numpy(order[step % per_epoch])
        return model_loss(model, learned.ids[mine], learned.answer_mask[mine])

    train(model, loss, rate_groups(model, {}, rate), epochs * per_epoch, label="epochs")
    look()
    return [pair[0] for pair in found], [pair[1] for pair in found]


def from_few(few: Sequence[tuple[str, str]], shares: dict[str, float], rows: int, rng: Rng) -> Batch:
    """Return a batch as `mixture` does, the lines of the first share drawn from a few."""
    names = rng.choice(list(shares), size=rows, p=list(shares.values()))
    task = next(iter(shares))
    return batch([few[int(rng.integers(len(few)))] if name == task else example(str(name), rng) for name in names])


def readable(model: nn.Module) -> LanguageModel:
    """Return the model as what the losses read: every row of the map leaves a decoder, or a soft prompt before one."""
    assert isinstance(model, Decoder | SoftPrompt)
    return model


def step_bytes(model: nn.Module, lines: Batch) -> Budget:
    """Return the bytes of a step on these lines, with Adam's two moments; the model is left without gradients."""
    found = measured(model, lambda: model_loss(readable(model), lines.ids, lines.answer_mask))
    model.zero_grad(set_to_none=True)
    state = 2 * storage_bytes(parameter for parameter in model.parameters() if parameter.requires_grad)
    return Budget(found.weights, found.gradients, state, found.activations)


def quality(model: nn.Module, task: str, count: int = 128, seed: int = 2024) -> float:
    """Return the accuracy on fresh probes of a task.

    >>> quality(base_model(), "reverse", count=16)
    1.0
    """
    return accuracy(model, probes(task, count, seed))


def ask(way: str, task: str, count: int = 128, seed: int = 2024, device: torch.device | None = None) -> Run:
    """Return the record of a row of the map that trains nothing: the base model, asked in another way.

    >>> ask("better prompt", "flip", count=16).quality
    1.0

    Errors: ValueError for an unknown way.
    """
    if way not in NO_UPDATE:
        raise ValueError(f"way must be one of {', '.join(NO_UPDATE)}; got {way!r}")
    device = device or best_device()
    base = base_model().to(device).requires_grad_(False)
    start = time.perf_counter()
    found = accuracy(base, NO_UPDATE[way](task, count, seed))
    seconds = time.perf_counter() - start
    budget = Budget(storage_bytes(base.parameters()), 0, 0)
    return Run(way, task, (), found, retention(base), 0.0, 0, budget, seconds, describe(device))


__all__ = [
    "METHODS", "Anchor", "Method", "ask", "ewc_anchor", "fine_tune", "fit_epochs", "kl_anchor", "kl_to_base",
    "l2_anchor", "quality",
]  # fmt: skip
