"""Who may come in: nothing answers without the secret, over any channel, and no foreign web page with it."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest
from proxying import SECRET, Reply, fetch, http_scope, proxy, serving, websocket_scope
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from capnweb_py.target import RpcTarget
from capnweb_py.web import Request, Response
from proxy_server.auth import Gate, connection_string, is_loopback, new_secret
from proxy_server.bindings.service import RpcService
from proxy_server.logs import RedactingFormatter

pytestmark = pytest.mark.anyio

UNAUTHORIZED = b"the secret of the connection string is missing or wrong"

WRONG_PATHS = [
    "",
    "/",
    "//",
    "/wrong/",
    f"/{SECRET[:-1]}/",
    f"/{SECRET}x/",
    f"/{SECRET}/more",
    f"//{SECRET}/",
    f"/x/{SECRET}/",
    f"/{SECRET.upper()}/",
    "/\udcff/",
]


class Target(RpcTarget):
    def fetch(self, request: Request) -> Response:
        raise AssertionError("a request without the secret, or from a foreign page, has reached the target")


class Open(RpcTarget):
    def fetch(self, request: Request) -> Response:
        return Response("open")


# The gate


@pytest.mark.parametrize("path", WRONG_PATHS)
async def test_without_the_secret_every_request_gets_the_same_answer(path: str) -> None:
    headers = [("origin", "https://evil.example"), ("mf-url", "http://a/")]
    expected = [("content-type", "text/plain;charset=UTF-8"), ("content-length", str(len(UNAUTHORIZED)))]
    expected.append(("capnweb-refused", "secret"))
    async with proxy(S=RpcService("tests:Target", Target)) as app:
        for binding, method in itertools.product(["S", "NONE", None], ["GET", "POST", "OPTIONS", "TRACE"]):
            reply = await fetch(app, http_scope(binding, path=path, method=method, headers=headers))
            assert reply == Reply(401, expected, UNAUTHORIZED)


@pytest.mark.parametrize("path", WRONG_PATHS)
async def test_without_the_secret_every_handshake_gets_the_same_answer(path: str) -> None:
    tunnel = [("mf-connect-address", "a:1"), ("mf-binding", "S")]
    async with proxy(S=RpcService("tests:Target", Target)) as app:
        for query, headers in itertools.product(["", "MF-Binding=S", "MF-Binding=NONE"], [[], tunnel]):
            reply = await fetch(app, websocket_scope(query, path=path, headers=headers))
            assert (reply.status, reply.body) == (401, UNAUTHORIZED)


@pytest.mark.parametrize("path", [f"/{SECRET}/", f"/{SECRET}"])
async def test_the_secret_opens_with_and_without_the_last_slash(path: str) -> None:
    async with proxy(S=RpcService("tests:Open", Open)) as app:
        assert (await fetch(app, http_scope("S", path=path))).body == b"open"


async def test_the_secret_is_below_the_point_where_the_application_is_mounted() -> None:
    async with proxy(S=RpcService("tests:Open", Open)) as app:
        scope = {**http_scope("S", path=f"/mounted/{SECRET}/"), "root_path": "/mounted"}
        assert (await fetch(app, scope)).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8787", ""])
async def test_a_page_of_a_foreign_origin_is_refused_on_every_channel(origin: str) -> None:
    headers = [("origin", origin)]
    async with proxy(S=RpcService("tests:Target", Target)) as app:
        http = await fetch(app, http_scope("S", headers=headers))
        rpc = await fetch(app, websocket_scope("MF-Binding=S", headers=headers))
    assert http.status == rpc.status == 403
    assert b"allowed_origins" in http.body


def test_a_page_of_an_allowed_origin_passes() -> None:
    gate = Gate(SECRET, frozenset({"https://a.example"}))
    allowed = http_scope("S", headers=[("origin", "https://a.example")])
    foreign = http_scope("S", headers=[("origin", "https://a.example.evil")])
    assert gate.refusal(allowed) is None
    assert gate.refusal(foreign) is not None


async def test_an_origin_among_the_original_headers_is_the_handlers_business() -> None:
    async with proxy(S=RpcService("tests:Open", Open)) as app:
        reply = await fetch(app, http_scope("S", headers=[("mf-header-origin", "https://evil.example")]))
    assert reply.status == 200


# The secret and the connection string


def test_secrets_are_long_fresh_and_need_no_escape() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert len(first) >= 43
    assert first.replace("-", "").replace("_", "").isalnum()
    assert first not in repr(Gate(first))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1/s/"),
        ("localhost", "http://localhost:1/s/"),
        ("::1", "http://[::1]:1/s/"),
        ("0.0.0.0", "http://127.0.0.1:1/s/"),
        ("::", "http://[::1]:1/s/"),
    ],
)
def test_the_connection_string_can_be_connected_to(host: str, url: str) -> None:
    assert connection_string(host, 1, "s") == url


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("a", False),
    ],
)
def test_only_loopback_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_secret_never_reaches_the_log() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        record = logging.LogRecord("a", 40, "", 0, "at %s", (f"/{SECRET}/",), (type(error), error, error.__traceback__))
    text = RedactingFormatter(SECRET).format(record)
    assert "ERROR a: at /<secret>/" in text
    assert "ValueError: <secret>" in text
    assert SECRET not in text


# On a real server

CONFIG = '[bindings.S]\ntype = "service"\ntarget = "failing:Failing"\n'
SERVICE = """
from capnweb_py.target import RpcTarget

class Failing(RpcTarget):
    def fetch(self, request):
        raise RuntimeError("of the handler")
"""


def handshake_refusal(url: str, **headers: str) -> tuple[int, bytes]:
    with pytest.raises(InvalidStatus) as caught, connect(url, additional_headers=headers):
        raise AssertionError("the handshake was accepted")
    response = caught.value.response
    return response.status_code, bytes(response.body or b"")


def test_a_real_server_lets_nobody_in_without_the_secret_and_never_logs_it(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(SERVICE)
    config = tmp_path / "capnweb.toml"
    config.write_text(CONFIG)
    with serving(config) as server:
        secret = server.url.rstrip("/").rpartition("/")[2]
        guess = server.url.replace(secret, "x" * len(secret))
        headers = {"MF-Binding": "S"}
        wrong: list[Any] = [httpx2.get(guess, headers=headers), httpx2.post(guess, content=b"x" * 1_000_000)]
        assert {(answer.status_code, answer.content) for answer in wrong} == {(401, UNAUTHORIZED)}
        websocket = guess.replace("http", "ws", 1) + "?MF-Binding=S"
        assert handshake_refusal(websocket) == (401, UNAUTHORIZED)
        assert handshake_refusal(websocket.replace(guess[4:], server.url[4:]), Origin="https://a.example")[0] == 403
        failed = httpx2.get(server.url, headers=headers)
        assert (failed.status_code, failed.text) == (500, "of the handler")
        server.process.terminate()
        stdout, stderr = server.ended()
    assert "S http GET / failed: RuntimeError, after" in stderr
    assert "of the handler" not in stderr
    assert secret not in stdout + stderr
