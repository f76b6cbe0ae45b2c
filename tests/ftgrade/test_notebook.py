"""Untrusted bytes to answer source: whatever was handed in, it is read within bounds or refused with words."""

import contextlib
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from ftgrade.errors import StudentFault
from ftgrade.intake import notebook
from ftgrade.intake.notebook import Submission, parse_submission, read_handed_in, read_submission
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Document = dict[str, Any]
# A busy machine is no counterexample.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def cell(source: Any = "x = 1", kind: Any = "code", grade_id: str | None = None, **more: Any) -> Document:
    metadata = {"nbgrader": {"grade_id": grade_id}} if grade_id is not None else {}
    return {"cell_type": kind, "metadata": metadata, "source": source, **more}


def document(*cells: Any) -> Document:
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)}


def submission(*cells: Any) -> Submission:
    return parse_submission(json.dumps(document(*cells)).encode())


def sources(found: Submission) -> list[str]:
    return [cell.source for cell in found.cells]


def kinds(found: Submission) -> list[str]:
    return [finding.kind for finding in found.findings]


def refusal(data: bytes) -> StudentFault:
    with pytest.raises(StudentFault) as caught:
        parse_submission(data)
    return caught.value


def file_refusal(path: Path) -> StudentFault:
    with pytest.raises(StudentFault) as caught:
        read_submission(path)
    return caught.value


# ------------------------------------------------------------------------------------------------- what is no notebook


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"My laptop broke, here is my answer: 16",
        b'{"nbformat": 4, "cells": [',
        b'{"nbformat": 4, "cells": []} and more',
        b"\xff\xfe\x00",
        b"\x89PNG\r\n\x1a\n",
        b'{"nbformat": ' + b"9" * 5_000 + b"}",
    ],
    ids=["empty", "text", "cut-off", "two-documents", "no-utf-8", "picture", "long-number"],
)
def test_what_is_not_json_is_malformed_and_told_what_to_do(data: bytes):
    fault = refusal(data)
    assert fault.kind == "malformed"
    assert "hand in again" in fault.words


@pytest.mark.parametrize("data", [b"[]", b"null", b"7", b'"text"', b"{}", b'{"nbformat": "4", "cells": []}'])
def test_json_that_is_no_notebook_is_malformed(data: bytes):
    assert refusal(data).kind == "malformed"


@pytest.mark.parametrize("told", ["4", "4.0", 4.0, None])
def test_a_notebook_whose_format_is_no_whole_number_is_read_and_told(told: object):
    """Tools write it as a text, with a point, or leave it out; the cells say what it is."""
    whole = document(cell("x = 1")) | {"nbformat": told}
    found = parse_submission(json.dumps({name: value for name, value in whole.items() if value is not None}).encode())
    assert (sources(found), kinds(found)) == (["x = 1"], ["repaired"])


@pytest.mark.parametrize("told", ["four", "", [4], None])
def test_what_has_neither_a_format_nor_cells_is_no_notebook(told: object):
    assert refusal(json.dumps({"nbformat": told, "cells": [{"text": "print(1)"}]}).encode()).kind == "malformed"


@pytest.mark.parametrize("data", [b"[" * 10**6, b'{"a":' * 10**5 + b"1" + b"}" * 10**5], ids=["open", "closed"])
def test_json_that_nests_without_end_is_malformed_rather_than_a_crash(data: bytes):
    assert refusal(data).kind == "malformed"


def test_an_old_format_is_named_with_its_mend():
    worksheet = {"cells": [{"cell_type": "code", "input": "x = 1", "language": "python"}]}
    fault = refusal(json.dumps({"nbformat": 3, "worksheets": [worksheet]}).encode())
    assert fault.kind == "old-format"
    assert "format 3" in fault.words
    assert "JupyterLab" in fault.words


@pytest.mark.parametrize("version", [0, -4, 5, True, 10**30])
def test_no_other_format_is_guessed_at(version: int):
    assert refusal(json.dumps(document() | {"nbformat": version}).encode()).kind == "old-format"


