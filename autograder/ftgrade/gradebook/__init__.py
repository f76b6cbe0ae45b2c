"""Reports into nbgrader's records and folders, and scores out of them; it may import grading and the rooms below."""

import contextlib
import importlib.abc
import sys
from collections.abc import Generator
from typing import Any


class Refusal(importlib.abc.MetaPathFinder):
    """Say of one module that it isn't installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == self.name:
            raise ModuleNotFoundError(f"{fullname} is left out", name=fullname)


@contextlib.contextmanager
def left_out(name: str) -> Generator[None]:
    """Import without an optional module that others would load."""
    refusal = Refusal(name)
    sys.meta_path.insert(0, refusal)
    try:
        yield
    finally:
        sys.meta_path.remove(refusal)


# nbformat loads jsonschema, which builds a grammar of web addresses: over a second, for a check that no notebook needs.
with left_out("rfc3987_syntax"):
    import jsonschema as _  # noqa: F401  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport]
