"""A program's variables in development, as Wrangler gives them: `vars` of its file, with what the files `.dev.vars` or
`.env` beside it say on top (dev-vars.ts and dot-env.ts of cloudflare/workers-sdk).
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from proxy_server.tables import ConfigError

__all__ = ["in_development"]

# "false" leaves `.env` files alone.
_LOAD_ENV_FILES: Final = "CLOUDFLARE_LOAD_DEV_VARS_FROM_DOT_ENV"
# "true" has all variables of the process count as if they stood in the first `.env` file.
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
        added = {**(os.environ if includes_process else {}), **_env_files(directory, environment)}
    if secrets is not None:
        added = {name: value for name, value in (added or {}).items() if name in declared or name in secrets}
    return {**declared, **(added or {})}


def _dev_vars(directory: Path, environment: str | None) -> dict[str, str] | None:
    """What `.dev.vars` says, as it stands; None where there is none."""
    names = [".dev.vars"] if environment is None else [f".dev.vars.{environment}", ".dev.vars"]
    for name in names:
        text = _text(directory / name)
        if text is not None:
            return _parsed(text, directory / name, interpolate=False)
    return None


def _env_files(directory: Path, environment: str | None) -> dict[str, str]:
    """What the `.env` files say, later ones over earlier ones, with `${NAME}` replaced."""
    names = [".env", ".env.local"]
    if environment is not None:
        names += [f".env.{environment}", f".env.{environment}.local"]
    texts = [text for name in names if (text := _text(directory / name)) is not None]
    return _parsed("\n".join(texts), directory / ".env", interpolate=True) if texts else {}


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(file, "", f"the file cannot be read: {error}") from error


def _parsed(text: str, file: Path, *, interpolate: bool) -> dict[str, str]:
    try:
        # Imported here: it is needed where there is such a file.
        import dotenv
    except ModuleNotFoundError as error:
        problem = f'reading the file needs the Python package "{error.name}": install capnweb-py[proxy]'
        raise ConfigError(file, "", problem) from error
    values = dotenv.dotenv_values(stream=io.StringIO(text), interpolate=interpolate)
    return {name: value for name, value in values.items() if value is not None}
