"""The laws of the house over every problem."""

import ast
import doctest
import json
import math
import random
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.grading.grader import Grader
from ftgrade.judging.judge import Oracle, draw_cases, local_ask, with_mistake
from ftgrade.judging.problem import Case, Refusal, calls_of
from ftgrade.sandbox import worker
from ftgrade.sandbox.channel import Value
from ftmath.checks import mark_of

CATALOG = home()
STEMS = CATALOG.stems()
HandIn = Callable[..., Path]
SEEDS = [11, 12, 13]
JUDGINGS: dict[str, Oracle] = {}


def judging(stem: str) -> Oracle:
    return JUDGINGS.setdefault(stem, Oracle(CATALOG, stem))


def mistakes() -> list[tuple[str, str]]:
    return [(stem, mistake.name) for stem in STEMS for mistake in judging(stem).problem.mistakes]


def submissions(kind: str) -> list[tuple[str, Path]]:
    return [(stem, path) for stem in STEMS for path in CATALOG.submissions(stem, kind)]


def called(value: object) -> str:
    return value.stem if isinstance(value, Path) else str(value)


@pytest.mark.parametrize("stem", STEMS)
def test_the_leaves_exist_and_give_ten_points(stem: str):
    assert not CATALOG.leaves(stem).missing()
    assert judging(stem).problem.points == 10.0
    assert CATALOG.title(stem).startswith(f"Problem {int(stem[1:3])}. ")


def test_no_stray_file_stands_in_a_drawer():
    assert CATALOG.strays() == []


def test_the_built_notebooks_are_fresh():
    assert build.stale_files(CATALOG) == [], "run `ftgrade build` after editing a master"


@pytest.mark.parametrize("stem", STEMS)
def test_the_reference_scores_all_points_under_twenty_seeds(stem: str):
    verdicts = judging(stem).judge(local_ask(CATALOG.solution(stem)), list(range(20)))
    assert [(verdict.check.name, verdict.worst) for verdict in verdicts if verdict.score != verdict.check.points] == []


@pytest.mark.parametrize("stem", STEMS)
def test_the_stub_scores_nothing(stem: str, grader: Grader, hand_in: HandIn):
    hand_in("ada", stem, answers="")
    report = grader.grade("ada", stem)
    assert report.state == "graded"
    assert report.score == 0
    assert {check.status for check in report.checks} == {"not-attempted"}
    assert [note.error for note in report.notes if note.error] == [], "the notebook must run as it is handed out"


@pytest.mark.parametrize(("stem", "name"), mistakes(), ids=called)
def test_a_mistake_loses_points_is_named_and_costs_at_most_half(stem: str, name: str):
    mistake = next(mistake for mistake in judging(stem).problem.mistakes if mistake.name == name)
    verdicts = judging(stem).judge(local_ask(with_mistake(CATALOG, stem, mistake)), SEEDS)
    lost = [verdict for verdict in verdicts if verdict.score < verdict.check.points]
    assert lost, "this mistake keeps all its points: add a case that it fails"
    assert name in {verdict.mistake.name for verdict in lost if verdict.mistake}, (
        "another mistake can't be told from it"
    )
    assert sum(verdict.check.points - verdict.score for verdict in lost) <= 5.0


@pytest.mark.parametrize("stem", STEMS)
def test_at_least_fifteen_mistakes_are_named(stem: str):
    assert len(judging(stem).problem.mistakes) >= 15


@pytest.mark.parametrize("stem", STEMS)
def test_each_check_has_a_public_case_of_its_own(stem: str):
    """Several checks of one function share its docstring: at most one of them has the examples without a mark."""
    checks = judging(stem).problem.checks
    for function in {check.of for check in checks}:
        own = {check.name for check in checks if check.of == function}
        text = vars(CATALOG.solution(stem))[function].__doc__
        examples = doctest.DocTestParser().get_examples(text)
        marked = {mark_of(example) for example in examples}
        assert marked <= own | {""}, f"{function}: a mark that is no check's name"
        assert len(own - marked) <= (1 if any(one.want and not mark_of(one) for one in examples) else 0), own - marked


@pytest.mark.parametrize("stem", STEMS)
def test_a_case_draws_other_values_from_another_seed(stem: str):
    problem = judging(stem).problem
    for position, check in enumerate(problem.checks):
        drawn = [
            [call.request for case in draw_cases(check, position, seed) for call in calls_of(case)] for seed in (1, 2)
        ]
        assert drawn[0] != drawn[1], f"{check.name} asks the same of everybody"
        again = [call.request for case in draw_cases(check, position, 1) for call in calls_of(case)]
        assert again == drawn[0], f"{check.name} draws from something other than its seed"


