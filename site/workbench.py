"""Exercises that run in the page: Python as WebAssembly beside the pages, and a bench under each exercise.

`fitted` marks the places in a notebook. As an extension of Sphinx this file lays down what the marks need: Pyodide,
from npm's registry by its pinned version, and ftmath's checks, cut down to the exercises that work without torch.
Which ones these are is tried out, not listed. Where npm can't be asked, the site is built without benches.
"""

import ast
import html
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from cuttings import CHECKS, Cutting, companion, cuttings, written

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parent / "course" / "ftmath"
KEPT = HERE / "out" / "pyodide"
CORE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
WHOLE = ("progress.py", "checks.py", "exercises/__init__.py", "exercises/exercise.py")
WAYS = (
    'This {what} needs {packages}, and a page has Python alone. <a href="{up}elsewhere.html">Other ways to run it</a>.'
)
PERSONAL = "personal_number"  # its question is each student's own, and its public check can't tell a right answer
Notebook = dict[str, Any]
Cell = dict[str, Any]


# ------------------------------------------------------------------------------------------------------------- Python


@cache
def pyodide() -> Path | None:
    """Return the folder of Pyodide's files, fetched once; None, and a line that says why, where that fails."""
    kept = KEPT / "node_modules" / "pyodide"
    pinned = json.loads((HERE / "pyodide" / "package.json").read_text("utf-8"))["dependencies"]["pyodide"]
    try:
        if json.loads((kept / "package.json").read_text("utf-8"))["version"] == pinned:
            return kept
    except (OSError, ValueError):
        pass
    try:
        fetch(HERE / "pyodide", KEPT)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        print(f"The exercises won't run in the page: npm can't get pyodide {pinned} ({said[0] if said else error}).")
        return None
    return kept


def fetch(lock: Path, kept: Path) -> None:
    """Let npm install what a folder's lock names, beside the place, and move it there whole."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(lock / name, folder)
        words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True, timeout=300)  # noqa: S603
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, dirs_exist_ok=True)


# ----------------------------------------------------------------------------------------------------------- exercises


@cache
def tried() -> dict[str, tuple[Cutting, bool]]:
    """Return every exercise by its number, and whether it works where only the standard library is."""
    stdlib = sys.stdlib_module_names
    found = [(path, one) for path in sorted(LIBRARY.glob("exercises/part*.py")) for one in cuttings(path, stdlib)]
    fit = [(path, one) for path, one in found if all(companion(name, LIBRARY, stdlib) for name in one.foreign)]
    with tempfile.TemporaryDirectory() as folder:
        lay_library(Path(folder), [one for _, one in fit])
        names = {f"try_{place}": one.number for place, (_, one) in enumerate(fit)}
        for name, (path, one) in zip(names, fit, strict=True):
            (Path(folder) / "ftmath" / "exercises" / f"{name}.py").write_text(written(path, [one]), "utf-8")
        working = {names[name] for name in working_of(Path(folder), list(names))}
    return {one.number: (one, one.number in working) for _, one in found}


def working_of(folder: Path, names: list[str]) -> list[str]:
    """Return which modules of one exercise each work, tried by a Python that has its standard library alone."""
    code = (
        "import json, os, sys; sys.path.insert(0, sys.argv[1]); os.environ['FTMATH_PROGRESS'] = os.devnull; "
        "import bench; print(json.dumps(bench.workable(json.loads(sys.argv[2]))))"
    )
    words = [sys.executable, "-I", "-S", "-c", code, str(folder), json.dumps(names)]
    found = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300)  # noqa: S603
    return json.loads(found.stdout)


def lay_library(folder: Path, chosen: list[Cutting]) -> None:
    """Write what the chosen exercises need of ftmath, without their parts' files."""
    modules = {name for one in chosen for name in one.foreign} - {CHECKS}
    files = [*WHOLE, *(f"{name.removeprefix('ftmath.').replace('.', '/')}.py" for name in sorted(modules))]
    (folder / "ftmath" / "exercises").mkdir(parents=True, exist_ok=True)
    for name in files:
        shutil.copy(LIBRARY / name, folder / "ftmath" / name)
    head = '"""What a page has of the library."""\n\nfrom ftmath.checks import check\n\n__all__ = ["check"]\n'
    (folder / "ftmath" / "__init__.py").write_text(head, "utf-8")
    shutil.copy(HERE / "in_page" / "bench.py", folder / "bench.py")


