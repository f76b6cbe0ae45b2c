"""The sweeps of part 5: ranks under two scales, places for equal budgets, and LoRA's variants, each at several rates.

    python benchmarks/lora_runs.py [--only scale|places|variants] [--write] [--anew]

Every run trains 40 steps of AdamW on 16 fresh lines a step, for three or six seeds of the factors and of the lines; its
figure is the mean loss of the last ten steps. Nothing is chosen by looking at a seed. With --write the records go into
course/ftmath/weights/lora_runs.json, which the notebook reads; what is recorded isn't run again unless --anew is given.
About half an hour on a core.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ftmath.lora import add_lora
from ftmath.methods import LINEARS
from ftmath.model import Decoder
from ftmath.sweeps import one_rate, short_run
from ftmath.variants import add_dora, add_pissa, add_vera, lora_plus
from ftmath.weights import FOLDER
from tqdm import tqdm

SEEDS = {"scale": 3, "places": 6, "variants": 6}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
PLACES = {
    "q, v": (("q", "v"), 12),
    "q, k, v, o": (("q", "k", "v", "o"), 6),
    "gate, up, down": (("gate", "up", "down"), 4),
}
Prepare = Callable[[Decoder, torch.Generator], Any]
Entry = tuple[str, str, Prepare, dict[str, Any]]
"""The sweep, the run's name in it, how the model is prepared, and what `short_run` is told."""


def lora(targets: tuple[str, ...], rank: int, alpha: float, *, stabilised: bool = False) -> Prepare:
    return lambda model, generator: add_lora(
        model, targets, rank, alpha, rank_stabilised=stabilised, generator=generator
    )


VARIANTS: dict[str, tuple[Prepare, tuple[float, ...], Callable[..., Any]]] = {
    "LoRA": (lora(LINEARS, 4, 8.0), (1e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2), one_rate),
    "LoRA, α 64": (lora(LINEARS, 4, 64.0), (1e-3, 2e-3, 3e-3, 5e-3), one_rate),
    "LoRA, α 512": (lora(LINEARS, 4, 512.0), (1e-4, 3e-4, 1e-3), one_rate),
    "rsLoRA": (lora(LINEARS, 4, 8.0, stabilised=True), (1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 3e-2), one_rate),
    "LoRA+": (lora(LINEARS, 4, 8.0), (3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 1e-2), lora_plus),
    "DoRA": (
        lambda model, generator: add_dora(model, LINEARS, 4, 8.0, generator),
        (1e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2),
        one_rate,
    ),
    "PiSSA": (lambda model, _: add_pissa(model, LINEARS, 4, 4.0), (1e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2), one_rate),
    "VeRA": (lambda model, _: add_vera(model, LINEARS, 64), (1e-2, 3e-2, 5e-2, 1e-1, 2e-1, 3e-1), one_rate),
    "full": (lambda model, _: model.requires_grad_(True), (1e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3), one_rate),
}
"""Each variant with its rates: steps of about three, and of about two around the best."""


def entries() -> Iterator[tuple[Entry, float]]:
    """Yield each entry with each of its rates."""
    for alpha in (8.0, 64.0):
        for rank in (1, 8, 64):
            for rate in (3e-4, *RATES):
                yield ("scale", f"alpha {alpha:g}, rank {rank}", lora(LINEARS, rank, alpha), {}), rate
    for rate in (3e-5, 1e-4, 3e-4, *RATES[:3]):
        yield (
            ("scale", "no division, rank 64", lora(LINEARS, 64, 8.0 * 64), {}),
            rate,
        )  # LoRALinear divides; this undoes it
    for rate in (3e-4, *RATES):
        yield ("scale", "rsLoRA, rank 8", lora(LINEARS, 8, 8.0, stabilised=True), {}), rate
    for task in ("neb", "flip"):
        for name, (targets, rank) in PLACES.items():
            for rate in RATES:
                yield ("places", f"{task}: {name}", lora(targets, rank, 2.0 * rank), {"task": task}), rate
    for name, (prepare, rates, groups) in VARIANTS.items():
        for rate in rates:
            yield ("variants", name, prepare, {"groups": groups}), rate
    # Added after the first sweeps: rates between theirs, the other alphas, and a task that isn't solved yet
    for alpha, between in ((8.0, (5e-3, 7e-3)), (64.0, (1.7e-3,))):
        for rank in (1, 8, 64):
            for rate in between:
                yield ("scale", f"alpha {alpha:g}, rank {rank}", lora(LINEARS, rank, alpha), {}), rate
    for name, rates in (("q, v", (5e-3, 1e-2, 1.5e-2, 2e-2)), ("gate, up, down", (1e-2, 2e-2, 3e-2))):
        targets, rank = PLACES[name]
        for rate in rates:
            early = {"task": "flip", "steps": 20}
            yield ("places", f"flip, 20 steps: {name}", lora(targets, rank, 2.0 * rank), early), rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("scale", "places", "variants"))
    parser.add_argument("--write", action="store_true", help="keep the records for the course")
    parser.add_argument("--anew", action="store_true", help="run also what is recorded already")
    arguments = parser.parse_args()
    path = FOLDER / "lora_runs.json"
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if arguments.anew:
        record = {sweep: runs for sweep, runs in record.items() if arguments.only not in (None, sweep)}
    wanted = [(entry, rate) for entry, rate in entries() if arguments.only in (None, entry[0])]
    for (sweep, name, prepare, settings), rate in tqdm(wanted, desc="rates", mininterval=10):
        row = record.setdefault(sweep, {}).setdefault(name, {"trained": 0, "losses": {}})
        losses = row["losses"].setdefault(f"{rate:g}", [])
        runs = [short_run(prepare, seed, rate=rate, **settings) for seed in range(len(losses), SEEDS[sweep])]
        if not runs:
            continue
        row["trained"] = runs[0].trained
        losses += [round(run.loss, 4) for run in runs]
        print(sweep, name, f"{rate:g}", losses, flush=True)
        if arguments.write:
            path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
