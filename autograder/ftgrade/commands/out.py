"""How a command answers: lines and tables for people, JSON for programs, an exit code for the shell."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftgrade.commands.terminal import Board

FINE, SOME_NEED_A_PERSON, COULD_NOT, STOPPED = 0, 1, 2, 130
EXIT_CODES = """exit codes:
  0    fine
  1    done, and something needs a person: `ftgrade todo` says what
  2    could not, for the reason that is told
  130  stopped from the keyboard; what was done is kept

`ftgrade COMMAND --help` tells more. With --json a command prints one JSON document; the rest goes to stderr."""


@dataclass(frozen=True, slots=True)
class Out:
    """What a command prints for people, on stdout; with `as_json` on stderr, and stdout holds one JSON document."""

    as_json: bool = False

    def line(self, *texts: str) -> None:
        """Print each text as it is, without markup, on a line of its own that only the terminal wraps."""
        from ftgrade.commands.terminal import console

        for text in texts:
            console(self.as_json).print(text, soft_wrap=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str] = ()
    ) -> None:
        """Print a table whose columns are aligned right, except the first and those of `left`."""
        from ftgrade.commands.terminal import console, table

        console(self.as_json).print(table(title, columns, rows, left))

    def json(self, document: Mapping[str, Any]) -> None:
        """Print the document on stdout, if a program asked for it."""
        if self.as_json:
            print(json.dumps(document, ensure_ascii=False, indent=1, default=str))

    def end(self, document: Mapping[str, Any], needs_a_person: bool = False) -> int:
        """Print a command's result for a program, if one asked for it; return the exit code of what was done."""
        self.json(document)
        return SOME_NEED_A_PERSON if needs_a_person else FINE

    def complain(self, words: str) -> None:
        """Print on stderr why a command stops."""
        from ftgrade.commands.terminal import console

        console(True).print(f"ftgrade: {words}", soft_wrap=True)

    def board(self, totals: dict[str, int] | None = None) -> "Board":
        """Return progress bars for stderr, with a row for each problem whose total is known."""
        from ftgrade.commands.terminal import Board

        return Board(totals)
