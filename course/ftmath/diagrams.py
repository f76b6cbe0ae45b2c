"""Pictures of structure: the model, what a method adds to a layer, and where a run's bytes are, drawn to scale."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from ftmath.model import Config
from ftmath.plots import COLOURS, ON_LIGHT, Picture, said


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


def adapter_block(d: int, m: int) -> Picture:
    """Return the diagram of a bottleneck adapter: the identity above, a detour of width m below, and their sum.

    >>> adapter_block(128, 8).rows[1:]
    (('W_up, trained', '128 x 8', '1,024'), ('biases, trained', '8 + 128', '136'))
    """
    figure, axes = empty(7.2, 3.0)
    tall, thin = 1.6, max(1.6 * m / d, 0.1)
    word(axes, 0.0, 1.5, "$h$")
    word(axes, 3.3, 2.55, "the identity: $h$ itself")
    box(axes, 1.6, 0.55, tall, thin, "$W_{down}$", COLOURS[1])
    word(axes, 3.3, 0.55, "$\\sigma$")
    box(axes, 4.7, 0.55, thin, tall, "", COLOURS[1])
    word(axes, 5.15, 0.1, "$W_{up}$", ha="left")
    word(axes, 6.6, 1.5, "$+$")
    word(axes, 7.6, 1.5, "$h$′ $= h + W_{up}\\,\\sigma(W_{down} h + b_d) + b_u$", ha="left")
    word(axes, 3.3, -0.1, f"{m} numbers")
    for start, end in (
        ((0.2, 1.7), (1.2, 2.3)), ((1.2, 2.3), (5.6, 2.3)), ((5.6, 2.3), (6.4, 1.7)), ((0.2, 1.3), (0.7, 0.6)),
        ((2.5, 0.55), (3.05, 0.55)), ((3.55, 0.55), (4.6, 0.55)), ((4.85, 0.6), (6.4, 1.35)), ((6.8, 1.5), (7.5, 1.5)),
    ):  # fmt: skip
        arrow(axes, start, end)
    axes.set_xlim(-0.3, 12.4)
    axes.set_ylim(-0.5, 3.0)
    title = "An adapter is a narrow detour beside the identity"
    axes.set_title(title, fontsize=11, loc="left")
    rows = (
        ("W_down, trained", f"{m} x {d}", f"{m * d:,}"), ("W_up, trained", f"{d} x {m}", f"{d * m:,}"),
        ("biases, trained", f"{m} + {d}", f"{m + d:,}"),
    )  # fmt: skip
    alt = (
        f"The hidden vector h goes two ways. Above, unchanged. Below, through W_down, which makes {m} numbers of its "
        f"{d}, through an activation, and through W_up back to {d}. The two are added."
    )
    return Picture(figure, title, alt, ("part", "sides", "numbers"), rows)


def prompt_block(m: int, time: int, d: int) -> Picture:
    """Return the diagram of a soft prompt: trained vectors before the embeddings, a frozen model, the logits.

    >>> prompt_block(2, 3, 128).rows
    (('soft prompt, trained', '2 x 128', '256'), ('embeddings, frozen', '3 x 128', 'from the model'))
    """
    figure, axes = empty(6.4, 2.8)
    for place in range(m + time):
        mine = place < m
        box(axes, place + 0.5, 0.4, 0.8, 0.8, f"$p_{{{place + 1}}}$" if mine else f"$x_{{{place - m + 1}}}$",
            COLOURS[1] if mine else COLOURS[4])  # fmt: skip
        arrow(axes, (place + 0.5, 0.85), (place + 0.5, 1.25))
        if not mine:
            arrow(axes, (place + 0.5, 2.35), (place + 0.5, 2.75))
    box(axes, (m + time) / 2, 1.8, m + time, 1.0, "all blocks of the model, frozen", COLOURS[4])
    word(axes, m / 2, -0.35, f"$P$, trained: {m} x {d}")
    word(axes, m + time / 2, -0.35, "$E(x)$, frozen")
    word(axes, m + time / 2, 3.0, "logits of the real tokens")
    axes.set_xlim(-0.2, m + time + 0.2)
    axes.set_ylim(-0.7, 3.3)
    title = "A soft prompt stands before the text, at the input alone"
    axes.set_title(title, fontsize=11, loc="left")
    rows = (
        ("soft prompt, trained", f"{m} x {d}", f"{m * d:,}"),
        ("embeddings, frozen", f"{time} x {d}", "from the model"),
    )
    alt = (
        f"{m} trained vectors stand before the {time} embeddings of the text. All of them go through the frozen model, "
        "and logits are read for the text's positions alone."
    )
    return Picture(figure, title, alt, ("part", "sides", "numbers"), rows)


def prefix_mask(visible: Sequence[Sequence[bool]], title: str) -> Picture:
    """Return the mask of attention with a prefix: a row for each query, a column for each key, the prefix's first.

    >>> prefix_mask([[True, True, False], [True, True, True]], "Right").rows
    (('query 1', 'p1 x1'), ('query 2', 'p1 x1 x2'))
    """
    time, m = len(visible), len(visible[0]) - len(visible)
    names = [f"p{place + 1}" if place < m else f"x{place - m + 1}" for place in range(m + time)]
    figure, axes = empty(5.2, 3.2)
    for row, seen in enumerate(visible):
        word(axes, -0.6, time - row - 0.5, f"$q_{{{row + 1}}}$")
        for column, sees in enumerate(seen):
            colour = "white" if not sees else COLOURS[1] if column < m else COLOURS[4]
            box(axes, column + 0.5, time - row - 0.5, 0.9, 0.9, "sees" if sees else "", colour, small=True)
    for column, name in enumerate(names):
        word(axes, column + 0.5, time + 0.35, f"${name[0]}_{{{name[1:]}}}$")
    word(axes, m / 2, -0.4, "prefix")
    word(axes, m + time / 2, -0.4, "sequence")
    axes.set_xlim(-1.1, m + time + 0.2)
    axes.set_ylim(-0.8, time + 0.8)
    axes.set_title(title, fontsize=11, loc="left", wrap=True)
    rows = tuple(
        (f"query {row + 1}", " ".join(name for name, sees in zip(names, seen, strict=True) if sees))
        for row, seen in enumerate(visible)
    )
    alt = f"{title}. " + "; ".join(f"{query} sees {keys}" for query, keys in rows) + "."
    return Picture(figure, title, alt, ("query", "keys that it sees"), rows)


HATCHES = ("", "//", "..", "xx", "\\\\", "++")


def byte_rows(ways: Mapping[str, Mapping[str, float]], *, title: str) -> Picture:
    """Return each way's bytes a parameter as boxes in a row, their widths to scale, and the sum at the end.

    >>> byte_rows({"full": {"weight": 2, "moments": 8}, "frozen": {"weight": 2}}, title="10 against 2").rows
    (('full', '2', '8', '10'), ('frozen', '2', '0', '2'))
    """
    parts = list(dict.fromkeys(part for way in ways.values() for part in way))
    figure = Figure(figsize=(7.6, 0.9 + 0.42 * len(ways)), layout="constrained")
    axes = figure.subplots()
    for place, way in enumerate(ways.values()):
        left = 0.0
        for number, part in enumerate(parts):
            size = way.get(part, 0.0)
            axes.barh(place, size, left=left, height=0.7, color=COLOURS[number % 7], edgecolor="white",
                      hatch=HATCHES[number % 6], label=part if place == 0 else None)  # fmt: skip
            left += size
        axes.text(left + 0.1, place, f"{left:.3g}", va="center", fontsize=9)
    axes.set_yticks(range(len(ways)), list(ways), fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(sum(way.values()) for way in ways.values()))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("bytes for each parameter of the model, on each device")
    axes.set_title(title, fontsize=11, loc="left", wrap=True)
    shown = [Rectangle((0, 0), 1, 1, facecolor=COLOURS[n % 7], hatch=HATCHES[n % 6], edgecolor="white")
             for n in range(len(parts))]  # fmt: skip
    axes.legend(shown, parts, frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    rows = tuple(
        (name, *(said(way.get(part, 0.0)) for part in parts), said(sum(way.values()))) for name, way in ways.items()
    )
    alt = "; ".join(
        f"{name}: " + ", ".join(f"{part} {said(size)}" for part, size in way.items()) for name, way in ways.items()
    )
    return Picture(figure, title, f"Bytes for each parameter. {alt}.", ("way", *parts, "sum"), rows)


def empty(wide: float, tall: float) -> tuple[Figure, Axes]:
    """Return a figure and its axes for a drawing without scales."""
    figure = Figure(figsize=(wide, tall), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    return figure, axes


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color="#444444", shrinkA=0, shrinkB=0)
    )


def box(
    axes: Axes, x: float, y: float, wide: float, tall: float, label: str, colour: str, *, small: bool = False
) -> None:  # fmt: skip
    """Draw a matrix about a centre, with its letter above it."""
    axes.add_patch(Rectangle((x - wide / 2, y - tall / 2), wide, tall, facecolor=colour, edgecolor="black", alpha=0.75))
    inside = tall > 0.5 and wide > 0.5
    ink = ON_LIGHT if inside and colour in COLOURS else "black"
    word(axes, x, y if inside else y + tall / 2 + 0.18, label, size=7 if small else 11, ink=ink)


def word(
    axes: Axes, x: float, y: float, text: str, ha: str = "center", size: float = 11, ink: str = "black"
) -> None:  # fmt: skip
    axes.text(x, y, text, ha=ha, va="center", fontsize=size, color=ink)


__all__ = [
    "adapter_block", "byte_rows", "decoder", "lora_block", "prefix_mask", "prompt_block", "token_grid",
]  # fmt: skip
