"""What grading costs beside stock nbgrader: the same checks as assertion cells, the same submissions, one machine.

    .venv/bin/python benchmarks/grading.py [p03 p04 …] [--submissions 6] [--class-of 24]

For each problem an ordinary assignment is written whose graded cells hold the cases' inputs and the reference's
values as text and compare with them (relations between a student's own answers have no such form and are left out).
Stock `nbgrader autograde` runs it on the submissions, half of them right. What is printed is CPU time for each
further submission: the slope between two class sizes for stock, whose start-up falls out of it so, and the median of
three further groups of students for ours, where every process's time is counted. Feedback pages, which `ftgrade grade`
writes too and stock makes in another command, stand apart. `floor` is `floor.py`: a bare fork that runs the cells and
makes the hidden calls without any walls, channel, judging or bookkeeping. `private` is what a child has for itself in
the end.

With --otter the same assertions are `otter run`'s tests: a process of its own for each submission, start-up included.
With --class-of the command lines run from start to end on one problem: `ftgrade grade`, then `nbgrader autograde`.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from ftgrade import build, worker
from ftgrade.booking import Ledger
from ftgrade.catalog import Catalog, home
from ftgrade.channel import Value
from ftgrade.doctor import kept_here, strongest
from ftgrade.grade import Course, Session, answer_cells, grade_class
from ftgrade.gradebook import Book
from ftgrade.judge import Judging, cases
from ftgrade.nbgrader_step import grader_of
from ftgrade.notebook import read_file
from ftgrade.problem import Case, Refusal, calls_of
from ftgrade.sandbox.process import Sandbox
from tqdm import tqdm

SEED = 7
WORKERS = os.cpu_count() or 1
COMPARE = """
def same(right, mine):
    if isinstance(right, dict):
        return isinstance(mine, dict) and right.keys() == mine.keys() and all(same(right[k], mine[k]) for k in right)
    if isinstance(right, (list, tuple)):
        return len(right) == len(mine) and all(same(a, b) for a, b in zip(right, mine))
    if isinstance(right, str) or right is None:
        return right == mine
    right, mine = (np.asarray(value, dtype=float) for value in (right, mine))
    return np.allclose(right, mine, rtol=1e-5, atol=1e-8, equal_nan=True)

def plain(value):
    return value.detach().double().numpy() if torch.is_tensor(value) else value

def deep(value):
    if isinstance(value, (list, tuple)): return [deep(one) for one in value]
    if isinstance(value, dict): return {key: deep(one) for key, one in value.items()}
    return plain(value)
"""


def decoder() -> str:
    """Return the source of what reads inputs and values, as a cell of the assignment."""
    text = Path(str(worker.__file__)).read_text("utf-8")
    start, end = text.index("MAX_FRAME_BYTES"), text.index("# ----", text.index("def decode_array"))
    heads = "import base64, functools, json, struct, types\nfrom collections.abc import Callable, Iterable\n"
    return heads + "from typing import Any\nimport numpy as np, torch\n" + text[start:end] + COMPARE


def assertions(judging: Judging, position: int) -> str:
    """Return a graded cell: the cases of one check with the reference's values, asserted."""
    lines: list[str] = []
    for case in cases(judging.problem.checks[position], position, SEED):
        request = case.call.request if isinstance(case, Case | Refusal) else None
        if request is None or request["build"] or request["backward"]:
            continue
        given = f"args = [decode(a) for a in json.loads({json.dumps(json.dumps(request['arguments']))})]\n"
        given += (
            f"words = {{k: decode(v) for k, v in json.loads({json.dumps(json.dumps(request['keywords']))}).items()}}\n"
        )
        if isinstance(case, Refusal):
            lines.append(
                f"{given}try:\n    {case.call.function}(*args, **words)\nexcept ValueError as error:\n"
                f"    assert {case.keyword.lower()!r} in str(error).lower()\nelse:\n    raise AssertionError\n"
            )
        elif isinstance(expected := judging.reference([case.call])[0], Value):
            value = json.dumps(json.dumps(worker.encode(expected.value)))
            lines.append(
                f"{given}got = deep({case.call.function}(*args, **words))\n"
                f"assert same(deep(decode(json.loads({value}))), got)\n"
            )
    return "\n".join(lines) or "pass"


def stock_course(catalog: Catalog, stem: str, root: Path) -> None:
    """Write and release an ordinary nbgrader assignment that asks the same."""
    judging = Judging(catalog, stem)
    names = {check.name: position for position, check in enumerate(judging.problem.checks)}
    document = json.loads(build.problem_notebook(catalog, stem))
    for cell in document["cells"]:
        mark = cell["metadata"].get("nbgrader", {})
        if mark.get("grade") and mark["grade_id"] in names:
            cell["source"] = assertions(judging, names[mark["grade_id"]])
        elif mark.get("grade") and cell["cell_type"] == "code":
            cell["source"] = "pass"
    first = next(place for place, cell in enumerate(document["cells"]) if cell["cell_type"] == "code")
    document["cells"].insert(first + 1, build.code(decoder(), **build.marks("decoder")) | {"id": "decoder"})
    (root / "source" / stem).mkdir(parents=True)
    (root / "source" / stem / f"{stem}.ipynb").write_text(json.dumps(document))
    nbgrader(root, "generate_assignment", stem)


