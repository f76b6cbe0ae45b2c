"""The world of the base model as a table: each skill, what it answers, and some of its lines."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftmath.skills import SKILLS, example

ANSWERS = {
    "copy": "the same letters",
    "reverse": "the letters from last to first",
    "upper": "the letters as capitals",
    "sort": "the letters in alphabetical order",
    "last": "the last letter",
    "add": "the sum",
    "zog": "the word in an invented language",
    "capital": "the capital of an invented country",
    "mood": "whether the sentence is friendly",
    "story": "a sentence about an animal and a place",
    "flip": "the letters from last to first: reverse by a new name",
    "neb": "the word in another invented language",
    "loud": "the word backwards, in capitals",
    "pig": "pig Latin: leading consonants go to the end, then ay",
    "please": "what the request asks for, and thanks",
}
"""What each skill and each task answers, in words."""


@dataclass(frozen=True, slots=True)
class World:
    """Some lines of each skill: (name, whether the base knows it, lines); in a notebook it shows itself."""

    rows: tuple[tuple[str, bool, tuple[str, ...]], ...]

    def __str__(self) -> str:
        return "\n".join(f"{name}: {'; '.join(lines)}" for name, _, lines in self.rows)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        head = "".join(f'<th scope="col" style="text-align:left">{word}</th>' for word in ("name", "answer", "lines"))
        body = "".join(row_html(*row) for row in self.rows)
        caption = "Every line is a name and an input, a separator (here an arrow), and the answer"
        table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return {"text/plain": str(self), "text/html": table}


def row_html(name: str, known: bool, lines: Sequence[str]) -> str:
    """Return a row of the table: the first line open, the others in a fold."""
    first, *others = (f"<code>{html.escape(line)}</code>" for line in lines)
    more = f"<details><summary>{len(others)} more</summary>{'<br>'.join(others)}</details>" if others else ""
    cells = f'<th scope="row" style="text-align:left">{name}{"" if known else " (new)"}</th><td>{ANSWERS[name]}</td>'
    return f'<tr>{cells}<td style="text-align:left">{first}{more}</td></tr>'


def world(names: Sequence[str], count: int = 5, seed: int = 0) -> World:
    """Return `count` lines of each of the skills and tasks named.

    >>> print(world(["add", "flip"], count=2))
    add: add 42+31 -> 73; add 25+13 -> 38
    flip: flip qnhibba -> abbihnq; flip vqx -> xqv

    Errors: ValueError for an unknown name.
    """
    rows: list[tuple[str, bool, tuple[str, ...]]] = []
    for name in names:
        rng = np.random.default_rng(seed)
        lines = tuple(" -> ".join(example(name, rng)) for _ in range(count))
        rows.append((name, name in SKILLS, lines))
    return World(tuple(rows))


__all__ = ["ANSWERS", "World", "world"]
