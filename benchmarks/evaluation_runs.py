"""The longer runs of part 8: validation that turns or doesn't, and what seven ways of tuning keep of each skill.

    python benchmarks/evaluation_runs.py [--only turn|kept|sure|grouped|leaked] [--write]

Three seeds each; nothing is chosen by looking at them. `turn`: 96 examples of `flip`, with and without a share of wrong
letters, many epochs, loss and accuracy on 128 clean prompts that were not learned. `kept`: for each run, whether each
of 200 items of the task and of every skill is right, as a hexadecimal number (the first item is the highest bit).
`sure`: the probability that a model gives its own greedy answer to each of 200 items, and whether the answer is right.
`grouped`: for all 240 prompts of `mood`, 20 words with 12 things each, whether the written answer is right, and whether
the right one of the two words is the likelier. `leaked`: accuracy items of `pig` after training on 64 lines, of which
the first 32 test items are half, or none.
With --write the records go into course/ftmath/weights/evaluation_runs.json, which the notebook reads. About twenty
minutes on a core.
"""

import argparse
import json
from typing import Any

import numpy as np
import torch
from ftmath.masks import model_logprob
from ftmath.methods import fine_tune, fit_epochs, kl_anchor
from ftmath.model import Decoder
from ftmath.rounds import roll_out
from ftmath.skills import SKILLS, accuracy, batch, distinct, example, mood_prompts, outcomes, probes, spoilt
from ftmath.weights import FOLDER, base_model, recorded
from torch import nn
from tqdm import tqdm

SEEDS = (0, 1, 2)
TURN = {"task": "flip", "learned": 96, "held_out": 128, "epochs": 20, "rate": 5e-4, "shares": [0.25, 0.0]}
ITEMS = {"task": "flip", "count": 200, "seed": 8}
GROUPED = {"task": "mood", "ways": ["LoRA", "full, careless rate", "full, KL anchor"]}
LEAKED = {"task": "pig", "learned": 64, "test": 128, "leaked": 32, "epochs": 20, "rate": 5e-4}
SURE = {"count": 20, "seed": 80, "ways": ["LoRA", "full", "full, KL anchor"]}
RUNS: dict[str, dict[str, Any]] = {
    "full, careless rate": {"method": "full", "rate": 1e-3},
    "full": {"method": "full"},
    "LoRA": {"method": "LoRA"},
    "LoRA, half replay": {"method": "LoRA", "replay": 0.5},
    "full, half replay": {"method": "full", "rate": 2e-4, "replay": 0.5},
    "full, KL anchor": {"method": "full", "rate": 2e-4, "anchor": 1.0},
    "linear probe": {"method": "linear probe"},
}


def as_hex(right: list[float]) -> str:
    return f"{int(''.join(str(int(one)) for one in right), 2):0{len(right) // 4}x}"


def packed(model: nn.Module, name: str) -> str:
    return as_hex(outcomes(model, probes(name, ITEMS["count"], ITEMS["seed"])).tolist())


def scores(model: nn.Module) -> dict[str, str]:
    return {name: packed(model, name) for name in (ITEMS["task"], *SKILLS)}


def turn(bar: tqdm) -> list[dict[str, Any]]:
    found = []
    for seed in SEEDS:
        for share in TURN["shares"]:
            rng = np.random.default_rng(seed)
            pairs = distinct(TURN["task"], TURN["learned"] + TURN["held_out"], rng)
            learned, held_out = pairs[: TURN["learned"]], pairs[TURN["learned"] :]
            model, asked, scores = base_model(), batch(held_out), list[float]()
            both = fit_epochs(
                model, batch(spoilt(learned, share, rng)), asked, TURN["epochs"], rate=TURN["rate"], seed=seed,
                watch=lambda model=model, asked=asked, scores=scores: scores.append(accuracy(model, asked)),
            )  # fmt: skip
            rounded = [[round(value, 5) for value in losses] for losses in both]
            found.append({"seed": seed, "share": share, "learned": rounded[0], "held_out": rounded[1],
                          "accuracy": [round(value, 4) for value in scores]})  # fmt: skip
            bar.update()
    return found


def kept(bar: tqdm) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for name in RUNS:
        found[name] = []
        for seed in SEEDS:
            found[name].append(scores(tuned(name, seed)))
            bar.update()
    return found


