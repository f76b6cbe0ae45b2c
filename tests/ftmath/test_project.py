"""The project's scoring: what is read of a hand-in, what is refused, and that a score depends on nothing else."""

import base64
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ftmath.project.reading as reading
import pytest
import torch
from ftmath.lora import add_lora
from ftmath.project import PUBLIC_SEEDS, save_adapter, score_adapter
from ftmath.project.reading import Refused, parse_adapter, parse_card, parse_header
from ftmath.project.scoring import Measure, Rule, answer, draw_prompts, measure_adapter, merged_model, score_measures
from ftmath.skills import outcomes
from ftmath.weights import base_model, parse_weights
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from safetensors.torch import save

HAND_INS = Path(__file__).parents[1] / "submissions" / "project_adapter"
CARD = {"task": "loud", "rank": 2, "alpha": 4, "targets": ["q"], "who": "ada"}
Tensors = dict[str, torch.Tensor]


@cache
def base() -> Any:
    return base_model()


def factors(rank: int = 2) -> Tensors:
    made = torch.Generator().manual_seed(0)
    found: Tensors = {}
    for layer in range(4):
        found[f"blocks.{layer}.attn.q.A"] = torch.randn(rank, 128, generator=made) / 20
        found[f"blocks.{layer}.attn.q.B"] = torch.randn(128, rank, generator=made) / 20
    return found


def card_bytes(**changes: Any) -> bytes:
    return json.dumps(CARD | changes).encode()


def file_of(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def refusal(adapter: bytes, card: bytes = b"") -> Refused:
    with pytest.raises(Refused) as caught:
        parse_adapter(adapter, parse_card(card or card_bytes()), base())
    assert len(str(caught.value)) < 300
    return caught.value


def with_changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    return save(factors() | {name: change(factors()[name]).contiguous()})


def zipped() -> bytes:
    """Return a zip archive of a few KiB that would unpack to 100 MB."""
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter.safetensors", bytes(10**8))
    return file.getvalue()


def torch_saved() -> bytes:
    torch.save(factors(), file := io.BytesIO())
    return file.getvalue()


Q = "blocks.0.attn.q.A"
HUGE_LENGTH = struct.pack("<Q", 100 * 2**20)
ENTRY = {"dtype": "F32", "shape": [2, 128], "data_offsets": [0, 1024]}
DISHONEST: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "another shape": (lambda: with_changed(Q, lambda value: value[:, :64]), "misfit", "has the shape (2, 64)"),
    "another rank": (lambda: save(factors(rank=3)), "misfit", "its card makes it (2, 128)"),
    "a vector": (lambda: with_changed(Q, lambda value: value[0]), "misfit", "two axes"),
    "NaN": (lambda: with_changed(Q, lambda value: value * torch.nan), "not-finite", "NaN or infinity"),
    "infinity": (lambda: with_changed(Q, lambda value: value + torch.inf), "not-finite", "NaN or infinity"),
    "double precision": (lambda: with_changed(Q, torch.Tensor.double), "misfit", "another type"),
    "whole numbers": (lambda: with_changed(Q, torch.Tensor.long), "misfit", "another type"),
    "an extra tensor": (lambda: save(factors() | {"embed.weight": torch.zeros(128, 128)}), "misfit", "no factor"),
    "a missing tensor": (lambda: save({Q: factors()[Q]}), "misfit", "lacks"),
    "the whole model": (lambda: save({k: v.half() for k, v in base().state_dict().items() if k != "head.weight"}),
                        "misfit", "two axes"),
    "too many bytes": (lambda: save(factors() | {"filler": torch.zeros(1000, 500)}), "too-large", "2,000,000"),
    "a header of 100 MB": (lambda: HUGE_LENGTH + b"{" * 1000, "malformed", "cut off"),
    "a header of 1 MB": (lambda: file_of(b"{" + b" " * 2**20 + b"}"), "too-large", "16,384"),
    "a deep header": (lambda: file_of(b'{"a":' + b"[" * 16_000), "malformed", "no JSON"),
    "a header with a key twice": (lambda: file_of(b'{"a": 1, "a": 2}'), "malformed", "twice"),
    "a header that is a list": (lambda: file_of([]), "malformed", "object"),
    "a tensor beyond the end": (lambda: file_of({Q: ENTRY}, bytes(10)), "malformed", "fewer or more"),
    "tensors that overlap": (lambda: file_of({Q: ENTRY, "b": ENTRY}, bytes(1024)), "malformed", "overlap"),
    "bytes that no tensor has": (lambda: save(factors()) + bytes(1000), "malformed", "fewer or more"),
    "an offset below zero": (lambda: file_of({Q: ENTRY | {"data_offsets": [-1024, 0]}}), "misfit", "matrix"),
    "an offset of many digits": (lambda: file_of({Q: ENTRY | {"data_offsets": [0, 10**400]}}), "misfit", "matrix"),
    "a zip bomb": (zipped, "malformed", "zip archive"),
    "torch.save's pickle": (torch_saved, "malformed", "zip archive"),
    "a pickle": (lambda: pickle.dumps({"a": [1.0] * 100}), "malformed", "pickle"),
    "nothing": (lambda: b"", "malformed", "cut off"),
    "half a file": (lambda: save(factors())[:2000], "malformed", "fewer or more"),
}  # fmt: skip


