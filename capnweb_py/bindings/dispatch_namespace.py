"""A dispatch namespace: services that are got by their names, as the user Workers of Workers for Platforms are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from .channels import Channels
from .given import given
from .service import Service

__all__ = ["MAX_OPTIONS", "DispatchNamespace"]

# In characters of JSON. They go in a header of each request, whose head has at most 64 KiB, and in the URL of a
# session, in which most of JSON's marks are three bytes long.
MAX_OPTIONS: Final = 16 * 1024


class DispatchNamespace:
    """The facade of a dispatch namespace: `env.DISPATCH.get("customer-a").hello("World")`."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def get(
        self, name: str, args: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
    ) -> Service:
        """A service of the namespace. Nothing is sent before it is used, so a name that nothing has fails there.

        What is got twice with the same arguments shares one RPC session.

        Args:
            name: of the service.
            args: for the service, in JSON's types.
            options: as of the Workers runtime: {"limits": {"cpuMs": 10, "subRequests": 5}, "outbound": {...}}.

        Raises:
            TypeError: if the name is no text, or JSON has no form for an argument.
            ValueError: if the name is empty, or all of it is too long to be sent.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a service is a str, not {type(name).__name__}")
        if not name:
            raise ValueError("the name of a service is not empty")
        text = json.dumps(given(name=name, args=args, options=options), allow_nan=False)
        if len(text) > MAX_OPTIONS:
            raise ValueError(f"name, args and options have {len(text)} characters in JSON: {MAX_OPTIONS} at most")
        return Service(self._channels.dispatched(name, text))

    def __repr__(self) -> str:
        return f"<dispatch namespace {self._channels.name}>"
