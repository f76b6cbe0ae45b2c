"""The address that courses' `nbgrader_config.py` name."""

from ftgrade.gradebook.steps import configure

__all__ = ["configure"]
