"""The one guard of every loop over a class: what happens to one student is that student's, and nobody else's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ftgrade.errors import CourseFault

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mishap:
    """An exception that one student's work caused on our side; `words` may hold what the student wrote."""

    error: Exception

    @property
    def words(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"


def guarded(action: Callable[[], T]) -> T | Mishap:
    """Return what an action about one student returns, or its mishap. A CourseFault concerns everybody, and passes.

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
