"""Mail by SMTP: each message is handed to a mail server, in a connection of its own.

    smtp://host:587            encrypted (STARTTLS) where the server offers it
    smtps://host:465           encrypted from the beginning
    smtp://user@host           with a password, which is only sent encrypted, or within this machine

The standard library's client does it, in a thread: it runs on both event loops, and a message is one exchange.
"""

from __future__ import annotations

import ipaddress
import smtplib
import ssl
from contextlib import suppress
from typing import Final
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
import attrs

from proxy_server.stores.mail import Mail, NotDelivered

__all__ = ["SmtpOutlet", "SmtpServer", "parse_smtp_url"]

# How long, in seconds, the server may take for one step.
_PATIENCE: Final = 30.0

# How many messages are on their way at a time.
_CONNECTIONS: Final = 8

_PORTS: Final = {"smtp": 25, "smtps": 465}


@attrs.frozen
class SmtpServer:
    """Where a mail server is, and who uses it.

    `encrypted` is whether the connection is from its beginning. `tls` is what its certificate is checked with.
    """

    host: str
    port: int
    encrypted: bool
    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    tls: ssl.SSLContext = attrs.field(factory=ssl.create_default_context, eq=False)

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_smtp_url(url: str, password: str | None = None, ca_file: str | None = None) -> SmtpServer:
    """The server that a URL names.

    Args:
        url: smtp:// or smtps://, with a host, and a user and a port where they are needed.
        password: of the user. One in the URL is refused: configurations are shown to people.
        ca_file: certificates that sign the server's, besides those of the system.

    Raises:
        ValueError: if it is no such URL.
        OSError: if the certificates cannot be read.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("an SMTP server is named as smtp://HOST:PORT or smtps://USER@HOST:PORT")
    if parts.password is not None:
        raise ValueError("the password of an SMTP server is not in its URL: name its environment variable instead")
    if (parts.username is None) != (password is None):
        raise ValueError("an SMTP server that is logged in to needs a user, in the URL, and a password")
    tls = ssl.create_default_context(cafile=ca_file)
    user = None if parts.username is None else unquote(parts.username)
    return SmtpServer(parts.hostname, parts.port or _PORTS[parts.scheme], parts.scheme == "smtps", user, password, tls)


class SmtpOutlet:
    """Hands mail to a server."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._limiter = anyio.CapacityLimiter(_CONNECTIONS)

    async def deliver(self, mail: Mail) -> None:
        try:
            refused = await anyio.to_thread.run_sync(self._send, mail, limiter=self._limiter)
        except smtplib.SMTPRecipientsRefused as error:
            raise NotDelivered(f"the mail server refuses {_reasons(error.recipients)}") from error
        except smtplib.SMTPResponseException as error:
            raise NotDelivered(f"the mail server answers {error.smtp_code} {_text(error.smtp_error)}") from error
        except (OSError, smtplib.SMTPException) as error:
            raise NotDelivered(f"the mail server cannot be used: {error}") from error
        if refused:
            raise NotDelivered(f"the mail server refuses {_reasons(refused)}, and has taken it for all others")

    def _send(self, mail: Mail) -> dict[str, tuple[int, bytes]]:
        """Send a message. Returns the recipients that were refused, where others were not."""
        connection = self._connected()
        try:
            refused = connection.sendmail(mail.sender, list(mail.recipients), mail.content)
            # The message is the server's now: how it takes leave changes nothing (RFC 5321, section 4.1.1.10).
            with suppress(OSError, smtplib.SMTPException):
                connection.quit()
        finally:
            connection.close()
        return refused

    def _connected(self) -> smtplib.SMTP:
        server = self._server
        connection: smtplib.SMTP
        if server.encrypted:
            connection = smtplib.SMTP_SSL(server.host, server.port, timeout=_PATIENCE, context=server.tls)
        else:
            connection = smtplib.SMTP(server.host, server.port, timeout=_PATIENCE)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: smtplib.SMTP) -> None:
        server = self._server
        connection.ehlo_or_helo_if_needed()
        encrypted = server.encrypted
        if not encrypted and connection.has_extn("starttls"):
            connection.starttls(context=server.tls)
            encrypted = True
        if server.user is not None and server.password is not None:
            if not encrypted and not server.is_here:
                raise smtplib.SMTPException("it offers no encryption, and a password is not sent without")
            connection.login(server.user, server.password)

    async def aclose(self) -> None:
        """Nothing is held between messages."""


def _reasons(refused: dict[str, tuple[int, bytes]]) -> str:
    return ", ".join(f"{recipient} ({code} {_text(reason)})" for recipient, (code, reason) in refused.items())


def _text(reason: bytes | str) -> str:
    return reason.decode(errors="replace") if isinstance(reason, bytes) else reason
