"""Drawings that follow the page: matplotlib's colours become names, for which a style sheet has two sets."""

import hashlib
import re
from typing import Any

NAMES = {
    "#000000": "ink", "#444444": "soft", "#555555": "soft", "#999999": "soft", "#b0b0b0": "grid", "#dddddd": "mute",
    "#ffffff": "ground", "#0072b2": "blue", "#d55e00": "rust", "#009e73": "green", "#cc79a7": "pink",
    "#56b4e9": "sky", "#e69f00": "amber",
}  # fmt: skip
"""What ftmath.plots draws with; any other colour is the same in both themes."""


def themed(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output whose drawings take their colours from the page."""
    html = "".join(output.get("data", {}).get("text/html", ""))
    if "<figure" not in html or "<svg" not in html:
        return output
    return output | {"data": {**output["data"], "text/html": re.sub(r"<svg .*?</svg>", drawing, html, flags=re.DOTALL)}}


def drawing(found: re.Match[str]) -> str:
    """Return a drawing without its own style sheet, with colours by name, and with ids that only it has.

    >>> drawing(re.match(".*", '<svg ><g id="axes_1"><path id="m1" style="fill: #000000"/><use href="#m1"/></g></svg>'))
    '<svg ><g><path id="f3edd-m1" style="fill: var(--figure-ink, #000000)"/><use href="#f3edd-m1"/></g></svg>'
    """
    svg = re.sub(r"<style.*?</style>", "", found[0], flags=re.DOTALL)
    own = f"f{hashlib.sha256(svg.encode()).hexdigest()[:4]}"
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda one: f' id="{own}-{one[1]}"' if one[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{own}-", svg)
    svg = re.sub(r"-?\d+\.\d{3,}(?=[\s,)\"])(?=[^<>]*>)", lambda number: f"{float(number[0]):.2f}", svg)
    svg = re.sub(r'fill="(#[0-9a-f]{6})"', r'style="fill: \1"', svg)  # the ground of a hatch
    return re.sub(r"(?<=: )#[0-9a-f]{6}", lambda one: named(one[0]), svg)


def named(colour: str) -> str:
    """Return a colour by its name in the style sheet, beside what it is without one."""
    return f"var(--figure-{NAMES[colour]}, {colour})" if colour in NAMES else colour
