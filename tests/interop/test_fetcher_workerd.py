"""Bindings that are plain HTTP from a real workerd through our proxy: AI, Vectorize, Browser, mTLS and Pipelines.

The runtime's own code for each binding runs in workerd; the server behind the proxy is a small one of these tests. It
answers in the form that this code expects, and remembers what it was asked. The Python facade is also run against
Cloudflare's proxy worker, with the same server as a service of its own.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from certificates import certificates
from proxying import serving
from websocket_server import WebSocketServer, websocket_server

from capnweb_py.remote import connect_env

from .runtime import Worker, cloudflare_proxy, workerd

TOKEN: Final = "token-of-the-tests"

CONFIG: Final = """
[bindings.AI]
type = "ai"
url = "http://{plain}/ai/"
headers = {{ Authorization = {{ env = "TEST_AI_TOKEN", prefix = "Bearer " }} }}

[bindings.INDEX]
type = "vectorize"
url = "http://{plain}/index/"

[bindings.BROWSER]
type = "browser"
url = "http://{chrome}/browser/"
headers = {{ Authorization = {{ env = "TEST_AI_TOKEN", prefix = "Bearer " }} }}

[bindings.PIPE]
type = "pipeline"
url = "http://{plain}/pipe"

[bindings.CERT]
type = "mtls_certificate"
allow_hosts = ["{secure}", "{secure_chrome}"]
ca = "ca.pem"
client_certificate = "client.pem"
client_key = "client.key"
"""


@attrs.frozen
class Asked:
    """A request that the server got."""

    line: str
    headers: dict[str, str]
    body: bytes


@attrs.frozen
class Upstream:
    """A server, and what it was asked."""

    address: str
    asked: list[Asked]


def _answer(asked: Asked) -> tuple[int, str, Any]:
    """Status, content type and body of a response, in the form that the runtime's code expects of each service."""
    path = asked.line.split()[1].partition("?")[0]
    if path == "/ai/run":
        inputs = json.loads(asked.body)["inputs"]
        if inputs.get("stream"):
            return 200, "text/event-stream", "data: one\n\ndata: [DONE]\n\n"
        if inputs["prompt"] == "fail":
            return 400, "application/json", {"internalCode": 5007, "description": "No such model", "name": "AiError"}
        return 200, "application/json", {"response": inputs["prompt"].upper()}
    if path.endswith("/insert"):
        return 200, "application/json", {"mutationId": "m-1"}
    if path.endswith("/query"):
        return 200, "application/json", {"count": 1, "matches": [{"id": "1", "score": 1}]}
    if path == "/moved":
        return 302, "text/plain", "moved"
    return 200, "application/json", {"asked": path}


