"""Every planted fault of problem 10 is caught by the reference audits, and nothing else is."""

import numpy as np
import pytest
from ftgrade.catalog import home, load_module
from ftgrade.intake.notebook import Cell
from ftgrade.judging.judge import draw_cases, local_ask
from ftgrade.judging.problem import call, calls_of, load_problem
from ftgrade.judging.report import Limits
from ftgrade.judging.session import Session
from ftgrade.probing.doctor import cache_file, strongest
from ftgrade.sandbox import worker
from ftgrade.sandbox.channel import Raised, Value, outcome_of
from ftgrade.sandbox.process import Sandbox

CATALOG = home()
STEM = "p10_freeze_and_mask_audit"
PLANTED = load_module(CATALOG.leaves(STEM).problem, "planted_faults")
FAULTS = load_module(CATALOG.leaves(STEM).builder, "builder").FAULTS
ASK = local_ask(CATALOG.solution(STEM))

FREEZE = {
    "extra trainable": "UNEXPECTED_TRAINABLE",
    "norm left on": "UNEXPECTED_TRAINABLE",
    "flag set as an attribute": "UNEXPECTED_TRAINABLE",
    "gradient zeroed instead": "UNEXPECTED_TRAINABLE",
    "everything frozen": "UNEXPECTED_FROZEN",
    "one factor frozen": "UNEXPECTED_FROZEN",
    "embedding left on": "UNEXPECTED_TRAINABLE",
    "memory shared": "SHARED_TENSOR_CONFLICT",
    "memory shared and trained": "SHARED_TENSOR_CONFLICT",
    "a frozen factor shared": "SHARED_TENSOR_CONFLICT",
    "a frozen norm beside the model": "FROZEN_IN_TRAIN_MODE",
    "a frozen part whose name begins another's": "FROZEN_IN_TRAIN_MODE",
    "a head with dropout": "FROZEN_IN_TRAIN_MODE",
    "memory split": "SHARED_TENSOR_CONFLICT",
    "memory read as integers": "SHARED_TENSOR_CONFLICT",
}
REFERENCE = {
    "reference trainable": "UNEXPECTED_TRAINABLE",
    "reference in train mode": "FROZEN_IN_TRAIN_MODE",
    "reference with running means": "FROZEN_IN_TRAIN_MODE",
    "reference shares memory": "SHARED_TENSOR_CONFLICT",
}
OPTIMIZER = {
    "left out of the optimizer": "NOT_IN_OPTIMIZER",
    "second group forgotten": "NOT_IN_OPTIMIZER",
    "optimizer of a copy": "NOT_IN_OPTIMIZER",
    "frozen in the optimizer": "FROZEN_IN_OPTIMIZER",
    "twice in the optimizer": "DUPLICATE_IN_OPTIMIZER",
    "twice in a group": "DUPLICATE_IN_OPTIMIZER",
    "optimizer without a group": "NOT_IN_OPTIMIZER",
    "optimizer of aliases": "NOT_IN_OPTIMIZER",
    "a late module": "NOT_IN_OPTIMIZER",
}
STEP = {
    "unused module": "NO_GRAD",
    "frozen weight drifts": "FROZEN_CHANGED",
    "a zero's sign flips": "FROZEN_CHANGED",
    "a late module": "NO_GRAD",
    "a tied parameter unused": "NO_GRAD",
    "a tied frozen weight drifts": "FROZEN_CHANGED",
    "frozen numbers of every kind change": "FROZEN_CHANGED",
    "frozen buffers of every kind change": "FROZEN_CHANGED",
    "the model itself counts": "FROZEN_CHANGED",
    "running mean moves": "FROZEN_CHANGED",
    "memory shared": "FROZEN_CHANGED",
    "rate of zero": "NOTHING_MOVED",
    "optimizer of a copy": "NOTHING_MOVED",
    "everything frozen": "NOTHING_MOVED",
}
MASKS = {
    "nothing is a target": {"NO_ANSWER"},
    "everything is a target": {"PROMPT_UNMASKED", "PAD_UNMASKED"},
    "padding is a target": {"PAD_UNMASKED"},
    "the mask is inverted": {"PROMPT_UNMASKED", "NO_ANSWER"},
    "EOS is masked": {"EOS_MASKED"},
    "labels are shifted": {"LABEL_MISMATCH", "PROMPT_UNMASKED", "EOS_MASKED"},
    "a label that is no id": {"LABEL_MISMATCH"},
    "one row without a target": {"NO_ANSWER"},
}
SEEDS = range(5)


