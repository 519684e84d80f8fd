"""An npm capnweb client on Node against our server: one test for each rule of scenarios.mjs, on both event loops.

The scenarios run in one Node process against one server, each on sessions of its own; a report that is "ok" also says
that both sides were back to their main objects alone.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio
import pytest

from .node import HERE, read_json_lines, run_client
from .serving import serve_world
from .values import VALUES, WEB_VALUES

MALFORMED: Final = (
    "not JSON",
    "not a list",
    "unknown message",
    "empty message",
    "push of nothing",
    "pull of nothing",
    "pull of a string",
    "call of nothing",
    "release below zero",
    "release of nothing",
    "unknown expression",
    "unescaped list",
    "too deep",
    "deeper than any stack",
    "too many digits",
    "bytes that do not fit their kind",
)

ERRORS: Final = ("type", "range", "plain", "custom", "cause", "aggregate")

STREAMS: Final = (
    "readable streams as results",
    "readable streams as arguments",
    "readable streams there and back",
    "writable streams as arguments",
    "writable streams as results",
    "errors of sources reach readers",
    "errors of sinks reach writers",
    "cancelling reaches sources",
    "aborting reaches sinks",
    "large streams",
    "capabilities in chunks",
)

# Needs the server to go away; it has a test of its own.
LOST_SERVER: Final = "a lost server fails all that is pending"

# Only a connection that speaks CBOR can run these: test_cbor.py does.
CBOR_ONLY: Final = ("bytes travel raw", "abort: binary that is not CBOR", "abort: CBOR with a tag")

SCENARIOS: Final = (
    *(f"value: {name}" for name in VALUES),
    *(f"web value: {name}" for name in WEB_VALUES),
    "web values inside others",
    "a body that fails",
    "a body that nobody reads to its end",
    "large values",
    "errors as values",
    "options object",
    "targets by reference",
    "functions by reference",
    "bound methods by reference",
    "nested stubs in arguments",
    "nested stubs in results",
    "stub sent back home",
    "original object comes home",
    "callback sent back home",
    "promises in results",
    "three parties",
    "introducer hangs up",
    "the client's own main object",
    "calls back and forth",
    "chain in one round trip",
    "property paths in one round trip",
    "pipelining on a slow promise",
    "promises of this side as arguments",
    "failure spreads along the pipeline",
    "what nobody awaits is not pulled",
    "many calls at once",
    "calls arrive in order",
    "order holds before and after a promise resolves",
    "callbacks arrive in order",
    "map: lists, single values and nothing",
    "map: results of any shape",
    "map: capabilities in results",
    "map: inside another",
    "map: what it captures",
    "map: imports that it captures",
    "map: one round trip",
    "map: of a promise that takes its time",
    "map: an error of one item",
    "map: a large list",
    "dup and dispose",
    "disposed of exactly once",
    "dropped without being awaited",
    "arguments are released after the call",
    "kept arguments live on",
    *(f"random use leaves nothing behind: {seed}" for seed in (1, 2, 3)),
    *(f"error: {kind}" for kind in ERRORS),
    "errors of callbacks",
    "an unsendable result fails its call alone",
    "what is not reachable",
    *(f"abort: {name}" for name in MALFORMED),
    "abort: binary where JSON is spoken",
    "a long abort reason is cut at a character",
    *STREAMS,
    "a call that is disposed of is cancelled where its method allows that",
    "an abort fails all that is pending",
    "a lost client disposes of what it held",
)

Reports = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def event_loop_name(request: pytest.FixtureRequest) -> str:
    """The event loop that the server runs on."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def reports(node: str, event_loop_name: str) -> Reports:
    """What the Node client reports of each scenario."""

    async def run() -> Reports:
        async with serve_world() as url:
            return await run_client(node, url, SCENARIOS)

    return anyio.run(run, backend=event_loop_name)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(reports: Reports, scenario: str) -> None:
    assert scenario in reports, "the client ended before it"
    assert reports[scenario]["ok"], f"{reports[scenario]['detail']}\n{reports[scenario]['stats']}"


def test_no_scenario_is_forgotten(node: str) -> None:
    listed = subprocess.run([node, "client.mjs", "--list"], cwd=HERE, capture_output=True, check=True)
    assert set(json.loads(listed.stdout)) == {*SCENARIOS, *CBOR_ONLY, LOST_SERVER}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_server_that_stops_fails_what_is_pending(node: str, backend: str) -> None:
    async def run() -> Any:
        # The client outlives the server.
        with anyio.fail_after(60):
            async with AsyncExitStack() as stack:
                async with serve_world() as url:
                    command = [node, "client.mjs", url, LOST_SERVER]
                    process = await stack.enter_async_context(await anyio.open_process(command, cwd=HERE, stderr=None))
                    assert process.stdout is not None
                    # It says that its calls are under way by a line of its own.
                    await process.stdout.receive()
                [report] = await read_json_lines(process)
        return report

    report = anyio.run(run, backend=backend)
    assert report["ok"], report["detail"]
    assert report["detail"]["message"]
