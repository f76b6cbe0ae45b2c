"""Read a notebook's cell as Python, by IPython's own rules, for what looks at code without running it."""

import ast
import functools
import re
import warnings
from typing import Any

BODY_IS_PYTHON = ("time", "capture", "prun")
"""The cell magics that run the cell below them and leave its names."""
CELL_MAGIC = re.compile(r"\s*%%(\w*)[^\n]*")
TIMED = re.compile(r"^([ \t]*)%time[ \t]+(?=\w)", re.MULTILINE)
CALL = re.compile(r"^([ \t]*)get_ipython\(\)\.\w+\(.*$", re.MULTILINE)
MARKED = re.compile(r"^[ \t]*[%!?].*$", re.MULTILINE)
MAY_BE_MARKED = re.compile(r"^.*[%!?]", re.MULTILINE)
MAX_WORK = 100_000
"""The limit of characters times lines that may hold a magic: IPython reads the whole cell anew for each of them."""


def parse_cell(source: str) -> list[ast.stmt] | None:
    """Return a cell's statements; None where it is no Python. Parsing runs nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a student's stray backslash is no warning of ours
            return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def as_python(source: str) -> str:
    """Return a cell as Python with the same lines; a magic that sets no name becomes an empty line.

    A cell that is Python as it stands is returned unchanged, and so is one that IPython can't read either.

    >>> as_python("%matplotlib inline\\nfiles = !ls\\n%time a = 1")
    "\\nfiles = get_ipython().getoutput('ls')\\na = 1"
    >>> as_python("%%time\\na = 1"), as_python("%%bash\\nls"), as_python("a = (5\\n% 3)")
    ('\\na = 1', '\\n', 'a = (5\\n% 3)')
    >>> as_python("In [1]: a = 1")  # which Python takes for an annotation
    'a = 1'
    """
    if parse_cell(source) is not None and not source.lstrip().startswith("In ["):
        return source
    if found := CELL_MAGIC.match(source):
        body = source[found.end() :]
        above = "\n" * found[0].count("\n")
        return above + (as_python(body) if found[1] in BODY_IS_PYTHON else "\n" * body.count("\n"))
    text = TIMED.sub(r"\1", source)
    if len(text) * len(MAY_BE_MARKED.findall(text)) > MAX_WORK:
        return MARKED.sub("", text)
    blank = len(text) - len(text.lstrip("\n"))
    try:
        made = "\n" * blank + transformer().transform_cell(text[blank:])
    except (SyntaxError, ValueError, RuntimeError, RecursionError, MemoryError):
        return source
    return CALL.sub(lambda call: f"{call[1]}pass" if call[1] else "", made).removesuffix(
        "" if source.endswith("\n") else "\n"
    )


@functools.cache
def transformer() -> Any:
    """Return IPython's reader of magics, imported at first use: it takes half a second, and most cells need none."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager()


__all__ = ["as_python", "parse_cell"]
