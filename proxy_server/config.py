"""The configuration file of the proxy: from its path to checked, frozen values with every target imported.

Nothing is opened here: a binding is left as an `Opener` that app.py calls when the server starts. What a
table of one binding may hold is decided by the module of its type.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from proxy_server.bindings import Declaration, parse_binding
from proxy_server.idle_sessions import MAX_SESSIONS
from proxy_server.jsonc import parse_jsonc
from proxy_server.tables import ConfigError, Table
from proxy_server.wrangler import OWN_KEY, Elsewhere, WranglerFile, is_wrangler_file, read_wrangler

__all__ = [
    "Config",
    "ConfigError",
    "ConnectionLimits",
    "Document",
    "ServerConfig",
    "checked",
    "load",
    "read",
    "read_document",
]

# A fixed secret is one segment of a URL's path, and nobody may guess it: 22 such characters hold 128 bits.
_SECRET: Final = re.compile(r"[A-Za-z0-9_\-]{22,}")

# Less than the ten seconds after which `docker stop` kills.
_DRAIN_TIMEOUT: Final = 8

# A binding's name travels in a header and in a query; these characters need no escape in the first.
_BINDING_NAME: Final = re.compile(r"[!-~]+")

# Names the environment of a Wrangler file where nothing else does, as for Wrangler itself.
ENVIRONMENT_VARIABLE: Final = "CLOUDFLARE_ENV"

# What errors call a configuration that is no file's. It lies in the current directory.
_GIVEN: Final = Path("configuration")

# RFC 6454, section 6.2: what a browser sends as Origin has no path, and no slash at its end.
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.\-]*://[^/?#@\s]+")


@attrs.frozen
class ConnectionLimits:
    """How much connections may ask for.

    Attributes:
        head_timeout: seconds from the first byte of a request to the end of its head; also from the opening of a
            connection, and from an answer that was given early to the end of the request's body.
        body_timeout: seconds in which something of a request's body must come, until the answer begins.
        max_connections: how many connections there may be.
        max_connections_per_address: how many from one IPv4 address, or one IPv6 network of 64 bits.
    """

    head_timeout: int = 20
    body_timeout: int = 60
    max_connections: int = 10_000
    max_connections_per_address: int = 5_000


@attrs.frozen
class ServerConfig:
    """The `[server]` table.

    `secret` is None where each start makes its own. `state_dir` is absolute, and need not exist. `drain_timeout` is how
    many seconds what runs may go on after the signal to stop. `max_sessions` is how many RPC sessions there may be
    before idle ones are closed. `connections` is what peers may ask for before they have shown the secret.
    """

    state_dir: Path
    host: str
    port: int
    secret: str | None = attrs.field(repr=False)
    allowed_origins: frozenset[str]
    drain_timeout: int
    max_sessions: int
    connections: ConnectionLimits


@attrs.frozen
class Document:
    """A configuration whose bindings have not been looked at.

    Attributes:
        server: the table `[server]`.
        connection_string: of `[remote]`: where programs find the bindings that they have from elsewhere.
        tables: those of the bindings, by name.
        elsewhere: which bindings cannot be had here, with the reason of each.
        variables: what a Wrangler file holds under `vars`; None of another file.
        secrets: the names of the secrets that it requires; None where it does not say them.
        environment: of a Wrangler file, the one that was read.
        warnings: what was not understood.
    """

    source: Path
    server: ServerConfig
    connection_string: str | None = attrs.field(repr=False)
    tables: Mapping[str, Table]
    elsewhere: Mapping[str, Elsewhere] = attrs.field(factory=dict)
    variables: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    secrets: tuple[str, ...] | None = None
    environment: str | None = None
    warnings: tuple[str, ...] = ()


@attrs.frozen
class Config:
    """A configuration whose every key has been checked.

    Attributes:
        bindings: by name.
        unserved: why bindings that are declared are not among them.
        warnings: what was not understood.
    """

    source: Path
    server: ServerConfig
    bindings: Mapping[str, Declaration]
    unserved: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load(path: str | Path, environment: str | None = None) -> Config:
    """Read a configuration, and import every target that it names.

    Targets are imported with the file's directory at the front of `sys.path`, where it stays: they may import
    their neighbours later too.

    Args:
        path: a TOML file, or a Wrangler file (wrangler.toml, wrangler.json, wrangler.jsonc).
        environment: of a Wrangler file.

    Raises:
        ConfigError: if the file cannot be read or parsed, a key is unknown or a value not valid, or a target
            cannot be imported; or if nothing that is declared can be served.
    """
    document = read_document(path, environment)
    config = checked(document)
    if document.elsewhere and not config.bindings:
        raise ConfigError(document.source, "", _unserved(next(iter(document.elsewhere.values()))))
    return config


def read(values: Mapping[str, Any], source: Path) -> Config:
    """Check a configuration, and import every target that it names.

    Args:
        values: as tomllib or json return it.
        source: the file that it is from, or would be: relative paths and targets are looked for beside it.

    Raises:
        ConfigError: as `load` does.
    """
    return checked(_document(values, source))


def read_document(config: str | Path | Mapping[str, Any], environment: str | None = None) -> Document:
    """Read a configuration as far as its bindings' own tables. Nothing is imported.

    Targets will be looked for with the file's directory at the front of `sys.path`, where it stays: they may import
    their neighbours later too.

    Args:
        config: the path of a file, as of `load`, or what such a TOML file would hold.
        environment: of a Wrangler file; by default that in the environment variable CLOUDFLARE_ENV, if any.

    Raises:
        ConfigError: as `load` does.
    """
    if isinstance(config, Mapping):
        source, values = _GIVEN, config
    else:
        source = Path(config)
        values = _parse(source)
        if is_wrangler_file(source):
            environment = environment or os.environ.get(ENVIRONMENT_VARIABLE) or None
            return _of_wrangler(read_wrangler(values, source, environment), source, environment)
    if environment is not None:
        raise ConfigError(source, "", f'environments such as "{environment}" are a matter of Wrangler\'s files')
    return _document(values, source)


def _of_wrangler(file: WranglerFile, source: Path, environment: str | None) -> Document:
    document = _document(file.document, source, OWN_KEY)
    return attrs.evolve(
        document,
        tables={name: table.standing(*file.places[name]) for name, table in document.tables.items()},
        elsewhere=file.elsewhere,
        variables=file.variables,
        secrets=file.secrets,
        environment=environment,
        warnings=file.warnings,
    )


def checked(document: Document) -> Config:
    """Check all bindings that can be served, and import the targets that they name.

    Raises:
        ConfigError: as `load` does.
    """
    bindings = {
        name: parse_binding(table, document.server.state_dir)
        for name, table in document.tables.items()
        if name not in document.elsewhere
    }
    unserved = tuple(map(_unserved, document.elsewhere.values()))
    return Config(document.source, document.server, bindings, unserved, document.warnings)


def _unserved(reason: Elsewhere) -> str:
    """To a server, `remote` says nothing: it is the other end."""
    return f"{reason.why}: {reason.here}"


def _parse(source: Path) -> dict[str, Any]:
    try:
        text = source.read_text(encoding="utf-8")
        document = tomllib.loads(text) if source.suffix not in {".json", ".jsonc"} else parse_jsonc(text)
    except OSError as error:
        raise ConfigError(source, "", f"the file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(source, "", f"the file is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source, "", f"the file is not valid TOML: {error}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(source, "", f"the file is not valid JSON with comments: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(source, "", "the file has to hold one JSON object")
    return document


def _document(values: Mapping[str, Any], source: Path, place: str = "") -> Document:
    """A configuration as far as its bindings' own tables.

    Args:
        values: it.
        source: the file.
        place: the key in the file under which all of it stands but the bindings.
    """
    directory = str(source.resolve().parent)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    root = Table(values, source, place)
    server = _read_server(root.table("server"))
    remote = root.table("remote")
    connection_string = remote.optional_text("connection_string")
    remote.finish()
    tables = Table(root.table("bindings").written, source, "bindings").tables()
    root.finish()
    for name, table in tables.items():
        if not _BINDING_NAME.fullmatch(name):
            raise table.error("a binding is named in printable ASCII without spaces")
    return Document(source, server, connection_string, tables)


def _read_server(table: Table) -> ServerConfig:
    secret = table.optional_text("secret")
    if secret is not None and not _SECRET.fullmatch(secret):
        raise table.error('at least 22 letters, digits, "-" and "_" are needed here', "secret")
    origins = table.texts("allowed_origins")
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise table.error(
                f'"{origin}" is no origin: a scheme and a host, such as "https://example.com", are one',
                "allowed_origins",
            )
    usual = ConnectionLimits()
    connections = ConnectionLimits(
        head_timeout=table.integer("head_timeout", usual.head_timeout, low=1, high=86_400),
        body_timeout=table.integer("body_timeout", usual.body_timeout, low=1, high=86_400),
        max_connections=table.integer("max_connections", usual.max_connections, low=1, high=1_000_000),
        max_connections_per_address=table.integer(
            "max_connections_per_address", usual.max_connections_per_address, low=1, high=1_000_000
        ),
    )
    server = ServerConfig(
        state_dir=table.source.resolve().parent / table.text("state_dir", ".capnweb"),
        host=table.text("host", "127.0.0.1"),
        port=table.integer("port", 8787, low=0, high=65535),
        secret=secret,
        allowed_origins=frozenset(origins),
        drain_timeout=table.integer("drain_timeout", _DRAIN_TIMEOUT, low=0, high=86_400),
        max_sessions=table.integer("max_sessions", MAX_SESSIONS, low=1, high=1_000_000),
        connections=connections,
    )
    table.finish()
    return server
