"""A program's variables in development, as Wrangler gives them: `vars` of its file, with what the files `.dev.vars` or
`.env` beside it say on top (dev-vars.ts and dot-env.ts of cloudflare/workers-sdk).

The files are read as npm `dotenv` reads them, whose rules are one regular expression: Python's packages of that kind
have other rules for `#`, quotes and escapes, and a secret would be another one here than in the Worker.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from proxy_server.tables import ConfigError

__all__ = ["in_development"]

# LINE of npm dotenv's main.js.
_LINE: Final = re.compile(
    r"""^\s*(?:export\s+)?([\w.-]+)(?:\s*=\s*?|:\s+?)"""
    r"""(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\r\n]+)?\s*(?:\#.*)?$""",
    re.MULTILINE | re.ASCII,
)
_QUOTED: Final = re.compile(r"""^(['"`])(.*)\1$""", re.DOTALL)

# What npm dotenv-expand replaces: ${NAME}, ${NAME:-default}, ${NAME-default}, $NAME; and a dollar that stays.
_REFERENCE: Final = re.compile(r"\\\$|\$\{([^{}:-]+)(?::?-([^{}]*))?\}|\$([A-Za-z_][A-Za-z0-9_]*)")

# "false" leaves `.env` files alone.
_LOAD_ENV_FILES: Final = "CLOUDFLARE_LOAD_DEV_VARS_FROM_DOT_ENV"
# "true" adds all variables of the process, over those of `.env` files.
_INCLUDE_PROCESS: Final = "CLOUDFLARE_INCLUDE_PROCESS_ENV"


def in_development(
    declared: Mapping[str, Any], secrets: Sequence[str] | None, directory: Path, environment: str | None
) -> dict[str, Any]:
    """The variables of a program.

    Args:
        declared: what `vars` of the Wrangler file says.
        secrets: the names that `secrets.required` has there. Files then add no others; None lets them add any.
        directory: the folder of the Wrangler file.
        environment: the one that is meant. `.dev.vars.staging` takes the place of `.dev.vars`, and `.env.staging` comes
            over `.env`.

    Raises:
        ConfigError: if a file cannot be read.
    """
    added = _dev_vars(directory, environment)
    if added is None and os.environ.get(_LOAD_ENV_FILES, "true").lower() != "false":
        includes_process = secrets is not None or os.environ.get(_INCLUDE_PROCESS, "false").lower() == "true"
        added = _env_files(directory, environment, os.environ if includes_process else {})
    if secrets is not None:
        added = {name: value for name, value in (added or {}).items() if name in declared or name in secrets}
    return {**declared, **(added or {})}


def _dev_vars(directory: Path, environment: str | None) -> dict[str, str] | None:
    """What `.dev.vars` says, as it stands; None where there is none."""
    names = [".dev.vars"] if environment is None else [f".dev.vars.{environment}", ".dev.vars"]
    for name in names:
        text = _text(directory / name)
        if text is not None:
            return _parsed(text)
    return None


def _env_files(directory: Path, environment: str | None, process: Mapping[str, str]) -> dict[str, str]:
    """What the `.env` files say, later ones over earlier ones and the process over all, with references replaced."""
    names = [".env", ".env.local"]
    if environment is not None:
        names += [f".env.{environment}", f".env.{environment}.local"]
    parsed: dict[str, str] = {}
    for name in names:
        parsed |= _parsed(_text(directory / name) or "")
    values = dict(process)
    for name, value in parsed.items():
        values[name] = process.get(name) or _REFERENCE.sub(partial(_referred, values), value)
    return values


def _referred(values: Mapping[str, str], match: re.Match[str]) -> str:
    braced, default, bare = match.groups()
    if braced is None and bare is None:
        return "$"
    return values.get(braced or bare) or default or ""


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(file, "", f"the file cannot be read: {error}") from error


def _parsed(text: str) -> dict[str, str]:
    """The variables of a file, as npm dotenv has them."""
    values = {}
    for match in _LINE.finditer(re.sub(r"\r\n?", "\n", text)):
        written = (match[2] or "").strip()
        value = _QUOTED.sub(r"\2", written)
        if written.startswith('"'):
            value = value.replace(r"\n", "\n").replace(r"\r", "\r")
        values[match[1]] = value
    return values
