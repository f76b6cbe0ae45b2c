"""Parse and format dates and times in a course's time zone; stored times are naive datetimes in UTC."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dateutil import tz

from ftgrade.course import CONFIG_FILE
from ftgrade.errors import CourseFault

STAMP_CHARACTERS = 100
# A third word names a time zone: no path, since a file of that name would be opened.
DAY, CLOCK = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?"
STAMP = re.compile(
    rf"(?P<moment>{DAY}[T ]{CLOCK}(?:Z|[+-]\d\d:\d\d)?)"
    rf"|(?P<local>{DAY} {CLOCK}) (?P<zone>[A-Za-z][\w+-]*(?:/[\w+-]+){{0,2}})",
    re.ASCII,
)


def parse_time(text: str, zone: str) -> datetime:
    """Return a written date and time as a naive datetime in UTC, which is what nbgrader stores. Raises CourseFault.

    A text without an offset is read in the course's time zone (`c.NbGraderAPI.timezone`), as in formgrader.

    >>> parse_time("2026-12-01T18:00", "Europe/Berlin"), parse_time("2026-12-01 18:00-05:00", "UTC")
    (datetime.datetime(2026, 12, 1, 17, 0), datetime.datetime(2026, 12, 1, 23, 0))
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CourseFault(f"{text!r} is no date and time such as 2026-12-01T18:00") from None
    if len(text) <= len("2026-12-01"):
        raise CourseFault(f"{text!r} is a whole day: say the hour too, {text}T18:00")
    if found.tzinfo is None:
        found = found.replace(tzinfo=time_zone(zone))
        if not tz.datetime_exists(found):
            raise CourseFault(f"{text!r} doesn't exist in {zone}: clocks are put forward then")
    return found.astimezone(UTC).replace(tzinfo=None)


def read_stamp(path: Path) -> datetime | None:
    """Return the time (UTC) in a submission's `timestamp.txt`, as nbgrader reads it; None if it can't be told for sure.

    nbgrader takes a time without a zone, and one with a zone that it doesn't know, for UTC, and `+0100` after a space
    for 100 seconds; the last two are no times here. The file may come from a student, so links aren't followed, and a
    time must lie between the years 1970 and 2200: near the ends of the calendar another time zone can't be computed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, encoding="utf-8") as file:
            text = file.read(STAMP_CHARACTERS + 1)
        found = stamped_time(text.strip()) if len(text) <= STAMP_CHARACTERS else None
    except (OSError, ValueError, OverflowError):
        return None
    return found if found is not None and 1970 <= found.year <= 2200 else None


def stamped_time(text: str) -> datetime | None:
    """Return the time (UTC) that a stamp tells without doubt, or None. Raises ValueError and OverflowError.

    >>> stamped_time("2026-03-01 10:00 CET"), stamped_time("2026-03-01 10:00 PST")
    (datetime.datetime(2026, 3, 1, 9, 0), None)
    """
    told = STAMP.fullmatch(text)
    if told is None:
        return None
    found = datetime.fromisoformat(told["moment"] or told["local"])
    if told["zone"]:
        if (zone := tz.gettz(told["zone"])) is None:
            return None
        found = found.replace(tzinfo=zone)
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def time_zone(name: str) -> Any:
    zone = tz.gettz(name) if name else tz.UTC
    if zone is None:
        raise CourseFault(f"{CONFIG_FILE}: c.NbGraderAPI.timezone = {name!r} is no time zone such as Europe/Berlin")
    return zone


def format_time(time: datetime, zone: str) -> str:
    """Return a stored time as text in the course's time zone.

    >>> format_time(datetime(2026, 12, 1, 17, 0), "Europe/Berlin")
    '2026-12-01 18:00 CET'
    """
    return in_zone(time, zone).strftime("%Y-%m-%d %H:%M %Z")


def in_zone(time: datetime, zone: str) -> datetime:
    """Return a stored time in the course's time zone. Raises OverflowError near the years 1 and 9999."""
    return time.replace(tzinfo=UTC).astimezone(time_zone(zone))
