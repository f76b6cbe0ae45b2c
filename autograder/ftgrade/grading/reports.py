"""The stored reports of a course: nothing else reads or writes them."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from ftgrade.course import Course
from ftgrade.judging.report import Report, from_json, to_json

PREVIOUS_SUFFIX = ".before"


class Reports:
    """A course's reports, each sealed with the course's secret; one that was changed or renamed counts as none."""

    def __init__(self, course: Course) -> None:
        self.course = course

    def get(self, student: str, stem: str) -> Report | None:
        return self.read(self.course.report_path(student, stem))

    def load(self, student: str, stem: str) -> Report:
        """Return a report. Raises FileNotFoundError, or OSError and ValueError if it isn't as it was written."""
        return self.open(self.course.report_path(student, stem))

    def put(self, report: Report) -> Report:
        """Write a report in one step, so that a reader finds the old one or the new one.

        One that was graded by something else before is kept beside it, for `ftgrade diff`.
        """
        path = self.course.report_path(report.student, report.stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = self.read(path)
        if before is not None and before.graded_by != report.graded_by:
            path.replace(path.with_suffix(PREVIOUS_SUFFIX))
        partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
        partial.write_text(to_json(report, self.course.secret()), "utf-8")
        partial.replace(path)
        return report

    def of_problem(self, stem: str) -> Iterator[Report]:
        """Yield the reports of one problem, in the order of the students."""
        for path in sorted(self.folder(stem).glob("*.json")):
            if (report := self.read(path)) is not None:
                yield report

    def regrades(self, stem: str) -> Iterator[tuple[Report, Report]]:
        """Yield for each submission that was judged again the report before and the report now."""
        for path in sorted(self.folder(stem).glob(f"*{PREVIOUS_SUFFIX}")):
            before, now = self.read(path), self.read(path.with_suffix(".json"))
            if before is not None and now is not None:
                yield before, now

    def verify(self) -> Iterator[tuple[str, str, str]]:
        """Yield for every stored report its problem, its student, and what is wrong with it, empty if nothing is."""
        self.course.secret()  # raises CourseFault if nothing can be verified
        for path in sorted((self.course.state / "reports").glob("*/*.json")):
            words = ""
            try:
                self.open(path)
            except (OSError, ValueError) as error:
                words = str(error)
            yield path.parent.name, path.stem, words

    def folder(self, stem: str) -> Path:
        return self.course.report_path("x", stem).parent

    def read(self, path: Path) -> Report | None:
        with contextlib.suppress(OSError, ValueError):
            return self.open(path)
        return None

    def open(self, path: Path) -> Report:
        """Return the report in a file, whose place says whose it must be. Raises OSError or ValueError."""
        report = from_json(path.read_text("utf-8"), self.course.secret())
        place = self.course.report_path(report.student, report.stem)
        if path.with_suffix("") != place.with_suffix(""):
            raise ValueError(f"this is the report of {report.student} on {report.stem}, under another name")
        return report
