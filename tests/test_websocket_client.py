"""Plain WebSockets of `open_web_socket`, on both event loops, with a server that does what the test says."""

from __future__ import annotations

import anyio
import pytest
from rawpeer import RawPeer, raw_server

from capnweb_py import websocket_client
from capnweb_py.websocket_client import open_web_socket

pytestmark = pytest.mark.anyio


async def test_a_socket_with_many_unread_messages_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_client, "CLOSE_TIMEOUT", 0.1)

    async def tell(peer: RawPeer) -> None:
        await peer.say(*(str(number) for number in range(100)))
        await anyio.sleep_forever()

    async with raw_server(tell) as url:
        with anyio.fail_after(60):
            async with open_web_socket(url, title="the server") as socket:
                assert await socket.receive() == "0"
                await anyio.wait_all_tasks_blocked()
