"""The address that `nbgrader export --exporter` is given."""

from ftgrade.gradebook.exporters import Canvas, Csv, Gradescope, Moodle

__all__ = ["Canvas", "Csv", "Gradescope", "Moodle"]
