"""The record of which personal question each student of a roster got. Nothing here imports torch."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field

from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.judging.seeds import open_seed
from ftgrade.judging.statements import Statements


@dataclass(frozen=True, slots=True)
class Questions:
    """The personal questions of one problem in one course.

    `seeds` are the roster's students' own; those in `both` may have got the published question first, so that the
    answers to both count. `statements` are what the judges are told, as computed by the problem's files with `digest`.
    """

    published: int
    version: int
    seeds: dict[str, int] = field(default_factory=dict[str, int])
    both: tuple[str, ...] = ()
    digest: str = ""
    statements: Statements = field(default_factory=Statements)

    def accepted(self, student: str) -> list[int]:
        """Return the seeds of the questions whose answers count for a student, their own first."""
        if student not in self.seeds:
            return [self.published]
        return [self.seeds[student], *([self.published] if student in self.both else [])]

    def is_complete(self, students: Iterable[str], digest: str) -> bool:
        return self.digest == digest and all(student in self.seeds for student in students)


def read_questions(course: Course, stem: str, version: int) -> Questions:
    """Return what is recorded of a problem's personal questions; a record of another version doesn't count.

    Raises CourseFault if the record can't be read.
    """
    blank = Questions(open_seed(stem, version), version)
    try:
        text = course.questions_path(stem).read_text("utf-8")
    except FileNotFoundError:
        return blank
    try:
        body = json.loads(text)
        if body["version"] != version:
            return blank
        return Questions(**body | {"both": tuple(body["both"]), "statements": Statements(**body["statements"])})
    except (KeyError, TypeError, ValueError) as error:
        raise CourseFault(
            f"{course.questions_path(stem)}, which says who was asked what, can't be read ({error}): put it back from "
            "a backup, or remove it to draw the same questions again"
        ) from None


def write_questions(course: Course, stem: str, questions: Questions) -> None:
    """Write the record, whole or not at all."""
    path = course.questions_path(stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(dataclasses.asdict(questions), file)
    os.replace(file.name, path)


def drop_questions(course: Course, students: Iterable[str]) -> None:
    """Take back the questions of students, in every problem; what the judges are told is computed again."""
    gone = set(students)
    for path in sorted(course.questions_path("x").parent.glob("*.json")):
        stem, version = path.stem, int(json.loads(path.read_text("utf-8"))["version"])
        known = read_questions(course, stem, version)
        seeds = {student: seed for student, seed in known.seeds.items() if student not in gone}
        both = tuple(student for student in known.both if student not in gone)
        write_questions(course, stem, dataclasses.replace(known, seeds=seeds, both=both, digest=""))


__all__ = ["Questions", "drop_questions", "read_questions", "write_questions"]
