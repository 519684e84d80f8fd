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
from .d1 import D1Database
from .dispatch_namespace import DispatchNamespace
from .fetcher import Fetcher, Pipeline
from .images import Images
from .kv import KvNamespace
from .queue import Queue
from .r2 import R2Bucket
from .send_email import SendEmail
from .service import Service

__all__ = ["FACADES"]

# What makes the facade of a binding, by its type.
FACADES: Final[Mapping[str, Callable[[Channels], Any]]] = MappingProxyType(
    {
        "d1": D1Database,
        "dispatch_namespace": DispatchNamespace,
        "images": Images,
        "kv_namespace": KvNamespace,
        "queue": Queue,
        "r2_bucket": R2Bucket,
        "send_email": SendEmail,
        "service": Service,
        "fetcher": Fetcher,
        "ai": Fetcher,
        "browser": Fetcher,
        "mtls_certificate": Fetcher,
        "pipeline": Pipeline,
        "vectorize": Fetcher,
        "agent_memory": Service,
        "ai_search": Service,
        "ai_search_namespace": Service,
        "artifacts": Service,
        "flagship": Service,
        "media": Service,
        "stream": Service,
        "websearch": Service,
        "connect": Connect,
        "hyperdrive": Connect,
        "vpc_network": Connect,
        "vpc_service": Connect,
    }
)
