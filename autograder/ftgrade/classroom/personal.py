"""Copies of a release in which each student of a roster is asked questions of their own."""

from pathlib import Path

from ftgrade.authoring.build import personalise
from ftgrade.catalog import Catalog
from ftgrade.course import Course, read_roster
from ftgrade.errors import CourseFault
from ftgrade.judging.problem import load_problem
from ftgrade.judging.seeds import open_seed, personal_seed


def release_personally(catalog: Catalog, course: Course, stems: list[str], roster: Path) -> list[str]:
    """Keep the roster, write each student's copies of the released problems to `personal/`; return the students.

    Raises CourseFault, before anything is written, for a roster that lacks a student whose questions are out already.
    """
    students = read_roster(roster)
    if gone := [student for student in course.roster() if student not in students]:
        raise CourseFault(f"{roster.name} lacks students whose questions are out already: {', '.join(gone)}")
    course.roster_path.write_bytes(roster.read_bytes())
    for stem in stems:
        write_copies(catalog, course, stem, students)
    return students


def write_copies(catalog: Catalog, course: Course, stem: str, students: list[str]) -> None:
    """Write one problem's copies, if it asks a question that differs from student to student."""
    problem = load_problem(catalog, stem)
    if problem.own is None:
        return
    released = (course.root / "release" / stem / f"{stem}.ipynb").read_text("utf-8")
    before = open_seed(stem, problem.version)
    for student in students:
        seed = personal_seed(course, student, stem, problem.version)
        path = course.root / "personal" / student / stem / f"{stem}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(personalise(released, problem, before, seed), "utf-8")


__all__ = ["release_personally"]
