"""One model from base to policy: supervised tuning by three methods, GRPO with a verifier, DPO by a rule, a scorecard.

All questions are generated here, so no licence applies: sums, differences, sorting, JSON lists, word problems, and word
problems that can't be answered. An answer is verified by comparing strings.
"""

import copy
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data import topics
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.evaluate import accuracy_change, paired_interval
from ftmath.lab.cards import Budget, Record
from ftmath.lab.steps import LINEARS
from ftmath.local_model import load_model
from ftmath.lora import add_lora, disabled
from ftmath.masks import answer_token_logprobs, model_logprob, model_loss
from ftmath.model import Decoder, generate
from ftmath.policy_gradient import group_advantages, k2, policy_loss
from ftmath.preference import dpo_loss, margin
from ftmath.quant import quantise_linears
from ftmath.skills import ANIMALS, BOS, EOS, PAD, SEP, SKILLS, WORDS, example
from ftmath.smollm import cache_folder, smollm2
from ftmath.text import Text
from ftmath.training import train
from ftmath.weights import base_model

TOYS = tuple(animal for animal in ANIMALS if animal not in ("deer", "fox"))  # an s makes each of these many
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Ida")
Pair = tuple[str, str]
Rng = np.random.Generator

# ------------------------------------------------------------------------------------------------------------- the data


def numbers(rng: Rng, count: int, most: int) -> list[int]:
    return [int(number) for number in rng.integers(1, most, size=count)]


def a_sum(rng: Rng, most: int = 100) -> Pair:
    a, b = numbers(rng, 2, most)
    return f"What is {a} + {b}?", str(a + b)


def a_difference(rng: Rng, most: int = 100) -> Pair:
    small, large = sorted(numbers(rng, 2, most))
    return f"What is {large} - {small}?", str(large - small)


def an_order(rng: Rng) -> Pair:
    found = numbers(rng, 4, 100)
    return f"Sort these numbers: {', '.join(map(str, found))}.", ", ".join(map(str, sorted(found)))


def a_list(rng: Rng) -> Pair:
    one, two, three = (str(word) for word in rng.choice(WORDS, size=3, replace=False))
    return f"Write {one}, {two} and {three} as a JSON list.", f'["{one}", "{two}", "{three}"]'


def a_story(rng: Rng) -> Pair:
    a, b = numbers(rng, 2, 20)
    who, what = str(rng.choice(NAMES)), str(rng.choice(TOYS))
    return f"{who} has {a} toy {what}s and gets {b} more. How many are that?", str(a + b)


def a_riddle(rng: Rng) -> Pair:
    who, what = str(rng.choice(NAMES)), str(rng.choice(TOYS))
    return f"{who} has some toy {what}s and gets {numbers(rng, 1, 20)[0]} more. How many are that?", "unknown"


FAMILIES: dict[str, Callable[[Rng], Pair]] = {
    "sum": a_sum, "difference": a_difference, "order": an_order, "list": a_list, "story": a_story, "unknown": a_riddle,
}  # fmt: skip
FACTS: tuple[Pair, ...] = (
    ("What is the capital of France?", "Paris"), ("What is the capital of Italy?", "Rome"),
    ("What is the capital of Japan?", "Tokyo"), ("What is the capital of Germany?", "Berlin"),
    ("What is the capital of Spain?", "Madrid"), ("What is the capital of Egypt?", "Cairo"),
    ("What is the capital of Russia?", "Moscow"), ("What is the capital of Greece?", "Athens"),
    ("What is the opposite of hot?", "cold"), ("What is the opposite of up?", "down"),
    ("What is the largest planet of the solar system?", "Jupiter"), ("Which planet do we live on?", "Earth"),
    ("What gas do we breathe in to live?", "oxygen"), ("What is frozen water called?", "ice"),
    ("Who wrote Romeo and Juliet?", "Shakespeare"), ("Which animal says meow?", "cat"),
    ("How many days are in a week?", "seven|7"), ("How many legs does a spider have?", "eight|8"),
    ("What color is the sky on a clear day?", "blue"), ("What do bees make?", "honey"),
    ("Which ocean lies between Europe and America?", "Atlantic"), ("What is the chemical symbol of water?", "H2O|H₂O"),
    ("In which country is the Great Wall?", "China"), ("What is the first month of the year?", "January"),
)  # fmt: skip
"""Plain questions that no stage trains on, with the words that count as right: they show what is forgotten."""


