"""Random and damaged inputs to everything that reads a student's bytes: nothing crashes, nothing passes its limit.

A run takes FTGRADE_FUZZ inputs a reader, a few hundred by default. An hour's run is FTGRADE_FUZZ=100000.
"""

import base64
import contextlib
import json
import os
import random
import tarfile
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from ftgrade.authoring import build
from ftgrade.catalog import home
from ftgrade.errors import StudentFault
from ftgrade.gradebook.cells import ReleasedCell, canonical_cells
from ftgrade.intake import gate
from ftgrade.intake.archives import unpack
from ftgrade.intake.notebook import parse_submission
from ftgrade.judging.judge import Oracle
from ftgrade.judging.report import Limits
from ftgrade.sandbox.channel import Outcome, Reply, outcome_of
from ftgrade.sandbox.worker import FrameError, read_frame

INPUTS = int(os.environ.get("FTGRADE_FUZZ", "400"))
CATALOG = home()
STEM = "p03_lora_parameters"
NOTEBOOK = build.filled_notebook(CATALOG, STEM, CATALOG.leaves(STEM).solution.read_text("utf-8")).encode()
RELEASED = [
    ReleasedCell("text-1", "markdown", "the statement", grade=False, solution=False, locked=True, points=None),
    ReleasedCell("lora_param_count", "code", "def f(): ...", grade=False, solution=True, locked=False, points=None),
    ReleasedCell("count", "code", "check(f)", grade=True, solution=False, locked=True, points=2.0),
]
TEXTS = (
    "", "\ud800", "\x00", "\x1b[31m", "\u202e", "=1+1", "a" * 5_000, "NaN", "1e999", "9" * 4_400, "é" * 40, "</script>",
    "\u2028", "{{ 1 }}", "```\n", "${x}", "%%time", "!ls", "-1", "1_0", "0x", "\r\n", "\ufeff", "𝕏", "lora_param_count",
)  # fmt: skip


@contextlib.contextmanager
def bounded() -> Generator[None]:
    """Demand that one input takes no more processor time than a judge has."""
    begun = time.process_time()
    yield
    assert time.process_time() - begun < Limits().judge_seconds


def json_value(rng: random.Random, depth: int = 0) -> Any:
    """Return a random JSON value, rather odd than usual."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 6:
        return [json_value(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind > 6:
        return {rng.choice([*KEYS, *TEXTS]): json_value(rng, depth + 1) for _ in range(rng.randrange(5))}
    numbers = (0, -1, 2**63, -(2**200), 0.5, float("nan"), float("inf"), 1e308, 2**31)
    return rng.choice([None, True, False, *numbers, *TEXTS, *KEYS])


KEYS = (
    "cells", "metadata", "nbgrader", "grade_id", "source", "cell_type", "code", "markdown", "nbformat", "value",
    "changed", "error", "names", "message", "line", "array", "shape", "data", "of", "torch", "numpy", "tuple", "dict",
    "scalar", "iterator", "other", "gradients", "missing", "unsendable", "float32", "float64", "bool", "ValueError",
)  # fmt: skip


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Return bytes with a few pieces cut, doubled, exchanged or replaced by noise."""
    for _ in range(rng.randrange(1, 6)):
        first, second = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        second = min(second, first + rng.choice([1, 3, 40, 2_000]))
        noise = rng.choice([b"", rng.randbytes(rng.randrange(9)), rng.choice(TEXTS).encode("utf-8", "surrogatepass")])
        data = data[:first] + rng.choice([noise, data[first:second] * 2]) + data[second:]
    return data


