"""The explorers of the course: each a function of its sliders, tabulated by ftmath's own functions."""

from ftmath.widgets.choosing import choosing_explorer
from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, Slider, slider
from ftmath.widgets.explorers import (
    lora_explorer,
    memory_explorer,
    path_explorer,
    prefix_gate_explorer,
)  # fmt: skip
from ftmath.widgets.painter import MaskPainter

__all__ = [
    "Explorer", "Frame", "Line", "MaskPainter", "Panel", "Slider", "choosing_explorer", "lora_explorer",
    "memory_explorer", "path_explorer", "prefix_gate_explorer", "slider",
]  # fmt: skip
