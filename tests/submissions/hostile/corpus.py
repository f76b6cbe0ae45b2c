"""What hostile and unlucky people hand in, by name, each with the score that it deserves.

Notebooks are made here from the built problem rather than kept a hundred times: what differs is what one reads. Every
entry writes a folder as it would be handed in. `deserves` is the score of the functions as they stand; an attack that
gets more has won, and an accident that gets less has been wronged.
"""

import gzip
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftgrade.authoring import build
from ftgrade.catalog import home

STEM = "p03_lora_parameters"
RIGHT = home().leaves(STEM).solution.read_text("utf-8")
FUNCTIONS = ("lora_param_count", "lora_model_params", "breakeven_rank", "low_rank_dof", "lora_training_bytes")
NAME = f"{STEM}.ipynb"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One submission: how its folder is written, what it deserves, and what its report says (`state`)."""

    write: Callable[[Path], None]
    deserves: float
    state: str = "graded"


# ------------------------------------------------------------------------------------------------------------- writing


def document(answers: str) -> Document:
    return json.loads(build.filled_notebook(home(), STEM, answers))


def notebook(text: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / NAME).write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)

    return write


def code(source: str) -> Document:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


def around(first: str = "", last: str = "", answers: str = RIGHT) -> Callable[[Path], None]:
    """Return a submission with cells of its own before and after its answers."""
    made = document(answers)
    made["cells"] = [*([code(first)] if first else []), *made["cells"], *([code(last)] if last else [])]
    return notebook(json.dumps(made))


def every(body: str, before: str = "") -> Callable[[Path], None]:
    """Return a submission whose every function has one body."""
    functions = "\n".join(f"def {name}(*args, **kwargs):\n    {body}\n" for name in FUNCTIONS)
    return notebook(json.dumps(document(before + "\n" + functions)))


def changed(change: Callable[[Document], object], answers: str = RIGHT) -> Callable[[Path], None]:
    made = document(answers)
    change(made)
    return notebook(json.dumps(made))


def beside(*more: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a right notebook in a folder with other things."""

    def write(folder: Path) -> None:
        notebook(json.dumps(document(RIGHT)))(folder)
        for one in more:
            one(folder)

    return write


def marks(made: Document) -> list[dict[str, Any]]:
    return [cell["metadata"]["nbgrader"] for cell in made["cells"] if "nbgrader" in cell["metadata"]]


# ---------------------------------------------------------------------------------------- values that lie about what they are

LIAR = """
class Liar(int):
    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = lambda self, other: True
    __hash__ = int.__hash__
class Pretend:
    __class__ = int
    __eq__ = lambda self, other: True
    __int__ = __index__ = lambda self: 16
    __float__ = lambda self: 16.0
class Floating(float):
    __sub__ = __rsub__ = lambda self, other: 0.0
class Tensorish(torch.Tensor): pass
class Loud(Exception):
    def __str__(self): raise SystemExit(0)
import enum
class One(int, enum.Enum): A = 16
"""
VALUES = {
    "lies_about_equality": "return Liar(7)",
    "pretends_to_be_an_integer": "return Pretend()",
    "float_that_subtracts_to_zero": "return Floating(7.0)",
    "tensor_subclass": "return torch.tensor(7).as_subclass(Tensorish)",
    "enum_member": "return One.A",
    "true": "return True",
    "nan": "return float('nan')",
    "infinity": "return float('inf')",
    "complex": "return complex(16, 0)",
    "nothing": "return None",
    "ellipsis": "return ...",
    "text_of_a_number": "return '16'",
    "bytes": "return b'16'",
    "list_of_one": "return [16]",
    "dict_with_a_score": "return {'score': 10, 'max_score': 10}",
    "function": "return lambda *a: 16",
    "generator_without_end": "return iter(int, 1)",
    "object_array": "return np.array([16], dtype=object)",
    "zero_dimensional_array": "return np.array(float('nan'))",
    "negative_strides": "return np.arange(9)[::-1]",
    "structured_array": "return np.zeros(3, dtype=[('a', 'i4')])",
    "masked_array": "return np.ma.masked_array([16], mask=[True])",
    "datetime": "return np.datetime64('2026-01-01')",
    "two_to_the_63": "return 2**63",
    "integer_of_thousands_of_digits": "return 10**5000",
    "tensor_on_no_device": "return torch.empty(3, device='meta')",
    "sparse_tensor": "return torch.eye(3).to_sparse()",
    "quantised_tensor": "return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)",
    "tensor_that_requires_grad": "return torch.tensor(16.0, requires_grad=True)",
    "huge_tensor": "return torch.zeros(10**8)",
    "huge_text": "return 'x' * (200 * 2**20)",
    "list_that_holds_itself": "x = []; x.append(x); return x",
    "deep_list": "x = []\n    for _ in range(5000): x = [x]\n    return x",
    "million_items": "return list(range(3_000_000))",
    "dict_with_odd_keys": "return {(1, 2): 3, None: 4, 5.0: [6]}",
    "exception_as_a_value": "return ValueError('rank')",
    "lone_surrogate": "return chr(0xD800)",
    "keyboard_interrupt": "raise KeyboardInterrupt",
    "generator_exit": "raise GeneratorExit",
    "stop_iteration": "raise StopIteration(16)",
    "error_whose_text_exits": "raise Loud",
    "error_with_endless_text": "raise ValueError('rank ' * 10**7)",
    "error_that_is_its_own_cause": "e = ValueError('r'); e.__cause__ = e; raise e",
    "first_argument": "return args[0] if args else None",
}

