"""What a model's folder must hold, and the words when it doesn't (the logits' oracle is in tests/peers)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ftmath.local_model import load_model, rope_of
from ftmath.memory import decoder_parameters
from ftmath.model import Config, Decoder
from ftmath.rotary import llama3_rates, rope_rates, turn, yarn_rates
from ftmath.text import Text, render
from ftmath.weights import load_weights, save_weights
from hub_names import hub_name
from tokenizers import Tokenizer, models

SETTINGS: dict[str, Any] = {
    "model_type": "qwen3", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small Qwen3: its norms of queries and keys, grouped heads, a tied head, and a template of two words."""
    config = Config(
        40,
        16,
        2,
        4,
        2,
        8,
        24,
        biases=False,
        qk_norms=True,
        norm_eps=1e-6,
        rope_rates=tuple(rope_rates(8, 1e4).tolist()),
    )
    model = Decoder(config, torch.Generator().manual_seed(0))
    assert decoder_parameters(config) == sum(parameter.numel() for parameter in model.parameters())
    state = {hub_name(name): value for name, value in model.state_dict().items() if name != "head.weight"}
    save_weights(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    tokenizer = Tokenizer(models.BPE({chr(97 + place): place for place in range(26)} | {"<end>": 26}, []))
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    words = {"eos_token": {"content": "<end>"}, "pad_token": None, "chat_template": [
        {"name": "tools", "template": "no"},
        {"name": "default", "template": "{{ messages[-1].content }}{{ eos_token }}"},
    ]}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(words))
    return tmp_path


def test_a_folder_gives_its_model_and_its_text(folder: Path):
    model, text = load_model(folder)
    assert model.config.qk_norms
    assert model.head.weight is model.embed.weight
    assert torch.equal(
        model.blocks[1].attn.k_norm.weight,
        load_weights(folder / "model.safetensors")["model.layers.1.self_attn.k_norm.weight"],
    )
    assert (text.chat("abc"), text.end) == ([0, 1, 2, 26], 26)
    assert text.decode([0, 1, 26]).replace(" ", "") == "ab"
    assert load_model(folder, torch.float16)[0].embed.weight.dtype == torch.float16


def test_a_template_in_a_file_of_its_own_comes_first(folder: Path):
    (folder / "chat_template.jinja").write_text("{% generation %}b{% endgeneration %}")
    assert load_model(folder)[1].chat("a") == [1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "mamba"}, "family 'mamba'; read are llama, qwen2, qwen3, smollm3"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "default, linear, llama3 or yarn, got 'dynamic'"),
        ({"vocab_size": 41}, r"embed\.weight must be \(41, 16\) by config\.json, got \(40, 16\)"),
        ({"num_hidden_layers": 3}, "lack 11 tensors"),
        ({"num_hidden_layers": 1}, "hold in addition 11 tensors"),
        ({"model_type": "llama"}, "hold in addition 4 tensors"),
    ],
)
def test_what_the_decoder_has_not_is_refused_in_words(folder: Path, settings: dict[str, Any], words: str):
    (folder / "config.json").write_text(json.dumps(SETTINGS | settings))
    with pytest.raises(ValueError, match=words):
        load_model(folder)


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "intermediate_size", "vocab_size"])
def test_a_size_that_isnt_stated_is_named(folder: Path, name: str):
    (folder / "config.json").write_text(json.dumps({key: value for key, value in SETTINGS.items() if key != name}))
    with pytest.raises(ValueError, match=f"doesn't state '{name}'"):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_model(folder)


def test_pickled_weights_are_refused(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled \(\*\.bin\), which can run code"):
        load_model(folder)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd"])
def test_an_index_doesnt_leave_its_folder(folder: Path, name: str):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="isn't a file of this folder"):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.json", "[]"), ("config.json", "{"), ("tokenizer.json", "{}"), ("model.safetensors", "x" * 9)],
)
def test_a_file_that_is_none_is_refused(folder: Path, name: str, text: str):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        load_model(folder)


# -------------------------------------------------------------------------------------------------------------- angles


def test_fast_entries_keep_their_rate_and_slow_ones_are_divided():
    rates = rope_rates(64, 10_000.0)
    for found in (llama3_rates(rates, 8.0, 1.0, 4.0, 8192), yarn_rates(rates, 1e4, 8.0, 1.0, 32.0, 8192)):
        share = found / rates
        assert share[0] == 1
        torch.testing.assert_close(share[-1], torch.tensor(1 / 8))
        assert bool((share.diff() <= 1e-7).all())


def test_the_old_and_the_new_way_of_stating_a_rope_are_one():
    stretch = {"factor": 4.0, "original_max_position_embeddings": 32}
    old = rope_of({"rope_theta": 5e5, "rope_scaling": {"type": "yarn", **stretch}}, 8)
    assert old == rope_of({"rope_parameters": {"rope_type": "yarn", "rope_theta": 5e5, **stretch}}, 8)
    assert old[1] > 1


def test_layers_without_rotation_know_no_positions():
    """With neither rotation nor another token in sight, a token's logits are the same wherever it stands."""
    model = Decoder(Config(vocab=9, layers=2, unrotated=(0, 1)), torch.Generator().manual_seed(0))
    logits = model(torch.tensor([[4, 4, 4, 4]]))
    torch.testing.assert_close(logits[0, 3], logits[0, 0])
    torch.testing.assert_close(
        turn(torch.tensor([[3]]), 4, 1.0, (0.5, 2.0))[0].flatten(), torch.tensor([1.5, 6.0]).cos()
    )


# ---------------------------------------------------------------------------------------------------------------- text


def test_a_template_can_refuse_its_turns_and_reach_nothing_else():
    with pytest.raises(ValueError, match="refuses these turns: system comes first"):
        render("{{ raise_exception('system comes first') }}")
    for attack in ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}", "{% for"):
        with pytest.raises(ValueError, match="chat template could not be used"):
            render(attack, messages=[])


def test_a_model_that_was_not_taught_to_chat_says_so():
    with pytest.raises(ValueError, match="no chat template"):
        Text(Tokenizer(models.BPE({"a": 0}, [])), None, {}).chat("a")