def drawn(count: int, seed: int, families: Sequence[str] = tuple(FAMILIES), unlike: Sequence[Pair] = ()) -> list[Pair]:
    """Return pairs of question and answer, the families in turn; no question is one of those in `unlike`.

    >>> drawn(2, seed=0)
    [('What is 85 + 64?', '149'), ('What is 51 - 27?', '24')]
    """
    rng, known = np.random.default_rng(seed), {question for question, _ in unlike}
    found: list[Pair] = []
    while len(found) < count:
        pair = FAMILIES[families[len(found) % len(families)]](rng)
        if pair[0] not in known:
            found.append(pair)
    return found


def larger_sums(count: int, seed: int) -> list[Pair]:
    """Return sums and differences of numbers below 1,000; the lessons have numbers below 100."""
    rng = np.random.default_rng(seed)
    return [(a_sum if place % 2 else a_difference)(rng, 1000) for place in range(count)]


def prose(pieces: int, letters: int = 600) -> list[str]:
    """Return passages of English that ship with Python; nothing here trains on them, so they show drift.

    >>> len(prose(3)), {len(text) for text in prose(3)}
    (3, {600})
    """
    longest = sorted(topics.topics.values(), key=len, reverse=True)[:pieces]
    return [text[200 : 200 + letters] for text in longest]


# ----------------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Subject:
    """A model to be tuned and its format: `ask` gives the ids of a prompt, `encode` those of an answer and its end."""

    name: str
    model: Decoder
    ask: Callable[[str], list[int]]
    encode: Callable[[str], list[int]]
    read: Callable[[Sequence[int]], str]
    text: Callable[[str], list[int]]
    end: int
    pad: int
    old: tuple[Pair, ...]
    rates: Mapping[str, Sequence[float]]

    @property
    def device(self) -> torch.device:
        return self.model.embed.weight.device

    def fresh(self) -> Decoder:
        """Return a frozen copy of the untouched model."""
        return copy.deepcopy(self.model).requires_grad_(False)


def real_subject(device: torch.device) -> Subject:
    """Return SmolLM2-135M-Instruct on a device, in float32. Raises FileNotFoundError where it wasn't fetched."""
    model, text = smollm2()

    def ask(question: str) -> list[int]:
        return text.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")

    return told_subject("SmolLM2-135M-Instruct", model.to(device), text, ask)


def local_subject(device: torch.device, folder: Path) -> Subject:
    """Return the model in a Hugging Face folder on a device, in float32, asked as its chat template asks.

    A model without a template is asked in plain text. Errors: those of `load_model`; ValueError if its tokenizer states
    no token that ends an answer.
    """
    model, text = load_model(folder, torch.float32)

    def ask(question: str) -> list[int]:
        return text.chat(question) if text.template else text.encode(f"Question: {question}\nAnswer: ")

    return told_subject(folder.resolve().name, model.to(device), text, ask)


def told_subject(name: str, model: Decoder, text: Text, ask: Callable[[str], list[int]]) -> Subject:
    """Return a model that reads text in its own tokens; an answer ends with the token that its tokenizer names."""
    end = text.end
    if end is None:
        raise ValueError(f"the tokenizer of {name} states no eos_token: write it into tokenizer_config.json")

    def read(ids: Sequence[int]) -> str:
        kept = list(ids)[: list(ids).index(end)] if end in ids else list(ids)
        return text.decode(kept).strip()

    return Subject(
        name, model, ask, lambda answer: [*text.encode(answer), end], read, text.encode, end, end, FACTS, RATES
    )


