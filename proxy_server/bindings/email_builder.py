"""A message that is built from its parts: `env.EMAIL.send({from, to, subject, text, html, attachments, ...})`.

The parts, their limits and the codes of errors are those of Cloudflare's documentation ("Email Service: Workers API").
The standard library writes the message.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, Final

from capnweb_py.values import UNDEFINED, TypedArray
from proxy_server.bindings.email_headers import checked_headers
from proxy_server.bindings.email_rules import (
    MAX_RECIPIENTS,
    MAX_SUBJECT,
    AllowedAddresses,
    EmailRefusal,
    checked_address,
    checked_size,
    invalid,
)
from proxy_server.stores.mail import Mail

__all__ = ["built_mail"]

_FIELDS: Final = frozenset({"from", "to", "cc", "bcc", "replyTo", "subject", "text", "html", "headers", "attachments"})
# RFC 2045, section 5.1; parameters have no place here.
_MEDIA_TYPE: Final = re.compile(r"([A-Za-z0-9!#$&^_.+-]{1,127})/([A-Za-z0-9!#$&^_.+-]{1,127})")
_CONTENT_ID: Final = re.compile(r"[!-;=?-~]{1,200}")
# "Ada" <ada@example.com>, or without quotation marks, as the runtime's simulator reads it too.
_NAMED: Final = re.compile(r'\s*(?:"([^"\\<>]*)"|([^"\\<>]*?))\s*<([^<>]*)>\s*')
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

# Lines of headers up to the most that RFC 5322 allows: what is broken earlier is apt to be encoded, too.
_POLICY: Final = SMTP.clone(max_line_length=998)


def built_mail(message: Mapping[str, Any], message_id: str, allowed: AllowedAddresses, limit: int) -> Mail:
    """The mail of a message's parts.

    Args:
        message: the parts, by their names in the Workers API.
        message_id: to be written into it.
        allowed: addresses.
        limit: how many bytes the whole message may have.

    Raises:
        EmailRefusal: if it is not to be sent.
    """
    parts = {name: value for name, value in message.items() if value is not None and value is not UNDEFINED}
    for name in parts.keys() - _FIELDS:
        raise invalid(f"{name!a} is no part of a message")
    for name in ("from", "subject"):
        if name not in parts:
            raise EmailRefusal(f"the field '{name}' is missing", "E_FIELD_MISSING")
    sender = _addresses(parts["from"], "from")[0]
    fields = {name: _addresses(parts.get(name, []), name) for name in ("to", "cc", "bcc")}
    recipients = [address.addr_spec for addresses in fields.values() for address in addresses]
    if not recipients:
        raise EmailRefusal("the field 'to' is missing", "E_FIELD_MISSING")
    if len(recipients) > MAX_RECIPIENTS:
        raise EmailRefusal(
            f"{len(recipients)} recipients provided, maximum is {MAX_RECIPIENTS}", "E_TOO_MANY_RECIPIENTS"
        )
    allowed.check(sender.addr_spec, recipients)
    # Before it is all written, in base64 and else: it only gets larger.
    checked_size(sum(len(parts[name]) for name in ("text", "html") if isinstance(parts.get(name), str)), limit)

    written = EmailMessage(policy=_POLICY)
    written["From"] = sender
    for name in ("to", "cc"):
        if fields[name]:
            written[name.capitalize()] = fields[name]
    if "replyTo" in parts:
        written["Reply-To"] = _addresses(parts["replyTo"], "replyTo")
    written["Subject"] = _line(parts["subject"], "subject", MAX_SUBJECT)
    written["Message-ID"] = message_id
    written["Date"] = format_datetime(datetime.now(UTC))
    for name, value in checked_headers(parts.get("headers", {})).items():
        written[name] = value
    _write_content(written, parts, limit)
    content = written.as_bytes()
    checked_size(len(content), limit)
    return Mail(sender.addr_spec, recipients, content)


def _addresses(value: object, field: str) -> list[Address]:
    """One address or several: each an object with `email` and `name`, or a text, in which the name may stand before."""
    found = []
    for entry in value if isinstance(value, list) and field != "from" else [value]:
        name, address = "", entry
        if isinstance(entry, Mapping):
            name, address = entry.get("name") or "", entry.get("email")
        elif isinstance(entry, str) and (named := _NAMED.fullmatch(entry)):
            name, address = named[1] or named[2] or "", named[3]
        found.append(
            Address(_line(name, f"the name in {field}", MAX_SUBJECT), addr_spec=checked_address(address, field))
        )
    return found


def _line(text: object, field: str, limit: int) -> str:
    if not isinstance(text, str):
        raise invalid(f"{field} is no text")
    if _CONTROL.search(text):
        raise invalid(f"{field} has characters that are not allowed, such as a line break")
    if len(text) > limit:
        raise invalid(f"{field} has more than {limit} characters")
    return text


def _write_content(written: EmailMessage, parts: Mapping[str, Any], limit: int) -> None:
    for name in ("text", "html"):
        if not isinstance(parts.get(name, ""), str):
            raise invalid(f"{name} is no text")
    text, html = (_text(parts.get(name, "")) for name in ("text", "html"))
    if text or not html:
        written.set_content(text)
    if html and text:
        written.add_alternative(html, subtype="html")
    elif html:
        written.set_content(html, subtype="html")
    attachments = parts.get("attachments", [])
    if not isinstance(attachments, list):
        raise invalid("attachments is no array")
    size = 0
    for attachment in attachments:
        if not isinstance(attachment, Mapping):
            raise invalid("an attachment is no object")
        content = _content(attachment.get("content"))
        size += len(content)
        checked_size(size, limit)
        _attach(written, attachment, content)


def _text(text: str) -> str:
    """Without what is no character, which nothing could encode."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _attach(written: EmailMessage, attachment: Mapping[str, Any], content: bytes) -> None:
    media_type = attachment.get("type")
    match = _MEDIA_TYPE.fullmatch(media_type) if isinstance(media_type, str) else None
    if match is None or match[1].lower() in {"multipart", "message"}:
        raise invalid(f"the type of an attachment is no media type that one has: {ascii(media_type)[:100]}")
    filename = _line(attachment.get("filename"), "the filename of an attachment", 255)
    disposition = attachment.get("disposition")
    content_id = attachment.get("contentId")
    if disposition not in ("attachment", "inline"):
        raise invalid("the disposition of an attachment is 'attachment' or 'inline'")
    if content_id is not None and content_id is not UNDEFINED:
        if not isinstance(content_id, str) or not _CONTENT_ID.fullmatch(content_id):
            raise invalid("the contentId of an attachment is printable ASCII without blanks and angle brackets")
        content_id = f"<{content_id}>"
    elif disposition == "inline":
        raise EmailRefusal("the field 'contentId' of an inline attachment is missing", "E_FIELD_MISSING")
    else:
        content_id = None
    options: dict[str, Any] = {
        "maintype": match[1],
        "subtype": match[2],
        "disposition": disposition,
        "filename": filename,
        "cid": content_id,
    }
    html = written.get_body(("html",)) if disposition == "inline" else None
    if html is not None:
        html.add_related(content, **options)
    else:
        written.add_attachment(content, **options)


def _content(content: object) -> bytes:
    """The bytes of an attachment: as they are, or in base64."""
    if isinstance(content, (bytes, TypedArray)):
        return bytes(content)
    if isinstance(content, str):
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise invalid("the content of an attachment is a text that is no base64") from None
    raise invalid("the content of an attachment is neither bytes nor base64")
