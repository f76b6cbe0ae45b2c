"""Leaves to notebook: the same bytes, what a stale file or a missing hole says, and a new problem that passes."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from ftgrade.authoring import build
from ftgrade.authoring.ledger import keep_ledger
from ftgrade.catalog import Catalog, home
from ftgrade.commands import cli
from ftgrade.errors import AuthorFault, CourseFault
from ftgrade.judging.judge import Oracle, local_ask, with_mistake
from ftgrade.judging.problem import load_problem

STEM = "p03_lora_parameters"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A copy of the drawers that a test may change."""
    root = home().root
    for drawer in ("source", "solutions", "autograder/problems", "autograder/builders", "course"):
        shutil.copytree(root / drawer, tmp_path / drawer, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("FTGRADE_HOME", str(tmp_path))
    return Catalog(tmp_path)


def test_building_twice_gives_the_same_bytes_and_valid_notebooks():
    assert build.built_files(home()) == build.built_files(home())
    for path, text in build.built_files(home()).items():
        if path.suffix == ".ipynb":
            nbformat.validate(json.loads(text))


def test_a_cell_keeps_its_id_when_another_is_put_before_it():
    def ids(*texts: str) -> list[str]:
        return [
            cell["id"] for cell in json.loads(build.render("name", [build.code_cell(text) for text in texts]))["cells"]
        ]

    assert ids("a", "b") == ids("new", "a", "b")[1:]
    assert len(set(ids("a", "a", "a"))) == 3


def test_an_edited_or_missing_notebook_is_stale_and_building_mends_it(checkout: Catalog, capsys):
    path = checkout.leaves(STEM).notebook
    path.write_text(path.read_text().replace("Conventions", "Customs"))
    assert cli.main(["build", "--check"]) == cli.SOME_NEED_A_PERSON
    said = capsys.readouterr().out
    assert f"stale: source/{STEM}/{STEM}.ipynb" in said
    assert "ftgrade build" in said
    path.unlink()
    assert build.stale_files(checkout) == [path]
    assert cli.main(["build"]) == cli.FINE
    assert cli.main(["build", "--check"]) == cli.FINE


def test_building_keeps_what_a_learner_wrote_in_a_notebook(checkout: Catalog, capsys):
    path = checkout.leaves(STEM).notebook
    mine = path.read_text().replace("    raise NotImplementedError\\n", "    return d_out\\n", 1)
    for name in (f"{STEM}.ipynb", f"{STEM}-2.ipynb"):
        path.write_text(mine)
        assert cli.main(["build"]) == cli.FINE
        kept = Path("work", STEM, name)
        assert f"your answers are kept in {kept}" in capsys.readouterr().out
        assert (checkout.root / kept).read_text() == mine
    path.write_text(path.read_text().replace("Conventions", "Customs"))
    assert cli.main(["build"]) == cli.FINE
    assert len(list((checkout.root / "work" / STEM).iterdir())) == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('# %% hole="card"', "# %%", "`card` once, and holds it 0 times"),
        ('hole="answer" function="breakeven_rank"', 'hole="answer" function="low_rank_dof"', "answer breakeven_rank"),
        ('# %% hole="setup"', '# %% hole="sketch"', "holes are card, setup, answer, checks, personal, written"),
    ],
)
def test_a_wrong_hole_is_named_with_the_mend(checkout: Catalog, old: str, new: str, words: str):
    master = checkout.leaves(STEM).source
    master.write_text(master.read_text().replace(old, new))
    with pytest.raises(AuthorFault, match=words):
        build.problem_notebook(checkout, STEM)


def test_a_new_problem_passes_the_laws_as_it_is_written(checkout: Catalog):
    before = checkout.stems()
    assert cli.main(["new", "dora_magnitude"]) == cli.FINE
    (stem,) = set(checkout.stems()) - set(before)
    assert stem.endswith("_dora_magnitude")
    assert checkout.leaves(stem).missing() == []
    judging = Oracle(checkout, stem)
    assert judging.problem.points == 10
    assert all(verdict.worst is None for verdict in judging.judge(local_ask(checkout.solution(stem)), list(range(20))))
    broken: dict[str, tuple[str, ...]] = {}
    for mistake in judging.problem.mistakes:
        lost = [one for one in judging.judge(local_ask(with_mistake(checkout, stem, mistake)), [1]) if one.worst]
        assert [verdict.mistake for verdict in lost] == [mistake]
        assert sum(verdict.check.points for verdict in lost) <= 5
        broken[mistake.name] = tuple(name for verdict in lost for name in verdict.broken)
    assert keep_ledger(checkout, judging, 1, broken).troubles == ()
    assert len({str(judging.personal_answer(seed, judging.reference)) for seed in range(20)}) >= 15
    nbformat.validate(json.loads(build.problem_notebook(checkout, stem)))
    assert len(checkout.submissions(stem, "broken")) >= 5


def test_a_name_that_no_notebook_knows_is_told_while_building(checkout: Catalog):
    solution = checkout.leaves(STEM).solution
    text = solution.read_text()
    solution.write_text(text.replace("d_out: int", "d_out: Whole", 1))
    with pytest.raises(AuthorFault, match="a contract uses 'Whole', which no notebook knows"):
        build.problem_notebook(checkout, STEM)


def test_a_slug_that_is_no_name_is_refused(checkout: Catalog):
    with pytest.raises(AuthorFault, match="lower-case"):
        build.new_problem(checkout, "No-Slug")


def test_a_problem_is_found_by_its_short_names_and_an_unknown_one_is_said():
    catalog = home()
    assert {catalog.stem(name) for name in ("p03", "3", "03", STEM)} == {STEM}
    with pytest.raises(CourseFault, match="there is no problem 'p99'"):
        catalog.stem("p99")


def test_a_leaf_that_does_not_import_is_its_authors_fault(checkout: Catalog):
    checkout.leaves(STEM).problem.write_text("1 / 0")
    with pytest.raises(AuthorFault, match="ZeroDivisionError"):
        load_problem(checkout, STEM)
    checkout.leaves(STEM).problem.write_text("problem = 3")
    with pytest.raises(AuthorFault, match="must define"):
        load_problem(checkout, STEM)


def test_filling_and_checking_from_the_command_line(tmp_path: Path, capsys):
    answers, notebook = tmp_path / "answers.py", tmp_path / f"{STEM}.ipynb"
    answers.write_text(home().leaves(STEM).solution.read_text())
    assert cli.main(["fill", "p03", str(answers), "-o", str(notebook)]) == cli.FINE
    assert cli.main(["check", str(notebook)]) == cli.FINE
    assert "10 of 11 points" in capsys.readouterr().out
    notebook.write_text("{")
    assert cli.main(["check", str(notebook)]) == cli.SOME_NEED_A_PERSON
