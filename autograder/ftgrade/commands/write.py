"""The commands of a problem's author: write its three leaves, build its notebook, measure its hidden tests."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ftgrade.catalog import Catalog, home
from ftgrade.commands.command import STEM, STEMS, Done, argument, at_least_one, chosen, command, one_of
from ftgrade.errors import CourseFault

if TYPE_CHECKING:
    from ftgrade.commands.terminal import Out


@command("write the three leaves of a next problem", argument("slug", help="its name, such as dora_magnitude"))
def new(out: "Out", slug: str) -> Done:
    from ftgrade.authoring import build

    catalog = home()
    paths = build.new_problem(catalog, slug)
    names, stem = [str(path.relative_to(catalog.root)) for path in paths], paths[0].stem
    out.line(
        *(f"wrote {name}" for name in names),
        f"wrote five broken submissions to tests/submissions/{stem}",
        f"Fill them in, run `ftgrade build`, then `ftgrade audit {stem[:3]}`; CONTRIBUTING.md shows it.",
    )
    return Done({"wrote": names})


@command(
    "make the notebooks from their masters",
    argument("--check", action="store_true", help="change nothing; fail if a notebook is stale"),
)
def build(out: "Out", check: bool, manual: Callable[[], str]) -> Done:
    """Make the built files, among them the page of commands, whose text is `manual()`."""
    from ftgrade.authoring import build
    from ftgrade.authoring.plans import plans_page

    catalog = home()
    docs = catalog.root / "docs"
    more = {docs / "commands.md": manual(), docs / "plans.md": plans_page(catalog)}
    paths = build.stale_files(catalog, more) if check else build.build(catalog, more)
    changed = [str(path.relative_to(catalog.root)) for path in paths]
    out.line(
        *(
            f"stale: {path.relative_to(catalog.root)}" if check else build.describe_written(catalog, path)
            for path in paths
        )
    )
    if check and paths:
        out.line("These files differ from what their masters give: edit the masters and run `ftgrade build`.")
    else:
        out.line(f"{len(build.built_files(catalog, more))} built files are up to date.")
    return Done({"changed": changed}, needs_a_person=bool(check and paths))


@command(
    "put a Python file's functions into a problem's notebook",
    STEM,
    argument("answers", type=Path, help="the Python file"),
    argument("-o", "--output", type=Path, required=True, help="the notebook to write"),
    json=False,
)
def fill(out: "Out", stem: str, answers: Path, output: Path) -> Done:
    from ftgrade.authoring import build

    catalog = home()
    try:
        text = build.filled_notebook(catalog, catalog.stem(stem), answers.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise CourseFault(f"{answers} isn't text in UTF-8, save it so: {error}") from None
    except SyntaxError as error:
        raise CourseFault(f"{answers}, line {error.lineno}: it isn't Python, {error.msg}") from None
    output.write_text(text, "utf-8")
    out.line(f"wrote {output}")
    return Done({"wrote": str(output)})


@command(
    "measure the hidden tests: what they catch, what they cost",
    STEMS,
    argument("-j", "--workers", type=at_least_one, default=os.cpu_count() or 1, help="problems audited at once"),
    one_of(
        argument("--check", action="store_true", help="change nothing; fail if the README's table is stale"),
        argument(
            "--stability", action="store_true", help="grade one class in many ways, and compare the stored reports"
        ),
    ),
)
def audit(out: "Out", stems: list[str], workers: int, check: bool, stability: bool) -> Done:
    from ftgrade.authoring import audit

    catalog = home()
    problems = chosen(catalog, stems)
    if stability:
        return compare_ways(out, catalog, problems)
    with out.board() as bars:
        bar = bars.add_task("auditing", total=len(problems))
        audits = audit.audit(catalog, problems, workers, lambda: bars.advance(bar))
    columns = ("problem", "promises", "mistakes", "mutants", "equivalent", "accepted", "median cost", "hidden calls")
    rows = [
        (one.stem[:3], *(cell.strip() for cell in one.row.strip("|").split("|")[1:]), f"{one.milliseconds:.0f} ms")
        for one in audits
    ]
    out.table("What the hidden tests catch", columns, rows)
    for one in audits if stems else ():
        columns = ("promise", "cases", "slips", "break nothing else")
        rows = [(kept.name, str(kept.cases), str(len(kept.slips)), str(kept.alone)) for kept in one.ledger.entries]
        out.table(f"The promises of {one.stem}", columns, rows)
    troubles = [line for one in audits for line in one.troubles]
    readme = catalog.root / "README.md"
    text = readme.read_text("utf-8")
    if audits and not stems and audit.replace_table(text, audits) != text:
        if check:
            troubles.append("README.md: the table is stale; run `ftgrade audit`")
        else:
            readme.write_text(audit.replace_table(text, audits), "utf-8")
            out.line("wrote the table of README.md")
    out.line(*troubles)
    document = {"problems": [asdict(one) for one in audits], "troubles": troubles}
    return Done(document, needs_a_person=bool(troubles))


def compare_ways(out: "Out", catalog: Catalog, problems: list[str]) -> Done:
    """Grade one class in many ways; what is stored must be the same bytes, and no right answer may lose a point."""
    from ftgrade.classroom import stability

    with out.board() as bars:
        bar = bars.add_task("grading", total=len(stability.WAYS))
        found = stability.compare_ways(catalog, problems, lambda: bars.advance(bar))
    rows = [
        (one.way.name, one.skipped or str(one.reports), str(len(one.differ)), str(len(one.wronged))) for one in found
    ]
    out.table("One class, graded in many ways", ("way", "reports", "differ", "right ones that lost a point"), rows)
    for one in found:
        for secret, stem, student in one.differ:
            out.line(f"{one.way.name}: {stem}, {student}, secret {secret + 1}: not what {found[0].way.name} gave")
        for secret, stem, student in one.wronged:
            out.line(f"{one.way.name}: {stem}, {student}, secret {secret + 1}: a right answer lost a point")
    document = {"ways": [asdict(one) for one in found]}
    return Done(document, needs_a_person=any(one.differ or one.wronged for one in found))
