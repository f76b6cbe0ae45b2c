"""A day of each who opens this: the self-learner, the student, the instructor; and how it is for every eye and hand."""

import importlib.util
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.intake.notebook import Finding
from ftgrade.judging.report import CheckReport, Report
from ftgrade.pages import classreport
from nbgrader.api import Gradebook

ROOT = Path(__file__).parents[2]
COUNT, AUDIT = "p03_lora_parameters", "p10_freeze_and_mask_audit"
EXERCISES = "course/05_lora_algebra/exercises.ipynb"
OPEN = """path => {
  const open = window.jupyterapp?.shell?.currentWidget?.context;
  return open?.path === path && open.isReady;
}"""

pytestmark = pytest.mark.browser


# --------------------------------------------------------------------------------------- the self-learner, the student


def test_a_student_lands_on_the_index_and_sees_no_tool_for_instructors(lab: Any, page: Any, look: Callable):
    page.goto(f"{lab.address}/?token={lab.token}")
    page.wait_for_function(OPEN, arg="course/index.ipynb")
    page.locator(".jp-NotebookPanel-toolbar >> text=Validate").wait_for()
    commands = page.evaluate("() => window.jupyterapp.commands.listCommands()")
    assert any("nbgrader:open-assignment-list" in name for name in commands)
    assert [name for name in commands if re.search("formgrader|create-assignment|course-list", name)] == []
    assert page.locator(".jp-SideBar [title*='Create Assignment']").count() == 0
    page.wait_for_timeout(1000)  # as long as the news took to pop up
    assert page.locator(".Toastify__toast, .jp-Dialog").count() == 0
    look(page, "student")
    page.goto(f"{lab.address}/lab/tree/{EXERCISES}")
    page.wait_for_function(OPEN, arg=EXERCISES)
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-MarkdownOutput a", has_text="p03").first.click()
    page.wait_for_function(OPEN, arg=f"source/{COUNT}/{COUNT}.ipynb")
    page.goto(f"{lab.address}/formgrader/")
    assert "404" in page.content()


def test_an_instructor_sees_the_tools_that_a_student_does_not(instructor: Any, page: Any):
    page.goto(f"{instructor.address}/lab?token={instructor.token}")
    page.wait_for_function("() => window.jupyterapp?.restored")
    page.wait_for_function("() => window.jupyterapp.commands.hasCommand('nbgrader:open-formgrader')")


def test_the_exercises_run_in_notebook_7(run_in_notebook_7: Callable, demand_accessible: Callable):
    """One part's theory runs there too, with its explorer: see test_notebooks.py."""
    page, cells = run_in_notebook_7(EXERCISES, "notebook7-exercises")
    found = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output for output in found if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    said = ["".join(output["data"].get("text/html", "")) for output in found if "data" in output]
    asked = (home().root / "course/text/05_lora_algebra/exercises.py").read_text("utf-8").count("# %% exercise=")
    assert sum('role="status"' in text and "not started" in text for text in said) == asked
    page.locator('[role="status"]', has_text="not started").first.wait_for()
    demand_accessible(page, '.jp-RenderedHTML [role="status"]')


# ------------------------------------------------------------------------------------------------------- the instructor


def written(words: str) -> str:
    """Return a right submission of p10 with these words in the cell that a person reads."""
    notebook = json.loads(build.filled_notebook(home(), AUDIT, home().leaves(AUDIT).solution.read_text("utf-8")))
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "order":
            cell["source"] = words
    return json.dumps(notebook)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small course, graded once: ada wrote words for p10, bob has one named mistake in p03."""
    root = tmp_path_factory.mktemp("work") / "course"
    roster = root.parent / "students.csv"
    roster.write_text("id,first_name,last_name\nada,Ada,Lovelace\nbob,Bob,Babbage\n")
    right = home().leaves(COUNT).solution.read_text("utf-8")
    wrong = build.filled_notebook(home(), COUNT, right.replace("(d_out * d_in - 1) //", "(d_out * d_in) //"))
    assert cli.main(["new-course", str(root), "--roster", str(roster)]) == cli.FINE
    for student, stem, text in (("ada", AUDIT, written("The masks cost least: they are read.")), ("bob", COUNT, wrong)):
        path = root / "submitted" / student / stem / f"{stem}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert cli.main(["grade", COUNT, AUDIT, "--course", str(root), "-j", "1"]) == cli.SOME_NEED_A_PERSON
    return root


@pytest.fixture(scope="module")
def instructor(graded: Path, serving: Callable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """JupyterLab as an instructor starts it, in the course's folder."""
    private = tmp_path_factory.mktemp("jupyter")
    with serving(["-m", "jupyterlab"], graded, private, JUPYTER_NO_CONFIG="") as server:
        yield server


