"""Plans of a term: every part is read once, every problem is due once and after its part."""

from collections.abc import Callable, Sequence

import pytest
from ftgrade.authoring.plans import Lesson, Week, fifteen_weeks, five_weeks, plans_page, read_lessons, ten_weeks
from ftgrade.catalog import home

LESSONS = read_lessons(home())


@pytest.mark.parametrize(("plan", "count"), [(five_weeks, 6), (ten_weeks, 11), (fifteen_weeks, 15)])
def test_every_part_is_read_once_and_every_problem_is_due_once_and_later(
    plan: Callable[[Sequence[Lesson]], list[Week]], count: int
):
    weeks = plan(LESSONS)
    assert len(weeks) == count
    read = {one.number: week for week, each in enumerate(weeks) for one in each.reads}
    due = {problem: week for week, each in enumerate(weeks) for problem in each.due}
    assert sorted(read) == [one.number for one in LESSONS]
    assert all(due[problem] == read[one.number] + 1 for one in LESSONS for problem in one.problems)
    assert sum(len(each.due) for each in weeks) == len(due) == len(home().stems()) + len(home().projects())


def test_the_hours_of_a_plan_are_those_of_the_course():
    whole = sum(one.theory + one.exercises + sum(minutes for _, minutes in one.problems) for one in LESSONS) / 60
    for plan in (five_weeks, ten_weeks, fifteen_weeks):
        assert sum(week.hours for week in plan(LESSONS)) == pytest.approx(whole)
    assert f"about {whole:.0f} hours" in plans_page(home())


def test_the_front_door_tells_the_hours_of_the_notebooks():
    front = (home().root / "course" / "text" / "index.py").read_text("utf-8")
    theory, exercises = ([getattr(one, kind) for one in LESSONS] for kind in ("theory", "exercises"))
    assert f"{min(theory)} to {max(theory)} minutes for its theory" in front
    assert f"{min(exercises)} to {max(exercises)} for its" in front
