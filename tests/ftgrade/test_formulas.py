"""Formulas are set without a script: every one of the problems, and none in what a student wrote."""

import json
import re
from pathlib import Path

import pytest
from ftgrade.catalog import home
from ftgrade.gradebook.cells import fence
from ftgrade.pages.formulas import markdown_html
from nbconvert.exporters import HTMLExporter
from traitlets.config import Config

CODE = re.compile(r"<(pre|code)\b.*?</\1>", re.DOTALL)
FORMULA = re.compile(r"<math\b.*?</math>", re.DOTALL)


def texts(stem: str) -> list[str]:
    cells = json.loads(home().leaves(stem).notebook.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


@pytest.mark.parametrize("stem", home().stems())
def test_every_formula_of_a_problem_is_set_and_no_command_is_left(stem: str):
    text = "\n".join(texts(stem))
    page = CODE.sub("", markdown_html(text))
    assert bool(FORMULA.search(page)) == ("$" in text)
    assert "$" not in page
    assert "\\" not in page


def test_a_fraction_is_one_thing_over_another():
    assert "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>" in markdown_html(r"$\frac{a}{b}$")
    assert 'display="block"' in markdown_html("$$\nx = 1\n$$")


@pytest.mark.parametrize("words", [r"$\frac$", "$$\n\\left(\n$$", "\\begin{nothing}\nx\n\\end{nothing}", "$<b>$"])
def test_a_students_formula_is_shown_as_it_was_typed(words: str):
    page = markdown_html(fence(words))
    assert "<math" not in page
    assert "<b>" not in page


def test_formgraders_page_asks_the_network_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ftgrade.nbgrader_step import configure

    monkeypatch.chdir(tmp_path)
    config = Config()
    configure(config)
    exporter = HTMLExporter(config=config, template_name="formgrade")
    notebook = home().leaves("p05_truncated_svd").notebook
    nbgrader = {"base_url": "", "index": 0, "total": 1, "notebook_id": "p05", "assignment_id": "p05"}
    page, _ = exporter.from_filename(str(notebook), resources=nbgrader | {"submission_id": "1", "submission": None})
    assert FORMULA.search(page)
    assert "MathJax.js" not in page
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*', page) == []
