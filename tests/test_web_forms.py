"""Web types on the wire: what their expressions hold, what is refused, whose the bodies are, blobs that arrive whole.

Messages are said and heard one at a time; how the same fares against other implementations is for the interop tests.
"""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from byhand import Peer, by_hand

from capnweb_py import (
    Blob,
    Headers,
    LimitExceeded,
    Limits,
    ProtocolError,
    ReadableStream,
    Request,
    Response,
    RpcStub,
    RpcTarget,
    SessionOptions,
    SessionStats,
    TypedArray,
    Url,
    deserialize,
    memory_pair,
    serialize,
)

pytestmark = pytest.mark.anyio

URL = "https://a.example/"

# What is sent without a body, and its expression.
FORMS: list[tuple[Any, Any]] = [
    (Url("https://example.com/path?q=1"), ["url", "https://example.com/path?q=1"]),
    (Url("data:text/plain,hi there"), ["url", "data:text/plain,hi there"]),
    (Headers(), ["headers", []]),
    (
        Headers([("X-B", "1"), ("Set-Cookie", "b=2"), ("x-a", "ä"), ("X-b", "2"), ("set-cookie", "a=1")]),
        ["headers", [["set-cookie", "b=2"], ["set-cookie", "a=1"], ["x-a", "ä"], ["x-b", "1, 2"]]],
    ),
    (Request(URL), ["request", URL, {}]),
    (
        Request(URL, method="delete", headers={"X-Foo": "bar"}),
        ["request", URL, {"method": "DELETE", "headers": [["x-foo", "bar"]]}],
    ),
    (
        Request(URL, init={"cf": {"a": [1, {"b": None}]}, "keepalive": True, "redirect": "manual", "cache": "default"}),
        ["request", URL, {"redirect": "manual", "keepalive": True, "cf": {"a": [1, {"b": None}]}}],
    ),
    (Response(), ["response", None, {}]),
    (
        Response(status=404, status_text="Not Found", headers={"a": "b"}, init={"encodeBody": "manual"}),
        ["response", None, {"status": 404, "statusText": "Not Found", "headers": [["a", "b"]], "encodeBody": "manual"}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expression"), FORMS, ids=repr)
def test_a_web_value_has_its_form_and_comes_back(value: Any, expression: Any) -> None:
    text = serialize(value)
    assert json.loads(text) == expression
    again = deserialize(text)
    assert type(again) is type(value)
    assert serialize(again) == text


class Favourite(Response):
    """A class of the application's own."""


def test_subclasses_are_sent_as_what_they_are_of() -> None:
    assert json.loads(serialize(Favourite(status=201))) == ["response", None, {"status": 201}]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (Request(URL, init={"signal": 1}), "'signal' in a Request's init cannot be sent: cache, redirect,"),
        (Request(URL, init={"cache": 1}), "'cache' in a Request's init is a str, not int"),
        (Request(URL, init={"cf": {1: 2}}), "'cf' in a Request's init: it holds a dict, which JSON does not have"),
        (Response(init={"cf": [b""]}), "'cf' in a Response's init: it holds a bytes, which JSON does not have"),
        (Response(init={"cf": float("inf")}), "it holds a float, which JSON does not have"),
        (Response("text"), "a stream needs a session to be sent"),
        (Blob(b"a"), "a blob is sent as a stream, and needs a session for that"),
    ],
)
def test_what_cannot_be_sent_says_so(value: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        serialize([value])


def test_what_a_request_carries_along_nests_only_so_deep() -> None:
    nested: Any = []
    for _ in range(300):
        nested = [nested]
    with pytest.raises(TypeError, match="'cf' in a Request's init: it nests deeper than max_depth allows"):
        serialize(Request(URL, init={"cf": nested}))
    with pytest.raises(LimitExceeded, match="it nests deeper than max_depth allows"):
        deserialize(json.dumps(["request", URL, {"cf": nested}]))


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        (["url"], "malformed 'url'"),
        (["url", 1], "malformed 'url'"),
        (["url", URL, 1], "malformed 'url'"),
        (["url", "/path"], "is not an absolute URL"),
        (["headers"], "malformed 'headers'"),
        (["headers", {"a": "b"}], "headers are a list of pairs"),
        (["headers", [["a"]]], "headers are a list of pairs"),
        (["headers", [["a", "b", "c"]]], "headers are a list of pairs"),
        (["headers", [["a", 1]]], "the header 'a' has a str as its value, not int"),
        (["headers", [["a b", "c"]]], "'a b' cannot name a header"),
        (["headers", [["a", "b\nc"]]], "holds a line break"),
        (["request", URL], "malformed 'request'"),
        (["request", 1, {}], "malformed 'request'"),
        (["request", URL, None], "malformed 'request'"),
        (["request", URL, []], "malformed 'request'"),
        (["request", "nowhere", {}], "is not an absolute URL"),
        (["request", URL, {"method": 1}], "'method' is not of the type str"),
        (["request", URL, {"method": "A B"}], "is no HTTP method"),
        (["request", URL, {"method": "TRACE"}], "the method TRACE is about a connection"),
        (["request", URL, {"body": "text"}], "a GET request has no body"),
        (["request", URL, {"method": "POST", "body": {"a": 1}}], "null, text, bytes or a stream, and not dict"),
        (["request", URL, {"method": "POST", "body": 1}], "a body is null, text, bytes or a stream, and not int"),
        (["request", URL, {"method": "POST", "body": ["export", -1]}], "text, bytes or a stream"),
        (["request", URL, {"headers": {}}], "headers are a list of pairs"),
        (["request", URL, {"signal": [[]]}], "the signal of a request cannot be sent"),
        (["request", URL, {"redirect": 5}], "'redirect' is not of the type str"),
        (["request", URL, {"keepalive": "yes"}], "'keepalive' is not of the type bool"),
        (["response", None], "malformed 'response'"),
        (["response", None, None], "malformed 'response'"),
        (["response", ["date", 1], {}], "a body is null, text, bytes or a stream, and not datetime"),
        (["response", ["bytes", "AAA", "Int16Array"], {}], "text, bytes or a stream, and not TypedArray"),
        (["response", None, {"status": "200"}], "'status' is not of the type int"),
        (["response", None, {"status": 1200}], "the status 1200 is none"),
        (["response", "text", {"status": 204}], "the status 204 has no body"),
        (["response", None, {"statusText": 5}], "'statusText' is not of the type str"),
        (["response", None, {"webSocket": {}}], "the WebSocket of a response cannot be sent"),
        (["blob", "text/plain"], "malformed 'blob'"),
        (["blob", 1, ["readable", 1]], "malformed 'blob'"),
        (["blob", "", "text"], "what a blob holds is a stream, and not str"),
        (["blob", "", ["bytes", "YQ"]], "what a blob holds is a stream, and not bytes"),
        (["blob", "", ["readable", 9]], "no such entry on exports table: 9"),
    ],
)  # fmt: skip
def test_a_form_that_javascript_would_refuse_ends_the_session(form: Any, problem: str) -> None:
    peer = Peer()
    peer.say("push", form)
    [*_, [kind, [_, name, message]]] = peer.hear()
    assert kind == "abort"
    assert name == "ProtocolError"
    assert problem in message


