"""The first file that anybody runs: what it installs, what it notices, what it says."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """start.py in a folder of its own, with a pip that only remembers what it was asked for."""
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "autograder").mkdir()
    places = {
        "ROOT": tmp_path,
        "PROFILE": tmp_path / "course" / ".jupyter",
        "VENV": tmp_path / ".venv",
        "STAMP": tmp_path / ".venv" / ".complete",
    }
    for name, value in places.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(module, "LOG", tmp_path / ".venv" / "install.log")
    monkeypatch.setattr(module, "has_uv", lambda: False)
    module.asked = []  # pyright: ignore[reportAttributeAccessIssue]
    module.ran = []  # pyright: ignore[reportAttributeAccessIssue]

    def make() -> None:
        module.python().parent.mkdir(parents=True, exist_ok=True)
        module.python().touch()

    def pip_status(words: list[str]) -> tuple[int, str]:
        module.asked.append(words)
        return 0, ""

    monkeypatch.setattr(module, "make_environment", make)
    monkeypatch.setattr(module, "pip_status", pip_status)
    monkeypatch.setattr(module, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(module, "run", lambda words: module.ran.append(words) or 0)
    return module


def test_a_first_start_installs_and_a_second_one_asks_pip_for_nothing(start: ModuleType):
    assert start.main(["build"]) == 0
    first = len(start.asked)
    assert first >= 2
    assert start.main(["build"]) == 0
    assert len(start.asked) == first


@pytest.mark.parametrize(("whole", "extras"), [(True, "course,grade,test"), (False, "course")])
def test_a_students_bundle_installs_the_course_alone(start: ModuleType, whole: bool, extras: str):
    if not whole:
        (start.ROOT / "autograder").rmdir()
    assert start.main([]) == 0
    assert start.asked[-1][-1] == f"{start.ROOT}[{extras}]"


def test_what_a_students_bundle_lacks_is_told_before_anything_is_installed(start: ModuleType, monkeypatch, capsys):
    monkeypatch.setattr(start, "present", lambda *_: True)
    (start.ROOT / "autograder").rmdir()
    for words in (["test"], ["test", "peers"], ["grade", "--demo"], ["site"], ["slides"], ["check", "p03"]):
        assert start.main(words) == 1
        assert f"without `{words[0]}`: `python3 start.py` opens it" in capsys.readouterr().err
    assert start.asked == []
    assert start.main(["model", "smollm2"]) == 0


def test_a_half_finished_install_is_noticed_and_mended(start: ModuleType, monkeypatch, capsys):
    def stopped(_: list[str]) -> tuple[int, str]:
        raise KeyboardInterrupt

    whole = start.pip_status
    monkeypatch.setattr(start, "pip_status", stopped)
    assert start.main([]) == 130
    assert not start.complete()
    monkeypatch.setattr(start, "pip_status", whole)
    assert start.main([]) == 0
    assert "it's mended" in capsys.readouterr().out
    assert start.complete()


def test_a_changed_lock_or_pyproject_is_installed_anew(start: ModuleType):
    start.main([])
    before = len(start.asked)
    (start.ROOT / "requirements.lock").write_text(start.LOCK.read_text() + "\n# changed\n")
    assert not start.complete()
    start.main([])
    assert len(start.asked) > before


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["test"], ["-m", "pytest"]),
        (["test", "-k", "lora"], ["-m", "pytest", "-k", "lora"]),
        (["test", "browser"], ["-m", "pytest", "-m", "browser", "-n", "0", "tests/browser"]),
        (["test", "peers"], ["-m", "pytest", "-m", "peers", "-n", "0", "tests/peers"]),
        (["test", "adapters"], ["-m", "pytest", "-m", "peers", "-n", "0", "tests/peers/test_adapters.py"]),
        (["test", "course"], ["-m", "pytest", "-m", "course", "-n", "0", "tests/test_course.py"]),
        (["model", "smollm2"], ["-W", "ignore::RuntimeWarning:runpy", "-m", "ftmath.smollm"]),
        (["lab", "--record"], ["-m", "ftmath.lab", "--record"]),
        (["site", "--parts", "5"], ["site/pages.py", "--parts", "5"]),
        (["slides", "--parts", "5"], ["site/slides.py", "--parts", "5"]),
        (["grade", "--demo"], ["-m", "ftgrade.commands.cli", "grade", "--demo"]),
    ],
)
def test_words_go_where_they_belong(start: ModuleType, words: list[str], program: list[str]):
    assert start.command(words) == program


def test_the_course_opens_on_its_index_and_serves_the_whole_project(start: ModuleType):
    """The index links to problems outside its own folder."""
    words = start.command([])
    assert words[:2] == ["-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={start.ROOT}" in words
    assert not any(word.endswith(".ipynb") and not word.startswith("--") for word in words)
    (opened,) = [word.partition("=/lab/tree/")[2] for word in words if "default_url" in word]
    assert (ROOT / opened).is_file()


@pytest.mark.parametrize("words", [["model", "smollm2"], ["lab", "--model", "folder"]])
@pytest.mark.parametrize(("there", "asked"), [(True, 0), (False, 1)])
def test_what_reads_a_real_model_is_installed_when_it_is_missing(
    start: ModuleType, monkeypatch, words: list[str], there: bool, asked: int
):
    start.main(["build"])
    before = len(start.asked)
    monkeypatch.setattr(start, "present", lambda *_: there)
    assert start.main(words) == 0
    assert [words[-1] for words in start.asked[before:]] == [f"{start.ROOT}[model]"] * asked


@pytest.mark.parametrize(("there", "asked"), [(True, 0), (False, 1)])
def test_the_sites_tools_are_installed_when_they_are_missing(start: ModuleType, monkeypatch, there: bool, asked: int):
    start.main(["build"])
    before = len(start.asked)
    monkeypatch.setattr(start, "present", lambda *_: there)
    assert start.main(["site"]) == 0
    assert [words[-1] for words in start.asked[before:]] == [f"{start.ROOT}[site]"] * asked
    assert start.ran[-1] == ["site/pages.py"]


def test_only_the_students_jupyterlab_takes_the_courses_profile(start: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """The profile hides nbgrader's tools for instructors."""
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "mine")
    assert start.environment(["-m", "ftgrade.commands.cli", "grade"])["JUPYTER_CONFIG_PATH"] == "mine"
    paths = start.environment(start.command([]))["JUPYTER_CONFIG_PATH"].split(start.os.pathsep)
    assert paths == [str(start.PROFILE), "mine"]
    assert (ROOT / start.PROFILE.relative_to(start.ROOT) / "labconfig" / "page_config.json").is_file()


