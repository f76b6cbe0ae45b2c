"""The library behind the notebooks of Fine-Tuning Math."""

from ftmath.check import check

__all__ = ["check"]
