"""Archives as people hand them in, and as people hand them in who mean harm."""

import bz2
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from ftgrade.intake import archives
from ftgrade.intake.archives import BoundedExtractor, Quota, unpack
from nbgrader.plugins.zipcollect import ExtractorPlugin


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


def found(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_ordinary_files_come_out_of_every_kind(tmp_path: Path):
    path = packed(tmp_path / "a.zip", {"p03/p03.ipynb": b"{}", "data.csv": b"1,2"})
    assert unpack(path, tmp_path / "zip") == []
    for kind in ("tar", "tar.gz", "tar.xz", "tar.bz2"):
        with tarfile.open(tmp_path / f"a.{kind}", f"w:{kind.partition('.')[2]}") as made:
            made.add(tmp_path / "zip", arcname=".")
        assert unpack(tmp_path / f"a.{kind}", tmp_path / kind) == []
        assert found(tmp_path / kind) == found(tmp_path / "zip") == ["data.csv", "p03/p03.ipynb"]


def test_nothing_leaves_the_folder_and_no_link_is_made(tmp_path: Path):
    with tarfile.open(tmp_path / "evil.tar", "w") as made:
        for name in ("../out", "/abs", "a/../../out", "good.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            made.addfile(entry, io.BytesIO(b"x"))
        for kind, goal in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "good.txt"), (tarfile.FIFOTYPE, "")):
            entry = tarfile.TarInfo(f"special{kind!r}")
            entry.type, entry.linkname = kind, goal
            made.addfile(entry)
    left = unpack(tmp_path / "evil.tar", tmp_path / "goal")
    assert len(left) == 3
    assert found(tmp_path / "goal") == ["good.txt"]
    assert found(tmp_path) == ["evil.tar", "goal/good.txt"]
    path = packed(tmp_path / "b.zip", {"..\\out": b"x", "c:/x": b"x", "ok": b"x"})
    unpack(path, tmp_path / "zip")
    assert found(tmp_path / "zip") == ["ok"]


def test_a_bomb_is_left_out_by_what_really_comes_out(tmp_path: Path):
    path = packed(tmp_path / "bomb.zip", {"zeros": bytes(64 * 2**20), "p03.ipynb": json.dumps({"a": 1}).encode()})
    left = unpack(path, tmp_path / "ratio")
    assert found(tmp_path / "ratio") == ["p03.ipynb"]
    assert "too tightly" in left[0]


def test_a_limit_is_a_students_and_not_the_class_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "Quota", lambda: Quota(files=3))
    inner = packed(tmp_path / "inner.zip", {f"f{n}": b"x" for n in range(9)}).read_bytes()
    files = {f"all/{who}/f{n}": b"x" for who, count in (("eve", 9), ("zoe", 2)) for n in range(count)}
    files["all/bob.zip"] = inner
    left = unpack(packed(tmp_path / "many.zip", files), tmp_path / "many")
    names = found(tmp_path / "many")
    assert [sum(f"all/{who}" in name for name in names) for who in ("eve", "bob", "zoe")] == [3, 2, 2]
    assert len(left) == 6 + 7


def test_an_archive_that_takes_memory_or_time_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A header that announces a name of 3 GB made the reader take as much."""
    monkeypatch.setattr(archives, "MAX_MEMORY", 64 * 2**20)
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2**30
    path = tmp_path / "long.tar.bz2"
    with bz2.open(path, "wb") as file:
        file.write(name.tobuf())
        for _ in range(2**10):
            file.write(bytes(2**20))
    (words,) = unpack(path, tmp_path / "goal")
    assert words.startswith("long.tar.bz2: ")
    monkeypatch.setattr(archives, "limit_process", lambda: os._exit(9))
    (words,) = unpack(packed(tmp_path / "a.zip", {"f": b"x"}), tmp_path / "goal")
    assert "more time or memory" in words


def test_archives_in_archives_end(tmp_path: Path):
    inner = packed(tmp_path / "one.zip", {"deep.ipynb": b"{}"})
    for number in range(5):
        inner = packed(tmp_path / f"wrap{number}.zip", {inner.name: inner.read_bytes(), f"n{number}": b"x"})
    left = unpack(inner, tmp_path / "goal")
    assert any("stays packed" in line for line in left)
    assert "n4" in found(tmp_path / "goal")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 torn", bytes(100), b"not an archive"])
def test_a_broken_archive_is_told_and_stops_nobody(tmp_path: Path, data: bytes):
    for ending in archives.ENDINGS:
        path = tmp_path / f"a{ending}"
        path.write_bytes(data)
        assert "not a whole archive" in unpack(path, tmp_path / "goal")[0]


def test_nbgraders_collector_takes_these_limits(tmp_path: Path):
    assert issubclass(BoundedExtractor, ExtractorPlugin)
    source = tmp_path / "archive"
    (source / "group").mkdir(parents=True)
    packed(source / "group" / "ada_p03.zip", {"ada_p03.ipynb": b"{}", "../escape": b"x"})
    (source / "bob_p03.ipynb").write_text("{}")
    (source / "link.ipynb").symlink_to("/etc/passwd")
    BoundedExtractor().extract(str(source), str(tmp_path / "extracted"))
    assert found(tmp_path / "extracted") == ["bob_p03.ipynb", "group/ada_p03/ada_p03.ipynb"]
    assert not (tmp_path / "escape").exists()


def test_an_archive_inside_another_has_a_time_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What stands after it in the archive of a class is read all the same."""
    monkeypatch.setattr(archives, "MAX_INNER_SECONDS", 1)
    stream = bz2.compress(bytes(2**20)) * 4_000
    header = tarfile.TarInfo("zeros")
    header.size = 2**32 * 10
    (tmp_path / "eve.tar.bz2").write_bytes(bz2.compress(header.tobuf(tarfile.GNU_FORMAT)) + stream)
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as made:
        made.write(tmp_path / "eve.tar.bz2", "eve_work.tar.bz2")
        made.writestr("zoe_p03.ipynb", "{}")
    told = unpack(tmp_path / "class.zip", tmp_path / "out")
    assert (tmp_path / "out" / "zoe_p03.ipynb").read_text() == "{}"
    assert [words.partition(":")[0] for words in told] == ["eve_work.tar.bz2"]
    assert "more time or memory" in told[0]
