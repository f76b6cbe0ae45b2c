"""One submission through the sandbox: what hostile, odd and unlucky notebooks come to."""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.grading.grader import Grader
from ftgrade.grading.run import grade_class
from ftgrade.intake.notebook import Cell
from ftgrade.intake.quarantine import set_aside
from ftgrade.intake.reaching import reaching_findings
from ftgrade.judging import report
from ftgrade.judging.bench import Bench
from ftgrade.judging.judges import Work
from ftgrade.judging.problem import load_problem
from ftgrade.judging.report import Limits
from ftgrade.judging.seeds import hidden_seeds, open_seed
from ftgrade.judging.session import Session, whole_pictures
from ftgrade.probing.doctor import cache_file, strongest
from ftgrade.sandbox.channel import Call, Raised, Value, outcome_of
from ftgrade.sandbox.process import Sandbox

CATALOG = home()
STEM = "p03_lora_parameters"
RIGHT = CATALOG.leaves(STEM).solution.read_text("utf-8")
HandIn = Callable[..., Path]


def with_cells(*sources: str, first: bool = True) -> str:
    """Return the right submission with further code cells."""
    document = json.loads(build.filled_notebook(CATALOG, STEM, RIGHT))
    cells = [
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": text}
        for text in sources
    ]
    document["cells"] = [*cells, *document["cells"]] if first else [*document["cells"], *cells]
    return json.dumps(document)


def statuses(made: report.Report) -> dict[str, str]:
    return {check.name: check.status for check in made.checks}


def test_a_right_submission_gets_everything_twice_the_same(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, answers=RIGHT)
    first = grader.grade("ada", STEM, fresh=True)
    second = grader.grade("ada", STEM, fresh=True)
    assert first.score == 10.0
    assert report.to_json(first) == report.to_json(second)


def test_a_stored_report_is_used_until_the_submission_changes(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, answers=RIGHT)
    first = grader.grade("ada", STEM)
    path = grader.course.report_path("ada", STEM)
    stamp = path.stat().st_mtime_ns
    assert grader.grade("ada", STEM) == first
    assert path.stat().st_mtime_ns == stamp
    hand_in("ada", STEM, answers=RIGHT.replace("(d_out * d_in - 1)", "(d_out * d_in)"))
    assert grader.grade("ada", STEM).score < 10.0


def test_what_can_not_be_read_is_told_until_the_file_changes(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, data="{")
    first = grader.grade("ada", STEM)
    path = grader.course.report_path("ada", STEM)
    stamp = path.stat().st_mtime_ns
    assert (first.state, grader.grade("ada", STEM)) == ("unreadable", first)
    assert path.stat().st_mtime_ns == stamp
    hand_in("ada", STEM, answers=RIGHT)
    assert grader.grade("ada", STEM).score == 10.0


def fingerprint(grader: Grader, student: str) -> str:
    """Return what names a submission among what it's judged by."""
    work = grader.look_up(student, STEM, fresh=True)
    assert isinstance(work, Work)
    return work.blank.graded_by["submission"]


Parts = tuple[str, str, str | None]
"""A cell's kind, its text, and the id that it claims."""
BASE: list[Parts] = [("code", "import torch", None), ("code", "def f(): return 1", "f"), ("markdown", "# Notes", None)]


def document(cells: list[Parts]) -> str:
    raw = [
        {"cell_type": kind, "source": source, "metadata": {"nbgrader": {"grade_id": claimed}}}
        for kind, source, claimed in cells
    ]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": raw})


