"""The formula sheet and the glossary: every subtopic once, every link alive, what stands twice or is missing told."""

import json
import re
from pathlib import Path

import pytest
from ftgrade.authoring.lessons import headings
from ftgrade.authoring.sheets import formula_sheet, glossary, read_parts, sheets
from ftgrade.catalog import Catalog, home
from ftgrade.errors import AuthorFault

COURSE = home().root / "course"
THEORY = """# %% [markdown]
# # Part 6: areas
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $a, b$ | sides | metres |
# | $F$ | area of the rooms of a flat | square metres |

# %% [markdown]
# ## 6.1 A rectangle
#
# **Its area is the product
# of its sides.**
#
# $$F_1 = a\\,b , $$
#
# The **diagonal** is $\\sqrt{a^2 + b^2}$. Not this one: **4** of 5.
#
# **Check.** It holds.

# %%
a = "**not prose**"

# %% [markdown]
# ## 6.2 Rooms of a flat
#
# **A flat is a sum of rooms.**
#
# $$F = \\sum_k F_k$$
#
# and later $$F > 0 .$$

# %% [markdown]
# ## What to keep
#
# **Bold** and $$F = 1 .$$
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Return a repository with one part of two subtopics."""
    (tmp_path / "course" / "text" / "06_areas").mkdir(parents=True)
    (tmp_path / "course" / "text" / "06_areas" / "theory.py").write_text(THEORY)
    return Catalog(tmp_path)


def rewritten(catalog: Catalog, old: str, new: str) -> Catalog:
    assert old in THEORY
    (catalog.root / "course" / "text" / "06_areas" / "theory.py").write_text(THEORY.replace(old, new))
    return catalog


def test_every_subtopic_that_is_written_stands_once_in_each_sheet():
    texts = {path.stem: text for path, text in sheets(home()).items()}
    for number, (name, _) in headings(home()).items():
        assert texts["formulas"].count(f"[{number} {name}](") == 1
        assert texts["glossary"].count(f"- **{name}** ([{number}](") == 1
    assert texts["formulas"].count("$$") == 2 * len(headings(home()))


def test_every_part_names_its_symbols():
    for part in read_parts(home()):
        assert len(part.symbols) >= 3, (
            f"{part.title} needs a table that opens with | symbol | what it is | shape or unit |"
        )


@pytest.mark.parametrize("sheet", ["formulas", "glossary"])
def test_every_link_of_a_sheet_resolves(sheet: str):
    text = sheets(home())[COURSE / f"{sheet}.md"]
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > len(headings(home()))
    for target in targets:
        file, _, anchor = target.partition("#")
        assert (COURSE / file).is_file(), target
        if anchor:
            cells = json.loads((COURSE / file).read_text("utf-8"))["cells"]
            said = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
            assert anchor in {head.replace(" ", "-") for head in re.findall(r"^#+ (.+)$", said, re.MULTILINE)}, target


def test_tables_of_symbols_have_four_whole_cells():
    rows = [line for line in glossary(read_parts(home())).splitlines() if line.startswith("|")]
    assert all(row.count("|") == 5 for row in rows)


def test_a_relation_is_the_first_of_its_subtopic_and_a_claim_is_one_line(catalog: Catalog):
    sheet = formula_sheet(read_parts(catalog))
    assert (
        "**[6.1 A rectangle](06_areas/theory.ipynb#6.1-A-rectangle).** Its area is the product of its sides." in sheet
    )
    assert "$$F_1 = a\\,b $$" in sheet
    assert "$$F = \\sum_k F_k$$" in sheet
    assert "F > 0" not in sheet
    assert "F = 1" not in sheet


def test_a_letter_leads_to_the_subtopic_that_means_it(catalog: Catalog):
    """6.1 has an $F_1$, but the row says rooms of a flat."""
    rows = [line for line in glossary(read_parts(catalog)).splitlines() if line.startswith("| $")]
    assert rows == [
        "| $a, b$ | sides | metres | [6.1](06_areas/theory.ipynb#6.1-A-rectangle) |",
        "| $F$ | area of the rooms of a flat | square metres | [6.2](06_areas/theory.ipynb#6.2-Rooms-of-a-flat) |",
    ]


def test_terms_are_what_a_sentence_sets_in_bold_and_the_subtopics_names(catalog: Catalog):
    terms = [line.partition(" (")[0] for line in glossary(read_parts(catalog)).splitlines() if line.startswith("- **")]
    assert terms == ["- **A rectangle**", "- **diagonal**", "- **Rooms of a flat**"]
    assert "The diagonal is $\\sqrt{a^2 + b^2}$.\n" in glossary(read_parts(catalog))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("## 6.2 Rooms of a flat", "## 6.1 Rooms of a flat", "the number of 6.1 A rectangle"),
        ("## 6.2 Rooms of a flat", "## 6.2 A rectangle", "the name of 6.1 A rectangle"),
        ("$$F = \\\\sum_k F_k$$".replace("\\\\", "\\"), "$$F_1\n# = a\\,b , $$", "the relation of 6.1 A rectangle"),
        ("## 6.2 Rooms of a flat", "## 7.2 Rooms of a flat", "7.2 stands in part 6"),
        ("**A flat is a sum of rooms.**", "A flat is a sum of **rooms**.", "6.2 must open with its claim"),
        ("$$F_1 = a\\,b , $$", "$F_1 = a\\,b$", "6.1 must show its relation"),
        ("| $F$ |", "| $a, b$ |", r"\$a, b\$ stands twice"),
        ("square metres", "square | metres", "three cells"),
        ("# # Part 6: areas", "# areas", "must open with the part's title"),
    ],
)
def test_what_stands_twice_or_is_missing_is_told(catalog: Catalog, old: str, new: str, words: str):
    with pytest.raises(AuthorFault, match=words):
        sheets(rewritten(catalog, old, new))


def test_a_course_without_parts_has_no_sheets(tmp_path: Path):
    (tmp_path / "course" / "text").mkdir(parents=True)
    assert sheets(Catalog(tmp_path)) == {}
