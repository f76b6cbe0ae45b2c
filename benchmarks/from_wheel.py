"""Seconds from a folder of wheels to the first passed check, in an empty folder and without a network.

    python3 start.py wheelhouse DIR
    python3 benchmarks/from_wheel.py DIR [--uv]

Each step is what a learner does. The answer to the first exercise is the library's own; a kernel of the new environment
runs the notebook's cells as JupyterLab would. JupyterLab itself is started too, until it serves the front door.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

PORT = 8931
FOLDER = "fine-tuning-math"
FIRST_CHECK = """
import inspect, nbformat
from nbclient import NotebookClient
from ftmath.exercises import exercise

folder = "fine-tuning-math/course/01_local_adaptation"
notebook = nbformat.read(f"{folder}/exercises.ipynb", as_version=4)
cells = notebook.cells
place = next(at for at, cell in enumerate(cells) if cell.source.startswith('check_exercise("1.1"'))
cells[place - 1].source = inspect.getsource(exercise("1.1").reference)
notebook.cells = cells[: place + 1]
NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
said = notebook.cells[-1].outputs[0].data["text/html"]
assert "right" in said and "not right" not in said, said
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("--uv", action="store_true", help="install with `uv tool install`")
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="from-wheel-"))
    try:
        steps(place, asked.wheels.resolve(), asked.uv)
    finally:
        shutil.rmtree(place)


def steps(place: Path, wheels: Path, uv: bool) -> None:
    bin_folder = place / ("tools/fine-tuning-math/bin" if uv else "env/bin")
    links = ["--no-index", "--find-links", str(wheels), "fine-tuning-math[course]"]
    install = ["uv", "tool", "install", *links] if uv else [str(bin_folder / "python"), "-m", "pip", "install", *links]
    total = 0.0 if uv else timed("an environment", lambda: run(place, [sys.executable, "-m", "venv", "env"]))
    total += timed("the installation", lambda: run(place, install))
    total += timed("the course in a folder", lambda: run(place, [str(bin_folder / "ftmath"), "learn", "--no-open"]))
    total += timed("JupyterLab serves it", lambda: serve(place, bin_folder))
    total += timed("the first passed check", lambda: run(place, [str(bin_folder / "python"), "-c", FIRST_CHECK]))
    print(f"{total:7.1f} s  in all")


def timed(name: str, step: Callable[[], None]) -> float:
    begun = time.monotonic()
    step()
    seconds = time.monotonic() - begun
    print(f"{seconds:7.1f} s  {name}", flush=True)
    return seconds


def environment(place: Path) -> dict[str, str]:
    """Return an environment that knows neither this checkout nor anything of the person's."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    places = {"UV_TOOL_DIR": place / "tools", "UV_TOOL_BIN_DIR": place / "bin", "HOME": place}
    return kept | {name: str(path) for name, path in places.items()}


def run(place: Path, words: list[str]) -> None:
    finished = subprocess.run(words, cwd=place, env=environment(place), text=True, capture_output=True, check=False)
    if finished.returncode:
        sys.exit(f"{' '.join(words[:6])}: {finished.stdout[-2000:]}{finished.stderr[-2000:]}")


def serve(place: Path, bin_folder: Path) -> None:
    """Start the course as a learner does, wait until its front door is served, and stop it."""
    words = [str(bin_folder / "ftmath"), "learn", "--no-browser", f"--port={PORT}", "--allow-root"]
    server = subprocess.Popen(
        words,
        cwd=place,
        env=environment(place) | {"JUPYTER_TOKEN": "first"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{PORT}/api/contents/course/index.ipynb?content=0&token=first"
        while not answers(address):
            if server.poll() is not None:
                sys.exit("JupyterLab ended")
            time.sleep(0.2)
    finally:
        server.terminate()
        server.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as page:
            return page.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    main()
