"""Part 7's preferences: thanks for a polite request, and the correctly sorted word first."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ftmath.groups import rate_groups
from ftmath.masks import model_logprob, model_loss
from ftmath.model import Decoder
from ftmath.rounds import roll_out
from ftmath.skills import SKILLS, batch, example, spoilt
from ftmath.training import train
from ftmath.weights import base_model

THANKS = ", thanks!"


def polite_requests(count: int, seed: int) -> list[tuple[str, str]]:
    """Return requests (`please reverse abc`), each with its answer without thanks. Equal seeds give equal requests.

    >>> polite_requests(1, seed=0)
    [('please reverse nhibba', 'abbihn')]
    """
    rng = np.random.default_rng(seed)
    found = [example("please", rng) for _ in range(count)]
    return [(prompt, answer.removesuffix(THANKS)) for prompt, answer in found]


def polite_pairs(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Return pairs (prompt, chosen, rejected): the right answer with thanks, and the same answer without.

    >>> polite_pairs(1, seed=0)
    [('please reverse nhibba', 'abbihn, thanks!', 'abbihn')]
    """
    return [(prompt, answer + THANKS, answer) for prompt, answer in polite_requests(count, seed)]


def sorting_rankings(count: int, seed: int) -> list[tuple[str, list[str]]]:
    """Return rankings of two answers to `sort`: the right one first, then the same with its first two letters swapped.

    >>> sorting_rankings(1, seed=0)
    [('sort qnhibba', ['abbhinq', 'babhinq'])]
    """
    rng, found = np.random.default_rng(seed), list[tuple[str, list[str]]]()
    while len(found) < count:
        prompt, right = example("sort", rng)
        if right[0] != right[1]:
            found.append((prompt, [right, right[1] + right[0] + right[2:]]))
    return found


def polite_policy(
    seed: int = 0, *, steps: int = 80, rate: float = 3e-4, rows: int = 24, thanks: float = 0.3, typos: float = 0.0,
    device: torch.device | None = None,
) -> Decoder:  # fmt: skip
    """Return the base model after training on requests; it is the policy that preference tuning starts from.

    Two thirds of each step's rows are requests. Their answers end in thanks with probability `thanks`, and each letter
    of them is replaced by a random one with probability `typos`. The other rows are lines of the base skills.

    >>> model = polite_policy(steps=1, rows=3)
    >>> sum(parameter.requires_grad for parameter in model.parameters()) > 0
    True
    """
    model = base_model().to(device or torch.device("cpu"))
    rng, skills = np.random.default_rng(seed), list(SKILLS)

    def loss(step: int) -> Tensor:
        requests = polite_requests(2 * rows // 3, int(rng.integers(2**31)))
        if typos:
            requests = spoilt(requests, typos, rng)
        lines = [(prompt, answer + THANKS if rng.random() < thanks else answer) for prompt, answer in requests]
        old = [example(skills[int(rng.integers(len(skills)))], rng) for _ in range(rows - len(lines))]
        drawn = batch(lines + old).to(model.embed.weight.device)
        return model_loss(model, drawn.ids, drawn.answer_mask)

    train(model, loss, rate_groups(model, {}, rate), steps, label="manners")
    return model


@dataclass(frozen=True, slots=True)
class Manners:
    """Measurements of a policy's sampled answers to requests.

    Five fields are shares of the answers: `thanks` end in thanks, `right` are right with or without thanks, and `both`
    are right and end in thanks. `right` mixes two questions, so each has a field of its own: `letters` are right up to
    the first character that is no letter, and in `spelt` what follows is thanks to the letter, or nothing. `kl` is the
    mean of log(policy / reference), in nats per answer.
    """

    thanks: float
    right: float
    both: float
    kl: float
    letters: float
    spelt: float


@torch.no_grad()
def measure_manners(policy: Decoder, reference: Decoder, count: int = 128, seed: int = 5) -> Manners:
    """Sample one answer to each of `count` requests at temperature 1, and measure the answers' manners.

    >>> found = measure_manners(base_model(), base_model(), count=8)
    >>> found.thanks, found.kl
    (0.0, 0.0)
    """
    requests = polite_requests(count, seed)
    generator = torch.Generator(policy.embed.weight.device).manual_seed(seed)
    lines, said = roll_out(policy, [prompt for prompt, _ in requests], 1, generator=generator)
    ours, theirs = (model_logprob(model, lines.ids, lines.answer_mask) for model in (policy, reference))
    right = [answer for _, answer in requests]
    return Manners(
        sum(one.endswith(THANKS) for one in said) / count,
        sum(one.removesuffix(THANKS) == answer for one, answer in zip(said, right, strict=True)) / count,
        sum(one == answer + THANKS for one, answer in zip(said, right, strict=True)) / count,
        float((ours - theirs).mean()) + 0.0,
        sum(word_of(one) == answer for one, answer in zip(said, right, strict=True)) / count,
        sum(one[len(word_of(one)) :] in ("", THANKS) for one in said) / count,
    )


def word_of(answer: str) -> str:
    """Return an answer as far as its first character that is no letter.

    >>> word_of("cba, thanks!"), word_of(", thanks!")
    ('cba', '')
    """
    return (re.match("[A-Za-z]*", answer) or [""])[0]


def split_logprobs(model: Decoder, pairs: Sequence[tuple[str, str, str]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-probabilities of pairs in three pieces, in nats: the shared letters, and what follows them.

    Of a pair from `polite_pairs` the rejected answer is a prefix of the chosen one. The pieces (pairs,) are the letters
    of both, the chosen answer's thanks with its end, and the rejected answer's end. The letters have one value: what is
    read before them is the same.

    >>> shared, thanks, stop = split_logprobs(base_model(), polite_pairs(2, seed=0))
    >>> chosen, rejected = (shared + thanks, shared + stop)
    >>> bool((rejected > chosen).all())
    True
    """
    rows = [batch([(pair[0], pair[side]) for pair in pairs]).to(model.embed.weight.device) for side in (1, 2)]
    shared, tails = list[Tensor](), list[Tensor]()
    for side in rows:
        place = side.answer_mask.cumsum(1) * side.answer_mask
        letters = torch.tensor([len(pair[2]) for pair in pairs], device=place.device)[:, None]
        early = ((place >= 1) & (place <= letters)).to(side.answer_mask.dtype)
        shared.append(model_logprob(model, side.ids, early))
        tails.append(model_logprob(model, side.ids, side.answer_mask - early))
    return shared[0], tails[0], tails[1]


__all__ = [
    "Manners", "measure_manners", "polite_pairs", "polite_policy", "polite_requests", "sorting_rankings",
    "split_logprobs", "word_of",
]  # fmt: skip
