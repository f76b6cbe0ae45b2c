"""The class report: numbers worked by hand, hostile names, a class of nobody and of one, and answers that are alike."""

import csv
import html.parser
import io
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from dateutil import tz
from ftgrade.authoring import build
from ftgrade.catalog import Catalog, home
from ftgrade.gradebook import late
from ftgrade.gradebook.steps import make_alembic_findable
from ftgrade.intake import language
from ftgrade.intake.forms import answer_forms, answer_parts, definitions, notebook_definitions
from ftgrade.intake.gate import MAX_WORDS
from ftgrade.intake.notebook import Finding, read_submission
from ftgrade.judging.report import CheckReport, Report
from ftgrade.pages import classreport, counts, pictures, similarity
from ftgrade.pages.arrivals import Arrivals, Span
from ftgrade.pages.counts import Row, class_rows, discrimination, summarise
from ftgrade.pages.roll import Roll
from ftgrade.pages.similarity import Echo, alike_pairs, echoes, similar_answers
from hypothesis import given
from hypothesis import strategies as st
from nbgrader.api import Gradebook

STEM, TITLE = "p03_lora_parameters", "Problem 3. Count LoRA parameters"
NO_TIMES = Arrivals()
HOSTILE = '"><script>alert(1)</script>'


def made(student: str, *statuses: str, stem: str = STEM, state: str = "graded", kinds: tuple[str, ...] = ()) -> Report:
    """Return a report whose checks a, b, c … give 1, 2, 3 … points."""
    checks = tuple(
        CheckReport(
            name, f"check {name}", f"f_{name}", points, points if status == "pass" else 0.0, status, 0, 1,
            mistake="no_gauge" if status == "wrong" else "",
            says="Your count is too large." if status == "wrong" else "",
        )
        for name, points, status in zip("abcdef", range(1, 7), statuses, strict=False)
    )  # fmt: skip
    findings = tuple(Finding(kind, f"words on {kind}") for kind in kinds)
    return Report(stem, student, state, "", "", 1, checks, findings)


