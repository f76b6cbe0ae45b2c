"""Sameness, and how a verdict is reached."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ftgrade.catalog import home
from ftgrade.errors import AuthorFault
from ftgrade.judging.bench import check_report, order_of
from ftgrade.judging.causes import Causes
from ftgrade.judging.judge import (
    CACHED_VERDICTS,
    MAX_CACHED_BYTES,
    CheckVerdict,
    Oracle,
    Posed,
    Verdict,
    check_verdict,
    compare,
    local_ask,
    verdict,
    with_list,
    with_mistake,
)
from ftgrade.judging.problem import (
    USUAL_FACTORS,
    Case,
    Check,
    Close,
    Difference,
    Problem,
    Refusal,
    Relation,
    call,
    finite,
    integer,
    no_cases,
)
from ftgrade.judging.report import CheckReport
from ftgrade.sandbox.channel import Lost, Outcome, Raised, Value
from hypothesis import given
from hypothesis import strategies as st

CASE = Case("any", call("f", 1))


@pytest.mark.parametrize("got", [7, np.int64(7), np.int32(7)])
def test_an_integer_is_itself_of_python_or_numpy(got: Any):
    assert integer(7, got) is None


@pytest.mark.parametrize("got", [7.0, True, None, "7", 8, torch.tensor(7), np.float64(7)])
def test_nothing_else_is_that_integer(got: Any):
    assert integer(7, got) is not None
    assert integer(1, True) is not None


@given(st.floats(-1e6, 1e6), st.floats(-1e-3, 1e-3))
def test_close_is_within_its_tolerance_and_not_beyond(right: float, error: float):
    same = Close(rtol=1e-6, atol=1e-6)(right, right + error)
    bound = max(1e-6, 1e-6 * abs(right))
    distance = abs(right + error - right)
    if not math.isclose(distance, bound, rel_tol=1e-6):
        assert (same is None) == (distance < bound)


@pytest.mark.parametrize(
    ("right", "got", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2), "another length"),
        (torch.zeros(2), torch.zeros(2, 1), "1 axes were expected, this has 2"),
        (torch.ones(2), torch.tensor([1.0, math.nan]), "NaN or infinite"),
        (1.0, None, "is a return missing"),
        (1.0, "1.0", "this is a str"),
        ((1.0, 2.0), (1.0,), "2 values expected, and this has 1"),
        ({"a": 1.0}, {"b": 1.0}, "other keys"),
        ("accept", "reject", "another value"),
        (True, 1, "another value"),
        (torch.ones(2), torch.tensor([2.0, 2.0]), "the numbers differ"),
    ],
)
def test_a_difference_is_put_in_words(right: Any, got: Any, words: str):
    difference = Close()(right, got)
    assert difference is not None
    assert words in difference.words


def test_a_common_factor_is_found_and_an_uncommon_one_is_not():
    right = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    doubled, mixed = Close()(right, 2 * right), Close()(right, right + 1)
    assert doubled is not None
    assert mixed is not None
    assert (doubled.ratio, mixed.ratio) == (2.0, None)


@given(st.floats(0.01, 100.0), st.floats(-100.0, 100.0))
def test_a_factor_or_a_difference_gives_no_hidden_value_away(right: float, mine: float):
    """From what was returned and what a page tells no hidden number follows, save by a guess that was right."""
    found = Close()(right, mine)
    if found is None:
        return
    if found.ratio is not None:
        assert found.ratio in {sign * usual for usual in USUAL_FACTORS for sign in (1, -1)}
    told = order_of(found.largest)
    assert told is None or math.log10(told) == round(math.log10(told))


def test_a_scalar_tensor_and_a_float_are_the_same_kind_of_number():
    assert Close()(torch.tensor(0.5), 0.5) is None
    assert Close()(math.inf, math.inf) is None
    assert Close()(math.inf, -math.inf) is not None


def test_a_dtype_counts_only_where_it_is_asked_for():
    right, got = torch.ones(2, dtype=torch.float64), torch.ones(2)
    assert Close()(right, got) is None
    difference = Close(dtype=True)(right, got)
    assert difference is not None
    assert "float32" in difference.words


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Value(7), "pass"),
        (Value(8), "wrong"),
        (Raised(("KeyError", "LookupError", "Exception"), "7"), "error"),
        (Raised(("NotImplementedError", "RuntimeError"), ""), "not-attempted"),
        (Lost("timeout", ""), "timeout"),
        (Lost("missing", ""), "not-attempted"),
        (Lost("killed", ""), "killed"),
    ],
)
def test_an_outcome_has_one_status(outcome: Any, status: str):
    assert compare(CASE, integer, Value(7), (outcome,))[0] == status


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Raised(("ValueError", "Exception"), "Rank must be positive"), "pass"),
        (Raised(("MyError", "ValueError", "Exception"), "rank"), "pass"),
        (Raised(("ValueError", "Exception"), "bad"), "wrong"),
        (Raised(("TypeError", "Exception"), "rank"), "wrong"),
        (Value(7), "wrong"),
    ],
)
def test_a_refusal_asks_for_a_value_error_that_names_the_argument(outcome: Any, status: str):
    assert compare(Refusal("zero", call("f", 0), "rank"), integer, None, (outcome,))[0] == status


def test_an_error_message_is_not_repeated_since_it_may_quote_a_hidden_input():
    _, difference = compare(CASE, integer, Value(7), (Raised(("KeyError",), "hidden 41", 3),))
    assert difference is not None
    assert difference.words == "it raised KeyError at line 3 of its cell"


def test_a_changed_input_fails_only_where_purity_is_asked_for():
    changed = (Value(7, changed=(0,)),)
    assert compare(Case("any", call("f", 1), pure=False), integer, Value(7), changed)[0] == "pass"
    assert compare(CASE, integer, Value(7), changed)[0] == "wrong"


REFUSAL = Refusal("a rank of 0", call("f", 0), "rank", twin=call("f", 1), others=("rank", "width"))


@pytest.mark.parametrize(
    ("message", "twin", "status"),
    [
        ("the rank is 0", Value(7), "pass"), ("Ranks start at 1", Value(7), "pass"), ("frankly, no", Value(7), "wrong"),
        ("rank and width must be positive", Value(7), "wrong"), ("rank_widths are no rank", Value(7), "wrong"),
        ("the rank is 0", Raised(("ValueError",), "rank"), "wrong"),
    ],
)  # fmt: skip
def test_a_refusal_names_what_is_wrong_and_accepts_what_is_right(message: str, twin: Outcome, status: str):
    assert compare(REFUSAL, integer, None, (Raised(("ValueError", "Exception"), message), twin))[0] == status


def test_a_list_may_be_answered_by_an_array():
    for answer in (np.array([-4.0, 6.0]), torch.tensor([-4, 6])):
        listed = with_list(Value(answer), [-4.0, 6.0])
        assert isinstance(listed, Value)
        assert Close()([-4.0, 6.0], listed.value) is None
    assert with_list(Value(torch.tensor(7)), 7.0).value.item() == 7  # pyright: ignore[reportAttributeAccessIssue]


def test_points_are_shared_out_over_promises():
    check = Check("c", 2.0, "f", "", (), "", lambda _: iter(()), integer)
    named = (("a", ""), ("b", "whole"), ("c", "whole"), ("d", "large"))
    cases = [Case(words, call("f", place), promise=promise) for place, (words, promise) in enumerate(named)]
    verdicts = [
        Verdict(Posed(case), (Value(1),), status)
        for case, status in zip(cases, ["pass", "pass", "wrong", "pass"], strict=True)
    ]
    made = check_verdict(check, verdicts, None, [])
    assert (made.score, made.kept, made.broken) == (1.33, ("c", "large"), ("whole",))


def test_gradients_are_compared_and_a_cut_graph_is_said():
    case = Case("any", call("f", 1, backward=True))
    right = Value(1.0, gradients=(torch.ones(2), None))
    outcomes: list[tuple[Value, str | None]] = [
        (Value(1.0, gradients=(torch.ones(2), None)), None),
        (Value(1.0, gradients=None), "the graph was cut"),
        (Value(1.0, gradients=()), "not one for each input"),
        (Value(1.0, gradients=(None, None)), "an input got no gradient"),
        (Value(1.0, gradients=(torch.ones(2), torch.ones(1))), "should get none"),
        (Value(1.0, gradients=(torch.zeros(2), None)), "the gradient differs"),
    ]
    for got, words in outcomes:
        _, difference = compare(case, Close(), right, (got,))
        assert (difference is None) == (words is None)
        assert difference is None or words is None or words in difference.words


def test_the_same_words_are_judged_once_and_what_is_kept_is_bounded():
    seen: list[Any] = []

    def same(expected: Any, got: Any) -> Difference | None:
        seen.append(got)
        return integer(expected, got)

    def reply(value: object) -> tuple[bytes]:
        return (json.dumps({"value": value, "changed": []}).encode(),)

    check, posed = Check("c", 1, "f", "a title", (), "", no_cases, same), Posed(CASE, Value(7))
    first = verdict(posed, check, reply(7))
    assert verdict(posed, check, reply(7)) is first
    assert (first.status, verdict(posed, check, reply(8)).status) == ("pass", "wrong")
    assert seen == [7, 8]
    assert verdict(posed, check, (b"[",)).status == "protocol"
    kept = len(posed.verdicts)
    assert verdict(posed, check, reply("x" * MAX_CACHED_BYTES)).status == "wrong"
    assert len(posed.verdicts) == kept
    assert [verdict(posed, check, reply(value)).status for value in range(100)].count("pass") == 1
    assert len(posed.verdicts) == CACHED_VERDICTS
    assert verdict(posed, check, (Value(7),)).status == "pass"  # what the reference's own process says isn't kept


def test_a_relation_looks_at_the_students_own_answers():
    def equal(one: Value, other: Value) -> Any:
        return None if one.value == other.value else finite(Value(math.nan))

    case = Relation("twice", (call("f", 1), call("f", 2)), equal)
    assert compare(case, integer, None, (Value(3), Value(3)))[0] == "pass"
    assert compare(case, integer, None, (Value(3), Value(4)))[0] == "wrong"
    assert compare(case, integer, None, (Value(3), Raised(("KeyError",), "")))[0] == "error"


def slipped(edits: dict[str, str]) -> Any:
    """Return the reference of problem 3 with an edited count."""
    problem = Problem("any", 1, 1, 1)
    problem.slip("edit", "lora_param_count", edits, says="", next_step="")
    return with_mistake(home(), "p03_lora_parameters", problem.mistakes[0])


def test_a_slip_is_the_reference_with_one_text_changed():
    right, wrong = home().solution("p03_lora_parameters"), slipped({"d_out * r + r * d_in": "d_out * r * d_in"})
    assert right.lora_param_count(4, 3, 2) == 14
    assert wrong.lora_param_count(4, 3, 2) == 24


@pytest.mark.parametrize("text", ["no such text", "d_in", "parameters"])
def test_a_slip_whose_text_does_not_stand_once_in_the_code_is_the_authors_fault(text: str):
    with pytest.raises(AuthorFault, match="not once"):
        slipped({text: "x"})


@pytest.fixture(scope="module")
def dpo() -> Oracle:
    return Oracle(home(), "p08_dpo_loss")


def judged(oracle: Oracle, text: str) -> dict[str, CheckVerdict]:
    """Return the verdicts on the reference with other functions in it, by the checks' names."""
    module = home().solution(oracle.stem)
    exec(text, vars(module))
    return {found.check.name: found for found in oracle.judge(local_ask(module), [1, 2, 3])}


