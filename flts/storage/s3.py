"""The object store on an S3 server. Only this module imports boto3."""

from __future__ import annotations

import io
import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from flts.errors import (
    BackendAwayError,
    FltsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RejectedError,
)
from flts.storage.keys import bucket_name, check_key, check_prefix
from flts.storage.ports import ObjectInfo

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from flts.settings import StoreSettings

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
TOTAL_ATTEMPTS = 2
MIN_BYTES_PER_SECOND = 16 * 2**10
"""Least rate of a body; READ_SECONDS limits only the time between two bytes, so a slow body would not time out."""
READ_BYTES = MIN_BYTES_PER_SECOND
"""Bytes per read of a body; one second at the least rate, so that a slow body is detected soon."""
PART_BYTES = 8 * 2**20
COPY_PART_BYTES = 64 * 2**20  # bytes; the server copies a part in one call, which must end within READ_SECONDS
_MAX_PARTS = 10_000
_NOT_FOUND = 404
_REFUSED_CONDITION = frozenset({409, 412})
_AWAY_STATUSES = frozenset(
    {401, 403, 408, 425, 429}
)  # HTTP statuses; during a rotation of keys (401, 403) a service waits and writes no dead letters


class S3Store:
    """Objects on an S3 server with conditional puts.

    Parameters
    ----------
    settings : StoreSettings
        Address and keys of the server.
    prefix : str
        Prefix of the bucket names (``NAMESPACE_PREFIX``).
    """

    def __init__(self, settings: StoreSettings, prefix: str = "") -> None:
        secret = settings.aws_secret_access_key
        self._prefix = prefix
        self._endpoint = settings.mlflow_s3_endpoint_url or ""
        self._client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=self._endpoint,
            aws_access_key_id=settings.aws_access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            region_name=settings.aws_default_region,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": TOTAL_ATTEMPTS, "mode": "standard"},
                max_pool_connections=32,
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                # Many servers do not support checksum trailers, so boto3 uses them only when required. Claim checks
                # contain a SHA-256 of the content instead.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                tcp_keepalive=True,
            ),
        )

    @property
    def address(self) -> str:
        """The address of the store, for messages."""
        return self._endpoint

    def ensure_bucket(self, bucket: str) -> None:
        """Create the bucket unless it exists."""
        name = self._bucket(bucket)
        with self._errors(bucket, ""):
            try:
                self._client.head_bucket(Bucket=name)
            except ClientError as error:
                if _status(error) != _NOT_FOUND:
                    raise
            else:
                return
            region = self._client.meta.region_name
            options: dict[str, Any] = {}
            if region != "us-east-1":  # S3 refuses us-east-1 as an explicit location
                options["CreateBucketConfiguration"] = {"LocationConstraint": region}
            try:
                self._client.create_bucket(Bucket=name, **options)
            except ClientError as error:
                if _code(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def put(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        create_only: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object atomically."""
        conditions: dict[str, Any] = {}
        if create_only:
            conditions["IfNoneMatch"] = "*"
        if if_match is not None:
            conditions["IfMatch"] = if_match
        with self._errors(bucket, key, writing=True, conditional=bool(conditions)):
            answer = self._client.put_object(Bucket=self._bucket(bucket), Key=check_key(key), Body=data, **conditions)
        return ObjectInfo(key=key, size=len(data), etag=answer["ETag"], modified=time.time())

    def put_file(self, bucket: str, key: str, path: Path, *, create_only: bool = False) -> ObjectInfo:
        """Write a file as an object, by multipart if it is larger than one part."""
        with Path(path).open("rb") as file:
            size = Path(path).stat().st_size
            if size <= PART_BYTES:
                return self.put(bucket, key, file.read(), create_only=create_only)
            if create_only:
                # The server checks for an existing object only after the upload. This check can save the upload.
                self._refuse_existing(bucket, key)
            part_bytes = max(PART_BYTES, math.ceil(size / _MAX_PARTS))
            chunks = iter(lambda: file.read(part_bytes), b"")
            return self._multipart(bucket, key, chunks, create_only=create_only)

    def put_stream(self, bucket: str, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """Write an object from chunks in constant memory; abort the upload if the iterable raises."""
        parts = _regroup(chunks, PART_BYTES)
        first = next(parts, b"")
        if len(first) < PART_BYTES:
            return self.put(bucket, key, first)
        return self._multipart(bucket, key, _chain(first, parts))

    def get(self, bucket: str, key: str) -> tuple[bytes, ObjectInfo]:
        """Return an object's bytes and its info."""
        with self._errors(bucket, key):
            answer = self._client.get_object(Bucket=self._bucket(bucket), Key=check_key(key))
            data = io.BytesIO()  # one buffer, because joining a list of pieces would need twice the memory
            data.writelines(self._pieces(bucket, key, answer["Body"]))
            return data.getvalue(), _info(key, answer)

    def get_file(self, bucket: str, key: str, path: Path) -> ObjectInfo:
        """Write an object's bytes to a file, which is created atomically."""
        part = Path(path).with_name(f".{Path(path).name}.{uuid.uuid4().hex}.part")
        try:
            with self._errors(bucket, key):
                answer = self._client.get_object(Bucket=self._bucket(bucket), Key=check_key(key))
                with part.open("wb") as target:
                    target.writelines(self._pieces(bucket, key, answer["Body"]))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return _info(key, answer)

    def stream(self, bucket: str, key: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield the bytes of an object in chunks, all of the version that was stored at the call."""
        with self._errors(bucket, key):
            answer = self._client.get_object(Bucket=self._bucket(bucket), Key=check_key(key))
        return self._read_on(bucket, key, answer["Body"], chunk_bytes)

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Return an object's info."""
        with self._errors(bucket, key):
            answer = self._client.head_object(Bucket=self._bucket(bucket), Key=check_key(key))
        return _info(key, answer)

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with ``prefix``, ordered by key."""
        for page in self._pages(bucket, check_prefix(prefix)):
            for found in page.get("Contents", ()):
                yield ObjectInfo(
                    key=found["Key"],
                    size=found["Size"],
                    etag=found["ETag"],
                    modified=found["LastModified"].timestamp(),
                )

    def list_folders(self, bucket: str, prefix: str = "") -> Iterator[str]:
        """Yield the distinct next path segments below ``prefix``, ordered."""
        base = check_prefix(prefix)
        for page in self._pages(bucket, base, Delimiter="/"):
            for found in page.get("CommonPrefixes", ()):
                yield found["Prefix"].removeprefix(base).rstrip("/")

    def copy(self, bucket: str, source_key: str, key: str, *, create_only: bool = False) -> ObjectInfo:
        """Copy an object within a bucket; the server copies a large object in parts.

        A copy in one call has no condition that all servers support, and its time is not bounded. A multipart copy has
        a condition, and each part ends in bounded time.
        """
        source = self.head(bucket, source_key)
        if source.size <= PART_BYTES:
            data, _ = self.get(bucket, source_key)
            return self.put(bucket, key, data, create_only=create_only)
        if create_only:
            self._refuse_existing(bucket, key)
        name = self._bucket(bucket)
        part_bytes = max(COPY_PART_BYTES, math.ceil(source.size / _MAX_PARTS))
        ranges = ((at, min(at + part_bytes, source.size)) for at in range(0, source.size, part_bytes))

        def copy_part(number: int, upload_id: str, span: tuple[int, int]) -> str:
            answer = self._client.upload_part_copy(
                Bucket=name,
                Key=key,
                PartNumber=number,
                UploadId=upload_id,
                CopySource={"Bucket": name, "Key": source_key},
                CopySourceIfMatch=source.etag,
                CopySourceRange=f"bytes={span[0]}-{span[1] - 1}",
            )
            return answer["CopyPartResult"]["ETag"]

        return self._upload(bucket, key, ranges, copy_part, lambda span: span[1] - span[0], create_only=create_only)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; no error if it does not exist."""
        with suppress(ObjectNotFoundError), self._errors(bucket, key):
            self._client.delete_object(Bucket=self._bucket(bucket), Key=check_key(key))

    def _multipart(self, bucket: str, key: str, parts: Iterable[bytes], *, create_only: bool = False) -> ObjectInfo:
        def send_part(number: int, upload_id: str, data: bytes) -> str:
            answer = self._client.upload_part(
                Bucket=self._bucket(bucket), Key=key, PartNumber=number, UploadId=upload_id, Body=data
            )
            return answer["ETag"]

        return self._upload(bucket, key, parts, send_part, len, create_only=create_only)

    def _upload(
        self,
        bucket: str,
        key: str,
        parts: Iterable[Any],
        send: Callable[[int, str, Any], str],
        size_of: Callable[[Any], int],
        *,
        create_only: bool,
    ) -> ObjectInfo:
        name = self._bucket(bucket)
        with self._errors(bucket, key, writing=True):
            upload_id = self._client.create_multipart_upload(Bucket=name, Key=check_key(key))["UploadId"]
        done: list[CompletedPartTypeDef] = []
        size = 0
        conditions: dict[str, Any] = {"IfNoneMatch": "*"} if create_only else {}
        try:
            for number, part in enumerate(parts, start=1):
                with self._errors(bucket, key, writing=True):
                    done.append({"PartNumber": number, "ETag": send(number, upload_id, part)})
                size += size_of(part)
            with self._errors(bucket, key, writing=True, conditional=create_only):
                answer = self._client.complete_multipart_upload(
                    Bucket=name, Key=key, UploadId=upload_id, MultipartUpload={"Parts": done}, **conditions
                )
        except BaseException:
            # The parts of an incomplete upload would stay on the server, and no listing of objects shows them. So the
            # upload is aborted.
            with suppress(FltsError, BotoCoreError, ClientError):
                self._client.abort_multipart_upload(Bucket=name, Key=key, UploadId=upload_id)
            raise
        return ObjectInfo(key=key, size=size, etag=answer["ETag"], modified=time.time())

    def _refuse_existing(self, bucket: str, key: str) -> None:
        with suppress(ObjectNotFoundError):
            self.head(bucket, key)
            msg = f"{bucket}/{key} exists already"
            raise PreconditionFailedError(msg)

    def _read_on(self, bucket: str, key: str, body: Any, chunk_bytes: int) -> Iterator[bytes]:
        with self._errors(bucket, key):
            yield from _regroup(self._pieces(bucket, key, body), chunk_bytes)

    def _pieces(self, bucket: str, key: str, body: Any) -> Iterator[bytes]:
        """Yield a body as it arrives; raise `BackendAwayError` if it arrives too slowly."""
        # `seconds` is the time spent in reads, without the time of the caller between two pieces.
        seconds, behind, count = 0.0, 0.0, 0
        # `with body` would return the raw response, which does not detect a truncated body. `closing` keeps the wrapper
        # that does.
        with closing(body):
            while True:
                began = time.monotonic()
                piece = body.read(READ_BYTES)
                waited = time.monotonic() - began
                if not piece:
                    return
                seconds += waited
                count += len(piece)
                # `behind` never falls below 0. So a fast start does not extend the time that a slow body has later.
                behind = max(0.0, behind + waited - len(piece) / MIN_BYTES_PER_SECOND)
                if behind > READ_SECONDS:
                    msg = f"{bucket}/{key}: the store at {self._endpoint} sent {count:,} bytes in {seconds:.0f} s"
                    raise BackendAwayError(msg)
                yield piece

    def _pages(self, bucket: str, prefix: str, **options: Any) -> Iterator[Any]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket(bucket), Prefix=prefix, **options
        )
        with self._errors(bucket, prefix, writing=True):
            yield from pages

    def _bucket(self, bucket: str) -> str:
        return bucket_name(self._prefix, bucket)

    @contextmanager
    def _errors(self, bucket: str, key: str, *, writing: bool = False, conditional: bool = False) -> Iterator[None]:
        """Turn an error of boto3 into an error of this package."""
        name = f"{bucket}/{key}"
        try:
            yield
        except ClientError as error:
            status, code = _status(error), _code(error)
            reason = f"{name} at {self._endpoint}: {code} ({status})"
            if status == _NOT_FOUND and conditional and code != "NoSuchBucket":
                # S3 answers 404 to a put with IfMatch if the object was removed since the caller read it.
                msg = f"{name} was removed since it was read"
                raise PreconditionFailedError(msg) from error
            if code == "NoSuchBucket" and writing:
                msg = f"the bucket {self._bucket(bucket)} does not exist at {self._endpoint}"
                raise BackendAwayError(msg, code="bucket_missing") from error
            if status == _NOT_FOUND and not writing:
                msg = f"{name} does not exist at {self._endpoint}"
                raise ObjectNotFoundError(msg) from error
            if status in _REFUSED_CONDITION and conditional:
                msg = f"{name} exists already or changed since it was read"
                raise PreconditionFailedError(msg) from error
            if status in _AWAY_STATUSES or status >= 500 or status in {_NOT_FOUND, 409} or code == "SlowDown":  # noqa: PLR2004 - HTTP statuses
                away = "access_denied" if status in {401, 403} else None
                raise BackendAwayError(reason, code=away) from error
            raise RejectedError(reason, code="store_refused") from error
        except BotoCoreError as error:
            msg = f"{name}: the store at {self._endpoint} does not answer ({type(error).__name__}: {error})"
            raise BackendAwayError(msg) from error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _info(key: str, answer: Any) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=int(answer["ContentLength"]),
        etag=answer["ETag"],
        modified=answer["LastModified"].timestamp(),
    )


def _regroup(chunks: Iterable[bytes], part_bytes: int) -> Iterator[bytes]:
    """Yield the same bytes in parts of equal size; the last part may be smaller."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= part_bytes:
            yield bytes(memoryview(waiting)[:part_bytes])
            del waiting[:part_bytes]
    if waiting:
        yield bytes(waiting)


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
