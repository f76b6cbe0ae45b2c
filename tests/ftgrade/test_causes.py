"""What a failed check says: the function that was called, the cell that was the cause, no name that a student made."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.gradebook.cells import canonical_cells
from ftgrade.grading.grader import Grader
from ftgrade.intake.notebook import Cell, parse_submission
from ftgrade.judging.causes import Causes
from ftgrade.judging.judge import raised_words
from ftgrade.judging.judges import Judges
from ftgrade.judging.problem import Close, integer, kind_name, ratio_of
from ftgrade.judging.report import CheckReport, Report
from ftgrade.sandbox.channel import Lost, Raised
from ftgrade.sandbox.worker import Other
from hypothesis import given
from hypothesis import strategies as st

CATALOG = home()
STEM = "p03_lora_parameters"
REFERENCE = CATALOG.leaves(STEM).solution.read_text("utf-8")


@pytest.fixture
def grader(tmp_path: Path, judges: Judges) -> Grader:
    from ftgrade.course import Course

    return Grader(CATALOG, Course(tmp_path / "course"), judges)


def graded(grader: Grader, text: str) -> Report:
    path = grader.course.notebook("ada", STEM)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return grader.grade("ada", STEM)


def check_named(report: Report, name: str) -> CheckReport:
    return next(check for check in report.checks if check.name == name)


def with_cell(text: str, source: str, position: int = 0) -> str:
    """Return a notebook's text with one more code cell, by default as its first."""
    document: dict[str, Any] = json.loads(text)
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
    document["cells"].insert(position, cell)
    return json.dumps(document)


