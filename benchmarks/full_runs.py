"""The sweeps of part 3: clipping, warm-up, batch size, and layer-wise rates, each at several rates; and part 4's
controls: a prefix that starts large, and untrained prompts of several lengths.

    python benchmarks/full_runs.py [--only clip|first|batch|steps|layers|prefix|prompt] [--write] [--anew]

`clip` and `batch` train on fresh lines of neb with AdamW, and their figure is the loss on 128 lines that are the same
for all runs. `first` is the control of `clip` (which steps are clipped, and how long Adam remembers), `steps` that of
`batch` (the same number of steps with fewer lines). `layers` tunes on flip and records the accuracy and the KL to the
base. `prefix` trains a prefix that starts at scale 1 on flip and records losses. `prompt` trains nothing: it records
the old skills kept behind so many untrained vectors, where the others have a rate. With --write the records go into
course/ftmath/weights/full_runs.json, which the notebook reads; what is recorded isn't run again unless --anew is given.
About half an hour on a core.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from ftmath.groups import layer_groups
from ftmath.lora import add_lora
from ftmath.masks import model_loss
from ftmath.methods import LINEARS, kl_to_base, quality, retention
from ftmath.model import Decoder
from ftmath.prefixes import SoftPrompt, add_prefix
from ftmath.skills import SEP, mixture, probes
from ftmath.sweeps import held_out_loss, short_run
from ftmath.training import train, warm_up
from ftmath.weights import FOLDER, base_model
from tqdm import tqdm

OFF = 1e9
"""A norm that no gradient reaches."""
SEEDS = {"clip": 6, "first": 3, "batch": 5, "steps": 5, "layers": 8, "prefix": 3, "prompt": 3}
LINES = 640
"""Lines that each run of `batch` sees, whatever its batch."""
CLIPS: dict[str, dict[str, Any]] = {
    "clipped at 1": {},
    "not clipped": {"clip": OFF},
    "clipped, warm-up of 10": {"schedule": warm_up(10)},
    "not clipped, warm-up of 10": {"schedule": warm_up(10), "clip": OFF},
}
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
BATCHES = {4: (6.25e-5, 1.25e-4, 2.5e-4, 5e-4, 1e-3), 16: (2.5e-4, *RATES[:4]), 64: RATES}
"""Lines a step, and the rates of full tuning, which surround the best one; LoRA has the same for all."""
LORA_RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
STEPS = {10: (5e-4, 1e-3, 2e-3, 4e-3), 40: (2.5e-4, 5e-4, 1e-3, 2e-3)}
"""Steps of 4 lines, and the rates of full tuning; LoRA's are below."""
LORA_STEPS = {10: (4e-3, 8e-3, 1.6e-2, 3.2e-2)}
EARLY = 5
"""So many steps are the first ones."""
FIRST: dict[str, tuple[tuple[float, ...], float, float, float]] = {
    "clipped in the first 5 steps alone": (RATES[:3], 0.999, 1.0, OFF),
    "clipped after the first 5 steps": (RATES[:4], 0.999, OFF, 1.0),
    "beta2 0.95, clipped at 1": (RATES[1:4], 0.95, 1.0, 1.0),
    "beta2 0.95, not clipped": (RATES[1:4], 0.95, OFF, OFF),
}
"""The rates, Adam's second beta, and the clip in the first steps and later."""
LENGTHS = (1, 2, 4, 8)
"""Of untrained prompts."""
LAYERS = ((1.0, (1e-4, 1.5e-4, 2e-4)), (0.6, (4e-4, 5e-4, 1e-3)))
Prepare = Callable[[Decoder, torch.Generator], Any]
Entry = tuple[str, str, float, Callable[[int], Any]]
"""The sweep, the run's name in it, its rate, and the run for a seed."""


def everything(model: Decoder, _: torch.Generator) -> Any:
    return model.requires_grad_(True)


def adapted(model: Decoder, generator: torch.Generator) -> Any:
    return add_lora(model, LINEARS, 4, 8.0, generator=generator)


def loss_after(prepare: Prepare, rate: float, settings: dict[str, Any]) -> Callable[[int], float]:
    return lambda seed: round(held_out_loss(short_run(prepare, seed, rate=rate, **settings).model), 4)


def clipped_by_step(rate: float, beta: float, early: float, late: float) -> Callable[[int], float]:
    """Return a run of 40 steps of 16 lines whose clip changes after the first steps; its figure is the loss."""

    def run(seed: int) -> float:
        model, rng = everything(base_model(), torch.Generator()), np.random.default_rng(seed)
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, beta), weight_decay=0.0)
        for step in range(40):
            lines = mixture({"neb": 1.0}, 16, rng)
            model_loss(model, lines.ids, lines.answer_mask).backward()
            torch.nn.utils.clip_grad_norm_(parameters, early if step < EARLY else late)
            optimizer.step()
            optimizer.zero_grad()
        return round(held_out_loss(model), 4)

    return run


def prefixed(scale: float, seed: int) -> Any:
    model: Any = base_model()
    add_prefix(model, 8, torch.Generator().manual_seed(seed), scale=scale)
    return model


