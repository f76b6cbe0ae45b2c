"""Copies of a release in which each student of a roster is asked questions of their own."""

import shutil
from collections.abc import Collection
from pathlib import Path

from ftgrade.authoring.build import personalise
from ftgrade.catalog import Catalog
from ftgrade.course import Course, write_roster
from ftgrade.errors import CourseFault
from ftgrade.judging.draws import draw_questions
from ftgrade.judging.problem import load_problem
from ftgrade.judging.questions import drop_questions


def release_personally(
    catalog: Catalog, course: Course, stems: list[str], students: list[str], out_before: Collection[str]
) -> None:
    """Keep the roster and write each student's copies of the released problems to `personal/`.

    Of problems that were `out_before`, a student who gets a first question now may have answered the published one:
    both answers count.
    """
    write_roster(course.roster_path, students)
    for stem in stems:
        write_copies(catalog, course, stem, both=stem in out_before)


def demand_everybody(course: Course, roster: Path, students: Collection[str]) -> None:
    """Raise CourseFault for a roster that lacks a student whose questions are out already."""
    if gone := [student for student in course.roster() if student not in students]:
        raise CourseFault(
            f"{roster.name} lacks students whose questions are out already: {', '.join(gone)}. Add them, or take their "
            "questions back: the same command with --take-back"
        )


def take_back(course: Course, students: Collection[str]) -> list[str]:
    """Take back the questions of those who are no longer students, as after a wrong list; return them.

    Their copies are moved to `.ftgrade/taken-back/`. Raises CourseFault, before anything is changed, for one who has
    handed in.
    """
    gone = [student for student in course.roster() if student not in students]
    if busy := [student for student in gone if (course.root / "submitted" / student).exists()]:
        raise CourseFault(f"these have handed in, so their questions stay: {', '.join(busy)}. Add them to the list")
    drop_questions(course, gone)
    for student in gone:
        aside = course.state / "taken-back" / student
        if (course.root / "personal" / student).is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            (course.root / "personal" / student).rename(aside)
    if gone:
        write_roster(course.roster_path, [student for student in course.roster() if student in students])
    return gone


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


__all__ = ["demand_everybody", "release_personally", "take_back"]
