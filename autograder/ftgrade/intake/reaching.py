"""Find code that looks at what calls it, for the instructor alone: it can forge what is observed in its process."""

import re
from collections.abc import Iterator, Sequence

from ftgrade.intake.notebook import Cell, Finding, make_finding

REACHING = "reaches-out"
NAMES = (
    "_getframe", "_current_frames", "currentframe", "f_back", "f_globals", "f_locals", "get_objects", "get_referrers",
    "get_referents", "__closure__", "cell_contents", "settrace", "setprofile", "__subclasses__", "tb_frame",
)  # fmt: skip
WORD = re.compile(rf"\b({'|'.join(map(re.escape, NAMES))})\b")


def reaching_findings(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Yield a finding for each cell that names a way to the frames or objects of what runs it.

    Whether an input was changed, what its gradient is and what became of a built model is seen in the submission's own
    process. Code that replaces what looks there can forge it; no other verdict can be reached so.
    """
    for cell in cells:
        if found := sorted(set(WORD.findall(cell.source))):
            words = f"Cell {cell.number} uses {', '.join(found)}: code that looks at what calls it. Read the cell."
            yield make_finding(REACHING, words)


__all__ = ["REACHING", "reaching_findings"]
