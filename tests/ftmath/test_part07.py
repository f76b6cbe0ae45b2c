"""Part 7: its explorers' numbers against closed forms, the experiment on manners, and the table of runs."""

import html
import json
import math

import pytest
import torch
from ftmath.align import pair_logprobs
from ftmath.manners import (
    measure_manners,
    polite_pairs,
    polite_policy,
    polite_requests,
    split_logprobs,
    word_of,
)  # fmt: skip
from ftmath.preference import dpo_loss
from ftmath.reward import best_of_n_kl, optimal_policy, preference_probability
from ftmath.skills import TASKS
from ftmath.weights import FOLDER, base_model
from ftmath.widgets import best_of_n_explorer, beta_explorer
from ftmath.widgets.preferences import BETAS, NS, STEPS, kl_along, kl_at_optimum, picked, soft_dpo_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

REFERENCE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REWARD = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
numbers = st.lists(st.floats(-3, 3), min_size=3, max_size=3)


@settings(deadline=None)
@given(numbers, numbers, numbers, st.floats(0.05, 3))
def test_the_soft_gradient_is_autograds(logits, reference, reward, beta):
    logits, reference, reward = (torch.tensor(values, dtype=torch.float64) for values in (logits, reference, reward))
    reference = reference.softmax(0)
    leaf = logits.clone().requires_grad_(True)
    moved, loss = leaf.log_softmax(0) - reference.log(), torch.zeros((), dtype=torch.float64)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        wins = preference_probability(reward[first], reward[second])
        h = (moved[first] - moved[second])[None]
        loss = loss + (wins * dpo_loss(h, beta) + (1 - wins) * dpo_loss(-h, beta)) / 3
    loss.backward()
    torch.testing.assert_close(soft_dpo_gradient(logits, reference, reward, beta), leaf.grad, atol=1e-12, rtol=1e-9)


def test_the_first_gradient_is_proportional_to_beta_and_the_optimum_comes_nearer():
    unit = soft_dpo_gradient(REFERENCE.log(), REFERENCE, REWARD, 1.0)
    for beta in BETAS:
        found = soft_dpo_gradient(REFERENCE.log(), REFERENCE, REWARD, beta)
        torch.testing.assert_close(found, beta * unit, atol=1e-15, rtol=1e-12)
    ends = [kl_at_optimum(REFERENCE, REWARD, beta) for beta in BETAS]
    assert ends == sorted(ends, reverse=True)
    firsts = [kl_along(REFERENCE, REWARD, beta, [1])[0] for beta in BETAS]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0, 2.0])
def test_descent_on_the_dpo_loss_ends_at_the_closed_form(beta: float):
    policy, _ = optimal_policy(REFERENCE, REWARD, beta)
    kl = float((policy * (policy / REFERENCE).log()).sum())
    assert kl_at_optimum(REFERENCE, REWARD, beta) == pytest.approx(kl, abs=1e-12)
    assert kl_along(REFERENCE, REWARD, beta, [3000])[0] == pytest.approx(kl, abs=1e-3)


def test_picking_by_a_gaussian_proxy_gains_half_of_what_it_says_and_a_heavy_tail_takes_it_back():
    proxy, gold = picked(0)
    for at in range(1, len(NS)):
        assert gold[at] == pytest.approx(proxy[at] / 2, abs=0.03)  # E[gold | proxy] = proxy / (1 + 1)
    heavy_proxy, heavy = picked(1)
    assert list(heavy_proxy) == sorted(heavy_proxy)
    assert heavy[-1] < 0.5 * max(heavy)


