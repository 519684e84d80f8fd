"""A message that comes as it is to be sent, `new EmailMessage(from, to, raw)`: what is checked before it goes.

The rules and their texts are those of the runtime's simulator (workers-sdk, packages/miniflare, send_email.worker.ts),
which has them from Cloudflare. Only the headers are looked at; the message goes as it came, its lines ended by CRLF.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Mapping
from email.utils import getaddresses
from typing import Any, Final

from anyio import to_thread

from capnweb_py.values import TypedArray
from proxy_server.bindings.email_rules import AllowedAddresses, EmailRefusal, checked_address, checked_size, invalid
from proxy_server.stores.mail import Mail

__all__ = ["RAW", "raw_mail"]

# The key under which a runtime hands over the message of an EmailMessage.
RAW: Final = "EmailMessage::raw"

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
# RFC 5322, section 2.2: a name is of printable characters without the colon. A line that begins with a blank continues
# the one before it.
_HEADER: Final = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r\n\0]++|\r\n[ \t])*+)\r\n")

# How large all headers of a message may be, in bytes. The simulator's parser of messages allows two million.
_MAX_HEAD_BYTES: Final = 1_000_000


async def raw_mail(message: Mapping[str, Any], allowed: AllowedAddresses, limit: int) -> Mail:
    """The mail of an EmailMessage.

    Args:
        message: with the keys "from", "to" and RAW, whose value is text, bytes or a stream of bytes.
        allowed: addresses.
        limit: how many bytes the message may have.

    Raises:
        EmailRefusal: if it is not to be sent.
    """
    sender, recipients = message.get("from"), message.get("to")
    recipients = recipients if isinstance(recipients, list) else [recipients]
    allowed.check(str(sender), map(str, recipients))
    sender = checked_address(sender, "from")
    recipients = [checked_address(recipient, "to") for recipient in recipients]
    content = await to_thread.run_sync(_checked, await _whole(message.get(RAW), limit), sender)
    return Mail(sender, recipients, content)


def _checked(raw: bytes, sender: str) -> bytes:
    """A message whose headers are in order, with its lines ended by CRLF."""
    content = _LINE_END.sub(b"\r\n", raw)
    _check_headers(_headers(content), sender)
    return content


async def _whole(raw: object, limit: int) -> bytes:
    """All of a message. More than is allowed is not read."""
    if isinstance(raw, str):
        raw = raw.encode(errors="replace")
    if isinstance(raw, (bytes, TypedArray)):
        content = bytes(raw)
        checked_size(len(content), limit)
        return content
    if not isinstance(raw, AsyncIterable):
        raise invalid("the message of an EmailMessage is text, or a stream of bytes")
    whole = bytearray()
    try:
        async for chunk in raw:
            if not isinstance(chunk, (bytes, TypedArray)):
                raise invalid("the message of an EmailMessage is a stream of bytes, and this one has something else")
            whole += bytes(chunk)
            checked_size(len(whole), limit)
    finally:
        close = getattr(raw, "aclose", None)
        if close is not None:
            await close()
    return bytes(whole)


def _headers(content: bytes) -> list[tuple[str, str]]:
    """The names, in lower case, and values of a message's headers.

    Raises:
        EmailRefusal: if it does not begin with headers.
    """
    headers = []
    at = 0
    while not content.startswith(b"\r\n", at) and at < len(content):
        if at > _MAX_HEAD_BYTES:
            raise EmailRefusal(f"could not parse email: its headers have more than {_MAX_HEAD_BYTES} bytes")
        match = _HEADER.match(content, at)
        if match is None:
            raise EmailRefusal("could not parse email: a line of its head is no header")
        headers.append((match[1].decode("ascii").lower(), match[2].replace(b"\r\n", b"").decode("latin-1").strip()))
        at = match.end()
    return headers


def _check_headers(headers: list[tuple[str, str]], sender: str) -> None:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    if not values.get("message-id", [""])[0]:
        raise EmailRefusal("invalid message-id")
    # Two authors could be one that is allowed, and one that a reader sees.
    if [address for _, address in getaddresses(values.get("from", []))] != [sender]:
        raise EmailRefusal("From: header does not match mail from")
    if "received" in values:
        raise EmailRefusal("invalid headers set")
