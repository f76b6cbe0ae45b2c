"""A cell that needs a newer Python than the grader's is told so, and no other syntax error is."""

import pytest
from ftgrade.intake.newer import newer_syntax

HERE = (3, 11)


def error_of(source: str) -> tuple[str, int | None]:
    """Return the message and the line of a cell's SyntaxError; the Python that runs this may read the cell."""
    try:
        compile(source, "<cell>", "exec")
    except SyntaxError as error:
        return error.msg, error.lineno
    return "", None


@pytest.mark.parametrize(
    ("source", "feature", "version"),
    [
        ("type Pair = tuple[int, int]", "`type` statement", "3.12"),
        ("type Pair[T] = tuple[T, T]", "`type` statement", "3.12"),
        ("def first[T](items: list[T]) -> T:\n    return items[0]", "type parameters", "3.12"),
        ("class Box[T]:\n    pass", "type parameters", "3.12"),
        ("async def first[*Ts](*items: *Ts):\n    pass", "type parameters", "3.12"),
        ("def first[T = int](items: list[T]) -> T:\n    return items[0]", "default of a type parameter", "3.13"),
        ("print(f\"{names[\"a\"]}\")", "f-string", "3.12"),
        ("print(f'{', '.join(names)} in {place}')", "f-string", "3.12"),
        ("print(f\"{place}: {names[\"a\"]}\")", "f-string", "3.12"),
        ("print(f\"{'\\n'.join(names)}\")", "f-string", "3.12"),
        ("print(f'{\n    names\n}')", "f-string", "3.12"),
        ("try:\n    pass\nexcept KeyError, ValueError:\n    pass", "`except`", "3.14"),
        ("words = t'{names}'", "template string", "3.14"),
    ],
)  # fmt: skip
def test_newer_syntax_is_named_with_the_python_that_has_it(source: str, feature: str, version: str):
    words = newer_syntax(source, *error_of(source), HERE)
    assert feature in words
    assert f"came with Python {version}" in words
    assert "runs Python 3.11" in words


@pytest.mark.parametrize(
    "source",
    [
        "print(f'{x'", "print(f'{x} {y')", "def f(x:\n    pass", "type = = 3", "type X", "x = names['a'", "class :",
        "print(f'{x}' '{y}'", "words = 't' x'", "print(f'{x}', 'a'", "except KeyError:\n    pass", "f'{x' + 'y'",
    ],
)  # fmt: skip
def test_other_syntax_errors_are_blamed_on_no_version(source: str):
    assert error_of(source)[0]
    assert newer_syntax(source, *error_of(source), HERE) == ""


def test_only_the_lines_of_the_error_are_looked_at():
    assert newer_syntax("'''\ntype X = int\n'''\n\n\nx = = 1", "invalid syntax", 6, HERE) == ""


def test_a_python_that_has_it_says_nothing():
    assert newer_syntax("type X = int", "invalid syntax", 1, (3, 12)) == ""


@pytest.mark.parametrize("piece", ["f'", "f'{x", "f'{", "f'{x}", "def f[", "type a[", "except a.", "f\"{'"])
def test_looking_comes_to_an_end_whatever_the_cell_holds(piece: str):
    """Time that grew with the square of the size would take minutes here."""
    assert isinstance(newer_syntax(piece * 30_000, "f-string: expecting '}'", None, HERE), str)
