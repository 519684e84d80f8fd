"""Where bindings may connect to: allow-lists of hosts and ports, and connecting to nothing that was not checked.

A name is looked up once, here, and the connection goes to an address that this look-up gave and that passed: a name
whose answer changes between the check and the connection (DNS rebinding) gains nothing by it. Names, and addresses in
public networks, are allowed by the list alone. An address that is not public (loopback, link-local, private, shared,
multicast: the IANA special-purpose registries, as `ipaddress` knows them) has to be on the list itself, whatever name
led to it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from socket import SOCK_STREAM
from typing import Final, TypeAlias

import anyio
import attrs
from anyio.abc import SocketStream

from proxy_server.bindings import BindingError
from proxy_server.channels import LOG

__all__ = ["CONNECT_TIMEOUT", "AddressRefused", "AllowList", "broke_off", "reason_of", "split_address"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# How long, in seconds, looking up a name and connecting may take.
CONNECT_TIMEOUT: Final = 10.0

_ANY: Final = "*"

# RFC 6761, section 6.3: this name is the loopback interface, and nothing else can be meant by it.
_LOOPBACK_NAME: Final = "localhost"

# RFC 6052, section 2.1: behind this prefix of IPv6 stand the addresses of IPv4.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

# Prefixes behind which addresses of IPv4 may stand (RFC 8215; RFC 2765; RFC 4291, section 2.5.5.1), site-local
# addresses (RFC 3879), and those for segments, documentation and relays (RFC 9602, 9637, 7526).
_NEVER_PUBLIC: Final = (
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("::ffff:0:0:0/96"),
    ipaddress.ip_network("::/96"),
    ipaddress.ip_network("fec0::/10"),
    ipaddress.ip_network("5f00::/16"),
    ipaddress.ip_network("3fff::/20"),
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("192.88.99.0/24"),
)

_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_MAX_NAME: Final = 253
_PORT: Final = re.compile(r"[0-9]{1,5}")
_MAX_PORT: Final = 65535

# A host in brackets, or one without a colon, and what follows the colon.
_HOST_AND_PORT: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::(.*))?", re.DOTALL)


class AddressRefused(BindingError):
    """A binding may not connect there."""


@attrs.frozen
class _Rule:
    """One entry. `host` is a network, a name, or the end of names that begins with a dot; empty stands for all."""

    host: _Network | str
    # None stands for all.
    ports: frozenset[int] | None

    def has_name(self, name: str, port: int) -> bool:
        if isinstance(self.host, str) and self._has_port(port):
            return self.host in ("", name) or (self.host.startswith(".") and name.endswith(self.host))
        return False

    def has_address(self, address: _Address, port: int) -> bool:
        return not isinstance(self.host, str) and self._has_port(port) and address in self.host

    def _has_port(self, port: int) -> bool:
        return self.ports is None or port in self.ports


@attrs.frozen
class AllowList:
    """The hosts and ports that a binding may connect to."""

    _rules: tuple[_Rule, ...]

    @classmethod
    def parse(cls, entries: Iterable[str], default_ports: Iterable[int] = ()) -> AllowList:
        """Read the entries of a configuration.

        Args:
            entries: "host:port" each. The host is a name, "*.example.com" for all names below one, an address, a range
                of addresses such as "10.0.0.0/8", or "*"; IPv6 stands in brackets. The port is a number, or "*".
            default_ports: of entries that name none. Without any, an entry must.

        Raises:
            ValueError: if an entry is none. The message has the entry.
        """
        defaults = frozenset(default_ports)
        return cls(tuple(_rule(entry, defaults) for entry in entries))

    async def connect(self, host: str, port: int) -> SocketStream:
        """Connect to a host, if it is allowed, by an address that is.

        Args:
            host: a name or an address.

        Raises:
            AddressRefused: if the name, or every address that it has, is not allowed.
            OSError: if the name has no address, or none that is allowed answers. TimeoutError if that takes too long.
        """
        with anyio.fail_after(CONNECT_TIMEOUT):
            addresses = await self.addresses(host, port)
            # Of several, an address that does not answer at all must leave time for the next one.
            patience = CONNECT_TIMEOUT / len(addresses)
            failure: OSError | None = None
            for address in addresses:
                try:
                    with anyio.fail_after(patience):
                        return await anyio.connect_tcp(address, port)
                except OSError as error:
                    failure = error
        assert failure is not None, "there is an address, or an exception"
        raise failure

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be connected to: one at least.

        Raises:
            AddressRefused: if there is none.
            OSError: if the name has no address. TimeoutError if that takes too long to find out.
        """
        literal = _literal(host)
        if literal is not None:
            if not self._has_address(literal, port, named=self._has_name("", port)):
                raise AddressRefused(f"refused: {_shown(host, port)} is not on the binding's allow-list")
            return [str(literal)]
        name = _name(host)
        if name is None or not self._has_name(name, port):
            raise AddressRefused(f"refused: {_shown(host, port)} is not on the binding's allow-list")
        with anyio.fail_after(CONNECT_TIMEOUT):
            found = await anyio.getaddrinfo(name, port, type=SOCK_STREAM)
        addresses = list(dict.fromkeys(ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in found))
        allowed = [
            address
            for address in addresses
            if self._has_address(address, port, named=True) or (name == _LOOPBACK_NAME and self._names_loopback(port))
        ]
        if not allowed:
            LOG.warning("%s is allowed, and its address %s is not", _shown(host, port), ", ".join(map(str, addresses)))
            raise AddressRefused(f"refused: {_shown(host, port)} leads to an address that is not on the allow-list")
        return [str(address) for address in allowed]

    def _has_name(self, name: str, port: int) -> bool:
        return any(rule.has_name(name, port) for rule in self._rules)

    def _names_loopback(self, port: int) -> bool:
        return any(rule.host == _LOOPBACK_NAME and rule.has_name(_LOOPBACK_NAME, port) for rule in self._rules)

    def _has_address(self, address: _Address, port: int, *, named: bool) -> bool:
        """Whether an address may be connected to, by itself or, if it is public, for a name that led to it."""
        seen = {address, _embedded(address)}
        if any(rule.has_address(one, port) for rule in self._rules for one in seen):
            return True
        return named and all(_is_public(one) for one in seen)


