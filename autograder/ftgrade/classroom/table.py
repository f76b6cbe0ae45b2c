"""Read a table that people, spreadsheets and learning platforms write as text.

A table is CSV in UTF-8, with commas, semicolons, tabs or bars. What a spreadsheet writes around a text is taken off.
"""

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ftgrade.errors import CourseFault

SEPARATORS = ",;\t|"
LAST_OF_BRIGHTSPACE = "endoflineindicator"
"""The last column of Brightspace's export, which writes a `#` before each id and nothing else so."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: its number in the file, blank lines included, and its cells by the column's plain name."""

    line: int
    cells: dict[str, str]


def read_table(path: Path, alone: Collection[str]) -> tuple[list[str], list[Row]]:
    """Return the plain names of a file's columns and its rows.

    A single column needs no name: it has one if that is among `alone`, and is called `id` if not.
    """
    text = read_text(path)
    mark = re.match(r"sep=(.)\r?\n", text)
    body = text[mark.end() :] if mark else text
    found = list(numbered_rows(body, mark[1] if mark else separator(body), 1 + bool(mark)))
    if not found:
        return [], []
    names = [plain(cell) for cell in found[0][1]]
    if len(names) == 1 and names[0] not in alone:
        names = ["id"]
    else:
        found = found[1:]
    return names, [named_row(path, names, line, cells) for line, cells in found]


def named_row(path: Path, names: list[str], line: int, cells: list[str]) -> Row:
    """Return a row whose cells have the columns' names. Raises CourseFault if it has more of them."""
    if any(cells[len(names) :]):
        raise CourseFault(
            f"{path.name}, line {line}: it has {len(cells)} cells, and the first line has {len(names)}: put quotation "
            "marks around a cell that holds what separates the cells"
        )
    if names[-1] == LAST_OF_BRIGHTSPACE:
        cells = [cell.removeprefix("#") for cell in cells]
    return Row(line, dict(zip(names, [*cells, *[""] * len(names)], strict=False)))


def read_text(path: Path) -> str:
    """Return a file's text. Raises CourseFault for one that isn't text in UTF-8, or in a spreadsheet's UTF-16."""
    data = path.read_bytes()
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise CourseFault(f"the roster {path} is a spreadsheet's own file: save it as CSV in UTF-8")
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<", b"{", b"[")):
        kind = "JSON" if b"<" not in data[:100] else "a web page, perhaps one that asks to sign in"
        raise CourseFault(f"the roster {path} is {kind}: download or save the list as CSV")
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
    lines = io.StringIO(text, newline="")
    reader, before = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True), 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield first + before, [cell_text(cell) for cell in row]
            before = reader.line_num
    except csv.Error as error:
        words = f"the roster must be CSV: {error}, in what begins in line {first + before}"
        raise CourseFault(f"{words}; is a quotation mark missing there?") from None


def cell_text(cell: str) -> str:
    """Return a cell's text on one line, without what tells a spreadsheet that it isn't a number.

    >>> [cell_text(cell) for cell in (' Ada ', '="00123"', "'00123", "'t Hooft")]
    ['Ada', '00123', '00123', "'t Hooft"]
    """
    text = re.sub(r"\s*[\r\n\t]\s*", " ", cell.strip())
    return re.sub(r"""^(?:="(.*)"|'(\d+))$""", lambda found: found[1] or found[2] or "", text)


def plain(name: str) -> str:
    """Return a column's name without case, spaces and marks.

    >>> plain("ID number"), plain("LMS user-id")
    ('idnumber', 'lmsuserid')
    """
    return re.sub(r"[\W_]+", "", name.casefold())


__all__ = ["Row", "plain", "read_table"]
