"""The page that fine-tunes in the tab, in headless Chromium with the network closed: from a server and from disk."""

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
ALL = ["q", "k", "v", "o", "gate", "up", "down"]

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def finetune() -> Any:
    sys.path.insert(0, str(ROOT / "site"))
    try:
        return importlib.import_module("finetune")
    finally:
        sys.path.remove(str(ROOT / "site"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, finetune: Any) -> Path:
    """Build parts 1, 4 and 5 without outputs; the recorded runs are made up."""
    out = tmp_path_factory.mktemp("site")
    finetune.recorded(
        out / "kept", lambda rank, rate: finetune.Recorded(rank, rate, (7.0, 3.5), 0.25, {"copy": 1.0, "add": 0.5})
    )
    words = ["--parts", "1", "4", "5", "--no-run", "--out", str(out)]
    command = [sys.executable, str(ROOT / "site" / "pages.py"), *words]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return out / "html"


@pytest.fixture(scope="module")
def address(built: Path, serving_pages: Callable) -> Iterator[str]:
    with serving_pages(built) as found:
        yield found


@pytest.fixture
def page(closed_page: Any) -> Any:
    return closed_page


def opened(page: Any, address: str) -> None:
    page.goto(f"{address}/lab/finetune.html")
    page.wait_for_function("document.querySelector('.ft-status')?.textContent.startsWith('ready')", timeout=120_000)


def finished(page: Any) -> str:
    page.wait_for_function("document.querySelector('.ft-summary').textContent !== ''", timeout=240_000)
    return page.locator(".ft-summary").inner_text()


def losses_of(page: Any) -> tuple[float, float]:
    """Return the first and the last loss that the picture tells."""
    words = page.locator(".ft-loss svg").get_attribute("aria-label").split()
    return float(words[words.index("from") + 1]), float(words[words.index("to") + 1])


@pytest.fixture
def run(page: Any) -> Callable[[], str]:
    def run() -> str:
        page.select_option("[name=steps]", "20")
        page.get_by_role("button", name="Start").click()
        return finished(page)

    return run


@pytest.mark.parametrize("place", ["a server", "disk"])
def test_a_run_lowers_the_loss_and_shows_what_it_costs(page: Any, address: str, built: Path, run: Callable, place: str):
    opened(page, address if place == "a server" else built.as_uri())
    page.fill("[name=guess]", "2.5")
    said = run()
    first, last = losses_of(page)
    assert last < first - 2
    assert "You predicted 2.5." in said
    assert "Old skills kept: 1.00 before" in said
    assert "Singular values of the update of block" in page.locator(".ft-spectrum svg").get_attribute("aria-label")
    assert page.locator(".ft-spectrum rect").count() == 4
    assert page.locator(".ft-skills circle").count() == 22
    assert page.locator(".ft-answer tbody tr").count() >= 4
    assert "WebAssembly" in page.locator(".ft-status").inner_text()


def test_at_rate_zero_nothing_is_learned_and_nothing_lost(page: Any, address: str, run: Callable):
    opened(page, address)
    page.get_by_role("button", name="Rate 0 (control)").click()
    assert "Right answers on flip: 0.00 before, 0.00 after. Old skills kept: 1.00 before, 1.00 after." in run()
    assert page.locator(".ft-spectrum-note").inner_text() == "The update is exactly 0."


def test_the_arithmetic_in_the_browser_is_torchs(page: Any, address: str, finetune: Any):
    from ftmath.groups import rate_groups
    from ftmath.lora import add_lora
    from ftmath.masks import model_loss
    from ftmath.skills import batch
    from ftmath.training import train
    from ftmath.weights import base_model

    page.goto(f"{address}/lab/finetune.html")
    found = page.evaluate(
        """settings => {
          const { code, weights, tables } = window.finetuneParts;
          const { Trainer, readWeights } = new Function("self", code + "; return { Trainer, readWeights };")({});
          const trainer = new Trainer(readWeights(Uint8Array.from(atob(weights), (letter) => letter.charCodeAt(0))));
          trainer.reset(settings);
          return tables.tasks.flip.batches.slice(0, 10).map((lines) => trainer.step(lines));
        }""",
        {"rank": 4, "alpha": 8, "targets": ALL, "rate": 1e-3, "seed": 0},
    )
    model, rows = base_model(), [batch(lines) for lines in finetune.batches("flip", 10)]
    add_lora(model, ALL, 4, 8.0, generator=torch.Generator().manual_seed(0))

    def loss(step: int) -> torch.Tensor:
        return model_loss(model, rows[step].ids, rows[step].answer_mask)

    assert found == pytest.approx(train(model, loss, rate_groups(model, {}, 1e-3), 10), rel=0.01)


def test_a_run_can_be_paused_and_thrown_away_by_keyboard(page: Any, address: str):
    opened(page, address)
    page.select_option("[name=steps]", "120")
    page.get_by_role("button", name="Start").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.ft-loss svg').ariaLabel.startsWith('Loss of ')")
    assert page.evaluate("document.activeElement.name") == "pause"
    page.keyboard.press("Space")
    assert page.get_by_role("button", name="Go on").count() == 1
    page.wait_for_function("document.querySelector('.ft-status').textContent.startsWith('paused at step')")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "nothing has run yet" in page.locator(".ft-loss svg").get_attribute("aria-label")
    assert page.get_by_role("button", name="Start").is_enabled()


def test_settings_that_train_nothing_are_refused_in_words(page: Any, address: str):
    opened(page, address)
    for name in ALL:
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    assert page.get_by_role("button", name="Start").is_disabled()
    assert page.locator(".ft-status").inner_text() == "choose at least one matrix"


def test_the_page_is_accessible_in_light_and_dark_and_fits_a_phone(
    page: Any, address: str, run: Callable, demand_accessible: Callable, look: Callable
):
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        page.set_viewport_size({"width": width, "height": 1200})
        page.emulate_media(color_scheme=scheme)
        opened(page, address)
        run()
        demand_accessible(page)
        look(page, f"finetune_{scheme}_{width}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_scripts_recorded_runs_are_shown(browser: Any, address: str):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}/lab/finetune.html")
    assert page.locator(".ft-twin svg").is_visible()
    assert page.locator(".ft-twin tbody tr").count() == 4
    page.close()


def test_parts_1_4_and_5_lead_to_the_page(page: Any, address: str):
    for part in ("01_local_adaptation", "04_parameter_efficient", "05_lora_algebra"):
        page.goto(f"{address}/{part}/theory.html")
        page.locator("article a", has_text="Fine-tune in the tab").click()
        page.wait_for_url("**/lab/finetune.html")
