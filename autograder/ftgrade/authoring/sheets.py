"""The parts' texts to two sheets: every relation once; what each symbol and term means, and where it first stands."""

import re
from dataclasses import dataclass
from pathlib import Path

from ftgrade.authoring.lessons import HEADING, part_of
from ftgrade.catalog import Catalog
from ftgrade.errors import AuthorFault

CLAIM = re.compile(r"\s*\*\*(.+?)\*\*", re.DOTALL)
RELATION = re.compile(r"\$\$.+?\$\$", re.DOTALL)
MATH = re.compile(r"\$+([^$]+)\$+")
DEFINED = re.compile(
    r"(?<=\w )\*\*([a-z][a-z -]{2,40})\*\*"
)  # a term in bold within a sentence, not a label at its start
SYMBOLS = "| symbol | what it is | shape or unit |"


@dataclass(frozen=True, slots=True)
class Subtopic:
    """A subtopic as the sheets need it: its claim, its first relation, and all that its cells say."""

    number: str
    name: str
    claim: str
    relation: str
    text: str
    notebook: str

    @property
    def link(self) -> str:
        """Return the address of its heading, from the folder `course`."""
        return f"{self.notebook}#{self.number}-{self.name.replace(' ', '-')}"


@dataclass(frozen=True, slots=True)
class Symbol:
    """A row of a part's table of symbols."""

    tex: str
    meaning: str
    shape: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part's title, its table of symbols and its subtopics, in order."""

    number: int
    title: str
    notebook: str
    symbols: list[Symbol]
    subtopics: list[Subtopic]


# ------------------------------------------------------------------------------------------------------------- reading


def prose(master: Path) -> str:
    """Return the markdown of a py:percent master."""
    lines: list[str] = []
    inside = False
    for line in master.read_text("utf-8").splitlines():
        if line.startswith("# %%"):
            inside = "[markdown]" in line
            lines.append("")
        elif inside:
            lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def read_parts(catalog: Catalog) -> list[Part]:
    """Return the parts that have subtopics. Raises AuthorFault for a piece that is missing or stands twice."""
    found: list[Part] = []
    for master, path in catalog.course_text().items():
        number = part_of(master)
        if master.name == "theory.py" and number is not None:
            part = read_part(number, prose(master), path.relative_to(catalog.root / "course").as_posix())
            found += [part] if part.subtopics else []
    demand_distinct(found)
    return found


def read_part(number: int, text: str, notebook: str) -> Part:
    """Return a part from its markdown. Raises AuthorFault for a missing piece."""
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    if title is None:
        raise AuthorFault(f"{notebook}: its first cell must open with the part's title, `# # Part {number}: …`")
    heads = [head for head in HEADING.finditer(text) if head[1].replace(".", "").isdecimal()]
    ends = [*(head.start() for head in heads[1:]), len(text)]
    subtopics = [
        read_subtopic(head[1], head[2].strip(), text[head.end() : end], notebook)
        for head, end in zip(heads, ends, strict=True)
    ]
    for subtopic in subtopics:
        if subtopic.number.split(".")[0] != str(number):
            raise AuthorFault(f"{notebook}: subtopic {subtopic.number} stands in part {number}")
    return Part(number, title[1].strip(), notebook, read_symbols(text, notebook), subtopics)


def read_subtopic(number: str, name: str, text: str, notebook: str) -> Subtopic:
    """Return a subtopic from the markdown under its heading. Raises AuthorFault without a claim or a relation."""
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]  # what follows the last subtopic has headings of its own
    claim, relation = CLAIM.match(text), RELATION.search(text)
    if claim is None:
        raise AuthorFault(f"{notebook}: {number} must open with its claim in bold")
    if relation is None:
        raise AuthorFault(f"{notebook}: {number} must show its relation between `$$` and `$$`")
    return Subtopic(number, name, one_line(claim[1]), relation[0], text, notebook)


