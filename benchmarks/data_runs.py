"""Runs on data: which turns of a chat are learned, whose lines are rehearsed, how many letters are wrong (part 2);
what an anchor's prompts protect, and where along an update the drift is steepest (part 1).

    python benchmarks/data_runs.py [--only EXPERIMENT] [--write] [--anew]

All runs tune every parameter of the base model with AdamW, for three or six seeds. With --write the records go into
course/ftmath/weights/data_runs.json, which the notebook reads; what is recorded isn't run again unless --anew is given.
About eight minutes on a core.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from ftmath import base_model, fine_tune, kl_anchor, kl_shift, mixture
from ftmath.datasets import chat_run, quality_run, rehearsal_run, turns_run
from ftmath.skills import SKILLS
from ftmath.weights import FOLDER
from tqdm import tqdm

SEEDS = {
    "chats": 6,
    "chats at equal answers": 6,
    "turns": 3,
    "rates": 3,
    "anchors": 3,
    "steep": 3,
    "rehearsal": 3,
    "quality": 6,
}
SHARES = (0.02, 0.04, 0.1, 0.2, 0.4, 0.7, 1.0)
Recorded = dict[str, dict[str, list[Any]]]


def anchored_run(tasks: list[str], seed: int) -> list[float]:
    """Return the accuracy on flip and the old skills' mean, after 1.3's run with an anchor on lines of these tasks."""
    anchor = kl_anchor(1.0, 16, tasks=tasks)
    _, run = fine_tune("full", "flip", rate=1e-3, rows=16, steps=40, seed=seed, anchor=anchor)
    return [round(run.quality, 4), round(run.kept, 4)]


def steep_run(rate: float, seed: int) -> list[float]:
    """Return the KL on old skills at part 1.4's shares of an update that was tuned at this rate."""
    tuned, _ = fine_tune("full", "flip", rate=rate, rows=16, seed=seed)
    old = mixture(dict.fromkeys(SKILLS, 1.0), 64, np.random.default_rng(1))
    base, between = base_model().double(), base_model().double()
    start, end = dict(base.named_parameters()), dict(tuned.named_parameters())

    def drift(share: float) -> float:
        for name, value in between.named_parameters():
            value.copy_(start[name] + share * (end[name].double() - start[name]))
        chosen = old.answer_mask[:, 1:]
        return float(kl_shift(between(old.ids)[:, :-1], base(old.ids)[:, :-1], chosen))

    with torch.no_grad():
        return [drift(share) for share in SHARES]


def entries() -> Iterator[tuple[str, str, Callable[[int], Any]]]:
    """Yield the experiment, the name of a run in it, and what runs it for a seed."""
    for which in ("assistant", "completion"):
        for rate in (3e-4, 1e-3, 3e-3):
            yield "chats", f"{which}, {rate:g}", partial(chat_run, which, rate=rate)
    for rate in (3e-4, 1e-3, 3e-3):  # as many learned answers as assistant-only loss has in 20 steps
        yield "chats at equal answers", f"completion, {rate:g}", partial(chat_run, "completion", rate=rate, steps=40)
    yield "turns", "tuned on two", turns_run
    yield "rates", "no old lines, 0.0003", partial(rehearsal_run, "none", rate=3e-4, rows=16)
    yield "anchors", "KL 1 on flip", partial(anchored_run, ["flip"])
    yield "steep", "0.0003", partial(steep_run, 3e-4)
    for source in ("none", "own", "old"):
        yield "rehearsal", source, partial(rehearsal_run, source)
    for wrong, examples in ((0.0, 100), (0.0, 1000), (0.1, 1000), (0.3, 1000)):
        yield "quality", f"{examples} lines, {wrong:g} wrong", partial(quality_run, wrong, examples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(SEEDS))
    parser.add_argument("--write", action="store_true", help="keep the records for the course")
    parser.add_argument("--anew", action="store_true", help="run also what is recorded already")
    arguments = parser.parse_args()
    path = FOLDER / "data_runs.json"
    record: Recorded = json.loads(path.read_text("utf-8")) if path.exists() and not arguments.anew else {}
    wanted = [entry for entry in entries() if arguments.only in (None, entry[0])]
    for experiment, name, run in tqdm(wanted, desc="runs", mininterval=10):
        found = record.setdefault(experiment, {}).setdefault(name, [])
        found += [run(seed) for seed in range(len(found), SEEDS[experiment])]
        print(experiment, name, found, flush=True)
        if arguments.write:
            path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
