"""What many tests share: the catalog of this checkout, a grader with one judge, and notebooks made of answers."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.course import Course
from ftgrade.grading.grader import Grader
from ftgrade.judging.judges import Judges
from ftgrade.probing.doctor import cache_file, strongest

torch.set_num_threads(1)
# Start-up files of the person who runs the tests must not change what the commands under test do.
os.environ.update(JUPYTER_NO_CONFIG="1", JUPYTER_PLATFORM_DIRS="1")

# It has no examples to run, and imports what the README's test command doesn't install.
collect_ignore = ["peers/peering.py"]
CATALOG = home()


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return CATALOG


@pytest.fixture(scope="session")
def judges() -> Iterator[Judges]:
    """One judge, which is started by the first test that has something to judge."""
    judges = Judges(CATALOG, lambda: strongest(cache_file()))
    yield judges
    judges.close()


@pytest.fixture
def grader(judges: Judges, tmp_path: Path) -> Grader:
    """A grader of a course of this test's own; the judge is shared."""
    return Grader(CATALOG, Course(tmp_path), judges)


@pytest.fixture(scope="session")
def one_problem(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Catalog]:
    """Return a function that makes a checkout with one problem alone, to whose judging a text is added."""

    def one_problem(stem: str, more: str) -> Catalog:
        root = tmp_path_factory.mktemp("checkout")
        leaves = CATALOG.leaves(stem)
        for path in (leaves.source, leaves.solution, leaves.problem, leaves.notebook):
            goal = root / path.relative_to(CATALOG.root)
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, goal)
        with (root / leaves.problem.relative_to(CATALOG.root)).open("a", encoding="utf-8") as file:
            file.write(more)
        return Catalog(root)

    return one_problem


@pytest.fixture
def hand_in(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that hands in a file's text or bytes, or a Python text of answers."""

    def hand_in(student: str, stem: str, *, answers: str | None = None, data: str | bytes = b"") -> Path:
        path = tmp_path / "submitted" / student / stem / f"{stem}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        if answers is not None:
            data = build.filled_notebook(CATALOG, stem, answers)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return hand_in