def codes(function: str, asks: str, faults: list[str], seed: int, **more: object) -> set[str]:
    """Return the codes that the reference audit gives for a set-up with these faults."""
    spec = PLANTED.spec_of(np.random.default_rng(seed), asks, faults, **more)
    (outcome,) = ASK([call(function, spec, build=PLANTED.BUILD)])
    assert isinstance(outcome, Value), outcome
    return {code for code, _ in outcome.value[0]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FREEZE)
def test_a_fault_of_freezing_is_caught_and_nothing_else(fault: str, seed: int):
    assert codes("audit_freeze", "freeze", [fault], seed) == {FREEZE[fault]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", REFERENCE)
def test_a_fault_of_the_reference_model_is_caught_and_nothing_else(fault: str, seed: int):
    patterns = ["policy.*.A", "policy.*.B"]
    assert codes("audit_freeze", "freeze", [fault], seed, pair=True, patterns=patterns) == {REFERENCE[fault]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", OPTIMIZER)
def test_a_fault_of_the_optimizer_is_caught_and_nothing_else(fault: str, seed: int):
    assert codes("audit_freeze", "optimizer", [fault], seed) == {OPTIMIZER[fault]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", STEP)
def test_a_fault_in_a_step_is_caught_and_nothing_else(fault: str, seed: int):
    assert codes("audit_step", "step", [fault], seed) == {STEP[fault]}


def test_a_tied_parameter_has_one_name_in_a_step_and_all_its_names_in_a_set_up():
    spec = PLANTED.spec_of(np.random.default_rng(1), "step", ["a tied parameter unused"])
    (outcome,) = ASK([call("audit_step", spec, build=PLANTED.BUILD)])
    assert isinstance(outcome, Value)
    assert len(outcome.value[0]) == 1
    spec = PLANTED.spec_of(np.random.default_rng(1), "optimizer", ["embedding in the optimizer twice"], tied=True)
    (outcome,) = ASK([call("audit_freeze", spec, build=PLANTED.BUILD)])
    assert isinstance(outcome, Value)
    assert {name for _, name in outcome.value[0]} == {"embed.weight", "head.weight"}
    assert {code for code, _ in outcome.value[0]} == {"FROZEN_IN_OPTIMIZER", "DUPLICATE_IN_OPTIMIZER"}


def test_a_change_of_what_an_audit_should_only_look_at_is_seen():
    """A gradient, a buffer and the optimizer's rate count, as numbers and flags do."""

    def spoilt(spoil: str) -> object:
        source = f"def audit_freeze(model, patterns, optimizer):\n    {spoil}\n    return []"
        module: dict[str, object] = {}
        exec(source, module)
        spec = PLANTED.spec_of(np.random.default_rng(1), "optimizer", ["old gradients"])
        reply = worker.call(call("audit_freeze", spec, build=PLANTED.BUILD).request, module)
        outcome = outcome_of(reply)
        assert isinstance(outcome, Value), outcome
        return outcome.value[1]

    assert spoilt("pass") is True
    for spoil in ("model.zero_grad()", "model.positions.add_(1)", "optimizer.param_groups[0]['lr'] = 0.0"):
        assert spoilt(spoil) is False, spoil


@pytest.mark.parametrize("seed", SEEDS)
def test_missing_factors_are_caught_by_the_pattern_that_names_them(seed: int):
    patterns = ["blocks.0.up.[AB]", "blocks.1.up.[AB]"]
    assert codes("audit_freeze", "freeze", ["factors missing"], seed, patterns=patterns) == {"PATTERN_MATCHES_NOTHING"}


def test_every_fault_is_planted_by_a_case_and_no_other():
    drawn = [
        fault
        for position, check in enumerate(PLANTED.problem.checks)
        for case in draw_cases(check, position, 1)
        for call in calls_of(case)
        if call.build
        for fault, _ in call.arguments[0]["faults"]
    ]
    assert set(drawn) == set(FAULTS)


def test_a_misspelt_fault_is_an_error_that_lists_the_faults():
    spec = PLANTED.spec_of(np.random.default_rng(1), "count", ["norm left of"])
    (outcome,) = ASK([call("count_parameters", spec, build=PLANTED.BUILD)])
    assert isinstance(outcome, Raised)
    assert "'norm left of'" in outcome.message
    assert "norm left on" in outcome.message


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        "",
        "dropout in a trained part",
        "parts without parameters",
        "a part with a frozen number of its own",
        "old gradients",
    ],
)
@pytest.mark.parametrize("asks", ["freeze", "optimizer"])
def test_a_clean_set_up_raises_no_alarm(asks: str, fault: str, tied: bool):
    assert codes("audit_freeze", asks, [fault] if fault else [], 1, tied=tied) == set()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "fault",
    ["", "no old gradients", "an unused NaN", "tiny rates", "dropout that is off", "memory split",
     "a stranger in the optimizer", "frozen in the optimizer", "frozen numbers of every kind",
     "frozen buffers of every kind"],
)  # fmt: skip
def test_a_clean_step_raises_no_alarm(fault: str, tied: bool):
    """With B = 0 the gradient of A is zero, which is a gradient. A NaN that stays hasn't changed."""
    assert codes("audit_step", "step", [fault] if fault else [], 1, tied=tied) == set()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("pad", [PLANTED.PAD, PLANTED.EOS])
