"""Collect the files that people and learning platforms hand over into `submitted/STUDENT/STEM/`.

A pattern says which parts of a file's path, archives included, name the student and the problem. A file that doesn't
fit or belongs to no known student is reported and left where it is. A newer submission replaces an older one, which
is moved to `.ftgrade/earlier/`.
"""

import contextlib
import dataclasses
import difflib
import functools
import os
import re
import tempfile
import types
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook

from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.guard import Mishap, guarded
from ftgrade.intake.archives import ENDINGS, is_archive, unpack
from ftgrade.intake.gate import MAX_FILE_BYTES, line
from ftgrade.intake.hints import anonymous_words, misfit_words, no_notebook_words, other_name_words
from ftgrade.intake.names import COPY_OF, MARK, names_notebook
from ftgrade.moments import parse_time, read_stamp

PATTERNS = {
    "plain": (
        "{student}_{stem}.ipynb",
        "{student}/{deep}{stem}.ipynb",
        "{student}.zip/{deep}{stem}.ipynb",
        "{student}_{any}.zip/{deep}{stem}.ipynb",
    ),
    # `get_filename` and `add_upload_submission` of lib/content_zipper.rb in instructure/canvas-lms: the sortable name
    # in lower case, LATE if it is late, the user's number (nbgrader's lms_user_id), the file's number and name.
    "canvas": (
        "{any}{late}_{lms}_{order}_{any}{stem}.ipynb",
        "{any}{late}_{lms}_{order}_{any}.zip/{deep}{any}{stem}.ipynb",
    ),
    # `get_student_prefix` of mod/assign/classes/downloader.php in moodle/moodle, in folders or not; older versions
    # end a folder's name in an underscore. The number is the assignment's, so only the full name identifies a student.
    "moodle": (
        "{name}_{any}_assignsubmission_file/{deep}{any}{stem}.ipynb",
        "{name}_{any}_assignsubmission_file_/{deep}{any}{stem}.ipynb",
        "{name}_{any}_assignsubmission_file_{any}{stem}.ipynb",
    ),
    # Blackboard's "Assignment File Download": the assignment, the user name, the attempt's time, the file's name.
    "blackboard": (
        "{title}_{student}_attempt_{time}_{any}{stem}.ipynb",
        "{title}_{student}_attempt_{time}_{any}.zip/{deep}{any}{stem}.ipynb",
    ),
    # Brightspace: two internal numbers, the full name and the time of each submission name a folder.
    "brightspace": ("{any} - {name} - {date}/{deep}{any}{stem}.ipynb",),
    # Gradescope's export of a programming assignment: `submission_metadata.yml` tells whose a number is.
    "gradescope": ("submission_{submission}/{deep}{any}{stem}.ipynb",),
    # Google Classroom names each student's copy in Drive by the full name.
    "google": ("{name} - {any}{stem}.ipynb",),
    # GitHub Classroom names a repository by the assignment and the user; GitHub's archives add the branch.
    "github": ("{slug}-{student}/{deep}{stem}.ipynb", "{slug}-{student}-{branch}/{deep}{stem}.ipynb"),
    # Sakai: the sortable name with the user's id, and a folder of attachments.
    "sakai": ("{any}({student})/Submission attachment(s)/{deep}{any}{stem}.ipynb",),
    # ILIAS: last name, first name, login and a number.
    "ilias": ("{any}_{student}_{order}/{deep}{any}{stem}.ipynb", "{any}_{student}/{deep}{any}{stem}.ipynb"),
}
STRICT = frozenset(PATTERNS.keys() - {"plain", "google"})
"""The platforms that name a folder or an archive after whoever handed it in, so that a stranger's is nobody else's."""
GROUPS = "-submissions"
"""How GitHub Classroom's command line ends the name of the folder that holds all repositories of an assignment."""
WHO = ("student", "name", "lms", "submission")
"""The fields that tell who handed in."""
FIELDS = {
    "student": r"(?P<student>[^/]+?)",
    "name": r"(?P<name>[^/_]+?)",
    "lms": r"(?P<lms>\d+)",
    "order": r"(?P<order>\d+)",
    "time": r"(?P<time>\d{4}-?\d\d-?\d\d[ T_-]?\d\d[:.-]?\d\d(?:[:.-]?\d\d)?)"
    r"(?=(?P<utc>(?:\.\d+)?(?: ?UTC|Z)(?![A-Za-z0-9]))?)",
    "date": r"(?P<date>[A-Z][a-z]{2} \d{1,2}, \d{4} \d{1,2}:?\d\d [AP]M)",
    "submission": r"(?P<submission>\d+)",
    "branch": r"(?:main|master)",
    "slug": r"(?P<slug>[^/]+?)",
    "title": r"(?P<slug>(?:(?!_attempt_\d{4}-)[^/])*?)",
    "late": r"(?P<late>_LATE)?",
    "any": r"[^/]*?",
    "deep": r"(?:[^/]+/)*?",
}
IsUntouched = Callable[[str, bytes], bool]
JUNK = {"__MACOSX", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db"}
COPY = rf"(?P<copy>{MARK}*)(?P<again>-\d+)?"
"""What marks a copy, and then what a platform adds to a file that is handed in again."""
NOTEBOOK = r"(?i:(?:\.ipynb)+(?:\.txt|\.json)?)"
CLOSED_ARCHIVES = (".rar", ".7z")
METADATA = "submission_metadata.yml"
INSIDE_A_SUBMISSION = re.compile(r"(?:^|/)submission_\d[^/]*/")
MAX_TRIED = 200
"""Files of a download of which none fits that are tried with the patterns of the other platforms."""
DROPPED = re.compile(r"[&<>\"`|':\\/\u2019]")
"""What a platform leaves out of names that become paths, as `clean_param` of moodle/moodle does: O'Neil is ONeil."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that was handed over: the path as shown to people, with archives as folders, and the path on the disk."""

    shown: str
    path: Path

    @property
    def folder(self) -> str:
        return self.shown.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.shown.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Identified:
    """A file's student and problem, when it was handed in (UTC, if known), and the order of its copies."""

    file: File
    student: str
    stem: str
    time: datetime | None
    order: tuple[int, ...]
    marked_late: bool
    beside: tuple[File, ...] = ()
    """What a project takes besides the notebook, out of the same folder or archive."""

    @property
    def contents(self) -> dict[str, bytes]:
        """Return the files that are put in place, by the names that they get."""
        notebook = {f"{self.stem}.ipynb": self.file.path.read_bytes()}
        return notebook | {file.name: file.path.read_bytes() for file in self.beside}

    @property
    def age(self) -> tuple[datetime, tuple[int, ...]]:
        return self.time or datetime.min, self.order


@dataclass(frozen=True, slots=True)
class Taken:
    """A submission that is now in its place; `outcome` is `new`, `replaced` (an earlier one) or `unchanged`."""

    student: str
    stem: str
    source: str
    outcome: str
    time: datetime | None
    marked_late: bool


@dataclass(frozen=True, slots=True)
class Collected:
    """The submissions taken, and (path, reason) of each file that was left where it is.

    `hint` names the platform whose names fit, where the chosen pattern fits none.
    """

    taken: tuple[Taken, ...]
    left: tuple[tuple[str, str], ...]
    hint: str = ""


@dataclass(frozen=True, slots=True)
class People:
    """The course's students: their ids, and the ids by learning platform's number and by full name."""

    ids: tuple[str, ...]
    by_lms: dict[str, str]
    by_name: dict[str, list[str]]
    by_email: dict[str, str] = field(default_factory=dict[str, str])
    submitters: dict[str, list[dict[str, str]]] = field(default_factory=dict[str, list[dict[str, str]]])
    """Of Gradescope's export: who handed in a submission, by its number; each with sid, email, name and time."""

    def submitter(self, number: str) -> str:
        """Return who handed in one of Gradescope's submissions. Raises CourseFault unless there is exactly one."""
        found = self.submitters.get(number, [])
        if len(found) != 1:
            raise CourseFault(f"{METADATA} names {len(found) or 'no'} students for submission_{number}")
        (one,) = found
        known = composed_names(self.ids)
        sid = unicodedata.normalize("NFC", one["sid"])
        if sid in known:
            return known[sid]
        if one["email"].casefold() in self.by_email:
            return self.by_email[one["email"].casefold()]
        return self.student_of({"name": one["name"]})

    def submission_time(self, number: str) -> datetime | None:
        """Return when one of Gradescope's submissions was created (UTC), if the export tells."""
        told = next((one["time"] for one in self.submitters.get(number, []) if one["time"]), "")
        with contextlib.suppress(CourseFault):
            return parse_time(told, "UTC")
        return None

    def student_of(self, parts: dict[str, str]) -> str:
        """Return the student that the parts of a path identify. Raises CourseFault unless there is exactly one."""
        if "submission" in parts:
            return self.submitter(parts["submission"])
        if "lms" in parts:
            if parts["lms"] not in self.by_lms:
                raise CourseFault(f"no student's lms_user_id is {parts['lms']}")
            return self.by_lms[parts["lms"]]
        if "name" in parts:
            found = self.by_name.get(normalized(parts["name"]), [])
            if len(found) != 1:
                words = f"{len(found) or 'no'} students are called {parts['name']!r}"
                raise CourseFault(words + anonymous_words(parts["name"], lambda name: normalized(name) in self.by_name))
            return found[0]
        composed = composed_names(self.ids)
        if parts["student"] not in composed:
            text = parts["student"]
            near = difflib.get_close_matches(text, composed, 1)
            owners = {"address": self.by_email.get(text.casefold()), "name": self.one_called(text)}
            words = other_name_words(owners) or (f": {near[0]}?" if near else "")
            raise CourseFault(f"there is no student {text!r}{words}")
        return composed[parts["student"]]

    def one_called(self, name: str) -> str | None:
        """Return the only student of this full name, if there is one."""
        found = self.by_name.get(normalized(name), [])
        return found[0] if len(found) == 1 else None

    def owner_of(self, parts: dict[str, str]) -> str:
        """Return what `student_of` does, also for an id in another case or with invisible characters."""
        alike = [one for one in self.ids if folded(one) == folded(parts.get("student", ""))]
        return alike[0] if len(alike) == 1 else self.student_of(parts)


def folded(text: str) -> str:
    """Return a name without what the eye doesn't tell apart: case, spaces around it, invisible characters.

    >>> folded(" Ada\u200b")
    'ada'
    """
    seen = (one for one in unicodedata.normalize("NFKC", text) if unicodedata.category(one) not in ("Cf", "Cc"))
    return "".join(seen).strip().casefold()


def people(gradebook: Gradebook, course: Course) -> People:
    """Return the students of the gradebook and the roster. Raises CourseFault if there are none."""
    records: list[Any] = list(gradebook.students)
    ids = dict.fromkeys([*(str(one.id) for one in records), *course.roster()])
    if not ids:
        raise CourseFault("the course has no students yet: make it with `ftgrade new-course DIR --roster CSV`")
    by_name: dict[str, list[str]] = defaultdict(list)
    for one in records:
        for name in {normalized(f"{one.first_name} {one.last_name}"), normalized(f"{one.last_name} {one.first_name}")}:
            by_name[name].append(one.id)
    numbers = {one.lms_user_id: one.id for one in records if one.lms_user_id}
    addresses = Counter(one.email.casefold() for one in records if one.email)
    by_email = {one.email.casefold(): one.id for one in records if one.email and addresses[one.email.casefold()] == 1}
    return People(tuple(ids), numbers, dict(by_name), by_email)


@functools.lru_cache(maxsize=4)
def composed_names(ids: tuple[str, ...]) -> dict[str, str]:
    """Return the ids by their composed form (NFC): a Mac writes the letters of file names in parts."""
    return {unicodedata.normalize("NFC", one): one for one in ids}


def normalized(name: str) -> str:
    """Return a name in the form in which names are compared.

    >>> normalized("Zoë_ O'Neil "), normalized("Zoë ONeil")
    ('zoë oneil', 'zoë oneil')
    """
    plain = DROPPED.sub("", unicodedata.normalize("NFC", name)).casefold()
    return " ".join(plain.replace("_", " ").replace(",", " ").split())


# ------------------------------------------------------------------------------------------------------------- reading


def files(source: Path, scratch: Path, left: list[tuple[str, str]]) -> Iterator[File]:
    """Yield the files of a folder or archive; unpack archives into a scratch folder. Raises CourseFault for others."""
    if source.is_file() and is_archive(source):
        yield from unpacked_files(source, "", scratch, left)
    elif source.is_file() and names_notebook(source.name):
        yield File(source.name, source)
    elif source.is_dir():
        for folder, names, found in os.walk(source):
            names[:] = sorted(name for name in names if name not in JUNK)
            for path in (Path(folder, name) for name in sorted(found) if not is_junk(name)):
                shown = path.relative_to(source).as_posix()
                if path.is_symlink() or not path.is_file():
                    left.append((shown, "not an ordinary file"))
                elif is_archive(path):
                    yield from unpacked_files(path, f"{shown}/", scratch / f"{shown}.d", left)
                else:
                    yield File(shown, path)
    elif source.name.lower().endswith(CLOSED_ARCHIVES) and source.exists():
        raise CourseFault(f"{source} is {closed_archive(source.name)}")
    else:
        what = "isn't there" if not source.exists() else "is neither a folder nor a notebook nor an archive"
        raise CourseFault(f"{source} {what}: name a folder, an .ipynb or one of {', '.join(ENDINGS)}")


def is_junk(name: str) -> bool:
    """Say whether a file is a system's own; `._NAME` is what macOS notes of NAME on other file systems."""
    return name in JUNK or name.startswith("._")


def closed_archive(name: str) -> str:
    """Say of an archive that isn't opened here how to go on."""
    folder, ending = os.path.splitext(name)
    return f"an archive ({ending}) that isn't opened here: unpack it into a folder {folder}, or ask for a .zip"


def unpacked_files(archive: Path, above: str, goal: Path, left: list[tuple[str, str]]) -> Iterator[File]:
    """Unpack an archive within its limits and yield its files, with paths below `above`."""
    goal.mkdir(parents=True, exist_ok=True)
    told = guarded(lambda: unpack(archive, goal))
    if isinstance(told, Mishap):
        left.append((above or archive.name, f"it can't be unpacked: {told.words}"))
        return
    left += [(f"{above}{name}", why) for name, _, why in (words.partition(": ") for words in told)]
    for path in sorted(path for path in goal.rglob("*") if path.is_file()):
        inner = path.relative_to(goal).as_posix()
        if not any(map(is_junk, inner.split("/"))):
            yield File(above + re.sub(rf"({'|'.join(map(re.escape, ENDINGS))})\.d/", r"\1/", inner), path)


def expressions(pattern: str, stems: Sequence[str], only: str | None, students: Iterable[str]) -> list[re.Pattern[str]]:
    """Return the regular expressions of a pattern: first with the known students' ids, then with any text for an id.

    Raises CourseFault for an invalid pattern.

    >>> (known, anybody) = expressions("{student}-{stem}.ipynb", ["p03_lora"], None, ["a-b"])
    >>> known.fullmatch("week 1/a-b-p03.ipynb").group("student", "stem")
    ('a-b', 'p03')
    """
    names = [name for stem in stems for name in (stem, stem.partition("_")[0])]
    either = "|".join(name.replace("_", "[-_ ]") for name in sorted(names, key=len, reverse=True))
    problem = r"[^/]*?" if only else rf"{COPY_OF}(?P<stem>(?i:{either}))"
    known = "|".join(re.escape(one) for one in sorted(students, key=len, reverse=True))
    made: list[re.Pattern[str]] = []
    for fields in (FIELDS | {"student": f"(?P<student>{known})"}, FIELDS):
        for one in PATTERNS.get(pattern, (pattern,)):
            made.append(expression(one, fields | {"stem": problem}))
            demand_complete(one, only)
    return list(dict.fromkeys(made))


def owner_expressions(pattern: str, students: Iterable[str]) -> list[re.Pattern[str]]:
    """Return the regular expressions for a folder or an archive that names its student as the pattern does.

    >>> (known, anybody) = owner_expressions("{student}-{stem}.ipynb", ["a-b"])
    >>> known.fullmatch("a-b-work.zip").group("student")
    'a-b'
    """
    known = "|".join(re.escape(one) for one in sorted(students, key=len, reverse=True))
    endings = "|".join(map(re.escape, ENDINGS))
    made: list[re.Pattern[str]] = []
    for fields in (FIELDS | {"student": f"(?P<student>{known})"}, FIELDS):
        for one in PATTERNS.get(pattern, (pattern,)):
            piece = next(piece for piece in one.split("/") if re.search(rf"\{{({'|'.join(WHO)})\}}", piece))
            text = pattern_text(re.sub(r"\.(ipynb|zip)$", "", piece), fields | {"stem": FIELDS["any"], "deep": ""})
            made.append(re.compile(rf"{text}(?:{endings})?", re.DOTALL))
    return list(dict.fromkeys(made))


def expression(pattern: str, fields: dict[str, str]) -> re.Pattern[str]:
    folders, slash, name = pattern.rpartition("/")
    text = pattern_text(name, fields).removesuffix(re.escape(".ipynb"))
    return re.compile(rf"(?:.*/)?{pattern_text(folders + slash, fields)}{COPY_OF}{text}{COPY}{NOTEBOOK}", re.DOTALL)


def pattern_text(pattern: str, fields: dict[str, str]) -> str:
    """Return a pattern as the text of a regular expression. Raises CourseFault for an unknown field."""
    pieces = re.split(r"\{(\w+)\}", pattern)
    if unknown := set(pieces[1::2]) - set(fields):
        raise CourseFault(f"the pattern has {{{min(unknown)}}}; a pattern may have {', '.join(sorted(fields))}")
    return "".join(fields[piece] if number % 2 else re.escape(piece) for number, piece in enumerate(pieces))


def demand_complete(pattern: str, only: str | None) -> None:
    """Raise CourseFault unless a pattern identifies the student and the problem."""
    named = any(f"{{{name}}}" in pattern for name in WHO)
    if not named or not pattern.endswith(".ipynb") or not (only or "{stem}" in pattern):
        raise CourseFault(
            f"the pattern {pattern!r} must end in .ipynb, name who handed in ({{student}}, {{name}} or {{lms}}), and "
            f"hold {{stem}}, or `--stem` says which problem it is; known by name: {', '.join(PATTERNS)}"
        )


# ------------------------------------------------------------------------------------------------------------- sorting


@dataclass(frozen=True, slots=True)
class Download:
    """What all files of a download share: how its names are read.

    If it is `strict`, a folder of somebody who isn't in the course is nobody else's. `slugs` are the names of
    assignments that begin the names of repositories, or of files.
    """

    owners: Sequence[re.Pattern[str]]
    known: People
    strict: bool
    slugs: frozenset[str] = frozenset()


def read_download(found: Sequence[File], owners: Sequence[re.Pattern[str]], known: People, strict: bool) -> Download:
    """Return what the files of a download share."""
    paths = [unicodedata.normalize("NFC", file.shown) for file in found]
    matches = (one.fullmatch(name) for path in paths for name in path.split("/") for one in owners)
    slugs = {told["slug"] for match in matches if match and "slug" in (told := match.groupdict())
             and told["student"] in composed_names(known.ids)}  # fmt: skip
    return Download(owners, known, strict, frozenset(slugs))


def students_of(name: str, owners: Sequence[re.Pattern[str]], known: People) -> dict[str, str]:
    """Return the students that a folder's or an archive's name may tell, by the text that tells each."""
    told: dict[str, str] = {}
    for match in filter(None, (one.fullmatch(name) for one in owners)):
        parts = {key: text for key, text in match.groupdict().items() if text is not None}
        with contextlib.suppress(CourseFault):
            told["".join(parts.get(key, "") for key in WHO)] = known.owner_of(parts)
    return told


def identify(
    file: File, matchers: Sequence[re.Pattern[str]], download: Download, stems: Sequence[str], only: str | None,
    zone: str,
) -> Identified:  # fmt: skip
    """Return a file with its student and problem. Raises CourseFault with the reason if they can't be identified."""
    if file.shown.lower().endswith(CLOSED_ARCHIVES):
        raise CourseFault(closed_archive(file.shown.rpartition("/")[2]))
    if not names_notebook(file.shown.rpartition("/")[2]):
        raise CourseFault(no_notebook_words(file.shown.rpartition("/")[2]))
    if file.path.stat().st_size > MAX_FILE_BYTES:
        raise CourseFault(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    path = unicodedata.normalize("NFC", file.shown)
    match = next(filter(None, (one.fullmatch(path) for one in matchers)), None)
    if match is None:
        raise CourseFault(misfit_words(path, stems, only))
    parts = {name: text for name, text in match.groupdict().items() if text is not None}
    short = re.sub(r"[- ]", "_", parts.get("stem", "").lower())
    stem = only or next(stem for stem in stems if short in (stem, stem.partition("_")[0]))
    known = download.known
    time = known.submission_time(parts["submission"]) if "submission" in parts else time_of(parts, zone)
    browsers = [int(number) for number in re.findall(r"\((\d+)\)", parts.get("copy", ""))]
    order = (int(parts.get("order", 0)), int(parts.get("again", "-0")[1:]), *browsers)
    student = known.student_of(parts)
    demand_one_slug(parts, download.slugs)
    if (owner := owner_of(path, download)) not in (None, student):
        raise CourseFault(f"it lies in what {owner} handed in, and is named like {student}'s")
    return Identified(file, student, stem, time, order, "late" in parts)


def demand_one_slug(parts: dict[str, str], slugs: frozenset[str]) -> None:
    """Raise CourseFault if another name makes this one's user unclear: `hw-x-ada` beside `hw-bob`."""
    slug = parts.get("slug", "")
    if shorter := [one for one in slugs if slug.startswith((f"{one}-", f"{one}_"))]:
        short = min(shorter, key=len)
        student = parts["student"]
        raise CourseFault(
            f"it is {slug.removeprefix(short)[1:]}…{student}'s in {short!r}, or {student}'s in {slug!r}; "
            f"if the second, collect what begins with {slug!r} on its own"
        )


def time_of(parts: dict[str, str], zone: str) -> datetime | None:
    """Return the time (UTC) that a path tells, or None."""
    if "time" in parts:
        return parse_time(dashed(parts["time"]), "UTC" if "utc" in parts else zone)
    if "date" in parts:
        return parse_time(iso_time(parts["date"]), zone)
    return None


def iso_time(text: str) -> str:
    """Return Brightspace's English date and time in ISO format, whatever the language of this machine.

    >>> iso_time("Jan 30, 2026 1030 PM"), iso_time("Dec 1, 2026 12:05 AM")
    ('2026-01-30T22:30', '2026-12-01T00:05')
    """
    month, day, year, clock, half = text.replace(",", "").split()
    digits = clock.replace(":", "").zfill(4)
    hour = int(digits[:2]) % 12 + 12 * (half == "PM")
    number = 1 + ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec").index(month)
    return f"{year}-{number:02}-{int(day):02}T{hour:02}:{digits[2:]}"


def read_submitters(found: Sequence[File]) -> dict[str, list[dict[str, str]]]:
    """Return what Gradescope's export tells of who handed in, by the submission's number. Raises CourseFault.

    The file that counts is the outermost one outside all submissions: what stands inside one is a student's.
    """
    import yaml  # no other platform needs it

    named = [
        file for file in found
        if file.shown.rpartition("/")[2] == METADATA and not INSIDE_A_SUBMISSION.search(file.shown)
    ]  # fmt: skip
    if not named:
        raise CourseFault(f"Gradescope's export holds a {METADATA}, which tells whose a submission is: it isn't here")
    path = min(named, key=lambda file: file.shown.count("/")).path
    try:
        told = yaml.safe_load(path.read_text("utf-8"))
        return {
            str(name).removeprefix("submission_"): [
                {key: scalar_text(one.get(f":{key}")) for key in ("sid", "email", "name")}
                | {"time": scalar_text(about.get(":created_at"))}
                for one in about[":submitters"]
            ]
            for name, about in told.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise CourseFault(f"{METADATA} isn't as Gradescope writes it: {type(error).__name__}: {line(error)}") from None


def scalar_text(value: object) -> str:
    """Return a name or a number as text, nothing for none. Raises TypeError for what holds other values.

    >>> scalar_text(None), scalar_text(17)
    ('', '17')
    """
    if isinstance(value, list | dict | tuple | set):
        raise TypeError("one name or number was expected")
    return str(value or "")


def owner_of(path: str, download: Download) -> str | None:
    """Return the student whom the outermost folder or archive of a path names, if any does.

    The platform wrote that name. What is further inside may be the student's own choice. If the download is strict, a
    name of somebody who isn't in the course raises CourseFault; else such a folder may just group files.
    """
    for name in path.split("/")[:-1]:
        if named := students_of(name, download.owners, download.known):
            return named[max(named, key=len)]  # `ada_b` rather than `ada`
        if download.strict and not name.endswith(GROUPS):
            demand_member(name, download)
    return None


def demand_member(name: str, download: Download) -> None:
    """Raise CourseFault if a folder or archive is named as the platform names what somebody handed in."""
    for match in filter(None, (one.fullmatch(name) for one in download.owners)):
        try:
            download.known.owner_of({key: text for key, text in match.groupdict().items() if text is not None})
        except CourseFault as fault:
            words = "if that folder only groups files, collect from inside it"
            raise CourseFault(f"it lies in {name!r}, and {fault}; {words}") from None


def dashed(text: str) -> str:
    """Return a time from a file name in ISO format.

    >>> dashed("2026-01-30-10-30-10"), dashed("20260130T1030"), dashed("2026-01-30 10:30")
    ('2026-01-30T10:30:10', '2026-01-30T10:30', '2026-01-30T10:30')
    """
    digits = re.sub(r"\D", "", text)
    clock = ":".join(re.findall("..", digits[8:]))
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{clock}"


def newest(several: Sequence[Identified], left: list[tuple[str, str]], is_untouched: IsUntouched) -> Identified | None:
    """Return the newest of a student's files for a problem, and add the others to `left`.

    If several different files are equally new, those that are as released don't count. If several are left, add all to
    `left` and return None.
    """
    last = max(several, key=lambda one: one.age)
    rivals = {tuple(one.contents.items()): one for one in several if one.age == last.age}
    bare = {data for data, one in rivals.items() if len(rivals) > 1 and is_bare(one, is_untouched)}
    written = {data: one for data, one in rivals.items() if data not in bare}
    if len(written) == 1:
        (last,) = written.values()
    for one in several:
        if len(written) > 1:
            left.append((one.file.shown, f"one of several for {one.student}, {one.stem}, and none is told to be newer"))
        elif one is not last:
            left.append((one.file.shown, f"older than {last.file.shown}, or the same, or as it was released"))
    return None if len(written) > 1 else last


def is_bare(one: Identified, is_untouched: IsUntouched) -> bool:
    """Say whether a submission holds nothing but what was released."""
    return not one.beside and is_untouched(one.stem, one.file.path.read_bytes())


def add_beside(
    by_place: Mapping[tuple[str, str], list[Identified]], found: Sequence[File], names: Mapping[str, Sequence[str]]
) -> None:
    """Add to each project's notebook the files of these names in its folder or archive, unless they are too large.

    In a folder with several students' notebooks, nobody can tell whose they are.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for (student, _), several in by_place.items():
        for one in several:
            owners[one.file.folder].add(student)
    for (_, stem), several in by_place.items():
        wanted = [file for file in found if file.name in names.get(stem, ()) and len(owners[file.folder]) == 1]
        small = [file for file in wanted if file.path.stat().st_size <= MAX_FILE_BYTES]
        several[:] = [
            dataclasses.replace(one, beside=tuple(file for file in small if file.folder == one.file.folder))
            for one in several
        ]


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
    is_untouched: IsUntouched = lambda _stem, _data: False,
    beside: Mapping[str, Sequence[str]] = types.MappingProxyType({}),
) -> Collected:
    """Put the notebooks of a folder or an archive into their places. Raises CourseFault.

    `only` is the problem of all files, if the pattern has no stem. `at` is the time (UTC) of files whose path has none.
    `is_untouched` says whether a notebook of a problem is as it was released. `beside` names the files that come with
    a project's notebook, by its stem.
    """
    names = composed_names(known.ids)
    matchers, owners = expressions(pattern, stems, only, names), owner_expressions(pattern, names)
    left: list[tuple[str, str]] = []
    by_place: dict[tuple[str, str], list[Identified]] = defaultdict(list)
    taken: list[Taken] = []
    with tempfile.TemporaryDirectory(dir=course.state, prefix="collect-") as scratch:
        found = list(files(source, Path(scratch), left))
        if not found and not left:
            raise CourseFault(f"{source} holds no files")
        if "submission_{submission}" in "".join(PATTERNS.get(pattern, (pattern,))):
            known = dataclasses.replace(known, submitters=read_submitters(found))
        download = read_download(found, owners, known, pattern in STRICT)
        for file in found:
            try:
                one = guarded(lambda file=file: identify(file, matchers, download, stems, only, zone))
            except CourseFault as fault:
                left.append((file.shown, str(fault)))
                continue
            if isinstance(one, Mishap):
                left.append((file.shown, one.words))
            else:
                by_place[one.student, one.stem].append(one)
        add_beside(by_place, found, beside)
        for _, several in sorted(by_place.items()):
            done = guarded(lambda several=several: place_newest(several, at, course, left, is_untouched))
            if isinstance(done, Mishap):
                left.append((several[0].file.shown, f"it could not be put in its place: {done.words}"))
            elif done is not None:
                taken.append(done)
        hint = "" if by_place else better_pattern(found, known, stems, only, zone)
    came = {file.shown for several in by_place.values() for one in several for file in one.beside}
    left = [(path, why) for path, why in left if path not in came]  # they share their notebook's lot
    return Collected(tuple(taken), tuple(sorted((line(path), line(why)) for path, why in left)), hint)


def better_pattern(found: Sequence[File], known: People, stems: Sequence[str], only: str | None, zone: str) -> str:
    """Return words on the platform whose names fit most of these files; empty if none fits any."""
    fits: dict[str, int] = {}
    names = composed_names(known.ids)
    for pattern in PATTERNS:
        matchers, owners = expressions(pattern, stems, only, names), owner_expressions(pattern, names)
        download = read_download(found[:MAX_TRIED], owners, known, pattern in STRICT)
        for file in found[:MAX_TRIED]:
            with contextlib.suppress(CourseFault):
                one = guarded(lambda file=file: identify(file, matchers, download, stems, only, zone))  # noqa: B023
                fits[pattern] = fits.get(pattern, 0) + isinstance(one, Identified)
    if not any(fits.values()):
        return ""
    best = max(fits, key=lambda pattern: fits[pattern])
    return f"the names are as {best} writes them: `--pattern {best}` takes {fits[best]} of these files"


def place_newest(
    several: Sequence[Identified], at: datetime | None, course: Course, left: list[tuple[str, str]],
    is_untouched: IsUntouched,
) -> Taken | None:  # fmt: skip
    """Put the newest of a student's files for a problem in its place, unless what is there is newer."""
    if (one := newest(several, left, is_untouched)) is None:
        return None
    goal, aside = course.notebook(one.student, one.stem), course.state / "earlier" / one.stem / one.student
    contents, time, there = one.contents, one.time or at, read_stamp(goal.parent / "timestamp.txt")
    outcome = "unchanged"
    if not holds(goal.parent, contents) or time not in (None, there):
        if there is not None and time is not None and time < there:
            return left.append((one.file.shown, f"older than what {one.student} handed in already, at {there} UTC"))
        if time is None and any(holds(path.parent, contents) for path in aside.glob(f"*/{goal.name}")):
            return left.append((one.file.shown, "it was replaced by what is there now: `--at TIME` takes it again"))
        outcome = "replaced" if move_earlier_aside(goal.parent, aside) else "new"
        goal.parent.mkdir(parents=True)
        if time is not None:
            (goal.parent / "timestamp.txt").write_text(f"{time} UTC\n", "utf-8")
        for name, data in contents.items():
            goal.with_name(name).write_bytes(data)
    return Taken(one.student, one.stem, line(one.file.shown), outcome, time, one.marked_late)


def holds(folder: Path, contents: Mapping[str, bytes]) -> bool:
    """Say whether a folder holds these very files, none of them a link."""
    paths = [folder / name for name in contents]
    if not all(path.is_file() and not path.is_symlink() for path in paths):
        return False
    return all(path.read_bytes() == data for path, data in zip(paths, contents.values(), strict=True))


def move_earlier_aside(folder: Path, aside: Path) -> bool:
    """Move an earlier submission to the folder with the next free number; say whether there was one."""
    if not folder.exists() and not folder.is_symlink():
        return False
    aside.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in aside.iterdir() if path.name.isdecimal()]
    folder.rename(aside / str(max(taken, default=0) + 1))
    return True


__all__ = ["PATTERNS", "Collected", "People", "Taken", "collect", "people"]
