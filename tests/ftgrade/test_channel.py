"""The hop: values cross as themselves or as the name of their type, and no reply is believed without being read."""

import contextlib
import itertools
import json
import math
import os
import socket
import struct
import threading
import time
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ftgrade.errors import AuthorFault
from ftgrade.sandbox import channel, worker
from ftgrade.sandbox.channel import Allowance, Call, Crowded, Deadline, Lost, Raised, Value
from ftgrade.sandbox.worker import FrameError, Other, Stream, decode, encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Pair = tuple[socket.socket, socket.socket]
# A busy machine is no counterexample.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def crossed(value: Any) -> Any:
    """Return what stands at the other end, through the very text of a frame."""
    return decode(json.loads(json.dumps(encode(value))))


def same(one: Any, other: Any) -> bool:
    """Say whether two values are of one type and, bit by bit, one value."""
    if type(one) is not type(other):
        return False
    if torch.is_tensor(one):
        if (one.dtype, one.shape, one.requires_grad) != (other.dtype, other.shape, other.requires_grad):
            return False
        return (
            one.detach().contiguous().reshape(-1).view(torch.uint8).equal(other.detach().reshape(-1).view(torch.uint8))
        )
    if isinstance(one, float | np.floating) and np.isnan(one):  # a scalar crosses as a number: one NaN for all of them
        return bool(np.isnan(other))
    if isinstance(one, np.ndarray | np.generic):
        native = one.astype(one.dtype.newbyteorder("="))
        return native.dtype == other.dtype and one.shape == other.shape and native.tobytes() == other.tobytes()
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    return one == other


# ------------------------------------------------------------------------------------------------------- round trips

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
dtypes = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="?"), hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
)  # fmt: skip
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
arrays = hnp.arrays(dtypes, shapes)
scalars = dtypes.flatmap(hnp.from_dtype).filter(lambda value: isinstance(value, np.generic))


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype, shape = getattr(torch, draw(st.sampled_from(sorted(worker.TORCH_DTYPES)))), draw(shapes)
    size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    flat = torch.frombuffer(data, dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)
    value = (flat % 2).bool() if dtype is torch.bool else flat.view(dtype)
    value = value.reshape(shape)
    if draw(st.booleans()) and value.ndim > 1:
        value = value.transpose(0, 1)
    return value.requires_grad_(draw(st.booleans()) and dtype.is_floating_point)


nested = st.recursive(
    plain | arrays | scalars | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner, max_size=3)
    ),
    max_leaves=5,
)


@unhurried
@given(nested)
def test_what_crosses_is_the_same_bit_by_bit(value: Any):
    assert same(value, crossed(value))


@unhurried
@given(arrays, st.integers(0, 2))
def test_a_view_of_an_array_crosses_as_what_it_shows(value: np.ndarray, axis: int):
    for view in (value.T, np.flip(value), np.rollaxis(value, axis) if axis < value.ndim else value[..., None]):
        assert same(view, crossed(view))


@unhurried
@given(st.lists(plain | tensors(), max_size=4))
def test_a_stream_arrives_as_an_iterator_that_is_walked_once(items: list[Any]):
    arrived = crossed(Stream(items))
    assert isinstance(arrived, Iterator)
    assert same(items, list(arrived))
    assert list(arrived) == []


def test_a_lazy_conjugate_or_negative_crosses_as_its_numbers():
    negative = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert negative.is_neg()
    assert crossed(negative).tolist() == [-2.0, 4.0]


def test_a_parameter_crosses_as_a_tensor_that_wants_a_gradient():
    arrived = crossed(torch.nn.Parameter(torch.ones(2)))
    assert type(arrived) is torch.Tensor
    assert arrived.requires_grad
    assert arrived.is_leaf


def test_an_inference_tensor_stays_one():
    with torch.inference_mode():
        value = torch.ones(2)
    assert crossed(value).is_inference()
    assert not crossed(torch.ones(2)).is_inference()


def test_an_array_that_arrives_may_be_written_to():
    for value in (np.zeros(2), torch.zeros(2)):
        arrived = crossed(value)
        arrived[0] = 1
        assert arrived[0] == 1


def test_only_floating_tensors_are_made_to_want_gradients():
    forged = encode(torch.tensor([1, 2])) | {"requires_grad": True}
    assert not decode(forged).requires_grad


