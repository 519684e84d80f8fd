"""Properties of the core under generated input: values survive, and a hostile peer gets a clean end at worst."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import anyio
import cbor2
import pytest
from byhand import Peer
from hypothesis import given, settings
from hypothesis import strategies as st

from capnweb_py import (
    INVALID_DATE,
    UNDEFINED,
    BigInt,
    RemoteError,
    RpcSession,
    RpcStub,
    RpcTarget,
    SessionStats,
    TypedArray,
    deserialize,
    memory_pair,
    serialize,
)
from capnweb_py.codec import CBOR, JSON, Codec

# Values.

ELEMENT_SIZES = {
    "ArrayBuffer": 1, "DataView": 1, "Int8Array": 1, "Uint8Array": 1, "Uint8ClampedArray": 1, "Int16Array": 2,
    "Uint16Array": 2, "Int32Array": 4, "Uint32Array": 4, "BigInt64Array": 8, "BigUint64Array": 8, "Float32Array": 4,
    "Float64Array": 8,
}  # fmt: skip

texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
# Of these years a double holds the microseconds.
dates = st.datetimes(
    datetime(1900, 1, 1),  # noqa: DTZ001
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
typed_arrays = st.sampled_from(sorted(ELEMENT_SIZES)).flatmap(
    lambda kind: st.integers(0, 4).flatmap(
        lambda count: st.binary(min_size=count * ELEMENT_SIZES[kind], max_size=count * ELEMENT_SIZES[kind]).map(
            lambda data: TypedArray(kind, data)
        )
    )
)
errors = st.builds(
    lambda cls, message, code: _with_code(cls(message), code),
    st.sampled_from([ValueError, TypeError, OSError, KeyError, MemoryError, RuntimeError]),
    texts,
    st.integers(-5, 5),
)
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.integers().map(BigInt),
    st.floats(),
    texts,
    st.binary(max_size=40),
    st.sampled_from([UNDEFINED, INVALID_DATE]),
    dates,
    typed_arrays,
    errors,
)
values = st.recursive(
    atoms,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts, inner, max_size=5)),
    max_leaves=20,
)


def _with_code(error: Exception, code: int) -> Exception:
    error.code = code  # type: ignore[attr-defined]
    return error


def same(sent: Any, received: Any) -> bool:
    """Whether what was received is what the contract says of what was sent."""
    if isinstance(sent, list):
        return type(received) is list and len(sent) == len(received) and all(map(same, sent, received))
    if isinstance(sent, dict):
        return (
            type(received) is dict
            and list(sent) == list(received)
            and all(same(sent[key], received[key]) for key in sent)
        )
    if isinstance(sent, Exception):
        return (
            isinstance(received, RemoteError)
            and isinstance(received, type(sent))
            and received.message == (sent.args[0] if isinstance(sent, KeyError) else str(sent))
            and received.props == {"code": sent.code}  # type: ignore[attr-defined]
        )
    if isinstance(sent, float) and sent.is_integer() and abs(sent) < 2**53:
        return type(received) is int and sent == received
    if isinstance(sent, float):
        return type(received) is float and (sent == received or (math.isnan(sent) and math.isnan(received)))
    if isinstance(sent, int) and not isinstance(sent, bool):
        exact = abs(sent) < 2**53 and type(sent) is int
        return type(received) is (int if exact else BigInt) and sent == received
    if isinstance(sent, datetime):
        return sent == received and received.tzinfo is UTC
    return type(sent) is type(received) and bool(sent == received)


@given(values)
def test_every_value_survives_the_codec(value: Any) -> None:
    assert same(value, deserialize(serialize(value)))


class Echo(RpcTarget):
    def plain(self, value: Any = None) -> Any:
        return value

    async def later(self, value: Any = None) -> Any:
        await anyio.lowlevel.checkpoint()
        return value

    def call(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    def fail(self) -> None:
        raise ValueError("failed")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("codec", ["json", "cbor"])
def test_every_value_survives_a_call_there_and_back(backend: str, codec: str) -> None:
    @given(values)
    @settings(max_examples=100)
    def check(value: Any) -> None:
        async def there_and_back() -> tuple[Any, Any]:
            async with memory_pair(None, Echo(), codec=codec) as (client, server):
                results = await client.remote_main.plain(value), (await client.remote_main.later([value]))[0]
                await anyio.wait_all_tasks_blocked()
                assert client.stats() == server.stats() == SessionStats(1, 1)
                return results

        for result in anyio.run(there_and_back, backend=backend):
            assert same(value, result)

    check()


# Hostile peers.

ids = st.one_of(st.integers(-6, 8), st.sampled_from([2**53, -(2**63), 1.0, True, None, "0", 2**64 - 1]))
names = st.sampled_from(["plain", "call", "fail", "then", "__class__", "", 0, -1, 1.5, None, True, "\ud800"])
paths = st.lists(names, max_size=4)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), texts, st.just(["undefined"]), st.just(["date", 1e300]),
    st.just(["bigint", "9" * 5000]), st.just(["bytes", "YQ"]), st.just(["bytes", "!"]), st.just(["nonsense"]), st.just([]),  # noqa: E501
)  # fmt: skip
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: [items]),
        st.dictionaries(texts, inner, max_size=3),
        st.builds(lambda number: ["import", number], ids),
        st.builds(lambda number: ["export", number], ids),
        st.builds(lambda number: ["promise", number], ids),
        st.builds(lambda number, path: ["pipeline", number, path], ids, paths),
        st.builds(
            lambda number, path, arguments: ["pipeline", number, path, arguments],
            ids,
            paths,
            st.lists(inner, max_size=3),
        ),
        st.builds(
            lambda name, props: ["error", name, "message", None, props],
            texts,
            st.dictionaries(texts, inner, max_size=2),
        ),
        st.lists(inner, max_size=4),
    ),
    max_leaves=8,
)
# Messages that an honest peer could send, more often than not: so that a session lasts for a few of them.
sound = st.one_of(
    st.builds(
        lambda kind, value: [kind, ["pipeline", 0, ["plain"], [value]]], st.sampled_from(["push", "stream"]), leaves
    ),
    st.builds(lambda number: ["push", ["pipeline", 0, ["call"], [["export", number]]]], st.integers(-5, -1)),
    st.builds(lambda number: ["push", ["pipeline", 0, ["plain"], [["promise", number]]]], st.integers(-9, -6)),
    st.builds(lambda number: ["resolve", number, ["pipeline", 1]], st.integers(-9, 3)),
    st.builds(lambda number: ["push", ["pipeline", number, ["x"]]], st.integers(1, 3)),
    st.builds(lambda number: ["push", ["import", number]], st.integers(1, 3)),
    st.builds(lambda number: ["pull", number], st.integers(1, 4)),
    st.builds(lambda number: ["release", number, 1], st.integers(1, 4)),
)
messages = st.one_of(
    sound,
    st.builds(lambda kind, value: [kind, value], st.sampled_from(["push", "stream", "pull", "abort"]), expressions),
    st.builds(
        lambda kind, number, value: [kind, number, value], st.sampled_from(["resolve", "reject"]), ids, expressions
    ),
    st.builds(lambda number, count: ["release", number, count], ids, ids),
    expressions,
)


def survive(feed: list[tuple[bytes | str, bool]], codec: Codec) -> None:
    """Feed a session, and end it: nothing may come out of it but messages, and nothing may stay in it."""
    host = Peer()
    main = Echo()
    session = RpcSession(host, main, codec=codec)
    session.remote_main.call(main.plain)
    promise = session.remote_main.plain(main.plain)
    session.messages_to_send()
    for data, binary in feed:
        session.receive(data, binary)
        for message in session.messages_to_send():
            assert type(codec.decode(*message)) is list
    internal = session.end is not None and "internal error" in str(session.end)
    assert not internal, f"the session broke by itself: {session.end}"
    session.close()
    session.messages_to_send()
    assert session.stats() == SessionStats(0, 0)
    del promise


@given(st.lists(messages, max_size=12))
@settings(max_examples=600)
def test_any_messages_end_in_a_clean_abort_or_none(feed: list[Any]) -> None:
    survive([(json.dumps(message), False) for message in feed], JSON)


@given(st.lists(messages, max_size=8), st.data())
@settings(max_examples=300)
def test_any_mangled_json_ends_in_a_clean_abort_or_none(feed: list[Any], data: st.DataObject) -> None:
    survive([(mangled(json.dumps(message).encode(), data), False) for message in feed], JSON)


@given(st.lists(sound, max_size=8), st.data())
@settings(max_examples=300)
def test_any_mangled_cbor_ends_in_a_clean_abort_or_none(feed: list[Any], data: st.DataObject) -> None:
    encodable = [message for message in feed if "\\ud8" not in json.dumps(message)]
    survive([(mangled(cbor2.dumps(message), data), True) for message in encodable], CBOR)


@given(st.lists(st.binary(max_size=60), max_size=4), st.booleans())
def test_any_bytes_end_in_a_clean_abort(feed: list[bytes], binary: bool) -> None:
    survive([(data, binary) for data in feed], CBOR)


def mangled(message: bytes, data: st.DataObject) -> bytes:
    """The bytes with some of them changed, doubled or left out; often with none."""
    flips = data.draw(
        st.lists(st.tuples(st.integers(0, len(message)), st.integers(0, 255), st.sampled_from("=+-")), max_size=2)
    )
    for position, byte, operation in flips:
        head, tail = message[:position], message[position:]
        message = {"=": head + bytes([byte]) + tail[1:], "+": head + bytes([byte]) + tail, "-": head + tail[1:]}[
            operation
        ]
    return message


# Maps.


class Functions(RpcTarget):
    """What callbacks call: the same for a recording and for plain Python."""

    def pair(self, left: Any, right: Any) -> list[Any]:
        return [left, right]

    def wrap(self, value: Any, *, name: str = "value") -> dict[str, Any]:
        return {name: value}

    def size(self, value: Any) -> int:
        return len(json.dumps(value))


records = st.recursive(
    st.fixed_dictionaries({"number": st.integers(0, 9), "text": st.text("ab", max_size=3), "rows": st.just([])}),
    lambda inner: st.fixed_dictionaries(
        {"number": st.integers(0, 9), "text": st.text("ab", max_size=3), "rows": st.lists(inner, max_size=3)}
    ),
    max_leaves=8,
)

# The body of a callback: a tree of steps, in which `level` counts the items that are there, modulo how many.
bodies = st.recursive(
    st.one_of(
        st.tuples(
            st.just("constant"), st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.text("ab", max_size=3))
        ),
        st.tuples(st.just("item"), st.integers(0, 3)),
        st.tuples(st.just("member"), st.integers(0, 3), st.sampled_from(["number", "text", "rows"])),
    ),
    lambda inner: st.one_of(
        st.tuples(st.just("list"), st.lists(inner, max_size=3)),
        st.tuples(st.just("dict"), st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)),
        st.tuples(st.just("pair"), inner, inner),
        st.tuples(st.just("second"), inner, inner),
        st.tuples(st.just("wrap"), inner),
        st.tuples(st.just("size"), inner),
        st.tuples(st.just("map"), st.integers(0, 3), inner),
    ),
    max_leaves=10,
)


def evaluate(body: Any, items: list[Any], functions: Any, over: Callable[[Any, Callable[[Any], Any]], Any]) -> Any:
    """What a callback does: with placeholders to be recorded, or with values. `over` maps the rows of an item."""

    def inner(part: Any) -> Any:
        return evaluate(part, items, functions, over)

    match body:
        case "constant", value:
            return value
        case "item", level:
            return items[level % len(items)]
        case "member", level, name:
            return items[level % len(items)][name]
        case "list", parts:
            return [inner(part) for part in parts]
        case "dict", parts:
            return {name: inner(part) for name, part in parts.items()}
        case "pair", left, right:
            return functions.pair(inner(left), inner(right))
        case "second", left, right:
            return functions.pair(inner(left), inner(right))[1]
        case "wrap", part:
            return functions.wrap(inner(part), name="wrapped")
        case "size", part:
            return functions.size(inner(part))
        case "map", level, part:
            rows = items[level % len(items)]["rows"]
            return over(rows, lambda row: evaluate(part, [*items, row], functions, over))
    raise AssertionError(body)


def over_values(rows: list[Any], callback: Callable[[Any], Any]) -> list[Any]:
    return [callback(row) for row in rows]


def over_promises(rows: Any, callback: Callable[[Any], Any]) -> Any:
    return rows.map(callback)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_map_is_its_callback_applied_to_each_item(backend: str, where: str) -> None:
    @given(st.one_of(st.lists(records, max_size=4), records), bodies)
    @settings(max_examples=200)
    def check(value: Any, body: Any) -> None:
        plain = Functions()

        def apply(item: Any) -> Any:
            return evaluate(body, [item], plain, over_values)

        async def mapped() -> Any:
            async with memory_pair(None, Functions()) as (client, server):
                functions = RpcStub(plain) if where == "here" else client.remote_main
                promise = functions.wrap(value)["value"]
                result = await promise.map(lambda item: evaluate(body, [item], functions, over_promises))
                del promise
                await anyio.wait_all_tasks_blocked()
                assert client.stats() == server.stats() == SessionStats(1, 1)
                return result

        expected = [apply(item) for item in value] if isinstance(value, list) else apply(value)
        assert anyio.run(mapped, backend=backend) == expected

    check()
