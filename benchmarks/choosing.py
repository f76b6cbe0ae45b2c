"""Every method on three tasks, two amounts of data and three seeds, with what it costs to train, to keep and to serve.

    python benchmarks/choosing.py [--tasks flip neb pig] [--cpu-minutes 24] [--write]

The rule was fixed before the runs: `flip` takes the rates of the method map, which were chosen on it; on the other
tasks each method has that rate and three times it, of which the one with the larger sum of quality and base kept on
validation probes (seed 777, training seed 0, 512 examples) is taken. Rows with replay take the rate of the method
without. Seeds 1 to 3 then train on 512 examples, five rows on 32 as well, and are measured on probes of seed 2024. A
row that trains nothing is asked with three draws of probes. As no row learns `pig` in 80 steps, two were added on it
afterwards: replay, 320 steps, a higher rate.

Costs are measured once, on the base model's shape, each time as a ratio on the same machine: a step beside full
tuning's, a request (a prompt and eight new tokens, batch of one) beside the base's. What computes as the base does
(full tuning, a merged update, other biases or gains) answers in the base's time by construction; it isn't timed. With
--write every finished run goes into course/ftmath/weights/choosing.json at once, and what stands there is not run
again. One base model and one number of steps: read the shape, not a ranking of methods.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ftmath.context import NO_UPDATE, Notes
from ftmath.device import relative_times
from ftmath.groups import rate_groups
from ftmath.lora import lora_layers
from ftmath.masks import model_loss
from ftmath.memory import storage_bytes
from ftmath.methods import METHODS, ask, fine_tune, quality, readable, step_bytes
from ftmath.model import Decoder, generate
from ftmath.prefixes import SoftPrompt
from ftmath.skills import NEB, mixture, retention
from ftmath.training import train
from ftmath.weights import FOLDER, base_model
from torch import nn
from tqdm import tqdm

TASKS, EXAMPLES, SEEDS, STEPS, ROWS, REPLAY = ("flip", "neb", "pig"), (32, 512), (1, 2, 3), 80, 16, 0.25
LEFT_OUT = ("full, layer-wise", "rsLoRA")
TRAINED = [name for name in METHODS if name not in LEFT_OUT]
REPLAYED = ("full", "LoRA")
LONG_STEPS, LONG = 320, {"full + replay, long": 1e-3, "LoRA + replay, long": 3e-3}
FEW = ("full", "LoRA", "full + replay", "LoRA + replay", "soft prompt")
FACTORS = (1.0, 3.0)
FILE = Path(FOLDER) / "choosing.json"
Table = dict[str, Any]


# ------------------------------------------------------------------------------------------------------------- quality


def tuned_rate(method: str, task: str) -> float:
    """Return the rate that does best on validation probes."""
    if task == "flip" or method == "linear probe":
        return METHODS[method].rate

    def score(rate: float) -> float:
        model, _ = fine_tune(method, task, steps=STEPS, rows=ROWS, rate=rate, seed=0, examples=EXAMPLES[-1])
        kept = retention(model, count=32, seed=777)
        return quality(model, task, seed=777) + sum(kept.values()) / len(kept)

    return max((round(factor * METHODS[method].rate, 8) for factor in FACTORS), key=score)


def trained_run(row: str, task: str, rate: float, examples: int, seed: int) -> Table:
    method, _, replayed = row.partition(" + ")
    steps = LONG_STEPS if row in LONG else STEPS
    _, run = fine_tune(
        method, task, steps=steps, rows=ROWS, rate=rate, seed=seed, examples=examples, replay=REPLAY if replayed else 0
    )
    return {
        "method": row, "task": task, "examples": examples, "seed": seed, "rate": rate, "steps": steps,
        "quality": round(run.quality, 4), "kept": round(run.kept, 4), "kl": round(run.kl, 4),
    }  # fmt: skip


def asked_run(way: str, task: str, seed: int) -> Table:
    run = ask(way, task, seed=2023 + seed)
    return {
        "method": way, "task": task, "examples": 0, "seed": seed, "rate": None, "steps": 0,
        "quality": round(run.quality, 4), "kept": round(run.kept, 4), "kl": 0.0,
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- costs


def few_steps(method: str, count: int = 4) -> Any:
    """Return a call that trains a method for a few steps on lines drawn before."""
    model = METHODS[method].prepare(base_model(), torch.Generator().manual_seed(0))
    lines = mixture({"flip": 1.0}, ROWS, np.random.default_rng(0))
    groups = rate_groups(model, {}, 1e-6)
    return lambda: train(model, lambda step: model_loss(readable(model), lines.ids, lines.answer_mask), groups, count)


def prompt_of(way: str, task: str = "flip", seed: int = 0) -> torch.Tensor:
    """Return one prompt (1, time) as a way of asking puts it."""
    rows = NO_UPDATE[way](task, 1, seed)
    return rows.ids[:, : int(rows.answer_mask[0].argmax())]


def answered(model: nn.Module, ids: torch.Tensor, virtual: int = 0) -> Any:
    """Return a call that answers a request; virtual tokens are so many more in front, as long as any others."""
    ids = torch.cat([ids.new_full((1, virtual), 65), ids], dim=1)
    assert isinstance(model, Decoder)
    return lambda: generate(model, ids, max_new=8)


def looked_up(model: nn.Module, ids: torch.Tensor) -> Any:
    notes, ask_it = Notes([f"neb {word}: {translation}" for word, translation in NEB.items()]), answered(model, ids)
    return lambda: (notes.nearest("neb ship"), ask_it())


def file_bytes(model: nn.Module) -> int:
    return storage_bytes(parameter for parameter in model.parameters() if parameter.requires_grad)


def frozen_bytes(model: nn.Module) -> int:
    """Return the bytes of what does not train: weights, and the blocks of four bits with their constants."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    return storage_bytes([*frozen, *model.buffers()])


