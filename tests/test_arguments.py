"""An argument of a wrong type is a TypeError of the facade, which names the argument, what it has to be and what it is,
in the same words on both channels, and before anything is sent."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from capnweb_py.bindings.r2 import R2HttpMetadata
from capnweb_py.bindings.send_email import Attachment
from capnweb_py.remote import Env
from proxy_server import platform_env

pytestmark = pytest.mark.anyio

TYPES = {
    "BUCKET": "r2_bucket",
    "DB": "d1",
    "QUEUE": "queue",
    "EMAIL": "send_email",
    "IMAGES": "images",
}
MAIL: dict[str, Any] = {"from_": "a@example.com", "to": "b@example.com", "subject": "s", "text": "t"}


@pytest.fixture(params=["http", "rpc"])
async def env(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Env]:
    tables = {name: {"type": kind} for name, kind in TYPES.items()}
    async with platform_env({"bindings": tables}, state_dir=tmp_path, channel=request.param) as opened:
        yield opened


async def _bound(env: Env, *values: Any) -> object:
    return env.DB.prepare("SELECT ?, ?").bind(*values)


async def _part(env: Env, number: Any, value: Any) -> object:
    return await env.BUCKET.resume_multipart_upload("k", "id").upload_part(number, value)


@pytest.mark.parametrize(
    ("use", "problem"),
    [
        (lambda env: env.BUCKET.head(5), "key has to be a str, not int"),
        (lambda env: env.BUCKET.get("k", range={"offset": 1}), "range has to be an R2Range or Headers, not dict"),
        (lambda env: env.BUCKET.get("k", only_if="*"), "only_if has to be an R2Conditional or Headers, not str"),
        (
            lambda env: env.BUCKET.put("k", "v", http_metadata={"content_type": "a/b"}),
            "http_metadata has to be an R2HttpMetadata or Headers, not dict",
        ),
        (lambda env: env.BUCKET.put("k", "v", custom_metadata=["a"]), "custom_metadata has to be a dict, not list"),
        (
            lambda env: env.BUCKET.put("k", 5),
            "value has to be a str, bytes, a Blob, an async iterable of bytes or None",
        ),
        (lambda env: env.BUCKET.put("k", "v", length="3"), "length has to be a whole number of bytes, not str"),
        (lambda env: env.BUCKET.delete(["k", 5]), "each key has to be a str, not int"),
        (lambda env: env.BUCKET.list(limit="5"), "limit has to be a whole number, not str"),
        (lambda env: _part(env, "1", b""), "part_number has to be a whole number, not str"),
        (lambda env: env.DB.exec(b"SELECT 1"), "sql has to be a str, not bytes"),
        (lambda env: env.DB.batch(["SELECT 1"]), "each statement has to be what prepare() gives, not str"),
        (
            lambda env: _bound(env, 1, datetime.now(UTC)),
            "value 2 has to be None, a number, a str or bytes, not datetime",
        ),
        (lambda env: _bound(env, {"a": 1}), "value 1 has to be None, a number, a str or bytes, not dict"),
        (lambda env: _bound(env, [1, 2]), "not list: unpack it, as in bind(*values)"),
        (lambda env: _bound(env, (1, 2)), "not tuple: unpack it, as in bind(*values)"),
        (lambda env: env.QUEUE.send_batch([1]), "each message has to be a SendRequest, or a dict such as"),
        (
            lambda env: env.QUEUE.send(1, delay_seconds="5"),
            "delay_seconds has to be a whole number of seconds, not str",
        ),
        (lambda env: env.QUEUE.pull(batch_size="5"), "batch_size has to be a whole number, not str"),
        (lambda env: env.EMAIL.send(MAIL), "message has to be an EmailMessage, or its parts by their names, not dict"),
        (
            lambda env: env.EMAIL.send(**MAIL | {"to": 5}),
            "to has to be a str, an EmailAddress, or a list of them, not int",
        ),
        (lambda env: env.EMAIL.send(**MAIL | {"to": [5]}), "to has to be a str or an EmailAddress, not int"),
        (lambda env: env.EMAIL.send(**MAIL, attachments=[b"x"]), "each attachment has to be an Attachment, not bytes"),
        (
            lambda env: env.EMAIL.send(**MAIL, attachments=[Attachment("a", "a/b", 5)]),  # type: ignore[arg-type]
            "the content of an attachment has to be bytes, or base64, not int",
        ),
        (lambda env: env.IMAGES.info("photo.jpg"), "image has to be bytes, or an async iterable of bytes, not str"),
    ],
)
async def test_an_argument_of_a_wrong_type_is_named(
    env: Env, use: Callable[[Env], Awaitable[object]], problem: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(problem)):
        await use(env)


async def test_arguments_of_the_right_types_are_taken(env: Env) -> None:
    await env.BUCKET.put(
        "k", bytearray(b"v"), http_metadata=R2HttpMetadata(content_type="a/b"), custom_metadata={"a": "b"}
    )
    rows = await env.DB.prepare("SELECT ?, ?, ?").bind(bytearray(b"x"), True, None).raw()
    assert rows == [[b"x", 1, None]]
    await env.QUEUE.send_batch([{"body": 1, "delay_seconds": 0}])
    await env.EMAIL.send(**MAIL | {"to": ("b@example.com",)}, attachments=(Attachment("a", "a/b", b"x"),))
