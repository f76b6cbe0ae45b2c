"""Read the lists of students that people, spreadsheets and learning platforms write.

A list is CSV in UTF-8, with commas, semicolons or tabs. One column holds the students' ids; it is found by its name.
Canvas's export of a gradebook and Moodle's list of participants are read as they are.
"""

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftgrade.course import is_id
from ftgrade.errors import CourseFault

SEPARATORS = ",;\t"
IDS = (
    "id", "studentid", "idnumber", "studentnumber", "username", "userid", "login", "loginid", "netid", "sid",
    "matriculationnumber", "rosteridentifier",
)  # fmt: skip
"""Names of a column of ids, without case, spaces and marks. A column named `id` comes before all others."""
ALONE = ("student", "students", "ids", "user", "users")
"""Further names of a column of ids, where it is the only column."""
FIELDS = {
    "first_name": ("firstname", "givenname", "forename"),
    "last_name": ("lastname", "surname", "familyname"),
    "email": ("email", "emailaddress", "mail"),
    "lms_user_id": ("lmsuserid", "lmsid", "canvasid"),
}
"""The fields of a gradebook, and the names of their columns."""
CANVAS_IDS = ("sisloginid", "sisuserid")
NOT_STUDENTS = ("Points Possible", "Student, Test")  # in the first column of Canvas's export


@dataclass(frozen=True, slots=True)
class Roster:
    """The students of a list in its order, with what it tells of each; `notes` are for the person who wrote it."""

    students: dict[str, dict[str, str]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a list: its number in the file, blank lines included, and its cells by the column's plain name."""

    line: int
    cells: dict[str, str]


def read_roster(path: Path) -> Roster:
    """Return the students of a file. Raises CourseFault, with the line where there is one, and OSError."""
    header, rows = read_table(path)
    columns = {name: column_of(header, names) for name, names in FIELDS.items()}
    column = id_column(path, header, rows)
    without: list[str] = []
    if is_canvas(header):
        columns["lms_user_id"] = "id"
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
        if is_canvas(header):
            found["last_name"], _, found["first_name"] = map(str.strip, row.cells["student"].partition(","))
        students[student] = {name: text for name, text in found.items() if text}
    demand_one_number_each(path, students, lines)
    return Roster(students, tuple(notes(students, without)))


# --------------------------------------------------------------------------------------------------------------- table


def read_table(path: Path) -> tuple[list[str], list[Row]]:
    """Return the plain names of a file's columns and its rows. A list of ids alone needs no header."""
    text = read_text(path)
    mark = re.match(r"sep=(.)\r?\n", text)
    body = text[mark.end() :] if mark else text
    found = list(numbered_rows(body, mark[1] if mark else separator(body), 1 + bool(mark)))
    if not found:
        return [], []
    names = [plain(cell) for cell in found[0][1]]
    if len(names) == 1 and names[0] not in (*IDS, *ALONE):
        names = ["id"]
    else:
        found = found[1:]
    return names, [Row(line, dict(zip(names, [*cells, *[""] * len(names)], strict=False))) for line, cells in found]


def read_text(path: Path) -> str:
    """Return a file's text. Raises CourseFault for one that isn't text in UTF-8, or in a spreadsheet's UTF-16."""
    data = path.read_bytes()
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise CourseFault(f"the roster {path} is a spreadsheet's own file: save it as CSV in UTF-8")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise CourseFault(
            f"the roster {path} must be CSV in UTF-8, save it so (in Excel: `CSV UTF-8`): {error}"
        ) from None


def separator(text: str) -> str:
    """Return what separates the cells: whichever makes the most cells of the first line that isn't blank.

    >>> separator("id;name\\nada;A, B"), separator("ada\\nbob")
    (';', ',')
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(SEPARATORS, key=lambda one: len(next(csv.reader([first], delimiter=one), [])))


def numbered_rows(text: str, delimiter: str, first: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that aren't blank, each with the number of its first line in the file."""
    reader, before = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield first + before, [cell.strip() for cell in row]
            before = reader.line_num
    except csv.Error as error:
        raise CourseFault(f"the roster must be CSV: {error}, in line {first + reader.line_num}") from None


def plain(name: str) -> str:
    """Return a column's name without case, spaces and marks.

    >>> plain("ID number"), plain("LMS user-id")
    ('idnumber', 'lmsuserid')
    """
    return re.sub(r"[\W_]+", "", name.casefold())


# ------------------------------------------------------------------------------------------------------------- columns


def is_canvas(header: Sequence[str]) -> bool:
    return "student" in header and "id" in header and any(name in header for name in CANVAS_IDS)


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
    raise CourseFault(f"{path.name} needs a column named `id`, its first line is: {told}")


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
            "(no /, \\ or +, no leading dot, no invisible characters)"
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


def notes(students: Iterable[str], without: Sequence[str]) -> Iterator[str]:
    """Yield what a person should look at: rows without an id, and ids that may have lost their leading zeros."""
    if without:
        yield f"left out, because they have no id: {'; '.join(map(repr, without))}"
    numbers = [student for student in students if re.fullmatch(r"[0-9]+", student)]
    usual = Counter(map(len, numbers)).most_common(1)
    if usual and (short := [one for one in numbers if len(one) < usual[0][0]]):
        yield (
            f"{', '.join(short[:3])}{' …' if len(short) > 3 else ''}: fewer digits than the other ids. Did a "
            "spreadsheet drop leading zeros?"
        )


__all__ = ["Roster", "read_roster"]
