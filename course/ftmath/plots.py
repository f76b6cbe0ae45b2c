"""Numbers in, picture out: charts that say what they show, to eyes, to screen readers and without colour."""

import base64
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# Okabe and Ito's colours, which colour-blind readers tell apart; marks and dashes differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "x")
ON_LIGHT, ON_DARK = "#111111", "#fdfdfd"
"""Words on a shade or in a coloured box: a page that gives black and white colours of its own leaves these."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
Numbers = Sequence[float]
Track = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with its description and its numbers; in a notebook it shows itself."""

    figure: Figure
    title: str
    alt: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": f"{self.title}\n{self.alt}", "text/html": self.as_html()}

    def as_html(self) -> str:
        """Return the picture as a figure with alt text and a table of its numbers, folded.

        It is an image of dots, or a drawing where matplotlib's setting `savefig.format` is "svg".
        """
        seen = self.drawing() if rcParams["savefig.format"] == "svg" else self.image()
        return (
            f'<figure style="margin:0">{seen}<details><summary>The numbers</summary>{self.table()}</details></figure>'
        )

    def image(self) -> str:
        """Return the picture as an image on white."""
        png = io.BytesIO()
        self.figure.savefig(png, format="png", dpi=110, facecolor="white")
        data = base64.b64encode(png.getvalue()).decode()
        width = int(self.figure.get_figwidth() * 100)
        return (
            f'<img alt="{html.escape(self.alt)}" style="max-width:100%;width:{width}px" '
            f'src="data:image/png;base64,{data}">'
        )

    def drawing(self) -> str:
        """Return the picture as an SVG without a ground, as wide as its image at most."""
        svg = io.StringIO()
        self.figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        drawn = svg.getvalue().partition("<svg ")[2]
        sides = re.search(r'viewBox="[^"]+"', drawn)
        inside = re.sub(r"\s*<metadata>.*?</metadata>", "", drawn.partition(">")[2], flags=re.DOTALL)
        assert sides
        width = int(self.figure.get_figwidth() * 100)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {sides[0]} role="img" '
            f'aria-label="{html.escape(self.alt)}" style="max-width:100%;width:{width}px;height:auto">{inside}'
        )

    def table(self) -> str:
        """Return the numbers as a table."""
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def said(value: float) -> str:
    """Return a number in up to four digits.

    >>> said(0.123456), said(1234567.0), said(3)
    ('0.1235', '1.235e+06', '3')
    """
    return f"{value:.4g}"


