"""What people see of a command: tables that fit 80 columns, and whole lines in a pipe."""

import io
import os
import re
import subprocess
import sys

import pytest
from ftgrade.commands.terminal import score_tables
from rich.console import Console

COLUMNS = ("student", "name", *(f"p{number:02}" for number in range(1, 11)))
ROWS = [(f"student-{number}", "Ada Featherstonehaugh", *["10.33*"] * 9, "8.25 - 2.5") for number in range(3)]


def printed(width: int, rows: list[tuple[str, ...]] = ROWS) -> str:
    console = Console(width=width, file=io.StringIO())
    for made in score_tables("Scores", COLUMNS, rows, 2, width):
        console.print(made)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 120, 1_000])
def test_no_score_is_cut_however_narrow_the_terminal(width: int):
    said = printed(width)
    assert "\u2026" not in said
    assert max(map(len, said.splitlines())) <= width
    assert (said.count("10.33*"), said.count("8.25 - 2.5")) == (27, 3)


def test_ten_problems_stand_in_one_table_of_80_columns_and_names_where_there_is_room():
    plain = [(student, name, *["10.33"] * 10) for student, name, *_ in ROWS]
    assert printed(80, plain).count("Scores") == 1
    assert "Featherstonehaugh" not in printed(80, plain)
    assert printed(120, plain).count("Featherstonehaugh") == 3


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_a_piped_table_is_whole_and_without_colour(name: str):
    """A pipe has no width, and nobody looks at colours in it."""
    code = (
        "from ftgrade.commands.terminal import Out; "
        f"Out().scores('Scores', {COLUMNS!r}, {ROWS!r}, 2); Out().table('T', ('a', 'b'), [('x' * 150, 'y' * 150)])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {name: "1"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "\x1b" not in said
    assert "x" * 150 in said
    assert re.search(r"student-0 +Ada Featherstonehaugh( 10\.33\*){9} 8\.25 - 2\.5", said.replace("  ", " "))
