"""The wire itself: what we write is, to the byte, what npm capnweb writes for the same values and calls.

A case describes values and steps in JSON. Node does the steps with npm capnweb (expressions.mjs), we do them with a
session of ours, and the texts of the messages after each step are compared. Which message carries a call is each
side's own choice, so each step is flushed by itself: what has not been awaited yet is a push on both sides.
"""

from __future__ import annotations

import json
import random
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, Final

import anyio
import attrs
import pytest
from anyio.abc import TaskGroup
from byhand import Peer, by_hand

from capnweb_py import (
    INVALID_DATE,
    UNDEFINED,
    BigInt,
    Blob,
    Headers,
    Request,
    Response,
    RpcError,
    RpcPromise,
    RpcStub,
    RpcTarget,
    TypedArray,
    Url,
    WritableStream,
)

from .node import HERE

pytestmark = pytest.mark.anyio

# Seconds that Node may take for all cases.
DEADLINE: Final = 60

Description = list[Any]
Step = dict[str, Any]

URL: Final = "https://a.example/path?q=1#top"


@attrs.frozen
class Case:
    """Steps with a fresh session, whose main object gives `result`."""

    name: str
    steps: list[Step]
    result: Description = attrs.field(factory=lambda: ["undefined"])

    def __str__(self) -> str:
        return self.name


# ---- The values, as both languages are told of them.


def double(number: float) -> Description:
    return ["double", struct.pack(">d", number).hex()]


def text(characters: str) -> Description:
    units = characters.encode("utf-16-be", "surrogatepass")
    return ["text", list(struct.unpack(f">{len(units) // 2}H", units))]


def json_value(value: Any) -> Description:
    return ["json", value]


def numbers() -> Iterator[Description]:
    rng = random.Random(3)
    for number in (
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        100.0,
        1e5,
        2.0**53 - 1,
        2.0**53,
        2.0**63,
        2.0**64,
        1e16,
        1e20,
        1e21,
        1e22,
    ):
        yield double(number)
        yield double(-number)
    for number in (
        1e-4,
        1e-5,
        1.5e-5,
        9.99e-6,
        1e-6,
        1e-7,
        1.5e-10,
        5e-324,
        2.2250738585072014e-308,
        1.7976931348623157e308,
    ):
        yield double(number)
    for number in (float("inf"), float("-inf"), float("nan"), 123456789012345680000.0, 999999999999999900000.0):
        yield double(number)
    for exponent in range(-9, 23):
        for _ in range(3):
            yield double(rng.choice((1, -1)) * rng.random() * 10**exponent)
    for _ in range(60):
        yield double(struct.unpack("<d", rng.randbytes(8))[0])
    for integer in (0, 1, -1, 2**31, -(2**31) - 1, 2**53 - 1, 1 - 2**53):
        yield json_value(integer)
    for integer in (0, 1, -1, 2**53, -(2**63), 2**64, 10**100):
        yield ["bigint", str(integer)]


def texts() -> Iterator[Description]:
    rng = random.Random(5)
    for characters in (
        "",
        "plain",
        '"quoted\\',
        "/<>&'",
        "\u2028\u2029",
        "\x7f\x80\x9f",
        "é",
        "\u20ac",
        "\U0001f600",
        "\ufeff\ufffe\uffff",
    ):
        yield text(characters)
    yield text("".join(map(chr, range(32))))
    for characters in (
        "\ud800",
        "\udfff",
        "a\ud83db",
        "\ude00\ud83d",
        "\ud83d\ude00",
        "é\ud800\U0001f600\u2028",
        "\ud800\x00\n",
    ):
        yield text(characters)
        yield ["list", text(characters), double(1.5e-6), double(1e20), double(1e-7), ["bytes", "00ff"]]
        yield ["object", [["key", text(characters)]]]
    for _ in range(60):
        yield text("".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x10000)))) for _ in range(8)))


def containers() -> Iterator[Description]:
    yield from (json_value(None), json_value(True), json_value(False), ["undefined"], ["list"], ["object", []])
    yield ["list", ["list"], ["list", ["list", json_value(1)]], ["undefined"], json_value(None)]
    yield ["list", text("bytes"), text("AAAA")]
    yield [
        "object",
        [["b", json_value(1)], ["a", ["list", ["object", [["", json_value(None)]]]]], ['é\u2028"', ["undefined"]]],
    ]
    # In JavaScript's order: see test_what_we_write_differently.
    yield [
        "object",
        [
            ["1", json_value(1)],
            ["2", json_value(2)],
            ["10", json_value(3)],
            ["b", json_value(4)],
            ["01", json_value(5)],
        ],
    ]
    for key in ("toString", "toJSON", "constructor", "-1", "1.5", "4294967295"):
        yield ["object", [[key, json_value("a value")]]]
    nested: Description = json_value("deep")
    for _ in range(100):
        nested = ["object", [["a", ["list", nested]]]]
    yield nested
    deep: Description = ["list"]
    for _ in range(200):
        deep = ["list", deep, text("é"), double(1e-7)]
    yield deep


