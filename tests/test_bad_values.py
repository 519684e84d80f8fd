"""What one client sends must not keep others from being served: found by trying, and held here."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from proxy_server.bindings.kv_rules import MAX_SECOND, check_metadata, expiration_of
from proxy_server.bindings.nesting import nests_deeper
from proxy_server.bindings.r2_requests import metadata_of, range_of
from proxy_server.imaging import ImagingError, probe
from proxy_server.stores.d1 import D1Failure, Statement
from proxy_server.stores.d1_sql import only_reads, without_blanks
from proxy_server.stores.kv import KvRefusal
from proxy_server.stores.r2_errors import InvalidArgument, MetadataTooLarge
from proxy_server.stores.r2_rules import resolve_range


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("comment", [b"<!---->", b"<? ?>", b"<!DOCTYPE >"])
def test_what_is_nearly_an_svg_is_told_at_once(comment: bytes) -> None:
    """Tried in all ways, it would never end."""
    with pytest.raises(ImagingError):
        probe(comment * 500 + b"x")


def test_an_svg_behind_comments_is_one() -> None:
    assert probe(b"<!-- a -->\n<?xml?>\n<!DOCTYPE svg>\n<svg></svg>").format == "image/svg+xml"


def test_a_long_literal_is_read_at_once() -> None:
    assert only_reads(f"SELECT '{'x' * 100_000}'")
    with pytest.raises(D1Failure, match="statement too long"):
        without_blanks([Statement(f"SELECT '{'x' * 1_000_000}'", [])])


def test_a_range_of_blanks_is_told_at_once() -> None:
    begun = time.process_time()
    assert resolve_range("bytes=" + " " * 1_000_000 + "x", 10) == (0, 10)
    assert time.process_time() - begun < 5  # it would be hours
    assert resolve_range("bytes=" + "9" * 10_000 + "-", 10) == (0, 10)


@pytest.mark.parametrize(("levels", "deeper"), [(1, False), (64, False), (65, True), (100_000, True)])
def test_how_deep_a_value_nests(levels: int, deeper: bool) -> None:
    assert nests_deeper(nested(levels), 64) is deeper


def test_metadata_of_a_key_can_be_listed() -> None:
    assert check_metadata(json.dumps(nested(64))) is not None
    with pytest.raises(KvRefusal, match="nests deeper"):
        check_metadata(json.dumps(nested(66)))


def test_a_key_that_lives_longer_than_numbers_last() -> None:
    assert expiration_of(0.0, None, "9" * 30) == MAX_SECOND
    assert expiration_of(0.0, "9" * 30, None) == MAX_SECOND


def test_what_is_said_of_an_object_is_bounded() -> None:
    with pytest.raises(MetadataTooLarge):
        metadata_of({"httpFields": {"contentType": "x" * 9000}})


@pytest.mark.parametrize("part", ["offset", "length", "suffix"])
def test_no_part_of_a_range_is_negative(part: str) -> None:
    with pytest.raises(InvalidArgument):
        range_of({"range": {part: -1}})
