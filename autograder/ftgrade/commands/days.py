"""The commands of an instructor's other days: due dates, late files, what needs a person, who wrote the same."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ftgrade.catalog import home
from ftgrade.commands.command import COURSE, STEM, STEMS, Done, argument, chosen_or_any, command, one_of
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.words import counted, summed

if TYPE_CHECKING:
    from ftgrade.commands.terminal import Out
    from ftgrade.gradebook.todo import Need


@command(
    "set when a problem is due; without a time, tell when all are",
    argument("stem", nargs="?", help="the problem, such as p03"),
    one_of(
        argument("time", nargs="?", help="such as 2026-12-01T18:00, in the course's time zone if it has no offset"),
        argument("--none", action="store_true", help="it's never due"),
    ),
    COURSE,
)
def due(out: "Out", stem: str | None, time: str | None, none: bool, course: Path) -> Done:
    from ftgrade.gradebook import book, late
    from ftgrade.moments import format_time, parse_time

    catalog, zone = home(), late.timezone_of(course)
    if none and not stem:
        raise CourseFault("which problem is never due? `ftgrade due STEM --none`")
    stems = chosen_or_any(catalog, [stem] if stem else [])
    with book.open_gradebook(course) as gradebook:
        if time or none:
            late.set_due(gradebook, Course(course), stems[0], parse_time(time, zone) if time else None)
        found = late.read_deadlines(gradebook, Course(course), stems)
    rows = [
        (
            one.stem.partition("_")[0],
            format_time(one.due, zone) if one.due else "–",
            "\n".join(f"{student}: {format_time(until, zone)}" for student, until in one.extended),
            f"{one.late} of {one.booked}" if one.due else "",
        )
        for one in found
    ]
    columns = ("problem", "due", "longer for", "late")
    out.table("Due dates", columns, rows, left=columns[:3])
    words = "tell no time and count as in time: a timestamp.txt, or `ftgrade collect --at`, would say"
    untimed = [one for one in found if one.without_time]
    out.line(*(f"{one.stem}: {one.without_time} of {one.booked} submissions {words}" for one in untimed))
    return Done({"time zone": zone, "deadlines": [asdict(one) for one in found]})


@command(
    "give one student more time",
    argument("student", help="the student's id"),
    STEM,
    one_of(
        argument("--until", metavar="TIME", help="such as 2026-12-04T18:00"),
        argument("--none", action="store_true", help="take the extension back"),
        required=True,
    ),
    COURSE,
)
def extend(out: "Out", student: str, stem: str, until: str | None, none: bool, course: Path) -> Done:
    from ftgrade.gradebook import book, late
    from ftgrade.moments import format_time, parse_time

    problem, zone = home().stem(stem), late.timezone_of(course)
    end = None if until is None else parse_time(until, zone)
    with book.open_gradebook(course) as gradebook:
        late.set_extension(gradebook, Course(course), student, problem, end)
    words = f"has time until {format_time(end, zone)}" if end else "has no extension any more"
    out.line(f"{student} {words} for {problem}; the next `ftgrade grade` books it.")
    return Done({"student": student, "problem": problem, "until": end and f"{end.isoformat()}+00:00"})


@command(
    "put files from a folder or an archive into submitted/",
    argument("source", type=Path, help="a folder, a notebook, or a .zip or .tar as a platform gives it"),
    argument(
        "--pattern",
        default="plain",
        help="plain, canvas, moodle, blackboard, brightspace, gradescope, google, github, sakai, ilias, or how paths "
        "tell who and what: '{student}_{stem}_{time}.ipynb'",
    ),
    argument("--stem", help="the problem that all of them belong to, whatever their names"),
    argument("--at", metavar="TIME", help="when those were handed in whose path tells no time"),
    COURSE,
    more="A pattern fits the end of a path, archives count as folders, and {student}, {lms} (the number in the "
    "learning platform) or {name} (first and last name), {stem}, {time}, {order}, {any} and {deep} (folders) stand for "
    "its parts. From nbgrader's exchange `nbgrader collect STEM` fills the same folders.",
)
def collect(out: "Out", source: Path, pattern: str, stem: str | None, at: str | None, course: Path) -> Done:
    from ftgrade.gradebook import book, late
    from ftgrade.grading.grader import untouched_test
    from ftgrade.intake import collect
    from ftgrade.judging.project import load_project
    from ftgrade.moments import format_time, parse_time

    catalog, zone = home(), late.timezone_of(course)
    only = catalog.stem(stem) if stem else None
    time = parse_time(at, zone) if at else None
    with book.open_gradebook(course) as gradebook:
        known = collect.people(gradebook, Course(course))
    untouched = untouched_test(catalog)
    stems = [*catalog.stems(), *catalog.projects()]
    beside = {name: list(load_project(catalog, name).limits) for name in catalog.projects()}
    found = collect.collect(source, Course(course), known, stems, pattern, only, time, zone, untouched, beside)
    columns = ("student", "problem", "", "handed in", "from")
    rows = [
        (
            one.student,
            one.stem.partition("_")[0],
            one.outcome,
            format_time(one.time, zone) if one.time else "late, says its name" if one.marked_late else "–",
            one.source,
        )
        for one in found.taken
    ]
    out.table("Collected", columns, rows, left=columns)
    replaced = sum(one.outcome == "replaced" for one in found.taken)
    aside = f", {replaced} replaced earlier ones, which are in {Course(course).state / 'earlier'}" if replaced else ""
    out.line(
        *(f"left where it is: {text}" for text in summed(found.left, "file")),
        *([f"hint: {found.hint}"] if found.hint else []),
        f"{counted(len(found.taken), 'submission is', 'submissions are')} in place{aside}; "
        f"{counted(len(found.left), 'file was', 'files were')} left" + (", all in `--json`." if found.left else "."),
    )
    return Done(asdict(found), needs_a_person=bool(found.left))


@command(
    "tell what needs a person, how it's mended, and where it stands",
    STEMS,
    argument(
        "--settle", nargs=2, metavar=("STUDENT", "STEM"), help="note that you looked at what was found about these"
    ),
    argument("--server", default="http://localhost:8888", help="where formgrader runs (default: %(default)s)"),
    COURSE,
)
def todo(out: "Out", stems: list[str], settle: list[str] | None, server: str, course: Path) -> Done:
    from ftgrade.gradebook import book, todo

    catalog = home()
    if settle:
        student, problem = settle[0], catalog.stem(settle[1])
        out.line(f"settled for {student}, {problem}: {', '.join(todo.settle(Course(course), student, problem))}")
    with book.open_gradebook(course) as gradebook:
        needs = todo.list_needs(Course(course), gradebook, chosen_or_any(catalog, stems), server)
    for reason, about in todo.ABOUT.items():
        if mine := [need for need in needs if need.reason == reason]:
            out.line(f"\n{reason}: {about} ({len(mine)})", *todo_lines(mine))
    links = f" Links lead to formgrader, which `jupyter lab` in {course.absolute()} opens."
    out.line(
        f"\n{counted(len(needs), 'thing needs', 'things need')} a person.{links}"
        if needs
        else "Nothing needs a person."
    )
    return Done({"needs": [asdict(need) for need in needs]}, needs_a_person=bool(needs))


def todo_lines(needs: "list[Need]") -> Iterator[str]:
    """Yield the lines about one reason; a mend that all share is said once."""
    shared = len({need.mend for need in needs}) == 1
    if shared:
        yield f"  {needs[0].mend}"
    for need in needs:
        yield f"  - {need.student}, {need.stem}: {need.words}"
        yield from (f"    {text}" for text in ("" if shared else need.mend, need.link) if text)


@command("explain the last regrade: whose score changed, and why", STEMS, COURSE)
def diff(out: "Out", stems: list[str], course: Path) -> Done:
    from ftgrade.grading.regrade import regrade_changes

    found = list(regrade_changes(Course(course), chosen_or_any(home(), stems)))
    columns = ("student", "problem", "before", "now", "checks that changed", "because of a change of")
    rows = [
        (
            one.student,
            one.stem.partition("_")[0],
            f"{one.before:g}",
            f"{one.now:g}",
            ", ".join(one.checks),
            ", ".join(one.because),
        )
        for one in found
    ]
    out.table("The last regrade", columns, rows, left=(columns[1], *columns[4:]))
    changed = counted(sum(one.before != one.now for one in found), "score")
    out.line(f"{changed} changed, {counted(len(found), 'submission was', 'submissions were')} regraded.")
    return Done({"changes": [asdict(one) for one in found]})


@command(
    "write the answers to a problem as JPlag reads them, and its command",
    STEM,
    argument("folder", type=Path, metavar="OUT", help="a folder that is new or empty"),
    COURSE,
    more="JPlag (https://github.com/jplag/JPlag, a Java program that you install yourself) compares all pairs on this "
    "machine and shows what they share side by side. The command that is printed has the options of JPlag 6, "
    "by its documentation; our tests don't run it. Code that its Python grammar can't read it leaves out, and says "
    "so. A match proves nothing: it says which notebooks to read.",
)
def jplag(out: "Out", stem: str, folder: Path, course: Path) -> Done:
    from ftgrade.classroom import jplag

    wrote, left = jplag.export(Course(course), home().stem(stem), folder)
    out.line(
        f"wrote what {len(wrote)} of {len(wrote) + len(left)} students wrote to {folder}",
        *(f"left out: {student}: {words}" for student, words in left.items()),
        f"Next:\n  {jplag.command_line(folder)}",
    )
    return Done({"wrote": wrote, "left out": left, "command": jplag.command_line(folder)})


OLD_REPORT = "this report is of another hand-in than the one that was graded last"


@command("find stored reports that were changed or exchanged after they were written", COURSE)
def verify(out: "Out", course: Path) -> Done:
    from ftgrade.grading.lastrun import LastRun
    from ftgrade.grading.reports import Reports

    reports = Reports(Course(course))
    found: list[tuple[str, str, str]] = []
    for stem, student, fault in reports.verify():
        graded = LastRun(reports.course.last_path(stem))[student].submission
        old = not fault and graded and reports.load(student, stem).graded_by.get("submission", graded) != graded
        found.append((stem, student, OLD_REPORT if old else fault))
    changed = [{"student": student, "problem": stem, "words": words} for stem, student, words in found if words]
    out.line(
        *(f"{one['problem']}, {one['student']}: {one['words']}" for one in changed),
        f"{counted(len(found), 'report')}, {len(changed)} not as written; `ftgrade grade` judges those again.",
    )
    return Done({"reports": len(found), "changed": changed}, needs_a_person=bool(changed))