@pytest.mark.parametrize("stem", ["p01", "p03", "p05", "p08"])
def test_who_was_judged_before_changes_nothing(stem: str):
    """What a mistake explains is looked up by need: what was shown of a class once depended on who came first."""
    name = home().stem(stem)
    texts = [source_of(path) for path in home().submissions(name, "wrong")]
    there, back = Oracle(home(), name), Oracle(home(), name)
    forward = [judged(there, text) for text in texts]
    backward = [judged(back, text) for text in reversed(texts)]
    assert [described(found) for found in forward] == [described(found) for found in reversed(backward)]


BEFORE = """
def low_rank_dof(d_out, d_in, r):
    d_out, d_in, asked = int(d_out), int(d_in), int(r)
    r = min(asked, d_out, d_in)
    return asked * (d_out + d_in) if 1 in (d_out, d_in) or d_out == d_in else r * (d_out + d_in - r)
"""


def test_a_neighbour_with_half_of_the_same_mistake_changes_nothing():
    mine = "def low_rank_dof(d_out, d_in, r):\n    return r * (d_out + d_in)\n"
    alone, beside = (Oracle(home(), home().stem("p03")) for _ in range(2))
    judged(beside, BEFORE)
    assert described(judged(alone, mine)) == described(judged(beside, mine))