@pytest.mark.parametrize("cells", [None, {}, "cells", 3])
def test_a_notebook_needs_a_list_of_cells(cells: Any):
    with pytest.raises(StudentFault):
        parse_submission(json.dumps(document() | {"cells": cells}).encode())


def test_a_byte_order_mark_is_not_in_the_way():
    text = json.dumps(document(cell("print('é')")), ensure_ascii=False)
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert sources(parse_submission(text.encode(encoding))) == ["print('é')"]


# ---------------------------------------------------------------------------------------------------------- odd cells


@pytest.mark.parametrize(
    "odd",
    [
        None,
        3,
        "x = 1",
        ["x = 1"],
        {},
        {"cell_type": "heading", "source": "x"},
        {"cell_type": ["code"], "source": "x"},
        cell(source=7),
        cell(source=None),
        cell(source={"0": "x"}),
        cell(source=["x = 1", 2]),
    ],
)
def test_an_odd_cell_is_left_out_and_counted_and_its_neighbours_stay(odd: Any):
    found = submission(cell("before"), odd, cell("after"))
    assert sources(found) == ["before", "after"]
    assert [cell.number for cell in found.cells] == [1, 3], "numbers are those that the student sees"
    assert kinds(found) == ["odd-cells"]
    assert found.findings[0].words.startswith("1 cells")


def test_a_source_is_a_text_or_a_list_of_lines():
    assert sources(submission(cell("a\nb"), cell(["a\n", "b"]), cell([]), cell(""))) == ["a\nb", "a\nb", "", ""]


def test_a_cell_without_a_source_is_an_empty_one():
    assert sources(submission({"cell_type": "code"})) == [""]


@pytest.mark.parametrize(
    "metadata",
    [None, [], 3, {}, {"nbgrader": None}, {"nbgrader": []}, {"nbgrader": {}}]
    + [{"nbgrader": {"grade_id": claimed}} for claimed in (None, 3, [], {}, "", "x" * 201)],
)
def test_metadata_of_any_shape_claims_no_id(metadata: Any):
    (only,) = submission(cell() | {"metadata": metadata}).cells
    assert only.grade_id is None


def test_an_id_is_all_that_is_believed_of_the_metadata():
    marks = {"grade_id": "count", "points": 99, "grade": "yes", "locked": False, "solution": None}
    (only,) = submission(cell() | {"metadata": {"nbgrader": marks, "tags": ["skip-execution"]}}).cells
    assert (only.grade_id, only.source) == ("count", "x = 1")


@pytest.mark.parametrize("source", ['x = "\\ud800"', '"\\udfff" + "\\ud83d"', ["# \\ud800\n", "x = 1"]])
def test_a_lone_surrogate_leaves_text_that_can_be_written(source: Any):
    raw = json.dumps(document(cell(source))).replace("\\\\u", "\\u")
    (text,) = sources(parse_submission(raw.encode()))
    assert "?" in text
    assert text.encode("utf-8").decode("utf-8") == text


def test_a_pair_of_surrogates_is_the_character_that_it_spells():
    raw = json.dumps(document(cell("x = '😀'")))
    assert "\\ud83d\\ude00" in raw
    assert sources(parse_submission(raw.encode())) == ["x = '😀'"]


def test_an_id_with_a_lone_surrogate_can_be_written_too():
    (only,) = submission(cell(grade_id="\ud800")).cells
    assert only.grade_id is None or only.grade_id.encode("utf-8")


# --------------------------------------------------------------------------------------------------------- large ones


