"""What a learner has done, in one small file of their own: no account, no service, never graded."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Done:
    """How far an exercise is: `status` is "not started", "wrong" or "right"."""

    status: str = "not started"
    attempts: int = 0
    hints: int = 0


def progress_path() -> Path:
    """Return the learner's file: `FTMATH_PROGRESS` if it's set, else one in their own data folder."""
    given = os.environ.get("FTMATH_PROGRESS")
    return Path(given) if given else Path.home() / ".local" / "share" / "fine-tuning-math" / "progress.json"


def read_progress() -> dict[str, Done]:
    """Return what is known of each exercise by its number; a file that can't be read counts as empty.

    >>> isinstance(read_progress(), dict)
    True
    """
    try:
        stored: dict[str, dict[str, Any]] = json.loads(progress_path().read_text("utf-8"))
        return {number: Done(**entry) for number, entry in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_progress(number: str, done: Done) -> None:
    """Note an exercise, whole or not at all. A folder that can't be written to loses the note, not the lesson."""
    path = progress_path()
    stored = {name: asdict(entry) for name, entry in (read_progress() | {number: done}).items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(stored, file, indent=1, sort_keys=True)
        Path(file.name).chmod(0o644)  # NamedTemporaryFile is for its owner's eyes alone
        Path(file.name).replace(path)
    except OSError:
        return


__all__ = ["Done", "progress_path", "read_progress", "write_progress"]
