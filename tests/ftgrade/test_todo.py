"""`ftgrade todo`: everything that waits for a person is told, with the mend and the way to the very cell."""

import json
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.gradebook.todo import Need, fields_before, list_needs, report_needs
from ftgrade.intake.notebook import Finding
from ftgrade.judging.report import Report
from nbgrader.api import Gradebook

CATALOG = home()
STEM = "p10_freeze_and_mask_audit"
RIGHT = CATALOG.leaves(STEM).solution.read_text("utf-8")


def written(words: str) -> dict:
    notebook = json.loads(build.filled_notebook(CATALOG, STEM, RIGHT))
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "order":
            cell["source"] = words
    return notebook


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A class: one right, one torn, one that holds a cell twice, one that wrote words, one that came too late."""
    root = tmp_path_factory.mktemp("todo")
    twice = written("YOUR ANSWER HERE")
    twice["cells"].append(twice["cells"][-1] | {"id": "again"})
    texts = {"ada": json.dumps(written("YOUR ANSWER HERE")), "bob": "{", "cyd": json.dumps(twice),
             "dan": json.dumps(written("The masks cost least."))}  # fmt: skip
    for student, text in texts.items():
        put(root, student, text)
    assert cli.main(["grade", STEM, "--course", str(root), "-j", "1", "--json"]) == cli.SOME_NEED_A_PERSON
    put(root, "eve", texts["ada"])
    return Course(root)


def put(root: Path, student: str, text: str) -> None:
    path = root / "submitted" / student / STEM / f"{STEM}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def found(course: Course) -> dict[tuple[str, str], Need]:
    return {(need.student, need.reason): need for need in listed(course)}


def listed(course: Course) -> list[Need]:
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        return list_needs(course, gradebook, [STEM], "http://x/")


def test_everything_that_waits_is_told_once_with_its_mend(course: Course):
    all_of_them = found(course)
    assert set(all_of_them) == {
        ("bob", "unreadable"), ("cyd", "integrity"), ("dan", "manual"), ("eve", "ungraded"),
    }  # fmt: skip
    assert f"submitted/bob/{STEM}/" in all_of_them["bob", "unreadable"].mend
    assert "stand more than once" in all_of_them["cyd", "integrity"].words
    assert all_of_them["dan", "manual"].kind == "order"
    assert [need.reason for need in listed(course)] == ["unreadable", "manual", "integrity", "ungraded"]


def test_a_link_leads_to_the_submission_and_counts_the_fields_before_the_cell(course: Course):
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        number = gradebook.find_submission_notebook(STEM, STEM, "dan").id
    link = found(course)["dan", "manual"].link
    assert link.startswith(f"http://x/formgrader/submissions/{number}/?index=")
    assert link.endswith("#order")
    notebook = json.loads((course.root / "autograded" / "dan" / STEM / f"{STEM}.ipynb").read_text())
    marks = [cell["metadata"]["nbgrader"] for cell in notebook["cells"] if "nbgrader" in cell["metadata"]]
    fields = ["the link to the next submission"] + [
        field
        for mark in marks
        for field in (
            [mark["grade_id"], f"{mark['grade_id']}_extra_credit"] * mark["grade"]
            + [f"{mark['grade_id']}-comment"] * mark["solution"]
        )
    ]
    assert fields[int(link.partition("=")[2].partition("#")[0])] == "order"
    assert found(course)["eve", "ungraded"].link == ""


def test_a_cell_that_is_not_there_counts_nothing(tmp_path: Path):
    assert fields_before(tmp_path / "none.ipynb", "order") == 0


def test_a_report_that_was_changed_is_told(course: Course):
    path = course.report_path("ada", STEM)
    before = path.read_text()
    path.write_text(before.replace('"score": ', '"score": 1'))
    try:
        assert "was changed after it was written" in found(course)["ada", "changed"].words
    finally:
        path.write_text(before)


def test_what_a_person_looked_at_is_settled_until_something_else_is_handed_in(course: Course):
    words = ["todo", "--course", str(course.root), "--settle"]
    assert cli.main([*words, "cyd", "p10"]) == cli.SOME_NEED_A_PERSON
    assert ("cyd", "integrity") not in found(course)
    assert cli.main([*words, "cyd", "p10"]) == cli.COULD_NOT
    assert cli.main([*words, "dan", "p10"]) == cli.COULD_NOT, "points are given, not settled"
    path = course.notebook("cyd", STEM)
    before = path.read_text()
    path.write_text(before.replace("def ", "def  "))
    assert cli.main(["grade", STEM, "--course", str(course.root), "-j", "1"]) == cli.SOME_NEED_A_PERSON
    assert ("cyd", "integrity") in found(course)
    path.write_text(before)


def test_what_the_grader_failed_at_comes_first_and_takes_its_waiting_cells_along():
    report = Report(STEM, "ada", "ours", "", "", 1, (), (Finding("set-aside", "a link"), Finding("ours", "a bug")))
    assert [(reason, words) for reason, _, words, _ in report_needs(report)] == [
        ("integrity", "a link"),
        ("ours", "a bug"),
    ]


def test_the_command_groups_by_reason_and_is_silent_where_nothing_waits(
    course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["todo", "--course", str(course.root)]) == cli.SOME_NEED_A_PERSON
    said = capsys.readouterr().out
    assert "manual: an answer in words waits for points (1)" in said
    assert "http://localhost:8888/formgrader/submissions/" in said
    assert cli.main(["todo", "--course", str(course.root), "--json"]) == cli.SOME_NEED_A_PERSON
    assert json.loads(capsys.readouterr().out)["needs"][0]["reason"] == "unreadable"
    assert cli.main(["todo", "p03", "--course", str(course.root)]) == cli.FINE
    assert "Nothing needs a person." in capsys.readouterr().out
    assert cli.main(["todo", "--course", str(tmp_path)]) == cli.COULD_NOT
    assert "holds no gradebook.db" in capsys.readouterr().err


def test_grading_tells_its_reports_as_one_document(course: Course, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["grade", STEM, "--course", str(course.root), "-j", "1", "--json"]) == cli.SOME_NEED_A_PERSON
    said = capsys.readouterr()
    told = json.loads(said.out)
    scores = {one["student"]: (one["state"], one["score"]) for one in told["submissions"]}
    assert scores["bob"] == ("unreadable", 0.0)
    assert scores["dan"] == ("graded", 10.0)
    assert told["not booked"] == []
    assert "mean so far" in said.err, "the table of what was judged goes to stderr"
