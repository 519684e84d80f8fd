"""The CBOR codec between Python and JavaScript: every value, bytes raw in both directions, text and binary mixed.

The JavaScript side is a transport of encoding level "jsonCompatibleWithBytes" (wire.mjs) under npm capnweb's session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

import anyio
import pytest

from capnweb_py import connect

from .node import run_client
from .serving import serve_world
from .test_node_client import CBOR_ONLY, ERRORS, STREAMS, Reports
from .test_node_server import node_peer
from .values import VALUES, WEB_VALUES, described, same

# Of the rules of scenarios.mjs, those whose messages differ from JSON's, and enough of the others.
SCENARIOS: Final = (
    *CBOR_ONLY,
    *(f"value: {name}" for name in VALUES),
    *(f"web value: {name}" for name in WEB_VALUES),
    *(f"error: {kind}" for kind in ERRORS),
    "large values",
    "errors as values",
    "nested stubs in arguments",
    "nested stubs in results",
    "stub sent back home",
    "three parties",
    "chain in one round trip",
    "calls arrive in order",
    "an abort fails all that is pending",
    *STREAMS,
)

# How the JavaScript side writes: binary where there are bytes, or binary always.
STYLES: Final = ("--cbor", "--cbor-always")

PAYLOAD: Final = bytes((index * 167) >> 3 & 255 for index in range(300_000))


# ---- our server


# Each style on one loop: what the loops do differently is below the codec, and test_node_client.py runs all on both.
@pytest.fixture(scope="module", params=[*zip(STYLES, ("asyncio", "trio"), strict=True)], ids=str)
def reports(request: pytest.FixtureRequest, node: str) -> Reports:
    """What a Node client that speaks CBOR reports of each scenario."""
    style, loop = request.param

    async def run(names: Sequence[str]) -> Reports:
        async with serve_world() as url:
            return await run_client(node, url, names, style)

    return anyio.run(run, SCENARIOS, backend=loop)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_against_our_server(reports: Reports, scenario: str) -> None:
    assert scenario in reports, "the client ended before it"
    assert reports[scenario]["ok"], f"{reports[scenario]['detail']}\n{reports[scenario]['stats']}"


# ---- our client


@pytest.fixture(params=STYLES)
def cbor_url(request: pytest.FixtureRequest, node_cbor_url: str, node_all_cbor_url: str) -> str:
    """The URL of an npm capnweb server that speaks CBOR, in each of the two styles."""
    return node_cbor_url if request.param == "--cbor" else node_all_cbor_url


@pytest.mark.anyio
async def test_every_value_is_the_same_in_both_directions(cbor_url: str) -> None:
    async with node_peer(cbor_url) as peer:
        for name, make in VALUES.items():
            assert same(await peer.api.value(name), make()), name
            assert await peer.api.check(name, make()) is True, name
            assert same(await peer.api.echo(make()), make()), name


@pytest.mark.anyio
async def test_every_web_value_is_the_same_in_both_directions(cbor_url: str) -> None:
    async with node_peer(cbor_url) as peer:
        for name, make in WEB_VALUES.items():
            assert await described(await peer.api.web_value(name)) == await described(make()), name
            assert await peer.api.check_web_value(name, make()) is True, name


@pytest.mark.anyio
async def test_bytes_travel_raw(cbor_url: str) -> None:
    async with node_peer(cbor_url) as peer:
        assert await peer.api.echo(PAYLOAD) == PAYLOAD
        frames = [frame for frame in await peer.monitor.forms(peer.id) if frame[2] > 1000]
        assert [frame[:2] for frame in frames] == [["in", "binary"], ["out", "binary"]]
        # Less than a kilobyte around the bytes: base64 would have made them a third larger.
        assert all(len(PAYLOAD) < size < len(PAYLOAD) + 1000 for _, _, size in frames)


@pytest.mark.anyio
async def test_bodies_travel_raw_in_both_directions(cbor_url: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for index in range(16):
            yield bytes([index]) * 65_536

    async with node_peer(cbor_url) as peer:
        assert await peer.api.measure(chunks()) == [16 * 65_536, 65_536 * 15 * 8]
        received = [chunk async for chunk in await peer.api.pieces(16, 65_536)]
        assert received == [bytes([index]) * 65_536 for index in range(16)]
        large = [frame for frame in await peer.monitor.forms(peer.id) if frame[2] > 1000]
        assert {form for _, form, _ in large} == {"binary"}
        assert all(65_536 < size < 66_000 for _, _, size in large)


@pytest.mark.anyio
async def test_text_and_binary_share_a_connection(node_cbor_url: str) -> None:
    async with node_peer(node_cbor_url) as peer:
        assert await peer.api.square(3) == 9
        assert await peer.api.echo(b"\x00\xff") == b"\x00\xff"
        assert await peer.api.echo(["\ud800", b"\x00"]) == ["\ud800", b"\x00"]
        assert await peer.api.square(4) == 16
        forms = {(direction, form) for direction, form, _ in await peer.monitor.forms(peer.id)}
        assert forms == {("in", "text"), ("in", "binary"), ("out", "text"), ("out", "binary")}


@pytest.mark.anyio
async def test_a_server_of_no_codec_gets_json(node_url: str) -> None:
    async with node_peer(node_url) as peer:
        assert await peer.api.echo(b"\x00\xff") == b"\x00\xff"
        assert {form for _, form, _ in await peer.monitor.forms(peer.id)} == {"text"}


@pytest.mark.anyio
@pytest.mark.parametrize("codec", ["json", "cbor"])
async def test_a_codec_that_is_asked_for_is_used(node_cbor_url: str, codec: str) -> None:
    with anyio.fail_after(60):
        async with connect(node_cbor_url, codec=codec) as api:
            assert await api.echo(b"\x00\xff") == b"\x00\xff"
            frames = await api.forms(await api.id())
    binary = [frame for frame in frames if frame[1] == "binary"]
    assert bool(binary) == (codec == "cbor")