@pytest.mark.parametrize("name", DISHONEST)
def test_a_file_that_is_no_such_adapter_is_refused_with_words(name: str):
    make, kind, words = DISHONEST[name]
    refused = refusal(make())
    assert (refused.kind, words in str(refused)) == (kind, True), str(refused)


def was_read(_: bytes) -> None:
    pytest.fail("the file was read")


@pytest.mark.parametrize("name", [name for name in DISHONEST if name not in ("NaN", "infinity")])
def test_what_the_header_tells_is_refused_before_the_formats_own_reader_sees_the_file(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "parse_weights", was_read)
    refusal(DISHONEST[name][0]())


def test_a_full_model_in_the_shape_of_an_adapter_is_refused():
    card = card_bytes(rank=64, targets=["q", "k", "v", "o", "gate", "up", "down"])
    shapes = reading.wanted_shapes(parse_card(card), base())
    refused = refusal(save({name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}), card)
    assert "630,784 parameters" in str(refused)


@pytest.mark.parametrize(
    "card",
    [
        b"", b"[]", b"{", b"\xff", b"null", b'{"task": NaN}', card_bytes(task="flip"), card_bytes(rank=0),
        card_bytes(rank=True), card_bytes(rank=2.0), card_bytes(rank=10**30), card_bytes(alpha=0),
        card_bytes(alpha="4"),
        card_bytes(alpha=1e308), card_bytes(targets="q"), card_bytes(targets=[]), card_bytes(targets=["q"] * 29),
        card_bytes(targets=["nothing"]), card_bytes(targets=["head"]), card_bytes(targets=["[q]"]),
        card_bytes(targets=[["q"]]), card_bytes(who=3), card_bytes(who="a" * 5000), card_bytes(more=1),
    ],
)  # fmt: skip
def test_a_card_that_is_none_is_refused(card: bytes):
    with pytest.raises(Refused):
        parse_adapter(save(factors()), parse_card(card), base())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_adapter_is_read_as_it_was_saved(dtype: torch.dtype):
    given = {name: value.to(dtype) for name, value in factors().items()}
    found = parse_adapter(save(given, {"made": "here"}), parse_card(card_bytes()), base())
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], value.float()) for name, value in given.items())


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_and_raise_nothing_else(data: bytes):
    refusal(data)
    with pytest.raises(Refused):
        parse_card(data)


@given(st.integers(0, 900), st.integers(0, 255))
def test_a_file_with_a_byte_changed_is_read_or_refused(place: int, value: int):
    data = bytearray(save(factors()))
    data[place] = value
    try:
        parse_adapter(bytes(data), parse_card(card_bytes()), base())
    except Refused:
        return
    assert parse_header(bytes(data)) == {name: tuple(one.shape) for name, one in parse_weights(bytes(data)).items()}


def test_factors_that_overflow_are_refused():
    state = {name: torch.full_like(value, 1e30) for name, value in factors().items()}
    with pytest.raises(Refused, match="infinite weights"):
        measure_adapter(save(state), card_bytes(), [1])
    state = {name: torch.full_like(value, 1e17) for name, value in factors().items()}
    with pytest.raises(Refused, match=r"infinit|NaN"):
        measure_adapter(save(state), card_bytes(alpha=1000), [1])


def test_the_same_seeds_draw_the_same_prompts_and_others_draw_others():
    task, old = draw_prompts([5, 6, 7])
    again, _ = draw_prompts([5, 6, 7])
    other, _ = draw_prompts([5, 6, 8])
    assert torch.equal(task.ids, again.ids)
    assert not torch.equal(task.ids[-100:], other.ids[-100:])
    assert (len(task.ids), len(old.ids)) == (360, 600)
    assert [len(draw_prompts(seeds)[1].ids) for seeds in ([1], [1, 2])] == [600, 600]


