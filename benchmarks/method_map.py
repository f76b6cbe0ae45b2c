"""The method map on one task, tuned alike: four rates for each row, chosen on validation probes, three fresh seeds.

    python benchmarks/method_map.py [--task flip] [--steps 60]

The rule was fixed before the runs: the rate with the largest sum of quality and base kept on validation probes (seed
777, training seed 0) is taken; what is printed is the mean [least, most] of training seeds 1 to 3, on probes of seed
2024. One task and one base model: read the dial between quality and what is kept, not a ranking of methods.
"""

import argparse
from collections.abc import Sequence

from ftmath.methods import METHODS, fine_tune, quality
from ftmath.skills import retention

FACTORS = (0.1, 0.3, 1.0, 3.0)


def spread(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def validated(method: str, task: str, steps: int, rate: float) -> float:
    model, _ = fine_tune(method, task, steps=steps, rate=rate, seed=0)
    kept = retention(model, seed=777)
    return quality(model, task, seed=777) + sum(kept.values()) / len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="flip")
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    print(f"| method | trained | rate | {arguments.task} | base kept | KL, nats/token | seconds |")
    print("|---|---:|---:|---|---|---|---:|")
    for method, row in METHODS.items():
        scores = {factor * row.rate: 0.0 for factor in FACTORS}
        for rate in scores:
            scores[rate] = validated(method, arguments.task, arguments.steps, rate)
        best = max(scores, key=lambda rate: scores[rate])
        runs = [fine_tune(method, arguments.task, steps=arguments.steps, rate=best, seed=seed)[1] for seed in (1, 2, 3)]
        print(
            f"| {method} | {runs[0].trainable:,} | {best:.0e} | {spread([run.quality for run in runs])} "
            f"| {spread([run.kept for run in runs])} | {spread([run.kl for run in runs])} "
            f"| {sum(run.seconds for run in runs) / len(runs):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
