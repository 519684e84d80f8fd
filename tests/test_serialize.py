"""Python values and the wire: the table of the contract, errors that name type and place, and errors as values."""

from __future__ import annotations

import array
import dataclasses
import enum
import functools
import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from io import BytesIO
from typing import Any
from uuid import UUID

import attrs
import numpy as np
import pytest
from byhand import Peer

from capnweb_py import (
    COMPILED,
    INVALID_DATE,
    UNDEFINED,
    BigInt,
    LimitExceeded,
    Limits,
    ProtocolError,
    RemoteError,
    RpcError,
    RpcStub,
    RpcTarget,
    SessionOptions,
    TypedArray,
    deserialize,
    serialize,
)
from capnweb_py.codec import CBOR
from capnweb_py.deserialize import Deserializer
from capnweb_py.serialize import Serializer


@attrs.frozen
class Point:
    x: int
    y: int
    _private: int = 3


@dataclasses.dataclass
class Size:
    width: int


class Colour(enum.StrEnum):
    RED = "red"


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

# What is sent, its expression, and what comes back where that is not the same.
TABLE: list[tuple[Any, ...]] = [
    (None, None),
    (True, True),
    ("text \ud800", "text \ud800"),
    (1.5, 1.5),
    (2**53 - 1, 2**53 - 1),
    (-(2**53) + 1, -(2**53) + 1),
    (2**53, ["bigint", "9007199254740992"], BigInt(2**53)),
    (-(2**53), ["bigint", "-9007199254740992"], BigInt(-(2**53))),
    (BigInt(5), ["bigint", "5"], BigInt(5)),
    (BigInt(0), ["bigint", "0"], BigInt(0)),
    ((1 << 4096) + 1, ["bigint", str((1 << 4096) + 1)], BigInt((1 << 4096) + 1)),
    (-(1 << 4096) - 1, ["bigint", str(-(1 << 4096) - 1)], BigInt(-(1 << 4096) - 1)),
    (UNDEFINED, ["undefined"]),
    (math.inf, ["inf"]),
    (-math.inf, ["-inf"]),
    ([1, [2]], [[1, [[2]]]]),
    ((1, 2), [[1, 2]], [1, 2]),
    ([], [[]]),
    (["date", 1], [["date", 1]]),
    ({"a": [], "": {}}, {"a": [[]], "": {}}),
    (Point(1, 2), {"x": 1, "y": 2}, {"x": 1, "y": 2}),
    (Size(3), {"width": 3}, {"width": 3}),
    (b"\xfb\xff", ["bytes", "+/8"]),
    (bytearray(b"a"), ["bytes", "YQ"], b"a"),
    (memoryview(b"a"), ["bytes", "YQ"], b"a"),
    (array.array("h", [1]), ["bytes", "AQA", "Int16Array"], TypedArray("Int16Array", b"\1\0")),
    (memoryview(array.array("h", [1])), ["bytes", "AQA", "Int16Array"], TypedArray("Int16Array", b"\1\0")),
    (np.array([1], "<u4"), ["bytes", "AQAAAA", "Uint32Array"], TypedArray("Uint32Array", b"\1\0\0\0")),
    (TypedArray("DataView", b"a"), ["bytes", "YQ", "DataView"]),
    (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), ["date", 1000]),
    (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), ["date", 0.001]),
    (NOON.astimezone(timezone(timedelta(hours=5))), ["date", 1767355200000], NOON),
    (datetime.max.replace(tzinfo=UTC), ["date", 253402300799999], datetime(9999, 12, 31, 23, 59, 59, 999000, UTC)),
    (INVALID_DATE, ["date", None]),
    (Colour.RED, "red", "red"),
    (np.float64(0.5), 0.5, 0.5),
]  # fmt: skip


def named(value: object) -> str:
    """The name of a case, the same in each process that collects it."""
    return f"<{type(value).__name__}>" if isinstance(value, memoryview) else ascii(value)


@pytest.mark.parametrize(("value", "expression", "back"), [(*row, row[0])[:3] for row in TABLE], ids=named)
def test_a_value_has_its_expression_and_comes_back(value: Any, expression: Any, back: Any) -> None:
    text = serialize(value)
    assert json.loads(text) == expression
    again = deserialize(text)
    assert again == back
    assert type(again) is type(back)


