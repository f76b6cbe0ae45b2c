"""Plans of 5, 10 and 15 weeks from the minutes that the parts, their exercises and the graded problems name."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftgrade.authoring.lessons import part_of, read_stubs
from ftgrade.catalog import Catalog
from ftgrade.errors import AuthorFault

ABOUT = re.compile(r"About (\d+) minutes")
HEAD = """# Plans for a term

Written by `ftgrade build` from the minutes that the notebooks name. *Hours* are a student's: reading the theory with
its predictions, all exercises, and the graded problems that are due. A problem is due a week after its part was read.
"""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A part: its title, the minutes of its theory and of its exercises, and its problems with theirs."""

    number: int
    title: str
    theory: int
    exercises: int
    problems: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Week:
    reads: tuple[Lesson, ...]
    due: tuple[tuple[str, int], ...]
    meets_for: str = ""

    @property
    def hours(self) -> float:
        minutes = sum(one.theory + one.exercises for one in self.reads) + sum(minutes for _, minutes in self.due)
        return minutes / 60


# ------------------------------------------------------------------------------------------------------------- reading


def read_lessons(catalog: Catalog) -> list[Lesson]:
    """Return the parts in order. Raises AuthorFault for a theory that names no minutes."""
    due: dict[int, list[tuple[str, int]]] = {}
    for stem in [*catalog.stems(), *catalog.projects()]:
        part, minutes = minutes_of(catalog.leaves(stem).problem)
        name = stem.replace("_", " ") if stem in catalog.projects() else stem.partition("_")[0]
        due.setdefault(part, []).append((name, minutes))
    found: list[Lesson] = []
    for master in sorted(catalog.course_text()):
        number = part_of(master)
        if master.stem != "theory" or number is None:
            continue
        text = re.sub(r"\n# ?", " ", master.read_text("utf-8"))
        about, title = ABOUT.search(text), re.search(r"# Part \d+: (.+?)  ", text)
        if about is None or title is None:
            raise AuthorFault(f"{master}: its first cell must say `# Part N: title` and `About N minutes`")
        stubs = read_stubs(catalog.root / "course" / "ftmath" / "exercises" / f"part{number:02}.py")
        exercises = sum(stub.minutes for stub in stubs.values())
        found.append(Lesson(number, title[1].strip(), int(about[1]), exercises, tuple(due.get(number, ()))))
    return found


def minutes_of(problem: Path) -> tuple[int, int]:
    """Return the part and the minutes that a problem's file names, read without running it."""
    for node in ast.walk(ast.parse(problem.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Problem", "Project"):
            words = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            if "part" in words and "minutes" in words:
                return int(str(words["part"])[:2]), int(str(words["minutes"]))
    raise AuthorFault(f"{problem.name} must name its part and its minutes where it makes its Problem")


# ------------------------------------------------------------------------------------------------------------ planning


def five_weeks(lessons: Sequence[Lesson]) -> list[Week]:
    """Two parts a week; a part's problems are due a week later, the last ones in an examination week."""
    pairs = [tuple(lessons[start : start + 2]) for start in range(0, len(lessons), 2)]
    return weeks_of(pairs)


def ten_weeks(lessons: Sequence[Lesson]) -> list[Week]:
    return weeks_of([(one,) for one in lessons])


def fifteen_weeks(lessons: Sequence[Lesson]) -> list[Week]:
    """One part a week, and after each two a week without a new one: solutions are discussed, and answers defended."""
    weeks: list[Week] = []
    for start in range(0, len(lessons), 2):
        first, *more = lessons[start : start + 2]
        weeks.append(Week((first,), ()))
        weeks += [Week((one,), first.problems) for one in more]
        last = more[-1] if more else first
        weeks.append(Week((), last.problems, "a workshop on the problems that were handed in"))
    return weeks


def weeks_of(reads: Sequence[tuple[Lesson, ...]]) -> list[Week]:
    """Return weeks that read these parts, each with the problems of the week before, and one more for the last."""
    due = [tuple(problem for one in parts for problem in one.problems) for parts in reads]
    weeks = [Week(parts, before) for parts, before in zip(reads, [(), *due[:-1]], strict=True)]
    return [*weeks, Week((), due[-1], "the examination")]


def plan_lines(title: str, weeks: Sequence[Week]) -> Iterator[str]:
    """Yield a plan as a table."""
    yield from ("", f"## {title}", "", "| week | read and practise | due | hours |", "| ---: | --- | --- | ---: |")
    for number, week in enumerate(weeks, 1):
        reads = "; ".join(f"part {one.number}, {one.title}" for one in week.reads) or week.meets_for
        due = ", ".join(name for name, _ in week.due)
        yield f"| {number} | {reads} | {due} | {week.hours:.1f} |"


def plans_page(catalog: Catalog) -> str:
    """Return `docs/plans.md`."""
    lessons = read_lessons(catalog)
    total = sum(Week((one,), one.problems).hours for one in lessons)
    plans = {
        "Five weeks, and one for the examination": five_weeks(lessons),
        "Ten weeks, and one for the examination": ten_weeks(lessons),
        "Fifteen weeks, a third of them workshops": fifteen_weeks(lessons),
    }
    tables = "\n".join(line for name, weeks in plans.items() for line in plan_lines(name, weeks))
    return (
        f"{HEAD}The whole course takes a student about {total:.0f} hours.\n{tables}\n\n"
        "`ftgrade exam` writes the examination in parallel forms, from the problems' own personal questions.\n"
    )


__all__ = ["plans_page", "read_lessons"]
