"""The "send_email" binding: `env.EMAIL.send(message)`, over RPC, as remote bindings reach it.

A message has one of the two forms that the Workers runtime takes (workerd, types/defines/email.d.ts): an EmailMessage,
whose text is written already, or its parts. Where mail goes is what `store` says: files by default, or an SMTP server.
"""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from anyio import to_thread
from anyio.abc import TaskGroup

from capnweb_py.target import RpcTarget
from capnweb_py.web import Request, Response
from proxy_server.bindings import Binding, BindingError, Opener
from proxy_server.bindings.email_builder import built_mail
from proxy_server.bindings.email_raw import RAW, raw_mail
from proxy_server.bindings.email_rules import (
    MAX_MESSAGE_BYTES,
    VERIFIED_MAX_MESSAGE_BYTES,
    AllowedAddresses,
    EmailRefusal,
    EmailUndelivered,
)
from proxy_server.channels import LOG
from proxy_server.declined import Error
from proxy_server.stores.mail import MailOutlet, NotDelivered
from proxy_server.stores.mail_files import MailFiles
from proxy_server.stores.mail_smtp import SmtpOutlet, parse_smtp_url
from proxy_server.tables import Table

__all__ = ["SendEmail", "SendEmailTarget", "parse"]

_ID_CHARACTERS: Final = string.ascii_letters + string.digits
_ID_LENGTH: Final = 36


def parse(table: Table, state_dir: Path) -> Opener:
    """Check the table of a send_email binding.

    Raises:
        ConfigError: if a key is unknown, or its value not valid.
    """
    allowed = _allowed(table)
    limit = table.integer("max_message_bytes", MAX_MESSAGE_BYTES, low=1, high=VERIFIED_MAX_MESSAGE_BYTES)
    outlet = _outlet(table, state_dir)
    table.finish()

    async def open_send_email(_tasks: TaskGroup) -> Binding:
        return SendEmail(outlet, allowed, limit)

    return open_send_email


def _allowed(table: Table) -> AllowedAddresses:
    """Which addresses the table allows. A list that is there allows only what is in it, even if that is nothing."""
    destination = table.optional_text("destination_address")
    lists = {
        key: frozenset(table.texts(key)) if key in table.written else None
        for key in ("allowed_destination_addresses", "allowed_sender_addresses")
    }
    if destination is not None and lists["allowed_destination_addresses"] is not None:
        raise table.error("one address or a list of them: not both", "allowed_destination_addresses")
    return AllowedAddresses(destination, **lists)


def _outlet(table: Table, state_dir: Path) -> MailOutlet:
    binding = table.name
    url = table.text("store", f"file:///email-{binding}")
    password_variable = table.optional_text("password_env")
    ca_file = table.optional_text("ca_file")
    scheme = urlsplit(url).scheme
    if scheme == "file" and url.startswith("file:///") and url != "file:///":
        # As in "sqlite:///queues.sqlite3": relative to the folder of embedded stores, with one more slash absolute.
        return MailFiles(state_dir / url.removeprefix("file:///"))
    if scheme not in {"smtp", "smtps"}:
        raise table.error(f'"{url}" takes no mail: file:///FOLDER, smtp://HOST and smtps://HOST do', "store")
    password = None
    if password_variable is not None:
        password = os.environ.get(password_variable)
        if not password:
            raise table.error(f"the environment variable {password_variable} is not set", "password_env")
    try:
        return SmtpOutlet(parse_smtp_url(url, password, ca_file))
    except OSError as error:
        raise table.error(f"the certificates cannot be read: {error}", "ca_file") from error
    except ValueError as error:
        raise table.error(str(error), "store") from error


class SendEmail:
    """Sends mail for many sessions.

    Args:
        outlet: where it goes.
        allowed: from whom and to whom.
        limit: how many bytes one message may have.
    """

    def __init__(
        self, outlet: MailOutlet, allowed: AllowedAddresses | None = None, limit: int = MAX_MESSAGE_BYTES
    ) -> None:
        self._outlet = outlet
        self._allowed = allowed or AllowedAddresses()
        self._limit = limit

    def rpc_main(self) -> object:
        return SendEmailTarget(self)

    async def fetch(self, request: Request) -> Response:
        raise BindingError("a send_email binding speaks RPC only: call send()")

    async def aclose(self) -> None:
        await self._outlet.aclose()

    async def send(self, parts: Mapping[str, Any]) -> str:
        """Send a message of either form. Returns its id.

        Raises:
            EmailRefusal: if it is not to be sent, or could not be delivered.
        """
        message = self._allowed.addressed(parts)
        message_id = _new_id(message.get("from"))
        if RAW in message:
            mail = await raw_mail(message, self._allowed, self._limit)
        else:
            mail = await to_thread.run_sync(built_mail, message, message_id, self._allowed, self._limit)
        try:
            await self._outlet.deliver(mail)
        except NotDelivered as error:
            LOG.warning("a message was not delivered: %s", type(error.__cause__ or error).__name__)
            LOG.debug("why: %s", error)  # what a mail server says names addresses
            raise EmailUndelivered(str(error), "E_DELIVERY_FAILED") from error
        return message_id


class SendEmailTarget(RpcTarget):
    """The main object of a session: `env.EMAIL`."""

    def __init__(self, binding: SendEmail) -> None:
        self._binding = binding

    async def send(self, message: object) -> dict[str, str]:
        """Send a message.

        Args:
            message: `{from, to, "EmailMessage::raw": text or stream}`, or
                `{from, to, cc, bcc, replyTo, subject, text, html, headers, attachments}`.

        Returns:
            {messageId}: one that is made up here, as Cloudflare does.

        Raises:
            TypeError: if it is neither.
            Error: if it is not sent; `code` is Cloudflare's name for the reason.
        """
        if not isinstance(message, dict):
            raise TypeError("send() takes an EmailMessage, or an object of a message's parts")
        try:
            return {"messageId": await self._binding.send(message)}
        except EmailRefusal as refusal:
            raise Error(str(refusal), **({} if refusal.code is None else {"code": refusal.code})) from None


def _new_id(sender: object) -> str:
    """An id in Cloudflare's form: 36 letters and digits at the domain of the sender, which is checked later."""
    address = sender.get("email") if isinstance(sender, dict) else sender
    domain = parseaddr(str(address))[1].rpartition("@")[2]
    return f"<{''.join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))}@{domain}>"
