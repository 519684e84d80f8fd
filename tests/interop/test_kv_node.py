"""A KV namespace of a running proxy, used by npm capnweb on Node, in both codecs: what kv.mjs reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from proxying import serving

from .node import report_of, rpc_url


@pytest.fixture(scope="module", params=["json", "cbor"])
def report(request: pytest.FixtureRequest, node: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a Node client reports of a new namespace."""
    config: Path = tmp_path_factory.mktemp("kv") / "capnweb.toml"
    config.write_text('[bindings.KV]\ntype = "kv_namespace"\n')
    with serving(config) as server:
        return report_of(node, "kv.mjs", rpc_url(server.url, "KV"), codec=request.param)


def test_values_of_all_kinds_are_stored(report: dict[str, Any]) -> None:
    assert report["values"] == {
        "values:buffer": [1, 0, 0, 1],
        "values:bytes": [1, 255],
        "values:null": [110, 117, 108, 108],
        "values:number": [49, 55],
        "values:stream": [97, 98, 99],
        "values:text": [195, 188],
        "values:true": [116, 114, 117, 101],
        "values:view": [1, 0, 0, 1],
    }


def test_values_are_read_as_every_type(report: dict[str, Any]) -> None:
    assert report["types"] == {
        "text": '{"a": [1]}',
        "json": {"a": [1]},
        "option": {"a": [1]},
        "bytes": 10,
        "stream": '{"a": [1]}',
        "none": None,
        "bulk": {"types": {"a": [1]}, "types:none": None},
    }


def test_metadata_and_expiration(report: dict[str, Any]) -> None:
    assert report["metadata"] == {
        "listed": [["metadata", {"a": "ü"}, "number"]],
        "list_complete": True,
        "found": ["v", {"a": "ü"}, None],
        "bulk": {"metadata": {"value": "v", "metadata": {"a": "ü"}}, "metadata:none": None},
        "none": {"value": None, "metadata": None, "cacheStatus": None},
    }


def test_pages_and_deleting(report: dict[str, Any]) -> None:
    assert report["pages"] == [[["pages:a", "pages:b"], False], [["pages:c"], True]]
    assert report["deleted"] is None


def test_uses_at_a_time_share_round_trips(report: dict[str, Any]) -> None:
    assert report["together"] == {"values": ["a", "b", "c"], "roundTrips": 2}


@pytest.mark.parametrize(
    ("use", "name", "message"),
    [
        ("empty", "TypeError", "Key name cannot be empty."),
        ("dot", "TypeError", '"." is not allowed as a key name.'),
        ("dots", "TypeError", '".." is not allowed as a key name.'),
        ("long", "Error", "KV GET failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512."),
        ("key", "TypeError", "the key of KV GET is a string"),
        (
            "type",
            "TypeError",
            'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".',
        ),
        (
            "object",
            "TypeError",
            "KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values.",
        ),
        ("chunk", "TypeError", "the chunks of a stream that KV put() accepts are bytes"),
        (
            "ttl",
            "Error",
            "KV PUT failed: 400 Invalid expiration_ttl of 5. Expiration TTL must be at least 60.",
        ),
        (
            "text",
            "Error",
            "KV PUT failed: 400 Invalid expiration_ttl of 0. Please specify integer greater than 0.",
        ),
        ("metadata", "Error", "KV PUT failed: 413 Metadata length of 1025 exceeds limit of 1024."),
        (
            "limit",
            "Error",
            "KV GET failed: 400 Invalid key_count_limit of 1001. Please specify an integer less than 1000.",
        ),
        ("bulk", "Error", "KV GET_BULK failed: 400 You must request a minimum of 1 key"),
        ("options", "TypeError", "the options are an object"),
    ],
)
def test_errors_are_those_of_the_workers_runtime(report: dict[str, Any], use: str, name: str, message: str) -> None:
    assert report["errors"][use] == {"name": name, "message": message}


def test_a_value_that_is_no_json_is_a_syntax_error(report: dict[str, Any]) -> None:
    assert report["errors"]["json"] == {"value": "SyntaxError"}
    assert report["errors"]["kept"] == "no json"
