"""The explorer of part 9: what is demanded on the sliders, what is left of the measured ways in the picture."""

from collections.abc import Sequence

from ftmath.choose import Needs, Option, recommend
from ftmath.memory import MIB
from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, Slider, slider


def choosing_explorer(options: Sequence[Option], title: str = "Which method?") -> Explorer:
    """Demand a quality, a memory, a latency, a number of tasks and a risk: the ways that are left, and why.

    Filled dots are recommended; hollow ones break a demand or are beaten by another one.

    >>> full = Option("full", 0.9, 0.2, 80, 30 * MIB, 0, 3 * MIB, 1.0)
    >>> dict(choosing_explorer([full]).frame(1, 2, 2, 0, 2)["readouts"])["recommended"]
    'full (0.90)'
    """
    memory = slider("memory of the machine", [16, 24, 64], "MiB", start=2)
    latency = Slider("a request may take", (1.0, 1.3, 100.0), ("1 x the base's", "1.3 x", "any time"), 2)
    risk = Slider("forgetting allowed", (0.05, 0.25, 1.0), ("0.05", "0.25", "any"), 2)
    tasks = slider("tasks served at once", [1, 10, 100], start=0)
    goals = slider("quality wanted", [0.0, 0.5, 0.8, 0.95], start=2)

    def frame(quality: float, mebibytes: float, at_most: float, count: float, forgotten: float) -> Frame:
        needs = Needs(quality, forgotten, memory_bytes=mebibytes * MIB, latency=at_most, tasks=int(count))
        advice = recommend(options, needs)
        chosen = {option.name for option in advice.front}
        shown = sorted(options, key=lambda option: option.name not in chosen)
        kept = tuple(option.name in chosen for option in shown)
        names = tuple(option.name for option in shown)
        heights = Line("quality", tuple(round(option.quality, 3) for option in shown), kept)
        words = ", ".join(f"{option.name} {option.quality:.2f}" for option in advice.front) or "none"
        first = Panel(
            "points", "Quality against what is forgotten", tuple(round(option.forgotten, 3) for option in shown),
            (heights,), "accuracy lost on the old skills", "quality, worst seed",
            f"{len(chosen)} of {len(options)} recommended: {words}.", low=0.0, high=1.05, names=names,
        )  # fmt: skip
        served = tuple(round(option.served_bytes(int(count)) / MIB, 2) for option in shown)
        second = Panel(
            "points", f"Quality against memory for {count:g} task{'s' if count > 1 else ''}", served, (heights,),
            "MiB to serve them", "quality, worst seed",
            f"From {min(served):.1f} to {max(served):.1f} MiB to serve {count:g}.", low=0.0, high=1.05, names=names,
            log_x=True,
        )  # fmt: skip
        best = ", ".join(f"{option.name} ({option.quality:.2f})" for option in advice.front[:3]) or "nothing"
        return Frame(
            (first, second),
            (
                ("recommended", best), ("in all", str(len(chosen))), ("break a demand", str(len(advice.refused))),
                ("beaten by another", str(len(advice.beaten))), ("why", advice.why),
            ),
        )  # fmt: skip

    return Explorer(title, [goals, memory, latency, tasks, risk], frame)


__all__ = ["choosing_explorer"]
