"""What a student is told of a hand-in before it is due: the public cases alone, then the likely mistakes too.

Such a page is made of a second run of the notebook, on the published seed. Nothing in it is computed from a hidden
input, so no number of attempts can draw one out of it.
"""

import dataclasses
import enum

from ftgrade.intake.notebook import PERSONAL, make_finding
from ftgrade.judging.judges import Work
from ftgrade.judging.report import CheckReport, Report
from ftgrade.judging.seeds import open_seed


class Stage(enum.IntEnum):
    """How much a page tells."""

    PUBLIC = 1
    MISTAKES = 2
    ALL = 3


STAGE_WORDS = {Stage.PUBLIC: "public cases", Stage.MISTAKES: "public cases and mistakes", Stage.ALL: "everything"}


def public_work(work: Work) -> Work:
    """Return what a judge is asked to judge the same bytes on the published seed alone."""
    seed = open_seed(work.brief.stem, work.blank.version)
    brief = dataclasses.replace(work.brief, seeds=[seed], personal=[seed])
    blank = dataclasses.replace(work.blank, secret_print="open", key="", graded_by={})  # noqa: S106
    return Work(blank, brief, work.data)


def for_stage(public: Report, stage: Stage, attempt: str) -> Report:
    """Return a report on the public cases as its student may see it at a stage; `attempt` says which attempt it is."""
    words = (
        f"{attempt}These are the public cases. Your marks come from other cases of the same kinds once the problem is "
        "due; your last hand-in counts."
    )
    checks = tuple(shown_check(check, stage) for check in public.checks)
    return dataclasses.replace(public, checks=checks, findings=(make_finding("stage", words), *public.findings))


def shown_check(check: CheckReport, stage: Stage) -> CheckReport:
    """Return a check without what its stage keeps back: the verdict on a personal number, and the named mistake."""
    if check.function == PERSONAL:
        blank = CheckReport(check.name, check.title, check.function, check.points, 0.0, "waits", 0, 0)
        return dataclasses.replace(blank, next_step="Your own number is looked at once the problem is due.")
    if stage >= Stage.MISTAKES or not check.mistake:
        return check
    return dataclasses.replace(check, mistake="", says="", next_step="")


__all__ = ["STAGE_WORDS", "Stage", "for_stage", "public_work"]
