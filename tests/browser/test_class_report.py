"""The class report in a browser: no column is cut, it sorts and filters, and it reads the same without its script."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ftgrade.catalog import home
from ftgrade.judging.report import CheckReport, Report
from ftgrade.pages.arrivals import Arrivals
from ftgrade.pages.classreport import write_class_report
from ftgrade.pages.counts import summarise
from ftgrade.pages.roll import Roll

pytestmark = pytest.mark.browser

STUDENTS = [f"student-{number:03}" for number in range(200)]
NAMES = {student: f"{['Ada', 'Bilal', 'Chiyo', 'Dalia'][place % 4]} Featherstonehaugh {place}"
         for place, student in enumerate(STUDENTS)}  # fmt: skip
KINDS = ("pass", "pass", "wrong", "not-attempted", "error", "timeout")
CUT = """() => [...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth + 1)
  .map(one => one.getAttribute('aria-label'))"""
SHOWN = """() => [...document.querySelectorAll('#students tbody tr')].filter(row => !row.hidden)
  .map(row => row.cells[0].querySelector('bdi').textContent)"""


def made(student: str, stem: str) -> Report:
    """Return a report with eight checks, one of which is got right in part."""
    place, number = STUDENTS.index(student), int(stem[1:3])
    statuses = [KINDS[(place * 7 + one * (place % 5 + 1) + number) % 6] for one in range(8)]
    checks = tuple(
        CheckReport(
            f"check_{one}", f"what check {one} asks of an answer", f"function_{one}", 1.5,
            1.5 if status == "pass" else 0.62 * (status == "wrong"), status, 3, 5,
            mistake="no_gauge" if status == "wrong" else "", says="Too large." if status == "wrong" else "",
        )
        for one, status in enumerate(statuses)
    )  # fmt: skip
    return Report(stem, student, "graded", "", "", 1, checks)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 200 students and ten problems, with names, sections and links."""
    due, stems = datetime(2026, 12, 1, 18, tzinfo=UTC), home().stems()
    came = Arrivals({one: due + timedelta(hours=place / 3 - 50) for place, one in enumerate(STUDENTS)}, due)
    sections = {student: f"Group {place % 4 + 1}" for place, student in enumerate(STUDENTS)}
    everything = [(student, stem) for student in STUDENTS for stem in stems]
    roll = Roll(
        NAMES, sections, frozenset(everything), dict.fromkeys(everything, "f" * 32), {}, "http://localhost:8888"
    )
    problems = [summarise(stem, home().title(stem), [made(one, stem) for one in STUDENTS], (), came) for stem in stems]
    path = tmp_path_factory.mktemp("report") / "class_report.html"
    write_class_report(path, "autumn", problems, roll)
    return path


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the report, all of it unfolded; nothing may be asked for, and no error told."""
    contexts, errors = [], []

    def opened(**settings: Any) -> Any:
        contexts.append(browser.new_context(offline=True, **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(report.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.mark.parametrize("width", [1200, 800, 390])
def test_no_column_is_cut(opened: Callable[..., Any], look: Callable, width: int):
    page = opened(viewport={"width": width, "height": 1200}, color_scheme="dark" if width == 800 else "light")
    page.evaluate("() => document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == []
    look(page, f"class-{width}")


def test_students_are_sorted_and_filtered(opened: Callable[..., Any]):
    page = opened(viewport={"width": 1200, "height": 1200})
    assert len(page.evaluate(SHOWN)) == 200
    page.get_by_label("sort by student").first.click()
    assert page.evaluate(SHOWN)[:2] == ["Ada Featherstonehaugh 0", "Ada Featherstonehaugh 100"]
    assert page.locator("#students th[aria-sort='ascending']").inner_text().startswith("student")
    page.get_by_label("sort by total").first.click()
    totals = page.locator("#students tbody tr td:nth-child(12)").all_inner_texts()
    assert totals == sorted(totals, key=float, reverse=True)
    page.get_by_label("Find a student").fill("chiyo")
    assert {name.split()[0] for name in page.evaluate(SHOWN)} == {"Chiyo"}
    page.get_by_label("Section").select_option("Group 1")
    assert page.evaluate(SHOWN) == []
    page.get_by_label("Find a student").fill("")
    assert len(page.evaluate(SHOWN)) == 50


def test_without_its_script_the_report_has_all_rows_and_pictures(opened: Callable[..., Any]):
    page = opened(java_script_enabled=False)
    assert page.locator("#students tbody tr").count() == 200
    assert page.locator("#glance svg").count() == 5
    assert page.locator("button, input, select").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pictures_and_the_map_are_accessible(opened: Callable[..., Any], demand_accessible: Callable, scheme: str):
    demand_accessible(opened(color_scheme=scheme), "#glance", "#stuck", "nav", "#students")
