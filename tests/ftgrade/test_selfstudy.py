"""A learner on their own: which notebook is graded, on which numbers, when a solution opens, and what stays."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.classroom import selfstudy
from ftgrade.commands import cli
from ftgrade.errors import CourseFault
from ftgrade.gradebook.cells import check_html
from ftgrade.grading.grader import Grader
from ftgrade.judging.judge import Oracle
from ftgrade.judging.judges import Judges
from ftgrade.judging.problem import PERSONAL, load_problem
from ftgrade.judging.seeds import open_seed
from ftmath.progress import progress_path

CATALOG = home()
STEM = "p03_lora_parameters"
RIGHT = CATALOG.leaves(STEM).solution.read_text("utf-8")
WRONG = RIGHT.replace("(d_out * d_in - 1) //", "(d_out * d_in) //")
XSS = "<script>alert('x')</script>"
Write = Callable[..., Path]


class Kept(Grader):
    """A grader that the code under test makes and closes, and whose judge stays for the next test."""

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Judges) -> None:
    """A learner in an empty folder, with a record of their own, on 2026-01-30."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("FTMATH_PROGRESS", str(tmp_path / "data" / "progress.json"))
    monkeypatch.setattr(selfstudy, "Grader", partial(Kept, judges=judges))
    set_clock(monkeypatch, 30)


@pytest.fixture
def write() -> Write:
    """Return a function that writes the notebook of some answers, saved at a minute, in this folder."""

    def write(answers: str, path: str = f"{STEM}.ipynb", minute: int = 1) -> Path:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(build.filled_notebook(CATALOG, STEM, answers), "utf-8")
        os.utime(path, (2e9 + 60 * minute,) * 2)
        return Path(path)

    return write


def set_clock(monkeypatch: pytest.MonkeyPatch, day: int) -> None:
    monkeypatch.setattr(selfstudy, "now", lambda: datetime(2026, 1, day, 12, tzinfo=UTC))


def with_own_number(answers: str) -> str:
    """Add the right answer to the question that the notebook shows."""
    judging = Oracle(CATALOG, STEM)
    number = judging.personal_answer(open_seed(STEM, judging.problem.version), judging.reference)
    return f"{answers}\n\ndef {PERSONAL}():\n    return {getattr(number, 'value', number)!r}\n"


# ------------------------------------------------------------------------------------------------------ which notebook


def test_of_several_copies_the_one_with_answers_that_was_saved_last_is_graded(write: Write):
    write("", minute=9)
    old = write(WRONG, f"{STEM}/{STEM}.ipynb", minute=2)
    assert selfstudy.find_notebook(CATALOG, "p03")[1][0] == old
    new = write(RIGHT, minute=3)
    stem, (first, *others) = selfstudy.find_notebook(CATALOG, "3")
    assert (stem, first) == (STEM, new)
    assert others[0] == old
    said = list(selfstudy.result_lines(CATALOG, selfstudy.check(CATALOG, "p03")))
    assert said[1].startswith(f"graded: {STEM}.ipynb, saved 2033-")
    assert said[2] == f"not graded: {STEM}/{STEM}.ipynb"


def test_without_a_copy_the_checkouts_own_notebook_is_graded():
    assert selfstudy.find_notebook(CATALOG, STEM)[1][-1] == CATALOG.leaves(STEM).notebook


@pytest.mark.parametrize("name", [f"{STEM}-Copy1.ipynb", f"{STEM} (2).ipynb"])
def test_a_renamed_copy_is_known_by_the_beginning_of_its_name(write: Write, name: str):
    assert selfstudy.find_notebook(CATALOG, str(write(WRONG, name))) == (STEM, [Path(name)])


def test_another_name_needs_to_be_told_the_problem(write: Write):
    write(WRONG, "mine.ipynb")
    assert selfstudy.find_notebook(CATALOG, "mine.ipynb", "p03") == (STEM, [Path("mine.ipynb")])
    with pytest.raises(CourseFault, match="there is no problem 'mine'"):
        selfstudy.find_notebook(CATALOG, "mine.ipynb")
    with pytest.raises(CourseFault, match=r"other\.ipynb isn't there"):
        selfstudy.find_notebook(CATALOG, "other.ipynb", "p03")
    with pytest.raises(CourseFault, match="there is no problem 'p99'"):
        selfstudy.find_notebook(CATALOG, "p99")


# -------------------------------------------------------------------------------------------------------- the numbers


def test_a_day_has_its_numbers_and_the_next_has_others(write: Write, monkeypatch):
    """The question of the learner's own stays the one that stands in the notebook."""
    write(with_own_number(RIGHT))
    reports = []
    for day in (30, 30, 31):
        set_clock(monkeypatch, day)
        reports.append(selfstudy.check(CATALOG, "p03").report)
    assert [one.score for one in reports] == [11.0] * 3
    one, again, next_day = selfstudy.read_record()[STEM].attempts
    assert one.seed == again.seed == open_seed(STEM, 1, "2026-01-30")
    assert next_day.seed == open_seed(STEM, 1, "2026-01-31") != one.seed
    assert open_seed(STEM, 1) not in {one.seed, next_day.seed}


