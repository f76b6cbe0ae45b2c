"""Who is in a class, and where a report on it leads: names, sections, feedback pages, fields in formgrader."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Roll:
    """What a class report tells of students beside their reports; what isn't known is left out of the page.

    `pages` holds the (student, problem) that have a feedback page; `submissions` formgrader's number of each, and
    `fields` the place of a check's points on its page, by problem and check. `server` is where formgrader runs.
    """

    names: Mapping[str, str] = field(default_factory=dict[str, str])
    sections: Mapping[str, str] = field(default_factory=dict[str, str])
    pages: frozenset[tuple[str, str]] = frozenset()
    submissions: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    fields: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    server: str = ""

    def name(self, student: str) -> str:
        return self.names.get(student, "")

    def section(self, student: str) -> str:
        return self.sections.get(student, "")

    def page(self, student: str, stem: str, check: str = "") -> str:
        """Return the address of a feedback page, from the course's folder; empty where there is none.

        >>> Roll(pages=frozenset({("zo\u00eb k", "p03_x")})).page("zo\u00eb k", "p03_x", "err")
        'feedback/zo%C3%AB%20k/p03_x/p03_x.html#check-err'
        """
        if (student, stem) not in self.pages:
            return ""
        return quote(f"feedback/{student}/{stem}/{stem}.html") + (f"#check-{quote(check)}" if check else "")

    def box(self, student: str, stem: str, check: str) -> str:
        """Return the address of the field for a check's points in formgrader; empty where there is no submission."""
        number = self.submissions.get((student, stem))
        if not number:
            return ""
        return (
            f"{self.server}/formgrader/submissions/{number}/?index={self.fields.get((stem, check), 0)}#{quote(check)}"
        )


__all__ = ["Roll"]