def _is_public(address: _Address) -> bool:
    never = any(address in network for network in _NEVER_PUBLIC if network.version == address.version)
    return address.is_global and not address.is_multicast and not never


def split_address(text: str) -> tuple[str, int]:
    """The host and the port of "host:port" or "[address of IPv6]:port".

    Raises:
        ValueError: if it is none.
    """
    match = _HOST_AND_PORT.fullmatch(text)
    port = None if match is None else _port(match[3] or "")
    if match is None or port is None:
        raise ValueError(f'"{text[:_MAX_NAME]}" is no address: "host:port" is one')
    return match[1] or match[2], port


def _rule(entry: str, defaults: frozenset[int]) -> _Rule:
    match = _HOST_AND_PORT.fullmatch(entry)
    if match is None:
        raise ValueError(f'"{entry}" is no entry: "db.internal:5432", "10.0.0.0/8:5432" and "[fd00::/8]:*" are')
    host, port = (match[1] or match[2]).lower(), match[3]
    if port is None and not defaults:
        raise ValueError(f'"{entry}" names no port: "{entry}:5432" does, and "{entry}:*" all')
    if port is None:
        ports: frozenset[int] | None = defaults
    elif port == _ANY:
        ports = None
    else:
        number = _port(port)
        if number is None:
            raise ValueError(f'"{entry}" names no port: 1 to {_MAX_PORT} are, and "*" is all')
        ports = frozenset({number})
    if match[1] is not None or "/" in host or _literal(host) is not None:
        try:
            return _Rule(ipaddress.ip_network(host), ports)
        except ValueError as error:
            raise ValueError(f'"{entry}" is no range of addresses: {error}') from error
    if host == _ANY:
        return _Rule("", ports)
    name = _name(host.removeprefix("*."))
    if name is None:
        raise ValueError(f'"{entry}" names no host: "db.internal", "*.internal", "10.0.0.0/8" and "*" are such')
    return _Rule(f".{name}" if host.startswith("*.") else name, ports)


def _port(text: str) -> int | None:
    number = int(text) if _PORT.fullmatch(text) else 0
    return number if 0 < number <= _MAX_PORT else None


def _name(host: str) -> str | None:
    """A host's name as it is compared and looked up; None if it is none."""
    try:
        name = host.removesuffix(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        return None
    return name if len(name) <= _MAX_NAME and _NAME.fullmatch(name) else None


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _embedded(address: _Address) -> _Address:
    """The address of IPv4 that one of IPv6 leads to, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def broke_off(error: BaseException) -> str:
    """What is said of a connection that has ended in an error."""
    return f"the connection broke off: {reason_of(error)}"


def reason_of(error: BaseException) -> str:
    """What lies behind an error of a connection, in the words of the operating system where there are some."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__
