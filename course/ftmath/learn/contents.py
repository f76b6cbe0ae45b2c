"""List the files of a learner's folder.

The build of the wheel loads this file by its path, so it imports nothing of ours.
What goes in is listed here, so that a master, a solution or a hidden case can't come along by standing nearby.
"""

from pathlib import Path

LESSONS = ("course/*.ipynb", "course/[0-9][0-9]_*/*.ipynb", "course/lab/*.ipynb", "course/*.md")
SETTINGS = ("course/.jupyter/*.json", "course/.jupyter/labconfig/*.json")
PROBLEMS = "source/*/*.ipynb"
WORDS = "course/ftmath/learn/README.md"


def contents(root: Path) -> dict[str, Path]:
    """Map the name of each file in a learner's folder to its file in the project's folder `root`.

    A statement, `source/STEM/STEM.ipynb`, becomes `problems/STEM/STEM.ipynb`.
    """
    lessons = [path for pattern in (*LESSONS, *SETTINGS) for path in sorted(root.glob(pattern))]
    found = {path.relative_to(root).as_posix(): path for path in lessons}
    statements = [path for path in sorted(root.glob(PROBLEMS)) if path.stem == path.parent.name]
    found |= {f"problems/{path.stem}/{path.name}": path for path in statements}
    return found | {"README.md": root / WORDS, "LICENSE": root / "LICENSE"}
