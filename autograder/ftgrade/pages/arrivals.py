"""When a class handed work in, and how that stands to the due date."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

FEW_DAYS = timedelta(days=2)  # within them hand-ins are counted by the hour


@dataclass(frozen=True, slots=True)
class Span:
    """A day or an hour in which work came in: how much, how much so far, and how much of it after the due date."""

    name: str
    count: int
    so_far: int
    late: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When students handed a problem in, and when it was due: all in one time zone. Who tells no time isn't there."""

    times: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    due: datetime | None = None

    @property
    def ordered(self) -> list[datetime]:
        return sorted(self.times.values(), key=utc)

    @property
    def steps(self) -> list[tuple[datetime, int]]:
        """Return each moment of a hand-in, in UTC, with how many had come by then."""
        counts = Counter(map(utc, self.ordered))
        return list(zip(counts, itertools.accumulate(counts.values()), strict=True))

    @property
    def half(self) -> datetime:
        """Return when half of those who tell a time had handed in."""
        return self.ordered[(len(self.times) - 1) // 2]

    @property
    def late(self) -> int:
        """Return how many came after the due date, whoever was given longer."""
        return sum(self.is_late(time) for time in self.times.values())

    def is_late(self, time: datetime) -> bool:
        return self.due is not None and utc(time) > utc(self.due)

    @property
    def spans(self) -> list[Span]:
        """Return the days with hand-ins, or the hours where all came within two days."""
        times = self.ordered
        hours = bool(times) and utc(times[-1]) - utc(times[0]) <= FEW_DAYS
        made: list[Span] = []
        for name, group in itertools.groupby(times, lambda time: span_name(time, hours)):
            some = list(group)
            so_far = len(some) + (made[-1].so_far if made else 0)
            made.append(Span(name, len(some), so_far, sum(map(self.is_late, some))))
        return made


def utc(time: datetime) -> datetime:
    """Return a time in UTC, without a zone: Python compares times of one zone by their clocks, which may be put back.

    >>> utc(datetime(2026, 12, 1, 17, tzinfo=UTC))
    datetime.datetime(2026, 12, 1, 17, 0)
    """
    return time.astimezone(UTC).replace(tzinfo=None)


def span_name(time: datetime, hours: bool) -> str:
    return f"{time:%Y-%m-%d %H:00 %Z}" if hours else f"{time:%Y-%m-%d}"


__all__ = ["Arrivals", "Span", "utc"]