@pytest.mark.parametrize(
    "cells",
    [
        [("code", "import  torch", None), *BASE[1:]],
        [BASE[1], BASE[0], BASE[2]],
        BASE[:2],
        [*BASE, ("code", "", None)],
        [BASE[0], ("code", "def f(): return 1", None), BASE[2]],
        [BASE[0], ("code", "def f(): return 1", "g"), BASE[2]],
        [("markdown", "import torch", None), *BASE[1:]],
        [("code", "import torchdef f(): return 1", "f"), ("code", "", None), BASE[2]],
    ],
    ids=["a space", "order", "one less", "one more", "no id", "another id", "another kind", "text that moved"],
)
def test_the_fingerprint_changes_with_what_can_change_a_score(grader: Grader, hand_in: HandIn, cells: list[Parts]):
    hand_in("ada", STEM, data=document(BASE))
    hand_in("bob", STEM, data=document(BASE))
    hand_in("cyd", STEM, data=document(cells))
    assert fingerprint(grader, "ada") == fingerprint(grader, "bob") != fingerprint(grader, "cyd")


def test_a_notebook_saved_with_other_outputs_is_judged_again_to_the_same_score(grader: Grader, hand_in: HandIn):
    text = json.loads(build.filled_notebook(CATALOG, STEM, RIGHT.replace("(d_out * d_in - 1)", "(d_out * d_in)")))
    hand_in("ada", STEM, data=json.dumps(text))
    first = grader.grade("ada", STEM)
    for cell in text["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    hand_in("ada", STEM, data=json.dumps(text | {"metadata": {"kernelspec": {"name": "other"}}}, indent=4))
    second = grader.grade("ada", STEM)
    assert first.graded_by["submission"] != second.graded_by["submission"]
    assert 0 < first.score < 10
    assert (first.checks, first.cells) == (second.checks, second.cells)


def test_students_get_other_values_and_a_student_the_same_ones():
    secret = bytes(32)
    assert hidden_seeds(secret, "ada", STEM, 1) == hidden_seeds(secret, "ada", STEM, 1)
    others = [("ada", "p01_answer_only_loss", 1), ("ada", STEM, 2)]
    seeds = [hidden_seeds(secret, *other) for other in others] + [hidden_seeds(bytes(31) + b"1", "ada", STEM, 1)]
    mine = hidden_seeds(secret, "ada", STEM, 1)
    assert len(set(mine)) == 3
    assert not any(set(mine) & set(other) for other in seeds)
    class_of_many = [hidden_seeds(secret, f"s{number}", STEM, 1) for number in range(200)]
    assert len(set().union(*class_of_many)) == 8
    assert len({tuple(sorted(seeds)) for seeds in class_of_many}) > 40
    assert open_seed(STEM, 1) not in mine


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox in this process, as every judge has one."""
    with contextlib.closing(Sandbox(strongest(cache_file()))) as made:
        yield made


def test_calls_after_a_lost_one_are_answered_by_a_fresh_process(sandbox: Sandbox):
    source = "import os\ndef f(x):\n    return x\ndef g(x):\n    os._exit(x)\n"
    with Session(sandbox, [Cell(1, "code", source, None)], Limits()) as session:
        calls = [Call(name, (number,)) for number, name in enumerate("fgfgf")]
        found = [outcome_of(answer) for answer in session.ask(calls)]
    assert [one.value if isinstance(one, Value) else one.kind for one in found if not isinstance(one, Raised)] == [
        0, "killed", 2, "not-run", 4,
    ]  # fmt: skip


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path):
    course = Course(tmp_path)
    secret = course.secret()
    assert len(secret) == 32
    assert Course(tmp_path).secret() == secret
    assert (tmp_path / ".ftgrade" / "secret").stat().st_mode & 0o077 == 0
    assert (tmp_path / ".ftgrade" / ".gitignore").read_text() == "*\n"


def test_graders_that_begin_at_once_find_one_secret(tmp_path: Path):
    for number in range(30):
        start = threading.Barrier(8)

        def secret(_: int, root: Path = tmp_path / str(number), start: threading.Barrier = start) -> bytes:
            start.wait()
            return Course(root).secret()

        with ThreadPoolExecutor(8) as pool:
            assert len({*pool.map(secret, range(8))}) == 1


def test_a_lost_secret_is_an_error_rather_than_a_new_one(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, answers=RIGHT)
    grader.grade("ada", STEM)
    (grader.course.root / ".ftgrade" / "secret").unlink()
    with pytest.raises(CourseFault, match="put it back from a backup"):
        grader.grade("ada", STEM)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("while True: pass", "timeout"),
        ("import os; os._exit(0)", "killed"),
        ("import ctypes; ctypes.string_at(0)", "killed"),
    ],
    ids=["endless", "exit", "crash"],
)
def test_what_does_not_return_costs_its_own_question(grader: Grader, hand_in: HandIn, line: str, kind: str):
    grader.limits = Limits(call_seconds=0.5)
    hand_in("ada", STEM, answers=RIGHT.replace("    r = min(r, d_out, d_in)\n", f"    {line}\n"))
    made = grader.grade("ada", STEM)
    assert statuses(made)["dof"] == kind
    assert made.score == 8.5


def test_a_cell_that_hangs_or_dies_is_left_out_and_said(grader: Grader, hand_in: HandIn):
    grader.limits = Limits(cell_seconds=1.0)
    hand_in("ada", STEM, data=with_cells("while True: pass", "import os; os._exit(1)", "1 / 0"))
    made = grader.grade("ada", STEM)
    assert made.score == 10.0
    assert [finding.kind for finding in made.findings] == ["cell-left-out", "cell-left-out"]
    assert any("ZeroDivisionError" in note.error for note in made.notes)


def test_a_submission_can_not_reach_what_judges_it(grader: Grader, hand_in: HandIn):
    spy = (
        "import os, sys, gc\n"
        "def seen():\n"
        "    found = [name for name in sys.modules if name.startswith(('ftgrade', 'nbgrader'))]\n"
        "    found += [name for name in os.environ if 'FTGRADE' in name or 'SECRET' in name]\n"
        "    found += os.listdir('.')\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        found += [name for name in frame.f_locals if name in ('expected', 'reference', 'secret', 'seeds')]\n"
        "        frame = frame.f_back\n"
        "    return found\n"
        "print('SEEN', seen())\n"
        "try:\n"
        "    import ftgrade\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    hand_in("eve", STEM, data=with_cells(spy))
    printed = " ".join(note.printed for note in grader.grade("eve", STEM).notes)
    assert "SEEN []" in printed
    assert "not available while grading" in printed


def test_a_lying_object_is_no_number(grader: Grader, hand_in: HandIn):
    liar = "class Liar(int):\n    __eq__ = lambda a, b: True\n    __hash__ = int.__hash__\n"
    answers = liar + "\n".join(
        f"def {name}(*a, **b):\n    return Liar(7)\n" for name in load_problem(CATALOG, STEM).functions
    )
    hand_in("eve", STEM, answers=answers)
    assert grader.grade("eve", STEM).score == 0


def test_forged_replies_and_a_broken_protocol_give_nothing(grader: Grader, hand_in: HandIn):
    forge = (
        "import os, struct, json\n"
        "def forge(*a, **b):\n"
        "    for descriptor in range(3, 64):\n"
        "        try:\n"
        "            body = json.dumps({'value': {'dict': [['score', 10]]}, 'changed': []}).encode()\n"
        "            os.write(descriptor, struct.pack('>I', len(body)) + body)\n"
        "            os.write(descriptor, b'\\xff' * 64)\n"
        "        except OSError:\n"
        "            pass\n"
        "    return 1\n"
    )
    names = load_problem(CATALOG, STEM).functions
    hand_in("eve", STEM, answers=forge + "\n".join(f"def {name}(*a, **b):\n    return forge()\n" for name in names))
    made = grader.grade("eve", STEM)
    assert made.state == "graded"
    assert made.score == 0


def test_memory_and_huge_values_stay_in_the_worker(grader: Grader, hand_in: HandIn):
    greedy = (
        "def lora_param_count(*a):\n    return [0] * 10**9\n"
        "def breakeven_rank(*a):\n    return torch.zeros(10**8)\n"
        "def low_rank_dof(*a):\n    x = []\n    for _ in range(2000): x = [x]\n    return x\n"
    )
    hand_in("eve", STEM, answers=greedy)
    made = grader.grade("eve", STEM)
    assert made.state == "graded"
    assert made.score == 0


@pytest.mark.parametrize(
    ("value", "given"),
    [
        ("list(range(3_000_000))", {"unsendable", "not-run"}),
        ("[[] for _ in range(900_000)]", {"wrong", "unsendable", "not-run"}),
    ],
    ids=["long", "many small"],
)
def test_large_values_from_every_function_cost_no_judge_its_memory(
    grader: Grader, hand_in: HandIn, value: str, given: set[str]
):
    names = load_problem(CATALOG, STEM).functions
    hand_in("eve", STEM, answers="\n".join(f"def {name}(*a):\n    return {value}\n" for name in names))
    made = grader.grade("eve", STEM)
    assert (made.state, made.score) == ("graded", 0), made.findings
    assert set(statuses(made).values()) - {"not-attempted"} <= given


def test_large_values_of_one_function_cost_another_nothing(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, answers=RIGHT.replace("    r = min(r, d_out, d_in)\n", "    return list(range(1_000_000))\n"))
    made = grader.grade("ada", STEM)
    assert statuses(made)["dof"] == "unsendable"
    assert made.score == 8.5


def test_what_a_hidden_call_prints_is_dropped_and_what_a_cell_prints_is_kept(grader: Grader, hand_in: HandIn):
    chatty = "    print('INSIDE', d_out, d_in)\n    d_out, d_in, r = whole"
    answers = RIGHT.replace("    d_out, d_in, r = whole", chatty) + "\nprint('OUTSIDE', lora_param_count(5, 3, 2))\n"
    hand_in("ada", STEM, answers=answers)
    made = grader.grade("ada", STEM)
    stored = json.loads(grader.course.report_path("ada", STEM).read_text())
    text = json.dumps(stored | {"cells": [], "forms": {}})  # what was handed in stands in there too
    assert made.score == 10.0
    assert "OUTSIDE 16" in text
    assert text.count("INSIDE") <= 2, "only the student's own call may show"


def test_magics_and_a_notebook_that_imports_its_checks_are_graded_like_any_other(grader: Grader, hand_in: HandIn):
    extras = (
        "%matplotlib inline",
        "!echo hi",
        "%%time\nx = 1",
        "from ftmath import check\nimport ftmath.checks\ncheck(1)\nftmath.checks.check(1)",
    )
    hand_in("ada", STEM, data=with_cells(*extras))
    made = grader.grade("ada", STEM)
    assert made.score == 10.0
    assert [note.error for note in made.notes if note.error] == []


def test_what_a_cell_draws_is_shown_to_its_student(grader: Grader, hand_in: HandIn):
    draws = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('drawn')"
    forges = "import sys\nsys.modules['matplotlib.pyplot'] = None\nprint('x')"
    hand_in("ada", STEM, data=with_cells(draws, forges))
    made = grader.grade("ada", STEM)
    assert made.score == 10.0
    assert [len(note.pictures) for note in made.notes][:2] == [1, 0]
    assert report.from_json(report.to_json(made)) == made


def test_pictures_of_all_cells_together_are_bounded(grader: Grader, hand_in: HandIn):
    """A judgement travels in one frame: more pictures than have room in it would end the judge."""
    draws = "import matplotlib.pyplot as plt\nfor _ in range(4):\n    plt.figure(figsize=(0.2, 0.2))"
    hand_in("ada", STEM, data=with_cells(*[draws] * 27))
    made = grader.grade("ada", STEM)
    assert made.score == 10.0
    assert [len(note.pictures) for note in made.notes][:27] == [4] * 25 + [0] * 2


@pytest.mark.parametrize("claimed", [None, 7, "x", ["x", 7, None], ["PHNjcmlwdD4="], [["a"]]])
def test_a_picture_that_is_none_is_dropped(claimed: object):
    assert list(whole_pictures(claimed)) == []


def test_the_library_is_named_as_missing_rather_than_given(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, data=with_cells("import ftmath\nftmath.lora.count"))
    errors = [note.error for note in grader.grade("ada", STEM).notes if note.error]
    assert any("not available while grading" in error for error in errors)


def test_a_child_process_does_not_outlive_its_submission(grader: Grader, hand_in: HandIn, tmp_path: Path):
    mark = tmp_path / "mark"
    spawn = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setpgid(0, 0) if False else None\n"
        f"    time.sleep(3)\n    open({str(mark)!r}, 'w').close()\n    os._exit(0)\n"
    )
    hand_in("eve", STEM, data=with_cells(spawn))
    assert grader.grade("eve", STEM).score == 10.0
    assert not mark.exists()


def test_a_class_goes_on_past_every_kind_of_trouble(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, answers=RIGHT)
    hand_in("bob", STEM, data="{")
    hand_in("cyd", STEM, data='{"nbformat": 3, "worksheets": []}')
    (grader.course.root / "submitted" / "dan" / STEM).mkdir(parents=True)
    found = {made.student: made for made in grade_class(grader, [STEM])}
    assert {student: made.state for student, made in found.items()} == {
        "ada": "graded", "bob": "unreadable", "cyd": "unreadable", "dan": "unreadable",
    }  # fmt: skip
    assert [found[name].findings[0].kind for name in ("bob", "cyd", "dan")] == ["malformed", "old-format", "missing"]
    assert found["ada"].score == 10.0


def test_a_fault_of_the_problem_is_told_as_such_and_never_as_the_students(
    grader: Grader, hand_in: HandIn, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    def failing(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    hand_in("ada", STEM, answers=RIGHT)
    work = grader.look_up("ada", STEM, fresh=False)
    assert isinstance(work, Work)
    bench = Bench(CATALOG, sandbox)
    monkeypatch.setattr(bench.oracle_of(STEM), "judge", failing)
    made = grader.finish(work, bench.judge(work.brief, work.data))
    assert (made.state, made.score, made.needs_a_person) == ("ours", 0, True)
    assert "a bug of ours" in made.findings[0].words
    assert grader.grade("ada", STEM).score == 10.0, "it's judged again the next time"


def test_files_that_start_something_are_set_aside_and_kept(grader: Grader, hand_in: HandIn):
    folder = hand_in("eve", STEM, answers=RIGHT).parent
    (folder / "nbgrader_config.py").write_text("raise SystemExit")
    (folder / "link.csv").symlink_to("/etc/passwd")
    (folder / "deep").mkdir()
    (folder / "deep" / "evil.pth").write_text("import os")
    (folder / "data.csv").write_text("1,2\n")
    made = grader.grade("eve", STEM)
    assert made.score == 10.0
    assert sorted(path.name for path in folder.iterdir()) == ["data.csv", "deep", f"{STEM}.ipynb"]
    aside = grader.course.quarantine("eve", STEM)
    assert (aside / "nbgrader_config.py").read_text() == "raise SystemExit"
    assert (aside / "link.csv").is_symlink()
    assert "deep/evil.pth" in made.findings[0].words
    assert grader.grade("eve", STEM).findings == made.findings


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2026-01-30 15:00:00.123456 UTC", True), ("2026-01-30 15:00:00 America/New_York", True),
        ("2026-01-30T15:00:00+00:00", True), ("2026-01-30 15:00:00", True), ("the day after tomorrow", False),
        ("", False), ("9" * 99, False), (chr(0), False),
    ],
)  # fmt: skip
def test_a_time_stamp_that_tells_no_time_is_set_aside(tmp_path: Path, text: str, kept: bool):
    """nbgrader would raise over it, and leave its student ungraded."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "timestamp.txt").write_text(text)
    set_aside(folder, tmp_path / "aside")
    assert (folder / "timestamp.txt").exists() == kept


def test_a_folder_that_is_a_link_is_not_followed(grader: Grader, tmp_path: Path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / f"{STEM}.ipynb").write_text(build.filled_notebook(CATALOG, STEM, RIGHT))
    (tmp_path / "submitted" / "eve").mkdir(parents=True)
    (tmp_path / "submitted" / "eve" / STEM).symlink_to(other)
    made = grader.grade("eve", STEM)
    assert (made.state, made.score) == ("unreadable", 0)
    assert (other / f"{STEM}.ipynb").exists()


def test_a_report_survives_storage_and_refuses_other_text(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, answers="")
    made = grader.grade("ada", STEM)
    assert report.from_json(report.to_json(made)) == made
    for text in ("[]", "{}", '{"schema": 1}', '{"schema": 99}'):
        with pytest.raises(ValueError, match="report"):
            report.from_json(text)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -1.0, 99.0])