def with_answer(text: str, function: str, source: str) -> str:
    """Return a notebook's text with another answer for a function."""
    document: dict[str, Any] = json.loads(text)
    for cell in document["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == function:
            cell["source"] = source
    return json.dumps(document)


# ------------------------------------------------------------------------------------------------------------- ratios


@given(st.floats(0.99, 1.01), st.lists(st.floats(0.5, 1e6), min_size=1, max_size=4))
def test_no_ratio_is_shown_that_prints_as_1(factor: float, right: list[float]):
    ratio = ratio_of(right, [factor * one for one in right])
    assert ratio is None or f"{ratio:.4g}" != "1"


def test_a_count_or_a_number_that_is_off_by_little_has_a_difference_and_no_ratio():
    for difference in (integer(3_000_000, 3_000_001), Close()(1000.0, 1000.1)):
        assert difference is not None
        assert difference.ratio is None
        assert difference.largest is not None
    doubled = integer(3_000_000, 6_000_000)
    assert doubled is not None
    assert doubled.ratio == 2.0


# ---------------------------------------------------------------------------------------------------------- functions


def test_the_words_of_a_failed_case_name_the_function_that_was_called(grader: Grader):
    """One check of errors calls several functions; its cases may have the same title."""
    stem = "p06_adapter_parameters"
    text = build.filled_notebook(CATALOG, stem, CATALOG.leaves(stem).solution.read_text("utf-8"))
    accepting = with_answer(text, "largest_bottleneck", "def largest_bottleneck(*_, **__):\n    return 1\n")
    path = grader.course.notebook("ada", stem)
    path.parent.mkdir(parents=True)
    path.write_text(accepting, "utf-8")
    found = check_named(grader.grade("ada", stem), "err")
    assert found.function == "adapter_params"
    assert found.words == "largest_bottleneck: it returned a value, where a ValueError was expected"


# -------------------------------------------------------------------------------------------------------------- causes


def failed(number: int, *names: str, message: str = "", line: int | None = None) -> dict[int, Raised]:
    return {number: Raised(names, message, line)}


def code(*sources: str) -> list[Cell]:
    return [Cell(number, "code", source, None) for number, source in enumerate(sources, 1)]


def nameless(name: str) -> Raised:
    return Raised(("NameError", "Exception"), f"name '{name}' is not defined", 2)


def test_a_name_that_a_failed_import_should_have_defined_is_explained():
    cells = code("print(1)", "import numpyy as np", "def f(x):\n    return np.exp(x)")
    causes = Causes(cells, failed(2, "ModuleNotFoundError", "ImportError"))
    words = "`np` is not defined: cell 2, which should define it, ended in ModuleNotFoundError"
    assert causes.explain("f", nameless("np")) == words
    assert causes.explain("f", nameless("math")) == ""  # nobody's cell
    assert Causes(cells, {}).explain("f", nameless("np")) == ""


def test_a_chain_of_failed_cells_is_followed_and_ends():
    cells = code("import numpyy as np", "EPS = np.float64(1e-6)", "def f(x):\n    return x + EPS")
    failures = failed(1, "ModuleNotFoundError") | {2: nameless("np")}
    assert Causes(cells, failures).explain("f", nameless("EPS")) == (
        "`EPS` is not defined: cell 2, which should define it, ended in NameError (`np` is not defined: cell 1, which "
        "should define it, ended in ModuleNotFoundError)"
    )
    circle = code("a = b", "b = a")
    assert "cell 1" in Causes(circle, {1: nameless("b"), 2: nameless("a")}).explain("f", nameless("a"))


def test_a_function_whose_cell_failed_is_missing_for_that_reason():
    cells = code("def f(x):\n    return (x", "import nothing_here\ndef g(x):\n    return x", "while True:\n    h = 1")
    failures = failed(1, "SyntaxError", line=2) | failed(2, "ModuleNotFoundError", line=1) | {3: "it ran too long"}
    causes = Causes(cells, failures)
    missing = Lost("missing", "")
    assert causes.explain("f", missing).endswith("cell 1, which should define it, ended in SyntaxError")
    assert causes.explain("g", missing).endswith("cell 2, which should define it, ended in ModuleNotFoundError")
    assert causes.explain("h", missing).endswith("cell 3, which should define it, was left out")
    assert causes.explain("k", missing) == ""


def test_any_error_is_explained_by_a_name_that_a_failed_cell_should_have_set_anew():
    cells = code("scale = None", "shift = 1\nscale = 1 / 0", "def f(x):\n    return x * scale + shift")
    error = Raised(("TypeError",), "unsupported", 2)
    causes = Causes(cells, failed(2, "ZeroDivisionError", line=2))
    assert causes.explain("f", error) == "cell 2, which should set `scale`, ended in ZeroDivisionError"
    after = Causes(cells, failed(2, "ZeroDivisionError", line=3))
    assert after.explain("f", error) == ""  # both were set before the cell failed


HOSTILE = ("(" * 50_000, f"x = {'-' * 50_000}1", "a." * 50_000, "import " + "a," * 50_000)


@pytest.mark.parametrize("source", HOSTILE, ids=["nested", "signs", "dots", "names"])
def test_a_cell_that_no_parser_takes_explains_nothing_and_harms_nothing(source: str):
    assert Causes(code(source), failed(1, "SyntaxError")).explain("f", nameless("np")) == ""


def test_the_failed_import_of_another_cell_is_told_to_the_student(grader: Grader):
    text = build.filled_notebook(CATALOG, STEM, REFERENCE)
    text = with_answer(text, "breakeven_rank", "def breakeven_rank(d_out, d_in):\n    return ceiling(d_in)\n")
    report = graded(grader, with_cell(text, "from maths import ceil as ceiling"))
    told = [check.words for check in report.checks if "ceiling" in check.words]
    assert told
    assert all("cell 1, which should define it, ended in ModuleNotFoundError" in words for words in told)


# --------------------------------------------------------------------------------------------------------------- names


def test_only_names_of_python_numpy_and_torch_are_shown():
    assert raised_words(Raised(("KeyError",), "", None)).words == "it raised KeyError"
    assert raised_words(Raised(("LinAlgError", "ValueError"), "", None)).words == "it raised LinAlgError"
    made_up = Raised(("Ask_your_grader_for_points", "ValueError"), "", 3)
    assert raised_words(made_up).words == "it raised an error of your own class at line 3 of its cell"
    for name in (
        "generator", "function", "dict_keys", "range", "collections.OrderedDict", "torch.Size",
        "torch.nn.parameter.Parameter", "torch.Tensor (complex64, torch.strided, cpu)",
    ):  # fmt: skip
        assert kind_name(Other(name)) == name
    for name in (
        "__main__.Points", "torch.Points", "torch.nn.Give.Points", "torch.Tensor (give, torch.me, points)", "numpy.pi",
        "Generator, ask for points", "",
    ):  # fmt: skip
        assert kind_name(Other(name)) == "value of your own class"


def test_no_class_name_of_a_students_own_reaches_the_feedback(grader: Grader):
    text = build.filled_notebook(CATALOG, STEM, REFERENCE)
    raising = "class Give_Me_Points(Exception):\n    pass\n\n\ndef breakeven_rank(*_):\n    raise Give_Me_Points\n"
    making = "class Much_Better:\n    pass\n\n\ndef low_rank_dof(*_):\n    return Much_Better()\n"
    text = with_answer(with_answer(text, "breakeven_rank", raising), "low_rank_dof", making)
    report = graded(grader, with_cell(text, "class Odd(Exception):\n    pass\nraise Odd"))
    words = " ".join(check.words for check in report.checks) + " ".join(note.error for note in report.notes)
    assert "an error of your own class" in words
    assert "value of your own class" in words
    assert "Give_Me_Points" not in words
    assert "Much_Better" not in words
    assert "Odd" not in words


# ---------------------------------------------------------------------------------------------------------- given cells


@pytest.mark.parametrize("stem", CATALOG.stems())
def test_a_given_cell_is_never_labelled_as_the_students_own(stem: str):
    from ftgrade.classroom.selfstudy import unanswered_cells

    built = CATALOG.leaves(stem).notebook.read_bytes()
    shown = canonical_cells(parse_submission(built).cells, unanswered_cells(CATALOG, stem))
    assert [cell["source"] for cell in shown if "nbgrader" not in cell["metadata"]] == []


def test_a_cell_of_ones_own_is_still_labelled_so():
    from ftgrade.classroom.selfstudy import unanswered_cells

    built = with_cell(CATALOG.leaves(STEM).notebook.read_text("utf-8"), "mine = torch.ones(1)")
    shown = canonical_cells(parse_submission(built.encode()).cells, unanswered_cells(CATALOG, STEM))
    assert [cell["source"] for cell in shown if "nbgrader" not in cell["metadata"]] == ["mine = torch.ones(1)"]
    assert torch.ones(1).item() == 1.0
