"""A program over all bindings that Wrangler and this project both know, and the file that declares them. Nothing here
tests: a test runs it in two places, and compares what it was told.
"""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final

from pictures import RED, flat, size

from capnweb_py.bindings.r2 import R2Range
from capnweb_py.bindings.send_email import EmailMessage
from capnweb_py.remote import Env

# Every kind of binding that Wrangler and this project both know, as a project declares it.
FILE: Final = """{
    "name": "worker",
    "main": "src/index.ts",
    "kv_namespaces": [{"binding": "CACHE", "id": "0123", "remote": false}],
    "r2_buckets": [{"binding": "ASSETS", "bucket_name": "assets", "remote": false}],
    "d1_databases": [{"binding": "DB", "database_name": "app", "database_id": "89ab", "remote": false}],
    "queues": {
        "producers": [{"binding": "JOBS", "queue": "jobs", "remote": false}],
        "consumers": [{"queue": "jobs", "max_batch_size": 2, "max_retries": 1, "dead_letter_queue": "failed"}],
    },
    "images": {"binding": "IMAGES", "remote": false},
    "services": [{"binding": "AUTH", "service": "auth-worker", "remote": false}],
    "send_email": [{"name": "MAIL", "allowed_sender_addresses": ["shop@example.com"], "remote": false}],
    "dispatch_namespaces": [{"binding": "TENANTS", "namespace": "tenants", "remote": false}],
    "vars": {"GREETING": "hello", "LIMITS": {"items": [1, 2]}},
    "capnweb": {
        "bindings": {
            "AUTH": {"target": "tests.services:Service"},
            "TENANTS": {"services": {"a": {"target": "tests.services:Service"}}},
            "FAILED": {"type": "queue", "queue": "failed", "remote": false},
        },
    },
}"""
NAMES: Final = ["ASSETS", "AUTH", "CACHE", "DB", "FAILED", "GREETING", "IMAGES", "JOBS", "LIMITS", "MAIL", "TENANTS"]


def project(directory: Path, text: str = FILE) -> Path:
    """The file of a project, in a folder of its own."""
    directory.mkdir(exist_ok=True)
    path = directory / "wrangler.jsonc"
    path.write_text(text)
    return path


async def use_kv(env: Env, said: list[Any]) -> None:
    await env.CACHE.put("k", "v", metadata={"a": [1]})
    said += [await env.CACHE.get("k"), await env.CACHE.get("nothing"), await env.CACHE.get_with_metadata("k")]
    said += [[key.name for key in (await env.CACHE.list(prefix="k")).keys]]
    await refused(said, env.CACHE.put("", "v"))
    await env.CACHE.delete("k")
    said += [await env.CACHE.get("k")]


async def use_r2(env: Env, said: list[Any]) -> None:
    written = await env.ASSETS.put("a/b.txt", "content", custom_metadata={"by": "me"})
    said += [written.key, written.size, written.etag, written.custom_metadata]
    async with await env.ASSETS.get("a/b.txt", range=R2Range(offset=3)) as part:
        said += [await part.text()]
    said += [await env.ASSETS.head("nothing"), (await env.ASSETS.list(delimiter="/")).delimited_prefixes]
    await refused(said, env.ASSETS.put("x" * 2000, "content"))


async def use_d1(env: Env, said: list[Any]) -> None:
    await env.DB.exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
    insert = env.DB.prepare("INSERT INTO t (b) VALUES (?1) RETURNING *")
    said += [[result.results for result in await env.DB.batch([insert.bind("x"), insert.bind(None)])]]
    said += [await env.DB.prepare("SELECT count(*) AS n FROM t").first("n")]
    await refused(said, env.DB.prepare("SELECT * FROM missing").all())


async def use_queue(env: Env, said: list[Any]) -> None:
    await env.JOBS.send_batch([{"body": number} for number in range(3)])
    batch = await env.JOBS.pull()
    said += [[(message.body, message.attempts) for message in batch]]
    await batch.retry_all()
    batch = await env.JOBS.pull(batch_size=1)
    await batch.ack_all()
    await refused(said, env.JOBS.send("x" * 200_000))
    while messages := list(await env.JOBS.pull()):
        for message in messages:
            await message.retry()
    said += [sorted(message.body for message in await env.FAILED.pull())]


async def use_images(env: Env, said: list[Any]) -> None:
    picture = await env.IMAGES.input(flat(RED, 40, 20)).transform(width=10).output(format="image/png")
    said += [picture.content_type, size(picture.data)]
    await refused(said, env.IMAGES.info(b"no picture"))


async def use_service(env: Env, said: list[Any]) -> None:
    said += [await env.AUTH.hello("World", greeting="Hei"), await env.AUTH.call_each([1, 2], lambda number: number * 2)]
    said += [await env.AUTH.make_counter(1).increment(2)]
    await refused(said, env.AUTH.fail("ValueError"))
    response = await env.AUTH.fetch("https://auth/teapot", method="PUT", body="body")
    said += [response.status, response.headers["content-type"], await response.text()]
    said += [await env.TENANTS.get("a").hello("World")]


async def use_mail(env: Env, said: list[Any]) -> None:
    raw = "From: shop@example.com\r\nTo: ada@example.org\r\nMessage-ID: <1@example.com>\r\nSubject: Hi\r\n\r\nHello\r\n"
    sent = await env.MAIL.send(EmailMessage("shop@example.com", "ada@example.org", raw))
    said += [type(sent)]
    await refused(said, env.MAIL.send(from_="else@example.com", to="ada@example.org", subject="Hi", text="Hello"))


async def refused(said: list[Any], call: Awaitable[Any]) -> None:
    """Note with which error a call fails: its type and text, and the attributes that programs look at."""
    try:
        await call
    except Exception as error:
        said.append((type(error), str(error), getattr(error, "code", None)))
    else:
        raise AssertionError("it was not refused")


USES: Final = (use_kv, use_r2, use_d1, use_queue, use_images, use_service, use_mail)


async def program(env: Env) -> dict[str, list[Any]]:
    """What a program is told by each of its bindings."""
    answers: dict[str, list[Any]] = {"dir": dir(env), "vars": [env.GREETING, env.LIMITS]}
    for use in USES:
        await use(env, answers.setdefault(use.__name__, []))
    return answers