def dates() -> Iterator[Description]:
    for milliseconds in (0, 1, -1, 1749340800000, 1700000000123, -62135596800000, 253402300799999, None):
        yield ["date", milliseconds]


KINDS: Final = {
    "ArrayBuffer": 1,
    "DataView": 1,
    "Int8Array": 1,
    "Uint8ClampedArray": 1,
    "Int16Array": 2,
    "Uint16Array": 2,
    "Int32Array": 4,
    "Uint32Array": 4,
    "BigInt64Array": 8,
    "BigUint64Array": 8,
    "Float32Array": 4,
    "Float64Array": 8,
}


def byte_containers() -> Iterator[Description]:
    rng = random.Random(7)
    for length in (0, 1, 2, 3, 4, 5, 255, 256, 1000):
        yield ["bytes", rng.randbytes(length).hex()]
    yield ["bytes", b"Hello=".hex()]
    for kind, size in KINDS.items():
        for length in (0, 1, 2, 3):
            yield ["array", kind, rng.randbytes(size * length).hex()]


def errors() -> Iterator[Description]:
    for name in (
        "Error",
        "TypeError",
        "RangeError",
        "SyntaxError",
        "ReferenceError",
        "EvalError",
        "URIError",
        "OutOfCheese",
    ):
        yield ["error", {"name": name, "message": "the message"}]
    yield ["error", {"name": "Error", "message": ""}]
    inner = ["error", {"name": "TypeError", "message": "inner", "props": {"code": json_value(1)}}]
    yield ["error", {"name": "Error", "message": "outer", "cause": inner}]
    props = {"code": json_value("E"), "when": ["date", 5], "list": ["list", json_value(1)], "nothing": ["undefined"]}
    yield ["error", {"name": "RangeError", "message": "é\u2028", "props": props}]
    yield ["error", {"name": "RangeError", "message": "m", "props": props, "cause": inner}]
    hidden = dict.fromkeys(("name", "message", "stack"), json_value("hidden"))
    yield ["error", {"name": "Error", "message": "m", "props": {"stack": hidden["stack"], "shown": json_value(1)}}]
    yield [
        "error",
        {"name": "AggregateError", "message": "all", "errors": [inner, ["error", {"name": "Error", "message": "b"}]]},
    ]
    group = ["error", {"name": "AggregateError", "message": "some", "errors": [inner]}]
    yield [
        "error",
        {"name": "AggregateError", "message": "all", "errors": [group], "cause": inner, "props": {"a": json_value(1)}},
    ]
    yield ["list", inner, ["object", [["error", group]]]]
    # What cannot be sent is left out, alone.
    yield [
        "error",
        {
            "name": "Error",
            "message": "m",
            "props": {"a": json_value(1), "bad": ["list", ["unsendable"]], "b": json_value(2)},
        },
    ]


def web_values() -> Iterator[Description]:
    for href in (
        URL,
        "http://[::1]:8080/",
        "data:text/plain,hi there",
        "file:///a/b",
        "mailto:a@b.example",
        "https://xn--bcher-kva.example/%C3%A9",
    ):
        yield ["url", href]
    yield ["headers", []]
    yield [
        "headers",
        [["X-B", "1"], ["Set-Cookie", "b=2"], ["x-a", " ä "], ["X-b", "2"], ["set-cookie", "a=1"], ["x!", ""]],
    ]
    yield ["request", URL, {}]
    for method in ("get", "HEAD", "post", "DELETE", "patch", "PROPFIND"):
        yield ["request", URL, {"method": method}]
    yield ["request", URL, {"headers": [["b", "1"], ["a", "2"], ["B", "3"]]}]
    yield ["request", URL, {"redirect": "manual"}]
    everything = {
        "method": "DELETE",
        "cache": "no-store",
        "redirect": "error",
        "integrity": "sha256-a",
        "credentials": "omit",
    }
    yield [
        "request",
        URL,
        everything | {"mode": "same-origin", "referrerPolicy": "origin", "keepalive": True, "headers": [["a", "b"]]},
    ]
    yield ["response", None, {}]
    for status in (200, 201, 204, 304, 404, 599):
        yield ["response", None, {"status": status}]
    yield [
        "response",
        None,
        {"status": 404, "statusText": "Not Found", "headers": [["b", "1"], ["a", "2"], ["set-cookie", "c"]]},
    ]


