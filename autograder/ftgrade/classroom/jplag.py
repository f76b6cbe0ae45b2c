"""Answers as JPlag reads them: a folder for each student, the released code beside them; nothing is run.

What a student wrote stands in `OUT/submissions/STUDENT/STEM.py`; what everybody was given, which JPlag takes out of
every match, in `OUT/base/STEM.py`.
"""

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ftgrade.course import Course, demand_unused
from ftgrade.errors import CourseFault, StudentFault
from ftgrade.intake.language import as_python, parse_cell
from ftgrade.intake.notebook import parse_submission, read_bounded, read_handed_in

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows takes these for devices
LONGEST_NAME = 60


def export(course: Course, stem: str, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Write a problem's answers; return the name of each student's folder, and of whom nothing was written, and why.

    Raises CourseFault, before anything is written, for a folder in use, a problem that isn't released, and fewer than
    two answers.
    """
    demand_unused(folder)
    if "," in str(folder):
        raise CourseFault(f"JPlag reads a comma as the end of a folder's name: name another than {folder}")
    given = released_code(course, stem)
    written, left = student_code(course, stem, given)
    if len(written) < 2:
        raise CourseFault(
            f"JPlag compares pairs, and of {len(written) + len(left)} students with a folder "
            f"{course.root}/submitted/STUDENT/{stem} only {len(written)} wrote code: collect what was handed in first"
        )
    names = folder_names(written)
    write_cells(folder / "base" / f"{stem}.py", given)
    for student, cells in written.items():
        write_cells(folder / "submissions" / names[student] / f"{stem}.py", cells)
    return names, left


def released_code(course: Course, stem: str) -> list[str]:
    """Return the code of the released notebook. Raises CourseFault."""
    try:
        return code_cells(read_bounded(course.root / "release" / stem / f"{stem}.ipynb"))
    except StudentFault as fault:
        raise CourseFault(f"{stem} isn't released here ({fault}): run `ftgrade release {stem}`") from None


def student_code(course: Course, stem: str, given: Iterable[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the cells that each student wrote or changed, and why there are none of the others."""
    known = set(given)
    written: dict[str, list[str]] = {}
    left: dict[str, str] = {}
    for student in course.students(stem):
        try:
            cells = code_cells(read_handed_in(course.notebook(student, stem)))
        except StudentFault as fault:
            left[student] = str(fault)
            continue
        if own := [source for source in cells if source not in known]:
            written[student] = own
        else:
            left[student] = "The notebook holds no code but what was given."
    return written, left


def code_cells(data: bytes) -> list[str]:
    """Return the text of a notebook's code cells that hold any. Raises StudentFault."""
    cells = [cell.source.strip() for cell in parse_submission(data).cells if cell.kind == "code"]
    return [source for source in cells if source]


def as_lines(source: str) -> str:
    """Return a cell as Python that parses, so that JPlag doesn't refuse a student for a line: else as a comment.

    >>> as_lines("%matplotlib inline\\na = 1"), as_lines("a = (")
    ('\\na = 1', '# a = (')
    """
    text = as_python(source)
    return "\n".join(f"# {line}" for line in source.splitlines()) if parse_cell(text) is None else text


def folder_names(students: Iterable[str]) -> dict[str, str]:
    """Return a name for each student that every file system takes and that no other student has.

    >>> folder_names(["ada", "Con", "../x", "bob"])
    {'ada': 'ada', 'Con': 'Con-3b6f52aa', '../x': '_x-d6b96a97', 'bob': 'bob'}
    """
    plain = {student: re.sub(r"[^\w.@+-]", "_", student)[:LONGEST_NAME] for student in students}
    folded = Counter(name.casefold() for name in plain.values())
    return {
        student: name
        if name == student and is_plain(name) and folded[name.casefold()] == 1
        else with_digest(student, name)
        for student, name in plain.items()
    }


def is_plain(name: str) -> bool:
    """Say whether a name is hidden nowhere, no option, and nothing that Windows keeps or cuts."""
    return not (name.startswith((".", "-")) or name.endswith(".") or RESERVED.fullmatch(name))


def with_digest(student: str, name: str) -> str:
    """Return a name with a fingerprint of the student whom it can't tell alone."""
    mark = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name.lstrip('.-') or 'student'}-{mark}"


def write_cells(path: Path, cells: Iterable[str]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("\n\n\n".join(map(as_lines, cells)) + "\n", "utf-8", errors="replace", newline="\n")


def command_line(folder: Path) -> str:
    """Return the command line of JPlag 6 that compares what was written.

    `-l` names the language, `-bc` the base code, `-r` the result, as `docs/1.-How-to-Use-JPlag.md` of jplag/JPlag says.

    >>> command_line(Path("my out"))
    "java -jar jplag.jar -l python3 -bc 'my out/base' -r 'my out/result' 'my out/submissions'"
    """
    base, result, root = (shlex.quote(str(folder / name)) for name in ("base", "result", "submissions"))
    return f"java -jar jplag.jar -l python3 -bc {base} -r {result} {root}"


__all__ = ["command_line", "export"]
