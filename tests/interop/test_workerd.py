"""Remote bindings of a real workerd: Miniflare gets our connection string, and a Worker uses env.SVC and env.IMAGES.

What a Worker does is in worker.mjs, by the name of its scenario, and what stands behind the proxy in services.py.
Inside workerd, calls go through Miniflare's own client of remote bindings, with the capnweb that it bundles (0.5.0):
each use of a binding there is a session of its own.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import httpx2
import pytest
from pictures import BLUE, RED, flat, is_like, picture_format, pixel, size
from proxying import ROOT, command, serving

from . import runtime
from .runtime import DEADLINE, Worker

MODULE: Final = "tests.services"
CONFIG: Final = """
[bindings.SVC]
type = "service"
target = "{module}:Service"

[bindings.APP]
type = "service"
target = "{module}:app"

[bindings.UPSTREAM]
type = "service"
target = "{upstream}"

[bindings.IMAGES]
type = "images"
"""


@attrs.frozen
class ServiceWorker(Worker):
    """A running worker.mjs."""

    def nothing_is_left(self) -> bool:
        """Whether the service has none of its counters any more, as soon as the news of it has come through."""
        left: int = self.run("living")
        return left == 0


@contextmanager
def workerd(node: str, connection_string: str, *services: str, script: str = "worker.mjs") -> Iterator[ServiceWorker]:
    """Run a script in a workerd, with the named services and IMAGES as remote bindings of one proxy."""
    # Miniflare asks the proxy for a binding by the name that it has here.
    bindings = {name: {"name": name, "remoteProxyConnectionString": connection_string} for name in services}
    images = {"binding": "IMAGES", "remoteProxyConnectionString": connection_string}
    with runtime.workerd(node, script, serviceBindings=bindings, images=images) as worker:
        yield ServiceWorker(worker.url)


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """The URL of the ASGI application on a server of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Clients can connect from here on; they wait until it accepts.
        uvicorn = [sys.executable, "-m", "uvicorn", f"{MODULE}:app", "--fd", str(listener.fileno())]
        server = subprocess.Popen(
            [*uvicorn, "--log-level", "critical"], cwd=ROOT, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.terminate()
            server.wait(DEADLINE)


@pytest.fixture(scope="module")
def connection_string(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our proxy server with all bindings, as a process."""
    config: Path = tmp_path_factory.mktemp("workerd") / "capnweb.toml"
    config.write_text(CONFIG.format(module=MODULE, upstream=upstream))
    with serving(config) as server:
        yield server.url


@pytest.fixture
def frugal_connection_string(tmp_path: Path) -> Iterator[str]:
    """Our proxy server, started with a soft limit of 80 open files, where 1024 are usual."""
    config = tmp_path / "capnweb.toml"
    config.write_text(f'[bindings.SVC]\ntype = "service"\ntarget = "{MODULE}:Service"\n')
    shell = ["sh", "-c", 'ulimit -Sn 80 && exec "$@"', "sh"]
    process = subprocess.Popen(
        [*shell, *command("serve", config, "--port", "0")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="module")
def worker(node: str, connection_string: str) -> Iterator[ServiceWorker]:
    """A Worker with all bindings, and one that the proxy does not have."""
    with workerd(node, connection_string, "SVC", "APP", "UPSTREAM", "NONE") as worker:
        yield worker


@pytest.fixture(scope="module")
def stranger(node: str, connection_string: str) -> Iterator[ServiceWorker]:
    """A Worker whose connection string has a wrong secret."""
    with workerd(node, str(httpx2.URL(connection_string, path="/wrong/")), "SVC") as worker:
        yield worker


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


# Calls


def test_results_of_all_kinds(worker: ServiceWorker) -> None:
    assert worker.run("results") == {
        "none": "null",
        "undefined": "undefined undefined",
        "truth": "boolean true",
        "int": "number 9007199254740991",
        "float": "number 0.5",
        "inf": "number Infinity",
        "nan": "number NaN",
        "bigint": "bigint 1000000000000000000000000000000",
        "text": "string ü\u0000\U0001f600",
        "bytes": "Uint8Array 0,255",
        "date": "Date 2026-04-01T00:00:00.000Z",
        "list": ["number 1", ["number 2", []]],
        "dict": {"a": {"b": {}}},
        "error": "Error Error: as a value",
    }


def test_values_there_and_back(worker: ServiceWorker) -> None:
    assert worker.run("thereAndBack") == {
        "a": ["number 1", "null", "string ü", "boolean true"],
        "d": "Date 1970-01-02T00:00:00.000Z",
        "b": "Uint8Array 0,255",
        "n": {"n": "bigint 1000000000000000000000000000000"},
    }


def test_arguments_and_options(worker: ServiceWorker) -> None:
    assert worker.run("arguments") == ["Hello, World!", "Hei, World!"]


def test_a_property(worker: ServiceWorker) -> None:
    assert worker.run("property") == "string all is reachable that is meant to be"


def test_errors_have_their_class_and_message(worker: ServiceWorker) -> None:
    """Classes that JavaScript lacks are Error; of further attributes, workerd's own RPC passes none on."""
    assert worker.run("errors") == {
        "value": {"class": "Error", "name": "Error", "message": "a ValueError on purpose"},
        "type": {"class": "TypeError", "name": "TypeError", "message": "a TypeError on purpose"},
        "own": {"class": "Error", "name": "Error", "message": "an OutOfStock on purpose"},
        "missing": {"class": "TypeError", "name": "TypeError", "message": "no_such_method is not a function"},
        "private": {"class": "TypeError", "name": "TypeError", "message": "_secret is not a function"},
        "afterwards": "Hello, World!",
    }


def test_callbacks_are_called_from_the_server(worker: ServiceWorker) -> None:
    assert worker.run("callbacks") == {"numbers": [1, 2, 3], "doubled": [2, 4, 6], "awaited": [2]}


def test_an_error_of_a_callback_reaches_the_server(worker: ServiceWorker) -> None:
    assert worker.run("failingCallback") == ["RangeError", "not so far"]


def test_returned_objects_and_functions_are_called(worker: ServiceWorker) -> None:
    assert worker.run("stubs") == {"values": [11, 16, 16], "sum": 101}
    assert worker.run("nestedStubs") == [1, 11, "pair"]
    assert worker.nothing_is_left()


def test_a_returned_object_lives_until_the_worker_disposes_it(worker: ServiceWorker) -> None:
    assert worker.run("heldStub") == 1
    assert worker.nothing_is_left()


def test_an_object_can_be_given_back(worker: ServiceWorker) -> None:
    assert worker.run("stubGivenBack") == 3
    assert worker.nothing_is_left()


def test_calls_on_promises(worker: ServiceWorker) -> None:
    failure = {"class": "Error", "name": "Error", "message": "a ValueError on purpose"}
    assert worker.run("pipelining") == [2, 3, 7, failure]
    assert worker.nothing_is_left()


def test_many_calls_at_a_time(worker: ServiceWorker) -> None:
    assert worker.run("together") == list(range(30))


def test_more_uses_than_a_process_may_open_files_by_default(node: str, frugal_connection_string: str) -> None:
    """Each use of a binding leaves a WebSocket open until workerd ends."""
    with workerd(node, frugal_connection_string, "SVC") as worker:
        for _ in range(4):
            assert worker.run("together") == list(range(30))


def test_web_types_in_calls(worker: ServiceWorker) -> None:
    assert worker.run("webTypes") == {
        "headers": [[["a", "2"], ["b", "1, 3"]]],
        "request": ["POST", "https://a.example/x", [["content-type", "a/b"], ["x-a", "b"]], "question"],
        "response": [404, [["x-a", "b"]], "answer"],
        "receivedHeaders": [["a", "2"], ["b", "1, 3"]],
        "receivedRequest": ["POST", "https://a.example/x", [["x-a", "b"]], "question"],
        "receivedResponse": {"status": 404, "headers": {"x-a": "b"}, "cookies": [], "body": "answer"},
        "receivedPlain": {"status": 204, "headers": {}, "cookies": [], "body": ""},
    }


def test_types_that_miniflares_capnweb_is_too_old_for(worker: ServiceWorker) -> None:
    """URL, Blob and typed arrays came after its version: workerd or it refuses them before they reach the wire."""
    for kind, outcome in worker.run("newerTypes").items():
        assert "message" in outcome, kind
    assert worker.run("thereAndBack")["d"] == "Date 1970-01-02T00:00:00.000Z"


# Requests


def test_a_request_arrives_as_it_was_made(worker: ServiceWorker) -> None:
    init = {"method": "PATCH", "body": "ü", "headers": {"X-One": "1", "Content-Type": "text/x-a"}}
    response = worker.run("fetched", binding="SVC", url="https://a.example/x%20y?q=1&q=2", init=init)
    seen = json.loads(response["body"])
    assert (seen["method"], seen["url"], seen["body"]) == ("PATCH", "https://a.example/x%20y?q=1&q=2", "ü")
    assert sorted(seen["headers"]) == [["content-length", "2"], ["content-type", "text/x-a"], ["x-one", "1"]]


def test_headers_of_several_values(worker: ServiceWorker) -> None:
    seen = json.loads(worker.run("fetchedHeaders")["body"])
    # One of these is a header of the channel itself. Its first value is the Worker's own, and changes nothing.
    assert sorted(seen["headers"]) == [
        ["authorization", "Bearer of news"],
        ["mf-binding", "OTHER"],
        ["x-list", "one, two"],
    ]
    response = worker.run("fetched", binding="SVC", url="https://a.example/cookies")
    assert response["cookies"] == ["a=1; Path=/", "b=2"]
    assert response["headers"]["x-one"] == "1"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_methods(worker: ServiceWorker, method: str) -> None:
    response = worker.run("fetched", binding="SVC", url="https://a.example/", init={"method": method})
    assert json.loads(response["body"])["method"] == method


def test_the_status_is_the_services(worker: ServiceWorker) -> None:
    response = worker.run("fetched", binding="SVC", url="https://a.example/teapot")
    assert (response["status"], response["body"]) == (418, "short and stout")


def test_redirects_are_the_workers_to_follow(worker: ServiceWorker) -> None:
    url = "https://a.example/redirect"
    manual = worker.run("fetched", binding="SVC", url=url, init={"redirect": "manual"})
    assert (manual["status"], manual["headers"]["location"]) == (302, "https://elsewhere.example/")
    # workerd follows to where the location leads through the same binding.
    followed = worker.run("fetched", binding="SVC", url=url)
    assert json.loads(followed["body"])["url"] == "https://elsewhere.example/"


def test_an_error_of_the_handler_is_a_500_with_its_message(worker: ServiceWorker) -> None:
    response = worker.run("fetched", binding="SVC", url="https://a.example/fail")
    assert (response["status"], response["body"]) == (500, "no answer today")


def test_a_body_that_fails_is_no_whole_body(worker: ServiceWorker) -> None:
    cut_off = worker.run("cutOff")
    assert cut_off["status"] == 200
    assert cut_off["thrown"]["message"] == "Network connection lost."


@pytest.mark.parametrize("binding", ["SVC", "APP", "UPSTREAM"])
def test_the_response_streams(worker: ServiceWorker, binding: str) -> None:
    """Its last chunk is made after the Worker has read the first one."""
    assert worker.run("drip", binding=binding) == ["first", "last", None]


@pytest.mark.parametrize("binding", ["SVC", "APP", "UPSTREAM"])
def test_the_request_streams(worker: ServiceWorker, binding: str) -> None:
    """Its last chunk is written after the first one has arrived."""
    assert worker.run("upload", binding=binding) == ["first", "firstlast"]


@pytest.mark.parametrize("binding", ["SVC", "APP", "UPSTREAM"])
def test_both_bodies_stream_at_a_time(worker: ServiceWorker, binding: str) -> None:
    """Each chunk of the request is written after the one before has come back in the response."""
    assert worker.run("duplex", binding=binding) == ["one", "two", "three", None]


@pytest.mark.parametrize("binding", ["SVC", "APP", "UPSTREAM"])
def test_large_bodies(worker: ServiceWorker, binding: str) -> None:
    size_sent = 5_000_000
    assert worker.run("large", binding=binding, size=size_sent) == {"size": size_sent, "same": True}


@pytest.mark.parametrize("binding", ["APP", "UPSTREAM"])
def test_targets_that_speak_http_only(worker: ServiceWorker, binding: str) -> None:
    init = {"method": "PUT", "body": "text"}
    response = worker.run("fetched", binding=binding, url="https://a.example/a/b?c", init=init)
    assert (response["status"], response["headers"]["x-app"], response["body"]) == (201, "yes", "PUT /a/b?c")
    call = worker.run("unreachable", binding=binding)["call"]
    assert "speak HTTP only: use fetch() of" in call["message"]


def test_a_service_without_websockets_answers_as_to_a_request(worker: ServiceWorker) -> None:
    answer = worker.run("webSocket")
    assert (answer["status"], answer["socket"]) == (200, False)
    assert json.loads(answer["body"])["method"] == "GET"


# Bindings that are out of reach


def test_a_binding_that_the_proxy_does_not_have(worker: ServiceWorker) -> None:
    seen = worker.run("unreachable", binding="NONE")
    # JavaScript is told no more of a handshake that was refused.
    assert seen["call"]["message"] == "WebSocket connection failed."
    assert (seen["fetch"]["status"], seen["fetch"]["body"]) == (400, 'Binding "NONE" not found')


def test_a_wrong_secret(stranger: ServiceWorker) -> None:
    refusal = "the secret of the connection string is missing or wrong"
    seen = stranger.run("unreachable", binding="SVC")
    assert seen["call"]["message"] == "WebSocket connection failed."
    assert (seen["fetch"]["status"], seen["fetch"]["body"]) == (401, refusal)
    assert stranger.run("imageInfoError")["message"] == f"Unexpected error response 401: {refusal}"


# Images


def test_image_info(worker: ServiceWorker) -> None:
    image = flat(RED, 40, 20)
    info = {"format": "image/png", "fileSize": len(image), "width": 40, "height": 20}
    assert worker.run("info", image=base64_of(image)) == {"stream": info, "base64": info}


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "avif"])
def test_a_thumbnail_in_every_format(worker: ServiceWorker, kind: str) -> None:
    image = base64_of(flat(RED, 40, 20))
    output = {"format": f"image/{kind}"}
    result = worker.run("thumbnail", image=image, steps=[{"width": 20}], output=output)
    made = base64.b64decode(result["image"])
    assert result["type"] == f"image/{kind}"
    assert (picture_format(made), size(made)) == ("heif" if kind == "avif" else kind, (20, 10))
    assert is_like(pixel(made, 10, 5), RED)


