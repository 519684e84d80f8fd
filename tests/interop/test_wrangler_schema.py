"""Every key of Wrangler's configuration that declares a binding is known here, with every key of its declarations.

The schema is that which npm `wrangler` ships, of two versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from proxy_server.wrangler_kinds import KINDS, MAPS, OTHER_KEYS

from .node import HERE

# What an environment does not inherit, and a program's `env` has nothing of.
ELSE: Final = {"define", "tail_consumers", "streaming_tail_consumers", "cloudchamber", "containers"}


@pytest.fixture(params=["wrangler", "wrangler-tunnel"])
def definitions(request: pytest.FixtureRequest, node: str) -> dict[str, Any]:
    schema: Path = HERE / "node_modules" / request.param / "config-schema.json"
    definitions: dict[str, Any] = json.loads(schema.read_text())["definitions"]
    return definitions


def test_every_key_that_declares_bindings_is_known(definitions: dict[str, Any]) -> None:
    declaring = {
        key
        for key, described in definitions["RawEnvironment"]["properties"].items()
        if "not automatically inherited" in described.get("description", "")
    }
    known = {key.partition(".")[0] for key in KINDS} | {*OTHER_KEYS, *ELSE}
    assert len(declaring) > 30
    assert declaring - known == set()
    assert MAPS.keys() <= definitions["RawConfig"]["properties"].keys()


@pytest.mark.parametrize("key", [key for key, kind in KINDS.items() if not kind.free])
def test_every_key_of_a_declaration_is_known(key: str, definitions: dict[str, Any]) -> None:
    schema = definitions["RawConfig"]
    for part in key.split("."):
        if part not in schema["properties"]:
            pytest.skip("this version of Wrangler does not have it")
        schema = resolved(schema["properties"][part], definitions)
    kind = KINDS[key]
    known = {kind.name, "remote", *kind.keys, *kind.silent}
    for entry in entries(schema, definitions):
        assert entry["properties"].keys() - known == set()
        assert kind.name in entry["properties"]


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference: str | None = schema.get("$ref")
    return schema if reference is None else resolved(definitions[reference.rpartition("/")[2]], definitions)


def entries(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tables that declare a binding: the schema itself, or what an array of it holds."""
    schema = resolved(schema, definitions)
    for choice in schema.get("anyOf", [schema]):
        choice = resolved(choice, definitions)
        if choice.get("type") == "array":
            yield from entries(choice["items"], definitions)
        else:
            yield choice
