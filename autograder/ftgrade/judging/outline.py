"""A problem's outline: what the grader knows of a problem, told by a process that loads the problem's file and ends.

A problem's file imports torch, which takes over a second; the process is forked from the nursery, which has it already.
"""

import socket
from dataclasses import dataclass, field
from pathlib import Path

from ftgrade.catalog import Catalog, is_project
from ftgrade.errors import AuthorFault, CourseFault, GradingError, OurFault
from ftgrade.judging.report import CheckReport, parse_checks, text_of
from ftgrade.sandbox.backends import START_SECONDS
from ftgrade.sandbox.forking import Nursery
from ftgrade.sandbox.worker import FrameError, frame, frame_json, parse_json, read_body, read_frame


@dataclass(frozen=True, slots=True)
class Outline:
    """A problem without its functions: its checks, at 0 points, and the points of the answers that a person grades.

    `files` are those that a project takes beside the notebook, with the bytes that are read of each.
    """

    version: int
    checks: tuple[CheckReport, ...]
    written: dict[str, float]
    files: dict[str, int] = field(default_factory=dict[str, int])


def ask_outline(nursery: Nursery, catalog: Catalog, stem: str) -> Outline:
    """Return the outline of a problem. Raises AuthorFault or CourseFault as `load_problem` does, and OurFault."""
    forked = nursery.fork("ftgrade.judging.outline", None)
    try:
        forked.channel.settimeout(START_SECONDS)
        forked.channel.sendall(frame_json({"root": str(catalog.root.absolute()), "stem": stem}))
        told = parse_json(read_body(forked.channel.recv))
    except (EOFError, OSError, FrameError) as error:
        raise OurFault(f"{stem} can't be loaded: {nursery.program.last_error_line() or error}") from error
    finally:
        nursery.end(forked)
    if "fault" in told:
        raise {"AuthorFault": AuthorFault, "CourseFault": CourseFault}.get(told["fault"], OurFault)(told["words"])
    return Outline(told["version"], parse_checks(told["checks"]), told["written"], told["files"])


def serve(channel: socket.socket, _control: None) -> None:
    """Answer one question."""
    asked = read_frame(channel.recv)
    try:
        told = text_of(load_outline(Catalog(Path(asked["root"])), asked["stem"]))
    except GradingError as fault:
        told = text_of({"fault": type(fault).__name__, "words": str(fault)})
    channel.sendall(frame(told.encode()))


def load_outline(catalog: Catalog, stem: str) -> Outline:
    """Load a problem's file and return the outline. Raises AuthorFault or CourseFault."""
    if is_project(stem):
        from ftgrade.judging.project import load_project

        project = load_project(catalog, stem)
        lines = (
            CheckReport(one.name, one.title, one.of, one.points, 0.0, "not-run", 0, len(one.goals))
            for one in project.measures
        )
        return Outline(project.version, tuple(lines), {}, project.limits)
    from ftgrade.judging.problem import load_problem

    problem = load_problem(catalog, stem)
    checks = (CheckReport(one.name, one.title, one.of, one.points, 0.0, "not-run", 0, 0) for one in problem.all_checks)
    return Outline(problem.version, tuple(checks), {one.name: one.points for one in problem.written})


__all__ = ["Outline", "ask_outline", "load_outline"]
