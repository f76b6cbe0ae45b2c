"""Pictures of structure: what a method adds to a layer, drawn to scale."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from ftmath.plots import COLOURS, Picture


def lora_block(d_out: int, d_in: int, rank: int) -> Picture:
    """Return the diagram of a layer with LoRA: W beside A and B, their sides to scale, and where the sum is taken.

    >>> lora_block(128, 128, 8).rows
    (('W, frozen', '128 x 128', '16,384'), ('A, trained', '8 x 128', '1,024'), ('B, trained', '128 x 8', '1,024'))
    """
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    unit = 1.6 / max(d_out, d_in)
    tall, wide, thin = d_out * unit, d_in * unit, max(rank * unit, 0.06)
    word(axes, 0.0, 1.5, "$x$")
    box(axes, 2.6, 2.4, wide, tall, "$W$, frozen", COLOURS[4])
    box(axes, 1.8, 0.3, wide, thin, "$A$", COLOURS[1])
    box(axes, 4.2, 0.3, thin, tall, "$B$", COLOURS[1])
    word(axes, 5.4, 0.3, "$\\times\\, s$")
    word(axes, 6.6, 1.5, "$+$")
    word(axes, 7.6, 1.5, "$y = Wx + s\\,B(Ax)$", ha="left")
    word(axes, 3.3, -0.35, f"{rank} numbers")
    for start, end in (
        ((0.2, 1.6), (2.6 - wide / 2 - 0.1, 2.4)), ((0.2, 1.4), (1.8 - wide / 2 - 0.1, 0.3)),
        ((2.6 + wide / 2 + 0.1, 2.4), (6.4, 1.6)), ((1.8 + wide / 2 + 0.1, 0.3), (4.2 - thin / 2 - 0.1, 0.3)),
        ((4.2 + thin / 2 + 0.1, 0.3), (5.0, 0.3)), ((5.8, 0.4), (6.4, 1.4)), ((6.8, 1.5), (7.5, 1.5)),
    ):  # fmt: skip
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color="#444444"))
    axes.set_xlim(-0.3, 10.2)
    axes.set_ylim(-0.7, 3.4)
    title = "LoRA adds a narrow path beside a frozen weight"
    axes.set_title(title, fontsize=11, loc="left")
    rows = (
        ("W, frozen", f"{d_out} x {d_in}", f"{d_out * d_in:,}"),
        ("A, trained", f"{rank} x {d_in}", f"{rank * d_in:,}"),
        ("B, trained", f"{d_out} x {rank}", f"{d_out * rank:,}"),
    )
    alt = (
        f"The input x goes two ways. Above, through the frozen {d_out} by {d_in} weight W. Below, through A, which "
        f"makes {rank} numbers of it, then through B and the scale s. The two results are added."
    )
    return Picture(figure, title, alt, ("matrix", "sides", "numbers"), rows)


def box(axes: Axes, x: float, y: float, wide: float, tall: float, label: str, colour: str) -> None:
    """Draw a matrix about a centre, with its letter above it."""
    axes.add_patch(Rectangle((x - wide / 2, y - tall / 2), wide, tall, facecolor=colour, edgecolor="black", alpha=0.75))
    inside = tall > 0.5 and wide > 0.5
    word(axes, x, y if inside else y + tall / 2 + 0.18, label)


def word(axes: Axes, x: float, y: float, text: str, ha: str = "center") -> None:
    axes.text(x, y, text, ha=ha, va="center", fontsize=11)


__all__ = ["lora_block"]
