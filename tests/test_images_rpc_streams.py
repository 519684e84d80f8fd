"""Pictures as streams, and hosted images, on the RPC channel of the images binding: what its targets do in memory."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest
from pictures import BLUE, RED, flat, pixel, size

from capnweb_py import UNDEFINED, ReadableStream, RemoteError, RpcStub, SessionStats, TypedArray, memory_pair
from proxy_server.bindings import images_rpc, parse_binding
from proxy_server.bindings.images import ImagesService
from proxy_server.bindings.images_hosted import DEFAULT_PAGE
from proxy_server.bindings.images_options import MAX_META_BYTES
from proxy_server.stores.images_files import FileImageStore
from proxy_server.tables import ConfigError, Table

pytestmark = pytest.mark.anyio

PNG: Final = {"format": "image/png"}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ImagesService]:
    opened = ImagesService(FileImageStore(tmp_path / "images"), max_input_bytes=5000)
    yield opened
    await opened.aclose()


@pytest.fixture
async def images(service: ImagesService) -> AsyncIterator[RpcStub]:
    """`env.IMAGES` on the other side of a session."""
    async with memory_pair(None, service.rpc_main()) as (client, _server):
        yield client.remote_main


class Source:
    """Pieces of a stream, which tells how far it was read, and whether it was closed."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces = iter(pieces)
        self.read = 0
        self.closed = anyio.Event()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        for piece in self._pieces:
            self.read += 1
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed.set()


def stream(data: bytes, step: int = 50) -> ReadableStream[bytes]:
    return ReadableStream(Source(*[data[at : at + step] for at in range(0, len(data), step)]))


@asynccontextmanager
async def thrown(code: int, message: str) -> AsyncIterator[None]:
    with pytest.raises(RemoteError) as caught:
        yield
    assert (caught.value.name, caught.value.props) == ("ImagesError", {"code": code})
    assert str(caught.value).startswith(message)


# Streams


async def test_streams_are_read_when_the_picture_is_made(images: RpcStub) -> None:
    canvas = images.input(stream(flat(RED, 40, 20))).transform(width=20)
    drawn = images.input(stream(base64.b64encode(flat(BLUE, 4, 4)), 7), encoding="base64")
    made = await canvas.draw(drawn, top=0, left=0).draw(stream(flat(BLUE, 4, 4)), right=0, bottom=0).output(PNG).image()
    assert size(made) == (20, 10)
    assert [pixel(made, *at) for at in ((0, 0), (10, 5), (19, 9))] == [BLUE, RED, BLUE]


async def test_pieces_are_bytes_in_any_form(images: RpcStub) -> None:
    data = flat(RED, 40, 20)
    pieces = ReadableStream(Source(data[:9], bytearray(data[9:20]), TypedArray("Uint8Array", data[20:])))
    assert (await images.info(pieces))["width"] == 40
    with pytest.raises(TypeError, match="the stream of an image has to yield bytes, not str"):
        await images.info(ReadableStream(Source("word")))


async def test_of_a_stream_that_is_too_large_no_more_is_read(images: RpcStub) -> None:
    source = Source(*[bytes(1000)] * 1_000_000)
    async with thrown(9402, "IMAGES_INFO_ERROR 9402: The image is too large: at most 5000 bytes are allowed"):
        await images.info(ReadableStream(source))
    with anyio.fail_after(60):
        await source.closed.wait()
    assert source.read < 10_000
    # In base64 four characters count as three bytes.
    async with thrown(9412, "IMAGES_INFO_ERROR 9412: "):
        await images.info(stream(base64.b64encode(bytes(4998))), encoding="base64")
    async with thrown(9402, "IMAGES_INFO_ERROR 9402: "):
        await images.info(stream(base64.b64encode(bytes(5004))), encoding="base64")


async def test_the_images_of_one_order_have_a_limit_together(images: RpcStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_rpc, "MAX_FORM_BYTES", 10_000)
    canvas = images.input(stream(bytes(4000)))
    for _ in range(2):
        canvas = canvas.draw(bytes(4000))
    async with thrown(9523, "IMAGES_TRANSFORM_ERROR 9523: The images have more than 10000 bytes together"):
        await canvas.output(PNG)


async def test_a_stream_that_nobody_reads_is_closed(images: RpcStub) -> None:
    source = Source(*[bytes(1000)] * 1_000_000)
    picture = await images.input(ReadableStream(source))
    del picture
    with anyio.fail_after(60):
        await source.closed.wait()


async def test_an_error_of_the_stream_is_the_calls(images: RpcStub) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield flat(RED)
        raise LookupError("nothing more today")

    with pytest.raises(RemoteError, match="nothing more today"):
        await images.info(ReadableStream(failing()))
    with pytest.raises(RemoteError, match="nothing more today"):
        await images.hosted.upload(ReadableStream(failing()), id="a")
    assert await images.hosted.image("a").details() is None


# Hosted images


