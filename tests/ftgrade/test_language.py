"""The notebook's language is IPython's: cells that people write, in a real ipykernel and in the sandbox's worker.

Each row is a short notebook. Its cells run in both, and then a probe cell reports each name with its value. The two
must agree on the names, the values, and which cells failed. `ON_PURPOSE` lists where they differ, with the reason.
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
import os, sys
get_ipython().compile.reset_compiler_flags()
if "autoreload" in str(get_ipython().extension_manager.loaded):
    get_ipython().run_line_magic("autoreload", "0")
get_ipython().run_line_magic("reset", "-f")
get_ipython().execution_count = 1
history = get_ipython().history_manager
history._i00 = history._i = history._ii = ""
history.input_hist_parsed[:] = history.input_hist_raw[:] = [""]
import os; os.makedirs({folder!r}); os.chdir({folder!r}); del os, history
"""

NOTEBOOKS: dict[str, list[str]] = {
    # ------------------------------------------------------------------------------------------------ plain Python
    "assignments": ["a = 1\nb = a + 1", "c = [a, b]"],
    "a last expression": ["a = 2\na * 3", "b = _"],
    "results": ["1 + 1", "2 + 2", "3 + 3", "a, b, c, d = _, __, ___, _2", "e = Out[1] + Out[3]"],
    "no result of an assignment": ["5", "a = 6", "b = _"],
    "no result of None": ["5", "print(6)", "b = _"],
    "a semicolon hides a result": ["5", "6;", "b = _", "7 ;  # quiet", "c = _"],
    "several statements in a line": ["a = 1; b = 2; a + b", "c = _", "if a: b = 5; c = 6"],
    "a result over several lines": ["[\n    1,\n    2,\n]", "a = _", "(1 +\n2)", "b = _", "print(\n1)\n{\n'k': 2\n}", "c = _"],
    "a result in a string": ['x = """\nabc\n"""', '"""\nq\n"""', "b = _", 'y = """\n1\n# """\n7', "c = _"],
    "inputs": ["a = 1", "b = In[1]", "c = _i", "d = _ii", "e = _i1", "f = len(In)"],
    "an error keeps what came before": ["a = 1\nb = a / 0\nc = 3", "d = 4"],
    "a return outside a function": ["a = 1\nreturn a", "b = 2"],
    "a syntax error runs nothing": ["a = 1\nb = = 2", "c = 3"],
    "an unknown name": ["a = nothing_here", "b = 1"],
    "functions and classes": ["def f(x):\n    return x + 1\n\n@staticmethod\ndef g():\n    pass", "class C:\n    n = f(1)", "a = C.n"],
    "decorators and else": ["import functools\n@functools.cache\ndef f(x): return x", "try:\n    a = f(1)\nexcept ValueError:\n    a = 2\nelse:\n    b = 3\nfinally:\n    c = 4", "for i in range(2):\n    i\nelse:\n    d = 5"],
    "a dataclass": ["from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 1", "a = P(3).x, P.__module__"],
    "a pickle": ["class K:\n    pass", "import pickle\na = type(pickle.loads(pickle.dumps(K()))).__name__"],
    "the source of a function": ["def f():\n    return 42", "import inspect\na = inspect.getsource(f)"],
    "globals and main": ["a = 1", "import __main__\nb = __main__.a, __name__", "c = 'a' in globals()"],
    "annotations of the future": ["from __future__ import annotations", "def f(x: Unknown) -> Nothing:\n    return 1", "a = f.__annotations__"],
    "annotations of the future below a docstring": ['"""Notes."""\nfrom __future__ import annotations\ndef f(x: Unknown): pass', "def g(x: Other): pass", "a = f(1), g(2)"],
    "walrus and match": ["a = [y := 1, y**2]", "match a:\n    case [p, q]:\n        b = q\n    case _:\n        b = 0"],
    "an indented cell": ["    a = 1\n    b = 2", "  c = a"],
    "a cell of prompts": [">>> a = 1\n>>> b = a + 1", "In [5]: c = 3"],
    "a line continuation": ["a = 1 + \\\n    2", "assert a == 3, \\\n    'three'"],
    "empty cells": ["", "\n\n  \n", "# only a comment", "a = 1"],
    "blank lines above": ["\n\n\na = 1\nb = 2"],
    "a remainder at the start of a line": ["a = (17\n% 5)", "b = a \\\n% 2"],
    "a name that a magic has": ["time = 3", "time", "a = _", "who = 1\nwho", "b = _"],
    "deleted names": ["a = 1\nb = 2", "del a"],
    "an underscore of one's own": ["_ = 3", "5", "a = _"],
    "system exit": ["a = 1\nimport sys\nsys.exit(2)\nb = 2", "c = 3"],
    "unicode names": ["\u03b2 = 0.1\na = \u03b2 * 2"],
    # ------------------------------------------------------------------------------------------------ display and help
    "display": ["from IPython.display import display, Markdown, HTML, Image, Math, clear_output", "display(1, 'two')\ndisplay(HTML('<b>x</b>'))\nclear_output()", "Markdown('**x**')", "a = _.data", "display(Math('x'), display_id='d').update(Math('y'))"],
    "display without an import": ["display({'a': 1})", "a = 1"],
    "a value that shows itself": ["class R:\n    def _repr_html_(self): return '<i>r</i>'\n    def _repr_markdown_(self): return '*r*'", "R()", "a = type(_).__name__"],
    "a value whose text fails": ["class R:\n    def __repr__(self): raise ValueError('no')", "a = 1"],
    "get_ipython": ["a = get_ipython() is not None", "from IPython import get_ipython\nip = get_ipython()\nb = ip.user_ns['a']", "import IPython\nc = IPython.get_ipython() is ip", "d = get_ipython().execution_count", "e = __IPYTHON__\ndel ip"],
    "magics as calls": ["get_ipython().run_line_magic('matplotlib', 'inline')", "get_ipython().run_cell_magic('time', '', 'a = 1')", "get_ipython().run_cell('b = 2').success", "get_ipython().ex('c = 3'); d = get_ipython().ev('c + 1')"],
    "push and events": ["get_ipython().push({'a': 5})", "seen = []\nget_ipython().events.register('post_run_cell', lambda result: seen.append(1))", "b = 1", "n = len(seen)\nget_ipython().events.callbacks['post_run_cell'].pop() and None"],
    "an own magic": ["from IPython.core.magic import register_line_magic, register_cell_magic\n@register_line_magic\ndef double(line):\n    return 2 * line", "a = %double ab", "@register_cell_magic\ndef twice(line, cell):\n    exec(cell * 2, get_ipython().user_ns)", "n = 0", "%%twice\nn += 1\n"],
    "help": ["import math", "math.sqrt?", "?math", "math.sqrt??", "a = 1"],
    "help on an unknown name": ["nothing_like_this?", "a = 1"],
    "numpy and precision": ["%precision 3", "import numpy as np\nnp.array([1.23456, 2])", "a = _.tolist()"],
    # ------------------------------------------------------------------------------------------------ timing
    "time": ["%time a = sum(range(10))", "%time sum(range(3))", "b = _", "c = %time 4"],
    "time of a cell": ["%%time\na = 1\nb = a + 1", "%%time\n\ndef f(x):\n    return x\nf(3)", "c = _", "%%time\nimport math\nx = math.pi\n"],
    "time around a shell line": ["%%time\n!echo hi\na = 1", "b = 2"],
    "time around magics": ["%%time\n%matplotlib inline\nx = %pwd\na = 1"],
    "an error in a timed cell": ["%%time\na = 1\nb = 1 / 0\nc = 2", "d = 1"],
    "a syntax error in a timed cell": ["%%time\na = = 1", "d = 1"],
    "timeit": ["f = lambda: 1", "%timeit f()", "%timeit -n 3 -r 1 f()", "%timeit -n2 -r2 -q f()", "a = 1"],
    "timeit with a result": ["t = %timeit -o -n 2 -r 2 sum(range(10))", "a = t.loops, t.repeat, len(t.all_runs)", "b = t.best > 0"],
    "timeit of a cell": ["x = list(range(5))", "%%timeit -n 2 -r 1\ny = sum(x)\nz = y", "%%timeit -n 1 -r 1 q = 3\nq + 1"],
    "timeit counts": ["n = [0]", "%timeit -n 4 -r 3 n[0] += 1", "a = n[0]"],
    "an error in timeit": ["%timeit -n 1 -r 1 1 / 0", "a = 1"],
    "prun": ["%prun -s cumtime a = 1", "%prun -q -l 3 sum(range(10))", "%%prun -s cumulative\nb = 2\n", "p = %prun -r -q sum([1])"],
    "capture": ["%%capture out\nprint('hi')\na = 1", "b = out.stdout", "%%capture\nc = 3\nc", "%%capture --no-stderr cap\nprint('x')", "d = str(cap)"],
    "capture around time": ["%%capture\n%%time\na = 1\nprint(a)", "%%capture out\n%time b = 2", "c = 'time' in out.stdout"],
    "capture of a display": ["%%capture out\nfrom IPython.display import display, Markdown\ndisplay(Markdown('x'))\n7", "a = len(out.outputs)"],
    "an error in a captured cell": ["%%capture\na = 1\nb = 1 / 0", "c = 3"],
    # ------------------------------------------------------------------------------------------------ await
    "await": ["import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x", "a = await f(1)", "await f(2)", "b = _", "c, d = await asyncio.gather(f(3), f(4))"],
    "async for and with": ["import contextlib\nasync def g():\n    for i in range(3):\n        yield i\n@contextlib.asynccontextmanager\nasync def m():\n    yield 5", "a = [x async for x in g()]", "async with m() as b:\n    c = b", "d = 0\nasync for x in g():\n    d += x"],
    "a task of one cell that another awaits": ["import asyncio\nasync def f(): return 7", "t = asyncio.create_task(f())", "a = await t", "del t\nloop = asyncio.get_running_loop() is not None"],
    "an error that is awaited": ["async def f(): raise KeyError('k')", "a = 1\nawait f()\nb = 2", "c = 3"],
    "await in a function that is not async": ["def f():\n    await g()", "a = 1"],
    "autoawait": ["%autoawait asyncio", "async def f(): return 1", "a = await f()"],
    # ------------------------------------------------------------------------------------------------ the environment
    "pwd and env": ["x = %pwd", "%env LANG_TEST=1", "import os\na = os.environ['LANG_TEST']", "%env LANG_TEST 2", "b = os.environ['LANG_TEST']", "%set_env LANG_TEST=3", "c = %env LANG_TEST"],
    "writefile": ["%%writefile lang_one.py\ndef g():\n    return 4\n", "import lang_one\na = lang_one.g()", "%%writefile -a lang_one.py\nh = 5", "import importlib\nimportlib.reload(lang_one)\nb = lang_one.h"],
    "file and run": ["%%file lang_two.py\nprint('ran')\nz = 3\n", "%run lang_two.py", "%run -i lang_two", "%run -n lang_two.py"],
    "a script that fails": ["%%writefile lang_bad.py\nz = 1\n1 / 0\n", "%run lang_bad.py\na = 2", "b = 3"],
    "files of the notebook": ["open('x.txt', 'w').write('hi')", "a = open('x.txt').read()", "from pathlib import Path\nb = sorted(p.name for p in Path('.').iterdir())"],
    "folders of the notebook": ["import os\nos.makedirs('data/sub')", "%cd data", "a = os.path.basename(os.getcwd())", "%cd -q sub", "%cd ../..", "b = os.listdir('.')", "%pushd data", "%popd", "c = os.listdir('.')"],
    "matplotlib": ["%matplotlib inline", "import matplotlib.pyplot as plt", "fig, ax = plt.subplots()\nax.plot([1, 2])\nplt.show()", "a = len(plt.get_fignums())", "%matplotlib", "plt.close('all')"],
    "config": ["%config InlineBackend.figure_format = 'retina'", "%config InlineBackend.rc = {'figure.dpi': 80}", "from matplotlib_inline.backend_inline import set_matplotlib_formats\nset_matplotlib_formats('png')", "a = 1"],
    "show every expression": ["from IPython.core.interactiveshell import InteractiveShell\nInteractiveShell.ast_node_interactivity = 'all'", "1\n2", "a = _, __", "InteractiveShell.ast_node_interactivity = 'last_expr'"],
    "show assignments": ["%config InteractiveShell.ast_node_interactivity = 'last_expr_or_assign'", "q = 8", "a = _", "%config InteractiveShell.ast_node_interactivity = 'last_expr'"],
    "pylab": ["%pylab inline --no-import-all", "a = np.arange(3).tolist()"],
    "autoreload": ["%load_ext autoreload\n%autoreload 2", "%%writefile lang_three.py\nv = 1\n", "import lang_three\na = lang_three.v", "%autoreload?", "%reload_ext autoreload"],
    "who": ["alpha = 1\nbeta = 'x'", "%who", "%whos", "names = %who_ls", "%who int"],
    "history and macros": ["a = 1", "%history -n 1-1", "%macro -q m 1", "b = 2", "%lsmagic"],
    "reset": ["a = 1\nb = 2", "%reset_selective -f ^a$", "c = 3", "%xdel b"],
    "a whole reset": ["a = 1", "%reset -f", "b = 'a' in globals()"],
    "store": ["a = [1, 2]\n%store a", "del a", "%store -r a"],
    "alias and automagic": ["%automagic off", "%automagic on", "%alias_magic tt time", "%tt a = 1"],
    "automagic": ["time a = 3", "pwd", "b = isinstance(_, str)", "who"],
    "html and others": ["%%html\n<b>x</b>", "%%javascript\nalert(1)", "%%latex\n$x$", "%%markdown\n# x", "%%svg\n<svg/>", "a = 1"],
    "logging and warnings": ["import logging, warnings\nlogging.warning('w')\nwarnings.warn('careful')\na = 1", "import tqdm\nb = list(tqdm.tqdm(range(3)))"],
    "variables in magics": ["name = 'LANG_VAR'\nvalue = 7", "%env {name}={value}", "import os\na = os.environ['LANG_VAR']", "%env LANG_VAR=$value"],
    "a magic in a block": ["if True:\n    %time a = 1\n    b = 2\nfor i in range(2):\n    %matplotlib inline\n    c = i"],
    "a wrong option of a magic": ["%timeit -z 1", "%config Nothing.here = 1", "a = 1"],
    "an empty cell magic": ["%%time", "a = 1"],
    "pdb and modes": ["%pdb off", "%xmode Minimal", "a = 1", "%xmode Context"],
    "torch": ["import torch\nx = torch.ones(2, 2)\nx", "a = _.tolist(), Out[1] is x", "%time y = x @ x", "b = y.tolist()"],
    "threads": ["import threading\nout = []\nt = threading.Thread(target=out.append, args=(1,)); t.start(); t.join()\ndel t"],
    "tqdm of notebooks": ["from tqdm.auto import tqdm\na = [i for i in tqdm(range(2))]", "from tqdm.notebook import trange\nb = [i for i in trange(2)]"],
    "widgets": ["import ipywidgets as widgets\ns = widgets.IntSlider(value=3)\ndisplay(s)", "a = s.value", "widgets.interact(lambda x: x, x=(0, 4)) and None"],
}  # fmt: skip

