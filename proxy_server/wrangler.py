"""Wrangler's own configuration files, read as a capnweb configuration: which of their bindings the proxy serves.

Only keys that declare remote bindings are looked at: the rest of a Wrangler file configures a worker, not a
proxy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from proxy_server.tables import ConfigError

__all__ = ["bindings_of", "is_wrangler_file", "parse_jsonc"]

# The keys of arrays of bindings that no type of this server serves yet, by what people call such a binding.
_NOT_SERVED = {
    "kv_namespaces": "a KV namespace",
    "r2_buckets": "an R2 bucket",
    "d1_databases": "a D1 database",
}

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


def bindings_of(document: dict[str, Any], source: Path) -> dict[str, dict[str, Any]]:
    """The bindings of a Wrangler file as the `bindings` table of a capnweb configuration.

    Args:
        document: the whole file.
        source: the file's path, for errors.

    Raises:
        ConfigError: if the file declares a binding that cannot be served, or none that can.
    """
    for key, kind in _NOT_SERVED.items():
        for path, name in _declared(document.get(key, []), key, source):
            raise _not_served(source, path, name, kind)
    for path, name in _declared(_producers(document), "queues.producers", source):
        raise _not_served(source, path, name, "a queue")
    for path, name in _declared(document.get("services", []), "services", source):
        raise ConfigError(
            source,
            path,
            f'the service "{name}" names a worker, and this server runs Python: write a TOML file with '
            f'[bindings.{name}], type = "service" and target = "module:Class" and serve that',
        )
    images = _declared([document["images"]], "images", source) if "images" in document else []
    bindings = {name: {"type": "images"} for _, name in images}
    if not bindings:
        raise ConfigError(source, "", "no binding that this server serves is declared here: images is one")
    return bindings


def _not_served(source: Path, path: str, name: str, kind: str) -> ConfigError:
    return ConfigError(source, path, f'the binding "{name}" is {kind}, which this server does not serve yet')


def _producers(document: dict[str, Any]) -> Any:
    queues = document.get("queues")
    return queues.get("producers", []) if isinstance(queues, dict) else []


def _declared(entries: Any, key: str, source: Path) -> Iterable[tuple[str, str]]:
    """The path of each declaration of a kind of binding, with the name that it gives."""
    if not isinstance(entries, list):
        raise ConfigError(source, key, "an array is needed here")
    named = []
    for index, entry in enumerate(entries):
        path = key if key == "images" else f"{key}[{index}]"
        name = entry.get("binding") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise ConfigError(source, path, 'a table with the key "binding", a name, is needed here')
        named.append((path, name))
    return named
