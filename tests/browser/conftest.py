"""A JupyterLab with settings of its own, and a page of headless Chromium on it."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """Yield the server's address, its token and the folder that it serves: a copy of the course and the problems."""
    folder, private = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("jupyter")
    for drawer in ("course", "source"):
        shutil.copytree(ROOT / drawer, folder / drawer, ignore=shutil.ignore_patterns("__pycache__"))
    port, token = free_port(), secrets.token_hex(16)
    places = {f"JUPYTER_{name}_DIR": str(private / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")} | {
        "JUPYTERLAB_SETTINGS_DIR": str(private / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
    }
    words = ["--no-browser", "--expose-app-in-browser", f"--port={port}", f"--IdentityProvider.token={token}"]
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", *words]
    log = (private / "log.txt").open("w")
    server = subprocess.Popen(command, cwd=folder, env=os.environ | places, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api/status?token={token}", server, private / "log.txt")
        yield address, token, folder
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.25)
        else:
            return
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium isn't installed: the browser tests need it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


READY = """path => {
  const open = window.jupyterapp?.shell?.currentWidget?.context;
  return open?.path === path && open.isReady && open.sessionContext?.session?.kernel?.status === 'idle';
}"""


@pytest.fixture
def run_notebook(lab: tuple[str, str, Path], browser, tmp_path: Path) -> Iterator[Callable]:
    """Yield a function that opens a notebook, runs it from the top, takes a picture, and returns page and cells."""
    address, token, _ = lab
    page = browser.new_page(viewport={"width": 1280, "height": 1600})

    def run(path: str, picture: str):
        page.goto(f"{address}/lab/workspaces/{picture}/tree/{path}?token={token}")
        # Of this very notebook, and idle: a run that is asked for while its kernel starts is lost.
        page.wait_for_function(READY, arg=path, timeout=60_000)
        page.evaluate(RUN_ALL)
        page.wait_for_function("() => window.ranAll", timeout=600_000)
        page.screenshot(path=tmp_path / f"{picture}.png")
        print(f"picture: {tmp_path / picture}.png")
        # The page holds only the cells in view; the notebook's model holds all of them.
        return page, page.evaluate("() => window.jupyterapp.shell.currentWidget.context.model.toJSON().cells")

    yield run
    page.close()
