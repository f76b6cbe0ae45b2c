"""What grading costs beside stock nbgrader: the same checks as assertion cells, the same submissions, one machine.

    .venv/bin/python benchmarks/grading.py [p03 p04 …] [--submissions 6] [--class-of 24]

For each problem an ordinary assignment is written whose graded cells hold the cases' inputs and the reference's
values as text and compare with them (relations between a student's own answers have no such form and are left out).
Stock `nbgrader autograde` runs it on the submissions, half of them right. What is printed is CPU time for each
further submission: the slope between two class sizes for stock, whose start-up falls out of it so, and the median of
three further groups of students for ours, where every process's time is counted. Feedback pages, which `ftgrade grade`
writes too and stock makes in another command, stand apart. `floor` is `floor.py`: a bare fork that runs the cells and
makes the hidden calls without any walls, channel, judging or bookkeeping. `private` is what a child has for itself in
the end. Below it stands how many of stock's scores are ours for the very same cases, and which aren't, over the checks
whose cases all have that form.

With --otter the same assertions are `otter run`'s tests: a process of its own for each submission, start-up included.
With --class-of the command lines run from start to end on one problem: `ftgrade grade`, then `nbgrader autograde`.
"""

import argparse
import ast
import contextlib
import functools
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.course import Course
from ftgrade.gradebook.book import Book
from ftgrade.gradebook.ledger import Ledger
from ftgrade.grading.grader import Grader
from ftgrade.grading.run import grade_class
from ftgrade.intake.notebook import read_submission
from ftgrade.intake.placing import cells_to_run, place_cells
from ftgrade.judging.judge import Oracle, draw_cases, names
from ftgrade.judging.judges import Judges
from ftgrade.judging.problem import Close, Refusal, Relation, calls_of, integer
from ftgrade.judging.report import Limits
from ftgrade.judging.session import Session
from ftgrade.pages.feedback import page_maker
from ftgrade.probing.doctor import cache_file, strongest
from ftgrade.sandbox import worker
from ftgrade.sandbox.channel import Call, Value
from ftgrade.sandbox.process import Sandbox
from nbgrader.api import Gradebook
from tqdm import tqdm

SEED = 7
CLASS = 48
COMPARE = """
def same(right, mine, rtol, atol, dtype=False):
    if isinstance(right, dict):
        return isinstance(mine, dict) and right.keys() == mine.keys() and all(
            same(right[k], mine[k], rtol, atol, dtype) for k in right)
    if isinstance(right, (list, tuple)):
        return isinstance(mine, (list, tuple)) and len(right) == len(mine) and all(
            same(a, b, rtol, atol, dtype) for a, b in zip(right, mine))
    if isinstance(right, (str, bool)) or right is None:
        return type(right) is type(mine) and right == mine
    if dtype and torch.is_tensor(right) and torch.is_tensor(mine) and right.dtype != mine.dtype:
        return False
    right, mine = numbers(right), numbers(mine)
    return right.shape == mine.shape and np.allclose(mine, right, rtol=rtol, atol=atol, equal_nan=True)

def numbers(value):
    assert not isinstance(value, bool)
    assert torch.is_tensor(value) or isinstance(value, (int, float, np.generic, np.ndarray))
    return np.asarray(value.detach().double().numpy() if torch.is_tensor(value) else value, dtype=float)

def whole(right, mine):
    return isinstance(mine, (int, np.integer)) and not isinstance(mine, bool) and int(mine) == right

def read(text):
    return decode(json.loads(text))

def builder(source):
    names = {"__name__": "builder"}
    exec(code_of(source), names)
    return names["build"]

@functools.cache
def code_of(source):
    return compile(source, "<builder>", "exec")
"""


def decoder() -> str:
    """Return the source of what reads inputs and values and compares."""
    text = Path(str(worker.__file__)).read_text("utf-8")
    start, end = text.index("MAX_FRAME_BYTES"), text.index("# ----", text.index("def decode_array"))
    imports = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    heads = "\n".join(map(ast.unparse, imports)) + "\nimport numpy as np, torch\n"
    return heads + text[start:end] + COMPARE + inspect.getsource(names)


def decoder_cell() -> str:
    """Return the cell that defines all that as attributes of one name, so that no student's name is lost."""
    return f"import types\n_grader = types.SimpleNamespace()\nexec({decoder()!r}, vars(_grader))\n"


@dataclass(frozen=True, slots=True)
class Assertions:
    """A graded cell's source, and whether it asks all that the check asks and as the check does."""

    source: str
    complete: bool


