"""The client side of each type of binding: the Workers runtime's API in Python dress, over the channels of a proxy.

One file a type; `FACADES` names them by the types of Wrangler's configuration. What a facade needs of a connection is
in channels.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from .channels import Channels
from .images import Images
from .r2 import R2Bucket
from .service import Service

__all__ = ["FACADES"]

# What makes the facade of a binding, by its type.
FACADES: Final[Mapping[str, Callable[[Channels], Any]]] = MappingProxyType(
    {"images": Images, "r2_bucket": R2Bucket, "service": Service}
)
