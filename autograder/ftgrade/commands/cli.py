"""The `ftgrade` command line: build, release, grade; every command says what it did and what to do next.

What a command needs is imported when it runs: `--help` and completion answer at once.
"""

import argparse
import gc
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ftgrade.catalog import home
from ftgrade.commands import days, learn, manpage, teach, write
from ftgrade.commands.command import Command, Done, argument, command
from ftgrade.errors import GradingError

if TYPE_CHECKING:
    from ftgrade.commands.terminal import Out

FINE, SOME_NEED_A_PERSON, COULD_NOT, STOPPED = 0, 1, 2, 130
EXIT_CODES = """exit codes:
  0    fine
  1    done, and something needs a person: `ftgrade todo` says what
  2    could not, for the reason that is told
  130  stopped from the keyboard; what was done is kept

`ftgrade COMMAND --help` tells more. With --json a command prints one JSON document; the rest goes to stderr."""


@command(
    "print what makes a shell complete ftgrade's words",
    argument("shell", choices=["bash", "zsh"], help="whose script"),
    more='bash: `eval "$(ftgrade completion bash)"` in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit.',
    json=False,
)
def completion(_out: "Out", shell: str) -> Done:
    print(manpage.completion(parser(), shell, home().stems()))  # a script is for a shell to read: nothing is laid out
    return Done({})


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
    from ftgrade.commands.terminal import Out

    run, as_json = read.pop("command").run, read.pop("json", False)
    try:
        done: Done = run(Out(stderr=as_json), **read)
    except GradingError as error:
        Out(stderr=True).line(f"ftgrade: {error}")
        done = Done({"error": str(error)}, failed=True)
    except KeyboardInterrupt:
        Out(stderr=True).line("ftgrade: stopped; what was graded is kept, and the next run goes on from there")
        return STOPPED
    if as_json:
        print(json.dumps(done.document, ensure_ascii=False, indent=1, default=str))
    return COULD_NOT if done.failed else SOME_NEED_A_PERSON if done.needs_a_person else FINE


def parser() -> argparse.ArgumentParser:
    return make_parsers()[0]


def make_parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the whole command line, and the parser of each command."""
    top = argparse.ArgumentParser(
        "ftgrade",
        usage="ftgrade COMMAND …",
        description=manpage.help_by_group("Build, release and grade the course's problems.", GROUPS),
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
    return manpage.commands_page(*make_parsers(), GROUPS)


def program() -> None:
    """Be the command `ftgrade`."""
    status = main()
    gc.freeze()  # Python would look through all of torch once more for what it could free, for most of a second
    sys.exit(status)


if __name__ == "__main__":
    program()
