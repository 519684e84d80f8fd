"""The fetcher binding: an HTTP server behind the proxy. What passes, what is added, what is refused, what is told."""

from __future__ import annotations

import json
import logging
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import pytest
import trustme
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteStream
from certificates import certificates
from listening import listening, proxy_server
from proxying import SECRET, fetch, http_scope, proxy

from capnweb_py import RemoteError
from capnweb_py.remote import connect_env
from capnweb_py.web import Request
from proxy_server.config import ConfigError, read

pytestmark = pytest.mark.anyio

TOKEN: Final = "not-for-anybodys-eyes"


@pytest.fixture(params=["http", "rpc"])
def channel(request: pytest.FixtureRequest) -> Literal["http", "rpc"]:
    name: Literal["http", "rpc"] = request.param
    return name


@asynccontextmanager
async def through(channel: Literal["http", "rpc"] = "http", kind: str = "fetcher", **table: Any) -> AsyncIterator[Any]:
    """The facade of a fetcher of a proxy server that runs beside the test."""
    with anyio.fail_after(60):
        async with (
            proxy_server(AI={"type": kind, **table}) as url,
            connect_env(url, channel=channel) as env,
        ):
            yield env.AI


async def body_of(stream: BufferedByteStream, headers: dict[str, str]) -> bytes:
    """The body of a request (RFC 9112, section 6.3)."""
    if "transfer-encoding" not in headers:
        length = int(headers.get("content-length", 0))
        return await stream.receive_exactly(length) if length else b""
    body = b""
    while size := int(await stream.receive_until(b"\r\n", 20), 16):
        body += (await stream.receive_exactly(size + 2))[:-2]
    await stream.receive_exactly(2)
    return body


