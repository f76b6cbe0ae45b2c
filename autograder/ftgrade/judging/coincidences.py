"""Wrong personal numbers that are the right answers to other questions of the class: when that is said, and how."""

from typing import Any

import numpy as np

from ftgrade.intake.notebook import Finding, make_finding
from ftgrade.judging.problem import Close, Same, as_array, integer, whole
from ftgrade.judging.report import SAME_NUMBER
from ftgrade.judging.statements import Numbers, Statements, Tolerance


def tolerance_of(same: Same) -> Tolerance:
    """Return the tolerance of a check's comparison."""
    if same in (integer, whole):
        return Tolerance(0.0, 0.5)
    return Tolerance(same.rtol, same.atol) if isinstance(same, Close) else Tolerance(Close().rtol, Close().atol)


def asked_digits(same: Same) -> Tolerance:
    """Return how close a number is to one that was written down with the digits that the question asks for."""
    return Tolerance(0.0, tolerance_of(same).atol)


def numbers_of(value: Any) -> Numbers | None:
    """Return an answer's numbers in a row, or None if it isn't made of finite numbers.

    >>> numbers_of([1, 2.5]), numbers_of("four"), numbers_of(float("nan"))
    ((1.0, 2.5), None, None)
    """
    parts = [as_array(part) for part in (value if isinstance(value, list | tuple) else [value])]
    found: list[float] = []
    for part in parts:
        if part is None or not np.isfinite(part).all():
            return None
        found += part.ravel().tolist()
    return tuple(found) or None


def coincidence(statements: Statements) -> Finding:
    """Return the finding on a wrong number that is another question's right answer; only the instructor reads it."""
    words = (
        "The personal number is wrong for this student's question and right for another one of the class. "
        f"This alone shows nothing about how it was found. {statements.chance}"
    )
    return make_finding(SAME_NUMBER, words)
