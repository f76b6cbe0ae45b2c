"""Explorers on a web page, from disk, without a kernel or a network: they move, and their numbers are ftmath's."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ftmath import widgets

ROOT = Path(__file__).parents[2]
TORCH = "import torch; from torch import eye, randn, tensor, zeros, ones\nfrom ftmath.choose import Option\n"
ROWS = "{'new': zeros(50), 'old': ones(50)}"
EXAMPLES = {
    "MaskPainter": "MaskPainter('A line', ['a', '</script>', 'c'], [9.0, 1.0, 3.0], [1, 1, 0])",
    "best_of_n_explorer": "best_of_n_explorer()",
    "beta_explorer": "beta_explorer(tensor([0.5, 0.3, 0.2]).double(), tensor([0.0, 1.0, 2.0]).double())",
    "card_explorer": "card_explorer()",
    "choosing_explorer": "choosing_explorer([Option('full', 0.9, 0.2, 80, 2**25, 0, 2**22, 1.0)])",
    "lora_explorer": "lora_explorer(randn(12, 9, generator=torch.Generator().manual_seed(0)))",
    "mask_clinic": "mask_clinic()",
    "memory_explorer": "memory_explorer()",
    "outlier_explorer": "outlier_explorer()",
    "path_explorer": "path_explorer([0.0, 0.5, 1.0], {'task': [2.0, 1.0, 0.1]}, ['a', '<b>', 'c'])",
    "prefix_gate_explorer": "prefix_gate_explorer(eye(2), tensor([-1.0, 3.0]), tensor([1.0, 0.0]))",
    "reference_clinic": "reference_clinic()",
    "scorecard_explorer": f"scorecard_explorer({ROWS}, {{'idle': {ROWS}}}, 'new', counts=(25, 50))",
    "timeline_explorer": "timeline_explorer({'plain': {'bytes': [0, 2**20, 0], 'marks': {'up': 0, 'down': 2}}})",
}
"""A call of each function of `ftmath.widgets` that the notebooks show, with arguments that need no run."""
BUILD = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
import pages
if __name__ == "__main__":
    out = Path(sys.argv[2])
    pages.run(out / "staged" / "index.ipynb", out / "kept")
    sys.exit(pages.render(out))
"""
READOUTS = "root => [...root.querySelectorAll('.ftm-pair')].map(pair => [...pair.children].map(one => one.textContent))"

pytestmark = pytest.mark.browser


def called() -> list[str]:
    """Return the names of the widgets that the notebooks' masters show, once for each place."""
    trees = [ast.parse(path.read_text("utf-8")) for path in sorted((ROOT / "course" / "text").rglob("*.py"))]
    calls = [node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.id for call in calls if isinstance(call, ast.Name) and call.id in EXAMPLES]


SHOWN = called()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build a page with as many widgets as the notebooks have, as the site builds its pages; return where it is."""
    out = tmp_path_factory.mktemp("live")
    sources = [f"{TORCH}from ftmath.widgets import *", *(EXAMPLES[name] for name in SHOWN)]
    code: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [code | {"id": f"cell-{place}", "source": source} for place, source in enumerate(sources)]
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Widgets"}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [title, *cells], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (out / "staged").mkdir()
    (out / "staged" / "index.ipynb").write_text(json.dumps(notebook))
    (out / "build.py").write_text(BUILD)
    command = [sys.executable, str(out / "build.py"), str(ROOT / "site"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return (out / "html" / "index.html").as_uri()


@pytest.fixture
def page(browser: Any, site: str) -> Iterator[Any]:
    """Yield the page, opened from disk, at a phone's width and in the dark; it may ask nobody and raise no error."""
    page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme="dark")
    troubles: list[str] = []
    page.on("request", lambda asked: asked.url.startswith(("file:", "data:", "blob:")) or troubles.append(asked.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(site)
    yield page
    page.close()
    assert troubles == []


def test_the_notebooks_show_at_least_the_fourteen_widgets_that_are_tried_here():
    assert set(SHOWN) == set(EXAMPLES)
    assert len(SHOWN) >= 14
    makers = {name for name in widgets.__all__ if name.endswith(("_explorer", "_clinic", "Painter"))}
    assert makers == set(EXAMPLES)


def test_every_widget_of_the_notebooks_is_mounted_and_none_is_wider_than_a_phone(page: Any, look: Any):
    page.wait_for_function("count => document.querySelectorAll('[data-mounted]').length === count", arg=len(SHOWN))
    assert page.locator(".ftmath-live").count() == len(SHOWN)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for place, name in enumerate(SHOWN):
        look(page.locator(".ftmath-live").nth(place), f"live-{place}-{name}")


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {"MaskPainter"}))
def test_after_each_key_the_numbers_are_those_of_ftmaths_frame(page: Any, name: str):
    names: dict[str, Any] = {}
    exec(f"{TORCH}from ftmath.widgets import *\nmade = {EXAMPLES[name]}", names)
    made: widgets.Explorer = names["made"]
    root = page.locator(".ftmath-explorer").nth([shown for shown in SHOWN if shown != "MaskPainter"].index(name))
    state = [slider["start"] for slider in made.table["sliders"]]
    for number, slider in enumerate(made.table["sliders"]):
        control, last = root.locator("input").nth(number), len(slider["values"]) - 1
        for key, at in (("Home", 0), ("ArrowRight", min(1, last)), ("End", last), ("ArrowLeft", max(0, last - 1))):
            control.press(key)
            state[number] = at
            assert control.get_attribute("aria-valuetext") == slider["names"][at]
            frame = made.frame(*state)
            assert page.evaluate(READOUTS, root.element_handle()) == [list(pair) for pair in frame["readouts"]]
            said = [panel.get_attribute("aria-label") for panel in root.locator("svg[role=img]").all()]
            assert said == [panel["alt"] for panel in frame["panels"]]
    made.close()


def test_a_painted_token_changes_the_loss_by_keyboard(page: Any):
    root = page.locator(".ftmath-painter").first
    assert root.locator("button").nth(1).inner_text().startswith("</script>")
    assert ["loss, nats per target", "1.0000"] in page.evaluate(READOUTS, root.element_handle())
    root.locator("button").nth(2).press("Enter")
    assert ["loss, nats per target", "2.0000"] in page.evaluate(READOUTS, root.element_handle())
    assert root.locator("button").nth(2).get_attribute("aria-pressed") == "true"


def test_widgets_are_accessible_and_follow_the_page_from_light_to_dark(page: Any, demand_accessible: Any):
    ink = "() => getComputedStyle(document.querySelector('.ftmath-explorer .s0')).stroke"
    seen = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("is => document.body.dataset.jpThemeLight === is", arg=str(scheme == "light").lower())
        demand_accessible(page, ".ftmath-live")
        seen[scheme] = page.evaluate(ink)
    assert seen["light"] != seen["dark"]
    page.evaluate("() => { document.body.dataset.theme = 'light'; }")  # what the theme's switch sets
    page.wait_for_function("() => document.body.dataset.jpThemeLight === 'true'")
    assert page.evaluate(ink) == seen["light"]


def test_without_scripts_the_static_twins_stand(browser: Any, site: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site)
    places = page.locator(".ftmath-live")
    assert places.count() == len(SHOWN)
    for place in places.all():
        assert place.locator("table").first.is_visible()
    assert page.locator(".ftmath-explorer, .ftmath-painter").count() == 0
    context.close()
