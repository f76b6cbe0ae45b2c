"""A project's way through the engine: files beside a notebook, judged as data, booked and shown like any problem."""

import dataclasses
import functools
import json
import shutil
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.grading.grader import Grader
from ftgrade.grading.reports import Reports
from ftgrade.grading.run import grade_class
from ftgrade.intake.collect import Collected, People, collect
from ftgrade.intake.parcel import pack, unpack
from ftgrade.judging.bench import Bench
from ftgrade.judging.judges import Judges
from ftgrade.judging.project import load_project
from ftgrade.judging.report import Report
from nbgrader.api import Gradebook
from safetensors.torch import load, save

STEM = "project_adapter"
HandIn = Callable[..., Path]
CATALOG = home()
HAND_INS = CATALOG.root / "tests" / "submissions" / STEM
ADAPTER, CARD = "adapter.safetensors", "card.json"
POINTS = {
    "untouched": (0, 0), "good-0": (10, 10), "good-1": (10, 10), "good-2": (10, 10), "rank-1": (10, 10),
    "two-layers": (9, 10), "large-and-hot": (5, 7), "short-0": (3, 6), "short-1": (3, 6), "overshot-0": (5, 5),
    "memorised": (0, 0),
}  # fmt: skip
"""The fewest and the most points that a demo deserves."""


def write_hand_in(root: Path, student: str, demo: str = "good-0", **files: bytes | None) -> Path:
    """Hand in a notebook as it was released, beside a demo's files or others; None leaves one out."""
    Course(root).write_secret(b"the same prompts in every run of these tests")
    folder = root / "submitted" / student / STEM
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CATALOG.leaves(STEM).notebook, folder)
    for name, given in {ADAPTER: files.get("adapter", b""), CARD: files.get("card", b"")}.items():
        if given is not None:
            (folder / name).write_bytes(given or (HAND_INS / demo / name).read_bytes())
    return folder


@pytest.fixture
def hand_in(tmp_path: Path) -> HandIn:
    return functools.partial(write_hand_in, tmp_path)


def test_the_project_gives_ten_points_and_its_readers_agree_on_the_files():
    from ftmath.project import ADAPTER as THEIRS
    from ftmath.project.reading import MAX_ADAPTER_BYTES, MAX_CARD_BYTES

    project = load_project(CATALOG, STEM)
    assert project.points == 10.0
    assert project.limits == {THEIRS: MAX_ADAPTER_BYTES, "card.json": MAX_CARD_BYTES}
    assert not CATALOG.leaves(STEM).missing()


def test_a_project_is_no_problem_and_no_stray():
    assert CATALOG.projects() == [STEM]
    assert STEM not in CATALOG.stems()
    assert CATALOG.strays() == []
    assert CATALOG.stem(STEM) == STEM


def test_what_judges_it_changes_its_digest(tmp_path: Path):
    before = CATALOG.digest(STEM)
    assert {path.name for path in CATALOG.program()} >= {
        "reading.py",
        "scoring.py",
        "lora.py",
        "skills.py",
        "base.json",
    }
    assert CATALOG.digest(STEM) == before


def test_files_that_were_packed_come_back():
    files = {"a.ipynb": b"{}", "b": b"", "é": bytes(range(256))}
    assert unpack(pack(files)) == files


def changed(demo: str, **changes: torch.Tensor) -> bytes:
    return save(load((HAND_INS / demo / ADAPTER).read_bytes()) | changes)


FIRST = "blocks.0.attn.q.A"
DISHONEST: dict[str, tuple[dict[str, bytes | None], str]] = {
    "another shape": ({"adapter": changed("good-0", **{FIRST: torch.zeros(2, 64)})}, "misfit"),
    "huge": ({"adapter": bytes(2_000_001)}, "too-large"),
    "enormous": ({"adapter": bytes(21 * 2**20)}, "missing"),
    "NaN": ({"adapter": changed("good-0", **{FIRST: torch.full((2, 128), torch.nan)})}, "not-finite"),
    "another type": ({"adapter": changed("good-0", **{FIRST: torch.zeros(2, 128).double()})}, "misfit"),
    "an extra tensor": ({"adapter": changed("good-0", more=torch.zeros(2, 2))}, "misfit"),
    "a header of 100 MB": ({"adapter": (100 * 2**20).to_bytes(8, "little") + b"{" * 64}, "malformed"),
    "a pickle": ({"adapter": b"\x80\x04\x95" + bytes(100)}, "malformed"),
    "a zip": ({"adapter": b"PK\x03\x04" + bytes(100)}, "malformed"),
    "no adapter": ({"adapter": None}, "missing"),
    "no card": ({"card": None}, "missing"),
    "another's card": ({"card": (HAND_INS / "rank-1" / CARD).read_bytes()}, "misfit"),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, judges: Judges) -> dict[str, Report]:
    """Return the reports of a class in which honest and dishonest hand-ins are neighbours, graded in one run."""
    root = tmp_path_factory.mktemp("class")
    for demo in POINTS:
        write_hand_in(root, demo, demo)
    for name, (files, _) in DISHONEST.items():
        write_hand_in(root, name, "good-0", **files)
    return {report.student: report for report in grade_class(Grader(CATALOG, Course(root), judges), [STEM])}


