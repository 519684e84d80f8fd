"""The client side of each type of binding: the Workers runtime's API in Python dress, over the channels of a proxy.

One file a type; `FACADES` names them by the types of Wrangler's configuration. What a facade needs of a connection is
in channels.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from .channels import Channels
from .connect import Connect
from .fetcher import Fetcher, Pipeline
from .images import Images
from .service import Service

__all__ = ["FACADES"]

# What makes the facade of a binding, by its type.
FACADES: Final[Mapping[str, Callable[[Channels], Any]]] = MappingProxyType(
    {
        "ai": Fetcher,
        "browser": Fetcher,
        "connect": Connect,
        "fetcher": Fetcher,
        "hyperdrive": Connect,
        "images": Images,
        "mtls_certificate": Fetcher,
        "pipeline": Pipeline,
        "service": Service,
        "vectorize": Fetcher,
        "vpc_network": Connect,
        "vpc_service": Connect,
    }
)