def test_a_days_numbers_can_be_drawn_again_and_that_is_no_attempt(write: Write):
    write(WRONG)
    first = selfstudy.check(CATALOG, "p03")
    again = selfstudy.check(CATALOG, "p03", day="2026-01-29")
    assert again.day == "2026-01-29"
    assert pytest.approx(again.report.score) == first.report.score == pytest.approx(9.25)
    (kept,) = selfstudy.read_record()[STEM].attempts
    assert f"answer: {kept.answer}" in list(selfstudy.result_lines(CATALOG, again))
    assert [one.day for one in selfstudy.read_record()[STEM].attempts] == ["2026-01-30"]


# ----------------------------------------------------------------------------------------------------------- attempts


def test_an_attempt_is_kept_with_what_it_takes_to_repeat_it(write: Write):
    write(WRONG)
    done = selfstudy.check(CATALOG, "p03")
    (kept,) = selfstudy.read_record()[STEM].attempts
    assert (kept.score, kept.points, kept.version, kept.day) == (pytest.approx(9.25), 11.0, 1, "2026-01-30")
    assert kept.sandbox == done.sandbox
    assert done.learned.attempts == (kept,)
    assert selfstudy.record_path().stat().st_mode & 0o777 == 0o644
    assert {path.name for path in selfstudy.record_path().parent.iterdir()} <= {"attempts.json", ".ftgrade"}


def test_nothing_is_left_in_the_folder_where_one_works(write: Write):
    write(WRONG)
    selfstudy.check(CATALOG, "p03")
    assert [path.name for path in Path().iterdir()] == [f"{STEM}.ipynb"]


def test_attempts_are_kept_beside_the_exercises_that_are_done(monkeypatch):
    assert selfstudy.record_path().parent == progress_path().parent
    monkeypatch.delenv("FTMATH_PROGRESS")
    assert selfstudy.record_path().parent == progress_path().parent


def test_a_home_that_can_not_be_written_to_stops_nobody(write: Write, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    write(WRONG)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refused)
        done = selfstudy.check(CATALOG, "p03")
    assert done.report.score == pytest.approx(9.25)
    assert done.trouble.endswith("can't be written (Permission denied).")
    assert done.learned.attempts == ()


def test_an_empty_or_unreadable_notebook_is_no_attempt(write: Write):
    path = write("")
    assert selfstudy.check(CATALOG, "p03").report.score == 0
    path.write_text("{")
    assert selfstudy.check(CATALOG, "p03").report.state == "unreadable"
    assert selfstudy.read_record() == {}


def test_a_record_that_is_not_ours_is_left_as_it_is(write: Write):
    write(WRONG)
    path = selfstudy.record_path()
    path.parent.mkdir()
    for text in ("not JSON", "[]", '{"p03_lora_parameters": {"attempts": [{"score": 1}], "opened": ""}}'):
        path.write_text(text)
        with pytest.raises(CourseFault, match="mend it, or move it away"):
            selfstudy.check(CATALOG, "p03")
        assert path.read_text() == text


