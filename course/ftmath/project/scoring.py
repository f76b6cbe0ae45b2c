"""Score an adapter on prompts that are drawn from seeds: the task, the old skills, the drift from the base, the size.

A score is a function of the adapter, its card, the seeds and the rules. It is computed on the CPU, in float32.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftmath.evaluate import paired_interval, wilson_interval
from ftmath.lora import add_lora, load_lora, merge
from ftmath.project.reading import TASK, Card, Refused, parse_adapter, parse_card
from ftmath.shift import token_kl
from ftmath.skills import SKILLS, Batch, batch, example, outcomes
from ftmath.weights import base_model

TASK_PROMPTS, SKILL_PROMPTS = 360, 60
"""How many prompts are drawn, of the task and of each old skill; they are shared out over the seeds."""
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Measure:
    """What was measured of an adapter, with the interval within which other prompts would put it, at 95 %."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Rule:
    """How a measure gives points: `steps` are (goal, the points that it makes), each step worth more than the last.

    Less is better if `falling`. A rule with `after` counts only where the rule of that name has reached its first goal.
    """

    points: float
    steps: tuple[tuple[float, float], ...]
    falling: bool = False
    after: str = ""

    def reached(self, measure: Measure) -> int:
        """Return how many goals a measure reaches, by the better end of its interval.

        >>> rule = Rule(4, ((0.5, 2), (0.9, 4)))
        >>> rule.reached(Measure(0.89, 0.87, 0.91, 360)), rule.reached(Measure(0.85, 0.82, 0.88, 360))
        (2, 1)
        """
        if self.falling:
            return sum(measure.low <= goal for goal, _ in self.steps)
        return sum(measure.high >= goal for goal, _ in self.steps)


@dataclass(frozen=True, slots=True)
class Score:
    """One line of the scorecard: the measure, how many goals it reaches, and the points that they make.

    `waits` says that they make none since the task's first goal isn't reached.
    """

    measure: Measure
    reached: int
    points: float
    waits: bool = False


def parse_rules(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Rule]:
    """Return the rules of their JSON form."""
    return {name: parse_rule(**rule) for name, rule in told.items()}


def parse_rule(points: float, steps: Sequence[Sequence[float]], falling: bool, after: str) -> Rule:
    return Rule(points, tuple((goal, worth) for goal, worth in steps), falling, after)


def draw_prompts(seeds: Sequence[int]) -> tuple[Batch, Batch]:
    """Return prompts of the task, and as many of each old skill: the same for the same seeds.

    >>> task, old = draw_prompts([1, 2])
    >>> len(task.ids), len(old.ids)
    (360, 600)
    """
    task: list[tuple[str, str]] = []
    old: list[tuple[str, str]] = []
    for number, seed in enumerate(seeds):
        rng = np.random.default_rng([seed, number])
        task += [example(TASK, rng) for _ in range(share(TASK_PROMPTS, number, len(seeds)))]
        old += [example(name, rng) for name in SKILLS for _ in range(share(SKILL_PROMPTS, number, len(seeds)))]
    return batch(task), batch(old)


def share(total: int, number: int, parts: int) -> int:
    """Return the size of one of so many parts of a total, which differ by one at most.

    >>> [share(10, number, 3) for number in range(3)]
    [4, 3, 3]
    """
    return total // parts + (number < total % parts)


@torch.no_grad()
def merged_model(state: Mapping[str, Tensor], card: Card) -> nn.Module:
    """Return the base model with an adapter merged into it. Raises Refused if the sum isn't finite."""
    model = base_model().eval()
    add_lora(model, wanted_layers(state), card.rank, card.alpha)
    load_lora(model, state)
    merge(model)
    if not all(bool(torch.isfinite(value).all()) for value in model.parameters()):
        raise Refused(
            "not-finite", "Merged into the base model, this adapter gives infinite weights: its factors are huge."
        )
    return model


def wanted_layers(state: Mapping[str, Tensor]) -> list[str]:
    return [name.removesuffix(".A") for name in state if name.endswith(".A")]


@torch.no_grad()
def drifts(tuned: nn.Module, base: nn.Module, rows: Batch) -> Tensor:
    """Return for each row (rows,) the mean KL(tuned || base) over its answer's positions, in nats per token."""
    answer = rows.answer_mask[:, 1:]
    tuned_logits, base_logits = (model(rows.ids, rows.attention_mask)[:, :-1] for model in (tuned, base))
    if not bool(torch.isfinite(tuned_logits[answer != 0]).all()):
        raise Refused("not-finite", "With this adapter the model answers in NaN or infinity: its factors are huge.")
    return (token_kl(tuned_logits, base_logits) * answer).sum(1) / answer.sum(1)


def share_measure(right: Tensor) -> Measure:
    """Return the share of right answers (prompts,) with Wilson's interval."""
    return Measure(float(right.mean()), *wilson_interval(int(right.sum()), len(right)), len(right))


def mean_measure(values: Tensor) -> Measure:
    """Return the mean of values (prompts,) with a bootstrap interval, the same for the same values."""
    drawn = torch.Generator().manual_seed(0)
    return Measure(*paired_interval(torch.zeros_like(values), values, 0.95, RESAMPLES, drawn), len(values))


def measure_adapter(adapter: bytes, card: bytes, seeds: Sequence[int]) -> dict[str, Measure]:
    """Return what is measured of an adapter and its card, as they were handed in. Raises Refused."""
    told, base = parse_card(card), base_model().eval()
    state = parse_adapter(adapter, told, base)
    tuned, (task, old) = merged_model(state, told), draw_prompts(seeds)
    drift = mean_measure(drifts(tuned, base, old))
    if not all(map(math.isfinite, (drift.value, drift.low, drift.high))):
        raise Refused("not-finite", "The drift of this adapter is infinite: the model rules out what the base says.")
    count = sum(value.numel() for value in state.values())
    return {
        "task": share_measure(outcomes(tuned, task)),
        "kept": share_measure(outcomes(tuned, old)),
        "drift": drift,
        "size": Measure(count, count, count, count),
    }


def score_measures(measures: Mapping[str, Measure], rules: Mapping[str, Rule]) -> dict[str, Score]:
    """Return the scorecard: a line for each rule."""
    reached = {name: rule.reached(measures[name]) for name, rule in rules.items()}
    return dict(score_lines(measures, rules, reached))


def score_lines(
    measures: Mapping[str, Measure], rules: Mapping[str, Rule], reached: Mapping[str, int]
) -> Iterator[tuple[str, Score]]:
    for name, rule in rules.items():
        waits = bool(rule.after) and reached[rule.after] == 0
        points = 0.0 if waits or not reached[name] else rule.steps[reached[name] - 1][1]
        yield name, Score(measures[name], reached[name], points, waits)


def answer(request: Mapping[str, Any], adapter: bytes, card: bytes) -> dict[str, Any]:
    """Return the reply to a grader's request, which holds `seeds` and `rules`: the scorecard, or why there is none."""
    try:
        scores = score_measures(measure_adapter(adapter, card, request["seeds"]), parse_rules(request["rules"]))
    except Refused as refused:
        return {"refused": {"kind": refused.kind, "words": str(refused)}}
    return {"scores": {name: asdict(score) for name, score in scores.items()}}


__all__ = ["Measure", "Rule", "Score", "answer", "draw_prompts", "measure_adapter", "parse_rules", "score_measures"]
