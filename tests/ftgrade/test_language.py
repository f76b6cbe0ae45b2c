"""The notebook's language is IPython's: cells that people write, in a real ipykernel and in the sandbox's worker.

`tests/submissions/language.txt` holds short notebooks. The cells of each run in both, and then a probe cell reports
each name with its value. The two must agree on the names, the values, and which cells failed. `ON_PURPOSE` lists where
they differ, with the reason.
"""

import contextlib
import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.intake.notebook import Cell
from ftgrade.judging.report import CellNote, Limits
from ftgrade.judging.session import Session, cell_notes
from ftgrade.probing.doctor import cache_file, strongest
from ftgrade.sandbox.channel import Call, Raised, Value, outcome_of
from ftgrade.sandbox.process import Sandbox, Worker
from ftgrade.sandbox.worker import shell_file
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

PROBE = """
def _probe():
    import json, os, types
    plain = (bool, int, float, str, list, tuple, dict, set, bytes, type(None))
    hidden = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    found = {}
    for name, value in sorted(globals().items()):
        if name.startswith("_") or name in hidden:
            continue
        kind = "callable" if callable(value) and not isinstance(value, type) else type(value).__name__
        text = repr(value).replace(os.getcwd(), "HERE") if isinstance(value, plain) else ""
        found[name] = [kind, text]
    print("PROBE" + json.dumps(found))
_probe()
"""
FRESH = """
def _fresh():
    import os
    from IPython import get_ipython
    shell = get_ipython()
    shell.compile.reset_compiler_flags()
    if "autoreload" in str(shell.extension_manager.loaded):
        shell.run_line_magic("autoreload", "0")
    os.makedirs({folder!r})
    os.chdir({folder!r})
    shell.run_line_magic("reset", "-f")
    history, shell.execution_count = shell.history_manager, 1
    history._i00 = history._i = history._ii = ""
    history.input_hist_parsed[:] = history.input_hist_raw[:] = [""]
_fresh()
"""


def read_notebooks(text: str) -> dict[str, list[str]]:
    """Return the cells of each notebook in a text where `=== name` opens a notebook and `---` parts two cells."""
    found: dict[str, list[str]] = {}
    for part in f"\n{text}".split("\n=== ")[1:]:
        name, _, body = part.partition("\n")
        found[name] = body.removesuffix("\n").split("\n---\n")
    return found


ALL = read_notebooks((Path(__file__).parents[1] / "submissions" / "language.txt").read_text("utf-8"))

ON_PURPOSE: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    # the reason, the worker's names, and the lines that the student is told were not run
    "shell lines": (
        "A shell line would start a program.",
        {"x": ["SList", "[]"], "y": ["str", "''"], "a": ["tuple", "(0, '')"]},
        ["!echo hi > made.txt", "!ls -l", "!pwd", "!ls a", "!ls b", "!ls c"],
    ),
    "installing": (
        "There is no network, and the environment is the course's.",
        {"a": ["int", "1"]},
        ["%pip install -q peft", "!pip install torch", "%conda install x -y", "%pip install x"],
    ),
    "script cells": (
        "A script cell starts another program.",
        {"s": ["SList", "[]"]},
        ["%%bash", "%%sh", "%%script python", "%%perl", "%system ls", "%sx ls", "!ls -F"],
    ),
    "folders outside": (
        "The notebook has a folder of its own and nothing else.",
        {"a": ["bool", "True"]},
        ["%cd /content/drive/MyDrive", "%cd ..", "%cd /"],
    ),
    "a script that is not there": (
        "The file isn't part of what was handed in.",
        {"a": ["int", "1"]},
        ["%run ../setup.py", "%run helpers", "%load https://example.org/x.py"],
    ),
    "magics of other machines": (
        "The student's machine has them, so the rest of the cell counts.",
        {"a": ["int", "1"]},
        [
            "%tensorflow_version 2.x",
            "%load_ext tensorboard",
            "%%bigquery df",
            "%lprun -f f f()",
            "%autosave 60",
            "%matplotlib widget",
        ],
    ),
    "asyncio.run": (
        "It works in a plain Python program, where many students write their code.",
        {"a": ["int", "3"]},
        [],
    ),
    "exit": (
        "A kernel ends at `exit`, and its notebook goes on in a new one without the names.",
        {"a": ["int", "1"], "b": ["int", "2"]},
        [],
    ),
}
NOTEBOOKS = [name for name in ALL if name not in ON_PURPOSE]


@pytest.fixture(scope="module")
def kernel() -> Iterator[BlockingKernelClient]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(extra_arguments=["--HistoryManager.enabled=False"])
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with contextlib.closing(Sandbox(strongest(cache_file()))) as made:
        yield made


