"""Read an untrusted notebook within bounds: its cells are kept, everything else in it is dropped."""

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftgrade.errors import StudentFault
from ftgrade.intake.document import read_document
from ftgrade.intake.gate import MAX_FILE_BYTES, Clean, clean, line, storable

MAX_CELLS = 1_000
MAX_CELL_CHARACTERS = 100_000
MAX_ALL_CHARACTERS = 2_000_000
PERSONAL = "personal_number"
"""The function that answers a student's own question, and the id of its cell."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a submission: its position (from 1), its cell type, its text, and its nbgrader id if it has one.

    What the grader itself adds, such as a deleted cell that is put back, has a negative number.
    """

    number: int
    kind: str
    source: str
    grade_id: Clean | None


def cell_name(number: int) -> str:
    """Return what a cell is called in words.

    >>> cell_name(4), cell_name(-2)
    ('cell 4', 'a given cell that was put back')
    """
    return f"cell {number}" if number > 0 else "a given cell that was put back"


@dataclass(frozen=True, slots=True)
class Finding:
    """A remark about a submission for the instructor and, save a few kinds, its student; it changes no score by itself.

    `Report.told_to_student` leaves out what is for the instructor alone.
    """

    kind: str
    words: Clean


def make_finding(kind: str, words: object) -> Finding:
    """Return a finding with its words cleaned, since they may quote a student."""
    return Finding(kind, clean(words))


@dataclass(frozen=True, slots=True)
class Submission:
    """A submitted notebook: its cells in order, and the findings about it."""

    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]


def read_submission(path: Path) -> Submission:
    """Read the submission in a file. Raises StudentFault."""
    return parse_submission(read_bounded(path))


def read_handed_in(path: Path) -> bytes:
    """Return the bytes of the notebook `submitted/STUDENT/STEM/STEM.ipynb`. Raises StudentFault.

    A link in its place, or in place of one of its folders, could lead to another student's work.
    """
    for folder in (path.parent, path.parent.parent):
        if folder.is_symlink():
            raise StudentFault("not-a-file", f"The folder {folder.name} is a link. Put the folder itself there.")
    return read_below(path.parents[2], path, MAX_FILE_BYTES)


