"""Read a recorded card for a notebook: its name and versions, and rows for tables and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from ftmath.lab.cards import FOLDER, recorded_cards
from ftmath.starter import STARTER

Found = dict[str, Any]
NOT_RECORDED = f"not recorded: no card's file is here yet (`{STARTER} lab --record` writes one)"


def chosen_record(folder: Path = FOLDER) -> Found | None:
    """Return the record of this machine's card if there is one, else another card's, else None; never the CPU's.

    >>> chosen_record(Path("nowhere")) is None
    True
    """
    cards = {name: record for name, record in recorded_cards(folder).items() if name != "cpu"}
    mine = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return cards.get(mine) or next(iter(cards.values()), None)


def whose(record: Found | None) -> str:
    """Return a sentence that says whose numbers are replayed.

    >>> whose({"card": "X", "torch": "2.11.0", "cuda": "13.0"})
    'Recorded on an X, torch 2.11.0, CUDA 13.0; not measured on this machine.'
    """
    if record is None:
        return NOT_RECORDED
    made = f"{record['card']}, torch {record['torch']}, CUDA {record['cuda']}"
    return f"Recorded on an {made}; not measured on this machine."


def section(record: Found | None, name: str) -> list[Found]:
    """Return the findings of a section; an empty list if there is no record or no such section."""
    return list(record.get(name, [])) if record else []


def measured_rows(record: Found | None) -> list[Found]:
    """Return the measured peaks, each with the relative `error` of its prediction and the parts of the difference.

    `workspace` is what was held before the step beyond weights, moments and reference. `error_with` is the error of the
    prediction plus the workspace. Predictions are those that were recorded before the measurement.
    """
    rows: list[Found] = []
    for found in section(record, "memory"):
        seen = found["measured"]
        if seen is None or "allocated" not in seen:
            continue
        stays = sum(found["terms"][name] for name in ("weights", "optimizer", "reference"))
        workspace = seen["before"] - stays
        rows.append(
            found
            | {"workspace": workspace, "error_with": (found["predicted"] + workspace) / seen["allocated"] - 1}
            | {"error": found["predicted"] / seen["allocated"] - 1, "left": seen["allocated"] - found["predicted"],
               "rounding": seen["allocated"] - seen["requested"], "fragments": seen["reserved"] - seen["allocated"]}
        )  # fmt: skip
    return rows


def table_row(record: Found) -> str:
    """Return a record's row in the README's table: steps measured, the form's largest error, tokens a second.

    >>> table_row({"card": "X"})
    '| X | 0 | not recorded | not recorded |'
    """
    rows = measured_rows(record)
    both = (max(abs(row[name]) for row in rows) for name in ("error", "error_with")) if rows else ()
    worst = " / ".join(f"{error:.1%}" for error in both) or "not recorded"
    ladder = [one for one in section(record, "speed") if one["shape"] == "135M" and not one["rung"]["narrow"]]
    speed = (
        f"{ladder[0]['tokens_per_second']:,.0f} → {ladder[-1]['tokens_per_second']:,.0f}" if ladder else "not recorded"
    )
    return f"| {record['card']} | {len(rows)} | {worst} | {speed} |"


def stage(record: Found | None, name: str) -> list[Found]:
    """Return the runs of one stage of the recorded model: base, trial, sft, grpo or dpo."""
    return [found for found in section(record, "one_model") if found["stage"] == name]


def by_method(runs: Sequence[Found]) -> dict[str, list[Found]]:
    """Return runs by their method, in the order in which the methods first appear."""
    names = dict.fromkeys(run["method"] for run in runs)
    return {name: [run for run in runs if run["method"] == name] for name in names}


def spread(runs: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float, float]:
    """Return the mean, the least and the most of a number over runs.

    >>> spread([{"exact": 0.5}, {"exact": 0.75}], "exact")
    (0.625, 0.5, 0.75)
    """
    values = [float(run[key]) for run in runs]
    return mean(values), min(values), max(values)


def read_verdict(change: Sequence[float], better: str = "gained", worse: str = "lost") -> str:
    """Return what a paired interval (mean, low, high) shows.

    >>> read_verdict([0.2, 0.1, 0.3]), read_verdict([0.01, -0.02, 0.04])
    ('gained', 'nothing shown')
    """
    if change[1] > 0:
        return better
    return worse if change[2] < 0 else "nothing shown"


__all__ = [
    "NOT_RECORDED", "by_method", "chosen_record", "measured_rows", "read_verdict", "section", "spread", "stage",
    "table_row", "whose",
]  # fmt: skip
