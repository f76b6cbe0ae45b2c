"""A written exam: each problem's personal question with numbers of its own, in parallel forms, and the key to mark by.

The forms ask the same things with other numbers, drawn from the course's secret and the exam's name, and no two forms
have an answer in common. The key gives each right answer and the wrong ones that the named mistakes lead to, so that
whoever marks sees from a number which mistake was made.
"""

import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ftgrade.catalog import Catalog
from ftgrade.course import Course
from ftgrade.errors import CourseFault
from ftgrade.judging.coincidences import asked_digits
from ftgrade.judging.draws import MAX_DRAWS, Draws, answer_by
from ftgrade.judging.judge import Oracle
from ftgrade.judging.problem import Mistake, Question
from ftgrade.judging.questions import read_questions
from ftgrade.judging.seeds import seed_of
from ftgrade.judging.statements import Numbers
from ftgrade.pages.classreport import style_hash
from ftgrade.pages.feedback import TEMPLATES, environment

MAX_FORMS = len(string.ascii_uppercase)


@dataclass(frozen=True, slots=True)
class Wrong:
    """A wrong answer: its number, and what each mistake that gives it says."""

    number: str
    says: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a form, with what the key says of it."""

    title: str
    part: str
    words: str
    precision: str
    answer: str
    wrong: tuple[Wrong, ...]


@dataclass(frozen=True, slots=True)
class Form:
    letter: str
    items: tuple[Item, ...]


def make_exam(
    catalog: Catalog, course: Course, stems: Sequence[str], forms: int, name: str, tick: Callable[[], object]
) -> list[Form]:
    """Return the forms of an exam; the same secret and name give the same numbers.

    Raises CourseFault if the number of forms isn't 1 to 26, or no problem has a personal question.
    """
    if not 1 <= forms <= MAX_FORMS:
        raise CourseFault(f"--forms must be a number from 1 to {MAX_FORMS}, got {forms}")
    rows: list[list[Item]] = []
    for stem in stems:
        oracle = Oracle(catalog, stem)
        if oracle.problem.own is not None:
            rows.append(items_of(catalog, course, oracle, forms, name))
        tick()
    if not rows:
        raise CourseFault("none of these problems has a personal question: name others")
    return [Form(letter, items) for letter, items in zip(string.ascii_uppercase, zip(*rows, strict=True), strict=False)]


def items_of(catalog: Catalog, course: Course, oracle: Oracle, forms: int, name: str) -> list[Item]:
    """Return one problem's question for each form: none coincides with another's, nor with one that is out already."""
    version, secret = oracle.problem.version, course.secret().hex()
    draws, known = Draws(oracle), read_questions(course, oracle.stem, version)
    for seed in (known.published, *known.seeds.values()):
        draws.take(seed)
    found: list[Item] = []
    for letter in string.ascii_uppercase[:forms]:
        parts = ("exam", secret, name, letter, oracle.stem, str(version))
        seed = draws.choose([seed_of(*parts, str(draw)) for draw in range(MAX_DRAWS)])
        draws.take(seed)
        found.append(item_of(catalog, oracle, draws.question(seed)))
    return found


def item_of(catalog: Catalog, oracle: Oracle, question: Question) -> Item:
    own = oracle.problem.own
    right = answer_by(oracle.reference, question)
    assert own is not None
    assert right is not None, "the laws over all problems hold that the reference answers"
    lesson = oracle.problem.part.partition("_")
    part = f"part {int(lesson[0])}, {lesson[2].replace('_', ' ')}"
    wrong = tuple(wrong_answers(oracle, question, right))
    title = catalog.title(oracle.stem).partition(". ")[2]
    return Item(title, part, question.words, own.precision, numbers_text(right), wrong)


def wrong_answers(oracle: Oracle, question: Question, right: Numbers) -> Iterable[Wrong]:
    """Return what the named mistakes answer, most telling first: the number that fewest mistakes give."""
    own = oracle.problem.own
    assert own is not None
    same = asked_digits(own.check.same)
    found: list[tuple[Numbers, list[Mistake]]] = []
    for mistake in oracle.problem.mistakes:
        if mistake.replaces not in oracle.uses[question.call.function]:
            continue
        row = answer_by(oracle.reference_with(mistake), question)
        if row is None or same.accepts(right, row) or not np.isfinite(row).all():
            continue
        group = next((group for number, group in found if same.accepts(number, row)), None)
        if group is None:
            found.append((row, [mistake]))
        else:
            group.append(mistake)
    found.sort(key=lambda one: len(one[1]))
    return [Wrong(numbers_text(row), tuple(dict.fromkeys(one.says for one in group))) for row, group in found]


def numbers_text(numbers: Numbers) -> str:
    """Return an answer as it's written on paper.

    >>> numbers_text((12.0,)), numbers_text((0.69314718, -2.0, -0.0))
    ('12', '0.693147, -2, 0')
    """
    return ", ".join(f"{number + 0.0:.0f}" if number == round(number) else f"{number:.6g}" for number in numbers)


# -------------------------------------------------------------------------------------------------------------- pages


def write_exam(forms: Sequence[Form], name: str, folder: Path) -> list[Path]:
    """Write a page for each form, to print, and one with the key; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [(folder / f"form-{form.letter}.html", page("exam.html.j2", form=form, name=name)) for form in forms]
    made.append((folder / "key.html", page("exam_key.html.j2", forms=forms, name=name)))
    for path, text in made:
        path.write_text(text, "utf-8")
    return [path for path, _ in made]


def page(template: str, **shown: object) -> str:
    sheets = ("feedback/style.css", "class_report.css", "exam.css")
    style = "\n".join((TEMPLATES / one).read_text("utf-8") for one in sheets)
    return environment().get_template(template).render(
        style=Markup(style), style_hash=style_hash(style), **shown,  # noqa: S704  (our own)
    )  # fmt: skip


__all__ = ["Form", "Item", "Wrong", "make_exam", "write_exam"]
