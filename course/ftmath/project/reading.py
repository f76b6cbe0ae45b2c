"""Read what a student hands in for the project as data: an adapter's tensors and its card, within bounds.

Nothing of it is run and nothing is unpickled. The header of the safetensors file is checked here, byte by byte, before
the format's own reader sees the file. Every refusal says what is wrong and is the student's to mend.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ftmath.layers import is_linear, matches
from ftmath.weights import parse_weights

TASK = "loud"
MAX_ADAPTER_BYTES, MAX_HEADER_BYTES, MAX_CARD_BYTES = 2_000_000, 16_384, 4_096
MAX_PARAMETERS = 80_000
"""A tenth of the base model's: with more, this is no adapter but another model."""
MAX_ALPHA = 1_000.0
DTYPES = {"F32": 4, "F16": 2, "BF16": 2}
"""The types that an adapter may have, with their bytes."""
TARGET = re.compile(r"[a-z0-9_.*]{1,40}")
KEYS = {"task", "rank", "alpha", "targets", "who"}
OTHER_FILES = {
    b"PK\x03\x04": "a zip archive, as `torch.save` writes it",
    b"\x80": "a pickle",
    b"\x1f\x8b": "a gzip archive",
    b"{": "a JSON text",
}
"""How files begin that people hand in under this name."""


class Refused(Exception):
    """The hand-in can't be scored as it is; `kind` is a word for it, and the text says what to mend."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Card:
    """What an adapter's card says: LoRA's rank and alpha, the layers that it stands beside, the task, and who made it.

    >>> Card("loud", 4, 8.0, ("q", "v"), "ada").scale
    2.0
    """

    task: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    who: str

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def parse_card(data: bytes) -> Card:
    """Return the card in a JSON text. Raises Refused.

    >>> parse_card(b'{"task": "loud", "rank": 4, "alpha": 8, "targets": ["q", "v"], "who": "ada"}')
    Card(task='loud', rank=4, alpha=8.0, targets=('q', 'v'), who='ada')
    """
    if len(data) > MAX_CARD_BYTES:
        raise Refused("too-large", f"card.json has {len(data):,} bytes; a card has at most {MAX_CARD_BYTES:,}.")
    told = parse_object(data, "card.json")
    if told.keys() != KEYS:
        raise Refused("malformed", f"card.json must have the keys {', '.join(sorted(KEYS))}, and no others.")
    rank, alpha, targets, task, who = (told[name] for name in ("rank", "alpha", "targets", "task", "who"))
    if task != TASK:
        raise Refused("misfit", f'card.json is for another task: its "task" must be "{TASK}".')
    if type(rank) is not int or not 1 <= rank <= 128:
        raise Refused("malformed", 'The "rank" of card.json must be a whole number from 1 to 128.')
    if type(alpha) not in (int, float) or not 0 < alpha <= MAX_ALPHA:
        raise Refused("malformed", f'The "alpha" of card.json must be a number above 0, at most {MAX_ALPHA:g}.')
    if not is_list_of_targets(targets):
        raise Refused("malformed", 'The "targets" of card.json must be a list of 1 to 28 names such as "q".')
    if not isinstance(who, str) or len(who) > 200:
        raise Refused("malformed", 'The "who" of card.json must be a text of at most 200 characters.')
    return Card(task, rank, float(alpha), tuple(targets), who)


def is_list_of_targets(value: Any) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 28 and all(
        isinstance(one, str) and TARGET.fullmatch(one) for one in value
    )  # fmt: skip


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in some bytes, whose keys must differ. Raises Refused."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    def unknown(word: str) -> None:
        raise ValueError(f"{word} is no number of JSON")

    try:
        told = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=unknown)
    except (ValueError, RecursionError):  # what isn't UTF-8 is a ValueError too
        raise Refused("malformed", f"{name} is no JSON text, or it has a key twice.") from None
    if not isinstance(told, dict):
        raise Refused("malformed", f"{name} must hold a JSON object, {{…}}.")
    return told


def parse_adapter(data: bytes, card: Card, base: nn.Module) -> dict[str, Tensor]:
    """Return the factors of an adapter as float32 tensors, exactly those that its card tells. Raises Refused."""
    found = parse_header(data)
    demand_fit(found, card, base)
    try:
        state = parse_weights(data)
    except ValueError as error:
        raise Refused("malformed", f"adapter.safetensors can't be read: {error}.") from None
    state = {name: value.float() for name, value in state.items()}
    if bad := sorted(name for name, value in state.items() if not bool(torch.isfinite(value).all())):
        raise Refused("not-finite", f"adapter.safetensors holds NaN or infinity in {bad[0]}: did the training diverge?")
    return state


def parse_header(data: bytes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a safetensors file by the tensors' names, without a look at its numbers. Raises Refused.

    The file begins with the header's length, in 8 bytes; the header is JSON, and the tensors follow without a gap
    (https://huggingface.co/docs/safetensors).
    """
    if len(data) > MAX_ADAPTER_BYTES:
        raise Refused("too-large", f"adapter.safetensors is larger than {MAX_ADAPTER_BYTES:,} bytes.")
    other = next((words for start, words in OTHER_FILES.items() if data.startswith(start)), "")
    if other and data[8:9] != b"{":  # the ninth byte tells a header whose length begins so
        raise Refused("malformed", f"adapter.safetensors is {other}, not safetensors: write it with save_adapter.")
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise Refused("malformed", "adapter.safetensors is cut off, or is no safetensors file.")
    if size > MAX_HEADER_BYTES:
        raise Refused("too-large", f"The header of adapter.safetensors is larger than {MAX_HEADER_BYTES:,} bytes.")
    told = parse_object(data[8 : 8 + size], "The header of adapter.safetensors")
    told.pop("__metadata__", None)
    spans = {name: span_of(name, entry) for name, entry in told.items()}
    place = 0
    for begin, end, _ in sorted(spans.values()):
        if begin != place:
            raise Refused("malformed", "The tensors of adapter.safetensors overlap, or leave a gap.")
        place = end
    if place != len(data) - 8 - size:
        raise Refused("malformed", "adapter.safetensors holds fewer or more bytes than its header tells.")
    return {name: shape for name, (_, _, shape) in spans.items()}