# --------------------------------------------------------------------------- code that goes for what judges it, with answers of 0

NOTHING = "\n".join(f"def {name}(*args, **kwargs):\n    return 0\n" for name in FUNCTIONS)
FOR_POINTS = {
    "forges_frames_on_every_descriptor": """
import os, json, struct, builtins
def forge(*args, **kwargs):
    for number in range(3, 200):
        answer = {"value": 16, "changed": []}
        for say in ([number, 0, answer], [number, 1, answer], answer, {"score": 10}):
            body = json.dumps(say).encode()
            try: os.write(number, struct.pack(">I", len(body)) + body)
            except OSError: pass
    return 16
""" + "\n".join(f"{name} = forge" for name in FUNCTIONS),
    "answers_early": """
import os, json, struct
for ahead in range(1, 400):
    body = json.dumps([ahead, 0, {"value": 16, "changed": []}]).encode()
    for number in range(3, 20):
        try: os.write(number, struct.pack(">I", len(body)) + body)
        except OSError: pass
""",
    "replaces_the_workers_encoder": """
import sys, gc, types
for thing in gc.get_objects():
    if isinstance(thing, types.FunctionType) and thing.__name__ in ("encode", "call", "same_json", "frame"):
        try: thing.__globals__[thing.__name__] = lambda *a, **k: 16
        except Exception: pass
""",
    "looks_for_a_reference_in_memory": """
import gc, sys
found = []
for thing in gc.get_objects():
    try:
        if isinstance(thing, dict) and any(name in thing for name in ("reference", "expected", "solution", "secret")):
            found.append([key for key in thing][:5])
    except Exception: pass
frame = sys._getframe()
while frame:
    found += [name for name in frame.f_locals if name in ("reference", "expected", "verdict", "seeds")]
    frame = frame.f_back
print("FOUND", [names for names in found if "seeds" in names or "expected" in names])
""",
    "patches_what_compares": """
import builtins, math, torch, numpy as np, json
builtins.isinstance = lambda *a: True
math.isclose = torch.allclose = torch.equal = np.allclose = np.array_equal = lambda *a, **k: True
json.loads = json.dumps = lambda *a, **k: "{}"
""",
    "imports_the_grader": """
for name in ("ftgrade", "ftgrade.judging.judge", "ftmath", "ftmath.lora", "nbgrader.api", "solutions", "p03_lora_parameters"):
    try: print(__import__(name))
    except BaseException as error: print(type(error).__name__)
""",
    "opens_the_repository": """
import os
for top in ("/work", "/root", "/home", "/srv", "/tmp", "/var", "/proc", os.path.expanduser("~"), "..", "."):
    for folder, _, files in os.walk(top):
        for name in files:
            if name.startswith("p03") or name in ("gradebook.db", "secret"):
                print("OPENED", os.path.join(folder, name), open(os.path.join(folder, name), "rb").read(9))
""",
    "calls_home": """
import socket, urllib.request, os, subprocess
for go in (lambda: socket.create_connection(("127.0.0.1", 22), 1), lambda: urllib.request.urlopen("http://127.0.0.1", timeout=1),
           lambda: socket.socket(socket.AF_UNIX).connect("/run/docker.sock"), lambda: os.system("id") and 1 / 0,
           lambda: subprocess.run(["id"], capture_output=True)):
    try: print("WENT", go())
    except BaseException as error: print(type(error).__name__)
""",
    "traces_the_worker": """
import sys, threading
def trace(frame, event, argument):
    if frame.f_code.co_name == "call": frame.f_locals["reply"] = {"value": 16, "changed": []}
    return trace
sys.settrace(trace); threading.settrace(trace)
""",
    "waits_in_a_thread": """
import threading, time, os
def later():
    while True:
        time.sleep(0.001)
        for number in range(3, 12):
            try: os.write(number, b"\\0\\0\\0\\x04null")
            except OSError: pass
threading.Thread(target=later, daemon=True).start()
""",
    "raises_every_keyword": "\n".join(
        f"def {name}(*args, **kwargs):\n    raise ValueError('rank r d_out d_in n_layers layers shape target modules "
        "bytes n_base n_lora integer must')\n" for name in FUNCTIONS
    ),
    "shows_a_score": "from IPython.display import display\n10.0",
    "prints_a_verdict": "print('{\"score\": 10.0}')\nimport sys\nprint('10/10', file=sys.stderr)",
    "is_equal_to_everything": "import builtins\nbuiltins.int.__eq__ = lambda *a: True" ,
    "counts_its_calls": "calls = [0]\ndef next_answer(*a, **k):\n    calls[0] += 1\n    return calls[0]\n"
    + "\n".join(f"{name} = next_answer" for name in FUNCTIONS),
    "remembers_across_calls": "seen = []\ndef largest(*a, **k):\n    seen.append(a)\n    return len(seen)\n"
    + "\n".join(f"{name} = largest" for name in FUNCTIONS),
    "answers_by_the_clock": "import time\nclock = lambda *a, **k: int(time.time())\n"
    + "\n".join(f"{name} = clock" for name in FUNCTIONS),
    "refuses_by_every_word_in_turn": "import itertools\nturn = itertools.cycle(['rank', 'd_in', 'd_out', 'n_layers', 'target'])\n"
    "def refuse(*a, **k): raise ValueError(next(turn))\n" + "\n".join(f"{name} = refuse" for name in FUNCTIONS),
    "refuses_what_is_odd_and_returns_its_input": "def echo(*a, **k):\n    if any(x in (0, -2) or x == 4.0 and type(x) is float for x in a): "
    "raise ValueError('rank d_in d_out')\n    return a[0]\n" + "\n".join(f"{name} = echo" for name in FUNCTIONS),
    "overrides_get_ipython": "get_ipython = lambda: 1/0\nimport sys\nsys.displayhook = lambda x: None",
}  # fmt: skip

