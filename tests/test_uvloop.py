"""Sessions on uvloop, which hands a protocol its bytes in another way than asyncio's own loop."""

from __future__ import annotations

from typing import Any

import pytest

from capnweb_py import RpcTarget, connect, serve
from capnweb_py.transports.busy_polling import BusyPolling
from capnweb_py.transports.frames import FrameReader

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


class Api(RpcTarget):
    def echo(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize("value", [1, "x" * 1000, bytes(1024 * 1024)], ids=["small", "text", "long"])
async def test_calls_are_answered(value: Any) -> None:
    async with serve(Api, "127.0.0.1", 0) as server, connect(server.url) as api:
        assert [await api.echo(value) for _ in range(5)] == [value] * 5


async def test_frames_go_the_short_way_and_pay_for_staying_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[bytes] = []
    heard: list[BusyPolling] = []
    feed, hear = FrameReader.feed, BusyPolling.heard
    monkeypatch.setattr(FrameReader, "feed", lambda reader, data: (fed.append(data), feed(reader, data)))
    monkeypatch.setattr(BusyPolling, "heard", lambda polling: (heard.append(polling), hear(polling)))
    monkeypatch.setattr("capnweb_py.transports.busy_polling._cores", lambda: 2)
    async with serve(Api, "127.0.0.1", 0) as server, connect(server.url) as api:
        assert await api.echo(1) == 1
    assert len(fed) >= 2
    assert len(heard) >= 2
