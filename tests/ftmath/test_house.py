"""The house's laws on the library's imports: which packages it may use, and that its rooms only import downwards.

A room is a file or a folder of `course/ftmath`. The door, `__init__.py`, imports rooms; no room imports it.
"""

import subprocess
import sys
import tempfile
from graphlib import CycleError
from pathlib import Path

import ftmath
import pytest
from floors import floors, imports

LIBRARY = Path(__file__).parent.parent.parent / "course" / "ftmath"
PATHS = sorted(LIBRARY.rglob("*.py"))
HEIGHT_BETWEEN_ROOMS = 6
HEIGHT_INSIDE = {"exercises": 2, "lab": 3, "learn": 2, "project": 3, "widgets": 3}
ORDER = [
    (
        "the model and the losses",
        {"rotary", "model", "masks", "policy_gradient", "preference", "reward", "shift"},
    ),
    ("the methods", {"adapters", "prefixes", "lora", "quant", "groups", "probe"}),
    ("training and audits", {"training", "audit"}),
    ("whole runs", {"methods", "align", "manners", "rounds"}),
    ("plots", {"plots"}),
    ("widgets", {"widgets"}),
]
"""Some rooms, lowest first. A room may import from its own group and from lower ones, also through other rooms."""


def module_of(path: Path) -> str:
    name = path.relative_to(LIBRARY.parent).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


MODULES = {module_of(path): imports(path) for path in PATHS}
FILES = {module: names & set(MODULES) for module, names in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1]


def rooms() -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    found: dict[str, set[str]] = {}
    for module in FILES.keys() - {"ftmath"}:
        here = room_of(module)
        found.setdefault(here, set()).update({room_of(name) for name in FILES[module] - {"ftmath"}} - {here})
    return found


def inside(room: str) -> dict[str, set[str]]:
    """Return the files of a folder, without its door, and what each imports of the others."""
    own = {module for module in FILES if module.startswith(f"ftmath.{room}.")}
    return {module: FILES[module] & own for module in own}


def reached(room: str, graph: dict[str, set[str]]) -> set[str]:
    """Return every room that a room imports, directly or through others."""
    found, new = set[str](), graph[room]
    while new:
        found |= new
        new = set[str]().union(*(graph[name] for name in new)) - found
    return found


def wrong_ways(graph: dict[str, set[str]]) -> list[str]:
    """Return each way from a room of `ORDER` to a room of a higher group."""
    return [
        f"{room} reaches {above}, which belongs to {title}"
        for place, (_, group) in enumerate(ORDER)
        for room in sorted(group)
        for title, higher in ORDER[place + 1 :]
        for above in sorted(higher & reached(room, graph))
    ]


def test_no_file_is_part_of_an_import_circle():
    assert floors(FILES).keys() == FILES.keys()


def test_no_room_imports_the_door():
    assert [module for module, names in FILES.items() if "ftmath" in names] == []


def test_the_longest_chain_of_imports_between_rooms():
    found = floors(rooms())
    assert max(found.values()) == HEIGHT_BETWEEN_ROOMS, [room for room in found if found[room] > HEIGHT_BETWEEN_ROOMS]


def test_the_longest_chain_of_imports_inside_each_folder():
    folders = {path.parent.name for path in PATHS if path.parent != LIBRARY}
    assert {room: max(floors(inside(room)).values()) for room in folders} == HEIGHT_INSIDE
    assert max(HEIGHT_INSIDE.values()) <= 3


def test_imports_between_rooms_point_down():
    assert wrong_ways(rooms()) == []


def test_these_laws_notice_an_import_that_points_up():
    graph = rooms()
    graph["model"] = {"skills"}
    graph["skills"] = {"training"}
    assert any(line.startswith("model reaches training") for line in wrong_ways(graph))
    assert max(floors(graph | {"memory": {"device"}}).values()) > HEIGHT_BETWEEN_ROOMS
    with pytest.raises(CycleError):
        floors(graph | {"training": {"model"}})


READS_REAL_MODELS = {"ftmath.text", "ftmath.local_model", "ftmath.smollm"}


def test_without_the_extra_for_real_models_the_library_imports_and_names_the_mend():
    """A student's first install lacks these libraries; here they are hidden from a fresh Python."""
    script = """
import importlib.util, sys
hidden = {"gguf", "jinja2", "tokenizers"}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
import ftmath
from pathlib import Path
Path("config.json").write_text("{}")
try:
    ftmath.load_model(".")
except ModuleNotFoundError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, check=True)
    assert "isn't installed: run `python3 start.py model smollm2` once" in run.stdout


@pytest.mark.parametrize("module", MODULES)
def test_the_library_imports_no_stranger(module: str):
    """With torch, numpy, matplotlib and widgets alone, the course installs in a minute.

    What reads a real model from disk may use the extra `model`, inside the functions that need it.
    """
    allowed = {"torch", "numpy", "matplotlib", "tqdm", "ipywidgets", "anywidget", "traitlets", "IPython", "ftmath"}
    if module == "ftmath.weights":
        allowed |= {"safetensors"}
    if module in READS_REAL_MODELS:
        allowed |= {"gguf", "jinja2", "tokenizers"}
    tops = {name.partition(".")[0] for name in MODULES[module]}
    assert "ftgrade" not in tops
    assert tops <= allowed | set(sys.stdlib_module_names)


def test_nothing_of_the_library_unpickles():
    for names in MODULES.values():
        assert not names & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}


def test_no_room_has_the_name_of_a_public_function():
    """`ftmath.check` would be the module or the function, whichever was imported last."""
    assert set(ftmath.__all__) & {room_of(module) for module in MODULES if module != "ftmath"} == set()
