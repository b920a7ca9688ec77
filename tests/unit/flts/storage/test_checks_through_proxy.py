"""A slow, silent or stalling store is reported at start with address and step, within the timeout."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from flts.errors import BackendAwayError
from flts.settings import StoreSettings
from flts.storage.checks import check_store
from flts.storage.s3 import S3Store
from tests.backends_away import port_of
from tests.faulty_proxy import BLACKHOLE, PASS, REFUSE, FaultyProxy, Mode, slow, stall_after
from tests.tiny_s3 import running_s3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    with running_s3(tmp_path_factory.mktemp("s3")) as settings:
        yield settings


@pytest.mark.parametrize(
    ("mode", "step", "seconds"),
    [
        (REFUSE, "ensure buckets", 1),
        (BLACKHOLE, "ensure buckets", 1),
        (slow(1000), "", 1),
        # 3 s, because the steps before this step also need time.
        (stall_after(64 * 1024), "put, read and delete 8 MiB", 3),
    ],
    ids=["refused", "black hole", "1 KB/s", "stalls after 64 KiB"],
)
def test_a_store_that_cannot_be_worked_with_is_named_in_time(
    server: StoreSettings, mode: Mode, step: str, seconds: float
) -> None:
    with FaultyProxy(port_of(server), mode=mode) as proxy:
        settings = server.model_copy(update={"mlflow_s3_endpoint_url": proxy.url, "backend_check_seconds": seconds})
        store = S3Store(settings)
        began = time.monotonic()

        with pytest.raises(BackendAwayError) as raised:
            check_store(store, settings)

    assert time.monotonic() - began < seconds + 10
    assert str(raised.value).startswith(f"store {proxy.url}: '{step}")
    assert f"did not succeed within {seconds:g} s" in str(raised.value)


def test_a_store_behind_a_proxy_that_lets_everything_pass_is_fine(server: StoreSettings) -> None:
    with FaultyProxy(port_of(server), mode=PASS) as proxy:
        settings = server.model_copy(update={"mlflow_s3_endpoint_url": proxy.url})

        check_store(S3Store(settings), settings)
