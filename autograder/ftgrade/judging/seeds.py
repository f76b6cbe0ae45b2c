"""Seeds of hidden cases and personal questions, derived from the course's secret and the student's id."""

import hashlib

HIDDEN_SEEDS, SEEDS_OF_A_COURSE = 3, 8


def hidden_seeds(secret: bytes, student: str, stem: str, version: int) -> list[int]:
    """Return the seeds of a student's hidden cases of one problem.

    They are chosen from the course's few seeds, so that the reference's outcomes are computed once for all students.
    """
    pool = [seed_of(secret.hex(), stem, str(version), str(number)) for number in range(SEEDS_OF_A_COURSE)]
    return sorted(pool, key=lambda seed: seed_of(secret.hex(), student, str(seed)))[:HIDDEN_SEEDS]


def open_seed(stem: str, version: int, day: str = "") -> int:
    """Return the public seed for self-checks; each `day`, such as 2026-01-31, has its own."""
    return seed_of("open", stem, str(version), *([day] if day else []))


def own_seed(secret: str, student: str, stem: str, version: int, draw: int) -> int:
    """Return the seed of a student's question at a draw; `questions` says which draw is taken."""
    return seed_of("personal", secret, student, stem, str(version), *([str(draw)] if draw else []))


def seed_of(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big")


def secret_print(secret: bytes) -> str:
    """Return a short digest of a secret, to recognise the secret by."""
    return hashlib.sha256(b"print\0" + secret).hexdigest()[:8]
