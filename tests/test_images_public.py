"""Public URLs of hosted images on a real server: who has one uploads an image, once, or sees one; who has none learns
nothing."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import httpx2
import pytest
from anyio.abc import TaskStatus
from pictures import RED, flat
from proxying import fetch, http_scope, proxy, serving, wired

from capnweb_py import RemoteError
from capnweb_py.remote import Env, connect_env
from capnweb_py.web import Request
from proxy_server import platform_env
from proxy_server.bindings.images import ImagesService
from proxy_server.bindings.images_options import MAX_HOSTED_BYTES
from proxy_server.bindings.images_public import MAX_UPLOAD_SECONDS, MIN_UPLOAD_SECONDS, PublicImages
from proxy_server.bindings.images_renderer import Renderer
from proxy_server.bindings.images_uploads import MAX_UPLOADS, Uploads
from proxy_server.config import ConfigError, read
from proxy_server.imaging.fields import Fields
from proxy_server.imaging.sources import MAX_IMAGE_BYTES
from proxy_server.stores.images import HostedImage
from proxy_server.stores.images_files import FileImageStore

pytestmark = pytest.mark.anyio

IMAGE: Final = flat(RED, 40, 20)
SVG: Final = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
UPLOAD_KEYS: Final = ["draft", "filename", "id", "meta", "requireSignedURLs", "uploaded", "variants"]

NOWHERE: Final = "there is nothing here: this URL was given to nobody, or has been used, or has expired"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config: Path = tmp_path_factory.mktemp("public") / "capnweb.toml"
    config.write_text(
        '[bindings.IMAGES]\ntype = "images"\n'
        '[bindings.BEHIND]\ntype = "images"\npublic_url = "https://img.example/here"\n'
        '[bindings.CACHE]\ntype = "kv_namespace"\n'
    )
    with serving(config) as server:
        yield server.url


@pytest.fixture
async def env(url: str) -> Any:
    with anyio.fail_after(60):
        async with connect_env(url) as env:
            yield env


async def asked(method: str, url: str, **options: Any) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        return await client.request(method, url, **options)


async def posted(url: str, data: bytes = IMAGE, field: str = "file", filename: str = "holiday.png") -> httpx2.Response:
    return await asked("POST", url, files={field: (filename, data)})


async def test_an_upload_from_the_announcement_to_the_image(env: Env) -> None:
    hosted = env.IMAGES.hosted
    given = await hosted.create_direct_upload(id="direct/ü", metadata={"k": 1}, creator="me")
    draft = await hosted.image(given.id).details()
    assert (draft.id, draft.draft, draft.filename, draft.meta) == ("direct/ü", True, None, {"k": 1})
    assert await hosted.image(given.id).bytes() is None
    assert given.id not in [image.id for image in (await hosted.list()).images]

    answer = await posted(given.upload_url)
    assert answer.status_code == 200
    assert (answer.headers["content-type"], answer.headers["access-control-allow-origin"]) == ("application/json", "*")
    envelope = answer.json()
    assert (envelope["success"], envelope["errors"], envelope["messages"]) == (True, [], [])
    assert sorted(envelope["result"]) == UPLOAD_KEYS
    assert (envelope["result"]["id"], envelope["result"]["filename"]) == ("direct/ü", "holiday.png")
    # Whoever uploads is not whoever announced it, and metadata may be nothing for its eyes.
    assert envelope["result"]["meta"] == {}

    kept = await hosted.image(given.id).details()
    assert (kept.draft, kept.filename, kept.creator, kept.meta) == (False, "holiday.png", "me", {"k": 1})
    stream = await hosted.image(given.id).bytes()
    assert b"".join([piece async for piece in stream]) == IMAGE
    assert given.id in [image.id for image in (await hosted.list()).images]
    assert await hosted.image(given.id).delete()


async def test_a_url_is_used_once_and_by_nothing_that_failed(env: Env) -> None:
    given = await env.IMAGES.hosted.create_direct_upload()
    assert (await posted(given.upload_url, b"no image")).status_code == 415
    assert (await posted(given.upload_url)).status_code == 200
    again = await posted(given.upload_url)
    assert (again.status_code, again.text) == (404, NOWHERE)
    assert await env.IMAGES.hosted.image(given.id).delete()


async def test_a_draft_that_is_deleted_takes_no_upload(env: Env) -> None:
    given = await env.IMAGES.hosted.create_direct_upload()
    assert await env.IMAGES.hosted.image(given.id).delete()
    assert (await posted(given.upload_url)).status_code == 404


@pytest.mark.parametrize(
    ("data", "field", "status", "code", "message"),
    [
        (b"no image", "file", 415, 9412, "ERROR 9412: The input is not an image"),
        (IMAGE[:60], "file", 422, 9516, "ERROR 9516: The PNG image is corrupt or cut short"),
        (bytes(MAX_HOSTED_BYTES + 1), "file", 413, 9402, "ERROR 9402: The image is too large: at most 10000000 bytes"),
        (IMAGE, "picture", 400, 9523, "ERROR 9523: Bad request: there is no field 'picture' here; valid are file"),
    ],
)
async def test_what_is_uploaded_in_vain(
    env: Env, data: bytes, field: str, status: int, code: int, message: str
) -> None:
    given = await env.IMAGES.hosted.create_direct_upload()
    answer = await posted(given.upload_url, data, field)
    assert answer.status_code == status
    envelope = answer.json()
    assert (envelope["result"], envelope["success"]) == (None, False)
    assert envelope["errors"][0]["code"] == code
    assert envelope["errors"][0]["message"].startswith(message)
    assert (await env.IMAGES.hosted.image(given.id).details()).draft


async def test_a_browser_may_ask_before_it_uploads_from_any_page(env: Env) -> None:
    given = await env.IMAGES.hosted.create_direct_upload()
    page = {"origin": "https://anywhere.example", "access-control-request-method": "POST"}
    answer = await asked("OPTIONS", given.upload_url, headers=page)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "*")
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert (await asked("GET", given.upload_url)).status_code == 405


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            {"expires_in": MIN_UPLOAD_SECONDS - 1},
            9401,
            "createDirectUpload.expiresIn must be a whole number from 120 to",
        ),
        (
            {"expires_in": MAX_UPLOAD_SECONDS + 1},
            9401,
            "createDirectUpload.expiresIn must be a whole number from 120 to",
        ),
        ({"id": "/x"}, 9401, "createDirectUpload.id must be a path that"),
        ({"id": "x", "require_signed_urls": True}, 9401, "createDirectUpload.requireSignedURLs can't be true for"),
        ({"id": "taken"}, 5409, "Resource already exists: taken"),
    ],
)
async def test_what_cannot_be_announced(env: Env, options: dict[str, Any], code: int, message: str) -> None:
    await env.IMAGES.hosted.create_direct_upload(id="taken")
    with pytest.raises(RemoteError) as raised:
        await env.IMAGES.hosted.create_direct_upload(**options)
    assert str(raised.value).startswith(f"IMAGES_DIRECT_UPLOAD_ERROR {code}: {message}")
    assert await env.IMAGES.hosted.image("taken").delete()


async def test_a_signed_url_shows_the_image(env: Env) -> None:
    for image_id in ("signed/ü x", None):
        kept = await env.IMAGES.hosted.upload(IMAGE, id=image_id)
        shown = await asked("GET", await env.IMAGES.hosted.image(kept.id).signed_url(expires_in=60))
        assert (shown.status_code, shown.headers["content-type"], shown.content) == (200, "image/png", IMAGE)
        assert (await asked("HEAD", str(shown.url))).headers["content-length"] == str(len(IMAGE))
        assert await env.IMAGES.hosted.image(kept.id).delete()
        assert (await asked("GET", str(shown.url))).status_code == 404


async def test_an_svg_is_shown_without_what_is_in_it(env: Env) -> None:
    kept = await env.IMAGES.hosted.upload(SVG)
    shown = await asked("GET", await env.IMAGES.hosted.image(kept.id).signed_url())
    assert (shown.headers["content-type"], shown.content) == ("image/svg+xml", SVG)
    assert "sandbox" in shown.headers["content-security-policy"]
    assert await env.IMAGES.hosted.image(kept.id).delete()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/one/", "/other/"),
        ("exp=", "exp=9"),
        ("sig=", "sig=0"),
        ("?exp", "?x"),
        ("&sig", "&a=b&sig"),
        ("/public?", "/large?"),
    ],
)
async def test_a_signed_url_that_is_changed_shows_nothing(env: Env, old: str, new: str) -> None:
    for image_id in ("one", "other"):
        await env.IMAGES.hosted.upload(IMAGE, id=image_id)
    url = await env.IMAGES.hosted.image("one").signed_url(expires_in=60)
    assert (await asked("GET", url)).status_code == 200
    assert (await asked("GET", url.replace(old, new))).status_code == 404
    for image_id in ("one", "other"):
        assert await env.IMAGES.hosted.image(image_id).delete()


async def test_a_signed_url_ends(env: Env) -> None:
    kept = await env.IMAGES.hosted.upload(IMAGE)
    for_ever = await env.IMAGES.hosted.image(kept.id).signed_url(variant="private")
    assert "exp=" not in for_ever
    url = await env.IMAGES.hosted.image(kept.id).signed_url(expires_in=1)
    with anyio.fail_after(60):
        while (await asked("GET", url)).status_code == 200:
            await anyio.lowlevel.checkpoint()
    assert (await asked("GET", for_ever)).status_code == 200
    assert await env.IMAGES.hosted.image(kept.id).delete()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "a/b"}, "signedUrl.variant must be 1 to 99 letters, digits, - and _, not 'a/b'"),
        ({"key_name": "mine"}, "signedUrl.keyName must be default, or left out"),
        ({"expires_in": 0}, "signedUrl.expiresIn must be a whole number from 1 to"),
    ],
)
async def test_what_cannot_be_signed(env: Env, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RemoteError) as raised:
        await env.IMAGES.hosted.image("a").signed_url(**options)
    assert str(raised.value).startswith(f"IMAGES_SIGNED_URL_ERROR 9401: {message}")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["IMAGES/upload/x", "IMAGES/image/a/public", "IMAGES/", "CACHE/upload/x", "NONE/upload/x"]
)
async def test_who_has_no_url_learns_nothing(url: str, method: str, path: str) -> None:
    root = url[: url.index("/", len("http://"))]
    answer = await asked(method, f"{root}/public/{path}")
    assert (answer.status_code, answer.text) == (404, NOWHERE)


async def test_the_urls_are_those_of_the_configuration(env: Env) -> None:
    given = await env.BEHIND.hosted.create_direct_upload()
    assert given.upload_url.startswith("https://img.example/here/public/BEHIND/upload/")
    assert await env.IMAGES.hosted.image(given.id).delete()


async def test_without_a_server_there_are_no_urls(tmp_path: Path) -> None:
    config = tmp_path / "wrangler.jsonc"
    config.write_text(json.dumps({"name": "x", "images": {"binding": "IMAGES"}}))
    async with platform_env(config) as env:
        with pytest.raises(
            RemoteError, match=r'public uploads need a server, .* "python -m proxy_server serve", and use'
        ):
            await env.IMAGES.hosted.create_direct_upload()


def test_a_public_url_that_is_none() -> None:
    table = {"type": "images", "public_url": "ws://x"}
    with pytest.raises(ConfigError, match=r"bindings\.IMAGES\.public_url: an http: or https: URL is needed here"):
        read({"bindings": {"IMAGES": table}}, Path("capnweb.toml"))


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ImagesService]:
    service = ImagesService(FileImageStore(tmp_path / "images"))
    yield service
    await service.aclose()


def hosted_by(service: ImagesService) -> Any:
    return service.at("http://x/", "public/IMAGES/").rpc_main()


@pytest.mark.parametrize("signed_before", [True, False])
async def test_a_stranger_waits_for_nobody_who_writes(
    service: ImagesService, tmp_path: Path, signed_before: bool
) -> None:
    hosted = hosted_by(service)
    await hosted.upload(IMAGE, {"id": "one"})
    if signed_before:
        await hosted.image("one").signedUrl({"variant": "public"})
    scope = {**http_scope(None, path="/public/IMAGES/image/one/public"), "query_string": b"sig=" + b"0" * 64}
    with contextlib.closing(sqlite3.connect(tmp_path / "images.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with proxy(IMAGES=service) as app:
            assert (await fetch(app, scope)).status == 404


async def test_an_image_is_read_as_it_is_sent(service: ImagesService) -> None:
    image = SVG + b" " * 1_000_000
    hosted = hosted_by(service)
    kept = await hosted.upload(image)
    url = urlsplit(await hosted.image(kept["id"]).signedUrl({"variant": "public"}))
    scope = {**http_scope(None, path=url.path), "query_string": url.query.encode()}
    async with proxy(IMAGES=service) as app:
        async with wired(app, scope) as wire:
            start = await wire.next()
            assert (b"content-length", str(len(image)).encode()) in start["headers"]
            assert len(await wire.next_chunk()) < 100_000
        assert (await fetch(app, scope)).body == image


@pytest.fixture
async def public(tmp_path: Path) -> AsyncIterator[PublicImages]:
    store = FileImageStore(tmp_path / "images")
    yield PublicImages(Renderer(MAX_IMAGE_BYTES), store, Uploads(), "http://x/")
    await store.aclose()


async def upload_path(public: PublicImages) -> str:
    image = HostedImage(str(uuid4()), 0, None, draft=True)
    url = await public.announce(image, Fields("createDirectUpload", {}))
    assert url is not None
    return url.removeprefix("http://x/")


def form(body: Any) -> Request:
    return Request("http://x/", method="POST", headers={"content-type": "multipart/form-data; boundary=b"}, body=body)


@asynccontextmanager
async def uploading(public: PublicImages, *paths: str) -> AsyncIterator[None]:
    """Uploads that are under way, and of which no more comes."""

    async def upload(path: str, *, task_status: TaskStatus[None]) -> None:
        async def body() -> AsyncIterator[bytes]:
            task_status.started()
            await anyio.sleep_forever()
            yield b""

        await public.answer(path, form(body()))

    async with anyio.create_task_group() as tasks:
        for path in paths:
            await tasks.start(upload, path)
        yield
        tasks.cancel_scope.cancel()


async def test_one_url_takes_two_uploads_at_a_time(public: PublicImages) -> None:
    path, other = [await upload_path(public) for _ in range(2)]
    async with uploading(public, path, path):
        refused = await public.answer(path, form(b"--b"))
        assert refused is not None
        assert (refused.status, refused.headers["retry-after"]) == (429, "5")
        assert await refused.text() == "this URL is being used 2 times already: try again later"
        heard = await public.answer(other, form(b"--b"))
        assert heard is not None
        assert heard.status == 400
    heard = await public.answer(path, form(b"--b"))
    assert heard is not None
    assert heard.status == 400


async def test_a_binding_takes_so_many_uploads_at_a_time(public: PublicImages) -> None:
    *paths, last = [await upload_path(public) for _ in range(MAX_UPLOADS + 1)]
    async with uploading(public, *paths):
        refused = await public.answer(last, form(b"--b"))
        assert refused is not None
        assert (refused.status, await refused.text()) == (429, "16 uploads are under way already: try again later")


async def test_what_a_server_fails_with_is_not_for_strangers() -> None:
    class Broken:
        def rpc_main(self) -> object: ...
        async def fetch(self, _request: Any) -> Any: ...
        async def aclose(self) -> None: ...

        def at(self, _server: str, _path: str) -> Any: ...

        async def public(self, _path: str, _request: Any) -> Any:
            raise RuntimeError("/srv/secret/place")

    async with proxy(IMAGES=Broken()) as app:
        reply = await fetch(app, http_scope(None, path="/public/IMAGES/x"))
    assert (reply.status, reply.body) == (500, b"the server failed: its log says how")


async def test_a_server_that_stops_says_so() -> None:
    async with proxy() as app:
        await app.drain(0)
        reply = await fetch(app, http_scope(None, path="/public/IMAGES/x"))
    assert reply.status == 503
