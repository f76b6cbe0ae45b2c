"""Clean text from outside, so that it can be stored, printed, and put into a table or a page.

A student's text reaches terminals, spreadsheets, pages and file names. A lone surrogate makes writing a file fail, a
control character moves the cursor, and a right-to-left mark changes how a line reads. Records that are shown hold
`Clean` text, which only this module makes.
"""

import re
from typing import NewType

Clean = NewType("Clean", str)
"""Text without lone surrogates, control characters (except line breaks and tabs) and marks of direction."""

MAX_FILE_BYTES = 100 * 2**20  # of a notebook
MAX_WORDS = 2_000  # characters
CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # marks of direction, line separators
    "\ufeff\ud800-\udfff]"  # byte order mark, lone surrogates
)
# A formula sign at the start of a spreadsheet cell, whatever separates cells (a German Excel splits at semicolons).
# Excel with an East Asian locale takes the full-width signs too.
FORMULA = re.compile(r"(^|[,;\t\r\n])(?=[\s\"\ufeff]*[=+\-@＝＋－＠])|^(?=[\t\r\n])")
NOTHING = Clean("")


def clean(text: object, limit: int = MAX_WORDS) -> Clean:
    """Return a text that is safe to show, cut to `limit` characters.

    A control character becomes its visible symbol. Other unsafe characters become U+FFFD.

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
    """Return a text that can be encoded in UTF-8; nothing else changes, since code must stay as it was handed in.

    >>> storable("x = '\\ud800'")
    "x = '?'"
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def safe(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula.

    >>> safe("=cmd|' /C calc'!A0"), safe("x; =1+1"), safe("Ada-Marie"), safe("@home")
    ("'=cmd|' /C calc'!A0", "x;' =1+1", 'Ada-Marie', "'@home")
    """
    return FORMULA.sub(r"\1'", text)


__all__ = ["MAX_FILE_BYTES", "NOTHING", "Clean", "clean", "line", "safe", "storable"]
