"""The command line described out of its own parsers: the grouped `--help`, `docs/commands.md`, shell completion."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ftgrade.commands.command import Command

Groups = Mapping[str, Sequence[Command]]


def help_by_group(about: str, groups: Groups) -> str:
    """Return what stands above the options in `ftgrade --help`: each command by its group."""
    lines = [about]
    for title, members in groups.items():
        lines += ["", f"{title}:", *(f"  {one.name:<11} {one.about}" for one in members)]
    return "\n".join(lines)


def commands_page(top: argparse.ArgumentParser, parsers: Mapping[str, argparse.ArgumentParser], groups: Groups) -> str:
    """Return `docs/commands.md`."""
    about = str(top.description).partition("\n")[0]
    lines = ["# Commands", "", f"{about} This page is written by `ftgrade build` from the command line itself.", ""]
    for title, members in groups.items():
        lines += [f"- {title}: " + ", ".join(f"[`{one.name}`](#{one.name})" for one in members)]
    for members in groups.values():
        lines += [line for one in members for line in section(one.name, parsers[one.name])]
    return "\n".join([*lines, "", "## Exit codes", "", "```text", str(top.epilog).strip(), "```", ""])


def section(name: str, parser: argparse.ArgumentParser) -> list[str]:
    """Return a command's section: what it does, how it's called, a row for each word that it takes."""
    actions = [action for action in parser._actions if action.dest != "help"]
    call = " ".join(["ftgrade", name, *(usage(action) for action in actions)])
    lines = ["", f"## {name}", "", str(parser.description), "", "```text", call, "```"]
    if actions:
        lines += ["", "| word | what it is |", "| --- | --- |", *(row(action) for action in actions)]
    return [*lines, *(["", parser.epilog] if parser.epilog else [])]


def usage(action: argparse.Action) -> str:
    """Return how a word stands in a call: optional ones in brackets, repeated ones with dots."""
    text = " ".join(filter(None, [*action.option_strings[-1:], value_name(action)]))
    text += " …" if action.nargs in ("*", "+") else ""
    needed = action.required if action.option_strings else action.nargs not in ("?", "*")
    return text if needed else f"[{text}]"


def value_name(action: argparse.Action) -> str:
    """Return the name of what a word stands for; a switch stands for itself."""
    if action.option_strings and action.nargs == 0:
        return ""
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    name = action.metavar or action.dest.upper()
    return " ".join(name) if isinstance(name, tuple) else name


def row(action: argparse.Action) -> str:
    words = ", ".join(f"`{' '.join(filter(None, [text, value_name(action)]))}`" for text in action.option_strings)
    words = (words or f"`{value_name(action)}`").replace("|", "\\|")
    return f"| {words} | {(action.help or '').replace('|', chr(92) + '|')} |"


# ---------------------------------------------------------------------------------------------------------- completion


def completion(top: argparse.ArgumentParser, shell: str, stems: Sequence[str]) -> str:
    """Return a script with which a shell completes commands, options, files and problems."""
    import shtab

    for action in every_action(top):
        if action.help is argparse.SUPPRESS:
            action.help = None  # it's left out of the help because the groups tell it, and out of what shtab completes
        if action.dest in ("stem", "stems"):
            action.choices = stems
        elif action.type is Path:
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
    return shtab.complete(top, shell=shell)


def every_action(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        for one in action.choices.values() if isinstance(action.choices, dict) else ():
            yield from every_action(one)


__all__ = ["commands_page", "completion", "help_by_group"]
