"""A bucket of a running proxy, used by npm capnweb on Node, in both codecs: what r2.mjs reports."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxying import serving

from .node import report_of, rpc_url

MIB = 1024 * 1024


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


@pytest.fixture(scope="module")
def bucket_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address at which a proxy's bucket speaks RPC."""
    folder: Path = tmp_path_factory.mktemp("r2")
    config = folder / "capnweb.toml"
    config.write_text(f'[server]\nstate_dir = "{folder}/state"\n[bindings.BUCKET]\ntype = "r2_bucket"\n')
    with serving(config) as server:
        yield rpc_url(server.url, "BUCKET")


@pytest.fixture(scope="module", params=["json", "cbor"])
def report(request: pytest.FixtureRequest, node: str, bucket_url: str) -> dict[str, Any]:
    """What a Node client reports."""
    return report_of(node, "r2.mjs", bucket_url, codec=request.param)


def test_what_is_put_is_got(report: dict[str, Any]) -> None:
    digest = md5(b"content").hex()
    assert report["roundTrip"] == {
        "key": "ä",
        "size": 7,
        "etag": digest,
        "httpEtag": f'"{digest}"',
        "customMetadata": {"a": "1"},
        "range": {"offset": 0, "length": 7},
        "storageClass": "Standard",
        "md5": digest,
        "sameVersion": True,
        "fresh": True,
        "contentType": "text/plain",
        "expiry": "2030-01-02T03:04:05.006Z",
        "text": "content",
        "head": 7,
        "none": [None, None],
    }


def test_values(report: dict[str, Any]) -> None:
    assert report["values"] == {
        "text": "c3bc",
        "bytes": "00ff",
        "blob": b"blob".hex(),
        "none": "",
        "buffer": "0000",
        "wide": "0201",
    }


def test_streams_there_and_back(report: dict[str, Any]) -> None:
    assert report["streams"] == {"size": 2 * MIB + 1, "received": -1, "same": True}


def test_conditions(report: dict[str, Any]) -> None:
    assert report["conditions"] == {"unmet": [True, False], "put": None, "met": "one"}


def test_listing_and_deleting(report: dict[str, Any]) -> None:
    assert report["listing"] == {"first": [["l/1", "l/2"], True], "rest": [0, ["l/3/"], False], "left": 0}


def test_a_multipart_upload(report: dict[str, Any]) -> None:
    etag = md5(md5(b"a" * 5 * MIB) + md5(b"end")).hex() + "-2"
    assert report["multipart"] == {"size": 5 * MIB + 3, "etag": etag, "key": "m", "numbers": [1, 2]}


def test_encryption_with_a_key_of_the_writers(report: dict[str, Any]) -> None:
    answer = report["encryption"]
    key_md5 = base64.b64encode(md5(bytes(range(32)))).decode()
    assert (answer["md5"], answer["text"], answer["without"]["code"]) == (key_md5, "content", 10029)
    assert answer["same"]
    assert answer["short"] == {"name": "Error", "message": "SSE-C Key must be 32 bytes in length"}


def test_errors(report: dict[str, Any]) -> None:
    # JavaScript has no class of that name, and the runtime throws an Error, too.
    messages = {use: (error["name"], error["message"].partition("\n")[0]) for use, error in report["errors"].items()}
    assert messages == {
        "key": ("Error", "get: The specified object name is not valid. (10020)"),
        "digest": ("Error", "put: The SHA-1 checksum you specified did not match what we received."),
        "digestBuffer": ("Error", "put: The SHA-1 checksum you specified did not match what we received."),
        "short": ("TypeError", "MD5 is 32 hex characters, not 2"),
        "range": ("RangeError", "Invalid range. Starting offset (-1) must be greater than or equal to 0."),
        "limit": ("Error", "list: MaxKeys params must be positive integer <= 1000. (10022)"),
        "value": ("TypeError", "a value is a string, bytes, a Blob, a stream of bytes or null, not int"),
        "upload": ("Error", "uploadPart: The specified multipart upload does not exist. (10024)"),
        "stream": ("TypeError", "a stream of bytes is needed, and this one has str in it"),
    }
    assert report["errors"]["digest"]["code"] == 10037
