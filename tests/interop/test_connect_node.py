"""The connect and fetcher bindings of a running proxy, used by npm capnweb on Node, in both codecs: see connect.mjs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from proxying import serving

from .node import report_of, rpc_url

WORDS: Final = ["one", "zwölf", "three"]
LARGE: Final = 4 << 20
CONFIG: Final = """
[bindings.DB]
type = "connect"
allow = ["127.0.0.1:*"]
connection_string = {{ env = "TEST_DB" }}

[bindings.WEB]
type = "fetcher"
url = "http://{web}/base/"
"""


@contextmanager
def listening(handler: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server on loopback with a thread for each connection; yields its address."""

    def handle(connection: socket.socket) -> None:
        with connection:
            handler(connection)
        ended.release()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            begun.append(1)
            threading.Thread(target=handle, args=[connection]).start()

    begun: list[int] = []
    ended = threading.Semaphore(0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(60)
        # No connection is left open by whoever made it.
        assert all(ended.acquire(timeout=60) for _ in begun)


def echo(connection: socket.socket) -> None:
    try:
        while data := connection.recv(65536):
            connection.sendall(data)
    except OSError:
        pass  # it was reset


def answer(connection: socket.socket) -> None:
    request = b""
    while not request.endswith(b"question") and not request.endswith(b"0\r\n\r\n"):
        request += connection.recv(65536)
    line = request.split(b"\r\n", 1)[0]
    connection.sendall(b"HTTP/1.1 418 I am\r\nX-Own: yes\r\nContent-Length: %d\r\n\r\n%s" % (len(line), line))


@pytest.fixture(scope="module", params=["json", "cbor"])
def report(request: pytest.FixtureRequest, node: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a Node client reports."""
    config: Path = tmp_path_factory.mktemp("connect") / "capnweb.toml"
    with listening(echo) as address, listening(answer) as web, pytest.MonkeyPatch.context() as patch:
        config.write_text(CONFIG.format(web=web))
        patch.setenv("TEST_DB", f"postgres://user:password@{address}/app")
        with serving(config) as server:
            urls = [rpc_url(server.url, name) for name in ("DB", "WEB")]
            values = report_of(
                node,
                "connect.mjs",
                *urls,
                codec=request.param,
                given={"address": address, "words": WORDS, "large": LARGE},
            )
    return values


def test_what_is_sent_comes_back_after_the_end_too(report: dict[str, Any]) -> None:
    assert report["echoed"] == "".join(WORDS)


def test_megabytes_come_back_whole(report: dict[str, Any]) -> None:
    assert report["echoedMuch"] == LARGE


def test_streams_that_are_let_go_of_close_the_connection(report: dict[str, Any]) -> None:
    """The server waits for the end of each connection when the fixture ends."""
    assert "message" not in report["letGo"]


def test_a_refusal_says_why(report: dict[str, Any]) -> None:
    assert report["refused"]["message"] == "refused: 127.0.0.2:80 is not on the binding's allow-list"


def test_the_connection_string(report: dict[str, Any]) -> None:
    assert report["connectionString"].startswith("postgres://user:password@127.0.0.1:")


def test_a_request_of_two_arguments(report: dict[str, Any]) -> None:
    assert report["fetched"] == {"status": 418, "header": "yes", "body": "POST /base/path?q HTTP/1.1"}
