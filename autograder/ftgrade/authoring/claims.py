"""The course's conclusions in one sheet: each with its control, what was measured, its scope, and its cell.

The words are read from the masters, and the figures from `claims.json` beside each master, which
`python3 start.py test course --nulls --record` writes.
"""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ftgrade.authoring.lessons import part_of
from ftgrade.catalog import Catalog
from ftgrade.errors import AuthorFault

HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
WORDS = ("figure", "null", "scope")
FIGURES: tuple[str, ...] = ("measured", "control")
NEEDED = {*WORDS, *FIGURES, "holds"}
NOT_RECORDED = dict.fromkeys(FIGURES, "not recorded yet")


@dataclass(frozen=True, slots=True)
class Claim:
    """A `finding(...)` of a theory notebook, as its master says it, and the heading that it stands under."""

    says: str
    figure: str
    null: str
    scope: str
    heading: str

    @property
    def place(self) -> str:
        """Return the number of its subtopic, or the words of a heading without one."""
        number = self.heading.partition(" ")[0]
        return number if re.fullmatch(r"\d+\.\w", number) else self.heading

    @property
    def anchor(self) -> str:
        return self.heading.replace(" ", "-")


def read_claims(master: Path) -> list[Claim]:
    """Return the findings of a master in their order. Raises AuthorFault for words or figures that aren't as asked."""
    text = master.read_text("utf-8")
    plain = text.replace("# ## ", "## ")  # a heading of a master stands in a comment; line numbers stay
    heads = [(plain[: head.start()].count("\n") + 1, head) for head in HEADING.finditer(plain)]
    calls = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "finding"
    ]
    found: list[Claim] = []
    for call in sorted(calls, key=lambda call: call.lineno):
        above = [head for line, head in heads if line < call.lineno]
        place = f"{master.parent.name}/{master.name}:{call.lineno}"
        if not above:
            raise AuthorFault(f"{place}: a finding must stand under a heading")
        words = demand_words(call, place)
        found.append(Claim(**words, heading=above[-1][1].strip()))
    return found


def demand_words(call: ast.Call, place: str) -> dict[str, str]:
    """Return a finding's words. Raises AuthorFault unless they are plain text and its figures come from a run."""
    named = {word.arg: word.value for word in call.keywords if word.arg}
    if len(call.args) != 1 or named.keys() != NEEDED:
        raise AuthorFault(f"{place}: write `finding(says, {'=, '.join(sorted(NEEDED))}=)`, each by its name")
    words = {"says": call.args[0]} | {name: named[name] for name in WORDS}
    for name, node in words.items():
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip()):
            raise AuthorFault(f"{place}: `{name}` must be a plain text; numbers belong into `measured` and `control`")
    for name in FIGURES:
        if not any(isinstance(node, ast.Name) for node in ast.walk(named[name])):
            raise AuthorFault(f"{place}: `{name}` must be computed or read from a record, not written by hand")
    return {name: str(ast.literal_eval(node)) for name, node in words.items()}


def recorded_figures(master: Path) -> dict[str, dict[str, str]]:
    """Return what the last recorded run measured for each claim of a master; nothing if none was recorded."""
    path = master.with_name("claims.json")
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def claims_sheet(catalog: Catalog) -> dict[Path, str]:
    """Return the sheet of claims with its path; none where no notebook has a finding."""
    about = (
        "Each conclusion of the course that rests on runs, beside the run that would look the same if it were false. "
        "`python3 start.py test course --nulls` runs all of them again, and demands that every assertion fails on its "
        "control. The figures are those of the last recorded run; another machine gives others. No claim is wider than "
        "its scope."
    )
    lines = ["# Claims and their controls", "", about]
    for master, notebook in catalog.course_text().items():
        claims = read_claims(master) if master.name == "theory.py" and part_of(master) is not None else []
        if not claims:
            continue
        address = notebook.relative_to(catalog.root / "course").as_posix()
        figures = recorded_figures(master)
        title = re.search(r"^# # (.+)$", master.read_text("utf-8"), re.MULTILINE)
        lines += ["", f"## [{title[1] if title else master.parent.name}]({address})", ""]
        lines += ["| cell | claim | measured | control | scope |", "| --- | --- | --- | --- | --- |"]
        lines += [row(claim, address, figures.get(claim.says, NOT_RECORDED)) for claim in claims]
    return {catalog.root / "course" / "claims.md": "\n".join(lines) + "\n"} if len(lines) > 3 else {}


def row(claim: Claim, address: str, seen: dict[str, str]) -> str:
    """Return a claim's row, with its figures as they were recorded."""
    cells = [
        f"[{claim.place}]({address}#{claim.anchor})",
        claim.says,
        f"{claim.figure}: {seen['measured']}",
        f"{claim.null}: {seen['control']}",
        claim.scope,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


__all__ = ["Claim", "claims_sheet", "read_claims", "recorded_figures"]
