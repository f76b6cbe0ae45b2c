"""The course where we can't go: GitHub's viewer, Colab, Binder, a course server. What can be held from here is held."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(
    path for pattern in ("course/*.ipynb", "course/[0-9]*/*.ipynb", "source/*/*.ipynb") for path in ROOT.glob(pattern)
)
DEPLOY = ROOT / "deploy"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_valid_and_asks_for_the_kernel_that_everybody_has(path: Path):
    text = path.read_text("utf-8")
    nbformat.validate(json.loads(text))
    notebook = nbformat.reads(text, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.kernelspec.display_name
    # GitHub calls a notebook invalid whose `metadata.widgets` lacks its state, and shows no widget in any case.
    assert "widgets" not in notebook.metadata
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_there_are_notebooks_to_look_at():
    assert len(NOTEBOOKS) == 1 + 2 * 10 + 10 + 1  # the front door, two a part, the problems, the project


def test_binder_gets_the_students_profile(tmp_path: Path):
    """repo2docker runs `postBuild` at the root of the repository, after environment.yml is installed."""
    script = ROOT / "postBuild"
    assert os.access(script, os.X_OK)
    subprocess.run([script], cwd=ROOT, env=os.environ | {"NB_PYTHON_PREFIX": str(tmp_path)}, check=True)
    for path in (ROOT / "course" / ".jupyter").rglob("*.json"):
        copied = tmp_path / "etc" / "jupyter" / path.relative_to(ROOT / "course" / ".jupyter")
        assert copied.read_bytes() == path.read_bytes()
    assert not (ROOT / ".binder").exists(), "repo2docker would look there alone, and leave environment.yml out"
    assert not (ROOT / "binder").exists(), "repo2docker would look there alone, and leave environment.yml out"


TABLE = (ROOT / "docs" / "elsewhere.md").read_text("utf-8").partition("\n## ")[0]
ROWS = re.findall(r"^\| (?!-|place )(.+?) \| .+ \| (.+) \|$", TABLE, re.M)


@pytest.mark.parametrize(("place", "run"), ROWS, ids=[place for place, _ in ROWS])
def test_each_place_says_what_was_run_there_and_when_or_that_it_was_not_tried(place: str, run: str):
    assert re.search(r"\d{4}-\d\d-\d\d|not tried|with every push", run), place


def test_the_places_are_read():
    assert {"Binder", "Colab", "Codespaces, a devcontainer", "conda"} < {place for place, _ in ROWS}


def test_a_devcontainer_installs_as_any_machine_does():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert container["postCreateCommand"] == "python3 start.py build --check"
    image, tag = container["image"].split(":")
    assert image == "mcr.microsoft.com/devcontainers/python"
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    assert SpecifierSet(needed).contains(tag.partition("-")[0])
    folder = "${containerWorkspaceFolder}/"
    interpreter = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter == f"{folder}.venv/bin/python"  # where start.py puts it
    profile = container["remoteEnv"]["JUPYTER_CONFIG_PATH"]
    assert (ROOT / profile.removeprefix(folder) / "labconfig" / "page_config.json").is_file()


def test_the_course_servers_image_has_all_that_an_installation_reads(tmp_path: Path):
    """Its `RUN python3 start.py build --check` installs, then holds every built file to its master."""
    lines = (DEPLOY / "server" / "Dockerfile").read_text("utf-8").splitlines()
    for line in lines:
        if line.startswith("COPY "):
            for word in line.split()[1:-1]:
                copy = shutil.copytree if (ROOT / word).is_dir() else shutil.copy
                copy(ROOT / word, tmp_path / word)
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert len(list((tmp_path / "dist").glob("*.whl"))) == 1
    words = [sys.executable, "-m", "ftgrade.commands.cli", "build", "--check"]
    subprocess.run(words, cwd=tmp_path, env=os.environ | {"FTGRADE_HOME": str(tmp_path)}, check=True)


def test_the_images_copy_what_there_is():
    lines = [line for path in DEPLOY.rglob("Dockerfile*") for line in path.read_text("utf-8").splitlines()]
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert len(sources) > 3
    assert [word for word in sources if not (ROOT / word).exists()] == []


def test_the_hub_is_described_in_files_that_parse_and_name_each_other():
    compose = yaml.safe_load((DEPLOY / "hub" / "compose.yaml").read_text("utf-8"))
    for service in compose["services"].values():
        build = service.get("build")
        if build:
            context = (DEPLOY / "hub" / build["context"]).resolve()
            assert (context / build.get("dockerfile", "Dockerfile")).is_file()
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            known = source in compose["volumes"] or source.startswith("/var/run") or (DEPLOY / "hub" / source).exists()
            assert known, source
    for path in DEPLOY.rglob("*.py"):
        ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("path", sorted([*DEPLOY.glob("server/*"), *DEPLOY.glob("hub/*")]), ids=name)
def test_what_was_not_run_here_says_so(path: Path):
    assert re.search(r"[Uu]ntested", path.read_text("utf-8").splitlines()[0])
