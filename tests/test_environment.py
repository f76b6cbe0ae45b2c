"""One place for versions: environment.yml and the lock follow pyproject.toml."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCKED = dict(
    line.lower().split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
)


def declared() -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    found = [Requirement(line) for line in lines]
    return [one for one in found if one.name != PROJECT["name"]]  # an extra may take in another one


def test_condas_python_is_one_that_the_project_takes():
    (python,) = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str) and line.startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))


def test_conda_installs_the_project_with_all_its_parts_and_no_version_of_its_own():
    (pip,) = [line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict)]
    (project,) = [line for line in pip if line.startswith("--editable")]
    extras = re.fullmatch(r"--editable \.\[(.+)\]", project)
    assert extras
    # Few need the peers, the tools of the site or a cluster: `start.py` fetches them when they're asked for.
    assert set(extras[1].split(",")) == set(PROJECT["optional-dependencies"]) - {"cluster", "peers", "postgres", "site"}
    assert not any("=" in line.replace("--", "") for line in pip)
    others = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
    assert others[1:] == ["pip"]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_the_lock_holds_every_direct_dependency_within_its_bounds(requirement: Requirement):
    name = requirement.name.lower()
    assert name in LOCKED or name.replace("-", "_") in LOCKED
    assert requirement.specifier.contains(LOCKED.get(name) or LOCKED[name.replace("-", "_")])


def installed_as_locked() -> list[metadata.Distribution]:
    return [one for one in metadata.distributions() if LOCKED.get(one.metadata["Name"].lower()) == one.version]


def test_every_locked_version_takes_the_oldest_python_of_the_project():
    """Debian 12 has Python 3.11.2, and a version that needs 3.11.5 couldn't be installed there."""
    assert len(installed_as_locked()) > 50
    needs = {one.metadata["Name"]: one.metadata.get("Requires-Python") or "" for one in installed_as_locked()}
    assert {name: text for name, text in needs.items() if not SpecifierSet(text).contains("3.11.0")} == {}


def test_the_lock_names_no_place_of_one_machine():
    text = (ROOT / "requirements.lock").read_text()
    assert "@" not in text
    assert "/" not in text
    assert "+cpu" not in text
