"""The course where we can't go: GitHub's viewer, Colab, Binder, a course server. What can be held from here is held."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml

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