def pack(target: Path) -> None:
    """Write the archive that a page's Python imports: the checks, and the exercises that work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_library(folder, [one for one, works in tried().values() if works])
        for path in sorted(LIBRARY.glob("exercises/part*.py")):
            chosen = [one for one in cuttings(path, sys.stdlib_module_names) if tried()[one.number][1]]
            (folder / "ftmath" / "exercises" / path.name).write_text(written(path, chosen), "utf-8")
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*.py")):
                archive.write(path, path.relative_to(folder))


# ------------------------------------------------------------------------------------------------------------- marking


def fitted(notebook: Notebook, depth: int) -> Notebook:
    """Return a notebook with a bench, or a sentence, after each cell in which a reader writes a function."""
    if pyodide() is None:
        return notebook
    cells: list[Cell] = []
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    imports, missing = given(notebook["cells"])
    for place, cell in enumerate(notebook["cells"]):
        cells.append(cell)
        function = stub_of(cell)
        if not function:
            continue
        after = [calls_of(source, function) for source in sources[place + 1 : place + 4]]
        mark = exercise_mark(function, after, depth) or problem_mark(function, sources[place], after, missing, depth)
        if mark:
            text = mark if isinstance(mark, str) else bench(mark | {"function": function, "imports": imports})
            cells.append({"cell_type": "markdown", "id": f"bench-{place}", "metadata": {}, "source": text})
    return notebook | {"cells": cells}


def stub_of(cell: Cell) -> str:
    """Return the name of the one function that a cell asks for; an empty text if it's another kind of cell."""
    if cell["cell_type"] != "code":
        return ""
    try:
        body = ast.parse("".join(cell["source"])).body
    except SyntaxError:
        return ""
    return body[0].name if len(body) == 1 and isinstance(body[0], ast.FunctionDef) else ""


def calls_of(source: str, function: str) -> ast.Call | None:
    """Return the call of a check in a cell, if that's what the cell is."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return None
    call = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr) else None
    right = isinstance(call, ast.Call) and ast.unparse(call.func) in ("check_exercise", "check")
    return call if right and function in map(ast.unparse, call.args) else None


def exercise_mark(function: str, after: list[ast.Call | None], depth: int) -> dict[str, Any] | str:
    """Return what the bench of an exercise has to know, or the sentence that stands in its place."""
    call = after[0] if after else None
    if call is None or ast.unparse(call.func) != "check_exercise":
        return ""
    number = str(ast.literal_eval(call.args[0]))
    one, works = tried()[number]
    if not works:
        return elsewhere("exercise", one.foreign & {"torch", "numpy"} or {"torch"}, depth)
    return {"kind": "check", "number": number, "title": f"{number} {one.title}", "hides": 2}


def problem_mark(
    function: str, stub: str, after: list[ast.Call | None], missing: set[str], depth: int
) -> dict[str, Any] | str:
    """Return what the bench of a problem's function has to know, or the sentence that stands in its place."""
    calls = [call for call in after if call is not None]
    if not calls or ast.unparse(calls[0].func) != "check" or function == PERSONAL:
        return ""
    lines = [line for line in stub.splitlines() if line.lstrip().startswith((">>>", "..."))]
    needed = {name for name in missing for line in lines if name in words_of(line)}
    if needed - {"np"}:
        return elsewhere("function", {"torch"}, depth)
    asked = [
        {
            "name": str(ast.literal_eval(call.args[1])),
            **{word.arg: ast.literal_eval(word.value) for word in call.keywords},
        }
        for call in calls
    ]
    return {
        "kind": "examples", "number": function, "title": function, "hides": len(calls), "checks": asked,
        "missing": sorted(missing),
    }  # fmt: skip


def words_of(line: str) -> set[str]:
    return set("".join(sign if sign.isidentifier() or sign.isdigit() else " " for sign in line).split())


def given(cells: list[Cell]) -> tuple[str, set[str]]:
    """Return a notebook's imports from the standard library, as text, and the names that its other imports bring."""
    lines, missing = list[str](), set[str]()
    trees = [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    for node in (node for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)):
        module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        if str(module).partition(".")[0] in sys.stdlib_module_names:
            lines.append(ast.unparse(node))
        else:
            missing |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return "\n".join(lines), missing - {"check", "check_exercise", "hint", "progress", "solution"}


def bench(mark: dict[str, Any]) -> str:
    return f'<div class="workbench" hidden data-bench="{html.escape(json.dumps(mark))}"></div>'


def elsewhere(what: str, packages: frozenset[str] | set[str], depth: int) -> str:
    said = WAYS.format(what=what, packages=" and ".join(sorted(packages)), up="../" * depth)
    return f'<p class="workbench-elsewhere">{said}</p>'


# ----------------------------------------------------------------------------------------------------------- extension


def called_for(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Ask for the bench's script and style on the pages that have one."""
    if 'class="workbench' in context.get("body", ""):
        app.add_css_file("workbench.css")
        app.add_js_file("workbench.js", loading_method="defer")


def lay_down(app: Any, error: Exception | None) -> None:
    """Put Python and the checks beside the pages."""
    found = pyodide()
    if error or found is None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "pyodide"
    target.mkdir(parents=True, exist_ok=True)
    for name in CORE:
        shutil.copy(found / name, target / name)
    pack(target / "ftmath.zip")


def setup(app: Any) -> dict[str, bool]:
    app.connect("html-page-context", called_for)
    app.connect("build-finished", lay_down)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