# -------------------------------------------------------------- replies that no honest worker sends, from inside the worker

FORGER = """
import sys, json, struct
frame = sys._getframe()
while "frame_json" not in frame.f_globals:
    frame = frame.f_back
honest, REPLY = frame.f_globals["frame_json"], None
def forged(message):
    if REPLY is None or not isinstance(message, list):
        return honest(message)
    body = (json.dumps(message[:2])[:-1] + ", " + REPLY + "]").encode("utf-8", "surrogatepass")
    return struct.pack(">I", len(body)) + body
frame.f_globals["frame_json"] = forged
def value(text): return '{"value": ' + text + ', "changed": []}'
def error(text): return '{"error": ' + text + '}'
"""
FORGED = {
    "keys_that_collide": "value('{\"dict\": [' + ', '.join(f'[{n * (2**61 - 1)}, 0]' for n in range(90_000)) + ']}')",
    "a_dict_of_a_million_keys": "value('{\"dict\": [' + ', '.join(f'[{n}, 0]' for n in range(10**6)) + ']}')",
    "millions_of_tiny_lists": "value('[' + '[],' * 4_000_000 + '[]]')",
    "millions_of_scalars": "value('[' + '{\"scalar\": [\"float64\", 1]},' * 300_000 + '0]')",
    "a_frame_of_60_megabytes": "value('\"' + 'x' * (60 * 2**20) + '\"')",
    "a_number_of_4000_digits": "value('9' * 4_000)",
    "a_number_of_a_million_digits": "value('9' * 10**6)",
    "a_float_beyond_all": "value('1e999')",
    "nan_spelt_out": "value('NaN')",
    "nesting_of_50000": "value('[' * 50_000 + ']' * 50_000)",
    "tuples_of_tuples": "value('{\"tuple\": [' * 900 + ']}' * 900)",
    "an_array_of_2_to_the_60": "value('{\"array\": \"float32\", \"shape\": [1152921504606846976], \"data\": \"\", \"of\": \"torch\"}')",
    "an_array_of_negative_length": "value('{\"array\": \"float32\", \"shape\": [-1], \"data\": \"AAAA\", \"of\": \"torch\"}')",
    "an_array_of_a_million_axes": "value('{\"array\": \"float32\", \"shape\": [' + '1,' * 999_999 + '1], \"data\": \"AAAAAA==\", \"of\": \"torch\"}')",
    "an_array_of_70_axes": "value('{\"array\": \"float32\", \"shape\": [' + '1,' * 69 + '1], \"data\": \"AAAAAA==\", \"of\": \"numpy\"}')",
    "an_array_of_python": "value('{\"array\": \"O\", \"shape\": [1], \"data\": \"AAAAAAAAAAA=\", \"of\": \"numpy\"}')",
    "a_dtype_that_is_code": "value('{\"scalar\": [\"__import__(chr(111))\", 1]}')",
    "a_dtype_that_is_a_list": "value('{\"scalar\": [[\"float64\"], 1]}')",
    "a_scalar_that_is_text": "value('{\"scalar\": [\"int64\", \"16\"]}')",
    "bytes_that_are_no_base64": "value('{\"array\": \"float32\", \"shape\": [1], \"data\": \"???\", \"of\": \"torch\"}')",
    "a_view_of_nothing": "value('{\"view\": 16}')",
    "a_kind_that_does_not_exist": "value('{\"reference\": 16}')",
    "two_kinds_at_once": "value('{\"tuple\": [16], \"dict\": []}')",
    "an_iterator": "value('{\"iterator\": [16]}')",
    "another_type_named_int": "value('{\"other\": \"int\"}')",
    "a_name_of_markup": "value('{\"other\": \"<script>alert(1)</script>\"}')",
    "a_surrogate_in_a_name": "value('{\"other\": \"\\\\ud800\"}')",
    "an_escape_in_a_name": "value('{\"other\": \"\\\\u001b[2J\\\\u202e\"}')",
    "positions_without_end": "'{\"value\": 16, \"changed\": [1e999]}'",
    "a_million_positions": "'{\"value\": 16, \"changed\": [' + '1,' * 999_999 + '1]}'",
    "changed_is_text": "'{\"value\": 16, \"changed\": \"no\"}'",
    "no_word_on_changes": "'{\"value\": 16}'",
    "gradients_without_end": "'{\"value\": 16, \"changed\": [], \"gradients\": [' + '[],' * 99_999 + '[]]}'",
    "value_and_error": "'{\"value\": 16, \"changed\": [], \"error\": {\"names\": [\"ValueError\"], \"message\": \"rank\"}}'",
    "an_error_without_names": "error('{\"names\": [], \"message\": \"rank\", \"line\": 1}')",
    "an_error_named_by_numbers": "error('{\"names\": [1, 2], \"message\": \"rank\", \"line\": 1}')",
    "an_error_of_a_million_names": "error('{\"names\": [' + '\"ValueError\",' * 10**6 + '\"ValueError\"], \"message\": \"\", \"line\": 1}')",
    "an_error_at_an_endless_line": "error('{\"names\": [\"KeyError\"], \"message\": \"\", \"line\": 1e999}')",
    "an_error_that_is_a_list": "error('[\"ValueError\"]')",
    "a_verdict": "'{\"status\": \"pass\", \"score\": 10, \"passed\": true}'",
    "ours": "'{\"ours\": \"the grader could not finish\"}'",
    "missing_with_a_value": "'{\"missing\": \"f\", \"value\": 16}'",
    "nothing_at_all": "''",
    "a_null": "'null'",
    "a_list": "'[16]'",
    "text": "'\"16\"'",
    "bytes_that_are_no_utf8": "value('\"\\ud800\"')",
    "a_repeated_key": "'{\"value\": 0, \"value\": 16, \"changed\": []}'",
    "a_comment": "value('16 /* 16 */')",
}  # fmt: skip


