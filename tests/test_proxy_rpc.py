"""The RPC channel: which handshakes become sessions, and what those hear that do not."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup
from proxying import fetch, opener, proxy, serving, websocket_scope, wired
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from capnweb_py.target import RpcTarget
from capnweb_py.transports.driver import cut_reason
from proxy_server.bindings import Declaration
from proxy_server.bindings.service import RpcService
from proxy_server.bindings.upstream import Upstream
from proxy_server.refusals import NAMELESS

pytestmark = pytest.mark.anyio

GREETER = """
from capnweb_py.target import RpcTarget

class Greeter(RpcTarget):
    def __init__(self):
        self._greeted = 0

    async def hello(self, name):
        self._greeted += 1
        return f"Hello, {name}! ({self._greeted})"
"""

CONFIG = """
[bindings.GREETER]
type = "service"
target = "greeter:Greeter"
[bindings.UPSTREAM]
type = "service"
target = "http://127.0.0.1:1/"
"""


def broken() -> RpcTarget:
    raise LookupError("no main object today")


def exiting() -> RpcTarget:
    raise SystemExit("no more sessions")


@pytest.mark.parametrize(
    ("query", "headers", "status", "text"),
    [
        ("MF-Binding=NONE", [], 400, 'Binding "NONE" not found'),
        ("MF-Binding=", [], 400, NAMELESS.text),
        ("", [], 400, NAMELESS.text),
        ("", [("mf-binding", "NONE")], 400, 'Binding "NONE" not found'),
        ("", [("mf-binding", "S")], 500, "Handler does not export a fetch() function. tests:RpcTarget has none."),
        (
            "",
            [("mf-binding", "S"), ("mf-connect-address", "a:1")],
            400,
            'this binding makes no TCP connections: those of the type "connect" do',
        ),
        ("", [("mf-binding", "X"), ("mf-connect-address", "a:1")], 400, 'Binding "X" not found'),
        ("MF-Binding=BROKEN", [], 500, "no main object today"),
        ("MF-Binding=EXITING", [], 500, "no more sessions"),
    ],
)
async def test_a_handshake_that_leads_nowhere_is_refused_with_the_reason(
    query: str, headers: list[tuple[str, str]], status: int, text: str
) -> None:
    services = {
        "S": RpcService("tests:RpcTarget", RpcTarget),
        "BROKEN": RpcService("tests:broken", broken),
        "EXITING": RpcService("tests:exiting", exiting),
    }
    async with proxy(**services) as app:
        reply = await fetch(app, websocket_scope(query, headers=headers))
        assert (reply.status, reply.body.decode()) == (status, text)
        async with wired(app, websocket_scope(query, headers=headers, can_respond=False)) as wire:
            await wire.to_app.send({"type": "websocket.connect"})
            assert await wire.next() == {"type": "websocket.close", "code": 1008, "reason": text}


async def test_a_binding_without_an_rpc_side_closes_the_socket_with_the_reason() -> None:
    async def opener(tasks: TaskGroup) -> Upstream:
        return Upstream("http://a.example/" + "%c3" * 50, tasks)

    async with (
        proxy(S=opener) as app,
        wired(app, websocket_scope("MF-Binding=S")) as wire,
    ):
        await wire.to_app.send({"type": "websocket.connect"})
        assert await wire.next() == {"type": "websocket.accept"}
        closing = await wire.next()
        assert closing["code"] == 3000
        assert closing["reason"].startswith("upstream URLs speak HTTP only: use fetch()")
        assert len(closing["reason"]) == 123


def test_the_reason_of_a_close_is_cut_between_characters() -> None:
    assert cut_reason("ä" * 100) == "ä" * 61
    assert cut_reason("short") == "short"


def test_sessions_on_a_real_server(tmp_path: Path) -> None:
    (tmp_path / "greeter.py").write_text(GREETER)
    config = tmp_path / "capnweb.toml"
    config.write_text(CONFIG)
    with serving(config) as server:
        url = server.url.replace("http", "ws", 1)
        for _ in range(2):
            # Each session has a target of its own: both are greeted for the first time.
            with connect(f"{url}?MF-Binding=GREETER") as socket:
                socket.send('["push",["pipeline",0,["hello"],["World"]]]')
                socket.send('["pull",1]')
                assert json.loads(socket.recv(timeout=10)) == ["resolve", 1, "Hello, World! (1)"]
        with connect(f"{url}?MF-Binding=UPSTREAM") as socket:
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 3000
            assert closed.value.rcvd.reason.startswith("upstream URLs speak HTTP only")
        with pytest.raises(InvalidStatus) as refused, connect(f"{url}?MF-Binding=NONE"):
            raise AssertionError("an unknown binding was accepted")
        assert refused.value.response.status_code == 400
        assert refused.value.response.body == b'Binding "NONE" not found'
        server.process.terminate()
        output, errors = server.ended()
    assert (output, len(errors.splitlines())) == ("", 1)
    assert errors.startswith("WARNING proxy_server: refused a request for the binding NONE: ")


@pytest.mark.parametrize("kind", ["kv_namespace", "d1"])
async def test_few_calls_of_a_session_run_at_a_time_where_each_may_return_much(kind: str) -> None:
    begun: list[int] = []
    due = anyio.Event()

    class Store(RpcTarget):
        async def get(self, number: int) -> int:
            begun.append(number)
            await due.wait()
            return number

    declaration = Declaration(kind, opener(RpcService("tests:Store", Store)))
    async with proxy(S=declaration) as app, wired(app, websocket_scope("MF-Binding=S")) as wire:
        await wire.to_app.send({"type": "websocket.connect"})
        assert (await wire.next())["type"] == "websocket.accept"
        for number in range(100):
            text = json.dumps(["stream", ["pipeline", 0, ["get"], [number]]])
            await wire.to_app.send({"type": "websocket.receive", "text": text})
        await anyio.wait_all_tasks_blocked()
        assert 1 < len(begun) < 20
        due.set()
        answers = [json.loads((await wire.next())["text"])[2] for _ in range(100)]
        assert sorted(answers) == begun == list(range(100))
        await wire.to_app.send({"type": "websocket.disconnect", "code": 1000})
        await wire.ended.wait()
