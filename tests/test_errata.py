"""The errata: every bold number is computed again, every entry says where it stands and leads to where it's shown."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ftgrade.catalog import home
from ftmath import bits_per_weight, decoder_parameters, dpo_loss, ipo_loss, optimal_policy, token_kl, training_bytes
from ftmath.model import Config

COURSE = Path(__file__).parent.parent / "course"
TEXT = (COURSE / "errata.md").read_text("utf-8")
ENTRIES = {
    int(number): body
    for number, body in re.findall(r"^### (\d+)\. (.+?)(?=^##|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
}
P03, P06, P07 = (home().solution(stem) for stem in ("p03", "p06", "p07"))
LLAMA_3_8B = Config(128_256, 4096, 32, 32, 8, 128, 14_336, biases=False, tied=False)
PROJECTIONS = {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096),
               "gate": (14_336, 4096), "up": (14_336, 4096), "down": (4096, 14_336)}  # fmt: skip


def square(targets: str, rank: int, layers: int, width: int) -> int:
    return P03.lora_model_params(dict.fromkeys("qkvo", (width, width)), targets, layers, rank)


def whole(*counts: int) -> list[str]:
    return [f"{count:,}" for count in counts]


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def prefix_layers() -> list[str]:
    printed = {4: 5.1, 8: 10.1, 16: 20.2, 36: 44.1, 64: 76.1}  # vectors a layer: millions
    implied = [1e6 * millions / (12_288 * vectors) for vectors, millions in printed.items()]
    return [f"{min(implied):.1f}", f"{max(implied):.1f}"]


def reduction() -> list[str]:
    trained, total = P03.lora_model_params(PROJECTIONS, list(PROJECTIONS), 32, 16), decoder_parameters(LLAMA_3_8B)
    return [*whole(trained, total), f"{100 * (1 - trained / total):.2f}"]


def memory() -> list[str]:
    trained = P03.lora_model_params(PROJECTIONS, list(PROJECTIONS), 32, 16)
    frozen = training_bytes(decoder_parameters(LLAMA_3_8B), 0).total
    return [f"{frozen / 2**30:.2f}", f"{training_bytes(0, trained).total / 2**30:.2f}"]


def first_answer_token() -> list[str]:
    length, last_of_instruction = 13, 6
    predicts = {position: position + 1 for position in range(length - 1)}
    targets = {at for at, token in predicts.items() if token > last_of_instruction}
    learned = {at for at in range(length) if not at <= last_of_instruction}
    assert targets - learned == {last_of_instruction}
    assert learned - targets == {length - 1}
    return whole(len(targets), len(targets & learned))


def two_means() -> list[str]:
    rows = [double(3.0), double(*[0.5] * 9)]
    return [f"{torch.cat(rows).mean():.2f}", f"{sum(row.mean() for row in rows) / len(rows):.2f}"]


def divergences() -> list[str]:
    base, tuned = double(0.5, 0.3, 0.2), double(0.6, 0.3, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its default, which is the entry's subject
        default = F.kl_div(base.log(), tuned, reduction="mean")
    exchanged = F.kl_div(tuned.log(), base, reduction="sum")
    return [f"{value:.4f}" for value in (token_kl(tuned.log(), base.log()), default, exchanged)]


def optima() -> list[str]:
    reference, found = torch.full((3,), 1 / 3, dtype=torch.float64), list[str]()
    for beta in (0.1, 0.5, 2.0):
        policy, _ = optimal_policy(reference, double(1.0, 0.0, -1.0), beta)
        found.append(f"{token_kl(policy.log(), reference.log()):.3f}")
    return found


def sums_and_means() -> list[str]:
    chosen, rejected = double(*[0.3] * 4), double(*[0.2] * 12)
    total, mean = chosen.sum() - rejected.sum(), chosen.mean() - rejected.mean()
    return [f"{total:+.1f}", f"{dpo_loss(total[None], 0.1):.4f}", f"{mean:+.1f}", f"{dpo_loss(mean[None], 0.1):.4f}"]


def two_ipos() -> list[str]:
    chosen, rejected = double(*[0.3] * 8), double(*[-0.2] * 4)
    margins = chosen.sum() - rejected.sum(), chosen.mean() - rejected.mean()
    return [f"{ipo_loss(margin[None], 0.1):.2f}" for margin in margins]


def merge_floor() -> float:
    """Return the largest update, on a grid, that a bfloat16 weight of 0.02 ignores."""
    weight, steps = torch.tensor(0.02).bfloat16(), torch.arange(1, 2000) * 1e-7
    ignored = (weight.float() + steps).bfloat16() == weight
    return float(steps[ignored].max())


COMPUTED: dict[int, Callable[[], list[str]]] = {
    1: lambda: whole(square("qkvo", 2, 96, 12_288), square("qkvo", 4, 96, 12_288)),
    2: lambda: [
        *whole(square("qv", 4, 24, 1024), square("qv", 4, 36, 1280)),
        *(f"{square('qv', 4, layers, width) / 1e6:.2f}" for layers, width in ((24, 1024), (36, 1280))),
    ],
    3: lambda: [
        *whole(square("qkvo", 64, 96, 12_288)),
        f"{square('qkvo', 64, 96, 12_288) / 1e6:.1f}",
        *whole(square("qv", 64, 96, 12_288)),
    ],
    4: lambda: whole(square("qv", 8, 48, 1536), square("qv", 16, 48, 1536)),
    5: prefix_layers,
    6: lambda: whole(20 * 512, 76_961_664 - 512 + 20 * 512),
    7: lambda: whole(11_135_336_448 + 49 * 4096, 11_137_380_352 - (11_135_336_448 + 49 * 4096)),
    8: lambda: [f"{100 * 102_400 / 783_252_480:.5f}"],
    9: lambda: whole(4096, 20 * 4096),
    10: reduction,
    11: memory,
    12: lambda: whole(2 * 20 * 1024, 20 * 1024),
    13: lambda: whole(square("qv", 4, 32, 4096), P03.lora_model_params(PROJECTIONS, ["q", "v"], 32, 4)),
    14: lambda: [
        *whole(4 * 64 * 768 * 12),
        f"{100 * 4 * 64 * 768 * 12 / 110e6:.1f}",
        *whole(P06.adapter_model_params(768, 64, 12, 2)),
    ],
    15: lambda: whole(P07.prefix_params(1, 20, 8, 128), P07.prefix_params(1, 20, 1, 128)),
    16: lambda: [f"{8e9 * bits / 8 / 1e9:.2f}" for bits in (4, bits_per_weight(64, double=True))],
    17: first_answer_token,
    18: two_means,
    19: divergences,
    20: optima,
    21: sums_and_means,
    22: two_ipos,
    23: lambda: [f"{dpo_loss(double(2.0), 0.1, smoothing):.4f}" for smoothing in (0.1, 0.0)],
    24: lambda: [f"{alpha / (alpha / rank):g}" for alpha, rank in ((16, 16), (16, 8))],
    25: lambda: [f"{merge_floor():.1e}"],
}


def test_each_entry_is_computed_and_there_are_enough():
    assert list(ENTRIES) == list(COMPUTED) == list(range(1, len(ENTRIES) + 1))
    assert 15 <= len(ENTRIES) <= 25


@pytest.mark.parametrize("number", ENTRIES)
def test_every_bold_number_comes_out_again(number: int):
    assert re.findall(r"\*\*([^*]+)\*\*", ENTRIES[number]) == COMPUTED[number]()


@pytest.mark.parametrize("number", ENTRIES)
def test_an_entry_says_where_what_and_where_to_see_it(number: int):
    for word in ("*Where.*", "*Recomputed.*", "*See*"):
        assert word in ENTRIES[number]
    papers, code = (
        r"arXiv:\d{4}\.\d{5}|[Ss]ame (DPO )?(paper|table|page|notes|notebook|repository)",
        r"\w#\d+|chapter|\.md",
    )
    source = f"{papers}|{code}|(trl|PEFT) \\d"
    assert re.search(source, ENTRIES[number])


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT))))
def test_a_link_of_the_errata_resolves(target: str):
    file, _, anchor = target.partition("#")
    assert (COURSE / file).is_file()
    if anchor:
        cells = json.loads((COURSE / file).read_text("utf-8"))["cells"]
        said = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert anchor in {head.replace(" ", "-") for head in re.findall(r"^#+ (.+)$", said, re.MULTILINE)}


def test_the_slips_in_table_4_of_prompt_tuning_are_slips_of_single_rows():
    """arXiv:2104.08691: width, base (the total at length 1 less one vector), and the rows that are exact."""
    exact = {512: (76_961_664, {5: 76_963_712, 50: 76_986_752, 150: 77_037_952}),
             1024: (783_151_104, {20: 783_170_560, 100: 783_252_480}),
             4096: (11_135_336_448, {20: 11_135_414_272, 100: 11_135_741_952, 150: 11_135_946_752})}  # fmt: skip
    for width, (first, rows) in exact.items():
        assert all(total == first + (length - 1) * width for length, total in rows.items())
    assert 11_137_380_352 == 11_135_336_448 + 499 * 4096
