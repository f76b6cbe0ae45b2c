"""The gate for text from outside: what passes can be stored, printed, and put into a table or a page."""

import csv
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

from ftgrade.course import Course
from ftgrade.gradebook.exporters import csv_text
from ftgrade.grading.grader import Grader
from ftgrade.intake.gate import clean, line, safe, storable
from ftgrade.judging.report import from_json
from hypothesis import given
from hypothesis import strategies as st

STEM = "p03_lora_parameters"
ANY_TEXT = st.text(st.characters(exclude_categories=[]))
HandIn = Callable[..., Path]


def is_harmless(text: str) -> bool:
    """Say whether nothing in a text moves a cursor, turns a line's direction or can't be written to a file."""
    text.encode()
    odd = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")}
    turning = {letter for letter in text if unicodedata.bidirectional(letter) in ("LRE", "RLE", "LRO", "RLO", "PDF")}
    isolating = {letter for letter in text if unicodedata.bidirectional(letter) in ("LRI", "RLI", "FSI", "PDI")}
    return odd <= {"\n", "\t"} and not turning and not isolating


@given(ANY_TEXT)
def test_what_passes_the_gate_is_harmless_and_passes_again_unchanged(text: str):
    for gate in (clean, line):
        passed = gate(text)
        assert is_harmless(passed)
        assert gate(passed) == passed


@given(ANY_TEXT)
def test_a_line_is_one_line(text: str):
    assert len(line(text).splitlines()) <= 1


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_passes_as_it_is(text: str):
    assert clean(text, 10**6) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_code_stays_the_code_that_was_handed_in(text: str):
    assert storable(text) == text


@given(ANY_TEXT, st.integers(1, 50))
def test_a_text_is_cut_and_says_so(text: str, limit: int):
    passed = clean(text, limit)
    assert len(passed) <= limit
    assert passed.endswith("…") or len(text.replace("\r\n", "\n")) <= limit


@given(st.lists(ANY_TEXT, min_size=1, max_size=3))
def test_no_cell_of_a_table_is_a_formula_and_every_row_is_whole(cells: list[str]):
    written = csv_text([cells])
    (row,) = csv.reader(io.StringIO(written, newline=""))
    assert len(row) == len(cells)
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) for cell in row)
    assert [safe(cell) for cell in row] == row


def test_names_that_a_student_makes_up_stop_nobody(grader: Grader, hand_in: HandIn):
    """A type whose name holds a lone surrogate and an escape sequence was the end of a class once."""
    name = "x\\ud800\\x1b[2J\\u202e"
    answers = f"Odd = type('{name}', (Exception,), {{}})\nKind = type('{name}', (), {{}})\n"
    answers += "def lora_param_count(*a):\n    raise Odd('{name}')\n".replace("{name}", name)
    answers += "def low_rank_dof(*a):\n    return Kind()\nprint('\\x1b[31m', '\\ud800')\nraise Odd\n"
    hand_in("eve", STEM, answers=answers)
    report = grader.grade("eve", STEM)
    assert report.state == "graded"
    stored = Course(grader.course.root).report_path("eve", STEM).read_text("utf-8")
    assert from_json(stored, grader.course.secret()) == report
    said = [*(check.words for check in report.checks), *(note.printed + note.error for note in report.notes)]
    assert all(is_harmless(text) for text in said)
    assert json.loads(stored)
