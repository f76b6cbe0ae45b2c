"""`ftgrade collect`: what platforms and people hand over lands where it belongs, and nothing is lost on the way."""

import dataclasses
import json
import tarfile
import unicodedata
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
from ftgrade.commands import cli
from ftgrade.errors import CourseFault
from ftgrade.grading.grader import Course
from ftgrade.intake.collect import Collected, People, collect, expressions, normalized

STEMS = ["p01_answer_only_loss", "p03_lora_parameters", "p10_freeze_and_mask_audit"]
P03 = STEMS[1]
KNOWN = People(
    ("ada", "ada_b", "zoë"),
    {"4711": "ada", "12": "zoë"},
    {normalized("Ada Lovelace"): ["ada"], normalized("Zoë O'Neil"): ["zoë"], normalized("Sam Kim"): ["ada", "ada_b"]},
)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course(tmp_path / "course")


def laid(folder: Path, **files: str) -> Path:
    """Write files below a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def zipped(path: Path, files: dict[str, str | bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


def places(found: Collected) -> set[tuple[str, str, str]]:
    return {(one.student, one.stem[:3], one.outcome) for one in found.taken}


def reasons(found: Collected) -> dict[str, str]:
    return dict(found.left)


def test_a_folder_and_an_archive_of_named_files_land_in_their_places(tmp_path: Path, course: Course):
    files = {
        "ada_p03_lora_parameters.ipynb": "1", "week 1/ada_b_p03.ipynb": "2",
        "zoë/P10_freeze_and_mask_audit (2).ipynb": "3", "__MACOSX/ada_p03.ipynb": "junk", "notes.txt": "x",
        "adda_p03.ipynb": "4", "ada_p07.ipynb": "5",
    }  # fmt: skip
    found = collect(laid(tmp_path / "handed", **files), course, KNOWN, STEMS)
    assert places(found) == {("ada", "p03", "new"), ("ada_b", "p03", "new"), ("zoë", "p10", "new")}
    assert reasons(found) == {
        "adda_p03.ipynb": "there is no student 'adda': ada?",
        "ada_p07.ipynb": "its name doesn't fit the pattern: it names no problem, "
        "and where the path tells the student, `--stem p03` takes all as p03",
        "notes.txt": "no notebook",
    }
    assert course.notebook("ada_b", P03).read_text() == "2"
    again = collect(zipped(tmp_path / "all.zip", dict(files)), course, KNOWN, STEMS)
    assert {outcome for _, _, outcome in places(again)} == {"unchanged"}
    assert reasons(again) == reasons(found)


@pytest.mark.parametrize(
    ("pattern", "outer", "inner"),
    [
        ("plain", "ada_b.zip", "ada_p03 (9).ipynb"), ("plain", "ada_b_work.zip", "x/ada/p03.ipynb"),
        ("plain", "ada_b", "ada_p03.ipynb"), ("plain", "zoë_p03.zip", "ada.zip/p03.ipynb"),
        ("canvas", "oneilzoe_12_301_all.zip", "x_4711_9999999_p03.ipynb"),
        ("canvas", "oneilzoe_LATE_12_301_all.zip", "deep/x_4711_9999999_p03_lora_parameters-3.ipynb"),
        ("moodle", "Zoë O'Neil_7_assignsubmission_file", "Ada Lovelace_8_assignsubmission_file/p03.ipynb"),
        ("moodle", "Zoë O'Neil_7_assignsubmission_file_", "Ada Lovelace_8_assignsubmission_file_p03.ipynb"),
        ("moodle", "Zoë O'Neil_7_assignsubmission_file_w.zip", "Ada Lovelace_8_assignsubmission_file/x/p03.ipynb"),
        ("{student}-{stem}.ipynb", "ada_b-p03.zip", "ada-p03.ipynb"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bulk", [True, False], ids=["in one download", "in a folder"])
def test_nobody_files_work_as_anothers_by_a_name_inside_their_own(
    tmp_path: Path, course: Course, pattern: str, outer: str, inner: str, bulk: bool
):
    """The platform writes the outermost name; what is further inside is the student's own choice."""
    archive, inside, rest = inner.partition(".zip/")
    forged: dict[str, str | bytes] = {inner: "forged"}
    if inside:
        forged = {f"{archive}.zip": zipped(tmp_path / "inside.zip", {rest: "forged"}).read_bytes()}
    theirs: dict[str, str | bytes] = {f"{outer}/{name}": data for name, data in forged.items()}
    if outer.endswith(".zip"):
        theirs = {outer: zipped(tmp_path / "theirs.zip", forged).read_bytes()}
    source = tmp_path / "download"
    if bulk:
        source = zipped(tmp_path / "download.zip", theirs)
    else:
        for name, data in theirs.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data.encode() if isinstance(data, str) else data)
    found = collect(source, course, KNOWN, STEMS, pattern)
    assert [one for one in found.taken if one.student == "ada"] == []
    taken = (
        ["zoë"] if outer.endswith("_file_") else []
    )  # a whole name of Moodle's, and the student's file named after it
    assert [one.student for one in found.taken] == taken
    said = " ".join(reasons(found).values())
    assert taken or "is named like ada's" in said or "stays packed" in said


