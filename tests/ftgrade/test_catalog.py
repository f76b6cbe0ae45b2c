"""Stem to leaves: what belongs to a problem, what belongs to none, and what makes its stored reports stale."""

import shutil
from pathlib import Path

import pytest
from ftgrade.catalog import Catalog, home
from ftgrade.errors import AuthorFault
from ftgrade.judging.problem import load_problem

BUILT, PLAIN = "p10_freeze_and_mask_audit", "p03_lora_parameters"


@pytest.fixture
def checkout(tmp_path: Path) -> Catalog:
    """A checkout that holds two problems, one of them with a builder."""
    for drawer in ("source", "solutions", "autograder/problems", "autograder/builders"):
        (tmp_path / drawer).mkdir(parents=True)
        for stem in (BUILT, PLAIN):
            if (leaf := home().root / drawer / f"{stem}.py").is_file():
                shutil.copy(leaf, tmp_path / drawer)
    for stem in (BUILT, PLAIN):
        shutil.copytree(home().leaves(stem).notebook.parent, tmp_path / "source" / stem)
    return Catalog(tmp_path)


def test_a_problem_may_have_a_builder_and_need_not(checkout: Catalog):
    assert checkout.leaves(BUILT).builder.is_file()
    assert not checkout.leaves(PLAIN).builder.is_file()
    assert checkout.leaves(PLAIN).missing() == []
    assert load_problem(checkout, PLAIN).points == load_problem(checkout, BUILT).points == 10


def test_a_builder_that_a_problem_names_and_lacks_is_the_authors_fault(checkout: Catalog):
    checkout.leaves(BUILT).builder.unlink()
    with pytest.raises(AuthorFault, match=f"builders/{BUILT}"):
        load_problem(checkout, BUILT)


@pytest.mark.parametrize("name", ["p11_no_such_problem.py", "planting.py", f"{BUILT}.txt"])
def test_a_builder_of_no_problem_is_a_stray(checkout: Catalog, name: str):
    assert checkout.strays() == []
    stray = checkout.builders() / name
    stray.touch()
    assert checkout.strays() == [stray]


def test_a_drawer_of_builders_is_not_needed(checkout: Catalog):
    shutil.rmtree(checkout.builders())
    assert checkout.strays() == []


def test_a_change_of_any_leaf_that_judges_makes_stored_reports_stale(checkout: Catalog):
    leaves = checkout.leaves(BUILT)
    digests = [checkout.digest(BUILT)]
    for leaf in (leaves.solution, leaves.problem, leaves.builder):
        leaf.write_text(leaf.read_text("utf-8") + "\n", "utf-8")
        digests.append(checkout.digest(BUILT))
    assert len(set(digests)) == 4
    assert checkout.digest(PLAIN) == home().digest(PLAIN)


def test_a_given_cell_that_changes_makes_reports_stale_and_a_learners_answer_does_not(checkout: Catalog):
    path, before = checkout.leaves(PLAIN).notebook, checkout.digest(PLAIN)
    text = path.read_text("utf-8")
    path.write_text(text.replace("raise NotImplementedError", "return 1"), "utf-8")
    assert checkout.digest(PLAIN) == before
    path.write_text(text.replace("import torch", "import torch as torch"), "utf-8")
    assert checkout.digest(PLAIN) != before


@pytest.mark.parametrize("text", ["", "[]", '{"cells": [3]}', '{"cells": [{"metadata": []}]}'])
def test_a_learners_broken_copy_of_a_built_notebook_has_no_released_cells(checkout: Catalog, text: str):
    checkout.leaves(PLAIN).notebook.write_text(text, "utf-8")
    assert checkout.built_cells(PLAIN) == []
    assert checkout.digest(PLAIN)