def referring_values() -> Iterator[Description]:
    """What needs a session: exports, pipes, bodies."""
    yield from (["function"], ["target"], ["stub", ["target"]], ["stub", ["function"]], ["writable"])
    yield ["list", ["function"], ["object", [["a", ["target"]], ["b", ["stub", ["function"]]]]]]
    yield ["error", {"name": "Error", "message": "m", "props": {"callback": ["function"]}}]
    yield ["stream", []]
    yield ["stream", [json_value(1), ["list", text("é")], ["bytes", "00"], ["function"]]]
    yield ["list", ["stream", [json_value(1)]], ["target"]]
    yield ["request", URL, {"method": "POST", "body": "text", "headers": [["b", "1"]]}]
    yield ["request", URL, {"method": "put", "body": "", "redirect": "manual", "headers": [["content-type", "a/b"]]}]
    yield ["response", "text", {"status": 201, "headers": [["x", "y"]]}]
    yield ["response", "é", {}]
    yield ["blob", "0001", "image/PNG"]
    yield ["blob", "61", ""]
    # One stream at a time: which of several is read first is each side's own choice.
    yield ["list", ["blob", "61", "text/plain"], ["function"], ["response", None, {}]]


SENT: Final = [
    Case(f"{kind.__name__}-{number}", [{"do": "call", "as": "p", "on": "api", "path": ["f"], "args": [described]}])
    for kind in (numbers, texts, containers, dates, byte_containers, errors, web_values, referring_values)
    for number, described in enumerate(kind())
]

# ---- The calls. `say` is what the peer says.


def call(name: str, on: str, path: list[str], *args: Description) -> Step:
    return {"do": "call", "as": name, "on": on, "path": path, "args": list(args)}


def get(name: str, on: str, *path: str) -> Step:
    return {"do": "get", "as": name, "on": on, "path": list(path)}


def step(kind: str, on: str, **more: str) -> Step:
    return {"do": kind, "on": on, **more}


def say(*message: Any) -> Step:
    return {"do": "say", "message": list(message)}


def name(of: str) -> Description:
    return ["name", of]


GIVE: Final = [say("push", ["pipeline", 0, ["give"], []]), say("pull", 1)]

CALLS: Final = [
    Case("no arguments", [call("p", "api", ["f"])]),
    Case(
        "several arguments", [call("p", "api", ["f"], json_value(1), ["list", json_value(2)], ["undefined"], text("x"))]
    ),
    Case("a path", [call("p", "api", ["a", "b", "c"])]),
    Case("names of all sorts", [call("p", "api", ["é", "", "a b", "0x", "$"])]),
    Case("the main object itself", [call("p", "api", [], json_value(1))]),
    Case(
        "a result that is awaited and arrives", [call("p", "api", ["f"]), step("pull", "p"), say("resolve", 1, "value")]
    ),
    Case(
        "a result that fails", [call("p", "api", ["f"]), step("pull", "p"), say("reject", 1, ["error", "Error", "no"])]
    ),
    Case("a result that is let go of", [call("p", "api", ["f"]), step("dispose", "p")]),
    Case("a pipelined call", [call("p", "api", ["f"]), call("q", "p", ["g", "h"], json_value(1)), step("pull", "q")]),
    Case("a call of a result", [call("p", "api", ["f"]), call("q", "p", [], json_value(1))]),
    Case("a chain", [call("a", "api", ["f"]), call("b", "a", ["g"]), call("c", "b", ["h"]), step("pull", "c")]),
    Case("the main object as an argument", [call("p", "api", ["f"], name("api"))]),
    Case("a result as an argument", [call("p", "api", ["f"]), call("q", "api", ["g"], name("p"), ["list", name("p")])]),
    Case(
        "a property of a result as an argument",
        [call("p", "api", ["f"]), get("q", "p", "a", "b"), call("r", "api", ["g"], name("q"))],
    ),
    Case("a property of the main object as an argument", [get("q", "api", "a"), call("r", "api", ["g"], name("q"))]),
    Case("targets twice", [call("p", "api", ["f"], ["target"]), call("q", "api", ["f"], ["function"], ["target"])]),
    Case(
        "a stub that was received, as an argument",
        [
            call("p", "api", ["f"]),
            step("pull", "p"),
            say("resolve", 1, [[["export", -1]]]),
            call("q", "api", ["g"], ["stub", ["function"]]),
        ],
    ),
    Case(
        "a callback that is called",
        [
            call("p", "api", ["f"], ["function"]),
            say("push", ["pipeline", -1, [], [1]]),
            say("pull", 1),
            say("release", 1, 1),
            say("release", -1, 1),
        ],
    ),
    Case("a value that is pushed", [say("push", [[1, ["undefined"]]]), say("pull", 1)]),
    Case("a call that streams", [say("stream", ["pipeline", 0, ["take"], []])]),
    Case(
        "an argument that is the peer's",
        [say("push", ["pipeline", 0, ["take"], [["export", -1]]]), say("pull", 1), say("release", 1, 1)],
    ),
    Case(
        "a promise of the peer's that resolves",
        [say("push", ["pipeline", 0, ["take"], [["promise", -1]]]), say("pull", 1), say("resolve", -1, 5)],
    ),
    Case(
        "an error that is thrown",
        [say("push", ["pipeline", 0, ["fail"], []]), say("pull", 1)],
        ["error", {"name": "RangeError", "message": "no", "props": {"code": json_value(5)}}],
    ),
    Case(
        "text that is thrown away", [say("push", ["pipeline", 0, ["give"], []]), say("release", 1, 1)], text("unheard")
    ),
    Case(
        "a body, answered to its end",
        [
            call("p", "api", ["f"], ["response", "text", {}]),
            say("resolve", 3, ["undefined"]),
            say("resolve", 4, ["undefined"]),
        ],
    ),
    *(
        Case(f"a result: {described[0]}", GIVE, described)
        for described in (
            ["function"],
            ["target"],
            ["list", ["target"], ["bytes", "00"]],
            ["bigint", "5"],
            ["date", 5],
            ["response", "text", {"status": 201}],
            ["request", URL, {"method": "POST", "body": "a"}],
            ["stream", [json_value(1)]],
            ["blob", "61", "a/b"],
            ["headers", [["a", "b"]]],
            double(1.0),
        )
    ),
]


