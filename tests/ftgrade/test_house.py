"""The house's laws on the engine's imports: rooms that know only the rooms below them, and few floors in each.

A room is a folder of `autograder/ftgrade`; the files beside the rooms are the ground. Imports for type checkers alone
count too.
"""

from collections.abc import Callable
from graphlib import CycleError
from pathlib import Path

import pytest
from floors import floors, imports

ENGINE = Path(__file__).parents[2] / "autograder" / "ftgrade"
PATHS = sorted(ENGINE.rglob("*.py"))
GROUND = "ground"
DOORS = {"nbgrader_step", "exporters"}
"""Addresses that people's configurations name: a door leads into a room, and nothing imports a door."""
BELOW = {
    GROUND: set[str](),
    "sandbox": {GROUND},
    "probing": {GROUND, "sandbox"},
    "intake": {GROUND, "sandbox"},
    "judging": {GROUND, "sandbox", "intake"},
    "authoring": {GROUND, "sandbox", "probing", "intake", "judging"},
    "grading": {GROUND, "sandbox", "probing", "intake", "judging"},
    "gradebook": {GROUND, "sandbox", "probing", "intake", "judging", "grading"},
    "pages": {GROUND, "sandbox", "probing", "intake", "judging", "grading", "gradebook"},
}
BELOW["classroom"] = {*BELOW, "authoring"}
BELOW["commands"] = {*BELOW, "classroom"}
HEIGHT_BETWEEN_ROOMS, HEIGHT_INSIDE = 8, 3


EXCUSED = {
    "jail.py": "it sets up the environment behind the walls",
    "nursery.py": "so does it, for judges",
    "worker.py": "it gives a notebook its `__main__`",
    "probes.py": "it plants a word to see whether it gets in",
    "steps.py": "nbgrader calls alembic by name",
}


def module_of(path: Path) -> str:
    name = path.relative_to(ENGINE.parent).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


MODULES = {module_of(path): imports(path) for path in PATHS}
FILES = {module: names & set(MODULES) - {"ftgrade"} for module, names in MODULES.items()}


def room_of(module: str) -> str:
    """Return the room that a file stands in.

    >>> room_of("ftgrade.judging.judge"), room_of("ftgrade.errors")
    ('judging', 'ground')
    """
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (ENGINE / parts[1]).is_dir() else GROUND


def rooms(files: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    found: dict[str, set[str]] = {}
    for module in files.keys() - {"ftgrade", *(f"ftgrade.{door}" for door in DOORS)}:
        here = room_of(module)
        found.setdefault(here, set()).update({room_of(name) for name in files[module]} - {here})
    return found


def inside(room: str, files: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the files of a room, and what each imports of the others."""
    own = {module for module in files if module != "ftgrade" and room_of(module) == room}
    own -= {f"ftgrade.{room}", *(f"ftgrade.{door}" for door in DOORS)}
    return {module: files[module] & own for module in own}


def demand_house(files: dict[str, set[str]]) -> None:
    """Fail unless the imports obey the house."""
    found = rooms(files)
    assert set(found) == set(BELOW)
    for room, known in found.items():
        assert known <= BELOW[room], f"{room} may not import {', '.join(sorted(known - BELOW[room]))}"
        height = max(floors(inside(room, files)).values())
        assert height <= HEIGHT_INSIDE, f"{room} has {height} floors"
    assert max(floors(found).values()) <= HEIGHT_BETWEEN_ROOMS


def test_rooms_import_only_what_is_below_them_and_have_few_floors():
    demand_house(FILES)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("ftgrade.intake.notebook", "ftgrade.judging.judge"),
        ("ftgrade.judging.judge", "ftgrade.grading.grader"),
        ("ftgrade.errors", "ftgrade.course"),
        ("ftgrade.gradebook.late", "ftgrade.pages.feedback"),
        ("ftgrade.authoring.audit", "ftgrade.grading.grader"),
        ("ftgrade.judging.problem", "ftgrade.judging.session"),
    ],
)
def test_an_import_that_points_up_is_noticed(importer: str, imported: str):
    files = {module: set(names) for module, names in FILES.items()}
    files[importer].add(imported)
    with pytest.raises((AssertionError, CycleError)):
        demand_house(files)


def test_no_import_circle_among_the_files():
    floors({module: names - {module} for module, names in FILES.items()})


def test_nothing_imports_a_door():
    doors = {f"ftgrade.{door}" for door in DOORS}
    assert {module: names & doors for module, names in FILES.items() if names & doors} == {}


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_no_limit_depends_on_a_clock_that_can_be_set(path: Path):
    assert "time.time(" not in path.read_text("utf-8"), "a deadline is a moment of time.monotonic()"


@pytest.mark.parametrize("name", ["worker", "shell", "jail", "nursery"])
def test_what_runs_beside_student_code_imports_nothing_of_ours(name: str):
    assert not any(one.startswith("ftgrade") for one in imports(ENGINE / "sandbox" / f"{name}.py"))


def of_package(name: str) -> Callable[[set[str]], set[str]]:
    return lambda names: {one for one in names if one.partition(".")[0] == name}


@pytest.mark.parametrize("stranger", ["ftmath", "pickle", "dill", "cloudpickle", "marshal", "shelve"])
def test_the_engine_knows_neither_the_library_nor_a_pickle(stranger: str):
    assert {module: found for module, names in MODULES.items() if (found := of_package(stranger)(names))} == {}


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_no_state_is_hidden_in_the_environment_or_in_loaded_modules(path: Path):
    """What a step needs is an argument of it."""
    if path.name in EXCUSED:
        return
    text = path.read_text("utf-8")
    for hidden in ("os.environ[", "os.environ.update", "os.environ.setdefault", "sys.modules[", "sys.modules.set"):
        assert hidden not in text
