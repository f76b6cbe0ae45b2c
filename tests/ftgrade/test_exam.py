"""A written exam: parallel forms whose numbers have nothing in common, and a key that names mistakes."""

from pathlib import Path

import numpy as np
import pytest
from ftgrade.catalog import home
from ftgrade.classroom.exam import Form, make_exam, write_exam
from ftgrade.commands import cli
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.judging.draws import MAX_DRAWS
from ftgrade.judging.judge import Oracle
from ftgrade.judging.problem import load_problem
from ftgrade.judging.questions import Questions, write_questions
from ftgrade.judging.seeds import seed_of

CATALOG = home()
STEMS = ["p03_lora_parameters", "p08_dpo_loss"]


@pytest.fixture
def course(tmp_path: Path) -> Course:
    made = Course(tmp_path / "course")
    (made.state / "secret").write_text("11" * 32 + "\n")
    return made


def forms_of(course: Course, name: str = "July", forms: int = 2) -> list[Form]:
    return make_exam(CATALOG, course, STEMS, forms, name, lambda: None)


def test_the_forms_ask_the_same_things_with_other_numbers(course: Course):
    one, other = forms_of(course)
    assert [item.title for item in one.items] == [item.title for item in other.items]
    assert all(a.words != b.words and a.answer != b.answer for a, b in zip(one.items, other.items, strict=True))


def test_the_same_secret_and_name_give_the_same_exam_and_another_name_another(course: Course):
    assert forms_of(course) == forms_of(course)
    assert not {item.words for form in forms_of(course) for item in form.items} & {
        item.words for form in forms_of(course, "August") for item in form.items
    }


def test_no_question_that_a_student_was_asked_is_asked_again(course: Course):
    stem, problem = STEMS[1], load_problem(CATALOG, STEMS[1])
    parts = ("exam", course.secret().hex(), "July", "A", stem, str(problem.version))
    seeds = [seed_of(*parts, str(draw)) for draw in range(MAX_DRAWS)]
    words = forms_of(course)[0].items[1].words
    assert problem.own is not None
    seed = next(seed for seed in seeds if problem.own.draw(np.random.default_rng(seed)).words == words)
    write_questions(course, stem, Questions(seed, problem.version, {"ada": seed}))
    assert forms_of(course)[0].items[1].words != words


def test_the_key_gives_the_references_answer_and_names_a_mistake(course: Course):
    item = forms_of(course)[0].items[1]
    oracle = Oracle(CATALOG, STEMS[1])
    flipped = next(one for one in oracle.problem.mistakes if "sign" in one.name)
    wrong = {words: one.number for one in item.wrong for words in one.says}
    assert flipped.says in wrong
    assert item.answer not in wrong.values()


def test_a_form_holds_no_answer_and_the_pages_load_nothing(course: Course, tmp_path: Path):
    forms = forms_of(course)
    paths = write_exam(forms, "July", tmp_path / "exam")
    assert [path.name for path in paths] == ["form-A.html", "form-B.html", "key.html"]
    texts = [path.read_text("utf-8") for path in paths]
    for form, text in zip(forms, texts, strict=False):
        assert all(item.words.split(".")[0].split("[")[0][:30] in text for item in form.items)
        assert not any(one.says[0] in text for item in form.items for one in item.wrong)
    assert all("default-src 'none'" in text and "<script" not in text for text in texts)


def test_a_number_of_forms_beyond_the_alphabet_is_refused_with_its_mend(course: Course):
    with pytest.raises(CourseFault, match="1 to 26, got 27"):
        forms_of(course, forms=27)


def test_the_command_writes_forms_and_key(course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "out"
    assert cli.main(["exam", "p03", "--forms", "1", "-o", str(folder), "--course", str(course.root)]) == 0
    assert "1 form of 1 question:" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["form-A.html", "key.html"]
