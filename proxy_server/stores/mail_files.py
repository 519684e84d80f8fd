"""Mail as files: each message is one .eml file in a folder, for a person or a test to look at.

The envelope stands at its top, in the headers that a delivery adds (RFC 5321, section 4.4, and the de facto standard
"Delivered-To"); below them is the message as it was sent.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import anyio.to_thread

from proxy_server.stores.mail import Mail, NotDelivered

__all__ = ["MailFiles"]


class MailFiles:
    """A folder of messages, which is made with the first one.

    Args:
        folder: of the files. Their names begin with the time, so that they sort by it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def deliver(self, mail: Mail) -> None:
        try:
            await anyio.to_thread.run_sync(self._write, mail)
        except OSError as error:
            raise NotDelivered(f"the message could not be stored: {error.strerror}") from error

    def _write(self, mail: Mail) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{nanoseconds:09}-{secrets.token_hex(4)}"
        envelope = [f"Return-Path: <{mail.sender}>", *(f"Delivered-To: {recipient}" for recipient in mail.recipients)]
        unfinished = self._folder / f".{name}"
        with unfinished.open("wb") as file:
            file.write("".join(f"{line}\r\n" for line in envelope).encode())
            file.write(mail.content)
            file.flush()
            os.fsync(file.fileno())
        # Whoever watches the folder sees whole messages only.
        unfinished.rename(self._folder / f"{name}.eml")

    async def aclose(self) -> None:
        """Nothing is held."""
