"""The notebooks as a student opens them: JupyterLab in headless Chromium, run from the top."""

import ast
import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ftgrade.authoring.build import filled_notebook
from ftgrade.catalog import home
from ftgrade.judging.judge import Oracle
from ftgrade.judging.problem import load_problem
from ftgrade.judging.seeds import open_seed

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.browser


def outputs(cells: list[dict]) -> list[dict]:
    """Return every output of a notebook; there must be no error among them, nor a line on stderr."""
    found = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output for output in found if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    return found


def test_the_landing_notebook_runs_and_its_check_answers(run_notebook: Callable):
    page, cells = run_notebook("course/index.ipynb", "landing")
    shown = ["".join(output["data"].get("text/html", "")) for output in outputs(cells) if "data" in output]
    assert any("Your exercises" in text for text in shown)
    assert any('<img alt="' in text for text in shown)
    status = page.locator('div[role="status"]', has_text="double")
    status.wait_for()
    assert "not right yet" in status.inner_text()
    assert "should give 8, gave 12" in status.inner_text()


@pytest.mark.parametrize("stem", home().stems())
def test_an_untouched_problem_runs_and_says_not_attempted_everywhere(run_notebook: Callable, stem: str):
    page, cells = run_notebook(f"source/{stem}/{stem}.ipynb", stem)
    said = [output["data"]["text/html"] for output in outputs(cells) if output["output_type"] == "execute_result"]
    assert len(said) == len(load_problem(home(), stem).all_checks)
    assert all("not attempted" in "".join(text) for text in said)
    assert all("graded on hidden inputs" in "".join(text) for text in said)
    page.get_by_role("heading", name="Conventions").wait_for()


def solved(stem: str) -> str:
    """Return the notebook with the reference in its answers and the right personal number."""
    judging = Oracle(home(), stem)
    answer = judging.personal_answer(open_seed(stem, judging.problem.version), judging.reference)
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
    assert len(said) == len(load_problem(home(), stem).all_checks)
    assert [text for text in said if "public cases passed" not in text] == []


# ----------------------------------------------------------------------------------------------------------- the course

PARTS = sorted(path.parent.name for path in (ROOT / "course").glob("[01][0-9]_*/theory.ipynb"))
IN_NOTEBOOK_7 = "07_preference"  # the others in JupyterLab
NUMBERS = """box => [...box.querySelectorAll('.ftm-readouts')].map(
  list => [...list.children].map(pair => [...pair.children].map(part => part.textContent)))"""
PAINT = """box => new Promise(done => {
  const input = box.querySelector('input'), times = [];
  const step = left => {
    if (!left) return done(times.sort((a, b) => a - b)[times.length >> 1]);
    input.value = Number(input.value) > 0 ? Number(input.value) - 1 : Number(input.max);
    const start = performance.now();
    input.dispatchEvent(new Event('input'));
    requestAnimationFrame(() => { times.push(performance.now() - start); step(left - 1); });
  };
  step(21);
})"""


def twin_rows(cells: list[dict]) -> list[list[str]]:
    """Return the rows of numbers of a notebook's static twins: each slider at its ends and its start."""
    shown = ["".join(output["data"].get("text/html", "")) for output in outputs(cells) if "data" in output]
    rows = re.findall(
        r'<tr><th scope="row">[^<]*</th>(.*?)</tr>', "".join(text for text in shown if "ftmath-twin" in text)
    )
    return [[html.unescape(words) for words in re.findall(r"<td>(.*?)</td>", row)] for row in rows]


@pytest.mark.parametrize("part", PARTS)
def test_a_parts_theory_runs_and_its_explorer_answers_the_keyboard(
    run_notebook: Callable, run_in_notebook_7: Callable, explorer: Callable, demand_accessible: Callable, part: str
):
    run = run_in_notebook_7 if part == IN_NOTEBOOK_7 else run_notebook
    page, cells = run(f"course/{part}/theory.ipynb", part)
    outputs(cells)
    widget = explorer(page)
    slides = widget.locator("input").count() > 0
    control = widget.locator("input, button:not([disabled])").first
    control.focus()
    seen = []
    for key in ("Home", "ArrowRight", "End") if slides else ("Tab", "Enter"):
        control.press(key)
        page.wait_for_timeout(300)
        seen.append(page.evaluate(NUMBERS, widget.element_handle())[0])
    assert [name for name, _ in seen[0]] == [name for name, _ in seen[-1]]
    assert seen[0] != seen[-1]
    if slides:
        # What stands under the picture is what ftmath's own functions gave in Python, which wrote the static twin.
        rows = twin_rows(cells)
        assert [words for _, words in seen[0]] in rows
        assert [words for _, words in seen[-1]] in rows
        assert page.evaluate(PAINT, widget.element_handle()) < 50
    demand_accessible(page, ".ftmath-explorer, .ftmath-painter")
