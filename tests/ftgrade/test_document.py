"""A file is read if it can mean only one thing; otherwise its student is told what was seen, and the next step."""

import json
import tracemalloc

import pytest
from ftgrade.errors import StudentFault
from ftgrade.intake import document
from ftgrade.intake.notebook import MAX_FILE_BYTES, parse_submission
from hypothesis import given
from hypothesis import strategies as st

SOURCE = "print('é ● \"x\", ]')"
NOTEBOOK = {
    "cells": [{"cell_type": "code", "metadata": {}, "outputs": [], "source": [SOURCE]}],
    "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip
TEXT = json.dumps(NOTEBOOK, ensure_ascii=False, indent=1) + "\n"
PLAIN = TEXT.encode()


def read(data: bytes) -> tuple[list[str], list[str]]:
    """Return the sources of a file's cells and the words of what was mended."""
    found = parse_submission(data)
    return [cell.source for cell in found.cells], [str(one.words) for one in found.findings if one.kind == "repaired"]


def refusal(data: bytes) -> str:
    with pytest.raises(StudentFault) as caught:
        parse_submission(data)
    assert caught.value.kind == "malformed"
    assert caught.value.words.endswith("hand in again.")
    return caught.value.words


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_wide_encodings_are_read_in_both_orders_with_and_without_a_mark(encoding: str, mark: str):
    sources, told = read((mark + TEXT).encode(encoding))
    assert sources == [SOURCE]
    assert encoding[:6].upper() in told[0]


def test_a_mark_of_utf_8_is_nothing_to_tell():
    assert read(b"\xef\xbb\xbf" + PLAIN) == ([SOURCE], [])


def test_western_bytes_are_read_and_told():
    sources, told = read(TEXT.replace("●", "€").encode("cp1252"))
    assert sources == [SOURCE.replace("●", "€")]
    assert "Windows-1252" in told[0]


def test_a_few_western_bytes_leave_the_rest_in_utf_8():
    sources, told = read(PLAIN.replace("é".encode(), b"\xe9"))
    assert sources == [SOURCE]
    assert len(told) == 1


@pytest.mark.parametrize("end", [b"\0" * 512, b"\x1a", b"\n\0\n", b"\n}\n", b'_minor": 5\n}\n', PLAIN])
def test_padding_and_an_end_that_stands_twice_are_left_out(end: bytes):
    sources, told = read(PLAIN + end)
    assert sources == [SOURCE]
    assert told == ["What follows the notebook's end was left out."]


def test_padding_of_a_wide_encoding_is_left_out_too():
    assert read(TEXT.encode("utf-16-le") + b"\0" * 7)[0] == [SOURCE]


@pytest.mark.parametrize("end", [b"and more", b"{}", b"[1]", PLAIN.replace(b"print", b"other")])
def test_another_document_after_the_first_is_a_doubt_and_refused(end: bytes):
    assert "follows the notebook's end" in refusal(PLAIN + end)


def test_numbers_that_only_python_writes_are_read():
    for word in ("NaN", "Infinity", "-Infinity"):
        assert read(PLAIN.replace(b'"metadata": {}', f'"metadata": {{"loss": {word}}}'.encode()))[0] == [SOURCE]


def test_commas_before_a_closing_bracket_are_left_out_and_none_of_a_text():
    broken = TEXT.replace('"nbformat_minor": 5', '"nbformat_minor": 5 ,').replace("\n  }\n ],", "\n  },\n ],")
    assert broken.count(",") == TEXT.count(",") + 2
    sources, told = read(broken.encode())
    assert sources == [SOURCE]
    assert told == ["Commas before a closing bracket were left out."]


@given(st.recursive(st.text('",]}[{\\ a'), lambda inner: st.lists(inner) | st.dictionaries(st.text('",]}\\'), inner)))
def test_mending_commas_changes_no_document_that_has_none(content: object):
    text = json.dumps(content)
    assert document.STRING_OR_LAST_COMMA.sub(r"\1", text) == text


def merge_conflict() -> bytes:
    return PLAIN.replace(b' "nbformat": 4', b'<<<<<<< HEAD\n "nbformat": 4,\n=======\n "nbformat": 4')


@pytest.mark.parametrize(
    ("data", "seen", "step"),
    [
        (b"", "empty", "check the file's size"),
        (b" \n\n", "only zero bytes or spaces", "machine where you wrote it"),
        (b"\0" * 4096, "only zero bytes or spaces", "machine where you wrote it"),
        (merge_conflict(), "conflict marks (`<<<<<<<` in line", "Choose one version"),
        (b"\n<!DOCTYPE HTML>\n<title>Log in</title>", "web page", "Sign in and download"),
        (b"<!-- x -->\n<html lang='en'>", "web page", "Sign in and download"),
        (b"<?xml version='1.0'?>\n<html lang='en'>", "web page", "Sign in and download"),
        (b"# %%\nimport torch\n\ndef f(x):\n    return x\n", "Python file", "answer cells"),
        (b"PK\x03\x04" + b"\0" * 50, "zip archive", "Unpack it"),
        (b"%PDF-1.7\n\xe2\xe3", "a PDF", "Take the .ipynb file"),
        (b"\x89PNG\r\n\x1a\n", "a picture", "Take the .ipynb file"),
        (b"{\\rtf1\\ansi {}}", "word processor", "Take the .ipynb file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"),
        (b"My laptop broke, the answer is 16", "plain text", "Take the .ipynb file"),
        (b"\x00\x01\x02\xff" * 9, "neither text nor a notebook", "Take the .ipynb file"),
        (PLAIN[:-40], "breaks off", "save it, check that it opens again"),
        (PLAIN[:60] + b"\0" * 512, "breaks off", "save it, check that it opens again"),
        (PLAIN[:60] + b"\0" * 64 + PLAIN[124:], "zero bytes", "save it, check that it opens again"),
        (PLAIN.replace(b'"nbformat": 4', b'"nbformat" 4'), "broken in line", "mend that line"),
    ],
    ids=[
        "empty", "spaces", "zeros", "conflict", "page", "page with a comment", "XHTML", "Python", "zip", "PDF",
        "picture", "RTF", "LFS", "text", "bytes", "cut", "cut and padded", "hole", "broken",
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_named_with_a_next_step(data: bytes, seen: str, step: str):
    words = refusal(data)
    assert seen in words
    assert step in words


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 3_000_000, b"{" + b'"",' * 2_000_000, b"\xff" * 10**6, "é".encode() + b"\xff" * 10**6,
        b"[" * 10**6,
    ],
    ids=["a text that never ends", "short texts", "western", "mixed", "brackets"],
)  # fmt: skip
def test_looking_at_what_is_broken_comes_to_an_end(data: bytes):
    """Time that grew with the square of the size would take hours here."""
    refusal(data)


def test_mending_is_bounded_for_large_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(document, "MAX_REPAIRED", 100)
    assert read(PLAIN + b"\0" * 9)[0] == [SOURCE], "padding needs no look at each string"
    assert "is broken in line" in refusal(TEXT.replace('"nbformat_minor": 5', '"nbformat_minor": 5,').encode())


def test_a_broken_file_at_the_limit_takes_a_few_times_its_size():
    data = b'{"cells": ["' + b"x" * (MAX_FILE_BYTES // 4)
    tracemalloc.start()
    try:
        refusal(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(data)