def read_symbols(text: str, notebook: str) -> list[Symbol]:
    """Return the rows of a part's table of symbols. Raises AuthorFault for a torn or repeated row."""
    if SYMBOLS not in text:
        return []
    found: list[Symbol] = []
    for line in text.partition(SYMBOLS)[2].splitlines()[2:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3:
            raise AuthorFault(
                f"{notebook}: a row of symbols has three cells, and `{line}` has {len(cells)}: "
                "in a table, `|` within a formula is written \\lvert, \\rvert or \\mid"
            )
        if any(cells[0] == symbol.tex for symbol in found):
            raise AuthorFault(f"{notebook}: the symbol {cells[0]} stands twice in the table of symbols")
        found.append(Symbol(*cells))
    return found


def demand_distinct(found: list[Part]) -> None:
    """Raise AuthorFault for a number, name or relation that two subtopics share."""
    seen: dict[tuple[str, str], str] = {}
    for part in found:
        for subtopic in part.subtopics:
            pieces = {"number": subtopic.number, "name": subtopic.name, "relation": "".join(subtopic.relation.split())}
            for what, piece in pieces.items():
                if (what, piece) in seen:
                    raise AuthorFault(
                        f"{subtopic.number} {subtopic.name} has the {what} of {seen[what, piece]}: "
                        "each subtopic says one thing, once"
                    )
                seen[what, piece] = f"{subtopic.number} {subtopic.name}"


def one_line(text: str) -> str:
    """Return a text of several lines as one line."""
    return " ".join(text.split())


# ------------------------------------------------------------------------------------------------------------- writing


def formula_sheet(found: list[Part]) -> str:
    """Return the formula sheet: each subtopic's claim and relation, by part."""
    about = (
        "One claim and one relation for each subtopic; a number leads to the notebook that derives and measures it. "
        "Logarithms are natural, losses and divergences in nats. What a letter means in a part stands in the "
        "[glossary](glossary.md)."
    )
    lines = ["# Formula sheet", "", about]
    for part in found:
        lines += ["", f"## [{part.title}]({part.notebook})"]
        for subtopic in part.subtopics:
            heading = f"[{subtopic.number} {subtopic.name}]({subtopic.link})"
            lines += ["", f"**{heading}.** {subtopic.claim}", "", stack(subtopic.relation)]
    return "\n".join(lines) + "\n"


def stack(relation: str) -> str:
    r"""Return a relation with the statements that wide spaces part in lines of their own, so that it fits a column.

    >>> stack(r"$$a = b, \qquad c = d .$$")
    '$$\\begin{gathered}\na = b, \\\\\nc = d .\n\\end{gathered}$$'
    >>> stack(r"$$\text{if \qquad so}$$")
    '$$\\text{if \\qquad so}$$'
    """
    relation = re.sub(r"[,;]\s*\$\$$", "$$", relation)  # where the text goes on after it, the sheet doesn't
    lines, depth = [""], 0
    for piece in re.split(r"(\\qquad|\\[{}]|[{}])", relation.strip("$")):
        depth += {"{": 1, "}": -1}.get(piece, 0)
        if piece == r"\qquad" and depth == 0:
            lines.append("")
        else:
            lines[-1] += piece
    if len(lines) == 1 or r"\begin" in relation:
        return relation
    body = " \\\\\n".join(one_line(line) for line in lines)
    return f"$$\\begin{{gathered}}\n{body}\n\\end{{gathered}}$$"


def glossary(found: list[Part]) -> str:
    """Return the glossary: symbols by part with shape or unit, and terms by name, each with its first place."""
    about = (
        "Letters are few: one that means two things stands under each part that uses it. Shapes and axes are those of "
        "the code; linear layers are $y = Wx$ with $W$ of shape $(d_\\text{out}, d_\\text{in})$."
    )
    lines = ["# Glossary", "", about, "", "## Symbols"]
    told: set[tuple[str, str]] = set()
    for part in found:
        new = [symbol for symbol in part.symbols if (symbol.tex, symbol.meaning) not in told]
        told |= {(symbol.tex, symbol.meaning) for symbol in new}
        if new:
            lines += [
                "",
                f"### [{part.title}]({part.notebook})",
                "",
                f"{SYMBOLS} first in |",
                "| --- | --- | --- | --- |",
            ]
            lines += [symbol_row(symbol, part) for symbol in new]
    lines += ["", "## Terms", ""]
    lines += sorted((term for part in found for one in part.subtopics for term in terms(one)), key=by_name)
    return "\n".join(lines) + "\n"


def symbol_row(symbol: Symbol, part: Part) -> str:
    """Return a symbol's row, with the link to the first subtopic of its part that uses it."""
    one = first_use(symbol, part.subtopics)
    place = f"[{one.number}]({one.link})" if one else f"[part {part.number}]({part.notebook})"
    return f"| {symbol.tex} | {symbol.meaning} | {symbol.shape} | {place} |"


def first_use(symbol: Symbol, subtopics: list[Subtopic]) -> Subtopic | None:
    """Return the first subtopic whose formulas hold the first letter of a row, or the one named after its meaning.

    A part may use a letter for something else before: the soft prompt $P$ stands in the subtopic on soft prompts.
    """
    letter = re.split(r",(?![^{]*})", MATH.sub(r"\1", symbol.tex))[0].strip()
    whole = re.compile(rf"(?<![A-Za-z\\]){re.escape(letter)}(?![A-Za-z]|_\\mathrm)")
    using = [one for one in subtopics if any(whole.search(formula) for formula in MATH.findall(one.text))]
    words = [word.removesuffix("s") for word in re.findall(r"[a-z]{4,}", symbol.meaning.lower())]
    named = [one for one in using if sum(word in one.name.lower() for word in words) >= 2]
    return next(iter([*named, *using]), None)


def terms(subtopic: Subtopic) -> list[str]:
    """Return a subtopic's lines of the glossary: its own name, and the terms that it sets in bold within a sentence."""
    place = f"[{subtopic.number}]({subtopic.link})"
    found = [f"- **{subtopic.name}** ({place}): {subtopic.claim}"]
    for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z$*])", one_line(re.sub(r"<[^>]+>", " ", subtopic.text))):
        for term in DEFINED.findall(sentence):
            found.append(f"- **{term}** ({place}): {sentence.replace(f'**{term}**', term)}")
    return found


def by_name(line: str) -> str:
    """Return what a term's line is sorted by.

    >>> by_name("- **Task loss** ([1.2](x)): it falls")
    'task loss'
    """
    return line.split("**")[1].lower()


def sheets(catalog: Catalog) -> dict[Path, str]:
    """Return the sheets of the parts that are written, each with its path; none where there is no part."""
    found = read_parts(catalog)
    if not found:
        return {}
    course = catalog.root / "course"
    return {course / "formulas.md": formula_sheet(found), course / "glossary.md": glossary(found)}


__all__ = ["Part", "Subtopic", "Symbol", "formula_sheet", "glossary", "read_parts", "sheets"]