@pytest.mark.parametrize(
    "text",
    [
        "null", "123", '"foo"', "true", "false", '{"foo":123}', '{"foo":{"bar":123,"baz":456},"qux":789}', "[[123]]",
        "[[[[123,456]]]]", '{"foo":[[123]]}', '{"foo":[[123]],"bar":[[456,789]]}', '["bigint","123"]', '["date",1234]',
        '["date",null]', '["bytes","aGVsbG8h"]', '["bytes","SGVsbG8"]', '["undefined"]', '["inf"]',
        '["-inf"]', '["nan"]', '["error","Error","message"]', '["error","TypeError","message"]',
        '["error","RangeError","message"]',
    ],
)  # fmt: skip
def test_a_text_is_written_again_as_it_was_read(text: str) -> None:
    assert serialize(deserialize(text)) == text


def test_values_inside_values_come_back() -> None:
    value = {
        "one": {"two": {"list": [1, 2, {"deep": "text"}], "date": NOON, "none": None, "undefined": UNDEFINED}},
        "lists": [[1, 2], [], [[3, 4]]],
        "bytes": [b"a", {"more": b""}],
    }
    assert deserialize(serialize(value)) == value


@pytest.mark.parametrize(
    "data",
    [bytes(range(256)) * 800, b"Hello=", b"=", b"==", b"\x01\x02\x03\x04\x05", b"\0" * 4, b""],
    ids=["long", "ends with =", "=", "==", "padded", "zeros", "empty"],
)
def test_bytes_of_any_length_and_value_come_back_without_padding(data: bytes) -> None:
    text = serialize(data)
    assert "=" not in text
    assert deserialize(text) == data


def test_nan_comes_back() -> None:
    assert json.loads(serialize(math.nan)) == ["nan"]
    assert math.isnan(deserialize('["nan"]'))


def test_integers_have_as_many_digits_as_the_limit_allows() -> None:
    # More than Python's own limit of 4,300, which is the whole process's.
    assert json.loads(serialize(-(10**5000))) == ["bigint", "-1" + "0" * 5000]
    assert deserialize(serialize(7**15_000)) == 7**15_000
    with pytest.raises(TypeError, match="the int has more digits than max_bigint_digits = 16384"):
        serialize(10**16_400)


def test_numbers_beyond_the_exact_ones_are_doubles_as_in_javascript() -> None:
    number = deserialize("9007199254740993")
    assert type(number) is float
    assert number == 9007199254740992.0


def f() -> None: ...


class Color(enum.Enum):
    RED = "red"


class Unspeakable:
    """Has no text to put into a message."""

    def __repr__(self) -> str:
        raise AssertionError("nobody may ask")

    __str__ = __repr__


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({1}, "a value of the type set cannot be sent: send a list (at the value)"),
        ([1, {"a": (2, {3})}], "a value of the type set cannot be sent: send a list (at the value[1]['a'][1])"),
        (NOON.replace(tzinfo=None), "a naive datetime cannot be sent: give it a time zone, such as datetime.UTC"),
        (date(2026, 1, 1), "a value of the type datetime.date cannot be sent: send an aware datetime, or its text"),
        (math, "a value of the type module cannot be sent"),
        (object(), "a value of the type object cannot be sent: make it a dict, an attrs class or a dataclass"),
        (range(3), "range cannot be sent: send a list"),
        (UUID(int=1), "UUID cannot be sent: send str(value)"),
        (Color.RED, "Color cannot be sent: send value.value"),
        (timedelta(1), "timedelta cannot be sent: send value.total_seconds()"),
        (BytesIO(b"x"), "BytesIO cannot be sent: send its content, or an async generator"),
        (Point, "the class Point cannot be sent: pass an instance of it, or a function"),
        ({1: 2}, "a dict's keys must be str to be sent, and 1 is int (at the value[1])"),
        (Unspeakable(), "a value of the type test_serialize.Unspeakable cannot be sent"),
        (np.float32(1), "a value of the type numpy.float32 cannot be sent: send value.item()"),
        (
            np.ma.masked_array([1.0, 2.0], [True, False]),
            "numpy.ma.MaskedArray cannot be sent, for its mask would be lost: send value.filled(...), or the mask",
        ),
        (np.zeros((2, 2)), "numpy.ndarray cannot be sent: an array of 2 dimensions has no typed array"),
        (Point(1, {2}), "a value of the type set cannot be sent: send a list (at the value['y'])"),
    ],
)
def test_what_cannot_be_sent_is_a_type_error_with_type_and_place(value: Any, problem: str) -> None:
    with pytest.raises(TypeError) as caught:
        serialize(value)
    assert problem in str(caught.value)