# -------------------------------------------------------------------------------------------------------- names alone


class Int(int):
    __eq__ = lambda self, other: True  # noqa: E731
    __hash__ = int.__hash__


class Float(float):
    pass


class Text(str):
    __slots__ = ()


class List(list):
    pass


class Array(np.ndarray):
    pass


class Tensor(torch.Tensor):
    pass


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Int(7), "Int"),
        (Float(0.5), "Float"),
        (Text("7"), "Text"),
        (List([7]), "List"),
        (Point(1, 2), "Point"),
        (OrderedDict(a=1), "OrderedDict"),
        (np.zeros(2).view(Array), "Array"),
        (np.ma.masked_array([1.0, 2.0]), "MaskedArray"),
        (torch.zeros(2).as_subclass(Tensor), "Tensor"),
        ({1, 2}, "set"),
        (b"7", "bytes"),
        (1 + 2j, "complex"),
        (range(3), "range"),
        (iter([1]), "list_iterator"),
        (len, "builtin_function_or_method"),
        (SimpleNamespace(), "SimpleNamespace"),
        (Int, "type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_of_another_type_crosses_as_a_name_alone(value: Any, name: str):
    sent = encode(value)
    assert list(sent) == ["other"]
    arrived = decode(sent)
    assert isinstance(arrived, Other)
    assert arrived.type_name.endswith(name)


@pytest.mark.parametrize(
    "value",
    [
        np.array([1 + 2j]),
        np.array(["a"]),
        np.array([None]),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
        np.zeros(2, dtype="i4,f8"),
        np.datetime64("2026-01-01"),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, device="meta"),
        torch.eye(2).to_sparse(),
    ],
    ids=str,
)
def test_arrays_of_anything_but_plain_numbers_cross_as_a_name(value: Any):
    assert isinstance(crossed(value), Other)


def test_a_name_stands_inside_what_holds_it():
    assert [type(item) for item in crossed([1, Int(1), (Int(1),)])] == [int, Other, tuple]


def test_a_long_name_is_cut():
    kind = type("N" * 10_000, (), {})
    assert len(crossed(kind()).type_name) == 200
    assert len(decode({"other": "N" * 10_000}).type_name) == 200


# ------------------------------------------------------------------------------------------------------------- limits


def deep(levels: int, make: Any = list) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = make([value])
    return value


@pytest.mark.parametrize(
    "make", [list, tuple, lambda items: {1: items[0]}, Stream], ids=["list", "tuple", "dict", "it"]
)
def test_nesting_ends_at_both_ends_of_the_hop(make: Any):
    sent = encode(deep(worker.MAX_DEPTH, make))
    decode(sent)
    with pytest.raises(FrameError, match="nests at most"):
        encode(deep(worker.MAX_DEPTH + 1, make))
    with pytest.raises(FrameError, match="nests at most"):
        decode([sent])


def test_a_list_that_holds_itself_does_not_cross():
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(FrameError):
        encode(ring)


def test_a_frame_holds_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "MAX_FRAME_BYTES", 100)
    assert len(worker.frame_json("x" * 98)) == 104
    with pytest.raises(FrameError, match="at most 100 bytes"):
        worker.frame_json("x" * 99)
    with pytest.raises(FrameError, match="a tensor of this size"):
        encode(torch.zeros(51, dtype=torch.uint8))
    with pytest.raises(FrameError, match="a tensor of this size"):
        encode(torch.zeros(1).expand(10**9))


def test_a_frame_that_announces_too_much_is_refused_before_it_is_read():
    asked: list[int] = []

    def receive(length: int) -> bytes:
        asked.append(length)
        return struct.pack(">I", worker.MAX_FRAME_BYTES + 1)

    with pytest.raises(FrameError, match="announces"):
        worker.read_frame(receive)
    assert asked == [4]


