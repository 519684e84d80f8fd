"""A connection string: where a proxy is, and the key to it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

__all__ = ["ProxyAddress"]


class ProxyAddress:
    """A connection string, and the addresses that follow from it.

    Raises:
        ValueError: if it is no http(s) URL.
    """

    def __init__(self, connection_string: str) -> None:
        parts = urlsplit(connection_string)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a connection string is an http:// or https:// URL, as the proxy server prints it")
        self.http_url: str = connection_string
        self._parts = parts

    def rpc_url(self, binding: str, metadata: Mapping[str, str] | None = None) -> str:
        """Where a binding speaks RPC."""
        query = urlencode([*parse_qsl(self._parts.query), ("MF-Binding", binding), *(metadata or {}).items()])
        return urlunsplit(urlsplit(self.websocket_url)._replace(query=query))

    @property
    def websocket_url(self) -> str:
        """Where a binding has WebSockets that are not RPC: its name is in a header."""
        return urlunsplit(self._parts._replace(scheme="wss" if self._parts.scheme == "https" else "ws"))

    @property
    def host(self) -> str:
        """As much of it as errors may name: the host, and the port that it gives."""
        return self._parts.netloc.rpartition("@")[2]

    @property
    def title(self) -> str:
        """What errors call the proxy."""
        return f"the proxy at {self.host}"

    def __repr__(self) -> str:
        # Not the path: it is the secret.
        return f"<proxy at {self.host}>"
