"""The web's value types: validated where they are built, read as fetch reads them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from capnweb_py.web import Blob, Headers, ReadableStream, Request, Response, Url

pytestmark = pytest.mark.anyio


class Chunks:
    """A source of chunks that knows how much of it was read, and whether it was closed."""

    def __init__(self, *chunks: Any) -> None:
        self.left = list(chunks)
        self.closed = 0

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> Any:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)

    async def aclose(self) -> None:
        self.closed += 1


# Headers


def test_header_names_ignore_case_and_are_lower_cased() -> None:
    headers = Headers({"Content-Type": "text/html"})
    assert headers["CONTENT-TYPE"] == "text/html"
    assert "content-TYPE" in headers
    assert list(headers) == ["content-type"]


def test_several_values_of_a_name_are_kept_and_joined() -> None:
    headers = Headers([("Accept", "a"), ("x", "1")])
    headers.append("accept", "b")
    assert headers["accept"] == "a, b"
    assert headers.get_all("Accept") == ["a", "b"]
    assert headers.pairs() == [("accept", "a"), ("x", "1"), ("accept", "b")]
    assert len(headers) == 2


def test_set_cookie_is_never_joined() -> None:
    headers = Headers([("Set-Cookie", "a=1, b"), ("set-cookie", "c=2")])
    assert headers["set-cookie"] == "a=1, b"
    assert headers.get_all("set-cookie") == ["a=1, b", "c=2"]


def test_assigning_replaces_and_deleting_removes_every_value() -> None:
    headers = Headers([("x", "1"), ("X", "2"), ("y", "3")])
    headers["X"] = "4"
    assert headers.pairs() == [("y", "3"), ("x", "4")]
    del headers["Y"]
    assert headers == Headers({"x": "4"})
    with pytest.raises(KeyError):
        del headers["y"]
    with pytest.raises(KeyError):
        headers["y"]


def test_headers_are_equal_when_each_name_has_the_same_values_in_the_same_order() -> None:
    assert Headers([("a", "1"), ("b", "2")]) == Headers([("B", "2"), ("A", "1")])
    assert Headers([("a", "1"), ("a", "2")]) != Headers([("a", "2"), ("a", "1")])


def test_a_copy_of_headers_is_independent() -> None:
    first = Headers({"a": "1"})
    second = Headers(first)
    second.append("a", "2")
    assert first.pairs() == [("a", "1")]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "a\r\n", "(a)"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a header"):
        Headers({name: "x"})


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "a\n", "€"])
def test_a_value_that_would_break_the_message_is_refused(value: str) -> None:
    headers = Headers()
    with pytest.raises(ValueError, match="'x-name' holds"):
        headers.append("x-name", value)
    with pytest.raises(ValueError, match="'x-name' holds"):
        headers["x-name"] = value
    assert headers.pairs() == []


def test_white_space_around_a_value_is_dropped_and_latin_1_is_kept() -> None:
    assert Headers({"x": " \t gr\xfc\xdfe\t"})["x"] == "gr\xfc\xdfe"


@pytest.mark.parametrize("pair", [("a", 1), (1, "a")])
def test_names_and_values_are_strings(pair: Any) -> None:
    with pytest.raises(TypeError, match="str"):
        Headers([pair])


# Url


@pytest.mark.parametrize("href", ["https://example.com/a?b#c", "http://[::1]:80", "mailto:a@b.c", "data:,x"])
def test_an_absolute_url_is_kept_as_it_is(href: str) -> None:
    assert str(Url(href)) == Url(href).href == href
    assert Url(href) == Url(href)


@pytest.mark.parametrize(
    ("href", "problem"),
    [
        ("", "absolute"),
        ("/path", "absolute"),
        ("example.com", "absolute"),
        ("1http://a", "absolute"),
        ("http:///path", "host"),
        ("https:", "host"),
        ("http://a b/", "white space"),
        ("http://a/\n", "white space"),
        ("http://a:99999/", "[Pp]ort"),
        ("http://[::1/", "IPv6"),
    ],
)
def test_what_is_no_absolute_url_is_refused_with_the_reason(href: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Url(href)


def test_a_url_is_a_string() -> None:
    with pytest.raises(TypeError, match="bytes"):
        Url(b"http://a/")  # type: ignore[arg-type]


# ReadableStream


async def test_a_stream_is_iterated_once() -> None:
    stream = ReadableStream(Chunks(b"a", b"b"))
    assert not stream.locked
    assert [chunk async for chunk in stream] == [b"a", b"b"]
    assert stream.locked
    with pytest.raises(RuntimeError, match="iterated once"):
        aiter(stream)


async def test_nothing_is_read_ahead() -> None:
    source = Chunks(b"a", b"b", b"c")
    chunks = aiter(ReadableStream(source))
    assert await anext(chunks) == b"a"
    assert source.left == [b"b", b"c"]


async def test_closing_a_stream_closes_its_source_once_and_ends_reading() -> None:
    source = Chunks(b"a")
    stream = ReadableStream(source)
    await stream.aclose()
    await stream.aclose()
    assert source.closed == 1
    assert stream.locked
    with pytest.raises(RuntimeError, match="closed"):
        aiter(stream)


async def test_closing_a_stream_in_the_middle_runs_the_generators_finally() -> None:
    closed = []

    async def generate() -> AsyncGenerator[bytes, None]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    stream = ReadableStream(generate())
    async for _ in stream:
        break
    assert closed == []
    await stream.aclose()
    assert closed == [True]


async def test_closing_a_stream_closes_a_source_beside_its_iterator() -> None:
    class Source:
        def __init__(self) -> None:
            self.chunks = Chunks(b"a")
            self.closed = False

        def __aiter__(self) -> Chunks:
            return self.chunks

        async def aclose(self) -> None:
            assert self.chunks.closed
            self.closed = True

    source = Source()
    stream = ReadableStream(source)
    await anext(aiter(stream))
    await stream.aclose()
    assert source.closed


def test_a_stream_reads_async_iterables_only() -> None:
    with pytest.raises(TypeError, match="list"):
        ReadableStream([b"a"])  # type: ignore[arg-type]


# Blob


async def test_a_blob_has_a_type_and_can_be_read_in_three_ways() -> None:
    blob = Blob('{"a":1}', "Application/JSON")
    assert (blob.type, blob.size) == ("application/json", 7)
    assert await blob.bytes() == b'{"a":1}'
    assert await blob.text() == '{"a":1}'
    assert await blob.json() == {"a": 1}
    assert [chunk async for chunk in blob.stream()] == [b'{"a":1}']
    assert blob == Blob(b'{"a":1}', "application/json")


def test_a_blobs_type_is_ascii_and_its_data_bytes() -> None:
    with pytest.raises(ValueError, match="media type"):
        Blob(b"", "text/plain\n")
    with pytest.raises(TypeError, match="int"):
        Blob(1)


# Bodies


@pytest.mark.parametrize("body", [b"caf\xc3\xa9", bytearray(b"caf\xc3\xa9"), memoryview(b"caf\xc3\xa9"), "café"])
async def test_a_body_in_memory_can_be_read_again(body: Any) -> None:
    response = Response(body)
    assert await response.bytes() == await response.bytes() == "café".encode()
    assert await response.text() == "café"
    assert response.buffered == "café".encode()
    assert response.body is not None
    assert response.body.length == 5
    assert [chunk async for chunk in response.body] == ["café".encode()]


async def test_text_names_its_type_unless_the_headers_do() -> None:
    assert Response("a").headers["content-type"] == "text/plain;charset=UTF-8"
    assert Response("a", headers={"Content-Type": "text/html"}).headers["content-type"] == "text/html"
    assert Response(Blob(b"a", "image/png")).headers["content-type"] == "image/png"
    assert "content-type" not in Response(b"a").headers


async def test_a_stream_is_read_once_and_a_second_time_says_so() -> None:
    response = Response(Chunks(b"a", bytearray(b"b")))
    assert response.buffered is None
    assert await response.bytes() == b"ab"
    with pytest.raises(RuntimeError, match="already been read"):
        await response.text()


async def test_a_stream_with_a_chunk_that_is_no_bytes_says_so() -> None:
    with pytest.raises(TypeError, match="yielded str"):
        await Response(Chunks("a")).bytes()


async def test_no_body_reads_as_empty() -> None:
    assert Response().body is None
    assert await Response().bytes() == b""
    assert Response("").body is not None


async def test_malformed_text_and_byte_order_marks_read_as_fetch_reads_them() -> None:
    assert await Response(b"\xef\xbb\xbfa\xff").text() == "a\ufffd"
    assert await Response(b"\xef\xbb\xbf1").json() == 1


@pytest.mark.parametrize("body", [{"a": 1}, [1]])
def test_a_json_value_is_no_body_and_the_error_says_what_to_do(body: Any) -> None:
    with pytest.raises(TypeError, match="from_json"):
        Response(body)


@pytest.mark.parametrize("body", [1, object(), {1}])
def test_what_is_no_body_is_refused_by_its_type(body: Any) -> None:
    with pytest.raises(TypeError, match=type(body).__name__):
        Request("http://a/", method="POST", body=body)


async def test_lone_surrogates_are_replaced_and_pairs_are_one_character() -> None:
    assert await Response("a\ud800b\ud83d\ude00").text() == "a\ufffdb😀"


# Request


def test_a_request_has_its_parts() -> None:
    request = Request("http://a/b", method="post", headers={"X": "1"}, body=b"a")
    assert (request.url, request.method, request.headers["x"]) == ("http://a/b", "POST", "1")
    assert Request(Url("http://a/")).url == "http://a/"


def test_only_the_methods_that_fetch_knows_are_capitalised() -> None:
    assert Request("http://a/", method="patch").method == "patch"
    assert Request("http://a/", method="delete").method == "DELETE"


@pytest.mark.parametrize("method", ["", "A B", "GET\r\n", "connect", "TRACE"])
def test_what_is_no_method_of_a_request_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        Request("http://a/", method=method)


@pytest.mark.parametrize("method", ["GET", "head"])
def test_get_and_head_have_no_body(method: str) -> None:
    with pytest.raises(ValueError, match="no body"):
        Request("http://a/", method=method, body=b"")


def test_a_requests_url_is_absolute() -> None:
    with pytest.raises(ValueError, match="absolute"):
        Request("/a")


# Response


async def test_from_json_takes_any_json_value() -> None:
    response = Response.from_json({"ä": [1, None]}, status=201, headers={"x": "y"})
    assert (response.status, response.headers["content-type"]) == (201, "application/json")
    assert await response.bytes() == '{"ä":[1,null]}'.encode()
    assert await response.json() == {"ä": [1, None]}
    typed = Response.from_json(1, headers={"content-type": "application/problem+json"})
    assert typed.headers.get_all("content-type") == ["application/problem+json"]


def test_from_json_refuses_what_json_has_no_form_for() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Response.from_json(float("nan"))
    with pytest.raises(TypeError, match="set"):
        Response.from_json({1})


def test_ok_is_a_status_of_success() -> None:
    assert Response(status=200).ok
    assert Response(status=299).ok
    assert not Response(status=300).ok


@pytest.mark.parametrize("status", [0, 100, 199, 600])
def test_a_status_out_of_range_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match="200 to 599"):
        Response(status=status)


def test_the_status_101_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="protocol of a connection"):
        Response(status=101)


@pytest.mark.parametrize("status", ["200", 200.0, True])
def test_a_status_is_an_int(status: Any) -> None:
    with pytest.raises(TypeError, match="int"):
        Response(status=status)


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_content_has_no_body(status: int) -> None:
    assert Response(status=status).body is None
    with pytest.raises(ValueError, match="no body"):
        Response(b"", status=status)


def test_a_status_text_cannot_break_the_message() -> None:
    assert Response(status_text="Fine").status_text == "Fine"
    with pytest.raises(ValueError, match="status_text"):
        Response(status_text="a\r\nb")
