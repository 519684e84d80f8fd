"""HTTP batch with npm capnweb: Node's client against our ASGI application, and our client against Node's server."""

from __future__ import annotations

import gc
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import attrs
import httpx2
import pytest
from asgi_server import asgi_server

from capnweb_py import (
    Limits,
    RemoteError,
    RpcError,
    RpcPromise,
    RpcStub,
    RpcTarget,
    SessionClosed,
    SessionOptions,
    asgi_app,
    http_batch,
)

from .api import World
from .node import CLIENT_DEADLINE, HERE, node_process
from .values import VALUES, same

# Seconds that a test may take; none needs one.
DEADLINE: Final = 60

SCENARIOS: Final = (
    "calls and pipelines in one request",
    "maps in one request",
    "order is kept",
    "what is not there yet",
    "properties of results as arguments",
    "errors",
    "a result that cannot be sent fails alone",
    "own objects come home",
    "targets made in the batch as arguments",
    "dup and dispose",
    "nothing to call",
    "a call back fails, and its batch goes on",
    "an abort tells its reason",
    "an ended batch takes no calls",
    "other methods get 405",
    *(f"value: {name}" for name in VALUES),
)


# Node's client, our server.


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def reports(node: str, world: World) -> dict[str, dict[str, Any]]:
    """What the Node client reports of each scenario."""
    with asgi_server(asgi_app(world.new_main)) as authority:
        done = subprocess.run(
            [node, "batch.mjs", "call", f"http://{authority}/"],
            cwd=HERE, stdout=subprocess.PIPE, timeout=CLIENT_DEADLINE, check=True,
        )  # fmt: skip
    return {report["scenario"]: report for report in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(reports: dict[str, dict[str, Any]], scenario: str) -> None:
    assert reports[scenario]["ok"], reports[scenario]["detail"]


def test_no_scenario_is_forgotten(node: str) -> None:
    listed = subprocess.run([node, "batch.mjs", "list"], cwd=HERE, capture_output=True, check=True, timeout=DEADLINE)
    assert set(json.loads(listed.stdout)) == set(SCENARIOS)


@pytest.mark.usefixtures("reports")
def test_what_a_batch_made_is_disposed_of_with_it(world: World) -> None:
    gc.collect()
    made = {"one request": 1, "tardy": 1, "arguments": 3, "dup": 1, "ended": 1}
    assert {name: world.disposals[f"batch: {name}"] for name in made} == made


# Our client, Node's server.


@pytest.fixture(scope="module")
def node_batch_url(node: str) -> Iterator[str]:
    with node_process(node, "batch.mjs", "serve") as port:
        yield f"http://127.0.0.1:{port}/"


@attrs.frozen
class Batch:
    """A batch under way, and the messages that it sent."""

    api: RpcStub
    requests: list[list[Any]]


@asynccontextmanager
async def batch(url: str, options: SessionOptions | None = None) -> AsyncIterator[Batch]:
    requests: list[list[Any]] = []

    async def note(request: httpx2.Request) -> None:
        requests.append([json.loads(line) for line in request.content.splitlines()])

    with anyio.fail_after(DEADLINE):
        async with (
            httpx2.AsyncClient(event_hooks={"request": [note]}) as client,
            http_batch(url, options=options, client=client) as api,
        ):
            yield Batch(api, requests)


@pytest.mark.anyio
async def test_calls_and_pipelines_in_one_request(node_batch_url: str) -> None:
    async with batch(node_batch_url) as to:
        square = to.api.square(6)
        counter = to.api.counter("batch", 2)
        first = counter.increment(3)
        second = to.api.bump(counter, 4)
        async with anyio.create_task_group() as tasks:
            results: dict[str, Any] = {}

            async def collect(name: str, promise: RpcPromise) -> None:
                results[name] = await promise

            for name, promise in {"square": square, "first": first, "second": second}.items():
                tasks.start_soon(collect, name, promise)
        assert results == {"square": 36, "first": 5, "second": 9}
        assert len(to.requests) == 1


@pytest.mark.anyio
async def test_maps_in_one_request(node_batch_url: str) -> None:
    async with batch(node_batch_url) as to:
        api = to.api
        squares = api.echo([1, 2, 3]).map(lambda number: {"number": number, "square": api.square(number)})
        assert await squares == [{"number": n, "square": n * n} for n in (1, 2, 3)]
        assert len(to.requests) == 1


@pytest.mark.anyio
async def test_promises_that_are_held_can_be_awaited_one_after_the_other(node_batch_url: str) -> None:
    async with batch(node_batch_url) as to:
        squares = [to.api.square(number) for number in range(50)]
        assert [await square for square in squares] == [number * number for number in range(50)]
        # One message a call: npm capnweb answers a "stream" in a batch, too.
        assert [[message[0] for message in request] for request in to.requests] == [["stream"] * 50]


@pytest.mark.anyio
@pytest.mark.parametrize("name", VALUES)
async def test_a_value_is_the_same_in_both_directions(node_batch_url: str, name: str) -> None:
    async with batch(node_batch_url) as to:
        received = to.api.value(name)
        checked = to.api.check(name, VALUES[name]())
        echoed = to.api.echo(VALUES[name]())
        assert same(await received, VALUES[name]())
        assert await checked is True
        assert same(await echoed, VALUES[name]())


@pytest.mark.anyio
async def test_errors_arrive_and_spread_along_the_pipeline(node_batch_url: str) -> None:
    async with batch(node_batch_url) as to:
        custom, spread, fine = to.api.fail("custom"), to.api.fail_later("type").any.thing(), to.api.square(2)
        with pytest.raises(RemoteError, match="please reboot") as caught:
            await custom
        assert caught.value.props["aisle"] == 7
        with pytest.raises(TypeError, match="no such shape"):
            await spread
        assert await fine == 4


@pytest.mark.anyio
async def test_own_objects_come_home(node_batch_url: str) -> None:
    class Local(RpcTarget):
        def __init__(self) -> None:
            self._count = 10

        def increment(self, by: int) -> int:
            self._count += by
            return self._count

    async with batch(node_batch_url) as to:
        returned = to.api.handback(Local())
        [home] = await returned
        assert await home.increment(5) == 15


@pytest.mark.anyio
async def test_targets_made_in_the_batch_pass_as_arguments(node_batch_url: str) -> None:
    async with batch(node_batch_url) as to:
        bundle = to.api.bundle("batch")
        bumped, added = to.api.bump(bundle.counters[1], 3), bundle.deep.adder(1)
        assert (await bumped, await added) == (5, 101)


@pytest.mark.anyio
async def test_dup_and_dispose(node_batch_url: str) -> None:
    async with batch(node_batch_url) as to:
        counter = to.api.counter("batch: dup", 1)
        second = counter.dup()
        counter.dispose()
        result = second.increment(4)
        second.dispose()
        assert await result == 5


@pytest.mark.anyio
async def test_an_abort_of_the_server_fails_the_batch(node_batch_url: str) -> None:
    options = SessionOptions(limits=Limits(max_bigint_digits=20_000))
    async with batch(node_batch_url, options) as to:
        with pytest.raises(
            RpcError, match=r"^http://127.0.0.1:\d+ answered the batch with 500 Internal Server Error: "
        ):
            await to.api.echo(10**17_000)


@pytest.mark.anyio
async def test_what_a_batch_brought_ends_with_it(node_batch_url: str) -> None:
    async with batch(node_batch_url) as to:
        counter = await to.api.counter("batch")
        with pytest.raises(SessionClosed, match="the batch was sent without this"):
            await counter.increment(1)
        assert len(to.requests) == 1