async def tell(stream: ByteStream) -> None:
    """Answers one request after another with its head and its body, in JSON."""
    buffered = BufferedByteStream(stream)
    while True:
        try:
            head = (await buffered.receive_until(b"\r\n\r\n", 65536)).decode("latin-1").split("\r\n")
        except (anyio.IncompleteRead, anyio.BrokenResourceError):
            return
        headers = [line.split(": ", 1) for line in head[1:]]
        body = (await body_of(buffered, {name.lower(): value for name, value in headers})).decode()
        answer = json.dumps({"line": head[0], "headers": headers, "body": body}).encode()
        await stream.send(b"HTTP/1.1 299 Just so\r\nX-Own: yes\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


async def told(response: Any) -> dict[str, Any]:
    value: dict[str, Any] = await response.json()
    value["headers"] = {name.lower(): text for name, text in value["headers"]}
    return value


# What passes


async def test_method_path_query_headers_body_and_status_pass(channel: Any) -> None:
    async with listening(tell) as address, through(channel, url=f"http://{address}/base/") as ai:
        response = await ai.fetch("https://ai/run?a=b%20c", method="PUT", headers={"X-A": "b"}, body="question")
        assert (response.status, response.headers["x-own"]) == (299, "yes")
        request = await told(response)
    assert request["line"] == "PUT /base/run?a=b%20c HTTP/1.1"
    assert request["body"] == "question"
    assert (request["headers"]["x-a"], request["headers"]["host"]) == ("b", address)


async def test_bodies_stream_both_ways_at_a_time(channel: Any) -> None:
    """Each chunk is sent when the one before has come back."""

    async def echo_chunks(stream: ByteStream) -> None:
        buffered = BufferedByteStream(stream)
        await buffered.receive_until(b"\r\n\r\n", 65536)
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            size = int(await buffered.receive_until(b"\r\n", 20), 16)
            chunk = (await buffered.receive_exactly(size + 2))[:-2]
            await stream.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if not chunk:
                return

    arrived = anyio.Event()

    async def words() -> AsyncIterator[bytes]:
        yield b"one"
        await arrived.wait()
        yield b"two"

    async with listening(echo_chunks) as address, through(channel, url=f"http://{address}/") as ai:
        response = await ai.fetch("http://ai/", method="POST", body=words())
        chunks = aiter(response.body)
        assert await anext(chunks) == b"one"
        arrived.set()
        assert [chunk async for chunk in chunks] == [b"two"]


async def test_redirects_are_not_followed(channel: Any) -> None:
    async def redirect(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    async with listening(redirect) as address, through(channel, url=f"http://{address}/") as ai:
        response = await ai.fetch("http://ai/")
        assert (response.status, response.headers["location"]) == (302, "http://127.0.0.1:1/")


async def test_headers_of_one_connection_do_not_pass(channel: Any) -> None:
    headers = {"Connection": "x-gone", "X-Gone": "1", "Keep-Alive": "1", "TE": "trailers", "X-Stays": "1"}
    async with listening(tell) as address, through(channel, url=f"http://{address}/") as ai:
        request = await told(await ai.fetch("http://ai/", headers=headers))
    assert set(request["headers"]) == {"host", "x-stays"}


async def test_the_length_of_a_request_is_its_own() -> None:
    """A length that a client claims beside chunks is how requests are smuggled (RFC 9112, section 11.2)."""
    smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
    headers = {"Content-Length": "4", "Transfer-Encoding": "chunked"}
    async with listening(tell) as address, through(url=f"http://{address}/") as ai:
        request = await told(await ai.fetch("http://ai/", method="POST", headers=headers, body=smuggled))
    assert (request["line"], request["body"]) == ("POST / HTTP/1.1", smuggled)
    assert "transfer-encoding" not in request["headers"]
    assert request["headers"]["content-length"] == str(len(smuggled))


@pytest.mark.parametrize("name", ["mf-header-x-a", "mf-header-host"])
@pytest.mark.parametrize("value", ["a\r\nX-B: c", "a\nX-B: c", "a\0"])
async def test_a_line_break_in_a_header_is_refused(name: str, value: str) -> None:
    async with listening(tell) as address:
        table = {"type": "fetcher", "url": f"http://{address}/"}
        bindings = read({"bindings": {"AI": table}}, Path("capnweb.toml")).bindings
        async with proxy(**bindings) as app:
            reply = await fetch(app, http_scope("AI", headers=[(name, value)]))
    assert reply.status == 400
    assert b"holds a line break" in reply.body


@pytest.mark.parametrize(
    "path",
    ["/../secret", "/a/../../secret", "/%2e%2e/secret", "/.%2E/secret", r"/\..\secret", r"/a\..\..\secret"],
)
async def test_no_path_climbs_out_of_the_url(channel: Any, path: str) -> None:
    async with listening(tell) as address, through(channel, url=f"http://{address}/base/") as ai:
        request = await told(await ai.fetch(f"http://ai{path}"))
    assert request["line"] == "GET /base/secret HTTP/1.1"


async def test_a_server_that_is_not_there_is_a_502(channel: Any) -> None:
    async with through(channel, url="http://127.0.0.1:1/a-path-of-its-own") as ai:
        response = await ai.fetch("http://ai/")
        text = await response.text()
    assert response.status == 502
    assert text.startswith("127.0.0.1:1 cannot be reached")
    assert "a-path-of-its-own" not in text


async def test_fetch_over_rpc_takes_what_javascript_gives() -> None:
    async with listening(tell) as address, through("rpc", url=f"http://{address}/") as ai:
        init = {"method": "POST", "headers": {"x-a": "b"}, "body": "text", "redirect": "manual"}
        request = await told(await ai.rpc.fetch("https://ai/a", init))
        assert (request["line"], request["body"], request["headers"]["x-a"]) == ("POST /a HTTP/1.1", "text", "b")
        request = await told(await ai.rpc.fetch(Request("https://ai/b"), {"method": "DELETE"}))
        assert request["line"] == "DELETE /b HTTP/1.1"
        with pytest.raises(RemoteError, match="the second argument of fetch"):
            await ai.rpc.fetch("https://ai/", 5)


# Secrets


async def test_headers_of_the_configuration_are_added_and_win(channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_TOKEN", TOKEN)
    headers = {"Authorization": {"env": "AI_TOKEN", "prefix": "Bearer "}, "X-Static": "static"}
    async with listening(tell) as address, through(channel, url=f"http://{address}/", headers=headers) as ai:
        request = await told(await ai.fetch("http://ai/", headers={"authorization": "mine", "x-static": "mine"}))
    assert (request["headers"]["authorization"], request["headers"]["x-static"]) == (f"Bearer {TOKEN}", "static")


async def test_a_secret_is_in_no_error_log_or_repr(
    channel: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AI_TOKEN", TOKEN)
    table = {"url": "http://127.0.0.1:1/", "headers": {"Authorization": {"env": "AI_TOKEN"}}}
    declared = read({"bindings": {"AI": {"type": "fetcher", **table}}}, Path("capnweb.toml"))
    assert TOKEN not in repr(declared)
    async with through(channel, **table) as ai:
        response = await ai.fetch("http://ai/")
        assert TOKEN not in await response.text() + str(response.headers)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("AI_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("AI_TOKEN", value)
    problem = "bindings.AI.headers.Authorization.env: the environment variable AI_TOKEN is (not set|empty)"
    with pytest.raises(ConfigError, match=problem):
        load(url="http://a/", headers={"Authorization": {"env": "AI_TOKEN"}})


def test_a_secret_that_is_no_header_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_TOKEN", f"{TOKEN}\r\nX-Injected: 1")
    with pytest.raises(ConfigError, match=r"headers\.Authorization: .* holds a line break") as raised:
        load(url="http://a/", headers={"Authorization": {"env": "AI_TOKEN"}})
    assert TOKEN not in str(raised.value)


def load(**table: Any) -> None:
    read({"bindings": {"AI": {"type": "fetcher", **table}}}, Path("capnweb.toml"))


# Where requests go that carry their own URL


async def test_a_request_goes_to_a_host_on_the_list(channel: Any) -> None:
    async with listening(tell) as address, through(channel, "mtls_certificate", allow_hosts=["127.0.0.1:*"]) as cert:
        request = await told(await cert.fetch(f"http://{address}/path?q"))
    assert (request["line"], request["headers"]["host"]) == ("GET /path?q HTTP/1.1", address)


@pytest.mark.parametrize(
    ("hosts", "url", "reason"),
    [
        (["example.com"], "http://127.0.0.1/", "refused: 127.0.0.1:80 is not on the binding's allow-list"),
        (["127.0.0.1"], "http://127.0.0.1:8080/", "refused: 127.0.0.1:8080 is not on the binding's allow-list"),
        (["example.com"], "http://example.com.evil.com/", "refused: example.com.evil.com:80 is not on"),
        (["example.com"], "http://example.com@127.0.0.1/", "refused: 127.0.0.1:80 is not on"),
        (["example.com"], r"http://example.com\@127.0.0.1/", "refused: 127.0.0.1:80 is not on"),
        (["*"], "http://169.254.169.254/latest/meta-data/", "refused: 169.254.169.254:80 is not on"),
        (["*"], "http://[::1]/", "refused: [::1]:80 is not on"),
        (["*"], "http://[::ffff:10.0.0.1]/", "refused: [::ffff:10.0.0.1]:80 is not on"),
        (["*"], "http://localhost/", "refused: localhost:80 leads to an address that is not on the allow-list"),
        (["*"], "http://2130706433/", "refused: 2130706433:80 leads to an address that is not on the allow-list"),
        (["*"], "http://0x7f.1/", "refused: 0x7f.1:80 leads to an address that is not on the allow-list"),
    ],
)
async def test_a_request_to_any_other_host_is_a_403(channel: Any, hosts: list[str], url: str, reason: str) -> None:
    async with through(channel, allow_hosts=hosts) as cert:
        response = await cert.fetch(url)
        assert (response.status, (await response.text())[: len(reason)]) == (403, reason)


# TLS


async def test_a_client_certificate_is_shown(channel: Any, tmp_path: Path) -> None:
    _, tls = certificates(tmp_path)
    files = {"ca": "ca.pem", "client_certificate": "client.pem", "client_key": "client.key"}
    named = {key: str(tmp_path / name) for key, name in files.items()}
    async with listening(tell, tls) as address:
        async with through(channel, url=f"https://{address}/", **named) as ai:
            assert (await told(await ai.fetch("http://ai/a")))["line"] == "GET /a HTTP/1.1"
        async with through(channel, "mtls_certificate", allow_hosts=[address], **named) as cert:
            assert (await told(await cert.fetch(f"https://{address}/b")))["line"] == "GET /b HTTP/1.1"


async def test_a_server_that_nobody_vouches_for_is_a_502(channel: Any, tmp_path: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)

    async def shake(stream: ByteStream) -> None:
        from anyio.streams.tls import TLSStream

        try:
            await TLSStream.wrap(stream, server_side=True, ssl_context=tls)
        except (ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
            pass

    async with listening(shake) as address, through(channel, url=f"https://{address}/") as ai:
        response = await ai.fetch("http://ai/")
        assert response.status == 502


# Pipelines


async def test_a_pipeline_posts_its_records() -> None:
    heads: list[str] = []

    async def accept(stream: ByteStream) -> None:
        buffered = BufferedByteStream(stream)
        heads.append((await buffered.receive_until(b"\r\n\r\n", 65536)).decode())
        heads.append((await buffered.receive_exactly(10)).decode())
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with listening(accept) as address, through(kind="pipeline", url=f"http://{address}/in") as pipeline:
        await pipeline.send([{"a": 1}])
    assert heads[0].startswith("POST /in HTTP/1.1")
    assert "content-type: application/json" in heads[0]
    assert json.loads(heads[1]) == [{"a": 1}]


async def test_a_pipeline_that_does_not_accept_says_so() -> None:
    async def refuse(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 429 Slow\r\nContent-Length: 8\r\n\r\ntoo fast")

    async with listening(refuse) as address, through(kind="pipeline", url=f"http://{address}/") as pipeline:
        with pytest.raises(RemoteError, match="the pipeline answered 429: too fast"):
            await pipeline.send([{"a": 1}])


# The configuration


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, 'bindings.AI: either "url"'),
        ({"url": "http://a/", "allow_hosts": ["a"]}, 'bindings.AI: either "url"'),
        ({"url": "ftp://a/"}, "bindings.AI.url: URLs with ftp: are not requested"),
        ({"url": "a"}, "bindings.AI.url: 'a' is not an absolute URL"),
        ({"url": f"http://user:{TOKEN}@a/"}, "bindings.AI.url: a target's URL has no credentials"),
        ({"url": "http://a/?b"}, "bindings.AI.url: a target's URL has no query"),
        ({"url": "http://a/", "headers": {"Host": "b"}}, "bindings.AI.headers.Host: this header describes"),
        ({"url": "http://a/", "headers": {"a b": "c"}}, "bindings.AI.headers.a b: this is no name of a header"),
        ({"url": "http://a/", "headers": {"X": 5}}, "bindings.AI.headers.X: a string is needed here"),
        ({"url": "http://a/", "headers": {"X": {"env": "PATH", "x": "y"}}}, "bindings.AI.headers.X.x: unknown key"),
        ({"url": "https://a/", "client_key": "k"}, "bindings.AI.client_key: the key needs its certificate"),
        ({"url": "https://a/", "client_certificate": "none.pem"}, "client_certificate: .*none.pem and its key cannot"),
        ({"url": "https://a/", "ca": "none.pem"}, "bindings.AI.ca: .*none.pem is no file of certificates"),
        ({"allow_hosts": ["10.0.0.1/8"]}, "bindings.AI.allow_hosts: .* is no range of addresses"),
        ({"ur": "http://a/"}, 'bindings.AI.ur: unknown key: did you mean "url"'),
    ],
)
def test_a_mistake_in_the_table_is_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load(**table)
    assert TOKEN not in str(raised.value)


def test_a_certificate_goes_with_https_only(tmp_path: Path) -> None:
    certificates(tmp_path)
    files = {"client_certificate": str(tmp_path / "client.pem"), "client_key": str(tmp_path / "client.key")}
    with pytest.raises(ConfigError, match=re.escape("a client certificate is shown over https: only")):
        load(url="http://a/", **files)


@pytest.mark.parametrize("kind", ["fetcher", "ai", "browser", "mtls_certificate", "pipeline", "vectorize"])
def test_wranglers_names_are_taken(kind: str) -> None:
    config = read({"bindings": {"AI": {"type": kind, "url": "http://a/"}}}, Path("capnweb.toml"))
    assert config.bindings["AI"].kind == kind


async def test_the_binding_is_for_who_has_the_secret() -> None:
    bindings = read({"bindings": {"AI": {"type": "ai", "url": "http://127.0.0.1:1/"}}}, Path("capnweb.toml")).bindings
    async with proxy(**bindings) as app:
        assert (await fetch(app, http_scope("AI", path=f"/not-{SECRET}/"))).status == 401
