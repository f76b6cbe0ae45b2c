"""Leaves to notebook: fill a master's holes with stubs and checks, the same bytes every time."""

import ast
import builtins
import hashlib
import itertools
import json
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import numpy as np

from ftgrade.authoring.claims import claims_sheet
from ftgrade.authoring.lessons import lesson_cells
from ftgrade.authoring.projects import project_cells
from ftgrade.authoring.sheets import sheets
from ftgrade.catalog import Catalog, is_project
from ftgrade.errors import AuthorFault, StudentFault
from ftgrade.intake.notebook import read_submission
from ftgrade.judging.problem import PERSONAL, Check, Problem, Written, load_problem
from ftgrade.judging.report import Limits
from ftgrade.judging.seeds import open_seed

KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
UNWRITTEN = "raise NotImplementedError"
Cell = dict[str, Any]


def problem_notebook(catalog: Catalog, stem: str) -> str:
    """Return the text of a problem's notebook: statement, stubs and check cells, with nbgrader's metadata.

    A project's has no stubs.
    """
    if is_project(stem):
        return project_notebook(catalog, stem)
    leaves, problem = catalog.leaves(stem), load_problem(catalog, stem)
    solution = ast.parse(leaves.solution.read_text("utf-8"))
    text = leaves.solution.read_text("utf-8")
    cells: list[Cell] = []
    filled: list[str] = []
    for master in read_master(leaves.source):
        hole = master["metadata"].get("hole")
        function = master["metadata"].get("function", "")
        filled.append(f"{hole} {function}".strip())
        if hole == "card":
            cells.append(locked_cell("markdown", title_card(problem)))
        elif hole == "setup":
            cells.append(locked_cell("code", setup_code(solution, text, problem.functions, stem)))
        elif hole == "answer":
            cells.append(answer_cell(function, stub(solution, text, function, stem)))
        elif hole == "checks":
            cells.extend(check_cell(check) for check in problem.checks if check.of == function)
        elif hole == "personal":
            cells.extend(personal_cells(problem, stem))
        elif hole == "written":
            cells.extend(written_cell(written) for written in problem.written if written.name == function)
        elif hole is not None:
            raise AuthorFault(
                f"source/{stem}.py has a hole {hole!r}; holes are card, setup, answer, checks, personal, written"
            )
        elif master["cell_type"] == "markdown":
            cells.append(locked_cell("markdown", master["source"]))
        else:
            cells.append(locked_cell("code", master["source"]))
    demand_holes(stem, problem, filled)
    return render(stem, cells)


def project_notebook(catalog: Catalog, stem: str) -> str:
    """Return the text of a project's notebook, with nbgrader's metadata."""
    cells: list[Cell] = []
    for one in project_cells(catalog, stem, read_master(catalog.leaves(stem).source)):
        if one.measure is not None:
            record = nbgrader_record(one.measure.name, grade=True)
            cells.append(code_cell(one.source, **record, points=one.measure.points))
        else:  # a cell without nbgrader's mark is the student's, who may write there
            cells.append(code_cell(one.source) if one.own else locked_cell(one.kind, one.source))
    return render(stem, cells)


def demand_holes(stem: str, problem: Problem, filled: list[str]) -> None:
    """Raise AuthorFault unless every hole that the problem needs stands exactly once."""
    shared = sorted({check.name for check in problem.checks} & set(problem.functions))
    if shared:
        raise AuthorFault(f"{stem}: a check and a function can't both be named {shared[0]!r}: rename the check")
    needed = ["card", "setup", *(f"{hole} {name}" for name in problem.functions for hole in ("answer", "checks"))]
    needed += [f"written {written.name}" for written in problem.written] + (["personal"] if problem.own else [])
    for hole in needed:
        if filled.count(hole) != 1:
            raise AuthorFault(
                f"source/{stem}.py must hold the hole `{hole}` once, and holds it {filled.count(hole)} times: "
                '`# %% hole="answer" function="name"` opens one'
            )


def read_master(path: Path) -> list[Cell]:
    """Return the cells of a py:percent master."""
    notebook = jupytext.reads(path.read_text("utf-8"), fmt="py:percent")
    return [dict(cell) for cell in notebook.cells]


