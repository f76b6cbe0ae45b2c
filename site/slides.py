"""A slide deck for each part that needs no network: run the lessons, cut them, lay reveal.js beside the decks.

    python3 start.py slides                every part; open site/out/slides/index.html
    python3 start.py slides --parts 5      one part

In a deck, arrow keys move, S opens the speaker's view, F fills the screen, and `?print-pdf` behind the address prints.
Outputs are kept and shared with the site: only a lesson whose code changed runs again.
"""

import argparse
import html
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the site's other modules stand beside this one, which tests load by its path

import conf  # noqa: E402
import lecture  # noqa: E402
import pages  # noqa: E402
import workbench  # noqa: E402

OWN = HERE / "reveal"
KEPT = HERE / "out" / "reveal"
REVEAL = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE")
Notebook = dict[str, Any]


def main(words: Sequence[str] | None = None) -> int:
    """Write the decks that the words ask for; return the exit status."""
    asked = arguments(words)
    out: Path = asked.out.resolve()
    parts = [path for path in sorted((pages.ROOT / "course").glob("[0-9]*_*/")) if int(path.name[:2]) in asked.parts]
    try:
        if not parts:
            raise ValueError("no part has such a number: `--parts 5` writes part 5")
        lay_reveal(out / "slides" / "reveal")
        lessons = run_lessons(parts, out, asked.jobs)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"slides: {error}", file=sys.stderr)
        return 1
    for part, lesson in zip(parts, lessons, strict=True):
        count = write_deck(part, lesson, out / "slides")
        print(f"part {int(part.name[:2])}: {count} slides")
    write_index(out / "slides")
    print(f"The decks are in {out / 'slides'}.")
    return 0


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="start.py slides", description="Write a slide deck for each part.")
    parser.add_argument("--parts", type=int, nargs="*", default=range(1, 100), help="only these")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="where to: its folder slides (site/out)")
    parser.add_argument("--jobs", type=int, default=1, help="lessons run at once")
    return parser.parse_args(words)


# ----------------------------------------------------------------------------------------------------------- reveal.js


def reveal() -> Path:
    """Return the folder of reveal.js, fetched once by its pinned version. Raises OSError where npm can't get it."""
    kept = KEPT / "node_modules" / "reveal.js"
    pinned = json.loads((OWN / "package.json").read_text("utf-8"))["dependencies"]["reveal.js"]
    found = kept / "package.json"
    if found.is_file() and json.loads(found.read_text("utf-8"))["version"] == pinned:
        return kept
    try:
        workbench.fetch(OWN, KEPT)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise OSError(
            f"npm can't get reveal.js {pinned} ({said[0] if said else error}). The decks need it once: "
            "install Node.js with npm, or connect to npm's registry, and try again"
        ) from None
    return kept


def lay_reveal(folder: Path) -> None:
    """Copy what a deck loads into a folder: reveal.js, MathJax, and the decks' own script and style sheets."""
    fetched, maths = reveal(), conf.mathjax()
    if not maths:
        raise OSError("MathJax isn't installed: `python3 start.py slides` installs it with the site's other tools")
    folder.mkdir(parents=True, exist_ok=True)
    own = [OWN / "deck.css", OWN / "deck.js", HERE / "static" / "figures.css"]
    for path in [*(fetched / name for name in REVEAL), *map(Path, maths), *own]:
        shutil.copy(path, folder)


# ------------------------------------------------------------------------------------------------------------- running


def run_lessons(parts: list[Path], out: Path, jobs: int) -> list[Notebook]:
    """Return the parts' lessons with their outputs. Raises RuntimeError for one that doesn't run through."""
    places = [out / "lessons" / part.name / "theory.ipynb" for part in parts]
    for part, place in zip(parts, places, strict=True):
        pages.write(place, json.dumps(pages.stage(part / "theory.ipynb", depth=1), ensure_ascii=False))
    pages.run_all(places, out, jobs)
    return [json.loads(place.read_text("utf-8")) for place in places]


# ------------------------------------------------------------------------------------------------------------- writing


def write_deck(part: Path, lesson: Notebook, folder: Path) -> int:
    """Write a part's deck into a folder, and return how many slides it has."""
    exercises = json.loads((part / "exercises.ipynb").read_text("utf-8"))
    sources = sorted((pages.ROOT / "source").glob("*/*.ipynb"))
    problems = [json.loads(path.read_text("utf-8")) for path in sources]
    slides = lecture.deck(lesson, exercises, problems, part.name)
    pages.write(folder / f"{part.name}.html", page(slides))
    return len(slides)


def page(slides: Sequence[lecture.Slide]) -> str:
    """Return a deck as a page, whose scripts and style sheets are in the folder `reveal` beside it."""
    template = Template((OWN / "deck.html").read_text("utf-8"))
    return template.substitute(title=html.escape(slides[0].title), slides="\n".join(map(section, slides)))


def section(slide: lecture.Slide) -> str:
    """Return a slide as reveal.js reads it.

    >>> print(section(lecture.Slide("claim", "1.1 Rank", "**At most $r$.**", notes="Why")))  # doctest: +ELLIPSIS
    <section class="claim"><h2>1.1 Rank</h2><div class="body"><p><strong>At most ...(r...</strong></p>
    </div><aside class="notes"><p>Why</p>
    </aside></section>
    """
    level = "h1" if slide.kind == "title" else "h2"
    held = f"<{level}>{html.escape(slide.title, quote=False)}</{level}>"
    if slide.text:
        held += f'<div class="body">{rendered(slide.text)}</div>'
    if slide.shown:
        way = "stacked" if slide.kind == "findings" else "beside"
        held += f'<div class="{way}">{"".join(map(framed, slide.shown))}</div>'
    notes = f'<aside class="notes">{rendered(slide.notes)}</aside>' if slide.notes else ""
    return f'<section class="{slide.kind}">{held}{notes}</section>'


def framed(shown: str) -> str:
    """Return an output; a drawing stands in the frame that the site's style sheet for drawings knows."""
    return f'<div class="cell_output">{shown}</div>' if shown.startswith("<figure") else shown


def rendered(text: str) -> str:
    """Return Markdown as HTML, whose formulas MathJax finds between its own marks."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    reader = MarkdownIt("commonmark").enable("table")
    reader.use(dollarmath_plugin, renderer=formula, double_inline=True)
    return reader.render(text)


def formula(tex: str, options: dict[str, Any]) -> str:
    """Return a formula between the marks of MathJax.

    >>> formula("a < b", {"display_mode": False})
    '\\\\(a &lt; b\\\\)'
    """
    opening, closing = ("\\[", "\\]") if options["display_mode"] else ("\\(", "\\)")
    return f"{opening}{html.escape(tex, quote=False)}{closing}"


def write_index(folder: Path) -> None:
    """Write a page with a link to each deck in a folder."""
    decks = [path for path in sorted(folder.glob("*.html")) if path.stem != "index"]
    links = "\n".join(f'<li><a href="{path.name}">{title_of(path)}</a></li>' for path in decks)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Slides</title>'
    look = "<style>:root{color-scheme:light dark}body{font:1.1rem/1.7 system-ui,sans-serif;margin:2rem}</style>"
    body = f"<body><h1>Slides</h1><ul>\n{links}\n</ul></body>"
    pages.write(folder / "index.html", f'<!doctype html><html lang="en"><head>{head}{look}</head>{body}</html>\n')


def title_of(path: Path) -> str:
    """Return the title of a deck, as its page has it."""
    return path.read_text("utf-8").partition("<title>")[2].partition("</title>")[0]


if __name__ == "__main__":
    sys.exit(main())
