"""The file of a history, in the store and in the cache.

It is the SHA-256 of the rest, a line of JSON, and the rows as numpy reads them.

A file without rows has the reason why there are none, so that they are not read again.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from flts.errors import HashMismatchError, RejectedError
from flts.forecasting.grid import grid_from_dict
from flts.forecasting.series import Series

VERSION = 1
TIMES, VALUES = np.dtype("<i8"), np.dtype("<f8")


def encode(content: Series | str) -> bytes:
    """Return the bytes of a file with these rows, or with the reason why there are none."""
    if isinstance(content, str):
        head, body = {"v": VERSION, "reason": content}, b""
    else:
        head = {"v": VERSION, "columns": content.columns, "rows": len(content.times), "grid": content.grid.to_dict()}
        body = content.times.astype(TIMES).tobytes() + content.values.astype(VALUES).tobytes()
    rest = json.dumps(head).encode() + b"\n" + body
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def decode(data: bytes) -> Series | str:
    """Return the rows in the bytes of a file, or the reason why there are none.

    Raises
    ------
    RejectedError
        ``bad_history`` if another release wrote the file in another form; `HashMismatchError` if it is damaged.
    """
    digest, _, rest = data.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        msg = "the stored rows do not have the SHA-256 that their file states"
        raise HashMismatchError(msg)
    line, _, body = rest.partition(b"\n")
    try:
        head = json.loads(line)
        if head["v"] != VERSION:
            raise ValueError(head["v"])  # noqa: TRY301 - the handler below states the reason
        if "reason" in head:
            return str(head["reason"])
        columns, rows = tuple(head["columns"]), int(head["rows"])
        grid = grid_from_dict(head["grid"])
        times = np.frombuffer(body, TIMES, rows).astype(np.int64)
        values = np.frombuffer(body, VALUES, rows * len(columns), TIMES.itemsize * rows)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"the file of the stored rows has another form than this release reads: {error!r:.100}"
        raise RejectedError(msg, code="bad_history") from error
    return Series(times, columns, values.astype(np.float64).reshape(rows, len(columns)), grid)
