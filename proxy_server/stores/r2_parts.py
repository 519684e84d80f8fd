"""What a bucket is made of: blobs, which hold bytes under ids of their own, and records, which say what a key means.

A key never names a blob: content is written first, under a new id, and one change of the record makes it the object's.
So an object is replaced as a whole or not at all, and a multipart object is a record of several blobs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import attrs

from proxy_server.stores.r2 import Metadata, ObjectInfo, Start

__all__ = ["ABORTED", "COMPLETED", "OPEN", "Blob", "BlobReader", "BlobWriter", "Blobs", "Part", "Record", "Records"]
__all__ += ["Upload"]

# How a multipart upload stands. One that has ended is remembered: it is refused in other words than one that never was.
OPEN: Final = 0
COMPLETED: Final = 1
ABORTED: Final = 2


@attrs.frozen
class Blob:
    """So many bytes."""

    id: str
    size: int


@attrs.frozen
class Record:
    """An object and the blobs that its content is in, in order.

    Attributes:
        tag: what the records' keeper knows this state of the record by, if that is not its version.
    """

    info: ObjectInfo
    blobs: tuple[Blob, ...]
    tag: str | None = attrs.field(default=None, eq=False)

    def to_json(self) -> str:
        """All but the key, as text."""
        info = self.info
        fields = {
            "version": info.version,
            "size": info.size,
            "etag": info.etag,
            "uploaded": info.uploaded,
            "metadata": metadata_fields(info.metadata),
            "checksums": dict(info.checksums),
            "blobs": [[blob.id, blob.size] for blob in self.blobs],
        }
        if info.key_md5 is not None:
            fields["ssec"] = info.key_md5
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, key: str, text: str | bytes, tag: str | None = None) -> Record:
        """The record of a key from what `to_json` made."""
        fields = json.loads(text)
        info = ObjectInfo(
            key,
            fields["version"],
            fields["size"],
            fields["etag"],
            fields["uploaded"],
            metadata_from(fields["metadata"]),
            fields["checksums"],
            fields.get("ssec"),
        )
        return cls(info, tuple(Blob(name, size) for name, size in fields["blobs"]), tag)


@attrs.frozen
class Part:
    """A part of a multipart upload.

    Attributes:
        digest: the MD5 of the content, or what an encrypted part has instead. It is the ETag: who uploads the same part
            twice gets the same one.
    """

    number: int
    blob: Blob
    digest: bytes

    @property
    def etag(self) -> str:
        return self.digest.hex()


@attrs.frozen
class Upload:
    """A multipart upload, and how it stands.

    Attributes:
        key_md5: of the key that its parts are encrypted with; None if they are not.
    """

    id: str
    key: str
    metadata: Metadata
    created: int
    state: int = OPEN
    key_md5: str | None = None

    def described(self) -> dict[str, Any]:
        """What was said of the object when the upload was begun, as JSON has it."""
        fields = metadata_fields(self.metadata)
        return fields if self.key_md5 is None else {**fields, "ssec": self.key_md5}

    @classmethod
    def from_described(cls, upload_id: str, key: str, fields: Mapping[str, Any], created: int, state: int) -> Upload:
        """The upload that `described` was made of."""
        return cls(upload_id, key, metadata_from(fields), created, state, fields.get("ssec"))


def metadata_fields(metadata: Metadata) -> dict[str, Any]:
    """Metadata as JSON has it."""
    return {"http": dict(metadata.http), "custom": dict(metadata.custom), "class": metadata.storage_class}


def metadata_from(fields: Mapping[str, Any]) -> Metadata:
    """What `metadata_fields` was made from."""
    return Metadata(fields["http"], fields["custom"], fields["class"])


class BlobWriter(Protocol):
    """One blob that is being written. Its methods block, and are called in threads, one at a time."""

    def write(self, data: bytes) -> None:
        """Write more."""

    def commit(self) -> None:
        """There is no more. Returns when the blob is there to stay."""

    def discard(self) -> None:
        """The blob is not wanted. Safe after `commit`, and to do twice."""


class BlobReader(Protocol):
    """A part of a blob that is being read. Its methods block."""

    def read(self) -> bytes:
        """Some more; nothing at the end."""

    def close(self) -> None:
        """Stop reading. Safe to do twice."""


class Blobs(Protocol):
    """Where bytes are kept. The methods block."""

    def create(self, blob_id: str) -> BlobWriter:
        """Begin a blob."""

    def open(self, blob_id: str, offset: int, length: int) -> BlobReader:
        """Read a part of a blob, which is not empty. Raises FileNotFoundError if there is none."""

    def delete(self, blob_ids: Sequence[str]) -> None:
        """Delete blobs. It is no error if there are none."""

    def close(self) -> None:
        """Release what is held."""


class Records(Protocol):
    """What the keys of one bucket mean. Each method is one change, whole or not at all."""

    async def announce(self, blob_id: str) -> None:
        """A blob is about to be written. Until a record or a part has it, it may be left over from a crash."""

    async def forget(self, blob_ids: Sequence[str]) -> None:
        """These blobs have been deleted."""

    async def get(self, key: str) -> Record | None:
        """What a key means."""

    async def swap(self, key: str, old: Record | None, new: Record, *, beneath: bool = False) -> bool:
        """Put a record in the place of another, or of none, if that is still what is there. Returns whether it was.

        With `beneath`, and without an old record, the object beneath an overlay has to be still seen, too.
        """

    async def remove(self, keys: Sequence[str]) -> list[Record]:
        """Delete records. Returns those that there were."""

    async def scan(self, prefix: str, start: Start, limit: int) -> list[Record]:
        """As R2Store.scan."""

    async def add_upload(self, upload: Upload) -> None:
        """Keep a new upload."""

    async def upload(self, upload_id: str) -> Upload | None:
        """An upload."""

    async def complete(self, upload: Upload, parts: Sequence[Part], new: Record) -> list[str]:
        """Make an object of parts of an upload that is open, which ends it. Returns the blobs that nothing refers to
        any more.

        Raises:
            NoSuchUpload: if the upload has ended meanwhile.
            InvalidPart: if a part has been replaced meanwhile.
        """

    async def abort(self, upload: Upload) -> list[str]:
        """End an upload without an object, if it is open. Returns the blobs that nothing refers to any more."""

    async def add_part(self, upload: Upload, part: Part) -> list[str]:
        """Keep a part, in the place of one of the same number. Returns the blobs that nothing refers to any more.

        Raises:
            NoSuchUpload: if the upload has ended meanwhile.
        """

    async def parts(self, upload: Upload) -> list[Part]:
        """The parts of an upload, by number."""

    async def aclose(self) -> None:
        """Release what is held."""