def canvas(title: str, x_label: str, y_label: str, wide: float = 6.4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(wide, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, loc="left", wrap=True)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def lines(
    x: Numbers, series: Mapping[str, Numbers], *, title: str, x_label: str, y_label: str, alt: str,
    log_x: bool = False, log_y: bool = False, level: tuple[str, float] | None = None,
) -> Picture:  # fmt: skip
    """Return a chart of lines over common x values; `level` is a named horizontal line.

    >>> lines([0, 1], {"a": [1, 2]}, title="A rises", x_label="x", y_label="y", alt="A rises from 1 to 2.").rows
    (('0', '1'), ('1', '2'))

    Errors: ValueError for a series of another length, or a description that is missing.
    """
    demand(alt, title)
    if any(len(values) != len(x) for values in series.values()):
        raise ValueError(f"every series must have {len(x)} values, as x has")
    figure, axes = canvas(title, x_label, y_label)
    for place, (name, values) in enumerate(series.items()):
        mark = MARKS[place % 7] if len(x) <= 30 else None
        axes.plot(
            x, values, color=COLOURS[place % 7], linestyle=DASHES[place % 7], marker=mark, markersize=5, label=name
        )
    if level:
        axes.axhline(level[1], color="#555555", linewidth=1, linestyle=":")
        axes.annotate(level[0], (1, level[1]), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    step = max(1, len(x) // 24)
    rows = tuple(
        (said(at), *(said(values[place]) for values in series.values()))
        for place, at in enumerate(x)
        if place % step == 0
    )
    return Picture(figure, title, alt, (x_label, *series), rows)


def sweep(
    losses: Mapping[str, Mapping[str, Numbers]], *, title: str, y_label: str, alt: str, x_label: str = "learning rate"
) -> Picture:
    """Return each method's loss against its rate: the mean over the seeds, its least and most, and a ring at the best.

    `losses` maps a method to its rates, and each rate to one loss per seed.

    >>> sweep({"a": {"0.1": [1, 3], "0.3": [1, 2]}}, title="Best at .3", y_label="loss", alt="2, then 1.5").rows
    (('a', '0.1', '2', '1', '3'), ('a', '0.3', '1.5', '1', '2'))
    """
    demand(alt, title)
    figure, axes = canvas(title, x_label, y_label)
    rows: list[tuple[str, ...]] = []
    for place, (name, runs) in enumerate(losses.items()):
        rates = sorted(runs, key=float)
        means = [sum(runs[rate]) / len(runs[rate]) for rate in rates]
        down = [mean - min(runs[rate]) for mean, rate in zip(means, rates, strict=True)]
        up = [max(runs[rate]) - mean for mean, rate in zip(means, rates, strict=True)]
        at, colour = [float(rate) for rate in rates], COLOURS[place % 7]
        axes.errorbar(
            at, means, yerr=[down, up], color=colour, linestyle=DASHES[place % 7], marker=MARKS[place % 7],
            markersize=5, capsize=3, label=name,
        )  # fmt: skip
        best = min(range(len(means)), key=means.__getitem__)
        axes.scatter([at[best]], [means[best]], s=130, facecolors="none", edgecolors=colour, linewidths=1.5, zorder=4)
        rows += [
            (name, rate, said(mean), said(min(runs[rate])), said(max(runs[rate])))
            for rate, mean in zip(rates, means, strict=True)
        ]
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())  # over a decade or so its labels would run into each other
    tried = sorted({float(rate) for runs in losses.values() for rate in runs})
    if tried[-1] < 30 * tried[0]:
        axes.set_xticks(tried, [f"{rate:g}" for rate in tried], fontsize=8)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return Picture(figure, title, alt, ("run", x_label, f"{y_label}: mean", "least", "most"), tuple(rows))


def bars(
    names: Sequence[str], series: Mapping[str, Numbers], *, title: str, y_label: str, alt: str,
    spread: Mapping[str, tuple[Numbers, Numbers]] | None = None, log_y: bool = False,
) -> Picture:  # fmt: skip
    """Return a chart of grouped bars; `spread` gives the least and the most of each bar.

    >>> bars(["q", "v"], {"energy": [0.8, 0.6]}, title="Most in q", y_label="share", alt="q .8, v .6").columns
    ('', 'energy')
    """
    demand(alt, title)
    figure, axes = canvas(title, "", y_label, wide=max(6.4, 0.55 * len(names) * len(series)))
    width = 0.8 / len(series)
    for place, (name, values) in enumerate(series.items()):
        at = [number + (place - (len(series) - 1) / 2) * width for number in range(len(names))]
        errors = None
        if spread and name in spread:
            low, high = spread[name]
            errors = [
                [max(0.0, v - a) for v, a in zip(values, low, strict=True)],  # a mean of equal values may round
                [max(0.0, b - v) for v, b in zip(values, high, strict=True)],
            ]
        axes.bar(at, values, width * 0.92, color=COLOURS[place % 7], hatch=("", "//", "..", "xx", "\\\\")[place % 5],
                 edgecolor="white", label=name, yerr=errors, capsize=3)  # fmt: skip
    crowded = sum(len(name) for name in names) > 50
    axes.set_xticks(range(len(names)), names, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    if log_y:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    rows = tuple((name, *(said(values[place]) for values in series.values())) for place, name in enumerate(names))
    return Picture(figure, title, alt, ("", *series), rows)


def points(
    groups: Mapping[str, Sequence[tuple[float, float, str]]], *, title: str, x_label: str, y_label: str, alt: str,
    curve: tuple[str, Numbers, Numbers] | None = None, log_x: bool = False,
) -> Picture:  # fmt: skip
    """Return a scatter of named groups of (x, y, label); `curve` is a named line through it.

    >>> points({"runs": [(0.1, 0.9, "LoRA")]}, title="One run", x_label="KL", y_label="quality", alt="One dot.").rows
    (('runs', 'LoRA', '0.1', '0.9'),)
    """
    demand(alt, title)
    figure, axes = canvas(title, x_label, y_label)
    for place, (name, dots) in enumerate(groups.items()):
        x, y = [dot[0] for dot in dots], [dot[1] for dot in dots]
        axes.scatter(x, y, color=COLOURS[place % 7], marker=MARKS[place % 7], label=name, s=36, zorder=3)
        for across, up, label in dots:
            if label:
                axes.annotate(label, (across, up), xytext=(4, 4), textcoords="offset points", fontsize=7)
    if curve:
        axes.plot(curve[1], curve[2], color="#555555", linestyle="--", linewidth=1, label=curve[0])
    if log_x:
        axes.set_xscale("log")
    if len(groups) + bool(curve) > 1:
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    rows = tuple((name, label, said(x), said(y)) for name, dots in groups.items() for x, y, label in dots)
    return Picture(figure, title, alt, ("group", "point", x_label, y_label), rows)


def grid(
    values: Sequence[Numbers], *, row_names: Sequence[str], column_names: Sequence[str], title: str, alt: str,
    signed: bool = False,
) -> Picture:  # fmt: skip
    """Return a table of numbers as shades, each number written where there is room.

    >>> grid([[0, 1]], row_names=["a"], column_names=["x", "y"], title="One row", alt="0 and 1").rows
    (('a', '0', '1'),)
    """
    demand(alt, title)
    figure, axes = canvas(title, "", "")
    axes.grid(visible=False)
    most = max((abs(value) for row in values for value in row), default=1.0) or 1.0
    image = axes.imshow(
        [list(row) for row in values],
        aspect="auto",
        cmap="RdBu" if signed else "Blues",
        vmin=-most if signed else 0,
        vmax=most,
    )
    few = len(values) * len(column_names) <= 120
    for row, numbers in enumerate(values):
        for column, value in enumerate(numbers):
            if few:
                shade = ON_DARK if abs(value) > 0.6 * most else ON_LIGHT
                axes.annotate(f"{value:.2g}", (column, row), ha="center", va="center", fontsize=8, color=shade)
    axes.set_xticks(range(len(column_names)), column_names, fontsize=8)
    axes.set_yticks(range(len(row_names)), row_names, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.9)
    rows = tuple((name, *map(said, numbers)) for name, numbers in zip(row_names, values, strict=True))
    return Picture(figure, title, alt, ("", *column_names), rows)


def contours(
    loss: Callable[[Any, Any], Any], x: Numbers, y: Numbers, *, title: str, x_label: str, y_label: str, alt: str,
    paths: Mapping[str, Track], regions: Mapping[str, Track] | None = None,
) -> Picture:  # fmt: skip
    """Return the level lines of a loss over a plane, with named paths of points on it and closed, shaded regions.

    `loss` takes the grids of x and y. A path of a single point is a mark.

    >>> flat = dict(title="A bowl", x_label="x", y_label="y", alt="Circles.")
    >>> contours(lambda x, y: x**2 + y**2, [-1, 0, 1], [-1, 0, 1], paths={"start": [(1, 1)]}, **flat).rows
    (('start', '1', '1', '2'),)
    """
    demand(alt, title)
    figure, axes = canvas(title, x_label, y_label, wide=7.2)
    axes.grid(visible=False)
    across, up = np.meshgrid(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    heights = loss(across, up)
    levels = float(heights.min()) + (float(np.ptp(heights))) * np.linspace(0.02, 0.98, 12) ** 2
    axes.contour(across, up, heights, levels=levels, colors="#999999", linewidths=0.8)
    rows: list[tuple[str, ...]] = []
    for place, (name, points_) in enumerate((regions or {}).items()):
        edge = COLOURS[(place + 4) % 7]
        axes.fill(*zip(*points_, strict=True), facecolor=edge, edgecolor=edge, alpha=0.25, label=name)
    for place, (name, points_) in enumerate(paths.items()):
        axes.plot(
            *zip(*points_, strict=True), color=COLOURS[place % 7], linestyle=DASHES[place % 7], marker=MARKS[place % 7],
            markersize=8 if len(points_) == 1 else 4, label=name,
        )  # fmt: skip
        rows += [(name, said(a), said(b), said(float(loss(a, b)))) for a, b in points_]
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return Picture(figure, title, alt, ("path", x_label, y_label, "loss"), tuple(rows))


def demand(alt: str, title: str) -> None:
    if not alt.strip() or not title.strip():
        raise ValueError("a picture needs a title that states the finding and an alt text that describes it")


__all__ = ["Picture", "bars", "contours", "grid", "lines", "points", "said", "sweep"]
