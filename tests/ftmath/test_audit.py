"""The audits against problem 10's reference, written apart, and the faults that each must find."""

import pytest
import torch
from ftgrade.catalog import home
from ftmath.audit import (
    adapter_effect,
    audit_freeze,
    audit_groups,
    audit_masks,
    audit_reference,
    audit_step,
    count_parameters,
    merge_difference,
)  # fmt: skip
from ftmath.lora import add_lora, lora_layers
from ftmath.masks import labels_of
from ftmath.model import Config, Decoder
from ftmath.skills import EOS, SKILLS, probes
from hypothesis import given, settings
from hypothesis import strategies as st

P10 = home().solution("p10_freeze_and_mask_audit")
SMALL = Config(vocab=17, d_model=12, layers=2, heads=2, kv_heads=2, head_dim=6, d_hidden=20)
PATTERNS = ["*bias", "blocks.0.*", "head.*", "embed.*", "none.*", "*"]


def made() -> Decoder:
    return Decoder(SMALL, torch.Generator().manual_seed(0))


@given(st.lists(st.sampled_from(PATTERNS), max_size=3, unique=True), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_freezing_is_judged_as_the_reference_judges_it(patterns: list[str], seed: int):
    model, generator = made(), torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.requires_grad_(bool(torch.rand((), generator=generator) < 0.5))
    chosen = [p for p in model.parameters() if torch.rand((), generator=generator) < 0.5]
    optimizer = torch.optim.SGD(chosen or list(model.parameters())[:1], lr=0.1)
    assert count_parameters(model) == P10.count_parameters(model)
    ours = {*audit_freeze(model, patterns), *audit_groups(model, optimizer)}
    assert ours == set(P10.audit_freeze(model, patterns, optimizer))


@given(st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_masks_are_judged_as_the_reference_judges_them(seed: int):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 4, (3, 6), generator=generator)
    attention = (torch.rand(3, 6, generator=generator) < 0.8).long()
    labels = ids.where(torch.rand(3, 6, generator=generator) < 0.6, -100)
    lengths = torch.randint(0, 5, (3,), generator=generator).tolist()
    theirs = {(code, f"row {row}") for code, row in P10.audit_masks(ids, labels, attention, lengths, 3)}
    assert set(audit_masks(ids, labels, attention, lengths, 3)) == theirs


@pytest.mark.parametrize("name", SKILLS)
def test_the_corpus_own_masks_pass(name: str):
    rows = probes(name, 8, seed=1)
    lengths = (rows.attention_mask - rows.answer_mask).sum(1).tolist()
    assert audit_masks(rows.ids, labels_of(rows.ids, rows.answer_mask), rows.attention_mask, lengths, EOS) == []
    shifted = labels_of(rows.ids, rows.answer_mask).roll(-1, 1)
    assert any(code == "LABEL_MISMATCH" for code, _ in
               audit_masks(rows.ids, shifted, rows.attention_mask, lengths, EOS))  # fmt: skip
    with pytest.raises(ValueError, match="shape"):
        audit_masks(rows.ids, shifted[:, 1:], rows.attention_mask, lengths, EOS)


def step_loss(model: torch.nn.Module) -> torch.Tensor:
    return model(torch.tensor([[1, 2, 3]])).square().mean()


def test_a_step_of_lora_moves_its_factors_alone():
    model = made()
    add_lora(model, ["q", "v"], 2, 4.0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    assert audit_step(model, optimizer, step_loss) == []


def test_an_optimizer_built_before_wrapping_is_found_and_moves_nothing():
    model = made()
    early = torch.optim.AdamW(model.blocks[0].attn.q.parameters(), lr=1e-3)
    add_lora(model, ["q"], 2, 4.0)
    codes = {code for code, _ in audit_groups(model, early)}
    assert codes == {"NOT_IN_OPTIMIZER", "FROZEN_IN_OPTIMIZER"}
    assert ("NOTHING_MOVED", "model") in audit_step(model, early, step_loss)
    stranger = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
    assert ("STRANGER_IN_OPTIMIZER", "group 0") in audit_groups(model, stranger)


def test_momentum_that_moves_a_frozen_tensor_is_found():
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    model.bias.requires_grad_(False)
    model.bias.grad = torch.zeros(1)
    optimizer.zero_grad = lambda set_to_none=True: None  # what set_to_none=False leaves: zeros, which momentum reads
    found = audit_step(model, optimizer, lambda model: model(torch.ones(2)).sum())
    assert ("FROZEN_CHANGED", "bias") in found


def test_a_reference_that_is_the_policy_or_is_random_is_found():
    policy, reference = made(), made()
    assert {code for code, _ in audit_reference(policy, policy)} == {"REFERENCE_TRAINS", "SHARED_WITH_POLICY"}
    assert audit_reference(reference.requires_grad_(False), policy) == []
    noisy = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1)).requires_grad_(False)
    assert audit_reference(noisy, policy) == [("REFERENCE_IN_TRAIN_MODE", "1")]
    assert audit_reference(noisy.eval(), policy) == []


def test_merging_and_switching_off_are_measured_and_undone():
    model = made()
    add_lora(model, ["q"], 2, 4.0, generator=torch.Generator().manual_seed(0))

    def logits(model: torch.nn.Module) -> torch.Tensor:
        return model(torch.tensor([[1, 2, 3]]))

    assert adapter_effect(model, logits) == 0.0
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.B.fill_(0.3)
    before = logits(model)
    assert adapter_effect(model, logits) > 1e-3
    assert merge_difference(model, logits) < 1e-5
    assert torch.equal(logits(model), before)
