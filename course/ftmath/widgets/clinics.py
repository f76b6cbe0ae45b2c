"""Clinics: runs with one planted fault each, made with the library's own functions, and an explorer of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftmath.align import frozen_copy
from ftmath.groups import rate_groups
from ftmath.masks import model_logprob, model_loss, token_logprobs
from ftmath.methods import kl_to_base
from ftmath.model import Decoder, generate
from ftmath.preference import dpo_loss, margin
from ftmath.skills import EOS, Batch, decode, encode, example, mixture, padded, probes, prompts, retention
from ftmath.training import train
from ftmath.weights import FOLDER, base_model
from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, Slider, slider

MaskOf = Callable[[Batch], Tensor]
"""From a batch to the mask (batch, time) of what is learned, 1 for a target."""


def one_late(rows: Batch) -> Tensor:
    """Return the answer mask one place late: the first answer token is lost, what follows EOS is learned."""
    return torch.cat([torch.zeros_like(rows.answer_mask[:, :1]), rows.answer_mask[:, :-1]], dim=1)


def one_early(rows: Batch) -> Tensor:
    """Return the answer mask moved one place to the left: the separator is learned, EOS is lost."""
    return torch.cat([rows.answer_mask[:, 1:], torch.zeros_like(rows.answer_mask[:, :1])], dim=1)


MASK_FAULTS: dict[str, MaskOf] = {
    "right": lambda rows: rows.answer_mask,
    "inverted": lambda rows: rows.attention_mask - rows.answer_mask,
    "EOS masked": lambda rows: rows.answer_mask * (rows.ids != EOS),
    "padding trained": lambda rows: rows.answer_mask + 1 - rows.attention_mask,
    "one late": one_late,
    "one early": one_early,
}
"""Loss masks: the right one, and five ways to get it wrong that raise no error."""

REFERENCE_FAULTS = ("right", "alias", "dropout in both", "refreshed", "other template")
"""A frozen copy, the policy itself, dropout left on, a copy renewed every eight steps, another prompt."""

KINDS = ("prompt", "first answer token", "rest of the answer", "EOS")


@dataclass(frozen=True, slots=True)
class Patient:
    """A run with its fault: the loss that its log shows at each step, measures by name, what it says to prompts."""

    fault: str
    seed: int
    losses: tuple[float, ...]
    measures: dict[str, float]
    says: str


@torch.no_grad()
def loss_by_kind(model: Decoder, rows: Batch) -> dict[str, float]:
    """Return the mean loss, in nats per token, on each kind of token of some rows: where a mask's fault shows.

    >>> found = loss_by_kind(base_model(), probes("copy", 16, seed=0))
    >>> found["EOS"] < 0.01 < found["prompt"]
    True
    """
    nats = -token_logprobs(model(rows.ids)[:, :-1], rows.ids[:, 1:])
    answer, real, ids = rows.answer_mask[:, 1:] == 1, rows.attention_mask[:, 1:] == 1, rows.ids[:, 1:]
    first = answer & (rows.answer_mask[:, :-1] == 0)
    chosen = (real & ~answer, first, answer & ~first & (ids != EOS), answer & (ids == EOS))
    return {kind: float(nats[mask].mean()) for kind, mask in zip(KINDS, chosen, strict=True)}


@torch.no_grad()
def written(model: Decoder, asked: Sequence[tuple[str, str]], max_new: int = 12) -> tuple[float, list[str]]:
    """Return which share of prompts with answers a model answers exactly and then stops, and what it writes.

    >>> written(base_model(), [("upper abc", "ABC"), ("copy abc", "cab")])
    (0.5, ['ABC', 'abc'])
    """
    ids, mask = (part.to(model.embed.weight.device) for part in prompts([prompt for prompt, _ in asked]))
    drawn = generate(model, ids, mask, max_new=max_new, stop=EOS).tolist()
    texts = [decode(tokens) for tokens in drawn]
    right = [EOS in t and text == answer for t, text, (_, answer) in zip(drawn, texts, asked, strict=True)]
    return sum(right) / len(right), texts


def treat_mask(
    fault: str, seed: int, *, steps: int = 60, rows: int = 16, rate: float = 2e-4, count: int = 128
) -> Patient:  # fmt: skip
    """Tune the base model, all parameters, on `flip` with a loss mask of `MASK_FAULTS`; return the run.

    >>> treat_mask("EOS masked", seed=0, steps=1, rows=2, count=4).measures["right and stopped"]
    0.0

    Errors: ValueError for an unknown fault.
    """
    if fault not in MASK_FAULTS:
        raise ValueError(f"fault must be one of {', '.join(MASK_FAULTS)}; got {fault!r}")
    model, rng, mask_of = base_model(), np.random.default_rng(seed), MASK_FAULTS[fault]

    def loss(step: int) -> Tensor:
        lines = mixture({"flip": 1.0}, rows, rng)
        return model_loss(model, lines.ids, mask_of(lines))

    losses = train(model, loss, rate_groups(model, {}, rate), steps, label=fault)
    draw = np.random.default_rng(2024)
    asked = [example("flip", draw) for _ in range(count)]
    right, texts = written(model, asked)
    measures = {"right and stopped": right, **loss_by_kind(model, probes("flip", count, 2024))}
    says = "; ".join(f"{prompt} → {text or '(nothing)'}" for (prompt, _), text in zip(asked[:3], texts, strict=False))
    return Patient(fault, seed, tuple(losses), measures, says)


def thankful_pairs(seed: int, count: int = 32) -> list[tuple[str, str, str]]:
    """Return prompts of known skills with a chosen answer, which says thanks, and a rejected one, which doesn't.

    >>> thankful_pairs(0, 1)[0][1].endswith(", thanks!")
    True
    """
    rng = np.random.default_rng(100 + seed)
    asked = [example(str(rng.choice(["copy", "upper", "reverse"])), rng) for _ in range(count)]
    return [(prompt, f"{answer}, thanks!", answer) for prompt, answer in asked]


def sides(pairs: Sequence[tuple[str, str, str]]) -> tuple[Batch, Batch]:
    """Return the chosen and the rejected answers of pairs behind their prompts, as two batches."""
    chosen, rejected = (padded([encode(prompt, answers[side]) for prompt, *answers in pairs]) for side in (0, 1))
    return chosen, rejected


def with_dropout(model: Decoder, share: float, seed: int) -> Decoder:
    """Put dropout behind every MLP of a model, drawn from a generator of its own, and switch it on."""
    for number, block in enumerate(model.blocks):
        block.mlp = nn.Sequential(block.get_submodule("mlp"), Dropout(share, 97 * seed + number))
    return model.train()


class Dropout(nn.Module):
    """Dropout that draws from its own generator, so that a run is the same whatever else was drawn."""

    def __init__(self, p: float, seed: int) -> None:
        super().__init__()
        self.p, self.generator = p, torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(x.shape, generator=self.generator) >= self.p
        return x * kept.to(x) / (1 - self.p)


def reference_for(fault: str, policy: Decoder, seed: int) -> Decoder:
    """Return the reference that a fault gives a policy; dropout is put into the policy too."""
    if fault == "alias":
        return policy
    if fault == "dropout in both":
        with_dropout(policy, 0.1, 2 * seed)
        return with_dropout(base_model().requires_grad_(False), 0.1, 2 * seed + 1)
    return frozen_copy(policy)


def treat_reference(
    fault: str, seed: int, *, steps: int = 32, rows: int = 8, rate: float = 1e-5, beta: float = 0.1
) -> Patient:  # fmt: skip
    """Tune the base model, all parameters, by DPO on `thankful_pairs` with a reference of `REFERENCE_FAULTS`.

    Measures, all against the true base: `moved` is the norm of the whole update; the margin and the change of log pi+
    are means over the pairs, in nats; KL is a mean over tokens of the old skills, in nats; `old skills kept` is the
    share of their probes that are still answered right.

    >>> losses = treat_reference("alias", seed=0, steps=2, rows=2).losses
    >>> [round(value, 4) for value in losses]
    [0.6931, 0.6931]

    Errors: ValueError for an unknown fault.
    """
    if fault not in REFERENCE_FAULTS:
        raise ValueError(f"fault must be one of {', '.join(REFERENCE_FAULTS)}; got {fault!r}")
    pairs = thankful_pairs(seed)
    ours = sides(pairs)
    cut = [(prompt.partition(" ")[2], *answers) for prompt, *answers in pairs]  # the skill's name is lost
    theirs = sides([(p, a, b) for p, a, b in cut]) if fault == "other template" else ours
    policy = base_model()
    start = [parameter.detach().clone() for parameter in policy.parameters()]
    reference = reference_for(fault, policy, seed)
    rng = np.random.default_rng(seed)

    def logprobs(model: Decoder, batches: tuple[Batch, Batch], at: Tensor) -> list[Tensor]:
        return [model_logprob(model, side.ids[at], side.answer_mask[at]) for side in batches]

    def loss(step: int) -> Tensor:
        if fault == "refreshed" and step % 8 == 0:
            reference.load_state_dict(policy.state_dict())
        at = torch.from_numpy(rng.permutation(len(pairs))[:rows])
        mine = logprobs(policy, ours, at)
        with torch.no_grad():
            known = logprobs(reference, theirs, at)
        return dpo_loss(margin(mine[0], mine[1], known[0], known[1]), beta)

    losses = train(policy, loss, rate_groups(policy, {}, rate), steps, label=fault)
    policy.eval()
    everything, base = torch.arange(len(pairs)), base_model()
    with torch.no_grad():
        now, then = logprobs(policy, ours, everything), logprobs(base, ours, everything)
        h = margin(*now, *then)
        change = sum(((p - q) ** 2).sum() for p, q in zip(policy.parameters(), start, strict=True))
    asked = [(prompt, chosen) for prompt, chosen, _ in pairs[:3]]
    _, texts = written(policy, asked, max_new=18)
    kept = retention(policy)
    measures = {
        "moved": float(change) ** 0.5, "margin against the base": float(h.mean()),
        "log pi+ against the base": float((now[0] - then[0]).mean()), "KL to the base": kl_to_base(policy, base),
        "old skills kept": sum(kept.values()) / len(kept),
    }  # fmt: skip
    says = "; ".join(f"{prompt} → {text}" for (prompt, _), text in zip(asked, texts, strict=True))
    return Patient(fault, seed, tuple(losses), measures, says)


# ------------------------------------------------------------------------------------------------------------ explorers


@cache
def recorded() -> dict[str, list[dict[str, Any]]]:
    """Return what benchmarks/clinics.py measured: patients of both clinics, a sweep of rates, and many seeds."""
    return json.loads((FOLDER / "clinics.json").read_text("utf-8"))


def as_record(patient: Patient) -> dict[str, Any]:
    """Return a patient as JSON keeps it, numbers in six digits."""
    found = asdict(patient)
    found["losses"] = [float(f"{value:.6g}") for value in patient.losses]
    found["measures"] = {name: float(f"{value:.6g}") for name, value in patient.measures.items()}
    return found


def patients(clinic: str) -> list[Patient]:
    """Return the recorded patients of a clinic, "masks" or "references".

    >>> len(patients("references")) == 3 * len(REFERENCE_FAULTS)
    True
    """
    return [
        Patient(row["fault"], row["seed"], tuple(row["losses"]), row["measures"], row["says"])
        for row in recorded()[clinic]
    ]


def clinic_explorer(title: str, found: Sequence[Patient], letters: Mapping[str, str], y_label: str) -> Explorer:
    """Pick a patient by letter and a seed: its loss curve, its measures and what it says; the fault isn't named.

    >>> healthy = Patient("right", 0, (2.0, 1.0), {"kept": 1.0, "moved": 0.5}, "copy a → a")
    >>> explorer = clinic_explorer("Clinic", [healthy], {"right": "A"}, "nats")
    >>> explorer.frame(0, 0)["readouts"][0]
    ('patient', 'A')
    """
    by_place = {(one.fault, one.seed): one for one in found}
    faults, seeds = sorted(letters, key=letters.__getitem__), sorted({one.seed for one in found})
    top = max(max(one.losses) for one in found)
    high = max(max(one.measures.values()) for one in found)
    low = min(0.0, *(min(one.measures.values()) for one in found))

    def frame(letter: float, seed: float) -> Frame:
        one = by_place[faults[int(letter)], int(seed)]
        name = letters[one.fault]
        tail = sum(one.losses[-8:]) / len(one.losses[-8:])
        curve = Panel(
            "lines", "The loss that the log shows", tuple(range(len(one.losses))), (Line("loss", one.losses),), "step",
            y_label, f"Patient {name}, seed {one.seed}: the loss goes from {one.losses[0]:.3f} to {tail:.3f}.",
            low=0.0, high=top,
        )  # fmt: skip
        words = "; ".join(f"{key} {value:.3g}" for key, value in one.measures.items())
        bars = Panel(
            "bars", "What is measured afterwards", tuple(one.measures), (Line("value", tuple(one.measures.values())),),
            "", "share or nats", f"{words}.", low=low, high=high,
        )  # fmt: skip
        readouts = (("patient", name), ("first loss", f"{one.losses[0]:.4f}"), ("last losses, mean", f"{tail:.4f}"),
                    *((key, f"{value:.3g}") for key, value in one.measures.items()), ("it says", one.says))  # fmt: skip
        return Frame((curve, bars), readouts)

    named = Slider("patient", tuple(range(len(faults))), tuple(letters[fault] for fault in faults), 0)
    return Explorer(title, [named, slider("seed", seeds, start=0)], frame)


MASK_LETTERS = {
    "one early": "A",
    "padding trained": "B",
    "right": "C",
    "inverted": "D",
    "one late": "E",
    "EOS masked": "F",
}
REFERENCE_LETTERS = {"refreshed": "A", "other template": "B", "alias": "C", "right": "D", "dropout in both": "E"}


def mask_clinic() -> Explorer:
    """Return the clinic of loss masks: six patients, three seeds; who has which of `MASK_FAULTS`?

    >>> mask_clinic().frame(2, 0)["readouts"][0]
    ('patient', 'C')
    """
    return clinic_explorer("Clinic of masks", patients("masks"), MASK_LETTERS, "loss, nats per target")


def reference_clinic() -> Explorer:
    """Return the clinic of references: five patients, three seeds; who has which of `REFERENCE_FAULTS`?

    >>> reference_clinic().frame(2, 0)["readouts"][1]
    ('first loss', '0.6931')
    """
    return clinic_explorer("Clinic of references", patients("references"), REFERENCE_LETTERS, "DPO loss, nats per pair")


__all__ = [
    "KINDS", "MASK_FAULTS", "MASK_LETTERS", "REFERENCE_FAULTS", "REFERENCE_LETTERS", "Dropout", "Patient", "as_record",
    "clinic_explorer", "loss_by_kind", "mask_clinic", "one_early", "one_late", "patients", "recorded",
    "reference_clinic", "reference_for", "sides", "thankful_pairs", "treat_mask", "treat_reference", "with_dropout",
    "written",
]  # fmt: skip
