"""Archives as people hand them in, and as people hand them in who mean harm."""

import bz2
import io
import json
import os
import struct
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
    assert sum("leads out of the folder" in words for words in left) == 3
    assert sum("not an ordinary file" in words for words in left) == 3
    assert len(left) == 6
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


def marked(path: Path, flags: int, method: int | None = None) -> Path:
    """Set the flags, and the method of compression, of all entries of a zip archive."""
    data = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(sign)
        while place >= 0:
            struct.pack_into("<H", data, place + offset, flags)
            if method is not None:
                struct.pack_into("<H", data, place + offset + 2, method)
            place = data.find(sign, place + 4)
    path.write_bytes(data)
    return path


def test_a_name_in_utf8_is_read_also_where_the_archive_does_not_say_so(tmp_path: Path):
    """Platforms write such archives; in code page 437, which a name without a mark counts as, it is M├╝ller."""
    path = marked(packed(tmp_path / "a.zip", {"Zo\u00eb M\u00fcller/p03.ipynb": b"1"}), 0)
    assert unpack(path, tmp_path / "utf8") == []
    assert found(tmp_path / "utf8") == ["Zo\u00eb M\u00fcller/p03.ipynb"]
    old = packed(tmp_path / "b.zip", {"Zo__ M_ller.ipynb": b"1"})
    old.write_bytes(old.read_bytes().replace(b"M_ller", b"M\x81ller"))  # as Windows packs it in Western Europe
    assert unpack(old, tmp_path / "cp437") == []
    assert found(tmp_path / "cp437") == ["Zo__ M\u00fcller.ipynb"]


@pytest.mark.parametrize(
    ("flags", "method", "words"), [(1, None, "locked with a password"), (0, 9, "packed in a way that isn't opened")]
)
def test_a_file_that_is_not_opened_is_told_with_the_next_step(tmp_path: Path, flags: int, method: int, words: str):
    (told,) = unpack(marked(packed(tmp_path / "a.zip", {"p03.ipynb": b"1"}), flags, method), tmp_path / "goal")
    assert words in told
    assert "unpack the archive yourself" in told


def test_a_name_that_is_too_long_for_the_disk_stops_nobody(tmp_path: Path):
    (told,) = unpack(packed(tmp_path / "a.zip", {"x" * 260 + "/a.ipynb": b"1", "p03.ipynb": b"1"}), tmp_path / "goal")
    assert told.endswith("it can't be written: File name too long")
    assert found(tmp_path / "goal") == ["p03.ipynb"]


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"<html>Sign in", "it is a web page"), (b"", "it is empty"), (b"PK\x03\x04", "ask for it again")],
)
def test_what_is_no_archive_is_told_by_what_was_seen(tmp_path: Path, data: bytes, words: str):
    (tmp_path / "a.zip").write_bytes(data)
    assert words in unpack(tmp_path / "a.zip", tmp_path / "goal")[0]


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
