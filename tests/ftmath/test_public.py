"""The library's door: each public name explains itself, shows itself at work, and costs little to import."""

import doctest
import inspect
import subprocess
import sys

import ftmath
import pytest


@pytest.mark.parametrize("name", ftmath.__all__)
def test_a_public_name_has_a_docstring_with_an_example_that_runs(name: str):
    value = getattr(ftmath, name)
    if not callable(value):
        return
    text = inspect.getdoc(value) or ""
    assert text
    assert doctest.DocTestParser().get_examples(text), f"{name} needs an example"


def test_names_stand_once_and_in_order():
    assert len(set(ftmath.__all__)) == len(ftmath.__all__)
    assert ftmath.__all__ == sorted(ftmath.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


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