@pytest.mark.parametrize("stem", STEMS)
def test_every_case_can_be_failed(stem: str):
    """Functions that return a constant or their input, and one that refuses everything, pass no check at all."""
    problem = judging(stem).problem
    names = problem.functions

    def refusing(*_: object, **__: object) -> None:
        raise ValueError("no")

    def constant(value: object) -> Callable[..., object]:
        return lambda *_, **__: value

    def same_as_given(*inputs: object, **_: object) -> object:
        return inputs[0] if inputs else None

    def zeros_like(*inputs: object, **_: object) -> object:
        return torch.zeros_like(inputs[0]) if inputs and torch.is_tensor(inputs[0]) else 0

    def once(function: Callable[..., object]) -> Callable[..., object]:
        met: list[int] = []

        def answer_once(*inputs: object, **named: object) -> object:
            met.append(1)
            return function(*inputs, **named) if len(met) == 1 else refusing()

        return answer_once

    zero, pair = torch.zeros((), requires_grad=True), (torch.zeros(3), torch.zeros(3))
    lazy = [refusing, same_as_given, zeros_like]
    lazy += map(constant, (None, 0, 1, 1.0, math.nan, True, "", [], {}, zero, torch.ones(3), pair))
    for function in (*lazy, once):
        module = CATALOG.solution(stem)
        for name in names:
            setattr(module, name, once(getattr(module, name)) if function is once else function)
        verdicts = judging(stem).judge(local_ask(module), [1])
        assert [verdict.check.name for verdict in verdicts if verdict.score] == []


def spoilt(value: object, bad: float) -> object:
    """Return a value of the same structure, shapes and dtypes in which every number is a bad one."""
    if torch.is_tensor(value) and value.is_floating_point():
        return 0 * value + bad
    if torch.is_tensor(value) or isinstance(value, np.ndarray):
        return torch.full(value.shape, bad)
    if isinstance(value, dict):
        return {key: spoilt(item, bad) for key, item in value.items()}
    return type(value)(spoilt(item, bad) for item in value) if isinstance(value, list | tuple) else bad


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("stem", STEMS)
def test_functions_that_are_nan_or_infinite_whatever_they_get_pass_nothing(stem: str, bad: float):
    """All functions of a problem at once: NaN is close to NaN, and a relation sees the student's own values alone."""
    judged, module = judging(stem), CATALOG.solution(stem)

    def spoils(right: Callable[..., object]) -> Callable[..., object]:
        def answer(*inputs: object, **named: object) -> object:
            try:
                return spoilt(right(*inputs, **named), bad)
            except ValueError:
                return bad

        return answer

    for name in judged.problem.functions:
        setattr(module, name, spoils(vars(CATALOG.solution(stem))[name]))
    ask = local_ask(module)
    assert [verdict.check.name for verdict in judged.judge(ask, [1]) if verdict.score] == []
    for position, check in enumerate(judged.problem.checks):
        passed = [verdict.case for verdict in judged.verdicts(check, position, ask, [1]) if verdict.status == "pass"]
        assert [case.words for case in passed if not isinstance(case, Case)] == []


@pytest.mark.parametrize("stem", STEMS)
def test_an_error_case_asks_for_what_the_reference_refuses(stem: str):
    ask = local_ask(CATALOG.solution(stem))
    for position, check in enumerate(judging(stem).problem.checks):
        for case in draw_cases(check, position, 5):
            outcome, *more = ask(calls_of(case))
            assert isinstance(outcome, Value) != isinstance(case, Refusal), case.words
            assert all(isinstance(one, Value) for one in more), f"{case.words}: the valid twin"


@pytest.mark.parametrize("stem", STEMS)
def test_the_same_call_gives_the_same_answer_twice(stem: str):
    ask = local_ask(CATALOG.solution(stem))
    for position, check in enumerate(judging(stem).problem.checks):
        for case in draw_cases(check, position, 5):
            if isinstance(case, Case):
                first, second = ask([case.call, case.call])
                assert isinstance(first, Value)
                assert isinstance(second, Value)
                assert check.same(first.value, second.value) is None


@pytest.mark.parametrize("stem", STEMS)
def test_a_personal_number_differs_from_student_to_student_and_from_mistake_to_mistake(stem: str):
    judged = judging(stem)
    assert judged.problem.own is not None
    answers = [str(judged.personal_answer(seed, judged.reference)) for seed in range(20)]
    assert len(set(answers)) >= 15
    wrong = [str(judged.personal_answer(3, judged.reference_with(mistake))) for mistake in judged.problem.mistakes]
    assert any(answer != answers[3] for answer in wrong), "no mistake changes this number: ask for another"


