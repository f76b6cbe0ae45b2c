"""The pictures of a class: matplotlib draws them, as SVG inside a page whose style sheet gives the colours.

No picture holds a student's text or name: labels are those of problems, checks and mistakes, and numbers.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

INK, LINE, SOFT, GOOD, BAD, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
MIDDLE, PALE = "#070707", "#080808"
ROLES = {
    INK: "ink", LINE: "line", SOFT: "soft", GOOD: "good", BAD: "bad", PAPER: "paper", MIDDLE: "middle", PALE: "pale",
}  # fmt: skip
"""Stand-ins for colours: the page's style sheet says what each role looks like in light, in the dark and on paper."""
WIDTH = 4.4  # inches of 100 px: a picture fills a phone, and two stand side by side on a desk
SETTINGS: Any = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 9.5, "axes.titlesize": 9.5,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 1,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "text.color": INK, "axes.edgecolor": LINE, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.facecolor": "none", "figure.facecolor": "none",
    "savefig.facecolor": "none",
}  # fmt: skip
MOST_LABELS = 6
Axes = Any


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that stands in a page, its finding in words, and what a person who doesn't see it is told."""

    svg: Markup
    told: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart: its label and its length, a number of students."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Panel:
    """One of several small charts of points: its title, and how many students each tenth of the points has."""

    title: str
    bins: Sequence[int]


@dataclass(frozen=True, slots=True)
class Pace:
    """One of several small charts of hand-ins: after how many seconds how many had come, when due, its two ends."""

    title: str
    steps: Sequence[tuple[float, int]]
    due: float | None
    ends: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Item:
    """A check among others: its label, the share of students who have it right, and how well it discriminates."""

    label: str
    difficulty: float
    discrimination: float


# ------------------------------------------------------------------------------------------------------------ pictures


def points_picture(name: str, panels: Sequence[Panel], told: str) -> Picture:
    """Draw how many students have each tenth of a problem's points, a small chart for each problem."""

    def draw(figure: Any) -> None:
        most = max((max(panel.bins) for panel in panels), default=1) or 1
        for axes, panel in zip(grid(figure, len(panels)), panels, strict=False):
            axes.bar(range(11), panel.bins, width=0.85, color=GOOD)
            axes.set(title=panel.title, ylim=(0, most), xlim=(-0.6, 10.6), yticks=[0, most])
            axes.set_xticks([0, 5, 10], ["0", "half", "all"])

    return picture(name, height_of(panels), draw, told)


def pace_picture(name: str, panels: Sequence[Pace], told: str) -> Picture:
    """Draw how many students had handed in by when, and the due date as a dashed line."""

    def draw(figure: Any) -> None:
        for axes, panel in zip(grid(figure, len(panels)), panels, strict=False):
            draw_pace(axes, panel)

    return picture(name, height_of(panels), draw, told)


def draw_pace(axes: Axes, panel: Pace) -> None:
    last, total = max(panel.steps[-1][0], panel.due or 0.0), panel.steps[-1][1]
    times, counts = zip(*panel.steps, strict=True)
    axes.step([0, *times, last], [0, *counts, total], where="post", color=GOOD, lw=1.8)
    if panel.due is not None:
        axes.axvline(panel.due, color=BAD, linestyle=(0, (4, 3)), lw=1.5)
    axes.set(title=panel.title, ylim=(0, total * 1.08), yticks=[0, total])
    axes.set_xticks([0, last] if last else [0], panel.ends if last else panel.ends[:1])
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=False):
        label.set_horizontalalignment(side)


def items_picture(name: str, items: Sequence[Item], told: str) -> Picture:
    """Draw each check's difficulty against its discrimination; those that discriminate least are named."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        weak = sorted(items, key=lambda item: (item.discrimination, item.label))[:MOST_LABELS]
        axes.axhline(0, color=LINE, lw=1)
        axes.scatter([one.difficulty for one in items], [one.discrimination for one in items], s=26, color=GOOD)
        axes.scatter(
            [one.difficulty for one in weak], [one.discrimination for one in weak], s=26, color=BAD, marker="D"
        )
        lowest = min((one.discrimination for one in items), default=0)
        axes.set(xlim=(-0.03, 1.03), ylim=(min(-0.1, lowest - 0.12), 1.03))
        axes.set(xlabel="share of students who have it right", ylabel="discrimination")
        label_apart(axes, weak)

    return picture(name, 3.4, draw, told)


def label_apart(axes: Axes, items: Sequence[Item]) -> None:
    """Write the names beside points, each below the last where they would touch."""
    taken: list[tuple[float, float]] = []
    for one in sorted(items, key=lambda item: -item.discrimination):
        height = one.discrimination
        while any(abs(one.difficulty - x) < 0.4 and abs(height - y) < 0.065 for x, y in taken):
            height -= 0.01
        taken.append((one.difficulty, height))
        left = one.difficulty > 0.6
        axes.annotate(
            one.label, (one.difficulty, one.discrimination), (one.difficulty + (-0.025 if left else 0.025), height),
            ha="right" if left else "left", va="center", fontsize=8.5,
        )  # fmt: skip


def bars_picture(name: str, bars: Sequence[Bar], told: str) -> Picture:
    """Draw counts of students as bars, the number at the end of each."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        drawn = axes.barh(range(len(bars)), [one.count for one in bars], color=GOOD, height=0.7)
        axes.bar_label(drawn, padding=3, fontsize=9)
        finish_rows(axes, [one.label for one in bars])

    return picture(name, 0.45 + 0.23 * len(bars), draw, told)


