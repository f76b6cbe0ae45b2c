"""The web pages in headless Chromium with the network closed: formulas, widgets, reading, search, light and dark."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["index", "05_lora_algebra/theory", "05_lora_algebra/exercises", "formulas", "glossary", "errata",
         "source/p05_truncated_svd/p05_truncated_svd"]  # fmt: skip

pytestmark = pytest.mark.browser


def built(*words: str) -> None:
    command = [sys.executable, str(ROOT / "site" / "pages.py"), *words]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, serving_pages: Callable) -> Iterator[str]:
    """Build the front door and part 5, and serve them to this machine."""
    out = tmp_path_factory.mktemp("site")
    built("--parts", "5", "--out", str(out))
    with serving_pages(out / "html") as found:
        yield found


@pytest.fixture
def page(closed_page: Any) -> Any:
    return closed_page


def test_every_page_of_the_whole_site_renders_without_a_warning(tmp_path: Path):
    """A link that leads to no page or heading is a warning, and refused."""
    built("--no-run", "--out", str(tmp_path))
    assert len(list((tmp_path / "html").glob("[0-9]*/*.html"))) == len(list((ROOT / "course").glob("[0-9]*/*.ipynb")))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_sets_its_formulas_and_overflows_nowhere(page, address: str, name: str):
    page.goto(f"{address}/{name}.html")
    page.wait_for_selector("mjx-container svg")
    page.wait_for_function("() => !MathJax.startup.promise || MathJax.startup.promise.then(() => true)")
    formulas = page.locator("article .math").count()
    assert page.locator("article mjx-container").count() >= formulas > 0
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert "$$" not in page.locator("article").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("name", ["index", "05_lora_algebra/theory"])
def test_what_stands_on_a_page_is_accessible_in_light_and_dark(page, address: str, demand_accessible, name: str):
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{address}/{name}.html")
        page.wait_for_selector("mjx-container svg")
        demand_accessible(page)


def test_links_between_notebooks_reach_their_headings(page, address: str):
    page.goto(f"{address}/05_lora_algebra/theory.html")
    for text, title in (("exercise 5.1", "Part 5, exercises"), ("p05, truncated SVD", "Problem 5")):
        page.goto(f"{address}/05_lora_algebra/theory.html")
        page.locator("article a", has_text=text).first.click()
        page.wait_for_load_state()
        assert title in page.title()
    page.goto(f"{address}/formulas.html")
    page.locator("article a", has_text="5.4 Merge for inference").click()
    page.wait_for_load_state()
    assert page.locator(":target h2", has_text="5.4 Merge for inference").count() == 1
    dead = page.evaluate("() => [...document.querySelectorAll('article a[href$=\".ipynb\"]')].map(a => a.href)")
    assert dead == []


def test_a_widget_moves_where_its_twin_stood_and_a_figure_is_shown_by_its_picture(page, address: str):
    page.goto(f"{address}/05_lora_algebra/theory.html")
    page.wait_for_selector(".ftmath-live[data-mounted] .ftmath-explorer")
    assert page.locator(".ftmath-twin").count() == 0
    page.locator(".ftmath-explorer input").press("Home")
    assert "1 of 128 singular values kept" in str(page.locator(".ftm-panel svg").first.get_attribute("aria-label"))
    assert page.locator("article figure svg[role=img][aria-label]").count() >= 5
    assert page.locator("script[src^=http]").count() == 0


def test_outputs_are_there_and_nobodys_progress(page, address: str):
    page.goto(f"{address}/index.html")
    text = page.locator("article").inner_text()
    assert "should give 8, gave 12" in text
    assert "full fine-tuning" in text
    assert "Your exercises" not in text


def test_search_finds_a_word_of_a_notebook(page, address: str):
    page.goto(f"{address}/search.html?q=rank")
    page.wait_for_selector("#search-results ul.search li")
    found = page.locator("#search-results ul.search li").all_inner_texts()
    assert any("LoRA" in text for text in found)


def test_light_and_dark_differ_and_both_can_be_read(page, address: str, tmp_path: Path):
    contrast = """() => {
      const parse = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = c => parse(c).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
      const [front, back] = [getComputedStyle(document.querySelector('article p')).color,
                             getComputedStyle(document.body).backgroundColor].map(light);
      return [back, (Math.max(front, back) + .05) / (Math.min(front, back) + .05)];
    }"""
    backs = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{address}/05_lora_algebra/theory.html")
        page.wait_for_selector("mjx-container svg")
        backs[scheme], ratio = page.evaluate(contrast)
        assert ratio >= 7
        page.screenshot(path=tmp_path / f"{scheme}.png")
    assert backs["light"] > 0.9
    assert backs["dark"] < 0.1


def test_figures_are_drawings_whose_words_are_text_in_the_pages_colours(page, address: str, look):
    seen = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{address}/05_lora_algebra/theory.html")
        drawing = page.locator("article figure svg[role=img]").nth(1)
        assert len(drawing.get_attribute("aria-label")) > 30
        assert "rank" in " ".join(drawing.locator("text").all_text_contents())
        seen[scheme] = drawing.locator("text").first.evaluate("it => getComputedStyle(it).fill")
        look(drawing, f"figure-{scheme}")
    assert seen["light"] == "rgb(0, 0, 0)"
    assert min(map(int, re.findall(r"\d+", seen["dark"]))) > 180


def test_a_figure_is_as_wide_as_a_phone_and_no_id_stands_twice(page, address: str):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{address}/05_lora_algebra/theory.html")
    page.wait_for_selector("article figure svg[role=img]")
    for drawing in page.locator("article figure svg[role=img]").all():
        box = drawing.bounding_box()
        assert 300 < box["width"] <= 390
        assert box["x"] >= 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    twice = """() => {
      const ids = [...document.querySelectorAll('article figure svg [id]')].map(it => it.id);
      return ids.filter((id, at) => ids.indexOf(id) !== at);
    }"""
    assert page.evaluate(twice) == []
