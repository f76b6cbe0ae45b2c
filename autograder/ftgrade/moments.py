"""Parse and format dates and times in a course's time zone; stored times are naive datetimes in UTC."""

from datetime import UTC, datetime
from typing import Any

from dateutil import tz

from ftgrade.course import CONFIG_FILE
from ftgrade.errors import CourseFault


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
