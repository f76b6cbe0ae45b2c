"""The notebooks as a student opens them: JupyterLab in headless Chromium, run from the top."""

from collections.abc import Callable

import pytest
from ftgrade.catalog import home

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
