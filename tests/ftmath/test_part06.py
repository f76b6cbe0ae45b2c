"""Part 6: its explorers' numbers are the library's, a plan is what is imagined, and NF4's recipe at any width."""

import html
import json
import math

import pytest
import torch
from ftmath.lora import add_lora
from ftmath.memory import (
    GIB,
    LOGIT_BYTES,
    allocated_bytes,
    chunked_loss,
    imagined,
    kept_bytes_per_token,
    linear_parameters,
    lora_parameters,
    planned,
    training_bytes,
)  # fmt: skip
from ftmath.model import Config, Decoder
from ftmath.quant import QuantLinear, bits_per_weight, nf4_levels, normal_levels, quantise_linears
from ftmath.widgets.explorers import CARDS
from ftmath.widgets.quantised import MODELS, WAYS, card_explorer, outlier_explorer

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
GROUPED = Config(50, 64, 3, 4, 2, 16, 96, biases=False)
LLAMA_7B = MODELS["Llama 2 7B"]


def lora(model: Decoder) -> None:
    add_lora(model, LINEARS, 8, 16.0)


def qlora(model: Decoder) -> None:
    quantise_linears(model, double=False)
    lora(model)


@pytest.mark.parametrize("prepare", [lora, qlora], ids=["LoRA", "QLoRA"])
@pytest.mark.parametrize("config", [GROUPED, LLAMA_7B, MODELS["Llama 3 8B"]], ids=["small", "7B", "8B, grouped"])
def test_lora_on_every_linear_keeps_what_the_closed_form_says(config: Config, prepare):
    one, two = (imagined(config, 24, prepare, layers=layers).activations for layers in (1, 2))
    assert two - one == 24 * kept_bytes_per_token(config, lora_rank=8, all_linears=True)


@pytest.mark.parametrize("rank", [None, 8])
def test_grouped_heads_keep_narrower_keys(rank: int | None):
    def prepare(model: Decoder) -> None:
        if rank:
            add_lora(model, ["q", "v"], rank, 1.0)

    one, two = (imagined(GROUPED, 24, prepare, layers=layers).activations for layers in (1, 2))
    assert two - one == 24 * kept_bytes_per_token(GROUPED, lora_rank=rank)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rank", [None, 8])
def test_a_plan_is_what_is_imagined(rank: int | None, checkpointing: bool):
    """Apart from the final norm, and from checkpointing's one block that is computed again, which comes later."""
    thought = imagined(LLAMA_7B, 64, lora if rank else lambda model: None, checkpointing=checkpointing)
    plan = planned(LLAMA_7B, 64, lora_rank=rank, checkpointing=checkpointing)
    assert (plan.weights, plan.gradients) == (thought.weights, thought.gradients)
    again = 64 * kept_bytes_per_token(LLAMA_7B, lora_rank=rank, all_linears=True) if checkpointing else 0
    assert 0 <= thought.activations - (plan.activations - again) <= 64 * 10 * LLAMA_7B.d_model


def test_counts_are_those_of_the_layers():
    model = Decoder(GROUPED)
    assert linear_parameters(GROUPED) == sum(
        p.numel() for name, p in model.named_parameters() if name.startswith("blocks") and p.ndim == 2
    )
    lora(model)
    assert lora_parameters(GROUPED, 8) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_plan_of_llama_7b_is_the_papers_sum():
    full, adapted = planned(LLAMA_7B, 0), planned(LLAMA_7B, 0, lora_rank=16)
    assert full.total == training_bytes(0, 6_738_415_616).total
    assert round(full.total / GIB, 1) == 100.4
    assert round(adapted.total / GIB, 2) == 13.15
    with pytest.raises(ValueError, match="linear_bits"):
        planned(LLAMA_7B, 0, linear_bits=4.5)


@pytest.mark.parametrize("bits", range(2, 9))
def test_normal_levels_hold_zero_and_both_ends_and_every_code_once(bits: int):
    levels = normal_levels(bits)
    assert len(levels) == 2**bits
    assert bool((levels.diff() > 0).all())
    assert (levels[0], levels[2 ** (bits - 1) - 1], levels[-1]) == (-1, 0, 1)


def test_normal_levels_of_four_bits_are_nf4_and_other_widths_are_refused():
    assert torch.equal(normal_levels(4), nf4_levels())
    for bits in (1, 9):
        with pytest.raises(ValueError, match="bits"):
            normal_levels(bits)


def test_stored_bits_are_the_formulas_where_blocks_are_full():
    weight = torch.nn.Linear(1024, 1024, bias=False)
    for double in (False, True):
        bits = 8 * QuantLinear(weight, double=double).stored_bytes / 1024**2
        assert bits == pytest.approx(bits_per_weight(64, double=double), abs=32 / 1024**2)


