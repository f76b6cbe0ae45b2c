"""The `ftgrade` command line: build, release, grade; every command says what it did and what to do next.

What a command needs is imported when it runs: `--help` and completion answer at once.
"""

import argparse
import contextlib
import gc
import json
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftgrade.catalog import Catalog, home
from ftgrade.commands import manpage
from ftgrade.errors import CourseFault, GradingError
from ftgrade.judging.problem import load_problem

if TYPE_CHECKING:
    from ftgrade.classroom.marking import Marked
    from ftgrade.commands.terminal import Board
    from ftgrade.course import Course
    from ftgrade.gradebook.todo import Need
    from ftgrade.judging.report import Report
    from ftgrade.probing.doctor import Finding

    TakenOff = dict[tuple[str, str], float]
    """What lateness takes off, by student and problem."""

FINE, SOME_NEED_A_PERSON, COULD_NOT, STOPPED = 0, 1, 2, 130
EXIT_CODES = """exit codes:
  0    fine
  1    done, and something needs a person: `ftgrade todo` says what
  2    could not, for the reason that is told
  130  stopped from the keyboard; what was done is kept

`ftgrade COMMAND --help` tells more. With --json a command prints one JSON document; the rest goes to stderr."""
GROUPS = {
    "Learn": ("check", "certificate"),
    "Teach": (
        "new-course", "release", "due", "extend", "collect", "grade", "todo", "diff", "jplag", "verify", "doctor",
    ),
    "Write problems": ("new", "build", "fill", "audit"),
    "Shell": ("completion",),
}  # fmt: skip


class Out:
    """What people read: on stdout, or on stderr where stdout holds a JSON document."""

    stderr = False

    def print(self, *what: object, markup: bool = True, soft_wrap: bool = False) -> None:
        from ftgrade.commands.terminal import console

        console(self.stderr).print(*what, markup=markup, soft_wrap=soft_wrap)


out = Out()


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return 0 (fine), 1 (done, and some submissions need a person) or 2 (could not)."""
    arguments = parser().parse_args(words)
    out.stderr = getattr(arguments, "json", False)
    try:
        return arguments.run(arguments)
    except GradingError as error:
        say(arguments, {"error": str(error)})
        complain(str(error))
        return COULD_NOT
    except KeyboardInterrupt:
        complain("stopped; what was graded is kept, and the next run goes on from there")
        return STOPPED


def complain(words: str) -> None:
    from ftgrade.commands.terminal import console

    console(True).print(f"ftgrade: {words}", markup=False, soft_wrap=True)


def say(arguments: argparse.Namespace, document: dict[str, Any]) -> None:
    """Print a command's result for a program to read, if one asked for it."""
    if getattr(arguments, "json", False):
        print(json.dumps(document, ensure_ascii=False, indent=1, default=str))


def parser() -> argparse.ArgumentParser:
    return parsers()[0]


