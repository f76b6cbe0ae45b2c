"""The archive that students get: what is in it, what never is, and that it stands alone."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from ftgrade.catalog import Catalog, home
from ftgrade.classroom import bundle
from ftgrade.commands import cli
from ftgrade.errors import CourseFault
from ftgrade.grading.grader import Course
from ftgrade.intake.archives import unpack
from ftgrade.intake.gate import MAX_FILE_BYTES
from packaging.requirements import Requirement

CATALOG = home()
PROFILE = CATALOG.root / "course" / ".jupyter"
STEM = "p03_lora_parameters"
TOP = "fine-tuning-math/"


def released(root: Path) -> Course:
    """Return a course in which every problem is released."""
    for stem in CATALOG.stems():
        (root / "release" / stem).mkdir(parents=True)
        shutil.copy(CATALOG.leaves(stem).notebook, root / "release" / stem)
    return Course(root)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return released(tmp_path / "course")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of every file of an archive; of a notebook, what its cells say."""
    files = written(released(tmp_path_factory.mktemp("course")))
    return {name: text_of(name, data) for name, data in files.items()}


def contents(path: Path) -> dict[str, bytes]:
    """Return what an archive holds, by name below its one folder."""
    with zipfile.ZipFile(path) as archive:
        assert all(name.startswith(TOP) for name in archive.namelist())
        return {name.removeprefix(TOP): archive.read(name) for name in archive.namelist()}


def written(course: Course, catalog: Catalog = CATALOG) -> dict[str, bytes]:
    (path,) = bundle.write_bundles(catalog, course, course.root / "bundle.zip")
    return contents(path)


def text_of(name: str, data: bytes, kinds: tuple[str, ...] = ("code", "markdown")) -> str:
    """Return a file's text; of a notebook, what its cells of some kinds say."""
    if name.endswith(".ipynb"):
        cells = [cell for cell in json.loads(data)["cells"] if cell["cell_type"] in kinds]
        return "\n".join("".join(cell["source"]) for cell in cells)
    return data.decode("utf-8", "replace")


# ------------------------------------------------------------------------------------------------------- what is in it


def test_it_holds_the_course_the_problems_and_what_starts_them(course: Course):
    files = written(course)
    library = {name for name in files if name.startswith("course/ftmath/")}
    assert {"course/ftmath/__init__.py", "course/ftmath/weights/base.safetensors"} <= library
    assert "course/ftmath/widgets/explorer.js" in library
    rest = {name for name in files if name not in library}
    lessons = {path.relative_to(CATALOG.root).as_posix() for path in CATALOG.course_text().values()}
    sheets = {f"course/{name}.md" for name in ("checklist", "claims", "errata", "formulas", "glossary")}
    problems = {f"problems/{stem}/{stem}.ipynb" for stem in CATALOG.stems()}
    top = {"LICENSE", "README.md", "environment.yml", "nbgrader_config.py", "pyproject.toml", "requirements.lock"}
    settings = {f"course/.jupyter/{path.relative_to(PROFILE).as_posix()}" for path in PROFILE.rglob("*.json")}
    assert len(settings) == 3
    assert rest == lessons | sheets | problems | settings | top | {"start.py"}


def test_every_link_of_it_leads_to_something_in_it(course: Course):
    files = written(course)
    for name, data in files.items():
        if name.endswith((".ipynb", ".md")):
            for target in re.findall(r"\]\(([^)#\s]+)", text_of(name, data, ("markdown",))):
                if "://" not in target:
                    parts: list[str] = []
                    for part in [*name.split("/")[:-1], *target.split("/")]:
                        parts = parts[:-1] if part == ".." else [*parts, part]
                    assert "/".join(parts) in files, f"{name} links to {target}"


def test_the_same_course_gives_the_same_bytes(course: Course, tmp_path: Path):
    (first,) = bundle.write_bundles(CATALOG, course, tmp_path / "one.zip")
    shutil.copytree(course.root / "release", tmp_path / "later" / "release", copy_function=shutil.copyfile)
    (second,) = bundle.write_bundles(CATALOG, Course(tmp_path / "later"), tmp_path / "new" / "two.zip")
    assert first.read_bytes() == second.read_bytes()


# ----------------------------------------------------------------------------------------------------- what never is


def lines_of(text: str, nodes: list[ast.stmt]) -> set[str]:
    """Return the telling lines of some statements."""
    found = {line.strip() for node in nodes for line in text.splitlines()[node.lineno - 1 : node.end_lineno]}
    return {line for line in found if len(line) >= 20}


