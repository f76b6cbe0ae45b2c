"""What stands beside a notebook, or in its place: nobody is graded on another's work, and no link is copied."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ftgrade.catalog import home
from ftgrade.classroom import marking
from ftgrade.course import Course
from ftgrade.errors import StudentFault
from ftgrade.grading.grader import Grader
from ftgrade.intake import quarantine
from ftgrade.intake.notebook import read_below
from ftgrade.intake.quarantine import set_aside
from ftgrade.moments import read_stamp
from nbgrader.utils import parse_utc

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
        "2026-01-30 10:30:00 99999999999", "9999-01-01 00:00:00", "\ud800", "2026-01-30 10:30:00 /etc/hostname",
        "2026-01-30 10:30:00 ../../etc/hostname", "2026-01-30 10:30:00 :/etc/hostname",
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


@pytest.mark.parametrize(
    ("stamp", "read"),
    [
        ("2026-03-01 10:00:00.25 UTC", "10:00:00.250000"), ("2026-03-01 10:00", "10:00:00"),
        ("2026-03-01T10:00:00Z", "10:00:00"), ("2026-03-01 10:00+01:00", "09:00:00"),
        ("2026-03-01 10:00 CET", "09:00:00"), ("2026-03-01 10:00 Europe/Berlin", "09:00:00"),
        ("2026-03-01 10:00 PST", None), ("2026-03-01 10:00 +0100", None), ("2026-03-01T10:00 CET", None),
        ("2026-03-01 10:00 PM", None), ("01/03/2026 10:00", None), ("Sun Mar  1 10:00:00 CET 2026", None),
        ("2026-03-01", None), ("10:00", None),
    ],
)  # fmt: skip
def test_a_stamp_is_read_as_nbgrader_reads_it_or_not_at_all(tmp_path: Path, stamp: str, read: str | None):
    """nbgrader takes a zone that it doesn't know for UTC, ` +0100` for 100 seconds, and puts in what is missing."""
    (tmp_path / "timestamp.txt").write_text(stamp)
    found = read_stamp(tmp_path / "timestamp.txt")
    assert (found and str(found)) == (read and f"2026-03-01 {read}")
    assert found is None or parse_utc(stamp) == found


def test_a_time_that_is_set_aside_is_told_in_words(tmp_path: Path):
    (tmp_path / STEM).mkdir()
    (tmp_path / STEM / "timestamp.txt").write_text("2026-03-01 10:00 PST")
    (told,) = set_aside(tmp_path / STEM, tmp_path / "aside")
    assert "tells no time such as 2026-12-01 18:00:00 UTC, so this counts as handed in in time" in told.words


def test_a_time_zone_is_never_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The parser opens what looks like a path: a device that never ends stopped a class."""
    from dateutil import tz

    asked: list[str] = []
    monkeypatch.setattr(tz, "gettz", lambda name: asked.append(name))
    for zone in ("/dev/zero", "./z", "../z", ":/z", "a/../z", "UTC /z", "America/New_York", "Etc/GMT+1"):
        (tmp_path / "timestamp.txt").write_text(f"2026-01-30 10:30:00 {zone}")
        read_stamp(tmp_path / "timestamp.txt")
    assert asked == ["America/New_York", "Etc/GMT+1"]


@pytest.mark.parametrize("swapped", ["eve", f"eve/{STEM}", f"eve/{STEM}/data"])
def test_no_folder_is_followed_that_becomes_a_link_meanwhile(tmp_path: Path, swapped: str):
    """A student who may write to the folder could change it between the look and the reading."""
    (tmp_path / "elsewhere" / STEM / "data").mkdir(parents=True)
    for name in ("elsewhere", f"elsewhere/{STEM}", f"elsewhere/{STEM}/data"):
        (tmp_path / name / "file").write_text("a secret")
    link = tmp_path / "submitted" / swapped
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / swapped.replace("eve", "elsewhere"), target_is_directory=True)
    path = tmp_path / "submitted" / "eve" / STEM / "data" / "file"
    assert path.read_text() == "a secret"
    with pytest.raises(StudentFault, match="is a link"):
        read_below(tmp_path / "submitted", path, 100)


def test_a_long_way_down_stops_no_booking(grader: Grader, hand_in: HandIn):
    folder = hand_in("eve", STEM, answers=RIGHT).parent
    here = os.open(folder, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("deeper", dir_fd=here)
        above, here = here, os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(above)
    os.close(here)
    done = marking.grade_and_book(grader, [STEM], Quiet())
    assert (done.failed, done.reports[0].score) == ([], 10.0)


def test_who_may_not_look_into_a_folder_is_told(hand_in: HandIn, tmp_path: Path):
    """Root may look everywhere, so another user lists the students."""
    hand_in("ada", STEM, answers=RIGHT)
    locked = hand_in("eve", STEM, answers=RIGHT).parents[1]
    (tmp_path / "submitted" / "zoe").mkdir()
    locked.chmod(0)
    try:
        assert listed_by_nobody(tmp_path) == ["ada", "eve"]
    finally:
        locked.chmod(0o755)


def listed_by_nobody(root: Path) -> list[str]:
    """Return the students as a user sees them who isn't root."""
    for folder in (root, *root.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
        os._exit(0 if Course(root).students(STEM) == ["ada", "eve"] else 1)
    return ["ada", "eve"] if os.waitpid(child, 0)[1] == 0 else []