def parsers() -> tuple[argparse.ArgumentParser, manpage.Subparsers]:
    """Return the whole command line, and what holds its commands."""
    top = argparse.ArgumentParser(
        "ftgrade",
        usage="ftgrade COMMAND …",
        description="Build, release and grade the course's problems.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(prog="ftgrade", required=True, metavar="COMMAND", help=argparse.SUPPRESS)

    one = commands.add_parser("build", help="make the notebooks from their masters")
    one.add_argument("--check", action="store_true", help="change nothing; fail if a notebook is stale")
    one.set_defaults(run=run_build)

    one = commands.add_parser("new", help="write the three leaves of a next problem")
    one.add_argument("slug", help="its name, such as dora_magnitude")
    one.set_defaults(run=run_new)

    one = commands.add_parser("audit", help="measure the hidden tests: what they catch, what they cost")
    stems_argument(one)
    one.add_argument("-j", "--workers", type=int, default=os.cpu_count() or 1, help="problems audited at once")
    one.add_argument("--check", action="store_true", help="change nothing; fail if the README's table is stale")
    one.set_defaults(run=run_audit)

    one = commands.add_parser("fill", help="put a Python file's functions into a problem's notebook")
    one.add_argument("stem", help="the problem, such as p03")
    one.add_argument("answers", type=Path, help="the Python file")
    one.add_argument("-o", "--output", type=Path, required=True, help="the notebook to write")
    one.set_defaults(run=run_fill)

    one = commands.add_parser("check", help="grade your own notebook on today's numbers, as a class is graded")
    one.add_argument("notebook", metavar="PROBLEM", help="a problem's name, such as p03, or a notebook's path")
    one.add_argument("--stem", help="the problem, if the file's name doesn't tell")
    one.add_argument("--day", type=a_day, metavar="DATE", help="repeat on the numbers of a day, such as 2026-01-31")
    one.add_argument("--page", action="store_true", help="write the feedback as a page beside the notebook")
    one.add_argument("--solution", action="store_true", help="show the solution, after honest attempts")
    one.set_defaults(run=run_check)

    one = commands.add_parser("certificate", help="write a page of what you have shown, signed by nobody")
    one.add_argument("--name", default="", help="whose page it is")
    one.add_argument("-o", "--output", type=Path, default=Path("certificate.html"), help="its file")
    one.set_defaults(run=run_certificate)

    one = commands.add_parser("new-course", help="make a course folder, with a roster's students in its gradebook")
    one.add_argument("folder", type=Path, metavar="DIR", help="a folder that is new or empty")
    one.add_argument(
        "--roster",
        type=Path,
        required=True,
        metavar="CSV",
        help="a column id; if you like first_name, last_name, email, lms_user_id",
    )
    one.add_argument(
        "--secret",
        type=Path,
        metavar="FILE",
        help="take the course's secret from here, such as an earlier course's .ftgrade/secret, instead of drawing one",
    )
    one.set_defaults(run=run_new_course)

    one = commands.add_parser("release", help="make the students' notebooks in release/")
    stems_argument(one)
    one.add_argument("--students", type=Path, metavar="CSV", help="write a copy with own questions for each of these")
    one.add_argument("--bundle", type=Path, metavar="ZIP", help="write the course for students as one archive")
    course_option(one)
    one.set_defaults(run=run_release)

    one = commands.add_parser("grade", help="grade what was handed in: gradebook, feedback, class report")
    stems_argument(one)
    one.add_argument("-j", "--workers", type=int, default=os.cpu_count() or 1, help="submissions judged at once")
    one.add_argument("--scheduler", metavar="ADDRESS", help="judge on the workers of this Dask scheduler, tcp://…")
    one.add_argument("--fresh", action="store_true", help="judge again what hasn't changed")
    one.add_argument("--demo", action="store_true", help="grade a made-up class in a scratch folder")
    one.add_argument(
        "--allow-unsandboxed", action="store_true", help="grade even where no sandbox holds; every page says so"
    )
    course_option(one)
    one.set_defaults(run=run_grade)

    one = commands.add_parser("doctor", help="try to break out of every sandbox of this machine, and say what holds")
    one.set_defaults(run=run_doctor)

    one = commands.add_parser("verify", help="find stored reports that were changed after they were written")
    course_option(one)
    one.set_defaults(run=run_verify)

    one = commands.add_parser("diff", help="explain the last regrade: whose score changed, and why")
    stems_argument(one)
    course_option(one)
    one.set_defaults(run=run_diff)

    one = commands.add_parser("due", help="set when a problem is due; without a time, tell when all are")
    one.add_argument("stem", nargs="?", help="the problem, such as p03")
    which = one.add_mutually_exclusive_group()
    which.add_argument(
        "time", nargs="?", help="such as 2026-12-01T18:00, in the course's time zone if it has no offset"
    )
    which.add_argument("--none", action="store_true", help="it's never due")
    course_option(one)
    one.set_defaults(run=run_due)

    one = commands.add_parser("extend", help="give one student more time")
    one.add_argument("student", help="the student's id")
    one.add_argument("stem", help="the problem, such as p03")
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("--until", metavar="TIME", help="such as 2026-12-04T18:00")
    which.add_argument("--none", action="store_true", help="take the extension back")
    course_option(one)
    one.set_defaults(run=run_extend)

    one = commands.add_parser("collect", help="put files from a folder or an archive into submitted/")
    one.add_argument("source", type=Path, help="a folder, or a .zip or .tar as a learning platform gives it")
    one.add_argument(
        "--pattern",
        default="plain",
        help="plain, canvas, moodle, or how paths tell who and what: '{student}_{stem}_{time}.ipynb'",
    )
    one.add_argument("--stem", help="the problem that all of them belong to, whatever their names")
    one.add_argument("--at", metavar="TIME", help="when those were handed in whose path tells no time")
    one.epilog = (
        "A pattern fits the end of a path, archives count as folders, and {student}, {lms} (the number in the learning "
        "platform) or {name} (first and last name), {stem}, {time}, {order}, {any} and {deep} (folders) stand for its "
        "parts. From nbgrader's exchange `nbgrader collect STEM` fills the same folders."
    )
    course_option(one)
    one.set_defaults(run=run_collect)

    one = commands.add_parser("todo", help="tell what needs a person, how it's mended, and where it stands")
    stems_argument(one)
    one.add_argument(
        "--settle", nargs=2, metavar=("STUDENT", "STEM"), help="note that you looked at what was found about these"
    )
    one.add_argument("--server", default="http://localhost:8888", help="where formgrader runs (default: %(default)s)")
    course_option(one)
    one.set_defaults(run=run_todo)

    one = commands.add_parser("jplag", help="write the answers to a problem as JPlag reads them, and its command")
    one.add_argument("stem", help="the problem, such as p03")
    one.add_argument("folder", type=Path, metavar="OUT", help="a folder that is new or empty")
    one.epilog = (
        "JPlag (https://github.com/jplag/JPlag, a Java program that you install yourself) compares all pairs on this "
        "machine and shows what they share side by side. The command that is printed has the options of JPlag 6, "
        "by its documentation; our tests don't run it. Code that its Python grammar can't read it leaves out, and says "
        "so. A match proves nothing: it says which notebooks to read."
    )
    course_option(one)
    one.set_defaults(run=run_jplag)

    one = commands.add_parser("completion", help="print what makes a shell complete ftgrade's words")
    one.add_argument("shell", choices=["bash", "zsh"], help="whose script")
    one.epilog = 'bash: `eval "$(ftgrade completion bash)"` in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit.'
    one.set_defaults(run=run_completion)

    for name, one in commands.choices.items():
        if name not in ("fill", "completion"):
            one.add_argument("--json", action="store_true", help="print the result as one JSON document")
    manpage.describe(top, commands, GROUPS)
    return top, commands


def course_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--course", type=Path, default=Path(), metavar="DIR", help="the course's folder (default: this one)"
    )


