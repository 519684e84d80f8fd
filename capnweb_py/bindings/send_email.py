"""Email: messages are sent as `env.EMAIL` of the Workers runtime sends them, over RPC.

    await env.EMAIL.send(from_="shop@example.com", to="ada@example.org", subject="Thanks", text="It is on its way.")

A message that is written already goes as an EmailMessage.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from ..errors import RemoteError, RpcError, has_not_run
from ..stub import RpcStub
from ..web import ReadableStream
from .arguments import check
from .channels import Channels
from .given import given
from .pieces import in_pieces

__all__ = ["Attachment", "EmailAddress", "EmailError", "EmailMessage", "SendEmail"]


class EmailError(RpcError):
    """A message was not sent. The text is the binding's.

    Attributes:
        code: Cloudflare's name for the reason, such as "E_FIELD_MISSING"; None where there is none.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


@attrs.frozen
class EmailAddress:
    """An address with the name of its owner."""

    email: str
    name: str


# "ada@example.org", or with a name; one or several.
Address: TypeAlias = str | EmailAddress
Addresses: TypeAlias = Address | Sequence[Address]


@attrs.frozen
class EmailMessage:
    """A message that is written already, with its headers (RFC 5322), and its envelope.

    Attributes:
        from_: the sender; the From: header must be the same.
        to: the recipient. None: the binding's one address, where it has one.
        raw: the message: text, bytes, or an async iterable of bytes.
    """

    from_: str
    to: str | None
    raw: str | bytes | AsyncIterable[bytes]


@attrs.frozen
class Attachment:
    """A file in a message.

    Attributes:
        filename: as the recipient sees it.
        type: its media type, such as "application/pdf".
        content: its bytes.
        disposition: "attachment", or "inline" for what the HTML shows.
        content_id: what the HTML calls an inline one: `<img src="cid:...">`.
    """

    filename: str
    type: str
    content: bytes
    disposition: Literal["attachment", "inline"] = "attachment"
    content_id: str | None = None


class SendEmail:
    """The facade of a send_email binding."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    @property
    def rpc(self) -> RpcStub:
        """The stub of the remote binding, with the method that the Workers runtime's has."""
        return self._channels.rpc

    async def send(
        self,
        message: EmailMessage | None = None,
        /,
        *,
        from_: Address | None = None,
        to: Addresses | None = None,
        cc: Addresses | None = None,
        bcc: Addresses | None = None,
        reply_to: Address | None = None,
        subject: str | None = None,
        text: str | None = None,
        html: str | None = None,
        headers: Mapping[str, str] | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> str:
        """Send a message: one that is written, or the parts of one.

        Args:
            message: it, and no parts; or None.
            from_: the sender. An address is a text, in which a name may stand ("Ada <ada@example.org>"), or an
                EmailAddress.
            to: to, cc and bcc: at most 50 recipients in all. None: the binding's one address, where it has one.
            reply_to: who gets answers.
            subject: at most 998 characters.
            text: the message.
            html: the same, for who prefers HTML.
            headers: others, such as "List-Unsubscribe" and what begins with "X-".
            attachments: files.

        Returns:
            The id of the message.

        Raises:
            TypeError: if there are both a message and parts of one.
            EmailError: if it is not sent; `code` is Cloudflare's name for the reason.
        """
        check("message", message, EmailMessage | None, "an EmailMessage, or its parts by their names")
        for name, value in (("subject", subject), ("text", text), ("html", html)):
            check(name, value, str | None, "a str")
        check("headers", headers, Mapping | None, "a dict")
        check("attachments", attachments, Sequence, "a list of Attachments")
        parts = given(
            **{"from": _address("from_", from_)},
            to=_addresses("to", to),
            cc=_addresses("cc", cc),
            bcc=_addresses("bcc", bcc),
            replyTo=_address("reply_to", reply_to),
            subject=subject,
            text=text,
            html=html,
            headers=None if headers is None else dict(headers),
            attachments=[_attachment(attachment) for attachment in attachments] or None,
        )
        if message is not None:
            if parts:
                raise TypeError("send() takes a message, or the parts of one, not both")
            parts = {"from": message.from_, "to": message.to, "EmailMessage::raw": _stream(message.raw)}
        return await self._send(parts)

    async def _send(self, message: dict[str, Any]) -> str:
        try:
            result = await self._channels.rpc.send(message)
        except RemoteError as error:
            if has_not_run(error):
                raise
            code = error.props.get("code")
            raise EmailError(error.message, code if isinstance(code, str) else None) from None
        message_id: str = result["messageId"]
        return message_id

    def __repr__(self) -> str:
        return f"<send_email {self._channels.name}>"


def _address(name: str, address: Address | None) -> Any:
    check(name, address, str | EmailAddress | None, "a str or an EmailAddress")
    return attrs.asdict(address) if isinstance(address, EmailAddress) else address


def _addresses(name: str, addresses: Addresses | None) -> Any:
    if addresses is None or isinstance(addresses, (str, EmailAddress)):
        return _address(name, addresses)
    check(name, addresses, Sequence, "a str, an EmailAddress, or a list of them")
    return [_address(name, address) for address in addresses]


def _attachment(attachment: Attachment) -> dict[str, Any]:
    check("each attachment", attachment, Attachment, "an Attachment")
    check("the content of an attachment", attachment.content, bytes | bytearray | memoryview | str, "bytes, or base64")
    values = attrs.asdict(attachment)
    return given(contentId=values.pop("content_id"), **values)


def _stream(raw: str | bytes | AsyncIterable[bytes]) -> ReadableStream[bytes]:
    """A message as a stream of bytes, which every binding takes."""
    check(
        "raw", raw, str | bytes | bytearray | memoryview | AsyncIterable, "a str, bytes, or an async iterable of bytes"
    )
    if isinstance(raw, AsyncIterable):
        return raw if isinstance(raw, ReadableStream) else ReadableStream(raw)
    return in_pieces(raw.encode() if isinstance(raw, str) else bytes(raw))
