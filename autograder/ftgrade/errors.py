"""The exceptions of this package, by whose fault it is: the student's, a problem author's, the course's, or ours."""


class GradingError(Exception):
    """The base of every exception that this package raises on purpose; the text says what to do."""


class StudentFault(GradingError):
    """The submission can't be used as it is. The text is written for the student.

    `kind` is one of a fixed set of words (`malformed`, `too-large`, …), so that reports can count it.
    """

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind
        self.words = words


class AuthorFault(GradingError):
    """A file of a problem breaks a rule. The text is written for the problem's author."""


class CourseFault(GradingError):
    """The course folder or its settings are wrong. The text is written for the instructor."""


class OurFault(GradingError):
    """The grader itself failed. The text is written for its maintainers."""