def bodies(stem: str) -> list[set[str]]:
    """Return the telling lines of each function of a reference."""
    text = CATALOG.leaves(stem).solution.read_text("utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return [lines_of(text, node.body[ast.get_docstring(node) is not None :]) for node in functions]


def case_lines(stem: str) -> set[str]:
    """Return the telling lines of what draws the hidden cases and of the named mistakes."""
    text = CATALOG.leaves(stem).problem.read_text("utf-8")
    own = [node for node in ast.parse(text).body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return lines_of(text, own)


@pytest.mark.parametrize("stem", CATALOG.stems())
def test_no_file_of_it_tells_a_reference_or_a_case(texts: dict[str, str], stem: str):
    """The library has formulas that are also answers, line by line and by design; it has no reference whole."""
    for name, text in texts.items():
        lines = {line.strip() for line in text.splitlines()}
        assert not any(body <= lines for body in bodies(stem) if len(body) > 1), name
        if not name.startswith("course/"):
            assert lines.isdisjoint(set().union(*bodies(stem))), name
    cases = {line for line in case_lines(stem) if "yield " in line or "problem." in line or "says" in line}
    assert len(cases) > 10
    assert [(name, line) for name, text in texts.items() for line in cases if line in text] == []


def test_the_library_and_lessons_are_those_of_the_checkout(course: Course):
    for name, data in written(course).items():
        if name.startswith("course/"):
            assert data == (CATALOG.root / name).read_bytes().replace(b"../source/", b"../problems/")


def test_what_stands_nearby_does_not_come_along(course: Course, tmp_path: Path):
    root = tmp_path / "checkout"
    for drawer in ("source", "solutions", "autograder", "course"):
        shutil.copytree(CATALOG.root / drawer, root / drawer, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("start.py", "requirements.lock", "LICENSE", "pyproject.toml", "environment.yml"):
        shutil.copy(CATALOG.root / name, root)
    masters = [*root.glob("s*/*.py"), *root.glob("autograder/**/*.py"), *root.glob("course/text/**/*.*")]
    assert len(masters) > 60
    for path in masters:
        path.write_text(path.read_text("utf-8") + "# CANARY\n", "utf-8")
    (course.root / "release" / STEM / "answers.py").symlink_to(root / "solutions" / f"{STEM}.py")
    for place in (
        "checkout/course/ftmath/__pycache__/lora.pyc", "checkout/course/ftmath/.cache/notes", "checkout/.env",
        "checkout/course/mine.ipynb", "checkout/course/05_lora_algebra/solved.ipynb",
        "course/release/p99_draft/p99_draft.ipynb",
        f"course/release/{STEM}/.ipynb_checkpoints/{STEM}.ipynb", "course/.ftgrade/secret", "course/gradebook.db",
    ):  # fmt: skip
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("CANARY")
    files = written(course, Catalog(root))
    assert [name for name, data in files.items() if b"CANARY" in data] == []
    assert files.keys() == written(course).keys()


# ------------------------------------------------------------------------------------------------- whose questions


@pytest.fixture
def personal(course: Course) -> Course:
    """The course with two students who have questions of their own."""
    course.state.mkdir(exist_ok=True)
    course.roster_path.write_text("id\nada\nbob\n")
    for student in ("ada", "bob"):
        for stem in CATALOG.stems():
            path = course.root / "personal" / student / stem / f"{stem}.ipynb"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"cells": [{"source": [f"the question of {student}"]}]}))
    return course


def test_students_with_questions_of_their_own_get_an_archive_each(personal: Course):
    paths = bundle.write_bundles(CATALOG, personal, personal.root / "out" / "course.zip")
    assert [path.name for path in paths] == ["course-ada.zip", "course-bob.zip"]
    for path, student in zip(paths, ("ada", "bob"), strict=True):
        files = contents(path)
        assert f"the question of {student}" in files[f"problems/{STEM}/{STEM}.ipynb"].decode()
        assert len([name for name in files if name.startswith("problems/")]) == 10


def test_a_student_is_not_given_the_published_question_and_graded_on_another(personal: Course):
    (personal.root / "personal" / "bob" / STEM / f"{STEM}.ipynb").unlink()
    with pytest.raises(CourseFault, match=r"bob has no question of their own in p03.*release p03 --students"):
        bundle.write_bundles(CATALOG, personal, personal.root / "course.zip")


def test_a_bundle_without_problems_or_with_another_ending_is_told(tmp_path: Path):
    with pytest.raises(CourseFault, match="`ftgrade release` does it"):
        bundle.write_bundles(CATALOG, Course(tmp_path), tmp_path / "course.zip")
    with pytest.raises(CourseFault, match=r"name it course\.zip"):
        bundle.write_bundles(CATALOG, Course(tmp_path), tmp_path / "course.tar")
    assert list(tmp_path.glob("*.zip*")) == []