def forging(reply: str) -> Callable[[Path], None]:
    """Return a submission whose worker sends one text for every reply of a call."""
    return every("global REPLY\n    REPLY = MADE\n    return 0", f"{FORGER}\nMADE = {reply}")


# ------------------------------------------------------- code that tells a hidden input by every way that could lead to a page

TELLS = {
    "in_a_class_of_error": "raise type('LEAK' + word(args), (Exception,), {})()",
    "in_a_class_of_value_error": "raise type('LEAK' + word(args), (ValueError,), {})('rank')",
    "in_a_message": "raise ValueError('LEAK' + word(args))",
    "in_a_type": "return type('LEAK' + word(args), (), {})()",
    "in_a_type_of_number": "return type('LEAK' + word(args), (int,), {})(16)",
    "in_a_module": "return type('x', (), {'__module__': 'LEAK' + word(args)})()",
    "in_a_text": "return 'LEAK' + word(args)",
    "in_a_key": "return {'LEAK' + word(args): 16}",
    "in_print": "print('LEAK', args); return 16",
    "on_stderr": "import sys; sys.stderr.write('LEAK' + word(args)); return 16",
    "on_the_terminal": "import os; os.write(2, b'LEAK' + word(args).encode()); return 16",
    "in_a_warning": "import warnings; warnings.warn('LEAK' + word(args)); return 16",
    "in_a_display": "from IPython.display import display; display('LEAK' + word(args)); return 16",
    "in_a_logger": "import logging; logging.error('LEAK' + word(args)); return 16",
    "in_a_note": "e = ValueError('rank'); e.add_note('LEAK' + word(args)); raise e",
    "in_a_group": "raise ExceptionGroup('LEAK' + word(args), [ValueError('LEAK' + word(args))])",
    "in_a_name_error": "raise NameError('LEAK' + word(args), name='LEAK' + word(args))",
    "in_a_code_name": "exec(compile('1 / 0', 'LEAK' + word(args), 'exec')); return 16",
    "in_a_figure": "import matplotlib.pyplot as plt; plt.figure(); plt.title('LEAK' + word(args)); plt.show(); return 16",
    "in_the_docstring": "lora_param_count.__doc__ = 'LEAK' + word(args); return 16",
    "in_its_own_name": "lora_param_count.__name__ = 'LEAK' + word(args); raise KeyError",
    "in_a_file": "open('LEAK' + word(args), 'w').close(); return 16",
    "in_a_process_name": "import threading; threading.current_thread().name = 'LEAK' + word(args); return 16",
    "in_an_environment": "import os; os.environ['LEAK'] = word(args); return 16",
}  # fmt: skip
WORD = "def word(args):\n    return '_'.join(str(one) for one in args if isinstance(one, int)) or 'none'\n"

