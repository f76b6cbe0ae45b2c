"""What a mutant is, and what the audit says of a problem whose hidden tests fall short."""

import re
import shutil
from pathlib import Path

import pytest
from ftgrade.authoring import audit
from ftgrade.authoring.ledger import Entry, Ledger
from ftgrade.authoring.mutants import mutants
from ftgrade.catalog import Catalog, home

SOURCE = '''
def f(x, scale=2):
    """Return something."""
    if x < 0:
        raise ValueError(f"x must be {0}")
    return scale * x.T + 1


def g(x):
    return f(x, scale=3)
'''


def test_each_change_is_made_once_and_has_a_name_of_its_own():
    made = list(mutants(SOURCE))
    names = [mutant.name for mutant in made]
    assert len(set(names)) == len(names)
    assert {"f: x < 0 -> x <= 0", "f: x.T -> x", "f: scale * x.T -> scale / x.T", "f: 1 -> 2"} <= set(names)
    assert "g: f(x, scale=3) -> f(x)" in names
    for mutant in made:
        compile(mutant.source, mutant.name, "exec")


def test_docstrings_defaults_and_messages_are_left_alone():
    for mutant in mutants(SOURCE):
        assert "def f(x, scale=2)" in mutant.source
        assert "Return something." in mutant.source
        assert "x must be {0}" in mutant.source or "raise" not in mutant.source


@pytest.fixture
def checkout(tmp_path: Path) -> Catalog:
    """A checkout that holds one problem, with no accepted submissions."""
    for name in ("source", "solutions", "autograder/problems"):
        (tmp_path / name).mkdir(parents=True)
        leaf = home().root / name / "p03_lora_parameters.py"
        shutil.copy(leaf, tmp_path / name)
    return Catalog(tmp_path)


def test_an_audit_names_what_the_hidden_tests_miss(checkout: Catalog):
    path = checkout.leaves("p03").problem
    saved = r'yield ((?:Case|corner)\("(?:[\w ]*is saved|small sizes)")'
    text, cases = re.subn(saved, r"\1", path.read_text())
    assert cases == 3
    path.write_text(text)
    found = audit.audit_problem(checkout.root, "p03_lora_parameters")
    assert found.mutants_missed == ("breakeven_rank: 1 -> 2",)
    assert "add a case" in found.troubles[0]


def test_a_reason_that_no_mutant_needs_is_named(checkout: Catalog):
    path = checkout.leaves("p03").problem
    path.write_text(path.read_text() + '\nproblem.equivalent["breakeven_rank: 1 -> *"] = "a lie"\n')
    assert audit.audit_problem(checkout.root, "p03_lora_parameters").reasons_unused == ("breakeven_rank: 1 -> *",)


def test_a_table_is_replaced_and_the_rest_is_kept():
    ledger = Ledger((Entry("sum", ("Return the sum.",), 3, ("twice",), 1), Entry("err", (), 1, (), 0)), ())
    found = audit.Audit("p01_x", ledger, 2, (), 5, 1, (), (), 3, (), 2.5, 5.0, 7.0)
    text = f"before\n{audit.START}\nold\n{audit.END}\nafter"
    written = audit.replace_table(text, [found])
    assert "| p01_x | 1 / 2 | 2 / 2 | 4 / 4 | 1 | 3 / 3 | 2.5 |" in written
    assert written.startswith("before\n")
    assert written.endswith("\nafter")
    assert audit.replace_table("no marks", [found]) == "no marks"
