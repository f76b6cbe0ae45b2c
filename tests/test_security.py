"""SECURITY.md promises what a test holds."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROMISE = re.compile(r"^\\| (?P<words>[^|`]+\\.) \\| (?P<tests>`.+`) \\|$", re.MULTILINE)


def test_each_promise_names_tests_that_exist():
    rows = PROMISE.findall((ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(rows) >= 15
    for words, tests in rows:
        for name in re.findall(r"`([^`]+)`", tests):
            file, _, test = name.partition("::")
            defined = ast.parse((ROOT / "tests" / file).read_text("utf-8")).body
            assert test in {one.name for one in defined if isinstance(one, ast.FunctionDef)}, f"{words} {name}"
