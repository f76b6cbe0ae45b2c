"""Counts and lists as people read them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

FEW = 3  # examples of what is summed up


def counted(count: int, noun: str, several: str = "") -> str:
    """Return a count with its noun.

    >>> counted(1, "point"), counted(2, "point"), counted(0, "thing needs", "things need")
    ('1 point', '2 points', '0 things need')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {several or noun + 's'}"


def summed(found: Iterable[tuple[str, str]], noun: str) -> Iterator[str]:
    """Yield a line for each (what, why), and one for all those that share a reason where they are more than a few.

    >>> list(summed([("a.txt", "odd"), ("b.txt", "late")], "file"))
    ['a.txt: odd', 'b.txt: late']
    >>> list(summed([(f"{n}.txt", "no notebook") for n in range(108)], "file"))
    ['108 files: no notebook (0.txt, 1.txt, 2.txt and 105 more)']
    """
    by_reason: dict[str, list[str]] = defaultdict(list)
    for what, why in found:
        by_reason[why].append(what)
    for why, whats in by_reason.items():
        if len(whats) > FEW:
            examples = ", ".join(whats[:FEW])
            yield f"{counted(len(whats), noun)}: {why} ({examples} and {len(whats) - FEW} more)"
        else:
            yield from (f"{what}: {why}" for what in whats)


__all__ = ["counted", "summed"]
