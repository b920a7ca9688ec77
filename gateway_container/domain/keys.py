"""The buckets and keys that a client may name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flts.contracts.ids import check_identifier
from flts.errors import FltsError, RejectedError
from flts.storage import layout

LONGEST_KEY = 512  # bytes; S3 allows 1,024, and FLTS's keys are below 300
SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,199}")
PARTS = ("train", "test")


class ForbiddenError(FltsError):
    """No API key allows this request. HTTP 403."""

    code = "forbidden"


@dataclass(frozen=True, slots=True)
class IncomingKey:
    """The target of a file that is sent to ``/upload/raw-data/<identifier>/<part>.csv``."""

    identifier: str
    part: str
    """``train`` or ``test``."""

    @property
    def object_key(self) -> str:
        """Return the key in the landing zone."""
        return layout.INCOMING(self.identifier, self.part)


def check_key(key: str) -> str:
    """Return the key, or refuse it if FLTS cannot have written it.

    A valid key consists of plain segments, joined by single slashes. So ``..``, encoded dots, backslashes, control
    characters and NUL never reach a store or a file system.

    Raises
    ------
    RejectedError
        Code ``bad_key``.
    """
    if not key or len(key) > LONGEST_KEY:
        msg = f"a key has 1 to {LONGEST_KEY} characters; got {len(key)}"
        raise RejectedError(msg, code="bad_key", field="key")
    for segment in key.split("/"):
        if SEGMENT.fullmatch(segment) is None:
            msg = (
                "a key is made of segments of letters, digits, '.', '_', '=' and '-', joined by '/', none empty or "
                f"starting with a dot; got {segment[:60]!r}"
            )
            raise RejectedError(msg, code="bad_key", field="key")
    return key


def incoming_target(bucket: str, key: str, *, raw_bucket: str) -> IncomingKey:
    """Return the target of an upload to this bucket and key.

    Raises
    ------
    ForbiddenError
        For any bucket but raw-data: a client must not forge a data set, a bundle or a champion pointer.
    RejectedError
        For a key that is not ``<identifier>/train.csv`` or ``<identifier>/test.csv``.
    """
    if bucket != raw_bucket:
        msg = (
            f"uploads go to {raw_bucket} only: everything in other buckets is written by the services themselves, "
            "so that nobody can forge a data set, a bundle or a champion"
        )
        raise ForbiddenError(msg, code="bucket_not_writable", field="bucket")
    check_key(key)
    segments = key.split("/")
    names = {f"{part}.csv": part for part in PARTS}
    if len(segments) != 2 or segments[1] not in names:  # noqa: PLR2004 - <identifier>/<file>
        msg = f"an upload's key is <identifier>/train.csv or <identifier>/test.csv; got {key!r}"
        raise RejectedError(msg, code="bad_key", field="key")
    return IncomingKey(check_identifier(segments[0]), names[segments[1]])


def check_readable(bucket: str, *, readable: tuple[str, ...]) -> str:
    """Return the bucket, or refuse it if clients may not read it.

    Raises
    ------
    ForbiddenError
        The message names the readable buckets.
    """
    if bucket not in readable:
        msg = f"downloads come from {', '.join(readable)} only"
        raise ForbiddenError(msg, code="bucket_not_readable", field="bucket")
    return bucket
