"""A program and its wrangler.jsonc: one word of the file says where a binding is, and the program is told the same.
What Wrangler's own `getPlatformProxy` gives is here, too, or says that it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from proxying import serving
from wrangler_program import FILE, NAMES, program, project

from capnweb_py.bindings.channels import Channel
from proxy_server import platform_env
from proxy_server.config import ConfigError
from proxy_server.overlays import found

pytestmark = pytest.mark.anyio


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
            "this program reaches nothing remote: pass platform_env(remote=True), in pytest set capnweb_remote = true",
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
        said = server.said().splitlines()
    assert said[0].startswith("warning: kv_namespace: no such key is known here")
    assert said[1].startswith('warning: not served: ai: the binding "AI" is Workers AI')
    assert said[2].startswith("warning: not served: kv_namespace: no such key is known here")
