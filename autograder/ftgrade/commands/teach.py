"""The commands that lead a class from its roster to its marks: make a course, release, grade, test the sandbox."""

import contextlib
import os
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftgrade.catalog import Catalog, home
from ftgrade.commands.command import COURSE, STEMS, Done, argument, at_least_one, chosen, chosen_or_any, command
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.intake.gate import line
from ftgrade.words import counted, summed

if TYPE_CHECKING:
    from ftgrade.classroom.marking import ClassResult
    from ftgrade.commands.terminal import Out
    from ftgrade.gradebook.todo import Need
    from ftgrade.judging.report import Report
    from ftgrade.probing.doctor import BackendResult

TakenOff = dict[tuple[str, str], float]
"""What lateness takes off, by student and problem."""


@command(
    "make a course folder, with a roster's students in its gradebook",
    argument("folder", type=Path, metavar="DIR", help="a folder that is new or empty"),
    argument(
        "--roster", type=Path, required=True, metavar="CSV",
        help="a column id; if you like first_name, last_name, email, lms_user_id; or Canvas's or Moodle's own list",
    ),
    argument(
        "--secret", type=Path, metavar="FILE",
        help="take the course's secret from here, such as an earlier course's .ftgrade/secret, instead of drawing one",
    ),
)  # fmt: skip
def new_course(out: "Out", folder: Path, roster: Path, secret: Path | None) -> Done:
    from ftgrade.classroom import newcourse

    made = newcourse.new_course(folder, roster, secret)
    students = list(made.students)
    count = counted(len(students), "student is", "students are")
    quoted = shlex.quote(str(folder))
    out.line(
        *(f"look at {roster.name}: {note}" for note in made.notes),
        f"{count} in {folder / 'gradebook.db'}; keep {folder / '.ftgrade' / 'secret'} in a backup.",
        "Next:",
        f"  ftgrade release --course {quoted}",
        f"  ftgrade grade --course {quoted}",
        f"  cd {quoted} && nbgrader export --exporter ftgrade.exporters.Csv --to grades.csv",
    )
    return Done({"course": str(folder), "students": students})


@command(
    "make the students' notebooks in release/",
    STEMS,
    argument("--students", type=Path, metavar="CSV", help="write a copy with own questions for each of these"),
    argument("--take-back", action="store_true", help="take back the questions of those who aren't in --students"),
    argument("--bundle", type=Path, metavar="ZIP", help="write the course for students as one archive"),
    COURSE,
)
def release(
    out: "Out", stems: list[str], students: Path | None, take_back: bool, bundle: Path | None, course: Path
) -> Done:
    from ftgrade.classroom.bundle import write_bundles as write_bundle
    from ftgrade.classroom.personal import release_personally
    from ftgrade.gradebook.book import Book

    catalog, released = home(), Course(course)
    if take_back and students is None:
        raise CourseFault("--take-back needs the right list: `ftgrade release STEM --students CSV --take-back`")
    listed = read_students(out, released, students, take_back) if students else []
    build_stale(out, catalog)
    course.mkdir(parents=True, exist_ok=True)
    book, problems = Book(released), chosen(catalog, stems)
    out_before = [stem for stem in problems if (course / "release" / stem / f"{stem}.ipynb").is_file()]
    for stem in problems:
        book.release(stem)
        out.line(f"released {stem}: give students {course / 'release' / stem}")
    if students:
        release_personally(catalog, released, problems, listed, out_before)
        count = counted(len(listed), "student has", "students have")
        out.line(f"{count} questions of their own: give each {course / 'personal'}/STUDENT")
    if bundle:
        out.line(*(f"bundle: {path}" for path in write_bundle(catalog, released, bundle)))
    return Done({"released": problems, "folder": str(course / "release")})


def read_students(out: "Out", course: Course, path: Path, may_take_back: bool) -> list[str]:
    """Return the students of a list, and say what is odd about it. Raises CourseFault, before anything is written."""
    from ftgrade.classroom import newcourse, personal

    found = newcourse.read_people(path)
    if may_take_back:
        out.line(*(f"taken back: the questions of {student}" for student in personal.take_back(course, found.students)))
    personal.demand_everybody(course, path, found.students)
    enrolled = course.enrolled()
    unknown = [student for student in found.students if student not in enrolled] if enrolled else []
    out.line(
        *(f"look at {path.name}: {note}" for note in found.notes),
        *([f"look at {path.name}: not in this course's first roster: {', '.join(unknown)}"] if unknown else []),
    )
    return list(found.students)


def build_stale(out: "Out", catalog: Catalog) -> None:
    """Build what is stale, and say so: a release must not hold an older problem than the one that is graded."""
    from ftgrade.authoring.build import build, describe_written

    out.line(*(describe_written(catalog, path) for path in build(catalog)))


