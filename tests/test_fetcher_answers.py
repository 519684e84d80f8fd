"""What servers behind a fetcher may answer, as it stands on the wire to the proxy's client, and what they cannot do."""

from __future__ import annotations

import gzip
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import attrs
import pytest
from anyio.abc import SocketStream
from listening import everything, listening, proxy_server
from proxying import SECRET

pytestmark = pytest.mark.anyio

TEXT: Final = b"the same again " * 500


@attrs.frozen
class Exchange:
    """A response as it came over the wire, and the requests that the server got for it."""

    head: str
    body: bytes
    asked: list[bytes]

    def header(self, name: str) -> list[str]:
        return re.findall(rf"^{name}: (.*)\r$", self.head, re.MULTILINE | re.IGNORECASE)

    @property
    def status(self) -> str:
        return self.head.partition("\r\n")[0]


def answering(answer: bytes, asked: list[bytes]) -> Callable[[SocketStream], Awaitable[None]]:
    """A server that answers the head of a request with these bytes, and hangs up."""

    async def handle(stream: SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        asked.append(head)
        await stream.send(answer)

    return handle


async def exchange(
    answer: bytes, *headers: str, method: str = "GET", url: str = "http://any/", body: bytes = b"", **table: Any
) -> Exchange:
    """Have the proxy ask a server that answers so."""
    asked: list[bytes] = []
    with anyio.fail_after(60):
        async with listening(answering(answer, asked)) as address:
            given = {"type": "fetcher", **(table or {"url": "http://{}/base/"})}
            filled = {key: value.format(address) if isinstance(value, str) else value for key, value in given.items()}
            async with proxy_server(IT=filled) as proxy:
                lines = [f"{method} /{SECRET}/ HTTP/1.1", "Host: proxy", "Connection: close", "MF-Binding: IT"]
                lines += [f"MF-URL: {url.format(address)}", *headers]
                async with await anyio.connect_tcp("127.0.0.1", urlsplit(proxy).port or 0) as client:
                    await client.send("".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + body)
                    received = await everything(client)
    head, _, body = received.partition(b"\r\n\r\n")
    return Exchange(head.decode("latin-1") + "\r\n", body, asked)


def response(status: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + body


async def test_a_redirect_to_a_forbidden_host_is_handed_on_and_not_followed() -> None:
    elsewhere = "http://169.254.169.254/latest/meta-data/"
    answer = response("302 Found", f"Location: {elsewhere}", "Content-Length: 0")
    got = await exchange(answer, url="http://{}/", allow_hosts=["127.0.0.1:*"])
    assert (got.status, got.header("location"), len(got.asked)) == ("HTTP/1.1 302 Found", [elsewhere], 1)


async def test_what_is_compressed_stays_so_and_says_so() -> None:
    packed = gzip.compress(TEXT)
    answer = response("200 OK", "Content-Encoding: gzip", f"Content-Length: {len(packed)}", body=packed)
    got = await exchange(answer, "MF-Header-Accept-Encoding: gzip")
    assert (got.header("content-encoding"), got.header("content-length")) == (["gzip"], [str(len(packed))])
    assert got.body == packed
    assert b"\r\naccept-encoding: gzip\r\n" in got.asked[0].lower()


async def test_nothing_is_asked_to_be_compressed_that_nobody_asked_for() -> None:
    got = await exchange(response("200 OK", "Content-Length: 2", body=b"hi"))
    assert b"accept-encoding" not in got.asked[0].lower()


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_a_response_without_a_body_has_none(status: str) -> None:
    """Whatever the server sends behind it."""
    got = await exchange(response(status, "ETag: x", "Content-Length: 5", body=b"extra"))
    assert (got.status, got.header("etag"), got.body) == (f"HTTP/1.1 {status}", ["x"], b"")
    assert not got.header("transfer-encoding")


async def test_a_head_is_answered_with_the_length_of_what_a_get_would_bring() -> None:
    got = await exchange(response("200 OK", "Content-Length: 12345", "ETag: x"), method="HEAD")
    assert (got.header("content-length"), got.header("etag"), got.body) == (["12345"], ["x"], b"")
    assert got.asked[0].startswith(b"HEAD /base/ HTTP/1.1\r\n")


async def test_what_comes_before_the_answer_is_passed_over() -> None:
    early = response("103 Early Hints", "Link: </style.css>") + response("100 Continue")
    got = await exchange(early + response("200 OK", "Content-Length: 2", body=b"hi"))
    assert (got.status, got.body, got.header("link")) == ("HTTP/1.1 200 OK", b"hi", [])


async def test_a_length_beside_chunks_is_dropped() -> None:
    """RFC 9112, section 6.3: the chunks win, and no next hop may hear of the other."""
    answer = response("200 OK", "Content-Length: 100", "Transfer-Encoding: chunked", body=b"2\r\nhi\r\n0\r\n\r\n")
    got = await exchange(answer)
    assert (got.header("content-length"), got.header("transfer-encoding")) == ([], ["chunked"])
    assert got.body == b"2\r\nhi\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        response("200 OK", "Content-Length: 2", "Content-Length: 3", body=b"hi!"),
        response("200 OK", "Content-Length: -1"),
        response("200 OK", "Content-Length: 1e1"),
        response("200 OK", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        response("200 OK", "No-Colon"),
        response("200 OK", "Sp ace: x"),
        response("99 Too Low"),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
async def test_an_answer_that_is_no_http_is_a_502(answer: bytes) -> None:
    got = await exchange(answer)
    assert got.status == "HTTP/1.1 502 Bad Gateway"


async def test_a_length_beside_chunks_of_a_request_is_dropped() -> None:
    """What a client says of the body is not what another server may take for its end."""
    chunks = b"5\r\nabcde\r\n0\r\n\r\n"
    ambiguous = ("Content-Length: 100", "Transfer-Encoding: chunked", "MF-Header-Transfer-Encoding: gzip")
    got = await exchange(response("200 OK", "Content-Length: 0"), *ambiguous, method="POST", body=chunks)
    assert got.status == "HTTP/1.1 200 OK"
    assert b"content-length" not in got.asked[0].lower()
    assert b"\r\ntransfer-encoding: chunked\r\n" in got.asked[0].lower()


@pytest.mark.parametrize("length", ["1, 2", "+1", "-1", "0x1", "1e1", "1\x0b"])
async def test_a_request_whose_length_is_none_is_refused(length: str) -> None:
    got = await exchange(
        response("200 OK", "Content-Length: 0"), f"Content-Length: {length}", method="POST", body=b"ab"
    )
    assert (got.status, got.asked) == ("HTTP/1.1 400 Bad Request", [])


async def test_headers_that_come_more_than_once_stay_apart() -> None:
    answer = response("200 OK", "Set-Cookie: a=1, b", "Set-Cookie: c=2", "Content-Length: 0")
    assert (await exchange(answer)).header("set-cookie") == ["a=1, b", "c=2"]


async def test_headers_of_the_servers_connection_do_not_pass() -> None:
    own = [
        "Connection: close, X-Gone",
        "X-Gone: 1",
        "Keep-Alive: timeout=5",
        "Upgrade: h2c",
        "Proxy-Authenticate: Basic",
    ]
    got = await exchange(response("200 OK", *own, "X-Stays: 1", "Content-Length: 0"))
    for name in ("x-gone", "keep-alive", "upgrade", "proxy-authenticate"):
        assert not got.header(name)
    assert got.header("x-stays") == ["1"]


@pytest.mark.parametrize(
    "url",
    [
        "http://any/a HTTP/1.1 X-Injected: 1",
        "http://any/a?b c",
        "http://any/\x0bvertical",
        "http://any/\xe9",
        "http://any/a#fragment",
        "//any/a",
        "http://any:port/",
        "",
    ],
)
async def test_no_url_adds_anything_to_the_head_of_a_request(url: str) -> None:
    got = await exchange(response("200 OK", "Content-Length: 0"), url=url)
    for head in got.asked:
        assert re.fullmatch(rb"GET /[!-~]* HTTP/1\.1\r\nhost: [0-9.:]+\r\n\r\n", head, re.IGNORECASE)
    assert got.status == ("HTTP/1.1 200 OK" if got.asked else "HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize("method", ["GET /other HTTP/1.1 X", "CONNECT", "TRACE"])
async def test_a_method_is_one_word_that_may_be_asked(method: str) -> None:
    got = await exchange(response("200 OK", "Content-Length: 0"), method=method)
    assert got.asked == []
    assert got.status.startswith("HTTP/1.1 4")


async def test_the_host_is_that_of_the_url() -> None:
    got = await exchange(response("200 OK", "Content-Length: 0"), "MF-Header-Host: evil.example", "MF-Header-X: 1")
    [host] = re.findall(rb"^host: (.*)\r$", got.asked[0], re.MULTILINE | re.IGNORECASE)
    assert host.startswith(b"127.0.0.1:")
