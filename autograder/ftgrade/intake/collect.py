"""Files as people and learning platforms hand them over, into `submitted/STUDENT/STEM/`.

A file's path, inside its archives too, tells whose it is and which problem's: a pattern names the parts. What doesn't
fit, or belongs to nobody known, is told and stays where it is. A newer submission takes the place of an older one, that
is kept in `.ftgrade/earlier/`.
"""

import difflib
import os
import re
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dateutil.parser import ParserError
from nbgrader.api import Gradebook
from nbgrader.utils import parse_utc

from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.guard import Mishap, guarded
from ftgrade.intake.archives import ENDINGS, is_archive, unpack
from ftgrade.intake.gate import MAX_FILE_BYTES, line
from ftgrade.moments import parse_time

PATTERNS = {
    "plain": (
        "{student}_{stem}.ipynb",
        "{student}/{deep}{stem}.ipynb",
        "{student}.zip/{deep}{stem}.ipynb",
        "{student}_{any}.zip/{deep}{stem}.ipynb",
    ),
    # `get_filename` and `add_upload_submission` of lib/content_zipper.rb in instructure/canvas-lms: the sortable name
    # in small letters, LATE if it is, the user's number (nbgrader's lms_user_id), the file's number, the file's name.
    "canvas": (
        "{any}{late}_{lms}_{order}_{any}{stem}.ipynb",
        "{any}{late}_{lms}_{order}_{any}.zip/{deep}{any}{stem}.ipynb",
    ),
    # `get_student_prefix` of mod/assign/classes/downloader.php in moodle/moodle, in folders and without; older versions
    # end the folder's name in an underscore. Its number is the assignment's own: only the full name tells who it is.
    "moodle": (
        "{name}_{any}_assignsubmission_file/{deep}{any}{stem}.ipynb",
        "{name}_{any}_assignsubmission_file_/{deep}{any}{stem}.ipynb",
        "{name}_{any}_assignsubmission_file_{any}{stem}.ipynb",
    ),
}
FIELDS = {
    "student": r"(?P<student>[^/]+?)",
    "name": r"(?P<name>[^/_]+?)",
    "lms": r"(?P<lms>\d+)",
    "order": r"(?P<order>\d+)",
    "time": r"(?P<time>\d{4}-?\d\d-?\d\d[ T_-]?\d\d[:.-]?\d\d(?:[:.-]?\d\d)?)",
    "late": r"(?P<late>_LATE)?",
    "any": r"[^/]*?",
    "deep": r"(?:[^/]+/)*?",
}
JUNK = {"__MACOSX", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db"}
COPY = r"(?P<copy>-\d+| ?\(\d+\))?"  # what a browser or a platform adds to a name that it has already


@dataclass(frozen=True, slots=True)
class File:
    """A file that was handed over: its path as a person sees it, archives as folders, and where its bytes are."""

    shown: str
    path: Path


@dataclass(frozen=True, slots=True)
class Identified:
    """Whose file it is and which problem's, when it was handed in (UTC, if known), and what tells copies apart."""

    file: File
    student: str
    stem: str
    time: datetime | None
    order: tuple[int, int]
    marked_late: bool

    @property
    def age(self) -> tuple[datetime, tuple[int, int]]:
        return self.time or datetime.min, self.order


@dataclass(frozen=True, slots=True)
class Taken:
    """A submission that is in its place now: `new`, `replaced` an earlier one, or `unchanged`."""

    student: str
    stem: str
    source: str
    outcome: str
    time: datetime | None
    marked_late: bool


@dataclass(frozen=True, slots=True)
class Collected:
    """What was taken, and what was left where it is, with the reason by path."""

    taken: tuple[Taken, ...]
    left: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class People:
    """The course's students: by id, by their number in the learning platform, by full name."""

    ids: tuple[str, ...]
    by_lms: dict[str, str]
    by_name: dict[str, list[str]]

    def student_of(self, parts: dict[str, str]) -> str:
        """Return the student whom the parts of a path name. Raises CourseFault if that is nobody, or several."""
        if "lms" in parts:
            if parts["lms"] not in self.by_lms:
                raise CourseFault(f"no student's lms_user_id is {parts['lms']}")
            return self.by_lms[parts["lms"]]
        if "name" in parts:
            found = self.by_name.get(normalized(parts["name"]), [])
            if len(found) != 1:
                raise CourseFault(f"{len(found) or 'no'} students are called {parts['name']!r}")
            return found[0]
        if parts["student"] not in self.ids:
            near = difflib.get_close_matches(parts["student"], self.ids, 1)
            raise CourseFault(f"there is no student {parts['student']!r}" + (f": {near[0]}?" if near else ""))
        return parts["student"]


def people(gradebook: Gradebook, course: Course) -> People:
    """Return the students of gradebook and roster. Raises CourseFault if there are none."""
    records: list[Any] = list(gradebook.students)
    ids = dict.fromkeys([*(str(one.id) for one in records), *course.roster()])
    if not ids:
        raise CourseFault("the course has no students yet: make it with `ftgrade new-course DIR --roster CSV`")
    by_name: dict[str, list[str]] = defaultdict(list)
    for one in records:
        for name in {normalized(f"{one.first_name} {one.last_name}"), normalized(f"{one.last_name} {one.first_name}")}:
            by_name[name].append(one.id)
    return People(tuple(ids), {one.lms_user_id: one.id for one in records if one.lms_user_id}, dict(by_name))


def normalized(name: str) -> str:
    """Return a name as it is compared.

    >>> normalized("Zoë_ O'Neil ")
    "zoë o'neil"
    """
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())