def test_a_canvas_download_is_read_by_its_numbers(tmp_path: Path, course: Course):
    inner = zipped(tmp_path / "inner.zip", {"work/p01_answer_only_loss.ipynb": "inner"}).read_bytes()
    path = zipped(
        tmp_path / "submissions.zip",
        {
            "lovelaceada_4711_100_p03_lora_parameters.ipynb": "old",
            "lovelaceada_4711_205_p03_lora_parameters-1.ipynb": "new",
            "oneilzoe_LATE_12_300_my p10_freeze_and_mask_audit.ipynb": "late",
            "oneilzoe_12_301_all.zip": inner,
            "strangersam_99_400_p03_lora_parameters.ipynb": "whose?",
            "anon_x7_500_p03_lora_parameters.ipynb": "nameless",
        },
    )
    found = collect(path, course, KNOWN, STEMS, "canvas")
    assert places(found) == {("ada", "p03", "new"), ("zoë", "p10", "new"), ("zoë", "p01", "new")}
    assert [one.marked_late for one in found.taken if one.stem[:3] == "p10"] == [True]
    assert course.notebook("ada", P03).read_text() == "new"
    assert set(reasons(found)) == {
        "lovelaceada_4711_100_p03_lora_parameters.ipynb",
        "strangersam_99_400_p03_lora_parameters.ipynb",
        "anon_x7_500_p03_lora_parameters.ipynb",
    }
    assert reasons(found)["strangersam_99_400_p03_lora_parameters.ipynb"] == "no student's lms_user_id is 99"


@pytest.mark.parametrize("folder", ["Zoë O'Neil_657_assignsubmission_file/", "Zoë O'Neil_657_assignsubmission_file_/",
                                    "Zoë O'Neil_657_assignsubmission_file_"])  # fmt: skip
def test_a_moodle_download_is_read_by_full_names(tmp_path: Path, course: Course, folder: str):
    path = zipped(
        tmp_path / "moodle.zip",
        {f"{folder}p03_lora_parameters.ipynb": "1", "Sam Kim_9_assignsubmission_file/p03.ipynb": "2"},
    )
    found = collect(path, course, KNOWN, STEMS, "moodle")
    assert places(found) == {("zoë", "p03", "new")}
    assert reasons(found) == {"Sam Kim_9_assignsubmission_file/p03.ipynb": "2 students are called 'Sam Kim'"}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_name_is_known_in_either_form_of_its_letters(tmp_path: Path, course: Course, forms: tuple[str, str]):
    roster, file = (unicodedata.normalize(form, "zoë") for form in forms)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{file}_p03.ipynb").write_text("1")
    found = collect(tmp_path / "in", course, People((roster,), {}, {}), STEMS)
    assert [one.student for one in found.taken] == [roster]


def test_one_problems_files_may_have_any_name(tmp_path: Path, course: Course):
    path = zipped(tmp_path / "a.zip", {"lovelaceada_4711_1_final FINAL.ipynb": "1"})
    assert places(collect(path, course, KNOWN, STEMS, "canvas", only=P03)) == {("ada", "p03", "new")}


