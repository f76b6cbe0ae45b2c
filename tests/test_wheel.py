"""What an installation is made of: the wheel, and the source archive that builds the same one."""

import ast
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKED = "ftmath/_course/"


def build(folder: Path, kind: str, goal: Path) -> Path:
    words = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(goal)]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    (built,) = goal.iterdir()
    return built


def read(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return read(build(ROOT, "wheel", tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


def test_the_wheel_holds_every_lesson_and_statement(wheel: Mapping[str, bytes]):
    lessons = {path.relative_to(ROOT): path for path in (ROOT / "course").rglob("*.ipynb")}
    lessons |= {Path("problems", *path.parts[-2:]): path for path in (ROOT / "source").glob("*/*.ipynb")}
    assert len(lessons) > 30
    for name, path in lessons.items():
        assert wheel[PACKED + name.as_posix()] == path.read_bytes()


def test_the_wheel_holds_no_solution_no_hidden_case_and_no_master(wheel: Mapping[str, bytes]):
    drawers = [ROOT / "solutions", ROOT / "autograder" / "problems", ROOT / "autograder" / "builders", ROOT / "source"]
    hidden = {path.read_bytes() for drawer in drawers for path in drawer.glob("*.py")}
    assert len(hidden) > 30
    assert [name for name, data in wheel.items() if data in hidden] == []
    assert [name for name in wheel if name.startswith(PACKED) and name.endswith(".py")] == []
    assert {name.partition("/")[0] for name in wheel} == {"ftmath", "ftgrade", "fine_tuning_math-0.1.0.dist-info"}


@pytest.mark.parametrize("path", sorted((ROOT / "solutions").glob("p*.py")), ids=lambda path: path.stem)
def test_no_statement_in_the_wheel_holds_a_line_of_its_reference(wheel: Mapping[str, bytes], path: Path):
    text = wheel[f"{PACKED}problems/{path.stem}/{path.stem}.ipynb"].decode()
    functions = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
    bodies = [ast.unparse(line) for one in functions for line in one.body[1:] if not isinstance(line, ast.Raise)]
    lines = [line.strip() for body in bodies for line in body.splitlines() if len(line.strip()) > 25]
    assert lines or bodies
    assert [line for line in lines if line in text] == []


def test_the_source_archive_builds_the_same_wheel(wheel: Mapping[str, bytes], source: Path, tmp_path: Path):
    again = read(build(source, "wheel", tmp_path))
    assert again.keys() == wheel.keys()
    assert [name for name in wheel if again[name] != wheel[name]] == []


def test_an_editable_installation_takes_the_notebooks_from_the_project(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from hatch_build import CourseInWheel

    given: dict[str, dict[str, str]] = {"force_include": {}}
    hook: Any = CourseInWheel(str(ROOT), {}, None, None, "", "wheel")  # pyright: ignore[reportArgumentType]
    hook.initialize("editable", given)
    assert given == {"force_include": {}}
    hook.initialize("standard", given)
    assert len(given["force_include"]) > 40


@pytest.fixture(scope="module")
def installed(wheel: Mapping[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, and nothing of the project's folder."""
    folder = tmp_path_factory.mktemp("installed")
    for name, data in wheel.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def run(installed: Path, module: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the installed wheel; the other packages are this environment's."""
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from {module} import program; program()"
    finished = subprocess.run(
        [sys.executable, "-P", "-c", code, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "FTMATH_PROGRESS": str(folder / "progress.json")},
    )  # fmt: skip
    assert "Traceback" not in finished.stderr, finished.stderr
    return finished


FIRST_CHECK = """
import inspect, json, os, pathlib, sys
sys.path.insert(0, sys.argv[1])
from ftmath.exercises import exercise
import ftmath
assert ftmath.__file__.startswith(sys.argv[1])
notebook = json.loads(pathlib.Path("fine-tuning-math/course/01_local_adaptation/exercises.ipynb").read_text("utf-8"))
cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
check = next(place for place, cell in enumerate(cells) if cell.startswith('check_exercise("1.1"'))
names = {"relative_update": exercise("1.1").reference}
for cell in (cells[0], cells[check]):
    exec(cell.replace('check_exercise("1.1", relative_update)', 'print(check_exercise("1.1", relative_update))'), names)
"""


def test_in_the_folder_that_was_laid_down_a_first_check_passes(installed: Path, tmp_path: Path):
    """The notebook's own cells are run, with the wheel's library; benchmarks/from_wheel.py does it in a real kernel."""
    run(installed, "ftmath.learn.command", "learn", "--no-open", folder=tmp_path)
    words = [sys.executable, "-P", "-c", FIRST_CHECK, str(installed)]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    finished = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.stdout.startswith("✓ 1.1"), finished


def test_from_the_wheel_the_course_is_laid_down_in_an_empty_folder(installed: Path, tmp_path: Path):
    finished = run(installed, "ftmath.learn.command", "learn", "--no-open", folder=tmp_path)
    assert finished.stdout.startswith("The course is in fine-tuning-math: 4"), finished
    page = (tmp_path / "fine-tuning-math" / "course" / "index.ipynb").read_text("utf-8")
    assert "../problems/p03_lora_parameters" in page
    assert "../source/" not in page


def test_from_the_wheel_the_graders_command_says_that_it_needs_the_project(installed: Path, tmp_path: Path):
    for words in (["check", "p03"], ["release"], ["grade", "--demo"]):
        finished = run(installed, "ftgrade.commands.cli", *words, folder=tmp_path)
        assert finished.returncode == 2
        assert "git clone" in finished.stderr, finished
    assert run(installed, "ftgrade.commands.cli", "--help", folder=tmp_path).returncode == 0


WITHOUT_GRADING = """
import sys
sys.path.insert(0, sys.argv.pop(1))
hidden = {"jupytext", "nbgrader", "rapidfuzz", "rich", "sqlalchemy"}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
from ftgrade.commands.cli import program
program()
"""


def test_without_the_extra_for_grading_the_graders_command_names_it(installed: Path, tmp_path: Path):
    words = [sys.executable, "-P", "-c", WITHOUT_GRADING, str(installed), "grade", "--demo"]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "FTGRADE_HOME": str(ROOT)}
    finished = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (finished.returncode, "Traceback" in finished.stderr) == (2, False)
    assert '"fine-tuning-math[grade]"' in finished.stderr
