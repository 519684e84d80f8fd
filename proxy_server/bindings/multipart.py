"""A multipart/form-data body, read as it arrives, into its parts (RFC 7578).

The bytes are parsed by python-multipart; here are the caps and the rules. A form may only have the fields that
its reader names, none larger than its reader says, so nothing is collected that nobody asked for. What a field
means is for whoever reads the form.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import attrs
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from capnweb_py.web import Request

__all__ = ["MAX_FORM_BYTES", "MAX_PARTS", "FormError", "Part", "PartTooLargeError", "read_form"]

# Cloudflare's own limit for the body of a request, on most of its plans. All parts are in memory together.
MAX_FORM_BYTES: Final = 100_000_000

# The largest form that has a use here holds 32 images and a handful of options.
MAX_PARTS: Final = 64

# What the parser would warn of is its client's mistake, which FormError tells that client: a log that anybody can fill
# is none. A logger outside the hierarchy, so that nobody's settings turn it on.
_UNHEARD: Final = logging.Logger("python_multipart", logging.CRITICAL)


class FormError(Exception):
    """The body is no form that can be read. The message says what is wrong with it."""


class PartTooLargeError(FormError):
    """A field is larger than the reader of the form allows.

    `field` is its name, `limit` the number of bytes that it may have.
    """

    def __init__(self, field: str, limit: int) -> None:
        super().__init__(f'the field "{field}" has more than {limit} bytes')
        self.field = field
        self.limit = limit


@attrs.frozen
class Part:
    """One field of a form, files and texts alike. A name may come more than once.

    `filename` is what its sender calls a file; None where it says nothing.
    """

    name: str
    data: bytes
    filename: str | None = None


async def read_form(request: Request, fields: Mapping[str, int]) -> list[Part]:
    """The parts of a request's body, in their order.

    Args:
        request: whose body is consumed.
        fields: the names that a field may have, and how many bytes the content of each.

    Raises:
        FormError: if the body is no form, is malformed or cut short, has a field of another name, or more than
            MAX_PARTS parts or MAX_FORM_BYTES bytes.
        PartTooLargeError: if a field is larger than `fields` says.
    """
    reader = _FormReader(fields)
    parser = _parser(request, reader)
    if request.body is None:
        raise FormError("the request has no body")
    received = 0
    async for chunk in request.body:
        received += len(chunk)
        if received > MAX_FORM_BYTES:
            raise FormError(f"the form has more than {MAX_FORM_BYTES} bytes")
        try:
            parser.write(chunk)
        except FormParserError as error:
            raise FormError(f"the form is malformed: {error}") from error
    if not reader.complete:
        raise FormError("the form is cut short: its last boundary is missing")
    return reader.parts


def _parser(request: Request, reader: _FormReader) -> MultipartParser:
    media_type, parameters = parse_options_header(request.headers.get("content-type"))
    boundary = parameters.get(b"boundary")
    if media_type != b"multipart/form-data" or not boundary:
        raise FormError("the content-type is not multipart/form-data with a boundary")
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin_part,
                "on_header_field": reader.add_header_name,
                "on_header_value": reader.add_header_value,
                "on_header_end": reader.end_header,
                "on_headers_finished": reader.end_headers,
                "on_part_data": reader.add_data,
                "on_part_end": reader.end_part,
                "on_end": reader.end,
            },
        )
    except FormParserError as error:
        raise FormError(f"the boundary of the form cannot be used: {error}") from error
    parser.logger = _UNHEARD
    return parser


class _FormReader:
    """Collects parts from the events of the parser, which brings names, values and data in pieces."""

    def __init__(self, fields: Mapping[str, int]) -> None:
        self.parts: list[Part] = []
        # Whether the boundary that ends the form has been seen.
        self.complete = False
        self._fields = fields
        # Of the part that is being read: the header, all headers by lower-cased name, and the content.
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._filename: str | None = None
        self._chunks: list[bytes] = []
        self._size = 0

    def begin_part(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise FormError(f"the form has more than {MAX_PARTS} parts")
        self._headers = {}
        self._chunks = []
        self._size = 0

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def end_headers(self) -> None:
        disposition, parameters = parse_options_header(self._headers.get(b"content-disposition"))
        name = parameters.get(b"name")
        if disposition != b"form-data" or name is None:
            raise FormError(f"part {len(self.parts) + 1} has no content-disposition that names a field")
        self._name = name.decode("utf-8", "replace")
        filename = parameters.get(b"filename")
        self._filename = None if filename is None else filename.decode("utf-8", "replace")
        if self._name not in self._fields:
            raise FormError(f"there is no field {self._name[:60]!r} here; valid are {', '.join(self._fields)}")

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self._fields[self._name]:
            raise PartTooLargeError(self._name, self._fields[self._name])
        self._chunks.append(data[start:end])

    def end_part(self) -> None:
        self.parts.append(Part(self._name, b"".join(self._chunks), self._filename))

    def end(self) -> None:
        self.complete = True
