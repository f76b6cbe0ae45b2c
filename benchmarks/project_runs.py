"""Train the demo hand-ins of project_adapter, and record what each measures on the public prompts.

`python benchmarks/project_runs.py` writes tests/submissions/project_adapter/NAME/ and runs.json beside them: a good
run, a short one and one without replay at three seeds each, and others that a student may try.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from ftmath.lora import add_lora
from ftmath.masks import model_loss
from ftmath.methods import LINEARS, Method, fine_tune, from_few, lora
from ftmath.project import ADAPTER, CARD, PUBLIC_SEEDS, save_adapter
from ftmath.project.reading import TASK
from ftmath.project.scoring import draw_prompts, measure_adapter
from ftmath.skills import SEP, SKILLS, decode
from ftmath.training import cosine
from ftmath.training import train as run_steps
from ftmath.weights import base_model, load_weights, save_weights
from torch import nn

FOLDER = Path(__file__).parent.parent / "tests" / "submissions" / "project_adapter"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a hand-in is trained: LoRA's rank beside these layers, steps, rate, the share of old skills, the seed.

    With `known`, the lines are the first so many public prompts of the task, again and again.
    """

    targets: tuple[str, ...] = LINEARS
    rank: int = 2
    steps: int = 120
    rate: float = 3e-3
    replay: float = 0.5
    seed: int = 0
    known: int = 0


RECIPES = (
    {f"good-{seed}": Recipe(seed=seed) for seed in range(3)}
    | {f"short-{seed}": Recipe(seed=seed, steps=60) for seed in range(3)}
    | {f"overshot-{seed}": Recipe(seed=seed, replay=0.0) for seed in range(3)}
    | {
        "untouched": Recipe(steps=0),
        "rank-1": Recipe(rank=1, rate=5e-3),
        "two-layers": Recipe(("q", "v"), rank=4, steps=150, rate=5e-3),
        "large-and-hot": Recipe(rank=4, rate=1e-2, replay=0.1),
        "memorised": Recipe(rank=4, rate=5e-3, replay=0.5, known=4),
    }
)


def public_prompts() -> list[tuple[str, str]]:
    """Return the public prompts of the task and their answers."""
    ids = draw_prompts(PUBLIC_SEEDS)[0].ids.tolist()
    lines = [(line[1 : line.index(SEP)], line[line.index(SEP) + 1 :]) for line in ids]
    return [(decode(prompt), decode(answer)) for prompt, answer in lines]


def memorise(recipe: Recipe) -> nn.Module:
    """Return a model that is tuned on a few public prompts alone, beside lines of the old skills."""
    model, rng = base_model(), np.random.default_rng(recipe.seed)
    add_lora(model, recipe.targets, recipe.rank, 2.0 * recipe.rank, generator=torch.Generator().manual_seed(0))
    known = public_prompts()[: recipe.known]
    shares = {TASK: 1 - recipe.replay} | dict.fromkeys(SKILLS, recipe.replay / len(SKILLS))

    def loss(_: int) -> torch.Tensor:
        rows = from_few(known, shares, 32, rng)
        return model_loss(model, rows.ids, rows.answer_mask)

    run_steps(model, loss, [{"params": list(trainable(model)), "lr": recipe.rate}], recipe.steps, schedule=cosine)
    return model


def trainable(model: nn.Module) -> Iterator[nn.Parameter]:
    return (value for value in model.parameters() if value.requires_grad)


def train(recipe: Recipe) -> nn.Module:
    """Return a model that is tuned by a recipe."""
    if recipe.known:
        return memorise(recipe)
    methods = {"mine": Method(lora(recipe.targets, recipe.rank), recipe.rate, schedule=cosine)}
    model, _ = fine_tune(
        "mine", TASK, steps=recipe.steps, replay=recipe.replay, seed=recipe.seed, methods=methods,
        device=torch.device("cpu"),
    )  # fmt: skip
    return model


def write(model: nn.Module, recipe: Recipe, folder: Path) -> None:
    """Write the hand-in, in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(model, folder, who="demo", targets=recipe.targets)
    save_weights({name: value.half() for name, value in load_weights(folder / ADAPTER).items()}, folder / ADAPTER)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(RECIPES))
    torch.set_num_threads(1)
    path = FOLDER / "runs.json"
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for name in parser.parse_args().names:
        folder = FOLDER / name
        begun = time.perf_counter()
        write(train(RECIPES[name]), RECIPES[name], folder)
        seconds = time.perf_counter() - begun
        measures = measure_adapter((folder / ADAPTER).read_bytes(), (folder / CARD).read_bytes(), PUBLIC_SEEDS)
        lines = {key: [round(end, 4) for end in (one.value, one.low, one.high)] for key, one in measures.items()}
        found[name] = {"recipe": asdict(RECIPES[name]), "seconds": round(seconds, 1), "measures": lines}
        path.write_text(json.dumps({one: found[one] for one in RECIPES if one in found}, indent=1) + "\n", "utf-8")
        sys.stderr.write(f"{name}: {lines}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
