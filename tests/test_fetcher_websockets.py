"""WebSockets through a fetcher: where they go, with which headers, and what is told where none is opened."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from certificates import certificates
from listening import proxy_server
from websocket_server import WebSocketServer, websocket_server

from capnweb_py.remote import connect_env
from capnweb_py.web_socket import WebSocketRefused
from proxy_server import platform_env

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server() -> Iterator[WebSocketServer]:
    with websocket_server() as running:
        yield running


@asynccontextmanager
async def through(kind: str = "fetcher", **table: Any) -> AsyncIterator[Any]:
    """The facade of a binding of a proxy server that runs beside the test."""
    with anyio.fail_after(60):
        async with proxy_server(IT={"type": kind, **table}) as url, connect_env(url) as env:
            yield env.IT


async def refused(binding: Any, url: str, **options: Any) -> tuple[int, str]:
    """Status and body of what a handshake is answered with that opens no WebSocket."""
    with pytest.raises(WebSocketRefused) as raised:
        async with binding.websocket(url, **options):
            raise AssertionError("it is refused")
    return raised.value.response.status, await raised.value.response.text()


async def test_messages_pass_both_ways_and_the_end_has_its_code(server: WebSocketServer) -> None:
    async with (
        through("browser", url=f"http://{server.address}/base/") as browser,
        browser.websocket("https://browser/v1/devtools?a=b") as opened,
    ):
        assert await opened.receive() == "hello"
        for message in ["text", "\u00fc\U0001f600", "", b"\x00\xff", bytes(1 << 20)]:
            await opened.send(message)
            assert await opened.receive() == message
        await opened.send("bye")
        assert [message async for message in opened] == []
        assert (opened.close_code, opened.close_reason) == (4000, "as you wish")
    assert server.asked[-1][0] == "/base/v1/devtools?a=b"


async def test_the_headers_of_the_configuration_are_put_in_place_of_the_clients(server: WebSocketServer) -> None:
    headers = {"Authorization": "the proxy's", "X-Team": "static"}
    async with through(url=f"http://{server.address}", headers=headers) as binding:
        given = {
            "authorization": "mine",
            "x-a": "b",
            "connection": "x-dropped",
            "x-dropped": "1",
            "host": "other.example",
        }
        async with binding.websocket("ws://any/", headers=given) as opened:
            assert await opened.receive() == "hello"
    _, asked = server.asked[-1]
    assert (asked["authorization"], asked["x-team"], asked["x-a"]) == ("the proxy's", "static", "b")
    assert asked["host"] == server.address
    assert "x-dropped" not in asked


@pytest.mark.parametrize("kind", ["mtls_certificate", "vpc_service"])
async def test_the_list_says_where_they_may_go(server: WebSocketServer, kind: str) -> None:
    key = "allow" if kind == "vpc_service" else "allow_hosts"
    port = server.address.rpartition(":")[2]
    async with through(kind, **{key: [server.address, f"*:{port}"]}) as binding:
        async with binding.websocket(f"http://{server.address}/") as opened:
            assert await opened.receive() == "hello"
        before = len(server.asked)
        elsewhere = (403, "refused: 127.0.0.2:80 is not on the binding's allow-list")
        assert await refused(binding, "http://127.0.0.2/") == elsewhere
        leads_to = f"refused: localhost:{port} leads to an address that is not on the allow-list"
        async with through(kind, **{key: [f"*:{port}"]}) as anywhere:
            assert await refused(anywhere, f"ws://localhost:{port}/") == (403, leads_to)
        assert len(server.asked) == before


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    server: WebSocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks this name up again finds nothing."""

    async def look_up(host: str, port: int, **_kind: object) -> list[Any]:
        assert host == "db.invalid"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("proxy_server.egress.anyio.getaddrinfo", look_up)
    port = server.address.rpartition(":")[2]
    async with (
        through("mtls_certificate", allow_hosts=[f"db.invalid:{port}", "127.0.0.0/8:*"]) as binding,
        binding.websocket(f"ws://db.invalid:{port}/") as opened,
    ):
        assert await opened.receive() == "hello"
    assert server.asked[-1][1]["host"] == f"db.invalid:{port}"


async def test_what_is_said_last_arrives_from_a_program_that_ends_at_once(tmp_path: Path) -> None:
    """There is no proxy then: the binding is in the program's own process."""
    config = tmp_path / "capnweb.toml"
    with websocket_server() as server:
        config.write_text(f'[bindings.IT]\ntype = "browser"\nurl = "http://{server.address}/"\n')
        async with platform_env(config) as env, env.IT.websocket("https://any/listen") as opened:
            for number in range(10):
                await opened.send(str(number))
        heard = await anyio.to_thread.run_sync(server.heard.get, True, 60)
    assert heard == ([str(number) for number in range(10)], 1000)


async def test_a_redirect_is_not_followed(server: WebSocketServer) -> None:
    async with through(url=f"http://{server.address}") as binding:
        with pytest.raises(WebSocketRefused) as raised:
            async with binding.websocket("http://any/moved"):
                raise AssertionError("it is refused")
    response = raised.value.response
    assert (response.status, response.headers["location"]) == (302, "http://127.0.0.2/elsewhere")


async def test_a_server_that_is_not_there_is_a_502_that_names_no_path() -> None:
    async with through(url="http://127.0.0.1:1/secret/") as binding:
        status, text = await refused(binding, "http://any/")
    assert (status, text) == (502, "127.0.0.1:1 cannot be reached: Connection refused")


async def test_a_server_without_websockets_answers_as_it_does(server: WebSocketServer) -> None:
    async with through(url=f"http://{server.address}") as binding:
        assert await refused(binding, "http://any/gone") == (410, "no session")


async def test_over_tls_certificates_are_shown_and_asked_for(tmp_path: Path) -> None:
    _, tls = certificates(tmp_path, "localhost")
    files = {"client_certificate": str(tmp_path / "client.pem"), "client_key": str(tmp_path / "client.key")}
    with websocket_server(tls) as server:
        port = server.address.rpartition(":")[2]
        url = f"https://localhost:{port}"
        async with (
            through("mtls_certificate", url=url, ca=str(tmp_path / "ca.pem"), **files) as binding,
            binding.websocket("http://any/") as opened,
        ):
            assert await opened.receive() == "hello"
        async with through(url=url) as binding:
            status, text = await refused(binding, "http://any/")
    assert status == 502
    assert "certificate verify failed" in text


async def test_a_url_of_something_else_is_refused() -> None:
    async with through("mtls_certificate", allow_hosts=["127.0.0.1:*"]) as binding:
        status, text = await refused(binding, "ftp://127.0.0.1/")
    wanted = "WebSockets go to http:, https:, ws: and wss: URLs, not to one of ftp:"
    assert (status, text) == (400, f"the request cannot be sent: {wanted}")
