"""A part's text to its notebooks: the holes that exercises fill, and the table of what serves which objective."""

import ast
import builtins
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftgrade.catalog import Catalog
from ftgrade.errors import AuthorFault
from ftgrade.judging.problem import load_problem

Cell = dict[str, Any]
HEADING = re.compile(r"^## (\d+\.\w) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stub:
    """What a notebook shows of an exercise: its function's contract, whole or with its marked lines left blank."""

    number: str
    title: str
    function: str
    minutes: int
    difficulty: int
    contract: str
    half: str


def read_stubs(path: Path) -> dict[str, Stub]:
    """Return the exercises of a part's file by their numbers, read without running it.

    Raises AuthorFault for an exercise whose function or docstring is missing.
    """
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found: dict[str, Stub] = {}
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Exercise"):
            continue
        number, title, name = (ast.unparse(argument).strip("'\"") for argument in call.args[:3])
        words = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
        node = functions.get(name)
        if node is None or ast.get_docstring(node) is None:
            raise AuthorFault(f"{path.name}: exercise {number} needs a function {name!r} with a docstring")
        contract, half = cut_contract(text, node)
        minutes, difficulty = (int(str(words[word])) for word in ("minutes", "difficulty"))
        found[number] = Stub(number, title, name, minutes, difficulty, contract, half)
    return found


def cut_contract(text: str, node: ast.FunctionDef) -> tuple[str, str]:
    """Return a function with no body, and with every line marked `# blank` left open."""
    lines = text.splitlines()
    head = "\n".join(lines[node.lineno - 1 : node.body[0].end_lineno])
    body = lines[node.body[0].end_lineno : node.end_lineno]
    half = "\n".join([head, *(blank_out(line) for line in body)])
    return f"{head}\n    raise NotImplementedError", half


def blank_out(line: str) -> str:
    """Return a line with what stands after `=` or `return` left blank, if it's marked so.

    >>> blank_out("    rank = 2  # blank"), blank_out("    return rank  # blank"), blank_out("    x = 1")
    ('    rank = ...', '    return ...', '    x = 1')
    """
    code, mark, _ = line.partition("  # blank")
    if not mark:
        return line
    if code.lstrip().startswith("return"):
        return code[: code.index("return")] + "return ..."
    return code.partition(" = ")[0] + " = ..."


def exercise_cells(stub: Stub, fade: str) -> list[tuple[str, str]]:
    """Return the cells of an exercise as (kind, source): its card, what to write, and the check."""
    dots = f"{'●' * stub.difficulty}{'○' * (5 - stub.difficulty)} ({stub.difficulty} of 5)"
    left = "Fill what `...` stands for." if fade == "half" else "Write the function."
    card = f"**{stub.title}** · difficulty {dots} · about {stub.minutes} minutes. {left}"
    check = (
        f'check_exercise("{stub.number}", {stub.function})\n'
        f'# Stuck? hint("{stub.number}") gives one more each time; solution("{stub.number}") opens after three tries.'
    )
    return [("markdown", card), ("code", stub.half if fade == "half" else stub.contract), ("code", check)]


def defined_names(cells: list[Cell]) -> set[str]:
    """Return the names that a master's own code cells import or define."""
    found: set[str] = set(dir(builtins))
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
    return found


def demand_names(number: str, stub: str, given: set[str], master: Path) -> None:
    """Raise AuthorFault unless a stub finds in its notebook every name that its text uses."""
    function = ast.parse(stub).body[0]
    assert isinstance(function, ast.FunctionDef)
    own = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)} | {function.name}
    own |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    missing = sorted(names - own - given)
    if missing:
        raise AuthorFault(
            f"{master}: exercise {number} uses {', '.join(missing)}, which no cell of the notebook imports or "
            "defines: add it to the first code cell"
        )


def part_of(master: Path) -> int | None:
    """Return the number of the part that a master belongs to, if it belongs to one."""
    number = master.parent.name[:2]
    return int(number) if number.isdecimal() else None


def lesson_cells(catalog: Catalog, master: Path, cells: list[Cell]) -> list[tuple[str, str]]:
    """Return the cells of a course notebook as (kind, source), every hole filled. Raises AuthorFault.

    The kind is `markdown`, `code`, or `folded` for code that one click opens.
    """
    part = part_of(master)
    file = catalog.root / "course" / "ftmath" / "exercises" / f"part{part or 0:02}.py"
    known = read_stubs(file) if file.is_file() else {}
    filled: list[tuple[str, str]] = []
    asked: list[str] = []
    given = defined_names(cells)
    for cell in cells:
        number, hole = cell["metadata"].get("exercise"), cell["metadata"].get("hole")
        if number is not None:
            if number not in known:
                raise AuthorFault(f"{master.name} of part {part} asks for exercise {number}, and {file.name} has none")
            asked.append(number)
            filled += exercise_cells(known[number], cell["metadata"].get("fade", "blank"))
            demand_names(number, filled[-2][1], given, master)
        elif "PART01" in cell["source"]:
            filled.append(("markdown", fill_links(catalog, cell["source"])))
        elif hole == "traceability":
            filled.append(("markdown", traceability(catalog)))
        elif hole is not None:
            raise AuthorFault(f"{master} has a hole {hole!r}; course notebooks know `traceability`")
        elif cell["cell_type"] == "code" and "fold" in cell["metadata"]:
            filled.append(("folded", cell["source"]))
        else:
            filled.append((cell["cell_type"], cell["source"]))
    if master.name == "exercises.py" and asked != list(known):
        raise AuthorFault(
            f"part {part}'s exercises notebook must ask each of {list(known)} once, in order; it asks {asked}"
        )
    if part is not None:
        filled.append(("markdown", signposts(catalog, master)))
    return filled


