"""A real SMTP server for tests: python mail_server.py [--tls CERTIFICATE_AND_KEY] [--login] [--rude]

It prints its port, and each message that it takes as a line of JSON. It refuses recipients whose names begin with
"refused", and every message whose text says "too spicy". With --tls it offers STARTTLS, with --login it asks for the
user "shop" with the password "open sesame", encrypted or not. With --rude it refuses to take leave. It ends when its
standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["MailServer", "mail_server"]


class MailServer:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self._lines = process.stdout
        self.port: int = json.loads(self._lines.readline())["port"]

    def received(self) -> dict[str, Any]:
        """The next message: {"sender", "recipients", "content", "encrypted", "user"}."""
        message: dict[str, Any] = json.loads(self._lines.readline())
        return message

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()


@contextmanager
def mail_server(*options: str | Path) -> Iterator[MailServer]:
    """A server for the length of a block."""
    command = [sys.executable, __file__, *map(str, options)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield MailServer(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

    parser = argparse.ArgumentParser()
    parser.add_argument("--tls")
    parser.add_argument("--login", action="store_true")
    parser.add_argument("--rude", action="store_true")
    options = parser.parse_args()

    class Handler:
        async def handle_RCPT(
            self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
        ) -> str:
            if address.startswith("refused"):
                return "550 nobody of that name"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:
            return "451 not so fast" if options.rude else "221 bye"

        async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
            content = envelope.original_content or b""
            if b"too spicy" in content:
                return "554 spam"
            user = session.auth_data.login.decode() if session.auth_data else None
            message = {
                "sender": envelope.mail_from,
                "recipients": envelope.rcpt_tos,
                "content": content.decode("latin-1"),
                "encrypted": session.ssl is not None,
                "user": user,
            }
            _say(message)
            return "250 taken"

    def authenticate(
        _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: LoginPassword
    ) -> AuthResult:
        return AuthResult(success=data == LoginPassword(b"shop", b"open sesame"), handled=False, auth_data=data)

    context = None
    if options.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.tls)
    login = {"auth_required": True, "auth_require_tls": False, "authenticator": authenticate} if options.login else {}

    async def serve() -> None:
        def protocol() -> SMTP:
            return SMTP(Handler(), hostname="localhost", tls_context=context, **login)

        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        _say({"port": server.sockets[0].getsockname()[1]})
        await asyncio.to_thread(sys.stdin.read)
        server.close()

    asyncio.run(serve())


def _say(value: object) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    main()
