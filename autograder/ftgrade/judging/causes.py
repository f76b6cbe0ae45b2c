"""Find the failed cell that made a later call fail: the cell that should have defined what the call uses."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ftgrade.intake.classes import error_words
from ftgrade.intake.language import as_python, parse_cell
from ftgrade.intake.notebook import Cell, cell_name
from ftgrade.sandbox.channel import Lost, Outcome, Raised

UNDEFINED = re.compile(r"name '([^\W\d]\w{0,60})' is not defined")
WORD = re.compile(r"[^\W\d]\w*")
TARGETS = re.compile(  # of a line without the spaces around it
    r"(?:(?:async\s+)?def|class)\s+(?P<made>\w+)"
    r"|(?:from\s+\S+\s+)?import\s+(?P<imported>.+)"
    r"|(?P<assigned>\w[\w ,()*]*)(?::[^=]+)?=(?!=)"
)
MAX_LINE, MAX_LINKS = 200, 3
MAX_NAMES = 20
"""With more names that failed cells should define, none is told: a hidden call could choose one by its input."""
MAX_PARSED = 300_000
"""A submission with more characters than this is read line by line, which is quick whatever it holds."""


@dataclass(frozen=True, slots=True)
class Causes:
    """The cells that were run and how those that failed ended: by an error, or words on why they were left out."""

    cells: Sequence[Cell]
    failures: Mapping[int, Raised | str]
    known: dict[tuple[int, int], set[str]] = field(default_factory=dict[tuple[int, int], set[str]])

    def explain(self, function: str, outcome: Outcome) -> str:
        """Return which failed cell explains the outcome of a call, in words; empty if none does."""
        if isinstance(outcome, Lost):
            return self.explain_name(function) if outcome.kind == "missing" else ""
        if not isinstance(outcome, Raised):
            return ""
        name = undefined_name(outcome)
        if name and len(set().union(*map(self.names, self.failed))) > MAX_NAMES:
            return ""
        return self.explain_name(name) if name else self.explain_stale(function)

    def explain_name(self, name: str, links: int = 0) -> str:
        """Return which failed cell should define a name, and what made that fail."""
        cell = next((cell for cell in reversed(self.cells) if name and self.should_define(cell, name)), None)
        if cell is None or links >= MAX_LINKS:
            return ""
        failure = self.failures[cell.number]
        earlier = undefined_name(failure) if isinstance(failure, Raised) else ""
        before = self.explain_name(earlier, links + 1) if earlier != name else ""
        words = f"`{name}` is not defined: {cell_name(cell.number)}, which should define it, {ending(failure)}"
        return f"{words} ({before})" if before else words

    def explain_stale(self, function: str) -> str:
        """Return which failed cell should have set a name anew that the function's cell uses, and another cell set."""
        defining = next((cell for cell in reversed(self.cells) if function in self.names(cell)), None)
        if defining is None or defining.number in self.failures:
            return ""
        put_back = (self.names(cell) for cell in self.cells if cell.number < 0)
        used = set(WORD.findall(defining.source)).difference(*put_back)  # the released imports have run in any case
        for cell in self.cells:
            failure = self.failures.get(cell.number)
            if failure is None:
                continue
            line = 1 if isinstance(failure, str) or failure.is_a("SyntaxError") else failure.line or 1
            others = (self.names(other) for other in self.cells if other is not cell)
            if stale := sorted(self.names(cell, line) & used & set().union(*others)):
                return f"{cell_name(cell.number)}, which should set `{stale[0]}`, {ending(failure)}"
        return ""

    def names(self, cell: Cell, first_line: int = 1) -> set[str]:
        """Return the names that a cell's statements set, from a line on; cached."""
        key = cell.number, first_line
        if key not in self.known:
            parses = sum(len(one.source) for one in self.cells) <= MAX_PARSED
            self.known[key] = names_set(cell.source, first_line) if parses else names_of_text(cell.source, first_line)
        return self.known[key]

    @property
    def failed(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.number in self.failures]

    def should_define(self, cell: Cell, name: str) -> bool:
        return cell.number in self.failures and name in self.names(cell)


def ending(failure: Raised | str) -> str:
    return "was left out" if isinstance(failure, str) else f"ended in {error_words(failure.names)}"


def undefined_name(error: Raised) -> str:
    """Return the name that a NameError is about, or an empty text."""
    found = UNDEFINED.match(error.message) if error.is_a("NameError") else None
    return found[1] if found else ""


def names_set(source: str, first_line: int) -> set[str]:
    """Return the names that a cell's statements set, from a line on.

    >>> sorted(names_set("import numpyy as np\\nscale, shift = 1, 2\\ndef f(x):\\n    return (", 1))
    ['f', 'np', 'scale', 'shift']
    >>> names_set("a = 1\\nb = a / 0", 2)
    {'b'}
    >>> sorted(names_set("%%time\\nfiles = !ls\\ndef f(x): return x", 1))
    ['f', 'files']
    """
    statements = parse_cell(as_python(source))
    if statements is None:
        return names_of_text(source, first_line)
    return {name for node in ast.walk(ast.Module(statements, [])) for name in names_of_node(node, first_line)}


def names_of_node(node: ast.AST, first_line: int) -> Iterator[str]:
    if getattr(node, "end_lineno", 0) < first_line:
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id


def names_of_text(source: str, first_line: int) -> set[str]:
    """Return the names that the lines of a cell seem to set, without parsing it."""
    lines = source.splitlines()[first_line - 1 :]
    return {name for line in lines for name in names_of_line(line.strip()[:MAX_LINE])}


def names_of_line(line: str) -> list[str]:
    """Return the names that a line of a cell that isn't Python seems to set."""
    found = TARGETS.match(line)
    if found is None:
        return []
    if found["imported"]:
        return [part.split()[-1].strip("()") for part in found["imported"].split(",") if part.split()]
    return WORD.findall(found["made"] or found["assigned"])


__all__ = ["Causes", "names_set"]
