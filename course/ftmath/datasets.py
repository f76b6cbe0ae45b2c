"""Short runs that ask what the training data decides: learned turns, rehearsed lines, wrong letters."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ftmath.chats import answer_turns, assistant_mask, chat, completion_mask
from ftmath.groups import rate_groups
from ftmath.masks import model_loss
from ftmath.model import Decoder, generate
from ftmath.skills import (
    BOS,
    EOS,
    SEP,
    SKILLS,
    Batch,
    Rng,
    accuracy,
    batch,
    decode,
    distinct,
    example,
    letters,
    padded,
    probes,
    retention,
    spoilt,
)  # fmt: skip
from ftmath.training import train
from ftmath.weights import base_model

MASKS = {"assistant": assistant_mask, "completion": completion_mask}
Pairs = list[tuple[str, str]]


def tuned(draw: Callable[[], Batch], steps: int, rate: float) -> Decoder:
    """Return the base model after so many steps of AdamW on the batches that `draw` gives."""
    model = base_model()

    def loss(_: int) -> torch.Tensor:
        rows = draw()
        return model_loss(model, rows.ids, rows.answer_mask)

    train(model, loss, rate_groups(model, {}, rate), steps)
    return model


def flip_chat(turns: int, rng: Rng) -> tuple[list[int], list[str]]:
    """Return a chat that asks for `flip` several times: its tokens and who wrote each.

    >>> ids, roles = flip_chat(2, np.random.default_rng(0))
    >>> ids.count(EOS), roles.count("")
    (2, 1)
    """
    words = [letters(rng) for _ in range(turns)]
    said = ((("user", f"flip {word}"), ("assistant", word[::-1])) for word in words)
    return chat([turn for pair in said for turn in pair])


def chat_probes(turns: int, turn: int, count: int = 64, seed: int = 2024) -> Batch:
    """Return chats to measure by, of which only the answer of one turn (from 1) is a target.

    >>> rows = chat_probes(2, 2, count=3)
    >>> ((rows.ids == EOS) & (rows.answer_mask == 1)).sum(1).tolist()
    [1, 1, 1]
    """
    rng = np.random.default_rng(seed)
    chats = [flip_chat(turns, rng) for _ in range(count)]
    return padded([(ids, [int(k == turn) for k in answer_turns(assistant_mask(roles))]) for ids, roles in chats])


def chat_run(which: str, seed: int, *, rate: float, steps: int = 20, rows: int = 8) -> list[float]:
    """Tune on chats of two turns, learning every answer ("assistant") or the last one alone ("completion").

    Return the loss of the first and of the second answer of other chats, in nats per token.

    >>> len(chat_run("completion", 0, rate=1e-3, steps=1, rows=2))
    2
    """
    rng, mask_of = np.random.default_rng(seed), MASKS[which]

    def draw() -> Batch:
        return padded([(ids, mask_of(roles)) for ids, roles in (flip_chat(2, rng) for _ in range(rows))])

    model = tuned(draw, steps, rate)
    with torch.no_grad():
        asked = [chat_probes(2, turn) for turn in (1, 2)]
        return [round(float(model_loss(model, one.ids, one.answer_mask)), 4) for one in asked]


def turns_run(seed: int, *, rate: float = 1e-3, steps: int = 60, rows: int = 16) -> list[float]:
    """Tune on chats of two turns, learning both answers.

    Return the accuracy on single lines and on second turns.

    >>> len(turns_run(0, steps=1, rows=2))
    2
    """
    rng = np.random.default_rng(seed)

    def draw() -> Batch:
        return padded([(ids, assistant_mask(roles)) for ids, roles in (flip_chat(2, rng) for _ in range(rows))])

    model = tuned(draw, steps, rate)
    return [round(accuracy(model, chat_probes(turns, turns, count=96)), 4) for turns in (1, 2)]


def own_lines(model: Decoder, count: int, seed: int) -> Pairs:
    """Return the (prompt, answer) lines that a model writes from nothing but the token that opens a line.

    Every token is drawn from the model's own distribution. A line without a separator or an end is left out.

    >>> pairs = own_lines(base_model(), 8, seed=0)
    >>> len(pairs) > 4, all(prompt.split()[0] in SKILLS for prompt, _ in pairs)
    (True, True)
    """
    begin = torch.full((count, 1), BOS)
    generator = torch.Generator().manual_seed(seed)
    drawn = generate(model, begin, max_new=48, stop=EOS, temperature=1.0, generator=generator).tolist()
    halves = [(row[: row.index(SEP)], row[row.index(SEP) + 1 :]) for row in drawn if SEP in row and EOS in row]
    return [(decode(prompt), decode(answer)) for prompt, answer in halves if EOS in answer and EOS not in prompt]


def rehearsal_run(source: str, seed: int, *, rate: float = 1e-3, steps: int = 40, rows: int = 8) -> list[float]:
    """Tune on `flip` beside as many other lines in each batch: "none", the model's "own", or "old" lines of its skills.

    Return the accuracy on the task and the mean accuracy on the skills.

    >>> len(rehearsal_run("none", 0, steps=1, rows=2))
    2
    """
    rng = np.random.default_rng(seed)
    own = own_lines(base_model(), 256, seed) if source == "own" else []

    def other() -> tuple[str, str]:
        return own[int(rng.integers(len(own)))] if own else example(str(rng.choice(list(SKILLS))), rng)

    def draw() -> Batch:
        more = [other() for _ in range(rows if source != "none" else 0)]
        return batch([example("flip", rng) for _ in range(rows)] + more)

    return measured(tuned(draw, steps, rate))


def quality_run(wrong: float, examples: int, seed: int, *, rate: float = 3e-4, steps: int = 60) -> list[float]:
    """Tune on so many lines of `flip`, drawn once, in whose answers a share of the letters is replaced at random.

    Return the accuracy on right lines of the task and the mean accuracy on the skills.

    >>> len(quality_run(0.1, 4, 0, steps=1))
    2
    """
    rng = np.random.default_rng(seed)
    pairs = spoilt(distinct("flip", examples, rng), wrong, rng)
    return measured(tuned(lambda: batch([pairs[int(rng.integers(examples))] for _ in range(16)]), steps, rate))


def measured(model: nn.Module) -> list[float]:
    """Return the accuracy on the task and the mean accuracy on the skills."""
    kept = list(retention(model).values())
    return [round(accuracy(model, probes("flip", 128, 2024)), 4), round(sum(kept) / len(kept), 4)]


__all__ = ["chat_probes", "chat_run", "flip_chat", "own_lines", "quality_run", "rehearsal_run", "tuned", "turns_run"]
