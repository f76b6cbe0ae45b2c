"""Find code that looks at what calls it, for the instructor alone: it can forge what is observed in its process."""

import ast
import re
from collections.abc import Iterator, Sequence

from ftgrade.intake.language import as_python, parse_cell
from ftgrade.intake.notebook import Cell, Finding, make_finding

REACHING = "reaches-out"
NAMES = (
    "_getframe", "_current_frames", "currentframe", "f_back", "f_globals", "f_locals", "get_objects", "get_referrers",
    "get_referents", "__closure__", "cell_contents", "settrace", "setprofile", "__subclasses__", "tb_frame",
)  # fmt: skip
WORD = re.compile(rf"\b({'|'.join(map(re.escape, NAMES))})\b")
SHARED = frozenset(
    {"json", "builtins", "io", "socket", "struct", "marshal", "inspect", "types", "torch", "numpy", "np"}
)
"""Modules whose functions the worker calls too."""


def reaching_findings(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Yield a finding for each cell that names a way to the frames or objects of what runs it.

    Whether an input was changed, what its gradient is and what became of a built model is seen in the submission's own
    process, and a model is built there. Code that replaces a function of a library can see or forge that.
    """
    for cell in cells:
        if found := sorted(set(WORD.findall(cell.source))):
            words = f"Cell {cell.number} uses {', '.join(found)}: code that looks at what calls it. Read the cell."
            yield make_finding(REACHING, words)
        if changed := set(replaced(cell.source)):
            words = f"Cell {cell.number} replaces {', '.join(sorted(changed))}, which others call too. Read the cell."
            yield make_finding(REACHING, words)


def replaced(source: str) -> Iterator[str]:
    """Yield the attributes of shared modules that a cell sets; flags of `torch.backends` are nobody else's.

    >>> list(replaced("old = json.loads\\njson.loads = spy\\nsetattr(torch.Tensor, 'equal', spy)"))
    ['json.loads', 'torch.Tensor']
    >>> list(replaced("torch.backends.cudnn.deterministic = True\\nx = torch.ones(2)"))
    []
    """
    for node in ast.walk(ast.Module(parse_cell(as_python(source)) or [], [])):
        places: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            places = [one for one in node.targets if isinstance(one, ast.Attribute)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            places = node.args[:1]
        for path in map(ast.unparse, places):
            if path.partition(".")[0] in SHARED and not path.startswith("torch.backends"):
                yield path


__all__ = ["REACHING", "reaching_findings"]
