"""Hand Sphinx only what changed: the same text keeps its file, and so the page that was made of it."""

import shutil
from pathlib import Path


def mirror(source: Path, target: Path) -> bool:
    """Make a folder's files those of another one, and say whether it has the same pages as before.

    A file that has its content already is left alone, with its time.
    """
    wanted = {path.relative_to(source): path for path in source.rglob("*") if path.is_file()}
    had = {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    for name in had - set(wanted):
        (target / name).unlink()
    for name, path in wanted.items():
        place = target / name
        if name not in had or place.read_bytes() != path.read_bytes():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return had == set(wanted)


def forget(*folders: Path) -> None:
    """Remove what Sphinx made, so that it makes everything anew."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
