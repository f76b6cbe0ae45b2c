"""The method map on one task, tuned alike: four rates for each row, chosen on validation probes, three fresh seeds.

    python benchmarks/method_map.py [--task flip] [--steps 60] [--write]

The rule was fixed before the runs: the rate with the largest sum of quality and base kept on validation probes (seed
777, training seed 0) is taken; what is printed is the mean [least, most] of training seeds 1 to 3, on probes of seed
2024. One task and one base model: read the dial between quality and what is kept, not a ranking of methods. With
--write the rows go into course/ftmath/weights/method_map.json, which the course's front door shows.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftmath.context import NO_UPDATE
from ftmath.methods import METHODS, ask, fine_tune, quality
from ftmath.skills import retention
from ftmath.weights import FOLDER

FACTORS = (0.1, 0.3, 1.0, 3.0)
Row = dict[str, Any]


def spread(values: Sequence[float]) -> list[float]:
    """Return mean, least and most."""
    return [round(value, 3) for value in (sum(values) / len(values), min(values), max(values))]


def validated(method: str, task: str, steps: int, rate: float) -> float:
    model, _ = fine_tune(method, task, steps=steps, rate=rate, seed=0)
    kept = retention(model, seed=777)
    return quality(model, task, seed=777) + sum(kept.values()) / len(kept)


def trained_row(method: str, task: str, steps: int) -> Row:
    rates = [factor * METHODS[method].rate for factor in FACTORS]
    best = max(rates, key=lambda rate: validated(method, task, steps, rate))
    runs = [fine_tune(method, task, steps=steps, rate=best, seed=seed)[1] for seed in (1, 2, 3)]
    return {
        "method": method, "trained": runs[0].trainable, "rate": best, "quality": spread([run.quality for run in runs]),
        "kept": spread([run.kept for run in runs]), "kl": spread([run.kl for run in runs]),
        "bytes": runs[0].budget.total, "seconds": round(sum(run.seconds for run in runs) / 3, 1),
    }  # fmt: skip


def asked_row(way: str, task: str) -> Row:
    runs = [ask(way, task, seed=seed) for seed in (2024, 2025, 2026)]
    return {
        "method": way, "trained": 0, "rate": None, "quality": spread([run.quality for run in runs]),
        "kept": spread([run.kept for run in runs]), "kl": [0.0, 0.0, 0.0], "bytes": runs[0].budget.total,
        "seconds": round(sum(run.seconds for run in runs) / 3, 1),
    }  # fmt: skip


def shown(row: Row) -> str:
    parts = (f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in (row["quality"], row["kept"], row["kl"]))
    rate = f"{row['rate']:.0e}" if row["rate"] else ""
    return f"| {row['method']} | {row['trained']:,} | {rate} | {' | '.join(parts)} | {row['seconds']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="flip")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--write", action="store_true", help="keep the rows for the course")
    arguments = parser.parse_args()
    print("| method | trained | rate | quality | base kept | KL, nats/token | seconds |")
    print("|---|---:|---:|---|---|---|---:|")
    rows: list[Row] = []
    for name in [*NO_UPDATE, *METHODS]:
        rows.append(
            asked_row(name, arguments.task) if name in NO_UPDATE else trained_row(name, arguments.task, arguments.steps)
        )
        print(shown(rows[-1]), flush=True)
    if arguments.write:
        found = {"task": arguments.task, "steps": arguments.steps, "rows": rows}
        (Path(FOLDER) / "method_map.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
