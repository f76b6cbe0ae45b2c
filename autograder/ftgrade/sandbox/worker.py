"""The student's end of the channel: run a notebook's cells and answer calls of the functions that they define.

Theory of operation. The grader starts one *parent* in a clean environment. The parent imports numpy and torch once,
confines itself, and then forks one *child* for each submission that the grader announces over the control socket. It
never sees a test. A child confines itself further and then answers requests on its own socket until that closes:
``run`` executes notebook cells, ``call`` calls functions that the cells defined. A request holds several cells or
calls, and each gets a reply of its own, sent as soon as it is ready.

Only data crosses: a frame is a 4-byte length and JSON, an array is its dtype, shape and bytes. A value of any type
that isn't listed here crosses as the name of its type, so a student's objects never leave this process.

This file loads `shell.py`, which runs the cells. Beside these two and `jail.py` the process holds no code of ours.
Student code may read these files, replace their functions and send frames of its own. That does no harm, because the
verdict is made at the other end.

The grader imports this file for its frames, and has no use for torch. So numpy and torch are imported where they are
used; in the parent `preload` has done that.
"""

import base64
import contextlib
import ctypes
import functools
import importlib.abc
import importlib.machinery
import io
import itertools
import json
import math
import os
import random
import re
import signal
import socket
import struct
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

MAX_FRAME_BYTES = 64 * 2**20
MAX_DEPTH = 32
MAX_KEYS = 1_000
MAX_TEXT = 4_000
MAX_PICTURES, MAX_PICTURE_BYTES = 4, 200_000  # of one cell
CELL = re.compile(r"<ipython-input-\d+\+?(\d*)>")  # as `shell.py` names the code of a cell
PAGES_PER_CHILD = 2  # huge pages that the parent makes after each fork
NUMPY_DTYPES = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
)
TORCH_DTYPES = frozenset(
    ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
)


class FrameError(Exception):
    """The bytes on the channel are no valid frame of this protocol."""


class Other:
    """Stands for a value of a type that doesn't cross; only the type's name is known."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"Other({self.type_name!r})"


class Stream:
    """Items that cross as an iterator, which the receiver can consume once."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = tuple(items)


class View:
    """A tensor that crosses as a view that isn't contiguous: transposed, or with an `expanded` first axis.

    For an expanded axis all slices must be equal; the receiver's view holds one of them.
    """

    def __init__(self, tensor: Any, *, expanded: bool = False) -> None:
        self.tensor, self.expanded = tensor, expanded


# ---------------------------------------------------------------------------------------------------------- frames


def read_frame(receive: Callable[[int], bytes]) -> Any:
    """Return the next frame's parsed JSON; `receive(n)` returns up to n bytes. Raises EOFError or FrameError."""
    return parse_json(read_body(receive))


def read_body(receive: Callable[[int], bytes]) -> bytes:
    """Return the next frame's unparsed JSON. Raises EOFError if the channel closes, or FrameError."""
    (length,) = struct.unpack(">I", read_exactly(receive, 4))
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame holds at most {MAX_FRAME_BYTES:,} bytes, this one announces {length:,}")
    return read_exactly(receive, length)


def parse_json(text: bytes) -> Any:
    """Parse JSON. Raises FrameError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError covers bad UTF-8, bad JSON and over-long integers
        raise FrameError(f"a frame is JSON in UTF-8: {type(error).__name__}") from None


def read_exactly(receive: Callable[[int], bytes], length: int) -> bytes:
    """Return exactly `length` bytes, or raise EOFError."""
    parts: list[bytes] = []
    while length:
        part = receive(min(length, 2**20))
        if not part:
            raise EOFError("the other end closed the channel")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def frame_json(message: Any) -> bytes:
    """Return the frame of a message that JSON can hold. Raises FrameError if it's too large."""
    return frame(json.dumps(message).encode())


def frame(body: bytes) -> bytes:
    """Return the frame of JSON text. Raises FrameError if it's too large."""
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame holds at most {MAX_FRAME_BYTES:,} bytes, this one would take {len(body):,}")
    return struct.pack(">I", len(body)) + body


# ---------------------------------------------------------------------------------------------------------- values