ON_PURPOSE: dict[str, tuple[list[str], str, dict[str, Any], list[str]]] = {
    # cells, the reason, what the worker's names are, and the lines that it tells the student
    "shell lines": (
        ["!echo hi > made.txt", "x = !ls -l\ny = x.s", "a = len(x), x.n", "!!pwd"],
        "A shell line would start a program.", {"x": ["SList", "[]"], "y": ["str", "''"], "a": ["tuple", "(0, '')"]},
        ["!echo hi > made.txt", "!ls -l", "!pwd"],
    ),
    "installing": (
        ["%pip install -q peft", "!pip install torch", "%conda install x -y", "pip install x", "a = 1"],
        "There is no network, and the environment is the course's.", {"a": ["int", "1"]},
        ["%pip install -q peft", "!pip install torch", "%conda install x -y", "%pip install x"],
    ),
    "script cells": (
        ["%%bash\nexport A=1\nls", "%%sh\nls", "%%script python\nx = 1", "%%perl\n1", "%system ls", "s = %sx ls", "%ls"],
        "A script cell starts another program.", {"s": ["SList", "[]"]},
        ["%%bash", "%%sh", "%%script python", "%%perl", "%system ls", "%sx ls", "!ls -F"],
    ),
    "folders outside": (
        ["%cd /content/drive/MyDrive", "%cd ..", "%cd /", "%cd ~", "import os\na = os.getcwd() == os.path.expanduser('~')"],
        "The notebook has a folder of its own and nothing else.", {"a": ["bool", "True"]},
        ["%cd /content/drive/MyDrive", "%cd ..", "%cd /"],
    ),
    "a script that is not there": (
        ["%run ../setup.py", "%run helpers\na = 1", "%load https://example.org/x.py"],
        "The file isn't part of what was handed in.", {"a": ["int", "1"]},
        ["%run ../setup.py", "%run helpers", "%load https://example.org/x.py"],
    ),
    "magics of other machines": (
        ["%tensorflow_version 2.x", "%load_ext tensorboard\na = 1", "%%bigquery df\nSELECT 1", "%lprun -f f f()", "%autosave 60", "%load_ext nb_black"],
        "The student's machine has them, so the rest of the cell counts.", {"a": ["int", "1"]},
        ["%tensorflow_version 2.x", "%load_ext tensorboard", "%%bigquery df", "%lprun -f f f()", "%autosave 60", "%load_ext nb_black"],
    ),
    "asyncio.run": (
        ["import asyncio\nasync def f(): return 3", "a = asyncio.run(f())"],
        "It works in a plain Python program, where many students write their code.", {"a": ["int", "3"]}, [],
    ),
    "exit": (
        ["a = 1\nexit()", "b = 2", "quit"],
        "A kernel ends at `exit`, and its notebook goes on in a new one without the names.",
        {"a": ["int", "1"], "b": ["int", "2"]}, [],
    ),
}  # fmt: skip


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
    theirs = in_kernel(kernel, NOTEBOOKS[name], str(tmp_path / "own"))
    with sandbox.worker() as worker:
        ours, skipped = in_worker(worker, NOTEBOOKS[name])
    assert ours == theirs
    assert skipped == (["!echo hi"] if "!echo hi" in str(NOTEBOOKS[name]) else [])


@pytest.mark.parametrize("name", ON_PURPOSE)
def test_what_reaches_outside_does_nothing_and_is_told(name: str, sandbox: Sandbox):
    cells, _, names, told = ON_PURPOSE[name]
    with sandbox.worker() as worker:
        (failed, found), skipped = in_worker(worker, cells)
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
        "import io, matplotlib.pyplot as plt\nfrom IPython.display import Image\nf = io.BytesIO()\n"
        "plt.plot([1])\nplt.savefig(f, format='png')\nplt.close()\nImage(data=f.getvalue())",
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
