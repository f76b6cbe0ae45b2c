"""Part 8: what is measured of a run, item by item, and what may be concluded from it."""

import math

import numpy as np
import pytest
import torch
from ftgrade.catalog import home
from ftmath.evaluate import accuracy_change, kappa, mcnemar, paired_error, paired_interval, scorecard, verdict
from ftmath.exercises import exercise, exercises, part08
from ftmath.exercises.exercise import outcome
from ftmath.methods import fit_epochs
from ftmath.skills import accuracy, batch, distinct, outcomes, probes, spoilt
from ftmath.weights import base_model, recorded
from ftmath.widgets import scorecard_explorer, unpacked


def bits(right: int, count: int) -> torch.Tensor:
    return torch.cat([torch.ones(right), torch.zeros(count - right)])


def pair(lost: int, gained: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    before = torch.cat([torch.ones(lost), torch.zeros(gained), torch.ones(count - lost - gained)])
    after = torch.cat([torch.zeros(lost), torch.ones(gained), torch.ones(count - lost - gained)])
    return before, after


@pytest.mark.parametrize(("lost", "gained", "count"), [(30, 18, 500), (0, 0, 9), (9, 0, 9), (3, 4, 10)])
def test_the_paired_error_is_that_of_the_differences(lost: int, gained: int, count: int):
    before, after = pair(lost, gained, count)
    change = (after - before).double()
    assert paired_error(lost, gained, count) == pytest.approx(float(change.std(correction=0)) / math.sqrt(count))


def test_the_bootstrap_and_the_formula_agree_where_both_have_enough_items():
    before, after = pair(60, 36, 1000)
    _, low, high = paired_interval(before, after, resamples=8000, generator=torch.Generator().manual_seed(0))
    half = 1.96 * paired_error(60, 36, 1000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    _, low, high = accuracy_change(before, after)
    assert (high - low) / 2 == pytest.approx(half, rel=0.02)


def test_an_interval_of_no_change_still_has_a_width_and_covers():
    assert paired_interval(bits(20, 20), bits(20, 20))[1:] == (0.0, 0.0)
    assert accuracy_change(bits(20, 20), bits(20, 20))[2] > 0.05
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        kinds = rng.choice([-1.0, 0.0, 1.0], size=60, p=[0.06, 0.93, 0.01])
        change = torch.tensor(kinds)
        _, low, high = accuracy_change((change < 0).double(), (change > 0).double())
        hits += low <= -0.05 <= high
    assert hits / 2000 > 0.93  # nominal .95, three standard errors of 2,000 draws are .015


def test_refusals_name_what_is_wrong():
    with pytest.raises(ValueError, match="items"):
        accuracy_change(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="level"):
        accuracy_change(torch.ones(2), torch.ones(2), level=1.0)
    with pytest.raises(ValueError, match="count"):
        paired_error(2, 2, 3)
    with pytest.raises(ValueError, match="labels"):
        kappa(torch.tensor([[5.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="different prompts"):
        distinct("zog", 49, np.random.default_rng(0))
    with pytest.raises(ValueError, match="items, not 4"):
        unpacked({"copy": "ff"}, count=4)


def test_the_verdict_is_that_of_the_graded_problem():
    names: dict[str, object] = {}
    exec(compile((home().root / "solutions" / "p09_scorecard.py").read_text("utf-8"), "p09", "exec"), names)
    rng = np.random.default_rng(0)
    for _ in range(300):
        gain, drop = (tuple(sorted(rng.integers(-4, 5, size=3) / 20)) for _ in range(2))
        intervals = [(middle, low, high) for low, middle, high in (gain, drop)]
        assert verdict(*intervals, 0.05) == names["verdict"](*intervals, 0.05)  # pyright: ignore


def test_kappa_is_what_chance_leaves():
    independent = torch.outer(torch.tensor([3.0, 7.0]), torch.tensor([4.0, 6.0]))
    assert kappa(independent) == pytest.approx(0, abs=1e-12)
    assert kappa(torch.diag(torch.tensor([3.0, 7.0]))) == pytest.approx(1)
    assert kappa(torch.tensor([[83.0, 7.0], [5.0, 5.0]])) == pytest.approx((0.88 - 0.804) / (1 - 0.804))


def test_a_scorecard_names_the_worst_and_holds_for_all_skills_at_once():
    before = {"new": bits(0, 200), "a": bits(200, 200), "b": bits(200, 200)}
    card = scorecard(before, {"new": bits(180, 200), "a": bits(198, 200), "b": bits(150, 200)}, "new", most=0.1)
    assert (card.worst, card.verdict) == ("b", "reject")
    assert card.drop[0] == pytest.approx(0.25)
    assert card.gain[1] > 0.8
    alone = accuracy_change(bits(150, 200), bits(200, 200))
    assert card.drops["b"][1] < alone[1] < alone[2] < card.drops["b"][2]
    assert scorecard(before, before, "new", most=0.1).verdict == "inconclusive"
    few = {name: items[-8:] for name, items in before.items()}
    better = {"new": torch.ones(8), "a": few["a"], "b": few["b"]}
    assert scorecard(few, better, "new", most=0.05).verdict == "inconclusive"


def test_outcomes_are_the_items_of_accuracy():
    model, rows = base_model(), probes("sort", 64, seed=3)
    found = outcomes(model, rows)
    assert found.shape == (64,)
    assert float(found.mean()) == accuracy(model, rows)
    assert torch.equal(found, outcomes(model, rows))


def test_spoilt_examples_keep_their_prompts_and_lengths():
    pairs = distinct("flip", 200, np.random.default_rng(0))
    wrong = spoilt(pairs, 0.25, np.random.default_rng(1))
    assert [prompt for prompt, _ in pairs] == [prompt for prompt, _ in wrong]
    letters = [
        a == b for (_, one), (_, other) in zip(pairs, wrong, strict=True) for a, b in zip(one, other, strict=True)
    ]
    assert 1 - np.mean(letters) == pytest.approx(0.25 * 25 / 26, abs=0.04)


def test_epochs_with_validation_are_seeded_and_look_before_the_first():
    learned, held_out = batch([("flip ab", "ba"), ("flip cd", "dc")]), batch([("flip ef", "fe")])
    first, second = (fit_epochs(base_model(), learned, held_out, 2, rate=1e-3, rows=1, seed=5) for _ in range(2))
    assert first == second
    assert len(first[0]) == len(first[1]) == 3
    assert first[0][-1] < first[0][0]


def test_the_record_is_whole_and_its_base_is_the_committed_one():
    record = recorded("evaluation_runs")
    kept, turn = record["kept"], record["turn"]
    assert {len(seeds) for seeds in kept["runs"].values()} == {3}
    assert {(run["seed"], run["share"]) for run in turn["runs"]} == {
        (s, share) for s in range(3) for share in (0.25, 0.0)
    }
    assert all(len(run["held_out"]) == turn["epochs"] + 1 for run in turn["runs"])
    base = unpacked(kept["base"], kept["count"])
    for name in ("copy", "sort", "flip"):
        assert torch.equal(base[name], outcomes(base_model(), probes(name, kept["count"], kept["seed"])))


def test_the_explorers_numbers_are_the_scorecards():
    record = recorded("evaluation_runs")["kept"]
    base = unpacked(record["base"], record["count"])
    runs = {name: unpacked(seeds[0], record["count"]) for name, seeds in record["runs"].items()}
    explorer = scorecard_explorer(base, runs, "flip")
    for run, name in enumerate(runs):
        for place, count in enumerate((25, 50, 100, 200)):
            frame = explorer.frame(run, place, 1)
            sides = ({key: side[key][:count] for key in base} for side in (base, runs[name]))
            card, said = scorecard(*sides, "flip", 0.05), dict(frame["readouts"])
            assert (said["verdict"], said["worst skill"]) == (card.verdict, card.worst)
            (series,) = frame["panels"][0]["series"]
            assert series["y"] == tuple(mean for mean, _, _ in card.drops.values())
            assert all(low <= mean <= high for mean, (low, high) in zip(series["y"], series["ends"], strict=True))
    assert "verdict" in explorer.twin()
    explorer.close()


def test_a_module_in_a_case_is_the_answers_own_copy():
    one = exercise("8.5")
    before = one.cases[0][0].on

    def careless(layer, x, weight_before):
        layer.on = False
        return {}

    assert outcome(one, careless).status == "wrong"
    assert one.cases[0][0].on is before is True
    assert outcome(one, one.reference).status == "right"


def test_mcnemar_and_pass_at_k_by_hand():
    assert mcnemar(30, 18) == pytest.approx(0.111, abs=5e-4)
    assert exercises(8)["8.3"].reference(10, 3, 5) == pytest.approx(0.9167, abs=5e-5)


def test_the_built_verdict_depends_on_the_group_as_its_exercise_says():
    kept = recorded("evaluation_runs")["kept"]
    before, after = (unpacked(side, kept["count"]) for side in (kept["base"], kept["runs"]["LoRA, half replay"][0]))
    lost = {skill: float((before[skill] - after[skill]).mean()) for skill in before if skill != "flip"}
    change = [float(one) for skill in lost for one in after[skill] - before[skill]]
    by_item = part08.grouped_interval(change, [str(place) for place in range(len(change))])
    by_skill = part08.grouped_interval(change, [skill for skill in lost for _ in range(kept["count"])], 2.262)
    assert part08.verdict_of(*by_item[1:], 0.05) == "no worse"
    assert part08.verdict_of(*by_skill[1:], 0.05) == "more items"
    assert max(lost, key=lost.__getitem__) == "zog"
    assert lost["zog"] > 3 * sum(lost.values()) / len(lost)
