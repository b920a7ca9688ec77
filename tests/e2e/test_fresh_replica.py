"""A new inference replica with an empty disk starts while the store cannot be reached."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded.ports import free_port
from flts.settings import StoreSettings
from flts.storage.run_store import RunStore
from flts.storage.s3 import S3Store
from tests.backends_away import port_of, store_variables
from tests.eventually import eventually
from tests.faulty_proxy import BLACKHOLE, PASS, REFUSE, FaultyProxy, Mode, stall_after
from tests.serving import BUCKETS, promote, request_of, small_series, window_bundle
from tests.stack import ROOT
from tests.tiny_s3 import running_s3

pytestmark = pytest.mark.timeout(120)
SERIES = small_series()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Yield the settings of an S3 server that has one champion."""
    with running_s3(tmp_path_factory.mktemp("s3")) as settings:
        store = S3Store(settings)
        for bucket in BUCKETS:
            store.ensure_bucket(bucket)
        promote(store, RunStore(store, settings), window_bundle(SERIES))
        yield settings


def store_away(log: Path) -> bool:
    return b'"event": "store_away"' in log.read_bytes()


@pytest.mark.parametrize(
    "mode",
    [REFUSE, pytest.param(BLACKHOLE, marks=pytest.mark.long), pytest.param(stall_after(100), marks=pytest.mark.long)],
    ids=["refused", "black hole", "stalls"],
)
def test_it_is_alive_and_not_ready_until_the_store_answers(tmp_path: Path, server: StoreSettings, mode: Mode) -> None:
    port = free_port()
    with FaultyProxy(port_of(server), mode=mode) as proxy, (tmp_path / "log").open("wb") as log:
        environment = {
            **os.environ,
            **store_variables(server, proxy),
            "CACHE_DIR": str(tmp_path / "cache"),
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "SERVICE_HOST": "127.0.0.1",
            "SERVICE_PORT": str(port),
        }
        replica = subprocess.Popen(
            [sys.executable, "-m", "inference_container"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
                eventually(lambda: status_of(http, "/healthz") == 200, "a living replica", timeout=60)
                eventually(lambda: proxy.accepted or store_away(tmp_path / "log"), "it has asked the store")
                for _ in range(10):
                    ready = http.get("/readyz")
                    assert ready.status_code == 503
                    assert "the champions of the first list" in ready.text
                    assert http.get("/healthz").status_code == 200
                    assert http.post("/predict", json=request_of(SERIES)).status_code == 503
                    time.sleep(0.2)

                proxy.switch(PASS)

                eventually(lambda: status_of(http, "/readyz") == 200, "ready by itself", timeout=60)
                assert http.post("/predict", json=request_of(SERIES)).status_code == 200
        finally:
            replica.kill()
            replica.wait()


def status_of(http: httpx.Client, path: str) -> int:
    try:
        return http.get(path).status_code
    except httpx.TransportError:
        return 0
