"""What a large course costs in its gradebook: nbgrader's own queries, on SQLite beside PostgreSQL, in one run.

    .venv/bin/python benchmarks/gradebook.py [--students 10000] [--limit 120]

Ten problems are released by us, then students with a graded submission of each are written straight into the tables.
Every query is timed as formgrader's page asks for it (`NbGraderAPI`), in a fresh process that reads the gradebook for
the first time; `> 120` is one that was stopped. The class report reads no gradebook; what stands for it is our export,
which reads every grade. nbgrader's tables have no index that leads from a submission to its grades: the columns
`indexed` have those of `INDEXES`. PostgreSQL is a server to throw away (Debian's `postgresql`; extra
`[postgres]`).
"""

import argparse
import contextlib
import io
import multiprocessing
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import postgres
from ftgrade.catalog import home
from ftgrade.course import CONFIG_FILE, Course
from ftgrade.gradebook.book import CONFIG_TEXT, Book
from ftgrade.gradebook.exporters import Csv
from ftgrade.grading.grader import Grader
from ftgrade.pages.feedback import page_maker
from nbgrader import api
from sqlalchemy import Engine, create_engine, insert, text
from tqdm import tqdm

ROWS = 20_000
GRADED = datetime(2026, 1, 30, 12)
# nbgrader's tables have no index that leads from a student or a submission to what hangs on it.
INDEXES = tuple(
    f"CREATE INDEX IF NOT EXISTS ftgrade_{table}_{column} ON {table} ({column})"
    for table, column in (
        ("grade", "notebook_id"), ("comment", "notebook_id"), ("submitted_notebook", "assignment_id"),
        ("submitted_notebook", "notebook_id"), ("submitted_assignment", "assignment_id"),
        ("submitted_assignment", "student_id"),
    )
)  # fmt: skip
Row = dict[str, object]
FORK = multiprocessing.get_context("fork")


def queries(stem: str, student: str) -> dict[str, Callable[[Any], object]]:
    """Return what is asked of a gradebook, by the page that asks."""
    return {
        "formgrader: assignments": lambda nb: nb.get_assignments(),
        "formgrader: submissions of a problem": lambda nb: nb.get_submissions(stem),
        "formgrader: notebooks of a problem": lambda nb: nb.get_notebooks(stem),
        "formgrader: its submitted notebooks": lambda nb: nb.get_notebook_submissions(stem, stem),
        "formgrader: next and previous of one": lambda nb: nb.get_notebook_submission_indices(stem, stem),
        "formgrader: students": lambda nb: nb.get_students(),
        "formgrader: one student": lambda nb: nb.get_student_submissions(student),
        "booking: what stands of a problem": lambda nb: standing(nb, stem, ""),
        "booking: what stands of a submission": lambda nb: standing(nb, stem, student),
        "export: every mark of the class": export,
    }


def standing(nb: Any, stem: str, student: str) -> float:
    """Return the seconds in which a ledger opens, or, given a student, in which it then looks one up for booking."""
    grader, pages = Grader(home(), Course(Path(nb.coursedir.root))), page_maker()
    start = time.perf_counter()
    with (
        Book(grader.course).open_ledgers(grader, [stem], pages) as ledgers,
        ledgers.by_stem[stem].engine.connect() as one,
    ):
        opened = time.perf_counter()
        if student:
            ledgers.by_stem[stem].read_entries(one, student)
            return time.perf_counter() - opened
        return opened - start


