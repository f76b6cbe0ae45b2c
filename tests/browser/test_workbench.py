"""Exercises that run in the page, in headless Chromium with the network closed."""

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXERCISES, PROBLEM = "05_lora_algebra/exercises.html", "source/{0}/{0}.html"
RANK = """def rank_in_log(trainable, shapes, targets, layers):
    one = layers * sum(sum(shapes[target]) for target in targets)
    return trainable // one if trainable % one == 0 else 0
"""
LAYERS_FORGOTTEN = RANK.replace("layers * sum", "sum", 1)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    words = [sys.executable, str(ROOT / "site" / "pages.py"), "--parts", "5", "--no-run", "--out", str(out)]
    finished = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    if "npm can't get pyodide" in finished.stdout:
        pytest.skip("npm's registry isn't reachable: the pages have no benches")
    return out


@pytest.fixture(scope="module")
def address(out: Path, serving_pages: Callable) -> Iterator[str]:
    with serving_pages(out / "html") as found:
        yield found


@pytest.fixture
def page(closed_page: Any) -> Any:
    return closed_page


def bench(page, title: str):
    return page.get_by_role("group", name=f"Try {title}")


def pressed(page, title: str, button: str = "Check", *, text: str | None = None, within: float = 60) -> str:
    """Write an answer, press a button, and return what the page says then."""
    place = bench(page, title)
    if text is not None:
        place.get_by_role("textbox").fill(text)
    place.get_by_role("button", name=button).click()
    page.wait_for_function(
        "place => !place.querySelector('[data-busy]') && place.querySelector('.workbench-said').textContent",
        arg=place.element_handle(), timeout=within * 1000,
    )  # fmt: skip
    return place.get_by_role("status").inner_text()


LOG = "5.2 The rank behind a log"


def test_a_right_answer_and_a_named_slip_are_told_as_in_the_notebook(page, address: str):
    page.goto(f"{address}/{EXERCISES}")
    assert "not started" in pressed(page, LOG)
    said = pressed(page, LOG, text=LAYERS_FORGOTTEN)
    from ftmath.exercises import exercise

    assert any(slip.says in said for slip in exercise("5.2").mistakes), said
    assert "✓ 5.2 The rank behind a log: right" in pressed(page, LOG, text=RANK)
    assert "not started" in pressed(page, "5.1 The rank of a sum")  # a blank still stands in it


def test_progress_and_answers_outlive_the_page(page, address: str):
    page.goto(f"{address}/{EXERCISES}")
    pressed(page, LOG, text=RANK)
    page.reload()
    assert "✓ right" in bench(page, LOG).inner_text()
    assert bench(page, LOG).get_by_role("textbox").input_value() == RANK
    pressed(page, LOG, "Reset")
    assert "NotImplementedError" in bench(page, LOG).get_by_role("textbox").input_value()


def test_hints_come_one_by_one_and_the_solution_after_three_attempts(page, address: str):
    page.goto(f"{address}/{EXERCISES}")
    assert "hint 1 of" in pressed(page, LOG, "Hint")
    assert "hint 2 of" in pressed(page, LOG, "Hint")
    assert "3 more different attempts" in pressed(page, LOG, "Solution")
    for number in range(3):
        said = pressed(
            page, LOG, text=f"def rank_in_log(trainable, shapes, targets, layers):\n    return {number} - 99\n"
        )
    assert "The solution is open now" in said
    assert "for_one" in pressed(page, LOG, "Solution")


def test_an_endless_loop_is_stopped_and_the_next_check_works(page, address: str):
    page.goto(f"{address}/{EXERCISES}")
    endless = "def rank_in_log(*words):\n    while True:\n        pass\n"
    assert "Stopped: no answer after 10 seconds" in pressed(page, LOG, text=endless)
    assert "right" in pressed(page, LOG, text=RANK)
    place = bench(page, LOG)
    place.get_by_role("textbox").fill(endless)
    place.get_by_role("button", name="Check").click()
    assert "Stopped. The next check" in pressed(page, LOG, "Stop")
    assert "right" in pressed(page, LOG, text=RANK)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import torch\n    return 0", "torch isn't available in this page"),
        ("print('x' * 10**7)\n    return -1", "more characters)"),
        ("return 'x' * 10**7", "and that isn't it"),
        ("raise ValueError('x' * 10**7)", "more characters)"),
        ("raise SystemExit", "SystemExit"),
        ("return rank_in_log(*words)", "RecursionError"),
        ("return len([0] * 10**9)", "MemoryError"),
        ("return input()", "EOFError"),
        ("return (", "Python can't read line"),
    ],
)
def test_an_answer_that_goes_wrong_is_told_in_words(page, address: str, body: str, told: str):
    page.goto(f"{address}/{EXERCISES}")
    said = pressed(page, LOG, text=f"def rank_in_log(*words):\n    {body}\n")
    assert told in said
    assert len(said) < 12_000
    assert "right" in pressed(page, LOG, text=RANK)


def test_the_keyboard_writes_checks_and_leaves(page, address: str):
    page.goto(f"{address}/{EXERCISES}")
    editor = bench(page, LOG).get_by_role("textbox")
    editor.fill("def rank_in_log(*words):")
    editor.press("End")
    editor.press("Enter")
    editor.press_sequentially("return -1")
    assert editor.input_value() == "def rank_in_log(*words):\n    return -1"
    editor.press("Shift+Tab")
    editor.press("Tab")
    editor.press("Control+Enter")
    page.wait_for_function("() => document.querySelector('.workbench-said[data-status=wrong]')", timeout=60_000)
    editor.press("Escape")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Check"


