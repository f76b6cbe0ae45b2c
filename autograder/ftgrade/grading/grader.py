"""One submission to its report: what is read, whether a stored report stands, and what a judge is asked."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from ftgrade.catalog import Catalog
from ftgrade.course import Course
from ftgrade.errors import CourseFault, OurFault, StudentFault
from ftgrade.grading.lastrun import LastRun, stat_fingerprint
from ftgrade.grading.reports import Reports
from ftgrade.guard import Mishap, guarded
from ftgrade.intake.naming import MAX_COMPARED, others_in_words, renamed_finding
from ftgrade.intake.notebook import Finding, make_finding, read_bounded, read_handed_in
from ftgrade.intake.parcel import pack, read_beside
from ftgrade.intake.placing import ReleasedCell, is_untouched_notebook, released_of
from ftgrade.intake.quarantine import set_aside
from ftgrade.judging.judges import Judges, Work
from ftgrade.judging.outline import Outline
from ftgrade.judging.questions import Questions, read_questions
from ftgrade.judging.report import Brief, Judgement, Limits, Report
from ftgrade.judging.seeds import hidden_seeds, open_seed, secret_print
from ftgrade.judging.versions import versions
from ftgrade.probing.doctor import cache_file, strongest


class Grader:
    """Grade submissions of a course; reports are stored by what was graded and by what."""

    def __init__(
        self,
        catalog: Catalog,
        course: Course,
        judges: Judges | None = None,
        *,
        allow_unsandboxed: bool = False,
        limits: Limits = Limits(),  # noqa: B008  (it can't be changed)
    ) -> None:
        self.catalog = catalog
        self.course = course
        self.limits = limits
        self.judges = judges or Judges(catalog, lambda: strongest(cache_file(), allow_unsandboxed))
        self.outlines: dict[str, Outline] = {}
        self.digest = functools.cache(catalog.digest)
        self.last_runs: dict[str, LastRun] = {}
        self.questions: dict[tuple[str, ...], Questions] = {}
        self.statements: dict[tuple[str, ...], bytes] = {}

    @property
    def reports(self) -> Reports:
        return Reports(self.course)

    @property
    def sandbox_name(self) -> str:
        """Return the name of the sandbox that submissions run in, empty for none. Raises CourseFault."""
        backend = self.judges.backend()
        return backend.name if backend.layers or backend.name == "seatbelt" else ""

    @property
    def unsandboxed_finding(self) -> tuple[Finding, ...]:
        """Return what is stamped on every report that is made without a sandbox."""
        if self.sandbox_name:
            return ()
        words = "Graded without a sandbox: this code could have read and changed files of the grader's machine."
        return (make_finding("unsandboxed", words),)

    def outline(self, stem: str) -> Outline:
        """Return the outline of a problem, which is asked for once. Raises AuthorFault, CourseFault or OurFault."""
        if stem not in self.outlines:
            self.outlines[stem] = self.judges.outline(stem)
        return self.outlines[stem]

    def last_run(self, stem: str) -> LastRun:
        """Return what the last run noted of a problem's submissions."""
        if stem not in self.last_runs:
            self.last_runs[stem] = LastRun(self.course.last_path(stem))
        return self.last_runs[stem]

    def grade(self, student: str, stem: str, fresh: bool = False) -> Report:
        """Return the report of what a student handed in: the stored one if nothing changed, else a new one."""
        found = self.look_up(student, stem, fresh)
        return found if isinstance(found, Report) else self.finish(found, self.judges.judge(found))

    def look_up_safely(self, student: str, stem: str, fresh: bool) -> Report | Work:
        """Return what `found` does, and a report whatever happens; one that can't be made is not stored."""
        found = guarded(lambda: self.look_up(student, stem, fresh))
        return failure_report(student, stem, found.words) if isinstance(found, Mishap) else found

    def look_up(self, student: str, stem: str, fresh: bool) -> Report | Work:
        """Return a report that needs no judging, or what there is to judge."""
        blank = self.blank_report(student, stem, self.course.secret())
        path, last, beside = self.course.notebook(student, stem), self.last_run(stem), self.outline(stem).files
        look = stat_fingerprint(path, beside)
        if not fresh and look and look == last[student].look:
            kept = self.stored_report(blank, last[student].submission)
            if kept is not None:
                return kept
        try:
            blank = dataclasses.replace(blank, findings=set_aside(path.parent, self.course.quarantine(student, stem)))
            look = stat_fingerprint(
                path, beside
            )  # before it's read: if the file changes meanwhile, the next run sees another
            data = sent = read_handed_in(path)
            if beside:
                sent = pack({path.name: data} | read_beside(path, beside, path.parents[2]))
        except StudentFault as fault:
            others = others_in_words(self.course, student, stem) if fault.kind == "missing" else ""
            return self.reports.put(unreadable_report(blank, fault.kind, fault.words + others))
        except OurFault as fault:
            return self.reports.put(add_findings(blank, make_finding("ours", fault)))
        digest = hashlib.sha256(data).hexdigest()
        renamed = renamed_finding(self.course, student, stem, digest)
        blank = dataclasses.replace(blank, findings=(*blank.findings, *renamed))
        said = json.dumps([finding.words for finding in blank.findings])
        handed_in = hash_parts({"digest": hashlib.sha256(sent).hexdigest(), "said": said})
        last[student] = dataclasses.replace(last[student], look=look, submission=handed_in)
        if not fresh and (kept := self.stored_report(blank, handed_in)):
            return kept
        parts = self.key_parts(handed_in, blank, "held" if self.sandbox_name else "none")
        blank = dataclasses.replace(
            blank, key=hash_parts(parts), graded_by=parts, findings=(*blank.findings, *self.unsandboxed_finding)
        )
        version = self.outline(stem).version
        seeds = hidden_seeds(self.course.secret(), student, stem, version)
        personal = self.personal_questions(stem).accepted(student)
        brief = Brief(stem, seeds, personal, versions(self.digest(stem)), self.limits)
        return Work(blank, brief, sent, self.statements_json(stem))

    def finish(self, work: Work, judgement: Judgement) -> Report:
        """Return the report that a judgement makes, stored if the problem could be loaded."""
        if judgement.state == "fault":
            return load_failure_report(work.blank, judgement)
        made = fill_report(work.blank, judgement)
        kept = guarded(lambda: self.reports.put(made))
        if isinstance(kept, Mishap):
            words = f"The report could not be stored: {kept.words}"
            return dataclasses.replace(add_findings(made, make_finding("ours", words)), state="ours")
        return kept

    def self_check(self, path: Path, stem: str, day: str = "") -> Report:
        """Return the report of any notebook file on the published seed, or on a day's; nothing is stored."""
        blank = dataclasses.replace(self.blank_report("self-check", stem, b""), secret_print="open")  # noqa: S106
        version = self.outline(stem).version
        brief = Brief(
            stem, [open_seed(stem, version, day)], [open_seed(stem, version)], versions(self.digest(stem)), self.limits
        )
        try:
            data, beside = read_bounded(path), self.outline(stem).files
            name = f"{stem}.ipynb"  # a copy may have another
            work = Work(blank, brief, pack({name: data} | read_beside(path, beside)) if beside else data)
        except StudentFault as fault:
            return unreadable_report(blank, fault.kind, fault.words)
        judgement = self.judges.judge(work)
        return load_failure_report(blank, judgement) if judgement.state == "fault" else fill_report(blank, judgement)

    def blank_report(self, student: str, stem: str, secret: bytes) -> Report:
        """Return the report that everyone starts from: every check at 0."""
        outline = self.outline(stem)
        return Report(stem, student, "ours", "", secret_print(secret), outline.version, outline.checks)

    def stored_report(self, blank: Report, submission: str) -> Report | None:
        """Return the stored report if it was graded by these very parts, in a sandbox or where none holds."""
        stored = self.reports.get(blank.student, blank.stem)
        if stored is None or not stored.is_reusable:
            return None
        if stored.key == hash_parts(self.key_parts(submission, blank, "held")):
            return stored
        without = stored.key == hash_parts(self.key_parts(submission, blank, "none"))
        return stored if without and not self.sandbox_name else None

    def key_parts(self, submission: str, blank: Report, sandbox: str) -> dict[str, str]:
        """Return everything that a score depends on, by what it is; the submission by its fingerprint."""
        return {
            "submission": submission,
            "sandbox": sandbox,
            "seed": hash_parts({"secret": blank.secret_print, "student": blank.student, "version": str(blank.version)}),
            "question": self.question_name(blank.stem, blank.student),
            **versions(self.digest(blank.stem)),
        }

    def personal_questions(self, stem: str) -> Questions:
        """Return which personal question each student got; drawn now for those of the roster who have none yet."""
        known = stem, *self.course.roster()
        if known not in self.questions:
            found = read_questions(self.course, stem, self.outline(stem).version)
            is_asked = self.course.roster() and not self.outline(stem).files  # a project asks nobody a question
            if is_asked and not found.is_complete(self.course.roster(), self.digest(stem)):
                from ftgrade.judging.draws import draw_questions  # it needs torch

                found = draw_questions(self.catalog, self.course, stem, found.version)
            self.questions[known] = found
        return self.questions[known]

    def question_name(self, stem: str, student: str) -> str:
        """Return which personal questions count for a student, without giving their seeds away."""
        questions = self.personal_questions(stem)
        seeds = questions.accepted(student)
        if student not in questions.seeds:
            return "published"
        name = "own" if len(seeds) == 1 else "own or published"
        return f"{name} {hash_parts({'seeds': json.dumps(seeds)})[:8]}"

    def statements_json(self, stem: str) -> bytes:
        """Return what the judges are told of all personal questions of a problem."""
        known = stem, *self.course.roster()
        if known not in self.statements:
            told = self.personal_questions(stem).statements
            self.statements[known] = json.dumps(dataclasses.asdict(told)).encode()
        return self.statements[known]

    def close(self) -> None:
        """End the judges; the next report starts others."""
        self.judges.close()


