"""The control of a proxy that another program runs: `serve -`. JSON lines come in on standard input, and each gets
one back.

    {"bindings": {"IMAGES": {"type": "images"}}}    ->    {"url": "http://127.0.0.1:8787/<secret>/"}
                                                    or    {"error": "<what is wrong, where, and what would be valid>"}

Each line declares all bindings that there are to be from then on. The end of the input stops the server: it never
outlives the program that holds the other end.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from proxy_server.app import ProxyApp
from proxy_server.bindings import BindingError
from proxy_server.config import read
from proxy_server.tables import ConfigError

__all__ = ["SOURCE", "obey"]

# What errors call the input. It lies in the current directory: targets are looked for there.
SOURCE: Final = Path("standard input")


async def obey(lines: AsyncIterable[bytes | None], app: ProxyApp, url: str, answer: Callable[[str], None]) -> None:
    """Do what each line says, until there are no more.

    Args:
        lines: the input. None stands for a line that was too long to be read.
        app: the application, which is running.
        url: the connection string.
        answer: takes the answer to each line, a line itself.
    """
    async for line in lines:
        answer(json.dumps(await _answer(line, app, url)))


async def _answer(line: bytes | None, app: ProxyApp, url: str) -> Mapping[str, Any]:
    try:
        await app.replace_bindings(read(_document(line), SOURCE).bindings)
    except (ConfigError, BindingError) as error:
        return {"error": str(error)}
    return {"url": url}


def _document(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise ConfigError(SOURCE, "", "the line is too long")
    try:
        document = json.loads(line)
    except RecursionError:
        raise ConfigError(SOURCE, "", "the line nests too deep") from None
    except ValueError as error:
        raise ConfigError(SOURCE, "", f"the line is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(SOURCE, "", "a line has to hold one JSON object")
    return document
