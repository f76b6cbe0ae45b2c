"""Put the course's notebooks and the problems' statements into the wheel, where `ftmath learn` finds them.

An editable installation takes them from the project's folder instead.
"""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKED = "ftmath/_course"


class CourseInWheel(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        for name, path in listed(root).items():
            build_data["force_include"][str(path)] = f"{PACKED}/{name}"


def listed(root: Path) -> dict[str, Path]:
    """Return what the library lists; it's loaded by its path, since importing the library would take torch."""
    spec = importlib.util.spec_from_file_location("contents", root / "course" / "ftmath" / "learn" / "contents.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.contents(root)
