"""The course for students in one archive: lessons, library, released problems, and the command that starts them.

What goes in is listed here, so that a master, a solution or a hidden case can't come along by standing nearby.
"""

import json
import os
import re
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ftgrade.catalog import Catalog
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.judging.problem import load_problem
from ftgrade.pages.feedback import TEMPLATES

FOLDER = "fine-tuning-math"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # of what an archive can hold: the same files give the same bytes on any day
AS_THEY_ARE = ("start.py", "requirements.lock", "LICENSE")
DECLARED = ("name", "version", "description", "requires-python", "license", "license-files", "dependencies")
NBGRADER_CONFIG = """c = get_config()
c.Exchange.assignment_dir = "problems"  # where the assignment list fetches to and submits from
"""


def write_bundles(catalog: Catalog, course: Course, path: Path) -> list[Path]:
    """Write the archive of all that is released, and return it; with a roster, an archive for each of its students.

    Where questions are a student's own, `FILE.zip` becomes `FILE-STUDENT.zip`. Raises CourseFault.
    """
    if path.suffix != ".zip":
        raise CourseFault(f"a bundle is a zip archive, and {path.name} isn't named as one: name it {path.stem}.zip")
    shared = lessons(catalog) | starters(catalog)
    students = {path.with_name(f"{path.stem}-{student}.zip"): student for student in course.roster()}
    path.parent.mkdir(parents=True, exist_ok=True)
    for goal, student in (students or {path: None}).items():
        pack(shared | problems(catalog, course, student), goal)
    return list(students or [path])


def pack(files: dict[str, bytes], path: Path) -> None:
    """Write an archive in one step; equal files give equal bytes."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(f"{FOLDER}/{name}", EARLIEST)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            archive.writestr(entry, data)
    partial.replace(path)


# ------------------------------------------------------------------------------------------------------- what is in it


def lessons(catalog: Catalog) -> dict[str, bytes]:
    """Return the built notebooks, the sheets, the library and the students' settings of JupyterLab, without masters."""
    course = catalog.root / "course"
    paths = [*catalog.course_text().values(), *course.glob("*.md")]
    paths += [*visible_files(course / "ftmath"), *visible_files(course / ".jupyter")]
    files = {path.relative_to(catalog.root).as_posix(): path.read_bytes() for path in paths}
    # A student has no drawers of source/ and solutions/: what is asked of them stands in problems/.
    return {name: data.replace(b"../source/", b"../problems/") for name, data in files.items()}


def problems(catalog: Catalog, course: Course, student: str | None) -> dict[str, bytes]:
    """Return the released files of every problem, and a student's own where they have some. Raises CourseFault."""
    files: dict[str, bytes] = {}
    for stem in catalog.stems():
        released = course.root / "release" / stem
        files |= files_below(released, f"problems/{stem}")
        if student is not None and released.is_dir() and load_problem(catalog, stem).own is not None:
            own = course.root / "personal" / student / stem
            if not (own / f"{stem}.ipynb").is_file():
                raise CourseFault(
                    f"{student} has no question of their own in {stem}, and is graded on one: release it with "
                    f"`ftgrade release {stem[:3]} --students ROSTER.csv`, then write the bundle"
                )
            files |= files_below(own, f"problems/{stem}")
    if not files:
        raise CourseFault(f"nothing is released in {course.root / 'release'}: `ftgrade release` does it")
    return files


def starters(catalog: Catalog) -> dict[str, bytes]:
    """Return what stands at the archive's top: the command, the versions, and our words for students."""
    root = catalog.root
    files = {name: (root / name).read_bytes() for name in AS_THEY_ARE}
    files["README.md"] = (TEMPLATES / "bundle" / "README.md").read_bytes()
    conda = re.sub(r"--editable \.\[.*\]", "--editable .[course]", (root / "environment.yml").read_text("utf-8"))
    texts = {"pyproject.toml": project(root), "environment.yml": conda, "nbgrader_config.py": NBGRADER_CONFIG}
    return files | {name: text.encode() for name, text in texts.items()}


def project(root: Path) -> str:
    """Return a pyproject.toml for the library alone, with the versions of ours.

    A student's JupyterLab has nbgrader for *Validate* and *Submit*; `course/.jupyter` hides its tools for instructors.
    """
    ours = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    extras = ours["project"]["optional-dependencies"]
    student = [*extras["course"], *(line for line in extras["grade"] if line.startswith("nbgrader"))]
    tables = {
        "build-system": ours["build-system"],
        "project": {name: ours["project"][name] for name in DECLARED} | {"readme": "README.md"},
        "project.optional-dependencies": {"course": student},
        "tool.hatch.build.targets.wheel": {"packages": ["course/ftmath"]},
    }
    return "\n".join(f"[{name}]\n" + toml_lines(values) for name, values in tables.items())


def toml_lines(values: Mapping[str, object]) -> str:
    """Return the lines of a TOML table of texts and lists of texts, which JSON writes alike.

    >>> print(toml_lines({"packages": ["course/ftmath"]}), end="")
    "packages" = ["course/ftmath"]
    """
    return "".join(f'"{name}" = {json.dumps(value, ensure_ascii=False)}\n' for name, value in values.items())


def files_below(folder: Path, name: str) -> dict[str, bytes]:
    """Return a folder's files by their names below another name; nothing for a folder that isn't there."""
    return {f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in visible_files(folder)}


def visible_files(folder: Path) -> list[Path]:
    """Return the files below a folder, without links, hidden ones and what Python caches."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in found if not any(hides(part) for part in path.relative_to(folder).parts)]


def hides(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__"


__all__ = ["lessons", "problems", "project", "starters", "write_bundles"]
