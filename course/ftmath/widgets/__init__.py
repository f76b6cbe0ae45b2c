"""The explorers of the course: each a function of its sliders, tabulated by ftmath's own functions."""

from ftmath.widgets.choosing import choosing_explorer
from ftmath.widgets.clinics import mask_clinic, reference_clinic
from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, Slider, slider
from ftmath.widgets.explorers import lora_explorer, memory_explorer, path_explorer, prefix_gate_explorer
from ftmath.widgets.painter import MaskPainter
from ftmath.widgets.preferences import best_of_n_explorer, beta_explorer
from ftmath.widgets.quantised import card_explorer, outlier_explorer
from ftmath.widgets.scorecards import scorecard_explorer, unpacked
from ftmath.widgets.timelines import timeline_explorer

__all__ = [
    "Explorer", "Frame", "Line", "MaskPainter", "Panel", "Slider", "best_of_n_explorer", "beta_explorer",
    "card_explorer", "choosing_explorer", "lora_explorer", "mask_clinic", "memory_explorer", "outlier_explorer",
    "path_explorer", "prefix_gate_explorer", "reference_clinic", "scorecard_explorer", "slider", "timeline_explorer",
    "unpacked",
]  # fmt: skip
