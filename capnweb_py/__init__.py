"""capnweb-py: object-capability RPC that speaks the wire of Cap'n Web. This file is the public face; it has no code."""

from __future__ import annotations

from .client import connect, open_session
from .errors import LimitExceeded, ProtocolError, RemoteError, RpcError, SessionClosed
from .options import Limits, SessionOptions
from .server import serve
from .session import RpcSession, SessionStats
from .stub import RpcPromise, RpcStub
from .target import RpcTarget
from .transports.memory import memory_pair
from .values import INVALID_DATE, UNDEFINED, BigInt, TypedArray

__all__ = [
    "INVALID_DATE",
    "UNDEFINED",
    "BigInt",
    "LimitExceeded",
    "Limits",
    "ProtocolError",
    "RemoteError",
    "RpcError",
    "RpcPromise",
    "RpcSession",
    "RpcStub",
    "RpcTarget",
    "SessionClosed",
    "SessionOptions",
    "SessionStats",
    "TypedArray",
    "connect",
    "memory_pair",
    "open_session",
    "serve",
]