async def test_hosted_images_are_found_in_both_places(images: RpcStub) -> None:
    """On the main object, where the runtime calls them, and under `hosted`, where it shows them."""
    await images.upload(flat(RED), {"id": "a"})
    await images.hosted.upload(flat(BLUE), {"id": "b"})
    assert await images.image("b").details() == await images.hosted.image("b").details()
    page = await images.list()
    assert page == await images.hosted.list()
    assert [image["id"] for image in page["images"]] == ["a", "b"]


async def test_an_upload_is_one_round_trip_with_what_follows(images: RpcStub) -> None:
    kept = images.upload(stream(flat(RED)))
    handle = images.image(kept.id)
    assert (await handle.details())["id"] == (await kept)["id"]


async def test_options_that_are_undefined_are_absent_and_null_stays_in_metadata(images: RpcStub) -> None:
    metadata = {"null": None, "undefined": UNDEFINED, "list": [UNDEFINED, 1], "object": {"undefined": UNDEFINED}}
    options = {"id": "a", "creator": UNDEFINED, "filename": None, "metadata": metadata}
    kept = await images.upload(flat(RED), options)
    # As JSON.stringify has it.
    assert kept["meta"] == {"null": None, "list": [None, 1], "object": {}}
    assert "creator" not in kept
    assert (await images.upload(flat(RED), UNDEFINED))["meta"] == {}
    assert (await images.image("a").update({"metadata": UNDEFINED}))["meta"] == kept["meta"]


async def test_metadata_counts_in_bytes_of_json(images: RpcStub) -> None:
    most = {"k": "ü" * ((MAX_META_BYTES - len('{"k":""}')) // 2)}
    assert (await images.upload(flat(RED), metadata=most))["meta"] == most
    async with thrown(9401, "IMAGES_UPLOAD_ERROR 9401: upload.metadata has 1025 bytes as JSON; at most 1024"):
        await images.upload(flat(RED), metadata={"k": most["k"] + "x"})
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"d": deep}
    assert (await images.upload(flat(RED), metadata=deep))["meta"] == deep


async def test_a_page_has_fifty_images_unless_it_is_told(images: RpcStub, service: ImagesService) -> None:
    for number in range(DEFAULT_PAGE + 1):
        await images.upload(flat(RED, 1, 1), {"id": str(number)})
    page = await images.list()
    assert (len(page["images"]), page["listComplete"]) == (DEFAULT_PAGE, False)
    last = await images.list({"cursor": page["cursor"]})
    assert (len(last["images"]), last["listComplete"], "cursor" in last) == (1, True, False)
    assert len((await images.list({"limit": 1000}))["images"]) == DEFAULT_PAGE + 1


METADATA: Final[dict[str, dict[str, Any]]] = {
    "a": {"status": "active", "priority": 1, "camera": {"make": "nikon"}, "raw": True},
    "b": {"status": "active", "priority": 3.5, "camera": {"make": "leica"}, "raw": False},
    "c": {"status": "deleted", "priority": 5, "camera": "nikon"},
    "d": {"status": 1, "priority": "3", "1st": None, "raw": "true"},
}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "abcd"),
        ({"status": "active"}, "ab"),
        ({"status": {"eq": "active"}}, "ab"),
        ({"status": 1}, "d"),
        ({"status": "1"}, ""),
        ({"status": {"in": ["active", "deleted"]}}, "abc"),
        ({"priority": {"in": [1, 5.0, 9]}}, "ac"),
        ({"priority": {"gte": 1, "lt": 5}}, "ab"),
        ({"priority": {"gt": 1}}, "bc"),
        ({"priority": {"lte": 1}}, "a"),
        ({"camera.make": "nikon"}, "a"),
        ({"camera": "nikon"}, "c"),
        ({"raw": True}, "a"),
        ({"raw": False}, "b"),
        ({"raw": "true"}, "d"),
        ({"status": "active", "priority": {"gt": 2}}, "b"),
        ({"missing": "x"}, ""),
        ({"1st": "x"}, ""),
    ],
)
async def test_a_list_is_filtered_by_metadata(images: RpcStub, wanted: dict[str, Any], found: str) -> None:
    for image_id, metadata in METADATA.items():
        await images.upload(flat(RED, 1, 1), {"id": image_id, "metadata": metadata})
    page = await images.list({"metadataFilter": wanted})
    assert "".join(image["id"] for image in page["images"]) == found
    first = await images.list({"filter": {"metadata": wanted}, "limit": 1})
    assert [image["id"] for image in first["images"]] == list(found[:1])
    assert first["listComplete"] is (len(found) <= 1)


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ("active", "must be an object, not 'active'"),
        ({"a-b": 1}, "has the field 'a-b': letters, digits and _ make a name"),
        ({"": 1}, "has the field ''"),
        ({"a..b": 1}, "has the field 'a..b'"),
        ({"ä": 1}, "has the field 'ä'"),
        ({"a') OR 1 --": 1}, "has the field"),
        ({"a.b.c.d.e.f": 1}, "has the field 'a.b.c.d.e.f': at most 5 levels and 100 characters"),
        ({"a" * 101: 1}, "has the field"),
        ({"a": [1]}, ".a must be a string, a number, true or false, not [1]"),
        ({"a": float("inf")}, ".a must be a string, a number, true or false, not inf"),
        ({"a": {"ne": 1}}, ".a has the unknown operator 'ne'; valid are eq, in, gt, gte, lt, lte"),
        ({"a": None}, ".a must be a string, a number, true or false, not None"),
        ({"a": UNDEFINED}, ".a must be a string, a number, true or false, not UNDEFINED"),
        ({"a": {"gt": UNDEFINED}}, ".a.gt must be a string, a number, true or false, not UNDEFINED"),
        ({"a": "\ud800"}, ".a must be a string, a number, true or false"),
        ({"a": {}}, ".a has no condition"),
        ({"a": {"gt": "1"}}, ".a.gt must be a number, not '1'"),
        ({"a": {"in": []}}, ".a.in must be an array of 1 to 10 strings, or as many numbers"),
        ({"a": {"in": "x"}}, ".a.in must be an array of 1 to 10 strings, or as many numbers"),
        ({"a": {"in": [1, "1"]}}, ".a.in must be an array of 1 to 10 strings, or as many numbers"),
        ({"a": {"in": [*range(11)]}}, ".a.in must be an array of 1 to 10 strings, or as many numbers"),
        ({"a": {"gt": 1, "lt": 3}, "b": {"gt": 1, "lt": 3}, "c": 1, "d": 1}, "has 6 conditions; at most 5"),
    ],
)
async def test_a_filter_that_is_none_lets_nothing_through(images: RpcStub, wanted: Any, problem: str) -> None:
    await images.upload(flat(RED, 1, 1), {"id": "a"})
    separator = "" if problem.startswith(".") else " "
    async with thrown(9401, f"IMAGES_LIST_ERROR 9401: list.metadataFilter{separator}{problem}"):
        await images.list({"metadataFilter": wanted})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"filter": {"metadata": {"a": {}}}}, "list.filter.metadata.a has no condition"),
        ({"filter": "x"}, "list.filter must be an object, not 'x'"),
        ({"filter": {"creator": "x"}}, "list.filter has the unknown option 'creator'; valid are metadata"),
        ({"filter": {}, "metadataFilter": {}}, "list has both filter and metadataFilter, which mean the same"),
    ],
)
async def test_a_filter_has_the_name_of_the_types_as_well(images: RpcStub, options: Any, problem: str) -> None:
    async with thrown(9401, f"IMAGES_LIST_ERROR 9401: {problem}"):
        await images.list(options)


