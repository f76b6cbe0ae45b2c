"""A process that makes questions on a student's own code: a line is changed, and the sandbox tells what follows.

Theory of operation. It gets the cells of a submission, and a key that decides which questions come. It parses the code,
which the grader's own process never does, changes one place of one function at a time, and runs the contract's public
examples before and after in the sandbox. Nothing hidden is run. A question remains if its answer is certain: the same
in two runs, other than before by more than rounding, short, and no mere slip of a name.
"""

import ast
import dataclasses
import doctest
import hashlib
import json
import math
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftgrade.authoring.mutants import changed_bodies
from ftgrade.catalog import Catalog
from ftgrade.intake.gate import clean
from ftgrade.intake.notebook import Cell
from ftgrade.intake.placing import cells_to_run, released_of
from ftgrade.judging.bench import limit_memory, receive
from ftgrade.judging.problem import load_problem
from ftgrade.sandbox.backends import BACKENDS, read_control
from ftgrade.sandbox.channel import Allowance, Crowded
from ftgrade.sandbox.process import Sandbox, Worker
from ftgrade.sandbox.worker import FrameError, frame, parse_json

QUESTIONS, MAX_TRIES = 3, 90
MAX_ANSWER, MAX_CALL, MAX_CODE = 100, 300, 100_000  # characters
CALL_SECONDS, CELL_SECONDS, PATIENCE = 1.0, 10.0, 10.0
TRIVIAL = {"NameError", "UnboundLocalError", "SyntaxError", "IndentationError", "AttributeError", "NotImplementedError"}
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Example:
    """A call of a contract's example, after the lines that set it up."""

    setup: str
    call: str


@dataclass(frozen=True, slots=True)
class Own:
    """A function as its student wrote it: the tree and the text."""

    node: ast.FunctionDef
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """One changed place of a function: the line, counted from the function's first, what it was and what it is."""

    function: str
    line: int
    was: str
    now: str
    source: str


@dataclass(slots=True)
class Asker:
    """The sandbox and the cells of one student; `before` are the results of the code as it was handed in."""

    sandbox: Sandbox
    cells: Sequence[Cell]
    before: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def results(self, definition: str, examples: Sequence[Example]) -> list[str]:
        """Return what each example gives with this definition, in a worker of its own; empty for what can't be told."""
        with self.sandbox.worker() as worker:
            for cell in self.cells:
                run(worker, cell.source, CELL_SECONDS)
            if definition:
                run(worker, definition, CALL_SECONDS)
            return [outcome(worker, example) for example in examples]

    def results_before(self, function: str, examples: Sequence[Example]) -> list[str]:
        if function not in self.before:
            self.before[function] = [""] * len(examples)  # what doesn't end is tried once
            self.before[function] = self.results("", examples)
        return self.before[function]


def outcome(worker: Worker, example: Example) -> str:
    """Return what a call's value looks like, or which error it raises; empty if that says nothing."""
    reply = run(worker, f"{example.setup}\nprint(repr({example.call}))", CALL_SECONDS)
    error = reply.get("error")
    if isinstance(error, dict):
        names = [str(name) for name in error.get("names", [])][:1]
        return f"it raises {names[0]}" if names and names[0] not in TRIVIAL else ""
    text = str(reply.get("printed", "")).strip()
    return text if text and "\n" not in text and len(text) <= MAX_ANSWER and " at 0x" not in text else ""


def run(worker: Worker, source: str, seconds: float) -> dict[str, Any]:
    """Run a cell and return its reply. Raises TimeoutError, Crowded, EOFError, FrameError or BrokenPipeError."""
    allowance = Allowance(seconds, PATIENCE * seconds, worker.processor_seconds)
    (reply,) = worker.ask("run", [json.dumps(source)], allowance)
    parsed = parse_json(reply)
    return parsed if isinstance(parsed, dict) else {}


# ---------------------------------------------------------------------------------------------- what there is to ask


def examples_of(docstring: str, function: str) -> list[Example]:
    """Return a contract's examples that call its function and give a value that can be told.

    >>> examples_of(">>> one = 2\\n>>> f(one)\\n4\\n>>> f(0)\\nTraceback (most recent call last):\\nValueError", "f")
    [Example(setup='one = 2', call='f(one)')]
    """
    setup: list[str] = []
    found: list[Example] = []
    for one in doctest.DocTestParser().get_examples(docstring):
        tree = ast.parse(one.source)
        if not isinstance(tree.body[-1], ast.Expr):
            setup.append(one.source.strip())
        elif one.exc_msg is None and f"{function}(" in one.source and one.want.strip() not in ("True", "False"):
            call = ast.unparse(tree.body[-1])
            found += [Example("\n".join(setup), call)] if len(call) <= MAX_CALL else []
    return found


