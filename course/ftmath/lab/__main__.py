"""What `python3 start.py lab` runs: predict, measure, print the tables, and with `--record` write the card's file."""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ftmath.device import best_device, describe
from ftmath.lab.cards import FOLDER, Budget, Record, combined, slug, written
from ftmath.lab.ladder import measure_ceilings, measure_peers, measure_speed
from ftmath.lab.recipes import measure_one_model
from ftmath.lab.sweep import measure_fits, measure_memory, measure_timeline, setups_for
from ftmath.starter import STARTER

Part = Callable[[Record, Budget, torch.device, bool], None]
PARTS: dict[str, tuple[float, Part]] = {
    "ceilings": (20, measure_ceilings),
    "memory": (110, lambda record, budget, device, toy: measure_memory(record, budget, device, setups_for(toy))),
    "timeline": (15, measure_timeline),
    "fits": (35, lambda record, budget, device, toy: measure_fits(record, budget, device)),
    "speed": (110, measure_speed),
    "peers": (25, measure_peers),
    "one_model": (235, measure_one_model),
}
"""Each part with the most seconds that it may take, in the order in which they run."""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"{STARTER} lab", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write course/ftmath/weights/cards/<card>.json")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="another folder for the record")
    parser.add_argument("--budget-seconds", type=float, default=450, help="the most seconds that a run may take")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some parts of {','.join(PARTS)}")
    parser.add_argument(
        "--join", type=Path, nargs=2, metavar="FILE", help="two records of one card to be written as one"
    )
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="tune the model in this Hugging Face folder")
    parser.add_argument("--toy", action="store_true", help="small sizes, as on a CPU")
    return parser.parse_args(words)


def join(first: Path, second: Path, folder: Path) -> int:
    """Combine two records of one card into one file."""
    found = combined(json.loads(first.read_text("utf-8")), json.loads(second.read_text("utf-8")))
    path = folder / f"{slug(found['card'])}.json"
    written(found, path)
    say(f"written: {path}")
    return 0


def main(words: list[str]) -> int:
    """Run the parts that were asked for within the budget."""
    asked = arguments(words)
    if asked.join:
        return join(asked.join[0], asked.join[1], asked.folder)
    parts = [part for part in asked.only.split(",") if part]
    odd = [part for part in parts if part not in PARTS]
    if odd:
        sys.stderr.write(f"{STARTER} lab: no part is called {', '.join(odd)}; there are {', '.join(PARTS)}\n")
        return 2
    if asked.model and not (asked.model / "config.json").is_file():
        sys.stderr.write(f"{STARTER} lab: {asked.model} is no folder of a model: it holds no config.json\n")
        return 2
    device = best_device()
    device = torch.device("cuda", 0) if device.type == "cuda" else torch.device("cpu")
    toy = asked.toy or device.type == "cpu"
    say(f"torch {torch.__version__} on {describe(device)}{', toy sizes' if toy else ''}")
    path = None
    if asked.record:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        path = asked.folder / f"{slug(name)}.json"
    record, budget = Record(device, path, say), Budget(asked.budget_seconds)
    for part in parts:
        most, measure = PARTS[part]
        if part == "one_model" and asked.model:
            measure = partial(measure_one_model, folder=asked.model)
        if budget.left <= 0:
            record.skip(part, "everything", "out of time")
            continue
        before = budget.left
        try:
            measure(record, budget.share(most), device, toy)
        except Exception as error:  # the other parts' numbers are worth more than a clean end
            record.skip(part, "the rest", f"{type(error).__name__}: {str(error)[:200]}")
        say(f"{part}: {before - budget.left:.0f} s, {budget.left:.0f} s left")
    if path:
        record.write()
        say(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
