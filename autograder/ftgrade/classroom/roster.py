"""Read the lists of students that people, spreadsheets and learning platforms write.

One column holds the students' ids; it is found by its name. Canvas's export of a gradebook and Moodle's list of
participants are read as they are.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftgrade.classroom.table import Row, read_table
from ftgrade.course import NO_ID, is_id
from ftgrade.errors import CourseFault

IDS = (
    "id", "studentid", "idnumber", "studentnumber", "username", "userid", "login", "loginid", "netid", "sid",
    "matriculationnumber", "rosteridentifier", "identifier", "githubusername", "orgdefinedid",
    "idnummer", "matrikelnummer", "num\u00e9rodidentification", "n\u00famerodeid",
)  # fmt: skip
"""Names of a column of ids, without case, spaces and marks. A column named `id` comes before all others."""
EMAILS = ("email", "emailaddress", "mail", "emailadresse", "adressedecourriel", "direcci\u00f3ndecorreo")
ALONE = ("student", "students", "ids", "user", "users", *EMAILS)
"""Further names of a column of ids, where it is the only column."""
FIELDS = {
    "first_name": ("firstname", "givenname", "forename", "vorname", "pr\u00e9nom", "nombre"),
    "last_name": ("lastname", "surname", "familyname", "nachname", "nom", "nomdefamille", "apellidos"),
    "email": EMAILS,
    "lms_user_id": ("lmsuserid", "lmsid", "canvasid"),
}
"""The fields of a gradebook, and the names of their columns, also as Moodle writes them in other languages."""
SECTIONS = ("section", "sections", "group", "groups", "tutorial", "gruppe", "gruppen", "groupe", "groupes", "grupo")
WHOLE_NAMES = ("name", "fullname", "studentname")
CANVAS_IDS = ("sisloginid", "sisuserid")
NOT_STUDENTS = ("Points Possible", "Student, Test")  # in the first column of Canvas's export


@dataclass(frozen=True, slots=True)
class Roster:
    """The students of a list in its order, with what it tells of each; `notes` are for the person who wrote it."""

    students: dict[str, dict[str, str]]
    notes: tuple[str, ...] = ()
    sections: dict[str, str] = field(default_factory=dict[str, str])


def read_roster(path: Path) -> Roster:
    """Return the students of a file. Raises CourseFault, with the line where there is one, and OSError."""
    header, rows = read_table(path, (*IDS, *ALONE))
    columns = {name: column_of(header, names) for name, names in FIELDS.items()}
    column, whole_name = id_column(path, header, rows), column_of(header, WHOLE_NAMES)
    demand_one_column_each(path, header, [column, *filter(None, (whole_name, *columns.values()))])
    section, sections = column_of(header, SECTIONS), dict[str, str]()
    without: list[str] = []
    if is_canvas(header):
        columns["lms_user_id"], whole_name = "id", "student"
        rows = [row for row in rows if row.cells["student"] and not row.cells["student"].startswith(NOT_STUDENTS)]
        without = [row.cells["student"] for row in rows if not row.cells[column]]
        rows = [row for row in rows if row.cells[column]]
    students: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}
    for row in rows:
        student = read_id(path, row, column)
        if student in lines:
            raise CourseFault(f"{path.name}, line {row.line}: {student!r} stands in line {lines[student]} already")
        lines[student] = row.line
        found = {name: row.cells.get(of or "", "") for name, of in columns.items()}
        found["lms_user_id"] = read_number(path, row, found["lms_user_id"])
        if not found["last_name"] and not found["first_name"]:
            found["last_name"], _, found["first_name"] = map(
                str.strip, row.cells.get(whole_name or "", "").partition(",")
            )
        students[student] = {name: text for name, text in found.items() if text}
        if of := row.cells.get(section or "", ""):
            sections[student] = of
    demand_one_number_each(path, students, lines)
    return Roster(students, tuple(notes(students, without)), sections)


# ------------------------------------------------------------------------------------------------------------- columns


def is_canvas(header: Sequence[str]) -> bool:
    return "student" in header and "id" in header and any(name in header for name in CANVAS_IDS)


def demand_one_column_each(path: Path, header: Sequence[str], used: Iterable[str]) -> None:
    """Raise CourseFault if a column that is read stands twice."""
    if twice := sorted(name for name in set(used) if header.count(name) > 1):
        raise CourseFault(f"{path.name}: two columns are named {twice[0]}: rename or remove one of them")


def id_column(path: Path, header: Sequence[str], rows: Sequence[Row]) -> str:
    """Return the name of the column of ids. Raises CourseFault if none is known, or several might be meant."""
    if is_canvas(header):
        filled = [name for name in CANVAS_IDS if any(row.cells.get(name) for row in rows)]
        return filled[0] if filled else next(name for name in CANVAS_IDS if name in header)
    if "id" in header:
        return "id"
    found = [name for name in header if name in IDS] or [name for name in header if name in ALONE and len(header) == 1]
    if len(found) == 1:
        return found[0]
    told = ", ".join(header) or "empty"
    if found:
        raise CourseFault(
            f"{path.name}: the columns {' and '.join(found)} might both hold the students' ids: name one of them `id`"
        )
    raise CourseFault(
        f"{path.name} needs a column named `id`, its first line is: {told}; name the column of the students' ids so"
    )


def column_of(header: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in header if name in names), None)


def read_id(path: Path, row: Row, column: str) -> str:
    """Return a row's id, composed (NFC), and without the `.0` of a spreadsheet's number. Raises CourseFault."""
    given = unicodedata.normalize("NFC", row.cells[column])
    if re.fullmatch(r"\d+(\.\d+)?E\+\d+", given, re.IGNORECASE):
        raise CourseFault(
            f"{path.name}, line {row.line}: {given!r} is a number that a spreadsheet has shortened: format the column "
            "of ids as text and save the list again"
        )
    student = re.sub(r"^(\d+)\.0+$", r"\1", given)
    if not student:
        raise CourseFault(f"{path.name}, line {row.line}: '' can't be a student's id: the cell is empty")
    if not is_id(student):
        raise CourseFault(
            f"{path.name}, line {row.line}: {student!r} can't be a student's id, because it can't name a folder "
            f"({NO_ID})"
        )
    return student


def read_number(path: Path, row: Row, text: str) -> str:
    """Return a learning platform's number; a spreadsheet writes 12345 as `12345.0`. Raises CourseFault.

    >>> read_number(Path("r.csv"), Row(2, {}), "12345.0")
    '12345'
    """
    if text and not re.fullmatch(r"[0-9]+(\.0+)?", text):
        raise CourseFault(
            f"{path.name}, line {row.line}: lms_user_id is {text!r}, which is no whole number: format the column as "
            "text and save the list again"
        )
    return text.partition(".")[0]


def demand_one_number_each(path: Path, students: dict[str, dict[str, str]], lines: dict[str, int]) -> None:
    """Raise CourseFault if two students have one number in the learning platform."""
    owners: dict[str, str] = {}
    for student, known in students.items():
        if (number := known.get("lms_user_id")) is None:
            continue
        if number in owners:
            raise CourseFault(
                f"{path.name}, line {lines[student]}: {student} has the lms_user_id {number}, which "
                f"{owners[number]} in line {lines[owners[number]]} has too"
            )
        owners[number] = student


def notes(students: dict[str, dict[str, str]], without: Sequence[str]) -> Iterator[str]:
    """Yield what a person should look at: rows without an id, ids and addresses that may be meant otherwise."""
    if without:
        yield f"left out, because they have no id: {'; '.join(map(repr, without))}"
    for words, alike in (
        ("differ in case alone, and a disk of macOS or Windows gives them one folder", map(str.casefold, students)),
        ("have one address, so it identifies neither", [one.get("email", "").casefold() for one in students.values()]),
    ):
        yield from (f"{' and '.join(several)} {words}" for several in same(students, alike))
    numbers = [student for student in students if re.fullmatch(r"[0-9]+", student)]
    usual = Counter(map(len, numbers)).most_common(1)
    if usual and (short := [one for one in numbers if len(one) < usual[0][0]]):
        yield (
            f"{', '.join(short[:3])}{' …' if len(short) > 3 else ''}: fewer digits than the other ids. Did a "
            "spreadsheet drop leading zeros?"
        )


def same(students: Iterable[str], texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the students who share a text, which isn't empty."""
    by_text: dict[str, list[str]] = {}
    for student, text in zip(students, texts, strict=True):
        by_text.setdefault(text, []).append(student)
    yield from (several for text, several in by_text.items() if text and len(several) > 1)


__all__ = ["Roster", "read_roster"]
