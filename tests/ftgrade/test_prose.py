"""What people wrote is shown as they meant it, and nothing of it runs in a browser or costs a grader its time."""

import time

import pytest
from ftgrade.pages.prose import code_parts, prose


def test_markdown_is_rendered_and_html_stays_text():
    shown = prose("```text\nThe **masks** <b>cost</b>.\n\n- one\n- `two`\n```")
    assert shown == (
        "<p>The <strong>masks</strong> &lt;b&gt;cost&lt;/b&gt;.</p>\n"
        "<ul>\n<li>one</li>\n<li><code>two</code></li>\n</ul>\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        "[a](javascript:alert(1))",
        "![a](https://example.org/a.png)",
        "<img src=x onerror=alert(1)>",
        "[a]: data:text/html,x\n\n[a]",
    ],
)
def test_no_script_s_address_and_no_picture_is_let_through(words: str):
    shown = prose(words)
    assert "<img" not in shown
    assert 'href="javascript' not in shown
    assert 'href="data' not in shown


@pytest.mark.parametrize("unit", ["[", "*a ", "`", "> ", "![", "<a ", "_", "[](", "- ", "| a "])
def test_words_made_to_take_long_are_read_at_once(unit: str):
    start = time.process_time()
    prose((unit * 20_000)[:20_000])
    assert time.process_time() - start < 5


def test_a_very_long_text_is_shown_as_it_is():
    assert prose("<" * 20_001) == f"<pre>{'&lt;' * 20_001}</pre>"


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_a_long_docstring_stands_apart_and_no_line_is_lost(quotes: str):
    long, short = f"    r{quotes}One.\n\n    Two.\n\n    {quotes}", f"    {quotes}Short.{quotes}"
    source = f"def f(x):\n{long}\n    return x\n\ndef g():\n{short}\n"
    parts = code_parts(source)
    assert [folded for folded, _ in parts] == [False, True, False]
    assert "\n".join(text for _, text in parts) == source


@pytest.mark.parametrize("source", ["", "x = 1", 'def f():\n    """open', '"""a\n\n\n\n"""', 'x = """a\n\n\n\n"""'])
def test_what_is_no_docstring_of_a_function_stays_in_the_code(source: str):
    assert "\n".join(text for _, text in code_parts(source)) == source
    assert not any(folded for folded, _ in code_parts(source))
