"""Given cells run as released, and an answer counts wherever it stands, unless it's unclear which is meant."""

import json
from typing import Any

import pytest
from ftgrade.catalog import home
from ftgrade.gradebook.cells import canonical_cells
from ftgrade.intake.notebook import Cell, parse_submission
from ftgrade.intake.placing import ReleasedCell, cells_to_run, place_cells, released_of
from hypothesis import given
from hypothesis import strategies as st

IMPORTS = "import math\n\nimport torch\n\nfrom ftmath import check"
STUB = 'def {}(x):\n    """Return it."""\n    # YOUR CODE HERE\n    raise NotImplementedError()'
HEADING = "## In words"
WORDS = "The masks cost least, and a step of training costs most."


def released(name: str, kind: str, source: str, *, grade: bool = False, solution: bool = False) -> ReleasedCell:
    return ReleasedCell(name, kind, source, grade, solution, locked=not solution, points=1.0 if grade else None)


RELEASED = [
    released("text-1", "markdown", "# The statement"),
    released("given-1", "code", IMPORTS),
    released("given-2", "code", "A = torch.zeros(2)\nprint(A)"),
    released("double", "code", STUB.format("double"), solution=True),
    released("value", "code", 'check(double, "value", points=1)', grade=True),
    released("half", "code", STUB.format("half"), solution=True),
    released("halves", "code", 'check(half, "halves", points=1)', grade=True),
    released("text-2", "markdown", HEADING),
    released("order", "markdown", "*Your words here.*", grade=True, solution=True),
]
DOUBLE = "def double(x):\n    return 2 * x"
HALF = "def half(x):\n    return x / 2"
BOTH = f"{DOUBLE}\n\n\n{HALF}"
Part = tuple[str | None, str, str]
"""A cell's id, type and text."""


def handed_in(changes: dict[str, Part | None] | None = None, *more: Part, marked: bool = True) -> list[Part]:
    """Return the released notebook with both functions written, with changes by id, and with more cells at the end."""
    answers: dict[str, Part | None] = {"double": ("double", "code", DOUBLE), "half": ("half", "code", HALF)}
    parts: list[Part] = []
    for cell in RELEASED:
        part = (answers | (changes or {})).get(cell.grade_id, (cell.grade_id, cell.kind, cell.source))
        if part is not None:
            parts.append(part if marked else (None, *part[1:]))
    return [*parts, *more]


def read(parts: list[Part]) -> tuple[Cell, ...]:
    cells = [
        {"cell_type": kind, "metadata": {"nbgrader": {"grade_id": name}} if name else {}, "source": source}
        for name, kind, source in parts
    ]
    return parse_submission(json.dumps({"nbformat": 4, "cells": cells}).encode()).cells


def placed(parts: list[Part]) -> tuple[list[Cell], dict[str, str]]:
    """Return the placed cells, and the words of the findings by their kinds."""
    cells, told = place_cells(read(parts), RELEASED)
    return cells, {finding.kind: str(finding.words) for finding in told}


def run(parts: list[Part]) -> dict[str, Any]:
    """Return what the cells that are run define."""
    namespace: dict[str, Any] = {}
    for cell in cells_to_run(placed(parts)[0], RELEASED):
        try:
            exec(cell.source.replace("from ftmath import check", "check = print"), namespace)
        except Exception as error:
            namespace.setdefault("errors", []).append((cell.number, type(error).__name__))
    return namespace


def shown(parts: list[Part]) -> dict[str, str]:
    """Return what a page shows in the released cells, by id."""
    cells = canonical_cells(placed(parts)[0], RELEASED)
    return {
        cell["metadata"]["nbgrader"]["grade_id"]: cell["source"] for cell in cells if "nbgrader" in cell["metadata"]
    }


def works(namespace: dict[str, Any]) -> bool:
    return "double" in namespace and namespace["double"](4) == 8 and namespace["half"](4) == 2


def test_a_notebook_as_it_was_released_is_left_alone_and_untold():
    for parts in (handed_in(), handed_in({"double": None, "half": None}), handed_in(marked=True)):
        cells, told = placed(parts)
        assert told == {}
        assert [cell.number for cell in cells if cell.number < 0] == []


# -------------------------------------------------------------------------------------------------------- given cells


