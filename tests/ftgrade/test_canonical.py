"""What instructor and student are shown: the released cells, once each, with the student's text in the answers."""

import json

from ftgrade.gradebook.cells import ReleasedCell, canonical_cells
from ftgrade.intake.notebook import parse_submission
from hypothesis import given
from hypothesis import strategies as st

RELEASED = [
    ReleasedCell("text-1", "markdown", "the statement", grade=False, solution=False, locked=True, points=None),
    ReleasedCell("double", "code", "def double(x): ...", grade=False, solution=True, locked=False, points=None),
    ReleasedCell("value", "code", "check(double)", grade=True, solution=False, locked=True, points=2.0),
]  # fmt: skip


def cell(source: str, grade_id: str | None = None, kind: str = "code", **extra: object) -> dict:
    metadata: dict = {"tags": ["skip-execution"]}
    if grade_id:
        metadata["nbgrader"] = {"grade_id": grade_id, "grade": True, "points": 99, "locked": False, "solution": True}
    return {"cell_type": kind, "metadata": metadata, "source": source, **extra}


def submitted(*cells: dict) -> bytes:
    return json.dumps({"nbformat": 4, "cells": list(cells)}).encode()


def sources(data: bytes) -> list[str]:
    return [cell["source"] for cell in canonical_cells(parse_submission(data).cells, RELEASED)]


def test_an_answer_is_the_students_and_a_locked_cell_is_ours():
    data = submitted(cell("hacked", "text-1", "markdown"), cell("mine", "double"), cell("2.0", "value"))
    assert sources(data) == ["the statement", "mine", "check(double)"]


def test_the_last_of_two_answers_stands_and_the_first_is_kept_as_a_free_cell():
    assert sources(submitted(cell("first", "double"), cell("second", "double"))) == [
        "first", "the statement", "second", "check(double)",
    ]  # fmt: skip


def test_missing_cells_come_back_and_a_missing_answer_as_the_stub():
    assert sources(submitted()) == [known.source for known in RELEASED]
    assert [part["source"] for part in canonical_cells((), RELEASED)] == [known.source for known in RELEASED]


def test_free_cells_follow_the_cell_that_they_followed():
    data = submitted(cell("before"), cell("mine", "double"), cell("helper"), cell("x", "value"), cell("after"))
    assert sources(data) == ["before", "the statement", "mine", "helper", "check(double)", "after"]


def test_free_markdown_is_shown_as_text_whatever_fences_it_holds():
    (text,) = canonical_cells(parse_submission(submitted(cell("````\n<b>", kind="markdown"))).cells, [])
    assert text["source"] == "`````text\n````\n<b>\n`````"


def test_flags_points_tags_and_outputs_are_the_releases():
    data = submitted(cell("2.0", "value", outputs=[{"output_type": "execute_result"}]))
    graded = next(
        part for part in canonical_cells(parse_submission(data).cells, RELEASED) if part["source"] == "check(double)"
    )
    assert graded["metadata"] == {
        "nbgrader": {
            "grade_id": "value", "schema_version": 3, "grade": True, "solution": False, "locked": True, "task": False,
            "points": 2.0,
        }
    }  # fmt: skip
    assert graded["outputs"] == []


ids = st.sampled_from([None, "text-1", "double", "value", "unknown"])
cells = st.builds(cell, st.text(max_size=20), ids, st.sampled_from(["code", "markdown", "raw"]))


@given(st.lists(cells, max_size=12))
def test_every_released_cell_stands_once_in_order_whatever_is_handed_in(handed_in: list[dict]):
    made = canonical_cells(parse_submission(submitted(*handed_in)).cells, RELEASED)
    marks = [part["metadata"]["nbgrader"]["grade_id"] for part in made if "nbgrader" in part["metadata"]]
    assert marks == ["text-1", "double", "value"]
    assert len({part["id"] for part in made}) == len(made)