def stems_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("stems", nargs="*", help="problems such as p03 (default: all)")


def pages(catalog: Catalog) -> dict[Path, str]:
    """Return the built files that tell of the command line itself."""
    return {catalog.root / "docs" / "commands.md": manpage.page(*parsers(), GROUPS)}


def a_day(word: str) -> str:
    """Return a date as it's written in the record. Raises ArgumentTypeError."""
    try:
        return date.fromisoformat(word).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"a date is written as 2026-01-31, got {word!r}") from None


def chosen(catalog: Catalog, names: Sequence[str]) -> list[str]:
    return [catalog.stem(name) for name in names] or catalog.stems()


# -------------------------------------------------------------------------------------------------- leaves to notebook


def run_build(arguments: argparse.Namespace) -> int:
    from ftgrade.authoring import build

    catalog = home()
    more = pages(catalog)
    paths = build.stale(catalog, more) if arguments.check else build.build(catalog, more)
    say(arguments, {"changed": [str(path.relative_to(catalog.root)) for path in paths]})
    for path in paths:
        out.print(
            f"stale: {path.relative_to(catalog.root)}" if arguments.check else made(catalog, path), soft_wrap=True
        )
    if arguments.check and paths:
        out.print("These files differ from what their masters give: edit the masters and run `ftgrade build`.")
        return SOME_NEED_A_PERSON
    out.print(f"{len(build.wanted(catalog, more))} built files are up to date.")
    return FINE


def made(catalog: Catalog, path: Path) -> str:
    """Return what a build says of one file that it wrote."""
    name = path.relative_to(catalog.root)
    return f"your answers are kept in {name}" if name.parts[0] == "work" else f"built {name}"


def run_new(arguments: argparse.Namespace) -> int:
    from ftgrade.authoring import build

    catalog = home()
    paths = build.new_problem(catalog, arguments.slug)
    say(arguments, {"wrote": [str(path.relative_to(catalog.root)) for path in paths]})
    for path in paths:
        out.print(f"wrote {path.relative_to(catalog.root)}", soft_wrap=True)
    stem = paths[0].stem
    out.print(f"wrote five broken submissions to tests/submissions/{stem}", soft_wrap=True)
    out.print(f"Fill them in, run `ftgrade build`, then `ftgrade audit {stem[:3]}`; CONTRIBUTING.md shows it.")
    return FINE