def untouched_test(catalog: Catalog) -> Callable[[str, bytes], bool]:
    """Return a function that says whether a notebook of a problem holds nothing but what was released.

    Larger files than MAX_COMPARED count as touched, since this process has no limits of its own.
    """

    @functools.cache
    def released(stem: str) -> list[ReleasedCell]:
        return released_of(catalog.built_cells(stem))

    return lambda stem, data: len(data) <= MAX_COMPARED and is_untouched_notebook(data, released(stem))


def hash_parts(parts: dict[str, str]) -> str:
    """Return one name for all of these."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def fill_report(blank: Report, judgement: Judgement) -> Report:
    """Return a student's report with what a judge found; everything else in it is the grader's."""
    if judgement.state == "unreadable":
        (finding,) = judgement.findings
        return unreadable_report(blank, finding.kind, finding.words)
    return dataclasses.replace(
        add_findings(blank, *judgement.findings),
        state=judgement.state,
        checks=judgement.checks or blank.checks,
        notes=judgement.notes,
        cells=judgement.cells,
        forms=judgement.forms,
    )


def load_failure_report(blank: Report, judgement: Judgement) -> Report:
    """Return the report where the problem couldn't be loaded. Raises CourseFault where going on is useless."""
    (finding,) = judgement.findings
    if finding.kind == CourseFault.__name__:
        raise CourseFault(finding.words)
    return add_findings(blank, make_finding("ours", f"{finding.kind}: {finding.words}"))


def add_findings(blank: Report, *findings: Finding) -> Report:
    return dataclasses.replace(blank, findings=(*blank.findings, *findings))


def unreadable_report(blank: Report, kind: str, words: str) -> Report:
    """Return the report of a submission that can't be graded as it is."""
    checks = tuple(
        dataclasses.replace(check, status="unreadable", words=words, next_step="Hand in again.")
        for check in blank.checks
    )
    return dataclasses.replace(
        add_findings(blank, make_finding(kind, words)), state="unreadable", key=blank.key or kind, checks=checks
    )


def failure_report(student: str, stem: str, words: str) -> Report:
    """Return the report of a submission that could not be looked at; it isn't stored."""
    return Report(stem, student, "ours", "", "", 0, (), (make_finding("ours", words),))


__all__ = ["Grader", "failure_report", "fill_report", "hash_parts", "load_failure_report", "untouched_test"]
