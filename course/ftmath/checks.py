"""The public checks of a function: the examples and invariants in its docstring.

An example whose line ends in `# name` is a public case of the check `name` alone.
"""

import doctest
import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

STATUS_WORDS = {
    "right": ("✓", "public cases passed"),
    "wrong": ("✗", "not right yet"),
    "not attempted": ("–", "not attempted"),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed example or invariant: its source, the expected output, and the actual output."""

    kind: str
    source: str
    want: str
    got: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a function's public checks. A notebook displays it as HTML; `print` shows the same text."""

    function: str
    name: str
    points: float
    status: str
    run: int
    failures: tuple[Failure, ...]
    hidden: tuple[str, ...]

    def __str__(self) -> str:
        glyph, words = STATUS_WORDS[self.status]
        lines = [f"{glyph} {self.function}: {words} ({self.run - len(self.failures)} of {self.run})"]
        if self.status == "not attempted":
            lines = [f"{glyph} {self.function}: {words}"]
        elif self.status == "wrong":
            for failure in self.failures:
                lines += [f"  {failure.kind}: {failure.source}", f"    should give {failure.want}, gave {failure.got}"]
        if self.hidden:
            lines.append(
                f"  '{self.name}' ({self.points:g} points) is graded on hidden inputs: {', '.join(self.hidden)}"
            )
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        # nbgrader's validation reads text/plain as a score: full points if the public checks pass, otherwise 0.
        return {"text/plain": repr(self.points if self.status == "right" else 0.0), "text/html": as_html(self)}


class Collector(doctest.DocTestRunner):
    """A doctest runner that collects failures instead of printing them."""

    def __init__(self) -> None:
        super().__init__(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        self.failed: list[tuple[doctest.Example, str]] = []
        self.unwritten = False

    def report_start(self, out: Any, test: Any, example: Any) -> None:
        """Say nothing."""

    def report_success(self, out: Any, test: Any, example: Any, got: Any) -> None:
        """Say nothing."""

    def report_failure(self, out: Any, test: Any, example: Any, got: Any) -> None:
        self.failed.append((example, got.strip() or "nothing"))

    def report_unexpected_exception(self, out: Any, test: Any, example: Any, exc_info: Any) -> None:
        self.unwritten |= issubclass(exc_info[0], NotImplementedError)
        self.failed.append((example, f"{exc_info[0].__name__}: {exc_info[1]}"))


def check(
    function: Callable[..., Any], name: str = "", *, points: float = 0.0, hidden: Sequence[str] = ()
) -> CheckResult:
    """Run a function's docstring examples and the invariants after its line `Always:`.

    `name` and `points` belong to the graded check in the same cell, and `hidden` names the hidden inputs that it tests.
    The examples marked `# name` decide; if there are none, those without a mark do. A function whose body is still
    `raise NotImplementedError` counts as not attempted.

    >>> def double(x):
    ...     '''Return twice x.
    ...
    ...     >>> double(2)
    ...     4
    ...     '''
    ...     return x * x * x
    >>> print(check(double, "value", points=2, hidden=["zero"]))
    ✗ double: not right yet (0 of 1)
      example: double(2)
        should give 4, gave 8
      'value' (2 points) is graded on hidden inputs: zero
    """
    text = function.__doc__ or ""
    names = dict(function.__globals__)
    names[function.__name__] = function
    test = doctest.DocTestParser().get_doctest(text, names, function.__name__, None, 0)
    collector = Collector()
    collector.run(test, out=lambda _: None, clear_globs=False)
    own = cases_of(name, test.examples)
    failed = [(example, got) for example, got in collector.failed if example in own]
    status = "wrong" if failed or not own else "right"
    if collector.unwritten:
        status = "not attempted"
    failures = tuple(failure(text, example, got) for example, got in failed)
    if not test.examples:
        lost = "the docstring with the examples is gone: copy it back from a fresh notebook"
        failures = (Failure("docstring", function.__name__, "examples", lost),)
    return CheckResult(function.__name__, name, float(points), status, max(1, len(own)), failures, tuple(hidden))


def cases_of(name: str, examples: Sequence[doctest.Example]) -> list[doctest.Example]:
    """Return the examples marked with a check's name, or those without a mark if there are none."""
    marked = [example for example in examples if mark_of(example) == name]
    return marked or [example for example in examples if not mark_of(example)]


def mark_of(example: doctest.Example) -> str:
    """Return the check that an example belongs to, or an empty text.

    >>> mark_of(doctest.Example("double(0)  # zero", "0")), mark_of(doctest.Example("double(0)", "0"))
    ('zero', '')
    """
    found = re.search(r"  # (\w+)$", example.source.rstrip())
    return found[1] if found else ""


def failure(text: str, example: doctest.Example, got: str) -> Failure:
    """Return the record of a failed example. An example after the line `Always:` is an invariant."""
    always = re.search(r"^\s*Always:", text, re.MULTILINE)
    position = len("".join(text.splitlines(keepends=True)[: example.lineno]))
    kind = "invariant" if always and position > always.start() else "example"
    want = (example.exc_msg or example.want).strip() or "nothing"
    source = re.sub(r"  # \w+$", "", example.source.strip())
    return Failure(kind, source, want, got[:500])


def as_html(result: CheckResult) -> str:
    """Return the result as an HTML block in JupyterLab's theme; no information is in colour alone."""
    glyph, words = STATUS_WORDS[result.status]
    colour = {"right": "#0072B2", "wrong": "#D55E00", "not attempted": "var(--jp-ui-font-color2, #666)"}[result.status]
    counted = "" if result.status == "not attempted" else f" ({result.run - len(result.failures)} of {result.run})"
    rows = "".join(
        f"<li>{part.kind}: <code>{html.escape(part.source)}</code><br>should give "
        f"<code>{html.escape(part.want)}</code>, gave <code>{html.escape(part.got)}</code></li>"
        for part in (result.failures if result.status == "wrong" else ())
    )
    hidden = (
        f"<div>Check <b>{html.escape(result.name)}</b> ({result.points:g} points) is graded on hidden inputs: "
        f"{html.escape(', '.join(result.hidden))}.</div>"
        if result.hidden
        else ""
    )
    return (
        f'<div role="status" style="border-left: 4px solid {colour}; padding: 4px 10px; '
        f'color: var(--jp-ui-font-color1, inherit)"><b>{glyph} <code>{html.escape(result.function)}</code>: '
        f"{words}{counted}</b>{'<ul>' + rows + '</ul>' if rows else ''}{hidden}</div>"
    )
