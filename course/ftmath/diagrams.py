"""Pictures of structure: the model, and what a method adds to a layer, drawn to scale."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from ftmath.model import Config
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


def decoder(config: Config) -> Picture:
    """Return the diagram of the course's model: the residual stream from characters to logits, and what a block adds.

    >>> decoder(Config()).rows[0]
    ('embed, and head (the same numbers)', '128 x 128', '16,384')
    """
    figure = Figure(figsize=(8.6, 3.1), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.add_patch(Rectangle((1.9, -0.55), 5.2, 3.15, facecolor="none", edgecolor="#444444", linestyle="--"))
    word(axes, 4.5, 2.83, f"one block; {config.layers} of them, one after the other")
    for x, y, wide, label, colour in (
        (-0.6, 0.0, 0.9, "token", "#ffffff"), (0.9, 0.0, 1.3, "embed", COLOURS[4]),
        (2.9, 1.6, 1.5, "attention", COLOURS[1]), (5.5, 1.6, 1.5, "MLP", COLOURS[2]),
        (8.0, 0.0, 1.1, "norm", "#dddddd"), (9.5, 0.0, 1.1, "head", COLOURS[4]), (11.2, 0.0, 1.3, "logits", "#ffffff"),
    ):  # fmt: skip
        box(axes, x, y, wide, 0.62, label, colour)
    for start, end in (
        ((-0.1, 0), (0.2, 0)), ((1.6, 0), (4.1, 0)), ((4.5, 0), (6.6, 0)), ((7.0, 0), (7.4, 0)), ((8.6, 0), (8.9, 0)),
        ((10.1, 0), (10.5, 0)), ((2.9, 0.05), (2.9, 1.25)), ((3.75, 1.6), (4.25, 0.2)), ((5.5, 0.05), (5.5, 1.25)),
        ((6.35, 1.6), (6.75, 0.2)),
    ):  # fmt: skip
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color="#444444"))
    for x, y, text in (
        (4.3, 0, "$+$"), (6.8, 0, "$+$"), (2.55, 0.7, "norm"), (5.15, 0.7, "norm"),
        (2.9, 2.2, f"{config.heads} heads of {config.head_dim}"), (5.5, 2.2, f"{config.d_hidden} wide"),
        (1.6, -0.95, f"one vector of {config.d_model} numbers for each token runs along this line"),
        (10.2, -0.95, f"{config.vocab} scores"),
    ):  # fmt: skip
        word(axes, x, y, text, ha="left" if y == -0.95 and x < 9 else "center")
    axes.set_xlim(-1.3, 12.1)
    axes.set_ylim(-1.3, 3.2)
    title = "The model: each block adds what attention and an MLP find"
    axes.set_title(title, fontsize=11, loc="left")
    alt = (
        f"A token becomes a vector of {config.d_model} numbers. {config.layers} blocks follow; in each, attention with "
        f"{config.heads} heads and then an MLP of width {config.d_hidden} read the normed vector and add to it. After "
        f"a last norm the head compares the vector with those of all {config.vocab} tokens, which gives the logits."
    )
    return Picture(figure, title, alt, ("weight", "sides", "numbers"), decoder_rows(config))


def decoder_rows(config: Config) -> tuple[tuple[str, ...], ...]:
    """Return the weights of a decoder by kind, with their sides and how many numbers all blocks together have."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    sides = {
        "q": (queries, config.d_model), "k, v": (keys, config.d_model), "o": (config.d_model, queries),
        "gate, up": (config.d_hidden, config.d_model), "down": (config.d_model, config.d_hidden),
    }  # fmt: skip
    embed = config.vocab * config.d_model
    rows = [("embed, and head (the same numbers)", f"{config.vocab} x {config.d_model}", f"{embed:,}")]
    for name, (d_out, d_in) in sides.items():
        count = (name.count(",") + 1) * config.layers * d_out * d_in
        rows.append((f"{name}, in {config.layers} blocks", f"{d_out} x {d_in}", f"{count:,}"))
    return tuple(rows)


def token_grid(
    tokens: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]], *, title: str, alt: str,
    borders: Sequence[int] = (),
) -> Picture:  # fmt: skip
    """Return a grid with a column for each token and a named row for each mask: a cell is filled where the mask is 1.

    `borders` are the columns before which a heavy line stands, such as the beginnings of documents.

    >>> token_grid(["a", "b"], [("targets", [0, 1])], title="One target", alt="b is learned.").rows
    (('targets', '0', '1'),)
    """
    figure = Figure(figsize=(max(5.0, 0.3 * len(tokens) + 2.2), max(1.6, 0.3 * len(rows) + 1.0)), layout="constrained")
    axes = figure.subplots()
    for row, (_, mask) in enumerate(rows):
        for column, on in enumerate(mask):
            colour, hatch = (COLOURS[0], "//") if on else ("white", "")
            cell = Rectangle((column, row), 1, 1, facecolor=colour, hatch=hatch, edgecolor="#bbbbbb", linewidth=0.6)
            axes.add_patch(cell)
    for border in borders:
        axes.axvline(border, color="black", linewidth=1.5)
        if len(rows) == len(tokens):
            axes.axhline(border, color="black", linewidth=1.5)
    axes.set_xlim(0, len(tokens))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([column + 0.5 for column in range(len(tokens))], tokens, fontsize=8)
    axes.set_yticks([row + 0.5 for row in range(len(rows))], [name for name, _ in rows], fontsize=8)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.set_title(title, fontsize=11, loc="left", wrap=True)
    told = tuple((name, *(str(int(on)) for on in mask)) for name, mask in rows)
    return Picture(figure, title, alt, ("mask", *tokens), told)


def box(axes: Axes, x: float, y: float, wide: float, tall: float, label: str, colour: str) -> None:
    """Draw a matrix about a centre, with its letter above it."""
    axes.add_patch(Rectangle((x - wide / 2, y - tall / 2), wide, tall, facecolor=colour, edgecolor="black", alpha=0.75))
    inside = tall > 0.5 and wide > 0.5
    word(axes, x, y if inside else y + tall / 2 + 0.18, label)


def word(axes: Axes, x: float, y: float, text: str, ha: str = "center") -> None:
    axes.text(x, y, text, ha=ha, va="center", fontsize=11)


__all__ = ["decoder", "lora_block", "token_grid"]
