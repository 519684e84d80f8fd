"""What a WebSocket is to a program: messages both ways, and how it was closed.

Both ends look alike: what `env.SVC.websocket(url)` gives a client (websocket_client.py), and what a target's
`websocket(socket, request)` is given behind a proxy. The rules of closing are those of RFC 6455, section 7.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from .errors import RpcError

if TYPE_CHECKING:
    from .web import HeadersInit, Response

__all__ = [
    "INTERNAL_ERROR",
    "LOST",
    "NORMAL",
    "NO_STATUS",
    "ServerWebSocket",
    "WebSocket",
    "WebSocketClosed",
    "WebSocketRefused",
    "check_close",
    "check_message",
    "sendable_code",
]

# RFC 6455, section 7.4.1.
NORMAL: Final = 1000
INTERNAL_ERROR: Final = 1011
# The same section: these stand for "the close frame had no code" and "there was no close frame". None is ever sent.
NO_STATUS: Final = 1005
LOST: Final = 1006

# What a close frame may say, after the registry of section 11.7 and the ranges of section 7.4.2.
_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})

# RFC 6455, section 5.5: a control frame has at most 125 bytes, and the code takes two.
MAX_REASON_BYTES: Final = 123


class WebSocketClosed(RpcError, ConnectionError):
    """The WebSocket is closed: nothing more comes, and nothing can be sent.

    Attributes:
        code: of the close frame; 1005 if it had none, 1006 if the connection was lost without one.
        reason: of the close frame.
        may_have_run: True, as of `AnswerLost`: the other side may have received what was sent.
    """

    may_have_run: ClassVar[bool] = True

    def __init__(self, code: int, reason: str, title: str = "the WebSocket") -> None:
        said = f" {reason}" if reason else ""
        super().__init__(
            f"{title} has ended: its connection was lost" if code == LOST else f"{title} is closed: {code}{said}"
        )
        self.code = code
        self.reason = reason


class WebSocketRefused(RpcError, ConnectionError):
    """The server answered the handshake with an ordinary response, which is `response`: no WebSocket came about.

    Attributes:
        response: it.
        may_have_run: True: whoever answered may have done something.
    """

    may_have_run: ClassVar[bool] = True

    def __init__(self, title: str, response: Response) -> None:
        super().__init__(f"{title} answered the WebSocket handshake with the status {response.status}")
        self.response = response


class WebSocket(ABC):
    """An open WebSocket. `async for message in socket` reads until the other side closes it.

    One task may send while another one receives. Iterating ends when a close frame has come, whatever its code;
    `close_code` tells it. Where the connection was lost, it raises WebSocketClosed.
    """

    @property
    @abstractmethod
    def subprotocol(self) -> str | None:
        """What both sides agreed to speak, if they named anything."""

    # What errors call it.
    _title = "the WebSocket"
    # How it ended: what either side said first. None while it is open.
    _end: WebSocketClosed | None = None

    @property
    def close_code(self) -> int | None:
        """How the WebSocket was closed, as of `WebSocketClosed.code`; None while it is open."""
        return None if self._end is None else self._end.code

    @property
    def close_reason(self) -> str:
        """What was said when it was closed; empty while it is open."""
        return "" if self._end is None else self._end.reason

    @abstractmethod
    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send one message, a text or bytes. Waits while the other side does not take what was sent before.

        Raises:
            WebSocketClosed: if the WebSocket is closed.
            TypeError: if the message is neither.
        """

    @abstractmethod
    async def receive(self) -> str | bytes:
        """The next message: a text as a str, a binary one as bytes.

        Raises:
            WebSocketClosed: if the WebSocket is closed, and all that came before has been read.
        """

    @abstractmethod
    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the WebSocket. Closing one that is closed does nothing.

        Raises:
            ValueError: if the code is none that may be sent, or the reason is longer than 123 bytes.
        """

    def _closed(self) -> WebSocketClosed:
        """The error about the end, to raise: a new one each time."""
        code = self.close_code
        return WebSocketClosed(LOST if code is None else code, self.close_reason, self._title)

    def __aiter__(self) -> WebSocket:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except WebSocketClosed as error:
            if error.code == LOST:
                raise
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        return f"<WebSocket {'open' if self.close_code is None else f'closed {self.close_code}'}>"


class ServerWebSocket(WebSocket):
    """A WebSocket that a client asks for. It is open from `accept` on, or from the first `send` or `receive`."""

    @property
    @abstractmethod
    def subprotocols(self) -> tuple[str, ...]:
        """What the client offers to speak, what it likes best first."""

    @abstractmethod
    async def accept(self, *, subprotocol: str | None = None, headers: HeadersInit | None = None) -> None:
        """Open the WebSocket.

        Args:
            subprotocol: one of `subprotocols`.
            headers: to be sent with the answer.

        Raises:
            ValueError: if the client does not offer the subprotocol.
            RuntimeError: if the WebSocket is open already.
            WebSocketClosed: if the client has left.
        """


def sendable_code(code: int) -> int:
    """What to say to the next one of how a WebSocket ended: the same where a close frame may say it."""
    if code in _CODES:
        return code
    return NORMAL if code == NO_STATUS else INTERNAL_ERROR


def check_message(message: object) -> None:
    """Check what is to be sent as one message. Raises TypeError if it is none."""
    if not isinstance(message, str | bytes | bytearray | memoryview):
        raise TypeError(f"a message is a str or bytes, not {type(message).__name__}")


def check_close(code: int, reason: str) -> None:
    """Check what a close frame is to say.

    Raises:
        ValueError: if it may not.
    """
    if code not in _CODES:
        raise ValueError(f"{code} is no code to close a WebSocket with: 1000 is, and 3000 to 4999")
    if len(reason.encode("utf-8", "replace")) > MAX_REASON_BYTES:
        raise ValueError(f"the reason of a close frame has at most {MAX_REASON_BYTES} bytes in UTF-8")