def test_the_newer_replaces_the_older_which_is_kept(tmp_path: Path, course: Course):
    pattern = "{student}_{time}_{stem}.ipynb"
    files = {"ada_2026-11-30-10-00-00_p03.ipynb": "late", "ada_2026-11-29-10-00-00_p03.ipynb": "early"}
    found = collect(laid(tmp_path / "one", **files), course, KNOWN, STEMS, pattern, zone="Europe/Berlin")
    assert places(found) == {("ada", "p03", "new")}
    assert found.taken[0].time == datetime(2026, 11, 30, 9)
    assert (course.notebook("ada", P03).parent / "timestamp.txt").read_text() == "2026-11-30 09:00:00 UTC\n"
    assert "older than" in reasons(found)["ada_2026-11-29-10-00-00_p03.ipynb"]

    old = collect(laid(tmp_path / "two", **{"ada_20261101T0900_p03.ipynb": "older"}), course, KNOWN, STEMS, pattern)
    assert (places(old), list(reasons(old))) == (set(), ["ada_20261101T0900_p03.ipynb"])

    (course.notebook("ada", P03).parent / "data.csv").write_text("1,2")
    new = collect(laid(tmp_path / "three", **{"ada_20261205T0900_p03.ipynb": "newest"}), course, KNOWN, STEMS, pattern)
    assert places(new) == {("ada", "p03", "replaced")}
    earlier = course.state / "earlier" / P03 / "ada" / "1"
    assert (earlier / f"{P03}.ipynb").read_text() == "late"
    assert (earlier / "timestamp.txt").is_file()
    assert (earlier / "data.csv").is_file()
    assert course.notebook("ada", P03).read_text() == "newest"


def test_without_times_the_last_handed_over_is_the_newest_and_a_replaced_one_does_not_come_back(
    tmp_path: Path, course: Course
):
    one = laid(tmp_path / "one", **{"ada_p03.ipynb": "1"})
    two = laid(tmp_path / "two", **{"ada_p03.ipynb": "2"})
    outcomes = [places(collect(source, course, KNOWN, STEMS)) for source in (one, two, two)]
    assert outcomes == [{("ada", "p03", "new")}, {("ada", "p03", "replaced")}, {("ada", "p03", "unchanged")}]
    again = collect(one, course, KNOWN, STEMS)
    assert reasons(again) == {"ada_p03.ipynb": "it was replaced by what is there now: `--at TIME` takes it again"}
    taken = collect(one, course, KNOWN, STEMS, at=datetime(2026, 12, 1, 17))
    assert places(taken) == {("ada", "p03", "replaced")}
    assert course.notebook("ada", P03).read_text() == "1"


def test_two_files_of_which_none_is_newer_are_both_left(tmp_path: Path, course: Course):
    source = laid(tmp_path / "one", **{"ada_p03.ipynb": "1", "week/ada_p03.ipynb": "2", "x/ada_p01.ipynb": "3",
                                       "y/ada_p01.ipynb": "3"})  # fmt: skip
    found = collect(source, course, KNOWN, STEMS)
    assert places(found) == {("ada", "p01", "new")}
    assert len([why for why in reasons(found).values() if "none is told to be newer" in why]) == 2
    assert not course.notebook("ada", P03).exists()


@pytest.mark.parametrize(
    "name",
    [
        "ada_p03 (1)-2.ipynb", "ada_p03-Copy1.ipynb", "ada_p03-Copy.ipynb", "ada_p03.ipynb.json", "ada_p03.ipynb.txt",
        "ada_P03.IPYNB", "ada_p03.ipynb.ipynb", "ada_p03-Copy1 (2).ipynb.txt",
        "Copy of ada_p03.ipynb", "ada/Copy (2) of p03.ipynb", "ada/Kopie von p03.ipynb", "ada_p03 copy 2.ipynb",
        "ada_p03 (copy).ipynb", "ada_p03 - Copy (2).ipynb", "ada_p03 (Ada's conflicted copy 2026-03-01).ipynb",
        "ada_p03.sync-conflict-20260301-101010-ABCDEFG.ipynb", "ada/p03-lora-parameters.ipynb",
    ],
)  # fmt: skip
def test_names_that_browsers_and_jupyterlab_make_are_known(tmp_path: Path, course: Course, name: str):
    found = collect(laid(tmp_path / "handed", **{name: "1"}), course, KNOWN, STEMS)
    assert places(found) == {("ada", "p03", "new")}
    assert found.left == ()


