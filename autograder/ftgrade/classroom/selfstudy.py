"""A learner on their own: which notebook is graded, what they tried, when a solution opens, and a page of it all."""

import ast
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ftgrade.authoring.build import problem_notebook
from ftgrade.catalog import Catalog, is_project
from ftgrade.course import Course
from ftgrade.errors import CourseFault, StudentFault
from ftgrade.gradebook.cells import ReleasedCell, canonical_cells
from ftgrade.grading.grader import Grader
from ftgrade.intake import notebook
from ftgrade.intake.forms import answer_parts, notebook_definitions
from ftgrade.intake.parcel import pack, read_beside
from ftgrade.intake.placing import place_cells, released_of
from ftgrade.judging.problem import PERSONAL, load_problem
from ftgrade.judging.project import load_project
from ftgrade.judging.report import STATUS_WORDS, CheckReport, Report
from ftgrade.judging.seeds import open_seed
from ftgrade.pages.classreport import style_hash
from ftgrade.pages.feedback import TEMPLATES, environment

TRIES_TO_OPEN = 3
"""So many different answers that were graded open a solution; so does an answer with all points."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One graded answer: when (local time), on which day's numbers, with what score, and behind which sandbox.

    `answer` is a fingerprint that layout, comments and a student's choice of names don't change; `sandbox` is empty
    where there was none.
    """

    when: str
    day: str
    seed: int
    version: int
    score: float
    points: float
    answer: str
    sandbox: str


@dataclass(frozen=True, slots=True)
class History:
    """What a learner did about one problem; `opened` says when its solution was first shown, empty if it wasn't."""

    attempts: tuple[Attempt, ...] = ()
    opened: str = ""

    @property
    def best(self) -> Attempt | None:
        """Return the first attempt with the highest share of the points."""
        return max(self.attempts, key=lambda one: one.score / one.points, default=None)

    @property
    def answers(self) -> int:
        return len({one.answer for one in self.attempts})

    @property
    def left(self) -> int:
        """Return how many different answers are still to be graded before the solution opens."""
        solved = any(one.score >= one.points for one in self.attempts)
        return 0 if solved or self.opened else max(0, TRIES_TO_OPEN - self.answers)


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """A notebook that was graded: which, on which day's numbers, behind which sandbox (empty for none), what came out.

    `answer` is the fingerprint of what was answered, empty for a notebook that can't be read; `passed_over` are other
    copies with answers; `trouble` says why the attempt couldn't be kept, empty if it was.
    """

    path: Path
    day: str
    sandbox: str
    answer: str
    report: Report
    learned: History
    passed_over: tuple[Path, ...] = ()
    trouble: str = ""


# ------------------------------------------------------------------------------------------------------ which notebook


def find_notebook(catalog: Catalog, named: str, stem: str | None = None) -> tuple[str, list[Path]]:
    """Return the problem and its notebook, the graded one first, for a path or a problem's name (`p03`, `3`).

    For a name, copies stand in this folder, in `work/` or in the checkout: those with an answer come before those
    without, and the one saved last before others. Raises CourseFault.
    """
    path = Path(named)
    if path.suffix == ".ipynb" or path.is_file():
        if not path.is_file():
            raise CourseFault(f"{path} isn't there: name a notebook, or a problem such as p03")
        return catalog.stem(stem or stem_in(catalog, path.stem)), [path]
    full = catalog.stem(stem or named)
    places = [Path(f"{full}.ipynb"), Path(full, f"{full}.ipynb"), *catalog.copies(full)]
    copies = {place.resolve(): place for place in reversed(places) if place.is_file()}
    if not copies:
        raise CourseFault(f"there is no notebook of {full}: name its file, or make it with `ftgrade build`")
    given = stub_fingerprint(catalog, full)
    ranks = {copy: (has_answer(catalog, full, copy, given), saved(copy)) for copy in copies.values()}
    return full, sorted(ranks, key=ranks.__getitem__, reverse=True)


def stem_in(catalog: Catalog, name: str) -> str:
    """Return the stem that a file's name begins with, as in `p03_lora_parameters-Copy1`; else the name."""
    return next((stem for stem in [*catalog.stems(), *catalog.projects()] if name.startswith(stem)), name)


