"""The corners of a case: what the student's function gets is what the corner says, and no input counts as changed."""

from typing import Any

import numpy as np
import pytest
import torch
from ftgrade.judging.corners import (
    Corner,
    as_views,
    corners,
    expanded,
    in_dtype,
    wanting_gradients,
    with_numpy_numbers,
)  # fmt: skip
from ftgrade.judging.problem import Case, call
from ftgrade.sandbox import worker

CASE = Case("any", call("f", torch.arange(6.0).reshape(2, 3), [torch.ones(2, 2)], scale=2), promise="sum")


def seen(corner: Corner) -> tuple[Case, dict[str, Any], Any]:
    """Return a corner of the case, what a function is given for it, and the reply."""
    (made,) = corners(CASE, corner)
    given: dict[str, Any] = {}

    def function(x: torch.Tensor, more: list[torch.Tensor], scale: int) -> torch.Tensor:
        given.update(x=x, more=more, scale=scale)
        return x.sum() * scale

    return made, given, worker.call(made.call.request, {"f": function})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_dtype_reaches_every_floating_tensor(dtype: torch.dtype):
    made, given, reply = seen(in_dtype(dtype))
    assert (given["x"].dtype, given["more"][0].dtype, reply["changed"]) == (dtype, dtype, [])
    assert made.words == f"any, in {str(dtype).removeprefix('torch.')}"
    assert made.promise == "sum"


def test_a_view_is_not_contiguous_and_holds_the_same_numbers():
    _, given, reply = seen(as_views)
    assert not given["x"].is_contiguous()
    assert given["x"].tolist() == torch.arange(6.0).reshape(2, 3).tolist()
    assert reply["changed"] == []


def test_an_expanded_view_repeats_its_first_slice():
    _, given, reply = seen(expanded)
    assert given["x"].stride()[0] == 0
    assert given["x"].tolist() == [[0.0, 1.0, 2.0]] * 2
    assert reply["changed"] == []


def test_a_gradient_is_wanted_and_comes_back():
    made, given, reply = seen(wanting_gradients)
    assert given["x"].requires_grad
    assert made.call.backward
    assert worker.decode(reply["gradients"][0]).tolist() == [[2.0] * 3] * 2


def test_numbers_are_numpys():
    _, given, _ = seen(with_numpy_numbers)
    assert type(given["scale"]) is np.int64


@pytest.mark.parametrize("what", ["numbers", "flag", "gradient"])
@pytest.mark.parametrize("corner", [as_views, in_dtype(torch.float64)], ids=["view", "float64"])
def test_an_argument_that_is_changed_is_told_in_every_corner(what: str, corner: Corner):
    def function(x: torch.Tensor, more: list[torch.Tensor], scale: int) -> int:
        if what == "numbers":
            x[0, 0] = 7
        elif what == "flag":
            x.requires_grad_()
        else:
            x.requires_grad_().sum().backward()
            x.requires_grad_(False)
        return scale

    (made,) = corners(CASE, corner)
    assert worker.call(made.call.request, {"f": function})["changed"] == [0]
