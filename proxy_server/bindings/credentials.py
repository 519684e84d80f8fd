"""What a binding proves itself with to a server: secrets from environment variables, and certificates from files.

Nothing here repeats a secret: errors name the variable, or the file, that it is from.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

from proxy_server.tables import Table

__all__ = ["secret", "tls_context"]

_KEYS: Final = ("ca", "client_certificate", "client_key")


def secret(table: Table) -> str:
    """The value of a table such as { env = "AI_TOKEN", prefix = "Bearer " }: a variable's, behind the prefix if any.

    Raises:
        ConfigError: if the variable is not set, or empty.
    """
    name = table.text("env")
    prefix = table.text("prefix", "")
    table.finish()
    value = os.environ.get(name)
    if not value:
        raise table.error(f"the environment variable {name} is {'not set' if value is None else 'empty'}", "env")
    return prefix + value


def tls_context(table: Table) -> ssl.SSLContext | None:
    """How TLS is spoken, by the keys `ca`, `client_certificate` and `client_key`; None where there is none of them.

    Their values are files of PEM, beside the configuration if relative. `ca` replaces the system's authorities. A key
    may stand in the file of its certificate.

    Raises:
        ConfigError: if a file cannot be read or used, or there is a key without a certificate.
    """
    files = {key: _file(table, key) for key in _KEYS}
    authorities, certificate, key = (files[name] for name in _KEYS)
    if key is not None and certificate is None:
        raise table.error('the key needs its certificate: the key "client_certificate"', "client_key")
    if authorities is None and certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:  # SSLError is one
        raise table.error(f"{authorities} is no file of certificates: {_reason(error)}", "ca") from error
    if certificate is not None:
        try:
            # A key under a password would be asked for at the terminal.
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:
            problem = f"{certificate} and its key cannot be used: {_reason(error)}"
            raise table.error(problem, "client_certificate") from error
    return context


def _file(table: Table, key: str) -> str | None:
    name = table.optional_text(key)
    return None if name is None else str(table.source.resolve().parent / name)


def _no_password() -> str:
    raise ValueError("the key is under a password, which nobody could be asked for")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