def test_only_a_finite_score_within_its_points_is_booked(score: float):
    assert 0.0 <= report.safe_score(score, 2.0) <= 2.0
    assert report.safe_score(float("nan"), 2.0) == 0.0


def test_text_that_no_file_can_take_stops_nobody(grader: Grader, hand_in: HandIn):
    hand_in("eve", STEM, data=with_cells("print(chr(0xD800))", "raise ValueError(chr(0xDFFF))"))
    hand_in("ada", STEM, answers=RIGHT)
    assert [made.score for made in grade_class(grader, [STEM])] == [10.0, 10.0]


@pytest.mark.parametrize(
    "value", ["10**400", "-(10**400)", "torch.zeros([1] * 64)", "{1: {}}", "'a' * 99", "float('inf')"]
)
def test_a_value_of_any_kind_is_the_students_and_never_our_fault(grader: Grader, hand_in: HandIn, value: str):
    for stem in ("p01_answer_only_loss", STEM, "p08_dpo_loss"):
        names = load_problem(CATALOG, stem).functions
        hand_in("eve", stem, answers="\n".join(f"def {name}(*a, **b):\n    return {value}\n" for name in names))
        made = grader.grade("eve", stem)
        assert (made.state, made.score) == ("graded", 0.0)


def grade_all(grader: Grader) -> None:
    for _ in grade_class(grader, [STEM]):
        pass
    grader.last_run(STEM).save()


