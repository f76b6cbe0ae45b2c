"""The prison: every backend of this machine is tried for real, from its walls' own arithmetic to escapes."""

import ast
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.course import Course
from ftgrade.errors import CourseFault, OurFault
from ftgrade.grading.grader import Grader
from ftgrade.judging.judges import Judges
from ftgrade.probing import doctor, probes
from ftgrade.sandbox import backends, jail
from ftgrade.sandbox.backends import BACKENDS, Backend
from ftgrade.sandbox.process import LIMITS, Sandbox, Worker

LINUX = [name for name in ("namespaces", "landlock", "bubblewrap") if not BACKENDS[name].lacks()]
pytestmark = pytest.mark.skipif(not LINUX, reason="no walls of this kind here: they need Linux")


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[dict[str, Sandbox]]:
    made = {name: Sandbox(BACKENDS[name]) for name in [*LINUX, "none"]}
    yield made
    for sandbox in made.values():
        sandbox.close()


@pytest.fixture
def worker(sandboxes: dict[str, Sandbox]) -> Iterator[Worker]:
    with sandboxes["namespaces"].worker() as worker:
        yield worker


def printed(worker: Worker, source: str) -> str:
    reply = worker.run(source, 20.0)
    assert "error" not in reply, reply
    return reply["printed"].strip()


@pytest.mark.parametrize("name", LINUX)
@pytest.mark.parametrize("probe", probes.PROBES, ids=lambda probe: probe.name)
def test_a_real_escape_is_stopped(sandboxes: dict[str, Sandbox], name: str, probe: probes.Probe):
    holds, words = probe.attempt(sandboxes[name])
    if not probe.demanded and name != "namespaces":
        pytest.skip(f"not demanded of {name}: {words}")
    assert holds, words


@pytest.mark.parametrize("umask", [0o077, 0o022, 0])
def test_a_child_reads_libraries_whatever_the_graders_umask(umask: int):
    before = os.umask(umask)
    try:
        for backend in BACKENDS.values():
            if backend.tested and not backend.lacks() and backend.name != "none":
                sandbox = Sandbox(backend)
                assert probes.lacks_libraries(sandbox)[0], backend.name
                assert "tensor" in probes.run_fresh(sandbox, "import torch\nprint(torch.zeros(2))"), backend.name
                sandbox.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize("probe", ["files", "neighbours", "network", "writes", "daemon", "calls", "disk"])
def test_a_probe_succeeds_where_nothing_stops_it(sandboxes: dict[str, Sandbox], probe: str):
    """Without this, a probe that can't get out for a reason of its own would prove nothing."""
    (one,) = [known for known in probes.PROBES if known.name == probe]
    assert not one.attempt(sandboxes["none"])[0]


def test_a_child_is_nobody_alone_and_without_rights(worker: Worker):
    source = """
import os, ctypes, struct
head, held = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
ctypes.CDLL(None).capget(head, held)
print(os.getpid(), os.getuid() != 0, sum(held.raw), sorted(os.listdir("/dev")), os.listdir("."))
"""
    assert printed(worker, source) == "1 True 0 ['full', 'null', 'random', 'urandom', 'zero'] []"


def test_numerical_python_works_as_it_did(sandboxes: dict[str, Sandbox], worker: Worker):
    source = """
import asyncio, hashlib, sqlite3, subprocess, tempfile, threading, time
import torch, numpy as np, torch.distributions, numpy.testing
torch.default_generator.manual_seed(0)
layer = torch.nn.Linear(40, 40)
step = torch.optim.AdamW(layer.parameters())
for _ in range(3):
    layer(torch.randn(30, 40)).square().sum().backward()
    step.step()
torch.save(layer.state_dict(), "layer.pt")
back = torch.load("layer.pt", weights_only=True)["weight"]
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
asyncio.run(asyncio.sleep(0))
np.save(tempfile.mkstemp(suffix=".npy")[1], np.linalg.svd(back.numpy())[1])
print(torch.backends.cpu.get_cpu_capability(), hashlib.sha256(back.numpy().tobytes()).hexdigest())
"""
    with sandboxes["none"].worker() as free:
        assert printed(worker, source) == printed(free, source)