@pytest.mark.parametrize("value", [f, RpcTarget(), RpcStub(f), len, functools.partial(f), RpcStub({"a": 1}).a])
def test_nothing_passes_by_reference_without_a_session(value: Any) -> None:
    with pytest.raises(TypeError, match="needs a session for that"):
        serialize(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeError, match=r"the value nests deeper than max_depth = 256: does it contain itself?"):
        serialize(value)


def nested(depth: int, innermost: Any, wrap: Callable[[Any], Any]) -> Any:
    for _ in range(depth):
        innermost = wrap(innermost)
    return innermost


def test_what_nests_as_deep_as_may_be_sent_can_be_read() -> None:
    deepest = nested(255, 1, lambda value: [value])
    assert deserialize(serialize(deepest)) == deepest
    with pytest.raises(TypeError, match="max_depth"):
        serialize([deepest])
    with pytest.raises(LimitExceeded, match="max_depth = 256"):
        deserialize(json.dumps(nested(256, 1, lambda value: [[value]])))


@pytest.mark.parametrize("innermost", [1, "text", None, {}, []])
@pytest.mark.parametrize(
    ("wrap", "written"),
    [
        (lambda value: [value], lambda value: [[value]]),
        (lambda value: {"a": value}, lambda value: {"a": value}),
    ],
    ids=["list", "dict"],
)
def test_reading_is_as_strict_about_depth_as_sending(
    innermost: Any, wrap: Callable[[Any], Any], written: Callable[[Any], Any]
) -> None:
    expression = [[]] if innermost == [] else innermost
    assert deserialize(json.dumps(nested(255, expression, written))) == nested(255, innermost, wrap)
    with pytest.raises(TypeError, match="max_depth"):
        serialize(nested(256, innermost, wrap))
    with pytest.raises(LimitExceeded, match="max_depth"):
        deserialize(json.dumps(nested(256, expression, written)))


@pytest.mark.skipif(COMPILED, reason="compiled functions take no room on Python's stack")
def test_a_value_too_deep_for_the_stack_is_refused_as_any_other_that_is_too_deep() -> None:
    value = nested(250, 1, lambda value: [value])
    text = serialize(value)

    def deep_down(levels: int, function: Callable[[], Any]) -> Any:
        return deep_down(levels - 1, function) if levels else function()

    for function, problem in ((lambda: serialize(value), TypeError), (lambda: deserialize(text), LimitExceeded)):
        with pytest.raises(problem, match="there is no room on Python's stack"):
            deep_down(sys.getrecursionlimit() - 300, function)


class Contrary(float):
    """A number that says of itself what it is not."""

    def __gt__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    def __float__(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("number", "text"), [("inf", '["inf"]'), ("-inf", '["-inf"]'), ("nan", '["nan"]'), ("2.5", "2.5")]
)
def test_a_float_subclass_is_sent_as_the_number_that_it_is(number: str, text: str) -> None:
    assert serialize(Contrary(number)) == text


def test_an_error_at_the_limit_of_depth_leaves_out_what_lies_deeper() -> None:
    error = Oops("deep")
    error.code = 7  # type: ignore[attr-defined]
    again = deserialize(serialize(nested(255, error, lambda value: [value])))
    for _ in range(255):
        (again,) = again
    assert (again.name, again.message, again.props) == ("Oops", "deep", {})


@pytest.mark.parametrize(
    "text",
    [
        "[]", "[1]", "[[],[]]", '["no such form"]', '[["a"],1]',
        '["bigint"]', '["bigint",5]', '["bigint",""]', '["bigint","1.5"]', '["bigint","0x10"]', '["bigint"," 1"]',
        '["bigint","1_000"]', '["bigint","\u0661"]', '["date"]', '["date","2026"]', '["date",true]',
        '["bytes"]', '["bytes",1]', '["bytes","@@"]', '["bytes","A"]', '["bytes","YQ","Float16Array"]',
        '["bytes","YQ","Int16Array"]', '["bytes","YQ",5]', '["error"]', '["error","E"]', '["error",1,"m"]',
        '["error","E","m",null,5]', '["import",0]', '["pipeline",0]', '["export",-1]', '["promise",-1]',
        "not json", "", '{"unclosed": ', '["unclosed", ',
    ],
)  # fmt: skip
def test_a_text_that_is_no_value_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        deserialize(text)


