"""Part 10's longer runs: patients of both clinics, a sweep of rates, twenty seeds of one run.

    python benchmarks/clinics.py [--write]

Everything is on `flip` (the references: on pairs with and without thanks), on the CPU, seeded: full tuning and LoRA of
rank 4 on all linear layers, 16 rows a step. About ten minutes of one core; a table that isn't run stays as it was. With
--write the numbers go into course/ftmath/weights/clinics.json, which part 10 shows and from which it reruns rows.
"""

import argparse
import json
from typing import Any

import numpy as np
import torch
from ftmath.groups import rate_groups
from ftmath.lora import add_lora
from ftmath.masks import model_loss
from ftmath.model import Decoder
from ftmath.skills import SKILLS, accuracy, mixture, probes
from ftmath.training import train
from ftmath.weights import FOLDER, base_model
from ftmath.widgets.clinics import MASK_FAULTS, REFERENCE_FAULTS, as_record, treat_mask, treat_reference
from tqdm.auto import tqdm

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SWEEPS = {
    "full": (4, 8.0, 1.0),
    "LoRA": (4, 8.0, 1.0),
    "LoRA+": (4, 8.0, 16.0),
    "LoRA, rank 1": (1, 2.0, 1.0),
    "LoRA, rank 16": (16, 32.0, 1.0),
    "LoRA, rank 1, alpha 8": (1, 8.0, 1.0),
    "LoRA, rank 16, alpha 8": (16, 8.0, 1.0),
}
"""The rank, alpha, and the ratio of B's rate to A's. Without a word on alpha, the scale alpha / rank is 2."""
WIDE = {kind: RATES[3:] if "rank" in kind else RATES for kind in SWEEPS}
"""The rates of each: those of the ranks cover two decades around LoRA's best one."""
FAST_FAULTS, FAST_RATE = ("right", "alias"), 5e-5
MANY_SEEDS, MANY_RATE = 20, 5e-4
Row = dict[str, Any]


def tuned(kind: str, rate: float, seed: int, steps: int = 40) -> tuple[Decoder, list[float]]:
    """Tune the base model on `flip`; return it and its losses, nan from a step on whose loss isn't finite."""
    model, rng, (rank, alpha, ratio) = base_model(), np.random.default_rng(seed), SWEEPS[kind]
    if kind != "full":
        add_lora(model, LINEARS, rank, alpha, generator=torch.Generator().manual_seed(seed))

    def loss(step: int) -> torch.Tensor:
        rows = mixture({"flip": 1.0}, 16, rng)
        return model_loss(model, rows.ids, rows.answer_mask)

    return model, train(model, loss, rate_groups(model, {"*.B": rate * ratio}, rate), steps)


def swept(kind: str, rate: float, seed: int) -> Row:
    """Return a row of the sweep: the mean loss of the last ten steps, accuracy, and what is kept of the old skills."""
    model, losses = tuned(kind, rate, seed)
    kept = [accuracy(model, probes(name, 24, 2024)) for name in SKILLS]
    return {
        "kind": kind, "rate": rate, "seed": seed, "loss": float(f"{np.mean(losses[-10:]):.6g}"),
        "accuracy": accuracy(model, probes("flip", 128, 2024)), "kept": round(sum(kept) / len(kept), 4),
    }  # fmt: skip


def seeded(seed: int) -> Row:
    """Return one of many runs that differ in their seed only."""
    model, _ = tuned("LoRA", MANY_RATE, seed)
    return {"seed": seed, "rate": MANY_RATE, "accuracy": accuracy(model, probes("flip", 256, 2024))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", help="tables to run: masks, references, brakes, rates, seeds; all if not given"
    )
    parser.add_argument("--kinds", nargs="+", default=list(SWEEPS), help="rows of the sweep of rates to run again")
    parser.add_argument("--write", action="store_true", help="keep the numbers for the course")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = {
        "masks": [lambda f=f, s=s: as_record(treat_mask(f, s)) for f in MASK_FAULTS for s in range(3)],
        "references": [lambda f=f, s=s: as_record(treat_reference(f, s)) for f in REFERENCE_FAULTS for s in range(3)],
        "brakes": [
            lambda f=f, s=s: as_record(treat_reference(f, s, rate=FAST_RATE, steps=40))
            for f in FAST_FAULTS
            for s in range(3)
        ],
        "rates": [
            lambda k=k, r=r, s=s: swept(k, r, s)
            for k in arguments.kinds
            for r in WIDE[k]
            for s in range(6 if "rank" in k else 3)
        ],
        "seeds": [lambda s=s: seeded(s) for s in range(MANY_SEEDS)],
    }
    work = {name: runs for name, runs in work.items() if arguments.only is None or name in arguments.only}
    found: dict[str, list[Row]] = json.loads((FOLDER / "clinics.json").read_text("utf-8")) if arguments.only else {}
    left = [row for row in found.get("rates", []) if row["kind"] not in arguments.kinds]  # rows of other kinds stay
    found |= {name: list[Row]() for name in work} | ({"rates": left} if "rates" in work else {})
    with tqdm(total=sum(map(len, work.values())), desc="clinics") as bar:
        for name, runs in work.items():
            for run in runs:
                found[name].append(run())
                bar.update()
    for row in found["rates"]:
        print(f"{row['kind']:<6} {row['rate']:.0e} seed {row['seed']}: loss {row['loss']:.3f}, "
              f"accuracy {row['accuracy']:.2f}, kept {row['kept']:.2f}")  # fmt: skip
    for row in found["masks"] + found["references"]:
        print(
            row["fault"], row["seed"], f"{row['losses'][0]:.3f} -> {np.mean(row['losses'][-8:]):.3f}", row["measures"]
        )
    print("accuracy over seeds:", sorted(row["accuracy"] for row in found["seeds"]))
    if arguments.write:
        lines = {name: "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]" for name, rows in found.items()}
        text = "{\n" + ",\n".join(f'"{name}": {rows}' for name, rows in lines.items()) + "\n}\n"
        (FOLDER / "clinics.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