def test_a_fault_of_the_masks_is_caught_and_nothing_else(pad: int, left: bool, seed: int):
    ids, labels, real, prompts = PLANTED.batch(np.random.default_rng(seed), 3, left, pad)
    (clean,) = ASK([call("audit_masks", ids, labels, real, prompts, PLANTED.EOS)])
    assert isinstance(clean, Value)
    assert clean.value == []
    for fault, spoil in PLANTED.MASK_FAULTS.items():
        (outcome,) = ASK([call("audit_masks", ids, spoil(ids, labels, real), real, prompts, PLANTED.EOS)])
        assert isinstance(outcome, Value)
        assert {code for code, _ in outcome.value} == MASKS[fault], fault


def test_the_table_of_mask_faults_is_complete():
    assert set(MASKS) == set(PLANTED.MASK_FAULTS)


SPY = """
import gc, sys

def planned(value):
    return isinstance(value, dict) and "faults" in value or isinstance(value, str) and '"faults"' in value

def audit_freeze(model, trainable_patterns, optimizer=None):
    frame, seen = sys._getframe(), []
    while frame is not None:
        seen += [frame.f_locals, *frame.f_locals.values()]
        frame = frame.f_back
    found = [value for value in [*gc.get_objects(), *seen] if planned(value)]
    names = {type(module).__name__ for module in model.modules()}
    return [("PLANS", str(len(found))), *(("NAME", name) for name in sorted(names))]
"""


def test_student_code_finds_no_plan_of_what_was_planted():
    """Not of this call nor of a later one of the same message, in no frame and with no garbage collector."""
    problem = load_problem(CATALOG, STEM)
    position = [check.name for check in problem.checks].index("freeze")
    calls = [one for case in draw_cases(problem.checks[position], position, 1) for one in calls_of(case)]
    sandbox = Sandbox(strongest(cache_file()))
    try:
        with Session(sandbox, [Cell(1, "code", SPY, None)], Limits()) as session:
            outcomes = [outcome_of(reply) for reply in session.ask(calls)]
    finally:
        sandbox.close()
    told = {finding for outcome in outcomes if isinstance(outcome, Value) for finding in outcome.value[0]}
    assert len(outcomes) == len(calls) > 5
    assert {number for kind, number in told if kind == "PLANS"} == {"0"}
    assert {name for kind, name in told if kind == "NAME"}.isdisjoint({"Drifting", "Flipping", "Counted", "Halved"})


def test_a_code_that_a_student_makes_up_is_not_repeated():
    for got in ([("SEED 17", "x")], [("NO_EOS", 0), ("SEED 17", 1)]):
        found = PLANTED.same_findings([], got)
        assert found is not None
        assert "17" not in found.words
        assert "codes that the text doesn't have" in found.words
    assert "NO_EOS" in PLANTED.same_findings([], [("NO_EOS", 0)]).words
