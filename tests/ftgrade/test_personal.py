"""Questions of one's own: who gets which, whose number counts, and what a neighbour's number is worth."""

import json
from pathlib import Path

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.commands import cli
from ftgrade.course import Course, read_roster
from ftgrade.errors import CourseFault
from ftgrade.grading.grader import Grader
from ftgrade.judging.judge import Oracle
from ftgrade.judging.judges import Judges
from ftgrade.judging.report import Report
from ftgrade.judging.seeds import open_seed, personal_seed

CATALOG = home()
STEM = "p02_kl_shift"
JUDGING = Oracle(CATALOG, STEM)
VERSION = JUDGING.problem.version
ROSTER = "id,first_name,last_name\nada,Ada,L.\nbob,Bob,\n"


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """A course that released problem 2 to a roster of two."""
    roster = tmp_path / "students.csv"
    roster.write_text(ROSTER)
    # Of a drawn secret, two rounded answers coincide now and then.
    (Course(tmp_path / "course").state / "secret").write_text("11" * 32 + "\n")
    assert cli.main(["release", STEM, "--course", str(tmp_path / "course"), "--students", str(roster)]) == 0
    return Course(tmp_path / "course")


@pytest.fixture
def grader(course: Course, judges: Judges) -> Grader:
    return Grader(home(), course, judges)


def number_of(course: Course, student: str) -> float:
    """Return the right answer to a student's question."""
    answer = JUDGING.personal_answer(personal_seed(course, student, STEM, VERSION), JUDGING.reference)
    return float(answer)  # pyright: ignore[reportArgumentType]


def graded(grader: Grader, student: str, number: float) -> Report:
    """Hand in a number and nothing else, and return the report."""
    path = grader.course.notebook(student, STEM)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(build.filled_notebook(CATALOG, STEM, f"def personal_number():\n    return {number}\n"))
    return grader.grade(student, STEM)


def stub(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    marked = [cell for cell in cells if cell["metadata"].get("nbgrader", {}).get("grade_id") == "personal_number"]
    return "".join(marked[0]["source"])


def test_each_student_of_the_roster_gets_a_statement_of_their_own(course: Course):
    paths = [course.root / "personal" / student / STEM / f"{STEM}.ipynb" for student in ("ada", "bob")]
    stubs = [stub(path) for path in (*paths, course.root / "release" / STEM / f"{STEM}.ipynb")]
    assert len(set(stubs)) == 3
    assert all("What is the KL shift" in " ".join(text.split()) and "SOLUTION" not in text for text in stubs)
    for student, text in zip(("ada", "bob"), stubs, strict=False):
        assert build.personal_words(JUDGING.problem, personal_seed(course, student, STEM, VERSION)) in text


def test_one_s_own_number_gives_the_point(course: Course, grader: Grader):
    report = graded(grader, "ada", round(number_of(course, "ada"), 4))
    assert (report.score, report.points) == (1.0, 11.0)
    assert report.findings == ()


def test_a_neighbours_number_loses_the_point_and_is_reported(course: Course, grader: Grader):
    report = graded(grader, "ada", round(number_of(course, "bob"), 4))
    assert report.score == 0.0
    assert [finding.kind for finding in report.findings] == ["neighbours-number"]
    assert "bob" not in report.findings[0].words


def test_the_published_number_is_a_neighbours_for_a_student_of_the_roster(course: Course, grader: Grader):
    report = graded(grader, "ada", round(number_of(course, "eve"), 4))
    assert [finding.kind for finding in report.findings] == ["neighbours-number"]


def test_a_student_without_a_roster_answers_the_published_question(course: Course, grader: Grader):
    assert personal_seed(course, "eve", STEM, VERSION) == open_seed(STEM, VERSION)
    assert graded(grader, "eve", round(number_of(course, "eve"), 4)).score == 1.0


def test_a_known_mistake_is_named_and_the_number_is_not_told(course: Course, grader: Grader):
    mistake = next(mistake for mistake in JUDGING.problem.mistakes if "direction" in mistake.name)
    seed = personal_seed(course, "ada", STEM, VERSION)
    wrong = float(JUDGING.personal_answer(seed, JUDGING.reference_with(mistake)))  # pyright: ignore[reportArgumentType]
    check = graded(grader, "ada", round(wrong, 4)).checks[-1]
    assert check.name == "mine"
    assert check.says == mistake.says
    assert (check.ratio, check.largest) == (None, None)


def test_a_roster_may_grow_and_may_not_lose_students(
    course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = number_of(course, "ada")
    roster = tmp_path / "students.csv"
    release = ["release", STEM, "--course", str(course.root), "--students", str(roster)]
    roster.write_text(ROSTER + "cyd,Cyd,\n")
    assert cli.main(release) == 0
    assert number_of(course, "ada") == before
    roster.write_text("id\nada\n")
    assert cli.main(release) == 2
    assert "bob, cyd" in capsys.readouterr().err
    assert course.roster() == ["ada", "bob", "cyd"]


@pytest.mark.parametrize(
    ("text", "students"),
    [("id\nada\nbob\n", ["ada", "bob"]), ("ada\nbob\n", ["ada", "bob"]), ("\ufeffname,id\nA,ada\n\n", ["ada"])],
)
def test_a_roster_is_read_with_and_without_a_header(tmp_path: Path, text: str, students: list[str]):
    (tmp_path / "r.csv").write_text(text)
    assert read_roster(tmp_path / "r.csv") == students


@pytest.mark.parametrize(
    ("text", "words"),
    [("name,mail\nA,b\n", "column named `id`"), ("id\nada\nada\n", "line 3"), ("id\n../ada\n", "line 2"), ("", "id")],
)
def test_a_bad_roster_is_refused_with_its_line(tmp_path: Path, text: str, words: str):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(CourseFault, match=words):
        read_roster(tmp_path / "r.csv")
