"""Six losses on one set of preferences, each at several rates: the map of section 7.4.

    python benchmarks/loss_map.py [--write] [--anew]

Every run starts from the policy that part 7 starts from and takes 20 steps on 64 pairs, 16 a step. `chosen_by` and
`after` are two sets of fresh requests: the rate is chosen by the one and the figure read from the other. The figures
are chances at temperature 1, not counts of draws: `both` is the mean chance of the right answer with thanks, `right`
that of the right answer with or without. `greedy` is the share of requests whose likeliest answer, token by token, is
the right one with thanks. SFT, which trains on the chosen answers alone, is the control. Three seeds. With --write the
rows go into course/ftmath/weights/loss_map.json; what is recorded isn't run again unless --anew is given. About four
minutes on one quiet core.
"""

import argparse
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ftmath.align import PairLogprobs, fit_on_pairs, frozen_copy, pair_logprobs
from ftmath.manners import polite_pairs, polite_policy
from ftmath.masks import model_logprob
from ftmath.model import Decoder
from ftmath.preference import dpo_loss, ipo_loss, kto_loss, orpo_loss, simpo_loss
from ftmath.rounds import roll_out
from ftmath.skills import batch, retention
from ftmath.weights import FOLDER
from torch import Tensor
from tqdm import tqdm

SEEDS, STEPS = (0, 1, 2), 20
LOW, MIDDLE, HIGH = (1e-5, 3e-5, 1e-4), (3e-5, 1e-4, 3e-4), (1e-4, 3e-4, 1e-3)
RATES = {"DPO": LOW, "cDPO": LOW, "IPO": MIDDLE, "KTO": LOW, "SimPO": LOW, "ORPO": HIGH, "SFT": HIGH}
LossOf = Callable[[PairLogprobs], Tensor]
Row = dict[str, Any]


@cache
def start(seed: int) -> Decoder:
    return frozen_copy(polite_policy(seed))


@torch.no_grad()
def told(policy: Decoder, place: int, count: int = 192) -> dict[str, float]:
    """Return mean chances at fresh requests: of the right answer with thanks, and of it with or without."""
    chosen, rejected = (one.exp().mean() for one in pair_logprobs(policy, polite_pairs(count, place)))
    return {
        "both": round(float(chosen), 4), "right": round(float(chosen + rejected), 4), "greedy": greedy(policy, place)
    }  # fmt: skip


def greedy(policy: Decoder, place: int, count: int = 96) -> float:
    """Return the share of fresh requests to which the greedy answer is the right one with thanks."""
    pairs = polite_pairs(count, place)
    said = roll_out(policy, [pair[0] for pair in pairs], 1, temperature=0.0)[1]
    return round(float(np.mean([one == pair[1] for one, pair in zip(said, pairs, strict=True)])), 4)


@cache
def before(seed: int) -> dict[str, float]:
    return told(start(seed), 6)


def means(now: PairLogprobs) -> tuple[Tensor, Tensor]:
    """Return the mean log-probability per token of the chosen and of the rejected answers."""
    return now.chosen / now.chosen_tokens, now.rejected / now.rejected_tokens


def kto_of(policy: Decoder, reference: Decoder, pairs: list[tuple[str, str, str]]) -> LossOf:
    """Return KTO's loss; its drift is measured on each prompt with the answer to the next prompt."""
    elsewhere = batch([(pair[0], other[1]) for pair, other in zip(pairs, pairs[1:] + pairs[:1], strict=True)])

    def loss(now: PairLogprobs) -> Tensor:
        ids, mask = elsewhere.ids[now.drawn], elsewhere.answer_mask[now.drawn]
        with torch.no_grad():
            drift = (model_logprob(policy, ids, mask) - model_logprob(reference, ids, mask)).mean()
        return kto_loss(now.chosen - now.chosen_reference, now.rejected - now.rejected_reference, drift, beta=0.1)

    return loss


LOSSES: dict[str, LossOf] = {
    "DPO": lambda now: dpo_loss(now.margin, beta=0.1),
    "cDPO": lambda now: dpo_loss(now.margin, beta=0.1, label_smoothing=0.1),
    "IPO": lambda now: ipo_loss(now.margin, beta=0.1),
    "SimPO": lambda now: simpo_loss(*means(now), beta=2.0, gamma=1.0),
    "ORPO": lambda now: orpo_loss(*means(now), weight=0.1),
    "SFT": lambda now: -means(now)[0].mean(),
}


def row_of(loss: str, rate: float, seed: int) -> Row:
    reference, pairs = start(seed), polite_pairs(64, 100 + seed)
    policy = frozen_copy(reference).requires_grad_(True)
    loss_of = kto_of(policy, reference, pairs) if loss == "KTO" else LOSSES[loss]
    seen = fit_on_pairs(policy, reference, pairs, loss_of, steps=STEPS, rate=rate, seed=seed)
    kept = retention(policy, 16)
    found = {
        "loss": loss, "rate": rate, "seed": seed, "steps": STEPS, "margin": round(seen[-1].margin, 3),
        "chosen_moved": round(seen[-1].chosen - seen[0].chosen, 3),
        "base_kept": round(float(np.mean(list(kept.values()))), 4),
    }  # fmt: skip
    return found | {"before": before(seed), "chosen_by": told(policy, 5), "after": told(policy, 6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the rows for the course")
    parser.add_argument("--anew", action="store_true", help="run what is recorded again")
    arguments = parser.parse_args()
    path = Path(FOLDER) / "loss_map.json"
    known: Row = json.loads(path.read_text("utf-8")) if path.exists() else {"rows": []}
    rows = {(row["loss"], row["rate"], row["seed"]): row for row in known["rows"]}
    todo = [(loss, rate, seed) for seed in SEEDS for loss, rates in RATES.items() for rate in rates]
    for key in tqdm(todo):
        if key in rows and "greedy" in rows[key]["after"] and not arguments.anew:
            continue
        rows[key] = row_of(*key)
        print(json.dumps(rows[key]))
        if arguments.write:
            kept = {"torch": torch.__version__, "rows": list(rows.values())}
            path.write_text(json.dumps(kept, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