# ------------------------------------------------------------------------------------------------------------- reading


def files(source: Path, scratch: Path, left: list[tuple[str, str]]) -> Iterator[File]:
    """Yield the files of a folder or an archive, and of the archives in it, which are unpacked to a scratch folder."""
    if source.is_file() and is_archive(source):
        yield from unpacked_files(source, "", scratch, left)
    elif source.is_dir():
        for folder, names, found in os.walk(source):
            names[:] = sorted(name for name in names if name not in JUNK)
            for path in (Path(folder, name) for name in sorted(found) if name not in JUNK):
                shown = path.relative_to(source).as_posix()
                if path.is_symlink() or not path.is_file():
                    left.append((shown, "not an ordinary file"))
                elif is_archive(path):
                    yield from unpacked_files(path, f"{shown}/", scratch / f"{shown}.d", left)
                else:
                    yield File(shown, path)
    else:
        raise CourseFault(f"{source} is neither a folder nor an archive ({', '.join(ENDINGS)})")


def unpacked_files(archive: Path, above: str, goal: Path, left: list[tuple[str, str]]) -> Iterator[File]:
    """Yield the files of an archive, within the limits of `archives`."""
    goal.mkdir(parents=True, exist_ok=True)
    left += [(f"{above}{name}", why) for name, _, why in (line.partition(": ") for line in unpack(archive, goal))]
    for path in sorted(path for path in goal.rglob("*") if path.is_file()):
        inner = path.relative_to(goal).as_posix()
        if JUNK.isdisjoint(inner.split("/")):
            yield File(above + re.sub(rf"({'|'.join(map(re.escape, ENDINGS))})\.d/", r"\1/", inner), path)


