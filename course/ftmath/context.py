"""What can be had without changing a weight: a better prompt, solved examples before the question, notes looked up."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ftmath.skills import NEB, Batch, Rng, batch, encode, example, padded

BETTER = {"flip": "reverse"}
"""Tasks that are old skills under a new name: there a better prompt is all that is needed."""


class Notes:
    """A small set of texts, and the nearest of them to a question by the letters that they share.

    A text is counted in runs of three characters, and two texts are compared by the cosine of their counts, each run
    weighted by how few texts hold it: log(n / holders) + 1.

    >>> notes = Notes(["neb tree: paso", "neb ship: toru"])
    >>> notes.nearest("neb ship")
    ['neb ship: toru']

    Errors: ValueError without a text.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        if not texts:
            raise ValueError("texts must hold at least one note")
        self.texts = list(texts)
        counts = [runs(text) for text in texts]
        holders = Counter(run for count in counts for run in count)
        self.places = {run: place for place, run in enumerate(sorted(holders))}
        self.weights = torch.tensor([np.log(len(texts) / holders[run]) + 1 for run in self.places])
        self.vectors = torch.stack([self.vector(count) for count in counts])

    def vector(self, count: Counter[str]) -> Tensor:
        """Return a text's weighted counts, of length 1; runs that no note holds are left out."""
        found = torch.zeros(len(self.places), dtype=self.weights.dtype)
        for run, times in count.items():
            if run in self.places:
                found[self.places[run]] = times
        return torch.nn.functional.normalize(found * self.weights, dim=0)

    def nearest(self, question: str, count: int = 1) -> list[str]:
        """Return the `count` texts that share most with the question, best first."""
        likeness = self.vectors @ self.vector(runs(question))
        return [self.texts[place] for place in likeness.argsort(descending=True, stable=True)[:count].tolist()]


def runs(text: str) -> Counter[str]:
    """Return how often each run of three characters occurs, the ends marked.

    >>> sorted(runs("ab"))
    [' ab', 'ab ']
    """
    marked = f" {text} "
    return Counter(marked[place : place + 3] for place in range(len(marked) - 2))


def plain(task: str, count: int, seed: int) -> Batch:
    """Return a task's questions as they are.

    >>> plain("flip", 2, seed=0).ids.shape[0]
    2
    """
    return batch(drawn(task, count, seed))


def better_prompt(task: str, count: int, seed: int) -> Batch:
    """Return a task's questions in the words of a skill that the base model knows, where there is one.

    >>> ids = better_prompt("flip", 1, seed=0).ids[0]
    >>> bytes(ids[1:8].tolist()).decode()
    'reverse'
    """
    lines = drawn(task, count, seed)
    return batch([(prompt.replace(task, BETTER.get(task, task), 1), answer) for prompt, answer in lines])


def few_shot(task: str, count: int, seed: int, shots: int = 3) -> Batch:
    """Return a task's questions, each behind `shots` solved examples; only the last answer is a target.

    >>> rows = few_shot("flip", 2, seed=0, shots=1)
    >>> int((rows.ids == 3).sum())
    4
    """
    rng = np.random.default_rng(seed + 1)
    lines: list[tuple[list[int], list[int]]] = []
    for prompt, answer in drawn(task, count, seed):
        before = [token for _ in range(shots) for token in encode(*example(task, rng))[0]]
        ids, mask = encode(prompt, answer)
        lines.append((before + ids, [0] * len(before) + mask))
    return padded(lines)


def retrieved(task: str, count: int, seed: int) -> Batch:
    """Return a task's questions with the nearest note's words to copy: a skill that the base model knows.

    The notes are the words of `neb`, so other tasks find nothing that helps.

    >>> ids = retrieved("neb", 1, seed=0).ids[0]
    >>> bytes(ids[1:5].tolist()).decode()
    'copy'
    """
    notes = Notes([f"neb {word}: {translation}" for word, translation in NEB.items()])
    lines = [
        (f"copy {notes.nearest(prompt)[0].partition(': ')[2]}", answer) for prompt, answer in drawn(task, count, seed)
    ]
    return batch(lines)


def drawn(task: str, count: int, seed: int) -> list[tuple[str, str]]:
    rng: Rng = np.random.default_rng(seed)
    return [example(task, rng) for _ in range(count)]


NO_UPDATE = {
    "as it is": plain,
    "better prompt": better_prompt,
    "few-shot": few_shot,
    "retrieval": retrieved,
}
"""The rows of the method map that train nothing: how a task's questions are put."""

__all__ = ["NO_UPDATE", "Notes", "better_prompt", "few_shot", "plain", "retrieved"]