def setup_code(solution: ast.Module, text: str, functions: list[str], stem: str) -> str:
    """Return the imports of a notebook: NumPy, torch, the check, and what the contracts' own annotations need."""
    contracts = ast.parse("\n\n".join(stub(solution, text, name, stem) for name in functions)).body
    used = {node.id for contract in contracts for node in ast.walk(contract) if isinstance(node, ast.Name)}
    needed: list[str] = []
    for node in solution.body:
        if isinstance(node, ast.ImportFrom):
            names = [name.name for name in node.names if name.name in used and name.asname is None]
            needed += [f"from {node.module} import {', '.join(names)}\n"] if names else []
            used -= set(names)
    if unknown := sorted(used - set(dir(builtins)) - {"np", "torch"} - set(functions)):
        raise AuthorFault(
            f"solutions/{stem}.py: a contract uses {unknown[0]!r}, which no notebook knows: write `torch.…`, `np.…` in "
            "full, or import it by `from … import …`"
        )
    lines = "".join(needed) + "\n" if needed else ""
    return f"{lines}import numpy as np\nimport torch\n\nfrom ftmath import check"


def stub(solution: ast.Module, text: str, function: str, stem: str) -> str:
    """Return a function's contract (signature and docstring) cut from the reference, with an empty body."""
    found = [node for node in solution.body if isinstance(node, ast.FunctionDef) and node.name == function]
    if not found or ast.get_docstring(found[0]) is None:
        raise AuthorFault(f"solutions/{stem}.py must define {function!r} with a docstring")
    node = found[0]
    last = node.body[0].end_lineno
    contract = "\n".join(text.splitlines()[node.lineno - 1 : last])
    return f"{contract}\n    ### BEGIN SOLUTION\n    {UNWRITTEN}\n    ### END SOLUTION"


def title_card(problem: Problem) -> str:
    """Return the title card: where the problem belongs, what it takes, how its points are given."""
    rows = "\n".join(
        f"| {check.name} | {check.points:g} | `{check.of}` | {check.title} | {', '.join(check.concerns)} |"
        for check in problem.all_checks
    )
    return (
        f"**Part** {problem.part.replace('_', ' ')} · **difficulty** {dots(problem.difficulty)} · "
        f"**importance** {dots(problem.importance)} · **about** {problem.minutes} minutes · "
        f"**{problem.points:g} points**\n\n"
        "Each check is graded on inputs that are drawn for you. Its points are shared out over what it promises, and "
        "each share is given whole or not at all. A number is right within 0.00001 of the result's largest entry, or "
        "within 0.000001 if that is more; an exact value or a dtype that a text asks for is compared exactly. One call "
        f"may take {Limits().call_seconds:g} seconds. An example that ends in `# name` belongs to the check of that "
        "name. torch, NumPy and Python's standard library (without `multiprocessing`) are there, and no other package."
        f"{extra_points(problem)}\n\n"
        "| check | points | function | what it asks | hidden concerns |\n| --- | ---: | --- | --- | --- |\n" + rows
    )


def extra_points(problem: Problem) -> str:
    """Return what the card says of answers in words, if there are any."""
    more = sum(written.points for written in problem.written)
    own = " Your own number counts beside the ten." if problem.own else ""
    return own + f" A person reads what you write in words at the end: up to {more:g} more." if more else own


def dots(level: int) -> str:
    """Return a level of 1 to 5 as text that a screen reader can say too."""
    return f"{'●' * level}{'○' * (5 - level)} ({level} of 5)"


# ------------------------------------------------------------------------------------------------------------ cells


def code_cell(source: str, **nbgrader: Any) -> Cell:
    metadata = {"nbgrader": nbgrader} if nbgrader else {}
    return {"cell_type": "code", "execution_count": None, "metadata": metadata, "outputs": [], "source": source}


def nbgrader_record(
    grade_id: str, *, grade: bool = False, locked: bool = True, solution: bool = False
) -> dict[str, Any]:
    """Return nbgrader's record of a cell (its schema, version 3)."""
    record = {"grade": grade, "locked": locked, "solution": solution, "task": False}
    return {"grade_id": grade_id, "schema_version": 3, **record}


def locked_cell(kind: str, source: str) -> Cell:
    """Return a read-only cell; nbgrader restores its text at grading, so a page of feedback shows ours."""
    nbgrader = nbgrader_record(f"{'text' if kind == 'markdown' else 'given'}-{short_hash(kind, source)}")
    if kind == "code":
        return code_cell(source, **nbgrader)
    return {"cell_type": "markdown", "metadata": {"nbgrader": nbgrader}, "source": source}


def answer_cell(function: str, source: str) -> Cell:
    return code_cell(source, **nbgrader_record(function, locked=False, solution=True))