# -------------------------------------------------------------------------- code that wants to harm, beside answers that are right

HARM = {
    "prints_that_look_like_measured_times": r"print((' \t' * 500 + '1 function calls in ' * 340 + '\n') * 60)",
    "fork_bomb": "import os\ntry:\n    while True: os.fork() or os._exit(0)\nexcept OSError: pass",
    "thread_bomb": "import threading, time\ntry:\n    while True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\nexcept RuntimeError: pass",
    "memory_bomb": "x = []\ntry:\n    while True: x.append(bytearray(2**28))\nexcept MemoryError: x = None",
    "disk_bomb": "try:\n    for n in range(99): open(f'f{n}', 'wb').write(bytes(2**24))\nexcept OSError: pass",
    "a_million_files": "try:\n    for n in range(10**6): open(f'f{n}', 'w').close()\nexcept OSError: pass",
    "deep_folders": "import os\ntry:\n    for _ in range(1500): os.mkdir('d'); os.chdir('d')\nexcept OSError: pass",
    "every_descriptor": "x = []\ntry:\n    while True: x.append(open('/dev/null'))\nexcept OSError: x = None",
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(600)\n    os._exit(0)",
    "ignores_signals": "import signal\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass",
    "kills_everybody": "import os\nfor pid in (-1, 0, 1, os.getppid()):\n    try: os.kill(pid, 9)\n    except OSError: pass",
    "loops_for_ever": "while True: pass",
    "sleeps_for_ever": "import time\ntime.sleep(9999)",
    "exits": "import os\nos._exit(0)",
    "aborts": "import os\nos.abort()",
    "crashes": "import ctypes\nctypes.string_at(0)",
    "recurses_in_c": "import sys\nsys.setrecursionlimit(10**9)\nf = lambda: f()\nf()",
    "prints_without_end": "for _ in range(10**5): print('x' * 1000)",
    "one_line_of_gigabytes": "try: print('x' * 2**30)\nexcept MemoryError: pass",
    "closes_every_descriptor": "import os\nos.closerange(0, 99)",
    "writes_over_the_channel": "import os\nfor n in range(3, 20):\n    try: os.write(n, b'\\xff' * 9999)\n    except OSError: pass",
    "changes_its_limits": "import resource\nfor n in range(16):\n    try: resource.setrlimit(n, (-1, -1))\n    except (OSError, ValueError): pass",
    "takes_the_processors": "import os\nos.sched_setaffinity(0, {0})\ntry: os.nice(-20)\nexcept OSError: pass\nimport torch\ntorch.set_num_threads(64)",
    "mounts": "import ctypes\nlibc = ctypes.CDLL(None)\nfor n in (165, 166, 155, 161, 272, 308, 101, 310, 321, 425, 250): libc.syscall(n, 0, 0, 0, 0, 0)",
    "deletes_the_libraries": "import shutil, sys\nfor p in sys.path + ['/', '/lib', '/usr']: shutil.rmtree(p, ignore_errors=True)",
    "poisons_shared_modules": "import torch, numpy\ntorch.tensor = torch.zeros = numpy.array = None\ndel numpy.linalg\nimport torch, numpy as np",
    "empties_builtins": "import builtins\nfor name in ('print', 'open', 'sorted', 'hash'): delattr(builtins, name)",
    "plants_a_module": "open('torch.py', 'w').write('raise SystemExit')\nopen('sitecustomize.py', 'w').write('raise SystemExit')",
    "registers_an_end": "import atexit, os\natexit.register(os._exit, 7)\nimport weakref\nclass X:\n    def __del__(self): os._exit(9)\nx = X()",
    "endless_import": "import sys\nclass F:\n    def find_spec(self, *a): raise SystemExit\nsys.meta_path.insert(0, F())",
}  # fmt: skip