def test_steps_and_a_drawn_image(worker: ServiceWorker) -> None:
    result = worker.run(
        "thumbnail",
        image=base64_of(flat(RED, 40, 20)),
        overlay=base64_of(flat(BLUE, 8, 8)),
        steps=[{"rotate": 90}, {"height": 20}],
        draw={"right": 0, "bottom": 0},
        output={"format": "image/png"},
    )
    made = base64.b64decode(result["image"])
    assert size(made) == (10, 20)
    assert (pixel(made, 0, 0), pixel(made, 5, 15), pixel(made, 6, 16), pixel(made, 9, 19)) == (RED, RED, BLUE, BLUE)


def test_base64_in_and_out(worker: ServiceWorker) -> None:
    made = base64.b64decode(worker.run("base64Both", image=base64_of(flat(BLUE, 3, 2)))["image"])
    assert (picture_format(made), size(made), pixel(made, 2, 1)) == ("png", (3, 2), BLUE)


def test_an_image_as_a_response(worker: ServiceWorker) -> None:
    response = worker.run("imageResponse", image=base64_of(flat(BLUE, 3, 2)))
    made = base64.b64decode(response["image"])
    assert (response["type"], picture_format(made), pixel(made, 0, 0)) == ("image/gif", "gif", BLUE)


@pytest.mark.parametrize(
    ("use", "operation", "code"),
    [
        ("info", "INFO", 9412),
        ("input", "TRANSFORM", 9412),
        ("option", "TRANSFORM", 9401),
        ("format", "TRANSFORM", 9401),
        ("consumed", "TRANSFORM", 9525),
    ],
)
def test_image_errors_have_cloudflares_codes(worker: ServiceWorker, use: str, operation: str, code: int) -> None:
    error = worker.run("imageErrors", image=base64_of(flat(RED, 4, 4)))[use]
    assert error["code"] == code
    assert error["message"].startswith(f"IMAGES_{operation}_ERROR {code}: ")
