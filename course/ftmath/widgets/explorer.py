"""A picture that moves: sliders over a table of frames that Python computed, drawn in the browser in milliseconds."""

import html
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ftmath.plots import said

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Slider:
    """A control over some values; `names` are what is shown for each."""

    label: str
    values: tuple[float, ...]
    names: tuple[str, ...]
    start: int = 0


def slider(label: str, values: Sequence[float], unit: str = "", start: int | None = None) -> Slider:
    """Return a slider over values, shown with their unit; it starts in the middle unless told.

    >>> slider("rank r", [1, 2, 4]).names
    ('1', '2', '4')
    """
    names = tuple(f"{said(value)} {unit}".strip() for value in values)
    return Slider(label, tuple(values), names, len(values) // 2 if start is None else start)


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a panel; where `on` is given, bars that are off are hollow; `ends` are a whisker's for each bar."""

    name: str
    y: tuple[float, ...]
    on: tuple[bool, ...] | None = None
    ends: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart of a frame: "bars" over names, "lines" over numbers, "points" with `names`; and its description.

    `low` and `high` fix the axis, so that frames can be compared; `mark` is a dot on the lines.
    """

    kind: str
    title: str
    x: tuple[Any, ...]
    series: tuple[Line, ...]
    x_label: str
    y_label: str
    alt: str
    low: float | None = None
    high: float | None = None
    mark: dict[str, float] | None = None
    log_x: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """What the sliders' values give: panels, and numbers with their names."""

    panels: tuple[Panel, ...]
    readouts: tuple[tuple[str, str], ...]


class Explorer(anywidget.AnyWidget):
    """Sliders and their pictures. Without a kernel or a widget manager its static twin is shown: a table of states."""

    _esm = FOLDER / "explorer.js"
    _css = FOLDER / "explorer.css"
    table = traitlets.Dict().tag(sync=True)
    state = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(self, title: str, sliders: Sequence[Slider], frame: Callable[..., Frame]) -> None:
        found = [frame(*values) for values in itertools.product(*(one.values for one in sliders))]
        table = {"title": title, "sliders": [asdict(one) for one in sliders], "frames": [asdict(one) for one in found]}
        super().__init__(table=table, state=[one.start for one in sliders])

    def frame(self, *state: int) -> dict[str, Any]:
        """Return the frame at a place of each slider."""
        place = 0
        for at, one in zip(state, self.table["sliders"], strict=True):
            place = place * len(one["values"]) + at
        return self.table["frames"][place]

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "text/html": self.twin(), "text/plain": self.words()}, metadata

    def words(self) -> str:
        """Return the title and the first state's description."""
        first = self.frame(*self.state)
        return "\n".join([self.table["title"], *(panel["alt"] for panel in first["panels"])])

    def twin(self) -> str:
        """Return a table of up to three states of each slider, the others at their start."""
        sliders, rows = self.table["sliders"], list[str]()
        for number, one in enumerate(sliders):
            for at in sorted({0, one["start"], len(one["values"]) - 1}):
                state = [other["start"] for other in sliders]
                state[number] = at
                cells = "".join(f"<td>{html.escape(words)}</td>" for _, words in self.frame(*state)["readouts"])
                state_words = html.escape(f"{one['label']} = {one['names'][at]}")
                rows.append(f'<tr><th scope="row">{state_words}</th>{cells}</tr>')
        names = [name for name, _ in self.frame(*self.state)["readouts"]]
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ["", *names])
        about = "".join(f"<p>{html.escape(panel['alt'])}</p>" for panel in self.frame(*self.state)["panels"])
        return (
            f'<div class="ftmath-twin"><b>{html.escape(self.table["title"])}</b>{about}<table><thead><tr>{head}</tr>'
            f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
        )


__all__ = ["Explorer", "Frame", "Line", "Panel", "Slider", "slider"]