def served(method: str) -> dict[str, Table]:
    """Return how a tuned model can be served: what stands there once, what each task adds, and a call that answers."""
    model = METHODS[method].prepare(base_model(), torch.Generator().manual_seed(0))
    each, whole, ids = file_bytes(model), storage_bytes(base_model().parameters()), prompt_of("as it is")
    once = frozen_bytes(model)
    if isinstance(model, SoftPrompt):
        return {"": {"once": once, "each": each, "call": answered(model.model, ids, len(model.vectors))}}
    if method == "full":
        return {"": {"once": 0, "each": whole, "call": None}}
    same = [type(module) for module in model.modules()] == [type(module) for module in base_model().modules()]
    found = {"": {"once": once, "each": each, "call": None if same and not prefixed(model) else answered(model, ids)}}
    if lora_layers(model):
        found[", merged"] = {"once": 0, "each": whole, "call": None}
    return found


def prefixed(model: nn.Module) -> bool:
    return isinstance(model, Decoder) and model.prefix_length > 0


def costs() -> list[Table]:
    """Return for every way to serve every method: numbers trained, bytes of a step, of a file and of service, times."""
    whole = storage_bytes(base_model().parameters())
    lines = mixture({"flip": 1.0}, ROWS, np.random.default_rng(0))
    steps = relative_times(
        {method: few_steps(method) for method in TRAINED}, rounds=3, calls=4, clock=time.process_time
    )
    asked = {way: answered(base_model(), prompt_of(way)) for way in NO_UPDATE}
    asked["retrieval"] = looked_up(base_model(), prompt_of("as it is", "neb"))
    ways = {method: served(method) for method in TRAINED}
    calls = asked | {method + how: way["call"] for method, found in ways.items() for how, way in found.items()
                     if way["call"]}  # fmt: skip
    with torch.no_grad():
        times = relative_times(calls, rounds=3, calls=20, clock=time.process_time)
    rows = [
        {"method": way, "way": "", "trained": 0, "step_bytes": whole, "step": 0.0, "file_bytes": 0, "once": whole,
         "each": 0, "latency": round(times[way], 3),
         "prompt": int(prompt_of(way, "neb" if way == "retrieval" else "flip").shape[1])}
        for way in NO_UPDATE
    ]  # fmt: skip
    for method in TRAINED:
        model = METHODS[method].prepare(base_model(), torch.Generator().manual_seed(0))
        for how, way in ways[method].items():
            for name in [method, *([f"{method} + replay"] if method in REPLAYED else [])]:
                rows.append({
                    "method": name, "way": how.removeprefix(", "),
                    "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
                    "step_bytes": step_bytes(model, lines).total, "step": round(steps[method], 3),
                    "file_bytes": file_bytes(model), "once": way["once"], "each": way["each"],
                    "latency": round(times.get(method + how, 1.0), 3), "prompt": int(prompt_of("as it is").shape[1]),
                })  # fmt: skip
    return rows


