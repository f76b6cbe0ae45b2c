"""What files import, and on which floor each stands: the ruler of both packages' laws."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, also inside functions; `from a import b` counts as both a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert node.level == 0, f"{path.name} must name the whole module in line {node.lineno}"
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """Return each node's floor: the length of its longest chain of imports, itself included.

    Errors: CycleError, which names the circle.
    """
    found: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        found[node] = 1 + max((found[below] for below in graph[node]), default=0)
    return found