def run_fill(arguments: argparse.Namespace) -> int:
    from ftgrade.authoring import build

    catalog = home()
    text = build.filled_notebook(catalog, catalog.stem(arguments.stem), arguments.answers.read_text("utf-8"))
    arguments.output.write_text(text, "utf-8")
    out.print(f"wrote {arguments.output}", soft_wrap=True)
    return FINE


def run_audit(arguments: argparse.Namespace) -> int:
    from ftgrade.authoring import audit
    from ftgrade.commands.terminal import table

    catalog = home()
    stems = chosen(catalog, arguments.stems)
    with progress() as bars:
        bar = bars.add_task("auditing", total=len(stems))
        audits = audit.audit(catalog, stems, arguments.workers, lambda: bars.advance(bar))
    columns = ("problem", "mistakes", "mutants", "equivalent", "accepted", "median cost", "hidden calls")
    rows = [
        (one.stem[:3], *(cell.strip() for cell in one.row.strip("|").split("|")[1:]), f"{one.milliseconds:.0f} ms")
        for one in audits
    ]
    out.print(table("What the hidden tests catch", columns, rows))
    troubles = [line for one in audits for line in one.troubles]
    readme = catalog.root / "README.md"
    text = readme.read_text("utf-8")
    if audits and not arguments.stems and audit.in_text(text, audits) != text:
        if arguments.check:
            troubles.append("README.md: the table is stale; run `ftgrade audit`")
        else:
            readme.write_text(audit.in_text(text, audits), "utf-8")
            out.print("wrote the table of README.md")
    for line in troubles:
        out.print(line, markup=False, soft_wrap=True)
    say(arguments, {"problems": [asdict(one) for one in audits], "troubles": troubles})
    return SOME_NEED_A_PERSON if troubles else FINE


# -------------------------------------------------------------------------------------------------------- one notebook


def run_check(arguments: argparse.Namespace) -> int:
    from ftgrade.classroom import selfstudy

    catalog = home()
    done = selfstudy.check(catalog, arguments.notebook, arguments.stem, arguments.day)
    for line in selfstudy.lines(catalog, done):
        out.print(line, markup=False, soft_wrap=True)
    if arguments.page:
        out.print(f"page: {selfstudy.write_page(catalog, done)}", markup=False, soft_wrap=True)
    if arguments.solution:
        out.print(selfstudy.reveal(catalog, done), markup=False, soft_wrap=True)
    say(arguments, told(done.report))
    return SOME_NEED_A_PERSON if done.report.needs_a_person else FINE


def run_certificate(arguments: argparse.Namespace) -> int:
    from ftgrade.classroom import selfstudy

    page = selfstudy.certificate(home(), selfstudy.read_record(), arguments.name, date.today().isoformat())
    arguments.output.write_text(page, "utf-8")
    say(arguments, {"wrote": str(arguments.output)})
    out.print(f"wrote {arguments.output}: it opens in a browser and prints", markup=False, soft_wrap=True)
    return FINE


def told(report: "Report") -> dict[str, Any]:
    """Return a report as a JSON document tells it: what its student may read, without pictures."""
    return {
        "student": report.student,
        "problem": report.stem,
        "state": report.state,
        "score": report.score,
        "points": report.points,
        "checks": [asdict(check) for check in report.checks],
        "findings": [asdict(finding) for finding in report.findings],
    }


# ------------------------------------------------------------------------------------------------------------- a class


def run_new_course(arguments: argparse.Namespace) -> int:
    from ftgrade.classroom.newcourse import new_course

    students = new_course(arguments.folder, arguments.roster, arguments.secret)
    say(arguments, {"course": str(arguments.folder), "students": students})
    folder = shlex.quote(str(arguments.folder))
    count = "1 student is" if len(students) == 1 else f"{len(students)} students are"
    lines = [
        f"{count} in {arguments.folder / 'gradebook.db'}; keep {arguments.folder / '.ftgrade' / 'secret'} in a backup.",
        "Next:",
        f"  ftgrade release --course {folder}",
        f"  ftgrade grade --course {folder}",
        f"  cd {folder} && nbgrader export --exporter ftgrade.exporters.Csv --to grades.csv",
    ]
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)
    return FINE