class Page(html.parser.HTMLParser):
    """What a page holds: its tags in order with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def whole(*reports: Report, echoes: tuple[Echo, ...] | None = (), arrivals: Arrivals = NO_TIMES) -> str:
    """Return the page of a class with one problem, after a look at what every page must hold to."""
    text = classreport.class_report("a course", [summarise(STEM, TITLE, reports, echoes, arrivals)])
    demand_static(text)
    return text


def demand_static(text: str) -> None:
    """Demand a page that loads nothing, runs one script of ours, closes its tags and says every picture in words."""
    page = Page(text)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"img", "link", "iframe", "object", "form", "image", "foreignObject"}
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    for tag, attributes in page.tags:
        assert not any(name == "style" or name.startswith("on") for name in attributes), tag
        assert (attributes.get("href") or "#").startswith(("#", "class_report.csv", "feedback/", "http://localhost:"))
        assert tag != "svg" or (attributes["role"] == "img" and attributes["aria-label"])
    for name in ("style", "script"):
        found = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        assert found
        assert f"{name}-src '{classreport.style_hash(found[1])}';" in text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"] for tag, attributes in page.tags if tag == "use"} <= {f"#{name}" for name in ids}


# ------------------------------------------------------------------------------------------------------------- numbers


def test_the_numbers_of_a_class_of_four_are_those_worked_by_hand():
    reports = [
        made("ada", "pass", "pass", "pass"),  # 6 points
        made("bob", "pass", "wrong", "pass"),  # 4
        made("cyd", "pass", "wrong", "not-attempted"),  # 1
        made("dan", "unreadable", "unreadable", "unreadable", state="unreadable"),  # 0
        made("eve", "not-run", "not-run", "not-run", state="ours"),  # not known yet
    ]
    found = summarise(STEM, TITLE, reports)
    assert (found.scores, found.points, found.mean, found.median) == ((6, 4, 1, 0), 6, 11 / 4, 5 / 2)
    assert [(check.name, check.passed, check.students, check.difficulty) for check in found.checks] == [
        ("a", 3, 3, 1.0), ("b", 1, 3, 1 / 3), ("c", 2, 3, 2 / 3),
    ]  # fmt: skip
    assert [check.missed for check in found.checks] == ["", "wrong 2", "not attempted 1"]
    assert [check.discrimination for check in found.checks] == [None, None, None]  # three are too few
    assert [(one.check, one.name, one.says, one.students) for one in found.mistakes] == [
        ("b", "no_gauge", "Your count is too large.", 2)
    ]
    counts = [count for _, count in found.bins]
    assert counts == [1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1]  # 0, 1/6, 4/6 and 6/6 of the points


def test_discrimination_is_that_worked_by_hand():
    """Ten students, check a has 1 point, b 2: with r for a, t = 2 * (b right); five right in each, four in both.

    sum xt = 4 * 0.5 * 1 + 4 * 0.5 * 1 - 0.5 - 0.5 = 3, squares 2.5 and 10: r = 3 / 5.
    """
    both, only_a, only_b, none = ("pass", "pass"), ("pass", "wrong"), ("wrong", "pass"), ("wrong", "wrong")
    class_of_ten = [both] * 4 + [only_a, only_b] + [none] * 4
    found = summarise(STEM, TITLE, [made(f"s{place}", *statuses) for place, statuses in enumerate(class_of_ten)])
    assert [check.discrimination for check in found.checks] == [0.6, 0.6]


@pytest.mark.parametrize(
    ("right", "rest"),
    [([1] * 12, range(12)), ([0] * 12, range(12)), ([1, 0] * 6, [3] * 12), ([1, 0] * 4, range(8)), ([], [])],
    ids=["everybody", "nobody", "equal rests", "small class", "empty"],
)
def test_discrimination_is_not_defined_where_it_would_mean_nothing(right: list[float], rest: list[float]):
    assert discrimination(list(right), list(rest)) is None


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=10, max_size=40))
def test_discrimination_agrees_with_the_correction_of_the_item_total_correlation(right: list[list[bool]]):
    """r = (r_xT s_T - s_x) / sqrt(s_T^2 + s_x^2 - 2 r_xT s_x s_T), where T is the total with the check itself."""
    x = [float(row[0]) for row in right]
    total = [float(sum(row)) for row in right]
    got = discrimination(x, [t - a for t, a in zip(total, x, strict=True)])

    def covariance(a: list[float], b: list[float]) -> float:
        return sum(p * q for p, q in zip(a, b, strict=True)) / len(a) - sum(a) * sum(b) / len(a) ** 2

    s_x, s_total, s_both = covariance(x, x), covariance(total, total), covariance(x, total)
    if got is not None:
        assert got == pytest.approx((s_both - s_x) / math.sqrt(s_x * (s_total + s_x - 2 * s_both)), abs=6e-5)


def test_who_is_stuck_stands_under_every_reason():
    found = summarise(STEM, TITLE, [
        made("ada", "pass", "pass", "pass", "wrong"),
        made("bob", "not-attempted", "not-attempted", "not-attempted", "wrong"),
        made("cyd", "pass", "timeout", "not-attempted", "not-attempted"),
        made("dan", state="unreadable"),
        made("eve", "not-run", state="ours"),
    ])  # fmt: skip
    assert found.stuck == (
        ("nothing right", ("bob",)), ("several checks not attempted", ("bob",)), ("ran too long", ("cyd",)),
        ("no readable notebook", ("dan",)),
    )  # fmt: skip


def test_a_student_without_a_hand_in_or_stuck_twice_is_told_first():
    other = "p04_lora_update"
    summaries = [
        summarise(STEM, TITLE, [made("ada", "wrong"), made("bob", "wrong"), made("cyd", "pass")]),
        summarise(other, "Problem 4", [made("ada", "timeout", stem=other), made("cyd", "wrong", stem=other)]),
    ]
    assert counts.often_stuck(summaries, class_rows(summaries)) == [
        ("ada", ["p03: nothing right", "p04: nothing right, ran too long"]),
        ("bob", ["p03: nothing right", "p04: not handed in"]),
    ]


def test_students_stand_in_order_of_their_totals_and_the_class_s_is_told():
    other = "p04_lora_update"
    summaries = [
        summarise(STEM, TITLE, [made("ada", "pass"), made("bob", "pass", "pass"), made("cyd", state="unreadable")]),
        summarise(other, "Problem 4", [made("ada", "pass", "pass", stem=other)]),
    ]
    assert class_rows(summaries) == [
        Row("ada", ((1, False), (3, False))), Row("bob", ((3, False), None)), Row("cyd", ((0, True), None)),
    ]  # fmt: skip
    text = classreport.class_report("a course", summaries)
    demand_static(text)
    assert "of 18" in text  # three students, 3 points in each of two problems
    assert re.search(r"class, all points</th><td>4</td><td>3</td><td>7</td>", text)


def test_findings_stand_with_integrity_first_and_tell_whose():
    text = whole(
        made("ada", "pass", kinds=("unsandboxed", "same-number")),
        made("bob", "pass", kinds=("unsandboxed", "old-format")),
    )
    places = [text.index(kind) for kind in ("same-number", "unsandboxed", "old-format")]
    assert places == sorted(places)
    assert "<bdi>ada</bdi>, <bdi>bob</bdi>" in text[places[1] :]


# ------------------------------------------------------------------------------------------------- progress over time

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
NAMES = ("ada", "bob", "cyd", "dan", "eve")


def at(*hours: float, due: float | None = None) -> Arrivals:
    """Return the hand-ins of ada, bob … at these hours of 1 December 2026, in UTC."""
    times = [NOON + timedelta(hours=hour - 12) for hour in hours]
    return Arrivals(dict(zip(NAMES, times, strict=False)), None if due is None else NOON + timedelta(hours=due - 12))


def test_hand_ins_over_time_are_those_worked_by_hand():
    """Of four, due at 20 h: at 10, 12, 12:30 and 30 h; half had come at 12 h, and one was late."""
    came = at(12.5, 10, 30, 12, due=20)
    assert (came.half, came.late) == (NOON, 1)
    assert [so_far for _, so_far in came.steps] == [1, 2, 3, 4]
    assert came.spans == [
        Span("2026-12-01 10:00 UTC", 1, 1, 0), Span("2026-12-01 12:00 UTC", 2, 3, 0),
        Span("2026-12-02 06:00 UTC", 1, 4, 1),
    ]  # fmt: skip
    assert at(12, 70).spans == [Span("2026-12-01", 1, 1, 0), Span("2026-12-03", 1, 2, 0)]  # by the day: over two days


@given(st.lists(st.integers(0, 99), min_size=1, max_size=40))
def test_hand_ins_never_fall_and_end_with_everybody(hours: list[int]):
    came = Arrivals({str(number): NOON + timedelta(hours=hour) for number, hour in enumerate(hours)})
    heights = [so_far for _, so_far in came.steps]
    assert heights == sorted(set(heights))
    assert (len(heights), heights[-1]) == (len(set(hours)), len(hours))
    assert sum(span.count for span in came.spans) == came.spans[-1].so_far == len(hours)


def test_an_hour_that_a_clock_strikes_twice_is_told_as_two():
    """In Berlin, 02:30 on 25 October 2026 comes at 00:30 UTC, and again at 01:30 UTC."""
    berlin = tz.gettz("Europe/Berlin")
    times = [datetime(2026, 10, 25, hour, 30, tzinfo=UTC).astimezone(berlin) for hour in (1, 0)]
    came = Arrivals(dict(zip(NAMES, times, strict=False)), times[1])
    assert [span.name for span in came.spans] == ["2026-10-25 02:00 CEST", "2026-10-25 02:00 CET"]
    assert (came.late, [so_far for _, so_far in came.steps]) == (1, [1, 2])


def test_the_page_tells_when_work_came_in_in_words_a_plot_and_a_table():
    text = whole(*(made(name, "pass") for name in NAMES), arrivals=at(10, 12, 14, 30, due=20))
    told = "Half of 4 had handed in by 2026-12-01 12:00 UTC; 1 came after the due date, 2026-12-01 20:00 UTC"
    assert f"<b>{told}.</b>" in text
    assert f'aria-label="{told}"' in text
    assert text.count("stroke-dasharray") == 2  # of the class, and of the problem
    assert "1 of 5 tell no time and are left out." in text
    row = text.partition("2026-12-02 06:00 UTC</th>")[2].partition("</tr>")[0]
    assert re.findall(r">(\d+)<", row) == ["1", "1", "4"]
    assert "<code>timestamp.txt</code>" in text


def test_without_a_due_date_none_is_drawn_and_nobody_is_late():
    text = whole(made("ada", "pass"), made("bob", "pass"), arrivals=at(10, 12))
    assert "Half of 2 had handed in by 2026-12-01 10:00 UTC." in text
    assert "stroke-dasharray" not in text
    assert "due date" not in text.replace("Late is counted here from the due date", "")


@pytest.mark.parametrize("arrivals", [Arrivals(), Arrivals(due=NOON), Arrivals({"someone": NOON})], ids=str)
def test_where_no_time_is_known_the_page_says_so_and_draws_nothing(arrivals: Arrivals):
    text = whole(made("ada", "pass"), arrivals=arrivals)
    assert "Nobody knows when: the gradebook holds no time of these submissions" in text
    assert f"{STEM}-pace" not in text
    assert "When work came in, as a table" not in text


def test_one_hand_in_is_told():
    text = whole(made("ada", "pass"), arrivals=at(10))
    assert "The one hand-in came at 2026-12-01 10:00 UTC." in text


@pytest.mark.filterwarnings("ignore:Object of type <Submitted:sqlalchemy.exc.SAWarning")  # nbgrader's own
def test_times_come_from_the_gradebook_in_the_course_s_zone(tmp_path: Path):
    """A time stamp is a student's file: the very first and last moments of the calendar must not stop a class."""
    stored = {"ada": datetime(2026, 12, 1, 11), "bob": None, "cyd": datetime.min, "dan": datetime.max}
    make_alembic_findable()
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        gradebook.add_assignment(STEM)
        for student, time in stored.items():
            gradebook.add_student(student)
            gradebook.add_submission(STEM, student, timestamp=time)
        berlin, honolulu = (late.hand_in_times(gradebook, STEM, zone) for zone in ("Europe/Berlin", "Pacific/Honolulu"))
    assert set(berlin) == {"ada", "cyd"}
    assert set(honolulu) == {"ada", "dan"}
    assert berlin["ada"] == honolulu["ada"] == NOON - timedelta(hours=1)
    assert berlin["ada"].isoformat() == "2026-12-01T12:00:00+01:00"
    for times in (berlin, honolulu):
        assert "had handed in by" in whole(*(made(name, "pass") for name in times), arrivals=Arrivals(times))


