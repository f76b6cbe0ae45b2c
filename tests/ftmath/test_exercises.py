"""The ungraded exercises, every one: stubs say not started, references are right, each mistake is told by its name."""

import ast
import doctest
import inspect
from pathlib import Path

import pytest
from ftgrade.authoring.build import course_notebook
from ftgrade.authoring.lessons import read_stubs
from ftgrade.catalog import home
from ftmath import exercises as door
from ftmath.exercises.exercise import Exercise, Outcome, outcome, same
from ftmath.progress import Done, progress_path, read_progress, write_progress

ROOT = Path(__file__).parents[2]
ALL = [exercise for part in door.PARTS for exercise in door.exercises(part).values()]


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTMATH_PROGRESS", str(tmp_path / "progress.json"))


def numbers(exercise: Exercise) -> str:
    return exercise.number


@pytest.mark.parametrize("exercise", ALL, ids=numbers)
def test_the_reference_is_right_and_its_docstring_runs(exercise: Exercise):
    assert outcome(exercise, exercise.reference).status == "right"
    names = dict(exercise.reference.__globals__)
    test = doctest.DocTestParser().get_doctest(exercise.reference.__doc__ or "", names, exercise.number, None, 0)
    assert test.examples
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed == 0


@pytest.mark.parametrize("exercise", ALL, ids=numbers)
def test_each_mistake_is_wrong_and_told_by_its_name(exercise: Exercise):
    assert len(exercise.mistakes) >= 2
    for mistake in exercise.mistakes:
        found = outcome(exercise, mistake.wrong)
        assert found.status == "wrong", mistake.wrong.__name__
        assert found.words == mistake.says, mistake.wrong.__name__


@pytest.mark.parametrize("exercise", ALL, ids=numbers)
def test_help_is_there_and_gives_nothing_away_at_once(exercise: Exercise):
    assert len(exercise.hints) >= 2
    assert 1 <= exercise.difficulty <= 5
    assert exercise.minutes >= 1
    hints = [door.hint(exercise.number).text for _ in range(len(exercise.hints) + 1)]
    assert hints == [*exercise.hints, exercise.hints[-1]]
    assert "closed" in door.solution(exercise.number).title


@pytest.mark.parametrize("exercise", ALL, ids=numbers)
def test_an_untouched_stub_is_not_started(exercise: Exercise, tmp_path: Path):
    part = exercise.number.partition(".")[0]
    file = ROOT / "course" / "ftmath" / "exercises" / f"part{int(part):02}.py"
    stub = read_stubs(file)[exercise.number]
    for number, text in enumerate({stub.contract, stub.half}):
        if "..." not in text and "NotImplementedError" not in text:
            continue  # without a marked line, the half-blank stub is the whole function: it isn't used
        path = tmp_path / f"stub{number}.py"
        path.write_text(text)
        names = dict(exercise.reference.__globals__)
        exec(compile(text, str(path), "exec"), names)
        assert outcome(exercise, names[stub.function]).status == "not started"


def test_five_exercises_follow_the_subtopics_two_combine_and_the_rest_build():
    for part in door.PARTS:
        found = list(door.exercises(part))
        assert found[:7] == [f"{part}.{k}" for k in (1, 2, 3, 4, 5, "A", "B")]
        assert found[7:] == [f"{part}.{k}" for k in "CDEFGHIJ"[: len(found) - 7]]


@pytest.mark.parametrize("part", door.PARTS)
def test_the_notebooks_stubs_are_cut_from_the_references(part: int):
    (master,) = (ROOT / "course" / "text").glob(f"{part:02}_*/exercises.py")
    text = course_notebook(home(), master, "exercises")
    for exercise in door.exercises(part).values():
        assert f'check_exercise(\\"{exercise.number}\\"' in text
        body = ast.parse(inspect.getsource(exercise.reference)).body[0]
        last = ast.unparse(body.body[-1])  # pyright: ignore[reportAttributeAccessIssue]
        if f'exercise="{exercise.number}" fade' not in master.read_text():
            assert last not in text


# ------------------------------------------------------------------------------------------------------------- progress


def wrong(value: float):
    return lambda *_: value


def test_three_different_wrong_answers_open_the_solution_and_right_stays_right():
    number = ALL[0].number
    for value in (1.25, 1.25, 2.5):
        assert door.check_exercise(number, wrong(value)).status == "wrong"
    assert read_progress()[number].attempts == 2
    assert "closed" in door.solution(number).title
    assert "open now" in door.check_exercise(number, wrong(3.75)).words
    assert "def " in door.solution(number).text
    assert door.check_exercise(number, ALL[0].reference).status == "right"
    door.check_exercise(number, wrong(9.0))
    assert read_progress()[number].status == "right"
    assert f"{number} ✓ right" in str(door.progress(int(number.partition(".")[0])))


def test_a_check_tells_nothing_of_the_expected_value():
    exercise = door.exercise("5.2")
    said = outcome(exercise, wrong(-1)).words
    assert "-1" in said
    assert str(exercise.reference(*exercise.cases[0])) not in said


def test_a_crash_and_a_wrong_refusal_are_told_in_words():
    exercise = door.exercise("5.2")
    assert "ZeroDivisionError" in outcome(exercise, lambda *_: 1 // 0).words
    strict = Exercise("0.0", "t", exercise.reference, [], ["h"], [], 1, 1, errors=[((-1, 2), "d_out")])
    assert "should raise ValueError naming 'd_out'" in outcome(strict, lambda *_: 1).words

    def refuse(*_: int) -> int:
        raise ValueError("no")

    assert "should name 'd_out'" in outcome(strict, refuse).words
    assert outcome(strict, lambda *_: [][1]).status == "wrong"


def test_an_unknown_number_is_refused_and_a_broken_file_is_empty():
    for number in ("5.9", "x", "99.1"):
        with pytest.raises(ValueError, match=r"number|part"):
            door.exercise(number)
    progress_path().write_text("{broken")
    assert read_progress() == {}
    write_progress("5.1", Done("right"))
    assert read_progress() == {"5.1": Done("right")}
    assert progress_path().stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_written_to_loses_the_note_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FTMATH_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert door.check_exercise("5.2", door.exercise("5.2").reference).status == "right"


def test_values_are_compared_by_their_kind():
    assert not same(1.0, True, 1e-6)
    assert same({"a": [1, 2.0]}, {"a": (1, 2)}, 1e-6)
    assert not same("1", 1, 1e-6)
    shown = Outcome("5.1", "<b>", "wrong", "a < b")._repr_mimebundle_()["text/html"]
    assert "&lt;b&gt;" in shown
    assert "a &lt; b" in shown