@command(
    "grade what was handed in: gradebook, feedback, class report",
    STEMS,
    argument("-j", "--workers", type=at_least_one, default=os.cpu_count() or 1, help="submissions judged at once"),
    argument("--scheduler", default="", metavar="ADDRESS", help="judge on the workers of this Dask scheduler, tcp://…"),
    argument("--fresh", action="store_true", help="judge again what hasn't changed"),
    argument("--demo", action="store_true", help="grade a made-up class in a scratch folder"),
    argument("--anyone", action="store_true", help="grade folders of nobody on the roster too, as new students"),
    argument("--allow-unsandboxed", action="store_true", help="grade even where no sandbox holds; every page says so"),
    COURSE,
    more="A notebook or a folder under another name (P03/, -Copy1, .ipynb.txt) is renamed first if only one can be "
    "meant, and the page tells its former name. nbgrader's own commands find only what has the right name.",
)
def grade(
    out: "Out", stems: list[str], workers: int, scheduler: str, fresh: bool, demo: bool, anyone: bool,
    allow_unsandboxed: bool, course: Path,
) -> Done:  # fmt: skip
    from ftgrade.grading.grader import untouched_test
    from ftgrade.intake.naming import put_in_place
    from ftgrade.sandbox.forking import Nursery

    catalog = home()
    root = make_demo(out, catalog) if demo else course
    graded = Course(root.absolute())
    out.line(*(f"not graded: submitted/{line(name)} {why}" for name, why in graded.nobodys().items()))
    if not anyone and graded.strangers(()):
        graded = without_strangers(out, graded)
    doubts = put_in_place(graded, chosen_or_any(catalog, stems), untouched_test(catalog))
    left = [(what, why) for what, _, why in (doubt.partition(": ") for doubt in doubts)]
    out.line(*(f"left where it is: {text}" for text in summed(left, "submission")))
    problems = [stem for stem in chosen_or_any(catalog, stems) if graded.students(stem)]
    if not problems:
        raise CourseFault(f"nothing was handed in: put notebooks at {root}/submitted/STUDENT/STEM/STEM.ipynb")
    nursery = Nursery()  # it imports torch while we import nbgrader
    from ftgrade.classroom.marking import grade_and_book
    from ftgrade.gradebook import book, late, ledger, todo
    from ftgrade.grading.grader import Grader
    from ftgrade.judging.judges import Judges
    from ftgrade.probing.doctor import cache_file, strongest

    judges = Judges(catalog, lambda: strongest(cache_file(), allow_unsandboxed), workers, nursery)
    totals = {stem: len(graded.students(stem)) for stem in problems}
    with contextlib.closing(Grader(catalog, graded, judges)) as grader:
        book.Book(graded).demand_open()
        with out.board(totals) as board:
            done = grade_and_book(grader, problems, board, fresh=fresh, scheduler=scheduler)
    with book.open_gradebook(graded.root) as gradebook:
        taken_off = late.booked_penalties(gradebook, problems)
        needs = todo.list_needs(Course(graded.root), gradebook, problems)
        names = ledger.full_names(gradebook)
    show_scores(out, done.reports, root, taken_off, names)
    sum_up(out, done, root)
    tell_needs(out, needs, stems, root)
    # The demo class hands in unreadable files and answers in words on purpose.
    grave = [need for need in needs if need.reason in ("ours", "changed", "ungraded")]
    return Done(document(done, root, taken_off), needs_a_person=bool(done.failed or (grave if demo else needs)))


def without_strangers(out: "Out", course: Course) -> Course:
    """Return a course without the folders of nobody in its roster and its gradebook, and say which they are."""
    from ftgrade.gradebook import book

    with book.open_gradebook(course.root) as gradebook:
        strangers = course.strangers(str(one.id) for one in gradebook.students)
    out.line(
        *(
            f"not graded: submitted/{line(name)} belongs to nobody on the roster; rename it, or `--anyone` books it"
            for name in sorted(strangers)
        )
    )
    return Course(course.root, frozenset(strangers))


def make_demo(out: "Out", catalog: Catalog) -> Path:
    """Lay down the demo class; return its folder."""
    from ftgrade.classroom import demo

    build_stale(out, catalog)
    root = demo.make_demo_class(catalog)
    out.line(f"A made-up class of {len(demo.STUDENTS)} students is laid down in {root}")
    return root