# What is written when a property is awaited. We have a message for that which npm capnweb does not use here.
PROPERTIES: Final = [
    Case("a property", [get("p", "api", "a", "b"), step("pull", "p")]),
    Case("a property of a result", [call("p", "api", ["f"]), get("q", "p", "a"), step("pull", "q")]),
]

# ---- Ours.


class Target(RpcTarget):
    """Nothing but a reference."""


class Sink:
    """Takes chunks, and forgets them."""

    async def write(self, chunk: Any) -> None:
        """It is gone."""


def error_of(described: dict[str, Any], names: dict[str, Any]) -> BaseException:
    inner = [value_of(one, names) for one in described.get("errors", ())]
    known = {"TypeError": TypeError, "SyntaxError": SyntaxError}
    cls = known.get(described["name"]) or type(described["name"], (Exception,), {})
    made: Any = ExceptionGroup(described["message"], inner) if inner else cls(described["message"])
    made.__cause__ = value_of(described["cause"], names) if "cause" in described else None
    for key, prop in described.get("props", {}).items():
        setattr(made, key, value_of(prop, names))
    error: BaseException = made
    return error


async def chunks_of(described: list[Description], names: dict[str, Any]) -> AsyncIterator[Any]:
    for one in described:
        yield value_of(one, names)


def request_of(url: str, init: dict[str, Any]) -> Request:
    members = ("method", "headers", "body")
    known = {key: init[key] for key in members if key in init}
    return Request(url, **known, init={key: init[key] for key in init if key not in members})


def response_of(body: str | None, init: dict[str, Any]) -> Response:
    names = {"status": "status", "statusText": "status_text", "headers": "headers"}
    return Response(body, **{names[key]: item for key, item in init.items()})


def value_of(described: Description, names: dict[str, Any]) -> Any:
    kind, *parts = described
    makers = {
        "json": lambda value: value,
        "double": lambda digits: struct.unpack(">d", bytes.fromhex(digits))[0],
        "text": lambda units: struct.pack(f">{len(units)}H", *units).decode("utf-16-be", "surrogatepass"),
        "undefined": lambda: UNDEFINED,
        "bigint": lambda digits: BigInt(int(digits)),
        "date": lambda ms: (
            INVALID_DATE if ms is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
        ),
        "bytes": bytes.fromhex,
        "array": lambda kind, digits: TypedArray(kind, bytes.fromhex(digits)),
        "list": lambda *items: [value_of(item, names) for item in items],
        "object": lambda entries: {key: value_of(item, names) for key, item in entries},
        "error": lambda error: error_of(error, names),
        "url": Url,
        "headers": Headers,
        "request": request_of,
        "response": response_of,
        "blob": lambda digits, media_type: Blob(bytes.fromhex(digits), media_type),
        "stream": lambda items: chunks_of(items, names),
        "writable": lambda: WritableStream(Sink()),
        "function": lambda: lambda *_: UNDEFINED,
        "target": Target,
        "stub": lambda inner: RpcStub(value_of(inner, names)),
        "name": lambda name: names[name],
        "unsendable": object,
    }
    return makers[kind](*parts)  # type: ignore[operator]


