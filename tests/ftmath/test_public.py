"""The library's door: each public name explains itself, shows itself at work, and costs little to import."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import ftmath
import pytest

TEXTS = Path(__file__).parent.parent.parent / "course" / "text"


@pytest.mark.parametrize("name", ftmath.__all__)
def test_a_public_name_has_a_docstring_with_an_example_that_runs(name: str):
    value = getattr(ftmath, name)
    if not callable(value):
        return
    text = inspect.getdoc(value) or ""
    assert text
    assert doctest.DocTestParser().get_examples(text), f"{name} needs an example"


def groups() -> list[tuple[int, list[str]]]:
    """Return the groups of names that comments in `__all__` begin, each with its part; 0 stands for several parts."""
    found: list[tuple[int, list[str]]] = []
    for line in inspect.getsource(ftmath).partition("__all__ = [")[2].splitlines()[1:]:
        comment = re.match(r"    # (?:Part (\d+),|Shared)", line)
        if comment:
            found.append((int(comment[1] or 0), []))
        elif found:
            found[-1][1].extend(re.findall(r'"(\w+)"', line))
    return found


def parts_that_use() -> dict[str, set[int]]:
    """Return the parts whose notebooks import a name from the library."""
    found: dict[str, set[int]] = {}
    for path in TEXTS.glob("[01][0-9]_*/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ftmath":
                for name in node.names:
                    found.setdefault(name.name, set()).add(int(path.parent.name[:2]))
    return found


def test_names_stand_once_by_part_and_in_order():
    assert [part for part, _ in groups()] == [*range(1, 11), 0]
    assert [name for _, names in groups() for name in names] == ftmath.__all__
    assert len(set(ftmath.__all__)) == len(ftmath.__all__)
    for _, names in groups():
        assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def test_a_name_stands_with_a_part_that_uses_it():
    used = parts_that_use()
    for part, names in groups():
        for name in names:
            parts = used.get(name, set())
            assert part in parts or not parts or (part == 0 and len(parts) > 1), f"{name} is used by {sorted(parts)}"


def test_importing_brings_neither_plots_nor_widgets():
    """They take as long as torch itself; a cell that draws asks for them."""
    code = (
        "import sys, ftmath; print(*(name for name in ('matplotlib', 'ipywidgets', 'pandas') if name in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_waiting_threads_spin_shortly():
    code = "import os, ftmath; print(os.environ['GOMP_SPINCOUNT'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1000"
