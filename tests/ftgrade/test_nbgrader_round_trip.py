"""One real round trip: build, generate_assignment, submit, autograde by nbgrader and by ftgrade, feedback, export."""

import csv
import dataclasses
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.judging.judges import Judges
from ftgrade.judging.outline import load_outline
from nbgrader.api import Gradebook

CATALOG = home()
STEM = "p03_lora_parameters"
RIGHT = CATALOG.leaves(STEM).solution.read_text("utf-8")
WRONG = RIGHT.replace("(d_out * d_in - 1) //", "(d_out * d_in) //")
XSS = "<script>alert('x')</script><img src=x onerror=alert(1)>"


def filled(answers: str) -> dict:
    return json.loads(build.filled_notebook(CATALOG, STEM, answers))


def hostile() -> dict[str, str | bytes]:
    """Return the class: what each student hands in, by name."""
    duplicate, missing, flipped, tagged, many, loud, script = (filled(WRONG) for _ in range(7))
    graded = [cell for cell in duplicate["cells"] if cell["metadata"].get("nbgrader", {}).get("grade")]
    duplicate["cells"] += [dict(graded[0]), dict(duplicate["cells"][3])]
    missing["cells"] = [cell for cell in missing["cells"] if not cell["metadata"].get("nbgrader", {}).get("locked")]
    for cell in flipped["cells"]:
        mark = cell["metadata"].get("nbgrader")
        if mark:
            mark.update(grade=not mark["grade"], solution=not mark["solution"], locked=not mark["locked"], points=99)
    for cell in tagged["cells"]:
        cell["metadata"]["tags"] = ["skip-execution", "raises-exception"]
        if cell["cell_type"] == "code":
            output = {"output_type": "execute_result", "data": {"text/plain": "99.0"}, "metadata": {}}
            cell["outputs"] = [output | {"execution_count": 1}]
    many["cells"] += [
        {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": "x = 1"}
        for _ in range(10_000)
    ]
    loud["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 50_000_000}]
    script["cells"].append({"cell_type": "markdown", "metadata": {}, "source": XSS})
    script["cells"].append(
        {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": f"print({XSS!r})"}
    )
    notebooks = {
        "duplicate": duplicate, "flipped": flipped, "loud": loud, "many": many, "missing": missing, "script": script,
        "tagged": tagged,
    }  # fmt: skip
    texts: dict[str, str | bytes] = {name: json.dumps(notebook) for name, notebook in notebooks.items()}
    return texts | {
        "right": json.dumps(filled(RIGHT)),
        "wrong": json.dumps(filled(WRONG)),
        "stub": json.dumps(filled("")),
        "zz_malformed": b"\xff{",
        "zz_old": '{"nbformat": 3, "worksheets": []}',
        "zz_empty": '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}',
    }


EXPECTED = {"right": 10.0, "stub": 0.0, "zz_malformed": 0.0, "zz_old": 0.0, "zz_empty": 0.0}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course that nbgrader itself released, handed in to, graded, fed back and exported."""
    root = tmp_path_factory.mktemp("course")
    (root / "nbgrader_config.py").write_text(
        "from ftgrade.nbgrader_step import configure\n\nconfigure(get_config())\n", "utf-8"
    )
    assert nbgrader(root, "generate_assignment", STEM) == 0
    for student, text in hostile().items():
        path = root / "submitted" / student / STEM / f"{STEM}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    (root / "submitted" / "wrong" / STEM / "nbgrader_config.py").write_text("raise SystemExit('planted')")
    (root / "submitted" / "wrong" / STEM / "passwd").symlink_to("/etc/passwd")
    assert nbgrader(root, "autograde", STEM) == 0
    assert nbgrader(root, "generate_feedback", STEM) == 0
    assert nbgrader(root, "export") == 0
    return root


def nbgrader(root: Path, *words: str) -> int:
    command = [sys.executable, "-m", "nbgrader", *words]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    if finished.returncode:
        print(finished.stderr[-4000:])
    return finished.returncode


def scores(root: Path) -> dict[str, dict[str, float]]:
    """Return every student's score by check."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        return {
            submission.student.id: {
                grade.name: grade.score for notebook in submission.notebooks for grade in notebook.grades
            }
            for submission in gradebook.assignment_submissions(STEM)
        }


def left_behind(root: Path) -> dict[str, object]:
    """Return all that grading left: each record's columns, each notebook, and the words of each page."""
    found: dict[str, object] = {}
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        for submission in gradebook.assignment_submissions(STEM):
            (book,) = submission.notebooks
            found[submission.student.id] = (
                submission.timestamp,
                book.late_submission_penalty,
                {one.name: (one.auto_score, one.manual_score, one.needs_manual_grade) for one in book.grades},
                {one.name: (one.auto_comment, one.manual_comment) for one in book.comments},
            )
    for path in root.glob(f"autograded/*/{STEM}/*"):
        found[str(path.relative_to(root))] = path.read_bytes() if path.suffix != ".ipynb" else plain(path)
    for path in root.glob(f"feedback/*/{STEM}/*.html"):
        found[str(path.relative_to(root))] = html.unescape(re.sub(r"<[^>]*>", " ", path.read_text())).split()
    return found


def plain(path: Path) -> list[tuple[str, str, object, object]]:
    """Return what people see of a notebook's cells, and what nbgrader reads of them."""
    return [
        (cell.cell_type, cell.source, cell.metadata.get("nbgrader"), cell.get("outputs"))
        for cell in nbformat.reads(path.read_text(), nbformat.NO_CONVERT).cells
    ]


def test_the_release_holds_the_stubs_and_no_answer(course: Path):
    released = json.loads((course / "release" / STEM / f"{STEM}.ipynb").read_text())
    source = "\n".join("".join(cell["source"]) for cell in released["cells"])
    assert source.count("raise NotImplementedError") == 6  # five functions and the personal number
    assert "### BEGIN SOLUTION" not in source
    assert "d_out * r + r * d_in" not in source


def test_every_submission_is_booked_with_what_it_deserves(course: Path):
    found = {student: sum(by_check.values()) for student, by_check in scores(course).items()}
    names = ("wrong", "duplicate", "flipped", "loud", "many", "missing", "script", "tagged")
    wrong = dict.fromkeys(names, pytest.approx(9.25))
    assert found == wrong | EXPECTED


def test_grading_by_ftgrade_books_the_same_scores(course: Path, capsys: pytest.CaptureFixture[str]):
    before = left_behind(course)
    code = cli.main(["grade", "p03", "--course", str(course), "-j", "2", "--fresh"])
    after = left_behind(course)
    assert after.keys() == before.keys()
    for name, left in before.items():
        assert after[name] == left, name
    assert code == cli.SOME_NEED_A_PERSON, "two files can't be read"
    assert "13 submissions: 11 graded, 2 could not be read." in capsys.readouterr().out.replace("\n", " ")
    assert (course / "class_report.html").is_file()
    assert (course / "class_report.csv").read_text().count("\n") == 1 + 13 * 7, "a row for each student and check"


def test_the_export_holds_every_score(course: Path):
    with (course / "grades.csv").open() as file:
        exported = {row["student_id"]: float(row["raw_score"]) for row in csv.DictReader(file)}
    assert exported == {student: sum(by_check.values()) for student, by_check in scores(course).items()}


def test_feedback_names_the_mistake_and_runs_nothing(course: Path):
    pages = {path.parents[1].name: path.read_text() for path in course.glob(f"feedback/*/{STEM}/{STEM}.html")}
    assert set(pages) == set(hostile())
    assert "Your rank is one too large where the division is exact" in pages["wrong"]
    assert "valid JSON" in pages["zz_malformed"]
    for page in pages.values():
        assert "<script" not in page
        assert not re.search(r"<[^>]+onerror", page)
        assert not re.search(r"https?://", page)
        assert "default-src 'none'" in page
        # A contract shows an error by a doctest, whose message is three dots.
        assert "Traceback" not in re.sub(r"Traceback \(most recent call last\):\s+ValueError: \.\.\.", "", page)
    assert "&lt;script&gt;" in pages["script"]


def test_nothing_hidden_and_nothing_planted_is_in_what_students_get(course: Path):
    lines = [line.strip() for line in CATALOG.leaves(STEM).problem.read_text().splitlines() if "yield " in line]
    for folder in ("release", "autograded", "feedback"):
        for path in (course / folder).rglob("*"):
            assert not path.is_symlink()
            assert path.name != "nbgrader_config.py"
            if path.is_file():
                text = path.read_text("utf-8", "replace")
                assert [line for line in lines if line in text] == []
    assert (course / ".ftgrade" / "quarantine" / STEM / "wrong" / "passwd").is_symlink()


def test_autograded_notebooks_stay_small_and_carry_no_tags(course: Path):
    for path in course.glob(f"autograded/*/{STEM}/*.ipynb"):
        assert path.stat().st_size < 2_000_000
        document = json.loads(path.read_text())
        assert not any("tags" in cell["metadata"] or "attachments" in cell for cell in document["cells"])
        for cell in document["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("grade"):
                assert [output["output_type"] for output in cell["outputs"]] == ["execute_result"]


def test_a_resubmission_without_its_cells_does_not_keep_its_old_marks(course: Path):
    path = course / "submitted" / "right" / STEM / f"{STEM}.ipynb"
    before = path.read_bytes()
    path.write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}')
    try:
        assert nbgrader(course, "autograde", STEM, "--student", "right", "--force") == 0
        assert sum(scores(course)["right"].values()) == 0.0
    finally:
        path.write_bytes(before)
    assert nbgrader(course, "autograde", STEM, "--student", "right", "--force") == 0
    assert sum(scores(course)["right"].values()) == 10.0


def test_a_gradebook_of_another_version_is_refused_with_the_mend(
    course: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    outline = load_outline(CATALOG, STEM)
    another = dataclasses.replace(outline, checks=outline.checks[:-1])
    monkeypatch.setattr(Judges, "outline", lambda *_: another)
    assert cli.main(["grade", "p03", "--course", str(course)]) == cli.COULD_NOT
    assert f"ftgrade release {STEM}" in capsys.readouterr().err


def test_zip_collect_fills_the_same_folders(course: Path, tmp_path: Path):
    archive = course / "downloaded" / STEM / "archive"
    archive.mkdir(parents=True)
    (archive / f"zoe_attempt_2026-01-30-10-30-10_{STEM}.ipynb").write_text(json.dumps(filled(RIGHT)))
    regexp = r".+\/(?P<student_id>\w+)_attempt_(?P<timestamp>[0-9\-]+)_(?P<file_id>.*)"
    trait = f"--FileNameCollectorPlugin.named_regexp={regexp}"
    assert nbgrader(course, "zip_collect", STEM, trait) == 0
    assert (course / "submitted" / "zoe" / STEM / f"{STEM}.ipynb").is_file()
    assert os.listdir(course / "submitted" / "zoe" / STEM)


def test_formgraders_button_books_the_same_scores(course: Path):
    """The button calls `NbGraderAPI.autograde` with the course's own configuration."""
    from ftgrade.course import Course
    from ftgrade.gradebook.book import Book

    before = scores(course)
    book = Book(Course(course))
    for student in ("wrong", "tagged", "zz_malformed"):
        with book.log_to_file():
            result = book.api.autograde(STEM, student, force=True)
        assert result["success"], result.get("error")
    assert scores(course) == before