@pytest.mark.parametrize(
    "atop", ["from google.colab import drive\ndrive.mount('x')", "import no_such_package", "1 / 0", "import ("]
)
def test_a_given_cell_that_was_changed_runs_as_released_first_and_then_as_it_is(atop: str):
    parts = handed_in({"given-1": ("given-1", "code", f"{atop}\n{IMPORTS}")})
    namespace = run(parts)
    assert works(namespace)
    assert namespace["errors"][0][0] == 2, "the changed version ran and failed, under its own number"
    assert placed(parts)[1].keys() == {"given-changed"}
    assert "Cell 2" in placed(parts)[1]["given-changed"]
    both = [cell["source"] for cell in canonical_cells(placed(parts)[0], RELEASED)]
    assert both[1:3] == [IMPORTS, f"{atop}\n{IMPORTS}"], "the page shows both"


def test_what_a_student_added_to_a_given_cell_is_there():
    parts = handed_in({"given-1": ("given-1", "code", f"{IMPORTS}\nscale = 3")})
    assert run(parts)["scale"] == 3


@pytest.mark.parametrize("change", ["\r\n".join(IMPORTS.split("\n")), IMPORTS + "\n\n", IMPORTS.replace("\n", "  \n")])
def test_ends_of_lines_are_no_change(change: str):
    assert placed(handed_in({"given-1": ("given-1", "code", change)}))[1] == {}


@pytest.mark.parametrize("missing", [["given-1"], ["given-1", "given-2"], ["text-1", "given-1"]])
def test_a_deleted_given_cell_is_put_back_in_its_place(missing: list[str]):
    parts = handed_in(dict.fromkeys(missing))
    cells, told = placed(parts)
    assert works(run(parts))
    assert "given-missing" in told
    order = [cell.grade_id for cell in cells if cell.kind == "code"]
    assert order[:3] == ["given-1", "given-2", "double"]


def test_a_given_cell_that_became_text_runs_all_the_same():
    for kind in ("markdown", "raw"):
        parts = handed_in({"given-1": ("given-1", kind, IMPORTS)})
        assert works(run(parts))
        assert kind in placed(parts)[1]["given-changed"]


def test_given_cells_are_put_before_answers_in_a_notebook_of_ones_own():
    parts: list[Part] = [(None, "code", BOTH)]
    assert works(run(parts))
    assert [cell.grade_id for cell in placed(parts)[0]][:2] == ["given-1", "given-2"]


def test_a_notebook_without_marks_is_matched_by_its_texts():
    parts = handed_in(marked=False)
    cells, told = placed(parts)
    assert works(run(parts))
    assert told.keys() == {"answer-found"}
    assert [cell.grade_id for cell in cells][:8] == [cell.grade_id for cell in RELEASED][:8]
    assert shown(parts)["double"] == DOUBLE


def test_an_unmarked_given_cell_that_was_changed_is_recognised_by_its_lines():
    parts = handed_in({"given-1": ("given-1", "code", f"import no_such_package\n{IMPORTS}")}, marked=False)
    assert works(run(parts))
    assert "Cell 2" in placed(parts)[1]["given-changed"]


def test_code_in_a_checks_cell_runs_and_a_checks_call_does_not():
    parts = handed_in({"value": ("value", "code", f"{DOUBLE}\ncheck(double)"), "double": None})
    assert works(run(parts))
    called = handed_in({"value": ("value", "code", "check(double, points=99)")})
    assert "check(double, points=99)" not in [cell.source for cell in cells_to_run(placed(called)[0], RELEASED)]


# ----------------------------------------------------------------------------------------------------- answers as code


@pytest.mark.parametrize("place", ["first", "last", "in one answer's cell"])
def test_all_answers_in_one_cell_survive_untouched_stubs(place: str):
    stubs: dict[str, Part | None] = {name: (name, "code", STUB.format(name)) for name in ("double", "half")}
    parts = handed_in(stubs)
    if place == "first":
        parts.insert(3, (None, "code", BOTH))
    elif place == "last":
        parts.append((None, "code", BOTH))
    else:
        parts = handed_in(stubs | {"double": ("double", "code", BOTH)})
    number = next(number for number, part in enumerate(parts, 1) if part[2] == BOTH)
    assert works(run(parts))
    assert f"half in cell {number}" in placed(parts)[1]["answer-found"].replace("double and ", "")
    assert shown(parts)["half"] == f"# half is written in cell {number}."


def test_a_copied_section_with_its_stub_replaces_nothing():
    parts = handed_in({}, ("double", "code", STUB.format("double")), ("value", "code", RELEASED[4].source))
    assert works(run(parts))
    assert placed(parts)[1].keys() == {"stub-left-out", "duplicate-cells"}
    assert "double in cell 10" in placed(parts)[1]["stub-left-out"]
    assert shown(parts)["double"] == DOUBLE


