"""Weights in a file: the safetensors format, read and written in a few lines, and the committed base model.

The format is an 8-byte little-endian length, that many bytes of JSON (name to dtype, shape and byte range), then the
numbers (https://huggingface.co/docs/safetensors).
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftmath.model import Config, Decoder

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER_BYTES = 10 * 2**20
FOLDER = Path(__file__).parent / "weights"


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a file, in the order of their names: the same bytes for the same numbers.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights({"a": torch.ones(2)}, Path(folder) / "a.safetensors")
    ...     load_weights(Path(folder) / "a.safetensors")
    {'a': tensor([1., 1.])}
    """
    header: dict[str, object] = {}
    parts: list[bytes] = []
    end = 0
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        data = value.reshape(-1).view(torch.uint8).numpy().tobytes()
        place = [end, end + len(data)]
        header[name] = {"dtype": NAMES[value.dtype], "shape": list(value.shape), "data_offsets": place}
        parts.append(data)
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *parts]))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file. Raises ValueError for a file that isn't whole, with what is wrong.

    >>> sorted(load_weights(FOLDER / "base.safetensors"))[0]
    'blocks.0.attn.k.bias'
    """
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"{path.name} is no safetensors file, or is cut off: fetch it again")
    try:
        header = json.loads(data[8 : 8 + length])
        return {name: tensor_of(entry, data, 8 + length) for name, entry in header.items() if name != "__metadata__"}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is no safetensors file, or is cut off: {error}") from None


def tensor_of(entry: dict[str, object], data: bytes, start: int) -> Tensor:
    """Return one tensor of a file's header entry."""
    dtype, shape, (first, last) = DTYPES[str(entry["dtype"])], entry["shape"], entry["data_offsets"]  # pyright: ignore
    if not 0 <= first <= last <= len(data) - start:
        raise ValueError("a tensor lies outside the file")
    if first == last:
        return torch.empty(shape, dtype=dtype)  # pyright: ignore
    return torch.frombuffer(bytearray(data[start + first : start + last]), dtype=dtype).reshape(shape)  # pyright: ignore


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


__all__ = ["base_model", "load_weights", "recorded", "save_weights"]
