"""nbgrader's release of a problem, for folders whose names are patterns to nbgrader: `[b]`, `C++`, `project (1)`."""

import glob
import os
import re
from typing import Any

from nbgrader.apps.api import NbGraderAPI
from nbgrader.converters import GenerateAssignment
from nbgrader.utils import capture_log, temp_attrs

PLACES = {"assignment": "qqAssignmentqq", "student": "qqStudentqq"}


class Release(GenerateAssignment):
    """`nbgrader generate_assignment`, which takes the problem's own path for no pattern."""

    def init_notebooks(self) -> None:
        """Find the notebooks of the one problem that is released."""
        directory: Any = self.coursedir
        folder = self._format_source(directory.assignment_id, directory.student_id)
        found = sorted(glob.glob(os.path.join(glob.escape(folder), "*.ipynb")))
        if not found:
            return super().init_notebooks()  # which says what is missing
        self.assignments, self.notebooks = {folder: found}, []
        return None

    def _format_source(self, assignment_id: str, student_id: str, escape: bool = False) -> str:
        """Return the problem's path, or a regular expression for it; nbgrader escapes only a part of that."""
        if not escape:
            return super()._format_source(assignment_id, student_id)
        path = re.escape(super()._format_source(PLACES["assignment"], PLACES["student"]))
        return path.replace(PLACES["assignment"], assignment_id).replace(PLACES["student"], student_id)


def release(api: NbGraderAPI, stem: str) -> dict[str, Any]:
    """Make a problem's student version, as `NbGraderAPI.generate_assignment` does; return its result."""
    directory: Any = api.coursedir
    with temp_attrs(directory, assignment_id=stem):
        app: Any = Release(coursedir=directory, parent=api)
        app.force = app.create_assignment = True
        return capture_log(app)


__all__ = ["release"]
