"""Where bindings may connect to: the entries of an allow-list, names, addresses, and what a name turns out to be."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from proxy_server.egress import AddressRefused, AllowList, split_address

pytestmark = pytest.mark.anyio

Names = Callable[[str, str], None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Gives names addresses; each look-up takes the next one of several, and the last one again and again."""
    known: dict[str, list[str]] = {}
    resolve = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        answers = known.get(name)
        if answers is None:
            return resolve(host, *arguments, **options)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        found = [resolve(address, *arguments, **options) for address in answer.split()]
        return [entry for entries in found for entry in entries]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    def add(name: str, *answers: str) -> None:
        known[name] = list(answers)

    return add


@asynccontextmanager
async def greeter() -> AsyncIterator[int]:
    """A server on loopback that sends a word to who connects; yields its port."""

    async def greet(stream: SocketStream) -> None:
        async with stream:
            await stream.send(b"hello")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, greet)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def greeting(allowed: AllowList, host: str, port: int) -> bytes:
    async with await allowed.connect(host, port) as stream:
        return await stream.receive()


def refused(text: str) -> Any:
    return pytest.raises(AddressRefused, match=text)


@pytest.mark.parametrize(
    "entry", ["127.0.0.1:{}", "127.0.0.0/8:{}", "127.0.0.1:*", "localhost:{}", "[::ffff:127.0.0.1]:{}"]
)
async def test_what_is_on_the_list_is_connected_to(entry: str) -> None:
    async with greeter() as port:
        host = {"l": "localhost", "[": "::ffff:127.0.0.1"}.get(entry[0], "127.0.0.1")
        assert await greeting(AllowList.parse([entry.format(port)]), host, port) == b"hello"


@pytest.mark.parametrize(
    ("entries", "host"),
    [
        ([], "127.0.0.1"),
        (["127.0.0.1:1"], "127.0.0.1"),
        (["10.0.0.0/8:*"], "127.0.0.1"),
        (["*:*"], "127.0.0.1"),
        (["*:*"], "169.254.169.254"),
        (["*:*"], "10.1.2.3"),
        (["*:*"], "100.64.0.1"),
        (["*:*"], "0.0.0.0"),
        (["*:*"], "224.0.0.1"),
        (["*:*"], "::1"),
        (["*:*"], "fe80::1"),
        (["*:*"], "fd00:ec2::254"),
        (["*:*"], "::ffff:127.0.0.1"),
        (["*:*"], "64:ff9b::7f00:1"),
        (["*:*"], "64:ff9b:1::7f00:1"),
        (["*:*"], "::ffff:0:7f00:1"),
        (["*:*"], "::7f00:1"),
        (["*:*"], "fec0::1"),
        (["*:*"], "5f00::1"),
        (["*:*"], "3fff::1"),
        (["*:*"], "192.0.0.8"),
        (["*:*"], "192.88.99.1"),
        (["*:*"], "2002:7f00:1::"),
        (["db.internal:*"], "other.internal"),
        (["db.internal:*"], "sub.db.internal"),
        (["*.internal:*"], "internal"),
        (["*.internal:*"], "evilinternal"),
        (["*.internal:*"], "db.internal.example.com"),
        (["*:*"], "a b"),
        (["*:*"], "..."),
    ],
)
async def test_what_is_not_on_the_list_is_refused(entries: list[str], host: str) -> None:
    with refused("refused: .* is not on the binding's allow-list"):
        await AllowList.parse(entries).connect(host, 9)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "017700000001", "localhost"])
async def test_a_way_to_write_loopback_that_is_no_address_is_looked_up_and_refused(host: str) -> None:
    with refused("leads to an address that is not on the allow-list"):
        await AllowList.parse(["*:*"]).connect(host, 9)


async def test_a_name_on_the_list_that_leads_to_a_private_address_is_refused(names: Names) -> None:
    names("db.internal", "127.0.0.1")
    async with greeter() as port:
        with refused("db.internal:[0-9]+ leads to an address"):
            await AllowList.parse([f"db.internal:{port}"]).connect("db.internal", port)


async def test_a_private_address_that_is_on_the_list_too_is_connected_to_by_name(names: Names) -> None:
    names("db.internal", "10.255.255.1 127.0.0.1")
    async with greeter() as port:
        allowed = AllowList.parse([f"*.internal:{port}", "127.0.0.0/8:*"])
        assert await greeting(allowed, "DB.Internal.", port) == b"hello"


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(names: Names) -> None:
    # Whoever looked the name up again would go to a port where nobody listens.
    names("db.internal", "127.0.0.1", "127.0.0.2")
    async with greeter() as port:
        assert await greeting(AllowList.parse(["db.internal:*", "127.0.0.1:*"]), "db.internal", port) == b"hello"


async def test_a_server_that_is_not_there_is_an_error_of_the_operating_system() -> None:
    with pytest.raises(OSError, match="All connection attempts failed"):
        await AllowList.parse(["127.0.0.1:*"]).connect("127.0.0.1", 1)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("db.internal", "names no port"),
        ("db.internal:", "names no port"),
        ("db.internal:0", "names no port"),
        ("db.internal:65536", "names no port"),
        ("10.0.0.1/8:1", "is no range of addresses"),
        ("[db.internal]:1", "is no range of addresses"),
        ("fd00::/8:1", "names no port"),
        ("a*b:1", "names no host"),
        ("http://a/:1", "names no port"),
        (":1", "is no entry"),
        ("", "is no entry"),
    ],
)
def test_an_entry_that_is_none_is_named(entry: str, message: str) -> None:
    with pytest.raises(ValueError, match=f'"{entry.replace("*", "[*]").replace("[db", ".db")}.* {message}'):
        AllowList.parse([entry])


def test_an_address_is_a_host_and_a_port() -> None:
    assert split_address("db.internal:5432") == ("db.internal", 5432)
    assert split_address("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize(
    "text", ["", "a", "a:", "a:b", "a:0", "a:65536", "::1:80", "a:80:90", "a:80\r\n", "[a:80", "a:-1", "a:٣"]
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        split_address(text)