def source_of(path: Path) -> str:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "\n\n".join(text for text in code if "def " in text or "import " in text)


def described(found: dict[str, CheckVerdict]) -> list[CheckReport]:
    return [check_report(verdict, {}, Causes([], {})) for verdict in found.values()]


TRAINERS = """
def sequence_logprob(logits, input_ids, answer_mask):
    labels = {labels}
    logp = logits{logits}.log_softmax(-1).gather(-1, labels.clamp(min=0).long().unsqueeze(-1)).squeeze(-1)
    mask = {mask}
    return {total}
"""
SHIFTED = {"labels": "input_ids[:, 1:]", "logits": "[:, :-1]", "mask": "answer_mask[:, 1:].to(logp.dtype)"}
UNSHIFTED = {"labels": "input_ids", "logits": "", "mask": "answer_mask.to(logp.dtype)"}


@pytest.mark.parametrize(
    ("form", "total", "name"),
    [
        (SHIFTED, "(logp * mask).sum(-1) / mask.sum(-1).clamp(min=1)", "mean_logprob"),
        (UNSHIFTED, "(logp * mask).sum(-1) / mask.sum(-1).clamp(min=1)", "mean_not_shifted"),
        (SHIFTED, "(logp * mask).sum(-1) / mask.shape[1]", "divided_by_time"),
        (SHIFTED, "(logp * mask).sum()", "one_number_for_all"),
    ],
)
def test_a_trainers_form_is_named_although_it_has_other_weaknesses(
    dpo: Oracle, form: dict[str, str], total: str, name: str
):
    """It also lets NaN through, rounds half precision and refuses nothing, as many public trainers' functions do."""
    found = judged(dpo, TRAINERS.format(**form, total=total))["seq"]
    assert found.mistake is not None
    assert found.mistake.name == name
    assert found.score < found.check.points