def run_release(arguments: argparse.Namespace) -> int:
    from ftgrade.course import Course
    from ftgrade.gradebook.book import Book

    catalog = home()
    demand_built(catalog)
    arguments.course.mkdir(parents=True, exist_ok=True)
    book = Book(Course(arguments.course))
    for stem in chosen(catalog, arguments.stems):
        book.release(stem)
        out.print(f"released {stem}: give students {arguments.course / 'release' / stem}", soft_wrap=True)
    if arguments.students:
        release_personally(catalog, Course(arguments.course), chosen(catalog, arguments.stems), arguments.students)
    if arguments.bundle:
        from ftgrade.classroom import bundle

        for path in bundle.write(catalog, Course(arguments.course), arguments.bundle):
            out.print(f"bundle: {path}", markup=False, soft_wrap=True)
    say(arguments, {"released": chosen(catalog, arguments.stems), "folder": str(arguments.course / "release")})
    return FINE


def release_personally(catalog: Catalog, course: "Course", stems: list[str], roster: Path) -> None:
    """Keep the roster, and write for each of its students a release with questions of their own."""
    from ftgrade.authoring import build
    from ftgrade.course import read_roster
    from ftgrade.judging.seeds import open_seed, personal_seed

    known, students = course.roster(), read_roster(roster)
    if gone := [student for student in known if student not in students]:
        raise CourseFault(f"{roster.name} lacks students whose questions are out already: {', '.join(gone)}")
    course.roster_path.write_bytes(roster.read_bytes())
    for stem in stems:
        problem = load_problem(catalog, stem)
        if problem.own is None:
            continue
        released = (course.root / "release" / stem / f"{stem}.ipynb").read_text("utf-8")
        before = open_seed(stem, problem.version)
        for student in students:
            seed = personal_seed(course, student, stem, problem.version)
            path = course.root / "personal" / student / stem / f"{stem}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(build.personalised(released, problem, before, seed), "utf-8")
    out.print(
        f"{len(students)} students have questions of their own: give each {course.root / 'personal'}/STUDENT",
        soft_wrap=True,
    )


def demand_built(catalog: Catalog) -> None:
    """Build what is stale, and say so: a release must not hold an older problem than the one that is graded."""
    from ftgrade.authoring import build

    for path in build.build(catalog, pages(catalog)):
        out.print(made(catalog, path), soft_wrap=True)


def run_grade(arguments: argparse.Namespace) -> int:
    catalog = home()
    course = arguments.course
    if arguments.demo:
        from ftgrade.classroom import demo

        demand_built(catalog)
        course = demo.lay_down(catalog)
        out.print(f"A made-up class of {len(demo.STUDENTS)} students is laid down in {course}", soft_wrap=True)
    done, taken_off = marked(catalog, course, arguments)
    reports, failed = done.reports, done.failed
    show(reports, course, taken_off)
    troubled = [report for report in reports if report.needs_a_person]
    ours = sum(report.state == "ours" for report in reports)
    out.print(
        f"{len(reports)} submissions: {len(reports) - len(troubled)} graded, {len(troubled) - ours} could not be read, "
        f"{ours} need a person because the grader failed, {len(failed)} could not be booked."
    )
    for line in failed:
        out.print(f"not booked: {line} (see {course / '.ftgrade' / 'nbgrader.log'})", markup=False, soft_wrap=True)
    submissions = [told(one) | {"late penalty": taken_off.get((one.student, one.stem), 0.0)} for one in reports]
    say(arguments, {"course": str(course), "submissions": submissions, "not booked": failed})
    if troubled or failed:
        out.print(f"`ftgrade todo --course {shlex.quote(str(course))}` tells what needs a person.", soft_wrap=True)
    expected = 0 if arguments.demo else len(troubled) - ours  # the demo class hands in unreadable files on purpose
    return SOME_NEED_A_PERSON if ours or failed or expected else FINE


