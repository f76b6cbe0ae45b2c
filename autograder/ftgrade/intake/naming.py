"""Put notebooks that were handed in under another name into their places, where there is no doubt which is meant.

Nothing leaves a student's own folder, no link is followed, and nothing is deleted. What was renamed is noted, so that
each report of that very file tells it.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ftgrade.course import Course, is_id
from ftgrade.intake.gate import MAX_FILE_BYTES, Clean, line
from ftgrade.intake.names import names_notebook, names_other_problem, short_name, short_names
from ftgrade.intake.notebook import Finding, make_finding, read_below

MAX_COMPARED = 2 * 2**20
"""Bytes of a notebook that is compared with the released one, in the process that grades all."""
MAX_BESIDE = 20  # notebooks that are looked at in one folder
IsUntouched = Callable[[str, bytes], bool]


def put_in_place(course: Course, stems: Sequence[str], is_untouched: IsUntouched) -> list[str]:
    """Rename folders and notebooks whose names aren't those that are graded; say what was left because of a doubt."""
    submitted, doubts = course.root / "submitted", list[str]()
    for student in sorted(filter(is_id, os.listdir(submitted) if submitted.is_dir() else [])):
        if not is_plain_folder(submitted / student):
            continue
        for stem in stems:
            try:
                former = put_folder(submitted / student, stem)
                if is_plain_folder(submitted / student / stem):
                    put_notebook(course, student, stem, former, is_untouched)
            except Doubt as doubt:
                doubts.append(line(f"{student}, {stem}: {doubt}"))
            except OSError as error:
                doubts.append(line(f"{student}, {stem}: it can't be renamed: {error.strerror}"))
    return doubts


class Doubt(Exception):
    """Several files may be meant; the text says which."""


def is_plain_folder(path: Path) -> bool:
    """Say whether a path is a folder and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def is_plain_file(path: Path) -> bool:
    """Say whether a path is a file with one name, and no link."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_nlink == 1


def put_folder(folder: Path, stem: str) -> str:
    """Make the folder of a problem from what goes by its name; return its former name, empty for a file without one."""
    if os.path.lexists(folder / stem):
        return stem
    names = short_names(stem)
    found = [path for path in sorted(folder.iterdir()) if short_name(path.name) in names and is_candidate(path)]
    if len(found) > 1:
        raise Doubt(f"which is meant, {' or '.join(path.name for path in found[:5])}?")
    for path in found:
        if is_plain_folder(path):
            path.rename(folder / stem)
            return path.name
        (folder / stem).mkdir()
        path.rename(folder / stem / path.name)
        return ""
    return stem


def is_candidate(path: Path) -> bool:
    return is_plain_folder(path) or (names_notebook(path.name) and is_plain_file(path))


def put_notebook(course: Course, student: str, stem: str, folder: str, is_untouched: IsUntouched) -> None:
    """Rename the one notebook in a problem's folder that can be meant, and note its name before and the folder's."""
    goal = course.notebook(student, stem)
    others = [path for path in notebooks_beside(goal) if not names_other_problem(path.name, stem)]
    named = [path for path in others if short_name(path.name) in short_names(stem)]
    if not os.path.lexists(goal):
        found = others if len(others) == 1 else named if len(named) == 1 else written(stem, others, is_untouched)
        if len(found) > 1:
            raise Doubt(f"which is meant, {' or '.join(path.name for path in found[:5])}?")
    elif others and is_plain_file(goal) and holds_nothing(stem, goal, is_untouched):
        found = written(stem, others, is_untouched)
        if len(found) > 1 or not set(found) <= set(named):
            raise Doubt(f"{goal.name} is untouched; is {' or '.join(path.name for path in found[:5])} meant?")
        if found:
            move_aside(goal, course.state / "untouched" / stem / student)
    else:
        found = []
    former = found[0].relative_to(goal.parent).as_posix() if found else goal.name
    for path in found:
        path.rename(goal)
    if (found or folder != stem) and is_plain_file(goal):
        note(course, student, stem, f"{folder}/{former}".removeprefix("/"))


def move_aside(path: Path, aside: Path) -> None:
    """Move a file to a folder, under a name that is free there."""
    aside.mkdir(parents=True, exist_ok=True)
    numbers = (number for number in range(1, 10_000) if not os.path.lexists(aside / f"{path.stem}.{number}.ipynb"))
    path.rename(aside / f"{path.stem}.{next(numbers)}.ipynb")


def notebooks_beside(goal: Path) -> Iterator[Path]:
    """Yield the notebooks in a folder and in its folders that don't have the name that is graded."""
    folders = [goal.parent, *(path for path in sorted(goal.parent.iterdir()) if is_plain_folder(path))]
    wanted = [folder for folder in folders if not folder.name.startswith((".", "__"))]
    found = [path for folder in wanted for path in sorted(folder.iterdir()) if names_notebook(path.name)]
    yield from [path for path in found if path != goal and is_plain_file(path)][:MAX_BESIDE]


def written(stem: str, paths: Sequence[Path], is_untouched: IsUntouched) -> list[Path]:
    """Return the notebooks that hold an answer, equal ones once."""
    by_digest: dict[str, Path] = {}
    for path in paths:
        if not holds_nothing(stem, path, is_untouched):
            by_digest.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    return list(by_digest.values())


def holds_nothing(stem: str, path: Path, is_untouched: IsUntouched) -> bool:
    return path.stat().st_size <= MAX_COMPARED and is_untouched(stem, path.read_bytes())


def note_path(course: Course, student: str, stem: str) -> Path:
    return course.state / "renamed" / stem / f"{student}.json"


def note(course: Course, student: str, stem: str, former: str) -> None:
    """Note under which name a notebook was handed in, with its digest, since another may take its place."""
    goal = course.notebook(student, stem)
    path = note_path(course, student, stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"former": line(former), "digest": hashlib.sha256(read_below(course.root, goal, MAX_FILE_BYTES)).hexdigest()}
    path.write_text(json.dumps(body), "utf-8")


def renamed_finding(course: Course, student: str, stem: str, digest: str) -> tuple[Finding, ...]:
    """Return a finding if the notebook with this digest was handed in under another name."""
    try:
        body = json.loads(note_path(course, student, stem).read_text("utf-8"))
    except (OSError, ValueError):
        return ()
    if body.get("digest") != digest:
        return ()
    words = f"The notebook was handed in as {body['former']} and was graded as {stem}/{stem}.ipynb."
    return (make_finding("renamed", words),)


def others_in_words(course: Course, student: str, stem: str) -> Clean:
    """Return which notebooks stand in a folder that lacks the one that is graded; empty if there are none."""
    folder = course.notebook(student, stem).parent
    if folder.parent.is_symlink() or not is_plain_folder(folder):
        return line("")
    found = [path.relative_to(folder).as_posix() for path in notebooks_beside(course.notebook(student, stem))]
    return line(
        f" Other notebooks are there, and it is unclear which is meant: {', '.join(found[:5])}." if found else ""
    )


__all__ = ["others_in_words", "put_in_place", "renamed_finding"]
