"""The loop, the map and the runs that learn from judgements, on the real base model, with few steps."""

from functools import partial

import numpy as np
import pytest
import torch
from ftmath.align import fit_preferences, fit_reward_model, frozen_copy, judged
from ftmath.audit import audit_groups
from ftmath.context import NO_UPDATE, Notes
from ftmath.device import best_device, describe, fastest_dtype
from ftmath.masks import answer_only_loss, model_logprob, model_loss, sequence_logprob
from ftmath.methods import METHODS, ask, ewc_anchor, fine_tune, kl_anchor, kl_to_base, l2_anchor
from ftmath.model import Decoder
from ftmath.preference import dpo_loss, ipo_loss
from ftmath.prefixes import SoftPrompt, add_prefix
from ftmath.probe import add_head, features, ridge_probe
from ftmath.rounds import PolicySettings, improve_policy, roll_out
from ftmath.skills import SKILLS, accuracy, example, mixture, probes
from ftmath.training import cosine, train
from ftmath.weights import base_model

TRAINABLE = {
    "full": 825_728, "full, layer-wise": 825_728, "LoRA": 39_424, "LoRA q,v": 8_192, "rsLoRA": 39_424,
    "QLoRA": 39_424, "Houlsby adapters": 17_472, "Pfeiffer adapters": 16_960, "prefix": 8_192, "soft prompt": 1_024,
    "BitFit": 5_376, "norm gains": 1_152, "linear probe": 16_384,
}  # fmt: skip
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: CPU alone is checked")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
def test_every_row_of_the_map_trains_what_it_says_and_starts_at_the_base(method: str, device: str):
    _, run = fine_tune(method, "flip", steps=6, rows=8, device=torch.device(device))
    assert run.trainable == TRAINABLE[method]
    assert run.losses[-1] < run.losses[0]
    assert run.budget.optimizer == 2 * 4 * run.trainable
    assert set(run.retention) == set(SKILLS)
    assert run.device.startswith(device)
    # A fresh adapter changes nothing: the first loss is the base's, unless virtual tokens stand before it.
    lines = mixture({"flip": 1.0}, 8, np.random.default_rng(0))
    base = float(model_loss(base_model().requires_grad_(False), lines.ids, lines.answer_mask))
    off = {"QLoRA": 0.05, "soft prompt": np.inf, "prefix": np.inf}.get(method, 1e-4)
    assert run.losses[0] == pytest.approx(base, rel=off)


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    first, again, other = (fine_tune("LoRA q,v", "neb", steps=3, rows=4, seed=seed)[1] for seed in (0, 0, 1))
    assert first.losses == again.losses != other.losses


@pytest.mark.parametrize("anchor", [kl_anchor(1.0, 4), l2_anchor(1.0), ewc_anchor(1.0, 4)], ids=["kl", "l2", "ewc"])
def test_an_anchor_weighs_nothing_at_the_base_and_something_away_from_it(anchor):
    base = base_model().requires_grad_(False)
    model = base_model()
    penalty = anchor(model, base)
    assert penalty().item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert penalty().item() > 1e-4
    penalty().backward()