def expressions(pattern: str, stems: Sequence[str], only: str | None, students: Iterable[str]) -> list[re.Pattern[str]]:
    """Return what paths are matched with, the known students first. Raises CourseFault for a pattern of another form.

    >>> (known, anybody) = expressions("{student}-{stem}.ipynb", ["p03_lora"], None, ["a-b"])
    >>> known.fullmatch("week 1/a-b-p03.ipynb").group("student", "stem")
    ('a-b', 'p03')
    """
    names = [name for stem in stems for name in (stem, stem.partition("_")[0])]
    problem = r"[^/]*?" if only else rf"(?P<stem>(?i:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))}))"
    known = "|".join(re.escape(one) for one in sorted(students, key=len, reverse=True))
    made: list[re.Pattern[str]] = []
    for fields in (FIELDS | {"student": f"(?P<student>{known})"}, FIELDS):
        for one in PATTERNS.get(pattern, (pattern,)):
            made.append(expression(one, fields | {"stem": problem}))
            demand_complete(one, only)
    return list(dict.fromkeys(made))


def expression(pattern: str, fields: dict[str, str]) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", pattern)
    if unknown := set(pieces[1::2]) - set(fields):
        raise CourseFault(f"the pattern has {{{min(unknown)}}}; a pattern may have {', '.join(sorted(fields))}")
    texts = [fields[piece] if number % 2 else re.escape(piece) for number, piece in enumerate(pieces)]
    texts[-1] = texts[-1].removesuffix(re.escape(".ipynb"))
    return re.compile(rf"(?:.*/)?{''.join(texts)}{COPY}\.ipynb", re.DOTALL)


def demand_complete(pattern: str, only: str | None) -> None:
    """Raise CourseFault unless a pattern tells who and what."""
    who = any(f"{{{name}}}" in pattern for name in ("student", "name", "lms"))
    if not who or not pattern.endswith(".ipynb") or not (only or "{stem}" in pattern):
        raise CourseFault(
            f"the pattern {pattern!r} must end in .ipynb, name who handed in ({{student}}, {{name}} or {{lms}}), and "
            f"hold {{stem}}, or `--stem` says which problem it is; known by name: {', '.join(PATTERNS)}"
        )


# ------------------------------------------------------------------------------------------------------------- sorting


