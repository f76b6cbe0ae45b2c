"""The course in a folder of the learner's: everything is there, links lead somewhere, and no work is written over."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ftmath.learn import command
from ftmath.learn.contents import contents
from ftmath.learn.laying import RECORD, lay_down

ROOT = Path(__file__).parents[2]
NOTEBOOK = "course/index.ipynb"
FIRST, SECOND = {NOTEBOOK: b"first", "LICENSE": b"free"}, {NOTEBOOK: b"second", "LICENSE": b"free"}


def test_every_lesson_and_statement_is_laid_down_and_no_master_or_solution(tmp_path: Path):
    assert command.main(["learn", str(tmp_path / "new"), "--no-open"]) == 0
    found = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    lessons = {path.relative_to(ROOT).as_posix() for path in (ROOT / "course").rglob("*.ipynb")}
    statements = {f"problems/{path.parent.name}/{path.name}" for path in (ROOT / "source").glob("*/*.ipynb")}
    assert lessons | statements <= found
    assert not [name for name in found if name.endswith(".py")]
    assert found - lessons - statements == {
        *(f"course/{path.name}" for path in (ROOT / "course").glob("*.md")), "README.md", "LICENSE", RECORD,
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / "course" / ".jupyter").rglob("*.json")),
    }  # fmt: skip


def test_links_between_the_laid_files_lead_somewhere(tmp_path: Path):
    lay_down(command.course_files(), tmp_path)
    links = 0
    for path in [*tmp_path.rglob("*.ipynb"), *tmp_path.rglob("*.md")]:
        text = path.read_text("utf-8")
        assert not re.search(r"start\.py[\s\\n\",]+(model|lab)\b", text), path
        for link in re.findall(r"\]\(([^)#:\s]+\.(?:ipynb|md))[)#]", text):
            links += 1
            assert (path.parent / link).is_file(), f"{path}: {link}"
    assert links > 100


def test_a_second_time_changes_nothing(tmp_path: Path):
    lay_down(FIRST, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ipynb")}
    laid = lay_down(FIRST, tmp_path)
    assert (laid.written, laid.updated, laid.left, laid.beside) == ([], [], [], [])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ipynb")} == before


def test_what_is_missing_is_made_again(tmp_path: Path):
    lay_down(FIRST, tmp_path)
    (tmp_path / NOTEBOOK).unlink()
    assert lay_down(FIRST, tmp_path).written == [NOTEBOOK]
    assert (tmp_path / NOTEBOOK).read_bytes() == b"first"


def test_what_only_the_course_changed_is_brought_up_to_date(tmp_path: Path):
    lay_down(FIRST, tmp_path)
    assert lay_down(SECOND, tmp_path).updated == [NOTEBOOK]
    assert (tmp_path / NOTEBOOK).read_bytes() == b"second"


def test_what_only_the_learner_changed_is_left(tmp_path: Path):
    lay_down(FIRST, tmp_path)
    (tmp_path / NOTEBOOK).write_bytes(b"mine")
    laid = lay_down(FIRST, tmp_path)
    assert (laid.left, laid.beside) == ([NOTEBOOK], [])
    assert (tmp_path / NOTEBOOK).read_bytes() == b"mine"


def test_what_both_changed_is_left_with_the_courses_version_beside_it_once(tmp_path: Path):
    lay_down(FIRST, tmp_path)
    (tmp_path / NOTEBOOK).write_bytes(b"mine")
    newer = tmp_path / "course" / "index.new.ipynb"
    assert lay_down(SECOND, tmp_path).beside == ["course/index.new.ipynb"]
    assert ((tmp_path / NOTEBOOK).read_bytes(), newer.read_bytes()) == (b"mine", b"second")
    newer.unlink()
    assert lay_down(SECOND, tmp_path).beside == []
    assert not newer.exists()
    assert lay_down({**FIRST, NOTEBOOK: b"third"}, tmp_path).beside == ["course/index.new.ipynb"]
    newer.write_bytes(b"mine too")
    lay_down({**FIRST, NOTEBOOK: b"fourth"}, tmp_path)
    assert ((tmp_path / NOTEBOOK).read_bytes(), newer.read_bytes()) == (b"mine", b"mine too")


@pytest.mark.parametrize("record", [None, b"", b"[]", b"\xff", b"{}"])
def test_without_a_record_every_file_that_differs_is_the_learners(tmp_path: Path, record: bytes | None):
    lay_down(FIRST, tmp_path)
    (tmp_path / RECORD).unlink()
    if record is not None:
        (tmp_path / RECORD).write_bytes(record)
    laid = lay_down(SECOND, tmp_path)
    assert (laid.updated, laid.beside) == ([], ["course/index.new.ipynb"])
    assert (tmp_path / NOTEBOOK).read_bytes() == b"first"


def test_a_stop_halfway_loses_nothing(tmp_path: Path):
    class Stopped(dict[str, bytes]):
        def items(self):  # pyright: ignore[reportIncompatibleMethodOverride]
            yield NOTEBOOK, b"first"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lay_down(Stopped(), tmp_path)
    assert json.loads((tmp_path / RECORD).read_text()).keys() == {NOTEBOOK}
    assert lay_down(SECOND, tmp_path).updated == [NOTEBOOK]


def test_a_folder_that_is_used_for_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "letter.txt").write_text("Dear")
    for folder, words in (
        (tmp_path, "holds other files"), (tmp_path / "letter.txt", "is a file"), (ROOT, "python3 start.py"),
    ):  # fmt: skip
        assert command.main(["learn", str(folder), "--no-open"]) == 1
        assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_jupyterlab_opens_on_the_front_door_with_the_courses_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ran: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(command, "interpret", lambda words, more: ran.append((words, more)) or 0)
    monkeypatch.delenv("JUPYTER_CONFIG_PATH", raising=False)
    assert command.main(["learn", str(tmp_path), "--no-browser", "--port", "9999", "--allow-root"]) == 0
    words = ["-m", "jupyterlab", f"--ServerApp.root_dir={tmp_path}", f"--LabApp.default_url=/lab/tree/{NOTEBOOK}"]
    settings = tmp_path / "course" / ".jupyter"
    assert ran == [([*words, "--no-browser", "--port=9999", "--allow-root"], {"JUPYTER_CONFIG_PATH": str(settings)})]
    assert (settings / "labconfig" / "page_config.json").is_file()


@pytest.mark.parametrize(("pip", "mend"), [(True, " -m pip install "), (False, "uv pip install --python ")])
def test_without_jupyterlab_the_course_is_there_and_the_mend_is_told(tmp_path, monkeypatch, capsys, pip, mend):
    monkeypatch.setattr(command, "find_spec", lambda name: (name == "pip" and pip) or None)
    assert command.main(["learn", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "The course is in" in said.out
    assert mend in said.err
    assert '"jupyterlab>=' in said.err
    assert sys.executable in said.err
    assert (tmp_path / NOTEBOOK).is_file()


def test_only_jupyterlab_takes_options_that_the_command_does_not_know(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        command.main(["progress", "--allow-root"])
    assert "--allow-root isn't known" in capsys.readouterr().err


def test_progress_lists_the_exercises(capsys: pytest.CaptureFixture[str]):
    assert command.main(["progress"]) == 0
    assert capsys.readouterr().out.startswith("part 1: 1.1 ")


def test_the_list_for_the_wheel_needs_no_torch():
    code = "import pathlib, sys; from hatch_build import listed; print(len(listed(pathlib.Path()))); "
    code += "assert 'torch' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(run.stdout) == len(contents(ROOT))
