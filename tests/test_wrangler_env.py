"""A program and its wrangler.jsonc: one word of the file says where a binding is, and the program is told the same.
What Wrangler's own `getPlatformProxy` gives is here, too, or says that it is not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pictures import RED, flat, size
from proxying import serving

from capnweb_py.bindings.channels import Channel
from capnweb_py.bindings.r2 import R2Range
from capnweb_py.bindings.send_email import EmailMessage
from capnweb_py.remote import Env
from proxy_server import platform_env
from proxy_server.config import ConfigError
from proxy_server.overlays import found

pytestmark = pytest.mark.anyio

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


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The connection string of a server that has the same file."""
    with serving(project(tmp_path / "server")) as server:
        yield server.url


@pytest.mark.parametrize("channel", ["http", "rpc"])
async def test_one_word_of_the_file_changes_nothing_that_the_program_is_told(
    channel: Channel, tmp_path: Path, url: str
) -> None:
    async with platform_env(project(tmp_path / "local"), channel=channel) as env:
        here = await program(env)
    config = project(tmp_path / "remote", FILE.replace("false", "true"))
    async with platform_env(config, connection_string=url, channel=channel) as env:
        there = await program(env)
    assert not (tmp_path / "remote" / ".capnweb").exists(), "nothing of it was here"
    assert here["dir"] == NAMES
    assert here["use_queue"][0] == [(0, 1), (1, 1)], "max_batch_size is that of the consumer"
    for part, answers in here.items():
        assert there[part] == answers


# What cannot be had


