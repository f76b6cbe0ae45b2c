"""Lay the course's files down in a folder, and never write over what the learner changed.

A hidden file in the folder, the *record*, holds the digest of each file as it was last laid down. A file with another
digest is the learner's.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import cast

RECORD = ".ftmath.json"


@dataclass(frozen=True, slots=True)
class Laid:
    """What was done, by the files' names: new or made again, brought up to date, left to the learner, put beside."""

    written: list[str] = field(default_factory=list[str])
    updated: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])
    beside: list[str] = field(default_factory=list[str])


def lay_down(files: Mapping[str, bytes], folder: Path) -> Laid:
    """Write the files that are missing or that only the course has changed. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    record, laid = read_record(folder), Laid()
    try:
        for name, data in files.items():
            place(folder, name, data, record, laid)
    finally:
        write(folder / RECORD, json.dumps(record, indent=1, sort_keys=True).encode())
    return laid


def place(folder: Path, name: str, data: bytes, record: dict[str, str], laid: Laid) -> None:
    """Lay one file down, or leave the learner's. A newer version is put beside it, and only once."""
    path, new, last = folder / name, digest(data), record.get(name)
    found = digest(path.read_bytes()) if path.is_file() else None
    record[name] = new
    if found is None:
        write(path, data)
        laid.written.append(name)
    elif found == last != new:
        write(path, data)
        laid.updated.append(name)
    elif found != new:
        laid.left.append(name)
        if last != new:
            put_beside(folder, beside(name), data, record, laid)


def put_beside(folder: Path, name: str, data: bytes, record: dict[str, str], laid: Laid) -> None:
    path = folder / name
    if path.is_file() and digest(path.read_bytes()) != record.get(name):
        laid.left.append(name)
        return
    write(path, data)
    record[name] = digest(data)
    laid.beside.append(name)


def beside(name: str) -> str:
    """Return the name of a newer version.

    >>> beside("course/index.ipynb"), beside("LICENSE")
    ('course/index.new.ipynb', 'LICENSE.new')
    """
    path = PurePosixPath(name)
    return path.with_name(f"{path.stem}.new{path.suffix}").as_posix()


def read_record(folder: Path) -> dict[str, str]:
    """Return the record. Without one that can be read, every file that differs is the learner's."""
    try:
        found: object = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, str]", found) if isinstance(found, dict) else {}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; where it's a link, write what the link leads to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    goal = path.resolve()
    partial = goal.with_name(f"{goal.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(goal)


__all__ = ["RECORD", "Laid", "lay_down"]
