"""Where mail goes: what an outlet does, for the send_email binding. Implementations: mail_files.py and mail_smtp.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

__all__ = ["Mail", "MailOutlet", "NotDelivered"]


class NotDelivered(Exception):
    """Mail was not delivered, or not to all. The text says what happened, and is for the sender of the mail."""


@attrs.frozen
class Mail:
    """A message and its envelope. Addresses are plain: "name@host".

    Attributes:
        sender: who gets what is returned.
        recipients: who gets the message, whatever its headers say.
        content: the message with its headers, its lines ended by CRLF.
    """

    sender: str
    recipients: Sequence[str]
    content: bytes


class MailOutlet(Protocol):
    """Takes mail."""

    async def deliver(self, mail: Mail) -> None:
        """Deliver a message, or hand it on to somebody who will. Once this returns, it is not lost.

        Raises:
            NotDelivered: if that does not succeed.
        """

    async def aclose(self) -> None:
        """Release what the outlet holds."""
