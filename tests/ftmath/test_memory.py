"""Bytes: closed forms equal what is measured, what is imagined equals what is real, and papers' numbers come out."""

import pytest
import torch
from ftmath.lora import add_lora
from ftmath.memory import (
    GIB,
    KIB,
    best_segments,
    block_activation_bytes,
    decoder_parameters,
    imagined,
    kept_bytes_per_token,
    measured,
    peak_bytes,
    training_bytes,
    zero_bytes,
)  # fmt: skip
from ftmath.model import Config, Decoder
from ftmath.quant import quantise_linears
from hypothesis import given, settings
from hypothesis import strategies as st

LLAMA_7B = Config(32_000, 4096, 32, 32, 32, 128, 11_008, biases=False, tied=False)
SMALL = Config(50, 64, 3, 4, 4, 16, 96, biases=False)


def lora(model: Decoder) -> None:
    add_lora(model, ["q", "v"], 8, 16.0)


@given(st.integers(1, 3), st.sampled_from([1, 2, 4]), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_parameters_by_closed_form_are_those_counted(layers: int, kv_heads: int, biases: bool, tied: bool):
    config = Config(31, 24, layers, 4, kv_heads, 6, 40, biases=biases, tied=tied)
    assert decoder_parameters(config) == sum(p.numel() for p in Decoder(config).parameters())


def test_published_parameter_counts():
    assert decoder_parameters(LLAMA_7B) == 6_738_415_616
    llama_65b = Config(32_000, 8192, 80, 64, 64, 128, 22_016, biases=False, tied=False)
    assert decoder_parameters(llama_65b) == 65_285_660_672
    llama_1b = Config(128_256, 2048, 16, 32, 8, 64, 8192, biases=False, tied=True)
    assert decoder_parameters(llama_1b) + 524_288 == 1_236_338_688  # peft's quicktour, LoRA on q with rank 8


@pytest.mark.parametrize("rank", [None, 4, 8])
@pytest.mark.parametrize("time", [16, 40])
def test_a_block_keeps_what_the_closed_form_says(rank: int | None, time: int):
    def prepare(model: Decoder) -> None:
        if rank:
            add_lora(model, ["q", "v"], rank, 1.0)

    two, three = (imagined(SMALL, time, prepare, layers=layers).activations for layers in (2, 3))
    assert three - two == time * kept_bytes_per_token(SMALL, lora_rank=rank)


@pytest.mark.parametrize("time", [128, 2048])
def test_a_7b_block_keeps_what_the_closed_form_says(time: int):
    one, two = (imagined(LLAMA_7B, time, lora, layers=layers).activations for layers in (1, 2))
    assert two - one == time * kept_bytes_per_token(LLAMA_7B, lora_rank=8)


def test_what_is_imagined_is_what_a_real_step_keeps():
    model = Decoder(SMALL).bfloat16()
    lora(model)
    ids = torch.zeros(2, 10, dtype=torch.long)
    real = measured(model, lambda: model.hidden(ids).sum())
    thought = imagined(SMALL, 10, lora, batch=2)
    assert (real.weights, real.gradients) == (thought.weights, thought.gradients)
    # The sum's own shape is the only other thing that is kept.
    assert abs(real.activations - thought.activations) <= 64


def test_the_7b_table():
    """Weights, gradients, Adam's moments and what is kept at 512 tokens in bfloat16, in GiB."""

    def qlora(model: Decoder) -> None:
        quantise_linears(model)
        lora(model)

    ways = {"full": (lambda model: None, False), "LoRA": (lora, False), "LoRA, checkpointed": (lora, True),
            "QLoRA": (qlora, False)}  # fmt: skip
    found = {name: imagined(LLAMA_7B, 512, prepare, checkpointing=on) for name, (prepare, on) in ways.items()}
    table = {
        name: [round(part / GIB, 2) for part in (b.weights, b.gradients, b.optimizer, b.activations)]
        for name, b in found.items()
    }
    assert table == {
        "full": [12.55, 12.55, 25.1, 2.98],
        "LoRA": [12.56, 0.01, 0.02, 2.14],
        "LoRA, checkpointed": [12.56, 0.01, 0.02, 0.13],
        "QLoRA": [3.61, 0.01, 0.02, 2.14],
    }


def test_checkpointing_keeps_every_gradients_bits():
    plain, thrifty = (Decoder(SMALL, torch.Generator().manual_seed(0)) for _ in range(2))
    thrifty.checkpointing = True
    ids = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(1))
    for model in (plain, thrifty):
        model(ids).square().mean().backward()
    for ours, theirs in zip(plain.parameters(), thrifty.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_checkpointing_a_frozen_base_trains_its_adapters():
    model = Decoder(SMALL)
    lora(model)
    model.checkpointing = True
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_adams_bytes_are_twice_the_weights_and_a_counter_each():
    layer = torch.nn.Linear(100, 50)
    found = measured(layer, lambda: layer(torch.ones(2, 100)).sum(), torch.optim.AdamW(layer.parameters()))
    assert found.optimizer - 2 * found.weights == 4 * 2
    assert found.gradients == found.weights == 5050 * 4


def test_zeros_and_korthikantis_numbers():
    assert [round(zero_bytes(7_500_000_000, 64, stage) / 1e9, 1) for stage in (0, 1)] == [120.0, 31.4]
    assert training_bytes(0, 1_500_000_000).total == 24_000_000_000
    s, h, a = 2048, 12288, 96
    whole, flash = (block_activation_bytes(s, 1, h, a, flash=on) for on in (False, True))
    assert (whole - flash) / (s * h) == 80
    assert round(100 * (whole - flash) / whole) == 70
    assert 32 * block_activation_bytes(2048, 1, 4096, 32) == 28.5 * GIB
    with pytest.raises(ValueError, match="stage"):
        zero_bytes(1, 1, 4)
    with pytest.raises(ValueError, match="negative"):
        training_bytes(-1, 0)


@given(st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_no_number_of_segments_beats_the_best_one(layers: int):
    k, units = best_segments(layers)
    assert units == k + -(-layers // k)
    assert units >= 2 * layers**0.5 - 1e-9
    assert units <= 2 * layers**0.5 + 2


def test_a_cpu_has_no_allocator_to_ask():
    assert peak_bytes(torch.device("cpu"), lambda: torch.zeros(KIB)) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the allocator's own peak is not checked")
def test_a_gpus_peak_holds_at_least_what_was_made():
    device = torch.device("cuda")
    assert (peak_bytes(device, lambda: torch.zeros(KIB, device=device)) or 0) >= 4 * KIB
