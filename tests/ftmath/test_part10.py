"""Part 10: the clinics tell their patients apart, records run again, the checklist names what exists."""

import ast
import json
import math
import re
from pathlib import Path

import ftmath
import numpy as np
import pytest
import torch
from ftmath.align import frozen_copy
from ftmath.audit import audit_masks, audit_reference
from ftmath.exercises import part10
from ftmath.masks import labels_of
from ftmath.skills import EOS, batch, probes
from ftmath.weights import base_model
from ftmath.widgets import Explorer, mask_clinic, reference_clinic
from ftmath.widgets.clinics import (
    KINDS,
    MASK_FAULTS,
    MASK_LETTERS,
    REFERENCE_FAULTS,
    REFERENCE_LETTERS,
    Patient,
    clinic_explorer,
    loss_by_kind,
    patients,
    recorded,
    reference_for,
    treat_mask,
    treat_reference,
    with_dropout,
)

ROOT = Path(__file__).parents[2]
CHECKLIST = ROOT / "course" / "checklist.md"
ROWS = batch([("flip abc", "cba"), ("flip wxyz", "zyxw")])


def codes(fault: str) -> set[str]:
    starts = [int(row.argmax()) for row in ROWS.answer_mask]
    labels = labels_of(ROWS.ids, MASK_FAULTS[fault](ROWS))
    return {code for code, _ in audit_masks(ROWS.ids, labels, ROWS.attention_mask, starts, eos=EOS)}


# ---------------------------------------------------------------------------------------------------------- the clinics


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("right", set()),
        ("inverted", {"PROMPT_UNMASKED", "NO_ANSWER"}),
        ("EOS masked", {"EOS_MASKED"}),
        ("padding trained", {"PAD_UNMASKED"}),
        ("one late", {"ANSWER_MASKED", "PAD_UNMASKED"}),
        ("one early", {"PROMPT_UNMASKED", "EOS_MASKED"}),
    ],
)
def test_each_mask_fault_is_what_it_is_called(fault: str, found: set[str]):
    assert codes(fault) == found


def test_a_mask_moved_late_and_early_by_hand():
    rows = batch([("a", "bc")])  # begin, a, separator, b, c, end
    assert MASK_FAULTS["one late"](rows).tolist() == [[0, 0, 0, 0, 1, 1]]
    assert MASK_FAULTS["one early"](rows).tolist() == [[0, 0, 1, 1, 1, 0]]


def test_losses_by_kind_average_to_the_loss_of_all_tokens():
    rows, model = probes("sort", 8, 1), base_model().requires_grad_(False)
    found = loss_by_kind(model, rows)
    real = int(rows.attention_mask.sum()) - 8
    counts = [real - int(rows.answer_mask.sum()), 8, int(rows.answer_mask.sum()) - 16, 8]
    mean = sum(found[kind] * count for kind, count in zip(KINDS, counts, strict=True)) / real
    assert mean == pytest.approx(ftmath.model_loss(model, rows.ids, rows.attention_mask).item(), rel=1e-4)


def test_references_are_caught_by_the_audit_or_by_their_first_loss():
    found = {fault: policy_audit(fault) for fault in REFERENCE_FAULTS}
    assert found["right"] == set()
    assert "SHARED_WITH_POLICY" in found["alias"]
    assert found["dropout in both"] == {"REFERENCE_IN_TRAIN_MODE"}


def policy_audit(fault: str) -> set[str]:
    policy = base_model()
    return {code for code, _ in audit_reference(reference_for(fault, policy, 0), policy)}


def test_dropout_switched_off_is_the_model_itself():
    rows, model = probes("copy", 2, 0), frozen_copy(base_model())
    with_dropout(model, 0.5, 0)
    assert not torch.equal(model(rows.ids), base_model()(rows.ids))
    assert torch.equal(model.eval()(rows.ids), base_model()(rows.ids))


def test_unknown_faults_are_refused():
    for treat in (treat_mask, treat_reference):
        with pytest.raises(ValueError, match="fault"):
            treat("tired", 0)


# ----------------------------------------------------------------------------------------------------------- the record


def test_every_fault_and_seed_is_recorded():
    assert {(one.fault, one.seed) for one in patients("masks")} == {(f, s) for f in MASK_FAULTS for s in range(3)}
    assert {(one.fault, one.seed) for one in patients("references")} == {
        (f, s) for f in REFERENCE_FAULTS for s in range(3)
    }
    assert set(MASK_LETTERS) == set(MASK_FAULTS)
    assert set(REFERENCE_LETTERS) == set(REFERENCE_FAULTS)
    assert len({row["seed"] for row in recorded()["seeds"]}) == 20


@pytest.mark.parametrize("fault", MASK_FAULTS)
def test_a_mask_patients_first_steps_can_be_run_again(fault: str):
    again = treat_mask(fault, 1, steps=2, count=4)
    (one,) = (one for one in patients("masks") if (one.fault, one.seed) == (fault, 1))
    assert list(again.losses) == pytest.approx(one.losses[:2], rel=1e-2)