class Main(RpcTarget):
    """What the session of a case offers."""

    def __init__(self, result: Description) -> None:
        self._result = result

    def give(self) -> Any:
        return value_of(self._result, {})

    def fail(self) -> None:
        raise value_of(self._result, {})

    def take(self, *_arguments: Any) -> Any:
        return UNDEFINED


async def wait_for(promise: RpcPromise) -> None:
    with suppress(RpcError):
        await promise


def take_step(step: Step, peer: Peer, names: dict[str, Any], tasks: TaskGroup) -> None:
    if step["do"] == "say":
        peer.say(*step["message"])
        return
    on = names[step["on"]]
    match step["do"]:
        case "call":
            member = reduce(lambda reached, name: reached[name], step["path"], on)
            names[step["as"]] = member(*(value_of(argument, names) for argument in step["args"]))
        case "get":
            names[step["as"]] = reduce(lambda reached, name: reached[name], step["path"], on)
        case "pull":
            tasks.start_soon(wait_for, on)
        case "dup":
            names[step["as"]] = on.dup()
        case "dispose":
            on.dispose()


async def settled(peer: Peer) -> list[str]:
    """The texts of all messages that follow now."""
    texts: list[str] = []
    while True:
        await anyio.wait_all_tasks_blocked()
        messages = peer.session.messages_to_send()
        if not messages:
            return texts
        texts += [data.decode() for data, _ in messages]


async def written_by_us(case: Case) -> list[list[str]]:
    """The texts of the messages after each step."""
    async with by_hand(Main(case.result)) as peer, anyio.create_task_group() as tasks:
        names: dict[str, Any] = {"api": peer.main}
        heard: list[list[str]] = []
        for step in case.steps:
            take_step(step, peer, names, tasks)
            heard.append(await settled(peer))
        tasks.cancel_scope.cancel()
    return heard


@pytest.fixture(scope="module")
def theirs(node: str) -> dict[str, list[list[str]]]:
    """The same by npm capnweb, by the name of the case."""
    cases = [*SENT, *CALLS, *PROPERTIES]
    described = json.dumps([{"result": case.result, "steps": case.steps} for case in cases])
    done = subprocess.run(
        [node, "expressions.mjs"],
        cwd=HERE,
        input=described,
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return dict(zip([case.name for case in cases], json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", [*SENT, *CALLS], ids=str)
async def test_we_write_what_npm_capnweb_writes(theirs: dict[str, list[list[str]]], case: Case) -> None:
    assert await written_by_us(case) == theirs[case.name]


@pytest.mark.parametrize("case", PROPERTIES, ids=str)
async def test_a_property_is_asked_for_by_the_same_expression(theirs: dict[str, list[list[str]]], case: Case) -> None:
    [*_, [ours]] = await written_by_us(case)
    [*_, [push, pull]] = theirs[case.name]
    assert ours.replace('["stream"', '["push"') == push
    assert json.loads(pull)[0] == "pull"


def test_there_are_a_few_hundred() -> None:
    assert len(SENT) > 300
    assert len({case.name for case in (*SENT, *CALLS, *PROPERTIES)}) == len([*SENT, *CALLS, *PROPERTIES])


async def test_what_we_write_differently() -> None:
    """An object keeps the order that its keys have in Python, where JavaScript puts those that are indices first; an
    index in a path is a number, where JavaScript has the text; and a Uint8Array may be told from bytes."""
    async with by_hand() as peer:
        promise = peer.main.f({"b": 1, "2": 2, "1": 3})[0]
        also = peer.main.g(promise, TypedArray("Uint8Array", b"a"))
        assert [json.loads(text)[1] for text in await settled(peer)] == [
            ["pipeline", 0, ["f"], [{"b": 1, "2": 2, "1": 3}]],
            ["pipeline", 0, ["g"], [["pipeline", 1, [0]], ["bytes", "YQ", "Uint8Array"]]],
        ]
        del also
