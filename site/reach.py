"""What a page's outputs depend on: its code, and the library's files that it imports, directly or through others.

The fingerprint changes with any of these and with nothing else, so a change runs again only the pages it reaches.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "numpy", "matplotlib")
SKIPPED = {".py", ".pyc", ".js", ".css", ".md", ".typed"}
"""Files that are no data of the library's: scripts and style sheets reach a page beside its outputs."""


def fingerprint(codes: Iterable[str], library: Path, folder: str, settings: str = "") -> str:
    """Return the digest of all that the outputs of a page in a folder of the course depend on."""
    codes = list(codes)
    files = sorted(reached(codes, library, folder))
    digest = hashlib.sha256("\0".join([settings, folder, *map(version, PACKAGES), *codes]).encode())
    for path in files:
        digest.update(path.relative_to(library).as_posix().encode())
        digest.update(own_code(path).encode() if path.name == "__init__.py" else path.read_bytes())
    return digest.hexdigest()


def reached(codes: Iterable[str], library: Path, folder: str = "") -> set[Path]:
    """Return the library's files that some code imports, in the end, and the data that one of these texts names."""
    codes = list(codes)
    found = set[Path]()
    waiting = {path for code in codes for path in imported(code, library)}
    while waiting:
        path = waiting.pop()
        found.add(path)
        new = set(imported_by(path, library))
        new |= set(part_files(library, folder) if path == library / "exercises" / "__init__.py" else ())
        waiting |= new - found
    texts = [*codes, *(path.read_text("utf-8") for path in found)]
    return found | {path for path in data(library) if any(names(text, path, library) for text in texts)}


def imported(code: str, library: Path) -> set[Path]:
    """Return the library's files that a text imports by name: all of them, if it can't be read as Python."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a cell with a magic command
        return set(library.rglob("*.py"))
    found = set[Path]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {path for alias in node.names if (path := file_of(alias.name, library))}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {path for alias in node.names for path in sources(node.module, alias.name, library)}
    return found


@cache
def imported_by(path: Path, library: Path) -> frozenset[Path]:
    """Return what a file of the library imports; nothing for a door, whose names are followed where they are used."""
    return frozenset() if is_door(path) else frozenset(imported(path.read_text("utf-8"), library))


def is_door(path: Path) -> bool:
    """Say whether a file only hands on the names of others."""
    works = ast.FunctionDef | ast.ClassDef
    return path.name == "__init__.py" and not any(isinstance(node, works) for node in ast.parse(own_code(path)).body)


def sources(module: str, name: str, library: Path) -> set[Path]:
    """Return the files behind `from module import name`: a module, or the file that a door takes the name from."""
    path = file_of(f"{module}.{name}", library) or file_of(module, library)
    if path is None or path.name != "__init__.py":
        return {path} if path else set()
    behind = door(path).get(name)
    return {path, *(sources(behind, name, library) if behind else ())}


@cache
def door(path: Path) -> dict[str, str]:
    """Return the names that a package's `__init__` takes from other modules, and from which."""
    found = dict[str, str]()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: node.module for alias in node.names}
    return found


@cache
def own_code(path: Path) -> str:
    """Return a module without its imports and its list of names: what it does itself."""
    tree = ast.parse(path.read_text("utf-8"))
    kept = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom) and not lists_names(node)]
    return ast.unparse(ast.Module(kept, []))


def lists_names(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "__all__" for to in node.targets)


def file_of(module: str, library: Path) -> Path | None:
    """Return the file of a module of the library; None for any other."""
    first, *rest = module.split(".")
    if first != library.name:
        return None
    path = library.joinpath(*rest)
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


def part_files(library: Path, folder: str) -> list[Path]:
    """Return the exercises that a page may open by their number: its part's; all, outside the parts."""
    part = f"part{folder[:2]}.py"
    files = sorted((library / "exercises").glob("part*.py"))
    return [path for path in files if path.name == part] or files


@cache
def data(library: Path) -> tuple[Path, ...]:
    """Return the library's files that are no code: weights and recorded runs."""
    return tuple(sorted(path for path in library.rglob("*") if path.is_file() and path.suffix not in SKIPPED))


def names(text: str, path: Path, library: Path) -> bool:
    """Say whether a text names a file of data, or the folder it stands in below the weights."""
    folder = path.parent.name if path.parent.parent != library else path.stem
    return path.stem in text or folder in text
