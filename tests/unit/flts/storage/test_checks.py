from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from flts.errors import BackendAwayError, RejectedError
from flts.settings import StoreSettings
from flts.storage.checks import check_store
from flts.storage.filesystem import FilesystemStore
from flts.storage.ports import ObjectInfo

Condition = str | None


def settings(path: Path, seconds: float = 60) -> StoreSettings:
    return StoreSettings(store="filesystem", store_path=path, backend_check_seconds=seconds)


def test_a_good_store_has_all_buckets_afterwards_and_nothing_else(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)

    check_store(store, settings(tmp_path))

    buckets = {path.name for path in tmp_path.iterdir()} - {".flts"}
    assert buckets == {
        "raw-data",
        "processed-data",
        "model-bundles",
        "model-promotion",
        "pipeline-runs",
        "inference-logs",
    }
    assert all(list(store.list(bucket)) == [] for bucket in buckets)


@pytest.mark.parametrize(("ignored", "step"), [("create_only", "create-only put"), ("if_match", "put on a stale etag")])
def test_a_store_that_ignores_a_condition_is_refused(tmp_path: Path, ignored: str, step: str) -> None:
    class Forgetful(FilesystemStore):
        def put(
            self, bucket: str, key: str, data: bytes, *, create_only: bool = False, if_match: Condition = None
        ) -> ObjectInfo:
            if ignored == "create_only":
                return super().put(bucket, key, data, if_match=if_match)
            return super().put(bucket, key, data, create_only=create_only)

    with pytest.raises(RejectedError, match="conditional puts") as refusal:
        check_store(Forgetful(tmp_path), settings(tmp_path))

    assert refusal.value.code == "conditional_puts_ignored"
    assert f"'{step}'" in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


def test_a_store_that_returns_other_bytes_is_refused(tmp_path: Path) -> None:
    class Corrupting(FilesystemStore):
        def put_stream(self, bucket: str, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            return super().put_stream(bucket, key, [b"".join(chunks)[:-1] + b"?"])

    with pytest.raises(RejectedError, match="read and delete 8 MiB") as refusal:
        check_store(Corrupting(tmp_path), settings(tmp_path))

    assert refusal.value.code == "probe_differs"


def test_a_store_that_stalls_is_named_with_address_and_step_within_the_time(tmp_path: Path) -> None:
    let_go = threading.Event()

    class Stalling(FilesystemStore):
        def put_stream(self, bucket: str, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            let_go.wait(30)
            return super().put_stream(bucket, key, chunks)

    started = time.monotonic()
    try:
        with pytest.raises(BackendAwayError, match="put, read and delete 8 MiB") as refusal:
            check_store(Stalling(tmp_path), settings(tmp_path, seconds=1))
    finally:
        let_go.set()

    # Seconds; less than the 30 s of put_stream, so the check itself ended the wait.
    assert time.monotonic() - started < 25
    assert str(tmp_path) in str(refusal.value)


def test_a_store_that_comes_back_in_time_passes(tmp_path: Path) -> None:
    class Starting(FilesystemStore):
        refusals = 2

        def ensure_bucket(self, bucket: str) -> None:
            if self.refusals:
                self.refusals -= 1
                msg = "still starting"
                raise BackendAwayError(msg)
            super().ensure_bucket(bucket)

    store = Starting(tmp_path)

    check_store(store, settings(tmp_path))

    assert store.refusals == 0


def test_a_store_that_stays_away_is_said_to_be_with_its_reason(tmp_path: Path) -> None:
    class Away(FilesystemStore):
        def ensure_bucket(self, bucket: str) -> None:
            msg = f"no route to {bucket}"
            raise BackendAwayError(msg)

    with pytest.raises(BackendAwayError, match=r"'ensure buckets'.*no route to raw-data"):
        check_store(Away(tmp_path), settings(tmp_path, seconds=0.5))
