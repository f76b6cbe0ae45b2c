"""The page "Fine-tune in the tab": its text with recorded runs, and one script with the model, the lines and the code.

The script holds everything, so that the page also works from disk, where a page can read no other file. What it trains
on are the lines that `fine_tune(task, rows=16, seed=0)` draws: a run of the page is a run of the library.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from finetune_twin import twin
from ftmath.methods import Method, fine_tune, lora
from ftmath.skills import BOS, EOS, SEP, SKILLS, Batch, example, mixture
from ftmath.weights import FOLDER
from ftmath.world import ANSWERS

HERE = Path(__file__).resolve().parent
SOURCES = ("gemm", "pieces", "transformer", "lora", "trainer", "worker")
PAGE, MARK = "lab/finetune", "<!-- twin -->"
TASKS = ("flip", "neb", "pig", "please")
LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
ROWS, STEPS, SEED = 16, 120, 0
HELD, PROBES, PROBE_SEED = 128, 64, 2024
"""What `ftmath.methods.quality` and `ftmath.skills.retention` measure by."""
SHOWN = ((4, 1e-3), (1, 1e-3), (16, 1e-3), (4, 0.0))
"""Ranks and rates of the recorded runs."""
Line = tuple[str, str]
Notebook = dict[str, Any]

LINKS = {
    "01_local_adaptation": (
        "## 1.1 ",
        "the page trains LoRA on our base model in your browser and shows the loss, the answers and the old skills.",
    ),
    "04_parameter_efficient": (
        "## What to keep",
        "train LoRA in your browser with a rank, a scale, target matrices and a rate of your choice.",
    ),
    "05_lora_algebra": (
        "## 5.4 ",
        "choose rank, scale and rate, and watch the singular values of the update while LoRA trains in your browser.",
    ),
}
"""Before which heading a part's lesson leads to the page, and in which words."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run of the library, for readers without scripts: its settings and what `fine_tune` measured."""

    rank: int
    rate: float
    losses: tuple[float, ...]
    quality: float
    retention: dict[str, float]


# -------------------------------------------------------------------------------------------------------------- lines


def lines_of(rows: Batch) -> list[Line]:
    """Return the prompts and answers that a batch was made of.

    >>> from ftmath.skills import batch
    >>> lines_of(batch([("copy sun", "sun"), ("add 1+1", "2")]))
    [('copy sun', 'sun'), ('add 1+1', '2')]
    """
    return [line_of(ids) for ids in rows.ids.tolist()]


def line_of(ids: list[int]) -> Line:
    middle, end = ids.index(SEP), ids.index(EOS)
    return bytes(ids[ids.index(BOS) + 1 : middle]).decode(), bytes(ids[middle + 1 : end]).decode()


def probed(name: str, count: int) -> list[Line]:
    rng = np.random.default_rng(PROBE_SEED)
    return [example(name, rng) for _ in range(count)]


def batches(task: str, steps: int = STEPS) -> list[list[Line]]:
    """Return the lines of each step, as `fine_tune` draws them."""
    rng = np.random.default_rng(SEED)
    return [lines_of(mixture({task: 1.0}, ROWS, rng)) for _ in range(steps)]


def tables() -> dict[str, Any]:
    """Return all lines that the page trains on and measures by."""
    return {
        "skills": {name: probed(name, PROBES) for name in SKILLS},
        "tasks": {
            task: {"says": ANSWERS[task], "batches": batches(task), "held": probed(task, HELD)} for task in TASKS
        },
    }


# ------------------------------------------------------------------------------------------------------------- bundle


def code() -> str:
    """Return the worker's code: its files, one after another."""
    return "\n".join((HERE / "static" / "finetune" / f"{name}.js").read_text("utf-8") for name in SOURCES)


def write_bundle(folder: Path) -> Path:
    """Write the script that brings the worker's code, the model and the lines to the page."""
    weights = base64.b64encode((FOLDER / "base.safetensors").read_bytes()).decode()
    parts = {"code": code(), "weights": weights, "tables": tables()}
    path = folder / "bundle.js"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"window.finetuneParts = {json.dumps(parts, separators=(',', ':'))};\n", "utf-8")
    return path


# --------------------------------------------------------------------------------------------------------------- page


def page() -> str:
    """Return the page's text, with a mark where the recorded runs go."""
    return (HERE / "finetune.md").read_text("utf-8")


def add_twin(text: Path, kept: Path, run: bool = True) -> None:
    """Put the recorded runs into the staged page; unless they may `run`, only those of an earlier build."""
    path = text / f"{PAGE}.md"
    if run or record(kept).is_file():
        path.write_text(path.read_text("utf-8").replace(MARK, twin(recorded(kept))), "utf-8")


def recorded(kept: Path, work: Callable[[int, float], Recorded] | None = None) -> list[Recorded]:
    """Return the runs of the twin, from `kept` if the library and the settings are those of an earlier build."""
    path = record(kept)
    if not path.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict((work or run_of)(*one)) for one in SHOWN]), "utf-8")
    return [Recorded(**{**one, "losses": tuple(one["losses"])}) for one in json.loads(path.read_text("utf-8"))]


def record(kept: Path) -> Path:
    """Return where the runs are kept: another library or model has another place."""
    files = [*sorted(FOLDER.parent.glob("*.py")), FOLDER / "base.safetensors"]
    digest = hashlib.sha256(json.dumps(SHOWN).encode())
    for path in files:
        digest.update(path.read_bytes())
    return kept / f"finetune-{digest.hexdigest()[:24]}.json"


def run_of(rank: int, rate: float) -> Recorded:
    method = {"LoRA": Method(lora(LINEARS, rank), rate)}
    _, run = fine_tune("LoRA", "flip", steps=60, rows=ROWS, seed=SEED, methods=method)
    return Recorded(rank, rate, run.losses, run.quality, run.retention)


def linked(notebook: Notebook, part: str) -> Notebook:
    """Return a part's lesson with a link to the page before the heading that `LINKS` names.

    Errors: ValueError if the heading isn't there.
    """
    if part not in LINKS:
        return notebook
    heading, words = LINKS[part]
    cells: Sequence[Notebook] = notebook["cells"]
    place = next((i for i, cell in enumerate(cells) if "".join(cell["source"]).startswith(heading)), None)
    if place is None:
        raise ValueError(f"no cell of {part} begins with {heading!r}: mend LINKS in site/finetune.py")
    said = f"**Try it in the browser.** [Fine-tune in the tab](../{PAGE}.md): {words}"
    link = {"cell_type": "markdown", "id": "finetune-link", "metadata": {}, "source": said}
    return notebook | {"cells": [*cells[:place], link, *cells[place:]]}