def test_public_checks_of_problems_run_and_say_what_is_left_out(page, address: str):
    page.goto(f"{address}/{PROBLEM.format('p03_lora_parameters')}")
    assert "not attempted" in pressed(page, "lora_param_count")
    said = pressed(
        page, "lora_param_count", text=stub("p03_lora_parameters", "lora_param_count", "return r * (d_in + d_out)")
    )
    assert "lora_param_count(5, 3, 4.0)" in said
    assert "Not run here, since it needs" in said
    page.goto(f"{address}/{PROBLEM.format('p09_scorecard')}")
    assert page.locator(".workbench textarea").count() == 6
    wrong = stub("p09_scorecard", "paired_binary_se", "return 0.0")
    assert "should give 0.1768, gave 0.0" in pressed(page, "paired_binary_se", text=wrong)


def stub(stem: str, name: str, body: str) -> str:
    tree = ast.parse((ROOT / "solutions" / f"{stem}.py").read_text())
    node = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    node.body = [node.body[0], *ast.parse(f"def f():\n    {body}").body[0].body]  # pyright: ignore[reportAttributeAccessIssue]
    return ast.unparse(node)


def test_every_exercise_of_a_bench_is_right_with_its_solution(page, address: str, out: Path):
    """The very archive and the very Python of the page: each reference is right."""
    page.goto(f"{address}/{EXERCISES}")
    found = page.evaluate(
        """async () => {
          const { loadPyodide } = await import("/_static/pyodide/pyodide.mjs");
          const python = await loadPyodide({ indexURL: "/_static/pyodide/" });
          const archive = await (await fetch("/_static/pyodide/ftmath.zip")).arrayBuffer();
          python.unpackArchive(archive, "zip", { extractDir: "/home/pyodide" });
          return JSON.parse(python.runPython(`
import json, os, sys
os.environ["FTMATH_PROGRESS"] = "/tmp/progress.json"
sys.path.insert(0, "/home/pyodide")
import bench
door = bench.door()
every = [one for part in door.PARTS for one in door.exercises(part).values()]
json.dumps([[one.number, bench.kinds().outcome(one, one.reference).status,
  all(bench.kinds().outcome(one, slip.wrong).words == slip.says for slip in one.mistakes)] for one in every])`));
        }"""
    )
    assert len(found) >= 50
    assert [one for one in found if one[1:] != ["right", True]] == []


def test_no_reference_answer_of_a_graded_problem_is_in_the_site(out: Path):
    texts = [
        path.read_text("utf-8") for path in out.rglob("*") if path.suffix in (".html", ".js", ".ipynb", ".json", ".txt")
    ]
    with zipfile.ZipFile(out / "html" / "_static" / "pyodide" / "ftmath.zip") as archive:
        texts += [archive.read(name).decode() for name in archive.namelist()]
    squeezed = "".join("".join(text.split()) for text in texts)
    for path in (ROOT / "solutions").glob("p*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and len(ast.unparse(node.body[-1])) > 60:
                assert "".join(ast.unparse(node.body[-1]).split()) not in squeezed, f"{path.stem}.{node.name}"
    assert "problem.slip(" not in squeezed


def test_a_bench_is_accessible_and_fits_a_phone(page, address: str, demand_accessible, look):
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{address}/{EXERCISES}")
        pressed(page, LOG, text=LAYERS_FORGOTTEN)
        demand_accessible(page)
        bench(page, LOG).scroll_into_view_if_needed()
        look(page, f"workbench-{scheme}")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    bench(page, LOG).scroll_into_view_if_needed()
    look(page, "workbench-phone")


def test_what_needs_torch_says_so_and_leads_to_other_ways(page, address: str):
    page.goto(f"{address}/{EXERCISES}")
    assert page.locator(".workbench textarea").count() == 4
    assert page.locator(".workbench-elsewhere", has_text="needs torch").count() == 7
    page.locator(".workbench-elsewhere a").first.click()
    page.wait_for_load_state()
    assert "The course elsewhere" in page.title()


def test_without_scripts_the_stubs_stand_as_they_were(browser, address: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/{EXERCISES}")
    assert page.locator(".cell", has_text="def rank_in_log").first.is_visible()
    assert not page.locator(".workbench").first.is_visible()
    context.close()


def test_from_disk_the_page_says_how_to_serve_it(browser, out: Path):
    page = browser.new_page()
    page.goto((out / "html" / EXERCISES).as_uri())
    assert page.get_by_text("python -m http.server").count() == 1
    assert page.locator(".cell", has_text="def rank_in_log").first.is_visible()
    page.close()


def test_without_npm_the_site_is_built_without_benches(tmp_path: Path):
    """A copy of the site's folder has nothing kept, and finds no npm."""
    for name in ("site", "course", "source", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("out", "__pycache__"))
    code = (
        "import sys, json; sys.path.insert(0, 'site'); import pages; from pathlib import Path; "
        "print(json.dumps([str(page) for page in pages.staged(Path.cwd(), Path('text'), {5})]))"
    )
    words = [sys.executable, "-c", code]
    finished = subprocess.run(
        words, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=True, timeout=60
    )
    said, pages = finished.stdout.splitlines()
    assert "The exercises won't run in the page: npm can't get pyodide" in said
    assert all('class=\\"workbench' not in (tmp_path / page).read_text("utf-8") for page in json.loads(pages))