def assertions(judging: Oracle, position: int) -> Assertions:
    """Return a graded cell: the cases of one check with the reference's values, asserted.

    Where a check compares by a rule of its problem's own, its calls are made and nothing is asserted: another rule
    would fail right answers, and stock would pay for their tracebacks.
    """
    check, lines = judging.problem.checks[position], list[str]()
    equals = ""
    if isinstance(check.same, Close):
        equals = f"_grader.same(_right, _mine, {check.same.rtol!r}, {check.same.atol!r}, {check.same.dtype!r})"
    elif check.same is integer:
        equals = "_grader.whole(_right, _mine)"
    complete = bool(equals)
    for case in draw_cases(check, position, SEED):
        if isinstance(case, Relation) or case.call.backward:
            complete = False
            continue
        given, asked = call_text(case.call)
        if isinstance(case, Refusal):
            lines.append(
                f"{given}try:\n    {asked}\nexcept ValueError as error:\n    _said = str(error)\n"
                "else:\n    raise AssertionError\n"
                f"assert _grader.names(_said, {case.keyword!r})\n"
            )
            if case.others:
                lines.append(f"assert not all(_grader.names(_said, one) for one in {case.others!r})\n")
            if case.twin:
                lines.append("".join(call_text(case.twin)) + "\n")
        elif isinstance(expected := judging.reference([case.call])[0], Value):
            right = f"_grader.read({encoded(expected.value)})"
            lines.append(f"{given}_right, _mine = {right}, {asked}\n" + (f"assert {equals}\n" if equals else ""))
            # An iterator is used up by its use.
            if case.pure and not case.call.build and '"iterator' not in case.call.text:
                before = f"_grader.read({encoded(case.call.arguments)})"
                lines.append(f"assert _grader.same({before}, _given, 0, 0)\n")
    return Assertions("\n".join(lines) or "pass", complete and bool(lines))


def call_text(call: Call) -> tuple[str, str]:
    """Return the lines that make a call's arguments, and the call."""
    given = f"_words = _grader.read({encoded(dict(call.keywords))})\n"
    given += f"_given = _grader.read({encoded(call.arguments)})\n"
    asked = f"{call.function}(*_given, **_words)"
    if call.build:
        given += f"_given, _observe = _grader.builder({call.build!r})(*_given)\n"
        asked = f"({asked}, _observe())"
    return given, asked


def encoded(value: Any) -> str:
    return json.dumps(json.dumps(worker.encode(value)))


def stock_course(catalog: Catalog, stem: str, root: Path) -> list[str]:
    """Write and release an ordinary nbgrader assignment that asks the same; return its complete checks.

    Its graded cells stand at its end, since a check may call what a later cell defines.
    """
    judging = Oracle(catalog, stem)
    asked = {check.name: assertions(judging, position) for position, check in enumerate(judging.problem.checks)}
    document = json.loads(build.problem_notebook(catalog, stem))
    graded = [cell for cell in document["cells"] if is_graded(cell)]
    for cell in graded:
        name = cell["metadata"]["nbgrader"]["grade_id"]
        cell["source"] = asked[name].source if name in asked else "pass"
    reader = build.code_cell(decoder_cell(), **build.nbgrader_record("decoder")) | {"id": "decoder"}
    document["cells"] = [*(cell for cell in document["cells"] if not is_graded(cell)), reader, *graded]
    (root / "source" / stem).mkdir(parents=True)
    (root / "source" / stem / f"{stem}.ipynb").write_text(json.dumps(document))
    nbgrader(root, "generate_assignment", stem)
    return [name for name, cell in asked.items() if cell.complete]


def is_graded(cell: dict[str, Any]) -> bool:
    return cell["cell_type"] == "code" and bool(cell["metadata"].get("nbgrader", {}).get("grade"))


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


