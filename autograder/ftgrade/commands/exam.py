"""The command that writes an exam."""

from pathlib import Path
from typing import TYPE_CHECKING

from ftgrade.catalog import home
from ftgrade.commands.command import COURSE, STEMS, Done, argument, at_least_one, chosen, command
from ftgrade.course import Course

if TYPE_CHECKING:
    from ftgrade.commands.terminal import Out


@command(
    "write an exam in parallel forms, and the key to mark it by",
    STEMS,
    argument("--forms", type=at_least_one, default=2, help="how many forms, A, B, … (default: 2)"),
    argument("--name", default="Fine-Tuning Math: exam", help="the exam's title; another title draws other numbers"),
    argument("-o", "--output", type=Path, default=Path("exam"), metavar="FOLDER", help="where to (default: exam)"),
    COURSE,
)
def exam(out: "Out", stems: list[str], forms: int, name: str, output: Path, course: Path) -> Done:
    """Write each problem's personal question with numbers of its own for each form."""
    from ftgrade.classroom.exam import make_exam, write_exam

    catalog = home()
    problems = chosen(catalog, stems)
    with out.board() as bars:
        bar = bars.add_task("drawing the questions", total=len(problems))
        made = make_exam(catalog, Course(course.absolute()), problems, forms, name, lambda: bars.advance(bar))
    paths = write_exam(made, name, output)
    asked = len(made[0].items)
    out.line(f"{len(made)} form{'s' * (len(made) != 1)} of {asked} question{'s' * (asked != 1)}:", *map(str, paths))
    return Done({"wrote": [str(path) for path in paths]})