def test_a_large_frame_is_asked_for_in_pieces():
    body = json.dumps("x" * (3 * 2**20)).encode()
    data = struct.pack(">I", len(body)) + body
    asked: list[int] = []

    def receive(length: int) -> bytes:
        nonlocal data
        asked.append(length)
        part, data = data[:length], data[length:]
        return part

    assert worker.read_frame(receive) == json.loads(body)
    assert max(asked) == 2**20


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[" * 10**5, b"9" * 5_000, b'"\x00"', b"1 2"],
    ids=["empty", "cut-off", "no-utf-8", "deep", "long-number", "control", "two"],
)
def test_bytes_that_are_no_json_are_no_frame(body: bytes):
    data = iter([struct.pack(">I", len(body)), body])
    with pytest.raises(FrameError, match="JSON"):
        worker.read_frame(lambda _: next(data))


# ------------------------------------------------------------------------------------------------------ hostile replies


def array_of(**forged: Any) -> dict[str, Any]:
    return {"array": "float32", "shape": [1], "data": "AAAAAA==", "of": "torch"} | forged


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"tuple": [], "dict": []},
        {"unheard": 1},
        {"tuple": 3},
        {"dict": [1]},
        {"dict": [[1]]},
        {"dict": [[[1], 2]]},
        {"scalar": []},
        {"scalar": ["object", 1]},
        {"scalar": ["complex128", 1]},
        {"scalar": ["int8", 10**30]},
        {"scalar": ["float64", "x"]},
        {"array": "float32"},
        array_of(shape=[2]),
        array_of(shape=[-2]),
        array_of(shape=[math.inf]),
        array_of(shape=[10**30]),
        array_of(shape=3),
        array_of(data="?"),
        array_of(data="AAAA"),
        array_of(data=7),
        array_of(array="object"),
        array_of(array="qint8"),
        array_of(array=["float32"]),
        array_of(of="numpy", array="object"),
        array_of(of="numpy", array="complex64"),
        array_of(of="numpy", array="S4"),
        array_of(of="numpy", shape=[1] * 100),
    ],
    ids=str,
)
def test_what_encode_does_not_make_is_no_value(sent: Any):
    with pytest.raises(FrameError):
        decode(sent)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"missing": "f"}, "missing"),
        ({"unsendable": "deep"}, "unsendable"),
        ({"value": 1}, "protocol"),
        ({"value": 1, "changed": 3}, "protocol"),
        ({"value": 1, "changed": ["x"]}, "protocol"),
        ({"value": 1, "changed": [], "gradients": 3}, "protocol"),
        ({"value": {"unheard": 1}, "changed": []}, "protocol"),
        ({"error": None}, "protocol"),
        ({"error": {}}, "protocol"),
        ({"error": {"names": 3, "message": ""}}, "protocol"),
        ({"error": {"names": [], "message": ""}}, "protocol"),
        ({"error": {"names": {}, "message": ""}}, "protocol"),
        ({"error": {"names": "ValueError", "message": ""}}, "protocol"),
        ({"score": 10}, "protocol"),
        ({}, "protocol"),
        ([], "protocol"),
        (None, "protocol"),
        (7, "protocol"),
        ("value", "protocol"),
    ],
    ids=str,
)
def test_a_reply_without_a_value_is_lost_in_a_named_way(reply: Any, kind: str):
    outcome = channel.outcome_of(reply)
    assert isinstance(outcome, Lost)
    assert outcome.kind == kind


def test_an_error_is_capped():
    outcome = channel.outcome_of({"error": {"names": ["N" * 10**6] * 100, "message": "m" * 10**6, "line": "3"}})
    assert isinstance(outcome, Raised)
    assert [len(name) for name in outcome.names] == [100] * channel.MAX_NAMES
    assert len(outcome.message) == channel.MAX_MESSAGE
    assert outcome.line is None


words = ["float32", "int64", "bool", "bfloat16", "object", "<f8", "V8", "torch", "numpy", "AAAAAA==", "AAAAAAAAAAA="]
keys = st.sampled_from(
    ["value", "changed", "gradients", "error", "names", "message", "line", "missing", "unsendable", "tuple", "dict",
     "scalar", "iterator", "other", "array", "shape", "data", "of", "requires_grad", "inference"]
)  # fmt: skip
atoms = (
    st.none() | st.booleans() | st.integers() | st.integers(-1, 4) | st.floats()
    | st.sampled_from(words) | st.text(max_size=5) | st.text("(,)[]<if48", max_size=4)
)  # fmt: skip
junk = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
forged_values = junk | st.one_of(
    st.fixed_dictionaries(
        {"array": junk, "shape": st.lists(atoms, max_size=3) | junk, "data": junk, "of": junk},
        optional={"requires_grad": junk, "inference": junk},
    ),
    *(st.fixed_dictionaries({kind: junk}) for kind in ("tuple", "dict", "iterator", "other")),
    st.fixed_dictionaries({"scalar": st.tuples(atoms, junk).map(list)}),
)
forged_replies = junk | st.one_of(
    st.fixed_dictionaries(
        {"value": forged_values, "changed": st.just([]) | junk}, optional={"gradients": st.lists(forged_values) | junk}
    ),
    st.fixed_dictionaries({"error": st.fixed_dictionaries({"names": junk, "message": junk}, optional={"line": junk})}),
)


