"""Questions of one's own: who gets which, whose number counts, and who is told of a coincidence."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.classroom.roster import read_roster
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.gradebook import cells, todo
from ftgrade.grading.grader import Grader
from ftgrade.intake.notebook import Finding
from ftgrade.judging import draws as draws_room
from ftgrade.judging.bench import same_number_findings
from ftgrade.judging.coincidences import numbers_of
from ftgrade.judging.draws import Draws, draw_questions
from ftgrade.judging.judge import Oracle
from ftgrade.judging.judges import Judges
from ftgrade.judging.problem import Mistake, load_problem, whole
from ftgrade.judging.questions import Questions, read_questions
from ftgrade.judging.report import SAME_NUMBER, Report, student_view
from ftgrade.judging.seeds import open_seed
from ftgrade.judging.statements import Statements
from ftgrade.sandbox.channel import Value

CATALOG = home()
STEM = "p02_kl_shift"
JUDGING = Oracle(CATALOG, STEM)
VERSION = JUDGING.problem.version
NARROW = ()
"""Problems whose questions have too few answers for a class of 40."""
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


def seeds_of(course: Course, student: str) -> list[int]:
    return read_questions(course, STEM, VERSION).accepted(student)


def number_of(course: Course, student: str) -> float:
    """Return the right answer to a student's question."""
    answer = JUDGING.personal_answer(seeds_of(course, student)[0], JUDGING.reference)
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
        assert build.personal_words(JUDGING.problem, seeds_of(course, student)[0]) in text


def test_one_s_own_number_gives_the_point(course: Course, grader: Grader):
    report = graded(grader, "ada", round(number_of(course, "ada"), 4))
    assert (report.score, report.points) == (1.0, 11.0)
    assert report.findings == ()


def test_another_questions_number_loses_the_point_and_the_instructor_alone_is_told(course: Course, grader: Grader):
    report = graded(grader, "ada", round(number_of(course, "bob"), 4))
    assert report.score == 0.0
    (finding,) = report.findings
    assert finding.kind == SAME_NUMBER
    assert "bob" not in finding.words
    assert "The chance that an honest mistake gives such a number is " in finding.words
    assert [(reason, cell) for reason, _, _, cell in todo.report_needs(report)] == [("coincidence", "mine")]
    shown = [json.dumps(student_view(report)), json.dumps(cells.page_summary(report))]
    for text in (*shown, *booked_texts(course)):
        assert SAME_NUMBER not in text
        assert "right for another" not in text


def booked_texts(course: Course) -> list[str]:
    """Grade and book the course; return the notebook that formgrader shows and the student's page."""
    grade = ["grade", STEM, "--course", str(course.root), "-j", "1"]
    assert cli.main(grade) == cli.SOME_NEED_A_PERSON  # the coincidence
    paths = (course.root / name / "ada" / STEM for name in ("autograded", "feedback"))
    return [file.read_text("utf-8") for path in paths for file in path.iterdir()]


def test_the_published_number_is_a_coincidence_for_a_student_of_the_roster(course: Course, grader: Grader):
    report = graded(grader, "ada", round(number_of(course, "eve"), 4))
    assert [finding.kind for finding in report.findings] == [SAME_NUMBER]


def test_a_number_that_a_named_mistake_explains_is_no_finding(course: Course):
    """It is explained, whatever question else it is right for."""
    (own, *_), mistake = seeds_of(course, "ada"), direction()
    wrong = JUDGING.personal_answer(own, JUDGING.reference_with(mistake))
    verdict = JUDGING.judge_personal(lambda _: [Value(wrong)], [own])
    told = Statements([own, 7], [None, numbers_of(wrong)], 1, 10)
    assert same_number_findings([own], verdict, told) == []
    (finding,) = same_number_findings([own], replace(verdict, mistake=None), told)
    assert "about 10 %: of the 10 wrong numbers" in finding.words