@functools.cache
def workshop() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for all that is made here: nothing is deleted before the end.

    ext4 looks past every inode that was deleted in the last minutes, which tripled the time of a new folder.
    """
    return tempfile.TemporaryDirectory(prefix="ftgrade-benchmark-")


def new_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=workshop().name))


def hand_in(root: Path, stem: str, student: str, text: str) -> None:
    path = root / "submitted" / student / stem / f"{stem}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


Scores = dict[tuple[str, str], float | None]
"""By student and check."""


def stock_seconds(catalog: Catalog, stem: str, few: int, many: int) -> tuple[float, float, Scores]:
    """Return the CPU seconds of stock nbgrader for each further submission: to grade it, and to write its page.

    Also what it gave for each complete check; None if it could not grade a submission.
    """
    spent: list[tuple[float, float]] = []
    given: Scores = {}
    for count in (few, many):
        root = new_folder()
        complete = stock_course(catalog, stem, root)
        for student, text in submissions(catalog, stem, count):
            hand_in(root, stem, student, stock_form(root, stem, text))
        spent.append((nbgrader(root, "autograde", stem)[0], nbgrader(root, "generate_feedback", stem)[0]))
        given = stock_scores(root, stem, complete)
    graded, shown = ((more - less) / (many - few) for less, more in zip(*spent, strict=True))
    return graded, shown, given


def stock_scores(root: Path, stem: str, checks: list[str]) -> Scores:
    """Return what stands in stock nbgrader's gradebook."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        return {
            (submission.student.id, grade.name): grade.auto_score
            for submission in gradebook.notebook_submissions(stem, stem)
            for grade in submission.grades
            if grade.name in checks
        }


def our_scores(catalog: Catalog, stem: str, count: int) -> Scores:
    """Return what we give for the very cases that the assertions ask; a cell of assertions is all or nothing."""
    judging, found = Oracle(catalog, stem), Scores()
    sandbox = Sandbox(strongest(cache_file()))
    for student, text in submissions(catalog, stem, count):
        with session(judging, sandbox, text) as opened:
            for verdict in judging.judge(opened.ask, [SEED]):
                found[student, verdict.check.name] = verdict.score if verdict.passed == verdict.cases else 0.0
    sandbox.close()
    return found


def compared(stock: Scores, ours: Scores) -> str:
    """Return how many of stock's scores are ours, and which ones aren't."""
    if not stock:
        return "no check has cases that all have the form of assertions"
    other = [f"{student} {check} {given} beside {ours[student, check]}" for (student, check), given in stock.items()
             if given is None or abs(given - (ours[student, check] or 0.0)) > 1e-9]  # fmt: skip
    return f"{len(stock) - len(other)} of {len(stock)} scores are stock's" + "".join(f"; {words}" for words in other)


@contextlib.contextmanager
def session(judging: Oracle, sandbox: Sandbox, text: str) -> Generator[Session]:
    """Open a session with a submission's cells."""
    path = new_folder() / "submission.ipynb"
    path.write_text(text, "utf-8")
    placed, _ = place_cells(read_submission(path).cells, judging.released)
    cells = cells_to_run(placed, judging.released)
    with Session(sandbox, cells, Limits()) as opened:
        yield opened


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
    judging = Oracle(catalog, stem)
    root = new_folder()
    (root / "tests").mkdir()
    for position, check in enumerate(judging.problem.checks):
        source = decoder_cell() + assertions(judging, position).source
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
    """Return a submission with the released stock notebook's graded cells, at the end, instead of ours.

    Cells that were given with an earlier release go on as the student's own; nbgrader refuses ids that it doesn't know.
    """
    released = json.loads((root / "release" / stem / f"{stem}.ipynb").read_text("utf-8"))["cells"]
    names = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in released]
    document = json.loads(text)
    mine = [cell for cell in document["cells"] if not is_graded(cell)]
    for cell in mine:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") not in names:
            cell["metadata"].pop("nbgrader", None)
    return json.dumps(document | {"cells": mine + released[names.index("decoder") :]})


def tree_seconds(judges: Judges) -> float:
    """Return the CPU seconds of judges and their sandboxes, and of all processes that these have buried."""
    waiting, ticks = [judges.nursery.program.process.pid] if judges.nursery else [], 0
    while waiting:
        pid = waiting.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
        waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")


def our_seconds(catalog: Catalog, stem: str, count: int, at_once: int) -> tuple[float, float]:
    """Return our CPU seconds for each further submission: to grade it, and to write its page.

    To grade it is reading, walls, cells, calls, judging, the stored report, the gradebook and autograded/.
    """
    root = new_folder()
    course = Course(root)
    judges = Judges(catalog, lambda: strongest(cache_file()), at_once)
    grader, book = Grader(catalog, course, judges), Book(course)
    book.ensure_released(grader, stem)
    spent, shown = list[float](), list[float]()
    for group in ("first", "second", "third", "fourth"):
        if (root / "submitted").exists():
            (root / "submitted").rename(root / f"before-{group}")
        for student, text in submissions(catalog, stem, count):
            hand_in(root, stem, f"{group}-{student}", text)
        with book.open_ledgers(grader, [stem], page_maker()) as ledgers, timed(Ledger, "write_page") as pages:
            start = time.process_time() + tree_seconds(judges)
            for report in grade_class(grader, [stem]):
                ledgers.book(report)
            taken = time.process_time() + tree_seconds(judges) - start
        shown.append(sum(pages) / count)
        spent.append(taken / count - shown[-1])
    grader.close()
    return median(spent[1:]), median(shown[1:])


