"""The web pages before Sphinx: what is staged, which links lead on, what isn't shown."""

import doctest
import hashlib
import importlib.util
import json
import math
import re
from pathlib import Path
from types import ModuleType

import pytest
from ftgrade.catalog import is_project

ROOT = Path(__file__).parent.parent
KEPT = {"output_type": "stream", "name": "stdout", "text": "quality 1.00"}


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("course_pages", ROOT / "site" / "pages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(path: Path) -> str:
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"])


def test_the_examples_hold(pages: ModuleType):
    for module, least in ((pages, 3), (pages.live, 3)):
        failed, tried = doctest.testmod(module)
        assert failed == 0
        assert tried >= least


def test_a_script_that_needs_another_is_not_joined(pages: ModuleType):
    with pytest.raises(ValueError, match="stand alone"):
        pages.live.classic('import { draw } from "./draw.js";\nexport default { draw };')


def test_every_part_problem_and_sheet_is_staged_and_stands_in_the_sidebar(pages: ModuleType, tmp_path: Path):
    notebooks, course = pages.staged(ROOT, tmp_path, set(range(1, 100))), ROOT / "course"
    assert len(notebooks) == 1 + len(
        [*course.glob("[0-9]*/*.ipynb"), *course.glob("lab/*.ipynb"), *(ROOT / "source").glob("*/*.ipynb")]
    )
    tree = said(tmp_path / "index.ipynb").partition("```{toctree}")[2]
    for path in [*notebooks, *tmp_path.glob("*.md")]:
        page = path.relative_to(tmp_path).with_suffix("").as_posix()
        if page.endswith("/exercises"):
            assert "```{toctree}\n:hidden:\n\nexercises\n```" in said(path.with_name("theory.ipynb"))
        elif page != "index":
            assert f"\n{page}\n" in tree


def test_a_site_of_one_part_links_to_nothing_else(pages: ModuleType, tmp_path: Path):
    pages.staged(ROOT, tmp_path, {5})
    assert [path.name for path in sorted(tmp_path.iterdir()) if path.name[0].isdigit()] == ["05_lora_algebra"]
    assert "](05_lora_algebra/theory.ipynb#5.2-Parameter-count)" in (tmp_path / "errata.md").read_text("utf-8")
    assert "](04_parameter" not in (tmp_path / "errata.md").read_text("utf-8")
    assert "](../source/p05_truncated_svd/p05_truncated_svd.ipynb)" in said(tmp_path / "05_lora_algebra/theory.ipynb")


def test_problems_are_shown_as_they_are_released(pages: ModuleType, tmp_path: Path):
    pages.staged(ROOT, tmp_path, set())
    for path in (tmp_path / "source").rglob("*.ipynb"):
        assert "SOLUTION" not in said(path)
        assert is_project(path.stem) or "raise NotImplementedError" in said(path)


def test_outputs_are_kept_until_the_code_changes_and_progress_is_nobodys_business(
    pages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ran: list[Path] = []
    seen = [{"output_type": "display_data", "data": {"text/html": "<caption>Your exercises: none</caption>"}}, KEPT]
    monkeypatch.setattr(pages, "outputs", lambda page: ran.append(page) or [seen])
    page = tmp_path / "page.ipynb"

    def run(words: str, code: str) -> list:
        cells = [{"cell_type": "markdown", "source": words}, {"cell_type": "code", "source": code, "outputs": []}]
        page.write_text(json.dumps({"cells": cells}))
        pages.run(page, tmp_path / "kept")
        return json.loads(page.read_text())["cells"][1]["outputs"]

    assert run("One.", "1") == [KEPT]
    assert run("Two.", "1") == [KEPT]
    assert len(ran) == 1
    run("Two.", "2")
    assert len(ran) == 2


def test_the_front_pages_self_test_knows_the_right_answers_without_telling_them():
    text = (ROOT / "course" / "text" / "index.py").read_text("utf-8")
    digests = re.findall(r'\(None, "([0-9a-f]{12})"\)', text)
    answers = (-18.0, math.log(2), 0.25, 1, 15)
    assert digests == [hashlib.sha256(f"{answer:.3f}".encode()).hexdigest()[:12] for answer in answers]
