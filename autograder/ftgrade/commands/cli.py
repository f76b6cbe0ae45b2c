"""The `ftgrade` command line: build, release, grade; every command says what it did and what to do next.

What a command needs is imported when it runs: `--help` and completion answer at once.
"""

import argparse
import gc
import sys
from collections.abc import Mapping, Sequence

from ftgrade.catalog import home
from ftgrade.commands import days, learn, manpage, teach, write
from ftgrade.commands.command import Command, command, word
from ftgrade.commands.out import COULD_NOT, EXIT_CODES, FINE, SOME_NEED_A_PERSON, STOPPED, Out
from ftgrade.errors import GradingError


@command(
    "print what makes a shell complete ftgrade's words",
    word("shell", choices=["bash", "zsh"], help="whose script"),
    more='bash: `eval "$(ftgrade completion bash)"` in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit.',
    json=False,
)
def completion(_out: Out, shell: str) -> int:
    print(manpage.completion(parser(), shell, home().stems()))  # a script is for a shell to read: nothing is laid out
    return FINE


GROUPS: Mapping[str, Sequence[Command]] = {
    "Learn": (learn.check, learn.certificate),
    "Teach": (
        teach.new_course, teach.release, days.due, days.extend, days.collect, teach.grade, days.todo, days.diff,
        days.jplag, days.verify, teach.doctor,
    ),
    "Write problems": (write.new, write.build, write.fill, write.audit),
    "Shell": (completion,),
}  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return 0 (fine), 1 (done, and some submissions need a person) or 2 (could not)."""
    read = vars(parser().parse_args(words))
    command, out = read.pop("command"), Out(read.pop("json", False))
    try:
        return command.run(out, **read)
    except GradingError as error:
        out.json({"error": str(error)})
        out.complain(str(error))
        return COULD_NOT
    except KeyboardInterrupt:
        out.complain("stopped; what was graded is kept, and the next run goes on from there")
        return STOPPED


def parser() -> argparse.ArgumentParser:
    return parsers()[0]


def parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the whole command line, and the parser of each command."""
    top = argparse.ArgumentParser(
        "ftgrade",
        usage="ftgrade COMMAND …",
        description=manpage.grouped("Build, release and grade the course's problems.", GROUPS),
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(prog="ftgrade", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    for group in GROUPS.values():
        for one in group:
            one.add(commands)
    commands.choices["build"].set_defaults(manual=manual)
    return top, commands.choices


def manual() -> str:
    """Return the page of all commands; `ftgrade build` writes it, and can't know the others."""
    return manpage.page(*parsers(), GROUPS)


def program() -> None:
    """Be the command `ftgrade`."""
    status = main()
    gc.freeze()  # Python would look through all of torch once more for what it could free, for most of a second
    sys.exit(status)


__all__ = [
    "COULD_NOT", "FINE", "GROUPS", "SOME_NEED_A_PERSON", "STOPPED", "main", "manual", "parser", "parsers", "program",
]  # fmt: skip

if __name__ == "__main__":
    program()
