"""An explorer of a step's memory over time: what is held after each event, and which phase it belongs to."""

from collections.abc import Mapping, Sequence
from typing import Any

from ftmath.memory import MIB
from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, Slider, slider

MOMENTS = tuple(place / 10 for place in range(11))


def phase_at(marks: Mapping[str, int], event: int) -> str:
    """Return the phase of a step that an event belongs to: the last one that had begun.

    >>> phase_at({"backward": 5, "forward": 0}, 4), phase_at({"backward": 5, "forward": 0}, 7)
    ('forward', 'backward')
    """
    begun = {name: first for name, first in marks.items() if first <= event}
    return max(begun, key=lambda name: begun[name]) if begun else "before"


def timeline_explorer(courses: Mapping[str, Mapping[str, Any]]) -> Explorer:
    """Choose a way to compute a step and a moment of it: what memory holds then, and when it holds most.

    A course has `bytes`, held after each event, and `marks`, the place where each phase begins.

    >>> course = {"bytes": [0, 2**20, 3 * 2**20, 0], "marks": {"forward": 0, "backward": 2}}
    >>> dict(timeline_explorer({"plain": course}).frame(0, 0)["readouts"])["most"]
    '3.0 MiB, in the backward phase'
    """
    names = list(courses)
    top = max(max(course["bytes"]) for course in courses.values()) / MIB

    def frame(which: float, moment: float) -> Frame:
        name = names[int(which)]
        held: Sequence[int] = courses[name]["bytes"]
        marks: Mapping[str, int] = courses[name]["marks"]
        event = min(len(held) - 1, round(moment * (len(held) - 1)))
        x = tuple(100 * place / max(1, len(held) - 1) for place in range(len(held)))
        most, when = max(held) / MIB, phase_at(marks, held.index(max(held)))
        now, phase = held[event] / MIB, phase_at(marks, event)
        words = f"{name}: {now:,.1f} MiB are held {moment:.0%} into the step, in the {phase} phase"
        panel = Panel(
            "lines", f"{name}: the most is held in the {when} phase", x,
            (Line("held", tuple(round(value / MIB, 2) for value in held)),), "share of the step's events, %",
            "memory held, MiB", f"{words}; at most {most:,.1f} MiB, in the {when} phase.", low=0.0, high=top,
            mark={"x": x[event], "y": now},
        )  # fmt: skip
        return Frame(
            (panel,),
            (("held now", f"{now:,.1f} MiB"), ("phase", phase), ("most", f"{most:,.1f} MiB, in the {when} phase")),
        )

    ways = Slider("a step", tuple(float(place) for place in range(len(names))), tuple(names))
    return Explorer("What a training step holds, event by event", [ways, slider("moment", MOMENTS)], frame)


__all__ = ["phase_at", "timeline_explorer"]