def encode(value: Any, depth: int = 0) -> Any:
    """Return the JSON form of a value. Types are matched exactly: a subclass crosses as its name. Raises FrameError."""
    if depth > MAX_DEPTH:
        raise FrameError(f"a value nests at most {MAX_DEPTH} deep")
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [encode(item, depth + 1) for item in value]
    if kind is tuple:
        return {"tuple": [encode(item, depth + 1) for item in value]}
    if kind is dict:
        return {"dict": [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in value.items()]}
    import numpy as np
    import torch

    if kind is torch.Tensor or kind is torch.nn.Parameter:
        return encode_tensor(value)
    if kind is np.ndarray and value.dtype.name in NUMPY_DTYPES:
        little = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"))
        return array_json(value.dtype.name, value.shape, little.tobytes(), "numpy")
    if isinstance(value, np.generic) and kind.__module__ == "numpy" and value.dtype.name in NUMPY_DTYPES:
        return {"scalar": [value.dtype.name, value.item()]}
    if isinstance(value, Stream):
        return {"iterator": [encode(item, depth + 1) for item in value.items]}
    if isinstance(value, View):
        return {"expanded" if value.expanded else "view": encode_tensor(value.tensor)}
    return {"other": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")[:200]}


def encode_tensor(value: Any) -> Any:
    import torch

    name = str(value.dtype).removeprefix("torch.")
    if name not in TORCH_DTYPES or value.layout is not torch.strided or not value.is_cpu:
        return {"other": f"torch.Tensor ({name}, {value.layout}, {value.device.type})"}
    if value.nbytes > MAX_FRAME_BYTES // 2:
        raise FrameError("a tensor of this size does not cross")
    plain = value.view(torch.int16) if value.dtype is torch.bfloat16 else value  # which numpy doesn't know
    flags = {"requires_grad": value.requires_grad, "inference": value.is_inference()}
    return array_json(name, value.shape, plain.numpy(force=True).tobytes(), "torch") | flags


def array_json(dtype: str, shape: Iterable[int], data: bytes, library: str) -> dict[str, Any]:
    return {"array": dtype, "shape": list(shape), "data": base64.b64encode(data).decode(), "of": library}


def decode(data: Any, depth: int = 0) -> Any:
    """Return the value of a JSON form. Raises FrameError for anything that `encode` doesn't produce."""
    if depth > MAX_DEPTH:
        raise FrameError(f"a value nests at most {MAX_DEPTH} deep")
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return [decode(item, depth + 1) for item in data]
    try:
        if "array" in data:
            return decode_array(data)
        ((kind, body),) = data.items()
        if kind == "tuple":
            return tuple(decode(item, depth + 1) for item in body)
        if kind == "dict":
            if len(body) > MAX_KEYS:  # keys that collide would take quadratic time
                raise FrameError(f"a dict holds at most {MAX_KEYS} keys")
            return {decode(key, depth + 1): decode(item, depth + 1) for key, item in body}
        if kind == "scalar":
            import numpy as np

            return np.dtype(scalar_dtype(body[0])).type(body[1])
        if kind == "iterator":
            return iter([decode(item, depth + 1) for item in body])
        if kind in ("view", "expanded"):
            return decode_view(body, expanded=kind == "expanded")
        if kind == "other":
            return Other(str(body)[:200])
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise FrameError(f"not a value of this protocol: {type(error).__name__}") from None
    raise FrameError("not a value of this protocol: an unknown kind")


def scalar_dtype(name: str) -> str:
    # Compare names before np.dtype sees them: it evaluates names that look like Python.
    if name not in NUMPY_DTYPES:
        raise FrameError("a scalar is bool, integer or float of at most 8 bytes")
    return name


def decode_array(data: dict[str, Any]) -> Any:
    import numpy as np
    import torch

    shape = [int(length) for length in data["shape"]]
    if math.prod(max(1, length) for length in shape) > MAX_FRAME_BYTES:  # an empty array may claim any other lengths
        raise FrameError("the axes of an array are no longer than a frame")
    raw = bytearray(base64.b64decode(data["data"], validate=True))
    if data["of"] == "numpy":
        return np.frombuffer(raw, scalar_dtype(data["array"])).reshape(shape)
    if data["array"] not in TORCH_DTYPES:
        raise FrameError("a tensor is bool, integer or float of at most 8 bytes")
    dtype = getattr(torch, data["array"])
    flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    value = flat.reshape(shape)
    if data.get("inference"):
        with torch.inference_mode():
            return value.clone()
    return value.requires_grad_() if data.get("requires_grad") and value.is_floating_point() else value


def decode_view(body: dict[str, Any], *, expanded: bool) -> Any:
    """Return an array's tensor as a view that isn't contiguous; it is a leaf, with or without a gradient."""
    import torch

    value = decode_array(body)
    plain = value.detach()
    if expanded:
        made = plain[:1].expand(plain.shape)
    elif plain.ndim > 1:
        made = plain.transpose(0, -1).contiguous().transpose(0, -1)
    else:
        made = torch.stack((plain, plain), dim=-1)[..., 0]
    return made.requires_grad_(value.requires_grad)


# ------------------------------------------------------------------------------------------------- running a cell


class CappedText(io.StringIO):
    """Keep the first MAX_TEXT characters written and drop the rest."""

    def write(self, text: str, /) -> int:
        super().write(text[: max(0, MAX_TEXT - self.tell())])
        return len(text)


SHELLS: list[Any] = []
"""The notebook's shell, which `preload` makes: see `shell.py`."""
TOOLS: dict[str, dict[str, Any]] = {}
"""For each name that a cell defined, the tools (modules, functions, classes) that existed after that cell had run."""


def remember_tools(namespace: dict[str, Any], before: dict[str, Any]) -> None:
    """Record the tools that a cell's functions may use, before a later cell reuses one of the names for a value."""
    made = [name for name, value in namespace.items() if callable(value) and value is not before.get(name)]
    if made:
        there = {name: value for name, value in namespace.items() if is_tool(value)}
        TOOLS.update(dict.fromkeys(made, there))


def restore_tools(function: str, namespace: dict[str, Any]) -> None:
    """Restore tools that later cells overwrote: by `np = 3`, or by a result with the name of its function."""
    for name, value in TOOLS.get(function, {}).items():
        if not is_tool(namespace.get(name)):
            namespace[name] = value


def is_tool(value: Any) -> bool:
    return isinstance(value, types.ModuleType) or callable(value)


def run(source: str, shell: Any) -> dict[str, Any]:
    """Execute one cell; return what it printed and drew, the lines that were skipped and, if it raised, the error."""
    before = dict(shell.user_ns)
    text = CappedText()
    reply: dict[str, Any] = {}
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            error = shell.run_notebook_cell(source)
        except BaseException as surprise:  # a student's code may have broken the shell; the next cell runs all the same
            error = surprise
        if error is not None:
            reply["error"] = describe_error(error)
        if pictures := [*shown_pictures(shell.pictures), *take_figures()][:MAX_PICTURES]:
            reply["pictures"] = pictures
    if shell.skipped:
        reply["skipped"] = shell.skipped
    remember_tools(shell.user_ns, before)
    return {"printed": text.getvalue(), **reply}


def shown_pictures(pictures: list[bytes]) -> list[str]:
    """Return the pictures that a cell displayed and that aren't too large, in base64."""
    return [base64.b64encode(data).decode() for data in pictures if len(data) <= MAX_PICTURE_BYTES]


def take_figures() -> list[str]:
    """Close the figures that a cell left open, as a notebook does, and return them as PNG in base64."""
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    found: list[str] = []
    with contextlib.suppress(Exception), warnings.catch_warnings():  # a figure that can't be drawn fails no cell
        warnings.simplefilter("ignore")  # they would name our file
        for number in pyplot.get_fignums()[:MAX_PICTURES]:
            data = io.BytesIO()
            pyplot.figure(number).savefig(data, format="png", dpi=72)
            if data.tell() <= MAX_PICTURE_BYTES:
                found.append(base64.b64encode(data.getvalue()).decode())
        pyplot.close("all")
    return found


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return the error's class names, its message, and the line of the student's cell that it came from."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if place := CELL.fullmatch(trace.tb_frame.f_code.co_filename):
            line = trace.tb_lineno + int(place[1] or 0)
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.lineno is not None:
        if place := CELL.fullmatch(str(error.filename)):
            line = error.lineno + int(place[1] or 0)
        line = line or error.lineno
    try:
        message = str(error.msg if isinstance(error, SyntaxError) else error)[:MAX_TEXT]
    except BaseException:
        message = ""
    names = [kind.__name__ for kind in type(error).__mro__ if kind is not object]
    return {"names": names[:8], "message": message, "line": line}


# ------------------------------------------------------------------------------------------------ calling a function


def silent_call(request: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    """Call one function as `call` does, and drop what it prints, which could reveal the hidden inputs."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return call(request, namespace)


def call(request: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    """Call one function on new copies of the inputs; return its value, which inputs it changed, gradients if requested.

    If the request has a builder, that makes the real inputs from the plain ones. The value is then a pair: what the
    function returned, and what the builder observes afterwards.
    """
    restore_tools(request["function"], namespace)
    function = namespace.get(request["function"])
    if not callable(function):
        return {"missing": request["function"]}
    arguments = [decode(item) for item in request["arguments"]]
    keywords = {name: decode(item) for name, item in request["keywords"].items()}
    try:
        seed_everything()
        if request["build"]:
            made, observe = request["made"]() if "made" in request else load_build(request["build"])(*arguments)
            value = (function(*made, **keywords), observe())
        else:
            value = function(*arguments, **keywords)
        reply: dict[str, Any] = {"value": encode(value)}
        if request["backward"]:
            reply["gradients"] = gradients(value, arguments)
    except FrameError as error:
        return {"unsendable": str(error)}
    except BaseException as error:  # even SystemExit, which is the outcome of the call and must not end the worker
        return {"error": describe_error(error)}
    given = [*request["arguments"], *request["keywords"].values()]
    reply["changed"] = [
        position
        for position, (before, after) in enumerate(zip(given, [*arguments, *keywords.values()], strict=True))
        if is_changed(before, after, gradient_asked=request["backward"])
    ]
    return reply


def build_ahead(item: dict[str, Any]) -> dict[str, Any]:
    """Return a request with its real inputs built, and without the plain ones, which tell what was planted in them.

    All of a message's inputs are built before the first function is called, so student code finds no plan in any frame.
    """
    if not item["build"]:
        return item
    seed_everything()
    try:
        made = load_build(item["build"])(*(decode(one) for one in item["arguments"]))
    except Exception as error:  # the author's fault, which the call tells
        return item | {"arguments": [], "made": functools.partial(raise_anew, type(error), str(error))}
    return item | {"arguments": [], "made": lambda: made}


def raise_anew(kind: type[Exception], words: str) -> None:
    """Raise an error without the frames that it came from."""
    raise kind(words)


def is_changed(before: Any, after: Any, *, gradient_asked: bool) -> bool:
    """Say whether an input, sent as `before`, isn't as it was: its numbers, or whether it wants or has a gradient."""
    if isinstance(before, dict) and "iterator" in before:
        return False
    import torch

    has_gradient = torch.is_tensor(after) and after.is_leaf and after.grad is not None
    return (has_gradient and not gradient_asked) or not same_json(without_views(before), encode(after))


def without_views(data: Any) -> Any:
    """Return the JSON form of an input as `encode` writes it after the call, where a view is an array."""
    if isinstance(data, list):
        return [without_views(item) for item in data]
    if not isinstance(data, dict) or "array" in data:
        return data
    ((kind, body),) = data.items()
    return body if kind in ("view", "expanded") else {kind: without_views(body)}


@functools.cache
def load_build(source: str) -> Callable[..., Any]:
    """Return the function `build` of a builder's source, which comes from the problem's author, never from a student.

    The source is executed once: a builder keeps nothing between two calls, so they share its classes and no state.
    """
    namespace: dict[str, Any] = {"__name__": "builder"}
    exec(compile(source, "<builder>", "exec"), namespace)  # noqa: S102
    return namespace["build"]


def same_json(before: Any, after: Any) -> bool:
    """Compare the JSON forms of an input before and after the call. NaN equals NaN, since the texts are equal."""
    if isinstance(before, dict) and isinstance(after, dict) and "array" in before:
        return before == after  # no NaN inside: these hold texts and integers
    return before is after or json.dumps(before) == json.dumps(after)


def gradients(value: Any, arguments: list[Any]) -> list[Any] | None:
    """Return the gradients of the sum of the returned tensors by each argument; None if no tensor requires grad."""
    import torch

    tensors = [part for part in (value if isinstance(value, tuple | list) else [value]) if torch.is_tensor(part)]
    total = [part.sum() for part in tensors if part.requires_grad]
    if not total:
        return None
    torch.stack([part.double() for part in total]).sum().backward()
    return [encode(item.grad if torch.is_tensor(item) else None) for item in arguments]


def seed_everything() -> None:
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    # torch.manual_seed also looks for every kind of accelerator, which takes five times as long as most calls.
    torch.default_generator.manual_seed(0)


# --------------------------------------------------------------------------------------------- what may be imported


class StandIn(types.ModuleType):
    """Replace `ftmath` while grading: its checks do nothing, and its formulas are not available."""

    def check(self, *_: Any, **__: Any) -> None:
        """Do nothing: the visible checks give no points."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"ftmath.{name} is not available while grading: torch, numpy and the standard library are")


class ImportFilter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import `ftmath` as a stand-in, and refuse the packages in REFUSED."""

    REFUSED = ("ftgrade", "nbgrader", "nbclient", "nbconvert", "nbformat", "jupyter_client", "jupyter_server")

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        top = fullname.partition(".")[0]
        if top in self.REFUSED:
            raise ModuleNotFoundError(f"{top} is not available while grading", name=fullname)
        if top != "ftmath":
            return None
        if fullname not in ("ftmath", "ftmath.checks"):
            raise ModuleNotFoundError(f"{fullname} is not available while grading", name=fullname)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname == "ftmath")

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing: the stand-in needs no initialization."""


# ------------------------------------------------------------------------------------------------ parent and child


def serve(channel: socket.socket) -> None:
    """Answer the requests of one submission until the channel closes."""
    (shell,) = SHELLS
    shell.enter()
    operations = {"run": (run, shell), "call": (silent_call, shell.user_ns)}
    while True:
        try:
            request = read_frame(channel.recv)
        except EOFError:
            return
        operation, where = operations[request["op"]]
        if request["op"] == "call":
            request["each"] = [build_ahead(item) for item in request["each"]]
        for place, item in enumerate(request["each"]):
            reply = operation(item, where)
            try:
                data = frame_json([request["number"], place, reply])
            except (FrameError, ValueError, RecursionError) as error:
                data = frame_json([request["number"], place, {"unsendable": type(error).__name__}])
            channel.sendall(data)


def kill_child(pid: int) -> int:
    """Kill a child with its process group; return its exit status, or minus the signal that ended it."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def exit_status(pid: int) -> int | None:
    """Return how a child ended, as minus the signal if one ended it; None if it still runs after a second.

    The child isn't waited for, so that its PID stays its own.
    """
    for _ in range(100 if hasattr(os, "waitid") else 0):
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        time.sleep(0.01)  # a process closes its files a little before it has ended
    return None


def requests(control: socket.socket) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Yield the requests on a control socket, each with the descriptors that came with it."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not data:
            return
        yield json.loads(data), descriptors


def fork() -> int:
    """Fork with the C library's function; return 0 in the child. Raises OSError.

    `os.fork` also resets locks (none are held) and reseeds `random`, so unseeded notebooks would vary.
    """
    pid = ctypes.PyDLL(None, use_errno=True).fork()
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pid


def run_child(channel: socket.socket, walls: "Walls") -> None:
    """Confine this child, report that or the layer that failed, and serve if it is confined."""
    try:
        walls.confine(channel.fileno())
    except OSError as error:
        channel.sendall(frame_json({"trouble": str(error)}))
        return
    channel.sendall(frame_json({"ready": True}))
    serve(channel)


def warm_up() -> None:
    """Take one small training step, so that torch detects the processor while /proc is readable.

    Without it torch would use its slowest kernels, whose last digits differ from the reference's.
    """
    import numpy as np
    import torch

    layer = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(layer.parameters())
    torch.nn.functional.cross_entropy(layer(torch.ones(2, 8)), torch.tensor([1, 2])).backward()
    optimizer.step()
    torch.linalg.svd(torch.eye(4, dtype=torch.float64))
    np.linalg.svd(np.eye(4))
    assert torch.backends.cpu.get_cpu_capability()


def own_memory() -> list[tuple[int, int]]:
    """Return the start and end addresses of this process's anonymous writable memory; empty without /proc."""
    found: list[tuple[int, int]] = []
    with contextlib.suppress(OSError), open("/proc/self/maps") as file:
        for addresses, rights, _, _, _, *name in map(str.split, file):
            if rights.startswith("rw") and name in ([], ["[heap]"]):
                start, end = addresses.split("-")
                found.append((int(start, 16), int(end, 16)))
    return found


def collapse_pages(memory: list[tuple[int, int]]) -> Iterator[None]:
    """Collapse this process's memory into huge pages of 2 MiB (Linux 6.1), one at each step of the iterator.

    A fork copies the page table and an exit frees it. With 60,000 small pages that was three quarters of their time.
    """
    size, collapse = 2 * 2**20, 25  # MADV_COLLAPSE; older kernels return an error, which is ignored
    libc = ctypes.CDLL(None)
    for start, end in memory:
        for address in range(-(-start // size) * size, end // size * size, size):
            libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), collapse)
            yield


class Walls(Protocol):
    """The confinement of one child, as `jail.Walls` implements it."""

    folder_descriptor: int

    def confine(self, channel: int) -> None: ...

    def close(self) -> None: ...


class Prison(Protocol):
    """The confinement of the parent, as `jail.Prison` implements it."""

    def enter(self) -> None: ...

    def make_walls(self, limits: dict[str, int]) -> Walls: ...


def shell_file() -> str:
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "shell.py")


