"""Questions on a student's own code: certain answers, the student's own lines, and a failure that stays with one."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ftgrade.catalog import home
from ftgrade.classroom.asking import Example, changes_of, contract_examples, make_questions, own_functions
from ftgrade.classroom.questions import Examiner, Sheet, sheets_of, write_sheets
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.gradebook.book import Book
from ftgrade.grading.grader import Grader
from ftgrade.intake.gate import clean
from ftgrade.intake.notebook import Cell, read_submission
from ftgrade.judging.judges import Judges
from ftgrade.probing.doctor import cache_file, strongest
from ftgrade.sandbox.forking import Nursery
from ftgrade.sandbox.process import Sandbox

CATALOG = home()
STEM = "p03_lora_parameters"
SUBMISSIONS = CATALOG.submissions(STEM, "accepted")


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    nursery = Nursery()
    made = Examiner(nursery, CATALOG, strongest(cache_file()))
    yield made
    made.close()
    nursery.close()


@pytest.fixture
def root(tmp_path: Path, judges: Judges) -> Path:
    """A course in which four students' answers were graded, two of them the same."""
    for student, path in zip(("ada", "bob", "cyd", "dan"), [*SUBMISSIONS[:3], SUBMISSIONS[0]], strict=True):
        goal = tmp_path / "submitted" / student / STEM / f"{STEM}.ipynb"
        goal.parent.mkdir(parents=True)
        shutil.copy(path, goal)
    grader = Grader(CATALOG, Course(tmp_path), judges)
    for student in ("ada", "bob", "cyd", "dan"):
        grader.grade(student, STEM)
    return tmp_path


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    yield made
    made.close()


def sheets(root: Path, examiner: Examiner) -> dict[str, Sheet]:
    return {sheet.student: sheet for sheet in sheets_of(Course(root), STEM, examiner)}


def test_each_student_gets_three_questions_on_lines_of_their_own(root: Path, examiner: Examiner):
    for sheet in sheets(root, examiner).values():
        assert len(sheet.questions) == 3
        for one in sheet.questions:
            text = sheet.code[one.function].splitlines()[one.line - 1]
            assert "".join(text.split())[:6] == "".join(one.was.split())[:6]
            assert one.was != one.now
            assert one.answer != one.before


def test_the_same_submission_gets_the_same_questions_and_a_copy_gets_others(root: Path, examiner: Examiner):
    first = sheets(root, examiner)
    assert sheets(root, examiner) == first
    assert first["ada"].questions != first["dan"].questions


def test_an_answer_is_what_the_changed_code_gives(sandbox: Sandbox):
    """The control: the edit is made in the text, and Python computes the call in this process."""
    cells = list(read_submission(SUBMISSIONS[0]).cells)
    made = make_questions(CATALOG, STEM, cells, "a key", sandbox)
    assert len(made["questions"]) == 3
    for one in made["questions"]:
        space: dict[str, object] = {}
        own = own_functions(cells, [one["function"]])[one["function"]]
        (source,) = {
            change.source
            for change in changes_of(own)
            if (change.line, change.was, change.now) == (one["line"], one["was"], one["now"])
        }
        for cell in cells:
            with contextlib.suppress(Exception):  # cells that check, or that are no plain Python
                exec(cell.source if cell.kind == "code" else "", space)
        exec(source, space)
        assert "raises" in one["answer"] or repr(eval(one["call"], space)) == one["answer"]


@pytest.mark.parametrize(
    "body",
    [
        "    return undefined + 1",
        "    while True:\n        pass",
        "    return object()",
        "    import os; os._exit(1)",
    ],
    ids=["a name error", "an endless loop", "no value that can be told", "the end of the process"],
)
def test_code_without_certain_answers_gets_no_question_and_harms_nothing(sandbox: Sandbox, body: str):
    cells = [Cell(1, "code", clean(f"def lora_param_count(d_out, d_in, r):\n{body}\n"), None)]
    assert make_questions(CATALOG, STEM, cells, "a key", sandbox)["questions"] == []


def test_noise_makes_no_question(sandbox: Sandbox):
    source = "import random\ndef lora_param_count(d_out, d_in, r):\n    return random.SystemRandom().random() + r\n"
    cells = [Cell(1, "code", clean(source), None)]
    assert make_questions(CATALOG, STEM, cells, "a key", sandbox)["questions"] == []


def test_every_problem_has_examples_to_ask_about():
    for stem in CATALOG.stems():
        found = contract_examples(CATALOG, stem)
        assert found, stem
        assert all(isinstance(one, Example) for examples in found.values() for one in examples)


def test_the_sheets_show_text_as_text_and_only_one_holds_answers(root: Path, examiner: Examiner):
    found = list(sheets(root, examiner).values())
    asked, answered = write_sheets(Course(root), STEM, "A <b>title</b>", found, {"ada": "Ada <script>"})
    for path in (asked, answered):
        text = path.read_text("utf-8")
        assert "<script" not in text
        assert "<b>title" not in text
        assert "Ada &lt;script&gt;" in text
    assert "The call gives" in answered.read_text("utf-8")
    assert "The call gives" not in asked.read_text("utf-8")


def test_a_process_that_ends_costs_one_student_alone(root: Path, examiner: Examiner, monkeypatch: pytest.MonkeyPatch):
    original = Examiner.ask

    def ask(self: Examiner, stem: str, report: object, key: str) -> object:
        if getattr(report, "student", "") == "bob":
            self.close()
            raise OSError("it ended")
        return original(self, stem, report, key)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Examiner, "ask", ask)
    found = sheets(root, examiner)
    assert "it ended" in found["bob"].why
    assert all(len(found[student].questions) == 3 for student in ("ada", "cyd", "dan"))


def test_the_command_writes_both_sheets(root: Path, capsys: pytest.CaptureFixture[str]):
    Book(Course(root)).release(STEM)
    assert cli.main(["questions", "p03", "--course", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["questions"] == 12
    assert [Path(path).is_file() for path in told["sheets"]] == [True, True]