def test_a_stub_beside_other_code_is_taken_out_alone_and_lines_keep_their_numbers():
    mixed = f"y = 3\n{STUB.format('double')}\nz = 1 / 0"
    parts = handed_in({}, (None, "code", mixed))
    namespace = run(parts)
    assert works(namespace)
    assert namespace["y"] == 3
    (last,) = (cell for cell in placed(parts)[0] if cell.number == 10)
    assert last.source.splitlines()[5] == "z = 1 / 0"


def test_a_stub_below_the_function_in_its_own_cell_is_taken_out():
    parts = handed_in({"double": ("double", "code", f"{DOUBLE}\n\n{STUB.format('double')}")})
    assert works(run(parts))
    assert shown(parts)["double"].startswith(DOUBLE)


def test_an_answer_in_an_unmarked_cell_is_shown_as_that_answer():
    parts = handed_in({"double": (None, "code", DOUBLE)})
    assert works(run(parts))
    assert shown(parts)["double"] == DOUBLE
    parts = handed_in({"double": ("double", "code", STUB.format("double"))}, (None, "code", DOUBLE))
    assert works(run(parts))
    assert shown(parts)["double"] == DOUBLE


@pytest.mark.parametrize("name", ["double", None])
@pytest.mark.parametrize("text", [DOUBLE, f"```python\n{DOUBLE}\n```"])
def test_an_answer_in_a_raw_cell_runs_and_is_told(name: str | None, text: str):
    parts = handed_in({"double": (name, "raw", text)})
    assert works(run(parts))
    assert "ran as code" in placed(parts)[1]["answer-not-code"]


def test_an_answer_in_a_text_cell_does_not_run_and_is_told_with_a_next_step():
    parts = handed_in({"double": ("double", "markdown", DOUBLE)})
    assert "double" not in run(parts)
    assert "Cell 4 is a text cell, so double in it did not run." in placed(parts)[1]["answer-not-code"]


def test_text_that_sketches_an_answer_is_not_run():
    parts = handed_in({"double": ("double", "code", STUB.format("double"))}, (None, "markdown", f"```\n{DOUBLE}\n```"))
    with pytest.raises(NotImplementedError):
        run(parts)["double"](4)


@pytest.mark.parametrize(
    "written",
    [
        "double = lambda x: 2 * x",
        "if True:\n    def double(x):\n        return 2 * x",
        "double, other = (lambda x: 2 * x), 1",
    ],
)
def test_a_function_may_be_written_in_any_way(written: str):
    parts = handed_in({"half": ("half", "code", HALF)}, ("double", "code", STUB.format("double")))
    parts[3] = ("double", "code", written)
    assert works(run(parts))


def test_a_written_function_is_never_taken_for_a_stub():
    for body in ("pass", "return None", "x += 1\n    raise NotImplementedError", "raise ValueError"):
        parts = handed_in({}, ("double", "code", f"def double(x):\n    {body}"))
        assert "stub-left-out" not in placed(parts)[1]
        assert "duplicate-cells" in placed(parts)[1]


def test_a_cell_of_another_language_defines_nothing():
    parts = handed_in({"double": ("double", "code", f"%%writefile double.py\n{DOUBLE}")}, (None, "code", DOUBLE))
    assert "cell 10" in placed(parts)[1]["answer-found"]


def test_a_cell_that_is_no_python_still_counts_as_the_place_of_its_function():
    parts = handed_in({"double": ("double", "code", f"{DOUBLE}\nprint(")}, ("double", "code", STUB.format("double")))
    assert "stub-left-out" in placed(parts)[1]
    assert "double" not in run(parts)


# ---------------------------------------------------------------------------------------------------- answers in words


def test_words_in_their_own_cell_are_nothing_to_tell():
    parts = handed_in({"order": ("order", "markdown", WORDS)})
    assert placed(parts)[1] == {}
    assert WORDS in shown(parts)["order"]


@pytest.mark.parametrize("text", ["*Your words here.*", "*Your words here.*\n", "YOUR ANSWER HERE", "", "  \n"])
def test_silence_stays_silence(text: str):
    parts = handed_in({"order": ("order", "markdown", text)})
    assert placed(parts)[1] == {}
    assert shown(parts)["order"] == "*Your words here.*"


@pytest.mark.parametrize("name", ["order", None])
@pytest.mark.parametrize("kind", ["markdown", "raw", "code"])
def test_words_are_found_whatever_became_of_their_cell(name: str | None, kind: str):
    parts = handed_in({"order": (name, kind, WORDS)})
    cells, told = placed(parts)
    assert WORDS in shown(parts)["order"]
    assert ("words-found" in told) == ((name, kind) != ("order", "markdown"))
    assert WORDS not in [cell.source for cell in cells_to_run(cells, RELEASED)]


