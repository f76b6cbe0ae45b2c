"""What stands beside a notebook, or in its place: nobody is graded on another's work, and no link is copied."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.classroom import marking
from ftgrade.course import Course
from ftgrade.grading.grader import Grader
from ftgrade.intake import quarantine
from ftgrade.intake.quarantine import set_aside

STEM = "p03_lora_parameters"
RIGHT = home().leaves(STEM).solution.read_text("utf-8")
HandIn = Callable[..., Path]


class Quiet:
    """Nobody watches."""

    def saw(self, *_: object) -> None: ...

    def compared(self, *_: object) -> None: ...


@pytest.mark.parametrize("place", [".evil.ipynb", "evil.ipynb", "sub[1]/evil.ipynb", "sub[1]/[x]/data.csv", "data[1]"])
@pytest.mark.parametrize("kind", ["file", "endless", "unreadable", "hard", "pipe"])
def test_a_link_beside_a_notebook_is_not_followed_whatever_it_is_called(
    grader: Grader, hand_in: HandIn, place: str, kind: str
):
    """nbgrader's pattern `*.ipynb` misses names with a dot, or below a folder with brackets, and copies those."""
    for student in ("ada", "eve", "zoe"):
        path = hand_in(student, STEM, answers=RIGHT)
    secret = grader.course.root / "elsewhere"
    secret.write_text("a secret")
    link = path.parents[2] / "eve" / STEM / place
    link.parent.mkdir(exist_ok=True, parents=True)
    targets = {"file": secret, "endless": Path("/dev/zero"), "unreadable": Path("/proc/self/mem")}
    if kind == "hard":
        os.link(secret, link)
    elif kind == "pipe":
        os.mkfifo(link)
    else:
        link.symlink_to(targets[kind])
    done = marking.grade_and_book(grader, [STEM], Quiet())
    assert done.failed == []
    assert [(one.student, one.score) for one in done.reports] == [("ada", 10.0), ("eve", 10.0), ("zoe", 10.0)]
    booked = grader.course.root / "autograded"
    assert [path.name for path in booked.rglob("*") if path.is_file()] == [f"{STEM}.ipynb"] * 3
    assert "set aside" in done.reports[1].findings[0].words


def test_a_folder_of_many_files_is_copied_up_to_a_limit(
    grader: Grader, hand_in: HandIn, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(quarantine, "MAX_ALL_BYTES", 2_000)
    folder = hand_in("ada", STEM, answers=RIGHT).parent
    for number in range(4):
        (folder / f"data{number}.csv").write_text("x" * 900)
    assert "data2.csv, data3.csv" in grader.grade("ada", STEM).findings[0].words
    assert sorted(path.name for path in folder.glob("*.csv")) == ["data0.csv", "data1.csv"]


def test_a_students_folder_that_leads_to_another_students_is_refused(grader: Grader, hand_in: HandIn):
    folder = hand_in("anna", STEM, answers=RIGHT).parent
    (folder / "data.csv").write_text("1,2\n")
    (folder.parents[1] / "aaa").symlink_to(folder.parent)
    done = marking.grade_and_book(grader, [STEM], Quiet())
    assert done.failed == []
    assert [(one.student, one.state, one.score) for one in done.reports] == [
        ("aaa", "unreadable", 0),
        ("anna", "graded", 10.0),
    ]
    assert "The folder aaa is a link" in done.reports[0].findings[0].words
    assert (folder / "data.csv").is_file(), "what it leads to is left alone"
    assert not (grader.course.root / "autograded" / "aaa" / STEM / "data.csv").exists()


def test_a_notebook_that_is_another_name_of_anothers_is_refused(grader: Grader, hand_in: HandIn):
    theirs = hand_in("anna", STEM, answers=RIGHT)
    mine = theirs.parents[2] / "eve" / STEM / theirs.name
    mine.parent.mkdir(parents=True)
    os.link(theirs, mine)
    made = grader.grade("eve", STEM)
    assert (made.state, made.score) == ("unreadable", 0)
    assert "hard link" in made.findings[0].words


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch], ids=["pipe", "file"])
def test_what_stands_in_place_of_a_folder_is_the_students_to_mend(
    grader: Grader, make: Callable[[Path], None], tmp_path: Path
):
    place = tmp_path / "submitted" / "eve" / STEM
    place.parent.mkdir(parents=True)
    make(place)
    made = grader.grade("eve", STEM)
    assert (made.state, made.score) == ("unreadable", 0)
    assert [one.kind for one in made.findings] == ["set-aside", "missing"]


@pytest.mark.parametrize(
    "stamp",
    [
        "2026-01-30 10:30:00 UTC" + " " * 200 + "x", "9999-12-31 23:59:59 -2300", "0001-01-01T00:00:00+14:00",
        "2026-01-30 10:30:00 99999999999", "9999-01-01 00:00:00", "\ud800",
    ],
)  # fmt: skip
def test_a_time_near_the_ends_of_the_calendar_or_of_odd_form_stops_no_booking(
    grader: Grader, hand_in: HandIn, stamp: str
):
    folder = hand_in("eve", STEM, answers=RIGHT).parent
    grader.grade("eve", STEM)
    (folder / "timestamp.txt").write_bytes(stamp.encode("utf-8", "surrogatepass"))
    done = marking.grade_and_book(grader, [STEM], Quiet())
    assert (done.failed, done.reports[0].score) == ([], 10.0)
    set_aside(folder, grader.course.quarantine("eve", STEM))
    assert not (folder / "timestamp.txt").exists()


def test_a_notebook_that_is_gone_takes_no_score_with_it(grader: Grader, hand_in: HandIn):
    path = hand_in("ada", STEM, answers=RIGHT)
    assert grader.grade("ada", STEM).score == 10.0
    path.unlink()
    made = grader.grade("ada", STEM)
    assert (made.state, made.score, made.findings[-1].kind) == ("graded", 10.0, "missing")
    path.write_text(build.filled_notebook(home(), STEM, ""))
    assert grader.grade("ada", STEM).score < 10.0
    assert Course(grader.course.root).report_path("ada", STEM).is_file()
