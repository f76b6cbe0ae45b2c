"""A part's lesson, cut into slides: every word and number comes from the notebook and its outputs.

A section becomes a few slides: its claim with its first formula; a figure beside the finding that it leads to;
its other findings. Where another figure comes first, it is below the claim. A section without a claim in bold and
without a finding has no slide. The speaker's notes hold the prose.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 25
"""How many slides a deck may have."""
OTHERS = 3
"""How many findings a slide can hold without a figure."""
CARD = re.compile(r"\*\*Part\*\* (?P<part>[\w ]+?) · .*?(?P<facts>\*\*about\*\* \d+ minutes · \*\*\d+ points?\*\*)")
ABLE = re.compile(r"(?:Afterwards you can|You'll be able to) .*?\.(?= About \d)")
NOTEBOOK_LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:)[^()\s]+\)")
Cell = dict[str, Any]
Notebook = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Slide:
    """A slide: Markdown, and beside it outputs of the notebook as HTML; `notes` is Markdown for the speaker."""

    kind: str
    title: str
    text: str = ""
    shown: tuple[str, ...] = ()
    notes: str = ""


@dataclass(slots=True)
class Section:
    """What a notebook holds from one heading to the next.

    `pair` says which figure and which finding stand together, `places` how many pieces of prose precede each figure.
    """

    title: str
    prose: list[str] = field(default_factory=list[str])
    figures: list[str] = field(default_factory=list[str])
    findings: list[str] = field(default_factory=list[str])
    places: list[int] = field(default_factory=list[int])
    pair: tuple[int, int] | None = None


def deck(lesson: Notebook, exercises: Notebook, problems: Sequence[Notebook], part: str) -> list[Slide]:
    """Return the slides of a part; `part` is its folder's name, by which the problems' cards name it.

    Errors: ValueError for a deck that is too long, and for a lesson that doesn't begin with its claim.
    """
    opening, *rest = sections(lesson)
    slides = [title_slide(opening)]
    for section in rest:
        slides += keep_slide(section) if section.title == "What to keep" else section_slides(section)
    slides.append(work_slide(exercises, problems, part))
    if len(slides) > MOST:
        raise ValueError(f"{opening.title}: a deck has at most {MOST} slides, and this one has {len(slides)}")
    return slides


def sections(lesson: Notebook) -> list[Section]:
    """Return a lesson's sections, each with its prose and with the figures and findings among its outputs."""
    found: list[Section] = []
    for cell in lesson["cells"]:
        if cell["cell_type"] == "markdown":
            text = NOTEBOOK_LINK.sub(r"\1", "".join(cell["source"]))
            for title, prose in headed(text):
                if title or not found:
                    found.append(Section(title))
                found[-1].prose += [prose] if prose else []
        for output in htmls(cell):
            keep_output(found[-1], output)
    return found


def headed(text: str) -> Iterator[tuple[str, str]]:
    """Yield each heading of the first two levels with the text below it; text before any heading has an empty title.

    >>> list(headed("Before.\\n## 5.1 Rank\\n\\n**A claim.**"))
    [('', 'Before.'), ('5.1 Rank', '**A claim.**')]
    """
    before, *parts = re.split(r"^##? (.*)$", text, flags=re.MULTILINE)
    if before.strip():
        yield "", before.strip()
    for title, prose in zip(parts[::2], parts[1::2], strict=True):
        yield title.strip(), prose.strip()


def htmls(cell: Cell) -> list[str]:
    """Return the HTML that a cell gave."""
    return ["".join(output.get("data", {}).get("text/html", "")) for output in cell.get("outputs", [])]


def keep_output(section: Section, output: str) -> None:
    """Add an output to its section, if it's a drawing or a finding; the first finding below a drawing is its pair."""
    if output.startswith('<div role="note"') and "<b>" in output:
        if section.figures and not section.pair:
            section.pair = len(section.figures) - 1, len(section.findings)
        section.findings.append(re.sub(r' style="[^"]*"', "", output).replace("<div", '<div class="finding"', 1))
    elif output.startswith("<figure") and "<svg" in output:
        section.places.append(len(section.prose))
        section.figures.append(re.sub(r"<details.*?</details>", "", output, flags=re.DOTALL))


