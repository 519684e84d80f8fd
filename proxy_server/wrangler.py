"""Wrangler's own configuration files, read as a capnweb configuration.

Only what declares bindings is looked at: the rest of a Wrangler file configures a Worker, not a proxy. What
Wrangler has no word for stands in a table of this project's, `capnweb`, which Wrangler passes over: its `server` and
`remote` are those of a capnweb configuration, and a table under its `bindings` is laid over that of the binding of this
name.

The keys are those of Wrangler's documentation ("Configuration", section "Bindings").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from proxy_server.tables import ConfigError, suggestion

__all__ = ["WranglerFile", "is_wrangler_file", "parse_jsonc", "read_wrangler"]

# The key of a Wrangler file for what only this project knows.
OWN_KEY: Final = "capnweb"


@attrs.frozen
class _Kind:
    """What a key of a Wrangler file declares.

    Attributes:
        kind: the type of the binding here.
        title: what people call such a binding.
        keys: which of Wrangler's keys become which here.
        alone: whether the key holds one table, and not an array of them.
        name: the key that names the binding.
        needs: what the `capnweb` table has to say before there is such a binding here; None where nothing.
        always_remote: whether Wrangler's development servers use the real one even where nothing says `remote`.
    """

    kind: str
    title: str
    keys: Mapping[str, str] = {}
    alone: bool = False
    name: str = "binding"
    needs: str | None = None
    always_remote: bool = False


_TARGET: Final = 'target = "module:Class"'
_URL: Final = 'url = "https://..."'
_ADDRESS: Final = 'allow = ["host:port"]'

# What a queue's consumer says, and is the queue's here.
_CONSUMER_KEYS: Final = ("max_retries", "dead_letter_queue", "retry_delay", "visibility_timeout_ms")

# What of a table of `capnweb.bindings` says nothing of how a binding is to be had here.
_SAYING_NOTHING: Final = frozenset({"remote", "access"})

# By the path of the key in the file.
_KINDS: Final[Mapping[str, _Kind]] = {
    "kv_namespaces": _Kind("kv_namespace", "a KV namespace", {"id": "id"}),
    "r2_buckets": _Kind("r2_bucket", "an R2 bucket", {"bucket_name": "bucket_name"}),
    "d1_databases": _Kind("d1", "a D1 database", {"database_id": "id"}),
    "queues.producers": _Kind("queue", "a queue", {"queue": "queue", "delivery_delay": "delivery_delay"}),
    "images": _Kind("images", "an images binding", alone=True),
    "services": _Kind("service", "a service", needs=_TARGET),
    "send_email": _Kind(
        "send_email",
        "an e-mail binding",
        {key: key for key in ("destination_address", "allowed_destination_addresses", "allowed_sender_addresses")},
        name="name",
    ),
    "dispatch_namespaces": _Kind("dispatch_namespace", "a dispatch namespace", needs="a table of services"),
    "vpc_services": _Kind("vpc_service", "a VPC service", needs=_ADDRESS),
    "vpc_networks": _Kind("vpc_network", "a VPC network", needs=_ADDRESS),
    "hyperdrive": _Kind("hyperdrive", "a Hyperdrive configuration", needs=_ADDRESS),
    "ai": _Kind("ai", "Workers AI", alone=True, needs=_URL, always_remote=True),
    "browser": _Kind("browser", "a browser", alone=True, needs=_URL),
    "vectorize": _Kind("vectorize", "a Vectorize index", needs=_URL, always_remote=True),
    "mtls_certificates": _Kind("mtls_certificate", "an mTLS certificate", needs=_URL),
    "pipelines": _Kind("pipeline", "a pipeline", needs=_URL),
}

# What Wrangler's files declare that is a matter of the Workers runtime's, or of no remote binding, and is passed over:
# vars, durable_objects, workflows, analytics_engine_datasets, version_metadata, assets and others.


@attrs.frozen
class WranglerFile:
    """A Wrangler file as a capnweb configuration.

    Attributes:
        document: the configuration, with the tables `server`, `remote` and `bindings`.
        elsewhere: which of these bindings can only be had from elsewhere, by way of a proxy, with the reason of each.
    """

    document: dict[str, Any]
    elsewhere: Mapping[str, str]


_COMMENT_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])')


def is_wrangler_file(source: Path) -> bool:
    """Whether a file is one of Wrangler's, by its name: wrangler.toml, or JSON, which only Wrangler's are."""
    return source.suffix in {".json", ".jsonc"} or (source.stem.startswith("wrangler") and source.suffix == ".toml")


def parse_jsonc(text: str) -> Any:
    """The value of a JSON document that may have comments and trailing commas.

    Raises:
        json.JSONDecodeError: if it is malformed. Lines and columns are those of the document.
    """
    text = _COMMENT_OR_STRING.sub(_blank_unless_string, text)
    return json.loads(_TRAILING_COMMA_OR_STRING.sub(_blank_unless_string, text))


def _blank_unless_string(match: re.Match[str]) -> str:
    """What is cut out leaves blanks and its line breaks behind, so that errors keep their place."""
    token = match[0]
    return token if token.startswith('"') else re.sub(r"[^\n]", " ", token)


def read_wrangler(document: Mapping[str, Any], source: Path, environment: str | None = None) -> WranglerFile:
    """Read a Wrangler file.

    Args:
        document: the whole file.
        source: the file's path, for errors.
        environment: whose bindings are meant, as of `wrangler --env`; by default those of the top level. Bindings are
            not inherited from the top level, as Wrangler has it; the `capnweb` table is.

    Raises:
        ConfigError: if there is no such environment, or a declaration is not valid.
    """
    place, prefix = _of_environment(document, source, environment)
    own = _table(place.get(OWN_KEY, document.get(OWN_KEY, {})), OWN_KEY, source)
    over = _table(own.get("bindings", {}), f"{OWN_KEY}.bindings", source)
    bindings: dict[str, dict[str, Any]] = {}
    elsewhere: dict[str, str] = {}
    for key, kind in _KINDS.items():
        for path, entry in _entries(place, key, kind, source, prefix):
            name = entry.get(kind.name)
            if not isinstance(name, str) or not name:
                raise ConfigError(source, path, f'a table with the key "{kind.name}", a name, is needed here')
            if name in bindings:
                raise ConfigError(source, path, f'the name "{name}" is taken by another binding')
            added = _table(over.get(name, {}), f"{OWN_KEY}.bindings.{name}", source)
            bindings[name] = _binding(entry, kind, added)
            if kind.needs is not None and not added.keys() - _SAYING_NOTHING:
                elsewhere[name] = _why_elsewhere(name, path, kind)
    for name in over:
        if name not in bindings:
            problem = f"the file declares no such binding: {suggestion(name, bindings)}"
            raise ConfigError(source, f"{OWN_KEY}.bindings.{name}", problem)
    _add_consumers(place, bindings, source, prefix)
    return WranglerFile({**own, "bindings": bindings}, elsewhere)


def _of_environment(
    document: Mapping[str, Any], source: Path, environment: str | None
) -> tuple[Mapping[str, Any], str]:
    """The table that declares the bindings of an environment, and what stands before its keys in errors."""
    if environment is None:
        return document, ""
    environments = _table(document.get("env", {}), "env", source)
    if environment not in environments:
        problem = f'there is no environment "{environment}": {suggestion(environment, environments)}'
        raise ConfigError(source, "env", problem)
    prefix = f"env.{environment}"
    return _table(environments[environment], prefix, source), f"{prefix}."


def _entries(
    place: Mapping[str, Any], key: str, kind: _Kind, source: Path, prefix: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The declarations under a key, each with its path."""
    outer, _, inner = key.rpartition(".")
    if outer:
        place = _table(place.get(outer, {}), prefix + outer, source)
    if inner not in place:
        return
    path = prefix + key
    declared = place[inner]
    if kind.alone:
        yield path, _table(declared, path, source)
        return
    if not isinstance(declared, list):
        raise ConfigError(source, path, "an array is needed here")
    for index, entry in enumerate(declared):
        yield f"{path}[{index}]", _table(entry, f"{path}[{index}]", source)


