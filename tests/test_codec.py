"""Codecs: trees to the data of a message and back, whatever a peer sends."""

from __future__ import annotations

import cbor2
import pytest

from capnweb_py.codec import CBOR, JSON, Codec, CodecError
from capnweb_py.codec.json import LONG, LongBytes, packed

TREES = [
    None, True, 0, -(2**53) + 1, 2**53 - 1, 1.5, -0.0, "", "äöü \U0001f600 \x00", "\ud800", [], {}, ["a", [1, {"b": None}]],  # noqa: E501
    {"": "", "\udfff": [1, 2]}, ["\ud800", 2**53 - 1],
]  # fmt: skip


@pytest.mark.parametrize("codec", [JSON, CBOR])
@pytest.mark.parametrize("tree", TREES, ids=ascii)
def test_a_tree_comes_back(codec: Codec, tree: object) -> None:
    again = codec.decode(*codec.encode(tree))
    assert again == tree
    assert repr(again) == repr(tree)


@pytest.mark.parametrize("codec", [JSON, CBOR])
def test_a_tree_nested_as_deep_as_any_message_comes_back(codec: Codec) -> None:
    tree: object = b"x" if codec is CBOR else "x"
    for _ in range(800):
        tree = [tree]
    assert str(codec.decode(*codec.encode(tree))).count("[") == 800


def test_json_writes_bytes_as_base64_without_padding() -> None:
    assert JSON.encode(["bytes", b"\xfb\xff"]) == (b'["bytes","+/8"]', False)


def test_cbor_writes_bytes_raw_and_the_rest_as_json_text() -> None:
    data, binary = CBOR.encode(["bytes", b"\xfb\xff"])
    assert binary
    assert b"\xfb\xff" in data
    assert CBOR.decode(data, binary) == ["bytes", b"\xfb\xff"]
    assert CBOR.encode(["text"]) == (b'["text"]', False)


def test_cbor_falls_back_to_json_for_a_lone_surrogate() -> None:
    assert CBOR.encode(["\ud800", b"x"]) == (b'["\\ud800","eA"]', False)


def test_json_reads_numbers_beyond_a_double_as_infinite() -> None:
    assert JSON.decode("[1e999,-1e999]", False) == [float("inf"), float("-inf")]


@pytest.mark.parametrize(
    "text", ["", "[", "[1,]", "nan", "[NaN]", "Infinity", "[1] 2", "\ufeff[]", '"\x01"', "[" * 100_000]
)
def test_what_is_not_json_is_an_error(text: str) -> None:
    with pytest.raises(CodecError, match="the message is not JSON"):
        JSON.decode(text, False)


def test_bytes_that_are_no_utf8_are_an_error() -> None:
    with pytest.raises(CodecError, match="the message is not JSON"):
        JSON.decode(b'["\xff"]', False)


def test_a_binary_message_over_json_is_an_error() -> None:
    with pytest.raises(CodecError, match="a binary message came over a connection that speaks JSON text"):
        JSON.decode(b"[]", True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        b"\x5f",
        b"\xff",
        b"\x61\xff",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x81" * 100_000,
        b"\xa1" * 100_000,
        cbor2.dumps({b"x"[0]: 1})[:1] + b"\x80\x01",
    ],
    ids=lambda data: data[:10].hex() or "empty",
)
def test_what_is_not_cbor_is_an_error(data: bytes) -> None:
    with pytest.raises(CodecError, match="the message is not CBOR"):
        CBOR.decode(data, True)


@pytest.mark.parametrize("tag", [0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 256, 258, 260, 55799, 2**64 - 1])
def test_cbor_takes_no_tag(tag: int) -> None:
    with pytest.raises(CodecError, match="the protocol uses no CBOR tags"):
        CBOR.decode(cbor2.dumps(cbor2.CBORTag(tag, b"\x01")), True)


def test_cbor_takes_one_value_a_message() -> None:
    with pytest.raises(CodecError, match="the message has 1 bytes after its CBOR value"):
        CBOR.decode(b"\x80\x80", True)


@pytest.mark.parametrize("codec", [JSON, CBOR])
def test_a_part_that_is_written_already_stands_in_the_tree_as_it_is(codec: Codec) -> None:
    part, size = packed([1, {"a": "ä"}])
    assert size == len('[1,{"a":"ä"}]'.encode())
    assert codec.decode(*codec.encode(["push", part, "x"])) == ["push", [1, {"a": "ä"}], "x"]


@pytest.mark.parametrize(
    "tree", [["bytes", b"x"], ["\ud800"], ["bytes", LongBytes(b"x")]], ids=["bytes", "surrogate", "many bytes"]
)
def test_what_orjson_alone_cannot_write_is_no_part(tree: list[object]) -> None:
    assert packed(tree) == (tree, 0)


@pytest.mark.parametrize("codec", [JSON, CBOR])
def test_a_part_beside_a_lone_surrogate(codec: Codec) -> None:
    part, _ = packed([1, 2])
    assert codec.decode(*codec.encode(["\ud800", part])) == ["\ud800", [1, 2]]


def test_many_bytes_are_written_as_few_are() -> None:
    few, many = b"x" * 10, b"y" * LONG
    for codec in (JSON, CBOR):
        plain = codec.encode([few, {"a": many}, many])
        assert codec.encode([few, {"a": LongBytes(many)}, LongBytes(many)]) == plain