def export(nb: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plugin = Csv(to=str(Path(folder) / "grades.csv"))
        plugin.write(nb.gradebook, Path(folder) / "grades.csv")


# ----------------------------------------------------------------------------------------------------------- the course


def course(root: Path, url: str, stems: list[str]) -> Book:
    """Release the problems into a gradebook."""
    config = f'{CONFIG_TEXT}\nc = get_config()\nc.CourseDirectory.db_url = "{url}"\n'
    (root / CONFIG_FILE).write_text(f'{config}c.CourseDirectory.course_id = "large"\n')
    book = Book(Course(root))
    for stem in stems:
        book.release(stem)
    return book


def folders(root: Path, stems: list[str], students: list[str]) -> None:
    """Make what formgrader looks for in folders; what is graded stands where it was handed in."""
    for student in students:
        for stem in stems:
            folder = root / "submitted" / student / stem
            folder.mkdir(parents=True)
            (folder / f"{stem}.ipynb").touch()
    (root / "autograded").symlink_to("submitted")


def load(book: Book, students: list[str], bar: "tqdm[Any]") -> None:
    """Write students with graded submissions of every problem into the tables."""
    directory: Any = book.api.coursedir
    with api.Gradebook(directory.db_url, directory.course_id) as gradebook:
        write(gradebook.engine, api.Student, ({"id": student} for student in students))
        assignments: list[Any] = gradebook.assignments
        for assignment in assignments:
            (notebook,) = assignment.notebooks
            checks = [(cell.id, cell.max_score) for cell in notebook.grade_cells]
            answers = [cell.id for cell in notebook.solution_cells]
            ids = {student: (uuid.uuid4().hex, uuid.uuid4().hex) for student in students}
            for model, rows in (
                (api.SubmittedAssignment, submitted(ids, assignment.id)),
                (api.SubmittedNotebook, notebooks(ids, notebook.id)),
                (api.Grade, grades(ids, checks)),
                (api.Comment, comments(ids, answers)),
            ):
                write(gradebook.engine, model, rows)
            bar.update(len(students))


def submitted(ids: dict[str, tuple[str, str]], assignment: str) -> Iterator[Row]:
    for student, (one, _) in ids.items():
        yield {"id": one, "assignment_id": assignment, "student_id": student, "timestamp": GRADED}


def notebooks(ids: dict[str, tuple[str, str]], notebook: str) -> Iterator[Row]:
    for one, two in ids.values():
        yield {"id": two, "assignment_id": one, "notebook_id": notebook, "late_submission_penalty": 0.0}


def grades(ids: dict[str, tuple[str, str]], checks: list[tuple[str, float]]) -> Iterator[Row]:
    rng = random.Random(7)
    for _, two in ids.values():
        for cell, points in checks:
            score = points * (rng.random() < 0.7)
            yield {"id": uuid.uuid4().hex, "notebook_id": two, "cell_id": cell, "auto_score": score,
                   "needs_manual_grade": False}  # fmt: skip


def comments(ids: dict[str, tuple[str, str]], answers: list[str]) -> Iterator[Row]:
    for _, two in ids.values():
        for cell in answers:
            yield {"id": uuid.uuid4().hex, "notebook_id": two, "cell_id": cell}


def write(engine: Engine, model: Any, rows: Iterator[Row]) -> None:
    """Insert rows in batches, one transaction for each."""
    waiting: list[Row] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == ROWS:
            insert_all(engine, model, waiting)
            waiting = []
    if waiting:
        insert_all(engine, model, waiting)


def insert_all(engine: Engine, model: Any, rows: list[Row]) -> None:
    with engine.begin() as connection:
        connection.execute(insert(model.__table__), rows)


def run_sql(url: str, *statements: str) -> list[Any]:
    """Run statements outside of any transaction; return the rows of the last."""
    engine = create_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        found = list(results[-1]) if results[-1].returns_rows else []
    engine.dispose()
    return found


# -------------------------------------------------------------------------------------------------------------- timing


def timed(book: Book, query: Callable[[Any], object], limit: float) -> float | None:
    """Return the seconds of a query in a fresh process, or None if it took longer than the limit."""
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=ask, args=(book, query, theirs))
    child.start()
    seconds = ours.recv() if ours.poll(limit) else None
    child.kill()
    child.join()
    return seconds


def ask(book: Book, query: Callable[[Any], object], told: Any) -> None:
    nb: Any = Book(book.course).api
    with contextlib.redirect_stderr(io.StringIO()), nb.gradebook:
        start = time.perf_counter()
        seconds = query(nb)
        told.send(seconds if isinstance(seconds, float) else time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which a query is stopped")
    arguments = parser.parse_args()
    students = [f"student-{number:06}" for number in range(arguments.students)]
    stems = home().stems()
    asked = queries(stems[2], students[-1])
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(desc="submissions", total=2 * len(stems) * len(students)))
        pattern = stack.enter_context(postgres.server())
        columns: dict[str, list[float | None]] = {}
        facts: list[str] = []
        for name in ("SQLite", "PostgreSQL"):
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            limit = f"&options=-c%20statement_timeout%3D{arguments.limit * 1000:.0f}"
            url = pattern.format("postgres") + limit if name == "PostgreSQL" else f"sqlite:///{root / 'gradebook.db'}"
            book = course(root, url, stems)
            folders(root, stems, students)
            start = time.perf_counter()
            load(book, students, bar)
            seconds = time.perf_counter() - start
            run_sql(url, "ANALYZE")
            facts.append(f"{name}: loaded in {seconds:.0f} s, {size(url, root) / 2**20:.0f} MiB")
            for heading, sql in ((name, ()), (f"{name}, indexed", (*INDEXES, "ANALYZE"))):
                if sql:
                    start = time.perf_counter()
                    run_sql(url, *sql)
                    facts.append(
                        f"{name}: indexes in {time.perf_counter() - start:.1f} s, {size(url, root) / 2**20:.0f} MiB"
                    )
                columns[heading] = []
                for what, query in asked.items():
                    bar.set_postfix_str(f"{heading}, {what}")
                    columns[heading].append(timed(book, query, arguments.limit))
    print(f"\n{len(students)} students x {len(stems)} problems; seconds")
    print(f"{'':<40}" + "".join(f"{heading:>22}" for heading in columns))
    for row, what in enumerate(asked):
        cells = [columns[heading][row] for heading in columns]
        shown = [f"> {arguments.limit:.0f}" if cell is None else f"{cell:.3f}" for cell in cells]
        print(f"{what:<40}" + "".join(f"{cell:>22}" for cell in shown))
    print("\n".join(facts))


def size(url: str, root: Path) -> int:
    """Return the bytes of a gradebook."""
    if url.startswith("sqlite"):
        return (root / "gradebook.db").stat().st_size
    return int(run_sql(url, "SELECT pg_database_size(current_database())")[0][0])


if __name__ == "__main__":
    main()
