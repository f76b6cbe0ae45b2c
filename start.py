"""Take a machine with Python 3.11 or later to a working course; nothing but the standard library is needed.

    python3 start.py                 open the course in JupyterLab
    python3 start.py test            run the tests (`test browser`, `course`, `peers`, `hostile`, `cluster`: slow ones)
    python3 start.py test course --nulls   run each conclusion of the notebooks on its control (--record: keep figures)
    python3 start.py site            write the course as web pages, with outputs (site/out/html; minutes)
    python3 start.py slides          write a slide deck for each part (site/out/slides; --parts 5: one of them)
    python3 start.py model smollm2   fetch a real language model for the demos that can use one (93 MB)
    python3 start.py lab             predict and measure a step's bytes and speed; tune one model (--record: keep it;
                                     --model FOLDER: the one in a Hugging Face folder)
    python3 start.py wheelhouse DIR  gather all wheels for a room without a network (DIR course,model: these extras)
    python3 start.py grade --demo    anything else goes to the ftgrade command line
    python3 start.py COMMAND --help  tell of a command of ftgrade: check, release, grade, todo, ...

The first start makes `.venv` beside this file and installs into it; a stamp, written last, says that it's complete.
This file must parse under Python 3.7, so that an old one is told about in words.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / ".complete"
PROFILE = ROOT / "course" / ".jupyter"  # a student's JupyterLab: no tools for instructors, no news at the first start
LOCK = ROOT / "requirements.lock"
OLDEST = (3, 11)
ADAPTERS = VENV / "adapters"  # a library that needs an older transformers than the other peers do
ADAPTERS_NEED = ("adapters==1.3.0", "transformers==4.57.6", "huggingface-hub==0.36.2", "tokenizers==0.22.2")
LOG = VENV / "install.log"
WIDTH = 78
STEP = re.compile(r"\s*(Collecting|Downloading|Building|Preparing|Installing|Resolved)(?: [a-z ]+:)?\s+([\w.-]*)")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
GIB = 2**30

NETWORK_SIGNS = (
    "NewConnectionError",
    "ConnectionError",
    "Max retries",
    "name resolution",
    "timed out",
    "from versions: none",
)
SPACE_SIGNS = ("No space left", "Errno 28", "Disk quota")


class Trouble(Exception):
    """Something that the person at the keyboard can mend, in one line."""


def main(words: list[str]) -> int:
    """Install what is missing and run what was asked for; return its exit status."""
    if words[:1] in (["-h"], ["--help"], ["help"]):
        print(__doc__)
        return 0
    try:
        demand_python(sys.version_info[:2])
        demand_offered(words)
        if words[:1] == ["wheelhouse"]:
            make_wheelhouse(words[1:])
            return 0
        if not complete():
            install()
        if words[:2] in (["test", "peers"], ["test", "adapters"]):
            install_peers()
        if words[:2] == ["test", "adapters"]:
            install_adapters()
        if words == ["model", "smollm2"] or (words[:1] == ["lab"] and "--model" in words):
            install_model()
        if words[:1] in (["site"], ["slides"]) or words[:2] == ["test", "browser"]:
            install_site()
        if words[:2] == ["test", "cluster"]:
            install_cluster()
        return run(command(words))
    except Trouble as trouble:
        print(f"start.py: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstart.py: stopped; the next start goes on from here", file=sys.stderr)
        return 130


def demand_python(version: tuple[int, ...]) -> None:
    """Raise Trouble for a Python that is too old, naming a newer one of this machine if there is one."""
    if version >= OLDEST:
        return
    newer = [name for name in ("python3.14", "python3.13", "python3.12", "python3.11") if runs(name)]
    mend = f"run `{newer[0]} start.py`" if newer else "install a newer one from python.org"
    raise Trouble(f"Python 3.11 or later is needed and this is {version[0]}.{version[1]}: {mend}")


def runs(name: str) -> bool:
    """Say whether a program of this name starts; pyenv puts names on the path that only print an error."""
    found = shutil.which(name)
    return found is not None and quiet([found, "--version"]).returncode == 0


def has_autograder() -> bool:
    """Say whether this is the whole project; a student's bundle (`ftgrade release --bundle`) has no autograder."""
    return (ROOT / "autograder").is_dir()


