"""Raw TCP through our proxy from a real workerd: env.DB.connect() of a VPC binding, and PostgreSQL behind it.

The tunnel is newer than the Miniflare of the other tests: here it is that of npm wrangler 4.116.0 ("wrangler-tunnel" in
package.json), which is miniflare 4.20260730.0, with the workerd that belongs to it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import pytest
from postgres import USER, Postgres, postgres
from proxying import serving

from . import runtime
from .runtime import Worker

CONFIG: Final = """
[bindings.DB]
type = "connect"
allow = ["127.0.0.1:*"]
"""

Handler = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def worker(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    config: Path = tmp_path_factory.mktemp("tunnel") / "capnweb.toml"
    config.write_text(CONFIG)
    with serving(config) as server, through(node, server.url) as running:
        yield running


@pytest.fixture(scope="module")
def reference(node: str) -> Iterator[Worker]:
    """The same Worker with Cloudflare's own proxy Worker."""
    with runtime.cloudflare_tunnel(node) as url, through(node, url) as running:
        yield running


def through(node: str, url: str) -> AbstractContextManager[Worker]:
    remote = {"tunnel_id": "any", "remoteProxyConnectionString": url}
    return runtime.workerd(node, "tunnel_worker.mjs", wrangler="wrangler-tunnel", vpcNetworks={"DB": remote})


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@contextmanager
def listening(handler: Handler) -> Iterator[str]:
    """A server on loopback for one connection; yields its address."""

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            handler(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(60)
            assert not thread.is_alive()


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def test_bytes_go_both_ways(worker: Worker) -> None:
    words = ["one", "zwölf", "x" * 100_000]
    with listening(echo) as address:
        assert worker.run("words", address=address, words=words) == words


def test_the_end_of_the_connection_is_the_end_of_what_is_read(worker: Worker) -> None:
    with listening(lambda connection: connection.sendall(b"x" * 200_000 + b"!")) as address:
        assert worker.run("toTheEnd", address=address) == "x" * 200_000 + "!"


@pytest.mark.parametrize("proxy", ["worker", "reference"])
def test_the_end_of_what_a_worker_sends_is_that_of_both_directions(proxy: str, request: pytest.FixtureRequest) -> None:
    """There is no half of an end in the tunnel, in Cloudflare's either: what the server says then, nobody reads."""
    received = []

    def answer_at_the_end(connection: socket.socket) -> None:
        received.append(b"".join(iter(lambda: connection.recv(65536), b"")))
        connection.sendall(b"answer")

    with listening(answer_at_the_end) as address:
        assert request.getfixturevalue(proxy).run("endThenRead", address=address, text="all of it") == ""
    assert received == [b"all of it"]


@pytest.mark.parametrize("proxy", ["worker", "reference"])
def test_the_end_of_what_a_server_sends_is_that_of_both_directions(proxy: str, request: pytest.FixtureRequest) -> None:
    received = []

    def end_first(connection: socket.socket) -> None:
        connection.sendall(b"greeting")
        connection.shutdown(socket.SHUT_WR)
        received.append(b"".join(iter(lambda: connection.recv(65536), b"")))

    with listening(end_first) as address:
        answer = request.getfixturevalue(proxy).run("readThenSend", address=address, text="more")
    assert answer == {"read": "greeting", "sent": {"name": "Error", "message": "Network connection lost."}}
    assert received == [b""]


def test_megabytes_arrive_whole_in_both_directions_at_a_time(worker: Worker) -> None:
    with listening(echo) as address:
        assert worker.run("large", address=address, size=4 << 20) is True


@pytest.mark.parametrize("address", ["127.0.0.2:80", "metadata.internal:80", "127.0.0.1:1"])
def test_of_what_cannot_be_connected_to_a_worker_reads_the_end(worker: Worker, address: str) -> None:
    """The close says why, and Miniflare's client throws it; workerd tells the Worker of none of that."""
    assert worker.run("failing", address=address)["read"] == {"value": 0}


def test_of_a_connection_that_breaks_a_worker_reads_the_end(worker: Worker) -> None:
    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with listening(reset) as address:
        assert worker.run("failing", address=address)["read"] == {"value": 0}


def test_fetch_of_a_vpc_binding_goes_to_the_same_addresses(worker: Worker) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 418 I am\r\nContent-Length: 2\r\n\r\nhi")

    with listening(answer) as address:
        assert worker.run("fetched", url=f"http://{address}/x") == {"status": 418, "body": "hi"}
    assert worker.run("fetched", url="http://127.0.0.2/")["status"] == 403


def test_postgresql_asks_a_worker_for_its_password(worker: Worker, database: Postgres) -> None:
    # Type R, method 10: SASL (PostgreSQL, section "Message Formats").
    assert worker.run("postgres", address=database.address, user=USER) == {"type": "R", "method": 10}
