"""What people wrote, as a page shows it: words as Markdown without any HTML, code with its long docstrings apart."""

from functools import cache

from markdown_it import MarkdownIt
from markupsafe import escape

LONGEST = 20_000  # characters; a longer text is shown as it is
FOLDED_LINES = 4
QUOTES = '"""', "'''"


@cache
def reader() -> MarkdownIt:
    """Return a reader of Markdown that escapes HTML, follows no script's address and loads no picture."""
    return MarkdownIt("js-default", {"html": False, "linkify": False}).disable(["image", "linkify"])


def prose(text: str) -> str:
    """Return words as HTML; those of an answer stand in a fence, as formgrader shows them.

    >>> prose("The *masks* <b>cost</b>")
    '<p>The <em>masks</em> &lt;b&gt;cost&lt;/b&gt;</p>\\n'
    """
    words = unfenced(text)
    if len(words) > LONGEST:
        return f"<pre>{escape(words)}</pre>"
    return reader().render(words)


def unfenced(text: str) -> str:
    """Return the text in a fence, or the text itself.

    >>> unfenced("```text\\na *b*\\n```"), unfenced("a")
    ('a *b*', 'a')
    """
    lines = text.split("\n")
    ticks = lines[0].removesuffix("text")
    is_fence = len(lines) > 2 and len(ticks) > 2 and set(ticks) == {"`"} and lines[-1] == ticks
    return "\n".join(lines[1:-1]) if is_fence else text


def code_parts(source: str) -> list[tuple[bool, str]]:
    """Return a cell's code in parts, each with whether it is a docstring of several lines. Nothing is parsed.

    >>> code_parts("def f():\\n    '''One.\\n\\n    Two.\\n    '''\\n    return 1")
    [(False, 'def f():'), (True, "    '''One.\\n\\n    Two.\\n    '''"), (False, '    return 1')]
    """
    parts: list[tuple[bool, list[str]]] = [(False, [])]
    lines = source.split("\n")
    place = 0
    while place < len(lines):
        end = docstring_end(lines, place)
        if end - place >= FOLDED_LINES:
            parts += [(True, lines[place:end]), (False, [])]
        else:
            parts[-1][1].extend(lines[place:end])
        place = end
    return [(folded, "\n".join(some)) for folded, some in parts if some]


def docstring_end(lines: list[str], place: int) -> int:
    """Return the line after a docstring that begins in this one, under a line that ends in a colon; else the next."""
    opened = lines[place].strip().lstrip("rR")
    mark = opened[:3]
    if place == 0 or mark not in QUOTES or not lines[place - 1].rstrip().endswith(":") or mark in opened[3:]:
        return place + 1
    for end in range(place + 1, len(lines)):
        if mark in lines[end]:
            return end + 1
    return place + 1


__all__ = ["code_parts", "prose"]