RULES = {"task": Rule(4, ((0.5, 1), (0.9, 4))), "drift": Rule(2, ((0.3, 1), (0.1, 2)), falling=True, after="task")}


def test_points_follow_the_better_end_of_the_interval():
    measures = {"task": Measure(0.49, 0.44, 0.54, 360), "drift": Measure(0.12, 0.09, 0.15, 600)}
    scores = score_measures(measures, RULES)
    assert {name: (one.reached, one.points) for name, one in scores.items()} == {"task": (1, 1), "drift": (2, 2)}


def test_keeping_everything_counts_nothing_for_an_adapter_that_learned_nothing():
    measures = {"task": Measure(0.0, 0.0, 0.01, 360), "drift": Measure(0.0, 0.0, 0.0, 600)}
    scores = score_measures(measures, RULES)
    assert (scores["drift"].points, scores["drift"].waits) == (0, True)


def test_an_untouched_adapter_is_the_base_model(tmp_path: Path):
    model = base_model()
    add_lora(model, ["q"], 2, 4)
    save_adapter(model, tmp_path, who="ada", targets=["q"])
    adapter, card = ((tmp_path / name).read_bytes() for name in ("adapter.safetensors", "card.json"))
    found = measure_adapter(adapter, card, [1])
    assert (found["task"].value, found["drift"].value, found["size"].value) == (0.0, 0.0, 2048)
    assert found["kept"].value > 0.97


@pytest.mark.parametrize("name", ["good-0", "overshot-2", "memorised"])
def test_a_demo_measures_what_was_recorded(name: str):
    """Another machine's last digits may tip a prompt or two of 360."""
    adapter, card = ((HAND_INS / name / file).read_bytes() for file in ("adapter.safetensors", "card.json"))
    found = measure_adapter(adapter, card, PUBLIC_SEEDS)
    recorded = json.loads((HAND_INS / "runs.json").read_text("utf-8"))[name]["measures"]
    for measure in ("task", "kept"):
        assert found[measure].value == pytest.approx(recorded[measure][0], abs=0.01)
    assert found["drift"].value == pytest.approx(recorded["drift"][0], rel=0.01)


def test_what_knows_four_public_prompts_by_heart_gains_nothing_on_others():
    adapter, card = ((HAND_INS / "memorised" / file).read_bytes() for file in ("adapter.safetensors", "card.json"))
    told = parse_card(card)
    model = merged_model(parse_adapter(adapter, told, base()), told)
    right = outcomes(model, draw_prompts(PUBLIC_SEEDS)[0])
    assert right[:4].tolist() == [1, 1, 1, 1]
    assert outcomes(model, draw_prompts([77])[0]).mean() < 0.1


def test_the_program_answers_in_a_process_of_its_own_within_its_limits():
    request: dict[str, Any] = {"seeds": [1, 2, 3], "rules": {}, "card": base64.b64encode(card_bytes()).decode()}
    for adapter, key in ((save(factors()), "scores"), (b"\x80\x04", "refused")):
        sent = json.dumps(request | {"adapter": base64.b64encode(adapter).decode()}).encode()
        command = [sys.executable, "-P", "-m", "ftmath.project"]
        done = subprocess.run(command, input=sent, capture_output=True, check=True)
        assert list(json.loads(done.stdout)) == [key], done.stderr
    assert answer(request, b"\x80\x04", card_bytes()) == json.loads(done.stdout)


def test_public_scores_say_what_is_missing(tmp_path: Path):
    rules = {"task": {"points": 4, "steps": [[0.5, 4]], "falling": False, "after": ""}}
    assert "no file adapter.safetensors" in repr(score_adapter(rules, tmp_path).show("task"))
    (tmp_path / "adapter.safetensors").write_bytes(save(factors()))
    (tmp_path / "card.json").write_bytes(card_bytes())
    line = score_adapter(rules, tmp_path).show("task")
    assert repr(line).startswith("task: 0.000 (0.000 to 0.011 on 360 public prompts), 0 of 1 goals, 0 of 4 points")
    assert "<p>task" in DisplayFormatter().format(line)[0]["text/html"]


def test_an_adapter_of_several_ranks_has_no_card(tmp_path: Path):
    model = base_model()
    add_lora(model, ["q", "v"], 2, 4, ranks={"v": 3})
    with pytest.raises(ValueError, match="one rank and one alpha"):
        save_adapter(model, tmp_path, who="ada", targets=["q", "v"])
