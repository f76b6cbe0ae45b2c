"""The `ftgrade` command line: build, release, grade; every command says what it did and what to do next."""

import argparse
import contextlib
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ftgrade.catalog import Catalog, home
from ftgrade.errors import CourseFault, GradingError
from ftgrade.report import Report

if TYPE_CHECKING:
    from ftgrade.grade import Course
    from ftgrade.similarity import Echo

FINE, SOME_NEED_A_PERSON, COULD_NOT = 0, 1, 2
out = Console(highlight=False)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return 0 (fine), 1 (done, and some submissions need a person) or 2 (could not)."""
    arguments = parser().parse_args(words)
    try:
        return arguments.run(arguments)
    except GradingError as error:
        Console(stderr=True, highlight=False).print(f"ftgrade: {error}", markup=False, soft_wrap=True)
        return COULD_NOT
    except KeyboardInterrupt:
        Console(stderr=True).print("ftgrade: stopped; what was graded is kept, and the next run goes on from there")
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("ftgrade", description="Build, release and grade the course's problems.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("build", help="make the notebooks from their masters")
    one.add_argument("--check", action="store_true", help="change nothing; fail if a notebook is stale")
    one.set_defaults(run=run_build)

    one = commands.add_parser("new", help="write the three leaves of a next problem")
    one.add_argument("slug", help="its name, such as dora_magnitude")
    one.set_defaults(run=run_new)

    one = commands.add_parser("audit", help="measure the hidden tests: what they catch, what they cost")
    one.add_argument("stems", nargs="*")
    one.add_argument("-j", "--workers", type=int, default=os.cpu_count() or 1, help="problems audited at once")
    one.add_argument("--check", action="store_true", help="change nothing; fail if the README's table is stale")
    one.set_defaults(run=run_audit)

    one = commands.add_parser("fill", help="put a Python file's functions into a problem's notebook")
    one.add_argument("stem")
    one.add_argument("answers", type=Path)
    one.add_argument("-o", "--output", type=Path, required=True)
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
    one.add_argument("-o", "--output", type=Path, default=Path("certificate.html"))
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
    one.set_defaults(run=run_new_course)

    one = commands.add_parser("release", help="make the students' notebooks in release/")
    one.add_argument("stems", nargs="*")
    one.add_argument("--students", type=Path, metavar="CSV", help="write a copy with own questions for each of these")
    one.add_argument("--bundle", type=Path, metavar="ZIP", help="write the course for students as one archive")
    course_option(one)
    one.set_defaults(run=run_release)

    one = commands.add_parser("grade", help="grade what was handed in: gradebook, feedback, class report")
    one.add_argument("stems", nargs="*")
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
    one.add_argument("stems", nargs="*")
    course_option(one)
    one.set_defaults(run=run_diff)
    return top


def course_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--course", type=Path, default=Path(), help="the course's folder (default: this one)")


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
    from ftgrade import build

    catalog = home()
    paths = build.stale(catalog) if arguments.check else build.build(catalog)
    for path in paths:
        out.print(
            f"stale: {path.relative_to(catalog.root)}" if arguments.check else made(catalog, path), soft_wrap=True
        )
    if arguments.check and paths:
        out.print("These files differ from what their masters give: edit the masters and run `ftgrade build`.")
        return SOME_NEED_A_PERSON
    out.print(f"{len(build.wanted(catalog))} built files are up to date.")
    return FINE


def made(catalog: Catalog, path: Path) -> str:
    """Return what a build says of one file that it wrote."""
    name = path.relative_to(catalog.root)
    return f"your answers are kept in {name}" if name.parts[0] == "work" else f"built {name}"


def run_new(arguments: argparse.Namespace) -> int:
    from ftgrade import build

    catalog = home()
    for path in build.new_problem(catalog, arguments.slug):
        out.print(f"wrote {path.relative_to(catalog.root)}", soft_wrap=True)
    out.print("Fill them in, then run `ftgrade build` and the tests.")
    return FINE


def run_fill(arguments: argparse.Namespace) -> int:
    from ftgrade import build

    catalog = home()
    text = build.filled_notebook(catalog, catalog.stem(arguments.stem), arguments.answers.read_text("utf-8"))
    arguments.output.write_text(text, "utf-8")
    out.print(f"wrote {arguments.output}", soft_wrap=True)
    return FINE


def run_audit(arguments: argparse.Namespace) -> int:
    from ftgrade import audit

    catalog = home()
    stems = chosen(catalog, arguments.stems)
    with progress() as bars:
        bar = bars.add_task("auditing", total=len(stems))
        audits = audit.audit(catalog, stems, arguments.workers, lambda: bars.advance(bar))
    columns = ("problem", "mistakes", "mutants", "equivalent", "accepted", "median cost", "hidden calls")
    shown = Table(title="What the hidden tests catch")
    for name in columns:
        shown.add_column(name, justify="left" if name == "problem" else "right")
    for one in audits:
        cells = [cell.strip() for cell in one.row.strip("|").split("|")]
        shown.add_row(one.stem[:3], *cells[1:], f"{one.milliseconds:.0f} ms")
    out.print(shown)
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
    return SOME_NEED_A_PERSON if troubles else FINE


# -------------------------------------------------------------------------------------------------------- one notebook


def run_check(arguments: argparse.Namespace) -> int:
    from ftgrade import selfstudy

    catalog = home()
    done = selfstudy.check(catalog, arguments.notebook, arguments.stem, arguments.day)
    for line in selfstudy.lines(catalog, done):
        out.print(line, markup=False, soft_wrap=True)
    if arguments.page:
        out.print(f"page: {selfstudy.write_page(catalog, done)}", markup=False, soft_wrap=True)
    if arguments.solution:
        out.print(selfstudy.reveal(catalog, done), markup=False, soft_wrap=True)
    return SOME_NEED_A_PERSON if done.report.needs_a_person else FINE


def run_certificate(arguments: argparse.Namespace) -> int:
    from ftgrade import selfstudy

    page = selfstudy.certificate(home(), selfstudy.read_record(), arguments.name, date.today().isoformat())
    arguments.output.write_text(page, "utf-8")
    out.print(f"wrote {arguments.output}: it opens in a browser and prints", markup=False, soft_wrap=True)
    return FINE


# ------------------------------------------------------------------------------------------------------------- a class


def run_new_course(arguments: argparse.Namespace) -> int:
    from ftgrade.newcourse import new_course

    students = new_course(arguments.folder, arguments.roster)
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
    from ftgrade.grade import Course
    from ftgrade.gradebook import Book

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
        from ftgrade import bundle

        for path in bundle.write(catalog, Course(arguments.course), arguments.bundle):
            out.print(f"bundle: {path}", markup=False, soft_wrap=True)
    return FINE


def release_personally(catalog: Catalog, course: "Course", stems: list[str], roster: Path) -> None:
    """Keep the roster, and write for each of its students a release with questions of their own."""
    from ftgrade import build
    from ftgrade.grade import open_seed, personal_seed, read_roster

    known, students = course.roster(), read_roster(roster)
    if gone := [student for student in known if student not in students]:
        raise CourseFault(f"{roster.name} lacks students whose questions are out already: {', '.join(gone)}")
    course.roster_path.write_bytes(roster.read_bytes())
    for stem in stems:
        problem = catalog.problem(stem)
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
    from ftgrade import build

    for path in build.build(catalog):
        out.print(made(catalog, path), soft_wrap=True)


def run_grade(arguments: argparse.Namespace) -> int:
    catalog = home()
    course = arguments.course
    if arguments.demo:
        from ftgrade import demo

        demand_built(catalog)
        course = demo.lay_down(catalog)
        out.print(f"A made-up class of {len(demo.STUDENTS)} students is laid down in {course}", soft_wrap=True)
    if arguments.allow_unsandboxed:
        from ftgrade.doctor import ALLOW

        os.environ[ALLOW] = "1"
    stems = chosen(catalog, arguments.stems)
    reports, failed = grade(catalog, course, stems, arguments.workers, arguments.fresh, arguments.scheduler)
    if not reports:
        out.print(f"Nothing was handed in: put notebooks at {course}/submitted/STUDENT/STEM/STEM.ipynb", soft_wrap=True)
        return COULD_NOT
    show(reports, course)
    troubled = [report for report in reports if report.needs_a_person]
    ours = sum(report.state == "ours" for report in reports)
    out.print(
        f"{len(reports)} submissions: {len(reports) - len(troubled)} graded, {len(troubled) - ours} could not be read, "
        f"{ours} need a person because the grader failed, {len(failed)} could not be booked."
    )
    for line in failed:
        out.print(f"not booked: {line} (see {course / '.ftgrade' / 'nbgrader.log'})", markup=False, soft_wrap=True)
    expected = 0 if arguments.demo else len(troubled) - ours  # the demo class hands in unreadable files on purpose
    return SOME_NEED_A_PERSON if ours or failed or expected else FINE


def grade(
    catalog: Catalog, root: Path, stems: list[str], workers: int, fresh: bool, scheduler: str | None = None
) -> tuple[list[Report], list[str]]:
    """Judge, book and describe what was handed in; return the reports and what could not be booked."""
    from ftgrade.course import Course
    from ftgrade.doctor import kept_here, strongest
    from ftgrade.sandbox.process import Sandbox

    course = Course(root)
    stems = [stem for stem in stems if course.students(stem)]
    if not stems:
        return [], []
    sandbox = None if scheduler else Sandbox(strongest(kept_here()))
    if sandbox is not None:
        sandbox.begin()  # it imports torch on one core while we do on another
    # jsonschema would build a grammar of web addresses, in over a second, for a check that no notebook needs.
    sys.modules.setdefault("rfc3987_syntax", None)  # pyright: ignore[reportArgumentType]
    from ftgrade import classreport, cluster
    from ftgrade.grade import grade_class
    from ftgrade.gradebook import Book
    from ftgrade.nbgrader_step import grader_of

    grader = grader_of(root.absolute())
    grader.made = sandbox
    book = Book(course)
    for stem in stems:
        book.demand_released(stem)
    total = sum(len(course.students(stem)) for stem in stems)
    by_stem: dict[str, list[Report]] = defaultdict(list)
    with contextlib.closing(grader), progress() as bars:
        grading = bars.add_task("grading", total=total)
        with book.ledgers(stems) as ledgers:
            there = cluster.grade_class(grader, stems, scheduler, fresh) if scheduler else None
            for report in there or grade_class(grader, stems, workers, fresh):
                by_stem[report.stem].append(report)
                ledgers.book(report)
                bars.advance(grading)
            failed = [f"{report.student}, {report.stem}" for report in ledgers.settle()]
        summaries: list[classreport.ProblemSummary] = []
        comparing = bars.add_task("comparing", total=len(stems))
        for stem in stems:
            by_stem[stem].sort(key=lambda report: report.student)
            echoes = compared(catalog, course, by_stem[stem])
            summaries.append(classreport.summarise(stem, catalog.title(stem), by_stem[stem], echoes))
            bars.advance(comparing)
    classreport.write(root / "class_report.html", root.absolute().name, summaries)
    return [report for stem in stems for report in by_stem[stem]], failed


def compared(catalog: Catalog, course: "Course", reports: list[Report]) -> "list[Echo]":
    """Return the answers to one problem that are alike."""
    from ftgrade import classreport

    notebooks = {report.student: course.notebook(report.student, report.stem) for report in reports}
    return classreport.compared(reports, notebooks, catalog.leaves(reports[0].stem).notebook)


def run_doctor(arguments: argparse.Namespace) -> int:
    from ftgrade.doctor import examination
    from ftgrade.sandbox.probes import PROBES

    names = [probe.name for probe in PROBES]
    table = Table(title="What each sandbox holds on this machine (✓ held, ✗ broken)")
    for name in ("sandbox", *names, "for marks"):
        table.add_column(name, justify="left" if name == "sandbox" else "center")
    found, broken = [], []
    with progress() as bars:
        bar = bars.add_task("probing", total=None)
        for one in examination():
            bars.advance(bar)
            found.append(one)
            held = {held.probe: "✓" if held.holds else "✗" for held in one.held}
            about = one.backend.name if one.backend.tested else f"{one.backend.name} (untested)"
            table.add_row(about, *(held.get(name, "–") for name in names), "yes" if one.holds else "no")
            broken += (
                [f"{one.backend.name}: {one.lacks}"]
                if one.lacks
                else [f"{one.backend.name}: {line}" for line in one.fails]
            )
    out.print(table)
    for probe in PROBES:
        out.print(f"{probe.name}: {probe.asks}" + ("" if probe.demanded else " (good to have)"), markup=False)
    for line in broken:
        out.print(f"  {line}", markup=False, soft_wrap=True)
    best = next((one.backend for one in found if one.holds), None)
    out.print(f"Grading uses: {best.name}, {best.about}." if best else "None holds all that grading for marks demands.")
    return FINE if best else COULD_NOT


def run_verify(arguments: argparse.Namespace) -> int:
    from ftgrade.grade import Course
    from ftgrade.report import from_json

    course = Course(arguments.course)
    secret, changed, count = course.secret(), 0, 0
    for path in sorted((course.state / "reports").glob("*/*.json")):
        count += 1
        try:
            from_json(path.read_text("utf-8"), secret)
        except (OSError, ValueError) as error:
            changed += 1
            out.print(f"{path.parent.name}, {path.stem}: {error}", markup=False, soft_wrap=True)
    out.print(f"{count} reports, {changed} not as they were written; `ftgrade grade` judges those again.")
    return SOME_NEED_A_PERSON if changed else FINE


def run_diff(arguments: argparse.Namespace) -> int:
    from ftgrade.grade import Course
    from ftgrade.regrade import changes

    table = Table(title="The last regrade")
    for name in ("student", "problem", "before", "now", "checks that changed", "because of a change of"):
        table.add_column(name)
    found = list(changes(Course(arguments.course), chosen(home(), arguments.stems)))
    for one in found:
        table.add_row(
            one.student, one.stem[:3], f"{one.before:g}", f"{one.now:g}", ", ".join(one.checks), ", ".join(one.because)
        )
    out.print(table)
    out.print(f"{sum(one.before != one.now for one in found)} scores changed, {len(found)} submissions were regraded.")
    return FINE


def progress() -> Progress:
    columns = TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True))


def show(reports: list[Report], course: Path) -> None:
    """Print a row a student and where everything is."""
    stems = list(dict.fromkeys(report.stem for report in reports))
    by_student: dict[str, dict[str, Report]] = defaultdict(dict)
    for report in reports:
        by_student[report.student][report.stem] = report
    table = Table(title="Scores")
    table.add_column("student")
    for stem in stems:
        table.add_column(stem.partition("_")[0], justify="right")
    table.add_column("to look at")
    for student, mine in sorted(by_student.items()):
        cells = [score(mine.get(stem)) for stem in stems]
        kinds = dict.fromkeys(finding.kind for report in mine.values() for finding in report.findings)
        table.add_row(student, *cells, ", ".join(kinds))
    out.print(table)
    for what, where in (
        ("gradebook", "gradebook.db"), ("feedback pages", "feedback"), ("class report", "class_report.html"),
        ("the same as CSV", "class_report.csv"),
    ):  # fmt: skip
        out.print(f"{what}: {(course / where)}", soft_wrap=True)


def score(report: Report | None) -> str:
    if report is None:
        return "–"
    return f"{report.score:g}" + ("*" if report.needs_a_person else "")


if __name__ == "__main__":
    sys.exit(main())
