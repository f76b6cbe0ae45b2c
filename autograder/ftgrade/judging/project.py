"""The words that a project is written in: its program, the files that it takes, its measures and their goals.

Of a project files are judged in place of functions; `scorecard` does that.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftgrade.catalog import Catalog, load_module
from ftgrade.errors import AuthorFault


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of a project's scorecard. `goals` are pairs of a goal and the points that a hand-in has from there on.

    A `falling` measure is better if it's less. Its points count only where the measure `after` reaches a goal.
    `of` is the file that it is measured of, and `unit` what follows its number.
    """

    name: str
    title: str
    of: str
    goals: tuple[tuple[float, float], ...]
    next_step: str
    falling: bool = False
    after: str = ""
    unit: str = ""

    @property
    def points(self) -> float:
        return self.goals[-1][1]

    @property
    def rule(self) -> dict[str, Any]:
        """Return what the program is told of it."""
        return {
            "points": self.points,
            "steps": [list(goal) for goal in self.goals],
            "falling": self.falling,
            "after": self.after,
        }


@dataclass(frozen=True, slots=True)
class Project:
    """How a project is judged: its program, the files that it takes by the program's names for them, its measures.

    `files` maps those names to pairs of a file's name and the bytes that are read of it. `digest` is that of what
    judges it, taken when it was loaded.
    """

    part: str
    minutes: int
    program: str
    files: Mapping[str, tuple[str, int]]
    measures: Sequence[Measure] = field(default_factory=tuple)
    version: int = 1
    digest: str = ""

    @property
    def points(self) -> float:
        return sum(measure.points for measure in self.measures)

    @property
    def rules(self) -> dict[str, dict[str, Any]]:
        return {measure.name: measure.rule for measure in self.measures}

    @property
    def limits(self) -> dict[str, int]:
        """Return how many bytes are read of each file."""
        return dict(self.files.values())


def load_project(catalog: Catalog, stem: str) -> Project:
    """Load a project's file. Raises AuthorFault."""
    path = catalog.leaves(stem).problem
    project = getattr(load_module(path, f"ftgrade_{stem}"), "project", None)
    if not isinstance(project, Project):
        raise AuthorFault(f"{path.name} must define `project = Project(...)`, and doesn't")
    return dataclasses.replace(project, digest=catalog.digest(stem))


def goals_words(measure: Measure, reached: int) -> str:
    """Say which goals a measure has and how many are reached.

    >>> goals_words(Measure("drift", "", "", ((0.1, 1.0), (0.02, 2.0)), "", falling=True), 1)
    'goals at most 0.1, 0.02: 1 of 2 reached'
    """
    goals = ", ".join(number_words(goal) for goal, _ in measure.goals)
    bound = "at most" if measure.falling else "at least"
    return f"goals {bound} {goals}: {reached} of {len(measure.goals)} reached"


def number_words(value: float) -> str:
    """Return a number with three digits behind the point, or none from 100 on.

    >>> number_words(0.9722), number_words(0.5), number_words(20000.0)
    ('0.972', '0.5', '20,000')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}".rstrip("0").rstrip(".")


__all__ = ["Measure", "Project", "goals_words", "load_project", "number_words"]