@pytest.mark.parametrize("demo", POINTS)
def test_an_honest_hand_in_gets_what_it_deserves(demo: str, graded: dict[str, Report]):
    report, (low, high) = graded[demo], POINTS[demo]
    assert report.state == "graded", report.findings
    assert low <= report.score <= high, [(check.name, check.score, check.words) for check in report.checks]
    assert all(check.words for check in report.checks)
    assert all(check.next_step for check in report.checks if check.status != "pass")


@pytest.mark.parametrize("name", DISHONEST)
def test_a_dishonest_hand_in_is_told_why_and_gets_nothing(name: str, graded: dict[str, Report]):
    report = graded[name]
    assert (report.state, report.score) == ("unreadable", 0)
    assert DISHONEST[name][1] in [finding.kind for finding in report.findings]
    assert {check.next_step for check in report.checks} == {"Hand in again."}


def test_points_fall_with_what_the_training_did(graded: dict[str, Report]):
    """Full points for a good run, part of them for a short one, and no drift's points for one that overshot."""
    scores = {demo: {check.name: check.score for check in graded[demo].checks} for demo in POINTS}
    assert [sum(scores[f"good-{seed}"].values()) for seed in range(3)] == [10, 10, 10]
    assert all(0 < scores[f"short-{seed}"]["task"] < 4 for seed in range(2))
    assert (scores["overshot-0"]["task"], scores["overshot-0"]["drift"], scores["overshot-0"]["kept"]) == (4, 0, 0)
    assert sum(scores["untouched"].values()) == 0


def test_a_link_to_a_neighbours_adapter_is_not_followed(grader: Grader, hand_in: HandIn):
    mine, theirs = hand_in("eve"), hand_in("bob")
    (mine / ADAPTER).unlink()
    (mine / ADAPTER).symlink_to(theirs / ADAPTER)
    report = grader.grade("eve", STEM)
    assert report.state == "unreadable"
    assert [finding.kind for finding in report.findings] == ["set-aside", "missing"]


def test_a_score_is_that_of_the_bytes_the_secret_and_the_student(
    grader: Grader, judges: Judges, hand_in: HandIn, tmp_path: Path
):
    hand_in("ada", "short-0")
    hand_in("bob", "short-0")
    first, other = grader.grade("ada", STEM), grader.grade("bob", STEM)
    again = grader.grade("ada", STEM, fresh=True)
    assert again == first
    assert [check.words for check in first.checks] != [check.words for check in other.checks], "other prompts"


def judged_again(_: object) -> None:
    pytest.fail("it was judged again")


def test_a_changed_file_is_seen_and_an_unchanged_one_is_not_judged_again(
    grader: Grader, hand_in: HandIn, monkeypatch: pytest.MonkeyPatch
):
    folder = hand_in("ada", "untouched")
    before = grader.grade("ada", STEM)
    monkeypatch.setattr(grader.judges, "judge", judged_again)
    assert grader.grade("ada", STEM) == before
    monkeypatch.undo()
    for name in (ADAPTER, CARD):
        (folder / name).write_bytes((HAND_INS / "good-0" / name).read_bytes())
    assert grader.grade("ada", STEM).score == 10.0


def test_the_students_cells_are_shown_and_not_run(grader: Grader, hand_in: HandIn):
    folder = hand_in("ada")
    document = json.loads((folder / f"{STEM}.ipynb").read_text())
    (mine,) = [cell for cell in document["cells"] if cell["cell_type"] == "code" and not cell["metadata"]]
    mine["source"] = ["import os\n", "os._exit(3)  # never run"]
    (folder / f"{STEM}.ipynb").write_text(json.dumps(document))
    report = grader.grade("ada", STEM)
    assert report.score == 10.0
    assert any("never run" in cell.source for cell in report.cells)


def test_a_program_that_fails_is_our_fault_and_no_students(
    grader: Grader, hand_in: HandIn, monkeypatch: pytest.MonkeyPatch
):
    project = dataclasses.replace(load_project(CATALOG, STEM), program="no_such_program")
    folder = hand_in("ada")
    work = grader.look_up("ada", STEM, fresh=True)
    assert not isinstance(work, Report)
    bench = Bench(CATALOG, None)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(bench, "project_of", {STEM: project}.__getitem__)
    judgement = bench.judge(work.brief, work.data)
    assert judgement.state == "ours"
    assert "no_such_program" in judgement.findings[0].words
    assert folder.is_dir()