def test_ten_thousand_cells_keep_the_answers_in_their_order():
    scratch = [cell(f"x = {number}") for number in range(10_000)]
    for place in (0, 4_000, 10_002):
        scratch.insert(place, cell(f"answer at {place}", grade_id=f"answer{place}"))
    found = submission(*scratch)
    answers = [cell.source for cell in found.cells if cell.grade_id]
    assert answers == ["answer at 0", "answer at 4000", "answer at 10002"]
    assert len(found.cells) == notebook.MAX_CELLS
    assert [cell.number for cell in found.cells] == sorted(cell.number for cell in found.cells)
    assert kinds(found) == ["many-cells"]
    assert "10,003" in found.findings[0].words


def test_a_long_cell_is_not_run_and_the_others_are():
    limit = notebook.MAX_CELL_CHARACTERS
    found = submission(cell("x" * limit), cell("y" * (limit + 1)), cell("z", grade_id="count"))
    assert [source[0] for source in sources(found)] == ["x", "z"]
    assert kinds(found) == ["long-cells"]


def test_all_text_together_is_bounded_and_the_answers_come_first():
    scratch = [cell("x" * notebook.MAX_CELL_CHARACTERS) for _ in range(30)]
    found = submission(*scratch, cell("answer", grade_id="count"))
    assert sum(map(len, sources(found))) <= notebook.MAX_ALL_CHARACTERS
    assert sources(found)[-1] == "answer"


def test_fifty_megabytes_of_outputs_are_read_once_and_dropped(tmp_path: Path):
    path = tmp_path / "large.ipynb"
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "A" * 50_000_000}}
    path.write_text(json.dumps(document(cell("answer", grade_id="count", outputs=[picture]))))
    tracemalloc.start()
    try:
        found = read_submission(path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sources(found) == ["answer"]
    assert kinds(found) == ["large-outputs"]
    assert "48 MiB" in found.findings[0].words
    # The bytes, their text, and the picture cut out of the text: three times the file, and nothing stays.
    assert peak < 3.5 * path.stat().st_size
    assert kept < 10**6


def test_a_file_over_the_limit_is_refused_and_one_at_the_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "p.ipynb"
    path.write_text(json.dumps(document(cell("answer"))))
    monkeypatch.setattr(notebook, "MAX_FILE_BYTES", path.stat().st_size)
    assert sources(read_submission(path)) == ["answer"]
    monkeypatch.setattr(notebook, "MAX_FILE_BYTES", path.stat().st_size - 1)
    fault = file_refusal(path)
    assert fault.kind == "too-large"
    assert "Clear the outputs" in fault.words


# -------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def real(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "p.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps(document(cell("not mine"))))
    return path


def test_a_file_is_read_like_its_bytes(real: Path):
    assert read_submission(real) == parse_submission(real.read_bytes())


def test_a_link_is_refused_whether_or_not_it_leads_somewhere(real: Path, tmp_path: Path):
    for target in (real, tmp_path / "nowhere", tmp_path / "p.ipynb"):
        link = tmp_path / "p.ipynb"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert file_refusal(link).kind == "not-a-file"


@pytest.mark.parametrize("linked", ["ada", "ada/p"])
def test_a_folder_that_is_a_link_is_refused(real: Path, tmp_path: Path, linked: str):
    (tmp_path / "elsewhere" / "p").mkdir(parents=True)
    (tmp_path / "elsewhere" / "p" / "p.ipynb").write_bytes(real.read_bytes())
    link = tmp_path / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere" / ("p" if linked.endswith("p") else ""), target_is_directory=True)
    with pytest.raises(StudentFault, match=f"folder {link.name} is a link") as caught:
        read_handed_in(tmp_path / "ada" / "p" / "p.ipynb")
    assert caught.value.kind == "not-a-file"


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path):
    os.mkfifo(tmp_path / "p.ipynb")
    assert file_refusal(tmp_path / "p.ipynb").kind == "not-a-file"


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path):
    (tmp_path / "p.ipynb").mkdir()
    assert file_refusal(tmp_path / "p.ipynb").kind == "not-a-file"


