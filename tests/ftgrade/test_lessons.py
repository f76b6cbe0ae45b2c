"""Parts' masters to notebooks: exercise holes, blanks, the front door's tables, and faults told to the author."""

import json
import shutil
from pathlib import Path

import pytest
from ftgrade.authoring.build import build, course_notebook, stale_files
from ftgrade.authoring.claims import claims_sheet, read_claims
from ftgrade.authoring.lessons import (
    checks_link,
    cut_contract,
    fill_links,
    headings,
    read_stubs,
    signposts,
    traceability,
)
from ftgrade.catalog import Catalog, home
from ftgrade.errors import AuthorFault

PART = '''
def area(width: int, height: int) -> int:
    """Return the area.

    >>> area(2, 3)
    6
    """
    # A comment stays.
    product = width * height  # blank
    return product  # blank


EXERCISES = [
    Exercise("6.1", "An area", area, cases=[(2, 3)], hints=["Multiply."], mistakes=[], minutes=3, difficulty=2),
]
'''
MASTER = """# %% [markdown]
# ## 6.1 An area

# %% exercise="6.1" fade="half"
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Return a repository with one part and its one exercise."""
    for drawer in ("source", "solutions", "autograder/problems", "autograder/builders"):
        shutil.copytree(home().root / drawer, tmp_path / drawer)
    (tmp_path / "course" / "text" / "06_areas").mkdir(parents=True)
    (tmp_path / "course" / "ftmath" / "exercises").mkdir(parents=True)
    (tmp_path / "course" / "ftmath" / "exercises" / "part06.py").write_text(PART)
    (tmp_path / "course" / "text" / "06_areas" / "exercises.py").write_text(MASTER)
    return Catalog(tmp_path)


def test_a_hole_becomes_a_card_a_stub_with_blanks_and_a_check(catalog: Catalog):
    assert [path.name for path in build(catalog)] == ["exercises.ipynb"]
    assert stale_files(catalog) == []
    text = (catalog.root / "course" / "06_areas" / "exercises.ipynb").read_text()
    assert "about 3 minutes. Fill what `...` stands for." in text
    assert "product = ..." in text
    assert "return ..." in text
    assert "# A comment stays." in text
    assert "width * height" not in text
    assert 'check_exercise(\\"6.1\\", area)' in text


def test_a_blank_stub_has_the_contract_and_no_body(catalog: Catalog):
    file = catalog.root / "course" / "ftmath" / "exercises" / "part06.py"
    stub = read_stubs(file)["6.1"]
    assert stub.contract.endswith("    raise NotImplementedError")
    assert ">>> area(2, 3)" in stub.contract
    assert "product" not in stub.contract


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('exercise="6.1"', 'exercise="6.9"', "asks for exercise 6.9"),
        ('exercise="6.1" fade="half"', 'hole="figure"', "has a hole 'figure'"),
        ('# %% exercise="6.1" fade="half"', "# %%\n1 + 1", "must ask"),
    ],
)
def test_a_hole_that_nothing_fills_is_told(catalog: Catalog, old: str, new: str, words: str):
    master = catalog.root / "course" / "text" / "06_areas" / "exercises.py"
    master.write_text(MASTER.replace(old, new))
    with pytest.raises(AuthorFault, match=words):
        course_notebook(catalog, master, "exercises")


def test_a_name_that_a_stub_uses_and_its_notebook_lacks_is_told(catalog: Catalog):
    """A contract may be annotated with a name that only the library's file imports: the cell would crash."""
    file = catalog.root / "course" / "ftmath" / "exercises" / "part06.py"
    file.write_text(PART.replace("width: int", "width: Mapping[str, int]"))
    master = catalog.root / "course" / "text" / "06_areas" / "exercises.py"
    with pytest.raises(AuthorFault, match=r"6\.1 uses Mapping"):
        course_notebook(catalog, master, "exercises")
    master.write_text("# %%\nfrom collections.abc import Mapping\n\n" + MASTER)
    assert "Mapping" in course_notebook(catalog, master, "exercises")


def test_an_exercise_without_its_function_is_told(catalog: Catalog):
    file = catalog.root / "course" / "ftmath" / "exercises" / "part06.py"
    file.write_text(PART.replace("def area", "def other"))
    with pytest.raises(AuthorFault, match=r"6.1"):
        read_stubs(file)


def test_links_of_parts_appear_when_they_are_written(catalog: Catalog):
    linked = fill_links(catalog, "PART06 and PART07")
    assert linked == (
        "[theory](06_areas/theory.ipynb) · [exercises](06_areas/exercises.ipynb) and being written"
    )  # fmt: skip


