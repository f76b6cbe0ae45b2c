"""What a change makes anew: a page whose code can reach the changed file, and no other page."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = {
    "__init__.py": "from ftmath.lora import add\nfrom ftmath.quant import round_to\n__all__ = ['add', 'round_to']\n",
    "lora.py": "from ftmath.model import Model\n",
    "model.py": "class Model: ...\n",
    "quant.py": "round_to = 4\n",
    "records.py": "NAME = 'runs.json'\n",
    "weights/runs.json": "[1]",
    "weights/other.json": "[2]",
    "exercises/__init__.py": "def check(): ...\n",
    "exercises/part05.py": "A = 1\n",
    "exercises/part06.py": "B = 1\n",
}


def site_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"course_site_{name}", ROOT / "site" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name, text in LIBRARY.items():
        path = tmp_path / "ftmath" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "ftmath"


@pytest.mark.parametrize(
    ("code", "changed", "reaches"),
    [
        ("from ftmath import add", "lora.py", True),
        ("from ftmath import add", "model.py", True),
        ("from ftmath import add", "quant.py", False),
        ("import ftmath.quant", "quant.py", True),
        ("%time\nimport numpy", "quant.py", True),
        ("from ftmath.records import NAME", "weights/runs.json", True),
        ("from ftmath.records import NAME", "weights/other.json", False),
        ("load('other')", "weights/other.json", True),
        ("from ftmath.exercises import check", "exercises/part05.py", True),
        ("from ftmath.exercises import check", "exercises/part06.py", False),
    ],
)
def test_a_page_changes_with_the_files_that_its_code_reaches(library: Path, code: str, changed: str, reaches: bool):
    before = site_module("reach").fingerprint([code], library, "05_lora_algebra")
    (library / changed).write_text((library / changed).read_text() + "\n# another\n")
    assert (site_module("reach").fingerprint([code], library, "05_lora_algebra") != before) is reaches


def test_a_name_that_a_door_gains_changes_only_who_takes_it(library: Path):
    reach = site_module("reach")
    before = reach.fingerprint(["from ftmath import add"], library, "")
    (library / "__init__.py").write_text(LIBRARY["__init__.py"] + "from ftmath.records import NAME\n")
    assert site_module("reach").fingerprint(["from ftmath import add"], library, "") == before
    (library / "__init__.py").write_text(LIBRARY["__init__.py"].replace("ftmath.lora", "ftmath.quant"))
    assert site_module("reach").fingerprint(["from ftmath import add"], library, "") != before


def test_an_unchanged_file_keeps_its_time_and_a_page_that_is_gone_is_noticed(tmp_path: Path):
    settle = site_module("settle")
    source, target = tmp_path / "source", tmp_path / "target"
    for folder, text in ((source, "one"), (target, "one")):
        folder.mkdir()
        (folder / "same.md").write_text(text)
        (folder / "page.md").write_text(str(folder))
    before = (target / "same.md").stat().st_mtime_ns
    assert settle.mirror(source, target)
    assert (target / "same.md").stat().st_mtime_ns == before
    assert (target / "page.md").read_text() == str(source)
    (source / "page.md").unlink()
    assert not settle.mirror(source, target)
    assert not (target / "page.md").exists()


def test_every_page_of_the_course_reaches_less_than_the_library():
    reach, library = site_module("reach"), ROOT / "course" / "ftmath"
    everything = set(library.rglob("*.py"))
    for path in (ROOT / "course").glob("[0-9]*/*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        found = {one for one in reach.reached(codes, library, path.parent.name) if one.suffix == ".py"}
        assert library / "exercises" / "exercise.py" in found
        assert len(found) < 0.7 * len(everything), path


def test_two_drawings_of_a_page_share_no_id_and_an_unknown_colour_stays():
    figures = site_module("figures")
    svg = '<figure><svg a="{}"><g id="axes_1"/><path id="m" style="fill: #123456"/><use href="#m"/></svg></figure>'
    one, two = (figures.themed({"data": {"text/html": svg.format(name)}})["data"]["text/html"] for name in "ab")
    ids = [html.partition(' id="')[2].partition('"')[0] for html in (one, two)]
    assert len(set(ids)) == 2
    assert all(f'href="#{name}"' in html for name, html in zip(ids, (one, two), strict=True))
    assert "axes_1" not in one
    assert "fill: #123456" in one
