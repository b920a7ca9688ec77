"""Receive a request's body on disk in constant memory, with limits for declared and undeclared lengths."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from flts.errors import FltsError, RejectedError
from flts.ingest.guard import TextGuard

FORM_OVERHEAD_BYTES = 1 << 20  # bytes of a form besides its files: boundaries, part headers and the small fields
LONGEST_FIELD_BYTES = 64 * 1024
MOST_PARTS = 16
MOST_PART_HEADER_BYTES = 16 * 1024


class TooLargeError(FltsError):
    """A body or a file in it is larger than allowed. HTTP 413."""

    code = "too_large"


class EncodedBodyError(FltsError):
    """The body is compressed. HTTP 415."""

    code = "encoded_body"


class IdleUploadError(FltsError):
    """The client sent nothing for too long. HTTP 408."""

    code = "upload_stalled"


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file of a request, on disk."""

    path: Path
    size: int
    sha256: str


@dataclass(slots=True)
class ReceivedForm:
    """A multipart form: its files on disk, its small fields in memory."""

    files: dict[str, ReceivedFile] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


class FileWriter:
    """Writes one CSV to disk; hashes and counts its bytes, and refuses bytes that cannot belong to a CSV."""

    def __init__(self, path: Path, *, name: str, limit: int) -> None:
        self._path = path
        self._name = name
        self._limit = limit
        self._hash = hashlib.sha256()
        self._size = 0
        self._guard = TextGuard(name)
        self._file: IO[bytes] = path.open("wb")

    def write(self, data: bytes) -> None:
        """Append a piece.

        Raises
        ------
        TooLargeError
            As soon as the file is larger than the limit.
        RejectedError
            As soon as the bytes cannot belong to a CSV.
        """
        self._size += len(data)
        if self._size > self._limit:
            msg = f"{self._name} has more than {self._limit} bytes (MAX_UPLOAD_BYTES)"
            raise TooLargeError(msg, field=self._name)
        self._guard.feed(data)
        self._hash.update(data)
        self._file.write(data)

    def close(self) -> ReceivedFile:
        """Close the file and return it."""
        self._file.close()
        return ReceivedFile(self._path, self._size, self._hash.hexdigest())


def hash_file(path: Path) -> ReceivedFile:
    """Return a file on disk with its size and hash, read in constant memory."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ReceivedFile(path, path.stat().st_size, digest)


def check_declared_length(headers: Mapping[str, str], *, limit: int, field_name: str, setting: str) -> None:
    """Refuse a body whose declared length is above the limit, before the body is read.

    Raises
    ------
    TooLargeError
        With ``field_name`` as its field.
    """
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        msg = f"the body declares {declared} bytes; at most {limit} are taken ({setting})"
        raise TooLargeError(msg, field=field_name)


def refuse_encoded(headers: Mapping[str, str]) -> None:
    """Refuse a compressed body, because the gateway decompresses nothing.

    Raises
    ------
    EncodedBodyError
        If ``Content-Encoding`` is not ``identity``.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        msg = f"send the body as it is: Content-Encoding {encoding[:40]!r} is not unpacked here"
        raise EncodedBodyError(msg, field="Content-Encoding")


def is_multipart(headers: Mapping[str, str]) -> bool:
    """Return whether the body is a multipart form."""
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


async def receive_bytes(
    stream: AsyncIterator[bytes], *, limit: int, idle_seconds: float, field_name: str, setting: str
) -> bytes:
    """Return a small body, complete.

    Raises
    ------
    TooLargeError
        As soon as the body is larger than ``limit``.
    IdleUploadError
        If no byte arrives for ``idle_seconds``.
    """
    body = bytearray()
    async for chunk in _pieces(stream, idle_seconds):
        body += chunk
        if len(body) > limit:
            msg = f"the body has more than {limit} bytes ({setting})"
            raise TooLargeError(msg, field=field_name)
    return bytes(body)


async def receive_file(
    stream: AsyncIterator[bytes], folder: Path, *, name: str, limit: int, idle_seconds: float
) -> ReceivedFile:
    """Write a raw body to disk.

    Raises
    ------
    TooLargeError
        As soon as the body is larger than ``limit``.
    RejectedError
        As soon as the bytes cannot belong to a CSV.
    IdleUploadError
        If no byte arrives for ``idle_seconds``.
    """
    writer = FileWriter(folder / name, name=name, limit=limit)
    try:
        async for chunk in _pieces(stream, idle_seconds):
            writer.write(chunk)
    finally:
        received = writer.close()
    return received


