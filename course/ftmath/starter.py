"""How this copy of the library came here: in the project's folder, or in a wheel that also holds the course's files."""

from pathlib import Path

PACKED = Path(__file__).resolve().parent / "_course"
"""The folder with the course's files; only an installed wheel has it."""

STARTER = "ftmath" if PACKED.is_dir() else "python3 start.py"
"""The command that starts the lab and fetches models."""

__all__ = ["PACKED", "STARTER"]
