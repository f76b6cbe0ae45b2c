"""What a submission costs on a cluster, by who pays: a Dask scheduler and workers on this machine, ours beside them.

    .venv/bin/python benchmarks/cluster.py [--stem p03] [--submissions 400] [--workers 2]

The first run starts the workers' judges and isn't counted; the second judges everything afresh. CPU is that of whole
process trees, students' processes included. Then what a submission weighs on its way and in the store, and what
booking it and its feedback page cost in this process.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from statistics import median

import psutil
from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.course import Course
from ftgrade.gradebook.book import Book
from ftgrade.grading.grader import Grader
from ftgrade.grading.run import grade_class
from ftgrade.judging.judges import Judges, Work
from ftgrade.judging.report import text_of
from ftgrade.pages.feedback import page_maker
from ftgrade.probing.doctor import cache_file, strongest
from tqdm import tqdm

PORT = 18_786


@contextlib.contextmanager
def running(*words: str) -> Generator[psutil.Process]:
    """Run one of Dask's commands; give its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process, of those that it has now, and of all that they have buried."""
    spent = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            spent += sum(one.cpu_times()[:4])
    return spent


def megabytes(process: psutil.Process) -> float:
    """Return the memory of a process and of its children, shared pages counted once."""
    return sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True))) / 2**20


def hand_in(catalog: Catalog, stem: str, grader: Grader, count: int) -> None:
    """Lay down a class: right notebooks, and ones with a known mistake."""
    right = build.filled_notebook(catalog, stem, catalog.leaves(stem).solution.read_text("utf-8"))
    wrong = [path.read_text("utf-8") for path in catalog.submissions(stem, "wrong")]
    for number in range(count):
        path = grader.course.notebook(f"s{number:05}", stem)
        path.parent.mkdir(parents=True)
        path.write_text(right if number % 2 == 0 else wrong[number % len(wrong)], "utf-8")


def weights(grader: Grader, stem: str) -> Iterator[tuple[str, float]]:
    """Yield what a submission weighs, in bytes: handed in, on its way, on its way back, stored."""
    students = grader.course.students(stem)[:50]
    work = [found for student in students if isinstance(found := grader.look_up(student, stem, True), Work)]
    yield "notebook", median(grader.course.notebook(student, stem).stat().st_size for student in students)
    yield "to a worker", median(len(text_of(one.brief).encode()) + len(one.data) for one in work)
    yield "back", median(len(text_of(grader.judges.judge(one)).encode()) for one in work)
    yield "stored report", median(grader.course.report_path(student, stem).stat().st_size for student in students)


def booked(catalog: Catalog, stem: str, root: Path, count: int) -> Iterator[tuple[str, str]]:
    """Yield what booking and the feedback page of a submission cost and weigh, in a class of its own."""
    grader = Grader(catalog, Course(root))
    hand_in(catalog, stem, grader, count)
    reports = list(grade_class(grader, [stem]))
    book = Book(grader.course)
    book.ensure_released(grader, stem)
    with book.open_ledgers(grader, [stem], page_maker()) as ledgers:
        start = time.process_time()
        for one in tqdm(reports, desc="booking"):
            ledgers.book(one)
        assert not ledgers.retry()
        spent = time.process_time() - start
    yield "booking and feedback", f"{spent / count * 1000:8.1f} ms CPU"
    for what, pattern in (("booked notebook", "autograded/*/*/*.ipynb"), ("feedback page", "feedback/*/*/*.html")):
        yield what, f"{median(path.stat().st_size for path in root.glob(pattern)) / 1024:8.1f} KiB"
    yield "gradebook", f"{(root / 'gradebook.db').stat().st_size / count / 1024:8.1f} KiB"
    grader.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stem", default="p03")
    parser.add_argument("--submissions", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    catalog, address = home(), f"tcp://127.0.0.1:{PORT}"
    stem, count = catalog.stem(arguments.stem), arguments.submissions
    many = ("--nworkers", str(arguments.workers), "--nthreads", "1", "--no-dashboard", "--local-directory")
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        judges = Judges(catalog, lambda: strongest(cache_file()), arguments.workers)
        grader = Grader(catalog, Course(root / "course"), judges)
        stack.callback(grader.close)
        hand_in(catalog, stem, grader, count)
        scheduler = stack.enter_context(running("scheduler", "--host", "127.0.0.1", "--port", str(PORT)))
        workers = stack.enter_context(running("worker", address, *many, str(root / "dask")))
        for _ in tqdm(grade_class(grader, [stem], scheduler=address), desc="warming up", total=count):
            pass
        who = {"scheduler": scheduler, "workers, with students": workers}
        before, mine, start = {name: seconds(one) for name, one in who.items()}, time.process_time(), time.monotonic()
        for _ in tqdm(grade_class(grader, [stem], fresh=True, scheduler=address), desc="cluster", total=count):
            pass
        wall = time.monotonic() - start
        spent = {name: seconds(one) - before[name] for name, one in who.items()}
        spent["master"] = time.process_time() - mine
        memory = {name: megabytes(one) for name, one in who.items()}
        memory["master"] = psutil.Process().memory_full_info().pss / 2**20
        start = time.monotonic()
        for _ in tqdm(grade_class(grader, [stem], scheduler=address), desc="stored", total=count):
            pass
        again = time.monotonic() - start
        judges.start()
        for judge in judges.judges:
            judge.demand_ready()
        start = time.monotonic()
        for _ in tqdm(grade_class(grader, [stem], fresh=True), desc="local", total=count):
            pass
        local = time.monotonic() - start
        weighed = dict(weights(grader, stem))
        further = list(booked(catalog, stem, root / "booked", min(count, 40)))
    print(f"\n{stem}, {count} submissions: {count / wall:.0f} a second on {arguments.workers} workers of a cluster,")
    print(f"{count / local:.0f} by {arguments.workers} judges without one, {count / again:.0f} from stored reports")
    for name, one in spent.items():
        print(f"{name:<24}{one / count * 1000:>8.1f} ms CPU a submission{memory[name]:>8.0f} MB")
    for name, size in weighed.items():
        print(f"{name:<24}{size / 1024:>8.1f} KiB")
    for name, cost in further:
        print(f"{name:<24}{cost}")


if __name__ == "__main__":
    main()
