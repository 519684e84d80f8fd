"""Codecs of one's own, and what each encoding level hands them. Which tree a value is on which level, protocol.md says
and its tests check; npm capnweb is asked in interop/test_byte_stream_node.py."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import anyio
import pytest
from cborcodecs import ClonableCbor, PlainCbor, holds
from interop.values import VALUES, same

from capnweb_py import (
    INVALID_DATE,
    UNDEFINED,
    BigInt,
    CodecError,
    LimitExceeded,
    Limits,
    ProtocolError,
    RpcError,
    RpcSession,
    RpcTarget,
    SessionClosed,
    SessionOptions,
    connect,
    memory_pair,
    open_session,
    open_stream_session,
    serve,
)

pytestmark = pytest.mark.anyio

CODECS: Final = [PlainCbor(), ClonableCbor()]
NOON: Final = datetime(2025, 6, 8, 12, tzinfo=UTC)


class Api(RpcTarget):
    def echo(self, value: Any) -> Any:
        return value

    async def call(self, function: Any, value: Any) -> Any:
        return await function(value)

    def more_than(self, number: int) -> int:
        return number + 1

    def fail(self, value: Any) -> None:
        error = ValueError("no")
        error.value = value  # type: ignore[attr-defined]
        raise error


class Handed:
    """A codec that keeps what it is handed, and is told what to read, instead of writing anything."""

    name = "handed"
    subprotocol = "test.handed"

    def __init__(self, encoding_level: Any) -> None:
        self.encoding_level = encoding_level
        self.trees: list[Any] = []

    def encode(self, tree: Any) -> tuple[bytes, bool]:
        self.trees.append(tree)
        return b"", True

    def decode(self, data: bytes | str, binary: bool) -> Any:
        return self.trees.pop()


class Idle:
    """The host of a session in which nothing runs."""

    def wake(self) -> None:
        """The test looks when it likes."""

    hurry = send_now = rest = wake_from_anywhere = wake

    def spawn(self, run: Callable[[], Any]) -> None:
        raise AssertionError("nothing is to run")


def answer_to(argument: Any, level: str = "structuredClonable", **limits: int) -> Any:
    """What a session of a level says when the peer has it echo an expression."""
    codec = Handed(level)
    session = RpcSession(Idle(), Api(), SessionOptions(limits=Limits(**limits)), codec)
    codec.trees.append(["stream", ["pipeline", 0, ["echo"], [argument]]])
    session.receive(b"", True)
    session.messages_to_send()
    (answer,) = codec.trees
    return answer


# ---- codecs of one's own, wherever a codec is chosen


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
async def test_every_value_crosses_a_pair(codec: Any) -> None:
    async with memory_pair(None, Api(), codec=codec) as (client, _):
        for name, make in VALUES.items():
            if "surrogate" not in name:  # CBOR has none
                assert same(await client.remote_main.echo(make()), make()), name
                assert same(await client.remote_main.call(lambda value: value, make()), make()), name
                with pytest.raises(ValueError, match="no") as caught:
                    await client.remote_main.fail(make())
                assert same(caught.value.value, make()), name  # type: ignore[attr-defined]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
async def test_a_codec_of_ones_own_over_websocket(codec: Any) -> None:
    with anyio.fail_after(60):
        async with serve(Api, codecs=CODECS) as server:
            async with connect(server.url, codec=codec) as api:
                assert await api.echo([b"\x00", BigInt(5), NOON]) == [b"\x00", BigInt(5), NOON]
            async with open_session(server.url) as session:  # who leaves the choice open gets what it knows
                assert await session.remote_main.echo(b"\x00") == b"\x00"


async def test_a_server_that_does_not_know_the_codec_is_an_error() -> None:
    async with serve(Api) as server:
        with pytest.raises(RpcError, match="does not speak the codec 'clonable'"):
            async with connect(server.url, codec=ClonableCbor()):
                pass


@pytest.mark.parametrize("level", ["string", "jsonCompatibleWithbytes", None])
async def test_a_level_that_no_codec_has_is_refused(level: Any) -> None:
    problem = (
        f"the codec 'handed' has the encoding level {level!r}; one of jsonCompatible, jsonCompatibleWithBytes, str"
    )
    with pytest.raises(ValueError, match=problem):
        memory_pair(codec=Handed(level))
    with pytest.raises(ValueError, match=problem):
        async with connect("ws://127.0.0.1:1/", codec=Handed(level)):
            pass
    with pytest.raises(ValueError, match=problem):
        async with serve(Api, codecs=[Handed(level)]):
            pass
    stream: Any = None
    with pytest.raises(ValueError, match=problem):
        async with open_stream_session(stream, codec=Handed(level)):
            pass


def holds_number(tree: Any, number: int) -> bool:
    if isinstance(tree, list):
        return any(holds_number(item, number) for item in tree)
    return tree == number


class Broken(ClonableCbor):
    """A codec that cannot write the number 13, and reads 7 as none of its own."""

    def encode(self, tree: Any) -> tuple[bytes, bool]:
        if holds_number(tree, 13):
            raise OverflowError("too much")
        return super().encode(tree)

    def decode(self, data: bytes | str, binary: bool) -> Any:
        tree = super().decode(data, binary)
        if "777" in str(tree):
            raise CodecError("777 is no value")
        return tree


@pytest.mark.parametrize("by_client", [True, False])
async def test_a_codec_that_fails_to_write_ends_the_session_and_says_why(by_client: bool) -> None:
    async with memory_pair(None, Api(), codec=Broken()) as (client, server):
        if by_client:
            pending = client.remote_main.echo(13)
        else:
            pending = client.remote_main.more_than(12)
        with pytest.raises(SessionClosed, match="the codec 'clonable' failed to write a message: too much"):
            await pending
        await anyio.wait_all_tasks_blocked()
        assert client.closed
        assert server.closed
        told = server if by_client else client
        assert "the peer aborted the session: the codec 'clonable' failed" in str(told.end)


async def test_a_codec_that_fails_to_read_ends_the_session_and_says_why() -> None:
    async with memory_pair(None, Api(), codec=Broken()) as (client, server):
        with pytest.raises(SessionClosed, match="777 is no value"):
            await client.remote_main.echo(777)
        assert isinstance(server.end, ProtocolError)


# ---- what the levels hand to a codec


def test_a_clonable_tree_holds_the_values_themselves() -> None:
    kind, _, [(undefined, nan, one, big, noon, invalid, raw, deep)] = answer_to(
        [[UNDEFINED, float("nan"), BigInt(1), 2**70, NOON, INVALID_DATE, ["bytes", b"a"],
          {"deep": [[UNDEFINED, ["bytes", b"b"]]]}]]
    )  # fmt: skip
    assert kind == "resolve"
    assert (undefined, invalid, noon, raw) == (UNDEFINED, INVALID_DATE, NOON, ["bytes", b"a"])
    assert nan != nan
    assert [type(one), type(big), int(big)] == [BigInt, BigInt, 2**70]
    assert deep == {"deep": [[UNDEFINED, ["bytes", b"b"]]]}


@pytest.mark.parametrize("level", ["jsonCompatible", "jsonCompatibleWithBytes"])
def test_the_trees_of_other_levels_hold_what_json_has(level: str) -> None:
    forms = [["undefined"], ["nan"], ["bigint", "1"], ["date", 0], ["date", None], ["bytes", "YQ"]]
    answer = answer_to([[*forms, ["bytes", "YQ", "Int8Array"], {"deep": ["bytes", "Yg"]}]], level)
    assert not holds(answer, BigInt, datetime, type(UNDEFINED), type(INVALID_DATE))
    assert holds(answer, bytes) == (level == "jsonCompatibleWithBytes")


def test_a_date_of_any_time_zone_is_written_and_read_in_utc() -> None:
    east = timezone(timedelta(hours=5))
    for date in (NOON, NOON.astimezone(east), type("Local", (datetime,), {})(2025, 6, 8, 17, tzinfo=east)):
        if type(date) is datetime:
            assert repr(answer_to(date)[2]) == repr(NOON)
        codec = Handed("structuredClonable")
        session = RpcSession(Idle(), None, None, codec)
        pending = session.remote_main.echo(date)
        session.messages_to_send()
        assert repr(codec.trees[0][1][3]) == repr([NOON])
        del pending


@pytest.mark.parametrize("edge", [datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
                                  datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))])  # fmt: skip
def test_a_date_that_utc_has_no_room_for_fails_its_call_alone(edge: datetime) -> None:
    kind, _, error = answer_to(edge)
    assert (kind, error[1]) == ("reject", "UnreadableValue")
    session = RpcSession(Idle(), None, None, Handed("structuredClonable"))
    with pytest.raises(TypeError, match=r"beyond the dates that Python has in UTC \(at arguments\[0\]\)"):
        session.remote_main.echo(edge)


@pytest.mark.parametrize("number", [BigInt(10**20), 10**20, -(10**20), BigInt(-(10**20))])
def test_a_bare_bigint_has_the_limit_of_digits(number: int) -> None:
    assert answer_to(number, max_bigint_digits=30)[2] == number
    kind, error = answer_to(number, max_bigint_digits=10)
    assert (kind, error[1]) == ("abort", LimitExceeded.__name__)
    assert "more than max_bigint_digits = 10 digits" in error[2]


@pytest.mark.parametrize(
    "value", [b"a", bytearray(b"a"), {1, 2}, (1, 2), 1j, ["bytes", bytearray(b"a")], Exception("x")]
)
def test_what_no_level_has_aborts_the_session(value: Any) -> None:
    assert answer_to(value)[:1] == ["abort"]


@pytest.mark.parametrize("level", ["jsonCompatible", "jsonCompatibleWithBytes"])
@pytest.mark.parametrize("value", [UNDEFINED, NOON, INVALID_DATE, BigInt(5)], ids=str)
def test_what_is_bare_on_one_level_alone_aborts_on_the_others(level: str, value: Any) -> None:
    kind, error = answer_to(value, level)
    assert (kind, error[1]) == ("abort", "ProtocolError")


def test_bare_values_are_as_deep_as_others() -> None:
    assert answer_to([[[[UNDEFINED]]]], max_depth=5)[0] == "resolve"
    assert answer_to([[[[UNDEFINED]]]], max_depth=2)[0] == "abort"