# --------------------------------------------------------------------------------------------------- the page, the CSV


def test_hostile_names_are_text_on_the_page_and_no_formula_in_the_csv(tmp_path: Path):
    names = [HOSTILE, "=HYPERLINK(1)", "\u202egnp", "{{ 7 * 7 }}", "x" * 5_000, "caf\udce9", "a,b\n\"c'"]
    echo = Echo("f_a", (HOSTILE, "{{ 7 * 7 }}"), (), 1.0, 90, 2, 12)
    reports = [made(name, "wrong", "not-attempted", kinds=(HOSTILE,)) for name in names]
    page = whole(*reports, echoes=(echo,))
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    drawn = r"<style>.*?</style>|<script>.*?</script>|<svg.*?</svg>|sha256-\S+"
    assert "49" not in re.sub(drawn, "", page, flags=re.DOTALL)
    assert not any("alert" in picture or "HYPERLINK" in picture for picture in re.findall(r"(?s)<svg.*?</svg>", page))
    classreport.write_class_report(tmp_path / "class_report.html", HOSTILE, [summarise(STEM, TITLE, reports, [echo])])
    demand_static((tmp_path / "class_report.html").read_text("utf-8"))
    with (tmp_path / "class_report.csv").open(encoding="utf-8", newline="") as file:
        found = [row["student"] for row in csv.DictReader(file)]
    long = "x" * (MAX_WORDS - 1) + "…"
    assert found[::2] == [HOSTILE, "'=HYPERLINK(1)", "\ufffdgnp", "{{ 7 * 7 }}", long, "caf\ufffd", "a,b␊\"c'"]


