"""Any local model of four families: a folder as Hugging Face's tools write it, read into the course's own `Decoder`.

The families are Llama (with SmolLM2), SmolLM3, Qwen2 (with Qwen2.5) and Qwen3. What a folder holds: `config.json`,
`model.safetensors` (or shards with an index), `tokenizer.json`, and often `tokenizer_config.json` and a chat template.
Nothing of it is run but the template, in a sandbox: pickled weights are refused.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftmath.model import Config, Decoder
from ftmath.rotary import linear_rates, llama3_rates, rope_rates, yarn_rates, yarn_scale
from ftmath.text import Text, demand_libraries
from ftmath.weights import load_weights

FAMILIES = ("llama", "qwen2", "qwen3", "smollm3")
PARTS = {
    "self_attn.q_proj": "attn.q", "self_attn.k_proj": "attn.k", "self_attn.v_proj": "attn.v",
    "self_attn.o_proj": "attn.o", "self_attn.q_norm": "attn.q_norm", "self_attn.k_norm": "attn.k_norm",
    "mlp.gate_proj": "mlp.gate", "mlp.up_proj": "mlp.up", "mlp.down_proj": "mlp.down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "mlp_norm",
}  # fmt: skip
WHOLE = {
    "model.embed_tokens.weight": "embed.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
MAX_JSON_BYTES = 64 * 2**20


def load_model(folder: Path | str, dtype: torch.dtype | None = None) -> tuple[Decoder, Text]:
    """Return the model in a folder, ready to be asked, and its text; weights keep the file's type unless one is given.

    >>> load_model("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: nowhere is no folder of a model: it must hold config.json, *.safetensors and tokenizer.json

    Errors: FileNotFoundError if a file is missing; ModuleNotFoundError without the extra `model`; ValueError for
    another family, a setting that the decoder doesn't have, pickled or quantized weights, or weights that aren't those
    of the stated sizes.
    """
    place = Path(folder)
    if not (place / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} is no folder of a model: it must hold config.json, *.safetensors and tokenizer.json"
        )
    demand_libraries("jinja2", "tokenizers")
    config = config_of(read_json(place / "config.json"))
    with torch.device("meta"):
        model = Decoder(config)
    state = weights_of(place, config)
    demand_all(model, state)
    model.load_state_dict({name: value.to(dtype or value.dtype) for name, value in state.items()}, assign=True)
    if config.tied:
        model.head.weight = model.embed.weight
    return model.eval(), text_of(place)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object. Raises ValueError if it is none, or too large."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, more than a settings file has")
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON file: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} must hold one JSON object, got {type(found).__name__}")
    return found


# --------------------------------------------------------------------------------------------------------------- sizes


def config_of(settings: Mapping[str, Any]) -> Config:
    """Return the decoder's sizes from a model's `config.json`.

    >>> config_of({"model_type": "mamba"})
    Traceback (most recent call last):
    ValueError: the model is of the family 'mamba'; read are llama, qwen2, qwen3, smollm3

    Errors: ValueError for another family, a missing size, or a setting that the decoder doesn't have.
    """
    family = settings.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"the model is of the family {family!r}; read are {', '.join(FAMILIES)}")
    demand_plain(settings)
    try:
        heads, d_model = settings["num_attention_heads"], settings["hidden_size"]
        head_dim = settings.get("head_dim") or d_model // heads
        rates, scale = rope_of(settings, head_dim)
        return Config(
            vocab=settings["vocab_size"], d_model=d_model, layers=settings["num_hidden_layers"], heads=heads,
            kv_heads=settings.get("num_key_value_heads") or heads, head_dim=head_dim,
            d_hidden=settings["intermediate_size"], biases=False,
            tied=settings.get("tie_word_embeddings", family == "smollm3"),
            norm_eps=settings.get("rms_norm_eps", 1e-6), biased=biased(settings), qk_norms=family == "qwen3",
            rope_rates=rates, rope_scale=scale, unrotated=unrotated(settings),
        )  # fmt: skip
    except KeyError as error:
        raise ValueError(f"config.json doesn't state {error}") from None


def demand_plain(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting that the decoder doesn't have."""
    if settings.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act must be 'silu', got {settings['hidden_act']!r}")
    if settings.get("quantization_config"):
        raise ValueError("the weights are quantized: load the folder of the model that they were made from")
    windows = settings.get("layer_types") or ["sliding_attention"] * bool(settings.get("use_sliding_window"))
    if "sliding_attention" in windows:
        raise ValueError("some layers see a sliding window of the text, which this decoder doesn't have")


def biased(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the linear layers with a bias: q, k and v in Qwen2, all of attention or of the MLP where it's stated.

    >>> biased({"model_type": "qwen2"}), biased({"model_type": "llama", "mlp_bias": True})
    (('q', 'k', 'v'), ('gate', 'up', 'down'))
    """
    if settings["model_type"] == "qwen2":
        return "q", "k", "v"
    attention = ("q", "k", "v", "o") if settings.get("attention_bias") else ()
    return attention + (("gate", "up", "down") if settings.get("mlp_bias") else ())


def unrotated(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the layers without rotary positions: every fourth in SmolLM3, unless its settings list them.

    >>> unrotated({"model_type": "smollm3", "num_hidden_layers": 9})
    (3, 7)
    """
    if settings["model_type"] != "smollm3":
        return ()
    every = settings.get("no_rope_layer_interval", 4)
    turned = settings.get("no_rope_layers") or [(layer + 1) % every for layer in range(settings["num_hidden_layers"])]
    return tuple(layer for layer, turns in enumerate(turned) if not turns)


def rope_of(settings: Mapping[str, Any], head_dim: int) -> tuple[tuple[float, ...], float]:
    """Return the rates of the rotary angles, and what their cosines are multiplied by, from either way of stating them.

    >>> rope_of({"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 2.0}}, head_dim=4)
    ((0.5, 0.05000000074505806), 1.0)

    Errors: ValueError for a kind of scaling that isn't known.
    """
    given = settings.get("rope_parameters") or {}
    stretch = {**given, **(settings.get("rope_scaling") or {})}
    base = given.get("rope_theta") or settings.get("rope_theta", 10_000.0)
    rates, scale = rope_rates(head_dim, base), 1.0
    kind, factor = stretch.get("rope_type", stretch.get("type", "default")), stretch.get("factor", 1.0)
    trained = stretch.get("original_max_position_embeddings") or settings.get("max_position_embeddings", 2048)
    if kind == "linear":
        rates = linear_rates(rates, factor)
    elif kind == "llama3":
        rates = llama3_rates(rates, factor, stretch["low_freq_factor"], stretch["high_freq_factor"], trained)
    elif kind == "yarn":
        slow, fast = stretch.get("beta_slow") or 1.0, stretch.get("beta_fast") or 32.0
        rates, scale = yarn_rates(rates, base, factor, slow, fast, trained), yarn_scale(factor)
        scale = stretch.get("attention_factor") or scale
    elif kind != "default":
        raise ValueError(f"rope scaling must be default, linear, llama3 or yarn, got {kind!r}")
    return tuple(rates.tolist()), scale


# ------------------------------------------------------------------------------------------------------------- weights


def our_name(name: str) -> str | None:
    """Return what we call a tensor of the folder, or None for one that the decoder computes itself.

    >>> our_name("model.layers.3.self_attn.o_proj.weight"), our_name("model.layers.0.self_attn.rotary_emb.inv_freq")
    ('blocks.3.attn.o.weight', None)

    Errors: ValueError for a tensor that such a decoder doesn't have.
    """
    found = LAYER.fullmatch(name)
    if found and found[2] in PARTS:
        return f"blocks.{found[1]}.{PARTS[found[2]]}.{found[3]}"
    if name in WHOLE:
        return WHOLE[name]
    if name.endswith("rotary_emb.inv_freq"):
        return None
    raise ValueError(f"the weights hold {name!r}, which no decoder of these families has")


def weights_of(folder: Path, config: Config) -> dict[str, Tensor]:
    """Return a folder's tensors by our names; a tied head is the embedding."""
    state: dict[str, Tensor] = {}
    for file in files_of(folder):
        for name, value in load_weights(file).items():
            ours = our_name(name)
            if ours is not None:
                state[ours] = value
    if config.tied and "embed.weight" in state:
        state["head.weight"] = state["embed.weight"]
    return state


def files_of(folder: Path) -> list[Path]:
    """Return the folder's safetensors files: those that the index names, or the only one.

    Errors: FileNotFoundError if one is missing; ValueError for pickled weights, or an index that leaves the folder.
    """
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(map(str, read_json(index).get("weight_map", {}).values()))
    odd = sorted(name for name in names if Path(name).name != name)
    if odd:
        raise ValueError(f"{index.name} names {odd[0]!r}, which isn't a file of this folder")
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing and any(folder.glob("*.bin")):
        raise ValueError("the weights are pickled (*.bin), which can run code: save them as safetensors first")
    if missing:
        raise FileNotFoundError(f"{folder / missing[0]} is missing: copy the whole folder again")
    return [folder / name for name in sorted(names)]


def demand_all(model: Decoder, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the tensors are those of the model, in name and shape."""
    wanted = model.state_dict()
    for names, words in ((wanted.keys() - state.keys(), "lack"), (state.keys() - wanted.keys(), "hold in addition")):
        if names:
            raise ValueError(
                f"the weights {words} {len(names)} tensors, such as {min(names)}: config.json states others"
            )
    for name, value in wanted.items():
        if value.shape != state[name].shape:
            raise ValueError(f"{name} must be {tuple(value.shape)} by config.json, got {tuple(state[name].shape)}")


# ---------------------------------------------------------------------------------------------------------------- text


def text_of(folder: Path) -> Text:
    """Return a folder's tokenizer, with its chat template if it has one. Raises FileNotFoundError without one."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: save the tokenizer in its fast form beside the weights")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path.name} can't be read: {error}") from None
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    special = {name: written(value) for name, value in settings.items() if name.endswith("_token") and written(value)}
    return Text(tokenizer, template_of(folder, settings), special)


def written(token: Any) -> str:
    """Return the text of a special token, which is stated as such or as an object.

    >>> written("</s>"), written({"content": "<s>", "lstrip": False}), written(None)
    ('</s>', '<s>', '')
    """
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def template_of(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the chat template: a file of its own, or a setting; of several, the one called `default`."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    given = settings.get("chat_template")
    if isinstance(given, list):
        given = next((one.get("template") for one in given if one.get("name") == "default"), None)
    return given if isinstance(given, str) else None


__all__ = ["FAMILIES", "config_of", "load_model"]
