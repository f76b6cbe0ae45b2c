"""Dates and times as people write and read them, in a course's time zone; stored ones are in UTC without a zone."""

from datetime import UTC, datetime
from typing import Any

from dateutil import tz

from ftgrade.course import CONFIG_FILE
from ftgrade.errors import CourseFault


def moment(text: str, zone: str) -> datetime:
    """Return a date and time in UTC, without its zone, as nbgrader stores it. Raises CourseFault.

    A text without an offset is in the course's zone (`c.NbGraderAPI.timezone`), as in formgrader.

    >>> moment("2026-12-01T18:00", "Europe/Berlin"), moment("2026-12-01 18:00-05:00", "UTC")
    (datetime.datetime(2026, 12, 1, 17, 0), datetime.datetime(2026, 12, 1, 23, 0))
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CourseFault(f"{text!r} is no date and time such as 2026-12-01T18:00") from None
    if len(text) <= len("2026-12-01"):
        raise CourseFault(f"{text!r} is a whole day: say the hour too, {text}T18:00")
    if found.tzinfo is None:
        found = found.replace(tzinfo=zone_of(zone))
        if not tz.datetime_exists(found):
            raise CourseFault(f"{text!r} doesn't exist in {zone}: clocks are put forward then")
    return found.astimezone(UTC).replace(tzinfo=None)


def zone_of(name: str) -> Any:
    zone = tz.gettz(name) if name else tz.UTC
    if zone is None:
        raise CourseFault(f"{CONFIG_FILE}: c.NbGraderAPI.timezone = {name!r} is no time zone such as Europe/Berlin")
    return zone


def local(time: datetime, zone: str) -> str:
    """Return a stored time as people read it.

    >>> local(datetime(2026, 12, 1, 17, 0), "Europe/Berlin")
    '2026-12-01 18:00 CET'
    """
    return zoned(time, zone).strftime("%Y-%m-%d %H:%M %Z")


def zoned(time: datetime, zone: str) -> datetime:
    """Return a stored time in the course's zone. Raises OverflowError at the ends of the calendar."""
    return time.replace(tzinfo=UTC).astimezone(zone_of(zone))
