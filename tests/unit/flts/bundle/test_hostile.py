"""The function that loads an untrusted bundle refuses every attack of the table and states the reason."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from flts.bundle import proof
from flts.bundle.format import Bundle
from flts.bundle.load import fetch_bundle
from flts.errors import RejectedError
from flts.storage.filesystem import FilesystemStore
from tests.hostile_bundles import ATTACKS, BUNDLES, Attack, honest, plant
from tests.made_series import make_series
from tests.serving import window_bundle


@pytest.fixture(scope="module")
def good() -> tuple[Bundle, bytes]:
    return window_bundle(make_series(400))


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    store = FilesystemStore(tmp_path / "store")
    store.ensure_bucket(BUNDLES)
    return store


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_hostile_bundle_is_refused_by_its_reason_and_whoever_asked_goes_on(
    store: FilesystemStore, good: tuple[Bundle, bytes], attack: Attack
) -> None:
    claim = plant(store, good[0], attack.make(*good))
    before = psutil.Process().memory_info().rss

    with pytest.raises(RejectedError) as refused:
        proof.prove(*fetch_bundle(store, claim))

    assert attack.words in refused.value.message
    assert len(refused.value.message) < 1000
    assert psutil.Process().memory_info().rss < before + 200 * 2**20
    assert not Path("/tmp/flts-unpickled").exists()
    assert not Path("/tmp/flts-unzipped").exists()
    proof.prove(*fetch_bundle(store, plant(store, good[0], honest(*good))))