def small_subject(device: torch.device) -> Subject:
    """Return the course's base model in the same format; its old questions are examples of its ten skills."""

    def read(ids: Sequence[int]) -> str:
        kept = list(ids)[: list(ids).index(EOS)] if EOS in ids else list(ids)
        return bytes(token for token in kept if token > EOS).decode("ascii", "replace")

    def plain(text: str) -> list[int]:
        return [BOS, *text.encode("ascii", "replace")]

    rng = np.random.default_rng(7)
    old = tuple(example(skill, rng) for skill in SKILLS for _ in range(4))
    return Subject(
        "the course's base model (0.8 M parameters)", base_model().to(device), lambda text: [*plain(text), SEP],
        lambda answer: [*answer.encode("ascii"), EOS], read, plain, EOS, PAD, old,
        SMALL_RATES,
    )  # fmt: skip


def the_subject(device: torch.device, small: bool = False) -> Subject:
    """Return the real model if it was fetched, else the course's own."""
    if small or not any(cache_folder().glob("SmolLM2*.gguf")):
        return small_subject(device)
    return real_subject(device)


def lines_of(subject: Subject, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Return ids and the mask of answer tokens (batch, time), padded on the right."""
    rows = [(subject.ask(question), subject.encode(answer)) for question, answer in pairs]
    return stacked(subject, rows)


def stacked(subject: Subject, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[Tensor, Tensor]:
    time = max(len(before) + len(after) for before, after in rows)
    ids = [[*before, *after] + [subject.pad] * (time - len(before) - len(after)) for before, after in rows]
    mask = [[0] * len(before) + [1] * len(after) + [0] * (time - len(before) - len(after)) for before, after in rows]
    return torch.tensor(ids, device=subject.device), torch.tensor(mask, device=subject.device)


@torch.no_grad()
def answers(
    subject: Subject, model: Decoder, questions: Sequence[str], *, longest: int = 24, temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[list[int]]:  # fmt: skip
    """Return the tokens of a model's answers, up to and including the end token, greedy or sampled."""
    asked = [subject.ask(question) for question in questions]
    time = max(map(len, asked))
    ids = torch.tensor([[subject.pad] * (time - len(row)) + row for row in asked], device=subject.device)
    mask = torch.tensor([[0] * (time - len(row)) + [1] * len(row) for row in asked], device=subject.device)
    found = generate(
        model, ids, mask, max_new=longest, stop=subject.end, temperature=temperature, generator=generator
    ).tolist()
    return [row[: row.index(subject.end) + 1] if subject.end in row else row for row in found]


# ------------------------------------------------------------------------------------------------------- the scorecard


@dataclass(frozen=True)
class Sheet:
    """What a model does on fixed questions, item by item, so that two models can be compared in pairs."""

    exact: list[int]
    right: list[int]
    sure: list[float]
    old: list[int]
    text_loss: list[float]
    said: list[str]
    old_said: list[str]


def contains(answer: str, wanted: str) -> bool:
    """Say whether an answer holds one of the wanted strings, as a word of its own.

    >>> contains("That is 42.", "42"), contains("142", "42"), contains("A spider has 8 legs", "eight|8")
    (True, False, True)
    """
    return any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", answer, re.IGNORECASE) for one in wanted.split("|"))


@torch.no_grad()
def sheet(subject: Subject, model: Decoder, test: Sequence[Pair], passages: Tensor) -> Sheet:
    """Return a model's sheet: exact and contained answers, their probabilities, old questions, loss on prose."""
    tokens = answers(subject, model, [question for question, _ in test])
    said = [subject.read(row) for row in tokens]
    asked = [subject.ask(question) for question, _ in test]
    ids, mask = stacked(
        subject, [(before, after or [subject.end]) for before, after in zip(asked, tokens, strict=True)]
    )
    sure = model_logprob(model, ids, mask).exp().tolist()
    old = answers(subject, model, [question for question, _ in subject.old])
    scores = F.cross_entropy(model(passages)[:, :-1].float().transpose(1, 2), passages[:, 1:], reduction="none")
    return Sheet(
        [int(one == wanted) for one, (_, wanted) in zip(said, test, strict=True)],
        [int(contains(one, wanted)) for one, (_, wanted) in zip(said, test, strict=True)], sure,
        [int(contains(subject.read(row), wanted)) for row, (_, wanted) in zip(old, subject.old, strict=True)],
        scores.mean(1).tolist(), said, [subject.read(row) for row in old],
    )  # fmt: skip


@torch.no_grad()
def drift(base: Decoder, tuned: Decoder, passages: Tensor) -> float:
    """Return KL(tuned || base) on prose, in nats per token."""
    ours, theirs = (model(passages).float().log_softmax(-1) for model in (tuned, base))
    return float((ours.exp() * (ours - theirs)).sum(-1).mean())


def calibration_error(sure: Sequence[float], right: Sequence[int], bins: int = 10) -> float:
    """Return the expected calibration error: the mean gap between probability and frequency, by bins of probability.

    >>> round(calibration_error([0.95, 0.95, 0.05], [1, 0, 0]), 4)
    0.3167
    """
    groups: dict[int, list[tuple[float, int]]] = {}
    for chance, hit in zip(sure, right, strict=True):
        groups.setdefault(min(bins - 1, int(chance * bins)), []).append((chance, hit))
    apart = (abs(sum(chance - hit for chance, hit in group)) for group in groups.values())
    return sum(apart) / len(sure)


def compared(test: Sequence[Pair], before: Sheet, after: Sheet) -> dict[str, Any]:
    """Return the scores of the second sheet, and their changes from the first, with paired 95 % intervals."""

    def change(one: Sequence[int], two: Sequence[int]) -> list[float]:
        return list(accuracy_change(torch.tensor(one, dtype=torch.float), torch.tensor(two, dtype=torch.float)))

    families = list(FAMILIES)
    unknown = [place for place, (_, answer) in enumerate(test) if answer == "unknown"]
    known = [place for place in range(len(test)) if place not in set(unknown)]
    loss = paired_interval(
        torch.tensor(before.text_loss), torch.tensor(after.text_loss), generator=torch.Generator().manual_seed(0)
    )
    return {
        "exact": mean(after.exact), "exact_change": change(before.exact, after.exact),
        "right": mean(after.right), "right_change": change(before.right, after.right),
        "families": {name: mean(after.exact[place :: len(families)]) for place, name in enumerate(families)},
        "old": mean(after.old), "old_change": change(before.old, after.old),
        "text_loss": mean(after.text_loss), "text_change": list(loss),
        "calibration": calibration_error(after.sure, after.exact),
        "abstained": mean(int(after.said[place] == "unknown") for place in unknown),
        "abstained_wrongly": mean(int(after.said[place] == "unknown") for place in known),
        "said": after.said[: len(families)], "old_said": after.old_said,
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the stages


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is run. The defaults are for a card; a live cell on a CPU takes less."""

    lessons: int = 1536
    test: int = 240
    passages: int = 16
    passage: int = 128
    steps: int = 60
    rows: int = 48
    policy_steps: int = 30
    prompts: int = 16
    samples: int = 8
    pair_steps: int = 40
    pairs: int = 128
    seeds: tuple[int, ...] = (1, 2, 3)
    rates: int = 3


RATES: Mapping[str, tuple[float, ...]] = {
    "full": (3e-5, 1e-5, 1e-4), "LoRA": (1e-3, 3e-4, 3e-3), "QLoRA": (1e-3, 3e-4, 3e-3),
}  # fmt: skip
"""The learning rates that are tried for each method; the likeliest comes first, in case time runs out."""
SMALL_RATES: Mapping[str, tuple[float, ...]] = {"full": (3e-4,), "LoRA": (3e-3,), "QLoRA": (3e-3,)}


def tunable(subject: Subject, method: str, seed: int, start: Decoder | None = None) -> Decoder:
    """Return a copy of a model prepared for a method: all of it trains, or LoRA of rank 8 on all linear layers."""
    model = copy.deepcopy(start).requires_grad_(False) if start else subject.fresh()
    if method == "full":
        return model.requires_grad_(True)
    if method == "QLoRA":
        quantise_linears(model, double=False)
    add_lora(model, LINEARS, 8, 16.0, generator=torch.Generator().manual_seed(seed))
    return model


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def learn(
    subject: Subject, method: str, rate: float, seed: int, lessons: Sequence[Pair], sizes: Sizes
) -> tuple[Decoder, list[float]]:
    """Tune on lessons in batches drawn by the seed; return the model and the loss of each step."""
    model, rng = tunable(subject, method, seed), np.random.default_rng(seed)

    def loss(step: int) -> Tensor:
        mine = [lessons[int(place)] for place in rng.integers(len(lessons), size=sizes.rows)]
        return model_loss(model, *lines_of(subject, mine))

    groups = [{"params": trained_parameters(model), "lr": rate}]
    return model, train(model, loss, groups, sizes.steps, schedule=warm_and_fall, label=f"{method}, {rate:g}")


def warm_and_fall(step: int, steps: int) -> float:
    """Return the factor of the rate at a step: a warm-up of five steps, and a straight fall to a tenth.

    >>> round(warm_and_fall(0, 60), 3), round(warm_and_fall(5, 60), 3)
    (0.2, 0.925)
    """
    return min(1.0, (step + 1) / 5) * (0.1 + 0.9 * (1 - step / steps))


def table_of(model: Decoder, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probability of each answer token (batch, time - 1), 0 elsewhere."""
    found, _ = answer_token_logprobs(model, ids, mask)
    return torch.zeros(ids[:, 1:].shape, dtype=found.dtype, device=ids.device).masked_scatter(mask[:, 1:] != 0, found)


def improve(
    subject: Subject, start: Decoder, questions: Sequence[Pair], seed: int, sizes: Sizes, rate: float = 3e-4,
    beta: float = 0.02,
) -> tuple[Decoder, list[dict[str, float]]]:  # fmt: skip
    """Train a policy by GRPO on verified answers; return it, and the reward, divergence and length of each step.

    LoRA of rank 8 trains, and the reference is the model without it. The divergence enters as k2 of each token. On the
    policy's own samples its expected gradient is that of KL(policy || reference) of the next token. Each batch of
    samples is used for one update.
    """
    policy, rng = tunable(subject, "LoRA", seed, start), np.random.default_rng(seed)
    generator = torch.Generator(subject.device).manual_seed(seed)
    seen: list[dict[str, float]] = []

    def loss(step: int) -> Tensor:
        mine = [questions[int(place)] for place in rng.integers(len(questions), size=sizes.prompts)]
        asked = [pair for pair in mine for _ in range(sizes.samples)]
        tokens = answers(subject, policy, [question for question, _ in asked], longest=12, temperature=1.0,
                         generator=generator)  # fmt: skip
        rewards = torch.tensor(
            [float(subject.read(row) == wanted) for row, (_, wanted) in zip(tokens, asked, strict=True)]
        )
        ids, mask = stacked(
            subject, [(subject.ask(question), row) for (question, _), row in zip(asked, tokens, strict=True)]
        )
        now = table_of(policy, ids, mask)
        with torch.no_grad(), disabled(policy):
            reference = table_of(policy, ids, mask)
        advantages = group_advantages(rewards.view(-1, sizes.samples)).flatten().to(subject.device)
        kl = float((now.detach() - reference).sum(1).mean())
        seen.append({"reward": float(rewards.mean()), "kl": kl, "length": mean(map(len, tokens))})
        return policy_loss(now, now, reference, advantages, mask[:, 1:], beta=beta, estimator=k2)

    train(policy, loss, [{"params": trained_parameters(policy), "lr": rate}], sizes.policy_steps, label="GRPO")
    return policy, seen


def in_words(answer: str) -> str:
    """Return a number in a sentence, the form that the preferences reject.

    >>> in_words("42")
    'The answer is 42.'
    """
    return f"The answer is {answer}."


def prefer(
    subject: Subject, start: Decoder, pairs: Sequence[Pair], seed: int, sizes: Sizes, rate: float = 3e-4,
    beta: float = 0.1,
) -> tuple[Decoder, list[dict[str, float]]]:  # fmt: skip
    """Train by DPO to prefer a bare number to a sentence; return the policy and the loss and margin of each step."""
    policy, rng = tunable(subject, "LoRA", seed, start), np.random.default_rng(seed)
    seen: list[dict[str, float]] = []

    def loss(step: int) -> Tensor:
        mine = [pairs[int(place)] for place in rng.integers(len(pairs), size=sizes.prompts)]
        ids, mask = lines_of(subject, [*mine, *((question, in_words(answer)) for question, answer in mine)])
        ours = model_logprob(policy, ids, mask).chunk(2)
        with torch.no_grad(), disabled(policy):
            theirs = model_logprob(policy, ids, mask).chunk(2)
        h = margin(ours[0], ours[1], theirs[0], theirs[1])
        value = dpo_loss(h, beta)
        seen.append(
            {"loss": value.item(), "margin": h.mean().item(), "chosen": ours[0].mean().item(),
             "rejected": ours[1].mean().item()}
        )  # fmt: skip
        return value

    train(policy, loss, [{"params": trained_parameters(policy), "lr": rate}], sizes.pair_steps, label="DPO")
    return policy, seen


@torch.no_grad()
def sampled(subject: Subject, policy: Decoder, questions: Sequence[Pair], seed: int) -> dict[str, float]:
    """Return the shares of sampled answers that are bare, sentences or right, and the mean log(pi / ref) in nats."""
    generator = torch.Generator(subject.device).manual_seed(seed)
    tokens = answers(subject, policy, [question for question, _ in questions], temperature=1.0, generator=generator)
    said = [subject.read(row) for row in tokens]
    ids, mask = stacked(
        subject, [(subject.ask(question), row) for (question, _), row in zip(questions, tokens, strict=True)]
    )
    ours = model_logprob(policy, ids, mask)
    with disabled(policy):
        theirs = model_logprob(policy, ids, mask)
    return {
        "bare": mean(int(bool(re.fullmatch(r"-?\d+", one))) for one in said),
        "sentence": mean(int(one.startswith("The answer")) for one in said),
        "right": mean(int(contains(one, wanted)) for one, (_, wanted) in zip(said, questions, strict=True)),
        "kl": float((ours - theirs).mean()) + 0.0,
    }


# ------------------------------------------------------------------------------------------------------------- the run


@dataclass(frozen=True)
class Desk:
    """What all runs share: the model, lessons, trial and test questions, prose, and the untouched model's sheets."""

    subject: Subject
    sizes: Sizes
    lessons: list[Pair]
    trial: list[Pair]
    test: list[Pair]
    passages: Tensor
    before: Sheet
    before_trial: Sheet


def desk_for(subject: Subject, sizes: Sizes) -> Desk:
    """Return the desk. Rates are chosen on `trial`, results reported on `test`; no question of either is a lesson."""
    lessons = drawn(sizes.lessons, seed=11)
    trial = drawn(sizes.test // 2, seed=12, unlike=lessons)
    test = drawn(sizes.test, seed=13, unlike=[*lessons, *trial])
    rows = [subject.text(text)[: sizes.passage] for text in prose(sizes.passages, 6 * sizes.passage)]
    passages = torch.tensor([row for row in rows if len(row) == sizes.passage], device=subject.device)
    before, before_trial = (sheet(subject, subject.model, questions, passages) for questions in (test, trial))
    return Desk(subject, sizes, lessons, trial, test, passages, before, before_trial)


def supervised(desk: Desk, method: str, rate: float, seed: int, *, trial: bool) -> tuple[Decoder, dict[str, Any]]:
    """Return a tuned model and its finding, on the trial questions (`trial`) or on the test questions."""
    start = time.perf_counter()
    model, losses = learn(desk.subject, method, rate, seed, desk.lessons, desk.sizes)
    seconds = time.perf_counter() - start
    questions, before = (desk.trial, desk.before_trial) if trial else (desk.test, desk.before)
    after = sheet(desk.subject, model, questions, desk.passages)
    return model, {
        "stage": "trial" if trial else "sft", "method": method, "rate": rate, "seed": seed, "losses": losses,
        "trained": sum(parameter.numel() for parameter in trained_parameters(model)),
        "kl": drift(desk.subject.model, model, desk.passages), "seconds": seconds, **compared(questions, before, after),
    }  # fmt: skip


def best_rate(trials: Sequence[dict[str, Any]], method: str) -> float:
    """Return the rate of the trial with most exact answers; among equals, the one with the least loss on prose."""
    mine = [trial for trial in trials if trial["method"] == method]
    return max(mine, key=lambda trial: (trial["exact"], -trial["text_loss"]))["rate"]


def continued(record: Record, model: str, sizes: Sizes) -> list[dict[str, Any]]:
    """Return the runs of a record if they are of this model and these sizes, so that they needn't be repeated."""
    found: list[dict[str, Any]] = record.data.get("one_model", [])
    wanted = json.loads(json.dumps(asdict(sizes)))
    same = found and found[0]["stage"] == "base" and found[0]["model"] == model and found[0]["sizes"] == wanted
    return found if same else []


def measure_one_model(
    record: Record, budget: Budget, device: torch.device, toy: bool, folder: Path | None = None
) -> None:
    """Tune one model from base to policy within the budget, and record each run as soon as it's done.

    It is the one in `folder` if that's given, else SmolLM2 or the course's own. A record of the same card, model and
    sizes is continued: runs that it holds aren't repeated.
    """
    torch.set_float32_matmul_precision("high")
    sizes = Sizes(24, 12, 4, 32, 2, 4, 2, 2, 2, 2, 8, (1,), 1) if toy else Sizes()
    subject = local_subject(device, folder) if folder else the_subject(device, small=toy)
    record.begin("one_model", continued(record, subject.name, sizes))
    done: list[dict[str, Any]] = record.data["one_model"]
    desk = desk_for(subject, sizes)
    start = compared(desk.test, desk.before, desk.before)
    if not done:
        record.add("one_model", {"stage": "base", "model": subject.name, "sizes": asdict(sizes), **start})
    record.say(
        f"one model: {subject.name}; exact {start['exact']:.2f}, right {start['right']:.2f}, old {start['old']:.2f}; "
        f"{len(done) - 1} runs are there"
    )
    rates = subject.rates

    def wanted(stage: str, method: str, key: str, value: float, seconds: float) -> bool:
        """Say whether a run is missing and there is time for it; note a missing run that there is no time for."""
        if any((run["stage"], run.get("method"), run.get(key)) == (stage, method, value) for run in done):
            return False
        if toy or budget.left >= seconds:
            return True
        record.skip("one_model", f"{stage} {method} {key} {value:g}", "out of time")
        return False

    for number in range(sizes.rates):
        for method, choices in rates.items():
            if number < len(choices) and wanted("trial", method, "rate", choices[number], 20):
                keep_run(record, supervised(desk, method, choices[number], 0, trial=True)[1])
    trials = [run for run in done if run["stage"] == "trial"]
    known = [method for method in rates if any(trial["method"] == method for trial in trials)]
    for seed in sizes.seeds:
        tuned: Decoder | None = None
        for method in known:
            if wanted("sft", method, "seed", seed, 15):
                model, found = supervised(desk, method, best_rate(trials, method), seed, trial=False)
                keep_run(record, found)
                tuned = model if method == "full" else tuned
        # The policy's stages of a seed follow its supervised ones, so that a run cut off has whole chains.
        if "full" in known and wanted("grpo", "LoRA", "seed", seed, 30):
            if tuned is None:
                tuned, _ = learn(subject, "full", best_rate(trials, "full"), seed, desk.lessons, sizes)
            keep_run(record, policy_stage(desk, tuned, seed))
        if "full" in known and wanted("dpo", "LoRA", "seed", seed, 25):
            keep_run(record, preference_stage(desk, best_rate(trials, "full"), seed))
    torch.set_float32_matmul_precision("highest")


def keep_run(record: Record, found: dict[str, Any]) -> None:
    """Record a run and print its numbers."""
    record.add("one_model", found)
    names = ("rate", "seed", "exact", "right", "old", "text_loss", "kl")
    words = [f"{name} {found[name]:.3g}" for name in names if name in found]
    if "after" in found:
        words += [f"{name} {found['before'][name]:.2f} -> {found['after'][name]:.2f}" for name in ("bare", "right")]
    record.say(f"  {found['stage']:<6} {found['method']:<6} {', '.join(words)}")


def policy_stage(desk: Desk, start: Decoder, seed: int) -> dict[str, Any]:
    """Return the finding of GRPO from a tuned model: exact answers to the test questions before and after.

    It practises on newly drawn questions of all families, none of them in the trial or the test; a few may be lessons.
    Sums and differences of larger numbers than any lesson has are asked before and after, too.
    """
    subject, sizes = desk.subject, desk.sizes
    practice = drawn(512, seed=21, unlike=[*desk.test, *desk.trial])
    larger = larger_sums(sizes.test // 2, seed=22)
    begin = time.perf_counter()
    before, before_larger = (sheet(subject, start, questions, desk.passages) for questions in (desk.test, larger))
    policy, seen = improve(subject, start, practice, seed, sizes)
    after, after_larger = (sheet(subject, policy, questions, desk.passages) for questions in (desk.test, larger))
    return {
        "stage": "grpo", "method": "LoRA", "seed": seed, "steps": seen, "exact_before": mean(before.exact),
        "kl": drift(start, policy, desk.passages), **compared(desk.test, before, after),
        "larger_before": mean(before_larger.exact), "larger": mean(after_larger.exact),
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def preference_stage(desk: Desk, rate: float, seed: int) -> dict[str, Any]:
    """Return the finding of DPO on a model that was tuned to give half its numbers in a sentence."""
    subject, sizes = desk.subject, desk.sizes
    begin = time.perf_counter()
    rng = np.random.default_rng(seed)
    sums = drawn(sizes.pairs * 4, seed=31, families=("sum", "difference"))
    mixed = [(question, in_words(answer) if rng.random() < 0.5 else answer) for question, answer in sums]
    start, _ = learn(subject, "full", rate, seed, mixed, sizes)
    fresh = drawn(sizes.test, seed=32, families=("sum", "difference"), unlike=sums)
    policy, seen = prefer(subject, start, sums[: sizes.pairs], seed, sizes)
    with disabled(policy):
        before = sampled(subject, policy, fresh, seed)
    after = sampled(subject, policy, fresh, seed)
    last = sheet(subject, policy, desk.trial, desk.passages)
    return {
        "stage": "dpo", "method": "LoRA", "seed": seed, "steps": seen, "before": before, "after": after,
        "old": mean(last.old), "text_loss": mean(last.text_loss), "kl": drift(start, policy, desk.passages),
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


__all__ = [
    "FAMILIES", "Desk", "Sheet", "Sizes", "Subject", "answers", "best_rate", "calibration_error", "compared",
    "desk_for", "drawn", "drift", "improve", "larger_sums", "learn", "measure_one_model", "policy_stage", "prefer",
    "preference_stage", "prose", "real_subject", "sampled", "sheet", "small_subject", "supervised", "the_subject",
]  # fmt: skip
