"""A report's words as HTML: for the graded cell of a notebook, for the feedback page, for the class report."""

import hashlib
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ftgrade.judging.report import STATUS_WORDS, CheckReport

TEMPLATES = Path(__file__).parent / "templates"
KEPT_CHECKS = 1_024  # a class has few ways to be right, and not many to be wrong


@cache
def environment() -> jinja2.Environment:
    """Return the environment of our own pages: everything is escaped, and a missing name is an error."""
    loader = jinja2.FileSystemLoader([TEMPLATES, TEMPLATES / "feedback"])
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def page(document: Any, resources: dict[str, Any]) -> str:
    """Return a submission's feedback page, as nbgrader's own step makes it of the same template."""
    return environment().get_template("feedback/index.html.j2").render(nb=document, resources=resources)


@cache
def page_digest() -> str:
    """Return a fingerprint of how pages are made."""
    files = sorted(path for path in TEMPLATES.rglob("*.*") if path.is_file())
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


@lru_cache(KEPT_CHECKS)
def check_html(check: CheckReport) -> Markup:
    """Return one check's verdict as a block that stands under its graded cell."""
    template = environment().get_template("check.html.j2")
    return Markup(template.render(check=check, status=STATUS_WORDS[check.status]))  # noqa: S704  (the template escapes)
