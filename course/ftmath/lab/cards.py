"""The record of a card's measurements: one JSON file a card, rewritten after each finding, read by the notebooks."""

import importlib.metadata
import json
import platform
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent.parent / "weights" / "cards"
SCHEMA = 1
SECTIONS = ("ceilings", "memory", "timeline", "fits", "speed", "peers", "one_model")
PEERS = ("transformers", "peft", "bitsandbytes", "liger_kernel")
DENSE_BF16 = {"H100 80GB HBM3": 989.4e12, "H200": 989.4e12, "H100 PCIe": 756e12, "A100": 312e12, "L4": 121e12}
"""Operations a second for dense products in bfloat16, from the data sheets."""


def peak_of(card: str) -> float | None:
    """Return the data sheet's operations a second in bfloat16, or None for a card that isn't in the table.

    >>> peak_of("NVIDIA H100 80GB HBM3"), peak_of("cpu")
    (989400000000000.0, None)
    """
    return next((rate for name, rate in DENSE_BF16.items() if name in card), None)


def slug(card: str) -> str:
    """Return a file name for a card.

    >>> slug("NVIDIA H100 80GB HBM3")
    'nvidia-h100-80gb-hbm3'
    """
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


def version_of(package: str) -> str:
    """Return the version of a package, or "not installed".

    >>> version_of("no such package")
    'not installed'
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return what a run depends on: the card, its memory, the versions. No date: it would change the file alone."""
    found: dict[str, Any] = {
        "card": "cpu", "python": platform.python_version(), "torch": torch.__version__, "numpy": version_of("numpy"),
        "libraries": {name: version_of(name.replace("_", "-")) for name in PEERS},
    }  # fmt: skip
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found |= {
            "card": about.name, "memory_bytes": about.total_memory, "multiprocessors": about.multi_processor_count,
            "capability": f"{about.major}.{about.minor}", "cuda": torch.version.cuda, "triton": version_of("triton"),
        }  # fmt: skip
    else:
        found |= {"threads": torch.get_num_threads(), "machine": platform.machine()}
    found["dense_bf16_flops"] = peak_of(found["card"])
    return found


def written(data: dict[str, Any], path: Path) -> None:
    """Write a record, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, sort_keys=True, default=float)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text + "\n")
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


class Record:
    """The findings so far, by section. `add` appends one to a section, and rewrites the file if there is one.

    An existing file of the same card is continued; a section that is begun again replaces its old findings.
    """

    def __init__(self, device: torch.device, path: Path | None, say: Callable[[str], object] = print) -> None:
        self.path, self.say = path, say
        self.data: dict[str, Any] = {"schema": SCHEMA, **surroundings(device)}
        if path and path.is_file():
            old = json.loads(path.read_text("utf-8"))
            if old.get("card") == self.data["card"]:
                self.data |= {name: old[name] for name in (*SECTIONS, "skipped") if name in old}
        self.data.setdefault("skipped", [])

    def begin(self, section: str, findings: Sequence[dict[str, Any]] = ()) -> None:
        """Begin a section with the findings to keep (default: none), and forget what it had skipped."""
        self.data[section] = list(findings)
        self.data["skipped"] = [skipped for skipped in self.data["skipped"] if skipped["section"] != section]

    def add(self, section: str, finding: dict[str, Any]) -> None:
        self.data[section].append(finding)
        self.write()

    def skip(self, section: str, what: str, why: str) -> None:
        """Note what wasn't measured, and why."""
        self.data["skipped"].append({"section": section, "what": what, "why": why})
        self.say(f"  {section}: {what} skipped ({why})")
        self.write()

    def write(self) -> None:
        """Write the file if there is one."""
        if self.path is not None:
            written(self.data, self.path)


class Budget:
    """The seconds that a run, or a share of it, may take; `left` says how many remain."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.end = clock, clock() + seconds

    def share(self, seconds: float) -> "Budget":
        """Return a budget of these seconds, or of those that are left if they are fewer."""
        return Budget(min(seconds, self.left), self.clock)

    @property
    def left(self) -> float:
        return self.end - self.clock()


def recorded_cards(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return all records in a folder by card name.

    >>> recorded_cards(Path("nowhere"))
    {}
    """
    files = sorted((folder or FOLDER).glob("*.json"))
    found = [json.loads(path.read_text("utf-8")) for path in files]
    return {record["card"]: record for record in found}


def combined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return two records of one card as one: the second's sections where it has them, the first's elsewhere.

    >>> combined({"card": "x", "speed": [1], "skipped": []}, {"card": "x", "memory": [2], "skipped": []})["speed"]
    [1]

    Errors: ValueError for records of different cards.
    """
    if first["card"] != second["card"]:
        raise ValueError(f"records must be of one card, got {first['card']} and {second['card']}")
    return first | second | {"skipped": first["skipped"] + second["skipped"]}


__all__ = [
    "FOLDER", "PEERS", "SCHEMA", "SECTIONS", "Budget", "Record", "combined", "peak_of", "recorded_cards", "slug",
    "surroundings", "version_of", "written",
]  # fmt: skip
