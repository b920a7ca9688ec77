"""The part of an S3 server that the adapter uses, in memory: ``python -m tests.tiny_s3 --port P``.

For tests of faults and of services on a machine without a real server; the contract suite tests real servers.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from embedded.ports import free_port
from flts.settings import StoreSettings
from tests.brokers import ROOT, takes_connections
from tests.eventually import eventually

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Object:
    data: bytes
    modified: float = field(default_factory=time.time)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'


class Buckets:
    """The objects and the unfinished uploads of the server."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.objects: dict[str, dict[str, Object]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    buckets: Buckets

    def do(self) -> None:
        split = urlsplit(self.path)
        self.bucket, _, self.key = unquote(split.path).lstrip("/").partition("/")
        self.query = {name: values[0] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.buckets.lock:
            status, headers, body = self._answer()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_expect_100(self) -> bool:
        granted = super().handle_expect_100()
        self.wfile.flush()  # without a flush the client waits a second for "100 Continue" before each body
        return granted

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do  # noqa: N815 - http.server calls these names

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self) -> tuple[int, dict[str, str], bytes]:
        buckets = self.buckets.objects
        if not self.key and self.command == "PUT":
            buckets.setdefault(self.bucket, {})
            return 200, {}, b""
        if self.bucket not in buckets:
            return _error(404, "NoSuchBucket")
        if not self.key:
            return (200, {}, b"") if self.command == "HEAD" else self._list(buckets[self.bucket])
        return getattr(self, f"_{self.command.lower()}")(buckets[self.bucket])  # type: ignore[no-any-return]

    def _put(self, objects: dict[str, Object]) -> tuple[int, dict[str, str], bytes]:
        upload = self.query.get("uploadId")
        if upload is not None:
            if upload not in self.buckets.uploads:
                return _error(404, "NoSuchUpload")
            data = self._part_source() if "x-amz-copy-source" in self.headers else self.body
            self.buckets.uploads[upload][int(self.query["partNumber"])] = data
            etag = Object(data).etag
            return 200, {"ETag": etag}, f"<CopyPartResult><ETag>{escape(etag)}</ETag></CopyPartResult>".encode()
        return self._store(objects, self.body)

    def _post(self, objects: dict[str, Object]) -> tuple[int, dict[str, str], bytes]:
        if "uploads" in self.query:
            upload = uuid.uuid4().hex
            self.buckets.uploads[upload] = {}
            body = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return 200, {}, body.encode()
        parts = self.buckets.uploads.get(self.query["uploadId"])
        if parts is None:
            return _error(404, "NoSuchUpload")
        status, headers, body_bytes = self._store(objects, b"".join(data for _, data in sorted(parts.items())))
        if status != 200:
            return status, headers, body_bytes
        del self.buckets.uploads[self.query["uploadId"]]
        result = f"<CompleteMultipartUploadResult><ETag>{headers['ETag']}</ETag></CompleteMultipartUploadResult>"
        return 200, {}, result.encode()

    def _get(self, objects: dict[str, Object]) -> tuple[int, dict[str, str], bytes]:
        found = objects.get(self.key)
        if found is None:
            return _error(404, "NoSuchKey")
        return 200, {"ETag": found.etag, "Last-Modified": formatdate(found.modified, usegmt=True)}, found.data

    def _head(self, objects: dict[str, Object]) -> tuple[int, dict[str, str], bytes]:
        return self._get(objects)

    def _delete(self, objects: dict[str, Object]) -> tuple[int, dict[str, str], bytes]:
        if "uploadId" in self.query:
            self.buckets.uploads.pop(self.query["uploadId"], None)
        else:
            objects.pop(self.key, None)
        return 204, {}, b""

    def _store(self, objects: dict[str, Object], data: bytes) -> tuple[int, dict[str, str], bytes]:
        there, wanted = objects.get(self.key), self.headers.get("If-Match")
        if wanted is not None and there is None:
            return _error(404, "NoSuchKey")
        if (wanted is not None and there is not None and there.etag != wanted) or (
            there is not None and self.headers.get("If-None-Match") == "*"
        ):
            return _error(412, "PreconditionFailed")
        objects[self.key] = Object(data)
        return 200, {"ETag": objects[self.key].etag}, b""

    def _part_source(self) -> bytes:
        bucket, _, key = unquote(self.headers["x-amz-copy-source"]).lstrip("/").partition("/")
        data = self.buckets.objects[bucket][key].data
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("x-amz-copy-source-range", ""))
        return data if span is None else data[int(span[1]) : int(span[2]) + 1]

    def _list(self, objects: dict[str, Object]) -> tuple[int, dict[str, str], bytes]:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        after, most = self.query.get("continuation-token", ""), int(self.query.get("max-keys", PAGE))
        entries: dict[str, str] = {}
        for key in sorted(objects, key=str.encode):
            if not key.startswith(prefix):
                continue
            folder, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            name = f"{prefix}{folder}{delimiter}" if found else key
            if name in entries or name.encode() <= after.encode():
                continue
            if len(entries) == most:
                last = escape(list(entries)[-1])
                more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
                break
            entries[name] = _folder(name) if found else _entry(key, objects[key])
        else:
            more = "<IsTruncated>false</IsTruncated>"
        listing = "".join(entries.values())
        body = f"<ListBucketResult><EncodingType>url</EncodingType>{more}{listing}</ListBucketResult>"
        return 200, {}, body.encode()


@contextmanager
def running_s3(folder: Path) -> Iterator[StoreSettings]:
    """Run the server in a process of its own; yield the settings of a store on it."""
    port = free_port()
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.tiny_s3", "--port", str(port)], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        eventually(lambda: takes_connections(port), "an S3 server", timeout=30)
        yield StoreSettings(
            store="s3",
            mlflow_s3_endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="key",
            aws_secret_access_key="a-secret-of-the-tests",
        )
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    Handler.buckets = Buckets()
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    server.daemon_threads = True
    server.serve_forever()


def _entry(key: str, found: Object) -> str:
    modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(found.modified))
    return (
        f"<Contents><Key>{quote(key)}</Key><Size>{len(found.data)}</Size>"
        f"<ETag>{escape(found.etag)}</ETag><LastModified>{modified}</LastModified></Contents>"
    )


def _folder(name: str) -> str:
    return f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>"


def _error(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    return status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


if __name__ == "__main__":
    main()
