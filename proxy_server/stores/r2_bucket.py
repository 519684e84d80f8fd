"""A bucket over blobs and records: what the operations do, whatever keeps either.

A put writes a blob, checks what has to hold, and swaps the record; whoever swapped a record away deletes its blobs, as
soon as nobody in this process reads them. Nothing is held in memory but one piece of what passes.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

import anyio
import anyio.to_thread
import attrs

from capnweb_py.web import ReadableStream
from proxy_server.stores.r2 import Conditions, Metadata, ObjectInfo, OpenObject, PutOptions, RangeRequest, Start
from proxy_server.stores.r2_errors import (
    IncompleteBody,
    InternalError,
    InvalidPart,
    NoSuchKey,
    NoSuchUpload,
    PreconditionFailed,
    R2Error,
)
from proxy_server.stores.r2_parts import OPEN, Blob, Blobs, BlobWriter, Part, Record, Records, Upload
from proxy_server.stores.r2_reading import Readers, Reading, finish, slices_of
from proxy_server.stores.r2_rules import (
    check_checksums,
    check_parts,
    check_size,
    holds,
    multipart_etag,
    resolve_range,
)
from proxy_server.stores.r2_sealing import SealedWriter, check_key, key_md5

__all__ = ["Bucket"]

# How much is collected before a thread hashes and writes it: a thread costs more than a few small writes do.
_PIECE_BYTES: Final = 256 * 1024


class Bucket:
    """An R2Store.

    Args:
        blobs: where content is kept.
        records: what the keys mean.
    """

    def __init__(self, blobs: Blobs, records: Records) -> None:
        self._blobs = blobs
        self._records = records
        self._readers = Readers()

    async def head(self, key: str) -> ObjectInfo | None:
        record = await self._records.get(key)
        return None if record is None else record.info

    async def get(
        self, key: str, only_if: Conditions | None, wanted: RangeRequest | None, encryption: bytes | None = None
    ) -> OpenObject:
        missing = None
        while True:
            record = await self._records.get(key)
            if record is None:
                raise NoSuchKey
            check_key(encryption, record.info.key_md5)
            if not holds(only_if, record.info):
                raise PreconditionFailed(record.info)
            offset, length = resolve_range(wanted, record.info.size)
            slices = slices_of(record.blobs, offset, length)
            source = Reading(self._blobs, slices, self._readers, self._sweep, encryption)
            try:
                await source.open()
            except FileNotFoundError:
                # It was replaced, and its content deleted, since the record was read.
                await source.aclose()
                if missing == record.info.version:
                    raise
                missing = record.info.version
                continue
            except BaseException:
                await source.aclose()
                raise
            return OpenObject(record.info, offset, length, ReadableStream(source, length=length))

    async def put(
        self, key: str, body: AsyncIterable[bytes], options: PutOptions, beneath: ObjectInfo | None = None
    ) -> ObjectInfo:
        """As R2Store.put. Where this bucket has no object, the conditions are about the one beneath."""
        written = await self._write(body, options.size, options.checksums, options.encryption)
        checksums = {name: written.digests[name].hex() for name in written.digests}
        info = ObjectInfo(
            key,
            secrets.token_hex(16),
            written.blob.size,
            written.etag.hex(),
            _now(),
            options.metadata,
            checksums,
            None if options.encryption is None else key_md5(options.encryption),
        )
        async with self._unless_refused(written.blob):
            check_checksums(options.checksums, written.digests)
            replaced = await self._replace(Record(info, (written.blob,)), options.only_if, beneath)
        await self._discard(replaced)
        return info

    async def delete(self, keys: Sequence[str]) -> None:
        removed = await self._records.remove(keys)
        await self._discard([blob.id for record in removed for blob in record.blobs])

    async def scan(self, prefix: str, start: Start, limit: int) -> list[ObjectInfo]:
        return [record.info for record in await self._records.scan(prefix, start, limit)]

    async def create_upload(self, key: str, metadata: Metadata, encryption: bytes | None = None) -> str:
        sealed_with = None if encryption is None else key_md5(encryption)
        upload = Upload(secrets.token_urlsafe(48), key, metadata, _now(), OPEN, sealed_with)
        await self._records.add_upload(upload)
        return upload.id

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterable[bytes],
        size: int | None = None,
        encryption: bytes | None = None,
    ) -> str:
        upload = await self._records.upload(upload_id)
        if upload is None or upload.key != key or upload.state != OPEN:
            raise NoSuchUpload
        check_key(encryption, upload.key_md5)
        written = await self._write(body, size, (), encryption)
        part = Part(number, written.blob, written.etag)
        async with self._unless_refused(written.blob):
            replaced = await self._records.add_part(upload, part)
        await self._discard(replaced)
        return part.etag

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> ObjectInfo:
        upload = await self._known_upload(key, upload_id)
        if upload.state != OPEN:
            raise NoSuchUpload
        if len({number for number, _ in parts}) < len(parts):
            raise InternalError
        uploaded = {part.number: part for part in await self._records.parts(upload)}
        chosen = [uploaded[number] for number, etag in parts if number in uploaded and uploaded[number].etag == etag]
        if len(chosen) < len(parts):
            raise InvalidPart
        order = sorted(range(len(chosen)), key=lambda place: chosen[place].number)
        etag = multipart_etag([chosen[place].digest for place in order])
        check_parts([part.blob.size for part in chosen], order)
        blobs = tuple(chosen[place].blob for place in order)
        size = sum(blob.size for blob in blobs)
        info = ObjectInfo(key, secrets.token_hex(16), size, etag, _now(), upload.metadata, {}, upload.key_md5)
        await self._discard(await self._records.complete(upload, chosen, Record(info, blobs)))
        return info

    async def abort_upload(self, key: str, upload_id: str) -> None:
        upload = await self._known_upload(key, upload_id)
        await self._discard(await self._records.abort(upload))

    async def aclose(self) -> None:
        await self._sweep()
        await self._records.aclose()
        await anyio.to_thread.run_sync(self._blobs.close)

    async def _known_upload(self, key: str, upload_id: str) -> Upload:
        upload = await self._records.upload(upload_id)
        if upload is None or upload.key != key:
            raise InternalError
        return upload

    @asynccontextmanager
    async def _unless_refused(self, blob: Blob) -> AsyncGenerator[None, None]:
        """Delete a new blob if what refers to it is refused, or was not begun. After other failures it stays: a record
        may refer to it, whose keeper could not say so any more."""
        try:
            yield
        except (R2Error, anyio.get_cancelled_exc_class()):
            await self._discard([blob.id])
            raise

    async def _replace(self, new: Record, only_if: Conditions | None, beneath: ObjectInfo | None) -> list[str]:
        """Put a record in the place of the one that is there. Returns the blobs that nothing refers to any more."""
        while True:
            old = await self._records.get(new.info.key)
            if old is not None and old.info.version == new.info.version:
                # It was put there by a try of which only a failure was heard.
                return []
            there = beneath if old is None else old.info
            if not holds(only_if, there):
                raise PreconditionFailed(there)
            if await self._records.swap(new.info.key, old, new, beneath=beneath is not None):
                return [] if old is None else [blob.id for blob in old.blobs]
            # Here was an object since, and what is beneath is not seen any more.
            beneath = None

    async def _write(
        self, body: AsyncIterable[bytes], size: int | None, checksums: Iterable[str], encryption: bytes | None
    ) -> _Written:
        """Write a body as a new blob."""
        check_size(size or 0)
        blob_id = secrets.token_hex(16)
        await self._records.announce(blob_id)
        # What an MD5 tells of encrypted content is not kept, unless its writer gave it.
        names = {*checksums, "md5"} if encryption is None else {*checksums}
        hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}
        writer = await anyio.to_thread.run_sync(self._create, blob_id, encryption)
        total = 0

        def write(data: bytes) -> None:
            for each in hashes.values():
                each.update(data)
            writer.write(data)

        try:
            async with aclosing(_pieces(body)) as pieces:
                async for data in pieces:
                    total += len(data)
                    check_size(total)
                    await anyio.to_thread.run_sync(write, data)
            if size is not None and total != size:
                raise IncompleteBody
            await anyio.to_thread.run_sync(writer.commit)
        except BaseException:
            await finish(writer.discard)
            await self._discard([blob_id])
            raise
        digests = {name: each.digest() for name, each in hashes.items()}
        etag = digests["md5"] if encryption is None else secrets.token_bytes(16)
        return _Written(Blob(blob_id, total), etag, digests)

    def _create(self, blob_id: str, encryption: bytes | None) -> BlobWriter:
        return self._blobs.create(blob_id) if encryption is None else SealedWriter(self._blobs, blob_id, encryption)

    async def _discard(self, blob_ids: Sequence[str]) -> None:
        """Delete blobs that nothing refers to, now or when nobody reads them any more."""
        self._readers.doom(blob_ids)
        await self._sweep()

    async def _sweep(self) -> None:
        """Delete what nobody reads any more. What a cancelled task leaves of that is done by whoever comes next."""
        unread = self._readers.take_unread()
        if not unread:
            return
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._blobs.delete, unread)
                await self._records.forget(unread)
        except anyio.get_cancelled_exc_class():
            self._readers.doom(unread)
            raise


@attrs.frozen
class _Written:
    """A new blob, its ETag, and the digests of its content."""

    blob: Blob
    etag: bytes
    digests: Mapping[str, bytes]


async def _pieces(body: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in larger pieces."""
    collected = bytearray()
    async for chunk in body:
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise TypeError(f"a stream of bytes is needed, and this one has {type(chunk).__name__} in it")
        collected += chunk
        if len(collected) >= _PIECE_BYTES:
            yield bytes(collected)
            collected.clear()
    if collected:
        yield bytes(collected)


def _now() -> int:
    return time.time_ns() // 1_000_000
