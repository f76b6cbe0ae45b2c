"""What people see of a watched class: a live table of its problems in a terminal, and lines where nobody watches."""

import contextlib
import statistics
from collections import defaultdict, deque
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ftgrade.commands.terminal import Out, console, table
from ftgrade.intake.gate import line

if TYPE_CHECKING:
    from ftgrade.classroom.watching import Event

LAST_EVENTS = 8


@dataclass(slots=True)
class Row:
    """What was seen of one problem: by student the score, who needs a person, who is held; the seconds to each page."""

    scores: dict[str, float] = field(default_factory=dict[str, float])
    troubled: set[str] = field(default_factory=set[str])
    held: set[str] = field(default_factory=set[str])
    seconds: list[float] = field(default_factory=list[float])

    def saw(self, event: "Event") -> None:
        if event.kind in ("booked", "known"):
            self.scores[event.student] = event.score
            (self.troubled.add if event.needs_a_person else self.troubled.discard)(event.student)
        elif event.kind == "page":
            self.seconds.append(event.seconds)
            self.held.discard(event.student)
        elif event.kind == "held":
            self.held.add(event.student)
        else:
            self.troubled.add(event.student)

    def cells(self, stem: str) -> tuple[str, ...]:
        mean = f"{statistics.mean(self.scores.values()):.2f}" if self.scores else "–"
        median = f"{statistics.median(self.seconds):.1f} s" if self.seconds else "–"
        counts = (str(len(one) or "") for one in (self.seconds, self.held, self.troubled))
        return stem, str(len(self.scores)), mean, *counts, median


COLUMNS = ("problem", "students", "mean", "pages", "held", "to look at", "median to page")


@dataclass(slots=True)
class WatchBoard:
    """Tell of events: in a terminal a table and the last few, elsewhere a line for each."""

    out: Out
    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    last: deque[str] = field(default_factory=lambda: deque[str](maxlen=LAST_EVENTS))
    live: Live | None = None

    @contextlib.contextmanager
    def opened(self) -> Generator["WatchBoard"]:
        """Show the table while the class is watched, if a person looks."""
        if not console(self.out.stderr).is_terminal:
            yield self
            return
        with Live(console=console(self.out.stderr), get_renderable=self.render, refresh_per_second=4) as self.live:
            yield self

    def saw(self, event: "Event") -> None:
        self.rows[event.stem].saw(event)
        if event.kind == "known":
            return
        took = f" after {event.seconds:.1f} s" if event.kind == "page" else ""
        self.say(f"{event.kind:<7} {event.student}, {event.stem}: {event.words}{took}")

    def say(self, words: str) -> None:
        """Tell something with the time of day."""
        told = line(f"{datetime.now():%H:%M:%S} {words}")
        self.last.append(told)
        if self.live is None:
            self.out.line(told)

    def render(self) -> RenderableType:
        shown = table("", COLUMNS, (row.cells(stem) for stem, row in sorted(self.rows.items())))
        texts = (Text(told, overflow="ellipsis", no_wrap=True) for told in self.last)
        return Group(shown, *texts, Text("Ctrl+C ends."))

    def document(self) -> dict[str, dict[str, float]]:
        """Return what `--json` prints of each problem."""
        return {
            stem: {
                "students": len(row.scores),
                "mean": statistics.mean(row.scores.values()) if row.scores else 0.0,
                "pages": len(row.seconds),
                "held": len(row.held),
                "to look at": len(row.troubled),
                "median seconds to page": statistics.median(row.seconds) if row.seconds else 0.0,
            }
            for stem, row in sorted(self.rows.items())
        }


__all__ = ["WatchBoard"]