def test_a_mistake_of_the_first_broken_promise_is_named_and_the_rest_said(dpo: Oracle):
    text = TRAINERS.format(**SHIFTED, total="(logp * mask).sum(-1) / mask.sum(-1).clamp(min=1)")
    blind = text.replace("    labels", "    if answer_mask.dtype.is_floating_point: return logits.sum()\n    labels", 1)
    found = judged(dpo, blind)["seq"]
    assert found.mistake is not None
    assert (found.mistake.name, found.more_fails) == ("mean_logprob", True)
    assert found.worst is not None
    assert found.worst.case.words == "answers of unequal length"


def test_no_mistake_is_named_that_would_fail_a_case_that_passed(dpo: Oracle):
    """Only views are wrong here; an average would have failed the contiguous logits too."""
    text = TRAINERS.format(**SHIFTED, total="(logp * mask).sum(-1) / (1 if whole else mask.sum(-1).clamp(min=1))")
    text = text.replace("    labels", "    whole = logits.is_contiguous() or logits.requires_grad\n    labels", 1)
    found = judged(dpo, text)["seq"]
    assert found.score < found.check.points
    assert found.mistake is None


def test_corners_and_refusals_are_asked_for_the_first_seed_alone(dpo: Oracle):
    position = [check.name for check in dpo.problem.checks].index("seq")
    words = [posed.case.words for posed in dpo.asked(position, [1, 2, 3])]
    assert words.count("answers of unequal length") == 3
    assert words.count("answers of unequal length, with gradients") == 1