def test_a_platforms_number_counts_before_a_browsers(tmp_path: Path, course: Course):
    files = {"x_4711_7_p03 (3).ipynb": "first", "x_4711_7_p03 (1)-2.ipynb": "last", "x_4711_7_p03-1.ipynb": "second"}
    collect(laid(tmp_path / "handed", **files), course, KNOWN, STEMS, "canvas")
    assert course.notebook("ada", P03).read_text() == "last"


def test_a_copy_beside_a_notebook_as_released_is_taken_and_two_written_ones_are_a_doubt(tmp_path: Path, course: Course):
    files = {"ada/p03.ipynb": "blank", "ada/p03-Copy1.ipynb": "written"}
    found = collect(laid(tmp_path / "one", **files), course, KNOWN, STEMS, is_untouched=is_blank)
    assert course.notebook("ada", P03).read_text() == "written"
    assert "as it was released" in reasons(found)["ada/p03.ipynb"]
    files = {"zoë/p03.ipynb": "this", "zoë/p03-Copy1.ipynb": "that"}
    found = collect(laid(tmp_path / "two", **files), course, KNOWN, STEMS, is_untouched=is_blank)
    assert found.taken == ()
    assert {why for _, why in found.left} == {
        "one of several for zoë, p03_lora_parameters, and none is told to be newer"
    }


def is_blank(stem: str, data: bytes) -> bool:
    return stem == P03 and data == b"blank"