def nbgrader(root: Path, *words: str) -> tuple[float, float]:
    """Run a command of nbgrader; return its CPU and wall seconds, children included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    # nbgrader calls alembic by its name.
    known = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    command = [sys.executable, "-m", "nbgrader", *words]
    done = subprocess.run(command, cwd=root, env=known, check=False, capture_output=True, text=True)
    if done.returncode and words[0] != "autograde":
        sys.exit(done.stderr[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - start


def submissions(catalog: Catalog, stem: str, count: int) -> Iterator[tuple[str, str]]:
    """Yield students with their notebooks: right ones, in several people's words, and ones with a known mistake."""
    reference = build.filled_notebook(catalog, stem, catalog.leaves(stem).solution.read_text("utf-8"))
    right, wrong = (
        [path.read_text("utf-8") for path in catalog.submissions(stem, kind)] for kind in ("accepted", "wrong")
    )
    for number in range(count):
        kind = [reference, *right] if number % 2 == 0 else wrong
        yield f"s{number:03}", kind[number // 2 % len(kind)]


def hand_in(root: Path, stem: str, student: str, text: str) -> None:
    path = root / "submitted" / student / stem / f"{stem}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def stock_seconds(catalog: Catalog, stem: str, few: int, many: int) -> tuple[float, float]:
    """Return the CPU seconds of stock nbgrader for each further submission: to grade it, and to write its page."""
    spent: list[tuple[float, float]] = []
    for count in (few, many):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            stock_course(catalog, stem, root)
            for student, text in submissions(catalog, stem, count):
                hand_in(root, stem, student, stock_form(root, stem, text))
            spent.append((nbgrader(root, "autograde", stem)[0], nbgrader(root, "generate_feedback", stem)[0]))
    graded, shown = ((more - less) / (many - few) for less, more in zip(*spent, strict=True))
    return graded, shown


OTTER_TEST = """OK_FORMAT = False
from otter.test_files import test_case

name = {name!r}
points = {points}


@test_case()
def asserted(env):
    exec({source!r}, dict(env))
"""


def otter_seconds(catalog: Catalog, stem: str, otter: str, count: int) -> float:
    """Return the CPU seconds of `otter run` for each submission, which is a process of its own."""
    judging = Judging(catalog, stem)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "tests").mkdir()
        for position, check in enumerate(judging.problem.checks):
            source = decoder() + assertions(judging, position)
            text = OTTER_TEST.format(name=check.name, points=check.points, source=source)
            (root / "tests" / f"{check.name}.py").write_text(text)
        subprocess.run(
            [otter, "generate", "-t", "tests", "-o", "autograder.zip"], cwd=root, check=True, capture_output=True
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for student, text in submissions(catalog, stem, count):
            (root / f"{student}.ipynb").write_text(text, "utf-8")
            words = [otter, "run", "-a", "autograder.zip", "-o", student, f"{student}.ipynb"]
            (root / student).mkdir()
            subprocess.run(words, cwd=root, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count


def stock_form(root: Path, stem: str, text: str) -> str:
    """Return the released stock notebook with a submission's answers."""
    released = json.loads((root / "release" / stem / f"{stem}.ipynb").read_text("utf-8"))
    answers = {cell["metadata"]["nbgrader"]["grade_id"]: cell["source"] for cell in json.loads(text)["cells"]
               if cell["metadata"].get("nbgrader", {}).get("solution")}  # fmt: skip
    for cell in released["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["source"] = answers.get(name, cell["source"])
    return json.dumps(released)


def tree_seconds(sandbox: Sandbox) -> float:
    """Return the CPU seconds of a sandbox's processes and of all that they have buried."""
    waiting, ticks = [sandbox.process.pid] if sandbox.process else [], 0
    while waiting:
        pid = waiting.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
        waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")


def our_seconds(catalog: Catalog, stem: str, count: int) -> tuple[float, float]:
    """Return our CPU seconds for each further submission: to grade it, and to write its page.

    To grade it is reading, walls, cells, calls, judging, the stored report, the gradebook and autograded/.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        course = Course(root)
        grader, book = grader_of(root), Book(course)
        book.demand_released(stem)
        spent, shown = list[float](), list[float]()
        for group in ("first", "second", "third", "fourth"):
            shutil.rmtree(root / "submitted", ignore_errors=True)
            for student, text in submissions(catalog, stem, count):
                hand_in(root, stem, f"{group}-{student}", text)
            with book.ledgers([stem]) as ledgers, timed(Ledger, "show") as pages:
                start = time.process_time() + tree_seconds(grader.sandbox)
                for report in grade_class(grader, [stem], WORKERS):
                    ledgers.book(report)
                taken = time.process_time() + tree_seconds(grader.sandbox) - start
            shown.append(sum(pages) / count)
            spent.append(taken / count - shown[-1])
        grader.close()
        return median(spent[1:]), median(shown[1:])


@contextlib.contextmanager
def timed(owner: type, name: str) -> Iterator[list[float]]:
    """Give the CPU seconds of each call of a method in this thread."""
    method, spent = getattr(owner, name), list[float]()

    def measured(*arguments: Any) -> Any:
        start = time.thread_time()
        try:
            return method(*arguments)
        finally:
            spent.append(time.thread_time() - start)

    setattr(owner, name, measured)
    try:
        yield spent
    finally:
        setattr(owner, name, method)


def private_bytes(catalog: Catalog, stem: str) -> int:
    """Return what one child has for itself when it has answered everything, in bytes."""
    judging, sandbox = Judging(catalog, stem), Sandbox(strongest(kept_here()))
    with tempfile.TemporaryDirectory() as name:
        hand_in(Path(name), stem, "s", next(submissions(catalog, stem, 1))[1])
        read = read_file(Path(name) / "submitted" / "s" / stem / f"{stem}.ipynb")
    cells, _ = answer_cells(read, {check.name for check in judging.problem.judged})
    with Session(sandbox, cells, judging.problem.call_seconds) as session:
        judging.judge(session.ask, [0, 1, 2])
        text = Path(f"/proc/{session.loaded().pid}/smaps_rollup").read_text()
    sandbox.close()
    return int(text.partition("Private_Dirty:")[2].split()[0]) * 1024


def floor_seconds(catalog: Catalog, stem: str, count: int) -> float:
    """Return the CPU seconds of a bare child that runs the cells and makes the hidden calls."""
    judging = Judging(catalog, stem)
    calls = [
        call.request for seed in range(3) for position in range(len(judging.problem.checks))
        for posed in judging.posed(position, seed) for call in calls_of(posed.case)
    ]  # fmt: skip
    work: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for student, text in submissions(catalog, stem, count):
            hand_in(Path(name), stem, student, text)
            read = read_file(Path(name) / "submitted" / student / stem / f"{stem}.ipynb")
            cells, _ = answer_cells(read, {check.name for check in judging.problem.judged})
            work.append({"cells": [cell.source for cell in cells], "calls": calls})
        path = Path(name) / "work.json"
        path.write_text(json.dumps(work))
        floor = Path(__file__).with_name("floor.py")
        return float(subprocess.run([sys.executable, floor, path], check=True, capture_output=True, text=True).stdout)


def whole_class(catalog: Catalog, stem: str, count: int) -> tuple[float, float]:
    """Return the wall seconds of both command lines for a class, start-up included."""
    found: list[float] = []
    for ours in (True, False):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            if ours:
                subprocess.run(ftgrade("release", stem, root), check=True, stdout=subprocess.DEVNULL)
            else:
                stock_course(catalog, stem, root)
            for student, text in submissions(catalog, stem, count):
                hand_in(root, stem, student, text if ours else stock_form(root, stem, text))
            start = time.monotonic()
            if ours:
                subprocess.run(ftgrade("grade", stem, root), check=False, stdout=subprocess.DEVNULL)
            else:
                nbgrader(root, "autograde", stem)
            found.append(time.monotonic() - start)
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir(exist_ok=True)
    return found[0], found[1]


def ftgrade(command: str, stem: str, root: Path) -> list[str]:
    return [sys.executable, "-m", "ftgrade.cli", command, stem, "--course", str(root)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stems", nargs="*", default=["p03"])
    parser.add_argument("--submissions", type=int, default=6)
    parser.add_argument("--class-of", type=int, default=0)
    parser.add_argument("--otter", metavar="PROGRAM", help="otter-grader's program, in an environment that has torch")
    arguments = parser.parse_args()
    catalog = home()
    print("CPU seconds for each further submission: to grade it, the floor, and its page; a child's own memory")
    print("problem  stock    ours     stock/ours  floor    ours/floor  page: stock  ours    private")
    for name in tqdm(arguments.stems, desc="problems"):
        stem = catalog.stem(name)
        stock, stock_page = stock_seconds(catalog, stem, 2, 2 + arguments.submissions)
        ours, our_page = our_seconds(catalog, stem, 48)
        floor, private = floor_seconds(catalog, stem, arguments.submissions), private_bytes(catalog, stem) / 2**20
        tqdm.write(
            f"{stem[:3]:<8} {stock:<8.3f} {ours:<8.4f} {stock / ours:<11.1f} {floor:<8.4f} {ours / floor:<11.2f} "
            f"{stock_page:<12.3f} {our_page:<7.4f} {private:.1f} MiB"
        )
        if arguments.otter:
            tqdm.write(f"{stem[:3]:<8} {otter_seconds(catalog, stem, arguments.otter, 4):.3f} for each `otter run`")
    if arguments.class_of:
        ours, stock = whole_class(catalog, catalog.stem(arguments.stems[0]), arguments.class_of)
        print(
            f"a class of {arguments.class_of}, wall seconds: ours {ours:.1f}, stock {stock:.1f}: {stock / ours:.1f} x"
        )


if __name__ == "__main__":
    main()
