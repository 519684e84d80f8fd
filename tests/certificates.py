"""Certificates for tests, of an authority that nobody else knows."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

__all__ = ["certificates"]


def certificates(directory: Path, host: str = "127.0.0.1") -> tuple[trustme.CA, ssl.SSLContext]:
    """An authority and a client's certificate of its own as files, "ca.pem", "client.pem" and "client.key", and the TLS
    of a server that asks for the latter."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    client = authority.issue_cert("client@example.com")
    client.private_key_pem.write_to_path(directory / "client.key")
    client.cert_chain_pems[0].write_to_path(directory / "client.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    authority.issue_cert(host).configure_cert(tls)
    return authority, tls
