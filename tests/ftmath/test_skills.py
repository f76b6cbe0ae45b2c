"""The corpus and its probes: every line is what it says, masks mark answers, and files come back as they were."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ftmath.model import Config, Decoder, generate
from ftmath.skills import (
    CAPITALS,
    EOS,
    NEB,
    SKILLS,
    TASKS,
    ZOG,
    accuracy,
    batch,
    decode,
    example,
    mixture,
    probes,
    prompts,
    retention,
)
from ftmath.weights import FOLDER, base_model, load_weights, save_weights


@pytest.mark.parametrize("name", [*SKILLS, *TASKS])
def test_an_example_is_the_same_for_the_same_seed_and_plain_ascii(name: str):
    first, again = (example(name, np.random.default_rng(7)) for _ in range(2))
    assert first == again
    assert first[0].startswith(f"{name} ")
    assert "".join(first).isascii()


def test_answers_are_right():
    rng = np.random.default_rng(0)
    for _ in range(50):
        for name, rule in {
            "copy": lambda text: text, "reverse": lambda text: text[::-1], "flip": lambda text: text[::-1],
            "sort": lambda text: "".join(sorted(text)), "last": lambda text: text[-1], "upper": str.upper,
        }.items():  # fmt: skip
            prompt, answer = example(name, rng)
            assert answer == rule(prompt.removeprefix(f"{name} "))
        prompt, answer = example("add", rng)
        assert int(answer) == sum(map(int, prompt.removeprefix("add ").split("+")))


def test_invented_words_are_all_different_and_the_two_languages_too():
    for table in (ZOG, NEB, CAPITALS):
        assert len(set(table.values())) == len(table)
    assert sum(ZOG[word] == NEB[word] for word in ZOG) == 0


def test_a_batch_marks_answers_and_end_and_is_read_back():
    rows = batch([("copy ab", "ab"), ("last abcdef", "f")])
    for row, answer in enumerate(("ab", "f")):
        marked = rows.ids[row][rows.answer_mask[row] == 1].tolist()
        assert marked[-1] == EOS
        assert decode(marked) == answer
    assert bool((rows.answer_mask <= rows.attention_mask).all())


def test_an_unknown_skill_is_refused_by_name():
    with pytest.raises(ValueError, match="'fly'"):
        example("fly", np.random.default_rng(0))


def test_a_mixture_draws_by_its_weights():
    rows = mixture({"last": 3.0, "upper": 1.0}, 400, np.random.default_rng(0))
    assert 0.68 < float((rows.answer_mask.sum(1) == 2).float().mean()) < 0.82


@pytest.fixture(scope="module")
def base() -> Decoder:
    return base_model().eval()


def test_the_base_model_knows_its_ten_skills_and_none_of_the_tasks(base: Decoder):
    known = retention(base)
    assert min(known.values()) >= 0.95, known
    assert sum(known.values()) / len(known) >= 0.98
    assert max(accuracy(base, probes(name, 64, 1)) for name in TASKS) <= 0.05


def test_probes_of_the_base_model_are_those_that_were_written(base: Decoder):
    written = json.loads((FOLDER / "base.json").read_text())
    found = retention(base)
    assert all(abs(found[name] - value) <= 2 / 64 for name, value in written["accuracy"].items())
    assert (FOLDER / "base.safetensors").stat().st_size < 2_000_000


def test_forced_accuracy_is_that_of_free_decoding(base: Decoder):
    rng = np.random.default_rng(5)
    asked = [example(name, rng) for name in SKILLS for _ in range(4)]
    ids, mask = prompts([prompt for prompt, _ in asked])
    new = generate(base, ids, mask, max_new=40, stop=EOS)
    free = [decode(row.tolist()) == answer for row, (_, answer) in zip(new, asked, strict=True)]
    forced = [accuracy(base, batch([pair])) == 1.0 for pair in asked]
    assert free == forced


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8])
def test_weights_come_back_as_they_were(tmp_path: Path, dtype: torch.dtype):
    state = {
        "a": (10 * torch.randn(3, 4)).abs().to(dtype),
        "b.c": torch.zeros(0, 2).to(dtype),
        "d": torch.ones(()).to(dtype),
    }
    save_weights(state, tmp_path / "w.safetensors")
    back = load_weights(tmp_path / "w.safetensors")
    assert sorted(back) == sorted(state)
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == dtype for name in state)


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int):
    path = tmp_path / "w.safetensors"
    save_weights({"a": torch.ones(5)}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="cut off"):
        load_weights(path)


def test_a_base_model_with_another_fingerprint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_weights(Decoder(Config()).state_dict(), tmp_path / "base.safetensors")
    (tmp_path / "base.json").write_text('{"sha256": "other"}')
    monkeypatch.setattr("ftmath.weights.FOLDER", tmp_path)
    with pytest.raises(ValueError, match="restore it"):
        base_model()