def test_a_bigint_of_as_many_digits_as_the_limit_is_read() -> None:
    assert deserialize(json.dumps(["bigint", "9" * 16_384])) == 10**16_384 - 1


def test_a_bigint_of_too_many_digits_is_refused_before_it_is_read() -> None:
    with pytest.raises(LimitExceeded, match="a bigint has more than max_bigint_digits = 16384 digits"):
        deserialize(json.dumps(["bigint", "1" * 16_385]))


def test_a_date_that_python_lacks_is_an_error_of_its_own() -> None:
    with pytest.raises(RpcError, match="ms since 1970 is beyond the dates that Python has"):
        deserialize('["date",1e300]')


@pytest.mark.anyio
@pytest.mark.parametrize("number", [1e17, 1e20, -1e20, 1.5e-6, 5e-324, 0.5])
async def test_a_float_stays_one_on_this_side(number: float) -> None:
    echoed = await RpcStub(lambda value: value)(number)
    assert (type(echoed), echoed) == (float, number)


# Errors.


class Oops(Exception):
    pass


def received(error: BaseException) -> RemoteError:
    again = deserialize(serialize(error))
    assert isinstance(again, RemoteError)
    return again


def test_an_error_has_its_class_and_message() -> None:
    error = received(TypeError("no"))
    assert (error.name, error.message, str(error), error.stack) == ("TypeError", "no", "no", None)
    assert isinstance(error, TypeError)
    assert received(Oops("x")).name == "Oops"
    assert str(received(KeyError("key"))) == "key"


# What JavaScript finds on any object, and Python on any class.
INHERITED = [
    "constructor",
    "toString",
    "valueOf",
    "hasOwnProperty",
    "__proto__",
    "__class__",
    "__init__",
    "__dict__",
    "mro",
]


@pytest.mark.parametrize(
    "name", [*vars(__import__("builtins")), *INHERITED, "RangeError", "\ud800", "a\0b", "", "x" * 1000]
)
def test_an_error_of_any_name_can_be_received(name: str) -> None:
    error = deserialize(json.dumps(["error", name, "message"]))
    assert isinstance(error, RemoteError)
    assert isinstance(error, Exception)
    assert (error.name, str(error)) == (name, "message")


@pytest.mark.parametrize(
    "name", ["SystemExit", "KeyboardInterrupt", "StopIteration", "StopAsyncIteration", "GeneratorExit"]
)
def test_no_error_of_a_peer_steers_this_program(name: str) -> None:
    error = deserialize(json.dumps(["error", name, "message"]))
    assert type(error) is RemoteError


@pytest.mark.parametrize("name", ["RpcError", "SessionClosed", "ProtocolError", "LimitExceeded", "RemoteError"])
def test_no_error_of_a_peer_speaks_for_this_sides_session(name: str) -> None:
    error = deserialize(json.dumps(["error", name, "message"]))
    assert type(error) is RemoteError
    assert error.name == name


def test_causes_groups_and_attributes_travel() -> None:
    error = Oops("outer")
    error.__cause__ = ValueError("inner")
    error.code = 7  # type: ignore[attr-defined]
    error._hidden = 8  # type: ignore[attr-defined]
    again = received(error)
    assert isinstance(again.__cause__, ValueError)
    assert again.code == 7  # type: ignore[attr-defined]
    assert set(again.props) == {"cause", "code"}
    group = received(ExceptionGroup("many", [TypeError("one"), Oops("two")]))
    assert isinstance(group, ExceptionGroup)
    assert (group.name, group.message) == ("AggregateError", "many")
    assert [type(one).__name__ for one in group.exceptions] == ["TypeError", "RemoteError"]


def test_a_peers_properties_replace_nothing_that_an_exception_has() -> None:
    props = dict.fromkeys(
        ["args", "__traceback__", "__class__", "with_traceback", "message", "not a name", "class", "fine"], 1
    )
    error = deserialize(json.dumps(["error", "OSError", "message", None, props]))
    assert error.args == ("message",)
    assert error.message == "message"
    assert error.fine == 1
    assert error.props == props