def test_a_model_that_is_not_offered_is_told(start: ModuleType):
    with pytest.raises(start.Trouble, match="model smollm2"):
        start.command(["model", "llama"])


def test_an_old_python_is_told_which_to_use(start: ModuleType, monkeypatch):
    monkeypatch.setattr(start.shutil, "which", lambda name: name if name in ("python3.13", "python3.12") else None)
    # pyenv puts a `python3.13` on the path that only says "command not found".
    monkeypatch.setattr(start, "quiet", lambda words: SimpleNamespace(returncode=127 * (words[0] == "python3.13")))
    with pytest.raises(start.Trouble, match=r"this is 3\.9: run `python3\.12 start\.py`"):
        start.demand_python((3, 9))
    start.demand_python((3, 11))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ERROR: [Errno 28] No space left on device", "the disk is full"),
        ("NewConnectionError('failed')", "can't be reached"),
        ("ERROR: something else", "for the reason above"),
    ],
)
def test_a_failing_pip_gets_one_line(start: ModuleType, monkeypatch, capsys, said: str, words: str):
    monkeypatch.setattr(start, "pip_status", lambda _: (1, said))
    monkeypatch.setattr(start, "default_is_cpu_build", lambda _: True)
    assert start.main([]) == 1
    assert words in capsys.readouterr().err


SAYS = (
    "import sys; print('Collecting numpy==2.0 (from x)', flush=True); print('ERROR: no', file=sys.stderr); sys.exit(3)"
)


