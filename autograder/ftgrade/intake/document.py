"""Turn a file's bytes into its JSON document: read what can be read without doubt, and say what else was seen."""

import codecs
import json
import re
from typing import Any

from ftgrade.errors import StudentFault

PADDING = "\0\x1a\ufeff \t\r\n"
"""What may follow a document: zero bytes of a sync, an old end-of-file mark, spaces."""
MAX_REPAIRED = 20 * 2**20  # characters, since a repair looks at every string of a document
MAX_ODD_BYTES = 10_000  # each of them is decoded on its own
MAX_HEAD = 200_000  # characters that are searched for what a file is
UNITS = {"utf-16": 2, "utf-16-le": 2, "utf-16-be": 2, "utf-32": 4, "utf-32-le": 4, "utf-32-be": 4}  # bytes
GAPS = b"\x81\x8d\x8f\x90\x9d"  # of Windows-1252
STRING_OR_LAST_COMMA = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z))|,(?=\s*+[}\]])', re.DOTALL)
CONFLICT = re.compile(r"^[ \t]*+(<{7}|>{7})(?= |$)", re.MULTILINE)
PAGE = re.compile(r"\s*(?:<(?:!--|\?xml).*?>\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
PYTHON = re.compile(r"^(?:def \w+\(|class \w+[(:]|import \w|from [\w.]+ import |# %%)", re.MULTILINE)
UNPACK, TAKE = "Unpack it and take the .ipynb file", "Take the .ipynb file of this problem"
STARTS = (
    (b"PK\x03\x04", "a zip archive or an office document", UNPACK),
    (b"\x1f\x8b", "a compressed archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", UNPACK),
    (b"%PDF", "a PDF, and a printout can't be graded", TAKE),
    (b"{\\rtf", "a word processor's document", TAKE),
    (b"\xd0\xcf\x11\xe0", "a word processor's document", TAKE),
    (b"\x89PNG", "a picture", TAKE),
    (b"\xff\xd8\xff", "a picture", TAKE),
    (b"version https://git-lfs", "a pointer of Git LFS without the notebook's content", "Run `git lfs pull`"),
)
"""How a file begins that is no notebook: what it is, and the student's next step."""


def read_document(data: bytes) -> tuple[Any, list[str]]:
    """Return the JSON document of a file, and in words what was mended to read it. Raises StudentFault: `malformed`."""
    text, repairs = decode_text(data)
    try:
        return json.loads(text), repairs
    except json.JSONDecodeError as error:
        document, mended = parse_repaired(data, text, error)
        return document, [*repairs, *mended]
    except (ValueError, RecursionError):
        raise not_a_notebook("It nests too deep, or holds a number with too many digits") from None


# ------------------------------------------------------------------------------------------------------ bytes to text


def decode_text(data: bytes) -> tuple[str, list[str]]:
    """Return a file's text, and in words if it isn't in UTF-8. Raises StudentFault."""
    if any(data.startswith(start) for start, _, _ in STARTS):
        raise unreadable(data, "", None)
    encoding = json.detect_encoding(data)
    if unit := UNITS.get(encoding):
        try:
            text = data[: len(data) - len(data) % unit].decode(encoding, "surrogatepass")
        except UnicodeDecodeError:
            raise unreadable(data, "", None) from None
        return text, [f"The file is in {encoding[:6].upper()} instead of UTF-8. It was read all the same."]
    try:
        return data.decode(encoding, "surrogatepass"), []
    except UnicodeDecodeError:
        text = decode_western(data.removeprefix(codecs.BOM_UTF8))
    words = "Some characters are in Windows-1252 instead of UTF-8. They were read all the same: check your accents."
    return text, [words]


def decode_western(data: bytes) -> str:
    """Return a text whose bytes that aren't UTF-8 are Windows-1252, or Latin-1 in its gaps. Raises StudentFault.

    >>> decode_western("é €".encode("cp1252")), decode_western("●".encode() + b" \\xe9 \\x81")
    ('é €', '● é \\x81')
    """
    known = data.decode("utf-8", "ignore")
    if known.isascii() and sum(map(data.count, (bytes([gap]) for gap in GAPS))) <= MAX_ODD_BYTES:
        return data.decode("cp1252", "ftgrade.western")
    if len(data) - len(known.encode()) > MAX_ODD_BYTES:
        raise unreadable(data, "", None)
    return data.decode("utf-8", "ftgrade.western")


def western(error: UnicodeError) -> tuple[str, int]:
    """Decode the bytes that aren't in an encoding: Python's interface of an error handler."""
    assert isinstance(error, UnicodeDecodeError)
    odd = error.object[error.start : error.end]
    return "".join(chr(one) if one in GAPS else bytes([one]).decode("cp1252") for one in odd), error.end


codecs.register_error("ftgrade.western", western)


# ------------------------------------------------------------------------------------------------------ text to JSON


def parse_repaired(data: bytes, text: str, error: json.JSONDecodeError) -> tuple[Any, list[str]]:
    """Return the document of a text that isn't quite JSON, and in words what was mended. Raises StudentFault.

    Only faults with one possible meaning are mended: commas before a closing bracket, padding at the end, and an end
    that stands twice, which a shorter file leaves behind when it is written over a longer one.
    """
    tidy = text.removeprefix("\ufeff").strip(" \t\r\n")
    mended: list[str] = []
    if len(tidy) <= MAX_REPAIRED:
        bare = STRING_OR_LAST_COMMA.sub(r"\1", tidy)
        if len(bare) < len(tidy):
            mended.append("Commas before a closing bracket were left out.")
        tidy = bare
    try:
        document, end = json.JSONDecoder().raw_decode(tidy)
    except (ValueError, RecursionError):
        raise unreadable(data, text, error) from None
    rest = tidy[end:].strip(PADDING)
    if not tidy[:end].endswith(rest):
        raise unreadable(data, text, error)
    if end < len(tidy):
        mended.append("What follows the notebook's end was left out.")
    return document, mended


# -------------------------------------------------------------------------------------------------------- what it is


def unreadable(data: bytes, text: str, error: json.JSONDecodeError | None) -> StudentFault:
    """Return the fault of a file that is no notebook: what was seen, and the student's next step."""
    for start, what, step in STARTS:
        if data.startswith(start):
            return not_a_notebook(f"It is {what}", step)
    if not data:
        return not_a_notebook("It is empty: it has no bytes", "Save the notebook in JupyterLab, check the file's size")
    if not data.strip(PADDING.encode()):
        step = "Sync or copy the notebook again from the machine where you wrote it"
        return not_a_notebook("It holds only zero bytes or spaces: a sync or a copy went wrong", step)
    seen = data[:MAX_HEAD].decode("utf-8", "replace").lstrip(PADDING)
    if found := CONFLICT.search(text):
        number = text.count("\n", 0, found.start()) + 1
        step = "Choose one version (`git checkout --ours FILE` or `--theirs`), look at it in JupyterLab"
        return not_a_notebook(f"It holds Git's conflict marks (`{found[1]}` in line {number})", step)
    if PAGE.match(seen):
        step = "Sign in and download the .ipynb file itself, not the page that shows it"
        return not_a_notebook("It is a web page, perhaps one that asks to sign in", step)
    if seen.startswith(("{", "[")):
        return broken_json(text, error)
    if PYTHON.search(seen):
        return not_a_notebook(
            "It is a Python file", "Put your functions into the answer cells of the notebook, save it"
        )
    if "\0" in seen or "\ufffd" in seen:
        return not_a_notebook("Its bytes are neither text nor a notebook", TAKE)
    return not_a_notebook("It is plain text", TAKE)


def broken_json(text: str, error: json.JSONDecodeError | None) -> StudentFault:
    """Return the fault of a file that begins as a notebook does: it breaks off, or something in it is broken."""
    if error is None or "\0" in text.rstrip(PADDING):
        return not_a_notebook("It begins as a notebook, and zero bytes or others that are no text stand in it", AGAIN)
    if error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip(PADDING)):
        return not_a_notebook("It breaks off before its end: saving, copying or downloading was cut short", AGAIN)
    if error.msg == "Extra data":
        return not_a_notebook(f"Something else follows the notebook's end in line {error.lineno}", TIDY)
    return not_a_notebook(f"It is broken in line {error.lineno}: {error.msg}", TIDY)


AGAIN = "Open the notebook where you wrote it, save it, check that it opens again"
TIDY = "Open it in a text editor and mend that line, or go back to an earlier copy that opens in JupyterLab"


def not_a_notebook(seen: str, step: str = TAKE) -> StudentFault:
    """Return the fault of a file that can't be read, in two sentences."""
    return StudentFault(
        "malformed", f"The file is no notebook, since it isn't valid JSON. {seen}. {step}, and hand in again."
    )


__all__ = ["read_document"]
