"""What send_email takes: its limits and its addresses, and how it refuses.

Limits and codes are those of Cloudflare's documentation ("Email Service: Limits", "Workers API: Error codes" and "Send
bindings"). What is said of an address that is not on a list of the binding's is the text of the runtime's simulator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from capnweb_py.values import UNDEFINED
from proxy_server.declined import Declined

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MAX_RECIPIENTS",
    "MAX_SUBJECT",
    "AllowedAddresses",
    "EmailRefusal",
    "EmailUndelivered",
    "checked_address",
    "checked_size",
    "invalid",
]

MAX_RECIPIENTS: Final = 50
MAX_SUBJECT: Final = 998
# 5 MiB; 25 MiB for addresses that were verified.
MAX_MESSAGE_BYTES: Final = 5 * 1024 * 1024
VERIFIED_MAX_MESSAGE_BYTES: Final = 25 * 1024 * 1024

# RFC 5321, section 4.1.2, without quoted local parts and address literals: what is left can stand in an SMTP command
# and in a header as it is. Lengths are those of its section 4.5.3.1.
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(rf"(?=.{{1,64}}@)(?=.{{3,254}}\Z){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")


class EmailRefusal(Declined):
    """The message is not sent. The text is for its sender.

    Attributes:
        code: Cloudflare's name for the reason; None where the runtime gives none.
    """

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(text)
        self.code = code


class EmailUndelivered(EmailRefusal):
    """The message could not be delivered."""

    status = 500


def invalid(problem: str) -> EmailRefusal:
    """Something in the message is not valid."""
    return EmailRefusal(problem, "E_VALIDATION_ERROR")


def checked_address(address: object, field: str) -> str:
    """An address as it may stand in a header and in SMTP's commands. Raises EmailRefusal if it is none."""
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise invalid(f"{field} is no email address: {_shown(address)}")
    return address


def checked_size(size: int, limit: int) -> None:
    """Check the size of a whole message. Raises EmailRefusal if it is too large."""
    if size > limit:
        raise EmailRefusal(f"the message has more than {limit} bytes", "E_CONTENT_TOO_LARGE")


def _shown(value: object) -> str:
    """Somebody's value in an error's text: short, and on one line."""
    text = ascii(value)
    return text if len(text) <= 100 else text[:97] + "..."


@attrs.frozen
class AllowedAddresses:
    """From whom and to whom a binding sends (Wrangler's keys of the same names). None allows every address."""

    destination_address: str | None = None
    allowed_destination_addresses: frozenset[str] | None = None
    allowed_sender_addresses: frozenset[str] | None = None

    def addressed(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """A message that names no recipient in `to`, as one to the only address there is ("Send bindings")."""
        if self.destination_address is None or message.get("to") not in (None, UNDEFINED):
            return message
        return {**message, "to": self.destination_address}

    def check(self, sender: str, recipients: Iterable[str]) -> None:
        """Raises EmailRefusal if one of them is not allowed."""
        if self.allowed_sender_addresses is not None and sender not in self.allowed_sender_addresses:
            raise EmailRefusal(f"email from {sender} not allowed")
        for recipient in recipients:
            if self.destination_address not in (None, recipient) or (
                self.allowed_destination_addresses is not None and recipient not in self.allowed_destination_addresses
            ):
                raise EmailRefusal(f"email to {recipient} not allowed", "E_RECIPIENT_NOT_ALLOWED")