def signposts(catalog: Catalog, master: Path) -> str:
    """Return the links at the end of a part's notebook: its neighbours, its other notebook, its problems, the index."""
    theories = [path for path in catalog.course_text() if path.name == "theory.py" and part_of(path) is not None]
    here = master.parent.name
    places = [path.parent.name for path in theories]
    place = places.index(here) if here in places else 0

    def towards(step: int) -> list[str]:
        if not 0 <= place + step < len(theories):
            return []
        there = theories[place + step]
        title = re.search(r"^# # (.+)$", there.read_text("utf-8"), re.MULTILINE)
        arrow = "{} →" if step > 0 else "← {}"
        named = arrow.format(title[1] if title else there.parent.name)
        return [f"[{named}](../{there.parent.name}/theory.ipynb)"]

    other = "exercises" if master.stem == "theory" else "theory"
    graded = [
        f"[{stem[:3]}](../../source/{stem}/{stem}.ipynb)"
        for stem in catalog.stems()
        if load_problem(catalog, stem).part == here
    ]
    links = [
        *towards(-1),
        *([f"[{other} of this part]({other}.ipynb)"] if master.with_name(f"{other}.py").is_file() else []),
        *([f"graded: {', '.join(graded)}"] if graded else []),
        *(["[index](../index.ipynb)"] if (catalog.root / "course" / "text" / "index.py").is_file() else []),
        *towards(1),
    ]
    return f"---\n\n{' · '.join(links)}"


def fill_links(catalog: Catalog, text: str) -> str:
    """Return the front door's table of parts with links to the notebooks of each part that is written."""

    def links(found: re.Match[str]) -> str:
        folders = [path.parent for path in catalog.course_text().values() if path.parent.name[:2] == found[1]]
        if not folders:
            return "being written"
        return " · ".join(f"[{kind}]({folders[0].name}/{kind}.ipynb)" for kind in ("theory", "exercises"))

    return re.sub(r"PART(\d\d)", links, text)


# ------------------------------------------------------------------------------------------------------- traceability


def headings(catalog: Catalog) -> dict[str, tuple[str, Path]]:
    """Return each subtopic that a theory notebook treats, with its name and the notebook."""
    found: dict[str, tuple[str, Path]] = {}
    for master, notebook in catalog.course_text().items():
        if master.name == "theory.py":
            for number, name in HEADING.findall(master.read_text("utf-8").replace("# ## ", "## ")):
                found[number] = (name, notebook)
    return found


def traceability(catalog: Catalog) -> str:
    """Return the table: objective, its subtopics in the notebooks, their exercises, and the graded checks.

    Raises AuthorFault for a subtopic, problem or check that doesn't exist.
    """
    objectives = tomllib.loads((catalog.root / "course" / "text" / "objectives.toml").read_text("utf-8"))["objective"]
    places = headings(catalog)
    rows: list[str] = []
    for number, objective in enumerate(objectives, start=1):
        links = [subtopic_links(catalog, places, subtopic) for subtopic in objective["subtopics"]]
        checks = [checks_link(catalog, stem, names) for stem, names in objective["problems"].items()]
        rows.append(f"| {number}. {objective['says']} | {'<br>'.join(links)} | {'<br>'.join(checks)} |")
    head = "| objective | subtopics and their exercises | graded checks |\n| --- | --- | --- |\n"
    return head + "\n".join(rows)


def subtopic_links(catalog: Catalog, places: dict[str, tuple[str, Path]], subtopic: str) -> str:
    """Return the links to a subtopic and its exercise; one that isn't written yet is named without a link."""
    if subtopic not in places:
        return subtopic
    name, notebook = places[subtopic]
    folder = notebook.parent.relative_to(catalog.root / "course").as_posix()
    anchor = f"{subtopic} {name}".replace(" ", "-")
    return f"[{subtopic} {name}]({folder}/theory.ipynb#{anchor}) ([exercise]({folder}/exercises.ipynb#{anchor}))"


def checks_link(catalog: Catalog, stem: str, names: list[str]) -> str:
    """Return the link to a problem with the checks that serve an objective. Raises AuthorFault for an unknown one."""
    stem = catalog.stem(stem)
    known = {check.name for check in load_problem(catalog, stem).checks}
    strange = sorted(set(names) - known)
    if strange:
        raise AuthorFault(f"objectives.toml names the checks {strange} of {stem}, which has {sorted(known)}")
    return f"[{stem[:3]}](../source/{stem}/{stem}.ipynb): {', '.join(names)}"


__all__ = [
    "HEADING",
    "Stub",
    "cut_contract",
    "exercise_cells",
    "headings",
    "lesson_cells",
    "read_stubs",
    "signposts",
    "traceability",
]
