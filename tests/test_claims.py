"""The notebooks' conclusions on their controls (python3 start.py test course --nulls), and the sheet made of them."""

import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ftgrade.authoring.claims import claims_sheet, read_claims, recorded_figures
from ftgrade.catalog import home
from ftmath.findings import RECORD, interval

MASTERS = {
    master: notebook
    for master, notebook in home().course_text().items()
    if master.name == "theory.py" and read_claims(master)
}


def part(master: Path) -> str:
    return master.parent.name


def findings(notebook: Path, folder: Path) -> list[dict[str, Any]]:
    """Run a notebook in a kernel of its own, in which no finding raises, and return what each one said."""
    from nbclient import NotebookClient

    path = folder / "findings"
    os.environ |= {RECORD: str(path), "FTMATH_PROGRESS": str(folder / "progress")}
    try:
        resources = {"metadata": {"path": str(notebook.parent)}}
        document = nbformat.read(notebook, as_version=4)
        NotebookClient(document, timeout=900, resources=resources, store_widget_state=False).execute()
    finally:
        del os.environ[RECORD]
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.course
@pytest.mark.parametrize("master", MASTERS, ids=part)
def test_each_finding_holds_and_fails_on_its_control(master: Path, tmp_path: Path, request: pytest.FixtureRequest):
    found = findings(MASTERS[master], tmp_path)
    assert [one["says"] for one in found] == [claim.says for claim in read_claims(master)]
    assert [one["says"] for one in found if not one["holds"]] == []
    assert [one["says"] for one in found if one["holds_on_control"]] == []
    if request.config.getoption("--record"):
        figures = {one["says"]: {name: interval(one[name]) for name in ("measured", "control")} for one in found}
        master.with_name("claims.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")


# ------------------------------------------------------------------------------------------------- without running


@pytest.mark.parametrize("master", MASTERS, ids=part)
def test_each_claim_is_recorded_once(master: Path):
    says = [claim.says for claim in read_claims(master)]
    assert sorted(recorded_figures(master)) == sorted(says), "python3 start.py test course --nulls --record"


def test_the_sheet_has_a_row_for_each_claim():
    (text,) = claims_sheet(home()).values()
    for master in MASTERS:
        for claim in read_claims(master):
            assert text.count(f"| {claim.says} |") == 1
    assert "not recorded yet" not in text
