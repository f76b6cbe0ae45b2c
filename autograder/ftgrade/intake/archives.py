"""Unpack archives that people hand in: ordinary files only, within limits on number, bytes, ratio, depth and time."""

import contextlib
import itertools
import json
import lzma
import os
import re
import secrets
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from nbgrader.plugins.zipcollect import ExtractorPlugin

from ftgrade.guard import Mishap, guarded
from ftgrade.intake.gate import MAX_FILE_BYTES, line

MAX_FILES = 2_000
MAX_BYTES = 500 * 2**20
MAX_ENTRIES = 200_000
MAX_SECONDS, MAX_INNER_SECONDS, MAX_MEMORY = 300, 30, 512 * 2**20  # an inner archive is one student's
PARTIAL = f".{secrets.token_hex(8)}.partial"  # no name in an archive can end so
MAX_RATIO = 200
CHUNK = 2**16
UTF8_FLAG = 0x800  # of a zip archive's entry
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
ARCHIVE_ERRORS = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError,
    zlib.error, lzma.LZMAError,
)  # fmt: skip


@dataclass(slots=True)
class Quota:
    """How much may still be unpacked of one student: files, and bytes of `data`.

    In the archive of a class, what belongs to one student lies below one name.
    """

    files: int = MAX_FILES
    data: int = MAX_BYTES


Unpacked = tuple[list[str], list[tuple[str, str]]]
"""A line for each file left out, and the path and owner of each archive that came out."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive; one that isn't `ordinary` is a link, a device or a pipe, and is never opened."""

    name: str
    archive: Any
    entry: Any
    ordinary: bool = True

    def open(self) -> IO[bytes] | None:
        if isinstance(self.archive, zipfile.ZipFile):
            return self.archive.open(self.entry)
        return self.archive.extractfile(self.entry)


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def unpack(path: Path, goal: Path) -> list[str]:
    """Unpack an archive, and the archives in it, below a folder; return a line for each file left out, with the reason.

    Links, devices, names that lead out of the folder and files beyond a limit are left out. No content of an archive
    raises an exception. Each archive, also one inside another, is read in a process of its own with limits of memory
    and time, where the system can fork.
    """
    rooms: dict[str, Quota] = defaultdict(Quota)
    left, inner = unpack_bounded(path, goal, rooms, "", MAX_SECONDS)
    for name, owner in inner:
        target = goal / name
        told, deeper = unpack_bounded(target, target.with_name(f"{target.name}.d"), rooms, owner, MAX_INNER_SECONDS)
        left += told
        left += [f"{Path(one).name}: an archive in an archive in an archive stays packed" for one, _ in deeper]
        target.unlink()
    return [line(words) for words in left]


def unpack_bounded(path: Path, goal: Path, rooms: dict[str, Quota], owner: str, seconds: int) -> Unpacked:
    """Return what `unpack_here` does, from a process with limits; what its owner has left is noted in `rooms`."""
    if not hasattr(os, "fork"):
        return unpack_here(path, goal, rooms, owner)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.suppress(BaseException), os.fdopen(writing, "w", encoding="utf-8") as pipe:
            limit_process(seconds)
            found = unpack_here(path, goal, rooms, owner)
            pipe.write(json.dumps([found, {name: [room.files, room.data] for name, room in rooms.items()}]))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    for partial in goal.rglob(f"*{PARTIAL}"):
        partial.unlink()
    try:
        (left, inner), used = json.loads(told)
    except ValueError:
        rooms[owner].files = rooms[owner].data = 0
        words = "reading it took more time or memory than an honest archive takes; what came out is kept"
        return [f"{path.name}: {words}"], []
    for name, room in used.items():
        rooms[name].files, rooms[name].data = room
    return left, [(name, whose) for name, whose in inner]


def limit_process(seconds: int) -> None:
    """Limit this process's memory and processor time."""
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if sys.platform == "linux":
        held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()  # data and stack
        resource.setrlimit(resource.RLIMIT_DATA, (held + MAX_MEMORY, held + MAX_MEMORY))


