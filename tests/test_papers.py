"""References against numbers that papers print, and against oracles that are nobody's answer."""

import math

import pytest
import torch
import torch.nn.functional as F
from ftgrade.catalog import home
from hypothesis import given, settings
from hypothesis import strategies as st

P01, P03, P08 = (home().solution(stem) for stem in ("p01_answer_only_loss", "p03_lora_parameters", "p08_dpo_loss"))

# arXiv:2106.09685: model, targets, rank, layers, width, the number that the paper prints (in millions) and where.
PRINTED = [
    ("RoBERTa-base", "qv", 8, 12, 768, 0.3),  # table 2
    ("RoBERTa-large", "qv", 8, 24, 1024, 0.8),  # table 2
    ("DeBERTa-XXL", "qv", 16, 48, 1536, 4.7),  # table 2; the rank is that of the released scripts
    ("GPT-3", "qv", 1, 96, 12288, 4.7),  # table 15
    ("GPT-3", "v", 2, 96, 12288, 4.7),  # table 15
    ("GPT-3", "qkvo", 1, 96, 12288, 9.4),  # table 15
    ("GPT-3", "qv", 8, 96, 12288, 37.7),  # tables 4 and 15
]


@pytest.mark.parametrize(("model", "targets", "rank", "layers", "width", "millions"), PRINTED)
def test_lora_counts_are_the_papers(model: str, targets: str, rank: int, layers: int, width: int, millions: float):
    shapes = dict.fromkeys("qkvo", (width, width))
    assert round(P03.lora_model_params(shapes, targets, layers, rank) / 1e6, 1) == millions


def test_two_printed_counts_are_not_what_the_formula_gives():
    """Table 3's 0.35 M for GPT-2 medium and appendix D.4's 37.7 M at rank 2: each is another number by the formula."""
    assert P03.lora_model_params({"q": (1024, 1024), "v": (1024, 1024)}, "qv", 24, 4) == 393_216
    assert P03.lora_model_params(dict.fromkeys("qkvo", (12288, 12288)), "qkvo", 96, 2) == 18_874_368


def test_a_count_is_what_torch_stores():
    layer = torch.nn.Sequential(torch.nn.Linear(30, 7, bias=False), torch.nn.Linear(7, 50, bias=False))
    assert P03.lora_param_count(50, 30, 7) == sum(parameter.numel() for parameter in layer.parameters())


seeds = st.integers(0, 2**31)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_the_answer_only_loss_is_torchs_with_ignored_labels(seed: int):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 7, 11, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, 11, (3, 7), generator=generator)
    mask = torch.rand(3, 7, generator=generator) < 0.5
    mask[0, 1] = True
    labels = ids.where(mask, -100)[:, 1:]
    wanted = F.cross_entropy(logits[:, :-1].reshape(-1, 11), labels.reshape(-1), ignore_index=-100)
    torch.testing.assert_close(P01.answer_only_loss(logits, ids, mask), wanted)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_gradients_by_hand_are_autograds(seed: int):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 6, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    ids, mask = torch.randint(0, 9, (3, 6), generator=generator), torch.ones(3, 6)
    (wanted,) = torch.autograd.grad(P01.answer_only_loss(logits, ids, mask), logits)
    torch.testing.assert_close(P01.answer_only_grad(logits, ids, mask), wanted)
    four = [torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    pair = torch.autograd.grad(P08.dpo_loss(*four, beta=0.3), four[:2])
    torch.testing.assert_close(P08.dpo_grad(*(part.detach() for part in four), beta=0.3), pair)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), seeds)
@settings(max_examples=25, deadline=None)
def test_accumulated_micro_batches_give_the_batchs_token_mean(lengths: list[int], seed: int):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(lengths), 10, 5, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, 5, (len(lengths), 10), generator=generator)
    mask = torch.arange(10) < torch.tensor(lengths)[:, None] + 1
    parts = [P01.answer_only_loss(logits[[row]], ids[[row]], mask[[row]]) for row in range(len(lengths))]
    weights = P01.accumulation_weights(lengths)
    whole = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(P01.answer_only_loss(logits, ids, mask), whole)


def test_numbers_worked_by_hand():
    p = torch.tensor([0.1, 0.2, 0.5, 0.8, 0.9], dtype=torch.float64)
    logits = torch.stack([p, 1 - p], dim=-1).log()
    logits = torch.cat([logits, torch.zeros(1, 2, dtype=torch.float64)])[None]
    ids, mask = torch.zeros(1, 6, dtype=torch.long), torch.tensor([[0, 0, 0, 1, 1, 1]])
    wanted = -(math.log(0.5) + math.log(0.8) + math.log(0.9)) / 3
    assert round(P01.answer_only_loss(logits, ids, mask).item(), 4) == round(wanted, 4) == 0.3406
    four = (torch.tensor(value, dtype=torch.float64) for value in (-12.0, -14.0, -13.0, -13.5))
    assert round(P08.dpo_loss(*four, beta=0.1).item(), 4) == 0.6210
