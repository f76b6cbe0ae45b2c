"""Failures of everyday life in one line: a full disk, a missing file, a locked gradebook.

A command that fails so ends with the exit status for "could not", never with a traceback.
"""

import contextlib
import errno
import sqlite3
import tempfile
import traceback
from pathlib import Path

from ftgrade.errors import GradingError
from ftgrade.intake.gate import line

DISK_IS_FULL = "the disk is full, or a file may not grow: free some space, then run the command again"
GRADE_EXTRA = '`python3 start.py` installs what grading needs, and elsewhere the extra "fine-tuning-math[grade]"'
LOST_RIGHTS = "look at who owns it, and whether the disk is mounted read-only"
GRADEBOOK_WORDS = {
    "locked": "another program is writing to the gradebook (formgrader, or another grader): "
    "run the command again when it has finished",
    "not a database": "the gradebook is no database of nbgrader: put gradebook.db back from a backup",
    "malformed": "the gradebook is damaged: put gradebook.db back from a backup",
    "unable to open": "the gradebook can't be opened: look whether its folder exists and who may read and write it",
    "readonly": "the gradebook can't be written to: look at who owns gradebook.db and its folder",
    "is full": DISK_IS_FULL,
    "disk i/o": f"the gradebook can't be read or written. Perhaps {DISK_IS_FULL}",
    "no such": "another version of nbgrader made the gradebook: run `nbgrader db upgrade` in the course's folder",
}
"""What we say for what a database says, by a part of its words."""


def failure_line(error: Exception) -> str:
    """Return one line for an error that ended a command; one that we don't expect is kept in a file."""
    words = str(error) if isinstance(error, GradingError) else everyday_words(error)
    return words or unexpected_words(error)


def everyday_words(error: Exception) -> str:
    """Return what an error of the system or of the gradebook means, or nothing for another error.

    >>> everyday_words(FileNotFoundError(2, "No such file or directory", "a.csv"))
    'a.csv: No such file or directory'
    >>> everyday_words(sqlite3.OperationalError("database is locked")).partition(":")[0]
    'another program is writing to the gradebook (formgrader, or another grader)'
    """
    if isinstance(error, ModuleNotFoundError) and not (error.name or "ftgrade").startswith("ftgrade"):
        return f"the package {error.name} isn't installed: {GRADE_EXTRA}"
    from sqlalchemy.exc import SQLAlchemyError  # not at the top: it takes a moment, and most commands succeed

    if type(error).__module__.startswith("nbgrader.") and isinstance(error.__context__, Exception):
        return everyday_words(error.__context__)  # nbgrader raises errors of its own for a database's
    if isinstance(error, SQLAlchemyError | sqlite3.Error):
        return gradebook_words(str(getattr(error, "orig", None) or error))
    if isinstance(error, UnicodeDecodeError):
        return f"a file isn't text in UTF-8, save it so: {line(error)}"
    return system_words(error) if isinstance(error, OSError) else ""


def gradebook_words(said: str) -> str:
    known = (words for part, words in GRADEBOOK_WORDS.items() if part in said.lower())
    first = line(said.strip().partition("\n")[0])
    return next(known, f"the gradebook can't be used: {first}")


def system_words(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DISK_IS_FULL
    place = f"{line(error.filename)}: " if error.filename else ""
    more = f"; {LOST_RIGHTS}" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else ""
    return f"{place}{error.strerror or line(error)}{more}"


def unexpected_words(error: Exception) -> str:
    """Keep the traceback of a fault of ours in a file, and return a line that names it."""
    place = ""
    with contextlib.suppress(OSError):
        with tempfile.NamedTemporaryFile("w", prefix="ftgrade-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.writelines(traceback.format_exception(error))
        place = f"; please report it with {Path(file.name)}"
    return f"this is a fault of ftgrade, {type(error).__name__}: {line(error)}{place}"


__all__ = ["everyday_words", "failure_line"]