def marked(catalog: Catalog, root: Path, arguments: argparse.Namespace) -> "tuple[Marked, TakenOff]":
    """Grade a class; return what was done and what lateness takes off. Raises CourseFault."""
    from ftgrade.course import Course
    from ftgrade.sandbox.forking import Nursery

    course = Course(root.absolute())
    stems = [stem for stem in chosen(catalog, arguments.stems) if course.students(stem)]
    if not stems:
        raise CourseFault(f"nothing was handed in: put notebooks at {root}/submitted/STUDENT/STEM/STEM.ipynb")
    nursery = None if arguments.scheduler else Nursery()  # it imports torch on one core while we do on another
    from ftgrade.classroom.marking import mark
    from ftgrade.gradebook import late
    from ftgrade.gradebook.book import opened
    from ftgrade.grading.grader import Grader
    from ftgrade.judging.judges import Judges
    from ftgrade.probing.doctor import kept_here, strongest

    allowed = arguments.allow_unsandboxed
    judges = Judges(catalog, lambda: strongest(kept_here(), allowed), arguments.workers, nursery)
    totals = {stem: len(course.students(stem)) for stem in stems}
    with contextlib.closing(Grader(catalog, course, judges)) as grader, progress(totals) as board:
        done = mark(grader, stems, board, fresh=arguments.fresh, scheduler=arguments.scheduler or "")
    with opened(course.root) as gradebook:
        return done, late.penalties(gradebook, stems)


def run_doctor(arguments: argparse.Namespace) -> int:
    from ftgrade.commands.terminal import table
    from ftgrade.probing.doctor import examination
    from ftgrade.probing.probes import PROBES

    names = [probe.name for probe in PROBES]
    found: list[Finding] = []
    with progress() as bars:
        bar = bars.add_task("probing", total=None)
        for one in examination():
            bars.advance(bar)
            found.append(one)
    title = "What each sandbox holds on this machine (✓ held, ✗ broken)"
    out.print(table(title, ("sandbox", *names, "for marks"), [probed_row(one, names) for one in found]))
    broken = [f"{one.backend.name}: {line}" for one in found for line in ([one.lacks] if one.lacks else one.fails)]
    for probe in PROBES:
        out.print(f"{probe.name}: {probe.asks}" + ("" if probe.demanded else " (good to have)"), markup=False)
    for line in broken:
        out.print(f"  {line}", markup=False, soft_wrap=True)
    best = next((one.backend for one in found if one.holds), None)
    out.print(f"Grading uses: {best.name}, {best.about}." if best else "None holds all that grading for marks demands.")
    sandboxes = [
        {"name": one.backend.name, "tested": one.backend.tested, "for marks": one.holds, "lacks": one.lacks}
        | {"held": {held.probe: held.holds for held in one.held}}
        for one in found
    ]
    say(arguments, {"uses": best.name if best else None, "sandboxes": sandboxes})
    return FINE if best else COULD_NOT


def probed_row(one: "Finding", names: list[str]) -> tuple[str, ...]:
    held = {held.probe: "✓" if held.holds else "✗" for held in one.held}
    about = one.backend.name if one.backend.tested else f"{one.backend.name} (untested)"
    return about, *(held.get(name, "–") for name in names), "yes" if one.holds else "no"


def run_verify(arguments: argparse.Namespace) -> int:
    from ftgrade.course import Course
    from ftgrade.judging.report import from_json

    course = Course(arguments.course)
    secret, count = course.secret(), 0
    changed: list[dict[str, str]] = []
    for path in sorted((course.state / "reports").glob("*/*.json")):
        count += 1
        try:
            from_json(path.read_text("utf-8"), secret)
        except (OSError, ValueError) as error:
            changed.append({"student": path.stem, "problem": path.parent.name, "words": str(error)})
            out.print(f"{path.parent.name}, {path.stem}: {error}", markup=False, soft_wrap=True)
    say(arguments, {"reports": count, "changed": changed})
    out.print(f"{count} reports, {len(changed)} not as they were written; `ftgrade grade` judges those again.")
    return SOME_NEED_A_PERSON if changed else FINE


def run_diff(arguments: argparse.Namespace) -> int:
    from ftgrade.commands.terminal import table
    from ftgrade.course import Course
    from ftgrade.grading.regrade import changes

    found = list(changes(Course(arguments.course), chosen(home(), arguments.stems)))
    columns = ("student", "problem", "before", "now", "checks that changed", "because of a change of")
    rows = [
        (one.student, one.stem[:3], f"{one.before:g}", f"{one.now:g}", ", ".join(one.checks), ", ".join(one.because))
        for one in found
    ]
    out.print(table("The last regrade", columns, rows, left=(columns[1], *columns[4:])))
    say(arguments, {"changes": [asdict(one) for one in found]})
    out.print(f"{sum(one.before != one.now for one in found)} scores changed, {len(found)} submissions were regraded.")
    return FINE


