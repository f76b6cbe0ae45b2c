"""A notebook under another name is found, told and graded if no other can be meant; nobody's folder is left for it."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.course import Course
from ftgrade.grading.grader import Grader, untouched_test
from ftgrade.intake.naming import others_in_words, put_in_place, renamed_finding

STEM = "p03_lora_parameters"
CATALOG = home()
RIGHT = build.filled_notebook(CATALOG, STEM, CATALOG.leaves(STEM).solution.read_text("utf-8"))
BLANK = CATALOG.leaves(STEM).notebook.read_text("utf-8")
OTHER = RIGHT.replace("return d_out * r + r * d_in", "return r * (d_out + d_in)")
UNTOUCHED = untouched_test(CATALOG)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course(tmp_path)


def lay(course: Course, **files: str) -> list[str]:
    """Write ada's files, put them in place, and return the doubts."""
    for name, text in files.items():
        path = course.root / "submitted" / "ada" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return put_in_place(course, [STEM, "p04_lora_update"], UNTOUCHED)


def told(course: Course) -> str:
    """Return what a report tells of a notebook's former name."""
    digest = hashlib.sha256(course.notebook("ada", STEM).read_bytes()).hexdigest()
    return " ".join(one.words for one in renamed_finding(course, "ada", STEM, digest))


@pytest.mark.parametrize(
    "name",
    [
        f"{STEM}/{STEM}-Copy1.ipynb", f"{STEM}/{STEM} (1).ipynb", f"{STEM}/homework.ipynb", f"{STEM}/{STEM}.ipynb.txt",
        f"{STEM}/{STEM}.ipynb.json", f"{STEM}/{STEM}.IPYNB", f"{STEM}/P03.ipynb", f"{STEM}/{STEM}/{STEM}.ipynb",
        f"p03/{STEM}.ipynb", f"P3/{STEM}.ipynb", f"lora_parameters/{STEM}.ipynb", f"P03 LoRA-Parameters/{STEM}.ipynb",
        "p03/p03.ipynb", "Problem 3/answer.ipynb", f"{STEM}.ipynb", f"p03 (1)/{STEM}.ipynb", "p03-Copy1.ipynb.txt",
        f"{STEM}/Copy of {STEM}.ipynb", f"{STEM} copy 2.ipynb", "p03 (copy).ipynb", "Kopie von p03/p03.ipynb",
    ],
)  # fmt: skip
def test_a_notebook_under_another_name_is_put_in_its_place_and_told(course: Course, name: str):
    assert lay(course, **{name: RIGHT}) == []
    assert course.notebook("ada", STEM).read_text("utf-8") == RIGHT
    assert f"handed in as {name}" in told(course)
    assert lay(course) == [], "a second run finds everything in its place"
    assert f"handed in as {name}" in told(course), "and tells it still"
    course.notebook("ada", STEM).write_text(BLANK, "utf-8")
    assert told(course) == "", "which is said of that very file"


def test_a_notebook_in_its_place_is_left_and_nothing_is_told(course: Course):
    assert (
        lay(course, **{f"{STEM}/{STEM}.ipynb": RIGHT, f"{STEM}/{STEM}-Copy1.ipynb": OTHER, "p03/x.ipynb": OTHER}) == []
    )
    assert course.notebook("ada", STEM).read_text("utf-8") == RIGHT
    assert told(course) == ""
    assert (course.root / "submitted" / "ada" / "p03" / "x.ipynb").is_file()


@pytest.mark.parametrize(
    "blank", [BLANK, "", BLANK.replace("raise NotImplementedError", "raise NotImplementedError()")]
)
def test_a_copy_beside_an_untouched_notebook_is_the_one_that_is_meant(course: Course, blank: str):
    assert lay(course, **{f"{STEM}/{STEM}.ipynb": blank, f"{STEM}/{STEM}-Copy1.ipynb": RIGHT}) == []
    assert course.notebook("ada", STEM).read_text("utf-8") == RIGHT
    assert "-Copy1.ipynb" in told(course)
    kept = list((course.state / "untouched").rglob("*.ipynb"))
    assert [path.read_text("utf-8") for path in kept] == [blank], "nothing is deleted"