def test_the_card_explorers_numbers_are_the_plans():
    explorer = card_explorer()
    for state in ((2, 1, 1, 2), (4, 3, 3, 5), (0, 0, 0, 0)):
        model, _, way, size = state
        rank, bits, checkpointing = list(WAYS.values())[way]
        budget = planned(
            list(MODELS.values())[model], 128 * 4**size, lora_rank=rank, linear_bits=bits, checkpointing=checkpointing
        )
        frame = explorer.frame(*state)
        said = dict(frame["readouts"])
        assert said["in all"] == f"{budget.total / GIB:.1f} GiB"
        assert said["activations"] == f"{budget.activations / GIB:.2f} GiB"
        bars = frame["panels"][0]["series"][0]["y"]
        assert sum(bars[:5]) == pytest.approx(bars[5])
        assert said["so it"] == ("fits" if bars[5] <= bars[6] else "does not fit")
    explorer.close()


def test_the_longest_batch_fits_and_one_token_more_does_not():
    explorer = card_explorer()
    said = dict(explorer.frame(2, 1, 3, 0)["readouts"])
    tokens = int(said["longest batch"].split()[0].replace(",", ""))
    rank, bits, on = WAYS["QLoRA, checkpointed"]
    totals = [
        planned(LLAMA_7B, count, lora_rank=rank, linear_bits=bits, checkpointing=on).total
        for count in (tokens, tokens + 2)
    ]
    holds = list(CARDS.values())[1] * GIB
    assert totals[0] <= holds < totals[1]
    assert dict(explorer.frame(4, 0, 0, 0)["readouts"])["longest batch"] == "none"
    explorer.close()


def test_an_outlier_takes_the_codes_of_its_own_block_only():
    explorer = outlier_explorer()
    zeros = {
        (block, outlier): float(dict(explorer.frame(block, outlier)["readouts"])["weights stored as 0"].rstrip("%"))
        for block in range(4) for outlier in range(5)
    }  # fmt: skip
    assert zeros[3, 4] > 99
    assert abs(zeros[1, 4] - zeros[1, 0]) < 100 * 64 / 4096
    assert zeros[3, 0] < 20
    explorer.close()


@pytest.mark.parametrize("make", [card_explorer, outlier_explorer])
def test_an_explorer_of_part_6_has_all_frames_and_a_twin(make):
    explorer = make()
    assert len(explorer.table["frames"]) == math.prod(len(one["values"]) for one in explorer.table["sliders"])
    assert len(json.dumps(explorer.table, allow_nan=False)) < 700_000
    data, _ = explorer._repr_mimebundle_()
    for panel in explorer.frame(*explorer.state)["panels"]:
        assert html.escape(panel["alt"]) in data["text/html"]
        assert all(len(series["y"]) == len(panel["x"]) for series in panel["series"])
    explorer.close()


def test_a_chunked_loss_has_the_loss_and_the_gradients_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    head, targets = torch.nn.Linear(16, 50), torch.randint(50, (37,), generator=generator)
    found = []
    for loss_of in (lambda h: torch.nn.functional.cross_entropy(head(h), targets),
                    lambda h: chunked_loss(head, h, targets, 8)):  # fmt: skip
        hidden = torch.randn(37, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = loss_of(hidden)
        found.append((loss.detach(), *torch.autograd.grad(loss, [hidden, head.weight, head.bias])))
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(whole, pieces)


@pytest.mark.parametrize("held", [False, True])
def test_a_logit_takes_the_bytes_that_a_plan_counts(held: bool):
    """In bfloat16, with logits that are many times the weights: 12 bytes, and 2 more if the logits are held on to."""
    time, width, vocab = 512, 8, 4000
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(vocab, width, generator=generator).bfloat16().requires_grad_()
    hidden, targets = torch.randn(time, width, generator=generator).bfloat16(), torch.randint(vocab, (time,))

    def step() -> None:
        logits = hidden @ weight.T
        wide = logits.float()
        if not held:
            del logits
        loss = torch.nn.functional.cross_entropy(wide, targets)
        del wide
        loss.backward()

    step()
    assert allocated_bytes(step) / (time * vocab) == pytest.approx(LOGIT_BYTES + 2 * held, rel=0.02)


def test_logits_of_a_large_vocabulary_outweigh_a_quantised_model():
    """Llama 3.2 1B, QLoRA, checkpointed, 32,768 tokens: without its logits it would seem to fit a card of 8 GB."""
    plan = planned(MODELS["Llama 3.2 1B"], 32_768, lora_rank=16, linear_bits=4.127, checkpointing=True)
    assert plan.total - plan.logits < 8e9 < plan.logits
    chunked = planned(MODELS["Llama 3.2 1B"], 32_768, lora_rank=16, linear_bits=4.127, checkpointing=True, chunk=1024)
    assert chunked.logits == plan.logits // 32
