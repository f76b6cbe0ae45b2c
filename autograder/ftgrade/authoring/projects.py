"""A project's leaves to its notebook: the statement, the cell to train in, and a graded cell for each measure."""

from dataclasses import dataclass
from typing import Any

from ftgrade.catalog import Catalog
from ftgrade.errors import AuthorFault
from ftgrade.judging.project import Measure, Project, load_project, number_words

SCORES = "scores"
HOLES = ("card", "training", "scorecard")


@dataclass(frozen=True, slots=True)
class ProjectCell:
    """A cell of a project's notebook: the student's `own`, the check of a `measure`, or else a given one."""

    kind: str
    source: str
    own: bool = False
    measure: Measure | None = None


def project_cells(catalog: Catalog, stem: str, masters: list[dict[str, Any]]) -> list[ProjectCell]:
    """Return the cells of a project's notebook. Raises AuthorFault unless the statement has each hole once."""
    project, cells = load_project(catalog, stem), list[ProjectCell]()
    filled = [master["metadata"]["hole"] for master in masters if "hole" in master["metadata"]]
    if sorted(filled) != sorted(HOLES):
        raise AuthorFault(f"source/{stem}.py must have these holes once: {', '.join(HOLES)}")
    for master in masters:
        hole, text = master["metadata"].get("hole"), master["source"]
        if hole == "card":
            cells.append(ProjectCell("markdown", project_card(project)))
        elif hole == "scorecard":
            cells.append(ProjectCell("code", scores_code(project)))
            cells += [ProjectCell("code", f'{SCORES}.show("{one.name}")', measure=one) for one in project.measures]
        else:
            cells.append(ProjectCell(master["cell_type"], text, own=hole == "training"))
    return cells


def project_card(project: Project) -> str:
    """Return the title card: how a project's points are given."""
    rows = "\n".join(map(measure_row, project.measures))
    return (
        f"**Part** {project.part.replace('_', ' ')} · **about** {project.minutes} minutes · "
        f"**{project.points:g} points**\n\n"
        "| measure | points | what is measured | goals, and the points from there on |\n| --- | ---: | --- | --- |\n"
        f"{rows}"
    )


def measure_row(measure: Measure) -> str:
    """Return a measure's row of the card."""
    goals = " · ".join(f"{number_words(goal)}: {points:g}" for goal, points in measure.goals)
    bound = "at most" if measure.falling else "at least"
    late = f"; counts once `{measure.after}` reaches its first goal" if measure.after else ""
    return f"| `{measure.name}` | {measure.points:g} | {measure.title.replace('|', '&#124;')}{late} | {bound} {goals} |"


def scores_code(project: Project) -> str:
    """Return the cell that measures, with the rules that the grader is told too."""
    rules = "".join(f'    "{name}": {rule!r},\n' for name, rule in project.rules.items())
    return f"from {project.program} import score_adapter\n\nrules = {{\n{rules}}}\n{SCORES} = score_adapter(rules)"


__all__ = ["project_cells"]