@pytest.fixture
def office(instructor: Any, page: Any) -> Iterator[Any]:
    """A page that is let into formgrader; it asks nothing of any other place, and no script fails."""
    strangers, errors = [], []
    page.on("request", lambda one: None if one.url.startswith((instructor.address, "data:")) else strangers.append(one))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{instructor.address}/api/status?token={instructor.token}")  # gives the cookie
    yield page
    assert [one.url for one in strangers] == []
    assert errors == []


def scores(root: Path, stem: str, student: str) -> tuple[float, float | None]:
    """Return a submission's score, and the point that a person gave it."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as book:
        submission = book.find_submission(stem, student)
        manual = [grade.manual_score for grade in submission.notebooks[0].grades if grade.manual_score is not None]
        return submission.score, manual[0] if manual else None


def autograde(page: Any, address: str, stem: str) -> None:
    """Press the button of the one submission of a problem."""
    page.goto(f"{address}/formgrader/manage_submissions/{stem}")
    page.locator("td.autograde a").click(timeout=20_000)
    page.locator("#success-modal", has_text="Successfully autograded").wait_for(timeout=60_000)


def test_the_list_opens_and_the_button_books_the_same_score(instructor: Any, office: Any, graded: Path, look: Callable):
    before = scores(graded, COUNT, "bob")
    assert before == (pytest.approx(9.25), None)
    office.goto(f"{instructor.address}/formgrader/")
    office.locator("table tr", has_text=COUNT).wait_for()
    assert office.locator("table tr", has_text=AUDIT).count() == 1
    look(office, "formgrader-list")
    autograde(office, instructor.address, COUNT)
    assert scores(graded, COUNT, "bob") == before


def test_a_submission_opens_with_its_formulas_set(instructor: Any, office: Any, look: Callable):
    office.goto(f"{instructor.address}/formgrader/gradebook/{COUNT}/{COUNT}")
    office.get_by_text("Submission #1").click()
    office.locator("math").first.wait_for()
    boxes = office.evaluate("() => [...document.querySelectorAll('math')].map(m => m.getBoundingClientRect().width)")
    assert len(boxes) > 10
    assert min(boxes) > 0
    text = office.locator("#notebook-container").first.inner_text()
    assert "\\" not in re.sub(r"(?s)def .*", "", text)
    assert "Your rank is one too large" in text
    look(office, "formgrader-submission")


def test_a_persons_point_is_typed_saved_and_survives_a_regrade(
    instructor: Any, office: Any, graded: Path, look: Callable
):
    assert scores(graded, AUDIT, "ada") == (10.0, None)
    office.goto(f"{instructor.address}/formgrader/gradebook/{AUDIT}/{AUDIT}")
    office.get_by_text("Submission #1").click()
    office.wait_for_load_state("networkidle")  # the points come after the page
    point = office.locator("input.score#order")
    point.fill("0.75")
    with office.expect_response(lambda answer: "/api/grade/" in answer.url and answer.request.method == "PUT") as put:
        point.press("Tab")
    assert put.value.ok
    assert scores(graded, AUDIT, "ada") == (10.75, 0.75)
    autograde(office, instructor.address, AUDIT)
    assert scores(graded, AUDIT, "ada") == (10.75, 0.75)
    office.goto(f"{instructor.address}/formgrader/gradebook/{AUDIT}/{AUDIT}")
    office.get_by_text("Submission #1").click()
    office.wait_for_function("() => document.querySelector('input.score#order')?.value === '0.75'")
    point.focus()
    office.wait_for_timeout(900)  # formgrader scrolls there by itself
    look(office, "formgrader-point")


# ---------------------------------------------------------------------------------------- pages that open from the disk


def made(student: int, stem: str, count: int) -> Report:
    """Return one of many reports with every kind of status, a mistake and a finding."""
    kinds = ("pass", "pass", "wrong", "not-attempted", "error")
    statuses = [kinds[(student * 7 + place * (student % 3 + 1)) % 5] for place in range(count)]
    says = {"wrong": "Your count keeps the gauge freedom in."}
    checks = tuple(
        CheckReport(
            f"check_{place}", f"what check {place} asks of an answer", f"function_{place}", 2.0,
            2.0 if status == "pass" else 0.0, status, 3, 5,
            mistake="no_gauge" if status in says else "", says=says.get(status, ""),
        )
        for place, status in enumerate(statuses)
    )  # fmt: skip
    findings = (Finding("hidden-text", "A cell holds text that nobody sees."),) if student % 9 == 0 else ()
    return Report(stem, f"student-{student:02d}", "graded", "", "", 1, checks, findings)


@pytest.fixture(scope="module")
def papers(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages by name: feedback with a mistake, feedback with words, a class of two, a class of many."""
    folder = tmp_path_factory.mktemp("class")
    due = datetime(2026, 12, 1, 18, tzinfo=UTC)
    came = classreport.Arrivals(
        {f"student-{number:02d}": due + timedelta(hours=number - 12) for number in range(14)}, due
    )
    problems = [
        classreport.summarise(stem, home().title(stem), [made(student, stem, 6) for student in range(15)], (), came)
        for stem in home().stems()
    ]
    classreport.write_class_report(folder / "class_report.html", "autumn", problems)
    return {
        "feedback": graded / "feedback" / "bob" / COUNT / f"{COUNT}.html",
        "feedback-written": graded / "feedback" / "ada" / AUDIT / f"{AUDIT}.html",
        "report-of-two": graded / "class_report.html",
        "report": folder / "class_report.html",
    }


