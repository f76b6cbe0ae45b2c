"""Check an answer where Python's standard library is all there is: in a browser's tab, and in the build that tries it.

`answered` takes a request as JSON and returns what the page shows as JSON. The checks are ftmath's own. A request that
never ends is the page's matter: it ends the worker that this runs in.
"""

import contextlib
import importlib
import io
import json
import linecache
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MOST_PRINTED, MOST_WORDS = 8_000, 2_000
ANSWER = "answer.py"
OURS = {"ftmath", "js", "pyodide", "pyodide_js", "_pyodide", "_pyodide_core", "micropip"}
Request = dict[str, Any]
Reply = dict[str, Any]


def answered(request: str) -> str:
    """Return the reply to a request, whatever the answer in it does."""
    asked: Request = json.loads(request)
    Path(os.environ["FTMATH_PROGRESS"]).write_text(json.dumps(asked.get("progress", {})), "utf-8")
    printed = Printed()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            reply = {"check": check, "examples": examples, "hint": hint, "solution": solution}[asked["kind"]](asked)
        except Stopped as stop:
            reply = {"status": "wrong", "words": str(stop)}
        except BaseException as error:  # an answer may raise SystemExit: it ends no tab
            reply = {"status": "wrong", "words": f"Your answer stops Python with {type(error).__name__}: {error}"}
    reply["words"] = clipped(reply.get("words", ""), MOST_WORDS)
    return json.dumps(reply | {"printed": printed.told(), "progress": stored()})


class Stopped(Exception):
    """What keeps an answer from being checked, in words for the page."""


class Printed(io.TextIOBase):
    """What an answer prints: the first characters are kept, the rest is counted."""

    def __init__(self) -> None:
        self.kept, self.length = "", 0

    def write(self, text: str) -> int:
        self.length += len(text)
        self.kept += text[: max(0, MOST_PRINTED - len(self.kept))]
        return len(text)

    def told(self) -> str:
        return clipped(self.kept, MOST_PRINTED, self.length)


def clipped(text: str, most: int, length: int | None = None) -> str:
    """Return the start of a long text, and how much of it is left out.

    >>> clipped("abcdef", 4)
    'abcd … (2 more characters)'
    """
    length = len(text) if length is None else length
    return text if length <= most else f"{text[:most]} … ({length - most:,} more characters)"


