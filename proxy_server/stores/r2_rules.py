"""The rules that hold for a bucket whatever keeps it: limits, conditions, ranges, and the ETags of multipart objects.

Limits are those of https://developers.cloudflare.com/r2/platform/limits/; conditions those of RFC 9110, section 13.2.2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from proxy_server.stores.r2 import CHECKSUM_NAMES, Conditions, Etag, ObjectInfo, RangeRequest
from proxy_server.stores.r2_errors import (
    BadDigest,
    BadUpload,
    EntityTooLarge,
    EntityTooSmall,
    InvalidArgument,
    InvalidMaxKeys,
    InvalidObjectName,
    InvalidRange,
    MetadataTooLarge,
)

__all__ = [
    "MAX_DELETED_KEYS",
    "MAX_KEY_BYTES",
    "MAX_LISTED_KEYS",
    "MAX_METADATA_BYTES",
    "MAX_PART_NUMBER",
    "MAX_PUT_BYTES",
    "MIN_PART_BYTES",
    "after_prefix",
    "check_checksums",
    "check_keys",
    "check_limit",
    "check_metadata",
    "check_parts",
    "check_size",
    "holds",
    "multipart_etag",
    "resolve_range",
]

MAX_KEY_BYTES: Final = 1024
MAX_METADATA_BYTES: Final = 8192
# 5 GiB less 5 MiB, of one put as of one part.
MAX_PUT_BYTES: Final = 5 * 1024**3 - 5 * 1024**2
MIN_PART_BYTES: Final = 5 * 1024**2
MAX_PART_NUMBER: Final = 10_000
MAX_LISTED_KEYS: Final = 1000
MAX_DELETED_KEYS: Final = 1000

_LAST_CHARACTER: Final = "\U0010ffff"
_UNIT: Final = re.compile(r" *bytes *=(.*)", re.IGNORECASE | re.DOTALL)
_RANGE: Final = re.compile(r" *+(?:([0-9]{1,18}+) *+)?- *+(?:([0-9]{1,18}+) *+)?")


def check_keys(keys: Iterable[str]) -> None:
    """Raises InvalidObjectName if a key is too long, or no text that UTF-8 can write."""
    for key in keys:
        try:
            length = len(key.encode())
        except UnicodeEncodeError:
            raise InvalidObjectName from None
        if length > MAX_KEY_BYTES:
            raise InvalidObjectName


def check_size(size: int) -> None:
    """Raises EntityTooLarge if that many bytes are too many for one put."""
    if size > MAX_PUT_BYTES:
        raise EntityTooLarge


def check_limit(limit: int) -> None:
    """Raises InvalidMaxKeys if that is no number of keys to list."""
    if not 1 <= limit <= MAX_LISTED_KEYS:
        raise InvalidMaxKeys


def check_metadata(custom: Mapping[str, str]) -> None:
    """Raises MetadataTooLarge if custom metadata takes too much room."""
    if sum(_stored_length(name) + _stored_length(value) for name, value in custom.items()) > MAX_METADATA_BYTES:
        raise MetadataTooLarge


def _stored_length(text: str) -> int:
    """R2 counts a byte for each UTF-16 unit of a text, and two for each where one is beyond U+00FF."""
    if all(character <= "\xff" for character in text):
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass"))


def check_checksums(given: Mapping[str, bytes], calculated: Mapping[str, bytes]) -> None:
    """Raises BadDigest for the first given checksum that is not the calculated one."""
    for name, title in CHECKSUM_NAMES.items():
        if name in given and given[name] != calculated[name]:
            raise BadDigest(title, given[name], calculated[name])


def holds(conditions: Conditions | None, info: ObjectInfo | None) -> bool:
    """Whether conditions hold on the object that is there, or on there being none."""
    if conditions is None:
        return True
    if info is None:
        return conditions.etag_matches is None and conditions.uploaded_after is None
    matches = _has(conditions.etag_matches, info.etag, weakly=False)
    found = _has(conditions.etag_does_not_match, info.etag, weakly=True)
    unit = 1000 if conditions.seconds_granularity else 1
    uploaded = info.uploaded // unit
    # A date says nothing where an ETag has decided already.
    if conditions.uploaded_after is not None and found is not False and conditions.uploaded_after // unit >= uploaded:
        return False
    if (
        conditions.uploaded_before is not None
        and matches is not True
        and uploaded >= conditions.uploaded_before // unit
    ):
        return False
    return matches is not False and found is not True


def _has(etags: tuple[Etag, ...] | None, value: str, *, weakly: bool) -> bool | None:
    """Whether an ETag is among others; None where there is nothing to compare with."""
    if etags is None:
        return None
    return any(etag.kind == "wildcard" or (etag.value == value and (etag.kind == "strong" or weakly)) for etag in etags)


def resolve_range(wanted: RangeRequest | None, size: int) -> tuple[int, int]:
    """The offset and the length that a range means in an object of this size. A header that is no one range means all.

    Raises:
        InvalidRange: if there is nothing in the range.
    """
    if wanted is None:
        return 0, size
    if isinstance(wanted, str):
        return _header_range(wanted, size)
    offset, length = wanted.offset or 0, wanted.length
    if wanted.suffix is not None:
        length = min(wanted.suffix, size)
        offset = size - length
    if length is None:
        length = size - offset
    length = min(length, size - offset)
    if length <= 0:
        raise InvalidRange
    return offset, length


def _header_range(header: str, size: int) -> tuple[int, int]:
    unit = _UNIT.fullmatch(header)
    match = unit and _RANGE.fullmatch(unit[1])
    if not match or (match[1] is None and match[2] is None):
        return 0, size
    if match[1] is None:
        length = min(int(match[2]), size)
        return (size - length, length) if length else (0, size)
    first = int(match[1])
    last = size - 1 if match[2] is None else min(int(match[2]), size - 1)
    return (first, last - first + 1) if first <= last else (0, size)


def after_prefix(prefix: str) -> str | None:
    """The first text, in the order of code points, that comes after all that have the prefix; None if there is none."""
    shortened = prefix.rstrip(_LAST_CHARACTER)
    if not shortened:
        return None
    following = ord(shortened[-1]) + 1
    # Surrogates are no characters.
    return shortened[:-1] + chr(0xE000 if following == 0xD800 else following)


def check_parts(sizes: Sequence[int], order: Sequence[int]) -> None:
    """Check the sizes of the parts of an object.

    Args:
        sizes: in the order in which the parts were named.
        order: the places in `sizes` in the order of the part numbers.

    Raises:
        EntityTooSmall: if a part other than the last is too small.
        BadUpload: if the parts, the last one excepted, differ in size, or the last one is the largest.
    """
    if any(size < MIN_PART_BYTES for size in sizes[:-1]):
        raise EntityTooSmall
    *others, last = [sizes[place] for place in order]
    if others and (others[0] < MIN_PART_BYTES or set(others) != {others[0]} or last > others[0]):
        raise BadUpload


def multipart_etag(md5s: Sequence[bytes]) -> str:
    """The ETag of an object that was uploaded in parts, from the MD5 of each."""
    if not md5s:
        raise InvalidArgument("A multipart upload is completed with at least one part")
    return f"{hashlib.md5(b''.join(md5s), usedforsecurity=False).hexdigest()}-{len(md5s)}"
