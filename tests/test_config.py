"""The proxy's configuration: what it may hold, and that a mistake is one line: file, key, what is valid."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from capnweb_py.web import Request
from proxy_server.bindings import Binding, BindingError
from proxy_server.bindings.asgi import AsgiService
from proxy_server.bindings.peer import Peer
from proxy_server.bindings.service import RpcService
from proxy_server.bindings.upstream import Upstream
from proxy_server.config import Config, ConfigError, ConnectionLimits, load
from proxy_server.jsonc import parse_jsonc
from proxy_server.wrangler import WranglerFile, read_wrangler

pytestmark = pytest.mark.anyio

TARGETS = """
    from functools import partial
    from capnweb_py.target import RpcTarget

    class Greeter(RpcTarget):
        def hello(self, name): return f"Hello, {name}!"

    class NeedsMore(RpcTarget):
        def __init__(self, name): pass

    class Application:
        async def __call__(self, scope, receive, send): pass

    class Plain:
        def hello(self, name): return f"Hello, {name}!"

    def make(): return Greeter()
    def make_number(): return 5
    async def make_later(): return Greeter()
    async def app(scope, receive, send): pass
    def wrapped(*arguments): return app(*arguments)
    instance = Application()
    partial_app = partial(app)
    greeter = Greeter()