def odd_notebook(rng: random.Random) -> bytes:
    """Return a notebook with random values at random places, or a damaged one, in any encoding."""
    if rng.random() < 0.5:
        return damaged(rng, NOTEBOOK)
    document = json.loads(NOTEBOOK)
    for _ in range(rng.randrange(1, 6)):
        place = rng.choice(document["cells"]) if document["cells"] else document
        while isinstance(place, dict) and place and rng.random() < 0.5:
            inner = rng.choice(list(place.values()))
            place = inner if isinstance(inner, dict) and inner else place
            if inner is not place:
                break
        if isinstance(place, dict):
            place[rng.choice([*place, *KEYS])] = json_value(rng)
    if rng.random() < 0.1:
        document[rng.choice(list(document))] = json_value(rng)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    return text.encode(rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-32"]), "surrogatepass")


def seeds(name: str) -> Iterator[random.Random]:
    for number in range(INPUTS):
        yield random.Random(f"{name} {number}")


def test_a_reader_returns_cells_or_says_what_is_wrong_with_the_file():
    for rng in seeds("reader"):
        data = odd_notebook(rng)
        with bounded(), contextlib.suppress(StudentFault):
            for cell in canonical_cells(parse_submission(data).cells, RELEASED):
                json.dumps(cell, ensure_ascii=False).encode()


def test_what_passed_the_gate_can_be_stored_and_shown_and_stays_as_it_is():
    for rng in seeds("gate"):
        text = "".join(chr(rng.choice([rng.randrange(0x110000), rng.randrange(256)])) for _ in range(rng.randrange(40)))
        text += rng.choice(TEXTS)
        for made in (gate.clean(text, 50), gate.line(text, 50)):
            made.encode()
            assert len(made) <= 50
            assert not gate.ODD.search(made)
        assert "\n" not in gate.line(text)
        assert gate.clean(gate.clean(text)) == gate.clean(text)
        gate.storable(text).encode()
        assert gate.safe(gate.safe(text)) == gate.safe(text)


def test_a_frame_is_read_or_refused():
    def reading(data: bytes) -> Callable[[int], bytes]:
        rest = [data]

        def receive(length: int) -> bytes:
            part, rest[0] = rest[0][:length], rest[0][length:]
            return part

        return receive

    for rng in seeds("frames"):
        body = json.dumps(json_value(rng)).encode()
        data = damaged(rng, len(body).to_bytes(4, "big") + body)
        with bounded(), contextlib.suppress(EOFError, FrameError):
            read_frame(reading(data))


def reply(rng: random.Random) -> bytes:
    """Return a reply that a student may have forged: of any type, often nearly right."""
    shape = [rng.choice([0, 1, 2, 3, 4, 2**40, -1]) for _ in range(rng.randrange(4))]
    raw = rng.randbytes(rng.choice([0, 4, 8, 16, 24, 48, 96]))
    dtype = rng.choice(["float32", "float64", "bool", "bfloat16", "int64", "complex64", "('f4', 9)"])
    data = base64.b64encode(raw).decode()
    array = {"array": dtype, "shape": shape, "data": data, "of": rng.choice(["torch", "numpy", "both"])}
    values = (
        array, json_value(rng), {"tuple": [array, array]}, {"dict": [["total", 3], ["total", array]]}, {"view": array},
        {"scalar": ["float64", rng.choice([1.0, "x", 2**70])]}, {"iterator": [array]},
    )  # fmt: skip
    value, gradients = rng.choice(values), rng.choice([None, [], [array], 7])
    error = {"names": ["ValueError", "Exception"], "message": rng.choice(TEXTS), "line": json_value(rng, 4)}
    replies = (
        {"value": value, "changed": []}, {"value": value, "changed": [], "gradients": gradients}, {"error": error},
        {"error": json_value(rng)}, json_value(rng), {"missing": "f"}, {"value": value},
    )  # fmt: skip
    return json.dumps(rng.choice(replies)).encode()


def test_a_forged_reply_has_an_outcome():
    for rng in seeds("replies"):
        with bounded():
            assert isinstance(outcome_of(rng.choice([reply(rng), damaged(rng, reply(rng))])), Outcome)


@pytest.mark.parametrize("stem", CATALOG.stems())
def test_random_replies_end_no_judge_and_earn_nothing(stem: str):
    oracle = Oracle(CATALOG, stem)
    for number in range(max(2, INPUTS // 200)):
        rng = random.Random(f"{stem} {number}")
        one_kind = reply(rng) if number % 2 else b""

        def ask(calls: Any, rng: random.Random = rng, one_kind: bytes = one_kind) -> list[Reply]:
            return [one_kind or reply(rng) for _ in calls]

        with bounded():
            verdicts = oracle.judge(ask, [number])
        assert sum(verdict.score for verdict in verdicts) <= 1.0, [one.check.name for one in verdicts if one.score]


def archive(rng: random.Random, folder: Path) -> Path:
    """Return a zip or tar file with odd names and entries, perhaps damaged."""
    names = [rng.choice(["a/../../b", "/etc/x", "ada_p03.ipynb", "C:\\x", "a" * 300, "x/" * 40 + "y", *TEXTS[5:8], "é"])
             for _ in range(rng.randrange(1, 6))]  # fmt: skip
    if rng.random() < 0.5:
        path = folder / "one.zip"
        with zipfile.ZipFile(path, "w") as made:
            for name in dict.fromkeys(names):
                made.writestr(name.replace("\x00", "") or "x", rng.randbytes(rng.randrange(99)))
    else:
        path = folder / "one.tar.gz"
        with tarfile.open(path, "w:gz") as made:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.type = rng.choice(
                    [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
                )
                entry.linkname = rng.choice(["/etc/passwd", "../x", ""])
                made.addfile(entry)
    if rng.random() < 0.6:
        path.write_bytes(damaged(rng, path.read_bytes()))
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_leaves_only_files_below_its_folder(tmp_path: Path):
    for number in range(max(10, INPUTS // 20)):
        place = tmp_path / str(number)
        (place / "out").mkdir(parents=True)
        path = archive(random.Random(f"archive {number}"), place)
        for told in unpack(path, place / "out"):
            told.encode()
        assert sorted(one.name for one in place.iterdir()) == sorted([path.name, "out"])
        for one in (place / "out").rglob("*"):
            assert not one.is_symlink()
            assert one.is_dir() or one.is_file()