# ---------------------------------------------------------------------------------------------------- it stands alone


@pytest.fixture
def unpacked(course: Course, tmp_path: Path) -> Path:
    (path,) = bundle.write_bundles(CATALOG, course, tmp_path / "bundle.zip")
    assert unpack(path, tmp_path / "student") == []
    return tmp_path / "student" / TOP


@pytest.fixture
def start(unpacked: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("students_start", unpacked / "start.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_start_finds_all_that_it_installs(start: ModuleType, unpacked: Path):
    project = tomllib.loads((unpacked / "pyproject.toml").read_text("utf-8"))
    assert not start.has_autograder()
    assert len(start.fingerprint()) == 64
    assert project["project"]["optional-dependencies"].keys() == {"course"}
    assert [start.locked(name) for name in ("torch", "jupyterlab", "nbgrader")]
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in (*wheel["packages"], *project["project"]["license-files"], "README.md"):
        assert (unpacked / name).exists()
    assert (unpacked / start.command([])[-1].partition("/lab/tree/")[2]).is_file()


def test_its_versions_are_ours_and_conda_installs_the_same(unpacked: Path):
    ours, theirs = (
        tomllib.loads((root / "pyproject.toml").read_text())["project"] for root in (CATALOG.root, unpacked)
    )
    assert theirs["dependencies"] == ours["dependencies"]
    needs = {Requirement(line).name: line for line in theirs["optional-dependencies"]["course"]}
    assert needs.keys() == {"jupyterlab", "nbgrader"}
    assert needs["nbgrader"] in ours["optional-dependencies"]["grade"]
    conda = yaml.safe_load((unpacked / "environment.yml").read_text())["dependencies"]
    assert "--editable .[course]" in conda[-1]["pip"]


def test_its_library_works_without_the_grader(unpacked: Path):
    words = (
        "import sys, ftmath, ftmath.weights; from ftmath.exercises import exercises; exercises(5); "
        "sys.exit(any(name.startswith(('ftgrade', 'nbgrader', 'rich')) for name in sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-P", "-c", words], env={"PYTHONPATH": str(unpacked / "course")}, cwd=unpacked,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr


def test_instructors_tools_are_switched_off_by_the_names_that_nbgrader_gives_them(unpacked: Path):
    page = unpacked / "course" / ".jupyter" / "labconfig" / "page_config.json"
    off = json.loads(page.read_text())["disabledExtensions"]
    front_end = Path(sys.prefix, "share", "jupyter", "labextensions", "@jupyter", "nbgrader", "static")
    scripts = "".join(path.read_text("utf-8") for path in front_end.glob("*.js"))
    named = set(re.findall(r"@jupyter/nbgrader:[a-z-]+", scripts))
    students = {f"@jupyter/nbgrader:{name}" for name in ("assignment-list", "validate-assignment", "menu")}
    assert set(off) == named - students
    assert students < named


def test_its_words_are_true(unpacked: Path, start: ModuleType):
    words = (unpacked / "README.md").read_text("utf-8")
    assert f"over {MAX_FILE_BYTES // 2**20} MB" in words
    assert f"Python {'.'.join(map(str, start.OLDEST))} or later" in words
    for command in re.findall(r"`python3 start\.py ([^`]*)`", words):
        start.demand_offered(command.split())
    for place in re.findall(r"`((?:course|problems)/)`", words):
        assert (unpacked / place).is_dir()


def test_a_zip_of_the_problems_folders_is_what_the_grader_reads(unpacked: Path, tmp_path: Path):
    packed = Path(shutil.make_archive(str(tmp_path / "ada"), "zip", unpacked / "problems"))
    course = Course(tmp_path / "theirs")
    assert unpack(packed, course.root / "submitted" / "ada") == []
    assert all(course.notebook("ada", stem).is_file() for stem in CATALOG.stems())


def test_a_release_writes_it(tmp_path: Path, capsys):
    archive = tmp_path / "out" / "course.zip"
    (tmp_path / "course").mkdir()
    assert cli.main(["release", "p03", "--course", str(tmp_path / "course"), "--bundle", str(archive)]) == cli.FINE
    assert f"bundle: {archive}" in capsys.readouterr().out
    files = contents(archive)
    assert [name for name in files if name.startswith("problems/")] == [f"problems/{STEM}/{STEM}.ipynb"]
    text = text_of(f"{STEM}.ipynb", files[f"problems/{STEM}/{STEM}.ipynb"])
    assert "raise NotImplementedError" in text
    assert "SOLUTION" not in text
