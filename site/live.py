"""Widgets that answer without a kernel: a page carries a widget's data, and the widget's own script draws it.

A notebook's run records the state of each widget. What the reader's machine needs of it stands in the page itself,
beside the static twin, since a page that is opened from disk may fetch nothing. For the same reason the scripts, which
are modules in a notebook, are joined into one classic script.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WIDGETS = Path(__file__).resolve().parent.parent / "course" / "ftmath" / "widgets"
VIEW = "application/vnd.jupyter.widget-view+json"
DATA = "application/vnd.ftmath.widget+json"
KINDS = {"explorer": ("table", "state"), "painter": ("line", "mask")}
"""A widget's script without its suffix, and the names of the values that it draws."""
Output = dict[str, Any]


def with_data(output: Output, states: Mapping[str, Mapping[str, Any]]) -> Output:
    """Return an output of a run; a widget's carries what its script draws, from the states that the run recorded.

    >>> states = {"7": {"line": {"title": "A line"}, "mask": [0, 1], "layout": "IPY_MODEL_6"}}
    >>> with_data({"data": {VIEW: {"model_id": "7"}}}, states)["data"][DATA]
    {'kind': 'painter', 'values': {'line': {'title': 'A line'}, 'mask': [0, 1]}}
    """
    data = output.get("data", {})
    state = states.get(data.get(VIEW, {}).get("model_id"), {})
    for kind, names in KINDS.items():
        if all(name in state for name in names):
            values = {name: state[name] for name in names}
            return {**output, "data": {**data, DATA: {"kind": kind, "values": values}}}
    return output


def alive(output: Output) -> Output:
    """Return an output as a page shows it: a widget's static twin stands beside its data, for the script to find.

    >>> data = {DATA: {"kind": "painter", "values": {"mask": ["<"]}}, "text/html": "<p>twin</p>"}
    >>> print(alive({"data": data})["data"]["text/html"])
    <div class="ftmath-live" data-kind="painter"><p>twin</p>
    <script type="application/json">{"mask":["\\u003c"]}</script></div>
    """
    data = dict(output.get("data", {}))
    found = data.pop(DATA, None)
    if found is None:
        return output
    said = json.dumps(found["values"], ensure_ascii=False, separators=(",", ":"))
    script = said.replace("<", "\\u003c")  # no text may end the script
    data["text/html"] = (
        f'<div class="ftmath-live" data-kind="{found["kind"]}">{"".join(data["text/html"])}\n'
        f'<script type="application/json">{script}</script></div>'
    )
    return {**output, "data": data}


def classic(module: str) -> str:
    """Return a module's text as an expression of a classic script, whose value is the module's default export.

    >>> print(classic("export const one = 1;\\nexport default { render };"))
    (() => {
    const one = 1;
    return { render };
    })()

    Errors: ValueError for a module that imports another, or that exports in a form not known here.
    """
    text = re.sub(r"^export default ", "return ", module, flags=re.MULTILINE)
    text = re.sub(r"^export (?=function |const )", "", text, flags=re.MULTILINE)
    left = re.search(r"^(import|export)\b.*", text, flags=re.MULTILINE)
    if left:
        raise ValueError(f"a widget's script must stand alone to be joined with others, got {left[0]!r}")
    return f"(() => {{\n{text.strip()}\n}})()"


def write_scripts(folder: Path) -> None:
    """Write the script and the style sheet of all widgets into a folder of pages."""
    folder.mkdir(parents=True, exist_ok=True)
    made = "\n".join(
        f"ftmathWidgets.{kind} = {classic((WIDGETS / f'{kind}.js').read_text('utf-8'))};" for kind in KINDS
    )
    (folder / "widgets.js").write_text(f"const ftmathWidgets = {{}};\n{made}\n", "utf-8")
    (folder / "explorer.css").write_text((WIDGETS / "explorer.css").read_text("utf-8"), "utf-8")
