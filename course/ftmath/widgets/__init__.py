"""The explorers of the course: each a function of its sliders, tabulated by ftmath's own functions."""

from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, Slider, slider
from ftmath.widgets.explorers import (
    lora_explorer,
    memory_explorer,
    path_explorer,
    prefix_gate_explorer,
)  # fmt: skip
from ftmath.widgets.painter import MaskPainter
from ftmath.widgets.scorecards import scorecard_explorer, unpacked

__all__ = [
    "Explorer", "Frame", "Line", "MaskPainter", "Panel", "Slider", "lora_explorer", "memory_explorer", "path_explorer",
    "prefix_gate_explorer", "scorecard_explorer", "slider", "unpacked",
]  # fmt: skip
