"""The object store in a folder, ``<root>/<bucket>/<key>``: writes are atomic, also with several processes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

from flts.errors import BackendAwayError, ObjectNotFoundError, PreconditionFailedError, RejectedError
from flts.storage.keys import bucket_name, check_key, check_prefix
from flts.storage.ports import ObjectInfo

_OWN_FOLDER = ".flts"  # no bucket name starts with a dot, so this folder is not a bucket
_LOCKS = 64  # lock files; several keys share a file, so that the number of files is constant
_LOCK_SECONDS = 10.0
_STALE_SECONDS = 24 * 3600.0  # seconds; older temporary files are removed, because their writers have ended by then
_CHUNK_BYTES = 1 << 20
_TRIES = 50  # attempts; a concurrent delete can remove the new, empty folder before the file is placed


class FilesystemStore:
    """Objects as files.

    An object is written to a temporary file outside the buckets and flushed to the disk. A create-only put then makes
    a hard link, which fails if the key exists. Any other put renames the file while it holds the lock of the key.

    Parameters
    ----------
    path : Path
        The root; it is created with the first bucket.
    prefix : str
        Prefix of the bucket names (``NAMESPACE_PREFIX``).
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self._root = Path(path).absolute()
        self._prefix = prefix
        self._temporary = self._root / _OWN_FOLDER / "tmp"
        self._locks = self._root / _OWN_FOLDER / "locks"

    @property
    def address(self) -> str:
        """The address of the store, for messages."""
        return f"file://{self._root}"

    def ensure_bucket(self, bucket: str) -> None:
        """Create the folder of the bucket unless it exists, and remove old temporary files of killed writers."""
        with self._errors(bucket, ""):
            for folder in (self._bucket(bucket), self._temporary, self._locks):
                folder.mkdir(parents=True, exist_ok=True)
            self._remove_stale()

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
        return self._write(bucket, key, (data,), create_only=create_only, if_match=if_match)

    def put_file(self, bucket: str, key: str, path: Path, *, create_only: bool = False) -> ObjectInfo:
        """Write a file as an object."""
        with Path(path).open("rb") as source:
            return self._write(bucket, key, _chunks(source, _CHUNK_BYTES), create_only=create_only)

    def put_stream(self, bucket: str, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """Write an object from chunks; write nothing if the iterable raises."""
        return self._write(bucket, key, chunks)

    def get(self, bucket: str, key: str) -> tuple[bytes, ObjectInfo]:
        """Return an object's bytes and its info."""
        with self._errors(bucket, key), self._open(bucket, key) as file:
            return file.read(), _info(key, os.fstat(file.fileno()))

    def get_file(self, bucket: str, key: str, path: Path) -> ObjectInfo:
        """Write an object's bytes to a file, which is created atomically."""
        part = Path(path).with_name(f".{Path(path).name}.{uuid.uuid4().hex}.part")
        try:
            with self._errors(bucket, key), self._open(bucket, key) as file, part.open("wb") as target:
                shutil.copyfileobj(file, target, _CHUNK_BYTES)
                info = _info(key, os.fstat(file.fileno()))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return info

    def stream(self, bucket: str, key: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield the bytes of an object in chunks, all of the version that was stored at the call."""
        with self._errors(bucket, key):
            file = self._open(bucket, key)
        return self._read_on(bucket, key, file, chunk_bytes)

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Return an object's info."""
        path = self._path(bucket, key)
        with self._errors(bucket, key):
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "no regular file", str(path))
            return _info(key, found)

    def list(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with ``prefix``, ordered by key."""
        self._require_bucket(bucket)
        folder, _, name = check_prefix(prefix).rpartition("/")
        base = self._bucket(bucket) / folder
        yield from self._walk(base, f"{folder}/" if folder else "", name)

    def list_folders(self, bucket: str, prefix: str = "") -> Iterator[str]:
        """Yield the distinct next path segments below ``prefix``, ordered."""
        self._require_bucket(bucket)
        base = self._bucket(bucket) / check_prefix(prefix).rstrip("/")
        for entry in _entries(base):
            if entry.is_dir(follow_symlinks=False) and _entries(Path(entry.path)):
                yield entry.name

    def copy(self, bucket: str, source_key: str, key: str, *, create_only: bool = False) -> ObjectInfo:
        """Copy an object within a bucket."""
        return self._write(bucket, key, self.stream(bucket, source_key), create_only=create_only)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object, and the folders that are empty afterwards."""
        path = self._path(bucket, key)
        with self._errors(bucket, key):
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
            with suppress(OSError):  # the folder is not empty, or was removed already
                for folder in path.relative_to(self._bucket(bucket)).parents[:-1]:
                    (self._bucket(bucket) / folder).rmdir()

    def _write(
        self,
        bucket: str,
        key: str,
        chunks: Iterable[bytes],
        *,
        create_only: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        path = self._path(bucket, key)
        self._require_bucket(bucket)
        temporary = self._temporary / uuid.uuid4().hex
        try:
            self._fill(bucket, key, temporary, chunks)
            with self._errors(bucket, key):
                # The info is read before the file is placed: another process may remove the object right after.
                if create_only:
                    info = _info(key, temporary.lstat())
                    self._place(path, lambda: os.link(temporary, path))
                    return info
                with self._locked(bucket, key):
                    self._check_etag(path, bucket, key, if_match)
                    _stamp(temporary, after=path)
                    info = _info(key, temporary.lstat())
                    self._place(path, lambda: os.replace(temporary, path))  # noqa: PTH105 - in the same form as os.link above
                    return info
        finally:
            with suppress(OSError):  # the error of the write is reported, not the error of the removal
                temporary.unlink(missing_ok=True)

    def _fill(self, bucket: str, key: str, temporary: Path, chunks: Iterable[bytes]) -> None:
        # `_errors` surrounds the calls of the file and not the iteration. So only errors of the file become store
        # errors, and an error of the iterable reaches the caller unchanged.
        with self._errors(bucket, key):
            self._temporary.mkdir(parents=True, exist_ok=True)
            file = temporary.open("xb")
        with file:
            for chunk in chunks:
                with self._errors(bucket, key):
                    file.write(chunk)
            with self._errors(bucket, key):
                file.flush()
                os.fsync(file.fileno())
        with self._errors(bucket, key):
            _stamp(temporary)

    def _place(self, path: Path, place: Callable[[], None]) -> None:
        for _ in range(_TRIES):
            try:
                made = _make_folders(path.parent)
            except (FileExistsError, NotADirectoryError) as error:
                _refuse_folder(path, error)
            if path.is_dir():
                _refuse_folder(path, None)
            try:
                place()
            except FileNotFoundError:
                continue  # a concurrent delete removed the empty folder, so it is created again
            except FileExistsError as error:
                msg = f"{path.relative_to(self._root)} exists already"
                raise PreconditionFailedError(msg) from error
            for folder in (path.parent, *made):
                _sync_folder(folder)
            return
        msg = f"the folder of {path} keeps vanishing"
        raise BackendAwayError(msg)

    def _check_etag(self, path: Path, bucket: str, key: str, if_match: str | None) -> None:
        if if_match is None:
            return
        try:
            found = _info(key, path.lstat()).etag
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found != if_match:
            msg = f"{bucket}/{key} changed since it was read"
            raise PreconditionFailedError(msg)

    def _open(self, bucket: str, key: str) -> BinaryIO:
        path = self._path(bucket, key)
        # O_NOFOLLOW: a symbolic link in the store must not open a file outside it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "no regular file", str(path))
        return os.fdopen(descriptor, "rb")

    def _read_on(self, bucket: str, key: str, file: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
        with file, self._errors(bucket, key):
            yield from _chunks(file, chunk_bytes)

    def _walk(self, folder: Path, before: str, name_prefix: str = "") -> Iterator[ObjectInfo]:
        for entry in _entries(folder):
            if not entry.name.startswith(name_prefix):
                continue
            key = before + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path), f"{key}/")
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # deleted after the listing
                    yield _info(key, entry.stat(follow_symlinks=False))

    def _bucket(self, bucket: str) -> Path:
        return self._root / bucket_name(self._prefix, bucket)

    def _path(self, bucket: str, key: str) -> Path:
        return self._bucket(bucket) / check_key(key)

    def _require_bucket(self, bucket: str) -> None:
        if not self._bucket(bucket).is_dir():
            msg = f"the bucket {self._bucket(bucket).name} does not exist at {self.address}"
            raise BackendAwayError(msg, code="bucket_missing")

    @contextmanager
    def _locked(self, bucket: str, key: str) -> Iterator[None]:
        name = f"{zlib.crc32(f'{self._bucket(bucket).name}/{key}'.encode()) % _LOCKS:02d}"
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / name).open("ab") as file:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        msg = f"another process holds the lock of {bucket}/{key} at {self.address}"
                        raise BackendAwayError(msg) from None
                    time.sleep(0.002)
            yield  # closing the file, or the end of the process, releases the lock

    @contextmanager
    def _errors(self, bucket: str, key: str) -> Iterator[None]:
        """Turn an operating system's error into an error of this package."""
        name = f"{bucket}/{key}"
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            msg = f"{name} does not exist at {self.address}"
            raise ObjectNotFoundError(msg) from error
        except OSError as error:
            msg = f"{name} at {self.address}: {error.strerror or error}"
            if error.errno in {errno.ELOOP, errno.ENAMETOOLONG}:
                raise RejectedError(msg, code="bad_key", field="key") from error
            raise BackendAwayError(msg) from error

    def _remove_stale(self) -> None:
        before = time.time() - _STALE_SECONDS
        for entry in _entries(self._temporary):
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    Path(entry.path).unlink()


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    etag = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
    return ObjectInfo(key=key, size=found.st_size, etag=etag, modified=found.st_mtime)


def _stamp(path: Path, after: Path | None = None) -> None:
    """Set a modification time in nanoseconds that is later than the time of the replaced file.

    The kernel's time moves in steps of milliseconds, and a later file can have the same inode. With this time, no two
    versions of a key have the same etag.
    """
    now = time.time_ns()
    if after is not None:
        with suppress(FileNotFoundError, NotADirectoryError):
            now = max(now, after.lstat().st_mtime_ns + 1)
    os.utime(path, ns=(now, now))


def _chunks(file: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    while chunk := file.read(chunk_bytes):
        yield chunk


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted as keys; an empty list if it does not exist or is not a folder."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=_key_order)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _key_order(entry: os.DirEntry[str]) -> bytes:
    # Sorts the entries of a folder in the order of the keys below them. A folder is compared as "a/", so "a.txt" comes
    # before the keys in the folder "a".
    return os.fsencode(f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)


def _make_folders(folder: Path) -> list[Path]:
    """Create a folder and its parents; return the folders whose entries changed, which the caller must fsync."""
    if folder.is_dir():
        return []
    above = _make_folders(folder.parent)
    # A concurrent delete may remove the folder at any moment; the caller then retries. `exist_ok` is not used,
    # because it checks the folder a second time and raises if the folder was removed in between.
    with suppress(FileNotFoundError):
        try:
            folder.mkdir()
        except FileExistsError:
            if not stat.S_ISDIR(folder.stat().st_mode):
                raise
    return [*above, folder.parent]


def _sync_folder(folder: Path) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refuse_folder(path: Path, cause: Exception | None) -> NoReturn:
    msg = f"no key is also a folder of another key: {path}"
    raise RejectedError(msg, code="bad_key", field="key") from cause