def swapped(keys: Any, values: Any) -> float:
    """Return the loss on flip with the keys of one prefixed model and the values of another."""
    model, rows = prefixed(1.0, 0), probes("flip", 64, 0)
    with torch.no_grad():
        for block, one, other in zip(model.blocks, keys.blocks, values.blocks, strict=True):
            block.attn.prefix.keys.copy_(one.attn.prefix.keys)
            block.attn.prefix.values.copy_(other.attn.prefix.values)
        return round(float(model_loss(model, rows.ids, rows.answer_mask)), 4)


def from_large_start(trained: tuple[str, ...]) -> Callable[[int], list[float]]:
    """Return a run of part 4.4's prefix from scale 1.

    Its figures are four losses on flip: at the start, with the trained keys alone, the trained values alone, and both.
    """

    def run(seed: int) -> list[float]:
        start, model, rng = prefixed(1.0, seed), prefixed(1.0, seed), np.random.default_rng(seed)
        chosen = [getattr(block.attn.prefix, part) for block in model.blocks for part in trained]
        model.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)

        def loss(_: int) -> torch.Tensor:
            rows = mixture({"flip": 1.0}, 32, rng)
            return model_loss(model, rows.ids, rows.answer_mask)

        train(model, loss, [{"params": chosen, "lr": 3e-2}], 60)
        return [swapped(*pair) for pair in ((start, start), (model, start), (start, model), (model, model))]

    return run


def behind_prompt(ids: Callable[[int], torch.Tensor]) -> Callable[[int], float]:
    """Return a function from a seed to the mean accuracy on the old skills behind an untrained prompt."""
    return lambda seed: round(float(np.mean(list(retention(SoftPrompt(base_model(), ids(seed))).values()))), 4)


def random_characters(length: int) -> Callable[[int], torch.Tensor]:
    return lambda seed: torch.randint(32, 127, (length,), generator=torch.Generator().manual_seed(seed))


def by_level(rate: float, gamma: float) -> Callable[[int], tuple[float, float]]:
    """Return a run whose figures are the accuracy on flip and the KL to the base."""

    def run(seed: int) -> tuple[float, float]:
        model = short_run(
            everything, seed, rate=rate, task="flip", groups=lambda one, top: layer_groups(one, top, gamma)
        ).model
        return quality(model, "flip"), round(kl_to_base(model, base_model(), count=8), 4)

    return run


def entries() -> Iterator[Entry]:
    """Yield each run with each of its rates."""
    for name, settings in CLIPS.items():
        for rate in RATES:
            yield "clip", name, rate, loss_after(everything, rate, settings)
    for name, (rates, beta, early, late) in FIRST.items():
        for rate in rates:
            yield "first", name, rate, clipped_by_step(rate, beta, early, late)
    for gamma, rates in LAYERS:
        for rate in rates:
            yield "layers", f"gamma {gamma:g}", rate, by_level(rate, gamma)
    for rows, rates in BATCHES.items():
        settings: dict[str, Any] = {"rows": rows, "steps": LINES // rows}
        for rate in rates:
            yield "batch", f"full, {rows} lines", rate, loss_after(everything, rate, settings)
        for rate in LORA_RATES:
            yield "batch", f"LoRA, {rows} lines", rate, loss_after(adapted, rate, settings)
    for count, rates in STEPS.items():
        for rate in rates:
            yield "steps", f"full, {count} steps", rate, loss_after(everything, rate, {"rows": 4, "steps": count})
    for count, rates in LORA_STEPS.items():
        for rate in rates:
            yield "steps", f"LoRA, {count} steps", rate, loss_after(adapted, rate, {"rows": 4, "steps": count})
    for trained in (("keys", "values"), ("keys",), ("values",)):
        yield "prefix", " and ".join(trained), 3e-2, from_large_start(trained)
    for length in LENGTHS:
        yield "prompt", "random characters", length, behind_prompt(random_characters(length))
    yield "prompt", "the separator", 1, behind_prompt(lambda _: torch.tensor([SEP]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(SEEDS))
    parser.add_argument("--write", action="store_true", help="keep the records for the course")
    parser.add_argument("--anew", action="store_true", help="run also what is recorded already")
    parser.add_argument("--seeds", type=int, default=99, help="stop at so many seeds")
    arguments = parser.parse_args()
    path = FOLDER / "full_runs.json"
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if arguments.anew:
        record = {sweep: runs for sweep, runs in record.items() if arguments.only not in (None, sweep)}
    wanted = [entry for entry in entries() if arguments.only in (None, entry[0])]
    for sweep, name, rate, run in tqdm(wanted, desc="rates", mininterval=10):
        figures = record.setdefault(sweep, {}).setdefault(name, {}).setdefault(f"{rate:g}", [])
        figures += [run(seed) for seed in range(len(figures), min(SEEDS[sweep], arguments.seeds))]
        print(sweep, name, f"{rate:g}", figures, flush=True)
        if arguments.write:
            path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