def test_a_descriptor_can_not_be_sent(worker: Worker):
    """Those that nobody receives are counted for the user of all children, and a full count stops the neighbours."""
    source = """
import socket
ours, theirs = socket.socketpair()
try:
    socket.send_fds(ours, [b"x"], [0])
except PermissionError:
    print("refused")
"""
    assert printed(worker, source) == "refused"


def test_a_notebook_that_sets_no_seed_draws_the_same_numbers_in_every_run(worker: Worker):
    source = "import random, numpy, torch\nprint(random.random(), numpy.random.rand(), torch.rand(1).item())"
    first = printed(worker, source)
    with contextlib.closing(Sandbox(BACKENDS["namespaces"])) as another:
        for _ in range(2):
            with another.worker() as fresh:
                assert printed(fresh, source) == first


def test_packages_whose_text_answers_questions_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "site-packages"
    for name in ("numpy", "ftmath", "ftgrade"):
        (site / name).mkdir(parents=True)
    monkeypatch.setattr(backends, "site_folders", lambda: [site])
    monkeypatch.setattr(backends, "readable", lambda: [str(tmp_path)])
    assert backends.hidden() == [str(site / "ftgrade"), str(site / "ftmath")]
    assert sorted(backends.readable_one_by_one()) == sorted([f"{tmp_path}/", f"{site}/", str(site / "numpy")])


def test_the_jail_imports_nothing_of_ours():
    names = {node.names[0].name if isinstance(node, ast.Import) else node.module or ""
             for node in ast.walk(ast.parse(Path(str(jail.__file__)).read_text("utf-8")))
             if isinstance(node, ast.Import | ast.ImportFrom)}  # fmt: skip
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("machine", jail.MACHINES)
@pytest.mark.parametrize("only", [None, 7])
def test_the_filter_allows_what_is_listed_and_nothing_else(machine: str, only: int | None):
    """The program is run here, instruction by instruction, as the kernel would."""
    text = jail.seccomp_filter(machine, only)
    column, architecture = jail.MACHINES[machine]
    allowed = {numbers[column] for numbers in jail.ALLOWED.values()} - {-1}
    for number in range(600):
        verdict = filtered(text, number, architecture, 0)
        assert (verdict == jail.RETURN_ALLOW) == (number in allowed or number in always(column, only)), number
    assert filtered(text, 0, 1, 0) == jail.RETURN_ERRNO | jail.EPERM  # another machine's calls
    assert filtered(text, 0x40000000, architecture, 0) == jail.RETURN_ERRNO | jail.EPERM
    clone, kill, prctl = (pair[column] for pair in (jail.CLONE, jail.KILL, jail.PRCTL))
    assert filtered(text, clone, architecture, 0x10000) == jail.RETURN_ALLOW  # a thread
    assert (filtered(text, clone, architecture, 17) == jail.RETURN_ALLOW) == (only is None)  # a process
    for flag in (0x00020000, 0x10000000, 0x20000000, 0x40000000, 0x04000000, 0x08000000, 0x02000000, 0x80):
        assert filtered(text, clone, architecture, flag | 0x10000) != jail.RETURN_ALLOW
    assert filtered(text, kill, architecture, 7) == jail.RETURN_ALLOW
    assert (filtered(text, kill, architecture, 1) == jail.RETURN_ALLOW) == (only is None)
    assert [filtered(text, prctl, architecture, option) == jail.RETURN_ALLOW for option in (15, 22, 38, 4)] == [
        True, False, False, False,
    ]  # fmt: skip


def always(column: int, only: int | None) -> set[int]:
    """Return the calls that the filter allows with a first argument of 0."""
    if only is not None:
        return set()
    return {jail.CLONE[column], jail.KILL[column], jail.TGKILL[column]} | ({57, 58} if column == 0 else set())


def filtered(text: bytes, number: int, architecture: int, first: int) -> int:
    """Return what a seccomp program says of a system call with this first argument."""
    data = struct.pack("=iIQQ", number, architecture, 0, first)
    lines = [struct.unpack_from("HBBI", text, at) for at in range(0, len(text), 8)]
    at = value = 0
    while True:
        code, yes, no, k = lines[at]
        if code == jail.RETURN:
            return k
        if code == jail.LOAD:
            value = struct.unpack_from("=I", data, k)[0]
            at += 1
            continue
        holds = {jail.JUMP_EQUAL: value == k, jail.JUMP_AT_LEAST: value >= k, jail.JUMP_SET: bool(value & k)}[code]
        at += 1 + (yes if holds else no)


