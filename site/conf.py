"""Sphinx's settings for the site: what a page needs stands beside it, and no request leaves the reader's machine."""

import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # Sphinx stores its settings, so the function that names headings has to be importable

import live  # noqa: E402


def mathjax() -> list[str]:
    """Return MathJax's one file, from the package that carries it; none where it isn't installed."""
    found = find_spec("sphinx-mathjax-offline")
    if found is None or found.origin is None:
        return []
    return [str(Path(found.origin).parent / "static" / "mathjax" / "tex-svg.js")]


project = "Fine-Tuning Math"
author = "The Fine-Tuning Math developers"
copyright = "the Fine-Tuning Math developers, CC BY 4.0"  # noqa: A001
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.githubpages", "workbench"]
language = "en"
smartquotes = False
suppress_warnings = ["misc.highlighting_failure"]  # a cell may show what isn't Python

# Notebooks arrive with their outputs. A widget arrives as its static twin and its data; live.js mounts it.
nb_execution_mode = "off"
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js = {}
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_heading_slug_func = "pages.heading_id"
mathjax_path = "tex-svg.js"

html_theme = "furo"
html_title = "Fine-Tuning Math"
html_static_path = [str(HERE / "static"), *mathjax()]
html_css_files = ["explorer.css", "site.css", "figures.css"]
html_js_files = ["widgets.js", "live.js"]
html_search_scorer = str(HERE / "search.js")
html_copy_source = False
html_use_index = False
html_show_sourcelink = False


def reachable(app, page, template, context, doctree) -> None:
    """Let the keyboard scroll a wide listing, and say how high the sidebar's headings stand."""
    if "body" in context:
        context["body"] = context["body"].replace("<pre>", '<pre tabindex="0">')
    if "furo_navigation_tree" in context:
        tree = context["furo_navigation_tree"]
        context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def own_digest() -> str:
    """Return the digest of the site's own files: where one changes, Sphinx makes every page anew."""
    found = [*HERE.glob("*.py"), *HERE.glob("*.js"), *HERE.rglob("static/**/*"), *live.WIDGETS.glob("*.[jc]s*")]
    return sha256(b"".join(path.read_bytes() for path in sorted(found) if path.is_file())).hexdigest()


def add_widgets(app) -> None:
    live.write_scripts(Path(app.outdir) / "_static")


def setup(app) -> None:
    app.add_config_value("made_by", own_digest(), "env", str)
    app.connect("builder-inited", add_widgets)
    app.connect("html-page-context", reachable, priority=900)  # after the theme has made its tree
