"""A course of many: does grading take as long for the last submission as for the first, and what does it hold?

    .venv/bin/python benchmarks/whole_course.py [--students 1000] [--problems p01 p02 …]

Every student hands in every problem: right answers in several people's words, and wrong ones. `ftgrade grade` runs on
all of it, one problem after the other, as an instructor would run it. For each quarter of a problem's students it
prints the rate, how busy the cores were, and the memory of the grader and that of its judges and their sandboxes. Then
the command runs again on what hasn't changed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ftgrade.catalog import Catalog, home
from ftgrade.course import Course
from tqdm import tqdm

QUARTERS = 4
TICKS = os.sysconf("SC_CLK_TCK")


def hand_in_everything(catalog: Catalog, root: Path, stem: str, students: int) -> None:
    kinds = [catalog.submissions(stem, kind) for kind in ("accepted", "wrong")]
    for number in range(students):
        kind = kinds[number % len(kinds)]
        path = root / "submitted" / f"s{number:05}" / stem / f"{stem}.ipynb"
        path.parent.mkdir(parents=True)
        shutil.copyfile(kind[number // len(kinds) % len(kind)], path)


def ftgrade(root: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "ftgrade.commands.cli", words[0], *words[1:], "--course", str(root)]


def busy_ticks() -> int:
    """Return how many ticks all cores have worked since the machine started."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return sum(fields) - fields[3] - fields[4]  # idle, and waiting for a disk


def resident(pid: int) -> tuple[float, float]:
    """Return the MiB that a process has for itself, and those of all below it, shared pages counted by their part."""
    try:
        below = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended meanwhile
        return 0.0, 0.0
    own = int(text.partition("Pss:")[2].split()[0]) / 1024 if text else 0.0
    return own, sum(sum(resident(child)) for child in below)


def watched(root: Path, stem: str, students: int) -> None:
    """Grade one problem and print a line for each quarter of its students."""
    course = Course(root)
    process = subprocess.Popen(ftgrade(root, "grade", stem), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    start, quarter = time.monotonic(), 1
    since, ticks = start, busy_ticks()
    with tqdm(total=students, desc=stem) as bar:
        while process.poll() is None:
            time.sleep(0.2)
            done = sum(1 for _ in course.report_path("x", stem).parent.glob("*.json"))
            bar.update(done - bar.n)
            if done >= students * quarter / QUARTERS and process.poll() is None:
                now, worked = time.monotonic(), busy_ticks()
                busy = (worked - ticks) / TICKS / (now - since) / (os.cpu_count() or 1)
                own, below = resident(process.pid)
                rate = students / QUARTERS / (now - since)
                tqdm.write(
                    f"{stem[:3]}  quarter {quarter}  {rate:6.1f}/s  cores {busy:4.0%}  "
                    f"grader {own:5.0f} MiB  judges {below:5.0f} MiB"
                )
                since, ticks, quarter = now, worked, quarter + 1
    tqdm.write(f"{stem[:3]}  whole command {time.monotonic() - start:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=1000)
    parser.add_argument("--problems", nargs="*", default=[])
    arguments = parser.parse_args()
    catalog = home()
    stems = [catalog.stem(name) for name in arguments.problems] or catalog.stems()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        start = time.monotonic()
        for stem in stems:
            hand_in_everything(catalog, root, stem, arguments.students)
            watched(root, stem, arguments.students)
        total = arguments.students * len(stems)
        took = time.monotonic() - start
        print(f"{total:,} submissions in {took:.0f} s, {total / took:.0f}/s")
        start = time.monotonic()
        subprocess.run(ftgrade(root, "grade"), check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took = time.monotonic() - start
        print(f"again, unchanged: {took:.1f} s, {total / took:,.0f}/s, start-up included")


if __name__ == "__main__":
    main()
