"""Corners of a case: the same call with other dtypes, views, gradients or kinds of numbers, for any function.

Each function returns a new case, which is asked once a student. The reference answers it like any other, so a corner
costs its author one line:

    plain = Case("any logits", call("entropy", logits))
    yield from corners(plain, in_dtype(torch.float64), as_views, wanting_gradients)
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ftgrade.judging.problem import Case
from ftgrade.sandbox.channel import Call
from ftgrade.sandbox.worker import View

Corner = Callable[[Case], Case]


def corners(case: Case, *kinds: Corner, promise: str = "") -> Iterator[Case]:
    """Yield a case's corners; they test this promise, or else the case's own."""
    for kind in kinds:
        made = kind(case)
        yield dataclasses.replace(made, promise=promise or case.promise)


def in_dtype(dtype: torch.dtype) -> Corner:
    """Return the corner in which every floating tensor has this dtype."""
    name = str(dtype).removeprefix("torch.")

    def cast(value: Any) -> Any:
        if not torch.is_tensor(value) or not value.is_floating_point():
            return value
        return value.detach().to(dtype).requires_grad_(value.requires_grad)

    return lambda case: changed(case, f"in {name}", cast)


def as_views(case: Case) -> Case:
    """Return the corner in which every tensor is a view that isn't contiguous."""
    return changed(
        case, "as views that aren't contiguous", lambda value: View(value) if torch.is_tensor(value) else value
    )


def expanded(case: Case) -> Case:
    """Return the corner in which every tensor holds its first slice again and again, in the memory of one."""

    def expand(value: Any) -> Any:
        return View(value[:1].expand_as(value), expanded=True) if torch.is_tensor(value) and value.ndim else value

    return changed(case, "as expanded views", expand)


def wanting_gradients(case: Case) -> Case:
    """Return the corner in which every floating tensor wants a gradient, which is compared."""

    def want(value: Any) -> Any:
        wants = torch.is_tensor(value) and value.is_floating_point()
        return value.detach().clone().requires_grad_() if wants else value

    made = changed(case, "with gradients", want)
    return dataclasses.replace(made, call=dataclasses.replace(made.call, backward=True))


def with_numpy_numbers(case: Case) -> Case:
    """Return the corner in which every int and float is NumPy's."""

    def convert(value: Any) -> Any:
        return np.int64(value) if type(value) is int else np.float64(value) if type(value) is float else value

    return changed(case, "with NumPy's numbers", convert)


def changed(case: Case, words: str, change: Callable[[Any], Any]) -> Case:
    """Return a case with a change of every value in its arguments, in any nesting, and these words added."""
    keywords = tuple((name, walk(value, change)) for name, value in case.call.keywords)
    arguments = tuple(walk(value, change) for value in case.call.arguments)
    made = Call(case.call.function, arguments, keywords, case.call.backward, case.call.build)
    return dataclasses.replace(case, words=f"{case.words}, {words}", call=made, once=True)


def walk(value: Any, change: Callable[[Any], Any]) -> Any:
    if type(value) is dict:
        return {key: walk(item, change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(walk(item, change) for item in value)
    return change(value)


__all__ = ["as_views", "changed", "corners", "expanded", "in_dtype", "wanting_gradients", "with_numpy_numbers"]