def test_the_csv_holds_a_row_for_each_student_and_check():
    text = classreport.class_csv([
        summarise(STEM, TITLE, [made("ada", "pass", "wrong"), made("bob", "not-run", state="ours"),
                                made("cyd", state="ours")], arrivals=at(10))
    ])  # fmt: skip
    assert [list(row.values()) for row in csv.DictReader(io.StringIO(text))] == [
        ["ada", STEM, "a", "pass", "1", "1", "", "2026-12-01T10:00:00+00:00"],
        ["ada", STEM, "b", "wrong", "0.0", "2", "no_gauge", "2026-12-01T10:00:00+00:00"],
        ["bob", STEM, "a", "ours", "0.0", "1", "", ""],
        ["cyd", STEM, "", "ours", "0.0", "0.0", "", ""],
    ]


def test_an_empty_class_is_said_to_be_empty(tmp_path: Path):
    for summaries in ([], [summarise(STEM, TITLE, [])]):
        text = classreport.class_report("a course", summaries)
        demand_static(text)
        assert "Nothing was handed in yet." in text
    classreport.write_class_report(tmp_path / "class_report.html", "a course", [])
    assert (tmp_path / "class_report.csv").read_text().count("\n") == 1
    assert summarise(STEM, TITLE, []).mean is None


