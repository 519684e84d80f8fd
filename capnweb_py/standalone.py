"""The codec alone: values to JSON text and back, without a session, so without anything that passes by reference."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from .codec import JSON, CodecError
from .delivery import Deliveries
from .deserialize import Deserializer
from .errors import LimitExceeded, ProtocolError
from .hooks import Hook
from .options import Limits
from .serialize import TextSerializer
from .streams import WritableStream
from .web import Blob, ReadableStream

__all__ = ["NO_SESSION", "deserialize", "serialize"]

_LIMITS: Final = Limits()


def serialize(value: Any) -> str:
    """The text of a value, as a message would hold it.

    Raises:
        TypeError: if something in it cannot be sent, stubs, targets and functions included; the message says where it
            is.
    """
    data, _ = JSON.encode(TextSerializer(NO_SESSION, _LIMITS).write(value))
    return data.decode()


def deserialize(text: str) -> Any:
    """The value of a text that `serialize`, here or in another implementation, has made.

    Raises:
        ProtocolError: if the text is not such a value, or refers to something of a session.
        LimitExceeded: if it is deeper, or holds a longer bigint, than the default `Limits` allow.
    """
    try:
        tree = JSON.decode(text, binary=False)
    except CodecError as error:
        raise ProtocolError(str(error)) from None
    try:
        return Deserializer(NO_SESSION, _LIMITS).read(tree).value
    except RecursionError:
        raise LimitExceeded("there is no room on Python's stack for what the value nests") from None


class _NoSession:
    """Exporter and importer where there is no session: nothing passes by reference."""

    deliveries: Deliveries | None = None

    def import_id(self, hook: Hook) -> int | None:
        return None

    def export_target(self, target: Any) -> int:
        raise TypeError(f"{target!r} passes by reference, and needs a session for that")

    def export_stub(self, hook: Hook) -> int:
        hook.dispose()
        raise TypeError("a stub passes by reference, and needs a session for that")

    export_promise = export_stub

    def export_writable(self, stream: WritableStream | ReadableStream[Any]) -> int:
        raise TypeError("a stream needs a session to be sent")

    create_pipe = export_writable

    def export_blob(self, blob: Blob) -> int:
        raise TypeError("a blob is sent as a stream, and needs a session for that")

    def unexport(self, ids: list[int]) -> None:
        """Nothing has been exported."""

    def on_send_error(self, error: BaseException) -> BaseException | None:
        return None

    def import_stub(self, import_id: int) -> Hook:
        raise ProtocolError("the text refers to an object of a session")

    import_promise = exported = import_stub

    def import_writable(self, import_id: int) -> NoReturn:
        raise ProtocolError("the text refers to a stream of a session")

    pipe_readable = import_writable

    def import_blob(self, stream: ReadableStream[Any], media_type: str) -> Hook:
        raise AssertionError("there is no stream without a session")

    def local(self, hook: Hook) -> Hook:
        return hook


# For whoever reads or writes a tree alone.
NO_SESSION: Final = _NoSession()