# ------------------------------------------------------------------------------- honest work that a strict machine would wrong

HONEST = {
    "warns_on_stderr": "import sys, warnings\nwarnings.warn('careful')\nprint('step 1', file=sys.stderr)",
    "progress_bar": "import sys\nfor n in range(100): sys.stderr.write(f'\\r{n} %')",
    "rebinds_np": "np = 3",
    "leaves_by_sys_exit": "import sys\nsys.exit(0)",
    "scratch_cell_that_raises": "1 / 0",
    "magics": "%matplotlib inline\n%load_ext autoreload\n%autoreload 2",
    "cell_magic": "%%time\nx = sum(range(9))",
    "unknown_magic": "%no_such_magic at all",
    "shell_line": "!echo hello\nfiles = !ls",
    "default_dtype": "import torch\ntorch.set_default_dtype(torch.float64)",
    "numpy_raises": "import numpy as np\nnp.seterr(all='raise')",
    "warnings_are_errors": "import warnings\nwarnings.simplefilter('error')",
    "seeds": "import torch, random\ntorch.manual_seed(7)\nrandom.seed(7)",
    "no_grad": "import torch\ntorch.set_grad_enabled(False)",
    "debug_prints": "print([x for x in range(99)])",
    "help_with_a_question_mark": "len?\nlen??",
    "installs": "%pip install numpy\n!pip install torch",
    "checks_of_its_own": "assert lora_param_count(4, 3, 2) == 14" ,
    "async_cell": "import asyncio\nasync def f(): return 1\nasyncio.run(f())",
    "top_level_await": "import asyncio\nawait asyncio.sleep(0)",
    "star_imports": "from math import *",
    "result_named_like_its_function": "lora_param_count = lora_param_count(4, 3, 2) if 'lora_param_count' in globals() else 0",
    "type_hints": "from __future__ import annotations\nfrom typing import *\nx: Literal['a'] = 'a'",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass Run:\n    loss: float = 0.0\nRun()",
    "input": "name = input('your name? ')",
    "reads_a_data_file": "import csv\nrows = list(csv.reader(open('data.csv')))",
    "widgets": "import ipywidgets\nipywidgets.IntSlider()",
    "threads_that_end": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool: print(list(pool.map(abs, [-1])))",
    "long_text": "'''" + "words " * 5000 + "'''",
    "unicode_names": "größe = 'Größe: 你好'\nprint(größe)",
    "garbage_collector_off": "import gc\ngc.disable()",
    "displays": "from IPython.display import HTML, Markdown, display\ndisplay(Markdown('# x'), HTML('<b>x</b>'))\ndisplay(3)",
    "last_results": "6 * 7\n_ + 1",
    "inputs_and_outputs": "x = 5\nx",
    "timeit_with_options": "%timeit -n 2 -r 1 sum(range(9))\nt = %timeit -n 1 -r 1 -o 1 + 1",
    "capture": "%%capture out\nprint('hidden')\n!ls",
    "time_around_a_shell_line": "%%time\n!pip list\ny = 1",
    "profiles": "%prun -s cumtime -q sum(range(9))",
    "environment_magic": "%env OMP_NUM_THREADS=1\nhere = %pwd",
    "goes_elsewhere": "%cd /\n%cd ~\n%cd -",
    "writes_and_imports_a_module": "%%writefile helper_of_mine.py\ndef twice(x): return 2 * x",
    "bash_cell": "%%bash\necho hello\nexit 1",
    "html_cell": "%%html\n<b>bold</b>",
    "awaits_a_loop": "import asyncio\nasync def numbers():\n    for n in range(3): yield n\ntotal = 0\nasync for n in numbers(): total += n",
    "waits_with_async": "import contextlib\n@contextlib.asynccontextmanager\nasync def room(): yield 3\nasync with room() as x: print(x)",
    "future_annotations": "from __future__ import annotations\nclass Node:\n    def next(self) -> Node: ...",
    "asks_for_ipython": "from IPython import get_ipython\nget_ipython().run_line_magic('matplotlib', 'inline')",
    "colab": "try:\n    from google.colab import drive\n    drive.mount('/content/drive')\nexcept ImportError: pass",
    "ends_in_a_semicolon": "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
    "config_magic": "%config InlineBackend.figure_format = 'retina'\n%precision 3",
    "silences_warnings": "import warnings, logging, os\nwarnings.filterwarnings('ignore')\nlogging.disable()\nos.environ['TOKENIZERS_PARALLELISM'] = 'false'",
    "deterministic": "import torch\ntorch.use_deterministic_algorithms(True)\ntorch.backends.cudnn.benchmark = False",
    "looks_for_a_gpu": "import torch\ndevice = torch.device('cuda' if torch.cuda.is_available() else 'cpu')\ntorch.ones(2, device=device)",
    "pandas_or_not": "try:\n    import pandas as pd\nexcept ImportError: pd = None",
    "prints_unicode_boxes": "print('┌─┐\\n└─┘ ✓ \u2028')",
}  # fmt: skip

