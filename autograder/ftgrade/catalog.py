"""Find the files of each problem. This is the only module that knows the repository's folders.

A problem's *stem* (`p03_lora_parameters`) names its files in three folders, the *drawers*; the files are its *leaves*.
So does a project's (`project_adapter`), of which files are judged in place of functions.
"""

import difflib
import hashlib
import importlib.util
import json
import os
import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftgrade.errors import AuthorFault, CourseFault

STEM = re.compile(r"p(\d\d)_[a-z0-9_]+")
PROJECT = re.compile(r"project_[a-z0-9_]+")
"""The stems of the other kind: what is handed in beside the notebook is judged, and no code of it is run."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """The paths of one problem's files. Only a few problems have a `builder`."""

    stem: str
    source: Path
    solution: Path
    problem: Path
    builder: Path
    notebook: Path

    def missing(self) -> list[Path]:
        return [path for path in (self.source, self.solution, self.problem) if not path.is_file()]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The problems of one checkout of the repository."""

    root: Path

    def stems(self) -> list[str]:
        """Return every problem's stem that occurs in any of the three drawers, sorted."""
        return self.found(STEM)

    def projects(self) -> list[str]:
        """Return every project's stem, sorted."""
        return self.found(PROJECT)

    def found(self, kind: re.Pattern[str]) -> list[str]:
        names = {path.stem for drawer in self.drawers() for path in drawer.glob("*.py")}
        return sorted(name for name in names if kind.fullmatch(name))

    def drawers(self) -> tuple[Path, Path, Path]:
        return self.root / "source", self.root / "solutions", self.root / "autograder" / "problems"

    def builders(self) -> Path:
        """Return the folder of builders: code that the sandbox runs to make arguments that JSON can't hold."""
        return self.root / "autograder" / "builders"

    def strays(self) -> list[Path]:
        """Return the files of the drawers that belong to no stem."""
        files = [path for drawer in self.drawers() for path in drawer.iterdir() if path.name != "__pycache__"]
        builders = [path for path in self.builders().glob("*") if path.name != "__pycache__"]
        wanted = [self.leaves(stem).builder for stem in self.stems()]
        known = {*self.stems(), *self.projects()}
        return [path for path in files if path.stem not in known] + sorted(set(builders) - set(wanted))

    def leaves(self, stem: str) -> Leaves:
        """Return the leaves of a stem, which may be abbreviated (`p03`, `3`). Raises CourseFault."""
        full = self.stem(stem)
        source, solutions, problems = self.drawers()
        file = f"{full}.py"
        notebook = source / full / f"{full}.ipynb"
        return Leaves(full, source / file, solutions / file, problems / file, self.builders() / file, notebook)

    def copies(self, stem: str) -> list[Path]:
        """Return the places where a learner's notebook of a stem may be: first those in `work/`, then the built one."""
        return [*sorted((self.root / "work" / stem).glob("*.ipynb")), self.leaves(stem).notebook]

    def stem(self, name: str) -> str:
        """Return the full stem of a short name: `p03_lora_parameters` for `p03`. Raises CourseFault."""
        is_stem = STEM.fullmatch(name) or is_project(name)
        if is_stem and any((drawer / f"{name}.py").is_file() for drawer in self.drawers()):
            return name
        stems = self.stems()
        matches = [stem for stem in stems if name.lower() in short_names(stem)]
        if len(matches) != 1:
            raise CourseFault(f"there is no problem {name!r}; {suggestion(name, [*stems, *self.projects()])}")
        return matches[0]

    def solution(self, stem: str) -> types.ModuleType:
        """Load a new copy of a stem's reference module, so that a caller may replace its functions."""
        return load_module(self.leaves(stem).solution, f"ftgrade_solution_{stem}")

    def digest(self, stem: str) -> str:
        """Return a digest of what judges a stem, locked cells included; a change makes its stored reports stale."""
        leaves = self.leaves(stem)
        files = [leaves.solution, leaves.problem, *([leaves.builder] if leaves.builder.is_file() else [])]
        files += self.program() if is_project(leaves.stem) else []
        parts = [*(path.read_bytes() for path in files), self.locked_text(stem).encode()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def program(self) -> list[Path]:
        """Return the library's files that a project's scores depend on; `base.json` holds the weights' fingerprint."""
        library = self.root / "course" / "ftmath"
        code = [path for folder in (library, library / "project") for path in sorted(folder.glob("*.py"))]
        weights = library / "weights" / "base.json"
        return [*code, *([weights] if weights.is_file() else [])]

    def built_cells(self, stem: str) -> list[dict[str, Any]]:
        """Return the cells of a problem's built notebook that carry nbgrader's mark; none if it isn't built.

        It may be a learner's own copy, with answers or broken.
        """
        try:
            cells = json.loads(self.leaves(stem).notebook.read_text("utf-8"))["cells"]
            return [cell for cell in cells if "grade_id" in cell["metadata"].get("nbgrader", {})]
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return []

    def locked_text(self, stem: str) -> str:
        """Return a text of the built notebook's locked cells; a learner's answers in it don't change that."""
        marked = ((cell, cell["metadata"]["nbgrader"]) for cell in self.built_cells(stem))
        return json.dumps([[mark["grade_id"], "".join(cell["source"])] for cell, mark in marked if mark.get("locked")])

    def title(self, stem: str) -> str:
        """Return the problem's title: the first heading of its statement."""
        match = re.search(r"^# # (.+)$", self.leaves(stem).source.read_text("utf-8"), re.MULTILINE)
        if not match:
            raise AuthorFault(f"source/{stem}.py must open with a heading, `# # Problem …`")
        return match[1].strip()

    def course_text(self) -> dict[Path, Path]:
        """Map each text file of the course to the notebook that is built from it."""
        text = self.root / "course" / "text"
        masters = sorted(text.rglob("*.py"))
        return {path: self.root / "course" / path.relative_to(text).with_suffix(".ipynb") for path in masters}

    def submissions(self, stem: str, kind: str) -> list[Path]:
        """Return the demo submissions of a stem: `accepted`, `wrong` or `broken`."""
        return sorted((self.root / "tests" / "submissions" / self.stem(stem) / kind).glob("*.ipynb"))


def is_project(stem: str) -> bool:
    """Say whether a stem is a project's.

    >>> is_project("project_adapter"), is_project("p03_lora_parameters")
    (True, False)
    """
    return PROJECT.fullmatch(stem) is not None


def short_names(stem: str) -> tuple[str, ...]:
    """Return the names by which a problem may be called.

    >>> short_names("p03_lora_parameters")
    ('p03_lora_parameters', 'p03', '03', 'p3', '3', 'lora_parameters')
    """
    short, _, slug = stem.partition("_")
    number = str(int(short[1:]))
    return stem, short, short[1:], f"p{number}", number, slug


def suggestion(name: str, stems: list[str]) -> str:
    """Return the problem whose name is nearest to one that doesn't exist, or all of them."""
    named = {short: stem for stem in stems for short in (stem, stem.partition("_")[2])}
    numbered = re.match(r"p?0*(\d+)\D", name.lower())
    of_number = [stem for stem in stems if numbered and STEM.fullmatch(stem) and int(stem[1:3]) == int(numbered[1])]
    if len(of_number) == 1:
        return f"did you mean {of_number[0]}?"
    near = difflib.get_close_matches(name.lower().replace("-", "_"), named, 1)
    return f"did you mean {named[near[0]]}?" if near else f"there are: {', '.join(stems)}"


def load_module(path: Path, name: str) -> types.ModuleType:
    """Import a file by its path, without adding it to `sys.modules`. Raises AuthorFault."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise AuthorFault(f"the leaf {path.name} is missing: `ftgrade new` writes all three of a problem")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise AuthorFault(f"{path.name} can't be imported: {type(error).__name__}: {error}") from error
    return module


def home() -> Catalog:
    """Return the catalog of the checkout that FTGRADE_HOME names, or else of the one that this package runs from."""
    root = Path(os.environ.get("FTGRADE_HOME", Path(__file__).parents[2]))
    if not (root / "autograder" / "problems").is_dir():
        raise CourseFault(
            "problems and solutions are in the project's repository alone, and no installation holds them: `git clone` "
            "it, then run `python3 start.py` there with these words, or set FTGRADE_HOME to its folder"
        )
    return Catalog(root)
