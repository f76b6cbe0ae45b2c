"""The course as web pages that need no network: stage the notebooks, run them, hand them to Sphinx.

    python3 start.py site                    every part that is written; open site/out/html/index.html
    python3 start.py site --parts 5 --serve  one part, then a server on this machine

What a notebook's code gave is kept until the code changes, or a file of the library that it reaches, or torch.
"""

import argparse
import http.server
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the site's other modules stand beside this one, which tests load by its path

import figures  # noqa: E402
import live  # noqa: E402
import reach  # noqa: E402
import settle  # noqa: E402
import workbench  # noqa: E402

ROOT = HERE.parent
LIBRARY = ROOT / "course" / "ftmath"
LIMIT_SECONDS = 600
FIRST = ("formulas", "glossary")
TREE = "```{{toctree}}\n:hidden:\n{options}\n{pages}\n```"
Notebook = dict[str, Any]


def main(words: Sequence[str] | None = None) -> int:
    """Build the site that the words ask for; return the exit status."""
    asked = arguments(words)
    import finetune

    out: Path = asked.out.resolve()
    pages = staged(ROOT, out / "staged", set(asked.parts))
    lessons = [page for page in pages if "source" not in page.relative_to(out / "staged").parts]
    try:
        run_all([] if asked.no_run else lessons, out, asked.jobs)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    finetune.add_twin(out / "staged", out / "kept", run=not asked.no_run)
    status = render(out)
    if status == 0:
        finetune.write_bundle(out / "html" / "_static" / "finetune")
        print(f"The site is in {out / 'html'}: {len(pages)} notebooks.")
    if status == 0 and asked.serve:
        serve(out / "html")
    return status


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="start.py site", description="Write the course as web pages.")
    parser.add_argument(
        "--parts", type=int, nargs="*", default=range(1, 100), help="only these (the front door always)"
    )
    parser.add_argument("--out", type=Path, default=HERE / "out", help="where to (site/out)")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="notebooks run at once")
    parser.add_argument("--no-run", action="store_true", help="without outputs: seconds, to look at links and words")
    parser.add_argument("--serve", action="store_true", help="then serve the pages to this machine")
    return parser.parse_args(words)


# ------------------------------------------------------------------------------------------------------------- staging


def staged(root: Path, text: Path, parts: set[int]) -> list[Path]:
    """Copy the front door, the parts, the problems and the sheets to `text`, and return the notebooks."""
    import finetune

    shutil.rmtree(text, ignore_errors=True)
    course = root / "course"
    chosen = [path for path in sorted(course.glob("[0-9][0-9]_*/*.ipynb")) if int(path.parent.name[:2]) in parts]
    lab = sorted((course / "lab").glob("*.ipynb"))
    problems = sorted((root / "source").glob("*/*.ipynb"))
    sheets = sorted(course.glob("*.md"), key=lambda path: (path.stem not in FIRST, path.stem))
    sheets.append(root / "docs" / "elsewhere.md")
    front = stage(course / "index.ipynb", depth=0)
    for caption, pages in {
        "Parts": [f"{path.parent.name}/theory" for path in chosen if path.stem == "theory"],
        "Lab": [finetune.PAGE, *(f"lab/{path.stem}" for path in lab)],
        "Graded problems": [f"source/{path.parent.name}/{path.stem}" for path in problems],
        "To look things up": [path.stem for path in sheets],
    }.items():
        front = add_tree(front, caption, pages)
    placed = {text / "index.ipynb": front}
    for path in chosen:
        notebook = workbench.fitted(stage(path, depth=1), depth=1)
        if path.stem == "theory" and path.with_name("exercises.ipynb") in chosen:
            notebook = add_tree(notebook, "", ["exercises"])
        if path.stem == "theory":
            notebook = finetune.linked(notebook, path.parent.name)
        placed[text / path.relative_to(course)] = notebook
    placed |= {text / path.relative_to(course): stage(path, depth=1) for path in lab}
    placed |= {text / path.relative_to(root): workbench.fitted(stage(path, depth=2), depth=2) for path in problems}
    pages = {path: json.dumps(notebook, ensure_ascii=False) for path, notebook in placed.items()}
    pages |= {text / path.name: local_links(path.read_text("utf-8"), depth=0) for path in sheets}
    pages[text / f"{finetune.PAGE}.md"] = finetune.page()
    for path, said in pages.items():
        write(path, without_dead_links(said, path, set(pages)))
    return list(placed)


def stage(path: Path, depth: int) -> Notebook:
    """Return a notebook with the links and the cells that the site shows."""
    notebook: Notebook = json.loads(path.read_text("utf-8"))
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = local_links(source, depth)
        else:  # nbgrader takes these lines out when it releases a problem; so does the site
            cell["source"] = re.sub(r"^\s*### (BEGIN|END) SOLUTION\n?", "", source, flags=re.MULTILINE).rstrip()
    return notebook


