"""A class to reports: what the command line, a benchmark and a cluster's master call."""

from collections.abc import Generator

from ftgrade.grading import cluster
from ftgrade.grading.grader import Grader
from ftgrade.judging.report import Report


def grade_class(grader: Grader, stems: list[str], *, fresh: bool = False, scheduler: str = "") -> Generator[Report]:
    """Yield a report for every submission of these problems, as they are finished; each is stored by then.

    The grader's own judges work, or the workers of a Dask scheduler. Raises CourseFault.
    """
    found = (grader.look_up_safely(student, stem, fresh) for stem in stems for student in grader.course.students(stem))
    for one in cluster.judge_on_cluster(found, scheduler) if scheduler else grader.judges.judge_each(found):
        yield one if isinstance(one, Report) else grader.finish(*one)
