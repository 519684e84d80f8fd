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


async def obey(lines: AsyncIterable[bytes], app: ProxyApp, url: str, answer: Callable[[str], None]) -> None:
    """Do what each line says, until there are no more.

    Args:
        lines: the input.
        app: the application, which is running.
        url: the connection string.
        answer: takes the answer to each line, a line itself.
    """
    async for line in lines:
        answer(json.dumps(await _answer(line, app, url)))


async def _answer(line: bytes, app: ProxyApp, url: str) -> Mapping[str, Any]:
    try:
        document = json.loads(line)
        if not isinstance(document, dict):
            raise ConfigError(SOURCE, "", "a line has to hold one JSON object")
        await app.replace_bindings(read(document, SOURCE).bindings)
    except ValueError as error:
        return {"error": f"{SOURCE}: the line is not JSON: {error}"}
    except (ConfigError, BindingError) as error:
        return {"error": str(error)}
    return {"url": url}
