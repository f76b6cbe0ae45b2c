"""Weights in safetensors files (https://huggingface.co/docs/safetensors), and the committed base model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from ftmath.model import Config, Decoder

FOLDER = Path(__file__).parent / "weights"


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file: the same bytes for the same numbers, in whatever order they are given.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights({"a": torch.ones(2)}, Path(folder) / "a.safetensors")
    ...     load_weights(Path(folder) / "a.safetensors")
    {'a': tensor([1., 1.])}
    """
    # A copy each: the format refuses two names for one storage, as tied weights have.
    save_file({name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file. Raises ValueError for a file that isn't whole.

    >>> sorted(load_weights(FOLDER / "base.safetensors"))[0]
    'blocks.0.attn.k.bias'
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no safetensors file, or is cut off: {error}") from None


def parse_weights(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file's bytes. Raises ValueError for bytes that aren't whole.

    >>> len(parse_weights((FOLDER / "base.safetensors").read_bytes()))
    66
    """
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"this is no safetensors file, or it is cut off: {error}") from None


def base_model() -> Decoder:
    """Return the course's base model in float32, with the weights that this package holds.

    >>> sum(parameter.numel() for parameter in base_model().parameters())
    825728

    Errors: ValueError if the file's fingerprint isn't the one that was written beside it.
    """
    path = FOLDER / "base.safetensors"
    wanted = json.loads((FOLDER / "base.json").read_text("utf-8"))["sha256"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
        raise ValueError(f"{path.name} isn't the file that was trained: restore it, or run `python -m ftmath.pretrain`")
    model = Decoder(Config())
    state = {name: value.float() for name, value in load_weights(path).items()}
    model.load_state_dict(state | {"head.weight": state["embed.weight"]})
    return model


def recorded(name: str) -> Any:
    """Return the record of longer runs that a script of `benchmarks` wrote beside the weights.

    >>> recorded("method_map")["task"]
    'flip'
    """
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


__all__ = ["base_model", "load_weights", "parse_weights", "recorded", "save_weights"]
