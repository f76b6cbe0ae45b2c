"""A class that hands in while it's watched: how long is it from a file to its page, with and without a due date?

    .venv/bin/python benchmarks/watching.py [--students 200] [--seconds 60] [--problem p03]

`ftgrade watch` runs on an empty course. Then hand-ins arrive evenly over the time, right and wrong ones, each put into
its place in one step as a platform does. The time to a page is from that step to the page's time of change. It is
measured twice: without a due date, where pages tell everything; and before one, where each hand-in is judged twice,
first on the public cases for its page.
"""

import argparse
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ftgrade.catalog import Catalog, home
from ftgrade.course import Course
from tqdm import tqdm


def command(root: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "ftgrade.commands.cli", *words, "--course", str(root)]


def quietly(root: Path, *words: str) -> None:
    subprocess.run(command(root, *words), check=True, stdout=subprocess.DEVNULL)


def arrive(catalog: Catalog, root: Path, stem: str, students: int, seconds: float) -> dict[str, float]:
    """Hand in evenly over the time; return when each student's file was in its place."""
    kinds = [catalog.submissions(stem, kind) for kind in ("accepted", "wrong")]
    times: dict[str, float] = {}
    begun = time.monotonic()
    for number in tqdm(range(students), desc="handing in"):
        time.sleep(max(0.0, begun + number * seconds / students - time.monotonic()))
        kind, student = kinds[number % len(kinds)], f"s{number:05}"
        path = root / "submitted" / student / stem / f"{stem}.ipynb"
        path.parent.mkdir(parents=True)
        shutil.copyfile(kind[number // len(kinds) % len(kind)], path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)
        times[student] = time.time()
    return times


def wait_for(paths: list[Path], limit: float) -> None:
    until = time.monotonic() + limit
    while not all(path.is_file() for path in paths) and time.monotonic() < until:
        time.sleep(0.2)


def measure(catalog: Catalog, stem: str, students: int, seconds: float, due: str) -> None:
    """Watch one class and print a line."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        quietly(root, "release", stem)
        if due:
            quietly(root, "due", stem, due)
        process = subprocess.Popen(command(root, "watch", stem), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # it watches
        begun = time.monotonic()
        times = arrive(catalog, root, stem, students, seconds)
        pages = {student: root / "feedback" / student / stem / f"{stem}.html" for student in times}
        wait_for(list(pages.values()), 300)
        paged = time.monotonic() - begun
        wait_for([Course(root).report_path(student, stem) for student in times], 300)
        reported = time.monotonic() - begun
        process.send_signal(signal.SIGINT)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process.communicate(timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        took = sorted(path.stat().st_mtime - times[student] for student, path in pages.items() if path.is_file())
        print(
            f"{'before the due date' if due else 'without a due date':<20} {len(took)} of {students} pages  "
            f"median {statistics.median(took):.2f} s  p95 {took[int(0.95 * (len(took) - 1))]:.2f} s  "
            f"longest {took[-1]:.2f} s  all pages after {paged:.1f} s, all reports after {reported:.1f} s  "
            f"processor {spent:.0f} s of {reported:.0f} s, load {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--problem", default="p03")
    arguments = parser.parse_args()
    catalog = home()
    stem, later = catalog.stem(arguments.problem), datetime.now(UTC) + timedelta(days=1)
    for due in ("", f"{later:%Y-%m-%dT%H:%M}+00:00"):
        measure(catalog, stem, arguments.students, arguments.seconds, due)


if __name__ == "__main__":
    main()