# ------------------------------------------------------------------------------------------ an instructor's other days


def run_due(arguments: argparse.Namespace) -> int:
    from ftgrade import moments
    from ftgrade.commands.terminal import table
    from ftgrade.course import Course
    from ftgrade.gradebook import late
    from ftgrade.gradebook.book import opened

    catalog, course = home(), Course(arguments.course)
    zone = late.timezone_of(course.root)
    if arguments.none and not arguments.stem:
        raise CourseFault("which problem is never due? `ftgrade due STEM --none`")
    stems = chosen(catalog, [arguments.stem] if arguments.stem else [])
    with opened(course.root) as gradebook:
        if arguments.time or arguments.none:
            late.set_due(gradebook, course, stems[0], moments.moment(arguments.time, zone) if arguments.time else None)
        found = late.deadlines(gradebook, course, stems)
    rows = [
        (
            one.stem[:3],
            moments.local(one.due, zone) if one.due else "–",
            "\n".join(f"{student}: {moments.local(until, zone)}" for student, until in one.extended),
            f"{one.late} of {one.booked}" if one.due else "",
        )
        for one in found
    ]
    columns = ("problem", "due", "longer for", "late")
    out.print(table("Due dates", columns, rows, left=columns[:3]))
    for one in found:
        if one.without_time:
            words = "tell no time and count as in time: a timestamp.txt, or `ftgrade collect --at`, would say"
            out.print(f"{one.stem}: {one.without_time} of {one.booked} submissions {words}", soft_wrap=True)
    say(arguments, {"time zone": zone, "deadlines": [asdict(one) for one in found]})
    return FINE


def run_extend(arguments: argparse.Namespace) -> int:
    from ftgrade import moments
    from ftgrade.course import Course
    from ftgrade.gradebook import late
    from ftgrade.gradebook.book import opened

    course, stem = Course(arguments.course), home().stem(arguments.stem)
    zone = late.timezone_of(course.root)
    until = None if arguments.none else moments.moment(arguments.until, zone)
    with opened(course.root) as gradebook:
        late.extend(gradebook, course, arguments.student, stem, until)
    words = f"has time until {moments.local(until, zone)}" if until else "has no extension any more"
    out.print(f"{arguments.student} {words} for {stem}; the next `ftgrade grade` books it.", soft_wrap=True)
    say(arguments, {"student": arguments.student, "problem": stem, "until": until and f"{until.isoformat()}+00:00"})
    return FINE


def run_collect(arguments: argparse.Namespace) -> int:
    from ftgrade import moments
    from ftgrade.commands.terminal import table
    from ftgrade.course import Course
    from ftgrade.gradebook import late
    from ftgrade.gradebook.book import opened
    from ftgrade.intake import collect

    catalog, course = home(), Course(arguments.course)
    zone = late.timezone_of(course.root)
    only = catalog.stem(arguments.stem) if arguments.stem else None
    at = moments.moment(arguments.at, zone) if arguments.at else None
    with opened(course.root) as gradebook:
        known = collect.people(gradebook, course)
    found = collect.collect(arguments.source, course, known, catalog.stems(), arguments.pattern, only, at, zone)
    columns = ("student", "problem", "", "handed in", "from")
    rows = [
        (
            one.student,
            one.stem[:3],
            one.outcome,
            moments.local(one.time, zone) if one.time else "late, says its name" if one.marked_late else "–",
            one.source,
        )
        for one in found.taken
    ]
    out.print(table("Collected", columns, rows, left=columns))
    for path, why in found.left:
        out.print(f"left where it is: {path}: {why}", markup=False, soft_wrap=True)
    replaced = sum(one.outcome == "replaced" for one in found.taken)
    aside = f", {replaced} replaced earlier ones, which are in {course.state / 'earlier'}" if replaced else ""
    out.print(f"{len(found.taken)} submissions are in place{aside}; {len(found.left)} files were left.", soft_wrap=True)
    say(arguments, asdict(found))
    return SOME_NEED_A_PERSON if found.left else FINE