def test_a_wall_that_cannot_be_built_is_our_fault_and_runs_no_code():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        from ftgrade.sandbox.process import demand_confined
        from ftgrade.sandbox.worker import frame_json

        theirs.sendall(frame_json({"trouble": "landlock: no"}))
        with pytest.raises(OurFault, match="landlock: no"):
            demand_confined(ours)
        theirs.close()
        with pytest.raises(OurFault, match="before it was shut in"):
            demand_confined(ours)


def test_walls_that_cannot_be_made_cost_one_child_and_not_the_next():
    with contextlib.closing(Sandbox(BACKENDS["namespaces"], LIMITS | {"megabytes": -1})) as sandbox:
        with pytest.raises(OurFault, match=r"forked no child: .*fsconfig"), sandbox.worker():
            pass
        sandbox.limits = LIMITS
        with sandbox.worker() as worker:
            assert printed(worker, "print(1 + 1)") == "2"


def test_a_parent_that_does_not_start_says_why():
    broken = Backend(
        "broken", "", ("namespaces",), lambda: "", lambda words, base: [words[0], "-c", "raise OSError('no wall')"]
    )
    with pytest.raises(OurFault, match="no wall"):
        Sandbox(broken).start()


def test_everything_ends_with_a_grader_that_is_killed(tmp_path: Path):
    """The worker's parent and its children belong to the grader: a kill -9 of it leaves none of them."""
    program = tmp_path / "grader.py"
    program.write_text(
        "import sys, time\nfrom ftgrade.sandbox.backends import BACKENDS\nfrom ftgrade.sandbox.process import Sandbox\n"
        "sandbox = Sandbox(BACKENDS['namespaces'])\n"
        "with sandbox.worker() as worker:\n"
        "    print(worker.pid, sandbox.program.process.pid, flush=True)\n    time.sleep(60)\n"
    )
    grader = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert grader.stdout is not None
    pids = [int(word) for word in grader.stdout.readline().split()]
    assert len(pids) == 2
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    grader.kill()
    grader.wait()
    grader.stdout.close()
    ends = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no Python that every user may run")
def test_the_walls_hold_for_an_ordinary_user_too(tmp_path: Path):
    """An instructor isn't root: namespaces, Landlock and seccomp are built with no right but a user's."""
    program = tmp_path / "probe.py"
    site = next(path for path in sys.path if path.endswith("site-packages"))
    ours = str(Path(str(backends.__file__)).parents[2])
    if subprocess.run(["/usr/bin/python3", "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 11))"]).returncode:
        pytest.skip("the system's Python is of another version than the packages")
    program.write_text(f"""
import os, sys, sysconfig
os.setgroups([]); os.setresgid(65533, 65533, 65533); os.setresuid(65533, 65533, 65533)
sys.path[:0] = [{ours!r}]; sys.path.append({site!r})
real = sysconfig.get_path
sysconfig.get_path = lambda name, *rest: {site!r} if name.endswith("lib") else real(name, *rest)
from ftgrade.sandbox.backends import BACKENDS
from ftgrade.sandbox.process import Sandbox
from ftgrade.probing.probes import run_probes
sandbox = Sandbox(BACKENDS["namespaces"])
print([one for one in run_probes(sandbox) if not one.holds])
sandbox.close()
""")
    found = subprocess.run(["/usr/bin/python3", str(program)], capture_output=True, text=True, timeout=120, cwd="/")
    assert found.stdout.strip() == "[]", found.stdout + found.stderr[-2000:]