@contextlib.contextmanager
def timed(owner: type, name: str) -> Generator[list[float]]:
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
    judging, sandbox = Oracle(catalog, stem), Sandbox(strongest(cache_file()))
    with session(judging, sandbox, next(submissions(catalog, stem, 1))[1]) as opened:
        judging.judge(opened.ask, [0, 1, 2])
        text = Path(f"/proc/{opened.ensure_worker().pid}/smaps_rollup").read_text()
    sandbox.close()
    return int(text.partition("Private_Dirty:")[2].split()[0]) * 1024


def floor_seconds(catalog: Catalog, stem: str, count: int, at_once: int) -> float:
    """Return the CPU seconds of a bare child that runs the cells and makes the hidden calls.

    As many run at once as there are judges of ours: neighbours on one processor slow each other down.
    """
    judging = Oracle(catalog, stem)
    calls = [
        call.request for position in range(len(judging.problem.checks))
        for posed in judging.asked(position, [0, 1, 2]) for call in calls_of(posed.case)
    ]  # fmt: skip
    work: list[dict[str, Any]] = []
    root = new_folder()
    for student, text in submissions(catalog, stem, count):
        hand_in(root, stem, student, text)
        read = read_submission(root / "submitted" / student / stem / f"{stem}.ipynb")
        cells = cells_to_run(place_cells(read.cells, judging.released)[0], judging.released)
        work.append({"cells": [cell.source for cell in cells], "calls": calls})
    path = root / "work.json"
    path.write_text(json.dumps(work))
    command = [sys.executable, str(Path(__file__).with_name("floor.py")), str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    return mean(float(process.communicate()[0]) for process in running)


def whole_class(catalog: Catalog, stem: str, count: int) -> tuple[float, float]:
    """Return the wall seconds of both command lines for a class, start-up included."""
    found: list[float] = []
    for ours in (True, False):
        root = new_folder()
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
    return found[0], found[1]


def ftgrade(command: str, stem: str, root: Path) -> list[str]:
    return [sys.executable, "-m", "ftgrade.commands.cli", command, stem, "--course", str(root)]


def main() -> None:
    with workshop():
        measure()


def measure() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stems", nargs="*", default=["p03"])
    parser.add_argument("--submissions", type=int, default=6)
    parser.add_argument("--judges", type=int, default=os.cpu_count() or 1, help="of ours; stock grades one at a time")
    parser.add_argument("--class-of", type=int, default=0)
    parser.add_argument("--otter", metavar="PROGRAM", help="otter-grader's program, in an environment that has torch")
    arguments = parser.parse_args()
    catalog = home()
    print("CPU seconds for each further submission: to grade it, the floor, and its page; a child's own memory")
    print("problem  stock    ours     stock/ours  floor    ours/floor  page: stock  ours    private")
    for name in tqdm(arguments.stems, desc="problems"):
        stem = catalog.stem(name)
        count = 2 + arguments.submissions
        stock, stock_page, given = stock_seconds(catalog, stem, 2, count)
        ours, our_page = our_seconds(catalog, stem, CLASS, arguments.judges)
        floor, private = floor_seconds(catalog, stem, CLASS, arguments.judges), private_bytes(catalog, stem) / 2**20
        tqdm.write(
            f"{stem[:3]:<8} {stock:<8.3f} {ours:<8.4f} {stock / ours:<11.1f} {floor:<8.4f} {ours / floor:<11.2f} "
            f"{stock_page:<12.3f} {our_page:<7.4f} {private:.1f} MiB"
        )
        tqdm.write(f"{stem[:3]:<8} {compared(given, our_scores(catalog, stem, count))}")
        if arguments.otter:
            tqdm.write(f"{stem[:3]:<8} {otter_seconds(catalog, stem, arguments.otter, 4):.3f} for each `otter run`")
    if arguments.class_of:
        ours, stock = whole_class(catalog, catalog.stem(arguments.stems[0]), arguments.class_of)
        print(
            f"a class of {arguments.class_of}, wall seconds: ours {ours:.1f}, stock {stock:.1f}: {stock / ours:.1f} x"
        )


if __name__ == "__main__":
    main()