def test_a_property_that_cannot_be_sent_is_left_out_of_its_error() -> None:
    error = Oops("message")
    error.bad, error.good = {1}, 2  # type: ignore[attr-defined]
    assert received(error).props == {"good": 2}
    del error.good  # type: ignore[attr-defined]
    assert (received(error).message, received(error).props) == ("message", {})


def test_an_error_is_relayed_as_it_came() -> None:
    text = '["error","RangeError","too far",null,{"code":5,"cause":["error","TypeError","inner"]}]'
    assert json.loads(serialize(deserialize(text))) == json.loads(text)


class Thrower(RpcTarget):
    def throw(self) -> None:
        raise ValueError("secret details")

    def give(self) -> Any:
        return {"target": Thrower(), "bad": {1}}


def test_tracebacks_stay_here_unless_on_send_error_lets_them_go() -> None:
    assert Peer(Thrower()).call("throw") == ["reject", 1, ["error", "ValueError", "secret details"]]
    options = SessionOptions(on_send_error=lambda error: error)
    stack = Peer(Thrower(), options).call("throw")[2][3]
    assert stack.startswith("Traceback")
    assert 'raise ValueError("secret details")' in stack


def test_an_error_that_fails_another_call_keeps_its_traceback() -> None:
    peer = Peer(Thrower(), SessionOptions(on_send_error=lambda error: error))
    peer.say("push", ["pipeline", 0, ["throw"], []])
    peer.say("stream", ["pipeline", 0, ["throw"], [["pipeline", 1]]])
    peer.say("pull", 1)
    for answer in peer.hear():
        assert 'raise ValueError("secret details")' in answer[2][3]


def test_on_send_error_sends_another_error() -> None:
    options = SessionOptions(on_send_error=lambda error: RuntimeError("hidden"))
    assert Peer(Thrower(), options).call("throw") == ["reject", 1, ["error", "RuntimeError", "hidden"]]


def test_an_error_may_bring_a_stack_of_its_own() -> None:
    def rewrite(error: BaseException) -> BaseException:
        rewritten = TypeError("rewritten")
        rewritten.stack = "a stack"  # type: ignore[attr-defined]
        return rewritten

    answer = Peer(Thrower(), SessionOptions(on_send_error=rewrite)).call("throw")
    assert answer == ["reject", 1, ["error", "TypeError", "rewritten", "a stack"]]


def test_the_properties_sent_are_those_of_the_rewritten_error() -> None:
    class Leaky(RpcTarget):
        def throw(self) -> None:
            error = Oops("original")
            error.code, error.secret = 1, "details"  # type: ignore[attr-defined]
            raise error

    def rewrite(error: BaseException) -> BaseException:
        rewritten = Oops("rewritten")
        rewritten.code = 2  # type: ignore[attr-defined]
        return rewritten

    def scrub(error: BaseException) -> BaseException:
        del error.secret  # type: ignore[attr-defined]
        return error.with_traceback(None)

    answer = Peer(Leaky(), SessionOptions(on_send_error=rewrite)).call("throw")
    assert answer == ["reject", 1, ["error", "Oops", "rewritten", None, {"code": 2}]]
    answer = Peer(Leaky(), SessionOptions(on_send_error=scrub)).call("throw")
    assert answer == ["reject", 1, ["error", "Oops", "original", None, {"code": 1}]]


def test_on_send_error_is_asked_for_every_error_inside_another() -> None:
    asked: list[str] = []
    options = SessionOptions(on_send_error=lambda error: asked.append(str(error)))
    error = ExceptionGroup("all", [TypeError("one"), ExceptionGroup("some", [OSError("two")])])
    error.__cause__ = ValueError("why")
    peer = Peer(lambda: [error], options)
    peer.say("stream", ["pipeline", 0, [], []])
    peer.hear()
    assert [text.split(" (")[0] for text in asked] == ["all", "why", "one", "some", "two"]


def test_groups_nest_and_causes_may_be_anything() -> None:
    error = ExceptionGroup("all", [TypeError("one"), ExceptionGroup("some", [OSError("two")])])
    error.__cause__ = ValueError("why")
    again = received(error)
    assert isinstance(again, ExceptionGroup)
    assert isinstance(again.__cause__, ValueError)
    [one, some] = again.exceptions
    assert isinstance(one, TypeError)
    assert isinstance(some, ExceptionGroup)
    assert isinstance(some.exceptions[0], OSError)
    odd = deserialize('["error","AggregateError","odd",null,{"cause":"boom","errors":[[1]]}]')
    assert (odd.cause, odd.__cause__, odd.errors) == ("boom", None, [1])


