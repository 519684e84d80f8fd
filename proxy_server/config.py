"""The configuration file of the proxy: from its path to checked, frozen values with every target imported.

Nothing is opened here: a binding is left as an `Opener` that app.py calls when the server starts. What a
table of one binding may hold is decided by the module of its type.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from proxy_server.bindings import Declaration, parse_binding
from proxy_server.tables import ConfigError, Table
from proxy_server.wrangler import bindings_of, is_wrangler_file, parse_jsonc

__all__ = ["Config", "ConfigError", "ServerConfig", "load", "read"]

# A fixed secret is one segment of a URL's path, and nobody may guess it: 22 such characters hold 128 bits.
_SECRET: Final = re.compile(r"[A-Za-z0-9_\-]{22,}")

# A binding's name travels in a header and in a query; these characters need no escape in the first.
_BINDING_NAME: Final = re.compile(r"[!-~]+")

# RFC 6454, section 6.2: what a browser sends as Origin has no path, and no slash at its end.
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.\-]*://[^/?#@\s]+")


@attrs.frozen
class ServerConfig:
    """The `[server]` table.

    `secret` is None where each start makes its own. `state_dir` is absolute, and need not exist.
    """

    state_dir: Path
    host: str
    port: int
    secret: str | None = attrs.field(repr=False)
    allowed_origins: frozenset[str]


@attrs.frozen
class Config:
    """A configuration whose every key has been checked. `bindings` are by name."""

    source: Path
    server: ServerConfig
    bindings: Mapping[str, Declaration]


def load(path: str | Path) -> Config:
    """Read a configuration, and import every target that it names.

    Targets are imported with the file's directory at the front of `sys.path`, where it stays: they may import
    their neighbours later too.

    Args:
        path: a TOML file, or a Wrangler file (wrangler.toml, wrangler.json, wrangler.jsonc).

    Raises:
        ConfigError: if the file cannot be read or parsed, a key is unknown or a value not valid, or a target
            cannot be imported.
    """
    source = Path(path)
    document = _parse(source)
    if is_wrangler_file(source):
        document = {"bindings": bindings_of(document, source)}
    return read(document, source)


def read(document: Mapping[str, Any], source: Path) -> Config:
    """Check a configuration, and import every target that it names.

    Args:
        document: as tomllib or json return it.
        source: the file that it is from, or would be: relative paths and targets are looked for beside it.

    Raises:
        ConfigError: as `load` does.
    """
    directory = str(source.resolve().parent)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    return _read(Table(document, source))


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


def _read(document: Table) -> Config:
    server = _read_server(document.table("server"))
    tables = document.table("bindings").tables()
    document.finish()
    for name, table in tables.items():
        if not _BINDING_NAME.fullmatch(name):
            raise table.error("a binding is named in printable ASCII without spaces")
    bindings = {name: parse_binding(table, server.state_dir) for name, table in tables.items()}
    return Config(document.source, server, bindings)


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
    server = ServerConfig(
        state_dir=table.source.resolve().parent / table.text("state_dir", ".capnweb"),
        host=table.text("host", "127.0.0.1"),
        port=table.integer("port", 8787, low=0, high=65535),
        secret=secret,
        allowed_origins=frozenset(origins),
    )
    table.finish()
    return server
