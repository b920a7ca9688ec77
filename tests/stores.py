"""Object stores for tests: a folder, and a real S3 server where the environment names one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flts.errors import PreconditionFailedError
from flts.settings import StoreSettings
from flts.storage.connect import open_store
from flts.storage.ports import ObjectStore

S3_VARIABLES = ("FLTS_TEST_S3_ENDPOINT", "FLTS_TEST_S3_ACCESS_KEY", "FLTS_TEST_S3_SECRET_KEY")
OTHER_S3_VARIABLES = ("FLTS_TEST_S3_2_ENDPOINT", "FLTS_TEST_S3_2_ACCESS_KEY", "FLTS_TEST_S3_2_SECRET_KEY")
"""A server of a second vendor: it may lack a behaviour that the first server has but does not guarantee."""


def folder_settings(path: Path) -> StoreSettings:
    return StoreSettings(store="filesystem", store_path=path)


def folder_store(path: Path) -> ObjectStore:
    """Return a store in a folder that has all buckets."""
    settings = folder_settings(path)
    store = open_store(settings)
    for bucket in all_buckets(settings):
        store.ensure_bucket(bucket)
    return store


def all_buckets(settings: StoreSettings) -> list[str]:
    return [
        settings.bucket_raw_data,
        settings.bucket_processed_data,
        settings.bucket_model_bundles,
        settings.promotion_bucket,
        settings.bucket_pipeline_runs,
        settings.bucket_inference_logs,
    ]


def why_no_s3(variables: tuple[str, ...] = S3_VARIABLES) -> str | None:
    """Return which variables of a real S3 server are missing, or None if all are set."""
    missing = [name for name in variables if not os.environ.get(name)]
    return f"no S3 server: {', '.join(missing)} not set" if missing else None


def s3_settings(variables: tuple[str, ...] = S3_VARIABLES) -> StoreSettings:
    endpoint, access_key, secret_key = (os.environ[name] for name in variables)
    return StoreSettings(
        store="s3",
        mlflow_s3_endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        allow_default_credentials=True,
    )


def race(
    settings: StoreSettings, prefix: str, begin: float, writers: list[str], bucket: str
) -> tuple[list[str], list[str]]:
    """Run one process of a race, each writer in a thread; return the writers that created the object, and the failures.

    Each writer then adds 1 to a counter by compare-and-set.
    """
    store = open_store(settings, prefix)

    def write(name: str) -> bool:
        time.sleep(max(0.0, begin - time.time()))  # all processes start at the same moment, to provoke a race
        try:
            store.put(bucket, "race/winner", name.encode(), create_only=True)
            won = True
        except PreconditionFailedError:
            won = False
        _increment(store, bucket)
        return won

    winners, failures = [], []
    with ThreadPoolExecutor(len(writers)) as pool:
        for name, answer in [(name, pool.submit(write, name)) for name in writers]:
            try:
                winners += [name] if answer.result() else []
            except Exception as error:  # noqa: BLE001 - returned, so that the test can check it
                failures.append(f"{name}: {error!r}")
    return winners, failures


def _increment(store: ObjectStore, bucket: str) -> None:
    for _ in range(10_000):
        data, info = store.get(bucket, "race/counter")
        try:
            store.put(bucket, "race/counter", str(int(data) + 1).encode(), if_match=info.etag)
        except PreconditionFailedError:
            continue
        return
    msg = "never got its turn"
    raise AssertionError(msg)


def overwrite(settings: StoreSettings, bucket: str, key: str, letters: str, times: int) -> int:
    """Overwrite an object ``times`` times with 1 MiB of one letter, each time the next letter; return ``times``."""
    store = open_store(settings)
    for count in range(times):
        store.put(bucket, key, letters[count % len(letters)].encode() * 2**20)
    return times


def refused(call: Callable[[], object]) -> bool:
    """Return whether a conditional put was refused."""
    try:
        call()
    except PreconditionFailedError:
        return True
    return False