def personal_cells(problem: Problem, stem: str) -> list[Cell]:
    """Return the cells of the personal number, with the published question in its stub."""
    if problem.own is None:
        raise AuthorFault(f"source/{stem}.py has a hole for a personal number, and the problem draws none")
    words = (
        "## Your own number\n\nThe question in the next cell is yours: in a class with a list, its numbers were drawn "
        "for you alone. Work it out by hand or by code, and return the answer."
    )
    stub = personal_stub(problem, open_seed(stem, problem.version))
    return [locked_cell("markdown", words), answer_cell(PERSONAL, stub), check_cell(problem.own.check)]


def personal_stub(problem: Problem, seed: int) -> str:
    """Return the stub of the personal number with the question of a seed, and how many digits count."""
    assert problem.own is not None
    precision = docstring_lines(problem.own.precision)
    return (
        f'def {PERSONAL}():\n    """Return the answer to your own question.\n\n{personal_words(problem, seed)}\n\n'
        f"{precision}\n\n"
        f'    >>> {PERSONAL}() is not None\n    True\n    """\n'
        f"    ### BEGIN SOLUTION\n    {UNWRITTEN}\n    ### END SOLUTION"
    )


def personal_words(problem: Problem, seed: int) -> str:
    """Return the question of a seed, as lines of a docstring."""
    assert problem.own is not None
    question = problem.own.draw(np.random.default_rng(seed)).words
    return docstring_lines(question)


def docstring_lines(words: str) -> str:
    return textwrap.fill(words, 88, initial_indent="    ", subsequent_indent="    ")


def personalise(released: str, problem: Problem, before: int, seed: int) -> str:
    """Return a released notebook with the question of a seed in place of the published one's."""
    document = json.loads(released)
    old, new = personal_words(problem, before), personal_words(problem, seed)
    for cell in document["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == PERSONAL:
            source = "".join(cell["source"])
            assert old in source, "a release holds the published question"
            cell["source"] = source.replace(old, new).splitlines(keepends=True)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def check_cell(check: Check) -> Cell:
    """Return the graded cell of a check: it runs the public examples here, and is replaced by the verdict there."""
    call = f'check({check.of}, "{check.name}", points={check.points:g}, hidden={json.dumps(list(check.concerns))})'
    if len(call) > 100:
        concerns = textwrap.indent(",\n".join(json.dumps(concern) for concern in check.concerns), " " * 8)
        call = (
            f'check(\n    {check.of},\n    "{check.name}",\n    points={check.points:g},\n'
            f"    hidden=[\n{concerns},\n    ],\n)"
        )
    return code_cell(call, **nbgrader_record(check.name, grade=True), points=check.points)


def written_cell(written: Written) -> Cell:
    """Return the cell of an answer in words, which a person grades."""
    record = nbgrader_record(written.name, grade=True, locked=False, solution=True) | {"points": written.points}
    return {"cell_type": "markdown", "metadata": {"nbgrader": record}, "source": "*Your words here.*"}


def short_hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def render(name: str, cells: list[Cell]) -> str:
    """Return the notebook's text; ids come from what a cell says, and a repeated text gets a counted one."""
    seen: dict[str, int] = {}
    for cell in cells:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
        digest = short_hash(name, cell["cell_type"], grade_id, cell["source"])
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell["source"] = cell["source"].splitlines(keepends=True)
    document = {"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def course_notebook(catalog: Catalog, master: Path, name: str) -> str:
    """Return the text of a course notebook, without outputs, from its master."""
    cells = [course_cell(kind, source) for kind, source in lesson_cells(catalog, master, read_master(master))]
    return render(name, cells)


def course_cell(kind: str, source: str) -> Cell:
    """Return a cell of the course; a folded one shows its first line in JupyterLab, and a button on the web pages."""
    if kind == "markdown":
        return {"cell_type": "markdown", "metadata": {}, "source": source}
    folded = {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]} if kind == "folded" else {}
    return code_cell(source) | {"metadata": folded}


# ------------------------------------------------------------------------------------------------------------ files


def built_files(catalog: Catalog, more: Mapping[Path, str] | None = None) -> dict[Path, str]:
    """Return every built file with the text that it should have; `more` come from rooms above this one."""
    stems = [*catalog.stems(), *catalog.projects()]
    files = {catalog.leaves(stem).notebook: problem_notebook(catalog, stem) for stem in stems}
    for master, notebook in catalog.course_text().items():
        files[notebook] = course_notebook(catalog, master, notebook.relative_to(catalog.root).as_posix())
    return files | sheets(catalog) | claims_sheet(catalog) | dict(more or {})


def stale_files(catalog: Catalog, more: Mapping[Path, str] | None = None) -> list[Path]:
    """Return the built files that are missing or differ from what their masters give, by a byte or more."""
    return [
        path
        for path, text in built_files(catalog, more).items()
        if not path.is_file() or path.read_bytes() != text.encode()
    ]


def build(catalog: Catalog, more: Mapping[Path, str] | None = None) -> list[Path]:
    """Write the built files that are stale, and return them, after the copies of what a learner had written in them."""
    changed = stale_files(catalog, more)
    texts = built_files(catalog, more)
    kept = [copy for path in changed if (copy := back_up_answers(catalog, path))]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path], "utf-8")
    return [*kept, *changed]


