"""A report's words as HTML: for the graded cell of a notebook, for the feedback page, for the class report."""

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from ftgrade.report import STATUS_WORDS, CheckReport

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> jinja2.Environment:
    """Return the environment of our own pages: everything is escaped, and a missing name is an error."""
    loader = jinja2.FileSystemLoader([TEMPLATES, TEMPLATES / "feedback"])
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def check_html(check: CheckReport) -> Markup:
    """Return one check's verdict as a block that stands under its graded cell."""
    template = environment().get_template("check.html.j2")
    return Markup(template.render(check=check, status=STATUS_WORDS[check.status]))  # noqa: S704  (the template escapes)
