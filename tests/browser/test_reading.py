"""The whole course as pages from disk, without outputs: folded code, short lines, the next page, and the search."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
THEORIES = sorted((ROOT / "course").glob("[0-9]*/theory.ipynb"))
LONGEST = """() => {
  const lines = [];
  for (const block of document.querySelectorAll('article :is(p, li, dd)')) {
    if (block.closest('table, .cell_input, .cell_output') || !block.offsetParent || block.querySelector('p')) continue;
    const rows = new Map(), walk = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
    for (let text = walk.nextNode(); text; text = walk.nextNode()) {
      if (text.parentElement.closest('mjx-container, li li')) continue;
      for (let at = 0; at < text.length; at += 1) {
        const range = document.createRange();
        range.setStart(text, at);
        range.setEnd(text, at + 1);
        const box = range.getBoundingClientRect(), row = Math.round(box.bottom / 8);
        if (box.width) rows.set(row, (rows.get(row) ?? '') + text.data[at]);
      }
    }
    lines.push(...rows.values());
  }
  return lines.sort((one, other) => other.length - one.length)[0];
}"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build all pages without running anything; return the address of their folder on disk."""
    out = tmp_path_factory.mktemp("whole")
    command = [sys.executable, str(ROOT / "site" / "pages.py"), "--no-run", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return (out / "html").as_uri()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Yield a page that may ask nobody and raise no error."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    troubles: list[str] = []
    page.on("request", lambda asked: asked.url.startswith(("file:", "data:", "blob:")) or troubles.append(asked.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    yield page
    page.close()
    assert troubles == []


@pytest.mark.parametrize("words", ["DPO beta", "DPO loss", "beta DPO"])
def test_the_search_finds_the_part_that_teaches_it_first(page: Any, site: str, words: str):
    page.goto(f"{site}/search.html?q={words}")
    first = page.locator("#search-results ul.search li a").first
    first.wait_for()
    assert first.inner_text() == "Part 7: preference fine-tuning"
    first.click()
    assert page.locator("article h1").inner_text().startswith("Part 7: preference fine-tuning")


def test_the_search_box_of_a_page_leads_there(page: Any, site: str):
    page.goto(f"{site}/index.html")
    box = page.locator("input.sidebar-search")
    box.fill("gradient checkpointing")
    box.press("Enter")
    page.locator("#search-results ul.search li a").first.wait_for()
    assert page.locator("#search-results ul.search li a").first.inner_text().startswith("Part 6: quantized")


@pytest.mark.parametrize("name", ["index", "glossary", "07_preference/theory", "05_lora_algebra/exercises"])
@pytest.mark.parametrize("width", [1280, 1920])
def test_no_line_of_prose_is_longer_than_80_characters(page: Any, site: str, name: str, width: int):
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{site}/{name}.html")
    page.wait_for_selector("mjx-container svg")
    longest = page.evaluate(LONGEST)
    assert 50 < len(longest.strip()) <= 80, longest


def test_code_that_the_notebooks_fold_is_folded_and_one_click_shows_it_without_scripts(browser: Any, site: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for path in THEORIES:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        folded = [cell for cell in cells if cell["metadata"].get("jupyter", {}).get("source_hidden")]
        page.goto(f"{site}/{path.parent.name}/theory.html")
        blocks = page.locator("details.hide.above-input")
        assert blocks.count() == len(folded) > 0
        assert page.locator("details.hide[open]").count() == 0
        code = blocks.first.locator("pre")
        assert not code.is_visible()
        blocks.first.locator("summary").click()
        assert code.is_visible()
    context.close()


def test_each_page_leads_to_the_next_from_the_front_door_to_the_last_and_back(page: Any, site: str):
    page.goto(f"{site}/index.html")
    visited = [page.url]
    while page.locator("a.next-page").count():
        page.locator("a.next-page").click()
        page.wait_for_load_state()
        visited.append(page.url)
    parts = [url.removeprefix(f"{site}/") for url in visited if "/theory.html" in url]
    assert parts == [f"{path.parent.name}/theory.html" for path in THEORIES]
    assert len(visited) == len(set(visited)) > 2 * len(THEORIES)
    page.locator("a.prev-page").click()
    page.wait_for_load_state()
    assert page.url == visited[-2]


def test_the_parts_titles_are_capitalised_alike():
    titles = [json.loads(path.read_text("utf-8"))["cells"][0]["source"] for path in THEORIES]
    after = ["".join(title).splitlines()[0].partition(": ")[2] for title in titles]
    assert all(name[0].islower() or name.startswith("LoRA") for name in after), after