def saved(path: Path) -> float:
    return path.stat().st_mtime


def stub_fingerprint(catalog: Catalog, stem: str) -> str:
    """Return the fingerprint of what is handed out; a project's files are the learner's own."""
    if is_project(stem):
        return ""
    return answer_fingerprint(catalog, stem, notebook.parse_submission(problem_notebook(catalog, stem).encode()).cells)


def has_answer(catalog: Catalog, stem: str, path: Path, given: str) -> bool:
    """Say whether a notebook holds something else than what is handed out; one that can't be read does."""
    return file_fingerprint(catalog, stem, path) != given


def file_fingerprint(catalog: Catalog, stem: str, path: Path) -> str:
    """Return the fingerprint of a notebook file's answers, or of a project's files; empty for what can't be read."""
    try:
        if is_project(stem):
            return parcel_fingerprint(read_beside(path, load_project(catalog, stem).limits))
        cells, _ = place_cells(notebook.read_submission(path).cells, released_of(catalog.built_cells(stem)))
        return answer_fingerprint(catalog, stem, cells)
    except StudentFault:
        return ""


def parcel_fingerprint(files: Mapping[str, bytes]) -> str:
    return hashlib.sha256(pack(files)).hexdigest()[:16]


def answer_fingerprint(catalog: Catalog, stem: str, cells: Iterable[notebook.Cell]) -> str:
    """Return a name for a notebook's answers that layout, comments and choice of names don't change."""
    own = notebook_definitions(cells)
    parts = [answer_parts(function, own) for function in (*load_problem(catalog, stem).functions, PERSONAL)]
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------------- grading


def check(catalog: Catalog, named: str, stem: str | None = None, day: str | None = None) -> SelfCheck:
    """Grade a learner's notebook on a day's numbers, by default today's, and keep the attempt.

    What can't be graded, an empty answer and a repeat on another day's numbers are no attempt.
    """
    stem, (path, *others) = find_notebook(catalog, named, stem)
    before, begun = read_record().get(stem, History()), now()
    today = begun.date().isoformat()
    report, sandbox = grade_file(catalog, path, stem, day or today)
    given = stub_fingerprint(catalog, stem)
    passed_over = tuple(other for other in others if has_answer(catalog, stem, other, given))
    mine = fingerprint_of(catalog, report, path) if report.cells else ""
    done = SelfCheck(path, day or today, sandbox, mine, report, before, passed_over)
    if done.day != today or not is_attempt(report):
        return done
    made = Attempt(
        begun.isoformat(timespec="seconds"), today, open_seed(stem, report.version, today), report.version,
        report.score, report.points, mine, sandbox,
    )  # fmt: skip
    return save_history(done, dataclasses.replace(before, attempts=(*before.attempts, made)))


def fingerprint_of(catalog: Catalog, report: Report, path: Path) -> str:
    """Return the fingerprint of what was graded."""
    if is_project(report.stem):
        return file_fingerprint(catalog, report.stem, path)
    return answer_fingerprint(catalog, report.stem, report.cells)


def now() -> datetime:
    return datetime.now().astimezone()


def grade_file(catalog: Catalog, path: Path, stem: str, day: str) -> tuple[Report, str]:
    """Return a notebook's report, and the sandbox that it was made in, empty for none."""
    # Without a sandbox it's one's own code on one's own machine.
    grader = Grader(catalog, Course(Path()), allow_unsandboxed=True)
    try:
        return grader.self_check(path, stem, day), grader.sandbox_name
    finally:
        grader.close()


def is_attempt(report: Report) -> bool:
    """Say whether a notebook could be graded and holds an answer."""
    return report.state == "graded" and any(one.status != "not-attempted" for one in report.checks)


def save_history(done: SelfCheck, learned: History) -> SelfCheck:
    """Keep what is known of a problem; where that can't be written, the result says so and stands."""
    try:
        write_record(done.report.stem, learned)
    except OSError as error:
        words = f"This attempt could not be kept: {record_path()} can't be written ({error.strerror})."
        return dataclasses.replace(done, trouble=words)
    return dataclasses.replace(done, learned=learned)