def test_a_check_that_no_problem_has_is_told():
    assert checks_link(home(), "p03", ["count"]).endswith("count")
    with pytest.raises(AuthorFault, match="'counts'"):
        checks_link(home(), "p03", ["counts"])


def test_the_table_links_each_subtopic_that_is_written():
    table = traceability(home())
    for number, (name, notebook) in headings(home()).items():
        assert f"[{number} {name}]({notebook.parent.name}/theory.ipynb#{number}-{name.replace(' ', '-')})" in table


def test_a_line_is_left_blank_only_where_it_is_marked():
    import ast

    node = ast.parse(PART).body[0]
    assert isinstance(node, ast.FunctionDef)
    contract, half = cut_contract(PART, node)
    assert half.count("...") == 2
    assert contract.count("\n") < half.count("\n")


def test_a_folded_cell_is_one_click_away_and_says_so_to_the_web_pages(catalog: Catalog):
    master = catalog.root / "course" / "text" / "06_areas" / "exercises.py"
    master.write_text(MASTER + '\n# %% fold="imports"\nimport math\n')
    cells = json.loads(course_notebook(catalog, master, "exercises"))["cells"]
    folded = [cell for cell in cells if cell["metadata"]]
    assert ["".join(cell["source"]) for cell in folded] == ["import math"]
    assert folded[0]["metadata"] == {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}


def test_a_part_ends_in_links_to_what_is_there_alone(catalog: Catalog):
    master = catalog.root / "course" / "text" / "06_areas" / "exercises.py"
    assert "](" not in signposts(catalog, master)
    for folder in ("05_lines", "07_volumes"):
        (master.parent.parent / folder).mkdir()
        (master.parent.parent / folder / "theory.py").write_text(f"# %% [markdown]\n# # {folder}\n")
    master.with_name("theory.py").write_text("# %% [markdown]\n# # Areas\n")
    links = signposts(catalog, master)
    assert "[← 05_lines](../05_lines/theory.ipynb)" in links
    assert "[theory of this part](theory.ipynb)" in links
    assert links.endswith("[07_volumes →](../07_volumes/theory.ipynb)")
    part05 = next(path for path in home().course_text() if path.parent.name == "05_lora_algebra")
    assert "[p05](../../source/p05_truncated_svd/p05_truncated_svd.ipynb)" in signposts(home(), part05)


# ------------------------------------------------------------------------------------------------------------- claims

FINDING = """# %% [markdown]
# # Areas
#
# ## 6.1 An area
#
# **It grows.**
#
# $$a = b$$

# %%
grown = [2, 3, 4]
finding(
    "The | area grows",
    figure="area, m2",
    measured=grown,
    null="no growth",
    control=[1 for _ in grown],
    holds=lambda v: min(v) > 1,
    scope="three",
)
"""


def test_a_claim_stands_in_the_sheet_with_its_cell_and_what_was_recorded(catalog: Catalog):
    master = catalog.root / "course" / "text" / "06_areas" / "theory.py"
    assert claims_sheet(catalog) == {}
    master.write_text(FINDING)
    (text,) = claims_sheet(catalog).values()
    cell = "[6.1](06_areas/theory.ipynb#6.1-An-area)"
    assert read_claims(master)[0].place == "6.1"
    assert f"| {cell} | The \\| area grows | area, m2: not recorded yet | no growth: not recorded yet | three |" in text
    record = {"The | area grows": {"measured": "3", "control": "1"}}
    master.with_name("claims.json").write_text(json.dumps(record))
    (text,) = claims_sheet(catalog).values()
    assert "area, m2: 3 | no growth: 1 |" in text
    assert catalog.root / "course" / "claims.md" in build(catalog)
    assert stale_files(catalog) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("# ## 6.1 An area", "#", "must stand under a heading"),
        ('"three"', 'f"{3} seeds"', "`scope` must be a plain text"),
        ("measured=grown", "measured=[2, 3, 4]", "`measured` must be computed"),
        ('    null="no growth",\n', "", "write `finding"),
    ],
)
def test_a_finding_that_is_not_as_asked_is_told(catalog: Catalog, old: str, new: str, words: str):
    master = catalog.root / "course" / "text" / "06_areas" / "theory.py"
    master.write_text(FINDING.replace(old, new))
    with pytest.raises(AuthorFault, match=words):
        read_claims(master)
