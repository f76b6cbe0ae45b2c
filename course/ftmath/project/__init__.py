"""The course's project: train an adapter, save it with its card, and see what it would score on public prompts."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from ftmath.lora import lora_layers, lora_state
from ftmath.project.reading import MAX_ADAPTER_BYTES, MAX_CARD_BYTES, TASK, Refused
from ftmath.project.scoring import Rule, Score, measure_adapter, parse_rules, score_measures
from ftmath.weights import save_weights

ADAPTER, CARD = "adapter.safetensors", "card.json"
PUBLIC_SEEDS = (1, 2, 3)


def save_adapter(model: nn.Module, folder: Path | str = ".", *, who: str, targets: Sequence[str]) -> None:
    """Write a tuned model's factors and their card, as they are handed in; `targets` are those of `add_lora`.

    Errors: ValueError for a model without adapters, or with several ranks or scales.
    """
    layers = list(lora_layers(model).values())
    kinds = {(len(layer.A), round(layer.scale * len(layer.A), 6)) for layer in layers}
    if len(kinds) != 1:
        raise ValueError(f"the model must have adapters of one rank and one alpha, and has {len(kinds)} kinds")
    ((rank, alpha),) = kinds
    card: dict[str, Any] = {"task": TASK, "rank": rank, "alpha": alpha, "targets": list(targets), "who": who}
    save_weights(lora_state(model), Path(folder, ADAPTER))
    Path(folder, CARD).write_text(json.dumps(card, indent=1) + "\n", "utf-8")


class PublicScores:
    """An adapter's lines on public prompts, shown one by one."""

    def __init__(self, scores: Mapping[str, Score], rules: Mapping[str, Rule], trouble: str = "") -> None:
        self.scores, self.rules, self.trouble = scores, rules, trouble

    def show(self, name: str) -> "ScoreLine":
        """Return one line, which Jupyter shows."""
        if name not in self.scores:
            return ScoreLine(f"{name}: {self.trouble}")
        return ScoreLine(describe(name, self.scores[name], self.rules[name]))


class ScoreLine:
    """A line of the scorecard as text."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.words)}</p>"


def describe(name: str, score: Score, rule: Rule) -> str:
    """Return a line in words: what was measured, its interval, the points."""
    measure = score.measure
    said = f"{name}: {number(measure.value)}"
    if measure.low < measure.high:
        said += f" ({number(measure.low)} to {number(measure.high)} on {measure.count} public prompts)"
    said += f", {score.reached} of {len(rule.steps)} goals, {score.points:g} of {rule.points:g} points"
    return said + (f"; they count once `{rule.after}` reaches its first goal" if score.waits else "")


def number(value: float) -> str:
    """Return a measure in words.

    >>> number(0.97222), number(19712)
    ('0.972', '19,712')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"


def score_adapter(
    rules: Mapping[str, Mapping[str, Any]], folder: Path | str = ".", seeds: Sequence[int] = PUBLIC_SEEDS
) -> PublicScores:
    """Score the adapter and the card of a folder, by default on the public prompts. Grading draws others."""
    parsed = parse_rules(rules)
    try:
        adapter = read_bounded(Path(folder, ADAPTER), MAX_ADAPTER_BYTES)
        card = read_bounded(Path(folder, CARD), MAX_CARD_BYTES)
        return PublicScores(score_measures(measure_adapter(adapter, card, seeds), parsed), parsed)
    except Refused as refused:
        return PublicScores({}, parsed, str(refused))


def read_bounded(path: Path, limit: int) -> bytes:
    """Return a file's first `limit` + 1 bytes. Raises Refused if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError:
        raise Refused("missing", f"there is no file {path.name} beside this notebook yet") from None


__all__ = ["ADAPTER", "CARD", "PUBLIC_SEEDS", "PublicScores", "describe", "save_adapter", "score_adapter"]
