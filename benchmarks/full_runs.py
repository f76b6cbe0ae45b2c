"""The sweeps of part 3: clipping, warm-up, batch size, and layer-wise rates, each at several rates.

    python benchmarks/full_runs.py [--only clip|batch|layers] [--write] [--anew]

`clip` and `batch` train on fresh lines of neb with AdamW, and their figure is the loss on 128 lines that are the same
for all runs. `layers` tunes on flip and records the accuracy and the KL to the base. With --write the records go into
course/ftmath/weights/full_runs.json, which the notebook reads; what is recorded isn't run again unless --anew is given.
About half an hour on a core.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ftmath.groups import layer_groups
from ftmath.lora import add_lora
from ftmath.methods import LINEARS, kl_to_base, quality
from ftmath.model import Decoder
from ftmath.sweeps import held_out_loss, short_run
from ftmath.training import warm_up
from ftmath.weights import FOLDER, base_model
from tqdm import tqdm

OFF = 1e9
"""A norm that no gradient reaches."""
SEEDS = {"clip": 6, "batch": 5, "layers": 8}
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
    for gamma, rates in LAYERS:
        for rate in rates:
            yield "layers", f"gamma {gamma:g}", rate, by_level(rate, gamma)
    for rows, rates in BATCHES.items():
        settings: dict[str, Any] = {"rows": rows, "steps": LINES // rows}
        for rate in rates:
            yield "batch", f"full, {rows} lines", rate, loss_after(everything, rate, settings)
        for rate in LORA_RATES:
            yield "batch", f"LoRA, {rows} lines", rate, loss_after(adapted, rate, settings)


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
