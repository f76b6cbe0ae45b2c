"""The notebooks as a student opens them: JupyterLab in headless Chromium, run from the top."""

from collections.abc import Callable

import pytest
from ftgrade.catalog import home

pytestmark = pytest.mark.browser
ERRORS = (
    '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"], .jp-RenderedText[data-mime-type*="error"]'
)


def test_the_landing_notebook_runs_and_its_check_answers(run_notebook: Callable):
    page = run_notebook("course/index.ipynb", "landing.png")
    assert page.locator(ERRORS).count() == 0
    status = page.locator('div[role="status"]', has_text="double")
    status.wait_for()
    assert "not right yet" in status.inner_text()
    assert "should give 8, gave 12" in status.inner_text()
    assert page.get_by_text("torch 2", exact=False).count() >= 1


@pytest.mark.parametrize("stem", home().stems())
def test_an_untouched_problem_runs_and_says_not_attempted_everywhere(run_notebook: Callable, stem: str):
    page = run_notebook(f"source/{stem}/{stem}.ipynb", f"{stem}.png")
    assert page.locator(ERRORS).count() == 0
    answered = page.locator('div[role="status"]')
    checks = home().problem(stem).checks
    page.wait_for_function(f"() => document.querySelectorAll('div[role=status]').length >= {min(3, len(checks))}")
    said = answered.all_inner_texts()
    assert said
    assert all("not attempted" in text for text in said if "graded on hidden inputs" in text)