def told_by_verify(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    cli.main(["verify", "--course", str(root), "--json"])
    return {one["student"]: one["words"] for one in json.loads(capsys.readouterr().out)["changed"]}


def test_a_report_counts_under_its_own_name_and_for_its_own_hand_in_alone(
    grader: Grader, hand_in: HandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    hand_in("ada", STEM, answers=RIGHT)
    hand_in("bob", STEM, answers="")
    grade_all(grader)
    ada, bob = (grader.course.report_path(student, STEM) for student in ("ada", "bob"))
    assert told_by_verify(tmp_path, capsys) == {}
    own, good = bob.read_text(), ada.read_text()
    bob.write_text(good)
    assert grader.reports.get("bob", STEM) is None
    assert [one.student for one in grader.reports.of_problem(STEM)] == ["ada"]
    assert "report of ada" in told_by_verify(tmp_path, capsys)["bob"]
    bob.write_text(own)
    hand_in("ada", STEM, answers="")
    grade_all(grader)
    assert told_by_verify(tmp_path, capsys) == {}
    ada.write_text(good)
    assert "another hand-in" in told_by_verify(tmp_path, capsys)["ada"]
    assert grader.grade("ada", STEM).score == 0
    assert told_by_verify(tmp_path, capsys) == {}


def test_code_that_looks_at_what_calls_it_is_told_to_the_instructor_alone(grader: Grader, hand_in: HandIn):
    hand_in("ada", STEM, data=with_cells("import sys\nprint(sys._getframe().f_back)"))
    made = grader.grade("ada", STEM)
    (found,) = [finding for finding in made.findings if finding.kind == "reaches-out"]
    assert "_getframe, f_back" in found.words
    assert found not in made.told_to_student
    assert made.score == 10.0


@pytest.mark.parametrize(
    "code",
    [
        "import json as j\nj.loads = print",
        "import json\nvars(json).update(loads=print)",
        "import json\njson.__dict__['loads'] = print",
        "import json\njson.loads: object = print",
        "import base64\nbase64.b64decode = print",
        "import json\nfor json.loads in [print]: pass",
        "from unittest import mock\nmock.patch('json.loads', print).start()",
        "from unittest import mock\nimport json\nmock.patch.object(json, 'loads', print).start()",
        "from unittest.mock import patch\npatch('json.loads', print).start()",
        "import sys\ngetattr(sys, '_get' + 'frame')()",
    ],
)
def test_each_usual_way_to_replace_what_the_worker_calls_is_found(code: str):
    cell = Cell(3, "code", code, None)
    (found,) = reaching_findings([cell])
    assert found.words.startswith("Cell 3 ")


def test_honest_cells_reach_for_nothing():
    honest = """import json, sys, time, numpy as np, torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.layer.weight.data = torch.ones(2, 2)
        self.__dict__["scale"] = 2.0
net = Net()
setattr(net, "rate", 0.1)
net.layer.bias.grad = None
torch.backends.cudnn.deterministic = True
getattr(net, "la" + "yer"), getattr(torch, "float" + "32"), vars(net)
"""
    assert not list(reaching_findings([Cell(1, "code", honest, None), Cell(2, "code", "(" * 300, None)]))


def test_a_forged_line_or_a_reply_of_megabytes_reaches_no_page(grader: Grader, hand_in: HandIn):
    look = "import sys\nframe = sys._getframe()\nwhile 'describe_error' not in frame.f_globals: frame = frame.f_back\n"
    line = "frame.f_globals['describe_error'] = lambda e: {'names': ['KeyError'], 'message': '', 'line': 31415926535}"
    hand_in("ada", STEM, data=with_cells(look + line, "def lora_param_count(*a):\n    raise KeyError", first=False))
    made = grader.grade("ada", STEM)
    assert [check.words for check in made.checks if check.name == "count"] == ["lora_param_count: it raised KeyError"]
    large = "frame.f_globals['frame_json'] = lambda m: b'\\0\\x40\\0\\0' + b'[' * 2**22"
    hand_in("bob", STEM, data=with_cells(look.replace("describe_error", "frame_json") + large))
    assert any("was left out" in finding.words for finding in grader.grade("bob", STEM).findings)


def test_a_forged_text_of_megabytes_costs_no_time(grader: Grader, hand_in: HandIn):
    look = "import sys\nframe = sys._getframe()\nwhile 'frame_json' not in frame.f_globals: frame = frame.f_back\n"
    text = "real = frame.f_globals['frame_json']\n"
    text += "frame.f_globals['frame_json'] = lambda m: real(m | {'printed': 'function call ' * 140_000})"
    hand_in("ada", STEM, data=with_cells(look + text, "1 + 1"))
    made = grader.grade("ada", STEM)
    assert made.state == "graded"
    assert sum(len(note.printed) for note in made.notes) < 20_000


def test_what_cells_print_after_a_hidden_call_is_not_kept(grader: Grader, hand_in: HandIn):
    clock = "import os, time\nprint('ran at', time.monotonic() // 1)"
    ends = "def lora_param_count(*a):\n    time.sleep(1.1)\n    os._exit(0)"
    hand_in("ada", STEM, data=with_cells(clock, first=True))
    (plain,) = [note.printed for note in grader.grade("ada", STEM).notes if "ran at" in note.printed]
    hand_in("bob", STEM, data=with_cells("import os, time\nopen('runs', 'a').write('x')", clock, ends, first=False))
    made = grader.grade("bob", STEM)
    (kept,) = [note.printed for note in made.notes if "ran at" in note.printed]
    assert kept.count("ran at") == plain.count("ran at") == 1
    assert made.score < 10


def test_a_name_among_many_that_a_failed_cell_should_define_is_not_told(grader: Grader, hand_in: HandIn):
    names = "".join(f"v{number} = unknown\n" for number in range(60))
    chosen = "def lora_param_count(d_out, d_in, r):\n    return globals()[f'v{r}'] if 0 else eval(f'v{r}')"
    hand_in("ada", STEM, data=with_cells(f"nothing_is_called_so\n{names}", chosen, first=False))
    (count,) = [check for check in grader.grade("ada", STEM).checks if check.name == "count"]
    assert count.words.startswith("lora_param_count: it raised NameError")
    assert "`v" not in count.words + count.says + count.next_step


def test_one_message_for_every_error_names_nothing_in_the_plural_either(grader: Grader, hand_in: HandIn):
    right = CATALOG.leaves(STEM).solution.read_text("utf-8")
    for words in (
        "rank d_in d_out target n_layers",
        "ranks d_ins d_outs targets n_layerss",
        "_rank _d_in _d_out _target",
    ):
        told = re.sub(r'raise ValueError\(f?".*"\)', f'raise ValueError("{words} n_layers")', right)
        assert told.count(words) >= 3
        hand_in("ada", STEM, answers=told)
        assert grader.grade("ada", STEM).score < 9


def test_flags_of_the_standard_streams_end_with_their_submission(grader: Grader, hand_in: HandIn):
    look = "import fcntl\nprint('flags', [fcntl.fcntl(n, fcntl.F_GETFL) for n in range(3)])\n"
    change = "import os\n[fcntl.fcntl(n, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK) for n in range(3)] and None"
    hand_in("ada", STEM, data=with_cells(look + change))
    hand_in("bob", STEM, data=with_cells(look))
    ada, bob = (
        [note.printed for note in grader.grade(one, STEM).notes if "flags" in note.printed] for one in ("ada", "bob")
    )
    assert ada == bob != []


def test_times_and_addresses_change_no_byte_of_a_report(grader: Grader, hand_in: HandIn):
    cells = (
        "%%time\nx = sum(range(9))", "%timeit -n 2 -r 2 1 + 1", "t = %timeit -n 1 -r 2 -o 1 + 1\nt",
        "%prun sum(range(9))", "%time 1 + 1", "object()", "print(object(), lambda: 1)\n'said'",
    )  # fmt: skip
    hand_in("ada", STEM, data=with_cells(*cells))
    first, second = (grader.grade("ada", STEM, fresh=True) for _ in range(2))
    assert report.to_json(first) == report.to_json(second)
    said = "".join(note.printed for note in first.notes)
    assert "said" in said
    assert "<object object at 0x…>" in said
    assert not any(word in said for word in ("Wall time", "per loop", "seconds"))


def test_an_empty_array_of_huge_axes_costs_its_question_alone(grader: Grader, hand_in: HandIn):
    huge = "import torch\ndef personal_number():\n    return torch.empty((0, 2**26, 2**26, 2**9), dtype=torch.uint8)"
    hand_in("ada", STEM, data=with_cells(huge, "def low_rank_dof(*a):\n    return personal_number()", first=False))
    made = grader.grade("ada", STEM)
    assert made.state == "graded"
    assert {check.name: check.score == check.points for check in made.checks if check.name in ("count", "dof")} == {
        "count": True, "dof": False,
    }  # fmt: skip
