"""Lay down a made-up class in a scratch folder, out of the demo submissions that the tests hold."""

import itertools
import shutil
import tempfile
from pathlib import Path

from ftgrade.catalog import Catalog
from ftgrade.errors import CourseFault

STUDENTS = (
    "abena", "boris", "chiyo", "dalia", "emeka", "freya", "goran", "hana", "iker", "jamila", "kofi", "lucia", "mirza",
    "noor", "oskar", "priya", "quinn", "rosa", "selim", "tova",
)  # fmt: skip


def make_demo_class(catalog: Catalog) -> Path:
    """Return a new course folder in which every student has handed in one notebook for each problem."""
    root = Path(tempfile.mkdtemp(prefix="fine-tuning-math-demo-"))
    for offset, stem in enumerate(catalog.stems()):
        kinds = [catalog.submissions(stem, kind) for kind in ("accepted", "wrong", "broken")]
        files = [path for path in itertools.chain(*itertools.zip_longest(*kinds)) if path is not None]
        if not files:
            raise CourseFault(f"there are no demo submissions in tests/submissions/{stem}")
        for number, student in enumerate(STUDENTS):
            folder = root / "submitted" / student / stem
            folder.mkdir(parents=True)
            # Another start for each problem, so that no student is the one whose files are all broken.
            shutil.copyfile(files[(number + 7 * offset) % len(files)], folder / f"{stem}.ipynb")
    return root