def test_links_bombs_and_ways_out_of_the_folder_are_left(tmp_path: Path, course: Course):
    source = laid(tmp_path / "one", **{"ada_p03.ipynb": "1"})
    (source / "zoë_p03.ipynb").symlink_to("/etc/passwd")
    zipped(source / "b.zip", {"../zoë_p01.ipynb": "x", "ada_b_p01.ipynb": "2"})
    with zipfile.ZipFile(source / "c.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("zoë_p10.ipynb", bytes(2**26))
    found = collect(source, course, KNOWN, STEMS)
    assert places(found) == {("ada", "p03", "new"), ("ada_b", "p01", "new")}
    assert set(reasons(found)) == {"zoë_p03.ipynb", "b.zip/../zoë_p01.ipynb", "c.zip/zoë_p10.ipynb"}
    assert not any(path.name.startswith("collect-") for path in course.state.iterdir())


@pytest.mark.parametrize(
    ("pattern", "only"),
    [("{student}.ipynb", None), ("{stem}.ipynb", None), ("{student}_{stem}.txt", None), ("{who}_{stem}.ipynb", None),
     ("edmodo", None), ("{any}.ipynb", P03)],
)  # fmt: skip
def test_a_pattern_that_tells_too_little_is_refused_with_what_there_is(pattern: str, only: str | None):
    with pytest.raises(CourseFault, match=r"canvas|\{|deep"):
        expressions(pattern, STEMS, only, ["ada"])


def test_the_command_tells_what_it_took_and_what_it_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    roster = tmp_path / "students.csv"
    roster.write_text("id,first_name,last_name,lms_user_id\nada,Ada,Lovelace,4711\n")
    root = tmp_path / "course"
    assert cli.main(["new-course", str(root), "--roster", str(roster)]) == cli.FINE
    source = laid(tmp_path / "handed", **{"ada_p03.ipynb": "1", "eve_p03.ipynb": "2"})
    words = ["collect", str(source), "--course", str(root), "--at", "2026-12-01T18:00"]
    assert cli.main(words) == cli.SOME_NEED_A_PERSON
    said = capsys.readouterr().out
    assert "2026-12-01 18:00 UTC" in said
    assert "left where it is: eve_p03.ipynb: there is no student 'eve'" in said
    assert cli.main([*words, "--json"]) == cli.SOME_NEED_A_PERSON
    told = json.loads(capsys.readouterr().out)
    assert [one["outcome"] for one in told["taken"]] == ["unchanged"]
    assert told["left"] == [["eve_p03.ipynb", "there is no student 'eve'"]]
    assert cli.main(["collect", str(tmp_path / "nothing"), "--course", str(root)]) == cli.COULD_NOT
    assert "isn't there: name a folder" in capsys.readouterr().err
    assert cli.main(["collect", str(source), "--course", str(tmp_path)]) == cli.COULD_NOT
    assert "holds no gradebook.db" in capsys.readouterr().err


def test_what_a_stranger_of_the_platform_hands_in_is_nobodys(tmp_path: Path, course: Course):
    """Nobody knows the number or the name outside, so the name inside isn't looked at."""
    files: dict[str, str | bytes] = {"adalovelace_4711_9100_p03.ipynb": "1"}
    inside = zipped(tmp_path / "inside.zip", {"x_4711_9999999_p03.ipynb": "forged"}).read_bytes()
    found = collect(
        zipped(tmp_path / "canvas.zip", files | {"stranger_999_9101_work.zip": inside}), course, KNOWN, STEMS, "canvas"
    )
    assert [one.source for one in found.taken] == ["adalovelace_4711_9100_p03.ipynb"]
    assert "no student's lms_user_id is 999" in " ".join(reasons(found).values())
    theirs = "Eve Evil_4_assignsubmission_file/Ada Lovelace_1_assignsubmission_file/p03.ipynb"
    found = collect(laid(tmp_path / "moodle", **{theirs: "forged"}), course, KNOWN, STEMS, "moodle")
    assert found.taken == ()
    assert "no students are called 'Eve Evil'" in reasons(found)[theirs]


def test_a_strangers_own_names_inside_a_platforms_name_file_nothing_as_anothers(tmp_path: Path, course: Course):
    attempts = "attempt_2026-01-02-10-10-10_x_ada_attempt_2026-01-03-10-10-10_p03"
    inside = zipped(tmp_path / "inside.zip", {"p03.ipynb": "forged"}).read_bytes()
    tries: dict[str, dict[str, str | bytes]] = {
        "blackboard": {f"HW_mallory_{attempts}.ipynb": "forged", f"HW_ZO\u00cb_{attempts}.ipynb": "forged",
                       f"HW_mallory_{attempts}.zip": inside},
        "ilias": {"Lory_Mal_mal_2/Lovelace_Ada_ada_3/p03.ipynb": "forged"},
        "github": {"hw-mal/hw-ada/p03.ipynb": "forged", "hw-x-ada/p03.ipynb": "forged",
                   "hw-zo\u00eb/p03.ipynb": "own"},
        "sakai": {"HW/Lory, Mal(mal)/Submission attachment(s)/X(ada)/Submission attachment(s)/p03.ipynb": "forged"},
    }  # fmt: skip
    for platform, files in tries.items():
        found = collect(zipped(tmp_path / f"{platform}.zip", files), course, KNOWN, STEMS, platform)
        assert {one.student for one in found.taken} == ({"zo\u00eb"} if platform == "github" else set()), platform
        assert len(found.left) == len(files) - len(found.taken), platform


def test_who_is_alone_in_a_download_files_nothing_as_anothers(tmp_path: Path, course: Course):
    two = {"x_4711_1_p03.ipynb": "forged", "y_12_2_p03.ipynb": "forged"}
    named = {"ada/p03.ipynb": "forged", "zo\u00eb/p03.ipynb": "forged"}
    tries: dict[str, dict[str, str | bytes]] = {
        "canvas": {"mal_77_70_work.zip": zipped(tmp_path / "two.zip", dict(two)).read_bytes()},
        "github": {f"hw-mal/hw-{name}": data for name, data in named.items()},
        "ilias": {f"Lory_Mal_mal_2/A_B_{name.replace('/', '_3/')}": data for name, data in named.items()},
        "plain": {"ada_b.zip": zipped(tmp_path / "named.zip", dict(named)).read_bytes()},
    }
    for platform, files in tries.items():
        found = collect(zipped(tmp_path / f"{platform}.zip", files), course, KNOWN, STEMS, platform)
        assert found.taken == (), platform
    grouped = {f"Sheet_3_17/{name}_9/p03.ipynb": "own" for name in ("Lovelace_Ada_ada", "ONeil_Zoe_zo\u00eb")}
    found = collect(laid(tmp_path / "all", **grouped), course, KNOWN, STEMS, "ilias")
    assert found.taken == ()
    assert "collect from inside it" in " ".join(reasons(found).values())
    found = collect(tmp_path / "all" / "Sheet_3_17", course, KNOWN, STEMS, "ilias")
    assert {one.student for one in found.taken} == {"ada", "zo\u00eb"}


def test_a_strangers_login_that_ends_like_an_id_is_not_that_students(tmp_path: Path, course: Course):
    stamp = "attempt_2026-01-02-10-10-10"
    files = {f"HW 1_zo\u00eb_{stamp}_p03.ipynb": "own", f"HW 1_x_ada_{stamp}_p03.ipynb": "forged"}
    found = collect(laid(tmp_path / "all", **files), course, KNOWN, STEMS, "blackboard")
    assert [one.student for one in found.taken] == ["zo\u00eb"]


def test_a_name_that_only_looks_alike_is_its_owners(tmp_path: Path, course: Course):
    for name in ("ADA_B", "ada_b\u200b", "ada_b "):
        found = collect(laid(tmp_path / name, **{f"{name}/ada/p03.ipynb": "forged"}), course, KNOWN, STEMS)
        assert found.taken == (), name
        assert "it lies in what ada_b handed in" in " ".join(reasons(found).values())


def test_a_folder_in_an_archive_stops_nobody_and_no_path_reaches_the_terminal_raw(tmp_path: Path, course: Course):
    inside = {"a.partial-file/ada_b_p03.ipynb": "1", "x\x1b[2J\u202e/p01.ipynb": "2"}
    data = zipped(tmp_path / "in.zip", dict(inside)).read_bytes()
    found = collect(zipped(tmp_path / "all.zip", {"ada_b.zip": data, "zoë_p03.ipynb": "3"}), course, KNOWN, STEMS)
    assert {one.student for one in found.taken} == {"ada_b", "zoë"}
    assert "\x1b" not in "".join(one.source for one in found.taken)


GRADESCOPE = """\
submission_77:
  :submitters:
  - :name: Ada Lovelace
    :sid: ada
    :email: ada@example.org
  :created_at: 2026-01-30 10:30:10.123456000 Z
  :status: processed
submission_78:
  :submitters:
  - :name: Zo\u00eb O'Neil
    :sid:
    :email:
submission_79:
  :submitters:
  - :name: Ada Lovelace
    :sid: ada
  - :name: Zo\u00eb O'Neil
"""
LAYOUTS = {
    "blackboard": (
        "Homework_1_ada_attempt_2026-01-29-10-30-10_p03.ipynb", "Homework_1_ada_attempt_2026-01-30-10-30-10_p03.ipynb",
        "Homework_1_zo\u00eb_attempt_2026-01-30-10-30-10_work.zip/x/p03_lora_parameters.ipynb",
    ),
    "brightspace": (
        "1234-5678 - Ada Lovelace - Jan 29, 2026 1030 PM/p03.ipynb",
        "1234-5678 - Ada Lovelace - Jan 30, 2026 930 AM/p03.ipynb",
        "1235-5678 - Zo\u00eb ONeil - Jan 30, 2026 12:05 AM/my p03_lora_parameters.ipynb",
    ),
    "gradescope": (
        "assignment_5_export/submission_77/p03.ipynb", "assignment_5_export/submission_78/sub/p03.ipynb",
        "assignment_5_export/submission_79/p03.ipynb",
    ),
    "google": ("Homework/Ada Lovelace - p03_lora_parameters.ipynb", "Homework/Zo\u00eb O'Neil - p03.ipynb"),
    "github": ("hw-1-submissions/hw-1-ada/p03.ipynb", "hw-1-zo\u00eb-main/src/p03_lora_parameters.ipynb"),
    "sakai": (
        "Homework 1/Lovelace, Ada(ada)/Submission attachment(s)/p03.ipynb",
        "Homework 1/O'Neil, Zo\u00eb(zo\u00eb)/Submission attachment(s)/p03_lora_parameters.ipynb",
    ),
    "ilias": ("Abgaben/Lovelace_Ada_ada_4711/p03.ipynb", "Abgaben/ONeil_Zoe_zo\u00eb/p03_lora_parameters (1).ipynb"),
    "moodle": (
        "Ada Lovelace_9_assignsubmission_file/p03.ipynb", "Zo\u00eb ONeil_8_assignsubmission_file/p03.ipynb",
    ),
    "canvas": ("lovelaceada_4711_100_p03 (1)-2.ipynb", "oneilzoe_12_101_p03_lora_parameters-Copy1.ipynb"),
}  # fmt: skip


@pytest.mark.parametrize("platform", LAYOUTS)
@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
def test_a_platforms_download_is_read_as_it_comes(tmp_path: Path, course: Course, platform: str, packed: bool):
    files: dict[str, str | bytes] = dict.fromkeys(LAYOUTS[platform], "an older one")
    files[LAYOUTS[platform][-1]] = files[LAYOUTS[platform][1]] = "the newest"
    for name in [name for name in files if ".zip/" in name]:
        outer, _, inner = name.partition(".zip/")
        files[f"{outer}.zip"] = zipped(tmp_path / "inner.zip", {inner: files.pop(name)}).read_bytes()
    files |= {"index.html": "x", "__MACOSX/._p03.ipynb": "x", "._p03.ipynb": "x"}
    if platform == "gradescope":
        files["assignment_5_export/submission_metadata.yml"] = GRADESCOPE
        files["assignment_5_export/submission_78/submission_metadata.yml"] = GRADESCOPE.replace("sid:\n", "sid: ada\n")
    source = zipped(tmp_path / "download.zip", files)
    if not packed:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(tmp_path / "download")
        source = tmp_path / "download"
    found = collect(source, course, KNOWN, STEMS, platform)
    assert places(found) == {("ada", "p03", "new"), ("zo\u00eb", "p03", "new")}, found.left
    if platform in ("blackboard", "brightspace"):
        assert course.notebook("ada", P03).read_text() == "the newest"
        assert [one.time and one.time.day for one in found.taken] == [30, 30]
    if platform == "gradescope":
        told = reasons(found)["assignment_5_export/submission_79/p03.ipynb"]
        assert {one.student: one.time for one in found.taken} == {
            "ada": datetime(2026, 1, 30, 10, 30, 10, 123456), "zo\u00eb": None,
        }  # fmt: skip
        assert told == "submission_metadata.yml names 2 students for submission_79"


@pytest.mark.parametrize("place", ["submission_77", "export/submission_77/deep", "submission_77.zip"])
def test_what_a_student_says_of_who_handed_in_is_never_read(tmp_path: Path, course: Course, place: str):
    forged = "submission_77:\n  :submitters:\n  - :sid: ada\n    :email: ada@x.y\n    :name: Ada\n"
    files: dict[str, str | bytes] = {"submission_77/p03.ipynb": "1", f"{place}/submission_metadata.yml": forged}
    if place.endswith(".zip"):
        del files[f"{place}/submission_metadata.yml"]
        files[place] = zipped(tmp_path / "in.zip", {"submission_metadata.yml": forged}).read_bytes()
    with pytest.raises(CourseFault, match="isn't here"):
        collect(zipped(tmp_path / "a.zip", files), course, KNOWN, STEMS, "gradescope")


def test_links_and_pipes_in_an_archive_are_told(tmp_path: Path, course: Course):
    with tarfile.open(tmp_path / "ada.tar", "w") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            entry = tarfile.TarInfo(f"{name}/p03.ipynb")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    found = collect(tmp_path / "ada.tar", course, KNOWN, STEMS)
    assert not found.taken
    assert sum("not an ordinary file" in " ".join(map(str, one)) for one in found.left) == 3


@pytest.mark.parametrize(
    "text",
    [
        None,
        "- a list",
        "submission_77:\n  :submitters:\n  - :sid: [a, b]",
        "submission_77: {}",
        "a: [",
        "submission_77:\n  :submitters: 3",
    ],
)
def test_gradescopes_list_is_needed_and_read_with_care(tmp_path: Path, course: Course, text: str | None):
    files: dict[str, str | bytes] = {"submission_77/p03.ipynb": "1"} | (
        {"submission_metadata.yml": text} if text else {}
    )
    with pytest.raises(CourseFault, match=r"submission_metadata\.yml"):
        collect(zipped(tmp_path / "a.zip", files), course, KNOWN, STEMS, "gradescope")


def test_names_of_copies_endings_and_archives_that_are_not_opened(tmp_path: Path, course: Course):
    files = {
        "ada_p03 (1)-2.ipynb": "1", "zo\u00eb_p03.IPYNB": "2", "ada_b_p03.ipynb.txt": "3", "._ada_p03.ipynb": "junk",
        "ada_b.rar": "x", "zo\u00eb.7z": "x",
    }  # fmt: skip
    found = collect(laid(tmp_path / "handed", **files), course, KNOWN, STEMS)
    assert {student for student, _, _ in places(found)} == {"ada", "ada_b", "zo\u00eb"}
    assert reasons(found) == {
        "ada_b.rar": "an archive (.rar) that isn't opened here: unpack it into a folder ada_b, or ask for a .zip",
        "zo\u00eb.7z": "an archive (.7z) that isn't opened here: unpack it into a folder zo\u00eb, or ask for a .zip",
    }
    with pytest.raises(CourseFault, match="unpack it into a folder ada_b"):
        collect(tmp_path / "handed" / "ada_b.rar", course, KNOWN, STEMS)


@pytest.mark.parametrize(
    ("name", "pattern", "words"),
    [
        ("ada/p03_final_v2.ipynb", "plain", "`--stem p03` takes all as p03"),
        ("ada_p03.py", "plain", "no notebook: a Python file, ask for the .ipynb file"),
        ("ada_p03.ipynb.crdownload", "plain", "a download that wasn't finished, ask for the file again"),
        ("ada@x.org_p03.ipynb", "plain", "it is the address of ada; put the id there"),
        ("Ada Lovelace/p03.ipynb", "plain", "it is the name of ada; {name} in place of {student}"),
        ("anon_5wMz2_2041_p03.ipynb", "canvas", "the platform hides who it is: let it show the names"),
        ("Participant_77_assignsubmission_file/p03.ipynb", "moodle", "the platform hides who it is"),
        ("Lab 1-Ada Lovelace_77_assignsubmission_file/p03.ipynb", "moodle", "if 'Lab 1' is a group, show all"),
    ],
)
def test_what_is_left_is_told_with_the_next_step(tmp_path: Path, course: Course, name: str, pattern: str, words: str):
    known = dataclasses.replace(KNOWN, by_email={"ada@x.org": "ada"})
    found = collect(laid(tmp_path / "handed", **{name: "1"}), course, known, STEMS, pattern)
    assert (found.taken, words in reasons(found)[name]) == ((), True)


def test_another_platforms_download_is_told_by_its_names(tmp_path: Path, course: Course):
    files = {"lovelaceada_4711_7_p03.ipynb": "1", "oneilzoe_LATE_12_8_p03-2.ipynb": "2", "notes.txt": "x"}
    source = laid(tmp_path / "handed", **files)
    found = collect(source, course, KNOWN, STEMS, "moodle")
    assert found.hint == "the names are as canvas writes them: `--pattern canvas` takes 2 of these files"
    assert collect(source, course, KNOWN, STEMS, "canvas").hint == ""
    assert collect(laid(tmp_path / "other", **{"p03.ipynb": "1"}), course, KNOWN, STEMS).hint == ""


def test_a_notebook_alone_is_taken_and_an_archive_of_nothing_is_told(tmp_path: Path, course: Course):
    laid(tmp_path, **{"ada_p03.ipynb": "1"})
    assert places(collect(tmp_path / "ada_p03.ipynb", course, KNOWN, STEMS)) == {("ada", "p03", "new")}
    with pytest.raises(CourseFault, match="holds no files"):
        collect(zipped(tmp_path / "a.zip", {}), course, KNOWN, STEMS)


@pytest.mark.parametrize("pattern", ["{student}+{time}{any}/{stem}.ipynb", "{student}+{time} UTC/{stem}.ipynb"])
def test_a_time_that_says_utc_is_not_read_in_the_courses_zone(tmp_path: Path, course: Course, pattern: str):
    source = laid(tmp_path / "in", **{"ada+2026-01-30 10:30:10 UTC/p03.ipynb": "1"})
    (one,) = collect(source, course, KNOWN, STEMS, pattern, zone="Europe/Berlin").taken
    assert one.time == datetime(2026, 1, 30, 10, 30, 10)


def test_the_exchanges_folder_is_read_out_of_an_archive_too(tmp_path: Path, course: Course):
    """nbgrader's exchange writes colons into the names of folders."""
    path = zipped(
        tmp_path / "inbound.zip",
        {
            f"ada+{P03}+2026-01-30 10:30:10.123456 UTC+YWRh/{P03}.ipynb": "1",
            f"c:/ada+{P03}+2026-01-31 10:30:10.123456 UTC+YWRh/{P03}.ipynb": "2",
        },
    )
    found = collect(path, course, KNOWN, STEMS, "{student}+{any}+{time}{any}/{stem}.ipynb")
    assert [(one.student, one.time) for one in found.taken] == [("ada", datetime(2026, 1, 30, 10, 30, 10))]
    assert list(reasons(found).values()) == ["its name begins with a drive's letter"]
