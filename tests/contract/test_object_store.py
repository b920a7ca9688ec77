from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flts.errors import (
    BackendAwayError,
    HashMismatchError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RejectedError,
)
from flts.settings import StoreSettings
from flts.storage.checks import check_store
from flts.storage.claims import check_claimed, put_claimed, read_claimed
from flts.storage.connect import open_store
from flts.storage.filesystem import FilesystemStore
from flts.storage.ports import ObjectStore
from flts.storage.s3 import PART_BYTES, S3Store
from tests.stores import (
    OTHER_S3_VARIABLES,
    S3_VARIABLES,
    all_buckets,
    folder_settings,
    overwrite,
    race,
    refused,
    s3_settings,
    why_no_s3,
)

BUCKET = "raw-data"


class ObjectStoreContract:
    """The promises of every adapter; a subclass provides ``settings``, ``prefix`` and ``store``."""

    settings: StoreSettings
    prefix = ""

    def test_returns_the_bytes_it_was_given(self, store: ObjectStore) -> None:
        before = time.time()
        put = store.put(BUCKET, "folder/object.bin", bytes(range(256)))

        data, info = store.get(BUCKET, "folder/object.bin")

        assert data == bytes(range(256))
        assert (info.key, info.size, info.etag) == ("folder/object.bin", 256, put.etag)
        assert store.head(BUCKET, "folder/object.bin") == info
        assert before - 5 < info.modified < time.time() + 5

    def test_keeps_keys_with_spaces_signs_and_letters_of_any_alphabet(self, store: ObjectStore) -> None:
        keys = sorted(["a b/c+d%20.csv", "Barcelona é/ü=1&2.csv", "日本/語.csv", "q?/#.csv"], key=str.encode)

        for key in keys:
            store.put(BUCKET, f"odd/{key}", key.encode())

        assert [info.key for info in store.list(BUCKET, "odd/")] == [f"odd/{key}" for key in keys]
        assert [store.get(BUCKET, f"odd/{key}")[0].decode() for key in keys] == keys

    def test_holds_an_empty_object(self, store: ObjectStore) -> None:
        store.put(BUCKET, "empty", b"")

        assert store.get(BUCKET, "empty")[0] == b""
        assert list(store.stream(BUCKET, "empty")) == []
        assert store.copy(BUCKET, "empty", "empty-too").size == 0

    def test_gives_other_bytes_another_etag(self, store: ObjectStore) -> None:
        etags = [store.put(BUCKET, "changing", str(number).encode()).etag for number in range(20)]

        assert len(set(etags)) == 20

    def test_creates_only_where_nothing_is(self, store: ObjectStore) -> None:
        store.put(BUCKET, "once", b"first", create_only=True)

        with pytest.raises(PreconditionFailedError):
            store.put(BUCKET, "once", b"second", create_only=True)

        assert store.get(BUCKET, "once")[0] == b"first"

    def test_creates_again_after_a_delete(self, store: ObjectStore) -> None:
        store.put(BUCKET, "deleted/once", b"first", create_only=True)
        store.delete(BUCKET, "deleted/once")

        store.put(BUCKET, "deleted/once", b"second", create_only=True)

        assert store.get(BUCKET, "deleted/once")[0] == b"second"

    def test_replaces_only_what_was_read(self, store: ObjectStore) -> None:
        stale = store.put(BUCKET, "pointer", b"first").etag
        fresh = store.put(BUCKET, "pointer", b"second", if_match=stale).etag

        with pytest.raises(PreconditionFailedError):
            store.put(BUCKET, "pointer", b"third", if_match=stale)

        assert store.get(BUCKET, "pointer")[0] == b"second"
        assert store.put(BUCKET, "pointer", b"fourth", if_match=fresh).size == 6

    def test_replaces_nothing_where_nothing_is(self, store: ObjectStore) -> None:
        etag = store.put(BUCKET, "gone", b"first").etag
        store.delete(BUCKET, "gone")

        with pytest.raises(PreconditionFailedError):
            store.put(BUCKET, "gone", b"second", if_match=etag)

        with pytest.raises(ObjectNotFoundError):
            store.head(BUCKET, "gone")

    def test_says_that_an_object_is_not_there(self, store: ObjectStore, tmp_path: Path) -> None:
        missing = "no/such/object"
        reads: dict[str, Callable[[], object]] = {
            "get": lambda: store.get(BUCKET, missing),
            "head": lambda: store.head(BUCKET, missing),
            "stream": lambda: next(store.stream(BUCKET, missing)),
            "get_file": lambda: store.get_file(BUCKET, missing, tmp_path / "object"),
            "copy": lambda: store.copy(BUCKET, missing, "copy"),
        }

        for name, read in reads.items():
            with pytest.raises(ObjectNotFoundError, match=missing):
                read()
            assert list(tmp_path.glob("*bject*")) == [], name
        store.delete(BUCKET, missing)

    def test_does_not_take_a_folder_for_an_object(self, store: ObjectStore) -> None:
        store.put(BUCKET, "folder/inside", b"x")

        with pytest.raises(ObjectNotFoundError):
            store.get(BUCKET, "folder")
        with pytest.raises(ObjectNotFoundError):
            store.get(BUCKET, "folder/inside/deeper")
        store.delete(BUCKET, "folder")
        assert store.get(BUCKET, "folder/inside")[0] == b"x"

    def test_lists_in_the_order_of_keys_past_a_page(self, store: ObjectStore) -> None:
        keys = ["many.txt", "many/0/x", *(f"many/{number:04d}" for number in range(1003)), "many0"]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: store.put(BUCKET, key, b"x"), keys))

        assert [info.key for info in store.list(BUCKET, "many")] == sorted(keys)
        assert [info.key for info in store.list(BUCKET, "many/100")] == ["many/1000", "many/1001", "many/1002"]
        assert [info.size for info in store.list(BUCKET, "many/0/")] == [1]
        assert list(store.list(BUCKET, "nothing/here")) == []

    def test_lists_the_folders_below_a_prefix(self, store: ObjectStore) -> None:
        for key in ("b/2/x", "b/10/y/z", "b/10.1/y", "b/file", "a/1"):
            store.put(BUCKET, f"tree/{key}", b"x")

        assert list(store.list_folders(BUCKET, "tree/")) == ["a", "b"]
        assert list(store.list_folders(BUCKET, "tree/b/")) == ["10.1", "10", "2"]
        assert list(store.list_folders(BUCKET, "tree/a/")) == []
        assert list(store.list_folders(BUCKET, "none/")) == []
        assert "tree" in list(store.list_folders(BUCKET))

    def test_forgets_a_folder_with_its_last_object(self, store: ObjectStore) -> None:
        store.put(BUCKET, "brief/a/b/c", b"x")
        store.delete(BUCKET, "brief/a/b/c")

        assert list(store.list_folders(BUCKET, "brief/")) == []
        store.put(BUCKET, "brief/a", b"now an object")
        assert store.get(BUCKET, "brief/a")[0] == b"now an object"

    @pytest.mark.parametrize("size", [0, 1000, PART_BYTES, PART_BYTES + 1])
    def test_takes_and_returns_files(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(os.urandom(size))

        put = store.put_file(BUCKET, f"files/{size}", source)
        got = store.get_file(BUCKET, f"files/{size}", target)

        assert target.read_bytes() == source.read_bytes()
        assert put.size == got.size == size
        assert put.etag == got.etag

    @pytest.mark.parametrize("size", [10, PART_BYTES + 10])
    def test_creates_a_file_or_a_copy_only_where_nothing_is(
        self, store: ObjectStore, tmp_path: Path, size: int
    ) -> None:
        source = tmp_path / "source"
        source.write_bytes(os.urandom(size))
        store.put(BUCKET, f"taken/{size}", b"first")
        store.put_file(BUCKET, f"copied/{size}", source, create_only=True)

        assert refused(lambda: store.put_file(BUCKET, f"taken/{size}", source, create_only=True))
        assert refused(lambda: store.copy(BUCKET, f"copied/{size}", f"taken/{size}", create_only=True))

        assert store.get(BUCKET, f"taken/{size}")[0] == b"first"

    @pytest.mark.parametrize("size", [10, PART_BYTES + 10])
    def test_copies(self, store: ObjectStore, size: int) -> None:
        data = os.urandom(size)
        store.put_stream(BUCKET, f"original/{size}", [data])

        info = store.copy(BUCKET, f"original/{size}", f"copy/{size}", create_only=True)

        assert store.get(BUCKET, f"copy/{size}")[0] == data
        assert info.size == size

    def test_takes_and_yields_streams_in_chunks(self, store: ObjectStore) -> None:
        chunks = [os.urandom(3_000_001) for _ in range(6)]

        info = store.put_stream(BUCKET, "streamed", iter(chunks))

        got = list(store.stream(BUCKET, "streamed", chunk_bytes=1_000_000))
        assert b"".join(got) == b"".join(chunks)
        assert max(map(len, got)) <= 1_000_000
        assert info.size == 18_000_006

    @pytest.mark.parametrize("chunks_before", [0, 1, 4])
    def test_leaves_nothing_of_a_stream_that_breaks(self, store: ObjectStore, chunks_before: int) -> None:
        def broken() -> Iterator[bytes]:
            for _ in range(chunks_before):
                yield bytes(5_000_000)
            msg = "the uploader went away"
            raise ConnectionResetError(msg)

        store.put(BUCKET, "kept", b"before")
        for key in ("kept", "never"):
            with pytest.raises(ConnectionResetError, match="went away"):
                store.put_stream(BUCKET, f"{key}", broken())

        assert store.get(BUCKET, "kept")[0] == b"before"
        assert list(store.list(BUCKET, "never")) == []
        self.assert_nothing_unseen(store)

    def assert_nothing_unseen(self, store: Any) -> None:
        raise NotImplementedError

    @pytest.mark.parametrize(
        "key",
        ["", "/absolute", "../up", "a/../../up", "a/./b", "a//b", "a/", "a\0b", "a\nb", "a\\b", "x" * 256, "é" * 128,
         "/".join(["x" * 100] * 11), "\ud800"],
    )  # fmt: skip
    def test_refuses_keys_that_could_leave_the_bucket_or_fit_nowhere(self, store: ObjectStore, key: str) -> None:
        for call in (
            lambda: store.put(BUCKET, key, b"x"),
            lambda: store.put_stream(BUCKET, key, [b"x" * (PART_BYTES + 1)]),
            lambda: store.get(BUCKET, key),
            lambda: store.head(BUCKET, key),
            lambda: store.delete(BUCKET, key),
        ):
            with pytest.raises(RejectedError) as refusal:
                call()
            assert refusal.value.code == "bad_key"

    @pytest.mark.parametrize("bucket", ["..", "a", "UPPER", ".flts", "a/b", "a\0b"])
    def test_refuses_names_that_are_no_bucket(self, store: ObjectStore, bucket: str) -> None:
        with pytest.raises(RejectedError) as refusal:
            store.put(bucket, "key", b"x")
        assert refusal.value.code == "bad_bucket"

    def test_says_that_a_bucket_is_missing(self, store: ObjectStore) -> None:
        for call in (
            lambda: store.put("no-such-bucket", "key", b"x"),
            lambda: store.put_stream("no-such-bucket", "key", [b"x" * (PART_BYTES + 1)]),
            lambda: list(store.list("no-such-bucket")),
        ):
            with pytest.raises(BackendAwayError, match="no-such-bucket") as refusal:
                call()
            assert refusal.value.code == "bucket_missing"
        with pytest.raises(ObjectNotFoundError):
            store.get("no-such-bucket", "key")

    def test_makes_a_bucket_as_often_as_it_is_asked(self, store: ObjectStore) -> None:
        store.put(BUCKET, "stays", b"x")

        store.ensure_bucket(BUCKET)

        assert store.get(BUCKET, "stays")[0] == b"x"

    def test_reads_one_version_while_another_is_written(self, store: ObjectStore) -> None:
        store.put_stream(BUCKET, "versions", [b"a" * 3_000_000])
        chunks = store.stream(BUCKET, "versions", chunk_bytes=100_000)
        first = next(chunks)

        store.put_stream(BUCKET, "versions", [b"b" * 3_000_000])

        # The object was replaced during this read. The server may end the stream, but it must not continue with the new
        # bytes.
        try:
            rest = b"".join(chunks)
        except BackendAwayError:
            return
        assert set(first + rest) == {ord("a")}

    def test_lets_one_of_24_writers_in_6_processes_win(self, store: ObjectStore) -> None:
        store.put(BUCKET, "race/counter", b"0")
        begin = time.time() + 2.5
        names = [f"writer-{number}" for number in range(24)]
        with ProcessPoolExecutor(6, mp_context=multiprocessing.get_context("spawn")) as pool:
            answers = [
                pool.submit(race, self.settings, self.prefix, begin, names[start : start + 4], BUCKET)
                for start in range(0, 24, 4)
            ]
            results = [answer.result() for answer in answers]

        assert [failure for _, failures in results for failure in failures] == []
        winners = [winner for some, _ in results for winner in some]
        assert [store.get(BUCKET, "race/winner")[0].decode()] == winners
        assert store.get(BUCKET, "race/counter")[0] == b"24"

    @pytest.mark.parametrize("size", [1000, PART_BYTES + 1])
    def test_gives_what_a_claim_promises_and_nothing_else(self, store: ObjectStore, size: int) -> None:
        right = os.urandom(size)
        claim = put_claimed(store, BUCKET, f"claimed/{size}", right)
        # The test stores the same content again; put_stream uploads a large object in parts. The claim must still
        # match.
        store.put_stream(BUCKET, f"claimed/{size}", [right])
        assert read_claimed(store, claim) == right
        check_claimed(store, claim)

        for wrong in (right[:-1] + bytes([right[-1] ^ 1]), right[:-1], right + b"x", b""):
            store.put_stream(BUCKET, f"claimed/{size}", [wrong])
            for read in (read_claimed, check_claimed):
                with pytest.raises(HashMismatchError, match=f"claimed/{size}"):
                    read(store, claim)

    def test_adopts_what_another_writer_had_put_under_the_same_key(self, store: ObjectStore) -> None:
        first = put_claimed(store, BUCKET, "adopted", b"first")

        assert put_claimed(store, BUCKET, "adopted", b"second") == first
        assert read_claimed(store, first) == b"first"

    def test_passes_the_check_that_services_make_at_start(self, store: ObjectStore) -> None:
        check_store(store, self.settings)

        assert list(store.list(self.settings.bucket_pipeline_runs, "_probe/")) == []


class TestFilesystemStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FilesystemStore:
        self.settings = folder_settings(tmp_path / "store")
        store = open_store(self.settings)
        store.ensure_bucket(BUCKET)
        assert isinstance(store, FilesystemStore)
        return store

    def assert_nothing_unseen(self, store: FilesystemStore) -> None:
        assert list(store._temporary.iterdir()) == []

    def test_never_shows_half_an_object_while_it_is_overwritten(self, store: FilesystemStore) -> None:
        store.put(BUCKET, "torn", b"a" * 2**20)
        seen = {store.get(BUCKET, "torn")[1].etag}
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            writer = pool.submit(overwrite, self.settings, BUCKET, "torn", "ab", 100)
            while not writer.done():
                data, info = store.get(BUCKET, "torn")
                assert len(data) == info.size == 2**20
                assert data in {b"a" * 2**20, b"b" * 2**20}
                seen.add(info.etag)

        seen.add(store.get(BUCKET, "torn")[1].etag)
        assert writer.result() == 100
        assert len(seen) > 1

    def test_shows_nothing_of_a_writer_killed_in_the_middle(self, store: FilesystemStore) -> None:
        def slow() -> Iterator[bytes]:
            yield b"x" * 1000
            os.kill(os.getpid(), signal.SIGKILL)

        writer = multiprocessing.get_context("fork").Process(
            target=lambda: store.put_stream(BUCKET, "killed", slow()), daemon=True
        )
        writer.start()
        writer.join(10)

        assert writer.exitcode == -signal.SIGKILL
        assert list(store.list(BUCKET)) == []
        [left] = store._temporary.iterdir()
        os.utime(left, (0, 0))
        store.ensure_bucket(BUCKET)
        assert list(store._temporary.iterdir()) == []

    def test_creates_and_deletes_side_by_side(self, store: FilesystemStore) -> None:
        def churn(number: int) -> None:
            for _ in range(30):
                store.put(BUCKET, f"churn/deep/er/{number}", b"x")
                store.delete(BUCKET, f"churn/deep/er/{number}")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(churn, range(8)))

        assert list(store.list(BUCKET)) == []

    def test_a_folder_that_is_gone_again_before_it_is_looked_at_is_made_once_more(
        self, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mkdir, refused_once = Path.mkdir, []

        def made_by_another_and_removed(path: Path, *arguments: object, **options: object) -> None:
            if path.name == "deep" and not refused_once:
                refused_once.append(path)
                raise FileExistsError(errno.EEXIST, "File exists", str(path))
            mkdir(path, *arguments, **options)  # type: ignore[arg-type] # passes on the caller's arguments

        monkeypatch.setattr(Path, "mkdir", made_by_another_and_removed)

        store.put(BUCKET, "deep/object", b"x")

        assert refused_once
        assert store.get(BUCKET, "deep/object")[0] == b"x"

    @pytest.mark.parametrize("call", ["link", "replace"])
    def test_an_object_may_be_removed_right_after_it_was_written(
        self, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        place = getattr(os, call)

        def placed_and_removed(source: Path, target: Path) -> None:
            place(source, target)
            target.unlink()

        monkeypatch.setattr(os, call, placed_and_removed)

        assert store.put(BUCKET, "mark", b"x", create_only=call == "link").size == 1

    def test_refuses_a_key_that_is_also_a_folder(self, store: FilesystemStore) -> None:
        store.put(BUCKET, "both/inside", b"x")

        for key in ("both", "both/inside/deeper"):
            for create_only in (False, True):
                with pytest.raises(RejectedError, match="also a folder") as refusal:
                    store.put(BUCKET, key, b"x", create_only=create_only)
                assert refusal.value.code == "bad_key"

    def test_follows_no_link_out_of_its_folder(self, store: FilesystemStore, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "store" / BUCKET / "link").symlink_to(tmp_path / "secret")

        with pytest.raises((ObjectNotFoundError, RejectedError)):
            store.get(BUCKET, "link")
        with pytest.raises(ObjectNotFoundError):
            store.head(BUCKET, "link")
        assert list(store.list(BUCKET)) == []

    def test_keeps_two_installations_apart_by_their_prefix(self, store: FilesystemStore, tmp_path: Path) -> None:
        other = open_store(self.settings, "Two-")
        other.ensure_bucket(BUCKET)
        store.put(BUCKET, "key", b"one")

        assert list(other.list(BUCKET)) == []
        assert (tmp_path / "store" / "two-raw-data").is_dir()

    def test_says_where_it_cannot_write(self, store: FilesystemStore, tmp_path: Path) -> None:
        in_the_way = tmp_path / "store" / ".flts" / "tmp"
        in_the_way.rmdir()
        in_the_way.write_text("a file where the folder should be")

        with pytest.raises(BackendAwayError, match=str(tmp_path)):
            store.put(BUCKET, "key", b"x", create_only=True)


class S3Contract(ObjectStoreContract):
    """The suite on a real server, whose address and keys are in three environment variables."""

    variables: tuple[str, ...]

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls) -> Iterator[S3Store]:
        # Other test runs may use the same S3 server. So this test run has buckets with its own prefix and empties them
        # afterwards.
        cls.settings = s3_settings(cls.variables)
        cls.prefix = f"t{uuid.uuid4().hex[:8]}-"
        store = open_store(cls.settings, cls.prefix)
        assert isinstance(store, S3Store)
        store.ensure_bucket(BUCKET)
        yield store
        for bucket in all_buckets(cls.settings):
            name = f"{cls.prefix}{bucket}"
            try:
                keys = [info.key for info in store.list(bucket)]
            except BackendAwayError:
                continue
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda key, bucket=bucket: store.delete(bucket, key), keys))
            store._client.delete_bucket(Bucket=name)

    @pytest.fixture
    def store(self, made: S3Store) -> S3Store:
        return made

    def assert_nothing_unseen(self, store: S3Store) -> None:
        uploads = store._client.list_multipart_uploads(Bucket=f"{self.prefix}{BUCKET}").get("Uploads", [])
        assert uploads == []


@pytest.mark.skipif(why_no_s3() is not None, reason=str(why_no_s3()))
class TestS3Store(S3Contract):
    variables = S3_VARIABLES


@pytest.mark.skipif(why_no_s3(OTHER_S3_VARIABLES) is not None, reason=str(why_no_s3(OTHER_S3_VARIABLES)))
class TestAnotherS3Server(S3Contract):
    variables = OTHER_S3_VARIABLES

    @pytest.mark.skipif(why_no_s3() is not None, reason=str(why_no_s3()))
    def test_is_of_another_make_than_the_first(self, store: S3Store) -> None:
        first = S3Store(s3_settings())

        makes = [
            each._client.list_buckets()["ResponseMetadata"]["HTTPHeaders"].get("server", each.address)
            for each in (first, store)
        ]

        assert makes[0] != makes[1]