def _table(value: Any, path: str, source: Path) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(source, path, "a table is needed here")
    return value


def _binding(entry: Mapping[str, Any], kind: _Kind, added: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a binding, as a capnweb configuration has it."""
    table: dict[str, Any] = {
        "type": kind.kind,
        **{ours: entry[theirs] for theirs, ours in kind.keys.items() if theirs in entry},
    }
    if kind.always_remote or "remote" in entry:
        table["remote"] = entry.get("remote", True)
    if "access" in entry:
        # No key of Wrangler's, which passes it over; a person who writes it means it.
        table["access"] = entry["access"]
    return {**table, **added}


def _add_consumers(place: Mapping[str, Any], bindings: Mapping[str, dict[str, Any]], source: Path, prefix: str) -> None:
    """What the consumer of a queue says of it, where the file has a producer of the same one."""
    for _, entry in _entries(place, "queues.consumers", _Kind("queue", "a queue"), source, prefix):
        said = {key: entry[key] for key in _CONSUMER_KEYS if key in entry}
        for binding in bindings.values():
            if binding["type"] == "queue" and binding.get("queue") == entry.get("queue"):
                binding.update({**said, **binding})


def _why_elsewhere(name: str, path: str, kind: _Kind) -> str:
    if kind.kind == "service":
        problem = f'the service "{name}" names a Worker, and Python runs here'
    else:
        problem = f'the binding "{name}" is {kind.title}, which has no counterpart here'
    return f"{path}: {problem}: say remote = true, or [{OWN_KEY}.bindings.{name}] with {kind.needs}"