def unpack_here(path: Path, goal: Path, rooms: dict[str, Quota], owner: str) -> Unpacked:
    """Unpack an archive in this process, without the archives in it.

    The outermost name inside, or `owner` in an inner archive, says whose quota in `rooms` is used up.
    """
    allowed = max(CHUNK, MAX_RATIO * path.stat().st_size)
    left: list[str] = []
    inner: list[tuple[str, str]] = []
    try:
        is_zip = path.name.lower().endswith(".zip")
        with zipfile.ZipFile(path) if is_zip else tarfile.open(path) as archive:
            found = list(itertools.islice(members(archive), MAX_ENTRIES + 1))
            if len(found) > MAX_ENTRIES:
                left.append(f"{path.name}: it has more than {MAX_ENTRIES:,} entries; the rest is left out")
            names = outermost_names([member.name for member in found])
            for member, name in zip(found[:MAX_ENTRIES], names, strict=False):
                if not member.ordinary:
                    left.append(f"{member.name[:100]}: not an ordinary file")
                    continue
                room = rooms[owner or name]
                taken = guarded(lambda member=member, room=room: write_member(member, goal, room, allowed))
                words = taken.words if isinstance(taken, Mishap) else taken
                if words:
                    left.append(f"{member.name[:100]}: {words}")
                elif is_archive(goal / safe_path(member.name)):
                    inner.append((str(safe_path(member.name)), owner or name))
    except (MemoryError, *ARCHIVE_ERRORS) as error:
        left.append(f"{path.name}: not a whole archive ({type(error).__name__}): {broken_words(path)}")
    return left, inner


def outermost_names(names: list[str]) -> list[str]:
    """Return the outermost folder or file of each name, without a folder that holds all of them.

    >>> outermost_names(["all/ada/p.ipynb", "all/bob/x/p.ipynb"]), outermost_names(["ada.zip", "bob/p.ipynb"])
    (['ada', 'bob'], ['ada.zip', 'bob'])
    """
    parts = [[*PurePosixPath(name.replace("\\", "/")).parts, ""] for name in names]
    wrapped = len({one[0] for one in parts}) == 1 and all(len(one) > 2 for one in parts)
    return [one[1 if wrapped else 0] for one in parts]


def members(archive: Any) -> Iterator[Member]:
    """Yield the files of an archive, one at a time; folders are left out."""
    if isinstance(archive, zipfile.ZipFile):
        for entry in archive.infolist():
            link = (entry.external_attr >> 16) & 0o170000 == 0o120000
            if not entry.is_dir():
                yield Member(zip_name(entry), archive, entry, not link)
    else:
        for entry in archive:
            if not entry.isdir():
                yield Member(entry.name, archive, entry, entry.isreg())


def zip_name(entry: zipfile.ZipInfo) -> str:
    """Return the name of a file in a zip archive, also where it is in UTF-8 and the archive doesn't say so.

    A name that isn't marked as UTF-8 counts as code page 437, in which text of other languages is seldom valid UTF-8.
    """
    if entry.flag_bits & UTF8_FLAG or entry.filename.isascii():
        return entry.filename
    with contextlib.suppress(UnicodeError):
        return entry.filename.encode("cp437").decode("utf-8")
    return entry.filename


def safe_path(name: str) -> PurePosixPath:
    """Return a member's name as a relative path. Raises ValueError if it would lead out of the folder.

    A colon is part of a name, as in the times of nbgrader's exchange, unless it makes a drive's letter; on Windows it
    always means something else.

    >>> safe_path("a/b.ipynb"), safe_path("ada+p03+10:30:10/p03.ipynb").parts[0]
    (PurePosixPath('a/b.ipynb'), 'ada+p03+10:30:10')
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts or len(name) > 500:
        raise ValueError("its name leads out of the folder")
    if re.match(r"[A-Za-z]:", name) or (":" in name and os.name == "nt"):
        raise ValueError("its name begins with a drive's letter" if os.name != "nt" else "its name holds a colon")
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
        partial = path.with_name(path.name[:100] + PARTIAL)
        with source, partial.open("wb") as file:
            written = 0
            while chunk := source.read(CHUNK):
                written += len(chunk)
                if written > most:
                    break
                file.write(chunk)
        room.data -= min(written, most)
        if written <= most:
            partial.rename(path)
            return ""
    except ARCHIVE_ERRORS as error:
        return unread_words(error)
    return "too large, or packed too tightly to be honest"


def unread_words(error: BaseException) -> str:
    """Return why a file of an archive was left out, with the next step where there is one.

    >>> unread_words(NotImplementedError("That compression method is not supported"))
    "it is packed in a way that isn't opened here: unpack the archive yourself, and collect the folder"
    """
    if isinstance(error, NotImplementedError):
        return "it is packed in a way that isn't opened here: unpack the archive yourself, and collect the folder"
    if isinstance(error, RuntimeError) and "password" in str(error):
        return "it is locked with a password: unpack the archive yourself, or ask for one without"
    if isinstance(error, OSError) and error.strerror:
        return f"it can't be written: {error.strerror}"
    return f"it can't be read ({type(error).__name__})"


def broken_words(path: Path) -> str:
    """Return what an archive that can't be read seems to be, and the next step."""
    with path.open("rb") as file:
        start = file.read(100).lstrip()
    if start.startswith(b"<"):
        return "it is a web page, perhaps one that asks to sign in; sign in and download it again"
    return "it is empty; download it again" if not start else "download or ask for it again"


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