def test_a_class_of_one_has_scores_and_no_correlation():
    text = whole(made("ada", "pass", "wrong"))
    assert "1 student, 1 problem." in text
    assert text.count("not defined") == 2
    assert "Your count is too large." in text


def test_a_class_that_only_the_grader_failed_has_no_mean():
    text = whole(made("ada", state="ours", kinds=("ours",)))
    assert '<td class="number">–</td>' in text


def test_who_a_student_is_and_where_a_mark_leads_stand_in_the_maps():
    roll = Roll(
        {"ada": "Ada <b>Lovelace"}, {"ada": "Group 1"}, frozenset({("ada", STEM)}), {("ada", STEM): "f00"},
        {(STEM, "b"): 3}, "http://localhost:8888",
    )  # fmt: skip
    reports = [made("ada", "pass", "wrong"), made("bob", "pass", "not-attempted")]
    text = classreport.class_report("a course", [summarise(STEM, TITLE, reports)], roll=roll)
    demand_static(text)
    page = f"feedback/ada/{STEM}/{STEM}.html"
    assert f'<td class="h3"><a href="{page}">1</a></td>' in text  # 1 of 3 points, in the map of problems
    box = "http://localhost:8888/formgrader/submissions/f00/?index=3#b"
    assert f'<td class="h0" title="wrong"><a href="{box}">0</a></td>' in text
    assert '<td class="h0" title="not attempted">–</td>' in text  # bob has no submission that a link could lead to
    assert text.count('data-section="Group 1"') == 2
    assert f'<a href="{page}"><bdi>Ada &lt;b&gt;Lovelace</bdi></a> <small class="id"><bdi>ada</bdi></small>' in text
    assert text.count(f'<a href="{page}"><bdi>') == 2  # in the map of checks, and beside the sentence


