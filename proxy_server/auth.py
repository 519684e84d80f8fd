"""Who may come in: the secret in the connection string, the origins of web pages, and keeping the secret out of logs.

The connection string is `http://host:port/<secret>/`. Its path is all that clients send of it unchanged
(Miniflare fetches the string as it is, and for RPC turns its scheme into ws and adds a query), so the secret
is the path, all of it.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from typing import Final

import attrs

from capnweb_py.transports.address import url_host
from proxy_server.channels import Scope, header
from proxy_server.refusals import Refusal

__all__ = ["Gate", "connection_string", "is_loopback", "new_secret"]

# 256 bits: nothing that is tried over a network finds it.
_SECRET_BYTES: Final = 32


# The same for every path, method and channel: it tells nothing about what is behind.
_UNAUTHORIZED: Final = Refusal(401, "the secret of the connection string is missing or wrong", "secret")
_FOREIGN_ORIGIN: Final = Refusal(403, "web pages of this origin may not use this server: see allowed_origins", "origin")


@attrs.frozen
class Gate:
    """Decides whether a request passes, before anything else of it is looked at.

    Args:
        secret: the path segment that opens.
        allowed_origins: origins of web pages that may come in with the secret. A request without an Origin
            header is no web page's: the Workers runtime, Node and Python send none.
    """

    secret: str = attrs.field(repr=False)
    allowed_origins: frozenset[str] = frozenset()

    def page(self, scope: Scope) -> str | None:
        """The name of what a request asks of the server itself, one segment behind the secret; None if nothing."""
        path, _, name = _path(scope).rpartition(b"/")
        if not path or self._refusal(scope, path) is not None:
            return None
        return name.decode("utf-8", "replace")

    def refusal(self, scope: Scope) -> Refusal | None:
        """Why a request or a WebSocket handshake is refused; None where it passes."""
        return self._refusal(scope, _path(scope))

    def _refusal(self, scope: Scope, path: bytes) -> Refusal | None:
        if not hmac.compare_digest(path, self.secret.encode()):
            return _UNAUTHORIZED
        origin = header(scope, b"origin")
        if origin is not None and origin not in self.allowed_origins:
            return _FOREIGN_ORIGIN
        return None


def _path(scope: Scope) -> bytes:
    """The path below the point where the application is mounted, without the slashes around it."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.removeprefix("/").removesuffix("/").encode("utf-8", "surrogatepass")


def new_secret() -> str:
    """A fresh secret, in characters that a URL's path takes as they are."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def connection_string(host: str, port: int, secret: str) -> str:
    """The URL that gives access to a server which listens on an address."""
    return f"http://{url_host(host)}:{port}/{secret}/"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
