"""The command line `ftmath`."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ftmath.learn.contents import contents
from ftmath.learn.laying import RECORD, Laid, lay_down
from ftmath.starter import PACKED

FOLDER = Path("fine-tuning-math")
FRONT = "course/index.ipynb"
STARTS = re.compile(rb"python3 start\.py(?=[\s\\n\",]+(?:model|lab)\b)")  # a notebook's line may break in between


class Trouble(Exception):
    """Something that the learner can mend, in one line."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    reader = parser()
    asked, more = reader.parse_known_args(words)
    if more and asked.command != "learn":
        reader.error(f"{more[0]} isn't known: `ftmath {asked.command} --help` shows what is")
    try:
        return run(asked, more)
    except Trouble as trouble:
        sys.stderr.write(f"ftmath: {trouble}\n")
        return 1


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("ftmath", description="Open the course Fine-Tuning Math, and what belongs to it.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    learn = commands.add_parser(
        "learn",
        help="write the course into a folder and open it in JupyterLab",
        epilog="Other options, such as --allow-root or --ip=ADDRESS, are handed on to JupyterLab.",
    )
    learn.add_argument("folder", nargs="?", type=Path, default=FOLDER, metavar="DIR", help=f"by default ./{FOLDER}")
    learn.add_argument("--no-open", action="store_true", help="write the course and start nothing")
    learn.add_argument("--no-browser", action="store_true", help="start JupyterLab and print its address")
    learn.add_argument("--port", type=int, help="JupyterLab's port; without it, a free one from 8888 on")
    commands.add_parser("progress", help="list the exercises that you have done")
    model = commands.add_parser("model", help="fetch a real language model for some demos (93 MB)")
    model.add_argument("name", choices=["smollm2"])
    lab = commands.add_parser("lab", help="predict and measure a training step's bytes and speed", add_help=False)
    lab.add_argument("words", nargs=argparse.REMAINDER)
    return top


def run(asked: argparse.Namespace, more: Sequence[str]) -> int:
    """Do what was asked; `more` is for JupyterLab. Raises Trouble."""
    if asked.command == "progress":
        from ftmath.exercises import progress

        sys.stdout.write(f"{progress()}\n")
        return 0
    if asked.command == "model":
        return interpret(["-W", "ignore::RuntimeWarning:runpy", "-m", "ftmath.smollm"])
    if asked.command == "lab":
        return interpret(["-m", "ftmath.lab", *asked.words])
    write_course(asked.folder)
    return 0 if asked.no_open else open_course(asked.folder.resolve(), asked.no_browser, asked.port, more)


def write_course(folder: Path) -> None:
    """Lay the course down, and say what was done. Raises Trouble."""
    demand_folder(folder)
    try:
        laid = lay_down(course_files(), folder)
    except OSError as error:
        raise Trouble(f"{folder} can't be written to ({error.strerror}): name another folder") from None
    sys.stdout.write("".join(f"{line}\n" for line in laid_lines(laid, folder)))
    sys.stdout.flush()


def demand_folder(folder: Path) -> None:
    """Raise Trouble for a folder that is in use for something else."""
    if folder.exists() and not folder.is_dir():
        raise Trouble(f"{folder} is a file: name a folder")
    if (folder / "start.py").is_file():
        raise Trouble(f"{folder} holds the course already: `python3 start.py` opens it there")
    if not (folder / RECORD).is_file() and not (folder / FRONT).is_file() and folder.is_dir() and any(folder.iterdir()):
        raise Trouble(f"{folder} holds other files: name a new or an empty folder, such as {folder / FOLDER}")


def course_files() -> dict[str, bytes]:
    """Return the files of a learner's folder by their names, from the wheel or from the project's folder."""
    if PACKED.is_dir():
        paths = {path.relative_to(PACKED).as_posix(): path for path in sorted(PACKED.rglob("*")) if path.is_file()}
    else:
        paths = contents(PACKED.parents[2])
    return {name: as_laid_down(path.read_bytes()) for name, path in paths.items()}


def as_laid_down(data: bytes) -> bytes:
    """Return a file's bytes with the names of folders and commands that a learner has.

    >>> as_laid_down(b"[3](../source/p03) needs `python3 start.py model smollm2`")
    b'[3](../problems/p03) needs `ftmath model smollm2`'
    """
    return STARTS.sub(b"ftmath", data.replace(b"../source/", b"../problems/"))


def laid_lines(laid: Laid, folder: Path) -> list[str]:
    """Return what was done, in words."""
    lines = [f"The course is in {folder}: {len(laid.written)} files written, {len(laid.updated)} brought up to date."]
    if laid.left:
        lines.append(f"Left as they are, since you changed them: {', '.join(laid.left)}.")
    if laid.beside:
        lines.append(f"The course has newer versions of some; they stand beside yours: {', '.join(laid.beside)}.")
    return lines


# ---------------------------------------------------------------------------------------------------------- JupyterLab


def open_course(folder: Path, no_browser: bool, port: int | None, more: Sequence[str]) -> int:
    """Start JupyterLab on the front door. Raises Trouble."""
    demand_jupyterlab()
    # Named as a file to open, the front door would make its folder the root, and no link could lead out of course/.
    words = ["-m", "jupyterlab", f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{FRONT}"]
    words += [*(["--no-browser"] if no_browser else []), *([f"--port={port}"] if port is not None else []), *more]
    return interpret(words, {"JUPYTER_CONFIG_PATH": settings(folder)})


def demand_jupyterlab() -> None:
    """Raise Trouble where there is no JupyterLab, with the command that installs it beside this library."""
    if find_spec("jupyterlab"):
        return
    needs = [line.partition(";") for line in metadata.requires("fine-tuning-math") or ()]
    course = " ".join(f'"{need.strip()}"' for need, _, marker in needs if re.search(r"extra == .course.", marker))
    installer = "-m pip install" if find_spec("pip") else "pip install --python"
    words = f"{sys.executable} {installer}" if find_spec("pip") else f"uv {installer} {sys.executable}"
    raise Trouble(f"JupyterLab isn't installed beside the course: run `{words} {course}`, then this command again")


def settings(folder: Path) -> str:
    """Return where JupyterLab looks for settings: in the course's own first."""
    return os.pathsep.join(filter(None, [str(folder / "course" / ".jupyter"), os.environ.get("JUPYTER_CONFIG_PATH")]))


def interpret(words: Sequence[str], more: dict[str, str] | None = None) -> int:
    """Run the interpreter in place of this one, with more in its environment; on Windows, beside it."""
    program, environment = [sys.executable, *words], os.environ | (more or {})
    if os.name != "nt":  # there, replacing a process would give the terminal back too early
        os.execve(program[0], program, environment)  # noqa: S606
    return subprocess.run(program, env=environment, check=False).returncode  # noqa: S603


def program() -> None:
    """Be the command `ftmath`."""
    sys.exit(main())


__all__ = ["main", "program"]