def run_jplag(arguments: argparse.Namespace) -> int:
    from ftgrade.classroom import jplag
    from ftgrade.course import Course

    wrote, left = jplag.export(Course(arguments.course), home().stem(arguments.stem), arguments.folder)
    say(arguments, {"wrote": wrote, "left out": left, "command": jplag.command(arguments.folder)})
    count = f"{len(wrote)} of {len(wrote) + len(left)} students"
    out.print(f"wrote what {count} wrote to {arguments.folder}", markup=False, soft_wrap=True)
    for student, words in left.items():
        out.print(f"left out: {student}: {words}", markup=False, soft_wrap=True)
    out.print(f"Next:\n  {jplag.command(arguments.folder)}", markup=False, soft_wrap=True)
    return FINE


def run_todo(arguments: argparse.Namespace) -> int:
    from ftgrade.course import Course
    from ftgrade.gradebook import todo
    from ftgrade.gradebook.book import opened

    course, catalog = Course(arguments.course), home()
    if arguments.settle:
        student, name = arguments.settle
        kinds = todo.settle(course, student, catalog.stem(name))
        out.print(f"settled for {student}, {catalog.stem(name)}: {', '.join(kinds)}", markup=False, soft_wrap=True)
    with opened(course.root) as gradebook:
        needs = todo.needs(course, gradebook, chosen(catalog, arguments.stems), arguments.server)
    for reason, about in todo.ABOUT.items():
        mine = [need for need in needs if need.reason == reason]
        for line in [f"\n{reason}: {about} ({len(mine)})", *todo_lines(mine)] if mine else []:
            out.print(line, markup=False, soft_wrap=True)
    links = f" Links lead to formgrader, which `jupyter lab` in {arguments.course.absolute()} opens." if needs else ""
    out.print(f"\n{len(needs)} things need a person.{links}" if needs else "Nothing needs a person.", soft_wrap=True)
    say(arguments, {"needs": [asdict(need) for need in needs]})
    return SOME_NEED_A_PERSON if needs else FINE


def todo_lines(needs: "list[Need]") -> list[str]:
    """Return the lines about one reason; a mend that all share is said once."""
    shared = len({need.mend for need in needs}) == 1
    lines = [f"  {needs[0].mend}"] if shared else []
    for need in needs:
        lines += [f"  - {need.student}, {need.stem}: {need.words}"]
        lines += [f"    {text}" for text in ("" if shared else need.mend, need.link) if text]
    return lines


def run_completion(arguments: argparse.Namespace) -> int:
    print(manpage.completion(parser(), arguments.shell, home().stems()))
    return FINE


# -------------------------------------------------------------------------------------------------------------- showing


def progress(totals: dict[str, int] | None = None) -> "Board":
    """Return bars for stderr, with a row for each problem whose total is known."""
    from ftgrade.commands.terminal import Board

    return Board(totals)


def show(reports: "list[Report]", course: Path, taken_off: "TakenOff") -> None:
    """Print a row a student, what lateness takes off, and where everything is."""
    from ftgrade.commands.terminal import table

    stems = list(dict.fromkeys(report.stem for report in reports))
    by_student: dict[str, dict[str, Report]] = defaultdict(dict)
    for report in reports:
        by_student[report.student][report.stem] = report
    rows = [
        (
            student,
            *(score(mine.get(stem), taken_off.get((student, stem), 0.0)) for stem in stems),
            ", ".join([*kinds(mine), *(["late"] if any((student, stem) in taken_off for stem in stems) else [])]),
        )
        for student, mine in sorted(by_student.items())
    ]
    columns = ("student", *(stem.partition("_")[0] for stem in stems), "to look at")
    out.print(table("Scores", columns, rows, left=columns[-1:]))
    for what, where in (
        ("gradebook", "gradebook.db"), ("feedback pages", "feedback"), ("class report", "class_report.html"),
        ("the same as CSV", "class_report.csv"),
    ):  # fmt: skip
        out.print(f"{what}: {(course / where)}", soft_wrap=True)


def kinds(mine: "dict[str, Report]") -> list[str]:
    """Return what was found about a student's submissions, each kind once."""
    return list(dict.fromkeys(finding.kind for report in mine.values() for finding in report.findings))


def score(report: "Report | None", taken_off: float) -> str:
    if report is None:
        return "–"
    return f"{report.score:g}" + (f" - {taken_off:g}" if taken_off else "") + ("*" if report.needs_a_person else "")


def program() -> None:
    """Be the command `ftgrade`."""
    status = main()
    gc.freeze()  # Python would look through all of torch once more for what it could free, for most of a second
    sys.exit(status)


if __name__ == "__main__":
    program()