@pytest.mark.filterwarnings("ignore")  # numpy warns of some spellings of a dtype
@unhurried
@given(forged_replies)
def test_whatever_a_reply_says_it_comes_to_an_outcome(reply: Any):
    assert isinstance(channel.outcome_of(json.loads(json.dumps(reply))), Value | Raised | Lost)


def test_an_endless_position_is_a_breach_of_the_protocol():
    outcome = channel.outcome_of({"value": 1, "changed": [math.inf]})
    assert isinstance(outcome, Lost)
    assert outcome.kind == "protocol"


@pytest.mark.parametrize("name", ["i4,(", "(1,2", ","])
def test_a_dtype_that_does_not_parse_is_a_breach_of_the_protocol(name: str):
    outcome = channel.outcome_of({"value": {"scalar": [name, 1]}, "changed": []})
    assert isinstance(outcome, Lost)
    assert outcome.kind == "protocol"


# -------------------------------------------------------------------------------------------------------------- calls


def answered(call: Call, **functions: Any) -> channel.Outcome:
    """Return what a call comes to, through the text of both frames."""
    request = json.loads(json.dumps(call.request))
    return channel.outcome_of(json.loads(json.dumps(worker.call(request, functions))))


def test_a_call_crosses_with_arguments_and_keywords():
    call = Call("f", (torch.tensor([3.0]), [1, 2]), (("scale", 2.0),))
    outcome = answered(call, f=lambda x, items, scale: (x * scale, items[::-1]))
    assert isinstance(outcome, Value)
    assert same(outcome.value, (torch.tensor([6.0]), [2, 1]))
    assert outcome.changed == ()
    assert outcome.gradients is None


def test_a_changed_input_is_told_by_its_position_and_a_walked_stream_is_not():
    def f(first: list[int], second: np.ndarray, third: Iterator[int], _fourth: float) -> int:
        first.append(1)
        second *= 2
        return sum(third)

    outcome = answered(Call("f", ([], np.ones(2), Stream([1, 2]), math.nan)), f=f)
    assert outcome == Value(3, changed=(0, 1))


def test_gradients_come_back_where_they_were_asked_for():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    outcome = answered(Call("f", (x, 3.0), backward=True), f=lambda x, scale: scale * x.square())
    assert isinstance(outcome, Value)
    assert same(outcome.gradients, (torch.tensor([6.0, 12.0]), None))
    cut = answered(Call("f", (x,), backward=True), f=lambda x: x.detach())
    assert isinstance(cut, Value)
    assert cut.gradients is None


def test_an_error_crosses_as_names_a_message_and_nothing_else():
    class RankError(ValueError):
        pass

    def f(_: int) -> None:
        raise RankError("rank must be positive")

    outcome = answered(Call("f", (0,)), f=f)
    assert isinstance(outcome, Raised)
    assert outcome.names == ("RankError", "ValueError", "Exception", "BaseException")
    assert outcome.is_a("ValueError")
    assert outcome.message == "rank must be positive"


def test_an_exit_inside_a_function_is_that_calls_error():
    outcome = answered(Call("f"), f=lambda: exit())
    assert isinstance(outcome, Raised)
    assert outcome.is_a("SystemExit")


def test_a_function_that_is_not_there_is_missing_and_a_deep_value_does_not_cross():
    outcomes = [answered(Call("f")), answered(Call("f"), f=3), answered(Call("f"), f=lambda: deep(99))]
    assert [outcome.kind for outcome in outcomes if isinstance(outcome, Lost)] == ["missing", "missing", "unsendable"]