@pytest.mark.parametrize(
    ("stem", "wrong", "findings"), [("p01_answer_only_loss", 1_500, 15), ("p05_truncated_svd", 400, 8)]
)
def test_in_a_class_of_100_with_each_named_mistake_nobody_is_accused(
    stem: str, wrong: int, findings: int, tmp_path: Path
):
    questions = class_questions(tmp_path, stem, 100)
    oracle, told = Oracle(CATALOG, stem), questions.statements
    assert told.wrong >= wrong
    assert told.equal <= findings  # what would be found if no mistake were named
    accused = 0
    for student, mistake in itertools.product(questions.seeds, oracle.problem.mistakes):
        seeds = questions.accepted(student)
        answer = oracle.personal_answer(seeds[0], oracle.reference_with(mistake))
        verdict = oracle.judge_personal(lambda _, answer=answer: [Value(answer)], seeds)
        found = tuple(same_number_findings(seeds, verdict, told))
        accused += len(found)
        assert made_report(found).told_to_student == ()
    assert accused == 0


def made_report(findings: tuple[Finding, ...]) -> Report:
    return Report(STEM, "ada", "graded", "", "", 1, (), findings)


def class_questions(root: Path, stem: str, students: int) -> Questions:
    course = Course(root)
    course.write_secret(bytes(32))
    course.roster_path.write_text("id\n" + "".join(f"student{number}\n" for number in range(students)))
    return draw_questions(CATALOG, course, stem, load_problem(CATALOG, stem).version)


@pytest.mark.parametrize("stem", [one for one in CATALOG.stems() if one not in NARROW])
def test_in_a_class_of_40_nobodys_right_answer_is_anothers(stem: str, tmp_path: Path):
    questions = class_questions(tmp_path, stem, 40)
    answers = [answer for answer in questions.statements.answers if answer is not None]
    tolerance = Draws(Oracle(CATALOG, stem)).close
    alike = [(one, two) for one, two in itertools.combinations(answers, 2) if tolerance.accepts(tuple(one), tuple(two))]
    assert len(answers) == 41
    assert alike == []


def test_without_the_choice_the_first_draws_coincide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: what the draw is for happens when each student's first one is taken."""
    monkeypatch.setattr(draws_room, "MAX_DRAWS", 1)
    told = class_questions(tmp_path, "p01_answer_only_loss", 100).statements
    assert told.equal > 20


def test_nobodys_question_changes_when_somebody_joins_or_the_problem_learns_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = class_questions(tmp_path, STEM, 10)
    again = class_questions(tmp_path / "again", STEM, 10)
    assert again == before  # the same roster and secret give the same questions
    assert class_questions(tmp_path / "more", STEM, 12).seeds.items() > before.seeds.items()
    monkeypatch.setattr(Draws, "mistaken", lambda self, question: [self.answer(question)])  # conflicts with all
    monkeypatch.setattr(Catalog, "digest", lambda *_: "another")
    after = class_questions(tmp_path, STEM, 11)
    assert after.seeds.items() > before.seeds.items()
    assert after.digest == "another"


def test_a_damaged_record_is_named_with_its_mend(course: Course):
    course.questions_path(STEM).write_text("{")
    with pytest.raises(CourseFault, match="put it back from a backup, or remove it"):
        read_questions(course, STEM, VERSION)


def test_after_a_common_release_both_answers_count_and_nobody_is_found(
    tmp_path: Path, judges: Judges, capsys: pytest.CaptureFixture[str]
):
    roster, course = tmp_path / "students.csv", Course(tmp_path / "course")
    roster.write_text(ROSTER)
    course.root.mkdir()
    release = ["release", STEM, "--course", str(course.root)]
    assert cli.main(release) == 0
    common = Grader(home(), course, judges)
    published = round(number_of(course, "ada"), 4)
    first = graded(common, "ada", published)
    assert (first.score, first.findings) == (1.0, ())
    assert cli.main([*release, "--students", str(roster)]) == 0
    assert len(seeds_of(course, "ada")) == 2
    later = Grader(home(), course, judges)
    for number in (published, round(number_of(course, "ada"), 4)):
        report = graded(later, "ada", number)
        assert (report.score, report.findings) == (1.0, ())
    assert first.graded_by["question"] == "published"
    assert report.graded_by["question"].startswith("own or published ")
    other = graded(later, "ada", round(number_of(course, "bob"), 4))
    assert (other.score, [one.kind for one in other.findings]) == (0.0, [SAME_NUMBER])