def test_several_that_may_be_meant_are_left_and_named(course: Course):
    copies = {f"{STEM}/{STEM}-Copy1.ipynb": RIGHT, f"{STEM}/{STEM}-Copy2.ipynb": OTHER}
    (doubt,) = lay(course, **copies)
    assert f"{STEM}-Copy1.ipynb or {STEM}-Copy2.ipynb" in doubt
    assert not course.notebook("ada", STEM).exists()
    assert f"{STEM}-Copy1.ipynb" in others_in_words(course, "ada", STEM)
    (doubt,) = lay(course, **{f"{STEM}/{STEM}.ipynb": BLANK})
    assert "is untouched" in doubt
    assert course.notebook("ada", STEM).read_text("utf-8") == BLANK


def test_equal_copies_and_untouched_ones_are_no_doubt(course: Course):
    copies = {f"{STEM}/{STEM}-Copy{number}.ipynb": text for number, text in enumerate((RIGHT, BLANK, RIGHT))}
    assert lay(course, **copies) == []
    assert course.notebook("ada", STEM).read_text("utf-8") == RIGHT


def test_two_folders_that_may_be_meant_are_left_and_named(course: Course):
    (doubt,) = lay(course, **{f"p03/{STEM}.ipynb": RIGHT, f"P3/{STEM}.ipynb": OTHER})
    assert doubt == f"ada, {STEM}: which is meant, P3 or p03?"


def test_another_file_beside_an_untouched_notebook_is_a_doubt(course: Course):
    (doubt,) = lay(course, **{f"{STEM}/{STEM}.ipynb": BLANK, f"{STEM}/scratch.ipynb": RIGHT})
    assert "scratch.ipynb" in doubt


def test_another_problems_notebook_is_not_taken(course: Course):
    assert lay(course, **{f"{STEM}/p04_lora_update.ipynb": RIGHT}) == []
    assert not course.notebook("ada", STEM).exists()


def test_checkpoints_and_hidden_files_are_nobodys_notebook(course: Course):
    hidden = {f"{STEM}/.ipynb_checkpoints/{STEM}-checkpoint.ipynb": OTHER, f"{STEM}/._{STEM}.ipynb": "x"}
    assert lay(course, **hidden, **{f"{STEM}/{STEM}-Copy1.ipynb": RIGHT}) == []
    assert course.notebook("ada", STEM).read_text("utf-8") == RIGHT


@pytest.mark.parametrize("kind", ["link", "hard link", "folder link", "student link"])
def test_no_link_is_put_in_place(course: Course, kind: str):
    theirs = course.root / "submitted" / "bob" / STEM / f"{STEM}.ipynb"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(RIGHT, "utf-8")
    mine = course.root / "submitted" / "ada"
    if kind == "student link":
        mine.symlink_to(theirs.parents[1], target_is_directory=True)
    elif kind == "folder link":
        mine.mkdir()
        (mine / "p03").symlink_to(theirs.parent, target_is_directory=True)
    else:
        (mine / STEM).mkdir(parents=True)
        make: Callable[[Path, Path], object] = os.link if kind == "hard link" else os.symlink
        make(theirs, mine / STEM / f"{STEM}-Copy1.ipynb")
    assert put_in_place(course, [STEM], UNTOUCHED) == []
    if kind != "student link":
        assert not course.notebook("ada", STEM).exists()
    assert theirs.read_text("utf-8") == RIGHT


def test_a_large_notebook_is_not_parsed_by_the_process_that_grades_all(course: Course):
    large = json.loads(BLANK)
    large["cells"][0]["outputs"] = ["x" * 2**21]
    assert not UNTOUCHED(STEM, json.dumps(large).encode())
    assert UNTOUCHED(STEM, BLANK.encode())


def test_a_report_tells_the_former_name_and_keeps_telling_it(grader: Grader, hand_in: Callable[..., Path]):
    path = hand_in("ada", STEM, answers=CATALOG.leaves(STEM).solution.read_text("utf-8"))
    path.rename(path.with_name(f"{STEM}-Copy1.ipynb"))
    put_in_place(grader.course, [STEM], UNTOUCHED)
    reports = [
        grader.grade("ada", STEM),
        grader.grade("ada", STEM),
        grader.grade("ada", STEM, fresh=True),
    ]
    assert [report.score for report in reports] == [10.0] * 3
    assert [[one.kind for one in report.findings] for report in reports] == [["renamed"]] * 3


def test_a_missing_notebook_is_told_with_what_is_there_instead(grader: Grader, hand_in: Callable[..., Path]):
    path = hand_in("ada", STEM)
    path.rename(path.with_name("one.ipynb"))
    path.with_name("two.ipynb").write_text("{}")
    assert "one.ipynb, two.ipynb" in grader.grade("ada", STEM).findings[-1].words
