"""For every test and doctest: a learner's own progress is neither read nor written."""

from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "keep what the notebooks' findings measure, for course/claims.md"
    parser.addoption("--record", action="store_true", help=words)


@pytest.fixture(autouse=True, scope="session")
def nobodys_progress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTMATH_PROGRESS", str(tmp_path_factory.mktemp("progress") / "progress.json"))
        yield
