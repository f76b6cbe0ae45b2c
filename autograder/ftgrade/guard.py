"""One guard for every loop over a class: an exception about one student doesn't stop the others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ftgrade.errors import CourseFault

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mishap:
    """An exception that one student's work caused in the grader; `words` may quote the student's text."""

    error: Exception

    @property
    def words(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"


def guarded(action: Callable[[], T]) -> T | Mishap:
    """Return the result of an action on one student, or a Mishap if it raised.

    A CourseFault concerns the whole class, so it is raised again.

    >>> guarded(lambda: 1 + 1), guarded(lambda: 1 / 0).words
    (2, 'ZeroDivisionError: division by zero')
    """
    try:
        return action()
    except CourseFault:
        raise
    except Exception as error:
        return Mishap(error)


__all__ = ["Mishap", "guarded"]
