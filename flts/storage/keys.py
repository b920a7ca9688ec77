"""The names of buckets and keys that both adapters accept, so that data can be copied from a folder to S3."""

from __future__ import annotations

import re

from flts.errors import RejectedError

MAX_KEY_BYTES = 1024
MAX_SEGMENT_BYTES = 255
"""Bytes; the limit of file systems for one name."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


def check_bucket(bucket: str) -> str:
    """Return the name of a bucket, or refuse a name that S3 does not accept.

    Raises
    ------
    RejectedError
        With code ``bad_bucket``.
    """
    if _BUCKET.fullmatch(bucket) is None:
        msg = f"a bucket's name is 3 to 63 of a-z, 0-9, '.' and '-'; got {bucket[:80]!r}"
        raise RejectedError(msg, code="bad_bucket", field="bucket")
    return bucket


def bucket_name(prefix: str, bucket: str) -> str:
    """Return the name of a bucket in the store: the prefix in lower case, then the name that claim checks contain."""
    return check_bucket(prefix.lower() + check_bucket(bucket))


def check_key(key: str) -> str:
    """Return the key, or refuse a key that could leave its bucket or that an adapter cannot store.

    Raises
    ------
    RejectedError
        With code ``bad_key`` if the key is empty or absolute, ends with a slash, has a segment that is empty, ``.`` or
        ``..``, a control character or a backslash, or is longer than 1,024 bytes or 255 bytes in one segment.
    """
    reason = _why_not(key)
    if reason is None and key.endswith("/"):
        reason = "ends with a slash"
    if reason is None and not key:
        reason = "is empty"
    if reason is not None:
        _refuse(key, reason)
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix of a listing, which may be any beginning of a valid key.

    Raises
    ------
    RejectedError
        With code ``bad_key``.
    """
    reason = _why_not(prefix)
    if reason is not None:
        _refuse(prefix, reason)
    return prefix


def _why_not(name: str) -> str | None:
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    segments = name.removesuffix("/").split("/") if name else []
    reasons = {
        f"is longer than {MAX_KEY_BYTES} bytes": len(encoded) > MAX_KEY_BYTES,
        "holds a control character or a backslash": _CONTROL.search(name) is not None,
        "is absolute or has an empty, '.' or '..' segment": not {"", ".", ".."}.isdisjoint(segments),
        f"has a segment of more than {MAX_SEGMENT_BYTES} bytes": any(
            len(segment.encode()) > MAX_SEGMENT_BYTES for segment in segments
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _refuse(name: str, reason: str) -> None:
    shown = name[:80].encode("utf-8", "backslashreplace").decode()
    msg = f"an object's key {reason}: {shown!r}"
    raise RejectedError(msg, code="bad_key", field="key")
