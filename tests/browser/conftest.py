"""JupyterLabs with settings of their own, a page of headless Chromium on them, and what looks at a page for us."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
]


RUN_ALL = """() => {
  window.ranAll = false;
  window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ranAll = true; });
}"""


class Server(NamedTuple):
    """A running JupyterLab, which serves Notebook 7 too: its address, its token and the folder that it serves."""

    address: str
    token: str
    folder: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(words: list[str], folder: Path, private: Path, **environment: str) -> Iterator[Server]:
    """Start JupyterLab by these words to the interpreter, in a folder, with settings of its own in another."""
    port, token = free_port(), secrets.token_hex(16)
    places = {f"JUPYTER_{name}_DIR": str(private / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")} | {
        "JUPYTERLAB_SETTINGS_DIR": str(private / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
    }
    more = ["--no-browser", "--expose-app-in-browser", "--JupyterNotebookApp.expose_app_in_browser=True",
            f"--port={port}", f"--IdentityProvider.token={token}", "--allow-root"]  # fmt: skip
    log = (private / "log.txt").open("w")
    server = subprocess.Popen(
        [sys.executable, *words, *more],
        cwd=folder,
        env=os.environ | places | environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api/status?token={token}", server, private / "log.txt")
        yield Server(address, token, folder)
    finally:
        server.terminate()
        server.wait(20)
        log.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What `python3 start.py` starts for a student, on a copy of the course and the problems."""
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    assert spec
    assert spec.loader
    start = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(start)
    folder, private = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("jupyter")
    start.ROOT = folder
    words = start.command([])
    profile = start.environment(words)["JUPYTER_CONFIG_PATH"]
    for drawer in ("course", "source"):
        shutil.copytree(ROOT / drawer, folder / drawer, ignore=shutil.ignore_patterns("__pycache__"))
    with served(words, folder, private, JUPYTER_CONFIG_PATH=profile, JUPYTER_NO_CONFIG="") as server:
        yield server


@pytest.fixture(scope="session")
def serving() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    return served


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.25)
        else:
            return
    pytest.fail(f"{url.partition('?')[0]} did not answer: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def answering() -> Callable[..., None]:
    return wait_for


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    return lambda count: [free_port() for _ in range(count)]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium isn't installed: the browser tests need it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextlib.contextmanager
def folder_served(folder: Path) -> Iterator[str]:
    """Serve a folder of web pages to this machine, and give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def serving_pages() -> Callable[[Path], contextlib.AbstractContextManager[str]]:
    return folder_served


@pytest.fixture
def closed_page(browser: Any, address: str) -> Iterator[Any]:
    """Yield a page whose requests to any other place are refused and recorded: there must be none, and no error.

    The gate stands before the page's workers too.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 1200}, color_scheme="light")
    strangers, errors = [], []

    def gate(route: Any) -> None:
        if route.request.url.startswith((address, "data:", "blob:", "file:")):
            route.continue_()
        else:
            strangers.append(route.request.url)
            route.abort()

    context.route("**/*", gate)
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda answer: errors.append(answer.url) if answer.status >= 400 else None)
    yield page
    context.close()
    assert strangers == []
    assert errors == []


@pytest.fixture
def look(tmp_path: Path) -> Callable[[Any, str], None]:
    """Return a function that takes a picture of a page or of a part of it, and says where."""
    folder = Path(os.environ.get("FTMATH_LOOK") or tmp_path)

    def look(seen: Any, name: str) -> None:
        seen.screenshot(path=folder / f"{name}.png")
        print(f"picture: {folder / name}.png")

    return look


READY = """path => {
  const open = window.jupyterapp?.shell?.currentWidget?.context;
  return open?.path === path && open.isReady && open.sessionContext?.session?.kernel?.status === 'idle';
}"""


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    yield page
    page.close()


@pytest.fixture
def run_at(page: Any, look: Callable[[Any, str], None]) -> Callable:
    """Return a function that opens a notebook at a URL, runs it from the top, and returns the page and the cells."""

    def run(url: str, path: str, picture: str):
        page.goto(url)
        # Of this very notebook, and idle: a run that is asked for while its kernel starts is lost.
        page.wait_for_function(READY, arg=path, timeout=60_000)
        page.evaluate(RUN_ALL)
        page.wait_for_function("() => window.ranAll", timeout=600_000)
        look(page, picture)
        # The page holds only the cells in view; the notebook's model holds all of them.
        return page, page.evaluate("() => window.jupyterapp.shell.currentWidget.context.model.toJSON().cells")

    return run


@pytest.fixture
def run_notebook(lab: Server, run_at: Callable) -> Callable:
    """Return a function that opens a notebook in JupyterLab, runs it, and returns the page and the cells."""

    def run(path: str, picture: str):
        return run_at(f"{lab.address}/lab/workspaces/{picture}/tree/{path}?token={lab.token}", path, picture)

    return run


@pytest.fixture
def run_in_notebook_7(lab: Server, run_at: Callable) -> Callable:
    """Return a function that does the same in Notebook 7, which JupyterLab's server serves too."""

    def run(path: str, picture: str):
        return run_at(f"{lab.address}/notebooks/{path}?token={lab.token}", path, picture)

    return run


@pytest.fixture
def explorer() -> Callable[[Any], Any]:
    """Return a function that scrolls to a page's first explorer and returns it."""

    def explorer(page: Any) -> Any:
        widget = page.locator(".ftmath-explorer, .ftmath-painter").first
        for _ in range(60):
            if widget.count():
                break
            page.keyboard.press("PageDown")  # cells out of view aren't in the page
            page.mouse.wheel(0, 700)
            page.wait_for_timeout(150)
        widget.scroll_into_view_if_needed()
        return widget

    return explorer


@pytest.fixture(scope="session")
def demand_accessible() -> Callable[..., None]:
    """Return a function that lets axe-core look at a page, or at parts of it: it must find nothing grave."""
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()

    def demand(page: Any, *parts: str) -> None:
        context = {"include": [[part] for part in parts]} if parts else None
        found = axe.run(page, context).response["violations"]
        grave = [
            (one["id"], one["help"], node["html"][:300], node["failureSummary"])
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
        assert grave == []

    return demand