# ----------------------------------------------------------------------------------------------------------- deadlines


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def answering(theirs: socket.socket, *frames: object, before: bytes = b"") -> threading.Thread:
    """Start the other end: it reads one question, sends `before`, and answers its first item with each of these."""

    def answer() -> None:
        number = worker.read_frame(theirs.recv)["number"]
        theirs.sendall(before)
        for item in frames:
            theirs.sendall(worker.frame_json([number, 0, item]))

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def wall(seconds: float) -> Allowance:
    """Return an allowance of this long on the wall for each reply."""
    return Allowance(seconds, seconds)


def asked(ours: socket.socket, seconds: float = 5.0, item: str = "0") -> Any:
    """Ask one item and return its reply."""
    (reply,) = channel.ask(ours, "call", [item], wall(seconds))
    return json.loads(reply)


def test_a_question_and_its_answer_cross_a_socket(pair: Pair):
    ours, theirs = pair
    thread = answering(theirs, {"value": 7, "changed": []})
    assert asked(ours) == {"value": 7, "changed": []}
    thread.join()


def test_a_reply_that_comes_before_its_question_is_refused(pair: Pair):
    ours, theirs = pair
    theirs.sendall(worker.frame_json([1, 0, {"value": 7, "changed": []}]))
    with pytest.raises(FrameError, match="nobody asked"):
        asked(ours)


def test_a_reply_that_comes_twice_is_refused_at_the_next_question(pair: Pair):
    ours, theirs = pair
    thread = answering(theirs, {"value": 7})
    assert asked(ours) == {"value": 7}
    thread.join()
    theirs.sendall(worker.frame_json([1, 0, {"value": 8}]))
    with pytest.raises(FrameError, match="nobody asked"):
        asked(ours)


def test_a_reply_to_another_question_and_a_frame_that_is_no_reply_are_refused(pair: Pair):
    ours, theirs = pair
    for said in ([0, 0, 1], [True, 0, 1], [0, 1], [1], [], {"to": 1}, "stranger"):
        thread = answering(theirs, before=worker.frame_json(said))
        with pytest.raises(FrameError, match="another question"):
            asked(ours)
        thread.join()


def test_every_item_has_a_reply_of_its_own_and_a_time_of_its_own(pair: Pair):
    ours, theirs = pair

    def answer() -> None:
        request = worker.read_frame(theirs.recv)
        for place, item in enumerate(request["each"]):
            time.sleep(0.4)
            theirs.sendall(worker.frame_json([request["number"], place, item]))

    thread = threading.Thread(target=answer)
    thread.start()
    assert list(channel.ask(ours, "call", ["1", '"two"', "[3]"], wall(1.0))) == [b"1", b'"two"', b"[3]"]
    thread.join()


@pytest.mark.parametrize("said", [[1, 0], [0, 0], [0, 2]], ids=["out of order", "twice", "another place"])
def test_replies_come_in_order_and_each_once(pair: Pair, said: list[int]):
    ours, theirs = pair

    def answer() -> None:
        number = worker.read_frame(theirs.recv)["number"]
        theirs.sendall(b"".join(worker.frame_json([number, place, "x"]) for place in said))

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(FrameError, match="another question"):
        list(channel.ask(ours, "call", ["1", "2"], wall(5.0)))
    thread.join()


def test_bytes_after_the_last_reply_are_refused_with_it(pair: Pair):
    ours, theirs = pair

    def answer() -> None:
        number = worker.read_frame(theirs.recv)["number"]
        theirs.sendall(worker.frame_json([number, 0, "x"]) + b"more")

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(FrameError, match="nobody asked"):
        list(channel.ask(ours, "call", ["1"], wall(5.0)))
    thread.join()


def test_inputs_that_are_too_large_to_send_are_their_authors_fault(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "MAX_FRAME_BYTES", 100)
    with pytest.raises(AuthorFault, match="draw smaller ones"):
        list(channel.ask(pair[0], "call", ["1" * 100], wall(5.0)))


def test_who_greets_is_told_by_the_kernel(pair: Pair):
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    theirs.sendall(worker.frame_json({"ready": True}))
    assert channel.receive_greeting(ours, 5.0) == ({"ready": True}, os.getpid())


def test_silence_ends_at_the_deadline(pair: Pair):
    with pytest.raises(TimeoutError):
        asked(pair[0], 0.02)