def reveal(catalog: Catalog, done: SelfCheck) -> str:
    """Return a problem's solution, and note that it was shown. Raises CourseFault while it's closed."""
    stem, left = done.report.stem, done.learned.left
    if left:
        name = stem.partition("_")[0]
        raise CourseFault(
            f"the solution of {name} opens after {TRIES_TO_OPEN} different answers that were graded, or with all "
            f"points: {left} {'is' if left == 1 else 'are'} left"
        )
    opened = done.learned.opened or now().isoformat(timespec="seconds")
    save_history(done, dataclasses.replace(done.learned, opened=opened))
    return solution_text(catalog, stem)


def solution_text(catalog: Catalog, stem: str) -> str:
    """Return the reference without the docstrings of its functions, which the notebook holds."""
    text = catalog.leaves(stem).solution.read_text("utf-8")
    lines = text.splitlines()
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    for words in [node.body[0] for node in reversed(functions) if ast.get_docstring(node)]:
        del lines[words.lineno - 1 : words.end_lineno]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------- the record


def record_path() -> Path:
    """Return the learner's file of attempts, beside their progress file (`FTMATH_PROGRESS`, else their data folder)."""
    given = os.environ.get("FTMATH_PROGRESS")
    folder = Path(given).parent if given else Path.home() / ".local" / "share" / "fine-tuning-math"
    return folder / "attempts.json"


