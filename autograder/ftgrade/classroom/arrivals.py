"""What has arrived in a course: hand-ins in `submitted/`, and files in a drop folder that are collected from there.

A file is read once it has looked the same in two polls, so that one that is still being copied waits.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.guard import Mishap, guarded
from ftgrade.intake import collect
from ftgrade.intake.gate import line

Key = TypeVar("Key")
Seen = TypeVar("Seen")
Look = tuple[tuple[str, int, int], ...]


@dataclass(slots=True)
class Steady(Generic[Key, Seen]):
    """What things looked like in the last poll."""

    before: dict[Key, Seen] = field(default_factory=dict[Key, Seen])

    def is_steady(self, key: Key, look: Seen) -> bool:
        """Say whether a thing looks as it did in the last poll."""
        if self.before.get(key) == look:
            return True
        self.before[key] = look
        return False


@dataclass(slots=True)
class Drop:
    """A folder in which hand-ins are dropped: files, folders and archives, named as `ftgrade collect` reads them."""

    folder: Path
    course: Course
    stems: Sequence[str]
    people: Callable[[], collect.People]
    pattern: str = "plain"
    zone: str = "UTC"
    is_untouched: collect.IsUntouched = lambda _stem, _data: False
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    steady: Steady[str, Look] = field(default_factory=Steady[str, Look])
    taken: dict[str, Look] = field(default_factory=dict[str, Look])

    def collect_new(self) -> Iterator[str]:
        """Put what is new and steady into `submitted/`; yield in words what could not be placed, each once."""
        for entry in sorted(os.scandir(self.folder), key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            look = look_of(Path(entry.path))
            if look and self.taken.get(entry.name) != look and self.steady.is_steady(entry.name, look):
                yield from self.collect_one(Path(entry.path), look)

    def collect_one(self, path: Path, look: Look) -> Iterator[str]:
        """Collect one entry of the folder from a copy of it, in which nothing changes."""
        with tempfile.TemporaryDirectory(dir=self.course.state, prefix="drop-") as scratch:
            copied = guarded(lambda: copy_plain(path, Path(scratch) / path.name))
            if isinstance(copied, Mishap) or look_of(path) != look:
                return  # it changes, or has gone: a later poll sees
            self.taken[path.name] = look
            latest = datetime.fromtimestamp(max(changed for _, _, changed in look) / 1e9, UTC).replace(tzinfo=None)
            try:
                found = collect.collect(
                    Path(scratch), self.course, self.people(), self.stems, self.pattern, None, latest, self.zone,
                    self.is_untouched, self.beside,
                )  # fmt: skip
            except CourseFault as fault:
                yield line(f"{path.name}: {fault}")
                return
        yield from (f"{shown}: {why}" for shown, why in found.left)


def copy_plain(path: Path, goal: Path) -> None:
    """Copy a file or a folder without following any link."""
    if path.is_dir():
        shutil.copytree(path, goal, symlinks=True)
    else:
        shutil.copy2(path, goal, follow_symlinks=False)


def look_of(path: Path) -> Look:
    """Return the names, sizes and times of the files of an entry; nothing if it can't be looked at."""
    with contextlib.suppress(OSError):
        paths = sorted(one for one in path.rglob("*") if not one.is_dir()) if path.is_dir() else [path]
        states = [(one.relative_to(path.parent).as_posix(), one.lstat()) for one in paths]
        return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
    return ()


__all__ = ["Drop", "Steady"]
