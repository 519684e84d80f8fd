"""capnweb-py: object-capability RPC that speaks the wire of Cap'n Web. This file is the public face; it has no code."""

from __future__ import annotations

from .backoff import Backoff
from .client import connect, http_batch, open_session
from .codec import Codec, CodecError
from .delivery import cancellable
from .errors import (
    AnswerLost,
    CallNotSent,
    LimitExceeded,
    ProtocolError,
    ProxyDenied,
    ProxyError,
    RemoteError,
    RpcError,
    SessionClosed,
    Unreachable,
)
from .gathering import gather
from .options import Limits, SessionOptions
from .process_session import open_process_session, stdio_session
from .server import asgi_app, http_batch_response, serve
from .session import COMPILED, RpcSession, SessionStats
from .standalone import deserialize, serialize
from .stream_session import open_stream_session, serve_streams
from .streams import WritableStream
from .stub import RpcPromise, RpcStub
from .target import RpcTarget
from .transports.memory import memory_pair
from .values import INVALID_DATE, UNDEFINED, BigInt, TypedArray
from .web import Blob, Headers, ReadableStream, Request, Response, Url

__all__ = [
    "COMPILED",
    "INVALID_DATE",
    "UNDEFINED",
    "AnswerLost",
    "Backoff",
    "BigInt",
    "Blob",
    "CallNotSent",
    "Codec",
    "CodecError",
    "Headers",
    "LimitExceeded",
    "Limits",
    "ProtocolError",
    "ProxyDenied",
    "ProxyError",
    "ReadableStream",
    "RemoteError",
    "Request",
    "Response",
    "RpcError",
    "RpcPromise",
    "RpcSession",
    "RpcStub",
    "RpcTarget",
    "SessionClosed",
    "SessionOptions",
    "SessionStats",
    "TypedArray",
    "Unreachable",
    "Url",
    "WritableStream",
    "asgi_app",
    "cancellable",
    "connect",
    "deserialize",
    "gather",
    "http_batch",
    "http_batch_response",
    "memory_pair",
    "open_process_session",
    "open_session",
    "open_stream_session",
    "serialize",
    "serve",
    "serve_streams",
    "stdio_session",
]
