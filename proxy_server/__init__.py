"""A proxy server for Cloudflare-style remote bindings: `python -m proxy_server serve CONFIG`.

It builds on capnweb_py, which never imports it. What can be embedded is in app.py; everything else serves
that. A program that has its bindings in its own process uses `platform_env`; a tool that runs a proxy for one,
`remote_bindings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy_server.platform import platform_env, remote_bindings

__all__ = ["platform_env", "remote_bindings"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: the command line says itself which package is missing.
    if name in __all__:
        from proxy_server import platform

        return getattr(platform, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
