"""WebSockets through fetch(), entrypoints and dispatch namespaces from a real workerd, through our proxy server.

service_worker.mjs uses them, tests/chat.py serves them. The oracle is the same script with service_target.mjs bound to
it by workerd itself: where there is one, answers must be the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from chat_bindings import BINDINGS, chat_server, tables
from proxying import serving

from capnweb_py.websocket_client import open_web_socket

from .node import HERE
from .runtime import Worker, workerd

pytestmark = pytest.mark.anyio

CONFIG: Final = """
[bindings.ADMIN]
type = "service"
target = "tests.chat"
entrypoint = "Admin"
props = { realm = "all" }

[bindings.MEDIA]
type = "media"
target = "tests.chat:Chat"

[bindings.STREAM]
type = "stream"
target = "tests.chat:Chat"

[bindings.SEARCH]
type = "ai_search"
target = "tests.chat:Chat"

[bindings.ARTIFACTS]
type = "artifacts"
target = "tests.chat:Chat"

[bindings.FLAGS]
type = "flagship"
target = "tests.chat:Chat"

[bindings.DISPATCH]
type = "dispatch_namespace"

[bindings.DISPATCH.services.tenant]
target = "tests.chat:Tenant"
props = { plan = "free" }

[bindings.DISPATCH.services.app]
target = "tests.chat:chat_app"
"""

# Bindings of the Workers runtime that are services by other names.
OTHER_NAMES: Final = ("MEDIA", "STREAM", "SEARCH", "ARTIFACTS", "FLAGS")


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with chat_server() as url:
        yield url


@pytest.fixture(scope="module")
def worker(node: str, upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The Worker with all bindings behind our proxy."""
    config: Path = tmp_path_factory.mktemp("service") / "capnweb.toml"
    config.write_text(tables(upstream) + CONFIG)
    with serving(config) as server:
        remote = {"remoteProxyConnectionString": server.url}
        services = {name: {"name": name, **remote} for name in (*BINDINGS, "ADMIN")}
        dispatch = {"DISPATCH": {"namespace": "DISPATCH", **remote}}
        named = {
            "media": {"binding": "MEDIA", **remote},
            "stream": {"binding": "STREAM", **remote},
            "aiSearchInstances": {"SEARCH": {"instance_name": "search", **remote}},
            "artifacts": {"ARTIFACTS": {"namespace": "artifacts", **remote}},
            "flagship": {"FLAGS": {"app_id": "flags", **remote}},
        }
        options = {"serviceBindings": services, "dispatchNamespaces": dispatch, **named}
        with workerd(node, "service_worker.mjs", **options) as running:
            yield running


def module_worker(name: str, script: str, **options: Any) -> dict[str, Any]:
    modules = [{"type": "ESModule", "path": str(HERE / script)}]
    date = {"compatibilityDate": "2026-04-01"}
    return {"name": name, "modules": modules, "modulesRoot": str(HERE), **date, **options}


@pytest.fixture(scope="module")
def oracle(node: str) -> Iterator[Worker]:
    """The same Worker with a Worker behind its bindings."""
    admin = {"name": "target", "entrypoint": "Admin", "props": {"realm": "all"}}
    services = {"SVC": "target", "ADMIN": admin}
    main = module_worker("main", "service_worker.mjs", serviceBindings=services)
    target = module_worker("target", "service_target.mjs")
    with workerd(node, "service_worker.mjs", workers=[main, target]) as running:
        yield running


def same(worker: Worker, oracle: Worker, binding: str, scenario: str, **arguments: Any) -> Any:
    """What a scenario answers, which is what the oracle answers."""
    expected = oracle.run(scenario, binding="SVC", **arguments)
    answer = worker.run(scenario, binding=binding, **arguments)
    assert answer == expected
    return answer


@pytest.mark.parametrize("binding", ["SVC", *OTHER_NAMES])
def test_services_by_other_names_have_methods_and_requests(worker: Worker, binding: str) -> None:
    assert worker.run("hello", binding=binding) == {"said": "Hello, Ann!", "status": 200}


# WebSockets


@pytest.mark.parametrize("binding", BINDINGS)
def test_texts_and_bytes_there_and_back(worker: Worker, oracle: Worker, binding: str) -> None:
    answer = same(worker, oracle, binding, "echo")
    assert answer == {"status": 101, "room": "lobby", "messages": ["text", "ü😀", "", "bytes 0,255", "bytes "]}


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize(("offered", "chosen"), [("other, chat", "chat"), ("other", None)])
def test_a_subprotocol_is_chosen(
    worker: Worker, oracle: Worker, binding: str, offered: str, chosen: str | None
) -> None:
    answer = same(worker, oracle, binding, "subprotocol", offered=offered)
    assert answer["header"] == chosen


@pytest.mark.parametrize("binding", BINDINGS)
def test_the_service_closes_with_a_code_and_a_reason(worker: Worker, oracle: Worker, binding: str) -> None:
    answer = same(worker, oracle, binding, "closedThere")
    assert answer == {"messages": ["bye"], "code": 4001, "reason": "enough"}


