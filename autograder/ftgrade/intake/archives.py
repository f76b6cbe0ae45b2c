"""Unpack archives that people hand in: ordinary files only, within limits on number, bytes, ratio and depth."""

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from nbgrader.plugins.zipcollect import ExtractorPlugin

from ftgrade.guard import Mishap, guarded
from ftgrade.intake.gate import MAX_FILE_BYTES

MAX_FILES = 2_000
MAX_BYTES = 500 * 2**20
MAX_RATIO = 200
MAX_DEPTH = 2
CHUNK = 2**16
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
ARCHIVE_ERRORS = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError,
    zlib.error, lzma.LZMAError,
)  # fmt: skip


@dataclass(slots=True)
class Quota:
    """How much may still be unpacked from one archive and the archives inside it: files, and bytes of `data`."""

    files: int = MAX_FILES
    data: int = MAX_BYTES


@dataclass(frozen=True, slots=True)
class Member:
    """One ordinary file in an archive."""

    name: str
    archive: Any
    entry: Any

    def open(self) -> IO[bytes] | None:
        if isinstance(self.archive, zipfile.ZipFile):
            return self.archive.open(self.entry)
        return self.archive.extractfile(self.entry)


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def unpack(path: Path, goal: Path, room: Quota | None = None, depth: int = 0) -> list[str]:
    """Unpack an archive, and the archives in it, below a folder; return a line for each file left out, with the reason.

    Links, devices, names that lead out of the folder and files beyond a limit are left out. No content of an archive
    raises an exception.
    """
    room = room or Quota()
    allowed = max(CHUNK, MAX_RATIO * path.stat().st_size)
    left: list[str] = []
    try:
        is_zip = path.name.lower().endswith(".zip")
        with zipfile.ZipFile(path) if is_zip else tarfile.open(path) as archive:
            for member in members(archive):
                taken = guarded(lambda member=member: write_member(member, goal, room, allowed))
                words = taken.words if isinstance(taken, Mishap) else taken
                target = goal / safe_path(member.name) if not words else None
                if target is not None and is_archive(target):
                    left += unpack_nested(target, room, depth)
                elif words:
                    left.append(f"{member.name[:100]}: {words}")
    except ARCHIVE_ERRORS as error:
        left.append(f"{path.name}: not a whole archive ({type(error).__name__})")
    return left


def unpack_nested(target: Path, room: Quota, depth: int) -> list[str]:
    if depth + 1 >= MAX_DEPTH:
        return [f"{target.name}: an archive in an archive in an archive stays packed"]
    left = unpack(target, target.with_name(f"{target.name}.d"), room, depth + 1)
    target.unlink()
    return left


def members(archive: Any) -> Iterator[Member]:
    """Yield the ordinary files of an archive, one at a time."""
    if isinstance(archive, zipfile.ZipFile):
        for entry in archive.infolist():
            link = (entry.external_attr >> 16) & 0o170000 == 0o120000
            if not entry.is_dir() and not link:
                yield Member(entry.filename, archive, entry)
    else:
        for entry in archive:
            if entry.isreg():
                yield Member(entry.name, archive, entry)


def safe_path(name: str) -> PurePosixPath:
    """Return a member's name as a relative path. Raises ValueError if it would lead out of the folder.

    >>> safe_path("a/b.ipynb")
    PurePosixPath('a/b.ipynb')
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name or not path.parts or len(name) > 500:
        raise ValueError("its name leads out of the folder")
    return path


def write_member(member: Member, goal: Path, room: Quota, allowed: int) -> str:
    """Write one file, counting the bytes really unpacked; return why it was left out, or an empty text."""
    try:
        path = goal / safe_path(member.name)
    except ValueError as error:
        return str(error)
    if room.files <= 0:
        return f"more than {MAX_FILES:,} files"
    room.files -= 1
    most = min(room.data, allowed, MAX_FILE_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        if source is None or path.exists():
            return "its name occurs twice" if path.exists() else "it can't be read"
        with source, path.open("xb") as file:
            written = 0
            while chunk := source.read(CHUNK):
                written += len(chunk)
                if written > most:
                    break
                file.write(chunk)
        room.data -= min(written, most)
    except ARCHIVE_ERRORS as error:
        path.unlink(missing_ok=True)
        return f"it can't be read ({type(error).__name__})"
    if written > most:
        path.unlink(missing_ok=True)
        return "too large, or packed too tightly to be honest"
    return ""


class BoundedExtractor(ExtractorPlugin):
    """Apply these limits in nbgrader's `zip_collect`; files left out are logged and don't stop the others."""

    def extract(self, archive_path: str, extracted_path: str) -> None:
        source, goal = Path(archive_path), Path(extracted_path)
        for folder, _, names in os.walk(source):
            place = goal / Path(folder).relative_to(source)
            place.mkdir(parents=True, exist_ok=True)
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file():
                    self.log.warning("%s: not an ordinary file, left out", path)
                elif is_archive(path):
                    stem = name[: -len(next(end for end in ENDINGS if name.lower().endswith(end)))]
                    for line in unpack(path, place / stem):
                        self.log.warning("%s: %s", path, line)
                else:
                    shutil.copy(path, place / name, follow_symlinks=False)


__all__ = ["BoundedExtractor", "Quota", "safe_path", "unpack"]