Outcome = tuple[list[bool], dict[str, Any]]
"""Which cells failed, and the names with their values."""


def in_kernel(kernel: BlockingKernelClient, cells: list[str], folder: str) -> Outcome:
    """Run cells in the kernel, in a namespace and a folder of their own."""
    assert not kernel_cell(kernel, FRESH.format(folder=folder))[0]
    failed = [kernel_cell(kernel, cell)[0] for cell in cells]
    return failed, names_of(kernel_cell(kernel, PROBE)[1])


def kernel_cell(kernel: BlockingKernelClient, source: str) -> tuple[bool, str]:
    """Return whether a cell failed in the kernel, and what it printed."""
    text: list[str] = []
    errors: list[str] = []

    def heard(message: dict[str, Any]) -> None:
        if message["msg_type"] == "error":
            errors.append(message["content"]["ename"])
        elif message["msg_type"] == "stream":
            text.append(message["content"]["text"])

    reply = kernel.execute_interactive(source, allow_stdin=False, output_hook=heard, timeout=60)
    return bool(errors) or reply["content"]["status"] == "error", "".join(text)


def in_worker(worker: Worker, cells: list[str]) -> tuple[Outcome, list[str]]:
    """Run cells in a new worker; return the outcome, and the lines that were not run."""
    replies = [worker.run(cell, 30) for cell in cells]
    failed = ["error" in reply for reply in replies]
    skipped = [line for reply in replies for line in reply.get("skipped", [])]
    return (failed, names_of(worker.run(PROBE, 30)["printed"])), skipped


def names_of(printed: str) -> dict[str, Any]:
    return json.loads(printed.partition("PROBE")[2])


def test_at_least_sixty_kinds_of_cells_are_compared():
    assert len(NOTEBOOKS) >= 60


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_runs_in_jupyter_runs_here(name: str, kernel: BlockingKernelClient, sandbox: Sandbox, tmp_path: Path):
    theirs = in_kernel(kernel, ALL[name], str(tmp_path / "own"))
    with sandbox.worker() as worker:
        ours, skipped = in_worker(worker, ALL[name])
    assert ours == theirs
    assert skipped == (["!echo hi"] if "!echo hi" in str(ALL[name]) else [])


@pytest.mark.parametrize("name", ON_PURPOSE)
def test_what_reaches_outside_does_nothing_and_is_told(name: str, sandbox: Sandbox):
    _, names, told = ON_PURPOSE[name]
    with sandbox.worker() as worker:
        (failed, found), skipped = in_worker(worker, ALL[name])
    assert not any(failed)
    assert {key: value for key, value in found.items() if key in names} == names
    assert list(dict.fromkeys(skipped)) == told


# --------------------------------------------------------------------------------------------- what a student is told


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("a = 1\nb = 1 / 0", 2),
        ("\n\n%matplotlib inline\nb = 1 / 0", 4),
        ("%%time\na = 1\nb = 1 / 0", 3),
        ("\n%%time\na = 1\nb = 1 / 0", 4),
        ("%%capture out\n%%time\na = 1\nb = 1 / 0", 4),
        ("a = 1\n%time b = 1 / 0", 2),
        ("%%time\na = 1\nb = = 2", 3),
        ("a = 1\n%matplotlib inline\nb = = 2", 3),
        ("def f():\n    return 1 / 0\n\n\nf()", 2),
        ("async def f():\n    return 1 / 0\n\n\nawait f()", 2),
        ("x = 1\nreturn x", 2),
    ],
)
def test_an_error_tells_its_line_of_the_cell_also_below_a_magic(sandbox: Sandbox, source: str, line: int):
    with sandbox.worker() as worker:
        assert worker.run(source, 30)["error"]["line"] == line


def test_an_error_of_a_later_call_tells_its_line_in_a_timed_cell(sandbox: Sandbox):
    with Session(sandbox, [Cell(1, "code", "%%time\ndef f(x):\n    return 1 / x", None)], Limits()) as session:
        (found,) = map(outcome_of, session.ask([Call("f", (0,))]))
    assert isinstance(found, Raised)
    assert found.line == 3


def notes_of(sandbox: Sandbox, *sources: str) -> list[CellNote]:
    cells = [Cell(number, "code", source, None) for number, source in enumerate(sources, 1)]
    with Session(sandbox, cells, Limits()) as session:
        session.ensure_worker()
        return session.notes