def read_bounded(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return a file's first `limit` + 1 bytes. Raises StudentFault: `missing`, `not-a-file`."""
    return read_file(path, limit, None)


def read_below(root: Path, path: Path, limit: int) -> bytes:
    """Return what `read_bounded` does, without following a link below `root`, whatever changes meanwhile.

    A file that has a second name (a hard link) is refused too. Raises StudentFault.
    """
    with contextlib.ExitStack() as opened:
        folder: int | None = None
        for place in reversed(path.parents[: len(path.relative_to(root).parts)]):
            flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
            try:
                if folder is None:
                    folder = os.open(place, flags)
                else:
                    folder = os.open(place.name, flags | getattr(os, "O_NOFOLLOW", 0), dir_fd=folder)
            except FileNotFoundError:
                raise StudentFault("missing", f"No notebook named {path.name} was handed in.") from None
            except OSError:
                raise StudentFault("not-a-file", f"The folder {place.name} is a link or can't be opened.") from None
            opened.callback(os.close, folder)
        return read_file(path, limit, folder)


def read_file(path: Path, limit: int, folder: int | None) -> bytes:
    """Return a file's first `limit` + 1 bytes, below a folder's descriptor if there is one. Raises StudentFault."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path if folder is None else path.name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise StudentFault("missing", f"No notebook named {path.name} was handed in.") from None
    except PermissionError:
        words = f"{path.name} can't be read with the grader's rights. Its owner allows it by `chmod u+r`."
        raise StudentFault("not-a-file", words) from None
    except OSError:
        words = f"{path.name} is a link or can't be opened. Hand in the file itself."
        raise StudentFault("not-a-file", words) from None
    state, words = os.fstat(descriptor), ""
    if not stat.S_ISREG(state.st_mode):
        words = f"{path.name} is not a file. Hand in the notebook itself."
    elif folder is not None and state.st_nlink > 1:
        words = f"{path.name} is one file under two names (a hard link). Hand in a copy of it."
    if words:
        os.close(descriptor)
        raise StudentFault("not-a-file", words)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit + 1)


def parse_submission(data: bytes) -> Submission:
    """Parse a notebook's bytes. Raises StudentFault: `too-large`, `malformed`, `old-format`."""
    if len(data) > MAX_FILE_BYTES:
        words = f"The file is larger than {MAX_FILE_BYTES // 2**20} MiB. Clear the outputs, save, and hand in again."
        raise StudentFault("too-large", words)
    document, repairs = read_document(data)
    version = format_of(document)
    if version == 4 and not isinstance(document.get("cells"), list):
        raise StudentFault(
            "malformed", "The notebook has no list of cells. Open it in JupyterLab, save it, hand in again."
        )
    if version != 4:
        words = (
            f"The notebook has format {version}, and this grader reads format 4. "
            "Open it in a current JupyterLab, save it, and hand in again."
        )
        raise StudentFault("old-format", words)
    if type(document.get("nbformat")) is not int:
        repairs = [*repairs, "The notebook tells no format as a whole number. It was read as format 4."]
    read = within_bounds(document["cells"], len(data))
    return Submission(read.cells, (*(make_finding("repaired", words) for words in repairs), *read.findings))


def format_of(document: Any) -> int:
    """Return the format of a notebook, also where a tool wrote it as a text, or not at all. Raises StudentFault.

    >>> cells = [{"cell_type": "code"}]
    >>> [format_of(one | {"cells": cells}) for one in ({}, {"nbformat": "4"}, {"nbformat": 4.0}, {"nbformat": "3"})]
    [4, 4, 4, 3]
    """
    told = document.get("nbformat") if isinstance(document, dict) else None
    if isinstance(told, int):
        return told
    number = re.fullmatch(r"(\d)(?:\.0)?", str(told)) if isinstance(told, str | float) else None
    if number and number[1] != "4":
        return int(number[1])
    if (number or told is None) and isinstance(document, dict) and any(map(looks_like_a_cell, some_cells(document))):
        return 4
    raise StudentFault("malformed", "The file is JSON, but not a notebook. Hand in the .ipynb file of this problem.")


def some_cells(document: dict[str, Any]) -> list[Any]:
    cells = document.get("cells")
    return cells[:MAX_CELLS] if isinstance(cells, list) else []


def looks_like_a_cell(raw: Any) -> bool:
    return isinstance(raw, dict) and raw.get("cell_type") in ("code", "markdown", "raw")


def within_bounds(raw_cells: list[Any], file_bytes: int) -> Submission:
    """Return as many cells as the limits allow; cells with an nbgrader id are chosen first, so no answer is lost."""
    parsed = [cell_of(number, raw) for number, raw in enumerate(raw_cells, 1)]
    cells = [cell for cell in parsed if cell is not None]
    findings = list(size_findings(cells, len(raw_cells) - len(cells), file_bytes))
    chosen: set[int] = set()
    room = MAX_ALL_CHARACTERS
    for cell in sorted(cells, key=lambda cell: cell.grade_id is None):
        if len(chosen) < MAX_CELLS and len(cell.source) <= min(room, MAX_CELL_CHARACTERS):
            chosen.add(cell.number)
            room -= len(cell.source)
    return Submission(tuple(cell for cell in cells if cell.number in chosen), tuple(findings))


def size_findings(cells: list[Cell], odd: int, file_bytes: int) -> list[Finding]:
    """Return the findings about cells that are invalid, too many or too long, and about a large file."""
    findings: list[Finding] = []
    if odd:
        findings.append(make_finding("odd-cells", f"{odd} cells were not in the notebook format and were left out."))
    if len(cells) > MAX_CELLS:
        words = (
            f"The notebook has {len(cells):,} cells: your answers and the first others, {MAX_CELLS:,} in all, were run."
        )
        findings.append(make_finding("many-cells", words))
    long = sum(len(cell.source) > MAX_CELL_CHARACTERS for cell in cells)
    if long:
        words = f"{long} cells hold more than {MAX_CELL_CHARACTERS:,} characters and were not run."
        findings.append(make_finding("long-cells", words))
    if file_bytes > 10 * 2**20:
        words = f"The file holds {file_bytes / 2**20:.0f} MiB, nearly all of it outputs; they were not read."
        findings.append(make_finding("large-outputs", words))
    return findings


def cell_of(number: int, raw: Any) -> Cell | None:
    """Return a notebook's cell as our record, or None if the JSON isn't a valid cell."""
    if not looks_like_a_cell(raw):
        return None
    source = raw.get("source", "")
    if isinstance(source, list):
        try:
            source = "".join(source)
        except TypeError:  # not all of them are text
            return None
    if not isinstance(source, str):
        return None
    return Cell(number, raw["cell_type"], storable(source), grade_id_of(raw.get("metadata")))


def grade_id_of(metadata: Any) -> Clean | None:
    """Return the nbgrader id that a cell's metadata claims, or None; all other metadata is ignored."""
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    claimed = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return line(claimed) if isinstance(claimed, str) and 0 < len(claimed) <= 200 else None