def preload() -> None:
    """Import what the children share. The first optimizer step would import `torch._dynamo`, which takes over a second.

    IPython's shell runs cells. matplotlib's import searches for fonts, whose folders a child can't read.
    """
    import gc
    import runpy

    gc.disable()  # what is imported stays: to look for garbage among it took a quarter of the time
    with contextlib.suppress(ImportError):
        import matplotlib.pyplot as _  # noqa: F401
    import torch._dynamo  # pyright: ignore[reportUnusedImport]

    SHELLS.append(runpy.run_path(shell_file(), run_name="shell")["make_shell"]())
    torch.set_num_threads(1)  # OpenMP hangs in a child if its parent has run a parallel region
    warm_up()
    gc.freeze()  # otherwise a child's first collection would copy these pages
    gc.enable()


def open_own_standard_streams() -> None:
    """Open /dev/null anew for this process: flags that it sets on an inherited one would stay for the next child."""
    for number in (0, 1, 2):
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, number)
        os.close(nowhere)


def run_parent(control: socket.socket, prison: Prison) -> None:
    """Confine this process, then fork a child for each submission and end it on request."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some services start programs, children have no status
    (shell,) = SHELLS
    shell.take_over()
    sys.meta_path.insert(0, ImportFilter())
    # Short of memory, the kernel should end a child rather than the grader.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    memory = own_memory()  # /proc may be unreadable after the next line
    prison.enter()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # nobody reads the children's stderr
    os.close(nowhere)
    seed_everything()
    collapsing = collapse_pages(memory)  # takes half a second in all, so each fork is followed by a small part
    control.sendall(b'{"ready": true}')
    for request, descriptors in requests(control):
        if request["op"] == "end":
            control.sendall(json.dumps({"status": kill_child(request["pid"])}).encode())
            continue
        if request["op"] == "status":
            control.sendall(json.dumps({"status": exit_status(request["pid"])}).encode())
            continue
        try:
            walls = prison.make_walls(request["limits"])
        except OSError as error:
            os.close(descriptors[0])
            control.sendall(json.dumps({"trouble": str(error)}).encode())
            continue
        pid = fork()
        if pid == 0:
            try:
                open_own_standard_streams()
                run_child(socket.socket(fileno=descriptors[0]), walls)
            finally:
                os._exit(0)
        os.close(descriptors[0])
        try:
            socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [walls.folder_descriptor])
        except OSError as error:
            kill_child(pid)
            control.sendall(json.dumps({"trouble": str(error)}).encode())
        walls.close()
        list(itertools.islice(collapsing, PAGES_PER_CHILD))