# ---------------------------------------------------------------------------------------------------------------- main


def wanted(tasks: list[str]) -> list[tuple[str, str, int, int]]:
    """Return every run of the plan: row, task, examples, seed; no row is asked twice with different data."""
    plan = [(way, task, 0, seed) for task in tasks for way in NO_UPDATE for seed in SEEDS]
    rows = [*TRAINED, *(f"{method} + replay" for method in REPLAYED)]
    long = [(row, "pig", EXAMPLES[-1], seed) for row in LONG for seed in SEEDS if "pig" in tasks]
    return (
        plan
        + long
        + [
            (row, task, n, seed)
            for n in reversed(EXAMPLES)
            for task in tasks
            for row in (rows if n == EXAMPLES[-1] else FEW)
            for seed in SEEDS
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--cpu-minutes", type=float, default=24)
    parser.add_argument("--costs-again", action="store_true", help="measure what stands there of costs once more")
    parser.add_argument("--write", action="store_true", help="keep every run for the course, and skip those kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table: Table = json.loads(FILE.read_text("utf-8")) if arguments.write and FILE.exists() else {}
    table = {"steps": STEPS, "rows": ROWS, "replay": REPLAY, "left_out": LEFT_OUT, "not_run": [], "costs": [],
             "rates": {}, "runs": []} | table  # fmt: skip

    def keep() -> None:
        if arguments.write:
            text = json.dumps(table, indent=None, separators=(", ", ": "))
            for start in (', {"method"', ', "rates"', ', "runs"'):
                text = text.replace(start, ",\n" + start[2:])
            FILE.write_text(text + "\n", "utf-8")

    if arguments.costs_again or not table["costs"]:
        table["costs"] = costs()
        keep()
    done = {(run["method"], run["task"], run["examples"], run["seed"]) for run in table["runs"]}
    plan = [run for run in wanted(arguments.tasks) if run not in done]
    for number, (row, task, examples, seed) in enumerate(bar := tqdm(plan, unit="run")):
        table["not_run"] = [list(run) for run in plan[number:]]
        if time.process_time() > 60 * arguments.cpu_minutes:
            break
        bar.set_description(f"{row}, {task}")
        method = row.partition(" + ")[0]
        if row in NO_UPDATE:
            table["runs"].append(asked_run(row, task, seed))
        else:
            if f"{method}, {task}" not in table["rates"]:
                table["rates"][f"{method}, {task}"] = tuned_rate(method, task)
            rate = LONG.get(row, table["rates"][f"{method}, {task}"])
            table["runs"].append(trained_run(row, task, rate, examples, seed))
        table["not_run"] = [list(run) for run in plan[number + 1 :]]
        keep()
    keep()
    for run in table["runs"]:
        print(run)


if __name__ == "__main__":
    main()
