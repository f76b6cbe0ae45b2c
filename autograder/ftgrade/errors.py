"""Whose fault it is: the student's, the author's of a problem, the instructor's set-up, or ours."""


class GradingError(Exception):
    """Anything that this package raises on purpose; its text says what to do."""


class StudentFault(GradingError):
    """The submission can't be used as it is; the text is written for the student.

    `kind` is a short fixed word (`malformed`, `too-large`, …) that reports count.
    """

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind
        self.words = words


class AuthorFault(GradingError):
    """A leaf of a problem breaks a law; the text is written for its author."""


class CourseFault(GradingError):
    """The course folder or its settings stand in the way; the text is written for the instructor."""


class OurFault(GradingError):
    """The grader itself failed; the text is written for whoever maintains it."""