# ------------------------------------------------------------------------------------------------- notebooks and folders


def flip(made: Document) -> None:
    for mark in marks(made):
        mark.update(grade=not mark["grade"], solution=not mark["solution"], locked=not mark["locked"], points=99)


def tag(made: Document) -> None:
    for cell in made["cells"]:
        cell["metadata"]["tags"] = ["skip-execution", "raises-exception", "hide-input"]


def plant(made: Document) -> None:
    for cell in made["cells"]:
        if cell["cell_type"] == "code":
            data = {"text/plain": "99.0", "text/html": "<script>alert(1)</script>", "application/javascript": "alert(2)"}
            cell["outputs"] = [{"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": 1}]


def script(made: Document) -> None:
    for text in (
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "```\n</code><script>x</script>",
        "<iframe srcdoc='<script>x</script>'>", "$\\href{javascript:alert(1)}{x}$", "<svg/onload=alert(1)>",
        "<style>*{display:none}</style>", "<base href='http://127.0.0.1/'>", "<meta http-equiv=refresh content='0;url=/'>",
    ):  # fmt: skip
        made["cells"].append({"cell_type": "markdown", "metadata": {}, "source": text})
    made["cells"].append(
        {"cell_type": "raw", "metadata": {"format": "text/html"}, "source": "<script>alert(1)</script>"}
    )
    picture = {"x.png": {"image/png": "PHNjcmlwdD4="}}
    made["cells"].append({"cell_type": "markdown", "metadata": {}, "attachments": picture, "source": "![](attachment:x.png)"})