def test_a_map_stands_in_the_order_of_points_with_every_student_and_check():
    text = whole(made("ada", "wrong", "pass"), made("bob", "pass", "pass"), made("cyd", state="unreadable"))
    rows = text.partition('<table class="map people">')[2].partition("</tbody>")[0]
    assert re.findall(r"<bdi>(\w+)</bdi>", rows) == ["bob", "ada", "cyd"]
    rows = text.partition("Points by student and check")[2].partition("</tbody>")[0]
    assert re.findall(r"<bdi>(\w+)</bdi>", rows) == ["bob", "ada", "cyd"]
    assert re.findall(r'<td class="h\d+" title="[^"]*">', rows) == [
        '<td class="h10" title="right">', '<td class="h10" title="right">',
        '<td class="h0" title="wrong">', '<td class="h10" title="right">',
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ pictures


def a_class(size: int = 12) -> str:
    """Return the page of a class that has every kind of picture."""
    kinds = [("pass", "wrong", "timeout"), ("pass", "pass", "pass"), ("wrong", "pass", "not-attempted")]
    names = [f"s{number:02}" for number in range(size)]
    came = Arrivals({name: NOON + timedelta(hours=place) for place, name in enumerate(names)}, NOON)
    return whole(*(made(name, *kinds[place % 3]) for place, name in enumerate(names)), arrivals=came)


def test_equal_classes_have_equal_bytes():
    assert a_class() == a_class()


def test_a_class_opens_with_five_pictures_and_each_problem_with_its_own():
    labels = re.findall(r'<svg viewBox="[^"]*" class="picture" role="img" aria-label="([^"]*)"', a_class())
    assert len(labels) == 5 + 3
    assert labels[0].startswith("How many students have how much of the points. Lowest mean: p03")
    assert labels[1] == "How many had handed in by when. 11 of 12 came after the due date, the dashed line"
    assert labels[2] == "Who is stuck, and where: most in p03. A student may count under two reasons"
    assert labels[3] == "The mistakes that most students made, of 1 that were named"
    assert labels[4].endswith("discriminate below 0.1")


def test_a_picture_takes_its_colours_from_the_page_and_carries_no_style():
    shown = pictures.bars_picture("bars", [pictures.Bar("p03 $x$ <b>", 3)], "three").svg
    assert "style" not in shown
    assert not re.search(r"#0[0-9]{5}", shown)
    assert "p03 $x$ &lt;b&gt;" in shown
    assert set(re.findall(r'(?:fill|stroke)-(\w+)"', shown)) >= {"ink", "good", "line"}


def test_a_user_s_own_settings_of_matplotlib_change_no_picture(monkeypatch: pytest.MonkeyPatch):
    import matplotlib as mpl

    plain = pictures.bars_picture("bars", [pictures.Bar("a", 3)], "three")
    monkeypatch.setitem(mpl.rcParams, "font.size", 30)
    monkeypatch.setitem(mpl.rcParams, "axes.grid", True)
    assert pictures.bars_picture("bars", [pictures.Bar("a", 3)], "three") == plain


def test_long_lists_of_names_are_folded_and_everybody_is_called_so():
    names = [f"s{number:02}" for number in range(20)]
    text = whole(*(made(name, "pass" if name < "s15" else "wrong", kinds=("unsandboxed",)) for name in names))
    assert "everybody (20)" in text
    many = whole(*(made(name, "pass" if name > "s15" else "wrong") for name in names))
    assert "<summary>16 students</summary>" in many


# ------------------------------------------------------------------------------------------------------------ likeness

COUNT = '''
def count(shapes, targets, layers, rank=4):
    """Return a count."""
    total: int = 0
    for name in targets:
        if name not in shapes:
            raise ValueError(f"target {name} is unknown")
        d_out, d_in = shapes[name]
        total += layers * rank * (d_out + d_in)  # both factors
    if total > 10 ** 6 and layers > 3 or len(shapes) == 0:
        print("large", total / 10 ** 6, max(shapes))
    return int(total)
'''
RENAMED = """
%matplotlib inline
def count(blocks: dict, wanted: list, depth: int, rank: int = 4) -> int:
    "Somebody else's words."
    pass
    s = 0
    for one in wanted:
        if one not in blocks: raise ValueError(f"target {one} is unknown")
        a, b = blocks[one]
        s += depth * rank * (a + b)
    if s > 10 ** 6 and depth > 3 or len(blocks) == 0:
        print("large", s / 10 ** 6, max(blocks))
    return int(s)
"""
NEAR = COUNT.replace("return int(total)", "total = total\n    return int(total)")
OTHER = (
    "def count(shapes, targets, layers, rank=4):\n    return sum("
    + " + ".join(f"len(shapes) * {n}" for n in range(25))
    + ")"
)


def form(source: str, function: str = "count") -> tuple[str, ...]:
    return answer_parts(function, definitions(source))


def other(number: int) -> str:
    """Return an answer of a length of its own, unlike any with another number."""
    return f"def count(a):\n    return [{', '.join(f'{number}.{place}' for place in range(90 + number))}]"


def test_names_comments_docstrings_and_annotations_make_no_difference():
    assert form(COUNT) == form(RENAMED)
    assert form(COUNT) != form(NEAR)
    assert form(COUNT) != form(COUNT.replace("d_out + d_in", "d_out * d_in"))
    assert form(COUNT) != form(COUNT.replace("layers * rank", "rank * layers"))
    assert len(form(COUNT)) >= similarity.LONG_ENOUGH


def test_a_line_that_opens_with_a_remainder_is_no_magic():
    assert form("def count(a, b):\n    return (a\n% b)") == form("def count(a, b): return a % b")


def test_names_that_an_answer_does_not_bind_stay():
    assert form("def count(a): return min(a)") == form("def count(b): return min(b)")
    assert form("def count(a): return min(a)") != form("def count(a): return max(a)")


def test_a_student_s_own_helpers_belong_to_the_answer():
    whole = "def helper(x): return x + 1\ndef count(a): return helper(a)"
    assert form(whole) == form("def aid(y): return y + 1\ndef count(b): return aid(b)")
    assert form(whole) != form("def helper(x): return x - 1\ndef count(a): return helper(a)")
    assert form("def a(n): return b(n)\ndef b(n): return a(n)", "a")  # a circle ends


@pytest.mark.parametrize(
    "source",
    ["def f(:", "def f(): return '\\d'\0", "def f(): return " + "(" * 300, "def f(): return " + "-" * 19_000 + "1",
     "def f(): return 1" + "+1" * 9_000, "f = 3", "\ud800 def "],
    ids=["syntax", "null", "deep", "unary", "sum", "no def", "surrogate"],
)  # fmt: skip
def test_what_cannot_be_parsed_is_no_answer_and_no_error(source: str):
    assert form(source, "f") == ()


@pytest.mark.parametrize(
    "source",
    ["def f(): return 0x" + "f" * 9_000, "def f(): return 1" + "<1" * 9_000,
     "def f(): return " + "lambda:" * 2_000 + "1",
     "\n".join(f"def f{n or ''}(): return f{n + 1}()" for n in range(700))],
    ids=["huge integer", "chain of comparisons", "nested lambdas", "chain of helpers"],
)  # fmt: skip
def test_what_is_odd_but_python_is_an_answer(source: str):
    assert form(source, "f")


@pytest.mark.parametrize("line", ["a=!x", "a = %x", "x?", "%x", "!x"])
def test_a_cell_of_many_magics_is_not_read_anew_for_each(line: str, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    reader = SimpleNamespace(transform_cell=lambda text: read.append(text) or text)
    monkeypatch.setattr(language, "transformer", lambda: reader)
    for lines in (20, 2_000):
        language.as_python("# 1 def (\n" + f"{line}\n" * lines)
    assert [text.count(line) for text in read] == [20]


def test_a_notebook_is_parsed_within_bounds(hand_in: Callable[..., Path]):
    filler = "def filler(): return '" + "x" * 19_000 + "'"
    long = "def long(): return '" + "x" * 21_000 + "'"
    cells = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "source": text}
        for text in ("def first(): pass", long, *[filler] * 6, "def last(): " + "pass;" * 1_500)
    ]
    path = hand_in("ada", STEM, data=json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    assert set(notebook_definitions(read_submission(path).cells)) == {"first", "filler"}


def test_very_long_answers_are_told_only_if_they_are_the_same():
    lines = "\n".join(f"    a = a + {n} * a" for n in range(400))
    long = f"def count(a):\n{lines}\n    return a"
    near = {"ada": form(long), "bob": form(long.replace("return a", "return a + 1"))}
    rest = {f"s{number}": form(other(number)) for number in range(18)}
    assert len(near["ada"]) > similarity.MAX_COMPARED
    assert echoes("count", {**near, **rest}) == []
    assert [echo.students for echo in echoes("count", {**near, **rest, "cyd": near["ada"]})] == [("ada", "cyd")]


def test_the_same_answer_of_two_is_told_and_that_of_many_is_not():
    rest = {f"s{number}": form(other(number)) for number in range(18)}
    [found] = echoes("count", {"ada": form(COUNT), "bob": form(RENAMED), **rest})
    assert found == Echo("count", ("ada", "bob"), (), 1.0, len(form(COUNT)), 2, 20)
    many = {f"t{number}": form(COUNT) for number in range(5)}
    assert echoes("count", {**many, **rest}) == []


def test_nearly_the_same_answer_is_told_with_how_near():
    rest = {f"s{number}": form(other(number)) for number in range(18)}
    [found] = echoes("count", {"ada": form(COUNT), "bob": form(NEAR), **rest})
    assert (found.students, found.others, found.near, found.of) == (("ada",), ("bob",), 2, 20)
    short, long = len(form(COUNT)), len(form(NEAR))
    assert found.likeness == round(2 * short / (short + long), 3)  # a line more is all that differs


def test_short_answers_and_small_classes_are_not_compared():
    short = {f"s{number}": form("def count(a, b): return a * b + a") for number in range(2)}
    rest = {f"t{number}": form(other(number)) for number in range(18)}
    assert echoes("count", {**short, **rest}) == []
    assert echoes("count", {"ada": form(COUNT), "bob": form(COUNT), **dict(list(rest.items())[:7])}) == []


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), max_size=8))
def test_looking_only_at_fitting_lengths_misses_no_pair(forms: list[list[str]]):
    texts = sorted((tuple(one) for one in forms), key=len)

    def common(a: tuple[str, ...], b: tuple[str, ...]) -> int:
        """Return the length of the longest common subsequence, by the book."""
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, p in enumerate(a):
            for j, q in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if p == q else max(table[i][j + 1], table[i + 1][j])
        return table[-1][-1]

    likeness = {
        (i, j): 2 * common(texts[i], texts[j]) / (len(texts[i]) + len(texts[j]))
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
    }
    wanted = {pair: value for pair, value in likeness.items() if value >= similarity.ALIKE - 1e-9}
    got = {(i, j): value for i, j, value in alike_pairs(texts)}
    assert got == pytest.approx(wanted, abs=1e-3)


