"""serve_websocket: a session over the WebSocket events of an ASGI server, which the test plays."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from capnweb_py import RpcTarget
from capnweb_py.transports.asgi import serve_websocket

pytestmark = pytest.mark.anyio

Event = MutableMapping[str, Any]


class Api(RpcTarget):
    def __init__(self) -> None:
        self.disposed = 0

    async def hello(self, name: Any) -> Any:
        return f"Hello, {name}!"

    def echo(self, value: Any) -> Any:
        return value

    def dispose(self) -> None:
        self.disposed += 1


class Client:
    """A client behind the ASGI server: what it sends arrives as events, and what it gets are events."""

    def __init__(self, inbox: ObjectSendStream[Event], outbox: ObjectReceiveStream[Event]) -> None:
        self._inbox = inbox
        self._outbox = outbox

    async def say(self, *message: Any) -> None:
        await self._inbox.send({"type": "websocket.receive", "text": json.dumps(message)})

    async def say_bytes(self, data: bytes) -> None:
        await self._inbox.send({"type": "websocket.receive", "bytes": data})

    async def leave(self, code: int = 1000) -> None:
        await self._inbox.send({"type": "websocket.disconnect", "code": code})

    async def event(self) -> Event:
        return await self._outbox.receive()

    async def hear(self) -> Any:
        event = await self.event()
        assert event["type"] == "websocket.send"
        return json.loads(event["text"])


@asynccontextmanager
async def connected(main: Any, *subprotocols: str, first: str = "websocket.connect") -> AsyncIterator[Client]:
    """A client of `main`. The application must have returned by itself at the end."""
    to_app, app_inbox = anyio.create_memory_object_stream[Event](100)
    app_outbox, from_app = anyio.create_memory_object_stream[Event](100)
    scope: Event = {"type": "websocket", "client": ("127.0.0.1", 5), "subprotocols": list(subprotocols)}
    async with to_app, app_inbox, app_outbox, from_app, anyio.create_task_group() as tasks:
        await to_app.send({"type": first})
        tasks.start_soon(serve_websocket, main, scope, app_inbox.receive, app_outbox.send)
        yield Client(to_app, from_app)


async def test_calls_are_answered() -> None:
    api = Api()
    async with connected(api) as client:
        assert await client.event() == {"type": "websocket.accept", "subprotocol": None}
        await client.say("stream", ["pipeline", 0, ["hello"], ["ASGI"]])
        assert await client.hear() == ["resolve", 1, "Hello, ASGI!"]
        await client.leave()
    assert api.disposed == 1


async def test_the_best_subprotocol_is_accepted_and_bytes_travel_raw() -> None:
    async with connected(Api(), "capnweb.json", "capnweb.cbor") as client:
        assert (await client.event())["subprotocol"] == "capnweb.cbor"
        await client.say("stream", ["pipeline", 0, ["echo"], [["bytes", "YWJj"]]])
        event = await client.event()
        assert b"abc" in event["bytes"]
        await client.leave()


async def test_an_abort_closes_with_its_code_and_reason() -> None:
    async with connected(Api()) as client:
        await client.event()
        await client.say("nonsense")
        assert (await client.hear())[0] == "abort"
        assert await client.event() == {
            "type": "websocket.close",
            "code": 3000,
            "reason": "bad RPC message: ['nonsense']",
        }


async def test_binary_data_over_json_is_an_abort() -> None:
    async with connected(Api()) as client:
        await client.event()
        await client.say_bytes(b"[]")
        assert (await client.hear())[1][1] == "ProtocolError"
        assert (await client.event())["code"] == 3000


async def test_a_client_that_leaves_before_the_handshake_is_not_accepted() -> None:
    api = Api()
    async with connected(api, first="websocket.disconnect") as client:
        with pytest.raises(anyio.WouldBlock):
            client._outbox.receive_nowait()  # type: ignore[attr-defined]
    assert api.disposed == 0


async def test_nothing_is_sent_to_a_client_that_has_left() -> None:
    class Gone(RpcTarget):
        async def wait(self) -> None:
            await anyio.sleep_forever()

    async with connected(Gone()) as client:
        await client.event()
        await client.say("stream", ["pipeline", 0, ["wait"], []])
        await client.leave(1001)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.WouldBlock):
            client._outbox.receive_nowait()  # type: ignore[attr-defined]
