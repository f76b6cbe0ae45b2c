"""The house's laws on imports: two packages that don't know each other, and floors that only look down."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"errors", "worker", "catalog", "channel", "problem", "course", "terminal", "manpage"},
    {
        "notebook",
        "sandbox",
        "sandbox.jail",
        "sandbox.backends",
        "sandbox.process",
        "sandbox.probes",
        "doctor",
        "quarantine",
        "archives",
        "canonical",
    },
    {"judge", "report", "lastrun", "grade", "regrade", "mutants", "lessons", "sheets", "similarity"},
    {
        "build",
        "feedback",
        "classreport",
        "demo",
        "nbgrader_step",
        "booking",
        "gradebook",
        "audit",
        "exporters",
        "newcourse",
        "late",
        "collect",
        "todo",
        "cluster",
        "selfstudy",
        "bundle",
        "formulas",
        "jplag",
    },
    {"cli"},
]
LIBRARY_FLOORS = [
    {"model", "skills", "masks", "preference", "reward", "shift", "evaluate", "device", "layers", "check", "progress"},
    {"weights", "lora", "adapters", "prompts", "quant", "probe", "groups", "context", "smollm"},
    {"memory", "train", "audit", "pretrain", "choose"},
    {"methods", "align"},
    {"plots", "widgets", "exercises", "lab"},
]
ENGINE = sorted((ROOT / "autograder" / "ftgrade").rglob("*.py"))
LIBRARY = sorted((ROOT / "course" / "ftmath").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def room(path: Path) -> str:
    name = path.relative_to(ROOT / "autograder" / "ftgrade").with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


def floor(name: str) -> int:
    return next(height for height, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", ENGINE, ids=room)
def test_no_limit_depends_on_a_clock_that_can_be_set(path: Path):
    assert "time.time(" not in path.read_text("utf-8"), "a deadline is a moment of time.monotonic()"


@pytest.mark.parametrize("path", ENGINE, ids=room)
def test_the_engine_imports_neither_the_library_nor_a_higher_floor(path: Path):
    names = imports(path)
    assert not any(name.partition(".")[0] == "ftmath" for name in names)
    if room(path) == "__init__":
        return
    rooms = {name.removeprefix("ftgrade.") for name in names if name.startswith("ftgrade.")}
    known = {name for rooms_of_floor in FLOORS for name in rooms_of_floor}
    assert all(floor(name) <= floor(room(path)) for name in rooms & known)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_the_library_does_not_import_the_engine(path: Path):
    assert not any(name.partition(".")[0] == "ftgrade" for name in imports(path))


def ftmath_room(path: Path) -> str:
    return path.relative_to(ROOT / "course" / "ftmath").with_suffix("").parts[0]


def ftmath_floor(name: str) -> int:
    return next(height for height, rooms in enumerate(LIBRARY_FLOORS) if name in rooms)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_the_library_imports_no_higher_floor_and_no_stranger(path: Path):
    """A course that needs torch, numpy, matplotlib and widgets installs in a minute; what judges it is for tests."""
    names = imports(path)
    tops = {name.partition(".")[0] for name in names}
    allowed = {"torch", "numpy", "matplotlib", "tqdm", "ipywidgets", "anywidget", "traitlets", "IPython", "ftmath"}
    assert tops <= allowed | set(sys.stdlib_module_names)
    if ftmath_room(path) == "__init__":
        return
    rooms = {name.split(".")[1] for name in names if name.startswith("ftmath.")}
    assert all(ftmath_floor(name) <= ftmath_floor(ftmath_room(path)) for name in rooms)


def test_the_worker_imports_nothing_of_ours():
    assert not any(name.startswith("ftgrade") for name in imports(ROOT / "autograder" / "ftgrade" / "worker.py"))


def engine_graph() -> dict[str, set[str]]:
    return {
        room(path): {name.removeprefix("ftgrade.") for name in imports(path) if name.startswith("ftgrade.")}
        for path in ENGINE
    }


def library_graph() -> dict[str, set[str]]:
    return {
        path.stem: {name.removeprefix("ftmath.") for name in imports(path) if name.startswith("ftmath.")}
        for path in LIBRARY
        if path.stem != "__init__"
    }


@pytest.mark.parametrize("graph", [engine_graph(), library_graph()], ids=["ftgrade", "ftmath"])
def test_no_import_circle_among_the_rooms(graph: dict[str, set[str]]):

    def reaches(start: str, goal: str, seen: frozenset[str]) -> bool:
        nexts = graph.get(start, set()) - seen
        return goal in nexts or any(reaches(name, goal, seen | nexts) for name in nexts)

    assert [name for name in graph if reaches(name, name, frozenset())] == []


def test_nothing_of_ours_unpickles():
    for path in [*ENGINE, *LIBRARY]:
        assert not imports(path) & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