def local_links(text: str, depth: int) -> str:
    """Return a text whose links to problems and to the course fit the site, where `course` is the top.

    >>> local_links("[p03](../../source/p03/p03.ipynb)", depth=1)
    '[p03](../source/p03/p03.ipynb)'
    """
    up = "../" * depth
    return text.replace(f"]({up}../source/", f"]({up}source/").replace("](../../course/", "](../../")


def without_dead_links(text: str, path: Path, pages: set[Path]) -> str:
    """Return a page's text in which links to pages that aren't in the site are words."""

    def kept(found: re.Match[str]) -> str:
        target = found[2].partition("#")[0]
        reached = Path(os.path.normpath(path.parent / target))
        return found[0] if reached in pages or not target.endswith((".ipynb", ".md")) or ":" in target else found[1]

    return re.sub(r"\[([^\[\]]*)\]\(([^()\s]+)\)", kept, text)


def add_tree(notebook: Notebook, caption: str, pages: list[str]) -> Notebook:
    """Return a notebook with a hidden table of contents at its end, from which Sphinx makes the sidebar."""
    if not pages:
        return notebook
    options = f":caption: {caption}\n" if caption else ""
    tree = TREE.format(options=options, pages="\n".join(pages))
    cell = {"cell_type": "markdown", "id": f"tree-{len(notebook['cells'])}", "metadata": {}, "source": tree}
    return notebook | {"cells": [*notebook["cells"], cell]}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


# ------------------------------------------------------------------------------------------------------------- running


def run_all(pages: list[Path], out: Path, jobs: int) -> None:
    """Put the outputs into every notebook, each from a kernel of its own or from what is kept of an earlier run."""
    from tqdm import tqdm

    # What a learner did on this machine is nobody else's business.
    os.environ["FTMATH_PROGRESS"] = str(out / "progress.json")
    os.environ["MATPLOTLIBRC"] = str(HERE / "matplotlibrc")
    (out / "progress.json").unlink(missing_ok=True)
    kept = out / "kept"
    kept.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs) as pool:
        runs = pool.map(partial(run, kept=kept), pages)
        for _ in tqdm(runs, total=len(pages), desc="running the notebooks", unit=" notebooks", file=sys.stdout):
            pass


def run(page: Path, kept: Path) -> None:
    """Put the outputs into a notebook: those that its code gave before, or those of a run, whose errors are raised."""
    notebook: Notebook = json.loads(page.read_text("utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    codes = ["".join(cell["source"]) for cell in cells]
    settings = page.stem + (HERE / "matplotlibrc").read_text("utf-8")
    done = kept / f"{reach.fingerprint(codes, LIBRARY, page.parent.name, settings)[:24]}.json"
    if not done.is_file():
        write(done, json.dumps(outputs(page)))
    for cell, found in zip(cells, json.loads(done.read_text("utf-8")), strict=True):
        cell["outputs"] = [figures.themed(live.alive(output)) for output in found if lasts(output)]
    write(page, json.dumps(notebook, ensure_ascii=False))


def lasts(output: Notebook) -> bool:
    """Say whether an output is one for readers: not the bar of a run, nor how far somebody's exercises are.

    >>> lasts({"data": {"text/plain": "train:  62%|######2   | 31/50 [00:05<00:03]"}})
    False
    """
    data = output.get("data", {})
    bar = re.search(r"\d+%\|", "".join(data.get("text/plain", "")))
    return not bar and "<caption>Your exercises" not in "".join(data.get("text/html", ""))


def outputs(page: Path) -> list[Any]:
    """Return the outputs of each code cell of a notebook, run in its own folder."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(page, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=LIMIT_SECONDS,
        resources={"metadata": {"path": str(page.parent)}},
        extra_arguments=["--log-level=ERROR"],  # each kernel would warn that its messages stay on this machine in clear
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise RuntimeError(f"{page.parent.name}/{page.name} doesn't run through:\n{error}") from None
    shown = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return [[live.with_data(output, client.widget_state) for output in outputs] for outputs in shown]


# ----------------------------------------------------------------------------------------------------------- rendering


def heading_id(title: str) -> str:
    """Return the name by which JupyterLab's links reach a heading.

    >>> heading_id("5.1 Rank constraint")
    '5.1-Rank-constraint'
    """
    return title.replace(" ", "-")


def render(out: Path) -> int:
    """Hand the staged text to Sphinx, which reads what changed since its last success; return its exit status."""
    from sphinx.cmd.build import main as sphinx

    made = (out / "doctrees", out / "html")
    if not settle.mirror(out / "staged", out / "text"):
        settle.forget(*made)
    places = ["-c", str(HERE), "-d", str(out / "doctrees"), str(out / "text"), str(out / "html")]
    # Every page is written, since each shows the others' titles beside it; what takes long is reading.
    status = sphinx(["-b", "html", "-a", "-q", "-W", "--keep-going", *places])
    if status:  # a warning is given once, when its page is read: the next try reads all pages again
        settle.forget(*made)
    return status


def serve(folder: Path, port: int = 8000) -> None:
    """Serve a folder to this machine until it's interrupted."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{port}/ (Ctrl+C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    sys.exit(main())
