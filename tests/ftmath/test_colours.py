"""The colours of the figures stay apart for every eye: computed, for the three kinds of colour blindness.

The eyes are those of Machado, Oliveira and Fernandes (2009), table 1, severity 1: matrices on linear RGB. The distance
is CIEDE2000. tests/browser/test_days.py holds Chromium's own emulation to these matrices.
"""

import itertools
import re
from math import atan2, cos, degrees, exp, hypot, radians, sin, sqrt

import numpy as np
import pytest
from ftmath import plots, widgets

APART = 10.0  # about 1 can just be seen when two patches touch; these are seen apart, across a figure
EYES = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
Lab = tuple[float, float, float]


def linear(colour: str) -> np.ndarray:
    """Return the linear RGB of a colour such as #0072B2 (IEC 61966-2-1)."""
    shades = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> Lab:
    """Return linear RGB in CIE Lab under D65."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    white = np.array([0.95047, 1.0, 1.08883])
    x, y, z = ((float(np.cbrt(v)) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116)
               for v in np.array(to_xyz) @ rgb.clip(0, 1) / white)  # fmt: skip
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(first: Lab, second: Lab) -> float:
    """Return CIEDE2000 (Sharma, Wu and Dalal 2005, equations 2 to 22)."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean_chroma = (hypot(a1, b1) + hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * sqrt(mean_chroma**7 / (mean_chroma**7 + 25**7))
    c1, c2 = hypot(a1 * stretch, b1), hypot(a2 * stretch, b2)
    h1, h2 = degrees(atan2(b1, a1 * stretch)) % 360, degrees(atan2(b2, a2 * stretch)) % 360
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    hue = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    shape = (
        1 - 0.17 * cos(radians(hue - 30)) + 0.24 * cos(radians(2 * hue))
        + 0.32 * cos(radians(3 * hue + 6)) - 0.20 * cos(radians(4 * hue - 63))
    )  # fmt: skip
    d_light = (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / sqrt(20 + (light - 50) ** 2))
    d_chroma = (c2 - c1) / (1 + 0.045 * chroma)
    d_hue = 2 * sqrt(c1 * c2) * sin(radians(turn / 2)) / (1 + 0.015 * chroma * shape)
    crossed = -2 * sqrt(chroma**7 / (chroma**7 + 25**7)) * sin(radians(60 * exp(-(((hue - 275) / 25) ** 2))))
    return sqrt(d_light**2 + d_chroma**2 + d_hue**2 + crossed * d_chroma * d_hue)


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2)."""
    dark, light = sorted(float(np.dot([0.2126, 0.7152, 0.0722], linear(colour))) for colour in (first, second))
    return (light + 0.05) / (dark + 0.05)


def explorers() -> list[list[str]]:
    """Return the series' colours of the explorers: on light, on dark."""
    css = (widgets.explorer.FOLDER / "explorer.css").read_text("utf-8")
    found = [re.findall(r"--(?:blue|rust|green|pink): (#\w{6})", line) for line in css.splitlines()]
    return [colours for colours in found if colours]


PALETTES = {"figures": list(plots.COLOURS), **dict(zip(("light", "dark"), explorers(), strict=True))}


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        # Sharma, Wu and Dalal (2005), table 1, pairs 1, 7, 17, 25 and 34
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_is_the_papers(first: Lab, second: Lab, wanted: float):
    assert distance(first, second) == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("palette", PALETTES)
def test_no_two_series_of_a_figure_look_alike(palette: str, eye: str):
    seen = {colour: lab(EYES[eye] @ linear(colour)) for colour in PALETTES[palette]}
    near = {
        (first, second): distance(seen[first], seen[second])
        for first, second in itertools.combinations(seen, 2)
        if distance(seen[first], seen[second]) < APART
    }
    assert near == {}


def test_series_differ_by_more_than_their_colour():
    assert len(set(plots.MARKS)) == len(set(plots.DASHES)) == len(plots.COLOURS) == 7
    assert all(len(colours) == 4 for colours in explorers())
    drawing = (widgets.explorer.FOLDER / "explorer.js").read_text("utf-8")
    dashes = re.search(r"const DASHES = \[(.*)\]", drawing)
    assert dashes
    assert len(set(dashes[1].split(", "))) == 4


@pytest.mark.parametrize(("palette", "paper"), [("light", "#ffffff"), ("dark", "#2b2b2b")])
def test_a_line_stands_out_from_its_paper(palette: str, paper: str):
    """WCAG 2.2, 1.4.11: 3 to 1 for what is drawn. JupyterLab's dark notebook is at most as light as #2b2b2b."""
    assert [colour for colour in PALETTES[palette] if contrast(colour, paper) < 3] == []