def span_of(name: str, entry: Any) -> tuple[int, int, tuple[int, ...]]:
    """Return where a tensor begins and ends, and its shape, as the header tells them. Raises Refused."""
    label = repr(name[:60])
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused("malformed", f"The header of adapter.safetensors tells no type, shape and place of {label}.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise Refused("misfit", f"{label} is of another type than {', '.join(DTYPES)}: save the factors as floats.")
    if not are_counts(shape, 2) or not are_counts(offsets, 2):
        raise Refused("misfit", f"{label} must be a matrix: two axes.")
    if offsets[1] - offsets[0] != shape[0] * shape[1] * DTYPES[dtype]:
        raise Refused("malformed", f"The place of {label} in adapter.safetensors isn't as long as its shape needs.")
    return offsets[0], offsets[1], (shape[0], shape[1])


def are_counts(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(cast("list[Any]", value)) == count
        and all(type(one) is int and 0 <= one <= MAX_ADAPTER_BYTES for one in cast("list[Any]", value))
    )


def wanted_shapes(card: Card, base: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that an adapter with this card has. Raises Refused.

    >>> from ftmath.model import Config, Decoder
    >>> wanted_shapes(Card("loud", 4, 8.0, ("q",), ""), Decoder(Config(layers=1)))
    {'blocks.0.attn.q.A': (4, 128), 'blocks.0.attn.q.B': (128, 4)}
    """
    linears = {
        name: module for name, module in base.named_modules() if name.startswith("blocks.") and is_linear(module)
    }
    if idle := [target for target in card.targets if not any(matches(name, target) for name in linears)]:
        raise Refused("misfit", f'No layer of the blocks is called {idle[0]!r}, which is among the "targets".')
    found: dict[str, tuple[int, ...]] = {}
    for name, layer in linears.items():
        if any(matches(name, target) for target in card.targets):
            d_out, d_in = cast("Tensor", layer.weight).shape
            found |= {f"{name}.A": (card.rank, d_in), f"{name}.B": (d_out, card.rank)}
    return found


def demand_fit(found: Mapping[str, tuple[int, ...]], card: Card, base: nn.Module) -> None:
    """Raise Refused unless the tensors are those that the card tells, and no more than an adapter may have."""
    wanted = wanted_shapes(card, base)
    if missing := sorted(wanted.keys() - found.keys()):
        raise Refused("misfit", f"adapter.safetensors lacks {missing[0]}, which its card tells.")
    if extra := sorted(found.keys() - wanted.keys()):
        raise Refused("misfit", f"adapter.safetensors holds {extra[0][:60]!r}, which is no factor that its card tells.")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise Refused("misfit", f"{name} has the shape {found[name]}, and its card makes it {shape}.")
    if (count := sum(map(math.prod, wanted.values()))) > MAX_PARAMETERS:
        words = f"This adapter has {count:,} parameters; with more than {MAX_PARAMETERS:,} it is another model."
        raise Refused("too-large", words)


__all__ = [
    "MAX_ADAPTER_BYTES", "MAX_CARD_BYTES", "MAX_PARAMETERS", "TASK", "Card", "Refused", "parse_adapter", "parse_card",
]  # fmt: skip
