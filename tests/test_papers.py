"""References against numbers that papers print, and against oracles that are nobody's answer."""

import math

import pytest
import torch
import torch.nn.functional as F
from ftgrade.catalog import home
from hypothesis import given, settings
from hypothesis import strategies as st

P01, P03, P06, P07, P08 = (
    home().solution(stem)
    for stem in ("p01_answer_only_loss", "p03_lora_parameters", "p06_adapter_parameters", "p07_prefix_parameters",
                 "p08_dpo_loss")
)  # fmt: skip

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
TRUNCATED = [
    ("GPT-3", "qv", 4, 96, 12288, 18.8),  # table 15, where 18.87 stands as 18.8
    ("GPT-3", "qv", 64, 96, 12288, 301.9),  # table 15
]


def lora(targets: str, rank: int, layers: int, width: int) -> int:
    return P03.lora_model_params(dict.fromkeys("qkvo", (width, width)), targets, layers, rank)


@pytest.mark.parametrize(("model", "targets", "rank", "layers", "width", "millions"), PRINTED)
def test_lora_counts_are_the_papers(model: str, targets: str, rank: int, layers: int, width: int, millions: float):
    assert round(lora(targets, rank, layers, width) / 1e6, 1) == millions


@pytest.mark.parametrize(("model", "targets", "rank", "layers", "width", "millions"), TRUNCATED)
def test_some_lora_counts_are_printed_without_rounding(
    model: str, targets: str, rank: int, layers: int, width: int, millions: float
):
    assert math.floor(lora(targets, rank, layers, width) / 1e5) / 10 == millions


def test_lora_counts_that_software_prints():
    """Hugging Face PEFT's documents (quicktour, model_config guide) and its users' logs print these."""
    assert lora("q", 8, 16, 2048) == 524_288  # Llama-3.2-1B, q_proj
    assert lora("qv", 16, 24, 1024) == 1_572_864  # opt-350m, q and v
    d, kv, ff = 4096, 1024, 14336  # Llama-3-8B and Mistral-7B, all linear layers, rank 16
    grouped = {"q": (d, d), "k": (kv, d), "v": (kv, d), "o": (d, d), "gate": (ff, d), "up": (ff, d), "down": (d, ff)}
    assert P03.lora_model_params(grouped, list(grouped), 32, 16) == 41_943_040
    ff = 11008  # LLaMA-7B
    plain = dict.fromkeys("qkvo", (d, d)) | {"gate": (ff, d), "up": (ff, d), "down": (d, ff)}
    assert P03.lora_model_params(plain, list(plain), 32, 16) == 39_976_960


# The paper, what it prints, and what the formula gives; none of them agrees.
FIND_THE_ERROR = [
    ("arXiv:2106.09685, table 3, GPT-2 medium, rank 4", 0.35, lora("qv", 4, 24, 1024), 393_216),
    ("arXiv:2106.09685, table 3, GPT-2 large, rank 4", 0.77, lora("qv", 4, 36, 1280), 737_280),
    ("arXiv:2106.09685, appendix D.4, q, k, v, o at rank 2", 37.7, lora("qkvo", 2, 96, 12288), 18_874_368),
    ("arXiv:2106.09685, table 15, q, k, v, o at rank 64", 603.8, lora("qkvo", 64, 96, 12288), 603_979_776),
    ("arXiv:2106.09685, table 2, AdptP, bottleneck 64", 3.0, P06.adapter_model_params(1024, 64, 24, 1), 3_171_840),
    ("arXiv:2106.09685, table 2, AdptH, bottleneck 64", 6.0, P06.adapter_model_params(1024, 64, 24, 2), 6_343_680),
]


@pytest.mark.parametrize(("where", "millions", "found", "computed"), FIND_THE_ERROR)
def test_some_printed_counts_are_not_what_the_formula_gives(where: str, millions: float, found: int, computed: int):
    assert found == computed
    assert round(found / 1e6, 1 if millions > 1 else 2) != millions


# arXiv:2106.09685: width, bottleneck, layers, adapters a layer, trained LayerNorms, the printed millions and where.
ADAPTERS = [
    (12288, 1, 96, 2, 0, 7.1),  # table 15, AdapterH
    (12288, 8, 96, 2, 0, 40.1),  # tables 4 and 15, AdapterH
    (12288, 64, 96, 2, 0, 304.4),  # table 15, AdapterH
    (1024, 16, 24, 1, 0, 0.8),  # tables 2 and 9, RoBERTa-large AdptP
]


@pytest.mark.parametrize(("d", "m", "layers", "per_layer", "norms", "millions"), ADAPTERS)
def test_adapter_counts_are_the_papers(d: int, m: int, layers: int, per_layer: int, norms: int, millions: float):
    counted = P06.adapter_model_params(d, m, layers, per_layer, n_trained_layernorms=norms)
    assert round(counted / 1e6, 1) == millions


def test_adapter_counts_with_layer_norms_find_the_bottleneck_that_table_3_doesnt_print():
    """arXiv:2106.09685, table 3, GPT-2 medium with AdapterL: 11.09 M and 0.37 M, 24 adapters and 24 LayerNorms."""
    counts = {m: P06.adapter_model_params(1024, m, 24, 1, n_trained_layernorms=24) for m in range(1, 300)}
    assert [m for m, count in counts.items() if round(count / 1e6, 2) == 11.09] == [224]
    assert [m for m, count in counts.items() if round(count / 1e6, 2) == 0.37] == [6]


def test_the_houlsby_formula_and_its_approximations():
    """PMLR v97, section 2.1: 2md + d + m; section 3.4 rounds 2.4 M of BERT-base to 'approximately 2M'."""
    assert P06.adapter_params(1024, 64) == 132_160
    assert P06.adapter_model_params(768, 64, 12, 2, n_trained_layernorms=25) == 2_417_664


def test_prefix_counts_that_software_prints():
    """Hugging Face PEFT (peft_model.py and the prefix tuning page): 20 virtual tokens in gpt2-large and bloomz-560m."""
    assert P07.prefix_params(36, 20, 20, 64) == 1_843_200
    assert P07.prefix_params(24, 20, 16, 64) == 983_040


def test_prefix_rows_of_table_15_are_not_what_any_number_of_layers_gives():
    """arXiv:2106.09685, table 15, PrefixLayer: L d (l_p + l_i) gives 4.72 M where 5.1 M is printed, and so on."""
    rows = {4: 5.1, 8: 10.1, 16: 20.2, 36: 44.1, 64: 76.1}  # vectors a layer: printed millions
    # A prefix holds keys and values, so twice half as many vectors; the width is that of all heads.
    found = {vectors: P07.prefix_params(96, vectors // 2, 96, 128) for vectors in rows}
    assert found == {vectors: 96 * 12288 * vectors for vectors in rows}
    implied = [1e6 * millions / (12288 * vectors) for vectors, millions in rows.items()]
    assert max(implied) - min(implied) > 5
    assert all(round(found[vectors] / 1e6, 1) != millions for vectors, millions in rows.items())


def test_dpo_at_the_reference_and_at_four_numbers():
    """arXiv:2305.18290, equation 7 and the gradient below it, worked by hand."""
    four = [torch.tensor(value, dtype=torch.float64) for value in (-12.0, -14.0, -13.0, -13.5)]
    chosen, rejected = P08.dpo_grad(*four, beta=0.1)
    assert round(chosen.item(), 6) == -0.046257
    assert round(rejected.item(), 6) == 0.046257


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