def demand_offered(words: list[str]) -> None:
    """Raise Trouble for words that ask for something that a student's bundle doesn't hold."""
    if words and words[0] not in ("model", "lab") and not has_autograder():
        raise Trouble(
            f"this folder is the course for students, without `{words[0]}`: `python3 start.py` opens it, and "
            "`python3 start.py model smollm2` fetches a real language model"
        )


# --------------------------------------------------------------------------------------------------------- installing


def python() -> Path:
    """Return the environment's interpreter."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint() -> str:
    """Return what an installation depends on: the versions, declared and locked, this Python, and the folder's path."""
    parts = [
        (ROOT / "pyproject.toml").read_bytes(),
        LOCK.read_bytes(),
        ".".join(map(str, sys.version_info[:2])).encode(),
        os.fsencode(str(VENV)),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def complete() -> bool:
    """Say whether the last installation came to its end and is still the one that is wanted."""
    return python().is_file() and STAMP.is_file() and STAMP.read_text() == fingerprint()


def install() -> None:
    """Make or mend the environment. Raises Trouble."""
    gpu = has_nvidia_driver()
    demand_space(9 if gpu else 3)
    if moved():
        print("The project's folder was moved or renamed: its environment .venv is made anew.", flush=True)
        shutil.rmtree(str(VENV), ignore_errors=True)
    elif VENV.exists():
        print("An installation is here that is unfinished or older than the project: it's mended.", flush=True)
        STAMP.unlink(missing_ok=True)
    make_environment()
    torch = locked("torch")
    print(f"1/2 torch {torch} ({torch_build(gpu)}; minutes, by your connection)", flush=True)
    get_torch(torch, gpu, "install")
    print("2/2 JupyterLab, nbgrader and the rest (about 150 MB; one to two minutes)", flush=True)
    extras = "course,grade,test" if has_autograder() else "course"
    add(extras)
    STAMP.write_text(fingerprint())
    print("Installed.", flush=True)


def moved() -> bool:
    """Say whether the environment was made at another path, which its commands hold in their first lines."""
    pip_command = python().with_name("pip.exe" if os.name == "nt" else "pip")
    return pip_command.is_file() and os.fsencode(str(VENV)) not in pip_command.read_bytes()


def install_peers() -> None:
    """Install the libraries that ours is compared with, unless they are there. Raises Trouble."""
    if not present("bitsandbytes", "gguf", "peft", "transformers", "trl"):
        print("The peers that our library is compared with (about 300 MB)", flush=True)
        add("peers")


def install_model() -> None:
    """Install what reads a real model's weights and text, unless it's there. Raises Trouble."""
    if not present("gguf", "jinja2", "tokenizers"):
        print("What reads a real model's weights and text (about 15 MB)", flush=True)
        add("model")


def install_site() -> None:
    """Install what writes the web pages, unless it's there. Raises Trouble."""
    if not present("furo", "myst_nb", "sphinx", "sphinx-mathjax-offline"):
        print("Sphinx with its theme and MathJax (about 20 MB)", flush=True)
        add("site")


def install_cluster() -> None:
    """Install what grades on many machines, and what speaks to PostgreSQL, unless they are there. Raises Trouble."""
    if not present("distributed", "bokeh", "psycopg"):
        print("Dask with its dashboard, and a client of PostgreSQL (about 30 MB)", flush=True)
        add("cluster,postgres")


def present(*modules: str) -> bool:
    """Say whether the environment has all of the modules."""
    look = "import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))"
    return quiet([str(python()), "-c", look, *modules]).returncode == 0


def install_adapters() -> None:
    """Install the adapters library beside the others; its older transformers is found first. Raises Trouble."""
    if not (ADAPTERS / "adapters").is_dir():
        pip("install", "--no-deps", "--upgrade", "--target", str(ADAPTERS), *ADAPTERS_NEED)
    os.environ["PYTHONPATH"] = str(ADAPTERS)


def demand_space(gib: int) -> None:
    """Raise Trouble unless the folder can be written to, has room, and a path that an environment may have."""
    if os.pathsep in str(ROOT):
        raise Trouble(
            f"the path {ROOT} holds {os.pathsep!r}, which separates folders in PATH: rename the folder, or copy the "
            "project to another one"
        )
    if not os.access(str(ROOT), os.W_OK):
        raise Trouble(f"{ROOT} can't be written to: copy the project to a folder of yours")
    free = shutil.disk_usage(str(ROOT)).free
    if free < gib * GIB:
        raise Trouble(
            f"{gib} GB of free disk space are needed and {free / GIB:.1f} are left: free some, then start again"
        )


def has_nvidia_driver() -> bool:
    """Say whether this machine has an NVIDIA driver that answers."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    return subprocess.run([program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def make_environment() -> None:
    """Make `.venv`, anew if its interpreter doesn't run."""
    if python().is_file() and quiet([str(python()), "-m", "pip", "--version"]).returncode == 0:
        return
    try:
        import ensurepip  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import venv
    except ImportError:
        raise Trouble(
            "this Python has no venv module: install it (Debian, Ubuntu: `apt install python3-venv`)"
        ) from None
    try:
        venv.EnvBuilder(with_pip=True, clear=True).create(VENV)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise Trouble(f"the environment .venv can't be made: {error}") from None


def torch_build(gpu: bool) -> str:
    return "CUDA build, about 3 GB" if gpu else "CPU build, about 200 MB"


def get_torch(version: str, gpu: bool, *verb: str) -> None:
    """Get torch in the build that suits the machine, and never gigabytes of CUDA where there is no driver.

    `verb` is pip's: `install`, or `download --dest DIR`.
    """
    wanted = f"torch=={version}"
    if gpu or sys.platform != "linux":
        return pip(*verb, wanted)
    from_cpu_index = [*verb, "--no-deps", "--index-url", CPU_INDEX, "--retries", "0", "--timeout", "5", wanted]
    if pip_status(from_cpu_index)[0] == 0:
        return None
    print("The index of CPU builds can't be reached; the default one is asked.", flush=True)
    if not default_is_cpu_build(wanted):
        raise Trouble(
            f"{CPU_INDEX} can't be reached, and the default build of torch brings gigabytes of CUDA: "
            "connect to the network and start again"
        )
    return pip(*verb, "--no-deps", wanted)


def default_is_cpu_build(wanted: str) -> bool:
    """Say whether what pip would install by default needs none of NVIDIA's packages; nothing large is downloaded."""
    words = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", "-", wanted]
    finished = quiet([str(python()), "-m", "pip", *words])
    try:
        (found,) = json.loads(finished.stdout)["install"]
        needs = found["metadata"].get("requires_dist", [])
    except (ValueError, KeyError):
        return False
    return not any(need.startswith(("nvidia-", "cuda-")) for need in needs)


def locked(name: str) -> str:
    """Return the version that the lock file gives a package."""
    for line in LOCK.read_text().splitlines():
        package, _, version = line.partition("==")
        if package.strip().lower() == name:
            return version.strip()
    raise Trouble(f"{LOCK.name} doesn't name {name}: the checkout is incomplete")


def pip(*words: str) -> None:
    """Run pip in the environment. Raises Trouble with the likely cause."""
    status, said = pip_status(list(words))
    if status == 0:
        return
    if any(sign in said for sign in SPACE_SIGNS):
        raise Trouble("the disk is full: free some space, then start again")
    if any(sign in said for sign in NETWORK_SIGNS):
        raise Trouble("the package index can't be reached: connect to the network and start again")
    print("".join(line for line in said.splitlines(keepends=True) if "ERROR" in line)[-2000:], end="", file=sys.stderr)
    raise Trouble(f"pip failed, for the reason above; the next start tries again. All that it said: {LOG}")


def pip_status(words: list[str]) -> tuple[int, str]:
    """Run pip in the environment; return its exit status and what it said."""
    return install_status([str(python()), "-m", "pip", *words])


def add(extras: str) -> None:
    """Install the project with some of its extras: with uv if it's there, else, or if that fails, with pip."""
    words = "install", "--constraint", str(LOCK), "--editable", f"{ROOT}[{extras}]"
    if not has_uv() or install_status(uv_program(words))[0] != 0:
        pip(*words)


def has_uv() -> bool:
    return shutil.which("uv") is not None


def uv_program(words: tuple[str, ...]) -> list[str]:
    """Return an installation by pip as uv's command line."""
    return ["uv", "pip", words[0], "--python", str(python()), *words[1:]]


def install_status(program: list[str]) -> tuple[int, str]:
    """Run an installer with one line of progress in sight and the rest in the log; return its status and output."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=str(ROOT)
    )
    said: list[str] = []
    with process, LOG.open("a", encoding="utf-8") as log:
        log.write(" ".join(program) + "\n")
        reader = threading.Thread(target=read_lines, args=(process, said, log), daemon=True)
        reader.start()
        show_progress(reader, said)
    return process.wait(), "".join(said)


def read_lines(process: subprocess.Popen[str], said: list[str], log: TextIO) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        log.write(line)


def show_progress(reader: threading.Thread, said: list[str]) -> None:
    """Show what is being done until the reader ends: one line that changes, or a line now and then in a file."""
    begun, terminal = time.monotonic(), sys.stdout.isatty()
    while reader.is_alive():
        reader.join(1 if terminal else 30)
        if not reader.is_alive():
            break
        seconds = int(time.monotonic() - begun)
        words = f"    {seconds // 60}:{seconds % 60:02} {latest(said)}"
        print(f"\r{words[:WIDTH]:<{WIDTH}}" if terminal else words[:WIDTH], end="" if terminal else "\n", flush=True)
    if terminal:
        print("\r" + " " * WIDTH + "\r", end="", flush=True)


def latest(said: list[str]) -> str:
    """Return the last step that an installer told, in a few words."""
    for line in reversed(said):
        found = STEP.match(line)
        if found:
            return f"{found.group(1).lower()} {found.group(2)}".rstrip()
    return "looking at what is there"


def quiet(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace", check=False
    )


# --------------------------------------------------------------------------------------------------------- wheelhouse


def make_wheelhouse(words: list[str]) -> None:
    """Gather the wheels of the project and of what it needs, for machines like this one. Raises Trouble."""
    if not 1 <= len(words) <= 2 or words[0].startswith("-"):
        raise Trouble("name a folder for the wheels: `python3 start.py wheelhouse DIR`, and extras if you want others")
    folder, extras = Path(words[0]).resolve(), words[1] if len(words) == 2 else "course"
    gpu = has_nvidia_driver()
    demand_space(9 if gpu else 3)
    make_environment()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("fine_tuning_math-*.whl"):
        old.unlink()
    print("1/3 the project's own wheel", flush=True)
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (own,) = folder.glob("fine_tuning_math-*.whl")
    print(f"2/3 torch {locked('torch')} ({torch_build(gpu)}; minutes, by your connection)", flush=True)
    get_torch(locked("torch"), gpu, "download", "--dest", str(folder))
    print("3/3 all that they need", flush=True)
    places = ["--wheel-dir", str(folder), "--find-links", str(folder)]
    pip("wheel", *places, "--constraint", str(LOCK), f"{own}[{extras}]")
    print("\n".join(wheelhouse_lines(folder, extras)), flush=True)


def wheelhouse_lines(folder: Path, extras: str) -> list[str]:
    """Return what the folder holds, and how it is installed from."""
    sizes = [path.stat().st_size for path in folder.glob("*.whl")]
    return [
        f"{len(sizes)} wheels, {sum(sizes) / 2**20:.0f} MiB, in {folder}, for machines like this one with Python "
        + ".".join(map(str, sys.version_info[:2])),
        "Copy the folder to a machine without a network; there, in an environment of Python's:",
        f'    pip install --no-index --find-links {folder.name} "fine-tuning-math[{extras}]"',
        "    ftmath learn",
    ]


# ------------------------------------------------------------------------------------------------------------ running


def command(words: list[str]) -> list[str]:
    """Return the program that the words ask for, to be run by the environment's interpreter."""
    first: str | None = words[0] if words else None
    if first is None:
        # Named as a file to open, the index would make its folder the root, and no link could lead out of course/.
        return ["-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/tree/course/index.ipynb"]
    if words[:2] == ["test", "browser"]:
        return ["-m", "pytest", "-m", "browser", "-n", "0", "tests/browser", *words[2:]]
    if words[:2] == ["test", "peers"]:
        return ["-m", "pytest", "-m", "peers", "-n", "0", "tests/peers", *words[2:]]
    if words[:3] == ["test", "course", "--nulls"]:
        return ["-m", "pytest", "-m", "course", "-n", "0", "tests/test_claims.py", *words[3:]]
    if words[:2] == ["test", "course"]:
        return ["-m", "pytest", "-m", "course", "-n", "0", "tests/test_course.py", *words[2:]]
    if words[:2] == ["test", "cluster"]:
        places = "tests/ftgrade/test_cluster.py", "tests/ftgrade/test_postgres.py"
        return ["-m", "pytest", "-m", "cluster", "-n", "0", *places, *words[2:]]
    if words[:2] == ["test", "hub"]:
        return ["-m", "pytest", "-m", "hub", "-n", "0", "tests/browser/test_hub.py", *words[2:]]
    if words[:2] == ["test", "hostile"]:
        return ["-m", "pytest", "-m", "hostile", "-n", "0", "tests/ftgrade/test_hostile.py", *words[2:]]
    if words[:2] == ["test", "adapters"]:
        return ["-m", "pytest", "-m", "peers", "-n", "0", "tests/peers/test_adapters.py", *words[2:]]
    if first == "test":
        return ["-m", "pytest", *words[1:]]
    if first == "site":
        return ["site/pages.py", *words[1:]]
    if first == "slides":
        return ["site/slides.py", *words[1:]]
    if first == "lab":
        return ["-m", "ftmath.lab", *words[1:]]
    if words == ["model", "smollm2"]:
        return ["-W", "ignore::RuntimeWarning:runpy", "-m", "ftmath.smollm"]  # the package imports it before
    if first == "model":
        raise Trouble("one model can be fetched: `python3 start.py model smollm2`")
    return ["-m", "ftgrade.commands.cli", *words]


def environment(words: list[str]) -> dict[str, str]:
    """Return the environment of a program: JupyterLab looks into the course's profile first."""
    # Threads that spin only shortly while they wait: see ftmath, which sets the same where it is imported before torch.
    found = {"GOMP_SPINCOUNT": "1000", **os.environ}
    if "jupyterlab" in words[:2]:
        found["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [str(PROFILE), found.get("JUPYTER_CONFIG_PATH")]))
    return found


def run(words: list[str]) -> int:
    """Run the environment's interpreter in place of this one; the tests and JupyterLab start at the project's root."""
    if "ftgrade.commands.cli" not in words[:2]:
        os.chdir(str(ROOT))
    program = [str(python()), *words]
    if os.name != "nt":  # there, replacing a process would give the terminal back too early
        os.execve(program[0], program, environment(words))
    return subprocess.run(program, env=environment(words), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
