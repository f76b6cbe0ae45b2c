"""What files and folders of notebooks are called by people, browsers, JupyterLab and file managers."""

import re

ENDING = re.compile(r"(?:\.ipynb)+(?:\.txt|\.json)?$", re.IGNORECASE)
WORDS = "copy|kopie|copie|copia"
COPY_OF = rf"(?i:(?:(?:{WORDS})(?: \(\d+\))? (?:of|von|de) )*)"
"""What Google Drive and Windows put before the name of a copy."""
MARK = (
    rf"(?i: ?\(\d+\)|-copy\d*| ?- ?(?:{WORDS})| (?:{WORDS})(?: \d+)?| \((?:\w+ )?(?:{WORDS})\)"
    r"| \([^()/]*conflicted copy[^()/]*\)|\.sync-conflict-\d+-\d+-\w+)"
)
"""What JupyterLab, browsers, file managers and sync services put after it; each may stand several times."""


def names_notebook(name: str) -> bool:
    """Say whether a file's name is a notebook's, also with an ending that a browser put after it.

    >>> [names_notebook(name) for name in ("a.IPYNB", "a.ipynb.txt", "a.ipynb.json", "._a.ipynb", "a.txt")]
    [True, True, True, False, False]
    """
    return ENDING.search(name) is not None and not name.startswith(".")


def short_name(name: str) -> str:
    """Return what is compared of a name.

    >>> short_name("P03 LoRA-parameters (2)"), short_name("p03-Copy1.ipynb.txt"), short_name("Copy of p03 copy 2.ipynb")
    ('p03loraparameters', 'p03', 'p03')
    """
    bare = re.sub(rf"^{COPY_OF}|(?:{MARK}|-\d+)*$", "", ENDING.sub("", name.casefold()))
    return re.sub(r"[^a-z0-9]", "", bare)


def short_names(stem: str) -> set[str]:
    """Return the names that a problem goes by.

    >>> sorted(short_names("p03_lora"))
    ['03', '3', 'lora', 'p03', 'p03lora', 'p3', 'problem03', 'problem3']
    >>> sorted(short_names("project_adapter"))
    ['adapter', 'projectadapter']
    """
    number, _, title = stem.removeprefix("p").partition("_")
    if not number.isdecimal():  # a project's
        return {short_name(stem), short_name(title)}
    numbers = {number, str(int(number))}
    return {short_name(stem), short_name(title), *numbers} | {
        f"{word}{one}" for word in ("p", "problem") for one in numbers
    }


def names_other_problem(name: str, stem: str) -> bool:
    """Say whether a file's name begins with another problem's number.

    >>> [names_other_problem(name, "p03_lora") for name in ("p04_x.ipynb", "P03-x.ipynb", "work.ipynb")]
    [True, False, False]
    """
    found = re.match(r"p(\d\d)", short_name(name))
    return found is not None and found[1] != stem[1:3]


__all__ = ["COPY_OF", "MARK", "names_notebook", "names_other_problem", "short_name", "short_names"]