def describe_written(catalog: Catalog, path: Path) -> str:
    """Say what a build did about one file that it returned."""
    name = path.relative_to(catalog.root)
    return f"your answers are kept in {name}" if name.parts[0] == "work" else f"built {name}"


def back_up_answers(catalog: Catalog, path: Path) -> Path | None:
    """Copy a problem's notebook that somebody has answered to `work/`, never over another; return the copy, if any."""
    if path.parent.parent != catalog.root / "source" or not path.is_file() or not is_answered(path):
        return None
    folder = catalog.root / "work" / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([path.name], (f"{path.stem}-{number}.ipynb" for number in itertools.count(2)))
    copy = next(folder / name for name in names if not (folder / name).exists())
    shutil.copy2(path, copy)  # with its time: the copy saved last is the learner's own
    return copy


def is_answered(path: Path) -> bool:
    """Say whether an answer cell holds anything else than a stub."""
    try:
        cells = read_submission(path).cells
    except StudentFault:
        return False
    answers = [cell for cell in cells if cell.kind == "code" and cell.grade_id and "def " in cell.source]
    return any(not is_stub(cell.source) for cell in answers)


def is_stub(source: str) -> bool:
    """Say whether a cell defines one function that has a docstring and isn't written."""
    try:
        (function,) = ast.parse(source).body
    except (SyntaxError, ValueError):
        return False
    return isinstance(function, ast.FunctionDef) and [*map(ast.unparse, function.body[1:])] == [UNWRITTEN]


# -------------------------------------------------------------------------------------------------- a filled notebook


