"""The notebook's shell: IPython's own, which runs cells as Jupyter does and skips what reaches outside the notebook.

The sandbox's parent makes one `Shell` before it forks, so a child pays nothing for IPython's start. IPython itself
reads the magics, compiles, keeps `In`, `Out` and `_`, and shows results. A cell without magics and without `await` is
run by `run_statements`, a shorter way to the same end. IPython's own way would add 6 ms to each submission, which is a
fifth. What differs from a Jupyter kernel, and why:

- Shell lines and magics that need a network, another program or another folder do nothing. `skipped` lists them, and
  the grader shows that list to the student.
- A magic that isn't installed here does nothing either, since the student's machine may have it.
- `%timeit` runs its statement as long as it needs for one number. Stock IPython takes about ten seconds.
- `asyncio.run` works in a cell, as it does in a plain Python program.
- Nothing is written to a profile folder or a history file, and no thread is started.

This file imports nothing else of ours. It runs beside student code, which may replace any of it: see `worker.py`.
"""

# IPython's traits get their types at run time, and some of what is replaced here is its own affair.
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportPrivateUsage=false
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false
import ast
import asyncio
import atexit
import base64
import builtins
import contextlib
import fnmatch
import functools
import inspect
import os
import re
import site
import sys
import time
import types
import warnings
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from IPython.core import page
from IPython.core.autocall import ExitAutocall, IPyAutocall
from IPython.core.builtin_trap import BuiltinTrap
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.inputtransformer2 import leading_empty_lines
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell
from IPython.core.magics import execution
from IPython.display import display
from IPython.utils.text import SList
from traitlets import Type
from traitlets.config import Config

CELL = re.compile(r"<ipython-input-\d+\+?(\d*)>")
CLAUSE = re.compile(r"(else|elif|except|finally)\b")
COMPOUND = re.compile(r"@|(async|class|def|for|if|try|while|with)\b")
WORD = re.compile(r"\w+")
NO_STATEMENT = " \t\r\n\f#)]}"
"""What a line starts with that starts no statement."""
OUTSIDE = {
    "!", "bash", "cmd", "conda", "connect_info", "debug", "ed", "edit", "load", "loadpy", "mamba", "man", "micromamba",
    "notebook", "pastebin", "perl", "pip", "pypy", "python", "python2", "python3", "qtconsole", "ruby", "sc", "script",
    "sh", "shell", "sx", "system", "uv",
}  # fmt: skip
"""Magics that need a program, a network or a person at a keyboard."""
MAX_KEPT, MAX_SKIPPED_TEXT = 20, 200
"""How many pictures and how many skipped lines of one cell are kept, and how much of a line."""
TIMING_SECONDS = 0.01
"""How long `%timeit` repeats a statement for one number; its own rule is 0.2 to 2 seconds, seven times over."""


class Compiler(CachingCompiler):
    """Compile under names such as `<ipython-input-7+2>`: the seventh piece of code, after two other lines of its cell.

    `before` is the number of the cell's lines that stand before the code that is compiled next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = self.before = 0

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        self.number += 1
        return self.name()

    def name(self) -> str:
        return f"<ipython-input-{self.number}{f'+{self.before}' if self.before else ''}>"

    def statements(self, source: str) -> list[types.CodeType]:
        """Compile a cell that is Python as it stands: first all but its last statement, then that.

        IPython makes a tree of the cell first, which takes four times as long. Return nothing if the cell isn't plain
        Python, or if its lines don't show where its last statement starts.
        """
        lines = [f"{line}\n" for line in source.split("\n")]
        place = start_of_last_statement(lines)
        head, last = "".join(lines[:place]), "\n" * place + "".join(lines[place:])
        if ";" in last and not COMPOUND.match(lines[place]):
            return []
        name = self.cache(source)
        try:
            with self.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
                first = [self(head, name, "exec")] if place else []
                try:
                    self(last, name, "eval")
                except SyntaxError:
                    return [*first, self(last, name, "exec")]
                return [*first, self(last, name, "single")]
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            return []

    def ast_parse(self, source: str, filename: str = "", symbol: str = "exec") -> Any:
        return super().ast_parse(source, filename or self.name(), symbol)

    def __call__(self, source: Any, filename: str, symbol: str, *rest: Any, **more: Any) -> Any:
        """Compile; the bodies of `%%time` and `%%timeit` get the cell's name, so that an error tells its line."""
        name = self.name() if filename.startswith(("<timed", "<magic")) else filename
        return super().__call__(source, name, symbol, *rest, **more)


