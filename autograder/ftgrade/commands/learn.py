"""The commands of a learner: grade one's own notebook, and show what one has learnt."""

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ftgrade.catalog import home
from ftgrade.commands.command import Done, argument, command

if TYPE_CHECKING:
    from ftgrade.commands.terminal import Out


def iso_date(text: str) -> str:
    """Return a date as it's written in the record. Raises ArgumentTypeError."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"a date is written as 2026-01-31, got {text!r}") from None


@command(
    "grade your own notebook on today's numbers, as a class is graded",
    argument("notebook", metavar="PROBLEM", help="a problem's name, such as p03, or a notebook's path"),
    argument("--stem", help="the problem, if the file's name doesn't tell"),
    argument("--day", type=iso_date, metavar="DATE", help="repeat on the numbers of a day, such as 2026-01-31"),
    argument("--page", action="store_true", help="write the feedback as a page beside the notebook"),
    argument("--solution", action="store_true", help="show the solution, after honest attempts"),
)
def check(out: "Out", notebook: str, stem: str | None, day: str | None, page: bool, solution: bool) -> Done:
    from ftgrade.classroom import selfstudy
    from ftgrade.judging.report import student_view

    catalog = home()
    done = selfstudy.check(catalog, notebook, stem, day)
    out.line(*selfstudy.result_lines(catalog, done))
    if page:
        out.line(f"page: {selfstudy.write_page(catalog, done)}")
    if solution:
        out.line(selfstudy.reveal(catalog, done))
    return Done(student_view(done.report), needs_a_person=done.report.needs_a_person)


@command(
    "write a page of what you have shown, signed by nobody",
    argument("--name", default="", help="whose page it is"),
    argument("-o", "--output", type=Path, default=Path("certificate.html"), help="its file"),
)
def certificate(out: "Out", name: str, output: Path) -> Done:
    from ftgrade.classroom import selfstudy

    page = selfstudy.certificate(home(), selfstudy.read_record(), name, date.today().isoformat())
    output.write_text(page, "utf-8")
    out.line(f"wrote {output}: it opens in a browser and prints")
    return Done({"wrote": str(output)})
