"""The notebooks as a student opens them: JupyterLab in headless Chromium, run from the top."""

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ftgrade.build import filled_notebook
from ftgrade.catalog import home
from ftgrade.grade import open_seed
from ftgrade.judge import Judging

pytestmark = pytest.mark.browser


def outputs(cells: list[dict]) -> list[dict]:
    """Return every output of a notebook; there must be no error among them, nor a line on stderr."""
    found = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output for output in found if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    return found


def test_the_landing_notebook_runs_and_its_check_answers(run_notebook: Callable):
    page, cells = run_notebook("course/index.ipynb", "landing")
    assert len(outputs(cells)) == 2
    status = page.locator('div[role="status"]', has_text="double")
    status.wait_for()
    assert "not right yet" in status.inner_text()
    assert "should give 8, gave 12" in status.inner_text()


@pytest.mark.parametrize("stem", home().stems())
def test_an_untouched_problem_runs_and_says_not_attempted_everywhere(run_notebook: Callable, stem: str):
    page, cells = run_notebook(f"source/{stem}/{stem}.ipynb", stem)
    said = [output["data"]["text/html"] for output in outputs(cells) if output["output_type"] == "execute_result"]
    assert len(said) == len(home().problem(stem).judged)
    assert all("not attempted" in "".join(text) for text in said)
    assert all("graded on hidden inputs" in "".join(text) for text in said)
    page.get_by_role("heading", name="Conventions").wait_for()


def solved(stem: str) -> str:
    """Return the notebook with the reference in its answers and the right personal number."""
    judging = Judging(home(), stem)
    answer = judging.answer(open_seed(stem, judging.problem.version), judging.reference)
    number = answer.item() if hasattr(answer, "item") else answer  # pyright: ignore[reportAttributeAccessIssue]
    text = home().leaves(stem).solution.read_text("utf-8")
    pieces = ast.parse(text).body
    public = set(judging.problem.functions)
    # Helpers first: in a notebook a check runs right after its function.
    pieces.sort(key=lambda node: isinstance(node, ast.FunctionDef) and node.name in public)
    answers = "\n\n".join(ast.get_source_segment(text, node) or "" for node in pieces)
    document = json.loads(filled_notebook(home(), stem, answers))
    for cell in document["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "personal_number":
            cell["source"] = "".join(cell["source"]).replace("raise NotImplementedError", f"return {number!r}")
    return json.dumps(document)


@pytest.mark.parametrize("stem", home().stems())
def test_a_solved_problem_says_right_everywhere(run_notebook: Callable, lab: tuple[str, str, Path], stem: str):
    _, _, folder = lab
    (folder / "solved").mkdir(exist_ok=True)
    (folder / "solved" / f"{stem}.ipynb").write_text(solved(stem))
    _, cells = run_notebook(f"solved/{stem}.ipynb", f"solved-{stem}")
    said = ["".join(output["data"].get("text/html", "")) for output in outputs(cells) if "data" in output]
    said = [text for text in said if 'role="status"' in text]
    assert len(said) == len(home().problem(stem).judged)
    assert [text for text in said if "public checks passed" not in text] == []