class Results(DisplayHook):
    """Show the value of a cell's last expression as a page shows it: without `Out[1]:`."""

    prompt_end_newline = True

    def __call__(self, result: Any = None) -> None:
        if result is not None:
            super().__call__(result)

    def quiet(self) -> bool:
        return not self.shell.is_plain and bool(super().quiet())

    def write_output_prompt(self) -> None:
        """Write nothing: the student's page has no prompts."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
        self.shell.show(format_dict)

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """Keep no copy of what was shown: a loop may show without end."""


class Publisher(DisplayPublisher):
    """Show what `display` is given."""

    def publish(self, data: dict[str, Any], *_: Any, **__: Any) -> None:
        self.shell.show(data)

    def clear_output(self, wait: bool = False) -> None:
        """Keep what was shown."""


class Shelf(dict[str, Any]):
    """What `%store`, `%bookmark` and `%cd` keep, in memory instead of a profile folder."""

    def keys(self, pattern: str = "*") -> list[str]:  # type: ignore[override]
        return fnmatch.filter(self, pattern)


class BriefTimer(execution.Timer):
    """Time a statement for `%timeit` in little time: long series are cut short, and their time is extrapolated."""

    def timeit(self, number: int = 1) -> float:
        done, spent = 0, 0.0
        while done < number and (done == 0 or spent < TIMING_SECONDS):
            now = min(number - done, max(1, done))
            spent += super().timeit(now)
            done += now
        return spent * number / max(done, 1)

    def repeat(self, repeat: int = 1, number: int = 1) -> list[float]:
        ends = time.perf_counter() + 10 * TIMING_SECONDS
        found = [self.timeit(number)]
        while len(found) < repeat and time.perf_counter() < ends:
            found.append(self.timeit(number))
        return found


class Exit(ExitAutocall):
    """What `exit` and `quit` are; a kernel's take an argument too."""

    def __call__(self, *_: Any, **__: Any) -> None:
        """Go on: `exit` ends a kernel, and the cells below it have to be run nevertheless."""


