"""Content that is encrypted with a key of its writer (SSE-C): how it is kept, and read in parts.

It is cut into chunks, each sealed by AES-256-GCM, so that a range is read without what is before it, and nothing is
held whole in memory. That is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, 2015): the nonce of a chunk
is its number and whether it is the last, so none can be exchanged, left out or cut off unseen. Each blob has a key of
its own, made by HKDF-SHA256 of the writer's and the blob's id, so no nonce is used twice with one key.

The writer's key is kept nowhere. Its MD5 is: R2 tells it to whoever asks for the object.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from proxy_server.stores.r2_errors import EncryptionNotApplicable, KeyRequired, NotSupported, WrongKey
from proxy_server.stores.r2_parts import Blob, Blobs, BlobWriter

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["SealedReader", "SealedWriter", "check_key", "key_md5"]

_CHUNK_BYTES: Final = 64 * 1024
_TAG_BYTES: Final = 16
_SEALED_BYTES: Final = _CHUNK_BYTES + _TAG_BYTES
_PURPOSE: Final = b"capnweb_py R2 SSE-C 1"


def key_md5(key: bytes) -> str:
    """What tells one key from another, as R2 has it: the MD5 in base64."""
    return base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()


def check_key(key: bytes | None, kept: str | None) -> None:
    """Check a key against the MD5 of the one that something was encrypted with.

    Raises:
        EncryptionNotApplicable, KeyRequired, WrongKey.
    """
    if kept is None:
        if key is not None:
            raise EncryptionNotApplicable
    elif key is None:
        raise KeyRequired
    elif not hmac.compare_digest(key_md5(key), kept):
        raise WrongKey


def _cipher(key: bytes, blob_id: str) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ModuleNotFoundError as error:
        raise NotSupported(
            'This server cannot encrypt (ssecKey): it lacks the Python package "cryptography", which '
            "capnweb-py[encryption] installs"
        ) from error
    return AESGCM(HKDF(SHA256(), 32, salt=blob_id.encode(), info=_PURPOSE).derive(key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


class SealedWriter:
    """A BlobWriter that encrypts what it hands on.

    Args:
        blobs: where the blob is to be.
        blob_id: its id.
        key: the writer's, 32 bytes.

    Raises:
        NotSupported: if there is no cryptography here.
    """

    def __init__(self, blobs: Blobs, blob_id: str, key: bytes) -> None:
        self._cipher = _cipher(key, blob_id)
        self._inner: BlobWriter = blobs.create(blob_id)
        self._number = 0
        self._rest = bytearray()

    def write(self, data: bytes) -> None:
        self._rest += data
        # A whole chunk stays, too: it may be the last.
        whole = max(len(self._rest) - 1, 0) // _CHUNK_BYTES * _CHUNK_BYTES
        chunks = memoryview(bytes(self._rest[:whole]))
        del self._rest[:whole]
        for start in range(0, whole, _CHUNK_BYTES):
            self._seal(chunks[start : start + _CHUNK_BYTES], last=False)

    def commit(self) -> None:
        if self._rest:
            self._seal(self._rest, last=True)
        self._inner.commit()

    def discard(self) -> None:
        self._inner.discard()

    def _seal(self, chunk: memoryview | bytearray, *, last: bool) -> None:
        self._inner.write(self._cipher.encrypt(_nonce(self._number, last=last), chunk, None))
        self._number += 1


class SealedReader:
    """A BlobReader that decrypts a part of a blob.

    Args:
        blobs: where the blob is.
        blob: the blob, with the size of its content.
        key: the writer's.
        offset: where in the content to begin.
        length: how much of it to read, at least 1.
    """

    def __init__(self, blobs: Blobs, blob: Blob, key: bytes, offset: int, length: int) -> None:
        self._cipher = _cipher(key, blob.id)
        self._blob = blob
        self._last = (blob.size - 1) // _CHUNK_BYTES
        self._number, self._skipped = divmod(offset, _CHUNK_BYTES)
        self._left = length
        self._sealed = bytearray()
        begin = self._number * _SEALED_BYTES
        end = ((offset + length - 1) // _CHUNK_BYTES + 1) * _SEALED_BYTES
        self._inner = blobs.open(blob.id, begin, min(end, blob.size + (self._last + 1) * _TAG_BYTES) - begin)

    def read(self) -> bytes:
        if not self._left:
            return b""
        chunk = self._unsealed()[self._skipped : self._skipped + self._left]
        self._skipped = 0
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        self._inner.close()

    def _unsealed(self) -> bytes:
        """The content of the next chunk. Raises OSError if it is not what was written."""
        from cryptography.exceptions import InvalidTag

        last = self._number == self._last
        size = self._blob.size - self._last * _CHUNK_BYTES + _TAG_BYTES if last else _SEALED_BYTES
        while len(self._sealed) < size and (data := self._inner.read()):
            self._sealed += data
        sealed = bytes(self._sealed[:size])
        del self._sealed[:size]
        try:
            chunk = self._cipher.decrypt(_nonce(self._number, last=last), sealed, None)
        except InvalidTag as error:
            raise OSError(f"encrypted content was damaged: chunk {self._number} of blob {self._blob.id}") from error
        self._number += 1
        return chunk
