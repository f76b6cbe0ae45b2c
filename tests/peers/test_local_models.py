"""Folders of four families, written by transformers with made-up weights and read by `load_model`: equal logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ftmath.local_model import load_model

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 5, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "SmolLM2": ("Llama", {"tie_word_embeddings": True, "rope_theta": 100_000.0}),
    "Llama 2": ("Llama", {"tie_word_embeddings": False, "num_key_value_heads": 6}),
    "Llama 3.2": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "Llama with all biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "Llama, stretched linearly": ("Llama", {"rope_parameters": LINEAR}),
    "Qwen2.5": ("Qwen2", {"tie_word_embeddings": True}),
    "Qwen2.5, long": ("Qwen2", {"tie_word_embeddings": False, "rope_parameters": YARN}),
    "Qwen3": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 16}),
    "Qwen3, untied, with biases": ("Qwen3", {"tie_word_embeddings": False, "head_dim": 12, "attention_bias": True}),
    "SmolLM3": ("SmolLM3", {"tie_word_embeddings": True}),
    "SmolLM3 with listed layers": ("SmolLM3", {"no_rope_layers": [1, 0, 1, 0, 0]}),
}  # fmt: skip


def written(folder: Path, family: str, settings: dict[str, Any], **how: Any):
    """Write a model with made-up weights and a tokenizer as transformers writes them; return the model."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**(SIZES | settings))
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(folder, **how)
    letters = {chr(32 + place): place for place in range(SIZES["vocab_size"])}
    tokenizers.Tokenizer(tokenizers.models.BPE(letters, [])).save(str(folder / "tokenizer.json"))
    return model


@pytest.mark.parametrize(("family", "settings"), MODELS.values(), ids=MODELS)
def test_logits_are_transformers(family: str, settings: dict[str, Any], tmp_path: Path):
    """Beyond the trained length too, and with padding on the left; 1e-3 is float32's rounding over five layers."""
    theirs = written(tmp_path, family, settings)
    ours, _ = load_model(tmp_path)
    ids = torch.randint(0, SIZES["vocab_size"], (2, 40), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    with torch.no_grad():
        wanted, found = theirs(input_ids=ids, attention_mask=mask).logits, ours(ids, mask)
    assert wanted.std() > 0.5
    torch.testing.assert_close(found[mask == 1], wanted[mask == 1], rtol=0, atol=1e-3)


def test_shards_and_half_precision_are_read(tmp_path: Path):
    theirs = written(tmp_path, "Llama", {"tie_word_embeddings": False, "dtype": torch.bfloat16}, max_shard_size="20KB")
    theirs.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    ours, _ = load_model(tmp_path)
    assert ours.embed.weight.dtype == torch.bfloat16
    wide, _ = load_model(tmp_path, torch.float32)
    assert torch.equal(wide.blocks[3].mlp.up.weight, theirs.model.layers[3].mlp.up_proj.weight.float())


def test_greedy_answers_with_a_cache_are_transformers(tmp_path: Path):
    from ftmath import generate

    theirs = written(tmp_path, "Qwen3", {"tie_word_embeddings": True, "head_dim": 16, "eos_token_id": None})
    ours, _ = load_model(tmp_path)
    ids = torch.tensor([[5, 9, 33, 60]])
    wanted = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert generate(ours, ids, max_new=12).tolist() == wanted[:, 4:].tolist()