def test_a_status_of_no_response_fails_its_call_alone() -> None:
    peer = Peer(lambda value: value)
    peer.say("stream", ["pipeline", 0, [], [["response", None, {"status": 0}]]])
    assert peer.hear() == [
        ["reject", 1, ["error", "UnreadableValue", "the status 0 is none that a Response can have: 200 to 599 are"]]
    ]
    assert not peer.session.closed


async def test_what_else_is_said_of_a_request_means_nothing() -> None:
    request = deserialize(
        json.dumps(["request", URL, {"window": None, "signal": False, "headers": "", "method": "patch"}])
    )
    assert (request.method, request.url, request.init) == ("patch", URL, {})


@pytest.mark.parametrize(
    ("body", "content"),
    [("text", b"text"), (["bytes", "aGk"], b"hi"), (["bytes", "aGk", "Uint8Array"], b"hi"), ("", b"")],
)
async def test_bodies_may_come_as_text_and_bytes(body: Any, content: bytes) -> None:
    assert await deserialize(json.dumps(["response", body, {}])).bytes() == content
    request = deserialize(json.dumps(["request", URL, {"method": "POST", "body": body}]))
    assert await request.bytes() == content


# ---- Bodies


class Server(RpcTarget):
    """Looks at what it is given."""

    def __init__(self) -> None:
        self.closed = anyio.Event()

    async def read(self, value: Any) -> Any:
        return [type(value).__name__, await value.bytes()]

    def echo(self, value: Any) -> Any:
        return value

    def page(self) -> Response:
        return Response("<p>hello</p>", status=201, headers={"content-type": "text/html"})

    def blobs(self) -> dict[str, Any]:
        return {"a": Blob(b"first", "text/plain"), "more": [Blob(b"second"), Blob(b"")]}

    @property
    def portrait(self) -> Blob:
        return Blob(b"pixels", "image/png")

    def endless(self) -> Response:
        return Response(self._pages())

    async def _pages(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"page"
        finally:
            self.closed.set()

    async def fetch(self, request: Request) -> Response:
        return Response(b"<" + await request.bytes() + b">", headers={"x-method": request.method})


@asynccontextmanager
async def serving(main: Any) -> AsyncIterator[RpcStub]:
    """The stub of a main object on the other side of a connection. At the end, nothing may be left on either side."""
    with anyio.fail_after(60):
        async with memory_pair(None, main) as (client, server):
            yield client.remote_main
            for session in (client, server):
                while session.stats() != SessionStats(1, 1):
                    gc.collect()
                    await anyio.lowlevel.checkpoint()


async def test_a_body_goes_through_a_pipe() -> None:
    async with by_hand() as peer:
        promise = peer.main.save(Request(URL, method="PUT", headers={"b": "2", "a": "1"}, body="text"))
        await anyio.wait_all_tasks_blocked()
        init = {
            "method": "PUT",
            "headers": [["a", "1"], ["b", "2"], ["content-type", "text/plain;charset=UTF-8"]],
            "body": ["readable", 1],
            "duplex": "half",
        }
        assert peer.hear() == [["pipe"], ["push", ["pipeline", 0, ["save"], [["request", URL, init]]]]]
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [
            ["stream", ["pipeline", 1, ["write"], [["bytes", "dGV4dA"]]]],
            ["stream", ["pipeline", 1, ["close"], []]],
        ]
        del promise


async def test_a_body_is_taken_over_and_given_back_when_the_call_comes_to_nothing() -> None:
    async def pages() -> AsyncIterator[bytes]:
        yield b"one"

    response = Response(pages())
    async with by_hand() as peer:
        with pytest.raises(TypeError, match="a value of the type object cannot be sent"):
            peer.main.save(response, object())
        assert response.body is not None
        assert not response.body.locked
        promise = peer.main.save(response)
        assert response.body.locked
        with pytest.raises(TypeError, match=r"the ReadableStream is being read, or was.*arguments\[0\]"):
            peer.main.save(response)
        del promise


async def test_a_body_in_memory_can_be_sent_again() -> None:
    async with serving(Server()) as api:
        response = Response(b"text")
        assert await api.read(response) == ["Response", b"text"]
        assert await api.read(response) == ["Response", b"text"]
        assert await response.bytes() == b"text"


async def test_a_large_body_in_memory_goes_in_pieces() -> None:
    data = bytes(range(256)) * 1024
    async with serving(Server()) as api:
        assert await api.read(Request(URL, method="POST", body=data)) == ["Request", data]
        pieces = [piece async for piece in Blob(data).stream()]
        assert b"".join(pieces) == data
        assert max(map(len, pieces)) == 65536


async def test_requests_and_responses_there_and_back() -> None:
    async with serving(Server()) as api:
        page = await api.page()
        assert (page.status, page.headers["content-type"], await page.text()) == (201, "text/html", "<p>hello</p>")
        answer = await api.fetch(Request(URL, method="POST", body=b"question"))
        assert (answer.headers["x-method"], await answer.bytes()) == ("POST", b"<question>")
        echoed = await api.echo([Response(), Response(b""), Request(URL), Url(URL), Headers({"a": "b"})])
        assert [await value.bytes() for value in echoed[:3]] == [b"", b"", b""]
        assert echoed[0].body is None
        assert echoed[3:] == [Url(URL), Headers({"a": "b"})]


async def test_a_reader_that_stops_closes_the_source() -> None:
    server = Server()
    async with serving(server) as api:
        response = await api.endless()
        async for _page in response.body:
            break
        await response.body.aclose()
        await server.closed.wait()


async def test_calls_on_this_side_hand_bodies_and_blobs_on() -> None:
    stub = RpcStub(Server())

    async def pages() -> AsyncIterator[bytes]:
        yield b"one"

    stream = ReadableStream(pages())
    echoed = await stub.echo(Response(stream, status=202, init={"cf": 1}))
    assert echoed.body is stream
    assert (echoed.status, echoed.init) == (202, {"cf": 1})
    blob = Blob(b"data", "image/png")
    assert await stub.echo(blob) is blob
    assert await stub.portrait == Blob(b"pixels", "image/png")
    assert await stub.read(Request(URL, method="POST", body="text")) == ["Request", b"text"]


# ---- Blobs


async def test_a_call_waits_for_its_blob() -> None:
    async with by_hand(Server()) as peer:
        peer.say("pipe")
        peer.say("stream", ["pipeline", 0, ["read"], [["blob", "Image/PNG", ["readable", 1]]]])
        peer.say("stream", ["pipeline", 1, ["write"], [["bytes", "b25l"]]])
        await anyio.wait_all_tasks_blocked()
        assert peer.hear() == [["resolve", 3, ["undefined"]]]
        peer.say("stream", ["pipeline", 1, ["write"], [["bytes", "dHdv"]]])
        peer.say("stream", ["pipeline", 1, ["close"], []])
        await anyio.wait_all_tasks_blocked()
        answers = peer.hear()
        assert ["resolve", 2, [["Blob", ["bytes", "b25ldHdv"]]]] in answers
        peer.say("release", 1, 1)
        assert peer.session.stats() == SessionStats(1, 1)


async def test_blobs_arrive_whole_wherever_they_sit() -> None:
    async with serving(Server()) as api:
        assert await api.blobs() == {"a": Blob(b"first", "text/plain"), "more": [Blob(b"second"), Blob(b"")]}
        assert await api.portrait == Blob(b"pixels", "image/png")
        large = Blob(bytes(3_000_000), "application/octet-stream")
        assert await api.echo(large) == large
        assert await api.read(api.portrait) == ["Blob", b"pixels"]


@pytest.mark.parametrize(("sent", "read"), [("Text/HTML", "text/html"), ("tëxt", ""), ("a\nb", ""), ("", "")])
async def test_the_type_of_a_blob_is_what_javascript_makes_of_it(sent: str, read: str) -> None:
    received: list[Blob] = []
    async with by_hand(received.append) as peer:
        peer.say("pipe")
        peer.say("push", ["pipeline", 0, [], [["blob", sent, ["readable", 1]]]])
        peer.say("stream", ["pipeline", 1, ["close"], []])
        await anyio.wait_all_tasks_blocked()
        assert received == [Blob(b"", read)]


async def test_a_blob_past_the_limit_fails_its_call_and_stops_its_stream() -> None:
    async with by_hand(Server(), SessionOptions(limits=Limits(max_blob_size=10))) as peer:
        for first_id in (1, 3):
            peer.say("pipe")
            peer.say("stream", ["pipeline", 0, ["read"], [["blob", "", ["readable", first_id]]]])
        # All that are on their way count together.
        peer.say("stream", ["pipeline", 1, ["write"], [["bytes", "MTIzNDU2"]]])
        peer.say("stream", ["pipeline", 3, ["write"], [["bytes", "MTIzNDU2"]]])
        await anyio.wait_all_tasks_blocked()
        # Either may have been read first.
        [rejected] = [message for message in peer.hear() if message[0] == "reject" and message[1] in (2, 4)]
        problem = "more than max_blob_size = 10 bytes of blobs are on their way"
        assert rejected[2] == ["error", "LimitExceeded", problem]
        stopped, going = (1, 3) if rejected[1] == 2 else (3, 1)
        peer.say("stream", ["pipeline", stopped, ["write"], [["bytes", "MQ"]]])
        [[kind, _, error]] = peer.hear()
        assert (kind, error[2]) == ("reject", "the reader has let go of the stream")
        peer.say("stream", ["pipeline", going, ["close"], []])
        await anyio.wait_all_tasks_blocked()
        assert ["resolve", going + 1, [["Blob", ["bytes", "MTIzNDU2"]]]] in peer.hear()
        # What has arrived counts no more.
        peer.say("pipe")
        peer.say("stream", ["pipeline", 0, ["read"], [["blob", "", ["readable", 9]]]])
        peer.say("stream", ["pipeline", 9, ["write"], [["bytes", "MTIzNDU2"]]])
        peer.say("stream", ["pipeline", 9, ["close"], []])
        await anyio.wait_all_tasks_blocked()
        assert ["resolve", 10, [["Blob", ["bytes", "MTIzNDU2"]]]] in peer.hear()


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        (["write", ["bytes", "AAA", "Int16Array"]], "the stream of a blob has a chunk of the type TypedArray"),
        (["write", "text"], "the stream of a blob has a chunk of the type str"),
        (["abort", ["error", "Error", "out of ink"]], "out of ink"),
    ],
)
async def test_a_blob_that_comes_to_nothing_fails_its_call(ending: list[Any], error: str) -> None:
    async with by_hand(Server()) as peer:
        peer.say("pipe")
        peer.say("stream", ["pipeline", 0, ["read"], [["blob", "", ["readable", 1]]]])
        peer.say("stream", ["pipeline", 1, [ending[0]], [ending[1]]])
        await anyio.wait_all_tasks_blocked()
        [message] = [message for message in peer.hear() if message[:2] == ["reject", 2]]
        assert error in message[2][2]
        assert not peer.session.closed