def test_name_message_and_stack_are_no_properties() -> None:
    error = Oops("message")
    error.name, error.message, error.stack, error.code = "a", "b", "c", 4  # type: ignore[attr-defined]
    assert json.loads(serialize(error)) == ["error", "Oops", "message", None, {"code": 4}]
    relayed = deserialize('["error","Error","m",null,{"name":"a","message":"b","stack":"c","code":4}]')
    assert json.loads(serialize(relayed)) == ["error", "Error", "m", None, {"code": 4}]


@pytest.mark.parametrize("props", [None, 42, "text", [[1]], True])
def test_the_properties_of_an_error_are_an_object(props: Any) -> None:
    with pytest.raises(ProtocolError, match="malformed 'error'"):
        deserialize(json.dumps(["error", "Error", "m", None, props]))


def test_an_error_that_contains_itself_is_sent_without_that() -> None:
    error = Oops("round")
    error.me, error.code = error, 1  # type: ignore[attr-defined]
    again = received(error)
    assert (again.message, again.props["code"]) == ("round", 1)


@pytest.mark.parametrize("key", ["__proto__", "constructor", "toString", "toJSON", "valueOf"])
def test_keys_that_mean_something_to_javascript_are_keys_here(key: str) -> None:
    assert deserialize(serialize({key: 1})) == {key: 1}
    assert deserialize(json.dumps(["error", "Error", "m", None, {key: 1}])).props == {key: 1}


def test_numpy_arrays_come_and_go_without_a_copy() -> None:
    data = bytes(range(256)) * 16
    peer = Peer()
    [[_, sent, kind]] = Serializer(peer.session, Limits()).write_arguments([np.frombuffer(data, "<f4")])
    assert sent is data
    tree = CBOR.decode(*CBOR.encode(["bytes", sent, kind]))
    received = Deserializer(peer.session, Limits()).read(tree).value
    assert received.data is tree[1]
    elements = np.asarray(received)
    assert elements.dtype == np.dtype("<f4")
    assert np.shares_memory(elements, np.frombuffer(received.data, "u1"))
    # And on to the next peer, as it is.
    assert Serializer(peer.session, Limits()).write_arguments([elements])[0][1] is received.data


def test_an_error_is_hidden_if_on_send_error_fails() -> None:
    def fail(error: BaseException) -> BaseException:
        raise error

    answer = Peer(Thrower(), SessionOptions(on_send_error=fail)).call("throw")
    assert answer == ["reject", 1, ["error", "RpcError", "an error occurred"]]


# Sending in a session.


def test_a_call_that_cannot_be_sent_fails_alone_and_leaves_nothing_exported() -> None:
    peer = Peer()
    with pytest.raises(TypeError, match=r"type set cannot be sent: send a list \(at arguments\[1\]\['x'\]\)"):
        peer.main.f([f, Thrower(), RpcStub(f)], {"x": {1}})
    assert peer.hear() == []
    assert peer.session.stats().exports == 1
    peer.main.f(1)
    assert peer.hear() == [["push", ["pipeline", 0, ["f"], [1]]], ["release", 1, 1]]


def test_a_result_that_cannot_be_sent_fails_its_call_and_leaves_nothing_exported() -> None:
    peer = Peer(Thrower())
    problem = "a value of the type set cannot be sent: send a list (at the result['bad'])"
    assert peer.call("give") == ["reject", 1, ["error", "TypeError", problem]]
    assert peer.session.stats().exports == 1


def test_a_promise_published_in_what_cannot_be_sent_is_taken_back() -> None:
    peer = Peer()
    with pytest.raises(TypeError):
        peer.main.f(RpcStub({"a": 1}).a, {1})
    assert peer.hear() == []
    assert peer.session.stats().exports == 1


@pytest.mark.parametrize("depth", [10, 400])
def test_a_session_sends_no_value_that_is_deeper_than_its_own_limit(depth: int) -> None:
    peer = Peer(None, SessionOptions(limits=Limits(max_depth=10)))
    with pytest.raises(TypeError, match="max_depth = 10"):
        peer.main.f(nested(depth, 1, lambda value: {"a": value}))