def stacks_picture(name: str, labels: Sequence[str], stacks: Sequence[tuple[str, Sequence[int]]], told: str) -> Picture:
    """Draw for each label counts of students of several kinds, one after another; hatches tell them apart."""
    looks = [(BAD, ""), (MIDDLE, "////"), (GOOD, ""), (PALE, "...."), (SOFT, "")]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        done = [0] * len(labels)
        for (kind, counts), (colour, hatch) in zip(stacks, looks, strict=False):
            drawn = {"color": colour, "hatch": hatch, "edgecolor": INK, "linewidth": 0.6, "height": 0.7}
            axes.barh(range(len(labels)), counts, left=done, label=kind, **drawn)
            done = [before + count for before, count in zip(done, counts, strict=True)]
        finish_rows(axes, labels)
        figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9, handlelength=1.4)

    return picture(name, 1.2 + 0.23 * len(labels), draw, told)


def finish_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label rows from the top down, and count students along them."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("students")
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
    axes.margins(x=0.08)


def grid(figure: Any, count: int) -> Sequence[Axes]:
    """Return axes in two columns, or one alone."""
    columns = min(2, count)
    made = figure.subplots(-(-count // columns), columns, squeeze=False).ravel()
    for spare in made[count:]:
        spare.remove()
    return made[:count]


def height_of(panels: Sequence[object]) -> float:
    return 2.0 if len(panels) == 1 else 1.05 * -(-len(panels) // 2)


# ---------------------------------------------------------------------------------------------------------- the drawing


def picture(name: str, height: float, draw: Callable[[Any], None], told: str) -> Picture:
    """Return what `draw` puts into a figure; equal data give equal bytes."""
    import matplotlib as mpl  # half a second that other commands don't wait for
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    file = io.StringIO()
    with style.context("default"), mpl.rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure: Any = Figure(figsize=(WIDTH, height), layout="constrained", dpi=100)
        draw(figure)
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return Picture(Markup(inline(file.getvalue(), name, told)), told)  # noqa: S704  (our own labels, written by ElementTree)


def inline(text: str, name: str, told: str) -> str:
    """Return an SVG document as an element of a page that allows no style but its own sheet's.

    Colours become classes, other styles attributes; ids that nothing refers to go, the others begin with `name`.
    """
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", text))  # noqa: S314  (matplotlib wrote it)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    drop_outside(root)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = dict(element.attrib)
        element.attrib.clear()
        for key, value in attributes.items():
            put(element, key.rpartition("}")[2], value, used, name)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {"viewBox": box, "class": "picture", "role": "img", "aria-label": told}
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, "unicode"))


def drop_outside(element: ElementTree.Element) -> None:
    """Drop what is no drawing: metadata, and the style sheet, which stands in the page's own."""
    for child in list(element):
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            element.remove(child)
        else:
            drop_outside(child)


def put(element: ElementTree.Element, key: str, value: str, used: set[str], name: str) -> None:
    """Put one attribute of a drawing as a page may have it."""
    if key == "style":
        for part in filter(None, map(str.strip, value.split(";"))):
            style, _, said = part.partition(":")
            put(element, style.strip(), said.strip(), used, name)
    elif key in ("fill", "stroke") and value in ROLES:
        element.set("class", f"{element.get('class', '')} {key}-{ROLES[value]}".strip())
    elif key == "font":
        element.set("font-size", re.findall(r"[\d.]+(?=px)", value)[0])
    elif key == "id":
        if value in used:
            element.set("id", f"{name}-{value}")
    elif key == "href":
        element.set("href", f"#{name}-{value[1:]}")
    else:
        element.set(key, value.replace("url(#", f"url(#{name}-"))


__all__ = [
    "Bar",
    "Item",
    "Panel",
    "Picture",
    "bars_picture",
    "items_picture",
    "pace_picture",
    "points_picture",
    "stacks_picture",
]