async def test_a_session_that_ends_ends_its_blobs() -> None:
    received: list[Any] = []
    async with by_hand(received.append) as peer:
        peer.say("pipe")
        peer.say("push", ["pipeline", 0, [], [["blob", "", ["readable", 1]]]])
        promise = peer.main.picture()
        peer.hear()
        peer.say("pipe")
        peer.say("resolve", 1, ["blob", "", ["readable", 3]])
        peer.session.connection_lost(None)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Exception, match=r"the connection was lost|the session ended"):
            await promise
        assert received == []


async def test_a_blob_has_no_members() -> None:
    async with by_hand(Server()) as peer:
        peer.say("pipe")
        peer.say("push", ["blob", "text/plain", ["readable", 1]])
        peer.say("stream", ["pipeline", 2, ["stream"], []])
        peer.say("stream", ["pipeline", 1, ["close"], []])
        await anyio.wait_all_tasks_blocked()
        [message] = [message for message in peer.hear() if message[:2] == ["reject", 3]]
        assert message[2][1] == "TypeError"


def test_what_is_read_is_not_the_peer_s_to_choose() -> None:
    with pytest.raises(ProtocolError, match="the text refers to a stream of a session"):
        deserialize('["blob", "", ["readable", 1]]')
    assert TypedArray("Uint8Array", b"a") != b"a"