NAMES = ("feedback", "feedback-written", "report-of-two", "report")


@pytest.fixture
def paper(browser: Any, papers: dict[str, Path]) -> Iterator[Callable]:
    """Return a function that opens a page from the disk with the network closed; it may ask for nothing but itself."""
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 1400})
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))

    def paper(name: str) -> Any:
        page.goto(papers[name].as_uri())
        return page

    yield paper
    assert {url.partition("#")[0] for url in asked} <= {path.as_uri() for path in papers.values()}
    assert errors == []
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_from_the_disk_is_accessible_in_light_and_dark(
    paper: Callable, demand_accessible: Callable, look: Callable, name: str
):
    page = paper(name)
    papers = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        demand_accessible(page)
        papers[scheme] = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        look(page, f"{name}-{scheme}")
    assert papers["light"] != papers["dark"]
    assert "$" not in page.locator("main").inner_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_from_the_disk_fits_a_phone_and_a_sheet(
    paper: Callable, demand_accessible: Callable, look: Callable, name: str
):
    page = paper(name)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    look(page, f"{name}-phone")
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 at 96 dpi less margins of 1 cm
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 718
    ink, sheet = page.evaluate("() => ['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])")
    assert (ink, sheet) == ("rgb(0, 0, 0)", "rgb(255, 255, 255)")
    demand_accessible(page)
    look(page, f"{name}-print")


# ------------------------------------------------------------------------------------------------------------ every eye

EYES = ("protanopia", "deuteranopia", "tritanopia")


def test_the_browsers_eyes_are_those_that_the_colours_are_held_apart_for(browser: Any, look: Callable):
    """tests/ftmath/test_colours.py computes with published matrices; Chromium must see the same, within rounding."""
    from PIL import Image

    spec = importlib.util.spec_from_file_location("colours", ROOT / "tests" / "ftmath" / "test_colours.py")
    assert spec
    assert spec.loader
    colours = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(colours)
    swatches = [colour for palette in colours.PALETTES.values() for colour in palette]
    page = browser.new_page(viewport={"width": 40 * len(swatches), "height": 40})
    page.set_content("<body style='margin:0;display:flex'>" + "".join(
        f"<div style='width:40px;height:40px;background:{colour}'></div>" for colour in swatches
    ))  # fmt: skip
    emulation = page.context.new_cdp_session(page)
    for eye in EYES:
        emulation.send("Emulation.setEmulatedVisionDeficiency", {"type": eye})
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        look(page, f"swatches-{eye}")
        for place, colour in enumerate(swatches):
            seen = "#{:02x}{:02x}{:02x}".format(*picture.getpixel((40 * place + 20, 20)))
            wanted = colours.lab(colours.EYES[eye] @ colours.linear(colour))
            assert colours.distance(colours.lab(colours.linear(seen)), wanted) < 3, (eye, colour, seen)
    page.close()
