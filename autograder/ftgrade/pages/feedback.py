"""The feedback page of a submission, and the environment of our own pages."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from ftgrade.gradebook.ledger import PageMaker
from ftgrade.pages.prose import code_parts, prose

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> jinja2.Environment:
    """Return the environment of our own pages: everything is escaped, and a missing name is an error."""
    loader = jinja2.FileSystemLoader([TEMPLATES, TEMPLATES / "feedback"])
    made = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    filters: dict[str, Any] = made.filters
    filters.update(prose=prose, code_parts=code_parts)
    return made


def render_page(document: Any, resources: dict[str, Any]) -> str:
    """Return a submission's feedback page, as nbgrader's own step makes it of the same template."""
    return environment().get_template("feedback/index.html.j2").render(nb=document, resources=resources)


@cache
def templates_digest() -> str:
    """Return a fingerprint of how pages are made."""
    files = [*sorted(path for path in TEMPLATES.rglob("*.*") if path.is_file()), Path(__file__).with_name("prose.py")]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def page_maker() -> PageMaker:
    """Return how feedback pages are made, for the ledger that writes one when it books."""
    return PageMaker(render_page, templates_digest())