@pytest.mark.parametrize("fault", REFERENCE_FAULTS)
def test_a_reference_patients_first_steps_can_be_run_again(fault: str):
    again = treat_reference(fault, 1, steps=2)
    (one,) = (one for one in patients("references") if (one.fault, one.seed) == (fault, 1))
    assert list(again.losses) == pytest.approx(one.losses[:2], rel=2e-2)
    if fault == "alias":
        assert again.losses == pytest.approx([math.log(2)] * 2, abs=1e-6)
        assert again.measures["moved"] > 0


def shown(explorer: Explorer, *state: int) -> dict[str, str]:
    return dict(explorer.frame(*state)["readouts"])


@pytest.mark.parametrize("build", [mask_clinic, reference_clinic])
def test_a_clinic_shows_the_records_numbers_and_no_diagnosis(build: object):
    explorer: Explorer = build()  # pyright: ignore
    clinic, letters = ("masks", MASK_LETTERS) if build is mask_clinic else ("references", REFERENCE_LETTERS)
    json.dumps(explorer.table, allow_nan=False)
    assert len(explorer.table["frames"]) == 3 * len(letters)
    for one in patients(clinic):
        place = sorted(letters.values()).index(letters[one.fault])
        frame, said = explorer.frame(place, one.seed), shown(explorer, place, one.seed)
        assert frame["panels"][0]["series"][0]["y"] == one.losses
        assert float(said["first loss"]) == pytest.approx(one.losses[0], abs=1e-4)
        assert said["it says"] == one.says
    words = json.dumps(explorer.table)
    assert not any(fault in words for fault in letters if fault != "right")
    assert explorer._repr_mimebundle_()[0]["text/html"].count("<tr>") >= 3
    explorer.close()


def test_a_clinic_of_one():
    one = Patient("right", 0, (2.0, 1.0), {"kept": 1.0}, "a → b")
    explorer = clinic_explorer("C", [one], {"right": "A"}, "nats")
    assert shown(explorer, 0, 0)["last losses, mean"] == "1.5000"


# -------------------------------------------------------------------------------------------------------- the checklist


def checklist_rows() -> list[list[str]]:
    lines = [line for line in CHECKLIST.read_text("utf-8").splitlines() if line.startswith("| ☐ | ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if "| check |" not in line]


def test_every_line_of_the_checklist_has_code_a_symptom_and_a_link():
    rows = checklist_rows()
    assert 15 <= len(rows) <= 24  # one page
    for _, check, code, symptom, link in rows:
        assert check
        assert "`" in code
        assert len(symptom) > 10
        assert re.fullmatch(r"\[\d+\.\d\]\([^)]+\)", link)


def test_every_function_that_the_checklist_calls_exists():
    snippets = [snippet for row in checklist_rows() for snippet in re.findall(r"`([^`]+)`", row[2])]
    called: set[str] = set()
    for snippet in snippets:
        for node in ast.walk(ast.parse(snippet, mode="eval")):  # each one is Python
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called.add(node.func.id)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert hasattr(torch, node.attr)
    known = set(ftmath.__all__)
    assert called <= known, called - known
    assert len(called) >= 15


def test_every_link_of_the_checklist_resolves():
    for target in re.findall(r"\]\(([^)]+)\)", CHECKLIST.read_text("utf-8")):
        file, _, anchor = target.partition("#")
        assert anchor
        path = CHECKLIST.parent / file
        assert path.exists(), target
        cells = json.loads(path.read_text("utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert anchor in {title.replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}, target


def test_the_theory_notebook_points_to_the_checklist():
    theory = CHECKLIST.parent / "10_implementation_checklist" / "theory.ipynb"
    assert "(../checklist.md)" in theory.read_text("utf-8")


def test_the_teams_script_has_its_five_faults():
    (master,) = (Path(__file__).parents[2] / "course" / "text").glob("10_*/exercises.py")
    text = master.read_text("utf-8")
    names = dict(vars(ftmath)) | {"np": np, "torch": torch, "nn": torch.nn}
    exec(text[text.index("def team_script") : text.index("# %%", text.index("def team_script"))], names)
    train_lines, validation, ids, mask, setup, before_backward, served, losses = names["team_script"]()
    shared = part10.shared_prompts([one for one, _ in train_lines], [one for one, _ in validation])
    assert len(shared) > 0.8 * len({one for one, _ in validation})
    assert part10.mask_faults(ids, mask) == ["prompt learned", "end missing"]
    assert part10.not_held(setup) == [f"blocks.{k}.attn.v.{factor}" for k in range(4) for factor in "AB"]
    assert part10.gradient_norm(before_backward) > 0.1
    assert part10.reload_difference(setup[0], served, ids[:8]) > 0.5
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]