async def test_a_stream_of_bytes_that_is_left_is_closed(images: RpcStub) -> None:
    await images.upload(flat(RED) + bytes(1_000_000), {"id": "a"})
    taken = await images.image("a").bytes()
    async for _ in taken:
        break
    await taken.aclose()
    dropped = await images.image("a").bytes()
    del dropped
    assert await images.image("a").delete() is True


async def test_nothing_stays_referred_to(service: ImagesService) -> None:
    one_entry_each = SessionStats(imports=1, exports=1)
    async with memory_pair(None, service.rpc_main()) as (client, server):
        hosted = client.remote_main.hosted
        await hosted.upload(stream(flat(RED)), {"id": "a"})
        data = await hosted.image("a").bytes()
        assert b"".join([piece async for piece in data]) == flat(RED)
        await hosted.image("a").delete()
        del hosted, data
        with anyio.fail_after(60):
            while (client.stats(), server.stats()) != (one_entry_each, one_entry_each):
                await anyio.lowlevel.checkpoint()


async def test_nothing_private_of_the_targets_is_reachable(images: RpcStub) -> None:
    for target in (images, images.hosted, images.image("a")):
        for name in ("_store", "_renderer", "_id"):
            with pytest.raises(TypeError):
                await target[name]()


# The configuration


def test_the_store_is_named_in_the_table(tmp_path: Path) -> None:
    def mistake(**values: object) -> str:
        with pytest.raises(ConfigError) as caught:
            parse_binding(Table({"type": "images"} | values, Path("a.toml"), "bindings.I"), tmp_path)
        return str(caught.value)

    needed = 'a.toml: bindings.I.id: 1 to 64 letters, digits, "-" and "_" are needed here'
    assert mistake(id="") == mistake(id="../up") == mistake(id="a/b") == mistake(id="x" * 65) == needed


async def test_bindings_of_one_id_share_their_images(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        names: list[str | None] = [None, None, "other", "other"]
        opened = []
        for name in names:
            table = {"type": "images"} | ({} if name is None else {"id": name})
            opened.append(await parse_binding(Table(table, Path("a.toml"), "bindings.I"), tmp_path).open(tasks))
        seen = []
        for number, binding in enumerate(opened):
            async with memory_pair(None, binding.rpc_main()) as (client, _):
                await client.remote_main.upload(flat(RED), {"id": str(number)})
                seen.append([image["id"] for image in (await client.remote_main.list())["images"]])
        assert seen == [["0"], ["0", "1"], ["2"], ["2", "3"]]
        for binding in opened:
            await binding.aclose()
    assert folders_of(tmp_path) == ["images", "images-other"]


def folders_of(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())
