"""The one gate for text from outside: behind it a text can be stored, printed, put into a table or a page.

What a student writes reaches terminals, spreadsheets, pages and file names. A lone surrogate stops a file from being
written, a control character moves a cursor or a column, a mark for right-to-left text makes a line read as another.
Records that are shown hold `Clean` text, which only this gate makes.
"""

import re
from typing import NewType

Clean = NewType("Clean", str)
"""Text without lone surrogates, control characters (but line breaks and tabs) and marks that turn its direction."""

MAX_FILE_BYTES = 100 * 2**20  # of a notebook
MAX_WORDS = 2_000  # characters
CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # marks of direction, separators of lines
    "\ufeff\ud800-\udfff]"  # a mark of byte order, lone surrogates
)
# Where a cell starts, also for a reader that separates at other characters than we do (a German Excel at semicolons).
# The full-width signs are formulas to an Excel with an East Asian locale.
FORMULA = re.compile(r"(^|[,;\t\r\n])(?=[\s\"\ufeff]*[=+\-@＝＋－＠])|^(?=[\t\r\n])")
NOTHING = Clean("")


def clean(text: object, limit: int = MAX_WORDS) -> Clean:
    """Return a text that is safe to show, at most so long.

    A control character becomes its picture, and what else has no business in a line becomes a question mark.

    >>> clean("a\\x1b[31m\\u202eb\\ud800"), clean("long words", 6)
    ('a␛[31m�b�', 'long …')
    """
    words = str(text).replace("\r\n", "\n")
    if len(words) > limit:
        words = words[: limit - 1] + "…"
    return Clean(ODD.sub("\ufffd", words.translate(CONTROLS)))


def line(text: object, limit: int = MAX_WORDS) -> Clean:
    """Return a text that is safe to show on one line.

    >>> line("two\\nlines")
    'two␊lines'
    """
    return Clean(clean(text, limit).replace("\n", "␊").replace("\t", " "))


def storable(text: str) -> str:
    """Return a text that a file can take, otherwise as it is: code must stay the code that was handed in.

    >>> storable("x = '\\ud800'")
    "x = '?'"
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def safe(text: str) -> str:
    """Return text that no spreadsheet runs as a formula.

    >>> safe("=cmd|' /C calc'!A0"), safe("x; =1+1"), safe("Ada-Marie"), safe("@home")
    ("'=cmd|' /C calc'!A0", "x;' =1+1", 'Ada-Marie', "'@home")
    """
    return FORMULA.sub(r"\1'", text)


__all__ = ["MAX_FILE_BYTES", "NOTHING", "Clean", "clean", "line", "safe", "storable"]