def read_record() -> dict[str, History]:
    """Return what is known of each problem by its stem, nothing before the first attempt.

    Raises CourseFault for a file that isn't one of ours: nobody's attempts are overwritten.
    """
    path = record_path()
    try:
        stored: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return {stem: parse_history(entry) for stem, entry in stored.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CourseFault(f"{path} can't be read as attempts ({error}): mend it, or move it away") from None


def parse_history(entry: dict[str, Any]) -> History:
    return History(tuple(Attempt(**one) for one in entry["attempts"]), str(entry["opened"]))


def write_record(stem: str, learned: History) -> None:
    """Write what is known of a problem, whole or not at all. Raises OSError."""
    path = record_path()
    stored = {name: dataclasses.asdict(one) for name, one in (read_record() | {stem: learned}).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(stored, file, indent=1, sort_keys=True)
    Path(file.name).chmod(0o644)  # NamedTemporaryFile is for its owner's eyes alone
    Path(file.name).replace(path)


# --------------------------------------------------------------------------------------------------------------- words


def result_lines(catalog: Catalog, done: SelfCheck) -> Iterator[str]:
    """Yield the result as a learner reads it, in the words of a class's feedback."""
    report = done.report
    yield catalog.title(report.stem)
    yield f"graded: {relative_path(done.path)}, saved {datetime.fromtimestamp(saved(done.path)):%Y-%m-%d %H:%M}"
    yield from (f"not graded: {relative_path(path)}" for path in done.passed_over)
    yield f"answer: {done.answer or 'none that can be read'}"
    yield f"numbers: those of {done.day}; each day has its own"
    yield f"sandbox: {done.sandbox or 'none; your code ran as your other programs do'}"
    for one in report.checks:
        yield from check_lines(one)
    yield from (finding.words for finding in report.told_to_student)
    yield f"{report.score:g} of {report.points:g} points"
    if done.trouble:
        yield done.trouble


def relative_path(path: Path) -> Path:
    """Return a path as one would type it from here."""
    return path.resolve().relative_to(Path.cwd()) if path.resolve().is_relative_to(Path.cwd()) else path


def check_lines(one: CheckReport) -> Iterator[str]:
    """Yield one check's verdict, as `check.html.j2` has it."""
    mark = {"pass": "✓", "not-attempted": "–"}.get(one.status, "✗")
    score = f"{one.score:g} of {one.points:g} points"
    yield f"{mark} {one.name}: {STATUS_WORDS[one.status]}, {score} — {one.title} ({one.function})"
    if one.status == "pass" and not one.words:
        return
    if one.case:
        yield f"    Case: {one.case}. {one.passed} of {one.cases} cases hold."
    if one.kept:
        yield f"    Holds: {' · '.join(one.kept)}"
    if one.broken and (one.kept or len(one.broken) > 1):
        yield f"    Cases fail that test: {' · '.join(one.broken)}"
    if one.words:
        largest = f"; the largest difference is about {one.largest:g}" if one.largest is not None else ""
        ratio = f"; yours is {one.ratio:g} times the right answer" if one.ratio is not None else ""
        yield f"    What was seen: {one.words.rstrip('.')}{largest}{ratio}."
    if one.says:
        yield f"    Likely mistake: {one.says}"
    if one.next_step:
        yield f"    Next step: {one.next_step}"


# --------------------------------------------------------------------------------------------------------------- pages


def write_page(catalog: Catalog, done: SelfCheck) -> Path:
    """Write the page of feedback that a class gets, beside the notebook, and return its path."""
    path = done.path.with_suffix(".feedback.html")
    path.write_text(feedback_page(catalog, done), "utf-8")
    return path


def feedback_page(catalog: Catalog, done: SelfCheck) -> str:
    """Return the page: the cells as they were handed out, with the learner's answers and the verdicts under them."""
    import nbformat

    from ftgrade.gradebook import cells as cells_of

    report = done.report
    cells: Any = {"cells": canonical_cells(report.cells, unanswered_cells(catalog, report.stem)), "metadata": {}}
    document: Any = nbformat.from_dict(cells)
    places = cells_of.graded_cells(document)
    for one in report.checks:
        places[one.name].metadata.nbgrader.score = one.score
        cells_of.write_check(places[one.name], one)
    cells_of.write_notes(document, report.notes)
    told = cells_of.page_summary(report)
    told["findings"].insert(0, f"A self-check on the numbers of {done.day}; each day has its own.")
    document.metadata["ftgrade"] = told
    total = {"notebook": report.stem, "score": report.score, "max_score": report.points, "late_penalty": 0}
    return environment().get_template("index.html.j2").render(nb=document, resources={"nbgrader": total})


def unanswered_cells(catalog: Catalog, stem: str) -> list[ReleasedCell]:
    """Return the cells of a built problem as a gradebook would hold them; answers in words carry no points here."""
    known: list[ReleasedCell] = []
    for cell in json.loads(problem_notebook(catalog, stem))["cells"]:
        if mark := cell["metadata"].get("nbgrader"):
            kind, source = cell["cell_type"], "".join(cell["source"])
            grade = mark["grade"] and kind == "code"
            points = mark["points"] if grade else None
            known.append(ReleasedCell(mark["grade_id"], kind, source, grade, mark["solution"], mark["locked"], points))
    return known


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A row of the certificate: a problem, its points now, and what was shown of it, `best` None for nothing."""

    title: str
    points: float
    learned: History
    best: Attempt | None

    @property
    def unaided(self) -> bool:
        """Say whether the best attempt came before the solution was shown."""
        opened = self.learned.opened
        if self.best is None or not opened:
            return self.best is not None
        return datetime.fromisoformat(self.best.when) <= datetime.fromisoformat(opened)


def certificate(catalog: Catalog, record: Mapping[str, History], name: str, today: str) -> str:
    """Return a page of what was shown, that opens from disk: one style sheet, nothing loaded, nothing run."""
    shown: list[CertificateRow] = []
    for stem in catalog.stems():
        learned = record.get(stem, History())
        points = sum(one.points for one in load_problem(catalog, stem).all_checks)
        shown.append(CertificateRow(catalog.title(stem), points, learned, learned.best))
    sheets = ("feedback/style.css", "class_report.css", "certificate.css")
    style = "\n".join((TEMPLATES / one).read_text("utf-8") for one in sheets)
    return environment().get_template("certificate.html.j2").render(
        name=name, today=today, shown=shown, style=Markup(style), style_hash=style_hash(style),  # noqa: S704  (our own)
    )  # fmt: skip


__all__ = [
    "Attempt",
    "History",
    "SelfCheck",
    "certificate",
    "check",
    "read_record",
    "result_lines",
    "reveal",
    "write_page",
]