def test_an_environment_that_is_reached_through_a_link_imports_in_the_worker_too(tmp_path: Path):
    link = tmp_path / "environment"
    link.symlink_to(sys.prefix)
    program = (
        "from ftgrade.sandbox.backends import BACKENDS\n"
        "from ftgrade.sandbox.process import Sandbox\n"
        "sandbox = Sandbox(BACKENDS['namespaces'])\n"
        "with sandbox.worker() as worker:\n"
        "    print(worker.run('import matplotlib.backends.backend_svg', 30))\n"
        "sandbox.close()\n"
    )
    ours = str(Path(str(backends.__file__)).parents[2])
    found = subprocess.run(
        [str(link / "bin" / "python"), "-c", program], env={"PYTHONPATH": ours}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert found.stdout.strip() == "{'printed': ''}", found.stdout + found.stderr[-2000:]


# ------------------------------------------------------------------------------------------------ which one is used


def test_the_strongest_that_holds_is_chosen_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept, tries = tmp_path / "doctor.json", []

    def examined(backend: Backend, *, all_of_them: bool = True) -> doctor.BackendResult:
        tries.append(backend.name)
        held = tuple(probes.ProbeResult(probe.name, backend.name == "landlock", "") for probe in probes.PROBES)
        return doctor.BackendResult(backend, "", held)

    monkeypatch.setattr(doctor, "examine", examined)
    assert doctor.strongest(kept).name == "landlock"
    assert tries == ["namespaces", "bubblewrap", "landlock"]
    assert doctor.strongest(kept).name == "landlock"
    assert len(tries) == 3
    monkeypatch.setattr(doctor, "machine_digest", lambda: "another")
    doctor.strongest(kept)
    assert len(tries) == 6


def test_without_a_sandbox_grading_for_marks_stops_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(backend: Backend, *, all_of_them: bool = True) -> doctor.BackendResult:
        return doctor.BackendResult(backend, "", (probes.ProbeResult("network", False, "a connection arrived"),))

    monkeypatch.setattr(doctor, "examine", broken)
    monkeypatch.delenv(doctor.ALLOW, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(CourseFault, match="a connection arrived"):
        doctor.strongest(tmp_path / "doctor.json")
    assert doctor.strongest(tmp_path / "doctor.json", allow_unsandboxed=True).name == "none"
    assert not (tmp_path / "doctor.json").exists()  # allowed once is not chosen for good
    from ftgrade.catalog import home

    grader = Grader(home(), Course(tmp_path), allow_unsandboxed=True)
    assert "without a sandbox" in grader.unsandboxed_finding[0].words
    grader.close()


def test_time_of_awaited_children_counts_as_the_submissions(sandboxes: dict[str, Sandbox]):
    """A pool of processes must not make a limit of processor time one of wall time."""
    spend = "import os, time\nif os.fork() == 0:\n    while time.process_time() < 0.6: pass\n    os._exit(0)\nos.wait()"
    with sandboxes["namespaces"].worker() as worker:
        before = worker.processor_seconds()
        worker.run(spend, 30)
        assert worker.processor_seconds() - before > 0.5


def test_a_grader_that_was_started_without_sigchld_grades_all_the_same(tmp_path: Path):
    source = (
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from ftgrade.catalog import home\nfrom ftgrade.judging.judges import Judges\n"
        "from ftgrade.sandbox.backends import BACKENDS\n"
        "judges = Judges(home(), lambda: BACKENDS['landlock'], 1)\n"
        "print('outline', judges.outline('p03_lora_parameters'))\n"
        "judges.close()\n"
    )
    finished = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "outline" in finished.stdout


def test_a_folder_of_any_depth_is_removed(tmp_path: Path):
    """With Landlock alone a child's folder is on the disk, and 3,000 levels stopped the grader at its end."""
    subprocess.run(
        [sys.executable, "-c", "import os\nfor _ in range(3_000): os.mkdir('d'); os.chdir('d')"],
        cwd=tmp_path,
        check=True,
    )
    backends.remove_folder(str(tmp_path / "d"))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
def test_a_judge_starts_each_other_sandbox(name: str, tmp_path: Path):
    """A judge runs without `site`, and must find the packages of a virtual environment all the same."""
    if BACKENDS[name].lacks():
        pytest.skip(BACKENDS[name].lacks())
    course, stem = Course(tmp_path), "p03_lora_parameters"
    course.notebook("ada", stem).parent.mkdir(parents=True)
    answers = home().leaves(stem).solution.read_text("utf-8")
    course.notebook("ada", stem).write_text(build.filled_notebook(home(), stem, answers))
    with contextlib.closing(Grader(home(), course, Judges(home(), lambda: BACKENDS[name], 1))) as grader:
        made = grader.grade("ada", stem)
    assert (made.state, made.score) == ("graded", 10.0), made.findings
