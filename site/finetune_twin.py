"""The recorded runs of "Fine-tune in the tab" as a picture and a table, for readers without scripts and for print."""

from collections.abc import Sequence
from typing import Protocol

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 560, 250, 48, 40, 14, 14
DASHES = ("", "6 4", "2 3", "8 3 2 3")


class Shown(Protocol):
    """What is drawn of a run."""

    @property
    def rank(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def losses(self) -> tuple[float, ...]: ...
    @property
    def quality(self) -> float: ...
    @property
    def retention(self) -> dict[str, float]: ...


def twin(runs: Sequence[Shown]) -> str:
    """Return the HTML that stands in the page until its script takes its place."""
    return f'<figure class="ft-twin">\n{picture(runs)}\n{table(runs)}\n</figure>'


def name_of(run: Shown) -> str:
    return f"rank {run.rank}" if run.rate else f"rank {run.rank}, rate 0"


def tail(run: Shown) -> float:
    """Return the mean loss of the last ten steps."""
    last = run.losses[-10:]
    return sum(last) / len(last)


def path(run: Shown, high: float) -> str:
    """Return the points of a loss curve."""
    across, tall = (WIDTH - LEFT - RIGHT) / (len(run.losses) - 1), HEIGHT - TOP - BOTTOM
    points = (f"{LEFT + i * across:.1f},{TOP + tall * (1 - loss / high):.1f}" for i, loss in enumerate(run.losses))
    return " ".join(points)


def picture(runs: Sequence[Shown]) -> str:
    """Return the loss curves as SVG whose colours are the page's."""
    high = max(max(run.losses) for run in runs) * 1.02
    said = "; ".join(f"{name_of(run)} from {run.losses[0]:.1f} to {tail(run):.2f}" for run in runs)
    curves = "".join(
        f'<polyline class="ft-line ft-s{i}" stroke-dasharray="{DASHES[i]}" points="{path(run, high)}"/>'
        for i, run in enumerate(runs)
    )
    key = "".join(
        f'<g transform="translate({WIDTH - 150} {TOP + 8 + 17 * i})"><line class="ft-line ft-s{i}" x2="26" '
        f'stroke-dasharray="{DASHES[i]}"/><text x="32" y="4">{name_of(run)}</text></g>'
        for i, run in enumerate(runs)
    )
    base = HEIGHT - BOTTOM
    ticks = "".join(
        f'<text x="{LEFT - 6}" y="{TOP + (base - TOP) * (1 - loss / high) + 4:.1f}" text-anchor="end">{loss}</text>'
        for loss in range(0, int(high) + 1, 2)
    )
    steps = len(runs[0].losses)
    return (
        f'<svg class="ft-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss of each step: {said}">'
        f'<line class="ft-axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>{ticks}{curves}{key}'
        f'<text x="{LEFT}" y="{base + 16}">1</text><text x="{WIDTH - RIGHT}" y="{base + 16}" '
        f'text-anchor="end">{steps}</text><text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f'step (up: loss, nats per answer token)</text></svg>'
    )  # fmt: skip


def table(runs: Sequence[Shown]) -> str:
    """Return the settings and results of the runs."""
    head = ("rank", "rate", "loss, last ten steps", "flip right", "old skills kept")
    rows = "".join(
        f'<tr><th scope="row">{run.rank}</th><td>{run.rate:g}</td><td>{tail(run):.3f}</td><td>{run.quality:.2f}</td>'
        f"<td>{sum(run.retention.values()) / len(run.retention):.2f}</td></tr>"
        for run in runs
    )
    cells = "".join(f'<th scope="col">{word}</th>' for word in head)
    caption = "Recorded runs on flip: 60 steps of 16 lines, all seven matrices, α = 2 r, seed 0"
    return f"<table><caption>{caption}</caption><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>"