ALWAYS_REMOTE: Final = """{
    "ai": {"binding": "AI"},
    "vectorize": [{"binding": "INDEX", "index_name": "i", "remote": true}],
    "browser": {"binding": "BROWSER", "remote": true},
    "services": [{"binding": "AUTH", "service": "auth", "remote": true}],
    "durable_objects": {"bindings": [{"name": "COUNTER", "class_name": "Counter"}]},
    "kv_namespaces": [{"binding": "CACHE", "id": "0123"}],
}"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("AI", 'ai: the binding "AI" is Workers AI, .* CAPNWEB_PROXY.*serve" prints, or add .*url'),
        ("INDEX", r"vectorize\[0\]: the binding \"INDEX\" is a Vectorize index, .* CAPNWEB_PROXY"),
        ("BROWSER", 'browser: the binding "BROWSER" is a browser, .* CAPNWEB_PROXY'),
        ("AUTH", r"services\[0\]: the service \"AUTH\" names a Worker, .* CAPNWEB_PROXY.*platform_env\(services="),
        ("COUNTER", r"durable_objects.bindings\[0\]: the binding \"COUNTER\" is a Durable Object, .* add .*type"),
    ],
)
async def test_a_program_starts_without_what_is_always_remote(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CAPNWEB_PROXY", raising=False)
    async with platform_env(project(tmp_path, ALWAYS_REMOTE)) as env:
        await env.CACHE.put("k", "v")
        assert dir(env) == ["CACHE"]
        with pytest.raises(RuntimeError, match=f"the binding '{name}' cannot be used here: {said}"):
            _ = env[name]
    assert "not to be used here: AI, AUTH, BROWSER, COUNTER, INDEX: using one says why" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "AI",
            "nothing remote is reached here: pass platform_env(remote=True), in pytest's configuration capnweb_remote",
        ),
        ("AUTH", "in pytest the fixture capnweb_services"),
    ],
)
async def test_where_nothing_remote_is_reached_the_remedy_is_another(name: str, said: str, tmp_path: Path) -> None:
    async with platform_env(project(tmp_path, ALWAYS_REMOTE), remote=False, connection_string="http://a/") as env:
        with pytest.raises(RuntimeError) as raised:
            _ = env[name]
    assert said in str(raised.value)
    assert "say that it is remote" not in str(raised.value)


async def test_what_is_not_understood_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = """{"kv_namespace": [{"binding": "CACHE", "id": "0123"}]}"""
    async with platform_env(project(tmp_path, text)) as env:
        with pytest.raises(RuntimeError, match='did you mean "kv_namespaces"'):
            _ = env.CACHE
    assert 'wrangler.jsonc: kv_namespace: no such key is known here: did you mean "kv_namespaces"?' in caplog.text


# Variables


VARIABLES: Final = """{
    "vars": {"A": "config", "B": "config", "N": 1},
    "images": {"binding": "IMAGES"},
    "env": {"staging": {"vars": {"A": "staging"}}},
}"""


async def variables(config: Path, environment: str | None = None) -> dict[str, Any]:
    async with platform_env(config, environment=environment) as env:
        return {name: env[name] for name in dir(env) if name != "IMAGES"}


async def test_variables_are_part_of_the_env(tmp_path: Path) -> None:
    config = project(tmp_path, VARIABLES)
    assert await variables(config) == {"A": "config", "B": "config", "N": 1}
    assert await variables(config, "staging") == {"A": "staging"}


async def test_dev_vars_come_over_them(tmp_path: Path) -> None:
    config = project(tmp_path, VARIABLES)
    (tmp_path / ".dev.vars").write_text("A=secret # of mine\nTOKEN='a$b'\nIMAGES=no binding\n")
    (tmp_path / ".env").write_text("B=not read where there are .dev.vars\n")
    assert await variables(config) == {"A": "secret", "B": "config", "N": 1, "TOKEN": "a$b"}
    async with platform_env(config) as env:
        assert env.IMAGES is not None
        assert not isinstance(env.IMAGES, str), "a binding stays one"
    (tmp_path / ".dev.vars.staging").write_text("TOKEN=staging\n")
    assert await variables(config, "staging") == {"A": "staging", "TOKEN": "staging"}


async def test_env_files_are_read_where_there_are_no_dev_vars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = project(tmp_path, VARIABLES)
    for name, text in [
        (".env", "A=env\nHOST=a.example"),
        (".env.local", "B=local\nURL=https://${HOST}/"),
        (".env.staging", "B=staging"),
    ]:
        (tmp_path / name).write_text(text)
    url = "https://a.example/"
    assert await variables(config) == {"A": "env", "B": "local", "N": 1, "HOST": "a.example", "URL": url}
    assert await variables(config, "staging") == {"A": "env", "B": "staging", "HOST": "a.example", "URL": url}
    monkeypatch.setenv("CLOUDFLARE_LOAD_DEV_VARS_FROM_DOT_ENV", "false")
    assert await variables(config) == {"A": "config", "B": "config", "N": 1}


async def test_secrets_that_are_required_are_the_only_ones_that_files_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path, """{"vars": {"A": "config"}, "secrets": {"required": ["TOKEN", "KEY"]}}""")
    monkeypatch.setenv("KEY", "of the process")
    (tmp_path / ".env").write_text("A=env\nTOKEN=t\nELSE=e\n")
    assert await variables(config) == {"A": "env", "TOKEN": "t", "KEY": "of the process"}


async def test_a_file_of_variables_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = project(tmp_path, VARIABLES)
    (tmp_path / ".dev.vars").write_bytes(b"A=\xff")
    with pytest.raises(ConfigError, match=r"\.dev\.vars: the file cannot be read"):
        await variables(config)


# One file for both ends


async def test_overlays_of_both_ends_of_one_file_are_two(tmp_path: Path) -> None:
    declared = '{"binding": "CACHE", "id": "1", "remote": true, "access": "overlay"}'
    config = project(tmp_path, f'{{"kv_namespaces": [{declared}]}}')
    with serving(config) as server:
        async with platform_env(config, connection_string=server.url) as env:
            await env.CACHE.put("k", "mine")
        async with platform_env(config, connection_string=server.url, state_dir=tmp_path / "other") as env:
            assert await env.CACHE.get("k") is None, "the server has not seen it"
            await env.CACHE.put("k", "of another program")
        async with platform_env(config, connection_string=server.url) as env:
            assert await env.CACHE.get("k") == "mine"
    kept = found(tmp_path / ".capnweb")
    assert [overlay.path.parent.name for overlay in kept] == [".capnweb", "remote"]


def test_a_server_says_what_it_did_not_understand_and_what_it_does_not_serve(tmp_path: Path) -> None:
    text = """{
        "images": {"binding": "IMAGES"},
        "kv_namespace": [{"binding": "CACHE", "id": "0123"}],
        "ai": {"binding": "AI"},
    }"""
    with serving(project(tmp_path, text)) as server:
        said = [server.stderr.readline() for _ in range(3)]
    assert said[0].startswith("warning: kv_namespace: no such key is known here")
    assert said[1].startswith('warning: not served: ai: the binding "AI" is Workers AI')
    assert said[2].startswith("warning: not served: kv_namespace: no such key is known here")