def test_code_in_the_cell_of_an_answer_in_words_runs():
    parts = handed_in({"double": None, "half": None, "order": ("order", "code", BOTH)})
    assert works(run(parts))
    assert shown(parts)["order"] == "*Your words here.*"


@pytest.mark.parametrize("text", [f"# {WORDS}", f'"""{WORDS}"""'])
def test_words_in_a_comment_or_a_text_of_code_are_found(text: str):
    parts = handed_in({"order": (None, "code", text)})
    assert WORDS in shown(parts)["order"]


def test_words_under_their_heading_are_found():
    parts = handed_in({"text-2": ("text-2", "markdown", f"{HEADING}\n\n{WORDS}"), "order": None})
    assert WORDS in shown(parts)["order"]
    assert placed(parts)[1].keys() == {"words-found"}


@pytest.mark.parametrize("place", [0, 4, 9])
@pytest.mark.parametrize("own", [None, ("order", "markdown", "*Your words here.*")])
def test_words_in_another_place_go_to_a_person(place: int, own: Part | None):
    parts = handed_in({"order": own})
    parts.insert(place, (None, "markdown", WORDS))
    assert WORDS in shown(parts)["order"]
    assert placed(parts)[1].keys() <= {"words-found", "words-unclear"}
    assert placed(parts)[1]


def test_words_in_several_cells_go_to_a_person_together():
    parts = handed_in({"order": ("order", "markdown", WORDS)}, ("order", "markdown", "No: the other way round."))
    assert WORDS in shown(parts)["order"]
    assert "the other way round" in shown(parts)["order"]
    assert "cells 9 and 10" in placed(parts)[1]["words-found"]


def test_an_untouched_copy_of_the_cell_after_the_words_replaces_nothing():
    parts = handed_in({"order": ("order", "markdown", WORDS)}, ("order", "markdown", "*Your words here.*"))
    assert WORDS in shown(parts)["order"]
    assert placed(parts)[1].keys() == {"duplicate-cells"}


@pytest.mark.parametrize(
    "code", ["print(double(3), half(4))", "x = [1, 2]\nx.append(3)", "!pip install a b c d", "for x in y"]
)
def test_code_of_ones_own_is_no_answer_in_words(code: str):
    parts = handed_in({"order": None}, (None, "code", code))
    assert placed(parts)[1] == {}
    assert code in [cell.source for cell in cells_to_run(placed(parts)[0], RELEASED)]


# ------------------------------------------------------------------------------------------------------------ all of it

ids = st.sampled_from([None, "unknown", *(cell.grade_id for cell in RELEASED)])
texts = st.sampled_from(
    [*(cell.source for cell in RELEASED), DOUBLE, BOTH, WORDS, IMPORTS + "\nx = 1", "def double(", ""]
)
parts_of_any_kind = st.lists(
    st.tuples(ids, st.sampled_from(["code", "markdown", "raw"]), texts | st.text(max_size=30)), max_size=9
)


@given(parts_of_any_kind)
def test_whatever_is_handed_in_each_released_cell_stands_once_and_given_cells_run(parts: list[Part]):
    cells, _ = placed(parts)
    ran = [cell.source for cell in cells_to_run(cells, RELEASED)]
    assert all(any(cell.source.split() == text.split() for text in ran) for cell in RELEASED if cell.is_given)
    marks = [part["metadata"].get("nbgrader") for part in canonical_cells(cells, RELEASED)]
    assert [mark["grade_id"] for mark in marks if mark] == [cell.grade_id for cell in RELEASED]


@given(parts_of_any_kind)
def test_words_are_never_lost(parts: list[Part]):
    words = "seven words that nobody would have released"
    parts = [*parts, (None, "markdown", words)]
    assert words in shown(parts)["order"] or any(name == "order" for name, _, _ in parts)


@given(parts_of_any_kind)
def test_without_released_cells_nothing_changes(parts: list[Part]):
    cells, _ = place_cells(read(parts), [])
    assert cells == list(read(parts))


@pytest.mark.parametrize("stem", home().stems())
def test_every_built_notebook_has_all_of_its_cells_in_place(stem: str):
    asked = released_of(home().built_cells(stem))
    built = parse_submission(home().leaves(stem).notebook.read_bytes()).cells
    cells, told = place_cells(built, asked)
    assert told == []
    assert {cell.grade_id for cell in cells} >= {cell.grade_id for cell in asked if not cell.is_words}