def test_it_is_booked_sealed_and_shown_by_the_command(tmp_path: Path, hand_in: HandIn, capsys: Any):
    hand_in("ada")
    hand_in("bob", "short-0")
    hand_in("eve", adapter=b"nothing")
    (tmp_path / "nbgrader_config.py").write_text(
        "from ftgrade.nbgrader_step import configure\nconfigure(get_config())\n"
    )
    assert cli.main(["grade", STEM, "--course", str(tmp_path)]) == cli.SOME_NEED_A_PERSON
    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as book:
        submissions: list[Any] = book.assignment_submissions(STEM)
        booked = {str(one.student_id): float(one.score) for one in submissions}
        grades = {cell.name: cell.max_score for cell in book.find_notebook(STEM, STEM).grade_cells}
    assert (booked["ada"], booked["eve"]) == (10.0, 0.0)
    assert 3 <= booked["bob"] <= 6
    assert grades == {"task": 4.0, "kept": 3.0, "drift": 2.0, "size": 1.0}
    assert [words for *_, words in Reports(Course(tmp_path)).verify()] == ["", "", ""]
    page = (tmp_path / "feedback" / "bob" / STEM / f"{STEM}.html").read_text()
    assert "goals at least 0.5, 0.8, 0.95: 1 of 3 reached" in page or "2 of 3 reached" in page
    assert "nats per token" in page
    assert (tmp_path / "autograded" / "bob" / STEM / ADAPTER).is_file()
    assert cli.main(["grade", "--course", str(tmp_path)]) == cli.SOME_NEED_A_PERSON, "without a name too"


def collected(root: Path, source: Path) -> Collected:
    people = People(("ada", "bob"), {}, {})
    beside = {STEM: [ADAPTER, CARD]}
    return collect(source, Course(root), people, [*CATALOG.stems(), STEM], beside=beside)


def test_collect_brings_the_files_that_came_in_one_folder_or_archive(tmp_path: Path):
    notebook = CATALOG.leaves(STEM).notebook.read_bytes()
    source, root = tmp_path / "download", tmp_path / "course"
    (source / "ada").mkdir(parents=True)
    root.mkdir()
    (source / "ada" / f"{STEM}.ipynb").write_bytes(notebook)
    (source / "ada" / ADAPTER).write_bytes(b"first")
    with zipfile.ZipFile(source / "bob.zip", "w") as archive:
        archive.writestr(f"{STEM}.ipynb", notebook)
        archive.writestr(ADAPTER, b"bob's")
        archive.writestr("notes.txt", b"not wanted")
    found = collected(root, source)
    assert [(one.student, one.outcome) for one in found.taken] == [("ada", "new"), ("bob", "new")]
    assert [path for path, _ in found.left] == ["bob.zip/notes.txt"]
    assert (root / "submitted" / "bob" / STEM / ADAPTER).read_bytes() == b"bob's"
    (source / "ada" / ADAPTER).write_bytes(b"second")
    assert [one.outcome for one in collected(root, source).taken] == ["replaced", "unchanged"]
    assert (root / "submitted" / "ada" / STEM / ADAPTER).read_bytes() == b"second"


def test_a_file_in_a_folder_of_several_students_is_nobodys(tmp_path: Path):
    notebook = CATALOG.leaves(STEM).notebook.read_bytes()
    source, root = tmp_path / "download", tmp_path / "course"
    source.mkdir()
    root.mkdir()
    for student in ("ada", "bob"):
        (source / f"{student}_{STEM}.ipynb").write_bytes(notebook)
    (source / ADAPTER).write_bytes(b"whose?")
    found = collected(root, source)
    assert len(found.taken) == 2
    assert [path for path, _ in found.left] == [ADAPTER]
    assert not list(root.rglob(ADAPTER))


def test_a_learner_grades_their_own_files_and_opens_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hand_in: HandIn, capsys: Any
):
    monkeypatch.setenv("FTMATH_PROGRESS", str(tmp_path / "progress.json"))
    folder = hand_in("me")
    assert (
        cli.main(["check", str(folder / f"{STEM}.ipynb"), "--day", date.today().isoformat(), "--page", "--solution"])
        == 0
    )
    said = capsys.readouterr().out
    assert "10 of 10 points" in said
    assert "RECIPE = Method(" in said
    page = (folder / f"{STEM}.feedback.html").read_text()
    assert "goals at least 0.5, 0.8, 0.95: 3 of 3 reached" in page


def test_the_statement_tells_the_rules_that_the_grader_uses():
    built = json.loads(build.project_notebook(CATALOG, STEM))
    text = "\n".join("".join(cell["source"]) for cell in built["cells"])
    (given,) = ["".join(cell["source"]) for cell in built["cells"] if "score_adapter(rules)" in "".join(cell["source"])]
    told: dict[str, Any] = {}
    exec(given.partition("\n\n")[2].rpartition("\n")[0], told)
    assert told["rules"] == load_project(CATALOG, STEM).rules
    assert "at most 0.3: 0.5 · 0.1: 1 · 0.04: 2" in text