def filled_notebook(catalog: Catalog, stem: str, answers: str) -> str:
    """Return the notebook with the functions of a Python file in their answer cells, as a student would hand it in.

    What stands before a function (imports, helpers) goes into its cell; what stands after the last one into the last.
    """
    problem = load_problem(catalog, stem)
    functions = [*problem.functions, *([PERSONAL] if problem.own else [])]
    pieces = dict.fromkeys(functions, "")
    lines, start, name = answers.splitlines(keepends=True), 0, functions[0]
    for node in ast.parse(answers).body:
        if isinstance(node, ast.FunctionDef) and node.name in pieces:
            name = node.name
            pieces[name] = "".join(lines[start : node.end_lineno])
            start = node.end_lineno or start
    pieces[name] += "".join(lines[start:])
    document = json.loads(problem_notebook(catalog, stem))
    for cell in document["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if pieces.get(grade_id):
            cell["source"] = pieces[grade_id].strip("\n").splitlines(keepends=True)
        elif grade_id in pieces:
            cell["source"] = [line for line in cell["source"] if not line.strip().startswith("###")]
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------------------------ new problem

NEW_SOURCE = """# %% [markdown]
# # Problem {number}. {title}
#
# State the task, every convention it needs, and the shape or unit of every symbol.

# %% hole="card"

# %% hole="setup"

# %% [markdown]
# ## 1. `{function}`
#
# Say what is asked.

# %% hole="answer" function="{function}"

# %% hole="checks" function="{function}"

# %% [markdown]
# ## 2. `{function}_back`
#
# A second function: one mistake then costs at most half of the points.

# %% hole="answer" function="{function}_back"

# %% hole="checks" function="{function}_back"

# %% hole="personal"
"""

NEW_SOLUTION = '''"""{title}: contracts and references."""


def {function}(value: int) -> int:
    """Return twice the value.

    Errors: ValueError naming `value` if it is negative.

    >>> {function}(3)
    6
    """
    if value < 0:
        raise ValueError(f"value must not be negative, got {{value}}")
    # Say why this is the right formula.
    return 2 * value


def {function}_back(value: int) -> int:
    """Return half of the value.

    Errors: ValueError naming `value` if it is odd.

    >>> {function}_back(6)
    3
    """
    if value % 2:
        raise ValueError(f"value must be even, got {{value}}")
    return value // 2
'''

NEW_PROBLEM = '''"""How {stem} is judged."""

from collections.abc import Iterator

from ftgrade.judging.problem import AnyCase, Case, Problem, Question, Refusal, Rng, call, integer

problem = Problem(part="05_lora_algebra", difficulty=1, importance=1, minutes=10)

problem.promise("value", "Return twice the value.")
problem.promise("err", "naming `value` if it is negative")
problem.promise("back", "Return half of the value.")
problem.promise("odd", "naming `value` if it is odd")


@problem.check(
    "value", points=4, of="{function}", title="the value", concerns=["larger values"], same=integer,
    next_step="Work one example by hand.",
)  # fmt: skip
def value(rng: Rng) -> Iterator[AnyCase]:
    yield Case("a positive value", call("{function}", int(rng.integers(3, 100))))


@problem.check(
    "err", points=1, of="{function}", title="invalid input", concerns=["negative values"],
    next_step="Raise ValueError with the argument's name in its message.",
)  # fmt: skip
def err(rng: Rng) -> Iterator[AnyCase]:
    number = int(rng.integers(1, 9))
    yield Refusal("a negative value", call("{function}", -number), "value", twin=call("{function}", number))


@problem.check(
    "back", points=4, of="{function}_back", title="the way back", concerns=["larger values"], same=integer,
    next_step="Work one example by hand.",
)  # fmt: skip
def back(rng: Rng) -> Iterator[AnyCase]:
    yield Case("an even value", call("{function}_back", 2 * int(rng.integers(3, 100))))


@problem.check(
    "odd", points=1, of="{function}_back", title="odd input", concerns=["odd values"],
    next_step="Raise ValueError with the argument's name in its message.",
)  # fmt: skip
def odd(rng: Rng) -> Iterator[AnyCase]:
    number = 2 * int(rng.integers(1, 99))
    yield Refusal("an odd value", call("{function}_back", number + 1), "value", twin=call("{function}_back", number))


@problem.personal(title="your value", next_step="Put your number into the formula.", same=integer)
def mine(rng: Rng) -> Question:
    number = int(rng.integers(100, 100_000))
    return Question(f"What is `{function}({{number}})`?", call("{function}", number))


problem.slip(
    "squared", "{function}", {{"2 * value": "value * value"}},
    says="Your result is the square of the value.", next_step="Compare 2 * 3 with 3 * 3.",
)  # fmt: skip
problem.slip(
    "negative_accepted", "{function}", {{"value < 0": "False"}},
    says="Your function takes a negative value.", next_step="Raise a ValueError that names the value.",
)  # fmt: skip
problem.slip(
    "back_as_float", "{function}_back", {{"value // 2": "value / 2"}},
    says="Your half is a float.", next_step="Divide integers with `//`.",
)  # fmt: skip
problem.slip(
    "odd_accepted", "{function}_back", {{"value % 2": "False"}},
    says="Your function takes an odd value.", next_step="Raise a ValueError that names the value.",
)  # fmt: skip
'''

NEW_BROKEN = {
    "not_json": "Sorry, I only have a photo of it.\n",
    "json_but_no_notebook": '{"answers": [1, 2, 3]}\n',
    "old_format": '{"metadata": {}, "nbformat": 3, "nbformat_minor": 0, "worksheets": []}\n',
    "no_cells": '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n',
    "exits_the_process": '{"cells": [{"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, '
    '"outputs": [], "source": "import os; os._exit(0)"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n',
}
"""Demo submissions that are broken in the same way whatever the problem is."""


def new_problem(catalog: Catalog, slug: str) -> list[Path]:
    """Write the three leaves of the next problem, which build and grade as they are, and five broken demo submissions.

    What the laws ask beyond that is its author's: mistakes, and submissions that are right or wrong in other ways.
    """
    if not slug.isidentifier() or slug != slug.lower():
        raise AuthorFault(f"a slug is a lower-case Python name such as dora_magnitude, got {slug!r}")
    number = max((int(stem[1:3]) for stem in catalog.stems()), default=0) + 1
    stem = f"p{number:02}_{slug}"
    words = {"stem": stem, "number": number, "function": slug, "title": slug.replace("_", " ").capitalize()}
    source, solutions, problems = catalog.drawers()
    texts = {source: NEW_SOURCE, solutions: NEW_SOLUTION, problems: NEW_PROBLEM}
    paths = [folder / f"{stem}.py" for folder in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text.format(**words), "utf-8")
    demos = catalog.root / "tests" / "submissions" / stem
    for kind in ("accepted", "wrong", "broken"):
        (demos / kind).mkdir(parents=True, exist_ok=True)
    for name, text in NEW_BROKEN.items():
        (demos / "broken" / f"{name}.ipynb").write_text(text, "utf-8")
    return paths
