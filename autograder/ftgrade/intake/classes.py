"""Which class names are shown: Python's, NumPy's and torch's. A name that a student made up could say anything."""

import builtins
import collections
import decimal
import fractions
import re
import types
from collections.abc import Sequence

import numpy as np
import torch

OWN_ERROR, OWN_VALUE = "an error of your own class", "value of your own class"
ROOMS = (builtins, np.exceptions, np.linalg, torch, torch.cuda, torch.linalg)
ERRORS = frozenset(
    name
    for room in ROOMS
    for name, kind in vars(room).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
) | {"UsageError"}  # of IPython's, for a magic with a wrong option
PLAIN = (
    *(kind for room in (builtins, types) for kind in vars(room).values() if isinstance(kind, type)),
    *(type(view) for view in ({}.keys(), {}.values(), {}.items())),
    *(type(iter(one)) for one in ([], (), {}, {}.values(), {}.items(), set[int](), "", range(0))),
    *(collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque),
    *(decimal.Decimal, fractions.Fraction),
)
TYPES = frozenset(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.") for kind in PLAIN)
TENSOR = re.compile(r"torch\.Tensor \((\w+), torch\.(\w+), (\w+)\)")
DEVICES = ("cpu", "cuda", "meta", "mps", "xpu")


def error_words(names: Sequence[str]) -> str:
    """Return the class of an error in words; `names` are those of the class and of its bases.

    >>> error_words(["KeyError", "LookupError"]), error_words(["Look here", "KeyError"])
    ('KeyError', 'an error of your own class')
    """
    return names[0] if names and names[0] in ERRORS else OWN_ERROR


def type_words(name: str) -> str:
    """Return the type of a value that didn't cross to the grader, as a student may read it.

    >>> type_words("generator"), type_words("torch.Size"), type_words("__main__.Look")
    ('generator', 'torch.Size', 'value of your own class')
    """
    return name if name in TYPES or is_tensor_kind(name) or is_library_type(name) else OWN_VALUE


def is_tensor_kind(name: str) -> bool:
    """Say whether this is what the sandbox writes for a tensor of an unusual dtype, layout or device."""
    if (found := TENSOR.fullmatch(name)) is None:
        return False
    dtype, layout, device = found.groups()
    made = isinstance(vars(torch).get(dtype), torch.dtype), isinstance(vars(torch).get(layout), torch.layout)
    return all(made) and device in DEVICES


def is_library_type(name: str) -> bool:
    """Say whether a dotted name leads to a class of NumPy or torch, without an import."""
    first, *rest = name.split(".")
    found: object = {"numpy": np, "torch": torch}.get(first)
    for part in rest:
        found = getattr(found, "__dict__", {}).get(part)
    return isinstance(found, type)


__all__ = ["error_words", "type_words"]