def test_where_an_attempt_can_not_be_kept_the_score_still_stands(write: Write, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    write(WRONG)
    monkeypatch.setattr(selfstudy.tempfile, "NamedTemporaryFile", full)
    done = selfstudy.check(CATALOG, "p03")
    assert done.report.score == pytest.approx(9.25)
    assert list(selfstudy.result_lines(CATALOG, done))[-1].endswith("can't be written (No space left on device).")


# ------------------------------------------------------------------------------------------------------- the solution


def answers() -> list[str]:
    """Return three different answers, none right."""
    return [WRONG, RIGHT.replace("return d_out * r + r * d_in", "return 1"), RIGHT.replace("* (d_out + d_in - r)", "")]


def test_the_solution_opens_after_three_different_answers(write: Write):
    for number, text in enumerate(answers()):
        for same in (text, text.replace("    return", "    # so\n\n    return"), text.replace("names", "listed")):
            write(same)
            done = selfstudy.check(CATALOG, "p03")
            assert done.report.score < 11
            assert done.learned.left == 2 - number
        if done.learned.left:
            with pytest.raises(CourseFault, match=f"or with all points: {2 - number} (is|are) left"):
                selfstudy.reveal(CATALOG, done)
    shown = selfstudy.reveal(CATALOG, done)
    assert "    return (d_out * d_in - 1) // (d_out + d_in)\n" in shown
    assert ">>>" not in shown
    compile(shown, "solution", "exec")
    assert selfstudy.read_record()[STEM].opened.startswith("2026-01-30T12:00")


def test_all_points_open_the_solution_at_once(write: Write):
    write(with_own_number(RIGHT))
    done = selfstudy.check(CATALOG, "p03")
    assert done.learned.left == 0
    assert "def lora_param_count" in selfstudy.reveal(CATALOG, done)


@pytest.mark.parametrize("stem", CATALOG.stems())
def test_every_solution_reads_as_python_without_its_docstrings(stem: str):
    text = selfstudy.solution_text(CATALOG, stem)
    compile(text, stem, "exec")
    assert all(f"def {name}(" in text for name in load_problem(CATALOG, stem).functions)
    assert ">>>" not in text


# -------------------------------------------------------------------------------------------------------------- pages


class Page(HTMLParser):
    """What a page would load, run or link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "iframe", "object", "form"}:
            self.active.append(tag)
        for name, value in attrs:
            leads_away = name in {"src", "href"} and not (value or "").startswith("#")
            self.active += [f"{name}={value}"] if leads_away or name.startswith("on") else []


def test_the_page_says_what_a_class_is_told(write: Write):
    write(WRONG + f"\nprint({XSS!r})\n")
    done = selfstudy.check(CATALOG, "p03")
    path = selfstudy.write_page(CATALOG, done)
    text = path.read_text("utf-8")
    assert path.name == f"{STEM}.feedback.html"
    assert all(check_html(one) in text for one in done.report.checks)
    assert "9.25 of 11 points" in text
    assert "on the numbers of 2026-01-30" in text
    assert "return (d_out * d_in) // (d_out + d_in)" in text
    assert "&lt;script&gt;" in text
    assert Page(text).active == []


def test_an_unreadable_notebook_has_a_page_too():
    Path(f"{STEM}.ipynb").write_text("{")
    done = selfstudy.check(CATALOG, "p03")
    assert "isn&#39;t valid JSON" in selfstudy.feedback_page(CATALOG, done)


def attempt(score: float, when: str, **other: Any) -> selfstudy.Attempt:
    told = {"day": when[:10], "seed": 7, "version": 2, "points": 11.0, "answer": "c0ffee", "sandbox": "namespaces"}
    return selfstudy.Attempt(when=when, score=score, **(told | other))


def rows(page: str) -> list[list[str]]:
    found = re.findall(r"<tr>(.*?)</tr>", page)
    return [re.findall(r"<t[hd][^>]*>(?:<code>)?(.*?)(?:</code>)?</t[hd]>", row) for row in found]


def test_a_certificate_tells_the_best_attempt_and_how_to_see_it_again():
    first, best, same = attempt(4, "2026-01-28T10"), attempt(9.5, "2026-01-29T10"), attempt(9.5, "2026-01-30T10")
    learned = selfstudy.History((first, best, same), opened="2026-01-29T11")
    page = selfstudy.certificate(CATALOG, {STEM: learned}, f"Ada {XSS}", "2026-02-01")
    told, again = [row for row in rows(page) if row[0].startswith("Problem 3")]
    assert told[1:] == ["9.5", "11", "2026-01-29", "3", "1", "opened later"]
    assert again[1:] == ["2", "2026-01-29", "7", "c0ffee", "namespaces"]
    assert "9.5 of 110 points, in 1 of 10 problems" in page
    assert "Signed by nobody" in page
    assert "<bdi>Ada &lt;script&gt;" in page
    assert Page(page).active == []


@pytest.mark.parametrize(("opened", "words"), [("", "closed"), ("2026-01-29T10", "opened before")])
def test_a_certificate_tells_whether_the_solution_had_been_seen(opened: str, words: str):
    learned = selfstudy.History((attempt(11, "2026-01-30T10", sandbox=""),), opened)
    page = selfstudy.certificate(CATALOG, {STEM: learned}, "", "2026-02-01")
    told, again = [row for row in rows(page) if row[0].startswith("Problem 3")]
    assert (told[-1], again[-1]) == (words, "none")


def test_a_certificate_of_nothing_says_so():
    page = selfstudy.certificate(CATALOG, {}, "", "2026-02-01")
    assert "0 of 110 points, in 0 of 10 problems" in page
    assert page.count("not attempted") == 10
    assert "How to see it again" not in page


# --------------------------------------------------------------------------------------------------- the command line


def test_the_commands_say_what_they_did(write: Write, capsys):
    write(WRONG)
    assert cli.main(["check", "p03", "--page", "--solution"]) == cli.COULD_NOT
    said, failed = capsys.readouterr()
    assert "Likely mistake: Your rank is one too large where the division is exact" in said
    assert f"page: {STEM}.feedback.html" in said
    assert "2 are left" in failed.replace("\n", " ")
    write(with_own_number(RIGHT))
    assert cli.main(["check", "3", "--solution"]) == cli.FINE
    assert "return (d_out * d_in - 1) // (d_out + d_in)" in capsys.readouterr().out
    assert cli.main(["certificate", "--name", "Ada", "-o", "mine.html"]) == cli.FINE
    assert "11 of 110 points" in Path("mine.html").read_text("utf-8")
    assert json.loads(selfstudy.record_path().read_text())[STEM]["opened"]


def test_a_day_that_is_none_is_told(capsys):
    with pytest.raises(SystemExit):
        cli.main(["check", "p03", "--day", "yesterday"])
    assert "--day: a date is written as 2026-01-31, got 'yesterday'" in capsys.readouterr().err