async def receive_form(
    stream: AsyncIterator[bytes],
    content_type: str,
    folder: Path,
    *,
    file_fields: frozenset[str],
    text_fields: frozenset[str],
    limit: int,
    idle_seconds: float,
) -> ReceivedForm:
    """Write the files of a multipart form to disk, and return them with the text fields.

    Parameters
    ----------
    file_fields, text_fields : frozenset of str
        The known fields. An unknown field is refused with its name, so that a misspelt field is not ignored.
    limit : int
        Largest size of one file, in bytes.

    Raises
    ------
    TooLargeError
        With the name of the field that is too large.
    RejectedError
        For unknown or repeated fields, a body that is not a multipart form, and a file that cannot be a CSV.
    IdleUploadError
        If no byte arrives for ``idle_seconds``.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        msg = "send a multipart form: Content-Type: multipart/form-data with a boundary"
        raise RejectedError(msg, code="bad_form")
    form = _Form(folder, file_fields=file_fields, text_fields=text_fields, limit=limit)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.on_part_begin,
                "on_part_data": form.on_part_data,
                "on_part_end": form.on_part_end,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_headers_finished": form.on_headers_finished,
                "on_end": form.on_end,
            },
        )
        async for chunk in _pieces(stream, idle_seconds):
            parser.write(chunk)
    except FormParserError as error:
        msg = "the body is not a valid multipart form"
        raise RejectedError(msg, code="bad_form") from error
    finally:
        form.close()
    if not form.ended:
        msg = "the multipart form ends in the middle"
        raise RejectedError(msg, code="bad_form")
    return form.received


class _Form:
    """The callbacks of python_multipart's parser for one form."""

    def __init__(self, folder: Path, *, file_fields: frozenset[str], text_fields: frozenset[str], limit: int) -> None:
        self.received = ReceivedForm()
        self.ended = False
        self._folder = folder
        self._file_fields = file_fields
        self._text_fields = text_fields
        self._limit = limit
        self._parts = 0
        self._header_bytes = 0
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._name = ""
        self._writer: FileWriter | None = None
        self._text = bytearray()

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            msg = f"a form has at most {MOST_PARTS} parts"
            raise RejectedError(msg, code="bad_form")
        self._disposition = b""
        self._header_bytes = 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        known = sorted(self._file_fields | self._text_fields)
        if self._name not in known:
            msg = f"{self._name[:60]!r} is not a field of this form; known: {', '.join(known)}"
            raise RejectedError(msg, code="unknown_field", field=self._name[:60])
        if self._name in self.received.files or self._name in self.received.fields:
            msg = f"{self._name} is given twice"
            raise RejectedError(msg, code="bad_form", field=self._name)
        if self._name in self._file_fields:
            # The file on disk gets the name of the form field. The client's own file name is not used, because it may
            # contain a path.
            self._writer = FileWriter(self._folder / self._name, name=self._name, limit=self._limit)
        else:
            self._text = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._writer is not None:
            self._writer.write(piece)
            return
        self._text += piece
        if len(self._text) > LONGEST_FIELD_BYTES:
            msg = f"{self._name} has more than {LONGEST_FIELD_BYTES} bytes"
            raise TooLargeError(msg, field=self._name)

    def on_part_end(self) -> None:
        if self._writer is not None:
            self.received.files[self._name] = self._writer.close()
            self._writer = None
            return
        try:
            self.received.fields[self._name] = self._text.decode()
        except UnicodeDecodeError as error:
            msg = f"{self._name} is not UTF-8 text"
            raise RejectedError(msg, code="bad_form", field=self._name) from error

    def on_end(self) -> None:
        self.ended = True

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MOST_PART_HEADER_BYTES:
            msg = f"the headers of a form's part have more than {MOST_PART_HEADER_BYTES} bytes"
            raise RejectedError(msg, code="bad_form")


async def _pieces(stream: AsyncIterator[bytes], idle_seconds: float) -> AsyncIterator[bytes]:
    iterator = aiter(stream)
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                piece = await anext(iterator)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            msg = f"nothing came for {idle_seconds:g} s; send the file again"
            raise IdleUploadError(msg) from error
        if piece:
            yield piece
