"""The slide decks before reveal.js: what is cut from a small notebook, and what is said where npm is missing."""

import doctest
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ftmath.findings import finding

ROOT = Path(__file__).parent.parent
FOUND = finding(
    "The coin is loaded", figure="heads of 10", measured=[9, 10, 8], null="a fair coin", control=[5, 7, 4],
    holds=lambda heads: min(heads) > 7, scope="one coin, 3 seeds",
)  # fmt: skip
FIGURE = (
    '<figure style="margin:0"><svg viewBox="0 0 9 9" role="img" aria-label="{}"></svg><details>table</details></figure>'
)
CARD = "**Part** 05 coins · **difficulty** ●● · **about** 40 minutes · **10 points**\n\nMore."


@pytest.fixture(scope="module")
def slides() -> ModuleType:
    spec = importlib.util.spec_from_file_location("course_slides", ROOT / "site" / "slides.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(*texts: str) -> dict[str, Any]:
    return {"cells": [{"cell_type": "markdown", "source": [text]} for text in texts]}


def gave(html: str) -> dict[str, Any]:
    return {"cell_type": "code", "source": ["run()"], "outputs": [{"data": {"text/html": [html]}}]}


def lesson(sections: int = 1) -> dict[str, Any]:
    opening = "# Part 5: coins\n\n**The claim.** A coin has a $p$.\n\n"
    cells = prose(f"{opening}You need dice. Afterwards you can flip it. About 5 minutes.")["cells"]
    for number in range(1, sections + 1):
        claim = f"## 5.{number} Flips\n\n**It lands, see [01](../01/theory.ipynb).**\n\nMean:\n\n$$p < 1$$\n\n$$q$$"
        cells += prose(claim)["cells"] + [gave(FIGURE.format("coin")), gave(FIGURE.format("curve"))]
        cells += prose("Between the pictures.")["cells"] + [gave(FOUND.as_html()), gave(FOUND.as_html())]
    ending = [
        "## On a real coin\n\nNo claim here.",
        "## What to keep\n\n| | what |\n| --- | --- |\n| 5.1 | $p$ |\n\nAll.",
    ]
    return {"cells": cells + prose(*ending)["cells"]}


def cut(slides: ModuleType, notebook: dict[str, Any]) -> list[Any]:
    problem, other = prose("# Problem 3. Count\n\n", CARD), prose("# Problem 1. Else\n\n", CARD.replace("05", "01"))
    return slides.lecture.deck(
        notebook, prose("# Exercises\n\nAll.", "## 5.A Two at once\n\nDo."), [other, problem], "05_coins"
    )


def test_the_examples_hold(slides: ModuleType):
    for module, least in ((slides, 2), (slides.lecture, 3)):
        failed, tried = doctest.testmod(module)
        assert failed == 0
        assert tried >= least


def test_a_section_becomes_its_claim_its_figure_with_a_finding_and_the_other_findings(slides: ModuleType):
    found = cut(slides, lesson())
    assert [slide.kind for slide in found] == ["title", "claim", "figure", "findings", "keep", "work"]
    title, claim, figure, findings, keep, work = found
    assert title.text == "**The claim.** A coin has a $p$.\n\nAfterwards you can flip it."
    assert claim.text == "**It lands, see 01.**\n\n$$p < 1$$"
    assert "coin" in claim.shown[0]
    assert "Mean:" in claim.notes
    assert "Between the pictures." in figure.notes
    assert 'aria-label="curve"' in figure.shown[0]
    assert "<details" not in figure.shown[0]
    for said in ("The coin is loaded", "9 (95 % interval 6.52 to 11.5; 3 seeds)", "5.33", "one coin, 3 seeds"):
        assert said in figure.shown[1]
        assert said in findings.shown[0]
    assert keep.text == "| | what |\n| --- | --- |\n| 5.1 | $p$ |"
    assert "- 5.A Two at once" in work.text
    assert "- Problem 3. Count (about 40 minutes, 10 points)" in work.text
    assert "Problem 1" not in work.text


def test_a_finding_before_any_figure_leaves_the_figure_to_the_finding_below_it(slides: ModuleType):
    notebook = lesson()
    other = FOUND.as_html().replace("is loaded", "is round")
    notebook["cells"].insert(2, gave(other))
    shown = [slide.shown for slide in cut(slides, notebook) if slide.kind in ("figure", "findings")]
    assert "is loaded" in shown[0][1]
    assert "is round" in shown[1][0]


def test_every_finding_has_a_place(slides: ModuleType):
    notebook = lesson()
    notebook["cells"][-2:-2] = [gave(FOUND.as_html())] * 4
    assert [len(slide.shown) for slide in cut(slides, notebook) if slide.kind == "findings"] == [3, 2]


def test_no_slide_is_empty_and_no_formula_is_left_as_markdown(slides: ModuleType):
    page = slides.page(cut(slides, lesson()))
    sections = re.findall(r'<section class="(\w+)">(.*?)</section>', page, flags=re.DOTALL)
    assert len(sections) == 6
    for kind, held in sections:
        assert re.sub(r"<aside.*?</aside>|<h[12]>.*?</h[12]>|<[^>]*>", "", held, flags=re.DOTALL).strip(), kind
    assert "\\[p &lt; 1\\]" in page
    assert "$" not in page


def test_a_deck_that_is_too_long_is_refused(slides: ModuleType):
    assert len(cut(slides, lesson(7))) <= slides.lecture.MOST
    with pytest.raises(ValueError, match="at most 25 slides, and this one has 27"):
        cut(slides, lesson(8))


@pytest.mark.parametrize("part", sorted((ROOT / "course").glob("[0-9]*_*")), ids=lambda path: path.name[:2])
def test_every_lesson_can_be_cut(slides: ModuleType, part: Path, tmp_path: Path):
    """Without outputs there are only claims; the findings add two slides to a section at most."""
    notebook = slides.pages.stage(part / "theory.ipynb", depth=1)
    assert slides.write_deck(part, notebook, tmp_path) >= 8
    page = (tmp_path / f"{part.name}.html").read_text("utf-8")
    assert page.count('<section class="claim">') in range(5, 8)
    assert 'class="math block"' in page


def test_without_npm_the_reason_is_said(slides: ModuleType, tmp_path: Path, monkeypatch, capsys):
    def missing(*_: object) -> None:
        raise subprocess.CalledProcessError(1, "npm", stderr="npm error network\n")

    monkeypatch.setattr(slides, "KEPT", tmp_path / "reveal")
    monkeypatch.setattr(slides.workbench, "fetch", missing)
    assert slides.main(["--parts", "5", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert re.search(r"npm can't get reveal.js \d+\.\d+\.\d+ \(npm error network\)", said)
    assert "try again" in said


def test_what_is_fetched_is_locked(slides: ModuleType):
    lock = json.loads((slides.OWN / "package-lock.json").read_text("utf-8"))["packages"]["node_modules/reveal.js"]
    assert lock["version"] == json.loads((slides.OWN / "package.json").read_text("utf-8"))["dependencies"]["reveal.js"]
    assert lock["integrity"].startswith("sha512-")
    assert "resolved" not in lock