def identify(
    file: File, matchers: Sequence[re.Pattern[str]], known: People, stems: Sequence[str], only: str | None, zone: str
) -> Identified:
    """Return whose file it is. Raises CourseFault with the reason why it can't be told."""
    if not file.shown.lower().endswith(".ipynb"):
        raise CourseFault("no notebook")
    if file.path.stat().st_size > MAX_FILE_BYTES:
        raise CourseFault(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    match = next(filter(None, (one.fullmatch(unicodedata.normalize("NFC", file.shown)) for one in matchers)), None)
    if match is None:
        raise CourseFault("its name doesn't fit the pattern")
    parts = {name: text for name, text in match.groupdict().items() if text is not None}
    short = parts.get("stem", "").lower()
    stem = only or next(stem for stem in stems if short in (stem, stem.partition("_")[0]))
    time = parse_time(dashed(parts["time"]), zone) if "time" in parts else None
    order = (int(parts.get("order", 0)), int(re.sub(r"\D", "", parts.get("copy", "")) or 0))
    return Identified(file, known.student_of(parts), stem, time, order, "late" in parts)


def dashed(text: str) -> str:
    """Return a time as it stands in file names in the form that we read.

    >>> dashed("2026-01-30-10-30-10"), dashed("20260130T1030"), dashed("2026-01-30 10:30")
    ('2026-01-30T10:30:10', '2026-01-30T10:30', '2026-01-30T10:30')
    """
    digits = re.sub(r"\D", "", text)
    clock = ":".join(re.findall("..", digits[8:]))
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{clock}"


def newest(several: Sequence[Identified], left: list[tuple[str, str]]) -> Identified | None:
    """Return the newest of a student's files for a problem; tell of the others, and of all where none is the newest."""
    last = max(several, key=lambda one: one.age)
    rivals = [
        one for one in several if one.age == last.age and one.file.path.read_bytes() != last.file.path.read_bytes()
    ]
    for one in several:
        if rivals:
            left.append((one.file.shown, f"one of several for {one.student}, {one.stem}, and none is told to be newer"))
        elif one is not last:
            left.append((one.file.shown, f"older than {last.file.shown}, or the same"))
    return None if rivals else last


# ------------------------------------------------------------------------------------------------------------- placing


def collect(
    source: Path,
    course: Course,
    known: People,
    stems: Sequence[str],
    pattern: str = "plain",
    only: str | None = None,
    at: datetime | None = None,
    zone: str = "UTC",
) -> Collected:
    """Put the notebooks of a folder or an archive into their places.

    `only` is the problem that all of them belong to, `at` the time (UTC) of those whose path tells none.
    """
    matchers = expressions(pattern, stems, only, known.ids)
    left: list[tuple[str, str]] = []
    by_place: dict[tuple[str, str], list[Identified]] = defaultdict(list)
    taken: list[Taken] = []
    with tempfile.TemporaryDirectory(dir=course.state, prefix="collect-") as scratch:
        for file in files(source, Path(scratch), left):
            try:
                one = guarded(lambda file=file: identify(file, matchers, known, stems, only, zone))
            except CourseFault as fault:
                left.append((file.shown, str(fault)))
                continue
            if isinstance(one, Mishap):
                left.append((file.shown, one.words))
            else:
                by_place[one.student, one.stem].append(one)
        for _, several in sorted(by_place.items()):
            done = guarded(lambda several=several: place_newest(several, at, course, left))
            if isinstance(done, Mishap):
                left.append((several[0].file.shown, f"it could not be put in its place: {done.words}"))
            else:
                taken += done
    return Collected(tuple(taken), tuple(sorted((line(path), line(why)) for path, why in left)))


def place_newest(
    several: Sequence[Identified], at: datetime | None, course: Course, left: list[tuple[str, str]]
) -> list[Taken]:
    """Put the newest of a student's files for a problem in its place; return what became of it."""
    one = newest(several, left)
    return [] if one is None else list(place(one, one.time or at, course, left))


def place(one: Identified, time: datetime | None, course: Course, left: list[tuple[str, str]]) -> Iterator[Taken]:
    """Yield what became of a file: nothing if what is there is newer."""
    goal, aside = course.notebook(one.student, one.stem), course.state / "earlier" / one.stem / one.student
    data, there = one.file.path.read_bytes(), time_handed_in(goal.parent)
    if goal.is_file() and not goal.is_symlink() and goal.read_bytes() == data and time in (None, there):
        outcome = "unchanged"
    elif there is not None and time is not None and time < there:
        return left.append((one.file.shown, f"older than what {one.student} handed in already, at {there} UTC"))
    elif time is None and any(path.read_bytes() == data for path in aside.glob(f"*/{goal.name}")):
        return left.append((one.file.shown, "it was replaced by what is there now: `--at TIME` takes it again"))
    else:
        outcome = "replaced" if move_earlier_aside(goal.parent, aside) else "new"
        goal.parent.mkdir(parents=True)
        if time is not None:
            (goal.parent / "timestamp.txt").write_text(f"{time} UTC\n", "utf-8")
        goal.write_bytes(data)
    yield Taken(one.student, one.stem, one.file.shown, outcome, time, one.marked_late)


def time_handed_in(folder: Path) -> datetime | None:
    """Return when a submission that is there was handed in (UTC), as far as its time stamp tells."""
    try:
        return parse_utc((folder / "timestamp.txt").read_text("utf-8").strip())
    except (OSError, ValueError, OverflowError, ParserError):
        return None


def move_earlier_aside(folder: Path, aside: Path) -> bool:
    """Move an earlier submission to the next free number; say whether there was one."""
    if not folder.exists() and not folder.is_symlink():
        return False
    aside.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in aside.iterdir() if path.name.isdecimal()]
    folder.rename(aside / str(max(taken, default=0) + 1))
    return True


__all__ = ["PATTERNS", "Collected", "People", "Taken", "collect", "people"]
