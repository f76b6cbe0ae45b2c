"""A slide deck in headless Chromium, from disk and with the network closed: keys, formulas, colours, print."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ftmath.findings import finding
from ftmath.plots import bars

ROOT = Path(__file__).parents[2]
PART = ROOT / "course" / "05_lora_algebra"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def slides() -> Any:
    sys.path.insert(0, str(ROOT / "site"))
    try:
        return importlib.import_module("slides")
    finally:
        sys.path.remove(str(ROOT / "site"))


def with_made_up_outputs(lesson: dict[str, Any]) -> dict[str, Any]:
    """Give each picture and each finding of a lesson an output, without a run."""
    drawn = bars(["q", "k"], {"update": [0.9, 0.8]}, title="Made up", y_label="share", alt="Two bars.")
    found = finding(
        "The update is of low rank", figure="energy at rank 16", measured=[0.9, 0.8, 0.9], null="noise",
        control=[0.3, 0.2, 0.3], holds=lambda share: min(share) > 0.6, scope="made up, 3 seeds",
    )  # fmt: skip
    for cell in lesson["cells"]:
        source = "".join(cell["source"])
        shown = drawn if source.startswith("# Picture:") else found if "finding(\n" in source else None
        if cell["cell_type"] == "code" and shown is not None:
            cell["outputs"] = [{"output_type": "execute_result", "data": shown._repr_mimebundle_()}]
    return lesson


@pytest.fixture(scope="module")
def deck(slides: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    try:
        slides.lay_reveal(folder / "reveal")
    except OSError as error:
        pytest.skip(f"reveal.js isn't there: {error}")
    lesson = with_made_up_outputs(json.loads((PART / "theory.ipynb").read_text("utf-8")))
    assert slides.write_deck(PART, lesson, folder) <= slides.lecture.MOST
    return folder / f"{PART.name}.html"


@pytest.fixture
def open_deck(browser: Any, deck: Path) -> Iterator[Callable[..., Any]]:
    """Yield a function that opens the deck; at the end no page has asked another place or written an error."""
    opened, wrong = [], []

    def gate(route: Any) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            wrong.append(route.request.url)
            route.abort()

    def open_deck(query: str = "", width: int = 1280, scheme: str = "light", strict: bool = True) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 720}, color_scheme=scheme)
        opened.append(page)
        page.route("**/*", gate)
        if strict:
            listen(page)
        page.goto(deck.as_uri() + query)
        page.wait_for_function("() => window.Reveal?.isReady()", timeout=60_000)
        return page

    def listen(page: Any) -> None:
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)

    yield open_deck
    for page in opened:
        page.close()
    assert wrong == []


def heading(page: Any) -> str:
    return page.evaluate("() => Reveal.getCurrentSlide().querySelector('h1, h2').innerText")


def test_arrow_keys_move(open_deck: Callable[..., Any], look: Callable[[Any, str], None]):
    page = open_deck()
    assert heading(page) == "Part 5: LoRA's algebra"
    look(page, "slides-title")
    page.keyboard.press("ArrowRight")
    assert heading(page) == "5.1 Rank constraint"
    assert page.locator("section.present mjx-container svg").count() >= 1
    page.keyboard.press("ArrowRight")
    assert page.locator("section.present .finding").inner_text().startswith("The update is of low rank")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("End")
    assert heading(page) == "Now you"


@pytest.mark.parametrize("width", [1280, 390])
def test_no_slide_is_cut_and_no_formula_is_wrong(open_deck: Callable[..., Any], width: int):
    page = open_deck(width=width)
    tall, wide = page.evaluate("() => [Reveal.getConfig().height, Reveal.getConfig().width]")
    for place in range(page.evaluate("() => Reveal.getTotalSlides()")):
        page.evaluate("place => Reveal.slide(place)", place)
        size = page.evaluate("() => [Reveal.getCurrentSlide().scrollHeight, Reveal.getCurrentSlide().scrollWidth]")
        assert size[0] <= tall, heading(page)
        assert size[1] <= wide, heading(page)
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 24, 27)")])
def test_a_deck_takes_the_readers_colours_and_is_accessible(
    open_deck: Callable[..., Any], demand_accessible: Callable[..., None], scheme: str, ground: str
):
    """Not strict: axe asks for style sheets itself, which a page from disk refuses."""
    page = open_deck(scheme=scheme, strict=False)
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == ground
    demand_accessible(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    demand_accessible(page)


def test_print_puts_each_slide_on_a_page(open_deck: Callable[..., Any], slides: Any):
    page = open_deck("?print-pdf", scheme="dark")
    page.wait_for_function("() => document.querySelectorAll('.pdf-page').length > 0")
    count = page.evaluate("() => Reveal.getTotalSlides()")
    assert page.locator(".pdf-page").count() == count
    page.emulate_media(media="print", color_scheme="dark")
    ground = "() => getComputedStyle(document.querySelector('.pdf-page')).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"


def test_s_opens_the_speakers_view_with_the_prose(open_deck: Callable[..., Any]):
    page = open_deck()
    page.keyboard.press("ArrowRight")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    notes = popup.value.locator(".speaker-controls-notes")
    notes.get_by_text("LoRA sends the input through a narrow place").wait_for(timeout=20_000)
    assert notes.locator("math").count() > 5
    assert notes.locator("mjx-container").count() == 0  # else each formula would be there twice
