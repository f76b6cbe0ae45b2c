"""The command line as a newcomer meets it, and as a program reads it."""

import argparse
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ftgrade.catalog import home
from ftgrade.commands import cli, days, exam, learn, live, teach, write
from ftgrade.commands.command import Command, Done, argument, command
from ftgrade.commands.terminal import Board, Out, table
from rich.console import Console

CATALOG = home()
RIGHT = CATALOG.submissions("p03_lora_parameters", "accepted")[0]
COMMANDS = [one for group in cli.GROUPS.values() for one in group]


def test_help_needs_nothing_of_what_grading_needs():
    look = (
        "import sys\nfrom ftgrade.commands import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(name for name in ('torch', 'nbgrader', 'numpy', 'rich') if name in sys.modules))"
    )
    finished = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=120, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command_once_in_a_group_and_every_exit_code():
    top, parsers = cli.make_parsers()
    text = top.format_help()
    assert sorted(one.name for group in cli.GROUPS.values() for one in group) == sorted(parsers)
    for one in COMMANDS:
        assert one.about
        assert sum(line.startswith(f"  {one.name} ") for line in text.splitlines()) == 1
    for code in (cli.FINE, cli.SOME_NEED_A_PERSON, cli.COULD_NOT, cli.STOPPED):
        assert f"\n  {code} " in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_every_command_that_is_written_stands_in_a_group():
    written = [
        one
        for room in (cli, days, exam, learn, live, teach, write)
        for one in vars(room).values()
        if isinstance(one, Command)
    ]
    assert sorted(one.name for one in written) == sorted(one.name for one in COMMANDS)


@pytest.mark.parametrize("one", COMMANDS, ids=lambda one: one.name)
def test_a_command_takes_the_words_that_its_parser_reads(one: Command):
    parser = cli.make_parsers()[1][one.name]
    read = {action.dest for action in parser._actions} | set(parser._defaults)
    taken = inspect.signature(one.run).parameters
    assert parser._defaults["command"] is one
    assert set(list(taken)[1:]) == read - {"help", "json", "command"}
    assert all(about.default is inspect.Parameter.empty for about in taken.values()), "a default stands in the parser"


def test_only_a_parser_gives_a_function_its_words():
    def tell(_out: Out, word: str) -> Done:
        return Done({"said": word})

    top = argparse.ArgumentParser()
    command("say a word", argument("word", help="which"))(tell).add(top.add_subparsers())
    read = vars(top.parse_args(["tell", "it", "--json"]))
    assert read == {"command": read["command"], "word": "it", "json": True}
    assert read["command"].run(Out(), word="it") == Done({"said": "it"})


def test_every_word_of_every_command_says_what_it_is():
    silent = [
        (name, action.dest) for name, one in cli.make_parsers()[1].items() for action in one._actions if not action.help
    ]
    assert silent == []


def test_the_page_of_commands_is_fresh_and_build_holds_it():
    page = (CATALOG.root / "docs" / "commands.md").read_text("utf-8")
    assert page == cli.manual(), "run `ftgrade build`"
    assert cli.make_parsers()[1]["build"].get_default("manual") is cli.manual


@pytest.mark.parametrize(("asked", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["colours", "NO_COLOR"])
def test_colours_are_left_out_where_one_asks_for_none(asked: dict[str, str], coloured: bool):
    show = "from ftgrade.commands.terminal import console; console(False).print('[red]wrong[/red]', markup=True)"
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | asked
    environment |= {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    words = [sys.executable, "-c", show]
    said = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout
    assert ("\x1b[31m" in said) == coloured
    assert "wrong" in said


def test_what_a_student_wrote_is_no_markup():
    screen = Console(width=60)
    with screen.capture() as captured:
        screen.print(table("t", ["a"], [["[red]x[/red] [/]"]]))
    assert "[red]x[/red] [/]" in captured.get()


def test_a_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]):
    texts = ("[red]x[/red] [/]", ":warning: https://example.org/1", "one line " * 40 + "end")
    Out().line(*texts)
    assert capsys.readouterr() == ("".join(f"{text}\n" for text in texts), "")


def test_people_read_stderr_where_a_program_reads_stdout(capsys: pytest.CaptureFixture[str]):
    out = Out(stderr=True)
    out.line("a line")
    out.table("a title", ("a column",), [("a cell",)])
    said = capsys.readouterr()
    assert said.out == ""
    assert all(text in said.err for text in ("a line", "a title", "a column", "a cell"))


def test_the_board_counts_what_was_judged():
    board = Board({"p03": 3, "p04": 1})
    for score, person in ((10.0, False), (0.0, True)):
        board.saw("p03", score, person)
    assert board.row("p03") == ("p03", "2 of 3", "5.00", "1")
    assert board.row("p04") == ("p04", "0 of 1", "–", "")


def test_a_check_is_one_document_with_a_pass_or_a_reason_for_each_check(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["check", str(RIGHT), "--stem", "p03", "--json"]) == cli.FINE
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["problem"], told["state"]) == ("p03_lora_parameters", "graded")
    assert told["score"] == told["points"] == 11.0
    assert {check["status"] for check in told["checks"]} == {"pass"}
    assert "11 of 11 points" in said.err


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("course")
    (root / "students.csv").write_text("id\nada\n")
    assert cli.main(["new-course", str(root / "course"), "--roster", str(root / "students.csv"), "--json"]) == cli.FINE
    return root / "course"


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["verify"], "reports"), (["diff"], "changes"), (["todo"], "needs"), (["due"], "deadlines"),
        (["due", "p03", "2026-12-01T18:00"], "deadlines"),
        (["extend", "ada", "p03", "--until", "2026-12-02T18:00"], "until"),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, list) else "",
)  # fmt: skip
def test_every_result_is_one_document(course: Path, words: list[str], key: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main([*words, "--course", str(course), "--json"]) == cli.FINE
    assert key in json.loads(capsys.readouterr().out)


def test_an_error_is_a_document_too(course: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["diff", "p99", "--course", str(course), "--json"]) == cli.COULD_NOT
    said = capsys.readouterr()
    assert "there is no problem 'p99'" in json.loads(said.out)["error"]
    assert said.err.startswith("ftgrade: there is no problem")
    assert cli.main(["grade", "p03", "--course", str(course), "--json"]) == cli.COULD_NOT
    assert "nothing was handed in" in json.loads(capsys.readouterr().out)["error"]


def test_a_command_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr("ftgrade.classroom.selfstudy.read_record", stop)
    assert cli.main(["certificate", "--json"]) == cli.STOPPED
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("ftgrade: stopped")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_command_and_problem(shell: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["completion", shell]) == cli.FINE
    script = capsys.readouterr().out
    assert all(name in script for name in cli.make_parsers()[1])
    assert all(stem in script for stem in CATALOG.stems())


def test_bash_completes_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["completion", "bash"]) == cli.FINE
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    asked = (
        "source completion; COMP_WORDS=(ftgrade gra); COMP_CWORD=1; "
        '$(complete -p ftgrade | sed "s/.*-F \\([^ ]*\\).*/\\1/") ftgrade gra ftgrade; echo "${COMPREPLY[@]}"'
    )
    words = ["bash", "-c", asked]
    finished = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout.split() == ["grade"]
