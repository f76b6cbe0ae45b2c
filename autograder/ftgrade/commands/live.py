"""The commands of a class at work: watch it, bound how often hand-ins are answered, ask students about their code."""

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftgrade.catalog import Catalog, home
from ftgrade.commands.command import COURSE, STEM, STEMS, Done, argument, at_least_one, chosen_or_any, command
from ftgrade.course import Course
from ftgrade.errors import CourseFault

if TYPE_CHECKING:
    from ftgrade.classroom.arrivals import Drop
    from ftgrade.classroom.watching import Watch
    from ftgrade.commands.terminal import Out, WatchBoard

IDLE_POLLS = 3
"""A file in a drop folder is steady in the second poll, and seen in `submitted/` in the same."""
LEAST_SECONDS, MOST_SECONDS = 0.05, 3600.0


def seconds(text: str) -> float:
    """Return a number of seconds between two polls. Raises ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if LEAST_SECONDS <= float(text) <= MOST_SECONDS:
            return float(text)
    raise argparse.ArgumentTypeError(f"it must be seconds from {LEAST_SECONDS} to {MOST_SECONDS:g}, got {text!r}")


@command(
    "bound how often hand-ins are answered; without a bound, tell the bounds of all",
    argument("stem", nargs="?", help="the problem, such as p03"),
    argument("--limit", type=at_least_one, metavar="N", help="answer N attempts of each student"),
    argument("--wait", metavar="TIME", help="such as 10m: let this time pass between two attempts"),
    argument("--mistakes-from", type=at_least_one, metavar="N", help="name the likely mistake from attempt N on"),
    argument("--none", action="store_true", help="answer every attempt, with the public cases alone"),
    COURSE,
    more="An attempt is a version of the work that `ftgrade watch` answered with a page; the same version again is the "
    "same attempt, and what can't be read is none. The last hand-in counts, whether it was answered or not.",
)
def attempts(
    out: "Out", stem: str | None, limit: int | None, wait: str | None, mistakes_from: int | None, none: bool,
    course: Path,
) -> Done:  # fmt: skip
    from ftgrade.gradebook.attempts import Rule, read_rules, read_wait, set_rule, wait_words

    catalog, told = home(), Course(course)
    given = {"limit": limit, "wait_seconds": wait and read_wait(wait), "mistakes_from": mistakes_from}
    changes = {name: value for name, value in given.items() if isinstance(value, int)}
    if none:
        changes = dict.fromkeys(given, 0) | changes
    if changes and not stem:
        raise CourseFault("which problem? `ftgrade attempts STEM --limit 5 --wait 10m`")
    if stem and changes:
        set_rule(told, catalog.stem(stem), changes)
    rules, stems = read_rules(told), chosen_or_any(catalog, [stem] if stem else [])
    found = {name: rules.get(name, Rule()) for name in stems}
    rows = [
        (name.partition("_")[0], str(rule.limit or "–"), wait_words(rule.wait_seconds), str(rule.mistakes_from or "–"))
        for name, rule in found.items()
    ]
    out.table("Answers before the due date", ("problem", "attempts", "wait", "mistakes named from"), rows)
    fields = ("limit", "wait_seconds", "mistakes_from")
    return Done({"rules": {name: {one: getattr(rule, one) for one in fields} for name, rule in found.items()}})


@command(
    "grade hand-ins as they arrive, until Ctrl+C",
    STEMS,
    argument("--drop", type=Path, metavar="FOLDER", help="collect what is put into this folder too"),
    argument("--pattern", default="plain", help="how names in it tell who and what, as for `ftgrade collect`"),
    argument("--exchange", action="store_true", help="collect from nbgrader's exchange, and release pages to it"),
    argument("--every", type=seconds, default=1.0, metavar="SECONDS", help="look this often (default: %(default)s)"),
    argument("--once", action="store_true", help="end when nothing is left to do, instead of waiting for more"),
    argument("-j", "--workers", type=at_least_one, default=os.cpu_count() or 1, help="submissions judged at once"),
    argument("--allow-unsandboxed", action="store_true", help="grade even where no sandbox holds; every page says so"),
    COURSE,
    more="Scores are booked at once, the same as `ftgrade grade` gives. Before a problem is due, pages show the public "
    "cases alone, and the likely mistakes as `ftgrade attempts` sets it; once it is due, everything. A problem without "
    "a due date is told in full. A file is read when it has looked the same twice. Everything that is done is kept: "
    "stop it, and start it again at any time. Don't run `ftgrade grade` meanwhile: its pages tell everything.",
)
def watch(
    out: "Out", stems: list[str], drop: Path | None, pattern: str, exchange: bool, every: float, once: bool,
    workers: int, allow_unsandboxed: bool, course: Path,
) -> Done:  # fmt: skip
    from ftgrade.commands.terminal import WatchBoard

    if drop is not None and not drop.is_dir():
        raise CourseFault(f"there is no folder {drop} to watch")
    catalog, board = home(), WatchBoard(out)
    wanted = chosen_or_any(catalog, stems)
    with opened_watch(catalog, Course(course.absolute()), wanted, workers, allow_unsandboxed) as watched:
        source = dropped(catalog, watched, drop, pattern) if drop else None
        sources = arrivals(catalog, watched, source, exchange)
        watched.warm()
        with board.opened():
            board.say(f"watching {course.absolute() / 'submitted'}" + (f" and {drop.absolute()}" if drop else ""))
            follow(watched, board, sources, exchange, every, once)
    return Done({"problems": board.document()}, needs_a_person=any(row.troubled for row in board.rows.values()))


def follow(
    watched: "Watch", board: "WatchBoard", sources: Callable[[], Iterator[str]], exchange: bool, every: float,
    once: bool,
) -> None:  # fmt: skip
    """Poll until nothing is left to do, or for ever."""
    from ftgrade.classroom.exchanging import release_page

    said, idle = set[str](), 0
    while True:
        begun, count = time.monotonic(), 0
        for words in sources():
            if words not in said:
                said.add(words)
                board.say(f"left    {words}")
        for event in watched.poll():
            count += 1
            board.saw(event)
            if exchange and event.kind == "page" and (trouble := release_page(watched.book, event.stem, event.student)):
                board.say(f"trouble {event.student}, {event.stem}: page not released: {trouble}")
        idle = 0 if count or watched.unsteady else idle + 1
        if once and idle >= IDLE_POLLS:
            return
        if not watched.backlog:
            time.sleep(max(0.0, begun + every - time.monotonic()))


@contextlib.contextmanager
def opened_watch(
    catalog: Catalog, course: Course, stems: list[str], workers: int, allow_unsandboxed: bool
) -> Generator["Watch"]:
    """Hold judges and records open while a class is watched, and let go of them whatever happens."""
    from ftgrade.sandbox.forking import Nursery

    nursery = Nursery()  # it imports torch while we import nbgrader
    from ftgrade.classroom.watching import Watch
    from ftgrade.gradebook import book
    from ftgrade.grading.grader import Grader
    from ftgrade.judging.judges import Judges
    from ftgrade.pages.feedback import page_maker
    from ftgrade.probing.doctor import cache_file, strongest

    judges = Judges(catalog, lambda: strongest(cache_file(), allow_unsandboxed), workers, nursery)
    (course.root / "submitted").mkdir(exist_ok=True)
    with contextlib.closing(Grader(catalog, course, judges)) as grader:
        booked = book.Book(course)
        booked.demand_open()
        pages = page_maker()
        with booked.open_ledgers(grader, [], pages) as ledgers:
            yield Watch(grader, booked, ledgers, pages, stems, lambda: strangers_of(course))


def strangers_of(course: Course) -> set[str]:
    """Return the folders of nobody whom roster or gradebook know."""
    from ftgrade.gradebook import book

    if not course.strangers(()):
        return set()
    with book.open_gradebook(course.root) as gradebook:
        return course.strangers(str(one.id) for one in gradebook.students)


def dropped(catalog: Catalog, watched: "Watch", folder: Path, pattern: str) -> "Drop":
    """Return the drop folder of a watched course."""
    from ftgrade.classroom.arrivals import Drop
    from ftgrade.gradebook import book, late
    from ftgrade.grading.grader import untouched_test
    from ftgrade.intake import collect
    from ftgrade.judging.project import load_project

    course = watched.grader.course

    def known() -> collect.People:
        with book.open_gradebook(course.root) as gradebook:
            return collect.people(gradebook, course)

    known()  # raises CourseFault now for a course without students
    beside = {name: list(load_project(catalog, name).limits) for name in catalog.projects()}
    zone = late.timezone_of(course.root)
    return Drop(folder, course, watched.stems, known, pattern, zone, untouched_test(catalog), beside)


def arrivals(catalog: Catalog, watched: "Watch", drop: "Drop | None", exchange: bool) -> Callable[[], Iterator[str]]:
    """Return what brings hand-ins into `submitted/` at each poll, and tells what it left."""
    from ftgrade.classroom.exchanging import collect_from_exchange
    from ftgrade.grading.grader import untouched_test
    from ftgrade.intake.naming import put_in_place

    untouched = untouched_test(catalog)

    def bring() -> Iterator[str]:
        if drop is not None:
            yield from drop.collect_new()
        if exchange:
            yield from collect_from_exchange(watched.book, watched.stems)
        yield from put_in_place(watched.grader.course, watched.stems, untouched)

    return bring


@command(
    "make questions on each student's own answer, for an oral",
    STEM,
    argument("--allow-unsandboxed", action="store_true", help="run the code even where no sandbox holds"),
    COURSE,
    more="Three for each student whose answer was graded: a line of their function is changed, and they say what a "
    "public example gives then. The answers are computed in the sandbox and stand in a sheet of their own. The same "
    "submission gets the same questions, and nobody can tell them without the course's secret.",
)
def questions(out: "Out", stem: str, allow_unsandboxed: bool, course: Path) -> Done:
    from ftgrade.sandbox.forking import Nursery

    nursery = Nursery()
    from ftgrade.classroom.questions import Examiner, sheets_of, write_sheets
    from ftgrade.gradebook import book, ledger
    from ftgrade.probing.doctor import cache_file, strongest

    catalog, asked = home(), Course(course.absolute())
    problem = catalog.stem(stem)
    with contextlib.closing(nursery):
        examiner = Examiner(nursery, catalog, strongest(cache_file(), allow_unsandboxed))
        with contextlib.closing(examiner), out.board() as bars:
            found = list(bars.track(sheets_of(asked, problem, examiner), description="asking"))
    if not found:
        raise CourseFault(f"no answer to {problem} was graded yet: `ftgrade grade {problem}` first")
    with book.open_gradebook(course) as gradebook:
        names = ledger.full_names(gradebook)
    written = write_sheets(asked, problem, catalog.title(problem), found, names)
    different = {(one.function, one.was, one.now, one.call) for sheet in found for one in sheet.questions}
    total = sum(len(sheet.questions) for sheet in found)
    out.line(
        *(f"{sheet.student}: {sheet.why}" for sheet in found if sheet.why),
        f"{total} questions, {len(different)} of them different, for {len(found)} students.",
        f"to ask from: {written[0]}",
        f"with the answers: {written[1]}",
    )
    document = {"questions": total, "different": len(different), "students": len(found)}
    return Done(document | {"sheets": [str(path) for path in written]})


__all__ = ["attempts", "questions", "watch"]