def test_silence_of_an_end_that_gets_no_processor_is_a_crowd_and_no_timeout(pair: Pair):
    """Who was kept from computing by its neighbours is tried again; the wall says nothing about it."""
    with pytest.raises(Crowded):
        list(channel.ask(pair[0], "call", ["0"], Allowance(5.0, 0.02, processor=lambda: 0.0)))


@pytest.mark.parametrize("end", [0.5, math.inf], ids=["of all replies together", "of each reply"])
def test_processor_time_that_is_used_up_ends_the_wait_long_before_the_wall(pair: Pair, end: float):
    used = itertools.count()  # a second more with each look
    with pytest.raises(TimeoutError):
        list(channel.ask(pair[0], "call", ["0"], Allowance(2.0, 1e6, lambda: float(next(used)), end)))
    assert next(used) <= 5


def test_the_last_moment_of_all_replies_on_the_wall_comes_before_that_of_each(pair: Pair):
    with pytest.raises(Crowded):
        list(channel.ask(pair[0], "call", ["0"], Allowance(5.0, 1e6, lambda: 0.0, wall_end=time.monotonic() + 0.02)))


def test_every_reply_may_take_its_own_processor_time(pair: Pair):
    ours, theirs = pair
    spent = 0.0

    def answer() -> None:
        nonlocal spent
        request = worker.read_frame(theirs.recv)
        for place, item in enumerate(request["each"]):
            spent += 0.8
            theirs.sendall(worker.frame_json([request["number"], place, item]))
            assert theirs.recv(1)

    thread = threading.Thread(target=answer)
    thread.start()
    replies = channel.ask(ours, "call", ["1", "2", "3"], Allowance(1.0, 1e6, lambda: spent))
    for number in (b"1", b"2", b"3"):
        assert next(replies) == number
        ours.sendall(b"+")
    thread.join()


def test_a_slow_drip_ends_at_the_deadline_although_no_silence_is_long(pair: Pair):
    ours, theirs = pair
    done = threading.Event()

    def drip() -> None:
        # 500 bytes, 2 ms apart: each wait is far below the limit, and all of them together far above it.
        worker.read_frame(theirs.recv)
        theirs.sendall(struct.pack(">I", 500))
        for _ in range(500):
            if done.wait(0.002):
                return
            theirs.sendall(b" ")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(TimeoutError):
            asked(ours, 0.1)
    finally:
        done.set()
        dripping.join()


def test_what_had_come_in_time_is_read_although_we_look_late(pair: Pair):
    """A judge that got no processor for a while would else take a reply for late that was not."""
    ours, theirs = pair
    theirs.sendall(b"waiting")
    late = Deadline(ours, wall(0.0))
    assert late.receive(7) == b"waiting"
    with pytest.raises(TimeoutError):
        late.receive(1)


def test_a_flood_ends_soon_after_the_deadline(pair: Pair):
    ours, theirs = pair
    done = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not done.is_set():
                theirs.send(bytes(2**12))

    flooding = threading.Thread(target=flood)
    flooding.start()
    late, read = Deadline(ours, wall(0.0)), 0
    try:
        while read <= 2 * channel.MAX_LATE_BYTES:
            read += len(late.receive(2**16))
        pytest.fail("it goes on reading")
    except TimeoutError:
        assert read <= channel.MAX_LATE_BYTES + 2**16
    finally:
        done.set()
        ours.close()
        flooding.join()


def test_another_end_that_reads_nothing_does_not_hold_us(pair: Pair):
    with pytest.raises(TimeoutError):
        asked(pair[0], 0.05, json.dumps("x" * 2**22))


@pytest.mark.parametrize("said", [b"", b"\0\0", b"\0\0\0\x09{"], ids=["nothing", "half a length", "half a frame"])
def test_another_end_that_closes_is_told_as_its_end(pair: Pair, said: bytes):
    ours, theirs = pair

    def leave() -> None:
        worker.read_frame(theirs.recv)
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=leave)
    thread.start()
    with pytest.raises(EOFError):
        asked(ours)
    thread.join()


def test_a_broken_pipe_is_the_same_end(pair: Pair):
    ours, theirs = pair
    theirs.close()
    with pytest.raises(EOFError):
        asked(ours)
