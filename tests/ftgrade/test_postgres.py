"""PostgreSQL as the gradebook: a real server, our way of booking, two instructors at once (start.py test cluster)."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ftgrade.catalog import home, load_module
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.gradebook.book import Book
from ftgrade.gradebook.ledger import INSERT_STUDENT, STUDENT
from nbgrader.api import Base, Gradebook
from sqlalchemy import Engine, create_engine, select

pytestmark = pytest.mark.cluster
pytest.importorskip("psycopg", reason="psycopg is not installed: python3 start.py test cluster")
POSTGRES = load_module(home().root / "benchmarks" / "postgres.py", "postgres")
if POSTGRES.programs() is None:
    pytest.skip("no PostgreSQL server is installed: apt-get install postgresql", allow_module_level=True)

STEMS = ("p03_lora_parameters", "p08_dpo_loss")
STUDENTS = ("ada", "bob", "cyd", "dan")
CONFIG = """from ftgrade.nbgrader_step import configure

c = get_config()
configure(c)
c.CourseDirectory.db_url = {url!r}
c.CourseDirectory.course_id = "maths"
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with POSTGRES.server() as url:
        yield url.format("postgres")


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course of two problems, judged and booked into SQLite."""
    root = tmp_path_factory.mktemp("course")
    for stem in STEMS:
        handed_in = [*home().submissions(stem, "accepted")[:2], *home().submissions(stem, "wrong")[:2]]
        for student, path in zip(STUDENTS, handed_in, strict=True):
            goal = root / "submitted" / student / stem / f"{stem}.ipynb"
            goal.parent.mkdir(parents=True)
            goal.write_bytes(path.read_bytes())
    assert ftgrade(root, "grade", *STEMS).wait() == 0
    return root


def ftgrade(root: Path, *words: str) -> subprocess.Popen[bytes]:
    with (root / f"{'-'.join(words)}.log").open("ab") as log:
        command = [sys.executable, "-m", "ftgrade.commands.cli", *words, "--course", str(root)]
        return subprocess.Popen(command, stdout=log, stderr=log)


def scores(url: str, course_id: str = "") -> dict[tuple[str, ...], tuple[float | None, bool]]:
    """Return every grade of a gradebook: its automatic score and whether a person is asked for."""
    with Gradebook(url, course_id) as gradebook:
        return {
            (stem, submission.student.id, grade.name): (grade.auto_score, grade.needs_manual_grade)
            for stem in STEMS
            for submission in gradebook.assignment_submissions(stem)
            for notebook in submission.notebooks
            for grade in notebook.grades
        }


def test_two_instructors_book_at_once_what_sqlite_books(course: Path, url: str):
    in_sqlite = scores(f"sqlite:///{course / 'gradebook.db'}")
    (course / "nbgrader_config.py").write_text(CONFIG.format(url=url))
    assert ftgrade(course, "release", *STEMS).wait() == 0
    both = [ftgrade(course, "grade", stem) for stem in STEMS]
    assert [one.wait() for one in both] == [0, 0]
    assert len({key[:2] for key in in_sqlite}) == len(STEMS) * len(STUDENTS)
    assert sum(score or 0.0 for score, _ in in_sqlite.values()) > 0
    assert scores(url, "maths") == in_sqlite


def test_two_instructors_who_meet_the_same_student_at_once_both_go_on(url: str):
    engines, together = [create_engine(url), create_engine(url)], threading.Barrier(2)

    def enrol_all(engine: Engine) -> None:
        for number in range(20):
            with engine.begin() as connection:
                connection.execute(select(STUDENT.c.id))  # the transaction has begun
                together.wait(60)
                connection.execute(INSERT_STUDENT, {"student": f"new{number}"})

    Base.metadata.create_all(engines[0])
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(enrol_all, engine) for engine in engines]:
            done.result()
    with engines[0].connect() as connection:
        found = connection.execute(select(STUDENT.c.id).where(STUDENT.c.id.like("new%"))).all()
    assert len(found) == 20
    for engine in engines:
        engine.dispose()


def test_a_course_without_a_name_is_told_what_to_add(tmp_path: Path):
    config = CONFIG.format(url="postgresql+psycopg://nobody@/none").replace('"maths"', '""')
    (tmp_path / "nbgrader_config.py").write_text(config)
    with pytest.raises(CourseFault, match=re.escape("c.CourseDirectory.course_id = ")):
        Book(Course(tmp_path))