def contract_examples(catalog: Catalog, stem: str) -> dict[str, list[Example]]:
    """Return the public examples of each function of a problem, with the module's imports before them."""
    tree = ast.parse(catalog.leaves(stem).solution.read_text("utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    found = {one.name: examples_of(ast.get_docstring(one) or "", one.name) for one in functions}
    return {name: examples for name, examples in found.items() if examples}


def own_functions(cells: Sequence[Cell], names: Sequence[str]) -> dict[str, Own]:
    """Return the functions of these names as the last cell that defines each has them."""
    found: dict[str, Own] = {}
    for cell in cells:
        if len(cell.source) > MAX_CODE:
            continue
        try:
            tree = ast.parse(cell.source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in names:
                found[node.name] = Own(node, ast.get_source_segment(cell.source, node) or "")
    return found


def changes_of(own: Own) -> Iterator[Change]:
    """Yield the changes of a function that show in one line of it, which stands there once."""
    before = ast.unparse(own.node).splitlines()
    lines = statement_lines(own.node)
    for _, _, changed in changed_bodies(own.node):
        source = ast.unparse(ast.fix_missing_locations(changed))
        after = source.splitlines()
        differing = [(old.strip(), new.strip()) for old, new in zip(before, after, strict=False) if old != new]
        if len(after) == len(before) and len(differing) == 1 and len(lines.get(differing[0][0], [])) == 1:
            was, now = differing[0]
            yield Change(own.node.name, lines[was][0], was, now, source)


def statement_lines(function: ast.FunctionDef) -> dict[str, list[int]]:
    """Return in which lines of a function's text each statement's first line stands, by how Python would write it."""
    found: dict[str, list[int]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and node is not function:
            number = node.lineno - function.lineno + 1
            found.setdefault(ast.unparse(node).splitlines()[0].strip(), []).append(number)
    return found


def differs(one: str, other: str) -> bool:
    """Say whether two results differ by more than the last digits of their numbers.

    >>> differs("0.30000000000000004", "0.3"), differs("[1, 2]", "[1, 3]"), differs("1.0", "1")
    (False, True, False)
    """
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (one, other)]
    if NUMBER.sub("#", one) != NUMBER.sub("#", other) or len(numbers[0]) != len(numbers[1]):
        return True
    return not all(math.isclose(*pair, rel_tol=1e-5, abs_tol=1e-7) for pair in zip(*numbers, strict=True))


# -------------------------------------------------------------------------------------------------------- the questions


def make_questions(catalog: Catalog, stem: str, cells: Sequence[Cell], key: str, sandbox: Sandbox) -> dict[str, Any]:
    """Return up to three questions on these cells, and the text of the functions that they are about."""
    runnable = cells_to_run(cells, released_of(catalog.built_cells(stem)))
    examples, problem = contract_examples(catalog, stem), load_problem(catalog, stem)
    own = own_functions(runnable, [name for name in problem.functions if name in examples])
    asker = Asker(sandbox, runnable)
    candidates = [change for one in own.values() for change in changes_of(one)]
    candidates.sort(key=lambda one: hashlib.sha256(f"{key}\0{one.function}\0{one.was}\0{one.now}".encode()).digest())
    found: list[dict[str, Any]] = []
    for change in spread(candidates)[:MAX_TRIES]:
        question = question_on(asker, own[change.function], change, examples[change.function], key)
        found += [question] if question else []
        if len(found) == QUESTIONS:
            break
    return {"questions": found, "code": {one["function"]: clean(own[one["function"]].text, MAX_CODE) for one in found}}


def spread(candidates: Sequence[Change]) -> list[Change]:
    """Return the changes so that the first ones are of different functions and lines, as far as there are some."""
    seen: dict[tuple[str, int], int] = {}
    ranks: list[tuple[int, int]] = []
    of_function: dict[str, int] = {}
    for one in candidates:
        place = one.function, one.line
        seen[place] = seen.get(place, -1) + 1
        of_function[one.function] = of_function.get(one.function, -1) + 1
        ranks.append((seen[place], of_function[one.function]))
    order = sorted(range(len(candidates)), key=lambda position: (*ranks[position], position))
    return [candidates[position] for position in order]


def question_on(asker: Asker, own: Own, change: Change, examples: Sequence[Example], key: str) -> dict[str, Any] | None:
    """Return the question on a change, or None if it has no certain answer or an idle one."""
    try:
        before = asker.results_before(change.function, examples)
        if not all(before):
            return None
        twice = asker.results(change.source, [*examples, *examples])
    except (TimeoutError, Crowded, EOFError, FrameError, BrokenPipeError):
        return None
    after, again = twice[: len(examples)], twice[len(examples) :]
    told = [position for position, pair in enumerate(zip(before, after, strict=True)) if all(pair)]
    changed = [position for position in told if differs(before[position], after[position])]
    if not changed or after != again or len(told) < len(examples):
        return None
    asked = changed[int(hashlib.sha256(f"{key}\0{change.source}".encode()).hexdigest(), 16) % len(changed)]
    shown = dataclasses.asdict(change)
    del shown["source"]
    return shown | {
        "was": clean(change.was), "now": clean(change.now), "setup": clean(examples[asked].setup),
        "call": clean(examples[asked].call), "before": clean(before[asked]), "answer": clean(after[asked]),
        "others": [clean(examples[one].call) for one in told if one != asked],
        "others_changed": [clean(examples[one].call) for one in changed if one != asked],
    }  # fmt: skip


def serve(channel: socket.socket, control: socket.socket | None) -> None:
    """Make the questions on each submission that is sent, until the channel closes."""
    hello, _ = receive(channel)
    limit_memory(hello["megabytes"])
    if control is not None:
        read_control(control)
    catalog, sandbox = Catalog(Path(hello["root"])), Sandbox(BACKENDS[hello["backend"]], control=control)
    channel.sendall(frame(b'{"ready": true}'))
    while True:
        try:
            message, data = receive(channel)
        except (EOFError, ConnectionError):
            return
        cells = [Cell(**one) for one in json.loads(data)]
        made = make_questions(catalog, message["stem"], cells, message["key"], sandbox)
        channel.sendall(frame(json.dumps(made).encode()))