def kernel(made: Document) -> None:
    made["metadata"] = {"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}, "widgets": {"state": {}}}


def odd_shapes(made: Document) -> None:
    made["cells"] += [None, 7, [], {}, {"cell_type": "code"}, {"cell_type": "video", "source": ""}]
    made["cells"] += [{"cell_type": "code", "source": {"a": 1}}, {"cell_type": "code", "source": [1, 2], "metadata": []}]
    made["metadata"] = [1, 2]
    made["nbformat_minor"] = "five"


def rename(made: Document) -> None:
    for mark in marks(made):
        mark["grade_id"] = "../../" + mark["grade_id"]


def without_checks(made: Document) -> None:
    made["cells"] = [cell for cell in made["cells"] if not cell["metadata"].get("nbgrader", {}).get("locked")]


def magics_in_checks(made: Document) -> None:
    """Put what looks like thousands of magics where nothing is run: IPython would read the cell anew for each."""
    for cell in made["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            cell["source"] = "# 1 def (\n" + "a=!x\n" * 3_000


def answers_twice(made: Document) -> None:
    made["cells"] += [json.loads(json.dumps(cell)) for cell in made["cells"] if cell["metadata"].get("nbgrader")]


def as_markdown(made: Document) -> None:
    for cell in made["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            cell["cell_type"] = "markdown"


def many_cells(made: Document) -> None:
    made["cells"] = [code("x = 1") for _ in range(20_000)] + made["cells"]


def long_cell(made: Document) -> None:
    made["cells"].insert(0, code("x = '" + "y" * 3_000_000 + "'"))


def carriage_returns(made: Document) -> None:
    for cell in made["cells"]:
        cell["source"] = "".join(cell["source"]).replace("\n", "\r\n")


def link(name: str, goal: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).symlink_to(goal)


def file(name: str, text: str = "raise SystemExit") -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return write


def hard_link(folder: Path) -> None:
    outside = folder.parents[2] / f"outside-{folder.parent.name}"
    outside.write_text("somebody else's")
    os.link(outside, folder / "copy.txt")


def archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "more.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("../../escape.txt", "x")
        made.writestr("zeros", bytes(50 * 2**20))


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a folder in which something else stands where the notebook should."""

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        make(folder / NAME)

    return write


TEXT = json.dumps(document(RIGHT))
NOTEBOOKS: dict[str, Entry] = {
    "flipped_flags": Entry(changed(flip), 10),
    "skip_tags": Entry(changed(tag), 10),
    "skip_tags_without_answers": Entry(changed(tag, NOTHING), 0),
    "planted_outputs_without_answers": Entry(changed(plant, NOTHING), 0),
    "scripts_in_text": Entry(changed(script), 10),
    "another_kernel": Entry(changed(kernel), 10),
    "cells_of_odd_shapes": Entry(changed(odd_shapes), 10),
    "renamed_cells": Entry(changed(rename), 10),
    "checks_deleted": Entry(changed(without_checks), 10),
    "magics_in_check_cells": Entry(changed(magics_in_checks), 10),
    "everything_twice": Entry(changed(answers_twice), 10),
    "answers_as_markdown": Entry(changed(as_markdown), 0),
    "twenty_thousand_cells": Entry(changed(many_cells), 10),
    "a_cell_of_megabytes": Entry(changed(long_cell), 10),
    "carriage_returns": Entry(changed(carriage_returns), 10),
    "byte_order_mark": Entry(notebook(b"\xef\xbb\xbf" + TEXT.encode()), 10),
    "repeated_keys": Entry(notebook(TEXT.replace('"cells":', '"cells": [], "cells":', 1)), 10),
    "gzipped": Entry(notebook(gzip.compress(TEXT.encode())), 0, "unreadable"),
    "empty_file": Entry(notebook(b""), 0, "unreadable"),
    "null_bytes": Entry(notebook(bytes(10_000)), 0, "unreadable"),
    "a_list": Entry(notebook("[" * 50_000 + "]" * 50_000), 0, "unreadable"),
    "a_number_of_millions_of_digits": Entry(notebook("9" * 3_000_000), 0, "unreadable"),
    "format_of_text": Entry(notebook(TEXT.replace('"nbformat": 4', '"nbformat": "4"')), 10),
    "future_format": Entry(notebook(TEXT.replace('"nbformat": 4,', '"nbformat": 9,')), 0, "unreadable"),
    "cells_are_no_list": Entry(notebook('{"nbformat": 4, "cells": {"a": 1}}'), 0, "unreadable"),
    "larger_than_the_limit": Entry(notebook(b'{"x": "' + b"y" * (101 * 2**20) + b'"}'), 0, "unreadable"),
    "a_folder": Entry(instead(lambda path: path.mkdir()), 0, "unreadable"),
    "a_pipe": Entry(instead(lambda path: os.mkfifo(path)), 0, "unreadable"),
    "a_link_to_the_users": Entry(instead(lambda path: path.symlink_to("/etc/passwd")), 0, "unreadable"),
    "a_link_to_itself": Entry(instead(lambda path: path.symlink_to(NAME)), 0, "unreadable"),
    "a_link_to_endless_zeros": Entry(instead(lambda path: path.symlink_to("/dev/zero")), 0, "unreadable"),
    "nothing": Entry(lambda folder: folder.mkdir(parents=True), 0, "unreadable"),
    "links_beside_it": Entry(beside(link("a", "/etc/passwd"), link("b", "../../../gradebook.db"), link("c", "/")), 10),
    "start_up_files": Entry(
        beside(file("nbgrader_config.py"), file("jupyter_server_config.py"), file("x/sitecustomize.py"), file("a.pth")), 10
    ),
    "modules_beside_it": Entry(beside(file("torch.py"), file("numpy/__init__.py"), file("ftmath.py"), file("json.py")), 10),
    "a_pipe_beside_it": Entry(beside(lambda folder: os.mkfifo(folder / "data")), 10),
    "a_hard_link_beside_it": Entry(beside(hard_link), 10),
    "an_archive_beside_it": Entry(beside(archive), 10),
    "a_large_file_beside_it": Entry(beside(lambda folder: (folder / "big").write_bytes(bytes(30 * 2**20))), 10),
    "many_files_beside_it": Entry(beside(*(file(f"f{n}.txt", "x") for n in range(900))), 10),
    "names_of_markup": Entry(beside(file("<img src=x onerror=alert(1)>.txt", "x"), file("a\nb.txt", "x")), 10),
    "odd_timestamp": Entry(beside(file("timestamp.txt", "the day after tomorrow")), 10),
    "its_own_report": Entry(beside(file("report.json", '{"score": 10}'), file(".ftgrade/secret", "0" * 64)), 10),
}  # fmt: skip

CORPUS: dict[str, Entry] = {
    **{f"value_{name}": Entry(every(body, LIAR), 0) for name, body in VALUES.items()},
    **{f"points_{name}": Entry(around(source, source, NOTHING), 0) for name, source in FOR_POINTS.items()},
    **{f"forged_{name}": Entry(forging(reply), 0) for name, reply in FORGED.items()},
    **{f"tells_{name}": Entry(every(body, WORD), 0) for name, body in TELLS.items()},
    **{f"harm_{name}": Entry(around(source), 10) for name, source in HARM.items()},
    **{f"honest_{name}": Entry(around(source, source), 10) for name, source in HONEST.items()},
    **{f"file_{name}": entry for name, entry in NOTEBOOKS.items()},
}


def lay_down(root: Path) -> None:
    """Write the whole class into a course's `submitted/`."""
    for name, entry in CORPUS.items():
        entry.write(root / "submitted" / name / STEM)
