"""What people see of a command: lines, tables, and while it works bars with a rate and the time left."""

import contextlib
import os
import statistics
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ftgrade.intake.gate import line

if TYPE_CHECKING:
    from ftgrade.classroom.watching import Event

PIPE_COLUMNS = 1_000


@cache
def console(stderr: bool) -> Console:
    """Return the terminal. It prints text as it is; rich leaves colours out for NO_COLOR and where nobody watches.

    In a pipe or a file a table is as wide as it needs to be, unless COLUMNS says how wide lines are.
    """
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PIPE_COLUMNS
    return made


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str] = ()) -> Table:
    """Return a table whose columns stand right, except the first and those of `left`."""
    made = Table(title=title)
    for name in columns:
        made.add_column(name, justify="left" if name == columns[0] or name in left else "right")
    for row in rows:
        made.add_row(*map(Text, row))  # nothing that a student wrote is markup
    return made


def score_tables(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], lead: int, width: int
) -> list[Table]:
    """Return a table of scores that fits a width: in several parts if need be, the leading columns in each.

    A leading column beside the first (the names) is left out where it would take over a third of the width.
    """
    wide = [max(cell_len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    kept = [0, *(place for place in range(1, lead) if sum(wide[: place + 1]) <= width // 3)]
    parts: list[list[int]] = [[]]
    for place in range(lead, len(columns)):
        taken = sum(wide[one] + 1 for one in (*kept, *parts[-1], place))
        if parts[-1] and taken > width:
            parts.append([])
        parts[-1].append(place)
    return [score_table(title, columns, rows, [*kept, *part], lead) for part in parts]


def score_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], places: Sequence[int], lead: int
) -> Table:
    """Return the columns in these places, a space apart, numbers whole."""
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for place in places:
        justify = "left" if place < lead else "right"
        made.add_column(columns[place], justify=justify, no_wrap=place >= lead, overflow="fold")
    for row in rows:
        made.add_row(*(Text(row[place]) for place in places))
    return made


@dataclass(frozen=True, slots=True)
class Out:
    """The one way in which a command speaks to people: on stdout, or on stderr where a program reads stdout."""

    stderr: bool = False

    def line(self, *texts: str) -> None:
        """Print each text as it is on a line of its own, which only the terminal wraps."""
        for text in texts:
            console(self.stderr).print(text, soft_wrap=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str] = ()
    ) -> None:
        console(self.stderr).print(table(title, columns, rows, left))

    def scores(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], lead: int) -> None:
        """Print a table of which the first `lead` columns say whose the numbers after them are."""
        for made in score_tables(title, columns, rows, lead, console(self.stderr).width):
            console(self.stderr).print(made, "")

    def board(self, totals: dict[str, int] | None = None) -> "Board":
        """Return progress bars on stderr, with a row for each problem whose total is known."""
        return Board(totals)


class Rate(ProgressColumn):
    """How many a second are done, over the last thirty seconds."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", justify="right")


class Board(Progress):
    """Bars, and above them a table of what was graded so far, a row for each problem."""

    def __init__(self, totals: dict[str, int] | None = None) -> None:
        self.totals = totals or {}
        self.seen: dict[str, list[tuple[float, bool]]] = defaultdict(list)
        self.comparing: TaskID | None = None
        columns = TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn()
        super().__init__(*columns, TextColumn("left"), TimeRemainingColumn(), console=console(True))
        if self.totals:
            self.grading = self.add_task("grading", total=sum(self.totals.values()))

    def saw(self, stem: str, score: float, needs_a_person: bool) -> None:
        """Count one report in its problem's row."""
        self.seen[stem].append((score, needs_a_person))
        self.advance(self.grading)

    def compared(self, stem: str) -> None:
        """Count one problem whose answers were compared."""
        if self.comparing is None:
            self.comparing = self.add_task("comparing", total=len(self.totals))
        self.advance(self.comparing)

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.totals:
            columns = ("problem", "judged", "mean so far", "need a person")
            yield table("", columns, (self.row(stem) for stem in self.totals))
        yield self.make_tasks_table(self.tasks)

    def row(self, stem: str) -> tuple[str, ...]:
        seen = self.seen[stem]
        mean = f"{sum(score for score, _ in seen) / len(seen):.2f}" if seen else "–"
        return stem, f"{len(seen)} of {self.totals[stem]}", mean, str(sum(person for _, person in seen) or "")


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


__all__ = ["Board", "Out", "WatchBoard", "console", "table"]