def test_a_problem_that_was_never_released_personally_accepts_the_published_answer_too(course: Course):
    """The roster came with another problem's release."""
    stem = "p09_scorecard"
    questions = draw_questions(CATALOG, course, stem, 1)
    assert questions.accepted("ada") == [questions.seeds["ada"], open_seed(stem, 1)]


def test_whole_numbers_may_be_floats_and_the_question_says_which_digits_count():
    for stem in CATALOG.stems():
        problem = load_problem(CATALOG, stem)
        assert problem.own is not None
        stub = " ".join(build.personal_stub(problem, 3).split())
        assert problem.own.precision in stub
        if problem.own.check.same is whole:
            assert "12.0" in stub
        else:
            assert "4 decimals are enough" in stub
    for given in (2160, 2160.0, np.float64(2160), np.int64(2160), torch.tensor(2160)):
        assert whole(2160, given) is None
    for given in (2160.5, 2161.0, True, "2160", None, math.nan, math.inf, [2160.0]):
        assert whole(2160, given) is not None


def test_a_student_without_a_roster_answers_the_published_question(course: Course, grader: Grader):
    assert seeds_of(course, "eve") == [open_seed(STEM, VERSION)]
    assert graded(grader, "eve", round(number_of(course, "eve"), 4)).score == 1.0


def direction() -> Mistake:
    return next(mistake for mistake in JUDGING.problem.mistakes if "direction" in mistake.name)


def test_a_known_mistake_is_named_and_the_number_is_not_told(course: Course, grader: Grader):
    mistake, (seed,) = direction(), seeds_of(course, "ada")
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


def test_a_wrong_list_can_be_taken_back_and_nobody_elses_question_changes(
    course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = number_of(course, "ada")
    roster = tmp_path / "students.csv"
    release = ["release", STEM, "--course", str(course.root), "--students", str(roster)]
    roster.write_text(ROSTER + "ada lovelace,,\n")
    assert cli.main(release) == 0
    roster.write_text(ROSTER)
    capsys.readouterr()
    assert cli.main(release) == 2
    assert "the same command with --take-back" in capsys.readouterr().err
    assert cli.main([*release, "--take-back"]) == 0
    assert "taken back: the questions of ada lovelace" in capsys.readouterr().out
    assert course.roster() == ["ada", "bob"]
    assert sorted(path.name for path in (course.root / "personal").iterdir()) == ["ada", "bob"]
    assert set(read_questions(course, STEM, VERSION).seeds) == {"ada", "bob"}
    assert number_of(course, "ada") == before
    assert (course.state / "taken-back" / "ada lovelace" / STEM).is_dir()


def test_who_has_handed_in_keeps_the_question(course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (course.root / "submitted" / "bob").mkdir(parents=True)
    (tmp_path / "students.csv").write_text("id\nada\n")
    words = ["--course", str(course.root), "--students", str(tmp_path / "students.csv"), "--take-back"]
    assert cli.main(["release", STEM, *words]) == 2
    assert "these have handed in, so their questions stay: bob" in capsys.readouterr().err
    assert course.roster() == ["ada", "bob"]
    assert cli.main(["release", STEM, "--course", str(course.root), "--take-back"]) == 2


def test_a_list_that_can_not_be_read_releases_nothing(course: Course, tmp_path: Path, capsys):
    for name, data, words in (("nothing.csv", None, "can't be read"), ("latin.csv", b"id\nzo\xeb\n", "CSV in UTF-8")):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        release = ["release", STEM, "--course", str(course.root), "--students", str(tmp_path / name)]
        assert cli.main(release) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "students"),
    [("id\nada\nbob\n", ["ada", "bob"]), ("ada\nbob\n", ["ada", "bob"]), ("\ufeffname,id\nA,ada\n\n", ["ada"])],
)
def test_a_roster_is_read_with_and_without_a_header(tmp_path: Path, text: str, students: list[str]):
    (tmp_path / "r.csv").write_text(text)
    assert list(read_roster(tmp_path / "r.csv").students) == students


@pytest.mark.parametrize(
    ("text", "words"),
    [("name,mail\nA,b\n", "column named `id`"), ("id\nada\nada\n", "line 3"), ("id\n../ada\n", "line 2"), ("", "id")],
)
def test_a_bad_roster_is_refused_with_its_line(tmp_path: Path, text: str, words: str):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(CourseFault, match=words):
        read_roster(tmp_path / "r.csv")