"""


@pytest.fixture(autouse=True)
def _fresh_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("targets"):
            del sys.modules[name]


def write(directory: Path, text: str, name: str = "capnweb.toml") -> Path:
    (directory / "targets.py").write_text(textwrap.dedent(TARGETS))
    path = directory / name
    path.write_text(textwrap.dedent(text))
    return path


def read(directory: Path, text: str, name: str = "capnweb.toml") -> Config:
    return load(write(directory, text, name))


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Binding]:
    """The binding S of a configuration, open."""
    async with anyio.create_task_group() as tasks:
        binding = await config.bindings["S"].open(tasks)
        yield binding
        await binding.aclose()
        tasks.cancel_scope.cancel()


def mistake(directory: Path, text: str, name: str = "capnweb.toml") -> str:
    """The message of the error, without the file, which it has to begin with."""
    path = write(directory, text, name)
    with pytest.raises(ConfigError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def service(target: str, more: str = "") -> str:
    return f'[bindings.S]\ntype = "service"\ntarget = "{target}"\n{more}'


# [server]


def test_an_empty_file_has_the_defaults(tmp_path: Path) -> None:
    server = read(tmp_path, "").server
    assert (server.host, server.port, server.secret) == ("127.0.0.1", 8787, None)
    assert server.state_dir == tmp_path / ".capnweb"
    assert server.allowed_origins == frozenset()


def test_the_server_table_is_read_and_its_path_is_relative_to_the_file(tmp_path: Path) -> None:
    text = """
        [server]
        host = "::1"
        port = 0
        state_dir = "../state"
        secret = "0123456789abcdefghijkl"
        allowed_origins = ["https://a.example", "http://localhost:5173"]
    """
    server = read(tmp_path, text).server
    assert (server.host, server.port, server.secret) == ("::1", 0, "0123456789abcdefghijkl")
    assert server.state_dir.resolve() == tmp_path.parent / "state"
    assert server.allowed_origins == {"https://a.example", "http://localhost:5173"}
    assert "0123456789" not in repr(server)


def test_the_server_table_says_what_connections_may_ask_for(tmp_path: Path) -> None:
    assert read(tmp_path, "").server.connections == ConnectionLimits()
    text = "[server]\nhead_timeout = 1\nbody_timeout = 2\nmax_connections = 3\nmax_connections_per_address = 4"
    assert read(tmp_path, text).server.connections == ConnectionLimits(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1", 'server.prot: unknown key: did you mean "port"?'),
        ("[serve]", 'serve: unknown key: did you mean "server"?'),
        (
            "[server]\nzzz = 1",
            "server.zzz: unknown key: known here: allowed_origins, body_timeout, drain_timeout, head_timeout, host,"
            " max_connections, max_connections_per_address, max_sessions, port, secret, state_dir",
        ),
        ('[server]\nport = "1"', "server.port: an integer is needed here, and this is a string"),
        ("[server]\nport = true", "server.port: an integer is needed here, and this is true or false"),
        ("[server]\nport = 65536", "server.port: 65536 is out of range: 0 to 65535 are valid"),
        ('[server]\nhost = ""', "server.host: the string is empty"),
        ("server = 1", "server: a table is needed here, and this is an integer"),
        (
            '[server]\nsecret = "short"',
            'server.secret: at least 22 letters, digits, "-" and "_" are needed here',
        ),
        (
            '[server]\nallowed_origins = ["https://a.example/"]',
            'server.allowed_origins: "https://a.example/" is no origin: '
            'a scheme and a host, such as "https://example.com", are one',
        ),
        (
            "[server]\nallowed_origins = [1]",
            "server.allowed_origins[0]: a string is needed here, and this is an integer",
        ),
    ],
)
def test_a_mistake_in_the_server_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert mistake(tmp_path, text) == message


def test_a_secret_is_not_repeated_in_the_error_about_it(tmp_path: Path) -> None:
    assert "hunter" not in mistake(tmp_path, '[server]\nsecret = "hunter two"')


# Files


def test_a_file_that_is_missing_or_malformed_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml: the file cannot be read: No such file"):
        load(missing)
    assert "not valid TOML" in mistake(tmp_path, "a = ")
    assert "not valid JSON with comments" in mistake(tmp_path, '{"a"}', "wrangler.jsonc")
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"binary\.toml: the file is not UTF-8"):
        load(tmp_path / "binary.toml")


# [bindings]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bindings = 1", "bindings: a table is needed here, and this is an integer"),
        ("[bindings]\nA = 1", "bindings.A: a table is needed here, and this is an integer"),
        ("[bindings.A]", 'bindings.A: the key "type" is missing, with a string as its value'),
        (
            '[bindings.A]\ntype = "servce"',
            'bindings.A.type: "servce" is no type of binding: did you mean "service"?',
        ),
        (
            '[bindings."a b"]\ntype = "service"',
            "bindings.a b: a binding is named in printable ASCII without spaces",
        ),
        (
            '[bindings.A]\ntype = "service"',
            'bindings.A: the key "target" is missing, with a string as its value',
        ),
        (service("targets:Greeter", "tarhet = 1"), 'bindings.S.tarhet: unknown key: did you mean "target"?'),
        (
            service("targets:Greeter", 'kind = "x"'),
            'bindings.S.kind: "x" is no kind of service: "rpc" and "asgi" are',
        ),
    ],
)
def test_a_mistake_in_a_binding_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert mistake(tmp_path, text) == message


@pytest.mark.parametrize(
    ("target", "more", "kind"),
    [
        ("targets:Greeter", "", RpcService),
        ("targets:make", "", RpcService),
        ("targets:make", 'kind = "rpc"', RpcService),
        ("targets:app", "", AsgiService),
        ("targets:instance", "", AsgiService),
        ("targets:partial_app", "", AsgiService),
        ("targets:wrapped", 'kind = "asgi"', AsgiService),
        ("http://127.0.0.1:1/a", "", Upstream),
        ("https://example.com", "", Upstream),
        ("ws://127.0.0.1:1/a", "", Peer),
    ],
)
async def test_a_target_becomes_the_binding_that_it_is(tmp_path: Path, target: str, more: str, kind: type) -> None:
    async with opened(read(tmp_path, service(target, more))) as binding:
        assert type(binding) is kind


async def test_a_factory_that_makes_no_target_is_named(tmp_path: Path) -> None:
    async with opened(read(tmp_path, service("targets:make_number"))) as binding:
        with pytest.raises(BindingError, match='"targets:make_number" made no RpcTarget but an instance of int'):
            binding.rpc_main()
        with pytest.raises(BindingError, match="made no RpcTarget"):
            await binding.fetch(Request("https://a.example/"))


def test_a_name_that_a_large_module_does_not_have_is_answered_in_few_words(tmp_path: Path) -> None:
    error = mistake(tmp_path, service("os:Qqqqqqq"))
    assert re.fullmatch(
        r'bindings.S.target: "os:Qqqqqqq" cannot be imported: there is no "Qqqqqqq": none of the \d+ names there '
        "resembles it",
        error,
    )


async def test_each_session_has_a_target_of_its_own(tmp_path: Path) -> None:
    async with opened(read(tmp_path, service("targets:Greeter"))) as binding:
        assert binding.rpc_main() is not binding.rpc_main()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("targets", '"targets" is no target: "module:name" is'),
        ("targets:", '"targets:" is no target'),
        ("nowhere.at_all:X", '"nowhere.at_all:X" cannot be imported: there is no module "nowhere"'),
        ("targets:Greter", 'cannot be imported: there is no "Greter": did you mean "Greeter"?'),
        (
            "targets:greeter",
            "is an instance of Greeter: name an RpcTarget class, or a function that makes a target",
        ),
        ("targets:make_later", "is a coroutine function"),
        ("targets:Plain", "is a class, and no RpcTarget: derive it from capnweb_py.RpcTarget"),
        ("targets:NeedsMore", "needs arguments: a factory takes none"),
        ("ftp://a/", "URLs with ftp: are not served: http:, https:, ws: and wss: are"),
        ("http://", "it names no host"),
        ("http://u:p@a/", "no credentials"),
        ("http://a/?q", "no query"),
    ],
)
def test_a_target_that_cannot_be_served_is_named(tmp_path: Path, target: str, message: str) -> None:
    error = mistake(tmp_path, service(target))
    assert error.startswith("bindings.S.target: ")
    assert message in error


@pytest.mark.parametrize(
    ("name", "code", "raised"),
    [
        ("targets_broken", "raise RuntimeError('first\\nsecond')", "RuntimeError: first second"),
        ("targets_program", "import sys; sys.exit('no arguments')", "SystemExit: no arguments"),
    ],
)
def test_a_module_that_fails_to_import_is_named_with_its_error(
    tmp_path: Path, name: str, code: str, raised: str
) -> None:
    (tmp_path / f"{name}.py").write_text(code)
    assert f"importing {name} raised {raised}" in mistake(tmp_path, service(f"{name}:X"))


def test_a_type_whose_package_is_not_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "proxy_server.bindings.images", None)
    assert "install capnweb-py[images]" in mistake(tmp_path, '[bindings.I]\ntype = "images"')


# Wrangler's files


def test_json_with_comments_is_json() -> None:
    text = """{
        // a comment, with a "string"
        "a": "// no comment", /* one, over
        two lines */ "b": [1, 2, /* last */ ], "c": "\\",]",
    }"""
    assert parse_jsonc(text) == {"a": "// no comment", "b": [1, 2], "c": '",]'}


def from_wrangler(document: dict[str, Any], environment: str | None = None) -> WranglerFile:
    return read_wrangler(document, Path("wrangler.jsonc"), environment)


def wrangler_mistake(document: dict[str, Any], environment: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        from_wrangler(document, environment)
    return str(caught.value).removeprefix("wrangler.jsonc: ")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"services": [{}]}, 'services[0]: a table with the key "binding", a name, is needed here'),
        ({"send_email": [{"binding": "A"}]}, 'send_email[0]: a table with the key "name", a name, is needed here'),
        ({"services": {}}, "services: an array is needed here"),
        ({"services": [1]}, "services[0]: a table is needed here"),
        ({"queues": []}, "queues: a table is needed here"),
        ({"queues": {"producers": {}}}, "queues.producers: an array is needed here"),
        ({"images": {}}, 'images: a table with the key "binding", a name, is needed here'),
        ({"images": []}, "images: a table is needed here"),
        (
            {"images": {"binding": "A"}, "kv_namespaces": [{"binding": "A"}]},
            'images: the name "A" is taken by another binding',
        ),
        (
            {"images": {"binding": "IMAGES"}, "capnweb": {"bindings": {"IMAGE": {}}}},
            "capnweb.bindings.IMAGE: the file declares no such binding, and one of its own needs a type: did"
            ' you mean "IMAGES"?',
        ),
        ({"capnweb": 1}, "capnweb: a table is needed here"),
    ],
)
def test_a_mistake_in_a_wrangler_file_is_named(document: dict[str, Any], message: str) -> None:
    assert wrangler_mistake(document) == message


def test_a_wrangler_toml_is_read_as_one(tmp_path: Path) -> None:
    text = """
        name = "worker"
        main = "src/index.ts"
        [[services]]
        binding = "AUTH"
        service = "auth-worker"
    """
    assert 'add [capnweb.bindings.AUTH] with target = "module:Class"' in mistake(tmp_path, text, "wrangler.toml")
    json_text = """{"services": [{"binding": "AUTH", "service": "auth-worker"}]}"""
    said = mistake(tmp_path, json_text, "wrangler.jsonc")
    assert said.endswith(': add {"capnweb": {"bindings": {"AUTH": {"target": "module:Class"}}}}')


def test_stores_of_a_wrangler_file_are_named_by_their_ids() -> None:
    file = from_wrangler(
        {
            "name": "worker",
            "kv_namespaces": [{"binding": "CACHE", "id": "0123", "preview_id": "4567"}],
            "r2_buckets": [{"binding": "ASSETS", "bucket_name": "assets"}],
            "d1_databases": [{"binding": "DB", "database_name": "app", "database_id": "89ab"}],
            "queues": {"producers": [{"binding": "JOBS", "queue": "jobs"}]},
            "images": {"binding": "IMAGES"},
        }
    )
    assert file.document["bindings"] == {
        "CACHE": {"type": "kv_namespace", "id": "0123"},
        "ASSETS": {"type": "r2_bucket", "bucket_name": "assets"},
        "DB": {"type": "d1", "id": "89ab"},
        "JOBS": {"type": "queue", "queue": "jobs"},
        "IMAGES": {"type": "images"},
    }
    assert file.elsewhere == {}


def test_what_a_consumer_says_is_said_of_its_queue() -> None:
    queues = {
        "producers": [{"binding": "JOBS", "queue": "jobs", "delivery_delay": 5}, {"binding": "LOG", "queue": "log"}],
        "consumers": [
            {"queue": "jobs", "max_batch_size": 10, "max_retries": 3, "dead_letter_queue": "dead"},
            {"queue": "else"},
        ],
    }
    assert from_wrangler({"queues": queues}).document["bindings"] == {
        "JOBS": {
            "type": "queue",
            "queue": "jobs",
            "delivery_delay": 5,
            "max_retries": 3,
            "dead_letter_queue": "dead",
            "max_batch_size": 10,
        },
        "LOG": {"type": "queue", "queue": "log"},
    }


def test_remote_is_a_word_of_wranglers_too() -> None:
    file = from_wrangler({"images": {"binding": "IMAGES", "remote": True}})
    assert file.document["bindings"] == {"IMAGES": {"type": "images", "remote": True}}


@pytest.mark.parametrize(
    ("key", "declared", "kind", "remote", "title"),
    [
        ("ai", {"binding": "A"}, "ai", True, "Workers AI"),
        ("vectorize", [{"binding": "A", "index_name": "i"}], "vectorize", False, "a Vectorize index"),
        ("browser", {"binding": "A"}, "browser", False, "a browser"),
        (
            "mtls_certificates",
            [{"binding": "A", "certificate_id": "c"}],
            "mtls_certificate",
            False,
            "an mTLS certificate",
        ),
        ("pipelines", [{"binding": "A", "pipeline": "p"}], "pipeline", False, "a pipeline"),
        ("media", {"binding": "A"}, "media", True, "Media Transformations"),
        ("stream", {"binding": "A"}, "stream", False, "Cloudflare Stream"),
        (
            "ai_search",
            [{"binding": "A", "instance_name": "i"}],
            "ai_search",
            True,
            "an AI Search instance",
        ),
        ("vpc_services", [{"binding": "A", "service_id": "s"}], "vpc_service", True, "a VPC service"),
        ("hyperdrive", [{"binding": "A", "id": "h"}], "hyperdrive", False, "a Hyperdrive configuration"),
        (
            "dispatch_namespaces",
            [{"binding": "A", "namespace": "n"}],
            "dispatch_namespace",
            False,
            "a dispatch namespace",
        ),
    ],
)
def test_what_has_no_counterpart_here_says_so(key: str, declared: Any, kind: str, remote: bool, title: str) -> None:
    file = from_wrangler({key: declared})
    binding = file.document["bindings"]["A"]
    assert (binding["type"], binding.get("remote", False)) == (kind, remote)
    assert file.elsewhere["A"].why.endswith(f'the binding "A" is {title}, which has no counterpart here')


def test_what_is_always_remote_is_not_where_the_file_says_what_it_is_here() -> None:
    own = {"bindings": {"AI": {"url": "http://127.0.0.1:11434"}}}
    file = from_wrangler({"ai": {"binding": "AI"}, "capnweb": own})
    assert file.document["bindings"]["AI"] == {"type": "ai", "url": "http://127.0.0.1:11434"}
    assert not file.elsewhere
    file = from_wrangler({"ai": {"binding": "AI", "remote": True}, "capnweb": own})
    assert file.document["bindings"]["AI"]["remote"] is True


# A declaration under each key that there is no type of binding for, and the name that it declares.
UNKNOWN_HERE: Final[Mapping[str, Any]] = {
    "durable_objects": {"bindings": [{"name": "A", "class_name": "A"}]},
    "workflows": [{"binding": "A", "name": "w", "class_name": "W"}],
    "analytics_engine_datasets": [{"binding": "A", "dataset": "d"}],
    "secrets_store_secrets": [{"binding": "A", "store_id": "s", "secret_name": "n"}],
    "version_metadata": {"binding": "A"},
    "assets": {"binding": "A", "directory": "public"},
    "ratelimits": [{"name": "A", "namespace_id": "1", "simple": {"limit": 1, "period": 10}}],
    "worker_loaders": [{"binding": "A"}],
    "unsafe": {"bindings": [{"name": "A", "type": "magic", "spell": 1}]},
    "text_blobs": {"A": "a.txt"},
}


@pytest.mark.parametrize("key", UNKNOWN_HERE)
def test_what_there_is_no_type_for_is_named(key: str) -> None:
    file = from_wrangler({key: UNKNOWN_HERE[key]})
    assert file.document["bindings"] == {}
    assert "which there is no type of binding for here: add " in str(file.elsewhere["A"])
    assert not file.warnings


def test_assets_without_a_binding_are_none() -> None:
    assert not from_wrangler({"assets": {"directory": "public"}}).elsewhere


def test_a_table_with_a_type_is_a_binding_of_its_own() -> None:
    """In place of what there is no type for, and beside what Wrangler knows, such as the queue of a consumer."""
    bindings = {"COUNTER": {"type": "service", "target": "counter:Counter"}, "JOBS": {"type": "queue", "queue": "jobs"}}
    file = from_wrangler(
        {
            "durable_objects": {"bindings": [{"name": "COUNTER", "class_name": "Counter"}]},
            "queues": {"consumers": [{"queue": "jobs", "max_batch_size": 20}]},
            "capnweb": {"bindings": bindings},
        }
    )
    assert file.document["bindings"] == {
        "COUNTER": {"type": "service", "target": "counter:Counter"},
        "JOBS": {"type": "queue", "queue": "jobs", "max_batch_size": 20},
    }
    assert not file.elsewhere


@pytest.mark.parametrize(
    ("document", "warning"),
    [
        (
            {"kv_namespace": [{"binding": "A", "id": "1"}]},
            'kv_namespace: no such key is known here: did you mean "kv_namespaces"?: it is passed over',
        ),
        ({"queue": {"producers": []}}, 'queue: no such key is known here: did you mean "queues"?: it is passed over'),
        ({"d1": [{"binding": "A"}]}, "d1: no such key is known here: it is passed over"),
        (
            {"r2_buckets": [{"binding": "A", "bucket": "b"}]},
            'r2_buckets[0].bucket: unknown key, which is passed over: did you mean "bucket_name"?',
        ),
        (
            {"images": {"binding": "I", "Remote": True}},
            'images.Remote: unknown key, which is passed over: did you mean "remote"?',
        ),
    ],
)
def test_a_key_that_is_not_understood_is_a_warning(document: dict[str, Any], warning: str) -> None:
    assert from_wrangler(document).warnings == (warning,)


def test_a_binding_under_a_misspelled_key_is_named() -> None:
    file = from_wrangler({"kv_namespace": [{"binding": "CACHE", "id": "1"}]})
    assert 'did you mean "kv_namespaces"?' in str(file.elsewhere["CACHE"])


def test_the_remote_of_old_is_refused() -> None:
    """Passed over, it would be a local binding, which it was not meant to be."""
    declared = {"binding": "CACHE", "id": "1", "experimental_remote": True}
    said = wrangler_mistake({"kv_namespaces": [declared]})
    assert said == 'kv_namespaces[0].experimental_remote: Wrangler calls it "remote" by now: write that'


def test_the_rest_of_a_wrangler_file_is_passed_over() -> None:
    document = {
        "$schema": "node_modules/wrangler/config-schema.json",
        "name": "worker",
        "main": "src/index.ts",
        "limits": {"cpu_ms": 10},
        "migrations": [{"tag": "v1", "new_classes": ["A"]}],
        "keep_vars": True,
        "route": {"pattern": "a.example"},
        "env": {},
    }
    assert from_wrangler(document) == WranglerFile({"bindings": {}}, {})


def test_what_an_environment_does_not_inherit_is_a_warning() -> None:
    document = {"vars": {"A": 1}, "images": {"binding": "I"}, "env": {"staging": {"images": {"binding": "I"}}}}
    file = from_wrangler(document, "staging")
    assert file.warnings == ("vars: it is not inherited by environments, and env.staging.vars is missing",)
    assert not from_wrangler(document).warnings


def test_variables_and_required_secrets() -> None:
    document = {
        "vars": {"A": "a", "B": {"c": [1]}},
        "secrets": {"required": ["TOKEN"]},
        "env": {"staging": {"vars": {"A": "staging"}}},
    }
    file = from_wrangler(document)
    assert (file.variables, file.secrets) == ({"A": "a", "B": {"c": [1]}}, ("TOKEN",))
    staging = from_wrangler(document, "staging")
    assert (staging.variables, staging.secrets) == ({"A": "staging"}, None)
    taken = {"images": {"binding": "A"}, "vars": {"A": 1}}
    assert wrangler_mistake(taken) == 'vars.A: the name "A" is taken by a binding'


def test_the_environment_may_be_that_of_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """{"env": {"staging": {"images": {"binding": "I"}}, "other": {}}}"""
    config = write(tmp_path, text, "wrangler.jsonc")
    monkeypatch.setenv("CLOUDFLARE_ENV", "staging")
    assert list(load(config).bindings) == ["I"]
    assert list(load(config, "other").bindings) == []


def test_what_wrangler_has_no_word_for_stands_in_a_table_of_its_own() -> None:
    file = from_wrangler(
        {
            "services": [{"binding": "AUTH", "service": "auth"}, {"binding": "PAY", "service": "pay"}],
            "kv_namespaces": [{"binding": "CACHE", "id": "1"}],
            "capnweb": {
                "server": {"state_dir": "state"},
                "bindings": {"AUTH": {"target": "auth:Auth"}, "CACHE": {"access": "overlay"}, "PAY": {"remote": True}},
            },
        }
    )
    assert file.document["server"] == {"state_dir": "state"}
    assert file.document["bindings"]["AUTH"] == {"type": "service", "target": "auth:Auth"}
    assert file.document["bindings"]["CACHE"] == {"type": "kv_namespace", "id": "1", "access": "overlay"}
    assert list(file.elsewhere) == ["PAY"], "that it is remote does not say what it is here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"kv_namespaces": [{"binding": "A", "remote": 1}]', "kv_namespaces[0].remote: true or false is needed here"),
        ('"kv_namespaces": [{"binding": "A", "id": 5}]', "kv_namespaces[0].id: a string is needed here"),
        (
            '"d1_databases": [{"binding": "A", "database_id": 5}]',
            "d1_databases[0].database_id: a string is needed here",
        ),
        (
            '"queues": {"producers": [{"binding": "A", "queue": "q"}],'
            ' "consumers": [{"queue": "q", "max_retries": "x"}]}',
            "queues.consumers[0].max_retries: an integer is needed here",
        ),
        ('"capnweb": {"bindings": {"A": {"type": "magic"}}}', 'capnweb.bindings.A.type: "magic" is no type of binding'),
        (
            '"kv_namespaces": [{"bindin": "A"}]',
            'kv_namespaces[0]: a table with the key "binding", a name, is needed here: is "bindin" meant to be it?',
        ),
    ],
)
def test_a_mistake_in_a_wrangler_file_is_found_where_it_stands(text: str, message: str, tmp_path: Path) -> None:
    assert mistake(tmp_path, f"{{{text}}}", "wrangler.jsonc").startswith(message)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ('"sever": {}', 'capnweb.sever: unknown key: did you mean "server"?'),
        ('"server": {"prt": 1}', 'capnweb.server.prt: unknown key: did you mean "port"?'),
        ('"bindings": {"I": {"x": 1}}', "capnweb.bindings.I.x: unknown key: "),
    ],
)
def test_a_mistake_in_that_table_is_named(own: str, message: str, tmp_path: Path) -> None:
    text = f'{{"images": {{"binding": "I"}}, "capnweb": {{{own}}}}}'
    assert mistake(tmp_path, text, "wrangler.jsonc").startswith(message)


def test_an_access_beside_what_wrangler_knows_counts() -> None:
    """Passed over, it would let a program write to what it was to be kept from."""
    declared = {"binding": "CACHE", "id": "1", "remote": True, "access": "read"}
    file = from_wrangler({"kv_namespaces": [declared]})
    assert file.document["bindings"]["CACHE"] == {"type": "kv_namespace", "id": "1", "remote": True, "access": "read"}


def test_the_bindings_of_an_environment_are_its_own() -> None:
    document = {
        "images": {"binding": "IMAGES"},
        "capnweb": {"server": {"state_dir": "state"}},
        "env": {
            "staging": {"kv_namespaces": [{"binding": "CACHE", "id": "staging"}]},
            "bad": {"services": [{}]},
            "own": {"capnweb": {"server": {"state_dir": "other"}}},
        },
    }
    staging = from_wrangler(document, "staging").document
    assert staging == {
        "bindings": {"CACHE": {"type": "kv_namespace", "id": "staging"}},
        "server": {"state_dir": "state"},
    }
    assert from_wrangler(document, "own").document["server"] == {"state_dir": "other"}
    assert wrangler_mistake(document, "bad").startswith("env.bad.services[0]: ")
    assert wrangler_mistake(document, "stagin") == ('env: there is no environment "stagin": did you mean "staging"?')


def test_what_is_laid_over_a_binding_that_an_environment_does_not_have_is_passed_over() -> None:
    services = [{"binding": "AUTH", "service": "auth"}]
    own = {"bindings": {"AUTH": {"target": "auth:Auth"}, "JOBS": {"type": "queue"}}}
    document = {"services": services, "capnweb": own, "env": {"staging": {}, "other": {"services": services}}}
    assert from_wrangler(document, "staging").document["bindings"] == {"JOBS": {"type": "queue"}}
    other = from_wrangler(document, "other").document["bindings"]
    assert other == {"AUTH": {"type": "service", "target": "auth:Auth"}, "JOBS": {"type": "queue"}}


def test_an_environment_of_a_file_that_has_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='environments such as "staging" are a matter of Wrangler\'s files'):
        load(write(tmp_path, "[bindings]"), "staging")


def test_what_a_wrangler_file_declares_and_cannot_be_served_does_not_keep_the_rest_from_it(tmp_path: Path) -> None:
    text = """{"images": {"binding": "IMAGES"}, "ai": {"binding": "AI"}}"""
    config = load(write(tmp_path, text, "wrangler.jsonc"))
    assert list(config.bindings) == ["IMAGES"]
    (reason,) = config.unserved
    assert reason.startswith('ai: the binding "AI" is Workers AI')


def test_remote_is_for_programs_and_says_nothing_to_a_server(tmp_path: Path) -> None:
    config = read(tmp_path, '[bindings.I]\ntype = "images"\nremote = true\n[remote]\nconnection_string = "http://a/"')
    assert list(config.bindings) == ["I"]
    assert (
        mistake(tmp_path, '[bindings.I]\ntype = "images"\nremote = "yes"')
        == "bindings.I.remote: true or false is needed here, and this is a string"
    )