def title_slide(opening: Section) -> Slide:
    """Return the first slide: the part's claim, and what a reader can do afterwards."""
    text = "\n\n".join(opening.prose)
    claim = re.search(r"\*\*The claim\.\*\*.*?(?=\n\n)", text, flags=re.DOTALL)
    able = ABLE.search(text.replace("\n", " "))
    if not claim or not able:
        raise ValueError(f"{opening.title}: a lesson begins with **The claim.** and says what one can do afterwards")
    return Slide("title", opening.title, f"{claim[0]}\n\n{able[0]}", notes=text)


def section_slides(section: Section) -> list[Slide]:
    """Return a section's slides; none where it neither claims nor finds anything."""
    claim, findings = claim_of(section), section.findings
    if not claim and not findings:
        return []
    figure, finding = section.pair or (0, 0)
    place = (section.places[figure] if section.places else len(section.prose)) if claim else 0
    before, after = "\n\n".join(section.prose[:place]), "\n\n".join(section.prose[place:])
    shown = tuple(section.figures[figure : figure + 1] + findings[finding : finding + 1])
    others = findings[:finding] + findings[finding + 1 :]
    slides: list[Slide] = []
    if claim:
        slides.append(Slide("claim", section.title, claim, tuple(section.figures[:figure][:1]), before))
    if shown:
        slides.append(Slide("figure", section.title, shown=shown, notes=after))
    for start in range(0, len(others), OTHERS):
        some = tuple(others[start : start + OTHERS])
        slides.append(Slide("findings", f"{section.title}: more findings", shown=some))
    return slides


def claim_of(section: Section) -> str:
    """Return the sentences in bold that begin a section, and its first formula; nothing where it begins otherwise.

    >>> claim_of(Section("1.1", ["**Rank is small.**\\n\\nWhy:\\n$$r < d$$ and $$s$$"]))
    '**Rank is small.**\\n\\n$$r < d$$'
    """
    text = "\n\n".join(section.prose)
    claim = re.match(r"\*\*.*?\*\*(?=\s*\n|\s*$)", text, flags=re.DOTALL)
    if not claim:
        claim = re.match(r"\*\*[^\n].*?(?=\n\n|$)", text, flags=re.DOTALL)
    formula = re.search(r"\$\$.*?\$\$", text, flags=re.DOTALL)
    return "\n\n".join(found[0] for found in (claim, formula) if found) if claim else ""


def keep_slide(section: Section) -> list[Slide]:
    """Return the slide of what to keep, which is the lesson's own table."""
    table = "\n".join(line for line in "\n".join(section.prose).splitlines() if line.startswith("|"))
    return [Slide("keep", section.title, table, notes="\n\n".join(section.prose))] if table else []


def work_slide(exercises: Notebook, problems: Sequence[Notebook], part: str) -> Slide:
    """Return the last slide: the part's exercises by their headings, and its graded problems by their cards."""
    texts = ["".join(cell["source"]) for cell in exercises["cells"] if cell["cell_type"] == "markdown"]
    asked = [title for text in texts for title, _ in headed(text) if re.match(r"\d+\.\w+ ", title)]
    graded = [line for problem in problems if (line := graded_line(problem, part))]
    lists = ["**Exercises**", "\n".join(f"- {title}" for title in asked)]
    lists += ["**Graded problems**", "\n".join(f"- {line}" for line in graded)] if graded else []
    opening = "\n\n".join(prose for text in texts[:1] for _, prose in headed(text))
    return Slide("work", "Now you", "\n\n".join(lists), notes=NOTEBOOK_LINK.sub(r"\1", opening))


def graded_line(problem: Notebook, part: str) -> str:
    """Return a problem's title with its minutes and points; nothing if it's another part's.

    >>> card = "**Part** 05 lora algebra · **difficulty** ●● · **about** 40 minutes · **10 points**"
    >>> problem = {"cells": [{"cell_type": "markdown", "source": ["# Problem 3. Count\\n\\n", card]}]}
    >>> graded_line(problem, "05_lora_algebra"), graded_line(problem, "01_local_adaptation")
    ('Problem 3. Count (about 40 minutes, 10 points)', '')
    """
    text = "\n\n".join("".join(cell["source"]) for cell in problem["cells"] if cell["cell_type"] == "markdown")
    card = CARD.search(text)
    if not card or card["part"] != part.replace("_", " "):
        return ""
    return f"{next(headed(text))[0]} ({card['facts'].replace('**', '').replace(' · ', ', ')})"
