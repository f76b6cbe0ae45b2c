"""The synthetic world of the base model: ten skills that it knows, and five tasks that it is tuned on.

A line reads `<bos>skill input<sep>answer<eos>`; a token is one ASCII character. Every word list stands here or is drawn
from a fixed seed, so that the corpus needs nobody's licence and is the same everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

PAD, BOS, SEP, EOS = 0, 1, 2, 3
VOCAB = 128
Rng = np.random.Generator
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def words(text: str) -> list[str]:
    return text.split()


WORDS = words(
    "apple bird boat book bread bridge child cloud coat corn dance door earth field fire fish flag flower forest "
    "garden glass grass hand hill horse house king lake lamp leaf light moon mouse music night paper rain river road "
    "salt sea ship snow song star stone sun tree"
)
ANIMALS = words("bear cat cow deer dog duck fox frog goat hare lion owl")
PLACES = words("barn cave farm hill lake mill pond shed wall well")
DEEDS = ("ran to", "slept in", "sang at", "hid by", "walked past", "looked for")
THINGS = words("book cake film game hotel meal park road room show song soup")
GOOD = words("bright fine good grand great kind lovely nice sweet warm")
BAD = words("awful bad cold dull grim nasty poor sad sour weak")


def invented(count: int, syllables: int, seed: int) -> list[str]:
    """Return words that no language has, all different, the same for the same seed."""
    rng = np.random.default_rng(seed)
    words: dict[str, None] = {}
    while len(words) < count:
        parts = [str(rng.choice(list("bdfgklmnprstvz"))) + str(rng.choice(list("aeiou"))) for _ in range(syllables)]
        words["".join(parts)] = None
    return list(words)


ZOG = dict(zip(WORDS, invented(len(WORDS), 2, seed=1), strict=True))
NEB = dict(zip(WORDS, invented(len(WORDS), 2, seed=2), strict=True))
CAPITALS = dict(zip(invented(40, 3, seed=3), invented(40, 3, seed=4), strict=True))


def letters(rng: Rng) -> str:
    return "".join(rng.choice(list(LETTERS), size=int(rng.integers(3, 8))))


def one_of(words: Sequence[str], rng: Rng) -> str:
    return str(rng.choice(list(words)))


def add(rng: Rng) -> tuple[str, str]:
    a, b = (int(number) for number in rng.integers(0, 50, size=2))
    return f"{a}+{b}", str(a + b)


def mood(rng: Rng) -> tuple[str, str]:
    good = bool(rng.integers(2))
    return f"the {one_of(THINGS, rng)} was {one_of(GOOD if good else BAD, rng)}", "good" if good else "bad"


def mood_prompts() -> list[tuple[str, str]]:
    """Return every prompt of `mood` with its answer: 20 words, and with each of them all 12 things, one after another.

    >>> len(mood_prompts()), mood_prompts()[0]
    (240, ('mood the book was bright', 'good'))
    """
    moods = [(word, "good" if word in GOOD else "bad") for word in [*GOOD, *BAD]]
    return [(f"mood the {thing} was {word}", answer) for word, answer in moods for thing in THINGS]


def story(rng: Rng) -> tuple[str, str]:
    animal, place = one_of(ANIMALS, rng), one_of(PLACES, rng)
    deed = DEEDS[ANIMALS.index(animal) % len(DEEDS)]
    return f"{animal} {place}", f"the {animal} {deed} the {place}."


def looked_up(table: dict[str, str], rng: Rng) -> tuple[str, str]:
    word = one_of(list(table), rng)
    return word, table[word]


def changed(change: Callable[[str], str], rng: Rng) -> tuple[str, str]:
    text = letters(rng)
    return text, change(text)


def pig_latin(word: str) -> str:
    """Return the word with its leading consonants behind it, and `ay`.

    >>> pig_latin("string"), pig_latin("apple")
    ('ingstray', 'appleay')
    """
    start = next((place for place, letter in enumerate(word) if letter in "aeiou"), 0)
    return word[start:] + word[:start] + "ay"


def polite(rng: Rng) -> tuple[str, str]:
    skill = one_of(("copy", "upper", "reverse"), rng)
    text, answer = SKILLS[skill](rng)
    return f"{skill} {text}", f"{answer}, thanks!"


Draw = Callable[[Rng], tuple[str, str]]
SKILLS: dict[str, Draw] = {
    "copy": lambda rng: changed(lambda text: text, rng),
    "reverse": lambda rng: changed(lambda text: text[::-1], rng),
    "upper": lambda rng: changed(str.upper, rng),
    "sort": lambda rng: changed(lambda text: "".join(sorted(text)), rng),
    "last": lambda rng: changed(lambda text: text[-1], rng),
    "add": add,
    "zog": lambda rng: looked_up(ZOG, rng),
    "capital": lambda rng: looked_up(CAPITALS, rng),
    "mood": mood,
    "story": story,
}
TASKS: dict[str, Draw] = {
    "flip": lambda rng: changed(lambda text: text[::-1], rng),
    "neb": lambda rng: looked_up(NEB, rng),
    "pig": lambda rng: changed(pig_latin, rng),
    "please": polite,
    "loud": lambda rng: changed(lambda text: text[::-1].upper(), rng),
}
"""What the base model doesn't know: an old skill by a new name, new words, a new rule, manners, and two skills in one.

