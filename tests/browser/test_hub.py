"""A student on a JupyterHub of this machine: logs in, lands in the course, sees no tool for instructors.

    python -m pip install jupyterhub; npm install configurable-http-proxy      (its program on the PATH)
    python -m pytest -m hub -n 0 tests/browser/test_hub.py

Each person's server is a process of ours, and any password is right: this shows the way, not how to run a hub.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROXY = shutil.which("configurable-http-proxy")

pytestmark = [
    pytest.mark.hub,
    pytest.mark.skipif(importlib.util.find_spec("jupyterhub") is None, reason="jupyterhub isn't installed"),
    pytest.mark.skipif(PROXY is None, reason="configurable-http-proxy isn't on the PATH"),
]

CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.ConfigurableHTTPProxy.command = ["{proxy}"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.pid_file = "{folder}/proxy.pid"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/{{username}}"
c.Spawner.cmd = ["{python}", "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root", "--LabApp.expose_app_in_browser=True"]
c.Spawner.default_url = "/lab/tree/course/index.ipynb"
c.Spawner.environment = {{"JUPYTER_CONFIG_PATH": "{profile}"}}
c.Spawner.start_timeout = 120
"""


@pytest.fixture(scope="module")
def hub(
    free_ports: Callable[[int], list[int]], answering: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield the address of a hub on which ada has a copy of the course."""
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(ROOT / "course", folder / "ada" / "course", ignore=shutil.ignore_patterns("__pycache__"))
    port, hub_port, proxy_port = free_ports(3)
    (folder / "jupyterhub_config.py").write_text(CONFIG.format(
        port=port, hub_port=hub_port, proxy_port=proxy_port, folder=folder, proxy=PROXY, python=sys.executable,
        profile=ROOT / "course" / ".jupyter",
    ))  # fmt: skip
    log = folder / "log.txt"
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    with log.open("w") as file:
        hub = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub"], cwd=folder, env=quiet, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        answering(f"http://127.0.0.1:{port}/hub/login", hub, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        hub.terminate()
        hub.wait(30)


def test_a_student_logs_in_and_lands_on_the_index(hub: str, page: Any, look: Callable):
    page.goto(f"{hub}/hub/login")
    page.fill("input[name=username]", "ada")
    page.fill("input[name=password]", "any")
    page.click("input[type=submit]")
    page.wait_for_function(
        "() => window.jupyterapp?.shell?.currentWidget?.context?.path === 'course/index.ipynb'", timeout=120_000
    )
    assert page.url.startswith(f"{hub}/user/ada/lab/")
    page.get_by_role("heading", name="Fine-Tuning Math").first.wait_for()
    commands = page.evaluate("() => window.jupyterapp.commands.listCommands()")
    assert any("nbgrader:open-assignment-list" in name for name in commands)
    assert [name for name in commands if "formgrader" in name or "create-assignment" in name] == []
    look(page, "hub")
