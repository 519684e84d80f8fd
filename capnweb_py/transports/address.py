"""From the address that a server listens on to the host of a URL that a client on this machine can connect to."""

from __future__ import annotations

from ipaddress import ip_address

__all__ = ["url_host"]


def url_host(host: str) -> str:
    """How a URL names a listening server: an IPv6 address in brackets (RFC 3986, section 3.2.2).

    "All addresses" is none that one can connect to on every system; this machine's own is one of them.

    Args:
        host: an IP address, or a name.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"
