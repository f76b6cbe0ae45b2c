"""A notebook's text as HTML with its formulas in MathML, which a browser sets by itself: no script, no network."""

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


class MathML(IPythonRenderer):
    """nbconvert's renderer, which leaves TeX to a script from the network, with the formulas set."""

    def inline_math(self, body: str) -> str:
        return convert(body)

    def block_math(self, body: str) -> str:
        return convert(body, display="block")

    def latex_environment(self, name: str, body: str) -> str:
        return convert(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block")


def markdown_html(source: str) -> str:
    """Return Markdown as HTML. Only text of ours holds formulas: a student's words are fenced, and shown as they are.

    >>> markdown_html("Rank `r` is $r$").count("<math")
    1
    """
    return MarkdownWithMath(renderer=MathML(escape=False)).render(source)