@pytest.mark.parametrize("stem", [stem for stem in STEMS if CATALOG.leaves(stem).builder.is_file()])
def test_a_builder_imports_torch_and_the_standard_library_alone(stem: str):
    """It is executed in the student's process, where nothing of ours can be imported."""
    tree = ast.parse(CATALOG.leaves(stem).builder.read_text("utf-8"))
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= {"torch", *sys.stdlib_module_names}


@pytest.mark.parametrize("stem", STEMS)
def test_an_answer_depends_on_its_call_alone(stem: str):
    """Two threads ask in an order of their own, twice; a builder that kept a generator gave others' numbers."""
    calls = [
        call.request
        for position, check in enumerate(judging(stem).problem.checks)
        for case in draw_cases(check, position, 5)
        for call in calls_of(case)
    ]
    namespace = vars(CATALOG.solution(stem))
    alone = [json.dumps(worker.call(request, namespace)) for request in calls]
    asked = [number for turn in range(4) for number in random.Random(turn).sample(range(len(calls)), len(calls))]
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda number: json.dumps(worker.call(calls[number], namespace)), asked)
        assert [number for number, answer in zip(asked, answers, strict=True) if answer != alone[number]] == []


# --------------------------------------------------------------------------------------------------- demo submissions


@pytest.mark.parametrize("stem", STEMS)
def test_every_problem_has_demo_submissions(stem: str):
    counts = {kind: len(CATALOG.submissions(stem, kind)) for kind in ("accepted", "wrong", "broken")}
    assert counts["accepted"] >= 4
    assert counts["wrong"] >= 3
    assert counts["broken"] >= 5


@pytest.mark.parametrize(("stem", "path"), submissions("accepted"), ids=called)
def test_an_accepted_style_keeps_all_points(stem: str, path: Path, grader: Grader, hand_in: HandIn):
    hand_in("ada", stem, data=path.read_bytes())
    report = grader.grade("ada", stem)
    assert [(check.name, check.words) for check in report.checks if check.status != "pass"] == []
    assert report.score == report.points


@pytest.mark.parametrize(("stem", "path"), submissions("wrong"), ids=called)
def test_a_wrong_submission_loses_points_with_words(stem: str, path: Path, grader: Grader, hand_in: HandIn):
    hand_in("ada", stem, data=path.read_bytes())
    report = grader.grade("ada", stem)
    assert report.state == "graded"
    assert report.score < 10.0
    assert all(check.next_step and check.words for check in report.checks if check.status != "pass")


@pytest.mark.parametrize(("stem", "path"), submissions("broken"), ids=called)
def test_a_broken_submission_gets_a_report_that_says_why(stem: str, path: Path, grader: Grader, hand_in: HandIn):
    hand_in("ada", stem, data=path.read_bytes())
    report = grader.grade("ada", stem)
    assert report.state != "ours"
    told = [*report.findings, *report.notes, *(check for check in report.checks if check.status != "pass")]
    assert told


# ------------------------------------------------------------------------------------------------- nothing leaks out


def secret_lines(catalog: Catalog, stem: str) -> set[str]:
    """Return the telling lines of the reference's bodies and of the hidden cases."""
    leaves = catalog.leaves(stem)
    solution = leaves.solution.read_text("utf-8")
    lines: set[str] = set()
    for node in ast.walk(ast.parse(solution)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            for statement in body:
                lines |= set(solution.splitlines()[statement.lineno - 1 : statement.end_lineno])
    lines |= {line for line in leaves.problem.read_text("utf-8").splitlines() if "yield " in line}
    return {line.strip() for line in lines if len(line.strip()) >= 20}


@pytest.mark.parametrize("stem", STEMS)
def test_the_student_notebook_holds_no_line_of_a_reference_or_a_case(stem: str):
    text = CATALOG.leaves(stem).notebook.read_text("utf-8")
    source = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    assert [line for line in secret_lines(CATALOG, stem) if line in source] == []


@pytest.mark.parametrize("stem", STEMS)
def test_a_report_holds_no_value_of_a_hidden_case(stem: str, grader: Grader, hand_in: HandIn):
    """A submission that raises its inputs back at the grader learns nothing from its report."""
    answers = "\n".join(
        f"def {name}(*a, **b):\n    print('CANARY', a, b)\n    raise KeyError('CANARY', a, b)\n"
        for name in judging(stem).problem.functions
    )
    hand_in("eve", stem, answers=answers)
    report = grader.grade("eve", stem)
    assert report.score == 0
    stored = json.loads(grader.course.report_path("eve", stem).read_text())
    assert "CANARY" not in json.dumps(stored | {"cells": [], "forms": {}}), "what was handed in alone may say so"
    assert not re.search(r"tensor\(|array\(", str(report.checks))