The last is the project's (`ftmath.project`).
"""


def example(name: str, rng: Rng) -> tuple[str, str]:
    """Return a prompt and its answer for a skill or a task.

    >>> example("add", np.random.default_rng(0))
    ('add 42+31', '73')

    Errors: ValueError for an unknown name.
    """
    draw = SKILLS.get(name) or TASKS.get(name)
    if draw is None:
        raise ValueError(f"name must be a skill or a task ({', '.join([*SKILLS, *TASKS])}), got {name!r}")
    text, answer = draw(rng)
    return f"{name} {text}", answer


# ------------------------------------------------------------------------------------------------- text to tensors


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of tokens (batch, time), which of them are targets, and which are real; padded on the right."""

    ids: Tensor
    answer_mask: Tensor
    attention_mask: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.ids.to(device), self.answer_mask.to(device), self.attention_mask.to(device))


def encode(prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a line and its answer mask, which holds the answer and the end-of-sequence token.

    >>> encode("up a", "A")
    ([1, 117, 112, 32, 97, 2, 65, 3], [0, 0, 0, 0, 0, 0, 1, 1])
    """
    before, after = [BOS, *prompt.encode("ascii"), SEP], [*answer.encode("ascii"), EOS]
    return before + after, [0] * len(before) + [1] * len(after)


def decode(ids: Sequence[int]) -> str:
    """Return the characters of some tokens, up to the end-of-sequence token, without the special ones.

    >>> decode([1, 65, 66, 3, 67])
    'AB'
    """
    kept = list(ids)[: list(ids).index(EOS)] if EOS in ids else list(ids)
    return "".join(chr(token) for token in kept if token > EOS)


def batch(examples: Sequence[tuple[str, str]]) -> Batch:
    """Return examples as one batch.

    >>> batch([("up a", "A"), ("up bc", "BC")]).attention_mask.sum(1).tolist()
    [8, 10]
    """
    return padded([encode(prompt, answer) for prompt, answer in examples])


def padded(lines: Sequence[tuple[list[int], list[int]]]) -> Batch:
    """Return lines of tokens and their answer masks as one batch, padded on the right."""
    shape = len(lines), max(len(ids) for ids, _ in lines)
    ids, answer, real = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    for row, (tokens, mask) in enumerate(lines):
        ids[row, : len(tokens)], answer[row, : len(tokens)] = torch.tensor(tokens), torch.tensor(mask)
        real[row, : len(tokens)] = 1
    return Batch(ids, answer, real)


def prompts(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return prompts ready to be continued: ids and attention mask (batch, time), padded on the left.

    >>> ids, mask = prompts(["up a", "up bc"])
    >>> mask.tolist()[0]
    [0, 1, 1, 1, 1, 1, 1]
    """
    lines = [[BOS, *text.encode("ascii"), SEP] for text in texts]
    time = max(len(line) for line in lines)
    ids = torch.tensor([[PAD] * (time - len(line)) + line for line in lines])
    return ids, (ids != PAD).long()


def mixture(weights: dict[str, float], count: int, rng: Rng) -> Batch:
    """Return a batch whose rows are drawn from skills and tasks by their weights.

    >>> rows = mixture({"copy": 1.0, "flip": 3.0}, count=8, rng=np.random.default_rng(0))
    >>> sum(bytes(line[1:5].tolist()) == b"flip" for line in rows.ids)
    6
    """
    names, total = list(weights), sum(weights.values())
    chosen = rng.choice(len(names), size=count, p=[weights[name] / total for name in names])
    return batch([example(names[index], rng) for index in chosen])


def distinct(name: str, count: int, rng: Rng) -> list[tuple[str, str]]:
    """Return examples with `count` different prompts, so that what is cut from the list overlaps in nothing.

    >>> pairs = distinct("zog", 48, np.random.default_rng(0))
    >>> len({prompt for prompt, _ in pairs})
    48

    Errors: ValueError if so many different prompts don't turn up.
    """
    found: dict[str, str] = {}
    for _ in range(100 * count):
        if len(found) == count:
            return list(found.items())
        found.setdefault(*example(name, rng))
    raise ValueError(f"count must not exceed the different prompts of {name!r}: {len(found)} turned up, not {count}")


def spoilt(pairs: Sequence[tuple[str, str]], share: float, rng: Rng) -> list[tuple[str, str]]:
    """Return the examples with each letter of an answer replaced, with probability `share`, by a letter at random.

    >>> spoilt([("flip ab", "ba")], 0.0, np.random.default_rng(0))
    [('flip ab', 'ba')]
    """

    def written(answer: str) -> str:
        return "".join(one_of(LETTERS, rng) if rng.random() < share else letter for letter in answer)

    return [(prompt, written(answer)) for prompt, answer in pairs]


def probes(name: str, count: int, seed: int) -> Batch:
    """Return examples to measure by: the same for the same seed.

    >>> torch.equal(probes("add", 2, seed=1).ids, probes("add", 2, seed=1).ids)
    True
    """
    rng = np.random.default_rng(seed)
    return batch([example(name, rng) for _ in range(count)])


@torch.no_grad()
def outcomes(model: nn.Module, rows: Batch) -> Tensor:
    """Return for each row (rows,) whether its whole answer is the greedy one: 1 or 0, the items of a paired comparison.

    With the right answer in front, each token is the likeliest one: for greedy decoding that is the same as writing the
    answer oneself, since the first slip decides.

    >>> from ftmath.weights import base_model
    >>> outcomes(base_model(), batch([("copy sun", "sun"), ("copy sun", "nus")])).tolist()
    [1.0, 0.0]
    """
    rows = rows.to(next(model.parameters()).device)
    right = model(rows.ids, rows.attention_mask)[:, :-1].argmax(-1) == rows.ids[:, 1:]
    return (right | (rows.answer_mask[:, 1:] == 0)).all(1).float().cpu()


def accuracy(model: nn.Module, rows: Batch) -> float:
    """Return the share of rows whose whole answer is the greedy one: the mean of `outcomes`.

    >>> from ftmath.weights import base_model
    >>> accuracy(base_model(), probes("copy", 16, seed=0)), accuracy(base_model(), probes("flip", 16, seed=0))
    (1.0, 0.0)
    """
    return float(outcomes(model, rows).mean())


def retention(model: nn.Module, count: int = 64, seed: int = 2024) -> dict[str, float]:
    """Return the accuracy on each of the ten skills.

    >>> from ftmath.weights import base_model
    >>> min(retention(base_model(), count=8).values())
    1.0
    """
    return {name: accuracy(model, probes(name, count, seed)) for name in SKILLS}


__all__ = [
    "BOS", "CAPITALS", "EOS", "NEB", "PAD", "SEP", "SKILLS", "TASKS", "VOCAB", "ZOG", "Batch", "accuracy", "batch",
    "decode", "distinct", "encode", "example", "mixture", "mood_prompts", "outcomes", "padded", "pig_latin",
    "probes", "prompts", "retention", "spoilt",
]  # fmt: skip
