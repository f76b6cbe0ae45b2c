"""The files that one student hands in together, as one run of bytes: what a judge is sent of a project."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from ftgrade.errors import StudentFault
from ftgrade.intake.notebook import read_below, read_bounded


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return files as one run of bytes: the length of a list of names and sizes, the list, the files.

    >>> unpack(pack({"a": b"12", "b": b""}))
    {'a': b'12', 'b': b''}
    """
    head = json.dumps([[name, len(data)] for name, data in files.items()]).encode()
    return struct.pack(">I", len(head)) + head + b"".join(files.values())


def unpack(data: bytes) -> dict[str, bytes]:
    """Return the files of `pack`, which the grader itself wrote."""
    (size,) = struct.unpack(">I", data[:4])
    files: dict[str, bytes] = {}
    place = 4 + size
    for name, length in json.loads(data[4:place]):
        files[name] = data[place : place + length]
        place += length
    return files


def read_beside(notebook: Path, limits: Mapping[str, int], root: Path | None = None) -> dict[str, bytes]:
    """Return the files of these names beside a notebook, of each one byte more than its limit at most.

    Below `root`, no link is followed. Raises StudentFault if one is missing or is no ordinary file.
    """
    files: dict[str, bytes] = {}
    for name, limit in limits.items():
        path = notebook.with_name(name)
        try:
            files[name] = read_bounded(path, limit) if root is None else read_below(root, path, limit)
        except StudentFault as fault:
            words = f"{name} is missing: hand it in beside the notebook, in the same folder or archive."
            if fault.kind != "missing":
                words = f"{name} is not an ordinary file, or it has a second name. Hand in a copy of it."
            raise StudentFault(fault.kind, words) from None
    return files


__all__ = ["pack", "read_beside", "unpack"]
