"""Conclusions with controls: both must be told apart, the numbers must be enough, and all of it is shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from ftmath.findings import RECORD, Overturned, finding, interval
from hypothesis import given
from hypothesis import strategies as st

WORDS: dict[str, Any] = {"figure": "loss, nats", "null": "no training", "scope": "flip, three seeds"}


def high(values: Any) -> bool:
    return min(values) > 1


def test_a_finding_shows_claim_control_interval_and_scope():
    found = finding("It <rises>", measured=[2, 3, 4], control=[0, 1, 0], holds=high, **WORDS)
    for text in (str(found), found.as_html()):
        for part in ("loss, nats", "no training", "flip, three seeds", interval([2, 3, 4]), interval([0, 1, 0])):
            assert part in text
    assert "It &lt;rises&gt;" in found.as_html()


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=12))
def test_no_assertion_passes_if_the_control_is_what_was_measured(values: list[float]):
    with pytest.raises(Overturned):
        finding("It rises", measured=values, control=values, holds=high, **WORDS)


def test_what_was_measured_must_carry_the_conclusion():
    with pytest.raises(Overturned, match="doesn't hold for what was measured"):
        finding("It rises", measured=[2, 3, 0.5], control=[0, 1, 0], holds=high, **WORDS)


@pytest.mark.parametrize("bad", [[2.0, 3.0], [], [2.0, 3.0, float("nan")]])
def test_two_seeds_or_a_nan_are_no_evidence(bad: list[float]):
    for measured, control in ((bad, [0, 0, 0]), ([2, 3, 4], bad)):
        with pytest.raises(ValueError, match="three seeds"):
            finding("It rises", measured=measured, control=control, holds=high, **WORDS)


def test_the_interval_is_students():
    # For 4 values of mean 2.5 and variance 5/3: 3.182 * sqrt(5/12) = 2.054.
    assert interval([1, 2, 3, 4]) == "2.5 (95 % interval 0.446 to 4.55; 4 seeds)"


def test_a_record_holds_both_verdicts_and_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "findings"
    monkeypatch.setenv(RECORD, str(path))
    finding("It rises", measured=[2, 3, 4], control=[0, 1, 0], holds=high, **WORDS)
    finding("It falls", measured=[2, 3, 4], control=[2, 3, 4], holds=high, **WORDS)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["says"], first["holds"], first["holds_on_control"]) == ("It rises", True, False)
    assert (second["holds"], second["holds_on_control"]) == (True, True)
