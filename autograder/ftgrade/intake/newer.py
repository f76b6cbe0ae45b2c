"""Recognise syntax of a newer Python than the grader's, by a cell's text and the error that it gave here."""

import re
import sys

LIMIT = 100_000  # characters
FEATURES = (
    (
        (3, 12), "a `type` statement",
        re.compile(r"^[ \t]*type[ \t]+\w+[ \t]*(?:\[[^\]\n]*\][ \t]*)?=(?!=)", re.MULTILINE),
    ),
    (
        (3, 13), "a default of a type parameter",
        re.compile(r"^[ \t]*(?:(?:async[ \t]+)?def|class|type)[ \t]+\w+[ \t]*\[[^\]\n(]*=[^\]\n(]*\]", re.MULTILINE),
    ),
    (
        (3, 12), "type parameters in brackets after a name",
        re.compile(r"^[ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+\w+[ \t]*\[", re.MULTILINE),
    ),
    (
        (3, 14), "`except` with several classes and no parentheses",
        re.compile(r"^[ \t]*except\*?[ \t]+[\w.]+[ \t]*,", re.MULTILINE),
    ),
    ((3, 14), "a template string (`t\"…\"`)", re.compile(r"(?<![\w\"'])(?:t|tr|rt)[\"']", re.IGNORECASE)),
)  # fmt: skip
"""A feature, the first Python that has it, and what it looks like; what is more special comes first."""
F_STRING = (3, 12), "an f-string with its own quotes, a backslash, a comment or a line break inside braces"
BEFORE = r"(?<![\w\"'])(?:f|rf|fr)([\"'])(?:(?!\1)[^{}\n]|\{[^{}\n\"']*\})*\{"
F_STRINGS = (
    re.compile(BEFORE + r"[^{}\n\"']*\1[^{}\n]*\}", re.IGNORECASE),  # its quotes inside braces
    re.compile(BEFORE + r"(?:(?!\1)[^{}\n\\])*\\[^{}\n]*\}", re.IGNORECASE),  # a backslash
    re.compile(BEFORE + r"(?:(?!\1)[^}\n])*\n(?:(?!\1)[^}])*\}(?:(?!\1)[^\n])*\1", re.IGNORECASE),  # a line break
)


def newer_syntax(
    source: str, message: str, line: int | None = None, here: tuple[int, int] = sys.version_info[:2]
) -> str:
    """Return which syntax of a newer Python may have caused a SyntaxError in a line, in words; empty if none is seen.

    >>> newer_syntax("type Pair = tuple[int, int]", "invalid syntax", 1, (3, 11))
    'it seems to have a `type` statement, which came with Python 3.12. This grader runs Python 3.11.'
    >>> newer_syntax("print(f'{x'", "f-string: expecting '}'", 1, (3, 11))
    ''
    """
    lines = source[:LIMIT].splitlines()
    near = "\n".join(lines if line is None else lines[max(0, line - 1) : line + 2])
    found = [(version, what) for version, what, looks in FEATURES if version > here and looks.search(near)]
    named = message.startswith("f-string expression part cannot include")
    if here < F_STRING[0] and (named or any(one.search(near) for one in F_STRINGS)):
        found.append(F_STRING)
    if not found:
        return ""
    (major, minor), what = found[0]
    came = f"which came with Python {major}.{minor}"
    return f"it seems to have {what}, {came}. This grader runs Python {here[0]}.{here[1]}."


__all__ = ["newer_syntax"]
