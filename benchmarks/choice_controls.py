"""Part 9's controls: an update's length at one loss by rate, and what more demonstrations do where pairs are used.

    python benchmarks/choice_controls.py [--only lengths widened] [--write]

Three seeds of each row. `lengths`: full tuning and LoRA of rank 4 on all linear layers, each at three rates, are
stopped at the same loss on `flip`; the row holds the steps and |Delta W| / |W| of the linear layers. `widened`: a model
that was shown answers with thanks goes on for twelve steps, on pairs or on more demonstrations, at four rates; the row
holds what that did to log p of the wanted and of the unwanted answer, on fresh prompts. `budget`: the same number of
pair steps for a model that never saw a demonstration. About six minutes on one core. With --write the tables go into
course/ftmath/weights/choice_controls.json; a table that isn't run stays as it was.
"""

import argparse
import json
from typing import Any

import numpy as np
import torch
from ftmath.align import fit_preferences, frozen_copy
from ftmath.groups import rate_groups
from ftmath.lora import add_lora, lora_layers
from ftmath.masks import model_logprob, model_loss
from ftmath.model import Decoder, generate
from ftmath.skills import EOS, batch, decode, letters, mixture, prompts
from ftmath.training import train
from ftmath.weights import FOLDER, base_model
from tqdm import tqdm

SEEDS = (0, 1, 2)
LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
LENGTHS = [
    (kind, rate) for kind, rates in (("full", (1e-4, 3e-4, 1e-3)), ("LoRA", (3e-4, 1e-3, 3e-3))) for rate in rates
]
LOSS, MOST = 0.15, 160
RATES = (2e-5, 5e-5, 1e-4, 3e-4)
Row = dict[str, Any]
Pairs = list[tuple[str, str, str]]


def relative_update(model: Decoder) -> float:
    """Return the norm of all linear layers' updates over that of their weights."""
    adapters, moved, stood = lora_layers(model), 0.0, 0.0
    for name, weight in base_model().named_parameters():
        if name.split(".")[-2] in LINEARS and weight.ndim == 2:
            layer = name.removesuffix(".weight")
            change = adapters[layer].delta() if adapters else model.get_parameter(name) - weight
            moved += float(change.detach().square().sum())
            stood += float(weight.detach().square().sum())
    return (moved / stood) ** 0.5


def length(kind: str, rate: float, seed: int) -> Row:
    """Return a row of `lengths`; its update is None if the loss isn't reached."""
    model, rng = base_model(), np.random.default_rng(seed)
    if kind == "LoRA":
        add_lora(model, LINEARS, 4, 8.0, generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    losses: list[float] = []
    while len(losses) < MOST and (len(losses) < 5 or np.mean(losses[-5:]) > LOSS):
        lines = mixture({"flip": 1.0}, 16, rng)
        loss = model_loss(model, lines.ids, lines.answer_mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    there = np.mean(losses[-5:]) <= LOSS
    return {"kind": kind, "rate": rate, "seed": seed, "steps": len(losses),
            "update": round(relative_update(model), 5) if there else None}  # fmt: skip


def thankful(seed: int, count: int = 32) -> Pairs:
    """Return (prompt, wanted, unwanted): the two answers differ in one character."""
    rng = np.random.default_rng(seed)
    return [(f"copy {word}", f"{word}, thanks!", f"{word}, thanks?") for word in (letters(rng) for _ in range(count))]


@torch.no_grad()
def both(model: Decoder) -> list[float]:
    fresh = thankful(99, 24)
    sides = [batch([(pair[0], pair[side]) for pair in fresh]) for side in (1, 2)]
    return [float(model_logprob(model, side.ids, side.answer_mask).mean()) for side in sides]


def polite(model: Decoder) -> float:
    """Return the share of 24 greedy answers with `thanks!` in them."""
    ids, mask = prompts([pair[0] for pair in thankful(99, 24)])
    return float(
        np.mean(["thanks!" in decode(row) for row in generate(model, ids, mask, max_new=18, stop=EOS).tolist()])
    )


def demonstrate(model: Decoder, pairs: Pairs, rng: np.random.Generator, steps: int, rate: float) -> None:
    def loss(step: int) -> torch.Tensor:
        drawn = batch([pairs[i][:2] for i in rng.integers(len(pairs), size=16)])
        return model_loss(model, drawn.ids, drawn.answer_mask)

    train(model, loss, rate_groups(model, {}, rate), steps)


def widened(seed: int) -> list[Row]:
    """Return the rows of one seed: where demonstrations end, then twelve steps more of either kind at each rate."""
    shown, pairs = base_model(), thankful(seed)
    demonstrate(shown, pairs, np.random.default_rng(seed), 45, 3e-4)
    start, found = both(shown), list[Row]()
    for rate in RATES:
        for way in ("pairs", "demonstrations"):
            model = frozen_copy(shown).requires_grad_(True)
            if way == "pairs":
                fit_preferences(model, shown, pairs, steps=12, rate=rate, seed=seed)
            else:
                demonstrate(model, pairs, np.random.default_rng(500 + seed), 12, rate)
            found.append({"way": way, "rate": rate, "seed": seed, "before": start, "after": both(model),
                          "polite": polite(model)})  # fmt: skip
    return found


def budget(seed: int) -> Row:
    """Return what 57 steps on pairs do to a model without a demonstration: as many as the other way takes in all."""
    model, pairs = base_model(), thankful(seed)
    seen = fit_preferences(model, frozen_copy(model), pairs, steps=57, rate=5e-5, seed=seed)
    return {"seed": seed, "steps": 57, "loss": seen[-1].loss, "margin": seen[-1].margin, "after": both(model),
            "polite": polite(model)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("lengths", "widened", "budget"))
    parser.add_argument("--write", action="store_true", help="keep the tables for the course")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = FOLDER / "choice_controls.json"
    found: dict[str, list[Row]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    work = {
        "lengths": [lambda k=k, r=r, s=s: [length(k, r, s)] for k, r in LENGTHS for s in SEEDS],
        "widened": [lambda s=s: widened(s) for s in SEEDS],
        "budget": [lambda s=s: [budget(s)] for s in SEEDS],
    }
    for name in arguments.only or work:
        found[name] = [row for run in tqdm(work[name], desc=name) for row in run()]
        for row in found[name]:
            print(json.dumps(row))
        if arguments.write:
            rows = {name: "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]" for name, rows in found.items()}
            path.write_text("{\n" + ",\n".join(f'"{name}": {row}' for name, row in rows.items()) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
