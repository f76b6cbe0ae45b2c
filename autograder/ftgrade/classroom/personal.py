"""Copies of a release in which each student of a roster is asked questions of their own."""

from collections.abc import Collection
from pathlib import Path

from ftgrade.authoring.build import personalise
from ftgrade.catalog import Catalog
from ftgrade.course import Course, read_roster
from ftgrade.errors import CourseFault
from ftgrade.judging.draws import draw_questions
from ftgrade.judging.problem import load_problem


def release_personally(
    catalog: Catalog, course: Course, stems: list[str], roster: Path, out_before: Collection[str]
) -> list[str]:
    """Keep the roster, write each student's copies of the released problems to `personal/`; return the students.

    Of problems that were `out_before`, a student who gets a first question now may have answered the published one:
    both answers count.

    Raises CourseFault, before anything is written, for a roster that lacks a student whose questions are out already.
    """
    students = read_roster(roster)
    if gone := [student for student in course.roster() if student not in students]:
        raise CourseFault(f"{roster.name} lacks students whose questions are out already: {', '.join(gone)}")
    course.roster_path.write_bytes(roster.read_bytes())
    for stem in stems:
        write_copies(catalog, course, stem, both=stem in out_before)
    return students


def write_copies(catalog: Catalog, course: Course, stem: str, *, both: bool) -> None:
    """Write one problem's copies, if it asks a question that differs from student to student."""
    problem = load_problem(catalog, stem)
    if problem.own is None:
        return
    released = (course.root / "release" / stem / f"{stem}.ipynb").read_text("utf-8")
    questions = draw_questions(catalog, course, stem, problem.version, both=both)
    for student in course.roster():
        path = course.root / "personal" / student / stem / f"{stem}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(personalise(released, problem, questions.published, questions.seeds[student]), "utf-8")


__all__ = ["release_personally"]