def stored() -> Any:
    try:
        return json.loads(Path(os.environ["FTMATH_PROGRESS"]).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


# ------------------------------------------------------------------------------------------------------ what one may do


def check(asked: Request) -> Reply:
    """Check an answer to an exercise as the notebook's cell does, and count the attempt."""
    exercise = door(asked["number"]).exercise(asked["number"])
    result = kinds().outcome(exercise, written(asked))
    kinds().noted(exercise, result, result.words)
    known = stored().get(asked["number"], {})
    opened = result.status == "wrong" and known.get("attempts", 0) >= kinds().HONEST_ATTEMPTS
    more = " The solution is open now." if opened else ""
    return {"status": result.status, "words": clipped(result.words, MOST_WORDS) + more}


def hint(asked: Request) -> Reply:
    found = door(asked["number"]).hint(asked["number"])
    return {"title": found.title, "words": found.text}


def solution(asked: Request) -> Reply:
    """Return the solution, or how many more attempts open it."""
    found = door(asked["number"]).solution(asked["number"])
    words = found.text if found.code else found.text.partition(";")[0] + ". A hint may help."
    return {"title": found.title, "words": words, "code": found.code}


def examples(asked: Request) -> Reply:
    """Run the public checks of a problem's function, without the examples that need a package that isn't here."""
    function = written(asked)
    text, left = without(function.__doc__ or "", set(asked["missing"]))
    function.__doc__ = text
    results = [
        checks().check(function, one["name"], points=one["points"], hidden=one["hidden"]) for one in asked["checks"]
    ]
    words = "\n".join(map(str, results))
    if left:
        words += f"\n  Not run here, since it needs {' or '.join(asked['missing'])}: {'; '.join(left)}"
    states = {result.status for result in results}
    status = "not started" if "not attempted" in states else "wrong" if "wrong" in states else "right"
    return {"status": status, "words": words, "listed": True}


def without(text: str, names: set[str]) -> tuple[str, list[str]]:
    """Return a docstring without the examples that use one of the names, and these examples.

    >>> without("Double.\\n\\n>>> double(2)\\n4\\n>>> double(np.ones(2))\\n[2, 2]\\n", {"np"})
    ('Double.\\n\\n>>> double(2)\\n4\\n', ['double(np.ones(2))'])
    """
    doctest = importlib.import_module("doctest")
    parts, left = [], []
    for part in doctest.DocTestParser().parse(text):
        if isinstance(part, str):
            parts.append(part)
        elif names & set(re.findall(r"\w+", part.source)):
            left.append(part.source.strip())
        else:
            lines = part.source.splitlines()
            shown = [f">>> {lines[0]}", *(f"... {line}" for line in lines[1:]), *part.want.splitlines()]
            parts.append("".join(f"{' ' * part.indent}{line}\n" for line in shown))
    return "".join(parts), left


# ------------------------------------------------------------------------------------------------------------ an answer


def written(asked: Request) -> Callable[..., Any]:
    """Run an answer's text after its notebook's imports, and return its function."""
    text, name = str(asked["text"]), asked["function"]
    space: dict[str, Any] = {"__name__": "answer"}
    exec(asked["imports"], space)  # noqa: S102
    # A check reads the text of an answer, to see a blank that is still open.
    linecache.cache[ANSWER] = (len(text), None, text.splitlines(keepends=True), ANSWER)
    try:
        exec(compile(text, ANSWER, "exec", dont_inherit=True), space)  # noqa: S102
    except SyntaxError as error:
        raise Stopped(f"Python can't read line {error.lineno}: {error.msg}.") from None
    except Exception as error:
        raise Stopped(f"Your text stops with {type(error).__name__}: {error}") from None
    if not callable(space.get(name)):
        raise Stopped(f"Your text has no function {name}. Reset brings the beginning back.")
    return space[name]


class NotHere:
    """An importer that says in words what isn't here."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in OURS:
            words = f"{top} isn't available in this page, which has Python's standard library alone"
            raise ModuleNotFoundError(words, name=name)


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """Stand in for torch's types while ftmath is imported: it asks of a value whether it is a tensor, and none is."""
    torch, nn = types.ModuleType("torch"), types.ModuleType("torch.nn")
    vars(nn).update({name: type(name, (), {}) for name in ("Module", "Parameter")})
    vars(torch).update(nn=nn, Tensor=type("Tensor", (), {}))
    places = {"torch": torch, "torch.nn": nn}
    sys.modules |= places
    try:
        yield
    finally:
        for place in places:
            del sys.modules[place]


def door(number: str = "") -> Any:
    """Return ftmath's exercises; the part of this number is loaded, or every part."""
    with stand_in():
        found = importlib.import_module("ftmath.exercises")
        for part in [int(number.partition(".")[0])] if number else found.PARTS:
            found.exercises(part)
    return found


def kinds() -> Any:
    with stand_in():
        return importlib.import_module("ftmath.exercises.exercise")


def checks() -> Any:
    return importlib.import_module("ftmath.checks")


# ------------------------------------------------------------------------------------------------------------ the build


def workable(modules: list[str]) -> list[str]:
    """Return the modules of one exercise each that work here: the reference is right, each mistake is named."""
    return [module for module in modules if works(module)]


def works(module: str) -> bool:
    try:
        with stand_in():
            (one,) = importlib.import_module(f"ftmath.exercises.{module}").EXERCISES
        right = kinds().outcome(one, one.reference).status == "right"
        return right and all(kinds().outcome(one, slip.wrong).words == slip.says for slip in one.mistakes)
    except Exception:
        return False


sys.meta_path.insert(0, NotHere())