def test_what_an_installer_says_goes_to_the_log_and_not_to_the_screen(start: ModuleType, capsys):
    """Some 200 lines of pip hid the one that mattered."""
    assert start.install_status([sys.executable, "-c", SAYS]) == (3, "Collecting numpy==2.0 (from x)\nERROR: no\n")
    assert "Collecting" not in capsys.readouterr().out
    assert "Collecting numpy==2.0 (from x)\nERROR: no\n" in start.LOG.read_text()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "looking at what is there"),
        (["Collecting numpy>=2\n", "  x\n"], "collecting numpy"),
        (["  Downloading torch-2.13.0-cp311.whl (184.5 MB)\n"], "downloading torch-2.13.0-cp311.whl"),
        (["Installing collected packages: a, b\n"], "installing a"),
    ],
)
def test_the_line_of_progress_says_what_is_being_done(start: ModuleType, lines: list[str], words: str):
    assert start.latest(lines) == words


def test_uv_is_used_if_it_is_there_and_pip_if_it_fails(start: ModuleType, monkeypatch):
    asked: list[list[str]] = []
    monkeypatch.setattr(start, "has_uv", lambda: True)
    monkeypatch.setattr(start, "install_status", lambda program: (asked.append(program) or len(asked) % 2, ""))
    start.add("site")
    start.add("peers")
    project = ["--constraint", str(start.LOCK), "--editable", f"{start.ROOT}[site]"]
    assert asked[0] == ["uv", "pip", "install", "--python", str(start.python()), *project]
    assert start.asked == [["install", *project]]


