"""The course's notebooks, run from top to bottom in real kernels (python3 start.py test course), and their links."""

import json
import os
import re
import resource
from pathlib import Path

import nbformat
import pytest
from ftgrade.authoring.lessons import HEADING, headings, traceability
from ftgrade.catalog import home
from ftgrade.judging.problem import load_problem
from ftmath.exercises import PARTS, exercises

ROOT = Path(__file__).parent.parent
LAB = sorted((ROOT / "course" / "lab").glob("*.ipynb"))
NOTEBOOKS = [*sorted((ROOT / "course").glob("[01][0-9]_*/*.ipynb")), *LAB]
LIMIT_SECONDS = 90  # on two cores that do nothing else
PATIENCE_SECONDS = 600
ALLOWED = {
    "inspect",
    "math",
    "pathlib",
    "collections",
    "functools",
    "json",
    "statistics",
    "tempfile",
    "torch",
    "numpy",
    "matplotlib",
    "ipywidgets",
    "anywidget",
    "ftmath",
}


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def cells(path: Path, kind: str) -> list[str]:
    return [
        "".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind
    ]


def executed(document: nbformat.NotebookNode, folder: Path, progress: Path) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own; any error raises."""
    from nbclient import NotebookClient

    os.environ["FTMATH_PROGRESS"] = str(progress)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(document, timeout=PATIENCE_SECONDS, resources=resources, store_widget_state=False).execute()
    return document


def outputs(document: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    found = [output for cell in document.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in found if output.output_type == "error" or output.get("name") == "stderr"] == []
    return found


@pytest.mark.course
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_runs_untouched_in_its_time(path: Path, tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    document = executed(nbformat.read(path, as_version=4), path.parent, tmp_path / "progress.json")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = outputs(document)
    said = ["".join(output.data.get("text/html", "")) for output in found if "data" in output]
    if path.stem == "exercises":
        checks = [text for text in said if 'role="status"' in text]
        assert len(checks) == len(exercises(int(path.parent.name[:2])))
        assert all("not started" in text for text in checks)
    else:
        assert all(re.search(r'<img alt="[^"]{20,}"', text) for text in said if "<img" in text)
        # The lab's pictures of a card are there once a card was recorded.
        assert sum("<img" in text for text in said) >= (1 if path in LAB else 5)
    # In processor seconds, which other programs of the machine don't stretch as they do the clock's.
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert 0 < seconds < 2 * LIMIT_SECONDS


@pytest.mark.course
@pytest.mark.parametrize("part", PARTS)
def test_solved_exercises_are_all_right(part: int, tmp_path: Path):
    (path,) = (ROOT / "course").glob(f"{part:02}_*/exercises.ipynb")
    document = nbformat.read(path, as_version=4)
    names = {f"def {one.reference.__name__}(": one.reference for one in exercises(part).values()}
    for cell in document.cells:
        for start, reference in names.items():
            if cell.cell_type == "code" and start in cell.source:
                cell.source = f"from {reference.__module__} import {reference.__name__}"
    found = outputs(executed(document, path.parent, tmp_path / "progress.json"))
    checks = [text for output in found if "data" in output
              if 'role="status"' in (text := "".join(output.data.get("text/html", "")))]  # fmt: skip
    assert len(checks) == len(exercises(part))
    assert all(": right" in text for text in checks)


# ------------------------------------------------------------------------------------------------- without running


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_imports_what_every_student_has(path: Path):
    found = re.findall(r"^\s*(?:from|import) (\w+)", "\n".join(cells(path, "code")), re.MULTILINE)
    assert set(found) <= ALLOWED


@pytest.mark.parametrize("path", [*NOTEBOOKS, ROOT / "course" / "index.ipynb"], ids=name)
def test_every_internal_link_resolves(path: Path):
    for text in cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.startswith("http"):
                continue
            file, _, anchor = target.partition("#")
            reached = (path.parent / file).resolve() if file else path
            assert reached.exists(), f"{name(path)}: {target}"
            if anchor and reached.suffix == ".ipynb":
                titles = re.findall(r"^#+ (.+)$", "\n".join(cells(reached, "markdown")), re.MULTILINE)
                assert anchor in {title.replace(" ", "-") for title in titles}, f"{name(path)}: {target}"


@pytest.mark.parametrize("part", PARTS)
def test_both_notebooks_of_a_part_carry_the_outlines_headings(part: int):
    (theory,) = (ROOT / "course").glob(f"{part:02}_*/theory.ipynb")
    asked = dict(HEADING.findall("\n".join(cells(theory, "markdown"))))
    answered = dict(HEADING.findall("\n".join(cells(theory.with_name("exercises.ipynb"), "markdown"))))
    assert list(asked) == [f"{part}.{k}" for k in range(1, 6)]
    assert {number: answered[number] for number in asked} == asked


@pytest.mark.parametrize("part", PARTS)
def test_a_subtopic_has_all_of_its_pieces(part: int):
    """Claim, relation, derivation, prediction, picture, check, mistake, practice with a citation, and its exercise."""
    (theory,) = (ROOT / "course").glob(f"{part:02}_*/theory.ipynb")
    document = json.loads(theory.read_text("utf-8"))["cells"]
    text = "\n".join(
        ("" if cell["cell_type"] == "markdown" else "\n```\n") + "".join(cell["source"]) for cell in document
    )
    pieces = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    for piece in pieces:
        number = piece.split()[0]
        if not re.fullmatch(r"\d+\.\d", number):
            continue
        for what in ("**", "$$", "<details>", "guess = None", "predicted(", "title=", "alt=", "assert ", "mistake",
                     "In practice", f"exercises.ipynb#{number}"):  # fmt: skip
            assert what in piece, f"{number} lacks {what!r}"
        assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:|PMLR|19\d\d|20\d\d", piece), f"{number} cites nothing"


def test_the_table_of_objectives_is_complete():
    table = traceability(home())
    assert table.count("\n") == 1 + 8
    for number, (title, _) in headings(home()).items():
        assert f"[{number} {title}]" in table
    for stem in home().stems():
        for check in load_problem(home(), stem).checks:
            assert re.search(rf"\[{stem[:3]}\]\([^)]+\): [^|<]*\b{check.name}\b", table), f"{stem} {check.name}"
