"""The `ftgrade` command line: build, release, grade; every command says what it did and what to do next.

What a command needs is imported when it runs: `--help` and completion answer at once.
"""

import argparse
import contextlib
import difflib
import gc
import io
import json
import logging
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ftgrade.catalog import home
from ftgrade.commands import days, exam, learn, live, manpage, teach, write
from ftgrade.commands.command import Command, Done, argument, command
from ftgrade.course import demand_course

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
        teach.new_course, teach.release, days.due, days.extend, days.collect, teach.grade, live.watch, live.attempts,
        live.questions, days.todo, days.diff, days.jplag, days.verify, exam.exam, teach.doctor,
    ),
    "Write problems": (write.new, write.build, write.fill, write.audit),
    "Shell": (completion,),
}  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return 0 (fine), 1 (done, and some submissions need a person) or 2 (could not)."""
    words = list(sys.argv[1:] if words is None else words)
    if lacking := missing_stream():
        return fail(lacking, as_json="--json" in words)
    speak_any_encoding()
    if unknown := unknown_command(words):
        return fail(unknown, as_json="--json" in words)
    read = vars(parser().parse_args(words))
    chosen, as_json = read.pop("command"), read.pop("json", False)
    if lacking := missing_folder():
        return fail(lacking, as_json)
    try:
        return run(chosen, read, as_json)
    except KeyboardInterrupt:
        print("ftgrade: stopped; what was done is kept, and the next run goes on from there", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # who reads us has read enough, as in `ftgrade todo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except Exception as error:
        from ftgrade.commands.failures import failure_line

        return fail(failure_line(error), as_json)


def run(chosen: Command, read: dict[str, Any], as_json: bool) -> int:
    """Run a command with the words that were read; return the exit status. Raises what the command raises."""
    from ftgrade.commands.terminal import Out

    if "course" in read and not read.get("demo"):
        demand_course(read["course"], may_be_empty=chosen is teach.release)
    with for_our_eyes() if "course" in read or chosen is teach.new_course else contextlib.nullcontext():
        done = chosen.run(Out(stderr=as_json), **read)
    if as_json:
        print(json_text(done.document))
    return COULD_NOT if done.failed else SOME_NEED_A_PERSON if done.needs_a_person else FINE


@contextlib.contextmanager
def for_our_eyes() -> Generator[None]:
    """Give the files of a course to nobody but its owner, whatever the umask: they hold work, scores and a secret."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def missing_stream() -> str:
    """Return which stream a command lacks, in words; nothing if none.

    Python says None for a stream that was closed when it started. A file that is opened later would get its number,
    and what another program prints would be written into a gradebook.
    """
    if sys.stdin is None:  # nothing is read from it
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  (it stays open)
    for name, stream in (("output", sys.stdout), ("error", sys.stderr)):
        if stream is None:
            return f"standard {name} is closed, so nobody would read what is said: open it, or lead it to /dev/null"
    return ""


def missing_folder() -> str:
    """Return which of the folders is gone that relative paths and a home's files need, in words; nothing if none."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the folder that you are in is gone: `cd` to one that is there"
    except OSError as error:
        return f"the folder that you are in can't be used: {error.strerror}; `cd` to another"
    try:
        Path.home()
    except RuntimeError:
        return "your home folder isn't known: set HOME to a folder that you may write to"
    return ""


def fail(words: str, as_json: bool) -> int:
    """Say why a command could not do its work, in a line and for a program that reads JSON."""
    print(f"ftgrade: {words}", file=sys.stderr or sys.stdout)
    if as_json and sys.stdout is not None:
        print(json_text({"error": words}))
    return COULD_NOT


def json_text(document: Mapping[str, Any]) -> str:
    """Return a JSON document that standard output can take."""
    can_all = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    return json.dumps(document, ensure_ascii=not can_all, indent=1, default=str)


def speak_any_encoding() -> None:
    """Let the streams write a character that their encoding lacks as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def unknown_command(words: Sequence[str]) -> str:
    """Return what to say of a first word that is no command, with the nearest one; nothing if it is one.

    >>> unknown_command(["grdae", "p03"])
    "there is no command 'grdae'; did you mean `ftgrade grade`?"
    >>> unknown_command(["grade"]), unknown_command(["--help"]), unknown_command([])
    ('', '', '')
    """
    names = [one.name for group in GROUPS.values() for one in group]
    if not words or words[0].startswith("-") or words[0] in names:
        return ""
    near = difflib.get_close_matches(words[0].lower().replace("_", "-"), names, 1)
    mend = f"did you mean `ftgrade {near[0]}`?" if near else f"there are: {', '.join(names)}"
    return f"there is no command {words[0]!r}; {mend}"


class Parser(argparse.ArgumentParser):
    """A parser that says what it can't read in one line, and leaves the usage to `--help`."""

    def error(self, message: str) -> NoReturn:
        self.exit(COULD_NOT, f"{self.prog}: {message}; `{self.prog} --help` shows how it's called\n")


def parser() -> argparse.ArgumentParser:
    return make_parsers()[0]


def make_parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the whole command line, and the parser of each command."""
    top = Parser(
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
    logging.getLogger().addHandler(logging.NullHandler())  # libraries' logs: we say ourselves what went wrong
    status = main()
    gc.freeze()  # Python would look through all of torch once more for what it could free, for most of a second
    sys.exit(status)


if __name__ == "__main__":
    program()
