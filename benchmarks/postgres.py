"""A PostgreSQL server to throw away: a folder of its own, a socket in it, no port; Debian's `postgresql` brings one."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

USER = "grader"
SERVERS_ACCOUNT = "postgres"  # Debian's package makes it; the server refuses to run as root


def programs() -> Path | None:
    """Return the folder of the newest server of this machine, if one is installed."""
    on_path = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    return Path(on_path).parent if on_path else folders[-1] if folders else None


@contextlib.contextmanager
def server() -> Generator[str]:
    """Run a server; give the URL, with `{}` for a database's name, by which nbgrader reaches it (`db_url`)."""
    found = programs()
    assert found, "no PostgreSQL server is installed: apt-get install postgresql"
    account = SERVERS_ACCOUNT if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="ftgrade-pg-"))
    shutil.chown(folder, account)

    def run(program: str, *words: str) -> None:
        command = [str(found / program), *words]
        done = subprocess.run(command, user=account, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program} failed: {done.stderr}"

    data, log = folder / "data", folder / "log"
    try:
        run("initdb", "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        run("pg_ctl", "-D", str(data), "-l", str(log), "-w", "-o", f"-k {folder} -h ''", "start")
        try:
            yield f"postgresql+psycopg://{USER}@/{{}}?host={folder}"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
