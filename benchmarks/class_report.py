"""How long the class report of a large class takes: made-up reports and notebooks, no grading.

    python benchmarks/class_report.py --students 1000

Every notebook is a demo submission or the reference with names, constants and lines of its own, so that hardly two are
equal; the seconds are told for comparing the answers and for the page with its CSV. There is no peer: what a course of
this size needs is under a minute.
"""

import argparse
import ast
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.errors import GradingError
from ftgrade.intake.forms import answer_forms
from ftgrade.intake.notebook import Cell, parse_submission, read_submission
from ftgrade.judging.problem import load_problem
from ftgrade.judging.report import CheckReport, Report
from ftgrade.pages import classreport

STATUSES = ("pass", "pass", "pass", "wrong", "wrong", "error", "not-attempted", "timeout")


class Hand(ast.NodeTransformer):
    """Write an answer as somebody else might: other names, other constants, a line more here and there."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names: dict[str, str] = {}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if isinstance(node.ctx, ast.Store):
            self.names[node.id] = f"{node.id}_{self.rng.randrange(10**4)}"
        return ast.Name(self.names.get(node.id, node.id), node.ctx)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        body: list[ast.stmt] = []
        for line in node.body:
            if self.rng.random() < 0.3:
                body += ast.parse(f"note_{self.rng.randrange(50)} = {self.rng.randrange(50)} + {len(body)}").body
            body.append(self.visit(line))
        node.body = body
        return node


def answers_of(catalog: Catalog, stem: str) -> list[str]:
    """Return the sources that a class starts from: the reference and the demo submissions that are Python."""
    found = [catalog.leaves(stem).solution.read_text("utf-8")]
    for path in (*catalog.submissions(stem, "accepted"), *catalog.submissions(stem, "wrong")):
        try:
            cells = [
                cell.source for cell in read_submission(path).cells if cell.kind == "code" and "def " in cell.source
            ]
            found.append(ast.unparse(ast.parse("\n".join(cells))))
        except (SyntaxError, GradingError):
            continue
    return found


def notebooks(catalog: Catalog, stem: str, students: list[str]) -> dict[str, tuple[Cell, ...]]:
    """Return the cells of a notebook for each student: the built one with answers in the hand of their own."""
    rng = random.Random(stem)
    sources = answers_of(catalog, stem)
    document = json.loads(build.filled_notebook(catalog, stem, sources[0]))
    names = {node.name for node in ast.parse(sources[0]).body if isinstance(node, ast.FunctionDef)}
    rest = [cell for cell in document["cells"] if cell["metadata"].get("nbgrader", {}).get("grade_id") not in names]
    made: dict[str, tuple[Cell, ...]] = {}
    for student in students:
        text = ast.unparse(Hand(rng).visit(ast.parse(rng.choice(sources))))
        cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": text}
        made[student] = parse_submission(json.dumps({**document, "cells": [*rest, cell]}).encode()).cells
    return made


def reports(catalog: Catalog, stem: str, notebooks: dict[str, tuple[Cell, ...]]) -> Iterator[Report]:
    """Yield a made-up report on each student's notebook."""
    rng = random.Random(stem)
    checks = load_problem(catalog, stem).checks
    for student, cells in notebooks.items():
        rows: list[CheckReport] = []
        for check in checks:
            status = rng.choice(STATUSES)
            said = f"Mistake {rng.randrange(9)} of {check.name}." if status == "wrong" else ""
            score = check.points if status == "pass" else 0.0
            rows.append(
                CheckReport(
                    check.name, check.title, check.of, check.points, score, status, 0, 3, mistake=said, says=said
                )
            )
        yield Report(stem, student, "graded", "", "", 1, tuple(rows), cells=cells)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--students", type=int, default=1000)
    catalog, count = home(), arguments.parse_args().students
    students = [f"student-{number:04}" for number in range(count)]
    comparing, busy, writing, pairs, summaries = 0.0, 0.0, 0.0, 0, []
    with tempfile.TemporaryDirectory() as name:
        for stem in catalog.stems():
            found = list(reports(catalog, stem, notebooks(catalog, stem, students)))
            given = read_submission(catalog.leaves(stem).notebook).cells
            start, worked = time.perf_counter(), time.process_time()
            functions = list(dict.fromkeys(check.of for check in load_problem(catalog, stem).all_checks))
            found = [replace(one, forms=answer_forms(one.cells, functions, given)) for one in found]
            echoes = classreport.compare_answers(found, functions)
            comparing, busy = comparing + time.perf_counter() - start, busy + time.process_time() - worked
            pairs += len(echoes)
            start = time.perf_counter()
            summaries.append(classreport.summarise(stem, catalog.title(stem), found, echoes))
            writing += time.perf_counter() - start
            print(f"{stem}: {len(echoes)} alike, {comparing:.1f} s so far", flush=True)
        start = time.perf_counter()
        page = Path(name) / "class_report.html"
        classreport.write_class_report(page, "synthetic", summaries)
        writing += time.perf_counter() - start
        size = page.stat().st_size / 2**20
    print(f"{count} students x {len(summaries)} problems: page and CSV {writing:.1f} s")
    print(f"comparing answers: {comparing:.1f} s, of which {busy:.1f} s at work")
    print(f"{pairs} alike; the page has {size:.1f} MiB")


if __name__ == "__main__":
    main()
