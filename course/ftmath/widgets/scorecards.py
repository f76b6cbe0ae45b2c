"""The scorecard: choose a run, and see what it lost of each skill, how sure that is, and what follows."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ftmath.evaluate import Interval, scorecard
from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, Slider, slider

Items = Mapping[str, Tensor]


def unpacked(record: Mapping[str, str], count: int) -> dict[str, Tensor]:
    """Return right and wrong items (items,) from hexadecimal numbers whose highest bit is the first item.

    >>> unpacked({"copy": "e"}, count=4)
    {'copy': tensor([1., 1., 1., 0.])}

    Errors: ValueError for a number of more than `count` bits.
    """
    found: dict[str, Tensor] = {}
    for name, digits in record.items():
        bits = f"{int(digits, 16):0{count}b}"
        if len(bits) != count:
            raise ValueError(f"{name} holds {len(bits)} items, not {count}")
        found[name] = Tensor([float(bit) for bit in bits])
    return found


def in_words(interval: Interval) -> str:
    """Return an interval as it is read aloud.

    >>> in_words((0.05, 0.012, 0.1))
    '0.050 (0.012 to 0.100)'
    """
    mean, low, high = interval
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def scorecard_explorer(
    before: Items, runs: Mapping[str, Items], task: str, counts: Sequence[int] = (25, 50, 100, 200),
    most: Sequence[float] = (0.02, 0.05, 0.1),
) -> Explorer:  # fmt: skip
    """Choose a run, how many items are looked at and the loss that is put up with: intervals and the verdict.

    `before` and each of `runs` hold right and wrong items (items,) of the task and of each skill, in one order.

    >>> import torch
    >>> same = {"new": torch.zeros(50), "old": torch.ones(50)}
    >>> explorer = scorecard_explorer(same, {"idle": same}, "new", counts=(25, 50))
    >>> dict(explorer.frame(0, 1, 1)["readouts"])["verdict"]
    'inconclusive'
    """
    names = list(runs)

    def frame(run: float, count: float, limit: float) -> Frame:
        name, n = names[int(run)], int(count)
        sides = [{key: side[key][:n] for key in before} for side in (before, runs[name])]
        card = scorecard(sides[0], sides[1], task, limit)
        drops = card.drops
        ends = tuple((low, high) for _, low, high in drops.values())
        bars = Line("lost", tuple(mean for mean, _, _ in drops.values()), ends=ends)
        spoken = ", ".join(f"{skill} {in_words(interval)}" for skill, interval in drops.items())
        panel = Panel(
            "bars", f"Accuracy lost by skill: {name}", tuple(drops), (bars,), f"skill, {n} items each", "accuracy lost",
            f"{name}, {n} items: {spoken}. Verdict at {limit:g}: {card.verdict}.", low=-0.15, high=1.05,
        )  # fmt: skip
        return Frame((panel,), (
            ("verdict", card.verdict), (f"gained on {task}", in_words(card.gain)), ("worst skill", card.worst),
            ("largest drop", in_words(card.drop)),
        ))  # fmt: skip

    chosen = Slider("run", tuple(map(float, range(len(names)))), tuple(names), 0)
    sizes, limits = slider("items a skill", counts, start=len(counts) - 1), slider("loss put up with", most)
    return Explorer("Scorecard of a fine-tuning run", [chosen, sizes, limits], frame)


__all__ = ["in_words", "scorecard_explorer", "unpacked"]