class Shell(InteractiveShell):
    """IPython's shell without a profile, a history file or a terminal; `run_notebook_cell` runs a cell."""

    compiler_class = Type(Compiler)
    displayhook_class = Type(Results)
    display_pub_class = Type(Publisher)

    execution_count = 1  # a trait in IPython's own class, which is slow to set

    def __init__(self) -> None:
        self.exiter = Exit(self)
        self.raised: list[BaseException] = []
        self.skipped: list[str] = []
        self.pictures: list[bytes] = []
        self.folder = ""
        self.is_plain = False
        self.loop: asyncio.AbstractEventLoop | None = None
        settings = Config()
        settings.IPKernelApp.connection_file = ""  # by which programs know that they run in a notebook
        settings.InteractiveShell.colors = "nocolor"
        settings.HistoryManager.enabled = False
        settings.HistoryManager.hist_file = ":memory:"
        super().__init__(config=settings, user_module=types.ModuleType("__main__"))
        atexit.unregister(self.atexit_operations)
        self.db = Shelf()
        self.inputs = self.history_manager.input_hist_parsed
        self.raw_inputs = self.history_manager.input_hist_raw
        self.set_hook("show_in_pager", page.as_hook(self.show_page), 0)
        self.loop_runner = self.run_coroutine
        self.loop_runner_map = {**self.loop_runner_map, "asyncio": (self.run_coroutine, True)}
        self.extension_manager.load_extension("storemagic")  # as a kernel does
        magics = self.magics_manager.lsmagic()["line"]
        self.automagics = {*magics, *(name for name, _ in self.alias_manager.aliases)}
        _ = self.logger  # made at first use, which would be in each child

    # ------------------------------------------------------------------------------------------------------ start

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        """Use none: nothing is read from the home folder or written there."""

    def init_profile_dir(self, profile_dir: Any) -> None:
        """Use none."""

    def init_virtualenv(self) -> None:
        """Leave the path for imports as it is."""

    def init_sys_modules(self) -> None:
        """Leave `__main__` to `take_over`: the process that makes a shell has a main module of its own."""

    def init_prompts(self) -> None:
        """Leave `sys.ps1` to `take_over`."""

    def init_builtins(self) -> None:
        """Leave the builtins to `take_over`."""
        self.builtin_trap = BuiltinTrap(shell=self)

    def take_over(self) -> None:
        """Make this process a notebook's: its shell and its `__main__`."""
        for kind in type(self)._walk_mro():
            kind._instance = self
        site.sethelper()  # `help`, `copyright` and their like, which Python lacks that is started without `site`
        site.setcopyright()
        builtins.__dict__.update(__IPYTHON__=True, display=display)
        super().init_sys_modules()  # dataclasses and type hints look names up there
        super().init_prompts()
        self.builtin_trap.__enter__()  # for good: a plain cell doesn't ask for them
        self.display_trap.__enter__()

    def enter(self) -> None:
        """Take the working folder as the notebook's: imports look there first."""
        self.folder = os.getcwd()
        self.user_ns["_dh"][:] = [self.folder]
        sys.path.insert(0, "")
        sys.dont_write_bytecode = True  # a module that is written twice within a second would be read from the cache

    # ---------------------------------------------------------------------------------------------------- running

    def run_notebook_cell(self, source: str) -> BaseException | None:
        """Run a cell of the notebook; return the error that it ended in."""
        self.raised, self.skipped, self.pictures = [], [], []
        self.compile.before, self.is_plain = 0, False
        self.look_for_new_modules()
        with self.inside_the_loop(source):
            if statements := self.plain_statements(source):
                error = self.run_statements(source, statements)
            else:
                self.tell_history()
                result = self.run_cell(source, store_history=True)
                error = result.error_before_exec or result.error_in_exec
        self.run_tasks()
        return error or next(iter(self.raised), None)

    def look_for_new_modules(self) -> None:
        """Let imports read the folder anew: cells follow each other faster than its time stamp changes."""
        with contextlib.suppress(OSError):  # the folder may be gone
            if finder := sys.path_importer_cache.get(os.getcwd()):
                finder.invalidate_caches()

    def plain_statements(self, source: str) -> list[types.CodeType]:
        """Return the compiled statements of a cell that needs nothing of IPython's but its names, else nothing."""
        if self.ast_node_interactivity != "last_expr" or self.ast_transformers or self.may_be_automagic(source):
            return []
        statements = self.compile.statements(source)
        return [] if any(code.co_flags & inspect.CO_COROUTINE for code in statements) else statements

    def run_statements(self, source: str, statements: list[types.CodeType]) -> BaseException | None:
        """Run a cell's compiled statements as `run_cell` would, in a tenth of the time; return the error."""
        info = ExecutionInfo(source, True, False, True, None)
        result = ExecutionResult(info)
        self.keep_input(source.rstrip("\n"))
        self.execution_count += 1
        self.is_plain = True
        self.events.trigger("pre_execute")
        self.events.trigger("pre_run_cell", info)
        try:
            for code in statements:
                exec(code, self.user_ns)  # noqa: S102
        except BaseException as error:  # even SystemExit and KeyboardInterrupt: the next cell runs all the same
            result.error_in_exec = error
        self.is_plain = False
        self.events.trigger("post_execute")
        self.events.trigger("post_run_cell", result)
        return result.error_in_exec

    def keep_input(self, text: str) -> None:
        """Keep a plain cell's text as `In[n]`, `_i` and `_in`."""
        recent = ["", "", *self.raw_inputs[-3:]]
        self.user_ns.update(
            {"_iii": recent[-3], "_ii": recent[-2], "_i": recent[-1], f"_i{self.execution_count}": text}
        )
        self.inputs.append(text)
        self.raw_inputs.append(text)

    def tell_history(self) -> None:
        """Let IPython's history know the plain cells that were run without it."""
        history = self.history_manager
        history._ii, history._i, history._i00 = ["", "", *self.raw_inputs[-3:]][-3:]

    def transform_cell(self, raw_cell: str) -> str:
        """Turn a cell into Python with the same line numbers."""
        lines = raw_cell.splitlines(keepends=True)
        blank = len(lines) - len(leading_empty_lines(lines))
        return "\n" * blank + super().transform_cell(raw_cell)

    def may_be_automagic(self, source: str) -> bool:
        """Say whether a cell may be a magic without its `%`, a name that calls itself, or copied with its prompt."""
        text = source.strip()
        found = WORD.match(text)
        if not text or text.startswith("In ["):  # which Python takes for an annotation
            return True
        if "\n" in text or found is None:
            return False
        word = found[0]
        return isinstance(self.user_ns.get(word), IPyAutocall) or word in self.automagics

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Generator[None]:
        """Keep no copy of what is printed: a loop may print without end."""
        yield

    def _format_exception_for_storage(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    def showtraceback(self, exc_tuple: Any = None, *_: Any, **__: Any) -> None:
        """Keep the error instead of a formatted traceback."""
        error = (exc_tuple or sys.exc_info())[1]
        if isinstance(error, BaseException):
            self.raised.append(error)

    def showsyntaxerror(self, *_: Any, **__: Any) -> None:
        self.showtraceback()

    def show_page(self, text: Any, *_: Any, **__: Any) -> None:
        """Print what `name?` and `%prun` would open in a pager."""
        self.show(text if isinstance(text, dict) else {"text/plain": text})

    def show(self, data: dict[str, Any]) -> None:
        """Keep a picture, or print the plain text of another value."""
        picture = data.get("image/png")
        if picture:
            with contextlib.suppress(ValueError, TypeError):
                if len(self.pictures) < MAX_KEPT:
                    self.pictures.append(picture if isinstance(picture, bytes) else base64.b64decode(picture))
                return
        if "text/plain" in data:
            sys.stdout.write(f"{data['text/plain']}\n")

    def set_next_input(self, s: str, replace: bool = False) -> None:
        """Do nothing: there is no cell to put text into."""

    def enable_gui(self, gui: Any = None) -> None:
        """Do nothing: there are no windows."""

    # ------------------------------------------------------------------------------------------- the event loop

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a cell that awaits."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self.event_loop().run_until_complete(coroutine)
        finally:
            asyncio._set_running_loop(outer)

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return the notebook's event loop, made at first use: a loop doesn't survive a fork."""
        if self.loop is None:
            asyncio.run = self.outside_the_loop(asyncio.run)
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        return self.loop

    @contextlib.contextmanager
    def inside_the_loop(self, source: str) -> Generator[None]:
        """Let code find a running loop, as in a kernel: `asyncio.create_task` works in a cell without `await`.

        A loop takes a millisecond, so the first cell that holds `async` makes it.
        """
        if self.loop is None and "async" not in source:
            yield
            return
        asyncio._set_running_loop(self.event_loop())
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def run_tasks(self) -> None:
        """Let the tasks that a cell started take a step."""
        if self.loop is not None and not self.loop.is_closed() and asyncio.all_tasks(self.loop):
            self.loop.run_until_complete(asyncio.sleep(0))

    def outside_the_loop(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `asyncio.run` so that it works in a cell, where stock IPython refuses it."""

        @functools.wraps(run)
        def inner(*arguments: Any, **keywords: Any) -> Any:
            outer = asyncio._get_running_loop()
            if outer is not self.loop or (self.loop is not None and self.loop.is_running()):
                return run(*arguments, **keywords)
            asyncio._set_running_loop(None)
            try:
                return run(*arguments, **keywords)
            finally:
                asyncio._set_running_loop(outer)

        return inner

    # ----------------------------------------------------------------------------------------------------- magics

    def skip(self, words: str) -> SList:
        """Note a line that isn't run, and return what a shell line without output returns."""
        if len(self.skipped) < MAX_KEPT:
            self.skipped.append(words.strip()[:MAX_SKIPPED_TEXT])
        return SList()

    def system(self, cmd: str) -> None:  # type: ignore[override]
        self.user_ns["_exit_code"] = 0
        self.skip(f"!{cmd}")

    system_piped = system_raw = system

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        return self.skip(f"!{cmd}") if split else str(self.skip(f"!{cmd}"))

    def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> Any:
        is_unknown = not magic_name.startswith("%") and self.find_line_magic(magic_name) is None
        if is_unknown or self.leads_outside(magic_name, line):
            found = self.skip(f"%{magic_name} {line}")
            return found if magic_name in ("sx", "system") else None
        with self.from_line(sys._getframe(_stack_depth), 0):
            try:
                return super().run_line_magic(magic_name, line, _stack_depth + 1)
            except (ImportError, RuntimeError):
                if magic_name not in ("load_ext", "reload_ext", "matplotlib", "pylab"):
                    raise
                self.skip(f"%{magic_name} {line}")

    def run_cell_magic(self, magic_name: str, line: str, cell: str) -> Any:
        if magic_name in OUTSIDE or self.find_cell_magic(magic_name) is None:
            self.skip(f"%%{magic_name} {line}")
            return None
        with self.from_line(sys._getframe(1), 1):
            return super().run_cell_magic(magic_name, line, cell)

    @contextlib.contextmanager
    def from_line(self, caller: types.FrameType, more: int) -> Generator[None]:
        """Count the lines of a magic's code from the cell's line that called it."""
        before = self.compile.before
        if place := CELL.fullmatch(caller.f_code.co_filename):
            self.compile.before = int(place[1] or 0) + caller.f_lineno - 1 + more
        try:
            yield
        finally:
            self.compile.before = before

    def leads_outside(self, name: str, line: str) -> bool:
        """Say whether a line magic needs something that a notebook alone doesn't have."""
        words = line.replace('"', "").replace("'", "").split()
        paths = [word for word in words if not word.startswith("-")]
        if name == "cd" and (paths or not words):
            goal = os.path.realpath(os.path.expanduser(" ".join(paths) or "~"))
            home = os.path.realpath(self.folder)
            return not (goal + "/").startswith(home + "/") or not os.path.isdir(goal)
        if name == "run":
            return "-m" not in words and not any(map(os.path.isfile, [*paths, *(f"{word}.py" for word in paths)]))
        return name in OUTSIDE


Shell.__name__ = Shell.__qualname__ = "ZMQInteractiveShell"  # programs and `%config` know a notebook's shell by it


def start_of_last_statement(lines: list[str]) -> int:
    """Return the number of the line that starts a cell's last statement, if the cell is Python.

    >>> start_of_last_statement(["a = 1\\n", "@b\\n", "def f():\\n", "  pass\\n", "# end\\n"])
    1
    """
    starts = [place for place, line in enumerate(lines) if line[0] not in NO_STATEMENT] or [0]
    while len(starts) > 1 and (CLAUSE.match(lines[starts[-1]]) or lines[starts[-2]].startswith("@")):
        starts.pop()
    return starts[-1]


def make_shell() -> Shell:
    """Return the shell that children share, with what it loads at first use loaded already."""
    shell = Shell()
    for name in ("time", "matplotlib", "who", "config", "autosave"):
        shell.find_line_magic(name)
    with contextlib.suppress(ImportError):
        from IPython.core.pylabtools import select_figure_formats
        from matplotlib_inline.config import InlineBackend

        configurables: list[Any] = shell.configurables
        configurables.append(InlineBackend.instance(parent=shell))
        select_figure_formats(shell, {"png"})
    execution.Timer = BriefTimer
    warnings.filterwarnings("ignore", message="To exit: use")  # advice for a terminal
    shell.run_cell("None\nNone")  # its first cell takes ten times as long as the others
    shell.compile.number, shell.execution_count = 0, 1
    return shell
