"""The numbers that hidden cases and personal questions are drawn from: of the course's secret and the student's id."""

import hashlib

from ftgrade.course import Course

HIDDEN_SEEDS, SEEDS_OF_A_COURSE = 3, 8


def hidden_seeds(secret: bytes, student: str, stem: str, version: int) -> list[int]:
    """Return the seeds that a student's hidden cases of one problem are drawn from.

    They are dealt from a few of the course's own, so that what the reference says to each is computed once for a class.
    """
    pool = [seed_of(secret.hex(), stem, str(version), str(number)) for number in range(SEEDS_OF_A_COURSE)]
    return sorted(pool, key=lambda seed: seed_of(secret.hex(), student, str(seed)))[:HIDDEN_SEEDS]


def open_seed(stem: str, version: int, day: str = "") -> int:
    """Return the published seed, for self-checks; each day, such as 2026-01-31, has another."""
    return seed_of("open", stem, str(version), *([day] if day else []))


def personal_seed(course: Course, student: str, stem: str, version: int) -> int:
    """Return the seed of a student's question: one of their own for the roster's students, else the published one."""
    if student not in course.roster():
        return open_seed(stem, version)
    return seed_of("personal", course.secret().hex(), student, stem, str(version))


def statement_seeds(course: Course, stem: str, version: int) -> list[int]:
    """Return the personal seeds of every statement of a problem: the published one's, then the roster's students'."""
    roster = course.roster()
    secret = course.secret().hex() if roster else ""
    return [
        open_seed(stem, version),
        *(seed_of("personal", secret, student, stem, str(version)) for student in roster),
    ]


def seed_of(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big")


def secret_print(secret: bytes) -> str:
    """Return a short name of a secret that doesn't tell it."""
    return hashlib.sha256(b"print\0" + secret).hexdigest()[:8]