def test_a_wheelhouse_needs_no_installation_and_tells_the_line_that_installs_from_it(
    start: ModuleType, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setattr(start, "default_is_cpu_build", lambda _: True)
    house = tmp_path / "house"
    house.mkdir()
    (house / "fine_tuning_math-0.0.9-py3-none-any.whl").touch()
    own = house / "fine_tuning_math-0.1.0-py3-none-any.whl"

    def pip_status(words: list[str]) -> tuple[int, str]:
        start.asked.append(words)
        if words[-1] == str(start.ROOT):
            own.touch()
        return 0, ""

    monkeypatch.setattr(start, "pip_status", pip_status)
    assert start.main(["wheelhouse", str(house), "course,model"]) == 0
    built, torch, rest = start.asked
    assert built == ["wheel", "--no-deps", "--wheel-dir", str(house), str(start.ROOT)]
    assert torch[:3] == ["download", "--dest", str(house)]
    assert torch[-1] == f"torch=={start.locked('torch')}"
    assert rest[-3:] == ["--constraint", str(start.LOCK), f"{own}[course,model]"]
    assert list(house.iterdir()) == [own]
    assert 'pip install --no-index --find-links house "fine-tuning-math[course,model]"' in capsys.readouterr().out
    assert not start.complete()


@pytest.mark.parametrize("words", [[], ["--help"], ["a", "b", "c"]])
def test_a_wheelhouse_without_a_folder_is_told(start: ModuleType, capsys, words: list[str]):
    assert start.main(["wheelhouse", *words]) == 1
    assert "python3 start.py wheelhouse DIR" in capsys.readouterr().err
    assert start.asked == []


def test_a_full_disk_is_noticed_before_anything_is_downloaded(start: ModuleType, monkeypatch, capsys):
    monkeypatch.setattr(start.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    assert start.main([]) == 1
    assert "3 GB of free disk space are needed and 0.9 are left" in capsys.readouterr().err
    assert start.asked == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the default build is the one for the machine")
def test_cuda_is_never_downloaded_by_surprise(start: ModuleType, monkeypatch, capsys):
    monkeypatch.setattr(start, "pip_status", lambda words: (int("--index-url" in words), ""))
    monkeypatch.setattr(start, "default_is_cpu_build", lambda _: False)
    assert start.main([]) == 1
    assert "gigabytes of CUDA" in capsys.readouterr().err


@pytest.mark.parametrize(("needs", "answer"), [(["filelock", "nvidia-cublas; x"], False), (["filelock"], True)])
def test_a_build_that_needs_nvidias_packages_is_no_cpu_build(start: ModuleType, monkeypatch, needs, answer):
    report = f'{{"install": [{{"metadata": {{"requires_dist": {str(needs).replace(chr(39), chr(34))}}}}}]}}'
    monkeypatch.setattr(start, "quiet", lambda _: SimpleNamespace(stdout=report))
    assert start.default_is_cpu_build("torch") is answer
    monkeypatch.setattr(start, "quiet", lambda _: SimpleNamespace(stdout=""))
    assert start.default_is_cpu_build("torch") is False


def test_the_machine_with_a_driver_gets_the_default_build(start: ModuleType, monkeypatch):
    monkeypatch.setattr(start, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(start, "demand_space", lambda _: None)
    start.main([])
    assert start.asked[0] == ["install", f"torch=={start.locked('torch')}"]


def test_it_imports_only_the_standard_library():
    import ast

    tree = ast.parse((ROOT / "start.py").read_text(), feature_version=(3, 7))
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert names <= set(sys.stdlib_module_names)


def test_help_needs_no_installation(start: ModuleType, capsys: pytest.CaptureFixture[str]):
    for word in ("--help", "-h", "help"):
        assert start.main([word]) == 0
        assert "start.py COMMAND --help" in capsys.readouterr().out
    assert start.asked == []


@pytest.mark.parametrize("there", [True, False], ids=["with the old scripts", "without"])
def test_a_project_that_was_moved_gets_a_new_environment(start: ModuleType, monkeypatch, capsys, there: bool):
    start.main(["build"])
    pip = start.python().with_name("pip")
    pip.write_text(f"#!{start.python()}\n")
    old = start.VENV / "lib" / "old"
    old.mkdir(parents=True)
    assert start.complete()
    new = start.ROOT / "renamed"
    new.mkdir()
    start.VENV.rename(new / ".venv")
    monkeypatch.setattr(start, "VENV", new / ".venv")
    monkeypatch.setattr(start, "STAMP", new / ".venv" / ".complete")
    if not there:
        start.python().with_name("pip").unlink()
    assert not start.complete()
    capsys.readouterr()
    assert start.main(["build"]) == 0
    said = capsys.readouterr().out
    assert ("was moved or renamed: its environment .venv is made anew" in said) == there
    assert (new / ".venv" / "lib" / "old").exists() != there
    assert start.complete()


ODD_NAMES = ["project (1)", "[b]", "C++", "fine%20tuning", "what?", "a#b", "zo\u00eb \u4e2d", "it's", "$HOME", "a&b;c"]


@pytest.mark.parametrize("name", [*ODD_NAMES, "a:b"])
@pytest.mark.parametrize("streams", ["utf-8", "ascii", "cp1252"])
def test_it_says_what_it_has_to_in_any_folder_and_encoding(tmp_path: Path, name: str, streams: str):
    """The real file, in a process of its own; pip isn't reached, since the disk is said to be full."""
    folder = tmp_path / name
    folder.mkdir()
    for file in ("start.py", "pyproject.toml", "requirements.lock"):
        (folder / file).write_bytes((ROOT / file).read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": streams, "LC_ALL": "C", "HOME": "/nonexistent"}
    look = (
        "import runpy, shutil, sys, types; shutil.disk_usage = lambda _: types.SimpleNamespace(free=0); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    for words, status, told in ((["--help"], 0, "start.py grade --demo"), ([], 1, "free disk space")):
        program = [sys.executable, "-X", "utf8=0", "-c", look, str(folder / "start.py"), *words]
        finished = subprocess.run(program, env=environment, capture_output=True, timeout=60, check=False)
        said = (finished.stdout + finished.stderr).decode(streams)
        expected = "which separates folders in PATH" if ":" in name and not words else told
        assert (finished.returncode, expected in said, "Traceback" in said) == (status, True, False), said


@pytest.mark.parametrize("name", [*ODD_NAMES, "a:b"])
def test_an_environment_can_be_made_in_any_folder_or_it_is_said_why_not(tmp_path: Path, monkeypatch, name: str):
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path / name)
    monkeypatch.setattr(module, "VENV", tmp_path / name / ".venv")
    monkeypatch.setattr("venv.EnvBuilder._setup_pip", lambda *_: None)  # it takes seconds
    if ":" in name:
        with pytest.raises(module.Trouble, match=r"\.venv can't be made: .*PATH separator"):
            module.make_environment()
    else:
        module.make_environment()
        assert module.python().is_file()


def test_nulls_are_a_word_of_the_courses_tests_and_the_rest_goes_on_to_pytest(start: ModuleType):
    words = start.command(["test", "course", "--nulls", "-k", "05", "--record"])
    assert words[-4:] == ["tests/test_claims.py", "-k", "05", "--record"]
    assert start.command(["test", "course", "-k", "05"])[-3:] == ["tests/test_course.py", "-k", "05"]
