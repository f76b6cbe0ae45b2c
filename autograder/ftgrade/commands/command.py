"""What a command is: a function of words that says what it did; and the words that several commands take."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftgrade.catalog import Catalog

Parser = Any
"""A parser or a group in one: argparse gives them no public type in common."""
Argument = Callable[[Parser], object]
"""What adds an argument to a parser."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did: the document that `--json` prints, and what the exit code tells."""

    document: Mapping[str, Any]
    needs_a_person: bool = False
    failed: bool = False


Run = Callable[..., Done]
"""What a command does. It gets an `Out` for what people read and, by name, each word of its parser."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command; `words` add to its parser what `run` takes, `more` ends its help."""

    name: str
    about: str
    words: tuple[Argument, ...]
    more: str | None
    run: Run

    def add(self, commands: Parser) -> None:
        """Add the command's parser to the others."""
        description = f"{self.about[:1].upper()}{self.about[1:]}."
        parser = commands.add_parser(self.name, help=self.about, description=description, epilog=self.more)
        for add_to in self.words:
            add_to(parser)
        parser.set_defaults(command=self)


def command(about: str, *words: Argument, more: str | None = None, json: bool = True) -> Callable[[Run], Command]:
    """Make a command of the function below, with its name and these words; `json` says whether it takes `--json`."""
    taken = (*words, JSON) if json else words
    return lambda run: Command(run.__name__.replace("_", "-"), about, taken, more, run)


def argument(*names: str, **settings: Any) -> Argument:
    """Return an argument, described as for `ArgumentParser.add_argument`."""
    return lambda parser: parser.add_argument(*names, **settings)


def one_of(*words: Argument, required: bool = False) -> Argument:
    """Return arguments that exclude each other."""

    def add_to(parser: argparse.ArgumentParser) -> None:
        group = parser.add_mutually_exclusive_group(required=required)
        for add_one in words:
            add_one(group)

    return add_to


def at_least_one(text: str) -> int:
    """Return a count of workers. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"it must be a whole number from 1 on, got {text!r}")
    return int(text)


COURSE = argument("--course", type=Path, default=Path(), metavar="DIR", help="the course's folder (default: this one)")
JSON = argument("--json", action="store_true", help="print the result as one JSON document")
STEM = argument("stem", help="the problem, such as p03")
STEMS = argument("stems", nargs="*", help="problems such as p03 (default: all)")


def chosen_or_any(catalog: "Catalog", names: Sequence[str]) -> list[str]:
    """Return the problems and projects that STEMS names: all of them if it names none."""
    return [catalog.stem(name) for name in names] or [*catalog.stems(), *catalog.projects()]


def chosen(catalog: "Catalog", names: Sequence[str]) -> list[str]:
    """Return the problems that STEMS names: all of them if it names none."""
    return [catalog.stem(name) for name in names] or catalog.stems()