def test_a_missing_file_is_told_by_name(tmp_path: Path):
    for path in (tmp_path / "p.ipynb", tmp_path / "no folder" / "p.ipynb"):
        fault = file_refusal(path)
        assert fault.kind == "missing"
        assert "p.ipynb" in fault.words
        assert str(tmp_path) not in fault.words


# -------------------------------------------------------------------------------------------------------- what is read

BASE = [cell("import torch"), cell("def f(): return 1", grade_id="f"), cell("# Notes", kind="markdown")]


@pytest.mark.parametrize(
    "cells",
    [
        [cell("import  torch"), *BASE[1:]],
        [BASE[1], BASE[0], BASE[2]],
        BASE[:2],
        [*BASE, cell("")],
        [BASE[0], cell("def f(): return 1"), BASE[2]],
        [BASE[0], cell("def f(): return 1", grade_id="g"), BASE[2]],
        [cell("import torch", kind="markdown"), *BASE[1:]],
        [cell("import torchdef f(): return 1", grade_id="f"), cell(""), BASE[2]],
    ],
    ids=["a space", "order", "one less", "one more", "no id", "another id", "another kind", "text that moved"],
)
def test_what_is_read_changes_with_what_can_change_a_score(cells: list[Document]):
    assert submission(*cells).cells != submission(*BASE).cells


def test_what_is_read_stays_with_what_can_not():
    run = [
        one | {"outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}], "execution_count": 3, "id": "abc"}
        for one in BASE
    ]
    lines = [one | {"source": one["source"].splitlines(keepends=True)} for one in BASE]
    tagged = [one | {"metadata": one["metadata"] | {"tags": ["skip-execution"], "editable": False}} for one in BASE]
    for cells in (run, lines, tagged, [*BASE, None]):
        assert submission(*cells).cells == submission(*BASE).cells
    other = document(*BASE) | {"metadata": {"kernelspec": {"name": "other"}}, "nbformat_minor": 2}
    assert parse_submission(json.dumps(other, indent=4).encode()) == submission(*BASE)


small_cells = st.lists(
    st.builds(
        cell,
        st.sampled_from(["", "a", "ab", "b", '", "']),
        st.sampled_from(["code", "markdown"]),
        st.sampled_from([None, "a", "b"]),
    ),
    max_size=3,
)


@unhurried
@given(small_cells, small_cells)
def test_two_notebooks_are_read_alike_only_if_they_ask_the_same(one: list[Document], other: list[Document]):
    assert (submission(*one) == submission(*other)) == (one == other)


# ---------------------------------------------------------------------------------------------------------- all of it

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()))
anything = st.recursive(
    leaves | st.sampled_from(["code", "markdown", "raw", 4]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
odd_cells = anything | st.fixed_dictionaries(
    {},
    optional={
        "cell_type": st.sampled_from(["code", "markdown", "raw", "heading"]) | anything,
        "source": st.text() | st.lists(st.text()) | anything,
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "nbgrader": st.fixed_dictionaries(
                    {}, optional={"grade_id": st.text(st.characters(exclude_categories=())) | anything}
                )
            },
        )
        | anything,
        "outputs": anything,
    },
)
odd_documents = anything | st.fixed_dictionaries(
    {"nbformat": st.just(4) | anything, "cells": st.lists(odd_cells, max_size=6) | anything}
)


def read_or_refuse(data: bytes) -> None:
    """Read bytes, letting nothing but a StudentFault be raised, and hold what is promised of what comes out."""
    with contextlib.suppress(StudentFault):
        found = parse_submission(data)
        assert len(found.cells) <= notebook.MAX_CELLS
        for one in found.cells:
            assert one.kind in ("code", "markdown", "raw")
            f"{one.source} {one.grade_id}".encode()


@unhurried
@given(odd_documents)
def test_any_json_document_is_read_or_refused_with_words(content: Any):
    read_or_refuse(json.dumps(content).encode())


@unhurried
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_or_refused_with_words(data: bytes):
    read_or_refuse(data)