def test_answers_are_read_from_notebooks_and_what_was_handed_out_takes_no_part(
    catalog: Catalog, hand_in: Callable[..., Path]
):
    right = catalog.leaves(STEM).solution.read_text("utf-8")
    stub = catalog.leaves(STEM).notebook
    notebooks = {name: hand_in(name, STEM, answers=right) for name in ("ada", "bob")}
    for number in range(10):
        functions = other(number).replace("count", "low_rank_dof")
        document = json.loads(stub.read_text("utf-8"))
        document["cells"].append({"cell_type": "code", "metadata": {}, "outputs": [], "source": functions})
        notebooks[f"s{number}"] = hand_in(f"s{number}", STEM, data=json.dumps(document))
    judged = {name: read_submission(path).cells for name, path in notebooks.items()} | {"broken": (), "nothing": ()}
    functions, given = ["low_rank_dof", "lora_model_params"], read_submission(stub).cells
    forms = {name: answer_forms(cells, functions, given) for name, cells in judged.items()}
    found = similar_answers(forms.items(), functions)
    assert [(one.function, one.students, one.of) for one in found] == [("low_rank_dof", ("ada", "bob"), 12)]


def test_nothing_of_a_notebook_is_run(hand_in: Callable[..., Path], tmp_path: Path):
    mark = tmp_path / "was_run"
    source = f"open({str(mark)!r}, 'w')\n@print\ndef low_rank_dof(a=open({str(mark)!r}, 'w')): pass\n"
    path = hand_in("ada", STEM, data=build.filled_notebook(home(), STEM, ""))
    document = json.loads(path.read_text("utf-8"))
    document["cells"].append({"cell_type": "code", "metadata": {}, "outputs": [], "source": source})
    path.write_text(json.dumps(document))
    assert "low_rank_dof" in notebook_definitions(read_submission(path).cells)
    assert not mark.exists()


def test_pairs_that_recur_are_told_once_with_where():
    first = summarise(STEM, TITLE, [made("ada", "pass")], [
        Echo("f", ("ada", "bob"), (), 1.0, 90, 2, 20), Echo("f", ("ada",), ("bob",), 0.95, 90, 2, 20),
        Echo("g", ("bob",), ("ada",), 0.93, 90, 2, 20), Echo("h", ("cyd", "dan"), (), 1.0, 90, 2, 20),
    ])  # fmt: skip
    assert counts.recurring_pairs([first]) == [(("ada", "bob"), ["p03 f", "p03 g"])]