def test_a_kl_anchor_and_replay_keep_more_of_the_base():
    kwargs = {"steps": 25, "rows": 16, "rate": 1e-3}
    alone, held, replayed = (
        fine_tune("full", "flip", **kwargs, **more)[1] for more in ({}, {"anchor": kl_anchor(1.0)}, {"replay": 0.5})
    )
    assert held.kl < 0.5 * alone.kl
    assert replayed.kept > alone.kept
    for bad in ({"replay": 1.0}, {"method": "LoRa"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            fine_tune(**{"method": "full", "task": "flip"} | bad)


@pytest.mark.parametrize("way", NO_UPDATE)
def test_asking_otherwise_trains_nothing(way: str):
    run = ask(way, "flip", count=32)
    assert run.trainable == run.budget.gradients == 0
    assert run.quality == (1.0 if way == "better prompt" else pytest.approx(0.0, abs=0.1))
    assert ask("retrieval", "neb", count=32).quality == 1.0
    with pytest.raises(ValueError, match="way"):
        ask("loudly", "flip")


def test_notes_are_found_by_what_they_share():
    notes = Notes(["the cat sat", "a dog ran", "the dog sat"])
    assert notes.nearest("dog ran", 2) == ["a dog ran", "the dog sat"]
    assert len(notes.nearest("zzz", 3)) == 3
    with pytest.raises(ValueError, match="texts"):
        Notes([])


def test_losses_without_unread_logits_are_the_same_losses():
    rows = probes("sort", 6, seed=3)
    model = base_model()
    soft = SoftPrompt(base_model(), torch.tensor([70, 71]))
    prefixed = base_model()
    add_prefix(prefixed, 3, torch.Generator().manual_seed(0), scale=1.0)
    for one in (model, soft, prefixed):
        logits = one(rows.ids, rows.attention_mask)
        torch.testing.assert_close(
            model_loss(one, rows.ids, rows.answer_mask), answer_only_loss(logits, rows.ids, rows.answer_mask)
        )
        torch.testing.assert_close(
            model_logprob(one, rows.ids, rows.answer_mask), sequence_logprob(logits, rows.ids, rows.answer_mask)
        )
    with pytest.raises(ValueError, match="answer_mask"):
        model_loss(model, rows.ids, torch.zeros_like(rows.answer_mask))


# ------------------------------------------------------------------------------------------------------------- the loop


def test_each_group_keeps_its_own_rate_under_a_schedule():
    """A schedule that writes one rate to all groups is the classic bug: after a step all rates are equal."""
    slow, fast = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    model = torch.nn.ParameterList([slow, fast])
    groups = [{"params": [slow], "lr": 1e-3}, {"params": [fast], "lr": 1e-2}]
    train(model, lambda step: slow.sum() + fast.sum(), groups, 5, schedule=cosine)
    # Adam moves each by its rate at every step, whatever the gradient's size.
    share = sum(cosine(step, 5) for step in range(5))
    torch.testing.assert_close(1 - slow.detach(), torch.tensor([1e-3 * share]), rtol=1e-3, atol=0)
    torch.testing.assert_close(1 - fast.detach(), torch.tensor([1e-2 * share]), rtol=1e-3, atol=0)


def test_a_tensor_without_a_gradient_is_not_touched():
    still, moved = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    model = torch.nn.ParameterList([still, moved])
    groups = [{"params": [still, moved], "lr": 0.1, "weight_decay": 0.5}]
    train(model, lambda step: (moved if step else moved + still).sum(), groups, 1)
    after_one = still.detach().clone()
    train(model, lambda step: moved.sum(), groups, 5)
    assert torch.equal(still, after_one)
    assert float(moved.detach()) < 0.7


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_model():
    layer = torch.nn.Linear(1, 1, bias=False)
    before = layer.weight.detach().clone()
    with pytest.raises(ValueError, match="step 0"):
        train(layer, lambda step: layer.weight.sum() * torch.nan, layer.parameters(), 3)
    assert torch.equal(layer.weight, before)


def test_adamw_is_the_papers_and_decays_apart_from_the_gradient():
    """arXiv:1711.05101, algorithm 2: a zero gradient leaves (1 - rate * decay) of a weight."""
    weight = torch.nn.Parameter(torch.ones(1))
    train(torch.nn.ParameterList([weight]), lambda step: 0 * weight.sum(),
          [{"params": [weight], "lr": 0.1, "weight_decay": 0.5}], 1)  # fmt: skip
    assert float(weight.detach()) == pytest.approx(1 - 0.1 * 0.5)


# --------------------------------------------------------------------------------------------------------------- probes


def test_the_closed_form_probe_is_where_its_gradient_vanishes():
    generator = torch.Generator().manual_seed(0)
    H, Y = (torch.randn(20, width, generator=generator, dtype=torch.float64) for width in (4, 2))
    W, b = (part.requires_grad_() for part in ridge_probe(H, Y, 0.7))
    ((H @ W.T + b - Y).square().sum() + 0.7 * W.square().sum()).backward()
    torch.testing.assert_close(W.grad, torch.zeros_like(W), rtol=0, atol=1e-10)
    torch.testing.assert_close(b.grad, torch.zeros_like(b), rtol=0, atol=1e-10)


def test_features_are_the_streams_of_every_level_and_leave_no_hook():
    model, rows = base_model(), probes("copy", 3, seed=0)
    places = rows.attention_mask.sum(1) - 1
    found = features(model, rows.ids, rows.attention_mask, places)
    assert found.shape == (5, 3, 128)
    torch.testing.assert_close(found[0], model.embed(rows.ids[torch.arange(3), places]))
    last = model.hidden(rows.ids, rows.attention_mask)[torch.arange(3), places]
    torch.testing.assert_close(model.norm(found[-1]), last)
    assert not any(block._forward_hooks for block in model.blocks)


def test_a_head_of_its_own_is_not_tied_and_starts_equal():
    model, base = base_model(), base_model()
    add_head(model)
    ids = torch.tensor([[1, 70, 2]])
    assert torch.equal(model(ids), base(ids))
    assert model.head.weight is not model.embed.weight
    assert not model.embed.weight.requires_grad


# ----------------------------------------------------------------------------------------------------------- judgements


def polite_pairs(count: int) -> list[tuple[str, str, str]]:
    rng = np.random.default_rng(0)
    lines = [example("please", rng) for _ in range(count)]
    return [(prompt, answer, answer.removesuffix(", thanks!")) for prompt, answer in lines]


def test_dpo_starts_at_log_2_and_widens_the_margin():
    reference, policy = base_model().requires_grad_(False), base_model()
    seen = fit_preferences(policy, reference, polite_pairs(16), steps=8, rate=1e-4, loss_of=partial(dpo_loss, beta=0.5))
    assert seen[0].loss == pytest.approx(np.log(2), abs=1e-6)
    assert seen[-1].margin > seen[0].margin
    assert torch.equal(reference.embed.weight, base_model().embed.weight)


def test_the_nll_term_lifts_the_chosen_answers():
    runs = {}
    for weight in (0.0, 5.0):
        policy = base_model()
        runs[weight] = fit_preferences(
            policy, base_model(), polite_pairs(16), steps=10, rate=1e-4, loss_of=partial(ipo_loss, beta=0.5),
            nll_weight=weight,
        )  # fmt: skip
    assert runs[5.0][-1].chosen > runs[0.0][-1].chosen


def test_a_reference_that_is_the_policy_is_refused():
    policy = base_model()
    with pytest.raises(ValueError, match="reference"):
        fit_preferences(policy, policy, polite_pairs(2), steps=1, rate=1e-4)
    with pytest.raises(ValueError, match="frozen"):
        fit_preferences(base_model().requires_grad_(False), base_model(), polite_pairs(2), steps=1, rate=1e-4)


def test_a_reward_model_learns_an_order_it_can_see():
    rng = np.random.default_rng(0)
    rankings = [
        (prompt, [answer, answer[::-1] + "zz", ""]) for prompt, answer in (example("copy", rng) for _ in range(40))
    ]
    model, losses = fit_reward_model(base_model(), rankings, steps=25, rate=1e-3, rows=8)
    assert losses[0] == pytest.approx(np.log(2))
    assert losses[-1] < 0.3
    good, worse, worst = judged(model, [("copy abc", "abc"), ("copy abc", "cbazz"), ("copy abc", "")]).tolist()
    assert good > worse > worst
    with pytest.raises(ValueError, match="as many"):
        fit_reward_model(base_model(), [("a", ["b", "c"]), ("a", ["b"])], steps=1)


def test_rolled_out_answers_are_masked_to_their_end():
    rows, answers = roll_out(
        base_model(), ["upper abc", "copy defgh"], 2, temperature=0.0, generator=torch.Generator().manual_seed(0)
    )
    assert answers == ["ABC", "ABC", "defgh", "defgh"]
    assert rows.answer_mask.sum(1).tolist() == [4, 4, 6, 6]
    assert accuracy(base_model(), rows) == 1.0


@pytest.mark.parametrize("updates", [1, 2])
def test_a_policy_update_raises_the_reward_that_it_is_given(updates: int):
    policy, reference = base_model(), base_model().requires_grad_(False)

    def shouting(prompt: str, answer: str) -> float:
        return sum(letter.isupper() for letter in answer) / max(1, len(answer))

    texts = [f"copy {word}" for word in ("abcd", "efgh", "ijklm", "nopq")]
    # At temperature 1 the base is sure of itself: it's loosened first, so that samples differ.
    with torch.no_grad():
        policy.norm.weight.mul_(0.35)
        reference.norm.weight.mul_(0.35)
    settings = PolicySettings(
        steps=24, rate=1e-3, prompts_per_round=4, samples_per_prompt=8, updates_per_round=updates, replay_weight=0.1
    )
    seen = improve_policy(policy, reference, texts, shouting, settings)
    assert len(seen) == 24 // updates
    assert seen[0].kl == 0.0
    third = len(seen) // 3
    assert np.mean([step.reward for step in seen[-third:]]) > np.mean([step.reward for step in seen[:third]]) + 0.05


def test_a_copy_for_reference_gives_the_same_logits_and_shares_nothing():
    policy = base_model()
    reference = frozen_copy(policy)
    assert kl_to_base(policy, reference, count=4) == 0.0
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    assert audit_groups(policy, optimizer) == []
    assert isinstance(reference, Decoder)


# -------------------------------------------------------------------------------------------------------------- devices


def test_a_device_that_is_not_there_is_never_named():
    assert best_device().type == ("cuda" if torch.cuda.is_available() else best_device().type)
    torch.zeros(1, device=best_device())
    assert "cpu" in describe(torch.device("cpu"))


def test_the_fastest_type_is_one_of_those_offered():
    assert fastest_dtype(torch.device("cpu"), size=64) in (torch.float32, torch.bfloat16)
