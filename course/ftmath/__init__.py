"""The library behind the notebooks of Fine-Tuning Math."""