def test_the_page_says_which_lines_were_not_run(sandbox: Sandbox):
    first, second, third = notes_of(
        sandbox, "%pip install x\nprint('done')", "%%capture\n!wget -q y", "!nothing\n1 / 0"
    )
    words = "Not run while grading, as it needs more than the notebook: "
    assert first.printed == f"{words}%pip install x\ndone\n"
    assert second.printed == f"{words}!wget -q y"
    assert (third.printed, third.error) == (f"{words}!nothing", "ZeroDivisionError (line 2): division by zero")


def test_a_warning_of_our_own_drawing_is_not_on_the_page(sandbox: Sandbox):
    """It would name a file of the grader, and differ between two installations."""
    (note,) = notes_of(sandbox, "import matplotlib.pyplot as plt\nplt.title('\u5317\u4eac')\nplt.plot([1, 2]);")
    assert len(note.pictures) == 1
    assert "worker.py" not in note.printed


@pytest.mark.parametrize("claimed", [7, {"a": 1}, [None, 3, "x" * 9_999, "a\nb"], ["!ls"] * 9_999])
def test_a_forged_list_of_lines_is_cut_and_breaks_nothing(claimed: object):
    (note,) = cell_notes(Cell(1, "code", "", None), {"printed": "hi", "skipped": claimed}, None)
    assert note.printed.endswith("hi")
    assert len(note.printed) < 5_000


def test_results_are_shown_without_prompts_and_without_colours(sandbox: Sandbox):
    first, second, _ = notes_of(sandbox, "a = 1\na + 1", "import math\nmath.pi?", "%no_such\n")
    assert first.printed == "2\n"
    assert "float" in second.printed
    assert "\x1b" not in second.printed


@pytest.mark.parametrize(
    "source",
    [
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "import matplotlib.pyplot as plt\nfig, _ = plt.subplots()\ndisplay(fig)\nplt.close()",
        """import io, matplotlib.pyplot as plt
from IPython.display import Image
f = io.BytesIO()
plt.plot([1])
plt.savefig(f, format='png')
plt.close()
Image(data=f.getvalue())""",
    ],
    ids=["inline", "shown", "displayed", "image"],
)
def test_a_picture_is_kept_whichever_way_it_is_shown(sandbox: Sandbox, source: str):
    (note,) = notes_of(sandbox, source)
    assert [len(note.pictures), note.printed, note.error] == [1, "", ""]


def test_what_a_cell_does_to_the_shell_costs_no_later_cell_its_names(sandbox: Sandbox):
    breaks = (
        "get_ipython = In = Out = display = None",
        "import IPython\nip = IPython.get_ipython()\nip.displayhook = ip.display_pub = None\n7",
        "import sys\nsys.displayhook = sys.excepthook = None\n5",
        "import sys\nsys.stdout = sys.stderr = None\nprint(1)",
        "ip.run_cell = ip.transform_cell = ip.events = ip.user_ns_hidden = None",
        "ip.history_manager = None",
        "import builtins\ndel builtins.display, builtins.get_ipython",
    )
    cells = [Cell(n, "code", source, None) for n, source in enumerate(["def f(x):\n    return x + 1", *breaks], 1)]
    with Session(sandbox, cells, Limits()) as session:
        (found,) = map(outcome_of, session.ask([Call("f", (1,))]))
    assert isinstance(found, Value)
    assert found.value == 2


def test_a_loop_of_skipped_lines_or_of_results_is_cut(sandbox: Sandbox):
    with sandbox.worker() as worker:
        reply = worker.run("for i in range(2_000):\n    !echo {i}\n    display('x' * 100)", 30)
    assert len(reply["skipped"]) == 20
    assert set(reply["skipped"]) == {"!echo {i}"}, "the line as the student wrote it"
    assert len(reply["printed"]) <= 4_000


def test_the_longest_timing_takes_a_moment(sandbox: Sandbox):
    with sandbox.worker() as worker:
        worker.run("import time\nn = [0]\ndef f():\n    n[0] += 1\n    time.sleep(0.3)", 30)
        reply = worker.run("%timeit f()", 30)
        assert "error" not in reply
        assert worker.run("print(n[0])", 30)["printed"] in ("2\n", "3\n")


@pytest.mark.parametrize("stem", home().stems())
def test_the_cells_of_a_problem_are_run_without_a_tree(stem: str):
    """IPython's own way takes three times as long, and every submission would pay that."""
    compiler = runpy.run_path(shell_file(), run_name="shell")["Compiler"]()
    document = json.loads(build.filled_notebook(home(), stem, home().leaves(stem).solution.read_text("utf-8")))
    sources = ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "code"]
    assert [source for source in sources if not compiler.statements(source)] == []


def test_a_usage_error_of_a_magic_has_its_name(sandbox: Sandbox):
    (note,) = notes_of(sandbox, "%timeit -z 1")
    assert note.error.startswith("UsageError (line 1): option -z not recognized")
