"""Part 2's runs on data: which turns of a chat are learned, whose lines are rehearsed, and how many letters are wrong.

    python benchmarks/data_runs.py [--only chats|rehearsal|quality] [--write] [--anew]

All runs tune every parameter of the base model with AdamW, for three or six seeds. With --write the records go into
course/ftmath/weights/data_runs.json, which the notebook reads; what is recorded isn't run again unless --anew is given.
About five minutes on a core.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ftmath.datasets import chat_run, quality_run, rehearsal_run
from ftmath.weights import FOLDER
from tqdm import tqdm

SEEDS = {"chats": 6, "rehearsal": 3, "quality": 6}
Recorded = dict[str, dict[str, list[Any]]]


def entries() -> Iterator[tuple[str, str, Callable[[int], Any]]]:
    """Yield the experiment, the name of a run in it, and what runs it for a seed."""
    for which in ("assistant", "completion"):
        for rate in (3e-4, 1e-3, 3e-3):
            yield "chats", f"{which}, {rate:g}", partial(chat_run, which, rate=rate)
    for source in ("none", "own", "old"):
        yield "rehearsal", source, partial(rehearsal_run, source)
    for wrong, examples in ((0.0, 100), (0.0, 1000), (0.1, 1000), (0.3, 1000)):
        yield "quality", f"{examples} lines, {wrong:g} wrong", partial(quality_run, wrong, examples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("chats", "rehearsal", "quality"))
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