def test_the_explorers_say_what_the_functions_give():
    explorer = beta_explorer(REFERENCE, REWARD)
    for at, beta in enumerate(BETAS):
        for place in (0, len(STEPS) - 1):
            said = dict(explorer.frame(at, place)["readouts"])
            assert float(said["KL at the optimum, nats"]) == pytest.approx(
                kl_at_optimum(REFERENCE, REWARD, beta), abs=6e-4
            )
            assert float(said["KL after the steps, nats"]) == pytest.approx(
                kl_along(REFERENCE, REWARD, beta, [STEPS[place]])[0], rel=1e-3
            )
    best = best_of_n_explorer()
    for at, n in enumerate(NS):
        said = dict(best.frame(1, at)["readouts"])
        assert float(said["KL, nats"]) == pytest.approx(best_of_n_kl(n), abs=6e-4)
        assert float(said["gold"]) == pytest.approx(picked(1)[1][at], abs=6e-3)


@pytest.mark.parametrize(
    "explorer", [beta_explorer(REFERENCE, REWARD), best_of_n_explorer()], ids=["beta", "best of n"]
)
def test_an_explorer_has_every_state_and_a_twin(explorer):
    count = math.prod(len(one["values"]) for one in explorer.table["sliders"])
    assert len(explorer.table["frames"]) == count
    json.dumps(explorer.table, allow_nan=False)
    data, _ = explorer._repr_mimebundle_()
    for panel in explorer.frame(*explorer.state)["panels"]:
        assert html.escape(panel["alt"]) in data["text/html"]
        assert all(len(series["y"]) == len(panel["x"]) for series in panel["series"])


def test_pairs_differ_by_their_manners_alone():
    for prompt, chosen, rejected in polite_pairs(20, seed=3):
        assert chosen == rejected + ", thanks!"
        assert prompt.split()[0] == "please" in TASKS
    assert polite_requests(5, seed=1) == polite_requests(5, seed=1) != polite_requests(5, seed=2)


def test_a_few_steps_of_manners_raise_both_answers_and_a_policy_is_no_way_from_itself():
    pairs = polite_pairs(8, seed=0)
    model = polite_policy(steps=6, rows=9, rate=1e-3)
    for before, after in zip(pair_logprobs(base_model(), pairs), pair_logprobs(model, pairs), strict=True):
        assert after.mean() > before.mean() + 1
    found = measure_manners(model, model, count=8)
    assert found.kl == 0.0
    assert found.both <= min(found.thanks, found.right)


def test_pieces_of_a_pair_add_up_and_the_letters_are_in_both_answers():
    pairs = polite_pairs(6, seed=4)
    model = polite_policy(steps=4, rows=6)
    with torch.no_grad():
        letters, thanks, stop = split_logprobs(model, pairs)
        chosen, rejected = pair_logprobs(model, pairs)
    torch.testing.assert_close(letters + thanks, chosen)
    torch.testing.assert_close(letters + stop, rejected)


def test_the_letters_of_an_answer_are_counted_apart_from_what_follows_them():
    assert [word_of(text) for text in ("cba, thanks!", "cba", "cba, thansk!", "")] == ["cba", "cba", "cba", ""]
    found = measure_manners(polite_policy(steps=3, rows=6), base_model(), count=16)
    assert found.right <= min(found.letters, found.spelt)


def test_the_tables_of_runs_are_whole():
    tables = json.loads((FOLDER / "preference_runs.json").read_text("utf-8"))
    named = {"reward": ["pairs"], "dpo": ["name"], "controls": ["name"], "policy": ["beta", "estimator"]}
    for table, names in named.items():
        rows = [(str([row[name] for name in names]), row["seed"]) for row in tables[table]]
        assert sorted(rows) == sorted((kind, seed) for kind in {kind for kind, _ in rows} for seed in (0, 1, 2))


def test_the_records_of_policies_and_of_losses_are_whole():
    for record, names, count in (("policy_runs", ("table", "method"), 6), ("loss_map", ("loss", "rate"), 21)):
        rows = json.loads((FOLDER / f"{record}.json").read_text("utf-8"))["rows"]
        kinds = {tuple(row[name] for name in names) for row in rows}
        assert len(kinds) == count
        found = [(*(row[name] for name in names), row["seed"]) for row in rows]
        assert sorted(found) == sorted((*kind, seed) for kind in kinds for seed in (0, 1, 2))