@contextmanager
def upstream(tls: ssl.SSLContext | None = None) -> Iterator[Upstream]:
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            request = Asked(self.requestline, {k.lower(): v for k, v in self.headers.items()}, self._body())
            asked.append(request)
            status, kind, value = _answer(request)
            body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            if status == 302:
                self.send_header("location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = handle_any  # noqa: N815 - the names that http.server calls

        def _body(self) -> bytes:
            if self.headers["transfer-encoding"] is None:
                return self.rfile.read(int(self.headers["content-length"] or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_arguments: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None: ...

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Upstream(f"127.0.0.1:{server.server_address[1]}", asked)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def plain() -> Iterator[Upstream]:
    with upstream() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[WebSocketServer]:
    with websocket_server() as server:
        yield server


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("fetcher")
    return path


@pytest.fixture(scope="module")
def certified(directory: Path) -> ssl.SSLContext:
    """The TLS of a server that asks for a client's certificate."""
    _, tls = certificates(directory)
    return tls


@pytest.fixture(scope="module")
def secure(certified: ssl.SSLContext) -> Iterator[Upstream]:
    with upstream(certified) as server:
        yield server


@pytest.fixture(scope="module")
def secure_browser(certified: ssl.SSLContext) -> Iterator[WebSocketServer]:
    with websocket_server(certified) as server:
        yield server


@pytest.fixture(scope="module")
def worker(
    node: str,
    directory: Path,
    plain: Upstream,
    secure: Upstream,
    browser: WebSocketServer,
    secure_browser: WebSocketServer,
) -> Iterator[Worker]:
    config = directory / "capnweb.toml"
    addresses = {"plain": plain.address, "secure": secure.address}
    chromes = {"chrome": browser.address, "secure_chrome": secure_browser.address}
    config.write_text(CONFIG.format(**addresses, **chromes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_AI_TOKEN", TOKEN)
        with serving(config) as server:
            remote = {"remoteProxyConnectionString": server.url}
            options: dict[str, Any] = {
                "ai": {"binding": "AI", **remote},
                "vectorize": {"INDEX": {"index_name": "index", **remote}},
                "browserRendering": {"binding": "BROWSER", **remote},
                "mtlsCertificates": {"CERT": {"certificate_id": "any", **remote}},
                "pipelines": {"PIPE": {"pipeline": "any", **remote}},
            }
            with workerd(node, "fetcher_worker.mjs", **options) as running:
                yield running


def test_ai_runs_a_model(worker: Worker, plain: Upstream) -> None:
    assert worker.run("ai", model="@cf/some/model", inputs={"prompt": "hello"}) == {"response": "HELLO"}
    asked = plain.asked[-1]
    assert asked.line.startswith("POST /ai/run?version=")
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["cf-consn-model-id"] == "@cf/some/model"
    assert json.loads(asked.body)["inputs"] == {"prompt": "hello"}


def test_ai_streams_its_answer(worker: Worker) -> None:
    assert worker.run("aiStream") == "data: one\n\ndata: [DONE]\n\n"


def test_an_error_of_ai_is_the_one_that_the_server_tells(worker: Worker) -> None:
    assert worker.run("aiError") == {"name": "AiError", "message": "5007: No such model"}


def test_vectorize_inserts_and_queries(worker: Worker, plain: Upstream) -> None:
    result = worker.run("vectorize")
    assert result["inserted"] == {"mutationId": "m-1"}
    assert result["found"]["matches"] == [{"id": "1", "score": 1}]
    assert all(asked.line.startswith("POST /index/") for asked in plain.asked[-2:])


def test_browser_rendering_is_fetched_from(worker: Worker) -> None:
    answer = worker.run("browser")
    assert (answer["status"], json.loads(answer["body"])) == (200, {"asked": "/browser/v1/acquire"})


def test_a_websocket_of_browser_rendering_reaches_the_browser(worker: Worker, browser: WebSocketServer) -> None:
    """As puppeteer connects: `env.BROWSER.fetch(url, {headers: {Upgrade: "websocket"}})`."""
    messages = ["text", "ü😀", "", [0, 255], [7] * 100_000]
    url, headers = "https://localhost/v1/connectDevtools?browser_session=1", {"x-a": "b", "authorization": "own"}
    answer = worker.run("socket", binding="BROWSER", url=url, headers=headers, messages=messages)
    assert answer == {"status": 101, "arrived": ["hello", *messages], "end": [4000, "as you wish"]}
    path, asked = browser.asked[-1]
    assert path == "/browser/v1/connectDevtools?browser_session=1"
    assert (asked["authorization"], asked["x-a"], asked["host"]) == (f"Bearer {TOKEN}", "b", browser.address)


def test_a_browser_that_wants_no_websocket_answers_instead(worker: Worker) -> None:
    answer = worker.run("socket", binding="BROWSER", url="https://localhost/gone", headers={}, messages=[])
    assert (answer["status"], answer["body"]) == (410, "no session")


def test_websockets_go_where_the_list_allows_with_the_certificate(
    worker: Worker, secure_browser: WebSocketServer
) -> None:
    url = f"https://{secure_browser.address}/path"
    answer = worker.run("socket", binding="CERT", url=url, headers={}, messages=["text"])
    assert answer == {"status": 101, "arrived": ["hello", "text"], "end": [4000, "as you wish"]}


def test_websockets_go_to_no_other_host(worker: Worker, browser: WebSocketServer) -> None:
    before = len(browser.asked)
    answer = worker.run("socket", binding="CERT", url=f"http://{browser.address}/", headers={}, messages=[])
    assert (answer["status"], answer["body"]) == (403, f"refused: {browser.address} is not on the binding's allow-list")
    assert len(browser.asked) == before


def test_mtls_shows_the_certificate_to_hosts_on_the_list(worker: Worker, secure: Upstream) -> None:
    answer = worker.run("certificate", url=f"https://{secure.address}/path")
    assert (answer["status"], json.loads(answer["body"])) == (200, {"asked": "/path"})
    asked = secure.asked[-1]
    assert (asked.line, asked.body, asked.headers["x-a"]) == ("POST /path HTTP/1.1", b"signed", "b")


def test_mtls_goes_to_no_other_host(worker: Worker, plain: Upstream) -> None:
    before = len(plain.asked)
    answer = worker.run("certificate", url=f"http://{plain.address}/")
    assert answer["status"] == 403
    assert answer["body"] == f"refused: {plain.address} is not on the binding's allow-list"
    assert len(plain.asked) == before


def test_a_redirect_is_the_workers_to_follow(worker: Worker, secure: Upstream) -> None:
    answer = worker.run("redirect", url=f"https://{secure.address}/moved")
    assert (answer["status"], answer["headers"]["location"]) == (302, "/elsewhere")


def test_a_pipeline_sends_records(worker: Worker, plain: Upstream) -> None:
    assert worker.run("pipeline", records=[{"a": 1}, {"b": "ü"}]) == {}
    asked = plain.asked[-1]
    assert asked.line == "POST /pipe HTTP/1.1"
    assert json.loads(asked.body) == [{"a": 1}, {"b": "ü"}]


@pytest.mark.anyio
async def test_the_python_facade_against_cloudflares_proxy_worker(node: str, plain: Upstream) -> None:
    """There the binding is a fetcher, as deployed: here a service of workerd's that forwards to the server."""
    external = {"external": {"address": plain.address, "http": {}}}
    with cloudflare_proxy(node, serviceBindings={"AI": external}) as url:
        async with connect_env(url, bindings={"AI": "ai"}) as env:
            response = await env.AI.fetch("https://ai/some/path?q=1", method="POST", headers={"x-a": "b"}, body=b"abc")
            assert (response.status, await response.json()) == (200, {"asked": "/some/path"})
    asked = plain.asked[-1]
    assert (asked.line, asked.body) == ("POST /some/path?q=1 HTTP/1.1", b"abc")
    assert asked.headers["x-a"] == "b"