def show_scores(
    out: "Out", reports: "list[Report]", course: Path, taken_off: TakenOff, names: Mapping[str, str]
) -> None:
    """Print a row for each student, with what lateness takes off, and where everything is.

    A column of names stands beside the ids if any of these students has one.
    """
    named = any(names.get(report.student) for report in reports)
    stems = list(dict.fromkeys(report.stem for report in reports))
    by_student: dict[str, dict[str, Report]] = defaultdict(dict)
    for report in reports:
        by_student[report.student][report.stem] = report
    lead = ("student", "name") if named else ("student",)
    rows = [
        (
            *((student, names.get(student, "")) if named else (student,)),
            *(score_text(mine.get(stem), taken_off.get((student, stem), 0.0)) for stem in stems),
        )
        for student, mine in sorted(by_student.items())
    ]
    out.scores("Scores", (*lead, *(stem.partition("_")[0] for stem in stems)), rows, len(lead))
    out.line(*to_look_at(by_student, {student for student, stem in taken_off if stem in by_student.get(student, {})}))
    out.line(
        f"gradebook: {course / 'gradebook.db'}",
        f"feedback pages: {course / 'feedback'}",
        f"class report: {course / 'class_report.html'}",
        f"the same as CSV: {course / 'class_report.csv'}",
    )


def score_text(report: "Report | None", taken_off: float) -> str:
    if report is None:
        return "–"
    return f"{report.score:g}" + (f" - {taken_off:g}" if taken_off else "") + ("*" if report.needs_a_person else "")


def to_look_at(by_student: "dict[str, dict[str, Report]]", late: set[str]) -> list[str]:
    """Return a line for each kind of finding: how many students have it, and a few of them."""
    found = [
        (student, kind)
        for student, mine in sorted(by_student.items())
        for kind in dict.fromkeys(finding.kind for report in mine.values() for finding in report.findings)
    ]
    found += [(student, "late") for student in sorted(late)]
    return [f"to look at: {text}" for text in summed(found, "student")]


def sum_up(out: "Out", done: "ClassResult", course: Path) -> None:
    """Print how many submissions were graded, and what could not be booked and why, each reason once."""
    reports, failed = done.reports, done.failed
    troubled = sum(report.needs_a_person for report in reports)
    ours = sum(report.state == "ours" for report in reports)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for who, _, words in (one.partition(": ") for one in failed):
        by_reason[words].append(who)
    told = [
        f"{len(reports) - troubled} graded",
        *([f"{troubled - ours} could not be read"] if troubled > ours else []),
        *([f"the grader failed on {ours}, so a person must look"] if ours else []),
        *([f"{len(failed)} could not be booked"] if failed else []),
    ]
    out.line(
        f"{counted(len(reports), 'submission')}: {', '.join(told)}.",
        *(
            f"not booked: {'; '.join(who)}: {words} (see {course / '.ftgrade' / 'nbgrader.log'})"
            for words, who in by_reason.items()
        ),
    )


def tell_needs(out: "Out", needs: "list[Need]", stems: Sequence[str], course: Path) -> None:
    """Print what `ftgrade todo` will say of the same problems."""
    asked = shlex.join(["ftgrade", "todo", *stems, "--course", str(course)])
    count = counted(len(needs), "thing needs", "things need")
    out.line(f"{count} a person: `{asked}` tells what." if needs else "Nothing needs a person.")


def document(done: "ClassResult", course: Path, taken_off: TakenOff) -> dict[str, Any]:
    """Return what `--json` prints of a run."""
    from ftgrade.judging.report import student_view

    reports = done.reports
    submissions = [student_view(one) | {"late penalty": taken_off.get((one.student, one.stem), 0.0)} for one in reports]
    return {"course": str(course), "submissions": submissions, "not booked": done.failed}


@command("try to break out of every sandbox of this machine, and say what holds")
def doctor(out: "Out") -> Done:
    from ftgrade.probing.doctor import examine_all
    from ftgrade.probing.probes import PROBES

    names = [probe.name for probe in PROBES]
    with out.board() as bars:
        found = list(bars.track(examine_all(), description="probing"))
    title = "What each sandbox holds on this machine (✓ held, ✗ broken)"
    out.table(title, ("sandbox", *names, "for marks"), [probed_row(one, names) for one in found])
    out.line(*(f"{one.name}: {one.attempts}" + ("" if one.demanded else " (good to have)") for one in PROBES))
    for one in found:
        out.line(*(f"  {one.backend.name}: {line}" for line in ([one.lacks] if one.lacks else one.fails)))
    best = next((one.backend for one in found if one.holds), None)
    out.line(f"Grading uses: {best.name}, {best.about}." if best else "None holds all that grading for marks demands.")
    sandboxes = [
        {"name": one.backend.name, "tested": one.backend.tested, "for marks": one.holds, "lacks": one.lacks}
        | {"held": {held.probe: held.holds for held in one.held}}
        for one in found
    ]
    return Done({"uses": best.name if best else None, "sandboxes": sandboxes}, failed=best is None)


def probed_row(one: "BackendResult", names: Sequence[str]) -> tuple[str, ...]:
    held = {held.probe: "✓" if held.holds else "✗" for held in one.held}
    about = one.backend.name if one.backend.tested else f"{one.backend.name} (untested)"
    return about, *(held.get(name, "–") for name in names), "yes" if one.holds else "no"