@torch.no_grad()
def sure_of(model: nn.Module) -> dict[str, list[float]]:
    """Return how sure a model is of its greedy answer to each probe of the old skills, and whether that is right."""
    assert isinstance(model, Decoder)
    rng = np.random.default_rng(SURE["seed"])
    asked = [example(name, rng) for name in SKILLS for _ in range(SURE["count"])]
    lines, said = roll_out(model, [prompt for prompt, _ in asked], 1, temperature=0.0)
    chances = model_logprob(model, lines.ids, lines.answer_mask).exp()
    return {
        "confidence": [round(value, 4) for value in chances.tolist()],
        "right": [float(one == answer) for one, (_, answer) in zip(said, asked, strict=True)],
    }


def tuned(name: str, seed: int) -> nn.Module:
    settings = RUNS[name]
    asked = {key: value for key, value in settings.items() if key not in ("method", "anchor")}
    anchor = kl_anchor(settings["anchor"]) if "anchor" in settings else None
    return fine_tune(settings["method"], ITEMS["task"], seed=seed, anchor=anchor, **asked)[0]


def sure(bar: tqdm) -> dict[str, list[dict[str, list[float]]]]:
    found: dict[str, list[dict[str, list[float]]]] = {}
    for name in SURE["ways"]:
        found[name] = []
        for seed in SEEDS:
            found[name].append(sure_of(tuned(name, seed)))
            bar.update()
    return found


@torch.no_grad()
def mood_items(model: nn.Module) -> dict[str, str]:
    """Return whether a model writes the right mood, and whether it finds it the likelier one, for every prompt."""
    assert isinstance(model, Decoder)
    pairs = mood_prompts()
    rows = [batch([(prompt, word) for prompt, _ in pairs]) for word in ("good", "bad")]
    good, bad = (model_logprob(model, one.ids, one.answer_mask) for one in rows)
    likelier = [float((a > b) == (answer == "good")) for a, b, (_, answer) in zip(good, bad, pairs, strict=True)]
    return {"written": as_hex(outcomes(model, batch(pairs)).tolist()), "likelier": as_hex(likelier)}


def grouped(bar: tqdm) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for name in GROUPED["ways"]:
        found[name] = []
        for seed in SEEDS:
            found[name].append(mood_items(tuned(name, seed)))
            bar.update()
    return found


def leaked(bar: tqdm) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for seed in SEEDS:
        pairs = distinct(LEAKED["task"], LEAKED["test"] + LEAKED["learned"], np.random.default_rng(seed))
        test, others = pairs[: LEAKED["test"]], pairs[LEAKED["test"] :]
        for count in (LEAKED["leaked"], 0):
            learned = [*test[:count], *others[count:]]
            model = base_model()
            fit_epochs(model, batch(learned), batch(test), LEAKED["epochs"], rate=LEAKED["rate"], seed=seed)
            found.append({"seed": seed, "leaked": count, "right": as_hex(outcomes(model, batch(test)).tolist())})
            bar.update()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("turn", "kept", "sure", "grouped", "leaked"))
    parser.add_argument("--write", action="store_true", help="keep the records for the course")
    arguments = parser.parse_args()
    path = FOLDER / "evaluation_runs.json"
    record: dict[str, Any] = recorded("evaluation_runs") if path.exists() else {}
    wanted = {"turn": 2 * len(SEEDS), "kept": len(RUNS) * len(SEEDS), "sure": len(SURE["ways"]) * len(SEEDS),
              "grouped": len(GROUPED["ways"]) * len(SEEDS), "leaked": 2 * len(SEEDS)}  # fmt: skip
    wanted = {name: count for name, count in wanted.items() if arguments.only in (None, name)}
    with tqdm(total=sum(wanted.values()), desc="runs") as bar:
        if "turn" in wanted:
            record["turn"] = TURN | {"runs": turn(bar)}
        if "kept" in wanted:
            record["kept"] = ITEMS | {"settings": RUNS, "base": scores(base_model()), "runs": kept(bar)}
        if "sure" in wanted:
            record["sure"] = SURE | {"base": sure_of(base_model()), "runs": sure(bar)}
        if "grouped" in wanted:
            record["grouped"] = GROUPED | {"base": mood_items(base_model()), "runs": grouped(bar)}
        if "leaked" in wanted:
            record["leaked"] = LEAKED | {"runs": leaked(bar)}
    for run in record.get("turn", {}).get("runs", []):
        print(run["seed"], run["share"], "held out", run["held_out"], "accuracy", run["accuracy"])
    if arguments.write:
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
