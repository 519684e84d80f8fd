"""A bucket in an object store: S3 and what speaks as it does, Google Cloud Storage, Azure; all by obstore.

    objects/<name of a key>     a record: what the key means, in JSON
    uploads/<id>/...            a multipart upload, and a record of each of its parts
    blobs/ab/abcd...            content, under random names

A record is replaced on the condition that it is still the one that was read, so several processes can share a bucket.
An upload is ended in the same way, before there is an object of it: who does that has it, and all others come too late.
The name of a key keeps the order of keys, and is longer than the key where that has more than letters and digits: the
stores take names of 1024 bytes. What a crash leaves under "blobs" stays there; nothing refers to it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import attrs
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import from_url

from proxy_server.stores.r2 import Start
from proxy_server.stores.r2_bucket import Bucket
from proxy_server.stores.r2_errors import NoSuchUpload
from proxy_server.stores.r2_object_blobs import ObjectBlobs, answering
from proxy_server.stores.r2_object_names import escaped, key_of, path_of
from proxy_server.stores.r2_parts import ABORTED, COMPLETED, OPEN, Blob, Part, Record, Upload

__all__ = ["open_objects", "store_at"]

ResultT = TypeVar("ResultT")

_UPLOAD_ID: Final = re.compile(r"[A-Za-z0-9_-]{64}")

# How many records are read at a time for a listing, and how many are remembered: one that has not changed is not read
# again.
_PARALLEL_READS: Final = 16
_REMEMBERED: Final = 10_000

# For how long a store that does not answer is asked again.
_RETRIES: Final[Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}


def store_at(url: str, options: Mapping[str, str]) -> Any:
    """The object store that a URL names. Credentials that are no options come from where the vendors' own tools have
    them: the environment, or the machine's role.

    Raises:
        ValueError: if the URL or an option is not valid.
    """
    insecure = any(value.startswith("http://") for value in options.values())
    config: Any = dict(options)
    try:
        return from_url(url, config=config, client_options={"allow_http": insecure}, retry_config=_RETRIES)
    except BaseError as error:
        raise ValueError(f"{url} is no store: {str(error).splitlines()[0]}") from error


async def open_objects(store: Any) -> Bucket:
    """Open the bucket in an object store.

    Raises:
        OSError: if the store cannot be reached.
    """

    def ask() -> None:
        with answering():
            next(iter(obstore.list(store, "uploads", chunk_size=1)), None)

    await anyio.to_thread.run_sync(ask)
    return Bucket(ObjectBlobs(store), ObjectRecords(store))


class ObjectRecords:
    """Records, an object each."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._known: dict[str, Record] = {}
        self._limiter = anyio.CapacityLimiter(_PARALLEL_READS)

    async def announce(self, blob_id: str) -> None:
        """Nothing is kept of it."""

    async def forget(self, blob_ids: Sequence[str]) -> None:
        """Nothing is kept of them."""

    async def get(self, key: str) -> Record | None:
        return await self._in_thread(lambda: self._read(key))

    async def swap(self, key: str, old: Record | None, new: Record, *, beneath: bool = False) -> bool:
        """There is nothing beneath."""
        mode: Any = "create" if old is None else _version(old.tag)

        def work() -> bool:
            try:
                put = obstore.put(self._store, path_of(key), new.to_json().encode(), mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, NotFoundError):
                return False
            self._remember(path_of(key), attrs.evolve(new, tag=_tag(put)))
            return True

        return await self._in_thread(work)

    async def remove(self, keys: Sequence[str]) -> list[Record]:
        found: list[Record | None] = [None] * len(keys)

        async def remove(place: int, key: str) -> None:
            found[place] = await self._in_thread(lambda: self._remove(key))

        async with anyio.create_task_group() as tasks:
            for place, key in enumerate(keys):
                tasks.start_soon(remove, place, key)
        return [record for record in found if record is not None]

    async def scan(self, prefix: str, start: Start, limit: int) -> list[Record]:
        listed = await self._in_thread(lambda: self._listed(prefix, start, limit))
        found: list[Record | None] = [None] * len(listed)

        async def read(place: int, path: str, tag: str) -> None:
            known = self._known.get(path)
            if known is None or known.tag != tag:
                known = await self._in_thread(lambda: self._read(key_of(path)))
            found[place] = known

        async with anyio.create_task_group() as tasks:
            for place, (path, tag) in enumerate(listed):
                tasks.start_soon(read, place, path, tag)
        records = [record for record in found if record is not None]
        if len(records) < len(listed) == limit:
            # Some were deleted meanwhile: fewer than the limit would mean that there are no more.
            return records + await self.scan(prefix, Start(key_of(listed[-1][0]), False), limit - len(records))
        return records

    async def add_upload(self, upload: Upload) -> None:
        described = upload.described()
        fields = {"key": upload.key, "metadata": described, "created": upload.created, "state": upload.state}
        await self._in_thread(lambda: self._put(_upload_path(upload.id), fields, "create"))

    async def upload(self, upload_id: str) -> Upload | None:
        if not _UPLOAD_ID.fullmatch(upload_id):
            return None
        fields, _ = await self._in_thread(lambda: self._found(_upload_path(upload_id)))
        if fields is None:
            return None
        return Upload.from_described(upload_id, fields["key"], fields["metadata"], fields["created"], fields["state"])

    async def complete(self, upload: Upload, parts: Sequence[Part], new: Record) -> list[str]:
        """As Records.complete: who says first that the upload has ended decides. The content of a part that has been
        replaced is there until then, so one that is replaced meanwhile is none the less what was asked for."""
        if not await self._in_thread(lambda: self._end(upload, COMPLETED, new.info.version)):
            raise NoSuchUpload
        while True:
            old = await self.get(upload.key)
            if old is not None and old.info.version == new.info.version:
                # It was put there by a try of which only a failure was heard.
                old = None
                break
            if await self.swap(upload.key, old, new):
                break
        used = {blob.id for blob in new.blobs}
        unused = [blob_id for blob_id in await self._forget_parts(upload) if blob_id not in used]
        return unused if old is None else unused + [blob.id for blob in old.blobs]

    async def abort(self, upload: Upload) -> list[str]:
        if not await self._in_thread(lambda: self._end(upload, ABORTED, secrets.token_hex(16))):
            return []
        return await self._forget_parts(upload)

    async def add_part(self, upload: Upload, part: Part) -> list[str]:
        """As Records.add_part. A part that is replaced is not deleted before the upload ends, which may use it."""
        path = _part_path(upload, part.number)

        def work() -> None:
            while True:
                old, mode = self._found(path)
                replaced = [] if old is None else [old["blob"], *old["replaced"]]
                if replaced[:1] == [part.blob.id]:
                    # It was put there by a try of which only a failure was heard.
                    break
                fields = {"blob": part.blob.id, "size": part.blob.size, "md5": part.digest.hex(), "replaced": replaced}
                if self._put(path, fields, mode):
                    break
            if not self._is_open(upload):
                self._delete(path)
                raise NoSuchUpload

        if not await self._in_thread(lambda: self._is_open(upload)):
            raise NoSuchUpload
        await self._in_thread(work)
        return []

    async def parts(self, upload: Upload) -> list[Part]:
        return [_part(number, fields) for number, fields in await self._in_thread(lambda: self._parts(upload))]

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        def answered() -> ResultT:
            with answering():
                return work()

        return await anyio.to_thread.run_sync(answered, limiter=self._limiter)

    def _read(self, key: str) -> Record | None:
        try:
            found = obstore.get(self._store, path_of(key))
        except (NotFoundError, FileNotFoundError):
            return None
        record = Record.from_json(key, bytes(found.bytes()), _tag(found.meta))
        self._remember(path_of(key), record)
        return record

    def _remove(self, key: str) -> Record | None:
        record = self._read(key)
        if record is not None:
            self._delete(path_of(key))
        return record

    def _delete(self, path: str) -> None:
        self._known.pop(path, None)
        with suppress(NotFoundError, FileNotFoundError):
            obstore.delete(self._store, path)

    def _found(self, path: str) -> tuple[Any, Any]:
        """What an object of JSON says, if there is one, and the condition on which it is replaced."""
        try:
            found = obstore.get(self._store, path)
        except (NotFoundError, FileNotFoundError):
            return None, "create"
        return json.loads(bytes(found.bytes())), _version(_tag(found.meta))

    def _put(self, path: str, fields: Mapping[str, Any], mode: Any) -> bool:
        """Put an object of JSON there on a condition. Returns whether it held."""
        try:
            obstore.put(self._store, path, json.dumps(fields).encode(), mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, NotFoundError):
            return False
        return True

    def _is_open(self, upload: Upload) -> bool:
        fields, _ = self._found(_upload_path(upload.id))
        return fields is not None and fields["state"] == OPEN

    def _end(self, upload: Upload, state: int, who: str) -> bool:
        """Say that an upload has ended, and who ended it. Returns whether that is so."""
        while True:
            fields, mode = self._found(_upload_path(upload.id))
            if fields is None or fields["state"] != OPEN:
                return fields is not None and fields.get("ended by") == who
            if self._put(_upload_path(upload.id), {**fields, "state": state, "ended by": who}, mode):
                return True

    def _parts(self, upload: Upload) -> list[tuple[int, Any]]:
        """What is kept of the parts of an upload, by number."""
        parts = []
        for path, _ in self._names(f"uploads/{upload.id}"):
            number = path.rpartition("/")[2]
            fields = self._found(path)[0] if number.isdecimal() else None
            if fields is not None:
                parts.append((int(number), fields))
        return parts

    async def _forget_parts(self, upload: Upload) -> list[str]:
        """Delete what is kept of the parts of an upload. Returns the blobs that they had."""
        parts = await self._in_thread(lambda: self._parts(upload))
        for number, _ in parts:
            await self._in_thread(lambda number=number: self._delete(_part_path(upload, number)))  # type: ignore[misc]
        return [blob_id for _, fields in parts for blob_id in (fields["blob"], *fields["replaced"])]

    def _listed(self, prefix: str, start: Start, limit: int) -> list[tuple[str, str]]:
        """The paths of records and their tags."""
        first = f"objects/k{escaped(prefix)}"
        # A name ends with "!": what is before it comes before every name that has it.
        after = f"objects/k{escaped(start.key)}" if start.inclusive else path_of(start.key)
        names: list[tuple[str, str]] = []
        for path, tag in self._names("objects", max(first, after)):
            if not path.startswith(first) or len(names) == limit:
                break
            names.append((path, tag))
        return names

    def _names(self, folder: str, after: str | None = None) -> Iterator[tuple[str, str]]:
        """The names in a folder behind another, in order, and their tags."""
        for chunk in obstore.list(self._store, folder, offset=after):
            for meta in chunk:
                # Not every server that speaks as Azure does knows where to begin.
                if after is None or meta["path"] > after:
                    yield meta["path"], _tag(meta)

    def _remember(self, path: str, record: Record) -> None:
        self._known.pop(path, None)
        self._known[path] = record
        while len(self._known) > _REMEMBERED:
            self._known.pop(next(iter(self._known)), None)


def _tag(meta: Mapping[str, Any]) -> str:
    """What a state of an object is known by: an ETag, a version, or both. Azure's listings do not quote ETags."""
    e_tag = meta.get("e_tag")
    return json.dumps([None if e_tag is None else e_tag.strip('"'), meta.get("version")])


def _version(tag: str | None) -> dict[str, str]:
    e_tag, version = json.loads(tag or "[null, null]")
    named = {"e_tag": None if e_tag is None else f'"{e_tag}"', "version": version}
    return {name: value for name, value in named.items() if value is not None}


def _part_path(upload: Upload, number: int) -> str:
    return f"uploads/{upload.id}/{number:05}"


def _upload_path(upload_id: str) -> str:
    return f"uploads/{upload_id}/upload"


def _part(number: int, fields: Mapping[str, Any]) -> Part:
    return Part(number, Blob(fields["blob"], fields["size"]), bytes.fromhex(fields["md5"]))