@pytest.mark.parametrize("binding", BINDINGS)
def test_the_worker_closes_with_a_code_and_a_reason(worker: Worker, oracle: Worker, binding: str) -> None:
    close = [4002, "done"]
    # A peer has no requests; it is the upstream's server, which can be asked.
    asked = "UPSTREAM" if binding == "PEER" else binding
    answer = worker.run("closedHere", binding=binding, close=close, asked=asked)
    assert answer == oracle.run("closedHere", binding="SVC", close=close)
    assert answer["seen"] == close


@pytest.mark.parametrize("binding", BINDINGS)
def test_headers_and_the_url_of_a_handshake(worker: Worker, oracle: Worker, binding: str) -> None:
    answer = same(worker, oracle, binding, "headers")
    assert answer == ["https://a.example/headers?a=b", "yes", "a=1"]


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize(("path", "status"), [("/refuse", 403), ("/plain", 200)])
def test_an_ordinary_response_has_no_websocket(
    worker: Worker, oracle: Worker, binding: str, path: str, status: int
) -> None:
    answer = same(worker, oracle, binding, "refused", path=path)
    assert (answer["status"], answer["socket"]) == (status, True)


@pytest.mark.parametrize("binding", BINDINGS)
def test_20_megabytes_arrive_in_order(worker: Worker, oracle: Worker, binding: str) -> None:
    answer = same(worker, oracle, binding, "flood")
    assert answer == {"code": 1000, "count": 2000, "size": 20_000_000, "inOrder": True}


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_long_message(worker: Worker, oracle: Worker, binding: str) -> None:
    assert same(worker, oracle, binding, "large", size=1_000_000) == 1_000_000


@pytest.mark.parametrize("binding", BINDINGS)
def test_many_websockets_at_a_time(worker: Worker, oracle: Worker, binding: str) -> None:
    assert same(worker, oracle, binding, "many", count=30) == [str(index) for index in range(30)]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_request_of_a_client_is_passed_on_with_its_websocket(
    worker: Worker, oracle: Worker, binding: str
) -> None:
    """The Worker hands on what it was asked, with all headers of the client's handshake, and returns the response."""
    for running, name in [(oracle, "SVC"), (worker, binding)]:
        url = running.url.replace("http", "ws", 1)
        async with (
            open_web_socket(f"{url}echo?binding={name}", subprotocols=["chat"], title="the Worker") as socket,
        ):
            assert socket.subprotocol == "chat"
            await socket.send("hello")
            assert await socket.receive() == "hello"
        async with open_web_socket(f"{url}farewell?binding={name}", title="the Worker") as socket:
            assert [message async for message in socket] == ["bye"]
            assert (socket.close_code, socket.close_reason) == (4001, "enough")


@pytest.mark.parametrize("binding", ["SVC", "APP"])
def test_a_handler_that_fails_answers_with_its_message(worker: Worker, binding: str) -> None:
    """Bound by workerd itself, fetch() throws; a proxy can only answer, as Cloudflare's does."""
    refused = worker.run("refused", binding=binding, path="/fail")
    assert (refused["status"], refused["body"]) == (500, "no room today")


# Entrypoints


def test_a_named_entrypoint_with_props(worker: Worker, oracle: Worker) -> None:
    """Neither name nor props cross the wire: they are those of the binding where it leads to a target."""
    assert worker.run("entrypoint") == oracle.run("entrypoint") == ["admin of all", "admin of all"]


# Dispatch namespaces, which workerd has none of its own of


def test_a_dispatched_service_answers_calls_and_requests(worker: Worker) -> None:
    answer = worker.run("dispatched", get=["tenant", {"name": "ä\n"}, {"limits": {"cpuMs": 5}}])
    given = {"props": {"plan": "free"}, "args": {"name": "ä\n"}, "options": {"limits": {"cpuMs": 5}}}
    assert answer["hello"] == {"value": "Hello, World, from a tenant!"}
    assert answer["status"] == 200
    assert json.loads(answer["body"]) == ["POST", "https://a.example/x?y", "ü", given]


def test_args_and_options_are_left_out_where_there_are_none(worker: Worker) -> None:
    assert worker.run("given", get=["tenant"]) == {"props": {"plan": "free"}, "args": {}, "options": {}}


def test_an_unknown_name_fails_when_it_is_used(worker: Worker) -> None:
    answer = worker.run("dispatched", get=["nobody"])
    assert answer["hello"] == {"class": "Error", "name": "Error", "message": "Worker not found."}
    assert (answer["status"], answer["body"]) == (500, "Worker not found.")


def test_a_websocket_of_a_dispatched_service_does_not_come_through_miniflares_client(worker: Worker) -> None:
    """What a `get` gives crosses workerd's own RPC there, which has no WebSockets: the proxy has opened it by then."""
    thrown = worker.attempt("dispatchedWebSocket", get=["tenant", {"name": "Ada"}])["thrown"]
    assert thrown["name"] == "DataCloneError"
    assert worker.run("dispatchedWebSocket", get=["nobody"]) == 500
