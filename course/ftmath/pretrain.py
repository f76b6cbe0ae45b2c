"""Train the base model from nothing: `python -m ftmath.pretrain` writes weights/base.safetensors and what was measured.

The recipe: 1,500 steps of 128 lines, all ten skills alike; answer tokens weigh 1 and prompt tokens 0.2 in the loss;
Muon for the blocks' matrices, AdamW for all else, one cosine schedule.
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ftmath.model import Config, Decoder
from ftmath.skills import SKILLS, Batch, mixture, retention
from ftmath.weights import FOLDER, base_model, save_weights

STEPS, ROWS, SEED = 1_500, 128, 0
PROMPT_WEIGHT = 0.2
TOLERANCE = 0.02
"""How far a probe of a model that was trained elsewhere may lie from the committed one's: a row or two of 64."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was seen at a step: the loss in nats, and the accuracy of each skill where it was measured."""

    step: int
    loss: float
    accuracy: dict[str, float] | None


def weighted_loss(logits: Tensor, rows: Batch) -> Tensor:
    """Return the mean negative log-likelihood of the next tokens, prompts counted with PROMPT_WEIGHT."""
    weight = rows.answer_mask + PROMPT_WEIGHT * (rows.attention_mask - rows.answer_mask)
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), rows.ids[:, 1:], reduction="none")
    return (weight[:, 1:] * nll).sum() / weight[:, 1:].sum()


def optimizers(model: Decoder) -> list[torch.optim.Optimizer]:
    """Return Muon over the blocks' matrices, and AdamW over the rest."""
    matrices = [parameter for parameter in model.blocks.parameters() if parameter.ndim == 2]
    known = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)]


def training(model: Decoder, steps: int, rows: int, seed: int, measure_every: int) -> Iterator[Point]:
    """Train the model in place, and yield what is seen at each step."""
    rng = np.random.default_rng(seed)
    parts = optimizers(model)
    rates = [part.param_groups[0]["lr"] for part in parts]
    for step in range(steps):
        warm = min(1.0, (step + 1) / 50)
        share = warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        lines = mixture(dict.fromkeys(SKILLS, 1.0), rows, rng)
        loss = weighted_loss(model(lines.ids, lines.attention_mask), lines)
        loss.backward()
        for part, rate in zip(parts, rates, strict=True):
            part.param_groups[0]["lr"] = rate * share
            part.step()
            part.zero_grad()
        measured = (step + 1) % measure_every == 0 or step + 1 == steps
        yield Point(step + 1, loss.item(), retention(model) if measured else None)


def main(words: list[str] | None = None) -> int:
    """Train and write, or with --check measure the committed weights again; return 1 if a probe is off."""
    parser = argparse.ArgumentParser("python -m ftmath.pretrain", description=__doc__)
    parser.add_argument("--check", action="store_true", help="train nothing; measure the committed weights")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: the package's own)")
    arguments = parser.parse_args(words)
    return check() if arguments.check else train_and_write(arguments.steps, arguments.folder)


def check() -> int:
    wanted = json.loads((FOLDER / "base.json").read_text("utf-8"))["accuracy"]
    found = retention(base_model().eval())
    for name, value in found.items():
        sys.stderr.write(f"{name:>8} {value:.3f} (written: {wanted[name]:.3f})\n")
    return int(any(abs(found[name] - wanted[name]) > TOLERANCE for name in wanted))


def train_and_write(steps: int, folder: Path) -> int:
    model = Decoder(Config(), torch.Generator().manual_seed(SEED))
    curve: list[Point] = []
    points = training(model, steps, ROWS, SEED, measure_every=max(1, steps // 15))
    for point in (bar := tqdm(points, total=steps, desc="pretrain")):
        curve.append(point)
        if point.accuracy:
            mean = sum(point.accuracy.values()) / len(point.accuracy)
            bar.set_postfix(loss=f"{point.loss:.3f}", mean_accuracy=f"{mean:.3f}")
    folder.mkdir(exist_ok=True)
    path = folder / "base.safetensors"
    state = {name: value.half() for name, value in model.state_dict().items() if name != "head.weight"}
    save_weights(state, path)
    model.load_state_dict({name: value.half().float() for name, value in model.state_dict().items()})
    written = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "steps": steps, "rows": ROWS, "seed": SEED,
        "torch": torch.__version__, "accuracy": retention(model),
        "curve": [[point.step, round(point.loss, 4)] for point in curve if point.step % 10 == 0],
        "probes": [[point.step, point.accuracy] for point in curve if point.accuracy],
    }  # fmt: skip
    (folder / "base.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
