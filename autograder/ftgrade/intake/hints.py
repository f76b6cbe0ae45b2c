"""What to say of a file that can't be taken: what it seems to be, and the next step of who collects."""

import re
from collections.abc import Callable, Mapping, Sequence

ASK = "ask for the .ipynb file"
KINDS = {
    r"\.ipynb\.(?:crdownload|part|partial|download|tmp)": "a download that wasn't finished, ask for the file again",
    r"\.py": f"a Python file, {ASK}, or `ftgrade fill` puts its functions into a notebook",
    r"\.html?": f"a web page, which may show a notebook and is none, {ASK}",
    r"\.(?:pdf|docx?|odt|rtf|png|jpe?g|heic)": f"a printout or a picture, {ASK}",
    r"\.(?:url|webloc|lnk|gdoc|gslides|desktop)": f"a link to a file and not the file, {ASK}",
}
"""What a file is that is no notebook, by the end of its name."""
ANONYMOUS = re.compile(r"(?:participant|teilnehmer\S*|anon)(?:[ _].*)?", re.IGNORECASE)
"""What Moodle and Canvas call students whose names they hide."""
REVEAL = "the platform hides who it is: let it show the names, and download again"


def no_notebook_words(name: str) -> str:
    """Say of a file that is no notebook what it is.

    >>> no_notebook_words("ada_p03.PDF"), no_notebook_words("notes.csv")
    ('no notebook: a printout or a picture, ask for the .ipynb file', 'no notebook')
    """
    found = (words for ending, words in KINDS.items() if re.search(rf"{ending}$", name, re.IGNORECASE))
    return ": ".join(["no notebook", *found])


def misfit_words(path: str, stems: Sequence[str], only: str | None) -> str:
    """Say of a file whose name doesn't fit the pattern how it is taken.

    >>> misfit_words("ada/p03_final.ipynb", ["p03_lora"], None)
    "its name doesn't fit the pattern: where the path tells the student, `--stem p03` takes all as p03"
    """
    name = path.rpartition("/")[2].lower()
    if ANONYMOUS.fullmatch(name.removesuffix(".ipynb")):
        return f"its name doesn't fit the pattern: {REVEAL}"
    if only:
        return "its name doesn't fit the pattern, which must tell the student: `ftgrade collect --help` shows how"
    told = [short for stem in stems if (short := stem.partition("_")[0]) in name]
    which = told[0] if told else "p03"
    seen = "where the path tells the student" if told else "it names no problem, and where the path tells the student"
    return f"its name doesn't fit the pattern: {seen}, `--stem {which}` takes all as {which}"


def anonymous_words(name: str, is_known: Callable[[str], bool]) -> str:
    """Say of a name that is nobody's that it is hidden, or that a group may stand before it."""
    if ANONYMOUS.fullmatch(name):
        return f": {REVEAL}"
    ends = [place.end() for place in re.finditer("-", name) if is_known(name[place.end() :])]
    if ends:
        words = "is a group, show all participants in Moodle and download again"
        return f": if {name[: ends[0] - 1]!r} {words}"
    return ""


def other_name_words(owners: Mapping[str, str | None]) -> str:
    """Say of a text that is no id whose address or name it is."""
    for kind, student in owners.items():
        if student is not None:
            what = "{name} in place of {student} in a --pattern reads names" if kind == "name" else "put the id there"
            return f": it is the {kind} of {student}; {what}"
    return ""


__all__ = ["anonymous_words", "misfit_words", "no_notebook_words", "other_name_words"]
